/* SPDX-License-Identifier: MIT
 *
 * The I/O driver of transports that were made over Unix sockets: that of sockets (readiness.c), and
 * descriptors that travel with the bytes. Other transports pay nothing for it.
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
#include "net/readiness.h"
#include "net/unix.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* a socket option instead, set in attach */
#endif

enum { FDS_MAX = 253 }; /* SCM_MAX_FD of Linux */

typedef struct parcel parcel_t;

struct parcel {
  parcel_t *next;
  uint64_t at; /* the place of its byte in the stream */
  size_t count;
  int fds[];
};

typedef struct inbox {
  size_t first;
  size_t count;
  int fds[FDS_MAX]; /* a ring */
} inbox_t;

typedef struct unix_transport {
  aloop_transport_t transport;
  uint64_t sent; /* bytes, so far */
  parcel_t *parcels;
  parcel_t **last; /* where the next one is linked */
  inbox_t *inbox;  /* made when the first descriptor comes */
} unix_transport_t;

typedef union control {
  struct cmsghdr header; /* for its alignment */
  char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
} control_t;

static unix_transport_t *of(aloop_transport_t *transport) {
  return ALOOP_CONTAINER_OF(transport, unix_transport_t, transport);
}

static void close_all(const int *fds, size_t count) {
  for (size_t i = 0; i < count; i++) close(fds[i]);
}

/* ---- Sending --------------------------------------------------------------------------------------------- */

/* The descriptors are the kernel's now, or nobody's. */
static void drop_first(unix_transport_t *self) {
  parcel_t *parcel = self->parcels;
  self->parcels = parcel->next;
  if (self->parcels == NULL) self->last = &self->parcels;
  close_all(parcel->fds, parcel->count);
  aloop__memory_release(self->transport.object.loop, parcel);
}

/* What a send may take before the next parcel begins. */
static size_t bytes_before(const unix_transport_t *self, const parcel_t *parcel) {
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

static void enclose(struct msghdr *message, control_t *control, const parcel_t *parcel) {
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
static ssize_t send_piece(unix_transport_t *self, const struct iovec *iov, int count, size_t skip, bool *all) {
  struct iovec parts[ALOOP__FLUSH_PARTS];
  control_t control;
  parcel_t *parcel = self->parcels;
  bool begins = parcel != NULL && parcel->at == self->sent;
  size_t most = bytes_before(self, begins ? parcel->next : parcel);
  struct msghdr message = {.msg_iov = parts};
  int used = cut(parts, iov, count < ALOOP__FLUSH_PARTS ? count : ALOOP__FLUSH_PARTS, skip, most);
  message.msg_iovlen = (unsigned char)used;
  if (begins) enclose(&message, &control, parcel);
  ssize_t n = aloop__readiness_result(sendmsg(self->transport.fd, &message, MSG_NOSIGNAL));
  if (n <= 0) return n;
  size_t offered = aloop__iov_total(parts, used);
  self->sent += (uint64_t)n;
  *all = (size_t)n == offered;
  if (begins) drop_first(self);
  return n;
}

/* An error behind bytes that were taken comes again with the next send. */
static ALOOP_NOINLINE ssize_t send_pieces(unix_transport_t *self, const struct iovec *iov, int count) {
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
  unix_transport_t *self = of(transport);
  if (ALOOP_UNLIKELY(self->parcels != NULL)) return send_pieces(self, iov, count);
  ssize_t n;
  if (ALOOP_LIKELY(count == 1)) {
    n = send(transport->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
  } else {
    struct msghdr message = {.msg_iov = (struct iovec *)iov};
    message.msg_iovlen = (unsigned char)count;
    n = sendmsg(transport->fd, &message, MSG_NOSIGNAL);
  }
  if (n > 0) self->sent += (uint64_t)n;
  return aloop__readiness_result(n);
}

static ssize_t send_file(aloop_transport_t *transport, int file, int64_t offset, int64_t count) {
  ssize_t n = aloop__readiness_send_file(transport->fd, file, offset, count);
  if (n > 0) of(transport)->sent += (uint64_t)n;
  return n;
}

/* ---- Receiving ------------------------------------------------------------------------------------------- */

/* All of them, or none and a code. */
static int put_away(unix_transport_t *self, const int *fds, size_t count) {
  inbox_t *inbox = self->inbox;
  if (inbox == NULL) {
    inbox = aloop__memory_new(self->transport.object.loop, sizeof *inbox);
    if (inbox == NULL) return ALOOP_ENOMEM;
    inbox->first = inbox->count = 0;
    self->inbox = inbox;
  }
  if (count > FDS_MAX - inbox->count) return ALOOP_ENOBUFS;
  for (size_t i = 0; i < count; i++) inbox->fds[(inbox->first + inbox->count++) % FDS_MAX] = fds[i];
  return 0;
}

static int unpack(unix_transport_t *self, struct cmsghdr *header) {
  int fds[FDS_MAX];
  size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  memcpy(fds, CMSG_DATA(header), count * sizeof(int));
#ifndef MSG_CMSG_CLOEXEC
  for (size_t i = 0; i < count; i++) fcntl(fds[i], F_SETFD, FD_CLOEXEC);
#endif
  int rc = put_away(self, fds, count);
  if (rc < 0) close_all(fds, count);
  return rc;
}

/* Takes every descriptor out of a message: 0, or the code that the connection ends with. */
static ALOOP_NOINLINE int unpack_all(unix_transport_t *self, struct msghdr *message) {
  int rc = message->msg_flags & MSG_CTRUNC ? ALOOP_EMFILE : 0;
  for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at != NULL; at = CMSG_NXTHDR(message, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    int failed = unpack(self, at);
    if (rc == 0) rc = failed;
  }
  return rc;
}

static inline ssize_t receive_now(aloop_transport_t *transport, void *buffer, size_t size) {
#ifdef MSG_CMSG_CLOEXEC
  enum { FLAGS = MSG_CMSG_CLOEXEC };
#else
  enum { FLAGS = 0 };
#endif
  control_t control;
  struct iovec part = {.iov_base = buffer, .iov_len = size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
  message.msg_controllen = sizeof control.bytes;
  ssize_t n = recvmsg(transport->fd, &message, FLAGS);
  if (n <= 0 || ALOOP_LIKELY(message.msg_controllen == 0 && (message.msg_flags & MSG_CTRUNC) == 0)) return n;
  int rc = unpack_all(of(transport), &message);
  if (rc == 0) return n;
  errno = -rc;
  return -1;
}

static ALOOP_NOINLINE void read_on(aloop_transport_t *transport, aloop__net_t *net, size_t budget) {
  aloop__readiness_read_on(transport, net, budget, receive_now, send_now);
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
  unix_transport_t *self = of(transport);
  self->last = &self->parcels;
#ifdef SO_NOSIGPIPE
  aloop__stream_set_nodelay(transport->fd);
#endif
  return aloop__readiness_attach(transport, &ops);
}

/* Nothing more is sent. */
static void detach(aloop_transport_t *transport) {
  unix_transport_t *self = of(transport);
  while (self->parcels != NULL) drop_first(self);
  aloop__readiness_detach(transport);
}

/* What was received may be taken until here. */
static void close_fd(aloop_transport_t *transport) {
  unix_transport_t *self = of(transport);
  inbox_t *inbox = self->inbox;
  self->inbox = NULL;
  for (size_t i = 0; inbox != NULL && i < inbox->count; i++) close(inbox->fds[(inbox->first + i) % FDS_MAX]);
  aloop__memory_release(transport->object.loop, inbox);
  aloop__readiness_close(transport);
}

const aloop__driver_t aloop__driver_unix = {
    .name = "unix",
    .transport_size = sizeof(unix_transport_t),
    .adopt = aloop__readiness_adopt,
    .give_back = aloop__readiness_give_back,
    .close = close_fd,
    .attach = attach,
    .detach = detach,
    .read = aloop__readiness_read,
    .send = send_now,
    .flush = aloop__readiness_flush,
    .send_eof = aloop__readiness_send_eof,
    .sendfile = send_file,
    .await_room = aloop__readiness_flush,
};

/* ---- Public ---------------------------------------------------------------------------------------------- */

/* What both calls begin with. */
static int enter(const aloop_transport_t *transport) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0 || transport->driver == &aloop__driver_unix) return rc;
  return aloop__misuse(transport->object.loop, ALOOP_ENOTSUP,
                       "descriptors pass through transports of aloop_create_unix_connection and "
                       "aloop_create_unix_server only");
}

/* A parcel of duplicates, or a code. All are looked at first: a duplicate may get the number of one that is
 * closed. */
static int make_parcel(aloop_t *loop, const int *fds, size_t count, parcel_t **made) {
  for (size_t i = 0; i < count; i++)
    if (fcntl(fds[i], F_GETFD) < 0) return -errno;
  parcel_t *parcel = aloop__memory_new(loop, sizeof *parcel + count * sizeof(int));
  if (parcel == NULL) return ALOOP_ENOMEM;
  *parcel = (parcel_t){.count = 0};
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
static void take_back(unix_transport_t *self, parcel_t **link) {
  parcel_t *parcel = *link;
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
  if (data == NULL || size == 0 || fds == NULL || count == 0 || count > FDS_MAX)
    return aloop__misuse(loop, ALOOP_EINVAL, "1 to 253 descriptors travel with a byte of data or more");
  aloop__cork_flush(transport); /* who is told to pause by it may write, and be first */
  if (transport->state >= ALOOP__CLOSING) return ALOOP_ECLOSED;
  unix_transport_t *self = of(transport);
  parcel_t *parcel = NULL;
  rc = make_parcel(loop, fds, count, &parcel);
  if (rc == ALOOP_EBADF) return aloop__misuse(loop, rc, "a descriptor that is to be sent is not open");
  if (rc < 0) return rc;
  parcel_t **link = self->last;
  parcel->at = self->sent + transport->outbox.size;
  *link = parcel;
  self->last = &parcel->next;
  rc = aloop_transport_write(transport, data, size);
  if (rc < 0) take_back(self, link);
  return rc;
}

int aloop_transport_take_fd(aloop_transport_t *transport) {
  int rc = enter(transport);
  if (rc < 0) return rc;
  inbox_t *inbox = of(transport)->inbox;
  if (inbox == NULL || inbox->count == 0) return ALOOP_ENOENT;
  int fd = inbox->fds[inbox->first];
  inbox->first = (inbox->first + 1) % FDS_MAX;
  inbox->count--;
  return fd;
}
