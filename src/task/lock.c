/* SPDX-License-Identifier: MIT
 *
 * Locks: one holder at a time, first come first served.
 *
 * Releasing a lock that others wait for promises it to the first of them, in the same call, so nobody who
 * comes later can be quicker. From then on until that waiter has read the result of its future the lock is
 * promised: not free, and not yet anybody's to release. If the future goes unread, because its task was
 * cancelled before it could run, or because nobody wanted it any more, the promise goes to the next in line.
 *
 * Two differences to asyncio follow from that. aloop_lock_locked means "acquire would have to wait", as
 * asyncio's semaphores have it, while Lock.locked is false from the release to the moment the next holder runs.
 * And an acquire whose future is dropped leaves no lock behind that nobody can release.
 *
 * Every call is O(1). A lock does not know who holds it: whoever has it may hand it on, and release it from a
 * callback.
 */
#include "task/lock.h"

#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the lock is NULL");
}

static inline int enter(const aloop_lock_t *lock) {
  return ALOOP_LIKELY(lock != NULL) ? aloop__loop_thread(lock->object.loop) : refuse_null();
}

/* ---- The promise ----------------------------------------------------------------------------------------- */

static int keep(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_lock_t *lock = giver;
  lock->state = ALOOP__LOCK_HELD;
  aloop__object_unref(&lock->object);
  return 0;
}

static void give_back(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_lock_t *lock = giver;
  aloop__lock_release(lock);
  aloop__object_unref(&lock->object);
}

static const aloop__promise_t promise = {.keep = keep, .drop = give_back, .forsake = give_back};

/* The future may be gone afterwards, and its promise given back. */
static void promise_to(aloop_lock_t *lock, aloop_future_t *future) {
  lock->state = ALOOP__LOCK_PROMISED;
  aloop__object_ref(&lock->object);
  aloop__future_finish_promise(future, 0, &promise, lock);
}

static void give_to(aloop_lock_t *lock, aloop_future_t *next) {
  aloop__waiter_t *waiter = aloop__waiters_of(next);
  if (ALOOP_LIKELY(waiter->turn == NULL)) {
    promise_to(lock, next);
  } else {
    lock->state = ALOOP__LOCK_HELD;
    waiter->turn(waiter);
  }
}

/* A future that nobody holds gives the promise back at once: then the loop goes on, instead of a call for each
 * that waits. */
void aloop__lock_release(aloop_lock_t *lock) {
  lock->state = ALOOP__LOCK_FREE;
  if (lock->passing) return;
  lock->passing = true;
  while (lock->state == ALOOP__LOCK_FREE && !aloop__waiters_empty(&lock->waiters))
    give_to(lock, aloop__waiters_next(&lock->waiters));
  lock->passing = false;
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_lock_t *lock = (const aloop_lock_t *)(const void *)object;
  static const char *const states[] = {"free", "promised", "held"};
  snprintf(text, size, "%s, %zu waiting", states[lock->state], lock->waiters.count);
}

static void destroy(aloop__object_t *object) {
  aloop__object_end(object, object);
}

/* Who waits is closed by himself. */
static void close_lock(aloop__object_t *object) {
  (void)object;
}

static const aloop__kind_t kind = {
    .name = "lock", .index = ALOOP__SYNC, .describe = describe, .destroy = destroy, .close = close_lock};

int aloop_lock_new(aloop_t *loop, aloop_lock_t **out) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (out == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a new lock needs a place to go to");
  aloop_lock_t *lock = aloop__memory_zero(loop, sizeof *lock);
  if (lock == NULL) return ALOOP_ENOMEM;
  aloop__object_init(&lock->object, loop, &kind, NULL);
  aloop__waiters_init(&lock->waiters);
  *out = lock;
  return 0;
}

void aloop_lock_free(aloop_lock_t *lock) {
  if (lock == NULL || enter(lock) < 0) return;
  aloop__waiters_fail_all(&lock->waiters, ALOOP_ECANCELED, "the lock was freed");
  aloop__object_unref(&lock->object);
}

/* ---- Use ------------------------------------------------------------------------------------------------- */

aloop_future_t *aloop_lock_acquire(aloop_lock_t *lock) {
  static const char origin[] = "aloop_lock_acquire";
  if (enter(lock) < 0) return NULL;
  aloop_t *loop = lock->object.loop;
  if (lock->state != ALOOP__LOCK_FREE) return aloop__waiters_join(&lock->waiters, loop, origin);
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (ALOOP_LIKELY(future != NULL && future->state == ALOOP__PENDING)) promise_to(lock, future);
  return future;
}

int aloop__lock_refuse(const aloop_lock_t *lock, const char *rule) {
  aloop_t *loop = lock->object.loop;
  return loop->guard & ALOOP__GUARD_CLOSED ? ALOOP_EPERM : aloop__misuse(loop, ALOOP_EPERM, rule);
}

int aloop_lock_release(aloop_lock_t *lock) {
  int rc = enter(lock);
  if (rc < 0) return rc;
  if (lock->state != ALOOP__LOCK_HELD)
    return aloop__lock_refuse(lock, "a lock is released by whoever has acquired it");
  aloop__lock_release(lock);
  return 0;
}

bool aloop_lock_locked(const aloop_lock_t *lock) {
  return enter(lock) == 0 && lock->state != ALOOP__LOCK_FREE;
}
