/* SPDX-License-Identifier: MIT
 *
 * Listeners of the completion driver: what the kernel has accepted cannot be taken back. On io_uring only.
 */
#include "harness.h"

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
  use_completions(env);
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
  use_completions(env);
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
  use_completions(env);
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

TESTS(T(connections_accepted_during_a_pause_are_held), T(what_is_held_is_closed_with_its_server),
      T(a_limit_of_clients_leaves_the_others_in_the_backlog))

#else

TESTS(T(there_is_no_ring_here))
#endif
