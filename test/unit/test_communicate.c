/* SPDX-License-Identifier: MIT
 *
 * communicate: input and output of a child as one operation, with everything that a child may do instead.
 *
 * pollers: all
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "children.h"
#include "peers.h"
#include "streams.h"

/* Waits for the output; NULL with *error if there is none. */
static aloop_output_t *output_of(env_t *env, aloop_future_t *future, int64_t *error) {
  aloop_output_t *output = NULL;
  *error = run_future(env->loop, future);
  if (*error >= 0) assert_int_equal(aloop_future_take_ptr(future, &output), 0);
  aloop_future_unref(future);
  return output;
}

/* Runs a command to its end with this input. */
static aloop_output_t *ask(env_t *env, const char *command, const void *input, size_t size) {
  int64_t error;
  aloop_process_t *process = start_plain(env, command, NULL);
  aloop_output_t *output = output_of(env, aloop_process_communicate(process, input, size, 0), &error);
  assert_non_null(output);
  aloop_process_unref(process);
  await_no_process(env);
  return output;
}

static void refused(aloop_future_t *future, int64_t error) {
  assert_non_null(future);
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_result(future), error);
  aloop_future_unref(future);
}

/* ---- What comes out -------------------------------------------------------------------------------------- */

IN_EVERY_WAY(both_streams_and_the_exit_code_come_back) {
  aloop_output_t *output = ask(env, "cat; echo err >&2; exit 3", "in", 2);
  assert_string_equal(output->out, "in");
  assert_int_equal(output->out_size, 2);
  assert_string_equal(output->err, "err\n");
  assert_int_equal(output->err_size, 4);
  assert_int_equal(output->returncode, 3);
  free(output);
}

IN_EVERY_WAY(silence_is_an_empty_text) {
  aloop_output_t *output = ask(env, "cat", NULL, 0);
  assert_string_equal(output->out, "");
  assert_string_equal(output->err, "");
  assert_int_equal(output->returncode, 0);
  free(output);
}

IN_EVERY_WAY(a_signal_comes_back_as_a_negative_code) {
  aloop_output_t *output = ask(env, "echo x; kill -TERM $$", NULL, 0);
  assert_string_equal(output->out, "x\n");
  assert_int_equal(output->returncode, -SIGTERM);
  free(output);
}

IN_EVERY_WAY(a_stream_that_is_no_pipe_has_no_text) {
  int64_t error;
  aloop_process_options_t options = {
      .size = sizeof options, .in = {ALOOP_STDIO_DEVNULL, 0}, .err = {ALOOP_STDIO_STDOUT, 0}};
  aloop_process_t *process = start_plain(env, "cat; echo a; echo b >&2", &options);
  aloop_output_t *output = output_of(env, aloop_process_communicate(process, NULL, 0, 0), &error);
  assert_string_equal(output->out, "a\nb\n");
  assert_null(output->err);
  assert_int_equal(output->err_size, 0);
  free(output);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(without_any_pipe_there_is_the_exit_code) {
  int64_t error;
  aloop_process_options_t options = {.size = sizeof options,
                                     .in = {ALOOP_STDIO_DEVNULL, 0},
                                     .out = {ALOOP_STDIO_DEVNULL, 0},
                                     .err = {ALOOP_STDIO_DEVNULL, 0}};
  aloop_process_t *process = start_plain(env, "exit 8", &options);
  aloop_output_t *output = output_of(env, aloop_process_communicate(process, NULL, 0, 0), &error);
  assert_int_equal(output->returncode, 8);
  assert_null(output->out);
  assert_null(output->err);
  free(output);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(megabytes_go_both_ways) {
  enum { SIZE = 3 << 20 };
  char *bytes = malloc(SIZE);
  assert_non_null(bytes);
  pattern(bytes, SIZE, 7);
  aloop_output_t *output = ask(env, "tee /dev/stderr", bytes, SIZE);
  assert_int_equal(output->out_size, SIZE);
  assert_int_equal(output->err_size, SIZE);
  assert_memory_equal(output->out, bytes, SIZE);
  assert_memory_equal(output->err, bytes, SIZE);
  assert_int_equal(output->out[SIZE], 0);
  free(output);
  free(bytes);
}

IN_EVERY_WAY(the_input_is_copied) {
  char bytes[] = "first";
  int64_t error;
  aloop_process_t *process = start_plain(env, "cat", NULL);
  aloop_future_t *future = aloop_process_communicate(process, bytes, 5, 0);
  memcpy(bytes, "other", 5);
  aloop_output_t *output = output_of(env, future, &error);
  assert_string_equal(output->out, "first");
  free(output);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(a_child_need_not_read) {
  enum { SIZE = 1 << 20 };
  char *bytes = calloc(1, SIZE);
  assert_non_null(bytes);
  aloop_output_t *output = ask(env, "exec <&-; echo no thanks; exit 1", bytes, SIZE);
  assert_string_equal(output->out, "no thanks\n");
  assert_int_equal(output->returncode, 1);
  free(output);
  free(bytes);
}

IN_EVERY_WAY(it_may_begin_when_the_child_has_ended) {
  int64_t error;
  aloop_process_t *process = start_plain(env, "echo early; exit 2", NULL);
  assert_int_equal(wait_result(env, process), 2);
  aloop_output_t *output = output_of(env, aloop_process_communicate(process, "x", 1, 0), &error);
  assert_string_equal(output->out, "early\n");
  assert_int_equal(output->returncode, 2);
  free(output);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(it_may_outlive_the_callers_reference) {
  int64_t error;
  aloop_process_t *process = start_plain(env, "cat", NULL);
  aloop_future_t *future = aloop_process_communicate(process, "x", 1, 0);
  aloop_process_unref(process);
  aloop_output_t *output = output_of(env, future, &error);
  assert_string_equal(output->out, "x");
  free(output);
  await_no_process(env);
}

IN_EVERY_WAY(an_output_that_nobody_takes_is_released) {
  aloop_process_t *process = start_plain(env, "echo x", NULL);
  aloop_future_t *future = aloop_process_communicate(process, NULL, 0, 0);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  aloop_process_unref(process);
  await_no_process(env);
}

/* ---- Ends before the end --------------------------------------------------------------------------------- */

IN_EVERY_WAY(more_than_the_limit_kills_the_child) {
  static const char *const streams[] = {"stdout", "stderr"};
  for (int i = 0; i < 2; i++) {
    char command[64], text[80];
    snprintf(command, sizeof command, "cat /dev/zero >&%d", i + 1);
    aloop_process_t *process = start_plain(env, command, NULL);
    aloop_future_t *future = aloop_process_communicate(process, NULL, 0, 100000);
    assert_int_equal(run_future(env->loop, future), ALOOP_ENOBUFS);
    snprintf(text, sizeof text, "the child wrote more than 100000 bytes to %s", streams[i]);
    assert_string_equal(aloop_future_message(future), text);
    aloop_future_unref(future);
    assert_int_equal(wait_result(env, process), 256 + SIGKILL);
    aloop_process_unref(process);
    await_no_process(env);
  }
}

IN_EVERY_WAY(exactly_the_limit_is_fine) {
  int64_t error;
  aloop_process_t *process = start_plain(env, "printf 12345; printf 1234 >&2", NULL);
  aloop_output_t *output = output_of(env, aloop_process_communicate(process, NULL, 0, 5), &error);
  assert_string_equal(output->out, "12345");
  assert_string_equal(output->err, "1234");
  free(output);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(a_cancelled_one_leaves_the_child) {
  int code;
  aloop_process_t *process = start_plain(env, "echo x; read y; exit 0", NULL);
  aloop_future_t *future = aloop_process_communicate(process, NULL, 0, 0);
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
  (void)aloop_process_returncode(process, &code);
  refused(aloop_process_communicate(process, NULL, 0, 0), ALOOP_EBUSY);
  assert_true(wait_result(env, process) >= 0);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(a_child_collected_elsewhere_has_no_output) {
  int64_t error;
  signal(SIGCHLD, SIG_IGN);
  aloop_process_t *process = start_plain(env, "echo x", NULL);
  aloop_output_t *output = output_of(env, aloop_process_communicate(process, NULL, 0, 0), &error);
  signal(SIGCHLD, SIG_DFL);
  assert_null(output);
  assert_int_equal(error, ALOOP_EREAPED);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(close_ends_it) {
  int64_t error;
  aloop_process_t *process = start_plain(env, "echo x; cat /dev/zero", NULL);
  aloop_future_t *future = aloop_process_communicate(process, NULL, 0, 0);
  aloop_process_close(process);
  aloop_output_t *output = output_of(env, future, &error);
  assert_non_null(output);
  assert_int_equal(output->returncode, -SIGKILL);
  free(output);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(closing_the_loop_ends_it) {
  aloop_process_t *process = start_plain(env, "cat /dev/zero", NULL);
  aloop_future_t *future = aloop_process_communicate(process, NULL, 0, 0);
  run_turns(env->loop, 3);
  aloop_close(env->loop);
  assert_true(aloop_future_done(future));
  assert_true(aloop_future_result(future) < 0);
  aloop_future_unref(future);
  aloop_process_unref(process);
  env_loop(env, (aloop_options_t){.debug = -1});
}

/* ---- Refusals -------------------------------------------------------------------------------------------- */

IN_EVERY_WAY(there_is_one_and_only_without_a_protocol) {
  notes_t notes = {.env = env};
  int64_t error;
  start_noted(&notes, "cat", NULL);
  refused(aloop_process_communicate(notes.process, NULL, 0, 0), ALOOP_EBUSY);
  end_notes(&notes);
  aloop_process_t *process = start_plain(env, "cat", NULL);
  aloop_future_t *first = aloop_process_communicate(process, "x", 1, 0);
  refused(aloop_process_communicate(process, "y", 1, 0), ALOOP_EBUSY);
  free(output_of(env, first, &error));
  refused(aloop_process_communicate(process, "y", 1, 0), ALOOP_EBUSY);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(input_needs_a_pipe_and_bytes) {
  aloop_process_options_t options = {.size = sizeof options, .in = {ALOOP_STDIO_DEVNULL, 0}};
  int64_t error;
  aloop_process_t *process = start_plain(env, "echo x", &options);
  refused(aloop_process_communicate(process, "x", 1, 0), ALOOP_EINVAL);
  refused(aloop_process_communicate(process, NULL, 1, 0), ALOOP_EINVAL);
  aloop_output_t *output = output_of(env, aloop_process_communicate(process, NULL, 0, 0), &error);
  assert_string_equal(output->out, "x\n"); /* a refusal does not count */
  free(output);
  aloop_process_unref(process);
  await_no_process(env);
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static void talk_once(env_t *env) {
  aloop_process_t *process = NULL;
  aloop_future_t *future = aloop_subprocess_shell(env->loop, NULL, NULL, "cat; exit 4", NULL);
  if (future == NULL) {
    env->fail_from = 0;
    return;
  }
  for (int i = 0; i < 100 && !aloop_future_done(future); i++) aloop_run_once(env->loop, 0);
  if (!aloop_future_done(future)) env->fail_from = 0;
  int64_t result = run_future(env->loop, future);
  assert_true(result == 0 || result == ALOOP_ENOMEM);
  if (result == 0) assert_int_equal(aloop_future_take_ptr(future, &process), 0);
  aloop_future_unref(future);
  if (process != NULL) {
    future = aloop_process_communicate(process, "12345", 5, 0);
    for (int i = 0; i < 100 && future != NULL && !aloop_future_done(future); i++)
      aloop_run_once(env->loop, ALOOP_MILLIS(1));
    env->fail_from = 0;
    if (future != NULL) {
      result = run_future(env->loop, future);
      assert_true(result == 0 || result == ALOOP_ENOMEM);
    }
    aloop_future_unref(future);
    aloop_process_close(process);
    aloop_process_unref(process);
  }
  env->fail_from = 0;
  await_no_process(env);
}

static void out_of_memory_ends_it(void **state) {
  torture(*state, talk_once);
}

TESTS(T(both_streams_and_the_exit_code_come_back), T(silence_is_an_empty_text),
      T(a_signal_comes_back_as_a_negative_code), T(a_stream_that_is_no_pipe_has_no_text),
      T(without_any_pipe_there_is_the_exit_code), T(megabytes_go_both_ways), T(the_input_is_copied),
      T(a_child_need_not_read), T(it_may_begin_when_the_child_has_ended),
      T(it_may_outlive_the_callers_reference), T(an_output_that_nobody_takes_is_released),
      T(more_than_the_limit_kills_the_child), T(exactly_the_limit_is_fine), T(a_cancelled_one_leaves_the_child),
      T(a_child_collected_elsewhere_has_no_output), T(close_ends_it), T(closing_the_loop_ends_it),
      T(there_is_one_and_only_without_a_protocol), T(input_needs_a_pipe_and_bytes), T(out_of_memory_ends_it))
