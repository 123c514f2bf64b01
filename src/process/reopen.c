/* SPDX-License-Identifier: MIT
 *
 * Using a caller's descriptor without waiting, and without touching its O_NONBLOCK. That flag belongs to the
 * open file description, which stdin, stdout and stderr share with the shell and with every program of a
 * pipeline: setting it makes `cat` in the same terminal fail, and a program that dies cannot put it back.
 *
 * What is non-blocking already is used as it is, and blocks if somebody takes that back. A socket is told with
 * each call (MSG_DONTWAIT). A pipe, a FIFO or a terminal is opened once more, through /proc/self/fd or /dev/fd,
 * for a description of our own that is non-blocking; the caller's descriptor is still the one that is watched,
 * because only it knows whether a FIFO has ever had a writer, and it keeps its number. Not opened again: the
 * master of a pseudo terminal (that would make another terminal) and devices that are no terminals (opening can
 * mean anything there).
 *
 * Where that fails (a pipe of another user, no /proc; on BSD /dev/fd gives but a duplicate) the calls are
 * cautious: each asks poll(2) whether there is something to do, and asks for no more than cannot block. It
 * blocks after all if another process is quicker at the same pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/sysmacros.h>
#endif

#include "net/readiness.h"
#include "process/pipe.h"

bool aloop__pipe_is_master(int fd) {
#if defined(TIOCGPTN)
  unsigned number;
  return ioctl(fd, TIOCGPTN, &number) == 0;
#elif defined(TIOCPTMASTER)
  return ioctl(fd, TIOCPTMASTER) == 0;
#elif defined(TIOCPTYGNAME)
  char name[128];
  return ioctl(fd, TIOCPTYGNAME, name) == 0;
#else
  return isatty(fd);
#endif
}

static bool is_same(int fd, const struct stat *as) {
  struct stat info;
  return fstat(fd, &info) == 0 && info.st_dev == as->st_dev && info.st_ino == as->st_ino;
}

/* A non-blocking description of the same pipe or terminal, or -1. */
static int open_again(int fd, const struct stat *info, int direction) {
  char path[32];
#ifdef __linux__
  static const char pattern[] = "/proc/self/fd/%d";
#else
  static const char pattern[] = "/dev/fd/%d";
#endif
  if (!S_ISFIFO(info->st_mode) && (!isatty(fd) || aloop__pipe_is_master(fd))) return -1;
  snprintf(path, sizeof path, pattern, fd);
  int again = open(path, direction | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (again < 0) return -1;
  int status = fcntl(again, F_GETFL);
  if (status >= 0 && (status & O_NONBLOCK) != 0 && is_same(again, info)) return again;
  close(again);
  return -1;
}

/* Whether a device that no poller watches is known never to make its caller wait. */
static bool is_memory(const struct stat *info) {
#ifdef __linux__
  return S_ISCHR(info->st_mode) && major(info->st_rdev) == 1; /* null, zero, full */
#else
  (void)info;
  return false;
#endif
}

/* Devices differ: does the poller watch this one? */
static int ask_poller(aloop_transport_t *transport, bool reads) {
  uint32_t direction = reads ? ALOOP_READABLE : ALOOP_WRITABLE;
  int rc = aloop__readiness_watch(transport, direction, true);
  aloop__readiness_watch(transport, direction, false);
  return rc;
}

/* Where no call can say so by itself. */
static void refuse_signals(int fd) {
#ifdef SO_NOSIGPIPE
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#else
  (void)fd;
#endif
}

int aloop__pipe_open(aloop__pipe_t *pipe) {
  aloop_transport_t *transport = &pipe->transport;
  bool reads = (transport->flags & ALOOP__NO_READ) == 0;
  struct stat info;
  int status = fcntl(transport->watch.fd, F_GETFL);
  if (status < 0 || fstat(transport->watch.fd, &info) < 0) return -errno;
  pipe->io = transport->watch.fd;
  if (S_ISSOCK(info.st_mode)) {
    refuse_signals(pipe->io);
    pipe->calls = &aloop__pipe_socket;
    return 0;
  }
  int rc = S_ISREG(info.st_mode) ? ALOOP_EPERM : S_ISCHR(info.st_mode) ? ask_poller(transport, reads) : 0;
  if (rc == ALOOP_EPERM) {
    transport->driver = &aloop__driver_unpolled;
    pipe->calls = is_memory(&info) ? &aloop__pipe_nonblocking : NULL;
    return 0;
  }
  if (rc < 0) return rc;
  pipe->calls = &aloop__pipe_nonblocking;
  if (status & O_NONBLOCK) return 0;
  int again = open_again(transport->watch.fd, &info, reads ? O_RDONLY : O_WRONLY);
  if (again >= 0)
    pipe->io = again;
  else
    pipe->calls = &aloop__pipe_cautious;
  return 0;
}
