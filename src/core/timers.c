/* SPDX-License-Identifier: MIT
 *
 * Timers. Three arrays share one capacity: slots (what a timer is: 64 bytes, one cache line), a 4-ary heap of
 * 16-byte keys (deadline, order, slot) and places (slot -> heap index). Keys live in the heap itself and
 * places in an array of their own, so that sifting touches neither the slots nor more than one cache line per
 * level; on a million timers this is several times faster than a binary heap of pointers.
 *
 * - Order: by deadline, then by a 32-bit number given when the timer was made or moved, compared with
 *   wrap-around: first made, first run among equals.
 * - Adding and removing are O(log n); removal uses the place, so a cancelled timer leaves nothing behind.
 * - Moving a deadline back (the idle timeout of a busy connection) is O(1): only the slot changes. The key in
 *   the heap is then too early; it is put right when that moment comes, because key <= true deadline always
 *   holds.
 * - A due timer leaves the heap and waits in the ready deque like any callback; cancelling it there drops the
 *   deque entry.
 * - A repeating timer goes back into the heap before its callback runs, on the grid of its first deadline;
 *   beats that were missed are skipped, so a stalled loop does not catch up in a burst.
 *
 * A million timers do not fit into any cache, so what bounds their speed is waiting for memory: the children of
 * a heap node lie in one cache line, and slots are fetched a little before they are needed.
 *
 * Slots are recycled with a new generation, and a handle is (generation, slot): a stale handle finds nothing.
 * When the ready deque cannot grow, due timers stay in the heap and are tried again next turn.
 */
#include "core/timers.h"

#include "core/clock.h"
#include "core/loop.h"
#include "core/memory.h"

#include <string.h>

enum { FREE, WAITING, READY };
enum { ARITY = 4, FIRST_CAPACITY = 16, CACHE_LINE = 64, LOOK_AHEAD = 4 };

static inline bool before(const aloop__timer_key_t *a, const aloop__timer_key_t *b) {
  if (ALOOP_LIKELY(a->when != b->when)) return a->when < b->when;
  return (int32_t)(a->order - b->order) < 0;
}

static inline void place(aloop__timers_t *timers, uint32_t at, const aloop__timer_key_t *key) {
  timers->heap[at] = *key;
  timers->places[key->slot] = at;
}

static inline void sift_up(aloop__timers_t *timers, uint32_t at, aloop__timer_key_t key) {
  while (at > 0) {
    uint32_t parent = (at - 1) / ARITY;
    if (!before(&key, &timers->heap[parent])) break;
    place(timers, at, &timers->heap[parent]);
    at = parent;
  }
  place(timers, at, &key);
}

/* The first of up to four children. Written so that the compiler selects instead of jumping: the outcome is
 * random. */
static inline const aloop__timer_key_t *first_child(const aloop__timer_key_t *child,
                                                    const aloop__timer_key_t *end) {
  if (ALOOP_LIKELY(child + ARITY <= end)) {
    const aloop__timer_key_t *left = child + before(&child[1], &child[0]);
    const aloop__timer_key_t *right = child + 2 + before(&child[3], &child[2]);
    return before(right, left) ? right : left;
  }
  const aloop__timer_key_t *best = child;
  for (const aloop__timer_key_t *other = child + 1; other < end; other++)
    if (before(other, best)) best = other;
  return best;
}

static void sift_down(aloop__timers_t *timers, uint32_t at, aloop__timer_key_t key) {
  const aloop__timer_key_t *heap = timers->heap, *end = heap + timers->heap_size;
  for (;;) {
    const aloop__timer_key_t *child = heap + (size_t)at * ARITY + 1;
    if (child >= end) break;
    child = first_child(child, end);
    if (!before(child, &key)) break;
    place(timers, at, child);
    at = (uint32_t)(child - heap);
  }
  place(timers, at, &key);
}

static void heap_add(aloop__timers_t *timers, uint32_t slot) {
  const aloop__timer_t *timer = &timers->slots[slot];
  sift_up(timers, timers->heap_size++, (aloop__timer_key_t){timer->when, timer->order, slot});
}

static void heap_remove(aloop__timers_t *timers, uint32_t at) {
  aloop__timer_key_t last = timers->heap[--timers->heap_size];
  if (at == timers->heap_size) return;
  if (at > 0 && before(&last, &timers->heap[(at - 1) / ARITY]))
    sift_up(timers, at, last);
  else
    sift_down(timers, at, last);
}

/* The heap begins 16 bytes before a cache line, so that the four children of a node share one. */
static bool grow_heap(aloop_t *loop, size_t capacity) {
  aloop__timers_t *timers = &loop->timers;
  char *block = aloop__memory_new(loop, capacity * sizeof *timers->heap + CACHE_LINE);
  if (block == NULL) return false;
  size_t to_line = CACHE_LINE - (uintptr_t)block % CACHE_LINE;
  aloop__timer_key_t *heap = (void *)(block + (to_line + CACHE_LINE - sizeof *heap) % CACHE_LINE);
  if (timers->heap_size > 0) memcpy(heap, timers->heap, timers->heap_size * sizeof *heap);
  aloop__memory_release(loop, timers->heap_block);
  timers->heap_block = block;
  timers->heap = heap;
  return true;
}

static int grow(aloop_t *loop) {
  aloop__timers_t *timers = &loop->timers;
  size_t capacity = timers->capacity == 0 ? FIRST_CAPACITY : (size_t)timers->capacity * 2;
  if (capacity > UINT32_MAX / 2) return ALOOP_ENOMEM;
  void *slots = aloop__memory_resize(loop, timers->slots, capacity * sizeof *timers->slots);
  if (slots == NULL) return ALOOP_ENOMEM;
  timers->slots = slots;
  void *places = aloop__memory_resize(loop, timers->places, capacity * sizeof *timers->places);
  if (places == NULL) return ALOOP_ENOMEM;
  timers->places = places;
  if (!grow_heap(loop, capacity)) return ALOOP_ENOMEM;
  timers->capacity = (uint32_t)capacity;
  return 0;
}

static bool is_full(const aloop__timers_t *timers) {
  return timers->free == ALOOP__NO_SLOT && timers->used == timers->capacity;
}

/* A slot nobody uses; there is one. */
static uint32_t take_slot(aloop__timers_t *timers) {
  uint32_t slot = timers->free;
  if (slot != ALOOP__NO_SLOT) {
    timers->free = timers->places[slot];
    return slot;
  }
  slot = timers->used++;
  timers->slots[slot].generation = 0;
  return slot;
}

static void give_slot(aloop__timers_t *timers, aloop__timer_t *timer) {
  uint32_t slot = (uint32_t)(timer - timers->slots);
  timer->state = FREE;
  timer->generation = (timer->generation + 1) & ALOOP__TIMER_GENERATION;
  timers->places[slot] = timers->free;
  timers->free = slot;
  timers->live--;
}

void aloop__timers_init(aloop__timers_t *timers) {
  *timers = (aloop__timers_t){.free = ALOOP__NO_SLOT};
}

void aloop__timers_close(aloop_t *loop) {
  aloop__timers_t *timers = &loop->timers;
  for (uint32_t slot = 0; slot < timers->used; slot++)
    if (timers->slots[slot].state != FREE) aloop__map_clear(loop, &timers->slots[slot].context);
  aloop__memory_release(loop, timers->slots);
  aloop__memory_release(loop, timers->places);
  aloop__memory_release(loop, timers->heap_block);
  aloop__timers_init(timers);
}

ALOOP_INLINE aloop_handle_t put(aloop_t *loop, int64_t when, int64_t period, aloop_callback_fn fn, void *arg,
                                const char *origin) {
  aloop__timers_t *timers = &loop->timers;
  uint32_t slot = take_slot(timers);
  aloop__timer_t *timer = &timers->slots[slot];
  uint32_t order = timers->order++;
  timer->fn = fn;
  timer->arg = arg;
  timer->context = loop->context;
  timer->origin = origin;
  timer->when = when;
  timer->period = period;
  timer->order = order;
  timer->state = WAITING;
  timers->live++;
  sift_up(timers, timers->heap_size++, (aloop__timer_key_t){when, order, slot});
  return (aloop_handle_t){ALOOP__TIMER_BIT | (uint64_t)timer->generation << 32 | slot};
}

/* Everything unusual, out of line so that the usual saves no registers. */
static ALOOP_NOINLINE aloop_handle_t put_slowly(aloop_t *loop, int64_t when, int64_t period,
                                                aloop_callback_fn fn, void *arg, const char *origin) {
  aloop__timers_t *timers = &loop->timers;
  if (is_full(timers) && grow(loop) < 0) return (aloop_handle_t){(uint64_t)-ALOOP_ENOMEM};
  aloop__map_ref(loop->context);
  aloop_handle_t handle = put(loop, when, period, fn, arg, origin);
  if (timers->places[(uint32_t)handle.id] == 0) aloop__loop_armed(loop);
  return handle;
}

aloop_handle_t aloop__timers_add(aloop_t *loop, int64_t when, int64_t period, aloop_callback_fn fn, void *arg,
                                 const char *origin) {
  if (ALOOP_UNLIKELY(is_full(&loop->timers)) || ALOOP_UNLIKELY(loop->context != NULL) ||
      ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_HOOK))
    return put_slowly(loop, when, period, fn, arg, origin);
  return put(loop, when, period, fn, arg, origin);
}

/* Puts keys right whose timers were moved back, until the top is true. */
static void settle(aloop__timers_t *timers) {
  while (timers->heap_size > 0) {
    aloop__timer_key_t key = timers->heap[0];
    const aloop__timer_t *timer = &timers->slots[key.slot];
    if (ALOOP_LIKELY(key.order == timer->order)) return;
    sift_down(timers, 0, (aloop__timer_key_t){timer->when, timer->order, key.slot});
  }
}

int64_t aloop__timers_next(aloop_t *loop) {
  if (loop->timers.heap_size == 0) return ALOOP__NEVER;
  settle(&loop->timers);
  return loop->timers.heap[0].when;
}

static int lag_bucket(int64_t lag) {
  int bucket = 0;
  for (int64_t us = lag / 1000; us > 0 && bucket < ALOOP_LAG_BUCKETS - 1; us >>= 1) bucket++;
  return bucket;
}

/* The next beat after now, on the grid of the last one. */
static int64_t next_beat(const aloop__timer_t *timer, int64_t now) {
  if (timer->period > ALOOP__NEVER - 1 - now) return ALOOP__NEVER - 1;
  int64_t when = timer->when + timer->period;
  if (when <= now) when += (now - when) / timer->period * timer->period + timer->period;
  return when;
}

/* Runs from the ready deque. A timer that runs once is gone before its callback is called, so cancelling it
 * there is a no-op. */
static void fire(aloop_t *loop, void *arg) {
  aloop__timers_t *timers = &loop->timers;
  aloop__timer_t *timer = &timers->slots[(uintptr_t)arg];
  if (loop->tail - loop->head > LOOK_AHEAD) {
    const aloop__entry_t *soon = &loop->ring[(loop->head + LOOK_AHEAD) & loop->mask];
    if (soon->fn == fire) ALOOP_PREFETCH(&timers->slots[(uintptr_t)soon->arg]);
  }
  aloop_callback_fn fn = timer->fn;
  void *user = timer->arg;
  if (timer->period == 0) {
    loop->context = timer->context;
    give_slot(timers, timer);
  } else {
    loop->context = aloop__map_ref(timer->context);
    timer->when = next_beat(timer, aloop__loop_time(loop));
    timer->order = timers->order++;
    timer->state = WAITING;
    heap_add(timers, (uint32_t)(uintptr_t)arg);
  }
  fn(loop, user);
}

/* Whether a timer is due. A key that is not due is left as it is, however stale: a busy connection that pushes
 * its timer back with every request would otherwise pay for putting it right almost as often. */
static bool due(aloop__timers_t *timers, int64_t now) {
  if (timers->heap_size == 0 || timers->heap[0].when > now) return false;
  settle(timers);
  return timers->heap[0].when <= now;
}

/* The next to leave the heap are among the children of the top. Their slots lie anywhere in memory. */
static inline void fetch_next(const aloop__timers_t *timers) {
  for (uint32_t at = 1; at <= ARITY && at < timers->heap_size; at++)
    ALOOP_PREFETCH(&timers->slots[timers->heap[at].slot]);
}

void aloop__timers_queue_due(aloop_t *loop, int64_t now) {
  aloop__timers_t *timers = &loop->timers;
  while (due(timers, now)) {
    uint32_t slot = timers->heap[0].slot;
    aloop__timer_t *timer = &timers->slots[slot];
    if (!aloop__ready_push(loop, fire, (void *)(uintptr_t)slot)) return;
    loop->ring[(loop->tail - 1) & loop->mask].origin = timer->origin;
    timer->entry = (uint32_t)(loop->tail - 1);
    timer->state = READY;
    loop->lag[lag_bucket(now - timer->when)]++;
    heap_remove(timers, 0);
    fetch_next(timers);
  }
}

aloop__timer_t *aloop__timers_find(const aloop_t *loop, aloop_handle_t handle) {
  return aloop__timers_slot(&loop->timers, handle);
}

/* Takes a live timer out of the heap or the deque. */
static void take_out(aloop_t *loop, aloop__timer_t *timer) {
  if (timer->state == WAITING)
    heap_remove(&loop->timers, loop->timers.places[timer - loop->timers.slots]);
  else
    aloop__ready_drop(loop, aloop__ready_at(loop, timer->entry));
}

void aloop__timers_cancel(aloop_t *loop, aloop__timer_t *timer) {
  aloop__map_t *context = timer->context;
  take_out(loop, timer);
  give_slot(&loop->timers, timer);
  if (ALOOP_UNLIKELY(context != NULL)) aloop__map_unref(loop, context); /* last: destructors may make timers */
}

void aloop__timers_move(aloop_t *loop, aloop__timer_t *timer, int64_t when) {
  aloop__timers_t *timers = &loop->timers;
  uint32_t slot = (uint32_t)(timer - timers->slots);
  bool later = timer->state == WAITING && when >= timers->heap[timers->places[slot]].when;
  if (!later) take_out(loop, timer);
  timer->when = when;
  timer->order = timers->order++;
  if (later) return;
  timer->state = WAITING;
  heap_add(timers, slot);
  if (timers->places[slot] == 0) aloop__loop_armed(loop);
}

bool aloop__timers_check(const aloop__timers_t *timers) {
  for (uint32_t at = 0; at < timers->heap_size; at++) {
    const aloop__timer_key_t *key = &timers->heap[at];
    const aloop__timer_t *timer = &timers->slots[key->slot];
    if (at > 0 && before(key, &timers->heap[(at - 1) / ARITY])) return false;
    if (timers->places[key->slot] != at || timer->state != WAITING || key->when > timer->when) return false;
  }
  return timers->heap_size <= timers->live && timers->live <= timers->used;
}
