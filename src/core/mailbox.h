/* SPDX-License-Identifier: MIT
 *
 * The mailbox: how other threads hand callbacks to the loop. See mailbox.c.
 */
#ifndef ALOOP_CORE_MAILBOX_H
#define ALOOP_CORE_MAILBOX_H

#include <stdatomic.h>

#include "aloop.h"

typedef struct aloop__cell {
  _Atomic uint64_t turn; /* equal to its ticket when free, ticket + 1 when filled */
  aloop_callback_fn fn;
  void *arg;
  const char *origin;
} aloop__cell_t;

typedef struct aloop__letter {
  _Atomic(struct aloop__letter *) next;
  aloop_callback_fn fn;
  void *arg;
  const char *origin;
} aloop__letter_t;

typedef struct aloop__mailbox {
  _Atomic uint64_t state; /* next ticket << 2 | CLOSED | SLEEPING */
  _Atomic(aloop__cell_t *) cells;
  _Atomic uint64_t head;       /* next ticket to take; written by the loop's thread only */
  _Atomic uint64_t sleep_from; /* the ticket whose owner wakes the loop */
  _Atomic uint64_t overflow;   /* letters not yet taken */
  _Atomic uint32_t wakers;     /* posters that are about to write the wake-up */
  _Atomic(aloop__letter_t *) last;
  aloop__letter_t *first;
  aloop__letter_t stub;
} aloop__mailbox_t;

void aloop__mailbox_init(aloop__mailbox_t *mailbox);

/* In the child of a fork: keeps what was posted completely, forgets posters that did not come along. */
void aloop__mailbox_after_fork(aloop_t *loop);

/* Refuses posts from now on; a post under way ends first. */
void aloop__mailbox_close(aloop_t *loop);
void aloop__mailbox_free(aloop_t *loop);

/* Phase 3 of the turn: moves what was posted to the ready deque. */
void aloop__mailbox_take(aloop_t *loop);

/* Before a wait: false if something was posted meanwhile, and the wait must not happen. */
bool aloop__mailbox_sleep(aloop_t *loop);
void aloop__mailbox_awake(aloop_t *loop);

/* Whether a post waits to be taken. */
bool aloop__mailbox_pending(const aloop_t *loop);

/* Whether anybody has ever posted: until then none of the steps above is needed. */
static inline bool aloop__mailbox_in_use(const aloop__mailbox_t *mailbox) {
  return atomic_load_explicit(&mailbox->cells, memory_order_relaxed) != NULL;
}

#endif
