/* SPDX-License-Identifier: MIT
 *
 * Pipes as stream transports: those that the library makes itself, and what callers' descriptors need.
 */
#ifndef ALOOP_PROCESS_PIPE_H
#define ALOOP_PROCESS_PIPE_H

#include "net/driver.h"

typedef struct aloop__pipe aloop__pipe_t;
typedef struct aloop__file aloop__file_t;

/* How bytes go through a descriptor: as read(2), -1 and errno; as aloop__driver_t.send. */
typedef struct aloop__pipe_calls {
  ssize_t (*receive)(aloop__pipe_t *pipe, void *buffer, size_t size);
  ssize_t (*send)(aloop__pipe_t *pipe, const struct iovec *iov, int count);
} aloop__pipe_calls_t;

extern const aloop__pipe_calls_t aloop__pipe_nonblocking; /* io is non-blocking */
extern const aloop__pipe_calls_t aloop__pipe_cautious; /* io may block: little is asked for, when it is ready */
extern const aloop__pipe_calls_t aloop__pipe_socket;   /* any socket: each call says not to block */

struct aloop__pipe {
  aloop_transport_t transport; /* its fd is the one that is watched, and the caller's if he gave it */
  const aloop__pipe_calls_t *calls;
  aloop__file_t *file;      /* unpolled.c: what a job moved or will move, */
  aloop_future_t *job;      /* or the job that has it */
  aloop_callback_fn closed; /* of aloop__pipe_on_close, or NULL */
  void *closed_arg;
  int io;       /* what the bytes go through: the same, or another opening of the same pipe */
  bool masks;   /* writes hold SIGPIPE back by the thread's mask */
  bool deaf;    /* nobody watches whether the reader goes */
  bool due;     /* unpolled.c: a turn is queued, */
  bool waits;   /* reads cannot be asked not to wait, */
  bool starved; /* nothing more is to be had without waiting, */
  bool alone;   /* the executor takes no jobs */
};

static inline aloop__pipe_t *aloop__pipe_of(aloop_transport_t *transport) {
  return ALOOP_CONTAINER_OF(transport, aloop__pipe_t, transport);
}

/* Pipes, FIFOs, sockets, terminals: what pollers watch. Regular files and devices that they do not. */
extern const aloop__driver_t aloop__driver_pipe;
extern const aloop__driver_t aloop__driver_unpolled;

/* A transport over an end of a pipe that the library has made itself: non-blocking, close-on-exec, owned from
 * now on. A read end refuses writes; a write end learns that its reader went, and write_eof closes it.
 * Everything else is as in aloop__stream_new: connection_made comes with the next turn, `waiter` (may be NULL)
 * is done after it; NULL: out of memory, and fd and waiter stay the caller's. */
aloop_transport_t *aloop__pipe_new(aloop_t *loop, int fd, bool read_end, const aloop_protocol_t *table,
                                   void *arg, aloop_future_t *waiter, const char *origin);

/* closed(loop, arg) is called once when the pipe is closed, after connection_lost, whatever protocol it has by
 * then, and also if connection_made was never called. */
void aloop__pipe_on_close(aloop_transport_t *transport, aloop_callback_fn closed, void *arg);

/* Chooses `calls` and `io` for a caller's descriptor whose O_NONBLOCK must stay as it is: 0 or a code.
 * aloop__pipe_close closes what it has opened. */
int aloop__pipe_open(aloop__pipe_t *pipe);

/* aloop__driver_t.adopt, give_back and close of both drivers. */
int aloop__pipe_adopt(aloop_transport_t *transport, aloop__adopted_t *before);
void aloop__pipe_give_back(aloop_transport_t *transport, const aloop__adopted_t *before);
void aloop__pipe_close(aloop_transport_t *transport);

/* Whether it is the master of a pseudo terminal, which cannot be opened again, and ends with EIO. */
bool aloop__pipe_is_master(int fd);

#endif
