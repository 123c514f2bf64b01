/* SPDX-License-Identifier: MIT
 *
 * The clock: the one place that reads it. A poller may bring its own clock (the virtual poller does, so that
 * tests of timers are exact and instant); every deadline in the library is compared with this one. The loop
 * caches what it read: aloop_time reads at most once per callback, because a callback that schedules a
 * thousand timers should not pay for a thousand clocks, while a cache that lived for the whole turn would let
 * a timer made after a slow callback fire early.
 */
#include "core/clock.h"

#include <time.h>

#include "core/loop.h"

int64_t aloop__clock_monotonic(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t aloop__clock_now(const aloop_t *loop) {
  if (loop->poller->now == NULL) return aloop__clock_monotonic();
  return loop->poller->now(loop->poller_state) + loop->clock_offset;
}

int64_t aloop_update_time(aloop_t *loop) {
  if (ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(loop->guard != 0)) {
    int rc = aloop__loop_thread(loop);
    if (rc < 0) return rc;
    if (loop->guard & ALOOP__GUARD_CLOSED) return aloop__clock_monotonic();
  }
  loop->now = aloop__clock_now(loop);
  loop->now_age = aloop__loop_callbacks(loop) + 1;
  return loop->now;
}

int64_t aloop_time(aloop_t *loop) {
  if (ALOOP_UNLIKELY(loop == NULL) || ALOOP_UNLIKELY(loop->guard != 0)) {
    int rc = aloop__loop_thread(loop);
    if (rc < 0) return rc;
  }
  return aloop__loop_time(loop);
}
