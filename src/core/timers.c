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
 *   the heap is then too early; it is put right when it comes to the top, because key <= true deadline always
 *   holds.
 * - A due timer leaves the heap and waits in the ready deque like any callback; cancelling it there drops the
 *   deque entry.
 * - A repeating timer goes back into the heap before its callback runs, on the grid of its first deadline;
 *   beats that were missed are skipped, so a stalled loop does not catch up in a burst.
 *
 * Slots are recycled with a new generation, and a handle is (generation, slot): a stale handle finds nothing.
 * When the ready deque cannot grow, due timers stay in the heap and are tried again next turn.
 */
#include "core/timers.h"

#include "core/clock.h"
#include "core/loop.h"
#include "core/memory.h"

enum { FREE, WAITING, READY };
enum { ARITY = 4, FIRST_CAPACITY = 16 };

/* The top bit tells timer handles from positions of the deque. */
#define TIMER_BIT (UINT64_C(1) << 63)
#define GENERATION_MASK UINT32_C(0x7fffffff)

static bool before(const aloop__timer_key_t *a, const aloop__timer_key_t *b) {
  return (a->when < b->when) | ((a->when == b->when) & ((int32_t)(a->order - b->order) < 0));
}

static void place(aloop__timers_t *timers, uint32_t at, aloop__timer_key_t key) {
  timers->heap[at] = key;
  timers->places[key.slot] = at;
}

static void sift_up(aloop__timers_t *timers, uint32_t at, aloop__timer_key_t key) {
  while (at > 0) {
    uint32_t parent = (at - 1) / ARITY;
    if (!before(&key, &timers->heap[parent])) break;
    place(timers, at, timers->heap[parent]);
    at = parent;
  }
  place(timers, at, key);
}

/* The first of up to four children. Written so that the compiler selects instead of jumping: the outcome is
 * random. */
static uint32_t first_child(const aloop__timer_key_t *heap, uint32_t child, uint32_t size) {
  if (child + ARITY <= size) {
    uint32_t left = child + (uint32_t)before(&heap[child + 1], &heap[child]);
    uint32_t right = child + 2 + (uint32_t)before(&heap[child + 3], &heap[child + 2]);
    return before(&heap[right], &heap[left]) ? right : left;
  }
  uint32_t best = child;
  for (uint32_t other = child + 1; other < size; other++)
    if (before(&heap[other], &heap[best])) best = other;
  return best;
}

static void sift_down(aloop__timers_t *timers, uint32_t at, aloop__timer_key_t key) {
  uint32_t size = timers->heap_size;
  for (;;) {
    uint32_t child = at * ARITY + 1;
    if (child >= size) break;
    child = first_child(timers->heap, child, size);
    if (!before(&timers->heap[child], &key)) break;
    place(timers, at, timers->heap[child]);
    at = child;
  }
  place(timers, at, key);
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
  void *heap = aloop__memory_resize(loop, timers->heap, capacity * sizeof *timers->heap);
  if (heap == NULL) return ALOOP_ENOMEM;
  timers->heap = heap;
  timers->capacity = (uint32_t)capacity;
  return 0;
}

/* A slot nobody uses, or ALOOP__NO_SLOT. */
static uint32_t take_slot(aloop_t *loop) {
  aloop__timers_t *timers = &loop->timers;
  uint32_t slot = timers->free;
  if (slot != ALOOP__NO_SLOT) {
    timers->free = timers->places[slot];
    return slot;
  }
  if (timers->used == timers->capacity && grow(loop) < 0) return ALOOP__NO_SLOT;
  slot = timers->used++;
  timers->slots[slot].generation = 0;
  return slot;
}

static void give_slot(aloop__timers_t *timers, aloop__timer_t *timer) {
  uint32_t slot = (uint32_t)(timer - timers->slots);
  timer->state = FREE;
  timer->generation = (timer->generation + 1) & GENERATION_MASK;
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
    if (timers->slots[slot].state != FREE) aloop__map_unref(loop, timers->slots[slot].context);
  aloop__memory_release(loop, timers->slots);
  aloop__memory_release(loop, timers->places);
  aloop__memory_release(loop, timers->heap);
  aloop__timers_init(timers);
}

aloop_handle_t aloop__timers_add(aloop_t *loop, int64_t when, int64_t period, aloop_callback_fn fn, void *arg,
                                 const char *origin) {
  aloop__timers_t *timers = &loop->timers;
  uint32_t slot = take_slot(loop);
  if (ALOOP_UNLIKELY(slot == ALOOP__NO_SLOT)) return (aloop_handle_t){(uint64_t)-ALOOP_ENOMEM};
  aloop__timer_t *timer = &timers->slots[slot];
  timer->fn = fn;
  timer->arg = arg;
  timer->context = aloop__map_ref(loop->context);
  timer->origin = origin;
  timer->when = when;
  timer->period = period;
  timer->order = timers->order++;
  timer->state = WAITING;
  timers->live++;
  heap_add(timers, slot);
  if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_HOOK) && timers->places[slot] == 0) aloop__loop_armed(loop);
  return (aloop_handle_t){TIMER_BIT | (uint64_t)timer->generation << 32 | slot};
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
  int64_t when = timer->when + timer->period;
  if (when <= now) when += (now - when) / timer->period * timer->period + timer->period;
  return when;
}

/* Runs from the ready deque. A timer that runs once is gone before its callback is called, so cancelling it
 * there is a no-op. */
static void fire(aloop_t *loop, void *arg) {
  aloop__timers_t *timers = &loop->timers;
  aloop__timer_t *timer = &timers->slots[(uintptr_t)arg];
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

/* Whether a timer is due. A key that is not due is left as it is, however stale: a busy connection that pushes its
 * timer back with every request would otherwise pay for putting it right almost as often. */
static bool due(aloop__timers_t *timers, int64_t now) {
  if (timers->heap_size == 0 || timers->heap[0].when > now) return false;
  settle(timers);
  return timers->heap[0].when <= now;
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
  }
}

aloop__timer_t *aloop__timers_find(const aloop_t *loop, aloop_handle_t handle) {
  uint32_t slot = (uint32_t)handle.id;
  uint32_t generation = (uint32_t)(handle.id >> 32) & GENERATION_MASK;
  if ((handle.id & TIMER_BIT) == 0 || slot >= loop->timers.used) return NULL;
  aloop__timer_t *timer = &loop->timers.slots[slot];
  return timer->state != FREE && timer->generation == generation ? timer : NULL;
}

/* Takes a live timer out of the heap or the deque. */
static void take_out(aloop_t *loop, aloop__timer_t *timer) {
  if (timer->state == WAITING)
    heap_remove(&loop->timers, loop->timers.places[timer - loop->timers.slots]);
  else
    aloop__ready_drop(loop, aloop__ready_at(loop, timer->entry));
}

void aloop__timers_cancel(aloop_t *loop, aloop__timer_t *timer) {
  take_out(loop, timer);
  aloop__map_unref(loop, timer->context);
  give_slot(&loop->timers, timer);
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
