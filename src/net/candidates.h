/* SPDX-License-Identifier: MIT
 *
 * The addresses of a host in the order in which a connect tries them: see candidates.c.
 */
#ifndef ALOOP_NET_CANDIDATES_H
#define ALOOP_NET_CANDIDATES_H

#include "net/address.h"

typedef struct aloop__candidates {
  struct {
    int family; /* AF_UNSPEC: not decided yet, or all */
    aloop__addresses_t *addresses;
    size_t next;
  } sides[2];
  int interleave; /* 0: the order they come in */
  size_t given;   /* handed out so far */
} aloop__candidates_t;

/* `first`: the family to begin with; AF_UNSPEC: that of the first address. */
void aloop__candidates_init(aloop__candidates_t *candidates, int interleave, int first);
void aloop__candidates_clear(aloop_t *loop, aloop__candidates_t *candidates);

/* Adds what a lookup found; the list stays the caller's. ALOOP_ENOMEM: a part may have been added. */
int aloop__candidates_add(aloop_t *loop, aloop__candidates_t *candidates, const aloop__addresses_t *addresses);

/* The next address; false: there is none by now. */
bool aloop__candidates_next(aloop__candidates_t *candidates, aloop__address_t *address);
bool aloop__candidates_left(const aloop__candidates_t *candidates);

#endif
