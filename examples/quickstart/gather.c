/* SPDX-License-Identifier: MIT
 *
 * Three computations at the same time, in one thread, and their results together. Each multiplies once per tick
 * of a timer; in between the others have their turn.
 */
#include "aloop.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct factorial {
  const char *name;
  int number, i;
  int64_t product;
  aloop_future_t *result;
} factorial_t;

static void step(aloop_t *loop, void *arg) {
  factorial_t *task = arg;
  if (task->i > 1) task->product *= task->i;
  if (task->i < task->number) {
    task->i++;
    printf("Task %s: compute factorial(%d), currently i=%d\n", task->name, task->number, task->i);
    aloop_call_later(loop, ALOOP_MILLIS(100), step, task);
    return;
  }
  printf("Task %s: factorial(%d) = %lld\n", task->name, task->number, (long long)task->product);
  aloop_future_set_value(task->result, task->product);
  aloop_future_unref(task->result);
  free(task);
}

/* Starts a computation and returns the future of its result; a function that takes time always looks like this.
 * */
static aloop_future_t *factorial(aloop_t *loop, const char *name, int number) {
  factorial_t *task = malloc(sizeof *task);
  aloop_future_t *result = aloop_future_new(loop);
  if (task == NULL || result == NULL) {
    free(task);
    aloop_future_unref(result);
    return NULL;
  }
  *task = (factorial_t){name, number, 1, 1, aloop_future_ref(result)};
  aloop_call_soon(loop, step, task);
  return result;
}

static void print_results(const aloop_future_t *all) {
  const char *separator = "[";
  for (size_t i = 0; aloop_future_child(all, i) != NULL; i++, separator = ", ")
    printf("%s%lld", separator, (long long)aloop_future_result(aloop_future_child(all, i)));
  puts("]");
}

int main(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  aloop_future_t *tasks[] = {factorial(loop, "A", 2), factorial(loop, "B", 3), factorial(loop, "C", 4)};
  aloop_future_t *all = aloop_gather(loop, tasks, 3, 0);
  if (all == NULL) return 1;
  int64_t count = aloop_run_until_complete(loop, aloop_future_ref(all));
  if (count > 0) print_results(all);
  aloop_future_unref(all);
  aloop_free(loop);
  return count < 0;
}
