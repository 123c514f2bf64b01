/* SPDX-License-Identifier: MIT
 *
 * aloop_run: what it returns, what it cleans up, what SIGINT does.
 * pollers: all
 */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static env_t *here;

/* Runs on a loop whose memory is counted. */
static int64_t run(env_t *env, aloop_task_fn fn, void *arg) {
  here = env;
  aloop_options_t loop = {.size = sizeof loop, .allocator = &env->allocator, .debug = -1};
  aloop_run_options_t options = {.size = sizeof options, .loop = &loop};
  return aloop_run(fn, arg, &options);
}

static int64_t answer(aloop_t *loop, void *arg) {
  env_watch(here, loop);
  return arg != NULL ? *(int64_t *)arg : 42;
}

static void it_returns_what_the_main_task_does(void **state) {
  int64_t error = ALOOP_EIO;
  assert_int_equal(run(*state, answer, NULL), 42);
  assert_int_equal(run(*state, answer, &error), ALOOP_EIO);
  here = *state;
  assert_int_equal(aloop_run(answer, NULL, NULL), 42);
  assert_int_equal(here->reports, 0);
}

static int64_t fail_in_words(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return aloop_return_error(ALOOP_EIO, "the disk is %s", "gone");
}

static int64_t stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
  return aloop_await(aloop_future_new(loop));
}

static void it_says_in_words_why_it_failed(void **state) {
  (void)state;
  char message[20] = "nothing";
  aloop_run_options_t options = {.size = sizeof options, .message = message, .message_size = sizeof message};
  assert_int_equal(aloop_run(answer, NULL, &options), 42);
  assert_string_equal(message, "nothing");
  assert_int_equal(aloop_run(fail_in_words, NULL, &options), ALOOP_EIO);
  assert_string_equal(message, "the disk is gone");
  assert_int_equal(aloop_run(stop, NULL, &options), ALOOP_ESTOPPED);
  assert_string_equal(message, "loop stopped before"); /* as much as there is room for */
  options.loop = &(aloop_options_t){.size = sizeof(aloop_options_t), .poller = "no such poller"};
  assert_int_equal(aloop_run(answer, NULL, &options), ALOOP_EINVAL);
  assert_string_equal(message, "invalid argument");
  options.message_size = 0;
  assert_int_equal(aloop_run(fail_in_words, NULL, &options), ALOOP_EINVAL);
}

static int64_t run_again(aloop_t *loop, void *arg) {
  (void)loop;
  return run(here, answer, arg);
}

static void it_does_not_nest(void **state) {
  assert_int_equal(run(*state, run_again, NULL), ALOOP_ERUNNING);
}

static void a_stop_ends_it(void **state) {
  assert_int_equal(run(*state, stop, NULL), ALOOP_ESTOPPED);
}

/* ---- What is left ------------------------------------------------------------------------------------------------ */

static int cleaned;

static int64_t wait_and_clean(aloop_t *loop, void *arg) {
  (void)arg;
  int64_t rc = aloop_await(aloop_future_new(loop));
  assert_int_equal(rc, ALOOP_ECANCELED);
  assert_int_equal(aloop_await(aloop_sleep(loop, 1000)), 0);
  cleaned++;
  return rc;
}

static int64_t leave_some(aloop_t *loop, void *arg) {
  int count = *(int *)arg;
  for (int i = 0; i < count; i++) aloop_future_detach(aloop_create_task(loop, wait_and_clean, NULL, NULL));
  aloop_await(aloop_sleep(loop, 0));
  return 7;
}

static void tasks_that_are_left_are_cancelled_and_awaited(void **state) {
  int count = 5;
  cleaned = 0;
  assert_int_equal(run(*state, leave_some, &count), 7);
  assert_int_equal(cleaned, 5);
}

static int64_t fail_when_cancelled(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_await(aloop_future_new(loop));
  return aloop_return_error(ALOOP_EIO, "could not flush");
}

static int64_t leave_a_failure(aloop_t *loop, void *arg) {
  (void)arg;
  env_watch(here, loop);
  aloop_task_options_t options = {.size = sizeof options, .name = "cache"};
  aloop_future_detach(aloop_create_task(loop, fail_when_cancelled, NULL, &options));
  aloop_await(aloop_sleep(loop, 0));
  return 0;
}

static void their_errors_are_reported(void **state) {
  env_t *env = *state;
  assert_int_equal(run(env, leave_a_failure, NULL), 0);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EIO);
  assert_string_equal(env->report_messages[0], "cache, left behind by the main task, failed: could not flush");
}

static int64_t work(void *arg) {
  usleep(20000);
  *(bool *)arg = true;
  return 0;
}

static int64_t leave_a_job(aloop_t *loop, void *arg) {
  aloop_future_detach(aloop_to_thread(loop, work, arg));
  return 3;
}

static void jobs_of_the_default_executor_are_awaited(void **state) {
  env_t *env = *state;
  bool worked = false;
  if (on_poller(env, "virtual")) return;
  assert_int_equal(run(env, leave_a_job, &worked), 3);
  assert_true(worked);
}

/* ---- SIGINT ------------------------------------------------------------------------------------------------------ */

static int64_t be_interrupted(aloop_t *loop, void *arg) {
  (void)arg;
  kill(getpid(), SIGINT);
  int64_t rc = aloop_await(aloop_future_new(loop));
  assert_int_equal(rc, ALOOP_ECANCELED);
  assert_int_equal(aloop_await(aloop_sleep(loop, 10)), 0);
  cleaned++;
  return rc;
}

static bool sigint_is_default(void) {
  struct sigaction now;
  sigaction(SIGINT, NULL, &now);
  return now.sa_handler == SIG_DFL;
}

static void the_first_sigint_cancels_the_main_task(void **state) {
  cleaned = 0;
  assert_int_equal(run(*state, be_interrupted, NULL), ALOOP_EINTR);
  assert_int_equal(cleaned, 1);
  assert_true(sigint_is_default());
}

static int64_t deal_with_it(aloop_t *loop, void *arg) {
  be_interrupted(loop, arg);
  aloop_task_uncancel(aloop_current_task(loop));
  return 5;
}

static void a_main_task_may_deal_with_it(void **state) {
  assert_int_equal(run(*state, deal_with_it, NULL), 5);
}

static int64_t ignore_the_first(aloop_t *loop, void *arg) {
  int64_t rc = be_interrupted(loop, arg);
  kill(getpid(), SIGINT);
  while (rc == ALOOP_ECANCELED && cleaned < 100) {
    aloop_await(aloop_sleep(loop, 10000000));
    cleaned++;
  }
  return rc;
}

static void the_second_one_ends_the_run(void **state) {
  cleaned = 0;
  assert_int_equal(run(*state, ignore_the_first, NULL), ALOOP_EINTR);
}

static void count_signal(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum;
  ++*(int *)arg;
}

/* The signal twice with a handler of the loop, then once without. */
static int64_t handle_it(aloop_t *loop, void *arg) {
  assert_int_equal(aloop_add_signal_handler(loop, SIGINT, count_signal, arg, 0), 0);
  for (int i = 1; i <= 2; i++) {
    kill(getpid(), SIGINT);
    for (int turn = 0; turn < 100 && *(int *)arg < i; turn++)
      assert_int_equal(aloop_await(aloop_sleep(loop, 0)), 0);
    assert_int_equal(aloop_await(aloop_sleep(loop, 0)), 0);
    assert_int_equal(*(int *)arg, i);
  }
  assert_int_equal(aloop_task_cancelling(aloop_current_task(loop)), 0);
  assert_int_equal(aloop_remove_signal_handler(loop, SIGINT, count_signal, arg), 1);
  return be_interrupted(loop, NULL);
}

static void a_handler_of_the_loop_has_the_signal_to_itself(void **state) {
  int calls = 0;
  assert_int_equal(run(*state, handle_it, &calls), ALOOP_EINTR);
  assert_int_equal(calls, 2);
  assert_true(sigint_is_default());
}

static void nothing(int signum) {
  (void)signum;
}

static int64_t is_untouched(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  struct sigaction now;
  sigaction(SIGINT, NULL, &now);
  return now.sa_handler == nothing;
}

static void a_handler_of_the_program_stays(void **state) {
  signal(SIGINT, nothing);
  assert_int_equal(run(*state, is_untouched, NULL), 1);
  signal(SIGINT, SIG_DFL);
}

static int64_t is_default(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return sigint_is_default();
}

static void sigint_is_kept_if_asked(void **state) {
  (void)state;
  aloop_run_options_t options = {.size = sizeof options, .keep_sigint = true};
  assert_int_equal(aloop_run(is_default, NULL, &options), 1);
  assert_int_equal(aloop_run(is_default, NULL, NULL), 0);
}

static void *run_there(void *arg) {
  *(int64_t *)arg = aloop_run(is_default, NULL, NULL);
  return NULL;
}

static void other_threads_leave_sigint_alone(void **state) {
  (void)state;
#if !defined(__linux__) && !defined(__APPLE__) && !defined(__FreeBSD__) && !defined(__OpenBSD__) &&            \
    !defined(__NetBSD__)
  skip(); /* a thread cannot tell whether it is the main one */
#endif
  int64_t result = -1;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, run_there, &result), 0);
  pthread_join(thread, NULL);
  assert_int_equal(result, 1);
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static int64_t leave_two(aloop_t *loop, void *arg) {
  (void)arg;
  env_watch(here, loop);
  for (int i = 0; i < 2; i++) {
    aloop_future_t *task = aloop_create_task(loop, stop, NULL, NULL);
    if (task != NULL) aloop_future_detach(task);
  }
  return aloop_await(aloop_sleep(loop, 0));
}

static void every_allocation_may_fail(void **state) {
  env_t *env = *state;
  for (int all = 0; all < 2; all++) {
    bool reached = true;
    for (long n = 1; reached; n++) {
      env->calls = 0;
      *(all ? &env->fail_from : &env->fail_at) = n;
      int64_t rc = run(env, leave_two, NULL);
      assert_true(rc == 0 || rc == ALOOP_ENOMEM || rc == ALOOP_ESTOPPED || rc == ALOOP_ECANCELED);
      reached = env->calls >= n;
      env->fail_at = env->fail_from = 0;
    }
  }
}

TESTS(T(it_returns_what_the_main_task_does), T(it_says_in_words_why_it_failed), T(it_does_not_nest),
      T(a_stop_ends_it), T(tasks_that_are_left_are_cancelled_and_awaited), T(their_errors_are_reported),
      T(jobs_of_the_default_executor_are_awaited), T(the_first_sigint_cancels_the_main_task),
      T(a_main_task_may_deal_with_it), T(the_second_one_ends_the_run),
      T(a_handler_of_the_loop_has_the_signal_to_itself), T(a_handler_of_the_program_stays),
      T(sigint_is_kept_if_asked), T(other_threads_leave_sigint_alone), T(every_allocation_may_fail))
