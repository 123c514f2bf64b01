/* SPDX-License-Identifier: MIT
 *
 * Tasks: when they begin and end, with what; names, contexts, who is current, how they are cancelled, what becomes of
 * them with their loop.
 * pollers: all
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop.h"
#include "future/future.h"
#include "task/task.h"

static int destroyed;

static void count_destroy(void *arg) {
  (void)arg;
  destroyed++;
}

static aloop_task_options_t options_with(aloop_task_options_t options) {
  options.size = sizeof options;
  destroyed = 0;
  return options;
}

static int64_t answer(aloop_t *loop, void *arg) {
  (void)loop;
  return arg != NULL ? *(int64_t *)arg : 42;
}

/* Waits for the future that is its argument. */
static int64_t wait_for_it(aloop_t *loop, void *arg) {
  (void)loop;
  return aloop_await(aloop_future_ref(arg));
}

static aloop_future_t *make(env_t *env, aloop_task_fn fn, void *arg) {
  aloop_future_t *task = aloop_create_task(env->loop, fn, arg, NULL);
  assert_non_null(task);
  return task;
}

/* ---- Beginning and ending ------------------------------------------------------------------------------------ */

static int64_t set_flag(aloop_t *loop, void *flag) {
  (void)loop;
  *(bool *)flag = true;
  return 1;
}

static void it_begins_in_the_next_turn(void **state) {
  env_t *env = *state;
  bool ran = false;
  aloop_future_t *task = make(env, set_flag, &ran);
  assert_false(ran);
  assert_false(aloop_future_done(task));
  run_turn(env->loop);
  assert_true(ran);
  assert_int_equal(aloop_future_result(task), 1);
  aloop_future_unref(task);
}

static void it_begins_in_the_order_of_callbacks(void **state) {
  env_t *env = *state;
  trace_t trace = {.length = 0};
  step_t steps[] = {{&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'}};
  aloop_call_soon(env->loop, trace_step, &steps[0]);
  aloop_future_t *sleep = aloop_sleep(env->loop, 0);
  aloop_future_add_done_callback(sleep, trace_done, &steps[2]);
  aloop_future_detach(sleep);
  aloop_future_t *task = make(env, answer, NULL);
  aloop_future_add_done_callback(task, trace_done, &steps[1]);
  run_turn(env->loop);
  run_turn(env->loop);
  assert_string_equal(trace.text, "acb");
  aloop_future_unref(task);
}

static void it_ends_with_what_its_function_returns(void **state) {
  env_t *env = *state;
  int64_t values[] = {0, 7, INT64_MAX, ALOOP_EIO, ALOOP_ECANCELED};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    assert_int_equal(aloop_run_until_complete(env->loop, make(env, answer, &values[i])), values[i]);
}

static void one_that_is_detached_runs(void **state) {
  env_t *env = *state;
  bool ran = false;
  aloop_future_detach(make(env, set_flag, &ran));
  run_turn(env->loop);
  assert_true(ran);
}

static void a_detached_one_that_waits_goes_on(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_task_options_t options = options_with((aloop_task_options_t){.destroy = count_destroy});
  aloop_future_detach(aloop_create_task(env->loop, wait_for_it, future, &options));
  run_turn(env->loop);
  assert_int_equal(destroyed, 0);
  aloop_future_set_value(future, 5);
  run_turn(env->loop);
  assert_int_equal(destroyed, 1);
  aloop_future_unref(future);
}

static void an_error_nobody_reads_is_reported(void **state) {
  env_t *env = *state;
  int64_t value = ALOOP_EIO;
  aloop_future_detach(aloop_create_task_from(env->loop, answer, &value, NULL, "a.c:1"));
  run_turn(env->loop);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EIO);
  assert_string_equal(env->report_messages[0], "error of Task-1 was never retrieved");
  assert_string_equal(env->report_origins[0], "a.c:1");
}

static void nobody_else_ends_it(void **state) {
  env_t *env = *state;
  aloop_future_t *task = make(env, answer, NULL);
  assert_int_equal(aloop_future_set_value(task, 1), ALOOP_EPERM);
  assert_int_equal(aloop_future_set_error(task, ALOOP_EIO, NULL), ALOOP_EPERM);
  assert_int_equal(aloop_future_set_result(task, 1, env, count_destroy), ALOOP_EPERM);
  assert_int_equal(aloop_future_on_cancel(task, NULL, NULL), ALOOP_EPERM);
  assert_int_equal(aloop_run_until_complete(env->loop, task), 42);
}

static int64_t give_object(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_return_ptr(NULL, count_destroy);
  return aloop_return_ptr(arg, count_destroy);
}

static void its_result_may_be_an_object(void **state) {
  env_t *env = *state;
  int object, *out = NULL;
  destroyed = 0;
  assert_int_equal(aloop_run_until_complete_ptr(env->loop, make(env, give_object, &object), &out), 0);
  assert_ptr_equal(out, &object);
  assert_int_equal(destroyed, 1); /* the one given first */
  aloop_run_until_complete(env->loop, make(env, give_object, &object));
  assert_int_equal(destroyed, 3);
}

static int64_t give_object_and_fail(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_return_ptr(arg, count_destroy);
  return ALOOP_EIO;
}

static void an_object_of_a_task_that_failed_is_released(void **state) {
  env_t *env = *state;
  destroyed = 0;
  assert_int_equal(aloop_run_until_complete(env->loop, make(env, give_object_and_fail, env)), ALOOP_EIO);
  assert_int_equal(destroyed, 1);
}

static int64_t fail_with_words(aloop_t *loop, void *arg) {
  (void)loop;
  return aloop_return_error(ALOOP_EIO, "%s: %d bytes are missing", (char *)arg, 3);
}

static int64_t change_its_mind(aloop_t *loop, void *arg) {
  fail_with_words(loop, arg);
  return ALOOP_EPIPE;
}

static void its_error_may_have_words(void **state) {
  env_t *env = *state;
  char name[] = "data";
  aloop_future_t *task = make(env, fail_with_words, name);
  assert_int_equal(run_future(env->loop, task), ALOOP_EIO);
  assert_string_equal(aloop_future_message(task), "data: 3 bytes are missing");
  aloop_future_unref(task);
  task = make(env, change_its_mind, name);
  assert_int_equal(run_future(env->loop, task), ALOOP_EPIPE);
  assert_string_equal(aloop_future_message(task), aloop_strerror(ALOOP_EPIPE));
  aloop_future_unref(task);
}

static void its_argument_is_destroyed_at_its_end(void **state) {
  env_t *env = *state;
  aloop_task_options_t options = options_with((aloop_task_options_t){.destroy = count_destroy});
  aloop_future_t *task = aloop_create_task(env->loop, answer, NULL, &options);
  assert_int_equal(destroyed, 0);
  run_turn(env->loop);
  assert_int_equal(destroyed, 1);
  aloop_future_unref(task);
  assert_int_equal(destroyed, 1);
}

static int64_t recurse(aloop_t *loop, void *arg) {
  int *depth = arg;
  volatile char frame[512];
  frame[0] = (char)*depth;
  if (--*depth == 0) return aloop_await(aloop_sleep(loop, 0));
  int64_t rc = recurse(loop, arg);
  return rc + (frame[0] & 0);
}

static void its_stack_is_as_large_as_asked(void **state) {
  env_t *env = *state;
  int depth = 10000;
  aloop_task_options_t options = options_with((aloop_task_options_t){.stack_size = 16 << 20});
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_create_task(env->loop, recurse, &depth, &options)),
                   0);
}

static void one_without_a_stack_has_failed(void **state) {
  env_t *env = *state;
  aloop_task_options_t options =
      options_with((aloop_task_options_t){.stack_size = SIZE_MAX / 2, .destroy = count_destroy});
  aloop_future_t *task = aloop_create_task(env->loop, answer, NULL, &options);
  assert_true(run_future(env->loop, task) < 0);
  assert_int_equal(destroyed, 1);
  aloop_future_unref(task);
}

/* ---- Eager start --------------------------------------------------------------------------------------------- */

typedef struct eager {
  bool ran;
  bool waits;
  aloop_future_t *self;
  aloop_future_t *outer;
} eager_t;

static int64_t begin_at_once(aloop_t *loop, void *arg) {
  eager_t *eager = arg;
  eager->ran = true;
  eager->self = aloop_current_task(loop);
  return eager->waits ? aloop_await(aloop_sleep(loop, 0)) : 3;
}

static int64_t make_eagerly(aloop_t *loop, void *arg) {
  eager_t *eager = arg;
  aloop_task_options_t options = options_with((aloop_task_options_t){.eager = true});
  aloop_future_t *task = aloop_create_task(loop, begin_at_once, eager, &options);
  assert_true(eager->ran);
  assert_ptr_equal(eager->self, task);
  assert_ptr_equal(aloop_current_task(loop), eager->outer);
  assert_int_equal(aloop_future_done(task), !eager->waits);
  return aloop_await(task);
}

static void an_eager_one_runs_until_its_first_await(void **state) {
  env_t *env = *state;
  for (int waits = 0; waits < 2; waits++) {
    eager_t eager = {.waits = waits != 0};
    eager.outer = make(env, make_eagerly, &eager);
    assert_int_equal(aloop_run_until_complete(env->loop, eager.outer), waits ? 0 : 3);
  }
}

static void without_a_running_loop_it_is_not_eager(void **state) {
  env_t *env = *state;
  eager_t eager = {.waits = false};
  aloop_task_options_t options = options_with((aloop_task_options_t){.eager = true});
  aloop_future_t *task = aloop_create_task(env->loop, begin_at_once, &eager, &options);
  assert_false(eager.ran);
  assert_int_equal(aloop_run_until_complete(env->loop, task), 3);
}

/* ---- Names, who is current, all ------------------------------------------------------------------------------ */

static void names_count_or_are_given(void **state) {
  env_t *env = *state;
  char name[] = "worker";
  aloop_task_options_t options = options_with((aloop_task_options_t){.name = name});
  aloop_future_t *one = make(env, answer, NULL), *two = make(env, answer, NULL);
  aloop_future_t *three = aloop_create_task(env->loop, answer, NULL, &options);
  name[0] = 'W';
  assert_string_equal(aloop_task_name(one), "Task-1");
  assert_string_equal(aloop_task_name(two), "Task-2");
  assert_string_equal(aloop_task_name(three), "worker");
  assert_int_equal(aloop_task_set_name(two, "second"), 0);
  assert_int_equal(aloop_task_set_name(three, ""), 0);
  assert_string_equal(aloop_task_name(two), "second");
  assert_string_equal(aloop_task_name(three), "");
  run_turn(env->loop);
  assert_string_equal(aloop_task_name(one), "Task-1");
  aloop_future_unref(one);
  aloop_future_unref(two);
  aloop_future_unref(three);
}

static int64_t is_current(aloop_t *loop, void *arg) {
  aloop_future_t **self = arg;
  assert_ptr_equal(aloop_current_task(loop), *self);
  aloop_await(aloop_sleep(loop, 0));
  assert_ptr_equal(aloop_current_task(loop), *self);
  return 0;
}

static void nobody_is_current(aloop_t *loop, void *arg) {
  (void)arg;
  assert_null(aloop_current_task(loop));
}

static void one_is_current_while_it_runs(void **state) {
  env_t *env = *state;
  assert_null(aloop_current_task(env->loop));
  aloop_future_t *one, *two;
  one = make(env, is_current, &one);
  two = make(env, is_current, &two);
  assert_null(aloop_current_task(env->loop));
  aloop_call_soon(env->loop, nobody_is_current, NULL);
  assert_int_equal(aloop_run_until_complete(env->loop, one), 0);
  assert_int_equal(aloop_run_until_complete(env->loop, two), 0);
  assert_null(aloop_current_task(env->loop));
}

static void all_tasks_are_those_that_have_not_ended(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *one = make(env, wait_for_it, future), *two = make(env, answer, NULL);
  aloop_future_t *three = make(env, wait_for_it, future), *all[2];
  assert_int_equal(aloop_all_tasks(env->loop, NULL, 0), 3);
  run_turn(env->loop);
  assert_int_equal(aloop_all_tasks(env->loop, all, 1), 2);
  aloop_future_unref(all[0]);
  assert_int_equal(aloop_all_tasks(env->loop, all, 2), 2);
  assert_ptr_equal(all[0], one);
  assert_ptr_equal(all[1], three);
  aloop_future_set_value(future, 0);
  run_turn(env->loop);
  assert_int_equal(aloop_all_tasks(env->loop, all, 2), 0);
  aloop_future_unref(future);
  aloop_future_t *futures[] = {one, two, three, one, three};
  for (int i = 0; i < 5; i++) aloop_future_unref(futures[i]);
}

static void a_task_is_told_from_a_future(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop), *task = make(env, answer, NULL);
  assert_true(aloop_is_task(task));
  assert_false(aloop_is_task(future));
  aloop_future_unref(future);
  aloop_future_unref(task);
}

/* ---- Contexts ------------------------------------------------------------------------------------------------ */

static aloop_var_t *var;

static void *get(aloop_t *loop) {
  return aloop_var_get(loop, var, NULL);
}

static int64_t keep_its_own(aloop_t *loop, void *arg) {
  assert_string_equal(get(loop), "outside");
  aloop_var_set(loop, var, arg, NULL, NULL);
  for (int i = 0; i < 3; i++) {
    aloop_await(aloop_sleep(loop, 0));
    assert_ptr_equal(get(loop), arg);
  }
  return 0;
}

static void each_has_a_context_of_its_own(void **state) {
  env_t *env = *state;
  char one[] = "one", two[] = "two", outside[] = "outside";
  assert_int_equal(aloop_var_new("v", &var), 0);
  aloop_var_set(env->loop, var, outside, NULL, NULL);
  aloop_future_t *tasks[] = {make(env, keep_its_own, one), make(env, keep_its_own, two)};
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_gather(env->loop, tasks, 2, 0)), 2);
  assert_string_equal(get(env->loop), "outside");
  aloop_var_unref(var);
}

static int64_t leave_a_value(aloop_t *loop, void *arg) {
  aloop_var_set(loop, var, arg, NULL, NULL);
  aloop_await(aloop_sleep(loop, 0));
  assert_ptr_equal(get(loop), arg);
  return 0;
}

static void look_for_it(aloop_t *loop, void *arg) {
  assert_ptr_equal(get(loop), arg);
}

static void one_may_run_in_a_given_context(void **state) {
  env_t *env = *state;
  char value[] = "value";
  assert_int_equal(aloop_var_new("v", &var), 0);
  aloop_task_options_t options = options_with((aloop_task_options_t){.size = 0});
  assert_int_equal(aloop_context_copy(env->loop, &options.context), 0);
  aloop_future_t *task = aloop_create_task(env->loop, leave_a_value, value, &options);
  assert_int_equal(aloop_run_until_complete(env->loop, task), 0);
  assert_null(get(env->loop));
  assert_int_equal(aloop_context_run(env->loop, options.context, look_for_it, value), 0);
  task = aloop_create_task(env->loop, leave_a_value, value, &options);
  aloop_context_unref(options.context); /* the task keeps it */
  assert_int_equal(aloop_run_until_complete(env->loop, task), 0);
  aloop_var_unref(var);
}

static void await_inside(aloop_t *loop, void *arg) {
  char *value = arg;
  aloop_var_set(loop, var, value, NULL, NULL);
  aloop_await(aloop_sleep(loop, 0));
  assert_ptr_equal(get(loop), value);
}

static int64_t run_a_context(aloop_t *loop, void *arg) {
  aloop_context_t *context;
  assert_int_equal(aloop_context_copy(loop, &context), 0);
  assert_int_equal(aloop_context_run(loop, context, await_inside, arg), 0);
  assert_null(get(loop));
  assert_int_equal(aloop_context_run(loop, context, look_for_it, arg), 0);
  aloop_context_unref(context);
  return 0;
}

static void one_may_wait_inside_another_context(void **state) {
  env_t *env = *state;
  char one[] = "one", two[] = "two";
  assert_int_equal(aloop_var_new("v", &var), 0);
  aloop_future_t *tasks[] = {make(env, run_a_context, one), make(env, run_a_context, two)};
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_gather(env->loop, tasks, 2, 0)), 2);
  aloop_var_unref(var);
}

/* ---- Cancelling ---------------------------------------------------------------------------------------------- */

static void a_cancelled_one_never_begins(void **state) {
  env_t *env = *state;
  bool ran = false;
  aloop_task_options_t options = options_with((aloop_task_options_t){.destroy = count_destroy});
  aloop_future_t *task = aloop_create_task(env->loop, set_flag, &ran, &options);
  assert_int_equal(aloop_task_cancel(task, "not today"), 1);
  assert_false(aloop_future_done(task));
  assert_int_equal(run_future(env->loop, task), ALOOP_ECANCELED);
  assert_string_equal(aloop_future_message(task), "not today");
  assert_false(ran);
  assert_int_equal(destroyed, 1);
  assert_int_equal(aloop_task_cancel(task, NULL), 0);
  aloop_future_unref(task);
}

static void a_cancel_taken_back_lets_it_begin(void **state) {
  env_t *env = *state;
  aloop_future_t *task = make(env, answer, NULL);
  aloop_future_cancel(task);
  aloop_future_cancel(task);
  assert_int_equal(aloop_task_cancelling(task), 2);
  assert_int_equal(aloop_task_uncancel(task), 1);
  assert_int_equal(aloop_task_uncancel(task), 0);
  assert_int_equal(aloop_task_uncancel(task), 0);
  assert_int_equal(aloop_run_until_complete(env->loop, task), 42);
}

static void a_cancel_ends_what_it_waits_for(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *task = make(env, wait_for_it, future);
  run_turn(env->loop);
  assert_int_equal(aloop_task_cancel(task, "enough"), 1);
  assert_true(aloop_future_cancelled(future));
  assert_string_equal(aloop_future_message(future), "enough");
  assert_false(aloop_future_done(task));
  run_turn(env->loop);
  assert_true(aloop_future_cancelled(task));
  assert_string_equal(aloop_future_message(task), "enough");
  assert_int_equal(aloop_task_cancelling(task), 1);
  aloop_future_unref(future);
  aloop_future_unref(task);
}

static void a_cancel_goes_down_through_tasks(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *inner = make(env, wait_for_it, future), *outer = make(env, wait_for_it, inner);
  run_turn(env->loop);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(aloop_task_cancelling(inner), 1);
  assert_true(aloop_future_cancelled(future));
  assert_int_equal(run_future(env->loop, outer), ALOOP_ECANCELED);
  assert_true(aloop_future_cancelled(inner));
  aloop_future_unref(future);
  aloop_future_unref(inner);
  aloop_future_unref(outer);
}

enum { CHAIN = 20000 };

/* Cancels the first from a task, whose stack is not large. */
static int64_t cancel_it(aloop_t *loop, void *arg) {
  (void)loop;
  return aloop_future_cancel(arg);
}

static void a_cancel_goes_down_long_chains(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop), *last = aloop_future_ref(future);
  for (int i = 0; i < CHAIN; i++) {
    aloop_task_options_t options = options_with((aloop_task_options_t){.stack_size = 16384});
    aloop_future_t *task = aloop_create_task(env->loop, wait_for_it, last, &options);
    run_turn(env->loop);
    aloop_future_unref(last); /* the frame has its own */
    last = task;
  }
  assert_int_equal(aloop_run_until_complete(env->loop, make(env, cancel_it, last)), 1);
  assert_true(aloop_future_cancelled(future));
  assert_int_equal(run_future(env->loop, last), ALOOP_ECANCELED);
  aloop_future_unref(future);
  aloop_future_unref(last);
}

static int64_t wait_for_place(aloop_t *loop, void *arg) {
  aloop_future_t **place = arg;
  return aloop_await(*place != NULL ? aloop_future_ref(*place) : aloop_future_new(loop));
}

static void a_cancel_breaks_a_circle(void **state) {
  env_t *env = *state;
  aloop_future_t *tasks[3];
  for (int i = 0; i < 3; i++) tasks[i] = make(env, wait_for_place, &tasks[(i + 1) % 3]);
  run_turn(env->loop);
  assert_int_equal(aloop_future_cancel(tasks[1]), 1);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(run_future(env->loop, tasks[i]), ALOOP_ECANCELED);
    aloop_future_unref(tasks[i]);
  }
}

static int64_t wait_for_gathered(aloop_t *loop, void *arg) {
  aloop_future_t **place = arg, *one = aloop_future_ref(*place);
  return aloop_await(aloop_gather(loop, &one, 1, 0));
}

static void a_cancel_breaks_a_circle_through_others(void **state) {
  env_t *env = *state;
  aloop_future_t *tasks[2];
  for (int i = 0; i < 2; i++) tasks[i] = make(env, wait_for_gathered, &tasks[1 - i]);
  run_turn(env->loop);
  assert_int_equal(aloop_future_cancel(tasks[0]), 1);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(run_future(env->loop, tasks[i]), ALOOP_ECANCELED);
    aloop_future_unref(tasks[i]);
  }
}

static int64_t swallow(aloop_t *loop, void *arg) {
  (void)loop;
  assert_int_equal(aloop_await(aloop_future_ref(arg)), ALOOP_ECANCELED);
  return 9;
}

static void one_may_go_on_after_a_cancel(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *inner = make(env, swallow, future), *outer = make(env, wait_for_it, inner);
  run_turn(env->loop);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(run_future(env->loop, outer), 9); /* the inner one's result, not the cancel, came back */
  assert_int_equal(aloop_future_result(inner), 9);
  aloop_future_unref(future);
  aloop_future_unref(inner);
  aloop_future_unref(outer);
}

static int64_t cancel_itself(aloop_t *loop, void *arg) {
  bool *waited = arg;
  assert_int_equal(aloop_future_cancel(aloop_current_task(loop)), 1);
  if (waited == NULL) return 5;
  aloop_future_t *done = aloop_future_new(loop);
  aloop_future_set_value(done, 6);
  assert_int_equal(aloop_await(done), 6); /* no wait, no cancel */
  assert_int_equal(aloop_await(aloop_sleep(loop, ALOOP_SECONDS(1000))), ALOOP_ECANCELED);
  *waited = true;
  assert_int_equal(aloop_await(aloop_sleep(loop, 0)), 0); /* it comes once */
  return 5;
}

static void a_cancel_of_itself_comes_with_the_next_wait(void **state) {
  env_t *env = *state;
  bool waited = false;
  assert_int_equal(aloop_run_until_complete(env->loop, make(env, cancel_itself, &waited)), 5);
  assert_true(waited);
}

static void a_cancel_before_the_end_wins_over_a_result(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_run_until_complete(env->loop, make(env, cancel_itself, NULL)), ALOOP_ECANCELED);
}

static int64_t cancel_itself_and_fail(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_future_cancel(aloop_current_task(loop));
  return ALOOP_EIO;
}

static void a_cancel_before_the_end_does_not_hide_an_error(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_run_until_complete(env->loop, make(env, cancel_itself_and_fail, NULL)), ALOOP_EIO);
}

static int64_t cancel_and_take_back(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_future_t *self = aloop_current_task(loop);
  aloop_future_cancel(self);
  assert_int_equal(aloop_task_uncancel(self), 0);
  return aloop_await(aloop_sleep(loop, 0)) == 0 ? 8 : ALOOP_EIO;
}

static void a_cancel_taken_back_in_time_is_none(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_run_until_complete(env->loop, make(env, cancel_and_take_back, NULL)), 8);
}

static void a_limit_waits_until_it_has_ended(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *limited = aloop_wait_for(make(env, wait_for_it, future), 10);
  assert_int_equal(aloop_run_until_complete(env->loop, limited), ALOOP_ETIMEDOUT);
  aloop_future_unref(future);
  future = aloop_future_new(env->loop);
  limited = aloop_wait_for(make(env, swallow, future), 10);
  assert_int_equal(aloop_run_until_complete(env->loop, limited), 9);
  aloop_future_unref(future);
}

/* ---- The end of the loop ------------------------------------------------------------------------------------- */

typedef struct unwinding {
  aloop_future_t *future;
  int seen;
  bool released;
} unwinding_t;

static int64_t unwind(aloop_t *loop, void *arg) {
  unwinding_t *self = arg;
  void *block = malloc(10);
  self->seen = (int)aloop_await_keep(self->future);
  self->seen += aloop_await(aloop_sleep(loop, 5)) == ALOOP_ECLOSED;
  self->released = aloop_current_task(loop) != NULL;
  free(block);
  return ALOOP_ECLOSED;
}

static void closing_the_loop_unwinds_its_frames(void **state) {
  env_t *env = *state;
  unwinding_t self = {.future = aloop_future_new(env->loop)};
  aloop_task_options_t options = options_with((aloop_task_options_t){.destroy = count_destroy});
  aloop_future_t *task = aloop_create_task(env->loop, unwind, &self, &options);
  run_turn(env->loop);
  aloop_close(env->loop);
  assert_int_equal(self.seen, ALOOP_ECLOSED + 1);
  assert_true(self.released);
  assert_int_equal(aloop_future_result(task), ALOOP_ECLOSED);
  assert_int_equal(destroyed, 1);
  assert_int_equal(env->reports, 0);
  assert_null(aloop_running_loop());
  aloop_future_unref(task);
  aloop_future_unref(self.future);
}

static int64_t never_give_up(aloop_t *loop, void *arg) {
  int *count = arg;
  for (; *count < 1000000; ++*count) aloop_await(aloop_sleep(loop, 1));
  return 0;
}

static void one_that_goes_on_waiting_is_dropped(void **state) {
  env_t *env = *state;
  int count = 0;
  aloop_task_options_t options = options_with((aloop_task_options_t){.destroy = count_destroy, .name = "mule"});
  aloop_future_detach(aloop_create_task(env->loop, never_give_up, &count, &options));
  run_turn(env->loop);
  aloop_close(env->loop);
  assert_in_range(count, 1000, 1010);
  assert_int_equal(destroyed, 1);
  assert_int_equal(env->reports, 1);
  assert_string_equal(env->report_messages[0],
                      "mule went on waiting while its loop was being closed; its frames are dropped");
}

static void one_that_never_began_ends_with_the_loop(void **state) {
  env_t *env = *state;
  bool ran = false;
  aloop_task_options_t options = options_with((aloop_task_options_t){.destroy = count_destroy});
  aloop_future_t *task = aloop_create_task(env->loop, set_flag, &ran, &options);
  aloop_close(env->loop);
  assert_false(ran);
  assert_true(aloop_future_cancelled(task));
  assert_int_equal(destroyed, 1);
  aloop_future_unref(task);
}

static void on_a_closed_loop_there_are_none(void **state) {
  env_t *env = *state;
  aloop_close(env->loop);
  aloop_task_options_t options = options_with((aloop_task_options_t){.destroy = count_destroy});
  aloop_future_t *task = aloop_create_task(env->loop, answer, NULL, &options);
  assert_int_equal(aloop_future_result(task), ALOOP_ECLOSED);
  assert_int_equal(destroyed, 1);
  aloop_future_unref(task);
}

/* ---- Forks --------------------------------------------------------------------------------------------------- */

static int status_of(pid_t child) {
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static void a_child_goes_on_with_its_copy(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *task = make(env, wait_for_it, future);
  run_turn(env->loop);
  pid_t child = fork();
  if (child == 0) {
    bool good = aloop_after_fork(env->loop) == 0 && aloop_future_set_value(future, 5) == 0;
    good = good && aloop_run_once(env->loop, 0) == 1 && aloop_future_result(task) == 5;
    aloop_future_unref(future);
    aloop_future_unref(task);
    aloop_free(env->loop);
    _exit(good ? 0 : 1);
  }
  assert_int_equal(status_of(child), 0);
  assert_false(aloop_future_done(task));
  aloop_future_set_value(future, 6);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(task), 6);
  aloop_future_unref(future);
  aloop_future_unref(task);
}

static void a_child_unwinds_its_copy(void **state) {
  env_t *env = *state;
  unwinding_t self = {.future = aloop_future_new(env->loop)};
  aloop_future_t *task = make(env, unwind, &self);
  run_turn(env->loop);
  pid_t child = fork();
  if (child == 0) {
    aloop_free(env->loop);
    _exit(self.released ? 0 : 1);
  }
  assert_int_equal(status_of(child), 0);
  aloop_future_set_value(self.future, 0);
  run_turn(env->loop);
  aloop_future_cancel(task);
  run_turn(env->loop);
  aloop_future_unref(task);
  aloop_future_unref(self.future);
}

/* In the child nobody runs this loop: its task is none. */
static int64_t fork_inside(aloop_t *loop, void *arg) {
  pid_t *child = arg;
  *child = fork();
  if (*child == 0) _exit(aloop_await(aloop_sleep(loop, 0)) == ALOOP_EPERM ? 0 : 1);
  return aloop_await(aloop_sleep(loop, 0));
}

static void a_task_may_fork(void **state) {
  env_t *env = *state;
  pid_t child = -1;
  assert_int_equal(aloop_run_until_complete(env->loop, make(env, fork_inside, &child)), 0);
  assert_int_equal(status_of(child), 0);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void make_and_wait(env_t *env) {
  aloop_task_options_t options = options_with((aloop_task_options_t){.name = "n", .destroy = count_destroy});
  int made = 0;
  aloop_future_t *task = aloop_create_task(env->loop, wait_for_it, NULL, &options);
  if (task != NULL) {
    made++;
    aloop_future_cancel(task);
    aloop_future_unref(task);
  }
  aloop_future_t *future = aloop_sleep(env->loop, 5);
  task = future != NULL ? aloop_create_task(env->loop, wait_for_it, future, &options) : NULL;
  if (task != NULL) {
    made++;
    aloop_run_once(env->loop, 0);
    aloop_future_t *limited = aloop_wait_for(task, 1);
    if (limited != NULL) aloop_run_until_complete(env->loop, limited);
  }
  aloop_future_unref(future);
  env->fail_from = 0;
  aloop_close(env->loop);
  assert_int_equal(destroyed, made);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, make_and_wait);
}

static void steady_tasks_allocate_nothing(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 3; i++) {
    long before = env->calls;
    for (int j = 0; j < 100; j++) {
      aloop_future_t *task = make(env, is_current, NULL);
      (void)task;
      aloop_future_cancel(task);
      aloop_run_until_complete(env->loop, task);
    }
    for (int j = 0; j < 100; j++) aloop_run_until_complete(env->loop, make(env, answer, NULL));
    if (i > 0) assert_int_equal(env->calls, before);
  }
}

/* ---- Telling ------------------------------------------------------------------------------------------------- */

static char told[400];

static void note_line(void *arg, const char *text) {
  (void)arg;
  if (strncmp(text, "task", 4) == 0) snprintf(told + strlen(told), sizeof told - strlen(told), "%s\n", text);
}

static void tasks_are_counted_and_described(void **state) {
  env_t *env = *state;
  told[0] = '\0';
  aloop_future_t *future = aloop_future_new_from(env->loop, "f.c:9");
  aloop_future_t *one = aloop_create_task_from(env->loop, wait_for_it, future, NULL, "a.c:1");
  run_turn(env->loop);
  aloop_future_t *two = aloop_create_task_from(env->loop, answer, NULL, NULL, "a.c:2");
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.tasks, 2);
  assert_int_equal(metrics.futures, 1);
  aloop_dump(env->loop, note_line, NULL);
  assert_string_equal(told, "task Task-1 waits for a future from f.c:9, from a.c:1\n"
                            "task Task-2 is about to begin, from a.c:2\n");
  aloop_future_unref(future);
  aloop_future_unref(one);
  aloop_future_unref(two);
}

/* ---- Stacks ------------------------------------------------------------------------------------------------------ */

static void see_stacks(void *arg, const char *text) {
  if (strncmp(text, "stacks of tasks: ", 17) == 0) snprintf(arg, 200, "%s", text);
}

static int64_t sleep_shortly(aloop_t *loop, void *arg) {
  (void)arg;
  return aloop_await(aloop_sleep(loop, ALOOP_MILLIS(1)));
}

static void stacks_of_a_crowd_go_back_when_it_has_gone(void **state) {
  env_t *env = *state;
  if (!on_poller(env, "virtual")) return; /* it takes seconds */
  char text[200] = "";
  for (int i = 0; i < 300; i++) aloop_future_unref(make(env, sleep_shortly, NULL));
  for (int i = 0; i < 5; i++) aloop_run_once(env->loop, ALOOP_MILLIS(1));
  assert_int_equal(env->loop->live[ALOOP__TASK], 0);
  aloop_dump(env->loop, see_stacks, text);
  assert_non_null(strstr(text, "0 in use, at most 300 so far, 300 pooled"));
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_sleep(env->loop, ALOOP_SECONDS(5))), 0);
  aloop_dump(env->loop, see_stacks, text);
  assert_non_null(strstr(text, "0 in use, at most 300 so far, 0 pooled, 0 KiB"));
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.timers, 0);
}

TESTS(T(it_begins_in_the_next_turn), T(it_begins_in_the_order_of_callbacks),
      T(it_ends_with_what_its_function_returns), T(one_that_is_detached_runs),
      T(a_detached_one_that_waits_goes_on), T(an_error_nobody_reads_is_reported), T(nobody_else_ends_it),
      T(its_result_may_be_an_object), T(an_object_of_a_task_that_failed_is_released),
      T(its_error_may_have_words), T(its_argument_is_destroyed_at_its_end), T(its_stack_is_as_large_as_asked),
      T(one_without_a_stack_has_failed), T(an_eager_one_runs_until_its_first_await),
      T(without_a_running_loop_it_is_not_eager), T(names_count_or_are_given), T(one_is_current_while_it_runs),
      T(all_tasks_are_those_that_have_not_ended), T(a_task_is_told_from_a_future),
      T(each_has_a_context_of_its_own), T(one_may_run_in_a_given_context),
      T(one_may_wait_inside_another_context), T(a_cancelled_one_never_begins),
      T(a_cancel_taken_back_lets_it_begin), T(a_cancel_ends_what_it_waits_for),
      T(a_cancel_goes_down_through_tasks), T(a_cancel_goes_down_long_chains), T(a_cancel_breaks_a_circle),
      T(a_cancel_breaks_a_circle_through_others), T(one_may_go_on_after_a_cancel),
      T(a_cancel_of_itself_comes_with_the_next_wait), T(a_cancel_before_the_end_wins_over_a_result),
      T(a_cancel_before_the_end_does_not_hide_an_error), T(a_cancel_taken_back_in_time_is_none),
      T(a_limit_waits_until_it_has_ended), T(closing_the_loop_unwinds_its_frames),
      T(one_that_goes_on_waiting_is_dropped), T(one_that_never_began_ends_with_the_loop),
      T(on_a_closed_loop_there_are_none), T(a_child_goes_on_with_its_copy), T(a_child_unwinds_its_copy),
      T(a_task_may_fork), T(every_allocation_may_fail), T(steady_tasks_allocate_nothing),
      T(tasks_are_counted_and_described), T(stacks_of_a_crowd_go_back_when_it_has_gone))
