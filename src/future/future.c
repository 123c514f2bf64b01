/* SPDX-License-Identifier: MIT
 *
 * Futures: how an operation ends, once, and who learns of it.
 *
 * Done callbacks never run inside the call that ends the future. Each takes one entry of the ready deque, in
 * the order added, so they mix with call_soon callbacks in strict FIFO, and a stop with error leaves the rest
 * queued. The entry holds only the future; the callback itself stays in the future's list, of which the first
 * is part of the struct. The entries of one future are in the order of its list, so each entry runs the next
 * one. This has three uses:
 * - When the deque cannot grow, the callbacks wait in the list and the object is stalled (object.h) until there
 *   is memory: an end is never lost.
 * - When the loop closes, the future drops its list and the references of its queued entries; the deque is
 *   dropped uncalled.
 * - The library can take back a callback that is queued already (aloop__future_unwatch), so that nothing it
 *   frees is called later.
 *
 * A future is 128 bytes, two cache lines, and comes from a free list per loop. What few futures need (message,
 * attempts, children) is in an extra block. Futures that share another's end point at it instead of copying, so
 * sharing cannot fail.
 *
 * References: the caller's, one per queued callback, one while an operation of the library is pending. There is
 * no cycle collector: a future that waits for one that nobody will ever end stays until the loop is closed.
 */
#include "future/future.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"
#include "core/short_lived.h"

enum { SPARES_MAX = 1024, MESSAGE_MAX = 256 };

_Static_assert(sizeof(void *) != 8 || sizeof(aloop_future_t) == 128, "a future is two cache lines");

typedef struct future_room {
  aloop__room_t room;
  aloop__spares_t spares;
} future_room_t;

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static void close_room(aloop_t *loop, aloop__room_t *room) {
  future_room_t *self = ALOOP_CONTAINER_OF(room, future_room_t, room);
  aloop__spares_release(loop, &self->spares, sizeof(aloop_future_t));
  aloop__memory_release(loop, self);
}

/* The free list comes with the first future. There is none when out of memory, or where the loop is closed. */
static void open_room(aloop_t *loop) {
  if (loop->rooms[ALOOP__ROOM_FUTURE] != NULL || (loop->guard & ALOOP__GUARD_CLOSED)) return;
  future_room_t *made = aloop__memory_zero(loop, sizeof *made);
  if (made == NULL) return;
  made->room.close = close_room;
  loop->rooms[ALOOP__ROOM_FUTURE] = &made->room;
}

static ALOOP_NOINLINE void *new_block(aloop_t *loop) {
  open_room(loop);
  return aloop__memory_new(loop, sizeof(aloop_future_t));
}

static inline void *take_block(aloop_t *loop) {
  aloop__room_t *room = loop->rooms[ALOOP__ROOM_FUTURE];
  future_room_t *self = room != NULL ? ALOOP_CONTAINER_OF(room, future_room_t, room) : NULL;
  if (ALOOP_UNLIKELY(self == NULL) || ALOOP_UNLIKELY(self->spares.first == NULL)) return new_block(loop);
  return aloop__spares_take(&self->spares, sizeof(aloop_future_t));
}

/* The end of a future that has nothing more. */
static inline void give_block(aloop_future_t *future) {
  aloop__room_t *room = future->object.loop->rooms[ALOOP__ROOM_FUTURE];
  future_room_t *self = room != NULL ? ALOOP_CONTAINER_OF(room, future_room_t, room) : NULL;
  aloop__short_lived_give(self != NULL ? &self->spares : NULL, SPARES_MAX, &future->object, future,
                          sizeof *future);
}

static aloop_future_t *future_of(aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop_future_t, object);
}

static inline void drop(aloop_future_t *future) {
  aloop__object_unref(&future->object);
}

/* ---- Done callbacks -------------------------------------------------------------------------------------- */

static aloop__done_t *done_at(aloop_future_t *future, uint32_t index) {
  return index == 0 ? &future->first : &future->more->items[index - 1];
}

/* Moves what has not run yet to the front of the list. */
static void close_gap(aloop_future_t *future) {
  for (uint32_t i = future->ran; i < future->count; i++)
    *done_at(future, i - future->ran) = *done_at(future, i);
  future->count -= future->ran;
  future->ran = 0;
}

/* Room for one more callback. */
static int reserve(aloop_future_t *future) {
  uint32_t capacity = future->more == NULL ? 0 : future->more->capacity;
  if (future->count <= capacity) return 0; /* one of them is in the struct */
  if (future->ran > capacity / 2) {
    close_gap(future);
    return 0;
  }
  size_t size = capacity == 0 ? 3 : (size_t)capacity * 2;
  if (size > UINT32_MAX / 2) return ALOOP_ENOMEM;
  aloop__done_list_t *more =
      aloop__memory_resize(future->object.loop, future->more, sizeof *more + size * sizeof more->items[0]);
  if (more == NULL) return ALOOP_ENOMEM;
  more->capacity = (uint32_t)size;
  future->more = more;
  return 0;
}

/* One of several. */
static ALOOP_NOINLINE aloop__done_t take_next(aloop_future_t *future) {
  aloop__done_t done = *done_at(future, future->ran++);
  future->queued--;
  if (future->ran == future->count) future->ran = future->count = 0;
  return done;
}

/* Runs from the ready deque, within the callback's context. */
static void run_next(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_future_t *future = arg;
  aloop__done_t done = future->first;
  if (ALOOP_LIKELY(future->count == 1))
    future->count = future->queued = 0;
  else
    done = take_next(future);
  if (done.fn != NULL) done.fn(future, done.arg);
  drop(future);
}

/* What takes the place of the context of a callback that runs inside the end. */
static aloop__map_t *inside(aloop_future_t *future) {
  return (aloop__map_t *)(void *)future;
}

/* Runs one that does not wait for its turn; an entry that does nothing stays. It may add callbacks, and outside
 * of a run close the loop: false then. */
static ALOOP_NOINLINE bool run_inside(aloop_future_t *future, aloop__done_t *done) {
  aloop__done_t now = *done;
  *done = (aloop__done_t){NULL, NULL, NULL};
  if (now.fn != NULL) now.fn(future, now.arg);
  return (future->object.loop->guard & ALOOP__GUARD_CLOSED) == 0;
}

/* Queues callbacks of a done future as far as the deque can take them; none if the loop is closed meanwhile. */
static ALOOP_NOINLINE bool queue_callbacks(aloop_future_t *future) {
  aloop_t *loop = future->object.loop;
  while (future->ran + future->queued < future->count) {
    aloop__done_t *done = done_at(future, future->ran + future->queued);
    if (ALOOP_UNLIKELY(done->context == inside(future))) {
      if (!run_inside(future, done)) return true;
      continue;
    }
    if (!aloop__ready_push_captured(loop, run_next, future, done->context, future->object.origin)) return false;
    done->context = NULL;
    future->queued++;
    future->object.refs++;
  }
  if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_HOOK)) aloop__loop_armed(loop);
  return true;
}

/* Forgets all callbacks. The deque entries of queued ones are never going to run. */
static void drop_callbacks(aloop_future_t *future) {
  uint32_t from = future->ran + future->queued, count = future->count;
  uint32_t queued = future->queued;
  future->count = future->ran = future->queued = 0;
  for (uint32_t i = from; i < count; i++)
    if (done_at(future, i)->context != inside(future))
      aloop__map_clear(future->object.loop, &done_at(future, i)->context);
  while (queued-- > 0) drop(future);
}

/* The callbacks that wait for memory keep the future. */
static void stall(aloop_future_t *future) {
  aloop__object_ref(&future->object);
  aloop__object_stall(&future->object);
}

static ALOOP_NOINLINE int add_callback_slowly(aloop_future_t *future, aloop_done_fn fn, void *arg,
                                              aloop__map_t *context) {
  aloop_t *loop = future->object.loop;
  bool queue = future->state != ALOOP__PENDING && !future->object.stalled;
  if (queue && aloop__ready_full(loop) && aloop__ready_grow(loop) < 0) return ALOOP_ENOMEM;
  if (reserve(future) < 0) return ALOOP_ENOMEM;
  if (context != inside(future)) context = aloop__map_ref(context);
  *done_at(future, future->count++) = (aloop__done_t){fn, arg, context};
  if (queue) queue_callbacks(future);
  return 0;
}

/* The usual is one, before the end and without a context. */
static inline int add_callback(aloop_future_t *future, aloop_done_fn fn, void *arg, aloop__map_t *context) {
  if (ALOOP_UNLIKELY(future->state != ALOOP__PENDING) || ALOOP_UNLIKELY(future->count > 0) ||
      ALOOP_UNLIKELY(context != NULL))
    return add_callback_slowly(future, fn, arg, context);
  future->first = (aloop__done_t){fn, arg, NULL};
  future->count = 1;
  return 0;
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* An end is there for those who wait; on a closed loop nobody is called. What runs inside, or goes with the
 * contexts, may let the future go. */
static ALOOP_NOINLINE void tell_slowly(aloop_future_t *future) {
  aloop__object_ref(&future->object);
  if (future->object.loop->guard & ALOOP__GUARD_CLOSED)
    drop_callbacks(future);
  else if (ALOOP_UNLIKELY(!queue_callbacks(future)))
    stall(future);
  drop(future);
}

/* The usual is one who waits, and that without a context. */
static ALOOP_NOINLINE void tell(aloop_future_t *future) {
  aloop_t *loop = future->object.loop;
  if (ALOOP_UNLIKELY(future->count != 1) || ALOOP_UNLIKELY(future->first.context != NULL) ||
      ALOOP_UNLIKELY(loop->tail >= loop->limit)) {
    tell_slowly(future);
    return;
  }
  aloop__ready_put(loop, run_next, future, future->object.origin);
  future->queued = 1;
  future->object.refs++;
}

/* What everybody sees of the end. */
static inline void note_end(aloop_future_t *future, unsigned state, int64_t value) {
  future->value = value;
  future->state = state & 3u;
  future->operation = false;
  if (state == ALOOP__FAILED) future->unread = value != ALOOP_ECANCELED && !future->ignored;
}

/* Ends a pending future. The caller has set ptr and destroy, or stop is cleared here. The future may be gone
 * afterwards. */
static inline void end(aloop_future_t *future, unsigned state, int64_t value) {
  bool held = future->operation;
  note_end(future, state, value);
  if (future->count > 0) tell(future);
  if (held) drop(future);
}

static void end_with_object(aloop_future_t *future, int64_t value, void *ptr, aloop_destroy_fn destroy) {
  future->ptr = ptr;
  future->destroy = destroy;
  future->owner = true;
  end(future, ALOOP__DONE, value);
}

static inline void end_with_number(aloop_future_t *future, unsigned state, int64_t value) {
  future->ptr = NULL;
  future->destroy = NULL;
  end(future, state, value);
}

static void end_with_error(aloop_future_t *future, int error, const char *message) {
  if (message != NULL) aloop__future_set_message(future, message);
  end_with_number(future, ALOOP__FAILED, error);
}

/* Calls the stop function, once. */
static void stop(aloop_future_t *future) {
  aloop_done_fn fn = future->stop;
  future->stop = NULL;
  if (fn != NULL) fn(future, future->stop_arg);
}

/* An end with a number that makes no sense. */
static ALOOP_NOINLINE int refuse_number(const aloop_future_t *future, const char *rule) {
  int rc = aloop__future_enter(future);
  return rc < 0 ? rc : aloop__misuse(future->object.loop, ALOOP_EINVAL, rule);
}

/* What the calls that end a future from outside begin with. */
static ALOOP_NOINLINE int enter_end(aloop_future_t *future) {
  int rc = aloop__future_enter(future);
  if (rc < 0) return rc;
  if (future->state != ALOOP__PENDING) return ALOOP_EDONE;
  if (ALOOP_UNLIKELY(future->sealed))
    return aloop__misuse(future->object.loop, ALOOP_EPERM, "a task ends when its function returns");
  if (future->operation) stop(future);
  return future->state == ALOOP__PENDING ? 0 : ALOOP_EDONE;
}

/* Whether there is nothing for it to do. */
static inline bool may_end(const aloop_future_t *future) {
  return ALOOP_LIKELY(future != NULL) && ALOOP_LIKELY(future->object.loop->guard == 0) &&
         future->state == ALOOP__PENDING && !future->operation && !future->sealed;
}

#define NEGATIVE_VALUE "a future's value is not negative; errors go to aloop_future_set_error"

static ALOOP_NOINLINE int set_value_slowly(aloop_future_t *future, int64_t value) {
  if (value < 0) return refuse_number(future, NEGATIVE_VALUE);
  int rc = enter_end(future);
  if (rc == 0) end_with_number(future, ALOOP__DONE, value);
  return rc;
}

int aloop_future_set_value(aloop_future_t *future, int64_t value) {
  if (ALOOP_UNLIKELY(value < 0) || !may_end(future)) return set_value_slowly(future, value);
  future->ptr = NULL;
  future->destroy = NULL;
  note_end(future, ALOOP__DONE, value);
  if (future->count > 0) tell(future);
  return 0;
}

int aloop_future_set_result(aloop_future_t *future, int64_t value, void *ptr, aloop_destroy_fn destroy) {
  if (ALOOP_UNLIKELY(value < 0)) return refuse_number(future, NEGATIVE_VALUE);
  int rc = enter_end(future);
  if (rc == 0) end_with_object(future, value, ptr, destroy);
  return rc;
}

int aloop_future_set_error(aloop_future_t *future, int error, const char *message) {
  if (ALOOP_UNLIKELY(error >= 0)) return refuse_number(future, "a future's error is a negative code");
  int rc = enter_end(future);
  if (rc == 0) end_with_error(future, error, message);
  return rc;
}

static const aloop__future_kind_t *kind_of(const aloop_future_t *future) {
  return ALOOP_CONTAINER_OF(future->object.kind, const aloop__future_kind_t, object);
}

void aloop__future_break(aloop_future_t *future, const char *message) {
  stop(future);
  if (future->state == ALOOP__PENDING) end_with_error(future, ALOOP_ECANCELED, message);
}

int aloop__future_cancel(aloop_future_t *future, const char *message) {
  if (future->state != ALOOP__PENDING) return 0;
  aloop__object_ref(&future->object);
  if (kind_of(future)->cancel != NULL)
    kind_of(future)->cancel(future, message);
  else
    aloop__future_break(future, message);
  int accepted = future->state == ALOOP__PENDING || aloop_future_cancelled(future);
  drop(future);
  return accepted;
}

int aloop_future_cancel(aloop_future_t *future) {
  int rc = aloop__future_enter(future);
  return rc < 0 ? rc : aloop__future_cancel(future, NULL);
}

int aloop_future_on_cancel(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  int rc = aloop__future_enter(future);
  if (rc < 0) return rc;
  if (future->state != ALOOP__PENDING) return ALOOP_EDONE;
  if (future->operation)
    return aloop__misuse(future->object.loop, ALOOP_EPERM, "a future of the library stops its own operation");
  future->stop = fn;
  future->stop_arg = arg;
  return 0;
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

void aloop__future_describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_future_t *future = (const aloop_future_t *)(const void *)object;
  if (future->state == ALOOP__PENDING)
    snprintf(text, size, "pending, %" PRIu32 " callbacks", future->count);
  else if (future->state == ALOOP__DONE)
    snprintf(text, size, "done with %" PRId64, future->value);
  else if (future->value == ALOOP_ECANCELED)
    snprintf(text, size, "cancelled");
  else
    snprintf(text, size, "failed with %s", aloop_error_name(future->value));
}

/* Tells of an error that nobody read. The handler may take a reference: false then. */
static bool report_unread(aloop_future_t *future) {
  char text[MESSAGE_MAX + 160];
  const aloop_future_t *from = aloop__future_source(future);
  const char *message = from->extra != NULL ? from->extra->message : NULL;
  const char *label = kind_of(future)->label != NULL ? kind_of(future)->label(future) : NULL;
  snprintf(text, sizeof text, "%s%.80s%s was never retrieved%s%s", label != NULL ? "error of " : "",
           label != NULL ? label : future->object.kind->name, label != NULL ? "" : " error",
           message != NULL ? ": " : "", message != NULL ? message : "");
  aloop_error_context_t context = aloop__report_context(text, (int)future->value);
  context.future = future;
  context.origin = future->object.origin;
  future->unread = false;
  future->object.refs = 1;
  aloop__report(future->object.loop, &context);
  return --future->object.refs == 0;
}

bool aloop__future_release_slowly(aloop_future_t *future) {
  if (ALOOP_UNLIKELY(future->unread) && !report_unread(future)) return false;
  aloop_t *loop = future->object.loop;
  drop_callbacks(future);
  if (ALOOP_UNLIKELY(future->promised))
    future->promise->drop(future, future->giver);
  else if (future->owner && future->destroy != NULL)
    future->destroy(future->ptr);
  if (ALOOP_UNLIKELY(future->extra != NULL)) aloop__future_release_extra(loop, future->extra);
  aloop__memory_release(loop, future->more);
  return true;
}

void aloop__future_destroy(aloop__object_t *object) {
  aloop_future_t *future = future_of(object);
  if (aloop__future_release(future)) give_block(future);
}

/* The caller holds a reference. */
void aloop__future_close(aloop__object_t *object) {
  aloop_future_t *future = future_of(object);
  if (future->state == ALOOP__PENDING)
    aloop__future_break(future, NULL);
  else
    drop_callbacks(future);
  if (!object->stalled) return;
  aloop__object_unstall(object);
  aloop__object_unref(object);
}

bool aloop__future_resume(aloop__object_t *object) {
  if (!queue_callbacks(future_of(object))) return false;
  aloop__object_unref(object); /* not the last: at least one callback is queued */
  return true;
}

static const aloop__future_kind_t plain = {.object = {.name = "future",
                                                      .index = ALOOP__FUTURE,
                                                      .describe = aloop__future_describe,
                                                      .destroy = aloop__future_destroy,
                                                      .close = aloop__future_close,
                                                      .resume = aloop__future_resume}};

static ALOOP_NOINLINE void fail_closed(aloop_future_t *future) {
  aloop__misuse(future->object.loop, ALOOP_ECLOSED, "the loop is closed");
  end_with_error(future, ALOOP_ECLOSED, NULL);
}

ALOOP_INLINE void init(aloop_future_t *future, aloop_t *loop, const aloop__future_kind_t *kind,
                       const char *origin) {
  aloop__short_lived_init(&future->object, loop, &kind->object, origin);
  future->value = 0;
  future->stop = NULL;
  future->stop_arg = NULL;
  future->more = NULL;
  future->count = future->ran = future->queued = 0;
  future->state = ALOOP__PENDING;
  future->operation = future->sealed = future->owner = future->promised = future->unread = false;
  future->by_value = future->ignored = future->asked = future->late = false;
  future->pause = false;
  future->extra = NULL;
  if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_CLOSED)) fail_closed(future);
}

void aloop__future_init(aloop_future_t *future, aloop_t *loop, const aloop__future_kind_t *kind,
                        const char *origin) {
  init(future, loop, kind, origin);
}

aloop_future_t *aloop__future_new(aloop_t *loop, const char *origin) {
  aloop_future_t *future = take_block(loop);
  if (ALOOP_LIKELY(future != NULL)) init(future, loop, &plain, origin);
  return future;
}

aloop_future_t *aloop_future_new_from(aloop_t *loop, const char *origin) {
  return ALOOP_LIKELY(aloop__loop_ok(loop)) ? aloop__future_new(loop, origin) : NULL;
}

aloop_future_t *(aloop_future_new)(aloop_t *loop) {
  return aloop_future_new_from(loop, NULL);
}

aloop_future_t *aloop_future_ref(aloop_future_t *future) {
  if (future == NULL || ALOOP_UNLIKELY(aloop__future_enter(future) < 0)) return NULL;
  aloop__object_ref(&future->object);
  return future;
}

void aloop_future_unref(aloop_future_t *future) {
  if (future != NULL && ALOOP_LIKELY(aloop__future_enter(future) == 0)) aloop__object_unref(&future->object);
}

void aloop_future_detach(aloop_future_t *future) {
  aloop_future_unref(future);
}

aloop_t *aloop_future_loop(const aloop_future_t *future) {
  if (ALOOP_LIKELY(future != NULL)) return future->object.loop;
  aloop__future_enter_slowly(NULL);
  return NULL;
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

/* From here on the future has neither a promise nor an object. */
static const aloop__promise_t *take_promise(aloop_future_t *future, void **giver) {
  const aloop__promise_t *promise = future->promise;
  *giver = future->giver;
  future->promised = future->by_value = false;
  future->ptr = NULL;
  future->destroy = NULL;
  return promise;
}

static void keep_promise(aloop_future_t *future) {
  void *giver;
  const aloop__promise_t *promise = take_promise(future, &giver);
  int rc = promise->keep(future, giver);
  if (rc >= 0) return;
  future->state = ALOOP__FAILED;
  future->value = rc;
}

/* The result of a gather stands for those of its children: what they were promised is theirs who read it. A
 * descriptor is not, because nobody can know its number from that. */
static void take_over_children(const aloop_future_t *future) {
  size_t count = future->extra != NULL ? future->extra->children_count : 0;
  for (size_t i = 0; i < count; i++) {
    aloop_future_t *child = future->extra->children[i];
    aloop_future_t *source = aloop__future_source(child);
    if (source->promised)
      keep_promise(source);
    else if (source->by_value && !source->owner)
      take_over_children(source);
  }
}

/* The result is read, and with it goes what it stands for. */
static ALOOP_NOINLINE void take_over(aloop_future_t *future) {
  aloop_future_t *source = aloop__future_source(future);
  if (source->promised) {
    keep_promise(source);
  } else if (source->by_value) {
    source->owner = false;
    take_over_children(source);
  }
  future->state = source->state;
  future->value = source->value;
}

bool aloop_future_done(const aloop_future_t *future) {
  return ALOOP_LIKELY(aloop__future_enter(future) == 0) && future->state != ALOOP__PENDING;
}

bool aloop_future_cancelled(const aloop_future_t *future) {
  return ALOOP_LIKELY(aloop__future_enter(future) == 0) && future->state == ALOOP__FAILED &&
         future->value == ALOOP_ECANCELED;
}

int64_t aloop__future_read_slowly(aloop_future_t *future) {
  int rc = aloop__future_enter(future);
  if (rc < 0) return rc;
  if (future->state == ALOOP__PENDING) return ALOOP_ENOTDONE;
  future->unread = false;
  if (future->by_value) take_over(future);
  return future->value;
}

int64_t aloop_future_result(aloop_future_t *future) {
  bool usual = ALOOP_LIKELY(future != NULL) && ALOOP_LIKELY(future->object.loop->guard == 0) &&
               future->state != ALOOP__PENDING;
  return ALOOP_LIKELY(usual) ? aloop__future_read(future) : aloop__future_read_slowly(future);
}

/* Finds the future that owns the object of this one's result. */
static int find_object(aloop_future_t *future, void *out, aloop_future_t **owner) {
  if (out == NULL && future != NULL)
    return aloop__misuse(future->object.loop, ALOOP_EINVAL, "the object of a future needs a place to go to");
  int64_t value = aloop_future_result(future);
  if (value < 0) return (int)value;
  *owner = aloop__future_source(future);
  if (!(*owner)->owner) return ALOOP_ENOENT;
  memcpy(out, &(*owner)->ptr, sizeof(void *));
  return 0;
}

int aloop_future_result_ptr(aloop_future_t *future, void *out) {
  aloop_future_t *owner = NULL;
  return find_object(future, out, &owner);
}

int aloop_future_take_ptr(aloop_future_t *future, void *out) {
  aloop_future_t *owner = NULL;
  int rc = find_object(future, out, &owner);
  if (rc == 0) owner->owner = false;
  return rc;
}

/* Why there can be no such callback, or 0. */
static ALOOP_NOINLINE int refuse_callback(const aloop_future_t *future, aloop_done_fn fn) {
  int rc = aloop__future_enter(future);
  if (rc < 0) return rc;
  if (fn == NULL) return aloop__misuse(future->object.loop, ALOOP_EINVAL, "a done callback is a function");
  return aloop__loop_enter(future->object.loop);
}

int aloop_future_add_done_callback(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  bool usual = ALOOP_LIKELY(future != NULL && fn != NULL) && ALOOP_LIKELY(future->object.loop->guard == 0);
  int rc = usual ? 0 : refuse_callback(future, fn);
  return rc < 0 ? rc : add_callback(future, fn, arg, future->object.loop->context);
}

/* Callbacks of a done future keep their place in the list. */
static int remove_due(aloop_future_t *future, uint32_t from, aloop_done_fn fn, void *arg) {
  int removed = 0;
  for (uint32_t i = from; i < future->count; i++) {
    aloop__done_t *done = done_at(future, i);
    if (done->fn != fn || done->arg != arg) continue;
    done->fn = NULL;
    removed++;
  }
  return removed;
}

/* Callbacks that wait for the end. With a context go values, whose destructors may change the list, end the
 * future, or let it go. */
static int remove_waiting(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  int removed = 0;
  aloop__object_ref(&future->object);
  for (uint32_t i = 0; future->state == ALOOP__PENDING && i < future->count;) {
    aloop__done_t done = *done_at(future, i);
    if (done.fn != fn || done.arg != arg) {
      i++;
      continue;
    }
    future->count--;
    for (uint32_t j = i; j < future->count; j++) *done_at(future, j) = *done_at(future, j + 1);
    removed++;
    if (done.context == NULL || done.context == inside(future)) continue;
    aloop__map_unref(future->object.loop, done.context);
    i = 0;
  }
  if (future->state != ALOOP__PENDING) removed += remove_due(future, future->ran + future->queued, fn, arg);
  drop(future);
  return removed;
}

int aloop_future_remove_done_callback(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  int rc = aloop__future_enter(future);
  if (rc < 0) return rc;
  if (fn == NULL) return aloop__misuse(future->object.loop, ALOOP_EINVAL, "a done callback is a function");
  if (future->state == ALOOP__PENDING) return remove_waiting(future, fn, arg);
  return remove_due(future, future->ran + future->queued, fn, arg);
}

/* ---- For the rest of the library ------------------------------------------------------------------------- */

aloop_future_t *aloop__future_over(aloop_t *loop, const aloop__future_kind_t *kind, size_t bytes,
                                   aloop_future_t *const *children, size_t count) {
  if (count > (SIZE_MAX - bytes) / sizeof *children) return NULL;
  aloop__future_extra_t *extra = aloop__memory_zero(loop, bytes + count * sizeof *children);
  if (extra == NULL) return NULL;
  aloop_future_t *future = take_block(loop);
  if (future == NULL) {
    aloop__memory_release(loop, extra);
    return NULL;
  }
  aloop__future_init(future, loop, kind != NULL ? kind : &plain, NULL);
  extra->children = (aloop_future_t **)(void *)((char *)extra + bytes);
  extra->children_count = count;
  for (size_t i = 0; i < count; i++) extra->children[i] = children[i];
  future->extra = extra;
  return future;
}

bool aloop__future_finish(aloop_future_t *future, int64_t value) {
  if (future == NULL || future->state != ALOOP__PENDING) return false;
  end_with_number(future, ALOOP__DONE, value);
  return true;
}

void aloop__future_finish_in_place(aloop_future_t *future, int64_t value) {
  bool closed = future->object.loop->guard & ALOOP__GUARD_CLOSED;
  if (future->count != 1 || future->first.context != NULL || closed) {
    end_with_number(future, ALOOP__DONE, value);
    return;
  }
  aloop__done_t done = future->first;
  future->count = 0;
  aloop__object_ref(&future->object);
  end_with_number(future, ALOOP__DONE, value);
  done.fn(future, done.arg);
  drop(future);
}

bool aloop__future_finish_ptr(aloop_future_t *future, int64_t value, void *ptr, aloop_destroy_fn destroy_ptr) {
  if (future == NULL || future->state != ALOOP__PENDING) return false;
  end_with_object(future, value, ptr, destroy_ptr);
  return true;
}

bool aloop__future_finish_owned(aloop_future_t *future, int64_t value, aloop_destroy_fn release) {
  if (future == NULL || future->state != ALOOP__PENDING) return false;
  future->by_value = true;
  end_with_object(future, value, (void *)(intptr_t)value, release);
  return true;
}

bool aloop__future_finish_promise(aloop_future_t *future, int64_t value, const aloop__promise_t *promise,
                                  void *giver) {
  if (future == NULL || future->state != ALOOP__PENDING) return false;
  future->by_value = future->promised = true;
  future->promise = promise;
  future->giver = giver;
  end(future, ALOOP__DONE, value);
  return true;
}

void aloop__future_forsake(aloop_future_t *future) {
  aloop_future_t *source = aloop__future_source(future);
  if (!source->promised) return;
  void *giver;
  const aloop__promise_t *promise = take_promise(source, &giver);
  source->state = ALOOP__FAILED;
  source->value = ALOOP_ECANCELED;
  promise->forsake(source, giver);
}

static void fail_formatted(aloop_future_t *future, int error, const char *format, va_list arguments) {
  char text[MESSAGE_MAX];
  if (format != NULL) vsnprintf(text, sizeof text, format, arguments);
  end_with_error(future, error, format != NULL ? text : NULL);
}

bool aloop__future_fail(aloop_future_t *future, int error, const char *format, ...) {
  if (future == NULL || future->state != ALOOP__PENDING) return false;
  va_list arguments;
  va_start(arguments, format);
  fail_formatted(future, error, format, arguments);
  va_end(arguments);
  return true;
}

aloop_future_t *aloop__future_failed(aloop_t *loop, const char *origin, int error, const char *format, ...) {
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future == NULL || future->state != ALOOP__PENDING) return future;
  va_list arguments;
  va_start(arguments, format);
  fail_formatted(future, error, format, arguments);
  va_end(arguments);
  return future;
}

aloop_future_t *aloop__future_refused(aloop_t *loop, const char *origin, int error, const char *rule) {
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future == NULL || future->state != ALOOP__PENDING) return future;
  end_with_error(future, error, rule);
  aloop__misuse(loop, error, rule);
  return future;
}

void aloop__future_follow(aloop_future_t *future, aloop_future_t *source) {
  if (future->state != ALOOP__PENDING) return;
  future->extra->source = source;
  source->unread = false;
  future->by_value = source->by_value;
  end_with_number(future, source->state, source->value);
}

int aloop__future_watch(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  return add_callback(future, fn, arg, NULL);
}

int aloop__future_watch_inside(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  return add_callback(future, fn, arg, inside(future));
}

void aloop__future_unwatch(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  if (future->state == ALOOP__PENDING)
    remove_waiting(future, fn, arg);
  else
    remove_due(future, future->ran, fn, arg);
}

void aloop__future_ignore(aloop_future_t *future) {
  future->ignored = true;
  future->unread = false;
}
