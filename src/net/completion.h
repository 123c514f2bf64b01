/* SPDX-License-Identifier: MIT
 *
 * The completion driver: what its files share. See completion.c for the story.
 */
#ifndef ALOOP_NET_COMPLETION_H
#define ALOOP_NET_COMPLETION_H

#ifdef ALOOP_HAVE_IO_URING

#include "core/list.h"
#include "net/driver.h"
#include "net/listener.h"
#include "poller/ring.h"

enum { ALOOP__COMPLETION_RECEIVE = ALOOP__RING_DRIVER, ALOOP__COMPLETION_ACCEPT };

/* What a request was for, in its name: kind, arming, descriptor, and from bit 32 on the token of the watch. */
enum {
  ALOOP__COMPLETION_ARMING_AT = ALOOP__RING_KIND_BITS,
  ALOOP__COMPLETION_FD_AT = ALOOP__COMPLETION_ARMING_AT + 8,
  ALOOP__COMPLETION_FD_BITS = 32 - ALOOP__COMPLETION_FD_AT
};

static inline uint64_t aloop__completion_name(unsigned kind, uint8_t arming, const aloop__watch_t *watch) {
  return ((uint64_t)watch->generation << 32) | ((uint64_t)(uint32_t)watch->fd << ALOOP__COMPLETION_FD_AT) |
         ((uint64_t)arming << ALOOP__COMPLETION_ARMING_AT) | kind;
}

static inline uint8_t aloop__completion_arming(uint64_t name) {
  return (uint8_t)(name >> ALOOP__COMPLETION_ARMING_AT);
}

/* The watch that a request was made for, or NULL if it is gone. */
static inline aloop__watch_t *aloop__completion_watch(const aloop_t *loop, uint64_t name) {
  uint32_t fd = (uint32_t)name >> ALOOP__COMPLETION_FD_AT;
  aloop__watch_t *watch = fd < (uint32_t)loop->watches_size ? loop->watches[fd] : NULL;
  return watch != NULL && watch->generation == (uint32_t)(name >> 32) ? watch : NULL;
}

static inline aloop__ring_t *aloop__completion_of(const aloop_t *loop) {
  return aloop__uring_ring(loop->poller_state);
}

/* Why there was no room for a request. In the child of a fork all is asked for anew later. */
static inline int aloop__completion_refused(const aloop_t *loop) {
  return aloop__ring_is_inherited(aloop__completion_of(loop)) ? 0 : ALOOP_ENOBUFS;
}

/* Asks the kernel to end a request; its completion comes all the same. False: it could not be asked. */
bool aloop__completion_cancel(aloop_t *loop, uint64_t name);

/* ---- completion_buffers.c: memory that the kernel receives into ---- */

enum {
  ALOOP__COMPLETION_BUFFERS = 256,
  ALOOP__COMPLETION_LEAST = 16, /* so many are lent to the kernel at any rate */
  ALOOP__COMPLETION_BUFFER_SIZE = 16384,
  ALOOP__COMPLETION_STRIDE =
      ALOOP__COMPLETION_BUFFER_SIZE + 128 /* their beginnings lie in different cache lines */
};

typedef struct aloop__completion_buffers {
  struct io_uring_buf_ring *ring;
  char *memory;
  uint16_t tail;
  uint16_t window; /* so many may be lent to the kernel, */
  uint16_t lent;   /* ... and so many are, as far as we know */
  uint16_t spares_count;
  uint16_t spares[ALOOP__COMPLETION_BUFFERS];
  uint16_t burst;    /* taken in the turn after this poll, up to now */
  uint16_t pressure; /* how often there was none of late */
  uint32_t calm;     /* since so many the half would have done */
  uint64_t poll;
} aloop__completion_buffers_t;

/* Bytes of one receive that wait to be wanted: in the kernel's buffer, or a copy behind this. */
typedef struct aloop__held {
  struct aloop__held *next;
  const char *data; /* NULL: none */
  size_t size;
  uint32_t flags; /* name the buffer */
  bool copied;
} aloop__held_t;

int aloop__completion_buffers_open(aloop__completion_buffers_t *buffers, const aloop__held_t *held,
                                   const aloop__ring_t *ring);
/* The same memory for another ring; what is held stays so. */
int aloop__completion_buffers_move(aloop__completion_buffers_t *buffers, const aloop__held_t *held,
                                   const aloop__ring_t *ring);
void aloop__completion_buffers_close(aloop__completion_buffers_t *buffers);

static inline char *aloop__completion_buffer(const aloop__completion_buffers_t *buffers, uint32_t flags) {
  return buffers->memory + (size_t)(flags >> IORING_CQE_BUFFER_SHIFT) * ALOOP__COMPLETION_STRIDE;
}

/* A receive found no buffer. */
void aloop__completion_buffers_short(aloop__completion_buffers_t *buffers);

/* For a long time half of them would have done. */
void aloop__completion_buffers_calm(aloop__completion_buffers_t *buffers);

/* The kernel has put bytes into one. */
static inline void aloop__completion_take(aloop__completion_buffers_t *buffers, uint64_t poll) {
  enum { LONG = 8192 };
  buffers->lent--;
  if (buffers->pressure > 0) buffers->pressure--;
  if (buffers->poll != poll) buffers->burst = 0;
  buffers->poll = poll;
  if (++buffers->burst * 2 > buffers->window)
    buffers->calm = 0;
  else if (ALOOP_UNLIKELY(++buffers->calm == LONG))
    aloop__completion_buffers_calm(buffers);
}

static inline void aloop__completion_lend(aloop__completion_buffers_t *buffers, uint16_t index) {
  struct io_uring_buf *slot = &buffers->ring->bufs[buffers->tail & (ALOOP__COMPLETION_BUFFERS - 1)];
  slot->addr = (uint64_t)(uintptr_t)buffers->memory + (uint64_t)index * ALOOP__COMPLETION_STRIDE;
  slot->len = ALOOP__COMPLETION_BUFFER_SIZE;
  slot->bid = index;
  buffers->tail++;
  buffers->lent++;
  atomic_store_explicit((_Atomic uint16_t *)(void *)&buffers->ring->tail, buffers->tail, memory_order_release);
}

/* Nobody needs the bytes any more. */
static inline void aloop__completion_give_back(aloop__completion_buffers_t *buffers, uint32_t flags) {
  uint16_t index = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
  if (ALOOP_LIKELY(buffers->lent < buffers->window))
    aloop__completion_lend(buffers, index);
  else
    buffers->spares[buffers->spares_count++] = index;
}

/* ---- completion_accept.c: listeners ---- */

/* Connections that came when nobody wanted them any more, or not yet again. */
typedef struct aloop__completion_held_fd {
  int fd;
  int listener_fd;
  uint32_t token;
} aloop__completion_held_fd_t;

typedef struct aloop__completion_accepts {
  aloop__completion_held_fd_t *held;
  size_t held_count;
  size_t held_room;
  bool offering; /* they are going to be delivered soon */
} aloop__completion_accepts_t;

int aloop__completion_listen(aloop__listener_t *listener, bool on);
void aloop__completion_forget(aloop__listener_t *listener);
/* The completion of an accept; `keep`: it is only held. */
void aloop__completion_accepted(aloop_t *loop, const aloop__ring_done_t *completion, bool keep);
/* Asks again after the ring was opened anew. */
int aloop__completion_listen_again(aloop_t *loop, aloop__watch_t *watch);
bool aloop__completion_is_listener(const aloop__watch_t *watch);
void aloop__completion_accepts_close(aloop_t *loop, aloop__completion_accepts_t *accepts);

/* ---- Per loop ---- */

typedef struct aloop__completion_net {
  aloop__completion_buffers_t buffers;
  aloop__completion_accepts_t accepts;
  uint32_t held_buffers;
  aloop__held_t held[ALOOP__COMPLETION_BUFFERS]; /* by buffer */
  aloop__list_t waiting;  /* transports that have something to deliver which came before it was wanted */
  uint32_t waiting_count; /* at least as many */
  bool delivering;        /* ... and that is going to happen soon */
} aloop__completion_net_t;

extern const aloop__driver_t aloop__driver_completion;

/* Makes what the driver needs on a loop whose poller is the ring. ALOOP_ENOTSUP: the kernel lacks something;
 * the readiness driver will do. */
int aloop__completion_open(aloop_t *loop, aloop__completion_net_t **out);
void aloop__completion_close(aloop_t *loop, aloop__completion_net_t *state);

static inline aloop__completion_net_t *aloop__completion_net(const aloop_t *loop) {
  return aloop__net_of(loop)->completion;
}

#endif
#endif
