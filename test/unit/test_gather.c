/* SPDX-License-Identifier: MIT
 *
 * gather and wait: when the outer future ends, with what, what becomes of the children and their errors. On the virtual
 * poller, so time limits are exact.
 */
#include "harness.h"

#include "core/loop.h"
#include "future/future.h"

enum { COUNT = 3 };

static void virtual_loop(env_t *env) {
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
}

static void make(env_t *env, aloop_future_t *futures[COUNT]) {
  for (int i = 0; i < COUNT; i++) futures[i] = aloop_future_new(env->loop);
}

/* A gather or wait takes over the references; tests that end the children keep their own. */
static void keep(aloop_future_t *const futures[COUNT]) {
  for (int i = 0; i < COUNT; i++) aloop_future_ref(futures[i]);
}

static void release(aloop_future_t *const futures[COUNT]) {
  for (int i = 0; i < COUNT; i++) aloop_future_unref(futures[i]);
}

/* ---- gather -------------------------------------------------------------------------------------------------- */

static void gather_is_done_when_all_are(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  for (int i = COUNT - 1; i >= 0; i--) {
    assert_false(aloop_future_done(outer));
    aloop_future_set_value(futures[i], 10 + i);
    run_turn(env->loop);
  }
  assert_int_equal(aloop_future_result(outer), COUNT);
  for (size_t i = 0; i < COUNT; i++) {
    assert_ptr_equal(aloop_future_child(outer, i), futures[i]);
    assert_int_equal(aloop_future_result(aloop_future_child(outer, i)), 10 + i);
  }
  assert_null(aloop_future_child(outer, COUNT));
  release(futures);
  aloop_future_unref(outer);
}

static void gathering_nothing_is_done_at_once(void **state) {
  env_t *env = *state;
  aloop_future_t *outer = aloop_gather(env->loop, NULL, 0, 0);
  assert_int_equal(aloop_future_result(outer), 0);
  assert_null(aloop_future_child(outer, 0));
  aloop_future_unref(outer);
}

static void gathering_what_is_done_is_done_at_once(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  for (int i = 0; i < COUNT; i++) aloop_future_set_value(futures[i], i);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  assert_int_equal(aloop_future_result(outer), COUNT);
  aloop_future_unref(outer);
}

static void the_first_error_ends_gather(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  aloop_future_set_error(futures[1], ALOOP_EIO, "bad sector");
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), ALOOP_EIO);
  assert_string_equal(aloop_future_message(outer), "bad sector");
  assert_false(aloop_future_done(futures[0])); /* they go on */
  assert_int_equal(aloop_future_set_value(futures[0], 5), 0);
  release(futures);
  aloop_future_unref(outer);
  assert_int_equal(env->reports, 0);
}

static void an_earlier_error_ends_gather_at_once(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  aloop_future_set_error(futures[COUNT - 1], ALOOP_EIO, NULL);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  assert_true(aloop_future_done(outer));
  assert_int_equal(aloop_future_result(outer), ALOOP_EIO);
  aloop_future_unref(outer);
}

static void errors_after_the_first_count_as_read(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  aloop_future_set_error(futures[0], ALOOP_EIO, NULL);
  aloop_future_set_error(futures[1], ALOOP_EPIPE, NULL); /* its callback is queued when the first one runs */
  run_turn(env->loop);
  aloop_future_set_error(futures[2], ALOOP_EBADF, NULL);
  assert_int_equal(aloop_future_result(outer), ALOOP_EIO);
  aloop_future_unref(outer);
  release(futures);
  run_turn(env->loop);
  assert_int_equal(env->reports, 0);
}

static void an_unread_error_of_gather_is_reported_once(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_detach(aloop_gather(env->loop, futures, COUNT, 0));
  for (int i = 0; i < COUNT; i++) aloop_future_set_error(futures[i], ALOOP_EIO, NULL);
  release(futures);
  run_turn(env->loop);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EIO);
}

static void errors_can_be_returned(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, ALOOP_RETURN_ERRORS);
  aloop_future_set_error(futures[0], ALOOP_EIO, NULL);
  aloop_future_cancel(futures[1]);
  run_turn(env->loop);
  assert_false(aloop_future_done(outer));
  aloop_future_set_value(futures[2], 2);
  release(futures);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), COUNT);
  assert_int_equal(aloop_future_result(aloop_future_child(outer, 0)), ALOOP_EIO);
  assert_true(aloop_future_cancelled(aloop_future_child(outer, 1)));
  aloop_future_unref(outer);
}

static void returned_errors_count_as_read(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  for (int i = 0; i < COUNT; i++) aloop_future_set_error(futures[i], ALOOP_EIO, NULL);
  aloop_future_detach(aloop_gather(env->loop, futures, COUNT, ALOOP_RETURN_ERRORS));
  assert_int_equal(env->reports, 0);
}

static void a_cancelled_child_is_an_error(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  aloop_future_cancel(futures[1]);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), ALOOP_ECANCELED);
  assert_false(aloop_future_done(futures[0]));
  release(futures);
  aloop_future_unref(outer);
}

static void count_stop(aloop_future_t *future, void *arg) {
  (void)future;
  ++*(int *)arg;
}

static void cancelling_gather_cancels_all_at_once(void **state) {
  env_t *env = *state;
  int stops = 0;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  for (int i = 0; i < COUNT; i++) aloop_future_on_cancel(futures[i], count_stop, &stops);
  aloop_future_set_value(futures[0], 0);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  assert_int_equal(aloop_future_cancel(outer), 1);
  assert_int_equal(stops, COUNT - 1);
  assert_int_equal(aloop_future_result(aloop_future_child(outer, 0)), 0);
  assert_true(aloop_future_cancelled(aloop_future_child(outer, 1)));
  assert_false(aloop_future_done(outer)); /* its end takes a turn, as in asyncio */
  run_turn(env->loop);
  assert_true(aloop_future_cancelled(outer));
  aloop_future_unref(outer);
  run_turn(env->loop);
}

static void a_future_may_be_given_twice(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_t *futures[] = {future, aloop_future_ref(future), aloop_future_ref(future)};
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  aloop_future_set_value(future, 4);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), COUNT);
  assert_int_equal(aloop_future_result(aloop_future_child(outer, 2)), 4);
  aloop_future_unref(outer);
  future = aloop_future_new(env->loop);
  aloop_future_t *again[] = {future, aloop_future_ref(future)};
  outer = aloop_gather(env->loop, again, 2, 0);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), ALOOP_EIO);
  aloop_future_unref(outer);
}

static void a_missing_future_cancels_the_rest(void **state) {
  env_t *env = *state;
  int stops = 0;
  aloop_future_t *futures[COUNT];
  for (int way = 0; way < 2; way++) {
    make(env, futures);
    aloop_future_unref(futures[1]);
    futures[1] = NULL;
    aloop_future_on_cancel(futures[0], count_stop, &stops);
    aloop_future_on_cancel(futures[2], count_stop, &stops);
    if (way == 0) assert_null(aloop_gather(env->loop, futures, COUNT, 0));
    if (way == 1) assert_null(aloop_wait(env->loop, futures, COUNT, ALOOP_FOREVER, 0));
  }
  assert_int_equal(stops, 4);
}

static void futures_of_another_loop_are_refused(void **state) {
  env_t *env = *state;
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  for (int way = 0; way < 2; way++) {
    aloop_future_t *futures[] = {aloop_future_new(env->loop), aloop_future_new(other)};
    aloop_future_t *outer =
        way == 0 ? aloop_gather(env->loop, futures, 2, 0) : aloop_wait(env->loop, futures, 2, ALOOP_FOREVER, 0);
    assert_int_equal(aloop_future_result(outer), ALOOP_EOTHERLOOP);
    aloop_future_unref(outer);
  }
  aloop_free(other);
}

static void wrong_arguments_are_errors_of_the_future(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_null(aloop_gather(NULL, &future, 1, 0));
  aloop_future_t *outer = aloop_gather(env->loop, NULL, 3, 0);
  assert_int_equal(aloop_future_result(outer), ALOOP_EINVAL);
  aloop_future_unref(outer);
  outer = aloop_wait(env->loop, NULL, 3, 0, 0);
  assert_int_equal(aloop_future_result(outer), ALOOP_EINVAL);
  aloop_future_unref(outer);
  future = aloop_future_new(env->loop);
  outer = aloop_wait(env->loop, &future, 1, ALOOP_FOREVER, 77);
  assert_int_equal(aloop_future_result(outer), ALOOP_EINVAL);
  aloop_future_unref(outer);
}

static void gather_nests(void **state) {
  env_t *env = *state;
  virtual_loop(env);
  aloop_t *loop = env->loop;
  aloop_future_t *inner[] = {aloop_sleep(loop, 10), aloop_sleep(loop, 30)};
  aloop_future_t *futures[] = {aloop_gather(loop, inner, 2, 0), aloop_sleep(loop, 20)};
  aloop_future_t *outer = aloop_gather(loop, futures, 2, 0);
  int64_t begun = aloop_time(loop);
  assert_int_equal(run_future(loop, outer), 2);
  assert_int_equal(aloop_time(loop) - begun, 30);
  aloop_future_unref(outer);
}

static void closing_the_loop_ends_gather_and_children(void **state) {
  env_t *env = *state;
  for (int queued = 0; queued < 2; queued++) {
    env_loop(env, (aloop_options_t){.debug = -1});
    aloop_future_t *futures[COUNT];
    make(env, futures);
    aloop_future_t *first = queued ? aloop_future_ref(futures[0]) : NULL;
    aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
    if (queued) aloop_future_set_value(first, 1);
    aloop_close(env->loop);
    assert_true(aloop_future_cancelled(outer));
    assert_true(aloop_future_cancelled(aloop_future_child(outer, 1)));
    aloop_future_unref(outer);
    aloop_future_unref(first);
  }
}

static void a_detached_gather_ends_with_the_loop(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  aloop_future_detach(aloop_gather(env->loop, futures, COUNT, 0));
  run_turn(env->loop);
}

static void on_a_closed_loop_gather_has_failed(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  aloop_close(env->loop);
  aloop_future_t *outer = aloop_gather(env->loop, futures, COUNT, 0);
  assert_int_equal(aloop_future_result(outer), ALOOP_ECLOSED);
  aloop_future_unref(outer);
}

/* ---- wait ---------------------------------------------------------------------------------------------------- */

static void wait_for_all_counts_errors_as_ends(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_wait(env->loop, futures, COUNT, ALOOP_FOREVER, ALOOP_ALL_COMPLETED);
  aloop_future_set_error(futures[0], ALOOP_EIO, NULL);
  aloop_future_cancel(futures[1]);
  run_turn(env->loop);
  assert_false(aloop_future_done(outer));
  aloop_future_set_value(futures[2], 0);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), COUNT);
  aloop_future_unref(outer);
  release(futures);
  assert_int_equal(env->reports, 1); /* it reads no errors */
}

static void wait_may_end_with_the_first(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_wait(env->loop, futures, COUNT, ALOOP_FOREVER, ALOOP_FIRST_COMPLETED);
  run_turn(env->loop);
  assert_false(aloop_future_done(outer));
  aloop_future_set_value(futures[1], 0);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), 1);
  assert_false(aloop_future_done(futures[0]));
  aloop_future_unref(outer);
  release(futures);
}

static void wait_counts_all_that_are_done_by_then(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_wait(env->loop, futures, COUNT, ALOOP_FOREVER, ALOOP_FIRST_COMPLETED);
  aloop_future_set_value(futures[1], 0);
  aloop_future_set_value(futures[2], 0);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), 2);
  aloop_future_unref(outer);
  release(futures);
}

static void wait_may_end_with_the_first_error(void **state) {
  env_t *env = *state;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  keep(futures);
  aloop_future_t *outer = aloop_wait(env->loop, futures, COUNT, ALOOP_FOREVER, ALOOP_FIRST_EXCEPTION);
  aloop_future_cancel(futures[0]); /* no exception */
  run_turn(env->loop);
  assert_false(aloop_future_done(outer));
  aloop_future_set_error(futures[1], ALOOP_EIO, NULL);
  run_turn(env->loop);
  assert_int_equal(aloop_future_result(outer), 2);
  aloop_future_unref(outer);
  aloop_future_result(futures[1]);
  release(futures);
}

static void wait_has_a_limit_and_cancels_nothing(void **state) {
  env_t *env = *state;
  virtual_loop(env);
  aloop_future_t *futures[] = {aloop_sleep(env->loop, ALOOP_MILLIS(1)),
                               aloop_sleep(env->loop, ALOOP_SECONDS(9))};
  aloop_future_t *outer = aloop_wait(env->loop, futures, 2, ALOOP_SECONDS(1), ALOOP_ALL_COMPLETED);
  int64_t begun = aloop_time(env->loop);
  assert_int_equal(run_future(env->loop, outer), 1);
  assert_int_equal(aloop_time(env->loop) - begun, ALOOP_SECONDS(1));
  assert_int_equal(run_future(env->loop, aloop_future_child(outer, 1)), 0);
  aloop_future_unref(outer);
}

/* As in asyncio: whoever awaits it gives up his turn, and another one. */
static void wait_hears_of_done_futures_in_the_next_turn(void **state) {
  env_t *env = *state;
  for (int until = ALOOP_ALL_COMPLETED; until <= ALOOP_FIRST_EXCEPTION; until++) {
    aloop_future_t *futures[] = {aloop_future_new(env->loop), aloop_future_new(env->loop)};
    aloop_future_set_error(futures[0], ALOOP_EIO, NULL);
    aloop_future_set_value(futures[1], 0);
    aloop_future_t *outer = aloop_wait(env->loop, futures, 2, ALOOP_FOREVER, until);
    assert_false(aloop_future_done(outer));
    run_turn(env->loop);
    assert_int_equal(aloop_future_result(outer), 2);
    aloop_future_result(aloop_future_child(outer, 0));
    aloop_future_unref(outer);
  }
}

static void a_wait_that_is_over_has_no_timer(void **state) {
  env_t *env = *state;
  virtual_loop(env);
  for (int way = 0; way < 3; way++) {
    aloop_future_t *future = aloop_future_new(env->loop);
    if (way == 0) aloop_future_set_value(future, 0);
    aloop_future_t *outer = aloop_wait(env->loop, &future, 1, ALOOP_SECONDS(1), ALOOP_ALL_COMPLETED);
    if (way == 1) aloop_future_set_value(future, 0);
    if (way == 2) assert_int_equal(aloop_future_cancel(outer), 1);
    run_turn(env->loop);
    assert_true(aloop_future_done(outer));
    assert_int_equal(aloop_future_cancelled(future), false);
    assert_int_equal(env->loop->timers.live, 0);
    aloop_future_unref(outer);
  }
}

static void a_wait_without_time_looks_once(void **state) {
  env_t *env = *state;
  virtual_loop(env);
  aloop_future_t *futures[] = {aloop_future_new(env->loop), aloop_future_new(env->loop)};
  aloop_future_set_value(futures[0], 0);
  aloop_future_t *outer = aloop_wait(env->loop, futures, 2, 0, ALOOP_ALL_COMPLETED);
  int64_t begun = aloop_time(env->loop);
  assert_int_equal(run_future(env->loop, outer), 1);
  assert_int_equal(aloop_time(env->loop), begun);
  aloop_future_unref(outer);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void sleep_together(env_t *env) {
  aloop_t *loop = env->loop;
  aloop_future_t *inner[] = {aloop_sleep(loop, 0), aloop_sleep(loop, ALOOP_MILLIS(1)), aloop_future_new(loop)};
  aloop_future_t *kept = aloop_future_ref(inner[2]);
  aloop_future_t *futures[] = {aloop_gather(loop, inner, 3, 0), aloop_sleep(loop, ALOOP_MILLIS(2))};
  aloop_future_t *outer = aloop_wait(loop, futures, 2, ALOOP_MILLIS(5), ALOOP_ALL_COMPLETED);
  run_turn(loop);
  if (kept != NULL && !aloop_future_done(kept)) aloop_future_set_error(kept, ALOOP_EIO, "message");
  env->fail_from = 0;
  if (outer != NULL) assert_int_equal(run_future(loop, outer), 2);
  aloop_future_result(kept);
  aloop_future_unref(kept);
  aloop_future_unref(outer);
}

static void count_end(aloop_future_t *future, void *arg) {
  assert_true(aloop_future_done(future));
  ++*(int *)arg;
}

/* Children that somebody watches already: a second callback needs memory. The limit is the first timer. */
static void join_the_watchers(env_t *env, bool gather) {
  aloop_t *loop = env->loop;
  int ends = 0, added = 0;
  aloop_future_t *futures[COUNT];
  make(env, futures);
  for (int i = 0; i < COUNT; i++) {
    aloop_future_ref(futures[i]);
    added += futures[i] != NULL && aloop_future_add_done_callback(futures[i], count_end, &ends) == 0;
  }
  aloop_future_t *outer = gather ? aloop_gather(loop, futures, COUNT, 0)
                                 : aloop_wait(loop, futures, COUNT, ALOOP_MILLIS(5), ALOOP_ALL_COMPLETED);
  for (int i = 0; i < COUNT; i++)
    if (outer == NULL && futures[i] != NULL) assert_true(aloop_future_cancelled(futures[i]));
  for (int i = 0; i < COUNT && outer != NULL; i++) assert_int_equal(aloop_future_set_value(futures[i], i), 0);
  env->fail_from = 0;
  if (outer != NULL) assert_int_equal(run_future(loop, outer), COUNT);
  for (int i = 0; i < 3; i++) run_turn(loop);
  assert_int_equal(ends, added);
  release(futures);
  aloop_future_unref(outer);
}

static void gather_watched(env_t *env) {
  join_the_watchers(env, true);
}

static void wait_for_watched(env_t *env) {
  join_the_watchers(env, false);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, sleep_together);
  torture(*state, gather_watched);
  torture(*state, wait_for_watched);
}

/* ---- A random walk ------------------------------------------------------------------------------------------- */

/* Futures of all kinds over each other, ended, cancelled, watched and released at random, also from inside callbacks
 * and stop functions, and with some allocations failing. Each callback that was added runs once. */
enum { POOL = 24, STEPS = 4000 };

typedef struct walk {
  env_t *env;
  aloop_future_t *pool[POOL];
  uint32_t random;
  int added, ran, removed, destroyed, objects, depth;
} walk_t;

static uint32_t draw(walk_t *walk, uint32_t below) {
  walk->random ^= walk->random << 13;
  walk->random ^= walk->random >> 17;
  walk->random ^= walk->random << 5;
  return walk->random % below;
}

static aloop_future_t *pick(walk_t *walk) {
  return walk->pool[draw(walk, POOL)];
}

static void count_object(void *arg) {
  ++((walk_t *)arg)->destroyed;
}

static aloop_future_t *combine(walk_t *walk) {
  aloop_t *loop = walk->env->loop;
  aloop_future_t *futures[4];
  size_t count = draw(walk, 4) + 1;
  for (size_t i = 0; i < count; i++) {
    futures[i] = aloop_future_ref(pick(walk));
    if (futures[i] == NULL) futures[i] = aloop_sleep(loop, draw(walk, 5));
  }
  uint32_t rule = draw(walk, 6);
  if (rule >= 3) return aloop_gather(loop, futures, count, rule & ALOOP_RETURN_ERRORS);
  return aloop_wait(loop, futures, count, (int64_t)draw(walk, 8) - 1, (int)rule);
}

static aloop_future_t *make_any(walk_t *walk) {
  aloop_t *loop = walk->env->loop;
  switch (draw(walk, 6)) {
  case 0:
    return aloop_sleep(loop, draw(walk, 6));
  case 1:
    return aloop_wait_for(aloop_future_ref(walk->pool[draw(walk, POOL)]), (int64_t)(walk->random % 8) - 1);
  case 2:
    return aloop_shield(aloop_future_ref(pick(walk)));
  case 3:
    return combine(walk);
  default:
    return aloop_future_new(loop);
  }
}

/* Making and releasing run callbacks' steps, which may replace the same one. */
static void replace(walk_t *walk, uint32_t at) {
  aloop_future_t *made = make_any(walk);
  aloop_future_t *old = walk->pool[at];
  walk->pool[at] = made;
  aloop_future_unref(old);
}

static void end_any(walk_t *walk, aloop_future_t *future) {
  uint32_t way = draw(walk, 5);
  if (way == 0) aloop_future_set_value(future, 1);
  if (way == 1) aloop_future_set_error(future, ALOOP_EIO, "random");
  if (way == 2 && aloop_future_set_result(future, 0, walk, count_object) == 0) walk->objects++;
  if (way > 2) aloop_future_cancel(future);
}

static void step_at_random(walk_t *walk);

static void on_end(aloop_future_t *future, void *arg) {
  walk_t *walk = arg;
  assert_true(aloop_future_done(future));
  walk->ran++;
  step_at_random(walk);
}

static void on_stop(aloop_future_t *future, void *arg) {
  assert_false(aloop_future_done(future));
  step_at_random(arg);
}

static void step_at_random(walk_t *walk) {
  if (walk->depth == 3) return;
  walk->depth++;
  uint32_t at = draw(walk, POOL);
  aloop_future_t *future = aloop_future_ref(walk->pool[at]);
  void *out;
  switch (draw(walk, 10)) {
  case 0:
  case 1:
    replace(walk, at);
    break;
  case 2:
  case 3:
    if (future != NULL && aloop_future_add_done_callback(future, on_end, walk) == 0) walk->added++;
    break;
  case 4:
    if (future != NULL) walk->removed += aloop_future_remove_done_callback(future, on_end, walk);
    break;
  case 5:
    if (future != NULL) aloop_future_on_cancel(future, on_stop, walk);
    break;
  case 6:
  case 7:
    end_any(walk, future);
    break;
  case 8:
    if (future != NULL && aloop_future_take_ptr(future, &out) == 0) walk->destroyed++;
    break;
  default:
    aloop_future_result(future);
  }
  aloop_future_unref(future);
  walk->depth--;
}

static void a_random_walk_loses_nothing(void **state) {
  env_t *env = *state;
  for (uint32_t seed = 1; seed <= 20; seed++) {
    virtual_loop(env);
    walk_t walk = {.env = env, .random = seed * 2654435761u};
    for (int i = 0; i < STEPS; i++) {
      env->fail_from = draw(&walk, 50) == 0 ? env->calls + 1 + (long)(walk.random % 4) : 0;
      step_at_random(&walk);
      if (draw(&walk, 4) == 0) assert_true(aloop_run_once(env->loop, draw(&walk, 3)) >= 0);
    }
    env->fail_from = 0;
    for (int i = 0; i < POOL; i++) aloop_future_cancel(walk.pool[i]);
    walk.depth = 3; /* no more steps */
    for (int i = 0; i < POOL; i++) aloop_future_unref(walk.pool[i]);
    for (int i = 0; i < 20; i++) aloop_run_once(env->loop, 10);
    aloop_close(env->loop);
    assert_int_equal(walk.objects, walk.destroyed);
    assert_in_range(walk.ran + walk.removed, 1, walk.added);
  }
}

/* ---- Where they were made ------------------------------------------------------------------------------------ */

static void they_tell_where_they_were_made(void **state) {
  env_t *env = *state;
  aloop_future_t *child = aloop_sleep(env->loop, 1);
  aloop_future_t *gathered = aloop_gather_from(env->loop, &child, 1, 0, "a.c:1");
  aloop_future_t *waited = aloop_wait_from(env->loop, &gathered, 1, 5, ALOOP_ALL_COMPLETED, "b.c:2");
  assert_string_equal(gathered->object.origin, "a.c:1");
  assert_string_equal(waited->object.origin, "b.c:2");
  child = (aloop_wait)(env->loop, &waited, 1, ALOOP_FOREVER, ALOOP_ALL_COMPLETED);
  gathered = (aloop_gather)(env->loop, &child, 1, 0);
  assert_null(child->object.origin);
  assert_null(gathered->object.origin);
  assert_int_equal(run_future(env->loop, gathered), 1);
  aloop_future_unref(gathered);
}

TESTS(T(gather_is_done_when_all_are), T(gathering_nothing_is_done_at_once),
      T(gathering_what_is_done_is_done_at_once), T(the_first_error_ends_gather),
      T(an_earlier_error_ends_gather_at_once), T(errors_after_the_first_count_as_read),
      T(an_unread_error_of_gather_is_reported_once), T(errors_can_be_returned),
      T(returned_errors_count_as_read), T(a_cancelled_child_is_an_error),
      T(cancelling_gather_cancels_all_at_once), T(a_future_may_be_given_twice),
      T(a_missing_future_cancels_the_rest), T(futures_of_another_loop_are_refused),
      T(wrong_arguments_are_errors_of_the_future), T(gather_nests),
      T(closing_the_loop_ends_gather_and_children), T(a_detached_gather_ends_with_the_loop),
      T(on_a_closed_loop_gather_has_failed), T(wait_for_all_counts_errors_as_ends),
      T(wait_may_end_with_the_first), T(wait_counts_all_that_are_done_by_then),
      T(wait_may_end_with_the_first_error), T(wait_has_a_limit_and_cancels_nothing),
      T(wait_hears_of_done_futures_in_the_next_turn), T(a_wait_that_is_over_has_no_timer),
      T(a_wait_without_time_looks_once), T(every_allocation_may_fail), T(a_random_walk_loses_nothing),
      T(they_tell_where_they_were_made))
