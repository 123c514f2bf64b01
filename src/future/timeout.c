/* SPDX-License-Identifier: MIT
 *
 * Futures and time: sleep, wait_for, and shield, which is wait_for without the limit and without the cancel.
 *
 * wait_for and shield forward the end of one inner future: the outer one points at it instead of copying, so
 * the object of the result stays where it is, and taking it through either future takes it once. The inner
 * future is owned by the outer one until the outer's last reference.
 *
 * Cancelling an operation is immediate, so a time limit does not have to wait for it to give in. A task, and
 * what waits for one, is only asked to end: then wait_for stays until it has, and if it ended with something
 * other than its being cancelled, that is the outer's end too. So it is with a stop function that ends its
 * future with a result. A cancel that comes while wait_for waits like this wins over the time limit.
 *
 * The timer's handle is kept where the value is going to be, so a sleep costs no allocation in steady state.
 */
#include "core/report.h"
#include "future/future.h"

static aloop_future_t *inner_of(aloop_future_t *outer) {
  return outer->extra->children[0];
}

static void stop_timer(aloop_future_t *future) {
  aloop_cancel(future->object.loop, &future->timer);
}

/* ---- sleep ----------------------------------------------------------------------------------------------- */

static void on_slept(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_future_t *future = arg;
  if (future->pause)
    aloop__future_finish_in_place(future, 0);
  else
    aloop__future_finish(future, 0);
}

static void stop_sleep(aloop_future_t *future, void *arg) {
  (void)arg;
  stop_timer(future);
}

aloop_future_t *aloop_sleep_from(aloop_t *loop, int64_t delay, const char *origin) {
  aloop_future_t *future = aloop__loop_ok(loop) ? aloop__future_new(loop, origin) : NULL;
  if (future == NULL || future->state != ALOOP__PENDING) return future;
  future->timer = delay > 0 ? aloop_call_later_from(loop, delay, on_slept, future, origin)
                            : aloop_call_soon_from(loop, on_slept, future, origin);
  if (aloop_handle_error(future->timer) < 0) {
    aloop_future_unref(future);
    return NULL;
  }
  future->pause = delay <= 0;
  aloop__future_set_operation(future, stop_sleep, NULL);
  return future;
}

/* ---- wait_for -------------------------------------------------------------------------------------------- */

/* What goes with the timer's context may let go of the outer future, and end it by closing the loop. */
static void on_inner(aloop_future_t *inner, void *arg) {
  aloop_future_t *outer = aloop_future_ref(arg);
  stop_timer(outer);
  if (outer->late && !outer->asked && aloop_future_cancelled(inner))
    aloop__future_fail(outer, ALOOP_ETIMEDOUT, NULL);
  else
    aloop__future_follow(outer, inner);
  aloop_future_unref(outer);
}

/* Somebody else ends it, as aloop_close does. What has just been promised to the inner future, nobody can read
 * any more who has only the outer one. */
static void stop_wait_for(aloop_future_t *outer, void *arg) {
  (void)arg;
  aloop_future_t *inner = inner_of(outer);
  stop_timer(outer);
  aloop__future_unwatch(inner, on_inner, outer);
  aloop_future_cancel(inner);
  if (inner->object.refs == 1 && inner->promised) aloop__future_forsake(inner);
}

/* After the inner future was cancelled: the outer one ends with it at once, not a turn later. */
static void settle(aloop_future_t *outer) {
  aloop_future_t *inner = inner_of(outer);
  if (outer->state != ALOOP__PENDING || inner->state == ALOOP__PENDING) return;
  aloop__future_unwatch(inner, on_inner, outer);
  on_inner(inner, outer);
}

/* The time is over. */
static void on_late(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_future_t *outer = arg;
  aloop_future_t *inner = inner_of(outer);
  aloop_future_ref(outer); /* a stop function of the user's may let go of it */
  outer->late = true;
  aloop_future_cancel(inner);
  settle(outer);
  aloop_future_unref(outer);
}

static void cancel_wait_for(aloop_future_t *outer, const char *message) {
  outer->asked = true;
  aloop__future_cancel(inner_of(outer), message);
  settle(outer);
}

static const aloop__future_kind_t wait_for_kind = {.object = {.name = "future",
                                                              .index = ALOOP__FUTURE,
                                                              .describe = aloop__future_describe,
                                                              .destroy = aloop__future_destroy,
                                                              .close = aloop__future_close,
                                                              .resume = aloop__future_resume},
                                                   .cancel = cancel_wait_for};

/* There is no time: the inner future is cancelled now, and the outer one ends in the next turn, so that who
 * tries again and again does not hold up the others. Returns false when out of memory. */
static bool expire(aloop_future_t *outer) {
  if (aloop__future_watch(inner_of(outer), on_inner, outer) < 0) return false;
  outer->late = true;
  aloop_future_cancel(inner_of(outer));
  return true;
}

/* Returns false when out of memory. */
static bool limit(aloop_future_t *outer, int64_t timeout) {
  if (timeout != ALOOP_FOREVER && timeout <= 0) return expire(outer);
  if (aloop__future_watch_inside(inner_of(outer), on_inner, outer) < 0) return false;
  if (timeout == ALOOP_FOREVER) return true;
  outer->timer = aloop_call_later_from(outer->object.loop, timeout, on_late, outer, outer->object.origin);
  return aloop_handle_error(outer->timer) == 0;
}

/* Out of memory: the operation would go on without its limit. One that is done already has had its effect, and
 * its end must not get lost: it stands for itself. */
static aloop_future_t *give_up(aloop_future_t *outer, aloop_future_t *inner) {
  if (outer == NULL && inner->state != ALOOP__PENDING) return inner;
  if (outer != NULL) aloop__future_unwatch(inner, on_inner, outer);
  aloop_future_cancel(inner);
  aloop_future_unref(outer != NULL ? outer : inner);
  return NULL;
}

aloop_future_t *aloop_wait_for_from(aloop_future_t *future, int64_t timeout, const char *origin) {
  if (future == NULL || aloop__loop_thread(future->object.loop) < 0) return NULL;
  aloop_t *loop = future->object.loop;
  aloop_future_t *outer = aloop__future_over(loop, &wait_for_kind, sizeof *outer->extra, &future, 1);
  if (outer == NULL) return give_up(NULL, future);
  outer->object.origin = origin;
  if (aloop_future_done(outer)) return outer;
  if (aloop_future_done(future))
    aloop__future_follow(outer, future);
  else if (!limit(outer, timeout))
    return give_up(outer, future);
  aloop__future_set_operation(outer, stop_wait_for, NULL);
  return outer;
}

/* ---- shield ---------------------------------------------------------------------------------------------- */

/* A cancel of the inner future is the outer's, but not its words, as in asyncio. */
static void on_shielded(aloop_future_t *inner, void *outer) {
  if (aloop_future_cancelled(inner))
    aloop__future_fail(outer, ALOOP_ECANCELED, NULL);
  else
    aloop__future_follow(outer, inner);
}

static void stop_shield(aloop_future_t *outer, void *arg) {
  (void)arg;
  aloop__future_unwatch(inner_of(outer), on_shielded, outer);
}

aloop_future_t *aloop_shield_from(aloop_future_t *future, const char *origin) {
  if (future == NULL || aloop__loop_thread(future->object.loop) < 0) return NULL;
  aloop_future_t *outer = aloop__future_over(future->object.loop, NULL, sizeof *outer->extra, &future, 1);
  if (outer == NULL) {
    aloop_future_unref(future);
    return NULL;
  }
  outer->object.origin = origin;
  if (aloop_future_done(outer)) return outer;
  if (aloop_future_done(future)) {
    aloop__future_follow(outer, future);
  } else if (aloop__future_watch(future, on_shielded, outer) < 0) {
    aloop_future_unref(outer);
    return NULL;
  }
  aloop__future_set_operation(outer, stop_shield, NULL);
  return outer;
}

aloop_future_t *(aloop_sleep)(aloop_t *loop, int64_t delay) {
  return aloop_sleep_from(loop, delay, NULL);
}

aloop_future_t *(aloop_wait_for)(aloop_future_t *future, int64_t timeout) {
  return aloop_wait_for_from(future, timeout, NULL);
}

aloop_future_t *(aloop_shield)(aloop_future_t *future) {
  return aloop_shield_from(future, NULL);
}
