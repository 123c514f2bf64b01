/* SPDX-License-Identifier: MIT
 *
 * Stacks for coroutines: a pool per loop. See stacks.c.
 */
#ifndef ALOOP_TASK_STACKS_H
#define ALOOP_TASK_STACKS_H

#include "aloop.h"
#include "core/list.h"
#include "task/switch.h"

/* The size of a stack is ALOOP__STACK_MIN << class. */
enum { ALOOP__STACK_MIN = 16384, ALOOP__STACK_CLASSES = 17 };

typedef struct aloop__stack_map aloop__stack_map_t;

enum {
  ALOOP__STACK_TAKEN,
  ALOOP__STACK_WARM,    /* in the pool, and may hold memory */
  ALOOP__STACK_COOLING, /* its memory goes back just now */
  ALOOP__STACK_COLD
};

/* One stack: [low, top) can be used, below lies the guard. */
typedef struct aloop__stack {
  char *low;
  char *top;
  aloop__list_t link; /* in the pool */
  aloop__stack_map_t *map;
  const char *label;   /* whose it is, for the report of an overflow; borrowed, may be NULL */
  unsigned registered; /* by this number with valgrind, or 0 */
  uint16_t color;      /* bytes at the top to leave out: for the caches */
  uint8_t state;       /* ALOOP__STACK_TAKEN... */
} aloop__stack_t;

/* Pooled stacks of one size. */
typedef struct aloop__stack_class {
  aloop__list_t warm; /* may hold memory; the one used last first */
  aloop__list_t cold; /* hold none */
  size_t warm_count;
  size_t idle;            /* so many of the warm ones were not needed since the last tidying */
  aloop__stack_map_t *at; /* the mapping that has stacks never used yet, or NULL */
  size_t next_count;      /* how many the next mapping has */
} aloop__stack_class_t;

typedef struct aloop__stacks {
  aloop_t *loop;              /* whose allocator has the descriptors */
  const aloop__switch_t *how; /* how coroutines on these stacks switch */
  bool light_guards;          /* guards without a mapping each, as long as the kernel has them */
  size_t page;
  aloop__list_t maps;
  aloop__stack_class_t classes[ALOOP__STACK_CLASSES];
  size_t live; /* taken */
  size_t pooled;
  size_t high_water; /* the most that were ever live */
  size_t reserved;   /* bytes of address space */
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

/* To be called about once a second: memory of stacks that nobody needed since the last call goes back to the
 * system. Returns whether there are stacks left for which another call may make sense. */
bool aloop__stacks_tidy(aloop__stacks_t *stacks);

/* The stack in whose guard an address lies, or NULL. May be called by a signal handler. */
const aloop__stack_t *aloop__stacks_find(const aloop__stacks_t *stacks, const void *address);

/* Its size, guard included. */
size_t aloop__stack_size(const aloop__stack_t *stack);

#endif
