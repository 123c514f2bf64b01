/* SPDX-License-Identifier: MIT
 *
 * The poll poller: plain POSIX, any descriptor number, nanosecond timeouts through ppoll where there is one.
 *
 * The watched descriptors lie densely in the array that poll() takes, their tokens in a second array beside it;
 * `places` finds a descriptor's position by its number. Adding, changing and removing are O(1): the last entry
 * moves into a gap. wait() is O(watched), in the kernel and here.
 *
 * When more descriptors are ready than the caller has room for, the next wait starts looking after the last one
 * reported, so that all get their turn.
 *
 * A descriptor that was closed without removing it first makes poll() return at once with POLLNVAL, every time.
 * It is reported once, in both directions, so that its owner tries to use it and meets EBADF; then the entry is
 * mute until the next update() for that number. poll() skips negative numbers, so a mute entry holds the
 * complement of its descriptor. A number that was closed and given to another file is simply watched as that
 * file: poll() knows no more than the number.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include "poller/poller.h"

typedef struct poll_set {
  struct pollfd *fds;
  size_t fds_room;
  uint32_t *tokens; /* beside fds */
  size_t tokens_room;
  uint32_t *places; /* by descriptor: position in fds + 1; 0: not watched */
  size_t places_room;
  size_t count;
  size_t next; /* where the next look begins */
  aloop_allocator_t allocator;
} poll_set_t;

static int open_state(void *arg, const aloop_allocator_t *allocator, void **state) {
  (void)arg;
  poll_set_t *self = aloop__poller_alloc(allocator, sizeof *self);
  if (self == NULL) return ALOOP_ENOMEM;
  self->allocator = *allocator;
  *state = self;
  return 0;
}

static void close_state(void *state) {
  poll_set_t *self = state;
  aloop_allocator_t allocator = self->allocator;
  aloop__poller_free(&allocator, self->fds);
  aloop__poller_free(&allocator, self->tokens);
  aloop__poller_free(&allocator, self->places);
  aloop__poller_free(&allocator, self);
}

static int reserve(poll_set_t *self, int fd) {
  const aloop_allocator_t *allocator = &self->allocator;
  size_t count = self->count + 1;
  int error = aloop__poller_reserve(allocator, &self->fds, &self->fds_room, count, sizeof self->fds[0]);
  if (error == 0)
    error = aloop__poller_reserve(allocator, &self->tokens, &self->tokens_room, count, sizeof self->tokens[0]);
  if (error == 0)
    error = aloop__poller_reserve(allocator, &self->places, &self->places_room, (size_t)fd + 1,
                                  sizeof self->places[0]);
  return error;
}

static void forget(poll_set_t *self, int fd) {
  if ((size_t)fd >= self->places_room || self->places[fd] == 0) return;
  size_t gap = self->places[fd] - 1, last = --self->count;
  self->fds[gap] = self->fds[last];
  self->tokens[gap] = self->tokens[last];
  int moved = self->fds[gap].fd;
  self->places[moved < 0 ? ~moved : moved] = (uint32_t)gap + 1;
  self->places[fd] = 0;
}

static int update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  (void)before; /* `places` knows */
  poll_set_t *self = state;
  if (fd < 0) return ALOOP_EBADF;
  if (after == 0) {
    forget(self, fd);
    return 0;
  }
  if (fcntl(fd, F_GETFD) < 0) return -errno;
  int error = reserve(self, fd);
  if (error < 0) return error;
  if (self->places[fd] == 0) self->places[fd] = (uint32_t)++self->count;
  size_t place = self->places[fd] - 1;
  self->tokens[place] = token;
  self->fds[place] = (struct pollfd){.fd = fd, .events = aloop__poller_to_poll(after)};
  return 0;
}

static int ask(poll_set_t *self, int64_t timeout) {
#ifdef ALOOP_HAVE_PPOLL
  if (timeout > 0) {
    struct timespec limit = aloop__poller_timespec(timeout);
    return ppoll(self->fds, (nfds_t)self->count, &limit, NULL);
  }
#endif
  return poll(self->fds, (nfds_t)self->count, aloop__poller_millis(timeout));
}

static int wait_ready(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  poll_set_t *self = state;
  int found = ask(self, timeout);
  if (found < 0) return errno == EINTR ? 0 : -errno;
  if (found > capacity) found = capacity;
  if (self->next >= self->count) self->next = 0;
  size_t place = self->next;
  for (int filled = 0; filled < found; place = place + 1 < self->count ? place + 1 : 0) {
    struct pollfd *entry = &self->fds[place];
    if (entry->revents == 0) continue;
    events[filled++] = (aloop_poll_event_t){.events = aloop__poller_from_poll((uint32_t)entry->revents),
                                            .fd = entry->fd,
                                            .token = self->tokens[place]};
    if (entry->revents & POLLNVAL) entry->fd = ~entry->fd;
  }
  self->next = place;
  return found;
}

const aloop_poller_t aloop__poller_poll = {
    .size = sizeof(aloop_poller_t),
    .name = "poll",
    .open = open_state,
    .close = close_state,
    .update = update,
    .wait = wait_ready,
};
