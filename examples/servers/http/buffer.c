/* SPDX-License-Identifier: MIT
 *
 * The growing byte buffer. Capacity doubles, so n bytes cost O(n) however they come. A server thread has one
 * buffer for all its connections, since a response is built and handed to the transport in one go.
 */
#include "buffer.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEEP_MAX = 256 * 1024 };

void buffer_free(buffer_t *buffer) {
  free(buffer->data);
  *buffer = (buffer_t){0};
}

void buffer_clear(buffer_t *buffer) {
  if (buffer->capacity > KEEP_MAX) buffer_free(buffer);
  buffer->size = 0;
  buffer->failed = false;
}

char *buffer_reserve(buffer_t *buffer, size_t size) {
  if (buffer->failed) return NULL;
  if (size > buffer->capacity - buffer->size) {
    size_t capacity = buffer->capacity > 0 ? buffer->capacity : 4096;
    while (capacity - buffer->size < size && capacity <= SIZE_MAX / 2) capacity *= 2;
    char *data = capacity - buffer->size >= size ? realloc(buffer->data, capacity) : NULL;
    if (data == NULL) {
      buffer->failed = true;
      return NULL;
    }
    buffer->data = data;
    buffer->capacity = capacity;
  }
  return buffer->data + buffer->size;
}

void buffer_add(buffer_t *buffer, const void *data, size_t size) {
  char *room = buffer_reserve(buffer, size);
  if (room == NULL) return;
  memcpy(room, data, size);
  buffer->size += size;
}

void buffer_text(buffer_t *buffer, const char *text) {
  buffer_add(buffer, text, strlen(text));
}

/* Most texts are short, and formatting is what a response spends most of its time with: it is tried at once,
 * and a second time only if the room was too small. */
void buffer_format(buffer_t *buffer, const char *format, ...) {
  size_t guess = 128;
  for (;;) {
    char *room = buffer_reserve(buffer, guess);
    if (room == NULL) return;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(room, guess, format, args);
    va_end(args);
    if (length < 0) return;
    if ((size_t)length < guess) {
      buffer->size += (size_t)length;
      return;
    }
    guess = (size_t)length + 1;
  }
}

void buffer_html(buffer_t *buffer, const char *text) {
  for (; *text != '\0'; text++) {
    switch (*text) {
    case '&':
      buffer_text(buffer, "&amp;");
      break;
    case '<':
      buffer_text(buffer, "&lt;");
      break;
    case '>':
      buffer_text(buffer, "&gt;");
      break;
    case '"':
      buffer_text(buffer, "&quot;");
      break;
    case '\'':
      buffer_text(buffer, "&#39;");
      break;
    default:
      buffer_add(buffer, text, 1);
    }
  }
}

static bool is_plain_in_url(char c) {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return c != '\0' && strchr("-._~/", c) != NULL;
}

void buffer_url(buffer_t *buffer, const char *path) {
  static const char hex[] = "0123456789ABCDEF";
  for (; *path != '\0'; path++) {
    unsigned char c = (unsigned char)*path;
    if (is_plain_in_url(*path))
      buffer_add(buffer, path, 1);
    else
      buffer_add(buffer, (char[3]){'%', hex[c >> 4], hex[c & 15]}, 3);
  }
}
