/* SPDX-License-Identifier: MIT
 *
 * The standard descriptors of a child: pipes are made, /dev/null is opened, and everything comes down to three
 * numbers that the child moves into place (spawn.c).
 *
 * What is made here never has a number below 3, even if this process has closed its own standard descriptors:
 * otherwise a pipe could stand where the child is to inherit, and the child would get what is not meant for it.
 * All is close-on-exec from birth where the system can do that. Only this process's end of a pipe is
 * non-blocking; the child gets an ordinary one, as programs expect.
 */
#include "process/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int aloop__stdio_move_up(int fd) {
  if (fd < 0 || fd > 2) return fd < 0 ? -errno : fd;
  int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  int error = errno;
  close(fd);
  return moved < 0 ? -error : moved;
}

static int raw_pipe(int ends[2]) {
#if ALOOP_HAVE_PIPE2
  return pipe2(ends, O_CLOEXEC);
#else
  if (pipe(ends) < 0) return -1;
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  return 0;
#endif
}

int aloop__stdio_pipe(int ends[2]) {
  if (raw_pipe(ends) < 0) return -errno;
  ends[0] = aloop__stdio_move_up(ends[0]);
  ends[1] = aloop__stdio_move_up(ends[1]);
  if (ends[0] >= 0 && ends[1] >= 0) return 0;
  int rc = ends[0] < 0 ? ends[0] : ends[1];
  if (ends[0] >= 0) close(ends[0]);
  if (ends[1] >= 0) close(ends[1]);
  return rc;
}

static int make_pipe(aloop__stdio_t *stdio, int i) {
  int ends[2];
  int rc = aloop__stdio_pipe(ends);
  if (rc < 0) return rc;
  stdio->child[i] = ends[i == 0 ? 0 : 1];
  stdio->parent[i] = ends[i == 0 ? 1 : 0];
  stdio->made[i] = true;
  if (fcntl(stdio->parent[i], F_SETFL, fcntl(stdio->parent[i], F_GETFL) | O_NONBLOCK) == 0) return 0;
  return -errno;
}

static int open_null(aloop__stdio_t *stdio, int i) {
  int fd;
  do fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  fd = aloop__stdio_move_up(fd);
  if (fd < 0) return fd;
  stdio->child[i] = fd;
  stdio->made[i] = true;
  return 0;
}

static int open_one(aloop__stdio_t *stdio, const aloop_stdio_t *choice, int i) {
  switch (choice->kind) {
  case ALOOP_STDIO_PIPE:
    return make_pipe(stdio, i);
  case ALOOP_STDIO_DEVNULL:
    return open_null(stdio, i);
  case ALOOP_STDIO_STDOUT:
    stdio->child[i] = stdio->child[1];
    return 0;
  case ALOOP_STDIO_FD:
    stdio->child[i] = choice->fd;
    return 0;
  default: /* ALOOP_STDIO_INHERIT */
    stdio->child[i] = i;
    return 0;
  }
}

static bool is_kind(int kind) {
  return kind >= ALOOP_STDIO_PIPE && kind <= ALOOP_STDIO_FD;
}

const char *aloop__stdio_fault(const aloop_process_options_t *options) {
  if (!is_kind(options->in.kind) || !is_kind(options->out.kind) || !is_kind(options->err.kind))
    return "the kind of options.in, out and err is one of ALOOP_STDIO_...";
  if (options->in.kind == ALOOP_STDIO_STDOUT || options->out.kind == ALOOP_STDIO_STDOUT)
    return "ALOOP_STDIO_STDOUT is for options.err only";
  return NULL;
}

int aloop__stdio_open(const aloop_process_options_t *options, aloop__stdio_t *stdio, int *which) {
  const aloop_stdio_t *choices[3] = {&options->in, &options->out, &options->err};
  *stdio = (aloop__stdio_t){.child = {0, 1, 2}, .parent = {-1, -1, -1}};
  /* Before a number that is not open becomes that of a pipe. */
  for (*which = 0; *which < 3; ++*which)
    if (choices[*which]->kind == ALOOP_STDIO_FD && fcntl(choices[*which]->fd, F_GETFD) < 0) return -errno;
  for (int i = 0; i < 3; i++) {
    int rc = open_one(stdio, choices[i], i);
    if (rc == 0) continue;
    *which = i;
    aloop__stdio_close_child(stdio);
    aloop__stdio_close_parent(stdio);
    return rc;
  }
  return 0;
}

void aloop__stdio_close_child(aloop__stdio_t *stdio) {
  for (int i = 0; i < 3; i++) {
    if (stdio->made[i]) close(stdio->child[i]);
    stdio->made[i] = false;
  }
}

void aloop__stdio_close_parent(aloop__stdio_t *stdio) {
  for (int i = 0; i < 3; i++) {
    if (stdio->parent[i] >= 0) close(stdio->parent[i]);
    stdio->parent[i] = -1;
  }
}
