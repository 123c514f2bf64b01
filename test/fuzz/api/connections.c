/* SPDX-License-Identifier: MIT
 *
 * Connections over socket pairs. The model keeps every byte that was accepted, and compares what the peer
 * reads; the peer sends bytes that tell their position. A file is copied to the model before it is sent,
 * because the peer may read it meanwhile. See fuzz_api.c.
 */
#include "world.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Learns whether a sendfile has ended, and with how many bytes. */
void sync_sendfile(conn_t *conn) {
  if (conn->sendfile == NULL || !aloop_future_done(conn->sendfile)) return;
  off_t at = lseek(conn->file, 0, SEEK_CUR);
  int64_t result = aloop_future_result(conn->sendfile);
  MUST(at >= conn->file_from && (result < 0 || result == at - conn->file_from));
  conn->accepted += (size_t)(at - conn->file_from);
  MUST(conn->accepted <= conn->sendable);
  aloop_future_unref(conn->sendfile);
  conn->sendfile = NULL;
}

/* An end that the library found by itself must have a reason. */
static void sync_closing(conn_t *conn) {
  if (!conn->made || conn->closing) return;
  bool closing = aloop_transport_is_closing(conn->transport);
  if (closing) MUST(conn->peer < 0 || conn->timed || w.starved);
  conn->closing = closing;
}

void check_state(conn_t *conn) {
  sync_sendfile(conn);
  sync_closing(conn);
  if (!conn->made) return;
  MUST(aloop_transport_is_closing(conn->transport) == conn->closing);
  MUST(aloop_transport_is_reading(conn->transport) == (!conn->closing && !conn->paused && !conn->got_eof));
  if (conn->lost) MUST(aloop_transport_get_write_buffer_size(conn->transport) == 0);
  if (conn->lost && !conn->leaving) MUST(aloop_transport_fd(conn->transport) == ALOOP_ECLOSED);
}

static conn_t *some_conn(void) {
  conn_t *conn = &w.conns[byte() % CONNS];
  if (!conn->used || !conn->made) return NULL;
  check_state(conn);
  return conn;
}

/* What a write of that size has to answer. */
static int verdict(const conn_t *conn, size_t size) {
  size_t unsent = aloop_transport_get_write_buffer_size(conn->transport);
  if (conn->closing) return ALOOP_ECLOSED;
  if (conn->wants_eof) return ALOOP_EPIPE;
  if (conn->sendfile != NULL) return ALOOP_EBUSY;
  if (conn->cap > 0 && unsent + size > conn->cap) return ALOOP_ENOBUFS;
  return 0;
}

/* Callbacks of one event share a context, and so what the first of them sets. */
static bool in_own_context(const conn_t *conn) {
  return current_context() == conn->context || w.changed == w.turn;
}

static void end_by_us(conn_t *conn, int error) {
  if (conn->aborted) return;
  conn->aborted = conn->closing = true;
  conn->abort_error = error;
}

static uint8_t in_byte(size_t at) {
  return (uint8_t)(at ^ at >> 8);
}

/* ---- Connections: callbacks ----------------------------------------------------------------------------- */

static void *on_create(void *arg) {
  conn_t *conn = arg;
  MUST(!conn->made);
  return conn->refuse ? NULL : conn;
}

static void on_made(aloop_transport_t *transport, void *protocol) {
  conn_t *conn = protocol;
  MUST(!w.closed && !conn->made && !conn->refuse && in_own_context(conn));
  conn->transport = aloop_transport_ref(transport);
  conn->made = true;
  conn->fd = -1;
  react();
}

/* Bytes came: they must be the next ones, and wanted. Returns what the callback answers. */
static int received(conn_t *conn, const uint8_t *data, size_t size) {
  MUST(conn->made && !conn->lost && !conn->closing && !conn->paused && !conn->got_eof && size > 0);
  MUST(in_own_context(conn));
  for (size_t i = 0; i < size; i++) MUST(data[i] == in_byte(conn->received + i));
  conn->received += size;
  MUST(conn->received <= conn->peer_sent);
  unsigned what = byte();
  size_t part = size < what ? size : what;
  check_state(conn);
  /* An echo, which may go out without a copy. */
  if ((what & 1) && conn->accepted + part <= OUT_MAX && conn->sendfile == NULL) {
    int expected = verdict(conn, part);
    if (answered(aloop_transport_write(conn->transport, data + size - part, part), expected)) {
      memcpy(conn->out + conn->accepted, data + size - part, part);
      conn->accepted += part;
    }
  }
  react();
  for (size_t i = 0; i < size; i++) MUST(data[i] == in_byte(conn->received - size + i) || data == conn->buffer);
  sync_closing(conn);
  if (what != 77) return 0;
  end_by_us(conn, ALOOP_EMSGSIZE);
  return ALOOP_EMSGSIZE;
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  conn_t *conn = protocol;
  MUST(transport == conn->transport);
  return received(conn, data, size);
}

static int on_get_buffer(aloop_transport_t *transport, void *protocol, size_t hint, void **buffer,
                         size_t *size) {
  conn_t *conn = protocol;
  MUST(transport == conn->transport && hint > 0);
  *buffer = conn->buffer;
  *size = 1 + byte() * 2;
  react();
  return 0;
}

static int on_updated(aloop_transport_t *transport, void *protocol, size_t size) {
  conn_t *conn = protocol;
  MUST(transport == conn->transport && size <= sizeof conn->buffer);
  int rc = received(conn, conn->buffer, size);
  memset(conn->buffer, 0xee, sizeof conn->buffer);
  return rc;
}

static int on_eof(aloop_transport_t *transport, void *protocol) {
  conn_t *conn = protocol;
  MUST(transport == conn->transport && conn->made && !conn->lost && !conn->closing && !conn->got_eof);
  MUST(!conn->paused && conn->received == conn->peer_sent && in_own_context(conn));
  conn->got_eof = true;
  conn->keeps_open = byte() & 1;
  react();
  if (!conn->keeps_open) conn->closing = true;
  return conn->keeps_open;
}

static void on_pause(aloop_transport_t *transport, void *protocol) {
  conn_t *conn = protocol;
  MUST(transport == conn->transport && !conn->told_to_pause && !conn->lost);
  conn->told_to_pause = true;
  if (conn->loans == 0 || (fuzz.size > 0 && *fuzz.data & 0x80)) react();
}

static void on_resume(aloop_transport_t *transport, void *protocol) {
  conn_t *conn = protocol;
  MUST(transport == conn->transport && conn->told_to_pause && !conn->lost && !conn->aborted);
  conn->told_to_pause = false;
  react();
}

static void check_reason(const conn_t *conn, int error) {
  if (error == 0) MUST(conn->closing);
  if (error == 0 || (conn->aborted && error == conn->abort_error)) return;
  if (error == ALOOP_EPIPE || error == ALOOP_ECONNRESET)
    MUST(conn->peer < 0);
  else if (error == ALOOP_ETIMEDOUT)
    MUST(conn->timed);
  else if (error == ALOOP_ECLOSED)
    MUST(w.closed);
  else if (error != ALOOP_ENOMEM || !w.starved)
    broken(__FILE__, __LINE__, aloop_error_name(error));
}

void read_peer(conn_t *conn, size_t most);

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  conn_t *conn = protocol;
  MUST(transport == conn->transport && conn->made && !conn->lost && in_own_context(conn));
  sync_sendfile(conn);
  MUST(conn->sendfile == NULL && conn->loans == 0);
  check_reason(conn, error);
  bool graceful = error == 0 && !conn->aborted;
  conn->closing = conn->lost = true;
  if (graceful && conn->peer >= 0) {
    read_peer(conn, SIZE_MAX);
    MUST(conn->read == conn->accepted);
  }
  conn->leaving = true;
  react();
  conn->leaving = false;
}

#define CALLBACKS                                                                                              \
  .create = on_create, .connection_made = on_made, .eof_received = on_eof, .pause_writing = on_pause,          \
  .resume_writing = on_resume, .connection_lost = on_lost

static const aloop_protocol_t plain = {.size = sizeof plain, CALLBACKS, .data_received = on_data};
static const aloop_protocol_t buffered = {
    .size = sizeof buffered, CALLBACKS, .get_buffer = on_get_buffer, .buffer_updated = on_updated};

/* ---- Connections: calls --------------------------------------------------------------------------------- */

void end_conn(conn_t *conn) {
  if (conn->connect != NULL) aloop_future_unref(conn->connect);
  aloop_transport_unref(conn->transport);
  if (conn->fd >= 0) close(conn->fd);
  if (conn->peer >= 0) close(conn->peer);
  conn->used = false;
}

void open_conn(void) {
  int at = (int)(byte() % CONNS);
  unsigned how = byte();
  conn_t *conn = &w.conns[at];
  if (conn->used && conn->lost && !conn->leaving) end_conn(conn);
  if (conn->used) return;
  int fds[2];
  int small = SMALL_SOCKET;
  make_pair(fds);
  if (how & 4) setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  memset(conn, 0, offsetof(conn_t, out));
  memset(&conn->accepted, 0, sizeof *conn - offsetof(conn_t, accepted));
  conn->used = true;
  conn->fd = fds[0];
  conn->peer = fds[1];
  conn->file = files[at];
  conn->refuse = (how & 0xf8) == 0xf8;
  conn->context = current_context();
  conn->connect = aloop_connect_accepted_socket(w.loop, how & 1 ? &plain : &buffered, conn, fds[0], NULL);
  MUST(conn->connect != NULL || w.starved);
}

void cancel_conn(void) {
  conn_t *conn = &w.conns[byte() % CONNS];
  if (!conn->used || conn->connect == NULL) return;
  bool made = conn->made;
  check_state(conn);
  int cancelled = aloop_future_cancel(conn->connect);
  aloop_future_unref(conn->connect);
  conn->connect = NULL;
  if (made && cancelled == 1 && !conn->lost) end_by_us(conn, ALOOP_ECANCELED); /* inside connection_made */
  if (made) return;
  MUST(fcntl(conn->fd, F_GETFD) >= 0);
  end_conn(conn);
}

static void write_peer(conn_t *conn, size_t size) {
  static uint8_t bytes[65536];
  if (conn->peer < 0) return;
  if (size > sizeof bytes) size = sizeof bytes;
  for (size_t i = 0; i < size; i++) bytes[i] = in_byte(conn->peer_sent + i);
  ssize_t n = send(conn->peer, bytes, size, MSG_NOSIGNAL);
  if (n > 0) conn->peer_sent += (size_t)n;
}

void read_peer(conn_t *conn, size_t most) {
  static uint8_t bytes[65536];
  while (conn->peer >= 0 && most > 0) {
    ssize_t n = read(conn->peer, bytes, most < sizeof bytes ? most : sizeof bytes);
    if (n <= 0) return;
    sync_sendfile(conn);
    size_t limit = conn->sendfile != NULL ? conn->sendable : conn->accepted;
    MUST(conn->read + (size_t)n <= limit);
    MUST(memcmp(bytes, conn->out + conn->read, (size_t)n) == 0);
    conn->read += (size_t)n;
    most -= (size_t)n;
  }
}

void peer_acts(void) {
  conn_t *conn = &w.conns[byte() % CONNS];
  unsigned what = byte();
  if (!conn->used || conn->peer < 0) return;
  if ((what & 3) == 1) write_peer(conn, length());
  if ((what & 3) == 2) read_peer(conn, length() * 4);
  if (what == 3) shutdown(conn->peer, SHUT_WR);
  if (what != 7) return;
  close(conn->peer);
  conn->peer = -1;
}

typedef struct loan {
  conn_t *conn;
  uint8_t bytes[];
} loan_t;

static void end_loan(void *arg) {
  loan_t *loan = arg;
  conn_t *conn = loan->conn;
  conn->loans--;
  w.loans--;
  free(loan);
  react();
}

static int lend(conn_t *conn, const uint8_t *bytes, size_t size) {
  loan_t *loan = malloc(sizeof *loan + size);
  MUST(loan != NULL);
  loan->conn = conn;
  memcpy(loan->bytes, bytes, size);
  conn->loans++;
  w.loans++;
  int rc = aloop_transport_write_owned(conn->transport, loan->bytes, size, end_loan, loan);
  if (rc == 0) return 0;
  conn->loans--;
  w.loans--;
  free(loan);
  return rc;
}

static int write_parts(conn_t *conn, uint8_t *bytes, size_t size) {
  struct iovec parts[100];
  int count = 0;
  size_t step = 1 + byte();
  for (size_t at = 0; at < size && count < 100; at += step) {
    size_t n = count == 99 || size - at < step ? size - at : step;
    parts[count++] = (struct iovec){bytes + at, n};
    if (n > step) break;
  }
  return aloop_transport_writev(conn->transport, parts, count);
}

void write_bytes(void) {
  static uint8_t scratch[65536];
  conn_t *conn = some_conn();
  unsigned kind = byte();
  size_t size = length();
  if (conn == NULL || (conn->sendfile == NULL && conn->accepted + size > OUT_MAX)) return;
  int expected = verdict(conn, size);
  uint8_t *source = expected == 0 ? conn->out + conn->accepted : scratch;
  for (size_t i = 0; i < size; i++) source[i] = scratch[i] = (uint8_t)(conn->accepted + i * kind);
  /* Counted before the call: callbacks inside may read, or write more behind it. */
  if (expected == 0) conn->accepted += size;
  int rc = kind % 3 == 0   ? aloop_transport_write(conn->transport, scratch, size)
           : kind % 3 == 1 ? write_parts(conn, scratch, size)
                           : lend(conn, scratch, size);
  memset(scratch, 0xdd, size);
  if (!answered(rc, expected) && expected == 0) conn->accepted -= size;
}

void half_close(void) {
  conn_t *conn = some_conn();
  if (conn == NULL) return;
  int expected = conn->closing || conn->wants_eof ? 0 : conn->sendfile != NULL ? ALOOP_EBUSY : 0;
  bool already = conn->closing;
  if (expected == 0 && !already) conn->wants_eof = true;
  MUST(aloop_transport_write_eof(conn->transport) == expected);
}

void pause_or_resume(void) {
  conn_t *conn = some_conn();
  unsigned what = byte();
  if (conn == NULL) return;
  if (what & 1) {
    MUST(aloop_transport_pause_reading(conn->transport) == 0);
    conn->paused = true;
  } else if (answered(aloop_transport_resume_reading(conn->transport), 0)) {
    conn->paused = false;
  }
}

void close_conn(conn_t *conn) {
  conn->closing = true;
  aloop_transport_close(conn->transport);
}

void end_some_conn(void) {
  conn_t *conn = some_conn();
  unsigned how = byte() & 7;
  if (conn == NULL) return;
  if (how < 4) {
    close_conn(conn);
    return;
  }
  end_by_us(conn, how == 6 ? ALOOP_EIO : 0);
  if (how == 6)
    aloop_transport_abort_error(conn->transport, ALOOP_EIO);
  else if (how == 7)
    aloop_transport_abort_reset(conn->transport);
  else
    aloop_transport_abort(conn->transport);
}

void set_limits(void) {
  conn_t *conn = some_conn();
  int64_t high = (int64_t)length() - 1;
  int64_t low = (int64_t)length() - 1;
  if (conn == NULL) return;
  int64_t real_high = high >= 0 ? high : low >= 0 ? low * 4 : 65536;
  int64_t real_low = low >= 0 ? low : real_high / 4;
  int rc = aloop_transport_set_write_buffer_limits(conn->transport, high, low);
  MUST(rc == (real_low > real_high ? ALOOP_EINVAL : 0));
  size_t got_high;
  size_t got_low;
  MUST(aloop_transport_get_write_buffer_limits(conn->transport, &got_high, &got_low) == 0);
  if (rc == 0 && w.depth == 0) MUST(got_high == (size_t)real_high && got_low == (size_t)real_low);
}

void set_cap(void) {
  conn_t *conn = some_conn();
  size_t cap = length();
  if (conn != NULL && answered(aloop_transport_set_write_buffer_cap(conn->transport, cap), 0)) conn->cap = cap;
}

void set_timeouts(void) {
  conn_t *conn = some_conn();
  int64_t idle = byte();
  int64_t reading = byte();
  int64_t writing = byte();
  if (conn == NULL || conn->closing) return;
  conn->timed = true;
  answered(aloop_transport_set_timeouts(conn->transport, idle, reading, writing), 0);
}

void switch_protocol(void) {
  conn_t *conn = some_conn();
  if (conn == NULL) return;
  const aloop_protocol_t *table;
  MUST(aloop_transport_get_protocol(conn->transport, &table) == conn);
  table = table == &plain ? &buffered : &plain;
  MUST(aloop_transport_set_protocol(conn->transport, table, conn) == 0);
}

void send_file(void) {
  conn_t *conn = some_conn();
  size_t offset = length();
  size_t count = length();
  if (conn == NULL) return;
  size_t end = count == 0 || offset + count > FILE_SIZE ? FILE_SIZE : offset + count;
  if (offset > FILE_SIZE || conn->accepted + (end - offset) > OUT_MAX) return;
  int expected = conn->closing            ? ALOOP_ECLOSED
                 : conn->wants_eof        ? ALOOP_EPIPE
                 : conn->sendfile != NULL ? ALOOP_EBUSY
                                          : 0;
  /* Gathered writes leave first, and may call back. */
  int depth = w.depth;
  w.depth = DEPTH_MAX;
  if (expected == 0) {
    memcpy(conn->out + conn->accepted, file_bytes + offset, end - offset);
    conn->sendable = conn->accepted + (end - offset);
    conn->file_from = (off_t)offset;
  }
  aloop_future_t *future = aloop_sendfile(conn->transport, conn->file, (int64_t)offset, (int64_t)count, 0);
  w.depth = depth;
  if (expected == 0) conn->sendfile = future;
  if (expected < 0 && future != NULL) {
    MUST(aloop_future_result(future) == expected);
    aloop_future_unref(future);
  }
  MUST(future != NULL || w.starved);
}

void cancel_sendfile(void) {
  conn_t *conn = some_conn();
  if (conn == NULL || conn->sendfile == NULL) return;
  MUST(aloop_future_cancel(conn->sendfile) == 1);
  sync_sendfile(conn);
  MUST(conn->sendfile == NULL);
}
