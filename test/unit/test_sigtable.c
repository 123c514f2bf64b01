/* SPDX-License-Identifier: MIT
 *
 * The process's table of signals.
 */
#include "harness.h"

#include <signal.h>

static void ignore(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum, (void)arg;
}

static void what_was_there_before_comes_back(void **state) {
  env_t *env = *state;
  struct sigaction after;
  signal(SIGUSR1, SIG_IGN);
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
  aloop_close(env->loop);
  assert_int_equal(sigaction(SIGUSR1, NULL, &after), 0);
  assert_ptr_equal(after.sa_handler, SIG_IGN);
}

TESTS(T(what_was_there_before_comes_back))
