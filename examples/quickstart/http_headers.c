/* SPDX-License-Identifier: MIT
 *
 * Asks a web server for a page and prints the header of its answer, as in asyncio's manual.
 *
 *     http_headers HOST [PORT [PATH]]      default 80 and /
 *
 * A stream is a connection without callbacks: the task writes the request, then awaits line after line.
 */
#include <aloop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct page {
  const char *host;
  int port;
  const char *path;
} page_t;

static int64_t print_headers(aloop_stream_t *stream, const page_t *page) {
  char request[1024];
  const char *line;
  int64_t size;
  int length =
      snprintf(request, sizeof request, "HEAD %s HTTP/1.0\r\nHost: %s\r\n\r\n", page->path, page->host);
  if (length < 0 || (size_t)length >= sizeof request) return ALOOP_ENAMETOOLONG;
  int error = aloop_stream_write(stream, request, (size_t)length);
  if (error < 0) return error;
  while ((size = aloop_await(aloop_stream_readline(stream, &line))) > 0 && strcmp(line, "\r\n") != 0)
    printf("%s", line);
  return size < 0 ? size : 0;
}

static int64_t show_page(aloop_t *loop, void *arg) {
  const page_t *page = arg;
  aloop_connect_options_t options = {
      .size = sizeof options, .host = page->host, .port = page->port, .timeout = ALOOP_SECONDS(10)};
  aloop_stream_t *stream;
  int64_t rc = aloop_await_ptr(aloop_open_connection(loop, &options, NULL), &stream);
  if (rc < 0) return rc;
  rc = print_headers(stream, page);
  aloop_stream_unref(stream); /* closes the connection */
  return rc;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: http_headers HOST [PORT [PATH]]\n");
    return 2;
  }
  page_t page = {argv[1], argc > 2 ? (int)strtol(argv[2], NULL, 10) : 80, argc > 3 ? argv[3] : "/"};
  int64_t rc = aloop_run(show_page, &page, NULL);
  if (rc < 0) fprintf(stderr, "%s: %s\n", page.host, aloop_strerror(rc));
  return rc < 0 ? 1 : 0;
}
