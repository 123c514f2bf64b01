/* SPDX-License-Identifier: MIT
 *
 * The bytes of a TLS transport: from the carrier through the engine to the protocol, and back.
 *
 * All transports of a loop share one set of buffers, because only one of them is at work at a time: an idle
 * connection holds none. Ciphertext is received into `in`; the engine takes it from there and decrypts into the
 * loop's read buffer, or the protocol's own memory, until it wants more or the buffer is full, and the protocol
 * gets all of that in one call. What the engine puts out is collected in `out`, several records, and leaves in
 * one write of the carrier. A transport over a TLS transport is at work while the one beneath it is, too, so
 * each depth has buffers of its own. `out` is always empty when a callback of the protocol is made: it may
 * write to another transport.
 *
 * Nothing is encrypted while the carrier has unsent bytes. So there is one place where bytes pile up, the
 * outbox of the transport itself, and what the carrier holds besides is never more than one round, and a
 * little that the engine answers to the peer: that is counted by aloop__stream_unsent, and no more memory is
 * used for it.
 *
 * While reading is paused the carrier goes on reading until something comes: only then is it paused as well,
 * before a byte is read. Pausing and resuming in between cost no system call. What the engine has not taken
 * then, is held. Delivery of what is held, or what the engine has, is never made from inside resume_reading but
 * queued (pump).
 *
 * Small parts of one write are joined to fill records; a part of a record's size or more goes to the engine
 * without that copy.
 */
#include <string.h>

#include "core/memory.h"
#include "net/relay.h"
#include "net/write.h"
#include "tls/tls.h"

enum { IN_SIZE = 65536, OUT_SIZE = 5 * (ALOOP__TLS_RECORD + 64) };

/* An engine that does not take so much is of no use. */
enum { HELD_MAX = 4 * IN_SIZE };

/* What the engine answers to a peer that takes nothing. */
enum { ANSWERS_MAX = 16384 };

struct aloop__tls_level {
  size_t used; /* of out */
  unsigned char in[IN_SIZE];
  unsigned char out[OUT_SIZE];
  unsigned char joined[ALOOP__TLS_RECORD]; /* plaintext */
};

typedef struct room {
  aloop__room_t room;
  aloop__tls_level_t *levels[ALOOP__TLS_DEPTH_MAX];
} room_t;

/* ---- Buffers --------------------------------------------------------------------------------------------- */

void aloop__tls_clear(void *block, size_t size) {
  static void *(*const volatile set)(void *, int, size_t) = memset;
  set(block, 0, size);
}

/* The buffers of the net room held plaintext of ours; that room is closed after this one. */
static void close_room(aloop_t *loop, aloop__room_t *closed) {
  room_t *room = (room_t *)(void *)closed;
  aloop__net_t *net = aloop__net_of(loop);
  aloop__tls_clear(net->read_buffer, ALOOP__READ_SIZE);
  aloop__tls_clear(net->cork_buffer, ALOOP__CORK_SIZE);
  for (int i = 0; i < ALOOP__TLS_DEPTH_MAX; i++) {
    if (room->levels[i] != NULL) aloop__tls_clear(room->levels[i], sizeof *room->levels[i]);
    aloop__memory_release(loop, room->levels[i]);
  }
  aloop__memory_release(loop, room);
}

static room_t *open_room(aloop_t *loop) {
  if (aloop__net_open(loop) == NULL) return NULL;
  room_t *room = (room_t *)(void *)loop->rooms[ALOOP__ROOM_TLS];
  if (room != NULL) return room;
  room = aloop__memory_zero(loop, sizeof *room);
  if (room == NULL) return NULL;
  room->room.close = close_room;
  loop->rooms[ALOOP__ROOM_TLS] = &room->room;
  return room;
}

aloop__tls_level_t *aloop__tls_level(aloop_t *loop, unsigned depth) {
  room_t *room = open_room(loop);
  if (room == NULL) return NULL;
  if (room->levels[depth] == NULL) {
    room->levels[depth] = aloop__memory_new(loop, sizeof *room->levels[depth]);
    if (room->levels[depth] != NULL) room->levels[depth]->used = 0;
  }
  return room->levels[depth];
}

/* ---- What the engine puts out ---------------------------------------------------------------------------- */

typedef aloop__tls_io_t io_t;

static void put(aloop__tls_t *self, const void *data, size_t size) {
  struct iovec part = {.iov_base = (void *)data, .iov_len = size};
  if (self->carrier->object.state < ALOOP__ENDING) aloop__stream_put(self->carrier, &part, 1);
}

void aloop__tls_flush(aloop__tls_t *self) {
  aloop__tls_level_t *level = self->level;
  size_t size = level->used;
  level->used = 0;
  if (size > 0) put(self, level->out, size);
}

static int output(aloop_tls_wire_t *wire, const void *data, size_t size) {
  aloop__tls_t *self = aloop__tls_of_wire(wire);
  aloop__tls_level_t *level = self->level;
  if (self->kernel) return ALOOP_ETLS; /* it would be encrypted twice */
  if (size > OUT_SIZE - level->used) aloop__tls_flush(self);
  if (size > OUT_SIZE) {
    put(self, data, size);
    return 0;
  }
  memcpy(level->out + level->used, data, size);
  level->used += size;
  return 0;
}

aloop__tls_io_t aloop__tls_io_of(aloop__tls_t *self, const unsigned char *data, size_t size) {
  return (io_t){.wire = {.input = data,
                         .input_size = size,
                         .output = output,
                         .keys = aloop__tls_kernel_keys,
                         .record = aloop__tls_kernel_record},
                .self = self};
}

/* ---- Receiving ------------------------------------------------------------------------------------------- */

bool aloop__tls_wants_input(const aloop__tls_t *self) {
  if (self->phase == ALOOP__TLS_HANDSHAKE) return true;
  return self->phase == ALOOP__TLS_OPEN && !self->ended && !self->stalled &&
         aloop__stream_wants_read(&self->transport);
}

static void deliver_end(aloop__tls_t *self) {
  aloop_transport_t *transport = &self->transport;
  if (!aloop__stream_wants_read(transport)) return;
  aloop__stream_received_eof(transport);
  if (self->phase == ALOOP__TLS_OPEN && aloop__relay_of(transport) == NULL && /* a relay closes both sides */
      !aloop__tls_engine(self)->half_close(self->session))
    aloop__stream_close(transport);
}

/* Whether the engine could say more without more input. Asking it in vain costs as much as a small record. */
static bool has_more(const aloop__tls_t *self, const aloop_tls_wire_t *wire) {
  return wire->input_size > 0 || aloop__tls_engine(self)->pending(self->session);
}

/* Fills the memory with plaintext. Returns the engine's last word: > 0 with full memory. */
static ssize_t decrypt(aloop__tls_t *self, aloop_tls_wire_t *wire, char *buffer, size_t size, size_t *filled) {
  const aloop_tls_engine_t *engine = aloop__tls_engine(self);
  *filled = 0;
  while (*filled < size) {
    if (!has_more(self, wire)) return 0;
    ssize_t n = engine->read(self->session, wire, buffer + *filled, size - *filled);
    if (n <= 0) return n;
    *filled += (size_t)n;
  }
  return 1;
}

/* Where plaintext goes to. Returns 1, or 0 if there is no place now. */
static int find_place(aloop__tls_t *self, void **buffer, size_t *size) {
  aloop_transport_t *transport = &self->transport;
  if (transport->table->get_buffer == NULL) {
    *buffer = aloop__net_of(transport->object.loop)->read_buffer;
    *size = IN_SIZE;
    return 1;
  }
  int rc = aloop__stream_get_buffer(transport, buffer, size);
  if (rc < 0) aloop__stream_end(transport, rc);
  return rc > 0;
}

static void hand_over(aloop__tls_t *self, const void *data, size_t size) {
  aloop_transport_t *transport = &self->transport;
  aloop__cork_t *cork = &aloop__net_of(transport->object.loop)->cork;
  aloop__stream_received(transport, cork, data, size, aloop__tls_send);
  aloop__write_check_high(transport);
}

/* Sends what the engine has put out while it read. A peer that wants new keys again and again and takes nothing
 * is sent away, or its answers would fill the memory. */
static void flush_answers(aloop__tls_t *self) {
  if (ALOOP_UNLIKELY(self->blocked)) self->answers += (uint32_t)self->level->used;
  aloop__tls_flush(self);
  if (ALOOP_UNLIKELY(self->answers > ANSWERS_MAX))
    aloop__tls_fail(self, ALOOP_ETLS, "the peer wants answers and does not take them");
}

/* The run has been ended in a callback. */
static bool is_stopped(const aloop__tls_t *self) {
  return self->transport.object.loop->stop_error != 0;
}

/* What is left is for the next run. */
static void put_off(aloop__tls_t *self, const aloop_tls_wire_t *wire) {
  self->stalled = !self->ended && has_more(self, wire);
  aloop__stream_update_reading(&self->transport);
}

/* Decrypts and delivers, as long as somebody wants it. */
static void deliver(aloop__tls_t *self, aloop_tls_wire_t *wire) {
  void *buffer;
  size_t size, filled;
  ssize_t n = 1;
  self->stalled = false;
  while (n > 0 && self->phase == ALOOP__TLS_OPEN) {
    if (!aloop__stream_wants_read(&self->transport) || !find_place(self, &buffer, &size)) {
      self->stalled = self->phase == ALOOP__TLS_OPEN ? has_more(self, wire) : wire->input_size > 0;
      return;
    }
    n = decrypt(self, wire, buffer, size, &filled);
    flush_answers(self);
    if (n == ALOOP_EOF) self->ended = true;
    if (filled > 0 && self->phase == ALOOP__TLS_OPEN) hand_over(self, buffer, filled);
    if (is_stopped(self)) break;
  }
  if (self->phase != ALOOP__TLS_OPEN) return;
  if (n < 0 && !self->ended)
    aloop__tls_fail(self, (int)n, NULL);
  else if (is_stopped(self))
    put_off(self, wire);
  else if (self->ended)
    deliver_end(self);
}

/* Remembers what the engine has not taken. */
static void hold(aloop__tls_t *self, const unsigned char *data, size_t size) {
  if (self->phase >= ALOOP__TLS_SHUT || self->ended || size == 0) return;
  if (size <= HELD_MAX) self->held = aloop__memory_new(self->transport.object.loop, size);
  if (self->held == NULL) {
    aloop__stream_end(&self->transport, size <= HELD_MAX ? ALOOP_ENOMEM : ALOOP_ETLS);
    return;
  }
  memcpy(self->held, data, size);
  self->held_size = size;
}

static void process(aloop__tls_t *self, const unsigned char *data, size_t size) {
  io_t io = aloop__tls_io_of(self, data, size);
  if (self->phase == ALOOP__TLS_HANDSHAKE) aloop__tls_shake(self, &io.wire);
  if (self->phase == ALOOP__TLS_OPEN) deliver(self, &io.wire);
  hold(self, io.wire.input, io.wire.input_size);
}

/* The same for what is held, with `size` more bytes behind it. */
static void process_held(aloop__tls_t *self, const unsigned char *data, size_t size) {
  aloop_t *loop = self->transport.object.loop;
  unsigned char *held = self->held;
  size_t before = self->held_size;
  if (size > 0) {
    unsigned char *larger = aloop__memory_resize(loop, held, before + size);
    if (larger == NULL) {
      aloop__stream_end(&self->transport, ALOOP_ENOMEM);
      return;
    }
    held = larger;
    memcpy(held + before, data, size);
  }
  self->held = NULL;
  self->held_size = 0;
  process(self, held, before + size);
  aloop__memory_release(loop, held);
}

void aloop__tls_get_buffer(aloop__tls_t *self, void **buffer, size_t *size) {
  *buffer = self->level->in;
  *size = IN_SIZE;
}

void aloop__tls_received(aloop__tls_t *self, size_t size) {
  if (self->phase == ALOOP__TLS_HANDSHAKE) self->count += size;
  if (self->held_size > 0)
    process_held(self, self->level->in, size);
  else
    process(self, self->level->in, size);
}

/* ---- Sending --------------------------------------------------------------------------------------------- */

/* A piece of the parts that makes a record: joined, where they are small. */
typedef struct cursor {
  const struct iovec *iov;
  int left;
  size_t at; /* in the first part */
} cursor_t;

static size_t join(aloop__tls_level_t *level, cursor_t *cursor) {
  size_t size = 0;
  while (cursor->left > 0 && size < ALOOP__TLS_RECORD) {
    size_t n = cursor->iov->iov_len - cursor->at;
    if (n > ALOOP__TLS_RECORD - size) n = ALOOP__TLS_RECORD - size;
    if (n > 0) memcpy(level->joined + size, (const char *)cursor->iov->iov_base + cursor->at, n);
    size += n;
    cursor->at += n;
    if (cursor->at < cursor->iov->iov_len) break;
    cursor->iov++, cursor->left--;
    cursor->at = 0;
  }
  return size;
}

static size_t next_piece(aloop__tls_level_t *level, cursor_t *cursor, const void **data) {
  size_t n = cursor->iov->iov_len - cursor->at;
  if (cursor->left > 1 && n < ALOOP__TLS_RECORD) {
    *data = level->joined;
    return join(level, cursor);
  }
  *data = (const char *)cursor->iov->iov_base + cursor->at;
  if (n > ALOOP__TLS_RECORD) n = ALOOP__TLS_RECORD;
  cursor->at += n;
  if (cursor->at == cursor->iov->iov_len) {
    cursor->iov++, cursor->left--;
    cursor->at = 0;
  }
  return n;
}

ssize_t aloop__tls_send(aloop_transport_t *transport, const struct iovec *iov, int count) {
  aloop__tls_t *self = aloop__tls_of(transport);
  if (self->kernel) return aloop__tls_kernel_send(self, iov, count);
  cursor_t cursor = {.iov = iov, .left = count};
  io_t io = aloop__tls_io_of(self, NULL, 0);
  size_t taken = 0;
  int rc = 0;
  if (self->phase != ALOOP__TLS_OPEN || self->blocked) return ALOOP_EAGAIN;
  while (rc == 0 && cursor.left > 0 && !self->blocked && self->phase == ALOOP__TLS_OPEN) {
    const void *data;
    size_t size = next_piece(self->level, &cursor, &data);
    if (size > 0) rc = aloop__tls_engine(self)->write(self->session, &io.wire, data, size);
    if (rc == 0) taken += size;
  }
  aloop__tls_flush(self);
  if (rc == 0) return (ssize_t)taken;
  aloop__tls_fail(self, rc, NULL);
  return rc;
}

int aloop__tls_say_end(aloop__tls_t *self) {
  io_t io = aloop__tls_io_of(self, NULL, 0);
  if (self->told) return 0;
  self->told = true;
  int rc = aloop__tls_engine(self)->shutdown(self->session, &io.wire);
  aloop__tls_flush(self);
  return rc;
}

static void write_outbox(aloop__tls_t *self) {
  enum { PARTS = 64 };
  if (self->kernel) {
    aloop__tls_kernel_write_outbox(self);
    return;
  }
  aloop_transport_t *transport = &self->transport;
  struct iovec iov[PARTS];
  while (!aloop__outbox_empty(&transport->outbox) && !self->blocked && self->phase == ALOOP__TLS_OPEN) {
    int count = aloop__outbox_peek(&transport->outbox, iov, PARTS);
    ssize_t n = aloop__tls_send(transport, iov, count);
    if (n < 0) return;
    aloop__stream_sent(transport, (size_t)n);
  }
}

int aloop__tls_flush_outbox(aloop_transport_t *transport) {
  aloop__tls_t *self = aloop__tls_of(transport);
  if (self->kernel) return aloop__tls_kernel_flush_outbox(self);
  write_outbox(self);
  return 0;
}

/* The carrier takes bytes: those that wait go on. */
static void go_on_writing(aloop__tls_t *self) {
  aloop_transport_t *transport = &self->transport;
  write_outbox(self);
  if (self->blocked || self->phase != ALOOP__TLS_OPEN || !self->wants_room) return;
  self->wants_room = false;
  if (transport->flags & ALOOP__SENDFILE) aloop__sendfile_go_on(transport);
}

void aloop__tls_unblocked(aloop__tls_t *self) {
  aloop_transport_t *transport = &self->transport;
  self->blocked = false;
  self->answers = 0;
  if (self->kernel && !aloop__tls_kernel_unblocked(self)) return;
  if (self->phase == ALOOP__TLS_OPEN) aloop__tls_kernel_offer(self);
  aloop__write_check_low(transport);
  go_on_writing(self);
}

/* ---- The pump -------------------------------------------------------------------------------------------- */

static void read_carrier(aloop__tls_t *self) {
  if (self->carrier->object.state >= ALOOP__CLOSING || (self->carrier->flags & ALOOP__PAUSED) == 0) return;
  self->carrier->flags &= ~(uint32_t)ALOOP__PAUSED;
  aloop__stream_update_reading(self->carrier);
}

static void pump(aloop_t *loop, void *arg) {
  aloop__tls_t *self = arg;
  self->pumping = false;
  aloop__stream_enter_context(loop, &self->transport);
  if (self->phase != ALOOP__TLS_OPEN) return;
  if (self->ended)
    deliver_end(self);
  else if (aloop__stream_wants_read(&self->transport))
    process_held(self, NULL, 0);
  if (self->phase == ALOOP__TLS_OPEN && !self->blocked) go_on_writing(self);
  if (self->phase == ALOOP__TLS_OPEN && aloop__tls_wants_input(self)) read_carrier(self);
}

static int queue_pump(aloop__tls_t *self) {
  if (self->pumping) return 0;
  if (!aloop__ready_push(self->transport.object.loop, pump, self)) return ALOOP_ENOMEM;
  self->pumping = true;
  aloop__loop_armed(self->transport.object.loop);
  return 0;
}

int aloop__tls_read(aloop_transport_t *transport, bool on) {
  aloop__tls_t *self = aloop__tls_of(transport);
  if (transport->object.state == ALOOP__OPEN) self->begun = true;
  if (!on || self->phase != ALOOP__TLS_OPEN) return 0;
  if (self->stalled || self->ended) return queue_pump(self);
  read_carrier(self);
  return 0;
}

int aloop__tls_await_room(aloop_transport_t *transport) {
  aloop__tls_t *self = aloop__tls_of(transport);
  if (self->kernel) return aloop__tls_kernel_await_room(self);
  self->wants_room = true;
  return self->blocked ? 0 : queue_pump(self);
}
