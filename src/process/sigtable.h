/* SPDX-License-Identifier: MIT
 *
 * The process's table of signals, as a loop's side of it (signals.c) uses it. A loop has one sink, which the C
 * signal handler fills, and one link per signal that it wants to hear of. Both belong to the loop and are
 * embedded in its own structs; the table only points at them.
 */
#ifndef ALOOP_PROCESS_SIGTABLE_H
#define ALOOP_PROCESS_SIGTABLE_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Room for every signal number that a system is known to have, real-time ones included. */
enum { ALOOP__SIGNALS = 128, ALOOP__SIGSINK_WORDS = ALOOP__SIGNALS / 32 };

typedef struct aloop__sigsink {
  _Atomic uint32_t pending[ALOOP__SIGSINK_WORDS]; /* a bit per signal that has arrived and was not taken */
  atomic_int wake;                                /* written to when a bit is set that was clear */
  _Atomic pid_t owner;                            /* only this process writes there */
  atomic_uint generation;                         /* of forks, when the loop opened `wake` */
} aloop__sigsink_t;

typedef struct aloop__siglink {
  _Atomic(struct aloop__siglink *) next;
  aloop__sigsink_t *sink;
  int signum;
  bool chain;
} aloop__siglink_t;

/* Whether there is such a signal, and it can be caught. */
bool aloop__sigtable_catchable(int signum);

/* Makes arrivals of link->signum mark link->sink, and with link->chain call what was there before. ALOOP_EINVAL
 * if the system refuses. */
int aloop__sigtable_add(aloop__siglink_t *link);

/* Changes link->chain of a link in the table. */
void aloop__sigtable_chain(aloop__siglink_t *link, bool chain);

/* Once it returns no signal handler, in whatever thread, looks at the link any more, nor at the sink for its
 * sake. */
void aloop__sigtable_remove(aloop__siglink_t *link);

/* Gives the sink its wake-up descriptor, which is this process's own, and writes to it if signals arrived
 * before. */
void aloop__sigsink_open(aloop__sigsink_t *sink, int wake);

/* Forgets that a signal has arrived. */
static inline void aloop__sigsink_clear(aloop__sigsink_t *sink, int signum) {
  atomic_fetch_and(&sink->pending[signum >> 5], ~(UINT32_C(1) << (signum & 31)));
}

/* Takes the marks of 32 signals. */
static inline uint32_t aloop__sigsink_take(aloop__sigsink_t *sink, int word) {
  return atomic_exchange(&sink->pending[word], 0);
}

#endif
