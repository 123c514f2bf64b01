/* SPDX-License-Identifier: MIT
 *
 * What every driver over a poller does alike, whichever system calls move its bytes: one read per event into
 * the loop's shared buffer, writing the outbox, watching. readiness.c is one such driver, for sockets; pipes
 * have theirs. The paths of every byte are inline and are given the driver's own calls, so that a driver is as
 * fast as if it were written out.
 */
#ifndef ALOOP_NET_READINESS_H
#define ALOOP_NET_READINESS_H

#include <errno.h>
#include <sys/socket.h>

#include "net/driver.h"
#include "net/write.h"

/* BSD has a socket option instead, set when the transport is made. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

typedef ssize_t (*aloop__receive_fn)(aloop_transport_t *, void *, size_t); /* as read(2): -1 and errno */
typedef ssize_t (*aloop__send_fn)(aloop_transport_t *, const struct iovec *, int);
typedef void (*aloop__read_on_fn)(aloop_transport_t *, aloop__net_t *);

enum { ALOOP__FLUSH_PARTS = 64 };

/* Of a read, in bytes of the budget: a tiny buffer must not mean a quarter of a million system calls. */
enum { ALOOP__LEAST_COST = 4096 };

/* EINTR counts as "not now": the poller will say so again. */
static inline bool aloop__readiness_is_retry(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* What a send of a driver returns, of what the system call returned. */
ssize_t aloop__readiness_send_error(void);
static inline ssize_t aloop__readiness_result(ssize_t n) {
  return ALOOP_LIKELY(n >= 0) ? n : aloop__readiness_send_error();
}

/* The same where it is not what was offered. */
ssize_t aloop__readiness_other_result(ssize_t n);

/* A read brought no bytes: EOF, nothing yet, or an error (in errno). */
void aloop__readiness_received_none(aloop_transport_t *transport, ssize_t n);

/* One sendfile(2) to a descriptor, SIGPIPE held back: as aloop__driver_t.sendfile. */
ssize_t aloop__readiness_send_file(int fd, int file, int64_t offset, int64_t count);

/* Claims the descriptor; leaves it; watches one direction, or no more. */
int aloop__readiness_attach(aloop_transport_t *transport, const aloop__watch_ops_t *ops);
void aloop__readiness_detach(aloop_transport_t *transport);
static inline int aloop__readiness_watch(aloop_transport_t *transport, uint32_t direction, bool on) {
  uint32_t interest = aloop__watch_interest(&transport->watch) & ~direction;
  return aloop__watch_set(transport->object.loop, &transport->watch, interest | (on ? direction : 0u));
}

/* Its listeners; those of another driver may become such. */
extern const aloop__watch_ops_t aloop__readiness_listener_ops;
int aloop__readiness_listen(aloop__listener_t *listener, bool on);

/* The readiness driver serves a socket from now on that another driver has had, with its watch. */
void aloop__readiness_take_over(aloop_transport_t *transport);

/* aloop__driver_t.read and .flush of a driver that watches. */
int aloop__readiness_read(aloop_transport_t *transport, bool on);
int aloop__readiness_flush(aloop_transport_t *transport);

/* ... and of one over a socket. */
int aloop__readiness_adopt(aloop_transport_t *transport, aloop__adopted_t *before);
void aloop__readiness_give_back(aloop_transport_t *transport, const aloop__adopted_t *before);
void aloop__readiness_close(aloop_transport_t *transport);
int aloop__readiness_send_eof(aloop_transport_t *transport);
ssize_t aloop__readiness_socket_sendfile(aloop_transport_t *transport, int file, int64_t offset, int64_t count);
void aloop__readiness_socket_readable(aloop_t *loop, void *watch);
void aloop__readiness_socket_writable(aloop_t *loop, void *watch);

static inline ssize_t aloop__readiness_socket_send(aloop_transport_t *transport, const struct iovec *iov,
                                                   int count) {
  if (ALOOP_LIKELY(count == 1)) {
    /* Whoever called asks whether all of it was taken; asked here first, nothing else has to be. */
    ssize_t n = send(transport->watch.fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    return ALOOP_LIKELY(n == (ssize_t)iov->iov_len) ? n : aloop__readiness_other_result(n);
  }
  struct msghdr message = {.msg_iov = (struct iovec *)iov};
  message.msg_iovlen = (unsigned char)count;
  return aloop__readiness_result(sendmsg(transport->watch.fd, &message, MSG_NOSIGNAL));
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

/* One read into a buffered protocol's memory. Returns whether there may be more. */
ALOOP_INLINE bool aloop__readiness_read_buffered(aloop_transport_t *transport, aloop__net_t *net,
                                                 size_t *budget, aloop__receive_fn receive,
                                                 aloop__send_fn send) {
  void *buffer;
  size_t size;
  int rc = aloop__stream_get_buffer(transport, &buffer, &size);
  if (rc < 0) aloop__stream_end(transport, rc);
  if (rc <= 0) return false;
  ssize_t n = receive(transport, buffer, size);
  if (n <= 0) {
    aloop__readiness_received_none(transport, n);
    return false;
  }
  aloop__stream_received(transport, &net->cork, buffer, (size_t)n, send);
  size_t cost = n > ALOOP__LEAST_COST ? (size_t)n : ALOOP__LEAST_COST;
  if ((size_t)n < size || cost >= *budget) return false;
  *budget -= cost;
  return aloop__stream_wants_read(transport) && transport->object.loop->stop_error == 0;
}

/* One read into the shared buffer, which is all of a turn's budget. */
ALOOP_INLINE void aloop__readiness_read_shared(aloop_transport_t *transport, aloop__net_t *net,
                                               aloop__receive_fn receive, aloop__send_fn send) {
  ssize_t n = receive(transport, net->read_buffer, ALOOP__READ_SIZE);
  if (n <= 0)
    aloop__readiness_received_none(transport, n);
  else
    aloop__stream_received(transport, &net->cork, net->read_buffer, (size_t)n, send);
}

/* All of a turn's reading where it is not the usual one. The protocol may change between two reads. A driver
 * wraps it in a function of its own, which is not inline. */
ALOOP_INLINE void aloop__readiness_read_on(aloop_transport_t *transport, aloop__net_t *net,
                                           aloop__receive_fn receive, aloop__send_fn send) {
  size_t budget = ALOOP__READ_BUDGET;
  aloop__stream_enter_context(transport->object.loop, transport);
  bool more = aloop__stream_wants_read(transport);
  while (more && transport->table->get_buffer != NULL)
    more = aloop__readiness_read_buffered(transport, net, &budget, receive, send);
  if (more && budget == ALOOP__READ_BUDGET) aloop__readiness_read_shared(transport, net, receive, send);
}

/* The usual reading is one read for a protocol without a buffer and a transport without extras. No reference is
 * needed: the loop's own lasts until the queued connection_lost ran, which is never inside this call. */
ALOOP_INLINE void aloop__readiness_readable(aloop_t *loop, aloop_transport_t *transport,
                                            aloop__receive_fn receive, aloop__send_fn send,
                                            aloop__read_on_fn read_on) {
  aloop__net_t *net = aloop__net_of(loop);
  if (ALOOP_UNLIKELY(transport->flags & ALOOP__UNUSUAL)) {
    read_on(transport, net);
    return;
  }
  ssize_t n = receive(transport, net->read_buffer, ALOOP__READ_SIZE);
  if (ALOOP_LIKELY(n > 0))
    aloop__stream_deliver(transport, &net->cork, net->read_buffer, (size_t)n, send);
  else
    aloop__readiness_received_none(transport, n);
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

ALOOP_INLINE void aloop__readiness_write_outbox(aloop_transport_t *transport, aloop__send_fn send) {
  struct iovec iov[ALOOP__FLUSH_PARTS];
  while (!aloop__outbox_empty(&transport->outbox)) {
    size_t before = aloop__outbox_size(&transport->outbox);
    int count = aloop__outbox_peek(&transport->outbox, iov, ALOOP__FLUSH_PARTS);
    ssize_t n = send(transport, iov, count);
    if (n == ALOOP_EAGAIN) return;
    if (n < 0) {
      aloop__stream_end(transport, (int)n);
      return;
    }
    size_t offered = aloop__iov_total(iov, count);
    aloop__stream_sent(transport, (size_t)n);
    /* A part means a full socket; a caller that wrote meanwhile gets its turn with the next event. In the child
     * of a fork inside resume_writing the rest is the parent's. */
    if ((size_t)n < offered || aloop__outbox_size(&transport->outbox) > before - (size_t)n ||
        transport->object.loop->stop_error != 0)
      return;
  }
}

ALOOP_INLINE void aloop__readiness_writable(aloop_t *loop, aloop_transport_t *transport, aloop__send_fn send) {
  aloop__stream_enter_context(loop, transport);
  if (!aloop__outbox_empty(&transport->outbox))
    aloop__readiness_write_outbox(transport, send);
  else
    aloop__stream_room(transport);
  if (transport->object.state < ALOOP__ENDING && aloop__outbox_empty(&transport->outbox) &&
      !(transport->flags & (ALOOP__SENDFILE | ALOOP__AWAITED)))
    aloop__readiness_watch(transport, ALOOP_WRITABLE, false);
}

#endif
