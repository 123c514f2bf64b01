/* SPDX-License-Identifier: MIT
 *
 * Pipes as transports. pollers: all
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipes.h"

/* ---- Read ends ------------------------------------------------------------------------------------------- */

static void reads_what_is_written(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_read_end(&tape);
  say(peer, "hello");
  settle(tape.env->loop);
  assert_string_equal(tape.events, "MD");
  assert_int_equal(tape.size, 5);
  assert_memory_equal(tape.bytes, "hello", 5);
  end_tape(&tape, peer);
}

static void ends_with_its_last_writer(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_read_end(&tape);
  say(peer, "last words");
  close(peer);
  expect_lost(&tape, 0, "MDEL");
  assert_int_equal(tape.size, 10);
  release_tape(&tape, -1);
}

static void ends_whatever_eof_received_answers(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_read_end(&tape);
  tape.answer[AT_EOF] = 1;
  close(peer);
  expect_lost(&tape, 0, "MEL");
  release_tape(&tape, -1);
}

static void ends_with_the_error_of_eof_received(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_read_end(&tape);
  tape.answer[AT_EOF] = ALOOP_ERANGE;
  close(peer);
  expect_lost(&tape, ALOOP_ERANGE, "MEL");
  release_tape(&tape, -1);
}

static void refuses_to_write_to_a_read_end(void **state) {
  tape_t tape = {.env = *state};
  struct iovec part = {.iov_base = "x", .iov_len = 1};
  int peer = open_read_end(&tape);
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_ENOTSUP);
  assert_int_equal(aloop_transport_writev(tape.transport, &part, 1), ALOOP_ENOTSUP);
  assert_int_equal(aloop_transport_write_owned(tape.transport, "x", 1, NULL, NULL), ALOOP_ENOTSUP);
  assert_int_equal(aloop_transport_write_eof(tape.transport), ALOOP_ENOTSUP);
  assert_false(aloop_transport_can_write_eof(tape.transport));
  assert_true(aloop_transport_is_reading(tape.transport));
  end_tape(&tape, peer);
}

/* ---- Write ends ------------------------------------------------------------------------------------------ */

static void writes_at_once(void **state) {
  tape_t tape = {.env = *state};
  char got[8];
  int peer = open_write_end(&tape);
  put(&tape, "hello");
  assert_int_equal(drain(peer, got, sizeof got), 5);
  assert_memory_equal(got, "hello", 5);
  end_tape(&tape, peer);
}

static void learns_that_its_reader_went(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_write_end(&tape);
  close(peer);
  expect_lost(&tape, 0, "ML");
  release_tape(&tape, -1);
}

static void learns_that_its_reader_went_with_bytes_unsent(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_write_end(&tape);
  fill(aloop_transport_fd(tape.transport));
  put(&tape, "too late");
  assert_int_equal(unsent(&tape), 8);
  close(peer);
  expect_lost(&tape, ALOOP_EPIPE, "ML");
  release_tape(&tape, -1);
}

static void write_eof_closes_a_write_end(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_write_end(&tape);
  assert_true(aloop_transport_can_write_eof(tape.transport));
  put(&tape, "all");
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  expect(&tape, peer, "all");
  expect_lost(&tape, 0, "ML");
  assert_true(at_eof(peer));
  release_tape(&tape, peer);
}

TESTS(T(reads_what_is_written), T(ends_with_its_last_writer), T(ends_whatever_eof_received_answers),
      T(ends_with_the_error_of_eof_received), T(refuses_to_write_to_a_read_end), T(writes_at_once),
      T(learns_that_its_reader_went), T(learns_that_its_reader_went_with_bytes_unsent),
      T(write_eof_closes_a_write_end))
