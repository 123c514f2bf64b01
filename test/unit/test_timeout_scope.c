/* SPDX-License-Identifier: MIT
 *
 * Time limits as scopes: whose cancel it was, nesting, moving, and races with others who cancel.
 * pollers: all
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "future/future.h"

#define MS ALOOP_MILLIS(1)

static int64_t run(env_t *env, aloop_task_fn fn, void *arg) {
  return aloop_run_until_complete(env->loop, aloop_create_task(env->loop, fn, arg, NULL));
}

static int64_t nap(aloop_t *loop, int64_t delay) {
  return aloop_await(aloop_sleep(loop, delay));
}

/* What a task sees of the requests to cancel it. */
static int cancelling(aloop_t *loop) {
  return aloop_task_cancelling(aloop_current_task(loop));
}

static void cancel_task(aloop_t *loop, void *task) {
  (void)loop;
  aloop_future_cancel(task);
}

/* ---- One scope ------------------------------------------------------------------------------------------- */

static int64_t in_time(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t scope;
  assert_int_equal(aloop_timeout_begin(&scope, ALOOP_SECONDS(1000)), 0);
  int64_t rc = aloop_timeout_end(&scope, nap(loop, MS));
  assert_int_equal(rc, 0);
  assert_false(aloop_timeout_expired(&scope));
  assert_int_equal(aloop_timeout_begin(&scope, ALOOP_SECONDS(1000)), 0);
  assert_int_equal(aloop_timeout_end(&scope, 7), 7);
  assert_int_equal(aloop_timeout_begin(&scope, ALOOP_SECONDS(1000)), 0);
  return aloop_timeout_end(&scope, ALOOP_EIO);
}

static void what_is_done_in_time_keeps_its_result(void **state) {
  env_t *env = *state;
  assert_int_equal(run(env, in_time, NULL), ALOOP_EIO);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.timers, 0);
}

static int64_t too_late(aloop_t *loop, void *arg) {
  aloop_timeout_t scope;
  int64_t begun = aloop_time(loop), delay = *(int64_t *)arg;
  assert_int_equal(aloop_timeout_begin(&scope, delay), 0);
  int64_t rc = nap(loop, ALOOP_SECONDS(1000));
  assert_int_equal(rc, ALOOP_ECANCELED);
  assert_int_equal(cancelling(loop), 1);
  assert_true(aloop_timeout_expired(&scope));
  rc = aloop_timeout_end(&scope, rc);
  assert_int_equal(rc, ALOOP_ETIMEDOUT);
  assert_true(aloop_timeout_expired(&scope));
  assert_int_equal(cancelling(loop), 0);
  assert_true(aloop_time(loop) >= begun + (delay > 0 ? delay : 0));
  return nap(loop, 0);
}

static void a_limit_cancels_and_is_told_apart(void **state) {
  int64_t delays[] = {2 * MS, 1, 0, -2, INT64_MIN};
  for (int i = 0; i < 5; i++) assert_int_equal(run(*state, too_late, &delays[i]), 0);
}

static int64_t over_before_it_began(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t scope;
  assert_int_equal(aloop_timeout_begin_at(&scope, aloop_time(loop) - 5), 0);
  assert_int_equal(aloop_timeout_when(&scope), aloop_time(loop) - 5);
  aloop_future_t *done = aloop_future_new(loop);
  aloop_future_set_value(done, 3);
  assert_int_equal(aloop_await(done), 3); /* does not wait, so it is not cancelled */
  assert_false(aloop_timeout_expired(&scope));
  return aloop_timeout_end(&scope, nap(loop, ALOOP_SECONDS(1000)));
}

static void a_deadline_that_has_passed_cancels_the_next_wait(void **state) {
  assert_int_equal(run(*state, over_before_it_began, NULL), ALOOP_ETIMEDOUT);
}

static int64_t other_results(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t scope;
  int64_t results[] = {0, 7, ALOOP_EIO, ALOOP_ETIMEDOUT};
  for (int i = 0; i < 4; i++) {
    aloop_timeout_begin(&scope, 0);
    assert_int_equal(nap(loop, ALOOP_SECONDS(1000)), ALOOP_ECANCELED);
    assert_int_equal(aloop_timeout_end(&scope, results[i]), results[i]);
    assert_int_equal(cancelling(loop), 0);
  }
  return 0;
}

static void only_a_cancel_becomes_a_timeout(void **state) {
  assert_int_equal(run(*state, other_results, NULL), 0);
}

/* The time is over while the task runs, and the scope ends before it waits again. */
static int64_t expire_unheard(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t scope;
  aloop_future_t *tick = aloop_future_new(loop);
  aloop_timeout_begin(&scope, 0);
  aloop_future_set_value(tick, 1);
  aloop_future_t *later = aloop_shield(aloop_future_ref(tick));
  aloop_future_unref(tick);
  aloop_await(later);
  int64_t rc = nap(loop, 0);
  rc = aloop_timeout_end(&scope, 5);
  assert_int_equal(rc, 5);
  assert_int_equal(nap(loop, 0), 0);
  return cancelling(loop);
}

static void a_scope_takes_its_request_back_in_any_case(void **state) {
  assert_int_equal(run(*state, expire_unheard, NULL), 0);
}

static int64_t forever(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t scope;
  assert_int_equal(aloop_timeout_begin(&scope, ALOOP_FOREVER), 0);
  assert_int_equal(aloop_timeout_when(&scope), ALOOP_FOREVER);
  int64_t rc = aloop_timeout_end(&scope, nap(loop, 2 * MS));
  assert_int_equal(aloop_timeout_begin(&scope, INT64_MAX), 0);
  assert_int_equal(aloop_timeout_when(&scope), INT64_MAX);
  return aloop_timeout_end(&scope, rc);
}

static void there_may_be_no_limit(void **state) {
  assert_int_equal(run(*state, forever, NULL), 0);
}

/* ---- Moving ---------------------------------------------------------------------------------------------- */

static int64_t move(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t scope;
  aloop_timeout_begin(&scope, ALOOP_FOREVER);
  assert_int_equal(aloop_timeout_reschedule(&scope, aloop_time(loop) + ALOOP_SECONDS(1000)), 0);
  assert_int_equal(aloop_timeout_reschedule(&scope, ALOOP_FOREVER), 0);
  assert_int_equal(aloop_timeout_reschedule(&scope, aloop_time(loop) + ALOOP_SECONDS(1000)), 0);
  assert_int_equal(aloop_timeout_reschedule(&scope, aloop_time(loop)), 0);
  assert_int_equal(aloop_timeout_reschedule(&scope, aloop_time(loop) + ALOOP_SECONDS(1000)), 0);
  assert_int_equal(nap(loop, 0), 0);
  int64_t when = aloop_time(loop) + MS;
  assert_int_equal(aloop_timeout_reschedule(&scope, when), 0);
  assert_int_equal(aloop_timeout_when(&scope), when);
  assert_int_equal(nap(loop, ALOOP_SECONDS(1000)), ALOOP_ECANCELED);
  assert_true(aloop_time(loop) >= when);
  assert_int_equal(aloop_timeout_reschedule(&scope, when + 1), ALOOP_EDONE);
  assert_int_equal(aloop_timeout_when(&scope), when);
  return aloop_timeout_end(&scope, ALOOP_ECANCELED);
}

static void a_deadline_can_be_moved(void **state) {
  assert_int_equal(run(*state, move, NULL), ALOOP_ETIMEDOUT);
}

/* ---- Nesting --------------------------------------------------------------------------------------------- */

typedef struct nested {
  int64_t outer, inner; /* delays */
  int64_t after_inner;  /* what the inner end answered, */
  int64_t after_outer;  /* ... the outer one, when given that */
} nested_t;

static int64_t nest(aloop_t *loop, void *arg) {
  nested_t *n = arg;
  aloop_timeout_t outer, inner;
  int64_t now = aloop_time(loop);
  aloop_timeout_begin_at(&outer, now + n->outer);
  aloop_timeout_begin_at(&inner, now + n->inner);
  n->after_inner = aloop_timeout_end(&inner, nap(loop, ALOOP_SECONDS(1000)));
  n->after_outer = aloop_timeout_end(&outer, n->after_inner);
  return cancelling(loop);
}

static void the_inner_limit_is_not_the_outer_one(void **state) {
  nested_t n = {.outer = ALOOP_SECONDS(1000), .inner = MS};
  assert_int_equal(run(*state, nest, &n), 0);
  assert_int_equal(n.after_inner, ALOOP_ETIMEDOUT);
  assert_int_equal(n.after_outer, ALOOP_ETIMEDOUT); /* an error of the inner scope by then */
}

static void the_outer_limit_passes_through_the_inner_one(void **state) {
  nested_t n = {.outer = MS, .inner = ALOOP_SECONDS(1000)};
  assert_int_equal(run(*state, nest, &n), 0);
  assert_int_equal(n.after_inner, ALOOP_ECANCELED);
  assert_int_equal(n.after_outer, ALOOP_ETIMEDOUT);
}

static void with_equal_deadlines_the_outer_one_has_it(void **state) {
  int64_t delays[] = {MS, 0, -1};
  for (int i = 0; i < 3; i++) {
    nested_t n = {.outer = delays[i], .inner = delays[i]};
    assert_int_equal(run(*state, nest, &n), 0);
    assert_int_equal(n.after_inner, ALOOP_ECANCELED);
    assert_int_equal(n.after_outer, ALOOP_ETIMEDOUT);
  }
}

static int64_t go_on_after_inner(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t outer, inner;
  aloop_timeout_begin(&outer, ALOOP_SECONDS(1000));
  for (int i = 0; i < 3; i++) {
    aloop_timeout_begin(&inner, MS / 10);
    assert_int_equal(aloop_timeout_end(&inner, nap(loop, ALOOP_SECONDS(1000))), ALOOP_ETIMEDOUT);
  }
  return aloop_timeout_end(&outer, nap(loop, 0));
}

static void work_goes_on_after_an_inner_timeout(void **state) {
  assert_int_equal(run(*state, go_on_after_inner, NULL), 0);
}

/* ---- Others who cancel ----------------------------------------------------------------------------------- */

static int64_t limited(aloop_t *loop, void *arg) {
  aloop_timeout_t scope;
  aloop_timeout_begin(&scope, *(int64_t *)arg);
  return aloop_timeout_end(&scope, nap(loop, ALOOP_SECONDS(1000)));
}

static void a_cancel_from_outside_stays_a_cancel(void **state) {
  env_t *env = *state;
  int64_t delay = ALOOP_SECONDS(500);
  aloop_future_t *task = aloop_create_task(env->loop, limited, &delay, NULL);
  run_turn(env->loop);
  assert_int_equal(aloop_future_cancel(task), 1);
  assert_int_equal(run_future(env->loop, task), ALOOP_ECANCELED);
  aloop_future_unref(task);
}

/* Both in one turn, in either order: the task was cancelled by more than its scope. */
static void a_cancel_in_the_moment_of_the_timeout_wins(void **state) {
  env_t *env = *state;
  int64_t none = 0;
  for (int first = 0; first < 2; first++) {
    aloop_future_t *task = aloop_create_task(env->loop, limited, &none, NULL);
    if (first) aloop_call_soon(env->loop, cancel_task, task); /* after its first step, before its timer */
    run_turn(env->loop);
    if (!first) aloop_call_soon(env->loop, cancel_task, task);
    assert_int_equal(run_future(env->loop, task), ALOOP_ECANCELED);
    assert_int_equal(aloop_task_cancelling(task), 1);
    aloop_future_unref(task);
  }
}

static int64_t already_cancelled(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_timeout_t scope;
  assert_int_equal(nap(loop, ALOOP_SECONDS(1000)), ALOOP_ECANCELED);
  assert_int_equal(cancelling(loop), 1);
  aloop_timeout_begin(&scope, 0);
  int64_t rc = aloop_timeout_end(&scope, nap(loop, ALOOP_SECONDS(1000)));
  assert_int_equal(cancelling(loop), 1);
  return rc;
}

/* Tidying up under a limit, inside a task that is being cancelled. */
static void a_scope_counts_from_its_beginning(void **state) {
  env_t *env = *state;
  aloop_future_t *task = aloop_create_task(env->loop, already_cancelled, NULL, NULL);
  run_turn(env->loop);
  aloop_future_cancel(task);
  assert_int_equal(run_future(env->loop, task), ALOOP_ETIMEDOUT);
  aloop_future_unref(task);
}

/* ---- What may go wrong ----------------------------------------------------------------------------------- */

static int64_t forget_the_end(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_timeout_t scope;
  *(aloop_future_t **)arg = NULL;
  aloop_timeout_begin(&scope, 1);
  *(aloop_future_t **)arg = scope.inside;
  return 3;
}

static void a_forgotten_scope_does_no_harm(void **state) {
  env_t *env = *state;
  aloop_future_t *inside;
  aloop_future_t *task = aloop_create_task(env->loop, forget_the_end, &inside, NULL);
  assert_int_equal(run_future(env->loop, task), 3);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_sleep(env->loop, 2 * MS)), 0);
  assert_int_equal(aloop_future_result(task), 3);
  /* What it has cost. */
  aloop_future_unref(inside);
  aloop_future_unref(task);
  aloop_future_unref(task);
}

static int64_t wait_in_scope(aloop_t *loop, void *arg) {
  aloop_timeout_t scope;
  aloop_timeout_begin(&scope, ALOOP_SECONDS(1000));
  *(int64_t *)arg = aloop_timeout_end(&scope, nap(loop, ALOOP_SECONDS(1000)));
  return *(int64_t *)arg;
}

static void scopes_end_with_their_loop(void **state) {
  env_t *env = *state;
  int64_t result = 0;
  aloop_future_detach(aloop_create_task(env->loop, wait_in_scope, &result, NULL));
  run_turn(env->loop);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(result, ALOOP_ECLOSED);
}

static int64_t without_memory(aloop_t *loop, void *arg) {
  env_t *env = arg;
  aloop_timeout_t scope;
  env->fail_from = env->calls + 1;
  int rc = aloop_timeout_begin(&scope, ALOOP_SECONDS(1000));
  env->fail_from = 0;
  assert_int_equal(rc, ALOOP_ENOMEM);
  assert_int_equal(nap(loop, 0), 0);
  assert_int_equal(aloop_timeout_end(&scope, ALOOP_EIO), ALOOP_EIO);
  assert_int_equal(aloop_timeout_end(&scope, 5), ALOOP_ENOMEM);
  return 0;
}

static void an_ignored_failure_to_begin_comes_back_at_the_end(void **state) {
  env_t *env = *state;
  assert_int_equal(run(env, without_memory, env), 0);
}

static int64_t steady(aloop_t *loop, void *arg) {
  env_t *env = arg;
  aloop_timeout_t scope;
  long calls = 0;
  for (int i = 0; i < 100; i++) {
    if (i == 1) calls = env->calls;
    aloop_timeout_begin(&scope, i % 2 ? 0 : ALOOP_SECONDS(1000));
    int64_t rc = aloop_timeout_end(&scope, nap(loop, i % 2 ? ALOOP_SECONDS(1000) : 0));
    assert_int_equal(rc, i % 2 ? ALOOP_ETIMEDOUT : 0);
    if (i == 1) calls = env->calls;
  }
  assert_int_equal(env->calls, calls);
  return 0;
}

static void steady_use_allocates_nothing(void **state) {
  assert_int_equal(run(*state, steady, *state), 0);
}

TESTS(T(what_is_done_in_time_keeps_its_result), T(a_limit_cancels_and_is_told_apart),
      T(a_deadline_that_has_passed_cancels_the_next_wait), T(only_a_cancel_becomes_a_timeout),
      T(a_scope_takes_its_request_back_in_any_case), T(there_may_be_no_limit), T(a_deadline_can_be_moved),
      T(the_inner_limit_is_not_the_outer_one), T(the_outer_limit_passes_through_the_inner_one),
      T(with_equal_deadlines_the_outer_one_has_it), T(work_goes_on_after_an_inner_timeout),
      T(a_cancel_from_outside_stays_a_cancel), T(a_cancel_in_the_moment_of_the_timeout_wins),
      T(a_scope_counts_from_its_beginning), T(a_forgotten_scope_does_no_harm), T(scopes_end_with_their_loop),
      T(an_ignored_failure_to_begin_comes_back_at_the_end), T(steady_use_allocates_nothing))
