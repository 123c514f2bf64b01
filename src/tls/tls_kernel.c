/* SPDX-License-Identifier: MIT
 *
 * Kernel TLS: Linux encrypts what is sent, and sendfile moves a file from its cache to the peer without a copy.
 *
 * After the handshake the engine's keys are given to the socket, once nothing that the engine has made is still
 * on its way to it. From then on plaintext goes straight to the carrier's socket, as much as that takes; the
 * rest waits in the transport's own outbox, where it is counted, and nothing waits in the carrier. Records that
 * are no data (the end of the stream, alerts, new keys) are sent with their type beside them; those that the
 * socket has no room for stand in a queue, before any data that is sent later. Receiving stays with the engine:
 * a record that is no data must reach it as one, and the socket's bytes come through the drivers as ever.
 *
 * There is no way back: a socket whose sending side was given keys encrypts until it is closed. So whatever may
 * be missing is looked for before. A context asks once whether this kernel has TLS and whether it can exchange
 * keys (Linux 6.14), without which a peer of TLS 1.3 that wants new ones could not be obeyed. If the kernel
 * refuses the keys, the socket has been given nothing but another table of calls, sends as before, and the
 * engine goes on encrypting.
 *
 * Two habits of the kernel want care. Bytes that it has taken may be encrypted and still wait behind a full TCP
 * buffer, where closing the socket would drop them: the carrier is closed when the socket has room again, which
 * a TCP buffer that refused something has not. And a sendfile that was asked for more than it moved leaves its
 * last bytes in an unfinished record: it is never asked for more than the file has, and when it ends early, the
 * record is finished.
 *
 * Not here: devices that encrypt, which the kernel uses by itself; receiving; splicing, so relays copy.
 */
#include "tls/tls.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/memory.h"
#include "net/write.h"

#ifdef ALOOP_HAVE_LINUX_TLS
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>
#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#endif

/* Types of records. KEYS stands for new keys among the records of the queue. */
enum { KEYS = 0, HANDSHAKE = 22, DATA = 23 };

enum { QUEUE_MAX = 16, INFO_MAX = 64, SALT_SIZE = 4 };

struct aloop__tls_queued {
  aloop__tls_queued_t *next;
  int type;
  size_t size;
  unsigned char bytes[];
};

/* One of the structs tls12_crypto_info_... of linux/tls.h: bytes without padding. */
typedef struct info {
  size_t size;
  unsigned char bytes[INFO_MAX];
} info_t;

/* ---- The kernel ------------------------------------------------------------------------------------------ */

#ifdef ALOOP_HAVE_LINUX_TLS

/* What the kernel counts tells what it can do. */
static bool can_exchange_keys(void) {
  enum { ROOM = 2048 };
  char text[ROOM];
  size_t size = 0;
  ssize_t n = 0;
  int fd = open("/proc/net/tls_stat", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  do {
    n = read(fd, text + size, sizeof text - 1 - size);
    if (n > 0) size += (size_t)n;
  } while (n > 0 || (n < 0 && errno == EINTR));
  close(fd);
  text[size] = '\0';
  return strstr(text, "TlsTxRekeyOk") != NULL;
}

static int choose_tls(int fd) {
  return setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") < 0 ? -errno : 0;
}

/* A socket that is not connected is refused only once TLS was found. */
unsigned aloop__tls_kernel_probe(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return 0;
  int rc = choose_tls(fd);
  close(fd);
  if (rc < 0 && rc != -ENOTCONN) return 0;
  return ALOOP__TLS_KERNEL | (can_exchange_keys() ? ALOOP__TLS_KERNEL_KEYS : 0u);
}

static unsigned char *add(unsigned char *to, const void *bytes, size_t size) {
  memcpy(to, bytes, size);
  return to + size;
}

static size_t key_size(int cipher) {
  return cipher == ALOOP_TLS_AES_128_GCM ? 16 : 32;
}

/* Returns the kernel's number of a cipher, or 0. */
static uint16_t cipher_type(int cipher) {
  switch (cipher) {
  case ALOOP_TLS_AES_128_GCM:
    return TLS_CIPHER_AES_GCM_128;
#ifdef TLS_CIPHER_AES_GCM_256
  case ALOOP_TLS_AES_256_GCM:
    return TLS_CIPHER_AES_GCM_256;
#endif
#ifdef TLS_CIPHER_CHACHA20_POLY1305
  case ALOOP_TLS_CHACHA20_POLY1305:
    return TLS_CIPHER_CHACHA20_POLY1305;
#endif
  default:
    return 0;
  }
}

static int describe(const aloop_tls_keys_t *keys, info_t *info) {
  uint16_t head[] = {(uint16_t)keys->version, cipher_type(keys->cipher)};
  bool salted = keys->cipher != ALOOP_TLS_CHACHA20_POLY1305;
  size_t salt = salted ? SALT_SIZE : 0;
  if (head[1] == 0) return ALOOP_ENOTSUP;
  unsigned char *at = add(info->bytes, head, sizeof head);
  at = add(at, keys->iv + salt, sizeof keys->iv - salt);
  at = add(at, keys->key, key_size(keys->cipher));
  at = add(at, keys->iv, salt);
  at = add(at, keys->sequence, sizeof keys->sequence);
  info->size = (size_t)(at - info->bytes);
  return 0;
}

static int install(int fd, const void *info, size_t size) {
  return setsockopt(fd, SOL_TLS, TLS_TX, info, (socklen_t)size) < 0 ? -errno : 0;
}

/* A record of any type; one of data without bytes finishes what a sendfile has begun. */
static int send_record(int fd, int type, const void *data, size_t size) {
  union {
    struct cmsghdr head;
    char room[CMSG_SPACE(1)];
  } control = {.head = {.cmsg_level = SOL_TLS, .cmsg_type = TLS_SET_RECORD_TYPE, .cmsg_len = CMSG_LEN(1)}};
  struct iovec part = {.iov_base = (void *)data, .iov_len = size};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(1)};
  *CMSG_DATA(&control.head) = (unsigned char)type;
  if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return 0;
  return errno == EINTR || errno == EWOULDBLOCK ? ALOOP_EAGAIN : -errno;
}

size_t aloop__tls_kernel_unsent(const aloop__tls_t *self) {
  int size = 0;
  return self->carrier != NULL && ioctl(self->carrier->watch.fd, SIOCOUTQ, &size) == 0 && size > 0
             ? (size_t)size
             : 0;
}

#else

unsigned aloop__tls_kernel_probe(void) {
  return 0;
}

static int choose_tls(int fd) {
  (void)fd;
  return ALOOP_ENOTSUP;
}

static int describe(const aloop_tls_keys_t *keys, info_t *info) {
  (void)keys, (void)info;
  return ALOOP_ENOTSUP;
}

static int install(int fd, const void *info, size_t size) {
  (void)fd, (void)info, (void)size;
  return ALOOP_ENOTSUP;
}

static int send_record(int fd, int type, const void *data, size_t size) {
  (void)fd, (void)type, (void)data, (void)size;
  return ALOOP_ENOTSUP;
}

size_t aloop__tls_kernel_unsent(const aloop__tls_t *self) {
  (void)self;
  return 0;
}

#endif

/* ---- The socket's room ----------------------------------------------------------------------------------- */

/* aloop__tls_unblocked is called once there is some. */
static void await(aloop__tls_t *self) {
  aloop_transport_t *carrier = self->carrier;
  if (self->blocked || carrier->object.state >= ALOOP__ENDING) return;
  self->blocked = true;
  carrier->flags |= ALOOP__AWAITED;
  int rc = carrier->driver->await_room(carrier);
  if (rc < 0) aloop__stream_end(carrier, rc);
}

/* Whether all that was sent stands in the TCP buffer; a failure ends the carrier. */
static bool has_room(aloop_transport_t *carrier) {
  struct pollfd look = {.fd = carrier->watch.fd, .events = POLLOUT};
  if (poll(&look, 1, 0) <= 0) return false;
  if (look.revents & POLLERR) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(carrier->watch.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    aloop__stream_end(carrier, error != 0 ? -error : ALOOP_ECONNRESET);
  }
  return (look.revents & POLLOUT) != 0;
}

void aloop__tls_kernel_finish(aloop__tls_t *self) {
  if (self->queue == NULL && has_room(self->carrier)) {
    if (self->carrier->object.state < ALOOP__CLOSING) aloop__stream_close(self->carrier);
    return;
  }
  self->sent = false;
  await(self);
}

/* ---- Records that are no data ---------------------------------------------------------------------------- */

static void drop_first(aloop__tls_t *self) {
  aloop__tls_queued_t *first = self->queue;
  self->queue = first->next;
  self->queued--;
  aloop__tls_clear(first->bytes, first->size);
  aloop__memory_release(self->transport.object.loop, first);
}

void aloop__tls_kernel_drop(aloop__tls_t *self) {
  while (self->queue != NULL) drop_first(self);
}

/* Behind the others. A peer that wants new keys again and again and takes nothing is sent away. */
static int enqueue(aloop__tls_t *self, int type, const void *data, size_t size) {
  aloop__tls_queued_t **last = &self->queue;
  if (self->queued == QUEUE_MAX) return ALOOP_ENOBUFS;
  aloop__tls_queued_t *item = aloop__memory_new(self->transport.object.loop, sizeof *item + size);
  if (item == NULL) return ALOOP_ENOMEM;
  while (*last != NULL) last = &(*last)->next;
  *last = item;
  item->next = NULL;
  item->type = type;
  item->size = size;
  if (size > 0) memcpy(item->bytes, data, size);
  self->queued++;
  await(self);
  return 0;
}

/* 0, or ALOOP_EAGAIN; any other failure ends the carrier. */
static int put(aloop__tls_t *self, int type, const void *data, size_t size) {
  aloop_transport_t *carrier = self->carrier;
  if (carrier->object.state >= ALOOP__ENDING) return 0;
  int rc =
      type == KEYS ? install(carrier->watch.fd, data, size) : send_record(carrier->watch.fd, type, data, size);
  if (rc == 0 || rc == ALOOP_EAGAIN) return rc;
  aloop__stream_end(carrier, rc);
  return 0;
}

static int put_or_enqueue(aloop__tls_t *self, int type, const void *data, size_t size) {
  if (self->queue == NULL && put(self, type, data, size) == 0) return 0;
  return enqueue(self, type, data, size);
}

/* Without new keys to follow, a message about them must not be sent. */
static bool is_impossible(const aloop__tls_t *self, int type, const void *data, size_t size) {
  enum { KEY_UPDATE = 24 };
  return (self->context->kernel & ALOOP__TLS_KERNEL_KEYS) == 0 && type == HANDSHAKE && size > 0 &&
         *(const unsigned char *)data == KEY_UPDATE;
}

int aloop__tls_kernel_record(aloop_tls_wire_t *wire, int type, const void *data, size_t size) {
  aloop__tls_t *self = aloop__tls_of_wire(wire);
  if (!self->kernel) return ALOOP_ENOTSUP;
  if (!is_impossible(self, type, data, size)) return put_or_enqueue(self, type, data, size);
  if (self->error == NULL)
    self->error = aloop__memory_string(self->transport.object.loop,
                                       "the peer wants new keys, and this kernel cannot exchange them");
  return ALOOP_ETLS;
}

bool aloop__tls_kernel_unblocked(aloop__tls_t *self) {
  while (self->queue != NULL && put(self, self->queue->type, self->queue->bytes, self->queue->size) == 0)
    drop_first(self);
  if (self->queue != NULL) await(self);
  if (self->phase == ALOOP__TLS_SHUT && self->queue == NULL) aloop__tls_kernel_finish(self);
  return self->phase == ALOOP__TLS_OPEN && self->queue == NULL;
}

/* ---- Keys ------------------------------------------------------------------------------------------------ */

static int begin(aloop__tls_t *self, int version, const info_t *info) {
  int fd = self->carrier->watch.fd;
  unsigned needed = version == ALOOP_TLS_1_2 ? ALOOP__TLS_KERNEL : ALOOP__TLS_KERNEL_ALWAYS;
  if ((self->context->kernel & needed) == 0) return ALOOP_ENOTSUP;
  int rc = choose_tls(fd);
  if (rc == 0 || rc == -EEXIST) rc = install(fd, info->bytes, info->size);
  self->kernel = rc == 0;
  return rc;
}

int aloop__tls_kernel_keys(aloop_tls_wire_t *wire, const aloop_tls_keys_t *keys) {
  aloop__tls_t *self = aloop__tls_of_wire(wire);
  info_t info;
  int rc = describe(keys, &info);
  if (rc == 0 && self->kernel)
    rc = put_or_enqueue(self, KEYS, info.bytes, info.size);
  else if (rc == 0)
    rc = begin(self, keys->version, &info);
  aloop__tls_clear(&info, sizeof info);
  return rc;
}

void aloop__tls_kernel_offer(aloop__tls_t *self) {
  aloop_transport_t *carrier = self->carrier;
  if (self->offered || self->context->kernel == 0 || carrier->object.state >= ALOOP__CLOSING) return;
  if (self->blocked || !aloop__outbox_empty(&carrier->outbox)) return; /* again when they have gone */
  self->offered = true;
  if (carrier->driver != aloop__net_of(carrier->object.loop)->driver) return;
  const aloop_tls_engine_t *engine = aloop__tls_engine(self);
  if (engine->size < sizeof *engine || engine->offload == NULL) return;
  aloop__tls_io_t io = aloop__tls_io_of(self, NULL, 0);
  engine->offload(self->session, &io.wire);
}

/* ---- Data ------------------------------------------------------------------------------------------------ */

ssize_t aloop__tls_kernel_send(aloop__tls_t *self, const struct iovec *iov, int count) {
  aloop_transport_t *carrier = self->carrier;
  if (self->phase != ALOOP__TLS_OPEN || self->blocked || carrier->object.state >= ALOOP__ENDING)
    return ALOOP_EAGAIN;
  ssize_t n = carrier->driver->send(carrier, iov, count);
  if (n > 0) self->unfinished = false;
  if (n > 0 && carrier->extras != NULL) aloop__stream_touch(carrier, false, true);
  return n;
}

void aloop__tls_kernel_write_outbox(aloop__tls_t *self) {
  enum { PARTS = 64 };
  aloop_transport_t *transport = &self->transport;
  struct iovec iov[PARTS];
  while (!aloop__outbox_empty(&transport->outbox) && !self->blocked && self->phase == ALOOP__TLS_OPEN) {
    int count = aloop__outbox_peek(&transport->outbox, iov, PARTS);
    size_t offered = aloop__iov_total(iov, count);
    ssize_t n = aloop__tls_kernel_send(self, iov, count);
    if (n < 0 && n != ALOOP_EAGAIN) {
      aloop__stream_end(transport, (int)n);
      return;
    }
    if (n < (ssize_t)offered) await(self);
    if (n > 0) aloop__stream_sent(transport, (size_t)n);
  }
}

/* The socket has just refused something: it is not asked again before it has room. */
int aloop__tls_kernel_flush_outbox(aloop__tls_t *self) {
  if (self->phase == ALOOP__TLS_OPEN) await(self);
  return 0;
}

int aloop__tls_kernel_await_room(aloop__tls_t *self) {
  self->wants_room = true;
  await(self);
  return 0;
}

/* ---- Files ----------------------------------------------------------------------------------------------- */

ssize_t aloop__tls_kernel_send_file(aloop__tls_t *self, int file, int64_t offset, int64_t count) {
  aloop_transport_t *carrier = self->carrier;
  struct stat info;
  if (self->phase != ALOOP__TLS_OPEN || self->blocked) return ALOOP_EAGAIN;
  if (fstat(file, &info) < 0) return -errno;
  if (count > info.st_size - offset) count = info.st_size - offset;
  if (count <= 0) return 0;
  ssize_t n = carrier->driver->sendfile(carrier, file, offset, count);
  if (n >= 0) self->unfinished = n < count;
  return n;
}

void aloop__tls_kernel_file_over(aloop__tls_t *self) {
  if (!self->unfinished || self->phase != ALOOP__TLS_OPEN) return;
  self->unfinished = false;
  send_record(self->carrier->watch.fd, DATA, NULL, 0); /* behind a full buffer it is as good as sent, too */
}
