/* SPDX-License-Identifier: MIT
 *
 * Operations on the caller's own sockets, one future each: asyncio's sock_recv and its relatives.
 *
 * An operation is an attempt that can be repeated. The first one is made at once, with its state on the stack:
 * if it succeeds there is nothing but a finished future. Only if the kernel says "not now" does the state move
 * to a block of its own and wait for its direction of the descriptor (watch.c), and each event is another
 * attempt. Reading and accepting wait for one direction, sending and connecting for the other, and each
 * direction has room for one: a second operation is refused before it can take bytes that the first was
 * promised.
 *
 * Whatever ends an operation (its result, cancel, aloop_close) takes the watch away in the same call, so the
 * descriptor may be closed right behind it; no event that was already polled can reach whoever gets its number
 * next, because the watch of that one has another generation.
 *
 * The descriptor must be non-blocking, which is checked in debug mode only. Sends and receives say MSG_DONTWAIT
 * besides, and so do not wait on one that is not.
 *
 * The descriptor that sock_accept ends with belongs to the future until somebody reads it (future.h): dropping
 * the future of an accept that had succeeded, after a timeout perhaps, closes the connection.
 */
#include "net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/address.h"
#include "net/sigpipe.h"

enum { ACCEPT_TRIES = 64 };

/* Where there is no such flag the signal is held back instead. */
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* ---- The operation --------------------------------------------------------------------------------------- */

/* Ends the future. The operation is not used any more. */
static void conclude(aloop__sock_t *op, aloop_future_t *future, int64_t result) {
  if (op->kind->leave != NULL) op->kind->leave(op);
  if (op->kind->conclude != NULL)
    op->kind->conclude(op, future, result);
  else if (result < 0)
    aloop__future_fail(future, (int)result, NULL);
  else
    aloop__future_finish(future, result);
}

/* The future's stop function. */
static void stop(aloop_future_t *future, void *arg) {
  (void)future;
  aloop__sock_t *op = arg;
  aloop__watch_wait_end(op->loop, op->fd, op->kind->direction);
  if (op->kind->leave != NULL) op->kind->leave(op);
  aloop__memory_release(op->loop, op);
}

static void ready(aloop_t *loop, void *arg) {
  aloop__sock_t *op = arg;
  int64_t result = op->kind->attempt(op);
  if (result == ALOOP__SOCK_WAIT) return;
  aloop__watch_wait_end(loop, op->fd, op->kind->direction);
  conclude(op, op->future, result);
  aloop__memory_release(loop, op);
}

static int leave_to_parent(aloop__object_t *object) {
  aloop_future_t *future = aloop__future_of_operation(object, stop);
  if (future == NULL) return 0;
  aloop__sock_t *op = future->stop_arg;
  const aloop__sock_kind_t *kind = op->kind;
  if (!kind->sends) return 0;
  if (kind->leave != NULL) op->part.file = -1; /* its position belongs to both processes */
  stop(future, op);
  aloop__future_fail(future, ALOOP_ECHILD, "%s goes on in the parent process", kind->name);
  return 0;
}

static int after_fork(aloop_t *loop, aloop__room_t *room) {
  (void)room;
  return aloop__object_each(loop, leave_to_parent);
}

static void close_room(aloop_t *loop, aloop__room_t *room) {
  (void)loop, (void)room;
}

/* It keeps nothing: it is there to hear of forks. */
static const aloop__room_t sends = {.close = close_room, .after_fork = after_fork};

static int begin_waiting(const aloop__sock_t *op, aloop_future_t *future) {
  aloop__sock_t *waiting = aloop__memory_new(op->loop, sizeof *waiting + op->to_size);
  if (waiting == NULL) return ALOOP_ENOMEM;
  *waiting = *op;
  waiting->future = future;
  if (op->to_size > 0) waiting->to = memcpy(waiting + 1, op->to, op->to_size);
  int rc = aloop__watch_wait(op->loop, op->fd, op->kind->direction, ready, waiting, op->kind->name);
  if (rc < 0)
    aloop__memory_release(op->loop, waiting);
  else
    aloop__future_set_operation(future, stop, waiting);
  if (op->kind->sends) op->loop->rooms[ALOOP__ROOM_SOCKS] = (aloop__room_t *)&sends;
  return rc;
}

/* What keeps the operation from its descriptor: a code with a rule, or 0. */
static int check_descriptor(const aloop__sock_t *op, const char **rule) {
  *rule = aloop__watch_conflict(op->loop, op->fd, op->kind->direction);
  if (*rule != NULL) return ALOOP_EBUSY;
  if ((op->loop->guard & ALOOP__GUARD_DEBUG) == 0) return 0;
  int status = fcntl(op->fd, F_GETFL);
  if (status < 0 || (status & O_NONBLOCK) != 0) return 0;
  *rule = "the descriptor is blocking; set O_NONBLOCK, or make it with SOCK_NONBLOCK";
  return ALOOP_EINVAL;
}

aloop_future_t *aloop__sock_start(aloop__sock_t *op) {
  const char *rule;
  aloop_future_t *future = aloop__future_new(op->loop, op->kind->name);
  if (future == NULL || aloop_future_done(future)) return future;
  int rc = check_descriptor(op, &rule);
  if (rc < 0) {
    aloop__future_fail(future, aloop__misuse(op->loop, rc, rule), "fd %d: %s", op->fd, rule);
    return future;
  }
  int64_t result = op->kind->attempt(op);
  if (result == ALOOP__SOCK_WAIT) {
    result = begin_waiting(op, future);
    if (result == 0) return future;
  }
  conclude(op, future, result);
  return future;
}

/* ---- Attempts -------------------------------------------------------------------------------------------- */

/* What a system call answered, which left errno. */
static int64_t result_of(ssize_t n) {
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK ? ALOOP__SOCK_WAIT : -errno;
}

ssize_t aloop__sock_send(int fd, const void *data, size_t size, const struct sockaddr *to, socklen_t to_size) {
  aloop__sigpipe_t held;
  ssize_t n;
  if (MSG_NOSIGNAL == 0) aloop__sigpipe_hold(&held);
  do
    n = to == NULL ? send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                   : sendto(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, to, to_size);
  while (n < 0 && errno == EINTR);
  if (MSG_NOSIGNAL == 0) aloop__sigpipe_release(&held, n != (ssize_t)size);
  return n;
}

static int64_t attempt_recv(aloop__sock_t *op) {
  ssize_t n;
  do n = recv(op->fd, op->buffer, op->size, MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return result_of(n);
}

static int64_t attempt_recvfrom(aloop__sock_t *op) {
  socklen_t size = op->from != NULL ? *op->from_size : 0;
  ssize_t n;
  do n = recvfrom(op->fd, op->buffer, op->size, MSG_DONTWAIT, op->from, op->from != NULL ? &size : NULL);
  while (n < 0 && errno == EINTR);
  if (n >= 0 && op->from != NULL) *op->from_size = size;
  return result_of(n);
}

static int64_t attempt_sendall(aloop__sock_t *op) {
  size_t budget = ALOOP__SOCK_BUDGET;
  while (op->sent < op->data_size && budget > 0) {
    size_t left = op->data_size - op->sent;
    ssize_t n = aloop__sock_send(op->fd, op->data + op->sent, left < budget ? left : budget, NULL, 0);
    if (n < 0) return result_of(n);
    op->sent += (size_t)n;
    budget -= (size_t)n;
  }
  return op->sent == op->data_size ? (int64_t)op->sent : ALOOP__SOCK_WAIT;
}

static int64_t attempt_sendto(aloop__sock_t *op) {
  return result_of(aloop__sock_send(op->fd, op->data, op->data_size, op->to, op->to_size));
}

/* A connect goes on by itself once it has begun, also when a signal interrupted the call. EAGAIN is an error: a
 * unix socket whose listener has its backlog full tells nobody when that is over. */
static int64_t attempt_connect(aloop__sock_t *op) {
  int error = 0;
  socklen_t size = sizeof error;
  if (!op->begun) {
    op->begun = true;
    if (connect(op->fd, op->to, op->to_size) == 0) return 0;
    return errno == EINPROGRESS || errno == EINTR ? ALOOP__SOCK_WAIT : -errno;
  }
  if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) error = errno;
  return -error;
}

/* Connections that died while they waited are passed over. */
static int64_t attempt_accept(aloop__sock_t *op) {
  for (int tries = ACCEPT_TRIES; tries > 0; tries--) {
    int fd = aloop__address_accept(op->fd, op->from, op->from_size);
    if (fd == ALOOP_EAGAIN) return ALOOP__SOCK_WAIT;
    if (!aloop__address_accept_again(fd)) return fd;
  }
  return ALOOP__SOCK_WAIT;
}

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void conclude_sendall(const aloop__sock_t *op, aloop_future_t *future, int64_t result) {
  if (result >= 0)
    aloop__future_finish(future, result);
  else
    aloop__future_fail(future, (int)result, "%zu of %zu bytes were sent: %s", op->sent, op->data_size,
                       aloop_strerror(result));
}

static void conclude_connect(const aloop__sock_t *op, aloop_future_t *future, int64_t result) {
  char address[ALOOP__ADDRESS_TEXT];
  if (result >= 0) {
    aloop__future_finish(future, result);
    return;
  }
  aloop__future_add_attempt(future, op->to, op->to_size, (int)result);
  aloop__future_fail(future, (int)result, "connect to %s: %s",
                     aloop__address_text(op->to, op->to_size, address), aloop_strerror(result));
}

static void close_unread(void *value) {
  close((int)(intptr_t)value);
}

static void conclude_accept(const aloop__sock_t *op, aloop_future_t *future, int64_t result) {
  (void)op;
  if (result < 0)
    aloop__future_fail(future, (int)result, NULL);
  else
    aloop__future_finish_owned(future, result, close_unread);
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

static const aloop__sock_kind_t recv_kind = {
    .name = "aloop_sock_recv", .direction = ALOOP_READABLE, .attempt = attempt_recv};
static const aloop__sock_kind_t recvfrom_kind = {
    .name = "aloop_sock_recvfrom", .direction = ALOOP_READABLE, .attempt = attempt_recvfrom};
static const aloop__sock_kind_t sendall_kind = {.name = "aloop_sock_sendall",
                                                .direction = ALOOP_WRITABLE,
                                                .sends = true,
                                                .attempt = attempt_sendall,
                                                .conclude = conclude_sendall};
static const aloop__sock_kind_t sendto_kind = {
    .name = "aloop_sock_sendto", .direction = ALOOP_WRITABLE, .sends = true, .attempt = attempt_sendto};
static const aloop__sock_kind_t connect_kind = {.name = "aloop_sock_connect",
                                                .direction = ALOOP_WRITABLE,
                                                .attempt = attempt_connect,
                                                .conclude = conclude_connect};
static const aloop__sock_kind_t accept_kind = {.name = "aloop_sock_accept",
                                               .direction = ALOOP_READABLE,
                                               .attempt = attempt_accept,
                                               .conclude = conclude_accept};

#define NO_SIZE "room for an address has a size: set address_size"

static bool is_address(const struct sockaddr *address, socklen_t size) {
  return address != NULL && size >= sizeof address->sa_family && size <= sizeof(struct sockaddr_storage);
}

aloop_future_t *aloop_sock_recv(aloop_t *loop, int fd, void *buffer, size_t size) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (buffer == NULL && size > 0)
    return aloop__future_refused(loop, recv_kind.name, ALOOP_EINVAL, "sock_recv needs a buffer");
  aloop__sock_t op = {.kind = &recv_kind, .loop = loop, .fd = fd, .buffer = buffer, .size = size};
  return aloop__sock_start(&op);
}

aloop_future_t *aloop_sock_recvfrom(aloop_t *loop, int fd, void *buffer, size_t size, struct sockaddr *address,
                                    socklen_t *address_size) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (buffer == NULL && size > 0)
    return aloop__future_refused(loop, recvfrom_kind.name, ALOOP_EINVAL, "sock_recvfrom needs a buffer");
  if (address != NULL && address_size == NULL)
    return aloop__future_refused(loop, recvfrom_kind.name, ALOOP_EINVAL, NO_SIZE);
  aloop__sock_t op = {.kind = &recvfrom_kind, .loop = loop, .fd = fd, .buffer = buffer, .size = size};
  op.from = address;
  op.from_size = address_size;
  return aloop__sock_start(&op);
}

aloop_future_t *aloop_sock_sendall(aloop_t *loop, int fd, const void *data, size_t size) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (data == NULL && size > 0)
    return aloop__future_refused(loop, sendall_kind.name, ALOOP_EINVAL, "sock_sendall needs data");
  aloop__sock_t op = {.kind = &sendall_kind, .loop = loop, .fd = fd, .data = data, .data_size = size};
  return aloop__sock_start(&op);
}

aloop_future_t *aloop_sock_sendto(aloop_t *loop, int fd, const void *data, size_t size,
                                  const struct sockaddr *address, socklen_t address_size) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (data == NULL && size > 0)
    return aloop__future_refused(loop, sendto_kind.name, ALOOP_EINVAL, "sock_sendto needs data");
  if (address != NULL && !is_address(address, address_size))
    return aloop__future_refused(loop, sendto_kind.name, ALOOP_EINVAL, "address_size does not fit an address");
  aloop__sock_t op = {.kind = &sendto_kind, .loop = loop, .fd = fd, .data = data, .data_size = size};
  op.to = address;
  op.to_size = address != NULL ? address_size : 0;
  return aloop__sock_start(&op);
}

aloop_future_t *aloop_sock_connect(aloop_t *loop, int fd, const struct sockaddr *address,
                                   socklen_t address_size) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (!is_address(address, address_size))
    return aloop__future_refused(loop, connect_kind.name, ALOOP_EINVAL, "sock_connect needs an address");
  aloop__sock_t op = {.kind = &connect_kind, .loop = loop, .fd = fd, .to = address, .to_size = address_size};
  return aloop__sock_start(&op);
}

aloop_future_t *aloop_sock_accept(aloop_t *loop, int fd, struct sockaddr *address, socklen_t *address_size) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (address != NULL && address_size == NULL)
    return aloop__future_refused(loop, accept_kind.name, ALOOP_EINVAL, NO_SIZE);
  aloop__sock_t op = {.kind = &accept_kind, .loop = loop, .fd = fd};
  op.from = address;
  op.from_size = address != NULL ? address_size : NULL;
  return aloop__sock_start(&op);
}
