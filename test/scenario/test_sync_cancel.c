/* SPDX-License-Identifier: MIT
 *
 * A task with conditions, barriers, groups inside of groups, time limits and as_completed is cancelled in every turn of
 * its life: between two turns, when its next step may be queued already; by a callback, after what else the turn
 * brought; and once more a turn later. Or its loop is closed. Each time it has to end, cancelled, with every child
 * ended before it, no lock held, no notification and no item lost, no request forgotten or invented, and nothing left.
 */
#include "harness.h"

#include <stdio.h>

#include "core/loop.h"
#include "future/future.h"

enum { STOCK = 6, TURNS_MAX = 3000 };

typedef enum mode { NEVER, BETWEEN_TURNS, BY_CALLBACK, TWICE, MODES } when_t;

typedef struct life {
  aloop_t *loop;
  aloop_future_t *main;
  aloop_condition_t *condition;
  aloop_barrier_t *barrier;
  int stock, taken; /* under the condition's lock */
  int holding;      /* tasks that have the lock */
  int open;         /* tasks and scopes that have begun and not ended */
} life_t;

static int64_t nap(life_t *life, int64_t delay) {
  return aloop_await(aloop_sleep(life->loop, delay));
}

/* ---- Conditions ---------------------------------------------------------------------------------------------- */

static void have_lock(life_t *life) {
  assert_true(aloop_condition_locked(life->condition));
  assert_int_equal(++life->holding, 1);
}

static void leave_lock(life_t *life) {
  assert_int_equal(--life->holding, 0);
  assert_int_equal(aloop_condition_release(life->condition), 0);
}

static bool in_stock(void *arg) {
  return ((life_t *)arg)->stock > 0;
}

/* One item: waiting by itself or by a predicate. */
static int64_t consume_one(life_t *life, bool by_predicate) {
  int64_t rc = aloop_await(aloop_condition_acquire(life->condition));
  if (rc < 0) return rc;
  have_lock(life);
  while (rc == 0 && life->stock == 0) {
    life->holding--;
    rc = aloop_await(by_predicate ? aloop_condition_wait_for(life->condition, in_stock, life)
                                  : aloop_condition_wait(life->condition));
    if (rc == ALOOP_ECLOSED) return rc; /* the one end without the lock */
    have_lock(life);
  }
  if (rc == 0) rc = nap(life, 0); /* with the lock */
  if (rc == 0) {
    life->stock--;
    life->taken++;
  }
  leave_lock(life);
  return rc;
}

static int64_t produce(aloop_t *loop, void *arg) {
  life_t *life = arg;
  (void)loop;
  life->open++;
  int64_t rc = 0;
  for (int i = 0; i < STOCK && rc == 0; i++) {
    rc = nap(life, i % 2 * 1000);
    if (rc == 0) rc = aloop_await(aloop_condition_acquire(life->condition));
    if (rc < 0) break;
    have_lock(life);
    life->stock++;
    assert_int_equal(aloop_condition_notify(life->condition, 1), 0);
    leave_lock(life);
  }
  life->open--;
  return rc;
}

static int64_t consume_some(aloop_t *loop, void *arg) {
  life_t *life = arg;
  (void)loop;
  life->open++;
  int64_t rc = 0;
  for (int i = 0; i < STOCK / 2 && rc == 0; i++) rc = consume_one(life, i % 2);
  life->open--;
  return rc;
}

/* Begins a group with some children, of which none is to be heard of beside the group. */
static aloop_task_group_t *begin(life_t *life, aloop_task_fn first, aloop_task_fn second) {
  aloop_task_group_t *group;
  if (aloop_task_group_begin(life->loop, &group) < 0) return NULL;
  life->open++;
  aloop_future_detach(aloop_task_group_create_task(group, first, life, NULL));
  if (second != NULL) aloop_future_detach(aloop_task_group_create_task(group, second, life, NULL));
  return group;
}

static int64_t end(life_t *life, aloop_task_group_t *group, int64_t rc) {
  rc = aloop_task_group_end(group, rc);
  life->open--;
  aloop_task_group_free(group);
  return rc;
}

static int64_t trade(life_t *life) {
  aloop_task_group_t *group = begin(life, consume_some, produce);
  if (group == NULL) return ALOOP_ECLOSED;
  int64_t rc = 0;
  for (int i = 0; i < STOCK / 2 && rc == 0; i++) rc = consume_one(life, i % 2 == 0);
  return end(life, group, rc);
}

/* ---- Barriers ------------------------------------------------------------------------------------------------ */

static int64_t meet(aloop_t *loop, void *arg) {
  life_t *life = arg;
  (void)loop;
  life->open++;
  int64_t rc = nap(life, 100);
  for (int i = 0; i < 3 && rc >= 0; i++) rc = aloop_await(aloop_barrier_wait(life->barrier));
  life->open--;
  return rc < 0 ? rc : 0;
}

static int64_t meet_others(life_t *life) {
  aloop_task_group_t *group = begin(life, meet, meet);
  if (group == NULL) return ALOOP_ECLOSED;
  int64_t rc = 0;
  for (int i = 0; i < 3 && rc >= 0; i++) rc = aloop_await(aloop_barrier_wait(life->barrier));
  return end(life, group, rc < 0 ? rc : 0);
}

/* ---- Groups and limits --------------------------------------------------------------------------------------- */

static int64_t sleep_well(aloop_t *loop, void *arg) {
  life_t *life = arg;
  (void)loop;
  life->open++;
  int64_t rc = nap(life, 1500);
  life->open--;
  return rc;
}

/* Tidies up, for a while, when it is cancelled. */
static int64_t sleep_long(aloop_t *loop, void *arg) {
  life_t *life = arg;
  (void)loop;
  life->open++;
  int64_t rc = nap(life, ALOOP_SECONDS(1000));
  if (rc == ALOOP_ECANCELED) nap(life, 700);
  life->open--;
  return rc;
}

static int64_t fail_soon(aloop_t *loop, void *arg) {
  life_t *life = arg;
  (void)loop;
  life->open++;
  int64_t rc = nap(life, 300);
  life->open--;
  return rc < 0 ? rc : ALOOP_EIO;
}

static int64_t nest_groups(life_t *life) {
  aloop_task_group_t *outer = begin(life, sleep_well, NULL);
  if (outer == NULL) return ALOOP_ECLOSED;
  aloop_task_group_t *inner = begin(life, sleep_long, fail_soon);
  if (inner == NULL) return end(life, outer, ALOOP_ECLOSED);
  int64_t rc = end(life, inner, nap(life, ALOOP_SECONDS(1000)));
  if (rc == ALOOP_EIO) rc = nap(life, 100); /* as planned */
  return end(life, outer, rc);
}

static int64_t nest_limits(life_t *life) {
  aloop_timeout_t outer, inner;
  aloop_timeout_begin(&outer, 5000);
  aloop_timeout_begin(&inner, 1000);
  int64_t rc = aloop_timeout_end(&inner, nap(life, ALOOP_SECONDS(1000)));
  if (rc == ALOOP_ETIMEDOUT) rc = nap(life, 0);
  if (rc == 0) {
    aloop_task_group_t *group = begin(life, sleep_long, sleep_well);
    rc = group != NULL ? end(life, group, 0) : ALOOP_ECLOSED;
  }
  rc = aloop_timeout_end(&outer, rc);
  return rc == ALOOP_ETIMEDOUT ? nap(life, 0) : rc;
}

static int64_t go_through(life_t *life) {
  aloop_future_t *futures[3] = {aloop_sleep(life->loop, 300), aloop_sleep(life->loop, 0),
                                aloop_create_task(life->loop, sleep_well, life, NULL)};
  aloop_as_completed_t *all;
  int64_t rc = aloop_as_completed_new(life->loop, futures, 3, ALOOP_FOREVER, &all);
  if (rc < 0) return rc;
  for (int i = 0; i < 3 && rc == 0; i++) {
    aloop_future_t *future;
    rc = aloop_await_ptr(aloop_as_completed_next(all), &future);
    if (rc == 0) aloop_future_unref(future);
  }
  aloop_as_completed_free(all);
  return rc;
}

static int64_t live(aloop_t *loop, void *arg) {
  life_t *life = arg;
  (void)loop;
  int64_t rc = trade(life);
  if (rc == 0) rc = meet_others(life);
  if (rc == 0) rc = nest_groups(life);
  if (rc == 0) rc = nest_limits(life);
  if (rc == 0) rc = go_through(life);
  return rc;
}

/* ---- All its ends -------------------------------------------------------------------------------------------- */

static void make(env_t *env, life_t *life) {
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  *life = (life_t){.loop = env->loop};
  assert_int_equal(aloop_condition_new(life->loop, NULL, &life->condition), 0);
  assert_int_equal(aloop_barrier_new(life->loop, 3, &life->barrier), 0);
  life->main = aloop_create_task(life->loop, live, life, NULL);
}

static void unmake(env_t *env, life_t *life) {
  aloop_future_unref(life->main);
  aloop_condition_free(life->condition);
  aloop_barrier_free(life->barrier);
  aloop_free(env->loop);
  env->loop = NULL;
  if (env->reports != 0) fail_msg("%s: %s", env->report_messages[0], aloop_error_name(env->report_errors[0]));
  assert_int_equal(env->live, 0);
}

static bool run_turns(life_t *life, int turns) {
  while (turns-- > 0 && !aloop_future_done(life->main)) aloop_run_once(life->loop, ALOOP_MILLIS(1));
  return aloop_future_done(life->main);
}

static void cancel(aloop_t *loop, void *life) {
  (void)loop;
  aloop_future_cancel(((life_t *)life)->main);
}

/* Children of as_completed belong to nobody; all others have ended before the main task. */
static void finish(life_t *life) {
  for (int i = 0; aloop_all_tasks(life->loop, NULL, 0) > 0 && i < TURNS_MAX; i++)
    aloop_run_once(life->loop, ALOOP_MILLIS(1));
  assert_int_equal(life->open, 0);
}

static void check(life_t *life, int requests) {
  int64_t result = aloop_future_result(life->main);
  assert_int_equal(result, requests > 0 ? ALOOP_ECANCELED : 0);
  assert_int_equal(aloop_task_cancelling(life->main), requests);
  assert_int_equal(life->holding, 0);
  assert_false(aloop_condition_locked(life->condition));
  assert_int_equal(aloop_barrier_n_waiting(life->barrier), 0);
  if (requests == 0) assert_int_equal(life->taken, STOCK);
}

/* Returns whether it lived long enough to be cancelled. */
static bool live_until(env_t *env, when_t mode, int turns) {
  life_t life;
  make(env, &life);
  bool over = run_turns(&life, turns);
  int requests = 0;
  if (!over && mode != NEVER) {
    if (mode == BY_CALLBACK)
      aloop_call_soon(life.loop, cancel, &life);
    else
      requests = aloop_future_cancel(life.main);
    if (mode == TWICE && !run_turns(&life, 1)) requests += aloop_future_cancel(life.main);
  }
  if (!run_turns(&life, TURNS_MAX)) fail_msg("cancelled in turn %d it has no end", turns);
  /* A callback may have come too late by a turn. */
  if (mode == BY_CALLBACK) requests = aloop_task_cancelling(life.main);
  finish(&life);
  check(&life, requests);
  unmake(env, &life);
  return !over;
}

static void it_may_be_cancelled_in_any_turn(void **state) {
  live_until(*state, NEVER, 0);
  for (when_t mode = BETWEEN_TURNS; mode < MODES; mode++) {
    int turns = 0;
    while (live_until(*state, mode, turns)) turns++;
    assert_true(turns > 50);
  }
}

static void its_loop_may_be_closed_in_any_turn(void **state) {
  env_t *env = *state;
  bool over = false;
  for (int turns = 0; !over; turns++) {
    life_t life;
    make(env, &life);
    over = run_turns(&life, turns);
    assert_int_equal(aloop_close(life.loop), 0);
    int64_t result = aloop_future_result(life.main);
    assert_true(over || result == ALOOP_ECLOSED || result == ALOOP_ECANCELED);
    assert_int_equal(life.open, 0);
    unmake(env, &life);
  }
}

/* The n-th allocation fails, for every n. */
static void scenario(env_t *env) {
  life_t life = {.loop = env->loop};
  if (aloop_condition_new(life.loop, NULL, &life.condition) < 0) return;
  if (aloop_barrier_new(life.loop, 3, &life.barrier) == 0) {
    life.main = aloop_create_task(life.loop, live, &life, NULL);
    if (life.main != NULL) {
      run_turns(&life, TURNS_MAX);
      assert_true(aloop_future_done(life.main));
      aloop_future_result(life.main);
    }
    aloop_future_unref(life.main);
    aloop_barrier_free(life.barrier);
  }
  aloop_condition_free(life.condition);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(it_may_be_cancelled_in_any_turn), T(its_loop_may_be_closed_in_any_turn), T(running_out_of_memory))
