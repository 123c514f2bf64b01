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

/* Gives up a lock that is held. */
void aloop__lock_release(aloop_lock_t *lock);

#endif
