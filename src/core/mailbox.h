/* SPDX-License-Identifier: MIT
 *
 * The mailbox: how other threads hand callbacks to the loop. See mailbox.c.
 */
#ifndef ALOOP_CORE_MAILBOX_H
#define ALOOP_CORE_MAILBOX_H

#include <stdatomic.h>

#include "aloop.h"

typedef struct aloop__page aloop__page_t;
typedef struct aloop__express aloop__express_t;

/* Of the machines that we know of; memory that two threads write is kept so far apart. */
enum { ALOOP__CACHE_LINE = 64 };

/* Whether no byte of member `a` of a type can lie on a cache line with one of member `b`, which comes later,
 * wherever an object of it begins. */
#define ALOOP__IS_APART(type, a, b)                                                                            \
  (offsetof(type, b) >= offsetof(type, a) + sizeof(((type *)0)->a) + ALOOP__CACHE_LINE - 1)

/* Posts in a page. */
enum { ALOOP__MAILBOX_PAGE = 512 };

/* In the word in which numbers are claimed. */
enum { ALOOP__MAILBOX_FLAGS = 2 };

/* Members that different threads write lie on different cache lines. */
typedef struct aloop__mailbox {
  _Atomic uint64_t state;      /* next ticket << ALOOP__MAILBOX_FLAGS | CLOSED | SLEEPING */
  _Atomic uint32_t wakers;     /* posters that are about to write the wake-up */
  _Atomic uintptr_t applicant; /* the thread that began the last page */
  char apart[ALOOP__CACHE_LINE];
  _Atomic(_Atomic(aloop__page_t *) *) directory; /* pages by number; NULL until the first post */
  _Atomic uintptr_t owner;                       /* the thread that has the express, or 0; set by the loop */
  aloop__express_t *express;                     /* NULL until the first one has it */
  char apart_too[ALOOP__CACHE_LINE];
  _Atomic uint64_t head;   /* next ticket to take; written by the loop's thread only */
  bool more;               /* perhaps not all was taken; of the loop's thread, as the next */
  bool express_runs;       /* something may be in the express or on its way there */
  uint8_t stalls;          /* how often in a row the loop could neither sleep nor take a post */
  uintptr_t regular;       /* the thread that began the last page that was used up, or 0 ... */
  uint64_t express_before; /* ... and what was taken from the express until then */
} aloop__mailbox_t;

/* How many numbers are claimed, as far as this thread can know: all that happened before are among them. */
static inline uint64_t aloop__mailbox_claimed(const aloop__mailbox_t *mailbox) {
  return atomic_load_explicit(&mailbox->state, memory_order_acquire) >> ALOOP__MAILBOX_FLAGS;
}

void aloop__mailbox_init(aloop__mailbox_t *mailbox);

/* In the child of a fork: keeps what was posted completely, forgets posters that did not come along.
 * ALOOP_ENOMEM: nothing has changed. */
int aloop__mailbox_after_fork(aloop_t *loop);

/* Refuses posts from now on; a post under way ends first. */
void aloop__mailbox_close(aloop_t *loop);
void aloop__mailbox_free(aloop_t *loop);

/* Moves what was posted to the ready deque, some at a time. */
void aloop__mailbox_take(aloop_t *loop);

/* Before a wait: false if something was posted meanwhile, and the wait must not happen. */
bool aloop__mailbox_sleep(aloop_t *loop);
void aloop__mailbox_awake(aloop_t *loop);

/* The loop ends its run. Whoever waits for the next one, a host perhaps, has to be woken by a post. One that is
 * there already is seen by aloop__mailbox_pending. */
void aloop__mailbox_rest(aloop_t *loop);

/* When it must not: leaves the posters alone for a moment, unless much was done since the last poll. Returns
 * how long the loop may wait for I/O. */
int64_t aloop__mailbox_stand_off(aloop_t *loop, int64_t timeout);

/* For one that waits for a poster that was interrupted in a post: at first for a moment, then longer. `rounds`
 * counts, from 0. */
void aloop__mailbox_await_poster(unsigned *rounds);

/* Whether somebody has posted what is not taken, or is about to. */
bool aloop__mailbox_pending(const aloop_t *loop);

/* Whether anybody has ever posted: until then none of the steps above is needed. */
static inline bool aloop__mailbox_in_use(const aloop__mailbox_t *mailbox) {
  return atomic_load_explicit(&mailbox->directory, memory_order_relaxed) != NULL;
}

#endif
