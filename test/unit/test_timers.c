/* SPDX-License-Identifier: MIT
 *
 * Timers: order, removal, moving, repeating, and a long random walk against a model. On the virtual poller, where every
 * nanosecond is exact; one test looks at the real clock.
 */
#include "harness.h"

#include <stdlib.h>

#include "core/loop.h"

static aloop_t *virtual_loop(env_t *env) {
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  return env->loop;
}

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

/* ---- Order --------------------------------------------------------------------------------------------------- */

static void a_timer_fires_at_its_moment(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  int64_t when = aloop_time(loop) + 12345;
  aloop_handle_t handle = aloop_call_at(loop, when, count, &calls);
  assert_int_equal(aloop_handle_when(loop, handle), when);
  assert_int_equal(aloop_next_timeout(loop), 12345);
  assert_int_equal(aloop_run_once(loop, 12344), 0);
  assert_int_equal(calls, 0);
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
  assert_int_equal(aloop_time(loop), when);
  assert_int_equal(aloop_handle_when(loop, handle), ALOOP_ENOENT);
}

static void equal_deadlines_run_first_made_first(void **state) {
  aloop_t *loop = virtual_loop(*state);
  trace_t trace = {0};
  step_t steps[26];
  int64_t when = aloop_time(loop) + 5;
  for (int i = 0; i < 26; i++) {
    steps[i] = (step_t){&trace, (char)('a' + i)};
    aloop_call_at(loop, when, trace_step, &steps[i]);
  }
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 26);
  assert_string_equal(trace.text, "abcdefghijklmnopqrstuvwxyz");
}

static void deadlines_in_the_past_run_next_turn_by_deadline(void **state) {
  aloop_t *loop = virtual_loop(*state);
  trace_t trace = {0};
  step_t a = {&trace, 'a'}, b = {&trace, 'b'}, c = {&trace, 'c'}, d = {&trace, 'd'};
  int64_t now = aloop_time(loop);
  aloop_call_later(loop, -7, trace_step, &c); /* no delay: now */
  aloop_call_at(loop, now - 10, trace_step, &b);
  aloop_call_at(loop, INT64_MIN, trace_step, &a);
  aloop_call_at(loop, now, trace_step, &d);
  assert_int_equal(run_turn(loop), 4);
  assert_string_equal(trace.text, "abcd");
}

static void far_deadlines_do_not_overflow(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  aloop_handle_t handles[] = {aloop_call_later(loop, INT64_MAX, count, &calls),
                              aloop_call_at(loop, INT64_MAX, count, &calls),
                              aloop_call_every(loop, INT64_MAX, count, &calls)};
  assert_int_equal(run_turn(loop), 0);
  for (int i = 0; i < 3; i++) {
    assert_true(aloop_handle_when(loop, handles[i]) > INT64_MAX / 2);
    assert_int_equal(aloop_cancel(loop, &handles[i]), 1);
  }
  assert_int_equal(aloop_next_timeout(loop), ALOOP_FOREVER);
}

static void a_long_period_does_not_overflow(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  aloop_handle_t handle = aloop_call_every(loop, INT64_MAX, count, &calls);
  assert_int_equal(aloop_reschedule(loop, &handle, INT64_MIN), 0);
  assert_true(aloop_handle_when(loop, handle) >= 0);
  assert_int_equal(run_turn(loop), 1);
  assert_true(aloop_handle_when(loop, handle) > INT64_MAX / 2);
  assert_int_equal(aloop_cancel(loop, &handle), 1);
}

static void make_at_same_moment(aloop_t *loop, void *step) {
  aloop_call_at(loop, aloop_time(loop), trace_step, step);
}

static void a_timer_made_by_a_timer_runs_in_another_turn(void **state) {
  aloop_t *loop = virtual_loop(*state);
  trace_t trace = {0};
  step_t a = {&trace, 'a'};
  aloop_call_later(loop, 3, make_at_same_moment, &a);
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
  assert_string_equal(trace.text, "");
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
  assert_string_equal(trace.text, "a");
}

typedef struct early {
  int64_t when;
  int fired;
  bool too_soon;
} early_t;

static void look_at_clock(aloop_t *loop, void *arg) {
  early_t *early = arg;
  early->fired++;
  if (aloop_update_time(loop) < early->when) early->too_soon = true;
}

static void nothing_fires_early_on_a_real_clock(void **state) {
  env_t *env = *state;
  enum { COUNT = 200 };
  early_t timers[COUNT] = {0};
  int64_t base = aloop_update_time(env->loop);
  for (int i = 0; i < COUNT; i++) {
    timers[i].when = base + i * INT64_C(41234);
    aloop_call_at(env->loop, timers[i].when, look_at_clock, &timers[i]);
  }
  while (timers[COUNT - 1].fired == 0) assert_true(aloop_run_once(env->loop, ALOOP_FOREVER) >= 0);
  for (int i = 0; i < COUNT; i++) {
    assert_int_equal(timers[i].fired, 1);
    assert_false(timers[i].too_soon);
  }
}

static void many_timers_fire_in_order(void **state) {
  aloop_t *loop = virtual_loop(*state);
  enum { COUNT = 5000 };
  static early_t timers[COUNT];
  uint32_t random = 1;
  int64_t base = aloop_time(loop);
  for (int i = 0; i < COUNT; i++) {
    random = random * 1664525 + 1013904223;
    timers[i] = (early_t){.when = base + random % 100000};
    aloop_call_at(loop, timers[i].when, look_at_clock, &timers[i]);
  }
  int fired = 0;
  while (fired < COUNT) {
    int64_t due = base + 1000000;
    for (int i = 0; i < COUNT; i++)
      if (timers[i].fired == 0 && timers[i].when < due) due = timers[i].when;
    fired += aloop_run_once(loop, ALOOP_FOREVER);
    assert_int_equal(aloop_time(loop), due);
    if (fired > 200) break; /* the check above is quadratic */
  }
  while (fired < COUNT) fired += aloop_run_once(loop, ALOOP_FOREVER);
  for (int i = 0; i < COUNT; i++) assert_true(timers[i].fired == 1 && !timers[i].too_soon);
}

/* Deadlines that come in from the last to the first, few and many at a time, with others in between. */
static void new_timers_find_their_place_among_many(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0, made = 0;
  for (int wave = 1; wave < 200; wave++) {
    for (int i = 0; i < wave * 7 % 40; i++, made++) aloop_call_later(loop, 100000 - made, count, &calls);
    assert_true(aloop__timers_check(&loop->timers));
    if (made > 0) assert_int_equal(aloop_next_timeout(loop), 100001 - made);
    assert_int_equal(loop->timers.sorted, loop->timers.heap_size);
    assert_true(aloop__timers_check(&loop->timers));
  }
  while (calls < made) {
    int before = calls;
    aloop_run_once(loop, ALOOP_FOREVER);
    assert_int_equal(calls, before + 1);
  }
}

static void a_new_timer_can_be_moved_before_it_is_in_order(void **state) {
  aloop_t *loop = virtual_loop(*state);
  trace_t trace = {0};
  step_t steps[3] = {{&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'}};
  aloop_handle_t handles[3];
  for (int i = 0; i < 3; i++) handles[i] = aloop_call_later(loop, 10 + i, trace_step, &steps[i]);
  assert_int_equal(aloop_reschedule(loop, &handles[2], aloop_time(loop) + 1), 0);
  assert_int_equal(aloop_reschedule(loop, &handles[0], aloop_time(loop) + 20), 0);
  assert_true(aloop__timers_check(&loop->timers));
  for (int i = 0; i < 3; i++) aloop_run_once(loop, ALOOP_FOREVER);
  assert_string_equal(trace.text, "cba");
}

/* ---- Cancelling ---------------------------------------------------------------------------------------------- */

static void a_cancelled_timer_leaves_nothing_behind(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  aloop_handle_t handle = aloop_call_later(loop, 10, count, &calls);
  assert_int_equal(aloop_cancel(loop, &handle), 1);
  assert_true(aloop_handle_cancelled(handle));
  assert_int_equal(aloop_next_timeout(loop), ALOOP_FOREVER);
  assert_int_equal(loop->timers.heap_size, 0);
  assert_int_equal(loop->timers.live, 0);
  assert_int_equal(aloop_cancel(loop, &handle), 0);
}

typedef struct victim {
  aloop_handle_t handle;
  int result;
} victim_t;

static void cancel_victim(aloop_t *loop, void *arg) {
  victim_t *victim = arg;
  victim->result = aloop_cancel(loop, &victim->handle);
}

static void a_timer_that_is_ready_can_still_be_cancelled(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  victim_t victim = {.result = -1};
  int64_t when = aloop_time(loop) + 5;
  aloop_call_at(loop, when, cancel_victim, &victim);
  victim.handle = aloop_call_at(loop, when, count, &calls);
  aloop_run_once(loop, ALOOP_FOREVER);
  assert_int_equal(victim.result, 1);
  assert_int_equal(calls, 0);
  assert_int_equal(loop->timers.live, 0);
}

static void io_may_cancel_a_timer_that_is_ready(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  victim_t victim = {.result = -1};
  aloop_call_soon(loop, cancel_victim, &victim);
  victim.handle = aloop_call_later(loop, 0, count, &calls);
  assert_int_equal(run_turn(loop), 1);
  assert_int_equal(victim.result, 1);
  assert_int_equal(calls, 0);
}

static void a_timer_cannot_cancel_itself_any_more(void **state) {
  aloop_t *loop = virtual_loop(*state);
  victim_t victim = {.result = -1};
  victim.handle = aloop_call_later(loop, 1, cancel_victim, &victim);
  aloop_run_once(loop, ALOOP_FOREVER);
  assert_int_equal(victim.result, 0);
  assert_int_equal(loop->timers.live, 0);
}

/* Whatever the deadline of the next timer in the same slot is, the key that was left behind does not harm it. */
static void a_slot_is_used_again_with_the_key_of_before(void **state) {
  aloop_t *loop = virtual_loop(*state);
  static const int64_t next[] = {50, 100, 150, 1, 1000};
  int other = 0;
  aloop_call_later(loop, 100000, count, &other);
  for (size_t i = 0; i < sizeof next / sizeof next[0]; i++) {
    int calls = 0;
    aloop_handle_t handle = aloop_call_later(loop, 100, count, &calls);
    assert_int_equal(aloop_cancel(loop, &handle), 1);
    int64_t when = aloop_time(loop) + next[i];
    handle = aloop_call_at(loop, when, count, &calls);
    assert_int_equal(loop->timers.heap_size, 2);
    assert_true(aloop__timers_check(&loop->timers));
    assert_int_equal(aloop_next_timeout(loop), next[i]);
    assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
    assert_int_equal(aloop_time(loop), when);
    assert_int_equal(calls, 1);
  }
  assert_int_equal(other, 0);
}

static void a_cancelled_timer_wakes_nobody(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  aloop_handle_t handles[20];
  for (int i = 0; i < 20; i++) handles[i] = aloop_call_later(loop, 10 + i, count, &calls);
  aloop_call_later(loop, 500, count, &calls);
  for (int i = 0; i < 20; i++) assert_int_equal(aloop_cancel(loop, &handles[i]), 1);
  assert_int_equal(aloop_next_timeout(loop), 500);
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
  assert_int_equal(calls, 1);
  assert_int_equal(loop->timers.heap_size, 0);
}

static void starting_and_stopping_for_ever_needs_no_room(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  aloop_handle_t handles[10];
  for (int i = 0; i < 10; i++) handles[i] = aloop_call_later(loop, 1000 + i, count, &calls);
  for (int i = 0; i < 10000; i++) {
    assert_int_equal(aloop_cancel(loop, &handles[i % 10]), 1);
    handles[i % 10] = aloop_call_later(loop, 1000 + i, count, &calls);
  }
  assert_int_equal(loop->timers.capacity, 16);
  assert_int_equal(loop->timers.heap_size, 10);
  assert_int_equal(calls, 0);
}

/* ---- Moving -------------------------------------------------------------------------------------------------- */

static void a_timer_can_be_moved_later(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  int64_t now = aloop_time(loop);
  aloop_handle_t handle = aloop_call_at(loop, now + 10, count, &calls);
  for (int i = 2; i <= 5; i++) assert_int_equal(aloop_reschedule(loop, &handle, now + 10 * i), 0);
  assert_int_equal(aloop_handle_when(loop, handle), now + 50);
  assert_int_equal(aloop_next_timeout(loop), 50);
  while (calls == 0) aloop_run_once(loop, ALOOP_FOREVER);
  assert_int_equal(aloop_time(loop), now + 50);
}

static void a_timer_can_be_moved_sooner(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0, armed = 0;
  int64_t now = aloop_time(loop);
  for (int i = 0; i < 20; i++) aloop_call_at(loop, now + 100 + i, count, &armed);
  aloop_handle_t handle = aloop_call_at(loop, now + 500, count, &calls);
  aloop_set_armed_hook(loop, count, &armed);
  assert_int_equal(aloop_reschedule(loop, &handle, now + 7), 0);
  assert_int_equal(armed, 1);
  aloop_set_armed_hook(loop, NULL, NULL);
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 1);
  assert_int_equal(calls, 1);
  assert_int_equal(aloop_time(loop), now + 7);
}

static void moving_counts_as_making_anew(void **state) {
  aloop_t *loop = virtual_loop(*state);
  trace_t trace = {0};
  step_t a = {&trace, 'a'}, b = {&trace, 'b'}, c = {&trace, 'c'};
  int64_t when = aloop_time(loop) + 100;
  aloop_handle_t first = aloop_call_at(loop, when, trace_step, &a);
  aloop_handle_t second = aloop_call_at(loop, when + 50, trace_step, &b);
  aloop_call_at(loop, when, trace_step, &c);
  aloop_reschedule(loop, &second, when);
  aloop_reschedule(loop, &first, when);
  assert_int_equal(aloop_run_once(loop, ALOOP_FOREVER), 3);
  assert_string_equal(trace.text, "cba");
}

static void a_moved_timer_can_be_cancelled(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  int64_t now = aloop_time(loop);
  aloop_handle_t handle = aloop_call_at(loop, now + 10, count, &calls);
  aloop_reschedule(loop, &handle, now + 30);
  assert_int_equal(aloop_cancel(loop, &handle), 1);
  assert_int_equal(loop->timers.heap_size, 0);
}

typedef struct moved {
  aloop_handle_t handle;
  int64_t by;
} moved_t;

static void move_other(aloop_t *loop, void *arg) {
  moved_t *moved = arg;
  assert_int_equal(aloop_reschedule(loop, &moved->handle, aloop_time(loop) + moved->by), 0);
}

static void a_ready_timer_can_be_moved_back(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  moved_t moved = {.by = 10};
  int64_t when = aloop_time(loop) + 5;
  aloop_call_at(loop, when, move_other, &moved);
  moved.handle = aloop_call_at(loop, when, count, &calls);
  aloop_run_once(loop, ALOOP_FOREVER);
  assert_int_equal(calls, 0);
  aloop_run_once(loop, ALOOP_FOREVER);
  assert_int_equal(calls, 1);
  assert_int_equal(aloop_time(loop), when + 10);
}

static void only_pending_timers_can_be_moved(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  aloop_handle_t soon = aloop_call_soon(loop, count, &calls);
  aloop_handle_t timer = aloop_call_later(loop, 0, count, &calls);
  assert_int_equal(aloop_reschedule(loop, &soon, 1), ALOOP_ENOENT);
  while (calls < 2) run_turn(loop);
  assert_int_equal(aloop_reschedule(loop, &timer, 1), ALOOP_ENOENT);
  timer = aloop_call_later(loop, 9, count, &calls);
  aloop_handle_t copy = timer;
  aloop_cancel(loop, &timer);
  assert_int_equal(aloop_reschedule(loop, &copy, 1), ALOOP_ENOENT);
}

/* ---- Repeating ----------------------------------------------------------------------------------------------- */

typedef struct beat {
  int64_t at[16];
  int count;
  aloop_handle_t handle;
  int64_t work; /* how long a beat takes, of the virtual clock */
} beat_t;

static void spend(aloop_t *loop, int64_t time) {
  int64_t until = aloop_update_time(loop) + time;
  while (aloop_update_time(loop) < until)
    continue; /* the virtual clock goes on when it is asked often enough */
}

static void on_beat(aloop_t *loop, void *arg) {
  beat_t *beat = arg;
  beat->at[beat->count++] = aloop_time(loop);
  if (beat->work > 0) spend(loop, beat->work);
  if (beat->count == 16) aloop_cancel(loop, &beat->handle);
}

static void a_repeating_timer_keeps_its_grid(void **state) {
  aloop_t *loop = virtual_loop(*state);
  beat_t beat = {0};
  int64_t begun = aloop_time(loop);
  beat.handle = aloop_call_every(loop, 333, on_beat, &beat);
  for (int i = 0; i < 16; i++) {
    assert_int_equal(aloop_handle_when(loop, beat.handle), begun + 333 * (i + 1));
    aloop_run_once(loop, ALOOP_FOREVER);
    assert_int_equal(beat.at[i], begun + 333 * (i + 1));
  }
  assert_int_equal(loop->timers.live, 0);
}

static void missed_beats_are_skipped(void **state) {
  aloop_t *loop = virtual_loop(*state);
  beat_t beat = {.work = ALOOP_MILLIS(2.5)};
  int64_t begun = aloop_time(loop);
  beat.handle = aloop_call_every(loop, ALOOP_MILLIS(1), on_beat, &beat);
  for (int i = 0; i < 4; i++) {
    aloop_run_once(loop, ALOOP_FOREVER);
    assert_int_equal(beat.count, i + 1);
    assert_true(beat.at[i] >= begun + ALOOP_MILLIS(1 + 2 * i)); /* not caught up in a burst */
    int64_t next = aloop_handle_when(loop, beat.handle);
    assert_int_equal((next - begun) % ALOOP_MILLIS(1), 0);
  }
  assert_int_equal(aloop_cancel(loop, &beat.handle), 1);
}

static void a_repeating_timer_can_be_moved_and_goes_on_from_there(void **state) {
  aloop_t *loop = virtual_loop(*state);
  beat_t beat = {0};
  int64_t begun = aloop_time(loop);
  beat.handle = aloop_call_every(loop, 100, on_beat, &beat);
  aloop_reschedule(loop, &beat.handle, begun + 130);
  while (beat.count < 3) aloop_run_once(loop, ALOOP_FOREVER);
  for (int i = 0; i < 3; i++) assert_int_equal(beat.at[i], begun + 130 + 100 * i);
  assert_int_equal(aloop_cancel(loop, &beat.handle), 1);
}

static void a_period_is_more_than_nothing(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  assert_int_equal(aloop_handle_error(aloop_call_every(loop, 0, count, &calls)), ALOOP_EINVAL);
  assert_int_equal(aloop_handle_error(aloop_call_every(loop, -1, count, &calls)), ALOOP_EINVAL);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void without_memory_there_is_no_timer(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  int calls = 0, made = 0;
  env->fail_from = env->calls + 20;
  aloop_handle_t handle = aloop_call_later(loop, 1, count, &calls);
  for (; aloop_handle_error(handle) == 0; made++) handle = aloop_call_later(loop, 1, count, &calls);
  assert_int_equal(aloop_handle_error(handle), ALOOP_ENOMEM);
  assert_true(aloop__timers_check(&loop->timers));
  assert_int_equal(loop->timers.live, made);
  env->fail_from = 0;
  while (calls < made) aloop_run_once(loop, ALOOP_FOREVER);
}

static void due_timers_wait_while_the_deque_cannot_grow(void **state) {
  env_t *env = *state;
  aloop_t *loop = virtual_loop(env);
  int calls = 0;
  for (int i = 0; i < 100; i++) aloop_call_later(loop, 5, count, &calls);
  env->fail_from = 1;
  while (calls < 100) {
    int before = calls;
    assert_true(aloop_run_once(loop, ALOOP_FOREVER) > 0);
    assert_true(calls > before);
  }
}

static void some_timers(env_t *env) {
  aloop_t *loop = env->loop;
  int calls = 0, made = 0;
  aloop_handle_t handles[60];
  for (int i = 0; i < 60; i++) {
    handles[i] = aloop_call_later(loop, i % 7, count, &calls);
    made += aloop_handle_error(handles[i]) == 0;
  }
  for (int i = 0; i < 60; i += 4) made -= aloop_cancel(loop, &handles[i]);
  for (int i = 0; i < 20 && calls < made; i++) aloop_run_once(loop, 100);
  assert_int_equal(calls, made);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, some_timers);
}

/* ---- A long random walk against a model ---------------------------------------------------------------------- */

enum { MODEL = 400 };

/* The model is an array searched from end to end. */
typedef struct model {
  aloop_t *loop;
  struct slot {
    struct model *model;
    aloop_handle_t handle;
    int64_t when;
    uint32_t order;
    bool live;
  } slots[MODEL];
  uint32_t order;
  int live;
} model_t;

static void model_fire(aloop_t *loop, void *arg) {
  struct slot *slot = arg;
  model_t *model = slot->model;
  assert_true(slot->live);
  assert_true(slot->when <= aloop_time(loop));
  for (int i = 0; i < MODEL; i++) {
    const struct slot *other = &model->slots[i];
    bool sooner = other->when < slot->when || (other->when == slot->when && other->order < slot->order);
    assert_false(other->live && sooner);
  }
  slot->live = false;
  model->live--;
}

static uint32_t next_random(uint32_t *random) {
  *random ^= *random << 13;
  *random ^= *random >> 17;
  *random ^= *random << 5;
  return *random;
}

static void model_step(model_t *model, uint32_t *random) {
  struct slot *slot = &model->slots[next_random(random) % MODEL];
  uint32_t what = next_random(random) % 100;
  int64_t when = aloop_time(model->loop) + next_random(random) % 64 * 10;
  if (what < 10 && model->live > 0) {
    assert_true(aloop_run_once(model->loop, ALOOP_FOREVER) > 0);
  } else if (!slot->live) {
    *slot =
        (struct slot){model, aloop_call_at(model->loop, when, model_fire, slot), when, model->order++, true};
    model->live++;
  } else if (what < 40) {
    assert_int_equal(aloop_cancel(model->loop, &slot->handle), 1);
    slot->live = false;
    model->live--;
  } else {
    assert_int_equal(aloop_reschedule(model->loop, &slot->handle, when), 0);
    slot->when = when;
    slot->order = model->order++;
  }
}

static void a_random_walk_agrees_with_the_model(void **state) {
  model_t *model = calloc(1, sizeof *model);
  model->loop = virtual_loop(*state);
  uint32_t random = 2463534242;
  for (int i = 0; i < 100000; i++) {
    model_step(model, &random);
    assert_int_equal(model->loop->timers.live, model->live);
    if (i % 16 == 0) assert_true(aloop__timers_check(&model->loop->timers));
  }
  while (model->live > 0) assert_true(aloop_run_once(model->loop, ALOOP_FOREVER) > 0);
  free(model);
}

static void orders_may_wrap_around(void **state) {
  aloop_t *loop = virtual_loop(*state);
  trace_t trace = {0};
  step_t steps[6];
  loop->timers.order = UINT32_MAX - 2;
  int64_t when = aloop_time(loop) + 1;
  for (int i = 0; i < 6; i++) {
    steps[i] = (step_t){&trace, (char)('a' + i)};
    aloop_call_at(loop, when, trace_step, &steps[i]);
  }
  aloop_run_once(loop, ALOOP_FOREVER);
  assert_string_equal(trace.text, "abcdef");
}

static void the_check_finds_a_broken_heap(void **state) {
  aloop_t *loop = virtual_loop(*state);
  int calls = 0;
  for (int i = 0; i < 20; i++) aloop_call_later(loop, i + 1, count, &calls);
  assert_true(aloop__timers_check(&loop->timers));
  assert_int_equal(aloop_next_timeout(loop), 1); /* puts new keys in order */
  int64_t saved = loop->timers.heap[7].when;
  loop->timers.heap[7].when = 0;
  assert_false(aloop__timers_check(&loop->timers));
  loop->timers.heap[7].when = saved;
  uint32_t place = loop->timers.places[3]++;
  assert_false(aloop__timers_check(&loop->timers));
  loop->timers.places[3] = place;
  assert_true(aloop__timers_check(&loop->timers));
}

TESTS(T(a_timer_fires_at_its_moment), T(equal_deadlines_run_first_made_first),
      T(deadlines_in_the_past_run_next_turn_by_deadline), T(far_deadlines_do_not_overflow),
      T(a_long_period_does_not_overflow), T(a_timer_made_by_a_timer_runs_in_another_turn),
      T(nothing_fires_early_on_a_real_clock), T(many_timers_fire_in_order),
      T(new_timers_find_their_place_among_many), T(a_new_timer_can_be_moved_before_it_is_in_order),
      T(a_cancelled_timer_leaves_nothing_behind), T(a_slot_is_used_again_with_the_key_of_before),
      T(a_cancelled_timer_wakes_nobody), T(starting_and_stopping_for_ever_needs_no_room),
      T(a_timer_that_is_ready_can_still_be_cancelled), T(io_may_cancel_a_timer_that_is_ready),
      T(a_timer_cannot_cancel_itself_any_more), T(a_timer_can_be_moved_later), T(a_timer_can_be_moved_sooner),
      T(moving_counts_as_making_anew), T(a_moved_timer_can_be_cancelled), T(a_ready_timer_can_be_moved_back),
      T(only_pending_timers_can_be_moved), T(a_repeating_timer_keeps_its_grid), T(missed_beats_are_skipped),
      T(a_repeating_timer_can_be_moved_and_goes_on_from_there), T(a_period_is_more_than_nothing),
      T(without_memory_there_is_no_timer), T(due_timers_wait_while_the_deque_cannot_grow),
      T(every_allocation_may_fail), T(a_random_walk_agrees_with_the_model), T(orders_may_wrap_around),
      T(the_check_finds_a_broken_heap))
