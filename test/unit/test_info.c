/* SPDX-License-Identifier: MIT
 *
 * What a transport tells of its socket, while it lives and after. pollers: all
 */
#include "streams.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef union address {
  struct sockaddr any;
  struct sockaddr_in inet;
  struct sockaddr_storage storage;
} address_t;

static void assert_same(const address_t *one, const address_t *other) {
  assert_int_equal(one->inet.sin_family, AF_INET);
  assert_int_equal(one->inet.sin_port, other->inet.sin_port);
  assert_int_equal(one->inet.sin_addr.s_addr, other->inet.sin_addr.s_addr);
}

static void addresses_are_those_of_the_socket(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  address_t ours = {0};
  address_t theirs = {0};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  socklen_t size = sizeof ours;
  assert_int_equal(aloop_transport_sockname(tape.transport, &ours.any, &size), 0);
  assert_int_equal(size, sizeof ours.inet);
  size = sizeof theirs;
  assert_int_equal(getpeername(peer, &theirs.any, &size), 0);
  assert_same(&ours, &theirs);
  size = sizeof ours;
  assert_int_equal(aloop_transport_peername(tape.transport, &ours.any, &size), 0);
  assert_int_equal(size, sizeof ours.inet);
  size = sizeof theirs;
  assert_int_equal(getsockname(peer, &theirs.any, &size), 0);
  assert_same(&ours, &theirs);
  end_tape(&tape, peer);
}

static void the_descriptor_is_lent(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  make_socketpair(fds);
  attach_tape(&tape, &plain_protocol, fds[0]);
  assert_int_equal(aloop_transport_fd(tape.transport), fds[0]);
  settle(env->loop);
  assert_int_equal(aloop_transport_fd(tape.transport), fds[0]);
  end_tape(&tape, fds[1]);
}

static void a_short_room_gets_the_beginning_and_the_length(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  unsigned char room[32];
  address_t whole = {0};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  socklen_t size = sizeof whole;
  assert_int_equal(aloop_transport_peername(tape.transport, &whole.any, &size), 0);
  for (socklen_t given = 0; given < 8; given++) {
    memset(room, 0xa5, sizeof room);
    size = given;
    assert_int_equal(aloop_transport_peername(tape.transport, (struct sockaddr *)(void *)room, &size), 0);
    assert_int_equal(size, sizeof whole.inet);
    assert_memory_equal(room, &whole, given);
    assert_int_equal(room[given], 0xa5);
  }
  end_tape(&tape, peer);
}

static void a_peer_that_was_asked_for_is_remembered(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  address_t before = {0};
  address_t after = {0};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  socklen_t size = sizeof before;
  assert_int_equal(aloop_transport_peername(tape.transport, &before.any, &size), 0);
  aloop_transport_t *transport = aloop_transport_ref(tape.transport);
  end_tape(&tape, peer);
  for (int closed = 0; closed < 2; closed++) {
    size = sizeof after;
    assert_int_equal(aloop_transport_peername(transport, &after.any, &size), 0);
    assert_same(&before, &after);
    size = sizeof after;
    assert_int_equal(aloop_transport_sockname(transport, &after.any, &size), ALOOP_ECLOSED);
    assert_int_equal(aloop_transport_fd(transport), ALOOP_ECLOSED);
    aloop_close(env->loop);
  }
  aloop_transport_unref(transport);
}

static void a_peer_that_nobody_asked_for_is_forgotten(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  address_t address;
  socklen_t size = sizeof address;
  int peer = open_tcp_tape(&tape, &plain_protocol);
  aloop_transport_t *transport = aloop_transport_ref(tape.transport);
  end_tape(&tape, peer);
  assert_int_equal(aloop_transport_peername(transport, &address.any, &size), ALOOP_ECLOSED);
  aloop_transport_unref(transport);
}

static void ask_for_peer(tape_t *tape) {
  address_t address = {0};
  socklen_t size = sizeof address;
  assert_int_equal(aloop_transport_peername(tape->transport, &address.any, &size), 0);
  assert_int_equal(address.inet.sin_family, AF_INET);
}

static void connection_lost_may_ask_for_the_peer(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[LOST] = ask_for_peer};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  end_tape(&tape, peer);
}

static void unix_sockets_have_addresses_too(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  address_t address = {0};
  int peer = open_tape(&tape, &plain_protocol);
  socklen_t size = sizeof address;
  assert_int_equal(aloop_transport_peername(tape.transport, &address.any, &size), 0);
  assert_int_equal(address.any.sa_family, AF_UNIX);
  size = sizeof address;
  assert_int_equal(aloop_transport_sockname(tape.transport, &address.any, &size), 0);
  assert_int_equal(address.any.sa_family, AF_UNIX);
  end_tape(&tape, peer);
}

static void missing_arguments_are_refused(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  address_t address;
  socklen_t size = sizeof address;
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_peername(NULL, &address.any, &size), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_peername(tape.transport, NULL, &size), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_peername(tape.transport, &address.any, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_sockname(NULL, &address.any, &size), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_sockname(tape.transport, NULL, &size), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_sockname(tape.transport, &address.any, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_fd(NULL), ALOOP_EINVAL);
  assert_null(aloop_transport_server(NULL));
  assert_null(aloop_transport_server(tape.transport));
  assert_null(aloop_transport_loop(NULL));
  end_tape(&tape, peer);
}

static void out_of_memory_is_an_answer(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  address_t address;
  socklen_t size = sizeof address;
  int peer = open_tcp_tape(&tape, &plain_protocol);
  env->fail_from = env->calls + 1;
  assert_int_equal(aloop_transport_peername(tape.transport, &address.any, &size), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_int_equal(aloop_transport_peername(tape.transport, &address.any, &size), 0);
  end_tape(&tape, peer);
}

TESTS(T(addresses_are_those_of_the_socket), T(the_descriptor_is_lent),
      T(a_short_room_gets_the_beginning_and_the_length), T(a_peer_that_was_asked_for_is_remembered),
      T(a_peer_that_nobody_asked_for_is_forgotten), T(connection_lost_may_ask_for_the_peer),
      T(unix_sockets_have_addresses_too), T(missing_arguments_are_refused), T(out_of_memory_is_an_answer))
