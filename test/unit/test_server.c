/* SPDX-License-Identifier: MIT
 *
 * A server's life: serving, closing, waiting for the end, ending its clients, draining. pollers: all
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"
#include "peers.h"

enum { CLIENTS = 5 };

static void finish(env_t *env, aloop_server_t *server) {
  aloop_server_close(server);
  aloop_server_abort_clients(server);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  aloop_server_unref(server);
}

/* A server with connected clients. */
static aloop_server_t *populated(env_t *env, crowd_t *crowd, int *peers, int count) {
  aloop_server_t *server = crowd_serve(env, crowd);
  for (int i = 0; i < count; i++) peers[i] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd->made, count);
  return server;
}

static void close_all(const int *fds, int count) {
  for (int i = 0; i < count; i++) close(fds[i]);
}

static uint64_t timers(env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  return metrics.timers;
}

static uint64_t servers(env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  return metrics.servers;
}

/* ---- Serving --------------------------------------------------------------------------------------------- */

static void clients_belong_to_their_server(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  assert_int_equal(aloop_server_clients(server), CLIENTS);
  for (int i = 0; i < CLIENTS; i++) assert_ptr_equal(aloop_transport_server(crowd.transports[i]), server);
  assert_int_equal(send(peers[2], "hello", 5, 0), 5);
  run_until_count(env->loop, &crowd.received, 5);
  close_all(peers, CLIENTS);
  run_until_count(env->loop, &crowd.lost, CLIENTS);
  assert_int_equal(aloop_server_clients(server), 0);
  finish(env, server);
}

static void a_forgotten_server_goes_on(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, &crowd, &options);
  aloop_server_t *server = NULL;
  assert_int_equal(aloop_future_result_ptr(future, &server), 0); /* borrowed */
  int port = aloop_server_port(server);
  aloop_future_unref(future);
  int peer = peer_connect(port);
  run_until_count(env->loop, &crowd.made, 1);
  close(peer);
  run_until_count(env->loop, &crowd.lost, 1);
  assert_int_equal(servers(env), 1);
  aloop_server_close(server);
  assert_int_equal(servers(env), 0);
}

static void clients_keep_a_closed_server(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  aloop_server_close(server);
  aloop_server_unref(server);
  assert_ptr_equal(aloop_transport_server(crowd.transports[0]), server);
  assert_int_equal(aloop_server_clients(server), CLIENTS);
  close_all(peers, CLIENTS);
  run_until_count(env->loop, &crowd.lost, CLIENTS);
  assert_int_equal(servers(env), 0);
}

static void null_is_no_server(void **state) {
  (void)state;
  assert_null(aloop_server_ref(NULL));
  aloop_server_unref(NULL);
  aloop_server_close(NULL);
  assert_null(aloop_server_get_loop(NULL));
  assert_null(aloop_server_serve_forever(NULL));
  assert_null(aloop_server_wait_closed(NULL));
  assert_null(aloop_server_drain(NULL, 0));
  assert_false(aloop_server_is_serving(NULL));
  assert_int_equal(aloop_server_start_serving(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_server_close_clients(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_server_sockets(NULL), 0);
  assert_int_equal(aloop_server_clients(NULL), 0);
  assert_int_equal(aloop_server_port(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_server_socket(NULL, 0, NULL, NULL), ALOOP_EINVAL);
}

/* ---- Closing --------------------------------------------------------------------------------------------- */

static void closing_ends_the_listening_only(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  int port = aloop_server_port(server);
  aloop_server_close(server);
  aloop_server_close(server);
  assert_true(peer_refused(port));
  assert_false(aloop_server_is_serving(server));
  assert_int_equal(aloop_server_sockets(server), 0);
  assert_int_equal(aloop_server_port(server), ALOOP_ENOENT);
  assert_int_equal(aloop_server_socket(server, 0, NULL, NULL), ALOOP_ENOENT);
  assert_int_equal(send(peers[0], "x", 1, 0), 1);
  run_until_count(env->loop, &crowd.received, 1);
  assert_int_equal(crowd.open, CLIENTS);
  close_all(peers, CLIENTS);
  finish(env, server);
}

static void close_server(crowd_t *crowd, aloop_transport_t *transport) {
  (void)transport;
  aloop_server_close(crowd->user);
}

static void closing_inside_connection_made_is_fine(void **state) {
  env_t *env = *state;
  crowd_t crowd = {.on_made = close_server};
  aloop_server_t *server = crowd_serve(env, &crowd);
  crowd.user = server;
  int peer = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  assert_false(aloop_server_is_serving(server));
  close(peer);
  finish(env, server);
}

static void closing_inside_connection_lost_is_fine(void **state) {
  env_t *env = *state;
  crowd_t crowd = {.on_lost = close_server};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  crowd.user = server;
  close(peers[0]);
  run_until_count(env->loop, &crowd.lost, 1);
  assert_false(aloop_server_is_serving(server));
  close_all(peers + 1, CLIENTS - 1);
  finish(env, server);
}

static void wait_closed_waits_for_both(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  aloop_future_t *early = aloop_server_wait_closed(server);
  close_all(peers + 1, CLIENTS - 1);
  run_until_count(env->loop, &crowd.lost, CLIENTS - 1);
  aloop_server_close(server);
  aloop_future_t *late = aloop_server_wait_closed(server);
  run_turns(env->loop, 3);
  assert_false(aloop_future_done(early));
  assert_false(aloop_future_done(late));
  close(peers[0]);
  assert_int_equal(value_of(env, late), 0);
  assert_int_equal(value_of(env, early), 0);
  assert_int_equal(crowd.lost, CLIENTS);
  aloop_server_unref(server);
}

static void wait_closed_waits_for_close(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  aloop_future_t *future = aloop_server_wait_closed(server);
  run_turns(env->loop, 3);
  assert_false(aloop_future_done(future));
  aloop_server_close(server);
  assert_true(aloop_future_done(future));
  assert_int_equal(value_of(env, future), 0);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  aloop_server_unref(server);
}

static void a_wait_can_be_cancelled(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  aloop_future_t *first = aloop_server_wait_closed(server);
  aloop_future_t *second = aloop_server_wait_closed(server);
  assert_int_equal(aloop_future_cancel(first), 1);
  aloop_future_unref(first);
  assert_true(aloop_server_is_serving(server));
  aloop_server_close(server);
  assert_int_equal(value_of(env, second), 0);
  aloop_server_unref(server);
}

/* ---- serve_forever --------------------------------------------------------------------------------------- */

static void serve_forever_starts_and_ends_with_the_server(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.start_serving = -1;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  aloop_future_t *forever = aloop_server_serve_forever(server);
  assert_true(aloop_server_is_serving(server));
  int peer = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  assert_false(aloop_future_done(forever));
  aloop_server_close(server);
  assert_true(aloop_future_cancelled(forever));
  aloop_future_unref(forever);
  assert_int_equal(error_of(env, aloop_server_serve_forever(server), NULL), ALOOP_ECLOSED);
  close(peer);
  finish(env, server);
}

static void serve_forever_is_for_one_at_a_time(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  aloop_future_t *forever = aloop_server_serve_forever(server);
  assert_int_equal(error_of(env, aloop_server_serve_forever(server), NULL), ALOOP_EBUSY);
  assert_false(aloop_future_done(forever));
  aloop_server_close(server);
  assert_int_equal(error_of(env, forever, NULL), ALOOP_ECANCELED);
  finish(env, server);
}

static void cancelling_serve_forever_closes_the_server(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  aloop_future_t *forever = aloop_server_serve_forever(server);
  assert_int_equal(aloop_future_cancel(forever), 1);
  assert_false(aloop_server_is_serving(server));
  assert_int_equal(aloop_server_sockets(server), 0);
  aloop_future_unref(forever);
  finish(env, server);
}

/* ---- Ending clients -------------------------------------------------------------------------------------- */

static void close_clients_lets_them_finish(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  assert_int_equal(aloop_transport_write(crowd.transports[0], "bye", 3), 0);
  assert_int_equal(aloop_server_close_clients(server), CLIENTS);
  assert_int_equal(crowd.lost, 0); /* never from inside */
  run_until_count(env->loop, &crowd.lost, CLIENTS);
  assert_int_equal(crowd.last_error, 0);
  assert_true(aloop_server_is_serving(server));
  char bytes[4];
  assert_int_equal(recv(peers[0], bytes, sizeof bytes, 0), 3);
  assert_int_equal(peer_look(peers[0]), PEER_EOF);
  close_all(peers, CLIENTS);
  finish(env, server);
}

static void other_connections_are_left_alone(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0}, others = {0};
  int peers[CLIENTS], other_peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  aloop_server_t *other = populated(env, &others, other_peers, CLIENTS);
  assert_int_equal(aloop_server_abort_clients(server), CLIENTS);
  run_until_count(env->loop, &crowd.lost, CLIENTS);
  assert_int_equal(others.open, CLIENTS);
  assert_int_equal(aloop_server_abort_clients(server), 0);
  close_all(peers, CLIENTS);
  close_all(other_peers, CLIENTS);
  finish(env, server);
  finish(env, other);
}

static void abort_all(crowd_t *crowd, aloop_transport_t *transport) {
  (void)transport;
  aloop_server_abort_clients(crowd->user);
}

static void clients_may_be_aborted_inside_callbacks(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS + 1];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  crowd.user = server;
  crowd.on_made = crowd.on_lost = abort_all;
  peers[CLIENTS] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.lost, CLIENTS + 1);
  assert_int_equal(crowd.made, CLIENTS + 1);
  close_all(peers, CLIENTS + 1);
  finish(env, server);
}

/* The release function of unsent bytes: runs inside abort, and ends others meanwhile. */
static void abort_from_release(void *arg) {
  crowd_t *crowd = arg;
  aloop_server_t *server = crowd->user;
  aloop_server_close(server);
  aloop_server_abort_clients(server);
}

static void clients_may_be_aborted_while_they_are_aborted(void **state) {
  env_t *env = *state;
  static char bulk[1 << 20];
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  crowd.user = server;
  for (int i = 0; i < CLIENTS; i++) {
    int rc = 0;
    for (int tries = 0; tries < 16 && rc == 0; tries++) /* more than the sockets take */
      rc = aloop_transport_write_owned(crowd.transports[i], bulk, sizeof bulk, NULL, NULL);
    assert_int_equal(
        aloop_transport_write_owned(crowd.transports[i], bulk, sizeof bulk, abort_from_release, &crowd), 0);
    assert_true(aloop_transport_get_write_buffer_size(crowd.transports[i]) > sizeof bulk);
  }
  assert_true(aloop_server_abort_clients(server) >= 1);
  run_until_count(env->loop, &crowd.lost, CLIENTS);
  assert_int_equal(crowd.made, crowd.lost);
  close_all(peers, CLIENTS);
  finish(env, server);
}

/* ---- Drain ----------------------------------------------------------------------------------------------- */

static void draining_an_idle_server_is_closing_it(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  aloop_future_t *drain = aloop_server_drain(server, ALOOP_SECONDS(10));
  assert_true(aloop_future_done(drain));
  assert_int_equal(value_of(env, drain), 0);
  assert_false(aloop_server_is_serving(server));
  assert_int_equal(timers(env), 0);
  assert_int_equal(value_of(env, aloop_server_drain(server, 0)), 0);
  finish(env, server);
}

static void draining_waits_for_clients_to_finish(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  int port = aloop_server_port(server);
  aloop_future_t *drain = aloop_server_drain(server, ALOOP_SECONDS(3600));
  assert_true(peer_refused(port));
  run_turns(env->loop, 3);
  assert_int_equal(crowd.open, CLIENTS);
  close_all(peers, CLIENTS);
  assert_int_equal(value_of(env, drain), 0); /* all by themselves */
  assert_int_equal(timers(env), 0);
  finish(env, server);
}

static void draining_closes_those_left(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  env_loop(env, (aloop_options_t){.debug = -1,
                                  .poller = "virtual"}); /* the clients' end comes before any time passes */
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  int64_t begun = aloop_update_time(env->loop);
  aloop_future_t *drain = aloop_server_drain(server, ALOOP_MILLIS(30));
  close(peers[0]);
  close(peers[1]);
  run_until_count(env->loop, &crowd.lost, 2);
  assert_int_equal(value_of(env, drain), CLIENTS - 2);
  int64_t took = aloop_update_time(env->loop) - begun;
  assert_true(took >= ALOOP_MILLIS(30) && took < ALOOP_MILLIS(60));
  assert_int_equal(crowd.last_error, 0);
  assert_int_equal(timers(env), 0);
  close_all(peers + 2, CLIENTS - 2);
  finish(env, server);
}

/* Fills the connection until close has to wait for the peer. */
static void stuff(aloop_transport_t *transport) {
  static char bulk[1 << 20];
  for (int i = 0; i < 16; i++)
    assert_int_equal(aloop_transport_write_owned(transport, bulk, sizeof bulk, NULL, NULL), 0);
  assert_true(aloop_transport_get_write_buffer_size(transport) > 0);
}

static void draining_aborts_those_who_do_not_close(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  stuff(crowd.transports[3]);
  int64_t begun = aloop_update_time(env->loop);
  aloop_future_t *drain = aloop_server_drain(server, ALOOP_MILLIS(30));
  run_until_count(env->loop, &crowd.lost, CLIENTS - 1); /* closed */
  assert_false(aloop_future_done(drain));
  assert_int_equal(aloop_server_clients(server), 1);
  assert_int_equal(value_of(env, drain), CLIENTS);
  assert_true(aloop_update_time(env->loop) - begun >= ALOOP_MILLIS(60));
  assert_int_equal(crowd.lost, CLIENTS);
  close_all(peers, CLIENTS);
  finish(env, server);
}

static void draining_without_grace_closes_at_once(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  stuff(crowd.transports[0]);
  assert_int_equal(value_of(env, aloop_server_drain(server, 0)), CLIENTS);
  close_all(peers, CLIENTS);
  finish(env, server);
}

static void draining_for_ever_never_forces(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  aloop_future_t *drain = aloop_server_drain(server, ALOOP_FOREVER);
  assert_int_equal(timers(env), 0);
  run_turns(env->loop, 3);
  assert_false(aloop_future_done(drain));
  close_all(peers, CLIENTS);
  assert_int_equal(value_of(env, drain), 0);
  finish(env, server);
}

static void a_cancelled_drain_leaves_the_rest_alone(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  aloop_future_t *drain = aloop_server_drain(server, ALOOP_MILLIS(1));
  assert_int_equal(error_of(env, aloop_server_drain(server, 0), NULL), ALOOP_EALREADY);
  assert_int_equal(aloop_future_cancel(drain), 1);
  aloop_future_unref(drain);
  assert_int_equal(timers(env), 0);
  run_turns(env->loop, 5);
  assert_int_equal(crowd.open, CLIENTS);
  assert_int_equal(value_of(env, aloop_server_drain(server, 0)), CLIENTS); /* another one may follow */
  close_all(peers, CLIENTS);
  finish(env, server);
}

static void a_nonsensical_grace_is_refused(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  assert_int_equal(error_of(env, aloop_server_drain(server, -5), NULL), ALOOP_EINVAL);
  assert_true(aloop_server_is_serving(server));
  finish(env, server);
}

/* ---- The loop's end -------------------------------------------------------------------------------------- */

static void closing_the_loop_ends_everything(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = populated(env, &crowd, peers, CLIENTS);
  aloop_future_t *forever = aloop_server_serve_forever(server);
  aloop_future_t *wait = aloop_server_wait_closed(server);
  aloop_future_t *drain = aloop_server_drain(server, ALOOP_SECONDS(10));
  aloop_future_detach(aloop_server_wait_closed(server));
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(crowd.lost, CLIENTS);
  assert_int_equal(crowd.last_error, ALOOP_ECLOSED);
  assert_true(aloop_future_done(forever) && aloop_future_done(wait) && aloop_future_done(drain));
  assert_int_equal(aloop_server_start_serving(server), ALOOP_ECLOSED);
  assert_int_equal(aloop_server_sockets(server), 0);
  aloop_server_close(server);
  aloop_future_t *late = aloop_server_wait_closed(server);
  assert_true(aloop_future_done(late));
  assert_int_equal(env->reports, 0);
  aloop_future_result(drain);
  aloop_future_unref(forever);
  aloop_future_unref(wait);
  aloop_future_unref(drain);
  aloop_future_result(late);
  aloop_future_unref(late);
  aloop_server_unref(server);
  close_all(peers, CLIENTS);
}

static void closing_the_loop_with_connections_on_their_way(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[CLIENTS];
  aloop_server_t *server = crowd_serve(env, &crowd);
  for (int i = 0; i < CLIENTS; i++) peers[i] = peer_connect(aloop_server_port(server));
  assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0); /* accepted, not yet made */
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(crowd.made, crowd.lost);
  aloop_server_unref(server);
  close_all(peers, CLIENTS);
}

static void debug_mode_reports_a_server_left_open(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  env_loop(env, (aloop_options_t){.debug = 1});
  aloop_server_unref(crowd_serve(env, &crowd));
  aloop_server_t *closed = crowd_serve(env, &crowd);
  aloop_server_close(closed);
  aloop_server_unref(closed);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(env->reports, 1);
  assert_non_null(strstr(env->report_messages[0], "server"));
}

static void find_server(void *arg, const char *text) {
  char *found = arg;
  if (strncmp(text, "server ", 7) == 0) snprintf(found, 256, "%s", text);
}

static void the_dump_shows_servers(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peer;
  char found[256] = "", expected[128];
  aloop_server_t *server = populated(env, &crowd, &peer, 1);
  assert_int_equal(aloop_dump(env->loop, find_server, found), 0);
  snprintf(expected, sizeof expected, "on 127.0.0.1 port %d, serving, 1 clients", aloop_server_port(server));
  if (strstr(found, expected) == NULL) fail_msg("\"%s\" is not in \"%s\"", expected, found);
  close(peer);
  finish(env, server);
}

/* ---- Context and memory ---------------------------------------------------------------------------------- */

static aloop_var_t *variable;
static int seen;

static void see_variable(crowd_t *crowd, aloop_transport_t *transport) {
  (void)crowd;
  seen += aloop_var_get(aloop_transport_loop(transport), variable, NULL) == &seen;
}

static void create_in_context(aloop_t *loop, void *arg) {
  aloop_future_t **future = arg;
  static crowd_t crowd;
  crowd = (crowd_t){.on_made = see_variable};
  aloop_server_options_t options = crowd_options();
  assert_int_equal(aloop_var_set(loop, variable, &seen, NULL, NULL), 0);
  *future = aloop_create_server(loop, &crowd_protocol, &crowd, &options);
}

static void connections_have_the_context_of_their_server(void **state) {
  env_t *env = *state;
  aloop_future_t *future = NULL;
  aloop_server_t *server = NULL;
  assert_int_equal(aloop_var_new("variable", &variable), 0);
  aloop_call_soon(env->loop, create_in_context, &future);
  run_turns(env->loop, 1);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  aloop_future_unref(future);
  int peers[2] = {peer_connect(aloop_server_port(server)), peer_connect(aloop_server_port(server))};
  run_until_count(env->loop, &seen, 2);
  close_all(peers, 2);
  finish(env, server);
  aloop_var_unref(variable);
}

/* Ends a server in every way while the n-th allocation fails. Returns whether it got as far. */
static bool end_without_memory(env_t *env, long n) {
  crowd_t crowd = {0};
  int peers[2];
  env_loop(env, (aloop_options_t){.debug = -1});
  aloop_server_t *server = populated(env, &crowd, peers, 2);
  env->fail_at = env->calls + n;
  aloop_future_t *futures[3];
  futures[0] = aloop_server_serve_forever(server);
  futures[1] = aloop_server_wait_closed(server);
  futures[2] = aloop_server_drain(server, 0);
  aloop_server_close(server);
  run_until_count(env->loop, &crowd.lost, futures[2] != NULL && !aloop_future_done(futures[2]) ? 2 : 0);
  bool reached = env->calls >= env->fail_at;
  env->fail_at = 0;
  for (int i = 0; i < 3; i++) {
    if (futures[i] != NULL) aloop_future_result(futures[i]);
    aloop_future_unref(futures[i]);
  }
  close_all(peers, 2);
  finish(env, server);
  return reached;
}

static void every_want_of_memory_is_survived(void **state) {
  env_t *env = *state;
  for (long n = 1; end_without_memory(env, n); n++) assert_true(n < 100);
}

TESTS(T(clients_belong_to_their_server), T(a_forgotten_server_goes_on), T(clients_keep_a_closed_server),
      T(null_is_no_server), T(closing_ends_the_listening_only), T(closing_inside_connection_made_is_fine),
      T(closing_inside_connection_lost_is_fine), T(wait_closed_waits_for_both), T(wait_closed_waits_for_close),
      T(a_wait_can_be_cancelled), T(serve_forever_starts_and_ends_with_the_server),
      T(serve_forever_is_for_one_at_a_time), T(cancelling_serve_forever_closes_the_server),
      T(close_clients_lets_them_finish), T(other_connections_are_left_alone),
      T(clients_may_be_aborted_inside_callbacks), T(clients_may_be_aborted_while_they_are_aborted),
      T(draining_an_idle_server_is_closing_it), T(draining_waits_for_clients_to_finish),
      T(draining_closes_those_left), T(draining_aborts_those_who_do_not_close),
      T(draining_without_grace_closes_at_once), T(draining_for_ever_never_forces),
      T(a_cancelled_drain_leaves_the_rest_alone), T(a_nonsensical_grace_is_refused),
      T(closing_the_loop_ends_everything), T(closing_the_loop_with_connections_on_their_way),
      T(debug_mode_reports_a_server_left_open), T(the_dump_shows_servers),
      T(connections_have_the_context_of_their_server), T(every_want_of_memory_is_survived))
