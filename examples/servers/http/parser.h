/* SPDX-License-Identifier: MIT
 *
 * An incremental HTTP/1 request parser: bytes in, requests out. It does no I/O, allocates nothing and knows no
 * event loop:
 *
 *     http_parser_t parser;
 *     http_parser_init(&parser);
 *     while (size > 0) {
 *       size_t used;
 *       switch (http_parser_feed(&parser, data, size, &used)) {
 *       case HTTP_MORE: break;                                           // the request is not complete yet
 *       case HTTP_REQUEST: answer(&parser.request); break;               // go on with the rest
 *       case HTTP_ERROR: refuse(parser.status, parser.problem); return;  // nothing after it can be trusted
 *       }
 *       data += used, size -= used;
 *     }
 *
 * How the bytes are cut into pieces makes no difference to what comes out.
 */
#ifndef HTTP_PARSER_H
#define HTTP_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  HTTP_LINE_MAX = 8 * 1024,   /* bytes in the request line; more is answered 414 */
  HTTP_BLOCK_MAX = 16 * 1024, /* bytes in all header fields together; more is answered 431 */
  HTTP_FIELDS_MAX = 100,      /* header fields; more is answered 431 */
  HTTP_BODY_MAX = 64 * 1024,  /* bytes of a request body, which is skipped; more is answered 413 */
};

typedef enum http_method {
  HTTP_GET,
  HTTP_HEAD,
  HTTP_NOT_ALLOWED, /* a method of RFC 9110 or PATCH that this server has no use for */
  HTTP_UNKNOWN,
} http_method_t;

typedef struct http_field {
  const char *name; /* as it was sent; names compare without regard to case */
  const char *value;
} http_field_t;

/* Strings live in the parser until the next call of http_parser_feed. */
typedef struct http_request {
  http_method_t method;
  const char *target; /* visible ASCII only, not decoded */
  int minor;          /* of HTTP/1.minor */
  bool keep_alive;    /* what the client wants to happen to the connection */
  bool expects_continue;
  int64_t body_size; /* 0..HTTP_BODY_MAX */
  size_t field_count;
  http_field_t fields[HTTP_FIELDS_MAX];
} http_request_t;

typedef enum http_event { HTTP_MORE, HTTP_REQUEST, HTTP_ERROR } http_event_t;

typedef struct http_parser {
  http_request_t request; /* complete after HTTP_REQUEST */
  int status;             /* after HTTP_ERROR: what to answer, and why in words */
  const char *problem;
  /* The rest is private. */
  bool complete;      /* the request was handed out; the next byte begins another */
  bool in_fields;     /* the request line is done */
  bool after_cr;      /* LF has to come next */
  bool skipped_empty; /* the one empty line that may come first was there */
  bool saw_length, saw_coding, saw_host, saw_close, saw_keep_alive;
  int64_t body_left;                         /* bytes of the last request's body that are still to be skipped */
  size_t line;                               /* where the current line starts in text */
  size_t fields;                             /* where the header fields start in text */
  size_t size;                               /* bytes in text */
  char text[HTTP_LINE_MAX + HTTP_BLOCK_MAX]; /* the lines received, each ended by NUL instead of CR LF */
} http_parser_t;

void http_parser_init(http_parser_t *parser);

/* Takes bytes up to the end of a request's head, the first fault, or the end of `data`; *consumed says how
 * many. After HTTP_ERROR it takes no more. */
http_event_t http_parser_feed(http_parser_t *parser, const void *data, size_t size, size_t *consumed);

/* Whether the parser stands between two requests, with nothing of the next one received. */
bool http_parser_idle(const http_parser_t *parser);

/* The value of the first field of that name (in lower case), or NULL. */
const char *http_request_field(const http_request_t *request, const char *name);

#endif
