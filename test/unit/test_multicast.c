/* SPDX-License-Identifier: MIT
 *
 * Multicast over the loopback device, where it has any. pollers: all
 */
#include "dgrams.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "streams.h"

static struct sockaddr *group(int port) {
  static struct sockaddr_in address;
  memcpy(&address, on_loopback(port), sizeof address);
  address.sin_addr.s_addr = inet_addr("239.255.77.66");
  return (struct sockaddr *)(void *)&address;
}

/* Index 1 in most systems; 0 if nobody knows. */
static unsigned loopback(void) {
  unsigned index = if_nametoindex("lo");
  return index != 0 ? index : if_nametoindex("lo0");
}

static void open_any(post_t *post) {
  open_post(post, &single_protocol, (aloop_datagram_options_t){.bind_any = true, .family = AF_INET});
}

static void a_member_hears_the_group_until_it_leaves(void **state) {
  post_t member = {.env = *state}, sender = {.env = *state};
  open_any(&member);
  open_any(&sender);
  int port = port_of(member.endpoint);
  assert_int_equal(aloop_datagram_set_multicast_interface(sender.endpoint, loopback()), 0);
  assert_int_equal(aloop_datagram_set_multicast_ttl(sender.endpoint, 0), 0);
  assert_int_equal(aloop_datagram_set_multicast_loop(sender.endpoint, true), 0);
  assert_int_equal(aloop_datagram_join(member.endpoint, group(port), LOOPBACK_SIZE, loopback()), 0);
  assert_int_equal(aloop_datagram_join(member.endpoint, group(port), LOOPBACK_SIZE, loopback()),
                   ALOOP_EADDRINUSE);
  assert_int_equal(aloop_datagram_sendto(sender.endpoint, "all", 3, group(port), LOOPBACK_SIZE), 0);
  if (sender.errors_count == 0) { /* there is a way to the group */
    await_datagrams(&member, 1);
    assert_string_equal(member.text, "all\n");
  }
  assert_int_equal(aloop_datagram_leave(member.endpoint, group(port), LOOPBACK_SIZE, loopback()), 0);
  assert_int_equal(aloop_datagram_leave(member.endpoint, group(port), LOOPBACK_SIZE, loopback()),
                   ALOOP_EADDRNOTAVAIL);
  end_post(&member, -1);
  end_post(&sender, -1);
}

static int option_of(const post_t *post, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  assert_int_equal(getsockopt(aloop_datagram_fd(post->endpoint), IPPROTO_IP, option, &value, &size), 0);
  return size == 1 ? *(unsigned char *)&value : value;
}

static void options_reach_the_socket(void **state) {
  post_t post = {.env = *state};
  open_any(&post);
  assert_int_equal(aloop_datagram_set_multicast_ttl(post.endpoint, 255), 0);
  assert_int_equal(option_of(&post, IP_MULTICAST_TTL), 255);
  assert_int_equal(aloop_datagram_set_multicast_loop(post.endpoint, false), 0);
  assert_int_equal(option_of(&post, IP_MULTICAST_LOOP), 0);
  end_post(&post, -1);
  assert_int_equal(aloop_datagram_set_multicast_ttl(post.endpoint = NULL, 1), ALOOP_EINVAL);
}

static void ipv6_has_its_own(void **state) {
  post_t post = {.env = *state};
  int fd = socket(AF_INET6, SOCK_DGRAM, 0);
  struct sockaddr_in6 address = {.sin6_family = AF_INET6};
  struct sockaddr *all = (struct sockaddr *)(void *)&address;
  int hops = 0;
  socklen_t size = sizeof hops;
  if (fd < 0) return; /* no IPv6 here */
  open_post(&post, &single_protocol, (aloop_datagram_options_t){.fd = fd});
  assert_int_equal(aloop_datagram_set_multicast_ttl(post.endpoint, 7), 0);
  assert_int_equal(getsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, &size), 0);
  assert_int_equal(hops, 7);
  assert_int_equal(aloop_datagram_set_multicast_loop(post.endpoint, false), 0);
  assert_int_equal(aloop_datagram_set_multicast_interface(post.endpoint, 0), 0);
  inet_pton(AF_INET6, "::1", &address.sin6_addr);
  assert_true(aloop_datagram_join(post.endpoint, all, sizeof address, loopback()) < 0); /* not a group */
  assert_int_equal(aloop_datagram_join(post.endpoint, group(1), LOOPBACK_SIZE, 0), ALOOP_EINVAL);
  end_post(&post, -1);
}

TESTS(T(a_member_hears_the_group_until_it_leaves), T(options_reach_the_socket), T(ipv6_has_its_own))
