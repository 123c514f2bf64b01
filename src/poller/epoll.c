/* SPDX-License-Identifier: MIT
 *
 * The epoll poller (Linux), level-triggered. wait() is one system call, whatever the number of descriptors.
 *
 * Waits are exact to the nanosecond through epoll_pwait2 (Linux 5.11); where it is missing, epoll_wait with the
 * timeout rounded up to a millisecond does. "Do not wait" and "wait for ever" always take epoll_wait, which is
 * cheaper.
 *
 * epoll watches open files, not descriptors. A descriptor that is closed without removing it first leaves its
 * registration behind if a duplicate (dup, a forked child) keeps the file open. Nobody can remove that ghost,
 * because the number it is known by is gone or means another file, and being level-triggered it would make
 * every wait return at once. Therefore the kernel is not given the token but a key: the descriptor and a serial
 * number that each new registration gets. An event whose serial is not that of the descriptor's watch comes
 * from a ghost; it is dropped, and all living watches move to a fresh epoll file, O(watches), under the old
 * number, so that aloop_backend_fd stays what it was. (A host that watches this number with an epoll of its own
 * has to add it anew; for hosts on poll or select nothing changes.)
 *
 * EPOLLRDHUP is not asked for: a half-closed connection is readable, and reading tells. EPOLLET and
 * EPOLLONESHOT would break the contract of levels. The epoll file is shared with the child of a fork; close()
 * must therefore only close it and not remove anything from it.
 */
#ifdef ALOOP_HAVE_EPOLL

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "poller/poller.h"

enum { BATCH = 256 }; /* events taken per call: 3 KiB of stack */

/* What is understood, and what it means: a table takes fewer instructions than a test per bit. */
#define ASKED (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP)
#define BOTH (ALOOP_READABLE | ALOOP_WRITABLE)
#define WITH(errors)                                                                                           \
  [EPOLLIN | (errors)] = BOTH, [EPOLLOUT | (errors)] = BOTH,                                                   \
             [EPOLLIN | EPOLLOUT | (errors)] = BOTH, [errors] = BOTH
static const uint8_t meaning[ASKED + 1] = {
    [EPOLLIN] = ALOOP_READABLE,
    [EPOLLOUT] = ALOOP_WRITABLE,
    [EPOLLIN | EPOLLOUT] = BOTH,
    WITH(EPOLLERR),
    WITH(EPOLLHUP),
    WITH(EPOLLERR | EPOLLHUP),
};

typedef struct watch {
  uint64_t token;
  uint32_t serial; /* of the registration; 0: not watched */
  uint32_t events; /* ALOOP_READABLE | ALOOP_WRITABLE */
} watch_t;

typedef struct epoll {
  int fd;
  uint32_t serial;   /* the last one given */
  bool milliseconds; /* the kernel has no epoll_pwait2 */
  watch_t *watches;  /* by descriptor */
  size_t room;
  aloop_allocator_t allocator;
} epoll_t;

static int open_state(void *arg, const aloop_allocator_t *allocator, void **state) {
  (void)arg;
  epoll_t *self = aloop__poller_alloc(allocator, sizeof *self);
  if (self == NULL) return ALOOP_ENOMEM;
  self->allocator = *allocator;
  self->fd = epoll_create1(EPOLL_CLOEXEC);
  if (self->fd < 0) {
    int error = errno == ENOSYS ? ALOOP_ENOTSUP : -errno;
    aloop__poller_free(allocator, self);
    return error;
  }
  *state = self;
  return 0;
}

static void close_state(void *state) {
  epoll_t *self = state;
  aloop_allocator_t allocator = self->allocator;
  close(self->fd);
  aloop__poller_free(&allocator, self->watches);
  aloop__poller_free(&allocator, self);
}

static int control(int epoll, int operation, int fd, uint32_t serial, uint32_t events) {
  struct epoll_event event = {
      .events = (events & ALOOP_READABLE ? (uint32_t)EPOLLIN : 0) |
                (events & ALOOP_WRITABLE ? (uint32_t)EPOLLOUT : 0),
      .data.u64 = (uint64_t)serial << 32 | (uint32_t)fd,
  };
  return epoll_ctl(epoll, operation, fd, &event) < 0 ? -errno : 0;
}

static uint32_t next_serial(epoll_t *self) {
  if (++self->serial == 0) self->serial = 1;
  return self->serial;
}

static int forget(epoll_t *self, int fd) {
  if ((size_t)fd < self->room) self->watches[fd] = (watch_t){0};
  int error = control(self->fd, EPOLL_CTL_DEL, fd, 0, 0);
  /* Closed behind our back, and perhaps the number was given to another file since. */
  bool gone = error == -ENOENT || error == -EBADF || error == -EPERM;
  return gone ? 0 : error;
}

static int update(void *state, int fd, uint64_t token, uint32_t before, uint32_t after) {
  epoll_t *self = state;
  if (fd < 0) return ALOOP_EBADF;
  if (after == 0) return forget(self, fd);
  int error =
      aloop__poller_reserve(&self->allocator, &self->watches, &self->room, (size_t)fd + 1, sizeof(watch_t));
  if (error < 0) return error;
  watch_t *watch = &self->watches[fd];
  uint32_t serial = watch->serial;
  bool changed = before != 0 && serial != 0;
  if (changed) error = control(self->fd, EPOLL_CTL_MOD, fd, serial, after);
  if (!changed || error == -ENOENT) { /* no such registration: the number means another file by now */
    serial = next_serial(self);
    error = control(self->fd, EPOLL_CTL_ADD, fd, serial, after);
    /* The same file came back under its old number, where a duplicate had kept the registration. */
    if (error == -EEXIST) error = control(self->fd, EPOLL_CTL_MOD, fd, serial, after);
  }
  if (error == 0) *watch = (watch_t){.token = token, .serial = serial, .events = after};
  return error;
}

/* Leaves the ghosts behind. What fails here is tried again at the ghost's next event. */
ALOOP__POLLER_COLD static void move_house(epoll_t *self) {
  int fresh = epoll_create1(EPOLL_CLOEXEC);
  if (fresh < 0) return;
  int error = 0;
  for (size_t fd = 0; fd < self->room && error == 0; fd++) {
    const watch_t *watch = &self->watches[fd];
    if (watch->serial != 0) error = control(fresh, EPOLL_CTL_ADD, (int)fd, watch->serial, watch->events);
    if (error == -EBADF || error == -EPERM) error = 0; /* closed behind our back: epoll says nothing then */
  }
  if (error == 0) dup3(fresh, self->fd, O_CLOEXEC);
  close(fresh);
}

/* The rest of wait_ready for a finite timeout; apart, so that the common case saves fewer registers. */
ALOOP__POLLER_APART static int wait_until(epoll_t *self, struct epoll_event *ready, int room, int64_t timeout) {
#ifdef ALOOP_HAVE_EPOLL_PWAIT2
  if (!self->milliseconds) {
    struct timespec limit = aloop__poller_timespec(timeout);
    int found = epoll_pwait2(self->fd, ready, room, &limit, NULL);
    /* EPERM is how some container filters refuse a system call they do not know. */
    if (found >= 0 || (errno != ENOSYS && errno != EPERM)) return found;
    self->milliseconds = true;
  }
#endif
  return epoll_wait(self->fd, ready, room, aloop__poller_millis(timeout));
}

/* Writes to *event what happened, or returns false for a ghost. */
static inline bool translate(const epoll_t *self, const struct epoll_event *got, aloop_poll_event_t *event) {
  const watch_t *watch = &self->watches[(uint32_t)got->data.u64];
  if (watch->serial != got->data.u64 >> 32) return false;
  *event = (aloop_poll_event_t){.token = watch->token, .events = meaning[got->events & ASKED]};
  return true;
}

/* A batch from `from` on, where a ghost was met. */
ALOOP__POLLER_COLD static int without_ghosts(epoll_t *self, const struct epoll_event *from,
                                             const struct epoll_event *end, aloop_poll_event_t *event) {
  int count = 0;
  for (; from < end; from++) count += translate(self, from, &event[count]);
  move_house(self);
  return count;
}

static int wait_ready(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  epoll_t *self = state;
  struct epoll_event ready[BATCH];
  int room = capacity < BATCH ? capacity : BATCH;
  int found = timeout > 0 ? wait_until(self, ready, room, timeout)
                          : epoll_wait(self->fd, ready, room, timeout < 0 ? -1 : 0);
  if (found < 0) return errno == EINTR ? 0 : -errno;
  for (int i = 0; i < found; i++)
    if (!translate(self, &ready[i], &events[i]))
      return i + without_ghosts(self, &ready[i], &ready[found], &events[i]);
  return found;
}

static int backend_fd(void *state) {
  const epoll_t *self = state;
  return self->fd;
}

const aloop_poller_t aloop__poller_epoll = {
    .size = sizeof(aloop_poller_t),
    .name = "epoll",
    .open = open_state,
    .close = close_state,
    .update = update,
    .wait = wait_ready,
    .backend_fd = backend_fd,
};

#else
typedef int aloop__poller_epoll_is_not_built; /* ISO C wants a declaration in every file */
#endif
