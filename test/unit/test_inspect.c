/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * The loop explains itself: debug mode and its reports, metrics, the dump.
 */
#include "harness.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/loop.h"

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static aloop_metrics_t metrics_of(aloop_t *loop) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(loop, &metrics), 0);
  return metrics;
}

/* ---- Debug mode ---------------------------------------------------------------------------------------------- */

static void debug_mode_is_an_option_a_setter_and_a_variable(void **state) {
  env_t *env = *state;
  assert_false(aloop_get_debug(env->loop));
  assert_int_equal(aloop_set_debug(env->loop, true), 0);
  assert_true(aloop_get_debug(env->loop));
  aloop_set_debug(env->loop, false);
  assert_false(aloop_get_debug(env->loop));
  const struct {
    const char *variable;
    int option;
    bool debug;
  } cases[] = {{"1", 0, true},   {"0", 0, false}, {"", 0, false}, {NULL, 0, false},
               {"1", -1, false}, {"0", 1, true},  {NULL, 1, true}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    if (cases[i].variable != NULL)
      setenv("ALOOP_DEBUG", cases[i].variable, 1);
    else
      unsetenv("ALOOP_DEBUG");
    env_loop(env, (aloop_options_t){.debug = cases[i].option});
    assert_int_equal(aloop_get_debug(env->loop), cases[i].debug);
  }
  unsetenv("ALOOP_DEBUG");
  assert_false(aloop_get_debug(NULL));
  assert_int_equal(aloop_set_debug(NULL, true), ALOOP_EINVAL);
}

/* Takes at least 2 ms of the clock that measures callbacks. */
static void be_slow(aloop_t *loop, void *arg) {
  (void)loop;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t end = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec + ALOOP_MILLIS(2);
  do clock_gettime(CLOCK_MONOTONIC, &now);
  while ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec < end);
  if (arg != NULL) ++*(int *)arg;
}

static void a_slow_callback_is_reported_with_its_place(void **state) {
  env_t *env = *state;
  int calls = 0;
  env_loop(env, (aloop_options_t){.debug = 1, .slow_callback_duration = ALOOP_MILLIS(2)});
  aloop_call_soon_from(env->loop, be_slow, &calls, "slow.c:12");
  aloop_call_later_from(env->loop, 0, be_slow, &calls, "timer.c:5");
  while (calls < 2) run_turn(env->loop);
  assert_int_equal(env->reports, 2);
  assert_string_equal(env->report_messages[0], "a callback was slow");
  assert_string_equal(env->report_origins[0], "slow.c:12");
  assert_string_equal(env->report_origins[1], "timer.c:5");
}

static void a_slow_reader_is_reported_with_its_place(void **state) {
  env_t *env = *state;
  int fds[2];
  env_loop(env, (aloop_options_t){.debug = 1, .slow_callback_duration = ALOOP_MILLIS(2)});
  make_pipe(fds);
  assert_int_equal(write(fds[1], "x", 1), 1);
  aloop_add_reader_from(env->loop, fds[0], be_slow, NULL, "reader.c:3");
  run_turn(env->loop);
  assert_int_equal(env->reports, 1);
  assert_string_equal(env->report_origins[0], "reader.c:3");
  aloop_remove_reader(env->loop, fds[0]);
  close(fds[0]);
  close(fds[1]);
}

static void the_macros_note_file_and_line(void **state) {
  env_t *env = *state;
  char here[300];
  env_loop(env, (aloop_options_t){.debug = 1, .slow_callback_duration = ALOOP_MILLIS(1)});
  aloop_call_soon(env->loop, be_slow, NULL), snprintf(here, sizeof here, "%s:%d", __FILE__, __LINE__);
  run_turn(env->loop);
  assert_int_equal(env->reports, 1);
  here[sizeof env->report_origins[0] - 1] = '\0'; /* as the report */
  assert_string_equal(env->report_origins[0], here);
}

static void how_slow_is_too_slow_can_be_set(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  aloop_call_soon(env->loop, be_slow, NULL);
  run_turn(env->loop);
  assert_int_equal(env->reports, 0); /* 100 ms */
  assert_int_equal(aloop_set_slow_callback_duration(env->loop, ALOOP_MILLIS(1)), 0);
  aloop_call_soon(env->loop, be_slow, NULL);
  run_turn(env->loop);
  assert_int_equal(env->reports, 1);
  assert_int_equal(aloop_set_slow_callback_duration(env->loop, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_set_slow_callback_duration(NULL, 1), ALOOP_EINVAL);
}

static void without_debug_mode_nobody_measures(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.debug = -1, .slow_callback_duration = 1});
  aloop_call_soon(env->loop, be_slow, NULL);
  run_turn(env->loop);
  assert_int_equal(env->reports, 0);
}

static void switch_on(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_set_debug(loop, true);
}

static void debug_mode_may_begin_inside_a_batch(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.debug = -1, .slow_callback_duration = 1});
  aloop_call_soon(env->loop, be_slow, NULL);
  aloop_call_soon(env->loop, switch_on, NULL);
  aloop_call_soon(env->loop, be_slow, NULL);
  run_turn(env->loop);
  assert_int_equal(env->reports, 1);
}

static void *misuse_from_elsewhere(void *arg) {
  aloop_t *loop = arg;
  static int wrong;
  int fds[2];
  aloop_handle_t handle = {0};
  aloop_metrics_t metrics = {.size = sizeof metrics};
  wrong = 0;
  if (pipe(fds) < 0) return arg;
  wrong += aloop_handle_error(aloop_call_soon(loop, count, NULL)) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_handle_error(aloop_call_later(loop, 0, count, NULL)) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_handle_error(aloop_call_at(loop, 0, count, NULL)) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_cancel(loop, &handle) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_reschedule(loop, &handle, 0) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_stop(loop) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_close(loop) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_add_reader(loop, fds[0], count, NULL) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_remove_reader(loop, fds[0]) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_metrics(loop, &metrics) == ALOOP_ENOTLOOPTHREAD;
  wrong += aloop_run_once(loop, 0) == ALOOP_ENOTLOOPTHREAD;
  close(fds[0]);
  close(fds[1]);
  return &wrong;
}

static void ask_another_thread(aloop_t *loop, void *arg) {
  pthread_t thread;
  void *wrong;
  assert_int_equal(pthread_create(&thread, NULL, misuse_from_elsewhere, loop), 0);
  pthread_join(thread, &wrong);
  *(int *)arg = *(int *)wrong;
}

static void debug_mode_refuses_other_threads(void **state) {
  env_t *env = *state;
  int wrong = 0;
  aloop_set_debug(env->loop, true);
  aloop_call_soon(env->loop, ask_another_thread, &wrong);
  run_turn(env->loop);
  assert_int_equal(wrong, 11);
  assert_int_equal(env->reports, 11);
  assert_int_equal(env->report_errors[0], ALOOP_ENOTLOOPTHREAD);
}

static void debug_mode_names_the_broken_rule(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  assert_int_equal(aloop_handle_error(aloop_call_soon(env->loop, NULL, NULL)), ALOOP_EINVAL);
  assert_int_equal(aloop_stop_with_error(env->loop, 1), ALOOP_EINVAL);
  assert_int_equal(env->reports, 2);
  assert_non_null(strstr(env->report_messages[1], "aloop_stop_with_error"));
}

/* ---- Metrics ------------------------------------------------------------------------------------------------- */

static void metrics_count_what_happened(void **state) {
  env_t *env = *state;
  int calls = 0, fds[2];
  make_pipe(fds);
  assert_int_equal(write(fds[1], "x", 1), 1);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  for (int i = 0; i < 5; i++) aloop_call_soon(env->loop, count, &calls);
  aloop_call_later(env->loop, 0, count, &calls);
  run_turn(env->loop);
  aloop_metrics_t metrics = metrics_of(env->loop);
  assert_int_equal(metrics.turns, 1);
  assert_int_equal(metrics.polls, 1);
  assert_int_equal(metrics.events, 1);
  assert_int_equal(metrics.callbacks, 7);
  assert_int_equal(metrics.stale, 0);
  assert_true(metrics.busy_time >= 0);
  aloop_remove_reader(env->loop, fds[0]);
  aloop_call_soon_threadsafe(env->loop, count, &calls);
  while (calls < 8) run_turn(env->loop);
  assert_int_equal(metrics_of(env->loop).posts, 1);
  close(fds[0]);
  close(fds[1]);
}

typedef struct counted {
  aloop_handle_t cancels;
  uint64_t seen; /* callbacks, as the metrics had it inside */
} counted_t;

static void look_at_count(aloop_t *loop, void *arg) {
  counted_t *counted = arg;
  aloop_cancel(loop, &counted->cancels);
  counted->seen = metrics_of(loop).callbacks;
}

static void metrics_count_each_callback_as_it_begins(void **state) {
  env_t *env = *state;
  int calls = 0;
  counted_t first = {{0}, 0}, second = {{0}, 0};
  aloop_call_soon(env->loop, look_at_count, &first);
  first.cancels = aloop_call_soon(env->loop, count, &calls);
  aloop_call_soon(env->loop, count, &calls);
  aloop_call_soon(env->loop, look_at_count, &second);
  assert_int_equal(run_turn(env->loop), 3);
  assert_int_equal(first.seen, 1);
  assert_int_equal(second.seen, 3);
  for (int i = 0; i < 10; i++) aloop_call_soon(env->loop, count, &calls);
  aloop_close(env->loop);
  assert_int_equal(metrics_of(env->loop).callbacks, 3); /* none of those that were dropped */
}

static void metrics_count_what_lives(void **state) {
  env_t *env = *state;
  int calls = 0, fds[2];
  make_pipe(fds);
  aloop_metrics_t before = metrics_of(env->loop);
  assert_int_equal(before.ready + before.timers + before.watches + before.futures, 0);
  aloop_handle_t handles[] = {aloop_call_soon(env->loop, count, &calls),
                              aloop_call_soon(env->loop, count, &calls),
                              aloop_call_later(env->loop, 9, count, &calls)};
  aloop_add_reader(env->loop, fds[0], count, &calls);
  aloop_add_writer(env->loop, fds[1], count, &calls);
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_cancel(env->loop, &handles[0]);
  aloop_metrics_t metrics = metrics_of(env->loop);
  assert_int_equal(metrics.ready, 1);
  assert_int_equal(metrics.timers, 1);
  assert_int_equal(metrics.watches, 2);
  assert_int_equal(metrics.futures, 1);
  assert_int_equal(metrics.transports, 0);
  assert_int_equal(metrics.servers, 0);
  aloop_future_unref(future);
  aloop_remove_reader(env->loop, fds[0]);
  aloop_remove_writer(env->loop, fds[1]);
  aloop_cancel(env->loop, &handles[2]);
  metrics = metrics_of(env->loop);
  assert_int_equal(metrics.timers + metrics.watches + metrics.futures, 0);
  close(fds[0]);
  close(fds[1]);
}

static void idle_time_is_time_spent_waiting(void **state) {
  env_t *env = *state;
  aloop_run_once(env->loop, ALOOP_MILLIS(10));
  aloop_metrics_t metrics = metrics_of(env->loop);
  if (on_poller(env, "virtual")) return;
  assert_in_range(metrics.idle_time, ALOOP_MILLIS(9), ALOOP_SECONDS(60));
  int64_t idle = metrics.idle_time;
  aloop_call_soon(env->loop, be_slow, NULL);
  run_turn(env->loop);
  metrics = metrics_of(env->loop);
  assert_in_range(metrics.busy_time, ALOOP_MILLIS(1.5), ALOOP_SECONDS(60));
  assert_true(metrics.idle_time < idle + ALOOP_MILLIS(2));
}

static void lateness_is_counted_by_powers_of_two(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  int calls = 0;
  int64_t now = aloop_time(env->loop);
  const struct {
    int64_t late;
    int bucket;
  } cases[] = {{0, 0}, {999, 0}, {1000, 1}, {2000, 2}, {3999, 2}, {4000, 3}, {ALOOP_MILLIS(1), 10}, {now, 23}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint64_t before = metrics_of(env->loop).lag[cases[i].bucket];
    aloop_call_at(env->loop, aloop_time(env->loop) - cases[i].late, count, &calls);
    run_turn(env->loop);
    assert_int_equal(metrics_of(env->loop).lag[cases[i].bucket], before + 1);
  }
}

static void an_older_caller_gets_what_it_knows(void **state) {
  env_t *env = *state;
  aloop_metrics_t metrics;
  memset(&metrics, 0xee, sizeof metrics);
  metrics.size = offsetof(aloop_metrics_t, polls);
  run_turn(env->loop);
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.turns, 1);
  assert_int_equal(metrics.size, offsetof(aloop_metrics_t, polls));
  assert_int_equal(metrics.polls, UINT64_C(0xeeeeeeeeeeeeeeee));
  metrics.size = 0;
  assert_int_equal(aloop_metrics(env->loop, &metrics), ALOOP_EINVAL);
  assert_int_equal(aloop_metrics(env->loop, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_metrics(NULL, &metrics), ALOOP_EINVAL);
}

static void metrics_of_a_closed_loop_are_its_last(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_call_soon(env->loop, count, &calls);
  aloop_call_later(env->loop, 5, count, &calls);
  aloop_close(env->loop);
  aloop_metrics_t metrics = metrics_of(env->loop);
  assert_int_equal(metrics.ready, 0);
  assert_int_equal(metrics.timers, 0);
  assert_int_equal(metrics.watches, 0);
}

/* ---- The dump ------------------------------------------------------------------------------------------------ */

typedef struct text {
  char lines[16][400];
  int count;
} text_t;

static void add_line(void *arg, const char *line) {
  text_t *text = arg;
  if (text->count < 16) snprintf(text->lines[text->count], sizeof text->lines[0], "%s", line);
  text->count++;
}

static void the_dump_describes_one_of_everything(void **state) {
  env_t *env = *state;
  int calls = 0, fds[2];
  text_t text = {0};
  make_pipe(fds);
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  aloop_call_soon_from(env->loop, count, &calls, "a.c:1");
  aloop_call_later_from(env->loop, ALOOP_MICROS(7), count, &calls, "b.c:2");
  aloop_call_every_from(env->loop, ALOOP_MICROS(9), count, &calls, "c.c:3");
  aloop_add_reader_from(env->loop, fds[0], count, &calls, "d.c:4");
  aloop_add_writer_from(env->loop, fds[1], count, &calls, "e.c:5");
  aloop_future_t *future = aloop_future_new_from(env->loop, "f.c:6");
  assert_int_equal(aloop_dump(env->loop, add_line, &text), 0);
  char reader[80], writer[80];
  snprintf(reader, sizeof reader, "watch fd %d, waiting for readable, from d.c:4", fds[0]);
  snprintf(writer, sizeof writer, "watch fd %d, waiting for writable, from e.c:5", fds[1]);
  const char *expected[] = {
      "callback ready, from a.c:1",
      "timer due in 7 us, from b.c:2",
      "timer due in 9 us, repeating, from c.c:3",
      reader,
      writer,
      "future pending, 0 callbacks, from f.c:6",
      "stopped loop on virtual: 1 callbacks ready, 2 timers, 2 descriptors watched, 1 futures, "
      "0 transports, 0 servers, 0 signal handlers, 0 jobs, 0 processes, 0 datagram endpoints, 0 sync objects, "
      "0 tasks, 0 streams, 0 generators"};
  int found = 0;
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
    for (int j = 0; j < text.count; j++) found += strcmp(text.lines[j], expected[i]) == 0;
  for (int j = 0; found < 7 && j < text.count; j++) print_error("%s\n", text.lines[j]);
  assert_int_equal(found, 7);
  assert_int_equal(text.count, 8); /* and the wake-up descriptor */
  aloop_future_unref(future);
  aloop_close(env->loop);
  close(fds[0]);
  close(fds[1]);
}

static void dump_into(aloop_t *loop, void *text) {
  aloop_dump(loop, add_line, text);
}

static void the_dump_knows_where_due_timers_come_from(void **state) {
  env_t *env = *state;
  int calls = 0;
  text_t text = {0};
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  aloop_call_later(env->loop, 5, dump_into, &text);
  aloop_call_later_from(env->loop, 5, count, &calls, "timer.c:7");
  assert_int_equal(aloop_run_once(env->loop, ALOOP_FOREVER), 2);
  assert_string_equal(text.lines[0], "callback ready, from timer.c:7");
}

static void the_dump_needs_somebody_to_tell(void **state) {
  env_t *env = *state;
  text_t text = {0};
  assert_int_equal(aloop_dump(env->loop, NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_dump(NULL, add_line, &text), ALOOP_EINVAL);
  aloop_close(env->loop);
  assert_int_equal(aloop_dump(env->loop, add_line, &text), 0);
  assert_int_equal(text.count, 1);
}

TESTS(T(debug_mode_is_an_option_a_setter_and_a_variable), T(a_slow_callback_is_reported_with_its_place),
      T(a_slow_reader_is_reported_with_its_place), T(the_macros_note_file_and_line),
      T(how_slow_is_too_slow_can_be_set), T(without_debug_mode_nobody_measures),
      T(debug_mode_may_begin_inside_a_batch), T(debug_mode_refuses_other_threads),
      T(debug_mode_names_the_broken_rule), T(metrics_count_what_happened),
      T(metrics_count_each_callback_as_it_begins), T(metrics_count_what_lives),
      T(idle_time_is_time_spent_waiting), T(lateness_is_counted_by_powers_of_two),
      T(an_older_caller_gets_what_it_knows), T(metrics_of_a_closed_loop_are_its_last),
      T(the_dump_describes_one_of_everything), T(the_dump_knows_where_due_timers_come_from),
      T(the_dump_needs_somebody_to_tell))
