/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 * pollers: all
 *
 * Jobs: how they end and who hears of it; arguments that are destroyed exactly once.
 */
#include "jobs.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* ---- Taking back ----------------------------------------------------------------------------------------- */

static void ending_the_future_otherwise_takes_the_job_back(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = submit_counted(env->loop, executor, &counted);
  assert_int_equal(aloop_future_set_value(future, 9), 0);
  assert_int_equal(shelf.cancelled, 1);
  assert_int_equal(counted.destroyed, 1);
  assert_int_equal(aloop_future_result(future), 9);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

static void an_argument_that_is_not_owned_is_left_alone(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  void *object;
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *first = aloop_run_in_executor(env->loop, executor, return_counted, &counted);
  aloop_future_t *second = aloop_run_in_executor(env->loop, executor, return_counted, &counted);
  shelf_run(&shelf, 0);
  assert_int_equal(run_future(env->loop, first), 1);
  assert_int_equal(aloop_future_result_ptr(first, &object), ALOOP_ENOENT);
  assert_int_equal(aloop_future_cancel(second), 1);
  assert_int_equal(shelf.cancelled, 1);
  aloop_future_unref(first);
  aloop_future_unref(second);
  while (live_jobs(env) > 0) run_turn(env->loop);
  aloop_executor_unref(executor);
  assert_int_equal(counted.destroyed, 0);
}

static void a_taken_object_is_the_callers(void **state) {
  env_t *env = *state;
  counted_t counted = {.value = 5};
  counted_t *object;
  aloop_future_t *future = submit_counted(env->loop, NULL, &counted);
  assert_int_equal(aloop_run_until_complete_ptr(env->loop, future, &object), 0);
  assert_ptr_equal(object, &counted);
  assert_int_equal(counted.destroyed, 0);
}

static void closing_drops_jobs_that_wait(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  counted_t running = {.value = 1, .gate = &gate}, waiting = {.value = 1};
  aloop_future_t *first = submit_counted(env->loop, pool, &running);
  aloop_future_t *second = submit_counted(env->loop, pool, &waiting);
  gate_await(&gate, 1);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(waiting.destroyed, 1);
  assert_int_equal(running.destroyed, 0);
  assert_int_equal(aloop_future_result(first), ALOOP_ECANCELED);
  assert_int_equal(aloop_future_result(second), ALOOP_ECANCELED);
  aloop_future_unref(first);
  aloop_future_unref(second);
  gate_open(&gate);
  end_pool(pool);
  assert_int_equal(running.destroyed, 1);
}

static void a_job_that_ended_unheard_goes_with_the_loop(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = submit_counted(env->loop, executor, &counted);
  shelf_run(&shelf, 0);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(counted.destroyed, 1);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

static void a_job_of_a_closed_loop_can_be_dropped(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  shelf.keep = true;
  aloop_future_detach(submit_counted(env->loop, executor, &counted));
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(counted.destroyed, 0);
  aloop_job_drop(shelf.jobs[0], ALOOP_ECANCELED);
  assert_int_equal(counted.destroyed, 1);
  aloop_executor_unref(executor);
}

static void a_job_that_has_run_is_not_taken_back(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  counted_t counted = {.value = 1};
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_set_debug(env->loop, true);
  aloop_future_t *future = submit_counted(env->loop, executor, &counted);
  aloop_job_run(shelf.jobs[0]); /* it stays on the shelf, which then says that it was waiting */
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(env->reports, 1);
  while (live_jobs(env) > 0) run_turn(env->loop);
  assert_int_equal(counted.destroyed, 1);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

/* ---- Many ------------------------------------------------------------------------------------------------ */

static void count_done(aloop_future_t *future, void *arg) {
  ++*(int *)arg;
  aloop_future_unref(future);
}

static void a_flood_is_heard_in_parts(void **state) {
  env_t *env = *state;
  enum { JOBS = 2500 };
  shelf_t shelf;
  int number = 1, done = 0;
  aloop_executor_t *executor = make_shelf(&shelf);
  for (int i = 0; i < JOBS; i++) {
    aloop_future_t *future = aloop_run_in_executor(env->loop, executor, return_int, &number);
    aloop_future_add_done_callback(future, count_done, &done);
    shelf_run(&shelf, shelf.count - 1);
  }
  while (done == 0) run_turn(env->loop);
  assert_in_range(done, 1, 1024);
  while (done < JOBS) run_turn(env->loop);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.posts, 1);
  aloop_executor_unref(executor);
}

static void jobs_end_in_the_order_in_which_they_finished(void **state) {
  env_t *env = *state;
  enum { JOBS = 5 };
  static const int order[JOBS] = {3, 0, 2, 0, 0}; /* of those still on the shelf */
  shelf_t shelf;
  int number = 1;
  trace_t trace = {.length = 0};
  step_t steps[JOBS];
  aloop_future_t *futures[JOBS];
  aloop_executor_t *executor = make_shelf(&shelf);
  for (int i = 0; i < JOBS; i++) {
    steps[i] = (step_t){&trace, (char)('a' + i)};
    futures[i] = aloop_run_in_executor(env->loop, executor, return_int, &number);
    aloop_future_add_done_callback(futures[i], trace_done, &steps[i]);
  }
  for (int i = 0; i < JOBS; i++) shelf_run(&shelf, order[i]);
  while (trace.length < JOBS) run_turn(env->loop);
  assert_string_equal(trace.text, "daebc");
  for (int i = 0; i < JOBS; i++) aloop_future_unref(futures[i]);
  aloop_executor_unref(executor);
}

static void cancelling_at_any_moment_destroys_once(void **state) {
  env_t *env = *state;
  enum { JOBS = 3000 };
  static counted_t counted[JOBS];
  static aloop_future_t *futures[JOBS];
  aloop_executor_t *pool = make_pool(2);
  for (int i = 0; i < JOBS; i++) {
    counted[i] = (counted_t){.value = i % 3 == 0 ? ALOOP_EIO : i};
    futures[i] = submit_counted(env->loop, pool, &counted[i]);
    int back = i / 2;
    if (i % 2 == 0) aloop_future_cancel(futures[back]);
    if (i % 100 == 0) run_turn(env->loop);
  }
  while (live_jobs(env) > 0) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  for (int i = 0; i < JOBS; i++) {
    aloop_future_result(futures[i]);
    aloop_future_unref(futures[i]);
    assert_int_equal(counted[i].destroyed, 1);
  }
  end_pool(pool);
}

/* ---- Several loops --------------------------------------------------------------------------------------- */

typedef struct user {
  aloop_executor_t *pool;
  long ended;
} user_t;

static void *use_pool(void *arg) {
  enum { JOBS = 500 };
  user_t *user = arg;
  aloop_t *loop;
  int numbers[JOBS];
  if (aloop_new(NULL, &loop) < 0) return NULL;
  for (int round = 0; round < 4; round++) {
    aloop_future_t *futures[JOBS];
    for (int i = 0; i < JOBS; i++) {
      numbers[i] = i;
      futures[i] = aloop_run_in_executor(loop, user->pool, return_int, &numbers[i]);
    }
    for (int i = 0; i < JOBS; i++) user->ended += aloop_run_until_complete(loop, futures[i]) == i;
  }
  int number = 1;
  aloop_future_detach(aloop_run_in_executor(loop, user->pool, return_int, &number));
  aloop_free(loop);
  return NULL;
}

static void loops_in_two_threads_share_a_pool(void **state) {
  (void)state;
  aloop_executor_t *pool = make_pool(2);
  user_t users[2] = {{.pool = pool}, {.pool = pool}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, use_pool, &users[i]), 0);
  for (int i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
    assert_int_equal(users[i].ended, 2000);
  }
  end_pool(pool);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

static void an_end_needs_no_memory_to_be_told(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  int number = 8;
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = aloop_run_in_executor(env->loop, executor, return_int, &number);
  env->fail_from = 1; /* the first post would allocate */
  shelf_run(&shelf, 0);
  assert_int_equal(run_future(env->loop, future), 8);
  env->fail_from = 0;
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

static void play_jobs(env_t *env) {
  shelf_t shelf;
  counted_t counted[3] = {{.value = 1}, {.value = ALOOP_EIO}, {.value = 3}};
  aloop_future_t *futures[3];
  aloop_executor_t *executor = make_shelf(&shelf);
  for (int i = 0; i < 3; i++) {
    int before = shelf.count;
    futures[i] = submit_counted(env->loop, executor, &counted[i]);
    if (futures[i] == NULL) {
      assert_int_equal(counted[i].destroyed, 0);
      counted[i].destroyed = 1;
    } else if (shelf.count > before && i < 2) {
      shelf_run(&shelf, shelf.count - 1);
    }
  }
  for (int i = 0; i < 20; i++) run_turn(env->loop);
  env->fail_from = 0;
  for (int i = 0; i < 2; i++)
    if (futures[i] != NULL) run_future(env->loop, futures[i]);
  for (int i = 0; i < 3; i++) aloop_future_unref(futures[i]);
  aloop_close(env->loop);
  aloop_executor_unref(executor);
  for (int i = 0; i < 3; i++) assert_int_equal(counted[i].destroyed, 1);
}

static void lack_of_memory_loses_nothing(void **state) {
  torture(*state, play_jobs);
}

/* ---- Mistakes -------------------------------------------------------------------------------------------- */

static void assert_refused(env_t *env, aloop_future_t *future, int error, const char *words) {
  assert_non_null(future);
  assert_int_equal(aloop_future_result(future), error);
  if (strstr(aloop_future_message(future), words) == NULL)
    fail_msg("\"%s\" does not say \"%s\"", aloop_future_message(future), words);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], error);
  env->reports = 0;
  aloop_future_unref(future);
}

static void mistakes_are_explained(void **state) {
  env_t *env = *state;
  counted_t counted = {.value = 1};
  aloop_job_options_t options = {
      .size = sizeof options, .fn = return_counted, .arg = &counted, .destroy = destroy_counted};
  aloop_set_debug(env->loop, true);
  assert_refused(env, aloop_run_in_executor(env->loop, NULL, NULL, NULL), ALOOP_EINVAL, "function");
  assert_refused(env, aloop_submit(env->loop, NULL, NULL), ALOOP_EINVAL, "size");
  options.fn = NULL;
  assert_refused(env, aloop_submit(env->loop, NULL, &options), ALOOP_EINVAL, "options.fn");
  assert_int_equal(counted.destroyed, 1);
  options.fn = return_counted;
  options.lane = ALOOP_LANES;
  assert_refused(env, aloop_submit(env->loop, NULL, &options), ALOOP_EINVAL, "lane");
  options.lane = -1;
  assert_refused(env, aloop_submit(env->loop, NULL, &options), ALOOP_EINVAL, "lane");
  assert_int_equal(counted.destroyed, 3);
  options.size = 0;
  assert_refused(env, aloop_submit(env->loop, NULL, &options), ALOOP_EINVAL, "size");
  assert_int_equal(counted.destroyed, 3); /* nothing in the struct can be trusted */
  assert_null(aloop_run_in_executor(NULL, NULL, return_int, NULL));
  aloop_job_run(NULL);
  aloop_job_drop(NULL, 0);
}

static void a_closed_loop_refuses(void **state) {
  env_t *env = *state;
  counted_t counted = {.value = 1};
  aloop_set_debug(env->loop, true);
  aloop_close(env->loop);
  env->reports = 0;
  assert_refused(env, submit_counted(env->loop, NULL, &counted), ALOOP_ECLOSED, "closed");
  assert_int_equal(counted.destroyed, 1);
}

static int64_t return_nonsense(void *arg) {
  (void)arg;
  return INT64_MIN;
}

static void numbers_that_are_no_codes_are_out_of_range(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_run_in_executor(env->loop, NULL, return_nonsense, NULL);
  assert_int_equal(run_future(env->loop, future), ALOOP_ERANGE);
  aloop_future_unref(future);
}

static void keep_line(void *arg, const char *text) {
  snprintf(arg, 400, "%s", text);
}

static void the_dump_counts_jobs(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  int number = 1;
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = aloop_run_in_executor(env->loop, executor, return_int, &number);
  char last[400] = "";
  aloop_dump(env->loop, keep_line, last);
  assert_non_null(strstr(last, " 1 jobs"));
  aloop_future_cancel(future);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

/* ---- Forks ----------------------------------------------------------------------------------------------- */

/* Runs in the child, whose exit status tells where something was wrong: the line, as far as it fits. */
#define CHILD_CHECK(condition)                                                                                 \
  do {                                                                                                         \
    if (!(condition)) {                                                                                        \
      fprintf(stderr, "in the child: line %d: %s\n", __LINE__, #condition);                                    \
      _exit(1);                                                                                                \
    }                                                                                                          \
  } while (0)

/* The thread sanitizer allows no thread in a child. */
#if defined(__SANITIZE_THREAD__)
#define NO_THREADS_AFTER_FORK 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_THREADS_AFTER_FORK 1
#endif
#endif
#ifdef NO_THREADS_AFTER_FORK
enum { MAY_START_THREADS = 0 };
#else
enum { MAY_START_THREADS = 1 };
#endif

static void assert_child_well(pid_t pid) {
  int status = -1;
  assert_true(pid > 0);
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
}

static void in_a_child_jobs_under_way_end(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = make_pool(1);
  gate_t gate;
  gate_init(&gate);
  counted_t running = {.value = 1, .gate = &gate}, waiting = {.value = 2};
  aloop_future_t *first = submit_counted(env->loop, pool, &running);
  aloop_future_t *second = submit_counted(env->loop, pool, &waiting);
  gate_await(&gate, 1);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    counted_t late = {.value = 1};
    aloop_future_t *early = submit_counted(env->loop, NULL, &late);
    CHILD_CHECK(aloop_future_result(early) == ALOOP_ECHILD && late.destroyed == 1);
    CHILD_CHECK(aloop_after_fork(env->loop) == 0);
    CHILD_CHECK(aloop_future_result(first) == ALOOP_ECHILD);
    CHILD_CHECK(aloop_future_result(second) == ALOOP_ECHILD);
    CHILD_CHECK(running.destroyed == 0 && waiting.destroyed == 1);
    aloop_future_t *refused = aloop_run_in_executor(env->loop, pool, return_int, &(int){1});
    CHILD_CHECK(aloop_future_result(refused) == ALOOP_ECHILD);
    CHILD_CHECK(strstr(aloop_future_message(refused), "fork") != NULL);
    CHILD_CHECK(aloop_executor_shutdown(pool, 0, 0) == ALOOP_ECHILD);
    aloop_free(env->loop);
    aloop_executor_unref(pool);
    _exit(0);
  }
  assert_child_well(pid);
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, first), 1);
  assert_int_equal(run_future(env->loop, second), 2);
  aloop_future_unref(first);
  aloop_future_unref(second);
  end_pool(pool);
}

static void in_a_child_the_default_pool_is_made_anew(void **state) {
  env_t *env = *state;
  if (!MAY_START_THREADS) skip();
  int number = 5;
  aloop_future_t *future = aloop_run_in_executor(env->loop, NULL, return_int, &number);
  assert_int_equal(run_future(env->loop, future), 5);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    CHILD_CHECK(aloop_after_fork(env->loop) == 0);
    CHILD_CHECK(
        aloop_run_until_complete(env->loop, aloop_run_in_executor(env->loop, NULL, return_int, &number)) == 5);
    CHILD_CHECK(
        aloop_run_until_complete(env->loop, aloop_shutdown_default_executor(env->loop, ALOOP_FOREVER)) == 0);
    aloop_free(env->loop);
    _exit(0);
  }
  assert_child_well(pid);
  aloop_future_unref(future);
}

static void a_child_may_free_the_loop_at_once(void **state) {
  env_t *env = *state;
  gate_t gate;
  gate_init(&gate);
  counted_t counted = {.value = 1, .gate = &gate};
  aloop_future_t *future = submit_counted(env->loop, NULL, &counted);
  gate_await(&gate, 1);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    aloop_free(env->loop);
    CHILD_CHECK(counted.destroyed == 0);
    _exit(0);
  }
  assert_child_well(pid);
  gate_open(&gate);
  assert_int_equal(run_future(env->loop, future), 1);
  aloop_future_unref(future);
}

static void what_ended_before_the_fork_is_heard_in_the_child(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  int number = 4;
  aloop_executor_t *executor = make_shelf(&shelf);
  aloop_future_t *future = aloop_run_in_executor(env->loop, executor, return_int, &number);
  shelf_run(&shelf, 0);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    CHILD_CHECK(aloop_after_fork(env->loop) == 0);
    CHILD_CHECK(aloop_future_result(future) == 4);
    CHILD_CHECK(aloop_run_once(env->loop, 0) >= 0);
    _exit(0);
  }
  assert_child_well(pid);
  assert_int_equal(run_future(env->loop, future), 4);
  aloop_future_unref(future);
  aloop_executor_unref(executor);
}

typedef struct closer {
  aloop_t *loop;
  int destroyed;
} closer_t;

static int64_t do_nothing(void *arg) {
  (void)arg;
  return 0;
}

static void close_from_argument(void *arg) {
  closer_t *closer = arg;
  closer->destroyed++;
  aloop_close(closer->loop);
}

/* A job behind one that is busy until the gate opens. */
typedef struct behind {
  gate_t gate;
  aloop_executor_t *pool;
  aloop_future_t *busy, *waiting;
} behind_t;

static void begin_behind(behind_t *behind, closer_t *closer, void (*destroy)(void *)) {
  const aloop_job_options_t options = {
      .size = sizeof options, .fn = do_nothing, .arg = closer, .destroy = destroy};
  gate_init(&behind->gate);
  behind->pool = make_pool(1);
  behind->busy = aloop_run_in_executor(closer->loop, behind->pool, pass_gate, &behind->gate);
  gate_await(&behind->gate, 1);
  behind->waiting = aloop_submit(closer->loop, behind->pool, &options);
}

static void end_behind(behind_t *behind) {
  gate_open(&behind->gate);
  aloop_future_unref(behind->busy);
  aloop_future_unref(behind->waiting);
  end_pool(behind->pool);
}

static void the_end_of_an_argument_may_close_the_loop(void **state) {
  env_t *env = *state;
  closer_t closer = {.loop = env->loop};
  behind_t behind;
  begin_behind(&behind, &closer, close_from_argument);
  assert_int_equal(aloop_future_cancel(behind.waiting), 1);
  assert_int_equal(closer.destroyed, 1);
  assert_true(aloop_is_closed(env->loop));
  end_behind(&behind);
}

static void free_from_argument(void *arg) {
  closer_t *closer = arg;
  if (closer->loop == NULL) return;
  closer->destroyed++;
  CHILD_CHECK(aloop_after_fork(closer->loop) == ALOOP_ERUNNING);
  CHILD_CHECK(aloop_run_once(closer->loop, 0) == ALOOP_ECHILD);
  CHILD_CHECK(aloop_close(closer->loop) == ALOOP_ERUNNING);
  aloop_free(closer->loop);
}

/* Closing a loop that is made usable is as closing one that runs. */
static void an_argument_that_ends_in_a_child_cannot_close_the_loop(void **state) {
  env_t *env = *state;
  closer_t closer = {.loop = env->loop};
  behind_t behind;
  begin_behind(&behind, &closer, free_from_argument);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(20);
    CHILD_CHECK(aloop_after_fork(env->loop) == 0);
    CHILD_CHECK(closer.destroyed == 1 && !aloop_is_closed(env->loop) && !aloop_is_running(env->loop));
    CHILD_CHECK(aloop_future_result(behind.waiting) == ALOOP_ECHILD);
    CHILD_CHECK(aloop_run_once(env->loop, 0) >= 0);
    aloop_free(env->loop);
    _exit(0);
  }
  assert_child_well(pid);
  gate_open(&behind.gate);
  assert_int_equal(run_future(env->loop, behind.waiting), 0);
  closer.loop = NULL;
  end_behind(&behind);
}

TESTS(T(an_argument_that_ends_in_a_child_cannot_close_the_loop), T(the_end_of_an_argument_may_close_the_loop),
      T(a_job_returns_its_number), T(a_job_fails_with_its_code), T(an_owned_argument_becomes_the_object),
      T(the_argument_of_a_failed_job_is_destroyed), T(every_job_of_a_flood_ends),
      T(a_waiting_job_is_taken_back), T(a_running_job_goes_on_unheard), T(a_running_job_outlives_its_loop),
      T(ending_the_future_otherwise_takes_the_job_back), T(an_argument_that_is_not_owned_is_left_alone),
      T(a_taken_object_is_the_callers), T(closing_drops_jobs_that_wait),
      T(a_job_that_ended_unheard_goes_with_the_loop), T(a_job_of_a_closed_loop_can_be_dropped),
      T(a_job_that_has_run_is_not_taken_back), T(a_flood_is_heard_in_parts),
      T(jobs_end_in_the_order_in_which_they_finished), T(cancelling_at_any_moment_destroys_once),
      T(loops_in_two_threads_share_a_pool), T(an_end_needs_no_memory_to_be_told),
      T(lack_of_memory_loses_nothing), T(mistakes_are_explained), T(a_closed_loop_refuses),
      T(numbers_that_are_no_codes_are_out_of_range), T(the_dump_counts_jobs), T(in_a_child_jobs_under_way_end),
      T(in_a_child_the_default_pool_is_made_anew), T(a_child_may_free_the_loop_at_once),
      T(what_ended_before_the_fork_is_heard_in_the_child))
