/* SPDX-License-Identifier: MIT
 *
 * Internet addresses: numeric hosts without a resolver, lists of addresses, addresses as text, and sockets for
 * them.
 */
#ifndef ALOOP_NET_ADDRESS_H
#define ALOOP_NET_ADDRESS_H

#include <netinet/in.h>

#include "aloop.h"

/* What a socket is made from. */
typedef struct aloop__address {
  int type; /* SOCK_STREAM, ... */
  int protocol;
  socklen_t size;
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } as;
} aloop__address_t;

typedef struct aloop__addresses {
  size_t count;
  aloop__address_t list[];
} aloop__addresses_t;

enum { ALOOP__ADDRESS_TEXT = 96 }; /* room for any address in words */

/* The address of "127.0.0.1" or "::1" (without a zone). False: not such a host. */
bool aloop__address_parse(aloop__address_t *address, const char *host, int port);

/* The address that means every interface of a machine, AF_INET or AF_INET6. */
void aloop__address_any(aloop__address_t *address, int family, int port);

/* Copies a socket address. False: not one of the internet. */
bool aloop__address_set(aloop__address_t *address, const struct sockaddr *from, socklen_t size);

/* The same host, port and zone. */
bool aloop__address_equal(const aloop__address_t *a, const aloop__address_t *b);

/* In host order; ALOOP_ENOENT for an address without ports. */
int aloop__address_port(const struct sockaddr *address);

/* "127.0.0.1 port 80", "::1 port 80", the path of a unix socket. Returns `text`, of ALOOP__ADDRESS_TEXT
 * bytes. */
const char *aloop__address_text(const struct sockaddr *address, socklen_t size, char *text);

/* Appends to a list (NULL: an empty one) unless it has the address already. ALOOP_ENOMEM. Released as one
 * block. */
int aloop__addresses_add(aloop_t *loop, aloop__addresses_t **addresses, const aloop__address_t *address);

/* A non-blocking, close-on-exec socket for the address, or a code. */
int aloop__address_socket(const aloop__address_t *address);

/* The next connection that waits at a listening socket, as a non-blocking, close-on-exec descriptor, with its
 * peer's address if that is asked for, or a code. ALOOP_EAGAIN: none does. */
int aloop__address_accept(int fd, struct sockaddr *address, socklen_t *size);

/* Whether it failed because of one connection, which died while it waited: the next one is fine. */
bool aloop__address_accept_again(int error);

/* What a descriptor of the caller was like before it was made non-blocking and close-on-exec. */
typedef struct aloop__adopted {
  int status;
  int flags;
} aloop__adopted_t;

/* Returns 0, or a code with the descriptor as it was. */
int aloop__address_adopt(int fd, aloop__adopted_t *before);
void aloop__address_give_back(int fd, const aloop__adopted_t *before);

#endif
