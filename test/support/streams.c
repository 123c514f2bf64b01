/* SPDX-License-Identifier: MIT
 *
 * Connections that tests watch: see streams.h.
 */
#include "streams.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/stream.h"

enum { TURNS_MAX = 100000 };

static void note(tape_t *tape, char letter) {
  if (tape->events_count > 0 && letter == 'D' && tape->events[tape->events_count - 1] == 'D') return;
  if (tape->events_count == sizeof tape->events - 1) tape->events_count--; /* the first and the last count */
  tape->events[tape->events_count++] = letter;
}

static int called(tape_t *tape, int which, char letter) {
  tape->calls[which]++;
  if (letter != 0) note(tape, letter);
  if (tape->on[which] != NULL) tape->on[which](tape);
  return tape->answer[which];
}

static void keep(tape_t *tape, const void *data, size_t size) {
  if (tape->size + size > tape->room) {
    tape->room = (tape->size + size) * 2;
    tape->bytes = realloc(tape->bytes, tape->room);
    assert_non_null(tape->bytes);
  }
  memcpy(tape->bytes + tape->size, data, size);
  tape->size += size;
}

/* A tape without transport takes the first it hears of: after start_tls that is another one. */
static void hear(tape_t *tape, aloop_transport_t *transport) {
  if (tape->transport == NULL) tape->transport = aloop_transport_ref(transport);
  assert_ptr_equal(tape->transport, transport);
}

static void on_made(aloop_transport_t *transport, void *protocol) {
  tape_t *tape = protocol;
  hear(tape, transport);
  called(tape, MADE, 'M');
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  tape_t *tape = protocol;
  hear(tape, transport);
  assert_true(size > 0);
  assert_false(tape->lost);
  keep(tape, data, size);
  tape->data = data;
  tape->data_size = size;
  return called(tape, DATA, 'D');
}

static int on_buffer(aloop_transport_t *transport, void *protocol, size_t hint, void **buffer, size_t *size) {
  tape_t *tape = protocol;
  hear(tape, transport);
  assert_true(hint > 0);
  *buffer = tape->buffer;
  *size = tape->offer_nothing ? 0 : tape->offer > 0 ? tape->offer : sizeof tape->buffer;
  return called(tape, BUFFER, 0);
}

static int on_updated(aloop_transport_t *transport, void *protocol, size_t size) {
  tape_t *tape = protocol;
  hear(tape, transport);
  assert_true(size > 0 && size <= sizeof tape->buffer);
  assert_false(tape->lost);
  keep(tape, tape->buffer, size);
  tape->data = tape->buffer;
  tape->data_size = size;
  return called(tape, UPDATED, 'D');
}

static int on_eof(aloop_transport_t *transport, void *protocol) {
  tape_t *tape = protocol;
  hear(tape, transport);
  tape->eof = true;
  return called(tape, AT_EOF, 'E');
}

static void on_pause(aloop_transport_t *transport, void *protocol) {
  tape_t *tape = protocol;
  hear(tape, transport);
  called(tape, PAUSE, 'P');
}

static void on_resume(aloop_transport_t *transport, void *protocol) {
  tape_t *tape = protocol;
  hear(tape, transport);
  called(tape, RESUME, 'R');
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  tape_t *tape = protocol;
  hear(tape, transport);
  assert_true(aloop_transport_fd(transport) >= 0);
  tape->lost = true;
  tape->error = error;
  called(tape, LOST, 'L');
}

const aloop_protocol_t plain_protocol = {
    .size = sizeof plain_protocol,
    .connection_made = on_made,
    .data_received = on_data,
    .eof_received = on_eof,
    .pause_writing = on_pause,
    .resume_writing = on_resume,
    .connection_lost = on_lost,
};

const aloop_protocol_t buffered_protocol = {
    .size = sizeof buffered_protocol,
    .connection_made = on_made,
    .get_buffer = on_buffer,
    .buffer_updated = on_updated,
    .eof_received = on_eof,
    .pause_writing = on_pause,
    .resume_writing = on_resume,
    .connection_lost = on_lost,
};

void attach_tape(tape_t *tape, const aloop_protocol_t *table, int fd) {
  tape->transport = aloop__stream_new(tape->env->loop, NULL, fd, table, tape, NULL, NULL, ALOOP_HERE);
  assert_non_null(tape->transport);
  aloop_transport_ref(tape->transport);
}

static int open_on(tape_t *tape, const aloop_protocol_t *table, const int fds[2]) {
  attach_tape(tape, table, fds[0]);
  while (tape->calls[MADE] == 0) assert_true(aloop_run_once(tape->env->loop, 0) >= 0);
  return fds[1];
}

int open_tape(tape_t *tape, const aloop_protocol_t *table) {
  int fds[2];
  make_socketpair(fds);
  return open_on(tape, table, fds);
}

int open_tcp_tape(tape_t *tape, const aloop_protocol_t *table) {
  int fds[2];
  make_tcp_pair(fds);
  return open_on(tape, table, fds);
}

void release_tape(tape_t *tape, int peer) {
  assert_int_equal(tape->calls[MADE], 1);
  assert_int_equal(tape->calls[LOST], 1);
  assert_true(tape->calls[AT_EOF] <= 1);
  assert_int_equal(tape->events[0], 'M');
  assert_int_equal(tape->events[tape->events_count - 1], 'L');
  aloop_transport_unref(tape->transport);
  tape->transport = NULL;
  free(tape->bytes);
  tape->bytes = NULL;
  if (peer >= 0) close(peer);
}

void end_tape(tape_t *tape, int peer) {
  aloop_transport_abort(tape->transport);
  run_until(tape->env->loop, &tape->lost);
  assert_int_equal(aloop_transport_fd(tape->transport), ALOOP_ECLOSED);
  release_tape(tape, peer);
}

void reset_tape(tape_t *tape, int peer) {
  const struct linger now = {.l_onoff = 1, .l_linger = 0};
  int fd = aloop_transport_fd(tape->transport);
  if (fd >= 0) assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
  end_tape(tape, peer);
}

void settle(aloop_t *loop) {
  int quiet = 0;
  for (int i = 0; quiet < 2; i++) {
    int n = aloop_run_once(loop, 0);
    assert_true(n >= 0 && i < TURNS_MAX);
    quiet = n == 0 ? quiet + 1 : 0;
  }
}

static void set_flags(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void make_tcp_pair(int fds[2]) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(listener >= 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(listener, 1), 0);
  assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
  fds[1] = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(fds[1] >= 0);
  assert_int_equal(connect(fds[1], (struct sockaddr *)&address, size), 0);
  fds[0] = accept(listener, NULL, NULL);
  assert_true(fds[0] >= 0);
  close(listener);
  set_flags(fds[0]);
  set_flags(fds[1]);
}

size_t fill(int fd) {
  static const char bytes[4096];
  size_t total = 0;
  for (size_t piece = sizeof bytes; piece > 0;) {
    ssize_t n = write(fd, bytes, piece);
    if (n > 0) total += (size_t)n;
    if (n < 0) piece /= 2;
  }
  return total;
}

size_t drain(int fd, void *into, size_t room) {
  size_t total = 0;
  while (total < room) {
    ssize_t n = read(fd, (char *)into + total, room - total);
    if (n <= 0) break;
    total += (size_t)n;
  }
  return total;
}

size_t collect(aloop_t *loop, tape_t *tape, int peer, void *into, size_t size) {
  size_t total = 0;
  for (int i = 0; i < TURNS_MAX; i++) {
    bool last = tape->lost;
    total += drain(peer, (char *)into + total, size - total);
    if (total == size || last) return total;
    assert_true(aloop_run_once(loop, 0) >= 0);
    /* TCP takes a moment even on the loopback device. */
    struct pollfd ready = {.fd = peer, .events = POLLIN};
    if (i % 64 == 63) poll(&ready, 1, 1);
  }
  return total;
}

bool at_eof(int peer) {
  char byte;
  struct pollfd ready = {.fd = peer, .events = POLLIN};
  return poll(&ready, 1, 10000) == 1 && read(peer, &byte, 1) == 0;
}

void say(int fd, const char *text) {
  assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

void put(tape_t *tape, const char *text) {
  assert_int_equal(aloop_transport_write(tape->transport, text, strlen(text)), 0);
}

void expect(tape_t *tape, int peer, const char *text) {
  char got[256];
  size_t size = strlen(text);
  assert_int_equal(collect(tape->env->loop, tape, peer, got, size), size);
  assert_memory_equal(got, text, size);
  assert_int_equal(drain(peer, got, sizeof got), 0);
}

size_t unsent(const tape_t *tape) {
  return aloop_transport_get_write_buffer_size(tape->transport);
}

void count_release(void *arg) {
  ++*(int *)arg;
}

int put_owned(tape_t *tape, const char *text, int *released) {
  return aloop_transport_write_owned(tape->transport, text, strlen(text), count_release, released);
}

void pattern(void *into, size_t size, unsigned seed) {
  unsigned char *bytes = into;
  for (size_t i = 0; i < size; i++) {
    size_t at = i + seed;
    bytes[i] = (unsigned char)(at ^ at >> 8 ^ at >> 16);
  }
}
