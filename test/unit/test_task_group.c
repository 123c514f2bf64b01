/* SPDX-License-Identifier: MIT
 *
 * Task groups: children end before their scope does; one failure cancels the rest; who was cancelled by whom.
 * pollers: all
 */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

#include "core/loop.h"
#include "future/future.h"

#define MS ALOOP_MILLIS(1)
#define LONG ALOOP_SECONDS(1000)

static int64_t run(env_t *env, aloop_task_fn fn, void *arg) {
  return aloop_run_until_complete(env->loop, aloop_create_task(env->loop, fn, arg, NULL));
}

static int64_t nap(aloop_t *loop, int64_t delay) {
  return aloop_await(aloop_sleep(loop, delay));
}

static int cancelling(aloop_t *loop) {
  return aloop_task_cancelling(aloop_current_task(loop));
}

/* A child that sleeps, notes how that ended, and ends with something. */
typedef struct plan {
  int64_t delay;
  int64_t result; /* if the sleep was not cancelled; */
  int64_t last;   /* ... if it was: 0: that */
  int64_t slept;  /* 1: not yet */
} plan_t;

static int64_t follow_plan(aloop_t *loop, void *arg) {
  plan_t *plan = arg;
  plan->slept = nap(loop, plan->delay);
  if (plan->slept == ALOOP_ECANCELED) return plan->last != 0 ? plan->last : ALOOP_ECANCELED;
  return plan->slept < 0 ? plan->slept : plan->result;
}

static aloop_task_group_t *begin(aloop_t *loop) {
  aloop_task_group_t *group;
  assert_int_equal(aloop_task_group_begin(loop, &group), 0);
  return group;
}

static void add(aloop_task_group_t *group, plan_t *plan) {
  plan->slept = 1;
  aloop_future_detach(aloop_task_group_create_task(group, follow_plan, plan, NULL));
}

/* ---- Without errors -------------------------------------------------------------------------------------- */

static int64_t wait_for_children(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plans[] = {{.delay = 2 * MS}, {.delay = MS}, {.delay = 0}};
  aloop_task_group_t *group = begin(loop);
  for (int i = 0; i < 3; i++) add(group, &plans[i]);
  int64_t rc = aloop_task_group_end(group, 5);
  for (int i = 0; i < 3; i++) assert_int_equal(plans[i].slept, 0);
  assert_int_equal(aloop_task_group_errors(group), 0);
  assert_null(aloop_task_group_error(group, 0));
  aloop_task_group_free(group);
  assert_int_equal(cancelling(loop), 0);
  return rc;
}

static void the_end_waits_for_all_children(void **state) {
  assert_int_equal(run(*state, wait_for_children, NULL), 5);
}

static int64_t no_children(aloop_t *loop, void *arg) {
  int64_t rc = *(int64_t *)arg;
  aloop_task_group_t *group = begin(loop);
  rc = aloop_task_group_end(group, rc);
  aloop_task_group_free(group);
  return rc;
}

static void without_children_the_result_is_that_of_the_body(void **state) {
  int64_t results[] = {0, 9, ALOOP_EIO, ALOOP_ECANCELED};
  for (int i = 0; i < 4; i++) assert_int_equal(run(*state, no_children, &results[i]), results[i]);
}

static int64_t results_of_children(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plan = {.delay = MS, .result = 12};
  aloop_task_options_t eager = {.size = sizeof eager, .eager = true};
  plan_t at_once = {.delay = 0, .result = 30};
  aloop_task_group_t *group = begin(loop);
  aloop_future_t *first = aloop_task_group_create_task(group, follow_plan, &plan, NULL);
  aloop_future_t *second = aloop_task_group_create_task(group, follow_plan, &at_once, &eager);
  assert_int_equal(aloop_task_group_end(group, 0), 0);
  int64_t sum = aloop_await(first) + aloop_await(second);
  aloop_task_group_free(group);
  return sum;
}

static void children_are_tasks_with_results(void **state) {
  assert_int_equal(run(*state, results_of_children, NULL), 42);
}

typedef struct spawner {
  aloop_task_group_t *group;
  int left;
} spawner_t;

static int64_t spawn_another(aloop_t *loop, void *arg) {
  spawner_t *spawner = arg;
  if (nap(loop, 0) < 0 || --spawner->left == 0) return 0;
  aloop_future_detach(aloop_task_group_create_task(spawner->group, spawn_another, spawner, NULL));
  return 0;
}

static int64_t spawn_many(aloop_t *loop, void *arg) {
  (void)arg;
  spawner_t spawner = {begin(loop), 50};
  aloop_future_detach(aloop_task_group_create_task(spawner.group, spawn_another, &spawner, NULL));
  int64_t rc = aloop_task_group_end(spawner.group, 0);
  assert_int_equal(spawner.left, 0);
  aloop_task_group_free(spawner.group);
  return rc;
}

static void children_may_make_children_while_the_group_ends(void **state) {
  assert_int_equal(run(*state, spawn_many, NULL), 0);
}

/* ---- Errors ---------------------------------------------------------------------------------------------- */

static int64_t one_fails(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plans[] = {{.delay = LONG}, {.delay = MS, .result = ALOOP_EIO}, {.delay = LONG}};
  aloop_task_group_t *group = begin(loop);
  for (int i = 0; i < 3; i++) add(group, &plans[i]);
  int64_t body = nap(loop, LONG);
  assert_int_equal(body, ALOOP_ECANCELED); /* the parent leaves what it is doing */
  assert_int_equal(cancelling(loop), 1);
  int64_t rc = aloop_task_group_end(group, body);
  assert_int_equal(rc, ALOOP_EIO);
  assert_int_equal(cancelling(loop), 0);
  assert_int_equal(plans[0].slept, ALOOP_ECANCELED);
  assert_int_equal(plans[2].slept, ALOOP_ECANCELED);
  assert_int_equal(aloop_task_group_errors(group), 1);
  assert_int_equal(aloop_future_result(aloop_task_group_error(group, 0)), ALOOP_EIO);
  aloop_task_group_free(group);
  return nap(loop, 0);
}

static void one_failure_cancels_the_others_and_the_parent(void **state) {
  env_t *env = *state;
  assert_int_equal(run(env, one_fails, NULL), 0);
  assert_int_equal(env->reports, 0);
}

static int64_t fail_while_ending(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plans[] = {{.delay = LONG}, {.delay = MS, .result = ALOOP_EIO}};
  aloop_task_group_t *group = begin(loop);
  for (int i = 0; i < 2; i++) add(group, &plans[i]);
  int64_t rc = aloop_task_group_end(group, 8);
  aloop_task_group_free(group);
  assert_int_equal(cancelling(loop), 0);
  assert_int_equal(nap(loop, 0), 0);
  return rc;
}

static void a_failure_while_the_group_ends_is_its_result(void **state) {
  assert_int_equal(run(*state, fail_while_ending, NULL), ALOOP_EIO);
}

static int64_t many_fail(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plans[] = {{.delay = LONG, .last = ALOOP_EPIPE},
                    {.delay = MS, .result = ALOOP_EIO},
                    {.delay = LONG, .last = 7},
                    {.delay = LONG, .last = ALOOP_ENOENT}};
  aloop_task_group_t *group = begin(loop);
  for (int i = 0; i < 4; i++) add(group, &plans[i]);
  assert_int_equal(aloop_task_group_end(group, 0), ALOOP_EIO);
  int errors[] = {ALOOP_EIO, ALOOP_EPIPE, ALOOP_ENOENT};
  assert_int_equal(aloop_task_group_errors(group), 3);
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(aloop_future_result(aloop_task_group_error(group, i)), errors[i]);
  assert_null(aloop_task_group_error(group, 3));
  aloop_task_group_free(group);
  return 0;
}

static void errors_are_collected_in_their_order(void **state) {
  env_t *env = *state;
  assert_int_equal(run(env, many_fail, NULL), 0);
  assert_int_equal(env->reports, 0);
}

static int64_t fail_with_words(aloop_t *loop, void *arg) {
  (void)arg;
  nap(loop, 0);
  return aloop_return_error(ALOOP_EIO, "disk %d is on fire", 3);
}

static int64_t group_of_one(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_task_group_t *group = begin(loop);
  aloop_future_detach(aloop_task_group_create_task(group, fail_with_words, NULL, NULL));
  int64_t rc = aloop_task_group_end(group, 0);
  aloop_task_group_free(group);
  return rc;
}

static void the_words_of_the_first_error_go_on(void **state) {
  env_t *env = *state;
  aloop_future_t *task = aloop_create_task(env->loop, group_of_one, NULL, NULL);
  assert_int_equal(run_future(env->loop, task), ALOOP_EIO);
  assert_string_equal(aloop_future_message(task), "disk 3 is on fire");
  aloop_future_unref(task);
}

static int64_t body_fails(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plans[] = {{.delay = LONG}, {.delay = LONG, .last = ALOOP_EPIPE}};
  aloop_task_group_t *group = begin(loop);
  for (int i = 0; i < 2; i++) add(group, &plans[i]);
  assert_int_equal(nap(loop, MS), 0);
  int64_t rc = aloop_task_group_end(group, ALOOP_ENOENT);
  for (int i = 0; i < 2; i++) assert_int_equal(plans[i].slept, ALOOP_ECANCELED);
  assert_int_equal(aloop_task_group_errors(group), 1);
  aloop_task_group_free(group);
  assert_int_equal(cancelling(loop), 0);
  return rc;
}

static void an_error_of_the_body_cancels_the_children(void **state) {
  assert_int_equal(run(*state, body_fails, NULL), ALOOP_ENOENT);
}

static int64_t cancelled_child(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plans[] = {{.delay = LONG}, {.delay = MS}};
  aloop_task_group_t *group = begin(loop);
  aloop_future_t *first = aloop_task_group_create_task(group, follow_plan, &plans[0], NULL);
  add(group, &plans[1]);
  aloop_future_cancel(first);
  aloop_future_unref(first);
  int64_t rc = aloop_task_group_end(group, 4);
  assert_int_equal(plans[1].slept, 0);
  aloop_task_group_free(group);
  return rc;
}

static void a_child_that_was_cancelled_is_no_failure(void **state) {
  assert_int_equal(run(*state, cancelled_child, NULL), 4);
}

/* ---- Too late -------------------------------------------------------------------------------------------- */

static int destroyed;

static void count_destroy(void *arg) {
  (void)arg;
  destroyed++;
}

static int64_t late_children(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t failing = {.delay = 0, .result = ALOOP_EIO}, unused = {.delay = 0};
  aloop_task_options_t options = {.size = sizeof options, .destroy = count_destroy};
  aloop_task_group_t *group = begin(loop);
  add(group, &failing);
  int64_t rc = nap(loop, LONG);
  destroyed = 0;
  aloop_future_t *late = aloop_task_group_create_task(group, follow_plan, &unused, &options);
  assert_int_equal(aloop_future_result(late), ALOOP_ECLOSED);
  assert_string_equal(aloop_future_message(late), "the task group is being cancelled");
  assert_int_equal(destroyed, 1);
  aloop_future_unref(late);
  rc = aloop_task_group_end(group, rc);
  late = aloop_task_group_create_task(group, follow_plan, &unused, &options);
  assert_int_equal(aloop_future_result(late), ALOOP_EPERM);
  assert_int_equal(destroyed, 2);
  aloop_future_unref(late);
  assert_int_equal(aloop_task_group_end(group, 0), ALOOP_EPERM);
  aloop_task_group_free(group);
  return rc;
}

static void nobody_is_born_into_a_group_that_ends(void **state) {
  assert_int_equal(run(*state, late_children, NULL), ALOOP_EIO);
}

/* ---- Cancelling the parent ------------------------------------------------------------------------------- */

typedef struct scene {
  plan_t plans[3];
  int64_t body_delay; /* 0: the parent waits at the end of the group */
  int64_t body, end;  /* results */
  int left;           /* requests, afterwards */
  int64_t next;       /* the result of an await after that */
} scene_t;

static int64_t play(aloop_t *loop, void *arg) {
  scene_t *scene = arg;
  aloop_task_group_t *group = begin(loop);
  for (int i = 0; i < 3; i++) add(group, &scene->plans[i]);
  scene->body = scene->body_delay > 0 ? nap(loop, scene->body_delay) : 0;
  scene->end = aloop_task_group_end(group, scene->body);
  aloop_task_group_free(group);
  scene->left = cancelling(loop);
  scene->next = nap(loop, 0);
  return scene->end;
}

/* Cancels the parent after some turns. */
static void cancel_from_outside(env_t *env, scene_t *scene, int turns, int times) {
  aloop_future_t *task = aloop_create_task(env->loop, play, scene, NULL);
  while (turns-- > 0) run_turn(env->loop);
  while (times-- > 0) assert_int_equal(aloop_future_cancel(task), 1);
  int64_t result = run_future(env->loop, task);
  assert_int_equal(result, scene->end);
  aloop_future_unref(task);
}

static void a_cancel_of_the_parent_cancels_the_children(void **state) {
  for (int waits_in_body = 0; waits_in_body < 2; waits_in_body++) {
    scene_t scene = {.plans = {{.delay = LONG}, {.delay = LONG, .last = 7}, {.delay = LONG}},
                     .body_delay = waits_in_body ? LONG : 0};
    cancel_from_outside(*state, &scene, 3, 1);
    for (int i = 0; i < 3; i++) assert_int_equal(scene.plans[i].slept, ALOOP_ECANCELED);
    assert_int_equal(scene.end, ALOOP_ECANCELED);
    assert_int_equal(scene.left, 1);
    assert_int_equal(scene.next, 0);
  }
}

static int64_t stubborn(aloop_t *loop, void *arg) {
  int *heard = arg;
  while (*heard < 3)
    if (nap(loop, LONG) == ALOOP_ECANCELED) ++*heard;
  return nap(loop, MS);
}

static int64_t group_of_stubborn(aloop_t *loop, void *arg) {
  aloop_task_group_t *group = begin(loop);
  aloop_future_t *child = aloop_task_group_create_task(group, stubborn, arg, NULL);
  aloop_future_detach(child);
  int64_t rc = aloop_task_group_end(group, 0);
  aloop_task_group_free(group);
  return rc;
}

static void the_end_waits_however_often_it_is_cancelled(void **state) {
  env_t *env = *state;
  int heard = 0;
  aloop_future_t *task = aloop_create_task(env->loop, group_of_stubborn, &heard, NULL), *all[2];
  run_turn(env->loop);
  run_turn(env->loop);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(aloop_future_cancel(task), 1);
    run_turn(env->loop);
    run_turn(env->loop);
    assert_false(aloop_future_done(task));
  }
  assert_int_equal(heard, 1); /* children are cancelled once */
  assert_int_equal(aloop_all_tasks(env->loop, all, 2), 2);
  for (int i = 0; i < 2; i++) {
    aloop_future_cancel(all[1]);
    run_turn(env->loop);
  }
  for (int i = 0; i < 2; i++) aloop_future_unref(all[i]);
  assert_int_equal(run_future(env->loop, task), ALOOP_ECANCELED);
  assert_int_equal(aloop_task_cancelling(task), 3);
  aloop_future_unref(task);
}

/* A failure and a cancel from outside: the failure is the result, and the cancel comes with the next await. */
static void a_failure_beside_a_cancel_of_others_keeps_both(void **state) {
  for (int waits_in_body = 0; waits_in_body < 2; waits_in_body++) {
    scene_t scene = {.plans = {{.delay = LONG, .last = ALOOP_EIO}, {.delay = LONG}, {.delay = LONG}},
                     .body_delay = waits_in_body ? LONG : 0};
    cancel_from_outside(*state, &scene, 3, 1);
    assert_int_equal(scene.end, ALOOP_EIO);
    assert_int_equal(scene.left, 1);
    assert_int_equal(scene.next, ALOOP_ECANCELED);
  }
}

/* The child has failed, the parent was cancelled for it, and then once more by somebody else. */
static void a_cancel_after_the_failure_is_not_taken_back(void **state) {
  for (int turns = 3; turns < 8; turns++) {
    scene_t scene = {.plans = {{.delay = 0, .result = ALOOP_EIO}, {.delay = LONG}, {.delay = LONG}},
                     .body_delay = LONG};
    env_t *env = *state;
    aloop_future_t *task = aloop_create_task(env->loop, play, &scene, NULL);
    for (int i = 0; i < turns; i++) run_turn(env->loop);
    int cancelled = aloop_future_cancel(task);
    int64_t result = run_future(env->loop, task);
    assert_int_equal(result, scene.end);
    assert_int_equal(scene.end, ALOOP_EIO);
    if (cancelled) assert_int_equal(aloop_task_cancelling(task), 1);
    if (cancelled && scene.left == 1) assert_int_equal(scene.next, ALOOP_ECANCELED);
    aloop_future_unref(task);
  }
}

/* ---- Nesting --------------------------------------------------------------------------------------------- */

static int64_t nested(aloop_t *loop, void *arg) {
  scene_t *inner = arg;
  plan_t failing = {.delay = MS, .result = ALOOP_EPIPE};
  aloop_task_group_t *outer = begin(loop);
  add(outer, &failing);
  int64_t rc = play(loop, inner);
  assert_int_equal(cancelling(loop), 1);
  rc = aloop_task_group_end(outer, rc);
  assert_int_equal(cancelling(loop), 0);
  aloop_task_group_free(outer);
  return rc;
}

static void a_failure_of_the_outer_group_cancels_the_inner_one(void **state) {
  for (int waits_in_body = 0; waits_in_body < 2; waits_in_body++) {
    scene_t inner = {.plans = {{.delay = LONG}, {.delay = LONG}, {.delay = LONG}},
                     .body_delay = waits_in_body ? LONG : 0};
    assert_int_equal(run(*state, nested, &inner), ALOOP_EPIPE);
    assert_int_equal(inner.end, ALOOP_ECANCELED);
    for (int i = 0; i < 3; i++) assert_int_equal(inner.plans[i].slept, ALOOP_ECANCELED);
  }
}

static int64_t inner_fails(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plan = {.delay = MS};
  scene_t inner = {.plans = {{.delay = 0, .result = ALOOP_EIO}, {.delay = LONG}, {.delay = LONG}},
                   .body_delay = LONG};
  aloop_task_group_t *outer = begin(loop);
  add(outer, &plan);
  assert_int_equal(play(loop, &inner), ALOOP_EIO);
  int64_t rc = aloop_task_group_end(outer, 6);
  assert_int_equal(plan.slept, 0);
  aloop_task_group_free(outer);
  return rc;
}

static void a_failure_of_the_inner_group_stays_there(void **state) {
  assert_int_equal(run(*state, inner_fails, NULL), 6);
}

/* ---- Time limits ----------------------------------------------------------------------------------------- */

static int64_t group_under_limit(aloop_t *loop, void *arg) {
  scene_t *scene = arg;
  aloop_timeout_t limit;
  aloop_timeout_begin(&limit, MS);
  int64_t rc = aloop_timeout_end(&limit, play(loop, scene));
  assert_int_equal(cancelling(loop), 0);
  return rc;
}

static void a_limit_around_a_group_cancels_its_children(void **state) {
  for (int waits_in_body = 0; waits_in_body < 2; waits_in_body++) {
    scene_t scene = {.plans = {{.delay = LONG}, {.delay = LONG}, {.delay = LONG}},
                     .body_delay = waits_in_body ? LONG : 0};
    assert_int_equal(run(*state, group_under_limit, &scene), ALOOP_ETIMEDOUT);
    assert_int_equal(scene.end, ALOOP_ECANCELED);
    assert_int_equal(scene.next, 0);
  }
}

static int64_t limit_in_group(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t failing = {.delay = MS, .result = ALOOP_EIO};
  aloop_timeout_t limit;
  aloop_task_group_t *group = begin(loop);
  add(group, &failing);
  aloop_timeout_begin(&limit, LONG);
  int64_t rc = aloop_timeout_end(&limit, nap(loop, LONG));
  assert_int_equal(rc, ALOOP_ECANCELED);
  rc = aloop_task_group_end(group, rc);
  aloop_task_group_free(group);
  return rc;
}

static void a_failure_passes_through_a_limit_inside(void **state) {
  assert_int_equal(run(*state, limit_in_group, NULL), ALOOP_EIO);
}

static int64_t limit_inside_expires(aloop_t *loop, void *arg) {
  (void)arg;
  plan_t plan = {.delay = LONG};
  aloop_timeout_t limit;
  aloop_task_group_t *group = begin(loop);
  add(group, &plan);
  aloop_timeout_begin(&limit, MS);
  int64_t rc = aloop_timeout_end(&limit, nap(loop, LONG));
  assert_int_equal(rc, ALOOP_ETIMEDOUT);
  rc = aloop_task_group_end(group, rc);
  assert_int_equal(plan.slept, ALOOP_ECANCELED);
  aloop_task_group_free(group);
  return rc;
}

static void an_expired_limit_inside_is_an_error_of_the_body(void **state) {
  assert_int_equal(run(*state, limit_inside_expires, NULL), ALOOP_ETIMEDOUT);
}

/* ---- The end of all -------------------------------------------------------------------------------------- */

static int64_t remember_end(aloop_t *loop, void *arg) {
  scene_t *scene = arg;
  return play(loop, scene);
}

static void groups_end_with_their_loop(void **state) {
  for (int waits_in_body = 0; waits_in_body < 2; waits_in_body++) {
    env_t *env = *state;
    env_loop(env, (aloop_options_t){.debug = -1});
    scene_t scene = {.plans = {{.delay = LONG}, {.delay = LONG}, {.delay = LONG}},
                     .body_delay = waits_in_body ? LONG : 0};
    aloop_future_detach(aloop_create_task(env->loop, remember_end, &scene, NULL));
    for (int i = 0; i < 3; i++) run_turn(env->loop);
    assert_int_equal(aloop_close(env->loop), 0);
    assert_int_equal(scene.end, ALOOP_ECLOSED);
    for (int i = 0; i < 3; i++) assert_int_equal(scene.plans[i].slept, ALOOP_ECLOSED);
  }
}

static int64_t leave_group(aloop_t *loop, void *arg) {
  plan_t *plan = arg;
  aloop_task_group_t *group = begin(loop);
  add(group, plan);
  nap(loop, 0);
  aloop_task_group_free(group);
  return 2;
}

static void freeing_a_group_cancels_its_children(void **state) {
  env_t *env = *state;
  plan_t plan = {.delay = LONG};
  assert_int_equal(run(env, leave_group, &plan), 2);
  run_turn(env->loop);
  run_turn(env->loop);
  assert_int_equal(plan.slept, ALOOP_ECANCELED);
}

typedef struct orphan {
  aloop_task_group_t *group;
  plan_t plan;
} orphan_t;

static int64_t forget_group(aloop_t *loop, void *arg) {
  orphan_t *orphan = arg;
  orphan->group = begin(loop);
  add(orphan->group, &orphan->plan);
  return 0;
}

static void a_child_that_fails_without_its_parent_is_reported(void **state) {
  env_t *env = *state;
  orphan_t orphan = {.plan = {.delay = 0, .result = ALOOP_EIO}};
  assert_int_equal(run(env, forget_group, &orphan), 0);
  for (int i = 0; i < 5; i++) run_turn(env->loop);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EIO);
  aloop_task_group_free(orphan.group);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

static int64_t quick(aloop_t *loop, void *arg) {
  (void)arg;
  return nap(loop, 0) < 0 ? ALOOP_ENOMEM : 0;
}

static int64_t group_of_two(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_task_group_t *group;
  int64_t rc = aloop_task_group_begin(loop, &group);
  if (rc < 0) return rc;
  for (int i = 0; i < 2 && rc == 0; i++) {
    aloop_future_t *child = aloop_task_group_create_task(group, quick, NULL, NULL);
    if (child == NULL) rc = ALOOP_ENOMEM;
    aloop_future_unref(child);
  }
  rc = aloop_task_group_end(group, rc);
  aloop_task_group_free(group);
  return rc;
}

static void scenario(env_t *env) {
  aloop_future_t *task = aloop_create_task(env->loop, group_of_two, NULL, NULL);
  if (task == NULL) return;
  int64_t rc = run_future(env->loop, task);
  assert_true(rc == 0 || rc == ALOOP_ENOMEM || rc == ALOOP_ENOTDONE);
  aloop_future_unref(task);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

/* ---- In the turn in which asyncio does it ---------------------------------------------------------------- */

static int64_t fail_at_once(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return ALOOP_EIO;
}

static int64_t add_an_eager_failure(aloop_t *loop, void *arg) {
  aloop_task_options_t options = {.size = sizeof options, .eager = true};
  plan_t late = {.delay = MS};
  (void)arg;
  aloop_task_group_t *group = begin(loop);
  aloop_future_detach(aloop_task_group_create_task(group, fail_at_once, NULL, &options));
  assert_int_equal(aloop_task_group_errors(group), 1);
  assert_int_equal(cancelling(loop), 1);
  aloop_future_t *refused = aloop_task_group_create_task(group, follow_plan, &late, NULL);
  assert_int_equal(aloop_future_result(refused), ALOOP_ECLOSED);
  aloop_future_unref(refused);
  int64_t rc = aloop_task_group_end(group, 0);
  aloop_task_group_free(group);
  return rc;
}

static void an_eager_child_that_fails_ends_the_group_at_once(void **state) {
  assert_int_equal(run(*state, add_an_eager_failure, NULL), ALOOP_EIO);
}

typedef struct family {
  plan_t child;
  bool ask_before_the_end;
} family_t;

static int64_t wait_for_one(aloop_t *loop, void *arg) {
  family_t *family = arg;
  aloop_task_group_t *group = begin(loop);
  add(group, &family->child);
  if (family->ask_before_the_end) aloop_future_cancel(aloop_current_task(loop));
  int64_t rc = aloop_task_group_end(group, 0);
  aloop_task_group_free(group);
  return rc;
}

/* The parent hears of the cancel when its turn comes; a child whose turn is before begins. */
static void a_cancelled_parent_lets_children_begin(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 2; i++) {
    family_t family = {.child = {.delay = LONG}, .ask_before_the_end = i == 1};
    aloop_future_t *parent = aloop_create_task(env->loop, wait_for_one, &family, NULL);
    run_turn(env->loop);
    if (i == 0) assert_int_equal(aloop_future_cancel(parent), 1);
    assert_int_equal(aloop_run_until_complete(env->loop, parent), ALOOP_ECANCELED);
    assert_int_equal(family.child.slept, ALOOP_ECANCELED);
  }
}

/* All before its turn comes. That it was asked is not undone by taking the count back. */
static void a_parent_that_is_asked_twice_hears_once(void **state) {
  env_t *env = *state;
  family_t family = {.child = {.delay = LONG}};
  aloop_future_t *parent = aloop_create_task(env->loop, wait_for_one, &family, NULL);
  for (int i = 0; i < 3; i++) run_turn(env->loop);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(aloop_future_cancel(parent), 1);
    assert_int_equal(aloop_task_uncancel(parent), 0);
  }
  assert_int_equal(aloop_future_cancel(parent), 1);
  assert_int_equal(aloop_run_until_complete(env->loop, parent), ALOOP_ECANCELED);
  assert_int_equal(family.child.slept, ALOOP_ECANCELED);
}

TESTS(T(the_end_waits_for_all_children), T(without_children_the_result_is_that_of_the_body),
      T(children_are_tasks_with_results), T(children_may_make_children_while_the_group_ends),
      T(one_failure_cancels_the_others_and_the_parent), T(a_failure_while_the_group_ends_is_its_result),
      T(errors_are_collected_in_their_order), T(the_words_of_the_first_error_go_on),
      T(an_error_of_the_body_cancels_the_children), T(a_child_that_was_cancelled_is_no_failure),
      T(nobody_is_born_into_a_group_that_ends), T(a_cancel_of_the_parent_cancels_the_children),
      T(the_end_waits_however_often_it_is_cancelled), T(a_failure_beside_a_cancel_of_others_keeps_both),
      T(a_cancel_after_the_failure_is_not_taken_back), T(a_failure_of_the_outer_group_cancels_the_inner_one),
      T(a_failure_of_the_inner_group_stays_there), T(a_limit_around_a_group_cancels_its_children),
      T(a_failure_passes_through_a_limit_inside), T(an_expired_limit_inside_is_an_error_of_the_body),
      T(groups_end_with_their_loop), T(freeing_a_group_cancels_its_children),
      T(a_child_that_fails_without_its_parent_is_reported), T(running_out_of_memory),
      T(an_eager_child_that_fails_ends_the_group_at_once), T(a_cancelled_parent_lets_children_begin),
      T(a_parent_that_is_asked_twice_hears_once))
