/* SPDX-License-Identifier: MIT
 *
 * What futures, transports, servers, processes and streams have in common: a count, a place in the loop's list
 * of live objects (for the dump, and for aloop_close), and a second chance when the ready deque could not grow.
 * An object that must be called back "soon" but met out of memory is marked stalled; each turn offers its
 * kind's `resume` another try, so no end is ever lost.
 */
#ifndef ALOOP_CORE_OBJECT_H
#define ALOOP_CORE_OBJECT_H

#include "aloop.h"
#include "core/list.h"

typedef struct aloop__object aloop__object_t;

/* Jobs are counted like these, though they are no objects. */
enum {
  ALOOP__FUTURE,
  ALOOP__TRANSPORT,
  ALOOP__SERVER,
  ALOOP__SIGNAL_HANDLER,
  ALOOP__JOB,
  ALOOP__PROCESS,
  ALOOP__DATAGRAM,
  ALOOP__SYNC,
  ALOOP__TASK,
  ALOOP__STREAM,
  ALOOP__GENERATOR,
  ALOOP__KINDS
};

typedef struct aloop__kind {
  const char *name;
  int index; /* ALOOP__FUTURE... */
  /* Writes what the dump says after the name. */
  void (*describe)(const aloop__object_t *object, char *text, size_t size);
  /* The last reference went: release everything, ending with aloop__object_end. */
  void (*destroy)(aloop__object_t *object);
  /* The loop is being closed: end now. The object is kept alive meanwhile. */
  void (*close)(aloop__object_t *object);
  /* Try again what met out of memory: returns false if it still does. */
  bool (*resume)(aloop__object_t *object);
} aloop__kind_t;

struct aloop__object {
  aloop_t *loop;
  aloop__list_t link;
  const aloop__kind_t *kind;
  const char *origin;
  uint32_t refs;
  bool stalled;
  uint8_t state; /* the owner's, in what would be padding */
};

/* Begins life with one reference. */
void aloop__object_init(aloop__object_t *object, aloop_t *loop, const aloop__kind_t *kind, const char *origin);

/* Takes the object out of the list and its block back to the allocator; the loop's memory goes with its last
 * object. */
void aloop__object_end(aloop__object_t *object, void *block);

static inline void aloop__object_ref(aloop__object_t *object) {
  object->refs++;
}

static inline void aloop__object_unref(aloop__object_t *object) {
  if (--object->refs == 0) object->kind->destroy(object);
}

/* Calls `visit` for every object, the oldest first, until it returns a code. It may do anything, and so may who
 * hears of an object's end: the one that is visited, and the next one, are held. */
int aloop__object_each(aloop_t *loop, int (*visit)(aloop__object_t *object));

void aloop__object_stall(aloop__object_t *object);
void aloop__object_unstall(aloop__object_t *object);

/* Each turn, while anything is stalled. */
void aloop__object_resume_stalled(aloop_t *loop);

#endif
