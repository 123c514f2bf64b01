/* SPDX-License-Identifier: MIT
 *
 * Opening streams: over TCP and Unix sockets, with the errors of the connect, cancelled at every moment.
 * pollers: all
 */
#include "duplexes.h"
#include "peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static aloop_future_t *open_port(env_t *env, int port) {
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = port};
  return aloop_open_connection(env->loop, &options, NULL);
}

static aloop_stream_t *opened(env_t *env, aloop_future_t *future) {
  aloop_stream_t *stream = NULL;
  assert_int_equal(run_future(env->loop, future), 0);
  assert_int_equal(aloop_future_take_ptr(future, &stream), 0);
  aloop_future_unref(future);
  return stream;
}

static void a_connection_is_opened(void **state) {
  env_t *env = *state;
  int port, listener = peer_listen(1, &port);
  aloop_stream_t *stream = opened(env, open_port(env, port));
  int peer = accept(listener, NULL, NULL);
  say(peer, "hello\n");
  expect_line(stream, "hello\n");
  assert_int_equal(aloop_stream_write(stream, "hi", 2), 0);
  char got[4] = "";
  assert_int_equal(recv(peer, got, 2, MSG_WAITALL), 2);
  assert_string_equal(got, "hi");
  end_stream(stream, peer);
  close(listener);
}

static void a_limit_may_be_set(void **state) {
  env_t *env = *state;
  int port, listener = peer_listen(1, &port);
  const char *line;
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = port};
  aloop_stream_options_t limited = {.size = sizeof limited, .limit = 4};
  aloop_stream_t *stream = opened(env, aloop_open_connection(env->loop, &options, &limited));
  int peer = accept(listener, NULL, NULL);
  say(peer, "12345\n");
  assert_int_equal(finish(env->loop, aloop_stream_readline(stream, &line)), ALOOP_ERANGE);
  end_stream(stream, peer);
  close(listener);
}

static void errors_are_those_of_the_connect(void **state) {
  env_t *env = *state;
  int port, bound = peer_bind("127.0.0.1", &port);
  aloop_attempt_t attempt;
  aloop_future_t *future = open_port(env, port);
  assert_int_equal(run_future(env->loop, future), ALOOP_ECONNREFUSED);
  assert_int_equal(aloop_future_attempt(future, 0, &attempt), 0);
  assert_int_equal(attempt.error, ALOOP_ECONNREFUSED);
  assert_non_null(strstr(aloop_future_message(future), "127.0.0.1"));
  aloop_future_unref(future);
  close(bound);
}

static void unix_sockets_are_opened_too(void **state) {
  env_t *env = *state;
  char path[] = "/tmp/aloop-opening-XXXXXX";
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  assert_non_null(mkdtemp(path));
  snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", path);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)(void *)&address, sizeof address), 0);
  assert_int_equal(listen(listener, 1), 0);
  aloop_unix_connect_options_t options = {.size = sizeof options, .path = address.sun_path};
  aloop_stream_t *stream = opened(env, aloop_open_unix_connection(env->loop, &options, NULL));
  int peer = accept(listener, NULL, NULL);
  say(peer, "hello\n");
  expect_line(stream, "hello\n");
  end_stream(stream, peer);
  close(listener);
  unlink(address.sun_path);
  assert_int_equal(finish(env->loop, aloop_open_unix_connection(env->loop, &options, NULL)), ALOOP_ENOENT);
  rmdir(path);
}

static void cancelling_in_any_turn_leaves_nothing(void **state) {
  env_t *env = *state;
  for (int turns = 0; turns < 8; turns++) {
    int port, listener = peer_listen(1, &port);
    aloop_future_t *future = open_port(env, port);
    for (int i = 0; i < turns; i++) aloop_run_once(env->loop, 0);
    aloop_future_cancel(future);
    aloop_future_unref(future);
    settle(env->loop);
    aloop_metrics_t metrics = {.size = sizeof metrics};
    assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
    assert_int_equal(metrics.streams + metrics.transports + metrics.futures, 0);
    close(listener);
  }
}

static void the_loop_may_be_closed_in_any_turn(void **state) {
  env_t *env = *state;
  for (int turns = 0; turns < 8; turns++) {
    int port, listener = peer_listen(1, &port);
    aloop_future_t *future = open_port(env, port);
    for (int i = 0; i < turns; i++) aloop_run_once(env->loop, 0);
    assert_int_equal(aloop_close(env->loop), 0);
    assert_true(aloop_future_done(future));
    aloop_future_unref(future);
    aloop_free(env->loop);
    close(listener);
    env->loop = NULL;
    env_loop(env, (aloop_options_t){.debug = -1});
  }
}

static void short_of_memory(env_t *env) {
  int fds[2];
  make_socketpair(fds);
  aloop_connect_options_t options = {.size = sizeof options, .fd = fds[0]};
  aloop_stream_t *stream = NULL;
  aloop_future_t *future = aloop_open_connection(env->loop, &options, NULL);
  for (int i = 0; future != NULL && !aloop_future_done(future) && i < 100; i++) aloop_run_once(env->loop, 0);
  int rc = future != NULL ? aloop_future_take_ptr(future, &stream) : ALOOP_ENOMEM;
  assert_true(rc == 0 || rc == ALOOP_ENOMEM);
  aloop_future_unref(future);
  aloop_stream_unref(stream);
  env->fail_from = 0;
  settle(env->loop);
  if (recv(fds[1], &rc, 1, MSG_DONTWAIT) < 0) close(fds[0]); /* it is open still: it stayed ours */
  close(fds[1]);
}

static void out_of_memory_anywhere(void **state) {
  torture(*state, short_of_memory);
}

TESTS(T(a_connection_is_opened), T(a_limit_may_be_set), T(errors_are_those_of_the_connect),
      T(unix_sockets_are_opened_too), T(cancelling_in_any_turn_leaves_nothing),
      T(the_loop_may_be_closed_in_any_turn), T(out_of_memory_anywhere))
