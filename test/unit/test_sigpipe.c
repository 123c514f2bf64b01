/* SPDX-License-Identifier: MIT
 *
 * Keeping SIGPIPE from the host.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "harness.h"
#include "net/sigpipe.h"

/* Writes to a pipe that nobody reads while SIGPIPE is held back; with its disposition being the default, this test
 * ends here if it is not. */
static void write_to_nobody(void) {
  int fds[2];
  aloop__sigpipe_t held;
  make_pipe(fds);
  close(fds[0]);
  signal(SIGPIPE, SIG_DFL);
  aloop__sigpipe_hold(&held);
  ssize_t n = write(fds[1], "x", 1);
  int error = errno;
  errno = ERANGE;
  aloop__sigpipe_release(&held, n < 0);
  assert_int_equal(errno, ERANGE);
  assert_int_equal(n, -1);
  assert_int_equal(error, EPIPE);
  close(fds[1]);
}

static bool is_blocked(void) {
  sigset_t now;
  pthread_sigmask(SIG_BLOCK, NULL, &now);
  return sigismember(&now, SIGPIPE) == 1;
}

static bool is_pending(void) {
  sigset_t now;
  sigpending(&now);
  return sigismember(&now, SIGPIPE) == 1;
}

static void block(int how) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGPIPE);
  pthread_sigmask(how, &mask, NULL);
}

static void takes_the_signal_away(void **state) {
  (void)state;
  write_to_nobody();
  assert_false(is_pending());
  assert_false(is_blocked());
}

static void leaves_a_mask_that_was_there(void **state) {
  (void)state;
  block(SIG_BLOCK);
  write_to_nobody();
  assert_false(is_pending());
  assert_true(is_blocked());
  block(SIG_UNBLOCK);
}

static void leaves_a_signal_that_was_waiting(void **state) {
  (void)state;
  block(SIG_BLOCK);
  raise(SIGPIPE);
  write_to_nobody();
  assert_true(is_pending());
  signal(SIGPIPE, SIG_IGN);
  block(SIG_UNBLOCK);
  signal(SIGPIPE, SIG_DFL);
}

static void does_not_wait_for_one_that_did_not_come(void **state) {
  (void)state;
  aloop__sigpipe_t held;
  aloop__sigpipe_hold(&held);
  assert_true(is_blocked());
  aloop__sigpipe_release(&held, true);
  assert_false(is_blocked());
}

TESTS(T(takes_the_signal_away), T(leaves_a_mask_that_was_there), T(leaves_a_signal_that_was_waiting),
      T(does_not_wait_for_one_that_did_not_come))
