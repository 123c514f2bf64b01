/* SPDX-License-Identifier: MIT
 *
 * The exception handler: set, get, default, call; a handler that fails; the one line the default writes.
 */
#include "harness.h"

#include <string.h>
#include <unistd.h>

#include "core/report.h"

/* Runs with stderr in a pipe; what was written is in text. */
typedef struct capture {
  int saved;
  int fds[2];
  char text[4096];
} capture_t;

static void capture_begin(capture_t *capture) {
  make_pipe(capture->fds);
  capture->saved = dup(STDERR_FILENO);
  dup2(capture->fds[1], STDERR_FILENO);
}

static void capture_end(capture_t *capture) {
  dup2(capture->saved, STDERR_FILENO);
  close(capture->saved);
  close(capture->fds[1]);
  ssize_t n = read(capture->fds[0], capture->text, sizeof capture->text - 1);
  capture->text[n > 0 ? n : 0] = '\0';
  close(capture->fds[0]);
}

static int remember(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  assert_non_null(loop);
  *(aloop_error_context_t *)arg = *context;
  return 0;
}

static int give_up(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop;
  (void)context;
  ++*(int *)arg;
  return ALOOP_EIO;
}

static void the_handler_is_told_everything(void **state) {
  env_t *env = *state;
  aloop_error_context_t seen = {0};
  assert_int_equal(aloop_set_exception_handler(env->loop, remember, &seen), 0);
  aloop_error_context_t context = aloop__report_context("it broke", ALOOP_EPIPE);
  assert_int_equal(context.fd, -1);
  context.fd = 7;
  context.origin = "here.c:1";
  context.protocol = env;
  aloop_call_exception_handler(env->loop, &context);
  assert_string_equal(seen.message, "it broke");
  assert_int_equal(seen.error, ALOOP_EPIPE);
  assert_int_equal(seen.fd, 7);
  assert_string_equal(seen.origin, "here.c:1");
  assert_ptr_equal(seen.protocol, env);
}

static void the_handler_can_be_asked_for(void **state) {
  env_t *env = *state;
  void *arg = env;
  aloop_error_context_t seen = {0};
  aloop_set_exception_handler(env->loop, remember, &seen);
  assert_true(aloop_get_exception_handler(env->loop, &arg) == remember);
  assert_ptr_equal(arg, &seen);
  assert_true(aloop_get_exception_handler(env->loop, NULL) == remember);
  aloop_set_exception_handler(env->loop, NULL, NULL);
  assert_true(aloop_get_exception_handler(env->loop, &arg) == NULL);
}

static void the_default_writes_one_line(void **state) {
  env_t *env = *state;
  capture_t capture;
  aloop_error_context_t context = aloop__report_context("it broke", ALOOP_EPIPE);
  context.fd = 7;
  context.origin = "here.c:1";
  context.duration = ALOOP_MICROS(1234567);
  aloop_set_exception_handler(env->loop, NULL, NULL);
  capture_begin(&capture);
  aloop_call_exception_handler(env->loop, &context);
  capture_end(&capture);
  assert_string_equal(capture.text, "aloop: it broke: broken pipe (EPIPE), fd 7, 1234.567 ms, from here.c:1\n");
}

static void a_warning_has_no_error(void **state) {
  env_t *env = *state;
  capture_t capture;
  aloop_error_context_t context = aloop__report_context("careful", 0);
  capture_begin(&capture);
  aloop_default_exception_handler(env->loop, &context);
  capture_end(&capture);
  assert_string_equal(capture.text, "aloop: careful\n");
}

static void a_line_that_is_too_long_is_cut(void **state) {
  env_t *env = *state;
  capture_t capture;
  char message[2000];
  memset(message, 'x', sizeof message - 1);
  message[sizeof message - 1] = '\0';
  aloop_error_context_t context = aloop__report_context(message, ALOOP_EPIPE);
  context.fd = 7;
  context.origin = message;
  capture_begin(&capture);
  aloop_default_exception_handler(env->loop, &context);
  capture_end(&capture);
  size_t length = strlen(capture.text);
  assert_in_range(length, 100, 512);
  assert_ptr_equal(strchr(capture.text, '\n'), capture.text + length - 1);
}

static void a_handler_that_fails_falls_back_to_the_default(void **state) {
  env_t *env = *state;
  capture_t capture;
  int calls = 0;
  aloop_error_context_t context = aloop__report_context("it broke", ALOOP_EPIPE);
  aloop_set_exception_handler(env->loop, give_up, &calls);
  capture_begin(&capture);
  aloop_call_exception_handler(env->loop, &context);
  capture_end(&capture);
  assert_int_equal(calls, 1);
  assert_non_null(strstr(capture.text, "handler failed"));
  assert_non_null(strstr(capture.text, "(EIO)"));
  assert_non_null(strstr(capture.text, "it broke")); /* the original report is not lost */
  assert_non_null(strstr(capture.text, "EPIPE"));
}

static int replace_itself(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  aloop_set_exception_handler(loop, remember, arg);
  return remember(loop, context, arg);
}

static void a_handler_may_replace_itself(void **state) {
  env_t *env = *state;
  aloop_error_context_t seen = {0};
  aloop_error_context_t context = aloop__report_context("it broke", ALOOP_EPIPE);
  aloop_set_exception_handler(env->loop, replace_itself, &seen);
  aloop_call_exception_handler(env->loop, &context);
  assert_int_equal(seen.error, ALOOP_EPIPE);
  assert_true(aloop_get_exception_handler(env->loop, NULL) == remember);
}

static void nothing_to_report_is_fine(void **state) {
  env_t *env = *state;
  aloop_error_context_t context = aloop__report_context(NULL, 0);
  capture_t capture;
  capture_begin(&capture);
  aloop_default_exception_handler(env->loop, &context);
  aloop_default_exception_handler(NULL, NULL);
  capture_end(&capture);
  assert_string_equal(capture.text, "aloop: error\n");
  aloop_call_exception_handler(NULL, &context);
  aloop_call_exception_handler(env->loop, NULL);
  assert_int_equal(env->reports, 0);
  assert_int_equal(aloop_set_exception_handler(NULL, remember, NULL), ALOOP_EINVAL);
  assert_true(aloop_get_exception_handler(NULL, NULL) == NULL);
}

static void misuse_is_reported_in_debug_mode_only(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop__misuse(env->loop, ALOOP_EINVAL, "the rule"), ALOOP_EINVAL);
  assert_int_equal(env->reports, 0);
  aloop_set_debug(env->loop, true);
  assert_int_equal(aloop__misuse(env->loop, ALOOP_EINVAL, "the rule"), ALOOP_EINVAL);
  assert_int_equal(env->reports, 1);
  assert_string_equal(env->report_messages[0], "the rule");
  assert_int_equal(aloop__misuse(NULL, ALOOP_EINVAL, "the rule"), ALOOP_EINVAL);
}

TESTS(T(the_handler_is_told_everything), T(the_handler_can_be_asked_for), T(the_default_writes_one_line),
      T(a_warning_has_no_error), T(a_line_that_is_too_long_is_cut),
      T(a_handler_that_fails_falls_back_to_the_default), T(a_handler_may_replace_itself),
      T(nothing_to_report_is_fine), T(misuse_is_reported_in_debug_mode_only))
