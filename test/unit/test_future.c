/* SPDX-License-Identifier: MIT
 *
 * Futures: one end, callbacks in order through the deque, cancelling, reading, the never-retrieved report, and what
 * happens to all of it when memory is short or the loop closes.
 */
#include "harness.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "future/future.h"

static void count_call(aloop_future_t *future, void *arg) {
  (void)future;
  ++*(int *)arg;
}

static void count_destroy(void *arg) {
  ++*(int *)arg;
}

static void ignore_turn(aloop_t *loop, void *arg) {
  (void)loop;
  (void)arg;
}

/* Fills the ready deque until its next entry needs memory. */
static void fill_deque(aloop_t *loop) {
  while (!aloop__ready_full(loop)) aloop_call_soon(loop, ignore_turn, NULL);
}

/* ---- The end ------------------------------------------------------------------------------------------------- */

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
  future = (aloop_future_new)(env->loop); /* the function behind the macro */
  assert_false(aloop_future_done(future));
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

static void values_and_errors_have_their_sign(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_set_value(future, -1), ALOOP_EINVAL);
  assert_int_equal(aloop_future_set_result(future, -1, env, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_set_error(future, 0, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_set_error(future, 5, NULL), ALOOP_EINVAL);
  assert_false(aloop_future_done(future));
  assert_int_equal(aloop_future_set_value(future, INT64_MAX), 0);
  assert_true(aloop_future_result(future) == INT64_MAX);
  aloop_future_unref(future);
}

static void null_is_refused_everywhere(void **state) {
  (void)state;
  void *out;
  aloop_attempt_t attempt;
  assert_null(aloop_future_new(NULL));
  assert_null(aloop_future_ref(NULL));
  aloop_future_unref(NULL);
  aloop_future_detach(NULL);
  assert_null(aloop_future_loop(NULL));
  assert_int_equal(aloop_future_set_value(NULL, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_future_set_value(NULL, -1), ALOOP_EINVAL);
  assert_int_equal(aloop_future_set_result(NULL, 0, NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_set_error(NULL, ALOOP_EIO, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_cancel(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_on_cancel(NULL, count_call, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_result(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_result_ptr(NULL, &out), ALOOP_EINVAL);
  assert_int_equal(aloop_future_take_ptr(NULL, &out), ALOOP_EINVAL);
  assert_string_equal(aloop_future_message(NULL), "");
  assert_int_equal(aloop_future_add_done_callback(NULL, count_call, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_remove_done_callback(NULL, count_call, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_attempt(NULL, 0, &attempt), ALOOP_EINVAL);
  assert_null(aloop_future_child(NULL, 0));
  assert_false(aloop_future_done(NULL));
  assert_false(aloop_future_cancelled(NULL));
}

static void a_callback_is_a_function(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_add_done_callback(future, NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_remove_done_callback(future, NULL, NULL), ALOOP_EINVAL);
  aloop_future_unref(future);
}

/* ---- Objects ------------------------------------------------------------------------------------------------- */

static void an_object_goes_with_the_last_reference(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_set_result(future, 3, &destroyed, count_destroy), 0);
  int *seen = NULL;
  assert_int_equal(aloop_future_result_ptr(future, &seen), 0);
  assert_ptr_equal(seen, &destroyed);
  assert_int_equal(aloop_future_result(future), 3);
  aloop_future_ref(future);
  aloop_future_unref(future);
  assert_int_equal(destroyed, 0);
  aloop_future_unref(future);
  assert_int_equal(destroyed, 1);
}

static void a_taken_object_is_not_destroyed(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  int *seen = NULL;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_result(future, 0, &destroyed, count_destroy);
  assert_int_equal(aloop_future_take_ptr(future, &seen), 0);
  assert_ptr_equal(seen, &destroyed);
  seen = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &seen), ALOOP_ENOENT);
  assert_int_equal(aloop_future_result_ptr(future, &seen), ALOOP_ENOENT);
  assert_null(seen);
  aloop_future_unref(future);
  assert_int_equal(destroyed, 0);
}

static void there_may_be_no_object_to_take(void **state) {
  env_t *env = *state;
  void *out = env;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_take_ptr(future, &out), ALOOP_ENOTDONE);
  aloop_future_set_value(future, 1);
  assert_int_equal(aloop_future_result_ptr(future, &out), ALOOP_ENOENT);
  assert_int_equal(aloop_future_take_ptr(future, NULL), ALOOP_EINVAL);
  aloop_future_unref(future);
  future = aloop_future_new(env->loop);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  assert_int_equal(aloop_future_take_ptr(future, &out), ALOOP_EIO);
  assert_ptr_equal(out, env);
  aloop_future_unref(future);
  assert_int_equal(env->reports, 0);
}

static void a_refused_object_stays_the_callers(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_cancel(future);
  assert_int_equal(aloop_future_set_result(future, 0, &destroyed, count_destroy), ALOOP_EDONE);
  aloop_future_unref(future);
  assert_int_equal(destroyed, 0);
}

/* ---- Done callbacks ------------------------------------------------------------------------------------------ */

static void callbacks_run_in_order_and_never_inline(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t steps[] = {{&trace, '1'}, {&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'},
                    {&trace, 'd'}, {&trace, 'e'}, {&trace, '2'}};
  aloop_future_t *future = aloop_future_new(env->loop);
  for (int i = 1; i <= 5; i++)
    assert_int_equal(aloop_future_add_done_callback(future, trace_done, &steps[i]), 0);
  aloop_call_soon(env->loop, trace_step, &steps[0]);
  aloop_future_set_value(future, 0);
  aloop_call_soon(env->loop, trace_step, &steps[6]);
  assert_int_equal(trace.length, 0);
  run_turn(env->loop);
  assert_string_equal(trace.text, "1abcde2");
  aloop_future_unref(future);
}

static void a_done_future_calls_back_through_the_deque_too(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t steps[] = {{&trace, '1'}, {&trace, '2'}, {&trace, '3'}};
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_value(future, 0);
  aloop_call_soon(env->loop, trace_step, &steps[0]);
  assert_int_equal(aloop_future_add_done_callback(future, trace_done, &steps[1]), 0);
  aloop_call_soon(env->loop, trace_step, &steps[2]);
  assert_int_equal(trace.length, 0);
  run_turn(env->loop);
  assert_string_equal(trace.text, "123");
  aloop_future_unref(future);
}

typedef struct chain {
  step_t *next;
  int left;
} chain_t;

static void add_next(aloop_future_t *future, void *arg) {
  chain_t *chain = arg;
  trace_step(aloop_future_loop(future), chain->next);
  if (--chain->left > 0) assert_int_equal(aloop_future_add_done_callback(future, add_next, chain), 0);
}

static void what_a_callback_adds_runs_next_turn(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t a = {&trace, 'a'}, b = {&trace, 'b'}, end = {&trace, '.'};
  chain_t chains[] = {{&a, 20}, {&b, 20}}; /* two, so that the list is never empty and must be shifted */
  aloop_future_t *future = aloop_future_new(env->loop);
  for (int i = 0; i < 2; i++) aloop_future_add_done_callback(future, add_next, &chains[i]);
  aloop_future_set_value(future, 0);
  for (int i = 0; i < 20; i++) {
    run_turn(env->loop);
    assert_int_equal(trace.length, 2 * (i + 1));
  }
  aloop_future_add_done_callback(future, trace_done, &end);
  run_turn(env->loop);
  assert_string_equal(trace.text, "abababababababababababababababababababab.");
  assert_true(future->more->capacity < 8);
  aloop_future_unref(future);
}

static void removing_takes_every_equal_pair(void **state) {
  env_t *env = *state;
  int x = 0, y = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  int *args[] = {&x, &y, &x, &y, &x};
  for (int i = 0; i < 5; i++) aloop_future_add_done_callback(future, count_call, args[i]);
  assert_int_equal(aloop_future_remove_done_callback(future, count_call, &x), 3);
  assert_int_equal(aloop_future_remove_done_callback(future, count_call, &x), 0);
  aloop_future_set_value(future, 0);
  run_turn(env->loop);
  assert_int_equal(x, 0);
  assert_int_equal(y, 2);
  aloop_future_unref(future);
}

static void a_queued_callback_cannot_be_removed(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, count_call, &calls);
  aloop_future_set_value(future, 0);
  assert_int_equal(aloop_future_remove_done_callback(future, count_call, &calls), 0);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
  aloop_future_unref(future);
}

static void callbacks_keep_the_future(void **state) {
  env_t *env = *state;
  int destroyed = 0, calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, count_call, &calls);
  aloop_future_add_done_callback(future, count_call, &calls);
  aloop_future_set_result(future, 0, &destroyed, count_destroy);
  aloop_future_unref(future);
  assert_int_equal(destroyed, 0);
  run_turn(env->loop);
  assert_int_equal(calls, 2);
  assert_int_equal(destroyed, 1);
}

static void a_forgotten_pending_future_calls_nobody(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  for (int i = 0; i < 5; i++) aloop_future_add_done_callback(future, count_call, &calls);
  aloop_future_unref(future);
  run_turn(env->loop);
  assert_int_equal(calls, 0);
}

typedef struct lookup {
  aloop_var_t *var;
  char *seen[2];
  int calls;
} lookup_t;

static void look_up(aloop_future_t *future, void *arg) {
  lookup_t *lookup = arg;
  lookup->seen[lookup->calls++] = aloop_var_get(aloop_future_loop(future), lookup->var, "nothing");
}

static void add_with_value(aloop_t *loop, void *arg) {
  void **args = arg;
  lookup_t *lookup = args[1];
  assert_int_equal(aloop_var_set(loop, lookup->var, "inner", NULL, NULL), 0);
  assert_int_equal(aloop_future_add_done_callback(args[0], look_up, lookup), 0);
}

static void a_callback_runs_in_the_context_of_its_adding(void **state) {
  env_t *env = *state;
  lookup_t lookup = {0};
  assert_int_equal(aloop_var_new("v", &lookup.var), 0);
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_context_t *context;
  assert_int_equal(aloop_context_copy(env->loop, &context), 0);
  void *args[] = {future, &lookup};
  assert_int_equal(aloop_context_run(env->loop, context, add_with_value, args), 0);
  aloop_context_unref(context);
  aloop_future_add_done_callback(future, look_up, &lookup);
  aloop_future_set_value(future, 0);
  run_turn(env->loop);
  assert_string_equal(lookup.seen[0], "inner");
  assert_string_equal(lookup.seen[1], "nothing");
  aloop_future_unref(future);
  aloop_var_unref(lookup.var);
}

static void removing_releases_the_context(void **state) {
  env_t *env = *state;
  lookup_t lookup = {0};
  int destroyed = 0;
  assert_int_equal(aloop_var_new("v", &lookup.var), 0);
  assert_int_equal(aloop_var_set(env->loop, lookup.var, &destroyed, count_destroy, NULL), 0);
  aloop_future_t *removed = aloop_future_new(env->loop);
  aloop_future_t *forgotten = aloop_future_new(env->loop);
  aloop_future_add_done_callback(removed, look_up, &lookup);
  aloop_future_add_done_callback(forgotten, look_up, &lookup);
  aloop_var_set(env->loop, lookup.var, NULL, NULL, NULL);
  assert_int_equal(destroyed, 0);
  aloop_future_unref(forgotten);
  assert_int_equal(destroyed, 0);
  assert_int_equal(aloop_future_remove_done_callback(removed, look_up, &lookup), 1);
  assert_int_equal(destroyed, 1);
  aloop_future_unref(removed);
  aloop_var_unref(lookup.var);
}

static void stop_hard(aloop_future_t *future, void *arg) {
  aloop_stop_with_error(aloop_future_loop(future), *(int *)arg);
}

static void a_fatal_stop_leaves_the_other_callbacks_queued(void **state) {
  env_t *env = *state;
  int calls = 0, error = ALOOP_EIO;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, stop_hard, &error);
  aloop_future_add_done_callback(future, count_call, &calls);
  aloop_future_set_value(future, 0);
  aloop_future_unref(future);
  assert_int_equal(aloop_run_forever(env->loop), ALOOP_EIO);
  assert_int_equal(calls, 0);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
}

static void count_armed(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void an_end_between_turns_tells_the_host(void **state) {
  env_t *env = *state;
  int armed = 0, calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, count_call, &calls);
  aloop_set_armed_hook(env->loop, count_armed, &armed);
  aloop_future_set_value(future, 0);
  assert_true(armed > 0);
  assert_int_equal(aloop_next_timeout(env->loop), 0);
  aloop_future_unref(future);
}

/* ---- Cancelling ---------------------------------------------------------------------------------------------- */

static void cancelling_stops_the_operation_first(void **state) {
  env_t *env = *state;
  int stops = 0, calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_on_cancel(future, count_call, &stops), 0);
  aloop_future_add_done_callback(future, count_call, &calls);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(stops, 1);
  assert_int_equal(calls, 0);
  assert_true(aloop_future_done(future));
  assert_true(aloop_future_cancelled(future));
  assert_int_equal(aloop_future_result(future), ALOOP_ECANCELED);
  assert_int_equal(aloop_future_cancel(future), 0);
  run_turn(env->loop);
  assert_int_equal(stops, 1);
  assert_int_equal(calls, 1);
  assert_int_equal(aloop_future_on_cancel(future, count_call, &stops), ALOOP_EDONE);
  aloop_future_unref(future);
}

static void pending_inside_stop(aloop_future_t *future, void *arg) {
  *(bool *)arg = !aloop_future_done(future);
}

static void the_future_is_pending_while_it_is_stopped(void **state) {
  env_t *env = *state;
  bool pending = false;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_on_cancel(future, pending_inside_stop, &pending);
  aloop_future_cancel(future);
  assert_true(pending);
  aloop_future_unref(future);
}

static void ending_it_otherwise_stops_nothing(void **state) {
  env_t *env = *state;
  int stops = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_on_cancel(future, count_call, &stops);
  aloop_future_set_value(future, 0);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  future = aloop_future_new(env->loop);
  aloop_future_on_cancel(future, count_call, &stops);
  aloop_future_on_cancel(future, NULL, NULL);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  assert_int_equal(stops, 0);
}

static void finish_instead(aloop_future_t *future, void *arg) {
  assert_int_equal(aloop_future_set_value(future, *(int *)arg), 0);
}

static void a_stop_function_may_end_it_with_a_value(void **state) {
  env_t *env = *state;
  int value = 5;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_on_cancel(future, finish_instead, &value);
  assert_int_equal(aloop_future_cancel(future), 0);
  assert_int_equal(aloop_future_result(future), 5);
  aloop_future_unref(future);
}

static void cancel_again_and_release(aloop_future_t *future, void *arg) {
  ++*(int *)arg;
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
}

static void a_stop_function_may_cancel_and_let_go(void **state) {
  env_t *env = *state;
  int stops = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_on_cancel(future, cancel_again_and_release, &stops);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(stops, 1);
}

/* ---- Errors that nobody reads -------------------------------------------------------------------------------- */

static void an_unread_error_is_reported_at_the_end(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new_from(env->loop, "maker.c:7");
  aloop_future_set_error(future, ALOOP_EIO, "the disk is on fire");
  assert_int_equal(env->reports, 0);
  aloop_future_unref(future);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EIO);
  assert_non_null(strstr(env->report_messages[0], "never retrieved"));
  assert_non_null(strstr(env->report_messages[0], "the disk is on fire"));
  assert_string_equal(env->report_origins[0], "maker.c:7");
}

static void detaching_reports_too(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  aloop_future_detach(future);
  assert_int_equal(env->reports, 1);
}

static void a_read_error_is_not_reported(void **state) {
  env_t *env = *state;
  void *out;
  for (int way = 0; way < 4; way++) {
    aloop_future_t *future = aloop_future_new(env->loop);
    aloop_future_set_error(future, ALOOP_EIO, NULL);
    if (way == 0) aloop_future_result(future);
    if (way == 1) aloop_future_result_ptr(future, &out);
    if (way == 2) aloop_future_take_ptr(future, &out);
    if (way == 3) aloop_future_message(future);
    aloop_future_unref(future);
  }
  assert_int_equal(env->reports, 0);
}

static void a_cancelled_future_is_not_reported(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  future = aloop_future_new(env->loop);
  aloop_future_set_error(future, ALOOP_ECANCELED, NULL);
  assert_true(aloop_future_cancelled(future));
  aloop_future_unref(future);
  assert_int_equal(env->reports, 0);
}

static int keep_it(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop;
  *(aloop_future_t **)arg = aloop_future_ref(context->future);
  return 0;
}

static void the_handler_may_keep_the_future(void **state) {
  env_t *env = *state;
  aloop_future_t *kept = NULL;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_error(future, ALOOP_EIO, "x");
  aloop_set_exception_handler(env->loop, keep_it, &kept);
  aloop_future_unref(future);
  assert_ptr_equal(kept, future);
  assert_int_equal(aloop_future_result(kept), ALOOP_EIO);
  assert_string_equal(aloop_future_message(kept), "x");
  aloop_future_unref(kept);
}

/* ---- The loop closes ----------------------------------------------------------------------------------------- */

static void closing_stops_what_is_pending(void **state) {
  env_t *env = *state;
  int stops = 0, calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_on_cancel(future, count_call, &stops);
  for (int i = 0; i < 3; i++) aloop_future_add_done_callback(future, count_call, &calls);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(stops, 1);
  assert_int_equal(calls, 0);
  assert_true(aloop_future_cancelled(future));
  assert_int_equal(aloop_future_set_value(future, 1), ALOOP_EDONE);
  assert_int_equal(aloop_future_add_done_callback(future, count_call, &calls), ALOOP_ECLOSED);
  aloop_future_unref(future);
}

static void closing_drops_queued_callbacks(void **state) {
  env_t *env = *state;
  int calls = 0, destroyed = 0;
  for (int n = 1; n <= 5; n++) {
    aloop_future_t *future = aloop_future_new(env->loop);
    for (int i = 0; i < n; i++) aloop_future_add_done_callback(future, count_call, &calls);
    aloop_future_set_result(future, 0, &destroyed, count_destroy);
    aloop_future_unref(future);
  }
  aloop_close(env->loop);
  assert_int_equal(calls, 0);
  assert_int_equal(destroyed, 5);
}

static void closing_after_a_fatal_stop_drops_the_rest(void **state) {
  env_t *env = *state;
  int calls = 0, destroyed = 0, error = ALOOP_EIO;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, stop_hard, &error);
  for (int i = 0; i < 5; i++) aloop_future_add_done_callback(future, count_call, &calls);
  aloop_future_set_result(future, 0, &destroyed, count_destroy);
  aloop_future_unref(future);
  assert_int_equal(aloop_run_forever(env->loop), ALOOP_EIO);
  assert_int_equal(destroyed, 0);
  aloop_close(env->loop);
  assert_int_equal(calls, 0);
  assert_int_equal(destroyed, 1);
}

static void closing_reports_errors_that_nobody_can_read_any_more(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, count_call, &calls);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  aloop_future_unref(future);
  aloop_close(env->loop);
  assert_int_equal(env->reports, 1);
}

static void a_future_outlives_its_loop(void **state) {
  env_t *env = *state;
  aloop_future_t *failed = aloop_future_new(env->loop);
  aloop_future_set_error(failed, ALOOP_EIO, "late");
  aloop_future_t *pending = aloop_future_new(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(aloop_future_result(failed), ALOOP_EIO);
  assert_string_equal(aloop_future_message(failed), "late");
  assert_true(aloop_future_cancelled(pending));
  aloop_future_unref(failed);
  aloop_future_unref(pending);
}

static void a_future_of_a_closed_loop_has_failed(void **state) {
  env_t *env = *state;
  aloop_close(env->loop);
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
}

static void end_another(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_future_set_value(arg, 1);
}

static void an_end_inside_close_queues_nothing(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_future_t *first = aloop_future_new(env->loop);
  aloop_future_t *second = aloop_future_new(env->loop);
  aloop_future_on_cancel(first, end_another, second);
  aloop_future_add_done_callback(second, count_call, &calls);
  aloop_future_add_done_callback(second, count_call, &calls);
  aloop_close(env->loop);
  assert_int_equal(aloop_future_result(second), 1);
  assert_int_equal(calls, 0);
  aloop_future_unref(first);
  aloop_future_unref(second);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void steady_use_allocates_nothing(void **state) {
  env_t *env = *state;
  int calls = 0;
  for (int i = 0; i < 100; i++) {
    if (i == 2) env->fail_from = env->calls + 1;
    aloop_future_t *future = aloop_future_new(env->loop);
    assert_non_null(future);
    assert_int_equal(aloop_future_add_done_callback(future, count_call, &calls), 0);
    aloop_future_set_value(future, i);
    run_turn(env->loop);
    aloop_future_unref(future);
  }
  assert_int_equal(calls, 100);
}

static void a_full_deque_delays_callbacks_but_loses_none(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t steps[] = {{&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'}, {&trace, 'd'}};
  int destroyed = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  for (int i = 0; i < 3; i++) aloop_future_add_done_callback(future, trace_done, &steps[i]);
  aloop_call_soon(env->loop, ignore_turn, NULL);
  fill_deque(env->loop);
  env->fail_from = 1;
  aloop_future_set_result(future, 0, &destroyed, count_destroy);
  assert_true(future->object.stalled);
  assert_int_equal(aloop_future_add_done_callback(future, trace_done, &steps[3]),
                   0); /* room is there already */
  aloop_future_unref(future);
  run_turn(env->loop);
  assert_int_equal(aloop_next_timeout(env->loop), 0);
  run_turn(env->loop);
  assert_string_equal(trace.text, "abcd");
  assert_int_equal(destroyed, 1);
  assert_int_equal(env->loop->stalled, 0);
}

static void a_stalled_future_ends_with_the_loop(void **state) {
  env_t *env = *state;
  int calls = 0, destroyed = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, count_call, &calls);
  fill_deque(env->loop);
  env->fail_from = 1;
  aloop_future_set_result(future, 0, &destroyed, count_destroy);
  env->fail_from = 0;
  aloop_future_unref(future);
  assert_int_equal(destroyed, 0);
  aloop_close(env->loop);
  assert_int_equal(calls, 0);
  assert_int_equal(destroyed, 1);
  assert_int_equal(env->loop->stalled, 0);
}

static void callbacks_of_a_stalled_future_can_be_removed(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_add_done_callback(future, count_call, &calls);
  fill_deque(env->loop);
  env->fail_from = 1;
  aloop_future_set_value(future, 0);
  env->fail_from = 0;
  assert_int_equal(aloop_future_remove_done_callback(future, count_call, &calls), 1);
  aloop_future_unref(future);
  run_turn(env->loop);
  run_turn(env->loop);
  assert_int_equal(calls, 0);
  assert_int_equal(env->loop->stalled, 0);
}

static void adding_to_a_done_future_may_fail(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_value(future, 0);
  fill_deque(env->loop);
  env->fail_from = 1;
  assert_int_equal(aloop_future_add_done_callback(future, count_call, &calls), ALOOP_ENOMEM);
  env->fail_from = 0;
  run_turn(env->loop);
  run_turn(env->loop);
  assert_int_equal(calls, 0);
  aloop_future_unref(future);
}

static void life_of_futures(env_t *env) {
  int calls = 0, destroyed = 0, added = 0;
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = aloop_future_new(env->loop);
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 10 && futures[i] != NULL; j++)
      added += aloop_future_add_done_callback(futures[i], count_call, &calls) == 0;
  if (futures[0] != NULL)
    assert_int_equal(aloop_future_set_result(futures[0], 0, &destroyed, count_destroy), 0);
  if (futures[1] != NULL) assert_int_equal(aloop_future_set_error(futures[1], ALOOP_EIO, "message"), 0);
  if (futures[2] != NULL) assert_int_equal(aloop_future_cancel(futures[2]), 1);
  for (int i = 0; i < 3; i++) aloop_future_unref(futures[i]);
  run_turn(env->loop);
  env->fail_from = 0;
  for (int i = 0; i < 3; i++) run_turn(env->loop);
  assert_int_equal(calls, added);
  assert_int_equal(destroyed, futures[0] != NULL);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, life_of_futures);
}

/* ---- For the rest of the library ----------------------------------------------------------------------------- */

static void an_operation_keeps_its_future(void **state) {
  env_t *env = *state;
  int stops = 0, destroyed = 0;
  aloop_future_t *future = aloop__future_new(env->loop, NULL);
  aloop__future_set_operation(future, count_call, &stops);
  aloop_future_detach(future);
  assert_true(aloop__future_finish_ptr(future, 0, &destroyed, count_destroy));
  assert_int_equal(destroyed, 1);
  assert_int_equal(stops, 0);
}

static void whoever_ends_it_stops_the_operation(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    int stops = 0;
    aloop_future_t *future = aloop__future_new(env->loop, NULL);
    aloop__future_set_operation(future, count_call, &stops);
    if (way == 0) assert_int_equal(aloop_future_set_value(future, 1), 0);
    if (way == 1) assert_int_equal(aloop_future_cancel(future), 1);
    if (way == 2) assert_int_equal(aloop_future_set_error(future, ALOOP_EIO, NULL), 0);
    if (way == 3) assert_int_equal(aloop_close(env->loop), 0);
    assert_int_equal(stops, 1);
    assert_false(aloop__future_finish(future, 1));
    assert_false(aloop__future_fail(future, ALOOP_EIO, "late"));
    aloop_future_result(future);
    assert_int_equal(future->object.refs, 1);
    aloop_future_unref(future);
  }
}

static void the_user_cannot_replace_the_stop_of_the_library(void **state) {
  env_t *env = *state;
  int stops = 0;
  aloop_future_t *future = aloop__future_new(env->loop, NULL);
  aloop__future_set_operation(future, count_call, &stops);
  assert_int_equal(aloop_future_on_cancel(future, NULL, NULL), ALOOP_EPERM);
  aloop_future_cancel(future);
  assert_int_equal(stops, 1);
  aloop_future_unref(future);
}

static void a_queued_callback_of_the_library_can_be_taken_back(void **state) {
  env_t *env = *state;
  int x = 0, y = 0;
  aloop_future_t *future = aloop__future_new(env->loop, NULL);
  aloop__future_watch(future, count_call, &x);
  aloop__future_watch(future, count_call, &y);
  aloop__future_watch(future, count_call, &x);
  aloop_future_set_value(future, 0);
  aloop__future_unwatch(future, count_call, &x);
  run_turn(env->loop);
  assert_int_equal(x, 0);
  assert_int_equal(y, 1);
  aloop_future_unref(future);
}

static void an_ignored_error_is_not_reported(void **state) {
  env_t *env = *state;
  for (int before = 0; before < 2; before++) {
    aloop_future_t *future = aloop__future_new(env->loop, NULL);
    if (before) aloop__future_ignore(future);
    aloop__future_fail(future, ALOOP_EIO, NULL);
    if (!before) aloop__future_ignore(future);
    aloop_future_unref(future);
  }
  assert_int_equal(env->reports, 0);
}

/* ---- Debug mode ---------------------------------------------------------------------------------------------- */

static void *end_elsewhere(void *future) {
  static int results[5];
  results[0] = aloop_future_set_value(future, 1);
  results[1] = aloop_future_cancel(future);
  results[2] = (int)aloop_future_result(future);
  results[3] = aloop_future_add_done_callback(future, count_call, NULL);
  results[4] = aloop_future_new(aloop_future_loop(future)) == NULL ? ALOOP_ENOTLOOPTHREAD : 0;
  return results;
}

static void ask_another_thread(aloop_t *loop, void *future) {
  (void)loop;
  pthread_t thread;
  void *results;
  assert_int_equal(pthread_create(&thread, NULL, end_elsewhere, future), 0);
  pthread_join(thread, &results);
  for (int i = 0; i < 5; i++) assert_int_equal(((int *)results)[i], ALOOP_ENOTLOOPTHREAD);
}

static void debug_mode_refuses_other_threads(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_call_soon(env->loop, ask_another_thread, future);
  run_turn(env->loop);
  assert_false(aloop_future_done(future));
  assert_int_equal(env->reports, 5);
  aloop_future_unref(future);
}

static void find_line(void *arg, const char *text) {
  const char **want = arg;
  if (want[0] != NULL && strstr(text, want[0]) != NULL && strstr(text, "place.c:1") != NULL) want[0] = NULL;
}

static void the_dump_describes_each_state(void **state) {
  env_t *env = *state;
  const char *wants[] = {"future pending", "future done with 7", "future failed with EIO", "future cancelled"};
  aloop_future_t *futures[4];
  for (int i = 0; i < 4; i++) futures[i] = aloop_future_new_from(env->loop, "place.c:1");
  aloop_future_set_value(futures[1], 7);
  aloop_future_set_error(futures[2], ALOOP_EIO, NULL);
  aloop_future_cancel(futures[3]);
  for (int i = 0; i < 4; i++) {
    aloop_dump(env->loop, find_line, &wants[i]);
    assert_null(wants[i]);
    aloop_future_result(futures[i]);
    aloop_future_unref(futures[i]);
  }
}

static int released;

static void note_release(void *value) {
  released = (int)(intptr_t)value;
}

static aloop_future_t *owned(env_t *env) {
  aloop_future_t *future = aloop_future_new(env->loop);
  released = 0;
  assert_true(aloop__future_finish_owned(future, 77, note_release));
  return future;
}

static void a_value_that_nobody_reads_is_released(void **state) {
  env_t *env = *state;
  aloop_future_unref(owned(env));
  assert_int_equal(released, 77);
  aloop_future_unref(aloop_shield(owned(env)));
  assert_int_equal(released, 77);
}

static void a_value_belongs_to_who_reads_it(void **state) {
  env_t *env = *state;
  void *none = NULL;
  aloop_future_t *future = owned(env);
  assert_int_equal(aloop_future_result(future), 77);
  assert_int_equal(aloop_future_take_ptr(future, &none), ALOOP_ENOENT);
  aloop_future_unref(future);
  assert_int_equal(released, 0);
  future = aloop_wait_for(aloop_shield(owned(env)), ALOOP_FOREVER);
  assert_int_equal(aloop_future_result(future), 77);
  aloop_future_unref(future);
  assert_int_equal(released, 0);
  assert_int_equal(aloop_run_until_complete(env->loop, owned(env)), 77);
  assert_int_equal(released, 0);
}

static void waiting_for_a_value_is_not_reading_it(void **state) {
  env_t *env = *state;
  aloop_future_t *future = owned(env);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_gather(env->loop, &future, 1, 0)), 1);
  assert_int_equal(released, 77);
}

/* ---- Promises -------------------------------------------------------------------------------------------- */

/* What became of a promise. */
typedef struct giver {
  int kept, dropped, forsaken;
  int error;    /* what keeping it gives */
  void *object; /* ... or makes the future's */
} giver_t;

static int keep(aloop_future_t *future, void *arg) {
  giver_t *giver = arg;
  giver->kept++;
  if (giver->object == NULL) return giver->error;
  future->ptr = giver->object;
  future->owner = true;
  return 0;
}

static void drop(aloop_future_t *future, void *arg) {
  (void)future;
  ((giver_t *)arg)->dropped++;
}

static void forsake(aloop_future_t *future, void *arg) {
  (void)future;
  ((giver_t *)arg)->forsaken++;
}

static aloop_future_t *promised(env_t *env, giver_t *giver) {
  static const aloop__promise_t promise = {keep, drop, forsake};
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_true(aloop__future_finish_promise(future, 7, &promise, giver));
  return future;
}

static void assert_promise(const giver_t *giver, int kept, int dropped, int forsaken) {
  assert_int_equal(giver->kept, kept);
  assert_int_equal(giver->dropped, dropped);
  assert_int_equal(giver->forsaken, forsaken);
}

static void reading_keeps_a_promise_once(void **state) {
  giver_t giver = {.kept = 0}, other = {.kept = 0};
  void *none = NULL;
  aloop_future_t *future = promised(*state, &giver), *outer = aloop_shield(promised(*state, &other));
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_future_result(future), 7);
    assert_int_equal(aloop_future_result(outer), 7);
    assert_int_equal(aloop_future_take_ptr(outer, &none), ALOOP_ENOENT);
  }
  aloop_future_unref(future);
  aloop_future_unref(outer);
  assert_promise(&giver, 1, 0, 0);
  assert_promise(&other, 1, 0, 0);
}

static void an_unread_promise_is_dropped(void **state) {
  giver_t giver = {.kept = 0};
  aloop_future_t *future = promised(*state, &giver);
  assert_true(aloop_future_done(future));
  assert_false(aloop_future_cancelled(future));
  assert_string_equal(aloop_future_message(future), "");
  assert_promise(&giver, 0, 0, 0);
  aloop_future_unref(future);
  assert_promise(&giver, 0, 1, 0);
  aloop_future_unref(aloop_wait_for(promised(*state, &giver), 1));
  assert_promise(&giver, 0, 2, 0);
}

static void a_promise_is_forsaken_through_other_futures(void **state) {
  giver_t giver = {.kept = 0};
  aloop_future_t *future = aloop_shield(promised(*state, &giver));
  aloop__future_forsake(future);
  aloop__future_forsake(future);
  assert_promise(&giver, 0, 0, 1);
  assert_int_equal(aloop_future_result(future), ALOOP_ECANCELED);
  aloop_future_unref(future);
  assert_promise(&giver, 0, 0, 1);
}

static void a_promise_may_turn_out_to_be_an_error(void **state) {
  giver_t giver = {.error = ALOOP_ECLOSED};
  aloop_future_t *inner = promised(*state, &giver), *outer = aloop_shield(aloop_future_ref(inner));
  assert_int_equal(aloop_future_result(outer), ALOOP_ECLOSED);
  assert_int_equal(aloop_future_result(inner), ALOOP_ECLOSED);
  assert_string_equal(aloop_future_message(outer), aloop_strerror(ALOOP_ECLOSED));
  aloop_future_unref(outer);
  aloop_future_unref(inner);
  assert_promise(&giver, 1, 0, 0);
}

static void a_promise_may_be_an_object(void **state) {
  int item;
  void *got = NULL;
  giver_t giver = {.object = &item};
  aloop_future_t *future = aloop_shield(aloop_shield(promised(*state, &giver)));
  assert_int_equal(aloop_future_result_ptr(future, &got), 0);
  assert_ptr_equal(got, &item);
  assert_int_equal(aloop_future_result(future), 7);
  assert_int_equal(aloop_future_take_ptr(future, &got), 0);
  assert_int_equal(aloop_future_take_ptr(future, &got), ALOOP_ENOENT);
  aloop_future_unref(future);
  assert_promise(&giver, 1, 0, 0);
}

TESTS(T(reading_keeps_a_promise_once), T(an_unread_promise_is_dropped),
      T(a_promise_is_forsaken_through_other_futures), T(a_promise_may_turn_out_to_be_an_error),
      T(a_promise_may_be_an_object), T(a_value_that_nobody_reads_is_released),
      T(a_value_belongs_to_who_reads_it), T(waiting_for_a_value_is_not_reading_it), T(a_new_future_is_pending),
      T(a_value_ends_it_once), T(values_and_errors_have_their_sign), T(null_is_refused_everywhere),
      T(a_callback_is_a_function), T(an_object_goes_with_the_last_reference),
      T(a_taken_object_is_not_destroyed), T(there_may_be_no_object_to_take),
      T(a_refused_object_stays_the_callers), T(callbacks_run_in_order_and_never_inline),
      T(a_done_future_calls_back_through_the_deque_too), T(what_a_callback_adds_runs_next_turn),
      T(removing_takes_every_equal_pair), T(a_queued_callback_cannot_be_removed), T(callbacks_keep_the_future),
      T(a_forgotten_pending_future_calls_nobody), T(a_callback_runs_in_the_context_of_its_adding),
      T(removing_releases_the_context), T(a_fatal_stop_leaves_the_other_callbacks_queued),
      T(an_end_between_turns_tells_the_host), T(cancelling_stops_the_operation_first),
      T(the_future_is_pending_while_it_is_stopped), T(ending_it_otherwise_stops_nothing),
      T(a_stop_function_may_end_it_with_a_value), T(a_stop_function_may_cancel_and_let_go),
      T(an_unread_error_is_reported_at_the_end), T(detaching_reports_too), T(a_read_error_is_not_reported),
      T(a_cancelled_future_is_not_reported), T(the_handler_may_keep_the_future),
      T(closing_stops_what_is_pending), T(closing_drops_queued_callbacks),
      T(closing_after_a_fatal_stop_drops_the_rest), T(closing_reports_errors_that_nobody_can_read_any_more),
      T(a_future_outlives_its_loop), T(a_future_of_a_closed_loop_has_failed),
      T(an_end_inside_close_queues_nothing), T(steady_use_allocates_nothing),
      T(a_full_deque_delays_callbacks_but_loses_none), T(a_stalled_future_ends_with_the_loop),
      T(callbacks_of_a_stalled_future_can_be_removed), T(adding_to_a_done_future_may_fail),
      T(every_allocation_may_fail), T(an_operation_keeps_its_future), T(whoever_ends_it_stops_the_operation),
      T(the_user_cannot_replace_the_stop_of_the_library), T(a_queued_callback_of_the_library_can_be_taken_back),
      T(an_ignored_error_is_not_reported), T(debug_mode_refuses_other_threads),
      T(the_dump_describes_each_state))
