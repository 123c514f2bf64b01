/* SPDX-License-Identifier: MIT
 *
 * What a coroutine costs, without loop and tasks: a switch, and making one, running it and letting it go.
 *
 *     bench_switch
 *     aloop switch ns=4.1 among_ns=12.0 life_ns=28.0     each way; among 10 000; from making it to its end
 *
 * "aloop" is the way that tasks take on this CPU; "raw" is the least that assembly can do: the six registers of x86-64 and the stack pointer, no control state, a jump
 * at the end. No library of coroutines in C is part of Debian that could be a peer; ucontext is what POSIX had.
 *
 * The time is the thread's CPU time, the best of several runs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "task/coroutine.h"

enum { SWITCHES = 2000000, LIVES = 1000000, RUNS = 7, CROWD = 10000 };

static double cpu_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void suspend_always(aloop__coroutine_t *self, void *arg) {
  (void)arg;
  for (;;) aloop__coroutine_suspend(self);
}

static void end_at_once(aloop__coroutine_t *self, void *arg) {
  (void)self, (void)arg;
}

/* `count` coroutines take turns; each resume is two switches. */
static double measure_switch(aloop__stacks_t *stacks, int count) {
  static aloop__coroutine_t *all[CROWD];
  for (int i = 0; i < count; i++)
    if (aloop__coroutine_new(stacks, 0, suspend_always, NULL, &all[i]) < 0) return -1;
  double start = 0;
  for (int i = -count; i < SWITCHES; i++) { /* the first turn of each is not measured */
    if (i == 0) start = cpu_ns();
    aloop__coroutine_resume(all[(i + count) % count]);
  }
  double took = cpu_ns() - start;
  for (int i = 0; i < count; i++) aloop__coroutine_free(all[i]);
  return took / (2.0 * SWITCHES);
}

static double measure_life(aloop__stacks_t *stacks) {
  double start = cpu_ns();
  for (int i = 0; i < LIVES; i++) {
    aloop__coroutine_t *co;
    if (aloop__coroutine_new(stacks, 0, end_at_once, NULL, &co) < 0) return -1;
    aloop__coroutine_resume(co);
    aloop__coroutine_free(co);
  }
  return (cpu_ns() - start) / LIVES;
}

#if defined(__x86_64__) && defined(__ELF__)
void bare_switch(void **from, void *to);
__asm__(".text\n.globl bare_switch\n.p2align 4\nbare_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\npopq %rcx\njmp *%rcx\n");

static void *here, *there;

static void bare_side(void) {
  for (;;) bare_switch(&there, here);
}

static double measure_bare(void) {
  enum { STACK = 65536 };
  char *stack = aligned_alloc(64, STACK);
  if (stack == NULL) return -1;
  uintptr_t *frame = (uintptr_t *)(void *)(stack + STACK - 128);
  memset(frame, 0, 128);
  frame[6] = (uintptr_t)bare_side; /* finds the stack as after a call */
  frame[7] = 0;
  there = frame;
  double start = cpu_ns();
  for (int i = 0; i < SWITCHES; i++) bare_switch(&here, there);
  double took = cpu_ns() - start;
  free(stack);
  return took / (2.0 * SWITCHES);
}
#else
static double measure_bare(void) {
  return -1;
}
#endif

static double least(double a, double b) {
  return a < 0 || (b >= 0 && b < a) ? b : a;
}

int main(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  double bare = -1;
  for (int i = 0; i < RUNS; i++) bare = least(bare, measure_bare());
  for (const aloop__switch_t *const *way = aloop__switch_ways(); *way != NULL; way++) {
    aloop__stacks_t stacks;
    aloop__stacks_init(&stacks, loop);
    stacks.how = *way;
    double one = -1, many = -1, life = -1;
    for (int i = 0; i < RUNS; i++) {
      one = least(one, measure_switch(&stacks, 1));
      many = least(many, measure_switch(&stacks, CROWD));
      life = least(life, measure_life(&stacks));
    }
    printf("%s switch ns=%.1f among_ns=%.1f life_ns=%.1f\n",
           way == aloop__switch_ways() ? "aloop" : (*way)->name, one, many, life);
    aloop__stacks_close(&stacks);
  }
  if (bare >= 0) printf("raw switch ns=%.1f\n", bare);
  aloop_free(loop);
  return 0;
}
