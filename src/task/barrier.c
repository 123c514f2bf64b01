/* SPDX-License-Identifier: MIT
 *
 * Barriers: nobody goes on before all have come.
 *
 * The last of a round to come ends the waits of all others, in the same call. So rounds never mix: whoever
 * comes back before the others have even run is the first of the next round, and there is no state between two
 * rounds ("draining" in asyncio) in which newcomers have to be kept out. For the same reason a round that is
 * complete stays so when the barrier is aborted or reset before its tasks have run.
 *
 * The value of a wait is the place in the order of coming, counted among those who were there when the round
 * was complete: each from 0 to parties - 1 is given once, also when somebody left in between, where asyncio
 * gives one of them twice.
 *
 * Completing a round, abort and reset cost O(parties), all else O(1).
 */
#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"
#include "task/waiters.h"

struct aloop_barrier {
  aloop__object_t object;
  aloop__waiters_t waiters; /* fewer than parties */
  size_t parties;
  bool broken;
};

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the barrier is NULL");
}

static inline int enter(const aloop_barrier_t *barrier) {
  return ALOOP_LIKELY(barrier != NULL) ? aloop__loop_thread(barrier->object.loop) : refuse_null();
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_barrier_t *barrier = (const aloop_barrier_t *)(const void *)object;
  snprintf(text, size, "%s, %zu of %zu waiting", barrier->broken ? "broken" : "filling", barrier->waiters.count,
           barrier->parties);
}

static void destroy(aloop__object_t *object) {
  aloop__object_end(object, object);
}

/* Who waits is closed by himself. */
static void close_barrier(aloop__object_t *object) {
  (void)object;
}

static const aloop__kind_t kind = {
    .name = "barrier", .index = ALOOP__SYNC, .describe = describe, .destroy = destroy, .close = close_barrier};

int aloop_barrier_new(aloop_t *loop, size_t parties, aloop_barrier_t **out) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (parties == 0) return aloop__misuse(loop, ALOOP_EINVAL, "a barrier waits for 1 or more");
  if (out == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a new barrier needs a place to go to");
  aloop_barrier_t *barrier = aloop__memory_zero(loop, sizeof *barrier);
  if (barrier == NULL) return ALOOP_ENOMEM;
  aloop__object_init(&barrier->object, loop, &kind, NULL);
  aloop__waiters_init(&barrier->waiters);
  barrier->parties = parties;
  *out = barrier;
  return 0;
}

void aloop_barrier_free(aloop_barrier_t *barrier) {
  if (barrier == NULL || enter(barrier) < 0) return;
  aloop__waiters_fail_all(&barrier->waiters, ALOOP_ECANCELED, "the barrier was freed");
  aloop__object_unref(&barrier->object);
}

/* Ends the round with the future of the last one to come. */
static void complete(aloop_barrier_t *barrier, aloop_future_t *last) {
  int64_t index = 0;
  while (!aloop__waiters_empty(&barrier->waiters))
    aloop__future_finish(aloop__waiters_next(&barrier->waiters), index++);
  aloop__future_finish(last, index);
}

aloop_future_t *aloop_barrier_wait(aloop_barrier_t *barrier) {
  static const char origin[] = "aloop_barrier_wait";
  if (enter(barrier) < 0) return NULL;
  aloop_t *loop = barrier->object.loop;
  if (barrier->broken) return aloop__future_failed(loop, origin, ALOOP_EBROKEN, NULL);
  if (barrier->waiters.count + 1 < barrier->parties)
    return aloop__waiters_join(&barrier->waiters, loop, origin);
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future != NULL && future->state == ALOOP__PENDING) complete(barrier, future);
  return future;
}

static int break_round(aloop_barrier_t *barrier, bool broken, const char *message) {
  int rc = enter(barrier);
  if (rc < 0) return rc;
  barrier->broken = broken;
  aloop__waiters_fail_all(&barrier->waiters, ALOOP_EBROKEN, message);
  return 0;
}

int aloop_barrier_reset(aloop_barrier_t *barrier) {
  return break_round(barrier, false, "the barrier was reset");
}

int aloop_barrier_abort(aloop_barrier_t *barrier) {
  return break_round(barrier, true, "the barrier was aborted");
}

size_t aloop_barrier_parties(const aloop_barrier_t *barrier) {
  return enter(barrier) == 0 ? barrier->parties : 0;
}

size_t aloop_barrier_n_waiting(const aloop_barrier_t *barrier) {
  return enter(barrier) == 0 ? barrier->waiters.count : 0;
}

bool aloop_barrier_broken(const aloop_barrier_t *barrier) {
  return enter(barrier) == 0 && barrier->broken;
}
