/* SPDX-License-Identifier: MIT
 *
 * Executors as tables: an executor of the program's own, its references and its end.
 */
#include "jobs.h"

#include <string.h>

static void jobs_reach_an_executor_of_the_programs_own(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  aloop_executor_t *executor = make_shelf(&shelf);
  int number = 3;
  aloop_job_options_t options = {
      .size = sizeof options, .fn = return_int, .arg = &number, .lane = ALOOP_LANE_FILE};
  aloop_future_t *future = aloop_submit(env->loop, executor, &options);
  assert_int_equal(shelf.count, 1);
  assert_int_equal(shelf.lane, ALOOP_LANE_FILE);
  shelf_run(&shelf, 0);
  assert_int_equal(run_future(env->loop, future), 3);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
  assert_int_equal(shelf.destroyed, 1);
}

static void a_dropped_job_fails(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = submit_counted(env->loop, executor, &counted);
  aloop_job_drop(shelf.jobs[0], ALOOP_EIO);
  assert_int_equal(run_future(env->loop, future), ALOOP_EIO);
  assert_int_equal(counted.destroyed, 1);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

static void a_job_that_is_not_taken_fails_at_once(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  shelf.refuse = ALOOP_EAGAIN;
  aloop_future_t *future = submit_counted(env->loop, executor, &counted);
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_result(future), ALOOP_EAGAIN);
  assert_int_equal(counted.destroyed, 1);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

static void cancelling_takes_the_job_back(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = submit_counted(env->loop, executor, &counted);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(shelf.cancelled, 1);
  assert_int_equal(counted.destroyed, 1);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

static void a_shut_down_executor_refuses(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_set_debug(env->loop, true);
  assert_int_equal(aloop_executor_shutdown(executor, 5, ALOOP_CANCEL_QUEUED), 0);
  assert_int_equal(shelf.timeout, 5);
  assert_int_equal(shelf.flags, ALOOP_CANCEL_QUEUED);
  aloop_future_t *future = submit_counted(env->loop, executor, &counted);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  assert_non_null(strstr(aloop_future_message(future), "shelf: the executor is shut down"));
  assert_int_equal(env->reports, 1);
  assert_int_equal(counted.destroyed, 1);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
  assert_int_equal(shelf.shutdowns, 1);
}

static void the_last_reference_shuts_down(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  int number = 3;
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = aloop_run_in_executor(env->loop, executor, return_int, &number);
  aloop_executor_unref(executor);
  assert_int_equal(shelf.shutdowns, 0); /* the job has a reference */
  shelf_run(&shelf, 0);
  assert_int_equal(run_future(env->loop, future), 3);
  assert_int_equal(shelf.shutdowns, 1);
  assert_int_equal(shelf.destroyed, 1);
  aloop_future_unref(future);
}

static void nonsense_is_refused(void **state) {
  (void)state;
  aloop_executor_t *executor;
  aloop_executor_table_t empty = {.size = sizeof empty};
  aloop_executor_table_t unsized = shelf_table;
  aloop_executor_stats_t stats = {.size = sizeof stats};
  shelf_t shelf;
  unsized.size = 0;
  assert_int_equal(aloop_executor_new(NULL, NULL, &executor), ALOOP_EINVAL);
  assert_int_equal(aloop_executor_new(&shelf_table, NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_executor_new(&empty, NULL, &executor), ALOOP_EINVAL);
  assert_int_equal(aloop_executor_new(&unsized, NULL, &executor), ALOOP_EINVAL);
  executor = make_shelf(&shelf);
  assert_int_equal(aloop_executor_shutdown(NULL, 0, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_executor_shutdown(executor, -2, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_executor_shutdown(executor, 0, 2), ALOOP_EINVAL);
  assert_int_equal(aloop_executor_stats(executor, &stats), ALOOP_ENOTSUP);
  assert_int_equal(aloop_executor_stats(NULL, &stats), ALOOP_EINVAL);
  assert_int_equal(aloop_executor_stats(executor, NULL), ALOOP_EINVAL);
  stats.size = 0;
  assert_int_equal(aloop_executor_stats(executor, &stats), ALOOP_EINVAL);
  aloop_executor_unref(executor);
  aloop_executor_unref(NULL);
  assert_null(aloop_executor_ref(NULL));
}

TESTS(T(jobs_reach_an_executor_of_the_programs_own), T(a_dropped_job_fails),
      T(a_job_that_is_not_taken_fails_at_once), T(cancelling_takes_the_job_back),
      T(a_shut_down_executor_refuses), T(the_last_reference_shuts_down), T(nonsense_is_refused))
