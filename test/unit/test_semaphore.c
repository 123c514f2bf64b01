/* SPDX-License-Identifier: MIT
 *
 * Semaphores: places, their order, their bound, and those that were promised to somebody cancelled.
 */
#include "harness.h"

#include "core/loop.h"
#include "future/future.h"

static aloop_semaphore_t *new_semaphore(env_t *env, int64_t value, bool bounded) {
  aloop_semaphore_t *semaphore;
  assert_int_equal(aloop_semaphore_new(env->loop, value, bounded, &semaphore), 0);
  return semaphore;
}

static void take(aloop_semaphore_t *semaphore) {
  aloop_future_t *future = aloop_semaphore_acquire(semaphore);
  assert_int_equal(aloop_future_result(future), 0);
  aloop_future_unref(future);
}

static aloop_future_t *wait_in_line(aloop_semaphore_t *semaphore) {
  aloop_future_t *future = aloop_semaphore_acquire(semaphore);
  assert_false(aloop_future_done(future));
  return future;
}

static void read_and_release(aloop_future_t *future) {
  assert_int_equal(aloop_future_result(future), 0);
  aloop_future_unref(future);
}

static void there_are_as_many_places_as_asked_for(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 2, false);
  assert_int_equal(aloop_semaphore_value(semaphore), 2);
  assert_false(aloop_semaphore_locked(semaphore));
  take(semaphore);
  take(semaphore);
  assert_true(aloop_semaphore_locked(semaphore));
  assert_int_equal(aloop_semaphore_value(semaphore), 0);
  aloop_future_t *future = wait_in_line(semaphore);
  assert_int_equal(aloop_semaphore_release(semaphore), 0);
  assert_int_equal(aloop_semaphore_value(semaphore), 0);
  read_and_release(future);
  aloop_semaphore_free(semaphore);
}

static void more_may_be_released_than_were_acquired(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 0, false);
  assert_int_equal(aloop_semaphore_release(semaphore), 0);
  assert_int_equal(aloop_semaphore_release(semaphore), 0);
  assert_int_equal(aloop_semaphore_value(semaphore), 2);
  aloop_semaphore_free(semaphore);
}

static void a_bounded_one_is_not_released_too_often(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 1, true);
  assert_int_equal(aloop_semaphore_release(semaphore), ALOOP_ERANGE);
  aloop_future_t *promised = aloop_semaphore_acquire(semaphore);
  assert_int_equal(aloop_semaphore_release(semaphore), ALOOP_ERANGE);
  read_and_release(promised);
  assert_int_equal(aloop_semaphore_release(semaphore), 0);
  assert_int_equal(aloop_semaphore_release(semaphore), ALOOP_ERANGE);
  assert_int_equal(aloop_semaphore_value(semaphore), 1);
  aloop_semaphore_free(semaphore);
}

static void waiters_are_served_in_their_order(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 0, false);
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = wait_in_line(semaphore);
  for (int i = 0; i < 3; i++) {
    aloop_semaphore_release(semaphore);
    for (int j = 0; j < 3; j++) assert_int_equal(aloop_future_done(futures[j]), j <= i);
  }
  for (int i = 0; i < 3; i++) read_and_release(futures[i]);
  aloop_semaphore_free(semaphore);
}

/* There is a place left, but somebody who came before has not started yet. */
static void a_newcomer_starts_after_those_who_waited(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 0, false);
  aloop_future_t *first = wait_in_line(semaphore);
  aloop_semaphore_release(semaphore);
  aloop_semaphore_release(semaphore);
  assert_int_equal(aloop_semaphore_value(semaphore), 1);
  assert_true(aloop_semaphore_locked(semaphore));
  aloop_future_t *second = wait_in_line(semaphore);
  read_and_release(first);
  assert_true(aloop_future_done(second));
  read_and_release(second);
  aloop_semaphore_free(semaphore);
}

static void unread_places_had_at_once_hold_nobody_up(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 3, false);
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = aloop_semaphore_acquire(semaphore);
  for (int i = 0; i < 3; i++) read_and_release(futures[i]);
  aloop_semaphore_free(semaphore);
}

static void a_cancelled_waiter_takes_no_place(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 0, false);
  aloop_future_t *first = wait_in_line(semaphore), *second = wait_in_line(semaphore);
  assert_int_equal(aloop_future_cancel(first), 1);
  aloop_semaphore_release(semaphore);
  read_and_release(second);
  aloop_future_unref(first);
  aloop_semaphore_free(semaphore);
}

static void an_unread_place_goes_to_the_next(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 1, true);
  aloop_future_t *futures[3];
  take(semaphore);
  for (int i = 0; i < 3; i++) futures[i] = wait_in_line(semaphore);
  aloop_semaphore_release(semaphore);
  aloop__future_forsake(futures[0]);
  assert_true(aloop_future_done(futures[1]));
  aloop_future_unref(futures[1]);
  assert_true(aloop_future_done(futures[2]));
  aloop_future_unref(futures[2]);
  aloop_future_unref(futures[0]);
  assert_int_equal(aloop_semaphore_value(semaphore), 1);
  aloop_future_detach(aloop_semaphore_acquire(semaphore));
  assert_int_equal(aloop_semaphore_value(semaphore), 1);
  aloop_semaphore_free(semaphore);
}

static void many_detached_waiters_do_not_nest(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 0, false);
  for (int i = 0; i < 100000; i++) aloop_future_detach(aloop_semaphore_acquire(semaphore));
  aloop_future_t *last = wait_in_line(semaphore);
  aloop_semaphore_release(semaphore);
  read_and_release(last);
  aloop_semaphore_free(semaphore);
}

static void freeing_it_ends_the_wait(void **state) {
  aloop_semaphore_t *semaphore = new_semaphore(*state, 1, false);
  aloop_future_t *promised = aloop_semaphore_acquire(semaphore), *waiting = wait_in_line(semaphore);
  aloop_semaphore_free(semaphore);
  assert_int_equal(aloop_future_result(waiting), ALOOP_ECANCELED);
  assert_string_equal(aloop_future_message(waiting), "the semaphore was freed");
  aloop_future_unref(waiting);
  aloop_future_unref(promised);
}

static void a_closed_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  aloop_semaphore_t *semaphore = new_semaphore(env, 0, false);
  aloop_future_t *waiting = wait_in_line(semaphore);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(aloop_future_result(waiting), ALOOP_ECANCELED);
  assert_int_equal(aloop_semaphore_release(semaphore), 0);
  aloop_future_unref(waiting);
  aloop_semaphore_free(semaphore);
}

static void scenario(env_t *env) {
  aloop_semaphore_t *semaphore;
  if (aloop_semaphore_new(env->loop, 1, true, &semaphore) < 0) return;
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = aloop_semaphore_acquire(semaphore);
  for (int i = 0; i < 3; i++) {
    if (futures[i] == NULL) continue;
    read_and_release(futures[i]);
    assert_int_equal(aloop_semaphore_release(semaphore), 0);
  }
  assert_int_equal(aloop_semaphore_value(semaphore), 1);
  aloop_semaphore_free(semaphore);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(there_are_as_many_places_as_asked_for), T(more_may_be_released_than_were_acquired),
      T(a_bounded_one_is_not_released_too_often), T(waiters_are_served_in_their_order),
      T(a_newcomer_starts_after_those_who_waited), T(unread_places_had_at_once_hold_nobody_up),
      T(a_cancelled_waiter_takes_no_place), T(an_unread_place_goes_to_the_next),
      T(many_detached_waiters_do_not_nest), T(freeing_it_ends_the_wait), T(a_closed_loop_ends_the_wait),
      T(running_out_of_memory))
