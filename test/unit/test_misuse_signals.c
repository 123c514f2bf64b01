/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on signal handlers: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "misuse.h"

#include <limits.h>
#include <signal.h>

static void ignore(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum, (void)arg;
}

static void no_such_signals(misuse_t *m) {
  static const int numbers[] = {0, -1, INT_MIN, INT_MAX, 128, 4096, SIGKILL, SIGSTOP};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    MISTAKE(aloop_add_signal_handler(m->loop, numbers[i], ignore, NULL, 0), ALOOP_EINVAL);
    MISTAKE(aloop_remove_signal_handler(m->loop, numbers[i], ignore, NULL), ALOOP_EINVAL);
    MISTAKE(aloop_remove_signal_handler(m->loop, numbers[i], NULL, NULL), ALOOP_EINVAL);
  }
}

static void wrong_arguments(misuse_t *m) {
  MISTAKE(aloop_add_signal_handler(NULL, SIGUSR1, ignore, NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_add_signal_handler(m->loop, SIGUSR1, NULL, NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_add_signal_handler(m->loop, SIGUSR1, ignore, NULL, 2), ALOOP_EINVAL);
  MISTAKE(aloop_add_signal_handler(m->loop, SIGUSR1, ignore, NULL, UINT_MAX), ALOOP_EINVAL);
  MISTAKE(aloop_remove_signal_handler(NULL, SIGUSR1, ignore, NULL), ALOOP_EINVAL);
  ORDINARY(aloop_remove_signal_handler(m->loop, SIGUSR1, ignore, NULL), 0);
  ORDINARY(aloop_remove_signal_handler(m->loop, SIGUSR1, NULL, NULL), 0);
}

static void a_closed_loop(misuse_t *m) {
  aloop_add_signal_handler(m->loop, SIGUSR1, ignore, NULL, 0);
  aloop_close(m->loop);
  MISTAKE(aloop_add_signal_handler(m->loop, SIGUSR1, ignore, NULL, 0), ALOOP_ECLOSED);
  ORDINARY(aloop_remove_signal_handler(m->loop, SIGUSR1, ignore, NULL), 0);
}

static void calls_of_another_thread(misuse_t *m) {
  MISTAKE(aloop_add_signal_handler(m->loop, SIGUSR1, ignore, NULL, 0), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_remove_signal_handler(m->loop, SIGUSR1, ignore, NULL), ALOOP_ENOTLOOPTHREAD);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void signals_that_cannot_be_caught(void **state) {
  in_both_modes(*state, no_such_signals);
}

static void arguments(void **state) {
  in_both_modes(*state, wrong_arguments);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, a_closed_loop);
}

static void another_thread(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  misuse_in_thread(&m, calls_of_another_thread);
  misuse_end(&m);
}

TESTS(T(signals_that_cannot_be_caught), T(arguments), T(closed_loops), T(another_thread))
