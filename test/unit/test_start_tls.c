/* SPDX-License-Identifier: MIT
 *
 * start_tls on live connections, of both sides: the old transport is of no use any more, the protocol goes on
 * with the new one, and bytes of before stay before. pollers: all
 */
#include "crowd.h"
#include "mocktls.h"
#include "peers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static aloop_future_t *start_with(tape_t *tape, int role, int64_t timeout) {
  aloop_tls_context_t *context = mock_context(role);
  aloop_start_tls_options_t options = {
      .size = sizeof options, .tls = context, .tls_handshake_timeout = timeout};
  if (role == ALOOP_TLS_CLIENT) options.server_hostname = "server.test";
  aloop_future_t *future = aloop_start_tls(tape->transport, NULL, NULL, &options);
  assert_non_null(future);
  aloop_tls_context_unref(context);
  return future;
}

static aloop_future_t *start(tape_t *tape, int role) {
  return start_with(tape, role, 0);
}

/* The tape's callbacks come with the new transport from now on. */
static aloop_transport_t *change(tape_t *tape) {
  aloop_transport_t *old = tape->transport;
  tape->transport = NULL;
  return old;
}

static void take(tape_t *tape, aloop_future_t *future) {
  assert_int_equal(run_future(tape->env->loop, future), 0);
  aloop_transport_t *fresh = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &fresh), 0);
  if (tape->transport != NULL) aloop_transport_unref(tape->transport);
  tape->transport = fresh;
  aloop_future_unref(future);
}

static void a_client_upgrades(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  put(&tape, "STARTTLS\n");
  aloop_future_t *future = start(&tape, ALOOP_TLS_CLIENT);
  aloop_transport_t *old = change(&tape);
  char text[16] = "";
  assert_int_equal(drain(peer, text, 9), 9);
  assert_string_equal(text, "STARTTLS\n");
  mock_expect(env->loop, peer, 'H', "server.test");
  mock_say(peer, 'S', "");
  mock_expect(env->loop, peer, 'F', "");
  take(&tape, future);
  put(&tape, "secret");
  mock_expect(env->loop, peer, 'D', "secret");
  mock_say(peer, 'D', "answer");
  settle(env->loop);
  assert_string_equal(tape.events, "MD");
  aloop_transport_unref(old);
  end_tape(&tape, peer);
  assert_int_equal(mock.sessions, 0);
}

static void a_server_upgrades(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_tape(&tape, &buffered_protocol);
  aloop_future_t *future = start(&tape, ALOOP_TLS_SERVER);
  aloop_transport_t *old = change(&tape);
  mock_say(peer, 'H', "");
  mock_expect(env->loop, peer, 'S', "");
  mock_say(peer, 'F', "");
  mock_say(peer, 'D', "first");
  take(&tape, future);
  settle(env->loop);
  assert_string_equal(tape.events, "MD");
  assert_memory_equal(tape.bytes, "first", 5);
  aloop_transport_unref(old);
  end_tape(&tape, peer);
}

static void the_loop_may_be_closed_right_behind_the_end(void **state) {
  env_t *env = *state;
  for (int shaken = 0; shaken < 2; shaken++) {
    tape_t tape = {.env = env};
    mock_begin();
    env_loop(env, (aloop_options_t){.debug = -1});
    int peer = open_tape(&tape, &plain_protocol);
    aloop_future_t *future = start(&tape, ALOOP_TLS_SERVER);
    aloop_transport_t *old = change(&tape);
    if (shaken) {
      mock_say(peer, 'H', "");
      mock_say(peer, 'F', "");
      mock_expect(env->loop, peer, 'S', "");
      take(&tape, future);
      aloop_transport_abort(tape.transport);
    } else {
      aloop_future_cancel(future);
      aloop_future_unref(future);
    }
    aloop_transport_unref(old);
    aloop_close(env->loop);
    assert_true(tape.lost);
    aloop_transport_unref(tape.transport);
    free(tape.bytes);
    close(peer);
  }
}

static void the_old_transport_is_of_no_use(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  size_t high, low;
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  aloop_future_t *future = start(&tape, ALOOP_TLS_SERVER);
  aloop_transport_t *old = change(&tape);
  assert_int_equal(aloop_transport_write(old, "x", 1), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_write_eof(old), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_pause_reading(old), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_set_write_buffer_limits(old, 1, 1), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_get_write_buffer_limits(old, &high, &low), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_set_protocol(old, &plain_protocol, &tape), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_fd(old), ALOOP_ECLOSED);
  assert_true(aloop_transport_is_closing(old));
  assert_int_equal(
      error_of(env,
               aloop_start_tls(old, NULL, NULL,
                               &(aloop_start_tls_options_t){.size = sizeof(aloop_start_tls_options_t)}),
               NULL),
      ALOOP_EINVAL);
  aloop_future_t *again = start(&(tape_t){.transport = old}, ALOOP_TLS_SERVER);
  assert_int_equal(error_of(env, again, NULL), ALOOP_ECLOSED);
  aloop_transport_close(old);
  aloop_transport_abort(old);
  mock_say(peer, 'H', "");
  mock_say(peer, 'F', "");
  mock_expect(env->loop, peer, 'S', "");
  take(&tape, future);
  assert_string_equal(tape.events, "M");
  aloop_transport_unref(old);
  end_tape(&tape, peer);
}

static void a_handshake_that_fails_is_the_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  aloop_future_t *future = start(&tape, ALOOP_TLS_SERVER);
  aloop_transport_t *old = change(&tape);
  say(peer, "EHLO attacker\r\n");
  shutdown(peer, SHUT_WR);
  assert_int_equal(error_of(env, future, NULL), ALOOP_ECONNRESET);
  settle(env->loop);
  assert_string_equal(tape.events, "ML");
  assert_int_equal(tape.error, ALOOP_ECONNRESET);
  aloop_transport_unref(tape.transport);
  aloop_transport_unref(old);
  close(peer);
}

static void a_handshake_that_stalls_is_the_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  aloop_future_t *future = start_with(&tape, ALOOP_TLS_SERVER, ALOOP_MILLIS(20));
  aloop_transport_t *old = change(&tape);
  assert_int_equal(error_of(env, future, NULL), ALOOP_ETIMEDOUT);
  run_until(env->loop, &tape.lost);
  assert_string_equal(tape.events, "ML");
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  aloop_transport_unref(tape.transport);
  aloop_transport_unref(old);
  close(peer);
}

static void cancelling_ends_the_connection(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  aloop_future_t *future = start(&tape, ALOOP_TLS_CLIENT);
  aloop_transport_t *old = change(&tape);
  assert_true(aloop_future_cancel(future));
  aloop_future_unref(future);
  run_until(env->loop, &tape.lost);
  assert_string_equal(tape.events, "ML");
  assert_int_equal(tape.error, ALOOP_ECANCELED);
  aloop_transport_unref(tape.transport);
  aloop_transport_unref(old);
  close(peer);
}

static void unsent_bytes_stay_in_front_of_the_handshake(void **state) {
  static char into[8 * 1024 * 1024];
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  size_t room = fill(aloop_transport_fd(tape.transport));
  put(&tape, "plain");
  aloop_future_t *future = start(&tape, ALOOP_TLS_CLIENT);
  aloop_transport_t *old = change(&tape);
  settle(env->loop);
  assert_int_equal(drain(peer, into, room), room);
  settle(env->loop);
  assert_int_equal(drain(peer, into, 5), 5);
  assert_memory_equal(into, "plain", 5);
  mock_expect(env->loop, peer, 'H', "server.test");
  mock_say(peer, 'S', "");
  take(&tape, future);
  aloop_transport_unref(old);
  end_tape(&tape, peer);
}

static void marks_and_pauses_go_along(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  size_t high, low;
  static char into[8 * 1024 * 1024];
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 4, 1);
  aloop_transport_set_timeouts(tape.transport, ALOOP_SECONDS(1000), 0, 0);
  aloop_transport_pause_reading(tape.transport);
  size_t room = fill(aloop_transport_fd(tape.transport));
  put(&tape, "plain");
  assert_string_equal(tape.events, "MP");
  aloop_future_t *future = start(&tape, ALOOP_TLS_SERVER);
  aloop_transport_t *old = change(&tape);
  assert_int_equal(drain(peer, into, room), room);
  settle(env->loop);
  mock_say(peer, 'H', "");
  mock_say(peer, 'F', "");
  take(&tape, future);
  settle(env->loop);
  assert_string_equal(tape.events, "MPR");
  assert_int_equal(aloop_transport_get_write_buffer_limits(tape.transport, &high, &low), 0);
  assert_int_equal(high, 4);
  assert_int_equal(low, 1);
  assert_true(aloop_transport_is_reading(tape.transport));
  aloop_transport_unref(old);
  end_tape(&tape, peer);
}

static void another_protocol_may_take_over(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env}, other = {.env = env};
  mock_begin();
  int peer = open_tape(&tape, &plain_protocol);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_start_tls_options_t options = {.size = sizeof options, .tls = context};
  aloop_future_t *future = aloop_start_tls(tape.transport, &buffered_protocol, &other, &options);
  aloop_tls_context_unref(context);
  mock_say(peer, 'H', "");
  mock_say(peer, 'F', "");
  mock_say(peer, 'D', "x");
  take(&other, future);
  settle(env->loop);
  assert_string_equal(other.events, "D");
  assert_string_equal(tape.events, "M");
  aloop_transport_abort(other.transport);
  run_until(env->loop, &other.lost);
  assert_string_equal(other.events, "DL");
  assert_string_equal(tape.events, "M");
  aloop_transport_unref(tape.transport);
  aloop_transport_unref(other.transport);
  free(other.bytes);
  close(peer);
}

static void a_servers_client_stays_its_client(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  mock_begin();
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peer = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  aloop_transport_t *old = aloop_transport_ref(crowd.transports[0]);
  aloop_future_t *future = start(&(tape_t){.transport = old}, ALOOP_TLS_SERVER);
  assert_int_equal(aloop_server_clients(server), 1);
  mock_say(peer, 'H', "");
  mock_say(peer, 'F', "");
  assert_int_equal(run_future(env->loop, future), 0);
  crowd.transports[0] = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &crowd.transports[0]), 0);
  aloop_future_unref(future);
  aloop_transport_unref(old);
  aloop_transport_unref(crowd.transports[0]);
  aloop_server_close(server);
  assert_int_equal(aloop_server_close_clients(server), 1);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  assert_int_equal(crowd.lost, 1);
  aloop_server_unref(server);
  close(peer);
}

static void upgrade(env_t *env) {
  int fds[2];
  tape_t tape = {.env = env};
  mock_begin();
  make_socketpair(fds);
  aloop_connect_options_t options = {.size = sizeof options, .fd = fds[0]};
  aloop_future_t *made = aloop_create_connection(env->loop, &plain_protocol, &tape, &options);
  for (int i = 0; i < 5; i++) aloop_run_once(env->loop, 0);
  aloop_future_t *future = NULL;
  if (tape.transport != NULL && !tape.lost) {
    aloop_transport_set_timeouts(tape.transport, ALOOP_SECONDS(1000), 0, 0);
    aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
    aloop_start_tls_options_t how = {.size = sizeof how, .tls = context};
    future = aloop_start_tls(tape.transport, NULL, NULL, &how);
    aloop_tls_context_unref(context);
    if (future != NULL && !aloop_future_done(future)) {
      aloop_transport_unref(tape.transport);
      tape.transport = NULL;
    }
    mock_say(fds[1], 'H', "");
    mock_say(fds[1], 'F', "");
  }
  for (int i = 0; i < 20; i++) aloop_run_once(env->loop, 0);
  env->fail_from = env->fail_at = 0;
  bool began = tape.calls[MADE] > 0;
  aloop_future_unref(made);
  aloop_future_unref(future);
  aloop_close(env->loop);
  aloop_transport_unref(tape.transport);
  free(tape.bytes);
  assert_int_equal(tape.calls[LOST], tape.calls[MADE]);
  if (!began) close(fds[0]);
  close(fds[1]);
  assert_int_equal(mock.sessions, 0);
  assert_int_equal(mock.contexts, 0);
}

static void no_allocation_that_fails_loses_anything(void **state) {
  torture(*state, upgrade);
}

TESTS(T(a_client_upgrades), T(a_server_upgrades), T(the_loop_may_be_closed_right_behind_the_end),
      T(the_old_transport_is_of_no_use), T(a_handshake_that_fails_is_the_end),
      T(a_handshake_that_stalls_is_the_end), T(cancelling_ends_the_connection),
      T(unsent_bytes_stay_in_front_of_the_handshake), T(marks_and_pauses_go_along),
      T(another_protocol_may_take_over), T(a_servers_client_stays_its_client),
      T(no_allocation_that_fails_loses_anything))
