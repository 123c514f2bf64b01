/* SPDX-License-Identifier: MIT
 *
 * What a queue holds: pointers, in the order of their coming, the newest first, or by a comparison. See
 * items.c.
 */
#ifndef ALOOP_TASK_ITEMS_H
#define ALOOP_TASK_ITEMS_H

#include "aloop.h"

typedef struct aloop__ranked {
  void *item;
  uint64_t number; /* in the order of coming */
} aloop__ranked_t;

typedef struct aloop__items {
  int kind; /* ALOOP_FIFO... */
  int (*compare)(const void *a, const void *b, void *arg);
  void *compare_arg;
  size_t count;
  size_t capacity; /* a power of two, or 0 */
  size_t first;    /* of the ring */
  union {
    void **ring;
    aloop__ranked_t *heap;
  };
  uint64_t number;
} aloop__items_t;

/* Room for one more. Returns ALOOP_ENOMEM with everything as it was. */
int aloop__items_reserve(aloop__items_t *items, aloop_t *loop);

/* There is room. */
void aloop__items_push(aloop__items_t *items, void *item);

/* There is one. */
void *aloop__items_pop(aloop__items_t *items);

void aloop__items_close(aloop__items_t *items, aloop_t *loop);

#endif
