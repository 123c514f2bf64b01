/* SPDX-License-Identifier: MIT
 *
 * Dates as HTTP writes them: "Sun, 06 Nov 1994 08:49:37 GMT".
 */
#ifndef HTTP_DATE_H
#define HTTP_DATE_H

#include <stdint.h>

enum { HTTP_DATE_SIZE = 30 }; /* with the NUL */

/* Writes the date of `seconds` since 1970. Years before 0 and after 9999 are written as these. */
void http_date_format(int64_t seconds, char text[HTTP_DATE_SIZE]);

/* The current date, worked out once a second and thread. Borrowed until the next call in this thread. */
const char *http_date_now(void);

/* Reads a date in any of the three forms of RFC 9110 (5.6.7). Returns seconds since 1970, or HTTP_DATE_NONE.
 * `now` decides which century a year of two digits belongs to. */
#define HTTP_DATE_NONE INT64_MIN
int64_t http_date_parse(const char *text, int64_t now);

#endif
