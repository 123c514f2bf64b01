/* SPDX-License-Identifier: MIT
 *
 * Keeping SIGPIPE from the host around system calls that know no MSG_NOSIGNAL.
 */
#ifndef ALOOP_NET_SIGPIPE_H
#define ALOOP_NET_SIGPIPE_H

#include <signal.h>
#include <stdbool.h>

typedef struct aloop__sigpipe {
  sigset_t before;
  bool was_blocked;
  bool was_pending;
} aloop__sigpipe_t;

/* From now on a SIGPIPE of this thread waits. */
void aloop__sigpipe_hold(aloop__sigpipe_t *held);

/* As before the hold. If one `may_have_come` it is taken away, unless one was waiting already. Leaves errno. */
void aloop__sigpipe_release(const aloop__sigpipe_t *held, bool may_have_come);

#endif
