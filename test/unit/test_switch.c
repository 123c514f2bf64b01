/* SPDX-License-Identifier: MIT
 *
 * The switch between stacks, in every way that this machine has.
 */
#include "harness.h"

#include <stdlib.h>

#include "task/fibers.h"
#include "task/switch.h"

enum { STACK = 65536 };

typedef struct side {
  const aloop__switch_t *way;
  void *main, *other;
  int count;
  uintptr_t address;
} side_t;

static char *make_stack(void) {
  char *stack = aligned_alloc(4096, STACK);
  assert_non_null(stack);
  return stack;
}

static void count(void *arg) {
  side_t *side = arg;
  for (;;) {
    char here;
    side->address = (uintptr_t)&here;
    side->count++;
    side->way->to(&side->other, side->main);
  }
}

static void each_side_goes_on_where_it_was_left(void **state) {
  (void)state;
  for (const aloop__switch_t *const *way = aloop__switch_ways(); *way != NULL; way++) {
    char *stack = make_stack();
    side_t side = {.way = *way};
    side.other = (*way)->make(stack, stack + STACK, count, &side);
    assert_non_null(side.other);
    assert_int_equal(side.count, 0);
    for (int i = 1; i <= 1000; i++) {
      (*way)->to(&side.main, side.other);
      assert_int_equal(side.count, i);
    }
#ifndef ALOOP_ASAN /* it has its own place for variables */
    assert_true(side.address > (uintptr_t)stack && side.address < (uintptr_t)stack + STACK);
#endif
    free(stack);
  }
}

TESTS(T(each_side_goes_on_where_it_was_left))
