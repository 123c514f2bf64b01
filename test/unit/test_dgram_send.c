/* SPDX-License-Identifier: MIT
 *
 * Sending datagrams: at once, gathered, later; how much waits, and who hears of it; what is refused and what
 * fails. pollers: all
 */
#include "dgrams.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peers.h"
#include "streams.h"

static size_t unsent_of(const post_t *post) {
  return aloop_datagram_get_write_buffer_size(post->endpoint);
}

static void they_leave_at_once(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  post_text(&post, "one");
  post_text(&post, "");
  post_text(&post, "three");
  assert_string_equal(lines_at(peer), "one\n\nthree\n");
  assert_int_equal(unsent_of(&post), 0);
  end_post(&post, peer);
}

static void what_waits_is_counted_exactly(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  size_t sent = fill_pair(&post);
  assert_int_equal(unsent_of(&post), 7);
  post_text(&post, "12345");
  assert_int_equal(unsent_of(&post), 12);
  post_text(&post, ""); /* counts as one */
  assert_int_equal(unsent_of(&post), 13);
  size_t came = 0;
  while (unsent_of(&post) > 0) {
    came += strlen(lines_at(peer)) / 8 * 8;
    settle(post.env->loop);
  }
  const char *rest = lines_at(peer);
  assert_true(strlen(rest) >= 7 && came + strlen(rest) >= sent * 8);
  assert_string_equal(rest + strlen(rest) - 7, "12345\n\n");
  end_post(&post, peer);
}

static void the_marks_pause_and_resume(void **state) {
  post_t post = {.env = *state};
  size_t high, low;
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(aloop_datagram_get_write_buffer_limits(post.endpoint, &high, &low), 0);
  assert_true(high == 65536 && low == 16384);
  assert_int_equal(aloop_datagram_set_write_buffer_limits(post.endpoint, 20, 10), 0);
  fill_pair(&post);
  post_text(&post, "1234567890123");
  assert_string_equal(post.events, "M"); /* 20 bytes are not above 20 */
  post_text(&post, "");
  assert_string_equal(post.events, "MP");
  post_text(&post, "more");
  assert_string_equal(post.events, "MP");
  while (unsent_of(&post) > 0) {
    lines_at(peer);
    settle(post.env->loop);
  }
  assert_string_equal(post.events, "MPR");
  end_post(&post, peer);
}

static void empty_ones_cannot_get_behind_the_marks(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  fill_pair(&post);
  for (int i = 0; i < 65536 && post.events_count == 1; i++) post_text(&post, "");
  assert_string_equal(post.events, "MP");
  end_post(&post, peer);
}

static void the_cap_refuses_what_would_wait(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(aloop_datagram_set_write_buffer_cap(post.endpoint, 10), 0);
  fill_pair(&post);
  assert_int_equal(aloop_datagram_sendto(post.endpoint, "1234", 4, NULL, 0), ALOOP_ENOBUFS);
  assert_int_equal(aloop_datagram_sendto(post.endpoint, "123", 3, NULL, 0), 0);
  aloop_message_t message = {.data = "x", .size = 1};
  assert_int_equal(aloop_datagram_send_many(post.endpoint, &message, 1), ALOOP_ENOBUFS);
  assert_int_equal(unsent_of(&post), 10);
  end_post(&post, peer);
}

static void too_long_is_told_to_the_caller(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  char *bytes = calloc(1, 70000);
  int port = open_udp(&server, &single_protocol);
  connect_udp(&client, &single_protocol, port);
  assert_int_equal(aloop_datagram_sendto(client.endpoint, bytes, 70000, NULL, 0), ALOOP_EMSGSIZE);
  aloop_message_t messages[] = {{.data = bytes, .size = 70000}, {.data = "x", .size = 1}};
  assert_int_equal(aloop_datagram_send_many(client.endpoint, messages, 2), 2);
  assert_int_equal(client.errors_count, 1);
  assert_int_equal(client.errors[0], ALOOP_EMSGSIZE);
  await_datagrams(&server, 1);
  free(bytes);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void many_go_each_to_its_address(void **state) {
  post_t sender = {.env = *state}, a = {.env = *state}, b = {.env = *state};
  int ports[] = {open_udp(&a, &single_protocol), open_udp(&b, &single_protocol)};
  open_udp(&sender, &single_protocol);
  struct sockaddr_storage addresses[2];
  aloop_message_t messages[100];
  for (int i = 0; i < 2; i++) memcpy(&addresses[i], on_loopback(ports[i]), LOOPBACK_SIZE);
  for (int i = 0; i < 100; i++)
    messages[i] = (aloop_message_t){.data = &"0123456789"[i % 10],
                                    .size = 1,
                                    .address = (struct sockaddr *)(void *)&addresses[i % 2],
                                    .address_size = LOOPBACK_SIZE};
  assert_int_equal(aloop_datagram_send_many(sender.endpoint, messages, 100), 100);
  await_datagrams(&a, 50);
  await_datagrams(&b, 50);
  assert_memory_equal(a.text, "0\n2\n4\n6\n8\n0\n", 12);
  assert_memory_equal(b.text, "1\n3\n5\n7\n9\n1\n", 12);
  end_post(&sender, -1);
  end_post(&a, -1);
  end_post(&b, -1);
}

static void many_that_find_no_room_wait_in_order(void **state) {
  post_t post = {.env = *state};
  char bytes[100];
  aloop_message_t messages[100];
  int peer = open_pair(&post, &single_protocol);
  for (size_t i = 0; i < 100; i++) {
    bytes[i] = (char)('!' + i % 90);
    messages[i] = (aloop_message_t){.data = &bytes[i], .size = 1};
  }
  int64_t taken = aloop_datagram_send_many(post.endpoint, messages, 100);
  assert_int_equal(taken, 100);
  memset(bytes, 0, sizeof bytes); /* they were copied */
  size_t came = 0;
  while (came < 100) {
    const char *lines = lines_at(peer);
    for (; *lines != '\0'; lines += 2) assert_int_equal(lines[0], '!' + came++ % 90);
    settle(post.env->loop);
  }
  assert_int_equal(unsent_of(&post), 0);
  end_post(&post, peer);
}

static void send_many_stops_at_the_first_it_cannot_take(void **state) {
  post_t post = {.env = *state};
  aloop_message_t messages[] = {{.data = "a", .size = 1}, {.data = "b", .size = 1}, {.data = NULL, .size = 1}};
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(aloop_datagram_send_many(post.endpoint, messages, 3), 2);
  assert_int_equal(aloop_datagram_send_many(post.endpoint, messages + 2, 1), ALOOP_EINVAL);
  assert_int_equal(aloop_datagram_send_many(post.endpoint, NULL, 0), 0);
  assert_string_equal(lines_at(peer), "a\nb\n");
  aloop_datagram_close(post.endpoint);
  assert_int_equal(aloop_datagram_send_many(post.endpoint, messages, 1), ALOOP_ECLOSED);
  end_post(&post, peer);
}

/* Equal ones may travel together; nobody must see that. */
static void equal_ones_arrive_one_by_one(env_t *env, void (*spoil)(int fd)) {
  static const char bytes[] = "aaaaabbbbbcccccdddddeeeeefffff";
  post_t server = {.env = env}, client = {.env = env};
  aloop_message_t messages[25];
  connect_udp(&client, &single_protocol, open_udp(&server, &single_protocol));
  spoil(aloop_datagram_fd(client.endpoint));
  for (size_t i = 0; i < 25; i++) messages[i] = (aloop_message_t){.data = &bytes[i % 6 * 5], .size = 5};
  messages[12].size = 3; /* shorter, then longer than those before */
  messages[20].size = 10;
  messages[23].size = 0;
  for (size_t round = 1; round <= 3; round++) {
    server.text_size = 0;
    assert_int_equal(aloop_datagram_send_many(client.endpoint, messages, 25), 25);
    await_datagrams(&server, round * 25);
    size_t at = 0;
    for (size_t i = 0; i < 25; i++) {
      assert_memory_equal(&server.text[at], messages[i].data, messages[i].size);
      at += messages[i].size;
      assert_int_equal(server.text[at++], '\n');
    }
  }
  assert_int_equal(client.errors_count, 0);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void leave_alone(int fd) {
  (void)fd;
}

/* Linux cuts no messages of sockets without checksums. */
static void without_checksums(int fd) {
#ifdef SO_NO_CHECK
  int on = 1;
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), 0);
#else
  (void)fd;
#endif
}

static void datagrams_that_travel_together_arrive_apart(void **state) {
  equal_ones_arrive_one_by_one(*state, leave_alone);
}

static void where_nobody_cuts_they_travel_apart(void **state) {
  equal_ones_arrive_one_by_one(*state, without_checksums);
}

static void a_refusal_costs_one_of_those_that_travel_together(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  aloop_message_t messages[10];
  for (int i = 0; i < 10; i++) messages[i] = (aloop_message_t){.data = "hello", .size = 5};
  int port = open_udp(&server, &single_protocol);
  connect_udp(&client, &single_protocol, port);
  end_post(&server, -1);
  post_text(&client, "is anybody there?");
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(bind(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  assert_int_equal(aloop_datagram_send_many(client.endpoint, messages, 10), 10);
  assert_int_equal(client.errors_count, 1);
  assert_int_equal(client.errors[0], ALOOP_ECONNREFUSED);
  settle(client.env->loop);
  assert_int_equal(strlen(lines_at(fd)), 9 * 6);
  end_post(&client, fd);
}

/* ---- Segments -------------------------------------------------------------------------------------------- */

enum { LONG = 300000 };

static char *letters(size_t size) {
  char *bytes = malloc(size);
  for (size_t i = 0; i < size; i++) bytes[i] = (char)('a' + i % 26);
  return bytes;
}

/* The texts of datagrams that come with these segments. */
static void expect_segments(post_t *server, const char *bytes, size_t size, size_t segment) {
  size_t count = size == 0 ? 1 : (size + segment - 1) / segment;
  server->text_size = server->datagrams = 0;
  await_datagrams(server, count);
  size_t at = 0;
  for (size_t i = 0; i < count; i++) {
    size_t length = i + 1 < count ? segment : size - i * segment;
    assert_memory_equal(&server->text[at], bytes + i * segment, length);
    at += length;
    assert_int_equal(server->text[at++], '\n');
  }
  assert_int_equal(server->datagrams, count);
}

static void segments_arrive_as_datagrams(env_t *env, void (*spoil)(int fd)) {
  static const struct {
    size_t size;
    unsigned segment;
  } cases[] = {{12, 5}, {10, 5},  {5, 5},       {4, 5},       {0, 5},
               {1, 1},  {100, 1}, {3000, 1400}, {3800, 1900}, {65, 64}};
  post_t server = {.env = env}, client = {.env = env};
  char *bytes = letters(4000);
  connect_udp(&client, &single_protocol, open_udp(&server, &single_protocol));
  spoil(aloop_datagram_fd(client.endpoint));
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    aloop_message_t message = {.data = bytes, .size = cases[i].size, .segment = cases[i].segment};
    assert_int_equal(aloop_datagram_send_many(client.endpoint, &message, 1), 1);
    expect_segments(&server, bytes, cases[i].size, cases[i].segment);
  }
  assert_int_equal(client.errors_count, 0);
  free(bytes);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void segments_are_cut_by_the_kernel(void **state) {
  segments_arrive_as_datagrams(*state, leave_alone);
}

static void segments_are_cut_where_the_kernel_does_not(void **state) {
  segments_arrive_as_datagrams(*state, without_checksums);
}

static void segments_keep_their_place_among_others(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  aloop_message_t messages[] = {{.data = "one", .size = 3},
                                {.data = "twofou", .size = 6, .segment = 3},
                                {.data = "end", .size = 3},
                                {.data = "", .size = 0},
                                {.data = "a long way", .size = 10, .segment = 4}};
  connect_udp(&client, &single_protocol, open_udp(&server, &single_protocol));
  assert_int_equal(aloop_datagram_send_many(client.endpoint, messages, 5), 5);
  await_datagrams(&server, 8);
  assert_string_equal(server.text, "one\ntwo\nfou\nend\n\na lo\nng w\nay\n");
  end_post(&client, -1);
  end_post(&server, -1);
}

/* More segments than the kernel cuts at once, and more bytes. The receiver is a Unix socket, which loses none. */
static void a_message_may_have_thousands_of_segments(void **state) {
  post_t post = {.env = *state};
  char *bytes = letters(LONG);
  int peer = open_pair(&post, &single_protocol);
  aloop_message_t message = {.data = bytes, .size = LONG, .segment = 1000};
  aloop_datagram_set_write_buffer_limits(post.endpoint, 20000, 10000);
  assert_int_equal(aloop_datagram_send_many(post.endpoint, &message, 1), 1);
  assert_string_equal(post.events, "MP");
  char *came = malloc(LONG);
  size_t size = 0;
  while (size < LONG) {
    /* Exactly what has not arrived and is not on its way waits: whole segments. */
    assert_int_equal(unsent_of(&post) % 1000, 0);
    assert_true(unsent_of(&post) <= LONG - size);
    ssize_t n = recv(peer, came + size, LONG - size, MSG_DONTWAIT);
    if (n > 0) assert_int_equal(n, 1000);
    if (n > 0)
      size += (size_t)n;
    else
      settle(post.env->loop);
  }
  assert_memory_equal(came, bytes, LONG);
  assert_int_equal(unsent_of(&post), 0);
  assert_string_equal(post.events, "MPR");
  free(came);
  free(bytes);
  end_post(&post, peer);
}

static void what_waits_of_segments_counts_against_the_cap(void **state) {
  post_t post = {.env = *state};
  char *bytes = letters(LONG);
  int peer = open_pair(&post, &single_protocol);
  aloop_message_t message = {.data = bytes, .size = 30, .segment = 10};
  fill_pair(&post);
  size_t before = unsent_of(&post);
  assert_int_equal(aloop_datagram_set_write_buffer_cap(post.endpoint, before + 60), 0);
  assert_int_equal(aloop_datagram_send_many(post.endpoint, &message, 1), 1);
  assert_int_equal(unsent_of(&post), before + 30);
  message.size = 31;
  assert_int_equal(aloop_datagram_send_many(post.endpoint, &message, 1), ALOOP_ENOBUFS);
  assert_int_equal(unsent_of(&post), before + 30);
  free(bytes);
  end_post(&post, peer);
}

static void refused_segments_end_their_message_but_not_the_next(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  enum { SIZE = 200000 };
  char *bytes = letters(SIZE);
  aloop_message_t messages[] = {{.data = bytes, .size = SIZE, .segment = 70000},
                                {.data = "here", .size = 4, .segment = 2}};
  connect_udp(&client, &single_protocol, open_udp(&server, &single_protocol));
  assert_int_equal(aloop_datagram_send_many(client.endpoint, messages, 2), 2);
  assert_int_equal(client.errors_count, 2);
  assert_int_equal(client.errors[0], ALOOP_EMSGSIZE);
  await_datagrams(&server, 2);
  assert_string_equal(server.text, "he\nre\n");
  free(bytes);
  end_post(&client, -1);
  end_post(&server, -1);
}

/* An earlier refusal (ICMP) costs one datagram. */
static void a_refusal_costs_one_segment(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  aloop_message_t message = {.data = "aabbccdd", .size = 8, .segment = 2};
  int port = open_udp(&server, &single_protocol);
  connect_udp(&client, &single_protocol, port);
  end_post(&server, -1);
  post_text(&client, "is anybody there?");
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(bind(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  assert_int_equal(aloop_datagram_send_many(client.endpoint, &message, 1), 1);
  assert_int_equal(client.errors_count, 1);
  settle(client.env->loop);
  assert_string_equal(lines_at(fd), "bb\ncc\ndd\n");
  end_post(&client, fd);
}

/* ---- Inside a delivery ----------------------------------------------------------------------------------- */

static void echo_twice(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                       socklen_t address_size) {
  char copy[64];
  snprintf(copy, sizeof copy, "<%.*s>", (int)size, (const char *)data);
  assert_int_equal(aloop_datagram_sendto(post->endpoint, data, size, address, address_size), 0);
  assert_int_equal(aloop_datagram_sendto(post->endpoint, copy, strlen(copy), address, address_size), 0);
  memset(copy, 'x', sizeof copy);
  *(int *)post->arg = (int)unsent_of(post);
}

static void answers_are_gathered_and_keep_their_order(void **state) {
  int gathered = 0;
  post_t post = {.env = *state, .on_data = echo_twice, .arg = &gathered};
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(send(peer, "a", 1, 0), 1);
  assert_int_equal(send(peer, "", 0, 0), 0);
  assert_int_equal(send(peer, "bc", 2, 0), 2);
  await_datagrams(&post, 3);
  settle(post.env->loop);
  assert_string_equal(lines_at(peer), "a\n<a>\n\n<>\nbc\n<bc>\n");
  assert_true(gathered > 0);
  assert_int_equal(unsent_of(&post), 0);
  end_post(&post, peer);
}

static void answer_hundred_times(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                                 socklen_t address_size) {
  static char bytes[3000];
  (void)data;
  (void)size;
  for (int i = 0; i < 100; i++) {
    memset(bytes, 'a' + i % 26, sizeof bytes);
    size_t length = i % 3 == 0 ? 3000 : 2;
    assert_int_equal(aloop_datagram_sendto(post->endpoint, bytes, length, address, address_size), 0);
  }
}

static void more_than_the_cork_holds_keeps_its_order(void **state) {
  post_t server = {.env = *state, .on_data = answer_hundred_times}, client = {.env = *state};
  connect_udp(&client, &single_protocol, open_udp(&server, &single_protocol));
  post_text(&client, "go");
  await_datagrams(&client, 100);
  assert_int_equal(client.largest, 3000);
  end_post(&client, -1);
  end_post(&server, -1);
}

static void send_back(post_t *post, const aloop_message_t *messages, size_t count) {
  assert_int_equal(aloop_datagram_send_many(post->endpoint, messages, count), count);
}

static void a_batch_goes_back_as_it_came(void **state) {
  post_t server = {.env = *state, .on_batch = send_back}, client = {.env = *state};
  connect_udp(&client, &single_protocol, open_udp(&server, &batch_protocol));
  for (int i = 0; i < 60; i++) post_text(&client, i % 2 ? "odd" : "");
  await_datagrams(&client, 60);
  assert_memory_equal(client.text, "\nodd\n\nodd\n", 10);
  end_post(&client, -1);
  end_post(&server, -1);
}

/* ---- Failures -------------------------------------------------------------------------------------------- */

static void send_again(post_t *post) {
  if (post->errors_count < 5) assert_int_equal(aloop_datagram_sendto(post->endpoint, "again", 5, NULL, 0), 0);
}

static void a_peer_that_went_is_an_error_each_time(void **state) {
  post_t post = {.env = *state, .on_error = send_again};
  int peer = open_pair(&post, &single_protocol);
  close(peer);
  post_text(&post, "hello");
  assert_int_equal(post.errors_count, 5);
  assert_true(post.errors[0] == ALOOP_ECONNREFUSED || post.errors[0] == ALOOP_ENOTCONN ||
              post.errors[0] == ALOOP_ECONNRESET);
  assert_false(aloop_datagram_is_closing(post.endpoint));
  end_post(&post, -1);
}

static void what_waits_for_a_peer_that_went_is_dropped(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  fill_pair(&post);
  for (int i = 0; i < 50; i++) post_text(&post, "more");
  close(peer);
  settle(post.env->loop);
  assert_int_equal(unsent_of(&post), 0);
  assert_true(post.errors_count >= 50);
  end_post(&post, -1);
}

static void end_it(post_t *post) {
  aloop_datagram_abort(post->endpoint);
}

static void an_error_may_be_the_end(void **state) {
  post_t post = {.env = *state, .on_error = end_it};
  aloop_message_t messages[] = {{.data = "a", .size = 1}, {.data = "b", .size = 1}};
  int peer = open_pair(&post, &single_protocol);
  close(peer);
  assert_int_equal(aloop_datagram_send_many(post.endpoint, messages, 2), 2);
  assert_int_equal(post.errors_count, 1);
  end_post(&post, -1);
}

static void pausing_may_be_the_end(void **state) {
  post_t post = {.env = *state, .on_pause = end_it};
  int peer = open_pair(&post, &single_protocol);
  aloop_datagram_set_write_buffer_limits(post.endpoint, 0, 0);
  while (!aloop_datagram_is_closing(post.endpoint)) post_text(&post, "filling");
  settle(post.env->loop);
  assert_string_equal(post.events, "MPL");
  end_post(&post, peer);
}

static void a_connected_one_takes_its_own_address(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  int port = open_udp(&server, &single_protocol);
  connect_udp(&client, &single_protocol, port);
  post_text_to(&client, "hello", port);
  assert_int_equal(
      aloop_datagram_sendto(client.endpoint, "x", 1, on_loopback(port == 1 ? 2 : port - 1), LOOPBACK_SIZE),
      ALOOP_EINVAL);
  await_datagrams(&server, 1);
  end_post(&client, -1);
  end_post(&server, -1);
}

TESTS(T(they_leave_at_once), T(what_waits_is_counted_exactly), T(the_marks_pause_and_resume),
      T(empty_ones_cannot_get_behind_the_marks), T(the_cap_refuses_what_would_wait),
      T(too_long_is_told_to_the_caller), T(many_go_each_to_its_address),
      T(many_that_find_no_room_wait_in_order), T(send_many_stops_at_the_first_it_cannot_take),
      T(answers_are_gathered_and_keep_their_order), T(more_than_the_cork_holds_keeps_its_order),
      T(a_batch_goes_back_as_it_came), T(a_peer_that_went_is_an_error_each_time),
      T(what_waits_for_a_peer_that_went_is_dropped), T(an_error_may_be_the_end), T(pausing_may_be_the_end),
      T(a_connected_one_takes_its_own_address), T(datagrams_that_travel_together_arrive_apart),
      T(segments_are_cut_by_the_kernel), T(segments_are_cut_where_the_kernel_does_not),
      T(segments_keep_their_place_among_others), T(a_message_may_have_thousands_of_segments),
      T(what_waits_of_segments_counts_against_the_cap), T(refused_segments_end_their_message_but_not_the_next),
      T(a_refusal_costs_one_segment), T(where_nobody_cuts_they_travel_apart),
      T(a_refusal_costs_one_of_those_that_travel_together))
