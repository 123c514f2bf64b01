/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * Threads of the library: what they inherit, and waits that end.
 */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "core/clock.h"
#include "executor/thread.h"

typedef struct seen {
  sigset_t mask;
  char name[32];
} seen_t;

static void *look(void *arg) {
  seen_t *seen = arg;
  pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
  aloop__thread_name("a-name-longer-than-fifteen");
#ifdef __linux__
  pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
#endif
  return NULL;
}

static void run_look(seen_t *seen) {
  pthread_t thread;
  memset(seen, 0, sizeof *seen);
  assert_int_equal(aloop__thread_start(&thread, NULL, look, seen), 0);
  pthread_join(thread, NULL);
}

static void the_hosts_signals_are_blocked(void **state) {
  (void)state;
  seen_t seen;
  run_look(&seen);
  static const int blocked[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGALRM, SIGUSR1, SIGPIPE, SIGWINCH};
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  for (size_t i = 0; i < sizeof blocked / sizeof blocked[0]; i++)
    assert_int_equal(sigismember(&seen.mask, blocked[i]), 1);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
    assert_int_equal(sigismember(&seen.mask, faults[i]), 0);
}

static void the_starters_mask_stays(void **state) {
  (void)state;
  seen_t seen;
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  run_look(&seen);
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  for (int signal = 1; signal < 32; signal++)
    assert_int_equal(sigismember(&before, signal), sigismember(&after, signal));
}

static void long_names_are_cut(void **state) {
  (void)state;
#ifdef __linux__
  seen_t seen;
  run_look(&seen);
  assert_string_equal(seen.name, "a-name-longer-t");
#else
  skip();
#endif
}

static void a_wait_ends_at_its_deadline(void **state) {
  (void)state;
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition;
  assert_int_equal(aloop__thread_condition(&condition), 0);
  int64_t deadline = aloop__thread_deadline(ALOOP_MILLIS(2));
  pthread_mutex_lock(&lock);
  while (!aloop__thread_wait(&condition, &lock, deadline)) continue;
  pthread_mutex_unlock(&lock);
  assert_true(aloop__clock_monotonic() >= deadline);
  pthread_cond_destroy(&condition);
}

static void a_deadline_may_be_far_away(void **state) {
  (void)state;
  assert_true(aloop__thread_deadline(ALOOP_FOREVER) < 0);
  assert_true(aloop__thread_deadline(INT64_MAX) < 0);
  assert_true(aloop__thread_deadline(0) <= aloop__clock_monotonic());
}

TESTS(T(the_hosts_signals_are_blocked), T(the_starters_mask_stays), T(long_names_are_cut),
      T(a_wait_ends_at_its_deadline), T(a_deadline_may_be_far_away))
