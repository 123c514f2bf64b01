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
 * Datagrams of one size for one address are given to the kernel as one message with the size at which to cut it
 * (UDP_SEGMENT), where it knows that: the way through the kernel, which costs far more than the system call, is
 * then gone once and not for each. That is so for messages with a `segment`, and for single datagrams that
 * happen to follow each other. Where nobody cuts they travel one by one; what arrives is the same. A message in
 * segments is sent from a cursor on, waits with what is left of it, and counts as many bytes as that has.
 *
 * A datagram that the system refuses is gone, as datagrams may be, and those behind it are sent all the same;
 * error_received is told when nothing is half done any more, because it may send, too. Of one message in
 * segments the second refusal is the end, or a network that is down would be asked a thousand times. The one
 * error that a caller hears of directly is the size of a datagram that is sent at once.
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
  SEGMENTS_MAX = 64,  /* the least of what kernels cut a message into at most */
  MERGED_MAX = 65000, /* less than the largest datagram */
  ERRORS_MAX = 2 * ALOOP__DGRAM_BATCH
};

/* Errors of one batch, to be reported after it. */
typedef struct errors {
  unsigned count;
  int list[ERRORS_MAX];
} errors_t;

/* How far the messages of a batch have been sent. */
typedef struct cursor {
  unsigned index;
  bool refused;  /* the message at `index` has lost a datagram */
  size_t offset; /* ... and of its segments these bytes are gone */
} cursor_t;

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

/* The first segments of the first message are gone, but not all. */
static void shorten_first(aloop_datagram_t *endpoint, size_t size) {
  aloop_message_t *message = &endpoint->first->message;
  message->data = (const char *)message->data + size;
  message->size -= size;
  endpoint->unsent -= size;
}

/* ---- Sending -------------------------------------------------------------------------------------------- */

uint16_t aloop__dgram_cut_max(int fd) {
#ifdef UDP_SEGMENT
  int off = 0;
  if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &off, sizeof off) == 0) return UINT16_MAX;
#else
  (void)fd;
#endif
  return 0;
}

/* Datagrams on their way to the kernel. */
typedef struct parcel {
  unsigned count;
  unsigned parts_count;
  aloop__mmsg_t out[ALOOP__DGRAM_BATCH];
  struct iovec parts[ALOOP__DGRAM_BATCH];
  unsigned spans[ALOOP__DGRAM_BATCH]; /* so many messages make up one of `out`; 0: segments of one */
  aloop__control_t controls[ALOOP__DGRAM_BATCH];
} parcel_t;

static bool same_name(const struct sockaddr *a, socklen_t a_size, const struct sockaddr *b, socklen_t b_size) {
  return a == b || (a != NULL && b != NULL && a_size == b_size && memcmp(a, b, a_size) == 0);
}

static bool same_way(const aloop_message_t *a, const aloop_message_t *b) {
  return same_name(a->address, a->address_size, b->address, b->address_size) &&
         same_name(a->local, a->local_size, b->local, b->local_size) && a->ecn == b->ecn;
}

/* Whether it is to arrive as several datagrams. */
static bool is_cut(const aloop_message_t *message) {
  return message->segment > 0 && message->size > message->segment;
}

/* How many datagrams from the first on can be one message for the kernel: of one size, but for the last, and to
 * one address. */
static unsigned span_of(const aloop_datagram_t *endpoint, const aloop_message_t *messages, unsigned count) {
  size_t size = messages[0].size, total = size;
  unsigned span = 1;
  if (endpoint->cut_max == 0 || size == 0 || size > SEGMENT_MAX) return 1;
  while (span < count && messages[span - 1].size == size && messages[span].size > 0 &&
         messages[span].size <= size && total + messages[span].size <= MERGED_MAX && !is_cut(&messages[span]) &&
         same_way(&messages[0], &messages[span]))
    total += messages[span++].size;
  return span;
}

/* How much of what is left of a message in segments can be one message for the kernel. */
static size_t reach_of(const aloop_datagram_t *endpoint, size_t segment, size_t left) {
  size_t most = segment;
  if (segment <= endpoint->cut_max && segment <= MERGED_MAX / 2)
    most = segment * (MERGED_MAX / segment < SEGMENTS_MAX ? MERGED_MAX / segment : SEGMENTS_MAX);
  return left < most ? left : most;
}

static const struct sockaddr *peer_of(const aloop_datagram_t *endpoint, const aloop_message_t *message) {
  return message->address != NULL ? message->address : (const struct sockaddr *)(const void *)&endpoint->peer;
}

static void add_part(parcel_t *parcel, const void *data, size_t size) {
  parcel->parts[parcel->parts_count++] = (struct iovec){.iov_base = (void *)data, .iov_len = size};
}

/* The parts that were added since `first`, as one message for the kernel, cut at `segment` (0: not). */
static void seal(const aloop_datagram_t *endpoint, parcel_t *parcel, const aloop_message_t *message,
                 unsigned first, size_t segment) {
  unsigned at = parcel->count++;
  struct msghdr *header = &parcel->out[at].msg_hdr;
  memset(&parcel->out[at], 0, sizeof parcel->out[at]);
  header->msg_name = (void *)message->address;
  header->msg_namelen = message->address != NULL ? message->address_size : 0;
  header->msg_iov = &parcel->parts[first];
  header->msg_iovlen = (unsigned char)(parcel->parts_count - first);
  if (segment > 0 || message->local != NULL || message->ecn != 0)
    aloop__control_write(header, &parcel->controls[at], message, peer_of(endpoint, message), segment);
}

static void pack_segments(const aloop_datagram_t *endpoint, parcel_t *parcel, const aloop_message_t *message,
                          size_t offset) {
  while (offset < message->size && parcel->parts_count < ALOOP__DGRAM_BATCH) {
    size_t size = reach_of(endpoint, message->segment, message->size - offset);
    unsigned first = parcel->parts_count;
    parcel->spans[parcel->count] = 0;
    add_part(parcel, (const char *)message->data + offset, size);
    seal(endpoint, parcel, message, first, size > message->segment ? message->segment : 0);
    offset += size;
  }
}

/* As many as there is room for, from the cursor on. */
static void pack(const aloop_datagram_t *endpoint, parcel_t *parcel, const aloop_message_t *messages,
                 unsigned count, const cursor_t *cursor) {
  size_t offset = cursor->offset;
  parcel->count = parcel->parts_count = 0;
  for (unsigned i = cursor->index; i < count && parcel->parts_count < ALOOP__DGRAM_BATCH; offset = 0) {
    if (is_cut(&messages[i])) {
      pack_segments(endpoint, parcel, &messages[i++], offset);
      continue;
    }
    unsigned room = ALOOP__DGRAM_BATCH - parcel->parts_count, left = count - i;
    unsigned first = parcel->parts_count, span = span_of(endpoint, &messages[i], left < room ? left : room);
    parcel->spans[parcel->count] = span;
    for (unsigned j = i; j < i + span; j++) add_part(parcel, messages[j].data, messages[j].size);
    seal(endpoint, parcel, &messages[i], first, span > 1 ? messages[i].size : 0);
    i += span;
  }
}

/* So many messages, or so many bytes of the segments of one, are gone. */
static void advance(cursor_t *cursor, const aloop_message_t *messages, unsigned span, size_t size) {
  if (span == 0 && cursor->offset + size < messages[cursor->index].size) {
    cursor->offset += size;
    return;
  }
  *cursor = (cursor_t){.index = cursor->index + (span > 0 ? span : 1)};
}

/* The system refuses the datagram at the cursor. */
static void skip(cursor_t *cursor, const aloop_message_t *messages) {
  const aloop_message_t *message = &messages[cursor->index];
  bool again = cursor->refused;
  cursor->refused = true;
  if (is_cut(message) && !again)
    advance(cursor, messages, 0, message->segment);
  else
    advance(cursor, messages, 1, 0);
}

/* Whether the kernel, or the device that the way leads to, cuts no such messages after all. Then it will not be
 * asked again: for large segments, or for any. */
static bool cannot_cut(aloop_datagram_t *endpoint, const aloop_message_t *message, const parcel_t *parcel,
                       int error) {
  const struct iovec *part = &parcel->parts[0];
  size_t segment = parcel->spans[0] > 1 ? message->size : message->segment;
  bool asked = parcel->spans[0] > 1 || (parcel->spans[0] == 0 && part->iov_len > segment);
  if (!asked ||
      (error != ALOOP_EIO && error != ALOOP_EINVAL && error != ALOOP_EMSGSIZE && error != ALOOP_ENOTSUP))
    return false;
  endpoint->cut_max = segment > SEGMENT_MAX ? SEGMENT_MAX : 0;
  return true;
}

/* One call of the kernel. Moves the cursor behind what was sent or refused by the system. Returns false if the
 * socket takes no more now. */
static bool transmit(aloop_datagram_t *endpoint, const aloop_message_t *messages, unsigned count,
                     cursor_t *cursor, errors_t *errors) {
  parcel_t parcel;
  pack(endpoint, &parcel, messages, count, cursor);
  int n = aloop__mmsg_send(endpoint->fd, parcel.out, parcel.count);
  if (n == ALOOP_EAGAIN) return false;
  for (int i = 0; i < n; i++)
    advance(cursor, messages, parcel.spans[i], parcel.out[i].msg_hdr.msg_iov->iov_len);
  if (n >= 0 || cannot_cut(endpoint, &messages[cursor->index], &parcel, n)) return true;
  errors->list[errors->count++] = n;
  skip(cursor, messages);
  return true;
}

static int send_now(const aloop_datagram_t *endpoint, const aloop_message_t *message) {
  ssize_t n = message->address == NULL ? send(endpoint->fd, message->data, message->size, MSG_NOSIGNAL)
                                       : sendto(endpoint->fd, message->data, message->size, MSG_NOSIGNAL,
                                                message->address, message->address_size);
  if (n >= 0) return 0;
  return errno == EWOULDBLOCK || errno == EINTR ? ALOOP_EAGAIN : -errno;
}

/* A message like most: whole, and to where its address says. */
static bool is_plain(const aloop_message_t *message) {
  return message->segment == 0 && message->local == NULL && message->ecn == 0;
}

/* Takes at most a batch of messages, all of which were accepted: sends them, or else queues them. `refused` is
 * what the socket has said of the first of them, if it was asked: 0 if not. */
static ALOOP_NOINLINE void put_batch(aloop_datagram_t *endpoint, const aloop_message_t *messages,
                                     unsigned count, int refused) {
  errors_t errors;
  cursor_t cursor = {.index = 0};
  bool room = endpoint->first == NULL && refused != ALOOP_EAGAIN;
  errors.count = 0;
  if (refused != 0 && room) errors.list[errors.count++] = refused, cursor.index = 1;
  while (room && cursor.index < count) room = transmit(endpoint, messages, count, &cursor, &errors);
  for (; cursor.index < count; advance(&cursor, messages, 1, 0)) {
    aloop_message_t rest = messages[cursor.index];
    rest.data = (const char *)rest.data + cursor.offset;
    rest.size -= cursor.offset;
    int rc = keep(endpoint, &rest);
    if (rc < 0) errors.list[errors.count++] = rc;
  }
  aloop__object_ref(&endpoint->object); /* outside of a run the protocol may free the loop */
  check_high(endpoint);
  report_all(endpoint, &errors);
  aloop__object_unref(&endpoint->object);
}

/* The same; one alone goes a shorter way. */
static void put(aloop_datagram_t *endpoint, const aloop_message_t *messages, unsigned count) {
  bool alone = count == 1 && endpoint->first == NULL && is_plain(messages);
  int rc = alone ? send_now(endpoint, messages) : 0;
  if (!alone || ALOOP_UNLIKELY(rc < 0)) put_batch(endpoint, messages, count, rc);
}

static unsigned peek(const aloop_datagram_t *endpoint, aloop_message_t *messages) {
  unsigned count = 0;
  for (const aloop__dgram_t *at = endpoint->first; at != NULL && count < ALOOP__DGRAM_BATCH; at = at->next)
    messages[count++] = at->message;
  return count;
}

/* Sends some of what waits. Returns whether there may be room for more. */
static bool flush(aloop_datagram_t *endpoint) {
  aloop_message_t messages[ALOOP__DGRAM_BATCH];
  errors_t errors = {.count = 0};
  cursor_t cursor = {.index = 0};
  bool room = transmit(endpoint, messages, peek(endpoint, messages), &cursor, &errors);
  for (unsigned i = 0; i < cursor.index; i++) forget_first(endpoint);
  if (cursor.offset > 0) shorten_first(endpoint, cursor.offset);
  check_low(endpoint);
  report_all(endpoint, &errors);
  return room && endpoint->first != NULL;
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

void aloop__dgrams_forget(aloop__dgrams_t *dgrams) {
  if (dgrams == NULL) return;
  dgrams->out_count = 0;
  dgrams->out_used = 0;
  dgrams->out_size = 0;
}

static void put_gathered(aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams) {
  unsigned count = dgrams->out_count;
  if (count == 0) return;
  aloop__dgrams_forget(dgrams);
  put(endpoint, dgrams->out, count);
}

void aloop__dgram_uncork(aloop_datagram_t *endpoint) {
  if (!is_corked(endpoint)) return;
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_CORKED;
  put_gathered(endpoint, aloop__dgrams_of(endpoint->object.loop));
}

static void go_on(aloop_t *loop, void *arg) {
  aloop_datagram_t *endpoint = arg;
  loop->context = aloop__map_ref(endpoint->context);
  check_low(endpoint);
}

int aloop__dgram_forked(aloop_datagram_t *endpoint) {
  if (endpoint->first == NULL || endpoint->state >= ALOOP__ENDING) return 0;
  if (endpoint->state == ALOOP__CLOSING) {
    aloop__datagram_end(endpoint, 0);
    return 0;
  }
  if (!aloop__ready_push(endpoint->object.loop, go_on, endpoint)) return ALOOP_ENOMEM;
  while (endpoint->first != NULL) forget_first(endpoint);
  return 0;
}

void aloop__dgram_drop(aloop_datagram_t *endpoint) {
  if (is_corked(endpoint)) aloop__dgrams_forget(aloop__dgrams_of(endpoint->object.loop));
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_CORKED;
  while (endpoint->first != NULL) forget_first(endpoint);
}

/* Where the data can be found until the end of the delivery; NULL: there is no room for a copy. */
static const void *stable(aloop_t *loop, aloop__dgrams_t *dgrams, const void *data, size_t size) {
  if ((uintptr_t)data - (uintptr_t)dgrams->memory < dgrams->memory_size || size == 0) return data;
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

static ALOOP_NOINLINE int check_closely(aloop_datagram_t *endpoint, aloop_message_t *message, size_t before) {
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

/* With bytes and an address, from an endpoint that has no limit and sends to all, it is accepted as it is. */
static inline bool is_usual(const aloop_datagram_t *endpoint, const aloop_message_t *message) {
  bool open = endpoint->state < ALOOP__CLOSING && endpoint->cap == 0 && endpoint->peer_size == 0;
  bool whole = message->data != NULL && message->size <= PTRDIFF_MAX && message->local == NULL;
  bool fits =
      message->address_size >= sizeof(sa_family_t) && message->address_size <= sizeof(struct sockaddr_storage);
  return ALOOP_LIKELY(open) && ALOOP_LIKELY(whole) && ALOOP_LIKELY(fits) && message->address != NULL;
}

/* Why the message is refused, or 0. It then goes where it goes without looking at the endpoint. */
static inline int check(aloop_datagram_t *endpoint, aloop_message_t *message, size_t before) {
  return is_usual(endpoint, message) ? 0 : check_closely(endpoint, message, before);
}

/* Gathers it. False: not inside a delivery any more, or there is something else in the way. */
static bool gather_or_make_room(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  if (!is_corked(endpoint)) return false;
  if (gather(endpoint, message)) return true;
  put_gathered(endpoint, aloop__dgrams_of(endpoint->object.loop));
  return is_corked(endpoint) && gather(endpoint, message);
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

/* Sends what was accepted, behind what was gathered. */
static void put_behind(aloop_datagram_t *endpoint, const aloop_message_t *checked, unsigned count) {
  if (is_corked(endpoint)) put_gathered(endpoint, aloop__dgrams_of(endpoint->object.loop));
  if (endpoint->state < ALOOP__ENDING) put(endpoint, checked, count);
}

static ALOOP_NOINLINE int64_t send_unusual(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  aloop_message_t checked = *message;
  int rc = check_closely(endpoint, &checked, 0);
  if (rc < 0) return rc;
  put_behind(endpoint, &checked, 1);
  return 1;
}

static int64_t send_one(aloop_datagram_t *endpoint, const aloop_message_t *message) {
  if (!is_usual(endpoint, message)) return send_unusual(endpoint, message);
  put_behind(endpoint, message, 1);
  return 1;
}

/* How many messages of a batch may go as they are, without being copied. */
static unsigned usual_ones(const aloop_datagram_t *endpoint, const aloop_message_t *messages, size_t count) {
  unsigned usual = 0;
  while (usual < count && usual < ALOOP__DGRAM_BATCH && is_usual(endpoint, &messages[usual])) usual++;
  return usual;
}

static ALOOP_NOINLINE int64_t send_several(aloop_datagram_t *endpoint, const aloop_message_t *messages,
                                           size_t count) {
  aloop_message_t checked[ALOOP__DGRAM_BATCH];
  size_t done = 0;
  int rc = 0;
  aloop__object_ref(&endpoint->object);
  while (done < count && rc == 0) {
    unsigned taken = usual_ones(endpoint, messages + done, count - done);
    const aloop_message_t *accepted = taken > 0 ? messages + done : checked;
    if (taken == 0) rc = check_some(endpoint, messages + done, count - done, checked, &taken);
    if (taken == 0) break;
    put_behind(endpoint, accepted, taken);
    done += taken;
  }
  aloop__object_unref(&endpoint->object);
  return done > 0 ? (int64_t)done : rc;
}

int64_t aloop_datagram_send_many(aloop_datagram_t *endpoint, const aloop_message_t *messages, size_t count) {
  int rc = aloop__datagram_enter(endpoint);
  if (ALOOP_UNLIKELY(rc < 0)) return rc;
  if (messages == NULL && count > 0)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "messages is NULL");
  return count == 1 ? send_one(endpoint, messages) : send_several(endpoint, messages, count);
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
