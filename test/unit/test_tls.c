/* SPDX-License-Identifier: MIT
 *
 * The life of TLS transports, over an engine whose bytes are made by hand: handshakes, ends of every kind, and
 * that the protocol hears of each once. pollers: all
 */
#include "crowd.h"
#include "mocktls.h"
#include "peers.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Waits for a future's failure; checks the words. */
static void expect_failure(env_t *env, aloop_future_t *future, int64_t error, const char *words) {
  char text[1024];
  assert_int_equal(error_of(env, future, text), error);
  if (words != NULL && strstr(text, words) == NULL) fail_msg("not \"%s\" but \"%s\"", words, text);
}

static void expect_nothing_left(env_t *env, int peer) {
  settle(env->loop);
  assert_true(at_eof(peer));
  close(peer);
  assert_int_equal(mock.sessions, 0);
  assert_int_equal(mock.contexts, 0);
}

/* ---- The beginning --------------------------------------------------------------------------------------- */

static void a_server_is_made_after_the_handshake(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  mock_begin();
  aloop_future_t *future = mock_accept(&tape, &plain_protocol, &peer);
  settle(env->loop);
  mock_say(peer, 'H', "");
  mock_expect(env->loop, peer, 'S', "");
  settle(env->loop);
  assert_int_equal(tape.calls[MADE], 0);
  assert_false(aloop_future_done(future));
  mock_say(peer, 'F', "");
  assert_int_equal(value_of(env, future), 0);
  assert_string_equal(tape.events, "M");
  end_tape(&tape, peer);
}

static void a_client_speaks_first(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_client(&tape, &plain_protocol);
  assert_string_equal(tape.events, "M");
  put(&tape, "hello");
  mock_expect(env->loop, peer, 'D', "hello");
  mock_say(peer, 'D', "world");
  settle(env->loop);
  assert_int_equal(tape.size, 5);
  assert_memory_equal(tape.bytes, "world", 5);
  end_tape(&tape, peer);
}

static void data_may_come_with_the_end_of_the_handshake(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  mock_begin();
  aloop_future_t *future = mock_accept(&tape, &plain_protocol, &peer);
  mock_say(peer, 'H', "");
  mock_say(peer, 'F', "");
  mock_say(peer, 'D', "early");
  assert_int_equal(value_of(env, future), 0);
  settle(env->loop);
  assert_string_equal(tape.events, "MD");
  assert_memory_equal(tape.bytes, "early", 5);
  end_tape(&tape, peer);
}

static void a_server_gets_its_connections_with_tls(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  mock_begin();
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_server_options_t options = crowd_options();
  options.tls = context;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  aloop_tls_context_unref(context);
  int peer = peer_connect(aloop_server_port(server));
  mock_say(peer, 'H', "");
  mock_expect(env->loop, peer, 'S', "");
  assert_int_equal(aloop_server_clients(server), 1);
  mock_say(peer, 'F', "");
  run_until_count(env->loop, &crowd.made, 1);
  assert_ptr_equal(aloop_transport_server(crowd.transports[0]), server);
  mock_say(peer, 'D', "abc");
  run_until_count(env->loop, &crowd.received, 3);
  assert_int_equal(aloop_server_abort_clients(server), 1);
  run_until_count(env->loop, &crowd.lost, 1);
  assert_int_equal(aloop_server_clients(server), 0);
  aloop_server_close(server);
  aloop_server_unref(server);
  close(peer);
}

/* ---- Handshakes that come to nothing --------------------------------------------------------------------- */

static void garbage_instead_of_a_handshake_is_refused(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  mock_begin();
  aloop_future_t *future = mock_accept(&tape, &plain_protocol, &peer);
  mock_say(peer, 'X', "y z");
  expect_failure(env, future, ALOOP_ETLS, "the mock has failed");
  mock_expect(env->loop, peer, 'A', NULL);
  assert_string_equal(tape.events, "");
  expect_nothing_left(env, peer);
}

static void a_session_that_cannot_be_made_ends_the_connection(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  mock_begin();
  mock.session_error = ALOOP_ENOMEM;
  aloop_future_t *future = mock_connect(&tape, &plain_protocol, &peer);
  expect_failure(env, future, ALOOP_ENOMEM, NULL);
  expect_nothing_left(env, peer);
}

static void a_peer_that_hangs_up_during_the_handshake_is_noticed(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  mock_begin();
  aloop_future_t *future = mock_connect(&tape, &plain_protocol, &peer);
  mock_expect(env->loop, peer, 'H', NULL);
  shutdown(peer, SHUT_WR);
  expect_failure(env, future, ALOOP_ECONNRESET, "during the TLS handshake");
  expect_nothing_left(env, peer);
}

static void a_handshake_has_a_timeout(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  mock_begin();
  make_socketpair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_accepted_options_t options = {
      .size = sizeof options, .tls = context, .tls_handshake_timeout = ALOOP_MILLIS(20)};
  int64_t before = aloop_time(env->loop);
  expect_failure(env, aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], &options),
                 ALOOP_ETIMEDOUT, "handshake took too long");
  assert_true(aloop_time(env->loop) - before >= ALOOP_MILLIS(20));
  aloop_tls_context_unref(context);
  expect_nothing_left(env, fds[1]);
}

static void a_handshake_has_a_limit(void **state) {
  static const char endless[65536] = {'H', (char)0xff, (char)0xff};
  env_t *env = *state;
  int peer;
  size_t sent = 0;
  tape_t tape = {.env = env};
  mock_begin();
  mock.swallows = true;
  aloop_future_t *future = mock_accept(&tape, &plain_protocol, &peer);
  while (!aloop_future_done(future)) {
    ssize_t n = send(peer, endless + sent % sizeof endless, sizeof endless - sent % sizeof endless,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += (size_t)n;
    assert_true(sent <= 4 * 1024 * 1024);
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  assert_true(aloop_future_result(future) == ALOOP_ETLS);
  aloop_future_unref(future);
  settle(env->loop);
  close(peer);
  assert_int_equal(mock.sessions, 0);
}

/* The limit is one for what comes: an engine that takes whole records only is shown the same bytes again. */
static void a_long_record_of_the_handshake_may_come_in_small_pieces(void **state) {
  enum { LONG = 16000, PIECE = 100 };
  static char record[LONG + 3], text[LONG];
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  mock_begin();
  aloop_future_t *future = mock_accept(&tape, &plain_protocol, &peer);
  memset(text, 'a', sizeof text);
  size_t size = mock_record(record, 'H', text, sizeof text);
  for (size_t at = 0; at < size; at += PIECE) {
    size_t n = size - at < PIECE ? size - at : PIECE;
    assert_int_equal(send(peer, record + at, n, MSG_NOSIGNAL), n);
    settle(env->loop);
  }
  mock_expect(env->loop, peer, 'S', "");
  mock_say(peer, 'F', "");
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  end_tape(&tape, peer);
}

static void cancelling_gives_the_descriptor_up(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  mock_begin();
  aloop_future_t *future = mock_connect(&tape, &plain_protocol, &peer);
  mock_expect(env->loop, peer, 'H', NULL);
  assert_true(aloop_future_cancel(future));
  aloop_future_unref(future);
  assert_string_equal(tape.events, "");
  expect_nothing_left(env, peer);
}

static void cancelled_before_it_began_the_descriptor_stays_the_callers(void **state) {
  env_t *env = *state;
  int fds[2];
  tape_t tape = {.env = env};
  mock_begin();
  make_socketpair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_accepted_options_t options = {.size = sizeof options, .tls = context};
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], &options);
  assert_true(aloop_future_cancel(future));
  aloop_future_unref(future);
  settle(env->loop);
  assert_int_equal(peer_look(fds[1]), PEER_OPEN);
  assert_int_equal(mock.sessions, 0);
  aloop_tls_context_unref(context);
  close(fds[0]);
  close(fds[1]);
}

static void a_server_closes_clients_that_still_shake_hands(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  mock_begin();
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_server_options_t options = crowd_options();
  options.tls = context;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  aloop_tls_context_unref(context);
  int peer = peer_connect(aloop_server_port(server));
  mock_say(peer, 'H', "");
  mock_expect(env->loop, peer, 'S', "");
  aloop_server_close(server);
  assert_int_equal(aloop_server_close_clients(server), 1);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  assert_int_equal(crowd.made + crowd.lost, 0);
  aloop_server_unref(server);
  expect_nothing_left(env, peer);
}

static void debug_mode_tells_of_failed_handshakes(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env};
  env_loop(env, (aloop_options_t){.debug = 1});
  mock_begin();
  aloop_future_t *future = mock_accept(&tape, &plain_protocol, &peer);
  mock_say(peer, 'X', "");
  expect_failure(env, future, ALOOP_ETLS, NULL);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_ETLS);
  assert_string_equal(env->report_messages[0], "the mock has failed");
  settle(env->loop);
  close(peer);
}

static void write_in_vain(aloop_transport_t *transport) {
  assert_int_equal(aloop_transport_write(transport, "x", 1), 0);
}

static void write_owned_in_vain(aloop_transport_t *transport) {
  assert_int_equal(aloop_transport_write_owned(transport, "x", 1, NULL, NULL), 0);
}

static void (*const vain[])(aloop_transport_t *transport) = {write_in_vain, write_owned_in_vain,
                                                             aloop_transport_close};

static int free_loop(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  env_t *env = arg;
  env->report_errors[env->reports++] = context->error;
  env->loop = NULL;
  aloop_free(loop);
  return 0;
}

/* Outside of a run, and where the loop's reference is the only one. */
static void who_hears_of_a_failure_may_free_the_loop(void **state) {
  env_t *env = *state;
  for (size_t i = 0; i < sizeof vain / sizeof vain[0]; i++) {
    tape_t tape = {.env = env};
    env_loop(env, (aloop_options_t){.debug = 1});
    mock_begin();
    int peer = open_mock_server(&tape, &plain_protocol);
    aloop_transport_unref(tape.transport);
    mock.write_error = mock.shutdown_error = ALOOP_ETLS;
    env->reports = 0;
    assert_int_equal(aloop_set_exception_handler(env->loop, free_loop, env), 0);
    vain[i](tape.transport);
    aloop_close(env->loop);
    assert_int_equal(env->reports, 1);
    assert_int_equal(env->report_errors[0], ALOOP_ETLS);
    assert_null(env->loop);
    assert_true(tape.lost);
    assert_int_equal(tape.error, ALOOP_ETLS);
    close(peer);
  }
}

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void close_sends_what_is_unsent_and_the_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  put(&tape, "last words");
  aloop_transport_close(tape.transport);
  assert_false(tape.lost);
  mock_expect(env->loop, peer, 'D', "last words");
  mock_expect(env->loop, peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_string_equal(tape.events, "ML");
  assert_true(at_eof(peer));
  release_tape(&tape, peer);
}

static void the_peers_end_is_told_and_answered(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock_say(peer, 'D', "x");
  mock_say(peer, 'E', "");
  mock_expect(env->loop, peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_string_equal(tape.events, "MDEL");
  release_tape(&tape, peer);
}

static void where_streams_have_half_ends_one_may_go_on(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .answer[AT_EOF] = 1};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_true(aloop_transport_can_write_eof(tape.transport));
  mock_say(peer, 'E', "");
  settle(env->loop);
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_string_equal(tape.events, "ME");
  put(&tape, "still here");
  mock_expect(env->loop, peer, 'D', "still here");
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  mock_expect(env->loop, peer, 'E', "");
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_EPIPE);
  aloop_transport_close(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, peer);
}

static void where_they_have_none_the_peers_end_is_the_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .answer[AT_EOF] = 1};
  mock_begin();
  mock.half_close = false;
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_false(aloop_transport_can_write_eof(tape.transport));
  assert_int_equal(aloop_transport_write_eof(tape.transport), ALOOP_ENOTSUP);
  mock_say(peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_string_equal(tape.events, "MEL");
  release_tape(&tape, peer);
}

static void our_end_leaves_the_peers_stream_open(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_client(&tape, &plain_protocol);
  put(&tape, "question");
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  mock_expect(env->loop, peer, 'D', "question");
  mock_expect(env->loop, peer, 'E', "");
  mock_say(peer, 'D', "answer");
  mock_say(peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_string_equal(tape.events, "MDEL");
  release_tape(&tape, peer);
}

static void a_cut_is_no_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock_say(peer, 'D', "hal");
  shutdown(peer, SHUT_WR);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETLS_TRUNCATED);
  assert_string_equal(tape.events, "MDL");
  assert_string_equal(aloop_transport_tls_error(tape.transport), aloop_strerror(ALOOP_ETLS_TRUNCATED));
  release_tape(&tape, peer);
}

static void a_reset_is_told_as_one(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  mock_begin();
  make_tcp_pair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_accepted_options_t options = {.size = sizeof options, .tls = context};
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], &options);
  aloop_tls_context_unref(context);
  mock_say(fds[1], 'H', "");
  mock_say(fds[1], 'F', "");
  assert_int_equal(value_of(env, future), 0);
  struct linger now = {.l_onoff = 1};
  setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fds[1]);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ECONNRESET);
  release_tape(&tape, -1);
}

static void an_alert_in_mid_stream_ends_it(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock_say(peer, 'D', "x");
  mock_say(peer, 'A', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETLS_ALERT);
  assert_string_equal(tape.events, "MDL");
  assert_string_equal(aloop_transport_tls_error(tape.transport), "the mock has failed");
  release_tape(&tape, peer);
}

static void an_engine_that_cannot_write_ends_it(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock.write_error = ALOOP_ETLS;
  put(&tape, "x");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETLS);
  release_tape(&tape, peer);
}

static void abort_ends_both_at_once(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  aloop_transport_abort_error(tape.transport, ALOOP_EPERM);
  assert_int_equal(peer_look(peer), PEER_OPEN);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_EPERM);
  assert_true(at_eof(peer));
  release_tape(&tape, peer);
}

static void a_reset_from_above_resets_the_socket(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  mock_begin();
  make_tcp_pair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_accepted_options_t options = {.size = sizeof options, .tls = context};
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], &options);
  aloop_tls_context_unref(context);
  mock_say(fds[1], 'H', "");
  mock_say(fds[1], 'F', "");
  assert_int_equal(value_of(env, future), 0);
  mock_expect(env->loop, fds[1], 'S', "");
  aloop_transport_abort_reset(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(peer_look(fds[1]), PEER_RESET);
  release_tape(&tape, fds[1]);
}

/* ---- A slow end ------------------------------------------------------------------------------------------ */

static char big[4 * 1024 * 1024];

static int open_with_shutdown_timeout(tape_t *tape, int64_t timeout) {
  int fds[2];
  make_socketpair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_accepted_options_t options = {.size = sizeof options, .tls = context, .tls_shutdown_timeout = timeout};
  aloop_future_t *future =
      aloop_connect_accepted_socket(tape->env->loop, &plain_protocol, tape, fds[0], &options);
  aloop_tls_context_unref(context);
  mock_say(fds[1], 'H', "");
  mock_say(fds[1], 'F', "");
  assert_int_equal(value_of(tape->env, future), 0);
  mock_expect(tape->env->loop, fds[1], 'S', "");
  return fds[1];
}

static void a_close_that_nobody_takes_is_given_up(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_with_shutdown_timeout(&tape, ALOOP_MILLIS(20));
  assert_int_equal(aloop_transport_write(tape.transport, big, sizeof big), 0);
  assert_true(unsent(&tape) > 0);
  aloop_transport_close(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  assert_non_null(strstr(aloop_transport_tls_error(tape.transport), "took nothing"));
  release_tape(&tape, peer);
}

static void a_slow_reader_is_waited_for(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  static char into[65536];
  size_t got = 0;
  mock_begin();
  int peer = open_with_shutdown_timeout(&tape, ALOOP_MILLIS(200));
  assert_int_equal(aloop_transport_write(tape.transport, big, sizeof big), 0);
  aloop_transport_close(tape.transport);
  int64_t began = aloop_time(env->loop);
  while (!tape.lost) {
    size_t n = drain(peer, into, sizeof into);
    got += n;
    assert_true(aloop_run_once(env->loop, ALOOP_MILLIS(10)) >= 0);
  }
  got += drain(peer, into, sizeof into);
  assert_true(aloop_time(env->loop) - began >= ALOOP_MILLIS(200));
  assert_int_equal(tape.error, 0);
  assert_true(got >= sizeof big);
  release_tape(&tape, peer);
}

/* ---- Loops that end -------------------------------------------------------------------------------------- */

static void closing_the_loop_ends_connections_of_every_phase(void **state) {
  env_t *env = *state;
  int peers[3];
  tape_t waiting = {.env = env}, shaking = {.env = env}, open = {.env = env};
  mock_begin();
  peers[2] = open_mock_server(&open, &plain_protocol);
  aloop_future_t *second = mock_connect(&shaking, &plain_protocol, &peers[1]);
  mock_expect(env->loop, peers[1], 'H', NULL);
  aloop_future_t *first = mock_accept(&waiting, &plain_protocol, &peers[0]);
  run_turn(env->loop); /* the descriptor is the transport's now */
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(aloop_future_result(first), ALOOP_ECANCELED);
  assert_int_equal(aloop_future_result(second), ALOOP_ECANCELED);
  aloop_future_unref(first);
  aloop_future_unref(second);
  assert_string_equal(open.events, "ML");
  assert_int_equal(open.error, ALOOP_ECLOSED);
  assert_string_equal(waiting.events, "");
  assert_string_equal(shaking.events, "");
  release_tape(&open, -1);
  assert_int_equal(mock.sessions, 0);
  for (int i = 0; i < 3; i++) close(peers[i]);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

static void whole_connection(env_t *env) {
  int fds[2];
  tape_t tape = {.env = env};
  mock_begin();
  make_socketpair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_accepted_options_t options = {.size = sizeof options, .tls = context};
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], &options);
  aloop_tls_context_unref(context);
  mock_say(fds[1], 'H', "");
  mock_say(fds[1], 'F', "");
  mock_say(fds[1], 'D', "some bytes");
  for (int i = 0; i < 20; i++) aloop_run_once(env->loop, 0);
  if (tape.transport != NULL && !tape.lost) {
    aloop_transport_pause_reading(tape.transport);
    mock_say(fds[1], 'D', "more");
    for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
    aloop_transport_resume_reading(tape.transport);
    aloop_transport_write(tape.transport, big, sizeof big);
    aloop_transport_close(tape.transport);
  }
  for (int i = 0; i < 20; i++) aloop_run_once(env->loop, 0);
  bool began = aloop_transport_fd(tape.transport) >= 0 || tape.calls[MADE] > 0;
  env->fail_from = env->fail_at = 0;
  aloop_transport_unref(tape.transport);
  aloop_future_unref(future);
  aloop_close(env->loop);
  assert_int_equal(tape.calls[LOST], tape.calls[MADE]);
  free(tape.bytes);
  char byte;
  if (!began && recv(fds[1], &byte, 1, MSG_DONTWAIT) != 0) close(fds[0]);
  close(fds[1]);
  assert_int_equal(mock.sessions, 0);
  assert_int_equal(mock.contexts, 0);
}

static void no_allocation_that_fails_loses_anything(void **state) {
  torture(*state, whole_connection);
}

TESTS(T(a_server_is_made_after_the_handshake), T(a_client_speaks_first),
      T(data_may_come_with_the_end_of_the_handshake), T(a_server_gets_its_connections_with_tls),
      T(garbage_instead_of_a_handshake_is_refused), T(a_session_that_cannot_be_made_ends_the_connection),
      T(a_peer_that_hangs_up_during_the_handshake_is_noticed), T(a_handshake_has_a_timeout),
      T(a_handshake_has_a_limit), T(a_long_record_of_the_handshake_may_come_in_small_pieces),
      T(cancelling_gives_the_descriptor_up), T(cancelled_before_it_began_the_descriptor_stays_the_callers),
      T(a_server_closes_clients_that_still_shake_hands), T(debug_mode_tells_of_failed_handshakes),
      T(who_hears_of_a_failure_may_free_the_loop), T(close_sends_what_is_unsent_and_the_end),
      T(the_peers_end_is_told_and_answered), T(where_streams_have_half_ends_one_may_go_on),
      T(where_they_have_none_the_peers_end_is_the_end), T(our_end_leaves_the_peers_stream_open),
      T(a_cut_is_no_end), T(a_reset_is_told_as_one), T(an_alert_in_mid_stream_ends_it),
      T(an_engine_that_cannot_write_ends_it), T(abort_ends_both_at_once),
      T(a_reset_from_above_resets_the_socket), T(a_close_that_nobody_takes_is_given_up),
      T(a_slow_reader_is_waited_for), T(closing_the_loop_ends_connections_of_every_phase),
      T(no_allocation_that_fails_loses_anything))
