/* SPDX-License-Identifier: MIT
 *
 * What few futures have: a message, and the addresses that were tried in vain.
 */
#include "harness.h"

#include <netinet/in.h>
#include <string.h>

#include "future/future.h"

static void an_error_has_a_message(void **state) {
  env_t *env = *state;
  char message[] = "the disk is on fire";
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_set_error(future, ALOOP_EIO, message), 0);
  memset(message, 'x', sizeof message - 1);
  assert_int_equal(aloop_future_result(future), ALOOP_EIO);
  assert_string_equal(aloop_future_message(future), "the disk is on fire");
  aloop_future_unref(future);
}

static void without_a_message_the_code_speaks(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_error(future, ALOOP_EIO, NULL);
  assert_string_equal(aloop_future_message(future), aloop_strerror(ALOOP_EIO));
  aloop_future_unref(future);
}

static void a_value_has_no_message(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_future_set_value(future, 7);
  assert_string_equal(aloop_future_message(future), "");
  aloop_future_unref(future);
}

static void out_of_memory_leaves_the_message_out(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_future_new(env->loop);
  env->fail_from = 1;
  assert_int_equal(aloop_future_set_error(future, ALOOP_EIO, "lost"), 0);
  env->fail_from = 0;
  assert_int_equal(aloop_future_result(future), ALOOP_EIO);
  assert_string_equal(aloop_future_message(future), aloop_strerror(ALOOP_EIO));
  aloop_future_unref(future);
}

static void a_failure_has_a_formatted_message(void **state) {
  env_t *env = *state;
  aloop_future_t *future =
      aloop__future_failed(env->loop, "x.c:1", ALOOP_EINVAL, "port %d is too %s", 70000, "big");
  assert_int_equal(aloop_future_result(future), ALOOP_EINVAL);
  assert_string_equal(aloop_future_message(future), "port 70000 is too big");
  aloop_future_unref(future);
  future = aloop__future_failed(env->loop, NULL, ALOOP_EINVAL, NULL);
  assert_string_equal(aloop_future_message(future), aloop_strerror(ALOOP_EINVAL));
  aloop_future_unref(future);
}

static void attempts_are_kept_in_order(void **state) {
  env_t *env = *state;
  aloop_attempt_t attempt;
  aloop_future_t *future = aloop__future_new(env->loop, NULL);
  assert_int_equal(aloop_future_attempt(future, 0, &attempt), ALOOP_ENOENT);
  for (uint16_t i = 0; i < 5; i++) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(i)};
    aloop__future_add_attempt(future, (struct sockaddr *)&address, sizeof address, ALOOP_ECONNREFUSED - i);
  }
  aloop__future_fail(future, ALOOP_ECONNREFUSED, "all failed");
  for (uint16_t i = 0; i < 5; i++) {
    assert_int_equal(aloop_future_attempt(future, i, &attempt), 0);
    assert_int_equal(attempt.error, ALOOP_ECONNREFUSED - i);
    assert_int_equal(attempt.address_size, sizeof(struct sockaddr_in));
    assert_int_equal(((struct sockaddr_in *)&attempt.address)->sin_port, htons(i));
  }
  assert_int_equal(aloop_future_attempt(future, 5, &attempt), ALOOP_ENOENT);
  assert_int_equal(aloop_future_attempt(future, 0, NULL), ALOOP_EINVAL);
  aloop_future_result(future);
  aloop_future_unref(future);
}

TESTS(T(an_error_has_a_message), T(without_a_message_the_code_speaks), T(a_value_has_no_message),
      T(out_of_memory_leaves_the_message_out), T(a_failure_has_a_formatted_message),
      T(attempts_are_kept_in_order))
