/* SPDX-License-Identifier: MIT
 *
 * The io_uring poller (Linux 5.19), level-triggered: plain descriptors are watched by poll requests. It also
 * owns the ring that the network's completion driver (net/completion.c) works with.
 *
 * A watched descriptor has one poll request in the kernel, armed once: after it fired, the next wait arms it
 * anew, which answers at once if the descriptor is still ready. So a callback that does not read is called
 * every turn, as the contract of levels asks. Arming costs no system call of its own: all requests go with the
 * call that waits. A wait that only looks makes no system call at all unless there is something to hand over or
 * the kernel says that it holds something back.
 *
 * A poll request also ends when the peer has sent its last byte (RDHUP), asked or not, and would end again each
 * time for somebody who waits to write to a socket that is full. Such a descriptor gets a request that stays
 * armed: it ends anew only when something has changed. What it tells is used once; then it is armed anew like
 * any other.
 *
 * A request is named by its descriptor and a sequence number that each arming changes; what still comes from an
 * earlier one is dropped here. A request keeps its file open. So a removal is handed over at once, with all
 * that is prepared: when update() returns, closing the descriptor closes the connection. A descriptor closed
 * behind our back stays watched until its number is registered again or removed.
 *
 * update() looks at the file (fstat), because io_uring would call a regular file always ready where the
 * contract asks for an error.
 *
 * Completions of the driver's requests become events with a bit of their own; the event's token is an index
 * into `done`, where the completion waits until the loop takes it. What a fatal stop left behind comes again
 * with the next wait: unlike levels, completions do not repeat themselves.
 *
 * A loop with a host (`arg` is not NULL then) has a ring that finishes work by itself, because only such a
 * ring's descriptor tells the host of it; and what update() has put off is handed over at the end of each turn.
 *
 * The queues are short, because they are most of what a loop on this poller takes, and zeroing them most of the
 * time that making it takes. More requests than fit in a turn cost another call for every 64 of them.
 *
 * Memory: 16 bytes per descriptor number, the two queues (12 KiB) and `done` (4 KiB).
 */
#ifdef ALOOP_HAVE_IO_URING

#include <errno.h>
#include <sys/stat.h>

#include "poller/poller.h"
#include "poller/ring.h"

enum { ENTRIES = 64, DONE_MAX = 256, FD_BITS = 28 };

typedef struct slot {
  uint32_t token;
  uint32_t sequence; /* of the request in the kernel, or the last one */
  uint8_t interest;
  uint8_t armed; /* what that request waits for; 0: there is none */
  bool due;      /* on the list of those to arm */
  bool lasting;  /* the request is one that stays armed (see the essay on half-closed peers) */
} slot_t;

typedef struct uring {
  aloop__ring_t ring;
  aloop_allocator_t allocator;
  slot_t *slots; /* by descriptor */
  size_t slots_room;
  int32_t *due; /* as long as the slots */
  size_t due_room;
  uint32_t due_count;
  uint32_t done_count;
  uint32_t done_left; /* not taken yet */
  aloop__ring_done_t done[DONE_MAX];
} uring_t;

static int open_state(void *arg, const aloop_allocator_t *allocator, void **state) {
  const char *reason = NULL;
  uring_t *self = aloop__poller_alloc(allocator, sizeof *self);
  if (self == NULL) return ALOOP_ENOMEM;
  self->allocator = *allocator;
  int rc = aloop__ring_open(&self->ring, ENTRIES, arg != NULL, &reason);
  if (rc < 0) {
    aloop__poller_free(allocator, self);
    return rc;
  }
  *state = self;
  return 0;
}

static void close_state(void *state) {
  uring_t *self = state;
  aloop_allocator_t allocator = self->allocator;
  aloop__ring_close(&self->ring);
  aloop__poller_free(&allocator, self->ring.owed);
  aloop__poller_free(&allocator, self->slots);
  aloop__poller_free(&allocator, self->due);
  aloop__poller_free(&allocator, self);
}

/* ---- Arming ---------------------------------------------------------------------------------------------- */

static uint64_t name_of(int fd, uint32_t sequence) {
  return ((uint64_t)sequence << 32) | ((uint64_t)(uint32_t)fd << ALOOP__RING_KIND_BITS) | ALOOP__RING_POLL;
}

/* What to poll for, as a request says it. */
static uint32_t poll_mask(uint32_t events) {
  uint32_t mask = (uint32_t)aloop__poller_to_poll(events);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  mask = (mask << 16) | (mask >> 16);
#endif
  return mask;
}

static void make_due(uring_t *self, int fd) {
  slot_t *slot = &self->slots[fd];
  if (slot->due) return;
  slot->due = true;
  self->due[self->due_count++] = fd;
}

static void arm(uring_t *self, int fd) {
  slot_t *slot = &self->slots[fd];
  struct io_uring_sqe *request = aloop__ring_request(&self->ring);
  if (request == NULL) {
    make_due(self, fd);
    return;
  }
  request->opcode = IORING_OP_POLL_ADD;
  request->fd = fd;
  request->poll32_events = poll_mask(slot->interest);
  if (slot->lasting) request->len = IORING_POLL_ADD_MULTI;
  request->user_data = name_of(fd, ++slot->sequence);
  slot->armed = slot->interest;
}

static ALOOP_NOINLINE void arm_due(uring_t *self) {
  uint32_t count = self->due_count;
  self->due_count = 0;
  for (uint32_t i = 0; i < count; i++) {
    int fd = self->due[i];
    self->slots[fd].due = false;
    if (self->slots[fd].interest != 0 && self->slots[fd].armed == 0) arm(self, fd);
  }
}

static void disarm(uring_t *self, int fd) {
  slot_t *slot = &self->slots[fd];
  aloop__ring_cancel(&self->ring, &self->allocator, name_of(fd, slot->sequence));
  slot->armed = 0;
  slot->sequence++; /* what still comes is stale */
}

/* ---- The table ------------------------------------------------------------------------------------------- */

static int check_file(int fd) {
  struct stat file;
  if (fstat(fd, &file) < 0) return -errno;
  return S_ISREG(file.st_mode) || S_ISDIR(file.st_mode) || S_ISBLK(file.st_mode) ? ALOOP_EPERM : 0;
}

static int reserve(uring_t *self, int fd) {
  if (fd >= 1 << FD_BITS) return ALOOP_EMFILE;
  int rc =
      aloop__poller_reserve(&self->allocator, &self->due, &self->due_room, (size_t)fd + 1, sizeof *self->due);
  if (rc < 0) return rc;
  return aloop__poller_reserve(&self->allocator, &self->slots, &self->slots_room, (size_t)fd + 1,
                               sizeof *self->slots);
}

/* Hands over what was prepared. A file must not stay open for want of a call: nobody knows when the next wait
 * comes. */
static void flush(void *state) {
  uring_t *self = state;
  if (self->ring.hosted && self->due_count > 0) arm_due(self);
  if (aloop__ring_prepared(&self->ring) > 0) aloop__ring_hand_over(&self->ring);
}

static int update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  uring_t *self = state;
  bool known = (size_t)fd < self->slots_room;
  if (after == 0 && !known) return 0;
  bool anew = before == 0 || before == after;
  int rc = after != 0 && (anew || (after & ~before) != 0) ? check_file(fd) : 0;
  if (rc == 0 && !known) rc = reserve(self, fd);
  if (rc < 0) return rc;
  slot_t *slot = &self->slots[fd];
  bool was_armed = slot->armed != 0;
  if (was_armed && (anew || (after & ~(uint32_t)slot->armed) != 0 || after == 0)) disarm(self, fd);
  if (anew) slot->lasting = false;
  slot->token = token;
  slot->interest = (uint8_t)after;
  if (after != 0 && slot->armed == 0) make_due(self, fd);
  if (after == 0 ? was_armed : self->ring.hosted) flush(self);
  return 0;
}

/* ---- Waiting --------------------------------------------------------------------------------------------- */

/* The event that a poll request's end means; 0: none any more. */
static uint32_t polled(uring_t *self, const struct io_uring_cqe *end, aloop_poll_event_t *event) {
  int fd = (int)((uint32_t)end->user_data >> ALOOP__RING_KIND_BITS);
  slot_t *slot = &self->slots[fd];
  if (slot->sequence != (uint32_t)(end->user_data >> 32) || slot->armed == 0) return 0;
  uint32_t mask =
      end->res >= 0 ? (uint32_t)end->res : POLLNVAL; /* closed before it could be armed: said once */
  uint32_t set = aloop__poller_from_poll(mask);
  bool goes_on = (end->flags & IORING_CQE_F_MORE) != 0;
  if (set == 0 && goes_on) return 0;
  if (goes_on)
    disarm(self, fd);
  else
    slot->armed = 0;
  if (set == 0) slot->lasting = true;
  if (end->res >= 0) make_due(self, fd);
  *event = (aloop_poll_event_t){.events = set, .fd = fd, .token = slot->token};
  return set;
}

/* A completion of the driver's waits in `done`. */
static void completed(uring_t *self, const struct io_uring_cqe *end, aloop_poll_event_t *event) {
  uint32_t index = self->done_count++;
  self->done_left++;
  self->done[index] = (aloop__ring_done_t){end->user_data, end->res, end->flags};
  *event = (aloop_poll_event_t){.events = ALOOP__COMPLETED, .fd = -1, .token = index};
}

static int collect(uring_t *self, aloop_poll_event_t *events, int capacity, int found) {
  uint32_t ready = aloop__ring_completed(&self->ring);
  uint32_t seen = 0;
  for (; seen < ready && found < capacity; seen++) {
    const struct io_uring_cqe *end = aloop__ring_peek(&self->ring, seen);
    unsigned kind = aloop__ring_kind(end->user_data);
    if (ALOOP_LIKELY(kind >= ALOOP__RING_DRIVER)) {
      if (ALOOP_UNLIKELY(self->done_count == DONE_MAX)) break;
      completed(self, end, &events[found++]);
    } else if (kind == ALOOP__RING_POLL) {
      found += polled(self, end, &events[found]) != 0;
    }
  }
  aloop__ring_take(&self->ring, seen);
  return found;
}

/* What was not taken the last time comes again, first. */
static ALOOP_NOINLINE int offer_again(uring_t *self, aloop_poll_event_t *events) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < self->done_count; i++) {
    if (self->done[i].name == ALOOP__RING_SILENT) continue;
    events[kept] = (aloop_poll_event_t){.events = ALOOP__COMPLETED, .fd = -1, .token = kept};
    self->done[kept++] = self->done[i];
  }
  self->done_count = self->done_left = kept;
  return (int)kept;
}

static int wait_ready(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  uring_t *self = state;
  int found = 0;
  ALOOP_CHECK(self->done_left == 0 || capacity >= DONE_MAX); /* only the loop has a driver, and it has room */
  if (ALOOP_UNLIKELY(self->done_left > 0))
    found = offer_again(self, events);
  else
    self->done_count = 0;
  if (self->due_count > 0) arm_due(self);
  bool there = found > 0 || aloop__ring_completed(&self->ring) > 0;
  bool wait = !there && timeout != 0;
  if (wait || aloop__ring_prepared(&self->ring) > 0 || aloop__ring_has_work(&self->ring)) {
    int rc = aloop__ring_enter(&self->ring, wait, timeout);
    if (ALOOP_UNLIKELY(rc < 0) && rc != ALOOP_EAGAIN) return rc;
  }
  return collect(self, events, capacity, found);
}

static int backend_fd(void *state) {
  uring_t *self = state;
  return self->ring.fd;
}

aloop__ring_t *aloop__uring_ring(void *poller_state) {
  uring_t *self = poller_state;
  return &self->ring;
}

aloop__ring_done_t aloop__uring_take(void *poller_state, uint32_t index) {
  uring_t *self = poller_state;
  aloop__ring_done_t completion = self->done[index];
  self->done[index].name = ALOOP__RING_SILENT;
  self->done_left -= completion.name != ALOOP__RING_SILENT;
  return completion;
}

bool aloop__uring_take_same(void *poller_state, uint32_t index, uint64_t name, aloop__ring_done_t *completion) {
  const uring_t *self = poller_state;
  if (index >= self->done_count || self->done[index].name != name) return false;
  *completion = aloop__uring_take(poller_state, index);
  return true;
}

bool aloop__uring_take_next(void *poller_state, aloop__ring_done_t *completion) {
  uring_t *self = poller_state;
  if (aloop__ring_is_inherited(&self->ring)) return false;
  for (uint32_t i = 0; self->done_left > 0 && i < self->done_count; i++) {
    if (self->done[i].name == ALOOP__RING_SILENT) continue;
    *completion = aloop__uring_take(self, i);
    return true;
  }
  if (aloop__ring_completed(&self->ring) == 0) return false;
  const struct io_uring_cqe *end = aloop__ring_peek(&self->ring, 0);
  *completion = (aloop__ring_done_t){end->user_data, end->res, end->flags};
  aloop__ring_take(&self->ring, 1);
  return true;
}

const aloop_poller_t aloop__poller_uring = {
    .size = sizeof(aloop_poller_t),
    .name = "uring",
    .open = open_state,
    .close = close_state,
    .update = update,
    .wait = wait_ready,
    .backend_fd = backend_fd,
    .flush = flush,
    .flags = ALOOP_POLLER_ONE_THREAD,
};

#else
typedef int aloop__poller_uring_is_not_built; /* ISO C wants a declaration in every file */
#endif
