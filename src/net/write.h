/* SPDX-License-Identifier: MIT
 *
 * The cork: writes that are gathered while data_received runs. The row: those that are gathered elsewhere. See
 * write.c.
 */
#ifndef ALOOP_NET_WRITE_H
#define ALOOP_NET_WRITE_H

#include "net/driver.h"

/* Sends what was gathered when data_received has returned `rc`, of which an error ends the connection. */
void aloop__cork_end(aloop_transport_t *transport, int rc);

/* The same when the driver has tried to send the only part and got `n`: fewer bytes than there are, or an
 * error. */
void aloop__cork_end_sent(aloop_transport_t *transport, ssize_t n);

/* Sends what was gathered of a row, if there is one; of this transport's. Calls nothing of the user. */
void aloop__row_end(aloop_t *loop);
void aloop__row_flush(aloop_transport_t *transport);

/* aloop__room_t.after_fork of the network: the parent sends what it has gathered. */
void aloop__row_forget(aloop_t *loop);

/* Gathers writes also outside of data_received, from a callback's begin to its end at most, in which no other
 * transport or endpoint is read from. */
void aloop__cork_open(aloop_transport_t *transport);
void aloop__cork_close(aloop_transport_t *transport);

static inline void aloop__cork_empty(aloop__cork_t *cork) {
  cork->parts = 0;
  cork->used = 0;
}

/* The water marks that nobody has set; and those that a caller wishes for, or why not. */
enum {
  ALOOP__LOW_SHARE = 4,
  ALOOP__DEFAULT_HIGH = 65536,
  ALOOP__DEFAULT_LOW = ALOOP__DEFAULT_HIGH / ALOOP__LOW_SHARE
};
int aloop__write_limits(aloop_t *loop, int64_t high, int64_t low, uint32_t *new_high, uint32_t *new_low);

/* Bytes that were accepted and not yet sent, but for gathered ones: in the outbox, and in a transport
 * beneath. */
static inline size_t aloop__stream_unsent(const aloop_transport_t *transport) {
  size_t size = aloop__outbox_size(&transport->outbox);
  return ALOOP_LIKELY(transport->driver->beneath == NULL) ? size : size + transport->driver->beneath(transport);
}

/* Whether bytes wait for the peer to take them. */
static inline bool aloop__stream_has_unsent(const aloop_transport_t *transport) {
  return aloop__stream_unsent(transport) > 0 || (transport->flags & (ALOOP__SENDFILE | ALOOP__PIPED)) != 0;
}

/* Whether its writes are gathered now; in the cork, or there or in a row. A loop that is closed has neither. */
static inline bool aloop__cork_is_open(const aloop_transport_t *transport) {
  const aloop__net_t *net = aloop__net_of(transport->object.loop);
  return net != NULL && net->cork.owner == transport;
}

static inline bool aloop__write_is_gathered(const aloop_transport_t *transport) {
  const aloop__net_t *net = aloop__net_of(transport->object.loop);
  return net != NULL && (net->cork.owner == transport || net->row.owner == transport);
}

/* Sends what was gathered so far, in the cork or in a row; later order is kept by going on with none. */
void aloop__cork_flush_gathered(aloop_transport_t *transport);
static inline void aloop__cork_flush(aloop_transport_t *transport) {
  if (ALOOP_UNLIKELY(aloop__write_is_gathered(transport))) aloop__cork_flush_gathered(transport);
}

/* Forgets what was gathered. */
void aloop__cork_drop_gathered(aloop_transport_t *transport);
static inline void aloop__cork_drop(aloop_transport_t *transport) {
  if (ALOOP_UNLIKELY(aloop__write_is_gathered(transport))) aloop__cork_drop_gathered(transport);
}

/* Gathered bytes of this transport, in the cork. */
static inline size_t aloop__cork_size(const aloop_transport_t *transport) {
  if (ALOOP_LIKELY(!aloop__cork_is_open(transport))) return 0;
  const aloop__cork_t *cork = &aloop__net_of(transport->object.loop)->cork;
  return aloop__iov_total(cork->iov, cork->parts);
}

/* Tells the protocol that the buffer is too full, or no more, when a mark was crossed. */
void aloop__write_check_high(aloop_transport_t *transport);
void aloop__write_check_low(aloop_transport_t *transport);

/* What was gathered leaves, and an error of the callback ends the connection. */
ALOOP_INLINE void aloop__stream_delivered(aloop_transport_t *transport, aloop__cork_t *cork, int rc,
                                          ssize_t (*send)(aloop_transport_t *, const struct iovec *, int)) {
  cork->owner = NULL;
  uint32_t unusual = transport->flags & (ALOOP__SHUT | ALOOP__EXTRAS);
  if (ALOOP_UNLIKELY(cork->parts != 1) || ALOOP_UNLIKELY((unusual | (uint32_t)rc) != 0)) {
    if ((cork->parts | rc) != 0) aloop__cork_end(transport, rc);
    return;
  }
  ssize_t n = send(transport, cork->iov, 1);
  aloop__cork_empty(cork);
  if (ALOOP_UNLIKELY(n != (ssize_t)cork->iov[0].iov_len)) aloop__cork_end_sent(transport, n);
}

/* data_received, of a transport without the flag UNUSUAL. Inline, and handed the driver's own send, because it
 * is the path of every byte: the one answer to one message goes from here to the socket without a detour. */
ALOOP_INLINE void aloop__stream_deliver(aloop_transport_t *transport, aloop__cork_t *cork, const void *data,
                                        size_t size,
                                        ssize_t (*send)(aloop_transport_t *, const struct iovec *, int)) {
  cork->owner = transport;
  cork->data = data;
  cork->data_size = size;
  int rc = transport->table->data_received(transport, transport->protocol, data, size);
  aloop__stream_delivered(transport, cork, rc, send);
}

/* Called by the driver: `size` > 0 bytes arrived at `data`. */
ALOOP_INLINE void aloop__stream_received(aloop_transport_t *transport, aloop__cork_t *cork, const void *data,
                                         size_t size,
                                         ssize_t (*send)(aloop_transport_t *, const struct iovec *, int)) {
  if (ALOOP_LIKELY((transport->flags & ALOOP__UNUSUAL) == 0)) {
    aloop__stream_deliver(transport, cork, data, size, send);
    return;
  }
  const aloop_protocol_t *table = transport->table;
  int rc = 0;
  if (transport->flags & ALOOP__EXTRAS) aloop__stream_touch(transport, true, false);
  cork->owner = transport;
  cork->data = data;
  cork->data_size = size;
  if (table->get_buffer != NULL) {
    cork->data_size = 0; /* the memory is the protocol's, which may change it as soon as a write returns */
    if (table->buffer_updated != NULL) rc = table->buffer_updated(transport, transport->protocol, size);
  } else if (table->data_received != NULL) {
    rc = table->data_received(transport, transport->protocol, data, size);
  }
  aloop__stream_delivered(transport, cork, rc, send);
}

#endif
