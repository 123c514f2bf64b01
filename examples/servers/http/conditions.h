/* SPDX-License-Identifier: MIT
 *
 * Conditional and partial requests: If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, Range and
 * If-Range. Pure.
 */
#ifndef HTTP_CONDITIONS_H
#define HTTP_CONDITIONS_H

#include "parser.h"

#include <stdint.h>

/* What is known about the file before a byte of it is read. */
typedef struct http_file {
  const char *etag; /* with its quotes; a strong one */
  int64_t modified; /* seconds since 1970 */
  int64_t size;
} http_file_t;

typedef struct http_verdict {
  int status;            /* 200, 206, 304, 412 or 416 */
  int64_t offset, count; /* what to send with 200 and 206 */
} http_verdict_t;

/* What to send to whom asks like this for a file like that, at `now` (seconds since 1970). */
http_verdict_t http_conditions_judge(const http_request_t *request, const http_file_t *file, int64_t now);

#endif
