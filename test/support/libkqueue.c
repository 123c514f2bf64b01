/* SPDX-License-Identifier: MIT
 *
 * Where kqueue is libkqueue: its kevent() asks a failed socket for its error (SO_ERROR), which takes the error
 * away before the loop can ask; a kqueue of a kernel leaves it there. So that the tests of errors can run on
 * this poller too, the library's question is answered here, with an error, which is all that it wants to know.
 * A program's functions come before those of its libraries, so both calls come by here.
 */
#include "harness.h"

#ifdef HARNESS_LIBKQUEUE

#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <unistd.h>

static _Thread_local bool inside;

/* The function that would have been called. */
static void *find(const char *name) {
  return dlsym(RTLD_NEXT, name);
}

int kevent(int kq, const struct kevent *changes, int count, struct kevent *events, int capacity,
           const struct timespec *timeout) {
  static int (*real)(int, const struct kevent *, int, struct kevent *, int, const struct timespec *);
  if (real == NULL) memcpy(&real, &(void *){find("kevent")}, sizeof real); /* ISO C has no cast for it */
  inside = true;
  int found = real(kq, changes, count, events, capacity, timeout);
  inside = false;
  return found;
}

int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size) {
  static int (*real)(int, int, int, void *restrict, socklen_t *restrict);
  if (real == NULL) memcpy(&real, &(void *){find(CALLED_GETSOCKOPT)}, sizeof real);
  if (!inside || level != SOL_SOCKET || name != SO_ERROR) return real(fd, level, name, value, size);
  errno = EIO;
  return -1;
}

void libkqueue_begin(void) {
  int kq = kqueue();
  if (kq >= 0) close(kq);
}

#else

void libkqueue_begin(void) {
}

#endif
