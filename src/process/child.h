/* SPDX-License-Identifier: MIT
 *
 * A child process and its end. See child.c.
 */
#ifndef ALOOP_PROCESS_CHILD_H
#define ALOOP_PROCESS_CHILD_H

#include "aloop.h"
#include "core/watch.h"

typedef struct aloop__child aloop__child_t;
typedef struct aloop__guard aloop__guard_t;
typedef void (*aloop__child_fn)(aloop_t *loop, aloop__child_t *child);

struct aloop__child {
  aloop__watch_t watch; /* of `fd` */
  aloop__child_fn ended;
  aloop__guard_t *guard; /* a thread that waits */
  pid_t pid;
  int fd;         /* a pidfd or a kqueue; -1: none */
  int code;       /* how it ended: exit code, minus the signal; ALOOP_ENOTDONE, ALOOP_EREAPED */
  unsigned forks; /* when it was started: a fork of this process has no children of its own yet */
  bool is_pidfd;
};

/* No child yet. */
void aloop__child_init(aloop__child_t *child);

/* Watches a child that was just started; `pidfd` (-1: none) moves in, also on failure. `ended` is called in
 * a later turn, once, when `code` is known. On failure the child is still there and can be signalled. */
int aloop__child_watch(aloop_t *loop, aloop__child_t *child, pid_t pid, int pidfd, aloop__child_fn ended);

/* ALOOP_ESRCH when its end is known. */
int aloop__child_signal(aloop__child_t *child, int signum);

/* Waits for the end of a child that was killed, until `limit` of the monotonic clock; `ended` is not called.
 * False: it is not over. */
bool aloop__child_await(aloop__child_t *child, int64_t limit);

/* False in a fork of the process that started it. */
bool aloop__child_is_mine(const aloop__child_t *child);

/* Nothing is watched any more; `ended` is not called. Again: a no-op. */
void aloop__child_release(aloop_t *loop, aloop__child_t *child);

#endif
