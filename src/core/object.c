/* SPDX-License-Identifier: MIT
 *
 * Live objects: futures, transports, servers, processes, streams. Each is counted by kind (metrics), linked
 * (dump, close) and keeps the memory of its loop alive: after aloop_free the loop is an empty shell that goes
 * with the last object, so releasing an object late is always safe. Linking and unlinking are O(1). Resuming
 * stalled objects walks the whole list, which is fine: it happens only while the process is out of memory.
 */
#include "core/object.h"

#include "core/memory.h"
#include "core/short_lived.h"

void aloop__object_init(aloop__object_t *object, aloop_t *loop, const aloop__kind_t *kind, const char *origin) {
  aloop__short_lived_init(object, loop, kind, origin);
}

void aloop__object_unstall(aloop__object_t *object) {
  if (!object->stalled) return;
  object->stalled = false;
  if (--object->loop->stalled == 0) object->loop->attention &= ~(uint32_t)ALOOP__STALLED;
}

void aloop__object_end(aloop__object_t *object, void *block) {
  aloop_t *loop = object->loop;
  aloop__object_unstall(object);
  loop->live[object->kind->index]--;
  aloop__list_remove(&object->link);
  aloop__memory_release(loop, block);
  aloop__loop_drop(loop);
}

void aloop__object_stall(aloop__object_t *object) {
  if (object->stalled) return;
  object->stalled = true;
  object->loop->stalled++;
  aloop__loop_attend(object->loop, ALOOP__STALLED);
}

static aloop__object_t *hold(aloop_t *loop, aloop__list_t *at) {
  if (at == &loop->objects) return NULL;
  aloop__object_t *object = ALOOP_CONTAINER_OF(at, aloop__object_t, link);
  aloop__object_ref(object);
  return object;
}

int aloop__object_each(aloop_t *loop, int (*visit)(aloop__object_t *object)) {
  int rc = 0;
  aloop__object_t *object = hold(loop, loop->objects.next);
  while (object != NULL) {
    rc = visit(object);
    aloop__object_t *next = rc == 0 ? hold(loop, object->link.next) : NULL;
    aloop__object_unref(object);
    object = next;
  }
  return rc;
}

void aloop__object_resume_stalled(aloop_t *loop) {
  for (aloop__list_t *at = loop->objects.next; at != &loop->objects && loop->stalled > 0; at = at->next) {
    aloop__object_t *object = ALOOP_CONTAINER_OF(at, aloop__object_t, link);
    if (!object->stalled) continue;
    if (!object->kind->resume(object)) return;
    aloop__object_unstall(object);
  }
}
