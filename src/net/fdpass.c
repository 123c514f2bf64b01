/* SPDX-License-Identifier: MIT
 *
 * The I/O driver of transports that were made over Unix sockets: that of sockets (readiness.c), and
 * descriptors that travel with the bytes. Other transports pay nothing for it. Those of messages
 * (seqpacket.c) share what is not about bytes.
 *
 * Sending. Descriptors that are to be sent are duplicated at once and wait as a parcel, which knows the place
 * in the stream of the byte that it belongs to. Each send is cut where the next parcel begins; what begins
 * with a parcel takes it along. If the socket takes one byte of that or more it has taken the descriptors
 * too, and the parcel is gone; if it takes none the parcel is still there. So descriptors are sent exactly
 * once, in order, however the bytes are gathered, cut or buffered on their way, about which nothing here has
 * to know.
 *
 * Receiving. Every read has room for as many descriptors as the kernel lets one message carry. They wait in
 * their order until somebody takes them, and are closed after connection_lost. A peer cannot fill this
 * process with descriptors that nobody wants: when more than one message can carry would wait, the connection
 * ends. So it does if the kernel could not deliver all (this process has no descriptor free): what was lost
 * could not be told from what was not sent, and each later one would be taken for another.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "net/fdpass.h"
#include "net/readiness.h"
#include "net/unix.h"

static void close_all(const int *fds, size_t count) {
  for (size_t i = 0; i < count; i++) close(fds[i]);
}

/* ---- Sending --------------------------------------------------------------------------------------------- */

void aloop__fdpass_drop_first(aloop__unix_transport_t *self) {
  aloop__parcel_t *parcel = self->parcels;
  self->parcels = parcel->next;
  if (self->parcels == NULL) self->last = &self->parcels;
  close_all(parcel->fds, parcel->count);
  aloop__memory_release(self->transport.object.loop, parcel);
}

/* What a send may take before the next parcel begins. */
static size_t bytes_before(const aloop__unix_transport_t *self, const aloop__parcel_t *parcel) {
  return parcel != NULL && parcel->at - self->sent < SIZE_MAX ? (size_t)(parcel->at - self->sent) : SIZE_MAX;
}

/* The parts behind the first `skip` bytes, at most `most` bytes of them. Returns how many parts. */
static int cut(struct iovec *into, const struct iovec *iov, int count, size_t skip, size_t most) {
  int parts = 0;
  for (int i = 0; i < count && most > 0; i++) {
    size_t skipped = skip < iov[i].iov_len ? skip : iov[i].iov_len;
    size_t size = iov[i].iov_len - skipped < most ? iov[i].iov_len - skipped : most;
    skip -= skipped;
    most -= size;
    if (size > 0)
      into[parts++] = (struct iovec){.iov_base = (char *)iov[i].iov_base + skipped, .iov_len = size};
  }
  return parts;
}

void aloop__fdpass_enclose(struct msghdr *message, aloop__fdcontrol_t *control, const aloop__parcel_t *parcel) {
  size_t size = parcel->count * sizeof(int);
  memset(control, 0, CMSG_SPACE(size));
  message->msg_control = control->bytes;
  message->msg_controllen = (socklen_t)CMSG_SPACE(size);
  struct cmsghdr *header = CMSG_FIRSTHDR(message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = (socklen_t)CMSG_LEN(size);
  memcpy(CMSG_DATA(header), parcel->fds, size);
}

/* One system call, up to the next parcel. Sets *all if the socket took all that it was offered. */
static ssize_t send_piece(aloop__unix_transport_t *self, const struct iovec *iov, int count, size_t skip,
                          bool *all) {
  struct iovec parts[ALOOP__FLUSH_PARTS];
  aloop__fdcontrol_t control;
  aloop__parcel_t *parcel = self->parcels;
  bool begins = parcel != NULL && parcel->at == self->sent;
  size_t most = bytes_before(self, begins ? parcel->next : parcel);
  struct msghdr message = {.msg_iov = parts};
  int used = cut(parts, iov, count < ALOOP__FLUSH_PARTS ? count : ALOOP__FLUSH_PARTS, skip, most);
  message.msg_iovlen = (unsigned char)used;
  if (begins) aloop__fdpass_enclose(&message, &control, parcel);
  ssize_t n = aloop__readiness_result(sendmsg(self->transport.watch.fd, &message, MSG_NOSIGNAL));
  if (n <= 0) return n;
  size_t offered = aloop__iov_total(parts, used);
  self->sent += (uint64_t)n;
  *all = (size_t)n == offered;
  if (begins) aloop__fdpass_drop_first(self);
  return n;
}

/* An error behind bytes that were taken comes again with the next send. */
static ALOOP_NOINLINE ssize_t send_pieces(aloop__unix_transport_t *self, const struct iovec *iov, int count) {
  size_t total = 0, done = 0;
  bool all = true;
  for (int i = 0; i < count && i < ALOOP__FLUSH_PARTS; i++) total += iov[i].iov_len;
  while (done < total && all) {
    ssize_t n = send_piece(self, iov, count, done, &all);
    if (n <= 0) return done > 0 ? (ssize_t)done : n;
    done += (size_t)n;
  }
  return (ssize_t)done;
}

static inline ssize_t send_now(aloop_transport_t *transport, const struct iovec *iov, int count) {
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  if (ALOOP_UNLIKELY(self->parcels != NULL)) return send_pieces(self, iov, count);
  ssize_t n = aloop__readiness_socket_send(transport, iov, count);
  if (n > 0) self->sent += (uint64_t)n;
  return n;
}

static ssize_t send_file(aloop_transport_t *transport, int file, int64_t offset, int64_t count) {
  ssize_t n = aloop__readiness_socket_sendfile(transport, file, offset, count);
  if (n > 0) aloop__fdpass_of(transport)->sent += (uint64_t)n;
  return n;
}

/* ---- Receiving ------------------------------------------------------------------------------------------- */

/* All of them, or none and a code. */
static int put_away(aloop__unix_transport_t *self, const int *fds, size_t count) {
  aloop__inbox_t *inbox = self->inbox;
  if (inbox == NULL) {
    inbox = aloop__memory_new(self->transport.object.loop, sizeof *inbox);
    if (inbox == NULL) return ALOOP_ENOMEM;
    inbox->first = inbox->count = 0;
    self->inbox = inbox;
  }
  if (count > ALOOP__FDS_MAX - inbox->count) return ALOOP_ENOBUFS;
  for (size_t i = 0; i < count; i++) inbox->fds[(inbox->first + inbox->count++) % ALOOP__FDS_MAX] = fds[i];
  return 0;
}

static int unpack(aloop__unix_transport_t *self, struct cmsghdr *header) {
  int fds[ALOOP__FDS_MAX];
  size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  memcpy(fds, CMSG_DATA(header), count * sizeof(int));
#ifndef MSG_CMSG_CLOEXEC
  for (size_t i = 0; i < count; i++) fcntl(fds[i], F_SETFD, FD_CLOEXEC);
#endif
  int rc = put_away(self, fds, count);
  if (rc < 0) close_all(fds, count);
  return rc;
}

int aloop__fdpass_unpack(aloop__unix_transport_t *self, struct msghdr *message) {
  int rc = message->msg_flags & MSG_CTRUNC ? ALOOP_EMFILE : 0;
  for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at != NULL; at = CMSG_NXTHDR(message, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    int failed = unpack(self, at);
    if (rc == 0) rc = failed;
  }
  return rc;
}

static inline ssize_t receive_now(aloop_transport_t *transport, void *buffer, size_t size) {
  aloop__fdcontrol_t control;
  struct iovec part = {.iov_base = buffer, .iov_len = size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
  message.msg_controllen = sizeof control.bytes;
  ssize_t n = recvmsg(transport->watch.fd, &message, ALOOP__RECEIVE_FLAGS);
  if (n <= 0 || ALOOP_LIKELY(message.msg_controllen == 0 && (message.msg_flags & MSG_CTRUNC) == 0)) return n;
  int rc = aloop__fdpass_unpack(aloop__fdpass_of(transport), &message);
  if (rc == 0) return n;
  errno = -rc;
  return -1;
}

static ALOOP_NOINLINE void read_on(aloop_transport_t *transport, aloop__net_t *net) {
  aloop__readiness_read_on(transport, net, receive_now, send_now);
}

/* ---- Events ---------------------------------------------------------------------------------------------- */

static void readable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  aloop__readiness_readable(loop, transport, receive_now, send_now, read_on);
}

static void writable(aloop_t *loop, void *arg) {
  aloop__readiness_writable(loop, ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch), send_now);
}

static const aloop__watch_ops_t ops = {.name = "unix transport", .readable = readable, .writable = writable};

static int attach(aloop_transport_t *transport) {
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  self->last = &self->parcels;
#ifdef SO_NOSIGPIPE
  aloop__stream_set_nodelay(transport->watch.fd);
#endif
  return aloop__readiness_attach(transport, &ops);
}

void aloop__fdpass_detach(aloop_transport_t *transport) {
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  while (self->parcels != NULL) aloop__fdpass_drop_first(self);
  aloop__readiness_detach(transport);
}

void aloop__fdpass_close(aloop_transport_t *transport) {
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  aloop__inbox_t *inbox = self->inbox;
  self->inbox = NULL;
  for (size_t i = 0; inbox != NULL && i < inbox->count; i++)
    close(inbox->fds[(inbox->first + i) % ALOOP__FDS_MAX]);
  aloop__memory_release(transport->object.loop, inbox);
  aloop__readiness_close(transport);
}

const aloop__driver_t aloop__driver_unix = {
    .name = "unix",
    .transport_size = sizeof(aloop__unix_transport_t),
    .adopt = aloop__readiness_adopt,
    .give_back = aloop__readiness_give_back,
    .close = aloop__fdpass_close,
    .attach = attach,
    .detach = aloop__fdpass_detach,
    .read = aloop__readiness_read,
    .send = send_now,
    .flush = aloop__readiness_flush,
    .send_eof = aloop__readiness_send_eof,
    .sendfile = send_file,
    .await_room = aloop__readiness_flush,
};

/* ---- Passing on ------------------------------------------------------------------------------------------ */

static void append(aloop__unix_transport_t *self, aloop__parcel_t *parcel) {
  parcel->at = self->sent + aloop__outbox_size(&self->transport.outbox);
  *self->last = parcel;
  self->last = &parcel->next;
}

static int next_fd(aloop__inbox_t *inbox) {
  int fd = inbox->fds[inbox->first];
  inbox->first = (inbox->first + 1) % ALOOP__FDS_MAX;
  inbox->count--;
  return fd;
}

int aloop__unix_pass_fds(aloop_transport_t *from, aloop_transport_t *to) {
  aloop__inbox_t *inbox = aloop__fdpass_of(from)->inbox;
  if (inbox == NULL || inbox->count == 0) return 0;
  if (!aloop__unix_passes_fds(to)) {
    while (inbox->count > 0) close(next_fd(inbox));
    return 0;
  }
  aloop__parcel_t *parcel = aloop__memory_new(from->object.loop, sizeof *parcel + inbox->count * sizeof(int));
  if (parcel == NULL) return ALOOP_ENOMEM;
  *parcel = (aloop__parcel_t){.count = 0};
  while (inbox->count > 0) parcel->fds[parcel->count++] = next_fd(inbox);
  append(aloop__fdpass_of(to), parcel);
  return 0;
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

/* What both calls begin with. */
static int enter(const aloop_transport_t *transport) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0 || aloop__unix_passes_fds(transport)) return rc;
  return aloop__misuse(transport->object.loop, ALOOP_ENOTSUP,
                       "descriptors pass through Unix sockets only, without ALOOP_UNIX_NO_DESCRIPTORS");
}

/* A parcel of duplicates, or a code. All are looked at first: a duplicate may get the number of one that is
 * closed. */
static int make_parcel(aloop_t *loop, const int *fds, size_t count, aloop__parcel_t **made) {
  for (size_t i = 0; i < count; i++)
    if (fcntl(fds[i], F_GETFD) < 0) return -errno;
  aloop__parcel_t *parcel = aloop__memory_new(loop, sizeof *parcel + count * sizeof(int));
  if (parcel == NULL) return ALOOP_ENOMEM;
  *parcel = (aloop__parcel_t){.count = 0};
  for (; parcel->count < count; parcel->count++) {
    int fd = fcntl(fds[parcel->count], F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
      int error = -errno;
      close_all(parcel->fds, parcel->count);
      aloop__memory_release(loop, parcel);
      return error;
    }
    parcel->fds[parcel->count] = fd;
  }
  *made = parcel;
  return 0;
}

/* The parcel of a write that was refused. */
static void take_back(aloop__unix_transport_t *self, aloop__parcel_t **link) {
  aloop__parcel_t *parcel = *link;
  *link = NULL;
  self->last = link;
  close_all(parcel->fds, parcel->count);
  aloop__memory_release(self->transport.object.loop, parcel);
}

int aloop_transport_write_fds(aloop_transport_t *transport, const void *data, size_t size, const int *fds,
                              size_t count) {
  int rc = enter(transport);
  if (rc < 0) return rc;
  aloop_t *loop = transport->object.loop;
  if (data == NULL || size == 0 || fds == NULL || count == 0 || count > ALOOP__FDS_MAX)
    return aloop__misuse(loop, ALOOP_EINVAL, "1 to 253 descriptors travel with a byte of data or more");
  aloop__cork_flush(transport); /* who is told to pause by it may write, and be first */
  if (transport->object.state >= ALOOP__CLOSING) return ALOOP_ECLOSED;
  aloop__unix_transport_t *self = aloop__fdpass_of(transport);
  aloop__parcel_t *parcel = NULL;
  rc = make_parcel(loop, fds, count, &parcel);
  if (rc == ALOOP_EBADF) return aloop__misuse(loop, rc, "a descriptor that is to be sent is not open");
  if (rc < 0) return rc;
  aloop__parcel_t **link = self->last;
  append(self, parcel);
  rc = aloop_transport_write(transport, data, size);
  if (rc < 0) take_back(self, link);
  return rc;
}

int aloop_transport_take_fd(aloop_transport_t *transport) {
  int rc = enter(transport);
  if (rc < 0) return rc;
  aloop__inbox_t *inbox = aloop__fdpass_of(transport)->inbox;
  if (inbox == NULL || inbox->count == 0) return ALOOP_ENOENT;
  return next_fd(inbox);
}
