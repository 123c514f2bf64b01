/* SPDX-License-Identifier: MIT
 *
 * Writing to what nobody reads any more raises SIGPIPE, which ends a host that has not asked for it. Sockets
 * have MSG_NOSIGNAL, pipes on Linux 6.18 and later RWF_NOSIGNAL; for other calls the signal is held back in
 * this thread, where the kernel sends it, and taken away if it came. The host's disposition is never touched:
 * it belongs to all threads.
 *
 * Cost: two system calls (the mask, and the mask back), some 0.2 microseconds each; when the call failed or
 * moved only a part, which is when the signal can have come, one more to look.
 */
#include "net/sigpipe.h"

#include <errno.h>
#include <pthread.h>

static bool is_pending(void) {
  sigset_t pending;
  sigemptyset(&pending);
  sigpending(&pending);
  return sigismember(&pending, SIGPIPE) == 1;
}

void aloop__sigpipe_hold(aloop__sigpipe_t *held) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &mask, &held->before);
  held->was_blocked = sigismember(&held->before, SIGPIPE) == 1;
  held->was_pending = held->was_blocked && is_pending();
}

void aloop__sigpipe_release(const aloop__sigpipe_t *held, bool may_have_come) {
  int error = errno;
  if (may_have_come && !held->was_pending && is_pending()) {
    sigset_t mask;
    int number;
    sigemptyset(&mask);
    sigaddset(&mask, SIGPIPE);
    sigwait(&mask, &number);
  }
  if (!held->was_blocked) pthread_sigmask(SIG_SETMASK, &held->before, NULL);
  errno = error;
}
