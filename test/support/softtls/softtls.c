/* SPDX-License-Identifier: MIT
 *
 * Kernel TLS without a kernel: see softtls.h.
 */
#include "softtls.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define WRAP(type, name, ...)                                                                                  \
  type __real_##name(__VA_ARGS__);                                                                             \
  type __wrap_##name(__VA_ARGS__);                                                                             \
  type __wrap_##name(__VA_ARGS__)

enum { ULP = 31, LEVEL_TLS = 282, FDS_MAX = 1024, PENDING_MAX = 8 * SOFT_SEALED_MAX };

typedef struct soft_socket {
  bool chosen;
  bool keyed;
  soft_keys_t keys;
  unsigned char open[SOFT_RECORD_MAX];
  size_t open_size;
  unsigned char pending[PENDING_MAX]; /* sealed, and not in the TCP buffer yet */
  size_t pending_size;
  int error; /* of the connection */
} soft_socket_t;

soft_t soft;
static soft_socket_t *sockets[FDS_MAX];

static void forget(int fd) {
  soft_socket_t *self = fd >= 0 && fd < FDS_MAX ? sockets[fd] : NULL;
  if (self == NULL) return;
  sockets[fd] = NULL;
  soft.lost += self->pending_size + self->open_size;
  soft.open -= self->open_size;
  free(self);
}

void soft_begin(void) {
  for (int fd = 0; fd < FDS_MAX; fd++) forget(fd);
  soft = (soft_t){.available = true};
}

static soft_socket_t *of(int fd) {
  return fd >= 0 && fd < FDS_MAX ? sockets[fd] : NULL;
}

static bool is_keyed(int fd) {
  return of(fd) != NULL && of(fd)->keyed;
}

ssize_t __real_send(int fd, const void *data, size_t size, int flags);

static void push(int fd) {
  soft_socket_t *self = sockets[fd];
  while (self->pending_size > 0 && !soft.full) {
    ssize_t n = __real_send(fd, self->pending, self->pending_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) self->error = errno;
    if (n <= 0) return;
    self->pending_size -= (size_t)n;
    memmove(self->pending, self->pending + n, self->pending_size);
  }
}

void soft_work(void) {
  int error = errno;
  for (int fd = 0; fd < FDS_MAX; fd++)
    if (is_keyed(fd)) push(fd);
  errno = error;
}

static void seal(int fd, int type, const unsigned char *data, size_t size) {
  soft_socket_t *self = sockets[fd];
  if (PENDING_MAX - self->pending_size < SOFT_SEALED_MAX) abort();
  self->pending_size += soft.seal(&self->keys, type, data, size, self->pending + self->pending_size);
  self->keys.sequence++;
  soft.records[type]++;
  push(fd);
}

static void seal_open(int fd) {
  soft_socket_t *self = sockets[fd];
  if (self->open_size == 0) return;
  soft.open -= self->open_size;
  seal(fd, SOFT_DATA, self->open, self->open_size);
  self->open_size = 0;
}

/* Data, as much as there is room for. */
static size_t take(int fd, const unsigned char *data, size_t size) {
  soft_socket_t *self = sockets[fd];
  size_t taken = 0;
  push(fd);
  while (taken < size && self->pending_size == 0 && !soft.full) {
    size_t n = SOFT_RECORD_MAX - self->open_size;
    if (n > size - taken) n = size - taken;
    memcpy(self->open + self->open_size, data + taken, n);
    self->open_size += n;
    soft.open += n;
    taken += n;
    if (self->open_size == SOFT_RECORD_MAX) seal_open(fd);
  }
  return taken;
}

static ssize_t answer(int fd, size_t taken) {
  if (taken > 0) return (ssize_t)taken;
  errno = sockets[fd]->error != 0 ? sockets[fd]->error : EAGAIN;
  return -1;
}

/* ---- Keys ------------------------------------------------------------------------------------------------ */

static int refuse(int error) {
  errno = error;
  return -1;
}

static int choose(int fd) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  int type = 0;
  socklen_t type_size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &type, &type_size) < 0) return -1;
  if (type != AF_INET && type != AF_INET6) return refuse(EOPNOTSUPP);
  if (!soft.available) return refuse(ENOENT);
  if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0) return -1; /* ENOTCONN */
  if (of(fd) != NULL) return refuse(EEXIST);
  sockets[fd] = calloc(1, sizeof *sockets[fd]);
  sockets[fd]->chosen = true;
  return 0;
}

static int give_keys(int fd, const void *info, size_t size) {
  soft_socket_t *self = of(fd);
  uint16_t head[2];
  if (self == NULL) return refuse(ENOPROTOOPT);
  if (soft.refuses || size > sizeof self->keys.info) return refuse(EINVAL);
  memcpy(head, info, sizeof head);
  if (self->keyed && (!soft.exchanges || head[0] != 0x0304)) return refuse(EBUSY);
  if (self->keyed)
    soft.exchanged++;
  else
    soft.sockets++;
  self->keys = (soft_keys_t){.size = size, .version = head[0], .cipher = head[1]};
  memcpy(self->keys.info, info, size);
  for (size_t i = 8; i > 0; i--)
    self->keys.sequence = self->keys.sequence << 8 | ((const unsigned char *)info)[size - i];
  self->keyed = true;
  return 0;
}

WRAP(int, setsockopt, int fd, int level, int name, const void *value, socklen_t size) {
  if (level == IPPROTO_TCP && name == ULP) return choose(fd);
  if (level == LEVEL_TLS) return give_keys(fd, value, size);
  return __real_setsockopt(fd, level, name, value, size);
}

WRAP(int, open, const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  int mode = flags & O_CREAT ? va_arg(rest, int) : 0;
  va_end(rest);
  if (strcmp(path, "/proc/net/tls_stat") != 0) return __real_open(path, flags, mode);
  static const char old[] = "TlsTxSw 0\n", fresh[] = "TlsTxSw 0\nTlsTxRekeyOk 0\n";
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return -1;
  const char *text = soft.exchanges ? fresh : old;
  if (write(fds[1], text, strlen(text)) < 0) abort();
  close(fds[1]);
  return fds[0];
}

/* ---- Bytes ----------------------------------------------------------------------------------------------- */

WRAP(ssize_t, send, int fd, const void *data, size_t size, int flags) {
  if (!is_keyed(fd)) return __real_send(fd, data, size, flags);
  size_t taken = take(fd, data, size);
  if (taken > 0) seal_open(fd);
  return answer(fd, taken);
}

static ssize_t send_control(int fd, int type, const struct msghdr *message) {
  seal_open(fd);
  const struct iovec *part = &message->msg_iov[0];
  if (part->iov_len == 0) return 0;
  push(fd);
  if (sockets[fd]->pending_size > 0 || soft.full) return answer(fd, 0);
  seal(fd, type, part->iov_base, part->iov_len);
  return (ssize_t)part->iov_len;
}

WRAP(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags) {
  if (!is_keyed(fd)) return __real_sendmsg(fd, message, flags);
  struct cmsghdr *head = CMSG_FIRSTHDR(message);
  if (head != NULL && head->cmsg_level == LEVEL_TLS) return send_control(fd, *CMSG_DATA(head), message);
  size_t taken = 0;
  for (size_t i = 0; i < (size_t)message->msg_iovlen; i++) {
    size_t n = take(fd, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    taken += n;
    if (n < message->msg_iov[i].iov_len) break;
  }
  if (taken > 0) seal_open(fd);
  return answer(fd, taken);
}

WRAP(ssize_t, sendfile, int fd, int file, off_t *offset, size_t count) {
  if (!is_keyed(fd)) return __real_sendfile(fd, file, offset, count);
  static unsigned char piece[4096];
  size_t moved = 0;
  push(fd);
  while (moved < count && sockets[fd]->pending_size == 0) {
    size_t want = count - moved < sizeof piece ? count - moved : sizeof piece;
    ssize_t n = pread(file, piece, want, *offset);
    if (n <= 0) break;
    size_t taken = take(fd, piece, (size_t)n);
    moved += taken;
    *offset += (off_t)taken;
    if (taken < (size_t)n) break;
  }
  if (moved > 0) soft.files++;
  if (moved == count) seal_open(fd);
  return moved > 0 || sockets[fd]->pending_size == 0 ? (ssize_t)moved : answer(fd, 0);
}

WRAP(ssize_t, recv, int fd, void *data, size_t size, int flags) {
  soft_work();
  if (is_keyed(fd) && sockets[fd]->error != 0) return answer(fd, 0);
  return __real_recv(fd, data, size, flags);
}

WRAP(ssize_t, read, int fd, void *data, size_t size) {
  soft_work();
  return __real_read(fd, data, size);
}

WRAP(int, poll, struct pollfd *fds, nfds_t count, int timeout) {
  soft_work();
  int rc = __real_poll(fds, count, timeout);
  for (nfds_t i = 0; i < count && rc > 0; i++) /* what waits belongs to the buffer */
    if (is_keyed(fds[i].fd) && sockets[fds[i].fd]->pending_size > 0) fds[i].revents &= (short)~POLLOUT;
  return rc;
}

WRAP(int, close, int fd) {
  forget(fd);
  return __real_close(fd);
}
