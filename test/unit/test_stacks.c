/* SPDX-License-Identifier: MIT
 *
 * Stacks: sizes, guards and the pool.
 */
#include "harness.h"

#include <string.h>

#include "task/stacks.h"

static void a_stack_has_the_size_asked_for_less_its_guard(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  for (size_t size = 1; size <= (size_t)1 << 22; size *= 2) {
    aloop__stack_t *stack;
    assert_int_equal(aloop__stacks_take(&stacks, size, &stack), 0);
    size_t usable = (size_t)(stack->top - stack->low);
    assert_true(usable >= size - size / 4);
    memset(stack->low, 1, usable);
    aloop__stacks_give(&stacks, stack);
  }
  aloop__stacks_close(&stacks);
}

static void a_stack_given_back_is_taken_again(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *one, *two, *again;
  assert_int_equal(aloop__stacks_take(&stacks, 0, &one), 0);
  assert_int_equal(aloop__stacks_take(&stacks, 0, &two), 0);
  assert_int_equal(stacks.live, 2);
  aloop__stacks_give(&stacks, one);
  assert_int_equal(aloop__stacks_take(&stacks, 0, &again), 0);
  assert_ptr_equal(again, one);
  aloop__stacks_give(&stacks, again);
  aloop__stacks_give(&stacks, two);
  assert_int_equal(stacks.live, 0);
  assert_int_equal(stacks.high_water, 2);
  aloop__stacks_close(&stacks);
}

TESTS(T(a_stack_has_the_size_asked_for_less_its_guard), T(a_stack_given_back_is_taken_again))
