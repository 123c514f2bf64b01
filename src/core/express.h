/* SPDX-License-Identifier: MIT
 *
 * The express: how a thread that posts all the time does so without a locked instruction. See express.c.
 */
#ifndef ALOOP_CORE_EXPRESS_H
#define ALOOP_CORE_EXPRESS_H

#include <pthread.h>

#include "core/mailbox.h"

/* To be called while the process has one thread, or it does nothing; without it there is no express. At any
 * cost: even if the process has more threads, which takes some 25 ms. */
void aloop__express_allow(bool at_any_cost);

/* For tests: as if the kernel made no barriers any more. */
void aloop__express_refuse_barriers(bool refuse);

/* ---- For posters ----------------------------------------------------------------------------------------- */

static inline uintptr_t aloop__express_self(void) {
  return (uintptr_t)pthread_self();
}

/* A post by the owner. False: it has to take the other way. */
bool aloop__express_post(aloop__mailbox_t *mailbox, aloop_callback_fn fn, void *arg, const char *origin);

/* ---- For the loop's thread ------------------------------------------------------------------------------- */

/* A page of the mailbox is used up. Whoever began the last two gets the express, if nobody has it; and an owner
 * loses it to others who post more. */
void aloop__express_consider(aloop_t *loop);

/* Whether something may be in it, or on its way. */
static inline bool aloop__express_runs(const aloop__mailbox_t *mailbox) {
  return mailbox->express_runs;
}

/* How many posts there have been so far; all of them can be taken. */
uint64_t aloop__express_posted(const aloop__mailbox_t *mailbox);

/* How many were taken. */
uint64_t aloop__express_taken(const aloop__mailbox_t *mailbox);

/* The number of the mailbox before which the next one is to be called; there is one. */
uint64_t aloop__express_next(const aloop__mailbox_t *mailbox);

/* Moves those that are to be called before number `before`, up to the one that is number `end` in the express,
 * to the ready deque. Returns false if that has no room. */
bool aloop__express_take(aloop_t *loop, uint64_t before, uint64_t end);

/* Something may be in it, and the loop is going to sleep: takes the express away from its owner, unless
 * something has come or comes at once. False: the loop must not sleep. */
bool aloop__express_leave(aloop__mailbox_t *mailbox);

/* The loop ends its run: the same, but not before the owner's last post is there. */
void aloop__express_end(aloop__mailbox_t *mailbox);

#endif
