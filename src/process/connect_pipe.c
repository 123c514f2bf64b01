/* SPDX-License-Identifier: MIT
 *
 * connect_read_pipe and connect_write_pipe: transports over descriptors that the caller has, whatever they are.
 *
 * What cannot become a pipe is refused at once, with a message that says why: a descriptor that is not open, or
 * not for that direction, a directory, a disk, a socket that carries no stream. The rest happens when
 * connection_made is due, in `adopt` of the driver (reopen.c chooses how bytes move), so that until then, and
 * if it fails, the descriptor is the caller's and as it was.
 *
 * One number has one transport per loop. Who wants both directions of a terminal or a socket duplicates it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/report.h"
#include "future/future.h"
#include "process/pipe.h"

#ifndef O_PATH
#define O_PATH 0
#endif

static int get_option(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -1 : value;
}

/* Why a descriptor of that kind cannot be a pipe, or NULL. */
static const char *fault_of_kind(int fd, mode_t mode) {
  if (S_ISFIFO(mode) || S_ISCHR(mode) || S_ISREG(mode)) return NULL;
  if (S_ISDIR(mode)) return "is a directory";
  if (S_ISBLK(mode)) return "is a block device: use a file or a pipe";
  if (!S_ISSOCK(mode)) return "is no pipe, socket, character device or file";
  if (get_option(fd, SO_TYPE) != SOCK_STREAM) return "is a socket that carries no stream";
#ifdef SO_ACCEPTCONN
  if (get_option(fd, SO_ACCEPTCONN) > 0) return "is a listening socket: use aloop_create_server";
#endif
  return NULL;
}

static const char *fault_of_mode(int status, bool reads) {
  int access = status & O_ACCMODE;
  if (O_PATH != 0 && (status & O_PATH) != 0) return "is open as a path only, not to read or write";
  if (reads && access == O_WRONLY) return "is not open for reading";
  if (!reads && access == O_RDONLY) return "is not open for writing";
  return NULL;
}

/* Why a descriptor cannot become a transport: a code, with a reason. */
static int check_descriptor(aloop_t *loop, int fd, bool reads, const char **reason) {
  struct stat info;
  int status = fcntl(fd, F_GETFL);
  *reason = "is not open";
  if (status < 0 || fstat(fd, &info) < 0) return -errno;
  *reason = fault_of_kind(fd, info.st_mode);
  if (*reason == NULL) *reason = fault_of_mode(status, reads);
  if (*reason != NULL) return ALOOP_EINVAL;
  *reason =
      "is in use by this loop: another transport has it, or add_reader or add_writer; dup() makes another";
  return aloop__watch_find(loop, fd) != NULL ? ALOOP_EBUSY : 0;
}

static void refuse(aloop_future_t *future, int fd, int error, const char *reason) {
  char rule[192];
  snprintf(rule, sizeof rule, "fd %d %s", fd, reason);
  aloop__misuse(future->object.loop, error, rule);
  aloop__future_fail(future, error, "%s", rule);
}

static aloop_future_t *connect_pipe(aloop_t *loop, const aloop_protocol_t *table, void *arg, int fd, bool reads,
                                    const char *origin) {
  static const char rule[] = "a pipe needs a protocol table with its size set";
  const char *reason;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__stream_check_protocol(table) < 0) return aloop__future_refused(loop, origin, ALOOP_EINVAL, rule);
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future == NULL || aloop_future_done(future)) return future;
  int rc = check_descriptor(loop, fd, reads, &reason);
  if (rc < 0) {
    refuse(future, fd, rc, reason);
    return future;
  }
  aloop_transport_t *transport =
      aloop__stream_hand_over(loop, &aloop__driver_pipe, fd, table, arg, future, NULL, origin);
  if (transport == NULL)
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
  else
    transport->flags |= ALOOP__BORROWED | (reads ? ALOOP__NO_WRITE : ALOOP__NO_READ);
  return future;
}

aloop_future_t *aloop_connect_read_pipe(aloop_t *loop, const aloop_protocol_t *protocol, void *arg, int fd) {
  return connect_pipe(loop, protocol, arg, fd, true, "aloop_connect_read_pipe");
}

aloop_future_t *aloop_connect_write_pipe(aloop_t *loop, const aloop_protocol_t *protocol, void *arg, int fd) {
  return connect_pipe(loop, protocol, arg, fd, false, "aloop_connect_write_pipe");
}
