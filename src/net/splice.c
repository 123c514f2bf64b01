/* SPDX-License-Identifier: MIT
 *
 * splice(2): from a socket into a pipe and from the pipe into another socket, without a copy. The pipe takes
 * references to the pages that the network card or the sending process has filled.
 *
 * A pipe is needed only while there are bytes in it, which for most is a moment: it is filled and emptied in
 * one go. So pipes are lent, and those given back wait for the next in a list of the loop. What costs
 * descriptors is not how many relays there are but how many of their sinks are full.
 *
 * A pipe has 256 KiB: with the usual 64 the kernel has to be asked more often (a third more time per byte was
 * measured), with more nothing is gained, and the kernel lets a user have 64 MiB of pipes before it makes new
 * ones tiny. A pipe that may not grow is used as it is.
 *
 * Pipes made before a fork are closed by the child: what one process put in, the other could take out.
 */
#include "net/splice.h"

#include "core/loop.h"
#include "core/memory.h"
#include "net/driver.h"
#include "net/readiness.h"
#include "net/sigpipe.h"

#if ALOOP_HAVE_SPLICE

#include <fcntl.h>
#include <unistd.h>

enum { KEPT = 8 }; /* at most so many wait */

struct aloop__splice_pipe {
  aloop__splice_pipe_t *next;
  unsigned forks;
  int out, in;
};

static void drop(aloop_t *loop, aloop__splice_pipe_t *pipe) {
  close(pipe->out);
  close(pipe->in);
  aloop__memory_release(loop, pipe);
}

static aloop__splice_pipe_t *make(aloop_t *loop) {
  int ends[2];
  aloop__splice_pipe_t *made = aloop__memory_new(loop, sizeof *made);
  if (made == NULL) return NULL;
  if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) {
    aloop__memory_release(loop, made);
    return NULL;
  }
  fcntl(ends[1], F_SETPIPE_SZ, ALOOP__SPLICE_SIZE);
  *made = (aloop__splice_pipe_t){.forks = aloop__current_forks(), .out = ends[0], .in = ends[1]};
  return made;
}

aloop__splice_pipe_t *aloop__splice_take(aloop_t *loop) {
  aloop__net_t *net = aloop__net_of(loop);
  while (net->pipes != NULL) {
    aloop__splice_pipe_t *pipe = net->pipes;
    net->pipes = pipe->next;
    net->pipes_count--;
    if (pipe->forks == aloop__current_forks()) return pipe;
    drop(loop, pipe);
  }
  return make(loop);
}

void aloop__splice_give(aloop_t *loop, aloop__splice_pipe_t *pipe, bool empty) {
  aloop__net_t *net = aloop__net_of(loop);
  if (!empty || net == NULL || net->pipes_count >= KEPT) {
    drop(loop, pipe);
    return;
  }
  pipe->next = net->pipes;
  net->pipes = pipe;
  net->pipes_count++;
}

void aloop__splice_close(aloop_t *loop, aloop__splice_pipe_t *pipes) {
  while (pipes != NULL) {
    aloop__splice_pipe_t *pipe = pipes;
    pipes = pipe->next;
    drop(loop, pipe);
  }
}

static ssize_t result(ssize_t n) {
  if (n < 0 && (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) return ALOOP_ENOTSUP;
  return aloop__readiness_result(n);
}

/* The pipe has room, so that EAGAIN speaks of the descriptor. */
ssize_t aloop__splice_in(int fd, aloop__splice_pipe_t *pipe) {
  return result(splice(fd, NULL, pipe->in, NULL, ALOOP__SPLICE_SIZE, SPLICE_F_NONBLOCK));
}

ssize_t aloop__splice_out(aloop__splice_pipe_t *pipe, int fd, size_t size) {
  aloop__sigpipe_t held;
  aloop__sigpipe_hold(&held); /* splice knows no MSG_NOSIGNAL */
  ssize_t n = splice(pipe->out, NULL, fd, NULL, size, SPLICE_F_NONBLOCK);
  aloop__sigpipe_release(&held, n != (ssize_t)size);
  return result(n);
}

/* The bytes are there: what says otherwise is tried again, within reason. */
ssize_t aloop__splice_read(aloop__splice_pipe_t *pipe, void *into, size_t room) {
  ssize_t n = -1;
  for (int tries = 0; tries < 10 && n < 0; tries++) {
    n = read(pipe->out, into, room);
    if (n < 0 && !aloop__readiness_is_retry(errno)) return -errno;
  }
  return n < 0 ? ALOOP_EIO : n;
}

#else

aloop__splice_pipe_t *aloop__splice_take(aloop_t *loop) {
  (void)loop;
  return NULL;
}

void aloop__splice_give(aloop_t *loop, aloop__splice_pipe_t *pipe, bool empty) {
  (void)loop, (void)pipe, (void)empty;
}

void aloop__splice_close(aloop_t *loop, aloop__splice_pipe_t *pipes) {
  (void)loop, (void)pipes;
}

ssize_t aloop__splice_in(int fd, aloop__splice_pipe_t *pipe) {
  (void)fd, (void)pipe;
  return ALOOP_ENOTSUP;
}

ssize_t aloop__splice_out(aloop__splice_pipe_t *pipe, int fd, size_t size) {
  (void)pipe, (void)fd, (void)size;
  return ALOOP_ENOTSUP;
}

ssize_t aloop__splice_read(aloop__splice_pipe_t *pipe, void *into, size_t room) {
  (void)pipe, (void)into, (void)room;
  return ALOOP_ENOTSUP;
}

#endif
