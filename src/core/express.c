/* SPDX-License-Identifier: MIT
 *
 * The express: posts without a locked instruction, for one thread at a time that posts all the time.
 *
 * To claim a number in the mailbox is a locked instruction, which waits until all stores before it have got
 * their cache lines from the loop's CPU. Bare programs on two virtual CPUs hand over items of 24 bytes in 27 to
 * 45 ns each that way, and in 4 ns if claims are plain stores. So the thread that has begun two pages of the
 * mailbox one after the other gets a ring of its own, the express: it alone writes cells and the tail, the loop
 * alone reads them and writes the head.
 *
 * Order. Each post in the express is stamped with the number that the mailbox would give next, and is called
 * before the post with that number. Whatever was posted before it, in any thread, has a lower number, and
 * whatever is posted after it that number or a higher one. So the posts of all threads keep one order. The loop
 * looks at how many numbers are claimed, then at how many posts are in the express, and takes nothing that came
 * later: had a post in the express been made before one of those numbers was claimed, it is among them.
 *
 * Sleep. What a locked instruction was good for besides: either the poster sees that the loop falls asleep, or
 * the loop sees the post. Here the loop pays for both. There is an owner only while the loop is awake. Before
 * it sleeps, ends its run or closes, it takes the ownership away and has the kernel make every thread of the
 * process pass a memory barrier, membarrier(2). Afterwards a post under way shows in the tail, whose lowest bit
 * is set while the owner is at work; and whoever begins later sees that the express is not its own any more and
 * claims a number. The barrier takes less than a microsecond. It is put off for about one, if posts go on
 * coming. The loop also takes the express away from an owner that posts less than the others together, who
 * would have to be put in order one by one: that is looked at when a page of the mailbox is used up. Pages that
 * the owner began are no reason: it filled them before it had the express, or because the ring was full.
 *
 * A thread is known by its pthread_t. A later thread may have the same one; it then takes the place of one that
 * has ended, and what that one wrote has happened before.
 *
 * To register for membarrier takes nothing in a process with a single thread, but 25 ms in others. So the first
 * loop of a process registers if there is one thread only; otherwise there is no express, as on systems
 * without membarrier. Should the kernel refuse the barrier later (a sandbox that came after us), the loop waits
 * for a millisecond instead, in which every CPU has long written what it had to write, and there is no express
 * any more.
 *
 * Left out: an express for each of several threads. Their stamps would have to order them among each other,
 * and a counter that all of them move is what we wanted to avoid.
 */
#include "core/express.h"

#include <time.h>
#if ALOOP_HAVE_MEMBARRIER
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if ALOOP_HAVE_SINGLE_THREADED
#include <sys/single_threaded.h>
#endif

#include "core/clock.h"
#include "core/loop.h"
#include "core/memory.h"

enum { CELLS = 1024, FETCHED_AHEAD = 12 };
#define AT_WORK UINT64_C(1)
#define ONE UINT64_C(2)

typedef struct cell {
  aloop_callback_fn fn;
  void *arg;
  const char *origin;
  uint64_t stamp;
} cell_t;

struct aloop__express {
  _Atomic uint64_t tail; /* posts so far, times ONE, and AT_WORK; of the owner */
  uint64_t room_until;   /* the head as the owner last saw it, and CELLS; of the owner */
  char apart[ALOOP__CACHE_LINE];
  _Atomic uint64_t head; /* posts taken; of the loop */
  char apart_too[ALOOP__CACHE_LINE];
  cell_t cells[CELLS];
};

_Static_assert(ALOOP__IS_APART(struct aloop__express, room_until, head), "owner and loop do not meet");
_Static_assert(ALOOP__IS_APART(struct aloop__express, head, cells), "but in the cells");

/* ---- The barrier ----------------------------------------------------------------------------------------- */

/* The process that has registered, as a count of forks and one; 0: none. */
static atomic_uint registered;
static atomic_bool refused; /* for tests */

void aloop__express_refuse_barriers(bool refuse) {
  atomic_store(&refused, refuse);
}

static bool is_allowed(void) {
  return atomic_load_explicit(&registered, memory_order_relaxed) == aloop__current_forks() + 1;
}

#if ALOOP_HAVE_MEMBARRIER

static bool has_one_thread(void) {
#if ALOOP_HAVE_SINGLE_THREADED
  return __libc_single_threaded;
#else
  return false;
#endif
}

void aloop__express_allow(bool at_any_cost) {
  if (is_allowed() || (!at_any_cost && !has_one_thread())) return;
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0)
    atomic_store(&registered, aloop__current_forks() + 1);
}

static bool pass_barriers(void) {
  return !atomic_load_explicit(&refused, memory_order_relaxed) &&
         syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

#else

void aloop__express_allow(bool at_any_cost) {
  (void)at_any_cost;
}

static bool pass_barriers(void) {
  return false;
}

#endif

/* Every thread of the process passes a memory barrier between begin and end of the call. */
static void barrier_everywhere(void) {
  const struct timespec millisecond = {.tv_nsec = 1000000};
  if (ALOOP_LIKELY(pass_barriers())) return;
  atomic_store(&registered, 0);
  nanosleep(&millisecond, NULL);
}

/* ---- The owner ------------------------------------------------------------------------------------------- */

/* Room for one more, as the head is now. */
static ALOOP_NOINLINE bool find_room(aloop__express_t *express, uint64_t tail) {
  express->room_until = atomic_load_explicit(&express->head, memory_order_acquire) + CELLS;
  return tail / ONE != express->room_until;
}

/* False: there is no room. */
ALOOP_INLINE bool put(aloop__mailbox_t *mailbox, uint64_t tail, aloop_callback_fn fn, void *arg,
                      const char *origin) {
  aloop__express_t *express = mailbox->express;
  if (ALOOP_UNLIKELY(tail / ONE == express->room_until) && !find_room(express, tail)) return false;
  cell_t *cell = &express->cells[tail / ONE % CELLS];
  ALOOP_PREFETCH_OWN(&express->cells[(tail / ONE + FETCHED_AHEAD) % CELLS]);
  cell->fn = fn;
  cell->arg = arg;
  cell->origin = origin;
  cell->stamp = aloop__mailbox_claimed(mailbox);
  return true;
}

bool aloop__express_post(aloop__mailbox_t *mailbox, aloop_callback_fn fn, void *arg, const char *origin) {
  uintptr_t self = aloop__express_self();
  if (atomic_load_explicit(&mailbox->owner, memory_order_acquire) != self) return false;
  _Atomic uint64_t *place = &mailbox->express->tail;
  uint64_t tail = atomic_load_explicit(place, memory_order_relaxed);
  atomic_store_explicit(place, tail | AT_WORK, memory_order_relaxed);
  /* With this thread's share of a barrier; the compiler must not move anything either. */
  atomic_signal_fence(memory_order_seq_cst);
  bool mine = ALOOP_LIKELY(atomic_load_explicit(&mailbox->owner, memory_order_acquire) == self);
  bool done = mine && ALOOP_LIKELY(put(mailbox, tail, fn, arg, origin));
  atomic_store_explicit(place, done ? tail + ONE : tail, memory_order_release);
  return done;
}

/* ---- The loop -------------------------------------------------------------------------------------------- */

uint64_t aloop__express_posted(const aloop__mailbox_t *mailbox) {
  return atomic_load_explicit(&mailbox->express->tail, memory_order_acquire) / ONE;
}

uint64_t aloop__express_taken(const aloop__mailbox_t *mailbox) {
  return atomic_load_explicit(&mailbox->express->head, memory_order_relaxed);
}

uint64_t aloop__express_next(const aloop__mailbox_t *mailbox) {
  return mailbox->express->cells[aloop__express_taken(mailbox) % CELLS].stamp;
}

bool aloop__express_take(aloop_t *loop, uint64_t before, uint64_t end) {
  aloop__express_t *express = loop->mailbox.express;
  uint64_t begin = aloop__express_taken(&loop->mailbox), at = begin;
  bool room = true;
  for (; at != end; at++) {
    const cell_t *cell = &express->cells[at % CELLS];
    if (cell->stamp > before) break;
    room = aloop__ready_push_captured(loop, cell->fn, cell->arg, NULL, cell->origin);
    if (ALOOP_UNLIKELY(!room)) break;
  }
  loop->posts += at - begin;
  atomic_store_explicit(&express->head, at, memory_order_release);
  return room;
}

/* Nobody is at work, and nothing is left. */
static bool is_empty(const aloop__express_t *express) {
  return atomic_load_explicit(&express->tail, memory_order_acquire) ==
         atomic_load_explicit(&express->head, memory_order_relaxed) * ONE;
}

static bool find_express(aloop_t *loop) {
  if (loop->mailbox.express == NULL) loop->mailbox.express = aloop__memory_zero(loop, sizeof(aloop__express_t));
  return loop->mailbox.express != NULL;
}

static void shut(aloop__mailbox_t *mailbox) {
  if (atomic_load_explicit(&mailbox->owner, memory_order_relaxed) != 0) {
    atomic_store_explicit(&mailbox->owner, 0, memory_order_relaxed);
    barrier_everywhere();
  }
  mailbox->express_runs = !is_empty(mailbox->express);
}

static void grant(aloop_t *loop, uintptr_t thread) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  if (!is_allowed() || !find_express(loop)) return;
  mailbox->express_runs = true;
  mailbox->express_before = aloop__express_taken(mailbox);
  mailbox->regular = 0; /* two more, the next time */
  atomic_store_explicit(&mailbox->owner, thread, memory_order_release);
}

/* Whether its owner has posted less than what filled the page. */
static bool is_outdone(aloop__mailbox_t *mailbox) {
  uint64_t before = mailbox->express_before;
  mailbox->express_before = aloop__express_taken(mailbox);
  return mailbox->regular != atomic_load_explicit(&mailbox->owner, memory_order_relaxed) &&
         mailbox->express_before - before < ALOOP__MAILBOX_PAGE;
}

void aloop__express_consider(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  uintptr_t before = mailbox->regular;
  mailbox->regular = atomic_load_explicit(&mailbox->applicant, memory_order_relaxed);
  if (!mailbox->express_runs && mailbox->regular == before)
    grant(loop, before);
  else if (mailbox->express_runs && is_outdone(mailbox))
    shut(mailbox);
}

bool aloop__express_leave(aloop__mailbox_t *mailbox) {
  uint64_t begun = aloop__clock_ticks(), moment = aloop__clock_ticks_20us() / 10;
  do {
    if (!is_empty(mailbox->express)) return false;
    ALOOP_PAUSE();
  } while (aloop__clock_ticks() - begun < moment);
  shut(mailbox);
  return !mailbox->express_runs;
}

void aloop__express_end(aloop__mailbox_t *mailbox) {
  if (!mailbox->express_runs) return;
  unsigned rounds = 0;
  shut(mailbox);
  while (atomic_load_explicit(&mailbox->express->tail, memory_order_acquire) & AT_WORK)
    aloop__mailbox_await_poster(&rounds);
  shut(mailbox);
}
