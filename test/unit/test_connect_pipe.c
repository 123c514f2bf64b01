/* SPDX-License-Identifier: MIT
 *
 * Transports over callers' descriptors: what they may be, who owns them, what is refused. pollers: all
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pipes.h"

/* ---- Kinds ----------------------------------------------------------------------------------------------- */

/* What goes in at fds[1] comes out of a transport on fds[0], and the end with it. */
static void read_from(tape_t *tape, const int fds[2]) {
  take_end(tape, fds[0], true);
  say(fds[1], "hello\n");
  settle(tape->env->loop);
  expect_read(tape, "hello\n");
  close(fds[1]);
  expect_lost(tape, 0, "MDEL");
  assert_int_equal(fcntl(fds[0], F_GETFD), -1);
  release_tape(tape, -1);
}

/* What a transport on fds[1] is given comes out at fds[0]; then its reader goes. */
static void write_to(tape_t *tape, const int fds[2]) {
  char got[8];
  take_end(tape, fds[1], false);
  put(tape, "hello\n");
  assert_int_equal(read(fds[0], got, sizeof got), 6);
  assert_memory_equal(got, "hello\n", 6);
  close(fds[0]);
  expect_lost(tape, 0, "ML");
  assert_int_equal(fcntl(fds[1], F_GETFD), -1);
  release_tape(tape, -1);
}

static void reads_from_a_pipe(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  read_from(&tape, fds);
}

static void writes_to_a_pipe(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  write_to(&tape, fds);
}

static void reads_from_a_fifo(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_fifo(fds);
  read_from(&tape, fds);
}

static void writes_to_a_fifo(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_fifo(fds);
  write_to(&tape, fds);
}

static void reads_from_a_socket(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pair(fds);
  read_from(&tape, fds);
}

static void writes_to_a_socket(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pair(fds);
  write_to(&tape, fds);
}

static void reads_from_a_terminal(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_terminal(fds);
  take_end(&tape, fds[1], true);
  say(fds[0], "hello\n");
  await_read(&tape, 6);
  expect_read(&tape, "hello\n");
  close(fds[0]);
  run_until(tape.env->loop, &tape.lost);
  release_tape(&tape, -1);
}

static void writes_to_a_terminal(void **state) {
  tape_t tape = {.env = *state};
  char got[8];
  int fds[2];
  make_terminal(fds);
  take_end(&tape, fds[1], false);
  put(&tape, "hello\n");
  assert_int_equal(read(fds[0], got, sizeof got), 6);
  assert_memory_equal(got, "hello\n", 6);
  end_tape(&tape, fds[0]);
}

static void ends_with_the_last_slave_of_a_terminal(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_terminal(fds);
  take_end(&tape, fds[0], true);
  say(fds[1], "bye\n");
  close(fds[1]);
  run_until(tape.env->loop, &tape.lost);
  expect_read(&tape, "bye\n");
  assert_int_equal(tape.error, 0);
  assert_true(tape.eof);
  release_tape(&tape, -1);
}

static void writes_to_the_master_of_a_terminal(void **state) {
  tape_t tape = {.env = *state};
  char got[8];
  int fds[2];
  make_terminal(fds);
  take_end(&tape, fds[0], false);
  put(&tape, "hello\n");
  assert_int_equal(read(fds[1], got, sizeof got), 6);
  assert_memory_equal(got, "hello\n", 6);
  end_tape(&tape, fds[1]);
}

/* ---- FIFOs ----------------------------------------------------------------------------------------------- */

static void notices_a_writer_that_went_before(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_fifo(fds);
  say(fds[1], "old news");
  close(fds[1]);
  take_end(&tape, fds[0], true);
  expect_lost(&tape, 0, "MDEL");
  expect_read(&tape, "old news");
  release_tape(&tape, -1);
}

static void waits_for_the_first_writer(void **state) {
  tape_t tape = {.env = *state};
  char path[FIFO_PATH];
  make_fifo_path(path);
  int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  take_end(&tape, reader, true);
  settle(tape.env->loop);
  assert_string_equal(tape.events, "M");
  int writer = open(path, O_WRONLY | O_CLOEXEC);
  assert_true(writer >= 0);
  settle(tape.env->loop);
  assert_string_equal(tape.events, "M");
  close(writer);
  expect_lost(&tape, 0, "MEL");
  release_tape(&tape, -1);
  remove_fifo_path(path);
}

static void a_fifo_that_it_could_read_itself_is_no_lost_reader(void **state) {
  tape_t tape = {.env = *state};
  char path[FIFO_PATH];
  char got[8];
  make_fifo_path(path);
  int both = open(path, O_RDWR | O_CLOEXEC);
  int reader = open(path, O_RDONLY | O_CLOEXEC);
  say(both, "x");
  take_end(&tape, both, false);
  settle(tape.env->loop);
  put(&tape, "y");
  assert_string_equal(tape.events, "M");
  assert_int_equal(read(reader, got, sizeof got), 2);
  end_tape(&tape, reader);
  remove_fifo_path(path);
}

/* ---- Sockets --------------------------------------------------------------------------------------------- */

static void bytes_from_the_peer_do_not_end_a_write_pipe(void **state) {
  tape_t tape = {.env = *state};
  char got[8];
  int fds[2];
  make_blocking_pair(fds);
  take_end(&tape, fds[1], false);
  say(fds[0], "unheard");
  settle(tape.env->loop);
  shutdown(fds[0], SHUT_WR);
  settle(tape.env->loop);
  assert_string_equal(tape.events, "M");
  put(&tape, "heard");
  assert_int_equal(read(fds[0], got, sizeof got), 5);
  end_tape(&tape, fds[0]);
}

static void one_socket_serves_both_directions_by_a_duplicate(void **state) {
  tape_t in = {.env = *state};
  tape_t out = {.env = *state};
  int fds[2];
  make_blocking_pair(fds);
  int again = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
  set_nonblocking(fds[1]);
  take_end(&in, fds[0], true);
  take_end(&out, again, false);
  put(&out, "question");
  expect(&out, fds[1], "question");
  say(fds[1], "answer");
  settle(in.env->loop);
  expect_read(&in, "answer");
  end_tape(&out, -1);
  say(fds[1], "s");
  settle(in.env->loop);
  expect_read(&in, "answers");
  end_tape(&in, fds[1]);
}

static void a_write_to_a_gone_peer_raises_no_signal(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  signal(SIGPIPE, SIG_DFL);
  make_blocking_pair(fds);
  take_end(&tape, fds[1], false);
  close(fds[0]);
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), 0);
  expect_lost(&tape, ALOOP_EPIPE, "ML");
  release_tape(&tape, -1);
}

/* ---- Ownership ------------------------------------------------------------------------------------------- */

static void a_descriptor_belongs_to_one_transport(void **state) {
  tape_t tape = {.env = *state};
  tape_t other = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  take_end(&tape, fds[0], true);
  assert_int_equal(connect_end(&other, fds[0], true), ALOOP_EBUSY);
  assert_int_equal(aloop_add_reader(tape.env->loop, fds[0], trace_step, NULL), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(tape.env->loop, fds[0]), ALOOP_EBUSY);
  end_tape(&tape, fds[1]);
}

static void a_watched_descriptor_is_refused(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  assert_int_equal(aloop_add_reader(tape.env->loop, fds[0], trace_step, NULL), 0);
  assert_int_equal(connect_end(&tape, fds[0], true), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(tape.env->loop, fds[0]), 1);
  close(fds[0]);
  close(fds[1]);
}

static void *refuse_to_make(void *arg) {
  (void)arg;
  return NULL;
}

static void a_refusing_factory_leaves_the_descriptor(void **state) {
  env_t *env = *state;
  aloop_protocol_t table = plain_protocol;
  int fds[2];
  table.create = refuse_to_make;
  make_blocking_pipe(fds);
  aloop_future_t *future = aloop_connect_read_pipe(env->loop, &table, NULL, fds[0]);
  assert_int_equal(aloop_run_until_complete(env->loop, future), ALOOP_ENOMEM);
  settle(env->loop);
  assert_false(is_nonblocking(fds[0]));
  assert_int_equal(aloop_add_reader(env->loop, fds[0], trace_step, NULL), 0);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close(fds[0]);
  close(fds[1]);
}

static void cancelling_leaves_the_descriptor(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  make_blocking_pipe(fds);
  aloop_future_t *future = aloop_connect_write_pipe(env->loop, &plain_protocol, &tape, fds[1]);
  assert_true(aloop_future_cancel(future));
  assert_int_equal(aloop_add_writer(env->loop, fds[1], trace_step, NULL), 0);
  assert_int_equal(aloop_remove_writer(env->loop, fds[1]), 1);
  settle(env->loop);
  assert_string_equal(tape.events, "");
  aloop_future_unref(future);
  say(fds[1], "mine");
  close(fds[0]);
  close(fds[1]);
}

static void its_descriptor_is_not_inherited(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  fcntl(fds[0], F_SETFD, 0);
  take_end(&tape, fds[0], true);
  assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
  end_tape(&tape, fds[1]);
}

static void a_standard_stream_is_still_inherited(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  int saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  make_blocking_pipe(fds);
  assert_int_equal(dup2(fds[0], STDIN_FILENO), STDIN_FILENO);
  close(fds[0]);
  take_end(&tape, STDIN_FILENO, true);
  assert_int_equal(fcntl(STDIN_FILENO, F_GETFD), 0);
  end_tape(&tape, fds[1]);
  if (saved >= 0) {
    dup2(saved, STDIN_FILENO);
    close(saved);
  }
}

static void ends_when_closed_behind_its_back(void **state) {
  tape_t tape = {.env = *state};
  int fds[2];
  make_blocking_pipe(fds);
  take_end(&tape, fds[0], true);
  close(fds[0]);
  aloop_transport_close(tape.transport);
  run_until(tape.env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, fds[1]);
}

static void a_closed_loop_ends_its_pipes(void **state) {
  env_t *env = *state;
  tape_t in = {.env = env};
  tape_t out = {.env = env};
  int first[2];
  int second[2];
  make_blocking_pipe(first);
  make_blocking_pipe(second);
  take_end(&in, first[0], true);
  take_end(&out, second[1], false);
  static const char much[1 << 20];
  assert_int_equal(aloop_transport_write(out.transport, much, sizeof much), 0);
  assert_true(unsent(&out) > 0);
  aloop_close(env->loop);
  assert_int_equal(in.error, ALOOP_ECLOSED);
  assert_int_equal(out.error, ALOOP_ECLOSED);
  release_tape(&in, first[1]);
  release_tape(&out, second[0]);
}

/* ---- Refused --------------------------------------------------------------------------------------------- */

/* Connecting fails with this code and words in the message, and leaves the descriptor open. */
static void expect_refused(env_t *env, int fd, bool reads, int error, const char *words) {
  tape_t tape = {.env = env};
  aloop_future_t *future = reads ? aloop_connect_read_pipe(env->loop, &plain_protocol, &tape, fd)
                                 : aloop_connect_write_pipe(env->loop, &plain_protocol, &tape, fd);
  assert_int_equal(run_future(env->loop, future), error);
  if (strstr(aloop_future_message(future), words) == NULL)
    fail_msg("\"%s\" does not say \"%s\"", aloop_future_message(future), words);
  aloop_future_unref(future);
  assert_int_equal(tape.events_count, 0);
}

static void refuses_the_wrong_direction(void **state) {
  int fds[2];
  make_blocking_pipe(fds);
  expect_refused(*state, fds[1], true, ALOOP_EINVAL, "not open for reading");
  expect_refused(*state, fds[0], false, ALOOP_EINVAL, "not open for writing");
  close(fds[0]);
  close(fds[1]);
}

static void refuses_what_is_not_open(void **state) {
  expect_refused(*state, -1, true, ALOOP_EBADF, "fd -1 is not open");
  expect_refused(*state, 9999, false, ALOOP_EBADF, "fd 9999 is not open");
}

static void refuses_what_is_no_pipe(void **state) {
  int folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int datagrams = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(listen(listener, 1), 0);
  expect_refused(*state, folder, true, ALOOP_EINVAL, "is a directory");
  expect_refused(*state, datagrams, true, ALOOP_EINVAL, "carries no stream");
  expect_refused(*state, listener, true, ALOOP_EINVAL, "listening");
  close(folder);
  close(datagrams);
  close(listener);
}

static void refuses_a_table_without_its_size(void **state) {
  env_t *env = *state;
  aloop_protocol_t table = {0};
  aloop_future_t *future = aloop_connect_read_pipe(env->loop, &table, NULL, 0);
  assert_int_equal(aloop_run_until_complete(env->loop, future), ALOOP_EINVAL);
  future = aloop_connect_write_pipe(env->loop, NULL, NULL, 1);
  assert_int_equal(aloop_run_until_complete(env->loop, future), ALOOP_EINVAL);
  assert_null(aloop_connect_read_pipe(NULL, &plain_protocol, NULL, 0));
}

TESTS(T(reads_from_a_pipe), T(writes_to_a_pipe), T(reads_from_a_fifo), T(writes_to_a_fifo),
      T(reads_from_a_socket), T(writes_to_a_socket), T(reads_from_a_terminal), T(writes_to_a_terminal),
      T(ends_with_the_last_slave_of_a_terminal), T(writes_to_the_master_of_a_terminal),
      T(notices_a_writer_that_went_before), T(waits_for_the_first_writer),
      T(a_fifo_that_it_could_read_itself_is_no_lost_reader), T(bytes_from_the_peer_do_not_end_a_write_pipe),
      T(one_socket_serves_both_directions_by_a_duplicate), T(a_write_to_a_gone_peer_raises_no_signal),
      T(a_descriptor_belongs_to_one_transport), T(a_watched_descriptor_is_refused),
      T(a_refusing_factory_leaves_the_descriptor), T(cancelling_leaves_the_descriptor),
      T(its_descriptor_is_not_inherited), T(a_standard_stream_is_still_inherited),
      T(ends_when_closed_behind_its_back), T(a_closed_loop_ends_its_pipes), T(refuses_the_wrong_direction),
      T(refuses_what_is_not_open), T(refuses_what_is_no_pipe), T(refuses_a_table_without_its_size))
