/* SPDX-License-Identifier: MIT
 *
 * Two connections joined by a relay: what arrives, what ends how, and who is told. Most tests run over sockets
 * of both kinds, since the bytes take different ways.
 * pollers: all
 */
#include "streams.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Small helpers -------------------------------------------------------------------------------------- */

enum { BIG = 3 * 1024 * 1024, KINDS = 2 };

static char sent[BIG], got[BIG];

typedef struct joint {
  aloop_t *loop;
  tape_t a, b;
  int peer_a, peer_b;
  aloop_future_t *future;
} joint_t;

/* A connection must not swallow everything at once. */
static void make_small(int fd) {
  const int small = 65536;
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
}

static void open_both(joint_t *joint, env_t *env, int kind) {
  *joint = (joint_t){.loop = env->loop, .a = {.env = env}, .b = {.env = env}};
  int (*open_one)(tape_t *, const aloop_protocol_t *) = kind == 0 ? open_tape : open_tcp_tape;
  joint->peer_a = open_one(&joint->a, &plain_protocol);
  joint->peer_b = open_one(&joint->b, &buffered_protocol);
  make_small(joint->peer_a);
  make_small(joint->peer_b);
  make_small(aloop_transport_fd(joint->a.transport));
  make_small(aloop_transport_fd(joint->b.transport));
}

static void join(joint_t *joint) {
  joint->future = aloop_relay(joint->a.transport, joint->b.transport);
  assert_non_null(joint->future);
}

static void begin(joint_t *joint, env_t *env, int kind) {
  open_both(joint, env, kind);
  join(joint);
  assert_false(aloop_future_done(joint->future));
}

static void expect_result(joint_t *joint, int64_t result) {
  assert_int_equal(run_future(joint->loop, joint->future), result);
  aloop_future_unref(joint->future);
  joint->future = NULL;
}

static void expect_end(tape_t *tape, int error, const char *events) {
  run_until(tape->env->loop, &tape->lost);
  assert_int_equal(tape->error, error);
  assert_string_equal(tape->events, events);
}

static void finish(joint_t *joint) {
  assert_null(joint->future);
  end_tape(&joint->a, joint->peer_a);
  end_tape(&joint->b, joint->peer_b);
}

static void expect_from(joint_t *joint, int peer, const char *text) {
  expect(peer == joint->peer_a ? &joint->a : &joint->b, peer, text);
}

/* Both peers end; the relay ends well. */
static void end_well(joint_t *joint, int64_t moved) {
  shutdown(joint->peer_a, SHUT_WR);
  shutdown(joint->peer_b, SHUT_WR);
  expect_result(joint, moved);
}

static void await_eof(joint_t *joint, int peer) {
  for (int i = 0; recv(peer, got, 1, 0) != 0; i++) {
    assert_true(i < 100000);
    assert_true(aloop_run_once(joint->loop, 0) >= 0);
  }
}

/* One peer writes everything while the other reads it, or as much as is to be had. */
static size_t pump(joint_t *joint, int from, int to, size_t size, char *into) {
  size_t in = 0, out = 0;
  for (int idle = 0; out < size && idle < 1000;) {
    ssize_t n = in < size ? send(from, sent + in, size - in, MSG_NOSIGNAL) : 0;
    if (n > 0) in += (size_t)n;
    assert_true(aloop_run_once(joint->loop, 0) >= 0);
    size_t came = drain(to, into + out, size - out);
    out += came;
    idle = came > 0 || n > 0 ? 0 : idle + 1;
  }
  return out;
}

/* ---- What arrives --------------------------------------------------------------------------------------- */

static void bytes_go_both_ways(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    say(joint.peer_a, "hello");
    expect_from(&joint, joint.peer_b, "hello");
    say(joint.peer_b, "and back");
    expect_from(&joint, joint.peer_a, "and back");
    end_well(&joint, 13);
    finish(&joint);
  }
}

static void much_arrives_in_order(void **state) {
  pattern(sent, BIG, 3);
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    assert_int_equal(pump(&joint, joint.peer_a, joint.peer_b, BIG, got), BIG);
    assert_memory_equal(sent, got, BIG);
    assert_int_equal(pump(&joint, joint.peer_b, joint.peer_a, BIG, got), BIG);
    assert_memory_equal(sent, got, BIG);
    end_well(&joint, 2 * BIG);
    finish(&joint);
  }
}

static void what_was_unsent_goes_first(void **state) {
  pattern(sent, BIG, 7);
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    open_both(&joint, *state, kind);
    assert_int_equal(aloop_transport_write(joint.b.transport, sent, BIG), 0);
    join(&joint);
    say(joint.peer_a, "behind");
    assert_int_equal(collect(joint.loop, &joint.b, joint.peer_b, got, BIG), BIG);
    assert_memory_equal(sent, got, BIG);
    expect_from(&joint, joint.peer_b, "behind");
    end_well(&joint, 6);
    finish(&joint);
  }
}

static void join_in_data(tape_t *tape) {
  joint_t *joint = tape->arg;
  assert_int_equal(aloop_transport_write(tape->transport, tape->data, tape->data_size), 0);
  join(joint);
}

static void a_relay_may_begin_inside_data_received(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    open_both(&joint, *state, kind);
    joint.a.arg = &joint;
    joint.a.on[DATA] = join_in_data;
    say(joint.peer_a, "first");
    expect_from(&joint, joint.peer_a, "first");
    say(joint.peer_a, "second");
    expect_from(&joint, joint.peer_b, "second");
    assert_int_equal(joint.a.size, 5);
    end_well(&joint, 6);
    finish(&joint);
  }
}

/* ---- Back-pressure -------------------------------------------------------------------------------------- */

static void a_sink_that_does_not_read_holds_its_source(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    size_t in = 0;
    for (int idle = 0; idle < 10;) {
      ssize_t n = send(joint.peer_a, sent, 65536, MSG_NOSIGNAL);
      idle = n > 0 ? 0 : idle + 1;
      if (n > 0) in += (size_t)n;
      settle(joint.loop);
      assert_true(in < 64 * 1024 * 1024);
    }
    assert_true(unsent(&joint.b) < 1024 * 1024);
    say(joint.peer_b, "the other way is open");
    expect_from(&joint, joint.peer_a, "the other way is open");
    shutdown(joint.peer_a, SHUT_WR);
    for (size_t out = 0; out < in;) {
      assert_true(aloop_run_once(joint.loop, 0) >= 0);
      out += drain(joint.peer_b, got, BIG);
    }
    await_eof(&joint, joint.peer_b);
    end_well(&joint, (int64_t)in + 21);
    finish(&joint);
  }
}

static void a_paused_transport_is_not_read(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    assert_int_equal(aloop_transport_pause_reading(joint.a.transport), 0);
    say(joint.peer_a, "wait");
    settle(joint.loop);
    assert_int_equal(drain(joint.peer_b, got, 10), 0);
    assert_int_equal(aloop_transport_resume_reading(joint.a.transport), 0);
    expect_from(&joint, joint.peer_b, "wait");
    end_well(&joint, 4);
    finish(&joint);
  }
}

static void what_waited_for_the_relay_is_read(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    open_both(&joint, *state, kind);
    assert_int_equal(aloop_transport_pause_reading(joint.a.transport), 0);
    assert_int_equal(aloop_transport_pause_reading(joint.b.transport), 0);
    say(joint.peer_a, "early");
    say(joint.peer_b, "bird");
    settle(joint.loop);
    join(&joint);
    expect_from(&joint, joint.peer_b, "early");
    expect_from(&joint, joint.peer_a, "bird");
    assert_true(aloop_transport_is_reading(joint.a.transport));
    end_well(&joint, 9);
    finish(&joint);
  }
}

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void the_end_of_one_way_is_passed_on(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    say(joint.peer_a, "question");
    shutdown(joint.peer_a, SHUT_WR);
    expect_from(&joint, joint.peer_b, "question");
    await_eof(&joint, joint.peer_b);
    assert_false(aloop_future_done(joint.future));
    say(joint.peer_b, "answer");
    expect_from(&joint, joint.peer_a, "answer");
    shutdown(joint.peer_b, SHUT_WR);
    await_eof(&joint, joint.peer_a);
    expect_result(&joint, 14);
    expect_end(&joint.a, 0, "ML");
    expect_end(&joint.b, 0, "ML");
    finish(&joint);
  }
}

static bool both_lost(const joint_t *joint) {
  return joint->a.lost && joint->b.lost;
}

static void note_lost(aloop_future_t *future, void *arg) {
  (void)future;
  assert_true(both_lost(arg));
}

static void protocols_are_told_before_the_future(void **state) {
  joint_t joint;
  begin(&joint, *state, 0);
  assert_int_equal(aloop_future_add_done_callback(joint.future, note_lost, &joint), 0);
  end_well(&joint, 0);
  settle(joint.loop);
  finish(&joint);
}

static void an_end_that_came_before_is_passed_on(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    open_both(&joint, *state, kind);
    joint.a.answer[AT_EOF] = 1;
    shutdown(joint.peer_a, SHUT_WR);
    while (!joint.a.eof) assert_true(aloop_run_once(joint.loop, 0) >= 0);
    join(&joint);
    await_eof(&joint, joint.peer_b);
    say(joint.peer_b, "answer");
    expect_from(&joint, joint.peer_a, "answer");
    shutdown(joint.peer_b, SHUT_WR);
    expect_result(&joint, 6);
    finish(&joint);
  }
}

static void closing_one_closes_the_other(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    for (int which = 0; which < 2; which++) {
      joint_t joint;
      begin(&joint, *state, kind);
      say(joint.peer_a, "to b");
      expect_from(&joint, joint.peer_b, "to b");
      aloop_transport_close(which == 0 ? joint.a.transport : joint.b.transport);
      assert_true(aloop_transport_is_closing(joint.a.transport));
      assert_true(aloop_transport_is_closing(joint.b.transport));
      assert_string_equal(aloop_future_message(joint.future),
                          which == 0 ? "the first transport was closed" : "the second transport was closed");
      expect_result(&joint, ALOOP_ECLOSED);
      expect_end(&joint.a, 0, "ML");
      expect_end(&joint.b, 0, "ML");
      finish(&joint);
    }
  }
}

static void what_was_read_is_sent_before_the_close(void **state) {
  pattern(sent, BIG, 9);
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    size_t in = 0;
    for (ssize_t n = 1; n > 0 && in<BIG; in += n> 0 ? (size_t)n : 0) {
      n = send(joint.peer_a, sent + in, BIG - in, MSG_NOSIGNAL);
      settle(joint.loop);
    }
    aloop_transport_close(joint.a.transport);
    expect_result(&joint, ALOOP_ECLOSED);
    size_t out = 0;
    while (!joint.b.lost) {
      assert_true(aloop_run_once(joint.loop, 0) >= 0);
      out += drain(joint.peer_b, got + out, BIG - out);
    }
    out += drain(joint.peer_b, got + out, BIG - out);
    assert_true(out > 0 && out <= in);
    assert_memory_equal(sent, got, out);
    finish(&joint);
  }
}

static void an_abort_resets_the_other(void **state) {
  for (int error = 0; error >= ALOOP_ECONNABORTED; error += ALOOP_ECONNABORTED) {
    joint_t joint;
    begin(&joint, *state, 1);
    aloop_transport_abort_error(joint.b.transport, error);
    assert_true(aloop_transport_is_closing(joint.a.transport));
    assert_string_equal(aloop_future_message(joint.future),
                        error == 0 ? "the second transport was aborted" : "the second transport failed");
    expect_result(&joint, error == 0 ? ALOOP_ECLOSED : error);
    expect_end(&joint.a, 0, "ML");
    expect_end(&joint.b, error, "ML");
    assert_int_equal(read(joint.peer_a, got, 1), -1);
    finish(&joint);
  }
}

static void a_failure_resets_the_other(void **state) {
  joint_t joint;
  begin(&joint, *state, 1);
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  assert_int_equal(setsockopt(joint.peer_a, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
  close(joint.peer_a);
  joint.peer_a = -1;
  expect_result(&joint, ALOOP_ECONNRESET);
  expect_end(&joint.a, ALOOP_ECONNRESET, "ML");
  expect_end(&joint.b, 0, "ML");
  assert_int_equal(read(joint.peer_b, got, 1), -1);
  finish(&joint);
}

static void timeouts_count_as_ever(void **state) {
  env_t *env = *state;
  if (!on_poller(env, "virtual")) return;
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, env, kind);
    int64_t start = aloop_time(env->loop);
    assert_int_equal(aloop_transport_set_timeouts(joint.a.transport, ALOOP_SECONDS(5), 0, 0), 0);
    expect_result(&joint, ALOOP_ETIMEDOUT);
    assert_true(aloop_time(env->loop) - start >= ALOOP_SECONDS(5));
    expect_end(&joint.a, ALOOP_ETIMEDOUT, "ML");
    finish(&joint);
  }
}

static void closing_the_loop_ends_everything(void **state) {
  env_t *env = *state;
  joint_t joint;
  begin(&joint, env, 0);
  say(joint.peer_a, "x");
  expect_from(&joint, joint.peer_b, "x");
  aloop_close(env->loop);
  assert_true(aloop_future_done(joint.future));
  assert_true(aloop_future_result(joint.future) < 0);
  aloop_future_unref(joint.future);
  assert_string_equal(joint.a.events, "ML");
  assert_string_equal(joint.b.events, "ML");
  assert_int_equal(joint.a.error, ALOOP_ECLOSED);
  assert_int_equal(joint.b.error, ALOOP_ECLOSED);
  release_tape(&joint.a, joint.peer_a);
  release_tape(&joint.b, joint.peer_b);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------ */

static void cancelling_gives_both_back(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    say(joint.peer_a, "one");
    expect_from(&joint, joint.peer_b, "one");
    assert_int_equal(aloop_future_cancel(joint.future), 1);
    expect_result(&joint, ALOOP_ECANCELED);
    say(joint.peer_a, "two");
    say(joint.peer_b, "three");
    while (joint.a.size < 3 || joint.b.size < 5) assert_true(aloop_run_once(joint.loop, 0) >= 0);
    assert_memory_equal(joint.a.bytes, "two", 3);
    assert_memory_equal(joint.b.bytes, "three", 5);
    put(&joint.a, "four");
    expect_from(&joint, joint.peer_a, "four");
    finish(&joint);
  }
}

static void what_was_read_is_sent_after_cancelling(void **state) {
  pattern(sent, BIG, 5);
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    size_t in = 0;
    for (ssize_t n = 1; n > 0 && in<BIG; in += n> 0 ? (size_t)n : 0) {
      n = send(joint.peer_a, sent + in, BIG - in, MSG_NOSIGNAL);
      settle(joint.loop);
    }
    assert_int_equal(aloop_future_cancel(joint.future), 1);
    expect_result(&joint, ALOOP_ECANCELED);
    for (size_t out = 0; out + joint.a.size < in;) {
      assert_true(aloop_run_once(joint.loop, 0) >= 0);
      out += drain(joint.peer_b, got + out, BIG - out);
      if (out + joint.a.size == in) {
        assert_memory_equal(sent, got, out);
        if (joint.a.size > 0) assert_memory_equal(sent + out, joint.a.bytes, joint.a.size);
      }
    }
    assert_int_equal(joint.b.calls[PAUSE], joint.b.calls[RESUME]);
    finish(&joint);
  }
}

static void an_end_is_told_again_after_cancelling(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    begin(&joint, *state, kind);
    shutdown(joint.peer_a, SHUT_WR);
    await_eof(&joint, joint.peer_b);
    assert_int_equal(aloop_future_cancel(joint.future), 1);
    expect_result(&joint, ALOOP_ECANCELED);
    expect_end(&joint.a, 0, "MEL");
    finish(&joint);
  }
}

static void a_protocol_that_was_told_to_pause_is_told_to_resume(void **state) {
  for (int kind = 0; kind < KINDS; kind++) {
    joint_t joint;
    int64_t written = 0;
    open_both(&joint, *state, kind);
    for (; joint.b.calls[PAUSE] == 0; written += BIG)
      assert_int_equal(aloop_transport_write(joint.b.transport, sent, BIG), 0);
    join(&joint);
    for (; written > 0; written -= BIG)
      assert_int_equal(collect(joint.loop, &joint.b, joint.peer_b, got, BIG), BIG);
    settle(joint.loop);
    assert_string_equal(joint.b.events, "MP");
    assert_int_equal(aloop_future_cancel(joint.future), 1);
    expect_result(&joint, ALOOP_ECANCELED);
    assert_string_equal(joint.b.events, "MPR");
    finish(&joint);
  }
}

static void the_protocol_may_be_changed_meanwhile(void **state) {
  joint_t joint;
  begin(&joint, *state, 0);
  const aloop_protocol_t *table;
  assert_ptr_equal(aloop_transport_get_protocol(joint.a.transport, &table), &joint.a);
  assert_ptr_equal(table, &plain_protocol);
  assert_int_equal(aloop_transport_set_protocol(joint.a.transport, &buffered_protocol, &joint.a), 0);
  assert_ptr_equal(aloop_transport_get_protocol(joint.a.transport, &table), &joint.a);
  assert_ptr_equal(table, &buffered_protocol);
  say(joint.peer_a, "one");
  expect_from(&joint, joint.peer_b, "one");
  assert_int_equal(aloop_future_cancel(joint.future), 1);
  expect_result(&joint, ALOOP_ECANCELED);
  say(joint.peer_a, "two");
  while (joint.a.size < 3) assert_true(aloop_run_once(joint.loop, 0) >= 0);
  assert_int_equal(joint.a.calls[UPDATED], 1);
  finish(&joint);
}

TESTS(T(bytes_go_both_ways), T(much_arrives_in_order), T(what_was_unsent_goes_first),
      T(a_relay_may_begin_inside_data_received), T(a_sink_that_does_not_read_holds_its_source),
      T(a_paused_transport_is_not_read), T(what_waited_for_the_relay_is_read),
      T(the_end_of_one_way_is_passed_on), T(protocols_are_told_before_the_future),
      T(an_end_that_came_before_is_passed_on), T(closing_one_closes_the_other),
      T(what_was_read_is_sent_before_the_close), T(an_abort_resets_the_other), T(a_failure_resets_the_other),
      T(timeouts_count_as_ever), T(closing_the_loop_ends_everything), T(cancelling_gives_both_back),
      T(what_was_read_is_sent_after_cancelling), T(an_end_is_told_again_after_cancelling),
      T(a_protocol_that_was_told_to_pause_is_told_to_resume), T(the_protocol_may_be_changed_meanwhile))
