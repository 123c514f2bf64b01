/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * The default executor of a loop: made, set, shut down.
 */
#include "jobs.h"

#include <sched.h>

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

static void a_job_that_runs_long_is_left_alone(void **state) {
  env_t *env = *state;
  gate_t gate;
  gate_init(&gate);
  counted_t counted = {.value = 1, .gate = &gate};
  aloop_future_t *job = submit_counted(env->loop, NULL, &counted);
  gate_await(&gate, 1);
  aloop_close(env->loop);
  assert_int_equal(aloop_future_result(job), ALOOP_ECANCELED);
  aloop_future_unref(job);
  assert_int_equal(counted.destroyed, 0);
  gate_open(&gate);
  while (counted.destroyed == 0) sched_yield();
}

static void a_shared_executor_outlives_a_loop(void **state) {
  env_t *env = *state;
  aloop_t *other;
  aloop_executor_t *pool = make_pool(1);
  int number = 3;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_set_default_executor(env->loop, pool), 0);
  assert_int_equal(aloop_set_default_executor(other, pool), 0);
  aloop_free(other);
  aloop_future_t *future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(run_future(env->loop, future), 3);
  aloop_future_unref(future);
  end_pool(pool);
}

static void shutting_down_a_shared_executor_is_for_all(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  int number = 3;
  assert_int_equal(aloop_set_default_executor(env->loop, pool), 0);
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  aloop_future_t *late = aloop_run_in_executor(env->loop, pool, return_int, &number);
  assert_int_equal(aloop_future_result(late), ALOOP_ECLOSED);
  assert_int_equal(run_future(env->loop, end), 0);
  aloop_future_unref(late);
  aloop_future_unref(end);
  aloop_executor_unref(pool);
}

static void a_new_default_takes_the_place_of_a_dead_one(void **state) {
  env_t *env = *state;
  int number = 3;
  assert_non_null(aloop_get_default_executor(env->loop));
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, end), 0);
  aloop_future_unref(end);
  assert_null(aloop_get_default_executor(env->loop));
  assert_int_equal(aloop_set_default_executor(env->loop, NULL), 0);
  aloop_future_t *future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(run_future(env->loop, future), 3);
  aloop_future_unref(future);
}

static void setting_the_same_executor_again_is_fine(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  aloop_executor_t *executor = make_shelf(&shelf);
  assert_int_equal(aloop_set_default_executor(env->loop, executor), 0);
  aloop_executor_unref(executor);
  assert_int_equal(aloop_set_default_executor(env->loop, aloop_get_default_executor(env->loop)), 0);
  assert_int_equal(shelf.destroyed, 0);
  aloop_close(env->loop);
  assert_int_equal(shelf.destroyed, 1);
}

static void the_wait_for_the_end_can_be_given_up(void **state) {
  env_t *env = *state;
  gate_t gate;
  gate_init(&gate);
  counted_t counted = {.value = 1, .gate = &gate};
  aloop_future_t *job = submit_counted(env->loop, NULL, &counted);
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  assert_int_equal(aloop_future_cancel(end), 1);
  aloop_future_unref(end);
  end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER); /* another one */
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, end), 0);
  assert_int_equal(run_future(env->loop, job), 1);
  aloop_future_unref(job);
  aloop_future_unref(end);
  while (live_jobs(env) > 0) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
}

static void closing_forgets_a_wait_for_the_end(void **state) {
  env_t *env = *state;
  gate_t gate;
  gate_init(&gate);
  counted_t counted = {.value = 1, .gate = &gate};
  aloop_future_detach(submit_counted(env->loop, NULL, &counted));
  gate_await(&gate, 1);
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  aloop_close(env->loop);
  assert_int_equal(aloop_future_result(end), ALOOP_ECANCELED);
  aloop_future_unref(end);
  gate_open(&gate);
  while (counted.destroyed == 0) sched_yield();
}

static int take_nothing(void *state, aloop_job_t *job, int lane) {
  (void)state;
  (void)job;
  (void)lane;
  return ALOOP_EAGAIN;
}

static void close_at_the_end(void *loop) {
  aloop_close(loop);
}

static const aloop_executor_table_t closer = {
    .size = sizeof closer, .name = "closer", .submit = take_nothing, .destroy = close_at_the_end};

static void the_end_of_an_executor_may_close_the_loop(void **state) {
  env_t *env = *state;
  aloop_executor_t *executor;
  assert_int_equal(aloop_executor_new(&closer, env->loop, &executor), 0);
  assert_int_equal(aloop_set_default_executor(env->loop, executor), 0);
  aloop_executor_unref(executor);
  assert_int_equal(aloop_set_default_executor(env->loop, NULL), 0);
  assert_true(aloop_is_closed(env->loop));
}

TESTS(T(the_end_of_an_executor_may_close_the_loop), T(it_is_made_on_first_use), T(another_can_be_set),
      T(shutting_down_waits_for_jobs), T(shutting_down_waits_no_longer_than_told),
      T(with_no_executor_shutting_down_is_done_at_once), T(a_job_that_runs_long_is_left_alone),
      T(a_shared_executor_outlives_a_loop), T(shutting_down_a_shared_executor_is_for_all),
      T(a_new_default_takes_the_place_of_a_dead_one), T(setting_the_same_executor_again_is_fine),
      T(the_wait_for_the_end_can_be_given_up), T(closing_forgets_a_wait_for_the_end))
