/* SPDX-License-Identifier: MIT
 *
 * The kqueue poller (FreeBSD, NetBSD, OpenBSD, DragonFly, macOS; also libkqueue on Linux), level-triggered,
 * nanosecond timeouts. kqueue watches the two directions of a descriptor with one filter each and reports them
 * apart; wait() merges what one call found into one event per descriptor. The tokens are kept in a table by
 * descriptor and not in `udata`, which is too small for them on 32-bit systems, and an integer on some; the
 * table is needed for merging anyway.
 *
 * update() deletes the filters of before and adds those of after in one call, also where they are the same: a
 * descriptor that was closed behind our back lost its filters, and if its number now means another file they
 * come back on that. (Adding alone would do on the BSDs; libkqueue refuses to add twice.) If adding fails, the
 * old filters are put back.
 *
 * The end of the stream (EV_EOF) makes reading and writing ready, each in its filter; an error makes both so. A
 * closed descriptor takes its filters with it, so there is nothing left that could report for ever. A regular
 * file is readable until its end, and not at the end.
 *
 * A kqueue is not inherited by a forked child. There its number may mean something else by the time the child
 * gives the loop a new poller, so close() closes it only in the process that made it.
 *
 * libkqueue differs in what its user should know: it reads SO_ERROR of a failed socket, and so clears it,
 * before anybody else can; it does not see a descriptor being closed, so removing after the close is too late
 * if a duplicate keeps the file open; its helper thread frees descriptors some time after close(); the number
 * that stands for a kqueue cannot be polled. It serves to test this file, not as a poller of choice.
 */
#ifdef ALOOP_HAVE_KQUEUE

#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>
#include <sys/event.h>
#include <unistd.h>
#include "poller/poller.h"

enum { BATCH = 128 }; /* filters taken per call: 8 KiB of stack where a kevent is largest */

#ifndef EV_RECEIPT
#define EV_RECEIPT 0 /* without it, ready events may come along with the errors: they come again */
#endif

typedef struct watch {
  uint32_t token;
  uint64_t wait; /* the last wait that reported it, */
  int place;     /* and where in its events */
} watch_t;

typedef struct kqueue {
  int fd;
  pid_t owner;
  uint64_t wait;    /* counts the calls */
  watch_t *watches; /* by descriptor */
  size_t room;
  aloop_allocator_t allocator;
} kqueue_t;

static int open_state(void *arg, const aloop_allocator_t *allocator, void **state) {
  (void)arg;
  kqueue_t *self = aloop__poller_alloc(allocator, sizeof *self);
  if (self == NULL) return ALOOP_ENOMEM;
  self->allocator = *allocator;
  self->owner = getpid();
  self->fd = kqueue();
  if (self->fd < 0) {
    int error = errno == ENOSYS ? ALOOP_ENOTSUP : -errno;
    aloop__poller_free(allocator, self);
    return error;
  }
  fcntl(self->fd, F_SETFD, FD_CLOEXEC);
  *state = self;
  return 0;
}

static void close_state(void *state) {
  kqueue_t *self = state;
  aloop_allocator_t allocator = self->allocator;
  if (self->owner == getpid()) close(self->fd);
  aloop__poller_free(&allocator, self->watches);
  aloop__poller_free(&allocator, self);
}

/* Appends a change of the filter of each direction in `events`; returns the new count. */
static int append(struct kevent *changes, int count, int fd, uint32_t events, unsigned flags) {
  static const struct {
    uint32_t direction;
    short filter;
  } filters[] = {{ALOOP_READABLE, EVFILT_READ}, {ALOOP_WRITABLE, EVFILT_WRITE}};
  for (int i = 0; i < 2; i++) {
    if (!(events & filters[i].direction)) continue;
    struct kevent *change = &changes[count++];
    EV_SET(change, (uintptr_t)fd, filters[i].filter, (unsigned short)(flags | EV_RECEIPT), 0, 0, 0);
  }
  return count;
}

/* Returns 0 or the code of the last filter that could not be added; one to delete may be missing. */
static int change(const kqueue_t *self, int fd, uint32_t before, uint32_t after) {
  const struct timespec at_once = {0, 0};
  struct kevent changes[4], results[4];
  int count = append(changes, 0, fd, before, EV_DELETE);
  count = append(changes, count, fd, after, EV_ADD);
  int found = kevent(self->fd, changes, count, results, count, &at_once);
  int error = found < 0 ? -errno : 0;
  for (int i = 0; i < found; i++)
    if ((results[i].flags & EV_ERROR) && results[i].data != 0 && results[i].data != ENOENT)
      error = -(int)results[i].data;
  return error;
}

static int update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  kqueue_t *self = state;
  if (fd < 0) return ALOOP_EBADF;
  if (after == 0) {
    change(self, fd, before, 0); /* fails if the descriptor was closed behind our back */
    return 0;
  }
  int error =
      aloop__poller_reserve(&self->allocator, &self->watches, &self->room, (size_t)fd + 1, sizeof(watch_t));
  if (error < 0) return error;
  error = change(self, fd, before, after);
  if (error < 0)
    change(self, fd, after, before);
  else
    self->watches[fd].token = token;
  return error;
}

static uint32_t translate(const struct kevent *got) {
  bool failed = (got->flags & EV_ERROR) || ((got->flags & EV_EOF) && got->fflags != 0);
  if (failed) return ALOOP_READABLE | ALOOP_WRITABLE;
  return got->filter == EVFILT_READ ? ALOOP_READABLE : ALOOP_WRITABLE;
}

static int wait_ready(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  kqueue_t *self = state;
  struct kevent ready[BATCH];
  struct timespec limit = aloop__poller_timespec(timeout < 0 ? 0 : timeout);
  int room = capacity < BATCH ? capacity : BATCH;
  int found = kevent(self->fd, NULL, 0, ready, room, timeout < 0 ? NULL : &limit);
  if (found < 0) return errno == EINTR ? 0 : -errno;
  int count = 0;
  self->wait++;
  for (int i = 0; i < found; i++) {
    watch_t *watch = &self->watches[ready[i].ident];
    if (watch->wait != self->wait) {
      watch->wait = self->wait;
      watch->place = count;
      events[count++] = (aloop_poll_event_t){.fd = (int)ready[i].ident, .token = watch->token};
    }
    events[watch->place].events |= translate(&ready[i]);
  }
  return count;
}

#ifndef EVFILT_LIBKQUEUE
static int backend_fd(void *state) {
  const kqueue_t *self = state;
  return self->fd;
}
#endif

const aloop_poller_t aloop__poller_kqueue = {
    .size = sizeof(aloop_poller_t),
    .name = "kqueue",
    .open = open_state,
    .close = close_state,
    .update = update,
    .wait = wait_ready,
#ifndef EVFILT_LIBKQUEUE
    .backend_fd = backend_fd,
#endif
};

#else
typedef int aloop__poller_kqueue_is_not_built; /* ISO C wants a declaration in every file */
#endif
