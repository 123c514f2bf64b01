/* SPDX-License-Identifier: MIT
 *
 * Sending datagrams: public sends, the cork, the queue, the water marks.
 *
 * A send goes the first of these ways that is open. Behind datagrams that wait it is copied to the queue. While
 * received datagrams are delivered it is gathered: a datagram made of what was received needs no copy, small
 * ones are collected in the network's cork buffer, and all leave with one sendmmsg when the delivery is over.
 * Otherwise it is sent at once. What the socket does not take now is copied to the queue.
 *
 * One number says how much waits, `unsent`, changed only where datagrams enter and leave the queue; each counts
 * as at least one byte, so that empty ones cannot fill memory behind the water marks' back. After each change
 * the marks are checked.
 *
 * Datagrams of one size for one address, one behind the other, are given to the kernel as one message with the
 * size at which to cut it (UDP_SEGMENT), where it knows that: the way through the kernel, which costs far more
 * than the system call, is then gone once and not for each. What arrives is the same.
 *
 * A datagram that the system refuses is gone, as datagrams may be, and those behind it are sent all the same;
 * error_received is told when nothing is half done any more, because it may send, too. The one error that a
 * caller hears of directly is the size of a datagram that is sent at once.
 */
#include <errno.h>
#include <string.h>

#include <netinet/in.h>
#include <netinet/udp.h>

#include "core/memory.h"
#include "core/report.h"
#include "net/datagram.h"
#include "net/write.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum {
  BATCHES_PER_TURN = 4,
  SEGMENT_MAX = 1400, /* larger ones may not fit the way to the peer, which a message that is cut must */
  MERGED_MAX = 65000  /* less than the largest datagram */
};

/* Errors of one batch, to be reported after it. */
typedef struct errors {
  unsigned count;
  int list[ALOOP__DGRAM_BATCH];
} errors_t;

static size_t weight_of(const aloop_message_t *message) {
  return message->size > 0 ? message->size : 1;
}

static void report_all(aloop_datagram_t *endpoint, const errors_t *errors) {
  for (unsigned i = 0; i < errors->count; i++) aloop__datagram_report(endpoint, errors->list[i]);
}

/* ---- Water marks ---------------------------------------------------------------------------------------- */

static void check_high(aloop_datagram_t *endpoint) {
  if ((endpoint->flags & ALOOP__DGRAM_WRITE_PAUSED) || endpoint->unsent <= endpoint->high) return;
  if (endpoint->state >= ALOOP__ENDING) return;
  endpoint->flags |= ALOOP__DGRAM_WRITE_PAUSED;
  if (endpoint->table->pause_writing != NULL) endpoint->table->pause_writing(endpoint, endpoint->protocol);
}

static void check_low(aloop_datagram_t *endpoint) {
  if ((endpoint->flags & ALOOP__DGRAM_WRITE_PAUSED) == 0 || endpoint->unsent > endpoint->low) return;
  if (endpoint->state >= ALOOP__ENDING) return;
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_WRITE_PAUSED;
  if (endpoint->table->resume_writing != NULL) endpoint->table->resume_writing(endpoint, endpoint->protocol);
}

/* ---- The queue ------------------------------------------------------------------------------------------ */

/* A copy of the message with all it points to. NULL: out of memory. */
static aloop__dgram_t *copy_of(aloop_t *loop, const aloop_message_t *message) {
  size_t address_size = message->address != NULL ? message->address_size : 0;
  size_t local_size = message->local != NULL ? message->local_size : 0;
  aloop__dgram_t *item = aloop__memory_new(loop, sizeof *item + address_size + local_size + message->size);
  if (item == NULL) return NULL;
  char *bytes = (char *)(item + 1);
  item->next = NULL;
  item->message = *message;
  if (address_size > 0) item->message.address = memcpy(bytes, message->address, address_size);
  bytes += address_size;
  if (local_size > 0) item->message.local = memcpy(bytes, message->local, local_size);
  bytes += local_size;
  item->message.data = bytes;
  if (message->size > 0) memcpy(bytes, message->data, message->size);
  return item;
}

/* Queues a copy. Makes no calls; the high mark is to be checked afterwards. */
static int keep(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  aloop__dgram_t *item = copy_of(endpoint->object.loop, message);
  if (item == NULL) return ALOOP_ENOMEM;
  int rc = aloop__datagram_watch(endpoint, ALOOP_WRITABLE, true);
  if (rc < 0) {
    aloop__memory_release(endpoint->object.loop, item);
    return rc;
  }
  if (endpoint->last != NULL)
    endpoint->last->next = item;
  else
    endpoint->first = item;
  endpoint->last = item;
  endpoint->unsent += weight_of(message);
  return 0;
}

static void forget_first(aloop_datagram_t *endpoint) {
  aloop__dgram_t *item = endpoint->first;
  endpoint->first = item->next;
  if (endpoint->first == NULL) endpoint->last = NULL;
  endpoint->unsent -= weight_of(&item->message);
  aloop__memory_release(endpoint->object.loop, item);
}

/* ---- Sending -------------------------------------------------------------------------------------------- */

uint16_t aloop__dgram_abilities(int fd) {
#ifdef UDP_SEGMENT
  int off = 0;
  if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &off, sizeof off) == 0) return ALOOP__DGRAM_SEGMENTS;
#else
  (void)fd;
#endif
  return 0;
}

/* Datagrams on their way to the kernel: spans[i] of them make up the i-th message of the call. */
typedef struct parcel {
  unsigned count;
  aloop__mmsg_t out[ALOOP__DGRAM_BATCH];
  struct iovec parts[ALOOP__DGRAM_BATCH];
  unsigned spans[ALOOP__DGRAM_BATCH];
  aloop__control_t controls[ALOOP__DGRAM_BATCH];
} parcel_t;

static bool same_name(const struct sockaddr *a, socklen_t a_size, const struct sockaddr *b, socklen_t b_size) {
  return a == b || (a != NULL && b != NULL && a_size == b_size && memcmp(a, b, a_size) == 0);
}

static bool same_way(const aloop_message_t *a, const aloop_message_t *b) {
  return same_name(a->address, a->address_size, b->address, b->address_size) &&
         same_name(a->local, a->local_size, b->local, b->local_size) && a->ecn == b->ecn;
}

/* How many datagrams from the first on can be one message for the kernel: of one size, but for the last, and to
 * one address. */
static unsigned span_of(const aloop_datagram_t *endpoint, const aloop_message_t *messages, unsigned count) {
  size_t size = messages[0].size, total = size;
  unsigned span = 1;
  if ((endpoint->flags & ALOOP__DGRAM_SEGMENTS) == 0 || size == 0 || size > SEGMENT_MAX) return 1;
  while (span < count && messages[span - 1].size == size && messages[span].size > 0 &&
         messages[span].size <= size && total + messages[span].size <= MERGED_MAX &&
         same_way(&messages[0], &messages[span]))
    total += messages[span++].size;
  return span;
}

static const struct sockaddr *peer_of(const aloop_datagram_t *endpoint, const aloop_message_t *message) {
  return message->address != NULL ? message->address : (const struct sockaddr *)(const void *)&endpoint->peer;
}

static void pack(const aloop_datagram_t *endpoint, parcel_t *parcel, const aloop_message_t *messages,
                 unsigned count) {
  parcel->count = 0;
  for (unsigned i = 0; i < count;) {
    unsigned at = parcel->count++, span = span_of(endpoint, &messages[i], count - i);
    struct msghdr *header = &parcel->out[at].msg_hdr;
    for (unsigned j = i; j < i + span; j++)
      parcel->parts[j] = (struct iovec){.iov_base = (void *)messages[j].data, .iov_len = messages[j].size};
    memset(&parcel->out[at], 0, sizeof parcel->out[at]);
    header->msg_name = (void *)messages[i].address;
    header->msg_namelen = messages[i].address != NULL ? messages[i].address_size : 0;
    header->msg_iov = &parcel->parts[i];
    header->msg_iovlen = (unsigned char)span;
    if (span > 1 || messages[i].local != NULL || messages[i].ecn != 0)
      aloop__control_write(header, &parcel->controls[at], &messages[i], peer_of(endpoint, &messages[i]),
                           span > 1 ? messages[i].size : 0);
    parcel->spans[at] = span;
    i += span;
  }
}

/* The kernel, or the device that the way leads to, cuts no messages after all. */
static bool is_no_cutter(int error) {
  return error == ALOOP_EIO || error == ALOOP_EINVAL || error == ALOOP_EMSGSIZE || error == ALOOP_ENOTSUP;
}

/* Sends at most a batch. Returns how many are done with: sent, or refused by the system. */
static unsigned transmit(aloop_datagram_t *endpoint, const aloop_message_t *messages, unsigned count,
                         errors_t *errors) {
  parcel_t parcel;
  unsigned done = 0, sent = 0;
  pack(endpoint, &parcel, messages, count);
  while (done < count) {
    int n = aloop__mmsg_send(endpoint->fd, &parcel.out[sent], parcel.count - sent);
    if (n == ALOOP_EAGAIN) break;
    for (int i = 0; i < n; i++) done += parcel.spans[sent++];
    if (n >= 0) continue;
    unsigned span = parcel.spans[sent];
    if (span > 1 && is_no_cutter(n)) {
      endpoint->flags &= (uint16_t)~ALOOP__DGRAM_SEGMENTS;
    } else {
      errors->list[errors->count++] = n;
      done++;
      sent++;
      if (span == 1) continue;
    }
    pack(endpoint, &parcel, messages + done, count - done); /* one of several is gone, or all go one by one */
    sent = 0;
  }
  return done;
}

/* Takes at most a batch of messages, all of which were accepted: sends them, or else queues them. */
static void put(aloop_datagram_t *endpoint, const aloop_message_t *messages, unsigned count) {
  errors_t errors = {.count = 0};
  unsigned done = 0;
  if (endpoint->first == NULL) done = transmit(endpoint, messages, count, &errors);
  for (; done < count; done++) {
    int rc = keep(endpoint, &messages[done]);
    if (rc < 0) errors.list[errors.count++] = rc;
  }
  check_high(endpoint);
  report_all(endpoint, &errors);
}

static unsigned peek(const aloop_datagram_t *endpoint, aloop_message_t *messages) {
  unsigned count = 0;
  for (const aloop__dgram_t *at = endpoint->first; at != NULL && count < ALOOP__DGRAM_BATCH; at = at->next)
    messages[count++] = at->message;
  return count;
}

/* Sends a batch of what waits. Returns whether there may be room for another. */
static bool flush(aloop_datagram_t *endpoint) {
  aloop_message_t messages[ALOOP__DGRAM_BATCH];
  errors_t errors = {.count = 0};
  unsigned count = peek(endpoint, messages);
  unsigned done = transmit(endpoint, messages, count, &errors);
  for (unsigned i = 0; i < done; i++) forget_first(endpoint);
  check_low(endpoint);
  report_all(endpoint, &errors);
  return done == count && endpoint->first != NULL;
}

void aloop__dgram_writable(aloop_datagram_t *endpoint) {
  bool more = endpoint->first != NULL;
  for (int i = 0; i < BATCHES_PER_TURN && more; i++) more = flush(endpoint);
  if (endpoint->state >= ALOOP__ENDING || endpoint->first != NULL) return;
  int rc = aloop__datagram_watch(endpoint, ALOOP_WRITABLE, false);
  if (rc < 0 || endpoint->state == ALOOP__CLOSING) aloop__datagram_end(endpoint, rc);
}

/* ---- The cork ------------------------------------------------------------------------------------------- */

static bool is_corked(const aloop_datagram_t *endpoint) {
  return (endpoint->flags & ALOOP__DGRAM_CORKED) != 0;
}

static void put_gathered(aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams) {
  unsigned count = dgrams->out_count;
  dgrams->out_count = 0;
  dgrams->out_used = 0;
  dgrams->out_size = 0;
  if (count > 0) put(endpoint, dgrams->out, count);
}

void aloop__dgram_uncork(aloop_datagram_t *endpoint) {
  if (!is_corked(endpoint)) return;
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_CORKED;
  put_gathered(endpoint, aloop__dgrams_of(endpoint->object.loop));
}

void aloop__dgram_drop(aloop_datagram_t *endpoint) {
  if (is_corked(endpoint)) {
    aloop__dgrams_t *dgrams = aloop__dgrams_of(endpoint->object.loop);
    dgrams->out_count = 0;
    dgrams->out_used = 0;
    dgrams->out_size = 0;
  }
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_CORKED;
  while (endpoint->first != NULL) forget_first(endpoint);
}

/* Where the data can be found until the end of the delivery; NULL: there is no room for a copy. */
static const void *stable(aloop_t *loop, aloop__dgrams_t *dgrams, const void *data, size_t size) {
  uintptr_t offset = (uintptr_t)data - (uintptr_t)dgrams->buffer;
  if (offset < (uintptr_t)ALOOP__DGRAM_BATCH * ALOOP__DGRAM_SLOT || size == 0) return data;
  if (size > ALOOP__CORK_SIZE - dgrams->out_used) return NULL;
  void *copy = memcpy(aloop__net_of(loop)->cork_buffer + dgrams->out_used, data, size);
  dgrams->out_used += (uint32_t)size;
  return copy;
}

/* Gathers one datagram. False: it must be sent now, behind what was gathered. */
static bool gather(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  aloop__dgrams_t *dgrams = aloop__dgrams_of(endpoint->object.loop);
  if (endpoint->first != NULL || dgrams->out_count == ALOOP__DGRAM_BATCH) return false;
  const void *data = stable(endpoint->object.loop, dgrams, message->data, message->size);
  if (data == NULL && message->size > 0) return false;
  aloop_message_t *out = &dgrams->out[dgrams->out_count];
  *out = *message;
  out->data = data;
  if (message->address != NULL)
    out->address = memcpy(&dgrams->to[dgrams->out_count], message->address, message->address_size);
  dgrams->out_count++;
  dgrams->out_size += weight_of(message);
  return true;
}

static size_t gathered(const aloop_datagram_t *endpoint) {
  return is_corked(endpoint) ? aloop__dgrams_of(endpoint->object.loop)->out_size : 0;
}

/* ---- Public sends --------------------------------------------------------------------------------------- */

static bool is_peer(const aloop_datagram_t *endpoint, const aloop_message_t *message) {
  aloop__address_t a, b;
  const struct sockaddr *peer = (const struct sockaddr *)(const void *)&endpoint->peer;
  if (aloop__address_set(&a, peer, endpoint->peer_size) &&
      aloop__address_set(&b, message->address, message->address_size))
    return aloop__address_equal(&a, &b);
  return endpoint->peer_size == message->address_size &&
         memcmp(peer, message->address, endpoint->peer_size) == 0;
}

/* The rule that the addresses of a message break, or NULL. */
static const char *fault_of_address(const aloop_datagram_t *endpoint, const aloop_message_t *message) {
  aloop__address_t local;
  if (message->local != NULL && !aloop__address_set(&local, message->local, message->local_size))
    return "local_size does not fit an address of the internet";
  if (message->address == NULL)
    return endpoint->peer_size > 0 ? NULL : "without a remote address every datagram needs one of its own";
  if (message->address_size < sizeof(sa_family_t) || message->address_size > sizeof(struct sockaddr_storage))
    return "address_size does not fit an address";
  if (endpoint->peer_size > 0 && !is_peer(endpoint, message))
    return "an endpoint with a remote address sends to no other";
  return NULL;
}

/* Why the message is refused, or 0. It then goes where it goes without looking at the endpoint. */
static int check(aloop_datagram_t *endpoint, aloop_message_t *message, size_t before) {
  if (endpoint->state >= ALOOP__CLOSING) return ALOOP_ECLOSED;
  if ((message->data == NULL && message->size > 0) || message->size > PTRDIFF_MAX)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "a datagram has bytes where its size says so");
  const char *fault = fault_of_address(endpoint, message);
  if (fault != NULL) return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, fault);
  if (endpoint->flags & ALOOP__DGRAM_CONNECTED) {
    message->address = NULL;
    message->address_size = 0;
  } else if (endpoint->peer_size > 0) {
    message->address = (const struct sockaddr *)(const void *)&endpoint->peer;
    message->address_size = endpoint->peer_size;
  }
  size_t unsent = endpoint->unsent + gathered(endpoint) + before, size = weight_of(message);
  if (endpoint->cap > 0 && (size > endpoint->cap || unsent > endpoint->cap - size)) return ALOOP_ENOBUFS;
  return 0;
}

/* Gathers it. False: not inside a delivery any more, or there is something else in the way. */
static bool gather_or_make_room(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  if (!is_corked(endpoint)) return false;
  if (gather(endpoint, message)) return true;
  put_gathered(endpoint, aloop__dgrams_of(endpoint->object.loop));
  return is_corked(endpoint) && gather(endpoint, message);
}

static int send_now(const aloop_datagram_t *endpoint, const aloop_message_t *message) {
  ssize_t n = message->address == NULL ? send(endpoint->fd, message->data, message->size, MSG_NOSIGNAL)
                                       : sendto(endpoint->fd, message->data, message->size, MSG_NOSIGNAL,
                                                message->address, message->address_size);
  if (n >= 0) return 0;
  return errno == EWOULDBLOCK || errno == EINTR ? ALOOP_EAGAIN : -errno;
}

int aloop_datagram_sendto(aloop_datagram_t *endpoint, const void *data, size_t size,
                          const struct sockaddr *address, socklen_t address_size) {
  int rc = aloop__datagram_enter(endpoint);
  if (ALOOP_UNLIKELY(rc < 0)) return rc;
  aloop_message_t message = {.data = data, .size = size, .address = address, .address_size = address_size};
  rc = check(endpoint, &message, 0);
  if (ALOOP_UNLIKELY(rc < 0) || gather_or_make_room(endpoint, &message)) return rc;
  if (endpoint->state >= ALOOP__ENDING) return 0; /* by a call made for those before it */
  rc = endpoint->first == NULL ? send_now(endpoint, &message) : ALOOP_EAGAIN;
  if (ALOOP_LIKELY(rc == 0) || rc == ALOOP_EMSGSIZE) return rc;
  if (rc != ALOOP_EAGAIN) {
    aloop__datagram_report(endpoint, rc);
    return 0;
  }
  rc = keep(endpoint, &message);
  if (rc == 0) check_high(endpoint);
  return rc;
}

/* Checks messages until one is refused, or a batch is full. */
static int check_some(aloop_datagram_t *endpoint, const aloop_message_t *messages, size_t count,
                      aloop_message_t *checked, unsigned *taken) {
  size_t size = 0;
  int rc = 0;
  for (*taken = 0; *taken < count && *taken < ALOOP__DGRAM_BATCH; ++*taken) {
    checked[*taken] = messages[*taken];
    rc = check(endpoint, &checked[*taken], size);
    if (rc < 0) return rc;
    size += weight_of(&messages[*taken]);
  }
  return 0;
}

int64_t aloop_datagram_send_many(aloop_datagram_t *endpoint, const aloop_message_t *messages, size_t count) {
  aloop_message_t checked[ALOOP__DGRAM_BATCH];
  size_t done = 0;
  int rc = aloop__datagram_enter(endpoint);
  if (rc < 0) return rc;
  if (messages == NULL && count > 0)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "messages is NULL");
  while (done < count && rc == 0) {
    unsigned taken;
    rc = check_some(endpoint, messages + done, count - done, checked, &taken);
    if (taken == 0) break;
    if (is_corked(endpoint)) put_gathered(endpoint, aloop__dgrams_of(endpoint->object.loop));
    if (endpoint->state < ALOOP__ENDING) put(endpoint, checked, taken);
    done += taken;
  }
  return done > 0 ? (int64_t)done : rc;
}

/* ---- Public limits -------------------------------------------------------------------------------------- */

int aloop_datagram_set_write_buffer_limits(aloop_datagram_t *endpoint, int64_t high, int64_t low) {
  int rc = aloop__datagram_enter(endpoint);
  if (rc < 0) return rc;
  rc = aloop__write_limits(endpoint->object.loop, high, low, &endpoint->high, &endpoint->low);
  if (rc == 0) check_high(endpoint);
  return rc;
}

int aloop_datagram_get_write_buffer_limits(const aloop_datagram_t *endpoint, size_t *high, size_t *low) {
  int rc = aloop__datagram_enter(endpoint);
  if (rc < 0) return rc;
  if (high == NULL || low == NULL)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "both limits need a place to go to");
  *high = endpoint->high;
  *low = endpoint->low;
  return 0;
}

int aloop_datagram_set_write_buffer_cap(aloop_datagram_t *endpoint, size_t bytes) {
  int rc = aloop__datagram_enter(endpoint);
  if (rc == 0) endpoint->cap = bytes;
  return rc;
}

size_t aloop_datagram_get_write_buffer_size(const aloop_datagram_t *endpoint) {
  return aloop__datagram_enter(endpoint) == 0 ? endpoint->unsent + gathered(endpoint) : 0;
}
