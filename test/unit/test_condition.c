/* SPDX-License-Identifier: MIT
 *
 * Conditions: the lock is had before and after each wait, whatever happens, and no notification gets lost.
 */
#include "harness.h"

#include "core/loop.h"
#include "future/future.h"
#include "task/waiters.h"

static aloop_condition_t *new_condition(env_t *env) {
  aloop_condition_t *condition;
  assert_int_equal(aloop_condition_new(env->loop, NULL, &condition), 0);
  return condition;
}

static void take(aloop_condition_t *condition) {
  aloop_future_t *future = aloop_condition_acquire(condition);
  assert_int_equal(aloop_future_result(future), 0);
  aloop_future_unref(future);
}

static void give(aloop_condition_t *condition) {
  assert_int_equal(aloop_condition_release(condition), 0);
}

/* Somebody who waits. */
static aloop_future_t *waiter(aloop_condition_t *condition) {
  take(condition);
  aloop_future_t *future = aloop_condition_wait(condition);
  assert_false(aloop_future_done(future));
  return future;
}

/* Somebody takes the lock, notifies and gives it back. */
static void notify(aloop_condition_t *condition, size_t count) {
  take(condition);
  assert_int_equal(aloop_condition_notify(condition, count), 0);
  give(condition);
}

static void assert_ends(aloop_future_t *future, int64_t result) {
  assert_int_equal(aloop_future_result(future), result);
  aloop_future_unref(future);
}

static void waiting_releases_the_lock(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *waiting = waiter(condition);
  assert_false(aloop_condition_locked(condition));
  take(condition);
  assert_int_equal(aloop_condition_notify(condition, 1), 0);
  assert_false(aloop_future_done(waiting));
  give(condition);
  assert_ends(waiting, 0);
  assert_true(aloop_condition_locked(condition));
  give(condition);
  assert_false(aloop_condition_locked(condition));
  aloop_condition_free(condition);
}

static void as_many_are_woken_as_asked_for(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *futures[4];
  for (int i = 0; i < 4; i++) futures[i] = waiter(condition);
  notify(condition, 0);
  assert_false(aloop_condition_locked(condition));
  notify(condition, 2);
  for (int i = 0; i < 2; i++) {
    assert_ends(futures[i], 0);
    give(condition);
  }
  assert_false(aloop_condition_locked(condition));
  assert_false(aloop_future_done(futures[2]));
  take(condition);
  assert_int_equal(aloop_condition_notify_all(condition), 0);
  give(condition);
  for (int i = 2; i < 4; i++) {
    assert_ends(futures[i], 0);
    if (i == 2) assert_false(aloop_future_done(futures[3])); /* first the lock has to be given back */
    give(condition);
  }
  aloop_condition_free(condition);
}

static void the_lock_is_needed(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  assert_int_equal(aloop_condition_notify(condition, 1), ALOOP_EPERM);
  assert_int_equal(aloop_condition_notify_all(condition), ALOOP_EPERM);
  assert_ends(aloop_condition_wait(condition), ALOOP_EPERM);
  aloop_condition_free(condition);
}

static void a_lock_can_be_shared(void **state) {
  env_t *env = *state;
  aloop_lock_t *lock;
  aloop_condition_t *full, *empty;
  assert_int_equal(aloop_lock_new(env->loop, &lock), 0);
  assert_int_equal(aloop_condition_new(env->loop, lock, &full), 0);
  assert_int_equal(aloop_condition_new(env->loop, lock, &empty), 0);
  aloop_future_t *waiting = waiter(full);
  take(empty);
  assert_true(aloop_lock_locked(lock));
  assert_int_equal(aloop_condition_notify(full, 1), 0);
  give(empty);
  assert_ends(waiting, 0);
  assert_int_equal(aloop_lock_release(lock), 0);
  aloop_lock_free(lock);
  aloop_condition_free(full);
  take(empty);
  give(empty);
  aloop_condition_free(empty);
}

static void a_cancelled_wait_takes_the_lock_again(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *waiting = waiter(condition);
  take(condition);
  assert_int_equal(aloop_future_cancel(waiting), 1);
  assert_int_equal(aloop_future_cancel(waiting), 1);
  assert_false(aloop_future_done(waiting));
  assert_int_equal(aloop_condition_notify(condition, 1), 0);
  give(condition);
  assert_ends(waiting, ALOOP_ECANCELED);
  assert_true(aloop_condition_locked(condition));
  give(condition);
  waiting = waiter(condition);
  assert_int_equal(aloop_future_cancel(waiting), 1);
  assert_true(aloop_future_cancelled(waiting));
  assert_true(aloop_condition_locked(condition));
  give(condition);
  aloop_future_unref(waiting);
  aloop_condition_free(condition);
}

static void a_notification_of_somebody_cancelled_goes_to_the_next(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *first = waiter(condition), *second = waiter(condition);
  take(condition);
  assert_int_equal(aloop_condition_notify(condition, 1), 0);
  assert_int_equal(aloop_future_cancel(first), 1);
  give(condition);
  assert_ends(first, ALOOP_ECANCELED);
  give(condition);
  assert_ends(second, 0);
  give(condition);
  aloop_condition_free(condition);
}

/* As await does, when the task was cancelled after its wait had ended. */
static void a_notification_that_a_task_misses_goes_to_the_next(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *first = waiter(condition), *second = waiter(condition);
  notify(condition, 1);
  assert_true(aloop_future_done(first));
  aloop__future_forsake(first);
  aloop_future_unref(first);
  assert_false(aloop_future_done(second));
  give(condition);
  assert_ends(second, 0);
  give(condition);
  aloop_condition_free(condition);
}

static void an_unread_wait_has_the_lock_all_the_same(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *first = waiter(condition), *second = waiter(condition);
  notify(condition, 1);
  aloop_future_unref(first);
  assert_true(aloop_condition_locked(condition));
  give(condition);
  assert_false(aloop_future_done(second));
  aloop_future_cancel(second);
  aloop_future_unref(second);
  give(condition);
  aloop_condition_free(condition);
}

static bool at_least_two(void *arg) {
  return *(int *)arg >= 2;
}

static void a_predicate_is_waited_for(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  int number = 0;
  take(condition);
  aloop_future_t *waiting = aloop_condition_wait_for(condition, at_least_two, &number);
  for (number = 0; number < 2; number++) {
    notify(condition, 1);
    assert_false(aloop_future_done(waiting));
    assert_false(aloop_condition_locked(condition));
  }
  notify(condition, 1);
  assert_ends(waiting, 0);
  assert_true(aloop_condition_locked(condition));
  assert_ends(aloop_condition_wait_for(condition, at_least_two, &number), 0);
  give(condition);
  aloop_condition_free(condition);
}

static void waiting_for_a_predicate_can_be_cancelled(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  int number = 0;
  take(condition);
  aloop_future_t *waiting = aloop_condition_wait_for(condition, at_least_two, &number);
  notify(condition, 1);
  assert_int_equal(aloop_future_cancel(waiting), 1);
  assert_ends(waiting, ALOOP_ECANCELED);
  give(condition);
  aloop_condition_free(condition);
}

/* Says no, after the wait has been given up or let go. */
static bool give_up(void *future) {
  assert_int_equal(aloop_future_cancel(*(aloop_future_t **)future), 1);
  return false;
}

static bool let_go(void *arg) {
  aloop_future_t **future = arg;
  aloop_future_unref(*future);
  *future = NULL;
  return false;
}

/* The same predicate said no before the wait began: the first look is by the caller. */
static aloop_future_t *wait_for_what_is_asked_later(aloop_condition_t *condition, bool (*predicate)(void *arg),
                                                    aloop_future_t **place) {
  int number = 0;
  take(condition);
  *place = aloop_condition_wait_for(condition, at_least_two, &number);
  aloop__waiter_t *waiter = aloop__waiters_of(*place);
  waiter->predicate = predicate;
  waiter->arg = place;
  return *place;
}

static void a_predicate_may_cancel_the_wait(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *place, *waiting = wait_for_what_is_asked_later(condition, give_up, &place);
  notify(condition, 1);
  assert_true(aloop_future_done(waiting));
  assert_ends(waiting, ALOOP_ECANCELED);
  give(condition);
  aloop_condition_free(condition);
}

static void a_predicate_may_let_go_of_the_wait(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *place;
  wait_for_what_is_asked_later(condition, let_go, &place);
  notify(condition, 1);
  assert_null(place);
  assert_false(aloop_condition_locked(condition));
  aloop_condition_free(condition);
}

/* A time limit is over, but the lock is somebody else's for another while. */
static void a_time_limit_takes_the_lock_again(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  aloop_condition_t *condition = new_condition(env);
  take(condition);
  aloop_future_t *limited = aloop_wait_for(aloop_condition_wait(condition), ALOOP_SECONDS(1));
  take(condition);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_sleep(env->loop, ALOOP_SECONDS(2))), 0);
  assert_false(aloop_future_done(limited));
  give(condition);
  assert_int_equal(run_future(env->loop, limited), ALOOP_ETIMEDOUT);
  assert_true(aloop_condition_locked(condition));
  give(condition);
  aloop_future_unref(limited);
  aloop_condition_free(condition);
}

static void freeing_it_ends_the_wait_with_the_lock(void **state) {
  env_t *env = *state;
  aloop_lock_t *lock;
  aloop_condition_t *condition;
  assert_int_equal(aloop_lock_new(env->loop, &lock), 0);
  assert_int_equal(aloop_condition_new(env->loop, lock, &condition), 0);
  aloop_future_t *first = waiter(condition), *second = waiter(condition);
  aloop_condition_free(condition);
  assert_ends(first, ALOOP_ECANCELED);
  assert_false(aloop_future_done(second));
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_ends(second, ALOOP_ECANCELED);
  assert_int_equal(aloop_lock_release(lock), 0);
  aloop_lock_free(lock);
}

/* Nobody can give back a lock that went with its condition. */
static void freeing_it_ends_all_who_wait_for_its_own_lock(void **state) {
  aloop_condition_t *condition = new_condition(*state);
  aloop_future_t *waiting = waiter(condition);
  take(condition);
  aloop_future_t *second = aloop_condition_acquire(condition), *third = aloop_condition_acquire(condition);
  aloop_condition_free(condition);
  assert_ends(second, ALOOP_ECANCELED);
  assert_ends(waiting, ALOOP_ECANCELED);
  aloop_future_cancel(third);
  assert_ends(third, ALOOP_ECANCELED);
}

static void freeing_the_lock_ends_the_wait_for_it(void **state) {
  env_t *env = *state;
  aloop_lock_t *lock;
  aloop_condition_t *condition;
  assert_int_equal(aloop_lock_new(env->loop, &lock), 0);
  assert_int_equal(aloop_condition_new(env->loop, lock, &condition), 0);
  aloop_future_t *waiting = waiter(condition);
  take(condition);
  aloop_condition_notify(condition, 1);
  aloop_lock_free(lock);
  assert_ends(waiting, ALOOP_ECANCELED);
  aloop_condition_free(condition);
}

static void a_closed_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  aloop_condition_t *condition = new_condition(env);
  aloop_future_t *waiting = waiter(condition), *notified = waiter(condition);
  take(condition);
  aloop_condition_notify(condition, 1);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_ends(waiting, ALOOP_ECANCELED);
  assert_ends(notified, ALOOP_ECANCELED);
  give(condition);
  assert_int_equal(aloop_condition_release(condition), ALOOP_EPERM);
  aloop_condition_free(condition);
}

static void scenario(env_t *env) {
  aloop_condition_t *condition;
  if (aloop_condition_new(env->loop, NULL, &condition) < 0) return;
  aloop_future_t *lock = aloop_condition_acquire(condition);
  if (lock == NULL || aloop_future_result(lock) < 0) {
    aloop_future_unref(lock);
    aloop_condition_free(condition);
    return;
  }
  aloop_future_t *waiting = aloop_condition_wait(condition);
  assert_int_equal(aloop_condition_locked(condition), waiting == NULL);
  if (waiting != NULL) assert_int_equal(aloop_future_cancel(waiting), 1);
  give(condition);
  aloop_future_unref(waiting);
  aloop_future_unref(lock);
  aloop_condition_free(condition);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(waiting_releases_the_lock), T(as_many_are_woken_as_asked_for), T(the_lock_is_needed),
      T(a_lock_can_be_shared), T(a_cancelled_wait_takes_the_lock_again),
      T(a_notification_of_somebody_cancelled_goes_to_the_next),
      T(a_notification_that_a_task_misses_goes_to_the_next), T(an_unread_wait_has_the_lock_all_the_same),
      T(a_predicate_is_waited_for), T(waiting_for_a_predicate_can_be_cancelled),
      T(a_predicate_may_cancel_the_wait), T(a_predicate_may_let_go_of_the_wait),
      T(a_time_limit_takes_the_lock_again), T(freeing_it_ends_the_wait_with_the_lock),
      T(freeing_it_ends_all_who_wait_for_its_own_lock), T(freeing_the_lock_ends_the_wait_for_it),
      T(a_closed_loop_ends_the_wait), T(running_out_of_memory))
