/* SPDX-License-Identifier: MIT
 *
 * Media types. A short table, searched from the top: what a site has most comes first. Text is declared as
 * UTF-8, since a file does not say and everything else has died out. The list is not meant to be complete; what
 * is missing is downloaded instead of shown, which is the safe choice.
 */
#include "mime.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

static const struct {
  const char *extension, *type;
} types[] = {
    {"html", "text/html; charset=utf-8"},
    {"css", "text/css; charset=utf-8"},
    {"js", "text/javascript; charset=utf-8"},
    {"svg", "image/svg+xml"},
    {"png", "image/png"},
    {"jpg", "image/jpeg"},
    {"webp", "image/webp"},
    {"woff2", "font/woff2"},
    {"json", "application/json"},
    {"txt", "text/plain; charset=utf-8"},
    {"md", "text/markdown; charset=utf-8"},
    {"htm", "text/html; charset=utf-8"},
    {"mjs", "text/javascript; charset=utf-8"},
    {"map", "application/json"},
    {"wasm", "application/wasm"},
    {"jpeg", "image/jpeg"},
    {"gif", "image/gif"},
    {"avif", "image/avif"},
    {"ico", "image/x-icon"},
    {"mp4", "video/mp4"},
    {"webm", "video/webm"},
    {"mp3", "audio/mpeg"},
    {"ogg", "audio/ogg"},
    {"opus", "audio/ogg"},
    {"flac", "audio/flac"},
    {"wav", "audio/wav"},
    {"woff", "font/woff"},
    {"ttf", "font/ttf"},
    {"otf", "font/otf"},
    {"xml", "application/xml"},
    {"atom", "application/atom+xml"},
    {"pdf", "application/pdf"},
    {"csv", "text/csv; charset=utf-8"},
    {"c", "text/plain; charset=utf-8"},
    {"h", "text/plain; charset=utf-8"},
    {"sh", "text/plain; charset=utf-8"},
    {"log", "text/plain; charset=utf-8"},
    {"zip", "application/zip"},
    {"gz", "application/gzip"},
    {"tar", "application/x-tar"},
};

const char *http_mime_type(const char *path) {
  const char *name = strrchr(path, '/');
  const char *dot = strrchr(name != NULL ? name : path, '.');
  if (dot != NULL)
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
      if (strcasecmp(dot + 1, types[i].extension) == 0) return types[i].type;
  return "application/octet-stream";
}
