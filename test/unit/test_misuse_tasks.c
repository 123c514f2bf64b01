/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on tasks, and calls that belong inside of tasks: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"

#include <string.h>

static int64_t nothing(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return 0;
}

/* ---- Making -------------------------------------------------------------------------------------------------- */

static void making(misuse_t *m) {
  aloop_task_options_t unsized = {.size = 0};
  MISTAKE(aloop_create_task(NULL, nothing, NULL, NULL), 0);
  MISTAKE_OF_FUTURE(aloop_create_task(m->loop, NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_task(m->loop, nothing, NULL, &unsized), ALOOP_EINVAL);
}

static void tasks_are_made_with_a_function(void **state) {
  in_both_modes(*state, making);
}

static void contexts_of_others(misuse_t *m) {
  aloop_t *other;
  aloop_options_t quiet = {.size = sizeof quiet, .debug = -1};
  assert_int_equal(aloop_new(&quiet, &other), 0);
  aloop_task_options_t options = {.size = sizeof options};
  assert_int_equal(aloop_context_copy(other, &options.context), 0);
  MISTAKE_OF_FUTURE(aloop_create_task(m->loop, nothing, NULL, &options), ALOOP_EOTHERLOOP);
  aloop_context_unref(options.context);
  aloop_free(other);
}

static void a_context_is_of_the_same_loop(void **state) {
  in_both_modes(*state, contexts_of_others);
}

static void make_eagerly(aloop_t *loop, void *arg) {
  (void)loop;
  misuse_t *m = arg;
  aloop_task_options_t options = {.size = sizeof options, .eager = true, .context = m->arg};
  MISTAKE_OF_FUTURE(aloop_create_task(m->loop, nothing, NULL, &options), ALOOP_EBUSY);
}

static void entered_contexts(misuse_t *m) {
  aloop_context_t *context;
  assert_int_equal(aloop_context_copy(m->loop, &context), 0);
  m->arg = context;
  assert_int_equal(aloop_context_run(m->loop, context, make_eagerly, m), 0);
  aloop_context_unref(context);
}

static void an_eager_task_needs_a_free_context(void **state) {
  in_both_modes(*state, entered_contexts);
}

static void on_a_closed_loop(misuse_t *m) {
  aloop_close(m->loop);
  MISTAKE_OF_FUTURE(aloop_create_task(m->loop, nothing, NULL, NULL), ALOOP_ECLOSED);
}

static void a_closed_loop_has_no_tasks(void **state) {
  in_both_modes_outside(*state, on_a_closed_loop);
}

/* ---- Asking -------------------------------------------------------------------------------------------------- */

static void nulls(misuse_t *m) {
  MISTAKE(aloop_current_task(NULL), 0);
  MISTAKE(aloop_all_tasks(NULL, NULL, 0), 0);
  MISTAKE(aloop_all_tasks(m->loop, NULL, 1), 0);
  MISTAKE(aloop_is_task(NULL), false);
  MISTAKE(strcmp(aloop_task_name(NULL), ""), 0);
  MISTAKE(aloop_task_set_name(NULL, "x"), ALOOP_EINVAL);
  MISTAKE(aloop_task_cancel(NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_task_uncancel(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_task_cancelling(NULL), ALOOP_EINVAL);
}

static void null_is_no_task(void **state) {
  in_both_modes(*state, nulls);
}

static void mere_futures(misuse_t *m) {
  aloop_future_t *future = aloop_future_new(m->loop);
  ORDINARY(aloop_is_task(future), false);
  MISTAKE(strcmp(aloop_task_name(future), ""), 0);
  MISTAKE(aloop_task_set_name(future, "x"), ALOOP_EINVAL);
  MISTAKE(aloop_task_cancel(future, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_task_uncancel(future), ALOOP_EINVAL);
  MISTAKE(aloop_task_cancelling(future), ALOOP_EINVAL);
  aloop_future_unref(future);
}

static void a_future_is_no_task(void **state) {
  in_both_modes(*state, mere_futures);
}

static void ends_from_outside(misuse_t *m) {
  aloop_future_t *task = aloop_create_task(m->loop, nothing, NULL, NULL);
  MISTAKE(aloop_task_set_name(task, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_value(task, 0), ALOOP_EPERM);
  MISTAKE(aloop_future_set_result(task, 0, OUT, NULL), ALOOP_EPERM);
  MISTAKE(aloop_future_set_error(task, ALOOP_EIO, NULL), ALOOP_EPERM);
  MISTAKE(aloop_future_on_cancel(task, NULL, NULL), ALOOP_EPERM);
  aloop_future_unref(task);
}

static void a_task_ends_with_its_function(void **state) {
  in_both_modes(*state, ends_from_outside);
}

/* ---- Awaiting ------------------------------------------------------------------------------------------------ */

static void awaits_outside(misuse_t *m) {
  aloop_future_t *future = aloop_future_new(m->loop);
  MISTAKE(aloop_await_keep(future), ALOOP_EPERM);
  MISTAKE(aloop_await(aloop_future_ref(future)), ALOOP_EPERM);
  MISTAKE(aloop_await_ptr(aloop_future_ref(future), OUT), ALOOP_EPERM);
  MISTAKE(aloop_await(NULL), ALOOP_EPERM);
  MISTAKE(aloop_return_ptr(OUT, NULL), ALOOP_EPERM);
  MISTAKE(aloop_return_error(ALOOP_EIO, NULL), ALOOP_EPERM);
  aloop_future_unref(future);
}

static void only_tasks_await(void **state) {
  in_both_modes(*state, awaits_outside);
}

static int64_t await_wrongly(aloop_t *loop, void *arg) {
  misuse_t *m = arg;
  aloop_t *other;
  aloop_options_t quiet = {.size = sizeof quiet, .debug = -1};
  assert_int_equal(aloop_new(&quiet, &other), 0);
  aloop_future_t *foreign = aloop_future_new(other), *self = aloop_current_task(loop);
  aloop_future_t *done = aloop_future_new(loop);
  aloop_future_set_value(done, 0);
  MISTAKE(aloop_await(aloop_future_ref(self)), ALOOP_EINVAL);
  MISTAKE(aloop_await_keep(foreign), ALOOP_EOTHERLOOP);
  MISTAKE(aloop_await(aloop_future_ref(foreign)), ALOOP_EOTHERLOOP);
  aloop_future_unref(foreign);
  MISTAKE(aloop_await_ptr(aloop_future_ref(done), NULL), ALOOP_EINVAL);
  ORDINARY(aloop_await(NULL), ALOOP_ENOMEM);
  MISTAKE(aloop_return_error(0, "no error"), ALOOP_EINVAL);
  aloop_future_unref(done);
  aloop_free(other);
  return 0;
}

static void awaits_inside(misuse_t *m) {
  aloop_future_t *task = aloop_create_task(m->loop, await_wrongly, m, NULL);
  assert_int_equal(aloop_run_until_complete(m->loop, task), 0);
}

static void a_task_awaits_what_can_end(void **state) {
  in_both_modes_outside(*state, awaits_inside);
}

/* ---- Factories, runners, threads ------------------------------------------------------------------------------ */

static void never(aloop_future_t *task, void *arg) {
  (void)task, (void)arg;
}

static void factories(misuse_t *m) {
  aloop_task_options_t unsized = {.size = 0};
  MISTAKE(aloop_set_task_factory(NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_get_task_factory(NULL, OUT) == NULL, true);
  MISTAKE(aloop_foreign_task_new(NULL, NULL, never, NULL), 0);
  MISTAKE_OF_FUTURE(aloop_foreign_task_new(m->loop, NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_foreign_task_new(m->loop, &unsized, never, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_task_enter(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_task_leave(NULL), ALOOP_EINVAL);
  aloop_future_t *ours = aloop_create_task(m->loop, nothing, NULL, NULL);
  MISTAKE(aloop_task_enter(ours), ALOOP_EINVAL);
  MISTAKE(aloop_task_leave(ours), ALOOP_EINVAL);
  aloop_future_unref(ours);
  aloop_future_t *foreign = aloop_foreign_task_new(m->loop, NULL, never, NULL);
  MISTAKE(aloop_task_leave(foreign), ALOOP_EPERM);
  assert_int_equal(aloop_task_enter(foreign), 0);
  MISTAKE(aloop_task_enter(foreign), ALOOP_EBUSY);
  MISTAKE(aloop_await_keep(foreign), ALOOP_EPERM);
  aloop_future_set_value(foreign, 0);
  assert_int_equal(aloop_task_leave(foreign), 0);
  MISTAKE(aloop_task_enter(foreign), ALOOP_EDONE);
  aloop_future_unref(foreign);
}

static void foreign_tasks_have_a_way_to_end(void **state) {
  in_both_modes(*state, factories);
}

static void runs(misuse_t *m) {
  MISTAKE(aloop_run(nothing, NULL, NULL), ALOOP_ERUNNING);
  MISTAKE(aloop_run_coroutine_threadsafe(NULL, nothing, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_run_coroutine_threadsafe(m->loop, NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_run_coroutine_threadsafe(m->loop, nothing, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_sync_wait(NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_sync_cancel(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_sync_done(NULL), true);
  ORDINARY(aloop_sync_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_sync_unref(NULL));
  MISTAKE(aloop_to_thread(NULL, NULL, NULL), 0);
  MISTAKE_OF_FUTURE(aloop_to_thread(m->loop, NULL, NULL), ALOOP_EINVAL);
}

static void a_loop_runs_alone_in_its_thread(void **state) {
  in_both_modes(*state, runs);
}

static void wait_wrongly(aloop_t *loop, void *arg) {
  (void)loop;
  misuse_t *m = arg;
  aloop_sync_future_t *future = m->arg;
  MISTAKE(aloop_sync_wait(future, ALOOP_FOREVER), ALOOP_EPERM);
  MISTAKE(aloop_sync_wait(future, -5), ALOOP_EINVAL);
  ORDINARY(aloop_sync_wait(future, 0), ALOOP_ETIMEDOUT);
}

static void waits(misuse_t *m) {
  aloop_sync_future_t *future;
  assert_int_equal(aloop_run_coroutine_threadsafe(m->loop, nothing, NULL, &future), 0);
  m->arg = future;
  aloop_call_soon(m->loop, wait_wrongly, m);
  while (!aloop_sync_done(future)) aloop_run_once(m->loop, 0);
  aloop_sync_unref(future);
}

static void a_loop_does_not_wait_for_itself(void **state) {
  in_both_modes_outside(*state, waits);
}

static void wrong_runs(misuse_t *m) {
  aloop_run_options_t unsized = {.size = 0}, impatient = {.size = sizeof impatient, .executor_timeout = -2};
  ORDINARY(aloop_run(nothing, NULL, &unsized), ALOOP_EINVAL); /* there is no loop to tell */
  ORDINARY(aloop_run(nothing, NULL, &impatient), ALOOP_EINVAL);
}

static void a_run_has_options_that_make_sense(void **state) {
  in_both_modes_outside(*state, wrong_runs);
}

/* ---- Threads ------------------------------------------------------------------------------------------------- */

static void from_a_thread(misuse_t *m) {
  if (!m->debug) return; /* only debug mode looks */
  aloop_future_t *task = m->arg;
  MISTAKE(aloop_create_task(m->loop, nothing, NULL, NULL), 0);
  MISTAKE(aloop_current_task(m->loop), 0);
  MISTAKE(aloop_all_tasks(m->loop, NULL, 0), 0);
  MISTAKE(strcmp(aloop_task_name(task), ""), 0);
  MISTAKE(aloop_task_set_name(task, "x"), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_task_cancel(task, NULL), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_task_uncancel(task), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_task_cancelling(task), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_await(task), ALOOP_ENOTLOOPTHREAD);
}

static void threads(misuse_t *m) {
  m->arg = aloop_create_task(m->loop, nothing, NULL, NULL);
  misuse_in_thread(m, from_a_thread);
  aloop_future_unref(m->arg);
}

static void other_threads_keep_off(void **state) {
  in_both_modes_outside(*state, threads);
}

TESTS(T(tasks_are_made_with_a_function), T(a_context_is_of_the_same_loop),
      T(an_eager_task_needs_a_free_context), T(a_closed_loop_has_no_tasks), T(null_is_no_task),
      T(a_future_is_no_task), T(a_task_ends_with_its_function), T(only_tasks_await),
      T(a_task_awaits_what_can_end), T(other_threads_keep_off), T(foreign_tasks_have_a_way_to_end),
      T(a_loop_runs_alone_in_its_thread), T(a_loop_does_not_wait_for_itself),
      T(a_run_has_options_that_make_sense))
