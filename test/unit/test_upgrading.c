/* SPDX-License-Identifier: MIT
 *
 * start_tls of streams: what was read stays read, what was not is thrown away, and the stream goes on over the
 * new transport, or ends with the handshake. pollers: all
 */
#include "crowd.h"
#include "duplexes.h"
#include "mocktls.h"

#include <string.h>
#include <unistd.h>

static aloop_future_t *start(aloop_stream_t *stream, int role) {
  aloop_tls_context_t *context = mock_context(role);
  aloop_start_tls_options_t options = {.size = sizeof options, .tls = context};
  if (role == ALOOP_TLS_CLIENT) options.server_hostname = "server.test";
  aloop_future_t *future = aloop_stream_start_tls(stream, &options);
  assert_non_null(future);
  aloop_tls_context_unref(context);
  return future;
}

/* The peer's part of a client's handshake. */
static void shake_hands(env_t *env, int peer) {
  mock_expect(env->loop, peer, 'H', "server.test");
  mock_say(peer, 'S', "");
  mock_expect(env->loop, peer, 'F', "");
}

static void a_stream_goes_on_over_tls(void **state) {
  env_t *env = *state;
  int peer;
  char text[16] = "";
  mock_begin();
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  assert_int_equal(aloop_stream_write(stream, "STARTTLS\n", 9), 0);
  say(peer, "go ahead\n");
  expect_line(stream, "go ahead\n");
  aloop_future_t *future = start(stream, ALOOP_TLS_CLIENT);
  assert_int_equal(drain(peer, text, 9), 9);
  shake_hands(env, peer);
  assert_int_equal(value_of(env, future), 0);
  assert_int_equal(aloop_stream_write(stream, "secret", 6), 0);
  mock_expect(env->loop, peer, 'D', "secret");
  mock_say(peer, 'D', "a line\nand more");
  expect_line(stream, "a line\n");
  assert_int_equal(value_of(env, aloop_stream_drain(stream)), 0);
  assert_false(aloop_stream_is_closing(stream));
  end_stream(stream, peer);
}

static void what_came_in_clear_and_was_not_read_is_gone(void **state) {
  env_t *env = *state;
  int peer;
  mock_begin();
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "go ahead\ninjected\n");
  settle(env->loop);
  expect_line(stream, "go ahead\n");
  aloop_future_t *future = start(stream, ALOOP_TLS_CLIENT);
  shake_hands(env, peer);
  mock_say(peer, 'D', "true\n");
  assert_int_equal(value_of(env, future), 0);
  expect_line(stream, "true\n");
  end_stream(stream, peer);
}

static void a_failed_handshake_ends_the_stream(void **state) {
  env_t *env = *state;
  int peer;
  const char *line;
  mock_begin();
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = start(stream, ALOOP_TLS_SERVER);
  mock_say(peer, 'A', "");
  assert_true(error_of(env, future, NULL) < 0);
  settle(env->loop);
  assert_true(aloop_stream_error(stream) < 0);
  assert_int_equal(error_of(env, aloop_stream_readline(stream, &line), NULL), aloop_stream_error(stream));
  end_stream(stream, peer);
}

static void during_the_handshake_nothing_is_read_or_written(void **state) {
  env_t *env = *state;
  int peer;
  const char *line;
  mock_begin();
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *future = start(stream, ALOOP_TLS_CLIENT);
  assert_int_equal(aloop_stream_write(stream, "x", 1), ALOOP_EBUSY);
  assert_int_equal(error_of(env, aloop_stream_readline(stream, &line), NULL), ALOOP_EBUSY);
  assert_int_equal(error_of(env, aloop_stream_drain(stream), NULL), ALOOP_EBUSY);
  assert_int_equal(error_of(env, start(stream, ALOOP_TLS_CLIENT), NULL), ALOOP_EBUSY);
  shake_hands(env, peer);
  assert_int_equal(value_of(env, future), 0);
  end_stream(stream, peer);
}

static void a_read_that_waits_is_in_the_way(void **state) {
  env_t *env = *state;
  int peer;
  const char *line;
  mock_begin();
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  aloop_future_t *read = aloop_stream_readline(stream, &line);
  assert_int_equal(error_of(env, start(stream, ALOOP_TLS_CLIENT), NULL), ALOOP_EBUSY);
  say(peer, "still in clear\n");
  assert_int_equal(finish(env->loop, read), 15);
  end_stream(stream, peer);
}

static void closing_ends_the_handshake(void **state) {
  env_t *env = *state;
  for (int way = 0; way < 4; way++) {
    int peer;
    mock_begin();
    aloop_stream_t *stream = open_stream(env, 0, &peer);
    aloop_future_t *future = start(stream, ALOOP_TLS_CLIENT);
    if (way == 0) aloop_stream_close(stream);
    if (way == 1) aloop_stream_abort(stream);
    if (way == 2) aloop_future_cancel(future);
    if (way == 3) {
      aloop_future_detach(future);
      end_stream(stream, peer); /* nobody is left: the last reference closes */
      continue;
    }
    assert_int_equal(error_of(env, future, NULL), ALOOP_ECANCELED);
    end_stream(stream, peer);
  }
}

static void wrong_options_change_nothing(void **state) {
  env_t *env = *state;
  int peer;
  mock_begin();
  aloop_stream_t *stream = open_stream(env, 0, &peer);
  say(peer, "some\n");
  settle(env->loop);
  assert_int_equal(error_of(env, aloop_stream_start_tls(stream, NULL), NULL), ALOOP_EINVAL);
  expect_line(stream, "some\n");
  end_stream(stream, peer);
}

TESTS(T(a_stream_goes_on_over_tls), T(what_came_in_clear_and_was_not_read_is_gone),
      T(a_failed_handshake_ends_the_stream), T(during_the_handshake_nothing_is_read_or_written),
      T(a_read_that_waits_is_in_the_way), T(closing_ends_the_handshake), T(wrong_options_change_nothing))
