/* SPDX-License-Identifier: MIT
 *
 * The inbox of a stream: what was received is found and handed out in order, what comes back is as it was, and
 * a line on loan never changes.
 */
#include "streams.h"

#include <string.h>

#include "task/inbox.h"

static void add(env_t *env, aloop__inbox_t *inbox, const char *text) {
  size_t size = strlen(text);
  while (size > 0) {
    void *at;
    size_t room;
    assert_int_equal(aloop__inbox_space(env->loop, inbox, &at, &room), 0);
    assert_true(room > 0);
    size_t n = size < room ? size : room;
    memcpy(at, text, n);
    aloop__inbox_added(inbox, n, room);
    text += n;
    size -= n;
  }
}

static void expect_content(aloop__inbox_t *inbox, const char *text) {
  size_t size = strlen(text);
  assert_int_equal(aloop__inbox_size(inbox), size);
  if (size > 0) assert_memory_equal(inbox->block + inbox->head + inbox->taken + inbox->gap, text, size);
}

static void bytes_come_out_as_they_went_in(void **state) {
  env_t *env = *state;
  aloop__inbox_t inbox = {0};
  char got[8];
  add(env, &inbox, "hello ");
  add(env, &inbox, "world");
  aloop__inbox_take(&inbox, got, 6);
  assert_memory_equal(got, "hello ", 6);
  expect_content(&inbox, "world");
  aloop__inbox_settle(&inbox, false);
  expect_content(&inbox, "world");
  aloop__inbox_release(env->loop, &inbox);
}

static void what_comes_back_is_there_again(void **state) {
  env_t *env = *state;
  aloop__inbox_t inbox = {0};
  char got[8];
  add(env, &inbox, "hello world");
  aloop__inbox_take(&inbox, got, 5);
  aloop__inbox_settle(&inbox, true);
  expect_content(&inbox, "hello world");
  aloop__inbox_lend(&inbox, 5);
  aloop__inbox_settle(&inbox, true);
  expect_content(&inbox, "hello world");
  aloop__inbox_release(env->loop, &inbox);
}

static void a_line_on_loan_ends_with_a_zero_and_the_rest_is_whole(void **state) {
  env_t *env = *state;
  aloop__inbox_t inbox = {0};
  add(env, &inbox, "one\ntwo\n");
  const char *line = aloop__inbox_lend(&inbox, 4);
  assert_string_equal(line, "one\n");
  add(env, &inbox, "three\n");
  assert_string_equal(line, "one\n");
  aloop__inbox_settle(&inbox, false);
  expect_content(&inbox, "two\nthree\n");
  aloop__inbox_release(env->loop, &inbox);
}

static void a_line_on_loan_at_the_end_stays_when_more_arrives(void **state) {
  for (int back = 0; back < 2; back++) {
    env_t *env = *state;
    aloop__inbox_t inbox = {0};
    add(env, &inbox, "one\n");
    const char *line = aloop__inbox_lend(&inbox, 4);
    assert_string_equal(line, "one\n");
    add(env, &inbox, "two");
    add(env, &inbox, "\n");
    assert_string_equal(line, "one\n");
    aloop__inbox_settle(&inbox, back != 0);
    expect_content(&inbox, back ? "one\ntwo\n" : "two\n");
    aloop__inbox_release(env->loop, &inbox);
  }
}

static void a_loan_that_room_was_asked_for_in_vain_leaves_nothing(void **state) {
  for (int back = 0; back < 2; back++) {
    env_t *env = *state;
    aloop__inbox_t inbox = {0};
    void *at;
    size_t room;
    add(env, &inbox, "one\n");
    aloop__inbox_lend(&inbox, 4);
    for (int i = 0; i < 3; i++) assert_int_equal(aloop__inbox_space(env->loop, &inbox, &at, &room), 0);
    assert_int_equal(aloop__inbox_size(&inbox), 0);
    aloop__inbox_settle(&inbox, back != 0);
    expect_content(&inbox, back ? "one\n" : "");
    aloop__inbox_release(env->loop, &inbox);
  }
}

static void a_loan_keeps_a_full_block_where_it_is(void **state) {
  env_t *env = *state;
  for (size_t rest = 0; rest < 4; rest++) {
    aloop__inbox_t inbox = {0};
    void *at;
    size_t room;
    assert_int_equal(aloop__inbox_space(env->loop, &inbox, &at, &room), 0);
    memset(at, 'x', room - rest);
    aloop__inbox_added(&inbox, room - rest, room);
    const char *line = aloop__inbox_lend(&inbox, room - rest);
    assert_int_equal(line[room - rest], 0);
    int rc = aloop__inbox_space(env->loop, &inbox, &at, &room);
    if (rest < 2) {
      assert_true(aloop__inbox_stuck(&inbox));
      assert_int_equal(rc, ALOOP_ENOBUFS);
    } else {
      assert_int_equal(rc, 0);
      assert_int_equal(room, rest - 1);
      assert_int_equal(line[strlen(line)], 0);
    }
    aloop__inbox_settle(&inbox, true);
    assert_int_equal(aloop__inbox_space(env->loop, &inbox, &at, &room), 0);
    assert_true(room > 0);
    aloop__inbox_release(env->loop, &inbox);
  }
}

static void a_separator_is_found_wherever_it_is_split(void **state) {
  env_t *env = *state;
  static const char text[] = "a\r\r\n\rbc\r\n\r\nrest";
  for (size_t cut = 0; cut < sizeof text; cut++) {
    for (size_t second = cut; second < sizeof text; second++) {
      aloop__inbox_t inbox = {0};
      char part[sizeof text];
      size_t at = SIZE_MAX, cuts[] = {0, cut, second, sizeof text - 1};
      for (int i = 0; i < 3 && cuts[i] < cuts[i + 1]; i++) {
        memcpy(part, text + cuts[i], cuts[i + 1] - cuts[i]);
        part[cuts[i + 1] - cuts[i]] = '\0';
        add(env, &inbox, part);
        at = aloop__inbox_find(&inbox, "\r\n\r\n", 4);
        if (cuts[i + 1] < 11)
          assert_true(at == SIZE_MAX);
        else
          assert_int_equal(at, 7);
      }
      aloop__inbox_release(env->loop, &inbox);
    }
  }
}

static void searching_does_not_look_twice(void **state) {
  env_t *env = *state;
  aloop__inbox_t inbox = {0};
  add(env, &inbox, "abc\n");
  assert_int_equal(aloop__inbox_find(&inbox, "xy", 2), SIZE_MAX);
  assert_int_equal(inbox.scanned, 3);
  assert_int_equal(aloop__inbox_find(&inbox, "\n", 1), 3);
  add(env, &inbox, "def\n");
  inbox.scanned = 4;
  assert_int_equal(aloop__inbox_find(&inbox, "\n", 1), 7);
  aloop__inbox_settle(&inbox, false);
  assert_int_equal(aloop__inbox_find(&inbox, "\n", 1), 3);
  aloop__inbox_release(env->loop, &inbox);
}

static void large_contents_grow_and_shrink(void **state) {
  env_t *env = *state;
  enum { SIZE = 3000000 };
  aloop__inbox_t inbox = {0};
  static char in[SIZE], out[SIZE];
  pattern(in, SIZE, 1);
  size_t written = 0, read = 0;
  unsigned random = 7;
  while (read < SIZE) {
    random = random * 1103515245 + 12345;
    void *at;
    size_t room;
    if (written < SIZE && (random >> 16) % 3 != 0) {
      assert_int_equal(aloop__inbox_space(env->loop, &inbox, &at, &room), 0);
      size_t n = room < SIZE - written ? room : SIZE - written;
      if ((random >> 20) % 2) n = n / 3 + 1;
      memcpy(at, in + written, n);
      aloop__inbox_added(&inbox, n, room);
      written += n;
    } else if (aloop__inbox_size(&inbox) > 0) {
      size_t n = aloop__inbox_size(&inbox) / ((random >> 24) % 4 + 1);
      if (n == 0) n = 1;
      aloop__inbox_take(&inbox, out + read, n);
      bool back = (random >> 28) % 4 == 0;
      aloop__inbox_settle(&inbox, back);
      if (!back) read += n;
      aloop__inbox_rest(env->loop, &inbox);
    }
  }
  assert_memory_equal(in, out, SIZE);
  assert_int_equal(aloop__inbox_size(&inbox), 0);
  aloop__inbox_release(env->loop, &inbox);
}

static void empty_blocks_are_used_again(void **state) {
  env_t *env = *state;
  aloop__inbox_t inbox = {0};
  add(env, &inbox, "first");
  aloop__inbox_settle(&inbox, false);
  char got[8];
  aloop__inbox_take(&inbox, got, 5);
  aloop__inbox_settle(&inbox, false);
  aloop__inbox_rest(env->loop, &inbox);
  assert_null(inbox.block);
  long before = env->calls;
  for (int i = 0; i < 100; i++) {
    add(env, &inbox, "again");
    aloop__inbox_take(&inbox, got, 5);
    aloop__inbox_settle(&inbox, false);
    aloop__inbox_rest(env->loop, &inbox);
  }
  assert_int_equal(env->calls, before);
}

static void a_block_with_bytes_or_a_loan_does_not_rest(void **state) {
  env_t *env = *state;
  aloop__inbox_t inbox = {0};
  add(env, &inbox, "x\n");
  aloop__inbox_rest(env->loop, &inbox);
  assert_non_null(inbox.block);
  const char *line = aloop__inbox_lend(&inbox, 2);
  aloop__inbox_rest(env->loop, &inbox);
  assert_string_equal(line, "x\n");
  aloop__inbox_release(env->loop, &inbox);
}

static void out_of_memory_changes_nothing(void **state) {
  env_t *env = *state;
  aloop__inbox_t inbox = {0};
  void *at;
  size_t room;
  env->fail_from = 1;
  assert_int_equal(aloop__inbox_space(env->loop, &inbox, &at, &room), ALOOP_ENOMEM);
  env->fail_from = 0;
  add(env, &inbox, "kept");
  size_t size = inbox.room - inbox.tail;
  for (size_t i = 0; i < size; i++) add(env, &inbox, "x");
  env->fail_from = env->calls + 1;
  assert_int_equal(aloop__inbox_space(env->loop, &inbox, &at, &room), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_int_equal(aloop__inbox_size(&inbox), 4 + size);
  assert_memory_equal(inbox.block + inbox.head, "kept", 4);
  add(env, &inbox, "more");
  assert_int_equal(aloop__inbox_size(&inbox), 8 + size);
  aloop__inbox_release(env->loop, &inbox);
}

TESTS(T(bytes_come_out_as_they_went_in), T(what_comes_back_is_there_again),
      T(a_line_on_loan_ends_with_a_zero_and_the_rest_is_whole),
      T(a_line_on_loan_at_the_end_stays_when_more_arrives),
      T(a_loan_that_room_was_asked_for_in_vain_leaves_nothing), T(a_loan_keeps_a_full_block_where_it_is),
      T(a_separator_is_found_wherever_it_is_split), T(searching_does_not_look_twice),
      T(large_contents_grow_and_shrink), T(empty_blocks_are_used_again),
      T(a_block_with_bytes_or_a_loan_does_not_rest), T(out_of_memory_changes_nothing))
