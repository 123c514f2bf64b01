/* SPDX-License-Identifier: MIT
 *
 * Children whose pipes are streams: talking with them, communicating with what is left, giving them up in every
 * state. pollers: all
 */
#include "children.h"
#include "duplexes.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static aloop_process_t *started(env_t *env, aloop_future_t *future) {
  aloop_process_t *process = NULL;
  if (run_future(env->loop, future) < 0) fail_msg("%s", aloop_future_message(future));
  assert_int_equal(aloop_future_take_ptr(future, &process), 0);
  aloop_future_unref(future);
  return process;
}

static aloop_process_t *shell(env_t *env, const char *command) {
  return started(env, aloop_create_subprocess_shell(env->loop, command, NULL, NULL));
}

/* Until no process is left. */
static void give_up(env_t *env, aloop_process_t *process) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_process_unref(process);
  for (int turns = 0; turns < 100000; turns++) {
    assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
    if (metrics.processes == 0) break;
    aloop_run_once(env->loop, on_poller(env, "virtual") ? 0 : ALOOP_MILLIS(10));
    if (on_poller(env, "virtual")) usleep(100);
  }
  assert_int_equal(metrics.processes, 0);
  assert_int_equal(metrics.streams, 0);
  assert_int_equal(metrics.transports, 0);
}

static void a_child_is_talked_with(void **state) {
  env_t *env = *state;
  aloop_process_t *process = shell(env, "while read line; do echo got $line; done; exit 7");
  aloop_stream_t *in = aloop_process_stream(process, 0), *out = aloop_process_stream(process, 1);
  assert_non_null(aloop_process_stream(process, 2));
  assert_int_equal(aloop_stream_write(in, "one\n", 4), 0);
  expect_line(out, "got one\n");
  assert_int_equal(aloop_stream_write(in, "two\n", 4), 0);
  assert_int_equal(finish(env->loop, aloop_stream_drain(in)), 0);
  expect_line(out, "got two\n");
  aloop_stream_close(in);
  expect_end(out);
  assert_int_equal(finish(env->loop, aloop_process_wait(process)), 7);
  give_up(env, process);
}

static void a_program_gets_its_arguments(void **state) {
  env_t *env = *state;
  const char *const argv[] = {"/bin/sh", "-c", "echo $0; echo $1 >&2", "out", "err", NULL};
  aloop_process_options_t options = {.size = sizeof options, .argv = argv, .in.kind = ALOOP_STDIO_DEVNULL};
  aloop_process_t *process = started(env, aloop_create_subprocess_exec(env->loop, &options, NULL));
  assert_null(aloop_process_stream(process, 0));
  expect_line(aloop_process_stream(process, 1), "out\n");
  expect_line(aloop_process_stream(process, 2), "err\n");
  assert_int_equal(finish(env->loop, aloop_process_wait(process)), 0);
  give_up(env, process);
}

static void output_outlives_the_child(void **state) {
  env_t *env = *state;
  aloop_process_t *process = shell(env, "echo first; echo second");
  assert_int_equal(finish(env->loop, aloop_process_wait(process)), 0);
  expect_line(aloop_process_stream(process, 1), "first\n");
  expect_line(aloop_process_stream(process, 1), "second\n");
  expect_end(aloop_process_stream(process, 1));
  give_up(env, process);
}

static void a_stream_may_be_kept_longer_than_the_process(void **state) {
  env_t *env = *state;
  aloop_process_t *process = shell(env, "echo kept");
  aloop_stream_t *out = aloop_stream_ref(aloop_process_stream(process, 1));
  assert_int_equal(finish(env->loop, aloop_process_wait(process)), 0);
  aloop_process_unref(process);
  expect_line(out, "kept\n");
  expect_end(out);
  aloop_stream_unref(out);
  give_up(env, NULL);
}

static void what_a_child_does_not_read_breaks_the_pipe(void **state) {
  env_t *env = *state;
  static char much[300000];
  aloop_process_t *process = shell(env, "exec <&-; echo closed; read line <&1; exit 0");
  aloop_stream_t *in = aloop_process_stream(process, 0);
  expect_line(aloop_process_stream(process, 1), "closed\n");
  (void)aloop_stream_write(in, much, sizeof much);
  int64_t rc = finish(env->loop, aloop_stream_drain(in));
  assert_true(rc == ALOOP_EPIPE || rc == ALOOP_ECLOSED);
  assert_int_equal(finish(env->loop, aloop_process_wait(process)), 0);
  give_up(env, process);
}

/* ---- communicate ----------------------------------------------------------------------------------------- */

static aloop_output_t *communicated(env_t *env, aloop_process_t *process, const char *input) {
  aloop_output_t *output = NULL;
  aloop_future_t *future = aloop_process_communicate(process, input, strlen(input), 0);
  if (run_future(env->loop, future) < 0) fail_msg("%s", aloop_future_message(future));
  assert_int_equal(aloop_future_take_ptr(future, &output), 0);
  aloop_future_unref(future);
  return output;
}

static void communicate_gets_everything(void **state) {
  env_t *env = *state;
  aloop_process_t *process = shell(env, "cat; echo problem >&2; exit 3");
  aloop_output_t *output = communicated(env, process, "hello");
  assert_string_equal(output->out, "hello");
  assert_string_equal(output->err, "problem\n");
  assert_int_equal(output->returncode, 3);
  free(output);
  expect_end(aloop_process_stream(process, 1));
  expect_end(aloop_process_stream(process, 2));
  give_up(env, process);
}

static void communicate_gets_what_was_not_read_yet(void **state) {
  env_t *env = *state;
  for (int wait = 0; wait < 2; wait++) {
    aloop_process_t *process = shell(env, "echo one; echo two; echo oops >&2; read line; echo $line");
    expect_line(aloop_process_stream(process, 1), "one\n");
    if (wait) expect_line(aloop_process_stream(process, 2), "oops\n");
    aloop_output_t *output = communicated(env, process, "three\n");
    assert_string_equal(output->out, "two\nthree\n");
    assert_string_equal(output->err, wait ? "" : "oops\n");
    free(output);
    give_up(env, process);
  }
}

static void communicate_does_not_disturb_a_read(void **state) {
  env_t *env = *state;
  const char *line;
  aloop_process_t *process = shell(env, "read line; echo $line; echo rest");
  aloop_stream_t *out = aloop_process_stream(process, 1);
  aloop_future_t *reading = aloop_stream_readline(out, &line);
  assert_int_equal(finish(env->loop, aloop_process_communicate(process, "x", 1, 0)), ALOOP_EBUSY);
  assert_int_equal(aloop_stream_write(aloop_process_stream(process, 0), "first\n", 6), 0);
  assert_int_equal(finish(env->loop, reading), 6);
  aloop_output_t *output = communicated(env, process, "");
  assert_string_equal(output->out, "rest\n");
  free(output);
  give_up(env, process);
}

static void communicate_counts_what_was_not_read_against_its_limit(void **state) {
  env_t *env = *state;
  aloop_process_t *process = shell(env, "echo long line; echo x >&2; sleep 100");
  expect_line(aloop_process_stream(process, 2), "x\n");
  while (!aloop_transport_is_closing(aloop_process_pipe(process, 1))) {
    aloop_future_t *future = aloop_process_communicate(process, NULL, 0, 4);
    assert_int_equal(finish(env->loop, future), ALOOP_ENOBUFS);
  }
  assert_int_equal(finish(env->loop, aloop_process_wait(process)), 256 + SIGKILL);
  give_up(env, process);
}

/* ---- Giving up ------------------------------------------------------------------------------------------- */

static void a_start_that_is_cancelled_leaves_nothing(void **state) {
  env_t *env = *state;
  for (int turns = 0; turns < 4; turns++) {
    aloop_future_t *future = aloop_create_subprocess_shell(env->loop, "sleep 100", NULL, NULL);
    for (int i = 0; i < turns; i++) aloop_run_once(env->loop, 0);
    bool cancelled = aloop_future_cancel(future) > 0;
    aloop_process_t *process = NULL;
    if (!cancelled && aloop_future_take_ptr(future, &process) == 0) aloop_process_close(process);
    aloop_future_unref(future);
    give_up(env, process);
  }
}

static void a_process_may_be_closed_in_any_state(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 5; way++) {
    const char *line;
    aloop_process_t *process = shell(env, "echo hello; cat");
    aloop_stream_t *out = aloop_process_stream(process, 1);
    aloop_future_t *reading = NULL;
    if (way > 0) expect_line(out, "hello\n");
    if (way > 1) reading = aloop_stream_readline(out, &line);
    if (way > 2) aloop_stream_close(aloop_process_stream(process, 0));
    if (way > 3) aloop_stream_close(out);
    aloop_process_close(process);
    if (reading != NULL) assert_int_equal(finish(env->loop, reading), 0);
    give_up(env, process);
  }
}

static void the_loop_may_be_closed_with_a_child(void **state) {
  env_t *env = *state;
  const char *line;
  aloop_process_t *process = shell(env, "echo hello; cat");
  aloop_stream_t *out = aloop_process_stream(process, 1);
  expect_line(out, "hello\n");
  aloop_future_t *reading = aloop_stream_readline(out, &line);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_future_result(reading) < 0);
  aloop_future_unref(reading);
  aloop_process_unref(process);
}

static void a_program_that_is_not_there_is_an_error(void **state) {
  env_t *env = *state;
  const char *const argv[] = {"/nope/nope", NULL};
  aloop_process_options_t options = {.size = sizeof options, .argv = argv};
  aloop_future_t *future = aloop_create_subprocess_exec(env->loop, &options, NULL);
  assert_int_equal(run_future(env->loop, future), ALOOP_ENOENT);
  assert_non_null(strstr(aloop_future_message(future), "/nope/nope"));
  aloop_future_unref(future);
}

static void other_processes_have_no_streams(void **state) {
  env_t *env = *state;
  aloop_process_t *process = started(env, aloop_subprocess_shell(env->loop, NULL, NULL, "true", NULL));
  for (int fd = -1; fd < 4; fd++) assert_null(aloop_process_stream(process, fd));
  assert_int_equal(finish(env->loop, aloop_process_wait(process)), 0);
  give_up(env, process);
}

TESTS(T(a_child_is_talked_with), T(a_program_gets_its_arguments), T(output_outlives_the_child),
      T(a_stream_may_be_kept_longer_than_the_process), T(what_a_child_does_not_read_breaks_the_pipe),
      T(communicate_gets_everything), T(communicate_gets_what_was_not_read_yet),
      T(communicate_does_not_disturb_a_read), T(communicate_counts_what_was_not_read_against_its_limit),
      T(a_start_that_is_cancelled_leaves_nothing), T(a_process_may_be_closed_in_any_state),
      T(the_loop_may_be_closed_with_a_child), T(a_program_that_is_not_there_is_an_error),
      T(other_processes_have_no_streams))
