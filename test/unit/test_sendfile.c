/* SPDX-License-Identifier: MIT
 *
 * Sending files over a transport, by sendfile and by reading and writing: every test that can runs both
 * ways. The test stands in for sendfile, so that it can fail as on systems and files that have none.
 * pollers: all
 */
#include "streams.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif
#include <sys/socket.h>
#include <unistd.h>

/* ---- The system as the library sees it ------------------------------------------------------------------ */

static struct {
  bool missing;   /* there is no sendfile */
  int error;      /* it fails with this */
  long calls;     /* of sendfile and of send */
  int fast_peer;  /* reads everything as it is sent; 0: nobody does */
  size_t at_once; /* what one call may send; 0: anything */
  bool pretends;  /* ... and it says so, but sends nothing */
} kernel;

static void read_fast(void) {
  static char bytes[65536];
  while (kernel.fast_peer > 0 && read(kernel.fast_peer, bytes, sizeof bytes) > 0) continue;
}

#ifdef __linux__
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
  static ssize_t (*real)(int, int, off_t *, size_t);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, CALLED_SENDFILE);
    memcpy(&real, &symbol, sizeof real);
  }
  kernel.calls++;
  if (kernel.missing || kernel.error != 0) {
    errno = kernel.missing ? EINVAL : kernel.error;
    return -1;
  }
  if (kernel.at_once > 0 && count > kernel.at_once) count = kernel.at_once;
  if (kernel.pretends) {
    off_t left = lseek(in, 0, SEEK_END) - *offset;
    if (left < (off_t)count) count = (size_t)left;
    *offset += (off_t)count;
    return (ssize_t)count;
  }
  ssize_t n = real(out, in, offset, count);
  read_fast();
  return n;
}
#endif

ssize_t send(int fd, const void *data, size_t size, int flags) {
  kernel.calls++;
  ssize_t n = sendto(fd, data, size, flags, NULL, 0);
  read_fast();
  return n;
}

/* ---- Small helpers -------------------------------------------------------------------------------------- */

enum { BIG = 3 * 1024 * 1024 };

/* A file of that many bytes of the pattern. */
static int make_file(size_t size) {
  char name[] = "/tmp/aloop-sendfile-XXXXXX";
  static char bytes[BIG];
  int file = mkstemp(name);
  assert_true(file >= 0);
  unlink(name);
  pattern(bytes, size, 0);
  assert_int_equal(write(file, bytes, size), (ssize_t)size);
  return file;
}

static off_t position_of(int file) {
  return lseek(file, 0, SEEK_CUR);
}

static void assert_pattern(const char *bytes, size_t from, size_t size) {
  static char expected[BIG];
  assert_true(size <= sizeof expected);
  pattern(expected, size, (unsigned)from);
  assert_memory_equal(bytes, expected, size);
}

static char *got; /* room for everything */

/* Starts a test: one way or the other. Returns the peer. */
static int begin(tape_t *tape, env_t *env, int way) {
  memset(&kernel, 0, sizeof kernel);
  kernel.missing = way == 1;
  *tape = (tape_t){.env = env};
  got = malloc(2 * BIG);
  assert_non_null(got);
  return open_tape(tape, &plain_protocol);
}

/* A TCP connection that does not swallow a whole file at once. */
static int begin_tcp(tape_t *tape, env_t *env) {
  int small = 65536;
  *tape = (tape_t){.env = env};
  int peer = open_tcp_tape(tape, &plain_protocol);
  setsockopt(aloop_transport_fd(tape->transport), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  return peer;
}

static void finish(tape_t *tape, int peer, int file) {
  memset(&kernel, 0, sizeof kernel);
  end_tape(tape, peer);
  free(got);
  if (file >= 0) close(file);
}

static aloop_future_t *start(tape_t *tape, int file, int64_t offset, int64_t count) {
  aloop_future_t *future = aloop_sendfile(tape->transport, file, offset, count, 0);
  assert_non_null(future);
  return future;
}

static void expect_result(aloop_future_t *future, int64_t result) {
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_result(future), result);
  aloop_future_unref(future);
}

static void expect_failure(tape_t *tape, int file, int64_t offset, int64_t count, int64_t error) {
  expect_result(start(tape, file, offset, count), error);
}

/* Sends and receives; checks bytes, result and position. */
static void transfer(tape_t *tape, int peer, int file, int64_t offset, int64_t count, size_t expected) {
  aloop_future_t *future = start(tape, file, offset, count);
  assert_int_equal(collect(tape->env->loop, tape, peer, got, expected), expected);
  assert_pattern(got, (size_t)offset, expected);
  assert_int_equal(run_future(tape->env->loop, future), (int64_t)expected);
  assert_int_equal(position_of(file), offset + (int64_t)expected);
  assert_int_equal(drain(peer, got, 1), 0);
  aloop_future_unref(future);
}

/* ---- What arrives --------------------------------------------------------------------------------------- */

static void whole_files_and_parts_arrive(void **state) {
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, *state, way);
    int file = make_file(10000);
    transfer(&tape, peer, file, 0, 0, 10000);
    transfer(&tape, peer, file, 0, 10000, 10000);
    transfer(&tape, peer, file, 0, 1, 1);
    transfer(&tape, peer, file, 9999, 0, 1);
    transfer(&tape, peer, file, 1234, 2345, 2345);
    finish(&tape, peer, file);
  }
}

static void what_lies_behind_the_end_is_not_there(void **state) {
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, *state, way);
    int file = make_file(1000);
    transfer(&tape, peer, file, 500, 1000, 500);
    transfer(&tape, peer, file, 1000, 0, 0);
    transfer(&tape, peer, file, 5000, 7, 0);
    transfer(&tape, peer, file, 1 << 30, INT64_MAX, 0);
    finish(&tape, peer, file);
  }
}

static void what_lies_beyond_two_gigabytes_is_reached(void **state) {
  const int64_t far = (int64_t)5 << 30; /* a hole takes no room */
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, *state, way);
    int file = make_file(0);
    assert_int_equal(pwrite(file, "far away", 8, (off_t)far), 8);
    for (int64_t count = 0; count < 8; count += 4) {
      aloop_future_t *future = start(&tape, file, far + 4, count);
      assert_int_equal(run_future(tape.env->loop, future), 4);
      aloop_future_unref(future);
      assert_int_equal(position_of(file), far + 8);
      assert_int_equal(collect(tape.env->loop, &tape, peer, got, 4), 4);
      assert_memory_equal(got, "away", 4);
    }
    finish(&tape, peer, file);
  }
}

static void more_than_two_gigabytes_are_counted(void **state) {
  const int64_t size = ((int64_t)5 << 30) + 77;
  tape_t tape;
#ifndef __linux__
  skip(); /* where there is no sendfile to stand in for it would take its time */
#endif
  int peer = begin(&tape, *state, 0);
  int file = make_file(0);
  assert_int_equal(ftruncate(file, (off_t)size), 0);
  kernel.pretends = true;
  for (int64_t count = 0; count <= size; count += size) {
    aloop_future_t *future = start(&tape, file, 0, count);
    assert_int_equal(run_future(tape.env->loop, future), size);
    aloop_future_unref(future);
    assert_int_equal(position_of(file), size);
  }
  aloop_future_t *future = start(&tape, file, 7, ((int64_t)3 << 30) + 1);
  assert_int_equal(run_future(tape.env->loop, future), ((int64_t)3 << 30) + 1);
  aloop_future_unref(future);
  assert_int_equal(position_of(file), ((int64_t)3 << 30) + 8);
  finish(&tape, peer, file);
}

static void an_empty_file_is_sent_at_once(void **state) {
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, *state, way);
    int file = make_file(0);
    transfer(&tape, peer, file, 0, 0, 0);
    finish(&tape, peer, file);
  }
}

static void a_file_larger_than_the_buffers_arrives(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way & 1);
    int file = make_file(BIG);
    if (way & 2) {
      end_tape(&tape, peer);
      peer = begin_tcp(&tape, env);
    }
    transfer(&tape, peer, file, 0, 0, BIG);
    transfer(&tape, peer, file, 77, BIG - 100, BIG - 100);
    finish(&tape, peer, file);
  }
}

static void a_file_follows_what_was_written_before(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    pattern(got, 1000000, 5);
    assert_int_equal(aloop_transport_write(tape.transport, got, 1000000), 0);
    aloop_future_t *future = start(&tape, file, 0, 0);
    assert_int_equal(collect(env->loop, &tape, peer, got, BIG + 1000000), BIG + 1000000);
    assert_pattern(got, 5, 1000000);
    assert_pattern(got + 1000000, 0, BIG);
    assert_int_equal(run_future(env->loop, future), BIG);
    aloop_future_unref(future);
    assert_int_equal(aloop_transport_write(tape.transport, "after", 5), 0);
    assert_int_equal(collect(env->loop, &tape, peer, got, 5), 5);
    assert_memory_equal(got, "after", 5);
    finish(&tape, peer, file);
  }
}

static void a_file_that_shrinks_ends_early(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_future_t *future = start(&tape, file, 0, BIG);
    size_t size = drain(peer, got, 50000);
    aloop_run_once(env->loop, 0);
    assert_int_equal(ftruncate(file, 1000000), 0);
    size += collect(env->loop, &tape, peer, got + size, 1000000 - size);
    assert_int_equal(size, 1000000);
    assert_pattern(got, 0, 1000000);
    assert_int_equal(run_future(env->loop, future), 1000000);
    assert_int_equal(position_of(file), 1000000);
    aloop_future_unref(future);
    finish(&tape, peer, file);
  }
}

static const char request[] = "first second";

static void answer_with_files(tape_t *tape) {
  int *file = tape->arg;
  assert_int_equal(aloop_transport_write(tape->transport, "head ", 5), 0);
  assert_int_equal(aloop_transport_write(tape->transport, tape->data, 6), 0);
  aloop_future_detach(start(tape, *file, 0, 100));
  assert_memory_equal(tape->data, request, sizeof request - 1);
  assert_int_equal(aloop_transport_write(tape->transport, tape->data + 6, 6), 0);
  aloop_future_detach(start(tape, *file, 100, 50));
}

static void files_follow_what_was_gathered(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(1000);
    tape.arg = &file;
    tape.on[DATA] = answer_with_files;
    say(peer, request);
    assert_int_equal(collect(env->loop, &tape, peer, got, 167), 167);
    assert_memory_equal(got, "head first ", 11);
    assert_pattern(got + 11, 0, 100);
    assert_memory_equal(got + 111, "second", 6);
    assert_pattern(got + 117, 100, 50);
    finish(&tape, peer, file);
  }
}

/* ---- Meanwhile ------------------------------------------------------------------------------------------ */

static void writes_are_refused_meanwhile(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_future_t *future = start(&tape, file, 0, 0);
    for (int i = 0; i < 2; i++) {
      struct iovec part = {"x", 1};
      assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_EBUSY);
      assert_int_equal(aloop_transport_writev(tape.transport, &part, 1), ALOOP_EBUSY);
      assert_int_equal(aloop_transport_write_owned(tape.transport, "x", 1, (aloop_destroy_fn)abort, NULL),
                       ALOOP_EBUSY);
      assert_int_equal(aloop_transport_write_eof(tape.transport), ALOOP_EBUSY);
      expect_failure(&tape, file, 0, 0, ALOOP_EBUSY);
      aloop_run_once(env->loop, 0);
    }
    assert_int_equal(collect(env->loop, &tape, peer, got, BIG), BIG);
    assert_pattern(got, 0, BIG);
    assert_int_equal(run_future(env->loop, future), BIG);
    aloop_future_unref(future);
    assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
    finish(&tape, peer, file);
  }
}

static void reading_rests_meanwhile(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_future_t *future = start(&tape, file, 0, 0);
    say(peer, "hello");
    shutdown(peer, SHUT_WR);
    for (int i = 0; i < 5; i++) aloop_run_once(env->loop, 0);
    assert_int_equal(tape.calls[DATA] + tape.calls[AT_EOF], 0);
    tape.answer[AT_EOF] = 1;
    assert_int_equal(collect(env->loop, &tape, peer, got, BIG), BIG);
    assert_int_equal(run_future(env->loop, future), BIG);
    run_until(env->loop, &tape.eof);
    assert_int_equal(tape.size, 5);
    aloop_future_unref(future);
    finish(&tape, peer, file);
  }
}

static void reading_stays_paused_afterwards_if_it_was(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(100);
    aloop_transport_pause_reading(tape.transport);
    say(peer, "hello");
    transfer(&tape, peer, file, 0, 0, 100);
    settle(env->loop);
    assert_int_equal(tape.size, 0);
    assert_false(aloop_transport_is_reading(tape.transport));
    aloop_transport_resume_reading(tape.transport);
    settle(env->loop);
    assert_int_equal(tape.size, 5);
    finish(&tape, peer, file);
  }
}

static void a_fast_reader_does_not_keep_the_loop_busy(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    kernel.fast_peer = peer;
    kernel.at_once = 65536;
    aloop_future_t *future = start(&tape, file, 0, 0);
    assert_true(kernel.calls <= 4);
    while (!aloop_future_done(future)) {
      kernel.calls = 0;
      aloop_run_once(env->loop, 0);
      assert_true(kernel.calls <= 4);
    }
    expect_result(future, BIG);
    finish(&tape, peer, file);
  }
}

/* A reader that empties the socket while the call is at work. */
static void a_reader_on_another_cpu_does_not_either(void **state) {
  enum { SIZE = 64 << 20, CALLS = 16 };
  tape_t tape;
#ifndef __linux__
  skip(); /* where there is no sendfile to stand in for */
#endif
  int peer = begin(&tape, *state, 0);
  int file = make_file(0);
  assert_int_equal(ftruncate(file, SIZE), 0);
  kernel.pretends = true;
  kernel.calls = 0;
  aloop_future_t *future = start(&tape, file, 0, SIZE);
  for (int call = 1; call < CALLS; call++) {
    assert_int_equal(kernel.calls, call);
    assert_false(aloop_future_done(future));
    run_turn(tape.env->loop);
  }
  expect_result(future, SIZE);
  finish(&tape, peer, file);
}

/* ---- Ends ----------------------------------------------------------------------------------------------- */

static void close_lets_it_finish(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_future_t *future = start(&tape, file, 0, 0);
    aloop_transport_close(tape.transport);
    assert_int_equal(collect(env->loop, &tape, peer, got, BIG), BIG);
    assert_pattern(got, 0, BIG);
    assert_int_equal(run_future(env->loop, future), BIG);
    run_until(env->loop, &tape.lost);
    assert_int_equal(tape.error, 0);
    assert_true(at_eof(peer));
    aloop_future_unref(future);
    finish(&tape, peer, file);
  }
}

static void an_abort_fails_it(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way & 1);
    int file = make_file(BIG);
    aloop_future_t *future = start(&tape, file, 0, 0);
    aloop_run_once(env->loop, 0);
    aloop_transport_abort_error(tape.transport, way & 2 ? ALOOP_EIO : 0);
    expect_result(future, way & 2 ? ALOOP_EIO : ALOOP_ECLOSED);
    run_until(env->loop, &tape.lost);
    off_t position = position_of(file);
    size_t size = drain(peer, got, BIG);
    assert_true(size > 0 && size <= (size_t)position && position < BIG);
    assert_pattern(got, 0, size);
    finish(&tape, peer, file);
  }
}

static void cancelling_stops_it_and_the_connection_goes_on(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_future_t *future = start(&tape, file, 1000, 0);
    for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
    assert_int_equal(aloop_future_cancel(future), 1);
    expect_result(future, ALOOP_ECANCELED);
    size_t size = (size_t)position_of(file) - 1000;
    assert_true(size > 0 && size < BIG - 1000);
    assert_int_equal(aloop_transport_write(tape.transport, "after", 5), 0);
    assert_int_equal(collect(env->loop, &tape, peer, got, size + 5), size + 5);
    assert_pattern(got, 1000, size);
    assert_memory_equal(got + size, "after", 5);
    say(peer, "hello");
    settle(env->loop);
    assert_int_equal(tape.size, 5);
    finish(&tape, peer, file);
  }
}

static void cancelling_before_the_first_byte_sends_nothing(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(1000);
    fill(aloop_transport_fd(tape.transport));
    assert_int_equal(aloop_transport_write(tape.transport, "before", 6), 0);
    aloop_future_t *future = start(&tape, file, 10, 0);
    aloop_future_cancel(future);
    expect_result(future, ALOOP_ECANCELED);
    assert_int_equal(position_of(file), 10);
    aloop_transport_close(tape.transport);
    while (!tape.lost) {
      drain(peer, got, BIG);
      aloop_run_once(env->loop, 0);
    }
    finish(&tape, peer, file);
  }
}

/* With SIGPIPE left alone, as the fixture does. */
static void a_peer_that_goes_away_fails_it(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way & 1);
    int file = make_file(BIG);
    if (way & 2) {
      end_tape(&tape, peer);
      peer = begin_tcp(&tape, env);
    }
    aloop_future_t *future = start(&tape, file, 0, 0);
    aloop_run_once(env->loop, 0);
    close(peer);
    run_until(env->loop, &tape.lost);
    int64_t result = aloop_future_result(future);
    assert_true(result == ALOOP_EPIPE || result == ALOOP_ECONNRESET);
    assert_int_equal(tape.error, result);
    aloop_future_unref(future);
    finish(&tape, -1, file);
  }
}

static void closing_the_loop_fails_it(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    env_loop(env, (aloop_options_t){.debug = -1});
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_future_t *future = start(&tape, file, 0, 0);
    aloop_close(env->loop);
    assert_int_equal(tape.error, ALOOP_ECLOSED);
    assert_true(aloop_future_result(future) < 0);
    aloop_future_unref(future);
    release_tape(&tape, peer);
    free(got);
    close(file);
  }
}

static void an_error_of_the_file_leaves_the_connection(void **state) {
  env_t *env = *state;
  tape_t tape;
#if !ALOOP_HAVE_LINUX_SENDFILE
  skip(); /* where there is no sendfile to fail */
#endif
  int peer = begin(&tape, env, 0);
  int file = make_file(BIG);
  aloop_future_t *future = start(&tape, file, 0, 0);
  aloop_run_once(env->loop, 0);
  kernel.error = EIO;
  size_t size = 0;
  while (!aloop_future_done(future)) {
    size += drain(peer, got + size, BIG);
    aloop_run_once(env->loop, 0);
  }
  expect_result(future, ALOOP_EIO);
  assert_int_equal(position_of(file), size + drain(peer, got + size, BIG));
  assert_int_equal(aloop_transport_write(tape.transport, "after", 5), 0);
  assert_int_equal(collect(env->loop, &tape, peer, got, 5), 5);
  finish(&tape, peer, file);
}

static void nobody_has_to_wait_for_it(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_future_detach(start(&tape, file, 0, 0));
    assert_int_equal(collect(env->loop, &tape, peer, got, BIG), BIG);
    settle(env->loop);
    assert_int_equal(env->reports, 0);
    assert_int_equal(aloop_transport_write(tape.transport, "x", 1), 0);
    finish(&tape, peer, file);
  }
}

/* ---- Refusals ------------------------------------------------------------------------------------------- */

static void senseless_arguments_are_refused(void **state) {
  tape_t tape;
  int fds[2];
  int peer = begin(&tape, *state, 0);
  int file = make_file(100);
  int folder = open("/", O_RDONLY);
  make_pipe(fds);
  expect_failure(&tape, file, -1, 0, ALOOP_EINVAL);
  expect_failure(&tape, file, 0, -1, ALOOP_EINVAL);
  expect_failure(&tape, -1, 0, 0, ALOOP_EBADF);
  expect_failure(&tape, fds[0], 0, 0, ALOOP_EINVAL);
  expect_failure(&tape, folder, 0, 0, ALOOP_EINVAL);
  assert_int_equal(position_of(file), 100);
  transfer(&tape, peer, file, 0, 0, 100);
  close(folder);
  close(fds[0]);
  close(fds[1]);
  finish(&tape, peer, file);
}

static void a_file_that_cannot_be_read_fails(void **state) {
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    char name[] = "/tmp/aloop-sendfile-XXXXXX";
    int peer = begin(&tape, *state, way);
    close(mkstemp(name));
    int file = open(name, O_WRONLY);
    unlink(name);
    assert_int_equal(write(file, "x", 1), 1);
    expect_failure(&tape, file, 0, 0, ALOOP_EBADF);
    assert_false(aloop_transport_is_closing(tape.transport));
    assert_int_equal(aloop_transport_write(tape.transport, "x", 1), 0);
    finish(&tape, peer, file);
  }
}

static void a_side_that_is_closed_sends_no_file(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(100);
    aloop_transport_write_eof(tape.transport);
    expect_failure(&tape, file, 0, 0, ALOOP_EPIPE);
    aloop_transport_close(tape.transport);
    expect_failure(&tape, file, 0, 0, ALOOP_ECLOSED);
    finish(&tape, peer, file);
  }
}

static void without_sendfile_the_fallback_can_be_refused(void **state) {
  env_t *env = *state;
  tape_t tape;
  int peer = begin(&tape, env, 1);
  int file = make_file(100);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, ALOOP_NO_FALLBACK);
  expect_result(future, ALOOP_ENOTSUP);
  assert_int_equal(position_of(file), 0);
  transfer(&tape, peer, file, 0, 0, 100);
  finish(&tape, peer, file);
}

/* ---- Corners -------------------------------------------------------------------------------------------- */

static void send_two_files(tape_t *tape) {
  int *file = tape->arg;
  tape->on[PAUSE] = NULL;
  aloop_future_detach(start(tape, *file, 0, 0));
}

static void answer_beyond_the_mark(tape_t *tape) {
  int *file = tape->arg;
  static char much[15000];
  assert_int_equal(aloop_transport_write(tape->transport, much, sizeof much), 0);
  /* Sending what was gathered calls pause_writing, which starts a sendfile of its own. */
  expect_failure(tape, *file, 0, 0, ALOOP_EBUSY);
}

static void a_sendfile_begun_inside_pause_writing_comes_first(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    int peer = begin(&tape, env, way);
    int file = make_file(100);
    tape.arg = &file;
    tape.on[DATA] = answer_beyond_the_mark;
    tape.on[PAUSE] = send_two_files;
    aloop_transport_set_write_buffer_limits(tape.transport, 0, 0);
    say(peer, "x");
    size_t stuffed = fill(aloop_transport_fd(tape.transport));
    aloop_run_once(env->loop, 0); /* while the socket is full */
    size_t total = stuffed + 15000 + 100;
    assert_int_equal(collect(env->loop, &tape, peer, got, total), total);
    assert_pattern(got + stuffed + 15000, 0, 100);
    finish(&tape, peer, file);
  }
}

static void raise_flag(aloop_t *loop, void *arg) {
  (void)loop;
  *(bool *)arg = true;
}

static void timeouts_count_meanwhile(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    tape_t tape;
    env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
    int peer = begin(&tape, env, way);
    int file = make_file(BIG);
    aloop_transport_set_timeouts(tape.transport, 0, ALOOP_SECONDS(1), ALOOP_SECONDS(5));
    int64_t begun = aloop_time(env->loop);
    aloop_future_t *future = start(&tape, file, 0, 0);
    bool there = false;
    aloop_call_at(env->loop, begun + ALOOP_SECONDS(4), raise_flag, &there);
    run_until(env->loop, &there);
    drain(peer, got, BIG);
    there = false;
    aloop_call_at(env->loop, begun + ALOOP_SECONDS(8), raise_flag, &there);
    run_until(env->loop, &there);
    assert_false(tape.lost);
    run_until(env->loop, &tape.lost);
    assert_int_equal(aloop_time(env->loop) - begun, ALOOP_SECONDS(9));
    assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
    expect_result(future, ALOOP_ETIMEDOUT);
    finish(&tape, peer, file);
  }
}

static int scenario_way;

static void scenario(env_t *env) {
  long fail_at = env->fail_at;
  long fail_from = env->fail_from;
  tape_t tape;
  env->fail_at = env->fail_from = 0;
  int peer = begin(&tape, env, scenario_way);
  int file = make_file(500000);
  env->fail_at = fail_at == 0 ? 0 : env->calls + fail_at;
  env->fail_from = fail_from == 0 ? 0 : env->calls + fail_from;
  long calls = env->calls;
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  size_t size = 0;
  for (int i = 0; i < 100; i++) {
    size += drain(peer, got + size, BIG);
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  env->fail_at = env->fail_from = 0;
  env->calls -= calls;
  assert_pattern(got, 0, size);
  if (future != NULL) {
    assert_true(aloop_future_done(future));
    int64_t result = aloop_future_result(future);
    assert_true(result == ALOOP_ENOMEM || (result == 500000 && size == 500000));
    aloop_future_unref(future);
  }
  finish(&tape, peer, file);
}

static void out_of_memory_fails_it_whole(void **state) {
  for (scenario_way = 0; scenario_way < 2; scenario_way++) torture(*state, scenario);
}

TESTS(T(whole_files_and_parts_arrive), T(what_lies_behind_the_end_is_not_there),
      T(what_lies_beyond_two_gigabytes_is_reached), T(more_than_two_gigabytes_are_counted),
      T(an_empty_file_is_sent_at_once), T(a_file_larger_than_the_buffers_arrives),
      T(a_file_follows_what_was_written_before), T(a_file_that_shrinks_ends_early),
      T(files_follow_what_was_gathered), T(writes_are_refused_meanwhile), T(reading_rests_meanwhile),
      T(reading_stays_paused_afterwards_if_it_was), T(a_fast_reader_does_not_keep_the_loop_busy),
      T(a_reader_on_another_cpu_does_not_either), T(close_lets_it_finish), T(an_abort_fails_it),
      T(cancelling_stops_it_and_the_connection_goes_on), T(cancelling_before_the_first_byte_sends_nothing),
      T(a_peer_that_goes_away_fails_it), T(closing_the_loop_fails_it),
      T(an_error_of_the_file_leaves_the_connection), T(nobody_has_to_wait_for_it),
      T(senseless_arguments_are_refused), T(a_file_that_cannot_be_read_fails),
      T(a_side_that_is_closed_sends_no_file), T(without_sendfile_the_fallback_can_be_refused),
      T(a_sendfile_begun_inside_pause_writing_comes_first), T(timeouts_count_meanwhile),
      T(out_of_memory_fails_it_whole))
