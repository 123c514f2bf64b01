/* SPDX-License-Identifier: MIT
 *
 * Names to addresses. Numeric hosts are answered at once. For names there is only the C library's getaddrinfo,
 * which blocks, so each lookup gets a short-lived thread of its own: detached, with a small stack and every
 * signal blocked. A thread that waits for a name server cannot be stopped; it can be forgotten. That is what
 * cancelling, a timeout and closing the loop do, so that nobody ever waits for a resolver.
 *
 * A lookup is a block of malloc's memory (the loop's allocator may be gone before the thread) with a count of
 * two: the thread's and the loop's. Its mutex guards one thing, whether the loop may still be told: the thread
 * posts while it holds the mutex, so a loop that has taken itself out of `loop` under the same mutex is never
 * touched again. The loop's side of the block (done, arg, link) belongs to the loop's thread alone.
 *
 * A post that is on its way points at the lookup. Cancelling then only clears `done`, and the post releases the
 * loop's count. When the loop is closed its queues are dropped uncalled, so aloop__resolve_close releases the
 * count itself.
 *
 * In the child of a fork the threads are gone, whatever they were doing: their half of each lookup is released
 * with the loop's, and the mutex, perhaps locked for ever, is left alone. Such a lookup is not begun again; its
 * timeout ends it.
 *
 * Left out: caching, limits on the number of threads, a resolver without threads.
 */
#include "net/resolve.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/memory.h"
#include "net/driver.h"

enum { STACK_SIZE = 256 * 1024, POST_RETRY_NS = 10000000 };

struct aloop__lookup {
  aloop__list_t link; /* in net->lookups */
  aloop__resolved_fn done;
  void *arg;
  unsigned forks; /* when it began */

  pthread_mutex_t mutex;
  aloop_t *loop; /* NULL: nobody wants to know */
  bool posted;
  int refs;

  /* The question, and the answer once posted. */
  struct addrinfo hints;
  int protocol;
  int result; /* of getaddrinfo */
  int system_error;
  struct addrinfo *found;
  char port[8];
  char host[];
};

/* ---- Answers --------------------------------------------------------------------------------------------- */

static int error_of(int result, int system_error) {
  switch (result) {
  case 0:
    return 0;
#ifdef EAI_ADDRFAMILY
  case EAI_ADDRFAMILY:
    return ALOOP_EAI_ADDRFAMILY;
#endif
  case EAI_AGAIN:
    return ALOOP_EAI_AGAIN;
  case EAI_BADFLAGS:
    return ALOOP_EAI_BADFLAGS;
  case EAI_FAMILY:
    return ALOOP_EAI_FAMILY;
  case EAI_MEMORY:
    return ALOOP_EAI_MEMORY;
#if defined(EAI_NODATA) && EAI_NODATA != EAI_NONAME
  case EAI_NODATA:
    return ALOOP_EAI_NODATA;
#endif
  case EAI_NONAME:
    return ALOOP_EAI_NONAME;
#ifdef EAI_OVERFLOW
  case EAI_OVERFLOW:
    return ALOOP_EAI_OVERFLOW;
#endif
  case EAI_SERVICE:
    return ALOOP_EAI_SERVICE;
  case EAI_SOCKTYPE:
    return ALOOP_EAI_SOCKTYPE;
  case EAI_SYSTEM:
    return system_error > 0 ? -system_error : ALOOP_EAI_FAIL;
  default:
    return ALOOP_EAI_FAIL;
  }
}

/* The list that getaddrinfo made, as ours. */
static int convert(aloop_t *loop, const struct addrinfo *found, const aloop__query_t *query,
                   aloop__addresses_t **addresses) {
  aloop__addresses_t *list = NULL;
  for (const struct addrinfo *at = found; at != NULL; at = at->ai_next) {
    aloop__address_t address;
    if (!aloop__address_set(&address, at->ai_addr, at->ai_addrlen)) continue;
    address.type = query->type;
    address.protocol = query->protocol != 0 ? query->protocol : at->ai_protocol;
    if (aloop__addresses_add(loop, &list, &address) < 0) {
      aloop__memory_release(loop, list);
      return ALOOP_ENOMEM;
    }
  }
  if (list == NULL) return ALOOP_EAI_NODATA;
  *addresses = list;
  return 0;
}

/* ---- Without a thread ------------------------------------------------------------------------------------ */

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

/* Whether the C library might take it for a number in one of the older spellings ("127.1"), or for an
 * address with a zone. Names may pass: asking about them costs little. */
static bool may_be_numeric(const aloop__query_t *query) {
  return (query->flags & AI_NUMERICHOST) || isdigit((unsigned char)query->host[0]) ||
         strpbrk(query->host, ":%") != NULL;
}

/* Asks the C library without the network. */
static int ask_numeric(aloop_t *loop, const aloop__query_t *query, aloop__addresses_t **addresses) {
  struct addrinfo hints = hints_of(query);
  struct addrinfo *found;
  char port[8];
  hints.ai_flags |= AI_NUMERICHOST;
  snprintf(port, sizeof port, "%d", query->port);
  int result = getaddrinfo(query->host, port, &hints, &found);
  if (result != 0) return error_of(result, errno);
  int rc = convert(loop, found, query, addresses);
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
  if (!may_be_numeric(query)) return 1;
  int rc = ask_numeric(loop, query, addresses);
  return rc == ALOOP_EAI_NONAME && (query->flags & AI_NUMERICHOST) == 0 ? 1 : rc;
}

/* ---- With a thread --------------------------------------------------------------------------------------- */

static void release(aloop__lookup_t *lookup) {
  if (lookup->found != NULL) freeaddrinfo(lookup->found);
  pthread_mutex_destroy(&lookup->mutex);
  free(lookup);
}

/* Gives one count back. The mutex is held, and no more afterwards. */
static void drop_locked(aloop__lookup_t *lookup) {
  bool last = --lookup->refs == 0;
  pthread_mutex_unlock(&lookup->mutex);
  if (last) release(lookup);
}

/* In the child of a fork. A lookup that is not known to be posted stays allocated: nobody can tell what its
 * thread was at. */
static void drop_orphan(aloop__lookup_t *lookup) {
  aloop__list_remove(&lookup->link);
  if (lookup->posted) release(lookup);
}

/* The loop's side is done with the lookup, and the thread may not tell the loop any more. With
 * `wait_for_post`, one that is on its way is left to `deliver`. */
static void drop_loop_side(aloop__lookup_t *lookup, bool wait_for_post) {
  if (lookup->forks != aloop__current_forks()) {
    if (!wait_for_post || !lookup->posted) drop_orphan(lookup);
    return;
  }
  pthread_mutex_lock(&lookup->mutex);
  if (wait_for_post && lookup->posted) {
    pthread_mutex_unlock(&lookup->mutex);
    return;
  }
  aloop__list_remove(&lookup->link);
  lookup->loop = NULL;
  drop_locked(lookup);
}

static void deliver(aloop_t *loop, void *arg) {
  aloop__lookup_t *lookup = arg;
  aloop__resolved_fn done = lookup->done;
  void *done_arg = lookup->arg;
  aloop__addresses_t *addresses = NULL;
  int rc = error_of(lookup->result, lookup->system_error);
  aloop__query_t query = {.type = lookup->hints.ai_socktype, .protocol = lookup->protocol};
  if (rc == 0 && done != NULL) rc = convert(loop, lookup->found, &query, &addresses);
  drop_loop_side(lookup, false);
  if (done != NULL) done(loop, done_arg, rc, addresses);
}

static void name_thread(void) {
#if defined(__linux__) && defined(_GNU_SOURCE)
  pthread_setname_np(pthread_self(), "aloop-resolve");
#endif
}

static void *run_lookup(void *arg) {
  aloop__lookup_t *lookup = arg;
  name_thread();
  lookup->result = getaddrinfo(lookup->host, lookup->port, &lookup->hints, &lookup->found);
  if (lookup->result != 0) lookup->found = NULL;
  lookup->system_error = errno;
  pthread_mutex_lock(&lookup->mutex);
  while (lookup->loop != NULL && !lookup->posted) {
    int rc = aloop_call_soon_threadsafe_from(lookup->loop, deliver, lookup, NULL);
    lookup->posted = rc == 0;
    if (rc != ALOOP_ENOMEM) break;
    /* Nobody else would ever end the lookup, so the answer waits for memory. */
    pthread_mutex_unlock(&lookup->mutex);
    nanosleep(&(struct timespec){.tv_nsec = POST_RETRY_NS}, NULL);
    pthread_mutex_lock(&lookup->mutex);
  }
  drop_locked(lookup);
  return NULL;
}

/* The new thread inherits a mask that blocks everything: the host's signals are for the host's threads. */
static int start_thread(aloop__lookup_t *lookup) {
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  if (pthread_attr_init(&attributes) != 0) return ALOOP_ENOMEM;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, STACK_SIZE);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = pthread_create(&thread, &attributes, run_lookup, lookup);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return -rc;
}

static aloop__lookup_t *new_lookup(aloop_t *loop, const aloop__query_t *query, aloop__resolved_fn done,
                                   void *arg) {
  size_t length = strlen(query->host) + 1;
  aloop__lookup_t *lookup = calloc(1, sizeof *lookup + length);
  if (lookup == NULL) return NULL;
  if (pthread_mutex_init(&lookup->mutex, NULL) != 0) {
    free(lookup);
    return NULL;
  }
  lookup->done = done;
  lookup->arg = arg;
  lookup->forks = aloop__current_forks();
  lookup->loop = loop;
  lookup->refs = 2;
  lookup->hints = hints_of(query);
  lookup->protocol = query->protocol;
  snprintf(lookup->port, sizeof lookup->port, "%d", query->port);
  memcpy(lookup->host, query->host, length);
  return lookup;
}

int aloop__resolve(aloop_t *loop, const aloop__query_t *query, aloop__addresses_t **addresses,
                   aloop__resolved_fn done, void *arg, aloop__lookup_t **out) {
  int rc = resolve_here(loop, query, addresses);
  if (rc != 1) return rc;
  aloop__net_t *net = aloop__net_open(loop);
  aloop__lookup_t *lookup = net != NULL ? new_lookup(loop, query, done, arg) : NULL;
  if (lookup == NULL) return ALOOP_ENOMEM;
  aloop__list_append(&net->lookups, &lookup->link);
  rc = start_thread(lookup);
  if (rc < 0) {
    aloop__list_remove(&lookup->link);
    release(lookup);
    return rc;
  }
  *out = lookup;
  return 1;
}

void aloop__resolve_cancel(aloop__lookup_t *lookup) {
  lookup->done = NULL;
  drop_loop_side(lookup, true);
}

void aloop__resolve_close(aloop_t *loop) {
  aloop__net_t *net = aloop__net_of(loop);
  while (!aloop__list_empty(&net->lookups))
    drop_loop_side(ALOOP_CONTAINER_OF(net->lookups.next, aloop__lookup_t, link), false);
}
