/* SPDX-License-Identifier: MIT
 *
 * Context variables: who sees which value, when values are released, tokens, contexts of their own.
 */
#include "harness.h"

#include <string.h>
#include <unistd.h>

#include "core/loop.h"

/* A counted value, to see when its destructor runs. */
static void count_destroy(void *arg) {
  ++*(int *)arg;
}

typedef struct look {
  aloop_var_t *var;
  const char *set; /* what to set after looking, or NULL */
  const char *seen;
} look_t;

static void look(aloop_t *loop, void *arg) {
  look_t *self = arg;
  self->seen = aloop_var_get(loop, self->var, "none");
  if (self->set != NULL)
    assert_int_equal(aloop_var_set(loop, self->var, (void *)(uintptr_t)self->set, NULL, NULL), 0);
}

static aloop_var_t *new_var(void) {
  aloop_var_t *var = NULL;
  assert_int_equal(aloop_var_new("variable", &var), 0);
  return var;
}

static void a_variable_has_no_value_at_first(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  assert_string_equal(aloop_var_get(env->loop, var, "fallback"), "fallback");
  assert_null(aloop_var_get(env->loop, var, NULL));
  aloop_var_unref(var);
}

static void setting_replaces_the_value(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var(), *other = new_var();
  assert_int_equal(aloop_var_set(env->loop, var, "one", NULL, NULL), 0);
  assert_int_equal(aloop_var_set(env->loop, other, "two", NULL, NULL), 0);
  assert_int_equal(aloop_var_set(env->loop, var, "three", NULL, NULL), 0);
  assert_string_equal(aloop_var_get(env->loop, var, NULL), "three");
  assert_string_equal(aloop_var_get(env->loop, other, NULL), "two");
  aloop_var_unref(var);
  aloop_var_unref(other);
}

static void a_callback_sees_what_was_set_when_it_was_scheduled(void **state) {
  env_t *env = *state;
  look_t looks[3] = {0};
  aloop_var_t *var = new_var();
  for (int i = 0; i < 3; i++) looks[i].var = var;
  aloop_call_soon(env->loop, look, &looks[0]);
  aloop_var_set(env->loop, var, "early", NULL, NULL);
  aloop_call_soon(env->loop, look, &looks[1]);
  aloop_call_later(env->loop, 0, look, &looks[2]);
  aloop_var_set(env->loop, var, "late", NULL, NULL);
  while (looks[1].seen == NULL || looks[2].seen == NULL) run_turn(env->loop);
  assert_string_equal(looks[0].seen, "none");
  assert_string_equal(looks[1].seen, "early");
  assert_string_equal(looks[2].seen, "early");
  assert_string_equal(aloop_var_get(env->loop, var, NULL), "late");
  aloop_var_unref(var);
}

static void what_a_callback_sets_ends_with_it(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  look_t first = {var, "inner", NULL}, second = {var, NULL, NULL};
  aloop_call_soon(env->loop, look, &first);
  aloop_call_soon(env->loop, look, &second);
  run_turn(env->loop);
  assert_string_equal(second.seen, "none");
  assert_null(aloop_var_get(env->loop, var, NULL));
  aloop_var_unref(var);
}

typedef struct parent {
  look_t *child;
  aloop_var_t *var;
} parent_t;

static void set_and_schedule(aloop_t *loop, void *arg) {
  parent_t *parent = arg;
  aloop_var_set(loop, parent->var, "of the parent", NULL, NULL);
  aloop_call_soon(loop, look, parent->child);
  aloop_var_set(loop, parent->var, "later", NULL, NULL);
}

static void a_callback_hands_its_context_down(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  look_t child = {var, NULL, NULL};
  parent_t parent = {&child, var};
  aloop_call_soon(env->loop, set_and_schedule, &parent);
  while (child.seen == NULL) run_turn(env->loop);
  assert_string_equal(child.seen, "of the parent");
  aloop_var_unref(var);
}

static void the_first_variable_may_be_set_inside_a_batch(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  look_t child = {var, NULL, NULL}, neighbour = {var, NULL, NULL};
  parent_t parent = {&child, var};
  aloop_call_soon(env->loop, set_and_schedule, &parent);
  aloop_call_soon(env->loop, look, &neighbour);
  assert_int_equal(run_turn(env->loop), 2);
  assert_string_equal(neighbour.seen, "none");
  assert_null(child.seen);
  run_turn(env->loop);
  assert_string_equal(child.seen, "of the parent");
  aloop_var_unref(var);
}

static void contexts_move_along_as_the_deque_grows(void **state) {
  env_t *env = *state;
  enum { COUNT = 300 };
  static const char *const values[] = {"zero", "one", "two"};
  look_t looks[COUNT];
  aloop_var_t *var = new_var();
  for (int i = 0; i < COUNT; i++) {
    looks[i] = (look_t){var, NULL, NULL};
    if (i % 7 == 0) aloop_var_set(env->loop, var, (void *)(uintptr_t)values[i / 7 % 3], NULL, NULL);
    aloop_call_soon(env->loop, look, &looks[i]);
  }
  assert_int_equal(run_turn(env->loop), COUNT);
  for (int i = 0; i < COUNT; i++) assert_string_equal(looks[i].seen, values[i / 7 % 3]);
  aloop_var_unref(var);
}

static void a_place_in_the_deque_keeps_no_context(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  look_t looks[100];
  aloop_var_set(env->loop, var, "captured", NULL, NULL);
  for (int i = 0; i < 100; i++) {
    looks[i] = (look_t){var, NULL, NULL};
    aloop_handle_t handle = aloop_call_soon(env->loop, look, &looks[i]);
    if (i % 2 == 0) aloop_cancel(env->loop, &handle);
  }
  assert_int_equal(run_turn(env->loop), 50);
  for (int i = 0; i < 100; i++) assert_true(aloop__ready_push(env->loop, look, &looks[i])); /* without one */
  assert_int_equal(run_turn(env->loop), 100);
  for (int i = 0; i < 100; i++) assert_string_equal(looks[i].seen, "none");
  aloop_var_unref(var);
}

static void a_repeating_timer_starts_afresh_each_time(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  aloop_var_t *var = new_var();
  look_t beat = {var, "set by a beat", NULL};
  aloop_handle_t handle = aloop_call_every(env->loop, 5, look, &beat);
  for (int i = 0; i < 3; i++) {
    beat.seen = NULL;
    aloop_run_once(env->loop, ALOOP_FOREVER);
    assert_string_equal(beat.seen, "none");
  }
  aloop_cancel(env->loop, &handle);
  aloop_var_unref(var);
}

/* ---- Life of values ------------------------------------------------------------------------------------------ */

static void a_value_goes_with_the_last_context_that_holds_it(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  look_t looks[2] = {{var, NULL, NULL}, {var, NULL, NULL}};
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  aloop_call_soon(env->loop, look, &looks[0]);
  aloop_handle_t handle = aloop_call_later(env->loop, ALOOP_SECONDS(3600), look, &looks[1]);
  aloop_var_set(env->loop, var, NULL, NULL, NULL);
  assert_int_equal(destroyed, 0);
  run_turn(env->loop);
  assert_int_equal(destroyed, 0);
  aloop_cancel(env->loop, &handle);
  assert_int_equal(destroyed, 1);
  aloop_var_unref(var);
}

static void cancelling_a_ready_callback_releases_its_context(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  look_t self = {var, NULL, NULL};
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  aloop_handle_t handle = aloop_call_soon(env->loop, look, &self);
  aloop_var_set(env->loop, var, NULL, NULL, NULL);
  aloop_cancel(env->loop, &handle);
  assert_int_equal(destroyed, 1);
  aloop_var_unref(var);
}

static void closing_the_loop_releases_all_values(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  look_t self = {var, NULL, NULL};
  for (int i = 0; i < 5; i++) {
    aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
    aloop_call_soon(env->loop, look, &self);
    aloop_call_later(env->loop, 5, look, &self);
  }
  aloop_var_unref(var); /* values keep it */
  aloop_close(env->loop);
  assert_int_equal(destroyed, 5);
}

/* ---- Destructors --------------------------------------------------------------------------------------------- */

/* A value whose destructor uses the loop in every way that moves its memory about. */
typedef struct busy {
  aloop_t *loop;
  aloop_var_t *var;
  int destroyed;
  int calls;
} busy_t;

static void count_busy(aloop_t *loop, void *arg) {
  (void)loop;
  busy_t *busy = arg;
  busy->calls++;
}

static void be_busy(void *value) {
  busy_t *busy = value;
  busy->destroyed++;
  assert_null(aloop_var_get(busy->loop, busy->var, NULL));
  aloop_var_set(busy->loop, busy->var, "set by a destructor", NULL, NULL);
  for (int i = 0; i < 100; i++) {
    aloop_call_soon(busy->loop, count_busy, busy);
    aloop_call_later(busy->loop, ALOOP_SECONDS(3600), count_busy, busy);
  }
}

static void count_busy_end(aloop_future_t *future, void *arg) {
  count_busy(aloop_future_loop(future), arg);
}

static void set_busy(aloop_t *loop, void *arg) {
  busy_t *busy = arg;
  assert_int_equal(aloop_var_set(loop, busy->var, busy, be_busy, NULL), 0);
}

/* Schedules something with the value in its context, and takes it back. */
static void take_back(env_t *env, busy_t *busy, int way) {
  aloop_t *loop = env->loop;
  aloop_future_t *future = aloop_future_new(loop);
  aloop_handle_t handle = {0};
  int fds[2];
  make_pipe(fds);
  set_busy(loop, busy);
  if (way == 0) handle = aloop_call_soon(loop, count_busy, busy);
  if (way == 1) handle = aloop_call_later(loop, 1, count_busy, busy);
  if (way == 2 || way == 3) aloop_add_reader(loop, fds[0], count_busy, busy);
  if (way == 4 || way == 5) aloop_future_add_done_callback(future, count_busy_end, busy);
  aloop_var_set(loop, busy->var, NULL, NULL, NULL);
  assert_int_equal(busy->destroyed, way == 6);
  if (way < 2) aloop_cancel(loop, &handle);
  if (way == 2) aloop_remove_reader(loop, fds[0]);
  if (way == 3) aloop_add_reader(loop, fds[0], count_busy, busy);
  if (way == 4) aloop_future_remove_done_callback(future, count_busy_end, busy);
  aloop_future_unref(future);
  if (way == 3) aloop_remove_reader(loop, fds[0]);
  close(fds[0]);
  close(fds[1]);
}

static void a_destructor_may_do_anything(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 7; way++) {
    env_loop(env, (aloop_options_t){.debug = -1});
    busy_t busy = {.loop = env->loop, .var = new_var()};
    take_back(env, &busy, way);
    assert_int_equal(busy.destroyed, 1);
    assert_null(aloop_var_get(env->loop, busy.var, NULL));
    while (busy.calls < 100) run_turn(env->loop);
    aloop_var_unref(busy.var);
    aloop_close(env->loop);
  }
}

static void a_destructor_may_run_at_the_end_of_a_callback(void **state) {
  env_t *env = *state;
  busy_t busy = {.loop = env->loop, .var = new_var()};
  aloop_call_soon(env->loop, set_busy, &busy);
  run_turn(env->loop);
  assert_int_equal(busy.destroyed, 1);
  while (busy.calls < 100) run_turn(env->loop);
  assert_null(aloop_var_get(env->loop, busy.var, NULL));
  aloop_var_unref(busy.var);
}

static void a_destructor_may_run_while_the_loop_closes(void **state) {
  env_t *env = *state;
  busy_t busy = {.loop = env->loop, .var = new_var()};
  set_busy(env->loop, &busy);
  set_busy(env->loop, &busy);
  assert_int_equal(busy.destroyed, 1);
  aloop_close(env->loop);
  assert_int_equal(busy.destroyed, 2);
  assert_int_equal(busy.calls, 0);
  aloop_var_unref(busy.var);
}

static void close_from_value(void *loop) {
  aloop_close(loop);
}

static void a_destructor_may_close_the_loop(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var(), *other = new_var();
  aloop_var_set(env->loop, other, &destroyed, count_destroy, NULL);
  aloop_var_set(env->loop, var, env->loop, close_from_value, NULL);
  assert_int_equal(aloop_var_set(env->loop, var, NULL, NULL, NULL), 0);
  assert_true(aloop_is_closed(env->loop));
  assert_int_equal(destroyed, 1);
  aloop_var_unref(var);
  aloop_var_unref(other);
}

typedef struct late {
  aloop_t *loop;
  aloop_handle_t handle;
  int destroyed;
} late_t;

static void cancel_late(void *value) {
  late_t *late = value;
  late->destroyed++;
  aloop_cancel(late->loop, &late->handle);
}

static void stop_fatally(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop_with_error(loop, ALOOP_EPERM);
}

/* A timer that is due when a fatal stop comes is in the deque as the loop is closed; there its entry is dropped
 * before the context goes whose value cancels it. */
static void a_destructor_may_cancel_a_due_timer_while_the_loop_closes(void **state) {
  env_t *env = *state;
  busy_t busy = {.loop = env->loop};
  aloop_var_t *var = new_var();
  late_t late = {.loop = env->loop};
  late.handle = aloop_call_at(env->loop, 0, count_busy, &busy);
  aloop_var_set(env->loop, var, &late, cancel_late, NULL);
  aloop_call_at(env->loop, 1, count_busy, &busy);
  aloop_var_set(env->loop, var, NULL, NULL, NULL);
  aloop_call_soon(env->loop, stop_fatally, NULL);
  assert_int_equal(aloop_run_once(env->loop, 0), ALOOP_EPERM);
  aloop_close(env->loop);
  assert_int_equal(late.destroyed, 1);
  assert_int_equal(busy.calls, 0);
  aloop_var_unref(var);
}

static void a_failed_set_leaves_the_value_to_the_caller(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  aloop_var_token_t *token = NULL;
  aloop_var_set(env->loop, var, "old", NULL, NULL);
  for (int n = 1; n <= 3; n++) {
    env->fail_at = env->calls + n;
    assert_int_equal(aloop_var_set(env->loop, var, &destroyed, count_destroy, &token), ALOOP_ENOMEM);
    assert_null(token);
    assert_int_equal(destroyed, 0);
    assert_string_equal(aloop_var_get(env->loop, var, NULL), "old");
  }
  aloop_var_unref(var);
}

/* ---- Tokens -------------------------------------------------------------------------------------------------- */

static void a_token_brings_the_old_value_back(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  aloop_var_token_t *none = NULL, *one = NULL;
  assert_int_equal(aloop_var_set(env->loop, var, "one", NULL, &none), 0);
  assert_int_equal(aloop_var_set(env->loop, var, "two", NULL, &one), 0);
  assert_int_equal(aloop_var_reset(env->loop, one), 0);
  assert_string_equal(aloop_var_get(env->loop, var, NULL), "one");
  assert_int_equal(aloop_var_reset(env->loop, none), 0);
  assert_string_equal(aloop_var_get(env->loop, var, "unset"), "unset");
  aloop_var_unref(var);
}

static void a_token_keeps_the_old_value(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  aloop_var_token_t *token;
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  aloop_var_set(env->loop, var, "new", NULL, &token);
  assert_int_equal(destroyed, 0);
  aloop_var_token_free(token);
  assert_int_equal(destroyed, 1);
  aloop_var_unref(var);
}

static void a_failed_reset_leaves_the_token(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  aloop_var_token_t *token;
  aloop_var_set(env->loop, var, "one", NULL, NULL);
  aloop_var_set(env->loop, var, "two", NULL, &token);
  env->fail_from = 1;
  assert_int_equal(aloop_var_reset(env->loop, token), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_string_equal(aloop_var_get(env->loop, var, NULL), "two");
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_var_reset(other, token), ALOOP_EOTHERLOOP);
  aloop_free(other);
  assert_int_equal(aloop_var_reset(env->loop, token), 0);
  assert_string_equal(aloop_var_get(env->loop, var, NULL), "one");
  aloop_var_unref(var);
}

static void a_token_outlives_its_loop(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  aloop_var_token_t *token;
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  aloop_var_set(env->loop, var, NULL, NULL, &token);
  aloop_free(env->loop);
  env->loop = NULL;
  aloop_var_unref(var);
  assert_int_equal(destroyed, 0);
  aloop_var_token_free(token);
  assert_int_equal(destroyed, 1);
}

/* ---- Contexts ------------------------------------------------------------------------------------------------ */

static void a_context_keeps_what_is_set_in_it(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  look_t self = {var, "inside", NULL};
  aloop_context_t *context;
  aloop_var_set(env->loop, var, "outside", NULL, NULL);
  assert_int_equal(aloop_context_copy(env->loop, &context), 0);
  assert_int_equal(aloop_context_run(env->loop, context, look, &self), 0);
  assert_string_equal(self.seen, "outside");
  assert_string_equal(aloop_var_get(env->loop, var, NULL), "outside");
  assert_int_equal(aloop_context_run(env->loop, context, look, &self), 0);
  assert_string_equal(self.seen, "inside");
  aloop_context_unref(context);
  aloop_var_unref(var);
}

typedef struct entry {
  aloop_context_t *context;
  int result;
} entry_t;

static void enter_again(aloop_t *loop, void *arg) {
  entry_t *entry = arg;
  entry->result = aloop_context_run(loop, entry->context, enter_again, arg);
}

static void a_context_is_entered_once_at_a_time(void **state) {
  env_t *env = *state;
  entry_t entry = {0};
  assert_int_equal(aloop_context_copy(env->loop, &entry.context), 0);
  assert_int_equal(aloop_context_run(env->loop, entry.context, enter_again, &entry), 0);
  assert_int_equal(entry.result, ALOOP_EBUSY);
  aloop_context_unref(entry.context);
}

static void contexts_nest(void **state) {
  env_t *env = *state;
  entry_t inner = {0}, outer = {0};
  aloop_context_copy(env->loop, &inner.context);
  aloop_context_copy(env->loop, &outer.context);
  inner.result = outer.result = -1;
  assert_int_equal(aloop_context_run(env->loop, outer.context, enter_again, &inner), 0);
  assert_int_equal(inner.result, 0); /* entered another one, inside */
  aloop_context_unref(inner.context);
  aloop_context_unref(outer.context);
}

static void close_loop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_close(loop);
}

static void free_loop(aloop_t *loop, void *arg) {
  entry_t *entry = arg;
  aloop_context_unref(entry->context);
  aloop_free(loop);
}

static void the_loop_may_be_closed_in_a_context(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  entry_t entry = {0};
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  aloop_context_copy(env->loop, &entry.context);
  assert_int_equal(aloop_context_run(env->loop, entry.context, close_loop, NULL), 0);
  aloop_context_unref(entry.context);
  assert_int_equal(destroyed, 1);
  aloop_var_unref(var);
}

static void the_loop_may_be_freed_in_a_context(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  entry_t entry = {0};
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  aloop_context_copy(env->loop, &entry.context);
  assert_int_equal(aloop_context_run(env->loop, entry.context, free_loop, &entry), 0);
  env->loop = NULL;
  assert_int_equal(destroyed, 1);
  assert_int_equal(env->live, 0);
  aloop_var_unref(var);
}

static void a_context_outlives_its_loop(void **state) {
  env_t *env = *state;
  int destroyed = 0;
  aloop_var_t *var = new_var();
  aloop_context_t *context;
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  assert_int_equal(aloop_context_copy(env->loop, &context), 0);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(destroyed, 0);
  aloop_context_unref(context);
  assert_int_equal(destroyed, 1);
  aloop_var_unref(var);
}

static void nonsense_is_refused(void **state) {
  env_t *env = *state;
  aloop_var_t *var = new_var();
  aloop_context_t *context;
  look_t self = {var, NULL, NULL};
  aloop_t *other;
  assert_int_equal(aloop_var_new(NULL, &var), ALOOP_EINVAL);
  assert_int_equal(aloop_var_new("x", NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_var_set(NULL, var, NULL, NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_var_set(env->loop, NULL, NULL, NULL, NULL), ALOOP_EINVAL);
  assert_ptr_equal(aloop_var_get(NULL, var, env), env);
  assert_int_equal(aloop_var_reset(env->loop, NULL), 0);
  aloop_var_token_free(NULL);
  aloop_var_unref(NULL);
  aloop_context_unref(NULL);
  assert_int_equal(aloop_context_copy(NULL, &context), ALOOP_EINVAL);
  assert_int_equal(aloop_context_copy(env->loop, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_context_copy(env->loop, &context), 0);
  assert_int_equal(aloop_context_run(env->loop, NULL, look, &self), ALOOP_EINVAL);
  assert_int_equal(aloop_context_run(env->loop, context, NULL, &self), ALOOP_EINVAL);
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_context_run(other, context, look, &self), ALOOP_EOTHERLOOP);
  aloop_free(other);
  aloop_context_unref(context);
  aloop_var_unref(var);
}

static void variables_in_use(env_t *env) {
  aloop_t *loop = env->loop;
  int destroyed = 0, set = 0;
  aloop_var_t *var = new_var();
  look_t self = {var, NULL, NULL};
  aloop_context_t *context = NULL;
  aloop_var_token_t *token = NULL;
  set += aloop_var_set(loop, var, &destroyed, count_destroy, NULL) == 0;
  set += aloop_var_set(loop, var, &destroyed, count_destroy, &token) == 0;
  if (aloop_context_copy(loop, &context) == 0) aloop_context_run(loop, context, look, &self);
  aloop_call_soon(loop, look, &self);
  aloop_call_later(loop, 0, look, &self);
  run_turn(loop);
  if (aloop_var_reset(loop, token) < 0) aloop_var_token_free(token);
  aloop_context_unref(context);
  aloop_var_unref(var);
  aloop_close(loop);
  assert_int_equal(destroyed, set);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, variables_in_use);
}

TESTS(T(a_variable_has_no_value_at_first), T(setting_replaces_the_value),
      T(a_callback_sees_what_was_set_when_it_was_scheduled), T(what_a_callback_sets_ends_with_it),
      T(a_callback_hands_its_context_down), T(the_first_variable_may_be_set_inside_a_batch),
      T(contexts_move_along_as_the_deque_grows), T(a_place_in_the_deque_keeps_no_context),
      T(a_repeating_timer_starts_afresh_each_time), T(a_value_goes_with_the_last_context_that_holds_it),
      T(cancelling_a_ready_callback_releases_its_context), T(closing_the_loop_releases_all_values),
      T(a_destructor_may_do_anything), T(a_destructor_may_run_at_the_end_of_a_callback),
      T(a_destructor_may_run_while_the_loop_closes),
      T(a_destructor_may_cancel_a_due_timer_while_the_loop_closes), T(a_destructor_may_close_the_loop),
      T(a_failed_set_leaves_the_value_to_the_caller), T(a_token_brings_the_old_value_back),
      T(a_token_keeps_the_old_value), T(a_failed_reset_leaves_the_token), T(a_token_outlives_its_loop),
      T(a_context_keeps_what_is_set_in_it), T(a_context_is_entered_once_at_a_time), T(contexts_nest),
      T(the_loop_may_be_closed_in_a_context), T(the_loop_may_be_freed_in_a_context),
      T(a_context_outlives_its_loop), T(nonsense_is_refused), T(every_allocation_may_fail))
