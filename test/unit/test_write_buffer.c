/* SPDX-License-Identifier: MIT
 *
 * The write buffer of a transport as its user meets it: water marks, the hard cap, and who releases owned
 * memory when. pollers: all
 */
#include "wire.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Water marks ---------------------------------------------------------------------------------------- */

static void writing_pauses_above_high_and_resumes_at_low(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 10, 4), 0);
  for (int round = 0; round < 2; round++) {
    tape.events_count = 1;
    limit(0);
    put(&tape, "0123456789");
    assert_int_equal(tape.events_count, 1);
    put(&tape, "a");
    assert_int_equal(tape.events[1], 'P');
    put(&tape, "b");
    assert_int_equal(tape.events_count, 2);
    let_go(&tape, 7);
    assert_int_equal(unsent(&tape), 5);
    assert_int_equal(tape.events_count, 2);
    put(&tape, "0123456789");
    assert_int_equal(tape.events_count, 2);
    let_go(&tape, 11);
    assert_int_equal(unsent(&tape), 4);
    assert_int_equal(tape.events_count, 3);
    assert_int_equal(tape.events[2], 'R');
    let_go(&tape, 4);
    assert_int_equal(tape.events_count, 3);
  }
  lift_limit();
  end_tape(&tape, peer);
}

static void new_limits_may_pause_but_never_resume(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  limit(0);
  put(&tape, "0123456789");
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 10, 0), 0);
  assert_string_equal(tape.events, "M");
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 9, 0), 0);
  assert_string_equal(tape.events, "MP");
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 1000, 500), 0);
  let_go(&tape, 0);
  assert_string_equal(tape.events, "MP");
  let_go(&tape, 1);
  assert_string_equal(tape.events, "MPR");
  lift_limit();
  end_tape(&tape, peer);
}

static void a_high_mark_of_zero_pauses_whenever_something_waits(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 0, -1), 0);
  put(&tape, "sent at once");
  assert_string_equal(tape.events, "M");
  limit(1);
  put(&tape, "ab");
  assert_string_equal(tape.events, "MP");
  let_go(&tape, 1);
  assert_string_equal(tape.events, "MPR");
  lift_limit();
  end_tape(&tape, peer);
}

static void check_limits(aloop_transport_t *transport, int64_t high, int64_t low, size_t expected_high,
                         size_t expected_low) {
  size_t got_high = 1;
  size_t got_low = 1;
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, high, low), 0);
  assert_int_equal(aloop_transport_get_write_buffer_limits(transport, &got_high, &got_low), 0);
  assert_int_equal(got_high, expected_high);
  assert_int_equal(got_low, expected_low);
}

static void limits_have_defaults(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  size_t high;
  size_t low;
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_get_write_buffer_limits(tape.transport, &high, &low), 0);
  assert_int_equal(high, 65536);
  assert_int_equal(low, 16384);
  check_limits(tape.transport, 1000, -1, 1000, 250);
  check_limits(tape.transport, -1, 1000, 4000, 1000);
  check_limits(tape.transport, -1, -1, 65536, 16384);
  check_limits(tape.transport, 7, 7, 7, 7);
  check_limits(tape.transport, 0, -1, 0, 0);
  check_limits(tape.transport, -1, 0, 0, 0);
  check_limits(tape.transport, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);
  end_tape(&tape, peer);
}

static void impossible_limits_change_nothing(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  size_t high;
  size_t low;
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_t *transport = tape.transport;
  check_limits(transport, 100, 50, 100, 50);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, 10, 11), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, INT64_MAX, 0), ALOOP_ERANGE);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, (int64_t)UINT32_MAX + 1, 0),
                   ALOOP_ERANGE);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, -1, INT64_MAX), ALOOP_ERANGE);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, -1, (int64_t)1 << 30), ALOOP_ERANGE);
  assert_int_equal(aloop_transport_get_write_buffer_limits(transport, &high, &low), 0);
  assert_int_equal(high, 100);
  assert_int_equal(low, 50);
  end_tape(&tape, peer);
}

static void put_more(tape_t *tape) {
  tape->on[RESUME] = NULL;
  put(tape, "more");
}

static void resume_writing_may_write_again(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[RESUME] = put_more};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(0);
  put(&tape, "first ");
  lift_limit();
  expect(&tape, peer, "first more");
  end_tape(&tape, peer);
}

static void close_transport(tape_t *tape) {
  aloop_transport_close(tape->transport);
}

static void closing_inside_resume_writing_ends_once(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[RESUME] = close_transport};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(0);
  put(&tape, "all of it");
  lift_limit();
  expect(&tape, peer, "all of it");
  settle(env->loop);
  assert_string_equal(tape.events, "MPRL");
  assert_int_equal(tape.error, 0);
  end_tape(&tape, peer);
}

static void closing_inside_pause_writing_sends_the_rest(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[PAUSE] = close_transport};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(1);
  put(&tape, "all of it");
  assert_int_equal(unsent(&tape), 8);
  lift_limit();
  expect(&tape, peer, "all of it");
  settle(env->loop);
  assert_true(tape.lost);
  assert_int_equal(tape.error, 0);
  end_tape(&tape, peer);
}

static void abort_transport(tape_t *tape) {
  aloop_transport_abort(tape->transport);
}

static void aborting_inside_pause_writing_drops_the_rest(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[PAUSE] = abort_transport};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(1);
  assert_int_equal(put_owned(&tape, "all of it", &released), 0);
  assert_int_equal(released, 1);
  assert_int_equal(unsent(&tape), 0);
  lift_limit();
  settle(env->loop);
  assert_string_equal(tape.events, "MPL");
  end_tape(&tape, peer);
}

static void abort_by_release(void *arg) {
  tape_t *tape = arg;
  aloop_transport_abort(tape->transport);
}

static void an_aborted_connection_does_not_resume_writing(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(0);
  assert_int_equal(aloop_transport_write_owned(tape.transport, "owned", 5, abort_by_release, &tape), 0);
  put(&tape, "never sent");
  lift_limit();
  settle(env->loop);
  assert_string_equal(tape.events, "MPL");
  end_tape(&tape, peer);
}

/* ---- The hard cap --------------------------------------------------------------------------------------- */

static void over_the_cap_nothing_is_taken(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  struct iovec parts[] = {{"89", 2}, {"ab", 2}};
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 10), 0);
  limit(0);
  put(&tape, "01234567");
  assert_int_equal(aloop_transport_write(tape.transport, "890", 3), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_writev(tape.transport, parts, 2), ALOOP_ENOBUFS);
  assert_int_equal(put_owned(&tape, "890", &released), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_write(tape.transport, "0", PTRDIFF_MAX), ALOOP_ENOBUFS);
  assert_int_equal(released, 0);
  assert_int_equal(unsent(&tape), 8);
  put(&tape, "89");
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 0), 0);
  put(&tape, "a");
  lift_limit();
  expect(&tape, peer, "0123456789a");
  end_tape(&tape, peer);
}

static void answer_over_the_cap(tape_t *tape) {
  put(tape, "12345");
  assert_int_equal(aloop_transport_write(tape->transport, "67890a", 6), ALOOP_ENOBUFS);
  put(tape, "67890");
  assert_int_equal(aloop_transport_write(tape->transport, "x", 1), ALOOP_ENOBUFS);
}

static void the_cap_counts_what_is_gathered(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = answer_over_the_cap};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 10), 0);
  say(peer, "x");
  expect(&tape, peer, "1234567890");
  end_tape(&tape, peer);
}

/* ---- Owned memory --------------------------------------------------------------------------------------- */

static void owned_memory_is_released_once_sent(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  assert_int_equal(put_owned(&tape, "at once ", &released), 0);
  assert_int_equal(released, 1);
  assert_int_equal(put_owned(&tape, "", &released), 0);
  assert_int_equal(released, 2);
  assert_int_equal(aloop_transport_write_owned(tape.transport, "static ", 7, NULL, NULL), 0);
  limit(0);
  assert_int_equal(put_owned(&tape, "later", &released), 0);
  assert_int_equal(put_owned(&tape, "", &released), 0);
  assert_int_equal(released, 3);
  let_go(&tape, 4);
  assert_int_equal(released, 3);
  let_go(&tape, 1);
  assert_int_equal(released, 4);
  lift_limit();
  expect(&tape, peer, "at once static later");
  end_tape(&tape, peer);
  assert_int_equal(released, 4);
}

static void owned_memory_is_released_when_dropped(void **state) {
  env_t *env = *state;
  for (int end = 0; end < 3; end++) {
    tape_t tape = {.env = env};
    int peer = open_tape(&tape, &plain_protocol);
    int released = 0;
    limit(1);
    assert_int_equal(put_owned(&tape, "half sent", &released), 0);
    assert_int_equal(put_owned(&tape, "unsent", &released), 0);
    assert_int_equal(released, 0);
    if (end == 0) aloop_transport_abort(tape.transport);
    if (end == 1) wire.error = EPIPE;
    if (end == 1) run_until(env->loop, &tape.lost);
    if (end == 2) aloop_close(env->loop);
    assert_int_equal(released, 2);
    wire.error = 0;
    lift_limit();
    if (end < 2) end_tape(&tape, peer);
    if (end == 2) release_tape(&tape, peer);
    assert_int_equal(released, 2);
  }
}

static void owned_memory_is_released_when_the_socket_fails(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  wire.error = ECONNRESET;
  assert_int_equal(put_owned(&tape, "x", &released), 0);
  assert_int_equal(released, 1);
  wire.error = 0;
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ECONNRESET);
  end_tape(&tape, peer);
}

static void refused_memory_stays_the_callers(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  limit(0);
  env->fail_from = env->calls + 1;
  assert_int_equal(put_owned(&tape, "x", &released), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  assert_int_equal(put_owned(&tape, "x", &released), ALOOP_EPIPE);
  aloop_transport_close(tape.transport);
  assert_int_equal(put_owned(&tape, "x", &released), ALOOP_ECLOSED);
  lift_limit();
  end_tape(&tape, peer);
  assert_int_equal(released, 0);
}

static void write_by_release(void *arg) {
  put(arg, " and more");
}

static void a_release_may_write(void **state) {
  env_t *env = *state;
  for (size_t allowed = 0; allowed <= 12; allowed++) {
    tape_t tape = {.env = env};
    int peer = open_tape(&tape, &plain_protocol);
    limit(allowed);
    assert_int_equal(aloop_transport_write_owned(tape.transport, "owned", 5, write_by_release, &tape), 0);
    if (allowed < 5) put(&tape, " next");
    lift_limit();
    expect(&tape, peer, allowed < 5 ? "owned next and more" : "owned and more");
    end_tape(&tape, peer);
  }
}

static void a_release_may_abort(void **state) {
  env_t *env = *state;
  for (size_t allowed = 0; allowed <= 5; allowed++) {
    tape_t tape = {.env = env};
    int peer = open_tape(&tape, &plain_protocol);
    int released = 0;
    limit(allowed);
    assert_int_equal(aloop_transport_write_owned(tape.transport, "owned", 5, abort_by_release, &tape), 0);
    int rc = put_owned(&tape, "other", &released);
    assert_int_equal(rc, allowed < 5 ? 0 : ALOOP_ECLOSED);
    lift_limit();
    run_until(env->loop, &tape.lost);
    assert_int_equal(released, allowed < 5);
    assert_int_equal(tape.error, 0);
    end_tape(&tape, peer);
  }
}

TESTS(T(writing_pauses_above_high_and_resumes_at_low), T(new_limits_may_pause_but_never_resume),
      T(a_high_mark_of_zero_pauses_whenever_something_waits), T(limits_have_defaults),
      T(impossible_limits_change_nothing), T(resume_writing_may_write_again),
      T(closing_inside_resume_writing_ends_once), T(closing_inside_pause_writing_sends_the_rest),
      T(aborting_inside_pause_writing_drops_the_rest), T(an_aborted_connection_does_not_resume_writing),
      T(over_the_cap_nothing_is_taken), T(the_cap_counts_what_is_gathered),
      T(owned_memory_is_released_once_sent), T(owned_memory_is_released_when_dropped),
      T(owned_memory_is_released_when_the_socket_fails), T(refused_memory_stays_the_callers),
      T(a_release_may_write), T(a_release_may_abort))
