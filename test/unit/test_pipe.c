/* SPDX-License-Identifier: MIT
 *
 * Pipes as transports. pollers: all
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipes.h"
#include "core/loop.h"
#include "process/pipe.h"

enum { MUCH = 600001 };

static char much[MUCH];

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

static void refuses_to_write_after_write_eof(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_write_end(&tape);
  fill(aloop_transport_fd(tape.transport));
  put(&tape, "rest");
  aloop_transport_write_eof(tape.transport);
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_EPIPE);
  assert_int_equal(unsent(&tape), 4);
  close(peer);
  expect_lost(&tape, ALOOP_EPIPE, "ML");
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_ECLOSED);
  release_tape(&tape, -1);
}

static void close_sends_what_is_unsent(void **state) {
  tape_t tape = {.env = *state};
  static char got[MUCH];
  int peer = open_write_end(&tape);
  pattern(much, sizeof much, 21);
  assert_int_equal(aloop_transport_write(tape.transport, much, sizeof much), 0);
  aloop_transport_close(tape.transport);
  assert_false(tape.lost);
  assert_int_equal(collect(tape.env->loop, &tape, peer, got, sizeof got), sizeof got);
  assert_memory_equal(got, much, sizeof got);
  run_until(tape.env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_true(at_eof(peer));
  release_tape(&tape, peer);
}

static void abort_drops_what_is_unsent(void **state) {
  tape_t tape = {.env = *state};
  int released = 0;
  int peer = open_write_end(&tape);
  fill(aloop_transport_fd(tape.transport));
  assert_int_equal(put_owned(&tape, "never", &released), 0);
  aloop_transport_abort(tape.transport);
  assert_int_equal(unsent(&tape), 0);
  assert_int_equal(released, 1);
  expect_lost(&tape, 0, "ML");
  release_tape(&tape, peer);
}

/* ---- Back-pressure --------------------------------------------------------------------------------------- */

static void note_unsent(tape_t *tape) {
  *(size_t *)tape->arg = unsent(tape);
}

/* asyncio resumes writing to pipes only when nothing is left at all. */
static void resumes_writing_at_the_low_mark(void **state) {
  size_t left = 0;
  tape_t tape = {.env = *state, .on[RESUME] = note_unsent, .arg = &left};
  static char got[MUCH];
  int peer = open_write_end(&tape);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 200000, 100000), 0);
  pattern(much, sizeof much, 22);
  assert_int_equal(aloop_transport_write(tape.transport, much, sizeof much), 0);
  assert_string_equal(tape.events, "MP");
  assert_int_equal(collect(tape.env->loop, &tape, peer, got, sizeof got), sizeof got);
  assert_string_equal(tape.events, "MPR");
  assert_true(left > 0 && left <= 100000);
  end_tape(&tape, peer);
}

static void nothing_is_read_while_paused(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_read_end(&tape);
  assert_int_equal(aloop_transport_pause_reading(tape.transport), 0);
  assert_false(aloop_transport_is_reading(tape.transport));
  say(peer, "later");
  close(peer);
  settle(tape.env->loop);
  assert_string_equal(tape.events, "M");
  assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
  expect_lost(&tape, 0, "MDEL");
  expect_read(&tape, "later");
  release_tape(&tape, -1);
}

/* A tape that hands on to the next one what it reads, as a filter does. */
static void hand_on(tape_t *tape) {
  tape_t *next = tape->arg;
  assert_int_equal(aloop_transport_write(next->transport, tape->data, tape->data_size), 0);
}

static void hand_on_end(tape_t *tape) {
  tape_t *next = tape->arg;
  aloop_transport_write_eof(next->transport);
}

static void hold_back(tape_t *tape) {
  tape_t *source = tape->arg;
  aloop_transport_pause_reading(source->transport);
}

static void let_go_on(tape_t *tape) {
  tape_t *source = tape->arg;
  aloop_transport_resume_reading(source->transport);
}

static void a_filter_keeps_its_buffer_small(void **state) {
  tape_t in = {.env = *state, .on[DATA] = hand_on, .on[AT_EOF] = hand_on_end};
  tape_t out = {.env = *state, .on[PAUSE] = hold_back, .on[RESUME] = let_go_on};
  static char got[MUCH];
  in.arg = &out;
  out.arg = &in;
  int sink = open_write_end(&out);
  int source = open_read_end(&in);
  size_t written = 0;
  size_t read_so_far = 0;
  pattern(much, sizeof much, 23);
  while (!out.lost) {
    if (written < sizeof much) {
      ssize_t n = write(source, much + written, sizeof much - written);
      if (n > 0) written += (size_t)n;
      if (written == sizeof much) close(source);
    }
    for (int i = 0; i < 3; i++) assert_true(aloop_run_once(in.env->loop, 0) >= 0);
    assert_true(unsent(&out) <= 65536 + 262144);
    read_so_far +=
        drain(sink, got + read_so_far, read_so_far + 30000 < sizeof got ? 30000 : sizeof got - read_so_far);
  }
  assert_int_equal(read_so_far + drain(sink, got + read_so_far, sizeof got - read_so_far), sizeof got);
  assert_memory_equal(got, much, sizeof got);
  assert_true(out.calls[PAUSE] > 0 && out.calls[PAUSE] == out.calls[RESUME]);
  run_until(in.env->loop, &in.lost);
  release_tape(&in, -1);
  release_tape(&out, sink);
}

static void one_pipe_does_not_starve_the_others(void **state) {
  tape_t busy = {.env = *state};
  tape_t quiet = {.env = *state};
  int busy_peer = open_read_end(&busy);
  int quiet_peer = open_read_end(&quiet);
  fill(busy_peer);
  say(quiet_peer, "me too");
  assert_true(aloop_run_once(busy.env->loop, 0) >= 0);
  assert_true(busy.size > 0 && busy.size <= 262144);
  expect_read(&quiet, "me too");
  end_tape(&busy, busy_peer);
  end_tape(&quiet, quiet_peer);
}

/* ---- Ways of writing and reading ------------------------------------------------------------------------- */

static void parts_leave_in_order(void **state) {
  tape_t tape = {.env = *state};
  struct iovec parts[100];
  char got[200];
  int peer = open_write_end(&tape);
  pattern(much, 200, 24);
  for (int i = 0; i < 100; i++) parts[i] = (struct iovec){.iov_base = much + 2 * i, .iov_len = 2};
  assert_int_equal(aloop_transport_writev(tape.transport, parts, 20), 0);
  assert_int_equal(aloop_transport_writev(tape.transport, parts + 20, 80), 0);
  assert_int_equal(collect(tape.env->loop, &tape, peer, got, sizeof got), sizeof got);
  assert_memory_equal(got, much, sizeof got);
  end_tape(&tape, peer);
}

static void owned_memory_is_given_back(void **state) {
  tape_t tape = {.env = *state};
  int released = 0;
  int peer = open_write_end(&tape);
  assert_int_equal(put_owned(&tape, "lent", &released), 0);
  assert_int_equal(released, 1);
  expect(&tape, peer, "lent");
  end_tape(&tape, peer);
}

static void reads_into_a_protocols_own_memory(void **state) {
  tape_t tape = {.env = *state, .offer = 10};
  int peer = open_end(&tape, &buffered_protocol, true);
  say(peer, "longer than ten bytes");
  close(peer);
  expect_lost(&tape, 0, "MDEL");
  expect_read(&tape, "longer than ten bytes");
  assert_true(tape.calls[UPDATED] >= 3);
  release_tape(&tape, -1);
}

static void sends_files(void **state) {
  tape_t tape = {.env = *state};
  static char got[MUCH];
  pattern(much, sizeof much, 25);
  int file = make_file(much, sizeof much, O_RDONLY);
  int peer = open_write_end(&tape);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  assert_int_equal(collect(tape.env->loop, &tape, peer, got, sizeof got), sizeof got);
  assert_memory_equal(got, much, sizeof got);
  assert_int_equal(aloop_run_until_complete(tape.env->loop, future), sizeof got);
  end_tape(&tape, peer);
  close(file);
}

static void a_reader_that_goes_ends_a_sendfile(void **state) {
  tape_t tape = {.env = *state};
  signal(SIGPIPE, SIG_DFL);
  int file = make_file(much, sizeof much, O_RDONLY);
  int peer = open_write_end(&tape);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  settle(tape.env->loop);
  close(peer);
  assert_int_equal(aloop_run_until_complete(tape.env->loop, future), ALOOP_EPIPE);
  expect_lost(&tape, ALOOP_EPIPE, "ML");
  release_tape(&tape, -1);
  close(file);
}

static void a_read_end_sends_no_files(void **state) {
  tape_t tape = {.env = *state};
  int file = make_file("x", 1, O_RDONLY);
  int peer = open_read_end(&tape);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  assert_int_equal(aloop_run_until_complete(tape.env->loop, future), ALOOP_ENOTSUP);
  end_tape(&tape, peer);
  close(file);
}

/* ---- Good guests ----------------------------------------------------------------------------------------- */

/* With and without the kernel's help. */
static void a_write_to_nobody_raises_no_signal(void **state) {
  for (int masks = 0; masks < 2; masks++) {
    tape_t tape = {.env = *state};
    sigset_t waiting;
    int peer = open_write_end(&tape);
    aloop__pipe_of(tape.transport)->masks = masks;
    signal(SIGPIPE, SIG_DFL);
    close(peer);
    assert_int_equal(aloop_transport_write(tape.transport, "x", 1), 0);
    expect_lost(&tape, ALOOP_EPIPE, "ML");
    sigpending(&waiting);
    assert_int_equal(sigismember(&waiting, SIGPIPE), 0);
    release_tape(&tape, -1);
  }
}

static void a_masked_write_is_a_write(void **state) {
  tape_t tape = {.env = *state};
  static char got[MUCH];
  int peer = open_write_end(&tape);
  aloop__pipe_of(tape.transport)->masks = true;
  pattern(much, sizeof much, 26);
  assert_int_equal(aloop_transport_write(tape.transport, much, sizeof much), 0);
  assert_int_equal(collect(tape.env->loop, &tape, peer, got, sizeof got), sizeof got);
  assert_memory_equal(got, much, sizeof got);
  end_tape(&tape, peer);
}

static void pipes_need_no_thread(void **state) {
  tape_t in = {.env = *state};
  tape_t out = {.env = *state};
  int source = open_read_end(&in);
  int sink = open_write_end(&out);
  say(source, "x");
  put(&out, "y");
  settle(in.env->loop);
  assert_null(in.env->loop->rooms[ALOOP__ROOM_EXECUTOR]);
  end_tape(&in, source);
  end_tape(&out, sink);
}

static void time_runs_out_for_a_reader_that_does_not_read(void **state) {
  tape_t tape = {.env = *state};
  int peer = open_write_end(&tape);
  fill(aloop_transport_fd(tape.transport));
  put(&tape, "unread");
  assert_int_equal(aloop_transport_set_timeouts(tape.transport, 0, 0, ALOOP_MILLIS(20)), 0);
  expect_lost(&tape, ALOOP_ETIMEDOUT, "ML");
  release_tape(&tape, peer);
}

static void has_no_addresses(void **state) {
  tape_t tape = {.env = *state};
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  int peer = open_read_end(&tape);
  assert_int_equal(aloop_transport_sockname(tape.transport, (struct sockaddr *)&address, &size),
                   ALOOP_ENOTSOCK);
  assert_int_equal(aloop_transport_peername(tape.transport, (struct sockaddr *)&address, &size),
                   ALOOP_ENOTSOCK);
  end_tape(&tape, peer);
}

TESTS(T(reads_what_is_written), T(ends_with_its_last_writer), T(ends_whatever_eof_received_answers),
      T(ends_with_the_error_of_eof_received), T(refuses_to_write_to_a_read_end), T(writes_at_once),
      T(learns_that_its_reader_went), T(learns_that_its_reader_went_with_bytes_unsent),
      T(write_eof_closes_a_write_end), T(refuses_to_write_after_write_eof), T(close_sends_what_is_unsent),
      T(abort_drops_what_is_unsent), T(resumes_writing_at_the_low_mark), T(nothing_is_read_while_paused),
      T(a_filter_keeps_its_buffer_small), T(one_pipe_does_not_starve_the_others), T(parts_leave_in_order),
      T(owned_memory_is_given_back), T(reads_into_a_protocols_own_memory), T(sends_files),
      T(a_reader_that_goes_ends_a_sendfile), T(a_read_end_sends_no_files),
      T(a_write_to_nobody_raises_no_signal), T(a_masked_write_is_a_write), T(pipes_need_no_thread),
      T(time_runs_out_for_a_reader_that_does_not_read), T(has_no_addresses))
