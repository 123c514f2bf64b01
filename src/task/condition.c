/* SPDX-License-Identifier: MIT
 *
 * Conditions: waiting, without the lock, for something that whoever has the lock will tell of.
 *
 * A wait is one future that stands in two lines, one after the other: that of the condition until it is
 * notified, and then that of the lock, which it holds when it ends. Notified waiters stand in the lock's line
 * at once and not only when they run, so they get it in the order of their notification. A predicate is
 * looked at when the lock is had: where it does not hold, the waiter goes back to the condition's line and its
 * task does not run at all.
 *
 * Whoever waits has the lock before and after, whatever happens in between. So cancelling is a request: the
 * waiter goes to the lock's line and ends, cancelled, when it has the lock. Only aloop_close and freeing the
 * lock end a wait without it. For the same reason the lock is not a promise here (lock.c): it is held
 * when the future ends, read or unread.
 *
 * A notification is never lost: one that came to somebody who was cancelled before he could run goes to
 * the next.
 *
 * All costs O(1), notify O(n). A waiter keeps the condition, and that the lock.
 */
#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"
#include "task/lock.h"

struct aloop_condition {
  aloop__object_t object;
  aloop__waiters_t waiters; /* not notified yet */
  aloop_lock_t *lock;       /* a reference */
  bool own;                 /* it was made with the condition: nobody else can use it */
};

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the condition is NULL");
}

static inline int enter(const aloop_condition_t *condition) {
  return ALOOP_LIKELY(condition != NULL) ? aloop__loop_thread(condition->object.loop) : refuse_null();
}

/* ---- Waiting --------------------------------------------------------------------------------------------- */

static void notify(aloop_condition_t *condition, size_t count) {
  for (; count > 0 && !aloop__waiters_empty(&condition->waiters); count--) {
    aloop__waiter_t *waiter = aloop__waiters_of(aloop__waiters_next(&condition->waiters));
    waiter->notified = true;
    aloop__waiters_move(waiter, &condition->lock->waiters);
  }
  if (condition->lock->state == ALOOP__LOCK_FREE) aloop__lock_release(condition->lock);
}

static int keep(aloop_future_t *future, void *giver) {
  (void)future, (void)giver;
  return 0;
}

static void drop(aloop_future_t *future, void *giver) {
  (void)future, (void)giver;
}

static void forsake(aloop_future_t *future, void *giver) {
  (void)future;
  notify(giver, 1);
}

static const aloop__promise_t promise = {.keep = keep, .drop = drop, .forsake = forsake};

/* The waiter, in no line now, has the lock. Its predicate may cancel the wait. */
static void on_lock(aloop__waiter_t *waiter) {
  aloop_condition_t *condition = waiter->item;
  aloop_future_t *future = &waiter->future;
  bool holds = future->asked || waiter->predicate == NULL || waiter->predicate(waiter->arg);
  if (future->asked) {
    if (waiter->notified) notify(condition, 1);
    aloop__future_fail(future, ALOOP_ECANCELED, NULL);
  } else if (!holds) {
    waiter->notified = false;
    aloop__waiters_move(waiter, &condition->waiters);
    aloop__lock_release(condition->lock);
  } else {
    aloop__future_finish_promise(future, 0, &promise, condition);
  }
}

/* To the line of the lock; what it has from there is a cancel. */
static void cancel_wait(aloop_future_t *future, const char *message) {
  (void)message;
  aloop__waiter_t *waiter = aloop__waiters_of(future);
  aloop_condition_t *condition = waiter->item;
  future->asked = true;
  if (waiter->line != &condition->waiters) return; /* notified already, and in the lock's line */
  aloop__waiters_move(waiter, &condition->lock->waiters);
  if (condition->lock->state == ALOOP__LOCK_FREE) aloop__lock_release(condition->lock);
}

static const aloop__future_kind_t waiting = {.object = {.name = "future",
                                                        .index = ALOOP__FUTURE,
                                                        .describe = aloop__future_describe,
                                                        .destroy = aloop__waiters_destroy,
                                                        .close = aloop__future_close,
                                                        .resume = aloop__future_resume},
                                             .cancel = cancel_wait};

static bool has_lock(const aloop_condition_t *condition) {
  return condition->lock->state == ALOOP__LOCK_HELD;
}

static aloop_future_t *wait(aloop_condition_t *condition, bool (*predicate)(void *arg), void *arg,
                            const char *origin) {
  aloop_future_t *future =
      aloop__waiters_join_as(&condition->waiters, condition->object.loop, &waiting, origin);
  if (future == NULL || future->state != ALOOP__PENDING) return future;
  aloop__waiter_t *waiter = aloop__waiters_of(future);
  aloop__object_ref(&condition->object);
  waiter->keeps = &condition->object;
  waiter->item = condition;
  waiter->turn = on_lock;
  waiter->predicate = predicate;
  waiter->arg = arg;
  waiter->notified = false;
  aloop__lock_release(condition->lock);
  return future;
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_condition_t *condition = (const aloop_condition_t *)(const void *)object;
  snprintf(text, size, "%zu waiting", condition->waiters.count);
}

static void destroy(aloop__object_t *object) {
  aloop_condition_t *condition = ALOOP_CONTAINER_OF(object, aloop_condition_t, object);
  aloop__object_unref(&condition->lock->object);
  aloop__object_end(object, condition);
}

/* Who waits is closed by himself. */
static void close_condition(aloop__object_t *object) {
  (void)object;
}

static const aloop__kind_t kind = {.name = "condition",
                                   .index = ALOOP__SYNC,
                                   .describe = describe,
                                   .destroy = destroy,
                                   .close = close_condition};

int aloop_condition_new(aloop_t *loop, aloop_lock_t *lock, aloop_condition_t **out) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (out == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a new condition needs a place to go to");
  if (lock != NULL && lock->object.loop != loop)
    return aloop__misuse(loop, ALOOP_EOTHERLOOP, "the lock of a condition belongs to another loop");
  aloop_condition_t *condition = aloop__memory_zero(loop, sizeof *condition);
  if (condition == NULL) return ALOOP_ENOMEM;
  condition->own = lock == NULL;
  if (lock != NULL) {
    aloop__object_ref(&lock->object);
  } else if ((rc = aloop_lock_new(loop, &lock)) < 0) {
    aloop__memory_release(loop, condition);
    return rc;
  }
  aloop__object_init(&condition->object, loop, &kind, NULL);
  aloop__waiters_init(&condition->waiters);
  condition->lock = lock;
  *out = condition;
  return 0;
}

/* Who is cancelled gets in line for the lock; one that went with the condition will never be given back. */
void aloop_condition_free(aloop_condition_t *condition) {
  if (condition == NULL || enter(condition) < 0) return;
  for (size_t left = condition->waiters.count; left > 0; left--)
    aloop_future_cancel(&ALOOP_CONTAINER_OF(condition->waiters.list.next, aloop__waiter_t, link)->future);
  if (condition->own)
    aloop__waiters_fail_all(&condition->lock->waiters, ALOOP_ECANCELED, "the condition was freed");
  aloop__object_unref(&condition->object);
}

/* ---- Use ------------------------------------------------------------------------------------------------- */

aloop_future_t *aloop_condition_acquire(aloop_condition_t *condition) {
  return enter(condition) == 0 ? aloop_lock_acquire(condition->lock) : NULL;
}

int aloop_condition_release(aloop_condition_t *condition) {
  int rc = enter(condition);
  return rc == 0 ? aloop_lock_release(condition->lock) : rc;
}

bool aloop_condition_locked(const aloop_condition_t *condition) {
  return enter(condition) == 0 && aloop_lock_locked(condition->lock);
}

#define WAIT_WITHOUT_LOCK "acquire the lock of a condition before waiting for it"

aloop_future_t *aloop_condition_wait(aloop_condition_t *condition) {
  static const char origin[] = "aloop_condition_wait";
  if (enter(condition) < 0) return NULL;
  if (has_lock(condition)) return wait(condition, NULL, NULL, origin);
  return aloop__future_refused(condition->object.loop, origin, ALOOP_EPERM, WAIT_WITHOUT_LOCK);
}

aloop_future_t *aloop_condition_wait_for(aloop_condition_t *condition, bool (*predicate)(void *arg),
                                         void *arg) {
  static const char origin[] = "aloop_condition_wait_for";
  if (enter(condition) < 0) return NULL;
  aloop_t *loop = condition->object.loop;
  if (predicate == NULL)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL, "a condition waits for a predicate to hold");
  if (!has_lock(condition)) return aloop__future_refused(loop, origin, ALOOP_EPERM, WAIT_WITHOUT_LOCK);
  if (!predicate(arg)) return wait(condition, predicate, arg, origin);
  aloop_future_t *future = aloop__future_new(loop, origin);
  aloop__future_finish(future, 0);
  return future;
}

int aloop_condition_notify(aloop_condition_t *condition, size_t count) {
  int rc = enter(condition);
  if (rc < 0) return rc;
  if (!has_lock(condition))
    return aloop__lock_refuse(condition->lock, "acquire the lock of a condition before notifying");
  notify(condition, count);
  return 0;
}

int aloop_condition_notify_all(aloop_condition_t *condition) {
  return aloop_condition_notify(condition, SIZE_MAX);
}
