/* SPDX-License-Identifier: MIT
 *
 * Gets a page over HTTPS and prints its body; follows one redirect.
 *
 *     https_get URL [CA_FILE]      https_get https://example.org/
 *
 * The server's certificate must be good for the host of the URL, and lead to a CA that the system believes in,
 * or to that of CA_FILE: a program that talks to somebody else is not told so by accident.
 */
#include <aloop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct url {
  char host[256];
  int port;
  char path[1024];
} url_t;

typedef struct page {
  aloop_tls_context_t *tls;
  const char *url;
} page_t;

/* https://HOST[:PORT][/PATH], or a path alone, on the same server. */
static int parse_url(const char *text, url_t *url) {
  static const char scheme[] = "https://";
  if (text[0] == '/') {
    snprintf(url->path, sizeof url->path, "%s", text);
    return 0;
  }
  if (strncmp(text, scheme, sizeof scheme - 1) != 0) return ALOOP_EINVAL;
  text += sizeof scheme - 1;
  size_t size = strcspn(text, ":/");
  if (size == 0 || size >= sizeof url->host) return ALOOP_EINVAL;
  memcpy(url->host, text, size);
  url->host[size] = '\0';
  text += size;
  url->port = 443;
  if (*text == ':') {
    char *end;
    url->port = (int)strtol(text + 1, &end, 10);
    text = end;
  }
  snprintf(url->path, sizeof url->path, "%s", *text == '/' ? text : "/");
  return 0;
}

/* The status, and where else to look. */
static int64_t read_head(aloop_stream_t *stream, char location[1024]) {
  static const char name[] = "location: ";
  const char *line;
  int64_t size, status = 0;
  location[0] = '\0';
  while ((size = aloop_await(aloop_stream_readline(stream, &line))) > 0 && strcmp(line, "\r\n") != 0) {
    if (status == 0 && size > 12) status = strtol(line + 9, NULL, 10);
    if (strncasecmp(line, name, sizeof name - 1) == 0)
      snprintf(location, 1024, "%.*s", (int)strcspn(line + sizeof name - 1, "\r\n"), line + sizeof name - 1);
  }
  return size < 0 ? size : status;
}

static int64_t print_body(aloop_stream_t *stream) {
  char data[4096]; /* a task's stack is small */
  int64_t size;
  while ((size = aloop_await(aloop_stream_read(stream, data, sizeof data))) > 0)
    fwrite(data, 1, (size_t)size, stdout);
  return size;
}

/* Returns the status; prints the body unless it is elsewhere. */
static int64_t get(aloop_t *loop, aloop_tls_context_t *tls, const url_t *url, char location[1024]) {
  char request[2048];
  aloop_connect_options_t options = {
      .size = sizeof options, .host = url->host, .port = url->port, .timeout = ALOOP_SECONDS(10), .tls = tls};
  aloop_stream_t *stream;
  aloop_future_t *opening = aloop_open_connection(loop, &options, NULL);
  int64_t rc = aloop_await_ptr(aloop_future_ref(opening), &stream);
  if (rc < 0) fprintf(stderr, "%s: %s\n", url->host, aloop_future_message(opening));
  aloop_future_unref(opening);
  if (rc < 0) return rc;
  int length = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n",
                        url->path, url->host);
  rc = aloop_stream_write(stream, request, (size_t)length);
  if (rc == 0) rc = read_head(stream, location);
  if (rc > 0 && (rc / 100 != 3 || location[0] == '\0')) {
    int64_t status = rc;
    rc = print_body(stream);
    if (rc == 0) rc = status;
  }
  if (rc < 0) fprintf(stderr, "%s: %s\n", url->host, aloop_strerror(rc));
  aloop_stream_unref(stream);
  return rc;
}

static int64_t show_page(aloop_t *loop, void *arg) {
  const page_t *page = arg;
  url_t url;
  char location[1024];
  int64_t rc = parse_url(page->url, &url);
  if (rc == 0) rc = get(loop, page->tls, &url, location);
  if (rc >= 300 && rc < 400 && location[0] != '\0') {
    rc = parse_url(location, &url);
    if (rc == 0) rc = get(loop, page->tls, &url, location);
  }
  return rc < 0 ? rc : rc == 200 ? 0 : ALOOP_ENOENT;
}

int main(int argc, char **argv) {
  char message[256] = "";
  if (argc < 2 || argc > 3) {
    fprintf(stderr, "usage: https_get URL [CA_FILE]\n");
    return 2;
  }
  aloop_tls_options_t options = {.size = sizeof options,
                                 .ca_file = argc > 2 ? argv[2] : NULL,
                                 .message = message,
                                 .message_size = sizeof message};
  page_t page = {.url = argv[1]};
  if (aloop_tls_context_new(aloop_tls_openssl(), &options, &page.tls) < 0) {
    fprintf(stderr, "%s\n", message);
    return 1;
  }
  int64_t rc = aloop_run(show_page, &page, NULL);
  aloop_tls_context_unref(page.tls);
  return rc < 0 ? 1 : 0;
}
