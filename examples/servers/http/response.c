/* SPDX-License-Identifier: MIT
 *
 * Writing responses. Values of fields are either constants, or made of a target that the parser has limited to
 * visible ASCII, so no value can break out of its line.
 */
#include "response.h"

#include "date.h"

#include <stdio.h>

static const char *reason_of(int status) {
  switch (status) {
  case 200:
    return "OK";
  case 206:
    return "Partial Content";
  case 301:
    return "Moved Permanently";
  case 304:
    return "Not Modified";
  case 400:
    return "Bad Request";
  case 403:
    return "Forbidden";
  case 404:
    return "Not Found";
  case 405:
    return "Method Not Allowed";
  case 408:
    return "Request Timeout";
  case 412:
    return "Precondition Failed";
  case 413:
    return "Content Too Large";
  case 414:
    return "URI Too Long";
  case 416:
    return "Range Not Satisfiable";
  case 431:
    return "Request Header Fields Too Large";
  case 501:
    return "Not Implemented";
  case 503:
    return "Service Unavailable";
  case 505:
    return "HTTP Version Not Supported";
  default:
    return "Internal Server Error";
  }
}

void response_begin(const response_t *response, int status) {
  buffer_format(response->out, "HTTP/1.1 %d %s\r\n", status, reason_of(status));
  response_field(response, "Server", "aloop");
  response_field(response, "Date", http_date_now());
  if (!response->keep_alive)
    response_field(response, "Connection", "close");
  else if (response->minor == 0)
    response_field(response, "Connection", "keep-alive");
}

void response_field(const response_t *response, const char *name, const char *value) {
  buffer_text(response->out, name);
  buffer_text(response->out, ": ");
  buffer_text(response->out, value);
  buffer_text(response->out, "\r\n");
}

void response_end(const response_t *response) {
  buffer_text(response->out, "\r\n");
}

void response_body(const response_t *response, const char *type, const void *body, size_t size) {
  response_field(response, "Content-Type", type);
  buffer_format(response->out, "Content-Length: %zu\r\n", size);
  response_end(response);
  if (!response->head_only) buffer_add(response->out, body, size);
}

void response_page(const response_t *response, int status, const char *sentence, const char *name,
                   const char *value) {
  char page[512];
  int size = snprintf(page, sizeof page, "<!doctype html>\n<title>%d %s</title>\n<h1>%d %s</h1>\n<p>%s\n",
                      status, reason_of(status), status, reason_of(status), sentence);
  response_begin(response, status);
  if (name != NULL) response_field(response, name, value);
  response_body(response, "text/html; charset=utf-8", page, (size_t)size);
}
