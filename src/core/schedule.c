/* SPDX-License-Identifier: MIT
 *
 * Scheduling: call_soon, call_at and their relatives, and handles.
 *
 * A handle is one 64-bit number. With the top bit clear it is a position of the ready deque (aloop_call_soon);
 * with it set, a timer slot and its generation. Numbers below 4096 are error codes, so a handle tells by
 * itself why scheduling failed. Positions are never used twice and a slot's generation changes with each use:
 * a handle that outlived its callback finds nothing.
 *
 * The fast path of call_soon is a handful of stores. Most of what is unusual (closed, debug mode, a host's
 * hook, no room) hides behind one comparison with loop->limit.
 */
#include "core/loop.h"
#include "core/clock.h"
#include "core/report.h"

static aloop_handle_t failure(int error) {
  return (aloop_handle_t){(uint64_t)-error};
}

/* Everything unusual about call_soon, out of line so that the usual needs no stack. */
static ALOOP_NOINLINE aloop_handle_t put_slowly(aloop_t *loop, aloop_callback_fn fn, void *arg,
                                                const char *origin) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return failure(rc);
  if (fn == NULL) return failure(aloop__misuse(loop, ALOOP_EINVAL, "a callback is scheduled with a function"));
  if (!aloop__ready_push_slowly(loop, fn, arg, loop->context, origin)) return failure(ALOOP_ENOMEM);
  aloop__map_ref(loop->context);
  aloop_handle_t handle = {loop->tail - 1};
  aloop__loop_armed(loop);
  return handle;
}

/* The usual where variables are set, or where the room ends that is known of. */
static ALOOP_NOINLINE aloop_handle_t put_less_often(aloop_t *loop, aloop_callback_fn fn, void *arg,
                                                    const char *origin) {
  if (loop->tail >= loop->limit) {
    if (loop->guard != 0 || aloop__ready_full(loop)) return put_slowly(loop, fn, arg, origin);
    aloop__ready_set_limit(loop);
  }
  if (loop->context != NULL) loop->contexts[loop->tail & loop->mask] = aloop__map_ref(loop->context);
  aloop__ready_put(loop, fn, arg, origin);
  return (aloop_handle_t){loop->tail - 1};
}

aloop_handle_t aloop_call_soon_from(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  if (ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(fn == NULL)) return put_slowly(loop, fn, arg, origin);
  if (ALOOP_UNLIKELY(loop->context != NULL) || ALOOP_UNLIKELY(loop->tail >= loop->limit))
    return put_less_often(loop, fn, arg, origin);
  aloop__ready_put(loop, fn, arg, origin);
  return (aloop_handle_t){loop->tail - 1};
}

/* Why there can be no timer, or 0. */
static ALOOP_NOINLINE int refuse_timer(aloop_t *loop, aloop_callback_fn fn) {
  int rc = aloop__loop_enter(loop);
  if (rc == 0 && fn == NULL) rc = aloop__misuse(loop, ALOOP_EINVAL, "a timer is scheduled with a function");
  return rc;
}

/* Comes before any look at the clock, which is noted in the loop. */
static inline int check_timer(aloop_t *loop, aloop_callback_fn fn) {
  bool usual = ALOOP_LIKELY(loop != NULL) && ALOOP_LIKELY(fn != NULL) && ALOOP_LIKELY(loop->guard == 0);
  return usual ? 0 : refuse_timer(loop, fn);
}

/* now + delay without overflow. */
static int64_t after(aloop_t *loop, int64_t delay) {
  int64_t now = aloop__loop_time(loop);
  return delay > ALOOP__NEVER - 1 - now ? ALOOP__NEVER - 1 : now + delay;
}

/* A deadline between the clock's beginning and the end of time. */
static int64_t within_time(int64_t when) {
  if (when < 0) return 0;
  return when == ALOOP__NEVER ? when - 1 : when;
}

static ALOOP_NOINLINE aloop_handle_t call_later_slowly(aloop_t *loop, int64_t delay, aloop_callback_fn fn,
                                                       void *arg, const char *origin) {
  int rc = check_timer(loop, fn);
  if (rc < 0) return failure(rc);
  return aloop__timers_add(loop, after(loop, delay < 0 ? 0 : delay), 0, fn, arg, origin);
}

/* The usual: inside a callback that has looked at the clock, with a delay that fits (less than 146 years). */
aloop_handle_t aloop_call_later_from(aloop_t *loop, int64_t delay, aloop_callback_fn fn, void *arg,
                                     const char *origin) {
  if (ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(fn == NULL) || ALOOP_UNLIKELY(loop->guard != 0) ||
      ALOOP_UNLIKELY(!aloop__loop_time_is_fresh(loop)) || ALOOP_UNLIKELY((uint64_t)delay > ALOOP__NEVER / 2) ||
      ALOOP_UNLIKELY(loop->now > ALOOP__NEVER / 2))
    return call_later_slowly(loop, delay, fn, arg, origin);
  return aloop__timers_add_usual(loop, loop->now + delay, fn, arg, origin);
}

aloop_handle_t aloop_call_at_from(aloop_t *loop, int64_t when, aloop_callback_fn fn, void *arg,
                                  const char *origin) {
  int rc = check_timer(loop, fn);
  if (ALOOP_UNLIKELY(rc < 0)) return failure(rc);
  return aloop__timers_add(loop, within_time(when), 0, fn, arg, origin);
}

aloop_handle_t aloop_call_every_from(aloop_t *loop, int64_t period, aloop_callback_fn fn, void *arg,
                                     const char *origin) {
  int rc = check_timer(loop, fn);
  if (rc == 0 && ALOOP_UNLIKELY(period <= 0))
    rc = aloop__misuse(loop, ALOOP_EINVAL, "a repeating timer has a period above 0 ns");
  if (ALOOP_UNLIKELY(rc < 0)) return failure(rc);
  return aloop__timers_add(loop, after(loop, period), period, fn, arg, origin);
}

aloop_handle_t(aloop_call_soon)(aloop_t *loop, aloop_callback_fn fn, void *arg) {
  return aloop_call_soon_from(loop, fn, arg, NULL);
}

aloop_handle_t(aloop_call_later)(aloop_t *loop, int64_t delay, aloop_callback_fn fn, void *arg) {
  return aloop_call_later_from(loop, delay, fn, arg, NULL);
}

aloop_handle_t(aloop_call_at)(aloop_t *loop, int64_t when, aloop_callback_fn fn, void *arg) {
  return aloop_call_at_from(loop, when, fn, arg, NULL);
}

aloop_handle_t(aloop_call_every)(aloop_t *loop, int64_t period, aloop_callback_fn fn, void *arg) {
  return aloop_call_every_from(loop, period, fn, arg, NULL);
}

/* The waiting entry of a call_soon handle, or NULL. */
static aloop__entry_t *soon_entry(const aloop_t *loop, aloop_handle_t handle) {
  if (handle.id < loop->head || handle.id >= loop->tail) return NULL;
  aloop__entry_t *entry = &loop->ring[handle.id & loop->mask];
  return aloop__entry_waits(entry) ? entry : NULL;
}

int aloop_cancel(aloop_t *loop, aloop_handle_t *handle) {
  int rc = ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(loop->guard != 0) ? aloop__loop_thread(loop) : 0;
  if (rc < 0) return rc;
  if (handle == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "aloop_cancel takes the address of a handle");
  aloop__timer_t *timer = aloop__timers_slot(&loop->timers, *handle);
  aloop__entry_t *entry = timer == NULL ? soon_entry(loop, *handle) : NULL;
  if (timer == NULL && entry == NULL) return 0;
  handle->id = (uint64_t)-ALOOP_ECANCELED; /* first: what it lies in may go with the callback's context */
  if (timer != NULL)
    aloop__timers_cancel(loop, timer);
  else
    aloop__ready_drop(loop, entry);
  return 1;
}

static ALOOP_NOINLINE int reschedule_slowly(aloop_t *loop, const aloop_handle_t *handle, int64_t when) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (handle == NULL)
    return aloop__misuse(loop, ALOOP_EINVAL, "aloop_reschedule takes the address of a handle");
  aloop__timer_t *timer = aloop__timers_slot(&loop->timers, *handle);
  if (timer == NULL) return ALOOP_ENOENT;
  aloop__timers_move(loop, timer, within_time(when));
  return 0;
}

/* The usual is to push a timer back, once per request. */
int aloop_reschedule(aloop_t *loop, const aloop_handle_t *handle, int64_t when) {
  if (ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(loop->guard != 0) || ALOOP_UNLIKELY(handle == NULL) ||
      ALOOP_UNLIKELY((uint64_t)when >= ALOOP__NEVER))
    return reschedule_slowly(loop, handle, when);
  aloop__timer_t *timer = aloop__timers_slot(&loop->timers, *handle);
  if (ALOOP_UNLIKELY(timer == NULL) || ALOOP_UNLIKELY(!aloop__timers_push_back(&loop->timers, timer, when)))
    return reschedule_slowly(loop, handle, when);
  return 0;
}

int aloop_handle_error(aloop_handle_t handle) {
  if (handle.id >= ALOOP__FIRST_POSITION) return 0;
  return handle.id == 0 ? ALOOP_EINVAL : -(int)handle.id;
}

bool aloop_handle_cancelled(aloop_handle_t handle) {
  return handle.id == (uint64_t)-ALOOP_ECANCELED;
}

bool aloop_handle_pending(const aloop_t *loop, aloop_handle_t handle) {
  return aloop__loop_ok(loop) &&
         (aloop__timers_slot(&loop->timers, handle) != NULL || soon_entry(loop, handle) != NULL);
}

int64_t aloop_handle_when(const aloop_t *loop, aloop_handle_t handle) {
  int rc = ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(loop->guard != 0)
               ? aloop__loop_thread((aloop_t *)loop)
               : 0;
  if (rc < 0) return rc;
  const aloop__timer_t *timer = aloop__timers_slot(&loop->timers, handle);
  return timer != NULL ? aloop__timer_when(timer) : ALOOP_ENOENT;
}
