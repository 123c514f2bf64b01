/* SPDX-License-Identifier: MIT
 *
 * Async generators: in the task that asks and in one of their own; thrown into, closed, cancelled, left open.
 * pollers: all
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "future/future.h"
#include "task/task.h"

/* What a generator under test does, and what it saw. */
typedef struct plan {
  aloop_generator_t *generator;
  int items[16];       /* yields pointers into this */
  int until;           /* so many */
  bool sleeps;         /* before each item and at the end */
  int64_t ends_with;   /* ... if nothing is thrown in */
  int ignores;         /* so many errors thrown in */
  int thrown;          /* the last one */
  int begun, ended;    /* times */
  int destroyed;       /* the arg */
  aloop_future_t *in;  /* the task that was current at the last item; borrowed */
  aloop_future_t *own; /* if not NULL, awaited instead of sleeping */
} plan_t;

static void destroy_plan(void *arg) {
  ((plan_t *)arg)->destroyed++;
}

static int64_t pause_before(aloop_t *loop, plan_t *plan) {
  if (plan->own != NULL) return aloop_await(aloop_future_ref(plan->own));
  return plan->sleeps ? aloop_await(aloop_sleep(loop, ALOOP_MILLIS(1))) : 0;
}

static int64_t hand_out(aloop_t *loop, plan_t *plan) {
  for (int i = 0; i < plan->until; i++) {
    int64_t rc = pause_before(loop, plan);
    if (rc < 0) return rc;
    plan->items[i] = i;
    plan->in = aloop_current_task(loop);
    int thrown = aloop_yield(&plan->items[i]);
    if (thrown < 0) plan->thrown = thrown;
    if (thrown < 0 && plan->ignores-- <= 0) return thrown;
  }
  int64_t rc = pause_before(loop, plan);
  return rc < 0 ? rc : plan->ends_with;
}

static int64_t generate(aloop_t *loop, void *arg) {
  plan_t *plan = arg;
  plan->begun++;
  int64_t rc = hand_out(loop, plan);
  plan->ended++;
  return rc;
}

static aloop_generator_t *make(env_t *env, plan_t *plan) {
  aloop_generator_options_t options = {.size = sizeof options, .name = "numbers", .destroy = destroy_plan};
  assert_int_equal(aloop_generator_new(env->loop, generate, plan, &options, &plan->generator), 0);
  return plan->generator;
}

/* The end of asking, outside of tasks; the item, if there is one, goes to *number. */
static int64_t next(env_t *env, plan_t *plan, int *number) {
  aloop_future_t *future = aloop_generator_next(plan->generator);
  assert_non_null(future);
  int64_t rc = run_future(env->loop, future);
  int *item = NULL;
  if (rc == 1 && aloop_future_take_ptr(future, &item) == 0 && number != NULL) *number = *item;
  aloop_future_unref(future);
  return rc;
}

static int64_t run_task(env_t *env, aloop_task_fn fn, void *arg) {
  return aloop_run_until_complete(env->loop, aloop_create_task(env->loop, fn, arg, NULL));
}

/* ---- Items --------------------------------------------------------------------------------------------------- */

/* Returns the sum of all items, or the error. */
static int64_t add_up(aloop_t *loop, void *arg) {
  (void)loop;
  plan_t *plan = arg;
  int64_t sum = 0, rc;
  int *item;
  while ((rc = aloop_await_ptr(aloop_generator_next(plan->generator), &item)) == 0) sum += *item;
  return rc == ALOOP_ENOENT ? sum : rc;
}

static void a_task_gets_one_item_after_the_other(void **state) {
  env_t *env = *state;
  for (int sleeps = 0; sleeps < 2; sleeps++) {
    plan_t plan = {.until = 10, .sleeps = sleeps};
    make(env, &plan);
    assert_int_equal(plan.begun, 0);
    assert_int_equal(run_task(env, add_up, &plan), 45);
    assert_int_equal(plan.ended, 1);
    assert_int_equal(plan.destroyed, 1);
    aloop_generator_unref(plan.generator);
  }
}

static int64_t current_at_next(aloop_t *loop, void *arg) {
  plan_t *plan = arg;
  int64_t rc = aloop_await(aloop_generator_next(plan->generator));
  return rc == 1 && plan->in == aloop_current_task(loop);
}

static void its_function_is_part_of_the_task_that_awaits(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 4, .sleeps = true};
  make(env, &plan);
  for (int i = 0; i < 3; i++) assert_int_equal(run_task(env, current_at_next, &plan), 1);
  plan.sleeps = false;
  assert_int_equal(run_task(env, current_at_next, &plan), 1);
  assert_int_equal(next(env, &plan, NULL), 0);
  aloop_generator_unref(plan.generator);
}

static int64_t ask_many_times(aloop_t *loop, void *arg) {
  plan_t *plan = arg;
  aloop_metrics_t before = {.size = sizeof before}, after = {.size = sizeof after};
  aloop_metrics(loop, &before);
  int64_t rc = add_up(loop, plan);
  aloop_metrics(loop, &after);
  assert_int_equal(after.turns, before.turns);
  assert_int_equal(after.tasks, before.tasks);
  assert_true(after.ready <= before.ready + 1);
  return rc;
}

static void items_that_are_there_cost_no_turn(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 16};
  make(env, &plan);
  assert_int_equal(run_task(env, ask_many_times, &plan), 120);
  aloop_generator_unref(plan.generator);
}

static void outside_of_tasks_it_runs_in_one_of_its_own(void **state) {
  env_t *env = *state;
  for (int sleeps = 0; sleeps < 2; sleeps++) {
    plan_t plan = {.until = 3, .sleeps = sleeps};
    make(env, &plan);
    for (int i = 0; i < 3; i++) {
      int number = -1;
      assert_int_equal(next(env, &plan, &number), 1);
      assert_int_equal(number, i);
    }
    assert_int_equal(next(env, &plan, NULL), 0);
    assert_int_equal(next(env, &plan, NULL), 0);
    aloop_generator_unref(plan.generator);
    run_turn(env->loop);
    assert_int_equal(env->loop->live[ALOOP__TASK], 0);
  }
}

static int64_t pass_on(aloop_t *loop, void *arg) {
  plan_t *inner = arg;
  int *item;
  int rc;
  while ((rc = aloop_await_ptr(aloop_generator_next(inner->generator), &item)) == 0) {
    rc = aloop_await(aloop_sleep(loop, 0)) < 0 ? ALOOP_ECANCELED : aloop_yield(item);
    if (rc < 0) return rc;
  }
  return rc == ALOOP_ENOENT ? 0 : rc;
}

static void generators_await_generators(void **state) {
  env_t *env = *state;
  plan_t inner = {.until = 10, .sleeps = true}, outer = {.until = 0};
  make(env, &inner);
  assert_int_equal(aloop_generator_new(env->loop, pass_on, &inner, NULL, &outer.generator), 0);
  assert_int_equal(run_task(env, add_up, &outer), 45);
  aloop_generator_unref(outer.generator);
  aloop_generator_unref(inner.generator);
}

static int64_t wait_a_little(aloop_t *loop, void *arg) {
  (void)loop;
  plan_t *plan = arg;
  int64_t late = aloop_await(aloop_wait_for(aloop_generator_next(plan->generator), ALOOP_MILLIS(5)));
  int64_t after = aloop_await(aloop_generator_next(plan->generator));
  return late == ALOOP_ETIMEDOUT ? after : -1;
}

static void a_step_can_have_a_time_limit(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 3, .own = aloop_future_new(env->loop)};
  make(env, &plan);
  assert_int_equal(run_task(env, wait_a_little, &plan), 0); /* it was cancelled and has ended */
  assert_int_equal(plan.ended, 1);
  aloop_generator_unref(plan.generator);
  aloop_future_unref(plan.own);
}

static void an_item_that_nobody_read_comes_again(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 2};
  make(env, &plan);
  aloop_future_unref(aloop_generator_next(plan.generator));
  run_turn(env->loop);
  run_turn(env->loop);
  assert_int_equal(plan.begun, 1);
  int number = -1;
  assert_int_equal(next(env, &plan, &number), 1);
  assert_int_equal(number, 0);
  assert_int_equal(next(env, &plan, &number), 1);
  assert_int_equal(number, 1);
  assert_int_equal(next(env, &plan, NULL), 0);
  aloop_generator_unref(plan.generator);
}

static void a_step_taken_back_before_it_began_changes_nothing(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 1};
  make(env, &plan);
  aloop_future_t *step = aloop_generator_next(plan.generator);
  assert_int_equal(aloop_future_cancel(step), 1);
  assert_true(aloop_future_cancelled(step));
  aloop_future_unref(step);
  run_turn(env->loop);
  assert_int_equal(plan.begun, 0);
  assert_int_equal(next(env, &plan, NULL), 1);
  assert_int_equal(next(env, &plan, NULL), 0);
  aloop_generator_unref(plan.generator);
}

/* ---- Ends ---------------------------------------------------------------------------------------------------- */

static int64_t fail_with_message(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return aloop_return_error(ALOOP_EIO, "page %d is torn", 7);
}

static void its_error_is_that_of_the_step(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 1, .ends_with = ALOOP_EIO};
  make(env, &plan);
  assert_int_equal(next(env, &plan, NULL), 1);
  assert_int_equal(next(env, &plan, NULL), ALOOP_EIO);
  assert_int_equal(next(env, &plan, NULL), 0);
  aloop_generator_unref(plan.generator);
  assert_int_equal(aloop_generator_new(env->loop, fail_with_message, NULL, NULL, &plan.generator), 0);
  aloop_future_t *step = aloop_generator_next(plan.generator);
  assert_int_equal(run_future(env->loop, step), ALOOP_EIO);
  assert_string_equal(aloop_future_message(step), "page 7 is torn");
  aloop_future_unref(step);
  aloop_generator_unref(plan.generator);
}

static int64_t throw_then_next(aloop_t *loop, void *arg) {
  (void)loop;
  plan_t *plan = arg;
  int *item = NULL;
  assert_int_equal(aloop_await(aloop_generator_next(plan->generator)), 1);
  assert_int_equal(aloop_await_ptr(aloop_generator_throw(plan->generator, ALOOP_EIO), &item), 0);
  assert_int_equal(*item, 1);
  assert_int_equal(plan->thrown, ALOOP_EIO);
  return aloop_await(aloop_generator_throw(plan->generator, ALOOP_EPIPE));
}

static void what_is_thrown_in_is_yields_answer(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 5, .ignores = 1};
  make(env, &plan);
  assert_int_equal(run_task(env, throw_then_next, &plan), ALOOP_EPIPE);
  assert_int_equal(plan.thrown, ALOOP_EPIPE);
  aloop_generator_unref(plan.generator);
}

static void one_that_has_not_begun_ends_with_what_is_thrown(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 5};
  make(env, &plan);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_generator_throw(plan.generator, ALOOP_EIO)),
                   ALOOP_EIO);
  assert_int_equal(plan.begun, 0);
  assert_int_equal(plan.destroyed, 1);
  assert_int_equal(next(env, &plan, NULL), 0);
  aloop_generator_unref(plan.generator);
}

static void closing_unwinds_it(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 5};
  make(env, &plan);
  assert_int_equal(next(env, &plan, NULL), 1);
  for (int i = 0; i < 2; i++)
    assert_int_equal(aloop_run_until_complete(env->loop, aloop_generator_close(plan.generator)), 0);
  assert_int_equal(plan.thrown, ALOOP_ECLOSED);
  assert_int_equal(plan.ended, 1);
  assert_int_equal(next(env, &plan, NULL), 0);
  aloop_generator_unref(plan.generator);
  plan = (plan_t){.until = 5};
  make(env, &plan);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_generator_close(plan.generator)), 0);
  assert_int_equal(plan.begun, 0);
  assert_int_equal(plan.destroyed, 1);
  aloop_generator_unref(plan.generator);
}

static void one_that_yields_while_it_is_closed_is_wrong(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 5, .ignores = 1};
  make(env, &plan);
  assert_int_equal(next(env, &plan, NULL), 1);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_generator_close(plan.generator)), ALOOP_EINVAL);
  assert_int_equal(plan.ended, 0);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_generator_close(plan.generator)), 0);
  assert_int_equal(plan.ended, 1);
  aloop_generator_unref(plan.generator);
}

static void one_let_go_of_is_closed_in_the_background(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 5};
  make(env, &plan);
  assert_int_equal(next(env, &plan, NULL), 1);
  aloop_generator_unref(plan.generator);
  assert_int_equal(plan.ended, 0);
  run_turn(env->loop);
  assert_int_equal(plan.ended, 1);
  assert_int_equal(plan.destroyed, 1);
  plan = (plan_t){.until = 5};
  make(env, &plan);
  aloop_generator_unref(plan.generator);
  assert_int_equal(plan.destroyed, 1);
}

static void one_that_refuses_to_end_is_dropped(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 16, .ignores = 100};
  make(env, &plan);
  assert_int_equal(next(env, &plan, NULL), 1);
  aloop_generator_unref(plan.generator);
  for (int i = 0; i < 5; i++) run_turn(env->loop);
  assert_int_equal(plan.ended, 0);
  assert_int_equal(plan.destroyed, 1);
  assert_int_equal(env->reports, 1); /* the error of closing it */
  assert_int_equal(env->report_errors[0], ALOOP_EINVAL);
}

/* ---- Cancelling ---------------------------------------------------------------------------------------------- */

/* A task in whose midst a generator runs, cancelled at its n-th suspension, for every n. */
static void cancelling_at_every_point_leaves_nothing(void **state) {
  env_t *env = *state;
  bool reached = true;
  for (int n = 0; reached; n++) {
    plan_t inner = {.until = 4, .sleeps = true}, outer = {.until = 0};
    make(env, &inner);
    assert_int_equal(aloop_generator_new(env->loop, pass_on, &inner, NULL, &outer.generator), 0);
    aloop_future_t *task = aloop_create_task(env->loop, add_up, &outer, NULL);
    for (int i = 0; i < n && !aloop_future_done(task); i++) aloop_run_once(env->loop, ALOOP_SECONDS(5));
    reached = aloop_future_cancel(task) == 1;
    int64_t rc = run_future(env->loop, task);
    assert_true(rc == (reached ? ALOOP_ECANCELED : 6));
    aloop_future_unref(task);
    aloop_generator_unref(outer.generator);
    aloop_generator_unref(inner.generator);
    assert_int_equal(aloop_run_until_complete(env->loop, aloop_shutdown_asyncgens(env->loop)), 0);
    for (int i = 0; i < 3; i++) run_turn(env->loop);
    assert_int_equal(inner.begun, inner.ended);
    assert_int_equal(inner.destroyed, 1);
    assert_int_equal(env->loop->live[ALOOP__GENERATOR], 0);
    assert_true(n < 1000);
  }
}

static void cancelling_a_step_of_its_own_task_reaches_the_function(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 2, .own = aloop_future_new(env->loop)};
  make(env, &plan);
  aloop_future_t *step = aloop_generator_next(plan.generator);
  run_turn(env->loop);
  assert_int_equal(plan.begun, 1);
  assert_int_equal(aloop_future_cancel(step), 1);
  assert_false(aloop_future_done(step));
  assert_int_equal(run_future(env->loop, step), ALOOP_ECANCELED);
  assert_int_equal(plan.ended, 1);
  assert_true(aloop_future_cancelled(plan.own));
  aloop_future_unref(step);
  aloop_generator_unref(plan.generator);
  aloop_future_unref(plan.own);
}

static int64_t second_step(aloop_t *loop, void *arg) {
  (void)loop;
  plan_t *plan = arg;
  return aloop_await(aloop_generator_next(plan->generator));
}

static void one_step_at_a_time(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 2, .sleeps = true};
  make(env, &plan);
  aloop_future_t *first = aloop_create_task(env->loop, second_step, &plan, NULL);
  run_turn(env->loop);
  assert_int_equal(run_task(env, second_step, &plan), ALOOP_EBUSY);
  assert_int_equal(run_future(env->loop, first), 1);
  aloop_future_unref(first);
  assert_int_equal(run_task(env, second_step, &plan), 1);
  aloop_generator_unref(plan.generator);
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  assert_int_equal(plan.ended, 1);
}

/* ---- The end of the loop ------------------------------------------------------------------------------------- */

static void shutting_down_closes_all_that_are_open(void **state) {
  env_t *env = *state;
  plan_t plans[5];
  for (int i = 0; i < 5; i++) {
    plans[i] = (plan_t){.until = 5, .ends_with = 0};
    make(env, &plans[i]);
    if (i > 0) assert_int_equal(next(env, &plans[i], NULL), 1);
  }
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_shutdown_asyncgens(env->loop)), 4);
  for (int i = 0; i < 5; i++) {
    assert_int_equal(plans[i].ended, i > 0);
    aloop_generator_unref(plans[i].generator);
    assert_int_equal(plans[i].destroyed, 1);
  }
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_shutdown_asyncgens(env->loop)), 0);
}

static int64_t end_badly(aloop_t *loop, void *arg) {
  (void)loop;
  return aloop_yield(arg) < 0 ? ALOOP_EIO : 0;
}

static void errors_of_closing_are_reported(void **state) {
  env_t *env = *state;
  aloop_generator_t *generator;
  assert_int_equal(aloop_generator_new(env->loop, end_badly, NULL, NULL, &generator), 0);
  aloop_future_t *step = aloop_generator_next(generator);
  assert_int_equal(run_future(env->loop, step), 1);
  aloop_future_unref(step);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_shutdown_asyncgens(env->loop)), 1);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EIO);
  aloop_generator_unref(generator);
}

static void what_is_open_unwinds_when_the_loop_is_closed(void **state) {
  env_t *env = *state;
  plan_t open = {.until = 5}, asked = {.until = 5}, fresh = {.until = 5}, waiting = {.until = 5};
  waiting.own = aloop_future_new(env->loop);
  make(env, &open);
  make(env, &asked);
  make(env, &fresh);
  make(env, &waiting);
  assert_int_equal(next(env, &open, NULL), 1);
  aloop_future_t *task = aloop_create_task(env->loop, add_up, &waiting, NULL);
  run_turn(env->loop);
  aloop_future_t *step = aloop_generator_next(asked.generator);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(open.ended, 1);
  assert_int_equal(open.thrown, ALOOP_ECLOSED);
  assert_int_equal(waiting.ended, 1);
  assert_int_equal(asked.begun, 0);
  assert_true(aloop_future_done(step));
  assert_true(aloop_future_done(task));
  aloop_future_t *late = aloop_generator_next(open.generator);
  assert_int_equal(aloop_future_result(late), ALOOP_ECLOSED);
  aloop_future_unref(late);
  aloop_future_unref(step);
  aloop_future_unref(task);
  aloop_future_unref(waiting.own);
  aloop_generator_unref(open.generator);
  aloop_generator_unref(asked.generator);
  aloop_generator_unref(fresh.generator);
  aloop_generator_unref(waiting.generator);
  assert_int_equal(open.destroyed + asked.destroyed + fresh.destroyed + waiting.destroyed, 4);
}

static int64_t go_on_forever(aloop_t *loop, void *arg) {
  int64_t sum = 0;
  while (sum <= 0) sum += aloop_yield(arg) + aloop_await(aloop_sleep(loop, 0));
  return sum;
}

typedef struct asking {
  aloop_generator_t *generator;
  aloop_future_t *step; /* what the dropped frames of the task held */
} asking_t;

static int64_t ask_in_between(aloop_t *loop, void *arg) {
  asking_t *asking = arg;
  for (int64_t rc = 0; rc >= 0;) {
    asking->step = aloop_generator_next(asking->generator);
    (void)aloop_await_keep(asking->step);
    aloop_future_unref(asking->step);
    asking->step = NULL;
    rc = aloop_await(aloop_sleep(loop, 0));
  }
  return 0;
}

static void frames_that_go_on_and_on_are_dropped(void **state) {
  env_t *env = *state;
  aloop_generator_t *idle;
  asking_t asking = {.step = NULL};
  assert_int_equal(aloop_generator_new(env->loop, go_on_forever, NULL, NULL, &idle), 0);
  assert_int_equal(aloop_generator_new(env->loop, go_on_forever, NULL, NULL, &asking.generator), 0);
  aloop_future_t *step = aloop_generator_next(idle);
  assert_int_equal(run_future(env->loop, step), 1);
  aloop_future_unref(step);
  aloop_future_t *task = aloop_create_task(env->loop, ask_in_between, &asking, NULL);
  for (int i = 0; i < 6 && asking.step == NULL; i++) run_turn(env->loop);
  assert_non_null(asking.step);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(env->reports, 2);
  aloop_future_unref(asking.step);
  aloop_future_unref(task);
  aloop_generator_unref(idle);
  aloop_generator_unref(asking.generator);
}

static void the_dump_names_it(void **state) {
  env_t *env = *state;
  plan_t plan = {.until = 1};
  make(env, &plan);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.generators, 1);
  aloop_generator_t *same = aloop_generator_ref(plan.generator);
  assert_ptr_equal(same, plan.generator);
  aloop_generator_unref(same);
  aloop_generator_unref(plan.generator);
  aloop_generator_unref(NULL);
  assert_null(aloop_generator_ref(NULL));
}

/* ---- Out of memory ------------------------------------------------------------------------------------------- */

static void use_one(env_t *env) {
  aloop_generator_t *generator;
  plan_t plan = {.until = 3, .sleeps = true};
  aloop_generator_options_t options = {.size = sizeof options, .name = "n", .destroy = destroy_plan};
  if (aloop_generator_new(env->loop, generate, &plan, &options, &generator) < 0) return;
  plan.generator = generator;
  aloop_future_t *task = aloop_create_task(env->loop, add_up, &plan, NULL);
  if (task != NULL) {
    int64_t rc = aloop_run_until_complete(env->loop, task);
    assert_true(rc == 3 || rc == ALOOP_ENOMEM);
  }
  aloop_future_t *step = aloop_generator_next(generator);
  if (step != NULL) (void)aloop_run_until_complete(env->loop, step);
  aloop_generator_unref(generator);
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  env->fail_from = 0;
  aloop_close(env->loop);
  assert_int_equal(plan.destroyed, 1);
}

static void nothing_is_lost_when_memory_is(void **state) {
  torture(*state, use_one);
}

TESTS(T(a_task_gets_one_item_after_the_other), T(its_function_is_part_of_the_task_that_awaits),
      T(items_that_are_there_cost_no_turn), T(outside_of_tasks_it_runs_in_one_of_its_own),
      T(generators_await_generators), T(a_step_can_have_a_time_limit), T(an_item_that_nobody_read_comes_again),
      T(a_step_taken_back_before_it_began_changes_nothing), T(its_error_is_that_of_the_step),
      T(what_is_thrown_in_is_yields_answer), T(one_that_has_not_begun_ends_with_what_is_thrown),
      T(closing_unwinds_it), T(one_that_yields_while_it_is_closed_is_wrong),
      T(one_let_go_of_is_closed_in_the_background), T(one_that_refuses_to_end_is_dropped),
      T(cancelling_at_every_point_leaves_nothing), T(cancelling_a_step_of_its_own_task_reaches_the_function),
      T(one_step_at_a_time), T(shutting_down_closes_all_that_are_open), T(errors_of_closing_are_reported),
      T(what_is_open_unwinds_when_the_loop_is_closed), T(frames_that_go_on_and_on_are_dropped),
      T(the_dump_names_it), T(nothing_is_lost_when_memory_is))
