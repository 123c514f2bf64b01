/* SPDX-License-Identifier: MIT
 *
 * Listeners of the completion driver: what the kernel has accepted cannot be taken back. On io_uring only.
 * threads: yes, lacks: all
 */
#include "harness.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"
#include "net/completion.h"
#include "peers.h"
#include "rings.h"
#include "streams.h"

#ifdef ALOOP_HAVE_IO_URING

static void connections_accepted_during_a_pause_are_held(void **state) {
  enum { MANY = 10 };
  env_t *env = *state;
  use_ring(env);
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int peers[MANY];
  settle(env->loop);
  peers[0] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 1);
  for (int i = 1; i < MANY; i++) peers[i] = peer_connect(aloop_server_port(server));
  aloop_server_pause_accepting(server); /* the kernel may have accepted them all */
  run_turns(env->loop, 10);
  assert_int_equal(crowd.made, 1);
  aloop_server_resume_accepting(server);
  run_until_count(env->loop, &crowd.made, MANY);
  for (int i = 0; i < MANY; i++) close(peers[i]);
  run_until_count(env->loop, &crowd.lost, MANY);
  aloop_server_close(server);
  aloop_server_unref(server);
}

static void what_is_held_is_closed_with_its_server(void **state) {
  env_t *env = *state;
  use_ring(env);
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  settle(env->loop);
  int peer = peer_connect(aloop_server_port(server));
  aloop_server_pause_accepting(server);
  run_turns(env->loop, 10);
  aloop_server_close(server);
  peer_await_end(env->loop, peer);
  assert_int_equal(crowd.made, 0);
  close(peer);
  aloop_server_unref(server);
}

static void a_limit_of_clients_leaves_the_others_in_the_backlog(void **state) {
  env_t *env = *state;
  use_ring(env);
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.max_clients = 2;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  int peers[4];
  for (int i = 0; i < 4; i++) peers[i] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 2);
  run_turns(env->loop, 10);
  assert_int_equal(crowd.made, 2);
  close(peers[0]);
  run_until_count(env->loop, &crowd.made, 3);
  run_turns(env->loop, 10);
  assert_int_equal(crowd.open, 2);
  close(peers[1]);
  run_until_count(env->loop, &crowd.made, 4);
  close(peers[2]);
  close(peers[3]);
  run_until_count(env->loop, &crowd.lost, 4);
  aloop_server_close(server);
  aloop_server_unref(server);
}

/* ---- Another ring ---------------------------------------------------------------------------------------- */

static void connections_that_a_ring_had_taken_when_it_was_left_come_first(void **state) {
  env_t *env = *state;
  use_ring(env);
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  settle(env->loop);
  int peers[3];
  for (int i = 0; i < 2; i++) peers[i] = peer_connect(aloop_server_port(server));
  assert_true(aloop_backend_fd(env->loop) >= 0); /* for a host, which needs another kind of ring */
  assert_int_equal(crowd.made, 0);
  run_until_count(env->loop, &crowd.made, 2);
  peers[2] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 3);
  for (int i = 0; i < 3; i++) close(peers[i]);
  run_until_count(env->loop, &crowd.lost, 3);
  aloop_server_close(server);
  aloop_server_unref(server);
}

/* As one is that was left and is not gone yet: its accept waits, and nobody will ever ask for what it gets. */
static void leave_accept_behind(aloop__ring_t *ring, int listener) {
  const char *reason;
  assert_int_equal(aloop__ring_open(ring, 4, false, &reason), 0);
  struct io_uring_sqe *request = aloop__ring_request(ring);
  request->opcode = IORING_OP_ACCEPT;
  request->fd = listener;
  request->ioprio = IORING_ACCEPT_MULTISHOT;
  assert_int_equal(aloop__ring_enter(ring, false, 0), 0);
}

static void an_accept_left_behind_keeps_no_connection_waiting(void **state) {
  env_t *env = *state;
  use_completions(env);
  crowd_t crowd = {0};
  aloop__ring_t ring;
  aloop_server_t *server = crowd_serve(env, &crowd);
  leave_accept_behind(&ring, aloop_server_socket(server, 0, NULL, NULL));
  settle(env->loop);
  assert_true(aloop_backend_fd(env->loop) >= 0);
  run_turns(env->loop, 2);
  for (int i = 1; i <= 2; i++) {
    int peer = peer_connect(aloop_server_port(server));
    for (int tries = 0; tries < 5 && crowd.made < i; tries++) aloop_run_once(env->loop, ALOOP_SECONDS(1));
    assert_int_equal(crowd.made, i);
    close(peer);
    run_until_count(env->loop, &crowd.lost, i);
    aloop_server_pause_accepting(server);
    aloop_server_resume_accepting(server);
  }
  aloop__ring_close(&ring);
  aloop_server_close(server);
  aloop_server_unref(server);
}

typedef struct visit {
  aloop_t *loop;
  crowd_t *crowd;
  int port;
  int peer;
  bool failed;
} visit_t;

/* The old ring still has its accept when the connection comes. */
static void *accept_here(void *arg) {
  visit_t *visit = arg;
  for (int i = 0; i < 2; i++) aloop_run_once(visit->loop, 0);
  visit->peer = peer_connect(visit->port);
  for (int i = 0; i < 10 && visit->crowd->made < 1; i++) aloop_run_once(visit->loop, ALOOP_SECONDS(1));
  visit->failed = visit->crowd->made < 1;
  return NULL;
}

static void a_server_accepts_in_the_thread_that_its_loop_has_gone_to(void **state) {
  env_t *env = *state;
  use_ring(env);
  for (int i = 0; i < 5; i++) {
    env_loop(env, (aloop_options_t){.poller = "uring"});
    crowd_t crowd = {0};
    aloop_server_t *server = crowd_serve(env, &crowd);
    settle(env->loop);
    visit_t visit = {.loop = env->loop, .crowd = &crowd, .port = aloop_server_port(server)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, accept_here, &visit), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(visit.failed);
    close(visit.peer);
    run_until_count(env->loop, &crowd.lost, 1);
    aloop_server_pause_accepting(server);
    aloop_server_resume_accepting(server);
    visit.peer = peer_connect(visit.port);
    run_until_count(env->loop, &crowd.made, 2);
    close(visit.peer);
    run_until_count(env->loop, &crowd.lost, 2);
    aloop_server_close(server);
    aloop_server_unref(server);
  }
}

TESTS(T(connections_accepted_during_a_pause_are_held), T(what_is_held_is_closed_with_its_server),
      T(a_limit_of_clients_leaves_the_others_in_the_backlog),
      T(connections_that_a_ring_had_taken_when_it_was_left_come_first),
      T(an_accept_left_behind_keeps_no_connection_waiting),
      T(a_server_accepts_in_the_thread_that_its_loop_has_gone_to))

#else

TESTS(T(there_is_no_ring_here))
#endif
