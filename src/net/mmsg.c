/* SPDX-License-Identifier: MIT
 *
 * Several datagrams in one system call: recvmmsg and sendmmsg where they exist, a loop over recvmsg and sendmsg
 * elsewhere, which is also the shorter way for a single datagram.
 *
 * An error can be told only for the first datagram of a call. When a later one fails the count of those before
 * it is returned, and the error comes with the next call: a failed send fails again, and the kernel keeps the
 * error of a receive for that purpose. A signal counts as "not now".
 */
#include "net/mmsg.h"

#include <errno.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static int failure(void) {
  return errno == EWOULDBLOCK || errno == EINTR ? ALOOP_EAGAIN : -errno;
}

int aloop__mmsg_receive_each(int fd, aloop__mmsg_t *messages, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    ssize_t n = recvmsg(fd, &messages[i].msg_hdr, 0);
    if (n < 0) return i > 0 ? (int)i : failure();
    messages[i].msg_len = (unsigned)n;
  }
  return (int)count;
}

int aloop__mmsg_send_each(int fd, aloop__mmsg_t *messages, unsigned count) {
  for (unsigned i = 0; i < count; i++)
    if (sendmsg(fd, &messages[i].msg_hdr, MSG_NOSIGNAL) < 0) return i > 0 ? (int)i : failure();
  return (int)count;
}

int aloop__mmsg_receive(int fd, aloop__mmsg_t *messages, unsigned count) {
#if ALOOP_HAVE_MMSG
  if (count > 1) {
    int n = recvmmsg(fd, messages, count, 0, NULL);
    return n < 0 ? failure() : n;
  }
#endif
  return aloop__mmsg_receive_each(fd, messages, count);
}

int aloop__mmsg_send(int fd, aloop__mmsg_t *messages, unsigned count) {
#if ALOOP_HAVE_MMSG
  if (count > 1) {
    int n = sendmmsg(fd, messages, count, MSG_NOSIGNAL);
    return n < 0 ? failure() : n;
  }
#endif
  return aloop__mmsg_send_each(fd, messages, count);
}
