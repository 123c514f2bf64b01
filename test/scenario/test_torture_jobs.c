/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * Jobs and thread pools when memory and threads are short: the n-th allocation of what belongs to no loop fails,
 * or all from the n-th on, then the n-th thread cannot be started. Whatever happens, each argument is destroyed
 * once and each future ends.
 *
 * wraps: realloc pthread_create pthread_mutex_init pthread_cond_init
 */
#include "jobs.h"

#include <errno.h>
#include <stdlib.h>

static struct {
  atomic_long calls;
  atomic_long fail_at, fail_from; /* 0: none */
  atomic_bool no_threads;
} faults;

static bool strikes(void) {
  long call = atomic_fetch_add(&faults.calls, 1) + 1;
  return call == faults.fail_at || (faults.fail_from > 0 && call >= faults.fail_from);
}

/* What they fail with means something; what is not counted goes through. */
void *__real_realloc(void *block, size_t bytes);
void *__wrap_realloc(void *block, size_t bytes);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg);
int __real_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int __real_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);

void *__wrap_realloc(void *block, size_t bytes) {
  return strikes() ? NULL : __real_realloc(block, bytes);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg) {
  return strikes() || faults.no_threads ? EAGAIN : __real_pthread_create(thread, attributes, run, arg);
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes) {
  return strikes() ? ENOMEM : __real_pthread_mutex_init(mutex, attributes);
}

int __wrap_pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes) {
  return strikes() ? ENOMEM : __real_pthread_cond_init(condition, attributes);
}

static bool is_expected(int64_t error) {
  return error == ALOOP_ENOMEM || error == ALOOP_EAGAIN || error == ALOOP_ECLOSED;
}

enum { JOBS = 4 };

static void submit_all(env_t *env, aloop_executor_t *pool, counted_t *counted, aloop_future_t **futures) {
  for (int i = 0; i < JOBS; i++) {
    counted[i].value = i;
    futures[i] = submit_counted(env->loop, pool, &counted[i]);
    if (futures[i] == NULL) destroy_counted(&counted[i]); /* it is still ours */
  }
}

static void end_all(env_t *env, counted_t *counted, aloop_future_t **futures) {
  for (int i = 0; i < JOBS; i++) {
    if (futures[i] == NULL) continue;
    int64_t result = run_future(env->loop, futures[i]);
    if (result != i && !is_expected(result)) fail_msg("job %d: %s", i, aloop_error_name(result));
    aloop_future_unref(futures[i]);
  }
  for (int i = 0; i < JOBS; i++) assert_int_equal(counted[i].destroyed, 1);
}

static void play_default_pool(env_t *env) {
  counted_t counted[JOBS] = {{0}};
  aloop_future_t *futures[JOBS];
  submit_all(env, NULL, counted, futures);
  aloop_future_t *end = aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER);
  end_all(env, counted, futures);
  if (end == NULL) return;
  int64_t result = run_future(env->loop, end);
  assert_true(result == 0 || is_expected(result));
  aloop_future_unref(end);
}

static void play_pool(env_t *env) {
  counted_t counted[JOBS] = {{0}};
  aloop_future_t *futures[JOBS];
  aloop_thread_pool_options_t options = {.size = sizeof options, .threads = {2, 1, 1}};
  aloop_executor_t *pool;
  int rc = aloop_thread_pool_new(&options, &pool);
  if (rc < 0) {
    assert_int_equal(rc, ALOOP_ENOMEM);
    return;
  }
  submit_all(env, pool, counted, futures);
  end_all(env, counted, futures);
  end_pool(pool);
}

/* Returns whether it came to the n-th call. What the loop allocates counts, too. */
static bool play_once(env_t *env, void (*play)(env_t *env), long n, bool all) {
  env_loop(env, (aloop_options_t){.poller = "poll", .debug = -1});
  aloop_future_unref(aloop_future_new(env->loop));
  atomic_store(&faults.calls, 0);
  faults.fail_at = all ? 0 : n;
  faults.fail_from = all ? n : 0;
  play(env);
  bool reached = atomic_load(&faults.calls) >= n;
  faults.fail_at = faults.fail_from = 0;
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(env->live, 0);
  return reached;
}

static void play_all(env_t *env, void (*play)(env_t *env)) {
  for (int all = 0; all < 2; all++) {
    long n = 1;
    while (play_once(env, play, n, all)) n++;
    assert_true(n > 5);
  }
}

static void the_default_pool_survives(void **state) {
  play_all(*state, play_default_pool);
}

static void a_pool_survives(void **state) {
  play_all(*state, play_pool);
}

static void without_a_thread_a_job_is_refused(void **state) {
  env_t *env = *state;
  counted_t counted = {.value = 1};
  aloop_executor_t *pool = make_pool(1);
  faults.no_threads = true;
  aloop_future_t *future = submit_counted(env->loop, pool, &counted);
  assert_int_equal(aloop_future_result(future), ALOOP_EAGAIN);
  assert_int_equal(counted.destroyed, 1);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).refused, 1);
  aloop_future_unref(future);
  future = aloop_shutdown_default_executor(env->loop, 0); /* there is none */
  assert_int_equal(aloop_future_result(future), 0);
  aloop_future_unref(future);
  assert_int_equal(aloop_set_default_executor(env->loop, pool), 0);
  future = aloop_shutdown_default_executor(env->loop, 0);
  assert_int_equal(aloop_future_result(future), ALOOP_EAGAIN);
  aloop_future_unref(future);
  faults.no_threads = false;
  int number = 5; /* nothing was shut down */
  future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(run_future(env->loop, future), 5);
  aloop_future_unref(future);
  end_pool(pool);
}

static void one_thread_does_the_work_of_two(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(2);
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *futures[3];
  futures[0] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  gate_await(&gate, 1);
  faults.no_threads = true;
  for (int i = 1; i < 3; i++) futures[i] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  gate_open(&gate);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 7);
    aloop_future_unref(futures[i]);
  }
  faults.no_threads = false;
  end_pool(pool);
}

TESTS(T(the_default_pool_survives), T(a_pool_survives), T(without_a_thread_a_job_is_refused),
      T(one_thread_does_the_work_of_two))
