/* SPDX-License-Identifier: MIT
 *
 * Operations on the caller's sockets: what one of them is made of, for the files that define some.
 */
#ifndef ALOOP_NET_SOCK_H
#define ALOOP_NET_SOCK_H

#include "aloop.h"
#include "net/filepart.h"

typedef struct aloop__sock aloop__sock_t;

typedef struct aloop__sock_kind {
  const char *name;
  uint32_t direction;
  bool sends; /* in the child of a fork it ends: the parent goes on with it */
  /* Does as much as can be done at once. Returns the value of the future, a code, or ALOOP__SOCK_WAIT: to be
   * called again when the descriptor is ready. */
  int64_t (*attempt)(aloop__sock_t *op);
  /* Ends the future; NULL: with the result as it is. */
  void (*conclude)(const aloop__sock_t *op, aloop_future_t *future, int64_t result);
  /* Lets go of what the operation holds, whatever ended it; NULL: nothing. */
  void (*leave)(aloop__sock_t *op);
} aloop__sock_kind_t;

struct aloop__sock {
  const aloop__sock_kind_t *kind;
  aloop_t *loop;
  int fd;
  bool begun;                /* connect was called */
  const struct sockaddr *to; /* of sends and connects; copied when the operation waits */
  socklen_t to_size;
  aloop_future_t *future; /* once it waits */
  union {
    struct {
      void *buffer;
      size_t size;
      struct sockaddr *from; /* where the peer's address goes to */
      socklen_t *from_size;
    };
    struct {
      const char *data;
      size_t data_size;
      size_t sent;
    };
    aloop__filepart_t part;
  };
};

#define ALOOP__SOCK_WAIT INT64_MIN

/* Bytes that one operation sends in a turn, so that a fast peer cannot keep the loop to itself. */
enum { ALOOP__SOCK_BUDGET = 262144 };

/* Begins the operation described by `op`, which stays the caller's. */
aloop_future_t *aloop__sock_start(aloop__sock_t *op);

/* One send that neither waits nor raises SIGPIPE: as send(2) or, with an address, sendto(2). */
ssize_t aloop__sock_send(int fd, const void *data, size_t size, const struct sockaddr *to, socklen_t to_size);

#endif
