/* SPDX-License-Identifier: MIT
 *
 * Futures: one end, callbacks in order through the deque, cancelling, reading, the never-retrieved report, and what happens to all
 * of it when memory is short or the loop closes.
 */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "core/loop.h"
#include "future/future.h"

/* What ran, in order. */
typedef struct trace {
  char text[64];
  size_t length;
} trace_t;

typedef struct step {
  trace_t *trace;
  char letter;
} step_t;

static void note(trace_t *trace, char letter) {
  trace->text[trace->length++] = letter;
}

static void on_done(aloop_future_t *future, void *arg) {
  (void)future;
  step_t *step = arg;
  note(step->trace, step->letter);
}

static void on_turn(aloop_t *loop, void *arg) {
  (void)loop;
  step_t *step = arg;
  note(step->trace, step->letter);
}

static void turn(aloop_t *loop) {
  assert_true(aloop_run_once(loop, 0) >= 0);
}

/* ---- The end ------------------------------------------------------------------------------------------------ */

static void a_new_future_is_pending(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_non_null(future);
  assert_false(aloop_future_done(future));
  assert_false(aloop_future_cancelled(future));
  assert_int_equal(aloop_future_result(future), ALOOP_ENOTDONE);
  assert_string_equal(aloop_future_message(future), "");
  assert_ptr_equal(aloop_future_loop(future), env->loop);
  aloop_future_unref(future);
}

static void a_value_ends_it_once(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_set_value(future, 42), 0);
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_result(future), 42);
  assert_int_equal(aloop_future_set_value(future, 43), ALOOP_EDONE);
  assert_int_equal(aloop_future_set_error(future, ALOOP_EIO, "x"), ALOOP_EDONE);
  assert_int_equal(aloop_future_set_result(future, 0, env, NULL), ALOOP_EDONE);
  assert_int_equal(aloop_future_cancel(future), 0);
  assert_int_equal(aloop_future_result(future), 42);
  aloop_future_unref(future);
}

static void callbacks_run_in_order_and_never_inline(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t steps[] = {{&trace, '1'}, {&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'},
                    {&trace, 'd'}, {&trace, 'e'}, {&trace, '2'}};
  aloop_future_t *future = aloop_future_new(env->loop);
  for (int i = 1; i <= 5; i++) assert_int_equal(aloop_future_add_done_callback(future, on_done, &steps[i]), 0);
  aloop_call_soon(env->loop, on_turn, &steps[0]);
  aloop_future_set_value(future, 0);
  aloop_call_soon(env->loop, on_turn, &steps[6]);
  assert_int_equal(trace.length, 0);
  turn(env->loop);
  assert_string_equal(trace.text, "1abcde2");
  aloop_future_unref(future);
}

TESTS(T(a_new_future_is_pending), T(a_value_ends_it_once), T(callbacks_run_in_order_and_never_inline))
