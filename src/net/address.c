/* SPDX-License-Identifier: MIT
 *
 * Internet addresses as values. Numeric hosts are read here, by inet_pton, so that they need neither a resolver
 * nor a thread; a zone ("fe80::1%eth0") takes the C library's help and is left to resolve.c. Lists of addresses
 * keep the order in which they were added, which is the order of preference, and no address twice: resolvers
 * repeat themselves, and a server would fail to bind the second one. Lists are a few addresses long, so looking
 * for an equal one is a plain walk.
 *
 * Comparing looks at host, port and zone only: the rest of a sockaddr is padding, or labels that routing does
 * not go by.
 */
#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/memory.h"

static aloop__address_t empty_stream(void) {
  aloop__address_t address;
  memset(&address, 0, sizeof address);
  address.type = SOCK_STREAM;
  address.protocol = IPPROTO_TCP;
  return address;
}

static void set_v4(aloop__address_t *address, struct in_addr host, int port) {
  *address = empty_stream();
  address->size = sizeof address->as.v4;
  address->as.v4.sin_family = AF_INET;
  address->as.v4.sin_port = htons((uint16_t)port);
  address->as.v4.sin_addr = host;
}

static void set_v6(aloop__address_t *address, struct in6_addr host, int port) {
  *address = empty_stream();
  address->size = sizeof address->as.v6;
  address->as.v6.sin6_family = AF_INET6;
  address->as.v6.sin6_port = htons((uint16_t)port);
  address->as.v6.sin6_addr = host;
}

bool aloop__address_parse(aloop__address_t *address, const char *host, int port) {
  struct in_addr v4;
  struct in6_addr v6;
  if (inet_pton(AF_INET, host, &v4) == 1)
    set_v4(address, v4, port);
  else if (inet_pton(AF_INET6, host, &v6) == 1)
    set_v6(address, v6, port);
  else
    return false;
  return true;
}

void aloop__address_any(aloop__address_t *address, int family, int port) {
  struct in_addr any = {.s_addr = htonl(INADDR_ANY)};
  if (family == AF_INET6)
    set_v6(address, in6addr_any, port);
  else
    set_v4(address, any, port);
}

bool aloop__address_set(aloop__address_t *address, const struct sockaddr *from, socklen_t size) {
  bool known = (from->sa_family == AF_INET && size == sizeof address->as.v4) ||
               (from->sa_family == AF_INET6 && size == sizeof address->as.v6);
  if (!known) return false;
  *address = empty_stream();
  address->size = size;
  memcpy(&address->as, from, size);
  return true;
}

bool aloop__address_equal(const aloop__address_t *a, const aloop__address_t *b) {
  if (a->as.any.sa_family != b->as.any.sa_family) return false;
  if (a->as.any.sa_family == AF_INET)
    return a->as.v4.sin_port == b->as.v4.sin_port && a->as.v4.sin_addr.s_addr == b->as.v4.sin_addr.s_addr;
  return a->as.v6.sin6_port == b->as.v6.sin6_port && a->as.v6.sin6_scope_id == b->as.v6.sin6_scope_id &&
         memcmp(&a->as.v6.sin6_addr, &b->as.v6.sin6_addr, sizeof a->as.v6.sin6_addr) == 0;
}

int aloop__address_port(const struct sockaddr *address) {
  if (address->sa_family == AF_INET)
    return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
  if (address->sa_family == AF_INET6)
    return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
  return ALOOP_ENOENT;
}

static void unix_text(const struct sockaddr *address, socklen_t size, char *text) {
  const char *path = ((const struct sockaddr_un *)(const void *)address)->sun_path;
  size_t length =
      size > offsetof(struct sockaddr_un, sun_path) ? size - offsetof(struct sockaddr_un, sun_path) : 0;
  if (length == 0)
    snprintf(text, ALOOP__ADDRESS_TEXT, "an unnamed unix socket");
  else if (path[0] == '\0') /* Linux: a name that is no file */
    snprintf(text, ALOOP__ADDRESS_TEXT, "@%.*s", (int)(length - 1), path + 1);
  else
    snprintf(text, ALOOP__ADDRESS_TEXT, "%.*s", (int)length, path);
}

const char *aloop__address_text(const struct sockaddr *address, socklen_t size, char *text) {
  char host[ALOOP__ADDRESS_TEXT - 16];
  if (address->sa_family == AF_UNIX)
    unix_text(address, size, text);
  else if (getnameinfo(address, size, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0)
    snprintf(text, ALOOP__ADDRESS_TEXT, "%s port %d", host, aloop__address_port(address));
  else
    snprintf(text, ALOOP__ADDRESS_TEXT, "an address of family %d", (int)address->sa_family);
  return text;
}

int aloop__addresses_add(aloop_t *loop, aloop__addresses_t **addresses, const aloop__address_t *address) {
  size_t count = *addresses != NULL ? (*addresses)->count : 0;
  for (size_t i = 0; i < count; i++)
    if (aloop__address_equal(&(*addresses)->list[i], address)) return 0;
  aloop__addresses_t *grown =
      aloop__memory_resize(loop, *addresses, sizeof *grown + (count + 1) * sizeof grown->list[0]);
  if (grown == NULL) return ALOOP_ENOMEM;
  grown->list[count] = *address;
  grown->count = count + 1;
  *addresses = grown;
  return 0;
}

int aloop__address_adopt(int fd, aloop__adopted_t *before) {
  before->status = fcntl(fd, F_GETFL);
  before->flags = fcntl(fd, F_GETFD);
  if (before->status < 0 || before->flags < 0) return -errno;
  if (fcntl(fd, F_SETFL, before->status | O_NONBLOCK) < 0) return -errno;
  if (fcntl(fd, F_SETFD, before->flags | FD_CLOEXEC) == 0) return 0;
  int error = -errno;
  aloop__address_give_back(fd, before);
  return error;
}

void aloop__address_give_back(int fd, const aloop__adopted_t *before) {
  fcntl(fd, F_SETFL, before->status);
  fcntl(fd, F_SETFD, before->flags);
}

int aloop__address_socket(const aloop__address_t *address) {
#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
  int fd = socket(address->as.any.sa_family, address->type | SOCK_NONBLOCK | SOCK_CLOEXEC, address->protocol);
  return fd >= 0 ? fd : -errno;
#else
  int fd = socket(address->as.any.sa_family, address->type, address->protocol);
  if (fd < 0) return -errno;
  aloop__adopted_t before;
  int rc = aloop__address_adopt(fd, &before);
  if (rc == 0) return fd;
  close(fd);
  return rc;
#endif
}

static int accept_fd(int fd, struct sockaddr *address, socklen_t *size) {
#if ALOOP_HAVE_ACCEPT4
  return accept4(fd, address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  int accepted = accept(fd, address, size);
  if (accepted < 0) return accepted;
  fcntl(accepted, F_SETFD, FD_CLOEXEC);
  fcntl(accepted, F_SETFL, O_NONBLOCK);
  return accepted;
#endif
}

int aloop__address_accept(int fd, struct sockaddr *address, socklen_t *size) {
  socklen_t got = size != NULL ? *size : 0;
  int accepted = accept_fd(fd, address, size != NULL ? &got : NULL);
  if (accepted < 0) return errno == EWOULDBLOCK ? ALOOP_EAGAIN : -errno;
  if (size != NULL) *size = got;
  return accepted;
}

bool aloop__address_accept_again(int error) {
  switch (error) {
  case -ECONNABORTED:
  case -EINTR:
  case -EPROTO:
  case -ENETDOWN:
  case -EHOSTDOWN:
  case -ENETUNREACH:
  case -EHOSTUNREACH:
  case -ENOPROTOOPT:
    return true;
  default:
    return false;
  }
}
