/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * The thread pool: lanes, limits, its end.
 */
#include "jobs.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

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
  gate_await(&gate, 1);
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

static int64_t append_letter(void *arg) {
  step_t *step = arg;
  trace_step(NULL, step);
  return 0;
}

static void a_lane_is_first_in_first_out(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  trace_t trace = {.length = 0};
  step_t steps[8];
  aloop_future_t *futures[8];
  for (int i = 0; i < 8; i++) {
    steps[i] = (step_t){&trace, (char)('a' + i)};
    futures[i] = aloop_run_in_executor(env->loop, pool, append_letter, &steps[i]);
  }
  for (int i = 0; i < 8; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 0);
    aloop_future_unref(futures[i]);
  }
  assert_string_equal(trace.text, "abcdefgh");
  end_pool(pool);
}

static void a_lane_with_work_does_not_starve_another(void **state) {
  env_t *env = *state;
  enum { JOBS = 300 };
  aloop_executor_t *pool = make_pool(1);
  int number = 1, ended[ALOOP_LANES] = {0};
  static aloop_future_t *futures[ALOOP_LANES][JOBS];
  for (int i = 0; i < JOBS; i++)
    for (int lane = 0; lane < ALOOP_LANES; lane++)
      futures[lane][i] = submit_to(env, pool, lane, return_int, &number);
  for (int lane = 0; lane < ALOOP_LANES; lane++)
    for (int i = 0; i < JOBS; i++) {
      ended[lane] += run_future(env->loop, futures[lane][i]) == 1;
      aloop_future_unref(futures[lane][i]);
    }
  for (int lane = 0; lane < ALOOP_LANES; lane++) {
    assert_int_equal(ended[lane], JOBS);
    await_stat(pool, lane, done, JOBS);
  }
  end_pool(pool);
}

/* One thread, which sleeps. */
static aloop_executor_t *make_sleepy_pool(env_t *env) {
  aloop_executor_t *pool = make_pool(1);
  int number = 1;
  aloop_future_t *future = aloop_run_in_executor(env->loop, pool, return_int, &number);
  assert_int_equal(run_future(env->loop, future), 1);
  aloop_future_unref(future);
  await_stat(pool, ALOOP_LANE_USER, idle, 1);
  return pool;
}

static int row_next; /* the thread's */

static int64_t stand_in_row(void *arg) {
  return row_next++ == *(int *)arg ? 0 : ALOOP_EIO;
}

/* Some are queued, some wait for a thread that was woken. */
static void a_flood_keeps_its_order(void **state) {
  env_t *env = *state;
  enum { JOBS = 2000 };
  static int numbers[JOBS];
  static aloop_future_t *futures[JOBS];
  aloop_executor_t *pool = make_sleepy_pool(env);
  row_next = 0;
  for (int i = 0; i < JOBS; i++) {
    numbers[i] = i;
    futures[i] = aloop_run_in_executor(env->loop, pool, stand_in_row, &numbers[i]);
  }
  for (int i = 0; i < JOBS; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 0);
    aloop_future_unref(futures[i]);
  }
  assert_int_equal(row_next, JOBS);
  end_pool(pool);
}

static void a_flood_may_be_cancelled_at_any_moment(void **state) {
  env_t *env = *state;
  enum { JOBS = 40 };
  for (int round = 0; round < 40; round++) {
    aloop_executor_t *pool = make_sleepy_pool(env);
    counted_t counted[JOBS] = {{.value = 0}};
    aloop_future_t *futures[JOBS];
    for (int i = 0; i < JOBS; i++) futures[i] = submit_counted(env->loop, pool, &counted[i]);
    for (int i = round; i < JOBS; i += 2) aloop_future_cancel(futures[i]);
    assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, ALOOP_CANCEL_QUEUED), 0);
    aloop_lane_stats_t stats = lane_stats(pool, ALOOP_LANE_USER);
    assert_int_equal(stats.queued, 0);
    assert_int_equal(stats.done + stats.cancelled, 1 + JOBS);
    while (live_jobs(env) > 0) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
    for (int i = 0; i < JOBS; i++) {
      aloop_future_result(futures[i]);
      aloop_future_unref(futures[i]);
      assert_int_equal(counted[i].destroyed, 1);
    }
    aloop_executor_unref(pool);
  }
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

static void threads_are_started_on_demand(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(4);
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *futures[3];
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).threads, 0);
  for (int i = 0; i < 3; i++) {
    futures[i] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
    gate_await(&gate, i + 1);
    assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).threads, i + 1);
  }
  gate_open(&gate);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 7);
    aloop_future_unref(futures[i]);
  }
  await_stat(pool, ALOOP_LANE_USER, idle, 3);
  end_pool(pool);
}

static void idle_threads_are_used_again(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(4);
  int number = 1;
  for (int i = 0; i < 20; i++) {
    aloop_future_t *future = aloop_run_in_executor(env->loop, pool, return_int, &number);
    assert_int_equal(run_future(env->loop, future), 1);
    aloop_future_unref(future);
    await_stat(pool, ALOOP_LANE_USER, idle, 1);
  }
  assert_int_equal(lane_stats(pool, ALOOP_LANE_FILE).threads, 1);
  end_pool(pool);
}

static void idle_threads_end_after_a_time(void **state) {
  env_t *env = *state;
  aloop_thread_pool_options_t options = {
      .size = sizeof options, .threads = {2, 2, 2}, .idle_timeout = ALOOP_MILLIS(1)};
  aloop_executor_t *pool;
  int number = 1;
  assert_int_equal(aloop_thread_pool_new(&options, &pool), 0);
  for (int i = 0; i < 5; i++) {
    aloop_future_t *future = aloop_run_in_executor(env->loop, pool, return_int, &number);
    assert_int_equal(run_future(env->loop, future), 1);
    aloop_future_unref(future);
    await_stat(pool, ALOOP_LANE_USER, threads, 0);
  }
  end_pool(pool);
}

/* Threads that end meet jobs that come. */
static void a_job_may_come_as_its_thread_ends(void **state) {
  env_t *env = *state;
  aloop_thread_pool_options_t options = {.size = sizeof options, .threads = {2, 2, 2}, .idle_timeout = 1};
  aloop_executor_t *pool;
  int number = 1;
  assert_int_equal(aloop_thread_pool_new(&options, &pool), 0);
  for (int i = 0; i < 300; i++) {
    aloop_future_t *future = aloop_run_in_executor(env->loop, pool, return_int, &number);
    assert_int_equal(run_future(env->loop, future), 1);
    aloop_future_unref(future);
  }
  end_pool(pool);
}

typedef struct seen {
  sigset_t mask;
  char name[32];
  size_t stack;
} seen_t;

static int64_t look(void *arg) {
  seen_t *seen = arg;
  pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
#ifdef __linux__
  pthread_attr_t attributes;
  pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstacksize(&attributes, &seen->stack);
  pthread_attr_destroy(&attributes);
#endif
  return 0;
}

static void threads_are_made_as_told(void **state) {
  env_t *env = *state;
  enum { STACK = 512 * 1024 };
  aloop_thread_pool_options_t options = {
      .size = sizeof options, .threads = {1, 1, 1}, .name = "worker", .stack_size = STACK};
  aloop_executor_t *pool;
  seen_t seen = {.stack = 0};
  assert_int_equal(aloop_thread_pool_new(&options, &pool), 0);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_run_in_executor(env->loop, pool, look, &seen)), 0);
  assert_int_equal(sigismember(&seen.mask, SIGINT), 1);
  assert_int_equal(sigismember(&seen.mask, SIGCHLD), 1);
#ifdef __linux__
  assert_string_equal(seen.name, "worker");
  assert_in_range(seen.stack, STACK, 2 * STACK);
#endif
  end_pool(pool);
}

static void a_limit_can_be_raised(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *futures[4];
  for (int i = 0; i < 4; i++) futures[i] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  gate_await(&gate, 1);
  assert_int_equal(aloop_thread_pool_resize(pool, ALOOP_LANE_USER, 3), 0);
  gate_await(&gate, 3);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).queued, 1);
  gate_open(&gate);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 7);
    aloop_future_unref(futures[i]);
  }
  end_pool(pool);
}

static void a_limit_can_be_lowered(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  assert_int_equal(aloop_thread_pool_resize(pool, ALOOP_LANE_USER, 6), 0);
  aloop_future_t *futures[6];
  for (int i = 0; i < 6; i++) futures[i] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  gate_await(&gate, 6);
  assert_int_equal(aloop_thread_pool_resize(pool, ALOOP_LANE_USER, 1), 0);
  gate_open(&gate);
  for (int i = 0; i < 6; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 7);
    aloop_future_unref(futures[i]);
  }
  await_stat(pool, ALOOP_LANE_USER, threads, 3); /* one for each lane */
  assert_int_equal(aloop_thread_pool_resize(pool, ALOOP_LANE_USER, 4), 0);
  assert_int_equal(aloop_thread_pool_resize(pool, ALOOP_LANE_USER, 1), 0);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).threads, 3);
  end_pool(pool);
}

static void the_usual_limit_depends_on_the_cpus(void **state) {
  env_t *env = *state;
  enum { MANY = 40 };
  aloop_executor_t *pool;
  gate_t gate;
  gate_init(&gate);
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  int limit = (int)(cpus + 4 < 32 ? cpus + 4 : 32);
  assert_int_equal(aloop_thread_pool_new(NULL, &pool), 0);
  aloop_future_t *futures[MANY];
  for (int i = 0; i < MANY; i++) futures[i] = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  gate_await(&gate, limit);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).queued, MANY - limit);
  gate_open(&gate);
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 7);
    aloop_future_unref(futures[i]);
  }
  end_pool(pool);
}

/* ---- Numbers --------------------------------------------------------------------------------------------- */

static int64_t take_a_moment(void *arg) {
  (void)arg;
  poll(NULL, 0, 2);
  return 0;
}

/* Jobs of 2 ms in a row, which begins when all are there. */
static void check_times(env_t *env, aloop_executor_t *pool) {
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *futures[4] = {aloop_run_in_executor(env->loop, pool, pass_gate, &gate)};
  uint64_t before = lane_stats(pool, ALOOP_LANE_USER).done;
  for (int i = 1; i < 4; i++) futures[i] = aloop_run_in_executor(env->loop, pool, take_a_moment, NULL);
  gate_open(&gate);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), i == 0 ? 7 : 0);
    aloop_future_unref(futures[i]);
  }
  await_stat(pool, ALOOP_LANE_USER, done, before + 4);
  aloop_lane_stats_t stats = lane_stats(pool, ALOOP_LANE_USER);
  /* Ticks become nanoseconds by a ratio that is measured, too. */
  assert_true(stats.run_time >= ALOOP_MILLIS(5) && stats.run_max >= ALOOP_MILLIS(1.5));
  assert_true(stats.run_max <= stats.run_time);
  assert_true(stats.wait_time >= ALOOP_MILLIS(5) && stats.wait_max >= ALOOP_MILLIS(3.5));
  assert_int_equal(lane_stats(pool, ALOOP_LANE_FILE).run_time, 0);
  end_pool(pool);
}

static void times_are_measured(void **state) {
  check_times(*state, make_pool(1));
}

static void times_of_jobs_that_wait_for_a_sleeper_are_measured(void **state) {
  env_t *env = *state;
  check_times(env, make_sleepy_pool(env));
}

static void statistics_of_an_older_caller_fit(void **state) {
  (void)state;
  aloop_executor_t *pool = make_pool(1);
  aloop_executor_stats_t stats;
  memset(&stats, 0x55, sizeof stats);
  stats.size = offsetof(aloop_executor_stats_t, lanes) + sizeof stats.lanes[0];
  assert_int_equal(aloop_executor_stats(pool, &stats), 0);
  assert_int_equal(stats.lanes[0].queued, 0);
  assert_int_equal(stats.lanes[1].queued, 0x5555555555555555);
  end_pool(pool);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void shutting_down_waits_for_what_is_queued(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  aloop_future_t *futures[5];
  for (int i = 0; i < 5; i++) futures[i] = aloop_run_in_executor(env->loop, pool, take_a_moment, NULL);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).done, 5);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).threads, 0);
  for (int i = 0; i < 5; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), 0);
    aloop_future_unref(futures[i]);
  }
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0); /* again */
  aloop_executor_unref(pool);
}

static void shutting_down_need_not_wait(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *first = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  aloop_future_t *second = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  assert_int_equal(aloop_executor_shutdown(pool, 0, 0), 0);
  aloop_future_t *late = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  assert_int_equal(aloop_future_result(late), ALOOP_ECLOSED);
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, first), 7);
  assert_int_equal(run_future(env->loop, second), 7);
  aloop_future_unref(first);
  aloop_future_unref(second);
  aloop_future_unref(late);
  end_pool(pool);
}

static void shutting_down_has_a_deadline(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *future = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_MILLIS(2), 0), ALOOP_ETIMEDOUT);
  gate_open(&gate);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_SECONDS(20), 0), 0);
  assert_int_equal(run_future(env->loop, future), 7);
  aloop_future_unref(future);
  aloop_executor_unref(pool);
}

static void shutting_down_may_cancel_what_is_queued(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  counted_t counted[4] = {{.gate = &gate}};
  aloop_future_t *futures[4];
  for (int i = 0; i < 4; i++) {
    counted[i].gate = &gate;
    futures[i] = submit_counted(env->loop, pool, &counted[i]);
  }
  gate_await(&gate, 1);
  assert_int_equal(aloop_executor_shutdown(pool, 0, ALOOP_CANCEL_QUEUED), 0);
  for (int i = 1; i < 4; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), ALOOP_ECANCELED);
    assert_int_equal(counted[i].destroyed, 1);
  }
  assert_int_equal(lane_stats(pool, ALOOP_LANE_USER).cancelled, 3);
  assert_false(aloop_future_done(futures[0]));
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, futures[0]), 0);
  for (int i = 0; i < 4; i++) aloop_future_unref(futures[i]);
  end_pool(pool);
}

static int64_t shut_down_from_inside(void *pool) {
  if (aloop_executor_shutdown(pool, 1, 0) != ALOOP_EBUSY) return 1;
  if (aloop_executor_shutdown(pool, ALOOP_FOREVER, 0) != ALOOP_EBUSY) return 2;
  return 0;
}

static int64_t shut_down_without_waiting(void *pool) {
  return aloop_executor_shutdown(pool, 0, 0);
}

static void a_job_cannot_wait_for_its_own_end(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  for (int i = 0; i < 2; i++) { /* it has left everything as it was */
    aloop_future_t *future = aloop_run_in_executor(env->loop, pool, shut_down_from_inside, pool);
    assert_int_equal(run_future(env->loop, future), 0);
    aloop_future_unref(future);
  }
  aloop_future_t *future = aloop_run_in_executor(env->loop, pool, shut_down_without_waiting, pool);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  end_pool(pool);
}

static void *shut_down_and_wait(void *pool) {
  return aloop_executor_shutdown(pool, ALOOP_FOREVER, 0) == 0 ? pool : NULL;
}

static void several_threads_may_wait_for_the_end(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(2);
  gate_t gate;
  gate_init(&gate);
  pthread_t threads[3];
  aloop_future_t *future = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  gate_await(&gate, 1);
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, shut_down_and_wait, pool);
  gate_open(&gate);
  for (int i = 0; i < 3; i++) {
    void *result;
    pthread_join(threads[i], &result);
    assert_ptr_equal(result, pool);
  }
  assert_int_equal(run_future(env->loop, future), 7);
  aloop_future_unref(future);
  aloop_executor_unref(pool);
}

static void a_released_pool_finishes_its_jobs(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  aloop_future_t *first = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  aloop_future_t *second = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
  aloop_executor_unref(pool);
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, first), 7);
  assert_int_equal(run_future(env->loop, second), 7);
  aloop_future_unref(first);
  aloop_future_unref(second);
}

static void a_pool_may_be_released_before_its_last_job_ends(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 50; i++) {
    aloop_executor_t *pool = make_pool(2);
    gate_t gate;
    gate_init(&gate);
    aloop_future_t *future = aloop_run_in_executor(env->loop, pool, pass_gate, &gate);
    gate_await(&gate, 1);
    aloop_future_cancel(future);
    aloop_future_unref(future);
    aloop_executor_unref(pool);
    gate_open(&gate);
    while (live_jobs(env) > 0) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  }
}

static int64_t release(void *pool) {
  aloop_executor_unref(pool);
  return 0;
}

static void a_job_may_release_its_pool(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  aloop_future_t *future = aloop_run_in_executor(env->loop, pool, release, pool);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
}

static void an_unused_pool_goes_at_once(void **state) {
  (void)state;
  aloop_executor_unref(make_pool(1));
  end_pool(make_pool(3));
}

TESTS(T(lanes_do_not_wait_for_each_other), T(as_many_jobs_run_as_there_may_be_threads), T(a_full_queue_refuses),
      T(a_lane_is_first_in_first_out), T(a_lane_with_work_does_not_starve_another), T(a_flood_keeps_its_order),
      T(a_flood_may_be_cancelled_at_any_moment), T(threads_are_started_on_demand),
      T(idle_threads_are_used_again), T(idle_threads_end_after_a_time), T(a_job_may_come_as_its_thread_ends),
      T(threads_are_made_as_told), T(a_limit_can_be_raised), T(a_limit_can_be_lowered),
      T(the_usual_limit_depends_on_the_cpus), T(times_are_measured),
      T(times_of_jobs_that_wait_for_a_sleeper_are_measured), T(statistics_of_an_older_caller_fit),
      T(shutting_down_waits_for_what_is_queued), T(shutting_down_need_not_wait),
      T(shutting_down_has_a_deadline), T(shutting_down_may_cancel_what_is_queued),
      T(a_job_cannot_wait_for_its_own_end), T(several_threads_may_wait_for_the_end),
      T(a_released_pool_finishes_its_jobs), T(a_pool_may_be_released_before_its_last_job_ends),
      T(a_job_may_release_its_pool), T(an_unused_pool_goes_at_once))
