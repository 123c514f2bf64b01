/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * Threads of the library: what they inherit, and waits that end.
 */
#include "harness.h"

#include <errno.h>
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

typedef struct bedroom {
  pthread_mutex_t lock;
  aloop__bed_t bed;
  bool ready;
  pthread_cond_t changed;
  int calls;
} bedroom_t;

static void *sleep_twice(void *arg) {
  bedroom_t *room = arg;
  pthread_mutex_lock(&room->lock);
  for (int i = 0; i < 2; i++) {
    room->ready = true;
    pthread_cond_signal(&room->changed);
    if (aloop__thread_sleep(&room->bed, &room->lock, ALOOP_FOREVER)) room->calls++;
  }
  pthread_mutex_unlock(&room->lock);
  return NULL;
}

static void a_sleeper_is_called(void **state) {
  (void)state;
  bedroom_t room = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  pthread_t thread;
  assert_int_equal(aloop__thread_bed_init(&room.bed), 0);
  assert_int_equal(aloop__thread_start(&thread, NULL, sleep_twice, &room), 0);
  for (int i = 0; i < 2; i++) {
    pthread_mutex_lock(&room.lock);
    while (!room.ready) pthread_cond_wait(&room.changed, &room.lock);
    room.ready = false;
    void *bell = aloop__thread_call(&room.bed);
    pthread_mutex_unlock(&room.lock);
    aloop__thread_ring(bell);
  }
  pthread_join(thread, NULL);
  assert_int_equal(room.calls, 2);
  aloop__thread_bed_destroy(&room.bed);
}

static void a_sleeper_that_nobody_calls_wakes_at_its_deadline(void **state) {
  (void)state;
  bedroom_t room = {.lock = PTHREAD_MUTEX_INITIALIZER};
  assert_int_equal(aloop__thread_bed_init(&room.bed), 0);
  int64_t deadline = aloop__thread_deadline(ALOOP_MILLIS(2));
  errno = ENOSPC;
  aloop__thread_ring(&room.bed.called);
  assert_int_equal(errno, ENOSPC);
  pthread_mutex_lock(&room.lock);
  assert_false(aloop__thread_sleep(&room.bed, &room.lock, deadline));
  pthread_mutex_unlock(&room.lock);
  assert_true(aloop__clock_monotonic() >= deadline);
  aloop__thread_ring(NULL);
  aloop__thread_bed_destroy(&room.bed);
}

TESTS(T(the_hosts_signals_are_blocked), T(the_starters_mask_stays), T(long_names_are_cut),
      T(a_wait_ends_at_its_deadline), T(a_deadline_may_be_far_away), T(a_sleeper_is_called),
      T(a_sleeper_that_nobody_calls_wakes_at_its_deadline))
