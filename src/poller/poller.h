/* SPDX-License-Identifier: MIT
 *
 * Inside the pollers: the built-in tables and what their files share. Timeouts are nanoseconds: negative waits
 * forever, 0 only looks. Conversions round up, so that no wait ends early by rounding, and stop at a day: some
 * kernels refuse much longer timeouts, and the loop works out the rest of a longer wait anyway.
 */
#ifndef ALOOP_POLLER_H
#define ALOOP_POLLER_H

#include <poll.h>
#include <string.h>
#include <time.h>
#include "aloop.h"

#ifdef ALOOP_HAVE_EPOLL
extern const aloop_poller_t aloop__poller_epoll;
#endif
#ifdef ALOOP_HAVE_IO_URING
extern const aloop_poller_t aloop__poller_uring;
#endif
#ifdef ALOOP_HAVE_KQUEUE
extern const aloop_poller_t aloop__poller_kqueue;
#endif
extern const aloop_poller_t aloop__poller_poll;
extern const aloop_poller_t aloop__poller_select;
extern const aloop_poller_t aloop__poller_virtual;

/* In words what the kernel lacks for a built-in poller that can be done without, or NULL. */
const char *aloop__poller_missing(const aloop_poller_t *table);

#define ALOOP__POLLER_LONGEST (INT64_C(86400) * 1000000000)

/* A finite timeout (>= 0) as a timespec. */
static inline struct timespec aloop__poller_timespec(int64_t timeout) {
  if (timeout > ALOOP__POLLER_LONGEST) timeout = ALOOP__POLLER_LONGEST;
  uint64_t ns = (uint64_t)timeout; /* unsigned divides in fewer instructions */
  return (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

/* A timeout in milliseconds, -1 for none. */
static inline int aloop__poller_millis(int64_t timeout) {
  if (timeout <= 0) return timeout < 0 ? -1 : 0;
  if (timeout > ALOOP__POLLER_LONGEST) timeout = ALOOP__POLLER_LONGEST;
  return (int)((timeout + 999999) / 1000000);
}

/* What poll(2) calls directions; and what it says of a descriptor. An error is told to both. */
static inline short aloop__poller_to_poll(uint32_t events) {
  return (short)((events & ALOOP_READABLE ? POLLIN : 0) | (events & ALOOP_WRITABLE ? POLLOUT : 0));
}

static inline uint32_t aloop__poller_from_poll(uint32_t set) {
  if (set & (POLLERR | POLLHUP | POLLNVAL)) return ALOOP_READABLE | ALOOP_WRITABLE;
  return (set & POLLIN ? (uint32_t)ALOOP_READABLE : 0) | (set & POLLOUT ? (uint32_t)ALOOP_WRITABLE : 0);
}

/* Zeroed memory, or NULL. */
static inline void *aloop__poller_alloc(const aloop_allocator_t *allocator, size_t bytes) {
  void *block = allocator->resize(allocator->user, NULL, bytes);
  return block != NULL ? memset(block, 0, bytes) : NULL;
}

/* Makes room for `needed` elements in *table, which has room for *room: doubles it and zeroes what is new.
 * `table` is the address of a pointer. Returns 0 or ALOOP_ENOMEM; the table is then as it was. */
static inline int aloop__poller_reserve(const aloop_allocator_t *allocator, void *table, size_t *room,
                                        size_t needed, size_t element) {
  if (needed <= *room) return 0;
  size_t grown = *room != 0 ? *room : 16;
  while (grown < needed) grown *= 2;
  void *old;
  memcpy(&old, table, sizeof old);
  char *block = allocator->resize(allocator->user, old, grown * element);
  if (block == NULL) return ALOOP_ENOMEM;
  memset(block + *room * element, 0, (grown - *room) * element);
  memcpy(table, &block, sizeof block);
  *room = grown;
  return 0;
}

static inline void aloop__poller_free(const aloop_allocator_t *allocator, void *block) {
  if (block != NULL) allocator->release(allocator->user, block);
}

#endif
