/* SPDX-License-Identifier: MIT
 *
 * Pipes through which bytes go from one descriptor to another inside the kernel. See splice.c.
 */
#ifndef ALOOP_NET_SPLICE_H
#define ALOOP_NET_SPLICE_H

#include "aloop.h"

typedef struct aloop__splice_pipe aloop__splice_pipe_t;

enum { ALOOP__SPLICE_SIZE = 262144 }; /* of a pipe */

/* An empty pipe, to be given back. NULL: there is none to be had. */
aloop__splice_pipe_t *aloop__splice_take(aloop_t *loop);

/* Gives it back; one that is not `empty` is closed. */
void aloop__splice_give(aloop_t *loop, aloop__splice_pipe_t *pipe, bool empty);

/* Moves what is there from `fd` into an empty pipe; moves `size` bytes out. Returns how many were moved (0 in:
 * EOF), ALOOP_EAGAIN, ALOOP_ENOTSUP if this descriptor cannot, or another code. */
ssize_t aloop__splice_in(int fd, aloop__splice_pipe_t *pipe);
ssize_t aloop__splice_out(aloop__splice_pipe_t *pipe, int fd, size_t size);

/* Reads bytes back out of it: as read(2), with a code. */
ssize_t aloop__splice_read(aloop__splice_pipe_t *pipe, void *into, size_t room);

/* Closes those that nobody uses. */
void aloop__splice_close(aloop_t *loop, aloop__splice_pipe_t *pipes);

#endif
