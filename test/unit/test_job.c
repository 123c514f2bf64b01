/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 * pollers: all
 *
 * Jobs: how they end and who hears of it; arguments that are destroyed exactly once.
 */
#include "jobs.h"

#include <sched.h>

#include "core/loop.h"

static uint64_t live_jobs(env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  return metrics.jobs;
}

static void a_job_returns_its_number(void **state) {
  env_t *env = *state;
  int number = 42;
  aloop_future_t *future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(live_jobs(env), 1);
  assert_int_equal(run_future(env->loop, future), 42);
  assert_int_equal(live_jobs(env), 0);
  aloop_future_unref(future);
}

static void a_job_fails_with_its_code(void **state) {
  env_t *env = *state;
  int number = ALOOP_EIO;
  aloop_future_t *future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(run_future(env->loop, future), ALOOP_EIO);
  aloop_future_unref(future);
}

static void an_owned_argument_becomes_the_object(void **state) {
  env_t *env = *state;
  counted_t counted = {.value = 5};
  counted_t *object;
  aloop_future_t *future = submit_counted(env->loop, NULL, &counted);
  assert_int_equal(run_future(env->loop, future), 5);
  assert_int_equal(aloop_future_result_ptr(future, &object), 0);
  assert_ptr_equal(object, &counted);
  assert_int_equal(counted.destroyed, 0);
  aloop_future_unref(future);
  assert_int_equal(counted.destroyed, 1);
}

static void the_argument_of_a_failed_job_is_destroyed(void **state) {
  env_t *env = *state;
  counted_t counted = {.value = ALOOP_EIO};
  aloop_future_t *future = submit_counted(env->loop, NULL, &counted);
  assert_int_equal(run_future(env->loop, future), ALOOP_EIO);
  assert_int_equal(counted.destroyed, 1);
  aloop_future_unref(future);
  assert_int_equal(counted.destroyed, 1);
}

static void every_job_of_a_flood_ends(void **state) {
  env_t *env = *state;
  enum { JOBS = 5000 };
  static aloop_future_t *futures[JOBS];
  static int numbers[JOBS];
  for (int i = 0; i < JOBS; i++) {
    numbers[i] = i;
    futures[i] = aloop_run_in_executor(env->loop, NULL, return_int, &numbers[i]);
    assert_non_null(futures[i]);
  }
  for (int i = 0; i < JOBS; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), i);
    aloop_future_unref(futures[i]);
  }
  assert_int_equal(live_jobs(env), 0);
}

static void a_waiting_job_is_taken_back(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  counted_t counted = {.value = 1};
  aloop_future_t *first = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  aloop_future_t *second = submit_counted(env->loop, pool, &counted);
  gate_await(&gate, 1);
  assert_int_equal(aloop_future_cancel(second), 1);
  assert_int_equal(counted.destroyed, 1);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).cancelled, 1);
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, first), 7);
  aloop_future_unref(first);
  aloop_future_unref(second);
  end_pool(pool);
}

static void a_running_job_goes_on_unheard(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  counted_t counted = {.value = 1, .gate = &gate};
  aloop_future_t *future = submit_counted(env->loop, pool, &counted);
  gate_await(&gate, 1);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(counted.destroyed, 0);
  assert_int_equal(aloop_future_result(future), ALOOP_ECANCELED);
  aloop_future_unref(future);
  assert_int_equal(live_jobs(env), 1);
  gate_open(&gate);
  while (live_jobs(env) > 0) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  assert_int_equal(counted.destroyed, 1);
  end_pool(pool);
}

static void a_running_job_outlives_its_loop(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(2);
  gate_t gate;
  gate_init(&gate);
  counted_t running = {.value = 1, .gate = &gate};
  counted_t too = {.value = 1, .gate = &gate};
  aloop_future_detach(submit_counted(env->loop, pool, &running));
  aloop_future_detach(submit_counted(env->loop, pool, &too));
  gate_await(&gate, 2);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(env->live, 0);
  assert_int_equal(running.destroyed, 0);
  gate_open(&gate);
  end_pool(pool);
  assert_int_equal(running.destroyed, 1);
  assert_int_equal(too.destroyed, 1);
}

TESTS(T(a_job_returns_its_number), T(a_job_fails_with_its_code), T(an_owned_argument_becomes_the_object),
      T(the_argument_of_a_failed_job_is_destroyed), T(every_job_of_a_flood_ends),
      T(a_waiting_job_is_taken_back), T(a_running_job_goes_on_unheard), T(a_running_job_outlives_its_loop))
