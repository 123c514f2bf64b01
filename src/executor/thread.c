/* SPDX-License-Identifier: MIT
 *
 * Threads of the library. They are guests in the host's process, so signals are none of their business: each
 * inherits a mask that blocks all of them, and the host's own threads get them as before. The exceptions are
 * those that the kernel sends to a thread for a fault of its own (SIGSEGV and its like): blocked, they would
 * kill the process without the host's crash handler ever being asked.
 *
 * Conditions wait on the monotonic clock, so that a change of the time of day neither hurries nor delays them.
 * Where conditions know the time of day only, a wait is cut into pieces of a second at most: the caller
 * compares with the monotonic clock each time round.
 *
 * A thread that waits for work sleeps on a word of its own, where there are futexes: with a condition it would
 * have to get the lock back from whoever is still about to let go of it, and so fall asleep twice. Whoever
 * wakes it needs no more than the word's address, even if thread and word are gone by then: the kernel wakes
 * nobody, or somebody who looks again and sleeps on.
 */
#include "executor/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#if ALOOP_HAVE_FUTEX
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/clock.h"

#define NS_PER_SECOND INT64_C(1000000000)

static void block_signals(sigset_t *before) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
  sigset_t all;
  sigfillset(&all);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) sigdelset(&all, faults[i]);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

int aloop__thread_start(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg) {
  pthread_t made;
  sigset_t before;
  block_signals(&before);
  int rc = pthread_create(&made, attributes, run, arg);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (rc != 0) return ALOOP_EAGAIN;
  if (thread != NULL)
    *thread = made;
  else
    pthread_detach(made);
  return 0;
}

void aloop__thread_name(const char *name) {
#if defined(__linux__) && defined(_GNU_SOURCE)
  char text[16];
  snprintf(text, sizeof text, "%s", name);
  pthread_setname_np(pthread_self(), text);
#elif defined(__APPLE__)
  pthread_setname_np(name);
#else
  (void)name;
#endif
}

#if ALOOP_HAVE_CONDATTR_SETCLOCK || ALOOP_HAVE_FUTEX
static struct timespec to_timespec(int64_t moment) {
  return (struct timespec){.tv_sec = (time_t)(moment / NS_PER_SECOND),
                           .tv_nsec = (long)(moment % NS_PER_SECOND)};
}
#endif

#if ALOOP_HAVE_CONDATTR_SETCLOCK

int aloop__thread_condition(pthread_cond_t *condition) {
  pthread_condattr_t attributes;
  if (pthread_condattr_init(&attributes) != 0) return ALOOP_ENOMEM;
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  int rc = pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
  return rc == 0 ? 0 : ALOOP_ENOMEM;
}

static void wait_some(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline) {
  struct timespec when = to_timespec(deadline);
  pthread_cond_timedwait(condition, lock, &when);
}

#else

int aloop__thread_condition(pthread_cond_t *condition) {
  return pthread_cond_init(condition, NULL) == 0 ? 0 : ALOOP_ENOMEM;
}

static void wait_some(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline) {
  struct timespec when;
  int64_t left = deadline - aloop__clock_monotonic();
  if (left > NS_PER_SECOND) left = NS_PER_SECOND;
  if (left <= 0 || timespec_get(&when, TIME_UTC) != TIME_UTC) return;
  int64_t ns = when.tv_nsec + left;
  when.tv_sec += (time_t)(ns / NS_PER_SECOND);
  when.tv_nsec = (long)(ns % NS_PER_SECOND);
  pthread_cond_timedwait(condition, lock, &when);
}

#endif

bool aloop__thread_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline) {
  if (deadline < 0) {
    pthread_cond_wait(condition, lock);
    return false;
  }
  wait_some(condition, lock, deadline);
  return aloop__clock_monotonic() >= deadline;
}

/* The kernel's own struct of a time is that of the C library where a long has 64 bits. */
#if ALOOP_HAVE_FUTEX && defined(__LP64__)

int aloop__thread_bed_init(aloop__bed_t *bed) {
  atomic_init(&bed->called, 0);
  return 0;
}

void aloop__thread_bed_destroy(aloop__bed_t *bed) {
  (void)bed;
}

bool aloop__thread_sleep(aloop__bed_t *bed, pthread_mutex_t *lock, int64_t deadline) {
  struct timespec when = to_timespec(deadline);
  atomic_store_explicit(&bed->called, 0, memory_order_relaxed);
  pthread_mutex_unlock(lock);
  bool late = false;
  while (!late && atomic_load_explicit(&bed->called, memory_order_relaxed) == 0)
    late = syscall(SYS_futex, &bed->called, FUTEX_WAIT_BITSET_PRIVATE, 0, deadline < 0 ? NULL : &when, NULL,
                   FUTEX_BITSET_MATCH_ANY) < 0 &&
           errno == ETIMEDOUT;
  pthread_mutex_lock(lock);
  return atomic_load_explicit(&bed->called, memory_order_relaxed) != 0;
}

void *aloop__thread_call(aloop__bed_t *bed) {
  atomic_store_explicit(&bed->called, 1, memory_order_relaxed);
  return &bed->called;
}

void aloop__thread_ring(void *bell) {
  int saved = errno;
  if (bell != NULL) syscall(SYS_futex, bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
  errno = saved;
}

#else

int aloop__thread_bed_init(aloop__bed_t *bed) {
  return aloop__thread_condition(&bed->condition);
}

void aloop__thread_bed_destroy(aloop__bed_t *bed) {
  pthread_cond_destroy(&bed->condition);
}

bool aloop__thread_sleep(aloop__bed_t *bed, pthread_mutex_t *lock, int64_t deadline) {
  atomic_store_explicit(&bed->called, 0, memory_order_relaxed);
  bool late = false;
  while (!late && atomic_load_explicit(&bed->called, memory_order_relaxed) == 0)
    late = aloop__thread_wait(&bed->condition, lock, deadline);
  return atomic_load_explicit(&bed->called, memory_order_relaxed) != 0;
}

void *aloop__thread_call(aloop__bed_t *bed) {
  atomic_store_explicit(&bed->called, 1, memory_order_relaxed);
  pthread_cond_signal(&bed->condition);
  return NULL;
}

void aloop__thread_ring(void *bell) {
  (void)bell;
}

#endif

int64_t aloop__thread_deadline(int64_t timeout) {
  if (timeout < 0) return -1;
  int64_t now = aloop__clock_monotonic();
  return timeout > INT64_MAX - now ? -1 : now + timeout;
}
