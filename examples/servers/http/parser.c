/* SPDX-License-Identifier: MIT
 *
 * The HTTP/1 request parser: see parser.h for what it is to its caller.
 *
 * It copies the head of a request, line by line, into one array and cuts it into C strings in place. A line is
 * understood when its LF arrives, and a byte that can be in no line is refused when it arrives, so what comes
 * out depends on the bytes and never on how they were cut. The cost is one pass over the bytes to find the ends
 * of lines and one over each line.
 *
 * It reads RFC 9112 strictly, because two programs that disagree about where a request ends are how requests
 * get smuggled past a proxy: lines end in CR LF, nothing stands between a field's name and its colon, no folded
 * lines, one Content-Length at most and never beside Transfer-Encoding. It is lenient in the one place where
 * the RFC asks for it: an empty line before the request line is skipped.
 *
 * Bodies are counted and skipped; chunked ones are refused (501), since a server of static files has no use for
 * either.
 */
#include "parser.h"

#include <string.h>
#include <strings.h>

/* May stand in a line: everything but control characters. */
static bool is_text(unsigned char c) {
  return (c >= 0x20 && c != 0x7f) || c == '\t';
}

/* The characters of a token in RFC 9110: methods and field names. */
static bool is_token(unsigned char c) {
  if (c >= '0' && c <= '9') return true;
  if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return true;
  return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

/* Remembers what is wrong. Returns false, so that `return refuse(...)` reads well. */
static bool refuse(http_parser_t *parser, int status, const char *problem) {
  parser->status = status;
  parser->problem = problem;
  return false;
}

/* Cuts the next word off at a space: returns where it starts, and moves *rest behind the space, or to NULL if
 * none came. */
static char *cut_word(char **rest) {
  char *word = *rest;
  char *space = strchr(word, ' ');
  if (space != NULL) *space++ = '\0';
  *rest = space;
  return word;
}

static http_method_t method_of(const char *name) {
  static const char *const others[] = {"POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
  if (strcmp(name, "GET") == 0) return HTTP_GET;
  if (strcmp(name, "HEAD") == 0) return HTTP_HEAD;
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
    if (strcmp(name, others[i]) == 0) return HTTP_NOT_ALLOWED;
  return HTTP_UNKNOWN;
}

static bool all_token(const char *text) {
  const char *start = text;
  while (is_token((unsigned char)*text)) text++;
  return text > start && *text == '\0';
}

static bool all_visible(const char *text) {
  const char *start = text;
  while (*text > 0x20 && *text < 0x7f) text++;
  return text > start && *text == '\0';
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* METHOD SP target SP HTTP/1.x */
static bool take_request_line(http_parser_t *parser, char *line) {
  char *rest = line;
  const char *method = cut_word(&rest);
  if (!all_token(method)) return refuse(parser, 400, "The request does not start with a method.");
  if (rest == NULL) return refuse(parser, 400, "The request line has no target.");
  const char *target = cut_word(&rest);
  if (!all_visible(target))
    return refuse(parser, 400, "The target has characters that must be percent-encoded.");
  if (rest == NULL) return refuse(parser, 400, "The request line has no HTTP version.");
  if (strncmp(rest, "HTTP/", 5) != 0 || !is_digit(rest[5]) || rest[6] != '.' || !is_digit(rest[7]) ||
      rest[8] != '\0')
    return refuse(parser, 400, "The request line does not end in HTTP/1.1.");
  if (rest[5] != '1') return refuse(parser, 505, "This server speaks HTTP/1.0 and HTTP/1.1.");
  parser->request.method = method_of(method);
  parser->request.target = target;
  parser->request.minor = rest[7] - '0';
  return true;
}

/* Whether `word` is in the comma-separated list. */
static bool list_has(const char *list, const char *word) {
  size_t length = strlen(word);
  while (*list != '\0') {
    list += strspn(list, ", \t");
    size_t item = strcspn(list, ",");
    size_t trimmed = item;
    while (trimmed > 0 && is_blank(list[trimmed - 1])) trimmed--;
    if (trimmed == length && strncasecmp(list, word, length) == 0) return true;
    list += item;
  }
  return false;
}

static bool take_length(http_parser_t *parser, const char *value) {
  if (parser->saw_length) return refuse(parser, 400, "There is more than one Content-Length.");
  parser->saw_length = true;
  int64_t length = 0;
  const char *digit = value;
  for (; is_digit(*digit); digit++)
    if (length <= HTTP_BODY_MAX) length = length * 10 + (*digit - '0'); /* stays above the limit once it is */
  if (digit == value || *digit != '\0') return refuse(parser, 400, "Content-Length is not a number.");
  parser->request.body_size = length;
  return true;
}

/* The fields that decide where this request ends and what becomes of the connection. */
static bool take_framing(http_parser_t *parser, const char *name, const char *value) {
  if (strcasecmp(name, "content-length") == 0) return take_length(parser, value);
  if (strcasecmp(name, "transfer-encoding") == 0) parser->saw_coding = true;
  if (strcasecmp(name, "expect") == 0)
    parser->request.expects_continue |= strcasecmp(value, "100-continue") == 0;
  if (strcasecmp(name, "connection") == 0) {
    parser->saw_close |= list_has(value, "close");
    parser->saw_keep_alive |= list_has(value, "keep-alive");
  }
  if (strcasecmp(name, "host") == 0) {
    if (parser->saw_host) return refuse(parser, 400, "There is more than one Host.");
    parser->saw_host = true;
  }
  return true;
}

/* name ":" blanks value blanks */
static bool take_field(http_parser_t *parser, char *line) {
  if (is_blank(line[0])) return refuse(parser, 400, "Header fields over several lines are not supported.");
  char *value = strchr(line, ':');
  if (value == NULL) return refuse(parser, 400, "A header field has no colon.");
  *value++ = '\0';
  if (!all_token(line))
    return refuse(parser, 400, "The name of a header field has characters that are not allowed.");
  while (is_blank(*value)) value++;
  for (size_t size = strlen(value); size > 0 && is_blank(value[size - 1]); size--) value[size - 1] = '\0';

  http_request_t *request = &parser->request;
  if (request->field_count == HTTP_FIELDS_MAX) return refuse(parser, 431, "There are too many header fields.");
  request->fields[request->field_count++] = (http_field_t){line, value};
  return take_framing(parser, line, value);
}

/* The empty line: is it a request that we can serve? */
static bool end_head(http_parser_t *parser) {
  http_request_t *request = &parser->request;
  if (request->minor >= 1 && !parser->saw_host) return refuse(parser, 400, "There is no Host.");
  if (parser->saw_coding && parser->saw_length)
    return refuse(parser, 400, "Content-Length and Transfer-Encoding contradict each other.");
  if (parser->saw_coding && request->minor == 0)
    return refuse(parser, 400, "HTTP/1.0 has no Transfer-Encoding.");
  if (parser->saw_coding) return refuse(parser, 501, "This server takes no encoded request bodies.");
  if (request->body_size > HTTP_BODY_MAX) return refuse(parser, 413, "The request body is too large.");
  request->keep_alive = !parser->saw_close && (request->minor >= 1 || parser->saw_keep_alive);
  parser->body_left = request->body_size;
  parser->complete = true;
  return true;
}

static bool end_line(http_parser_t *parser) {
  char *line = parser->text + parser->line;
  bool empty = parser->size == parser->line;
  if (empty && parser->in_fields) return end_head(parser);
  if (empty && parser->skipped_empty) return refuse(parser, 400, "The request line is empty.");
  if (empty) {
    parser->skipped_empty = true;
    return true;
  }
  parser->text[parser->size++] = '\0';
  parser->line = parser->size;
  if (parser->in_fields) return take_field(parser, line);
  parser->in_fields = true;
  parser->fields = parser->size;
  return take_request_line(parser, line);
}

/* Copies the text that `data` starts with into the current line. One byte of room is always left for the NUL.
 * */
static size_t take_text(http_parser_t *parser, const unsigned char *data, size_t size) {
  size_t count = 0;
  while (count < size && is_text(data[count])) count++;
  size_t limit = parser->in_fields ? parser->fields + HTTP_BLOCK_MAX : HTTP_LINE_MAX;
  size_t room = parser->size + 1 < limit ? limit - 1 - parser->size : 0;
  if (count > room) {
    if (parser->in_fields)
      refuse(parser, 431, "The header fields are too long.");
    else
      refuse(parser, 414, "The request line is too long.");
    count = room;
  }
  memcpy(parser->text + parser->size, data, count);
  parser->size += count;
  return count;
}

/* CR, LF, or a byte that has no place in a request. */
static bool take_control(http_parser_t *parser, unsigned char c) {
  if (c == '\n' && parser->after_cr) {
    parser->after_cr = false;
    return end_line(parser);
  }
  if (c != '\r' || parser->after_cr)
    return refuse(parser, 400, "A line holds a control character, or does not end in CR LF.");
  parser->after_cr = true;
  return true;
}

static void forget_request(http_parser_t *parser) {
  int64_t body_left = parser->body_left;
  http_parser_init(parser);
  parser->body_left = body_left;
}

void http_parser_init(http_parser_t *parser) {
  memset(parser, 0, offsetof(http_parser_t, text));
}

http_event_t http_parser_feed(http_parser_t *parser, const void *data, size_t size, size_t *consumed) {
  const unsigned char *bytes = data;
  size_t used = 0;
  if (parser->complete && size > 0) forget_request(parser);
  if (parser->body_left > 0) {
    used = (uint64_t)parser->body_left < size ? (size_t)parser->body_left : size;
    parser->body_left -= (int64_t)used;
  }
  while (used < size && parser->status == 0 && !parser->complete) {
    if (is_text(bytes[used]) && !parser->after_cr)
      used += take_text(parser, bytes + used, size - used);
    else
      take_control(parser, bytes[used++]);
  }
  *consumed = used;
  if (parser->status != 0) return HTTP_ERROR;
  return parser->complete && size > 0 ? HTTP_REQUEST : HTTP_MORE;
}

bool http_parser_idle(const http_parser_t *parser) {
  if (parser->body_left > 0) return false;
  return parser->complete || (parser->size == 0 && !parser->after_cr && parser->status == 0);
}

const char *http_request_field(const http_request_t *request, const char *name) {
  for (size_t i = 0; i < request->field_count; i++)
    if (strcasecmp(request->fields[i].name, name) == 0) return request->fields[i].value;
  return NULL;
}
