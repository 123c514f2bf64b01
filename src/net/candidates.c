/* SPDX-License-Identifier: MIT
 *
 * Which address comes next (RFC 8305, section 4).
 *
 * A resolver puts the addresses of a host into an order of preference, often all of one family first. When
 * that family does not work here, every one of them has to fail before the other is tried. So the families
 * lie on two sides: first come `interleave` addresses of the preferred one, then the two sides take turns, and
 * within a side the resolver's order holds. A side that is used up leaves its turns to the other.
 *
 * The sides grow while the connect goes on, because the two families are looked up apart and one answer may be
 * late. An address that was added before is not added again, so none is tried twice.
 *
 * Without interleaving there is one side and nothing is reordered. Handing out is O(1), adding is quadratic in
 * the number of addresses, of which hosts have few.
 */
#include "net/candidates.h"

#include "core/memory.h"

void aloop__candidates_init(aloop__candidates_t *candidates, int interleave, int first) {
  *candidates = (aloop__candidates_t){.interleave = interleave};
  candidates->sides[0].family = first;
}

void aloop__candidates_clear(aloop_t *loop, aloop__candidates_t *candidates) {
  for (int i = 0; i < 2; i++) aloop__memory_release(loop, candidates->sides[i].addresses);
  candidates->sides[0].addresses = candidates->sides[1].addresses = NULL;
}

static int side_of(aloop__candidates_t *candidates, int family) {
  if (candidates->interleave == 0) return 0;
  if (candidates->sides[0].family == AF_UNSPEC) candidates->sides[0].family = family;
  return candidates->sides[0].family == family ? 0 : 1;
}

int aloop__candidates_add(aloop_t *loop, aloop__candidates_t *candidates, const aloop__addresses_t *addresses) {
  for (size_t i = 0; i < addresses->count; i++) {
    const aloop__address_t *address = &addresses->list[i];
    int side = side_of(candidates, address->as.any.sa_family);
    int rc = aloop__addresses_add(loop, &candidates->sides[side].addresses, address);
    if (rc < 0) return rc;
  }
  return 0;
}

static bool has_left(const aloop__candidates_t *candidates, int side) {
  const aloop__addresses_t *addresses = candidates->sides[side].addresses;
  return addresses != NULL && candidates->sides[side].next < addresses->count;
}

bool aloop__candidates_left(const aloop__candidates_t *candidates) {
  return has_left(candidates, 0) || has_left(candidates, 1);
}

bool aloop__candidates_next(aloop__candidates_t *candidates, aloop__address_t *address) {
  size_t lead = (size_t)candidates->interleave;
  int side = candidates->given >= lead && (candidates->given - lead) % 2 == 0 ? 1 : 0;
  if (!has_left(candidates, side)) side = 1 - side;
  if (!has_left(candidates, side)) return false;
  *address = candidates->sides[side].addresses->list[candidates->sides[side].next++];
  candidates->given++;
  return true;
}
