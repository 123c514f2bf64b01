/* SPDX-License-Identifier: MIT
 *
 * Going from one stack to another, and nothing else: no memory, no life cycle. See switch.c.
 *
 * A stack that does not run is known by one pointer, its mark: what is needed to go on lies on the stack
 * itself, from there upwards.
 */
#ifndef ALOOP_TASK_SWITCH_H
#define ALOOP_TASK_SWITCH_H

#include <stddef.h>

/* Never returns. */
typedef void (*aloop__switch_entry_fn)(void *arg);

/* One way of switching. A mark made by one way is of no use to another. */
typedef struct aloop__switch {
  const char *name;
  /* Prepares the stack [low, top) so that switching to the mark which is returned calls entry(arg) there, with
   * the floating-point control state of this moment. `top` is aligned to 16 bytes. */
  void *(*make)(char *low, char *top, aloop__switch_entry_fn entry, void *arg);
  /* Leaves this stack, noting its mark in *from, and goes on where `to` was left. Returns when somebody
   * switches back. */
  void (*to)(void **from, void *to);
} aloop__switch_t;

/* What works on this machine, the best first; ended by NULL. The first is NULL where nothing does. */
const aloop__switch_t *const *aloop__switch_ways(void);

#endif
