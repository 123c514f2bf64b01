/* SPDX-License-Identifier: MIT
 *
 * Opening datagram endpoints: hosts, names, addresses, families, descriptors, what fails and how it is told,
 * and what cancelling leaves. pollers: all
 */
#include "dgrams.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "peers.h"
#include "streams.h"

static aloop_future_t *open_with(post_t *post, aloop_datagram_options_t options) {
  options.size = sizeof options;
  aloop_future_t *future = aloop_create_datagram_endpoint(post->env->loop, &single_protocol, post, &options);
  assert_non_null(future);
  return future;
}

/* Fails, with this code and these words in the message. */
static void fails_with(env_t *env, aloop_datagram_options_t options, int code, const char *words) {
  post_t post = {.env = env};
  aloop_future_t *future = open_with(&post, options);
  assert_int_equal(run_future(env->loop, future), code);
  if (strstr(aloop_future_message(future), words) == NULL) fail_msg("%s", aloop_future_message(future));
  assert_int_equal(post.events_count, 0);
  aloop_future_unref(future);
}

static void both_sides_may_be_given(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  int port = open_udp(&server, &single_protocol);
  open_post(
      &client, &single_protocol,
      (aloop_datagram_options_t){.local_host = "127.0.0.1", .remote_host = "127.0.0.1", .remote_port = port});
  post_text(&client, "hello");
  await_datagrams(&server, 1);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void addresses_do_as_well_as_hosts(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  open_post(&server, &single_protocol,
            (aloop_datagram_options_t){.local = on_loopback(0), .local_size = LOOPBACK_SIZE});
  open_post(&client, &single_protocol,
            (aloop_datagram_options_t){.remote = on_loopback(port_of(server.endpoint)),
                                       .remote_size = LOOPBACK_SIZE});
  post_text(&client, "hello");
  await_datagrams(&server, 1);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void a_family_alone_gives_an_unbound_socket(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  int port = open_udp(&server, &single_protocol);
  open_post(&client, &single_protocol, (aloop_datagram_options_t){.family = AF_INET});
  assert_int_equal(port_of(client.endpoint), 0);
  post_text_to(&client, "hello", port);
  await_datagrams(&server, 1);
  assert_true(port_of(client.endpoint) > 0);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void bind_any_means_every_interface(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  struct sockaddr_in name;
  socklen_t size = sizeof name;
  open_post(&server, &single_protocol, (aloop_datagram_options_t){.bind_any = true, .family = AF_INET});
  aloop_datagram_sockname(server.endpoint, (struct sockaddr *)(void *)&name, &size);
  assert_int_equal(name.sin_addr.s_addr, htonl(INADDR_ANY));
  connect_udp(&client, &single_protocol, port_of(server.endpoint));
  post_text(&client, "hello");
  await_datagrams(&server, 1);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void a_port_alone_means_every_interface(void **state) {
  post_t first = {.env = *state}, server = {.env = *state};
  int port = open_udp(&first, &single_protocol);
  end_post(&first, -1);
  open_post(&server, &single_protocol, (aloop_datagram_options_t){.local_port = port, .family = AF_INET});
  assert_int_equal(port_of(server.endpoint), port);
  end_post(&server, -1);
}

static void ports_are_shared_with_reuse_port(void **state) {
  post_t a = {.env = *state}, b = {.env = *state};
  aloop_datagram_options_t options = {.local_host = "127.0.0.1", .reuse_port = true};
  open_post(&a, &single_protocol, options);
  options.local_port = port_of(a.endpoint);
  open_post(&b, &single_protocol, options);
  options.reuse_port = false;
  fails_with(*state, options, ALOOP_EADDRINUSE, "bind to 127.0.0.1 port ");
  end_post(&a, -1);
  end_post(&b, -1);
}

static void broadcast_is_answered_by_anybody(void **state) {
  post_t server = {.env = *state}, other = {.env = *state}, client = {.env = *state};
  int port = open_udp(&server, &single_protocol);
  int on = 0;
  socklen_t size = sizeof on;
  open_udp(&other, &single_protocol);
  open_post(
      &client, &single_protocol,
      (aloop_datagram_options_t){.remote_host = "127.0.0.1", .remote_port = port, .allow_broadcast = true});
  assert_int_equal(getsockopt(aloop_datagram_fd(client.endpoint), SOL_SOCKET, SO_BROADCAST, &on, &size), 0);
  assert_true(on != 0);
  post_text(&client, "hello");
  await_datagrams(&server, 1);
  post_text_to(&other, "I am another", port_of(client.endpoint));
  await_datagrams(&client, 1);
  end_post(&client, -1);
  end_post(&other, -1);
  end_post(&server, -1);
}

static void reuse_address_is_refused_with_the_reason(void **state) {
  aloop_datagram_options_t options = {.local_host = "127.0.0.1", .reuse_address = true};
  fails_with(*state, options, ALOOP_EINVAL, "take this one's datagrams; reuse_port is safe");
}

static void options_that_contradict_are_refused(void **state) {
  env_t *env = *state;
  struct sockaddr *address = on_loopback(80);
  socklen_t size = LOOPBACK_SIZE;
#define REFUSED(words, ...) fails_with(env, (aloop_datagram_options_t){__VA_ARGS__}, ALOOP_EINVAL, words)
  REFUSED("set either options.local", .local = address, .local_size = size, .local_port = 5);
  REFUSED("set either options.remote", .remote = address, .remote_size = size, .remote_host = "a");
  REFUSED("local_size", .local = address);
  REFUSED("remote_size", .remote = address, .remote_size = 4096);
  REFUSED("local_port is not in", .local_port = 65536);
  REFUSED("needs a host", .remote_port = 5);
  REFUSED("remote_port is not in", .remote_host = "127.0.0.1");
  REFUSED("a host is empty", .local_host = "");
  REFUSED("options.family", .local = address, .local_size = size, .family = AF_INET6);
  REFUSED("unset options.fd", .fd = 5, .local_host = "127.0.0.1");
  REFUSED("unset reuse_port", .fd = 5, .reuse_port = true);
#undef REFUSED
}

static void sides_of_different_families_do_not_meet(void **state) {
  aloop_datagram_options_t options = {.local_host = "::1", .remote_host = "127.0.0.1", .remote_port = 9};
  fails_with(*state, options, ALOOP_EADDRNOTAVAIL, "one family");
}

/* ---- Descriptors ----------------------------------------------------------------------------------------- */

static void a_descriptor_is_taken_over(void **state) {
  post_t server = {.env = *state};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(bind(fd, on_loopback(0), LOOPBACK_SIZE), 0);
  open_post(&server, &single_protocol, (aloop_datagram_options_t){.fd = fd});
  assert_int_equal(aloop_datagram_fd(server.endpoint), fd);
  assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  end_post(&server, -1);
  assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_connected_descriptor_has_a_peer(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  int port = open_udp(&server, &single_protocol);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(connect(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  open_post(&client, &single_protocol, (aloop_datagram_options_t){.fd = fd});
  post_text(&client, "hello");
  await_datagrams(&server, 1);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void a_descriptor_that_does_not_fit_stays_the_callers(void **state) {
  env_t *env = *state;
  int fds[2], pipes[2];
  make_socketpair(fds);
  make_pipe(pipes);
  fails_with(env, (aloop_datagram_options_t){.fd = fds[0]}, ALOOP_EINVAL, "not a datagram socket");
  fails_with(env, (aloop_datagram_options_t){.fd = pipes[0]}, ALOOP_ENOTSOCK, "not a socket");
  fails_with(env, (aloop_datagram_options_t){.fd = 9999}, ALOOP_EBADF, "not open");
  for (int i = 0; i < 2; i++) {
    assert_int_equal(close(fds[i]), 0);
    assert_int_equal(close(pipes[i]), 0);
  }
}

static void a_descriptor_in_use_is_refused(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  fails_with(*state, (aloop_datagram_options_t){.fd = aloop_datagram_fd(post.endpoint)}, ALOOP_EBUSY, "in use");
  end_post(&post, peer);
}

static void a_descriptor_comes_back_as_it_was(void **state) {
  env_t *env = *state;
  for (int cancelled = 0; cancelled < 2; cancelled++) {
    post_t post = {.env = env, .refuse = !cancelled};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    int status = fcntl(fd, F_GETFL), flags = fcntl(fd, F_GETFD);
    aloop_future_t *future = open_with(&post, (aloop_datagram_options_t){.fd = fd});
    if (cancelled) aloop_future_cancel(future);
    assert_int_equal(run_future(env->loop, future), cancelled ? ALOOP_ECANCELED : ALOOP_ENOMEM);
    settle(env->loop);
    assert_int_equal(fcntl(fd, F_GETFL), status);
    assert_int_equal(fcntl(fd, F_GETFD), flags);
    assert_int_equal(post.events_count, 0);
    aloop_future_unref(future);
    close(fd);
  }
}

/* ---- Unix sockets ---------------------------------------------------------------------------------------- */

static void unix_sockets_have_paths(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  char folder[] = "/tmp/aloop-endpoint-XXXXXX";
  assert_non_null(mkdtemp(folder));
  snprintf(name.sun_path, sizeof name.sun_path, "%s/s", folder);
  aloop_datagram_options_t options = {
      .local = (struct sockaddr *)(void *)&name, .local_size = sizeof name, .cleanup = -1};
  open_post(&server, &single_protocol, options);
  fails_with(*state, options, ALOOP_EADDRINUSE, folder);
  options = (aloop_datagram_options_t){.remote = (struct sockaddr *)(void *)&name, .remote_size = sizeof name};
  open_post(&client, &single_protocol, options);
  post_text(&client, "hello");
  await_datagrams(&server, 1);
  assert_int_equal(server.from_size, 0); /* the client has no name */
  end_post(&client, -1);
  end_post(&server, -1);
  fails_with(*state, options, ALOOP_ECONNREFUSED, "connect to ");
  unlink(name.sun_path);
  rmdir(folder);
}

/* ---- Names ----------------------------------------------------------------------------------------------- */

/* A resolver that knows one answer to everything: a broadcast address, to which no socket may connect that has
 * not asked for it, and 127.0.0.1. It is given when the test says so, or at once. */
static struct {
  aloop_future_t *pending; /* NULL: answers at once */
  bool later;
  int error;
  struct sockaddr_in addresses[2];
  struct addrinfo list[2];
} known;

static void answer(aloop_future_t *future) {
  if (known.error < 0)
    aloop_future_set_error(future, known.error, NULL);
  else
    aloop_future_set_result(future, 0, known.list, NULL);
}

static aloop_future_t *look_up(aloop_t *loop, const char *host, const char *service,
                               const struct addrinfo *hints, void *arg) {
  (void)host;
  (void)arg;
  assert_int_equal(hints->ai_socktype, SOCK_DGRAM);
  for (int i = 0; i < 2; i++) {
    memcpy(&known.addresses[i], on_loopback(atoi(service)), LOOPBACK_SIZE);
    if (i == 0) known.addresses[i].sin_addr.s_addr = htonl(INADDR_BROADCAST);
    known.list[i] = (struct addrinfo){.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM};
    known.list[i].ai_addr = (struct sockaddr *)(void *)&known.addresses[i];
    known.list[i].ai_addrlen = LOOPBACK_SIZE;
    known.list[i].ai_next = i == 0 ? &known.list[1] : NULL;
  }
  aloop_future_t *future = aloop_future_new(loop);
  if (known.later)
    known.pending = aloop_future_ref(future);
  else
    answer(future);
  return future;
}

static const aloop_resolver_t resolver = {.size = sizeof resolver, .getaddrinfo = look_up};

static void use_resolver(env_t *env, bool later, int error) {
  memset(&known, 0, sizeof known);
  known.later = later;
  known.error = error;
  assert_int_equal(aloop_set_resolver(env->loop, &resolver, NULL), 0);
}

static void an_address_that_fails_is_followed_by_the_next(void **state) {
  env_t *env = *state;
  for (int later = 0; later < 2; later++) {
    post_t server = {.env = env}, client = {.env = env};
    aloop_attempt_t attempt;
    use_resolver(env, later, 0);
    int port = open_udp(&server, &single_protocol);
    aloop_future_t *future =
        open_with(&client, (aloop_datagram_options_t){.remote_host = "name", .remote_port = port});
    settle(env->loop);
    assert_int_equal(aloop_future_done(future), !later);
    if (later) answer(known.pending);
    assert_int_equal(run_future(env->loop, future), 0);
    assert_int_equal(aloop_future_attempt(future, 0, &attempt), 0);
    assert_int_equal(attempt.error, ALOOP_EACCES);
    assert_int_equal(aloop_future_attempt(future, 1, &attempt), ALOOP_ENOENT);
    post_text(&client, "hello");
    await_datagrams(&server, 1);
    aloop_future_unref(future);
    aloop_future_unref(known.pending);
    end_post(&client, -1);
    end_post(&server, -1);
  }
}

static void a_name_that_is_not_known_fails(void **state) {
  env_t *env = *state;
  use_resolver(env, false, ALOOP_EAI_NONAME);
  fails_with(env, (aloop_datagram_options_t){.remote_host = "name", .remote_port = 5}, ALOOP_EAI_NONAME,
             "look up name: host or service not known");
  fails_with(env, (aloop_datagram_options_t){.local_host = "name"}, ALOOP_EAI_NONAME, "look up name");
}

static void cancelling_stops_the_lookup(void **state) {
  env_t *env = *state;
  post_t post = {.env = env};
  use_resolver(env, true, 0);
  aloop_future_t *future = open_with(&post, (aloop_datagram_options_t){.local_host = "name"});
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_true(aloop_future_cancelled(known.pending));
  settle(env->loop);
  assert_int_equal(post.events_count, 0);
  aloop_future_unref(known.pending);
  aloop_future_unref(future);
}

static void cancelling_leaves_nothing(void **state) {
  env_t *env = *state;
  post_t post = {.env = env};
  aloop_future_t *future = open_with(&post, (aloop_datagram_options_t){.local_host = "127.0.0.1"});
  assert_int_equal(aloop_future_cancel(future), 1);
  settle(env->loop);
  assert_int_equal(post.events_count, 0);
  aloop_future_unref(future);
}

static void a_closed_loop_opens_nothing(void **state) {
  env_t *env = *state;
  post_t post = {.env = env};
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "127.0.0.1"};
  aloop_future_t *early = open_with(&post, options);
  aloop_close(env->loop);
  assert_int_equal(aloop_future_result(early), ALOOP_ECANCELED);
  aloop_future_t *late = open_with(&post, options);
  assert_int_equal(aloop_future_result(late), ALOOP_ECLOSED);
  assert_int_equal(post.events_count, 0);
  aloop_future_unref(early);
  aloop_future_unref(late);
}

TESTS(T(both_sides_may_be_given), T(addresses_do_as_well_as_hosts), T(a_family_alone_gives_an_unbound_socket),
      T(bind_any_means_every_interface), T(a_port_alone_means_every_interface),
      T(ports_are_shared_with_reuse_port), T(broadcast_is_answered_by_anybody),
      T(reuse_address_is_refused_with_the_reason), T(options_that_contradict_are_refused),
      T(sides_of_different_families_do_not_meet), T(a_descriptor_is_taken_over),
      T(a_connected_descriptor_has_a_peer), T(a_descriptor_that_does_not_fit_stays_the_callers),
      T(a_descriptor_in_use_is_refused), T(a_descriptor_comes_back_as_it_was), T(unix_sockets_have_paths),
      T(an_address_that_fails_is_followed_by_the_next), T(a_name_that_is_not_known_fails),
      T(cancelling_stops_the_lookup), T(cancelling_leaves_nothing), T(a_closed_loop_opens_nothing))
