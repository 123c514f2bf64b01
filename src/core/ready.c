/* SPDX-License-Identifier: MIT
 *
 * The ready deque: what runs next, in strict order of scheduling.
 *
 * A ring of 24-byte entries whose size is a power of two. Positions grow for ever; the entry of a position is
 * ring[position & mask], which stays true when the ring doubles because every waiting entry is copied to its
 * new place. Pushing and popping are O(1); growing is amortised. Invariant: head <= tail <= head + mask + 1.
 * The ring never shrinks while the loop lives: a loop that once had a burst is likely to have another.
 *
 * Contexts lie in a ring of their own, which is made when the first variable is set; so whoever has a context
 * to capture finds a place for it. Places are NULL but for entries that wait and have one: as long as there is
 * none, callbacks neither write nor read them. Entries of 16 bytes, with the origins in a third ring in debug
 * mode, were tried: they save three instructions for each callback and no time, and the dump would name no
 * places.
 *
 * Whether a push is common is one comparison: `limit` is where the ring is known to have room up to; 0 while
 * something is to be done for each callback (the guard). It is moved on when it is reached and not with each
 * callback that runs. Whether an entry was cancelled is not asked either: such a one calls a function that does
 * next to nothing.
 *
 * A callback that is scheduled and run in a burst of 1000 costs 45 instructions, and half as much time again as
 * a ring that is compiled into the program. The call through a shared library, its two checks and the origin
 * make that: a bare ring with these takes 6.2 to 6.5 ns where ours takes 6.8 to 7.3 and the compiled one 4.1.
 * Walking along the ring by a pointer, up to its end, was tried: 42 instructions, no time saved in bursts, and
 * chains of callbacks a sixth slower.
 *
 * Callbacks of the library (I/O, timers, futures) and of the user share this one deque, because their order is
 * a promise.
 */
#include "core/loop.h"
#include "core/memory.h"

#include <string.h>

enum { FIRST_SIZE = 16 };

void aloop__ready_skip(aloop_t *loop, void *arg) {
  (void)arg;
  loop->beside_head--;
}

void aloop__ready_set_limit(aloop_t *loop) {
  loop->limit = loop->guard != 0 ? 0 : loop->head + loop->mask + 1;
}

static aloop__map_t **new_contexts(aloop_t *loop, uint64_t size) {
  aloop__map_t **contexts = aloop__memory_new(loop, (size_t)size * sizeof(aloop__map_t *));
  for (uint64_t i = 0; contexts != NULL && i < size; i++) contexts[i] = NULL;
  return contexts;
}

int aloop__ready_open_contexts(aloop_t *loop) {
  if (loop->contexts != NULL) return 0;
  loop->contexts = new_contexts(loop, (uint64_t)loop->mask + 1);
  aloop__loop_interrupt(loop);
  return loop->contexts != NULL ? 0 : ALOOP_ENOMEM;
}

int aloop__ready_grow(aloop_t *loop) {
  uint64_t old_size = loop->ring == NULL ? 0 : (uint64_t)loop->mask + 1;
  uint64_t size = old_size == 0 ? FIRST_SIZE : old_size * 2;
  if (size > UINT32_MAX / 2) return ALOOP_ENOMEM;
  aloop__entry_t *ring = aloop__memory_new(loop, (size_t)size * sizeof *ring);
  aloop__map_t **contexts = loop->contexts != NULL ? new_contexts(loop, size) : NULL;
  if (ring == NULL || (contexts == NULL && loop->contexts != NULL)) {
    aloop__memory_release(loop, ring);
    aloop__memory_release(loop, contexts);
    return ALOOP_ENOMEM;
  }
  for (uint64_t at = loop->head; at != loop->tail; at++) {
    ring[at & (size - 1)] = loop->ring[at & loop->mask];
    if (contexts != NULL) contexts[at & (size - 1)] = loop->contexts[at & loop->mask];
  }
  aloop__memory_release(loop, loop->ring);
  aloop__memory_release(loop, loop->contexts);
  loop->ring = ring;
  loop->contexts = contexts;
  loop->mask = (uint32_t)(size - 1);
  aloop__ready_set_limit(loop);
  return 0;
}

bool aloop__ready_push_slowly(aloop_t *loop, aloop_callback_fn fn, void *arg, aloop__map_t *context,
                              const char *origin) {
  if (aloop__ready_full(loop) && aloop__ready_grow(loop) < 0) return false;
  aloop__ready_set_limit(loop);
  ALOOP_CHECK(context == NULL || loop->contexts != NULL);
  if (context != NULL) loop->contexts[loop->tail & loop->mask] = context;
  aloop__ready_put(loop, fn, arg, origin);
  return true;
}

aloop__map_t *aloop__ready_withdraw(aloop_t *loop, aloop__entry_t *entry) {
  entry->fn = aloop__ready_skip;
  return aloop__ready_take_context(loop, (uint64_t)(entry - loop->ring));
}

void aloop__ready_drop(aloop_t *loop, aloop__entry_t *entry) {
  aloop__map_unref(loop, aloop__ready_withdraw(loop, entry));
}
