/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 *
 * The loop's life and its turn: what runs in it, in which order, and how it ends.
 */
#include "harness.h"

#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/loop.h"

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  assert_int_equal(aloop_stop(loop), 0);
}

static void stop_hard(aloop_t *loop, void *arg) {
  assert_int_equal(aloop_stop_with_error(loop, *(int *)arg), 0);
}

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static uint64_t turns(aloop_t *loop) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(loop, &metrics), 0);
  return metrics.turns;
}

/* ---- Life ---------------------------------------------------------------------------------------------------- */

static void a_new_loop_is_idle(void **state) {
  env_t *env = *state;
  assert_false(aloop_is_closed(env->loop));
  assert_false(aloop_is_running(env->loop));
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
  assert_int_equal(run_turn(env->loop), 0);
}

static void closing_again_is_a_no_op(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_is_closed(env->loop));
  assert_int_equal(open_fds(), env->fds);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_is_closed(env->loop));
}

static void a_closed_loop_refuses_everything(void **state) {
  env_t *env = *state;
  aloop_t *loop = env->loop;
  int fds[2];
  make_pipe(fds);
  aloop_handle_t handle = aloop_call_later(loop, 1, count, NULL);
  aloop_close(loop);
  assert_int_equal(aloop_run_forever(loop), ALOOP_ECLOSED);
  assert_int_equal(aloop_run_once(loop, 0), ALOOP_ECLOSED);
  assert_int_equal(aloop_stop(loop), ALOOP_ECLOSED);
  assert_int_equal(aloop_stop_with_error(loop, ALOOP_EIO), ALOOP_ECLOSED);
  assert_int_equal(aloop_handle_error(aloop_call_soon(loop, count, NULL)), ALOOP_ECLOSED);
  assert_int_equal(aloop_handle_error(aloop_call_later(loop, 1, count, NULL)), ALOOP_ECLOSED);
  assert_int_equal(aloop_handle_error(aloop_call_at(loop, 1, count, NULL)), ALOOP_ECLOSED);
  assert_int_equal(aloop_handle_error(aloop_call_every(loop, 1, count, NULL)), ALOOP_ECLOSED);
  assert_int_equal(aloop_call_soon_threadsafe(loop, count, NULL), ALOOP_ECLOSED);
  assert_int_equal(aloop_reschedule(loop, &handle, 1), ALOOP_ECLOSED);
  assert_int_equal(aloop_cancel(loop, &handle), 0);
  assert_false(aloop_handle_pending(loop, handle));
  assert_int_equal(aloop_add_reader(loop, fds[0], count, NULL), ALOOP_ECLOSED);
  assert_int_equal(aloop_remove_reader(loop, fds[0]), 0);
  assert_int_equal(aloop_backend_fd(loop), ALOOP_ECLOSED);
  assert_int_equal(aloop_next_timeout(loop), ALOOP_ECLOSED);
  assert_int_equal(aloop_set_armed_hook(loop, count, NULL), ALOOP_ECLOSED);
  assert_int_equal(aloop_set_debug(loop, true), ALOOP_ECLOSED);
  assert_true(aloop_time(loop) > 0);
  close(fds[0]);
  close(fds[1]);
}

static void closing_drops_callbacks_uncalled(void **state) {
  env_t *env = *state;
  int calls = 0;
  for (int i = 0; i < 100; i++) {
    aloop_call_soon(env->loop, count, &calls);
    aloop_call_later(env->loop, 0, count, &calls);
    aloop_call_soon_threadsafe(env->loop, count, &calls);
  }
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(calls, 0);
}

static void free_all(aloop_future_t *future, void *arg) {
  (void)arg;
  aloop_t *loop = aloop_future_loop(future);
  aloop_future_unref(future);
  aloop_free(loop);
}

static void what_closing_ends_may_free_the_loop(void **state) {
  env_t *env = *state;
  aloop_t *loop = env->loop;
  aloop_future_t *future = aloop_future_new(loop);
  assert_int_equal(aloop_future_on_cancel(future, free_all, NULL), 0);
  assert_int_equal(aloop_close(loop), 0);
  env->loop = NULL;
  assert_int_equal(env->live, 0);
}

static void close_inside(aloop_t *loop, void *arg) {
  *(int *)arg = aloop_close(loop);
  aloop_free(loop); /* does nothing either */
}

static void a_running_loop_cannot_be_closed(void **state) {
  env_t *env = *state;
  int result = 0;
  aloop_call_soon(env->loop, close_inside, &result);
  run_turn(env->loop);
  assert_int_equal(result, ALOOP_ERUNNING);
  assert_false(aloop_is_closed(env->loop));
}

static void null_is_refused_everywhere(void **state) {
  (void)state;
  aloop_free(NULL);
  assert_int_equal(aloop_new(NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_close(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_run_forever(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_run_once(NULL, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_stop(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_stop_with_error(NULL, ALOOP_EIO), ALOOP_EINVAL);
  assert_true(aloop_is_closed(NULL));
  assert_false(aloop_is_running(NULL));
  assert_string_equal(aloop_poller_name(NULL), "");
}

/* A poller of the program's that says of one descriptor what it is told to say. */
typedef struct sayer {
  aloop_poll_event_t event;
} sayer_t;

static int sayer_open(void *arg, const aloop_allocator_t *allocator, void **state) {
  (void)allocator;
  *state = arg;
  return 0;
}

static void sayer_close(void *state) {
  (void)state;
}

static int sayer_update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  sayer_t *sayer = state;
  (void)before;
  (void)after;
  sayer->event.fd = fd;
  sayer->event.token = token;
  return 0;
}

static int sayer_wait(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  const sayer_t *sayer = state;
  (void)capacity;
  (void)timeout;
  events[0] = sayer->event;
  return 1;
}

static const aloop_poller_t sayer_table = {.size = sizeof sayer_table,
                                           .name = "sayer",
                                           .open = sayer_open,
                                           .close = sayer_close,
                                           .update = sayer_update,
                                           .wait = sayer_wait};

static void a_poller_may_say_error_with_any_bit(void **state) {
  env_t *env = *state;
  sayer_t sayer = {{0}};
  int reads = 0, writes = 0;
  env_loop(env, (aloop_options_t){.poller_table = &sayer_table, .poller_arg = &sayer, .debug = -1});
  assert_int_equal(aloop_add_reader(env->loop, 2, count, &reads), 0);
  assert_int_equal(aloop_add_writer(env->loop, 2, count, &writes), 0);
  run_turn(env->loop);
  int calls = reads = writes = 0;
  for (uint32_t bit = 0; bit < 32; bit++) {
    sayer.event.events = UINT32_C(1) << bit;
    run_turn(env->loop);
    if (sayer.event.events == ALOOP_READABLE || sayer.event.events == ALOOP_WRITABLE) continue;
    calls++;
  }
  assert_int_equal(reads, calls + 1);
  assert_int_equal(writes, calls + 1);
  aloop_close(env->loop); /* before the sayer goes */
}

static void unknown_options_are_refused(void **state) {
  env_t *env = *state;
  aloop_t *loop = NULL;
  aloop_options_t options = {.size = 0};
  assert_int_equal(aloop_new(&options, &loop), ALOOP_EINVAL);
  options = (aloop_options_t){.size = sizeof options, .poller = "abacus"};
  assert_int_equal(aloop_new(&options, &loop), ALOOP_EINVAL);
  aloop_allocator_t unsized_allocator = env->allocator;
  unsized_allocator.size = 0;
  options = (aloop_options_t){.size = sizeof options, .allocator = &unsized_allocator};
  assert_int_equal(aloop_new(&options, &loop), ALOOP_EINVAL);
  assert_null(loop);
}

static void options_of_an_older_header_are_enough(void **state) {
  (void)state;
  aloop_t *loop;
  aloop_options_t options = {.size = offsetof(aloop_options_t, poller_table), .poller = "poll", .debug = 77};
  assert_int_equal(aloop_new(&options, &loop), 0);
  assert_string_equal(aloop_poller_name(loop), "poll");
  aloop_free(loop);
}

static void making_a_loop_may_run_out_of_memory(void **state) {
  env_t *env = *state;
  aloop_options_t options = {.size = sizeof options, .allocator = &env->allocator};
  long live = env->live;
  int fds = open_fds();
  int rc = ALOOP_ENOMEM;
  for (long n = 1; rc == ALOOP_ENOMEM; n++) {
    aloop_t *loop = NULL;
    env->calls = 0;
    env->fail_at = n;
    rc = aloop_new(&options, &loop);
    env->fail_at = 0;
    assert_true(rc == 0 || loop == NULL);
    aloop_free(loop);
    assert_int_equal(env->live, live);
    assert_int_equal(open_fds(), fds);
  }
  assert_int_equal(rc, 0);
}

/* ---- Running ------------------------------------------------------------------------------------------------- */

static void stop_ends_the_run_after_the_batch(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t a = {&trace, 'a'}, b = {&trace, 'b'};
  aloop_call_soon(env->loop, trace_step, &a);
  aloop_call_soon(env->loop, stop, NULL);
  aloop_call_soon(env->loop, trace_step, &b);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_string_equal(trace.text, "ab");
}

static void schedule_and_stop(aloop_t *loop, void *step) {
  aloop_call_soon(loop, trace_step, step);
  aloop_stop(loop);
}

static void what_the_last_batch_adds_waits_for_the_next_run(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t a = {&trace, 'a'};
  aloop_call_soon(env->loop, schedule_and_stop, &a);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_string_equal(trace.text, "");
  aloop_call_soon(env->loop, stop, NULL);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_string_equal(trace.text, "a");
}

static void a_stop_before_the_run_gives_one_turn(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t a = {&trace, 'a'};
  aloop_call_soon(env->loop, schedule_and_stop, &a);
  aloop_call_later(env->loop, ALOOP_SECONDS(3600), count, NULL);
  assert_int_equal(aloop_stop(env->loop), 0);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(turns(env->loop), 1);
  assert_string_equal(trace.text, "");
  /* The flag was reset: the next run goes on until somebody stops it. */
  int calls = 0;
  aloop_call_soon(env->loop, count, &calls);
  aloop_call_later(env->loop, 1, stop, NULL);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(calls, 1);
  assert_true(turns(env->loop) >= 2); /* one is enough if the nanosecond is over by then */
}

static void a_stop_before_the_run_still_looks_at_io(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_pipe(fds);
  assert_int_equal(write(fds[1], "x", 1), 1);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  aloop_stop(env->loop);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(calls, 1);
  aloop_remove_reader(env->loop, fds[0]);
  close(fds[0]);
  close(fds[1]);
}

static void stop_from_a_reader(aloop_t *loop, void *arg) {
  ++*(int *)arg;
  aloop_stop(loop);
}

static void io_and_timers_can_stop_the_run(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_pipe(fds);
  assert_int_equal(write(fds[1], "x", 1), 1);
  aloop_add_reader(env->loop, fds[0], stop_from_a_reader, &calls);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(calls, 1);
  aloop_remove_reader(env->loop, fds[0]);
  aloop_call_later(env->loop, ALOOP_MILLIS(1), stop_from_a_reader, &calls);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(calls, 2);
  close(fds[0]);
  close(fds[1]);
}

static void a_fatal_stop_leaves_the_rest_queued(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t a = {&trace, 'a'}, b = {&trace, 'b'};
  int error = ALOOP_EPIPE;
  aloop_call_soon(env->loop, trace_step, &a);
  aloop_call_soon(env->loop, stop_hard, &error);
  aloop_call_soon(env->loop, trace_step, &b);
  aloop_call_later(env->loop, 0, trace_step, &b);
  assert_int_equal(aloop_run_forever(env->loop), ALOOP_EPIPE);
  assert_string_equal(trace.text, "a");
  aloop_stop(env->loop);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_string_equal(trace.text, "abb");
}

typedef struct later {
  step_t *before, *after; /* around what ends the run */
  aloop_callback_fn end;
  void *arg;
} later_t;

static void schedule_end(aloop_t *loop, void *arg) {
  later_t *later = arg;
  aloop_call_soon(loop, trace_step, later->before);
  aloop_call_soon(loop, later->end, later->arg);
  aloop_call_soon(loop, trace_step, later->after);
}

/* The kernel has just been asked, so the turn after that one does without. */
static void turns_that_do_not_poll_end_as_all_do(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t a = {&trace, 'a'}, b = {&trace, 'b'};
  int error = ALOOP_EPIPE;
  later_t soft = {&a, &b, stop, NULL}, hard = {&a, &b, stop_hard, &error};
  aloop_call_soon(env->loop, schedule_end, &soft);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_string_equal(trace.text, "ab");
  aloop_call_soon(env->loop, schedule_end, &hard);
  assert_int_equal(aloop_run_forever(env->loop), ALOOP_EPIPE);
  assert_string_equal(trace.text, "aba");
  run_turn(env->loop);
  assert_string_equal(trace.text, "abab");
}

static void a_fatal_stop_leaves_io_to_the_next_poll(void **state) {
  env_t *env = *state;
  int pair[2], calls = 0, error = ALOOP_EPIPE;
  make_socketpair(pair);
  assert_int_equal(write(pair[1], "x", 1), 1);
  aloop_add_reader(env->loop, pair[0], count, &calls);
  aloop_add_writer(env->loop, pair[0], count, &calls);
  aloop_call_soon(env->loop, stop_hard, &error);
  assert_int_equal(aloop_run_forever(env->loop), ALOOP_EPIPE);
  assert_int_equal(calls, 0);
  aloop_stop(env->loop);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(calls, 2);
  aloop_remove_reader(env->loop, pair[0]);
  aloop_remove_writer(env->loop, pair[0]);
  close(pair[0]);
  close(pair[1]);
}

static void a_reader_can_stop_hard(void **state) {
  env_t *env = *state;
  int pair[2], calls = 0, error = ALOOP_EPIPE;
  make_socketpair(pair);
  assert_int_equal(write(pair[1], "x", 1), 1);
  aloop_add_reader(env->loop, pair[0], stop_hard, &error);
  aloop_add_writer(env->loop, pair[0], count, &calls);
  aloop_call_later(env->loop, 0, count, &calls);
  assert_int_equal(aloop_run_once(env->loop, ALOOP_FOREVER), ALOOP_EPIPE);
  assert_int_equal(calls, 0);
  aloop_remove_reader(env->loop, pair[0]);
  run_turn(env->loop); /* the timer, perhaps without a look at the kernel */
  run_turn(env->loop);
  assert_in_range(calls, 2, 3);
  aloop_remove_writer(env->loop, pair[0]);
  close(pair[0]);
  close(pair[1]);
}

static void a_fatal_stop_before_the_run_ends_it_at_once(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_call_soon(env->loop, count, &calls);
  assert_int_equal(aloop_stop_with_error(env->loop, ALOOP_EPIPE), 0);
  assert_int_equal(aloop_run_forever(env->loop), ALOOP_EPIPE);
  assert_int_equal(calls, 0);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
}

static void a_fatal_stop_needs_an_error(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_stop_with_error(env->loop, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_stop_with_error(env->loop, 5), ALOOP_EINVAL);
}

typedef struct nested {
  aloop_t *other;
  int results[4];
} nested_t;

static void run_inside(aloop_t *loop, void *arg) {
  nested_t *nested = arg;
  assert_true(aloop_is_running(loop));
  nested->results[0] = aloop_run_forever(loop);
  nested->results[1] = aloop_run_once(loop, 0);
  nested->results[2] = aloop_run_forever(nested->other);
  nested->results[3] = aloop_run_once(nested->other, 0);
  assert_true(aloop_is_running(loop));
  assert_ptr_equal(aloop_running_loop(), loop);
}

static void one_loop_runs_in_a_thread_at_a_time(void **state) {
  env_t *env = *state;
  nested_t nested = {0};
  assert_int_equal(aloop_new(NULL, &nested.other), 0);
  aloop_call_soon(env->loop, run_inside, &nested);
  run_turn(env->loop);
  for (int i = 0; i < 4; i++) assert_int_equal(nested.results[i], ALOOP_ERUNNING);
  assert_false(aloop_is_running(env->loop));
  assert_null(aloop_running_loop());
  assert_int_equal(aloop_run_once(nested.other, 0), 0);
  aloop_free(nested.other);
}

static void a_timeout_limits_the_wait(void **state) {
  env_t *env = *state;
  int calls = 0;
  int64_t begun = aloop_time(env->loop);
  aloop_call_later(env->loop, ALOOP_SECONDS(3600), count, &calls);
  assert_int_equal(aloop_run_once(env->loop, ALOOP_MILLIS(2)), 0);
  int64_t passed = aloop_time(env->loop) - begun;
  assert_true(passed >= ALOOP_MILLIS(2));
  assert_true(passed < ALOOP_SECONDS(1800));
}

static void a_turn_counts_its_callbacks(void **state) {
  env_t *env = *state;
  int calls = 0;
  for (int i = 0; i < 10; i++) aloop_call_soon(env->loop, count, &calls);
  aloop_handle_t handle = aloop_call_soon(env->loop, count, &calls);
  aloop_cancel(env->loop, &handle);
  aloop_call_later(env->loop, 0, count, &calls);
  assert_int_equal(run_turn(env->loop), 11);
  assert_int_equal(run_turn(env->loop), 0);
}

/* ---- The turn ------------------------------------------------------------------------------------------------ */

typedef struct scene {
  trace_t trace;
  step_t soon, soon_nested, io, io_nested, timer, timer_nested;
  int fds[2];
} scene_t;

static void scene_soon(aloop_t *loop, void *arg) {
  scene_t *scene = arg;
  trace_step(loop, &scene->soon);
  aloop_call_soon(loop, trace_step, &scene->soon_nested);
}

static void scene_io(aloop_t *loop, void *arg) {
  scene_t *scene = arg;
  trace_step(loop, &scene->io);
  aloop_call_soon(loop, trace_step, &scene->io_nested);
  aloop_remove_reader(loop, scene->fds[0]);
}

static void scene_timer(aloop_t *loop, void *arg) {
  scene_t *scene = arg;
  trace_step(loop, &scene->timer);
  aloop_call_soon(loop, trace_step, &scene->timer_nested);
}

static void a_turn_has_an_order(void **state) {
  env_t *env = *state;
  scene_t scene = {0};
  scene.soon = (step_t){&scene.trace, 's'};
  scene.soon_nested = (step_t){&scene.trace, '1'};
  scene.io = (step_t){&scene.trace, 'i'};
  scene.io_nested = (step_t){&scene.trace, '2'};
  scene.timer = (step_t){&scene.trace, 't'};
  scene.timer_nested = (step_t){&scene.trace, '3'};
  make_pipe(scene.fds);
  assert_int_equal(write(scene.fds[1], "x", 1), 1);
  aloop_call_later(env->loop, 0, scene_timer, &scene);
  aloop_add_reader(env->loop, scene.fds[0], scene_io, &scene);
  aloop_call_soon(env->loop, scene_soon, &scene);
  run_turn(env->loop);
  assert_string_equal(scene.trace.text, "sit");
  run_turn(env->loop);
  assert_string_equal(scene.trace.text, "sit123");
  close(scene.fds[0]);
  close(scene.fds[1]);
}

static void posts_run_after_what_was_scheduled(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t warm = {&trace, '.'}, a = {&trace, 'a'}, b = {&trace, 'b'}, timer = {&trace, 't'};
  aloop_call_soon_threadsafe(env->loop, trace_step, &warm);
  while (trace.length == 0) run_turn(env->loop);
  aloop_call_soon_threadsafe(env->loop, trace_step, &b);
  aloop_call_soon(env->loop, trace_step, &a);
  aloop_call_later(env->loop, 0, trace_step, &timer);
  while (trace.length < 4) run_turn(env->loop);
  assert_string_equal(trace.text, ".abt");
}

static void reschedule_itself(aloop_t *loop, void *arg) {
  ++*(int *)arg;
  aloop_call_soon(loop, reschedule_itself, arg);
}

static void nested_callbacks_wait_for_the_next_turn(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_call_soon(env->loop, reschedule_itself, &calls);
  for (int i = 1; i <= 100; i++) {
    assert_int_equal(run_turn(env->loop), 1);
    assert_int_equal(calls, i);
  }
}

typedef struct watched {
  int turns;  /* callbacks of the chain, one per turn */
  int seen;   /* ... when the reader ran */
  int target; /* ... at which the descriptor becomes readable */
  int limit;  /* how many more there may be */
  bool slow;  /* from the target on each takes longer than the kernel may be left unasked */
  int fd;
} watched_t;

static void pass_20us(void) {
  int64_t end = aloop__clock_monotonic() + ALOOP_MICROS(21);
  while (aloop__clock_monotonic() < end) continue;
}

static void keep_busy(aloop_t *loop, void *arg) {
  watched_t *watched = arg;
  if (++watched->turns == watched->target) assert_int_equal(write(watched->fd, "x", 1), 1);
  if (watched->slow && watched->turns >= watched->target) pass_20us();
  if (watched->turns < watched->target + 2 * watched->limit && watched->seen == 0)
    aloop_call_soon(loop, keep_busy, arg);
}

static void note_io(aloop_t *loop, void *arg) {
  watched_t *watched = arg;
  watched->seen = watched->turns;
  aloop_stop(loop);
}

static void look_at_io_while_busy(env_t *env, bool slow, int limit) {
  int fds[2];
  make_pipe(fds);
  for (int target = 1; target < 150; target += 7) {
    char byte;
    watched_t watched = {.target = target, .limit = limit, .slow = slow, .fd = fds[1]};
    aloop_add_reader(env->loop, fds[0], note_io, &watched);
    aloop_call_soon(env->loop, keep_busy, &watched);
    assert_int_equal(aloop_run_forever(env->loop), 0);
    assert_in_range(watched.seen, target, target + limit);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    aloop_remove_reader(env->loop, fds[0]);
    run_turn(env->loop);
  }
  close(fds[0]);
  close(fds[1]);
}

/* After 20 microseconds: no machine has so many turns in them. */
static void io_is_looked_at_while_callbacks_keep_coming(void **state) {
  look_at_io_while_busy(*state, false, 40000);
}

static void io_is_looked_at_when_callbacks_become_slow(void **state) {
  look_at_io_while_busy(*state, true, 65);
}

typedef struct told {
  aloop__room_t room;
  int turns; /* that asked to be told of their end */
  int ends;
} told_t;

static void note_end(aloop_t *loop, aloop__room_t *room) {
  (void)loop;
  ((told_t *)(void *)room)->ends++;
}

static void ask_for_end(aloop_t *loop, void *arg) {
  told_t *told = arg;
  assert_int_equal(told->ends, told->turns);
  if (told->turns++ == 300) aloop_stop(loop);
  aloop__loop_attend(loop, ALOOP__TURN_END);
  aloop_call_soon(loop, ask_for_end, told);
}

static void each_turn_has_an_end_while_callbacks_keep_coming(void **state) {
  env_t *env = *state;
  told_t told = {.room.turn_over = note_end};
  env->loop->rooms[ALOOP__ROOM_STREAMS] = &told.room;
  aloop_call_soon(env->loop, ask_for_end, &told);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(told.ends, 301);
  env->loop->rooms[ALOOP__ROOM_STREAMS] = NULL;
}

static void timers_run_while_callbacks_keep_coming(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_call_soon(env->loop, reschedule_itself, &calls);
  aloop_call_later(env->loop, ALOOP_MILLIS(1), stop, NULL);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_true(calls > 0);
}

static void most_turns_of_a_chain_do_not_poll(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_call_soon(env->loop, reschedule_itself, &calls);
  for (int i = 0; i < 6100; i++) aloop_run_once(env->loop, 0);
  aloop_metrics(env->loop, &metrics);
  assert_true(metrics.turns >= 6100);
  assert_true(metrics.polls > 0);
  assert_true(metrics.polls <= metrics.turns);
}

TESTS(T(a_new_loop_is_idle), T(closing_again_is_a_no_op), T(a_closed_loop_refuses_everything),
      T(closing_drops_callbacks_uncalled), T(what_closing_ends_may_free_the_loop),
      T(a_running_loop_cannot_be_closed), T(null_is_refused_everywhere), T(a_poller_may_say_error_with_any_bit),
      T(unknown_options_are_refused), T(options_of_an_older_header_are_enough),
      T(making_a_loop_may_run_out_of_memory), T(stop_ends_the_run_after_the_batch),
      T(what_the_last_batch_adds_waits_for_the_next_run), T(a_stop_before_the_run_gives_one_turn),
      T(a_stop_before_the_run_still_looks_at_io), T(io_and_timers_can_stop_the_run),
      T(a_fatal_stop_leaves_the_rest_queued), T(turns_that_do_not_poll_end_as_all_do),
      T(a_fatal_stop_leaves_io_to_the_next_poll), T(a_reader_can_stop_hard),
      T(a_fatal_stop_before_the_run_ends_it_at_once), T(a_fatal_stop_needs_an_error),
      T(one_loop_runs_in_a_thread_at_a_time), T(a_timeout_limits_the_wait), T(a_turn_counts_its_callbacks),
      T(a_turn_has_an_order), T(posts_run_after_what_was_scheduled), T(nested_callbacks_wait_for_the_next_turn),
      T(io_is_looked_at_while_callbacks_keep_coming), T(io_is_looked_at_when_callbacks_become_slow),
      T(each_turn_has_an_end_while_callbacks_keep_coming), T(timers_run_while_callbacks_keep_coming),
      T(most_turns_of_a_chain_do_not_poll))
