/* SPDX-License-Identifier: MIT
 *
 * The order in which the addresses of a host are tried.
 */
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "harness.h"
#include "net/candidates.h"

/* "a6 b6 c4": the last character of each word is the family, the first one tells addresses apart. */
static aloop__addresses_t *list_of(aloop_t *loop, const char *words) {
  aloop__addresses_t *list = NULL;
  for (; *words != '\0'; words += words[2] == ' ' ? 3 : 2) {
    char host[16];
    aloop__address_t address;
    snprintf(host, sizeof host, words[1] == '6' ? "::%x" : "127.0.0.%d", (unsigned)(words[0] - 'a' + 1));
    assert_true(aloop__address_parse(&address, host, 80));
    assert_int_equal(aloop__addresses_add(loop, &list, &address), 0);
  }
  return list;
}

static void add(aloop_t *loop, aloop__candidates_t *candidates, const char *words) {
  aloop__addresses_t *list = list_of(loop, words);
  assert_int_equal(aloop__candidates_add(loop, candidates, list), 0);
  aloop__memory_release(loop, list);
}

static char name_of(const aloop__address_t *address) {
  if (address->as.any.sa_family == AF_INET6) return (char)('a' + address->as.v6.sin6_addr.s6_addr[15] - 1);
  return (char)('a' + (ntohl(address->as.v4.sin_addr.s_addr) & 0xff) - 1);
}

/* Takes the next `count` and compares them. */
static void expect(aloop__candidates_t *candidates, const char *words) {
  char got[64] = "";
  size_t used = 0;
  for (size_t left = (strlen(words) + 1) / 3; left > 0; left--) {
    aloop__address_t address;
    if (!aloop__candidates_next(candidates, &address)) break;
    got[used++] = name_of(&address);
    got[used++] = address.as.any.sa_family == AF_INET6 ? '6' : '4';
    got[used++] = ' ';
  }
  if (used > 0) got[used - 1] = '\0';
  assert_string_equal(got, words);
}

static void expect_order(env_t *env, int interleave, int first, const char *found, const char *order) {
  aloop__candidates_t candidates;
  aloop__address_t more;
  aloop__candidates_init(&candidates, interleave, first);
  add(env->loop, &candidates, found);
  expect(&candidates, order);
  assert_false(aloop__candidates_left(&candidates));
  assert_false(aloop__candidates_next(&candidates, &more));
  aloop__candidates_clear(env->loop, &candidates);
}

static void families_take_turns(void **state) {
  expect_order(*state, 1, AF_UNSPEC, "a6 b6 c6 a4 b4", "a6 a4 b6 b4 c6");
}

static void the_first_family_is_the_resolvers(void **state) {
  expect_order(*state, 1, AF_UNSPEC, "a4 a6 b6 b4", "a4 a6 b4 b6");
}

static void the_first_family_may_be_set(void **state) {
  expect_order(*state, 1, AF_INET6, "a4 a6 b6 b4", "a6 a4 b6 b4");
}

static void the_first_family_may_lead_by_more(void **state) {
  expect_order(*state, 2, AF_UNSPEC, "a6 b6 c6 a4 b4", "a6 b6 a4 c6 b4");
}

static void without_interleaving_nothing_moves(void **state) {
  expect_order(*state, 0, AF_UNSPEC, "a6 b6 a4 c6", "a6 b6 a4 c6");
}

static void one_family_alone_keeps_its_order(void **state) {
  expect_order(*state, 1, AF_INET6, "b4 a4 c4", "b4 a4 c4");
}

static void a_late_family_joins_in(void **state) {
  env_t *env = *state;
  aloop__candidates_t candidates;
  aloop__candidates_init(&candidates, 1, AF_INET6);
  assert_false(aloop__candidates_left(&candidates));
  add(env->loop, &candidates, "a4 b4 c4");
  expect(&candidates, "a4");
  add(env->loop, &candidates, "a6 b6");
  expect(&candidates, "b4 a6 c4 b6");
  aloop__candidates_clear(env->loop, &candidates);
}

static void nothing_is_tried_twice(void **state) {
  env_t *env = *state;
  aloop__candidates_t candidates;
  aloop__candidates_init(&candidates, 1, AF_UNSPEC);
  add(env->loop, &candidates, "a6 a4");
  expect(&candidates, "a6 a4");
  add(env->loop, &candidates, "a4 a6 b4");
  expect(&candidates, "b4");
  assert_false(aloop__candidates_left(&candidates));
  aloop__candidates_clear(env->loop, &candidates);
}

TESTS(T(families_take_turns), T(the_first_family_is_the_resolvers), T(the_first_family_may_be_set),
      T(the_first_family_may_lead_by_more), T(without_interleaving_nothing_moves),
      T(one_family_alone_keeps_its_order), T(a_late_family_joins_in), T(nothing_is_tried_twice))
