/* SPDX-License-Identifier: MIT
 *
 * Semaphores: a number of places, first come first served.
 *
 * A place is promised like a lock (lock.c): from the release on to the first who waits, until its future has
 * been read or dropped. Nobody overtakes: as long as somebody who waited has been given a place and has not run
 * yet, a newcomer waits behind him even if there are places left, so that tasks start in the order in which
 * they came. Those that were promised a place without having to wait hold nobody up.
 *
 * Every call is O(1). A bounded semaphore counts a promised place as free when it looks whether there was one
 * release too many: nobody can have acquired it yet.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"
#include "task/waiters.h"

struct aloop_semaphore {
  aloop__object_t object;
  aloop__waiters_t waiters; /* empty while there are places, unless somebody is woken */
  int64_t value;            /* places that are free and promised to nobody */
  int64_t promised;
  int64_t woken; /* ... of these to somebody who waited */
  int64_t bound; /* value is not to exceed it */
  bool passing;  /* pass_on is at work */
};

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the semaphore is NULL");
}

static inline int enter(const aloop_semaphore_t *semaphore) {
  return ALOOP_LIKELY(semaphore != NULL) ? aloop__loop_thread(semaphore->object.loop) : refuse_null();
}

/* ---- Promises -------------------------------------------------------------------------------------------- */

/* Defined below: giving a place back is how the next one gets it. */
static const aloop__promise_t at_once;
static const aloop__promise_t in_turn;

/* The future may be gone afterwards, and its place given back. */
static void promise_to(aloop_semaphore_t *semaphore, aloop_future_t *future, const aloop__promise_t *promise) {
  semaphore->value--;
  semaphore->promised++;
  aloop__object_ref(&semaphore->object);
  aloop__future_finish_promise(future, 0, promise, semaphore);
}

/* A future that nobody holds gives its place back at once: then the loop goes on, instead of a call for each
 * that waits. */
static void pass_on(aloop_semaphore_t *semaphore) {
  if (semaphore->passing) return;
  semaphore->passing = true;
  while (semaphore->value > 0 && !aloop__waiters_empty(&semaphore->waiters)) {
    semaphore->woken++;
    promise_to(semaphore, aloop__waiters_next(&semaphore->waiters), &in_turn);
  }
  semaphore->passing = false;
}

static int keep_at_once(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_semaphore_t *semaphore = giver;
  semaphore->promised--;
  aloop__object_unref(&semaphore->object);
  return 0;
}

static void drop_at_once(aloop_future_t *future, void *giver) {
  aloop_semaphore_t *semaphore = giver;
  semaphore->value++;
  pass_on(semaphore);
  keep_at_once(future, giver);
}

static int keep_in_turn(aloop_future_t *future, void *giver) {
  aloop_semaphore_t *semaphore = giver;
  semaphore->woken--;
  pass_on(semaphore);
  return keep_at_once(future, giver);
}

static void drop_in_turn(aloop_future_t *future, void *giver) {
  aloop_semaphore_t *semaphore = giver;
  semaphore->woken--;
  drop_at_once(future, giver);
}

static const aloop__promise_t at_once = {keep_at_once, drop_at_once, drop_at_once};
static const aloop__promise_t in_turn = {keep_in_turn, drop_in_turn, drop_in_turn};

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_semaphore_t *semaphore = (const aloop_semaphore_t *)(const void *)object;
  snprintf(text, size, "with %" PRId64 " free, %" PRId64 " promised, %zu waiting", semaphore->value,
           semaphore->promised, semaphore->waiters.count);
}

static void destroy(aloop__object_t *object) {
  aloop__object_end(object, object);
}

/* Who waits is closed by himself. */
static void close_semaphore(aloop__object_t *object) {
  (void)object;
}

static const aloop__kind_t kind = {.name = "semaphore",
                                   .index = ALOOP__SYNC,
                                   .describe = describe,
                                   .destroy = destroy,
                                   .close = close_semaphore};

int aloop_semaphore_new(aloop_t *loop, int64_t value, bool bounded, aloop_semaphore_t **out) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (value < 0) return aloop__misuse(loop, ALOOP_EINVAL, "a semaphore has 0 places or more");
  if (out == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a new semaphore needs a place to go to");
  aloop_semaphore_t *semaphore = aloop__memory_zero(loop, sizeof *semaphore);
  if (semaphore == NULL) return ALOOP_ENOMEM;
  aloop__object_init(&semaphore->object, loop, &kind, NULL);
  aloop__waiters_init(&semaphore->waiters);
  semaphore->value = value;
  semaphore->bound = bounded ? value : INT64_MAX;
  *out = semaphore;
  return 0;
}

void aloop_semaphore_free(aloop_semaphore_t *semaphore) {
  if (semaphore == NULL || enter(semaphore) < 0) return;
  aloop__waiters_fail_all(&semaphore->waiters, ALOOP_ECANCELED, "the semaphore was freed");
  aloop__object_unref(&semaphore->object);
}

/* ---- Use ------------------------------------------------------------------------------------------------- */

static bool would_wait(const aloop_semaphore_t *semaphore) {
  return semaphore->value == 0 || semaphore->woken > 0;
}

aloop_future_t *aloop_semaphore_acquire(aloop_semaphore_t *semaphore) {
  static const char origin[] = "aloop_semaphore_acquire";
  if (enter(semaphore) < 0) return NULL;
  aloop_t *loop = semaphore->object.loop;
  if (would_wait(semaphore)) return aloop__waiters_join(&semaphore->waiters, loop, origin);
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (ALOOP_LIKELY(future != NULL && future->state == ALOOP__PENDING)) promise_to(semaphore, future, &at_once);
  return future;
}

int aloop_semaphore_release(aloop_semaphore_t *semaphore) {
  int rc = enter(semaphore);
  if (rc < 0) return rc;
  if (semaphore->value + semaphore->promised >= semaphore->bound)
    return aloop__misuse(semaphore->object.loop, ALOOP_ERANGE, "a semaphore is released once for each acquire");
  semaphore->value++;
  pass_on(semaphore);
  return 0;
}

bool aloop_semaphore_locked(const aloop_semaphore_t *semaphore) {
  return enter(semaphore) == 0 && would_wait(semaphore);
}

int64_t aloop_semaphore_value(const aloop_semaphore_t *semaphore) {
  int rc = enter(semaphore);
  return rc < 0 ? rc : semaphore->value;
}
