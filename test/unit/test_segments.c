/* SPDX-License-Identifier: MIT
 *
 * Several datagrams as one message, both ways: what the kernel puts together (UDP_GRO) and cuts (UDP_SEGMENT),
 * and that all but the messages' number is the same with a kernel that knows neither.
 *
 * pollers: all
 * wraps: setsockopt
 */
#include "dgrams.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "streams.h"

enum { PIECE = 1000, PIECES = 40, SIZE = PIECES * PIECE - 300 };

/* A kernel from before both. */
static bool is_old;

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
  if (!is_old || level != IPPROTO_UDP) return __real_setsockopt(fd, level, name, value, size);
  errno = ENOPROTOOPT;
  return -1;
}

static bool knows(int option) {
  int on = 1, fd = socket(AF_INET, SOCK_DGRAM, 0);
  bool known = setsockopt(fd, IPPROTO_UDP, option, &on, sizeof on) == 0;
  close(fd);
  return known;
}

static bool kernel_gathers(void) {
#if defined(UDP_GRO) && defined(UDP_SEGMENT)
  return knows(UDP_GRO) && knows(UDP_SEGMENT);
#else
  (void)knows;
  return false;
#endif
}

typedef struct couple {
  post_t server, client;
  char *bytes; /* SIZE, each piece different */
  size_t size; /* that came */
  size_t messages, cut;
  bool wrong;
} couple_t;

/* Bytes in their order; each message is one datagram or tells its segments. */
static void take(post_t *post, const aloop_message_t *messages, size_t count) {
  couple_t *couple = post->arg;
  for (size_t i = 0; i < count; i++) {
    const aloop_message_t *message = &messages[i];
    bool fits = message->size <= SIZE - couple->size &&
                memcmp(message->data, couple->bytes + couple->size, message->size) == 0;
    bool known =
        message->segment == 0 ? message->size <= PIECE : message->segment == PIECE && message->size > PIECE;
    if (!fits || !known) couple->wrong = true;
    couple->size += fits ? message->size : 0;
    couple->cut += message->segment > 0;
    couple->messages++;
  }
}

static void take_one(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                     socklen_t address_size) {
  aloop_message_t message = {.data = data, .size = size, .address = address, .address_size = address_size};
  if (size != PIECE && ((couple_t *)post->arg)->size + size != SIZE) ((couple_t *)post->arg)->wrong = true;
  take(post, &message, 1);
}

static void open_couple(couple_t *couple, env_t *env, const aloop_datagram_protocol_t *table, bool wanted) {
  couple->server = (post_t){.env = env, .on_batch = take, .on_data = take_one, .arg = couple};
  couple->client = (post_t){.env = env, .arg = couple};
  couple->bytes = malloc(SIZE);
  pattern(couple->bytes, SIZE, 7);
  open_post(&couple->server, table,
            (aloop_datagram_options_t){.local_host = "127.0.0.1", .want_segments = wanted});
  connect_udp(&couple->client, &single_protocol, port_of(couple->server.endpoint));
}

static void close_couple(couple_t *couple) {
  end_post(&couple->client, -1);
  end_post(&couple->server, -1);
  free(couple->bytes);
}

static void run_couple(couple_t *couple) {
  aloop_message_t message = {.data = couple->bytes, .size = SIZE, .segment = PIECE};
  assert_int_equal(aloop_datagram_send_many(couple->client.endpoint, &message, 1), 1);
  for (int i = 0; i < 1000000 && couple->size < SIZE && !couple->wrong; i++)
    aloop_run_once(couple->server.env->loop, 0);
  assert_false(couple->wrong);
  assert_int_equal(couple->size, SIZE);
  assert_int_equal(couple->client.errors_count + couple->server.errors_count, 0);
}

static void what_was_sent_together_may_come_together(void **state) {
  couple_t couple = {.size = 0};
  open_couple(&couple, *state, &batch_protocol, true);
  run_couple(&couple);
  assert_int_equal(couple.cut > 0, kernel_gathers());
  assert_true(couple.messages <= PIECES);
  close_couple(&couple);
}

static void who_does_not_ask_gets_each_by_itself(void **state) {
  couple_t couple = {.size = 0};
  open_couple(&couple, *state, &batch_protocol, false);
  run_couple(&couple);
  assert_int_equal(couple.cut, 0);
  assert_int_equal(couple.messages, PIECES);
  close_couple(&couple);
}

static void who_takes_one_at_a_time_gets_each_by_itself(void **state) {
  couple_t couple = {.size = 0};
  open_couple(&couple, *state, &single_protocol, true);
  run_couple(&couple);
  assert_int_equal(couple.messages, PIECES);
  close_couple(&couple);
}

static void a_kernel_that_knows_neither_makes_no_difference(void **state) {
  static const aloop_datagram_protocol_t *const tables[] = {&single_protocol, &batch_protocol};
  is_old = true;
  for (size_t i = 0; i < 2; i++) {
    couple_t couple = {.size = 0};
    open_couple(&couple, *state, tables[i], true);
    run_couple(&couple);
    assert_int_equal(couple.cut, 0);
    assert_int_equal(couple.messages, PIECES);
    close_couple(&couple);
  }
  is_old = false;
}

static void a_message_that_came_together_can_be_sent_on(void **state) {
  couple_t couple = {.size = 0};
  post_t relay = {.env = *state};
  open_couple(&couple, *state, &batch_protocol, true);
  open_post(
      &relay, &batch_protocol,
      (aloop_datagram_options_t){.remote_host = "127.0.0.1", .remote_port = port_of(couple.server.endpoint)});
  aloop_message_t message = {.data = couple.bytes, .size = 3 * PIECE, .segment = PIECE};
  assert_int_equal(aloop_datagram_send_many(relay.endpoint, &message, 1), 1);
  message.data = couple.bytes + message.size;
  message.size = SIZE - message.size;
  assert_int_equal(aloop_datagram_send_many(relay.endpoint, &message, 1), 1);
  for (int i = 0; i < 1000000 && couple.size < SIZE && !couple.wrong; i++) aloop_run_once(relay.env->loop, 0);
  assert_false(couple.wrong);
  assert_int_equal(couple.size, SIZE);
  end_post(&relay, -1);
  close_couple(&couple);
}

static void echo(post_t *post, const aloop_message_t *messages, size_t count) {
  assert_int_equal(aloop_datagram_send_many(post->endpoint, messages, count), count);
}

static void an_echo_keeps_the_segments(void **state) {
  post_t server = {.env = *state, .on_batch = echo}, client = {.env = *state};
  open_post(&server, &batch_protocol,
            (aloop_datagram_options_t){.local_host = "127.0.0.1", .want_segments = true});
  connect_udp(&client, &single_protocol, port_of(server.endpoint));
  aloop_message_t message = {.data = "one.two.tri.", .size = 12, .segment = 4};
  assert_int_equal(aloop_datagram_send_many(client.endpoint, &message, 1), 1);
  await_datagrams(&client, 3);
  assert_string_equal(client.text, "one.\ntwo.\ntri.\n");
  end_post(&client, -1);
  end_post(&server, -1);
}

/* ---- Changes in the middle of a message ------------------------------------------------------------------ */

static void end_it(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                   socklen_t address_size) {
  (void)data, (void)size, (void)address, (void)address_size;
  aloop_datagram_abort(post->endpoint);
}

static void the_end_in_the_middle_is_the_end(void **state) {
  post_t server = {.env = *state, .on_data = end_it}, client = {.env = *state};
  open_post(&server, &single_protocol,
            (aloop_datagram_options_t){.local_host = "127.0.0.1", .want_segments = true});
  connect_udp(&client, &single_protocol, port_of(server.endpoint));
  aloop_message_t message = {.data = "abcd", .size = 4, .segment = 1};
  assert_int_equal(aloop_datagram_send_many(client.endpoint, &message, 1), 1);
  run_until(server.env->loop, &server.lost);
  assert_string_equal(server.events, "MDL");
  end_post(&server, -1);
  end_post(&client, -1);
}

static void change(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                   socklen_t address_size) {
  (void)data, (void)size, (void)address, (void)address_size;
  assert_int_equal(aloop_datagram_set_protocol(post->endpoint, &batch_protocol, post), 0);
}

static void a_new_protocol_gets_the_rest_of_a_message(void **state) {
  post_t server = {.env = *state, .on_data = change}, client = {.env = *state};
  open_post(&server, &single_protocol,
            (aloop_datagram_options_t){.local_host = "127.0.0.1", .want_segments = true});
  connect_udp(&client, &single_protocol, port_of(server.endpoint));
  aloop_message_t message = {.data = "abcd", .size = 4, .segment = 1};
  assert_int_equal(aloop_datagram_send_many(client.endpoint, &message, 1), 1);
  await_datagrams(&server, 4);
  assert_string_equal(server.text, "a\nb\nc\nd\n");
  assert_int_equal(server.events[1], 'D');
  assert_int_equal(server.events[2], 'B');
  end_post(&server, -1);
  end_post(&client, -1);
}

/* Where there is nothing of the kind, asking for it does no harm. */
static void unix_sockets_gather_nothing(void **state) {
  post_t post = {.env = *state};
  int fds[2];
  assert_int_equal(aloop_socketpair(SOCK_DGRAM, fds), 0);
  open_post(&post, &single_protocol, (aloop_datagram_options_t){.fd = fds[0], .want_segments = true});
  assert_int_equal(send(fds[1], "abc", 3, 0), 3);
  await_datagrams(&post, 1);
  end_post(&post, fds[1]);
}

TESTS(T(what_was_sent_together_may_come_together), T(who_does_not_ask_gets_each_by_itself),
      T(who_takes_one_at_a_time_gets_each_by_itself), T(a_kernel_that_knows_neither_makes_no_difference),
      T(a_message_that_came_together_can_be_sent_on), T(an_echo_keeps_the_segments),
      T(the_end_in_the_middle_is_the_end), T(a_new_protocol_gets_the_rest_of_a_message),
      T(unix_sockets_gather_nothing))
