/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on names and resolvers: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "misuse.h"

#include <netinet/in.h>

#include "script.h"

static const struct addrinfo none = {0};

static struct sockaddr *loopback(void) {
  static struct sockaddr_in address = {.sin_family = AF_INET};
  return (struct sockaddr *)(void *)&address;
}

enum { SIZE = sizeof(struct sockaddr_in), NUMERIC = NI_NUMERICHOST | NI_NUMERICSERV };

static void mistakes_of_names(misuse_t *m) {
  MISTAKE(aloop_getaddrinfo(NULL, "127.0.0.1", "80", &none, 0), 0);
  MISTAKE_OF_FUTURE(aloop_getaddrinfo(m->loop, NULL, NULL, &none, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_getaddrinfo(m->loop, "", "80", &none, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_getaddrinfo(m->loop, "127.0.0.1", "", &none, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_getaddrinfo(m->loop, "127.0.0.1", "80", &none, -2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_getaddrinfo(m->loop, "localhost", "80", &none, INT64_MIN), ALOOP_EINVAL);
}

static void mistakes_of_addresses(misuse_t *m) {
  MISTAKE(aloop_getnameinfo(NULL, loopback(), SIZE, NUMERIC, 0), 0);
  MISTAKE_OF_FUTURE(aloop_getnameinfo(m->loop, NULL, SIZE, NUMERIC, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_getnameinfo(m->loop, loopback(), 0, NUMERIC, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_getnameinfo(m->loop, loopback(), 4096, NUMERIC, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_getnameinfo(m->loop, loopback(), SIZE, NUMERIC, -2), ALOOP_EINVAL);
}

/* What the C library answers is no mistake, as the wish may come from a user of the program. */
static void ordinary_failures(misuse_t *m) {
  struct addrinfo wish = {.ai_family = AF_INET6};
  ORDINARY_OF_FUTURE(aloop_getaddrinfo(m->loop, "127.0.0.1", "80", &wish, 0), ALOOP_EAI_ADDRFAMILY);
  ORDINARY_OF_FUTURE(aloop_getaddrinfo(m->loop, "127.0.0.1", "65536", &none, 0), ALOOP_EAI_SERVICE);
  ORDINARY_OF_FUTURE(aloop_getnameinfo(m->loop, loopback(), SIZE - 1, NUMERIC, 0), ALOOP_EAI_FAMILY);
}

/* A resolver with this size and this function. */
static int set(misuse_t *m, aloop_t *loop, size_t size, bool function) {
  aloop_resolver_t table = script_resolver;
  table.size = size;
  if (!function) table.getaddrinfo = NULL;
  int rc = aloop_set_resolver(loop, &table, m);
  if (rc == 0) aloop_set_resolver(loop, NULL, NULL);
  return rc;
}

static void mistakes_of_resolvers(misuse_t *m) {
  MISTAKE(set(m, NULL, sizeof(aloop_resolver_t), true), ALOOP_EINVAL);
  MISTAKE(set(m, m->loop, 0, true), ALOOP_EINVAL);
  MISTAKE(set(m, m->loop, sizeof(size_t), true), ALOOP_EINVAL);
  MISTAKE(set(m, m->loop, sizeof(aloop_resolver_t), false), ALOOP_EINVAL);
  ORDINARY(set(m, m->loop, sizeof(aloop_resolver_t), true), 0);
  MISTAKE(aloop_get_resolver(NULL, OUT) != NULL, true);
  ORDINARY(aloop_get_resolver(m->loop, NULL) != NULL, true);
}

static aloop_future_t *answer_elsewhere(aloop_t *loop, const char *host, const char *service,
                                        const struct addrinfo *hints, void *arg) {
  (void)loop, (void)host, (void)service, (void)hints;
  return aloop_future_new(arg);
}

static void mistakes_in_resolvers(misuse_t *m) {
  aloop_resolver_t table = {.size = sizeof table, .getaddrinfo = answer_elsewhere};
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_set_resolver(m->loop, &table, other), 0);
  MISTAKE_OF_FUTURE(aloop_getaddrinfo(m->loop, "name.test", "80", &none, ALOOP_FOREVER), ALOOP_EOTHERLOOP);
  assert_int_equal(aloop_set_resolver(m->loop, NULL, NULL), 0);
  aloop_free(other);
}

static void calls_on_a_closed_loop(misuse_t *m) {
  MISTAKE(aloop_set_resolver(m->loop, &script_resolver, m), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_getaddrinfo(m->loop, "127.0.0.1", "80", &none, 0), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_getnameinfo(m->loop, loopback(), SIZE, NUMERIC, 0), ALOOP_ECLOSED);
}

static void calls_of_another_thread(misuse_t *m) {
  MISTAKE(aloop_getaddrinfo(m->loop, "127.0.0.1", "80", &none, 0), 0);
  MISTAKE(aloop_getnameinfo(m->loop, loopback(), SIZE, NUMERIC, 0), 0);
  MISTAKE(aloop_set_resolver(m->loop, NULL, NULL), ALOOP_ENOTLOOPTHREAD);
}

static void names(void **state) {
  in_both_modes(*state, mistakes_of_names);
  in_both_modes(*state, mistakes_of_addresses);
  in_both_modes(*state, ordinary_failures);
}

static void resolvers(void **state) {
  in_both_modes(*state, mistakes_of_resolvers);
  in_both_modes(*state, mistakes_in_resolvers);
}

static void closed_loops(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    misuse_begin(&m, *state, debug);
    assert_int_equal(aloop_close(m.loop), 0);
    calls_on_a_closed_loop(&m);
    misuse_end(&m);
  }
}

static void another_thread(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  misuse_in_thread(&m, calls_of_another_thread);
  misuse_end(&m);
}

TESTS(T(names), T(resolvers), T(closed_loops), T(another_thread))
