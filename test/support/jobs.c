/* SPDX-License-Identifier: MIT
 *
 * Jobs that a test holds up, and executors for them: see jobs.h.
 */
#include "jobs.h"

#include <sched.h>
#include <string.h>

void gate_init(gate_t *gate) {
  memset(gate, 0, sizeof *gate);
  pthread_mutex_init(&gate->lock, NULL);
  pthread_cond_init(&gate->change, NULL);
}

void gate_await(gate_t *gate, int arrived) {
  pthread_mutex_lock(&gate->lock);
  while (gate->arrived < arrived) pthread_cond_wait(&gate->change, &gate->lock);
  pthread_mutex_unlock(&gate->lock);
}

void gate_open(gate_t *gate) {
  pthread_mutex_lock(&gate->lock);
  gate->open = true;
  pthread_cond_broadcast(&gate->change);
  pthread_mutex_unlock(&gate->lock);
}

int gate_arrived(gate_t *gate) {
  pthread_mutex_lock(&gate->lock);
  int arrived = gate->arrived;
  pthread_mutex_unlock(&gate->lock);
  return arrived;
}

int64_t pass_gate(void *arg) {
  gate_t *gate = arg;
  pthread_mutex_lock(&gate->lock);
  gate->arrived++;
  pthread_cond_broadcast(&gate->change);
  while (!gate->open) pthread_cond_wait(&gate->change, &gate->lock);
  gate->passed++;
  pthread_mutex_unlock(&gate->lock);
  return 7;
}

int64_t return_int(void *arg) {
  return *(int *)arg;
}

void destroy_counted(void *arg) {
  counted_t *counted = arg;
  atomic_fetch_add(&counted->destroyed, 1);
}

int64_t return_counted(void *arg) {
  counted_t *counted = arg;
  if (counted->gate != NULL) pass_gate(counted->gate);
  return counted->value;
}

aloop_future_t *submit_counted(aloop_t *loop, aloop_executor_t *executor, counted_t *counted) {
  const aloop_job_options_t options = {
      .size = sizeof options, .fn = return_counted, .arg = counted, .destroy = destroy_counted};
  return aloop_submit(loop, executor, &options);
}

uint64_t live_jobs(const env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  return metrics.jobs;
}

aloop_executor_t *make_pool(int threads) {
  aloop_thread_pool_options_t options = {.size = sizeof options, .threads = {threads, threads, threads}};
  aloop_executor_t *pool = NULL;
  assert_int_equal(aloop_thread_pool_new(&options, &pool), 0);
  return pool;
}

void end_pool(aloop_executor_t *pool) {
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  aloop_executor_unref(pool);
}

aloop_lane_stats_t lane_stats(const aloop_executor_t *pool, int lane) {
  aloop_executor_stats_t stats = {.size = sizeof stats};
  assert_int_equal(aloop_executor_stats(pool, &stats), 0);
  return stats.lanes[lane];
}

/* ---- The shelf ------------------------------------------------------------------------------------------- */

static int shelf_submit(void *state, aloop_job_t *job, int lane) {
  shelf_t *shelf = state;
  if (shelf->refuse < 0) return shelf->refuse;
  shelf->lane = lane;
  shelf->jobs[shelf->count++] = job;
  return 0;
}

static int shelf_cancel(void *state, aloop_job_t *job) {
  shelf_t *shelf = state;
  if (shelf->keep) return 0;
  for (int i = 0; i < shelf->count; i++) {
    if (shelf->jobs[i] != job) continue;
    shelf->jobs[i] = shelf->jobs[--shelf->count];
    shelf->cancelled++;
    return 1;
  }
  return 0;
}

static int shelf_shutdown(void *state, int64_t timeout, unsigned flags) {
  shelf_t *shelf = state;
  shelf->shutdowns++;
  shelf->timeout = timeout;
  shelf->flags = flags;
  return 0;
}

static void shelf_destroy(void *state) {
  shelf_t *shelf = state;
  shelf->destroyed++;
}

const aloop_executor_table_t shelf_table = {.size = sizeof shelf_table,
                                            .name = "shelf",
                                            .submit = shelf_submit,
                                            .cancel = shelf_cancel,
                                            .shutdown = shelf_shutdown,
                                            .destroy = shelf_destroy};

aloop_executor_t *make_shelf(shelf_t *shelf) {
  aloop_executor_t *executor = NULL;
  memset(shelf, 0, sizeof *shelf);
  assert_int_equal(aloop_executor_new(&shelf_table, shelf, &executor), 0);
  return executor;
}

void shelf_run(shelf_t *shelf, int index) {
  aloop_job_t *job = shelf->jobs[index];
  shelf->count--;
  for (int i = index; i < shelf->count; i++) shelf->jobs[i] = shelf->jobs[i + 1];
  aloop_job_run(job);
}
