/* SPDX-License-Identifier: MIT
 *
 * System calls that fail on demand: see faults.h. Calls are counted across threads, because a name lookup has
 * one of its own.
 *
 * A call that fails does nothing, with three exceptions, in which the kernel does something and says
 * otherwise: an interrupted connect goes on, close gives the number back whatever it returns, and a wake-up
 * that finds its descriptor full has been made already. / */
#include "faults.h"

#ifdef __linux__ /* --wrap is what GNU linkers know, and this the list of calls made there */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#ifdef HARNESS_LIBKQUEUE
#include <sys/event.h>
#endif
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* X(name, a signal interrupts it, it may find that it would have to wait, errors). One recvmsg is of a socket that
 * blocks. */
#define CALLS(X)                                                                                               \
  X(accept, true, true, EMFILE)                                                                                \
  X(accept4, true, true, EMFILE, ECONNABORTED, ENOMEM, EPERM)                                                  \
  X(bind, false, false, EADDRINUSE, EADDRNOTAVAIL, EACCES)                                                     \
  X(clone, false, false, EAGAIN, ENOMEM, EPERM)                                                                \
  X(close, true, false, EIO)                                                                                   \
  X(connect, true, false, ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL)                                            \
  X(epoll_create1, false, false, EMFILE, ENOMEM, ENOSYS)                                                       \
  X(epoll_ctl, false, false, ENOMEM, ENOSPC)                                                                   \
  X(epoll_pwait2, true, false, ENOSYS, EPERM)                                                                  \
  X(epoll_wait, true, false, EBADF)                                                                            \
  X(eventfd, false, false, EMFILE, ENFILE, ENOMEM)                                                             \
  X(fcntl, false, false, EBADF)                                                                                \
  X(fork, false, false, EAGAIN, ENOMEM)                                                                        \
  X(fstat, false, false, EIO, EBADF)                                                                           \
  X(io_uring_enter, true, false, ENOMEM)                                                                       \
  X(io_uring_register, false, false, ENOMEM)                                                                   \
  X(io_uring_setup, false, false, EMFILE, ENOMEM, EPERM)                                                       \
  X(getpeername, false, false, ENOTCONN, ENOBUFS)                                                              \
  X(getsockname, false, false, ENOBUFS)                                                                        \
  X(getsockopt, false, false, ENOBUFS)                                                                         \
  X(kevent, true, false, ENOMEM)                                                                               \
  X(kevent_change, false, false, ENOMEM)                                                                       \
  X(listen, false, false, EADDRINUSE)                                                                          \
  X(lseek, false, false, ESPIPE)                                                                               \
  X(mmap, false, false, ENOMEM)                                                                                \
  X(open, true, false, EMFILE, EACCES)                                                                         \
  X(pipe, false, false, EMFILE, ENFILE)                                                                        \
  X(pipe2, false, false, EMFILE, ENFILE)                                                                       \
  X(poll, true, false, ENOMEM)                                                                                 \
  X(ppoll, true, false, ENOMEM)                                                                                \
  X(pread, true, false, EIO)                                                                                   \
  X(preadv2, true, true, EOPNOTSUPP, EIO)                                                                      \
  X(pselect, true, false, ENOMEM)                                                                              \
  X(pwritev2, true, true, EOPNOTSUPP, EPIPE, ENOSYS)                                                           \
  X(read, true, true, EIO)                                                                                     \
  X(recvmmsg, true, true, ECONNREFUSED, ENOMEM)                                                                \
  X(recvmsg, true, false, ENOMEM, ECONNRESET)                                                                  \
  X(recv, true, true, ECONNRESET, ETIMEDOUT, ENOMEM)                                                           \
  X(recvfrom, true, true, ECONNREFUSED, ENOMEM)                                                                \
  X(send, true, true, EPIPE, ECONNRESET, ENOBUFS)                                                              \
  X(sendfile, true, true, EINVAL, EIO, ECONNRESET)                                                             \
  X(sendmmsg, true, true, ECONNREFUSED, ENOBUFS, EINVAL)                                                       \
  X(sendmsg, true, true, EPIPE, ECONNRESET, ENOMEM)                                                            \
  X(sendto, true, true, ECONNREFUSED, ENOBUFS)                                                                 \
  X(setsockopt, false, false, ENOBUFS, ENOMEM)                                                                 \
  X(shutdown, false, false, ENOTCONN, EIO)                                                                     \
  X(socket, false, false, EMFILE, ENOBUFS, EAFNOSUPPORT)                                                       \
  X(socketpair, false, false, EMFILE, ENFILE, ENOBUFS)                                                         \
  X(splice, true, true, EINVAL, ECONNRESET, ENOMEM)                                                            \
  X(waitid, true, false, ECHILD)                                                                               \
  X(write, true, true, EAGAIN)                                                                                 \
  X(writev, true, true, EPIPE, EIO)

enum {
#define X(name, ...) CALL_##name,
  CALLS(X)
#undef X
      CALL_COUNT
};

typedef struct call {
  const char *name;
  bool interruptible;
  bool may_wait;
  int errors[4];
} call_t;

static const call_t calls[CALL_COUNT] = {
#define X(name, interruptible, may_wait, ...) {#name, interruptible, may_wait, {__VA_ARGS__}},
    CALLS(X)
#undef X
};

enum { REPETITIONS = 4 };

static atomic_bool armed;
static atomic_long count;
static atomic_long count_of[CALL_COUNT];
static atomic_bool struck;
static fault_kind_t kind;
static long nth;
static int variant;
static size_t limit; /* of bytes sent between two polls; 0: none */
static size_t room;
static bool no_sendfile;
static atomic_uchar sequence[FAULT_CALLS_MAX];
static _Atomic(const struct call *) repeated; /* by FAULT_ERRORS */
static atomic_int repetitions;

void faults_begin(fault_kind_t which, long n, int error) {
  kind = which;
  nth = n;
  variant = error;
  limit = 0;
  no_sendfile = false;
  repeated = NULL;
  repetitions = 0;
  atomic_store(&count, 0);
  for (int i = 0; i < CALL_COUNT; i++) atomic_store(&count_of[i], 0);
  atomic_store(&struck, false);
  atomic_store(&armed, true);
}

void faults_end(void) {
  atomic_store(&armed, false);
}

void faults_pause(void) {
  faults_end();
}

void faults_resume(void) {
  atomic_store(&armed, true);
}

void faults_limit_sends(size_t bytes) {
  limit = room = bytes;
}

void faults_without_sendfile(void) {
  no_sendfile = true;
}

long faults_calls(void) {
  return atomic_load(&count);
}

long faults_calls_of(const char *name) {
  for (int i = 0; i < CALL_COUNT; i++)
    if (strcmp(calls[i].name, name) == 0) return atomic_load(&count_of[i]);
  return 0;
}

bool faults_struck(void) {
  return atomic_load(&struck);
}

static const call_t *call_at(long n) {
  return &calls[n > 0 && n < FAULT_CALLS_MAX ? atomic_load(&sequence[n]) : 0];
}

const char *faults_name(long n) {
  return call_at(n)->name;
}

static int errors_of(const call_t *call) {
  int known = 0;
  while (known < 4 && call->errors[known] != 0) known++;
  return known;
}

int faults_errors(long n) {
  return errors_of(call_at(n));
}

bool faults_interruptible(long n) {
  return call_at(n)->interruptible;
}

bool faults_may_wait(long n) {
  return call_at(n)->may_wait;
}

/* Every other call or so. Not in step with anything: calls that take turns must both get theirs. */
static bool heads(long n) {
  return ((uint64_t)n * UINT64_C(0x9e3779b97f4a7c15) >> 40 & 1) != 0;
}

/* The errno with which this call is to fail, or 0. */
static int error_for(const call_t *call, long n) {
  bool often = kind == FAULT_INTERRUPT_OFTEN || kind == FAULT_AGAIN_OFTEN;
  if (kind == FAULT_ERRORS && n == nth) repeated = call;
  if (kind == FAULT_ERRORS ? call != repeated || repetitions++ >= REPETITIONS : often ? !heads(n) : n != nth)
    return 0;
  switch (kind) {
  case FAULT_ERROR:
  case FAULT_ERRORS:
    return call->errors[variant % errors_of(call)];
  case FAULT_INTERRUPT:
  case FAULT_INTERRUPT_OFTEN:
    return call->interruptible ? EINTR : 0;
  case FAULT_AGAIN:
  case FAULT_AGAIN_OFTEN:
    return call->may_wait ? EAGAIN : 0;
  default:
    return 0;
  }
}

/* Counts a call. True with errno set: it fails. */
static bool fails(int which) {
  if (!atomic_load(&armed)) return false;
  long n = atomic_fetch_add(&count, 1) + 1;
  atomic_fetch_add(&count_of[which], 1);
  if (n < FAULT_CALLS_MAX && kind == FAULT_NONE) atomic_store(&sequence[n], (unsigned char)which);
  int error = error_for(&calls[which], n);
  if (error == 0) return false;
  atomic_store(&struck, true);
  errno = error;
  return true;
}

static bool cuts(void) {
  return kind == FAULT_SHORT && atomic_load(&armed);
}

static size_t cut(size_t size) {
  return cuts() && size > 1 ? 1 : size;
}

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *size);

/* What is no stream has messages, which move whole or not at all. */
static bool is_stream(int fd) {
  int type = SOCK_STREAM;
  socklen_t size = sizeof type;
  __real_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  return type == SOCK_STREAM;
}

/* What is left of the limit for a send. False: the socket is full. */
static bool take_room(size_t *size) {
  if (limit == 0 || !atomic_load(&armed)) return true;
  if (*size > room) *size = room;
  room -= *size;
  errno = EAGAIN;
  return *size > 0;
}

/* A call that waits for sockets: they have taken what they were given. */
static bool poll_fails(int which) {
  if (limit != 0) room = limit;
  return fails(which);
}

#define WRAP(type, name, ...)                                                                                  \
  type __real_##name(__VA_ARGS__);                                                                             \
  type __wrap_##name(__VA_ARGS__);                                                                             \
  type __wrap_##name(__VA_ARGS__)

/* ---- Sockets -----------------------------------------------------------------------------------------------
 */

WRAP(int, socket, int family, int type, int protocol) {
  return fails(CALL_socket) ? -1 : __real_socket(family, type, protocol);
}

WRAP(int, socketpair, int family, int type, int protocol, int fds[2]) {
  return fails(CALL_socketpair) ? -1 : __real_socketpair(family, type, protocol, fds);
}

WRAP(int, bind, int fd, const struct sockaddr *address, socklen_t size) {
  return fails(CALL_bind) ? -1 : __real_bind(fd, address, size);
}

WRAP(int, listen, int fd, int backlog) {
  return fails(CALL_listen) ? -1 : __real_listen(fd, backlog);
}

WRAP(int, connect, int fd, const struct sockaddr *address, socklen_t size) {
  if (!fails(CALL_connect)) return __real_connect(fd, address, size);
  if (errno != EINTR) return -1;
  if (__real_connect(fd, address, size) == 0 || errno == EINPROGRESS) errno = EINTR;
  return -1;
}

WRAP(int, accept, int fd, struct sockaddr *address, socklen_t *size) {
  return fails(CALL_accept) ? -1 : __real_accept(fd, address, size);
}

WRAP(int, accept4, int fd, struct sockaddr *address, socklen_t *size, int flags) {
  return fails(CALL_accept4) ? -1 : __real_accept4(fd, address, size, flags);
}

WRAP(int, getsockopt, int fd, int level, int name, void *value, socklen_t *size) {
  return fails(CALL_getsockopt) ? -1 : __real_getsockopt(fd, level, name, value, size);
}

WRAP(int, setsockopt, int fd, int level, int name, const void *value, socklen_t size) {
  return fails(CALL_setsockopt) ? -1 : __real_setsockopt(fd, level, name, value, size);
}

WRAP(int, getsockname, int fd, struct sockaddr *address, socklen_t *size) {
  return fails(CALL_getsockname) ? -1 : __real_getsockname(fd, address, size);
}

WRAP(int, getpeername, int fd, struct sockaddr *address, socklen_t *size) {
  return fails(CALL_getpeername) ? -1 : __real_getpeername(fd, address, size);
}

WRAP(int, shutdown, int fd, int how) {
  if (!fails(CALL_shutdown)) return __real_shutdown(fd, how);
  int error = errno;
  if (error == ENOTCONN) __real_shutdown(fd, SHUT_RDWR);
  errno = error;
  return -1;
}

/* ---- Bytes
 * --------------------------------------------------------------------------------------------------- */

WRAP(ssize_t, recv, int fd, void *buffer, size_t size, int flags) {
  if (fails(CALL_recv)) return -1;
  return __real_recv(fd, buffer, cuts() && is_stream(fd) ? cut(size) : size, flags);
}

WRAP(ssize_t, send, int fd, const void *buffer, size_t size, int flags) {
  if (fails(CALL_send)) return -1;
  if (limit == 0 && !cuts()) return __real_send(fd, buffer, size, flags);
  bool stream = is_stream(fd);
  if (stream && !take_room(&size)) return -1;
  return __real_send(fd, buffer, stream ? cut(size) : size, flags);
}

WRAP(ssize_t, recvfrom, int fd, void *buffer, size_t size, int flags, struct sockaddr *from,
     socklen_t *from_size) {
  return fails(CALL_recvfrom) ? -1 : __real_recvfrom(fd, buffer, size, flags, from, from_size);
}

WRAP(ssize_t, sendto, int fd, const void *buffer, size_t size, int flags, const struct sockaddr *to,
     socklen_t to_size) {
  return fails(CALL_sendto) ? -1 : __real_sendto(fd, buffer, size, flags, to, to_size);
}

static ssize_t send_first_bytes(int fd, const struct msghdr *message, int flags) {
  size_t i = 0;
  while (i + 1 < (size_t)message->msg_iovlen && message->msg_iov[i].iov_len == 0) i++;
  size_t size = message->msg_iov[i].iov_len;
  if (!take_room(&size)) return -1;
  return __real_send(fd, message->msg_iov[i].iov_base, cut(size), flags);
}

WRAP(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags) {
  if (fails(CALL_sendmsg)) return -1;
  bool whole = !atomic_load(&armed) || (kind != FAULT_SHORT && limit == 0) || message->msg_controllen > 0 ||
               !is_stream(fd);
  return whole ? __real_sendmsg(fd, message, flags) : send_first_bytes(fd, message, flags);
}

WRAP(ssize_t, recvmsg, int fd, struct msghdr *message, int flags) {
  return fails(CALL_recvmsg) ? -1 : __real_recvmsg(fd, message, flags);
}

WRAP(int, sendmmsg, int fd, struct mmsghdr *messages, unsigned messages_count, int flags) {
  if (fails(CALL_sendmmsg)) return -1;
  return __real_sendmmsg(fd, messages, cuts() ? 1 : messages_count, flags);
}

WRAP(int, recvmmsg, int fd, struct mmsghdr *messages, unsigned messages_count, int flags,
     struct timespec *timeout) {
  if (fails(CALL_recvmmsg)) return -1;
  return __real_recvmmsg(fd, messages, cuts() ? 1 : messages_count, flags, timeout);
}

WRAP(ssize_t, sendfile, int fd, int file, off_t *at, size_t size) {
  errno = EINVAL;
  if (no_sendfile || fails(CALL_sendfile) || !take_room(&size)) return -1;
  return __real_sendfile(fd, file, at, cut(size));
}

WRAP(ssize_t, pread, int fd, void *buffer, size_t size, off_t at) {
  return fails(CALL_pread) ? -1 : __real_pread(fd, buffer, cut(size), at);
}

/* Never less than the number of wake-ups. */
WRAP(ssize_t, read, int fd, void *buffer, size_t size) {
  return fails(CALL_read) ? -1 : __real_read(fd, buffer, size > sizeof(uint64_t) ? cut(size) : size);
}

WRAP(ssize_t, write, int fd, const void *buffer, size_t size) {
  if (!fails(CALL_write)) return __real_write(fd, buffer, size);
  int error = errno;
  bool wakes = size <= sizeof(uint64_t);
  if (error == EAGAIN && wakes && __real_write(fd, buffer, size) < 0) return -1;
  errno = error;
  return -1;
}

/* The first part of the parts that a call may move. */
static const struct iovec *cut_parts(const struct iovec *parts, int *parts_count, struct iovec *room_for) {
  if (kind != FAULT_SHORT || !atomic_load(&armed)) return parts;
  while (*parts_count > 1 && parts->iov_len == 0) parts++, --*parts_count;
  *room_for = (struct iovec){parts->iov_base, cut(parts->iov_len)};
  *parts_count = 1;
  return room_for;
}

WRAP(ssize_t, writev, int fd, const struct iovec *parts, int parts_count) {
  struct iovec first;
  if (fails(CALL_writev)) return -1;
  parts = cut_parts(parts, &parts_count, &first);
  return __real_writev(fd, parts, parts_count);
}

/* These two are not in every C library: then nobody calls them. */
__attribute__((weak)) ssize_t __real_preadv2(int fd, const struct iovec *parts, int parts_count, off_t at,
                                             int flags);
ssize_t __wrap_preadv2(int fd, const struct iovec *parts, int parts_count, off_t at, int flags);
ssize_t __wrap_preadv2(int fd, const struct iovec *parts, int parts_count, off_t at, int flags) {
  struct iovec first;
  if (fails(CALL_preadv2)) return -1;
  parts = cut_parts(parts, &parts_count, &first);
  return __real_preadv2(fd, parts, parts_count, at, flags);
}

__attribute__((weak)) ssize_t __real_pwritev2(int fd, const struct iovec *parts, int parts_count, off_t at,
                                              int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *parts, int parts_count, off_t at, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *parts, int parts_count, off_t at, int flags) {
  struct iovec first;
  if (fails(CALL_pwritev2)) return -1;
  parts = cut_parts(parts, &parts_count, &first);
  return __real_pwritev2(fd, parts, parts_count, at, flags);
}

/* ---- Files -------------------------------------------------------------------------------------------------
 */

WRAP(int, close, int fd) {
  if (!fails(CALL_close)) return __real_close(fd);
  int error = errno;
  __real_close(fd);
  errno = error;
  return -1;
}

WRAP(int, fstat, int fd, struct stat *info) {
  return fails(CALL_fstat) ? -1 : __real_fstat(fd, info);
}

WRAP(ssize_t, splice, int in, off_t *in_at, int out, off_t *out_at, size_t size, unsigned flags) {
  return fails(CALL_splice) ? -1 : __real_splice(in, in_at, out, out_at, cut(size), flags);
}

WRAP(off_t, lseek, int fd, off_t offset, int whence) {
  return fails(CALL_lseek) ? -1 : __real_lseek(fd, offset, whence);
}

WRAP(int, open, const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;
  va_end(arguments);
  return fails(CALL_open) ? -1 : __real_open(path, flags, mode);
}

WRAP(int, fcntl, int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  long argument = command == F_GETFL || command == F_GETFD ? 0 : va_arg(arguments, long);
  va_end(arguments);
  return fails(CALL_fcntl) ? -1 : __real_fcntl(fd, command, argument);
}

/* ---- Processes ---------------------------------------------------------------------------------------------
 */

WRAP(pid_t, fork, void) {
  return fails(CALL_fork) ? -1 : __real_fork();
}

/* As the library calls it, with a place for a pidfd; elsewhere it is not called. */
__attribute__((weak)) int __real_clone(int (*run)(void *), void *stack, int flags, void *arg, int *pidfd);
int __wrap_clone(int (*run)(void *), void *stack, int flags, void *arg, int *pidfd);
int __wrap_clone(int (*run)(void *), void *stack, int flags, void *arg, int *pidfd) {
  return fails(CALL_clone) ? -1 : __real_clone(run, stack, flags, arg, pidfd);
}

WRAP(void *, mmap, void *address, size_t size, int protection, int flags, int fd, off_t offset) {
  return fails(CALL_mmap) ? MAP_FAILED : __real_mmap(address, size, protection, flags, fd, offset);
}

WRAP(int, pipe, int ends[2]) {
  return fails(CALL_pipe) ? -1 : __real_pipe(ends);
}

WRAP(int, pipe2, int ends[2], int flags) {
  return fails(CALL_pipe2) ? -1 : __real_pipe2(ends, flags);
}

WRAP(int, waitid, idtype_t type, id_t id, siginfo_t *info, int options) {
  return fails(CALL_waitid) ? -1 : __real_waitid(type, id, info, options);
}

/* ---- Pollers -----------------------------------------------------------------------------------------------
 */

WRAP(int, epoll_create1, int flags) {
  return fails(CALL_epoll_create1) ? -1 : __real_epoll_create1(flags);
}

WRAP(int, epoll_ctl, int set, int operation, int fd, struct epoll_event *event) {
  return fails(CALL_epoll_ctl) ? -1 : __real_epoll_ctl(set, operation, fd, event);
}

WRAP(int, epoll_wait, int set, struct epoll_event *events, int room_for, int timeout) {
  return poll_fails(CALL_epoll_wait) ? -1 : __real_epoll_wait(set, events, room_for, timeout);
}

/* Not in every C library: then nobody calls this. */
__attribute__((weak)) int __real_epoll_pwait2(int set, struct epoll_event *events, int room_for,
                                              const struct timespec *timeout, const sigset_t *mask);
int __wrap_epoll_pwait2(int set, struct epoll_event *events, int room_for, const struct timespec *timeout,
                        const sigset_t *mask);
int __wrap_epoll_pwait2(int set, struct epoll_event *events, int room_for, const struct timespec *timeout,
                        const sigset_t *mask) {
  return poll_fails(CALL_epoll_pwait2) ? -1 : __real_epoll_pwait2(set, events, room_for, timeout, mask);
}

#ifdef HARNESS_LIBKQUEUE
/* What is deleted in the same call need not be made anew. */
static bool is_new(const struct kevent *changes, const struct kevent *change) {
  for (const struct kevent *earlier = changes; earlier < change; earlier++)
    if (earlier->filter == change->filter) return false;
  return (change->flags & EV_ADD) != 0;
}

/* It is two calls in one. Of the changes those fail that take memory, each for itself; none is interrupted. */
WRAP(int, kevent, int kq, const struct kevent *changes, int changes_count, struct kevent *events, int room_for,
     const struct timespec *timeout) {
  bool changing = changes_count > 0, failing = changing ? fails(CALL_kevent_change) : poll_fails(CALL_kevent);
  if (!failing) return __real_kevent(kq, changes, changes_count, events, room_for, timeout);
  if (!changing) return -1;
  int found = 0, error = errno;
  for (const struct kevent *change = changes; change < changes + changes_count; change++) {
    if (!is_new(changes, change)) {
      found += __real_kevent(kq, change, 1, &events[found], 1, timeout);
    } else {
      events[found] = *change;
      events[found].flags = EV_ERROR;
      events[found++].data = error;
    }
  }
  return found;
}
#endif

WRAP(int, poll, struct pollfd *fds, nfds_t size, int timeout) {
  return poll_fails(CALL_poll) ? -1 : __real_poll(fds, size, timeout);
}

WRAP(int, ppoll, struct pollfd *fds, nfds_t size, const struct timespec *timeout, const sigset_t *mask) {
  return poll_fails(CALL_ppoll) ? -1 : __real_ppoll(fds, size, timeout, mask);
}

WRAP(int, pselect, int size, fd_set *readers, fd_set *writers, fd_set *others, const struct timespec *timeout,
     const sigset_t *mask) {
  return poll_fails(CALL_pselect) ? -1 : __real_pselect(size, readers, writers, others, timeout, mask);
}

/* What has no function of its own. Only io_uring's calls count: the others are made between fork and exec. All six
 * arguments are passed on, as the C library does, however many there are; the address sanitizer minds that. */
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
__attribute__((no_sanitize_address)) long __wrap_syscall(long number, ...) {
  long arg[6] = {0};
  int given = 4; /* more than there are must not be read */
#ifdef __NR_io_uring_setup
  if (number == __NR_io_uring_enter) given = 6;
#endif
  va_list args;
  va_start(args, number);
  for (int i = 0; i < given; i++) arg[i] = va_arg(args, long);
  va_end(args);
#ifdef __NR_io_uring_setup
  if (number == __NR_io_uring_enter && poll_fails(CALL_io_uring_enter)) return -1;
  if (number == __NR_io_uring_register && fails(CALL_io_uring_register)) return -1;
  if (number == __NR_io_uring_setup && fails(CALL_io_uring_setup)) return -1;
#endif
  return __real_syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

/* The argument is unsigned in one C library and int in another; the bits are the same. */
WRAP(int, eventfd, unsigned value, int flags) {
  return fails(CALL_eventfd) ? -1 : __real_eventfd(value, flags);
}

#else
typedef int faults_are_not_known_here; /* ISO C wants a declaration in every file */
#endif
