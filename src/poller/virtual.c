/* SPDX-License-Identifier: MIT
 *
 * The virtual poller, for tests and simulations: its clock does not run, it jumps. A loop that has nothing to
 * do until its next deadline is there at once and to the nanosecond, so an hour of timers takes as long as
 * their callbacks. Descriptors are real and watched by the poll poller, through its table.
 *
 * wait() looks at the descriptors. If some are ready, it reports them and no time passes. Otherwise the clock
 * jumps by the timeout. A wait without a timeout waits for real.
 *
 * What this means for I/O. Bytes that this thread sends to itself over a socket or pipe are there before any
 * clock moves. Other threads, processes and machines live in real time, and a jump leaves them behind: "wait
 * for the answer, at most 5 s" would be over before the peer had a chance. So a jump is preceded by patience, a
 * real wait for I/O, while somebody beside the loop's own wake-up descriptor is watched: first 10 ms, half of
 * that before each further jump that nothing came of, soon none; I/O and new watches restore it. A wait without
 * I/O thus costs at most 20 ms in total, and never longer than it would with a real clock. This makes loopback
 * peers in other threads work as a rule; where a deadline must hold against a real peer, use a real poller.
 *
 * The clock may not stand still for ever: a callback that computes until aloop_time() reaches some moment, or
 * callbacks that schedule each other until then, would never end. After CALM questions for the time and looks
 * without a jump in between, each further one takes a microsecond. Up to there a moment lasts as long as it
 * likes, so ordinary programs never notice, and runs are repeatable because nothing here depends on real time.
 */
#include "poller/poller.h"

#define START (INT64_C(1000) * 1000000000) /* not 0, so that "no time yet" stands out */
#define PATIENCE (INT64_C(10) * 1000000)
#define PATIENCE_WORTH (INT64_C(50) * 1000) /* shorter sleeps are mostly timer slack */
enum { CALM = 10000, STEP = 1000 };

typedef struct virtual {
  void *poll;
  int64_t now;
  int64_t patience;
  int64_t calm;    /* questions and looks since the clock moved */
  size_t watching; /* descriptors */
  aloop_allocator_t allocator;
}
virtual_t;

static int open_state(void *arg, const aloop_allocator_t *allocator, void **state) {
  virtual_t *self = aloop__poller_alloc(allocator, sizeof *self);
  if (self == NULL) return ALOOP_ENOMEM;
  self->allocator = *allocator;
  self->now = START;
  int error = aloop__poller_poll.open(arg, allocator, &self->poll);
  if (error < 0) {
    aloop__poller_free(allocator, self);
    return error;
  }
  *state = self;
  return 0;
}

static void close_state(void *state) {
  virtual_t *self = state;
  aloop_allocator_t allocator = self->allocator;
  aloop__poller_poll.close(self->poll);
  aloop__poller_free(&allocator, self);
}

static int update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  virtual_t *self = state;
  int error = aloop__poller_poll.update(self->poll, fd, token, before, after);
  if (error < 0) return error;
  if (before == 0 && after != 0) self->watching++;
  if (before != 0 && after == 0) self->watching--;
  if (before == 0 && self->watching > 1) self->patience = PATIENCE;
  return 0;
}

static void forward(virtual_t *self, int64_t by) {
  self->now = self->now > INT64_MAX - by ? INT64_MAX : self->now + by;
}

static void pass(virtual_t *self) {
  if (++self->calm > CALM) forward(self, STEP);
}

/* How long to look before a jump. */
static int64_t spend_patience(virtual_t *self, int64_t timeout) {
  int64_t real = self->patience < timeout ? self->patience : timeout;
  self->patience /= 2;
  return real < PATIENCE_WORTH ? 0 : real;
}

static int wait_ready(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  virtual_t *self = state;
  int64_t real = timeout > 0 ? spend_patience(self, timeout) : timeout;
  int found = aloop__poller_poll.wait(self->poll, events, capacity, real);
  /* A signal may have cut the wait short, and its handler may have written to a descriptor. */
  if (found == 0 && real > 0) found = aloop__poller_poll.wait(self->poll, events, capacity, 0);
  if (found > 0 && self->watching > 1) self->patience = PATIENCE;
  if (timeout == 0) pass(self);
  if (timeout > 0 && found == 0) {
    forward(self, timeout);
    self->calm = 0;
  }
  return found;
}

static int64_t now(void *state) {
  virtual_t *self = state;
  int64_t moment = self->now;
  pass(self);
  return moment;
}

const aloop_poller_t aloop__poller_virtual = {
    .size = sizeof(aloop_poller_t),
    .name = "virtual",
    .open = open_state,
    .close = close_state,
    .update = update,
    .wait = wait_ready,
    .now = now,
};
