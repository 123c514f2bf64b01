/* SPDX-License-Identifier: MIT
 *
 * Wrong calls that make connections and servers, and on servers: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "crowd.h"
#include "misuse.h"
#include "peers.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const aloop_protocol_t protocol = {.size = sizeof protocol};

static void ignore(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

/* ---- Connecting ------------------------------------------------------------------------------------------ */

#define CONNECT(...)                                                                                           \
  aloop_create_connection(m->loop, &protocol, m,                                                               \
                          &(aloop_connect_options_t){.size = sizeof(aloop_connect_options_t), __VA_ARGS__})
#define CONNECT_SIZED(bytes)                                                                                   \
  aloop_create_connection(m->loop, &protocol, m,                                                               \
                          &(aloop_connect_options_t){.size = (bytes), .host = "127.0.0.1", .port = 1})

static void tables_and_sizes_of_connections(misuse_t *m) {
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = 1};
  aloop_protocol_t unsized = {0}, partial = {.size = sizeof partial - 8};
  struct {
    aloop_connect_options_t known;
    size_t unknown[2];
  } later = {{.size = sizeof later, .host = "127.0.0.1", .port = 1}, {0, 1}};
  MISTAKE(aloop_create_connection(NULL, &protocol, m, &options), 0);
  MISTAKE_OF_FUTURE(aloop_create_connection(m->loop, NULL, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_connection(m->loop, &unsized, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_connection(m->loop, &partial, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_connection(m->loop, &protocol, m, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_connection(m->loop, &protocol, m, &later.known), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT_SIZED(0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT_SIZED(sizeof(size_t)), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT_SIZED(sizeof(size_t) + 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT_SIZED(SIZE_MAX), ALOOP_EINVAL);
}

static void options_of_connections(misuse_t *m) {
  MISTAKE_OF_FUTURE(CONNECT(.host = "", .port = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1"), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 65536), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = INT32_MIN), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .fd = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .family = AF_UNIX), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .family = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .local_port = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .local_port = 65536), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .timeout = -2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .timeout = INT64_MIN), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .happy_eyeballs_delay = -2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .interleave = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.port = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.fd = 5, .local_host = "127.0.0.1"), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.fd = 5, .local_port = 1), ALOOP_EINVAL);
}

/* What the system says is an answer, not a mistake. */
static void answers_of_the_system(misuse_t *m) {
  ORDINARY_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1, .local_host = "192.0.2.1"), ALOOP_EADDRNOTAVAIL);
  ORDINARY_OF_FUTURE(CONNECT(.host = "::1", .port = 1, .family = AF_INET), ALOOP_EAI_ADDRFAMILY);
}

static aloop_future_t *adopt(misuse_t *m, int fd) {
  return aloop_connect_accepted_socket(m->loop, &protocol, m, fd, NULL);
}

static void descriptors_of_connections(misuse_t *m) {
  aloop_protocol_t unsized = {0};
  int pair[2], pipes[2], port, lonely = peer_bind("127.0.0.1", &port), gone = dup(lonely);
  int datagram = socket(AF_INET, SOCK_DGRAM, 0);
  make_socketpair(pair);
  make_pipe(pipes);
  close(gone);
  MISTAKE(aloop_connect_accepted_socket(NULL, &protocol, m, pair[0], NULL), 0);
  MISTAKE_OF_FUTURE(aloop_connect_accepted_socket(m->loop, NULL, m, pair[0], NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_connect_accepted_socket(m->loop, &unsized, m, pair[0], NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(adopt(m, -1), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(adopt(m, gone), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(adopt(m, pipes[0]), ALOOP_ENOTSOCK);
  MISTAKE_OF_FUTURE(adopt(m, datagram), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.fd = -1), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(CONNECT(.fd = pipes[0]), ALOOP_ENOTSOCK);
  assert_int_equal(aloop_add_reader(m->loop, pair[0], ignore, NULL), 0);
  MISTAKE_OF_FUTURE(adopt(m, pair[0]), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(m->loop, pair[0]), 1);
  ORDINARY_OF_FUTURE(adopt(m, lonely), ALOOP_ENOTCONN); /* the peer may have gone meanwhile */
  int fds[] = {pair[0], pair[1], pipes[0], pipes[1], lonely, datagram};
  for (int i = 0; i < 6; i++) assert_int_equal(close(fds[i]), 0);
}

/* ---- Making servers -------------------------------------------------------------------------------------- */

#define SERVE(...)                                                                                             \
  aloop_create_server(m->loop, &protocol, m,                                                                   \
                      &(aloop_server_options_t){.size = sizeof(aloop_server_options_t), __VA_ARGS__})
#define SERVE_SIZED(bytes)                                                                                     \
  aloop_create_server(m->loop, &protocol, m, &(aloop_server_options_t){.size = (bytes), .host = "127.0.0.1"})

static void tables_and_sizes_of_servers(misuse_t *m) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  aloop_protocol_t unsized = {0}, partial = {.size = sizeof partial - 8};
  struct {
    aloop_server_options_t known;
    size_t unknown[2];
  } later = {{.size = sizeof later, .host = "127.0.0.1"}, {1, 0}};
  MISTAKE(aloop_create_server(NULL, &protocol, m, &options), 0);
  MISTAKE_OF_FUTURE(aloop_create_server(m->loop, NULL, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_server(m->loop, &unsized, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_server(m->loop, &partial, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_server(m->loop, &protocol, m, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_server(m->loop, &protocol, m, &later.known), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE_SIZED(0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE_SIZED(sizeof(size_t)), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE_SIZED(sizeof(size_t) * 2 + 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE_SIZED(SIZE_MAX), ALOOP_EINVAL);
}

static void options_of_servers(misuse_t *m) {
  aloop_t *const nowhere[] = {NULL}, *const twice[] = {m->loop, m->loop};
  const char *hosts[] = {"127.0.0.1"};
  int fds[] = {0};
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .hosts = hosts, .hosts_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.hosts_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .port = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .port = 65536), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .family = AF_UNIX), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .backlog = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .loops_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .loops = nowhere, .loops_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1", .loops = twice, .loops_count = 2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fds_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fds_count = SIZE_MAX), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fds = fds, .fds_count = 1, .port = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fds = fds, .fds_count = 1, .host = "127.0.0.1"), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fds = fds, .fds_count = 1, .hosts = hosts, .hosts_count = 1), ALOOP_EINVAL);
}

static aloop_future_t *serve_fds(misuse_t *m, int first, int second, int start) {
  int fds[] = {first, second};
  return SERVE(.fds = fds, .fds_count = 2, .start_serving = start);
}

static void descriptors_of_servers(misuse_t *m) {
  int pipes[2], port, good = peer_bind("127.0.0.1", &port), gone = dup(good);
  int datagram = socket(AF_INET, SOCK_DGRAM, 0), used = peer_listen(5, &port);
  make_pipe(pipes);
  close(gone);
  assert_int_equal(aloop_add_reader(m->loop, used, ignore, NULL), 0);
  for (int start = -1; start <= 0; start++) {
    MISTAKE_OF_FUTURE(serve_fds(m, good, -1, start), ALOOP_EBADF);
    MISTAKE_OF_FUTURE(serve_fds(m, good, gone, start), ALOOP_EBADF);
    MISTAKE_OF_FUTURE(serve_fds(m, good, pipes[0], start), ALOOP_ENOTSOCK);
    MISTAKE_OF_FUTURE(serve_fds(m, good, datagram, start), ALOOP_EINVAL);
    MISTAKE_OF_FUTURE(serve_fds(m, good, used, start), ALOOP_EBUSY);
    MISTAKE_OF_FUTURE(serve_fds(m, good, good, start), ALOOP_EBUSY);
  }
  assert_int_equal(aloop_remove_reader(m->loop, used), 1);
  int fds[] = {good, datagram, used, pipes[0], pipes[1]};
  for (int i = 0; i < 5; i++) assert_int_equal(close(fds[i]), 0);
}

static void in_a_closed_loop(misuse_t *m) {
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE_OF_FUTURE(CONNECT(.host = "127.0.0.1", .port = 1), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(CONNECT(.fd = -1), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(CONNECT_SIZED(0), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(adopt(m, 0), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(SERVE(.host = "127.0.0.1"), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(serve_fds(m, 0, 1, 0), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(SERVE_SIZED(0), ALOOP_ECLOSED);
}

/* ---- Servers --------------------------------------------------------------------------------------------- */

static void null_servers(misuse_t *m) {
  ORDINARY(aloop_server_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_server_unref(NULL));
  MISTAKE(aloop_server_get_loop(NULL), 0);
  MISTAKE(aloop_server_start_serving(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_server_serve_forever(NULL), 0);
  MISTAKE(aloop_server_is_serving(NULL), false);
  MISTAKE_OF_VOID(aloop_server_close(NULL));
  MISTAKE(aloop_server_wait_closed(NULL), 0);
  MISTAKE(aloop_server_close_clients(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_server_abort_clients(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_server_drain(NULL, 0), 0);
  MISTAKE(aloop_server_pause_accepting(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_server_resume_accepting(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_server_sockets(NULL), 0);
  MISTAKE(aloop_server_socket(NULL, 0, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_server_port(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_server_clients(NULL), 0);
}

static void a_serving_server(misuse_t *m) {
  aloop_server_t *server = m->arg;
  aloop_future_t *forever = aloop_server_serve_forever(server);
  MISTAKE_OF_FUTURE(aloop_server_serve_forever(server), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_server_drain(server, -2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_server_drain(server, INT64_MIN), ALOOP_EINVAL);
  MISTAKE(aloop_server_socket(server, 0, OUT, NULL), ALOOP_EINVAL);
  ORDINARY(aloop_server_socket(server, 1, NULL, NULL), ALOOP_ENOENT);
  ORDINARY(aloop_server_socket(server, SIZE_MAX, OUT, &(socklen_t){100}), ALOOP_ENOENT);
  int fd = aloop_server_socket(server, 0, NULL, NULL);
  MISTAKE(aloop_add_reader(m->loop, fd, ignore, NULL), ALOOP_EBUSY);
  MISTAKE(aloop_remove_reader(m->loop, fd), ALOOP_EBUSY);
  ORDINARY(aloop_server_start_serving(server), 0);
  ORDINARY(aloop_server_is_serving(server), true);
  aloop_future_unref(forever);
}

static void a_closed_server(misuse_t *m) {
  aloop_server_t *server = m->arg;
  aloop_server_close(server);
  ORDINARY_OF_VOID(aloop_server_close(server));
  ORDINARY(aloop_server_start_serving(server), ALOOP_ECLOSED);
  ORDINARY(aloop_server_pause_accepting(server), ALOOP_ECLOSED);
  ORDINARY(aloop_server_resume_accepting(server), ALOOP_ECLOSED);
  ORDINARY(aloop_server_is_serving(server), false);
  ORDINARY(aloop_server_close_clients(server), 0);
  ORDINARY(aloop_server_abort_clients(server), 0);
  ORDINARY(aloop_server_sockets(server), 0);
  ORDINARY(aloop_server_socket(server, 0, OUT, &(socklen_t){100}), ALOOP_ENOENT);
  ORDINARY(aloop_server_port(server), ALOOP_ENOENT);
  ORDINARY(aloop_server_clients(server), 0);
}

static void a_future_of_a_closed_server(misuse_t *m) {
  aloop_server_close(m->arg);
  ORDINARY_OF_FUTURE(aloop_server_serve_forever(m->arg), ALOOP_ECLOSED);
}

static void a_server_of_a_closed_loop(misuse_t *m) {
  aloop_server_t *server = m->arg;
  a_closed_server(m);
  MISTAKE_OF_FUTURE(aloop_server_serve_forever(server), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_server_wait_closed(server), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_server_drain(server, 0), ALOOP_ECLOSED);
}

/* Two who want the end at the same time are no mistake. */
static void a_second_drain(misuse_t *m) {
  aloop_future_t *drain = aloop_server_drain(m->arg, ALOOP_FOREVER);
  assert_false(aloop_future_done(drain));
  ORDINARY_OF_FUTURE(aloop_server_drain(m->arg, 0), ALOOP_EALREADY);
  aloop_future_unref(drain);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

#define REFUSED(call) MISTAKE(call, ALOOP_ENOTLOOPTHREAD)

static void calls_of_another_thread(misuse_t *m) {
  aloop_server_t *server = m->arg;
  MISTAKE(CONNECT(.host = "127.0.0.1", .port = 1), 0);
  MISTAKE(adopt(m, -1), 0);
  MISTAKE(SERVE(.host = "127.0.0.1"), 0);
  MISTAKE(aloop_server_ref(server), 0);
  MISTAKE_OF_VOID(aloop_server_unref(server));
  MISTAKE(aloop_server_get_loop(server), 0);
  REFUSED(aloop_server_start_serving(server));
  MISTAKE(aloop_server_serve_forever(server), 0);
  MISTAKE(aloop_server_is_serving(server), false);
  MISTAKE_OF_VOID(aloop_server_close(server));
  MISTAKE(aloop_server_wait_closed(server), 0);
  REFUSED(aloop_server_close_clients(server));
  REFUSED(aloop_server_abort_clients(server));
  MISTAKE(aloop_server_drain(server, 0), 0);
  REFUSED(aloop_server_pause_accepting(server));
  REFUSED(aloop_server_resume_accepting(server));
  MISTAKE(aloop_server_sockets(server), 0);
  REFUSED(aloop_server_socket(server, 0, OUT, OUT));
  REFUSED(aloop_server_port(server));
  MISTAKE(aloop_server_clients(server), 0);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void wrong_tables_and_sizes(void **state) {
  in_both_modes(*state, tables_and_sizes_of_connections);
  in_both_modes(*state, tables_and_sizes_of_servers);
}

static void connect_options(void **state) {
  in_both_modes(*state, options_of_connections);
  in_both_modes(*state, answers_of_the_system);
}

static void sockets_to_connect(void **state) {
  in_both_modes(*state, descriptors_of_connections);
}

static void server_options(void **state) {
  in_both_modes(*state, options_of_servers);
}

static void sockets_to_serve(void **state) {
  in_both_modes(*state, descriptors_of_servers);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, in_a_closed_loop);
}

static void servers_that_are_null(void **state) {
  in_both_modes(*state, null_servers);
}

static void on_a_server(env_t *env, misuse_fn body) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    crowd_t crowd = {0};
    misuse_begin(&m, env, debug);
    m.arg = crowd_serve(env, &crowd);
    misuse_in_callback(&m, body);
    aloop_server_close(m.arg);
    aloop_server_unref(m.arg);
    misuse_end(&m);
  }
}

static void serving_servers(void **state) {
  on_a_server(*state, a_serving_server);
}

static void closed_servers(void **state) {
  on_a_server(*state, a_closed_server);
  on_a_server(*state, a_future_of_a_closed_server);
}

static void servers_of_closed_loops(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    crowd_t crowd = {0};
    misuse_begin(&m, *state, debug);
    m.arg = crowd_serve(*state, &crowd);
    assert_int_equal(aloop_close(m.loop), 0);
    a_server_of_a_closed_loop(&m);
    aloop_server_unref(m.arg);
    misuse_end(&m);
  }
}

static void draining_servers(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    crowd_t crowd = {0};
    misuse_begin(&m, *state, debug);
    m.arg = crowd_serve(*state, &crowd);
    int peer = peer_connect(aloop_server_port(m.arg));
    run_until_count(m.loop, &crowd.made, 1);
    misuse_in_callback(&m, a_second_drain);
    close(peer);
    run_until_count(m.loop, &crowd.lost, 1);
    aloop_server_unref(m.arg);
    misuse_end(&m);
  }
}

static void another_thread(void **state) {
  misuse_t m;
  crowd_t crowd = {0};
  misuse_begin(&m, *state, true);
  m.arg = crowd_serve(*state, &crowd);
  misuse_in_thread(&m, calls_of_another_thread);
  assert_true(aloop_server_is_serving(m.arg));
  aloop_server_close(m.arg);
  aloop_server_unref(m.arg);
  misuse_end(&m);
}

TESTS(T(wrong_tables_and_sizes), T(connect_options), T(sockets_to_connect), T(server_options),
      T(sockets_to_serve), T(closed_loops), T(servers_that_are_null), T(serving_servers), T(closed_servers),
      T(servers_of_closed_loops), T(draining_servers), T(another_thread))
