/* SPDX-License-Identifier: MIT
 *
 * What travels beside the bytes of a datagram: the address of this machine that it came to or goes out from,
 * the two bits of ECN, and the size at which the kernel is to cut a message into datagrams, or at which they
 * came before it put them together.
 *
 * Each is a control message of the socket interface, and each exists once per family. A socket for IPv6 that
 * also carries IPv4 gets some of both, so reading goes by what is there and writing by the addresses, never by
 * the socket. A system that lacks one of them lacks its macro, and then nothing is asked, read or written.
 */
#include "net/control.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

enum { ECN_MASK = 3 };

static void set_on(int fd, int level, int option) {
  int on = 1;
  setsockopt(fd, level, option, &on, sizeof on); /* of the other family, perhaps: then nothing comes */
}

void aloop__control_want(int fd, bool local, bool ecn, bool segments) {
#ifdef IP_PKTINFO
  if (local) set_on(fd, IPPROTO_IP, IP_PKTINFO);
#endif
#ifdef IPV6_RECVPKTINFO
  if (local) set_on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO);
#endif
#ifdef IP_RECVTOS
  if (ecn) set_on(fd, IPPROTO_IP, IP_RECVTOS);
#endif
#ifdef IPV6_RECVTCLASS
  if (ecn) set_on(fd, IPPROTO_IPV6, IPV6_RECVTCLASS);
#endif
#ifdef UDP_GRO
  if (segments) set_on(fd, IPPROTO_UDP, UDP_GRO);
#endif
  (void)fd, (void)local, (void)ecn, (void)segments;
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

static void read_v4(const struct cmsghdr *item, aloop_message_t *message, struct sockaddr_storage *local,
                    uint16_t port) {
#ifdef IP_PKTINFO
  if (item->cmsg_type == IP_PKTINFO && local->ss_family == AF_UNSPEC) {
    struct in_pktinfo info;
    struct sockaddr_in *address = (struct sockaddr_in *)(void *)local;
    memcpy(&info, CMSG_DATA(item), sizeof info);
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_port = port;
    address->sin_addr = info.ipi_addr;
    message->local_size = sizeof *address;
  }
#endif
#ifdef IP_TOS
  if (item->cmsg_type == IP_TOS) message->ecn = *CMSG_DATA(item) & ECN_MASK;
#endif
  (void)item, (void)message, (void)local, (void)port;
}

static void read_v6(const struct cmsghdr *item, aloop_message_t *message, struct sockaddr_storage *local,
                    uint16_t port) {
#ifdef IPV6_PKTINFO
  if (item->cmsg_type == IPV6_PKTINFO) {
    struct in6_pktinfo info;
    struct sockaddr_in6 *address = (struct sockaddr_in6 *)(void *)local;
    memcpy(&info, CMSG_DATA(item), sizeof info);
    memset(address, 0, sizeof *address);
    address->sin6_family = AF_INET6;
    address->sin6_port = port;
    address->sin6_addr = info.ipi6_addr;
    if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) address->sin6_scope_id = (uint32_t)info.ipi6_ifindex;
    message->local_size = sizeof *address;
  }
#endif
#ifdef IPV6_TCLASS
  if (item->cmsg_type == IPV6_TCLASS) {
    int class;
    memcpy(&class, CMSG_DATA(item), sizeof class);
    message->ecn = class & ECN_MASK;
  }
#endif
  (void)item, (void)message, (void)local, (void)port;
}

static void read_udp(const struct cmsghdr *item, aloop_message_t *message) {
#ifdef UDP_GRO
  if (item->cmsg_type == UDP_GRO) {
    int size;
    memcpy(&size, CMSG_DATA(item), sizeof size);
    if (size > 0 && message->size > (size_t)size) message->segment = (unsigned)size;
  }
#endif
  (void)item, (void)message;
}

void aloop__control_read(struct msghdr *header, aloop_message_t *message, struct sockaddr_storage *local,
                         uint16_t port) {
  local->ss_family = AF_UNSPEC;
  for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item != NULL; item = CMSG_NXTHDR(header, item)) {
    if (item->cmsg_level == IPPROTO_IP) read_v4(item, message, local, port);
    if (item->cmsg_level == IPPROTO_IPV6) read_v6(item, message, local, port);
    if (item->cmsg_level == IPPROTO_UDP) read_udp(item, message);
  }
  if (message->local_size > 0) message->local = (const struct sockaddr *)(const void *)local;
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

static void add(struct msghdr *header, aloop__control_t *control, int level, int type, const void *value,
                size_t size) {
  struct cmsghdr *item = (struct cmsghdr *)(void *)((char *)control + header->msg_controllen);
  item->cmsg_level = level;
  item->cmsg_type = type;
  item->cmsg_len = (socklen_t)CMSG_LEN(size);
  memcpy(CMSG_DATA(item), value, size);
  header->msg_control = control;
  header->msg_controllen += (socklen_t)CMSG_SPACE(size);
}

static void add_local(struct msghdr *header, aloop__control_t *control, const struct sockaddr *local) {
#ifdef IP_PKTINFO
  if (local->sa_family == AF_INET) {
    struct in_pktinfo info = {.ipi_spec_dst = ((const struct sockaddr_in *)(const void *)local)->sin_addr};
    add(header, control, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
#endif
#ifdef IPV6_PKTINFO
  if (local->sa_family == AF_INET6) {
    const struct sockaddr_in6 *address = (const struct sockaddr_in6 *)(const void *)local;
    struct in6_pktinfo info = {.ipi6_addr = address->sin6_addr, .ipi6_ifindex = address->sin6_scope_id};
    add(header, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  }
#endif
  (void)header, (void)control, (void)local;
}

static bool is_v6(const struct sockaddr *peer) {
  return peer->sa_family == AF_INET6 &&
         !IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr);
}

void aloop__control_write(struct msghdr *header, aloop__control_t *control, const aloop_message_t *message,
                          const struct sockaddr *peer, size_t segment) {
  int ecn = message->ecn & ECN_MASK;
  memset(control, 0, sizeof *control);
  if (message->local != NULL) add_local(header, control, message->local);
#if defined(IPV6_TCLASS) && defined(IP_TOS)
  if (ecn != 0 && is_v6(peer))
    add(header, control, IPPROTO_IPV6, IPV6_TCLASS, &ecn, sizeof ecn);
  else if (ecn != 0)
    add(header, control, IPPROTO_IP, IP_TOS, &ecn, sizeof ecn);
#endif
#ifdef UDP_SEGMENT
  uint16_t size = (uint16_t)segment;
  if (segment > 0) add(header, control, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
#endif
  (void)ecn, (void)peer, (void)segment;
}
