/* SPDX-License-Identifier: MIT
 *
 * Wrong calls of time limits and task groups, inside of tasks and outside: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"

/* Makes a task whose function runs at once, for mistakes of tasks; `arg` is the misuse_t. */
static void inside_a_task(misuse_t *m, aloop_task_fn fn) {
  aloop_task_options_t eager = {.size = sizeof eager, .eager = true};
  aloop_future_t *task = aloop_create_task(m->loop, fn, m, &eager);
  assert_non_null(task);
  assert_int_equal(aloop_future_result(task), 0);
  aloop_future_unref(task);
}

static int64_t do_nothing(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return 0;
}

/* ---- Time limits ----------------------------------------------------------------------------------------- */

static void limits_outside_of_tasks(misuse_t *m) {
  aloop_timeout_t scope;
  MISTAKE(aloop_timeout_begin(NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_timeout_begin_at(NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_timeout_end(NULL, 0), ALOOP_EPERM);
  MISTAKE(aloop_timeout_reschedule(NULL, 1), ALOOP_EPERM);
  MISTAKE(aloop_timeout_when(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_timeout_expired(NULL), false);
  MISTAKE(aloop_timeout_begin_at(&scope, 1), ALOOP_EPERM);
  MISTAKE(aloop_timeout_begin(&scope, 1), ALOOP_EPERM);
  MISTAKE(aloop_timeout_reschedule(&scope, 1), ALOOP_EPERM);
  ORDINARY(aloop_timeout_when(&scope), ALOOP_FOREVER);
  ORDINARY(aloop_timeout_expired(&scope), false);
  ORDINARY(aloop_timeout_end(&scope, 5), ALOOP_EPERM);
  ORDINARY(aloop_timeout_end(&scope, ALOOP_EIO), ALOOP_EIO);
}

static int64_t end_a_limit_twice(aloop_t *loop, void *arg) {
  (void)loop;
  misuse_t *m = arg;
  aloop_timeout_t scope;
  assert_int_equal(aloop_timeout_begin(&scope, ALOOP_SECONDS(1000)), 0);
  assert_int_equal(aloop_timeout_end(&scope, 0), 0);
  MISTAKE(aloop_timeout_end(&scope, 0), ALOOP_EPERM);
  MISTAKE(aloop_timeout_reschedule(&scope, 1), ALOOP_EPERM);
  ORDINARY(aloop_timeout_expired(&scope), false);
  return 0;
}

static void limits_inside_of_tasks(misuse_t *m) {
  inside_a_task(m, end_a_limit_twice);
}

/* ---- Groups ---------------------------------------------------------------------------------------------- */

static void groups_outside_of_tasks(misuse_t *m) {
  MISTAKE(aloop_task_group_begin(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_task_group_begin(m->loop, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_task_group_begin(m->loop, OUT), ALOOP_EPERM);
  MISTAKE(aloop_task_group_create_task(NULL, do_nothing, NULL, NULL), 0);
  MISTAKE(aloop_task_group_end(NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_task_group_errors(NULL), 0);
  MISTAKE(aloop_task_group_error(NULL, 0), 0);
  ORDINARY_OF_VOID(aloop_task_group_free(NULL));
}

static int64_t use_an_ended_group(aloop_t *loop, void *arg) {
  misuse_t *m = arg;
  aloop_task_group_t *group;
  assert_int_equal(aloop_task_group_begin(loop, &group), 0);
  ORDINARY(aloop_task_group_error(group, 0), 0);
  ORDINARY(aloop_task_group_error(group, SIZE_MAX), 0);
  assert_int_equal(aloop_task_group_end(group, 0), 0);
  MISTAKE(aloop_task_group_end(group, 0), ALOOP_EPERM);
  MISTAKE_OF_FUTURE(aloop_task_group_create_task(group, do_nothing, NULL, NULL), ALOOP_EPERM);
  aloop_task_group_free(group);
  return 0;
}

static int64_t use_a_group_of_another(aloop_t *loop, void *arg) {
  (void)loop;
  misuse_t *m = arg;
  MISTAKE(aloop_task_group_end(m->arg, 0), ALOOP_EPERM);
  return 0;
}

static int64_t lend_a_group(aloop_t *loop, void *arg) {
  misuse_t *m = arg;
  aloop_task_group_t *group;
  assert_int_equal(aloop_task_group_begin(loop, &group), 0);
  m->arg = group;
  inside_a_task(m, use_a_group_of_another);
  int64_t rc = aloop_task_group_end(group, 0);
  aloop_task_group_free(group);
  return rc;
}

static int64_t free_a_group_too_early(aloop_t *loop, void *arg) {
  misuse_t *m = arg;
  aloop_task_group_t *group;
  assert_int_equal(aloop_task_group_begin(loop, &group), 0);
  aloop_future_detach(aloop_task_group_create_task(group, do_nothing, NULL, NULL));
  int before = m->env->reports;
  aloop_task_group_free(group);
  assert_int_equal(m->env->reports - before, m->debug);
  m->env->reports = before;
  return 0;
}

static void groups_inside_of_tasks(misuse_t *m) {
  inside_a_task(m, use_an_ended_group);
  inside_a_task(m, lend_a_group);
  inside_a_task(m, free_a_group_too_early);
}

static void groups_of_a_closed_loop(misuse_t *m) {
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_task_group_begin(m->loop, OUT), ALOOP_ECLOSED);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

static void groups_of_another_thread(misuse_t *m) {
  MISTAKE(aloop_task_group_begin(m->loop, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_task_group_create_task(m->arg, do_nothing, NULL, NULL), 0);
  MISTAKE(aloop_task_group_end(m->arg, 0), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_task_group_errors(m->arg), 0);
  MISTAKE(aloop_task_group_error(m->arg, 0), 0);
  MISTAKE_OF_VOID(aloop_task_group_free(m->arg));
}

static void limits_of_another_thread(misuse_t *m) {
  MISTAKE(aloop_timeout_end(m->arg, 0), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_timeout_reschedule(m->arg, 1), ALOOP_ENOTLOOPTHREAD);
}

typedef struct both {
  misuse_t *m;
  aloop_timeout_t limit;
  aloop_task_group_t *group;
} both_t;

static int64_t begin_both(aloop_t *loop, void *arg) {
  both_t *both = arg;
  assert_int_equal(aloop_timeout_begin(&both->limit, ALOOP_SECONDS(1000)), 0);
  assert_int_equal(aloop_task_group_begin(loop, &both->group), 0);
  aloop_await(aloop_sleep(loop, ALOOP_SECONDS(1000)));
  int64_t rc = aloop_task_group_end(both->group, 0);
  aloop_task_group_free(both->group);
  return aloop_timeout_end(&both->limit, rc);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void time_limits(void **state) {
  in_both_modes(*state, limits_outside_of_tasks);
  in_both_modes(*state, limits_inside_of_tasks);
}

static void task_groups(void **state) {
  in_both_modes(*state, groups_outside_of_tasks);
  in_both_modes(*state, groups_inside_of_tasks);
  in_both_modes_outside(*state, groups_of_a_closed_loop);
}

/* Only debug mode looks which thread calls. */
static void other_threads(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  both_t both = {.m = &m};
  aloop_future_t *task = aloop_create_task(m.loop, begin_both, &both, NULL);
  run_turn(m.loop);
  m.arg = both.group;
  misuse_in_thread(&m, groups_of_another_thread);
  m.arg = &both.limit;
  misuse_in_thread(&m, limits_of_another_thread);
  aloop_future_cancel(task);
  assert_int_equal(run_future(m.loop, task), 0);
  aloop_future_unref(task);
  misuse_end(&m);
}

TESTS(T(time_limits), T(task_groups), T(other_threads))
