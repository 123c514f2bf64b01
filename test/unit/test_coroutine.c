/* SPDX-License-Identifier: MIT
 *
 * Coroutines: suspended and resumed, nested, dropped.
 */
#include "harness.h"

#include "task/coroutine.h"

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

/* Runs the test with each way of switching. */
static void each_way(env_t *env, void (*test)(aloop__stacks_t *stacks)) {
  for (const aloop__switch_t *const *way = aloop__switch_ways(); *way != NULL; way++) {
    aloop__stacks_t stacks;
    aloop__stacks_init(&stacks, env->loop);
    stacks.how = *way;
    test(&stacks);
    assert_int_equal(stacks.live, 0);
    aloop__stacks_close(&stacks);
  }
}

static void count_in_steps(aloop__stacks_t *stacks) {
  counter_t counter = {0, 10};
  aloop__coroutine_t *co;
  assert_int_equal(aloop__coroutine_new(stacks, 0, count, &counter, &co), 0);
  for (int i = 1; i <= 10; i++) {
    aloop__coroutine_resume(co);
    assert_int_equal(counter.count, i);
    assert_false(aloop__coroutine_ended(co));
  }
  aloop__coroutine_resume(co);
  assert_true(aloop__coroutine_ended(co));
  aloop__coroutine_free(co);
}

static void a_coroutine_runs_from_suspension_to_suspension(void **state) {
  each_way(*state, count_in_steps);
}

typedef struct nest {
  aloop__stacks_t *stacks;
  int depth, reached;
} nest_t;

static void nest_deeper(aloop__coroutine_t *self, void *arg) {
  nest_t *nest = arg;
  nest_t inner = {nest->stacks, nest->depth - 1, 0};
  if (nest->depth > 0) {
    aloop__coroutine_t *co;
    assert_int_equal(aloop__coroutine_new(nest->stacks, 65536, nest_deeper, &inner, &co), 0);
    while (!aloop__coroutine_ended(co)) {
      aloop__coroutine_resume(co);
      aloop__coroutine_suspend(self);
    }
    aloop__coroutine_free(co);
  }
  nest->reached = inner.reached + 1;
}

static void nest_ten(aloop__stacks_t *stacks) {
  nest_t nest = {stacks, 10, 0};
  aloop__coroutine_t *co;
  assert_int_equal(aloop__coroutine_new(stacks, 0, nest_deeper, &nest, &co), 0);
  while (!aloop__coroutine_ended(co)) aloop__coroutine_resume(co);
  assert_int_equal(nest.reached, 11);
  aloop__coroutine_free(co);
}

static void coroutines_resume_others(void **state) {
  each_way(*state, nest_ten);
}

static void drop_one(aloop__stacks_t *stacks) {
  counter_t counter = {0, 10};
  aloop__coroutine_t *co;
  assert_int_equal(aloop__coroutine_new(stacks, 0, count, &counter, &co), 0);
  aloop__coroutine_free(co); /* never began */
  assert_int_equal(aloop__coroutine_new(stacks, 0, count, &counter, &co), 0);
  aloop__coroutine_resume(co);
  aloop__coroutine_free(co);
  assert_int_equal(counter.count, 1);
}

static void a_suspended_coroutine_can_be_dropped(void **state) {
  each_way(*state, drop_one);
}

TESTS(T(a_coroutine_runs_from_suspension_to_suspension), T(coroutines_resume_others),
      T(a_suspended_coroutine_can_be_dropped))
