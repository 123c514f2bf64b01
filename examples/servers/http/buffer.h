/* SPDX-License-Identifier: MIT
 *
 * A byte buffer that grows: responses are put together in one and sent with a single write. Running out of
 * memory sets `failed`, and later calls do nothing, so that it is enough to look once at the end.
 */
#ifndef HTTP_BUFFER_H
#define HTTP_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct buffer {
  char *data;
  size_t size;
  size_t capacity;
  bool failed;
} buffer_t;

/* Empties it. The memory stays for the next response, unless the last one was unusually large. */
void buffer_clear(buffer_t *buffer);

/* Releases the memory. */
void buffer_free(buffer_t *buffer);

/* Makes room for `size` bytes behind the end and returns where they go; the caller adds to buffer->size what it
 * filled in. NULL: out of memory. */
char *buffer_reserve(buffer_t *buffer, size_t size);

void buffer_add(buffer_t *buffer, const void *data, size_t size);
void buffer_text(buffer_t *buffer, const char *text);

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void buffer_format(buffer_t *buffer, const char *format, ...);

/* Text for HTML, also within quotes, and a path for a URL (slashes stay). */
void buffer_html(buffer_t *buffer, const char *text);
void buffer_url(buffer_t *buffer, const char *path);

#endif
