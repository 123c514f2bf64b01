/* SPDX-License-Identifier: MIT
 *
 * When a server accepts: pausing, the most clients at one time, and what happens when the process is out of
 * descriptors or memory. pollers: all
 */
#include <string.h>
#include <unistd.h>

#include "crowd.h"
#include "peers.h"

static void finish(env_t *env, aloop_server_t *server) {
  aloop_server_close(server);
  aloop_server_abort_clients(server);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  aloop_server_unref(server);
}

static void close_all(const int *fds, int count) {
  for (int i = 0; i < count; i++) close(fds[i]);
}

static uint64_t timers(env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  return metrics.timers;
}

/* ---- Pausing --------------------------------------------------------------------------------------------- */

static void pausing_leaves_connections_in_the_backlog(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  assert_int_equal(aloop_server_pause_accepting(server), 0);
  assert_int_equal(aloop_server_pause_accepting(server), 0);
  assert_true(aloop_server_is_serving(server));
  int peer = peer_connect(aloop_server_port(server));
  run_turns(env->loop, 5);
  assert_int_equal(crowd.made, 0);
  assert_int_equal(peer_look(peer), PEER_OPEN);
  assert_int_equal(aloop_server_resume_accepting(server), 0);
  assert_int_equal(aloop_server_resume_accepting(server), 0);
  run_until_count(env->loop, &crowd.made, 1);
  close(peer);
  finish(env, server);
}

static void pausing_counts_within_the_turn(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  static const char *const hosts[] = {"127.0.0.1", "127.0.0.2"};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 2;
  options.max_clients = 1;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  /* Two listeners in one batch of events: the first connection makes the server full. */
  int fds[2];
  for (int i = 0; i < 2; i++) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    assert_true(aloop_server_socket(server, (size_t)i, (struct sockaddr *)(void *)&address, &size) >= 0);
    fds[i] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fds[i], (struct sockaddr *)(void *)&address, size), 0);
  }
  run_until_count(env->loop, &crowd.made, 1);
  run_turns(env->loop, 5);
  assert_int_equal(crowd.made, 1);
  close_all(fds, 2);
  finish(env, server);
}

static void a_closed_server_cannot_be_paused(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  aloop_server_close(server);
  assert_int_equal(aloop_server_pause_accepting(server), ALOOP_ECLOSED);
  assert_int_equal(aloop_server_resume_accepting(server), ALOOP_ECLOSED);
  assert_int_equal(aloop_server_start_serving(server), ALOOP_ECLOSED);
  assert_int_equal(aloop_server_pause_accepting(NULL), ALOOP_EINVAL);
  finish(env, server);
}

static void a_server_can_be_paused_before_it_serves(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.start_serving = -1;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_int_equal(aloop_server_pause_accepting(server), 0);
  assert_int_equal(aloop_server_start_serving(server), 0);
  int peer = peer_connect(aloop_server_port(server));
  run_turns(env->loop, 5);
  assert_int_equal(crowd.made, 0);
  assert_int_equal(aloop_server_resume_accepting(server), 0);
  run_until_count(env->loop, &crowd.made, 1);
  close(peer);
  finish(env, server);
}

static void a_server_may_start_later(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.start_serving = -1;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_true(peer_refused(aloop_server_port(server)));
  assert_int_equal(aloop_server_start_serving(server), 0);
  assert_int_equal(aloop_server_start_serving(server), 0);
  assert_true(aloop_server_is_serving(server));
  int peer = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  close(peer);
  finish(env, server);
}

/* ---- Limits ---------------------------------------------------------------------------------------------- */

static void more_clients_than_allowed_wait(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.max_clients = 2;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  int peers[5];
  for (int i = 0; i < 5; i++) peers[i] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 2);
  run_turns(env->loop, 5);
  assert_int_equal(crowd.made, 2);
  assert_int_equal(aloop_server_clients(server), 2);
  for (int gone = 0; gone < 5; gone++) {
    close(peers[gone]);
    run_until_count(env->loop, &crowd.lost, gone + 1);
    assert_true(crowd.open <= 2);
  }
  assert_int_equal(crowd.made, 5);
  assert_int_equal(aloop_server_clients(server), 0);
  finish(env, server);
}

static void one_busy_listener_does_not_starve_the_loop(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.backlog = 200;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  int peers[CROWD_MAX];
  for (int i = 0; i < CROWD_MAX; i++) peers[i] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, CROWD_MAX);
  close_all(peers, CROWD_MAX);
  run_until_count(env->loop, &crowd.lost, CROWD_MAX);
  finish(env, server);
}

static void a_client_that_gave_up_does_no_harm(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  int peer = peer_connect(aloop_server_port(server));
  assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
  close(peer); /* reset while it waits */
  peer = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  close(peer);
  assert_int_equal(env->reports, 0);
  finish(env, server);
}

/* ---- Out of descriptors ---------------------------------------------------------------------------------- */

static void a_client_sees_an_end_when_descriptors_run_out(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peer = peer_connect(aloop_server_port(server));
  use_up_fds();
  peer_await_end(env->loop, peer);
  restore_fd_limit();
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EMFILE);
  assert_int_equal(crowd.made, 0);
  close(peer);
  finish(env, server);
}

static void an_episode_is_reported_once(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[3];
  for (int i = 0; i < 3; i++) peers[i] = peer_connect(aloop_server_port(server));
  use_up_fds();
  for (int i = 0; i < 3; i++) peer_await_end(env->loop, peers[i]); /* one per failure: 50 ms, 100 ms */
  assert_int_equal(env->reports, 1);
  restore_fd_limit();
  close_all(peers, 3);
  finish(env, server);
}

static void a_rest_does_not_spin(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[2];
  for (int i = 0; i < 2; i++) peers[i] = peer_connect(aloop_server_port(server));
  use_up_fds();
  run_until_count(env->loop, &env->reports, 1);
  assert_int_equal(timers(env), 1);
  int64_t next = aloop_next_timeout(env->loop);
  assert_true(next > 0 && next <= ALOOP_MILLIS(50));
  run_turns(env->loop, 10);
  assert_int_equal(timers(env), 1);
  assert_int_equal(peer_look(peers[1]), PEER_OPEN);
  restore_fd_limit();
  close_all(peers, 2);
  finish(env, server);
}

static void rests_grow_up_to_a_second(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  env_loop(env, (aloop_options_t){.debug = -1, .poller = "virtual"});
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[8];
  for (int i = 0; i < 8; i++) peers[i] = peer_connect(aloop_server_port(server));
  static const int delays[] = {50, 100, 200, 400, 800, 1000, 1000};
  use_up_fds();
  peer_await_end(env->loop, peers[0]);
  for (int i = 0; i < 7; i++) {
    int64_t begun = aloop_update_time(env->loop);
    peer_await_end(env->loop, peers[i + 1]);
    int64_t waited = aloop_update_time(env->loop) - begun;
    assert_true(waited >= ALOOP_MILLIS(delays[i] - 1) && waited <= ALOOP_MILLIS(delays[i] + 10));
  }
  assert_int_equal(env->reports, 1);
  restore_fd_limit();
  close_all(peers, 8);
  finish(env, server);
}

static void an_episode_ends_with_a_connection(void **state) {
  env_t *env = *state;
  if (strcmp(aloop_poller_name(env->loop), "uring") == 0)
    skip(); /* its accept goes on under the limit it began with */
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[3] = {-1, -1, -1};
  peers[0] = peer_connect(aloop_server_port(server));
  use_up_fds();
  peer_await_end(env->loop, peers[0]);
  restore_fd_limit();
  peers[1] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1); /* served after the rest */
  assert_int_equal(timers(env), 0);
  peers[2] = peer_connect(aloop_server_port(server));
  use_up_fds();
  peer_await_end(env->loop, peers[2]);
  restore_fd_limit();
  assert_int_equal(env->reports, 2); /* a new episode */
  assert_int_equal(crowd.open, 1);
  close_all(peers, 3);
  finish(env, server);
}

static void closing_ends_a_rest(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peer = peer_connect(aloop_server_port(server));
  use_up_fds();
  run_until_count(env->loop, &env->reports, 1);
  restore_fd_limit();
  assert_int_equal(timers(env), 1);
  aloop_server_close(server);
  assert_int_equal(timers(env), 0);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  aloop_server_unref(server);
  close(peer);
}

static void pausing_ends_a_rest(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[2];
  peers[0] = peer_connect(aloop_server_port(server));
  use_up_fds();
  run_until_count(env->loop, &env->reports, 1);
  restore_fd_limit();
  assert_int_equal(aloop_server_pause_accepting(server), 0);
  assert_int_equal(timers(env), 0);
  peers[1] = peer_connect(aloop_server_port(server));
  assert_int_equal(aloop_server_resume_accepting(server), 0);
  run_until_count(env->loop, &crowd.made, 1);
  close_all(peers, 2);
  finish(env, server);
}

static int close_on_report(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop;
  int *reports = arg;
  assert_non_null(context->server);
  assert_true(context->fd >= 0);
  aloop_server_close(context->server);
  ++*reports;
  return 0;
}

static void the_exception_handler_may_close_the_server(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int reports = 0;
  aloop_server_t *server = crowd_serve(env, &crowd);
  aloop_set_exception_handler(env->loop, close_on_report, &reports);
  int peer = peer_connect(aloop_server_port(server));
  aloop_server_unref(server); /* nobody but its sockets keeps it */
  use_up_fds();
  run_until_count(env->loop, &reports, 1);
  restore_fd_limit();
  assert_int_equal(timers(env), 0);
  close(peer);
}

static void the_spare_descriptor_is_kept_from_children(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int before = open_fds();
  aloop_server_t *server = crowd_serve(env, &crowd);
  assert_int_equal(open_fds(), before + 2); /* the socket and the spare */
  aloop_server_t *second = crowd_serve(env, &crowd);
  assert_int_equal(open_fds(), before + 3); /* one spare for all */
  finish(env, second);
  finish(env, server);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

static void want_of_memory_costs_one_connection(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[2];
  peers[0] = peer_connect(aloop_server_port(server));
  env->fail_at = env->calls + 1;
  peer_await_end(env->loop, peers[0]);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_ENOMEM);
  peers[1] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  assert_int_equal(env->reports, 1);
  close_all(peers, 2);
  finish(env, server);
}

static void a_rest_waits_for_memory_too(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[2];
  peers[0] = peer_connect(aloop_server_port(server));
  peers[1] = peer_connect(aloop_server_port(server));
  use_up_fds();
  env->fail_from = env->calls + 1; /* no memory for the timer either */
  run_until_count(env->loop, &env->reports, 1);
  assert_int_equal(timers(env), 0);
  run_turns(env->loop, 3);
  env->fail_from = 0;
  run_turns(env->loop, 1);
  assert_int_equal(timers(env), 1);
  restore_fd_limit();
  run_until_count(env->loop, &crowd.made, 1);
  assert_int_equal(env->reports, 1);
  close_all(peers, 2);
  finish(env, server);
}

/* Accepts, serves and loses a connection while the n-th allocation fails. Returns whether it got as far. */
static bool serve_without_memory(env_t *env, long n) {
  crowd_t crowd = {0};
  env_loop(env, (aloop_options_t){.debug = -1});
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peer = peer_connect(aloop_server_port(server));
  env->fail_at = env->calls + n;
  run_turns(env->loop, 5);
  int other = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  close(peer);
  close(other);
  run_until_count(env->loop, &crowd.lost, 1);
  bool reached = env->calls >= env->fail_at;
  env->fail_at = 0;
  finish(env, server);
  return reached;
}

static void every_want_of_memory_is_survived(void **state) {
  env_t *env = *state;
  for (long n = 1; serve_without_memory(env, n); n++) assert_true(n < 100);
}

TESTS(T(pausing_leaves_connections_in_the_backlog), T(pausing_counts_within_the_turn),
      T(a_closed_server_cannot_be_paused), T(a_server_can_be_paused_before_it_serves),
      T(a_server_may_start_later), T(more_clients_than_allowed_wait),
      T(one_busy_listener_does_not_starve_the_loop), T(a_client_that_gave_up_does_no_harm),
      T(a_client_sees_an_end_when_descriptors_run_out), T(an_episode_is_reported_once), T(a_rest_does_not_spin),
      T(rests_grow_up_to_a_second), T(an_episode_ends_with_a_connection), T(closing_ends_a_rest),
      T(pausing_ends_a_rest), T(the_exception_handler_may_close_the_server),
      T(the_spare_descriptor_is_kept_from_children), T(want_of_memory_costs_one_connection),
      T(a_rest_waits_for_memory_too), T(every_want_of_memory_is_survived))
