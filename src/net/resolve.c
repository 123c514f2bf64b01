/* SPDX-License-Identifier: MIT
 *
 * Hosts to addresses, for connections and servers. Numeric hosts are answered at once, most of them without the
 * C library's help. Names are asked of the loop's resolver (names.c), whose list is copied into the form that a
 * connector or binder walks through: internet addresses only, each once, in the resolver's order.
 *
 * A lookup that is on its way is the resolver's future with a callback. Cancelling it takes the callback back
 * and cancels the future, so nobody ever waits for a resolver, and closing the loop needs nothing of its own:
 * the connector's and the resolver's futures end with it.
 */
#include "net/resolve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "future/future.h"
#include "net/names.h"

struct aloop__lookup {
  aloop_t *loop;
  aloop_future_t *future; /* the resolver's */
  aloop__resolved_fn done;
  void *arg;
  int type;
  int protocol;
};

/* ---- Answers --------------------------------------------------------------------------------------------- */

/* The list that getaddrinfo made, as ours. */
static int convert(aloop_t *loop, const struct addrinfo *found, int type, int protocol,
                   aloop__addresses_t **addresses) {
  aloop__addresses_t *list = NULL;
  for (const struct addrinfo *at = found; at != NULL; at = at->ai_next) {
    aloop__address_t address;
    if (!aloop__address_set(&address, at->ai_addr, at->ai_addrlen)) continue;
    address.type = type;
    address.protocol = protocol != 0 ? protocol : at->ai_protocol;
    if (aloop__addresses_add(loop, &list, &address) < 0) {
      aloop__memory_release(loop, list);
      return ALOOP_ENOMEM;
    }
  }
  if (list == NULL) return ALOOP_EAI_NODATA;
  *addresses = list;
  return 0;
}

/* What a future of a resolver ended with. */
static int result_of(aloop_t *loop, aloop_future_t *future, int type, int protocol,
                     aloop__addresses_t **addresses) {
  const struct addrinfo *found;
  int rc = aloop_future_result_ptr(future, &found);
  if (rc == ALOOP_ENOENT && aloop_future_result(future) >= 0) return ALOOP_EAI_NODATA;
  return rc < 0 ? rc : convert(loop, found, type, protocol, addresses);
}

/* ---- At once --------------------------------------------------------------------------------------------- */

/* Without the protocol, of which the C library knows only the oldest; the caller's is put into the answer. */
static struct addrinfo hints_of(const aloop__query_t *query) {
  struct addrinfo hints;
  memset(&hints, 0, sizeof hints);
  hints.ai_flags = query->flags | AI_NUMERICSERV;
  hints.ai_family = query->family;
  hints.ai_socktype = query->type;
  return hints;
}

static int add_one(aloop_t *loop, const aloop__query_t *query, aloop__address_t *address,
                   aloop__addresses_t **addresses) {
  address->type = query->type;
  address->protocol = query->protocol;
  return aloop__addresses_add(loop, addresses, address);
}

/* IPv4 first: without a wish of the caller's it is what most would call "the" address of a machine. */
static int every_interface(aloop_t *loop, const aloop__query_t *query, aloop__addresses_t **addresses) {
  static const int families[] = {AF_INET, AF_INET6};
  aloop__addresses_t *list = NULL;
  for (int i = 0; i < 2; i++) {
    aloop__address_t address;
    if (query->family != AF_UNSPEC && query->family != families[i]) continue;
    aloop__address_any(&address, families[i], query->port);
    if (add_one(loop, query, &address, &list) < 0) {
      aloop__memory_release(loop, list);
      return ALOOP_ENOMEM;
    }
  }
  if (list == NULL) return ALOOP_EAI_FAMILY;
  *addresses = list;
  return 0;
}

/* Asks the C library without the network. */
static int ask_numeric(aloop_t *loop, const aloop__query_t *query, aloop__addresses_t **addresses) {
  struct addrinfo hints = hints_of(query);
  struct addrinfo *found;
  char port[8];
  hints.ai_flags |= AI_NUMERICHOST;
  snprintf(port, sizeof port, "%d", query->port);
  int result = getaddrinfo(query->host, port, &hints, &found);
  if (result != 0) return aloop__names_error(result, errno);
  int rc = convert(loop, found, query->type, query->protocol, addresses);
  freeaddrinfo(found);
  return rc;
}

/* 0, 1 if it takes a name server, or an error. */
static int resolve_here(aloop_t *loop, const aloop__query_t *query, aloop__addresses_t **addresses) {
  aloop__address_t address;
  if (query->host == NULL) return every_interface(loop, query, addresses);
  bool numeric = aloop__address_parse(&address, query->host, query->port);
  if (numeric && (query->family == AF_UNSPEC || query->family == address.as.any.sa_family)) {
    aloop__addresses_t *list = NULL;
    int rc = add_one(loop, query, &address, &list);
    if (rc == 0) *addresses = list;
    return rc;
  }
  if (numeric && (query->flags & AI_V4MAPPED) == 0) return ALOOP_EAI_ADDRFAMILY;
  if ((query->flags & AI_NUMERICHOST) == 0 && !aloop__names_maybe_numeric(query->host)) return 1;
  int rc = ask_numeric(loop, query, addresses);
  return rc == ALOOP_EAI_NONAME && (query->flags & AI_NUMERICHOST) == 0 ? 1 : rc;
}

/* ---- Later ----------------------------------------------------------------------------------------------- */

static void answered(aloop_future_t *future, void *arg) {
  aloop__lookup_t lookup = *(aloop__lookup_t *)arg;
  aloop__addresses_t *addresses = NULL;
  aloop__memory_release(lookup.loop, arg);
  int rc = result_of(lookup.loop, future, lookup.type, lookup.protocol, &addresses);
  aloop_future_unref(future);
  lookup.done(lookup.loop, lookup.arg, rc, addresses);
}

/* Makes a lookup of a pending future. */
static int await(aloop_future_t *future, const aloop__query_t *query, aloop__resolved_fn done, void *arg,
                 aloop__lookup_t **out) {
  aloop_t *loop = future->object.loop;
  aloop__lookup_t *lookup = aloop__memory_zero(loop, sizeof *lookup);
  if (lookup == NULL || aloop__future_watch(future, answered, lookup) < 0) {
    aloop__memory_release(loop, lookup);
    aloop_future_cancel(future);
    return ALOOP_ENOMEM;
  }
  aloop_future_ref(future);
  *lookup = (aloop__lookup_t){loop, future, done, arg, query->type, query->protocol};
  *out = lookup;
  return 1;
}

int aloop__resolve(aloop_t *loop, const aloop__query_t *query, aloop__addresses_t **addresses,
                   aloop__resolved_fn done, void *arg, aloop__lookup_t **out) {
  int rc = resolve_here(loop, query, addresses);
  if (rc != 1) return rc;
  struct addrinfo hints = hints_of(query);
  char port[8];
  snprintf(port, sizeof port, "%d", query->port);
  aloop_future_ref(query->future);
  aloop_future_t *future = aloop__names_ask(loop, query->host, port, &hints);
  bool gone = aloop_future_done(query->future);
  aloop_future_unref(query->future);
  if (gone)
    aloop_future_cancel(future);
  else if (future == NULL)
    rc = ALOOP_ENOMEM;
  else if (aloop_future_done(future))
    rc = result_of(loop, future, query->type, query->protocol, addresses);
  else
    rc = await(future, query, done, arg, out);
  aloop_future_unref(future);
  return rc;
}

void aloop__resolve_cancel(aloop__lookup_t *lookup) {
  aloop_future_t *future = lookup->future;
  aloop__future_unwatch(future, answered, lookup);
  aloop__memory_release(lookup->loop, lookup);
  aloop_future_cancel(future);
  aloop_future_unref(future);
}
