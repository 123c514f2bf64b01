/* SPDX-License-Identifier: MIT
 *
 * The I/O driver of pipes: a stream transport over one end of a pipe or of whatever a program's standard
 * streams may be. Reading, its budget, the outbox and the marks are those of every readiness driver
 * (net/readiness.h); what differs is here. Which system calls move the bytes, each transport has been told
 * (aloop__pipe_calls_t): by reopen.c for a caller's descriptor.
 *
 * A transport has one direction. A read end that has read EOF is at its end, whatever eof_received answers:
 * there is nothing to write. The end of a write end is its close: write_eof leads there once the outbox is
 * empty. A socket is no exception; shutting it down would take it from others who share it.
 *
 * A write end is watched for readability, which a pipe never shows but as an error: the last reader has gone.
 * That is asked from poll(2) once more, because a FIFO opened for both directions, a terminal or a socket is
 * readable when there are bytes; such a descriptor is then no longer watched, and the next write has to tell.
 *
 * SIGPIPE never reaches the host. Where the kernel knows RWF_NOSIGNAL (Linux 6.18) that costs no call, though
 * 45 ns more than write(2), 5 more than writev; elsewhere the signal is held back around each write
 * (net/sigpipe.c), which is two system calls more. Which of them it is, each transport finds out with its first
 * write. To ask whether the process ignores the signal takes 200 ns, and another thread may change it before
 * the write; to block it for a whole run would keep it from the caller's own writes, and be inherited by the
 * threads that callbacks start.
 *
 * A lone message of 64 bytes on its way through two transports takes 302 instructions, in a bare loop with the
 * same number of calls 106; that is why its CPU time is 1.10 of the bare one's.
 */
#include "process/pipe.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/readiness.h"
#include "net/sigpipe.h"

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100 /* newer than many a header */
#endif
#ifndef PIPE_BUF
#define PIPE_BUF 512
#endif

/* ---- Non-blocking ---------------------------------------------------------------------------------------- */

/* A terminal whose other side has hung up says so with an error. */
static ALOOP_NOINLINE ssize_t read_none(const aloop__pipe_t *pipe) {
  int error = errno;
  if (error == EIO && aloop__pipe_is_master(pipe->io)) return 0;
  errno = error;
  return -1;
}

static inline ssize_t read_now(aloop__pipe_t *pipe, void *buffer, size_t size) {
  ssize_t n = read(pipe->io, buffer, size);
  return ALOOP_LIKELY(n >= 0) ? n : read_none(pipe);
}

static ALOOP_NOINLINE ssize_t write_masked(int fd, const struct iovec *iov, int count) {
  aloop__sigpipe_t held;
  aloop__sigpipe_hold(&held);
  ssize_t n = writev(fd, iov, count);
  aloop__sigpipe_release(&held, n < 0 || (size_t)n < aloop__iov_total(iov, count));
  return aloop__readiness_result(n);
}

static inline ssize_t write_now(aloop__pipe_t *pipe, const struct iovec *iov, int count) {
#if ALOOP_HAVE_PWRITEV2
  if (!pipe->masks) {
    ssize_t n = pwritev2(pipe->io, iov, count, -1, RWF_NOSIGNAL);
    /* EPERM is how some container filters refuse a system call they do not know. */
    if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL && errno != EPERM))
      return aloop__readiness_result(n);
    pipe->masks = true;
  }
#endif
  return write_masked(pipe->io, iov, count);
}

const aloop__pipe_calls_t aloop__pipe_nonblocking = {.receive = read_now, .send = write_now};

/* ---- Cautious -------------------------------------------------------------------------------------------- */

static bool is_ready(int fd, short events) {
  struct pollfd look = {.fd = fd, .events = events};
  return poll(&look, 1, 0) == 1;
}

static ssize_t read_cautiously(aloop__pipe_t *pipe, void *buffer, size_t size) {
  if (is_ready(pipe->io, POLLIN)) return read_now(pipe, buffer, size);
  errno = EAGAIN;
  return -1;
}

/* A pipe that is writable has room for PIPE_BUF bytes; a terminal promises less. */
static ssize_t write_cautiously(aloop__pipe_t *pipe, const struct iovec *iov, int count) {
  enum { TERMINAL_ROOM = 256 };
  size_t most = isatty(pipe->io) ? TERMINAL_ROOM : PIPE_BUF;
  if (!is_ready(pipe->io, POLLOUT)) return ALOOP_EAGAIN;
  while (count > 1 && iov->iov_len == 0) iov++, count--;
  int whole = 0;
  size_t size = 0;
  while (whole < count && size + iov[whole].iov_len <= most) size += iov[whole++].iov_len;
  if (size > 0) return write_now(pipe, iov, whole);
  struct iovec part = {.iov_base = iov->iov_base, .iov_len = most};
  return write_now(pipe, &part, 1);
}

const aloop__pipe_calls_t aloop__pipe_cautious = {.receive = read_cautiously, .send = write_cautiously};

/* ---- Sockets --------------------------------------------------------------------------------------------- */

static ssize_t receive_now(aloop__pipe_t *pipe, void *buffer, size_t size) {
  return recv(pipe->io, buffer, size, MSG_DONTWAIT);
}

static ssize_t send_now(aloop__pipe_t *pipe, const struct iovec *iov, int count) {
  struct msghdr message = {.msg_iov = (struct iovec *)iov};
  message.msg_iovlen = (unsigned char)count;
  return aloop__readiness_result(sendmsg(pipe->io, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
}

const aloop__pipe_calls_t aloop__pipe_socket = {.receive = receive_now, .send = send_now};

/* ---- Events ---------------------------------------------------------------------------------------------- */

/* Pipes are what there is most of: their calls are made from here without a detour. */
static inline ssize_t receive(aloop_transport_t *transport, void *buffer, size_t size) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (ALOOP_LIKELY(pipe->calls == &aloop__pipe_nonblocking)) return read_now(pipe, buffer, size);
  return pipe->calls->receive(pipe, buffer, size);
}

static ssize_t send_parts(aloop_transport_t *transport, const struct iovec *iov, int count) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (ALOOP_LIKELY(pipe->calls == &aloop__pipe_nonblocking)) return write_now(pipe, iov, count);
  return pipe->calls->send(pipe, iov, count);
}

static ALOOP_NOINLINE void read_on(aloop_transport_t *transport, aloop__net_t *net) {
  aloop__readiness_read_on(transport, net, receive, send_parts);
}

/* A write end is "readable". */
static ALOOP_NOINLINE void look_for_reader(aloop_transport_t *transport) {
  struct pollfd look = {.fd = transport->watch.fd};
  bool unsent = aloop__stream_has_unsent(transport);
  int n = poll(&look, 1, 0);
  if (n > 0) aloop__stream_end(transport, unsent ? ALOOP_EPIPE : 0);
  if (n != 0) return; /* poll did not answer: the event comes again */
  aloop__pipe_of(transport)->deaf = true;
  aloop__readiness_watch(transport, ALOOP_READABLE, false);
}

static void readable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  if (transport->flags & ALOOP__NO_READ)
    look_for_reader(transport);
  else
    aloop__readiness_readable(loop, transport, receive, send_parts, read_on);
}

static void writable(aloop_t *loop, void *arg) {
  aloop__readiness_writable(loop, ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch), send_parts);
}

/* A write end begins to be watched when it is told, as every transport is after connection_made, not to read. A
 * poller that cannot do that does without. */
static int set_reading(aloop_transport_t *transport, bool on) {
  if ((transport->flags & ALOOP__NO_READ) == 0) return aloop__readiness_read(transport, on);
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (pipe->deaf) return 0;
  int rc = aloop__readiness_read(transport, true);
  if (rc < 0 && rc != ALOOP_ENOMEM) pipe->deaf = true;
  return rc == ALOOP_ENOMEM ? rc : 0;
}

static ssize_t send_file(aloop_transport_t *transport, int file, int64_t offset, int64_t count) {
  const aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (pipe->calls != &aloop__pipe_nonblocking) return ALOOP_ENOTSUP; /* it could block */
  return aloop__readiness_send_file(pipe->io, file, offset, count);
}

static int splice_fd(const aloop_transport_t *transport) {
  const aloop__pipe_t *pipe = ALOOP_CONTAINER_OF(transport, aloop__pipe_t, transport);
  return pipe->calls == &aloop__pipe_nonblocking ? pipe->io : -1; /* others could block */
}

static int send_eof(aloop_transport_t *transport) {
  aloop__stream_end(transport, 0);
  return 0;
}

/* ---- Descriptors ----------------------------------------------------------------------------------------- */

static const aloop__watch_ops_t ops = {.name = "pipe", .readable = readable, .writable = writable};

static int attach(aloop_transport_t *transport) {
  return aloop__readiness_attach(transport, &ops);
}

/* Standard streams stay open in programs that are executed. */
int aloop__pipe_adopt(aloop_transport_t *transport, aloop__adopted_t *before) {
  before->flags = fcntl(transport->watch.fd, F_GETFD);
  if (before->flags < 0) return -errno;
  int rc = aloop__pipe_open(aloop__pipe_of(transport));
  if (rc == 0 && transport->watch.fd > STDERR_FILENO)
    fcntl(transport->watch.fd, F_SETFD, before->flags | FD_CLOEXEC);
  return rc;
}

static void close_own(aloop__pipe_t *pipe) {
  if (pipe->io != pipe->transport.watch.fd) close(pipe->io);
  pipe->io = pipe->transport.watch.fd;
}

void aloop__pipe_give_back(aloop_transport_t *transport, const aloop__adopted_t *before) {
  close_own(aloop__pipe_of(transport));
  fcntl(transport->watch.fd, F_SETFD, before->flags);
}

void aloop__pipe_close(aloop_transport_t *transport) {
  if (transport->flags & ALOOP__BORROWED) return;
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  close_own(pipe);
  close(transport->watch.fd);
  if (pipe->closed != NULL) pipe->closed(transport->object.loop, pipe->closed_arg);
}

void aloop__pipe_on_close(aloop_transport_t *transport, aloop_callback_fn closed, void *arg) {
  aloop__pipe_of(transport)->closed = closed;
  aloop__pipe_of(transport)->closed_arg = arg;
}

const aloop__driver_t aloop__driver_pipe = {
    .name = "pipe",
    .transport_size = sizeof(aloop__pipe_t),
    .adopt = aloop__pipe_adopt,
    .give_back = aloop__pipe_give_back,
    .close = aloop__pipe_close,
    .attach = attach,
    .detach = aloop__readiness_detach,
    .read = set_reading,
    .send = send_parts,
    .flush = aloop__readiness_flush,
    .send_eof = send_eof,
    .sendfile = send_file,
    .splice_fd = splice_fd,
    .await_room = aloop__readiness_flush,
};

aloop_transport_t *aloop__pipe_new(aloop_t *loop, int fd, bool read_end, const aloop_protocol_t *table,
                                   void *arg, aloop_future_t *waiter, const char *origin) {
  aloop_transport_t *transport =
      aloop__stream_new(loop, &aloop__driver_pipe, fd, table, arg, NULL, waiter, origin);
  if (transport == NULL) return NULL;
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  transport->flags |= read_end ? ALOOP__NO_WRITE : ALOOP__NO_READ;
  pipe->calls = &aloop__pipe_nonblocking;
  pipe->io = fd;
  return transport;
}
