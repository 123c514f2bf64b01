/* SPDX-License-Identifier: MIT
 *
 * The loop itself, as the rooms above the core see it, and the ready deque's fast path.
 *
 * The deque is a ring of entries addressed by position: a 64-bit number that only grows. A position doubles as
 * the handle of a call_soon callback, so scheduling allocates nothing and a stale handle is recognised by its
 * position being behind the head. Contexts, which few entries have, lie in a ring of their own (ready.c).
 */
#ifndef ALOOP_CORE_LOOP_H
#define ALOOP_CORE_LOOP_H

#include <pthread.h>
#include <stdatomic.h>

#include "aloop.h"
#include "core/check.h"
#include "core/context.h"
#include "core/guest.h"
#include "core/list.h"
#include "core/mailbox.h"
#include "core/object.h"
#include "core/timers.h"
#include "core/watch.h"

/* One callback to be called. A cancelled entry keeps its place, with aloop__ready_skip. */
typedef struct aloop__entry {
  aloop_callback_fn fn;
  void *arg;
  const char *origin;
} aloop__entry_t;

/* State that a higher room keeps per loop: the first member of its own struct. The core knows only how to end
 * it, and to tell it of a fork. */
typedef struct aloop__room {
  void (*close)(aloop_t *loop, struct aloop__room *room); /* releases it; every object has ended by then */
  /* In the child, inside aloop_after_fork, before the watches are registered anew; may be called again if a
   * later step failed. NULL: nothing to do. */
  int (*after_fork)(aloop_t *loop, struct aloop__room *room);
  /* In the child of a fork inside a callback, at once: forgets what the parent is about to send. It runs inside
   * fork, and only stores. NULL: nothing to do. */
  void (*forked)(aloop_t *loop, struct aloop__room *room);
  /* Somebody wrote to the wake-up descriptor (aloop__wake_signal): how another thread is heard that has no
   * memory for a post. NULL: nothing to do. */
  void (*woken)(aloop_t *loop, struct aloop__room *room);
  /* The turn is over, in which ALOOP__TURN_END was set. NULL: nothing to do. */
  void (*turn_over)(aloop_t *loop, struct aloop__room *room);
  /* Writes a line for the dump, or leaves the text empty. NULL: nothing to say. */
  void (*describe)(const struct aloop__room *room, char *text, size_t size);
} aloop__room_t;

/* Rooms are closed from the last to the first. */
enum {
  ALOOP__ROOM_FUTURE,
  ALOOP__ROOM_WAITERS,
  ALOOP__ROOM_EXECUTOR,
  ALOOP__ROOM_NAMES,
  ALOOP__ROOM_SOCKS,
  ALOOP__ROOM_NET,
  ALOOP__ROOM_TLS,
  ALOOP__ROOM_SIGNAL,
  ALOOP__ROOM_PROCESS,
  ALOOP__ROOM_STREAMS,
  ALOOP__ROOM_TASK,
  ALOOP__ROOMS
};

/* What a driver is told that makes requests of the poller beside the watches. */
typedef struct aloop__requests {
  aloop_callback_fn completed;    /* (loop, event): one ended */
  void (*leaving)(aloop_t *loop); /* the poller is about to be opened anew: take what it has for you */
  int (*moved)(aloop_t *loop, void *poller_state); /* it has been: ask again */
} aloop__requests_t;

/* Reasons for the public calls to leave their fast path. */
enum { ALOOP__GUARD_CLOSED = 1, ALOOP__GUARD_DEBUG = 2, ALOOP__GUARD_HOOK = 4 };

/* Bits of `attention`. INHERITED: the run is that of the parent of a fork. */
enum { ALOOP__STOPPING = 1, ALOOP__STALLED = 2, ALOOP__TURN_END = 4, ALOOP__INHERITED = 8 };

/* Positions start here, so that handles below are free to carry error codes. */
enum { ALOOP__FIRST_POSITION = 4096 };

struct aloop {
  /* The ready deque and what every callback touches. */
  aloop__entry_t *ring;
  uint64_t head;
  uint64_t tail;
  uint64_t limit; /* pushing at a position before it is nothing special */
  uint32_t mask;
  uint32_t guard;
  aloop__map_t **contexts; /* by position, as the ring: references; NULL until the first variable is set */
  aloop__map_t *context;   /* of the running callback */
  uint64_t beside_head;    /* callbacks run so far, less the head: aloop__loop_callbacks */
  int64_t now;             /* the clock as read when so many callbacks had run; 0: never */
  uint64_t now_age;        /* ... and one more */

  /* The turn. */
  uint64_t run_end;                    /* of the callbacks that are running */
  uint64_t turns;                      /* so far */
  uint64_t look_up;                    /* at the clock, and around, when there were so many turns */
  const aloop_poll_event_t *batch_end; /* behind the last event to deliver */
  int stop_error;                      /* < 0: leave at once with it */
  uint32_t attention;                  /* reasons not to wait: ALOOP__STOPPING... */
  atomic_bool running;                 /* written by the loop's thread; any may ask */
  uint32_t stalled;                    /* objects to resume */
  uint32_t stale_run;                  /* polls in a row with stale events that no stopped watch explains */
  uint64_t stale_poll;                 /* the last of them */
  uint64_t stop_poll;                  /* the last poll before a watch was stopped */
  uint64_t poll_ticks;                 /* when the kernel was last asked for I/O */
  uint64_t poll_turn;                  /* ... after so many turns */

  const aloop_poller_t *poller;
  const char *poller_reason; /* why it is not the one that was asked for, or NULL */
  void *poller_state;
  void *poller_arg;
  int64_t clock_offset;              /* what a poller's own clock lost when it was opened anew */
  const aloop__requests_t *requests; /* of a driver that works with the poller itself; or NULL */
  aloop__watch_t **watches;          /* by descriptor */
  int watches_size;
  uint32_t watches_count;
  uint32_t generation; /* the last one given to a watch */

  aloop__timers_t timers;

  /* What other threads write, up to the mailbox's head, has cache lines of its own (mailbox.c checks it). */
  char apart[ALOOP__CACHE_LINE];
  aloop__guests_t guests;
  aloop__mailbox_t mailbox;
  aloop__watch_t wake; /* readable when another thread wants attention */
  int wake_write;      /* the other end; the same as wake.fd for an eventfd */

  aloop__list_t objects;
  uint32_t live[ALOOP__KINDS];
  uint32_t holds; /* who needs the loop's memory: its owner until aloop_free, objects, contexts, tokens */

  aloop__room_t *rooms[ALOOP__ROOMS]; /* what higher rooms keep per loop; NULL until first needed */

  aloop_allocator_t allocator;
  aloop_exception_handler_fn handler;
  void *handler_arg;
  aloop_callback_fn hook;
  void *hook_arg;
  int64_t slow_callback_duration;
  pthread_t thread;
  unsigned fork_generation;

  /* Metrics. */
  uint64_t polls;
  uint64_t events;
  uint64_t posts;
  uint64_t stale;
  uint64_t accepted;
  uint64_t handed_over;
  uint64_t idle_ticks;
  uint64_t run_ticks;   /* of finished runs */
  uint64_t run_started; /* ticks, while running */
  int64_t born_time;
  uint64_t born_ticks;
  uint64_t *lag; /* ALOOP_LAG_BUCKETS of them; NULL until the first timer */
};

/* What a cancelled entry calls. */
void aloop__ready_skip(aloop_t *loop, void *arg);

static inline bool aloop__entry_waits(const aloop__entry_t *entry) {
  return entry->fn != aloop__ready_skip;
}

/* Doubles the ring. Returns ALOOP_ENOMEM with everything as it was. */
int aloop__ready_grow(aloop_t *loop);

/* From now on callbacks can have contexts. Returns ALOOP_ENOMEM with everything as it was. */
int aloop__ready_open_contexts(aloop_t *loop);

/* The guard has changed. */
void aloop__ready_set_limit(aloop_t *loop);

static inline bool aloop__ready_full(const aloop_t *loop) {
  return loop->tail - loop->head > loop->mask;
}

/* The entry at a position whose low half is known, or NULL if it is not waiting any more. */
static inline aloop__entry_t *aloop__ready_at(const aloop_t *loop, uint32_t low) {
  uint64_t position = loop->head + (uint32_t)(low - (uint32_t)loop->head);
  return position < loop->tail ? &loop->ring[position & loop->mask] : NULL;
}

/* An entry at the end of the ring, where there is room. */
static inline void aloop__ready_put(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  loop->ring[loop->tail++ & loop->mask] = (aloop__entry_t){fn, arg, origin};
}

/* Queues whatever callback, with a context captured earlier (a reference that moves in). Returns false when out
 * of memory. */
bool aloop__ready_push_slowly(aloop_t *loop, aloop_callback_fn fn, void *arg, aloop__map_t *context,
                              const char *origin);

/* The same with its fast path. */
static inline bool aloop__ready_push_captured(aloop_t *loop, aloop_callback_fn fn, void *arg,
                                              aloop__map_t *context, const char *origin) {
  if (ALOOP_UNLIKELY(context != NULL) || ALOOP_UNLIKELY(loop->tail >= loop->limit))
    return aloop__ready_push_slowly(loop, fn, arg, context, origin);
  aloop__ready_put(loop, fn, arg, origin);
  return true;
}

/* The same for a callback of the library: no context, no origin. */
static inline bool aloop__ready_push(aloop_t *loop, aloop_callback_fn fn, void *arg) {
  return aloop__ready_push_captured(loop, fn, arg, NULL, NULL);
}

/* Takes the context of the entry at a position: none as a rule. */
static inline aloop__map_t *aloop__ready_take_context(aloop_t *loop, uint64_t position) {
  if (loop->contexts == NULL) return NULL;
  aloop__map_t *context = loop->contexts[position & loop->mask];
  if (context != NULL) loop->contexts[position & loop->mask] = NULL;
  return context;
}

/* Drops a waiting entry, keeping its place. Its context is the caller's now. */
aloop__map_t *aloop__ready_withdraw(aloop_t *loop, aloop__entry_t *entry);

/* The same, when destructors of values may run. */
void aloop__ready_drop(aloop_t *loop, aloop__entry_t *entry);

/* Public calls that are not on a fast path begin with this: 0, ALOOP_ECLOSED, ALOOP_EINVAL (NULL) or
 * ALOOP_ENOTLOOPTHREAD. */
int aloop__loop_enter(aloop_t *loop);

/* The same, for calls that still make sense on a closed loop. */
int aloop__loop_thread(aloop_t *loop);

/* The same for calls that only ask: false after the mistake was reported. */
static inline bool aloop__loop_ok(const aloop_t *loop) {
  return (ALOOP_LIKELY(loop != NULL) && ALOOP_LIKELY(loop->guard == 0)) ||
         aloop__loop_thread((aloop_t *)loop) == 0;
}

/* Gives the loop a reason (of ALOOP__STOPPING...) to look around after this turn. */
static inline void aloop__loop_attend(aloop_t *loop, uint32_t reason) {
  loop->attention |= reason;
  loop->look_up = 0;
}

/* The next callback is not to be run as the last one was: it must not run, or there is more to do for it. */
static inline void aloop__loop_interrupt(aloop_t *loop) {
  loop->run_end = loop->head;
  loop->look_up = 0;
}

/* In a callback too, and in the child of a fork inside one. */
static inline bool aloop__loop_is_running(const aloop_t *loop) {
  return atomic_load_explicit(&loop->running, memory_order_relaxed);
}

static inline void aloop__loop_set_running(aloop_t *loop, bool running) {
  atomic_store_explicit(&loop->running, running, memory_order_relaxed);
}

/* How many callbacks have run, the running one included. */
static inline uint64_t aloop__loop_callbacks(const aloop_t *loop) {
  return loop->head + loop->beside_head;
}

/* Whether it runs in this process: true in none of its children, but while aloop_after_fork is at work. */
bool aloop__loop_runs_here(const aloop_t *loop);

/* In the child of a fork inside a callback of this loop, inside fork: when the callback returns, the run is
 * over. */
void aloop__loop_inherit(aloop_t *loop);

/* Tells a host that a turn is due sooner than it may think. */
static inline void aloop__loop_armed(aloop_t *loop) {
  if (ALOOP_UNLIKELY(loop->hook != NULL) && !aloop__loop_is_running(loop)) loop->hook(loop, loop->hook_arg);
}

/* Whether loop->now was read from the clock in this callback. */
static inline bool aloop__loop_time_is_fresh(const aloop_t *loop) {
  return aloop__loop_is_running(loop) && loop->now_age == aloop__loop_callbacks(loop) + 1;
}

/* loop->now, read from the clock if it was not yet in this callback. */
static inline int64_t aloop__loop_time(aloop_t *loop) {
  return ALOOP_LIKELY(aloop__loop_time_is_fresh(loop)) ? loop->now : aloop_update_time(loop);
}

/* Two ends of something that wakes a poller: an eventfd (twice the same descriptor) or a pipe, both
 * non-blocking and close-on-exec. One end is watched, read with aloop__wake_drain and written to with
 * aloop__wake_write, which signal handlers may do. */
int aloop__wake_pair(int fds[2]);
void aloop__wake_drain(int fd);
void aloop__wake_write(int fd);

/* The wake-up descriptor. The poller is told of it by ..._listen, before the first wait; again is harmless. */
int aloop__wake_open(aloop_t *loop);
int aloop__wake_listen(aloop_t *loop);
void aloop__wake_close(aloop_t *loop);
void aloop__wake_signal(aloop_t *loop);

/* The events of a poll were left undelivered, perhaps that of a wake-up among them: one that tells of it once
 * only tells of it again. */
void aloop__wake_again(aloop_t *loop);

/* The loop that runs in this thread, or NULL. With the GNU C library it lies where one instruction finds it,
 * also for a shared library; others may refuse to load such a library later than the program. */
#if defined(__GNUC__) && defined(__GLIBC__)
#define ALOOP__AT_HAND __attribute__((tls_model("initial-exec")))
#else
#define ALOOP__AT_HAND
#endif
extern _Thread_local ALOOP__AT_HAND aloop_t *aloop__current_running;

/* Binds the running loop to this thread (NULL: none). Returns the one before. */
aloop_t *aloop__current_run(aloop_t *loop);

/* The loop is going away: this thread's setting no longer names it. */
void aloop__current_forget(const aloop_t *loop);

/* A number that changes in the child of a fork; for hot paths, whoever has a loop may leave out the call that
 * makes sure of the counting. */
unsigned aloop__current_forks(void);
extern atomic_uint aloop__current_forked;
static inline unsigned aloop__current_forks_seen(void) {
  return atomic_load_explicit(&aloop__current_forked, memory_order_relaxed);
}

/* The policy's say in the options of a new loop. */
void aloop__current_adjust(aloop_options_t *options);

/* Opens the poller anew and registers everything again. */
int aloop__loop_rebuild(aloop_t *loop);

/* The loop's memory outlives aloop_free for as long as something made on it does. */
static inline void aloop__loop_hold(aloop_t *loop) {
  loop->holds++;
}
void aloop__loop_vanish(aloop_t *loop);
static inline void aloop__loop_drop(aloop_t *loop) {
  if (ALOOP_UNLIKELY(--loop->holds == 0)) aloop__loop_vanish(loop);
}

#endif
