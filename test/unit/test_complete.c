/* SPDX-License-Identifier: MIT
 *
 * run_until_complete: what it returns, and that it leaves nothing behind in the future or the loop.
 */
#include "harness.h"

#include "core/loop.h"
#include "future/future.h"

static aloop_t *virtual_loop(env_t *env) {
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  return env->loop;
}

static void set_seven(aloop_t *loop, void *future) {
  (void)loop;
  aloop_future_set_value(future, 7);
}

static void stop_now(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

static void stop_hard(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop_with_error(loop, ALOOP_EPIPE);
}

static void count_turn(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void count_destroy(void *arg) {
  ++*(int *)arg;
}

static void it_returns_the_value(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *future = aloop_future_new(loop);
  aloop_call_later(loop, ALOOP_SECONDS(3), set_seven, future);
  assert_int_equal(aloop_run_until_complete(loop, future), 7);
  assert_int_equal(loop->live[ALOOP__FUTURE], 0);
  assert_false(aloop_is_running(loop));
}

static void it_returns_the_error_and_has_read_it(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  aloop_future_t *future = aloop_future_new(loop);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  assert_int_equal(aloop_run_until_complete(loop, future), ALOOP_EIO);
  assert_int_equal(env->reports, 0);
}

static void calls_nest(void **state) {
  aloop_t *loop = virtual_loop(*state);
  assert_int_equal(aloop_run_until_complete(loop, aloop_wait_for(aloop_sleep(loop, 20), 10)), ALOOP_ETIMEDOUT);
  assert_int_equal(aloop_run_until_complete(loop, aloop_sleep(loop, 20)), 0);
}

static void no_future_means_out_of_memory(void **state) {
  aloop_t *loop = virtual_loop(*state);
  void *out = NULL;
  assert_int_equal(aloop_run_until_complete(loop, NULL), ALOOP_ENOMEM);
  assert_int_equal(aloop_run_until_complete_ptr(loop, NULL, &out), ALOOP_ENOMEM);
  assert_int_equal(aloop_run_until_complete(NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_run_until_complete(NULL, aloop_future_new(loop)), ALOOP_EINVAL);
}

static void a_done_future_gives_one_turn(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int turns = 0;
  aloop_future_t *future = aloop_future_new(loop);
  aloop_future_set_value(future, 1);
  aloop_call_soon(loop, count_turn, &turns);
  assert_int_equal(aloop_run_until_complete(loop, future), 1);
  assert_int_equal(turns, 1);
  assert_int_equal(aloop_run_once(loop, 0), 0);
}

static void being_stopped_first_is_an_error(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *future = aloop_future_new(loop);
  aloop_call_soon(loop, stop_now, NULL);
  assert_int_equal(aloop_run_until_complete(loop, aloop_future_ref(future)), ALOOP_ESTOPPED);
  assert_false(aloop_future_done(future));
  assert_int_equal(future->count, 0); /* the callback is gone */
  aloop_call_later(loop, 10, set_seven, future);
  assert_int_equal(aloop_run_until_complete(loop, future), 7);
}

static void being_stopped_when_it_is_done_is_none(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_future_t *future = aloop_future_new(loop);
  aloop_call_soon(loop, set_seven, future);
  aloop_call_soon(loop, stop_now, NULL);
  assert_int_equal(aloop_run_until_complete(loop, future), 7);
  /* Its callback was queued when the run ended; it must not stop the next one. */
  assert_int_equal(aloop_run_until_complete(loop, aloop_sleep(loop, 50)), 0);
}

static void a_fatal_stop_wins(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int turns = 0;
  aloop_future_t *future = aloop_future_new(loop);
  aloop_call_soon(loop, stop_hard, NULL);
  aloop_call_soon(loop, count_turn, &turns);
  assert_int_equal(aloop_run_until_complete(loop, future), ALOOP_EPIPE);
  assert_int_equal(turns, 0);
  assert_int_equal(loop->live[ALOOP__FUTURE], 0);
  aloop_run_once(loop, 0);
  assert_int_equal(turns, 1);
}

static void a_future_of_another_loop_is_refused(void **state) {
  aloop_t *loop = virtual_loop(*state);
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_run_until_complete(loop, aloop_future_new(other)), ALOOP_EOTHERLOOP);
  assert_int_equal(other->live[ALOOP__FUTURE], 0);
  aloop_free(other);
}

static void a_closed_loop_is_refused(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_close(env->loop);
  assert_int_equal(aloop_run_until_complete(env->loop, future), ALOOP_ECLOSED);
}

static void run_inside(aloop_t *loop, void *arg) {
  *(int64_t *)arg = aloop_run_until_complete(loop, aloop_sleep(loop, 0));
}

static void a_running_loop_is_refused(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int64_t result = 0;
  aloop_call_soon(loop, run_inside, &result);
  aloop_run_once(loop, 0);
  assert_int_equal(result, ALOOP_ERUNNING);
  aloop_run_once(loop, 0);
  assert_int_equal(loop->live[ALOOP__FUTURE], 0);
}

typedef struct delivery {
  aloop_future_t *future;
  int destroyed;
} delivery_t;

static void deliver(aloop_t *loop, void *arg) {
  (void)loop;
  delivery_t *delivery = arg;
  aloop_future_set_result(delivery->future, 0, &delivery->destroyed, count_destroy);
}

static void an_object_is_handed_over(void **state) {
  aloop_t *loop = virtual_loop(*state);
  delivery_t delivery = {aloop_future_new(loop), 0};
  int *out = NULL;
  aloop_call_later(loop, 10, deliver, &delivery);
  assert_int_equal(aloop_run_until_complete_ptr(loop, delivery.future, &out), 0);
  assert_ptr_equal(out, &delivery.destroyed);
  assert_int_equal(delivery.destroyed, 0);
}

static void without_a_place_the_object_is_released(void **state) {
  aloop_t *loop = virtual_loop(*state);
  delivery_t delivery = {aloop_future_new(loop), 0};
  deliver(loop, &delivery);
  assert_int_equal(aloop_run_until_complete_ptr(loop, delivery.future, NULL), ALOOP_EINVAL);
  assert_int_equal(delivery.destroyed, 1);
}

static void an_error_leaves_the_place_alone(void **state) {
  aloop_t *loop = virtual_loop(*state);
  void *out = loop;
  aloop_future_t *future = aloop_future_new(loop);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  assert_int_equal(aloop_run_until_complete_ptr(loop, future, &out), ALOOP_EIO);
  future = aloop_future_new(loop);
  aloop_future_set_value(future, 3);
  assert_int_equal(aloop_run_until_complete_ptr(loop, future, &out), ALOOP_ENOENT);
  assert_ptr_equal(out, loop);
}

static void run_to_the_end(env_t *env) {
  aloop_t *loop = env->loop;
  int64_t result =
      aloop_run_until_complete(loop, aloop_wait_for(aloop_sleep(loop, ALOOP_MILLIS(2)), ALOOP_MILLIS(9)));
  assert_true(result == 0 || result == ALOOP_ENOMEM);
  assert_int_equal(loop->live[ALOOP__FUTURE], 0);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, run_to_the_end);
}

TESTS(T(it_returns_the_value), T(it_returns_the_error_and_has_read_it), T(calls_nest),
      T(no_future_means_out_of_memory), T(a_done_future_gives_one_turn), T(being_stopped_first_is_an_error),
      T(being_stopped_when_it_is_done_is_none), T(a_fatal_stop_wins), T(a_future_of_another_loop_is_refused),
      T(a_closed_loop_is_refused), T(a_running_loop_is_refused), T(an_object_is_handed_over),
      T(without_a_place_the_object_is_released), T(an_error_leaves_the_place_alone),
      T(every_allocation_may_fail))
