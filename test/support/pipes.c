/* SPDX-License-Identifier: MIT
 *
 * Descriptors of every kind, for tests of pipes: see pipes.h.
 */
#include "pipes.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "process/pipe.h"

int open_end(tape_t *tape, const aloop_protocol_t *table, bool reads) {
  int fds[2];
  make_pipe(fds);
  tape->transport = aloop__pipe_new(tape->env->loop, fds[reads ? 0 : 1], reads, table, tape, NULL, ALOOP_HERE);
  assert_non_null(tape->transport);
  aloop_transport_ref(tape->transport);
  while (tape->calls[MADE] == 0) assert_true(aloop_run_once(tape->env->loop, 0) >= 0);
  return fds[reads ? 1 : 0];
}

int open_read_end(tape_t *tape) {
  return open_end(tape, &plain_protocol, true);
}

int open_write_end(tape_t *tape) {
  return open_end(tape, &plain_protocol, false);
}

int64_t connect_end(tape_t *tape, int fd, bool reads) {
  aloop_t *loop = tape->env->loop;
  aloop_future_t *future = reads ? aloop_connect_read_pipe(loop, &plain_protocol, tape, fd)
                                 : aloop_connect_write_pipe(loop, &plain_protocol, tape, fd);
  assert_non_null(future);
  int64_t result = run_future(loop, future);
  aloop_transport_t *transport;
  if (result >= 0) {
    assert_int_equal(aloop_future_take_ptr(future, &transport), 0);
    assert_ptr_equal(transport, tape->transport);
    aloop_transport_unref(transport);
  }
  aloop_future_unref(future);
  return result;
}

void take_end(tape_t *tape, int fd, bool reads) {
  assert_int_equal(connect_end(tape, fd, reads), 0);
  assert_int_equal(tape->calls[MADE], 1);
  assert_int_equal(aloop_transport_fd(tape->transport), fd);
}

void expect_lost(tape_t *tape, int error, const char *events) {
  run_until(tape->env->loop, &tape->lost);
  assert_int_equal(tape->error, error);
  assert_string_equal(tape->events, events);
}

void await_read(tape_t *tape, size_t size) {
  for (int i = 0; tape->size < size && i < 30000; i++) {
    assert_true(aloop_run_once(tape->env->loop, 0) >= 0);
    if (tape->size < size) poll(NULL, 0, 1);
  }
  assert_int_equal(tape->size, size);
}

void expect_read(const tape_t *tape, const char *text) {
  assert_int_equal(tape->size, strlen(text));
  assert_memory_equal(tape->bytes, text, tape->size);
}

static void set_cloexec(const int fds[2]) {
  fcntl(fds[0], F_SETFD, FD_CLOEXEC);
  fcntl(fds[1], F_SETFD, FD_CLOEXEC);
}

void make_blocking_pipe(int fds[2]) {
  assert_int_equal(pipe(fds), 0);
  set_cloexec(fds);
}

void make_blocking_pair(int fds[2]) {
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  set_cloexec(fds);
}

static const char *scratch(void) {
  const char *folder = getenv("TMPDIR");
  return folder != NULL ? folder : "/tmp";
}

void make_fifo_path(char path[FIFO_PATH]) {
  char folder[256];
  snprintf(folder, sizeof folder, "%s/aloop-XXXXXX", scratch());
  assert_non_null(mkdtemp(folder));
  snprintf(path, FIFO_PATH, "%s/fifo", folder);
  assert_int_equal(mkfifo(path, 0600), 0);
}

void remove_fifo_path(char path[FIFO_PATH]) {
  unlink(path);
  *strrchr(path, '/') = '\0';
  rmdir(path);
}

void make_fifo(int fds[2]) {
  char path[FIFO_PATH];
  make_fifo_path(path);
  int both = open(path, O_RDWR); /* so that neither of the others waits for the other */
  fds[0] = open(path, O_RDONLY | O_CLOEXEC);
  fds[1] = open(path, O_WRONLY | O_CLOEXEC);
  assert_true(both >= 0 && fds[0] >= 0 && fds[1] >= 0);
  close(both);
  remove_fifo_path(path);
}

void make_terminal(int fds[2]) {
  struct termios raw;
  fds[0] = posix_openpt(O_RDWR | O_NOCTTY);
  assert_true(fds[0] >= 0);
  assert_int_equal(grantpt(fds[0]), 0);
  assert_int_equal(unlockpt(fds[0]), 0);
  fds[1] = open(ptsname(fds[0]), O_RDWR | O_NOCTTY);
  assert_true(fds[1] >= 0);
  set_cloexec(fds);
  assert_int_equal(tcgetattr(fds[1], &raw), 0);
  raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
  raw.c_oflag &= ~(tcflag_t)OPOST;
  assert_int_equal(tcsetattr(fds[1], TCSANOW, &raw), 0);
}

int make_file(const void *bytes, size_t size, int flags) {
  char path[256];
  snprintf(path, sizeof path, "%s/aloop-XXXXXX", scratch());
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  for (size_t done = 0; done < size;) {
    ssize_t n = write(fd, (const char *)bytes + done, size - done);
    assert_true(n > 0);
    done += (size_t)n;
  }
  close(fd);
  fd = open(path, flags | O_CLOEXEC);
  assert_true(fd >= 0);
  unlink(path);
  return fd;
}

size_t file_content(int fd, void *into, size_t room) {
  size_t total = 0;
  for (;;) {
    ssize_t n = pread(fd, (char *)into + total, room - total, (off_t)total);
    assert_true(n >= 0);
    if (n == 0) return total;
    total += (size_t)n;
  }
}

bool is_nonblocking(int fd) {
  int status = fcntl(fd, F_GETFL);
  assert_true(status >= 0);
  return (status & O_NONBLOCK) != 0;
}

void set_nonblocking(int fd) {
  assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}
