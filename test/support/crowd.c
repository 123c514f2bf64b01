/* SPDX-License-Identifier: MIT
 *
 * A crowd: see crowd.h.
 */
#include "crowd.h"

#include <stdio.h>
#include <string.h>

static void on_made(aloop_transport_t *transport, void *protocol) {
  crowd_t *crowd = protocol;
  assert_true(crowd->open < CROWD_MAX);
  crowd->transports[crowd->open++] = transport;
  crowd->made++;
  if (crowd->on_made != NULL) crowd->on_made(crowd, transport);
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport, (void)data;
  crowd_t *crowd = protocol;
  crowd->received += (int)size;
  return 0;
}

static int on_eof(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  const crowd_t *crowd = protocol;
  return crowd->silent;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  crowd_t *crowd = protocol;
  int at = 0;
  while (at < crowd->open && crowd->transports[at] != transport) at++;
  assert_true(at < crowd->open);
  memmove(&crowd->transports[at], &crowd->transports[at + 1], (size_t)(crowd->open - at - 1) * sizeof(void *));
  crowd->open--;
  crowd->lost++;
  crowd->last_error = error;
  if (crowd->on_lost != NULL) crowd->on_lost(crowd, transport);
}

const aloop_protocol_t crowd_protocol = {.size = sizeof(aloop_protocol_t),
                                         .connection_made = on_made,
                                         .data_received = on_data,
                                         .eof_received = on_eof,
                                         .connection_lost = on_lost};

aloop_server_options_t crowd_options(void) {
  return (aloop_server_options_t){.size = sizeof(aloop_server_options_t), .host = "127.0.0.1"};
}

aloop_server_t *crowd_serve_with(env_t *env, crowd_t *crowd, aloop_server_options_t options) {
  aloop_server_t *server = NULL;
  aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, crowd, &options);
  if (run_future(env->loop, future) < 0) fail_msg("create_server: %s", aloop_future_message(future));
  assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  assert_non_null(server);
  aloop_future_unref(future);
  return server;
}

aloop_server_t *crowd_serve(env_t *env, crowd_t *crowd) {
  return crowd_serve_with(env, crowd, crowd_options());
}

int64_t value_of(env_t *env, aloop_future_t *future) {
  int64_t value = run_future(env->loop, future);
  if (value < 0) fail_msg("%s", aloop_future_message(future));
  aloop_future_unref(future);
  return value;
}

int64_t error_of(env_t *env, aloop_future_t *future, char text[1024]) {
  int64_t error = run_future(env->loop, future);
  assert_true(error < 0);
  if (text != NULL) snprintf(text, 1024, "%s", aloop_future_message(future));
  aloop_future_unref(future);
  return error;
}
