/* SPDX-License-Identifier: MIT
 *
 * The beginning and the end of objects that live for a microsecond, and whose blocks are used again: futures,
 * tasks, transports. It is what object.c does, compiled into the place where it is used, because the calls
 * would cost as much again.
 */
#ifndef ALOOP_CORE_SHORT_LIVED_H
#define ALOOP_CORE_SHORT_LIVED_H

#include "core/loop.h"
#include "core/spares.h"

/* aloop__object_init. */
ALOOP_INLINE void aloop__short_lived_init(aloop__object_t *object, aloop_t *loop, const aloop__kind_t *kind,
                                          const char *origin) {
  object->loop = loop;
  object->kind = kind;
  object->origin = origin;
  object->refs = 1;
  object->stalled = false;
  object->state = 0;
  aloop__list_append(&loop->objects, &object->link);
  loop->live[kind->index]++;
  aloop__loop_hold(loop);
}

/* aloop__object_end, if that is all: the block becomes the caller's. False, with nothing changed, if the object
 * is the loop's last, or stalled. */
ALOOP_INLINE bool aloop__short_lived_end(aloop__object_t *object) {
  aloop_t *loop = object->loop;
  if (ALOOP_UNLIKELY(object->stalled) || ALOOP_UNLIKELY(loop->holds == 1)) return false;
  loop->holds--;
  loop->live[object->kind->index]--;
  object->link.prev->next = object->link.next;
  object->link.next->prev = object->link.prev;
  return true;
}

/* aloop__object_end; the block goes to the spare ones, of which there are to be `most`. NULL: it must not. */
ALOOP_INLINE void aloop__short_lived_give(aloop__spares_t *spares, uint32_t most, aloop__object_t *object,
                                          void *block, size_t size) {
  if (ALOOP_UNLIKELY(spares == NULL) || ALOOP_UNLIKELY(spares->count == most) ||
      ALOOP_UNLIKELY(!aloop__short_lived_end(object)))
    aloop__object_end(object, block);
  else
    aloop__spares_give(spares, block, size);
}

#endif
