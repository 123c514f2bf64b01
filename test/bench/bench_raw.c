/* SPDX-License-Identifier: MIT
 *
 * The limit: no library, only what each task needs. A ring of callbacks; a 4-ary heap of deadlines with the
 * position of each timer beside it; an array under a mutex plus an eventfd for other threads. A general event loop
 * cannot be faster than this by much; the question is how near it comes.
 */
#include "bench.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

const char *const peer_name = "raw";

/* ---- Callbacks: a ring ----------------------------------------------------------------------------------- */

enum { RING = 65536 };

typedef struct ring {
  bench_call_t calls[RING];
  uint32_t head, tail;
  long left;
} ring_t;

static ring_t ring;

static void ring_put(void (*fn)(void *), void *arg) {
  ring.calls[ring.tail++ % RING] = (bench_call_t){fn, arg};
}

static void ring_run(void) {
  while (ring.head != ring.tail) {
    bench_call_t call = ring.calls[ring.head++ % RING];
    call.fn(call.arg);
  }
}

static void link_of_chain(void *arg) {
  if (--ring.left > 0) ring_put(link_of_chain, arg);
}

int64_t peer_chain(long count) {
  ring.left = count;
  int64_t start = bench_cpu();
  ring_put(link_of_chain, NULL);
  ring_run();
  return bench_cpu() - start;
}

static void count_down(void *arg) {
  long *left = arg;
  --*left;
}

int64_t peer_burst(long size, long rounds) {
  ring.left = size * rounds;
  int64_t start = bench_cpu();
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < size; i++) ring_put(count_down, &ring.left);
    ring_run();
  }
  return ring.left == 0 ? bench_cpu() - start : -1;
}

/* ---- Timers: a 4-ary heap -------------------------------------------------------------------------------- */

typedef struct entry {
  int64_t when;
  uint32_t timer;
} entry_t;

typedef struct heap {
  entry_t *block, *entries; /* entries[1], [5], [9] begin a cache line: four brothers share one */
  uint32_t *places;         /* of each timer in entries */
  uint32_t count;
} heap_t;

static heap_t heap_new(long room) {
  size_t bytes = ((size_t)room + 3) * sizeof(entry_t);
  entry_t *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (block == NULL) bench_die("aligned_alloc");
  memset(block, 0, bytes);
  return (heap_t){.block = block, .entries = block + 3, .places = bench_alloc((size_t)room * sizeof(uint32_t))};
}

static void heap_free(heap_t *heap) {
  free(heap->block);
  free(heap->places);
}

static void heap_place(heap_t *heap, uint32_t place, entry_t entry) {
  heap->entries[place] = entry;
  heap->places[entry.timer] = place;
}

static void heap_up(heap_t *heap, uint32_t place, entry_t entry) {
  while (place > 0) {
    uint32_t parent = (place - 1) / 4;
    if (heap->entries[parent].when <= entry.when) break;
    heap_place(heap, place, heap->entries[parent]);
    place = parent;
  }
  heap_place(heap, place, entry);
}

static void heap_down(heap_t *heap, uint32_t place, entry_t entry) {
  for (;;) {
    uint32_t first = place * 4 + 1, end = first + 4;
    if (first >= heap->count) break;
    if (end > heap->count) end = heap->count;
    uint32_t least = first;
    for (uint32_t i = first + 1; i < end; i++)
      if (heap->entries[i].when < heap->entries[least].when) least = i;
    if (entry.when <= heap->entries[least].when) break;
    heap_place(heap, place, heap->entries[least]);
    place = least;
  }
  heap_place(heap, place, entry);
}

static void heap_insert(heap_t *heap, int64_t when, uint32_t timer) {
  heap_up(heap, heap->count++, (entry_t){when, timer});
}

static void heap_remove(heap_t *heap, uint32_t place) {
  entry_t last = heap->entries[--heap->count];
  if (place == heap->count) return;
  if (place > 0 && last.when < heap->entries[(place - 1) / 4].when)
    heap_up(heap, place, last);
  else
    heap_down(heap, place, last);
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  heap_t heap = heap_new(count);
  for (long round = 0; round < rounds; round++) {
    int64_t start = bench_cpu();
    for (long i = 0; i < count; i++) heap_insert(&heap, start + delays[i], (uint32_t)i);
    int64_t middle = bench_cpu();
    for (long i = 0; i < count; i++) heap_remove(&heap, heap.places[i]);
    inserts[round] = middle - start;
    cancels[round] = bench_cpu() - middle;
  }
  heap_free(&heap);
}

static void fire_due(heap_t *heap, const bench_call_t *calls, int64_t now) {
  while (heap->count > 0 && heap->entries[0].when <= now) {
    const bench_call_t *call = &calls[heap->entries[0].timer];
    heap_remove(heap, 0);
    call->fn(call->arg);
  }
}

void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) {
  heap_t heap = heap_new(count);
  long left;
  bench_call_t *calls = bench_alloc((size_t)count * sizeof *calls);
  for (long i = 0; i < count; i++) calls[i] = (bench_call_t){count_down, &left};
  for (long round = 0; round < rounds; round++) {
    int64_t now = bench_now(), last = 0;
    left = count;
    for (long i = 0; i < count; i++) {
      heap_insert(&heap, now + delays[i], (uint32_t)i);
      if (now + delays[i] > last) last = now + delays[i];
    }
    bench_sleep_until(last + 1000000);
    int64_t start = bench_cpu();
    fire_due(&heap, calls, bench_now());
    times[round] = bench_cpu() - start;
    if (left != 0) bench_die("not every timer was called");
  }
  heap_free(&heap);
  free(calls);
}

/* Pushing back only notes the new deadline; a timer that reaches the top of the heap too early is moved then.
 */
int64_t peer_rearm(long timers, int64_t timeout, long total, const uint32_t *order) {
  heap_t heap = heap_new(timers);
  int64_t *deadlines = bench_alloc((size_t)timers * sizeof *deadlines);
  for (long i = 0; i < timers; i++) heap_insert(&heap, deadlines[i] = bench_now() + timeout, (uint32_t)i);
  int64_t start = bench_cpu(), now = 0;
  for (long i = 0; i < total; i++) {
    if (i % 1000 == 0) now = bench_now();
    while (heap.entries[0].when <= now)
      heap_down(&heap, 0, (entry_t){deadlines[heap.entries[0].timer], heap.entries[0].timer});
    deadlines[order[i % timers]] = now + timeout;
  }
  int64_t took = bench_cpu() - start;
  heap_free(&heap);
  free(deadlines);
  return took;
}

int64_t peer_restart(long timers, int64_t timeout, long total, const uint32_t *order) {
  heap_t heap = heap_new(timers);
  for (long i = 0; i < timers; i++) heap_insert(&heap, bench_now() + timeout, (uint32_t)i);
  int64_t start = bench_cpu(), now = 0;
  for (long i = 0; i < total; i++) {
    if (i % 1000 == 0) now = bench_now();
    uint32_t timer = order[i % timers];
    heap_remove(&heap, heap.places[timer]);
    heap_insert(&heap, now + timeout, timer);
  }
  int64_t took = bench_cpu() - start;
  heap_free(&heap);
  return took;
}

/* Nobody needs to know the heap, except that it stays. */
void peer_make_timers(void *loop, long count) {
  static heap_t heap;
  static bench_call_t *calls;
  (void)loop;
  heap = heap_new(count);
  calls = bench_alloc((size_t)count * sizeof *calls);
  for (long i = 0; i < count; i++) {
    calls[i] = (bench_call_t){count_down, NULL};
    heap_insert(&heap, i, (uint32_t)i);
  }
}

/* ---- Posts ----------------------------------------------------------------------------------------------- */

typedef struct posts {
  bench_mailbox_t mailbox;
  int wake;
  long left;
} posts_t;

static void post(void *user) {
  posts_t *posts = user;
  uint64_t one = 1;
  if (bench_mailbox_put(&posts->mailbox, count_down, &posts->left))
    if (write(posts->wake, &one, sizeof one) != sizeof one) bench_die("eventfd");
}

void peer_posts(int producers, long count, long rounds, int64_t *times) {
  posts_t posts = {.wake = eventfd(0, EFD_CLOEXEC)};
  bench_mailbox_init(&posts.mailbox);
  for (long round = 0; round < rounds; round++) {
    bench_producers_t threads;
    posts.left = count;
    int64_t start = bench_now();
    bench_producers_start(&threads, producers, count, post, &posts);
    while (posts.left > 0) {
      uint64_t wakes;
      if (read(posts.wake, &wakes, sizeof wakes) != sizeof wakes) bench_die("eventfd");
      bench_mailbox_run(&posts.mailbox);
    }
    times[round] = bench_now() - start;
    bench_producers_join(&threads);
  }
  bench_mailbox_free(&posts.mailbox);
  close(posts.wake);
}

typedef struct side {
  bench_side_t side;
  bench_mailbox_t mailbox;
  int wake;
  bool over;
} side_t;

static void arrived(void *side) {
  bench_side_arrive(side);
}

static void post_to(bench_side_t *to) {
  side_t *side = (side_t *)to;
  uint64_t one = 1;
  if (bench_mailbox_put(&side->mailbox, arrived, to))
    if (write(side->wake, &one, sizeof one) != sizeof one) bench_die("eventfd");
}

static void run_side(bench_side_t *self) {
  side_t *side = (side_t *)self;
  while (!side->over) {
    uint64_t wakes;
    if (read(side->wake, &wakes, sizeof wakes) != sizeof wakes) bench_die("eventfd");
    bench_mailbox_run(&side->mailbox);
  }
}

static void stop_side(bench_side_t *self) {
  ((side_t *)self)->over = true;
}

int64_t peer_pingpong(long count) {
  side_t sides[2];
  for (int i = 0; i < 2; i++) {
    sides[i] = (side_t){{.post = post_to, .run = run_side, .stop = stop_side}, .wake = eventfd(0, EFD_CLOEXEC)};
    bench_mailbox_init(&sides[i].mailbox);
  }
  int64_t took = bench_pingpong(&sides[0].side, &sides[1].side, count);
  for (int i = 0; i < 2; i++) {
    bench_mailbox_free(&sides[i].mailbox);
    close(sides[i].wake);
  }
  return took;
}

/* ---- Lookups --------------------------------------------------------------------------------------------- */

int64_t peer_lookup(long count) {
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *list;
  int64_t start = bench_now();
  for (long i = 0; i < count; i++) {
    if (getaddrinfo("127.0.0.1", "80", &hints, &list) != 0) bench_die("getaddrinfo");
    freeaddrinfo(list);
  }
  return bench_now() - start;
}

/* ---- The loop -------------------------------------------------------------------------------------------- */

typedef struct loop {
  int poller, wake;
} loop_t;

void *peer_loop_new(void) {
  loop_t *loop = bench_alloc(sizeof *loop);
  *loop = (loop_t){epoll_create1(EPOLL_CLOEXEC), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  struct epoll_event event = {.events = EPOLLIN};
  if (epoll_ctl(loop->poller, EPOLL_CTL_ADD, loop->wake, &event) != 0) bench_die("epoll_ctl");
  return loop;
}

void peer_loop_turn(void *arg) {
  loop_t *loop = arg;
  struct epoll_event event;
  epoll_wait(loop->poller, &event, 1, 0);
}

void peer_loop_free(void *arg) {
  loop_t *loop = arg;
  close(loop->poller);
  close(loop->wake);
  free(loop);
}
