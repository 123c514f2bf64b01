/* SPDX-License-Identifier: MIT
 *
 * Torture: a scenario, a whole program in small, is run again and again with one thing going wrong each time:
 * the n-th allocation fails, all from the n-th on fail, the n-th system call fails with an error that means
 * something. The scenario says what must hold whatever happens (ALWAYS) and what must hold if nothing went
 * wrong (NORMALLY). Where the n-th system call is merely interrupted or told to come again, or all of them move
 * one byte at a time, nothing went wrong.
 *
 * Each run must end in a bounded number of turns and leave no descriptor and no memory behind. / */
#ifndef TORTURE_H
#define TORTURE_H

#include "faults.h"
#include "harness.h"

typedef struct run {
  env_t *env;
  aloop_t *loop; /* of this run; freed by torture_all */
  fault_kind_t kind;
  bool memory; /* it is memory that is short */
  bool broken; /* the loop itself failed */
} run_t;

typedef void (*scenario_fn)(run_t *run);

extern char torture_where[200]; /* what goes wrong in this run, for messages */

#define ALWAYS(condition)                                                                                      \
  do {                                                                                                         \
    if (!(condition)) fail_msg("%s: not so: %s", torture_where, #condition);                                   \
  } while (0)

#define NORMALLY(run, condition) ALWAYS(!run_is_strict(run) || (condition))

bool run_is_strict(const run_t *run);

/* A code that a caller may meet: one that the header knows, and none that is the library's own affair. */
bool is_known(int64_t error);

/* Makes run->loop. */
bool run_open(run_t *run, int debug);

/* One turn, which waits a moment if there is nothing to do. False: the loop is broken. */
bool run_a_turn(run_t *run);

/* Runs turns until a condition holds. False: the loop is broken. */
bool run_to(run_t *run, bool (*over)(const void *arg), const void *arg);

/* A future is missing only for want of memory. */
aloop_future_t *run_made(const run_t *run, aloop_future_t *future);

/* Waits for the end of a future and gives it up; with object_of its object is the caller's then. */
int64_t run_end_of(run_t *run, aloop_future_t *future);
bool run_object_of(run_t *run, aloop_future_t *future, void *out);

/* Runs the scenario in every way, and prints in how many. */
void torture_all(env_t *env, const char *name, scenario_fn play);

#endif
