/* SPDX-License-Identifier: MIT
 *
 * The request parser of examples/servers/http. Every text is parsed twice, whole and byte by byte, and both
 * must end the same way.
 */
#include "harness.h"

#include "parser.h"

#include <stdio.h>
#include <string.h>

#define HEAD "GET / HTTP/1.1\r\nHost: a\r\n"

static http_parser_t parser;

/* Feeds pieces of `step` bytes up to the first event; *used says where that was. */
static http_event_t feed_in_steps(const char *data, size_t size, size_t step, size_t *used) {
  http_parser_init(&parser);
  *used = 0;
  while (*used < size) {
    size_t piece = size - *used < step ? size - *used : step;
    size_t taken;
    http_event_t event = http_parser_feed(&parser, data + *used, piece, &taken);
    assert_true(taken <= piece);
    *used += taken;
    if (event != HTTP_MORE) return event;
    assert_int_equal(taken, piece);
  }
  return HTTP_MORE;
}

static http_event_t parse_bytes(const char *data, size_t size, size_t *used) {
  size_t used_whole, used_bytes;
  http_event_t whole = feed_in_steps(data, size, size, &used_whole);
  int status = parser.status;
  assert_int_equal(feed_in_steps(data, size, 1, &used_bytes), whole);
  assert_int_equal(used_bytes, used_whole);
  assert_int_equal(parser.status, status);
  if (used != NULL) *used = used_whole;
  return whole;
}

static http_event_t parse(const char *text) {
  return parse_bytes(text, strlen(text), NULL);
}

/* Asserts that the text is refused, and how. */
static void refused(const char *text, int status) {
  if (parse(text) != HTTP_ERROR) fail_msg("not refused: %s", text);
  if (parser.status != status)
    fail_msg("status %d (%s) instead of %d: %s", parser.status, parser.problem, status, text);
  assert_non_null(parser.problem);
}

static void accepted(const char *text) {
  http_event_t event = parse(text);
  if (event == HTTP_ERROR) fail_msg("refused with %d (%s): %s", parser.status, parser.problem, text);
  assert_int_equal(event, HTTP_REQUEST);
}

static void understands_a_request(void **state) {
  (void)state;
  accepted("GET /a%20b?q=1 HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n");
  assert_int_equal(parser.request.method, HTTP_GET);
  assert_string_equal(parser.request.target, "/a%20b?q=1");
  assert_int_equal(parser.request.minor, 1);
  assert_int_equal(parser.request.field_count, 2);
  assert_int_equal(parser.request.body_size, 0);
}

static void waits_for_the_empty_line(void **state) {
  (void)state;
  assert_int_equal(parse(HEAD "\r"), HTTP_MORE);
  assert_int_equal(parse(""), HTTP_MORE);
}

static void finds_fields_without_regard_to_case(void **state) {
  (void)state;
  accepted(HEAD "X-Thing:one\r\nx-thing: two\r\n\r\n");
  assert_string_equal(http_request_field(&parser.request, "x-thing"), "one");
  assert_null(http_request_field(&parser.request, "thing"));
}

static void trims_values(void **state) {
  (void)state;
  accepted(HEAD "a: \t v w\t \r\nb:\r\nc: \r\n\r\n");
  assert_string_equal(http_request_field(&parser.request, "a"), "v w");
  assert_string_equal(http_request_field(&parser.request, "b"), "");
  assert_string_equal(http_request_field(&parser.request, "c"), "");
}

static void sorts_methods(void **state) {
  (void)state;
  accepted("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  assert_int_equal(parser.request.method, HTTP_HEAD);
  accepted("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
  assert_int_equal(parser.request.method, HTTP_NOT_ALLOWED);
  accepted("BREW / HTTP/1.1\r\nHost: a\r\n\r\n");
  assert_int_equal(parser.request.method, HTTP_UNKNOWN);
  accepted("get / HTTP/1.1\r\nHost: a\r\n\r\n");
  assert_int_equal(parser.request.method, HTTP_UNKNOWN);
}

static void knows_who_keeps_the_connection(void **state) {
  (void)state;
  static const struct {
    const char *text;
    bool keep_alive;
  } cases[] = {
      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Foo , CLOSE\r\n\r\n", false},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false},
      {"GET / HTTP/1.0\r\n\r\n", false},
      {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
      {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    accepted(cases[i].text);
    if (parser.request.keep_alive != cases[i].keep_alive) fail_msg("keep_alive is wrong: %s", cases[i].text);
  }
}

static void stops_after_each_request(void **state) {
  (void)state;
  static const char text[] = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.0\r\n\r\nGET /3";
  size_t used, more;
  http_parser_init(&parser);
  assert_int_equal(http_parser_feed(&parser, text, sizeof text - 1, &used), HTTP_REQUEST);
  assert_string_equal(parser.request.target, "/1");
  assert_int_equal(http_parser_feed(&parser, text + used, sizeof text - 1 - used, &more), HTTP_REQUEST);
  assert_string_equal(parser.request.target, "/2");
  assert_int_equal(parser.request.field_count, 0);
  used += more;
  assert_int_equal(http_parser_feed(&parser, text + used, sizeof text - 1 - used, &more), HTTP_MORE);
  assert_int_equal(used + more, sizeof text - 1);
}

static void skips_the_body(void **state) {
  (void)state;
  static const char text[] =
      "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /GET /2 HTTP/1.0\r\n\r\n";
  size_t used, more;
  http_parser_init(&parser);
  assert_int_equal(http_parser_feed(&parser, text, sizeof text - 1, &used), HTTP_REQUEST);
  assert_int_equal(parser.request.body_size, 5);
  assert_false(http_parser_idle(&parser));
  assert_int_equal(http_parser_feed(&parser, text + used, 3, &more), HTTP_MORE);
  assert_int_equal(http_parser_feed(&parser, text + used + 3, sizeof text - 1 - used - 3, &more), HTTP_REQUEST);
  assert_string_equal(parser.request.target, "/2");
}

static void knows_when_it_is_idle(void **state) {
  (void)state;
  size_t used;
  http_parser_init(&parser);
  assert_true(http_parser_idle(&parser));
  http_parser_feed(&parser, "G", 1, &used);
  assert_false(http_parser_idle(&parser));
  http_parser_feed(&parser, "ET / HTTP/1.0\r\n\r\n", 17, &used);
  assert_true(http_parser_idle(&parser));
  http_parser_feed(&parser, "\r", 1, &used);
  assert_false(http_parser_idle(&parser));
}

static void takes_no_bytes_after_an_error(void **state) {
  (void)state;
  size_t used;
  refused("nonsense\r\n", 400);
  assert_int_equal(http_parser_feed(&parser, HEAD, sizeof HEAD - 1, &used), HTTP_ERROR);
  assert_int_equal(used, 0);
  assert_int_equal(parser.status, 400);
}

static void nothing_is_not_a_request(void **state) {
  (void)state;
  size_t used = 1;
  accepted(HEAD "\r\n");
  assert_int_equal(http_parser_feed(&parser, "", 0, &used), HTTP_MORE);
  assert_int_equal(used, 0);
}

static void one_empty_line_may_come_first(void **state) {
  (void)state;
  accepted("\r\n" HEAD "\r\n");
  refused("\r\n\r\n" HEAD "\r\n", 400);
}

static void refuses_bad_request_lines(void **state) {
  (void)state;
  static const char *const lines[] = {
      "GET",
      "GET /",
      "GET / ",
      " GET / HTTP/1.1",
      "GET  / HTTP/1.1",
      "GET /  HTTP/1.1",
      "GET / HTTP/1",
      "GET / http/1.1",
      "GET / HTTP/1.1 ",
      "GET / HTTP/1.10",
      "GET / HTTP/11",
      "GET / HTTP/a.1",
      "G(T / HTTP/1.1",
      "GET \t HTTP/1.1",
      "GET /\xc3\xa9 HTTP/1.1",
      "\xff",
      "GET / HTTP/1.1\tx",
  };
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
    char text[100];
    snprintf(text, sizeof text, "%s\r\nHost: a\r\n\r\n", lines[i]);
    refused(text, 400);
  }
}

static void refuses_other_versions(void **state) {
  (void)state;
  refused("GET / HTTP/2.0\r\n\r\n", 505);
  refused("GET / HTTP/0.9\r\n\r\n", 505);
  accepted("GET / HTTP/1.7\r\nHost: a\r\n\r\n");
}

static void refuses_bad_fields(void **state) {
  (void)state;
  static const char *const fields[] = {
      "no colon", "a : b", ": b", "a b: c", " folded: x", "\tfolded", "a\xe9: b", "(a): b",
  };
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    char text[100];
    snprintf(text, sizeof text, HEAD "%s\r\n\r\n", fields[i]);
    refused(text, 400);
  }
  accepted(HEAD "a: \xe9\xff\r\n\r\n");
}

static void refuses_lines_that_do_not_end_in_crlf(void **state) {
  (void)state;
  refused("GET / HTTP/1.1\nHost: a\n\n", 400);
  refused("GET / HTTP/1.1\r\nHost: a\n\r\n", 400);
  refused("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400);
  refused("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400);
  refused(HEAD "\r\r\n", 400);
}

static void refuses_control_characters_at_once(void **state) {
  (void)state;
  size_t used;
  static const char tls[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
  assert_int_equal(parse_bytes(tls, sizeof tls - 1, &used), HTTP_ERROR);
  assert_int_equal(used, 1);
  assert_int_equal(parser.status, 400);
  static const char nul[] = HEAD "a: b\0c\r\n\r\n";
  assert_int_equal(parse_bytes(nul, sizeof nul - 1, &used), HTTP_ERROR);
  assert_int_equal(used, sizeof HEAD - 1 + 5);
  refused(HEAD "a: \x7f\r\n\r\n", 400);
}

static void wants_one_host(void **state) {
  (void)state;
  refused("GET / HTTP/1.1\r\n\r\n", 400);
  refused(HEAD "Host: b\r\n\r\n", 400);
  accepted("GET / HTTP/1.0\r\n\r\n");
}

static void understands_content_length(void **state) {
  (void)state;
  accepted(HEAD "Content-Length: 0\r\n\r\n");
  accepted(HEAD "Content-Length: 00000000000000000000000065536\r\n\r\n");
  assert_int_equal(parser.request.body_size, HTTP_BODY_MAX);
  refused(HEAD "Content-Length: 65537\r\n\r\n", 413);
  refused(HEAD "Content-Length: 99999999999999999999999999999999\r\n\r\n", 413);
  refused(HEAD "Content-Length: 18446744073709551616\r\n\r\n", 413);
}

static void refuses_to_guess_where_a_body_ends(void **state) {
  (void)state;
  static const char *const fields[] = {
      "Content-Length:",
      "Content-Length: +5",
      "Content-Length: -5",
      "Content-Length: 5 5",
      "Content-Length: 5, 5",
      "Content-Length: 0x5",
      "Content-Length: 5;",
      "Content-Length: 5\r\nContent-Length: 5",
      "Content-Length: 5\r\nContent-Length: 6",
      "Content-Length: 5\r\nTransfer-Encoding: chunked",
      "Transfer-Encoding: identity\r\nContent-Length: 5",
      "Content-Length : 5",
  };
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    char text[200];
    snprintf(text, sizeof text, "POST / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", fields[i]);
    refused(text, 400);
  }
  refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
  refused(HEAD "Transfer-Encoding: chunked\r\n\r\n", 501);
}

static void notices_who_waits_for_a_go_ahead(void **state) {
  (void)state;
  accepted(HEAD "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n");
  assert_true(parser.request.expects_continue);
}

/* "GET /aaa... HTTP/1.1" with a line of `size` bytes, then an empty block. */
static void make_long_line(char *text, size_t size) {
  memset(text, 'a', size);
  memcpy(text, "GET /", 5);
  memcpy(text + size - 9, " HTTP/1.0\r\n\r\n", 14);
}

static void limits_the_request_line(void **state) {
  (void)state;
  static char text[2 * HTTP_LINE_MAX];
  make_long_line(text, HTTP_LINE_MAX - 1);
  accepted(text);
  assert_int_equal(strlen(parser.request.target), HTTP_LINE_MAX - 1 - 4 - 9);
  make_long_line(text, HTTP_LINE_MAX);
  refused(text, 414);
}

/* A request whose fields, each with one byte for its end, take `size` bytes. */
static void make_long_block(char *text, size_t size) {
  static const char start[] = "GET / HTTP/1.0\r\n";
  memcpy(text, start, sizeof start);
  char *at = text + sizeof start - 1;
  while (size > 0) {
    size_t field = size > 1100 ? 1000 : size;
    memset(at, 'v', field - 1);
    memcpy(at, "n:", 2);
    memcpy(at + field - 1, "\r\n", 3);
    at += field + 1;
    size -= field;
  }
  memcpy(at, "\r\n", 3);
}

static void limits_the_header_block(void **state) {
  (void)state;
  static char text[2 * HTTP_BLOCK_MAX];
  make_long_block(text, HTTP_BLOCK_MAX);
  accepted(text);
  make_long_block(text, HTTP_BLOCK_MAX + 1);
  refused(text, 431);
}

static void limits_the_number_of_fields(void **state) {
  (void)state;
  char text[100 + 6 * (HTTP_FIELDS_MAX + 1)] = "GET / HTTP/1.0\r\n";
  for (int i = 0; i < HTTP_FIELDS_MAX; i++) strcat(text, "a: b\r\n");
  size_t size = strlen(text);
  strcpy(text + size, "\r\n");
  accepted(text);
  assert_int_equal(parser.request.field_count, HTTP_FIELDS_MAX);
  strcpy(text + size, "a: b\r\n\r\n");
  refused(text, 431);
}

TESTS(T(understands_a_request), T(waits_for_the_empty_line), T(finds_fields_without_regard_to_case),
      T(trims_values), T(sorts_methods), T(knows_who_keeps_the_connection), T(stops_after_each_request),
      T(skips_the_body), T(knows_when_it_is_idle), T(takes_no_bytes_after_an_error),
      T(nothing_is_not_a_request), T(one_empty_line_may_come_first), T(refuses_bad_request_lines),
      T(refuses_other_versions), T(refuses_bad_fields), T(refuses_lines_that_do_not_end_in_crlf),
      T(refuses_control_characters_at_once), T(wants_one_host), T(understands_content_length),
      T(refuses_to_guess_where_a_body_ends), T(notices_who_waits_for_a_go_ahead), T(limits_the_request_line),
      T(limits_the_header_block), T(limits_the_number_of_fields))
