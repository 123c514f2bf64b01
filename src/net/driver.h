/* SPDX-License-Identifier: MIT
 *
 * The I/O driver: how bytes and connections move between descriptors and the transports above. There are two
 * ways the kernel offers it: readiness ("you may read now", readiness.c) and completion ("here is what was
 * read", io_uring). Transports and listeners know only this table, and each driver calls back through
 * aloop__stream_... and aloop__listener_... functions.
 *
 * Each transport names its driver, because descriptors differ: the loop's own driver serves sockets, and what
 * is not a socket (a pipe, a terminal) brings another.
 */
#ifndef ALOOP_NET_DRIVER_H
#define ALOOP_NET_DRIVER_H

#include "aloop.h"
#include "core/spares.h"
#include "net/address.h"
#include "net/stream.h"

typedef struct aloop__listener aloop__listener_t;

struct aloop__driver {
  const char *name;

  /* Of the transport; 0: that of aloop_transport_t, with which a longer one begins. */
  size_t transport_size;

  /* Makes a caller's descriptor (flag BORROWED) fit, and undoes that. On failure it is as it was. */
  int (*adopt)(aloop_transport_t *transport, aloop__adopted_t *before);
  void (*give_back)(aloop_transport_t *transport, const aloop__adopted_t *before);

  /* The end of the descriptor; a borrowed one stays open. */
  void (*close)(aloop_transport_t *transport);

  /* Takes charge of the transport's descriptor; leaves it, so that it may be closed when this returns. */
  int (*attach)(aloop_transport_t *transport);
  void (*detach)(aloop_transport_t *transport);

  /* Starts and stops delivering bytes to aloop__stream_received. After a stop nothing is delivered. Started
   * once more after EOF it tells EOF again. */
  int (*read)(aloop_transport_t *transport, bool on);

  /* Sends what the socket takes at once. Returns the bytes taken (they are the caller's no more), ALOOP_EAGAIN
   * if none, or an error. A driver that cannot tell at once answers ALOOP_EAGAIN. Called with an empty outbox,
   * or for the first bytes of it. */
  ssize_t (*send)(aloop_transport_t *transport, const struct iovec *iov, int count);

  /* The outbox has bytes: sends them as the socket takes them, reporting each part to aloop__stream_sent, now
   * or later. Called again after each append; must be cheap when already at work. */
  int (*flush)(aloop_transport_t *transport);

  /* Sends from a file: as send. ALOOP_ENOTSUP: use the fallback. */
  ssize_t (*sendfile)(aloop_transport_t *transport, int file, int64_t offset, int64_t count);

  /* A sendfile is over, however it ended. NULL: that does not matter. */
  void (*sendfile_over)(aloop_transport_t *transport);

  /* The descriptor from which and to which splice(2) may move bytes behind the driver's back, or -1. NULL
   * member: none. Such a driver watches through `watch`. */
  int (*splice_fd)(const aloop_transport_t *transport);

  /* A relay has the transport: from now on, or soon, what arrives stays in the socket until it is read, perhaps
   * by another driver. NULL: it does anyway. */
  void (*relayed)(aloop_transport_t *transport);

  /* Tells the peer that nothing more comes; the outbox is empty. */
  int (*send_eof)(aloop_transport_t *transport);

  /* ---- Of a driver that is a transport over another; NULL in those over descriptors ---- */

  /* Bytes that have left the outbox and that the transport beneath has not sent yet. */
  size_t (*beneath)(const aloop_transport_t *transport);

  /* Whether the write side can be closed alone. NULL: yes. */
  bool (*can_send_eof)(const aloop_transport_t *transport);

  /* close was called; and, closing, the outbox is empty: the driver ends the transport now or later. */
  void (*closing)(aloop_transport_t *transport);
  void (*finish)(aloop_transport_t *transport);

  /* The transport with the descriptor. */
  aloop_transport_t *(*bottom)(aloop_transport_t *transport);

  /* The last reference went. */
  void (*destroy)(aloop_transport_t *transport);

  /* ---- Of all kinds ---- */

  /* In the child of a fork the outbox is about to be cleared: what the driver has of it is to be forgotten.
   * NULL: it has nothing. */
  void (*forked)(aloop_transport_t *transport);

  /* Calls aloop__stream_room once the socket takes bytes again. */
  int (*await_room)(aloop_transport_t *transport);

  /* Starts and stops delivering connections to aloop__listener_accepted. From the first start on the driver has
   * charge of the descriptor, also while it is stopped; forget leaves it, so that it may be closed. */
  int (*listen)(aloop__listener_t *listener, bool on);
  void (*forget)(aloop__listener_t *listener);

  /* Starts and stops delivering the datagrams of an endpoint, whose watch is claimed. NULL: by that watch. */
  int (*receive)(aloop_datagram_t *endpoint, bool on);
};

extern const aloop__driver_t aloop__driver_readiness;
extern const aloop__driver_t aloop__driver_unix;      /* passes descriptors along: fdpass.c */
extern const aloop__driver_t aloop__driver_seqpacket; /* ... and keeps messages apart */

enum {
  ALOOP__READ_BUDGET = 262144,           /* bytes per descriptor and turn */
  ALOOP__READ_SIZE = ALOOP__READ_BUDGET, /* the shared read buffer: one recv brings all of a turn's */
  ALOOP__READ_HINT = 65536,              /* what get_buffer is told */
  ALOOP__CORK_SIZE = 16384,              /* gathered small writes */
  ALOOP__CORK_PARTS = 32
};

/* Writes made inside data_received, on their way out together. Parts point into the shared read buffer (an
 * echo: no copy) or into `bytes`, where other small writes are collected. */
typedef struct aloop__cork {
  const aloop_transport_t *owner; /* whose writes are gathered; NULL: nobody's */
  const char *data;               /* what the data_received that is running was given */
  size_t data_size;
  int parts;
  uint32_t used; /* of the cork buffer; beside `parts`, so that one store empties both */
  struct iovec iov[ALOOP__CORK_PARTS];
} aloop__cork_t;

/* Writes to one transport in a row (write.c). */
typedef struct aloop__row {
  const aloop_transport_t *last; /* written to; only to be compared */
  uint64_t callback;             /* ... in this one, by number */
  aloop_transport_t *owner;      /* whose writes wait in its outbox for the end of the turn, or NULL */
} aloop__row_t;

/* What the network keeps per loop; made with the first transport or server. */
typedef struct aloop__net {
  aloop__room_t room;
  const aloop__driver_t *driver; /* of sockets */
  aloop__cork_t cork;
  aloop__row_t row;
  int spare_fd;                     /* given up for a moment when the process is out of descriptors; -1: none */
  char *read_buffer;                /* ALOOP__READ_SIZE, from the beginning of a page on */
  void *read_memory;                /* ... in this block */
  char *cork_buffer;                /* ALOOP__CORK_SIZE */
  char *packet_buffer;              /* of seqpacket.c; NULL until first needed */
  struct aloop__dgrams *dgrams;     /* datagram.h; NULL until first needed */
  struct aloop__splice_pipe *pipes; /* splice.c: a list of empty ones */
  int pipes_count;
  aloop__spares_t spares;                   /* stream.c: blocks for transports of `driver` */
  aloop__list_t spreads;                    /* spread.c: servers that wait for news from other loops */
  struct aloop__completion_net *completion; /* completion.h; NULL: another poller, or an old kernel */
} aloop__net_t;

/* Where it is known to exist. */
static inline aloop__net_t *aloop__net_of(const aloop_t *loop) {
  return (aloop__net_t *)(void *)loop->rooms[ALOOP__ROOM_NET];
}

/* Where it may have to be made. NULL: out of memory. */
aloop__net_t *aloop__net_make(aloop_t *loop);
static inline aloop__net_t *aloop__net_open(aloop_t *loop) {
  aloop__net_t *net = aloop__net_of(loop);
  return ALOOP_LIKELY(net != NULL) ? net : aloop__net_make(loop);
}

#endif
