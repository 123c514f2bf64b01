/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on executors, thread pools and jobs: see misuse.h for what is checked with each. threads: yes
 */
#include "jobs.h"
#include "misuse.h"

#include <string.h>

static int64_t do_nothing(void *arg) {
  (void)arg;
  return 0;
}

/* Fails and is released; counts whether the argument was destroyed. */
static aloop_future_t *submit_with(misuse_t *m, aloop_job_options_t options, size_t size) {
  options.size = size;
  return aloop_submit(m->loop, NULL, &options);
}

#define SUBMIT(...) submit_with(m, (aloop_job_options_t){__VA_ARGS__}, sizeof(aloop_job_options_t))

static void jobs(misuse_t *m) {
  counted_t counted = {.value = 1};
  MISTAKE_OF_FUTURE(aloop_run_in_executor(m->loop, NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_submit(m->loop, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SUBMIT(.fn = NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SUBMIT(.fn = do_nothing, .lane = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SUBMIT(.fn = do_nothing, .lane = ALOOP_LANES), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(submit_with(m, (aloop_job_options_t){.fn = do_nothing}, 0), ALOOP_EINVAL);
  assert_int_equal(counted.destroyed, 0);
  MISTAKE_OF_FUTURE(SUBMIT(.fn = NULL, .arg = &counted, .destroy = destroy_counted), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SUBMIT(.fn = do_nothing, .lane = 9, .arg = &counted, .destroy = destroy_counted),
                    ALOOP_EINVAL);
  assert_int_equal(counted.destroyed, 2);
  MISTAKE(aloop_run_in_executor(NULL, NULL, do_nothing, NULL), 0);
  MISTAKE(aloop_submit(NULL, NULL, NULL), 0);
  MISTAKE_OF_VOID(aloop_job_run(NULL));
  MISTAKE_OF_VOID(aloop_job_drop(NULL, ALOOP_EIO));
}

static void a_dead_executor(misuse_t *m) {
  shelf_t shelf;
  aloop_executor_t *executor = make_shelf(&shelf);
  assert_int_equal(aloop_executor_shutdown(executor, 0, 0), 0);
  ORDINARY(aloop_executor_shutdown(executor, ALOOP_FOREVER, 0), 0);
  MISTAKE_OF_FUTURE(aloop_run_in_executor(m->loop, executor, do_nothing, NULL), ALOOP_ECLOSED);
  aloop_executor_unref(executor);
}

static void executors(misuse_t *m) {
  shelf_t shelf;
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_executor_table_t empty = {.size = sizeof empty}, unsized = shelf_table;
  aloop_executor_stats_t stats = {.size = 0};
  unsized.size = 0;
  MISTAKE(aloop_executor_new(NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_executor_new(&shelf_table, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_executor_new(&empty, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_executor_new(&unsized, NULL, OUT), ALOOP_EINVAL);
  ORDINARY(aloop_executor_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_executor_unref(NULL));
  MISTAKE(aloop_executor_shutdown(NULL, 0, 0), ALOOP_EINVAL);
  MISTAKE(aloop_executor_shutdown(executor, -2, 0), ALOOP_EINVAL);
  MISTAKE(aloop_executor_shutdown(executor, 0, 2), ALOOP_EINVAL);
  assert_int_equal(shelf.shutdowns, 0);
  MISTAKE(aloop_executor_stats(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_executor_stats(executor, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_executor_stats(executor, &stats), ALOOP_EINVAL);
  stats.size = sizeof stats;
  ORDINARY(aloop_executor_stats(executor, &stats), ALOOP_ENOTSUP);
  aloop_executor_unref(executor);
}

static int make_pool_with(aloop_thread_pool_options_t options, size_t size) {
  aloop_executor_t *none = NULL;
  options.size = size;
  int rc = aloop_thread_pool_new(&options, &none);
  assert_null(none);
  return rc;
}

#define POOL(...)                                                                                              \
  make_pool_with((aloop_thread_pool_options_t){__VA_ARGS__}, sizeof(aloop_thread_pool_options_t))

static void pools(misuse_t *m) {
  shelf_t shelf;
  aloop_executor_t *pool = make_pool(1), *shelf_executor = make_shelf(&shelf);
  MISTAKE(aloop_thread_pool_new(NULL, NULL), ALOOP_EINVAL);
  MISTAKE(make_pool_with((aloop_thread_pool_options_t){.name = "x"}, 0), ALOOP_EINVAL);
  MISTAKE(POOL(.threads = {-1, 1, 1}), ALOOP_EINVAL);
  MISTAKE(POOL(.threads = {1, 1, -1}), ALOOP_EINVAL);
  MISTAKE(POOL(.idle_timeout = -2), ALOOP_EINVAL);
  MISTAKE(POOL(.stack_size = 1), ALOOP_EINVAL);
  MISTAKE(aloop_thread_pool_resize(NULL, 0, 1), ALOOP_EINVAL);
  MISTAKE(aloop_thread_pool_resize(pool, -1, 1), ALOOP_EINVAL);
  MISTAKE(aloop_thread_pool_resize(pool, ALOOP_LANES, 1), ALOOP_EINVAL);
  MISTAKE(aloop_thread_pool_resize(pool, 0, -1), ALOOP_EINVAL);
  MISTAKE(aloop_thread_pool_resize(shelf_executor, 0, 1), ALOOP_ENOTSUP);
  aloop_executor_unref(shelf_executor);
  end_pool(pool);
}

static void default_executors(misuse_t *m) {
  MISTAKE(aloop_set_default_executor(NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_get_default_executor(NULL), 0);
  MISTAKE(aloop_shutdown_default_executor(NULL, 0), 0);
  MISTAKE_OF_FUTURE(aloop_shutdown_default_executor(m->loop, -2), ALOOP_EINVAL);
  aloop_future_detach(aloop_shutdown_default_executor(m->loop, 0));
  MISTAKE_OF_FUTURE(aloop_run_in_executor(m->loop, NULL, do_nothing, NULL), ALOOP_ECLOSED);
  ORDINARY(aloop_get_default_executor(m->loop), 0);
}

static void closed(misuse_t *m) {
  counted_t counted = {.value = 1};
  aloop_job_options_t options = {
      .size = sizeof options, .fn = return_counted, .arg = &counted, .destroy = destroy_counted};
  aloop_close(m->loop);
  MISTAKE_OF_FUTURE(aloop_run_in_executor(m->loop, NULL, do_nothing, NULL), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_submit(m->loop, NULL, &options), ALOOP_ECLOSED);
  assert_int_equal(counted.destroyed, 1);
  MISTAKE(aloop_set_default_executor(m->loop, NULL), ALOOP_ECLOSED);
  MISTAKE(aloop_get_default_executor(m->loop), 0);
  MISTAKE_OF_FUTURE(aloop_shutdown_default_executor(m->loop, 0), ALOOP_ECLOSED);
}

static void foreign(misuse_t *m) {
  MISTAKE(aloop_run_in_executor(m->loop, NULL, do_nothing, NULL), 0);
  MISTAKE(aloop_submit(m->loop, NULL, NULL), 0);
  MISTAKE(aloop_set_default_executor(m->loop, NULL), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_get_default_executor(m->loop), 0);
  MISTAKE(aloop_shutdown_default_executor(m->loop, 0), 0);
}

static void wrong_jobs(void **state) {
  in_both_modes(*state, jobs);
  in_both_modes(*state, a_dead_executor);
}

static void wrong_executors(void **state) {
  in_both_modes(*state, executors);
}

static void wrong_pools(void **state) {
  in_both_modes(*state, pools);
}

static void wrong_default_executors(void **state) {
  in_both_modes(*state, default_executors);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, closed);
}

static void another_thread(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true); /* only debug mode notices */
  misuse_in_thread(&m, foreign);
  misuse_end(&m);
}

TESTS(T(wrong_jobs), T(wrong_executors), T(wrong_pools), T(wrong_default_executors), T(closed_loops),
      T(another_thread))
