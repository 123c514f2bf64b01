/* SPDX-License-Identifier: MIT
 *
 * Servers of several loops: who gets a connection, what the server counts and ends, and every order in which
 * servers, loops and connections can go. All loops are run by the test's own thread, in turns;
 * test_spread_threads.c has threads. pollers: all
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crowd.h"
#include "peers.h"
#include "script.h"

enum { ROOM = 64, LOOPS_MAX = 3, TURNS_MAX = 200000 };

/* A server with its loops. */
typedef struct estate {
  env_t *env;
  aloop_t *loops[LOOPS_MAX]; /* the others; NULL: freed */
  crowd_t crowds[LOOPS_MAX]; /* unused by `common` */
  crowd_t crowd;             /* of all connections */
  int count;
  aloop_server_t *server;
} estate_t;

static aloop_t *new_loop(env_t *env) {
  aloop_options_t options = {.size = sizeof options, .allocator = &env->allocator};
  aloop_t *loop;
  assert_int_equal(aloop_new(&options, &loop), 0);
  env_watch(env, loop);
  return loop;
}

static void make_loops(estate_t *estate, env_t *env, int count) {
  memset(estate, 0, sizeof *estate);
  estate->env = env;
  estate->count = count;
  for (int i = 0; i < count; i++) estate->loops[i] = new_loop(env);
}

static void serve_with(estate_t *estate, aloop_server_options_t options) {
  estate->server = crowd_serve_with(estate->env, &estate->crowd, options);
}

/* A server whose connections live on `count` other loops. */
static void open_estate(estate_t *estate, env_t *env, int count) {
  make_loops(estate, env, count);
  aloop_server_options_t options = crowd_options();
  options.loops = estate->loops;
  options.loops_count = (size_t)count;
  serve_with(estate, options);
}

static void turn_others(estate_t *estate) {
  for (int i = 0; i < estate->count; i++)
    if (estate->loops[i] != NULL) aloop_run_once(estate->loops[i], 0);
}

static void turn_all(estate_t *estate) {
  aloop_run_once(estate->env->loop, 0);
  turn_others(estate);
}

static void settle(estate_t *estate) {
  for (int i = 0; i < 20; i++) turn_all(estate);
}

static void await_count(estate_t *estate, const int *counter, int count) {
  for (int i = 0; *counter < count && i < TURNS_MAX; i++) turn_all(estate);
  assert_int_equal(*counter, count);
}

static void free_loop(estate_t *estate, int index) {
  aloop_free(estate->loops[index]);
  estate->loops[index] = NULL;
}

/* Ends everything in the order that is recommended. */
static void close_estate(estate_t *estate) {
  aloop_future_t *closed = aloop_server_wait_closed(estate->server);
  aloop_server_close(estate->server);
  aloop_server_abort_clients(estate->server);
  for (int i = 0; !aloop_future_done(closed) && i < TURNS_MAX; i++) turn_all(estate);
  assert_int_equal(aloop_future_result(closed), 0);
  aloop_future_unref(closed);
  aloop_server_unref(estate->server);
  for (int i = 0; i < estate->count; i++)
    if (estate->loops[i] != NULL) free_loop(estate, i);
  assert_int_equal(estate->crowd.made, estate->crowd.lost);
}

static int join(estate_t *estate) {
  return peer_connect(aloop_server_port(estate->server));
}

/* Connected and known to the protocol. */
static int enter(estate_t *estate) {
  int peer = join(estate);
  await_count(estate, &estate->crowd.made, estate->crowd.made + 1);
  return peer;
}

static void enter_many(estate_t *estate, int *peers, int count) {
  for (int i = 0; i < count; i++) peers[i] = enter(estate);
}

static void close_all(const int *fds, int count) {
  for (int i = 0; i < count; i++) close(fds[i]);
}

static aloop_metrics_t metrics_of(aloop_t *loop) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(loop, &metrics), 0);
  return metrics;
}

static int live_on(aloop_t *loop) {
  return (int)metrics_of(loop).transports;
}

static aloop_transport_t *last_of(const estate_t *estate) {
  assert_true(estate->crowd.open > 0);
  return estate->crowd.transports[estate->crowd.open - 1];
}

/* The server's part on a loop. Needs a connection there. */
static aloop_server_t *part_on(const estate_t *estate, const aloop_t *loop) {
  for (int i = 0; i < estate->crowd.open; i++)
    if (aloop_transport_loop(estate->crowd.transports[i]) == loop)
      return aloop_transport_server(estate->crowd.transports[i]);
  return NULL;
}

/* The other side has ended the connection. */
static void await_end(estate_t *estate, int peer) {
  peer_state_t state = PEER_OPEN;
  for (int i = 0; i < TURNS_MAX && state == PEER_OPEN; i++) {
    turn_all(estate);
    state = peer_look(peer);
  }
  assert_true(state == PEER_EOF || state == PEER_RESET);
}

/* ---- Who gets a connection ------------------------------------------------------------------------------- */

static void connections_are_shared_out_evenly(void **state) {
  estate_t estate;
  int peers[6];
  open_estate(&estate, *state, 3);
  enter_many(&estate, peers, 6);
  for (int i = 0; i < 3; i++) assert_int_equal(live_on(estate.loops[i]), 2);
  assert_int_equal(live_on(estate.env->loop), 0);
  assert_int_equal(aloop_server_clients(estate.server), 6);
  close_estate(&estate);
  close_all(peers, 6);
}

static void the_loop_with_the_fewest_gets_the_next(void **state) {
  estate_t estate;
  int peers[8];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 4);
  aloop_t *first = aloop_transport_loop(estate.crowd.transports[0]);
  close(peers[0]);
  close(peers[2]);
  await_count(&estate, &estate.crowd.lost, 2);
  assert_int_equal(live_on(first), 0);
  enter_many(&estate, &peers[4], 2);
  assert_int_equal(live_on(first), 2);
  close_estate(&estate);
  close_all(&peers[4], 2);
  close(peers[1]);
  close(peers[3]);
}

static void the_own_loop_takes_part_if_it_is_named(void **state) {
  estate_t estate;
  int peers[4];
  make_loops(&estate, *state, 1);
  aloop_t *both[] = {estate.loops[0], estate.env->loop};
  aloop_server_options_t options = crowd_options();
  options.loops = both;
  options.loops_count = 2;
  serve_with(&estate, options);
  enter_many(&estate, peers, 4);
  assert_int_equal(live_on(estate.env->loop), 2);
  assert_int_equal(live_on(estate.loops[0]), 2);
  assert_ptr_equal(part_on(&estate, estate.env->loop), estate.server);
  assert_int_equal(aloop_server_clients(estate.server), 4);
  close_estate(&estate);
  close_all(peers, 4);
}

static void a_server_of_its_own_loop_alone_is_like_any(void **state) {
  estate_t estate;
  make_loops(&estate, *state, 0);
  aloop_server_options_t options = crowd_options();
  options.loops = &estate.env->loop;
  options.loops_count = 1;
  serve_with(&estate, options);
  int peer = enter(&estate);
  assert_int_equal(live_on(estate.env->loop), 1);
  close_estate(&estate);
  close(peer);
}

static void metrics_count_what_was_accepted_where(void **state) {
  estate_t estate;
  int peers[4];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 4);
  assert_int_equal(metrics_of(estate.env->loop).handed_over, 4);
  assert_int_equal(metrics_of(estate.env->loop).accepted, 0);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(metrics_of(estate.loops[i]).accepted, 2);
    assert_int_equal(metrics_of(estate.loops[i]).handed_over, 0);
    assert_int_equal(metrics_of(estate.loops[i]).servers, 1);
  }
  close_estate(&estate);
  close_all(peers, 4);
}

static void bytes_go_to_the_loop_of_their_connection(void **state) {
  estate_t estate;
  open_estate(&estate, *state, 1);
  int peer = enter(&estate);
  assert_int_equal(send(peer, "hello", 5, 0), 5);
  await_count(&estate, &estate.crowd.received, 5);
  assert_int_equal(aloop_transport_write(last_of(&estate), "world!", 6), 0);
  char text[6];
  assert_int_equal(recv(peer, text, sizeof text, MSG_WAITALL), 6);
  assert_memory_equal(text, "world!", 6);
  close_estate(&estate);
  close(peer);
}

static void a_loop_that_does_not_run_gets_so_many_and_no_more(void **state) {
  estate_t estate;
  int peers[ROOM + 2];
  open_estate(&estate, *state, 1);
  for (int i = 0; i < ROOM + 2; i++) peers[i] = join(&estate);
  for (int i = 0; i < 200; i++) aloop_run_once(estate.env->loop, 0);
  assert_int_equal(metrics_of(estate.env->loop).handed_over, ROOM);
  assert_int_equal(aloop_server_clients(estate.server), ROOM);
  for (int i = 0; i < ROOM; i++) close(peers[i]);
  await_count(&estate, &estate.crowd.lost, ROOM);
  await_count(&estate, &estate.crowd.made, ROOM + 2);
  close_estate(&estate);
  close_all(&peers[ROOM], 2);
}

static void a_busy_loop_gets_its_share_to_wait_for_it(void **state) {
  estate_t estate;
  int peers[8];
  open_estate(&estate, *state, 2);
  aloop_t *busy = estate.loops[1];
  estate.loops[1] = NULL; /* is not run */
  for (int i = 0; i < 8; i++) peers[i] = join(&estate);
  await_count(&estate, &estate.crowd.made, 4);
  settle(&estate);
  assert_int_equal(aloop_server_clients(estate.server), 8);
  estate.loops[1] = busy;
  await_count(&estate, &estate.crowd.made, 8);
  assert_int_equal(live_on(busy), 4);
  close_estate(&estate);
  close_all(peers, 8);
}

/* ---- The parts ------------------------------------------------------------------------------------------- */

static void a_transport_knows_the_part_of_its_loop(void **state) {
  estate_t estate;
  int peers[3];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 3);
  aloop_server_t *part = aloop_transport_server(last_of(&estate));
  assert_non_null(part);
  assert_ptr_not_equal(part, estate.server);
  assert_ptr_equal(aloop_server_get_loop(part), aloop_transport_loop(last_of(&estate)));
  assert_int_equal(aloop_server_clients(part), 2);
  assert_int_equal(aloop_server_sockets(part), 0);
  assert_int_equal(aloop_server_port(part), ALOOP_ENOENT);
  assert_true(aloop_server_is_serving(part));
  assert_int_equal(aloop_server_start_serving(part), 0);
  close_estate(&estate);
  close_all(peers, 3);
}

static void a_paused_part_is_passed_over(void **state) {
  estate_t estate;
  int peers[6];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 2);
  aloop_server_t *part = part_on(&estate, estate.loops[0]);
  assert_int_equal(aloop_server_pause_accepting(part), 0);
  enter_many(&estate, &peers[2], 2);
  assert_int_equal(live_on(estate.loops[0]), 1);
  assert_int_equal(live_on(estate.loops[1]), 3);
  assert_int_equal(aloop_server_resume_accepting(part), 0);
  enter_many(&estate, &peers[4], 2);
  assert_int_equal(live_on(estate.loops[0]), 3);
  close_estate(&estate);
  close_all(peers, 6);
}

static void with_all_parts_paused_clients_wait(void **state) {
  estate_t estate;
  open_estate(&estate, *state, 1);
  int first = enter(&estate);
  aloop_server_t *part = part_on(&estate, estate.loops[0]);
  assert_int_equal(aloop_server_pause_accepting(part), 0);
  int second = join(&estate), third = join(&estate);
  settle(&estate);
  assert_true(estate.crowd.made <= 2); /* one may have been on its way */
  assert_int_equal(aloop_server_resume_accepting(part), 0);
  await_count(&estate, &estate.crowd.made, 3);
  close_estate(&estate);
  close(first);
  close(second);
  close(third);
}

static void a_closed_part_gets_no_more(void **state) {
  estate_t estate;
  int peers[6];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 2);
  aloop_server_t *part = part_on(&estate, estate.loops[0]);
  aloop_server_close(part);
  assert_false(aloop_server_is_serving(part));
  enter_many(&estate, &peers[2], 4);
  assert_int_equal(live_on(estate.loops[0]), 1);
  assert_int_equal(live_on(estate.loops[1]), 5);
  close_estate(&estate);
  close_all(peers, 6);
}

static void a_part_can_be_drained_alone(void **state) {
  estate_t estate;
  int peers[2];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 2);
  aloop_future_t *drained = aloop_server_drain(part_on(&estate, estate.loops[0]), 0);
  await_count(&estate, &estate.crowd.lost, 1);
  settle(&estate);
  assert_int_equal(aloop_future_result(drained), 1);
  aloop_future_unref(drained);
  assert_int_equal(aloop_server_clients(estate.server), 1);
  close_estate(&estate);
  close_all(peers, 2);
}

static void parts_close_with_their_server(void **state) {
  estate_t estate;
  int peers[2];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 2);
  aloop_server_t *part = aloop_server_ref(part_on(&estate, estate.loops[0]));
  aloop_future_t *closed = aloop_server_wait_closed(part);
  aloop_server_close(estate.server);
  settle(&estate);
  assert_false(aloop_server_is_serving(part));
  assert_false(aloop_future_done(closed));
  close_all(peers, 2);
  await_count(&estate, &estate.crowd.lost, 2);
  settle(&estate);
  assert_int_equal(aloop_future_result(closed), 0);
  aloop_future_unref(closed);
  aloop_server_unref(part);
  for (int i = 0; i < 2; i++) assert_int_equal(metrics_of(estate.loops[i]).servers, 0);
  close_estate(&estate);
}

/* ---- What the server counts and ends --------------------------------------------------------------------- */

static void max_clients_are_those_of_all_loops(void **state) {
  estate_t estate;
  int peers[4];
  make_loops(&estate, *state, 2);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 2;
  options.max_clients = 3;
  serve_with(&estate, options);
  enter_many(&estate, peers, 3);
  peers[3] = join(&estate);
  settle(&estate);
  assert_int_equal(estate.crowd.made, 3);
  close(peers[0]);
  await_count(&estate, &estate.crowd.made, 4);
  assert_int_equal(aloop_server_clients(estate.server), 3);
  close_estate(&estate);
  close_all(&peers[1], 3);
}

static void clients_of_all_loops_are_closed(void **state) {
  estate_t estate;
  int peers[4];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 4);
  assert_int_equal(aloop_server_close_clients(estate.server), 4);
  await_count(&estate, &estate.crowd.lost, 4);
  int next = enter(&estate);
  settle(&estate);
  assert_int_equal(estate.crowd.lost, 4);
  close_estate(&estate);
  close_all(peers, 4);
  close(next);
}

/* Also those on their way, and none that came later. */
static void ending_clients_means_those_it_has_now(void **state) {
  estate_t estate;
  int peers[3];
  open_estate(&estate, *state, 1);
  peers[0] = enter(&estate);
  peers[1] = join(&estate);
  for (int i = 0; i < 50; i++) aloop_run_once(estate.env->loop, 0);
  assert_int_equal(aloop_server_clients(estate.server), 2);
  assert_int_equal(aloop_server_abort_clients(estate.server), 2);
  peers[2] = join(&estate);
  for (int i = 0; i < 50; i++) aloop_run_once(estate.env->loop, 0);
  assert_int_equal(aloop_server_clients(estate.server), 3);
  await_count(&estate, &estate.crowd.lost, 2);
  settle(&estate);
  assert_int_equal(aloop_server_clients(estate.server), 1);
  close_estate(&estate);
  close_all(peers, 3);
}

static void wait_closed_waits_for_all_loops(void **state) {
  estate_t estate;
  int peers[2];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 2);
  aloop_future_t *closed = aloop_server_wait_closed(estate.server);
  aloop_server_close(estate.server);
  close(peers[0]);
  await_count(&estate, &estate.crowd.lost, 1);
  settle(&estate);
  assert_false(aloop_future_done(closed));
  close(peers[1]);
  await_count(&estate, &estate.crowd.lost, 2);
  settle(&estate);
  assert_int_equal(aloop_future_result(closed), 0);
  aloop_future_unref(closed);
  close_estate(&estate);
}

static void a_drain_ends_the_clients_of_all_loops(void **state) {
  estate_t estate;
  int peers[3];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 3);
  aloop_future_t *drained = aloop_server_drain(estate.server, 0);
  await_count(&estate, &estate.crowd.lost, 3);
  settle(&estate);
  assert_int_equal(aloop_future_result(drained), 3);
  aloop_future_unref(drained);
  close_estate(&estate);
  close_all(peers, 3);
}

static void hand_overs_under_way_outlive_the_close(void **state) {
  estate_t estate;
  open_estate(&estate, *state, 1);
  int peer = join(&estate);
  for (int i = 0; aloop_server_clients(estate.server) == 0 && i < TURNS_MAX; i++)
    aloop_run_once(estate.env->loop, 0);
  aloop_future_t *closed = aloop_server_wait_closed(estate.server);
  aloop_server_close(estate.server);
  await_count(&estate, &estate.crowd.made, 1);
  assert_false(aloop_future_done(closed));
  assert_int_equal(aloop_server_clients(estate.server), 1);
  close(peer);
  await_count(&estate, &estate.crowd.lost, 1);
  settle(&estate);
  assert_int_equal(aloop_future_result(closed), 0);
  aloop_future_unref(closed);
  close_estate(&estate);
}

/* A closed part does not take what waits for it, but hears what is said to its clients. */
static void clients_of_a_closed_part_are_ended_as_well(void **state) {
  estate_t estate;
  int peers[2];
  open_estate(&estate, *state, 1);
  peers[0] = enter(&estate);
  peers[1] = join(&estate);
  for (int i = 0; aloop_server_clients(estate.server) < 2 && i < TURNS_MAX; i++)
    aloop_run_once(estate.env->loop, 0);
  aloop_server_close(part_on(&estate, estate.loops[0]));
  assert_int_equal(aloop_server_close_clients(estate.server), 2);
  turn_others(&estate);
  await_count(&estate, &estate.crowd.lost, 1);
  await_end(&estate, peers[1]);
  close_estate(&estate);
  close_all(peers, 2);
}

/* ... even if it was said while nobody had heard yet that the loop is closed. What comes later lives. */
static void what_was_to_end_with_a_closed_loop_is_not_placed_again(void **state) {
  estate_t estate;
  int peers[3];
  open_estate(&estate, *state, 2);
  for (int i = 0; i < 2; i++) peers[i] = join(&estate);
  for (int i = 0; aloop_server_clients(estate.server) < 2 && i < TURNS_MAX; i++)
    aloop_run_once(estate.env->loop, 0);
  assert_int_equal(aloop_server_close_clients(estate.server), 2);
  free_loop(&estate, 0);
  await_end(&estate, peers[0]);
  await_end(&estate, peers[1]);
  peers[2] = enter(&estate);
  settle(&estate);
  assert_int_equal(aloop_server_clients(estate.server), 1);
  close_estate(&estate);
  close_all(peers, 3);
}

/* ---- Loops that go --------------------------------------------------------------------------------------- */

static void what_waited_for_a_closed_loop_goes_to_another(void **state) {
  estate_t estate;
  int peers[4];
  open_estate(&estate, *state, 2);
  for (int i = 0; i < 4; i++) peers[i] = join(&estate);
  for (int i = 0; aloop_server_clients(estate.server) < 4 && i < TURNS_MAX; i++)
    aloop_run_once(estate.env->loop, 0);
  free_loop(&estate, 0);
  await_count(&estate, &estate.crowd.made, 4);
  assert_int_equal(live_on(estate.loops[1]), 4);
  assert_int_equal(aloop_server_clients(estate.server), 4);
  close_estate(&estate);
  close_all(peers, 4);
}

static void connections_of_a_closed_loop_end_with_it(void **state) {
  estate_t estate;
  int peers[4];
  open_estate(&estate, *state, 2);
  enter_many(&estate, peers, 4);
  free_loop(&estate, 0);
  assert_int_equal(estate.crowd.lost, 2);
  assert_int_equal(estate.crowd.last_error, ALOOP_ECLOSED);
  settle(&estate);
  assert_int_equal(aloop_server_clients(estate.server), 2);
  assert_true(aloop_server_is_serving(estate.server));
  close_estate(&estate);
  close_all(peers, 4);
}

static void a_server_without_loops_closes(void **state) {
  estate_t estate;
  int peers[2];
  open_estate(&estate, *state, 2);
  aloop_future_t *forever = aloop_server_serve_forever(estate.server);
  enter_many(&estate, peers, 1);
  peers[1] = join(&estate);
  for (int i = 0; aloop_server_clients(estate.server) < 2 && i < TURNS_MAX; i++)
    aloop_run_once(estate.env->loop, 0);
  free_loop(&estate, 0);
  free_loop(&estate, 1);
  settle(&estate);
  assert_false(aloop_server_is_serving(estate.server));
  assert_int_equal(aloop_future_result(forever), ALOOP_ECANCELED);
  aloop_future_unref(forever);
  await_end(&estate, peers[0]);
  await_end(&estate, peers[1]);
  close_estate(&estate);
  close_all(peers, 2);
}

static void a_server_whose_parts_are_all_closed_closes(void **state) {
  estate_t estate;
  open_estate(&estate, *state, 1);
  int peer = enter(&estate);
  aloop_server_close(part_on(&estate, estate.loops[0]));
  settle(&estate);
  assert_false(aloop_server_is_serving(estate.server));
  assert_int_equal(aloop_server_clients(estate.server), 1);
  close_estate(&estate);
  close(peer);
}

static void connections_outlive_the_loop_that_accepted_them(void **state) {
  estate_t estate;
  env_t *env = *state;
  open_estate(&estate, env, 1);
  int peer = enter(&estate);
  aloop_future_t *closed = aloop_server_wait_closed(estate.server);
  aloop_future_t *drained = aloop_server_drain(estate.server, ALOOP_FOREVER);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(aloop_future_result(closed), ALOOP_ECLOSED);
  assert_int_equal(aloop_future_result(drained), ALOOP_ECLOSED);
  aloop_future_unref(closed);
  aloop_future_unref(drained);
  aloop_server_unref(estate.server);
  turn_others(&estate);
  aloop_server_t *part = part_on(&estate, estate.loops[0]);
  assert_int_equal(aloop_server_clients(part), 1);
  assert_false(aloop_server_is_serving(part));
  assert_int_equal(send(peer, "hello", 5, 0), 5);
  for (int i = 0; estate.crowd.received < 5 && i < TURNS_MAX; i++) turn_others(&estate);
  close(peer);
  for (int i = 0; estate.crowd.lost < 1 && i < TURNS_MAX; i++) turn_others(&estate);
  turn_others(&estate);
  assert_int_equal(metrics_of(estate.loops[0]).servers, 0);
  free_loop(&estate, 0);
}

/* What was on its way, too. */
static void the_acceptor_may_be_freed_before_a_hand_over_is_seen(void **state) {
  estate_t estate;
  env_t *env = *state;
  open_estate(&estate, env, 1);
  int peer = join(&estate);
  for (int i = 0; aloop_server_clients(estate.server) == 0 && i < TURNS_MAX; i++) aloop_run_once(env->loop, 0);
  aloop_server_unref(estate.server);
  aloop_free(env->loop);
  env->loop = NULL;
  for (int i = 0; estate.crowd.made < 1 && i < TURNS_MAX; i++) turn_others(&estate);
  assert_int_equal(send(peer, "hello", 5, 0), 5);
  for (int i = 0; estate.crowd.received < 5 && i < TURNS_MAX; i++) turn_others(&estate);
  assert_int_equal(estate.crowd.received, 5);
  free_loop(&estate, 0);
  close(peer);
}

static void nothing_is_left_when_all_loops_go_with_connections_waiting(void **state) {
  estate_t estate;
  env_t *env = *state;
  for (int order = 0; order < 2; order++) {
    open_estate(&estate, env, 1);
    int peer = join(&estate);
    for (int i = 0; aloop_server_clients(estate.server) == 0 && i < TURNS_MAX; i++)
      aloop_run_once(env->loop, 0);
    aloop_server_unref(estate.server);
    if (order == 0) free_loop(&estate, 0);
    aloop_free(env->loop);
    if (order == 1) free_loop(&estate, 0);
    env->loop = new_loop(env);
    peer_await_end(env->loop, peer);
    close(peer);
  }
}

static void a_loop_that_never_ran_can_be_freed_at_any_time(void **state) {
  estate_t estate;
  open_estate(&estate, *state, 2);
  free_loop(&estate, 0);
  int peer = enter(&estate);
  close_estate(&estate);
  close(peer);
}

static void a_closed_loop_is_refused(void **state) {
  estate_t estate;
  char text[1024];
  make_loops(&estate, *state, 2);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 2;
  aloop_close(estate.loops[1]);
  aloop_future_t *future = aloop_create_server(estate.env->loop, &crowd_protocol, &estate.crowd, &options);
  assert_int_equal(error_of(estate.env, future, text), ALOOP_ECLOSED);
  assert_non_null(strstr(text, "loops"));
  turn_others(&estate);
  free_loop(&estate, 0);
  free_loop(&estate, 1);
}

static void a_server_that_came_to_nothing_leaves_its_loops(void **state) {
  estate_t estate;
  int port, taken = peer_listen(1, &port);
  make_loops(&estate, *state, 1);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 1;
  options.port = port;
  aloop_future_t *future = aloop_create_server(estate.env->loop, &crowd_protocol, &estate.crowd, &options);
  assert_int_equal(error_of(estate.env, future, NULL), ALOOP_EADDRINUSE);
  settle(&estate);
  assert_int_equal(metrics_of(estate.loops[0]).servers, 0);
  free_loop(&estate, 0);
  close(taken);
}

/* Loops may go while the name of a host is looked up, and the look-up may be cancelled. */
static void loops_need_not_wait_for_a_name(void **state) {
  estate_t estate;
  static const line_t lines[] = {{.host = "soon.test", .addresses = "127.0.0.1", .delay = ALOOP_MILLIS(1)}};
  script_t script = SCRIPT(lines);
  make_loops(&estate, *state, 2);
  assert_int_equal(aloop_set_resolver(estate.env->loop, &script_resolver, &script), 0);
  aloop_server_options_t options = crowd_options();
  options.host = "soon.test";
  options.family = AF_INET;
  options.loops = estate.loops;
  options.loops_count = 2;
  aloop_future_t *cancelled = aloop_create_server(estate.env->loop, &crowd_protocol, &estate.crowd, &options);
  aloop_future_t *made = aloop_create_server(estate.env->loop, &crowd_protocol, &estate.crowd, &options);
  aloop_future_cancel(cancelled);
  free_loop(&estate, 0);
  assert_int_equal(run_future(estate.env->loop, made), 0);
  assert_int_equal(aloop_future_take_ptr(made, &estate.server), 0);
  aloop_future_unref(cancelled);
  aloop_future_unref(made);
  int peer = enter(&estate);
  assert_int_equal(live_on(estate.loops[1]), 1);
  assert_int_equal(metrics_of(estate.loops[1]).servers, 1);
  assert_int_equal(script.cancelled, 1);
  assert_int_equal(aloop_set_resolver(estate.env->loop, NULL, NULL), 0);
  close_estate(&estate);
  close(peer);
}

/* ---- Other servers --------------------------------------------------------------------------------------- */

static void unix_servers_have_loops_too(void **state) {
  static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
  for (int i = 0; i < 2; i++) {
    estate_t estate;
    int fd;
    make_loops(&estate, *state, 1);
    char path[108];
    snprintf(path, sizeof path, "spread-%d-%d.socket", (int)getpid(), i);
    aloop_unix_server_options_t options = {
        .size = sizeof options, .path = path, .type = types[i], .loops = estate.loops, .loops_count = 1};
    aloop_future_t *future =
        aloop_create_unix_server(estate.env->loop, &crowd_protocol, &estate.crowd, &options);
    assert_int_equal(aloop_future_take_ptr(future, &estate.server), 0);
    aloop_future_unref(future);
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    assert_true(aloop_server_socket(estate.server, 0, (struct sockaddr *)&name, &size) >= 0);
    fd = socket(AF_UNIX, types[i], 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&name, size), 0);
    assert_int_equal(send(fd, "hello", 5, 0), 5);
    await_count(&estate, &estate.crowd.received, 5);
    assert_int_equal(live_on(estate.loops[0]), 1);
    close_estate(&estate);
    close(fd);
  }
}

static int64_t answer(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  const char *line;
  int *served = arg;
  int64_t size = aloop_await(aloop_stream_readline(stream, &line));
  if (size <= 0 || aloop_running_loop() != loop) return size;
  (*served)++;
  return aloop_stream_write(stream, line, (size_t)size);
}

static void tasks_serve_on_other_loops(void **state) {
  estate_t estate;
  int served = 0, peers[2];
  make_loops(&estate, *state, 2);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 2;
  aloop_future_t *future = aloop_start_server(estate.env->loop, answer, &served, &options, NULL);
  assert_int_equal(aloop_future_take_ptr(future, &estate.server), 0);
  aloop_future_unref(future);
  for (int i = 0; i < 2; i++) {
    peers[i] = join(&estate);
    assert_int_equal(send(peers[i], "hello\n", 6, 0), 6);
  }
  await_count(&estate, &served, 2);
  char line[6];
  for (int i = 0; i < 2; i++) {
    while (peer_look(peers[i]) == PEER_OPEN) turn_all(&estate);
    assert_int_equal(recv(peers[i], line, sizeof line, MSG_WAITALL), 6);
    await_end(&estate, peers[i]);
  }
  for (int i = 0; i < 2; i++) assert_int_equal(metrics_of(estate.loops[i]).accepted, 1);
  close_estate(&estate);
  close_all(peers, 2);
}

static void a_task_server_may_go_before_its_tasks(void **state) {
  estate_t estate;
  env_t *env = *state;
  int served = 0;
  make_loops(&estate, env, 1);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 1;
  aloop_future_t *future = aloop_start_server(env->loop, answer, &served, &options, NULL);
  assert_int_equal(aloop_future_take_ptr(future, &estate.server), 0);
  aloop_future_unref(future);
  int peer = join(&estate);
  for (int i = 0; metrics_of(estate.loops[0]).tasks == 0 && i < TURNS_MAX; i++) turn_all(&estate);
  aloop_server_unref(estate.server);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(send(peer, "hello\n", 6, 0), 6);
  for (int i = 0; served == 0 && i < TURNS_MAX; i++) turn_others(&estate);
  assert_int_equal(served, 1);
  free_loop(&estate, 0);
  close(peer);
}

/* ---- Contexts, reports, dump ----------------------------------------------------------------------------- */

static void other_loops_know_no_context_of_the_call(void **state) {
  estate_t estate;
  aloop_var_t *var;
  int value;
  make_loops(&estate, *state, 1);
  assert_int_equal(aloop_var_new("var", &var), 0);
  assert_int_equal(aloop_var_set(estate.env->loop, var, &value, NULL, NULL), 0);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 1;
  serve_with(&estate, options);
  int peer = enter(&estate);
  assert_null(aloop_var_get(estate.loops[0], var, NULL));
  close_estate(&estate);
  aloop_var_unref(var);
  close(peer);
}

static void find_line(void *arg, const char *text) {
  int *found = arg;
  if (strstr(text, "part of another loop") != NULL) *found |= 1;
  if (strstr(text, "for 1 clients on 2 loops") != NULL) *found |= 2;
}

static void the_dump_tells_servers_from_their_parts(void **state) {
  estate_t estate;
  int found = 0;
  open_estate(&estate, *state, 2);
  int peer = enter(&estate);
  assert_int_equal(aloop_dump(estate.loops[0], find_line, &found), 0);
  assert_int_equal(found, 1);
  assert_int_equal(aloop_dump(estate.env->loop, find_line, &found), 0);
  assert_int_equal(found, 3);
  close_estate(&estate);
  close(peer);
}

static void a_loop_may_go_without_a_report(void **state) {
  estate_t estate;
  env_t *env = *state;
  open_estate(&estate, env, 2);
  aloop_set_debug(estate.loops[0], true);
  settle(&estate);
  free_loop(&estate, 0);
  assert_int_equal(env->reports, 0);
  close_estate(&estate);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

typedef struct meagre {
  env_t *env;
  bool empty;
} meagre_t;

static void *meagre_resize(void *user, void *block, size_t bytes) {
  meagre_t *meagre = user;
  if (meagre->empty) return NULL;
  return meagre->env->allocator.resize(meagre->env->allocator.user, block, bytes);
}

static void meagre_release(void *user, void *block) {
  meagre_t *meagre = user;
  meagre->env->allocator.release(meagre->env->allocator.user, block);
}

/* A loop without memory does not swallow all that comes. */
static void a_loop_out_of_memory_rests(void **state) {
  estate_t estate;
  env_t *env = *state;
  int peers[8];
  meagre_t meagre = {.env = env};
  aloop_allocator_t allocator = {
      .size = sizeof allocator, .resize = meagre_resize, .release = meagre_release, .user = &meagre};
  aloop_options_t poor = {.size = sizeof poor, .allocator = &allocator};
  make_loops(&estate, env, 1);
  assert_int_equal(aloop_new(&poor, &estate.loops[1]), 0);
  estate.count = 2;
  env_watch(env, estate.loops[1]);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 2;
  serve_with(&estate, options);
  settle(&estate);
  meagre.empty = true;
  for (int i = 0; i < 8; i++) {
    peers[i] = join(&estate);
    settle(&estate);
  }
  await_count(&estate, &estate.crowd.made, 7);
  assert_int_equal(live_on(estate.loops[0]), 7);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_ENOMEM);
  assert_int_equal(aloop_server_clients(estate.server), 7);
  meagre.empty = false;
  close_estate(&estate);
  close_all(peers, 8);
}

static void nothing(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

/* Posts until the next one would need memory. */
static void use_up_mailbox(aloop_t *loop) {
  for (int i = 0; i < 100000 && aloop_call_soon_threadsafe(loop, nothing, NULL) == 0; i++) continue;
}

static void a_hand_over_waits_for_memory_to_be_told(void **state) {
  estate_t estate;
  env_t *env = *state;
  meagre_t meagre = {.env = env};
  aloop_allocator_t allocator = {
      .size = sizeof allocator, .resize = meagre_resize, .release = meagre_release, .user = &meagre};
  aloop_options_t poor = {.size = sizeof poor, .allocator = &allocator};
  make_loops(&estate, env, 0);
  assert_int_equal(aloop_new(&poor, &estate.loops[0]), 0);
  env_watch(env, estate.loops[0]);
  aloop_server_options_t options = crowd_options();
  options.loops = estate.loops;
  options.loops_count = 1;
  serve_with(&estate, options);
  for (int i = 0; i < 20; i++) aloop_run_once(estate.loops[0], 0);
  meagre.empty = true;
  use_up_mailbox(estate.loops[0]);
  int peer = join(&estate);
  for (int i = 0; i < 50; i++) aloop_run_once(env->loop, 0);
  assert_int_equal(aloop_server_clients(estate.server), 1);
  meagre.empty = false;
  estate.count = 1;
  await_count(&estate, &estate.crowd.made, 1);
  close_estate(&estate);
  close(peer);
}

static void out_of_descriptors_the_server_rests_for_all_loops(void **state) {
  estate_t estate;
  env_t *env = *state;
  open_estate(&estate, env, 2);
  int peers[2] = {join(&estate), join(&estate)};
  use_up_fds();
  for (int i = 0; i < TURNS_MAX && env->reports == 0; i++) turn_all(&estate);
  restore_fd_limit();
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EMFILE);
  await_count(&estate, &estate.crowd.made, 1);
  await_end(&estate, peers[0]); /* by the spare descriptor */
  close_estate(&estate);
  close_all(peers, 2);
}

static void serve_once(env_t *env) {
  aloop_server_options_t options = crowd_options();
  aloop_options_t plain = {.size = sizeof plain, .allocator = &env->allocator, .poller = "virtual"};
  crowd_t crowd = {0};
  aloop_t *other;
  aloop_server_t *server = NULL;
  if (aloop_new(&plain, &other) < 0) return;
  env_watch(env, other);
  options.loops = &other;
  options.loops_count = 1;
  aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, &crowd, &options);
  if (future != NULL && aloop_future_take_ptr(future, &server) == 0) {
    int peer = peer_connect(aloop_server_port(server));
    for (int i = 0; i < 20; i++) {
      run_turn(env->loop);
      run_turn(other);
    }
    env->fail_from = 0;
    close(peer);
    aloop_future_t *drained = aloop_server_drain(server, 0);
    for (int i = 0; drained != NULL && !aloop_future_done(drained) && i < 1000; i++) {
      run_turn(env->loop);
      run_turn(other);
    }
    assert_true(drained == NULL || aloop_future_done(drained));
    aloop_future_unref(drained);
    aloop_server_unref(server);
  }
  aloop_future_unref(future);
  aloop_free(other);
  assert_int_equal(crowd.made, crowd.lost);
}

static void without_memory_nothing_is_left(void **state) {
  torture(*state, serve_once);
}

/* ---- Fork ------------------------------------------------------------------------------------------------ */

static bool child_serves_alone(estate_t *estate) {
  if (aloop_after_fork(estate->env->loop) < 0) return false;
  if (aloop_server_clients(estate->server) != 0) return false;
  int peer = join(estate);
  for (int i = 0; estate->crowd.made < 3 && i < TURNS_MAX; i++) aloop_run_once(estate->env->loop, 0);
  if (metrics_of(estate->env->loop).accepted != 2) return false;
  aloop_server_close(estate->server);
  aloop_server_abort_clients(estate->server);
  for (int i = 0; i < 20; i++) aloop_run_once(estate->env->loop, 0);
  close(peer);
  aloop_server_unref(estate->server);
  aloop_free(estate->env->loop);
  return true;
}

static void a_forked_child_has_the_own_loop_only(void **state) {
  estate_t estate;
  int status, peers[2];
  make_loops(&estate, *state, 1);
  aloop_t *both[] = {estate.env->loop, estate.loops[0]};
  aloop_server_options_t options = crowd_options();
  options.loops = both;
  options.loops_count = 2;
  serve_with(&estate, options);
  /* The first goes elsewhere, the second ends here again before the fork. */
  enter_many(&estate, peers, 2);
  close_all(peers, 2);
  await_count(&estate, &estate.crowd.lost, 2);
  pid_t child = fork();
  if (child == 0) _exit(child_serves_alone(&estate) ? 0 : 1);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  close_estate(&estate);
}

/* What waits for the forked loop is its parent's. */
static void a_forked_child_takes_no_connection_of_its_parent(void **state) {
  estate_t estate;
  int status;
  open_estate(&estate, *state, 1);
  int peer = join(&estate);
  for (int i = 0; aloop_server_clients(estate.server) == 0 && i < TURNS_MAX; i++)
    aloop_run_once(estate.env->loop, 0);
  pid_t child = fork();
  if (child == 0) {
    bool good = aloop_after_fork(estate.loops[0]) == 0;
    for (int i = 0; i < 20; i++) aloop_run_once(estate.loops[0], 0);
    good = good && metrics_of(estate.loops[0]).transports == 0 && estate.crowd.made == 0;
    aloop_free(estate.loops[0]);
    _exit(good ? 0 : 1);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_int_equal(send(peer, "hello", 5, 0), 5);
  await_count(&estate, &estate.crowd.received, 5);
  close_estate(&estate);
  close(peer);
}

/* A host's own loop is told by the descriptor that there is something to do. */
static void a_hosted_loop_gets_connections(void **state) {
  estate_t estate;
  open_estate(&estate, *state, 1);
  aloop_t *hosted = estate.loops[0];
  int fd = aloop_backend_fd(hosted);
  if (fd < 0) { /* a poller without one cannot be hosted */
    close_estate(&estate);
    return;
  }
  settle(&estate);
  int peer = join(&estate);
  while (aloop_server_clients(estate.server) == 0) aloop_run_once(estate.env->loop, ALOOP_SECONDS(30));
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  assert_true(aloop_next_timeout(hosted) == 0 || poll(&ready, 1, 30000) == 1);
  turn_others(&estate);
  await_count(&estate, &estate.crowd.made, 1);
  close_estate(&estate);
  close(peer);
}

TESTS(T(connections_are_shared_out_evenly), T(the_loop_with_the_fewest_gets_the_next),
      T(the_own_loop_takes_part_if_it_is_named), T(a_server_of_its_own_loop_alone_is_like_any),
      T(metrics_count_what_was_accepted_where), T(bytes_go_to_the_loop_of_their_connection),
      T(a_loop_that_does_not_run_gets_so_many_and_no_more), T(a_busy_loop_gets_its_share_to_wait_for_it),
      T(a_transport_knows_the_part_of_its_loop), T(a_paused_part_is_passed_over),
      T(with_all_parts_paused_clients_wait), T(a_closed_part_gets_no_more), T(a_part_can_be_drained_alone),
      T(parts_close_with_their_server), T(max_clients_are_those_of_all_loops),
      T(clients_of_all_loops_are_closed), T(ending_clients_means_those_it_has_now),
      T(wait_closed_waits_for_all_loops), T(a_drain_ends_the_clients_of_all_loops),
      T(hand_overs_under_way_outlive_the_close), T(clients_of_a_closed_part_are_ended_as_well),
      T(what_was_to_end_with_a_closed_loop_is_not_placed_again),
      T(what_waited_for_a_closed_loop_goes_to_another), T(connections_of_a_closed_loop_end_with_it),
      T(a_server_without_loops_closes), T(a_server_whose_parts_are_all_closed_closes),
      T(connections_outlive_the_loop_that_accepted_them),
      T(the_acceptor_may_be_freed_before_a_hand_over_is_seen),
      T(nothing_is_left_when_all_loops_go_with_connections_waiting),
      T(a_loop_that_never_ran_can_be_freed_at_any_time), T(a_closed_loop_is_refused),
      T(a_server_that_came_to_nothing_leaves_its_loops), T(loops_need_not_wait_for_a_name),
      T(unix_servers_have_loops_too), T(tasks_serve_on_other_loops), T(a_task_server_may_go_before_its_tasks),
      T(other_loops_know_no_context_of_the_call), T(the_dump_tells_servers_from_their_parts),
      T(a_loop_may_go_without_a_report), T(a_loop_out_of_memory_rests),
      T(out_of_descriptors_the_server_rests_for_all_loops), T(a_hand_over_waits_for_memory_to_be_told),
      T(without_memory_nothing_is_left), T(a_forked_child_has_the_own_loop_only),
      T(a_forked_child_takes_no_connection_of_its_parent), T(a_hosted_loop_gets_connections))
