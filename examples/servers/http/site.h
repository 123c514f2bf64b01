/* SPDX-License-Identifier: MIT
 *
 * What the server knows how to do: answer a request from the files beneath a directory. Knows no sockets and no
 * event loop.
 */
#ifndef HTTP_SITE_H
#define HTTP_SITE_H

#include "parser.h"
#include "response.h"

#include <stdint.h>

/* The part of a body that is too large to be copied: `count` bytes of `file` from `offset`. */
typedef struct site_rest {
  int file; /* the receiver closes it; -1: everything is in the buffer */
  int64_t offset, count;
} site_rest_t;

/* Writes the answer, all of it or all but *rest, to response->out. */
void site_answer(int root, const http_request_t *request, const response_t *response, site_rest_t *rest);

#endif
