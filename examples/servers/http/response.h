/* SPDX-License-Identifier: MIT
 *
 * The head of a response, and the short pages that go with a status.
 */
#ifndef HTTP_RESPONSE_H
#define HTTP_RESPONSE_H

#include "buffer.h"

#include <stdbool.h>

/* What a response has to know of the request it answers. */
typedef struct response {
  buffer_t *out;   /* where it is written */
  int minor;       /* of the client's HTTP/1.minor */
  bool head_only;  /* HEAD: everything but the body */
  bool keep_alive; /* what we tell the client about the connection */
} response_t;

/* Writes the status line and the fields that every response has; then come response_field, and one of the other
 * two. */
void response_begin(const response_t *response, int status);
void response_field(const response_t *response, const char *name, const char *value);

/* Ends the head without or with a body. */
void response_end(const response_t *response);
void response_body(const response_t *response, const char *type, const void *body, size_t size);

/* Writes a whole response with a small HTML page. `sentence` says what happened: HTML, at most 200 characters.
 * `name` and `value` are one more field, or NULL. */
void response_page(const response_t *response, int status, const char *sentence, const char *name,
                   const char *value);

#endif
