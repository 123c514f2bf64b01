/* SPDX-License-Identifier: MIT
 *
 * The inbox of a stream: one block of memory into which the kernel writes and from which readers are served.
 *
 *     block ... | taken | gap | can be taken | free ... | one byte more
 *               head                         tail       room
 *
 * What was handed out stays where it is until it is settled: then it is gone, or, because nobody read the
 * result, it can be taken again. A line is not copied but lent: it is followed by a zero, in place of the next
 * byte, which is saved, or in the free byte behind the newest one. If more arrives in the latter case that
 * byte is skipped (the gap), so that the reader's line stays as it is. A block with a line on loan never moves.
 *
 * Otherwise a full block makes room by moving its bytes to the front, if they fill no more than half of it, or
 * by giving way to one twice as large: each byte is moved O(1) times on average. An idle stream has no block:
 * the loop keeps empty ones, up to KEPT_MAX bytes, the last used first, because that is in the cache. How large
 * the next block is follows from how full the last reads were.
 *
 * Searching remembers where it stopped, so waiting for a separator costs O(bytes) however they arrive; a
 * separator that begins again and again in vain costs its length each time.
 */
#include "task/inbox.h"

#include <string.h>

#include "core/memory.h"
#include "core/spares.h"

enum {
  FIRST_SIZE = 4096, /* of class 0; each class has twice the size of the one before */
  CLASSES = 7,       /* that are kept: up to 256 KiB */
  WANT_MAX = 4,      /* 64 KiB: more is had by growing only */
  KEPT_MAX = 1048576
};

typedef struct streams_room {
  aloop__room_t room;
  aloop__spares_t spares[CLASSES];
  size_t kept; /* bytes */
} streams_room_t;

/* ---- Blocks ---------------------------------------------------------------------------------------------- */

static size_t size_of(unsigned class) {
  return (size_t)FIRST_SIZE << class;
}

static void close_room(aloop_t *loop, aloop__room_t *room) {
  streams_room_t *self = ALOOP_CONTAINER_OF(room, streams_room_t, room);
  for (unsigned i = 0; i < CLASSES; i++) aloop__spares_release(loop, &self->spares[i], size_of(i));
  aloop__memory_release(loop, self);
}

/* NULL: out of memory, or the loop is closed. Blocks are then not kept. */
static streams_room_t *room_of(aloop_t *loop) {
  aloop__room_t *room = loop->rooms[ALOOP__ROOM_STREAMS];
  if (ALOOP_LIKELY(room != NULL)) return ALOOP_CONTAINER_OF(room, streams_room_t, room);
  if (loop->guard & ALOOP__GUARD_CLOSED) return NULL;
  streams_room_t *made = aloop__memory_zero(loop, sizeof *made);
  if (made == NULL) return NULL;
  made->room.close = close_room;
  loop->rooms[ALOOP__ROOM_STREAMS] = &made->room;
  return made;
}

static char *take_block(aloop_t *loop, unsigned class) {
  streams_room_t *room = room_of(loop);
  if (room == NULL || class >= CLASSES || room->spares[class].first == NULL)
    return aloop__memory_new(loop, size_of(class));
  room->kept -= size_of(class);
  return aloop__spares_take(&room->spares[class], size_of(class));
}

static void give_block(aloop_t *loop, char *block, unsigned class) {
  streams_room_t *room = room_of(loop);
  if (room == NULL || class >= CLASSES || room->kept + size_of(class) > KEPT_MAX) {
    aloop__memory_release(loop, block);
    return;
  }
  aloop__spares_give(&room->spares[class], block, size_of(class));
  room->kept += size_of(class);
}

void aloop__inbox_release(aloop_t *loop, aloop__inbox_t *inbox) {
  if (inbox->block != NULL) give_block(loop, inbox->block, inbox->class);
  inbox->block = NULL;
  inbox->room = inbox->head = inbox->tail = inbox->taken = inbox->scanned = 0;
  inbox->lent = inbox->gap = false;
}

void aloop__inbox_rest(aloop_t *loop, aloop__inbox_t *inbox) {
  if (inbox->block != NULL && inbox->head == inbox->tail && !inbox->lent) aloop__inbox_release(loop, inbox);
}

/* ---- What arrives ---------------------------------------------------------------------------------------- */

static void move_to(aloop__inbox_t *inbox, char *block) {
  memmove(block, inbox->block + inbox->head, inbox->tail - inbox->head);
  inbox->tail -= inbox->head;
  inbox->head = 0;
}

/* Of a full block without loan. */
static int make_room(aloop_t *loop, aloop__inbox_t *inbox) {
  if (inbox->tail - inbox->head <= inbox->room / 2) {
    move_to(inbox, inbox->block);
    return 0;
  }
  if (inbox->room > SIZE_MAX / 4) return ALOOP_ENOMEM;
  unsigned class = inbox->class + 1u;
  char *block = take_block(loop, class);
  if (block == NULL) return ALOOP_ENOMEM;
  move_to(inbox, block);
  give_block(loop, inbox->block, inbox->class);
  inbox->block = block;
  inbox->class = (uint8_t) class;
  inbox->room = size_of(class) - 1;
  return 0;
}

static int begin(aloop_t *loop, aloop__inbox_t *inbox) {
  inbox->block = take_block(loop, inbox->want);
  if (inbox->block == NULL) return ALOOP_ENOMEM;
  inbox->class = inbox->want;
  inbox->room = size_of(inbox->class) - 1;
  return 0;
}

int aloop__inbox_space(aloop_t *loop, aloop__inbox_t *inbox, void **at, size_t *size) {
  int rc = inbox->block == NULL ? begin(loop, inbox) : 0;
  if (rc < 0) return rc;
  if (ALOOP_UNLIKELY(inbox->lent)) {
    if (aloop__inbox_stuck(inbox)) return ALOOP_ENOBUFS;
    if (inbox->head + inbox->taken == inbox->tail) {
      inbox->gap = true;
      inbox->tail++;
    }
  } else if (inbox->tail == inbox->room) {
    rc = make_room(loop, inbox);
    if (rc < 0) return rc;
  }
  *at = inbox->block + inbox->tail;
  *size = inbox->room - inbox->tail;
  return 0;
}

void aloop__inbox_added(aloop__inbox_t *inbox, size_t size, size_t offered) {
  inbox->tail += size;
  if (ALOOP_UNLIKELY(size == offered)) {
    if (inbox->want < WANT_MAX && inbox->want <= inbox->class) inbox->want++;
  } else if (size < offered / 4 && inbox->want > 0) {
    inbox->want--;
  }
}

/* ---- Searching ------------------------------------------------------------------------------------------- */

size_t aloop__inbox_find(aloop__inbox_t *inbox, const char *separator, size_t size) {
  size_t count = aloop__inbox_size(inbox);
  if (count < size || inbox->scanned > count - size) return SIZE_MAX;
  const char *first = inbox->block + inbox->head + inbox->taken;
  const char *at = first + inbox->scanned, *end = first + count - size + 1;
  while (at < end && (at = memchr(at, separator[0], (size_t)(end - at))) != NULL) {
    if (size == 1 || memcmp(at, separator, size) == 0) return (size_t)(at - first);
    at++;
  }
  inbox->scanned = count - size + 1;
  return SIZE_MAX;
}

/* ---- What is read ---------------------------------------------------------------------------------------- */

void aloop__inbox_take(aloop__inbox_t *inbox, void *into, size_t size) {
  memcpy(into, inbox->block + inbox->head, size);
  inbox->taken = size;
}

const char *aloop__inbox_lend(aloop__inbox_t *inbox, size_t size) {
  char *line = inbox->block + inbox->head;
  inbox->saved = line[size];
  line[size] = '\0';
  inbox->lent = true;
  inbox->taken = size;
  return line;
}

void aloop__inbox_settle(aloop__inbox_t *inbox, bool back) {
  size_t end = inbox->head + inbox->taken;
  if (inbox->lent && !inbox->gap && end < inbox->tail) inbox->block[end] = inbox->saved;
  if (!back) {
    inbox->head = end + inbox->gap;
  } else if (inbox->gap) {
    memmove(inbox->block + end, inbox->block + end + 1, inbox->tail - end - 1);
    inbox->tail--;
  }
  inbox->taken = inbox->scanned = 0;
  inbox->lent = inbox->gap = false;
  if (inbox->head == inbox->tail) inbox->head = inbox->tail = 0;
}
