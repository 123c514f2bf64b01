/* SPDX-License-Identifier: MIT
 *
 * What every C test shares: cmocka, a fresh loop per test on the poller that ALOOP_POLLER names, and the two
 * counts that must be the same after a test as before it: open descriptors and live allocations of the loop.
 *
 *     static void adds_up(void **state) { env_t *env = *state; assert_int_equal(aloop_stop(env->loop), 0); }
 *     TESTS(T(adds_up))
 *
 * The executable runs all its tests, or only the one named by its first argument (so that ctest has an entry
 * for each).
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <cmocka.h>
#include "aloop.h"

enum { REPORTS_MAX = 64 };

typedef struct env {
  aloop_t *loop;
  aloop_allocator_t allocator; /* counts live blocks, fails when told so */
  long live;                   /* blocks not yet released */
  long calls;                  /* allocations so far */
  long fail_at;                /* the allocation (1, 2, ...) that fails; 0: none */
  long fail_from;              /* from this allocation on all fail; 0: none */
  int fds;                     /* open before the test */
  int reports;                 /* what the exception handler was told */
  int report_errors[REPORTS_MAX];
  char report_messages[REPORTS_MAX][160];
  char report_origins[REPORTS_MAX][120];
} env_t;

/* Replaces env->loop with a new one made with these options (size, allocator and exception handler are filled
 * in). */
void env_loop(env_t *env, aloop_options_t options);

/* Collects what the exception handler of a loop is told. */
void env_watch(env_t *env, aloop_t *loop);

/* What ran, in order: schedule trace_step with a step_t, then compare trace.text. */
typedef struct trace {
  char text[128];
  size_t length;
} trace_t;

typedef struct step {
  trace_t *trace;
  char letter;
} step_t;

void trace_step(aloop_t *loop, void *step);
void trace_done(aloop_future_t *future, void *step);

/* One turn that does not wait. Returns how many callbacks ran. */
int run_turn(aloop_t *loop);

/* Runs turns until *flag is set; fails the test after `turns_max` turns or 30 s of real time. */
void run_until(aloop_t *loop, const bool *flag);

/* Runs until the future is done, without consuming it, and returns aloop_future_result. */
int64_t run_future(aloop_t *loop, aloop_future_t *future);

/* Runs the scenario again and again, each time on a new virtual loop, with the n-th allocation failing, for
 * every n, and then with all from the n-th on. Each run must release everything when its loop is freed. The
 * scenario sets env->fail_from = 0 where it is over with being out of memory. */
void torture(env_t *env, void (*scenario)(env_t *env));

/* How many descriptors this process has open. */
int open_fds(void);

/* A connected pair of non-blocking, close-on-exec stream sockets; a pipe likewise. */
void make_socketpair(int fds[2]);
void make_pipe(int fds[2]);

/* Whether the loop under test runs on this poller. */
bool on_poller(const env_t *env, const char *name);

/* Whether its poller is the kqueue of libkqueue, and not of a kernel: after a fork the child may only exec, and
 * a descriptor that is closed while it is watched is not noticed. */
bool on_libkqueue(const env_t *env);

/* Opens what libkqueue opens once and keeps; a child's end is watched by a kqueue whatever the poller is. */
void libkqueue_begin(void);

int test_setup(void **state);
int test_teardown(void **state);
int test_main(int argc, char **argv, const struct CMUnitTest *tests, size_t count);

#define T(name) cmocka_unit_test_setup_teardown(name, test_setup, test_teardown)
#define TESTS(...)                                                                                             \
  int main(int argc, char **argv) {                                                                            \
    const struct CMUnitTest tests[] = {__VA_ARGS__};                                                           \
    return test_main(argc, argv, tests, sizeof tests / sizeof tests[0]);                                       \
  }

#endif
