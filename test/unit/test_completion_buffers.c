/* SPDX-License-Identifier: MIT
 *
 * The buffers that the kernel receives into: how many it has at a time. On io_uring only.
 */
#include "harness.h"

#include <sys/socket.h>
#include <unistd.h>

#include "net/completion.h"
#include "peers.h"
#include "rings.h"
#include "streams.h"

#ifdef ALOOP_HAVE_IO_URING

/* Of a loop on a kernel that fills buffers in pieces, or on one that gives each receive a whole buffer. */
static aloop__completion_buffers_t *buffers_of(env_t *env, bool in_pieces) {
  use_completions(env);
  atomic_store(&aloop__ring_forbidden, in_pieces ? 0 : ALOOP__RING_NO_PIECES);
  env_loop(env, (aloop_options_t){.poller = "uring"});
  assert_non_null(aloop__net_open(env->loop));
  atomic_store(&aloop__ring_forbidden, 0);
  aloop__completion_buffers_t *buffers = &aloop__completion_net(env->loop)->buffers;
  if (buffers->shape.in_pieces != in_pieces) skip();
  return buffers;
}

static aloop__ring_done_t completion_of(uint32_t index, int32_t size, bool more) {
  return (aloop__ring_done_t){.result = size,
                              .flags = index << IORING_CQE_BUFFER_SHIFT | IORING_CQE_F_BUFFER |
                                       (more ? ALOOP__RING_BUFFER_MORE : 0u)};
}

/* Turns in each of which so many are used up and given back. */
static void take_turns(aloop__completion_buffers_t *buffers, int turns, int burst) {
  static uint64_t poll = 1000000;
  for (int i = 0; i < turns; i++, poll++) {
    uint32_t taken[ALOOP__COMPLETION_BUFFERS];
    int count = 0;
    for (uint32_t j = 0; count < burst; j++) {
      assert_true(j < buffers->shape.count);
      if (!buffers->uses[j].lent) continue;
      aloop__ring_done_t completion = completion_of(j, 64, false);
      aloop__completion_take(buffers, &completion, poll);
      taken[count++] = completion.flags;
    }
    while (count > 0) aloop__completion_give_back(buffers, taken[--count]);
  }
}

static void expect_lent(const aloop__completion_buffers_t *buffers, int count) {
  assert_int_equal(buffers->lent, count);
  assert_int_equal(buffers->lent + buffers->spares_count, buffers->shape.count);
}

static void a_few_are_lent_at_first(void **state) {
  for (int in_pieces = 0; in_pieces < 2; in_pieces++) {
    aloop__completion_buffers_t *buffers = buffers_of(*state, in_pieces);
    expect_lent(buffers, buffers->shape.least);
    assert_true(buffers->shape.least * 2 <= buffers->shape.count);
  }
}

static void those_that_find_none_now_and_then_change_nothing(void **state) {
  aloop__completion_buffers_t *buffers = buffers_of(*state, false);
  for (int i = 0; i < 1000; i++) {
    aloop__completion_buffers_short(buffers);
    take_turns(buffers, 1, 8);
  }
  expect_lent(buffers, buffers->shape.least);
}

static void many_that_find_none_have_more_lent_up_to_all(void **state) {
  for (int in_pieces = 0; in_pieces < 2; in_pieces++) {
    aloop__completion_buffers_t *buffers = buffers_of(*state, in_pieces);
    for (int i = 0; i < 20; i++) aloop__completion_buffers_short(buffers);
    expect_lent(buffers, 2 * buffers->shape.least);
    for (int i = 0; i < 1000; i++) aloop__completion_buffers_short(buffers);
    expect_lent(buffers, buffers->shape.count);
  }
}

static void they_come_back_when_long_few_were_needed(void **state) {
  for (int in_pieces = 0; in_pieces < 2; in_pieces++) {
    aloop__completion_buffers_t *buffers = buffers_of(*state, in_pieces);
    for (int i = 0; i < 1000; i++) aloop__completion_buffers_short(buffers);
    take_turns(buffers, 1000, buffers->shape.count / 2 + 1);
    expect_lent(buffers, buffers->shape.count);
    take_turns(buffers, 50000, 1);
    assert_int_equal(buffers->window, buffers->shape.least);
    expect_lent(buffers, buffers->shape.least);
  }
}

static void a_buffer_goes_back_when_nobody_needs_any_piece_of_it(void **state) {
  aloop__completion_buffers_t *buffers = buffers_of(*state, true);
  aloop__ring_done_t first = completion_of(0, 1000, true), last = completion_of(0, 64536, false);
  assert_true(buffers->uses[0].lent);
  char *piece = aloop__completion_take(buffers, &first, 1);
  expect_lent(buffers, buffers->shape.least); /* there is room left */
  assert_ptr_equal(aloop__completion_take(buffers, &last, 1), piece + 1000);
  assert_int_equal(buffers->lent, buffers->shape.least - 1);
  aloop__completion_give_back(buffers, last.flags);
  assert_int_equal(buffers->lent, buffers->shape.least - 1);
  aloop__completion_give_back(buffers, first.flags);
  expect_lent(buffers, buffers->shape.least);
}

static void messages_share_a_buffer(void **state) {
  env_t *env = *state;
  aloop__completion_buffers_t *buffers = buffers_of(env, true);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  const char *before = NULL;
  for (size_t i = 1; i <= 10; i++) {
    say(peer, "message ");
    while (tape.size < 8 * i) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
    if (before != NULL) assert_ptr_equal(tape.data, before + 8);
    before = tape.data;
  }
  expect_lent(buffers, buffers->shape.least);
  end_tape(&tape, peer);
}

/* An end brings nothing, whatever the kernel says about a buffer. */
static void ends_use_no_buffer_up(void **state) {
  env_t *env = *state;
  for (int in_pieces = 0; in_pieces < 2; in_pieces++) {
    aloop__completion_buffers_t *buffers = buffers_of(env, in_pieces);
    for (int i = 0; i < 10; i++) {
      tape_t tape = {.env = env};
      int peer = open_tcp_tape(&tape, &plain_protocol);
      say(peer, "the end");
      shutdown(peer, SHUT_WR);
      run_until(env->loop, &tape.lost);
      assert_memory_equal(tape.bytes, "the end", 7);
      assert_int_equal(tape.size, 7);
      expect_lent(buffers, buffers->shape.least);
      end_tape(&tape, peer);
    }
  }
}

/* More than is lent, and all but one connection pauses: what they hold is not lent, others stand in for it. */
static void hold_much(env_t *env, aloop__completion_buffers_t *buffers) {
  enum { MANY = 32, SIZE = 16384 };
  static tape_t tapes[MANY];
  static const char bytes[SIZE];
  int peers[MANY];
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env};
    peers[i] = open_tcp_tape(&tapes[i], &plain_protocol);
  }
  settle(env->loop);
  for (int i = 0; i < MANY; i++) assert_int_equal(write(peers[i], bytes, SIZE), SIZE);
  for (int i = 0; i < MANY - 1; i++) aloop_transport_pause_reading(tapes[i].transport);
  while (tapes[MANY - 1].size < SIZE) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  for (int i = 0; i < MANY - 1; i++) assert_int_equal(tapes[i].size, 0);
  for (int i = 0; i < MANY; i++) aloop_transport_resume_reading(tapes[i].transport);
  for (int i = 0; i < MANY; i++)
    while (tapes[i].size < SIZE) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  assert_int_equal(buffers->lent + buffers->spares_count, buffers->shape.count);
  for (int i = 0; i < MANY; i++) reset_tape(&tapes[i], peers[i]);
}

static void held_ones_are_replaced(void **state) {
  for (int in_pieces = 0; in_pieces < 2; in_pieces++) hold_much(*state, buffers_of(*state, in_pieces));
}

/* After traffic of all at once, more than all buffers hold. */
static void idle_connections_hold_nothing(void **state) {
  enum { MANY = 150, SIZE = 4000 };
  static tape_t tapes[MANY];
  static const char bytes[SIZE];
  int peers[MANY];
  env_t *env = *state;
  aloop__completion_buffers_t *buffers = buffers_of(env, true);
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env};
    peers[i] = open_tcp_tape(&tapes[i], &plain_protocol);
  }
  settle(env->loop);
  long before = env->live;
  for (size_t round = 1; round <= 3; round++) {
    for (int i = 0; i < MANY; i++) assert_int_equal(write(peers[i], bytes, SIZE), SIZE);
    for (int i = 0; i < MANY; i++) aloop_transport_pause_reading(tapes[i].transport);
    settle(env->loop);
    for (int i = 0; i < MANY; i++) aloop_transport_resume_reading(tapes[i].transport);
    for (int i = 0; i < MANY; i++)
      while (tapes[i].size < SIZE * round) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  }
  settle(env->loop);
  assert_int_equal(env->live, before);
  assert_int_equal(buffers->lent + buffers->spares_count, buffers->shape.count);
  for (int i = 0; i < buffers->shape.count; i++) assert_int_equal(buffers->uses[i].pieces, 0);
  assert_true((size_t)buffers->shape.count * buffers->stride < 1024 * 1024); /* all that was ever touched */
  for (int i = 0; i < MANY; i++) reset_tape(&tapes[i], peers[i]);
}

static void pause_and_resume(tape_t *tape) {
  aloop_transport_pause_reading(tape->transport);
  aloop_transport_resume_reading(tape->transport);
}

static uint64_t events_of(aloop_t *loop) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(loop, &metrics), 0);
  return metrics.events;
}

/* Far more than all buffers hold comes at once: nobody asks again and again, and no byte changes its place. */
static void those_that_find_none_are_read_all_the_same(void **state) {
  enum { MANY = 150, SIZE = 40000 };
  static tape_t tapes[MANY];
  static char bytes[SIZE];
  int peers[MANY];
  env_t *env = *state;
  buffers_of(env, true);
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env};
    tapes[i].on[DATA] = tapes[i].on[UPDATED] = i % 3 == 0 ? pause_and_resume : NULL;
    peers[i] = open_tape(&tapes[i], i % 2 == 0 ? &plain_protocol : &buffered_protocol);
  }
  settle(env->loop);
  pattern(bytes, SIZE, 0);
  for (int i = 0; i < MANY; i++) assert_int_equal(write(peers[i], bytes, SIZE), SIZE);
  uint64_t before = events_of(env->loop);
  for (int i = 0; i < MANY; i++)
    while (tapes[i].size < SIZE) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  assert_in_range(events_of(env->loop) - before, MANY, 3 * MANY);
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(tapes[i].size, SIZE);
    assert_memory_equal(tapes[i].bytes, bytes, SIZE);
    end_tape(&tapes[i], peers[i]);
  }
}

TESTS(T(those_that_find_none_are_read_all_the_same), T(idle_connections_hold_nothing),
      T(a_few_are_lent_at_first), T(those_that_find_none_now_and_then_change_nothing),
      T(many_that_find_none_have_more_lent_up_to_all), T(they_come_back_when_long_few_were_needed),
      T(a_buffer_goes_back_when_nobody_needs_any_piece_of_it), T(messages_share_a_buffer),
      T(ends_use_no_buffer_up), T(held_ones_are_replaced))

#else

TESTS(T(there_is_no_ring_here))
#endif
