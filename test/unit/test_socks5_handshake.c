/* SPDX-License-Identifier: MIT
 *
 * The handshake of examples/servers/socks5, and what it answers. Every conversation is read twice, whole and
 * byte by byte, and both must end the same way.
 */
#include "harness.h"

#include "handshake.h"
#include "reply.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#define GREETING "\x05\x01\x00"

static socks5_handshake_t handshake;

/* Feeds pieces of `step` bytes up to a request, an error or the end; *used says where that was. */
static socks5_event_t feed_in_steps(const char *data, size_t size, size_t step, size_t *used) {
  socks5_event_t event = SOCKS5_MORE;
  socks5_handshake_init(&handshake);
  *used = 0;
  while (*used < size && event != SOCKS5_REQUEST && event != SOCKS5_ERROR) {
    size_t piece = size - *used < step ? size - *used : step, taken;
    event = socks5_handshake_feed(&handshake, data + *used, piece, &taken);
    assert_true(taken <= piece && (taken == piece || event != SOCKS5_MORE));
    *used += taken;
  }
  return event;
}

static socks5_event_t feed_bytes(const char *data, size_t size, size_t *used) {
  size_t used_whole, used_bytes;
  socks5_event_t whole = feed_in_steps(data, size, size, &used_whole);
  socks5_handshake_t after = handshake;
  assert_int_equal(feed_in_steps(data, size, 1, &used_bytes), whole);
  assert_int_equal(used_bytes, used_whole);
  assert_memory_equal(&handshake, &after, sizeof after);
  if (used != NULL) *used = used_whole;
  return whole;
}

#define FEED(text) feed_bytes("" text, sizeof(text) - 1, NULL)
#define REFUSED(text, code)                                                                                    \
  do {                                                                                                         \
    assert_int_equal(FEED(text), SOCKS5_ERROR);                                                                \
    assert_int_equal(handshake.reply, code);                                                                   \
  } while (0)

static void no_authentication_is_chosen_wherever_it_stands(void **state) {
  (void)state;
  assert_int_equal(FEED(GREETING), SOCKS5_GREETING);
  assert_int_equal(handshake.method, SOCKS5_NO_AUTHENTICATION);
  assert_int_equal(FEED("\x05\x03\x02\x01\x00"), SOCKS5_GREETING);
  assert_int_equal(handshake.method, SOCKS5_NO_AUTHENTICATION);
}

static void other_methods_are_not_for_us(void **state) {
  (void)state;
  assert_int_equal(FEED("\x05\x02\x02\x01"), SOCKS5_GREETING);
  assert_int_equal(handshake.method, SOCKS5_NO_METHOD);
  assert_int_equal(FEED("\x05\x00"), SOCKS5_GREETING);
  assert_int_equal(handshake.method, SOCKS5_NO_METHOD);
}

static void other_protocols_get_no_answer(void **state) {
  (void)state;
  REFUSED("\x04\x01\x00\x50\x7f\x00\x00\x01\x00", SOCKS5_SUCCEEDED);
  REFUSED("GET / HTTP/1.1\r\n", SOCKS5_SUCCEEDED);
  REFUSED("\x16\x03\x01", SOCKS5_SUCCEEDED);
}

static void incomplete_messages_wait(void **state) {
  (void)state;
  assert_int_equal(FEED(""), SOCKS5_MORE);
  assert_int_equal(FEED("\x05"), SOCKS5_MORE);
  assert_int_equal(FEED("\x05\x02\x00"), SOCKS5_MORE);
  assert_int_equal(FEED(GREETING "\x05\x01\x00\x01\x7f\x00\x00\x01\x00"), SOCKS5_MORE);
  assert_int_equal(FEED(GREETING "\x05\x01\x00\x03\x09localhost\x00"), SOCKS5_MORE);
}

static void understands_ipv4(void **state) {
  (void)state;
  assert_int_equal(FEED(GREETING "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"), SOCKS5_REQUEST);
  assert_string_equal(handshake.host, "127.0.0.1");
  assert_int_equal(handshake.port, 80);
}

static void understands_ipv6(void **state) {
  (void)state;
  assert_int_equal(FEED(GREETING "\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\xff\xff"),
                   SOCKS5_REQUEST);
  assert_string_equal(handshake.host, "2001:db8::1");
  assert_int_equal(handshake.port, 65535);
}

static void understands_names(void **state) {
  (void)state;
  assert_int_equal(FEED(GREETING "\x05\x01\x00\x03\x0b"
                                 "example.org\x01\xbb"),
                   SOCKS5_REQUEST);
  assert_string_equal(handshake.host, "example.org");
  assert_int_equal(handshake.port, 443);
}

static void the_longest_name_fits(void **state) {
  (void)state;
  static const char head[] = GREETING "\x05\x01\x00\x03\xff";
  char text[sizeof head - 1 + 255 + 2] = {0}, name[256] = {0};
  memset(name, 'a', 255);
  memcpy(text, head, sizeof head - 1);
  memcpy(text + sizeof head - 1, name, 255);
  text[sizeof text - 1] = 80;
  assert_int_equal(feed_bytes(text, sizeof text, NULL), SOCKS5_REQUEST);
  assert_string_equal(handshake.host, name);
}

static void what_follows_the_request_is_left_alone(void **state) {
  (void)state;
  static const char text[] = GREETING "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"
                                      "GET / HTTP/1.0";
  size_t used;
  assert_int_equal(feed_bytes(text, sizeof text - 1, &used), SOCKS5_REQUEST);
  assert_string_equal(text + used, "GET / HTTP/1.0");
  assert_int_equal(socks5_handshake_feed(&handshake, "x", 1, &used), SOCKS5_REQUEST);
  assert_int_equal(used, 0);
}

static void other_commands_are_refused_when_they_are_whole(void **state) {
  (void)state;
  assert_int_equal(FEED(GREETING "\x05\x02\x00\x01\x7f\x00\x00\x01\x00"), SOCKS5_MORE);
  REFUSED(GREETING "\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", SOCKS5_NO_SUCH_COMMAND);
  REFUSED(GREETING "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", SOCKS5_NO_SUCH_COMMAND);
  REFUSED(GREETING "\x05\xff\x00\x03\x01x\x00\x00", SOCKS5_NO_SUCH_COMMAND);
}

static void other_types_of_address_are_refused(void **state) {
  (void)state;
  REFUSED(GREETING "\x05\x01\x00\x02", SOCKS5_NO_SUCH_ADDRESS_TYPE);
  REFUSED(GREETING "\x05\x01\x00\x00\x7f\x00\x00\x01\x00\x50", SOCKS5_NO_SUCH_ADDRESS_TYPE);
}

static void nonsense_is_refused(void **state) {
  (void)state;
  REFUSED(GREETING "\x04\x01\x00", SOCKS5_FAILURE);
  REFUSED(GREETING "\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", SOCKS5_FAILURE);
  REFUSED(GREETING "\x05\x01\x00\x03\x00\x00\x50", SOCKS5_FAILURE);
  REFUSED(GREETING "\x05\x01\x00\x03\x03"
                   "a\0b\x00\x50",
          SOCKS5_FAILURE);
  REFUSED(GREETING "\x05\x01\x00\x03\x03"
                   "a b\x00\x50",
          SOCKS5_FAILURE);
  REFUSED(GREETING "\x05\x01\x00\x03\x03"
                   "a\xc3\xa9\x00\x50",
          SOCKS5_FAILURE);
}

static void after_an_error_nothing_is_taken(void **state) {
  (void)state;
  size_t used;
  REFUSED(GREETING "\x05\x01\x00\x02", SOCKS5_NO_SUCH_ADDRESS_TYPE);
  assert_int_equal(socks5_handshake_feed(&handshake, "\x7f", 1, &used), SOCKS5_ERROR);
  assert_int_equal(used, 0);
}

static void replies_carry_the_address(void **state) {
  (void)state;
  uint8_t out[SOCKS5_REPLY_SIZE];
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(0x1234)};
  inet_pton(AF_INET, "10.1.2.3", &v4.sin_addr);
  assert_int_equal(socks5_write_reply(out, SOCKS5_SUCCEEDED, (struct sockaddr *)&v4), 10);
  assert_memory_equal(out, "\x05\x00\x00\x01\x0a\x01\x02\x03\x12\x34", 10);
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(0x1234)};
  inet_pton(AF_INET6, "2001:db8::1", &v6.sin6_addr);
  assert_int_equal(socks5_write_reply(out, SOCKS5_SUCCEEDED, (struct sockaddr *)&v6), 22);
  assert_memory_equal(out, "\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x34", 22);
}

static void refusals_have_no_address(void **state) {
  (void)state;
  uint8_t out[SOCKS5_REPLY_SIZE];
  assert_int_equal(socks5_write_reply(out, SOCKS5_REFUSED, NULL), 10);
  assert_memory_equal(out, "\x05\x05\x00\x01\0\0\0\0\0\0", 10);
}

static void every_error_has_its_reply(void **state) {
  (void)state;
  assert_int_equal(socks5_reply_for(ALOOP_ENOMEM), SOCKS5_FAILURE);
  assert_int_equal(socks5_reply_for(ALOOP_EACCES), SOCKS5_NOT_ALLOWED);
  assert_int_equal(socks5_reply_for(ALOOP_EPERM), SOCKS5_NOT_ALLOWED);
  assert_int_equal(socks5_reply_for(ALOOP_ENETUNREACH), SOCKS5_NETWORK_UNREACHABLE);
  assert_int_equal(socks5_reply_for(ALOOP_EADDRNOTAVAIL), SOCKS5_NETWORK_UNREACHABLE);
  assert_int_equal(socks5_reply_for(ALOOP_EHOSTUNREACH), SOCKS5_HOST_UNREACHABLE);
  assert_int_equal(socks5_reply_for(ALOOP_EAI_NONAME), SOCKS5_HOST_UNREACHABLE);
  assert_int_equal(socks5_reply_for(ALOOP_EAI_AGAIN), SOCKS5_HOST_UNREACHABLE);
  assert_int_equal(socks5_reply_for(ALOOP_ECONNREFUSED), SOCKS5_REFUSED);
  assert_int_equal(socks5_reply_for(ALOOP_ETIMEDOUT), SOCKS5_EXPIRED);
  assert_int_equal(socks5_reply_for(ALOOP_EAFNOSUPPORT), SOCKS5_NO_SUCH_ADDRESS_TYPE);
}

TESTS(T(no_authentication_is_chosen_wherever_it_stands), T(other_methods_are_not_for_us),
      T(other_protocols_get_no_answer), T(incomplete_messages_wait), T(understands_ipv4), T(understands_ipv6),
      T(understands_names), T(the_longest_name_fits), T(what_follows_the_request_is_left_alone),
      T(other_commands_are_refused_when_they_are_whole), T(other_types_of_address_are_refused),
      T(nonsense_is_refused), T(after_an_error_nothing_is_taken), T(replies_carry_the_address),
      T(refusals_have_no_address), T(every_error_has_its_reply))
