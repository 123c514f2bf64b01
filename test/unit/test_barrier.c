/* SPDX-License-Identifier: MIT
 *
 * Barriers: rounds, places in them, and what breaks them.
 */
#include "harness.h"

static aloop_barrier_t *new_barrier(env_t *env, size_t parties) {
  aloop_barrier_t *barrier;
  assert_int_equal(aloop_barrier_new(env->loop, parties, &barrier), 0);
  return barrier;
}

static void assert_ends(aloop_future_t *future, int64_t result) {
  assert_int_equal(aloop_future_result(future), result);
  aloop_future_unref(future);
}

static void all_go_on_when_the_last_has_come(void **state) {
  aloop_barrier_t *barrier = new_barrier(*state, 3);
  aloop_future_t *first = aloop_barrier_wait(barrier), *second = aloop_barrier_wait(barrier);
  assert_int_equal(aloop_barrier_n_waiting(barrier), 2);
  assert_false(aloop_future_done(first));
  aloop_future_t *third = aloop_barrier_wait(barrier);
  assert_int_equal(aloop_barrier_n_waiting(barrier), 0);
  assert_ends(first, 0);
  assert_ends(second, 1);
  assert_ends(third, 2);
  assert_int_equal(aloop_barrier_parties(barrier), 3);
  aloop_barrier_free(barrier);
}

static void one_alone_does_not_wait(void **state) {
  aloop_barrier_t *barrier = new_barrier(*state, 1);
  assert_ends(aloop_barrier_wait(barrier), 0);
  assert_ends(aloop_barrier_wait(barrier), 0);
  aloop_barrier_free(barrier);
}

/* The first one comes back before the others have even run. */
static void rounds_do_not_mix(void **state) {
  aloop_barrier_t *barrier = new_barrier(*state, 2);
  aloop_future_t *first = aloop_barrier_wait(barrier), *second = aloop_barrier_wait(barrier);
  aloop_future_t *again = aloop_barrier_wait(barrier);
  assert_false(aloop_future_done(again));
  aloop_barrier_abort(barrier);
  assert_ends(first, 0);
  assert_ends(second, 1);
  assert_ends(again, ALOOP_EBROKEN);
  aloop_barrier_free(barrier);
}

static void whoever_is_cancelled_leaves_without_breaking_it(void **state) {
  aloop_barrier_t *barrier = new_barrier(*state, 2);
  aloop_future_t *first = aloop_barrier_wait(barrier);
  assert_int_equal(aloop_future_cancel(first), 1);
  assert_int_equal(aloop_barrier_n_waiting(barrier), 0);
  aloop_future_t *second = aloop_barrier_wait(barrier);
  assert_false(aloop_future_done(second));
  aloop_future_t *third = aloop_barrier_wait(barrier);
  assert_ends(second, 0);
  assert_ends(third, 1);
  aloop_future_unref(first);
  aloop_barrier_free(barrier);
}

static void an_aborted_barrier_stays_broken_until_a_reset(void **state) {
  aloop_barrier_t *barrier = new_barrier(*state, 2);
  aloop_future_t *waiting = aloop_barrier_wait(barrier);
  assert_int_equal(aloop_barrier_abort(barrier), 0);
  assert_string_equal(aloop_future_message(waiting), "the barrier was aborted");
  assert_ends(waiting, ALOOP_EBROKEN);
  assert_true(aloop_barrier_broken(barrier));
  assert_ends(aloop_barrier_wait(barrier), ALOOP_EBROKEN);
  assert_int_equal(aloop_barrier_reset(barrier), 0);
  assert_false(aloop_barrier_broken(barrier));
  waiting = aloop_barrier_wait(barrier);
  assert_ends(aloop_barrier_wait(barrier), 1);
  assert_ends(waiting, 0);
  aloop_barrier_free(barrier);
}

static void a_reset_ends_the_wait(void **state) {
  aloop_barrier_t *barrier = new_barrier(*state, 2);
  aloop_future_t *waiting = aloop_barrier_wait(barrier);
  assert_int_equal(aloop_barrier_reset(barrier), 0);
  assert_string_equal(aloop_future_message(waiting), "the barrier was reset");
  assert_ends(waiting, ALOOP_EBROKEN);
  assert_false(aloop_barrier_broken(barrier));
  aloop_barrier_free(barrier);
}

static void freeing_it_ends_the_wait(void **state) {
  aloop_barrier_t *barrier = new_barrier(*state, 2);
  aloop_future_t *waiting = aloop_barrier_wait(barrier);
  aloop_barrier_free(barrier);
  assert_ends(waiting, ALOOP_ECANCELED);
}

static void a_closed_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  aloop_barrier_t *barrier = new_barrier(env, 2);
  aloop_future_t *waiting = aloop_barrier_wait(barrier);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_ends(waiting, ALOOP_ECANCELED);
  assert_int_equal(aloop_barrier_n_waiting(barrier), 0);
  assert_int_equal(aloop_barrier_abort(barrier), 0);
  aloop_barrier_free(barrier);
}

/* Whoever cannot come for want of memory has not come. */
static void scenario(env_t *env) {
  aloop_barrier_t *barrier;
  if (aloop_barrier_new(env->loop, 2, &barrier) < 0) return;
  aloop_future_t *first = aloop_barrier_wait(barrier);
  aloop_future_t *second = aloop_barrier_wait(barrier);
  assert_int_equal(aloop_barrier_n_waiting(barrier), (first != NULL) != (second != NULL));
  if (first != NULL && second != NULL) {
    assert_int_equal(aloop_future_result(first), 0);
    assert_int_equal(aloop_future_result(second), 1);
  }
  aloop_future_unref(first);
  aloop_future_unref(second);
  aloop_barrier_free(barrier);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(all_go_on_when_the_last_has_come), T(one_alone_does_not_wait), T(rounds_do_not_mix),
      T(whoever_is_cancelled_leaves_without_breaking_it), T(an_aborted_barrier_stays_broken_until_a_reset),
      T(a_reset_ends_the_wait), T(freeing_it_ends_the_wait), T(a_closed_loop_ends_the_wait),
      T(running_out_of_memory))
