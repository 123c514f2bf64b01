/* SPDX-License-Identifier: MIT
 *
 * Timers: see timers.c. Slots hold what a timer is, in several arrays; the heap holds only keys.
 */
#ifndef ALOOP_CORE_TIMERS_H
#define ALOOP_CORE_TIMERS_H

#include "aloop.h"
#include "core/check.h"
#include "core/context.h"

/* What is looked at often: four in a cache line. */
typedef struct aloop__timer {
  int64_t when; /* the deadline, >= 0; ready: its complement; free: ALOOP__TIMER_FREE */
  union {
    uint32_t order;     /* waiting: among equal deadlines */
    uint32_t entry;     /* ready: low half of its deque position */
    uint32_t next_free; /* free */
  };
  uint32_t generation; /* of the slot; the top bit: it has an extra */
} aloop__timer_t;

typedef struct aloop__timer_call {
  aloop_callback_fn fn;
  void *arg;
  const char *origin;
} aloop__timer_call_t;

/* What few timers have. */
typedef struct aloop__timer_extra {
  aloop__map_t *context;
  int64_t period; /* 0: once */
} aloop__timer_extra_t;

typedef struct aloop__timer_key {
  int64_t when;
  uint32_t order;
  uint32_t slot;
} aloop__timer_key_t;

typedef struct aloop__timers {
  aloop__timer_t *slots;
  aloop__timer_call_t *calls;   /* by slot */
  aloop__timer_extra_t *extras; /* by slot; NULL until one is needed */
  uint32_t *places;             /* slot -> heap index of its key, or ALOOP__NO_PLACE */
  aloop__timer_key_t *heap;
  void *heap_block; /* the memory that heap lies in */
  uint32_t heap_size;
  uint32_t sorted;   /* keys that are in the heap's order; those behind them are new */
  uint32_t capacity; /* of all of them */
  uint32_t used;     /* slots ever used */
  uint32_t free;     /* first free slot */
  uint32_t order;    /* the last one given */
  uint32_t live;     /* timers waiting or ready */
} aloop__timers_t;

/* The top bit tells timer handles from positions of the deque. */
#define ALOOP__TIMER_BIT (UINT64_C(1) << 63)
#define ALOOP__TIMER_GENERATION UINT32_C(0x7fffffff)
#define ALOOP__TIMER_FREE INT64_MIN
#define ALOOP__NO_SLOT UINT32_MAX
#define ALOOP__NO_PLACE UINT32_MAX
#define ALOOP__NEVER INT64_MAX

void aloop__timers_init(aloop__timers_t *timers);
void aloop__timers_close(aloop_t *loop);

/* The handle carries the error code on failure. */
aloop_handle_t aloop__timers_add(aloop_t *loop, int64_t when, int64_t period, aloop_callback_fn fn, void *arg,
                                 const char *origin);

/* The same for a timer that runs once, on a loop without a guard. */
aloop_handle_t aloop__timers_add_usual(aloop_t *loop, int64_t when, aloop_callback_fn fn, void *arg,
                                       const char *origin);

/* The earliest deadline, or ALOOP__NEVER. */
int64_t aloop__timers_next(aloop_t *loop);

/* Phase 5 of the turn: queues what is due at `now`, by deadline, first made first among equals. */
void aloop__timers_queue_due(aloop_t *loop, int64_t now);

/* Where a waiting entry of the deque comes from. Queueing a timer leaves this out, for it would have to fetch
 * it from anywhere in memory. */
struct aloop__entry;
const char *aloop__timers_origin(const aloop_t *loop, const struct aloop__entry *entry);

/* Takes part in aloop_cancel and friends: the slot of a live timer handle, or NULL. The generation of a free
 * slot has not been given to any handle yet, so comparing it is enough. */
static inline aloop__timer_t *aloop__timers_slot(const aloop__timers_t *timers, aloop_handle_t handle) {
  uint32_t slot = (uint32_t)handle.id;
  if ((handle.id & ALOOP__TIMER_BIT) == 0 || slot >= timers->used) return NULL;
  aloop__timer_t *timer = &timers->slots[slot];
  uint32_t difference = timer->generation ^ (uint32_t)(handle.id >> 32);
  return (difference & ALOOP__TIMER_GENERATION) == 0 ? timer : NULL;
}

static inline int64_t aloop__timer_when(const aloop__timer_t *timer) {
  return timer->when >= 0 ? timer->when : ~timer->when;
}

aloop__timer_t *aloop__timers_find(const aloop_t *loop, aloop_handle_t handle);

void aloop__timers_cancel(aloop_t *loop, aloop__timer_t *timer);

/* The usual move: to a later moment (0 <= when < ALOOP__NEVER), of a timer that waits. Returns false if it is
 * another. The deadline of one that is ready is negative, so without its sign later than all. */
static inline bool aloop__timers_push_back(aloop__timers_t *timers, aloop__timer_t *timer, int64_t when) {
  if (ALOOP_UNLIKELY((uint64_t)when < (uint64_t)timer->when)) return false;
  timer->when = when;
  timer->order = timers->order++;
  return true;
}

/* When out of memory for the context etc. never fails: moving needs no memory. */
void aloop__timers_move(aloop_t *loop, aloop__timer_t *timer, int64_t when);

/* Calls fn for each waiting timer, in no order. */
typedef void (*aloop__timer_fn)(void *user, int64_t when, int64_t period, const char *origin);
void aloop__timers_each(const aloop__timers_t *timers, aloop__timer_fn fn, void *user);

/* Whether heap, places and slots agree. */
bool aloop__timers_check(const aloop__timers_t *timers);

#endif
