/* SPDX-License-Identifier: MIT
 *
 * The standard descriptors of a child, from the caller's choice to numbers. See stdio.c.
 */
#ifndef ALOOP_PROCESS_STDIO_H
#define ALOOP_PROCESS_STDIO_H

#include "aloop.h"

typedef struct aloop__stdio {
  int child[3];  /* what becomes 0, 1 and 2 of the child */
  int parent[3]; /* this process's end of a pipe, non-blocking; -1: none */
  bool made[3];  /* child[i] was made here */
} aloop__stdio_t;

/* Why the choice cannot be used, or NULL. */
const char *aloop__stdio_fault(const aloop_process_options_t *options);

/* Opens what is to be opened. On failure nothing is open, and *which says for which of the three it was. */
int aloop__stdio_open(const aloop_process_options_t *options, aloop__stdio_t *stdio, int *which);

/* A close-on-exec pipe, with numbers above 2. 0 or a code. */
int aloop__stdio_pipe(int ends[2]);

/* A new descriptor (negative: errno says why there is none) under a number above 2, or a code. */
int aloop__stdio_move_up(int fd);

/* Closes what was only for the child; the ends of the pipes that are still here (a transport takes one by
 * setting it to -1). */
void aloop__stdio_close_child(aloop__stdio_t *stdio);
void aloop__stdio_close_parent(aloop__stdio_t *stdio);

#endif
