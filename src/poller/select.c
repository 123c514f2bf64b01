/* SPDX-License-Identifier: MIT
 *
 * The select poller: the oldest interface, for systems whose poll() is broken for some kinds of descriptors.
 * Descriptors from FD_SETSIZE (1024 as a rule) on are refused with ALOOP_ERANGE. Timeouts are nanoseconds
 * through pselect. wait() is O(highest descriptor); the state is two bit sets and a token per possible
 * descriptor, about 8 KiB.
 *
 * When more descriptors are ready than the caller has room for, the next wait starts looking after the last one
 * reported, so that all get their turn.
 *
 * select() does not tell errors and hang-ups apart from data: it reports a direction as ready when an operation
 * in it would not block, which an error or hang-up brings about too. A watcher therefore learns of them in the
 * directions that it asked for.
 *
 * A descriptor that was closed without removing it first makes the whole call fail with EBADF. The dead ones
 * are then looked for, each is reported once, in both directions, so that its owner tries to use it and meets
 * EBADF, and is watched again only after the next update() for that number.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/select.h>
#include "poller/poller.h"

typedef struct select_set {
  fd_set readers, writers;
  int end;  /* above the highest descriptor watched */
  int next; /* where the next look begins */
  aloop_allocator_t allocator;
  uint32_t tokens[FD_SETSIZE];
} select_set_t;

static int open_state(void *arg, const aloop_allocator_t *allocator, void **state) {
  (void)arg;
  select_set_t *self = aloop__poller_alloc(allocator, sizeof *self);
  if (self == NULL) return ALOOP_ENOMEM;
  FD_ZERO(&self->readers);
  FD_ZERO(&self->writers);
  self->allocator = *allocator;
  *state = self;
  return 0;
}

static void close_state(void *state) {
  select_set_t *self = state;
  aloop_allocator_t allocator = self->allocator;
  aloop__poller_free(&allocator, self);
}

static bool watched(const select_set_t *self, int fd) {
  return FD_ISSET(fd, &self->readers) || FD_ISSET(fd, &self->writers);
}

static void watch(select_set_t *self, int fd, uint32_t events) {
  if (events & ALOOP_READABLE)
    FD_SET(fd, &self->readers);
  else
    FD_CLR(fd, &self->readers);
  if (events & ALOOP_WRITABLE)
    FD_SET(fd, &self->writers);
  else
    FD_CLR(fd, &self->writers);
  if (fd >= self->end && events != 0) self->end = fd + 1;
  while (self->end > 0 && !watched(self, self->end - 1)) self->end--;
}

static int update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  (void)before; /* the sets know */
  select_set_t *self = state;
  if (fd < 0) return ALOOP_EBADF;
  if (fd >= FD_SETSIZE) return after == 0 ? 0 : ALOOP_ERANGE;
  if (after != 0 && fcntl(fd, F_GETFD) < 0) return -errno;
  self->tokens[fd] = token;
  watch(self, fd, after);
  return 0;
}

/* After EBADF: reports the descriptors that are not open, and watches them no more. */
static int take_dead(select_set_t *self, aloop_poll_event_t *events, int capacity) {
  int count = 0;
  for (int fd = 0; fd < self->end && count < capacity; fd++) {
    if (!watched(self, fd) || fcntl(fd, F_GETFD) >= 0) continue;
    events[count++] =
        (aloop_poll_event_t){.events = ALOOP_READABLE | ALOOP_WRITABLE, .fd = fd, .token = self->tokens[fd]};
    watch(self, fd, 0);
  }
  return count;
}

static int take_ready(select_set_t *self, const fd_set *readers, const fd_set *writers, int bits,
                      aloop_poll_event_t *events, int capacity) {
  int count = 0;
  if (self->next >= self->end) self->next = 0;
  int fd = self->next;
  for (; bits > 0 && count < capacity; fd = fd + 1 < self->end ? fd + 1 : 0) {
    bool readable = FD_ISSET(fd, readers), writable = FD_ISSET(fd, writers);
    if (!readable && !writable) continue;
    events[count++] = (aloop_poll_event_t){
        .events = (readable ? (uint32_t)ALOOP_READABLE : 0) | (writable ? (uint32_t)ALOOP_WRITABLE : 0),
        .fd = fd,
        .token = self->tokens[fd],
    };
    bits -= readable + writable;
  }
  self->next = fd;
  return count;
}

static int wait_ready(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  select_set_t *self = state;
  fd_set readers = self->readers, writers = self->writers;
  struct timespec limit = aloop__poller_timespec(timeout < 0 ? 0 : timeout);
  int bits = pselect(self->end, &readers, &writers, NULL, timeout < 0 ? NULL : &limit, NULL);
  if (bits < 0 && errno == EBADF) return take_dead(self, events, capacity);
  if (bits < 0) return errno == EINTR ? 0 : -errno;
  return take_ready(self, &readers, &writers, bits, events, capacity);
}

const aloop_poller_t aloop__poller_select = {
    .size = sizeof(aloop_poller_t),
    .name = "select",
    .open = open_state,
    .close = close_state,
    .update = update,
    .wait = wait_ready,
};
