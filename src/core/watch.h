/* SPDX-License-Identifier: MIT
 *
 * A watch ties one descriptor to two callbacks inside the loop. It is embedded in its owner (a transport, a
 * listener, the pair of user callbacks of add_reader and add_writer, which operations share). The loop's table
 * maps a descriptor to its watch; the poller knows the watch only by a token (descriptor + generation), so an
 * event that arrives after the watch stopped is recognised and dropped.
 */
#ifndef ALOOP_CORE_WATCH_H
#define ALOOP_CORE_WATCH_H

#include "aloop.h"

/* Beside ALOOP_READABLE and ALOOP_WRITABLE: the end of a request, for loop->requests. What else is set in an
 * event is an error, which is for both directions, and so is this bit from a poller that was asked for nothing.
 */
enum { ALOOP__COMPLETED = 1 << 30 };

/* Tokens are smaller than that; above them lies what is watched. */
enum { ALOOP__WATCH_INTEREST_AT = 29, ALOOP__WATCH_GENERATIONS = 1 << ALOOP__WATCH_INTEREST_AT };

typedef struct aloop__watch aloop__watch_t;

typedef struct aloop__watch_ops {
  const char *name;           /* for the dump */
  aloop_callback_fn readable; /* (loop, watch) */
  aloop_callback_fn writable;
  bool user; /* made by add_reader or add_writer, or for an operation */
} aloop__watch_ops_t;

struct aloop__watch {
  const aloop__watch_ops_t *ops;
  int fd;
  uint32_t state; /* generation and interest in one word, so that one comparison with an event tells both */
};

/* 0: the descriptor is not claimed. */
static inline uint32_t aloop__watch_generation(const aloop__watch_t *watch) {
  return watch->state & (ALOOP__WATCH_GENERATIONS - 1);
}

/* ALOOP_READABLE, ALOOP_WRITABLE and ALOOP_EDGES as the poller knows them; 0: not registered. */
static inline uint32_t aloop__watch_interest(const aloop__watch_t *watch) {
  return watch->state >> ALOOP__WATCH_INTEREST_AT;
}

/* Notes what the poller has been told, or will not be asked any more. */
static inline void aloop__watch_note(aloop__watch_t *watch, uint32_t interest) {
  watch->state = aloop__watch_generation(watch) | interest << ALOOP__WATCH_INTEREST_AT;
}

static inline bool aloop__watch_is_claimed(const aloop__watch_t *watch) {
  return aloop__watch_generation(watch) != 0;
}

/* Claims the descriptor without watching yet. ALOOP_EBUSY if another watch has it, unless the user has left
 * that behind (whose own descriptors are to be checked before: aloop__watch_find); ALOOP_ENOMEM; ALOOP_EBADF
 * for a large number that is not open. */
int aloop__watch_claim(aloop_t *loop, aloop__watch_t *watch, int fd, const aloop__watch_ops_t *ops);

/* Sets what is watched, at once: an event that was already polled is not delivered for a direction no longer
 * watched. */
int aloop__watch_set(aloop_t *loop, aloop__watch_t *watch, uint32_t interest);

/* Stops watching and gives the descriptor up, at once: its number stays in the watch, or is -1 from then on. A
 * no-op on a watch that has not claimed one. */
void aloop__watch_leave(aloop_t *loop, aloop__watch_t *watch);
void aloop__watch_stop(aloop_t *loop, aloop__watch_t *watch);

/* For operations on a descriptor of the caller: fn(loop, arg) is called each turn in which it is ready for one
 * direction, until ..._wait_end, which is at once. The other direction may be the caller's (add_reader,
 * add_writer) or another operation's. To be asked first: what keeps the direction from an operation, or NULL.
 * */
const char *aloop__watch_conflict(const aloop_t *loop, int fd, uint32_t direction);
int aloop__watch_wait(aloop_t *loop, int fd, uint32_t direction, aloop_callback_fn fn, void *arg,
                      const char *origin);
void aloop__watch_wait_end(aloop_t *loop, int fd, uint32_t direction);

/* The watch of a descriptor, or NULL. */
aloop__watch_t *aloop__watch_find(const aloop_t *loop, int fd);

/* Those that could not be registered again. */
typedef struct aloop__loss {
  int fd;
  int error;
  uint32_t generation;
} aloop__loss_t;

typedef struct aloop__losses {
  aloop__loss_t *list; /* the loop's memory */
  size_t count;
} aloop__losses_t;

/* Registers every watch again with a fresh poller. One that cannot be is added to the list; an error means that
 * memory is short. */
int aloop__watch_register_all(aloop_t *loop, void *poller_state, aloop__losses_t *losses);

/* Tells the exception handler, who may do anything: so when the fresh poller is the loop's. */
void aloop__watch_report_losses(aloop_t *loop, const aloop__losses_t *losses);

/* At close: frees the user's watches and the table. */
void aloop__watch_close(aloop_t *loop);

/* One line of the dump for a user's watch. */
void aloop__watch_describe(aloop__watch_t *watch, char *text, size_t size);

/* Where a user's callback was registered, else NULL. */
const char *aloop__watch_origin(aloop__watch_t *watch, uint32_t direction);

#endif
