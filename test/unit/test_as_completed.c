/* SPDX-License-Identifier: MIT
 *
 * as_completed: futures in the order in which they end.
 */
#include "harness.h"

#include "core/loop.h"
#include "future/future.h"

enum { COUNT = 4 };

/* Futures of which the test keeps a reference. */
static aloop_as_completed_t *begin(env_t *env, aloop_future_t *futures[COUNT], int64_t timeout) {
  aloop_as_completed_t *all;
  for (int i = 0; i < COUNT; i++) futures[i] = aloop_future_ref(aloop_future_new(env->loop));
  assert_int_equal(aloop_as_completed_new(env->loop, futures, COUNT, timeout, &all), 0);
  return all;
}

static void end(env_t *env, aloop_future_t *future, int64_t value) {
  assert_int_equal(aloop_future_set_value(future, value), 0);
  run_turn(env->loop);
}

static void release(aloop_future_t *futures[COUNT]) {
  for (int i = 0; i < COUNT; i++) aloop_future_unref(futures[i]);
}

static void assert_next(aloop_future_t *next, aloop_future_t *future, int64_t index) {
  aloop_future_t *got = NULL;
  assert_int_equal(aloop_future_result(next), index);
  assert_int_equal(aloop_future_take_ptr(next, &got), 0);
  assert_ptr_equal(got, future);
  aloop_future_unref(got);
  aloop_future_unref(next);
}

static void assert_ends(aloop_future_t *future, int64_t result) {
  assert_int_equal(aloop_future_result(future), result);
  aloop_future_unref(future);
}

static void they_are_given_in_the_order_of_their_ends(void **state) {
  env_t *env = *state;
  static const int order[COUNT] = {2, 0, 3, 1};
  aloop_future_t *futures[COUNT], *next[COUNT];
  aloop_as_completed_t *all = begin(env, futures, ALOOP_FOREVER);
  end(env, futures[order[0]], 0);
  for (int i = 0; i < COUNT; i++) next[i] = aloop_as_completed_next(all);
  assert_true(aloop_future_done(next[0]));
  for (int i = 1; i < COUNT; i++) {
    assert_false(aloop_future_done(next[i]));
    end(env, futures[order[i]], 0);
  }
  assert_ends(aloop_as_completed_next(all), ALOOP_ENOENT);
  for (int i = 0; i < COUNT; i++) assert_next(next[i], futures[order[i]], order[i]);
  assert_ends(aloop_as_completed_next(all), ALOOP_ENOENT);
  release(futures);
  aloop_as_completed_free(all);
}

static void none_is_given_of_none(void **state) {
  env_t *env = *state;
  aloop_as_completed_t *all;
  assert_int_equal(aloop_as_completed_new(env->loop, NULL, 0, ALOOP_FOREVER, &all), 0);
  assert_ends(aloop_as_completed_next(all), ALOOP_ENOENT);
  aloop_as_completed_free(all);
  aloop_as_completed_free(NULL);
}

static void those_that_failed_are_given_too(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  aloop_as_completed_t *all = begin(env, futures, ALOOP_FOREVER);
  aloop_future_set_error(futures[1], ALOOP_EIO, "mine");
  aloop_future_cancel(futures[0]);
  run_turn(env->loop);
  assert_next(aloop_as_completed_next(all), futures[1], 1);
  assert_next(aloop_as_completed_next(all), futures[0], 0);
  assert_int_equal(aloop_future_result(futures[1]), ALOOP_EIO);
  aloop_as_completed_free(all);
  release(futures);
}

static void a_next_that_is_dropped_takes_nothing(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  aloop_as_completed_t *all = begin(env, futures, ALOOP_FOREVER);
  aloop_future_t *first = aloop_as_completed_next(all), *second = aloop_as_completed_next(all);
  aloop_future_t *third = aloop_as_completed_next(all);
  aloop_future_cancel(first);
  end(env, futures[3], 0);
  assert_true(aloop_future_done(second));
  aloop__future_forsake(second);
  assert_next(third, futures[3], 3);
  aloop_future_unref(first);
  aloop_future_unref(second);
  for (int i = 0; i < COUNT - 1; i++) {
    end(env, futures[i], 0);
    assert_next(aloop_as_completed_next(all), futures[i], i);
  }
  assert_ends(aloop_as_completed_next(all), ALOOP_ENOENT);
  aloop_as_completed_free(all);
  release(futures);
}

static void a_time_limit_fails_for_each_that_is_left(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  aloop_future_t *futures[COUNT];
  aloop_as_completed_t *all = begin(env, futures, ALOOP_SECONDS(1));
  end(env, futures[2], 0);
  end(env, futures[1], 0);
  assert_next(aloop_as_completed_next(all), futures[2], 2);
  aloop_future_t *given = aloop_as_completed_next(all), *waiting = aloop_as_completed_next(all);
  assert_int_equal(run_future(env->loop, waiting), ALOOP_ETIMEDOUT);
  aloop_future_unref(waiting);
  assert_next(given, futures[1], 1);
  assert_ends(aloop_as_completed_next(all), ALOOP_ETIMEDOUT);
  assert_ends(aloop_as_completed_next(all), ALOOP_ENOENT);
  assert_false(aloop_future_done(futures[0]));
  end(env, futures[0], 0);
  assert_ends(aloop_as_completed_next(all), ALOOP_ENOENT);
  aloop_as_completed_free(all);
  release(futures);
}

static void freeing_it_lets_the_futures_go_on(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  aloop_as_completed_t *all = begin(env, futures, ALOOP_FOREVER);
  aloop_future_set_value(futures[0], 0);
  aloop_future_t *waiting = aloop_as_completed_next(all);
  aloop_as_completed_free(all);
  assert_ends(waiting, ALOOP_ECANCELED);
  run_turn(env->loop);
  assert_false(aloop_future_done(futures[1]));
  release(futures);
}

static void a_promise_outlives_it(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  aloop_as_completed_t *all = begin(env, futures, ALOOP_FOREVER);
  end(env, futures[0], 0);
  aloop_future_t *next = aloop_as_completed_next(all);
  aloop_as_completed_free(all);
  assert_next(next, futures[0], 0);
  release(futures);
}

static void a_closed_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  aloop_as_completed_t *all = begin(env, futures, ALOOP_SECONDS(1));
  aloop_future_t *waiting = aloop_as_completed_next(all);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_ends(waiting, ALOOP_ECANCELED);
  aloop_as_completed_free(all);
  release(futures);
}

static void a_missing_future_cancels_the_others(void **state) {
  env_t *env = *state;
  aloop_as_completed_t *all = NULL;
  aloop_future_t *futures[2] = {aloop_future_ref(aloop_future_new(env->loop)), NULL};
  assert_int_equal(aloop_as_completed_new(env->loop, futures, 2, ALOOP_FOREVER, &all), ALOOP_ENOMEM);
  assert_null(all);
  assert_true(aloop_future_cancelled(futures[0]));
  aloop_future_unref(futures[0]);
}

static void scenario(env_t *env) {
  aloop_as_completed_t *all;
  aloop_future_t *futures[2] = {aloop_sleep(env->loop, 2), aloop_sleep(env->loop, 1)};
  if (aloop_as_completed_new(env->loop, futures, 2, ALOOP_SECONDS(1), &all) < 0) return;
  for (int i = 0; i < 2; i++) {
    aloop_future_t *next = aloop_as_completed_next(all), *got = NULL;
    if (next == NULL || run_future(env->loop, next) < 0) {
      aloop_future_unref(next);
      continue;
    }
    assert_int_equal(aloop_future_take_ptr(next, &got), 0);
    assert_true(aloop_future_done(got));
    aloop_future_unref(got);
    aloop_future_unref(next);
  }
  aloop_as_completed_free(all);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(they_are_given_in_the_order_of_their_ends), T(none_is_given_of_none),
      T(those_that_failed_are_given_too), T(a_next_that_is_dropped_takes_nothing),
      T(a_time_limit_fails_for_each_that_is_left), T(freeing_it_lets_the_futures_go_on),
      T(a_promise_outlives_it), T(a_closed_loop_ends_the_wait), T(a_missing_future_cancels_the_others),
      T(running_out_of_memory))
