/* SPDX-License-Identifier: MIT
 *
 * Idle, read and write timeouts of a connection, to the nanosecond: everything runs on the virtual poller,
 * whose clock jumps from deadline to deadline.
 */
#include "streams.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND ALOOP_SECONDS(1)

typedef struct watched {
  tape_t tape;
  int peer;
  int64_t begun;
  int64_t ended;
} watched_t;

static void note_end(tape_t *tape) {
  watched_t *watched = tape->arg;
  watched->ended = aloop_time(tape->env->loop);
}

static void open_watched(watched_t *watched, env_t *env) {
  if (!on_poller(env, "virtual")) env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  *watched = (watched_t){.tape = {.env = env, .on[LOST] = note_end, .arg = watched}};
  watched->peer = open_tape(&watched->tape, &plain_protocol);
  watched->begun = aloop_time(env->loop);
}

static void end_watched(watched_t *watched) {
  end_tape(&watched->tape, watched->peer);
}

static void set(const watched_t *watched, int64_t idle, int64_t reading, int64_t writing) {
  assert_int_equal(aloop_transport_set_timeouts(watched->tape.transport, idle, reading, writing), 0);
}

/* Expects the connection to time out so long after it was opened. */
static void expect_end(watched_t *watched, int64_t after) {
  run_until(watched->tape.env->loop, &watched->tape.lost);
  assert_int_equal(watched->tape.error, ALOOP_ETIMEDOUT);
  assert_int_equal(watched->ended - watched->begun, after);
}

static void raise_flag(aloop_t *loop, void *arg) {
  (void)loop;
  *(bool *)arg = true;
}

/* Lets time pass until that long after the opening. */
static void pass_until(const watched_t *watched, int64_t moment) {
  bool there = false;
  aloop_t *loop = watched->tape.env->loop;
  aloop_call_at(loop, watched->begun + moment, raise_flag, &there);
  run_until(loop, &there);
}

static void hear(const watched_t *watched) {
  assert_int_equal(write(watched->peer, "x", 1), 1);
}

static void write_byte(const watched_t *watched) {
  assert_int_equal(aloop_transport_write(watched->tape.transport, "x", 1), 0);
}

static void fill_socket(const watched_t *watched) {
  fill(aloop_transport_fd(watched->tape.transport));
}

static void read_everything(const watched_t *watched) {
  static char bytes[65536];
  while (drain(watched->peer, bytes, sizeof bytes) == sizeof bytes) continue;
}

/* ---- Each of them --------------------------------------------------------------------------------------- */

static void an_idle_connection_is_ended(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, 5 * SECOND, 0, 0);
  expect_end(&watched, 5 * SECOND);
  end_watched(&watched);
  assert_string_equal(watched.tape.events, "ML");
}

static void bytes_either_way_keep_it_alive(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, 5 * SECOND, 0, 0);
  pass_until(&watched, 4 * SECOND);
  hear(&watched);
  pass_until(&watched, 8 * SECOND);
  write_byte(&watched);
  pass_until(&watched, 12 * SECOND);
  hear(&watched);
  expect_end(&watched, 17 * SECOND);
  end_watched(&watched);
}

static void a_connection_that_receives_nothing_is_ended(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, 0, 5 * SECOND, 0);
  pass_until(&watched, 3 * SECOND);
  hear(&watched);
  pass_until(&watched, 7 * SECOND);
  write_byte(&watched);
  expect_end(&watched, 8 * SECOND);
  end_watched(&watched);
}

static void unsent_bytes_without_progress_end_it(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, 0, 0, 5 * SECOND);
  pass_until(&watched, 100 * SECOND);
  fill_socket(&watched);
  pass_until(&watched, 101 * SECOND);
  write_byte(&watched);
  pass_until(&watched, 103 * SECOND);
  write_byte(&watched);
  hear(&watched);
  expect_end(&watched, 106 * SECOND);
  end_watched(&watched);
}

static void progress_of_unsent_bytes_keeps_it_alive(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  char *much = calloc(1, 2000000);
  set(&watched, 0, 0, 5 * SECOND);
  assert_int_equal(aloop_transport_write(watched.tape.transport, much, 2000000), 0);
  size_t size = aloop_transport_get_write_buffer_size(watched.tape.transport);
  int64_t last = 0;
  for (int64_t at = 4 * SECOND; size > 0; at += 4 * SECOND) {
    assert_false(watched.tape.lost);
    pass_until(&watched, at);
    drain(watched.peer, much, 500000);
    aloop_run_once(watched.tape.env->loop, 0);
    size_t now = aloop_transport_get_write_buffer_size(watched.tape.transport);
    assert_true(now < size);
    size = now;
    last = at;
  }
  assert_true(last > 5 * SECOND);
  pass_until(&watched, last + 100 * SECOND);
  assert_false(watched.tape.lost);
  free(much);
  end_watched(&watched);
}

/* Whichever call left the bytes unsent: the count begins then, not with what happened long ago. */
static void the_write_timeout_counts_from_the_write(void **state) {
  for (int kind = 0; kind < 4; kind++) {
    watched_t watched;
    struct iovec parts[100];
    open_watched(&watched, *state);
    aloop_transport_t *transport = watched.tape.transport;
    set(&watched, 0, 0, 5 * SECOND);
    fill_socket(&watched);
    pass_until(&watched, 1002 * SECOND);
    for (int i = 0; i < 100; i++) parts[i] = (struct iovec){"x", 1};
    if (kind == 0) assert_int_equal(aloop_transport_write(transport, "x", 1), 0);
    if (kind == 1) assert_int_equal(aloop_transport_writev(transport, parts, 2), 0);
    if (kind == 2) assert_int_equal(aloop_transport_writev(transport, parts, 100), 0);
    if (kind == 3) assert_int_equal(aloop_transport_write_owned(transport, "x", 1, NULL, NULL), 0);
    expect_end(&watched, 1007 * SECOND);
    end_watched(&watched);
  }
}

static void answer(tape_t *tape) {
  assert_int_equal(aloop_transport_write(tape->transport, "answer", 6), 0);
}

static void a_gathered_answer_counts_as_movement(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  watched.tape.on[DATA] = answer;
  set(&watched, 5 * SECOND, 0, 3 * SECOND);
  pass_until(&watched, 4 * SECOND);
  hear(&watched);
  pass_until(&watched, 8 * SECOND);
  assert_false(watched.tape.lost);
  fill_socket(&watched);
  hear(&watched);
  expect_end(&watched, 11 * SECOND);
  end_watched(&watched);
}

/* ---- What does not count -------------------------------------------------------------------------------- */

static void the_read_timeout_rests_while_reading_is_paused(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, 0, 5 * SECOND, 0);
  aloop_transport_pause_reading(watched.tape.transport);
  pass_until(&watched, 101 * SECOND);
  assert_false(watched.tape.lost);
  aloop_transport_resume_reading(watched.tape.transport);
  expect_end(&watched, 106 * SECOND);
  end_watched(&watched);
}

static void the_read_timeout_ends_with_eof(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  watched.tape.answer[AT_EOF] = 1;
  set(&watched, 0, 5 * SECOND, 0);
  shutdown(watched.peer, SHUT_WR);
  pass_until(&watched, 100 * SECOND);
  assert_false(watched.tape.lost);
  end_watched(&watched);
}

static void the_write_timeout_rests_without_unsent_bytes(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, 0, 0, 5 * SECOND);
  write_byte(&watched);
  pass_until(&watched, 100 * SECOND);
  assert_false(watched.tape.lost);
  fill_socket(&watched);
  write_byte(&watched);
  pass_until(&watched, 104 * SECOND);
  read_everything(&watched);
  pass_until(&watched, 200 * SECOND);
  assert_false(watched.tape.lost);
  end_watched(&watched);
}

/* ---- Setting -------------------------------------------------------------------------------------------- */

static void setting_them_again_restarts_the_count(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, 5 * SECOND, 0, 0);
  pass_until(&watched, 4 * SECOND);
  set(&watched, 5 * SECOND, 0, 0);
  pass_until(&watched, 8 * SECOND);
  set(&watched, 1 * SECOND, 0, 0);
  expect_end(&watched, 9 * SECOND);
  end_watched(&watched);
}

static void zero_switches_them_off(void **state) {
  env_t *env = *state;
  watched_t watched;
  open_watched(&watched, env);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  set(&watched, 0, 0, 0);
  set(&watched, 5 * SECOND, 4 * SECOND, 3 * SECOND);
  set(&watched, 0, 0, 0);
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.timers, 0);
  pass_until(&watched, 100 * SECOND);
  assert_false(watched.tape.lost);
  end_watched(&watched);
}

static void the_first_to_run_out_counts(void **state) {
  for (int first = 0; first < 3; first++) {
    watched_t watched;
    open_watched(&watched, *state);
    fill_socket(&watched);
    write_byte(&watched);
    set(&watched, (first == 0 ? 2 : 4) * SECOND, (first == 1 ? 2 : 4) * SECOND, (first == 2 ? 2 : 4) * SECOND);
    expect_end(&watched, 2 * SECOND);
    end_watched(&watched);
  }
}

static void huge_timeouts_never_run_out(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  set(&watched, INT64_MAX, INT64_MAX - 1, INT64_MAX);
  hear(&watched);
  pass_until(&watched, 1000000 * SECOND);
  assert_false(watched.tape.lost);
  end_watched(&watched);
}

static void senseless_timeouts_are_refused(void **state) {
  watched_t watched;
  open_watched(&watched, *state);
  aloop_transport_t *transport = watched.tape.transport;
  set(&watched, 5 * SECOND, 0, 0);
  assert_int_equal(aloop_transport_set_timeouts(transport, -1, 0, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_timeouts(transport, 0, -1, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_timeouts(transport, 0, 0, -1), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_timeouts(NULL, 0, 0, 0), ALOOP_EINVAL);
  expect_end(&watched, 5 * SECOND);
  assert_int_equal(aloop_transport_set_timeouts(transport, 1, 1, 1), ALOOP_ECLOSED);
  end_watched(&watched);
}

static void set_in_callback(tape_t *tape) {
  assert_int_equal(aloop_transport_set_timeouts(tape->transport, 5 * SECOND, 0, 0), 0);
}

static void they_can_be_set_inside_callbacks(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  watched_t watched = {
      .tape = {.env = env, .on[LOST] = note_end, .on[MADE] = set_in_callback, .arg = &watched}};
  watched.tape.on[DATA] = set_in_callback;
  watched.begun = aloop_time(env->loop);
  watched.peer = open_tape(&watched.tape, &plain_protocol);
  pass_until(&watched, 4 * SECOND);
  hear(&watched);
  expect_end(&watched, 9 * SECOND);
  end_watched(&watched);
}

static void out_of_memory_changes_nothing(void **state) {
  env_t *env = *state;
  watched_t watched;
  open_watched(&watched, env);
  /* The extras, then the timers' arrays. */
  int failures = 0;
  for (env->fail_at = env->calls + 1;; env->fail_at = env->calls + 1 + failures) {
    int rc = aloop_transport_set_timeouts(watched.tape.transport, SECOND, 0, 0);
    if (rc == 0) break;
    assert_int_equal(rc, ALOOP_ENOMEM);
    failures++;
    assert_true(failures < 10);
  }
  env->fail_at = 0;
  assert_true(failures > 0);
  expect_end(&watched, SECOND);
  end_watched(&watched);
}

/* ---- Ends ----------------------------------------------------------------------------------------------- */

static void closing_with_unsent_bytes_can_time_out(void **state) {
  for (int which = 0; which < 2; which++) {
    watched_t watched;
    open_watched(&watched, *state);
    fill_socket(&watched);
    write_byte(&watched);
    set(&watched, which == 0 ? 5 * SECOND : 0, SECOND, which == 1 ? 5 * SECOND : 0);
    aloop_transport_close(watched.tape.transport);
    expect_end(&watched, 5 * SECOND);
    end_watched(&watched);
  }
}

static void an_ended_connection_leaves_no_timer(void **state) {
  env_t *env = *state;
  watched_t watched;
  open_watched(&watched, env);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  set(&watched, SECOND, SECOND, SECOND);
  aloop_transport_abort(watched.tape.transport);
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.timers, 0);
  end_watched(&watched);
  assert_int_equal(watched.tape.error, 0);
}

static void abort_transport(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_transport_abort(arg);
}

static void an_end_in_the_turn_of_the_timeout_comes_first(void **state) {
  env_t *env = *state;
  watched_t watched;
  open_watched(&watched, env);
  aloop_call_at(env->loop, watched.begun + SECOND, abort_transport, watched.tape.transport);
  set(&watched, SECOND, 0, 0);
  run_until(env->loop, &watched.tape.lost);
  assert_int_equal(watched.tape.error, 0);
  assert_int_equal(watched.ended - watched.begun, SECOND);
  end_watched(&watched);
}

static void say_at(aloop_t *loop, void *arg) {
  (void)loop;
  hear(arg);
}

static void bytes_of_the_last_moment_count(void **state) {
  env_t *env = *state;
  watched_t watched;
  open_watched(&watched, env);
  set(&watched, SECOND, 0, 0);
  aloop_call_at(env->loop, watched.begun + SECOND - 1, say_at, &watched);
  expect_end(&watched, 2 * SECOND - 1);
  end_watched(&watched);
}

static void a_busy_connection_does_not_pay(void **state) {
  env_t *env = *state;
  watched_t watched;
  open_watched(&watched, env);
  set(&watched, SECOND, SECOND, SECOND);
  aloop_metrics_t before = {.size = sizeof before};
  aloop_metrics_t after = {.size = sizeof after};
  aloop_metrics(env->loop, &before);
  for (int i = 0; i < 1000; i++) {
    hear(&watched);
    aloop_run_once(env->loop, 0);
  }
  aloop_metrics(env->loop, &after);
  assert_int_equal(after.callbacks - before.callbacks, 1000);
  assert_int_equal(after.timers, 1);
  end_watched(&watched);
}

TESTS(T(an_idle_connection_is_ended), T(bytes_either_way_keep_it_alive),
      T(a_connection_that_receives_nothing_is_ended), T(unsent_bytes_without_progress_end_it),
      T(progress_of_unsent_bytes_keeps_it_alive), T(the_write_timeout_counts_from_the_write),
      T(a_gathered_answer_counts_as_movement), T(the_read_timeout_rests_while_reading_is_paused),
      T(the_read_timeout_ends_with_eof), T(the_write_timeout_rests_without_unsent_bytes),
      T(setting_them_again_restarts_the_count), T(zero_switches_them_off), T(the_first_to_run_out_counts),
      T(huge_timeouts_never_run_out), T(senseless_timeouts_are_refused), T(they_can_be_set_inside_callbacks),
      T(out_of_memory_changes_nothing), T(closing_with_unsent_bytes_can_time_out),
      T(an_ended_connection_leaves_no_timer), T(an_end_in_the_turn_of_the_timeout_comes_first),
      T(bytes_of_the_last_moment_count), T(a_busy_connection_does_not_pay))
