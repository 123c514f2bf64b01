/* SPDX-License-Identifier: MIT
 *
 * Sending files through the test's own sockets, by sendfile and by reading and writing: every test that can
 * runs both ways. The test stands in for sendfile, so that it can be missing or slow. pollers: all
 */
#include "streams.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif
#include <sys/socket.h>
#include <unistd.h>

/* ---- The system as the library sees it ------------------------------------------------------------------ */

static struct {
  bool missing;  /* there is no sendfile */
  int error;     /* it fails with this */
  int fast_peer; /* reads everything as it is sent; 0: nobody does */
  size_t most;   /* asked for in one call */
} kernel;

static void after_sending(size_t asked) {
  static char bytes[65536];
  int error = errno;
  if (asked > kernel.most) kernel.most = asked;
  while (kernel.fast_peer > 0 && read(kernel.fast_peer, bytes, sizeof bytes) > 0) continue;
  errno = error;
}

#ifdef __linux__
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
  static ssize_t (*real)(int, int, off_t *, size_t);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, CALLED_SENDFILE);
    memcpy(&real, &symbol, sizeof real);
  }
  if (kernel.missing || kernel.error != 0) {
    errno = kernel.missing ? EINVAL : kernel.error;
    return -1;
  }
  ssize_t n = real(out, in, offset, count);
  after_sending(count);
  return n;
}
#endif

ssize_t send(int fd, const void *data, size_t size, int flags) {
  ssize_t n = sendto(fd, data, size, flags, NULL, 0);
  after_sending(size);
  return n;
}

/* ---- Small helpers -------------------------------------------------------------------------------------- */

enum { BIG = 3 * 1024 * 1024 };

static char whole[BIG]; /* what every file begins with */
static char got[BIG];

static int make_file(size_t size) {
  char name[] = "/tmp/aloop-sockfile-XXXXXX";
  int file = mkstemp(name);
  assert_true(file >= 0);
  unlink(name);
  pattern(whole, sizeof whole, 0);
  assert_int_equal(write(file, whole, size), (ssize_t)size);
  return file;
}

static void begin(int way, int fds[2]) {
  memset(&kernel, 0, sizeof kernel);
  kernel.missing = way == 1;
  make_socketpair(fds);
}

static void finish(const int fds[2], int file) {
  memset(&kernel, 0, sizeof kernel);
  close(fds[0]);
  close(fds[1]);
  if (file >= 0) close(file);
}

static off_t position_of(int file) {
  return lseek(file, 0, SEEK_CUR);
}

static void expect_result(aloop_future_t *future, int64_t result) {
  assert_non_null(future);
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_result(future), result);
  aloop_future_unref(future);
}

/* Runs until it has ended, reading at the other end. Returns how much came. */
static size_t receive(env_t *env, aloop_future_t *future, int peer) {
  size_t size = 0;
  for (int turns = 0; !aloop_future_done(future); turns++) {
    assert_true(turns < 100000);
    size += drain(peer, got + size, 100000);
    run_turn(env->loop);
  }
  return size + drain(peer, got + size, sizeof got - size);
}

/* ---- Whole files and parts ------------------------------------------------------------------------------ */

static void a_small_file_is_sent_at_once(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(1000);
    begin(way, fds);
    expect_result(aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0), 1000);
    assert_int_equal(position_of(file), 1000);
    expect_result(aloop_sock_sendfile(env->loop, fds[0], file, 100, 50, 0), 50);
    assert_int_equal(position_of(file), 150);
    assert_int_equal(drain(fds[1], got, sizeof got), 1050);
    assert_memory_equal(got, whole, 1000);
    assert_memory_equal(got + 1000, whole + 100, 50);
    finish(fds, file);
  }
}

static void a_short_file_ends_early(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(1000);
    begin(way, fds);
    expect_result(aloop_sock_sendfile(env->loop, fds[0], file, 900, 5000, 0), 100);
    expect_result(aloop_sock_sendfile(env->loop, fds[0], file, 2000, 0, 0), 0);
    assert_int_equal(position_of(file), 2000);
    finish(fds, file);
  }
}

static void a_large_file_arrives_in_order(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(BIG);
    begin(way, fds);
    aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 7, 0, 0);
    assert_int_equal(receive(env, future, fds[1]), BIG - 7);
    assert_memory_equal(got, whole + 7, BIG - 7);
    expect_result(future, BIG - 7);
    assert_int_equal(position_of(file), BIG);
    finish(fds, file);
  }
}

static void what_lies_beyond_two_gigabytes_is_reached(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(0);
    int64_t far = (int64_t)5 << 30; /* a hole takes no room */
    begin(way, fds);
    assert_int_equal(pwrite(file, "far away", 8, (off_t)far), 8);
    expect_result(aloop_sock_sendfile(env->loop, fds[0], file, far + 4, 0, 0), 4);
    assert_int_equal(position_of(file), far + 8);
    assert_int_equal(drain(fds[1], got, sizeof got), 4);
    assert_memory_equal(got, "away", 4);
    finish(fds, file);
  }
}

static void more_than_two_gigabytes_are_counted(void **state) {
  env_t *env = *state;
  if (!on_poller(env, "virtual")) skip(); /* the poller does not matter, and it takes its time */
  int fds[2], file = make_file(0);
  int64_t size = ((int64_t)2 << 30) + 4096;
  begin(0, fds);
  assert_int_equal(ftruncate(file, (off_t)size), 0);
  kernel.fast_peer = fds[1];
  aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0);
  assert_int_equal(run_future(env->loop, future), size);
  assert_int_equal(position_of(file), size);
  aloop_future_unref(future);
  finish(fds, file);
}

/* ---- Fairness and changes ------------------------------------------------------------------------------- */

static void a_fast_peer_does_not_keep_the_loop_busy(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(BIG), turns = 0;
    begin(way, fds);
    kernel.fast_peer = fds[1];
    aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0);
    for (; !aloop_future_done(future); turns++) run_turn(env->loop);
    assert_true(turns >= BIG / (256 * 1024) - 1);
    assert_true(kernel.most <= 256 * 1024);
    expect_result(future, BIG);
    finish(fds, file);
  }
}

static void a_file_that_shrinks_ends_early(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(BIG);
    begin(way, fds);
    aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, BIG, 0);
    assert_false(aloop_future_done(future));
    assert_int_equal(ftruncate(file, BIG / 2), 0);
    assert_int_equal(receive(env, future, fds[1]), BIG / 2);
    expect_result(future, BIG / 2);
    assert_int_equal(position_of(file), BIG / 2);
    finish(fds, file);
  }
}

/* ---- Ended early ---------------------------------------------------------------------------------------- */

static void cancelling_leaves_the_position_behind_the_last_byte(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(BIG);
    begin(way, fds);
    aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0);
    run_turn(env->loop);
    assert_int_equal(aloop_future_cancel(future), 1);
    aloop_future_unref(future);
    size_t size = drain(fds[1], got, sizeof got);
    assert_int_equal(position_of(file), (off_t)size);
    expect_result(aloop_sock_sendall(env->loop, fds[0], "next", 4), 4);
    finish(fds, file);
  }
}

static void a_peer_that_goes_away_fails_it_without_a_signal(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 2; way++) {
    int fds[2], file = make_file(BIG);
    begin(way, fds);
    aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0);
    size_t size = drain(fds[1], got, sizeof got);
    close(fds[1]);
    assert_int_equal(run_future(env->loop, future), ALOOP_EPIPE);
    assert_non_null(strstr(aloop_future_message(future), "bytes of the file were sent"));
    assert_true(position_of(file) >= (off_t)size);
    aloop_future_unref(future);
    fds[1] = -1;
    finish(fds, file);
  }
}

static void closing_the_loop_ends_it(void **state) {
  env_t *env = *state;
  int fds[2], file = make_file(BIG);
  begin(1, fds);
  aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0);
  assert_int_equal(aloop_close(env->loop), 0);
  size_t size = drain(fds[1], got, sizeof got);
  assert_int_equal(position_of(file), (off_t)size);
  expect_result(future, ALOOP_ECANCELED);
  finish(fds, file);
}

/* ---- Refused -------------------------------------------------------------------------------------------- */

static void senseless_arguments_are_refused(void **state) {
  env_t *env = *state;
  int fds[2], file = make_file(1000);
  begin(0, fds);
  expect_result(aloop_sock_sendfile(env->loop, fds[0], file, -1, 0, 0), ALOOP_EINVAL);
  expect_result(aloop_sock_sendfile(env->loop, fds[0], file, 0, -1, 0), ALOOP_EINVAL);
  expect_result(aloop_sock_sendfile(env->loop, fds[0], fds[1], 0, 0, 0), ALOOP_EINVAL);
  expect_result(aloop_sock_sendfile(env->loop, fds[0], -1, 0, 0, 0), ALOOP_EBADF);
  expect_result(aloop_sock_sendfile(env->loop, -1, file, 0, 0, 0), ALOOP_EBADF);
  assert_null(aloop_sock_sendfile(NULL, fds[0], file, 0, 0, 0));
  finish(fds, file);
}

static void a_direction_in_use_is_refused_and_the_position_left(void **state) {
  env_t *env = *state;
  int fds[2], file = make_file(BIG), other = make_file(10);
  begin(0, fds);
  aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0);
  expect_result(aloop_sock_sendfile(env->loop, fds[0], other, 0, 0, 0), ALOOP_EBUSY);
  assert_int_equal(position_of(other), 10);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  close(other);
  finish(fds, file);
}

static void without_sendfile_the_fallback_can_be_refused(void **state) {
  env_t *env = *state;
  int fds[2], file = make_file(1000);
  begin(1, fds);
  expect_result(aloop_sock_sendfile(env->loop, fds[0], file, 10, 0, ALOOP_NO_FALLBACK), ALOOP_ENOTSUP);
  assert_int_equal(position_of(file), 10);
  finish(fds, file);
}

static void out_of_memory_fails_it_whole(void **state) {
  env_t *env = *state;
  int fds[2], file = make_file(BIG);
  for (int i = 1; i <= 4; i++) {
    begin(1, fds);
    env->fail_at = env->calls + i;
    aloop_future_t *future = aloop_sock_sendfile(env->loop, fds[0], file, 0, 0, 0);
    size_t size = drain(fds[1], got, sizeof got);
    if (future != NULL && aloop_future_done(future)) {
      assert_int_equal(aloop_future_result(future), ALOOP_ENOMEM);
      assert_int_equal(position_of(file), (off_t)size);
    }
    if (future != NULL) aloop_future_cancel(future);
    aloop_future_unref(future);
    finish(fds, -1);
  }
  close(file);
}

TESTS(T(a_small_file_is_sent_at_once), T(a_short_file_ends_early), T(a_large_file_arrives_in_order),
      T(what_lies_beyond_two_gigabytes_is_reached), T(more_than_two_gigabytes_are_counted),
      T(a_fast_peer_does_not_keep_the_loop_busy), T(a_file_that_shrinks_ends_early),
      T(cancelling_leaves_the_position_behind_the_last_byte),
      T(a_peer_that_goes_away_fails_it_without_a_signal), T(closing_the_loop_ends_it),
      T(senseless_arguments_are_refused), T(a_direction_in_use_is_refused_and_the_position_left),
      T(without_sendfile_the_fallback_can_be_refused), T(out_of_memory_fails_it_whole))
