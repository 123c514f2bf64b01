/* SPDX-License-Identifier: MIT
 *
 * sleep, wait_for and shield, on the virtual poller: exact and instant.
 */
#include "harness.h"

#include "core/loop.h"
#include "future/future.h"

static aloop_t *virtual_loop(env_t *env) {
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  return env->loop;
}

static void count_stop(aloop_future_t *future, void *arg) {
  (void)future;
  ++*(int *)arg;
}

static void count_destroy(void *arg) {
  ++*(int *)arg;
}

/* ---- sleep --------------------------------------------------------------------------------------------------- */

static void sleep_takes_as_long_as_asked(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int64_t delays[] = {1, 999, ALOOP_MILLIS(1), ALOOP_SECONDS(1.5), ALOOP_SECONDS(86400)};
  for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
    int64_t begun = aloop_time(loop);
    aloop_future_t *future = aloop_sleep(loop, delays[i]);
    assert_int_equal(run_future(loop, future), 0);
    assert_int_equal(aloop_time(loop) - begun, delays[i]);
    aloop_future_unref(future);
  }
}

static void sleeping_for_nothing_takes_one_turn(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int64_t delays[] = {0, -1, INT64_MIN};
  for (int i = 0; i < 3; i++) {
    aloop_future_t *future = aloop_sleep(loop, delays[i]);
    assert_false(aloop_future_done(future));
    assert_int_equal(aloop_next_timeout(loop), 0);
    run_turn(loop);
    assert_int_equal(aloop_future_result(future), 0);
    aloop_future_unref(future);
  }
}

static void sleeping_for_ever_does_not_overflow(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *future = aloop_sleep(loop, INT64_MAX);
  run_turn(loop);
  assert_false(aloop_future_done(future));
  aloop_future_unref(future);
}

static void cancelling_a_sleep_removes_its_timer(void **state) {
  aloop_t *loop = virtual_loop(*state);
  for (int64_t delay = 0; delay < 2; delay++) {
    aloop_future_t *future = aloop_sleep(loop, delay);
    assert_int_equal(aloop_future_cancel(future), 1);
    assert_int_equal(loop->timers.live, 0);
    assert_int_equal(aloop_run_once(loop, 0), 0);
    assert_true(aloop_future_cancelled(future));
    aloop_future_unref(future);
  }
}

static void ending_a_sleep_from_outside_removes_its_timer(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *future = aloop_sleep(loop, ALOOP_SECONDS(1));
  assert_int_equal(aloop_future_set_value(future, 3), 0);
  assert_int_equal(loop->timers.live, 0);
  assert_int_equal(aloop_future_result(future), 3);
  aloop_future_unref(future);
}

static void a_detached_sleep_runs_or_ends_with_the_loop(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_detach(aloop_sleep(loop, 5));
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
  aloop_future_detach(aloop_sleep(loop, 5));
  aloop_future_detach(aloop_sleep(loop, 0));
}

static void sleeps_end_in_the_order_they_were_made(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *futures[50];
  for (int i = 0; i < 50; i++) futures[i] = aloop_sleep(loop, 100 + i / 10);
  for (int i = 0; i < 50; i += 10) {
    aloop_run_once(loop, ALOOP_FOREVER);
    for (int j = 0; j < 50; j++) assert_int_equal(aloop_future_done(futures[j]), j < i + 10);
  }
  for (int i = 0; i < 50; i++) aloop_future_unref(futures[i]);
}

static void on_no_loop_there_is_no_sleep(void **state) {
  env_t *env = *state;
  assert_null(aloop_sleep(NULL, 1));
  aloop_close(env->loop);
  aloop_future_t *future = aloop_sleep(env->loop, 1);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
}

/* ---- wait_for ------------------------------------------------------------------------------------------------ */

static void wait_for_forwards_the_value(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_wait_for(inner, ALOOP_SECONDS(1));
  assert_ptr_equal(aloop_future_child(outer, 0), inner);
  aloop_future_set_value(inner, 9);
  run_turn(loop);
  assert_int_equal(aloop_future_result(outer), 9);
  assert_int_equal(loop->timers.live, 0);
  aloop_future_unref(outer);
}

static void wait_for_forwards_the_error(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_wait_for(aloop_future_ref(inner), ALOOP_SECONDS(1));
  aloop_future_set_error(inner, ALOOP_EIO, "why");
  aloop_future_unref(inner);
  run_turn(loop);
  assert_string_equal(aloop_future_message(outer), "why");
  assert_int_equal(aloop_future_result(outer), ALOOP_EIO);
  aloop_future_unref(outer);
  assert_int_equal(env->reports, 0);
}

static void a_forwarded_error_that_nobody_reads_is_reported_once(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_wait_for(aloop_shield(aloop_future_ref(inner)), ALOOP_SECONDS(1));
  aloop_future_set_error(inner, ALOOP_EIO, "why");
  aloop_future_unref(inner);
  run_turn(loop);
  run_turn(loop);
  aloop_future_unref(outer);
  assert_int_equal(env->reports, 1);
  assert_string_equal(env->report_messages[0], "future error was never retrieved: why");
}

static void the_limit_cancels_the_operation(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int stops = 0;
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_on_cancel(inner, count_stop, &stops);
  int64_t begun = aloop_time(loop);
  aloop_future_t *outer = aloop_wait_for(inner, ALOOP_MILLIS(250));
  assert_int_equal(run_future(loop, outer), ALOOP_ETIMEDOUT);
  assert_int_equal(aloop_time(loop) - begun, ALOOP_MILLIS(250));
  assert_int_equal(stops, 1);
  assert_true(aloop_future_cancelled(inner));
  aloop_future_unref(outer);
}

static void without_a_limit_it_waits(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *outer = aloop_wait_for(aloop_sleep(loop, ALOOP_SECONDS(1e6)), ALOOP_FOREVER);
  assert_int_equal(run_future(loop, outer), 0);
  aloop_future_unref(outer);
}

static void no_time_at_all_is_a_look(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_wait_for(inner, 0);
  assert_true(aloop_future_cancelled(inner));
  assert_false(aloop_future_done(outer)); /* who tries again and again gives up his turn */
  run_turn(loop);
  assert_int_equal(aloop_future_result(outer), ALOOP_ETIMEDOUT);
  aloop_future_unref(outer);
  inner = aloop_future_new(loop);
  aloop_future_set_value(inner, 4);
  outer = aloop_wait_for(inner, -5);
  assert_int_equal(aloop_future_result(outer), 4);
  aloop_future_unref(outer);
}

static void a_result_in_the_last_moment_wins(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_sleep(loop, 100); /* due with the limit, and made before it */
  aloop_future_t *outer = aloop_wait_for(inner, 100);
  assert_int_equal(run_future(loop, outer), 0);
  aloop_future_unref(outer);
}

static void cancelling_wait_for_cancels_the_operation(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int stops = 0;
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_on_cancel(inner, count_stop, &stops);
  aloop_future_t *outer = aloop_wait_for(inner, ALOOP_SECONDS(1));
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(stops, 1);
  assert_true(aloop_future_cancelled(inner));
  assert_int_equal(loop->timers.live, 0);
  run_turn(loop);
  aloop_future_unref(outer);
}

static void a_cancelled_operation_cancels_wait_for(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_wait_for(inner, ALOOP_SECONDS(1));
  aloop_future_cancel(inner);
  run_turn(loop);
  assert_true(aloop_future_cancelled(outer));
  aloop_future_unref(outer);
}

static void finish_instead(aloop_future_t *future, void *arg) {
  aloop_future_set_value(future, *(int *)arg);
}

static void an_operation_that_ends_while_it_is_stopped_keeps_its_value(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int value = 8;
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_on_cancel(inner, finish_instead, &value);
  aloop_future_t *outer = aloop_wait_for(inner, 10);
  assert_int_equal(run_future(loop, outer), 8);
  aloop_future_unref(outer);
}

static void cancel_other(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_future_t *outer = arg;
  aloop_future_cancel(outer);
  aloop_future_unref(outer);
}

static void a_stop_function_may_let_go_of_the_outer_future(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_wait_for(inner, 10);
  aloop_future_on_cancel(inner, cancel_other, outer);
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
}

static void a_detached_wait_for_still_limits(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_detach(aloop_wait_for(aloop_future_ref(inner), 10));
  assert_int_equal(run_future(loop, inner), ALOOP_ECANCELED);
  aloop_future_unref(inner);
  run_turn(loop);
}

/* ---- The object of a forwarded result ------------------------------------------------------------------------ */

static void the_outer_future_hands_the_object_over(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int destroyed = 0;
  int *seen = NULL;
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_shield(aloop_wait_for(aloop_future_ref(inner), ALOOP_FOREVER));
  aloop_future_set_result(inner, 2, &destroyed, count_destroy);
  assert_int_equal(run_future(loop, outer), 2);
  assert_int_equal(aloop_future_result_ptr(outer, &seen), 0);
  assert_ptr_equal(seen, &destroyed);
  assert_int_equal(aloop_future_take_ptr(outer, &seen), 0);
  assert_int_equal(aloop_future_take_ptr(outer, &seen), ALOOP_ENOENT);
  assert_int_equal(aloop_future_take_ptr(inner, &seen), ALOOP_ENOENT);
  aloop_future_unref(outer);
  aloop_future_unref(inner);
  assert_int_equal(destroyed, 0);
}

static void the_outer_future_keeps_the_object_alive(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int destroyed = 0;
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_set_result(inner, 2, &destroyed, count_destroy);
  aloop_future_t *outer = aloop_shield(inner);
  assert_int_equal(aloop_future_result(outer), 2);
  run_turn(loop);
  assert_int_equal(destroyed, 0);
  aloop_future_unref(outer);
  assert_int_equal(destroyed, 1);
}

static int64_t sleep_long(aloop_t *loop, void *arg) {
  (void)arg;
  return aloop_await(aloop_sleep(loop, ALOOP_SECONDS(9)));
}

/* ---- shield -------------------------------------------------------------------------------------------------- */

static void a_shielded_operation_survives(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_shield(aloop_future_ref(inner));
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_true(aloop_future_cancelled(outer));
  assert_false(aloop_future_done(inner));
  aloop_future_unref(outer);
  assert_int_equal(aloop_future_set_value(inner, 1), 0);
  run_turn(loop);
  assert_int_equal(aloop_future_result(inner), 1);
  aloop_future_unref(inner);
}

static void a_cancelled_operation_cancels_its_shield(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_shield(inner);
  aloop_future_cancel(inner);
  run_turn(loop);
  assert_true(aloop_future_cancelled(outer));
  aloop_future_unref(outer);
}

static void a_shield_keeps_the_words_of_a_cancel_to_itself(void **state) {
  env_t *env = *state;
  aloop_future_t *inner = aloop_create_task(env->loop, sleep_long, NULL, NULL);
  aloop_future_t *outer = aloop_shield(aloop_future_ref(inner));
  run_turn(env->loop);
  assert_int_equal(aloop_task_cancel(inner, "go home"), 1);
  assert_int_equal(run_future(env->loop, outer), ALOOP_ECANCELED);
  assert_string_equal(aloop_future_message(outer), aloop_strerror(ALOOP_ECANCELED));
  assert_string_equal(aloop_future_message(inner), "go home");
  aloop_future_t *late = aloop_shield(inner); /* done: as if there were no shield */
  assert_string_equal(aloop_future_message(late), "go home");
  aloop_future_unref(late);
  aloop_future_unref(outer);
}

static void an_error_behind_a_cancelled_shield_is_reported(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *outer = aloop_shield(aloop_future_ref(inner));
  aloop_future_cancel(outer);
  aloop_future_unref(outer);
  aloop_future_set_error(inner, ALOOP_EIO, NULL);
  aloop_future_unref(inner);
  assert_int_equal(env->reports, 1);
}

static void a_missing_future_gives_none(void **state) {
  (void)state;
  assert_null(aloop_wait_for(NULL, 5));
  assert_null(aloop_shield(NULL));
  assert_null(aloop_wait_for(aloop_shield(NULL), 5));
}

static void closing_the_loop_ends_them(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *outer = aloop_wait_for(aloop_shield(aloop_sleep(loop, 100)), 50);
  aloop_future_t *shield = aloop_shield(aloop_future_ref(outer));
  aloop_future_detach(aloop_shield(aloop_sleep(loop, 7)));
  aloop_close(loop);
  assert_true(aloop_future_cancelled(outer));
  assert_true(aloop_future_cancelled(shield));
  aloop_future_unref(outer);
  aloop_future_unref(shield);
}

static void on_a_closed_loop_they_have_failed(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *futures[] = {aloop_future_new(loop), aloop_future_new(loop)};
  aloop_close(loop);
  futures[0] = aloop_wait_for(futures[0], 5);
  futures[1] = aloop_shield(futures[1]);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_future_result(futures[i]), ALOOP_ECLOSED);
    aloop_future_unref(futures[i]);
  }
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void limited_sleeps(env_t *env) {
  aloop_t *loop = env->loop;
  aloop_future_t *late = aloop_wait_for(aloop_sleep(loop, ALOOP_MILLIS(9)), ALOOP_MILLIS(3));
  aloop_future_t *early = aloop_wait_for(aloop_shield(aloop_sleep(loop, ALOOP_MILLIS(1))), ALOOP_MILLIS(3));
  run_turn(loop);
  aloop_run_once(loop, ALOOP_MILLIS(1));
  env->fail_from = 0;
  if (late != NULL) assert_int_equal(run_future(loop, late), ALOOP_ETIMEDOUT);
  if (early != NULL) assert_int_equal(run_future(loop, early), 0);
  aloop_future_unref(late);
  aloop_future_unref(early);
}

static void count_end(aloop_future_t *future, void *arg) {
  assert_true(aloop_future_done(future));
  ++*(int *)arg;
}

/* The inner future is watched already: a second callback needs memory. The limit is the first timer. */
static void forward_watched(env_t *env, bool shield) {
  aloop_t *loop = env->loop;
  int ends = 0, added = 0;
  aloop_future_t *inner = aloop_future_new(loop);
  if (inner != NULL) added = aloop_future_add_done_callback(inner, count_end, &ends) == 0;
  aloop_future_ref(inner);
  aloop_future_t *outer = shield ? aloop_shield(inner) : aloop_wait_for(inner, ALOOP_MILLIS(5));
  /* Without a limit the operation ends; what nobody shields goes on. */
  if (inner != NULL && outer == NULL) assert_int_equal(aloop_future_done(inner), !shield);
  if (inner != NULL && !aloop_future_done(inner)) aloop_future_set_value(inner, 6);
  env->fail_from = 0;
  if (outer != NULL) assert_int_equal(run_future(loop, outer), 6);
  for (int i = 0; i < 3; i++) run_turn(loop);
  assert_int_equal(ends, added);
  aloop_future_unref(inner);
  aloop_future_unref(outer);
}

static void shield_watched(env_t *env) {
  forward_watched(env, true);
}

static void wait_for_watched(env_t *env) {
  forward_watched(env, false);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, limited_sleeps);
  torture(*state, shield_watched);
  torture(*state, wait_for_watched);
}

/* What a put or an acquire has brought about is not to be told as a failure. */
static void without_memory_for_a_limit_what_is_done_stands_for_itself(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_set_value(future, 3), 0);
  env->fail_from = env->calls + 1;
  future = aloop_wait_for(future, 5);
  env->fail_from = 0;
  assert_int_equal(aloop_future_result(future), 3);
  aloop_future_unref(future);
}

static void steady_sleeping_allocates_nothing(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  for (int i = 0; i < 50; i++) {
    if (i == 2) env->fail_from = env->calls + 1;
    aloop_future_t *future = aloop_sleep(loop, i);
    assert_int_equal(run_future(loop, future), 0);
    aloop_future_unref(future);
  }
}

/* ---- Where they were made ------------------------------------------------------------------------------------ */

static void they_tell_where_they_were_made(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *inner = aloop_future_new(loop);
  aloop_future_t *futures[] = {
      aloop_sleep_from(loop, 5, "a.c:1"),
      aloop_wait_for_from(aloop_future_ref(inner), 5, "b.c:2"),
      aloop_shield_from(inner, "c.c:3"),
  };
  const char *places[] = {"a.c:1", "b.c:2", "c.c:3"};
  for (int i = 0; i < 3; i++) {
    assert_string_equal(futures[i]->object.origin, places[i]);
    aloop_future_unref(futures[i]);
  }
}

static void without_a_place_they_work_too(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *future = (aloop_wait_for)((aloop_shield)((aloop_sleep)(loop, 5)), 10);
  assert_null(future->object.origin);
  assert_int_equal(run_future(loop, future), 0);
  aloop_future_unref(future);
}

static void a_late_end_that_nobody_reads_is_reported_with_its_place(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  aloop_future_detach(aloop_wait_for_from(aloop_sleep(loop, 10), 5, "d.c:4"));
  while (env->reports == 0) assert_true(aloop_run_once(loop, ALOOP_FOREVER) >= 0);
  assert_int_equal(env->report_errors[0], ALOOP_ETIMEDOUT);
  assert_string_equal(env->report_origins[0], "d.c:4");
}

TESTS(T(sleep_takes_as_long_as_asked), T(sleeping_for_nothing_takes_one_turn),
      T(sleeping_for_ever_does_not_overflow), T(cancelling_a_sleep_removes_its_timer),
      T(ending_a_sleep_from_outside_removes_its_timer), T(a_detached_sleep_runs_or_ends_with_the_loop),
      T(sleeps_end_in_the_order_they_were_made), T(on_no_loop_there_is_no_sleep),
      T(wait_for_forwards_the_value), T(wait_for_forwards_the_error),
      T(a_forwarded_error_that_nobody_reads_is_reported_once), T(the_limit_cancels_the_operation),
      T(without_a_limit_it_waits), T(no_time_at_all_is_a_look), T(a_result_in_the_last_moment_wins),
      T(cancelling_wait_for_cancels_the_operation), T(a_cancelled_operation_cancels_wait_for),
      T(an_operation_that_ends_while_it_is_stopped_keeps_its_value),
      T(a_stop_function_may_let_go_of_the_outer_future), T(a_detached_wait_for_still_limits),
      T(the_outer_future_hands_the_object_over), T(the_outer_future_keeps_the_object_alive),
      T(a_shielded_operation_survives), T(a_cancelled_operation_cancels_its_shield),
      T(a_shield_keeps_the_words_of_a_cancel_to_itself), T(an_error_behind_a_cancelled_shield_is_reported),
      T(a_missing_future_gives_none), T(without_memory_for_a_limit_what_is_done_stands_for_itself),
      T(closing_the_loop_ends_them), T(on_a_closed_loop_they_have_failed), T(every_allocation_may_fail),
      T(steady_sleeping_allocates_nothing), T(they_tell_where_they_were_made), T(without_a_place_they_work_too),
      T(a_late_end_that_nobody_reads_is_reported_with_its_place))
