/* SPDX-License-Identifier: MIT
 *
 * Receiving datagrams.
 *
 * All endpoints of a loop receive into one buffer of 32 slots, each with room for any UDP datagram, through
 * recvmmsg where there is one. A socket that has had few datagrams is asked for few: an endpoint asks for twice
 * as many as came last time, and a busy socket gives 32 with one call. As long as a call brings what was asked
 * for another one follows, up to a budget per turn, in calls and in bytes; the rest waits for the next turn, so
 * that one busy socket cannot starve the others. Where datagrams have come one at a time for a while, a turn
 * asks for one with the call that is made for that, and only each 32nd looks whether there are more by now.
 *
 * Of 64 datagrams that wait each takes 5 % more CPU time than with a bare recvmmsg, and as much as with
 * recvfrom. A loop over recv, which does not ask for the sender, takes 12 % less: saying it costs the kernel 50
 * ns.
 *
 * Memory that is never received into is never touched. Unix datagrams may be larger than any of UDP: for them
 * the buffer has 8 slots of a quarter of a mebibyte.
 *
 * What a call brought is delivered inside a cork (dgram_send.c): all answers leave together. A datagram that
 * does not fit its slot is not delivered in part: error_received is told ALOOP_EMSGSIZE.
 *
 * Where it was asked for, the kernel puts datagrams of one size and one sender together (UDP_GRO) or leaves
 * together what its own sender gave it as one, and the way through the kernel is gone once for all of them. A
 * slot has room for as much as can come. Who takes batches gets such a message as it is, who takes one datagram
 * at a time never sees it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "core/memory.h"
#include "net/datagram.h"

enum {
  SINGLES = 4,
  SINGLES_LOOK = 32,
  BATCHES_PER_TURN = 4,
  BUFFER = ALOOP__DGRAM_BATCH * ALOOP__DGRAM_SLOT,
  LOCAL_SLOTS = 8
};

aloop__dgrams_t *aloop__dgrams_open(aloop_t *loop) {
  aloop__net_t *net = aloop__net_open(loop);
  if (net == NULL || net->dgrams != NULL) return net != NULL ? net->dgrams : NULL;
  aloop__dgrams_t *dgrams = aloop__memory_zero(loop, sizeof *dgrams);
  char *buffer = aloop__memory_new(loop, BUFFER);
  if (dgrams == NULL || buffer == NULL) {
    aloop__memory_release(loop, buffer);
    aloop__memory_release(loop, dgrams);
    return NULL;
  }
  dgrams->buffer = buffer;
  net->dgrams = dgrams;
  return dgrams;
}

void aloop__dgrams_close(aloop_t *loop, aloop__dgrams_t *dgrams) {
  if (dgrams != NULL) aloop__memory_release(loop, dgrams->buffer);
  aloop__memory_release(loop, dgrams);
}

/* What no receive changes; only where slots of another size, or control messages, were used last. */
static ALOOP_NOINLINE void lay_out(aloop__dgrams_t *dgrams, unsigned count, size_t slot, bool controls) {
  for (unsigned i = 0; i < count; i++) {
    struct msghdr *header = &dgrams->in[i].msg_hdr;
    dgrams->in_parts[i] = (struct iovec){.iov_base = dgrams->buffer + i * slot, .iov_len = slot};
    *header = (struct msghdr){.msg_name = &dgrams->from[i],
                              .msg_iov = &dgrams->in_parts[i],
                              .msg_control = controls ? &dgrams->controls[i] : NULL};
    header->msg_iovlen = 1;
  }
  dgrams->in_count = count;
  dgrams->in_slot = slot;
  dgrams->in_controls = controls;
}

/* Everything that a receive changes is set anew. */
static void prepare(aloop__dgrams_t *dgrams, unsigned count, size_t slot, bool controls) {
  if (count > dgrams->in_count || slot != dgrams->in_slot || controls != dgrams->in_controls)
    lay_out(dgrams, count, slot, controls);
  for (unsigned i = 0; i < count; i++) {
    dgrams->in[i].msg_hdr.msg_namelen = sizeof dgrams->from[i];
    dgrams->in[i].msg_hdr.msg_controllen = controls ? sizeof dgrams->controls[i] : 0;
  }
}

/* How many datagrams at most come with one call. */
static int slots_of(const aloop_datagram_t *endpoint) {
  return endpoint->flags & ALOOP__DGRAM_LOCAL ? LOCAL_SLOTS : ALOOP__DGRAM_BATCH;
}

static int receive(const aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams, int count) {
  size_t slot = endpoint->flags & ALOOP__DGRAM_LOCAL ? BUFFER / LOCAL_SLOTS : ALOOP__DGRAM_SLOT;
  prepare(dgrams, (unsigned)count, slot, aloop__dgram_wants_controls(endpoint));
  return aloop__mmsg_receive(endpoint->fd, dgrams->in, (unsigned)count);
}

/* ---- Delivering ----------------------------------------------------------------------------------------- */

static inline void describe(const aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams, int i,
                            aloop_message_t *message) {
  aloop__mmsg_t *in = &dgrams->in[i];
  bool named = in->msg_hdr.msg_namelen > 0;
  *message = (aloop_message_t){.data = dgrams->in_parts[i].iov_base,
                               .size = in->msg_len,
                               .address = named ? in->msg_hdr.msg_name : NULL,
                               .address_size = in->msg_hdr.msg_namelen};
  if (in->msg_hdr.msg_controllen > 0)
    aloop__control_read(&in->msg_hdr, message, &dgrams->locals[i], endpoint->port);
}

static bool is_whole(const aloop__dgrams_t *dgrams, int i) {
  return (dgrams->in[i].msg_hdr.msg_flags & MSG_TRUNC) == 0;
}

/* In the child of a fork inside a callback what is left is the parent's. */
static bool is_open(const aloop_datagram_t *endpoint) {
  return endpoint->state == ALOOP__OPEN && (endpoint->object.loop->attention & ALOOP__INHERITED) == 0;
}

static void deliver_one(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  if (endpoint->table->datagrams_received != NULL)
    endpoint->table->datagrams_received(endpoint, endpoint->protocol, message, 1);
  else if (endpoint->table->datagram_received != NULL)
    endpoint->table->datagram_received(endpoint, endpoint->protocol, message->data, message->size,
                                       message->address, message->address_size);
}

/* Each datagram of a message. The protocol may change, and the endpoint end, between two of them. */
static void deliver_cut(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  aloop_message_t piece = *message;
  size_t end = message->size;
  piece.segment = 0;
  for (size_t at = 0; at < end && is_open(endpoint); at += message->segment) {
    piece.data = (const char *)message->data + at;
    piece.size = end - at < message->segment ? end - at : message->segment;
    deliver_one(endpoint, &piece);
  }
}

static void deliver_each(aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams, int count) {
  for (int i = 0; i < count && is_open(endpoint); i++) {
    aloop_message_t message;
    describe(endpoint, dgrams, i, &message);
    if (!is_whole(dgrams, i))
      aloop__datagram_report(endpoint, ALOOP_EMSGSIZE);
    else if (message.segment > 0)
      deliver_cut(endpoint, &message);
    else
      deliver_one(endpoint, &message);
  }
}

static void deliver_all(aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams, int count) {
  size_t whole = 0;
  for (int i = 0; i < count; i++)
    if (ALOOP_LIKELY(is_whole(dgrams, i))) describe(endpoint, dgrams, i, &dgrams->messages[whole++]);
  if (whole > 0) endpoint->table->datagrams_received(endpoint, endpoint->protocol, dgrams->messages, whole);
  for (size_t i = whole; i < (size_t)count; i++) aloop__datagram_report(endpoint, ALOOP_EMSGSIZE);
}

/* In network order; the kernel may have chosen it as late as with the first send. */
static uint16_t port_of(int fd) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  int port = ALOOP_ENOENT;
  if (getsockname(fd, (struct sockaddr *)(void *)&name, &size) == 0)
    port = aloop__address_port((const struct sockaddr *)(const void *)&name);
  return port > 0 ? htons((uint16_t)port) : 0;
}

static void begin_delivery(aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams, const char *memory,
                           size_t size) {
  dgrams->memory = memory;
  dgrams->memory_size = size;
  endpoint->flags |= ALOOP__DGRAM_CORKED;
}

void aloop__dgram_deliver(aloop_datagram_t *endpoint, int count, const char *memory, size_t size) {
  aloop__dgrams_t *dgrams = aloop__dgrams_of(endpoint->object.loop);
  if ((endpoint->flags & ALOOP__DGRAM_WANT_LOCAL) && endpoint->port == 0)
    endpoint->port = port_of(endpoint->fd);
  begin_delivery(endpoint, dgrams, memory, size);
  if (endpoint->table->datagrams_received != NULL)
    deliver_all(endpoint, dgrams, count);
  else
    deliver_each(endpoint, dgrams, count);
  aloop__dgram_uncork(endpoint);
}

void aloop__dgram_deliver_one(aloop_datagram_t *endpoint, const aloop_message_t *message, const char *memory,
                              size_t size) {
  begin_delivery(endpoint, aloop__dgrams_of(endpoint->object.loop), memory, size);
  deliver_one(endpoint, message);
  aloop__dgram_uncork(endpoint);
}

/* A descriptor that somebody closed would fail for ever. */
void aloop__dgram_failed(aloop_datagram_t *endpoint, int error) {
  if (error == ALOOP_EAGAIN) return;
  if (error == ALOOP_EBADF || error == ALOOP_ENOTSOCK)
    aloop__datagram_end(endpoint, error);
  else
    aloop__datagram_report(endpoint, error);
}

static size_t size_of(const aloop__dgrams_t *dgrams, int count) {
  size_t size = 0;
  for (int i = 0; i < count; i++) size += dgrams->in[i].msg_len;
  return size;
}

/* After a receive that brought so many: what the next one asks for. */
static void learn(aloop_datagram_t *endpoint, int came) {
  int more = came * 2 < slots_of(endpoint) ? came * 2 : slots_of(endpoint);
  endpoint->singles = came == 1 ? (uint16_t)(endpoint->singles + 1) : 0;
  bool alone = endpoint->singles >= SINGLES && endpoint->singles % SINGLES_LOOK != 0;
  endpoint->ask = (uint16_t)(alone ? 1 : more);
}

/* The same after one that was asked for alone. */
static void learn_alone(aloop_datagram_t *endpoint) {
  endpoint->singles++;
  if (endpoint->singles % SINGLES_LOOK == 0) endpoint->ask = 2;
}

/* One datagram, by the call that is made for one, and delivered without a detour. */
static void receive_alone(aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams) {
  struct sockaddr *from = (struct sockaddr *)(void *)&dgrams->from[0];
  socklen_t size = sizeof dgrams->from[0];
  ssize_t n = recvfrom(endpoint->fd, dgrams->buffer, ALOOP__DGRAM_SLOT, 0, from, &size);
  if (ALOOP_UNLIKELY(n < 0)) {
    aloop__dgram_failed(endpoint, errno == EWOULDBLOCK || errno == EINTR ? ALOOP_EAGAIN : -errno);
    return;
  }
  aloop_message_t message = {
      .data = dgrams->buffer, .size = (size_t)n, .address = size > 0 ? from : NULL, .address_size = size};
  learn_alone(endpoint);
  aloop__dgram_deliver_one(endpoint, &message, dgrams->buffer, BUFFER);
}

static ALOOP_NOINLINE void receive_batches(aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams, int calls) {
  size_t size = 0;
  for (int i = 0; i < calls && size < ALOOP__READ_BUDGET && is_open(endpoint); i++) {
    int asked = endpoint->ask;
    int came = receive(endpoint, dgrams, asked);
    if (came < 0) {
      aloop__dgram_failed(endpoint, came);
      return;
    }
    learn(endpoint, came);
    aloop__dgram_deliver(endpoint, came, dgrams->buffer, BUFFER);
    if (came < asked || came == 1) return;
    size += size_of(dgrams, came);
  }
}

void aloop__dgram_readable(aloop_datagram_t *endpoint) {
  bool more_wanted = (endpoint->flags & ALOOP__DGRAM_LOCAL) != 0 || aloop__dgram_wants_controls(endpoint);
  if (endpoint->ask == 1 && !more_wanted)
    receive_alone(endpoint, aloop__dgrams_of(endpoint->object.loop));
  else
    receive_batches(endpoint, aloop__dgrams_of(endpoint->object.loop), BATCHES_PER_TURN);
}

void aloop__dgram_receive_some(aloop_datagram_t *endpoint) {
  receive_batches(endpoint, aloop__dgrams_of(endpoint->object.loop), BATCHES_PER_TURN / 2);
}
