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
#include "task/fibers.h"

typedef enum state { NEW, SUSPENDED, RUNNING, ENDED } state_t;

struct aloop__coroutine {
  void *mark; /* where it stands while suspended */
  void *back; /* where its resumer stands while it runs */
  void (*switch_to)(void **from, void *to);
  state_t state;
#ifdef ALOOP_ASAN
  bool dropped; /* resumed only to let go of its fake stack */
#endif
  aloop__fiber_t fiber;
  aloop__coroutine_fn fn;
  void *arg;
  aloop__stacks_t *stacks;
  aloop__stack_t *stack;
};

static void enter(void *arg) {
  aloop__coroutine_t *self = arg;
  aloop__fiber_suspended(&self->fiber);
  self->fn(self, self->arg);
  self->state = ENDED;
  aloop__fiber_suspend(&self->fiber, true);
  self->switch_to(&self->mark, self->back);
}

int aloop__coroutine_new(aloop__stacks_t *stacks, size_t stack_size, aloop__coroutine_fn fn, void *arg,
                         aloop__coroutine_t **out) {
  aloop__stack_t *stack;
  int rc = aloop__stacks_take(stacks, stack_size, &stack);
  if (rc < 0) return rc;
  char *top = stack->top - stack->color - ((sizeof(aloop__coroutine_t) + 63) & ~(size_t)63);
  aloop__coroutine_t *co = (aloop__coroutine_t *)(void *)top;
  *co = (aloop__coroutine_t){.fn = fn, .arg = arg, .stacks = stacks, .stack = stack, .state = NEW};
  co->switch_to = stacks->how->to;
  co->mark = stacks->how->make(stack->low, top, enter, co);
  aloop__fiber_init(&co->fiber);
  *out = co;
  return 0;
}

/* The switch comes last where nobody watches, so that it is a jump. */
void aloop__coroutine_resume(aloop__coroutine_t *co) {
  ALOOP_CHECK(co->state == NEW || co->state == SUSPENDED);
  co->state = RUNNING;
  void *fake = aloop__fiber_resume(&co->fiber, co->stack->low, co->stack->top);
  co->switch_to(&co->back, co->mark);
  aloop__fiber_resumed(fake);
}

void aloop__coroutine_suspend(aloop__coroutine_t *self) {
  ALOOP_CHECK(self->state == RUNNING);
  self->state = SUSPENDED;
  aloop__fiber_suspend(&self->fiber, false);
  self->switch_to(&self->mark, self->back);
#ifdef ALOOP_ASAN
  if (self->dropped) {
    aloop__fiber_suspended(&self->fiber);
    aloop__fiber_suspend(&self->fiber, true);
    self->switch_to(&self->mark, self->back);
  }
#endif
  aloop__fiber_suspended(&self->fiber);
}

bool aloop__coroutine_ended(const aloop__coroutine_t *co) {
  return co->state == ENDED;
}

void aloop__coroutine_free(aloop__coroutine_t *co) {
  if (co == NULL) return;
  ALOOP_CHECK(co->state != RUNNING);
#ifdef ALOOP_ASAN
  co->dropped = true;
  if (co->state == SUSPENDED) aloop__coroutine_resume(co);
#endif
  aloop__fiber_end(&co->fiber);
  aloop__stacks_give(co->stacks, co->stack);
}

void aloop__coroutine_set_label(aloop__coroutine_t *co, const char *label) {
  co->stack->label = label;
}

size_t aloop__coroutine_stack_size(const aloop__coroutine_t *co) {
  return aloop__stack_size(co->stack);
}
