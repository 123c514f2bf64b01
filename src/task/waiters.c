/* SPDX-License-Identifier: MIT
 *
 * Waiters: the futures of tasks and callbacks that stand in line for a lock, an event, a place in a queue.
 *
 * A waiter is a future with its place in the line behind it, so that waiting allocates the future and nothing
 * else, and standing, leaving and being called are O(1). It leaves the line by the stop function of its
 * operation: the future may be cancelled, be ended by its owner or go with the loop, at any moment, and the
 * line never holds one that is done. That is what asyncio's objects must look for each time, because theirs
 * stay in the line, done or cancelled, until their task runs again.
 *
 * What a waiter is given when its turn comes is a promise (future.h), which its task or callback makes its own
 * by reading the result. So nothing gets lost between the end of a future and the moment its task runs,
 * when that task is cancelled meanwhile.
 *
 * Blocks are kept on a free list per loop, as those of plain futures are.
 */
#include "task/waiters.h"

#include "core/memory.h"
#include "core/short_lived.h"

enum { SPARES_MAX = 256 };

typedef struct waiter_room {
  aloop__room_t room;
  aloop__spares_t spares;
} waiter_room_t;

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static void close_room(aloop_t *loop, aloop__room_t *room) {
  waiter_room_t *self = ALOOP_CONTAINER_OF(room, waiter_room_t, room);
  aloop__spares_release(loop, &self->spares, sizeof(aloop__waiter_t));
  aloop__memory_release(loop, self);
}

/* NULL: out of memory, or the loop is closed. */
static waiter_room_t *room_of(aloop_t *loop) {
  aloop__room_t *room = loop->rooms[ALOOP__ROOM_WAITERS];
  if (ALOOP_LIKELY(room != NULL)) return ALOOP_CONTAINER_OF(room, waiter_room_t, room);
  if (loop->guard & ALOOP__GUARD_CLOSED) return NULL;
  waiter_room_t *made = aloop__memory_zero(loop, sizeof *made);
  if (made == NULL) return NULL;
  made->room.close = close_room;
  loop->rooms[ALOOP__ROOM_WAITERS] = &made->room;
  return made;
}

static aloop__waiter_t *take_block(aloop_t *loop) {
  waiter_room_t *room = room_of(loop);
  if (room == NULL || room->spares.first == NULL) return aloop__memory_new(loop, sizeof(aloop__waiter_t));
  return aloop__spares_take(&room->spares, sizeof(aloop__waiter_t));
}

static void give_block(aloop__waiter_t *waiter) {
  aloop__room_t *room = waiter->future.object.loop->rooms[ALOOP__ROOM_WAITERS];
  waiter_room_t *self = room != NULL ? ALOOP_CONTAINER_OF(room, waiter_room_t, room) : NULL;
  aloop__short_lived_give(self != NULL ? &self->spares : NULL, SPARES_MAX, &waiter->future.object, waiter,
                          sizeof *waiter);
}

void aloop__waiters_destroy(aloop__object_t *object) {
  aloop_future_t *future = ALOOP_CONTAINER_OF(object, aloop_future_t, object);
  aloop__object_t *kept = aloop__waiters_of(future)->keeps;
  if (!aloop__future_release(future)) return;
  give_block(aloop__waiters_of(future));
  if (kept != NULL) aloop__object_unref(kept);
}

static const aloop__future_kind_t plain = {.object = {.name = "future",
                                                      .index = ALOOP__FUTURE,
                                                      .describe = aloop__future_describe,
                                                      .destroy = aloop__waiters_destroy,
                                                      .close = aloop__future_close,
                                                      .resume = aloop__future_resume}};

/* ---- The line -------------------------------------------------------------------------------------------- */

void aloop__waiters_init(aloop__waiters_t *line) {
  aloop__list_init(&line->list);
  line->count = 0;
}

static void enter_line(aloop__waiter_t *waiter, aloop__waiters_t *line) {
  aloop__list_append(&line->list, &waiter->link);
  line->count++;
  waiter->line = line;
}

static void leave_line(aloop__waiter_t *waiter) {
  if (waiter->line == NULL) return;
  aloop__list_remove(&waiter->link);
  waiter->line->count--;
  waiter->line = NULL;
}

static void on_stop(aloop_future_t *future, void *arg) {
  (void)arg;
  leave_line(aloop__waiters_of(future));
}

aloop_future_t *aloop__waiters_join_as(aloop__waiters_t *line, aloop_t *loop, const aloop__future_kind_t *kind,
                                       const char *origin) {
  aloop__waiter_t *waiter = take_block(loop);
  if (waiter == NULL) return NULL;
  aloop__list_init(&waiter->link);
  waiter->line = NULL;
  waiter->keeps = NULL;
  waiter->item = NULL;
  waiter->turn = NULL;
  aloop__future_init(&waiter->future, loop, kind, origin);
  if (ALOOP_UNLIKELY(waiter->future.state != ALOOP__PENDING)) return &waiter->future; /* the loop is closed */
  enter_line(waiter, line);
  aloop__future_set_operation(&waiter->future, on_stop, NULL);
  return &waiter->future;
}

aloop_future_t *aloop__waiters_join(aloop__waiters_t *line, aloop_t *loop, const char *origin) {
  return aloop__waiters_join_as(line, loop, &plain, origin);
}

aloop_future_t *aloop__waiters_next(aloop__waiters_t *line) {
  if (line->count == 0) return NULL;
  aloop__waiter_t *first = ALOOP_CONTAINER_OF(line->list.next, aloop__waiter_t, link);
  leave_line(first);
  return &first->future;
}

void aloop__waiters_move(aloop__waiter_t *waiter, aloop__waiters_t *to) {
  leave_line(waiter);
  enter_line(waiter, to);
}

void aloop__waiters_finish_all(aloop__waiters_t *line, int64_t value) {
  for (size_t left = line->count; left > 0; left--) aloop__future_finish(aloop__waiters_next(line), value);
}

void aloop__waiters_fail_all(aloop__waiters_t *line, int error, const char *message) {
  for (size_t left = line->count; left > 0; left--)
    aloop__future_fail(aloop__waiters_next(line), error, message != NULL ? "%s" : NULL, message);
}
