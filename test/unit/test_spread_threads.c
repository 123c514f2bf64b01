/* SPDX-License-Identifier: MIT
 *
 * Servers of several loops with a thread for each loop, clients in threads of their own, and everything that
 * may end in the middle of it. The order of things is src/net/spread.c's own test's affair; here no data may be
 * raced for, no client forgotten and no descriptor left. pollers: all, threads: yes
 */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "harness.h"

enum { WORKERS = 3, CALLERS = 2, CALLS = 40, OPEN = 4 };

typedef struct worker {
  aloop_t *loop;
  pthread_t thread;
  int patience; /* connections after which the thread closes its loop; 0: never */
  bool freed;
} worker_t;

typedef struct place {
  aloop_t *home;
  aloop_server_t *server;
  int port;
  worker_t workers[WORKERS];
  atomic_int made, lost, strange; /* callbacks; those in another thread than their loop's */
  atomic_int served, ended, callers;
  atomic_bool over;
  atomic_bool watched; /* the home loop need not be stopped: the test looks at `callers` */
} place_t;

/* ---- The protocol: an echo ------------------------------------------------------------------------------- */

static place_t *now; /* of the one test that runs in this process */

/* The loop whose callbacks this thread may see. */
static _Thread_local aloop_t *mine;

static void check_thread(const aloop_transport_t *transport) {
  if (aloop_transport_loop(transport) != mine || aloop_running_loop() != mine)
    atomic_fetch_add(&now->strange, 1);
}

static void stop_if_tired(aloop_t *loop) {
  for (int i = 0; i < WORKERS; i++) {
    worker_t *worker = &now->workers[i];
    if (worker->loop == loop && worker->patience > 0 && --worker->patience == 0) aloop_stop(loop);
  }
}

static void on_made(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  check_thread(transport);
  atomic_fetch_add(&now->made, 1);
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  check_thread(transport);
  const aloop_server_t *server = aloop_transport_server(transport);
  if (server == NULL || aloop_server_get_loop(server) != mine) atomic_fetch_add(&now->strange, 1);
  stop_if_tired(mine);
  return aloop_transport_write(transport, data, size);
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)protocol, (void)error;
  if (aloop_transport_loop(transport) != mine) atomic_fetch_add(&now->strange, 1);
  atomic_fetch_add(&now->lost, 1);
}

static const aloop_protocol_t echo = {.size = sizeof(aloop_protocol_t),
                                      .connection_made = on_made,
                                      .data_received = on_data,
                                      .connection_lost = on_lost};

/* ---- Threads --------------------------------------------------------------------------------------------- */

static void stop_loop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

static void *work(void *arg) {
  worker_t *worker = arg;
  mine = worker->loop;
  aloop_run_forever(worker->loop);
  if (worker->patience == 0 && !worker->freed) return NULL;
  worker->freed = true;
  aloop_free(worker->loop);
  return NULL;
}

static int call(int port) {
  struct sockaddr_in name = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct timeval patience = {.tv_sec = 60};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (connect(fd, (struct sockaddr *)&name, sizeof name) == 0) return fd;
  close(fd);
  return -1;
}

/* 1: what was said came back; 0: the server has ended the connection. */
static int answer(int fd) {
  char text;
  ssize_t n = recv(fd, &text, 1, 0);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) atomic_fetch_add(&now->strange, 1000);
  close(fd);
  return n == 1;
}

/* Several connections at a time, until enough were made or nobody listens any more. */
static void *make_calls(void *arg) {
  (void)arg;
  for (int i = 0; i < CALLS / OPEN && !atomic_load(&now->over); i++) {
    int fds[OPEN], count = 0;
    while (count < OPEN && (fds[count] = call(now->port)) >= 0) count++;
    for (int j = 0; j < count; j++) send(fds[j], "x", 1, MSG_NOSIGNAL);
    for (int j = 0; j < count; j++) atomic_fetch_add(answer(fds[j]) ? &now->served : &now->ended, 1);
    if (count < OPEN) break;
  }
  if (atomic_load(&now->watched))
    atomic_fetch_sub(&now->callers, 1);
  else if (atomic_fetch_sub(&now->callers, 1) == 1)
    aloop_call_soon_threadsafe(now->home, stop_loop, NULL);
  return NULL;
}

static void open_place(place_t *place, aloop_server_options_t options, bool own_too, const int *patience) {
  aloop_t *loops[WORKERS + 1];
  memset(place, 0, sizeof *place);
  now = place;
  assert_int_equal(aloop_new(NULL, &place->home), 0);
  mine = place->home;
  for (int i = 0; i < WORKERS; i++) {
    assert_int_equal(aloop_new(NULL, &place->workers[i].loop), 0);
    place->workers[i].patience = patience != NULL ? patience[i] : 0;
    loops[i] = place->workers[i].loop;
  }
  loops[WORKERS] = place->home;
  options.size = sizeof options;
  options.host = "127.0.0.1";
  options.loops = loops;
  options.loops_count = WORKERS + own_too;
  assert_int_equal(aloop_run_until_complete_ptr(
                       place->home, aloop_create_server(place->home, &echo, NULL, &options), &place->server),
                   0);
  place->port = aloop_server_port(place->server);
}

static void start(place_t *place, pthread_t callers[CALLERS]) {
  for (int i = 0; i < WORKERS; i++)
    assert_int_equal(pthread_create(&place->workers[i].thread, NULL, work, &place->workers[i]), 0);
  atomic_store(&place->callers, CALLERS);
  for (int i = 0; i < CALLERS; i++) assert_int_equal(pthread_create(&callers[i], NULL, make_calls, NULL), 0);
}

static void join_all(const pthread_t *threads, int count) {
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

/* The graceful way: the server first, then the loops. */
static void close_place(place_t *place) {
  assert_true(aloop_run_until_complete(place->home, aloop_server_drain(place->server, ALOOP_SECONDS(60))) >= 0);
  aloop_server_unref(place->server);
  for (int i = 0; i < WORKERS; i++)
    if (place->workers[i].patience == 0 && !place->workers[i].freed)
      aloop_call_soon_threadsafe(place->workers[i].loop, stop_loop, NULL);
  for (int i = 0; i < WORKERS; i++) {
    pthread_join(place->workers[i].thread, NULL);
    mine = place->workers[i].loop;
    if (!place->workers[i].freed) aloop_free(place->workers[i].loop);
  }
  aloop_free(place->home);
  assert_int_equal(atomic_load(&place->strange), 0);
  assert_int_equal(atomic_load(&place->made), atomic_load(&place->lost));
}

/* ---- Tests ----------------------------------------------------------------------------------------------- */

static void serve_all(bool own_too, size_t limit) {
  place_t place;
  pthread_t callers[CALLERS];
  open_place(&place, (aloop_server_options_t){.max_clients = limit}, own_too, NULL);
  start(&place, callers);
  assert_int_equal(aloop_run_forever(place.home), 0);
  join_all(callers, CALLERS);
  close_place(&place);
  assert_int_equal(atomic_load(&place.served), CALLERS * CALLS);
  assert_int_equal(atomic_load(&place.made), CALLERS * CALLS);
}

static void every_client_is_served_in_the_thread_of_its_loop(void **state) {
  (void)state;
  serve_all(false, 0);
}

static void the_acceptor_may_serve_as_well(void **state) {
  (void)state;
  serve_all(true, 0);
}

static void a_limit_holds_for_all_threads_together(void **state) {
  (void)state;
  serve_all(false, 2);
}

/* Clients of a loop that goes get an end or another loop; the last loop takes the server along. */
static void loops_may_go_while_clients_come(void **state) {
  (void)state;
  static const int patience[WORKERS] = {5, 10, 15};
  place_t place;
  pthread_t callers[CALLERS];
  open_place(&place, (aloop_server_options_t){0}, false, patience);
  for (int i = 0; i < WORKERS; i++) place.workers[i].freed = true; /* by their threads */
  aloop_future_t *forever = aloop_server_serve_forever(place.server);
  start(&place, callers);
  assert_int_equal(aloop_run_forever(place.home), 0);
  join_all(callers, CALLERS);
  assert_int_equal(aloop_run_until_complete(place.home, forever), ALOOP_ECANCELED);
  close_place(&place);
  assert_true(atomic_load(&place.served) > 0);
}

/* The rest of the clients are served by loops whose acceptor is gone, or turned away. */
static void the_acceptor_may_go_while_clients_come(void **state) {
  (void)state;
  place_t place;
  pthread_t callers[CALLERS];
  open_place(&place, (aloop_server_options_t){0}, false, NULL);
  start(&place, callers);
  while (atomic_load(&place.made) < CALLS / 4) assert_true(aloop_run_once(place.home, ALOOP_SECONDS(60)) >= 0);
  atomic_store(&place.over, true);
  aloop_server_unref(place.server);
  aloop_close(place.home);
  join_all(callers, CALLERS);
  for (int i = 0; i < WORKERS; i++) aloop_call_soon_threadsafe(place.workers[i].loop, stop_loop, NULL);
  for (int i = 0; i < WORKERS; i++) {
    pthread_join(place.workers[i].thread, NULL);
    mine = place.workers[i].loop;
    aloop_free(place.workers[i].loop);
  }
  aloop_free(place.home);
  assert_int_equal(atomic_load(&place.strange), 0);
  assert_int_equal(atomic_load(&place.made), atomic_load(&place.lost));
}

static void clients_are_ended_while_they_come(void **state) {
  (void)state;
  place_t place;
  pthread_t callers[CALLERS];
  open_place(&place, (aloop_server_options_t){0}, true, NULL);
  atomic_store(&place.watched, true);
  start(&place, callers);
  for (int i = 0; atomic_load(&place.callers) > 0; i++) {
    assert_true(aloop_run_once(place.home, ALOOP_MILLIS(1)) >= 0);
    if (i % 8 == 3) aloop_server_close_clients(place.server);
    if (i % 8 == 7) aloop_server_abort_clients(place.server);
  }
  join_all(callers, CALLERS);
  close_place(&place);
  assert_int_equal(atomic_load(&place.served) + atomic_load(&place.ended), CALLERS * CALLS);
}

TESTS(T(every_client_is_served_in_the_thread_of_its_loop), T(the_acceptor_may_serve_as_well),
      T(a_limit_holds_for_all_threads_together), T(loops_may_go_while_clients_come),
      T(the_acceptor_may_go_while_clients_come), T(clients_are_ended_while_they_come))
