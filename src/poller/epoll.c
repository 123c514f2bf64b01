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
 * because the number it is known by is gone or means another file. It goes on reporting the token it was given;
 * new registrations of the number have a new one, so whoever hands out tokens knows a ghost by its token, and
 * gets rid of it by opening another poller, as the loop does (watch.c). Keeping a table here to do the same was
 * tried; it cost each event 17 instructions more, and 16 bytes per descriptor, for what the loop checks anyway.
 *
 * A change that finds no registration is such a case, too: the number was closed and means another file by now,
 * which is then registered. And a registration that is in the way of a new one is the same file come back under
 * its old number, where a duplicate had kept it. Only a number that is closed, reused and then changed without
 * ever being removed leaves a ghost with the token of a living watch, whose owner is then called for nothing.
 *
 * EPOLLRDHUP is not asked for: a half-closed connection is readable, and reading tells. EPOLLET is for who asks
 * for edges; it and EPOLLONESHOT would break the contract of levels. The epoll file is shared with the child of
 * a fork; close() must therefore only close it and not remove anything from it.
 */
#ifdef ALOOP_HAVE_EPOLL

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "core/check.h"
#include "poller/poller.h"

enum { BATCH = 256 }; /* events taken per call where they must be copied: 4 KiB of stack */

#define ERRORS (EPOLLERR | EPOLLHUP)
#define BOTH (ALOOP_READABLE | ALOOP_WRITABLE)

/* What the kernel keeps for us: the second half of an aloop_poll_event_t. */
typedef struct mark {
  int32_t fd;
  uint32_t token;
} mark_t;

/* Where the kernel packs its event (x86), it is laid out like ours, and its batch is our batch. */
enum {
  SAME_LAYOUT = sizeof(struct epoll_event) == sizeof(aloop_poll_event_t) &&
                offsetof(struct epoll_event, data) == offsetof(aloop_poll_event_t, fd) &&
                sizeof(mark_t) == sizeof(epoll_data_t) && (int)ALOOP_READABLE == (int)EPOLLIN &&
                (int)ALOOP_WRITABLE == (int)EPOLLOUT
};

typedef struct epoll {
  int fd;
  bool milliseconds; /* the kernel has no epoll_pwait2 */
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
  aloop__poller_free(&allocator, self);
}

/* An operation has failed: what was closed behind our back needs another one, or none. */
static ALOOP_NOINLINE int update_otherwise(const epoll_t *self, int operation, struct epoll_event *event) {
  mark_t mark;
  memcpy(&mark, &event->data, sizeof mark);
  int other = operation == EPOLL_CTL_ADD && errno == EEXIST   ? EPOLL_CTL_MOD
              : operation == EPOLL_CTL_MOD && errno == ENOENT ? EPOLL_CTL_ADD
                                                              : 0;
  if (other != 0 && epoll_ctl(self->fd, other, mark.fd, event) == 0) return 0;
  bool gone = errno == ENOENT || errno == EBADF || errno == EPERM;
  if (operation == EPOLL_CTL_DEL && gone) return 0;
  return errno == ENOSPC ? ALOOP_ENOMEM : -errno; /* the user's share of memory for watches is used up */
}

static int update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  const epoll_t *self = state;
  int operation = after == 0 ? EPOLL_CTL_DEL : before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  mark_t mark = {fd, token};
  struct epoll_event event = {
      .events = (after & ALOOP_READABLE ? (uint32_t)EPOLLIN : 0) |
                (after & ALOOP_WRITABLE ? (uint32_t)EPOLLOUT : 0) |
                (after & ALOOP_EDGES ? (uint32_t)EPOLLET : 0),
  };
  memcpy(&event.data, &mark, sizeof mark);
  int rc = epoll_ctl(self->fd, operation, fd, &event);
  return ALOOP_LIKELY(rc == 0) ? 0 : update_otherwise(self, operation, &event);
}

/* The rest of wait_ready for a finite timeout; apart, so that the common case saves fewer registers. */
static ALOOP_NOINLINE int wait_until(epoll_t *self, struct epoll_event *ready, int room, int64_t timeout) {
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

static int wait_for(epoll_t *self, struct epoll_event *ready, int room, int64_t timeout) {
  int found = timeout > 0 ? wait_until(self, ready, room, timeout)
                          : epoll_wait(self->fd, ready, room, -(int)(timeout < 0));
  if (ALOOP_LIKELY(found >= 0)) return found;
  return errno == EINTR ? 0 : -errno;
}

static int wait_and_copy(epoll_t *self, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  struct epoll_event ready[BATCH];
  int found = wait_for(self, ready, capacity < BATCH ? capacity : BATCH, timeout);
  for (int i = 0; i < found; i++) {
    mark_t mark;
    memcpy(&mark, &ready[i].data, sizeof mark);
    uint32_t set = ready[i].events & ERRORS ? (uint32_t)BOTH
                                            : (ready[i].events & EPOLLIN ? (uint32_t)ALOOP_READABLE : 0) |
                                                  (ready[i].events & EPOLLOUT ? (uint32_t)ALOOP_WRITABLE : 0);
    events[i] = (aloop_poll_event_t){.events = set, .fd = mark.fd, .token = mark.token};
  }
  return found;
}

/* Errors stay in the batch as they are: the loop takes what it does not know for both directions. */
static int wait_ready(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  if (!SAME_LAYOUT) return wait_and_copy(state, events, capacity, timeout);
  return wait_for(state, (struct epoll_event *)(void *)events, capacity, timeout);
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
    .flags = ALOOP_POLLER_EDGES,
};

#else
typedef int aloop__poller_epoll_is_not_built; /* ISO C wants a declaration in every file */
#endif
