/* SPDX-License-Identifier: MIT
 *
 * Several datagrams in one system call, where the kernel has one for that.
 */
#ifndef ALOOP_NET_MMSG_H
#define ALOOP_NET_MMSG_H

#include <sys/socket.h>

#include "aloop.h"

#if ALOOP_HAVE_MMSG
typedef struct mmsghdr aloop__mmsg_t;
#else
typedef struct aloop__mmsg {
  struct msghdr msg_hdr;
  unsigned msg_len; /* bytes received */
} aloop__mmsg_t;
#endif

/* Receives (sends) at most `count` > 0 datagrams without waiting. Returns how many; ALOOP_EAGAIN if none can be
 * now, or an error that concerns the first of them. */
int aloop__mmsg_receive(int fd, aloop__mmsg_t *messages, unsigned count);
int aloop__mmsg_send(int fd, aloop__mmsg_t *messages, unsigned count);

/* The same with a system call for each. */
int aloop__mmsg_receive_each(int fd, aloop__mmsg_t *messages, unsigned count);
int aloop__mmsg_send_each(int fd, aloop__mmsg_t *messages, unsigned count);

#endif
