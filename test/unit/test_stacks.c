/* SPDX-License-Identifier: MIT
 *
 * Stacks: sizes, guards of both kinds, the pool, and what goes back to the system.
 * wraps: mmap madvise mprotect
 */
#include "harness.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "task/fibers.h"
#include "task/stacks.h"

/* ---- System calls that fail ------------------------------------------------------------------------------------ */

static size_t mmap_limit = SIZE_MAX;
static int madvise_error, mprotect_error;
static int mprotects;
static bool madvise_pretends;

void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_madvise(void *at, size_t bytes, int advice);
int __wrap_madvise(void *at, size_t bytes, int advice);
int __real_mprotect(void *at, size_t bytes, int protection);
int __wrap_mprotect(void *at, size_t bytes, int protection);

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  if (bytes <= mmap_limit) return __real_mmap(at, bytes, protection, flags, fd, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

int __wrap_madvise(void *at, size_t bytes, int advice) {
  if (madvise_pretends) return 0;
  if (madvise_error == 0 || advice != 102) return __real_madvise(at, bytes, advice);
  errno = madvise_error;
  return -1;
}

int __wrap_mprotect(void *at, size_t bytes, int protection) {
  mprotects++;
  if (mprotect_error == 0) return __real_mprotect(at, bytes, protection);
  errno = mprotect_error;
  return -1;
}

/* ---- Help ------------------------------------------------------------------------------------------------------ */

static sigjmp_buf fault;

static void on_fault(int number) {
  siglongjmp(fault, number);
}

/* Whether writing there is a fault. */
static bool faults_at(char *address) {
  struct sigaction action = {.sa_handler = on_fault}, segv, bus;
  sigaction(SIGSEGV, &action, &segv);
  sigaction(SIGBUS, &action, &bus);
  bool faulted = true;
  if (sigsetjmp(fault, 1) == 0) {
    *(volatile char *)address = 1;
    faulted = false;
  }
  sigaction(SIGSEGV, &segv, NULL);
  sigaction(SIGBUS, &bus, NULL);
  return faulted;
}

static aloop__stack_t *take(aloop__stacks_t *stacks, size_t size) {
  aloop__stack_t *stack = NULL;
  assert_int_equal(aloop__stacks_take(stacks, size, &stack), 0);
  return stack;
}

/* Takes many at once, uses a little of each and gives them back. */
static void use_many(aloop__stacks_t *stacks, size_t size, int count) {
  static aloop__stack_t *taken[1000];
  for (int i = 0; i < count; i++) {
    taken[i] = take(stacks, size);
    taken[i]->top[-1] = 1;
  }
  for (int i = 0; i < count; i++) aloop__stacks_give(stacks, taken[i]);
}

static int mappings(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  if (maps == NULL) return -1;
  int lines = 0;
  for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
  fclose(maps);
  return lines;
}

/* Elsewhere the system takes what is given back when it wants to. */
static bool memory_goes_at_once(void) {
#ifdef __linux__
  return true;
#else
  return false;
#endif
}

static bool is_resident(const aloop__stack_t *stack) {
  unsigned char pages[1] = {0};
  assert_int_equal(mincore(stack->top - sysconf(_SC_PAGESIZE), 1, pages), 0);
  return pages[0] & 1;
}

/* ---- Sizes and guards ------------------------------------------------------------------------------------------ */

static void sizes_are_as_asked_for(aloop__stacks_t *stacks) {
  for (size_t size = 1; size <= (size_t)1 << 22; size *= 2) {
    aloop__stack_t *stack = take(stacks, size);
    size_t usable = (size_t)(stack->top - stack->low);
    assert_true(aloop__stack_size(stack) >= size);
    assert_true(usable >= size - size / 4);
    assert_int_equal((uintptr_t)stack->top % stacks->page, 0);
    memset(stack->low, 1, usable);
    assert_true(faults_at(stack->low - 1));
    assert_true(faults_at(stack->top - aloop__stack_size(stack)));
    assert_false(faults_at(stack->low));
    aloop__stacks_give(stacks, stack);
  }
}

static void a_stack_has_the_size_asked_for_less_its_guard(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  sizes_are_as_asked_for(&stacks);
  aloop__stacks_close(&stacks);
}

static void guards_that_are_mappings_do_the_same(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  stacks.light_guards = false;
  mprotects = 0;
  sizes_are_as_asked_for(&stacks);
  assert_true(mprotects > 5);
  aloop__stacks_close(&stacks);
}

static void a_kernel_without_light_guards_is_asked_once(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  madvise_error = EINVAL;
  aloop__stack_t *one = take(&stacks, 0);
  madvise_error = 0;
  assert_false(stacks.light_guards);
  assert_true(faults_at(one->low - 1));
  aloop__stacks_give(&stacks, one);
  aloop__stacks_close(&stacks);
}

static void a_kernel_that_takes_any_advice_is_not_believed(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  madvise_pretends = true;
  aloop__stack_t *one = take(&stacks, 0);
  madvise_pretends = false;
  assert_false(stacks.light_guards);
  assert_true(faults_at(one->low - 1));
  aloop__stacks_give(&stacks, one);
  aloop__stacks_close(&stacks);
}

static void without_memory_for_a_guard_there_is_no_stack(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *stack = NULL;
  aloop__stacks_give(&stacks, take(&stacks, 0));
  madvise_error = ENOMEM;
  if (stacks.light_guards) assert_int_equal(aloop__stacks_take(&stacks, 4096, &stack), ALOOP_ENOMEM);
  madvise_error = 0;
  stacks.light_guards = false;
  mprotect_error = ENOMEM;
  assert_int_equal(aloop__stacks_take(&stacks, 65536, &stack), ALOOP_ENOMEM);
  mprotect_error = 0;
  assert_null(stack);
  assert_int_equal(stacks.live, 0);
  stack = take(&stacks, 65536);
  assert_true(faults_at(stack->low - 1));
  aloop__stacks_give(&stacks, stack);
  aloop__stacks_close(&stacks);
}

static void light_guards_cost_no_mappings(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  int before = mappings();
  use_many(&stacks, 0, 1000);
  if (before < 0 || !stacks.light_guards) {
    aloop__stacks_close(&stacks);
    skip();
  }
  assert_true(mappings() - before < 50);
  aloop__stacks_close(&stacks);
}

static void a_size_beyond_all_classes_is_refused(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *stack = NULL;
  assert_int_equal(aloop__stacks_take(&stacks, SIZE_MAX, &stack), ALOOP_EINVAL);
  assert_int_equal(aloop__stacks_take(&stacks, ((size_t)1 << 30) + 1, &stack), ALOOP_EINVAL);
  assert_null(stack);
  stacks.how = NULL; /* a machine on which nothing works */
  assert_int_equal(aloop__stacks_take(&stacks, 0, &stack), ALOOP_ENOTSUP);
  aloop__stacks_close(&stacks);
}

static void a_fault_in_a_guard_is_told_from_others(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *one = take(&stacks, 0), *two = take(&stacks, 0), *small = take(&stacks, 1);
  char *base = two->top - aloop__stack_size(two);
  assert_ptr_equal(aloop__stacks_find(&stacks, two->low - 1), two);
  assert_ptr_equal(aloop__stacks_find(&stacks, base), two);
  assert_null(aloop__stacks_find(&stacks, two->low));
  assert_ptr_equal(aloop__stacks_find(&stacks, one->low - 1), one);
  assert_ptr_equal(aloop__stacks_find(&stacks, small->low - 1), small);
  assert_null(aloop__stacks_find(&stacks, &stacks));
  assert_null(aloop__stacks_find(&stacks, NULL));
  aloop__stacks_give(&stacks, one);
  aloop__stacks_give(&stacks, two);
  aloop__stacks_give(&stacks, small);
  aloop__stacks_close(&stacks);
}

/* ---- The pool -------------------------------------------------------------------------------------------------- */

static void the_stack_given_back_last_is_taken_first(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *one = take(&stacks, 0), *two = take(&stacks, 0);
  assert_int_equal(stacks.live, 2);
  aloop__stacks_give(&stacks, one);
  aloop__stacks_give(&stacks, two);
  assert_int_equal(stacks.live, 0);
  assert_int_equal(stacks.pooled, 2);
  assert_ptr_equal(take(&stacks, 262144), two);
  assert_ptr_equal(take(&stacks, 262143), one);
  assert_int_equal(stacks.pooled, 0);
  assert_int_equal(stacks.high_water, 2);
  aloop__stacks_give(&stacks, one);
  aloop__stacks_give(&stacks, two);
  aloop__stacks_close(&stacks);
  assert_int_equal(stacks.reserved, 0);
}

static void sizes_have_pools_of_their_own(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *small = take(&stacks, 16384);
  aloop__stacks_give(&stacks, small);
  aloop__stack_t *large = take(&stacks, 16385);
  assert_ptr_not_equal(large, small);
  assert_int_equal(aloop__stack_size(large), 32768);
  aloop__stacks_give(&stacks, large);
  aloop__stacks_close(&stacks);
}

static void where_address_space_is_short_mappings_are_small(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  size_t each = 262144 + stacks.page;
  mmap_limit = each;
  use_many(&stacks, 0, 10);
  assert_int_equal(stacks.reserved, 10 * each);
  mmap_limit = each - 1;
  aloop__stack_t *stack = NULL, *pooled[10];
  for (int i = 0; i < 10; i++) pooled[i] = take(&stacks, 0);
  assert_int_equal(aloop__stacks_take(&stacks, 0, &stack), ALOOP_ENOMEM);
  mmap_limit = SIZE_MAX;
  stack = take(&stacks, 0);
  aloop__stacks_give(&stacks, stack);
  for (int i = 0; i < 10; i++) aloop__stacks_give(&stacks, pooled[i]);
  aloop__stacks_close(&stacks);
}

static void without_memory_for_descriptors_nothing_changes(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *stack = NULL;
  env->fail_from = 1;
  assert_int_equal(aloop__stacks_take(&stacks, 0, &stack), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_int_equal(stacks.reserved, 0);
  assert_int_equal(stacks.live, 0);
  aloop__stacks_close(&stacks);
}

/* ---- Tidying --------------------------------------------------------------------------------------------------- */

static void memory_of_stacks_long_idle_goes_back(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *lasting = take(&stacks, 0), *idle = take(&stacks, 0);
  idle->top[-1] = 1;
  lasting->top[-1] = 1;
  aloop__stacks_give(&stacks, idle);
  assert_true(aloop__stacks_tidy(&stacks)); /* it may have been used just now */
  assert_true(is_resident(idle));
  assert_false(aloop__stacks_tidy(&stacks));
  assert_true(!is_resident(idle) || !memory_goes_at_once());
  assert_true(is_resident(lasting));
  assert_true(faults_at(idle->low - 1));
  assert_ptr_equal(take(&stacks, 0), idle);
  assert_false(faults_at(idle->top - 1));
  aloop__stacks_give(&stacks, idle);
  aloop__stacks_give(&stacks, lasting);
  aloop__stacks_close(&stacks);
}

static void stacks_in_use_now_and_then_keep_their_memory(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *lasting = take(&stacks, 0);
  use_many(&stacks, 0, 100);
  for (int i = 0; i < 5; i++) {
    use_many(&stacks, 0, 10);
    aloop__stacks_tidy(&stacks);
  }
  aloop__stack_t *first[11];
  for (int i = 0; i < 11; i++) first[i] = take(&stacks, 0);
  for (int i = 0; i < 10; i++) assert_true(is_resident(first[i]));
  assert_true(!is_resident(first[10]) || !memory_goes_at_once());
  for (int i = 0; i < 11; i++) aloop__stacks_give(&stacks, first[i]);
  aloop__stacks_give(&stacks, lasting);
  aloop__stacks_close(&stacks);
}

static void mappings_of_which_nothing_is_in_use_go(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  use_many(&stacks, 0, 1000);
  use_many(&stacks, 65536, 100);
  long live = env->live;
  assert_true(aloop__stacks_tidy(&stacks));
  assert_false(aloop__stacks_tidy(&stacks));
  assert_int_equal(stacks.reserved, 0);
  assert_int_equal(stacks.pooled, 0);
  assert_true(env->live < live);
  assert_false(aloop__stacks_tidy(&stacks));
  use_many(&stacks, 0, 1000);
  assert_int_equal(stacks.high_water, 1000);
  aloop__stacks_close(&stacks);
}

static void a_hundred_thousand_stacks_live_at_once(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
#if defined(ALOOP_ASAN) || defined(ALOOP_TSAN)
  enum { COUNT = 5000 };
#elif UINTPTR_MAX <= UINT32_MAX /* where they would have no room */
  enum { COUNT = 10000 };
#else
  enum { COUNT = 100000 };
#endif
  aloop__stack_t *last = NULL;
  int count = 0;
  for (; count < COUNT; count++) {
    aloop__stack_t *stack;
    int rc = aloop__stacks_take(&stacks, 0, &stack);
    if (rc < 0 && !stacks.light_guards) break; /* the kernel's limit for mappings */
    assert_int_equal(rc, 0);
    stack->label = (char *)last;
    last = stack;
  }
  assert_int_equal(stacks.live, count);
  while (last != NULL) {
    aloop__stack_t *stack = last;
    last = (aloop__stack_t *)(uintptr_t)stack->label;
    aloop__stacks_give(&stacks, stack);
  }
  assert_int_equal(stacks.high_water, count);
  aloop__stacks_close(&stacks);
}

TESTS(T(a_stack_has_the_size_asked_for_less_its_guard), T(guards_that_are_mappings_do_the_same),
      T(a_kernel_without_light_guards_is_asked_once), T(a_kernel_that_takes_any_advice_is_not_believed),
      T(without_memory_for_a_guard_there_is_no_stack), T(light_guards_cost_no_mappings),
      T(a_size_beyond_all_classes_is_refused), T(a_fault_in_a_guard_is_told_from_others),
      T(the_stack_given_back_last_is_taken_first), T(sizes_have_pools_of_their_own),
      T(where_address_space_is_short_mappings_are_small), T(without_memory_for_descriptors_nothing_changes),
      T(memory_of_stacks_long_idle_goes_back), T(stacks_in_use_now_and_then_keep_their_memory),
      T(mappings_of_which_nothing_is_in_use_go), T(a_hundred_thousand_stacks_live_at_once))
