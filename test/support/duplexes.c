/* SPDX-License-Identifier: MIT */
#include "duplexes.h"

#include <string.h>
#include <unistd.h>

static const aloop_protocol_t nothing = {.size = sizeof nothing};

aloop_stream_t *stream_over(aloop_t *loop, int fd, size_t limit) {
  aloop_stream_options_t options = {.size = sizeof options, .limit = limit};
  aloop_transport_t *transport = NULL;
  aloop_stream_t *stream = NULL;
  aloop_future_t *future = aloop_connect_accepted_socket(loop, &nothing, NULL, fd, NULL);
  assert_int_equal(run_future(loop, future), 0);
  assert_int_equal(aloop_future_take_ptr(future, &transport), 0);
  aloop_future_unref(future);
  assert_int_equal(aloop_stream_new(transport, &options, &stream), 0);
  assert_ptr_equal(aloop_stream_transport(stream), transport);
  aloop_transport_unref(transport);
  return stream;
}

aloop_stream_t *open_stream(env_t *env, size_t limit, int *peer) {
  int fds[2];
  make_socketpair(fds);
  *peer = fds[1];
  return stream_over(env->loop, fds[0], limit);
}

void end_stream(aloop_stream_t *stream, int peer) {
  aloop_t *loop = aloop_stream_loop(stream);
  aloop_metrics_t before = {.size = sizeof before}, now = {.size = sizeof now};
  assert_int_equal(aloop_metrics(loop, &before), 0);
  aloop_stream_abort(stream);
  aloop_stream_unref(stream);
  for (int turns = 0; turns < 1000; turns++) {
    assert_int_equal(aloop_metrics(loop, &now), 0);
    if (now.streams < before.streams) break;
    aloop_run_once(loop, 0);
  }
  assert_int_equal(now.streams, before.streams - 1);
  if (peer >= 0) close(peer);
}

int64_t finish(aloop_t *loop, aloop_future_t *future) {
  assert_non_null(future);
  int64_t value = run_future(loop, future);
  aloop_future_unref(future);
  return value;
}

static void expect_data(int64_t value, const char *data, const char *wanted) {
  size_t size = strlen(wanted);
  if (value != (int64_t)size) fail_msg("%lld instead of %zu bytes", (long long)value, size);
  assert_memory_equal(data, wanted, size);
}

void expect_line(aloop_stream_t *stream, const char *line) {
  const char *got = NULL;
  int64_t value = finish(aloop_stream_loop(stream), aloop_stream_readline(stream, &got));
  expect_data(value, got, line);
  assert_int_equal(got[value], 0);
}

void expect_until(aloop_stream_t *stream, const char *separator, const char *data) {
  const char *got = NULL;
  int64_t value =
      finish(aloop_stream_loop(stream), aloop_stream_readuntil(stream, separator, strlen(separator), &got));
  expect_data(value, got, data);
  assert_int_equal(got[value], 0);
}

void expect_some(aloop_stream_t *stream, size_t room, const char *data) {
  char got[4096];
  assert_true(room <= sizeof got);
  expect_data(finish(aloop_stream_loop(stream), aloop_stream_read(stream, got, room)), got, data);
}

void expect_exactly(aloop_stream_t *stream, const char *data) {
  char got[4096];
  assert_true(strlen(data) <= sizeof got);
  aloop_future_t *future = aloop_stream_readexactly(stream, got, strlen(data));
  expect_data(finish(aloop_stream_loop(stream), future), got, data);
}

void expect_end(aloop_stream_t *stream) {
  const char *line = NULL;
  char byte;
  aloop_t *loop = aloop_stream_loop(stream);
  assert_int_equal(finish(loop, aloop_stream_read(stream, &byte, 1)), 0);
  assert_int_equal(finish(loop, aloop_stream_readline(stream, &line)), 0);
  assert_int_equal(finish(loop, aloop_stream_readexactly(stream, &byte, 1)), ALOOP_EOF);
  assert_int_equal(finish(loop, aloop_stream_readuntil(stream, "x", 1, &line)), ALOOP_EOF);
  assert_null(line);
  assert_true(aloop_stream_at_eof(stream));
}
