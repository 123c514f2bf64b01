/* SPDX-License-Identifier: MIT
 *
 * Threads of the library: see thread.c.
 */
#ifndef ALOOP_EXECUTOR_THREAD_H
#define ALOOP_EXECUTOR_THREAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "aloop.h"

/* Where one thread sleeps until another calls it. Both agree under a lock of theirs. */
typedef struct aloop__bed {
  _Atomic uint32_t called;
  pthread_cond_t condition; /* where there is no futex */
} aloop__bed_t;

/* Starts a thread that blocks the host's signals. `attributes` may be NULL, and so may `thread`: it is then
 * detached. Errors: ALOOP_EAGAIN. */
int aloop__thread_start(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg);

/* Names the calling thread for debuggers and ps, where threads can have names; 15 characters. */
void aloop__thread_name(const char *name);

/* A condition whose waits end at a moment of the monotonic clock. Returns 0 or ALOOP_ENOMEM. */
int aloop__thread_condition(pthread_cond_t *condition);

/* Waits, perhaps for no reason, until signalled or until `deadline` (of aloop__clock_monotonic; negative:
 * none). Returns whether that has passed. */
bool aloop__thread_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t deadline);

/* A bed to sleep in. Returns 0 or ALOOP_ENOMEM. */
int aloop__thread_bed_init(aloop__bed_t *bed);
void aloop__thread_bed_destroy(aloop__bed_t *bed);

/* Sleeps until called or until `deadline` (as above); without the lock meanwhile. Returns whether called. */
bool aloop__thread_sleep(aloop__bed_t *bed, pthread_mutex_t *lock, int64_t deadline);

/* Calls whoever sleeps there, once: under the lock. Ringing wakes him, and is best done without it: an awake
 * thread that finds the lock taken falls asleep again. The bed may be gone by then; NULL is fine. */
void *aloop__thread_call(aloop__bed_t *bed);
void aloop__thread_ring(void *bell);

/* The moment `timeout` ns from now; negative, for no deadline, if it is ALOOP_FOREVER. */
int64_t aloop__thread_deadline(int64_t timeout);

#endif
