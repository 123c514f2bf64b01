/* SPDX-License-Identifier: MIT
 *
 * RFC 9110, sections 13 (preconditions, in the order of 13.2.2) and 14 (ranges). Whatever cannot be understood
 * is ignored, as the RFC wants it: the client then gets the whole file, which is never wrong.
 *
 * Several ranges in one request are answered with the whole file as well. The RFC allows that (14.2), clients
 * that ask for them are rare, and multipart answers have served attackers more often than readers.
 */
#include "conditions.h"

#include "date.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* Whether the tag is in a list like `"a", W/"b"` or the list is "*". Weak tags count only where `weak` allows
 * them. */
static bool list_has_tag(const char *list, const char *etag, bool weak) {
  if (strcmp(list, "*") == 0) return true;
  size_t length = strlen(etag);
  while (*list != '\0') {
    list += strspn(list, ", \t");
    bool is_weak = strncmp(list, "W/", 2) == 0;
    if (is_weak) list += 2;
    if (*list != '"') return false;
    const char *end = strchr(list + 1, '"');
    if (end == NULL) return false;
    size_t size = (size_t)(end + 1 - list);
    if ((weak || !is_weak) && size == length && memcmp(list, etag, size) == 0) return true;
    list = end + 1;
  }
  return false;
}

/* Whether the file was changed after the date in `value`; `unreadable` if that is no date. */
static bool modified_since(const http_file_t *file, const char *value, int64_t now, bool unreadable) {
  int64_t date = http_date_parse(value, now);
  return date == HTTP_DATE_NONE ? unreadable : file->modified > date;
}

/* Steps 1 to 4 of 13.2.2: 0 to go on, 304 or 412. */
static int check_preconditions(const http_request_t *request, const http_file_t *file, int64_t now) {
  const char *value;
  if ((value = http_request_field(request, "if-match")) != NULL) {
    if (!list_has_tag(value, file->etag, false)) return 412;
  } else if ((value = http_request_field(request, "if-unmodified-since")) != NULL) {
    if (modified_since(file, value, now, false)) return 412;
  }
  if ((value = http_request_field(request, "if-none-match")) != NULL) {
    if (list_has_tag(value, file->etag, true)) return 304;
  } else if ((value = http_request_field(request, "if-modified-since")) != NULL) {
    if (!modified_since(file, value, now, true)) return 304;
  }
  return 0;
}

/* If-Range: whether the client's part is of this very file. A date vouches for that only once the second in
 * which the file was written is over. */
static bool range_applies(const http_request_t *request, const http_file_t *file, int64_t now) {
  const char *value = http_request_field(request, "if-range");
  if (value == NULL) return true;
  if (value[0] == '"') return strcmp(value, file->etag) == 0;
  return http_date_parse(value, now) == file->modified && file->modified < now;
}

/* Takes digits; a number beyond int64_t becomes the largest one. */
static bool take_number(const char **text, int64_t *number) {
  const char *start = *text;
  int64_t value = 0;
  for (; **text >= '0' && **text <= '9'; ++*text) {
    int digit = **text - '0';
    value = value > (INT64_MAX - digit) / 10 ? INT64_MAX : value * 10 + digit;
  }
  *number = value;
  return *text > start;
}

/* "bytes=first-last", "bytes=first-" or "bytes=-count" */
static http_verdict_t take_range(const char *value, int64_t size) {
  const http_verdict_t whole = {200, 0, size}, unsatisfiable = {416, 0, 0};
  if (strncasecmp(value, "bytes=", 6) != 0) return whole;
  value += 6;
  int64_t first, last;
  bool has_first = take_number(&value, &first);
  if (*value++ != '-') return whole;
  bool has_last = take_number(&value, &last);
  if (*value != '\0' || (!has_first && !has_last)) return whole;
  if (!has_first) {
    if (last == 0) return unsatisfiable;
    if (size == 0) return whole; /* the last bytes of nothing, which no Content-Range can express */
    int64_t count = last < size ? last : size;
    return (http_verdict_t){206, size - count, count};
  }
  if (has_last && last < first) return whole;
  if (first >= size) return unsatisfiable;
  if (!has_last || last >= size) last = size - 1;
  return (http_verdict_t){206, first, last - first + 1};
}

http_verdict_t http_conditions_judge(const http_request_t *request, const http_file_t *file, int64_t now) {
  int status = check_preconditions(request, file, now);
  if (status != 0) return (http_verdict_t){status, 0, 0};
  const char *range = request->method == HTTP_GET ? http_request_field(request, "range") : NULL;
  if (range == NULL || !range_applies(request, file, now)) return (http_verdict_t){200, 0, file->size};
  return take_range(range, file->size);
}
