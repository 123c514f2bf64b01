/* SPDX-License-Identifier: MIT
 *
 * as_completed: many futures, given to the caller in the order in which they end.
 *
 * Each future is watched by a done callback of its own and noted in `order` when that runs. A call of next is
 * promised one of those noted and gets the first of them when its result is read, so that one that was
 * cancelled or dropped takes nothing with it. The futures themselves are never cancelled, as in asyncio.
 *
 * When the time is over the futures that have ended are still given, and each call beyond them fails. Beginning
 * costs O(futures), every other call O(1); one block holds it all.
 */
#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"
#include "task/waiters.h"

typedef struct slot {
  aloop_as_completed_t *all;
  aloop_future_t *future; /* a reference, until it is given */
} slot_t;

struct aloop_as_completed {
  aloop__object_t object;
  aloop__waiters_t waiters; /* while all that have ended are given or promised */
  aloop_handle_t timer;
  bool late;
  bool settling;
  size_t count;
  size_t ended;
  size_t promised;
  size_t given;
  size_t timed_out; /* calls of next */
  size_t *order;    /* indices, of those that have ended */
  slot_t slots[];
};

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "there is nothing to go through: it is NULL");
}

static inline int enter(const aloop_as_completed_t *all) {
  return ALOOP_LIKELY(all != NULL) ? aloop__loop_thread(all->object.loop) : refuse_null();
}

/* ---- Promises -------------------------------------------------------------------------------------------- */

/* Defined below: dropping one leads to the next. */
static const aloop__promise_t promise;

static bool has_ended(const aloop_as_completed_t *all) {
  return all->ended > all->given + all->promised;
}

/* The future may be gone afterwards, and its promise given back. */
static void promise_to(aloop_as_completed_t *all, aloop_future_t *future) {
  all->promised++;
  aloop__object_ref(&all->object);
  aloop__future_finish_promise(future, 0, &promise, all);
}

static void settle(aloop_as_completed_t *all) {
  if (all->settling) return;
  all->settling = true;
  while (!aloop__waiters_empty(&all->waiters) && has_ended(all))
    promise_to(all, aloop__waiters_next(&all->waiters));
  all->settling = false;
}

static void destroy_future(void *future) {
  aloop_future_unref(future);
}

static int keep(aloop_future_t *future, void *giver) {
  aloop_as_completed_t *all = giver;
  all->promised--;
  size_t index = all->order[all->given++];
  future->value = (int64_t)index;
  future->ptr = all->slots[index].future;
  future->destroy = destroy_future;
  future->owner = true;
  all->slots[index].future = NULL;
  aloop__object_unref(&all->object);
  return 0;
}

static void drop(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_as_completed_t *all = giver;
  all->promised--;
  settle(all);
  aloop__object_unref(&all->object);
}

static const aloop__promise_t promise = {.keep = keep, .drop = drop, .forsake = drop};

/* ---- What happens ---------------------------------------------------------------------------------------- */

static void on_end(aloop_future_t *future, void *arg) {
  (void)future;
  slot_t *slot = arg;
  aloop_as_completed_t *all = slot->all;
  all->order[all->ended++] = (size_t)(slot - all->slots);
  if (all->ended == all->count) aloop_cancel(all->object.loop, &all->timer);
  settle(all);
}

static void unwatch(aloop_as_completed_t *all) {
  for (size_t i = 0; i < all->count; i++)
    if (all->slots[i].future != NULL) aloop__future_unwatch(all->slots[i].future, on_end, &all->slots[i]);
}

#define TIME_LIMIT "the futures have not ended in time"

static void on_late(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_as_completed_t *all = arg;
  all->late = true;
  unwatch(all);
  all->timed_out = all->waiters.count;
  aloop__waiters_fail_all(&all->waiters, ALOOP_ETIMEDOUT, TIME_LIMIT);
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_as_completed_t *all = (const aloop_as_completed_t *)(const void *)object;
  snprintf(text, size, "%zu futures, %zu ended, %zu given", all->count, all->ended, all->given);
}

static void leave(aloop_as_completed_t *all) {
  aloop_cancel(all->object.loop, &all->timer);
  unwatch(all);
}

static void destroy(aloop__object_t *object) {
  aloop_as_completed_t *all = ALOOP_CONTAINER_OF(object, aloop_as_completed_t, object);
  for (size_t i = 0; i < all->count; i++) aloop_future_unref(all->slots[i].future);
  aloop__object_end(object, all);
}

static void close_all(aloop__object_t *object) {
  leave(ALOOP_CONTAINER_OF(object, aloop_as_completed_t, object));
}

static const aloop__kind_t kind = {
    .name = "as_completed", .index = ALOOP__SYNC, .describe = describe, .destroy = destroy, .close = close_all};

/* Gives up futures that were handed over. */
static void abandon(aloop_future_t *const *futures, size_t count, bool cancel) {
  for (size_t i = 0; i < count; i++) {
    if (futures[i] == NULL) continue;
    if (cancel) aloop_future_cancel(futures[i]);
    aloop_future_unref(futures[i]);
  }
}

/* One that is NULL is as one for which there was no memory. */
static int check_futures(aloop_t *loop, aloop_future_t *const *futures, size_t count) {
  if (futures == NULL && count > 0)
    return aloop__misuse(loop, ALOOP_EINVAL, "there are no futures to go through");
  for (size_t i = 0; i < count; i++)
    if (futures[i] == NULL) return ALOOP_ENOMEM;
  for (size_t i = 0; i < count; i++)
    if (futures[i]->object.loop != loop)
      return aloop__misuse(loop, ALOOP_EOTHERLOOP, "the futures to go through belong to another loop");
  return 0;
}

static aloop_as_completed_t *make(aloop_t *loop, size_t count) {
  size_t each = sizeof(slot_t) + sizeof(size_t);
  if (count > (SIZE_MAX - sizeof(aloop_as_completed_t)) / each) return NULL;
  aloop_as_completed_t *all = aloop__memory_zero(loop, sizeof *all + count * each);
  if (all == NULL) return NULL;
  aloop__object_init(&all->object, loop, &kind, "aloop_as_completed_new");
  aloop__waiters_init(&all->waiters);
  all->order = (size_t *)(void *)(all->slots + count);
  return all;
}

/* Returns false when out of memory; the futures are not taken over then. */
static bool begin(aloop_as_completed_t *all, aloop_future_t *const *futures, size_t count, int64_t timeout) {
  for (; all->count < count; all->count++) {
    slot_t *slot = &all->slots[all->count];
    slot->all = all;
    if (aloop__future_watch(futures[all->count], on_end, slot) < 0) return false;
    slot->future = futures[all->count];
  }
  if (timeout == ALOOP_FOREVER) return true;
  all->timer = aloop_call_later(all->object.loop, timeout, on_late, all);
  return aloop_handle_error(all->timer) == 0;
}

static void give_up(aloop_as_completed_t *all) {
  leave(all);
  all->count = 0;
  aloop__object_unref(&all->object);
}

int aloop_as_completed_new(aloop_t *loop, aloop_future_t *const *futures, size_t count, int64_t timeout,
                           aloop_as_completed_t **out) {
  int rc = aloop__loop_enter(loop);
  if (rc == ALOOP_ENOTLOOPTHREAD) return rc;
  if (rc == 0 && out == NULL)
    rc = aloop__misuse(loop, ALOOP_EINVAL, "what goes through futures needs a place to go to");
  if (rc == 0) rc = check_futures(loop, futures, count);
  aloop_as_completed_t *all = rc == 0 ? make(loop, count) : NULL;
  if (rc == 0 && (all == NULL || !begin(all, futures, count, timeout))) {
    if (all != NULL) give_up(all);
    rc = ALOOP_ENOMEM;
  }
  if (rc == 0)
    *out = all;
  else if (futures != NULL)
    abandon(futures, count, rc == ALOOP_ENOMEM);
  return rc;
}

void aloop_as_completed_free(aloop_as_completed_t *all) {
  if (all == NULL || enter(all) < 0) return;
  leave(all);
  aloop__waiters_fail_all(&all->waiters, ALOOP_ECANCELED, "the futures to go through were given up");
  aloop__object_unref(&all->object);
}

/* ---- Use ------------------------------------------------------------------------------------------------- */

aloop_future_t *aloop_as_completed_next(aloop_as_completed_t *all) {
  static const char origin[] = "aloop_as_completed_next";
  if (enter(all) < 0) return NULL;
  aloop_t *loop = all->object.loop;
  if (all->given + all->promised + all->waiters.count + all->timed_out >= all->count)
    return aloop__future_failed(loop, origin, ALOOP_ENOENT, "all futures were given");
  if (!has_ended(all) && all->late) {
    all->timed_out++;
    return aloop__future_failed(loop, origin, ALOOP_ETIMEDOUT, TIME_LIMIT);
  }
  if (!has_ended(all)) return aloop__waiters_join(&all->waiters, loop, origin);
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future != NULL && future->state == ALOOP__PENDING) promise_to(all, future);
  return future;
}
