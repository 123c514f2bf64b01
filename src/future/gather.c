/* SPDX-License-Identifier: MIT
 *
 * Waiting for many futures: gather and wait.
 *
 * The outer future owns its children from the start to its last reference and watches each one with a done
 * callback of its own. Children that are done already count at once in gather, which may thus be done when it
 * is returned; wait hears of them in the next turn, so whoever awaits it gives up his turn, as in asyncio. A
 * future given twice counts twice.
 * When the outer one ends early, by an error, a time limit or a cancel, it takes all its callbacks back, queued
 * ones too, so a child never calls a future that is gone. That costs O(children) once; a child's end costs
 * O(1).
 *
 * Errors: the first one becomes gather's own and counts as read in the child, and so do all later ones, as in
 * asyncio: who gathers has said that the first matters. With ALOOP_RETURN_ERRORS they count as read when all
 * are done. wait reads none.
 *
 * Cancelling gather cancels the children. Most end by that at once, and gather in the next turn. One that is a
 * task was only asked to end, so gather stays until all have ended, where asyncio's ends with the first. Its
 * own end is that of the first child that failed, which as a rule was cancelled; if none did it is cancelled
 * all the same.
 *
 * The list of futures is given up by the caller even if the call fails. A failure for lack of memory cancels
 * them: their operations would otherwise go on with nobody to see the end.
 */
#include "core/report.h"
#include "future/future.h"

typedef struct group {
  aloop__future_extra_t extra;
  aloop_done_fn on_child;
  size_t pending;
  aloop_future_t *failed; /* the first child that did; NULL: none, or they count as results */
  int rule;               /* flags of gather, `until` of wait */
} group_t;

static group_t *group_of(aloop_future_t *outer) {
  return ALOOP_CONTAINER_OF(outer->extra, group_t, extra);
}

/* ---- Beginning and leaving ------------------------------------------------------------------------------- */

static void cancel_all(aloop_future_t *const *futures, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (futures[i] != NULL) aloop_future_cancel(futures[i]);
}

static void abandon(aloop_future_t *const *futures, size_t count) {
  cancel_all(futures, count);
  for (size_t i = 0; i < count; i++) aloop_future_unref(futures[i]);
}

static bool any_missing(aloop_future_t *const *futures, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (futures[i] == NULL) return true;
  return false;
}

static bool any_foreign(const aloop_t *loop, aloop_future_t *const *futures, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (futures[i]->object.loop != loop) return true;
  return false;
}

/* A wrong argument is the outer future's error. */
static void refuse(aloop_future_t *outer, int error, const char *rule) {
  aloop__future_fail(outer, aloop__misuse(outer->object.loop, error, rule), "%s", rule);
}

/* The outer future, pending or already failed; NULL after giving the futures up. */
static aloop_future_t *begin(aloop_t *loop, const aloop__future_kind_t *kind, aloop_future_t *const *futures,
                             size_t count, aloop_done_fn on_child, int rule, const char *origin) {
  if (futures == NULL) count = 0;
  bool possible = loop != NULL && !any_missing(futures, count);
  aloop_future_t *outer = possible ? aloop__future_over(loop, kind, sizeof(group_t), futures, count) : NULL;
  if (outer == NULL) {
    abandon(futures, count);
    return NULL;
  }
  outer->object.origin = origin;
  group_t *group = group_of(outer);
  group->on_child = on_child;
  group->pending = count;
  group->rule = rule;
  if (any_foreign(loop, futures, count))
    refuse(outer, ALOOP_EOTHERLOOP, "the futures to wait for belong to another loop");
  return outer;
}

/* Lets the children go on without the outer future. */
static void leave(aloop_future_t *outer) {
  group_t *group = group_of(outer);
  for (size_t i = 0; i < group->extra.children_count; i++)
    aloop__future_unwatch(group->extra.children[i], group->on_child, outer);
  aloop_cancel(outer->object.loop, &outer->timer);
}

/* Out of memory half-way. */
static aloop_future_t *give_up(aloop_future_t *outer) {
  leave(outer);
  cancel_all(outer->extra->children, outer->extra->children_count);
  aloop_future_unref(outer);
  return NULL;
}

/* ---- gather ---------------------------------------------------------------------------------------------- */

/* Nobody is going to look at the errors of its children. */
static void leave_gather(aloop_future_t *outer) {
  leave(outer);
  for (size_t i = 0; i < outer->extra->children_count; i++) aloop__future_ignore(outer->extra->children[i]);
}

/* Whoever reads the result takes over what the children stand for (future.c). */
static void finish_gather(aloop_future_t *outer) {
  const aloop__future_extra_t *extra = outer->extra;
  for (size_t i = 0; i < extra->children_count; i++)
    if (extra->children[i]->by_value) outer->by_value = true;
  aloop__future_finish(outer, (int64_t)extra->children_count);
}

static void on_gathered(aloop_future_t *child, void *arg) {
  aloop_future_t *outer = arg;
  group_t *group = group_of(outer);
  group->pending--;
  bool error = child->state == ALOOP__FAILED && (group->rule & ALOOP_RETURN_ERRORS) == 0;
  if (error && group->failed == NULL) group->failed = child;
  if (group->pending > 0 && (outer->asked || !error)) return;
  leave_gather(outer);
  if (group->failed != NULL)
    aloop__future_follow(outer, group->failed);
  else if (outer->asked)
    aloop__future_fail(outer, ALOOP_ECANCELED, NULL);
  else
    finish_gather(outer);
}

static void stop_gather(aloop_future_t *outer, void *arg) {
  (void)arg;
  leave_gather(outer);
  cancel_all(outer->extra->children, outer->extra->children_count);
}

/* The callbacks of the children end it. */
static void cancel_gather(aloop_future_t *outer, const char *message) {
  group_t *group = group_of(outer);
  outer->asked = true;
  if (message != NULL) aloop__future_set_message(outer, message);
  for (size_t i = 0; i < group->extra.children_count; i++)
    aloop__future_cancel(group->extra.children[i], message);
}

/* Watches the children that are pending and counts the others. Returns false when out of memory. */
static bool count_or_watch(aloop_future_t *outer) {
  const aloop__future_extra_t *extra = outer->extra;
  for (size_t i = 0; i < extra->children_count && !aloop_future_done(outer); i++) {
    if (aloop_future_done(extra->children[i]))
      on_gathered(extra->children[i], outer);
    else if (aloop__future_watch(extra->children[i], on_gathered, outer) < 0)
      return false;
  }
  return true;
}

static const aloop__future_kind_t gather_kind = {.object = {.name = "future",
                                                            .index = ALOOP__FUTURE,
                                                            .describe = aloop__future_describe,
                                                            .destroy = aloop__future_destroy,
                                                            .close = aloop__future_close,
                                                            .resume = aloop__future_resume},
                                                 .cancel = cancel_gather};

aloop_future_t *aloop_gather_from(aloop_t *loop, aloop_future_t *const *futures, size_t count, unsigned flags,
                                  const char *origin) {
  if (aloop__loop_thread(loop) < 0 && loop != NULL) return NULL;
  aloop_future_t *outer = begin(loop, &gather_kind, futures, count, on_gathered, (int)flags, origin);
  if (outer == NULL || aloop_future_done(outer)) return outer;
  if (futures == NULL && count > 0)
    refuse(outer, ALOOP_EINVAL, "there are no futures to wait for");
  else if (flags & ~(unsigned)ALOOP_RETURN_ERRORS)
    refuse(outer, ALOOP_EINVAL, "the flags of aloop_gather are 0 or ALOOP_RETURN_ERRORS");
  else if (count == 0)
    aloop__future_finish(outer, 0);
  else if (!count_or_watch(outer))
    return give_up(outer);
  aloop__future_set_operation(outer, stop_gather, NULL);
  return outer;
}

/* ---- wait ------------------------------------------------------------------------------------------------ */

static void end_wait(aloop_future_t *outer) {
  leave(outer);
  int64_t done = 0;
  for (size_t i = 0; i < outer->extra->children_count; i++)
    done += aloop_future_done(outer->extra->children[i]);
  aloop__future_finish(outer, done);
}

static void on_waited(aloop_future_t *child, void *arg) {
  aloop_future_t *outer = arg;
  group_t *group = group_of(outer);
  group->pending--;
  bool error = child->state == ALOOP__FAILED && !aloop_future_cancelled(child);
  if (group->pending == 0 || group->rule == ALOOP_FIRST_COMPLETED ||
      (group->rule == ALOOP_FIRST_EXCEPTION && error))
    end_wait(outer);
}

static void on_wait_late(aloop_t *loop, void *outer) {
  (void)loop;
  end_wait(outer);
}

static void stop_wait(aloop_future_t *outer, void *arg) {
  (void)arg;
  leave(outer);
}

/* Watches all, also those that are done: their callbacks come in the next turn. Returns false when out of
 * memory. */
static bool watch_all(aloop_future_t *outer) {
  const aloop__future_extra_t *extra = outer->extra;
  for (size_t i = 0; i < extra->children_count; i++)
    if (aloop__future_watch(extra->children[i], on_waited, outer) < 0) return false;
  return true;
}

/* Returns false when out of memory. */
static bool limit_wait(aloop_future_t *outer, int64_t timeout) {
  if (timeout == ALOOP_FOREVER) return true;
  outer->timer = aloop_call_later_from(outer->object.loop, timeout, on_wait_late, outer, outer->object.origin);
  return aloop_handle_error(outer->timer) == 0;
}

aloop_future_t *aloop_wait_from(aloop_t *loop, aloop_future_t *const *futures, size_t count, int64_t timeout,
                                int until, const char *origin) {
  if (aloop__loop_thread(loop) < 0 && loop != NULL) return NULL;
  aloop_future_t *outer = begin(loop, NULL, futures, count, on_waited, until, origin);
  if (outer == NULL || aloop_future_done(outer)) return outer;
  if (futures == NULL || count == 0)
    refuse(outer, ALOOP_EINVAL, "there are no futures to wait for");
  else if (until < ALOOP_ALL_COMPLETED || until > ALOOP_FIRST_EXCEPTION)
    refuse(outer, ALOOP_EINVAL, "`until` is ALOOP_ALL_COMPLETED, _FIRST_COMPLETED or _FIRST_EXCEPTION");
  else if (!watch_all(outer) || !limit_wait(outer, timeout))
    return give_up(outer);
  aloop__future_set_operation(outer, stop_wait, NULL);
  return outer;
}

aloop_future_t *(aloop_gather)(aloop_t *loop, aloop_future_t *const *futures, size_t count, unsigned flags) {
  return aloop_gather_from(loop, futures, count, flags, NULL);
}

aloop_future_t *(aloop_wait)(aloop_t *loop, aloop_future_t *const *futures, size_t count, int64_t timeout,
                             int until) {
  return aloop_wait_from(loop, futures, count, timeout, until, NULL);
}
