/* SPDX-License-Identifier: MIT
 *
 * call_soon and handles: cancelling before, after and inside; stale handles; handles that carry an error.
 */
#include "harness.h"

#include "core/loop.h"

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void a_cancelled_callback_never_runs(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_handle_t handle = aloop_call_soon(env->loop, count, &calls);
  assert_true(aloop_handle_pending(env->loop, handle));
  assert_int_equal(aloop_cancel(env->loop, &handle), 1);
  assert_false(aloop_handle_pending(env->loop, handle));
  assert_int_equal(run_turn(env->loop), 0);
  assert_int_equal(calls, 0);
}

static void cancelling_is_remembered_by_the_handle(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_handle_t handle = aloop_call_soon(env->loop, count, &calls);
  aloop_handle_t copy = handle;
  assert_int_equal(aloop_handle_error(handle), 0);
  assert_false(aloop_handle_cancelled(handle));
  aloop_cancel(env->loop, &handle);
  assert_true(aloop_handle_cancelled(handle));
  assert_int_equal(aloop_handle_error(handle), ALOOP_ECANCELED);
  assert_int_equal(aloop_cancel(env->loop, &handle), 0);
  assert_false(aloop_handle_cancelled(copy)); /* another value */
  assert_int_equal(aloop_cancel(env->loop, &copy), 0);
}

/* A request whose handle lies in what goes with the callback's context. */
typedef struct request {
  aloop_handle_t handle;
  uint64_t id; /* at its end */
} request_t;

static void end_request(void *value) {
  request_t *request = value;
  request->id = request->handle.id;
  request->handle.id = 0; /* as if the memory were somebody else's now */
}

static void a_handle_may_go_with_the_context_of_its_callback(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_var_t *var = NULL;
  assert_int_equal(aloop_var_new("request", &var), 0);
  for (int timer = 0; timer < 2; timer++) {
    request_t request = {{0}, 0};
    aloop_var_set(env->loop, var, &request, end_request, NULL);
    request.handle =
        timer ? aloop_call_later(env->loop, 1, count, &calls) : aloop_call_soon(env->loop, count, &calls);
    aloop_var_set(env->loop, var, NULL, NULL, NULL);
    assert_int_equal(aloop_cancel(env->loop, &request.handle), 1);
    assert_int_equal(request.id, (uint64_t)-ALOOP_ECANCELED);
    assert_int_equal(request.handle.id, 0);
  }
  aloop_var_unref(var);
}

static void a_handle_outlives_its_callback(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_handle_t soon = aloop_call_soon(env->loop, count, &calls);
  aloop_handle_t timer = aloop_call_later(env->loop, 0, count, &calls);
  while (calls < 2) run_turn(env->loop);
  assert_false(aloop_handle_pending(env->loop, soon));
  assert_false(aloop_handle_pending(env->loop, timer));
  assert_int_equal(aloop_cancel(env->loop, &soon), 0);
  assert_int_equal(aloop_cancel(env->loop, &timer), 0);
  assert_false(aloop_handle_cancelled(soon));
}

static void a_stale_handle_never_means_another_callback(void **state) {
  env_t *env = *state;
  enum { COUNT = 200 };
  aloop_handle_t old[COUNT];
  int calls = 0;
  for (int i = 0; i < COUNT; i++)
    old[i] =
        i % 2 == 0 ? aloop_call_soon(env->loop, count, &calls) : aloop_call_later(env->loop, 0, count, &calls);
  while (calls < COUNT) run_turn(env->loop);
  for (int i = 0; i < COUNT; i++) {
    aloop_call_soon(env->loop, count, &calls);
    aloop_call_later(env->loop, 0, count, &calls);
  }
  for (int i = 0; i < COUNT; i++) {
    assert_int_equal(aloop_cancel(env->loop, &old[i]), 0);
    assert_int_equal(aloop_reschedule(env->loop, &old[i], 1), ALOOP_ENOENT);
  }
  while (calls < 3 * COUNT) run_turn(env->loop);
}

typedef struct pair {
  aloop_handle_t handle;
  int calls;
} pair_t;

static void cancel_other(aloop_t *loop, void *arg) {
  pair_t *pair = arg;
  pair->calls++;
  aloop_cancel(loop, &pair->handle);
}

static void a_callback_may_cancel_a_later_one_of_its_batch(void **state) {
  env_t *env = *state;
  pair_t pair = {0};
  int calls = 0;
  aloop_call_soon(env->loop, cancel_other, &pair);
  pair.handle = aloop_call_soon(env->loop, count, &calls);
  assert_int_equal(run_turn(env->loop), 1);
  assert_int_equal(calls, 0);
  assert_true(aloop_handle_cancelled(pair.handle));
}

static void a_callback_may_cancel_itself_in_vain(void **state) {
  env_t *env = *state;
  pair_t pair = {0};
  pair.handle = aloop_call_soon(env->loop, cancel_other, &pair);
  run_turn(env->loop);
  assert_int_equal(pair.calls, 1);
  assert_false(aloop_handle_cancelled(pair.handle));
}

static void the_empty_handle_is_nothing(void **state) {
  env_t *env = *state;
  aloop_handle_t none = {0};
  assert_int_equal(aloop_handle_error(none), ALOOP_EINVAL);
  assert_false(aloop_handle_pending(env->loop, none));
  assert_false(aloop_handle_cancelled(none));
  assert_int_equal(aloop_cancel(env->loop, &none), 0);
  assert_int_equal(aloop_handle_when(env->loop, none), ALOOP_ENOENT);
  assert_int_equal(aloop_reschedule(env->loop, &none, 5), ALOOP_ENOENT);
}

static void nonsense_handles_are_harmless(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_call_soon(env->loop, count, &calls);
  aloop_call_later(env->loop, 0, count, &calls);
  uint64_t ids[] = {1,      4095, UINT64_MAX, UINT64_C(1) << 63 | 12345, UINT64_C(1) << 63 | UINT64_C(5) << 32,
                    1 << 20};
  for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
    aloop_handle_t handle = {ids[i]};
    assert_int_equal(aloop_cancel(env->loop, &handle), 0);
    assert_false(aloop_handle_pending(env->loop, handle));
  }
  while (calls < 2) run_turn(env->loop);
}

static void null_is_refused_everywhere(void **state) {
  env_t *env = *state;
  aloop_handle_t handle = {0};
  assert_int_equal(aloop_handle_error(aloop_call_soon(NULL, count, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_soon(env->loop, NULL, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_later(NULL, 1, count, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_later(env->loop, 1, NULL, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_at(NULL, 1, count, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_at(env->loop, 1, NULL, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_every(NULL, 1, count, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_every(env->loop, 1, NULL, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_cancel(NULL, &handle), ALOOP_EINVAL);
  assert_int_equal(aloop_cancel(env->loop, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_reschedule(NULL, &handle, 1), ALOOP_EINVAL);
  assert_int_equal(aloop_reschedule(env->loop, NULL, 1), ALOOP_EINVAL);
  assert_false(aloop_handle_pending(NULL, handle));
  assert_int_equal(aloop_handle_when(NULL, handle), ALOOP_EINVAL);
  assert_int_equal(run_turn(env->loop), 0);
}

static void the_functions_behind_the_macros_work_too(void **state) {
  env_t *env = *state;
  int calls = 0;
  assert_int_equal(aloop_handle_error((aloop_call_soon)(env->loop, count, &calls)), 0);
  assert_int_equal(aloop_handle_error((aloop_call_later)(env->loop, 1, count, &calls)), 0);
  assert_int_equal(aloop_handle_error((aloop_call_at)(env->loop, 1, count, &calls)), 0);
  aloop_handle_t every = (aloop_call_every)(env->loop, 1, count, &calls);
  while (calls < 4) run_turn(env->loop);
  assert_int_equal(aloop_cancel(env->loop, &every), 1);
}

static void a_host_is_told_between_turns_only(void **state) {
  env_t *env = *state;
  int armed = 0, calls = 0;
  assert_int_equal(aloop_set_armed_hook(env->loop, count, &armed), 0);
  aloop_call_soon(env->loop, count, &calls);
  assert_int_equal(armed, 1);
  run_turn(env->loop);
  assert_int_equal(armed, 1);
  aloop_set_armed_hook(env->loop, NULL, NULL);
  aloop_call_soon(env->loop, count, &calls);
  assert_int_equal(armed, 1);
}

TESTS(T(a_cancelled_callback_never_runs), T(cancelling_is_remembered_by_the_handle),
      T(a_handle_may_go_with_the_context_of_its_callback), T(a_handle_outlives_its_callback),
      T(a_stale_handle_never_means_another_callback), T(a_callback_may_cancel_a_later_one_of_its_batch),
      T(a_callback_may_cancel_itself_in_vain), T(the_empty_handle_is_nothing), T(nonsense_handles_are_harmless),
      T(null_is_refused_everywhere), T(the_functions_behind_the_macros_work_too),
      T(a_host_is_told_between_turns_only))
