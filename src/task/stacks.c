/* SPDX-License-Identifier: MIT
 *
 * The stacks of coroutines.
 *
 * A stack is a power of two of address space, of which the lowest page is a guard: running into it is a fault,
 * and not somebody else's data changed. The kernel gives memory page by page when it is touched, so a coroutine
 * that needs little costs little whatever its size. Stacks that are not in use any more wait in a list per
 * size, the warmest on top; taking and giving are O(1).
 */
#include "task/stacks.h"

#include <sys/mman.h>
#include <unistd.h>

#include "core/memory.h"

void aloop__stacks_init(aloop__stacks_t *stacks, aloop_t *loop) {
  *stacks = (aloop__stacks_t){.loop = loop, .how = aloop__switch_ways()[0]};
}

static void release(aloop__stacks_t *stacks, aloop__stack_t *stack) {
  size_t size = (size_t)ALOOP__STACK_MIN << stack->class;
  munmap(stack->top - size, size);
  aloop__memory_release(stacks->loop, stack);
}

void aloop__stacks_close(aloop__stacks_t *stacks) {
  for (int i = 0; i < ALOOP__STACK_CLASSES; i++) {
    while (stacks->pooled[i] != NULL) {
      aloop__stack_t *stack = stacks->pooled[i];
      stacks->pooled[i] = stack->next;
      release(stacks, stack);
    }
  }
  stacks->pooled_count = 0;
}

static int map(aloop__stacks_t *stacks, int class, aloop__stack_t **out) {
  size_t size = (size_t)ALOOP__STACK_MIN << class;
  size_t guard = (size_t)sysconf(_SC_PAGESIZE);
  aloop__stack_t *stack = aloop__memory_new(stacks->loop, sizeof *stack);
  if (stack == NULL) return ALOOP_ENOMEM;
  char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base != MAP_FAILED && mprotect(base, guard, PROT_NONE) < 0) {
    munmap(base, size);
    base = MAP_FAILED;
  }
  if (base == MAP_FAILED) {
    aloop__memory_release(stacks->loop, stack);
    return ALOOP_ENOMEM;
  }
  *stack = (aloop__stack_t){.low = base + guard, .top = base + size, .class = (uint8_t) class};
  *out = stack;
  return 0;
}

static int class_of(size_t size) {
  int class = 0;
  while (class < ALOOP__STACK_CLASSES && (size_t)ALOOP__STACK_MIN << class < size) class ++;
  return class;
}

int aloop__stacks_take(aloop__stacks_t *stacks, size_t size, aloop__stack_t **out) {
  if (stacks->how == NULL) return ALOOP_ENOTSUP;
  int class = class_of(size == 0 ? ALOOP_STACK_SIZE : size);
  if (class == ALOOP__STACK_CLASSES) return ALOOP_EINVAL;
  aloop__stack_t *stack = stacks->pooled[class];
  if (stack != NULL) {
    stacks->pooled[class] = stack->next;
    stacks->pooled_count--;
  } else {
    int rc = map(stacks, class, &stack);
    if (rc < 0) return rc;
  }
  if (++stacks->live > stacks->high_water) stacks->high_water = stacks->live;
  *out = stack;
  return 0;
}

void aloop__stacks_give(aloop__stacks_t *stacks, aloop__stack_t *stack) {
  stack->next = stacks->pooled[stack->class];
  stacks->pooled[stack->class] = stack;
  stacks->pooled_count++;
  stacks->live--;
}
