/* SPDX-License-Identifier: MIT
 *
 * Crowds of tasks: 100 000 alive at one time, each with a stack of its own, ended by a result, by a cancel, by the end
 * of their loop; and a million that come and go over a few stacks. Under a sanitizer there are fewer of them, and where
 * each stack has a mapping of its own, of which the kernel allows some 65000.
 */
#include "harness.h"

#include <stdlib.h>

#include "task/stacks.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#if defined(SANITIZED)
enum { CROWD_MAX = 2000, MILLION = 20000 };
#elif UINTPTR_MAX <= UINT32_MAX /* so many stacks have no room there */
enum { CROWD_MAX = 10000, MILLION = 1000000 };
#else
enum { CROWD_MAX = 100000, MILLION = 1000000 };
#endif

typedef struct crowd {
  aloop_future_t *gate;
  int size;
  int64_t inside, outside;
  aloop_future_t **tasks;
} crowd_t;

static int64_t wait_at_the_gate(aloop_t *loop, void *arg) {
  crowd_t *crowd = arg;
  volatile char frame[1000]; /* memory that is touched */
  (void)loop;
  frame[0] = frame[999] = 1;
  crowd->inside++;
  int64_t rc = aloop_await(aloop_future_ref(crowd->gate));
  crowd->outside += frame[0] & frame[999];
  return rc;
}

static bool has_light_guards(aloop_t *loop) {
  aloop__stacks_t stacks;
  aloop__stack_t *stack;
  aloop__stacks_init(&stacks, loop);
  assert_int_equal(aloop__stacks_take(&stacks, 0, &stack), 0);
  aloop__stacks_give(&stacks, stack);
  aloop__stacks_close(&stacks);
  return stacks.light_guards;
}

static void gather_crowd(env_t *env, crowd_t *crowd) {
  *crowd = (crowd_t){.gate = aloop_future_new(env->loop), .size = CROWD_MAX};
  if (!has_light_guards(env->loop) && crowd->size > 20000) crowd->size = 20000;
  crowd->tasks = calloc((size_t)crowd->size, sizeof *crowd->tasks);
  assert_non_null(crowd->tasks);
  for (int i = 0; i < crowd->size; i++) {
    crowd->tasks[i] = aloop_create_task(env->loop, wait_at_the_gate, crowd, NULL);
    assert_non_null(crowd->tasks[i]);
  }
  assert_true(run_turn(env->loop) >= crowd->size); /* the timer that tidies the stacks may be due, too */
  assert_int_equal(crowd->inside, crowd->size);
  assert_int_equal(aloop_all_tasks(env->loop, NULL, 0), crowd->size);
}

static void scatter(crowd_t *crowd, int64_t result) {
  for (int i = 0; i < crowd->size; i++) {
    assert_int_equal(aloop_future_result(crowd->tasks[i]), result);
    aloop_future_unref(crowd->tasks[i]);
  }
  assert_int_equal(crowd->outside, crowd->size);
  aloop_future_unref(crowd->gate);
  free(crowd->tasks);
}

static void so_many_may_wait_at_a_time(void **state) {
  env_t *env = *state;
  crowd_t crowd;
  for (int round = 0; round < 2; round++) {
    gather_crowd(env, &crowd);
    aloop_future_set_value(crowd.gate, 3);
    while (run_turn(env->loop) > 0) continue;
    scatter(&crowd, 3);
  }
}

static void so_many_may_be_cancelled(void **state) {
  env_t *env = *state;
  crowd_t crowd;
  gather_crowd(env, &crowd);
  for (int i = 0; i < crowd.size; i++) aloop_future_cancel(crowd.tasks[i]);
  while (run_turn(env->loop) > 0) continue;
  scatter(&crowd, ALOOP_ECANCELED);
}

static void so_many_may_end_with_their_loop(void **state) {
  env_t *env = *state;
  crowd_t crowd;
  gather_crowd(env, &crowd);
  aloop_close(env->loop);
  scatter(&crowd, ALOOP_ECLOSED);
}

static int64_t count_one(aloop_t *loop, void *arg) {
  ++*(int64_t *)arg;
  return *(int64_t *)arg % 10 == 0 ? aloop_await(aloop_sleep(loop, 0)) : 0;
}

static int64_t make_a_million(aloop_t *loop, void *arg) {
  for (int i = 0; i < MILLION; i++) {
    aloop_future_t *task = aloop_create_task(loop, count_one, arg, NULL);
    if (i % 3 == 0)
      aloop_await(task);
    else
      aloop_future_detach(task);
  }
  return aloop_await(aloop_sleep(loop, 1));
}

static void a_million_come_and_go(void **state) {
  env_t *env = *state;
  int64_t count = 0;
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_create_task(env->loop, make_a_million, &count, NULL)), 0);
  assert_int_equal(count, MILLION);
  assert_int_equal(aloop_all_tasks(env->loop, NULL, 0), 0);
}

TESTS(T(so_many_may_wait_at_a_time), T(so_many_may_be_cancelled), T(so_many_may_end_with_their_loop),
      T(a_million_come_and_go))
