/* SPDX-License-Identifier: MIT
 *
 * The mailbox: callbacks posted by other threads, without a lock.
 *
 * A post claims a ticket by adding to one atomic word that also carries two flags, fills the ticket's cell in
 * a ring of 1024 and publishes it. The word's SLEEPING flag is set by the loop, together with a check that
 * nothing was claimed, before it waits; so the claim itself tells the poster whether the loop sleeps, and the
 * poster whose ticket is the first since then writes the wake-up: one system call per sleep, whoever else
 * posts. The CLOSED flag refuses posts in the same step.
 *
 * When the ring is full, posts go to a linked list instead (one allocation and one atomic exchange each), and
 * go on doing so until the loop has taken them, so each thread's posts keep their order: the loop empties the
 * ring before it takes a letter, and takes only letters that were there before it saw the ring empty.
 * Everything lives in memory that is released only by aloop_free, or by the loop's thread after the writer has
 * finished with it; a slow poster never touches freed memory.
 *
 * The ring is made by the first post, so loops that nobody posts to stay small. Until then the SLEEPING flag
 * is set from the start, which costs the first post one wake-up and spares such loops the two atomic
 * operations per sleep.
 *
 * What it leaves out: fairness between posters, and any promise about the order between two threads.
 */
#include "core/mailbox.h"

#include "core/loop.h"
#include "core/memory.h"

enum { SIZE = 1024 };
#define SLEEPING UINT64_C(1)
#define CLOSED UINT64_C(2)
#define TICKET UINT64_C(4)

void aloop__mailbox_init(aloop__mailbox_t *mailbox) {
  atomic_init(&mailbox->state, SLEEPING);
  atomic_init(&mailbox->cells, NULL);
  atomic_init(&mailbox->head, 0);
  atomic_init(&mailbox->sleep_from, 0);
  atomic_init(&mailbox->overflow, 0);
  atomic_init(&mailbox->wakers, 0);
  atomic_init(&mailbox->stub.next, NULL);
  atomic_init(&mailbox->last, &mailbox->stub);
  mailbox->first = &mailbox->stub;
}

/* The ring, made if need be; of two threads that make it at once one gives way. NULL: out of memory. */
static aloop__cell_t *open_cells(aloop_t *loop) {
  aloop__cell_t *cells = atomic_load_explicit(&loop->mailbox.cells, memory_order_acquire);
  if (ALOOP_LIKELY(cells != NULL)) return cells;
  aloop__cell_t *made = aloop__memory_new(loop, SIZE * sizeof *made);
  if (made == NULL) return NULL;
  for (uint64_t i = 0; i < SIZE; i++) atomic_init(&made[i].turn, i);
  if (atomic_compare_exchange_strong(&loop->mailbox.cells, &cells, made)) return made;
  aloop__memory_release(loop, made);
  return cells;
}

static ALOOP_NOINLINE int post_letter(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  aloop__letter_t *letter = aloop__memory_new(loop, sizeof *letter);
  if (letter == NULL) return ALOOP_ENOMEM;
  atomic_init(&letter->next, NULL);
  letter->fn = fn;
  letter->arg = arg;
  letter->origin = origin;
  /* Announced first: a closing loop waits for every letter and every waker that it sees announced. */
  atomic_fetch_add(&mailbox->overflow, 1);
  if (atomic_load(&mailbox->state) & CLOSED) {
    atomic_fetch_sub(&mailbox->overflow, 1);
    aloop__memory_release(loop, letter);
    return ALOOP_ECLOSED;
  }
  atomic_fetch_add(&mailbox->wakers, 1);
  aloop__letter_t *previous = atomic_exchange(&mailbox->last, letter);
  atomic_store_explicit(&previous->next, letter, memory_order_release);
  if (atomic_load(&mailbox->state) & SLEEPING) aloop__wake_signal(loop);
  atomic_fetch_sub(&mailbox->wakers, 1);
  return 0;
}

int aloop_call_soon_threadsafe_from(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  if (loop == NULL || fn == NULL) return ALOOP_EINVAL;
  aloop__mailbox_t *mailbox = &loop->mailbox;
  uint64_t state = atomic_load_explicit(&mailbox->state, memory_order_relaxed);
  if (state & CLOSED) return ALOOP_ECLOSED;
  aloop__cell_t *cells = open_cells(loop);
  if (ALOOP_UNLIKELY(cells == NULL)) return ALOOP_ENOMEM;
  aloop__cell_t *cell;
  for (;;) {
    if (state & CLOSED) return ALOOP_ECLOSED;
    uint64_t ticket = state / TICKET;
    cell = &cells[ticket % SIZE];
    uint64_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
    if (ALOOP_UNLIKELY(atomic_load_explicit(&mailbox->overflow, memory_order_relaxed) != 0 || turn < ticket))
      return post_letter(loop, fn, arg, origin);
    if (turn > ticket)
      state = atomic_load_explicit(&mailbox->state, memory_order_relaxed); /* somebody was faster */
    else if (atomic_compare_exchange_weak(&mailbox->state, &state, state + TICKET))
      break;
  }
  uint64_t ticket = state / TICKET;
  cell->fn = fn;
  cell->arg = arg;
  cell->origin = origin;
  bool wake = ALOOP_UNLIKELY(state & SLEEPING) && ticket == atomic_load(&mailbox->sleep_from);
  if (wake) atomic_fetch_add(&mailbox->wakers, 1);
  atomic_store_explicit(&cell->turn, ticket + 1, memory_order_release);
  if (wake) {
    aloop__wake_signal(loop);
    atomic_fetch_sub(&mailbox->wakers, 1);
  }
  return 0;
}

int(aloop_call_soon_threadsafe)(aloop_t *loop, aloop_callback_fn fn, void *arg) {
  return aloop_call_soon_threadsafe_from(loop, fn, arg, NULL);
}

/* Takes filled cells up to the ticket `end`. Returns false when the deque is full or a cell is still being
 * filled. */
static bool take_cells(aloop_t *loop, uint64_t end) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  aloop__cell_t *cells = atomic_load_explicit(&mailbox->cells, memory_order_acquire);
  uint64_t head = atomic_load_explicit(&mailbox->head, memory_order_relaxed);
  uint64_t begun = head;
  for (; head != end; head++) {
    aloop__cell_t *cell = &cells[head % SIZE];
    if (atomic_load_explicit(&cell->turn, memory_order_acquire) != head + 1) break;
    if (!aloop__ready_push_captured(loop, cell->fn, cell->arg, NULL, cell->origin)) break;
    atomic_store_explicit(&cell->turn, head + SIZE, memory_order_release);
  }
  loop->posts += head - begun;
  atomic_store_explicit(&mailbox->head, head, memory_order_relaxed);
  return head == end;
}

/* Takes letters up to and including `last`. The letter taken last stays as the list's dummy; the one before
 * goes. */
static void take_letters(aloop_t *loop, const aloop__letter_t *last) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  while (mailbox->first != last) {
    aloop__letter_t *letter = atomic_load_explicit(&mailbox->first->next, memory_order_acquire);
    if (letter == NULL) return; /* its poster is between two instructions */
    if (!aloop__ready_push_captured(loop, letter->fn, letter->arg, NULL, letter->origin)) return;
    if (mailbox->first != &mailbox->stub) aloop__memory_release(loop, mailbox->first);
    mailbox->first = letter;
    loop->posts++;
    atomic_fetch_sub(&mailbox->overflow, 1);
  }
}

bool aloop__mailbox_pending(const aloop_t *loop) {
  const aloop__mailbox_t *mailbox = &loop->mailbox;
  return atomic_load_explicit(&mailbox->state, memory_order_relaxed) / TICKET !=
             atomic_load_explicit(&mailbox->head, memory_order_relaxed) ||
         atomic_load_explicit(&mailbox->overflow, memory_order_relaxed) != 0;
}

void aloop__mailbox_take(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  uint64_t end = atomic_load_explicit(&mailbox->state, memory_order_acquire) / TICKET;
  if (!take_cells(loop, end) || atomic_load(&mailbox->overflow) == 0) return;
  aloop__letter_t *last = atomic_load(&mailbox->last);
  /* What the letters' posters put into the ring before them is there by now. */
  if (take_cells(loop, atomic_load(&mailbox->state) / TICKET)) take_letters(loop, last);
}

bool aloop__mailbox_sleep(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  if (atomic_load_explicit(&mailbox->cells, memory_order_relaxed) == NULL) return true;
  uint64_t head = atomic_load_explicit(&mailbox->head, memory_order_relaxed);
  uint64_t state = head * TICKET;
  atomic_store(&mailbox->sleep_from, head);
  if (!atomic_compare_exchange_strong(&mailbox->state, &state, state | SLEEPING)) {
    /* Still set from the first post on: fine as long as nothing was claimed since. */
    if (state != (head * TICKET | SLEEPING)) return false;
  }
  if (atomic_load(&mailbox->overflow) == 0) return true;
  atomic_fetch_and(&mailbox->state, ~SLEEPING);
  return false;
}

void aloop__mailbox_awake(aloop_t *loop) {
  if (atomic_load_explicit(&loop->mailbox.cells, memory_order_relaxed) == NULL) return;
  atomic_fetch_and(&loop->mailbox.state, ~SLEEPING);
}

void aloop__mailbox_close(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  uint64_t end = atomic_fetch_or(&mailbox->state, CLOSED) / TICKET;
  aloop__cell_t *cells = atomic_load(&mailbox->cells);
  for (uint64_t head = atomic_load(&mailbox->head); head != end; head++)
    while (atomic_load(&cells[head % SIZE].turn) != head + 1) continue;
  atomic_store(&mailbox->head, end);
  while (atomic_load(&mailbox->overflow) != 0) {
    aloop__letter_t *letter = atomic_load(&mailbox->first->next);
    if (letter == NULL) continue;
    if (mailbox->first != &mailbox->stub) aloop__memory_release(loop, mailbox->first);
    mailbox->first = letter;
    atomic_fetch_sub(&mailbox->overflow, 1);
  }
  while (atomic_load(&mailbox->wakers) != 0) continue;
}

void aloop__mailbox_after_fork(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  aloop__cell_t *cells = atomic_load(&mailbox->cells);
  uint64_t end = atomic_load(&mailbox->state) / TICKET;
  for (uint64_t head = atomic_load(&mailbox->head); head != end; head++) {
    aloop__cell_t *cell = &cells[head % SIZE];
    if (atomic_load(&cell->turn) == head + 1)
      aloop__ready_push_captured(loop, cell->fn, cell->arg, NULL, cell->origin);
  }
  take_letters(loop, atomic_load(&mailbox->last));
  if (mailbox->first != &mailbox->stub) aloop__memory_release(loop, mailbox->first);
  aloop__mailbox_init(mailbox);
  if (cells == NULL) return;
  for (uint64_t i = 0; i < SIZE; i++) atomic_store(&cells[i].turn, i);
  atomic_store(&mailbox->cells, cells);
}

void aloop__mailbox_free(aloop_t *loop) {
  aloop__mailbox_t *mailbox = &loop->mailbox;
  if (mailbox->first != &mailbox->stub) aloop__memory_release(loop, mailbox->first);
  aloop__memory_release(loop, atomic_load(&mailbox->cells));
}
