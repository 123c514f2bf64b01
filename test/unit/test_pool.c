/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * The thread pool: lanes, limits, its end.
 */
#include "jobs.h"

#include <sched.h>

static aloop_future_t *submit_to(env_t *env, aloop_executor_t *pool, int lane, aloop_job_fn fn, void *arg) {
  const aloop_job_options_t options = {.size = sizeof options, .fn = fn, .arg = arg, .lane = lane};
  return aloop_submit(env->loop, pool, &options);
}

static void lanes_do_not_wait_for_each_other(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  int number = 4;
  aloop_future_t *blocked[4];
  for (int i = 0; i < 4; i++) blocked[i] = submit_to(env, pool, ALOOP_LANE_USER, pass_gate, &gate);
  aloop_future_t *file = submit_to(env, pool, ALOOP_LANE_FILE, return_int, &number);
  aloop_future_t *name = submit_to(env, pool, ALOOP_LANE_DNS, return_int, &number);
  assert_int_equal(run_future(env->loop, file), 4);
  assert_int_equal(run_future(env->loop, name), 4);
  assert_int_equal(gate_arrived(&gate), 1);
  gate_open(&gate);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(run_future(env->loop, blocked[i]), 7);
    aloop_future_unref(blocked[i]);
  }
  aloop_future_unref(file);
  aloop_future_unref(name);
  end_pool(pool);
}

static void as_many_jobs_run_as_there_may_be_threads(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(3);
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *jobs[5];
  for (int i = 0; i < 5; i++) jobs[i] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  gate_await(&gate, 3);
  aloop_lane_stats_t stats = lane_stats(pool, ALOOP_LANE_USER);
  assert_int_equal(stats.running, 3);
  assert_int_equal(stats.queued, 2);
  gate_open(&gate);
  for (int i = 0; i < 5; i++) {
    assert_int_equal(run_future(env->loop, jobs[i]), 7);
    aloop_future_unref(jobs[i]);
  }
  end_pool(pool);
}

static void a_full_queue_refuses(void **state) {
  env_t *env = *state;
  aloop_thread_pool_options_t options = {.size = sizeof options, .threads = {1, 1, 1}, .queue_limit = 2};
  aloop_executor_t *pool;
  gate_t gate;
  gate_init(&gate);
  assert_int_equal(aloop_thread_pool_new(&options, &pool), 0);
  aloop_future_t *jobs[4];
  for (int i = 0; i < 4; i++) jobs[i] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  assert_int_equal(aloop_future_result(jobs[3]), ALOOP_EAGAIN);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).refused, 1);
  gate_open(&gate);
  for (int i = 0; i < 4; i++) {
    if (i < 3) assert_int_equal(run_future(env->loop, jobs[i]), 7);
    aloop_future_unref(jobs[i]);
  }
  end_pool(pool);
}

TESTS(T(lanes_do_not_wait_for_each_other), T(as_many_jobs_run_as_there_may_be_threads), T(a_full_queue_refuses))
