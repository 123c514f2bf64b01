/* SPDX-License-Identifier: MIT
 *
 * Locks: who gets them, in which order, and what becomes of one whose taker was cancelled.
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "future/future.h"

enum { MANY = 5 };

static aloop_lock_t *new_lock(env_t *env) {
  aloop_lock_t *lock;
  assert_int_equal(aloop_lock_new(env->loop, &lock), 0);
  return lock;
}

/* Acquires a free lock. */
static void take(aloop_lock_t *lock) {
  aloop_future_t *future = aloop_lock_acquire(lock);
  assert_int_equal(aloop_future_result(future), 0);
  aloop_future_unref(future);
}

static void wait_in_line(aloop_lock_t *lock, aloop_future_t **futures, int count) {
  for (int i = 0; i < count; i++) {
    futures[i] = aloop_lock_acquire(lock);
    assert_false(aloop_future_done(futures[i]));
  }
}

static void release(aloop_future_t **futures, int count) {
  for (int i = 0; i < count; i++) aloop_future_unref(futures[i]);
}

static void a_free_lock_is_acquired_at_once(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  assert_false(aloop_lock_locked(lock));
  take(lock);
  assert_true(aloop_lock_locked(lock));
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_false(aloop_lock_locked(lock));
  aloop_lock_free(lock);
}

static void waiters_get_it_in_their_order(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *futures[MANY];
  take(lock);
  wait_in_line(lock, futures, MANY);
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(aloop_lock_release(lock), 0);
    for (int j = 0; j < MANY; j++) assert_int_equal(aloop_future_done(futures[j]), j <= i);
    assert_int_equal(aloop_future_result(futures[i]), 0);
  }
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_false(aloop_lock_locked(lock));
  release(futures, MANY);
  aloop_lock_free(lock);
}

static void nobody_overtakes_the_next_in_line(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *futures[2];
  take(lock);
  wait_in_line(lock, futures, 1);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_true(aloop_lock_locked(lock));
  wait_in_line(lock, futures + 1, 1);
  assert_int_equal(aloop_future_result(futures[0]), 0);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_int_equal(aloop_future_result(futures[1]), 0);
  release(futures, 2);
  aloop_lock_free(lock);
}

static void a_promised_lock_is_nobodys_to_release(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *future = aloop_lock_acquire(lock);
  assert_int_equal(aloop_lock_release(lock), ALOOP_EPERM);
  assert_int_equal(aloop_future_result(future), 0);
  assert_int_equal(aloop_future_result(future), 0);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_int_equal(aloop_lock_release(lock), ALOOP_EPERM);
  aloop_future_unref(future);
  aloop_lock_free(lock);
}

static void a_cancelled_waiter_leaves_the_line(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *futures[3];
  take(lock);
  wait_in_line(lock, futures, 3);
  assert_int_equal(aloop_future_cancel(futures[0]), 1);
  assert_int_equal(aloop_future_cancel(futures[2]), 1);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_int_equal(aloop_future_result(futures[1]), 0);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_false(aloop_lock_locked(lock));
  release(futures, 3);
  aloop_lock_free(lock);
}

static void a_lock_that_nobody_reads_goes_to_the_next(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *futures[2];
  take(lock);
  wait_in_line(lock, futures, 2);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_false(aloop_future_done(futures[1]));
  aloop_future_unref(futures[0]);
  assert_int_equal(aloop_future_result(futures[1]), 0);
  aloop_future_unref(futures[1]);
  assert_int_equal(aloop_lock_release(lock), 0);
  aloop_future_detach(aloop_lock_acquire(lock));
  assert_false(aloop_lock_locked(lock));
  aloop_lock_free(lock);
}

static void a_lock_handed_to_a_cancelled_task_goes_to_the_next(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *futures[2];
  take(lock);
  wait_in_line(lock, futures, 2);
  assert_int_equal(aloop_lock_release(lock), 0);
  aloop__future_forsake(futures[0]);
  assert_int_equal(aloop_future_result(futures[1]), 0);
  aloop__future_forsake(futures[1]);
  assert_true(aloop_lock_locked(lock));
  release(futures, 2);
  aloop_lock_free(lock);
}

static void many_detached_waiters_do_not_nest(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  take(lock);
  for (int i = 0; i < 100000; i++) aloop_future_detach(aloop_lock_acquire(lock));
  aloop_future_t *last = aloop_lock_acquire(lock);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_int_equal(aloop_future_result(last), 0);
  aloop_future_unref(last);
  aloop_lock_free(lock);
}

static void a_time_limit_gives_the_place_up(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  aloop_lock_t *lock = new_lock(env);
  take(lock);
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_wait_for(aloop_lock_acquire(lock), ALOOP_SECONDS(1))),
      ALOOP_ETIMEDOUT);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_false(aloop_lock_locked(lock));
  aloop_lock_free(lock);
}

static void a_lock_is_had_through_other_futures(void **state) {
  env_t *env = *state;
  aloop_lock_t *lock = new_lock(env);
  take(lock);
  aloop_future_t *limited = aloop_wait_for(aloop_lock_acquire(lock), ALOOP_SECONDS(100));
  aloop_future_t *shielded = aloop_shield(aloop_lock_acquire(lock));
  assert_int_equal(aloop_lock_release(lock), 0);
  run_turn(env->loop);
  assert_int_equal(aloop_lock_release(lock), ALOOP_EPERM);
  assert_int_equal(aloop_future_result(limited), 0);
  assert_int_equal(aloop_future_result(limited), 0);
  assert_int_equal(aloop_lock_release(lock), 0);
  run_turn(env->loop);
  aloop_future_unref(shielded);
  aloop_future_unref(limited);
  assert_false(aloop_lock_locked(lock));
  aloop_lock_free(lock);
}

static void freeing_a_lock_ends_the_wait(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *futures[2];
  take(lock);
  wait_in_line(lock, futures, 2);
  aloop_lock_free(lock);
  for (int i = 0; i < 2; i++) {
    assert_true(aloop_future_cancelled(futures[i]));
    assert_string_equal(aloop_future_message(futures[i]), "the lock was freed");
  }
  release(futures, 2);
}

static void a_promise_outlives_a_freed_lock(void **state) {
  aloop_lock_t *lock = new_lock(*state);
  aloop_future_t *read = aloop_lock_acquire(lock);
  aloop_lock_free(lock);
  assert_int_equal(aloop_future_result(read), 0);
  aloop_future_unref(read);
  lock = new_lock(*state);
  aloop_future_t *dropped = aloop_lock_acquire(lock);
  aloop_lock_free(lock);
  aloop_future_unref(dropped);
  aloop_lock_free(NULL);
}

static void a_closed_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  aloop_lock_t *lock = new_lock(env), *promised = new_lock(env);
  aloop_future_t *waiting, *done = aloop_lock_acquire(promised);
  take(lock);
  wait_in_line(lock, &waiting, 1);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(aloop_future_result(waiting), ALOOP_ECANCELED);
  assert_int_equal(aloop_lock_release(lock), 0);
  assert_false(aloop_lock_locked(lock));
  aloop_future_unref(waiting);
  aloop_future_unref(done);
  assert_false(aloop_lock_locked(promised));
  aloop_lock_free(promised);
  aloop_lock_free(lock);
}

static void objects_outlive_their_loop(void **state) {
  env_t *env = *state;
  aloop_lock_t *lock = new_lock(env);
  aloop_future_t *done = aloop_lock_acquire(lock);
  aloop_free(env->loop);
  env->loop = NULL;
  aloop_future_unref(done);
  aloop_lock_free(lock);
}

static void find_lock(void *arg, const char *text) {
  *(bool *)arg |= strstr(text, "lock held, 2 waiting") == text;
}

static void the_dump_tells_of_locks(void **state) {
  env_t *env = *state;
  aloop_lock_t *lock = new_lock(env);
  aloop_future_t *futures[2];
  bool found = false;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  take(lock);
  wait_in_line(lock, futures, 2);
  assert_int_equal(aloop_dump(env->loop, find_lock, &found), 0);
  assert_true(found);
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.sync_objects, 1);
  aloop_lock_free(lock);
  release(futures, 2);
}

static void scenario(env_t *env) {
  aloop_lock_t *lock;
  if (aloop_lock_new(env->loop, &lock) < 0) return;
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = aloop_lock_acquire(lock);
  for (int i = 0; i < 3; i++) {
    if (futures[i] == NULL) continue;
    assert_int_equal(aloop_future_result(futures[i]), 0);
    assert_int_equal(aloop_lock_release(lock), 0);
    aloop_future_unref(futures[i]);
  }
  assert_false(aloop_lock_locked(lock));
  aloop_lock_free(lock);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(a_free_lock_is_acquired_at_once), T(waiters_get_it_in_their_order),
      T(nobody_overtakes_the_next_in_line), T(a_promised_lock_is_nobodys_to_release),
      T(a_cancelled_waiter_leaves_the_line), T(a_lock_that_nobody_reads_goes_to_the_next),
      T(a_lock_handed_to_a_cancelled_task_goes_to_the_next), T(many_detached_waiters_do_not_nest),
      T(a_time_limit_gives_the_place_up), T(a_lock_is_had_through_other_futures),
      T(freeing_a_lock_ends_the_wait), T(a_promise_outlives_a_freed_lock), T(a_closed_loop_ends_the_wait),
      T(objects_outlive_their_loop), T(the_dump_tells_of_locks), T(running_out_of_memory))
