/* SPDX-License-Identifier: MIT
 *
 * The buffers that the kernel receives into: how many it has at a time. On io_uring only.
 */
#include "harness.h"

#include "net/completion.h"
#include "peers.h"
#include "rings.h"
#include "streams.h"

#ifdef ALOOP_HAVE_IO_URING

static aloop__completion_buffers_t *buffers_of(env_t *env) {
  use_completions(env);
  return &aloop__completion_net(env->loop)->buffers;
}

static uint32_t flags_of(uint32_t index) {
  return index << IORING_CQE_BUFFER_SHIFT;
}

/* Turns in each of which so many are taken and given back. */
static void take_turns(aloop__completion_buffers_t *buffers, int turns, uint32_t burst) {
  static uint64_t poll = 1000000;
  for (int i = 0; i < turns; i++, poll++) {
    for (uint32_t j = 0; j < burst; j++) aloop__completion_take(buffers, poll);
    for (uint32_t j = 0; j < burst; j++) aloop__completion_give_back(buffers, flags_of(j));
  }
}

static void expect_lent(const aloop__completion_buffers_t *buffers, int count) {
  assert_int_equal(buffers->lent, count);
  assert_int_equal(buffers->lent + buffers->spares_count, ALOOP__COMPLETION_BUFFERS);
}

static void a_few_are_lent_at_first(void **state) {
  expect_lent(buffers_of(*state), ALOOP__COMPLETION_LEAST);
}

static void those_that_find_none_now_and_then_change_nothing(void **state) {
  aloop__completion_buffers_t *buffers = buffers_of(*state);
  for (int i = 0; i < 1000; i++) {
    aloop__completion_buffers_short(buffers);
    take_turns(buffers, 1, 8);
  }
  expect_lent(buffers, ALOOP__COMPLETION_LEAST);
}

static void many_that_find_none_have_more_lent_up_to_all(void **state) {
  aloop__completion_buffers_t *buffers = buffers_of(*state);
  for (int i = 0; i < 20; i++) aloop__completion_buffers_short(buffers);
  expect_lent(buffers, 2 * ALOOP__COMPLETION_LEAST);
  for (int i = 0; i < 1000; i++) aloop__completion_buffers_short(buffers);
  expect_lent(buffers, ALOOP__COMPLETION_BUFFERS);
}

static void they_come_back_when_long_few_were_needed(void **state) {
  aloop__completion_buffers_t *buffers = buffers_of(*state);
  for (int i = 0; i < 1000; i++) aloop__completion_buffers_short(buffers);
  take_turns(buffers, 1000, ALOOP__COMPLETION_BUFFERS / 2 + 1);
  expect_lent(buffers, ALOOP__COMPLETION_BUFFERS);
  take_turns(buffers, 10000, 4);
  assert_int_equal(buffers->window, ALOOP__COMPLETION_LEAST);
  expect_lent(buffers, ALOOP__COMPLETION_LEAST);
}

/* What is held is not lent: others stand in for it. */
static void held_ones_are_replaced(void **state) {
  enum { MANY = 2 * ALOOP__COMPLETION_LEAST };
  static tape_t tapes[MANY];
  int peers[MANY];
  env_t *env = *state;
  aloop__completion_buffers_t *buffers = buffers_of(env);
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env};
    peers[i] = open_tcp_tape(&tapes[i], &plain_protocol);
  }
  settle(env->loop);
  for (int i = 0; i < MANY; i++) say(peers[i], "held");
  for (int i = 0; i < MANY - 1; i++) aloop_transport_pause_reading(tapes[i].transport);
  while (tapes[MANY - 1].size < 4) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  for (int i = 0; i < MANY; i++) aloop_transport_resume_reading(tapes[i].transport);
  for (int i = 0; i < MANY; i++)
    while (tapes[i].size < 4) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  assert_int_equal(buffers->lent + buffers->spares_count, ALOOP__COMPLETION_BUFFERS);
  for (int i = 0; i < MANY; i++) end_tape(&tapes[i], peers[i]);
}

TESTS(T(a_few_are_lent_at_first), T(those_that_find_none_now_and_then_change_nothing),
      T(many_that_find_none_have_more_lent_up_to_all), T(they_come_back_when_long_few_were_needed),
      T(held_ones_are_replaced))

#else

TESTS(T(there_is_no_ring_here))
#endif
