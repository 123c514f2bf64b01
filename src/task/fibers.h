/* SPDX-License-Identifier: MIT
 *
 * What sanitizers and valgrind have to be told about stacks and the switch between them. Without them all of
 * this is nothing, or, for valgrind, a few instructions that do nothing.
 *
 * - The address sanitizer wants to know which stack is the present one, keeps a fake stack for each, and marks
 *   what lies between variables; marks of frames that never returned have to be removed.
 * - The leak sanitizer takes what only a suspended coroutine points to for lost, if not told of its stack.
 * - The thread sanitizer keeps a call stack of its own for each. Its switch has to be made by the very function
 *   that makes ours; hence everything here is inlined, optimized or not.
 * - Valgrind takes a stack pointer that moves far for an allocation of a large frame.
 */
#ifndef ALOOP_TASK_FIBERS_H
#define ALOOP_TASK_FIBERS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/check.h"

#ifdef ALOOP_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef ALOOP_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef ALOOP_HAVE_VALGRIND
#include <valgrind/memcheck.h>
#endif

/* What a coroutine keeps for them. */
typedef struct aloop__fiber {
#if defined(ALOOP_ASAN)
  void *fake;
  const void *resumer_low;
  size_t resumer_size;
#elif defined(ALOOP_TSAN)
  void *own;
  void *resumer;
#else
  char nothing;
#endif
} aloop__fiber_t;

/* ---- Stacks ---------------------------------------------------------------------------------------------- */

/* Memory becomes a stack; the number is for what comes later: 0 where valgrind does not watch. */
ALOOP_INLINE unsigned aloop__fibers_note_stack(char *low, char *top) {
#ifdef ALOOP_HAVE_VALGRIND
  if (RUNNING_ON_VALGRIND) return VALGRIND_STACK_REGISTER(low, top - 1) + 1;
#endif
  (void)low, (void)top;
  return 0;
}

ALOOP_INLINE void aloop__fibers_forget_stack(unsigned number) {
#ifdef ALOOP_HAVE_VALGRIND
  if (number != 0) VALGRIND_STACK_DEREGISTER(number - 1);
#endif
  (void)number;
}

/* A stack is taken, given back. */
ALOOP_INLINE void aloop__fibers_begin_stack(char *low, char *top, unsigned number) {
#ifdef ALOOP_ASAN
  __lsan_register_root_region(low, (size_t)(top - low));
#endif
#ifdef ALOOP_HAVE_VALGRIND
  if (ALOOP_UNLIKELY(number != 0)) VALGRIND_MAKE_MEM_UNDEFINED(low, top - low);
#endif
  (void)low, (void)top, (void)number;
}

ALOOP_INLINE void aloop__fibers_end_stack(char *low, char *top) {
#ifdef ALOOP_ASAN
  __lsan_unregister_root_region(low, (size_t)(top - low));
  ASAN_UNPOISON_MEMORY_REGION(low, (size_t)(top - low));
#endif
  (void)low, (void)top;
}

/* ---- The switch ------------------------------------------------------------------------------------------ */

ALOOP_INLINE void aloop__fiber_init(aloop__fiber_t *fiber) {
#ifdef ALOOP_TSAN
  fiber->own = __tsan_create_fiber(0);
#endif
  (void)fiber;
}

ALOOP_INLINE void aloop__fiber_end(aloop__fiber_t *fiber) {
#ifdef ALOOP_TSAN
  __tsan_destroy_fiber(fiber->own);
#endif
  (void)fiber;
}

/* By the resumer, before and after. */
ALOOP_INLINE void *aloop__fiber_resume(aloop__fiber_t *fiber, char *low, char *top) {
  void *fake = NULL;
#if defined(ALOOP_ASAN)
  __sanitizer_start_switch_fiber(&fake, low, (size_t)(top - low));
#elif defined(ALOOP_TSAN)
  fiber->resumer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber->own, 0);
#endif
  (void)fiber, (void)low, (void)top;
  return fake;
}

ALOOP_INLINE void aloop__fiber_resumed(void *fake) {
#ifdef ALOOP_ASAN
  __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
  (void)fake;
}

/* By the coroutine, before and after; `last`: there will be no after. */
ALOOP_INLINE void aloop__fiber_suspend(aloop__fiber_t *fiber, bool last) {
#if defined(ALOOP_ASAN)
  __sanitizer_start_switch_fiber(last ? NULL : &fiber->fake, fiber->resumer_low, fiber->resumer_size);
#elif defined(ALOOP_TSAN)
  __tsan_switch_to_fiber(fiber->resumer, 0);
#endif
  (void)fiber, (void)last;
}

ALOOP_INLINE void aloop__fiber_suspended(aloop__fiber_t *fiber) {
#ifdef ALOOP_ASAN
  __sanitizer_finish_switch_fiber(fiber->fake, &fiber->resumer_low, &fiber->resumer_size);
#endif
  (void)fiber;
}

#endif
