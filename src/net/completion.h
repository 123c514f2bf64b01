/* SPDX-License-Identifier: MIT
 *
 * The completion driver: what its files share. See completion.c for the story.
 */
#ifndef ALOOP_NET_COMPLETION_H
#define ALOOP_NET_COMPLETION_H

#ifdef ALOOP_HAVE_IO_URING

#include "net/driver.h"
#include "net/listener.h"
#include "poller/ring.h"

enum { ALOOP__COMPLETION_RECEIVE = ALOOP__RING_DRIVER, ALOOP__COMPLETION_ACCEPT, ALOOP__COMPLETION_DATAGRAM };

/* What a request was for, in its name: kind, arming, descriptor, and from bit 32 on the token of the watch. */
enum {
  ALOOP__COMPLETION_ARMING_AT = ALOOP__RING_KIND_BITS,
  ALOOP__COMPLETION_FD_AT = ALOOP__COMPLETION_ARMING_AT + 8,
  ALOOP__COMPLETION_FD_BITS = 32 - ALOOP__COMPLETION_FD_AT
};

static inline uint64_t aloop__completion_name(unsigned kind, uint8_t arming, const aloop__watch_t *watch) {
  return ((uint64_t)aloop__watch_generation(watch) << 32) |
         ((uint64_t)(uint32_t)watch->fd << ALOOP__COMPLETION_FD_AT) |
         ((uint64_t)arming << ALOOP__COMPLETION_ARMING_AT) | kind;
}

static inline uint8_t aloop__completion_arming(uint64_t name) {
  return (uint8_t)(name >> ALOOP__COMPLETION_ARMING_AT);
}

/* The watch that a request was made for, or NULL if it is gone. */
static inline aloop__watch_t *aloop__completion_watch(const aloop_t *loop, uint64_t name) {
  uint32_t fd = (uint32_t)name >> ALOOP__COMPLETION_FD_AT;
  aloop__watch_t *watch = fd < (uint32_t)loop->watches_size ? loop->watches[fd] : NULL;
  return watch != NULL && aloop__watch_generation(watch) == (uint32_t)(name >> 32) ? watch : NULL;
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
  ALOOP__COMPLETION_BUFFERS = 256, /* at most */
  ALOOP__COMPLETION_COLOUR = 128   /* beginnings of buffers lie in different cache lines */
};

typedef struct aloop__completion_shape {
  uint16_t group;  /* its name for the kernel */
  uint16_t count;  /* a power of two, ALOOP__COMPLETION_BUFFERS at most */
  uint16_t least;  /* so many are lent to the kernel at any rate */
  uint16_t weight; /* a receive that finds none counts as so many that do */
  uint32_t size;
  bool
      in_pieces; /* each receive takes of a buffer what it needs, and the next one goes on behind that (6.12) */
} aloop__completion_shape_t;

/* Of a buffer. */
typedef struct aloop__completion_use {
  uint32_t filled; /* where the next piece begins */
  uint16_t pieces; /* that are needed still */
  bool lent;       /* the kernel may put more into it */
} aloop__completion_use_t;

typedef struct aloop__completion_buffers {
  struct io_uring_buf_ring *ring;
  char *memory;
  uint32_t stride;
  uint16_t tail;
  uint16_t window; /* so many may be lent to the kernel, */
  uint16_t lent;   /* ... and so many are, as far as we know */
  uint16_t burst;  /* used up in the turn after this poll, up to now */
  uint64_t poll;
  uint32_t pressure; /* how often there was none of late */
  uint32_t calm;     /* since so many the half would have done */
  aloop__completion_shape_t shape;
  uint16_t spares_count;
  uint16_t spares[ALOOP__COMPLETION_BUFFERS];
  aloop__completion_use_t uses[ALOOP__COMPLETION_BUFFERS];
} aloop__completion_buffers_t;

/* ALOOP_ENOTSUP: the kernel has no such buffers. */
int aloop__completion_buffers_open(aloop__completion_buffers_t *buffers, const aloop__completion_shape_t *shape,
                                   const aloop__ring_t *ring);
/* The same memory for another ring; what is needed still stays. */
int aloop__completion_buffers_move(aloop__completion_buffers_t *buffers, const aloop__ring_t *ring);
void aloop__completion_buffers_close(aloop__completion_buffers_t *buffers);

static inline uint16_t aloop__completion_index(uint32_t flags) {
  return (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
}

/* A receive found no buffer. */
void aloop__completion_buffers_short(aloop__completion_buffers_t *buffers);

/* For a long time half of them would have done. */
void aloop__completion_buffers_calm(aloop__completion_buffers_t *buffers);

/* The kernel has no use for a buffer any more. */
static inline void aloop__completion_used_up(aloop__completion_buffers_t *buffers, uint64_t poll) {
  enum { LONG = 8192 };
  buffers->lent--;
  if (buffers->poll != poll) buffers->burst = 0;
  buffers->poll = poll;
  if (++buffers->burst * 2 > buffers->window)
    buffers->calm = 0;
  else if (ALOOP_UNLIKELY(++buffers->calm == LONG))
    aloop__completion_buffers_calm(buffers);
}

/* Whether the kernel has used a buffer. Of one that is filled in pieces some kernels say so also when there was
 * nothing to put into it, at the end of a stream, and go on with it. */
static inline bool aloop__completion_has_piece(const aloop__completion_buffers_t *buffers,
                                               const aloop__ring_done_t *completion) {
  return (completion->flags & IORING_CQE_F_BUFFER) != 0 &&
         (completion->result > 0 || !buffers->shape.in_pieces);
}

/* The piece that the kernel has filled, which stays until it is given back. */
static inline char *aloop__completion_take(aloop__completion_buffers_t *buffers,
                                           const aloop__ring_done_t *completion, uint64_t poll) {
  uint16_t index = aloop__completion_index(completion->flags);
  aloop__completion_use_t *use = &buffers->uses[index];
  char *piece = buffers->memory + (size_t)index * buffers->stride + use->filled;
  use->filled += (uint32_t)completion->result;
  use->pieces++;
  if (buffers->pressure > 0) buffers->pressure--;
  if (completion->flags & ALOOP__RING_BUFFER_MORE) return piece;
  use->lent = false;
  aloop__completion_used_up(buffers, poll);
  return piece;
}

static inline void aloop__completion_lend(aloop__completion_buffers_t *buffers, uint16_t index) {
  struct io_uring_buf *slot = &buffers->ring->bufs[buffers->tail & (buffers->shape.count - 1)];
  slot->addr = (uint64_t)(uintptr_t)buffers->memory + (uint64_t)index * buffers->stride;
  slot->len = buffers->shape.size;
  slot->bid = index;
  buffers->uses[index] = (aloop__completion_use_t){.lent = true};
  buffers->tail++;
  buffers->lent++;
  atomic_store_explicit((_Atomic uint16_t *)(void *)&buffers->ring->tail, buffers->tail, memory_order_release);
}

/* It is lent again, if there are not enough. */
static inline void aloop__completion_free(aloop__completion_buffers_t *buffers, uint16_t index) {
  if (ALOOP_LIKELY(buffers->lent < buffers->window))
    aloop__completion_lend(buffers, index);
  else
    buffers->spares[buffers->spares_count++] = index;
}

/* Nobody needs a piece any more. */
static inline void aloop__completion_give_back(aloop__completion_buffers_t *buffers, uint32_t flags) {
  uint16_t index = aloop__completion_index(flags);
  aloop__completion_use_t *use = &buffers->uses[index];
  use->pieces--;
  if (use->pieces == 0 && !use->lent) aloop__completion_free(buffers, index);
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

/* ---- completion_datagram.c: endpoints ---- */

struct aloop__completion_dgrams;

int aloop__completion_receive(aloop_datagram_t *endpoint, bool on);
int aloop__completion_receive_again(aloop_datagram_t *endpoint);
/* The completion of a receive, the first of those from `index` on; one that is only kept. */
void aloop__completion_datagram(aloop_t *loop, const aloop__ring_done_t *completion, uint32_t index);
void aloop__completion_datagram_keep(aloop_t *loop, const aloop__ring_done_t *completion);
int aloop__completion_datagrams_move(aloop_t *loop);
void aloop__completion_datagrams_close(aloop_t *loop, struct aloop__completion_dgrams *state);

/* ---- Per loop ---- */

typedef struct aloop__completion_net {
  aloop__completion_buffers_t buffers;
  aloop__completion_accepts_t accepts;
  struct aloop__completion_dgrams *dgrams; /* NULL until first needed */
  uint32_t held_pieces;                    /* that stay in their buffers */
  aloop_transport_t **waiting; /* that have something to deliver which came before it was wanted; NULL: a gap */
  size_t waiting_count, waiting_room;
  bool delivering; /* ... and that is going to happen soon */
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
