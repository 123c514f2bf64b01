/* SPDX-License-Identifier: MIT
 *
 * Relays of TLS connections: TLS on one side, and on both; with half ends (TLS 1.3) and without. pollers: all
 */
#include "mocktls.h"
#include "peers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Which side is TLS: a bit each. */
enum { ON_A = 1, ON_B = 2, ON_BOTH = 3, BIG = 768 * 1024 };

typedef struct end {
  tape_t tape;
  int peer;
  bool tls;
} end_t;

typedef struct joint {
  aloop_t *loop;
  end_t a, b;
  aloop_future_t *future;
} joint_t;

static unsigned char sent[BIG], wire[BIG + BIG / 8], got[BIG];

/* ---- Helpers --------------------------------------------------------------------------------------------- */

static void open_end(end_t *end, env_t *env, bool tls) {
  const int small = 8192; /* so that much waits in the transport */
  *end = (end_t){.tape = {.env = env}, .tls = tls};
  end->peer = tls ? open_mock_server(&end->tape, &plain_protocol) : open_tape(&end->tape, &plain_protocol);
  setsockopt(aloop_transport_fd(end->tape.transport), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
}

static void begin(joint_t *joint, env_t *env, int which) {
  *joint = (joint_t){.loop = env->loop};
  open_end(&joint->a, env, (which & ON_A) != 0);
  open_end(&joint->b, env, (which & ON_B) != 0);
  joint->future = aloop_relay(joint->a.tape.transport, joint->b.tape.transport);
  assert_non_null(joint->future);
  assert_false(aloop_future_done(joint->future));
}

static void say_to(const end_t *end, const char *text) {
  if (end->tls)
    mock_say(end->peer, 'D', text);
  else
    say(end->peer, text);
}

static void hear_from(end_t *end, const char *text) {
  if (end->tls)
    mock_expect(end->tape.env->loop, end->peer, 'D', text);
  else
    expect(&end->tape, end->peer, text);
}

/* The peer says that it has said everything. */
static void end_peer(const end_t *end) {
  if (end->tls) mock_say(end->peer, 'E', "");
  if (!end->tls) shutdown(end->peer, SHUT_WR);
}

static void hear_end(end_t *end) {
  if (end->tls) mock_expect(end->tape.env->loop, end->peer, 'E', "");
  if (!end->tls) peer_await_end(end->tape.env->loop, end->peer);
}

static void expect_result(joint_t *joint, int64_t result) {
  assert_int_equal(run_future(joint->loop, joint->future), result);
  aloop_future_unref(joint->future);
}

static void finish(joint_t *joint, int error_a, int error_b) {
  run_until(joint->loop, &joint->a.tape.lost);
  run_until(joint->loop, &joint->b.tape.lost);
  assert_int_equal(joint->a.tape.error, error_a);
  assert_int_equal(joint->b.tape.error, error_b);
  assert_string_equal(joint->a.tape.events, "ML");
  assert_string_equal(joint->b.tape.events, "ML");
  release_tape(&joint->a.tape, joint->a.peer);
  release_tape(&joint->b.tape, joint->b.peer);
}

/* The texts of all whole records in `wire`. */
static size_t unwrap(const end_t *end, size_t size) {
  size_t total = 0;
  if (!end->tls) memcpy(got, wire, size);
  if (!end->tls) return size;
  for (size_t at = 0; at + 3 <= size;) {
    size_t length = (size_t)(wire[at + 1] << 8 | wire[at + 2]);
    if (at + 3 + length > size) break;
    assert_int_equal(wire[at], 'D');
    for (size_t i = 0; i < length; i++) got[total++] = wire[at + 3 + i] ^ 0xff;
    at += 3 + length;
  }
  return total;
}

/* `sent` as the peer of this end sends it; its size. */
static size_t wrap(const end_t *end, unsigned char *into) {
  enum { RECORD = 10000 };
  size_t size = 0;
  if (!end->tls) memcpy(into, sent, BIG);
  if (!end->tls) return BIG;
  for (size_t at = 0; at < BIG; at += RECORD) {
    char text[RECORD];
    size_t n = BIG - at < RECORD ? BIG - at : RECORD;
    for (size_t i = 0; i < n; i++) text[i] = (char)(sent[at + i] ^ 0xff);
    size += mock_record((char *)into + size, 'D', text, n);
  }
  return size;
}

/* Writes as much as is taken until nothing moves any more. */
static size_t push(joint_t *joint, int peer, const unsigned char *data, size_t size) {
  size_t at = 0;
  for (int idle = 0; at < size && idle < 8;) {
    ssize_t n = send(peer, data + at, size - at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) at += (size_t)n;
    idle = n > 0 ? 0 : idle + 1;
    assert_true(aloop_run_once(joint->loop, 0) >= 0);
  }
  return at;
}

/* ---- What arrives ---------------------------------------------------------------------------------------- */

static void bytes_go_both_ways(void **state) {
  for (int which = ON_A; which <= ON_BOTH; which++) {
    joint_t joint;
    mock_begin();
    begin(&joint, *state, which);
    say_to(&joint.a, "question");
    hear_from(&joint.b, "question");
    say_to(&joint.b, "answer");
    hear_from(&joint.a, "answer");
    end_peer(&joint.a);
    hear_end(&joint.b);
    end_peer(&joint.b);
    expect_result(&joint, 14);
    finish(&joint, 0, 0);
  }
}

/* A sink that reads little holds its source at every moment, and gets everything in order. */
static void a_full_sink_holds_its_source(void **state) {
  enum { MOST = 250000, LITTLE = 30000 };
  static unsigned char from[sizeof wire];
  pattern(sent, sizeof sent, 3);
  for (int which = ON_A; which <= ON_BOTH; which++) {
    joint_t joint;
    mock_begin();
    begin(&joint, *state, which);
    size_t size = wrap(&joint.a, from), came = 0, at = 0;
    while (unwrap(&joint.b, came) < sizeof sent) {
      at += push(&joint, joint.a.peer, from + at, size - at);
      run_turns(joint.loop, 4);
      assert_true(unsent(&joint.b.tape) < MOST);
      size_t n = drain(joint.b.peer, wire + came, LITTLE);
      assert_true(n > 0);
      came += n;
    }
    assert_memory_equal(got, sent, sizeof sent);
    end_peer(&joint.a);
    end_peer(&joint.b);
    expect_result(&joint, BIG);
    finish(&joint, 0, 0);
  }
}

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void the_end_of_one_way_is_passed_on(void **state) {
  for (int which = ON_A; which <= ON_BOTH; which++) {
    joint_t joint;
    mock_begin();
    begin(&joint, *state, which);
    say_to(&joint.a, "question");
    end_peer(&joint.a);
    hear_from(&joint.b, "question");
    hear_end(&joint.b);
    settle(joint.loop);
    assert_false(aloop_future_done(joint.future));
    say_to(&joint.b, "answer");
    hear_from(&joint.a, "answer");
    end_peer(&joint.b);
    hear_end(&joint.a);
    expect_result(&joint, 14);
    finish(&joint, 0, 0);
  }
}

/* B cannot be told without losing its answer. */
static void a_sink_without_half_ends_hears_of_it_at_the_end(void **state) {
  joint_t joint;
  mock_begin();
  mock.half_close = false;
  begin(&joint, *state, ON_B);
  say_to(&joint.a, "question");
  end_peer(&joint.a);
  hear_from(&joint.b, "question");
  settle(joint.loop);
  assert_int_equal(peer_look(joint.b.peer), PEER_OPEN);
  assert_false(aloop_future_done(joint.future));
  say_to(&joint.b, "answer");
  hear_from(&joint.a, "answer");
  end_peer(&joint.b);
  expect_result(&joint, 14);
  hear_end(&joint.b);
  hear_end(&joint.a);
  finish(&joint, 0, 0);
}

/* The peer takes nothing any more: that is the end of both ways, and a good one. */
static void the_end_of_a_source_without_half_ends_is_the_end(void **state) {
  for (int which = ON_A; which <= ON_BOTH; which += 2) {
    joint_t joint;
    mock_begin();
    mock.half_close = false;
    begin(&joint, *state, which);
    say_to(&joint.b, "greeting");
    hear_from(&joint.a, "greeting");
    say_to(&joint.a, "all there is");
    end_peer(&joint.a);
    hear_from(&joint.b, "all there is");
    expect_result(&joint, 20);
    hear_end(&joint.a);
    hear_end(&joint.b);
    finish(&joint, 0, 0);
  }
}

/* ... and waits until everything was sent, while what comes the other way has nowhere to go to. */
static void what_was_read_is_sent_before_that_end(void **state) {
  joint_t joint;
  mock_begin();
  mock.half_close = false;
  begin(&joint, *state, ON_A);
  size_t before = fill(aloop_transport_fd(joint.b.tape.transport));
  say_to(&joint.a, "the rest");
  end_peer(&joint.a);
  settle(joint.loop);
  say_to(&joint.b, "too late");
  settle(joint.loop);
  assert_false(aloop_future_done(joint.future));
  assert_int_equal(peer_look(joint.a.peer), PEER_OPEN);
  while (before > 0) before -= drain(joint.b.peer, wire, before < sizeof wire ? before : sizeof wire);
  hear_from(&joint.b, "the rest");
  expect_result(&joint, 8);
  hear_end(&joint.a);
  finish(&joint, 0, 0);
}

static void a_cut_resets_the_other(void **state) {
  for (int which = ON_A; which <= ON_BOTH; which += 2) {
    joint_t joint;
    mock_begin();
    begin(&joint, *state, which);
    say_to(&joint.a, "half of");
    hear_from(&joint.b, "half of");
    shutdown(joint.a.peer, SHUT_WR);
    expect_result(&joint, ALOOP_ETLS_TRUNCATED);
    finish(&joint, ALOOP_ETLS_TRUNCATED, 0);
  }
}

static void closing_one_closes_the_other(void **state) {
  for (int which = ON_A; which <= ON_BOTH; which++) {
    joint_t joint;
    mock_begin();
    begin(&joint, *state, which);
    say_to(&joint.a, "to b");
    settle(joint.loop);
    aloop_transport_close(joint.a.tape.transport);
    hear_from(&joint.b, "to b");
    hear_end(&joint.a);
    hear_end(&joint.b);
    expect_result(&joint, ALOOP_ECLOSED);
    finish(&joint, 0, 0);
  }
}

/* ---- Cancelling ------------------------------------------------------------------------------------------ */

static void an_end_is_told_again_after_cancelling(void **state) {
  for (int half = 0; half < 2; half++) {
    joint_t joint;
    mock_begin();
    mock.half_close = half;
    begin(&joint, *state, ON_A);
    joint.a.tape.answer[AT_EOF] = 1;
    fill(aloop_transport_fd(joint.b.tape.transport));
    say_to(&joint.a, "x");
    end_peer(&joint.a);
    settle(joint.loop);
    assert_int_equal(aloop_future_cancel(joint.future), 1);
    expect_result(&joint, ALOOP_ECANCELED);
    run_until(joint.loop, &joint.a.tape.eof);
    settle(joint.loop);
    assert_int_equal(joint.a.tape.lost, !half); /* without half ends it cannot stay */
    assert_int_equal(unsent(&joint.b.tape), 1);
    end_tape(&joint.a.tape, joint.a.peer);
    end_tape(&joint.b.tape, joint.b.peer);
  }
}

static void a_carrier_that_is_lost_ends_the_relay(void **state) {
  const struct linger now = {.l_onoff = 1, .l_linger = 0};
  for (int which = ON_A; which <= ON_BOTH; which += 2) {
    joint_t joint;
    mock_begin();
    mock.tcp = true;
    begin(&joint, *state, which);
    setsockopt(joint.a.peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(joint.a.peer);
    joint.a.peer = -1;
    expect_result(&joint, ALOOP_ECONNRESET);
    finish(&joint, ALOOP_ECONNRESET, 0);
  }
}

TESTS(T(bytes_go_both_ways), T(a_full_sink_holds_its_source), T(the_end_of_one_way_is_passed_on),
      T(a_sink_without_half_ends_hears_of_it_at_the_end), T(the_end_of_a_source_without_half_ends_is_the_end),
      T(what_was_read_is_sent_before_that_end), T(a_cut_resets_the_other), T(closing_one_closes_the_other),
      T(a_carrier_that_is_lost_ends_the_relay), T(an_end_is_told_again_after_cancelling))
