/* SPDX-License-Identifier: MIT
 *
 * The life of a stream, and writing: over any transport, in any state, closed in any state; drains wait only
 * while the write buffer is too full and hear when the connection is lost. pollers: all
 */
#include "duplexes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/stream.h"

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void a_stream_talks_in_both_directions(void **state) {
  env_t *env = *state;
  int peer;
  char got[16] = "";
  struct iovec parts[] = {{"wor", 3}, {"ld\n", 3}};
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  assert_ptr_equal(aloop_stream_loop(stream), env->loop);
  assert_int_equal(aloop_stream_write(stream, "hello ", 6), 0);
  assert_int_equal(aloop_stream_writev(stream, parts, 2), 0);
  assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), 0);
  assert_int_equal(read(peer, got, sizeof got), 12);
  assert_string_equal(got, "hello world\n");
  say(peer, got);
  expect_line(stream, "hello world\n");
  end_stream(stream, peer);
}

static void the_last_reference_closes_after_what_was_written(void **state) {
  env_t *env = *state;
  int peer;
  size_t size = 1000000, read = 0;
  char *much = malloc(size);
  pattern(much, size, 2);
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  assert_ptr_equal(aloop_stream_ref(stream), stream);
  assert_int_equal(aloop_stream_write(stream, much, size), 0);
  aloop_stream_unref(stream);
  assert_false(aloop_stream_is_closing(stream));
  aloop_stream_unref(stream);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  do {
    read += drain(peer, much, size);
    aloop_run_once(env->loop, 0);
    assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  } while (metrics.streams > 0);
  read += drain(peer, much, size);
  assert_int_equal(read, size);
  assert_int_equal(metrics.transports, 0);
  free(much);
  close(peer);
}

static void unref_of_nothing_is_fine(void **state) {
  (void)state;
  aloop_stream_unref(NULL);
}

static void the_loop_ends_streams_that_are_left(void **state) {
  env_t *env = *state;
  int peer;
  char byte;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *reading = aloop_stream_read(stream, &byte, 1);
  aloop_future_t *closed = aloop_stream_wait_closed(stream);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_future_done(reading) && aloop_future_done(closed));
  assert_true(aloop_future_result(reading) < 0);
  assert_true(aloop_future_result(closed) < 0);
  assert_int_equal(aloop_stream_error(stream), ALOOP_ECLOSED);
  assert_int_equal(aloop_stream_write(stream, "x", 1), ALOOP_ECLOSED);
  aloop_future_unref(reading);
  aloop_future_unref(closed);
  aloop_stream_unref(stream);
  close(peer);
}

static void a_stream_may_outlive_its_loop(void **state) {
  env_t *env = *state;
  int peer;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "unread");
  settle(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  aloop_stream_unref(stream);
  close(peer);
  env_loop(env, (aloop_options_t){0});
}

/* ---- Over transports in any state ------------------------------------------------------------------------ */

static aloop_stream_t *over(tape_t *tape) {
  aloop_stream_t *stream = NULL;
  assert_int_equal(aloop_stream_new(tape->transport, NULL, &stream), 0);
  aloop_transport_unref(tape->transport);
  return stream;
}

static void bytes_of_before_belong_to_the_protocol_of_before(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "theirs");
  settle(env->loop);
  aloop_stream_t *stream = over(&tape);
  say(peer, "ours");
  expect_exactly(stream, "ours");
  assert_int_equal(tape.size, 6);
  free(tape.bytes);
  end_stream(stream, peer);
}

static void become_stream(tape_t *tape) {
  aloop_stream_t *stream = NULL;
  assert_int_equal(aloop_stream_new(tape->transport, NULL, &stream), 0);
  tape->arg = stream;
}

static void a_stream_may_begin_inside_a_callback(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = become_stream};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "theirs");
  settle(env->loop);
  say(peer, "ours");
  expect_exactly(tape.arg, "ours");
  aloop_transport_unref(tape.transport);
  free(tape.bytes);
  end_stream(tape.arg, peer);
}

static void a_paused_transport_is_read(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_pause_reading(tape.transport), 0);
  say(peer, "hello");
  settle(env->loop);
  aloop_stream_t *stream = over(&tape);
  expect_exactly(stream, "hello");
  end_stream(stream, peer);
}

static void an_end_of_before_is_known(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .answer[AT_EOF] = 1};
  int peer = open_tape(&tape, &plain_protocol);
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_true(tape.eof);
  aloop_stream_t *stream = over(&tape);
  expect_end(stream);
  assert_int_equal(aloop_stream_write(stream, "still", 5), 0);
  end_stream(stream, peer);
}

static void a_full_write_buffer_of_before_is_waited_for(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  size_t size = 1000000;
  char *much = calloc(1, size);
  assert_int_equal(aloop_transport_write(tape.transport, much, size), 0);
  aloop_stream_t *stream = over(&tape);
  aloop_future_t *future = aloop_stream_drain(stream);
  assert_false(aloop_future_done(future));
  while (!aloop_future_done(future)) {
    drain(peer, much, size);
    aloop_run_once(env->loop, 0);
  }
  assert_int_equal(finish(env->loop, future), 0);
  free(much);
  end_stream(stream, peer);
}

static void over_a_closing_or_lost_transport_a_stream_is_at_its_end(void **state) {
  env_t *env = *state;
  for (int turns = 0; turns < 3; turns++) {
    for (int error = 0; error < 2; error++) {
      tape_t tape = {.env = env};
      int peer = open_tape(&tape, &plain_protocol);
      aloop_transport_abort_error(tape.transport, error ? ALOOP_EIO : 0);
      for (int i = 0; i < turns; i++) aloop_run_once(env->loop, 0);
      aloop_stream_t *stream = over(&tape);
      char byte;
      assert_true(aloop_stream_is_closing(stream));
      assert_int_equal(finish(env->loop, aloop_stream_read(stream, &byte, 1)), error ? ALOOP_EIO : 0);
      assert_int_equal(finish(env->loop, aloop_stream_wait_closed(stream)), error ? ALOOP_EIO : 0);
      assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), error ? ALOOP_EIO : ALOOP_ECLOSED);
      end_stream(stream, peer);
    }
  }
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

static void write_eof_ends_one_direction(void **state) {
  env_t *env = *state;
  int peer;
  char got[8];
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  assert_true(aloop_stream_can_write_eof(stream));
  assert_int_equal(aloop_stream_write(stream, "bye", 3), 0);
  assert_int_equal(aloop_stream_write_eof(stream), 0);
  assert_int_equal(read(peer, got, sizeof got), 3);
  assert_true(at_eof(peer));
  say(peer, "answer");
  expect_exactly(stream, "answer");
  end_stream(stream, peer);
}

static size_t fill_stream(aloop_stream_t *stream) {
  static char much[100000];
  size_t size = 0;
  while (size < 2000000) {
    assert_int_equal(aloop_stream_write(stream, much, sizeof much), 0);
    size += sizeof much;
  }
  return size;
}

static void drains_wait_over_the_high_mark_until_the_low_one(void **state) {
  env_t *env = *state;
  int peer;
  static char got[100000];
  aloop_future_t *waiting[3];
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_transport_t *transport = aloop_stream_transport(stream);
  aloop_future_t *future = aloop_stream_drain(stream);
  assert_true(aloop_future_done(future));
  assert_int_equal(finish(env->loop, future), 0);
  fill_stream(stream);
  for (int i = 0; i < 3; i++) waiting[i] = aloop_stream_drain(stream);
  assert_int_equal(aloop_future_cancel(waiting[1]), 1);
  while (aloop_transport_get_write_buffer_size(transport) > 16384) {
    assert_false(aloop_future_done(waiting[0]) || aloop_future_done(waiting[2]));
    drain(peer, got, sizeof got);
    aloop_run_once(env->loop, 0);
  }
  for (int i = 0; i < 3; i++) {
    assert_true(aloop_future_done(waiting[i]));
    assert_int_equal(finish(env->loop, waiting[i]), i == 1 ? ALOOP_ECANCELED : 0);
  }
  end_stream(stream, peer);
}

static void drains_fail_when_the_connection_is_lost(void **state) {
  env_t *env = *state;
  for (int error = 0; error < 2; error++) {
    int peer;
    aloop_stream_t *stream = open_stream(env, 0, &peer);
    int wanted = error ? ALOOP_EIO : ALOOP_ECLOSED;
    fill_stream(stream);
    aloop_future_t *waiting = aloop_stream_drain(stream);
    aloop_transport_abort_error(aloop_stream_transport(stream), error ? ALOOP_EIO : 0);
    aloop_future_ref(waiting);
    assert_int_equal(finish(env->loop, waiting), wanted);
    assert_string_equal(aloop_future_message(waiting), aloop_strerror(wanted));
    aloop_future_unref(waiting);
    assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), wanted);
    assert_int_equal(aloop_stream_write(stream, "x", 1), wanted);
    assert_int_equal(aloop_stream_writev(stream, NULL, 0), wanted);
    end_stream(stream, peer);
  }
}

static void a_failing_write_is_answered_by_the_next_call(void **state) {
  env_t *env = *state;
  int peer;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  close(peer);
  assert_int_equal(aloop_stream_write(stream, "x", 1), 0);
  assert_int_equal(aloop_stream_write(stream, "x", 1), ALOOP_EPIPE);
  assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), ALOOP_EPIPE);
  end_stream(stream, -1);
}

static void a_reset_by_the_peer_is_answered_by_every_later_call(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  make_tcp_pair(fds);
  aloop_stream_t *stream = stream_over(env->loop, fds[0], 0);
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
  aloop_future_t *closed = aloop_stream_wait_closed(stream);
  close(fds[1]);
  assert_int_equal(finish(env->loop, aloop_stream_read(stream, &byte, 1)), ALOOP_ECONNRESET);
  assert_int_equal(finish(env->loop, closed), ALOOP_ECONNRESET);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(finish(env->loop, aloop_stream_read(stream, &byte, 1)), ALOOP_ECONNRESET);
    assert_int_equal(aloop_stream_write(stream, "x", 1), ALOOP_ECONNRESET);
    assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), ALOOP_ECONNRESET);
    assert_int_equal(finish(env->loop, aloop_stream_wait_closed(stream)), ALOOP_ECONNRESET);
  }
  end_stream(stream, -1);
}

/* ---- Tasks ----------------------------------------------------------------------------------------------- */

typedef struct two {
  aloop_stream_t *streams[2];
  int way;
} two_t;

static size_t gathered(const aloop_stream_t *stream) {
  return aloop_transport_get_write_buffer_size(aloop_stream_transport(stream));
}

static int64_t write_in_a_task(aloop_t *loop, void *arg) {
  two_t *two = arg;
  aloop_stream_t *first = two->streams[0], *second = two->streams[1];
  static char much[50000];
  memset(much, 'x', sizeof much);
  aloop_await(aloop_sleep(loop, 0));
  assert_int_equal(aloop_stream_write(first, "one ", 4), 0);
  assert_int_equal(aloop_stream_write(first, "two ", 4), 0);
  assert_int_equal(gathered(first), 8);
  assert_int_equal(aloop_await(aloop_stream_drain(first)), 0);
  if (two->way == 0) {
    assert_int_equal(aloop_stream_write(first, much, sizeof much), 0);
    assert_int_equal(aloop_stream_write(first, "three", 5), 0);
  } else if (two->way == 1) {
    assert_int_equal(aloop_stream_write(second, "other", 5), 0);
    assert_int_equal(gathered(first), 0);
    assert_int_equal(aloop_stream_write(first, "three", 5), 0);
    assert_int_equal(gathered(second), 0);
  } else if (two->way == 2) {
    aloop_stream_close(first);
    assert_int_equal(gathered(first), 0);
  } else if (two->way == 3) {
    aloop_stream_abort(first);
  } else if (two->way == 4) {
    assert_int_equal(aloop_stream_write_eof(first), 0);
  }
  aloop_await(aloop_sleep(loop, 0));
  assert_int_equal(gathered(first), 0);
  return 0;
}

static void what_a_task_writes_leaves_together(void **state) {
  static const char *const wanted[] = {"one two ", "one two three", "one two ", "", "one two ", "one two "};
  env_t *env = *state;
  for (int way = 0; way < 6; way++) {
    two_t two = {.way = way};
    int peers[2];
    static char got[60000];
    memset(got, 0, sizeof got);
    for (int i = 0; i < 2; i++) two.streams[i] = open_stream(env, 0, &peers[i]);
    aloop_future_t *task = aloop_create_task(env->loop, write_in_a_task, &two, NULL);
    assert_int_equal(finish(env->loop, task), 0);
    settle(env->loop);
    size_t size = drain(peers[0], got, sizeof got - 1);
    if (way == 0) {
      assert_int_equal(size, 50013);
      assert_string_equal(got + 50008, "three");
      got[8] = '\0';
    }
    assert_string_equal(got, wanted[way]);
    memset(got, 0, sizeof got);
    drain(peers[1], got, sizeof got - 1);
    assert_string_equal(got, way == 1 ? "other" : "");
    for (int i = 0; i < 2; i++) end_stream(two.streams[i], peers[i]);
  }
}

static int64_t write_at_once(aloop_t *loop, void *arg) {
  (void)loop;
  return aloop_stream_write(arg, "eager", 5);
}

static void begin_eagerly(tape_t *tape) {
  aloop_task_options_t options = {.size = sizeof options, .eager = true};
  put(tape, "first ");
  aloop_future_detach(aloop_create_task(tape->env->loop, write_at_once, tape->arg, &options));
  put(tape, "second");
}

/* A task that begins inside a callback of another connection must not get in between its writes. */
static void an_eager_task_leaves_the_cork_of_others_alone(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = begin_eagerly};
  int other, peer = open_tape(&tape, &plain_protocol);
  char got[16] = "";
  tape.arg = open_stream(env, 0, &other);
  say(peer, "x");
  settle(env->loop);
  expect(&tape, peer, "first second");
  assert_int_equal(drain(other, got, sizeof got), 5);
  assert_string_equal(got, "eager");
  end_stream(tape.arg, other);
  end_tape(&tape, peer);
}

/* ---- Closing --------------------------------------------------------------------------------------------- */

static void wait_closed_waits_for_the_last_byte(void **state) {
  env_t *env = *state;
  int peer;
  static char got[100000];
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  size_t size = fill_stream(stream), read = 0;
  aloop_stream_close(stream);
  aloop_stream_close(stream);
  assert_int_equal(aloop_stream_write(stream, "x", 1), ALOOP_ECLOSED);
  aloop_future_t *first = aloop_stream_wait_closed(stream), *second = aloop_stream_wait_closed(stream);
  settle(env->loop);
  assert_false(aloop_future_done(first));
  assert_int_equal(aloop_future_cancel(second), 1);
  while (!aloop_future_done(first)) {
    read += drain(peer, got, sizeof got);
    aloop_run_once(env->loop, 0);
  }
  read += drain(peer, got, sizeof got);
  assert_int_equal(read, size);
  assert_int_equal(finish(env->loop, first), 0);
  aloop_future_unref(second);
  end_stream(stream, peer);
}

static void after_close_a_drain_hears_of_the_end(void **state) {
  env_t *env = *state;
  int peer;
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_stream_close(stream);
  assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), ALOOP_ECLOSED);
  settle(env->loop);
  assert_int_equal(finish(env->loop, aloop_stream_drain(stream)), ALOOP_ECLOSED);
  assert_true(aloop_stream_is_closing(stream));
  aloop_stream_abort(stream);
  expect_end(stream);
  end_stream(stream, peer);
}

/* Everything that may be going on when it is closed, by every way of closing. */
static void closing_in_any_state_leaves_nothing(void **state) {
  env_t *env = *state;
  for (int reading = 0; reading < 4; reading++) {
    for (int writing = 0; writing < 3; writing++) {
      for (int end = 0; end < 5; end++) {
        int peer;
        const char *line;
        aloop_future_t *futures[3] = {NULL};
        aloop_stream_t *stream = open_stream(env, 10, &peer);
        if (reading == 1) say(peer, "some\nand more");
        if (reading == 2) say(peer, "much, so much that reading pauses");
        if (reading == 3) shutdown(peer, SHUT_WR);
        settle(env->loop);
        if (reading != 2) futures[0] = aloop_stream_readline(stream, &line);
        if (writing > 0) fill_stream(stream);
        if (writing > 1) futures[1] = aloop_stream_drain(stream);
        futures[2] = aloop_stream_wait_closed(stream);
        if (end == 0) aloop_stream_close(stream);
        if (end == 1) aloop_stream_abort(stream);
        if (end == 2) close(peer);
        if (end == 3) aloop_transport_abort_error(aloop_stream_transport(stream), ALOOP_EIO);
        settle(env->loop);
        for (int i = 0; i < 3; i++) aloop_future_unref(futures[i]);
        end_stream(stream, end == 2 ? -1 : peer);
        env->reports = 0; /* errors of futures that nobody read */
      }
    }
  }
}

static void the_dump_tells_of_streams(void **state) {
  env_t *env = *state;
  int peer;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.streams, 1);
  end_stream(stream, peer);
}

static void short_of_memory(env_t *env) {
  tape_t tape = {.env = env};
  aloop_stream_t *stream = NULL;
  int fds[2];
  char byte;
  make_socketpair(fds);
  aloop_transport_t *transport = NULL;
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], NULL);
  for (int i = 0; future != NULL && !aloop_future_done(future) && i < 100; i++) aloop_run_once(env->loop, 0);
  bool made = future != NULL && aloop_future_take_ptr(future, &transport) == 0;
  aloop_future_unref(future);
  if (made && aloop_stream_new(transport, NULL, &stream) == 0) {
    say(fds[1], "x");
    future = aloop_stream_read(stream, &byte, 1);
    for (int i = 0; future != NULL && !aloop_future_done(future) && i < 100; i++) aloop_run_once(env->loop, 0);
    if (future != NULL) {
      int64_t value = aloop_future_result(future);
      assert_true(value == 1 || value == ALOOP_ENOMEM);
    }
    aloop_future_unref(future);
    aloop_future_unref(aloop_stream_drain(stream));
    aloop_future_unref(aloop_stream_wait_closed(stream));
    aloop_stream_unref(stream);
  }
  aloop_transport_unref(transport);
  env->fail_from = 0;
  aloop_free(env->loop);
  env->loop = NULL;
  if (!made) close(fds[0]);
  close(fds[1]);
  free(tape.bytes);
  aloop_transport_unref(tape.transport);
}

static void out_of_memory_anywhere(void **state) {
  torture(*state, short_of_memory);
}

TESTS(T(a_stream_talks_in_both_directions), T(the_last_reference_closes_after_what_was_written),
      T(unref_of_nothing_is_fine), T(the_loop_ends_streams_that_are_left), T(a_stream_may_outlive_its_loop),
      T(bytes_of_before_belong_to_the_protocol_of_before), T(a_stream_may_begin_inside_a_callback),
      T(a_paused_transport_is_read), T(an_end_of_before_is_known),
      T(a_full_write_buffer_of_before_is_waited_for),
      T(over_a_closing_or_lost_transport_a_stream_is_at_its_end), T(write_eof_ends_one_direction),
      T(drains_wait_over_the_high_mark_until_the_low_one), T(drains_fail_when_the_connection_is_lost),
      T(a_failing_write_is_answered_by_the_next_call), T(a_reset_by_the_peer_is_answered_by_every_later_call),
      T(what_a_task_writes_leaves_together), T(an_eager_task_leaves_the_cork_of_others_alone),
      T(wait_closed_waits_for_the_last_byte), T(after_close_a_drain_hears_of_the_end),
      T(closing_in_any_state_leaves_nothing), T(the_dump_tells_of_streams), T(out_of_memory_anywhere))
