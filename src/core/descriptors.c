/* SPDX-License-Identifier: MIT
 *
 * What a forked child does with the descriptors it inherited. A process that was forked but does not exec
 * keeps them all, close-on-exec or not: listening sockets stay bound, pipes never end, and the peers of
 * connections wait for ever. So it closes them, in the first of three ways that works: one system call; the
 * entries of /proc/self/fd, read without opendir, which would allocate; or every number up to the limit, of
 * which a system may allow a thousand million, so the last way stops at LIMIT_MAX.
 *
 * A child of a process with threads may call async-signal-safe functions only; nothing else is used here.
 */
#include "core/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum { LIMIT_MAX = 1 << 20 };

int aloop__descriptors_pair(int fds[2]) {
#ifdef SOCK_CLOEXEC
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) return -errno;
#else
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) return -errno;
  for (int i = 0; i < 2; i++) fcntl(fds[i], F_SETFD, FD_CLOEXEC);
#endif
#ifdef SO_NOSIGPIPE
  for (int i = 0; i < 2; i++) setsockopt(fds[i], SOL_SOCKET, SO_NOSIGPIPE, &(int){1}, sizeof(int));
#endif
  return 0;
}

bool aloop__descriptors_again(int fd, short events) {
  if (errno == EINTR) return true;
  if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
  struct pollfd entry = {.fd = fd, .events = events};
  poll(&entry, 1, -1);
  return true;
}

bool aloop__descriptors_send(int fd, const void *data, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
    if (n >= 0)
      done += (size_t)n;
    else if (!aloop__descriptors_again(fd, POLLOUT))
      return false;
  }
  return true;
}

bool aloop__descriptors_receive(int fd, void *data, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = recv(fd, (char *)data + done, size - done, 0);
    if (n > 0)
      done += (size_t)n;
    else if (n == 0 || !aloop__descriptors_again(fd, POLLIN))
      return false;
  }
  return true;
}

#if defined(__linux__) && defined(SYS_getdents64)
/* What the kernel writes; the C library has a name for it only with readdir. */
typedef struct entry {
  uint64_t inode;
  int64_t offset;
  unsigned short size;
  unsigned char type;
  char name[];
} entry_t;

/* The number that an entry of /proc/self/fd is called; -1 for "." and "..". */
static int number_of(const char *name) {
  int number = 0;
  for (; *name != '\0'; name++) {
    if (*name < '0' || *name > '9') return -1;
    number = number * 10 + (*name - '0');
  }
  return number;
}

/* Returns how many it closed. */
static int close_entries(const char *entries, long size, int lowest, int keep) {
  int closed = 0;
  for (long at = 0; at < size;) {
    entry_t entry;
    const char *name = entries + at + offsetof(entry_t, name);
    memcpy(&entry, entries + at, offsetof(entry_t, name));
    int fd = number_of(name);
    if (fd >= lowest && fd != keep && close(fd) == 0) closed++;
    at += entry.size;
  }
  return closed;
}

bool aloop__descriptors_close_listed(int lowest) {
  char entries[2048];
  close(lowest); /* perhaps all that the limit allows are open */
  int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return false;
  /* What is closed changes the list being read, so it is read again until there is nothing left to close. */
  for (int closed = 1; closed > 0; lseek(folder, 0, SEEK_SET)) {
    long size;
    closed = 0;
    while ((size = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0)
      closed += close_entries(entries, size, lowest, folder);
  }
  close(folder);
  return true;
}
#else
bool aloop__descriptors_close_listed(int lowest) {
  (void)lowest;
  return false;
}
#endif

void aloop__descriptors_close_counted(int lowest) {
  struct rlimit limit;
  int end = LIMIT_MAX;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < LIMIT_MAX) end = (int)limit.rlim_cur;
  for (int fd = lowest; fd < end; fd++) close(fd);
}

void aloop__descriptors_close_from(int lowest) {
#if defined(__linux__) && defined(SYS_close_range)
  if (syscall(SYS_close_range, (unsigned)lowest, ~0u, 0u) == 0) return;
#endif
  if (!aloop__descriptors_close_listed(lowest)) aloop__descriptors_close_counted(lowest);
}

void aloop__descriptors_fill_standard(void) {
  int fd;
  do fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd < 2);
  if (fd > 2) close(fd);
}
