/* SPDX-License-Identifier: MIT
 *
 * Decoding of request targets. Each segment is decoded on its own and judged afterwards, so no escape can hide
 * anything: what is checked is what will be opened. Four rules:
 *
 * - "." and ".." are refused. Clients resolve them before they send; who still sends them wants to climb.
 * - An encoded NUL is refused: the system would see a shorter name than we do.
 * - An encoded slash is in no file's name, so there is nothing to find.
 * - Names that start with a dot (.git, .htpasswd) are hidden, except .well-known, which RFC 8615 made for the
 *   public.
 *
 * This is the first of two walls: files.c has the kernel hold every name beneath the root, whatever came
 * through here.
 */
#include "target.h"

#include <string.h>
#include <strings.h>

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Decodes one segment of `size` bytes to `out`, which it ends with NUL. Returns 0 or a status. */
static int decode_segment(const char *text, size_t size, char *out) {
  size_t i = 0;
  while (i < size) {
    char c = text[i++];
    if (c == '%') {
      int high = i < size ? hex_digit(text[i]) : -1;
      int low = i + 1 < size ? hex_digit(text[i + 1]) : -1;
      if (high < 0 || low < 0) return 400;
      c = (char)(high * 16 + low);
      if (c == '\0') return 400;
      if (c == '/') return 404;
      i += 2;
    }
    *out++ = c;
  }
  *out = '\0';
  return 0;
}

static int judge_segment(const char *segment) {
  if (strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0) return 400;
  if (segment[0] == '.' && strcmp(segment, ".well-known") != 0) return 404;
  return 0;
}

/* "http://host/path" is as good as "/path" (RFC 9112, 3.2.2): returns where the path starts, or NULL. */
static const char *find_path(const char *text) {
  if (text[0] == '/') return text;
  if (strncasecmp(text, "http://", 7) == 0)
    text += 7;
  else if (strncasecmp(text, "https://", 8) == 0)
    text += 8;
  else
    return NULL;
  return text + strcspn(text, "/?");
}

int http_target_parse(const char *text, char *path, http_target_t *result) {
  const char *at = find_path(text);
  if (at == NULL) return 400;
  const char *end = at + strcspn(at, "?");
  bool slash = end == at || end[-1] == '/';
  char *out = path;
  *out = '\0';
  while (at < end) {
    const char *slash_at = memchr(at, '/', (size_t)(end - at));
    size_t size = (size_t)((slash_at != NULL ? slash_at : end) - at);
    if (size > 0) {
      if (out > path) *out++ = '/';
      int status = decode_segment(at, size, out);
      if (status == 0) status = judge_segment(out);
      if (status != 0) return status;
      out += strlen(out);
    }
    at += size + (slash_at != NULL);
  }
  *result = (http_target_t){path, slash, end};
  return 0;
}
