/* SPDX-License-Identifier: MIT
 *
 * The readiness driver: transports and listeners over a poller that tells when a descriptor may be read or
 * written.
 *
 * Reading: one recv into the loop's shared buffer per event; only a read that filled the buffer is followed by
 * another, up to a budget per turn, so a short read costs no extra call to learn that nothing is left, and one
 * busy connection cannot starve the rest. Writing: a send is tried at once; only when the socket is full is the
 * watch widened to writability, and narrowed again when the outbox is empty. Accepting: accept4 until it would
 * block or the budget is used up.
 *
 * EINTR counts as "not now": the poller will say so again.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#if ALOOP_HAVE_LINUX_SENDFILE
#include <pthread.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <time.h>
#endif

#include "net/driver.h"
#include "net/listener.h"
#include "net/write.h"

enum { FLUSH_PARTS = 64, ACCEPT_BUDGET = 64, SENDFILE_MAX = 0x7ffff000 };

/* Of a read, in bytes of the budget: a tiny buffer must not mean a quarter of a million system calls. */
enum { LEAST_COST = 4096 };

/* BSD has a socket option instead, set when the transport is made. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

void aloop__stream_set_nodelay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
}

static bool is_retry(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static ssize_t result_of(ssize_t n) {
  if (n >= 0) return n;
  return is_retry(errno) ? ALOOP_EAGAIN : -errno;
}

static inline ssize_t send_now(aloop_transport_t *transport, const struct iovec *iov, int count) {
  if (ALOOP_LIKELY(count == 1))
    return result_of(send(transport->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL));
  struct msghdr message = {.msg_iov = (struct iovec *)iov};
  message.msg_iovlen = (unsigned char)count;
  return result_of(sendmsg(transport->fd, &message, MSG_NOSIGNAL));
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

/* recv brought no bytes: EOF, nothing yet, or an error. */
static ALOOP_NOINLINE void received_none(aloop_transport_t *transport, ssize_t n) {
  if (n == 0)
    aloop__stream_received_eof(transport);
  else if (!is_retry(errno))
    aloop__stream_end(transport, -errno);
}

/* One read into a buffered protocol's memory. Returns whether there may be more. */
static bool read_buffered(aloop_transport_t *transport, aloop__net_t *net, size_t *budget) {
  void *buffer;
  size_t size;
  int rc = aloop__stream_get_buffer(transport, &buffer, &size);
  if (rc < 0) aloop__stream_end(transport, rc);
  if (rc <= 0) return false;
  ssize_t n = recv(transport->fd, buffer, size, 0);
  if (n <= 0) {
    received_none(transport, n);
    return false;
  }
  aloop__stream_received(transport, &net->cork, buffer, (size_t)n, send_now);
  size_t cost = n > LEAST_COST ? (size_t)n : LEAST_COST;
  if ((size_t)n < size || cost >= *budget) return false;
  *budget -= cost;
  return aloop__stream_wants_read(transport);
}

/* One read into the shared buffer. Returns whether it was filled: there may be more. */
ALOOP_INLINE bool read_shared(aloop_transport_t *transport, aloop__net_t *net) {
  ssize_t n = recv(transport->fd, net->read_buffer, ALOOP__READ_SIZE, 0);
  if (ALOOP_UNLIKELY(n <= 0)) {
    received_none(transport, n);
    return false;
  }
  aloop__stream_received(transport, &net->cork, net->read_buffer, (size_t)n, send_now);
  return n == ALOOP__READ_SIZE;
}

/* The rest of a turn's reading, for a buffered protocol or behind a full buffer. The protocol may change
 * between two reads. */
static ALOOP_NOINLINE void read_on(aloop_transport_t *transport, aloop__net_t *net, size_t budget) {
  bool more = aloop__stream_wants_read(transport);
  while (more) {
    if (transport->table->get_buffer != NULL) {
      more = read_buffered(transport, net, &budget);
    } else {
      more = budget >= ALOOP__READ_SIZE && read_shared(transport, net) && aloop__stream_wants_read(transport);
      budget -= more ? ALOOP__READ_SIZE : 0;
    }
  }
}

/* No reference is needed: the loop's own lasts until the queued connection_lost ran, which is never inside this
 * call. */
static void readable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  aloop__net_t *net = aloop__net_of(loop);
  if (ALOOP_UNLIKELY(transport->context != NULL)) loop->context = aloop__map_ref(transport->context);
  if (ALOOP_UNLIKELY(transport->table->get_buffer != NULL))
    read_on(transport, net, ALOOP__READ_BUDGET);
  else if (ALOOP_UNLIKELY(read_shared(transport, net)))
    read_on(transport, net, ALOOP__READ_BUDGET - ALOOP__READ_SIZE);
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

static int watch_writable(aloop_transport_t *transport, bool on) {
  uint32_t interest = transport->watch.interest & ~(uint32_t)ALOOP_WRITABLE;
  return aloop__watch_set(transport->object.loop, &transport->watch, interest | (on ? ALOOP_WRITABLE : 0u));
}

static void write_outbox(aloop_transport_t *transport) {
  struct iovec iov[FLUSH_PARTS];
  while (transport->outbox.size > 0) {
    size_t before = transport->outbox.size;
    int count = aloop__outbox_peek(&transport->outbox, iov, FLUSH_PARTS);
    ssize_t n = send_now(transport, iov, count);
    if (n == ALOOP_EAGAIN) return;
    if (n < 0) {
      aloop__stream_end(transport, (int)n);
      return;
    }
    size_t offered = 0;
    for (int i = 0; i < count; i++) offered += iov[i].iov_len;
    aloop__stream_sent(transport, (size_t)n);
    /* A part means a full socket; a caller that wrote meanwhile gets its turn with the next event. */
    if ((size_t)n < offered || transport->outbox.size > before - (size_t)n) return;
  }
}

static void writable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  if (ALOOP_UNLIKELY(transport->context != NULL)) loop->context = aloop__map_ref(transport->context);
  if (transport->outbox.size > 0)
    write_outbox(transport);
  else if (transport->flags & ALOOP__SENDFILE)
    aloop__sendfile_go_on(transport);
  if (transport->state < ALOOP__ENDING && transport->outbox.size == 0 && !(transport->flags & ALOOP__SENDFILE))
    watch_writable(transport, false);
}

static int flush(aloop_transport_t *transport) {
  return watch_writable(transport, true);
}

#if ALOOP_HAVE_LINUX_SENDFILE
/* sendfile knows no MSG_NOSIGNAL. The SIGPIPE of a connection that is gone, which comes also when some bytes
 * were taken before, is held back in this thread and taken away, unless one was waiting already. */
static ssize_t sendfile_without_signal(int fd, int file, off_t *at, size_t count) {
  const struct timespec at_once = {0};
  sigset_t mask, before, pending;
  sigemptyset(&mask);
  sigaddset(&mask, SIGPIPE);
  sigemptyset(&pending);
  pthread_sigmask(SIG_BLOCK, &mask, &before);
  bool was_blocked = sigismember(&before, SIGPIPE) == 1;
  if (was_blocked) sigpending(&pending);
  ssize_t n = sendfile(fd, file, at, count);
  int error = errno;
  if (n != (ssize_t)count && sigismember(&pending, SIGPIPE) == 0) sigtimedwait(&mask, NULL, &at_once);
  if (!was_blocked) pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = error;
  return n;
}
#endif

static ssize_t send_file(aloop_transport_t *transport, int file, int64_t offset, int64_t count) {
#if ALOOP_HAVE_LINUX_SENDFILE
  off_t at = (off_t)offset;
  size_t size = (size_t)(count < SENDFILE_MAX ? count : SENDFILE_MAX);
  ssize_t n = sendfile_without_signal(transport->fd, file, &at, size);
  if (n < 0 && (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) return ALOOP_ENOTSUP;
  return result_of(n);
#else
  (void)transport, (void)file, (void)offset, (void)count;
  return ALOOP_ENOTSUP;
#endif
}

static int send_eof(aloop_transport_t *transport) {
  return shutdown(transport->fd, SHUT_WR) < 0 && errno != ENOTCONN ? -errno : 0;
}

/* ---- Attaching ------------------------------------------------------------------------------------------- */

static const aloop__watch_ops_t stream_ops = {.name = "transport", .readable = readable, .writable = writable};

static int attach(aloop_transport_t *transport) {
  return aloop__watch_claim(transport->object.loop, &transport->watch, transport->fd, &stream_ops);
}

static void detach(aloop_transport_t *transport) {
  aloop__watch_stop(transport->object.loop, &transport->watch);
}

static int adopt(aloop_transport_t *transport, aloop__adopted_t *before) {
  int rc = aloop__address_adopt(transport->fd, before);
  if (rc == 0) aloop__stream_set_nodelay(transport->fd);
  return rc;
}

static void give_back(aloop_transport_t *transport, const aloop__adopted_t *before) {
  aloop__address_give_back(transport->fd, before);
}

static void close_fd(aloop_transport_t *transport) {
  if (transport->flags & ALOOP__BORROWED) return;
  if (transport->flags & ALOOP__RESET) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(transport->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  close(transport->fd);
}

static int set_reading(aloop_transport_t *transport, bool on) {
  uint32_t interest = transport->watch.interest & ~(uint32_t)ALOOP_READABLE;
  return aloop__watch_set(transport->object.loop, &transport->watch, interest | (on ? ALOOP_READABLE : 0u));
}

/* ---- Accepting ------------------------------------------------------------------------------------------- */

static int accept_one(int fd) {
#if ALOOP_HAVE_ACCEPT4
  return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  int accepted = accept(fd, NULL, NULL);
  if (accepted < 0) return accepted;
  fcntl(accepted, F_SETFD, FD_CLOEXEC);
  fcntl(accepted, F_SETFL, O_NONBLOCK);
  return accepted;
#endif
}

/* Errors of one connection that died while it waited: the next one is fine. */
static bool is_about_one(int error) {
  return error == ECONNABORTED || error == EINTR || error == EPROTO || error == ENETDOWN ||
         error == EHOSTDOWN || error == ENETUNREACH || error == EHOSTUNREACH || error == ENOPROTOOPT;
}

static void acceptable(aloop_t *loop, void *arg) {
  (void)loop;
  aloop__listener_t *listener = ALOOP_CONTAINER_OF(arg, aloop__listener_t, watch);
  aloop_server_t *server = aloop_server_ref(listener->server);
  for (int budget = ACCEPT_BUDGET; budget > 0; budget--) {
    int fd = accept_one(listener->fd);
    if (fd >= 0) {
      if (!aloop__listener_accepted(listener, fd)) break;
    } else if (!is_about_one(errno)) {
      if (!is_retry(errno)) aloop__listener_failed(listener, -errno);
      break;
    }
  }
  aloop_server_unref(server);
}

static const aloop__watch_ops_t listener_ops = {
    .name = "listener", .readable = acceptable, .writable = acceptable};

static int listen_on(aloop__listener_t *listener, bool on) {
  aloop_t *loop = aloop_server_get_loop(listener->server);
  if (!on) {
    aloop__watch_stop(loop, &listener->watch);
    return 0;
  }
  if (listener->watch.fd >= 0) return 0;
  int rc = aloop__watch_claim(loop, &listener->watch, listener->fd, &listener_ops);
  if (rc == 0) rc = aloop__watch_set(loop, &listener->watch, ALOOP_READABLE);
  if (rc < 0) aloop__watch_stop(loop, &listener->watch);
  return rc;
}

const aloop__driver_t aloop__driver_readiness = {
    .name = "readiness",
    .adopt = adopt,
    .give_back = give_back,
    .close = close_fd,
    .attach = attach,
    .detach = detach,
    .read = set_reading,
    .send = send_now,
    .flush = flush,
    .send_eof = send_eof,
    .sendfile = send_file,
    .await_room = flush,
    .listen = listen_on,
};
