/* SPDX-License-Identifier: MIT
 *
 * create_server: from options to sockets, and every reason against it. pollers: all
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"
#include "names.h"
#include "peers.h"

static aloop_future_t *create(env_t *env, const aloop_server_options_t *options) {
  static crowd_t crowd;
  aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, &crowd, options);
  assert_non_null(future);
  return future;
}

static void finish(env_t *env, aloop_server_t *server) {
  aloop_server_close(server);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  aloop_server_unref(server);
}

static int option_of(aloop_server_t *server, size_t index, int level, int option) {
  int value = 0;
  socklen_t size = sizeof value;
  int fd = aloop_server_socket(server, index, NULL, NULL);
  assert_true(fd >= 0);
  assert_int_equal(getsockopt(fd, level, option, &value, &size), 0);
  return value;
}

static sa_family_t family_of(aloop_server_t *server, size_t index) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  assert_true(aloop_server_socket(server, index, (struct sockaddr *)(void *)&address, &size) >= 0);
  return address.ss_family;
}

static int port_of(aloop_server_t *server, size_t index) {
  struct sockaddr_in6 address;
  socklen_t size = sizeof address;
  assert_true(aloop_server_socket(server, index, (struct sockaddr *)(void *)&address, &size) >= 0);
  return ntohs(address.sin6_port); /* at the same place in both families */
}

static bool has_ipv6(void) {
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  int fd = socket(AF_INET6, SOCK_STREAM, 0);
  bool has = fd >= 0 && bind(fd, (struct sockaddr *)(void *)&address, sizeof address) == 0;
  if (fd >= 0) close(fd);
  return has;
}

/* ---- Sockets --------------------------------------------------------------------------------------------- */

static void a_numeric_host_is_served_at_once(void **state) {
  env_t *env = *state;
  aloop_server_options_t options = crowd_options();
  aloop_future_t *future = create(env, &options);
  assert_true(aloop_future_done(future));
  aloop_server_t *server = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  aloop_future_unref(future);
  assert_true(aloop_server_is_serving(server));
  assert_int_equal(aloop_server_sockets(server), 1);
  assert_true(aloop_server_port(server) > 0);
  assert_int_equal(aloop_server_port(server), port_of(server, 0));
  assert_ptr_equal(aloop_server_get_loop(server), env->loop);
  finish(env, server);
}

static void sockets_have_the_usual_options(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  int fd = aloop_server_socket(server, 0, NULL, NULL);
  assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  assert_true(option_of(server, 0, SOL_SOCKET, SO_REUSEADDR));
  assert_false(option_of(server, 0, SOL_SOCKET, SO_KEEPALIVE));
  assert_false(option_of(server, 0, SOL_SOCKET, SO_REUSEPORT));
  assert_true(option_of(server, 0, SOL_SOCKET, SO_ACCEPTCONN));
  finish(env, server);
}

static void options_reach_the_sockets(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.reuse_address = -1;
  options.keep_alive = true;
  options.reuse_port = true;
  options.start_serving = -1;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_false(option_of(server, 0, SOL_SOCKET, SO_REUSEADDR));
  assert_true(option_of(server, 0, SOL_SOCKET, SO_KEEPALIVE));
  assert_true(option_of(server, 0, SOL_SOCKET, SO_REUSEPORT));
  assert_false(option_of(server, 0, SOL_SOCKET, SO_ACCEPTCONN));
  assert_false(aloop_server_is_serving(server));
  finish(env, server);
}

static void accepted_sockets_send_without_delay(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.keep_alive = true;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  int peers[2];
  for (int i = 0; i < 2; i++) peers[i] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, 2);
  for (int i = 0; i < 2; i++) {
    int on = 0;
    socklen_t size = sizeof on;
    int fd = aloop_transport_fd(crowd.transports[i]);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
    assert_true(on);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
    assert_true(on);
    close(peers[i]);
  }
  finish(env, server);
}

static void every_host_gets_a_socket(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  static const char *const hosts[] = {"127.0.0.2", "127.0.0.1", "127.0.0.2"};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 3;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_int_equal(aloop_server_sockets(server), 2); /* one of them was there already */
  assert_int_not_equal(port_of(server, 0), port_of(server, 1));
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  assert_true(aloop_server_socket(server, 0, (struct sockaddr *)(void *)&address, &size) >= 0);
  assert_int_equal(ntohl(address.sin_addr.s_addr), INADDR_LOOPBACK + 1);
  assert_int_equal(aloop_server_socket(server, 2, NULL, NULL), ALOOP_ENOENT);
  finish(env, server);
}

static void hosts_may_be_names(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  char first[] = "name.test";
  const char *hosts[] = {first, "127.0.0.2", "name.test"};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 3;
  aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, &crowd, &options);
  memset(first, 'x', sizeof first - 1); /* strings are copied */
  hosts[1] = "x";
  aloop_server_t *server = NULL;
  if (run_future(env->loop, future) < 0) fail_msg("%s", aloop_future_message(future));
  assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  aloop_future_unref(future);
  assert_int_equal(aloop_server_sockets(server), 2);
  finish(env, server);
  names_await_freed();
}

static void no_host_means_every_interface(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_int_equal(aloop_server_sockets(server), has_ipv6() ? 2 : 1);
  assert_int_equal(family_of(server, 0), AF_INET);
  if (has_ipv6()) assert_int_equal(family_of(server, 1), AF_INET6);
  if (has_ipv6()) assert_true(option_of(server, 1, IPPROTO_IPV6, IPV6_V6ONLY));
  finish(env, server);
}

static void an_empty_host_means_every_interface(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.host = "";
  options.family = AF_INET;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_int_equal(aloop_server_sockets(server), 1);
  assert_int_equal(family_of(server, 0), AF_INET);
  finish(env, server);
}

static void both_families_can_have_the_same_port(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  if (!has_ipv6()) skip();
  for (int tries = 0; tries < 20; tries++) {
    int port;
    int probe = peer_bind("0.0.0.0", &port); /* a port that is free in a moment, if nobody else takes it */
    close(probe);
    aloop_server_options_t options = crowd_options();
    options.host = NULL;
    options.port = port;
    aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, &crowd, &options);
    aloop_server_t *server = NULL;
    int64_t rc = run_future(env->loop, future);
    if (rc == 0) assert_int_equal(aloop_future_take_ptr(future, &server), 0);
    aloop_future_unref(future);
    if (rc == ALOOP_EADDRINUSE) continue;
    assert_int_equal(rc, 0);
    assert_int_equal(aloop_server_sockets(server), 2);
    assert_int_equal(port_of(server, 0), port);
    assert_int_equal(port_of(server, 1), port);
    finish(env, server);
    return;
  }
  fail_msg("found no free port");
}

static void one_socket_can_serve_both_families(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  if (!has_ipv6()) skip();
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.v6only = -1;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_int_equal(aloop_server_sockets(server), 1);
  assert_int_equal(family_of(server, 0), AF_INET6);
  assert_false(option_of(server, 0, IPPROTO_IPV6, IPV6_V6ONLY));
  int peer = peer_connect(aloop_server_port(server)); /* over IPv4 */
  run_until_count(env->loop, &crowd.made, 1);
  close(peer);
  finish(env, server);
}

/* ---- Failures -------------------------------------------------------------------------------------------- */

static void a_port_in_use_is_named(void **state) {
  env_t *env = *state;
  char text[1024], expected[128];
  int port;
  int other = peer_listen(5, &port);
  aloop_server_options_t options = crowd_options();
  options.port = port;
  assert_int_equal(error_of(env, create(env, &options), text), ALOOP_EADDRINUSE);
  snprintf(expected, sizeof expected, "bind to 127.0.0.1 port %d: address already in use", port);
  assert_string_equal(text, expected);
  close(other);
}

static void a_port_that_another_server_listens_on_is_named(void **state) {
  env_t *env = *state;
  char text[1024];
  crowd_t crowd = {0};
  aloop_server_options_t options = crowd_options();
  options.start_serving = -1; /* bound, not yet listening: SO_REUSEADDR lets a second one bind on Linux */
  aloop_server_t *first = crowd_serve_with(env, &crowd, options);
  options.port = aloop_server_port(first);
  options.start_serving = 0;
  aloop_future_t *future = create(env, &options);
  if (aloop_future_result(future) == 0) {
    aloop_server_t *second = NULL;
    assert_int_equal(aloop_future_take_ptr(future, &second), 0);
    assert_int_equal(aloop_server_start_serving(first), ALOOP_EADDRINUSE);
    assert_false(aloop_server_is_serving(first));
    finish(env, second);
    aloop_future_unref(future);
  } else {
    assert_int_equal(error_of(env, future, text), ALOOP_EADDRINUSE);
  }
  finish(env, first);
}

static void a_half_bound_server_leaves_nothing(void **state) {
  env_t *env = *state;
  int port;
  int other = peer_listen(5, &port);
  static const char *const hosts[] = {"127.0.0.2", "127.0.0.1"};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 2;
  options.port = port;
  int fds = open_fds();
  int64_t error = error_of(env, create(env, &options), NULL);
  assert_int_equal(error, ALOOP_EADDRINUSE);
  assert_int_equal(open_fds(), fds);
  close(other);
}

static void addresses_of_other_machines_are_left_out(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  static const char *const hosts[] = {"203.0.113.77", "127.0.0.1"};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 2;
  aloop_server_t *server = crowd_serve_with(env, &crowd, options);
  assert_int_equal(aloop_server_sockets(server), 1);
  finish(env, server);
}

static void no_address_left_is_an_error(void **state) {
  env_t *env = *state;
  char text[1024];
  static const char *const hosts[] = {"203.0.113.77", "203.0.113.78"};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 2;
  assert_int_equal(error_of(env, create(env, &options), text), ALOOP_EADDRNOTAVAIL);
  assert_string_equal(text, "bind to 203.0.113.77 port 0: address not available on this machine");
}

static void an_unknown_host_is_named(void **state) {
  env_t *env = *state;
  char text[1024];
  aloop_server_options_t options = crowd_options();
  options.host = "fail.test";
  names_result = EAI_NONAME;
  assert_int_equal(error_of(env, create(env, &options), text), ALOOP_EAI_NONAME);
  assert_string_equal(text, "look up fail.test: host or service not known");
}

static void cancelling_during_the_lookup_leaves_nothing(void **state) {
  env_t *env = *state;
  static const char *const hosts[] = {"127.0.0.1", "slow.test"};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 2;
  aloop_future_t *future = create(env, &options);
  names_await_slow();
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
  names_open_gate();
  names_finish(env->loop);
  run_turns(env->loop, 2);
}

static void closing_the_loop_during_the_lookup_leaves_nothing(void **state) {
  env_t *env = *state;
  aloop_server_options_t options = crowd_options();
  options.host = "slow.test";
  aloop_future_t *future = create(env, &options);
  names_await_slow();
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_future_cancelled(future));
  aloop_future_unref(future);
  names_open_gate();
  names_await_freed();
}

static void expect_refusal(env_t *env, const aloop_protocol_t *protocol, const aloop_server_options_t *options,
                           const char *word) {
  char text[1024];
  aloop_future_t *future = aloop_create_server(env->loop, protocol, NULL, options);
  assert_int_equal(error_of(env, future, text), ALOOP_EINVAL);
  if (strstr(text, word) == NULL) fail_msg("\"%s\" does not speak of %s", text, word);
}

static void wrong_options_are_explained(void **state) {
  env_t *env = *state;
  const aloop_server_options_t good = crowd_options();
  aloop_server_options_t options = good;
  static const char *const hosts[] = {"127.0.0.1"};
  static const int fds[] = {0};
  expect_refusal(env, NULL, &options, "protocol");
  expect_refusal(env, &crowd_protocol, NULL, "options.size");
  options.size = 0;
  expect_refusal(env, &crowd_protocol, &options, "options.size");
  options = good;
  options.port = 65536;
  expect_refusal(env, &crowd_protocol, &options, "options.port");
  options.port = -1;
  expect_refusal(env, &crowd_protocol, &options, "options.port");
  options = good;
  options.hosts = hosts;
  options.hosts_count = 1;
  expect_refusal(env, &crowd_protocol, &options, "options.hosts");
  options.hosts = NULL;
  expect_refusal(env, &crowd_protocol, &options, "options.hosts");
  options = good;
  options.fds = fds;
  options.fds_count = 1;
  expect_refusal(env, &crowd_protocol, &options, "not both");
  options.host = NULL;
  options.port = 80;
  expect_refusal(env, &crowd_protocol, &options, "options.port");
  options.fds = NULL;
  expect_refusal(env, &crowd_protocol, &options, "options.fds");
  options = good;
  options.family = AF_UNIX;
  expect_refusal(env, &crowd_protocol, &options, "options.family");
  options = good;
  options.backlog = -1;
  expect_refusal(env, &crowd_protocol, &options, "options.backlog");
}

static void a_closed_loop_serves_nobody(void **state) {
  env_t *env = *state;
  aloop_server_options_t options = crowd_options();
  aloop_close(env->loop);
  aloop_future_t *future = create(env, &options);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
  assert_null(aloop_create_server(NULL, &crowd_protocol, NULL, &options));
}

/* ---- Descriptors of the caller --------------------------------------------------------------------------- */

static aloop_server_options_t with_fds(const int *fds, size_t count) {
  return (aloop_server_options_t){.size = sizeof(aloop_server_options_t), .fds = fds, .fds_count = count};
}

static void serves_bound_descriptors(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int ports[2];
  int fds[2] = {peer_bind("127.0.0.1", &ports[0]), peer_listen(5, &ports[1])};
  aloop_server_t *server = crowd_serve_with(env, &crowd, with_fds(fds, 2));
  assert_int_equal(aloop_server_sockets(server), 2);
  assert_int_equal(aloop_server_port(server), ports[0]);
  assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
  int peers[2] = {peer_connect(ports[0]), peer_connect(ports[1])};
  run_until_count(env->loop, &crowd.made, 2);
  close(peers[0]);
  close(peers[1]);
  finish(env, server);
  assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* they were the server's to close */
}

static void assert_untouched(int fd) {
  assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
}

static void expect_bad_fds(env_t *env, const int *fds, size_t count, int error, const char *word) {
  char text[1024];
  aloop_server_options_t options = with_fds(fds, count);
  assert_int_equal(error_of(env, create(env, &options), text), error);
  if (strstr(text, word) == NULL) fail_msg("\"%s\" does not speak of %s", text, word);
}

static void ignore(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

static void unusable_descriptors_are_refused_and_left_alone(void **state) {
  env_t *env = *state;
  int port, pair[2];
  int good = peer_bind("127.0.0.1", &port);
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  expect_bad_fds(env, (int[]){good, -1}, 2, ALOOP_EBADF, "not open");
  expect_bad_fds(env, (int[]){good, good}, 2, ALOOP_EBUSY, "listed twice");
  expect_bad_fds(env, (int[]){good, pair[0]}, 2, ALOOP_EINVAL, "listen on");
  assert_untouched(pair[0]);
  close(pair[0]);
  close(pair[1]);
  assert_int_equal(pipe(pair), 0);
  expect_bad_fds(env, pair, 1, ALOOP_ENOTSOCK, "not a socket");
  close(pair[0]);
  close(pair[1]);
  int datagram = socket(AF_INET, SOCK_DGRAM, 0);
  expect_bad_fds(env, &datagram, 1, ALOOP_EINVAL, "stream");
  close(datagram);
  assert_int_equal(aloop_add_reader(env->loop, good, ignore, NULL), 0);
  expect_bad_fds(env, &good, 1, ALOOP_EBUSY, "in use");
  assert_int_equal(aloop_remove_reader(env->loop, good), 1);
  assert_untouched(good);
  close(good);
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

/* One attempt in which the n-th allocation fails. Returns whether it got as far. */
static bool create_without_memory(env_t *env, const aloop_server_options_t *options, long n) {
  env_loop(env, (aloop_options_t){.debug = -1});
  env->fail_at = env->calls + n;
  aloop_future_t *future = aloop_create_server(env->loop, &crowd_protocol, NULL, options);
  int64_t rc = future != NULL ? run_future(env->loop, future) : ALOOP_ENOMEM;
  bool reached = env->calls >= env->fail_at;
  env->fail_at = 0;
  if (rc < 0) assert_int_equal(rc, ALOOP_ENOMEM);
  aloop_future_unref(future);
  return reached;
}

static void every_want_of_memory_is_survived(void **state) {
  env_t *env = *state;
  static const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "name.test", NULL};
  aloop_server_options_t options = crowd_options();
  options.host = NULL;
  options.hosts = hosts;
  options.hosts_count = 4;
  for (long n = 1; create_without_memory(env, &options, n); n++) assert_true(n < 200);
  int port;
  for (long n = 1; n < 200; n++) {
    int fd = peer_bind("127.0.0.1", &port);
    options = with_fds(&fd, 1);
    bool reached = create_without_memory(env, &options, n);
    env_loop(env, (aloop_options_t){.debug = -1}); /* ends the server, if there is one */
    close(fd);                                     /* a no-op then */
    if (!reached) return;
  }
  fail_msg("no end");
}

TESTS(T(a_numeric_host_is_served_at_once), T(sockets_have_the_usual_options), T(options_reach_the_sockets),
      T(accepted_sockets_send_without_delay), T(every_host_gets_a_socket), T(hosts_may_be_names),
      T(no_host_means_every_interface), T(an_empty_host_means_every_interface),
      T(both_families_can_have_the_same_port), T(one_socket_can_serve_both_families), T(a_port_in_use_is_named),
      T(a_port_that_another_server_listens_on_is_named), T(a_half_bound_server_leaves_nothing),
      T(addresses_of_other_machines_are_left_out), T(no_address_left_is_an_error), T(an_unknown_host_is_named),
      T(cancelling_during_the_lookup_leaves_nothing), T(closing_the_loop_during_the_lookup_leaves_nothing),
      T(wrong_options_are_explained), T(a_closed_loop_serves_nobody), T(serves_bound_descriptors),
      T(unusable_descriptors_are_refused_and_left_alone), T(every_want_of_memory_is_survived))
