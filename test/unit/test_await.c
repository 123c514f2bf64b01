/* SPDX-License-Identifier: MIT
 *
 * await: what a task waits for, what it gets, and what goes back when it is cancelled in the wrong moment.
 * pollers: all
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "future/future.h"

static int released;

static void count_release(void *value) {
  (void)value;
  released++;
}

static int64_t wait_for_it(aloop_t *loop, void *arg) {
  (void)loop;
  return aloop_await(aloop_future_ref(arg));
}

static int64_t run(env_t *env, aloop_task_fn fn, void *arg) {
  return aloop_run_until_complete(env->loop, aloop_create_task(env->loop, fn, arg, NULL));
}

static int64_t await_what_is_done(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_metrics(loop, &metrics);
  uint64_t turns = metrics.turns;
  for (int i = 0; i < 100; i++) {
    aloop_future_t *future = aloop_future_new(loop);
    aloop_future_set_value(future, i);
    assert_int_equal(aloop_await(future), i);
  }
  aloop_metrics(loop, &metrics);
  assert_int_equal(metrics.turns, turns);
  return 0;
}

static void what_is_done_takes_no_turn(void **state) {
  assert_int_equal(run(*state, await_what_is_done, NULL), 0);
}

static int64_t add_up(aloop_t *loop, void *arg) {
  int64_t sum = 0;
  for (int i = 0; i < *(int *)arg; i++) {
    sum += aloop_await(aloop_sleep(loop, 0)) + 1;
  }
  return sum;
}

static void it_waits_again_and_again(void **state) {
  int times = 1000;
  assert_int_equal(run(*state, add_up, &times), 1000);
}

static void errors_come_back_and_count_as_read(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  assert_int_equal(run(env, wait_for_it, future), ALOOP_EIO);
  aloop_future_unref(future);
  assert_int_equal(env->reports, 0);
}

static void many_may_wait_for_one(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop), *tasks[10];
  for (int i = 0; i < 10; i++) tasks[i] = aloop_create_task(env->loop, wait_for_it, future, NULL);
  run_turn(env->loop);
  aloop_future_set_value(future, 3);
  run_turn(env->loop);
  for (int i = 0; i < 10; i++) {
    assert_int_equal(aloop_future_result(tasks[i]), 3);
    aloop_future_unref(tasks[i]);
  }
  aloop_future_unref(future);
}

static int64_t take_object(aloop_t *loop, void *arg) {
  aloop_future_t *future = aloop_future_new(loop);
  aloop_future_set_result(future, 2, arg, count_release);
  void *object = NULL;
  assert_int_equal(aloop_await_ptr(aloop_future_ref(future), &object), 0);
  assert_ptr_equal(object, arg);
  assert_int_equal(aloop_await_ptr(future, &object), ALOOP_ENOENT);
  object = NULL;
  assert_int_equal(aloop_await_ptr(aloop_sleep(loop, 0), &object), ALOOP_ENOENT);
  assert_null(object);
  return 0;
}

static void an_object_is_taken_over(void **state) {
  released = 0;
  assert_int_equal(run(*state, take_object, &released), 0);
  assert_int_equal(released, 0);
}

static int64_t keep_it(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_future_t *future = aloop_future_new(loop);
  aloop_future_set_error(future, ALOOP_EIO, "in words");
  assert_int_equal(aloop_await_keep(future), ALOOP_EIO);
  assert_string_equal(aloop_future_message(future), "in words");
  aloop_future_unref(future);
  return 0;
}

static void the_reference_may_be_kept(void **state) {
  assert_int_equal(run(*state, keep_it, NULL), 0);
}

static int64_t await_nothing(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  assert_int_equal(aloop_await_keep(NULL), ALOOP_ENOMEM);
  assert_int_equal(aloop_await_ptr(NULL, &arg), ALOOP_ENOMEM);
  return aloop_await(NULL);
}

static void no_future_means_out_of_memory(void **state) {
  assert_int_equal(run(*state, await_nothing, NULL), ALOOP_ENOMEM);
}

/* ---- Wrong places -------------------------------------------------------------------------------------------- */

static void outside_of_tasks_nobody_awaits(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_await_keep(future), ALOOP_EPERM);
  assert_int_equal(aloop_await(aloop_future_ref(future)), ALOOP_EPERM);
  assert_int_equal(aloop_return_ptr(NULL, NULL), ALOOP_EPERM);
  assert_int_equal(aloop_return_error(ALOOP_EIO, "x"), ALOOP_EPERM);
  aloop_future_unref(future);
}

static int64_t await_itself(aloop_t *loop, void *arg) {
  (void)arg;
  return aloop_await(aloop_future_ref(aloop_current_task(loop)));
}

static void nobody_awaits_itself(void **state) {
  assert_int_equal(run(*state, await_itself, NULL), ALOOP_EINVAL);
}

static void nobody_awaits_futures_of_others(void **state) {
  env_t *env = *state;
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  aloop_future_t *future = aloop_future_new(other);
  assert_int_equal(run(env, wait_for_it, future), ALOOP_EOTHERLOOP);
  aloop_future_unref(future);
  aloop_free(other);
}

/* ---- A cancel between the end and the wake-up ---------------------------------------------------------------- */

/* The future ends and in the same moment the task is cancelled. Returns what the task ends with. */
static int64_t end_and_cancel(env_t *env, aloop_future_t *future, int64_t value) {
  released = 0;
  aloop_future_t *task = aloop_create_task(env->loop, wait_for_it, future, NULL);
  run_turn(env->loop);
  if (value < 0)
    aloop_future_set_error(future, (int)value, NULL);
  else
    assert_true(aloop__future_finish_owned(future, value, count_release));
  aloop_future_unref(future);
  assert_int_equal(aloop_future_cancel(task), 1);
  int64_t result = run_future(env->loop, task);
  aloop_future_unref(task);
  return result;
}

static void what_came_too_late_goes_back(void **state) {
  env_t *env = *state;
  assert_int_equal(end_and_cancel(env, aloop_future_new(env->loop), 5), ALOOP_ECANCELED);
  assert_int_equal(released, 1);
}

static void an_error_that_came_too_late_is_no_report(void **state) {
  env_t *env = *state;
  assert_int_equal(end_and_cancel(env, aloop_future_new(env->loop), ALOOP_EIO), ALOOP_ECANCELED);
  assert_int_equal(env->reports, 0);
}

static int64_t cancel_in_advance(aloop_t *loop, void *arg) {
  aloop_task_cancel(aloop_current_task(loop), "in advance");
  int64_t rc = aloop_await_keep(arg);
  assert_string_equal(aloop_future_message(arg), "in advance");
  return rc;
}

static void a_request_cancels_what_is_awaited_next(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(run(env, cancel_in_advance, future), ALOOP_ECANCELED);
  assert_true(aloop_future_cancelled(future));
  aloop_future_unref(future);
}

static void out_of_memory_is_an_answer(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *one = aloop_create_task(env->loop, wait_for_it, future, NULL);
  run_turn(env->loop); /* the first callback needs no memory, the second does */
  aloop_future_t *two = aloop_create_task(env->loop, wait_for_it, future, NULL);
  run_turn(env->loop);
  aloop_future_t *three = aloop_create_task(env->loop, wait_for_it, future, NULL);
  aloop_future_t *four = aloop_create_task(env->loop, wait_for_it, future, NULL);
  run_turn(env->loop);
  aloop_future_t *five = aloop_create_task(env->loop, wait_for_it, future, NULL);
  env->fail_from = 1;
  run_turn(env->loop);
  env->fail_from = 0;
  assert_int_equal(aloop_future_result(five), ALOOP_ENOMEM);
  assert_false(aloop_future_done(future));
  aloop_future_set_value(future, 1);
  aloop_future_t *tasks[] = {one, two, three, four};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(run_future(env->loop, tasks[i]), 1);
    aloop_future_unref(tasks[i]);
  }
  aloop_future_unref(five);
  aloop_future_unref(future);
}

/* ---- Whose turn it is ---------------------------------------------------------------------------------------- */

typedef struct actor {
  char *text; /* what all have noted */
  char letter;
  aloop_future_t *awaited, *next;
} actor_t;

static void note(actor_t *actor, char letter) {
  size_t length = strlen(actor->text);
  actor->text[length] = letter;
  actor->text[length + 1] = '\0';
}

static int64_t pause_once(aloop_t *loop, void *arg) {
  actor_t *actor = arg;
  int64_t rc = aloop_await(aloop_sleep(loop, 0));
  note(actor, rc < 0 ? 'x' : actor->letter);
  if (actor->next != NULL) aloop_future_cancel(actor->next);
  return rc;
}

static int64_t note_end(aloop_t *loop, void *arg) {
  actor_t *actor = arg;
  (void)loop;
  int64_t rc = aloop_await(actor->awaited);
  note(actor, rc < 0 ? 'x' : actor->letter);
  return rc;
}

/* A single turn, as a bare yield in asyncio; a cancel does not change whose turn it is. */
static void a_pause_is_one_turn(void **state) {
  env_t *env = *state;
  char text[8] = "";
  actor_t actors[] = {{text, 'a', .next = NULL}, {text, 'b', .next = NULL}, {text, 'c', .next = NULL}};
  aloop_future_t *tasks[3];
  for (int i = 0; i < 3; i++) tasks[i] = aloop_create_task(env->loop, pause_once, &actors[i], NULL);
  actors[0].next = tasks[1];
  run_turn(env->loop);
  assert_string_equal(text, "");
  run_turn(env->loop);
  assert_string_equal(text, "axc");
  for (int i = 0; i < 3; i++) assert_int_equal(aloop_future_result(tasks[i]), i == 1 ? ALOOP_ECANCELED : 0);
  for (int i = 0; i < 3; i++) aloop_future_unref(tasks[i]);
}

/* As if there were no wait_for in between. */
static void wait_for_costs_no_turn(void **state) {
  env_t *env = *state;
  char text[8] = "";
  aloop_future_t *future = aloop_future_new(env->loop), *tasks[3];
  actor_t actors[] = {{text, 'a', .awaited = aloop_future_ref(future)},
                      {text, 'b', .awaited = aloop_wait_for(aloop_future_ref(future), ALOOP_FOREVER)},
                      {text, 'c', .awaited = aloop_future_ref(future)}};
  for (int i = 0; i < 3; i++) tasks[i] = aloop_create_task(env->loop, note_end, &actors[i], NULL);
  run_turn(env->loop);
  aloop_future_set_value(future, 1);
  run_turn(env->loop);
  assert_int_equal(strlen(text), 3);
  for (int i = 0; i < 3; i++) assert_int_equal(aloop_future_result(tasks[i]), 1);
  for (int i = 0; i < 3; i++) aloop_future_unref(tasks[i]);
  aloop_future_unref(future);
}

TESTS(T(what_is_done_takes_no_turn), T(it_waits_again_and_again), T(errors_come_back_and_count_as_read),
      T(many_may_wait_for_one), T(an_object_is_taken_over), T(the_reference_may_be_kept),
      T(no_future_means_out_of_memory), T(outside_of_tasks_nobody_awaits), T(nobody_awaits_itself),
      T(nobody_awaits_futures_of_others), T(what_came_too_late_goes_back),
      T(an_error_that_came_too_late_is_no_report), T(a_request_cancels_what_is_awaited_next),
      T(out_of_memory_is_an_answer), T(a_pause_is_one_turn), T(wait_for_costs_no_turn))
