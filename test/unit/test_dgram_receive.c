/* SPDX-License-Identifier: MIT
 *
 * Receiving datagrams: one by one and in batches, empty ones, those that are too long, and the errors that come
 * instead of one. pollers: all
 */
#include "dgrams.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peers.h"
#include "streams.h"

static void each_comes_with_its_sender(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  int port = open_udp(&server, &single_protocol);
  int other = open_udp(&client, &single_protocol);
  post_text_to(&client, "hello", port);
  await_datagrams(&server, 1);
  assert_string_equal(server.text, "hello\n");
  assert_int_equal(server.from_size, LOOPBACK_SIZE);
  assert_memory_equal(&server.from, on_loopback(other), 8);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void empty_ones_come(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  connect_udp(&client, &single_protocol, open_udp(&server, &single_protocol));
  post_text(&client, "");
  post_text(&client, "x");
  post_text(&client, "");
  await_datagrams(&server, 3);
  assert_string_equal(server.text, "\nx\n\n");
  end_post(&client, -1);
  end_post(&server, -1);
}

static void the_largest_of_udp_comes_whole(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  enum { LARGEST = 65507 };
  char *bytes = calloc(1, LARGEST);
  connect_udp(&client, &single_protocol, open_udp(&server, &single_protocol));
  assert_int_equal(aloop_datagram_sendto(client.endpoint, bytes, LARGEST, NULL, 0), 0);
  await_datagrams(&server, 1);
  assert_int_equal(server.largest, LARGEST);
  free(bytes);
  end_post(&client, -1);
  end_post(&server, -1);
}

/* The order is that of one sender, whatever the batches. */
static void send_numbers(int fd, int count) {
  for (int i = 0; i < count; i++) {
    unsigned char number = (unsigned char)('0' + i % 10);
    assert_int_equal(send(fd, &number, 1, 0), 1);
  }
}

static void many_come_in_order(const aloop_datagram_protocol_t *table, env_t *env) {
  post_t post = {.env = env};
  int peer = open_pair(&post, table);
  for (size_t round = 1; round <= 20; round++) {
    send_numbers(peer, 10);
    await_datagrams(&post, round * 10);
  }
  for (size_t i = 0; i < 200; i++) assert_int_equal(post.text[2 * i], '0' + i % 10);
  end_post(&post, peer);
}

static void one_by_one_they_keep_their_order(void **state) {
  many_come_in_order(&single_protocol, *state);
}

static void in_batches_they_keep_their_order(void **state) {
  many_come_in_order(&batch_protocol, *state);
}

static void a_busy_socket_is_read_in_batches(void **state) {
  post_t server = {.env = *state};
  int port = open_udp(&server, &batch_protocol);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(connect(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  send_numbers(fd, 100);
  await_datagrams(&server, 100);
  assert_true(server.batches <= 10); /* 1, 2, 4, 8, 16, 32, 32, 5 */
  end_post(&server, fd);
}

/* So often that the server asks for one at a time. */
static void send_alone(post_t *server, int fd) {
  for (size_t i = 0; i < 10; i++) {
    send_numbers(fd, 1);
    await_datagrams(server, i + 1);
  }
}

static void a_quiet_socket_that_becomes_busy_is_read_in_batches(void **state) {
  post_t server = {.env = *state};
  int port = open_udp(&server, &batch_protocol);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(connect(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  send_alone(&server, fd);
  size_t before = server.batches;
  send_numbers(fd, 150);
  await_datagrams(&server, 160);
  assert_true(server.batches - before <= 40); /* at most 32 alone; 2, 4, 8, 16, 32, 32, 32 */
  end_post(&server, fd);
}

static void alone_they_come_whole_and_with_their_sender(void **state) {
  enum { LARGEST = 65507 };
  post_t server = {.env = *state}, client = {.env = *state};
  int port = open_udp(&server, &single_protocol);
  int other = open_udp(&client, &single_protocol);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(connect(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  send_alone(&server, fd);
  post_text_to(&client, "", port);
  await_datagrams(&server, 11);
  assert_int_equal(server.from_size, LOOPBACK_SIZE);
  assert_memory_equal(&server.from, on_loopback(other), 8);
  char *bytes = calloc(1, LARGEST);
  assert_int_equal(aloop_datagram_sendto(client.endpoint, bytes, LARGEST, on_loopback(port), LOOPBACK_SIZE), 0);
  await_datagrams(&server, 12);
  assert_int_equal(server.largest, LARGEST);
  free(bytes);
  end_post(&client, -1);
  end_post(&server, fd);
}

static void one_socket_leaves_turns_to_others(void **state) {
  env_t *env = *state;
  post_t server = {.env = env};
  int port = open_udp(&server, &single_protocol);
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(connect(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  send_numbers(fd, 200);
  await_datagrams(&server, 200);
  send_numbers(fd, 200);
  size_t before = server.datagrams;
  while (server.datagrams == before) run_turn(env->loop);
  assert_true(server.datagrams - before <= 128);
  await_datagrams(&server, 400);
  end_post(&server, fd);
}

static void what_fits_no_buffer_is_an_error(void **state) {
  post_t post = {.env = *state};
  enum { HUGE_SIZE = 400000 };
  int peer = open_pair(&post, &single_protocol);
  int room = 2 * HUGE_SIZE;
  char *bytes = calloc(1, HUGE_SIZE);
  assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
  /* Where the system does not let a datagram be so large there is nothing to see. */
  if (send(peer, bytes, HUGE_SIZE, 0) == HUGE_SIZE) {
    await_errors(&post, 1);
    assert_int_equal(post.errors[0], ALOOP_EMSGSIZE);
    assert_int_equal(post.datagrams, 0);
  }
  assert_int_equal(send(peer, bytes, 100000, 0), 100000);
  await_datagrams(&post, 1);
  assert_int_equal(post.largest, 100000);
  free(bytes);
  end_post(&post, peer);
}

static void a_refusal_is_an_error_and_no_end(void **state) {
  post_t client = {.env = *state};
  int port;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in name;
  socklen_t size = sizeof name;
  assert_int_equal(bind(fd, on_loopback(0), LOOPBACK_SIZE), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)(void *)&name, &size), 0);
  port = ntohs(name.sin_port);
  connect_udp(&client, &single_protocol, port);
  int own = port_of(client.endpoint);
  close(fd);
  post_text(&client, "is anybody there?");
  await_errors(&client, 1);
  assert_int_equal(client.errors[0], ALOOP_ECONNREFUSED);
  fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(bind(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  assert_int_equal(sendto(fd, "now", 3, 0, on_loopback(own), LOOPBACK_SIZE), 3);
  await_datagrams(&client, 1);
  assert_string_equal(client.text, "now\n");
  end_post(&client, fd);
}

/* A protocol that hears nothing still empties the socket. */
static void datagrams_nobody_wants_are_dropped(void **state) {
  env_t *env = *state;
  static const aloop_datagram_protocol_t deaf = {.size = sizeof deaf};
  post_t post = {.env = env};
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(aloop_datagram_set_protocol(post.endpoint, &deaf, NULL), 0);
  send_numbers(peer, 5);
  settle(env->loop);
  send_numbers(peer, 5);
  settle(env->loop);
  assert_int_equal(aloop_datagram_set_protocol(post.endpoint, &single_protocol, &post), 0);
  settle(env->loop);
  assert_int_equal(post.datagrams, 0);
  end_post(&post, peer);
}

static pid_t child_of_delivery;

/* The child returns from the first datagram. */
static void answer_and_fork(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                            socklen_t address_size) {
  int status = -1;
  assert_int_equal(aloop_datagram_sendto(post->endpoint, data, size, address, address_size), 0);
  if (post->datagrams > 1) return;
  child_of_delivery = fork();
  if (child_of_delivery == 0) {
    alarm(20);
    return;
  }
  assert_int_equal(waitpid(child_of_delivery, &status, 0), child_of_delivery);
  assert_int_equal(status, 0);
}

static void a_child_leaves_the_rest_to_its_parent(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip(); /* libkqueue's child may only exec */
  post_t post = {.env = env, .on_data = answer_and_fork};
  int peer = open_pair(&post, &single_protocol);
  child_of_delivery = -1;
  for (int i = 0; i < 3; i++) assert_int_equal(send(peer, &"abc"[i], 1, 0), 1);
  while (post.datagrams < 3) {
    int rc = aloop_run_once(env->loop, ALOOP_SECONDS(1));
    if (child_of_delivery == 0) _exit(rc == ALOOP_ECHILD && post.datagrams == 1 ? 0 : 1);
    assert_true(rc >= 0);
  }
  assert_string_equal(lines_at(peer), "a\nb\nc\n");
  end_post(&post, peer);
}

TESTS(T(a_child_leaves_the_rest_to_its_parent), T(each_comes_with_its_sender), T(empty_ones_come),
      T(the_largest_of_udp_comes_whole), T(one_by_one_they_keep_their_order),
      T(in_batches_they_keep_their_order), T(a_busy_socket_is_read_in_batches),
      T(a_quiet_socket_that_becomes_busy_is_read_in_batches), T(alone_they_come_whole_and_with_their_sender),
      T(one_socket_leaves_turns_to_others), T(what_fits_no_buffer_is_an_error),
      T(a_refusal_is_an_error_and_no_end), T(datagrams_nobody_wants_are_dropped))
