/* SPDX-License-Identifier: MIT
 *
 * Stands in for send and sendmsg, so that a test can count them and decide how much a socket takes. It
 * defines both functions: one file of a program may include it.
 */
#ifndef WIRE_H
#define WIRE_H

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>

#include "streams.h"

static struct {
  long calls;   /* that were tried */
  bool limited; /* the socket takes only... */
  size_t allow; /* ... so many bytes more */
  int error;    /* ... or fails with this */
} wire;

static inline void limit(size_t bytes) {
  wire.limited = true;
  wire.allow = bytes;
}

static inline void lift_limit(void) {
  wire.limited = false;
}

/* How many of `size` bytes to send: 0 with errno set if none. */
static size_t grant(size_t size) {
  wire.calls++;
  if (wire.error != 0) {
    errno = wire.error;
    return 0;
  }
  if (!wire.limited) return size;
  size_t n = size < wire.allow ? size : wire.allow;
  wire.allow -= n;
  if (n == 0) errno = EAGAIN;
  return n;
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  size_t n = grant(size);
  return n == 0 && size > 0 ? -1 : sendto(fd, data, n, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  static ssize_t (*real)(int, const struct msghdr *, int);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, CALLED_SENDMSG);
    memcpy(&real, &symbol, sizeof real);
  }
  struct iovec parts[IOV_MAX];
  struct msghdr cut = *message;
  size_t size = 0;
  for (size_t i = 0; i < (size_t)message->msg_iovlen; i++) size += message->msg_iov[i].iov_len;
  size_t n = grant(size);
  if (n == 0 && size > 0) return -1;
  size_t count = 0;
  for (size_t left = n; left > 0; count++) {
    parts[count] = message->msg_iov[count];
    if (parts[count].iov_len > left) parts[count].iov_len = left;
    left -= parts[count].iov_len;
  }
  cut.msg_iov = parts;
  cut.msg_iovlen = (unsigned short)count;
  return real(fd, &cut, flags);
}

/* Lets exactly so many bytes go, in as many turns as that takes. */
static inline void let_go(tape_t *tape, size_t bytes) {
  limit(bytes);
  for (int i = 0; i < 3 || wire.allow > 0; i++) assert_true(aloop_run_once(tape->env->loop, 0) >= 0);
}

#endif
