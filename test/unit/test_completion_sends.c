/* SPDX-License-Identifier: MIT
 *
 * Sends that fall short on io_uring: sockets that take little, so that the rest is kept and leaves when the
 * poller says that there is room. Every byte arrives once and in order, whatever it was sent from. On io_uring
 * only. faults: yes, lacks: all
 */
#include "harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "faults.h"
#include "rings.h"
#include "streams.h"

enum { SIZE = 1000000 };
static char sent[SIZE], got[SIZE];

/* With less, TCP would wait for its timers. */
static void make_small(int fd) {
  const int small = 65536;
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
}

static int open_small(tape_t *tape, env_t *env) {
  *tape = (tape_t){.env = env};
  int peer = open_tcp_tape(tape, &plain_protocol);
  make_small(peer);
  make_small(aloop_transport_fd(tape->transport));
  return peer;
}

static void expect_all(env_t *env, tape_t *tape, int peer, size_t size) {
  assert_int_equal(collect(env->loop, tape, peer, got, size), size);
  assert_memory_equal(got, sent, size);
  settle(env->loop);
  assert_int_equal(unsent(tape), 0);
  assert_int_equal(drain(peer, got, sizeof got), 0);
}

static void what_was_written_arrives_once_and_in_order(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape;
  int peer = open_small(&tape, env);
  pattern(sent, SIZE, 1);
  for (size_t at = 0, size = 1; at < SIZE; at += size) {
    size = size * 3 + 1 < SIZE - at ? size * 3 + 1 : SIZE - at;
    assert_int_equal(aloop_transport_write(tape.transport, sent + at, size), 0);
  }
  assert_true(unsent(&tape) > 0);
  expect_all(env, &tape, peer, SIZE);
  end_tape(&tape, peer);
}

static void echo(tape_t *tape) {
  assert_int_equal(aloop_transport_write(tape->transport, tape->data, tape->data_size), 0);
}

static void pause_here(tape_t *tape) {
  aloop_transport_pause_reading(tape->transport);
}

static void resume_here(tape_t *tape) {
  aloop_transport_resume_reading(tape->transport);
}

/* The answer is what came, in a buffer that the kernel gets back when data_received returns. */
static void an_echo_that_falls_short_is_kept(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape;
  int peer = open_small(&tape, env);
  tape.on[DATA] = echo;
  tape.on[PAUSE] = pause_here;
  tape.on[RESUME] = resume_here;
  pattern(sent, SIZE, 2);
  size_t in = 0, out = 0;
  for (int i = 0; out < SIZE && i < 1000000; i++) {
    ssize_t n = in < SIZE ? send(peer, sent + in, SIZE - in, MSG_NOSIGNAL) : 0;
    if (n > 0) in += (size_t)n;
    assert_true(aloop_run_once(env->loop, 0) >= 0);
    size_t left = SIZE - out;
    if (n <= 0) out += drain(peer, got + out, left < 5000 ? left : 5000); /* only when nothing more goes in */
  }
  assert_int_equal(out, SIZE);
  assert_memory_equal(got, sent, SIZE);
  assert_true(tape.calls[PAUSE] > 0);
  end_tape(&tape, peer);
}

static void sockets_that_take_one_byte_at_a_time_get_them_all(void **state) {
  enum { FEW = 2000 };
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  pattern(sent, FEW, 3);
  faults_begin(FAULT_SHORT, 0, 0);
  faults_limit_sends(7);
  assert_int_equal(aloop_transport_write(tape.transport, sent, FEW), 0);
  for (size_t size = 0; size < FEW; faults_resume()) {
    assert_true(aloop_run_once(env->loop, 0) >= 0);
    faults_pause();
    size += drain(peer, got + size, FEW - size);
  }
  faults_end();
  faults_limit_sends(0);
  assert_memory_equal(got, sent, FEW);
  end_tape(&tape, peer);
}

static void a_relay_into_a_small_socket_loses_nothing(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t a = {.env = env}, b;
  int from = open_tcp_tape(&a, &plain_protocol);
  int to = open_small(&b, env);
  aloop_future_t *relay = aloop_relay(a.transport, b.transport);
  pattern(sent, SIZE, 4);
  size_t in = 0, out = 0;
  for (int i = 0; out < SIZE && i < 1000000; i++) {
    ssize_t n = in < SIZE ? send(from, sent + in, SIZE - in, MSG_NOSIGNAL) : 0;
    if (n > 0) in += (size_t)n;
    assert_true(aloop_run_once(env->loop, 0) >= 0);
    out += drain(to, got + out, SIZE - out);
  }
  assert_int_equal(out, SIZE);
  assert_memory_equal(got, sent, SIZE);
  shutdown(from, SHUT_WR);
  shutdown(to, SHUT_WR);
  assert_int_equal(run_future(env->loop, relay), SIZE);
  aloop_future_unref(relay);
  end_tape(&a, from);
  end_tape(&b, to);
}

static void a_file_into_a_small_socket_arrives_whole(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape;
  int peer = open_small(&tape, env);
  char name[] = "/tmp/aloop-sends-XXXXXX";
  int file = mkstemp(name);
  assert_true(file >= 0);
  unlink(name);
  pattern(sent, SIZE, 5);
  assert_int_equal(write(file, sent, SIZE), SIZE);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, SIZE, true);
  expect_all(env, &tape, peer, SIZE);
  assert_int_equal(run_future(env->loop, future), SIZE);
  aloop_future_unref(future);
  close(file);
  end_tape(&tape, peer);
}

TESTS(T(what_was_written_arrives_once_and_in_order), T(an_echo_that_falls_short_is_kept),
      T(sockets_that_take_one_byte_at_a_time_get_them_all), T(a_relay_into_a_small_socket_loses_nothing),
      T(a_file_into_a_small_socket_arrives_whole))
