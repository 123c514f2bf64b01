/* SPDX-License-Identifier: MIT
 *
 * From the target of a request ("/a%20b/?q=1") to the name of a file beneath the root ("a b"). Pure: it looks
 * at no disk.
 */
#ifndef HTTP_TARGET_H
#define HTTP_TARGET_H

#include <stdbool.h>
#include <stddef.h>

typedef struct http_target {
  char *path;        /* decoded, relative, segments joined by single slashes; "" is the root itself */
  bool slash;        /* the target ended in a slash: it means a directory */
  const char *query; /* from the "?" on, as it was sent; "" if there is none */
} http_target_t;

/* Splits and decodes `text`, which stays as it is and has to live as long as the result. `path` has room for
 * strlen(text) + 1 bytes and becomes result->path. Returns 0, or the status to answer: 400 for a bad escape or
 * a path that climbs ("..", in whatever disguise), 404 for a name that cannot exist or is hidden. */
int http_target_parse(const char *text, char *path, http_target_t *result);

#endif
