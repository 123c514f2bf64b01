/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on process pools: see misuse.h for what is checked with each. threads: yes
 */
#include "misuse.h"

static int64_t nothing(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  return 0;
}

static int64_t plain(void *arg) {
  (void)arg;
  return 0;
}

/* A pool with these options; none is expected to come. */
static int make(misuse_t *m, aloop_process_pool_options_t options, size_t size) {
  aloop_executor_t *pool = OUT;
  options.size = size;
  int rc = aloop_process_pool_new(&options, &pool);
  if (pool != OUT) aloop_executor_unref(pool);
  return rc;
}

#define NEW(...) make(m, (aloop_process_pool_options_t){__VA_ARGS__}, sizeof(aloop_process_pool_options_t))

static void mistakes_of_making(misuse_t *m) {
  MISTAKE(aloop_process_pool_new(NULL, NULL), ALOOP_EINVAL);
  MISTAKE(make(m, (aloop_process_pool_options_t){0}, 0), ALOOP_EINVAL);
  MISTAKE(make(m, (aloop_process_pool_options_t){0}, sizeof(size_t) + 3), ALOOP_EINVAL);
  MISTAKE(NEW(.workers = -1), ALOOP_EINVAL);
  MISTAKE(NEW(.workers = 1 << 20), ALOOP_EINVAL);
  MISTAKE(NEW(.max_jobs = -1), ALOOP_EINVAL);
  MISTAKE(aloop_reply_add(NULL, "x", 1), ALOOP_EINVAL);
}

static void mistakes_of_running(misuse_t *m) {
  aloop_executor_t *pool, *threads;
  assert_int_equal(aloop_process_pool_new(NULL, &pool), 0);
  assert_int_equal(aloop_thread_pool_new(NULL, &threads), 0);
  MISTAKE_OF_FUTURE(aloop_run_in_process(m->loop, NULL, nothing, "x", 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_run_in_process(m->loop, threads, nothing, "x", 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_run_in_process(m->loop, pool, NULL, "x", 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_run_in_process(m->loop, pool, nothing, NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_run_in_process(NULL, pool, nothing, "x", 1), 0);
  ORDINARY(aloop_run_in_process(m->loop, pool, nothing, "x", SIZE_MAX), 0); /* out of memory */
  MISTAKE_OF_FUTURE(aloop_run_in_executor(m->loop, pool, plain, NULL), ALOOP_ENOTSUP);
  MISTAKE(aloop_set_default_executor(m->loop, pool), ALOOP_EINVAL);
  aloop_executor_unref(threads);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  aloop_executor_unref(pool);
}

static void mistakes_after_the_end(misuse_t *m) {
  aloop_executor_t *pool;
  assert_int_equal(aloop_process_pool_new(NULL, &pool), 0);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  MISTAKE_OF_FUTURE(aloop_run_in_process(m->loop, pool, nothing, "x", 1), ALOOP_ECLOSED);
  aloop_executor_unref(pool);
}

static void in_a_closed_loop(misuse_t *m) {
  aloop_executor_t *pool;
  assert_int_equal(aloop_process_pool_new(NULL, &pool), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE_OF_FUTURE(aloop_run_in_process(m->loop, pool, nothing, "x", 1), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_run_in_process(m->loop, pool, NULL, "x", 1), ALOOP_ECLOSED);
  aloop_executor_unref(pool);
}

static void calls_of_another_thread(misuse_t *m) {
  MISTAKE(aloop_run_in_process(m->loop, m->arg, nothing, "x", 1), 0);
}

static void making_a_pool(void **state) {
  in_both_modes(*state, mistakes_of_making);
}

static void running_a_job(void **state) {
  in_both_modes(*state, mistakes_of_running);
}

static void running_a_job_after_the_end(void **state) {
  in_both_modes(*state, mistakes_after_the_end);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, in_a_closed_loop);
}

static void another_thread(void **state) {
  misuse_t m;
  aloop_executor_t *pool;
  misuse_begin(&m, *state, true);
  assert_int_equal(aloop_process_pool_new(NULL, &pool), 0);
  m.arg = pool;
  misuse_in_thread(&m, calls_of_another_thread);
  aloop_executor_unref(pool);
  misuse_end(&m);
}

TESTS(T(making_a_pool), T(running_a_job), T(running_a_job_after_the_end), T(closed_loops), T(another_thread))
