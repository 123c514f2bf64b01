/* SPDX-License-Identifier: MIT
 *
 * A relay as the stream sees it: what it has to be told of. See relay.c.
 */
#ifndef ALOOP_NET_RELAY_H
#define ALOOP_NET_RELAY_H

#include "net/stream.h"

/* The relay at work on a transport, or NULL. */
static inline aloop__relay_t *aloop__relay_of(const aloop_transport_t *transport) {
  return transport->extras != NULL ? transport->extras->relay : NULL;
}

/* The rule that a write (write_eof, sendfile, ...) breaks meanwhile. */
extern const char aloop__relay_rule[];

/* Bytes that wait in the kernel for the transport to take them. */
size_t aloop__relay_size(const aloop_transport_t *transport);

/* The user closes the transport, and therefore the relay and the other one. */
void aloop__relay_closed(aloop_transport_t *transport);

/* The transport has ended, and the relay and the other one with it. */
void aloop__relay_lost(aloop_transport_t *transport, int error);

/* All that was written to the transport is sent. */
void aloop__relay_drained(aloop_transport_t *transport);

/* In the child of a fork: what is in the pipe on its way to the transport is the parent's. */
void aloop__relay_forked(aloop_transport_t *transport);

/* The protocol that has the transport when there is no relay any more. */
void aloop__relay_set_protocol(aloop_transport_t *transport, const aloop_protocol_t *table, void *protocol);
void *aloop__relay_get_protocol(const aloop_transport_t *transport, const aloop_protocol_t **table);

#endif
