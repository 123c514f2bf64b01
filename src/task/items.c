/* SPDX-License-Identifier: MIT
 *
 * The items of a queue: a ring from which the oldest or the newest is taken, in O(1), or a binary heap from
 * which the least is, in O(log n), the oldest among equals.
 *
 * The capacity doubles when it has to and never shrinks: a queue that was full once has room for as many for
 * good. The comparison is the caller's; whatever nonsense it answers, each item comes out once.
 */
#include "task/items.h"

#include "core/memory.h"

enum { CAPACITY_MIN = 8 };

/* ---- The ring -------------------------------------------------------------------------------------------- */

/* What has wrapped around moves behind the old end. */
static void unwrap(aloop__items_t *items, size_t old) {
  size_t end = items->first + items->count;
  for (size_t i = old; i < end; i++) items->ring[i] = items->ring[i - old];
}

static size_t place(const aloop__items_t *items, size_t index) {
  return (items->first + index) & (items->capacity - 1);
}

/* ---- The heap -------------------------------------------------------------------------------------------- */

static bool comes_before(const aloop__items_t *items, aloop__ranked_t a, aloop__ranked_t b) {
  int order = items->compare(a.item, b.item, items->compare_arg);
  return order < 0 || (order == 0 && a.number < b.number);
}

static void rise(aloop__items_t *items, size_t at, aloop__ranked_t entry) {
  while (at > 0 && comes_before(items, entry, items->heap[(at - 1) / 2])) {
    items->heap[at] = items->heap[(at - 1) / 2];
    at = (at - 1) / 2;
  }
  items->heap[at] = entry;
}

/* Puts `entry` into the heap, whose top is free. */
static void sink(aloop__items_t *items, aloop__ranked_t entry) {
  size_t at = 0;
  for (size_t child = 1; child < items->count; child = 2 * at + 1) {
    if (child + 1 < items->count && comes_before(items, items->heap[child + 1], items->heap[child])) child++;
    if (!comes_before(items, items->heap[child], entry)) break;
    items->heap[at] = items->heap[child];
    at = child;
  }
  items->heap[at] = entry;
}

/* ---- Both ------------------------------------------------------------------------------------------------ */

int aloop__items_reserve(aloop__items_t *items, aloop_t *loop) {
  if (items->count < items->capacity) return 0;
  size_t each = items->kind == ALOOP_PRIORITY ? sizeof *items->heap : sizeof *items->ring;
  size_t old = items->capacity, capacity = old == 0 ? CAPACITY_MIN : old * 2;
  if (capacity > SIZE_MAX / each) return ALOOP_ENOMEM;
  void *block = items->kind == ALOOP_PRIORITY ? (void *)items->heap : (void *)items->ring;
  block = aloop__memory_resize(loop, block, capacity * each);
  if (block == NULL) return ALOOP_ENOMEM;
  items->capacity = capacity;
  if (items->kind == ALOOP_PRIORITY) {
    items->heap = block;
  } else {
    items->ring = block;
    unwrap(items, old);
  }
  return 0;
}

void aloop__items_push(aloop__items_t *items, void *item) {
  size_t at = items->count++;
  if (items->kind == ALOOP_PRIORITY)
    rise(items, at, (aloop__ranked_t){item, items->number++});
  else
    items->ring[place(items, at)] = item;
}

void *aloop__items_pop(aloop__items_t *items) {
  size_t last = --items->count;
  if (items->kind == ALOOP_LIFO) return items->ring[place(items, last)];
  if (items->kind == ALOOP_FIFO) {
    void *item = items->ring[items->first];
    items->first = place(items, 1);
    return item;
  }
  void *least = items->heap[0].item;
  sink(items, items->heap[last]);
  return least;
}

void aloop__items_close(aloop__items_t *items, aloop_t *loop) {
  aloop__memory_release(loop, items->kind == ALOOP_PRIORITY ? (void *)items->heap : (void *)items->ring);
  items->ring = NULL;
  items->count = items->capacity = items->first = 0;
}
