/* SPDX-License-Identifier: MIT
 *
 * The I/O driver of pipes: a stream transport over one end, with read(2) and writev(2) where sockets have recv
 * and send. Reading, its budget, the outbox and the marks are those of every readiness driver
 * (net/readiness.h); what differs is here.
 *
 * A transport has one direction. A read end that has read EOF is at its end, whatever eof_received answers:
 * there is nothing to write. The end of a write end is its close: write_eof leads there once the outbox is
 * empty.
 *
 * A write end is watched for readability, which never comes but as an error: the last reader has gone. That is
 * asked from poll(2) once more, because a FIFO opened for both directions is readable when it has bytes; such a
 * descriptor is then no longer watched, and the next write has to tell.
 *
 * SIGPIPE never reaches the host. Where the kernel knows RWF_NOSIGNAL (Linux 6.18) that costs nothing;
 * elsewhere the signal is held back around each write (net/sigpipe.c), two system calls. Which of them it is,
 * each transport finds out with its first write.
 */
#include "process/pipe.h"

#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/readiness.h"
#include "net/sigpipe.h"

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100 /* newer than many a header */
#endif

typedef struct pipe_end {
  aloop_transport_t transport;
  bool masks; /* writes hold SIGPIPE back by the thread's mask */
  bool deaf;  /* its reader's end is not watched for */
} pipe_end_t;

static pipe_end_t *of(aloop_transport_t *transport) {
  return ALOOP_CONTAINER_OF(transport, pipe_end_t, transport);
}

/* ---- Bytes ----------------------------------------------------------------------------------------------- */

static inline ssize_t receive(aloop_transport_t *transport, void *buffer, size_t size) {
  return read(transport->fd, buffer, size);
}

static size_t total_of(const struct iovec *iov, int count) {
  size_t total = 0;
  for (int i = 0; i < count; i++) total += iov[i].iov_len;
  return total;
}

static ssize_t write_masked(int fd, const struct iovec *iov, int count) {
  aloop__sigpipe_t held;
  aloop__sigpipe_hold(&held);
  ssize_t n = writev(fd, iov, count);
  aloop__sigpipe_release(&held, n < 0 || (size_t)n < total_of(iov, count));
  return n;
}

static ssize_t send_now(aloop_transport_t *transport, const struct iovec *iov, int count) {
#if ALOOP_HAVE_PWRITEV2
  if (!of(transport)->masks) {
    ssize_t n = pwritev2(transport->fd, iov, count, -1, RWF_NOSIGNAL);
    /* EPERM is how some container filters refuse a system call they do not know. */
    if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL && errno != EPERM))
      return aloop__readiness_result(n);
    of(transport)->masks = true;
  }
#endif
  return aloop__readiness_result(write_masked(transport->fd, iov, count));
}

/* ---- Events ---------------------------------------------------------------------------------------------- */

static ALOOP_NOINLINE void read_on(aloop_transport_t *transport, aloop__net_t *net, size_t budget) {
  aloop__readiness_read_on(transport, net, budget, receive, send_now);
}

/* A write end is "readable". */
static ALOOP_NOINLINE void look_for_reader(aloop_transport_t *transport) {
  struct pollfd look = {.fd = transport->fd};
  bool unsent = transport->outbox.size > 0 || (transport->flags & ALOOP__SENDFILE);
  if (poll(&look, 1, 0) == 1) {
    aloop__stream_end(transport, unsent ? ALOOP_EPIPE : 0);
    return;
  }
  of(transport)->deaf = true;
  aloop__readiness_watch(transport, ALOOP_READABLE, false);
}

static void readable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  if (transport->flags & ALOOP__NO_READ)
    look_for_reader(transport);
  else
    aloop__readiness_readable(loop, transport, receive, send_now, read_on);
}

static void writable(aloop_t *loop, void *arg) {
  aloop__readiness_writable(loop, ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch), send_now);
}

/* A write end begins to be watched when it is told, as every transport is after connection_made, not to read. A
 * poller that cannot do that does without. */
static int set_reading(aloop_transport_t *transport, bool on) {
  if ((transport->flags & ALOOP__NO_READ) == 0) return aloop__readiness_read(transport, on);
  if (of(transport)->deaf) return 0;
  int rc = aloop__readiness_read(transport, true);
  if (rc < 0 && rc != ALOOP_ENOMEM) of(transport)->deaf = true;
  return rc == ALOOP_ENOMEM ? rc : 0;
}

static ssize_t send_file(aloop_transport_t *transport, int file, int64_t offset, int64_t count) {
  return aloop__readiness_send_file(transport->fd, file, offset, count);
}

static int send_eof(aloop_transport_t *transport) {
  aloop__stream_end(transport, 0);
  return 0;
}

static const aloop__watch_ops_t ops = {.name = "pipe", .readable = readable, .writable = writable};

static int attach(aloop_transport_t *transport) {
  return aloop__readiness_attach(transport, &ops);
}

static void close_fd(aloop_transport_t *transport) {
  close(transport->fd);
}

static const aloop__driver_t driver = {
    .name = "pipe",
    .transport_size = sizeof(pipe_end_t),
    .close = close_fd,
    .attach = attach,
    .detach = aloop__readiness_detach,
    .read = set_reading,
    .send = send_now,
    .flush = aloop__readiness_flush,
    .send_eof = send_eof,
    .sendfile = send_file,
    .await_room = aloop__readiness_flush,
};

aloop_transport_t *aloop__pipe_new(aloop_t *loop, int fd, bool read_end, const aloop_protocol_t *table,
                                   void *arg, aloop_future_t *waiter, const char *origin) {
  aloop_transport_t *transport = aloop__stream_new(loop, &driver, fd, table, arg, NULL, waiter, origin);
  if (transport != NULL) transport->flags |= read_end ? ALOOP__NO_WRITE : ALOOP__NO_READ;
  return transport;
}
