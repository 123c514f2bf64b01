/* SPDX-License-Identifier: MIT
 *
 * The other parts of examples/servers/http that can be tested without a connection: targets, dates, conditions
 * and ranges, escaping, and opening files beneath a directory.
 */
#include "harness.h"

#include "buffer.h"
#include "conditions.h"
#include "date.h"
#include "files.h"
#include "mime.h"
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Targets --------------------------------------------------------------------------------------------- */

static char path[HTTP_LINE_MAX];
static http_target_t target;

static void leads_to(const char *text, const char *expected, bool slash) {
  int status = http_target_parse(text, path, &target);
  if (status != 0) fail_msg("%s: refused with %d", text, status);
  assert_string_equal(target.path, expected);
  assert_int_equal(target.slash, slash);
}

static void targets_become_paths(void **state) {
  (void)state;
  leads_to("/", "", true);
  leads_to("/a", "a", false);
  leads_to("/a/", "a", true);
  leads_to("/a/b.html", "a/b.html", false);
  leads_to("/a%20b/%C3%a9", "a b/\xc3\xa9", false);
  leads_to("/%25", "%", false);
  leads_to("//a///b//", "a/b", true);
  leads_to("/a+b", "a+b", false);
  leads_to("/.well-known/x", ".well-known/x", false);
}

static void queries_are_cut_off(void **state) {
  (void)state;
  leads_to("/a?b/../c%00?d", "a", false);
  assert_string_equal(target.query, "?b/../c%00?d");
  leads_to("/?", "", true);
  leads_to("/a", "a", false);
  assert_string_equal(target.query, "");
}

static void absolute_targets_are_paths_too(void **state) {
  (void)state;
  leads_to("http://example.org/a/b?c", "a/b", false);
  leads_to("HTTP://example.org", "", true);
  leads_to("https://example.org?q", "", true);
  assert_string_equal(target.query, "?q");
  assert_int_equal(http_target_parse("ftp://example.org/", path, &target), 400);
  assert_int_equal(http_target_parse("*", path, &target), 400);
  assert_int_equal(http_target_parse("a", path, &target), 400);
}

static void targets_cannot_climb(void **state) {
  (void)state;
  static const char *const climbing[] = {"/..",     "/../",   "/a/../b", "/%2e%2e/a",    "/.%2E/a",
                                         "/%2e./a", "/.",     "/a/./b",  "/a/%2e",       "/a/..?x",
                                         "//..//",  "/a%00b", "/%00",    "/%",           "/%4",
                                         "/%zz",    "/a%2",   "/%%41",   "http://a/../b"};
  for (size_t i = 0; i < sizeof climbing / sizeof climbing[0]; i++)
    if (http_target_parse(climbing[i], path, &target) != 400) fail_msg("accepted: %s", climbing[i]);
}

static void hidden_and_impossible_names_are_not_found(void **state) {
  (void)state;
  static const char *const missing[] = {"/.git/config", "/a/.htpasswd",         "/%2egit", "/...", "/..a",
                                        "/a%2fb",       "/..%2f..%2fetc/passwd"};
  for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
    if (http_target_parse(missing[i], path, &target) != 404) fail_msg("not 404: %s", missing[i]);
}

/* ---- Dates ----------------------------------------------------------------------------------------------- */

static void dates_are_written(void **state) {
  (void)state;
  char text[HTTP_DATE_SIZE];
  http_date_format(784111777, text);
  assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
  http_date_format(-1, text);
  assert_string_equal(text, "Wed, 31 Dec 1969 23:59:59 GMT");
  http_date_format(INT64_MAX, text);
  assert_string_equal(text, "Fri, 31 Dec 9999 23:59:59 GMT");
  http_date_format(INT64_MIN, text);
  assert_string_equal(text, "Sat, 01 Jan 0000 00:00:00 GMT");
}

static void dates_are_read_in_three_forms(void **state) {
  (void)state;
  int64_t now = 1700000000; /* 2023 */
  assert_int_equal(http_date_parse("Sun, 06 Nov 1994 08:49:37 GMT", now), 784111777);
  assert_int_equal(http_date_parse("Sunday, 06-Nov-94 08:49:37 GMT", now), 784111777);
  assert_int_equal(http_date_parse("Sun Nov  6 08:49:37 1994", now), 784111777);
  assert_int_equal(http_date_parse("Sat Nov 26 08:49:37 1994", now), 784111777 + 20 * 86400);
  assert_int_equal(http_date_parse("Monday, 06-Nov-73 00:00:00 GMT", now),
                   3277152000); /* 2073: 50 years ahead */
  assert_int_equal(http_date_parse("Tuesday, 06-Nov-74 00:00:00 GMT", now), 152928000); /* 1974 */
}

static void every_day_survives_a_round_trip(void **state) {
  (void)state;
  for (int64_t day = -719528; day < 2932897; day += 13) {
    char text[HTTP_DATE_SIZE];
    http_date_format(day * 86400 + 3661, text);
    assert_int_equal(http_date_parse(text, 0), day * 86400 + 3661);
  }
}

static void what_is_no_date_is_refused(void **state) {
  (void)state;
  static const char *const bad[] = {"",
                                    "yesterday",
                                    "Sun, 06 Nov 1994 08:49:37",
                                    "Sun, 06 Nov 1994 08:49:37 CET",
                                    "Sun, 6 Nov 1994 08:49:37 GMT",
                                    "Sun, 06 Foo 1994 08:49:37 GMT",
                                    "Sun, 06 Nov 1994 24:49:37 GMT",
                                    "Sun, 00 Nov 1994 08:49:37 GMT",
                                    "Sun, 06 Nov 1994 08:49:37 GMT ",
                                    "Sun Nov  6 08:49:37 94",
                                    ", ",
                                    "0"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    if (http_date_parse(bad[i], 0) != HTTP_DATE_NONE) fail_msg("accepted: \"%s\"", bad[i]);
}

/* ---- Conditions and ranges ------------------------------------------------------------------------------- */

static http_verdict_t judge(http_method_t method, int64_t size, const char *name, const char *value,
                            const char *name2, const char *value2) {
  static http_request_t request;
  request.method = method;
  request.field_count = name2 != NULL ? 2 : 1;
  request.fields[0] = (http_field_t){name, value};
  request.fields[1] = (http_field_t){name2, value2};
  http_file_t file = {"\"tag\"", 784111777, size};
  return http_conditions_judge(&request, &file, 1700000000);
}

/* Asserts what a Range field gets from a file of `size` bytes. */
static void range(const char *value, int64_t size, int status, int64_t offset, int64_t count) {
  http_verdict_t verdict = judge(HTTP_GET, size, "Range", value, NULL, NULL);
  if (verdict.status != status || verdict.offset != offset || verdict.count != count)
    fail_msg("%s of %lld: %d, %lld+%lld", value, (long long)size, verdict.status, (long long)verdict.offset,
             (long long)verdict.count);
}

static void ranges_are_cut_out(void **state) {
  (void)state;
  range("bytes=0-0", 10, 206, 0, 1);
  range("bytes=2-4", 10, 206, 2, 3);
  range("Bytes=7-", 10, 206, 7, 3);
  range("bytes=7-100", 10, 206, 7, 3);
  range("bytes=-3", 10, 206, 7, 3);
  range("bytes=-30", 10, 206, 0, 10);
  range("bytes=0-99999999999999999999999", 10, 206, 0, 10);
}

static void ranges_outside_are_not_satisfiable(void **state) {
  (void)state;
  range("bytes=10-", 10, 416, 0, 0);
  range("bytes=10-20", 10, 416, 0, 0);
  range("bytes=-0", 10, 416, 0, 0);
  range("bytes=0-", 0, 416, 0, 0);
  range("bytes=99999999999999999999999-", 10, 416, 0, 0);
}

static void what_is_no_single_range_gets_the_whole(void **state) {
  (void)state;
  static const char *const values[] = {"",          "bytes",      "bytes=",        "bytes=-",
                                       "bytes=4-2", "bytes=a-b",  "bytes=0-1,4-5", "lines=1-2",
                                       "bytes=1",   "bytes=1-2x", "bytes= 1-2"};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) range(values[i], 10, 200, 0, 10);
  range("bytes=-5", 0, 200, 0, 0);
  assert_int_equal(judge(HTTP_HEAD, 10, "Range", "bytes=0-0", NULL, NULL).status, 200);
}

static void if_range_wants_the_same_file(void **state) {
  (void)state;
  static const char *const same[] = {"\"tag\"", "Sun, 06 Nov 1994 08:49:37 GMT"};
  static const char *const other[] = {"\"tog\"", "W/\"tag\"", "tag", "Sun, 06 Nov 1994 08:49:38 GMT", ""};
  for (size_t i = 0; i < 2; i++)
    assert_int_equal(judge(HTTP_GET, 10, "range", "bytes=1-", "if-range", same[i]).status, 206);
  for (size_t i = 0; i < 5; i++)
    assert_int_equal(judge(HTTP_GET, 10, "range", "bytes=1-", "if-range", other[i]).status, 200);
}

static int condition(const char *name, const char *value) {
  return judge(HTTP_GET, 10, name, value, NULL, NULL).status;
}

static void known_files_are_not_sent_again(void **state) {
  (void)state;
  assert_int_equal(condition("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"), 304);
  assert_int_equal(condition("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT"), 200);
  assert_int_equal(condition("If-Modified-Since", "some day"), 200);
  assert_int_equal(condition("If-None-Match", "\"tag\""), 304);
  assert_int_equal(condition("If-None-Match", "\"a\", W/\"tag\""), 304);
  assert_int_equal(condition("If-None-Match", "*"), 304);
  assert_int_equal(condition("If-None-Match", "\"a\",\"b\""), 200);
  assert_int_equal(condition("If-None-Match", "\"tag"), 200);
}

static void tags_count_more_than_dates(void **state) {
  (void)state;
  http_verdict_t verdict =
      judge(HTTP_GET, 10, "If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT", "If-None-Match", "\"x\"");
  assert_int_equal(verdict.status, 200);
}

static void preconditions_hold_or_fail(void **state) {
  (void)state;
  assert_int_equal(condition("If-Match", "\"tag\""), 200);
  assert_int_equal(condition("If-Match", "*"), 200);
  assert_int_equal(condition("If-Match", "W/\"tag\""), 412);
  assert_int_equal(condition("If-Match", "\"x\""), 412);
  assert_int_equal(condition("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"), 200);
  assert_int_equal(condition("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:36 GMT"), 412);
  assert_int_equal(condition("If-Unmodified-Since", "never"), 200);
}

/* ---- Text ------------------------------------------------------------------------------------------------ */

static void names_are_escaped(void **state) {
  (void)state;
  buffer_t buffer = {0};
  buffer_html(&buffer, "<a href='x'>\"&");
  buffer_url(&buffer, "/a b/%\"\xc3\xa9.~_-");
  buffer_add(&buffer, "", 1);
  assert_string_equal(buffer.data, "&lt;a href=&#39;x&#39;&gt;&quot;&amp;/a%20b/%25%22%C3%A9.~_-");
  buffer_free(&buffer);
}

static void buffers_grow(void **state) {
  (void)state;
  buffer_t buffer = {0};
  for (int i = 0; i < 10000; i++) buffer_format(&buffer, "%d%s", i % 10, i % 2 ? "" : "!");
  assert_int_equal(buffer.size, 15000);
  assert_memory_equal(buffer.data + 14985, "0!12!34!56!78!9", 15);
  assert_null(buffer_reserve(&buffer, SIZE_MAX / 2));
  assert_true(buffer.failed);
  buffer_clear(&buffer);
  assert_false(buffer.failed);
  buffer_free(&buffer);
}

static void types_follow_the_name(void **state) {
  (void)state;
  assert_string_equal(http_mime_type("a/b.c/index.HTML"), "text/html; charset=utf-8");
  assert_string_equal(http_mime_type("x.svg"), "image/svg+xml");
  assert_string_equal(http_mime_type("a.html/README"), "application/octet-stream");
  assert_string_equal(http_mime_type("a.unknown"), "application/octet-stream");
}

/* ---- Files ----------------------------------------------------------------------------------------------- */

static char folder[64];

static void put_file(int root, const char *name) {
  int fd = openat(root, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  close(fd);
}

/* outside/secret and root/ with a file, a directory, a FIFO and links. */
static int make_tree(void) {
  snprintf(folder, sizeof folder, "%s/aloop-test-XXXXXX", getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
  assert_non_null(mkdtemp(folder));
  int top = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  assert_int_equal(mkdirat(top, "root", 0700), 0);
  put_file(top, "secret");
  int root = openat(top, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  close(top);
  assert_int_equal(mkdirat(root, "dir", 0700), 0);
  put_file(root, "file");
  put_file(root, "dir/inner");
  assert_int_equal(mkfifoat(root, "fifo", 0600), 0);
  assert_int_equal(symlinkat("../secret", root, "out"), 0);
  assert_int_equal(symlinkat("..", root, "up"), 0);
  assert_int_equal(symlinkat("/etc/passwd", root, "absolute"), 0);
  assert_int_equal(symlinkat("file", root, "inside"), 0);
  return root;
}

static void remove_tree(int root) {
  static const char *const names[] = {"dir/inner", "file", "fifo", "out", "up", "absolute", "inside"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlinkat(root, names[i], 0);
  unlinkat(root, "dir", AT_REMOVEDIR);
  unlinkat(root, "../secret", 0);
  unlinkat(root, "../root", AT_REMOVEDIR);
  close(root);
  rmdir(folder);
}

typedef int (*open_fn)(int root, const char *path, struct stat *info);

static bool opens(open_fn open_file, int root, const char *name) {
  struct stat info;
  int fd = open_file(root, name, &info);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

/* What both ways of opening agree on. */
static void check_opening(open_fn open_file) {
  int root = make_tree();
  static const char *const good[] = {"", "file", "dir", "dir/inner"};
  static const char *const bad[] = {
      "missing", "file/x", "fifo", "out", "up", "up/secret", "absolute", "../secret", "dir/../../secret"};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
    if (!opens(open_file, root, good[i])) fail_msg("does not open: %s", good[i]);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    if (opens(open_file, root, bad[i])) fail_msg("opens: %s", bad[i]);
  remove_tree(root);
}

static void nothing_outside_of_the_root_opens(void **state) {
  (void)state;
  check_opening(files_open);
}

static void nothing_outside_opens_by_steps_either(void **state) {
  (void)state;
  check_opening(files_open_by_steps);
}

static void links_are_not_followed_by_steps(void **state) {
  (void)state;
  int root = make_tree();
  assert_false(opens(files_open_by_steps, root, "inside"));
  remove_tree(root);
}

static void overlong_names_are_refused(void **state) {
  (void)state;
  char name[600];
  memset(name, 'a', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  struct stat info;
  int root = make_tree();
  assert_int_equal(files_open(root, name, &info), -ENAMETOOLONG);
  assert_int_equal(files_open_by_steps(root, name, &info), -ENAMETOOLONG);
  remove_tree(root);
}

TESTS(T(targets_become_paths), T(queries_are_cut_off), T(absolute_targets_are_paths_too),
      T(targets_cannot_climb), T(hidden_and_impossible_names_are_not_found), T(dates_are_written),
      T(dates_are_read_in_three_forms), T(every_day_survives_a_round_trip), T(what_is_no_date_is_refused),
      T(ranges_are_cut_out), T(ranges_outside_are_not_satisfiable), T(what_is_no_single_range_gets_the_whole),
      T(if_range_wants_the_same_file), T(known_files_are_not_sent_again), T(tags_count_more_than_dates),
      T(preconditions_hold_or_fail), T(names_are_escaped), T(buffers_grow), T(types_follow_the_name),
      T(nothing_outside_of_the_root_opens), T(nothing_outside_opens_by_steps_either),
      T(links_are_not_followed_by_steps), T(overlong_names_are_refused))
