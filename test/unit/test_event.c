/* SPDX-License-Identifier: MIT
 *
 * Events: who is woken when, and who is not.
 */
#include "harness.h"

static aloop_event_t *new_event(env_t *env) {
  aloop_event_t *event;
  assert_int_equal(aloop_event_new(env->loop, &event), 0);
  return event;
}

static void waiting_for_a_set_event_is_done_at_once(void **state) {
  aloop_event_t *event = new_event(*state);
  assert_false(aloop_event_is_set(event));
  assert_int_equal(aloop_event_set(event), 0);
  assert_int_equal(aloop_event_set(event), 0);
  assert_true(aloop_event_is_set(event));
  aloop_future_t *future = aloop_event_wait(event);
  assert_int_equal(aloop_future_result(future), 0);
  aloop_future_unref(future);
  aloop_event_free(event);
}

static void setting_ends_all_that_wait(void **state) {
  aloop_event_t *event = new_event(*state);
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = aloop_event_wait(event);
  assert_false(aloop_future_done(futures[0]));
  aloop_event_set(event);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(aloop_future_result(futures[i]), 0);
    aloop_future_unref(futures[i]);
  }
  aloop_event_free(event);
}

static void waiters_run_in_their_order(void **state) {
  env_t *env = *state;
  aloop_event_t *event = new_event(env);
  trace_t trace = {.length = 0};
  step_t steps[] = {{&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'}};
  for (int i = 0; i < 3; i++) {
    aloop_future_t *future = aloop_event_wait(event);
    assert_int_equal(aloop_future_add_done_callback(future, trace_done, &steps[i]), 0);
    aloop_future_detach(future);
  }
  aloop_event_set(event);
  run_turn(env->loop);
  assert_string_equal(trace.text, "abc");
  aloop_event_free(event);
}

static void whoever_waited_is_woken_even_if_it_is_cleared_at_once(void **state) {
  aloop_event_t *event = new_event(*state);
  aloop_future_t *before = aloop_event_wait(event);
  aloop_event_set(event);
  assert_int_equal(aloop_event_clear(event), 0);
  assert_false(aloop_event_is_set(event));
  aloop_future_t *after = aloop_event_wait(event);
  assert_int_equal(aloop_future_result(before), 0);
  assert_false(aloop_future_done(after));
  aloop_future_unref(before);
  aloop_event_free(event);
  assert_true(aloop_future_cancelled(after));
  assert_string_equal(aloop_future_message(after), "the event was freed");
  aloop_future_unref(after);
}

static void a_cancelled_waiter_is_not_missed(void **state) {
  aloop_event_t *event = new_event(*state);
  aloop_future_t *futures[2] = {aloop_event_wait(event), aloop_event_wait(event)};
  assert_int_equal(aloop_future_cancel(futures[0]), 1);
  aloop_event_set(event);
  assert_true(aloop_future_cancelled(futures[0]));
  assert_int_equal(aloop_future_result(futures[1]), 0);
  for (int i = 0; i < 2; i++) aloop_future_unref(futures[i]);
  aloop_event_free(event);
}

static void a_closed_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  aloop_event_t *event = new_event(env);
  aloop_future_t *future = aloop_event_wait(event);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(aloop_future_result(future), ALOOP_ECANCELED);
  assert_int_equal(aloop_event_set(event), 0);
  aloop_future_unref(future);
  aloop_event_free(event);
  aloop_event_free(NULL);
}

static void scenario(env_t *env) {
  aloop_event_t *event;
  if (aloop_event_new(env->loop, &event) < 0) return;
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = aloop_event_wait(event);
  aloop_event_set(event);
  for (int i = 0; i < 3; i++) {
    if (futures[i] != NULL) assert_int_equal(aloop_future_result(futures[i]), 0);
    aloop_future_unref(futures[i]);
  }
  aloop_event_free(event);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(waiting_for_a_set_event_is_done_at_once), T(setting_ends_all_that_wait), T(waiters_run_in_their_order),
      T(whoever_waited_is_woken_even_if_it_is_cleared_at_once), T(a_cancelled_waiter_is_not_missed),
      T(a_closed_loop_ends_the_wait), T(running_out_of_memory))
