/* SPDX-License-Identifier: MIT
 *
 * Coroutines: suspended and resumed, nested, dropped; what a function may do inside one. Each test runs with each way
 * of switching that this machine has.
 * threads: yes
 */
#include "harness.h"

#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

#include "task/coroutine.h"
#include "task/fibers.h"

#ifdef __has_include
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

#define IN_EACH_WAY(name)                                                                                      \
  static void name##_with(aloop__stacks_t *stacks);                                                            \
  static void name(void **state) {                                                                             \
    env_t *env = *state;                                                                                       \
    for (const aloop__switch_t *const *way = aloop__switch_ways(); *way != NULL; way++) {                      \
      aloop__stacks_t stacks;                                                                                  \
      aloop__stacks_init(&stacks, env->loop);                                                                  \
      stacks.how = *way;                                                                                       \
      name##_with(&stacks);                                                                                    \
      assert_int_equal(stacks.live, 0);                                                                        \
      aloop__stacks_close(&stacks);                                                                            \
    }                                                                                                          \
  }                                                                                                            \
  static void name##_with(aloop__stacks_t *stacks)

static aloop__coroutine_t *make(aloop__stacks_t *stacks, aloop__coroutine_fn fn, void *arg) {
  aloop__coroutine_t *co = NULL;
  assert_int_equal(aloop__coroutine_new(stacks, 0, fn, arg, &co), 0);
  return co;
}

/* Runs it to its end, and returns how often it was suspended. */
static int finish(aloop__coroutine_t *co) {
  int suspensions = -1;
  for (; !aloop__coroutine_ended(co); suspensions++) aloop__coroutine_resume(co);
  aloop__coroutine_free(co);
  return suspensions;
}

/* ---- Life ------------------------------------------------------------------------------------------------------ */

typedef struct counter {
  int count, until;
} counter_t;

static void count(aloop__coroutine_t *self, void *arg) {
  counter_t *counter = arg;
  while (counter->count < counter->until) {
    counter->count++;
    aloop__coroutine_suspend(self);
  }
}

IN_EACH_WAY(a_coroutine_runs_from_suspension_to_suspension) {
  counter_t counter = {0, 10};
  aloop__coroutine_t *co = make(stacks, count, &counter);
  for (int i = 0; i < 10; i++) {
    assert_int_equal(counter.count, i);
    aloop__coroutine_resume(co);
    assert_false(aloop__coroutine_ended(co));
  }
  aloop__coroutine_resume(co);
  assert_true(aloop__coroutine_ended(co));
  aloop__coroutine_free(co);
  aloop__coroutine_free(NULL);
}

typedef struct nest {
  aloop__stacks_t *stacks;
  int depth, reached;
} nest_t;

static void nest_deeper(aloop__coroutine_t *self, void *arg) {
  nest_t *nest = arg;
  nest_t inner = {nest->stacks, nest->depth - 1, 0};
  if (nest->depth > 0) {
    aloop__coroutine_t *co = make(nest->stacks, nest_deeper, &inner);
    while (!aloop__coroutine_ended(co)) {
      aloop__coroutine_resume(co);
      aloop__coroutine_suspend(self);
    }
    aloop__coroutine_free(co);
  }
  nest->reached = inner.reached + 1;
}

IN_EACH_WAY(coroutines_resume_others) {
  nest_t nest = {stacks, 10, 0};
  finish(make(stacks, nest_deeper, &nest));
  assert_int_equal(nest.reached, 11);
  assert_int_equal(stacks->high_water, 11);
}

IN_EACH_WAY(a_suspended_coroutine_can_be_dropped) {
  counter_t counter = {0, 10};
  aloop__coroutine_free(make(stacks, count, &counter)); /* never began */
  assert_int_equal(counter.count, 0);
  for (int i = 1; i <= 100; i++) {
    counter.count = 0;
    aloop__coroutine_t *co = make(stacks, count, &counter);
    aloop__coroutine_resume(co);
    aloop__coroutine_free(co);
    assert_int_equal(counter.count, 1);
  }
  assert_int_equal(stacks->high_water, 1);
}

static void drop_inner(aloop__coroutine_t *self, void *arg) {
  counter_t counter = {0, 10};
  aloop__coroutine_t *co = make(arg, count, &counter);
  aloop__coroutine_resume(co);
  aloop__coroutine_suspend(self);
  aloop__coroutine_free(co);
}

IN_EACH_WAY(a_coroutine_can_drop_another) {
  assert_int_equal(finish(make(stacks, drop_inner, stacks)), 1);
}

IN_EACH_WAY(without_a_stack_there_is_no_coroutine) {
  aloop__coroutine_t *co = NULL;
  assert_int_equal(aloop__coroutine_new(stacks, SIZE_MAX, count, NULL, &co), ALOOP_EINVAL);
  assert_null(co);
}

static bool on_valgrind(void) {
#ifdef RUNNING_ON_VALGRIND
  return RUNNING_ON_VALGRIND;
#else
  return false;
#endif
}

/* As many as what watches can bear. */
static int many(void) {
#if defined(ALOOP_TSAN)
  return 500;
#elif defined(ALOOP_ASAN)
  return 3000;
#elif UINTPTR_MAX <= UINT32_MAX /* where more have no room */
  return 10000;
#else
  return on_valgrind() ? 300 : 100000;
#endif
}

IN_EACH_WAY(many_are_alive_at_once) {
  const int most = many();
  aloop__coroutine_t **all = calloc((size_t)most, sizeof(aloop__coroutine_t *));
  counter_t *counters = calloc((size_t)most, sizeof *counters);
  int live = 0;
  for (; live < most; live++) {
    counters[live].until = live % 4;
    int rc = aloop__coroutine_new(stacks, 65536, count, &counters[live], &all[live]);
    if (rc == ALOOP_ENOMEM && !stacks->light_guards) break; /* the kernel's limit for mappings */
    assert_int_equal(rc, 0);
    aloop__coroutine_resume(all[live]);
  }
  for (int i = 0; i < live; i++)
    assert_int_equal(finish(all[i]), counters[i].until > 0 ? counters[i].until - 1 : -1);
  for (int i = 0; i < live; i++) assert_int_equal(counters[i].count, counters[i].until);
  free(counters);
  free(all);
}

IN_EACH_WAY(many_are_made_and_finished) {
  counter_t counter = {0, 1};
  for (int i = many(); i > 0; i--) {
    counter.count = 0;
    assert_int_equal(finish(make(stacks, count, &counter)), 1);
  }
  assert_int_equal(stacks->high_water, 1);
}

/* ---- What lives on across a suspension -------------------------------------------------------------------------- */

typedef struct numbers {
  volatile int ints[12];
  volatile double doubles[12];
  double sum;
} numbers_t;

/* More values than there are registers that a call preserves. */
static void keep_numbers(aloop__coroutine_t *self, void *arg) {
  numbers_t *n = arg;
  int a = n->ints[0], b = n->ints[1], c = n->ints[2], d = n->ints[3], e = n->ints[4], f = n->ints[5];
  int g = n->ints[6], h = n->ints[7], i = n->ints[8], j = n->ints[9], k = n->ints[10], l = n->ints[11];
  double o = n->doubles[0], p = n->doubles[1], q = n->doubles[2], r = n->doubles[3], s = n->doubles[4];
  double t = n->doubles[5], u = n->doubles[6], v = n->doubles[7], w = n->doubles[8], x = n->doubles[9];
  aloop__coroutine_suspend(self);
  n->sum = a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j + 11 * k + 12 * l;
  n->sum += o + 2 * p + 3 * q + 4 * r + 5 * s + 6 * t + 7 * u + 8 * v + 9 * w + 10 * x;
}

IN_EACH_WAY(numbers_in_registers_are_kept) {
  numbers_t one = {.sum = 0}, two = {.sum = 0};
  for (int i = 0; i < 12; i++) {
    one.ints[i] = i;
    one.doubles[i] = i + 0.5;
    two.ints[i] = 2 * i;
    two.doubles[i] = i + 1;
  }
  aloop__coroutine_t *first = make(stacks, keep_numbers, &one), *second = make(stacks, keep_numbers, &two);
  aloop__coroutine_resume(first);
  aloop__coroutine_resume(second);
  finish(first);
  finish(second);
  assert_true(one.sum == 572 + 330 + 27.5);
  assert_true(two.sum == 1144 + 330 + 55);
}

typedef struct rounding {
  int mode;
  volatile double seventh;
  volatile long double long_seventh;
} rounding_t;

/* A number that rounding to nearest rounds down, in all formats. */
static double a_seventh(void) {
  volatile double one = 1, seven = 7;
  return one / seven;
}

static long double a_long_seventh(void) {
  volatile long double one = 1, seven = 7;
  return one / seven;
}

static void round_otherwise(aloop__coroutine_t *self, void *arg) {
  rounding_t *rounding = arg;
  rounding->mode = fegetround();
  aloop__coroutine_suspend(self);
  fesetround(FE_UPWARD);
  aloop__coroutine_suspend(self);
  rounding->mode = fegetround();
  rounding->seventh = a_seventh();
  rounding->long_seventh = a_long_seventh();
}

IN_EACH_WAY(each_has_its_own_rounding_mode) {
  double nearest = a_seventh();
  long double long_nearest = a_long_seventh();
  fesetround(FE_DOWNWARD);
  rounding_t rounding = {.mode = -1};
  aloop__coroutine_t *co = make(stacks, round_otherwise, &rounding);
  fesetround(FE_TONEAREST);
  aloop__coroutine_resume(co);
  assert_int_equal(rounding.mode, FE_DOWNWARD);
  assert_int_equal(fegetround(), FE_TONEAREST);
  aloop__coroutine_resume(co);
  assert_int_equal(fegetround(), FE_TONEAREST);
  assert_true(a_seventh() == nearest && a_long_seventh() == long_nearest);
  aloop__coroutine_resume(co);
  assert_int_equal(rounding.mode, FE_UPWARD);
  assert_true(on_valgrind() || rounding.seventh > nearest); /* it does not round */
  assert_true(on_valgrind() || rounding.long_seventh > long_nearest);
  aloop__coroutine_free(co);
}

static void jump(aloop__coroutine_t *self, void *arg) {
  int *jumps = arg;
  jmp_buf back;
  if (setjmp(back) < 10) {
    aloop__coroutine_suspend(self);
    longjmp(back, ++*jumps);
  }
}

IN_EACH_WAY(a_function_may_jump_on_its_own_stack) {
  int one = 0, two = 0;
  aloop__coroutine_t *first = make(stacks, jump, &one), *second = make(stacks, jump, &two);
  for (int i = 0; i < 5; i++) {
    aloop__coroutine_resume(first);
    aloop__coroutine_resume(second);
  }
  assert_int_equal(finish(first), 5);
  assert_int_equal(finish(second), 5);
  assert_int_equal(one, 10);
  assert_int_equal(two, 10);
}

typedef struct walk {
  int frames;
  bool entry; /* fn was seen */
  _Unwind_Reason_Code end;
} walk_t;

static void walk_here(aloop__coroutine_t *self, void *arg);

static _Unwind_Reason_Code see_frame(struct _Unwind_Context *context, void *arg) {
  walk_t *walk = arg;
  walk->frames++;
  void *start = _Unwind_FindEnclosingFunction((void *)_Unwind_GetIP(context));
  if (start == (void *)(uintptr_t)walk_here) walk->entry = true;
  return walk->frames < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

static void walk_here(aloop__coroutine_t *self, void *arg) {
  walk_t *walk = arg;
  aloop__coroutine_suspend(self);
  walk->end = _Unwind_Backtrace(see_frame, walk);
}

IN_EACH_WAY(unwinding_ends_at_the_first_frame) {
  if (strcmp(stacks->how->name, "assembly") != 0) return; /* then it is the C library's business */
  walk_t walk = {0, false, _URC_NO_REASON};
  assert_int_equal(finish(make(stacks, walk_here, &walk)), 1);
  assert_true(walk.entry);
  assert_true(walk.frames >= 2 && walk.frames < 10);
  assert_int_equal(walk.end, _URC_END_OF_STACK);
}

static int recurse(int depth) {
  volatile char frame[512];
  memset((char *)frame, depth & 1, sizeof frame);
  return depth == 0 ? frame[0] : recurse(depth - 1) + frame[511];
}

static void recurse_deeply(aloop__coroutine_t *self, void *arg) {
  int *result = arg;
  (void)self;
  *result = recurse(150);
}

IN_EACH_WAY(a_function_has_the_stack_it_was_promised) {
  int result = 0;
  finish(make(stacks, recurse_deeply, &result));
  assert_int_equal(result, 75);
}

IN_EACH_WAY(a_stack_can_be_asked_for_its_size) {
  aloop__coroutine_t *co = NULL;
  assert_int_equal(aloop__coroutine_new(stacks, 20000, count, NULL, &co), 0);
  assert_int_equal(aloop__coroutine_stack_size(co), 32768);
  aloop__coroutine_free(co);
}

/* ---- Threads --------------------------------------------------------------------------------------------------- */

static char run_some_ended;

static void *run_some(void *arg) {
  aloop_t *loop;
  (void)arg;
  if (aloop_new(NULL, &loop) < 0) return NULL;
  for (const aloop__switch_t *const *way = aloop__switch_ways(); *way != NULL; way++) {
    aloop__stacks_t stacks;
    aloop__stacks_init(&stacks, loop);
    stacks.how = *way;
    nest_t nest = {&stacks, 5, 0};
    for (int i = 0; i < 20; i++) finish(make(&stacks, nest_deeper, &nest));
    aloop__stacks_close(&stacks);
  }
  aloop_free(loop);
  return &run_some_ended;
}

static void threads_have_coroutines_of_their_own(void **state) {
  (void)state;
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, run_some, NULL), 0);
  for (int i = 0; i < 3; i++) {
    void *ended = NULL;
    pthread_join(threads[i], &ended);
    assert_non_null(ended);
  }
}

static void *resume_once(void *arg) {
  aloop__coroutine_resume(arg);
  return NULL;
}

IN_EACH_WAY(a_coroutine_can_move_to_another_thread) {
  counter_t counter = {0, 3};
  aloop__coroutine_t *co = make(stacks, count, &counter);
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, resume_once, co), 0);
    pthread_join(thread, NULL);
    assert_int_equal(counter.count, i + 1);
  }
  assert_int_equal(finish(co), 0);
}

TESTS(T(a_coroutine_runs_from_suspension_to_suspension), T(coroutines_resume_others),
      T(a_suspended_coroutine_can_be_dropped), T(a_coroutine_can_drop_another),
      T(without_a_stack_there_is_no_coroutine), T(many_are_alive_at_once), T(many_are_made_and_finished),
      T(numbers_in_registers_are_kept), T(each_has_its_own_rounding_mode),
      T(a_function_may_jump_on_its_own_stack), T(unwinding_ends_at_the_first_frame),
      T(a_function_has_the_stack_it_was_promised), T(a_stack_can_be_asked_for_its_size),
      T(threads_have_coroutines_of_their_own), T(a_coroutine_can_move_to_another_thread))
