/* SPDX-License-Identifier: MIT
 *
 * The two ways to tell time. aloop__clock_now reads the loop's clock: the poller's own if it has one, else the
 * monotonic clock; it is the only place that calls clock_gettime. aloop__clock_ticks reads the CPU's counter
 * where that is cheaper: good enough to measure how long a poll slept or how many callbacks fit between two
 * polls, never used for a deadline.
 */
#ifndef ALOOP_CORE_CLOCK_H
#define ALOOP_CORE_CLOCK_H

#include "aloop.h"

int64_t aloop__clock_now(const aloop_t *loop);
int64_t aloop__clock_monotonic(void);

#if defined(__x86_64__) && defined(__GNUC__)
static inline uint64_t aloop__clock_ticks(void) {
  return __builtin_ia32_rdtsc();
}
/* Every x86-64 counts at 1 GHz or more, so this many ticks never take longer than 20 us. */
static inline uint64_t aloop__clock_ticks_20us(void) {
  return 20000;
}
#elif defined(__aarch64__) && defined(__GNUC__)
static inline uint64_t aloop__clock_ticks(void) {
  uint64_t ticks;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
}
static inline uint64_t aloop__clock_ticks_20us(void) {
  uint64_t frequency;
  __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
  return frequency / 50000;
}
#else
static inline uint64_t aloop__clock_ticks(void) {
  return (uint64_t)aloop__clock_monotonic();
}
static inline uint64_t aloop__clock_ticks_20us(void) {
  return 20000;
}
#endif

#endif
