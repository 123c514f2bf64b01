/* SPDX-License-Identifier: MIT
 *
 * Futures that stand in line for something: a lock, an event, a queue's next item. See waiters.c.
 */
#ifndef ALOOP_TASK_WAITERS_H
#define ALOOP_TASK_WAITERS_H

#include "core/list.h"
#include "future/future.h"

/* A line, first come first. Embedded in what is waited for, which lives as long as anybody stands in it. */
typedef struct aloop__waiters {
  aloop__list_t list;
  size_t count;
} aloop__waiters_t;

typedef struct aloop__waiter aloop__waiter_t;
struct aloop__waiter {
  aloop_future_t future;
  aloop__list_t link;
  aloop__waiters_t *line; /* NULL: not in one */
  /* The rest is for what is waited for. */
  aloop__object_t *keeps; /* a reference, given up at the end of the future's life; or NULL */
  void *item;
  void (*turn)(aloop__waiter_t *waiter);
  bool (*predicate)(void *arg);
  void *arg;
  bool notified;
};

void aloop__waiters_init(aloop__waiters_t *line);

/* A pending future at the end of the line, which it leaves when it ends, whoever ends it. On a closed loop one
 * that has failed. NULL: out of memory. */
aloop_future_t *aloop__waiters_join(aloop__waiters_t *line, aloop_t *loop, const char *origin);

/* The same with a kind of its own (future.h), for a cancel of its own. */
aloop_future_t *aloop__waiters_join_as(aloop__waiters_t *line, aloop_t *loop, const aloop__future_kind_t *kind,
                                       const char *origin);
/* What such a kind is made of. */
void aloop__waiters_destroy(aloop__object_t *object);

static inline aloop__waiter_t *aloop__waiters_of(aloop_future_t *future) {
  return ALOOP_CONTAINER_OF(future, aloop__waiter_t, future);
}

static inline bool aloop__waiters_empty(const aloop__waiters_t *line) {
  return line->count == 0;
}

/* Takes the first one out of the line, for the caller to end it. NULL: nobody waits. */
aloop_future_t *aloop__waiters_next(aloop__waiters_t *line);

/* From one line to the end of another. */
void aloop__waiters_move(aloop__waiter_t *waiter, aloop__waiters_t *to);

/* Ends all that stand in line now. `message` may be NULL. */
void aloop__waiters_finish_all(aloop__waiters_t *line, int64_t value);
void aloop__waiters_fail_all(aloop__waiters_t *line, int error, const char *message);

#endif
