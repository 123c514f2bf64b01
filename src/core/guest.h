/* SPDX-License-Identifier: MIT
 *
 * Guests: what another thread waits for and a loop must answer even if it is closed first. See guest.c.
 */
#ifndef ALOOP_CORE_GUEST_H
#define ALOOP_CORE_GUEST_H

#include <stdatomic.h>

#include "aloop.h"
#include "core/list.h"

typedef struct aloop__guest aloop__guest_t;

struct aloop__guest {
  aloop__guest_t *next; /* among those that nobody has welcomed yet */
  aloop__list_t link;
  bool welcomed;
  void (*farewell)(aloop__guest_t *guest); /* the loop is closed: it is not a guest any more */
};

typedef struct aloop__guests {
  _Atomic(aloop__guest_t *) arrived; /* newest first; a mark instead: the loop is closed */
  aloop__list_t list;
} aloop__guests_t;

void aloop__guests_init(aloop__guests_t *guests);

/* From any thread. False: the loop is closed. */
bool aloop__guests_join(aloop_t *loop, aloop__guest_t *guest);

/* In the loop's thread: no farewell. */
void aloop__guests_leave(aloop_t *loop, aloop__guest_t *guest);

/* Bids everybody farewell. */
void aloop__guests_close(aloop_t *loop);

#endif
