/* SPDX-License-Identifier: MIT
 *
 * The two grades of check. ALOOP_CHECK states an internal truth: it stops the program at once in builds with
 * -DALOOP_CHECKS and compiles to nothing otherwise, so its condition must have no side effect. A caller's
 * mistake is never a check: it goes through aloop__misuse (report.h), which returns a documented code and says
 * the rule in debug mode.
 */
#ifndef ALOOP_CORE_CHECK_H
#define ALOOP_CORE_CHECK_H

#if ALOOP_CHECKS
#include <stdlib.h>
#define ALOOP_CHECK(condition) ((condition) ? (void)0 : abort())
#else
#define ALOOP_CHECK(condition) ((void)0)
#endif

/* The sanitizer that watches this build. */
#if defined(__SANITIZE_ADDRESS__)
#define ALOOP_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define ALOOP_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ALOOP_ASAN 1
#elif __has_feature(thread_sanitizer)
#define ALOOP_TSAN 1
#endif
#endif

/* Hints for measured hot paths, around whole conditions only. */
#if defined(__GNUC__)
#define ALOOP_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define ALOOP_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define ALOOP_NOINLINE __attribute__((noinline))
#define ALOOP_PREFETCH(address) __builtin_prefetch(address, 1)
#define ALOOP_INLINE static inline __attribute__((always_inline))
#else
#define ALOOP_LIKELY(condition) (condition)
#define ALOOP_UNLIKELY(condition) (condition)
#define ALOOP_NOINLINE
#define ALOOP_PREFETCH(address) ((void)0)
#define ALOOP_INLINE static inline
#endif

/* The same for a line that another CPU may have changed and that is to be changed here. For the oldest x86-64
 * compilers fetch it for reading, and then it has to be asked for again; that CPU takes this for nothing. */
#if defined(__GNUC__) && defined(__x86_64__)
#define ALOOP_PREFETCH_OWN(address) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(address)))
#else
#define ALOOP_PREFETCH_OWN(address) ALOOP_PREFETCH(address)
#endif

/* In a loop that waits for another CPU for less than a microsecond. */
#if defined(__GNUC__) && defined(__x86_64__)
#define ALOOP_PAUSE() __builtin_ia32_pause()
#elif defined(__GNUC__) && defined(__aarch64__)
#define ALOOP_PAUSE() __asm__ volatile("yield")
#else
#define ALOOP_PAUSE() ((void)0)
#endif

#endif
