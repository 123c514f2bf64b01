/* SPDX-License-Identifier: MIT
 *
 * What travels beside the bytes of datagrams: local addresses and ECN, both ways. pollers: all
 */
#include "dgrams.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "streams.h"

/* Of the last message, as the server saw it. */
static struct {
  struct sockaddr_storage local;
  socklen_t local_size;
  int ecn;
} seen;

static void answer(post_t *post, const aloop_message_t *messages, size_t count) {
  seen.local_size = messages[count - 1].local != NULL ? messages[count - 1].local_size : 0;
  if (seen.local_size > 0) memcpy(&seen.local, messages[count - 1].local, seen.local_size);
  seen.ecn = messages[count - 1].ecn;
  assert_int_equal(aloop_datagram_send_many(post->endpoint, messages, count), count);
}

/* A server on every interface, and a client connected to one address of it. */
static void open_both(post_t *server, post_t *client, int family, const char *host, bool wanted) {
  memset(&seen, 0, sizeof seen);
  server->on_batch = answer;
  open_post(
      server, &batch_protocol,
      (aloop_datagram_options_t){.bind_any = true, .family = family, .want_local = wanted, .want_ecn = wanted});
  open_post(client, &batch_protocol,
            (aloop_datagram_options_t){
                .remote_host = host, .remote_port = port_of(server->endpoint), .want_ecn = wanted});
}

static void ask_with_ecn(post_t *client, int ecn, int count) {
  aloop_message_t messages[10];
  for (int i = 0; i < count; i++) messages[i] = (aloop_message_t){.data = "hello", .size = 5, .ecn = ecn};
  assert_int_equal(aloop_datagram_send_many(client->endpoint, messages, (size_t)count), count);
}

/* Where the system tells all of it, and has all of 127/8. */
#ifdef __linux__
enum { TELLS = 1 };
#else
enum { TELLS = 0 };
#endif

static void answers_leave_from_where_the_question_came(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  if (!TELLS) return;
  open_both(&server, &client, AF_INET, "127.0.0.2", true);
  struct sockaddr_in *local = (struct sockaddr_in *)(void *)&seen.local;
  ask_with_ecn(&client, 2, 10);
  await_datagrams(&client, 10); /* from another address they would not have come */
  assert_int_equal(seen.local_size, sizeof *local);
  assert_int_equal(local->sin_family, AF_INET);
  assert_int_equal(local->sin_addr.s_addr, inet_addr("127.0.0.2"));
  assert_int_equal(ntohs(local->sin_port), port_of(server.endpoint));
  assert_int_equal(seen.ecn, 2);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void ipv6_does_as_well(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  struct sockaddr_in6 *local = (struct sockaddr_in6 *)(void *)&seen.local;
  struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  int fd = socket(AF_INET6, SOCK_DGRAM, 0);
  bool has = fd >= 0 && bind(fd, (struct sockaddr *)(void *)&loopback, sizeof loopback) == 0;
  close(fd);
  if (!has || !TELLS) return;
  open_both(&server, &client, AF_INET6, "::1", true);
  ask_with_ecn(&client, 1, 3);
  await_datagrams(&client, 3);
  assert_int_equal(seen.local_size, sizeof *local);
  assert_memory_equal(&local->sin6_addr, &loopback.sin6_addr, 16);
  assert_int_equal(seen.ecn, 1);
  end_post(&client, -1);
  end_post(&server, -1);
}
static void who_does_not_ask_is_not_told(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  open_both(&server, &client, AF_INET, "127.0.0.1", false);
  ask_with_ecn(&client, 3, 1);
  await_datagrams(&client, 1);
  assert_int_equal(seen.local_size, 0);
  assert_int_equal(seen.ecn, 0);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void a_local_address_must_be_one(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  open_both(&server, &client, AF_INET, "127.0.0.1", true);
  aloop_message_t message = {.data = "x", .size = 1, .local = on_loopback(0), .local_size = 3};
  assert_int_equal(aloop_datagram_send_many(client.endpoint, &message, 1), ALOOP_EINVAL);
  end_post(&client, -1);
  end_post(&server, -1);
}

TESTS(T(answers_leave_from_where_the_question_came), T(ipv6_does_as_well), T(who_does_not_ask_is_not_told),
      T(a_local_address_must_be_one))
