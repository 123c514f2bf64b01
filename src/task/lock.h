/* SPDX-License-Identifier: MIT
 *
 * Locks as conditions see them.
 */
#ifndef ALOOP_TASK_LOCK_H
#define ALOOP_TASK_LOCK_H

#include "task/waiters.h"

enum { ALOOP__LOCK_FREE, ALOOP__LOCK_PROMISED, ALOOP__LOCK_HELD };

struct aloop_lock {
  aloop__object_t object;
  aloop__waiters_t waiters; /* empty while the lock is free */
  unsigned state;
  bool passing; /* pass_on is at work */
};

/* Gives up a lock that is held, or looks again who waits for one that is free. A waiter with a `turn` holds the
 * lock when that is called. */
void aloop__lock_release(aloop_lock_t *lock);

/* ALOOP_EPERM for somebody who does not hold the lock. On a closed loop that is no mistake: whoever tidies up
 * there cannot know that his wait for the lock was ended with the loop. */
int aloop__lock_refuse(const aloop_lock_t *lock, const char *rule);

#endif
