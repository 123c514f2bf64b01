/* SPDX-License-Identifier: MIT
 *
 * The I/O driver of Unix sockets that keep messages apart (SOCK_SEQPACKET): one write is one message, one
 * data_received is one message, empty ones included.
 *
 * Sending. The kernel takes a message whole or not at all. One that it does not take now waits in the outbox as
 * a chunk of its own (aloop__outbox_append_message), and each chunk leaves with a call of its own. Nothing is
 * gathered while data_received runs: the cork is never opened here, so every write goes its own way. Two
 * messages in one call would need sendmmsg, and save little: the way through a Unix socket is short.
 *
 * Receiving. An empty message and the end of the connection look the same, zero bytes; but a message has a time
 * stamp where these are asked for (SO_TIMESTAMP) or the mark of a record's end (MSG_EOR, BSD), and the end has
 * neither. A message is received into a buffer that all such transports of a loop share, large enough for what
 * a socket takes by default, or into the protocol's own. One that does not fit is lost in part, which cannot be
 * made good: the connection ends with ALOOP_EMSGSIZE.
 *
 * After a message another receive is tried, but not at each event where that brought nothing: question and
 * answer cost one call each, and a row of messages is received in one turn.
 */
#include <errno.h>
#include <sys/socket.h>

#include "core/memory.h"
#include "net/fdpass.h"
#include "net/readiness.h"

enum {
  BUFFER = 262144,
  MESSAGES_PER_TURN = 64,
  SKIPS = 7 /* events between two attempts to find a second message */
};

/* ---- Sending --------------------------------------------------------------------------------------------- */

/* One message, or ALOOP_EAGAIN. An empty one is a byte at aloop__outbox_nothing, and sent as a part without
 * bytes: POSIX lets sendmsg refuse a message without parts. */
static ssize_t send_now(aloop_transport_t *transport, const struct iovec *iov, int count) {
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  const aloop__parcel_t *parcel = self->parcels;
  bool begins = parcel != NULL && parcel->at == self->sent, empty = iov->iov_base == aloop__outbox_nothing;
  aloop__fdcontrol_t control;
  struct iovec nothing = {.iov_base = iov->iov_base};
  struct msghdr message = {.msg_iov = empty ? &nothing : (struct iovec *)iov};
  message.msg_iovlen = (unsigned char)count;
  if (ALOOP_UNLIKELY(begins)) aloop__fdpass_enclose(&message, &control, parcel);
  ssize_t n = aloop__readiness_result(sendmsg(transport->watch.fd, &message, MSG_NOSIGNAL));
  if (n < 0) return n;
  if (empty) n = 1;
  self->sent += (uint64_t)n;
  if (begins) aloop__fdpass_drop_first(self);
  return n;
}

static void writable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  aloop__stream_enter_context(loop, transport);
  for (int i = 0; i < MESSAGES_PER_TURN && !aloop__outbox_empty(&transport->outbox); i++) {
    struct iovec part;
    aloop__outbox_peek(&transport->outbox, &part, 1);
    ssize_t n = send_now(transport, &part, 1);
    if (n == ALOOP_EAGAIN) return;
    if (n < 0)
      aloop__stream_end(transport, (int)n);
    else
      aloop__stream_sent(transport, (size_t)n);
  }
  if (transport->object.state < ALOOP__ENDING && aloop__outbox_empty(&transport->outbox))
    aloop__readiness_watch(transport, ALOOP_WRITABLE, false);
}

/* ---- Receiving ------------------------------------------------------------------------------------------- */

/* Where the next message goes. False: the protocol wants none now, or the connection has ended. */
static bool find_room(aloop_transport_t *transport, void **buffer, size_t *size) {
  *buffer = aloop__net_of(transport->object.loop)->packet_buffer;
  *size = BUFFER;
  if (transport->table->get_buffer == NULL) return true;
  int rc = aloop__stream_get_buffer(transport, buffer, size);
  if (rc < 0) aloop__stream_end(transport, rc);
  return rc > 0;
}

static void deliver(aloop_transport_t *transport, const void *data, size_t size) {
  const aloop_protocol_t *table = transport->table;
  int rc = 0;
  if (ALOOP_UNLIKELY(transport->flags & ALOOP__EXTRAS)) aloop__stream_touch(transport, true, false);
  if (table->get_buffer != NULL) {
    if (table->buffer_updated != NULL) rc = table->buffer_updated(transport, transport->protocol, size);
  } else if (table->data_received != NULL) {
    rc = table->data_received(transport, transport->protocol, data, size);
  }
  if (ALOOP_UNLIKELY(rc < 0)) aloop__stream_end(transport, rc);
}

/* What a call that succeeded brought: a message, part of one, or the end. */
static void take(aloop_transport_t *transport, struct msghdr *message, const void *data, size_t size) {
  bool is_message = size > 0 || message->msg_controllen > 0 || (message->msg_flags & MSG_EOR) != 0;
  if (!is_message) {
    aloop__stream_received_eof(transport);
    return;
  }
  int rc = aloop__fdpass_unpack(aloop__fdpass_of(transport), message);
  if (rc == 0 && (message->msg_flags & MSG_TRUNC)) rc = ALOOP_EMSGSIZE;
  if (rc < 0)
    aloop__stream_end(transport, rc);
  else
    deliver(transport, data, size);
}

/* Receives and delivers one. Returns its size (of an empty one 1), or 0 if there is none now. */
static size_t receive(aloop_transport_t *transport) {
  aloop__fdcontrol_t control;
  struct iovec part;
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
  message.msg_controllen = sizeof control.bytes;
  if (!find_room(transport, &part.iov_base, &part.iov_len)) return 0;
  ssize_t n = recvmsg(transport->watch.fd, &message, ALOOP__RECEIVE_FLAGS);
  if (n >= 0)
    take(transport, &message, part.iov_base, (size_t)n);
  else if (!aloop__readiness_is_retry(errno))
    aloop__stream_end(transport, -errno);
  return n > 0 ? (size_t)n : n == 0;
}

static void readable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  size_t size = 0;
  int came = 0, most = self->skips > 0 ? 1 : MESSAGES_PER_TURN;
  aloop__stream_enter_context(loop, transport);
  if (self->skips > 0) self->skips--;
  while (came < most && size < ALOOP__READ_BUDGET && aloop__stream_wants_read(transport) &&
         loop->stop_error == 0) {
    size_t n = receive(transport);
    if (n == 0) {
      if (came == 1) self->skips = SKIPS;
      return;
    }
    size += n;
    came++;
  }
}

/* ---- The driver ------------------------------------------------------------------------------------------ */

static const aloop__watch_ops_t ops = {
    .name = "seqpacket transport", .readable = readable, .writable = writable};

static int attach(aloop_transport_t *transport) {
  aloop_t *loop = transport->object.loop;
  aloop__net_t *net = aloop__net_of(loop);
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  if (net->packet_buffer == NULL) net->packet_buffer = aloop__memory_new(loop, BUFFER);
  if (net->packet_buffer == NULL) return ALOOP_ENOMEM;
  self->last = &self->parcels;
  transport->flags |= ALOOP__MESSAGES;
#ifdef SO_NOSIGPIPE
  aloop__stream_set_nodelay(transport->watch.fd);
#endif
  return aloop__readiness_attach(transport, &ops);
}

/* The first time is after connection_made: a caller's descriptor is left as it is until then. */
static int read_or_not(aloop_transport_t *transport, bool on) {
#if defined(__linux__) && defined(SO_TIMESTAMP)
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  int yes = 1;
  if (on && !self->stamped) {
    if (setsockopt(transport->watch.fd, SOL_SOCKET, SO_TIMESTAMP, &yes, sizeof yes) < 0) return -errno;
    self->stamped = true;
  }
#endif
  return aloop__readiness_read(transport, on);
}

const aloop__driver_t aloop__driver_seqpacket = {
    .name = "seqpacket",
    .transport_size = sizeof(aloop__unix_transport_t),
    .adopt = aloop__readiness_adopt,
    .give_back = aloop__readiness_give_back,
    .close = aloop__fdpass_close,
    .attach = attach,
    .detach = aloop__fdpass_detach,
    .read = read_or_not,
    .send = send_now,
    .flush = aloop__readiness_flush,
    .send_eof = aloop__readiness_send_eof,
};
