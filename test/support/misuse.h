/* SPDX-License-Identifier: MIT
 *
 * Wrong calls, and what aloop.h promises for them. Inside a body of mistakes, `m` being its misuse_t *,
 *
 *     MISTAKE(aloop_stop_with_error(m->loop, 5), ALOOP_EINVAL);
 *
 * checks the result; that in debug mode the exception handler was told exactly once, with a sentence and, if the
 * result is a code, with that code; that nobody was told without debug mode; that no output (OUT) was written;
 * and that the loop has the callbacks, timers, watches and objects it had. ORDINARY is the same for what a
 * correct program meets: nobody is told in either mode.
 *
 *     static void mistakes_of_stopping(misuse_t *m) { MISTAKE(...); ... }
 *     static void stopping(void **state) { in_both_modes(*state, mistakes_of_stopping); }
 *
 * A fault is printed and counted, and fails the test at its end, so that bodies may run in any thread.
 */
#ifndef MISUSE_H
#define MISUSE_H

#include "harness.h"

typedef struct misuse {
  env_t *env;
  aloop_t *loop;
  bool debug;
  int faults;
  void *arg; /* the test's */

  int reports_before;
  uint64_t counts_before[8];
  union {
    unsigned char bytes[1024];
    void *pointer;
    int64_t number;
  } out;
} misuse_t;

typedef void (*misuse_fn)(misuse_t *m);

/* What a result may not be written to; it is checked after each call. */
#define OUT ((void *)m->out.bytes)

#define MISTAKE(call, result)                                                                                  \
  (misuse_before(m), misuse_after(m, #call, __FILE__, __LINE__, (int64_t)(intptr_t)(call), (result), true))
#define ORDINARY(call, result)                                                                                 \
  (misuse_before(m), misuse_after(m, #call, __FILE__, __LINE__, (int64_t)(intptr_t)(call), (result), false))

/* For calls without a result. */
#define MISTAKE_OF_VOID(call) MISTAKE(((call), 0), 0)
#define ORDINARY_OF_VOID(call) ORDINARY(((call), 0), 0)

/* For calls whose future carries the code and, for a mistake, a message of its own. The future is released. */
#define MISTAKE_OF_FUTURE(call, code)                                                                          \
  (misuse_before(m), misuse_future(m, #call, __FILE__, __LINE__, (call), (code), true))
#define ORDINARY_OF_FUTURE(call, code)                                                                         \
  (misuse_before(m), misuse_future(m, #call, __FILE__, __LINE__, (call), (code), false))

void misuse_before(misuse_t *m);
void misuse_after(misuse_t *m, const char *call, const char *file, int line, int64_t got, int64_t wanted,
                  bool mistake);
void misuse_future(misuse_t *m, const char *call, const char *file, int line, aloop_future_t *future,
                   int64_t wanted, bool mistake);

/* A new loop, with debug mode or without; and the end of the checks on it. */
void misuse_begin(misuse_t *m, env_t *env, bool debug);
void misuse_end(misuse_t *m);

/* Runs the body in a callback of the loop; in a foreign thread while such a callback waits for it. */
void misuse_in_callback(misuse_t *m, misuse_fn body);
void misuse_in_thread(misuse_t *m, misuse_fn body);

/* All of it: without and with debug mode, inside a callback or outside. Without a running loop nobody hears of
 * mistakes that name none. */
void in_both_modes(env_t *env, misuse_fn body);
void in_both_modes_outside(env_t *env, misuse_fn body);

#endif
