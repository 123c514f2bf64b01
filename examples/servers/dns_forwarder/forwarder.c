/* SPDX-License-Identifier: MIT
 *
 * From the client's query to the answer of a resolver, and back.
 *
 * A query is kept while it is under way, so that it can be sent again: datagrams get lost. It goes out under an
 * id that nobody can guess, to one of the upstream resolvers after the other, each time with a deadline; after
 * the last one the client is told SERVFAIL. An answer counts if it comes from a resolver that was asked (the
 * kernel sees to that: the sockets are connected), under that id, and to the question that was put; to which of
 * the tries it is does not matter, or a resolver slower than the deadline would never be heard. It goes to the
 * client as it is, but for the id; "truncated" means that the client should ask again by TCP.
 *
 * What comes is handled in batches: all that one system call brought in one callback, and what is sent in it
 * leaves together as it returns. A client that asks faster than answers can be sent loses some; so it is with
 * UDP.
 *
 * Left out on purpose: a cache, TCP, and a new port for each try, which makes guessing harder still.
 */
#include "forwarder.h"

#include "message.h"

#include <stdlib.h>
#include <string.h>

enum {
  CLIENTS_BUFFER_MAX = 1 << 20,
  QUERY_MAX = 4096, /* more than any question needs; what waits has to be kept */
  MESSAGE_MAX = 65535,
};

typedef struct query {
  pending_entry_t entry; /* first, so that it is found by it */
  forwarder_t *forwarder;
  size_t tries; /* made so far */
  aloop_handle_t deadline;
  struct sockaddr_storage client, local; /* the address that asked, and the one it asked */
  socklen_t client_size, local_size;
  uint16_t id; /* the client's */
  size_t size;
  uint8_t data[]; /* the query, under the id of the entry */
} query_t;

/* ---- Answering ------------------------------------------------------------------------------------------- */

/* Sends from the address that the query came to: of another one the client would not take it. */
static void answer(const query_t *query, const void *data, size_t size) {
  aloop_message_t message = {.data = data,
                             .size = size,
                             .address = (const struct sockaddr *)&query->client,
                             .address_size = query->client_size,
                             .local = query->local_size > 0 ? (const struct sockaddr *)&query->local : NULL,
                             .local_size = query->local_size};
  aloop_datagram_send_many(query->forwarder->clients, &message, 1);
}

/* Says no to a query that is not going to be forwarded. */
static void refuse(const forwarder_t *forwarder, const aloop_message_t *from, const dns_message_t *message,
                   dns_rcode_t rcode) {
  uint8_t out[DNS_REFUSAL_MAX];
  aloop_message_t refusal = *from;
  refusal.data = out;
  refusal.size = dns_write_refusal(out, from->data, message, rcode);
  aloop_datagram_send_many(forwarder->clients, &refusal, 1);
}

static void end_query(query_t *query) {
  aloop_cancel(query->forwarder->loop, &query->deadline);
  pending_remove(&query->forwarder->pending, &query->entry);
  free(query);
}

/* ---- Asking ---------------------------------------------------------------------------------------------- */

/* Tells the client that nobody has answered. */
static void give_up(query_t *query) {
  uint8_t out[DNS_REFUSAL_MAX];
  dns_message_t message;
  dns_read(query->data, query->size, &message);
  message.id = query->id;
  answer(query, out, dns_write_refusal(out, query->data, &message, DNS_SERVFAIL));
  end_query(query);
}

/* The first try, and the next one when a deadline has passed. A datagram that cannot be sent is one that got
 * lost: the deadline sees to that, too. */
static void try_next(aloop_t *loop, void *arg) {
  query_t *query = arg;
  const forwarder_t *forwarder = query->forwarder;
  if (query->tries == forwarder->tries) {
    give_up(query);
    return;
  }
  const upstream_t *upstream = &forwarder->upstreams[query->tries++ % forwarder->upstream_count];
  aloop_datagram_sendto(upstream->endpoint, query->data, query->size, NULL, 0);
  query->deadline = aloop_call_later(loop, forwarder->timeout, try_next, query);
  if (aloop_handle_error(query->deadline) < 0) give_up(query);
}

static void remember_sides(query_t *query, const aloop_message_t *from) {
  query->client_size = from->address_size;
  memcpy(&query->client, from->address, from->address_size);
  query->local_size = from->local_size;
  if (from->local_size > 0) memcpy(&query->local, from->local, from->local_size);
}

/* Keeps what the answer will need, and asks. Returns false if there is no room. */
static bool forward(forwarder_t *forwarder, const aloop_message_t *from, const dns_message_t *message) {
  query_t *query = calloc(1, sizeof *query + from->size);
  if (query == NULL) return false;
  if (!pending_add(&forwarder->pending, &query->entry)) {
    free(query);
    return false;
  }
  query->forwarder = forwarder;
  query->id = message->id;
  query->size = from->size;
  memcpy(query->data, from->data, from->size);
  dns_set_id(query->data, query->entry.id);
  remember_sides(query, from);
  try_next(forwarder->loop, query);
  return true;
}

/* ---- The clients' endpoint ------------------------------------------------------------------------------- */

/* An answer is not answered, whatever is wrong with it: two servers could go on like that for ever. */
static void take_query(forwarder_t *forwarder, const aloop_message_t *from) {
  dns_message_t message;
  dns_verdict_t verdict = dns_read(from->data, from->size, &message);
  if (verdict == DNS_NO_MESSAGE || message.is_answer) return;
  if (message.opcode != DNS_QUERY)
    refuse(forwarder, from, &message, DNS_NOTIMP);
  else if (verdict == DNS_MALFORMED || from->size > QUERY_MAX)
    refuse(forwarder, from, &message, DNS_FORMERR);
  else if (!forward(forwarder, from, &message))
    refuse(forwarder, from, &message, DNS_SERVFAIL);
}

static void take_queries(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                         size_t count) {
  (void)endpoint;
  for (size_t i = 0; i < count; i++) take_query(protocol, &messages[i]);
}

static void clients_made(aloop_datagram_t *endpoint, void *protocol) {
  forwarder_t *forwarder = protocol;
  forwarder->clients = endpoint;
  aloop_datagram_set_write_buffer_cap(endpoint, CLIENTS_BUFFER_MAX);
}

/* Without error_received: a client that has gone does not matter. */
const aloop_datagram_protocol_t clients_protocol = {
    .size = sizeof clients_protocol,
    .connection_made = clients_made,
    .datagrams_received = take_queries,
};

/* ---- The upstreams' endpoints ---------------------------------------------------------------------------- */

static void take_answer(const upstream_t *upstream, const aloop_message_t *from) {
  forwarder_t *forwarder = upstream->forwarder;
  dns_message_t message, asked;
  if (dns_read(from->data, from->size, &message) != DNS_OK || !message.is_answer) return;
  query_t *query = (query_t *)pending_find(&forwarder->pending, message.id);
  if (query == NULL || query->tries <= (size_t)(upstream - forwarder->upstreams)) return; /* not asked yet */
  dns_read(query->data, query->size, &asked);
  if (!dns_same_question(&message, &asked)) return;

  uint8_t out[MESSAGE_MAX];
  memcpy(out, from->data, from->size);
  dns_set_id(out, query->id);
  answer(query, out, from->size);
  end_query(query);
}

static void take_answers(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                         size_t count) {
  (void)endpoint;
  for (size_t i = 0; i < count; i++) take_answer(protocol, &messages[i]);
}

static void upstream_made(aloop_datagram_t *endpoint, void *protocol) {
  upstream_t *upstream = protocol;
  upstream->endpoint = endpoint;
}

/* Without error_received: when the host says that nobody is there, somebody may be at the next try. */
const aloop_datagram_protocol_t upstream_protocol = {
    .size = sizeof upstream_protocol,
    .connection_made = upstream_made,
    .datagrams_received = take_answers,
};

void forwarder_clear(forwarder_t *forwarder) {
  pending_entry_t *entry;
  while ((entry = pending_any(&forwarder->pending)) != NULL) end_query((query_t *)entry);
}
