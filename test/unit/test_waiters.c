/* SPDX-License-Identifier: MIT
 *
 * Lines of waiters: order, leaving early, moving, and the blocks that are used again.
 */
#include "harness.h"

#include "task/waiters.h"

enum { MANY = 600 }; /* more than the free list keeps */

static void first_come_first_served(void **state) {
  env_t *env = *state;
  aloop__waiters_t line;
  aloop__waiters_init(&line);
  assert_null(aloop__waiters_next(&line));
  aloop_future_t *a = aloop__waiters_join(&line, env->loop, NULL);
  aloop_future_t *b = aloop__waiters_join(&line, env->loop, NULL);
  assert_int_equal(line.count, 2);
  assert_ptr_equal(aloop__waiters_next(&line), a);
  assert_ptr_equal(aloop__waiters_next(&line), b);
  assert_true(aloop__waiters_empty(&line));
  assert_true(aloop__future_finish(a, 1));
  assert_true(aloop__future_finish(b, 2));
  assert_int_equal(aloop_future_result(b), 2);
  aloop_future_unref(a);
  aloop_future_unref(b);
}

static void whoever_is_ended_leaves(void **state) {
  env_t *env = *state;
  aloop__waiters_t line;
  aloop__waiters_init(&line);
  aloop_future_t *futures[4];
  for (int i = 0; i < 4; i++) futures[i] = aloop__waiters_join(&line, env->loop, NULL);
  assert_int_equal(aloop_future_cancel(futures[1]), 1);
  assert_int_equal(aloop_future_set_value(futures[2], 7), 0);
  assert_int_equal(aloop_future_set_error(futures[3], ALOOP_EIO, "mine"), 0);
  assert_int_equal(line.count, 1);
  aloop__waiters_fail_all(&line, ALOOP_EPIPE, "over");
  assert_int_equal(aloop_future_result(futures[0]), ALOOP_EPIPE);
  assert_string_equal(aloop_future_message(futures[0]), "over");
  assert_int_equal(aloop_future_result(futures[2]), 7);
  assert_int_equal(aloop_future_result(futures[3]), ALOOP_EIO);
  for (int i = 0; i < 4; i++) aloop_future_unref(futures[i]);
}

static void one_who_moves_is_last_in_the_other_line(void **state) {
  env_t *env = *state;
  aloop__waiters_t from, to;
  aloop__waiters_init(&from);
  aloop__waiters_init(&to);
  aloop_future_t *a = aloop__waiters_join(&from, env->loop, NULL);
  aloop_future_t *b = aloop__waiters_join(&to, env->loop, NULL);
  aloop__waiters_move(aloop__waiters_of(a), &to);
  assert_true(aloop__waiters_empty(&from));
  assert_ptr_equal(aloop__waiters_next(&to), b);
  assert_int_equal(aloop_future_cancel(a), 1);
  assert_true(aloop__waiters_empty(&to));
  assert_true(aloop__future_finish(b, 0));
  aloop_future_unref(a);
  aloop_future_unref(b);
}

static void blocks_are_used_again(void **state) {
  env_t *env = *state;
  aloop__waiters_t line;
  aloop__waiters_init(&line);
  for (int round = 0; round < 3; round++) {
    long before = env->calls;
    for (int i = 0; i < MANY; i++) aloop_future_detach(aloop__waiters_join(&line, env->loop, NULL));
    if (round > 0) assert_true(env->calls - before <= MANY - 256);
    assert_int_equal(line.count, MANY);
    aloop__waiters_finish_all(&line, 0);
    assert_true(aloop__waiters_empty(&line));
  }
}

static void nobody_joins_on_a_closed_loop(void **state) {
  env_t *env = *state;
  aloop__waiters_t line;
  aloop__waiters_init(&line);
  assert_int_equal(aloop_close(env->loop), 0);
  aloop_future_t *future = aloop__waiters_join(&line, env->loop, NULL);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  assert_true(aloop__waiters_empty(&line));
  aloop_future_unref(future);
}

TESTS(T(first_come_first_served), T(whoever_is_ended_leaves), T(one_who_moves_is_last_in_the_other_line),
      T(blocks_are_used_again), T(nobody_joins_on_a_closed_loop))
