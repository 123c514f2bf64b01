/* SPDX-License-Identifier: MIT
 *
 * Reading from a stream: every way of reading, every place where the kernel may cut, the limit to the byte, the
 * end, errors, and cancelling, which loses nothing. pollers: all
 */
#include "duplexes.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Bytes ----------------------------------------------------------------------------------------------- */

static void read_gives_what_is_there(void **state) {
  int peer;
  aloop_stream_t *stream = open_stream(*state, 0, &peer);
  say(peer, "hello");
  expect_some(stream, 100, "hello");
  say(peer, "hello");
  expect_some(stream, 2, "he");
  expect_some(stream, 3, "llo");
  end_stream(stream, peer);
}

static void read_waits_for_a_byte(void **state) {
  env_t *env = *state;
  int peer;
  char buffer[8];
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = aloop_stream_read(stream, buffer, sizeof buffer);
  settle(env->loop);
  assert_false(aloop_future_done(future));
  say(peer, "x");
  assert_int_equal(finish(env->loop, future), 1);
  assert_int_equal(buffer[0], 'x');
  end_stream(stream, peer);
}

static void readexactly_waits_for_all(void **state) {
  env_t *env = *state;
  int peer;
  char buffer[6] = "";
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = aloop_stream_readexactly(stream, buffer, 5);
  for (int i = 0; i < 4; i++) {
    say(peer, "e");
    settle(env->loop);
    assert_false(aloop_future_done(future));
  }
  say(peer, "oworld");
  assert_int_equal(finish(env->loop, future), 5);
  assert_string_equal(buffer, "eeeeo");
  expect_exactly(stream, "world");
  end_stream(stream, peer);
}

static void nothing_is_read_at_once(void **state) {
  env_t *env = *state;
  int peer;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = aloop_stream_read(stream, NULL, 0);
  assert_true(aloop_future_done(future));
  assert_int_equal(finish(env->loop, future), 0);
  future = aloop_stream_readexactly(stream, NULL, 0);
  assert_true(aloop_future_done(future));
  assert_int_equal(finish(env->loop, future), 0);
  end_stream(stream, peer);
}

static void lines_come_one_by_one(void **state) {
  int peer;
  aloop_stream_t *stream = open_stream(*state, 0, &peer);
  say(peer, "one\n\ntwo\nthr");
  expect_line(stream, "one\n");
  expect_line(stream, "\n");
  expect_line(stream, "two\n");
  say(peer, "ee\n");
  expect_line(stream, "three\n");
  end_stream(stream, peer);
}

static void ways_of_reading_mix(void **state) {
  int peer;
  aloop_stream_t *stream = open_stream(*state, 0, &peer);
  say(peer, "line\n12345key=value;;rest");
  expect_line(stream, "line\n");
  expect_exactly(stream, "12345");
  expect_until(stream, ";;", "key=value;;");
  expect_some(stream, 100, "rest");
  end_stream(stream, peer);
}

static void a_line_stays_until_the_next_read(void **state) {
  env_t *env = *state;
  int peer;
  const char *line;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "first\n");
  assert_int_equal(finish(env->loop, aloop_stream_readline(stream, &line)), 6);
  say(peer, "second\nthird\n");
  settle(env->loop);
  assert_string_equal(line, "first\n");
  expect_line(stream, "second\n");
  expect_line(stream, "third\n");
  end_stream(stream, peer);
}

/* ---- Cuts ------------------------------------------------------------------------------------------------ */

static void say_bytes(int peer, const char *data, size_t size) {
  if (size > 0) assert_int_equal(write(peer, data, size), (ssize_t)size);
}

static void a_separator_may_be_cut_anywhere(void **state) {
  env_t *env = *state;
  static const char text[] = "head\r\n\r\r\n\r\nbody";
  for (size_t cut = 0; cut < sizeof text; cut++) {
    for (int waits = 0; waits < 2; waits++) {
      int peer;
      const char *data = NULL;
      aloop_stream_t *stream = open_stream(env, 0, &peer);
      aloop_future_t *future = waits ? aloop_stream_readuntil(stream, "\r\n\r\n", 4, &data) : NULL;
      say_bytes(peer, text, cut);
      settle(env->loop);
      if (!waits) future = aloop_stream_readuntil(stream, "\r\n\r\n", 4, &data);
      assert_int_equal(aloop_future_done(future), cut >= 11);
      say_bytes(peer, text + cut, sizeof text - 1 - cut);
      assert_int_equal(finish(env->loop, future), 11);
      assert_memory_equal(data, text, 11);
      assert_int_equal(data[11], 0);
      expect_exactly(stream, "body");
      end_stream(stream, peer);
    }
  }
}

static void the_end_may_come_anywhere(void **state) {
  env_t *env = *state;
  static const char text[] = "one\ntwo";
  for (size_t size = 0; size < sizeof text; size++) {
    for (int waits = 0; waits < 2; waits++) {
      int peer;
      const char *line = NULL;
      aloop_stream_t *stream = open_stream(env, 0, &peer);
      aloop_future_t *future = waits ? aloop_stream_readline(stream, &line) : NULL;
      say_bytes(peer, text, size);
      shutdown(peer, SHUT_WR);
      settle(env->loop);
      if (!waits) future = aloop_stream_readline(stream, &line);
      assert_int_equal(finish(env->loop, future), size < 4 ? size : 4);
      if (size > 0) assert_memory_equal(line, text, size < 4 ? size : 4);
      if (size > 4) {
        assert_false(aloop_stream_at_eof(stream));
        char rest[8] = "";
        memcpy(rest, text + 4, size - 4);
        expect_line(stream, rest);
      }
      expect_end(stream);
      end_stream(stream, peer);
    }
  }
}

static void what_came_before_the_end_can_be_read(void **state) {
  env_t *env = *state;
  int peer;
  char buffer[16];
  const char *data;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "four");
  shutdown(peer, SHUT_WR);
  aloop_future_t *future = aloop_stream_readexactly(stream, buffer, 5);
  assert_int_equal(run_future(env->loop, future), ALOOP_EOF);
  assert_string_equal(aloop_future_message(future), "the stream ended after 4 of 5 bytes");
  aloop_future_unref(future);
  assert_int_equal(finish(env->loop, aloop_stream_readuntil(stream, "x", 1, &data)), ALOOP_EOF);
  assert_false(aloop_stream_at_eof(stream));
  expect_some(stream, 3, "fou");
  assert_false(aloop_stream_at_eof(stream));
  expect_exactly(stream, "r");
  expect_end(stream);
  end_stream(stream, peer);
}

/* ---- Limits ---------------------------------------------------------------------------------------------- */

enum { LIMIT = 100 };

/* asyncio counts what stands before the separator. */
static void the_limit_holds_to_the_byte(void **state) {
  env_t *env = *state;
  static const char *const separators[] = {"\n", "\r\n", "-----"};
  char text[LIMIT * 3];
  for (size_t i = 0; i < 3; i++) {
    size_t width = strlen(separators[i]);
    for (size_t length = LIMIT - 6; length < LIMIT + 6; length++) {
      int peer;
      const char *data = NULL;
      aloop_stream_t *stream = open_stream(env, LIMIT, &peer);
      memset(text, 'x', sizeof text);
      memcpy(text + length, separators[i], width);
      say_bytes(peer, text, length + width);
      settle(env->loop);
      int64_t value = finish(env->loop, aloop_stream_readuntil(stream, separators[i], width, &data));
      assert_int_equal(value, length <= LIMIT ? (int64_t)(length + width) : ALOOP_ERANGE);
      if (value < 0) {
        text[length + width] = '\0';
        expect_exactly(stream, text);
      }
      end_stream(stream, peer);
    }
  }
}

static void too_much_without_a_separator_is_refused_to_the_byte(void **state) {
  env_t *env = *state;
  char text[LIMIT * 3];
  memset(text, 'x', sizeof text);
  for (size_t width = 1; width < 5; width++) {
    int peer;
    const char *data = NULL;
    aloop_stream_t *stream = open_stream(env, LIMIT, &peer);
    say_bytes(peer, text, LIMIT + width - 1);
    settle(env->loop);
    aloop_future_t *future = aloop_stream_readuntil(stream, "\r\n\r\n", width, &data);
    settle(env->loop);
    assert_false(aloop_future_done(future));
    say(peer, "x");
    assert_int_equal(run_future(env->loop, future), ALOOP_ERANGE);
    assert_string_equal(aloop_future_message(future),
                        "the separator was not found within the limit of 100 bytes; nothing was consumed");
    aloop_future_unref(future);
    text[LIMIT + width] = '\0';
    expect_exactly(stream, text);
    text[LIMIT + width] = 'x';
    end_stream(stream, peer);
  }
}

static void an_overrun_repeats_until_it_is_read_away(void **state) {
  env_t *env = *state;
  int peer;
  const char *line = NULL;
  char text[2 * LIMIT + 2];
  memset(text, 'x', sizeof text);
  text[2 * LIMIT] = '\n';
  aloop_stream_t *stream = open_stream(env, LIMIT, &peer);
  say_bytes(peer, text, 2 * LIMIT + 1);
  settle(env->loop);
  for (int i = 0; i < 3; i++)
    assert_int_equal(finish(env->loop, aloop_stream_readline(stream, &line)), ALOOP_ERANGE);
  assert_null(line);
  text[LIMIT] = '\0';
  expect_exactly(stream, text);
  text[LIMIT] = '\n';
  text[LIMIT + 1] = '\0';
  expect_line(stream, text);
  end_stream(stream, peer);
}

static void reading_pauses_over_twice_the_limit_and_goes_on_at_it(void **state) {
  env_t *env = *state;
  int peer;
  char text[8 * LIMIT], got[8 * LIMIT];
  pattern(text, sizeof text, 3);
  aloop_stream_t *stream = open_stream(env, LIMIT, &peer);
  const aloop_transport_t *transport = aloop_stream_transport(stream);
  say_bytes(peer, text, 2 * LIMIT);
  settle(env->loop);
  assert_true(aloop_transport_is_reading(transport));
  say_bytes(peer, text + 2 * LIMIT, 1);
  settle(env->loop);
  assert_false(aloop_transport_is_reading(transport));
  assert_int_equal(finish(env->loop, aloop_stream_read(stream, got, LIMIT)), LIMIT);
  assert_false(aloop_transport_is_reading(transport));
  assert_int_equal(finish(env->loop, aloop_stream_read(stream, got + LIMIT, 1)), 1);
  assert_true(aloop_transport_is_reading(transport));
  say_bytes(peer, text + 2 * LIMIT + 1, 6 * LIMIT - 1);
  assert_int_equal(finish(env->loop, aloop_stream_readexactly(stream, got + LIMIT + 1, 7 * LIMIT - 1)),
                   7 * LIMIT - 1);
  assert_memory_equal(got, text, sizeof text);
  end_stream(stream, peer);
}

static void readexactly_of_more_than_the_limit_goes_on_reading(void **state) {
  env_t *env = *state;
  enum { MUCH = 1000000 };
  static char text[MUCH], got[MUCH];
  int peer;
  aloop_stream_t *stream = open_stream(env, LIMIT, &peer);
  pattern(text, MUCH, 5);
  size_t sent = 0;
  aloop_future_t *future = aloop_stream_readexactly(stream, got, MUCH);
  while (!aloop_future_done(future)) {
    ssize_t n = write(peer, text + sent, MUCH - sent);
    if (n > 0) sent += (size_t)n;
    aloop_run_once(env->loop, 0);
  }
  assert_int_equal(finish(env->loop, future), MUCH);
  assert_memory_equal(got, text, MUCH);
  end_stream(stream, peer);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------ */

static aloop_future_t *start_read(aloop_stream_t *stream, int way, char *buffer, const char **data) {
  switch (way) {
  case 0:
    return aloop_stream_read(stream, buffer, 100);
  case 1:
    return aloop_stream_readexactly(stream, buffer, 7);
  case 2:
    return aloop_stream_readline(stream, data);
  default:
    return aloop_stream_readuntil(stream, "e\n", 2, data);
  }
}

static void a_cancelled_read_consumes_nothing(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    for (size_t before = 0; before < 6; before++) {
      int peer;
      char buffer[100];
      const char *data = NULL;
      aloop_stream_t *stream = open_stream(env, 0, &peer);
      if (way != 0) say_bytes(peer, "a line\n", before);
      settle(env->loop);
      aloop_future_t *future = start_read(stream, way, buffer, &data);
      assert_int_equal(aloop_future_cancel(future), 1);
      aloop_future_unref(future);
      if (way == 0) say_bytes(peer, "a line\n", before);
      say(peer, &"a line\n"[before]);
      expect_line(stream, "a line\n");
      end_stream(stream, peer);
    }
  }
}

static void a_result_that_nobody_reads_comes_back(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    for (int later = 0; later < 3; later++) {
      int peer;
      char buffer[100];
      const char *data = NULL;
      aloop_stream_t *stream = open_stream(env, 0, &peer);
      if (later == 0) say(peer, "a line\n");
      settle(env->loop);
      aloop_future_t *future = start_read(stream, way, buffer, &data);
      if (later > 0) say(peer, "a line\n");
      settle(env->loop);
      assert_true(aloop_future_done(future));
      if (later == 2) say(peer, "another\n");
      settle(env->loop);
      aloop_future_unref(future);
      expect_line(stream, "a line\n");
      if (later == 2) expect_line(stream, "another\n");
      end_stream(stream, peer);
    }
  }
}

static void a_result_that_may_still_be_read_is_in_the_way(void **state) {
  env_t *env = *state;
  int peer;
  const char *line;
  char byte;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "a line\nanother\n");
  settle(env->loop);
  aloop_future_t *future = aloop_stream_readline(stream, &line);
  assert_true(aloop_future_done(future));
  aloop_future_t *second = aloop_stream_read(stream, &byte, 1);
  assert_int_equal(finish(env->loop, second), ALOOP_EBUSY);
  assert_int_equal(aloop_future_result(future), 7);
  assert_string_equal(line, "a line\n");
  expect_line(stream, "another\n");
  aloop_future_unref(future);
  end_stream(stream, peer);
}

static void one_read_waits_at_a_time(void **state) {
  env_t *env = *state;
  int peer;
  const char *line;
  char byte;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = aloop_stream_readline(stream, &line);
  assert_int_equal(finish(env->loop, aloop_stream_read(stream, &byte, 1)), ALOOP_EBUSY);
  say(peer, "a line\n");
  assert_int_equal(finish(env->loop, future), 7);
  end_stream(stream, peer);
}

static void a_timeout_loses_nothing(void **state) {
  env_t *env = *state;
  int peer;
  char buffer[8];
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "half");
  aloop_future_t *future = aloop_wait_for(aloop_stream_readexactly(stream, buffer, 8), ALOOP_MILLIS(5));
  assert_int_equal(finish(env->loop, future), ALOOP_ETIMEDOUT);
  say(peer, "half");
  future = aloop_wait_for(aloop_stream_readexactly(stream, buffer, 8), ALOOP_FOREVER);
  assert_int_equal(finish(env->loop, future), 8);
  assert_memory_equal(buffer, "halfhalf", 8);
  say(peer, "x");
  expect_some(stream, 8, "x");
  end_stream(stream, peer);
}

/* ---- Together -------------------------------------------------------------------------------------------- */

/* Two streams are read at once; the result of the gather, or of what waits for it, is theirs. */
static void reading_a_gather_reads_its_children(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    int peers[2];
    char buffers[2][8];
    aloop_stream_t *streams[2];
    aloop_future_t *reads[2];
    for (int i = 0; i < 2; i++) {
      streams[i] = open_stream(env, 0, &peers[i]);
      reads[i] = aloop_stream_readexactly(streams[i], buffers[i], 5);
    }
    aloop_future_t *both = aloop_gather(env->loop, reads, 2, way == 1 ? ALOOP_RETURN_ERRORS : 0);
    if (way == 2) both = aloop_wait_for(both, ALOOP_FOREVER);
    if (way == 3) both = aloop_gather(env->loop, &both, 1, 0);
    for (int i = 0; i < 2; i++) say(peers[i], "firstsecond");
    assert_int_equal(finish(env->loop, both), way == 3 ? 1 : 2);
    for (int i = 0; i < 2; i++) {
      assert_memory_equal(buffers[i], "first", 5);
      expect_exactly(streams[i], "second");
      end_stream(streams[i], peers[i]);
    }
  }
}

static void a_gather_that_nobody_reads_consumes_nothing(void **state) {
  env_t *env = *state;
  int peer;
  char buffer[8];
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *read = aloop_stream_readexactly(stream, buffer, 5);
  aloop_future_t *all = aloop_gather(env->loop, &read, 1, 0);
  say(peer, "first");
  while (!aloop_future_done(all)) aloop_run_once(env->loop, 0);
  aloop_future_unref(all);
  settle(env->loop);
  expect_exactly(stream, "first");
  end_stream(stream, peer);
}

/* ---- Errors ---------------------------------------------------------------------------------------------- */

static void what_came_before_an_error_can_be_read_and_then_the_error(void **state) {
  env_t *env = *state;
  int peer;
  char buffer[8];
  const char *line;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "line\nrest");
  settle(env->loop);
  aloop_transport_abort_error(aloop_stream_transport(stream), ALOOP_EIO);
  settle(env->loop);
  assert_int_equal(aloop_stream_error(stream), ALOOP_EIO);
  expect_line(stream, "line\n");
  for (int i = 0; i < 2; i++) {
    assert_int_equal(finish(env->loop, aloop_stream_readline(stream, &line)), ALOOP_EIO);
    assert_int_equal(finish(env->loop, aloop_stream_readexactly(stream, buffer, 5)), ALOOP_EIO);
    assert_false(aloop_stream_at_eof(stream));
  }
  expect_exactly(stream, "rest");
  assert_int_equal(finish(env->loop, aloop_stream_read(stream, buffer, 5)), ALOOP_EIO);
  end_stream(stream, peer);
}

static void a_read_that_waits_hears_of_the_error(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    int peer;
    char buffer[100];
    const char *data;
    aloop_stream_t *stream = open_stream(env, 0, &peer);
    aloop_future_t *future = start_read(stream, way, buffer, &data);
    aloop_transport_abort_error(aloop_stream_transport(stream), ALOOP_EIO);
    assert_int_equal(finish(env->loop, future), ALOOP_EIO);
    end_stream(stream, peer);
  }
}

static void a_read_that_waits_when_the_stream_is_closed_ends(void **state) {
  env_t *env = *state;
  static const int64_t wanted[] = {0, ALOOP_EOF, 0, ALOOP_EOF};
  for (int way = 0; way < 4; way++) {
    int peer;
    char buffer[100];
    const char *data;
    aloop_stream_t *stream = open_stream(env, 0, &peer);
    aloop_future_t *future = start_read(stream, way, buffer, &data);
    aloop_stream_close(stream);
    assert_int_equal(finish(env->loop, future), wanted[way]);
    end_stream(stream, peer);
  }
}

static void in_a_closed_loop_reads_fail(void **state) {
  env_t *env = *state;
  int peer;
  char buffer[100];
  const char *data;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = start_read(stream, 1, buffer, &data);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_future_done(future));
  assert_true(aloop_future_result(future) < 0);
  aloop_future_unref(future);
  future = start_read(stream, 2, buffer, &data);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
  aloop_stream_unref(stream);
  close(peer);
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static void nothing_is_allocated_line_by_line(void **state) {
  env_t *env = *state;
  int peer;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  long before = 0;
  for (int i = 0; i < 100; i++) {
    if (i == 2) before = env->calls;
    say(peer, "a line\nand another\nand more");
    expect_line(stream, "a line\n");
    expect_line(stream, "and another\n");
    expect_some(stream, 100, "and more");
    const char *line;
    aloop_future_t *future = aloop_stream_readline(stream, &line);
    settle(env->loop);
    say(peer, "late\n");
    assert_int_equal(finish(env->loop, future), 5);
    assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), 0);
  }
  assert_int_equal(env->calls, before);
  end_stream(stream, peer);
}

static void out_of_memory_a_read_fails_and_the_next_goes_on(void **state) {
  env_t *env = *state;
  int peer;
  const char *line;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = aloop_stream_readline(stream, &line);
  say(peer, "a line\n");
  env->fail_from = env->calls + 1;
  settle(env->loop);
  env->fail_from = 0;
  assert_int_equal(finish(env->loop, future), ALOOP_ENOMEM);
  assert_false(aloop_stream_is_closing(stream));
  expect_line(stream, "a line\n");
  end_stream(stream, peer);
}

TESTS(T(read_gives_what_is_there), T(read_waits_for_a_byte), T(readexactly_waits_for_all),
      T(nothing_is_read_at_once), T(lines_come_one_by_one), T(ways_of_reading_mix),
      T(a_line_stays_until_the_next_read), T(a_separator_may_be_cut_anywhere), T(the_end_may_come_anywhere),
      T(what_came_before_the_end_can_be_read), T(the_limit_holds_to_the_byte),
      T(too_much_without_a_separator_is_refused_to_the_byte), T(an_overrun_repeats_until_it_is_read_away),
      T(reading_pauses_over_twice_the_limit_and_goes_on_at_it),
      T(readexactly_of_more_than_the_limit_goes_on_reading), T(a_cancelled_read_consumes_nothing),
      T(a_result_that_nobody_reads_comes_back), T(a_result_that_may_still_be_read_is_in_the_way),
      T(one_read_waits_at_a_time), T(a_timeout_loses_nothing), T(reading_a_gather_reads_its_children),
      T(a_gather_that_nobody_reads_consumes_nothing),
      T(what_came_before_an_error_can_be_read_and_then_the_error), T(a_read_that_waits_hears_of_the_error),
      T(a_read_that_waits_when_the_stream_is_closed_ends), T(in_a_closed_loop_reads_fail),
      T(nothing_is_allocated_line_by_line), T(out_of_memory_a_read_fails_and_the_next_goes_on))
