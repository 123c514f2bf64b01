/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 *
 * The loop's clock: monotonic, read once per callback, replaced by the poller's.
 */
#include "harness.h"

#include "core/clock.h"
#include "core/loop.h"

static void time_goes_on_between_callbacks_of_a_stopped_loop(void **state) {
  env_t *env = *state;
  int64_t last = aloop_time(env->loop);
  assert_true(last > 0);
  for (int i = 0; i < 100; i++) {
    int64_t now = aloop_time(env->loop);
    assert_true(now >= last);
    last = now;
  }
}

typedef struct reading {
  int64_t first, second, updated, again;
} reading_t;

static void read_times(aloop_t *loop, void *arg) {
  reading_t *reading = arg;
  reading->first = aloop_time(loop);
  int64_t begun = aloop__clock_monotonic();
  while (aloop__clock_monotonic() < begun + 1000) continue;
  reading->second = aloop_time(loop);
  reading->updated = aloop_update_time(loop);
  reading->again = aloop_time(loop);
}

static void a_callback_sees_one_moment(void **state) {
  env_t *env = *state;
  reading_t readings[2];
  aloop_call_soon(env->loop, read_times, &readings[0]);
  aloop_call_soon(env->loop, read_times, &readings[1]);
  run_turn(env->loop);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(readings[i].second, readings[i].first);
    assert_int_equal(readings[i].again, readings[i].updated);
    if (on_poller(env, "virtual"))
      assert_int_equal(readings[i].updated, readings[i].first);
    else
      assert_true(readings[i].updated >= readings[i].first + 1000);
  }
  assert_true(readings[1].first >= readings[0].updated); /* read anew for each */
}

static void a_delay_counts_from_the_callback_that_asks(void **state) {
  env_t *env = *state;
  reading_t reading;
  aloop_handle_t handle = {0};
  aloop_call_soon(env->loop, read_times, &reading);
  run_turn(env->loop);
  handle = aloop_call_later(env->loop, 1000, read_times, &reading);
  assert_true(aloop_handle_when(env->loop, handle) >= reading.again + 1000);
  aloop_cancel(env->loop, &handle);
}

static void the_monotonic_clock_is_the_systems(void **state) {
  env_t *env = *state;
  int64_t before = aloop__clock_monotonic();
  int64_t now = aloop_time(env->loop);
  int64_t after = aloop__clock_monotonic();
  if (on_poller(env, "virtual")) return;
  assert_true(before <= now && now <= after);
}

static void ticks_go_on(void **state) {
  (void)state;
  uint64_t begun = aloop__clock_ticks();
  int64_t until = aloop__clock_monotonic() + ALOOP_MICROS(200);
  while (aloop__clock_monotonic() < until) continue;
  uint64_t passed = aloop__clock_ticks() - begun;
  assert_true(passed >= aloop__clock_ticks_20us());
}

static void nonsense_is_refused(void **state) {
  (void)state;
  assert_int_equal(aloop_time(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_update_time(NULL), ALOOP_EINVAL);
}

TESTS(T(time_goes_on_between_callbacks_of_a_stopped_loop), T(a_callback_sees_one_moment),
      T(a_delay_counts_from_the_callback_that_asks), T(the_monotonic_clock_is_the_systems), T(ticks_go_on),
      T(nonsense_is_refused))
