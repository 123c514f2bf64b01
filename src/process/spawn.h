/* SPDX-License-Identifier: MIT
 *
 * Starting a program in a child process. See spawn.c.
 */
#ifndef ALOOP_PROCESS_SPAWN_H
#define ALOOP_PROCESS_SPAWN_H

#include "aloop.h"

/* Better ways of the system that tests forbid, so that what stands in for them elsewhere is tested too. */
enum {
  ALOOP__WITHOUT_CLONE = 1,       /* fork, and a pipe for errors */
  ALOOP__WITHOUT_CLOSE_RANGE = 2, /* the list of open descriptors */
  ALOOP__WITHOUT_PROC = 4,        /* one descriptor after the other */
  ALOOP__WITHOUT_PIDFD = 8,       /* a kqueue, or a thread, watches the child */
  ALOOP__WITHOUT_KQUEUE = 16
};
extern unsigned aloop__spawn_without;

enum { ALOOP__SPAWN_TEXT = 160 };

typedef struct aloop__spawned {
  pid_t pid;
  int pidfd;                    /* -1: none; else the receiver's */
  char step[ALOOP__SPAWN_TEXT]; /* of a failure: "chdir to /nope" */
} aloop__spawned_t;

/* Starts the program of `options`, which are complete and checked, with `stdio` as its descriptors 0 to 2 (a
 * number that stands at its own place is inherited, open or not). Returns when the program runs, or the error
 * of the step that failed; nothing is left of the child then. */
int aloop__spawn(aloop_t *loop, const aloop_process_options_t *options, const int stdio[3],
                 aloop__spawned_t *spawned);

#endif
