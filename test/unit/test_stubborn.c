/* SPDX-License-Identifier: MIT
 *
 * Futures that are only asked to end when they are cancelled, as tasks are: what becomes of those who wait for them. On
 * the virtual poller, so time limits are exact.
 */
#include "harness.h"

#include "core/loop.h"
#include "future/future.h"

static int asked;
static bool obeys;

static void ask(aloop_future_t *future, const char *message) {
  asked++;
  if (obeys) aloop__future_fail(future, ALOOP_ECANCELED, "%s", message != NULL ? message : "asked");
}

static const aloop__future_kind_t stubborn = {.object = {.name = "stubborn",
                                                         .index = ALOOP__FUTURE,
                                                         .describe = aloop__future_describe,
                                                         .destroy = aloop__future_destroy,
                                                         .close = aloop__future_close,
                                                         .resume = aloop__future_resume},
                                              .cancel = ask};

/* One that stays pending until the test ends it. */
static aloop_future_t *make(aloop_t *loop) {
  aloop_future_t *future = aloop_future_new(loop);
  future->object.kind = &stubborn.object;
  aloop__future_set_operation(future, NULL, NULL);
  asked = 0;
  obeys = false;
  return future;
}

static aloop_t *virtual_loop(env_t *env) {
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  return env->loop;
}

static int64_t finish(aloop_t *loop, aloop_future_t *inner, int64_t value, aloop_future_t *outer) {
  assert_false(aloop_future_done(outer));
  if (value >= 0)
    assert_true(aloop__future_finish(inner, value));
  else
    assert_true(aloop__future_fail(inner, (int)value, NULL));
  int64_t result = run_future(loop, outer);
  aloop_future_unref(outer);
  aloop_future_unref(inner);
  return result;
}

/* ---- Alone --------------------------------------------------------------------------------------------------- */

static void a_cancel_asks_each_time(void **state) {
  aloop_future_t *future = make(virtual_loop(*state));
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(asked, 2);
  assert_false(aloop_future_done(future));
  obeys = true;
  assert_int_equal(aloop__future_cancel(future, "enough"), 1);
  assert_true(aloop_future_cancelled(future));
  assert_string_equal(aloop_future_message(future), "enough");
  assert_int_equal(aloop_future_cancel(future), 0);
  assert_int_equal(asked, 3);
  aloop_future_unref(future);
}

static void plain_futures_take_a_message_too(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *future = aloop_future_new(loop);
  assert_int_equal(aloop__future_cancel(future, "not wanted"), 1);
  assert_string_equal(aloop_future_message(future), "not wanted");
  aloop_future_unref(future);
}

static void closing_the_loop_does_not_ask(void **state) {
  env_t *env = *state;
  aloop_future_t *future = make(virtual_loop(env));
  aloop_close(env->loop);
  assert_true(aloop_future_cancelled(future));
  assert_int_equal(asked, 0);
  aloop_future_unref(future);
}

/* ---- gather -------------------------------------------------------------------------------------------------- */

static void a_cancelled_gather_waits_for_all(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *one = make(loop), *two = aloop_future_new(loop), *three = make(loop);
  aloop_future_t *futures[] = {aloop_future_ref(one), two, aloop_future_ref(three)};
  aloop_future_t *outer = aloop_gather(loop, futures, 3, 0);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(asked, 2);
  assert_true(aloop_future_cancelled(two));
  assert_int_equal(run_turn(loop), 1);
  assert_false(aloop_future_done(outer));
  aloop__future_finish(one, 5);
  aloop_future_unref(one);
  run_turn(loop);
  assert_int_equal(finish(loop, three, ALOOP_EIO, outer), ALOOP_ECANCELED);
}

static void a_gather_that_returns_errors_is_cancelled_too(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *one = make(loop);
  aloop_future_ref(one);
  aloop_future_t *outer = aloop_gather(loop, &one, 1, ALOOP_RETURN_ERRORS);
  aloop_future_cancel(outer);
  assert_int_equal(finish(loop, one, 5, outer), ALOOP_ECANCELED);
}

static void a_cancelled_gather_keeps_an_error(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *futures[] = {make(loop), make(loop)};
  aloop_future_ref(futures[0]);
  aloop_future_ref(futures[1]);
  aloop_future_t *outer = aloop_gather(loop, futures, 2, 0);
  aloop_future_cancel(outer);
  aloop__future_fail(futures[1], ALOOP_EIO, "torn");
  aloop_future_unref(futures[1]);
  run_turn(loop);
  aloop_future_ref(outer);
  assert_int_equal(finish(loop, futures[0], ALOOP_ECANCELED, outer), ALOOP_EIO);
  assert_string_equal(aloop_future_message(outer), "torn");
  aloop_future_unref(outer);
}

static void a_gather_whose_children_obey_ends_in_the_next_turn(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *futures[] = {make(loop), make(loop)};
  aloop_future_t *outer = aloop_gather(loop, futures, 2, 0);
  obeys = true;
  assert_int_equal(aloop__future_cancel(outer, "go home"), 1);
  assert_int_equal(run_turn(loop), 2);
  assert_true(aloop_future_cancelled(outer));
  assert_string_equal(aloop_future_message(outer), "go home");
  aloop_future_unref(outer);
}

static void cancelling_gather_again_asks_again(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *one = make(loop);
  aloop_future_ref(one);
  aloop_future_t *outer = aloop_gather(loop, &one, 1, 0);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(asked, 2);
  assert_int_equal(finish(loop, one, 0, outer), ALOOP_ECANCELED);
}

static void closing_the_loop_ends_a_gather_that_waits(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  aloop_future_t *one = make(loop);
  aloop_future_t *outer = aloop_gather(loop, &one, 1, 0);
  aloop_future_cancel(outer);
  aloop_close(loop);
  assert_true(aloop_future_cancelled(outer));
  aloop_future_unref(outer);
}

/* ---- wait_for ------------------------------------------------------------------------------------------------ */

static void the_limit_waits_for_the_end(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_t *outer = aloop_wait_for(aloop_future_ref(inner), 10);
  while (asked == 0) assert_true(aloop_run_once(loop, ALOOP_FOREVER) >= 0);
  run_turn(loop);
  assert_int_equal(finish(loop, inner, ALOOP_ECANCELED, outer), ALOOP_ETIMEDOUT);
}

static void a_result_after_the_limit_is_the_result(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_t *outer = aloop_wait_for(aloop_future_ref(inner), 10);
  while (asked == 0) assert_true(aloop_run_once(loop, ALOOP_FOREVER) >= 0);
  assert_int_equal(finish(loop, inner, 7, outer), 7);
}

static void without_any_time_it_waits_for_the_end_too(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_t *outer = aloop_wait_for(aloop_future_ref(inner), 0);
  assert_int_equal(asked, 1);
  assert_int_equal(finish(loop, inner, ALOOP_ECANCELED, outer), ALOOP_ETIMEDOUT);
}

static void a_cancel_wins_over_the_limit(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_t *outer = aloop_wait_for(aloop_future_ref(inner), 10);
  while (asked == 0) assert_true(aloop_run_once(loop, ALOOP_FOREVER) >= 0);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(asked, 2);
  assert_int_equal(finish(loop, inner, ALOOP_ECANCELED, outer), ALOOP_ECANCELED);
}

static void a_cancelled_wait_for_ends_as_the_operation(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_t *outer = aloop_wait_for(aloop_future_ref(inner), ALOOP_FOREVER);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(asked, 1);
  run_turn(loop);
  assert_int_equal(finish(loop, inner, 3, outer), 3);
}

/* ---- shield, wait, run_until_complete ------------------------------------------------------------------------ */

static void a_cancelled_shield_ends_at_once(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_t *outer = aloop_shield(aloop_future_ref(inner));
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_true(aloop_future_cancelled(outer));
  assert_int_equal(asked, 0);
  aloop__future_finish(inner, 0);
  aloop_future_unref(inner);
  aloop_future_unref(outer);
}

static void a_cancelled_wait_ends_at_once(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_ref(inner);
  aloop_future_t *outer = aloop_wait(loop, &inner, 1, ALOOP_FOREVER, ALOOP_ALL_COMPLETED);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_true(aloop_future_cancelled(outer));
  assert_int_equal(asked, 0);
  aloop__future_finish(inner, 0);
  aloop_future_unref(inner);
  aloop_future_unref(outer);
}

static void end_it(aloop_t *loop, void *future) {
  (void)loop;
  aloop__future_finish(future, 4);
}

static void a_loop_runs_until_it_has_really_ended(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = make(loop);
  aloop_future_cancel(inner);
  aloop_call_later(loop, 10, end_it, inner);
  assert_int_equal(aloop_run_until_complete(loop, inner), 4);
}

TESTS(T(a_cancel_asks_each_time), T(plain_futures_take_a_message_too), T(closing_the_loop_does_not_ask),
      T(a_cancelled_gather_waits_for_all), T(a_gather_that_returns_errors_is_cancelled_too),
      T(a_cancelled_gather_keeps_an_error), T(a_gather_whose_children_obey_ends_in_the_next_turn),
      T(cancelling_gather_again_asks_again), T(closing_the_loop_ends_a_gather_that_waits),
      T(the_limit_waits_for_the_end), T(a_result_after_the_limit_is_the_result),
      T(without_any_time_it_waits_for_the_end_too), T(a_cancel_wins_over_the_limit),
      T(a_cancelled_wait_for_ends_as_the_operation), T(a_cancelled_shield_ends_at_once),
      T(a_cancelled_wait_ends_at_once), T(a_loop_runs_until_it_has_really_ended))
