/* SPDX-License-Identifier: MIT
 *
 * The mailbox: callbacks posted by other threads, without a lock.
 *
 * Posts are numbered. Number n lies in cell n % 512 of page n / 512, and a directory of 4096 places, used round
 * and round, finds the page; so up to two million posts can wait. A poster claims its number by adding to one
 * atomic word, fills the cell and publishes it by writing the cell's function last. The loop takes cells in
 * order, clears them, and gives the page away after its last cell.
 *
 * Nothing needs to be known of a page before a number is claimed but that its place is not empty, and a place
 * whose numbers are not all taken is never emptied. So a poster that stalls anywhere before its claim succeeds
 * has touched nothing that could be gone by then, pages can be released like any memory, and a page put into an
 * empty place too early is simply there early. The loop uses that: it puts each page it has emptied into the
 * next empty place, 64 pages ahead at most, so a steady flow of posts allocates nothing.
 *
 * The claimed word also carries two flags. SLEEPING is set by the loop, in one step with the check that nothing
 * was claimed, before it waits; the first claim after that takes it away, and whoever made it writes the
 * wake-up: one system call per sleep, whoever else posts. CLOSED refuses posts in the same step. A loop that
 * does not run sleeps, too: its host may be waiting for its descriptor.
 *
 * For another CPU's cache line one waits some eighty nanoseconds. So the loop finds posts by looking at the
 * next cell, which it needs anyway, and touches the word in which numbers are claimed only to fall asleep. And
 * a loop that is as fast as its posters does not walk right behind them: a claim is a locked instruction, which
 * waits for the lines of all stores before it, so both sides would stand still at every cell. When posts come
 * faster than it can fall asleep, it takes them once in a microsecond or less. (Cells alone, measured: 85 ns
 * per post on each side if the loop looks all the time, 27 if once in a microsecond, 4 if claims are plain
 * stores.) So one thread that posts all the time gets a way of its own, without claims: the express
 * (express.c). Its posts are called in one order with all others.
 *
 * A poster that is interrupted between its claim and its publication holds up what was posted after it. The
 * loop cannot sleep then, as nobody would wake it; but after some turns it waits for I/O for up to a
 * millisecond each time, or a loop with a higher priority would never let that thread go on.
 *
 * Directory and pages are made by the first post, so loops that nobody posts to stay small. Until then SLEEPING
 * is set from the start, which costs the first post one wake-up and spares such loops two atomic operations per
 * sleep.
 *
 * The loop takes 256 posts a turn at most: a flood does not keep it from I/O, and the deque stays small enough
 * for the cache. What is left out: fairness between posters.
 */
#include "core/mailbox.h"

#include <time.h>

#include "core/clock.h"
#include "core/express.h"
#include "core/loop.h"
#include "core/memory.h"
#include "core/report.h"

/* A loop that is posted to all the time finds its own words where it left them: neither the deque nor timers
 * before, nor the head and what follows it share a line with what posters write. */
_Static_assert(ALOOP__IS_APART(struct aloop, timers, guests), "guests arrive on lines of their own");
_Static_assert(ALOOP__IS_APART(struct aloop, timers, mailbox.state),
               "tickets are claimed on lines of their own");
_Static_assert(ALOOP__IS_APART(struct aloop, mailbox.applicant, mailbox.directory),
               "claims leave the directory alone");
_Static_assert(ALOOP__IS_APART(struct aloop, mailbox.express, mailbox.head), "and so does taking");

enum {
  CELLS = ALOOP__MAILBOX_PAGE,
  PLACES = 4096,
  TAKEN_AT_ONCE = 256,
  AHEAD = 64,
  FETCHED_AHEAD = 12,
  STALLS_MAX = 100
};
#define SLEEPING UINT64_C(1)
#define CLOSED UINT64_C(2)
#define TICKET (UINT64_C(1) << ALOOP__MAILBOX_FLAGS)

/* For a poster that was interrupted between claim and publication. */
#define INTERRUPTED ALOOP_MILLIS(1)

typedef struct cell {
  _Atomic(aloop_callback_fn) fn; /* NULL: not published */
  void *arg;
  const char *origin;
} cell_t;

struct aloop__page {
  cell_t cells[CELLS];
};

typedef _Atomic(aloop__page_t *) place_t;

void aloop__mailbox_init(aloop__mailbox_t *mailbox) {
  atomic_init(&mailbox->state, SLEEPING);
  atomic_init(&mailbox->directory, NULL);
  atomic_init(&mailbox->wakers, 0);
  atomic_init(&mailbox->applicant, 0);
  atomic_init(&mailbox->owner, 0);
  atomic_init(&mailbox->head, 0);
  mailbox->express = NULL;
  mailbox->more = mailbox->express_runs = false;
  mailbox->stalls = 0;
}

static place_t *place_of(place_t *directory, uint64_t ticket) {
  return &directory[ticket / CELLS % PLACES];
}

/* The directory, made if need be; of two threads that make it at once one gives way. NULL: out of memory. */
static ALOOP_NOINLINE place_t *open_directory(aloop_t *loop) {
  place_t *made = aloop__memory_new(loop, PLACES * sizeof *made);
  if (made == NULL) return NULL;
  for (int i = 0; i < PLACES; i++) atomic_init(&made[i], NULL);
  place_t *other = NULL;
  if (atomic_compare_exchange_strong(&loop->mailbox.directory, &other, made)) return made;
  aloop__memory_release(loop, made);
  return other;
}

/* Puts a page into an empty place. False: out of memory. */
static ALOOP_NOINLINE bool open_page(aloop_t *loop, place_t *place) {
  aloop__page_t *page = aloop__memory_new(loop, sizeof *page);
  if (page == NULL) return false;
  for (int i = 0; i < CELLS; i++) atomic_init(&page->cells[i].fn, NULL);
  aloop__page_t *other = NULL;
  if (!atomic_compare_exchange_strong(place, &other, page)) aloop__memory_release(loop, page);
  return true;
}

/* Sees to the page of a number that is the first in it. False: out of memory, or of places. */
static ALOOP_NOINLINE bool enter_page(aloop_t *loop, place_t *directory, uint64_t ticket) {
  /* Acquire: a place is emptied before the head moves on. */
  uint64_t head = atomic_load_explicit(&loop->mailbox.head, memory_order_acquire);
  if (ticket - head >= (uint64_t)CELLS * (PLACES - 1) && ticket >= head) return false;
  place_t *place = place_of(directory, ticket);
  atomic_store_explicit(&loop->mailbox.applicant, aloop__express_self(), memory_order_relaxed);
  return atomic_load_explicit(place, memory_order_relaxed) != NULL || open_page(loop, place);
}

/* What the word becomes: whoever claims a number while the loop sleeps is the only one that wakes it. */
static inline uint64_t after_claim(uint64_t state) {
  return (state & ~SLEEPING) + TICKET;
}

/* Claims the next number. Returns 0 with the word as it was before the claim, or why not. */
static int claim(aloop_t *loop, place_t *directory, uint64_t *before) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  uint64_t state = atomic_load_explicit(&mailbox->state, memory_order_relaxed);
  do {
    if (ALOOP_UNLIKELY(state & CLOSED)) return ALOOP_ECLOSED;
    uint64_t ticket = state / TICKET;
    if (ALOOP_UNLIKELY(ticket % CELLS == 0) && !enter_page(loop, directory, ticket)) return ALOOP_ENOMEM;
  } while (!atomic_compare_exchange_weak(&mailbox->state, &state, after_claim(state)));
  *before = state;
  return 0;
}

static inline void publish(cell_t *cell, aloop_callback_fn fn, void *arg, const char *origin) {
  cell->arg = arg;
  cell->origin = origin;
  atomic_store_explicit(&cell->fn, fn, memory_order_release);
}

/* The loop sleeps, and has to be woken. That is announced before the post can be seen: a closing loop waits for
 * wakers before it closes the descriptor. */
static ALOOP_NOINLINE int publish_and_wake(aloop_t *loop, cell_t *cell, aloop_callback_fn fn, void *arg,
                                           const char *origin) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  atomic_fetch_add(&mailbox->wakers, 1);
  publish(cell, fn, arg, origin);
  aloop__wake_signal(loop);
  atomic_fetch_sub(&mailbox->wakers, 1);
  return 0;
}

/* A number was claimed; `state` is the word as it was before. */
ALOOP_INLINE int put(aloop_t *loop, place_t *directory, uint64_t state, aloop_callback_fn fn, void *arg,
                     const char *origin) {
  uint64_t ticket = state / TICKET;
  cell_t *cell =
      &atomic_load_explicit(place_of(directory, ticket), memory_order_acquire)->cells[ticket % CELLS];
  /* Or a later claim waits until the loop's CPU has given the line up. */
  ALOOP_PREFETCH_OWN(cell + FETCHED_AHEAD);
  if (ALOOP_UNLIKELY(state & SLEEPING)) return publish_and_wake(loop, cell, fn, arg, origin);
  publish(cell, fn, arg, origin);
  return 0;
}

/* Everything unusual, and whoever was not the only one who claimed a number just now. */
static ALOOP_NOINLINE int post_slowly(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  if (loop == NULL || fn == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a post has a loop and a function");
  aloop__mailbox_t *mailbox = &loop->mailbox;
  place_t *directory = atomic_load_explicit(&mailbox->directory, memory_order_acquire);
  if (directory == NULL) {
    if (atomic_load(&mailbox->state) & CLOSED) return ALOOP_ECLOSED;
    directory = open_directory(loop);
    if (directory == NULL) return ALOOP_ENOMEM;
  }
  uint64_t state;
  int rc = claim(loop, directory, &state);
  return rc < 0 ? rc : put(loop, directory, state, fn, arg, origin);
}

/* The usual way: arguments that are in order, and nobody else who claims a number just now. */
ALOOP_INLINE int post(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  place_t *directory = atomic_load_explicit(&mailbox->directory, memory_order_acquire);
  uint64_t state = atomic_load_explicit(&mailbox->state, memory_order_relaxed);
  if (ALOOP_UNLIKELY(directory == NULL) || ALOOP_UNLIKELY(state & CLOSED) ||
      ALOOP_UNLIKELY(state / TICKET % CELLS == 0) ||
      ALOOP_UNLIKELY(!atomic_compare_exchange_strong(&mailbox->state, &state, after_claim(state))))
    return post_slowly(loop, fn, arg, origin);
  return put(loop, directory, state, fn, arg, origin);
}

/* While a thread has the express. */
static ALOOP_NOINLINE int post_by_express(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  return aloop__express_post(&loop->mailbox, fn, arg, origin) ? 0 : post(loop, fn, arg, origin);
}

int aloop_call_soon_threadsafe_from(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  if (ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(fn == NULL)) return post_slowly(loop, fn, arg, origin);
  if (atomic_load_explicit(&loop->mailbox.owner, memory_order_relaxed) != 0)
    return post_by_express(loop, fn, arg, origin);
  return post(loop, fn, arg, origin);
}

int(aloop_call_soon_threadsafe)(aloop_t *loop, aloop_callback_fn fn, void *arg) {
  return aloop_call_soon_threadsafe_from(loop, fn, arg, NULL);
}

/* The page of the last number taken is empty. It goes where the next numbers will want one. */
static ALOOP_NOINLINE void recycle_page(aloop_t *loop, place_t *directory, uint64_t last) {
  aloop__page_t *page = atomic_exchange(place_of(directory, last), NULL);
  uint64_t ticket = atomic_load_explicit(&loop->mailbox.state, memory_order_relaxed) / TICKET;
  for (int i = 0; i < AHEAD; i++) {
    place_t *place = place_of(directory, ticket += CELLS);
    aloop__page_t *other = NULL;
    if (atomic_load_explicit(place, memory_order_relaxed) == NULL &&
        atomic_compare_exchange_strong(place, &other, page))
      return;
  }
  aloop__memory_release(loop, page);
}

/* Moves cells, as long as they are published and the deque has room. Returns where it stopped. */
static cell_t *take_cells(aloop_t *loop, cell_t *cell, const cell_t *end) {
  for (; cell != end; cell++) {
    ALOOP_PREFETCH_OWN(cell + FETCHED_AHEAD < end ? cell + FETCHED_AHEAD : cell);
    aloop_callback_fn fn = atomic_load_explicit(&cell->fn, memory_order_acquire);
    if (ALOOP_UNLIKELY(fn == NULL) || !aloop__ready_push_captured(loop, fn, cell->arg, NULL, cell->origin))
      break;
    atomic_store_explicit(&cell->fn, NULL, memory_order_relaxed);
  }
  return cell;
}

/* The page of a number, or NULL if it has none yet. */
static inline cell_t *cells_of(place_t *directory, uint64_t ticket) {
  aloop__page_t *page = atomic_load_explicit(place_of(directory, ticket), memory_order_acquire);
  return page != NULL ? page->cells : NULL;
}

/* Whether the next post can be taken. The word in which numbers are claimed is left to the posters. */
static inline bool is_published(const aloop__mailbox_t *mailbox) {
  place_t *directory = atomic_load_explicit(&mailbox->directory, memory_order_acquire);
  uint64_t head = atomic_load_explicit(&mailbox->head, memory_order_relaxed);
  cell_t *cells = cells_of(directory, head);
  return cells != NULL && atomic_load_explicit(&cells[head % CELLS].fn, memory_order_relaxed) != NULL;
}

/* Takes numbers up to `end`, as far as they are published and there is room. Returns where it stopped. */
ALOOP_INLINE uint64_t take_numbered(aloop_t *loop, place_t *directory, uint64_t begin, uint64_t end) {
  uint64_t head = begin;
  cell_t *cells;
  while (head != end && (cells = cells_of(directory, head)) != NULL) {
    uint64_t page_end = (head / CELLS + 1) * CELLS, stop = end < page_end ? end : page_end;
    cell_t *from = &cells[head % CELLS], *to = take_cells(loop, from, from + (stop - head));
    head += (uint64_t)(to - from);
    if (head == page_end) recycle_page(loop, directory, head - 1);
    if (head != stop) break;
  }
  return head;
}

static inline uint64_t least(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

/* Takes numbers and what is in the express, in their common order (express.c). Returns the number of the next
 * that was not taken. */
static ALOOP_NOINLINE uint64_t take_both(aloop_t *loop, place_t *directory, uint64_t begin, bool *more) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  uint64_t claimed = aloop__mailbox_claimed(mailbox), posted = aloop__express_posted(mailbox);
  uint64_t first = aloop__express_taken(mailbox), most = first + TAKEN_AT_ONCE, head = begin, taken = first;
  bool room = true;
  while (room && taken != most) {
    uint64_t stamp = taken != posted ? aloop__express_next(mailbox) : UINT64_MAX;
    uint64_t stop = least(least(claimed, begin + TAKEN_AT_ONCE), stamp);
    if (stop > head) head = take_numbered(loop, directory, head, stop);
    if (head < stop || stamp > head) break;
    room = aloop__express_take(loop, head, least(posted, most));
    taken = aloop__express_taken(mailbox);
  }
  *more = head - begin == TAKEN_AT_ONCE || taken == most;
  return head;
}

void aloop__mailbox_take(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  place_t *directory = atomic_load_explicit(&mailbox->directory, memory_order_acquire);
  uint64_t begin = atomic_load_explicit(&mailbox->head, memory_order_relaxed), before = loop->posts, head;
  if (ALOOP_UNLIKELY(aloop__express_runs(mailbox))) {
    head = take_both(loop, directory, begin, &mailbox->more);
  } else {
    head = take_numbered(loop, directory, begin, begin + TAKEN_AT_ONCE);
    mailbox->more = head == begin + TAKEN_AT_ONCE;
  }
  loop->posts += head - begin;
  if (loop->posts != before) mailbox->stalls = 0;
  if (head == begin) return;
  atomic_store_explicit(&mailbox->head, head, memory_order_release);
  if (head / CELLS != begin / CELLS) aloop__express_consider(loop);
}

bool aloop__mailbox_pending(const aloop_t *loop) {
  const aloop__mailbox_t *mailbox = &loop->mailbox;
  return aloop__mailbox_claimed(mailbox) != atomic_load_explicit(&mailbox->head, memory_order_relaxed) ||
         aloop__express_runs(mailbox);
}

bool aloop__mailbox_sleep(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  if (is_published(mailbox)) return false;
  if (ALOOP_UNLIKELY(aloop__express_runs(mailbox)) && !aloop__express_leave(mailbox)) return false;
  uint64_t state = atomic_load_explicit(&mailbox->head, memory_order_relaxed) * TICKET;
  /* It may still be set from the start; then all that matters is that nothing was claimed since. */
  return atomic_compare_exchange_strong(&mailbox->state, &state, state | SLEEPING) || (state & SLEEPING);
}

void aloop__mailbox_rest(aloop_t *loop) {
  aloop__express_end(&loop->mailbox);
  aloop__mailbox_sleep(loop);
}

int64_t aloop__mailbox_stand_off(aloop_t *loop, int64_t timeout) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  uint64_t moment = aloop__clock_ticks_20us() / 10;
  while (aloop__clock_ticks() - loop->poll_ticks < moment) ALOOP_PAUSE();
  bool own_clock = loop->poller->now != NULL; /* which may jump instead of waiting */
  if (own_clock || mailbox->stalls < STALLS_MAX) {
    mailbox->stalls += !own_clock;
    return 0;
  }
  return timeout > 0 && timeout < INTERRUPTED ? timeout : INTERRUPTED;
}

void aloop__mailbox_awake(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  if (is_published(mailbox)) return; /* whose poster has taken the flag back */
  if (atomic_load_explicit(&mailbox->state, memory_order_relaxed) & SLEEPING)
    atomic_fetch_and(&mailbox->state, ~SLEEPING);
}

void aloop__mailbox_await_poster(unsigned *rounds) {
  const struct timespec while_interrupted = {.tv_nsec = INTERRUPTED / 10};
  if (++*rounds < STALLS_MAX)
    ALOOP_PAUSE();
  else
    nanosleep(&while_interrupted, NULL);
}

/* Every claimed number gets its post, and every waker is heard; unless their threads stayed behind in the
 * parent of a fork. */
static void await_posters(aloop_t *loop, uint64_t end) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  place_t *directory = atomic_load(&mailbox->directory);
  unsigned rounds = 0;
  for (uint64_t head = atomic_load(&mailbox->head); head != end; head++)
    while (atomic_load(&atomic_load(place_of(directory, head))->cells[head % CELLS].fn) == NULL)
      aloop__mailbox_await_poster(&rounds);
  while (atomic_load(&mailbox->wakers) != 0) aloop__mailbox_await_poster(&rounds);
}

void aloop__mailbox_close(aloop_t *loop) {
  uint64_t end = atomic_fetch_or(&loop->mailbox.state, CLOSED) / TICKET;
  if (loop->fork_generation == aloop__current_forks()) {
    aloop__express_end(&loop->mailbox);
    await_posters(loop, end);
  }
  atomic_store(&loop->mailbox.head, end);
}

void aloop__mailbox_free(aloop_t *loop) {
  place_t *directory = atomic_load(&loop->mailbox.directory);
  for (int i = 0; directory != NULL && i < PLACES; i++) aloop__memory_release(loop, atomic_load(&directory[i]));
  aloop__memory_release(loop, directory);
  aloop__memory_release(loop, loop->mailbox.express);
}

/* Whether the deque has room for what is waiting. */
static bool make_room(aloop_t *loop, uint64_t posts) {
  while (loop->tail - loop->head + posts > loop->mask)
    if (aloop__ready_grow(loop) < 0) return false;
  return true;
}

int aloop__mailbox_after_fork(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  place_t *directory = atomic_load(&mailbox->directory);
  uint64_t end = aloop__mailbox_claimed(mailbox), head = atomic_load(&mailbox->head);
  bool both = aloop__express_runs(mailbox);
  uint64_t posted = both ? aloop__express_posted(mailbox) : 0, taken = both ? aloop__express_taken(mailbox) : 0;
  if (!make_room(loop, end - head + (posted - taken))) return ALOOP_ENOMEM;
  for (; head != end; head++) {
    if (both) aloop__express_take(loop, head, posted);
    cell_t *cell = &atomic_load(place_of(directory, head))->cells[head % CELLS];
    aloop_callback_fn fn = atomic_load(&cell->fn);
    if (fn != NULL) aloop__ready_push_captured(loop, fn, cell->arg, NULL, cell->origin);
  }
  if (both) aloop__express_take(loop, UINT64_MAX, posted);
  aloop__mailbox_free(loop);
  aloop__mailbox_init(mailbox);
  aloop__express_allow(false);
  return 0;
}
