/* SPDX-License-Identifier: MIT
 *
 * The readiness driver: transports and listeners over a poller that tells when a descriptor may be read or
 * written.
 *
 * Reading: one recv into the loop's shared buffer per event. The buffer is as large as a connection's budget
 * for a turn, so one busy connection cannot starve the rest, and no extra call is made to learn that nothing is
 * left. (With a quarter of it and up to four reads, as before, a bulk transfer took 6 % more CPU, echo of 16
 * KiB 16 deep up to 27 %, and each full pipe, which has 64 KiB, a read in vain.) Only a protocol's own, smaller
 * buffer is filled more than once. Writing: a send is tried at once; only when the socket is full is the watch
 * widened to writability, and narrowed again when the outbox is empty. Accepting: accept4 until it would block
 * or the budget is used up.
 *
 * What does not depend on sockets is in readiness.h, for the drivers of other descriptors.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#if ALOOP_HAVE_LINUX_SENDFILE
#include <sys/sendfile.h>
#endif

#include "net/listener.h"
#include "net/readiness.h"
#include "net/sigpipe.h"

enum { ACCEPT_BUDGET = 64, SENDFILE_MAX = 0x7ffff000 };

void aloop__stream_set_nodelay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
}

static inline ssize_t receive_now(aloop_transport_t *transport, void *buffer, size_t size) {
  return recv(transport->watch.fd, buffer, size, 0);
}

ssize_t aloop__readiness_send_error(void) {
  return aloop__readiness_is_retry(errno) ? ALOOP_EAGAIN : -errno;
}

ALOOP_NOINLINE ssize_t aloop__readiness_other_result(ssize_t n) {
  return aloop__readiness_result(n);
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

void aloop__readiness_received_none(aloop_transport_t *transport, ssize_t n) {
  if (n == 0)
    aloop__stream_received_eof(transport);
  else if (!aloop__readiness_is_retry(errno))
    aloop__stream_end(transport, -errno);
}

static ALOOP_NOINLINE void read_on(aloop_transport_t *transport, aloop__net_t *net) {
  aloop__readiness_read_on(transport, net, receive_now, aloop__readiness_socket_send);
}

void aloop__readiness_socket_readable(aloop_t *loop, void *watch) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(watch, aloop_transport_t, watch);
  aloop__readiness_readable(loop, transport, receive_now, aloop__readiness_socket_send, read_on);
}

int aloop__readiness_read(aloop_transport_t *transport, bool on) {
  return aloop__readiness_watch(transport, ALOOP_READABLE, on);
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

void aloop__readiness_socket_writable(aloop_t *loop, void *watch) {
  aloop__readiness_writable(loop, ALOOP_CONTAINER_OF(watch, aloop_transport_t, watch),
                            aloop__readiness_socket_send);
}

int aloop__readiness_flush(aloop_transport_t *transport) {
  return aloop__readiness_watch(transport, ALOOP_WRITABLE, true);
}

ssize_t aloop__readiness_send_file(int fd, int file, int64_t offset, int64_t count) {
#if ALOOP_HAVE_LINUX_SENDFILE
  off_t at = (off_t)offset;
  size_t size = (size_t)(count < SENDFILE_MAX ? count : SENDFILE_MAX);
  aloop__sigpipe_t held;
  aloop__sigpipe_hold(&held); /* sendfile knows no MSG_NOSIGNAL */
  ssize_t n = sendfile(fd, file, &at, size);
  aloop__sigpipe_release(&held, n != (ssize_t)size); /* it comes also when some bytes were taken before */
  if (n < 0 && (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) return ALOOP_ENOTSUP;
  return aloop__readiness_result(n);
#else
  (void)fd, (void)file, (void)offset, (void)count;
  return ALOOP_ENOTSUP;
#endif
}

ssize_t aloop__readiness_socket_sendfile(aloop_transport_t *transport, int file, int64_t offset,
                                         int64_t count) {
  return aloop__readiness_send_file(transport->watch.fd, file, offset, count);
}

static int splice_fd(const aloop_transport_t *transport) {
  return transport->watch.fd;
}

int aloop__readiness_send_eof(aloop_transport_t *transport) {
  return shutdown(transport->watch.fd, SHUT_WR) < 0 && errno != ENOTCONN ? -errno : 0;
}

/* ---- Attaching ------------------------------------------------------------------------------------------- */

static const aloop__watch_ops_t stream_ops = {.name = "transport",
                                              .readable = aloop__readiness_socket_readable,
                                              .writable = aloop__readiness_socket_writable};

int aloop__readiness_attach(aloop_transport_t *transport, const aloop__watch_ops_t *ops) {
  return aloop__watch_claim(transport->object.loop, &transport->watch, transport->watch.fd, ops);
}

static int attach(aloop_transport_t *transport) {
  return aloop__readiness_attach(transport, &stream_ops);
}

void aloop__readiness_detach(aloop_transport_t *transport) {
  aloop__watch_leave(transport->object.loop, &transport->watch);
}

int aloop__readiness_adopt(aloop_transport_t *transport, aloop__adopted_t *before) {
  int rc = aloop__address_adopt(transport->watch.fd, before);
  if (rc == 0) aloop__stream_set_nodelay(transport->watch.fd);
  return rc;
}

void aloop__readiness_give_back(aloop_transport_t *transport, const aloop__adopted_t *before) {
  aloop__address_give_back(transport->watch.fd, before);
}

void aloop__readiness_close(aloop_transport_t *transport) {
  if (transport->flags & ALOOP__BORROWED) return;
  if (transport->flags & ALOOP__RESET) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(transport->watch.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  close(transport->watch.fd);
}

/* ---- Accepting ------------------------------------------------------------------------------------------- */

static void acceptable(aloop_t *loop, void *arg) {
  (void)loop;
  aloop__listener_t *listener = ALOOP_CONTAINER_OF(arg, aloop__listener_t, watch);
  aloop_server_t *server = aloop_server_ref(listener->server);
  for (int budget = ACCEPT_BUDGET; budget > 0; budget--) {
    int fd = aloop__address_accept(listener->fd, NULL, NULL);
    if (fd >= 0) {
      if (!aloop__listener_accepted(listener, fd)) break;
    } else if (!aloop__address_accept_again(fd)) {
      if (fd != ALOOP_EAGAIN) aloop__listener_failed(listener, fd);
      break;
    }
  }
  aloop_server_unref(server);
}

const aloop__watch_ops_t aloop__readiness_listener_ops = {
    .name = "listener", .readable = acceptable, .writable = acceptable};

int aloop__readiness_listen(aloop__listener_t *listener, bool on) {
  aloop_t *loop = aloop_server_get_loop(listener->server);
  if (listener->watch.fd < 0) {
    int rc = on ? aloop__watch_claim(loop, &listener->watch, listener->fd, &aloop__readiness_listener_ops) : 0;
    if (rc < 0 || !on) return rc;
  }
  return aloop__watch_set(loop, &listener->watch, on ? ALOOP_READABLE : 0);
}

static void forget(aloop__listener_t *listener) {
  aloop__watch_stop(aloop_server_get_loop(listener->server), &listener->watch);
}

const aloop__driver_t aloop__driver_readiness = {
    .name = "readiness",
    .adopt = aloop__readiness_adopt,
    .give_back = aloop__readiness_give_back,
    .close = aloop__readiness_close,
    .attach = attach,
    .detach = aloop__readiness_detach,
    .read = aloop__readiness_read,
    .send = aloop__readiness_socket_send,
    .flush = aloop__readiness_flush,
    .send_eof = aloop__readiness_send_eof,
    .sendfile = aloop__readiness_socket_sendfile,
    .splice_fd = splice_fd,
    .await_room = aloop__readiness_flush,
    .listen = aloop__readiness_listen,
    .forget = forget,
};

void aloop__readiness_take_over(aloop_transport_t *transport) {
  transport->driver = &aloop__driver_readiness;
  transport->watch.ops = &stream_ops;
}
