/* SPDX-License-Identifier: MIT
 *
 * Telling an overflow of a task's stack from other crashes. See overflow.c.
 */
#ifndef ALOOP_TASK_OVERFLOW_H
#define ALOOP_TASK_OVERFLOW_H

#include <stdbool.h>
#include <stddef.h>

#include "task/stacks.h"

/* One watcher: part of what a loop keeps for its tasks. All zero: not watching. */
typedef struct aloop__overflow {
  bool on;
  void *stack; /* for the signal handler, if the thread had none; else NULL */
} aloop__overflow_t;

/* From now on an overflow in this thread writes a line before the program crashes. Does nothing where that is
 * not possible. */
void aloop__overflow_watch(aloop__overflow_t *watcher);
void aloop__overflow_unwatch(aloop__overflow_t *watcher);

/* What the line says. Returns its length. Async-signal-safe. */
size_t aloop__overflow_describe(const aloop__stack_t *stack, char *text, size_t size);

#endif
