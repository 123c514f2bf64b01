/* SPDX-License-Identifier: MIT
 *
 * The forwarder: one endpoint for clients, one for each upstream resolver, and the queries between them.
 */
#ifndef DNS_FORWARDER_H
#define DNS_FORWARDER_H

#include "aloop.h"
#include "pending.h"

enum { UPSTREAMS_MAX = 8 };

typedef struct forwarder forwarder_t;

typedef struct upstream {
  forwarder_t *forwarder;
  aloop_datagram_t *endpoint; /* connected to the resolver; set by upstream_protocol */
} upstream_t;

struct forwarder {
  aloop_t *loop;
  aloop_datagram_t *clients; /* set by clients_protocol */
  int64_t timeout;           /* for each try, in ns */
  size_t tries;
  size_t upstream_count;
  upstream_t upstreams[UPSTREAMS_MAX];
  pending_t pending;
};

/* For aloop_create_datagram_endpoint, with the forwarder_t * or an upstream_t * as argument. */
extern const aloop_datagram_protocol_t clients_protocol;
extern const aloop_datagram_protocol_t upstream_protocol;

/* Forgets all queries, without an answer. */
void forwarder_clear(forwarder_t *forwarder);

#endif
