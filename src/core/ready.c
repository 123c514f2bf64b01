/* SPDX-License-Identifier: MIT
 *
 * The ready deque: what runs next, in strict order of scheduling.
 *
 * A ring of 32-byte entries whose size is a power of two. Positions grow for ever; the entry of a position is
 * ring[position & mask], which stays true when the ring doubles because every waiting entry is copied to its
 * new place. Pushing and popping are O(1); growing is amortised. Invariant: head <= tail <= head + mask + 1.
 * The ring never shrinks while the loop lives: a loop that once had a burst is likely to have another.
 *
 * Callbacks of the library (I/O, timers, futures) and of the user share this one deque, because their order is
 * a promise.
 */
#include "core/loop.h"
#include "core/memory.h"

#include <string.h>

enum { FIRST_SIZE = 16 };

int aloop__ready_grow(aloop_t *loop) {
  uint64_t old_size = loop->ring == NULL ? 0 : (uint64_t)loop->mask + 1;
  uint64_t size = old_size == 0 ? FIRST_SIZE : old_size * 2;
  if (size > UINT32_MAX / 2) return ALOOP_ENOMEM;
  aloop__entry_t *ring = aloop__memory_new(loop, size * sizeof *ring);
  if (ring == NULL) return ALOOP_ENOMEM;
  for (uint64_t at = loop->head; at != loop->tail; at++) ring[at & (size - 1)] = loop->ring[at & loop->mask];
  aloop__memory_release(loop, loop->ring);
  loop->ring = ring;
  loop->mask = (uint32_t)(size - 1);
  return 0;
}

bool aloop__ready_push_captured(aloop_t *loop, aloop_callback_fn fn, void *arg, aloop__map_t *context,
                                const char *origin) {
  if (!aloop__ready_push(loop, fn, arg)) return false;
  aloop__entry_t *entry = &loop->ring[(loop->tail - 1) & loop->mask];
  entry->context = context;
  entry->origin = origin;
  return true;
}

void aloop__ready_drop(aloop_t *loop, aloop__entry_t *entry) {
  entry->fn = NULL;
  aloop__map_clear(loop, &entry->context);
}
