/* SPDX-License-Identifier: MIT
 *
 * Coroutines: a stack, a function and where both sides of it stand.
 *
 * The control block lies at the top of the coroutine's own stack, so making one allocates nothing and touches
 * one page. A coroutine is resumed by somebody and suspends to the same: `back` is where that one stands
 * meanwhile. So coroutines nest as calls do, and a thread runs the innermost of a chain.
 *
 * Making, resuming, suspending and freeing are O(1).
 */
#include "task/coroutine.h"

#include "core/check.h"

typedef enum state { SUSPENDED, RUNNING, ENDED } state_t;

struct aloop__coroutine {
  void *mark; /* where it stands while suspended */
  void *back; /* where its resumer stands while it runs */
  void (*switch_to)(void **from, void *to);
  aloop__coroutine_fn fn;
  void *arg;
  aloop__stacks_t *stacks;
  aloop__stack_t *stack;
  state_t state;
};

static void enter(void *arg) {
  aloop__coroutine_t *self = arg;
  self->fn(self, self->arg);
  self->state = ENDED;
  self->switch_to(&self->mark, self->back);
}

int aloop__coroutine_new(aloop__stacks_t *stacks, size_t stack_size, aloop__coroutine_fn fn, void *arg,
                         aloop__coroutine_t **out) {
  aloop__stack_t *stack;
  int rc = aloop__stacks_take(stacks, stack_size, &stack);
  if (rc < 0) return rc;
  char *top = stack->top - ((sizeof(aloop__coroutine_t) + 63) & ~(size_t)63);
  aloop__coroutine_t *co = (aloop__coroutine_t *)(void *)top;
  *co = (aloop__coroutine_t){.fn = fn, .arg = arg, .stacks = stacks, .stack = stack, .state = SUSPENDED};
  co->switch_to = stacks->how->to;
  co->mark = stacks->how->make(stack->low, top, enter, co);
  *out = co;
  return 0;
}

void aloop__coroutine_resume(aloop__coroutine_t *co) {
  ALOOP_CHECK(co->state == SUSPENDED);
  co->state = RUNNING;
  co->switch_to(&co->back, co->mark);
}

void aloop__coroutine_suspend(aloop__coroutine_t *self) {
  ALOOP_CHECK(self->state == RUNNING);
  self->state = SUSPENDED;
  self->switch_to(&self->mark, self->back);
}

bool aloop__coroutine_ended(const aloop__coroutine_t *co) {
  return co->state == ENDED;
}

void aloop__coroutine_free(aloop__coroutine_t *co) {
  if (co == NULL) return;
  ALOOP_CHECK(co->state != RUNNING);
  aloop__stacks_give(co->stacks, co->stack);
}

size_t aloop__coroutine_stack_size(const aloop__coroutine_t *co) {
  return (size_t)((const char *)co - co->stack->low);
}
