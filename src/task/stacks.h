/* SPDX-License-Identifier: MIT
 *
 * Stacks for coroutines: a pool per loop. See stacks.c.
 */
#ifndef ALOOP_TASK_STACKS_H
#define ALOOP_TASK_STACKS_H

#include "aloop.h"
#include "task/switch.h"

/* One stack: [low, top) can be used, below lies the guard. Lives as long as its pool. */
typedef struct aloop__stack {
  char *low;
  char *top;
  struct aloop__stack *next; /* in the pool */
  uint8_t class;             /* its size is ALOOP__STACK_MIN << class */
} aloop__stack_t;

enum { ALOOP__STACK_MIN = 16384, ALOOP__STACK_CLASSES = 17 };

typedef struct aloop__stacks {
  aloop_t *loop;                                /* whose allocator has the descriptors */
  const aloop__switch_t *how;                   /* how coroutines on these stacks switch */
  aloop__stack_t *pooled[ALOOP__STACK_CLASSES]; /* the one used last first */
  size_t live;                                  /* taken */
  size_t pooled_count;
  size_t high_water; /* the most that were ever live */
} aloop__stacks_t;

/* No memory is taken yet. */
void aloop__stacks_init(aloop__stacks_t *stacks, aloop_t *loop);

/* Every stack must have been given back. */
void aloop__stacks_close(aloop__stacks_t *stacks);

/* A stack of at least `size` bytes of address space, guard included; 0: ALOOP_STACK_SIZE. What it holds is
 * undefined. Errors: ALOOP_ENOMEM, ALOOP_EINVAL (larger than the largest class), ALOOP_ENOTSUP (coroutines do
 * not work on this machine). */
int aloop__stacks_take(aloop__stacks_t *stacks, size_t size, aloop__stack_t **out);
void aloop__stacks_give(aloop__stacks_t *stacks, aloop__stack_t *stack);

#endif
