/* SPDX-License-Identifier: MIT
 *
 * Addresses as values: numeric hosts, lists, text, sockets.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/memory.h"
#include "harness.h"
#include "net/address.h"

static aloop__address_t parsed(const char *host, int port) {
  aloop__address_t address;
  assert_true(aloop__address_parse(&address, host, port));
  return address;
}

static void reads_numeric_ipv4(void **state) {
  (void)state;
  aloop__address_t address = parsed("127.0.0.1", 8080);
  assert_int_equal(address.as.any.sa_family, AF_INET);
  assert_int_equal(address.size, sizeof(struct sockaddr_in));
  assert_int_equal(ntohl(address.as.v4.sin_addr.s_addr), INADDR_LOOPBACK);
  assert_int_equal(aloop__address_port(&address.as.any), 8080);
}

static void reads_numeric_ipv6(void **state) {
  (void)state;
  aloop__address_t address = parsed("::1", 65535);
  assert_int_equal(address.as.any.sa_family, AF_INET6);
  assert_int_equal(address.size, sizeof(struct sockaddr_in6));
  assert_memory_equal(&address.as.v6.sin6_addr, &in6addr_loopback, sizeof in6addr_loopback);
  assert_int_equal(aloop__address_port(&address.as.any), 65535);
}

static void leaves_names_alone(void **state) {
  (void)state;
  static const char *const names[] = {"localhost", "",       "1.2.3", "1.2.3.4.5",
                                      "256.1.1.1", "::1%lo", ":::",   "1.2.3.4 "};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    aloop__address_t address;
    assert_false(aloop__address_parse(&address, names[i], 80));
  }
}

static void writes_addresses_in_words(void **state) {
  (void)state;
  char text[ALOOP__ADDRESS_TEXT];
  aloop__address_t v4 = parsed("192.0.2.7", 80);
  aloop__address_t v6 = parsed("2001:db8::9", 443);
  assert_string_equal(aloop__address_text(&v4.as.any, v4.size, text), "192.0.2.7 port 80");
  assert_string_equal(aloop__address_text(&v6.as.any, v6.size, text), "2001:db8::9 port 443");
}

static void writes_zones_in_words(void **state) {
  (void)state;
  char text[ALOOP__ADDRESS_TEXT];
  aloop__address_t address = parsed("fe80::1", 80);
  address.as.v6.sin6_scope_id = 99999;
  assert_string_equal(aloop__address_text(&address.as.any, address.size, text), "fe80::1%99999 port 80");
}

static const char *unix_text(const char *path, size_t length, char *text) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, path, length);
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  return aloop__address_text((struct sockaddr *)(void *)&address, size, text);
}

static void writes_other_families_in_words(void **state) {
  (void)state;
  char text[ALOOP__ADDRESS_TEXT];
  struct sockaddr odd = {.sa_family = 250};
  assert_string_equal(aloop__address_text(&odd, sizeof odd, text), "an address of family 250");
  assert_string_equal(unix_text("/run/x", 7, text), "/run/x");
  assert_string_equal(unix_text("\0name", 5, text), "@name");
  assert_string_equal(unix_text("", 0, text), "an unnamed unix socket");
}

static void compares_host_port_and_zone(void **state) {
  (void)state;
  aloop__address_t v4 = parsed("127.0.0.1", 80), v6 = parsed("::1", 80), other;
  other = v4;
  memset(other.as.v4.sin_zero, 7, sizeof other.as.v4.sin_zero);
  assert_true(aloop__address_equal(&v4, &other));
  other = parsed("127.0.0.2", 80);
  assert_false(aloop__address_equal(&v4, &other));
  other = parsed("127.0.0.1", 81);
  assert_false(aloop__address_equal(&v4, &other));
  assert_false(aloop__address_equal(&v4, &v6));
  other = v6;
  other.as.v6.sin6_flowinfo = 5;
  assert_true(aloop__address_equal(&v6, &other));
  other.as.v6.sin6_scope_id = 1;
  assert_false(aloop__address_equal(&v6, &other));
}

static void takes_socket_addresses_of_the_internet(void **state) {
  (void)state;
  aloop__address_t v6 = parsed("::1", 80), copy;
  assert_true(aloop__address_set(&copy, &v6.as.any, v6.size));
  assert_true(aloop__address_equal(&v6, &copy));
  struct sockaddr_un local = {.sun_family = AF_UNIX};
  assert_false(aloop__address_set(&copy, (struct sockaddr *)(void *)&local, sizeof local));
  assert_false(aloop__address_set(&copy, &v6.as.any, sizeof(struct sockaddr_in)));
}

static void lists_keep_order_and_drop_repeats(void **state) {
  env_t *env = *state;
  aloop__addresses_t *list = NULL;
  static const char *const hosts[] = {"127.0.0.3", "::1", "127.0.0.1", "::1", "127.0.0.3"};
  for (int i = 0; i < 5; i++) {
    aloop__address_t address = parsed(hosts[i], 1);
    assert_int_equal(aloop__addresses_add(env->loop, &list, &address), 0);
  }
  assert_int_equal(list->count, 3);
  for (size_t i = 0; i < 3; i++) {
    aloop__address_t address = parsed(hosts[i], 1);
    assert_true(aloop__address_equal(&list->list[i], &address));
  }
  aloop__memory_release(env->loop, list);
}

static void lists_survive_want_of_memory(void **state) {
  env_t *env = *state;
  aloop__addresses_t *list = NULL;
  aloop__address_t address = parsed("127.0.0.1", 1);
  assert_int_equal(aloop__addresses_add(env->loop, &list, &address), 0);
  env->fail_from = env->calls + 1;
  aloop__address_t other = parsed("127.0.0.2", 1);
  assert_int_equal(aloop__addresses_add(env->loop, &list, &other), ALOOP_ENOMEM);
  assert_int_equal(list->count, 1);
  aloop__memory_release(env->loop, list);
}

static void sockets_are_non_blocking_and_close_on_exec(void **state) {
  (void)state;
  aloop__address_t address = parsed("127.0.0.1", 0);
  int fd = aloop__address_socket(&address);
  assert_true(fd >= 0);
  assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  close(fd);
}

static void sockets_of_unknown_kinds_are_refused(void **state) {
  (void)state;
  aloop__address_t address = parsed("127.0.0.1", 0);
  address.protocol = 250;
  assert_true(aloop__address_socket(&address) < 0);
}

static void adopted_descriptors_can_be_given_back(void **state) {
  (void)state;
  int fds[2];
  aloop__adopted_t before;
  assert_int_equal(pipe(fds), 0);
  assert_int_equal(aloop__address_adopt(fds[0], &before), 0);
  assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
  aloop__address_give_back(fds[0], &before);
  assert_false(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
  assert_false(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
  close(fds[0]);
  close(fds[1]);
  assert_int_equal(aloop__address_adopt(-1, &before), ALOOP_EBADF);
}

TESTS(T(reads_numeric_ipv4), T(reads_numeric_ipv6), T(leaves_names_alone), T(writes_addresses_in_words),
      T(writes_zones_in_words), T(writes_other_families_in_words), T(compares_host_port_and_zone),
      T(takes_socket_addresses_of_the_internet), T(lists_keep_order_and_drop_repeats),
      T(lists_survive_want_of_memory), T(sockets_are_non_blocking_and_close_on_exec),
      T(sockets_of_unknown_kinds_are_refused), T(adopted_descriptors_can_be_given_back))
