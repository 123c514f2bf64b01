/* SPDX-License-Identifier: MIT
 *
 * Callers' descriptors without waiting, and without touching their O_NONBLOCK. pollers: all
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipes.h"
#include "process/pipe.h"

/* ---- Sharing --------------------------------------------------------------------------------------------- */

/* A transport over one of the two moves bytes and comes to its end, and whoever shares that descriptor never sees
 * O_NONBLOCK come. */
static void expect_unchanged(env_t *env, const int fds[2], int which) {
  tape_t tape = {.env = env};
  bool reads = which == 0;
  int shared = fcntl(fds[which], F_DUPFD_CLOEXEC, 0);
  int status = fcntl(shared, F_GETFL);
  assert_false(is_nonblocking(shared));
  take_end(&tape, fds[which], reads);
  assert_int_equal(fcntl(shared, F_GETFL), status);
  if (reads) {
    say(fds[1], "x\n");
    await_read(&tape, 2);
  } else {
    put(&tape, "x\n");
  }
  settle(env->loop);
  assert_int_equal(fcntl(shared, F_GETFL), status);
  end_tape(&tape, fds[1 - which]);
  assert_int_equal(fcntl(shared, F_GETFL), status);
  close(shared);
}

static void leaves_pipes_as_they_were(void **state) {
  for (int which = 0; which < 2; which++) {
    int fds[2];
    make_blocking_pipe(fds);
    expect_unchanged(*state, fds, which);
    make_fifo(fds);
    expect_unchanged(*state, fds, which);
  }
}

static void leaves_sockets_as_they_were(void **state) {
  for (int which = 0; which < 2; which++) {
    int fds[2];
    make_blocking_pair(fds);
    expect_unchanged(*state, fds, which);
  }
}

static void leaves_terminals_as_they_were(void **state) {
  for (int which = 0; which < 2; which++) {
    int fds[2];
    make_terminal(fds);
    expect_unchanged(*state, fds, which);
    int swapped[2];
    make_terminal(fds);
    swapped[0] = fds[1];
    swapped[1] = fds[0];
    expect_unchanged(*state, swapped, which);
  }
}

static void leaves_what_is_nonblocking_so(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_pipe(fds);
  int shared = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
  take_end(&tape, fds[0], true);
  assert_int_equal(aloop__pipe_of(tape.transport)->io, fds[0]);
  end_tape(&tape, fds[1]);
  assert_true(is_nonblocking(shared));
  close(shared);
}

static void another_holder_of_the_descriptor_still_waits(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  int shared = fcntl(fds[1], F_DUPFD_CLOEXEC, 0);
  take_end(&tape, fds[1], false);
  /* More than the pipe takes, by one who counts on all of it being taken, in a child. */
  pid_t child = fork();
  if (child == 0) {
    static const char much[300000];
    _exit(write(shared, much, sizeof much) == (ssize_t)sizeof much ? 0 : 1);
  }
  assert_true(child > 0);
  size_t total = 0;
  char got[4096];
  while (total < 300000) {
    ssize_t n = read(fds[0], got, sizeof got);
    assert_true(n > 0);
    total += (size_t)n;
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  end_tape(&tape, fds[0]);
  close(shared);
}

/* ---- How ------------------------------------------------------------------------------------------------- */

static void opens_pipes_and_terminals_once_more(void **state) {
  tape_t pipes = {.env = *state};
  tape_t terminal = {.env = *state};
  int fds[2];
  int tty[2];
  make_blocking_pipe(fds);
  make_terminal(tty);
  take_end(&pipes, fds[0], true);
  take_end(&terminal, tty[1], true);
#ifdef __linux__
  assert_int_not_equal(aloop__pipe_of(pipes.transport)->io, fds[0]);
  assert_int_not_equal(aloop__pipe_of(terminal.transport)->io, tty[1]);
  assert_true(is_nonblocking(aloop__pipe_of(pipes.transport)->io));
  assert_true(is_nonblocking(aloop__pipe_of(terminal.transport)->io));
#endif
  end_tape(&pipes, fds[1]);
  end_tape(&terminal, tty[0]);
}

static void does_not_open_the_master_of_a_terminal_once_more(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_terminal(fds);
  assert_true(aloop__pipe_is_master(fds[0]));
  assert_false(aloop__pipe_is_master(fds[1]));
  take_end(&tape, fds[0], true);
  assert_int_equal(aloop__pipe_of(tape.transport)->io, fds[0]);
  assert_ptr_equal(aloop__pipe_of(tape.transport)->calls, &aloop__pipe_cautious);
  end_tape(&tape, fds[1]);
}

static void a_write_end_without_a_reader_is_soon_lost(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  close(fds[0]);
  take_end(&tape, fds[1], false);
  expect_lost(&tape, 0, "ML");
  release_tape(&tape, -1);
}

/* ---- Cautious -------------------------------------------------------------------------------------------- */

/* As if the descriptor could not have been opened once more. */
static aloop__pipe_t *make_cautious(tape_t *tape) {
  aloop__pipe_t *pipe = aloop__pipe_of(tape->transport);
  if (pipe->io != pipe->transport.watch.fd) close(pipe->io);
  pipe->io = pipe->transport.watch.fd;
  pipe->calls = &aloop__pipe_cautious;
  assert_false(is_nonblocking(pipe->io));
  return pipe;
}

static void a_cautious_read_does_not_wait(void **state) {
  tape_t tape = {.env = *state};
  char got[8];
  int fds[2];
  make_blocking_pipe(fds);
  take_end(&tape, fds[0], true);
  aloop__pipe_t *pipe = make_cautious(&tape);
  assert_int_equal(pipe->calls->receive(pipe, got, sizeof got), -1);
  assert_int_equal(errno, EAGAIN);
  say(fds[1], "hello");
  settle(tape.env->loop);
  expect_read(&tape, "hello");
  close(fds[1]);
  expect_lost(&tape, 0, "MDEL");
  release_tape(&tape, -1);
}

static void a_cautious_read_of_a_full_buffer_does_not_wait_for_more(void **state) {
  tape_t tape = {.env = *state};
  static char bytes[65536];
  int fds[2];
  make_blocking_pipe(fds);
  take_end(&tape, fds[0], true);
  make_cautious(&tape);
  pattern(bytes, sizeof bytes, 1);
  assert_int_equal(write(fds[1], bytes, sizeof bytes), sizeof bytes);
  settle(tape.env->loop);
  assert_int_equal(tape.size, sizeof bytes);
  assert_memory_equal(tape.bytes, bytes, sizeof bytes);
  end_tape(&tape, fds[1]);
}

static void a_cautious_write_asks_for_no_more_than_fits(void **state) {
  tape_t tape = {.env = *state};
  static char bytes[PIPE_BUF * 2];
  struct iovec parts[] = {{bytes, 100}, {bytes, PIPE_BUF - 100}, {bytes, 1}};
  int fds[2];
  make_blocking_pipe(fds);
  take_end(&tape, fds[1], false);
  aloop__pipe_t *pipe = make_cautious(&tape);
  assert_int_equal(pipe->calls->send(pipe, parts, 3), PIPE_BUF);
  assert_int_equal(pipe->calls->send(pipe, parts, 1), 100);
  parts[0].iov_len = PIPE_BUF + 1;
  assert_int_equal(pipe->calls->send(pipe, parts, 2), PIPE_BUF);
  char got[PIPE_BUF];
  assert_int_equal(read(fds[0], got, sizeof got), PIPE_BUF);
  struct iovec empty_first[] = {{NULL, 0}, {bytes, sizeof bytes}};
  assert_int_equal(pipe->calls->send(pipe, empty_first, 2), PIPE_BUF);
  while (pipe->calls->send(pipe, parts, 1) > 0) continue;
  assert_int_equal(pipe->calls->send(pipe, parts, 1), ALOOP_EAGAIN);
  end_tape(&tape, fds[0]);
}

static void a_cautious_write_end_delivers_everything(void **state) {
  tape_t tape = {.env = *state};
  static char bytes[1 << 20];
  static char got[1 << 20];
  int fds[2];
  make_blocking_pipe(fds);
  set_nonblocking(fds[0]);
  take_end(&tape, fds[1], false);
  make_cautious(&tape);
  pattern(bytes, sizeof bytes, 7);
  assert_int_equal(aloop_transport_write(tape.transport, bytes, sizeof bytes), 0);
  assert_int_equal(collect(tape.env->loop, &tape, fds[0], got, sizeof got), sizeof got);
  assert_memory_equal(got, bytes, sizeof got);
  assert_string_equal(tape.events, "MPR");
  aloop_transport_write_eof(tape.transport);
  expect_lost(&tape, 0, "MPRL");
  release_tape(&tape, fds[0]);
}

static void a_cautious_terminal_delivers_everything(void **state) {
  tape_t tape = {.env = *state};
  static char bytes[20000];
  static char got[20000];
  int fds[2];
  make_terminal(fds);
  set_nonblocking(fds[0]);
  take_end(&tape, fds[1], false);
  make_cautious(&tape);
  pattern(bytes, sizeof bytes, 3);
  assert_int_equal(aloop_transport_write(tape.transport, bytes, sizeof bytes), 0);
  assert_int_equal(collect(tape.env->loop, &tape, fds[0], got, sizeof got), sizeof got);
  assert_memory_equal(got, bytes, sizeof got);
  end_tape(&tape, fds[0]);
}

TESTS(T(leaves_pipes_as_they_were), T(leaves_sockets_as_they_were), T(leaves_terminals_as_they_were),
      T(leaves_what_is_nonblocking_so), T(another_holder_of_the_descriptor_still_waits),
      T(opens_pipes_and_terminals_once_more), T(does_not_open_the_master_of_a_terminal_once_more),
      T(a_write_end_without_a_reader_is_soon_lost), T(a_cautious_read_does_not_wait),
      T(a_cautious_read_of_a_full_buffer_does_not_wait_for_more),
      T(a_cautious_write_asks_for_no_more_than_fits), T(a_cautious_write_end_delivers_everything),
      T(a_cautious_terminal_delivers_everything))
