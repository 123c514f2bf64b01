/* SPDX-License-Identifier: MIT
 *
 * Writing to a stream: public writes, the cork, rows of writes, the water marks.
 *
 * A write goes the first of these ways that is open. With bytes unsent it is appended to the outbox. Inside
 * data_received it is gathered in the loop's cork: a part of what was received needs no copy, other small
 * writes are collected in one buffer, and all of it leaves in one system call when data_received returns; what
 * does not fit goes at once, together with what was gathered before it. Elsewhere the second and later small
 * writes to one transport in a row, within one callback, are gathered in its outbox until the turn is over.
 * Otherwise it is sent at once. What the socket does not take is copied to the outbox. A task's step has the
 * cork in the same way (aloop__cork_open).
 *
 * A row of writes is a hundred messages for one peer, written by a callback that has nothing else to do with
 * it. The first goes at once: a single write is never put off, and a peer that has gone is noticed. The others
 * take these promises along, on which everything else here rests:
 * - There is one row at a time, and its bytes are all that is in its transport's outbox, which the driver need
 *   not watch. So whoever asks for an empty outbox, or appends to it, does the right thing without knowing.
 * - It ends, and the socket is tried, with a write to another transport, with one that is not small, with 16
 *   KiB, before anything that acts on what was written (close, abort, write_eof, sendfile, a relay,
 *   descriptors, start_tls, limits), and at the latest with the turn; no turn of others and no wait comes
 *   between.
 * - It never passes the high mark, so what ends it never calls pause_writing: that is called inside a write.
 * Each message of a row of a hundred takes 220 instructions, twice what a library takes that writes each at
 * once, but a third of its CPU time: a copy instead of a system call.
 * A row needs memory only to be one; without it the write goes at once. In the child of a fork its bytes are
 * dropped: the parent sends them.
 *
 * One number says how full the buffer is: the size of the outbox, changed only where bytes are appended to or
 * leave it. After every append the high mark is checked, after every departure the low one; nothing else calls
 * pause_writing or resume_writing. Gathered bytes (16 KiB at most, besides parts of what was received) are not
 * counted until the socket has refused them.
 *
 * A transport of messages (seqpacket.c) knows only the first and the last of these ways, and a message waits as
 * a chunk of its own. One that no socket buffer has room for is refused, also when it would wait.
 *
 * Running out of memory refuses a write as a whole. Only when the socket has taken a part of it the rest cannot
 * be refused any more: then the connection ends with ALOOP_ENOMEM.
 */
#include "net/write.h"

#include <string.h>
#include <sys/socket.h>

#include "core/report.h"
#include "net/relay.h"

enum { PARTS_AT_ONCE = 64 };

/* ---- Water marks ---------------------------------------------------------------------------------------- */

void aloop__write_check_high(aloop_transport_t *transport) {
  if ((transport->flags & ALOOP__WRITE_PAUSED) || aloop__stream_unsent(transport) <= transport->high) return;
  if (transport->object.state >= ALOOP__ENDING) return;
  transport->flags |= ALOOP__WRITE_PAUSED;
  if (transport->table->pause_writing != NULL) transport->table->pause_writing(transport, transport->protocol);
}

void aloop__write_check_low(aloop_transport_t *transport) {
  if ((transport->flags & ALOOP__WRITE_PAUSED) == 0 || aloop__stream_unsent(transport) > transport->low) return;
  if (transport->object.state >= ALOOP__ENDING) return;
  transport->flags &= ~(uint32_t)ALOOP__WRITE_PAUSED;
  if (transport->table->resume_writing != NULL)
    transport->table->resume_writing(transport, transport->protocol);
}

/* ---- Sending -------------------------------------------------------------------------------------------- */

/* Tries to send while the outbox is empty. Returns the bytes taken, or a code that has ended the connection. */
ALOOP_INLINE ssize_t try_send(aloop_transport_t *transport, const struct iovec *iov, int count) {
  ssize_t n = transport->driver->send(transport, iov, count);
  if (ALOOP_LIKELY(n >= 0)) {
    if (ALOOP_UNLIKELY(transport->extras != NULL)) aloop__stream_touch(transport, false, true);
    return n;
  }
  if (n == ALOOP_EAGAIN) return 0;
  aloop__stream_end(transport, (int)n);
  return n;
}

/* The outbox has grown: the driver goes to work, the protocol may be told to wait. */
static void appended(aloop_transport_t *transport) {
  int rc = transport->driver->flush(transport);
  if (rc < 0)
    aloop__stream_end(transport, rc);
  else
    aloop__write_check_high(transport);
}

/* The outbox is about to grow: the write timeout counts from its first byte. */
static void note_first_unsent(aloop_transport_t *transport) {
  if (aloop__outbox_empty(&transport->outbox) && transport->extras != NULL)
    aloop__stream_touch(transport, false, true);
}

static int append(aloop_transport_t *transport, const struct iovec *iov, int count, size_t sent) {
  note_first_unsent(transport);
  return aloop__outbox_append(transport->object.loop, &transport->outbox, iov, count, sent,
                              (transport->flags & ALOOP__SECRET) != 0);
}

/* Buffers what was not sent. Once a part was sent there is no way back but the end. */
static ALOOP_NOINLINE int keep_rest(aloop_transport_t *transport, const struct iovec *iov, int count,
                                    size_t sent) {
  int rc = append(transport, iov, count, sent);
  if (rc == 0)
    appended(transport);
  else if (sent > 0)
    aloop__stream_end(transport, rc);
  return sent > 0 ? 0 : rc;
}

static int send_or_keep(aloop_transport_t *transport, const struct iovec *iov, int count, size_t total) {
  ssize_t n = 0;
  if (aloop__outbox_empty(&transport->outbox)) {
    n = try_send(transport, iov, count);
    if (n < 0) return 0;
    if (ALOOP_LIKELY((size_t)n == total)) {
      if (ALOOP_UNLIKELY(transport->driver->beneath != NULL)) aloop__write_check_high(transport);
      return 0;
    }
  }
  return keep_rest(transport, iov, count, (size_t)n);
}

void aloop__stream_sent(aloop_transport_t *transport, size_t size) {
  aloop__outbox_consume(transport->object.loop, &transport->outbox, size);
  if (transport->extras != NULL) aloop__stream_touch(transport, false, true);
  aloop__write_check_low(transport);
  aloop__stream_drained(transport);
}

/* ---- Rows of writes -------------------------------------------------------------------------------------- */

enum { SMALL = 4096, ROW_SIZE = 16384 };

void aloop__row_forget(aloop_t *loop) {
  aloop__row_t *row = &aloop__net_of(loop)->row;
  if (row->owner != NULL) aloop__outbox_clear(loop, &row->owner->outbox);
  row->owner = NULL;
}

void aloop__row_end(aloop_t *loop) {
  aloop__row_t *row = &aloop__net_of(loop)->row;
  aloop_transport_t *transport = row->owner;
  struct iovec iov[PARTS_AT_ONCE];
  if (ALOOP_UNLIKELY(loop->fork_generation != aloop__current_forks_seen())) aloop__row_forget(loop);
  row->owner = NULL;
  int count = transport != NULL ? aloop__outbox_peek(&transport->outbox, iov, PARTS_AT_ONCE) : 0;
  if (count == 0) return;
  ssize_t n = transport->driver->send(transport, iov, count);
  if (n > 0) aloop__stream_sent(transport, (size_t)n);
  int rc = n < 0 && n != ALOOP_EAGAIN ? (int)n : 0;
  if (rc == 0 && !aloop__outbox_empty(&transport->outbox)) rc = transport->driver->flush(transport);
  if (rc < 0) aloop__stream_end(transport, rc);
}

void aloop__row_flush(aloop_transport_t *transport) {
  aloop__net_t *net = aloop__net_of(transport->object.loop);
  if (net != NULL && net->row.owner == transport) aloop__row_end(transport->object.loop);
}

/* Whether a write of this callback was the last one, and nothing else waits. */
static bool follows(const aloop_transport_t *transport, const aloop__row_t *row) {
  const aloop_t *loop = transport->object.loop;
  return row->last == transport && row->callback == aloop__loop_callbacks(loop) &&
         aloop__loop_is_running(loop) && (transport->flags & (ALOOP__SHUT | ALOOP__WRITE_PAUSED)) == 0 &&
         aloop__outbox_empty(&transport->outbox);
}

static bool may_wait(const aloop_transport_t *transport, size_t size) {
  size_t unsent = aloop__stream_unsent(transport);
  bool capped = transport->extras != NULL && transport->extras->cap > 0;
  return size <= SMALL && unsent + size <= ROW_SIZE && unsent + size <= transport->high && !capped;
}

static ALOOP_NOINLINE bool join_begun_row(aloop_transport_t *transport, aloop__row_t *row,
                                          const struct iovec *iov, int count, size_t size) {
  aloop_t *loop = transport->object.loop;
  if ((row->owner == transport || follows(transport, row)) && may_wait(transport, size) &&
      append(transport, iov, count, 0) == 0) {
    row->owner = transport;
    aloop__loop_attend(loop, ALOOP__TURN_END);
    return true;
  }
  if (row->owner != NULL) aloop__row_end(loop);
  row->last = transport;
  row->callback = aloop__loop_callbacks(loop);
  return false;
}

/* Keeps a write for later if it belongs to a row. False: it is to be sent now. */
static inline bool join_row(aloop_transport_t *transport, const struct iovec *iov, int count, size_t size) {
  const aloop_t *loop = transport->object.loop;
  aloop__row_t *row = &aloop__net_of(loop)->row;
  if (row->owner != NULL || (row->callback == aloop__loop_callbacks(loop) && size <= SMALL))
    return join_begun_row(transport, row, iov, count, size);
  row->last = transport;
  row->callback = aloop__loop_callbacks(loop);
  return false;
}

/* ---- The cork ------------------------------------------------------------------------------------------- */

static aloop__cork_t *cork_of(const aloop_transport_t *transport) {
  return &aloop__net_of(transport->object.loop)->cork;
}

void aloop__cork_drop_gathered(aloop_transport_t *transport) {
  aloop__net_t *net = aloop__net_of(transport->object.loop);
  if (net->cork.owner == transport) aloop__cork_empty(&net->cork);
  if (net->row.owner == transport) net->row.owner = NULL;
}

/* Sends all parts. They were accepted, so nothing can be refused here: out of memory ends the connection. */
static inline void send_parts(aloop_transport_t *transport, aloop__cork_t *cork) {
  int parts = cork->parts;
  aloop__cork_empty(cork);
  int rc = send_or_keep(transport, cork->iov, parts, aloop__iov_total(cork->iov, parts));
  if (ALOOP_UNLIKELY(rc < 0)) aloop__stream_end(transport, rc);
}

static inline void flush_cork(aloop_transport_t *transport) {
  if (aloop__cork_is_open(transport) && cork_of(transport)->parts > 0)
    send_parts(transport, cork_of(transport));
}

void aloop__cork_flush_gathered(aloop_transport_t *transport) {
  aloop__row_flush(transport);
  flush_cork(transport);
}

void aloop__cork_open(aloop_transport_t *transport) {
  aloop__cork_t *cork = cork_of(transport);
  cork->data_size = 0; /* nothing was received that a write could be a part of */
  cork->owner = transport;
}

void aloop__cork_close(aloop_transport_t *transport) {
  if (!aloop__cork_is_open(transport)) return;
  flush_cork(transport);
  cork_of(transport)->owner = NULL;
}

void aloop__cork_end(aloop_transport_t *transport, int rc) {
  aloop__cork_t *cork = cork_of(transport);
  if (cork->parts > 0) send_parts(transport, cork);
  if (rc < 0) aloop__stream_end_by_user(transport, rc);
}

void aloop__cork_end_sent(aloop_transport_t *transport, ssize_t n) {
  if (n < 0 && n != ALOOP_EAGAIN) {
    aloop__stream_end(transport, (int)n);
    return;
  }
  int rc = keep_rest(transport, cork_of(transport)->iov, 1, n > 0 ? (size_t)n : 0);
  if (rc < 0) aloop__stream_end(transport, rc);
}

static void add_part(aloop__cork_t *cork, const void *data, size_t size) {
  struct iovec *last = cork->parts > 0 ? &cork->iov[cork->parts - 1] : NULL;
  if (last != NULL && (const char *)last->iov_base + last->iov_len == (const char *)data)
    last->iov_len += size;
  else
    cork->iov[cork->parts++] = (struct iovec){.iov_base = (void *)data, .iov_len = size};
}

/* Gathers one write. Returns false if it must be sent now, behind what was gathered. */
static bool gather(aloop_transport_t *transport, const char *data, size_t size) {
  aloop__cork_t *cork = cork_of(transport);
  if (!aloop__cork_is_open(transport) || !aloop__outbox_empty(&transport->outbox) ||
      cork->parts == ALOOP__CORK_PARTS)
    return false;
  if ((size_t)(data - cork->data) < cork->data_size && size <= cork->data_size - (size_t)(data - cork->data)) {
    add_part(cork, data, size);
    return true;
  }
  if (size > ALOOP__CORK_SIZE - cork->used) return false;
  char *copy = aloop__net_of(transport->object.loop)->cork_buffer + cork->used;
  memcpy(copy, data, size);
  cork->used += (uint32_t)size;
  add_part(cork, copy, size);
  return true;
}

/* ---- Messages ------------------------------------------------------------------------------------------- */

/* What a socket buffer has no room for even when it is empty. */
static bool is_too_long(const aloop_transport_t *transport, size_t message) {
  enum { OVERHEAD = 32 }; /* of Linux */
  int room = 0;
  socklen_t size = sizeof room;
  return getsockopt(transport->watch.fd, SOL_SOCKET, SO_SNDBUF, &room, &size) == 0 && room > 0 &&
         message > (size_t)room - (room > OVERHEAD ? OVERHEAD : 0);
}

/* Returns 0 (the message has gone, or the connection has ended), ALOOP_EAGAIN: it must wait, or
 * ALOOP_EMSGSIZE. */
static int send_message(aloop_transport_t *transport, const struct iovec *iov, int count) {
  if (!aloop__outbox_empty(&transport->outbox) || count > PARTS_AT_ONCE)
    return is_too_long(transport, aloop__iov_total(iov, count)) ? ALOOP_EMSGSIZE : ALOOP_EAGAIN;
  ssize_t n = transport->driver->send(transport, iov, count);
  if (n == ALOOP_EAGAIN || n == ALOOP_EMSGSIZE) return (int)n;
  if (n < 0)
    aloop__stream_end(transport, (int)n);
  else if (transport->extras != NULL)
    aloop__stream_touch(transport, false, true);
  return 0;
}

static const struct iovec nothing = {.iov_base = (void *)aloop__outbox_nothing, .iov_len = 1};

static int write_message(aloop_transport_t *transport, const struct iovec *iov, int count) {
  int rc = send_message(transport, iov, count);
  if (rc != ALOOP_EAGAIN) return rc;
  note_first_unsent(transport);
  rc = aloop__outbox_append_message(transport->object.loop, &transport->outbox, iov, count);
  if (rc == 0) appended(transport);
  return rc;
}

void aloop__stream_put(aloop_transport_t *transport, const struct iovec *iov, int count) {
  size_t total = aloop__iov_total(iov, count);
  int rc;
  if ((transport->flags & ALOOP__MESSAGES) == 0)
    rc = send_or_keep(transport, iov, count, total);
  else
    rc = total > 0 ? write_message(transport, iov, count) : write_message(transport, &nothing, 1);
  if (rc < 0) aloop__stream_end(transport, rc);
}

static int write_message_owned(aloop_transport_t *transport, struct iovec part, aloop_destroy_fn release,
                               void *arg) {
  if (part.iov_len == 0) part = nothing;
  int rc = send_message(transport, &part, 1);
  if (rc == 0 && release != NULL) release(arg);
  if (rc != ALOOP_EAGAIN) return rc;
  note_first_unsent(transport);
  rc = aloop__outbox_append_owned(transport->object.loop, &transport->outbox, part.iov_base, part.iov_len, 0,
                                  release, arg);
  if (rc == 0) appended(transport);
  return rc;
}

/* ---- Public writes -------------------------------------------------------------------------------------- */

/* Why a write of that many bytes is refused, or 0. */
static ALOOP_NOINLINE int refuse(aloop_transport_t *transport, size_t size) {
  aloop_t *loop = transport->object.loop;
  int rc = aloop__loop_thread(loop);
  if (rc < 0) return rc;
  if (transport->object.state >= ALOOP__CLOSING || (transport->flags & ALOOP__CARRIER)) return ALOOP_ECLOSED;
  if (transport->flags & ALOOP__NO_WRITE) return aloop__misuse(loop, ALOOP_ENOTSUP, "a write to a read pipe");
  if (transport->flags & ALOOP__EOF_WANTED) return aloop__misuse(loop, ALOOP_EPIPE, "a write after write_eof");
  if (transport->flags & ALOOP__SENDFILE) return aloop__misuse(loop, ALOOP_EBUSY, "a write during sendfile");
  if (aloop__relay_of(transport) != NULL) return aloop__misuse(loop, ALOOP_EBUSY, aloop__relay_rule);
  size_t cap = transport->extras != NULL ? transport->extras->cap : 0;
  if (size == 0 && (transport->flags & ALOOP__MESSAGES)) size = 1;
  size_t unsent = aloop__stream_unsent(transport) + aloop__cork_size(transport);
  if (cap > 0 && (size > cap || unsent > cap - size)) return ALOOP_ENOBUFS;
  return 0;
}

/* What a write has to wait for, or what forbids it. */
enum { REASONS = ALOOP__SHUT | ALOOP__EOF_WANTED | ALOOP__SENDFILE | ALOOP__NO_WRITE };

/* The commonest write of all: the first answer inside data_received, made of what was received. */
static inline bool gather_first(aloop_transport_t *transport, const void *data, size_t size) {
  if ((transport->flags & (REASONS | ALOOP__EXTRAS)) != 0 || !aloop__outbox_empty(&transport->outbox))
    return false;
  aloop_t *loop = transport->object.loop;
  if (ALOOP_UNLIKELY(loop->guard != 0)) return false;
  aloop__cork_t *cork = &aloop__net_of(loop)->cork;
  if (cork->owner != transport || cork->parts != 0 || data != cork->data || size - 1 >= cork->data_size)
    return false;
  cork->iov[0] = (struct iovec){.iov_base = (void *)data, .iov_len = size};
  cork->parts = 1;
  return true;
}

/* The common case needs none of the checks above. */
static inline int check(aloop_transport_t *transport, size_t size) {
  uint32_t reasons = transport->flags & REASONS;
  if (ALOOP_LIKELY((reasons | transport->object.loop->guard) == 0) && ALOOP_LIKELY(transport->extras == NULL))
    return 0;
  return refuse(transport, size);
}

static ALOOP_NOINLINE int write_parts(aloop_transport_t *transport, const struct iovec *iov, int count,
                                      size_t size) {
  if (transport->flags & ALOOP__MESSAGES) return write_message(transport, iov, count);
  flush_cork(transport);
  if (join_row(transport, iov, count, size)) return 0;
  return transport->object.state < ALOOP__CLOSING ? send_or_keep(transport, iov, count, size) : 0;
}

/* No bytes: an empty message, or none. */
static ALOOP_NOINLINE int write_nothing(aloop_transport_t *transport) {
  return transport->flags & ALOOP__MESSAGES ? write_message(transport, &nothing, 1) : 0;
}

/* A write without a transport or without bytes. */
static ALOOP_NOINLINE int refuse_arguments(const aloop_transport_t *transport) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  return aloop__misuse(transport->object.loop, ALOOP_EINVAL,
                       "a write has bytes, and no more than memory holds");
}

static inline bool is_sound(const aloop_transport_t *transport, const void *data, size_t size) {
  return ALOOP_LIKELY(transport != NULL) && ALOOP_LIKELY(size <= PTRDIFF_MAX) &&
         (ALOOP_LIKELY(data != NULL) || size == 0);
}

/* How many bytes there are; more than PTRDIFF_MAX if some part is none. */
static size_t measure(const struct iovec *iov, int count) {
  size_t size = 0;
  for (int i = 0; i < count; i++) {
    if (iov[i].iov_len > PTRDIFF_MAX - size || (iov[i].iov_base == NULL && iov[i].iov_len > 0)) return SIZE_MAX;
    size += iov[i].iov_len;
  }
  return size;
}

static ALOOP_NOINLINE int write_any(aloop_transport_t *transport, const void *data, size_t size) {
  if (ALOOP_UNLIKELY(!is_sound(transport, data, size))) return refuse_arguments(transport);
  int rc = check(transport, size);
  if (ALOOP_UNLIKELY(rc < 0)) return rc;
  if (ALOOP_UNLIKELY(size == 0)) return write_nothing(transport);
  if (gather(transport, data, size)) return 0;
  struct iovec part = {.iov_base = (void *)data, .iov_len = size};
  return write_parts(transport, &part, 1, size);
}

int aloop_transport_write(aloop_transport_t *transport, const void *data, size_t size) {
  if (ALOOP_LIKELY(transport != NULL) && gather_first(transport, data, size)) return 0;
  return write_any(transport, data, size);
}

int aloop_transport_writev(aloop_transport_t *transport, const struct iovec *iov, int count) {
  size_t size = iov != NULL && count >= 0 ? measure(iov, count) : count == 0 ? 0 : SIZE_MAX;
  if (ALOOP_UNLIKELY(!is_sound(transport, iov, size))) return refuse_arguments(transport);
  int rc = check(transport, size);
  if (rc < 0) return rc;
  if (size == 0 || (transport->flags & ALOOP__MESSAGES))
    return size == 0 ? write_nothing(transport) : write_message(transport, iov, count);
  aloop__cork_t *cork = cork_of(transport);
  if (aloop__cork_is_open(transport) && aloop__outbox_empty(&transport->outbox) &&
      count <= ALOOP__CORK_PARTS - cork->parts && size <= ALOOP__CORK_SIZE - cork->used) {
    for (int i = 0; i < count; i++)
      if (iov[i].iov_len > 0) gather(transport, iov[i].iov_base, iov[i].iov_len);
    return 0;
  }
  if (count <= PARTS_AT_ONCE) return write_parts(transport, iov, count, size);
  /* More parts than a system call takes: all of it is buffered, to be all or nothing, and then sent. */
  aloop__cork_flush(transport);
  if (transport->object.state < ALOOP__CLOSING) rc = keep_rest(transport, iov, count, 0);
  return rc;
}

/* What the socket has not taken waits where it lies. Once a part was sent there is no way back but the end. */
static ALOOP_NOINLINE int keep_owned(aloop_transport_t *transport, const struct iovec *part, size_t sent,
                                     aloop_destroy_fn release, void *arg) {
  note_first_unsent(transport);
  int rc = aloop__outbox_append_owned(transport->object.loop, &transport->outbox, part->iov_base, part->iov_len,
                                      sent, release, arg);
  if (rc == 0) {
    appended(transport);
  } else if (sent > 0) {
    aloop__stream_end(transport, rc);
    if (release != NULL) release(arg);
    rc = 0;
  }
  return rc;
}

int aloop_transport_write_owned(aloop_transport_t *transport, const void *data, size_t size,
                                aloop_destroy_fn release, void *arg) {
  if (ALOOP_UNLIKELY(!is_sound(transport, data, size))) return refuse_arguments(transport);
  int rc = check(transport, size);
  if (rc < 0) return rc;
  struct iovec part = {.iov_base = (void *)data, .iov_len = size};
  if (ALOOP_UNLIKELY(transport->flags & ALOOP__MESSAGES))
    return write_message_owned(transport, part, release, arg);
  ssize_t n = 0;
  flush_cork(transport);
  if (size > 0 && join_row(transport, &part, 1, size))
    n = (ssize_t)size; /* as a copy */
  else if (transport->object.state < ALOOP__CLOSING && aloop__outbox_empty(&transport->outbox) && size > 0)
    n = try_send(transport, &part, 1);
  if (ALOOP_UNLIKELY(n >= 0 && (size_t)n != size) && transport->object.state < ALOOP__CLOSING)
    return keep_owned(transport, &part, (size_t)n, release, arg);
  if (ALOOP_UNLIKELY(transport->driver->beneath != NULL)) aloop__write_check_high(transport);
  if (release != NULL) release(arg); /* last: it may free the loop */
  return 0;
}

static bool can_send_eof(const aloop_transport_t *transport) {
  return transport->driver->can_send_eof == NULL || transport->driver->can_send_eof(transport);
}

int aloop_transport_write_eof(aloop_transport_t *transport) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  aloop_t *loop = transport->object.loop;
  if (transport->object.state >= ALOOP__CLOSING || (transport->flags & ALOOP__EOF_WANTED)) return 0;
  if (transport->flags & ALOOP__NO_WRITE) return aloop__misuse(loop, ALOOP_ENOTSUP, "write_eof of a read pipe");
  if (transport->flags & ALOOP__SENDFILE) return aloop__misuse(loop, ALOOP_EBUSY, "write_eof during sendfile");
  if (aloop__relay_of(transport) != NULL) return aloop__misuse(loop, ALOOP_EBUSY, aloop__relay_rule);
  if (!can_send_eof(transport)) return ALOOP_ENOTSUP;
  transport->flags |= ALOOP__EOF_WANTED;
  aloop__cork_flush(transport);
  aloop__stream_drained(transport);
  return 0;
}

bool aloop_transport_can_write_eof(const aloop_transport_t *transport) {
  return aloop__stream_enter(transport) == 0 && (transport->flags & ALOOP__NO_WRITE) == 0 &&
         can_send_eof(transport);
}

/* ---- Public limits -------------------------------------------------------------------------------------- */

int aloop__write_limits(aloop_t *loop, int64_t high, int64_t low, uint32_t *new_high, uint32_t *new_low) {
  if (high < 0) high = low < 0 ? ALOOP__DEFAULT_HIGH : low > UINT32_MAX ? low : low * ALOOP__LOW_SHARE;
  if (high > UINT32_MAX) return aloop__misuse(loop, ALOOP_ERANGE, "write buffer limits lie below 4 GiB");
  if (low < 0) low = high / ALOOP__LOW_SHARE;
  if (low > high) return aloop__misuse(loop, ALOOP_EINVAL, "the low-water mark lies above the high-water mark");
  *new_high = (uint32_t)high;
  *new_low = (uint32_t)low;
  return 0;
}

int aloop_transport_set_write_buffer_limits(aloop_transport_t *transport, int64_t high, int64_t low) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  aloop__row_flush(transport);
  rc = aloop__write_limits(transport->object.loop, high, low, &transport->high, &transport->low);
  if (rc == 0) aloop__write_check_high(transport);
  return rc;
}

int aloop_transport_get_write_buffer_limits(const aloop_transport_t *transport, size_t *high, size_t *low) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  if (high == NULL || low == NULL)
    return aloop__misuse(transport->object.loop, ALOOP_EINVAL, "both limits need a place to go to");
  *high = transport->high;
  *low = transport->low;
  return 0;
}

int aloop_transport_set_write_buffer_cap(aloop_transport_t *transport, size_t bytes) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  aloop__stream_extras_t *extras = aloop__stream_extras(transport);
  if (extras == NULL) return ALOOP_ENOMEM;
  aloop__row_flush(transport);
  extras->cap = bytes;
  return 0;
}

size_t aloop_transport_get_write_buffer_size(const aloop_transport_t *transport) {
  if (aloop__stream_enter(transport) < 0) return 0;
  return aloop__stream_unsent(transport) + aloop__cork_size(transport) + aloop__relay_size(transport);
}
