/* SPDX-License-Identifier: MIT
 *
 * One io_uring on raw system calls: the two queues and what their owner needs to drive them. The poller
 * (uring.c) owns it; the network's completion driver (net/completion.c) puts its own requests into the same
 * queue and gets its completions through the loop.
 *
 * A request's name (user_data) says who asked: a kind in the low four bits, the rest is the kind's own.
 */
#ifndef ALOOP_POLLER_RING_H
#define ALOOP_POLLER_RING_H

#ifdef ALOOP_HAVE_IO_URING

#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/check.h"
#include "core/watch.h"

/* Kinds of requests. Those below ALOOP__RING_DRIVER are the poller's. */
enum {
  ALOOP__RING_SILENT, /* nobody wants to know: a cancel, an update */
  ALOOP__RING_POLL,
  ALOOP__RING_DRIVER, /* the first of the driver's */
  ALOOP__RING_KIND_BITS = 4
};

static inline unsigned aloop__ring_kind(uint64_t name) {
  return name & ((1u << ALOOP__RING_KIND_BITS) - 1);
}

/* Newer than the headers of many systems. */
enum {
  ALOOP__RING_BUFFER_MORE = 16, /* of a completion (IORING_CQE_F_BUF_MORE): the buffer has room left */
  ALOOP__RING_BUFFERS_INC = 2   /* of a ring of buffers (IOU_PBUF_RING_INC): receives share them */
};

/* What a kernel may lack, and tests forbid. Without those of the last group there is no ring. */
enum {
  ALOOP__RING_NO_DEFER = 1,    /* task work when we ask for it (6.1) */
  ALOOP__RING_NO_SINGLE = 2,   /* one submitter (6.0) */
  ALOOP__RING_NO_COOP = 4,     /* no interrupts for task work (5.19) */
  ALOOP__RING_NO_SQARRAY = 8,  /* an array less (6.6) */
  ALOOP__RING_NO_DRIVER = 16,  /* multishot receive and accept (6.0) */
  ALOOP__RING_NO_BUFFERS = 32, /* rings of buffers (5.19) */
  ALOOP__RING_NO_PIECES = 64,  /* buffers that many receives fill (6.12) */
  ALOOP__RING_NO_ROOM = 128,   /* for more than 4 requests and 4 completions: tests let them run over */

  ALOOP__RING_NO_TIMEOUT = 256,  /* a limit for a wait (5.11) */
  ALOOP__RING_NO_SILENCE = 512,  /* requests that say nothing when all went well (5.17) */
  ALOOP__RING_NO_BACKLOG = 1024, /* completions that run over are kept (5.5) */
  ALOOP__RING_NOTHING = 2048     /* io_uring at all */
};
extern atomic_uint aloop__ring_forbidden;

static inline bool aloop__ring_forbids(unsigned feature) {
  return (atomic_load_explicit(&aloop__ring_forbidden, memory_order_relaxed) & feature) != 0;
}

typedef struct aloop__ring {
  int fd;
  bool enabled; /* it belongs to a thread from the first wait on */
  bool defers;  /* completions wait for us to enter */
  bool hosted;  /* somebody waits for its descriptor instead of entering */

  _Atomic uint32_t *sq_head, *sq_tail, *sq_flags;
  uint32_t sq_mask, sq_size;
  uint32_t tail; /* ours; the shared one follows at submission */
  struct io_uring_sqe *sqes;

  _Atomic uint32_t *cq_head, *cq_tail;
  uint32_t cq_mask;
  struct io_uring_cqe *cqes;

  void *map;
  size_t map_size;
  size_t sqes_size;
  unsigned forks; /* of the process that opened it */

  uint64_t *owed; /* cancels that there was no room for: names of requests */
  size_t owed_count, owed_room;
} aloop__ring_t;

/* `hosted`: its descriptor shall tell of completions without being asked. `*reason` says in words what is
 * missing, if anything is. */
int aloop__ring_open(aloop__ring_t *ring, uint32_t entries, bool hosted, const char **reason);
void aloop__ring_close(aloop__ring_t *ring); /* whose `owed` is the caller's to free */

/* Why a ring cannot be opened, or NULL. */
const char *aloop__ring_missing(void);

/* Whether it is the parent's, in the child of a fork. Both see the same queues, so the child leaves them alone:
 * it has no requests, no completions, and enters nothing. */
bool aloop__ring_is_inherited(const aloop__ring_t *ring);

/* Hands over what was prepared; `wait`: until a completion is there, or `timeout` ns (< 0: forever) have
 * passed. Completions that wait for us come in, too. Returns 0, or a code: ALOOP_EEXIST in another thread than
 * the ring's; ALOOP_EAGAIN for "timed out" and "interrupted". */
int aloop__ring_enter(aloop__ring_t *ring, bool wait, int64_t timeout);

/* How much the kernel has not taken yet. */
static inline uint32_t aloop__ring_prepared(const aloop__ring_t *ring) {
  return ring->tail - atomic_load_explicit(ring->sq_head, memory_order_acquire) + (uint32_t)ring->owed_count;
}

/* Hands over what was prepared now, if the ring belongs to a thread yet or nobody can know when one will enter:
 * what it cancels keeps files open. */
static inline void aloop__ring_hand_over(aloop__ring_t *ring) {
  if (ring->enabled || ring->hosted) aloop__ring_enter(ring, false, 0);
}

/* The next free request, cleared; the queue is handed over when it is full. NULL: the kernel took nothing. */
struct io_uring_sqe *aloop__ring_request(aloop__ring_t *ring);

/* Asks the kernel to end the request of that name; its completion comes all the same. While the kernel takes
 * nothing the wish is kept. False: there is no memory to keep it in, or the ring is a parent's. */
bool aloop__ring_cancel(aloop__ring_t *ring, const aloop_allocator_t *allocator, uint64_t name);

/* Completions that are there, and taking the first ones off. */
static inline uint32_t aloop__ring_completed(const aloop__ring_t *ring) {
  return atomic_load_explicit(ring->cq_tail, memory_order_acquire) -
         atomic_load_explicit(ring->cq_head, memory_order_relaxed);
}

static inline const struct io_uring_cqe *aloop__ring_peek(const aloop__ring_t *ring, uint32_t index) {
  return &ring->cqes[(atomic_load_explicit(ring->cq_head, memory_order_relaxed) + index) & ring->cq_mask];
}

static inline void aloop__ring_take(aloop__ring_t *ring, uint32_t count) {
  uint32_t head = atomic_load_explicit(ring->cq_head, memory_order_relaxed);
  atomic_store_explicit(ring->cq_head, head + count, memory_order_release);
}

/* Whether the kernel holds completions back until we enter. */
static inline bool aloop__ring_has_work(const aloop__ring_t *ring) {
  uint32_t flags = atomic_load_explicit(ring->sq_flags, memory_order_relaxed);
  return (flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

/* ---- Completions for the driver ---- */

/* One that came with the last wait. Events with ALOOP__COMPLETED (core/watch.h) have its index as token. */
typedef struct aloop__ring_done {
  uint64_t name;
  int32_t result;
  uint32_t flags;
} aloop__ring_done_t;

/* The ring behind a poller's state, and a completion taken off its list. */
aloop__ring_t *aloop__uring_ring(void *poller_state);
aloop__ring_done_t aloop__uring_take(void *poller_state, uint32_t index); /* SILENT: it was taken before */

/* The one at an index if it is there, not taken, and of that name. */
bool aloop__uring_take_same(void *poller_state, uint32_t index, uint64_t name, aloop__ring_done_t *completion);

/* The oldest completion that is left, on the list or in the ring. */
bool aloop__uring_take_next(void *poller_state, aloop__ring_done_t *completion);

#endif
#endif
