/* SPDX-License-Identifier: MIT
 *
 * Timers. What a timer is lies in arrays of one capacity, by slot: 16 bytes that are looked at often (deadline,
 * order, generation), what is to be called, where its key is in the heap, and, made when first needed, what few
 * timers have (context, period). The heap is 4-ary and holds 16-byte keys (deadline, order, slot), so sifting
 * touches no more than one cache line per level and an array of places.
 *
 * - Order: by deadline, then by a 32-bit number given when the timer was made or moved, compared with
 *   wrap-around: first made, first run among equals.
 * - Adding is O(1): new keys wait behind the heap in the same array until somebody asks for the next deadline.
 *   Then they go in one by one, O(log n), or, when they are more than the heap, all at once, O(n).
 * - Cancelling is O(1): the slot is free at once, and its key stays where it is until its time comes, or the
 *   slot is used again. The next timer in that slot takes the key over, which is O(1) too if its deadline is
 *   not earlier or the key is still new. So starting and stopping a timer again and again leaves no more in the
 *   heap than one key per slot; and nothing when the last timer goes.
 * - Moving a deadline back (the idle timeout of a busy connection) is O(1): only the slot changes. The key in
 *   the heap is then too early; it is put right when that moment comes, because key <= true deadline always
 *   holds. With few timers this costs 7 ns, and 4.5 noting a number in an array, which is all that a program
 *   does that knows its timers to be alive. With 100 000 that are used at random it is 17 ns to 4.5: handles
 *   and slots are 2.4 MB, more than the second cache. The least program with such handles and slots, and no
 *   call in between, takes 9 to 10; it has half of the 59 instructions, so more of its waits for memory
 *   overlap. Generations in an array of their own would save it 1 or 2 ns, but only while no old deadline is
 *   looked at.
 * - A due timer leaves the heap and waits in the ready deque like any callback; cancelling it there drops the
 *   deque entry.
 * - A repeating timer goes back into the heap before its callback runs, on the grid of its first deadline;
 *   beats that were missed are skipped, so a stalled loop does not catch up in a burst.
 *
 * A million timers do not fit into any cache, so what bounds their speed is waiting for memory: the children of
 * a heap node lie in one cache line, those of its children are fetched while the first of them is looked for,
 * and slots are fetched a little before they are needed. Addresses instead of numbers on the way down the heap
 * were tried: 485 instructions for a timer that fires instead of 487. Sorting by digits what is due together,
 * for fewer instructions than the heap, would take 109 ns for each of a million, where all of firing takes 175
 * to 220.
 *
 * Slots are recycled with a new generation, and a handle is (generation, slot): a stale handle finds nothing.
 * When the ready deque cannot grow, due timers stay in the heap and are tried again next turn.
 */
#include "core/timers.h"

#include "core/clock.h"
#include "core/loop.h"
#include "core/memory.h"

#include <string.h>

enum { ARITY = 4, FIRST_CAPACITY = 16, CACHE_LINE = 64, LOOK_AHEAD = 8 };

#define HAS_EXTRA (~ALOOP__TIMER_GENERATION)

static inline uint32_t slot_of(const aloop__timers_t *timers, const aloop__timer_t *timer) {
  return (uint32_t)(timer - timers->slots);
}

static inline bool has_extra(const aloop__timer_t *timer) {
  return (timer->generation & HAS_EXTRA) != 0;
}

static inline bool before(const aloop__timer_key_t *a, const aloop__timer_key_t *b) {
  if (ALOOP_LIKELY(a->when != b->when)) return a->when < b->when;
  return (int32_t)(a->order - b->order) < 0;
}

static inline void place(aloop__timers_t *timers, size_t at, const aloop__timer_key_t *key) {
  timers->heap[at] = *key;
  timers->places[key->slot] = (uint32_t)at;
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

static ALOOP_NOINLINE const aloop__timer_key_t *first_of(const aloop__timer_key_t *key,
                                                         const aloop__timer_key_t *end) {
  const aloop__timer_key_t *first = key;
  while (++key < end)
    if (before(key, first)) first = key;
  return first;
}

/* The first of four brothers. Written so that the compiler selects instead of jumping: the outcome is random.
 * Equal deadlines are rare. */
static inline const aloop__timer_key_t *first_of_four(const aloop__timer_key_t *key) {
  int64_t a = key[0].when, b = key[1].when, c = key[2].when, d = key[3].when;
  if (ALOOP_UNLIKELY(a == b)) return first_of(key, key + 4);
  const aloop__timer_key_t *left = b < a ? key + 1 : key;
  a = b < a ? b : a;
  if (ALOOP_UNLIKELY(c == d)) return first_of(key, key + 4);
  const aloop__timer_key_t *right = d < c ? key + 3 : key + 2;
  c = d < c ? d : c;
  if (ALOOP_UNLIKELY(a == c)) return first_of(key, key + 4);
  return c < a ? right : left;
}

/* Always inlined: gcc takes a function that only fetches for one without effect, and drops its calls.
 *
 * The lines of all grandchildren, while it is not known yet which children come first: so the waits for memory
 * of two levels overlap. */
ALOOP_INLINE void fetch_grandchildren(const aloop__timer_key_t *heap, const aloop__timer_key_t *child) {
  const aloop__timer_key_t *grandchild = heap + (size_t)(child - heap) * ARITY + 1;
  for (int i = 0; i < ARITY; i++) ALOOP_PREFETCH(grandchild + i * ARITY);
}

static void sift_down(aloop__timers_t *timers, size_t at, aloop__timer_key_t key) {
  const aloop__timer_key_t *heap = timers->heap, *end = heap + timers->heap_size;
  for (const aloop__timer_key_t *child; (child = heap + at * ARITY + 1) < end; at = (size_t)(child - heap)) {
    fetch_grandchildren(heap, child);
    child = child + ARITY <= end ? first_of_four(child) : first_of(child, end);
    if (!before(child, &key)) break;
    place(timers, at, child);
  }
  place(timers, at, &key);
}

/* New keys go to where the order asks for them: one by one if they are few; else the heap is made anew, from
 * its last parent to its first, which is O(n). */
static ALOOP_NOINLINE void sort_new(aloop__timers_t *timers) {
  uint32_t parents = (timers->heap_size + ARITY - 2) / ARITY;
  if (timers->heap_size - timers->sorted > timers->sorted)
    for (uint32_t at = parents; at-- > 0;) sift_down(timers, at, timers->heap[at]);
  else
    for (uint32_t at = timers->sorted; at < timers->heap_size; at++) sift_up(timers, at, timers->heap[at]);
  timers->sorted = timers->heap_size;
}

static inline void sort(aloop__timers_t *timers) {
  if (timers->sorted < timers->heap_size) sort_new(timers);
}

/* What will be needed soon lies anywhere in memory. */
ALOOP_INLINE void fetch_slot(const aloop__timers_t *timers, uint32_t slot) {
  ALOOP_PREFETCH(&timers->slots[slot]);
}

/* The first of the children of a parent that has all four takes its place. Returns where that was. */
static inline size_t raise_child(aloop__timers_t *timers, size_t at) {
  const aloop__timer_key_t *heap = timers->heap, *child = heap + at * ARITY + 1;
  fetch_grandchildren(heap, child);
  child = first_of_four(child);
  place(timers, at, child);
  return (size_t)(child - heap);
}

/* The hole at the top sinks to a leaf and takes the last key: that nearly always belongs near the leaves, so
 * asking on each level whether it does would be in vain. The children of the top will leave next, and one of
 * them is new. */
static void heap_remove_top(aloop__timers_t *timers) {
  const aloop__timer_key_t *heap = timers->heap;
  size_t size = timers->sorted = --timers->heap_size;
  timers->places[heap->slot] = ALOOP__NO_PLACE;
  if (size == 0) return;
  size_t full = (size - 1) / ARITY, next = full > 0 ? raise_child(timers, 0) : 0, at = next;
  while (at < full) at = raise_child(timers, at);
  if (at * ARITY + 1 < size) {
    const aloop__timer_key_t *child = first_of(heap + at * ARITY + 1, heap + size);
    place(timers, at, child);
    at = (size_t)(child - heap);
  }
  sift_up(timers, (uint32_t)at, heap[size]);
  fetch_slot(timers, heap[next].slot);
}

/* No timer is left, so what is in the heap belongs to none. */
static ALOOP_NOINLINE void heap_clear(aloop__timers_t *timers) {
  for (uint32_t at = 0; at < timers->heap_size; at++) timers->places[timers->heap[at].slot] = ALOOP__NO_PLACE;
  timers->heap_size = timers->sorted = 0;
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

/* `array` is the address of a pointer. */
static bool grow_array(aloop_t *loop, void *array, size_t bytes) {
  void *old;
  memcpy(&old, array, sizeof old);
  void *larger = aloop__memory_resize(loop, old, bytes);
  if (larger != NULL) memcpy(array, &larger, sizeof larger);
  return larger != NULL;
}

static bool grow_extras(aloop_t *loop, size_t capacity) {
  return grow_array(loop, &loop->timers.extras, capacity * sizeof *loop->timers.extras);
}

static int grow(aloop_t *loop) {
  aloop__timers_t *timers = &loop->timers;
  size_t capacity = timers->capacity == 0 ? FIRST_CAPACITY : timers->capacity + (size_t)timers->capacity / 2;
  if (capacity > UINT32_MAX / 2) return ALOOP_ENOMEM;
  if (loop->lag == NULL) loop->lag = aloop__memory_zero(loop, ALOOP_LAG_BUCKETS * sizeof *loop->lag);
  if (loop->lag == NULL) return ALOOP_ENOMEM;
  if (!grow_array(loop, &timers->slots, capacity * sizeof *timers->slots)) return ALOOP_ENOMEM;
  if (!grow_array(loop, &timers->calls, capacity * sizeof *timers->calls)) return ALOOP_ENOMEM;
  if (!grow_array(loop, &timers->places, capacity * sizeof *timers->places)) return ALOOP_ENOMEM;
  if (timers->extras != NULL && !grow_extras(loop, capacity)) return ALOOP_ENOMEM;
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
    timers->free = timers->slots[slot].next_free;
    return slot;
  }
  slot = timers->used++;
  timers->slots[slot].generation = 0;
  timers->places[slot] = ALOOP__NO_PLACE;
  return slot;
}

static inline void give_slot(aloop__timers_t *timers, aloop__timer_t *timer) {
  timer->when = ALOOP__TIMER_FREE;
  timer->generation = (timer->generation + 1) & ALOOP__TIMER_GENERATION;
  timer->next_free = timers->free;
  timers->free = slot_of(timers, timer);
  if (--timers->live == 0 && timers->heap_size > 0) heap_clear(timers);
}

/* The key of a timer gets its deadline, which is earlier. */
static ALOOP_NOINLINE void advance(aloop__timers_t *timers, uint32_t slot) {
  aloop__timer_key_t key = {timers->slots[slot].when, timers->slots[slot].order, slot};
  uint32_t at = timers->places[slot];
  if (at < timers->sorted)
    sift_up(timers, at, key);
  else
    place(timers, at, &key);
}

/* Sets the deadline of a timer that is to wait, and puts a key into the heap if it has none there. Returns
 * whether the one that it has is too late. */
static inline bool set_deadline(aloop__timers_t *timers, uint32_t slot, int64_t when) {
  uint32_t at = timers->places[slot], order = timers->order++;
  timers->slots[slot].when = when;
  timers->slots[slot].order = order;
  if (ALOOP_UNLIKELY(at != ALOOP__NO_PLACE)) return when < timers->heap[at].when;
  aloop__timer_key_t key = {when, order, slot};
  place(timers, timers->heap_size++, &key);
  return false;
}

static void wait_until(aloop__timers_t *timers, uint32_t slot, int64_t when) {
  if (set_deadline(timers, slot, when)) advance(timers, slot);
}

/* A host is told if this timer is the next. */
static void tell_host(aloop_t *loop, uint32_t slot) {
  if ((loop->guard & ALOOP__GUARD_HOOK) == 0) return;
  sort(&loop->timers);
  if (loop->timers.places[slot] == 0) aloop__loop_armed(loop);
}

void aloop__timers_init(aloop__timers_t *timers) {
  *timers = (aloop__timers_t){.free = ALOOP__NO_SLOT};
}

void aloop__timers_close(aloop_t *loop) {
  aloop__timers_t *timers = &loop->timers;
  for (uint32_t slot = 0; slot < timers->used; slot++)
    if (has_extra(&timers->slots[slot])) aloop__map_clear(loop, &timers->extras[slot].context);
  aloop__memory_release(loop, timers->slots);
  aloop__memory_release(loop, timers->calls);
  aloop__memory_release(loop, timers->extras);
  aloop__memory_release(loop, timers->places);
  aloop__memory_release(loop, timers->heap_block);
  aloop__timers_init(timers);
}

static inline aloop_handle_t handle_of(const aloop__timers_t *timers, uint32_t slot) {
  return (aloop_handle_t){ALOOP__TIMER_BIT | (uint64_t)timers->slots[slot].generation << 32 | slot};
}

static inline void set_call(aloop__timers_t *timers, uint32_t slot, aloop_callback_fn fn, void *arg,
                            const char *origin) {
  timers->calls[slot] = (aloop__timer_call_t){fn, arg, origin};
  timers->live++;
}

aloop_handle_t aloop__timers_add(aloop_t *loop, int64_t when, int64_t period, aloop_callback_fn fn, void *arg,
                                 const char *origin) {
  aloop__timers_t *timers = &loop->timers;
  bool extra = period != 0 || loop->context != NULL;
  if ((is_full(timers) && grow(loop) < 0) ||
      (extra && timers->extras == NULL && !grow_extras(loop, timers->capacity)))
    return (aloop_handle_t){(uint64_t)-ALOOP_ENOMEM};
  uint32_t slot = take_slot(timers);
  set_call(timers, slot, fn, arg, origin);
  wait_until(timers, slot, when);
  aloop_handle_t handle = handle_of(timers, slot);
  if (extra) {
    timers->extras[slot] = (aloop__timer_extra_t){aloop__map_ref(loop->context), period};
    timers->slots[slot].generation |= HAS_EXTRA;
  }
  tell_host(loop, slot);
  return handle;
}

/* The key that a new timer has found is too late. */
static ALOOP_NOINLINE aloop_handle_t advance_new(aloop__timers_t *timers, uint32_t slot) {
  advance(timers, slot);
  return handle_of(timers, slot);
}

/* Nothing is called here that returns, and what was given is put away first: so no registers are saved. */
aloop_handle_t aloop__timers_add_usual(aloop_t *loop, int64_t when, aloop_callback_fn fn, void *arg,
                                       const char *origin) {
  aloop__timers_t *timers = &loop->timers;
  uint32_t slot = timers->free;
  if (ALOOP_UNLIKELY(slot == ALOOP__NO_SLOT) || ALOOP_UNLIKELY(loop->context != NULL))
    return aloop__timers_add(loop, when, 0, fn, arg, origin);
  set_call(timers, slot, fn, arg, origin);
  timers->free = timers->slots[slot].next_free;
  if (ALOOP_UNLIKELY(set_deadline(timers, slot, when))) return advance_new(timers, slot);
  return handle_of(timers, slot);
}

/* Whether the top of the heap is the key of a timer as it is now. */
static inline bool top_is_true(const aloop__timers_t *timers) {
  const aloop__timer_key_t *key = &timers->heap[0];
  const aloop__timer_t *timer = &timers->slots[key->slot];
  return ALOOP_LIKELY(timer->when == key->when) && ALOOP_LIKELY(timer->order == key->order);
}

/* Puts the top right if its timer was moved back, and drops it if its timer was cancelled. */
static ALOOP_NOINLINE void settle_top(aloop__timers_t *timers) {
  uint32_t slot = timers->heap[0].slot;
  const aloop__timer_t *timer = &timers->slots[slot];
  if (timer->when == ALOOP__TIMER_FREE)
    heap_remove_top(timers);
  else
    sift_down(timers, 0, (aloop__timer_key_t){timer->when, timer->order, slot});
}

int64_t aloop__timers_next(aloop_t *loop) {
  sort(&loop->timers);
  while (loop->timers.heap_size > 0 && !top_is_true(&loop->timers)) settle_top(&loop->timers);
  return loop->timers.heap_size > 0 ? loop->timers.heap[0].when : ALOOP__NEVER;
}

/* The number of bits of the lag in microseconds. Timers that are due together are about as late, so that of the
 * last one is a good guess. */
static inline int lag_bucket(int64_t lag, int guess) {
  while (guess > 0 && lag < INT64_C(500) << guess) guess--;
  while (guess < ALOOP_LAG_BUCKETS - 1 && lag >= INT64_C(1000) << guess) guess++;
  return guess;
}

/* The next beat after now, on the grid of the last one. */
static int64_t next_beat(int64_t last, int64_t period, int64_t now) {
  if (period > ALOOP__NEVER - 1 - now) return ALOOP__NEVER - 1;
  int64_t when = last + period;
  if (when <= now) when += (now - when) / period * period + period;
  return when;
}

/* A timer with a context or a period is about to be called. */
static ALOOP_NOINLINE void fire_extra(aloop_t *loop, aloop__timer_t *timer) {
  aloop__timers_t *timers = &loop->timers;
  uint32_t slot = slot_of(timers, timer);
  const aloop__timer_extra_t *extra = &timers->extras[slot];
  loop->context = extra->context;
  if (extra->period == 0) {
    give_slot(timers, timer);
    return;
  }
  aloop__map_ref(loop->context);
  wait_until(timers, slot, next_beat(aloop__timer_when(timer), extra->period, aloop__loop_time(loop)));
}

/* Runs from the ready deque. A timer that runs once is gone before its callback is called, so cancelling it
 * there is a no-op. */
static void fire(aloop_t *loop, void *arg) {
  aloop__timers_t *timers = &loop->timers;
  uint32_t slot = (uint32_t)(uintptr_t)arg;
  if (loop->tail - loop->head > LOOK_AHEAD) {
    const aloop__entry_t *soon = &loop->ring[(loop->head + LOOK_AHEAD) & loop->mask];
    if (soon->fn == fire) {
      fetch_slot(timers, (uint32_t)(uintptr_t)soon->arg);
      ALOOP_PREFETCH(&timers->calls[(uint32_t)(uintptr_t)soon->arg]);
    }
  }
  aloop__timer_call_t call = timers->calls[slot];
  aloop__timer_t *timer = &timers->slots[slot];
  if (ALOOP_UNLIKELY(has_extra(timer)))
    fire_extra(loop, timer);
  else
    give_slot(timers, timer);
  call.fn(loop, call.arg);
}

const char *aloop__timers_origin(const aloop_t *loop, const struct aloop__entry *entry) {
  return entry->fn == fire ? loop->timers.calls[(uint32_t)(uintptr_t)entry->arg].origin : entry->origin;
}

/* A key that is not due is left as it is, however stale: a busy connection that pushes its timer back with
 * every request would otherwise pay for putting it right almost as often. */
void aloop__timers_queue_due(aloop_t *loop, int64_t now) {
  aloop__timers_t *timers = &loop->timers;
  int bucket = 0;
  sort(timers);
  while (timers->heap_size > 0 && timers->heap[0].when <= now) {
    if (ALOOP_UNLIKELY(!top_is_true(timers))) {
      settle_top(timers);
      continue;
    }
    uint32_t slot = timers->heap[0].slot;
    aloop__timer_t *timer = &timers->slots[slot];
    if (!aloop__ready_push(loop, fire, (void *)(uintptr_t)slot)) return;
    bucket = lag_bucket(now - timer->when, bucket);
    loop->lag[bucket]++;
    timer->entry = (uint32_t)(loop->tail - 1);
    timer->when = ~timer->when;
    heap_remove_top(timers);
  }
}

aloop__timer_t *aloop__timers_find(const aloop_t *loop, aloop_handle_t handle) {
  return aloop__timers_slot(&loop->timers, handle);
}

/* The deque of a loop that is being closed has no entry any more. */
static void leave_deque(aloop_t *loop, const aloop__timer_t *timer) {
  aloop__entry_t *entry = timer->when < 0 ? aloop__ready_at(loop, timer->entry) : NULL;
  if (entry != NULL) aloop__ready_drop(loop, entry);
}

void aloop__timers_cancel(aloop_t *loop, aloop__timer_t *timer) {
  aloop__timers_t *timers = &loop->timers;
  aloop__map_t *context = NULL;
  if (ALOOP_UNLIKELY(has_extra(timer))) context = timers->extras[slot_of(timers, timer)].context;
  leave_deque(loop, timer);
  give_slot(timers, timer);
  if (ALOOP_UNLIKELY(context != NULL)) aloop__map_unref(loop, context); /* last: destructors may make timers */
}

void aloop__timers_move(aloop_t *loop, aloop__timer_t *timer, int64_t when) {
  if (aloop__timers_push_back(&loop->timers, timer, when)) return;
  uint32_t slot = slot_of(&loop->timers, timer);
  leave_deque(loop, timer);
  wait_until(&loop->timers, slot, when);
  tell_host(loop, slot);
}

void aloop__timers_each(const aloop__timers_t *timers, aloop__timer_fn fn, void *user) {
  for (uint32_t slot = 0; slot < timers->used; slot++) {
    const aloop__timer_t *timer = &timers->slots[slot];
    int64_t period = has_extra(timer) ? timers->extras[slot].period : 0;
    if (timer->when >= 0) fn(user, timer->when, period, timers->calls[slot].origin);
  }
}

/* Every key has its place, and is not later than its timer, if it has one. */
static bool check_heap(const aloop__timers_t *timers) {
  for (uint32_t at = 0; at < timers->heap_size; at++) {
    const aloop__timer_key_t *key = &timers->heap[at];
    int64_t when = timers->slots[key->slot].when;
    if (at > 0 && at < timers->sorted && before(key, &timers->heap[(at - 1) / ARITY])) return false;
    if (timers->places[key->slot] != at) return false;
    if (when != ALOOP__TIMER_FREE && key->when > when) return false;
  }
  return true;
}

bool aloop__timers_check(const aloop__timers_t *timers) {
  uint32_t live = 0, keys = 0;
  for (uint32_t slot = 0; slot < timers->used; slot++) {
    bool has_key = timers->places[slot] != ALOOP__NO_PLACE;
    if (timers->slots[slot].when >= 0 && !has_key) return false;
    live += timers->slots[slot].when != ALOOP__TIMER_FREE;
    keys += has_key;
  }
  return live == timers->live && keys == timers->heap_size && (live > 0 || keys == 0) && check_heap(timers);
}
