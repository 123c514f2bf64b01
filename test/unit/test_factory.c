/* SPDX-License-Identifier: MIT
 *
 * Task factories, and tasks whose bodies are elsewhere.
 * pollers: all
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "future/future.h"

static int destroyed;

static void count_destroy(void *arg) {
  (void)arg;
  destroyed++;
}

static int64_t answer(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return 42;
}

/* ---- Factories ----------------------------------------------------------------------------------------------- */

typedef struct maker {
  int made;
  aloop_future_t *gives; /* NULL: a task of ours */
} maker_t;

static aloop_future_t *make(aloop_t *loop, aloop_task_fn fn, void *arg, const aloop_task_options_t *options,
                            void *factory_arg) {
  maker_t *maker = factory_arg;
  maker->made++;
  return maker->gives != NULL ? maker->gives : (aloop_create_task)(loop, fn, arg, options);
}

static void a_factory_makes_the_tasks(void **state) {
  env_t *env = *state;
  maker_t maker = {0};
  void *arg = env;
  assert_null(aloop_get_task_factory(env->loop, &arg));
  assert_null(arg);
  assert_int_equal(aloop_set_task_factory(env->loop, make, &maker), 0);
  assert_true(aloop_get_task_factory(env->loop, &arg) == make);
  assert_ptr_equal(arg, &maker);
  aloop_future_t *task = aloop_create_task_from(env->loop, answer, NULL, NULL, "a.c:1");
  assert_int_equal(maker.made, 1);
  assert_string_equal(task->object.origin, "a.c:1");
  assert_int_equal(aloop_run_until_complete(env->loop, task), 42);
  assert_int_equal(aloop_set_task_factory(env->loop, NULL, NULL), 0);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_create_task(env->loop, answer, NULL, NULL)), 42);
  assert_int_equal(maker.made, 1);
}

static int64_t make_another(aloop_t *loop, void *arg) {
  (void)arg;
  return aloop_await(aloop_create_task(loop, answer, NULL, NULL));
}

static void what_an_eager_task_makes_is_the_factorys(void **state) {
  env_t *env = *state;
  maker_t maker = {0};
  aloop_set_task_factory(env->loop, make, &maker);
  aloop_task_options_t options = {.size = sizeof options, .eager = true};
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_create_task(env->loop, make_another, NULL, &options)), 42);
  assert_int_equal(maker.made, 2);
}

static void it_may_give_any_future(void **state) {
  env_t *env = *state;
  maker_t maker = {.gives = aloop_future_new(env->loop)};
  aloop_future_set_value(maker.gives, 3);
  aloop_set_task_factory(env->loop, make, &maker);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_create_task(env->loop, answer, NULL, NULL)), 3);
}

static aloop_future_t *make_none(aloop_t *loop, aloop_task_fn fn, void *arg,
                                 const aloop_task_options_t *options, void *factory_arg) {
  (void)loop, (void)fn, (void)arg, (void)options, (void)factory_arg;
  return NULL;
}

static void it_may_be_out_of_memory(void **state) {
  env_t *env = *state;
  aloop_set_task_factory(env->loop, make_none, NULL);
  assert_null(aloop_create_task(env->loop, answer, NULL, NULL));
}

static void futures_of_another_loop_are_refused(void **state) {
  env_t *env = *state;
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  maker_t maker = {.gives = aloop_future_new(other)};
  aloop_set_task_factory(env->loop, make, &maker);
  aloop_future_t *task = aloop_create_task(env->loop, answer, NULL, NULL);
  assert_int_equal(aloop_future_result(task), ALOOP_EOTHERLOOP);
  aloop_future_unref(task);
  aloop_free(other);
}

/* ---- Foreign tasks ------------------------------------------------------------------------------------------- */

static int asked;

static void ask(aloop_future_t *task, void *arg) {
  assert_non_null(arg);
  assert_true(aloop_is_task(task));
  asked++;
}

static void obey(aloop_future_t *task, void *arg) {
  ask(task, arg);
  aloop_future_set_error(task, ALOOP_ECANCELED, "as you wish");
}

static aloop_future_t *foreign(env_t *env, aloop_done_fn cancel) {
  asked = destroyed = 0;
  aloop_task_options_t options = {.size = sizeof options, .name = "lua", .destroy = count_destroy};
  return aloop_foreign_task_new(env->loop, &options, cancel, env);
}

static void a_foreign_task_is_a_task(void **state) {
  env_t *env = *state;
  aloop_future_t *task = foreign(env, ask), *all[1];
  assert_true(aloop_is_task(task));
  assert_string_equal(aloop_task_name(task), "lua");
  assert_int_equal(aloop_all_tasks(env->loop, all, 1), 1);
  assert_ptr_equal(all[0], task);
  aloop_future_unref(all[0]);
  assert_int_equal(aloop_future_set_value(task, 9), 0);
  assert_int_equal(destroyed, 1);
  assert_int_equal(aloop_all_tasks(env->loop, all, 1), 0);
  assert_int_equal(aloop_future_result(task), 9);
  aloop_future_unref(task);
  assert_int_equal(destroyed, 1);
}

static void it_is_current_while_it_is_entered(void **state) {
  env_t *env = *state;
  aloop_future_t *one = foreign(env, ask), *two = foreign(env, ask);
  assert_int_equal(aloop_task_enter(one), 0);
  assert_ptr_equal(aloop_current_task(env->loop), one);
  assert_int_equal(aloop_task_enter(one), ALOOP_EBUSY);
  assert_int_equal(aloop_task_enter(two), 0);
  assert_ptr_equal(aloop_current_task(env->loop), two);
  assert_int_equal(aloop_task_leave(one), ALOOP_EPERM);
  assert_int_equal(aloop_task_leave(two), 0);
  assert_int_equal(aloop_task_leave(one), 0);
  assert_null(aloop_current_task(env->loop));
  aloop_future_set_value(one, 0);
  assert_int_equal(aloop_task_enter(one), ALOOP_EDONE);
  aloop_future_unref(one);
  aloop_future_unref(two);
}

static void it_has_a_context_of_its_own(void **state) {
  env_t *env = *state;
  aloop_var_t *var;
  int value;
  assert_int_equal(aloop_var_new("v", &var), 0);
  aloop_future_t *task = foreign(env, ask);
  aloop_task_enter(task);
  aloop_var_set(env->loop, var, &value, count_destroy, NULL);
  aloop_task_leave(task);
  assert_null(aloop_var_get(env->loop, var, NULL));
  aloop_task_enter(task);
  assert_ptr_equal(aloop_var_get(env->loop, var, NULL), &value);
  aloop_future_set_value(task, 0);
  aloop_future_unref(task); /* it is kept until it is left */
  assert_ptr_equal(aloop_var_get(env->loop, var, NULL), &value);
  assert_int_equal(destroyed, 0);
  aloop_task_leave(task);
  assert_int_equal(destroyed, 2);
  aloop_var_unref(var);
}

static void it_may_share_a_context(void **state) {
  env_t *env = *state;
  aloop_var_t *var;
  int value;
  assert_int_equal(aloop_var_new("v", &var), 0);
  aloop_task_options_t options = {.size = sizeof options};
  assert_int_equal(aloop_context_copy(env->loop, &options.context), 0);
  aloop_future_t *one = aloop_foreign_task_new(env->loop, &options, ask, env);
  aloop_future_t *two = aloop_foreign_task_new(env->loop, &options, ask, env);
  aloop_context_unref(options.context);
  aloop_task_enter(one);
  aloop_var_set(env->loop, var, &value, NULL, NULL);
  aloop_future_set_value(one, 0);
  aloop_task_leave(one);
  aloop_task_enter(two);
  assert_ptr_equal(aloop_var_get(env->loop, var, NULL), &value);
  aloop_future_set_value(two, 0);
  aloop_task_leave(two);
  aloop_future_unref(one);
  aloop_future_unref(two);
  aloop_var_unref(var);
}

static void cancelling_asks_its_maker(void **state) {
  env_t *env = *state;
  aloop_future_t *task = foreign(env, ask);
  assert_int_equal(aloop_future_cancel(task), 1);
  assert_int_equal(aloop_task_cancel(task, "now"), 1);
  assert_int_equal(asked, 2);
  assert_int_equal(aloop_task_cancelling(task), 2);
  assert_int_equal(aloop_task_uncancel(task), 1);
  assert_false(aloop_future_done(task));
  aloop_future_set_value(task, 4);
  assert_int_equal(aloop_future_result(task), 4);
  aloop_future_unref(task);
  task = foreign(env, obey);
  assert_int_equal(aloop_task_cancel(task, NULL), 1);
  assert_string_equal(aloop_future_message(task), "as you wish");
  aloop_future_unref(task);
}

static void the_end_of_the_loop_asks_and_does_not_wait(void **state) {
  env_t *env = *state;
  aloop_future_t *task = foreign(env, ask);
  aloop_close(env->loop);
  assert_int_equal(asked, 1);
  assert_true(aloop_future_cancelled(task));
  assert_int_equal(destroyed, 1);
  aloop_future_unref(task);
  task = foreign(env, ask);
  assert_int_equal(aloop_future_result(task), ALOOP_ECLOSED);
  assert_int_equal(destroyed, 1);
  aloop_future_unref(task);
}

static void nobody_awaits_inside(void **state) {
  env_t *env = *state;
  aloop_future_t *task = foreign(env, ask), *future = aloop_future_new(env->loop);
  aloop_task_enter(task);
  assert_int_equal(aloop_await(future), ALOOP_EPERM);
  aloop_task_leave(task);
  aloop_future_unref(task);
}

static void make_both(env_t *env) {
  maker_t maker = {0};
  aloop_future_t *task = foreign(env, obey);
  aloop_set_task_factory(env->loop, make, &maker);
  aloop_future_t *other = aloop_create_task(env->loop, answer, NULL, NULL);
  if (task != NULL && other != NULL) aloop_future_cancel(task);
  aloop_future_unref(task);
  aloop_future_unref(other);
  env->fail_from = 0;
}

static void every_allocation_may_fail(void **state) {
  torture(*state, make_both);
}

TESTS(T(a_factory_makes_the_tasks), T(what_an_eager_task_makes_is_the_factorys), T(it_may_give_any_future),
      T(it_may_be_out_of_memory), T(futures_of_another_loop_are_refused), T(a_foreign_task_is_a_task),
      T(it_is_current_while_it_is_entered), T(it_has_a_context_of_its_own), T(it_may_share_a_context),
      T(cancelling_asks_its_maker), T(the_end_of_the_loop_asks_and_does_not_wait), T(nobody_awaits_inside),
      T(every_allocation_may_fail))
