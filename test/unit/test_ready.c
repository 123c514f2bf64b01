/* SPDX-License-Identifier: MIT
 *
 * The ready deque as a ring: order, growth at any phase, dropped entries, lack of memory.
 */
#include "harness.h"

#include "core/loop.h"

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

/* Numbered callbacks and the number that must run next. */
typedef struct line {
  int next;
  int numbers[1000];
} line_t;

static line_t line_new(void) {
  line_t line = {0};
  for (int i = 0; i < 1000; i++) line.numbers[i] = i;
  return line;
}

/* The number is in the line itself, so one pointer tells both. */
static void in_line(aloop_t *loop, void *arg) {
  (void)loop;
  int number = *(int *)arg;
  line_t *line = ALOOP_CONTAINER_OF((int *)arg - number, line_t, numbers);
  assert_int_equal(number, line->next++);
}

static void callbacks_run_first_in_first_out(void **state) {
  env_t *env = *state;
  line_t line = line_new();
  for (int i = 0; i < 1000; i++) aloop_call_soon(env->loop, in_line, &line.numbers[i]);
  assert_int_equal(run_turn(env->loop), 1000);
  assert_int_equal(line.next, 1000);
}

static void growing_keeps_the_order_from_any_phase(void **state) {
  env_t *env = *state;
  for (int phase = 0; phase < 40; phase++) {
    env_loop(env, (aloop_options_t){.debug = -1});
    line_t line = line_new();
    int made = 0;
    for (; made < phase; made++) aloop_call_soon(env->loop, in_line, &line.numbers[made]);
    run_turn(env->loop); /* the head is now `phase` into the ring */
    for (int i = 0; i < 100; i++, made++) aloop_call_soon(env->loop, in_line, &line.numbers[made]);
    run_turn(env->loop);
    assert_int_equal(line.next, made);
  }
}

static void growing_inside_a_callback_is_fine(void **state) {
  env_t *env = *state;
  int calls = 0;
  for (int round = 0; round < 10; round++) {
    for (int i = 0; i < 1 << round; i++) aloop_call_soon(env->loop, count, &calls);
    run_turn(env->loop);
  }
  assert_int_equal(calls, 1023);
}

static void spawn(aloop_t *loop, void *arg) {
  int *left = arg;
  for (int i = 0; i < 50 && *left > 0; i++) {
    --*left;
    assert_int_equal(aloop_handle_error(aloop_call_soon(loop, spawn, arg)), 0);
  }
}

static void a_ring_that_grows_under_its_own_run_is_fine(void **state) {
  env_t *env = *state;
  int left = 5000;
  int ran = 0;
  aloop_call_soon(env->loop, spawn, &left);
  for (int now = 1; now > 0; ran += now) now = run_turn(env->loop);
  assert_int_equal(ran, 5001);
}

static void handles_stay_valid_while_the_ring_grows(void **state) {
  env_t *env = *state;
  enum { COUNT = 300 };
  aloop_handle_t handles[COUNT];
  int calls = 0;
  for (int i = 0; i < COUNT; i++) handles[i] = aloop_call_soon(env->loop, count, &calls);
  for (int i = 0; i < COUNT; i++) assert_true(aloop_handle_pending(env->loop, handles[i]));
  for (int i = 0; i < COUNT; i += 3) assert_int_equal(aloop_cancel(env->loop, &handles[i]), 1);
  assert_int_equal(run_turn(env->loop), COUNT - COUNT / 3);
  assert_int_equal(calls, COUNT - COUNT / 3);
}

static void without_memory_it_stays_as_it_was(void **state) {
  env_t *env = *state;
  line_t line = line_new();
  int made = 0;
  env->fail_from = 1;
  aloop_handle_t handle = aloop_call_soon(env->loop, in_line, &line.numbers[made]);
  while (aloop_handle_error(handle) == 0) handle = aloop_call_soon(env->loop, in_line, &line.numbers[++made]);
  assert_int_equal(aloop_handle_error(handle), ALOOP_ENOMEM);
  assert_true(made > 0);
  assert_int_equal(run_turn(env->loop), made);
  assert_int_equal(aloop_handle_error(aloop_call_soon(env->loop, in_line, &line.numbers[made])), 0);
  run_turn(env->loop);
  assert_int_equal(line.next, made + 1);
}

static void steady_use_allocates_nothing(void **state) {
  env_t *env = *state;
  int calls = 0;
  env->fail_from = env->calls + 1;
  for (int i = 0; i < 1000; i++) {
    for (int j = 0; j < 10; j++)
      assert_int_equal(aloop_handle_error(aloop_call_soon(env->loop, count, &calls)), 0);
    run_turn(env->loop);
  }
  assert_int_equal(calls, 10000);
}

static void an_entry_is_found_by_the_low_half_of_its_position(void **state) {
  env_t *env = *state;
  aloop_t *loop = env->loop;
  int calls = 0;
  /* As if four thousand million callbacks had run: the low half wraps around. */
  loop->head = loop->tail = (UINT64_C(7) << 32) - 2;
  for (int i = 0; i < 5; i++) {
    uint32_t low = (uint32_t)loop->tail;
    assert_null(aloop__ready_at(loop, low));
    assert_true(aloop__ready_push(loop, count, &calls));
    assert_ptr_equal(aloop__ready_at(loop, low), &loop->ring[low & loop->mask]);
  }
  assert_null(aloop__ready_at(loop, (uint32_t)loop->head - 1));
  assert_int_equal(run_turn(loop), 5);
}

TESTS(T(callbacks_run_first_in_first_out), T(growing_keeps_the_order_from_any_phase),
      T(growing_inside_a_callback_is_fine), T(a_ring_that_grows_under_its_own_run_is_fine),
      T(handles_stay_valid_while_the_ring_grows), T(without_memory_it_stays_as_it_was),
      T(steady_use_allocates_nothing), T(an_entry_is_found_by_the_low_half_of_its_position))
