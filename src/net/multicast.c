/* SPDX-License-Identifier: MIT
 *
 * Multicast: an endpoint joins and leaves groups, and says how what it sends to groups travels.
 *
 * All of it is options of the socket, so nothing is kept here and the kernel forgets everything with the
 * descriptor. Groups are joined through the interface that RFC 3678 gives to both families. Each of the other
 * options exists once per family: which one is meant follows from the family of the socket.
 *
 * Left out: sources (MCAST_JOIN_SOURCE_GROUP), for which the descriptor is there.
 */
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>

#include "core/report.h"
#include "net/datagram.h"

/* An option of both families. */
typedef struct option {
  int v4;
  int v6;
} option_t;

/* The family (> 0), or why the endpoint has no multicast. */
static int family_of(const aloop_datagram_t *endpoint) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  int rc = aloop__datagram_enter(endpoint);
  if (rc < 0) return rc;
  if (endpoint->state >= ALOOP__ENDING) return ALOOP_ECLOSED;
  if (getsockname(endpoint->fd, (struct sockaddr *)(void *)&name, &size) < 0) return -errno;
  if (name.ss_family == AF_INET || name.ss_family == AF_INET6) return name.ss_family;
  return aloop__misuse(endpoint->object.loop, ALOOP_EAFNOSUPPORT,
                       "only sockets of the internet have multicast");
}

static int level_of(int family) {
  return family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
}

static int set(const aloop_datagram_t *endpoint, int family, option_t option, const void *value, size_t size) {
  int rc = setsockopt(endpoint->fd, level_of(family), family == AF_INET6 ? option.v6 : option.v4, value,
                      (socklen_t)size);
  return rc < 0 ? -errno : 0;
}

static int change_group(const aloop_datagram_t *endpoint, int option, const struct sockaddr *group,
                        socklen_t size, unsigned interface) {
  struct group_req request;
  int family = family_of(endpoint);
  if (family < 0) return family;
  if (group == NULL || size < sizeof group->sa_family || size > sizeof request.gr_group)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "a group is an address with its size");
  if (group->sa_family != family)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "the group is not of the socket's family");
  memset(&request, 0, sizeof request);
  request.gr_interface = interface;
  memcpy(&request.gr_group, group, size);
  return setsockopt(endpoint->fd, level_of(family), option, &request, sizeof request) < 0 ? -errno : 0;
}

int aloop_datagram_join(aloop_datagram_t *endpoint, const struct sockaddr *group, socklen_t group_size,
                        unsigned interface) {
  return change_group(endpoint, MCAST_JOIN_GROUP, group, group_size, interface);
}

int aloop_datagram_leave(aloop_datagram_t *endpoint, const struct sockaddr *group, socklen_t group_size,
                         unsigned interface) {
  return change_group(endpoint, MCAST_LEAVE_GROUP, group, group_size, interface);
}

int aloop_datagram_set_multicast_ttl(aloop_datagram_t *endpoint, int ttl) {
  int family = family_of(endpoint);
  if (family < 0) return family;
  if (ttl < 0 || ttl > UCHAR_MAX)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "a multicast TTL is a number from 0 to 255");
  unsigned char v4 = (unsigned char)ttl; /* the form that every system takes */
  option_t option = {.v4 = IP_MULTICAST_TTL, .v6 = IPV6_MULTICAST_HOPS};
  return family == AF_INET6 ? set(endpoint, family, option, &ttl, sizeof ttl)
                            : set(endpoint, family, option, &v4, sizeof v4);
}

int aloop_datagram_set_multicast_loop(aloop_datagram_t *endpoint, bool on) {
  int family = family_of(endpoint);
  if (family < 0) return family;
  unsigned char v4 = on;
  unsigned v6 = on;
  option_t option = {.v4 = IP_MULTICAST_LOOP, .v6 = IPV6_MULTICAST_LOOP};
  return family == AF_INET6 ? set(endpoint, family, option, &v6, sizeof v6)
                            : set(endpoint, family, option, &v4, sizeof v4);
}

int aloop_datagram_set_multicast_interface(aloop_datagram_t *endpoint, unsigned interface) {
  int family = family_of(endpoint);
  if (family < 0) return family;
  if (interface > INT_MAX)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "no interface has that index");
  option_t option = {.v4 = IP_MULTICAST_IF, .v6 = IPV6_MULTICAST_IF};
  struct ip_mreqn v4 = {.imr_ifindex = (int)interface};
  return family == AF_INET6 ? set(endpoint, family, option, &interface, sizeof interface)
                            : set(endpoint, family, option, &v4, sizeof v4);
}
