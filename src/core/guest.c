/* SPDX-License-Identifier: MIT
 *
 * Guests of a loop. A post of another thread that has not run when the loop is closed is dropped, uncalled.
 * That is no answer to a thread that waits for what the post was to begin. So such a thread first puts a guest
 * into the loop: it is told when the loop goes, whatever became of the post.
 *
 * Arriving is one atomic exchange on a stack. The loop's thread moves the stack into a list when somebody wants
 * to leave, so both are O(1) over time, and a list with nobody in it costs nothing. Closing exchanges the stack
 * for a mark; who comes later sees it and goes away.
 *
 * In the child of a fork the guests are those of threads that are not there. Their farewell is their own
 * affair.
 */
#include "core/guest.h"

#include "core/loop.h"

static aloop__guest_t closed;

void aloop__guests_init(aloop__guests_t *guests) {
  atomic_init(&guests->arrived, NULL);
  aloop__list_init(&guests->list);
}

bool aloop__guests_join(aloop_t *loop, aloop__guest_t *guest) {
  guest->welcomed = false;
  guest->next = atomic_load_explicit(&loop->guests.arrived, memory_order_relaxed);
  do {
    if (guest->next == &closed) return false;
  } while (!atomic_compare_exchange_weak(&loop->guests.arrived, &guest->next, guest));
  return true;
}

static void welcome(aloop_t *loop, aloop__guest_t *arrived) {
  while (arrived != NULL) {
    aloop__guest_t *next = arrived->next;
    arrived->welcomed = true;
    aloop__list_append(&loop->guests.list, &arrived->link);
    arrived = next;
  }
}

void aloop__guests_leave(aloop_t *loop, aloop__guest_t *guest) {
  if (!guest->welcomed) welcome(loop, atomic_exchange(&loop->guests.arrived, NULL));
  aloop__list_remove(&guest->link);
}

void aloop__guests_close(aloop_t *loop) {
  welcome(loop, atomic_exchange(&loop->guests.arrived, &closed));
  while (!aloop__list_empty(&loop->guests.list)) {
    aloop__guest_t *guest = ALOOP_CONTAINER_OF(loop->guests.list.next, aloop__guest_t, link);
    aloop__list_remove(&guest->link);
    guest->farewell(guest);
  }
}
