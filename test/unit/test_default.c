/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * The default executor of a loop: made, set, shut down.
 */
#include "jobs.h"

static void it_is_made_on_first_use(void **state) {
  env_t *env = *state;
  aloop_executor_t *executor = aloop_get_default_executor(env->loop);
  assert_non_null(executor);
  assert_ptr_equal(aloop_get_default_executor(env->loop), executor);
}

static void another_can_be_set(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  aloop_executor_t *executor = make_shelf(&shelf);
  int number = 1;
  assert_int_equal(aloop_set_default_executor(env->loop, executor), 0);
  assert_ptr_equal(aloop_get_default_executor(env->loop), executor);
  aloop_future_t *future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(shelf.count, 1);
  shelf_run(&shelf, 0);
  assert_int_equal(run_future(env->loop, future), 1);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
  assert_int_equal(shelf.destroyed, 0);
  assert_int_equal(aloop_set_default_executor(env->loop, NULL), 0);
  assert_int_equal(shelf.destroyed, 1);
  future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(run_future(env->loop, future), 1);
  aloop_future_unref(future);
}

static void shutting_down_waits_for_jobs(void **state) {
  env_t *env = *state;
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *job = aloop_run_in_executor(env->loop, NULL, pass_gate, &gate);
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  aloop_future_t *late = aloop_run_in_executor(env->loop, NULL, pass_gate, &gate);
  assert_int_equal(aloop_future_result(late), ALOOP_ECLOSED);
  gate_await(&gate, 1);
  assert_false(aloop_future_done(end));
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, end), 0);
  assert_int_equal(run_future(env->loop, job), 7);
  assert_null(aloop_get_default_executor(env->loop));
  aloop_future_unref(job);
  aloop_future_unref(end);
  aloop_future_unref(late);
}

static void shutting_down_waits_no_longer_than_told(void **state) {
  env_t *env = *state;
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *job = aloop_run_in_executor(env->loop, NULL, pass_gate, &gate);
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_MILLIS(5));
  assert_int_equal(run_future(env->loop, end), ALOOP_ETIMEDOUT);
  assert_false(aloop_future_done(job));
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, job), 7);
  aloop_future_unref(job);
  aloop_future_unref(end);
}

static void with_no_executor_shutting_down_is_done_at_once(void **state) {
  env_t *env = *state;
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  assert_int_equal(aloop_future_result(end), 0);
  aloop_future_unref(end);
  assert_null(aloop_get_default_executor(env->loop));
  assert_int_equal(aloop_set_default_executor(env->loop, NULL), 0);
  assert_non_null(aloop_get_default_executor(env->loop));
}

TESTS(T(it_is_made_on_first_use), T(another_can_be_set), T(shutting_down_waits_for_jobs),
      T(shutting_down_waits_no_longer_than_told), T(with_no_executor_shutting_down_is_done_at_once))
