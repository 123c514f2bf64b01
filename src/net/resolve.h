/* SPDX-License-Identifier: MIT
 *
 * From host and port to addresses, for who connects or binds.
 */
#ifndef ALOOP_NET_RESOLVE_H
#define ALOOP_NET_RESOLVE_H

#include "aloop.h"
#include "net/address.h"

typedef struct aloop__query {
  aloop_future_t *future; /* of the call that needs it; NULL is fine */
  const char *host;       /* NULL: every interface of this machine */
  int port;
  int family;   /* AF_UNSPEC: any */
  int type;     /* SOCK_STREAM, ... */
  int protocol; /* 0: the usual one */
  int flags;    /* AI_... */
} aloop__query_t;

typedef struct aloop__lookup aloop__lookup_t;

/* Told from the ready deque: 0 and at least one address in order of preference, which now belong to the
 * receiver, or why there are none. */
typedef void (*aloop__resolved_fn)(aloop_t *loop, void *arg, int error, aloop__addresses_t *addresses);

/* Returns 0 with *addresses if the answer is known at once (numeric hosts, NULL), or an error. Else 1 with
 * *lookup: `done` is called in a later turn, unless the lookup is cancelled before. If the resolver's code
 * ended the call's future there is no lookup: also 1, and the caller's state is gone. */
int aloop__resolve(aloop_t *loop, const aloop__query_t *query, aloop__addresses_t **addresses,
                   aloop__resolved_fn done, void *arg, aloop__lookup_t **lookup);

/* The lookup is forgotten: `done` is not called. */
void aloop__resolve_cancel(aloop__lookup_t *lookup);

#endif
