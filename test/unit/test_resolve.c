/* SPDX-License-Identifier: MIT
 *
 * Names to addresses: what is answered at once, what the helper thread brings, and what becomes of a lookup
 * that nobody waits for any more. threads: yes
 */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/memory.h"
#include "harness.h"
#include "names.h"
#include "net/resolve.h"

/* ---- Asking ---------------------------------------------------------------------------------------------- */

typedef struct answer {
  bool came;
  int calls;
  int error;
  aloop__addresses_t *addresses;
  aloop__lookup_t *lookup;
} answer_t;

static void take(aloop_t *loop, void *arg, int error, aloop__addresses_t *addresses) {
  (void)loop;
  answer_t *answer = arg;
  answer->came = true;
  answer->calls++;
  answer->error = error;
  answer->addresses = addresses;
}

static int ask(env_t *env, const aloop__query_t *query, answer_t *answer) {
  *answer = (answer_t){false};
  return aloop__resolve(env->loop, query, &answer->addresses, take, answer, &answer->lookup);
}

static int ask_host(env_t *env, const char *host, int family, int flags, answer_t *answer) {
  aloop__query_t query = {.host = host, .port = 80, .family = family, .type = SOCK_STREAM, .flags = flags};
  return ask(env, &query, answer);
}

/* Asks for a name and waits for the answer; returns its error. */
static int answer_to(env_t *env, const char *host, answer_t *answer) {
  assert_int_equal(ask_host(env, host, AF_UNSPEC, 0, answer), 1);
  run_until(env->loop, &answer->came);
  return answer->error;
}

static void assert_address(const answer_t *answer, size_t index, const char *text) {
  char room[ALOOP__ADDRESS_TEXT];
  assert_non_null(answer->addresses);
  assert_true(index < answer->addresses->count);
  const aloop__address_t *address = &answer->addresses->list[index];
  assert_string_equal(aloop__address_text(&address->as.any, address->size, room), text);
  assert_int_equal(address->type, SOCK_STREAM);
}

static void release(env_t *env, answer_t *answer) {
  aloop__memory_release(env->loop, answer->addresses);
}

static void start_slow(env_t *env, answer_t *answer) {
  assert_int_equal(ask_host(env, "slow.test", AF_UNSPEC, 0, answer), 1);
  names_await_slow();
}

static void await_post(const env_t *env) {
  while (!aloop__mailbox_pending(env->loop)) sched_yield();
}

/* ---- Without a thread ------------------------------------------------------------------------------------ */

static void numeric_hosts_are_answered_at_once(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "127.0.0.1", AF_UNSPEC, 0, &answer), 0);
  assert_int_equal(answer.addresses->count, 1);
  assert_address(&answer, 0, "127.0.0.1 port 80");
  release(env, &answer);
  assert_int_equal(ask_host(env, "::1", AF_INET6, 0, &answer), 0);
  assert_address(&answer, 0, "::1 port 80");
  release(env, &answer);
}

static void old_spellings_of_numbers_are_answered_at_once(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "127.1", AF_UNSPEC, 0, &answer), 0);
  assert_address(&answer, 0, "127.0.0.1 port 80");
  release(env, &answer);
}

static void zones_are_answered_at_once(void **state) {
  env_t *env = *state;
  char name[IF_NAMESIZE], host[64];
  answer_t answer;
  if (if_indextoname(1, name) == NULL) skip();
  snprintf(host, sizeof host, "fe80::1%%%s", name);
  assert_int_equal(ask_host(env, host, AF_UNSPEC, 0, &answer), 0);
  assert_int_equal(answer.addresses->count, 1);
  assert_int_equal(answer.addresses->list[0].as.v6.sin6_scope_id, 1);
  release(env, &answer);
}

static void a_numeric_host_of_another_family_is_an_error(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "127.0.0.1", AF_INET6, 0, &answer), ALOOP_EAI_ADDRFAMILY);
  assert_int_equal(ask_host(env, "::1", AF_INET, 0, &answer), ALOOP_EAI_ADDRFAMILY);
}

static void ipv4_hosts_can_be_mapped(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "127.0.0.1", AF_INET6, AI_V4MAPPED, &answer), 0);
  assert_address(&answer, 0, "::ffff:127.0.0.1 port 80");
  release(env, &answer);
}

static void names_can_be_ruled_out(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "localhost", AF_UNSPEC, AI_NUMERICHOST, &answer), ALOOP_EAI_NONAME);
}

static void no_host_means_every_interface(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, NULL, AF_UNSPEC, 0, &answer), 0);
  assert_int_equal(answer.addresses->count, 2);
  assert_address(&answer, 0, "0.0.0.0 port 80");
  assert_address(&answer, 1, ":: port 80");
  release(env, &answer);
  assert_int_equal(ask_host(env, NULL, AF_INET6, 0, &answer), 0);
  assert_int_equal(answer.addresses->count, 1);
  assert_address(&answer, 0, ":: port 80");
  release(env, &answer);
  assert_int_equal(ask_host(env, NULL, AF_UNIX, 0, &answer), ALOOP_EAI_FAMILY);
}

static void the_protocol_asked_for_is_in_the_answer(void **state) {
  env_t *env = *state;
  answer_t answer;
  aloop__query_t query = {.host = "127.0.0.1", .type = SOCK_STREAM, .protocol = 262};
  assert_int_equal(ask(env, &query, &answer), 0);
  assert_int_equal(answer.addresses->list[0].protocol, 262);
  release(env, &answer);
  query.host = "name.test";
  assert_int_equal(ask(env, &query, &answer), 1);
  run_until(env->loop, &answer.came);
  assert_int_equal(answer.addresses->list[0].protocol, 262);
  release(env, &answer);
}

/* ---- With a thread --------------------------------------------------------------------------------------- */

static void names_are_looked_up_in_a_thread(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(answer_to(env, "self.test", &answer), 0);
  assert_int_equal(answer.calls, 1);
  assert_int_equal(answer.addresses->count, 1);
  assert_address(&answer, 0, "127.0.0.1 port 80");
  assert_false(pthread_equal(names_thread, pthread_self()));
  release(env, &answer);
}

static void localhost_is_found(void **state) {
  env_t *env = *state;
  answer_t answer;
  struct addrinfo *list;
  if (getaddrinfo("localhost", NULL, NULL, &list) != 0) skip(); /* no /etc/hosts, as in a bare chroot */
  freeaddrinfo(list);
  assert_int_equal(answer_to(env, "localhost", &answer), 0);
  assert_true(answer.addresses->count >= 1);
  release(env, &answer);
}

static void a_name_that_cannot_be_is_an_error(void **state) {
  env_t *env = *state;
  answer_t answer;
  char host[80]; /* a label longer than 63 bytes is refused before a name server is asked */
  memset(host, 'a', 70);
  snprintf(host + 70, sizeof host - 70, ".invalid");
  int error = answer_to(env, host, &answer);
  assert_true(error <= ALOOP_EAI_ADDRFAMILY && error >= ALOOP_EAI_SOCKTYPE);
  assert_null(answer.addresses);
}

static void answers_keep_their_order_without_repeats(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(answer_to(env, "many.test", &answer), 0);
  assert_int_equal(answer.addresses->count, 2);
  assert_address(&answer, 0, "::1 port 80");
  assert_address(&answer, 1, "127.0.0.1 port 80");
  release(env, &answer);
}

static void an_answer_without_internet_addresses_is_no_data(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(answer_to(env, "odd.test", &answer), ALOOP_EAI_NODATA);
}

static void the_resolvers_errors_have_codes(void **state) {
  env_t *env = *state;
  static const int pairs[][3] = {{EAI_AGAIN, 0, ALOOP_EAI_AGAIN},       {EAI_BADFLAGS, 0, ALOOP_EAI_BADFLAGS},
                                 {EAI_FAIL, 0, ALOOP_EAI_FAIL},         {EAI_FAMILY, 0, ALOOP_EAI_FAMILY},
                                 {EAI_MEMORY, 0, ALOOP_EAI_MEMORY},     {EAI_NONAME, 0, ALOOP_EAI_NONAME},
                                 {EAI_SERVICE, 0, ALOOP_EAI_SERVICE},   {EAI_SOCKTYPE, 0, ALOOP_EAI_SOCKTYPE},
                                 {EAI_SYSTEM, EMFILE, ALOOP_EMFILE},    {EAI_SYSTEM, 0, ALOOP_EAI_FAIL},
                                 {EAI_OVERFLOW, 0, ALOOP_EAI_OVERFLOW}, {-1000, 0, ALOOP_EAI_FAIL}};
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    answer_t answer;
    names_result = pairs[i][0];
    names_errno = pairs[i][1];
    assert_int_equal(answer_to(env, "fail.test", &answer), pairs[i][2]);
  }
}

static void the_thread_takes_no_signals(void **state) {
  env_t *env = *state;
  answer_t answer;
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  assert_int_equal(answer_to(env, "self.test", &answer), 0);
  assert_true(sigismember(&names_mask, SIGINT));
  assert_true(sigismember(&names_mask, SIGCHLD));
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  assert_int_equal(sigismember(&before, SIGINT), sigismember(&after, SIGINT));
  release(env, &answer);
}

static void many_lookups_go_side_by_side(void **state) {
  env_t *env = *state;
  answer_t answers[4];
  for (int i = 0; i < 4; i++) start_slow(env, &answers[i]);
  for (int i = 0; i < 4; i++) names_open_gate();
  for (int i = 0; i < 4; i++) {
    run_until(env->loop, &answers[i].came);
    assert_int_equal(answers[i].calls, 1);
    release(env, &answers[i]);
  }
}

/* ---- Forgetting ------------------------------------------------------------------------------------------ */

static void a_cancelled_lookup_says_nothing(void **state) {
  env_t *env = *state;
  answer_t answer;
  start_slow(env, &answer);
  aloop__resolve_cancel(answer.lookup);
  names_open_gate();
  names_finish(env->loop);
  assert_true(aloop_run_once(env->loop, 0) >= 0);
  assert_false(answer.came);
}

static void an_answer_on_its_way_can_be_cancelled(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "name.test", AF_UNSPEC, 0, &answer), 1);
  await_post(env);
  aloop__resolve_cancel(answer.lookup);
  assert_true(aloop_run_once(env->loop, 0) >= 0);
  assert_false(answer.came);
  names_finish(env->loop);
}

static void cancelling_at_any_moment_is_safe(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 100; i++) {
    answer_t answer;
    assert_int_equal(ask_host(env, "name.test", AF_UNSPEC, 0, &answer), 1);
    for (int spin = 0; spin < i * 50; spin++) sched_yield();
    aloop__resolve_cancel(answer.lookup);
    aloop_run_once(env->loop, 0);
    assert_false(answer.came);
  }
  names_finish(env->loop);
}

static void closing_the_loop_does_not_wait_for_a_lookup(void **state) {
  env_t *env = *state;
  answer_t answer;
  start_slow(env, &answer);
  aloop_close(env->loop);
  aloop__resolve_cancel(answer.lookup); /* as whoever waits does when the loop ends it */
  assert_false(answer.came);
  names_open_gate();
  names_await_freed();
  assert_false(answer.came);
}

static void closing_the_loop_drops_an_answer_on_its_way(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "name.test", AF_UNSPEC, 0, &answer), 1);
  await_post(env);
  aloop_close(env->loop);
  aloop__resolve_cancel(answer.lookup);
  names_await_freed();
  assert_false(answer.came);
}

static void closing_at_any_moment_is_safe(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 30; i++) {
    answer_t answer;
    assert_int_equal(ask_host(env, "name.test", AF_UNSPEC, 0, &answer), 1);
    for (int spin = 0; spin < i * 50; spin++) sched_yield();
    aloop_close(env->loop);
    aloop__resolve_cancel(answer.lookup);
    assert_false(answer.came);
    env_loop(env, (aloop_options_t){.debug = -1});
  }
  names_await_freed();
}

static void an_answer_waits_for_memory(void **state) {
  env_t *env = *state;
  answer_t answer;
  start_slow(env, &answer);
  env->fail_at = env->calls + 1; /* the first post's, if it needs any */
  names_open_gate();
  run_until(env->loop, &answer.came);
  assert_int_equal(answer.calls, 1);
  if (answer.error == 0) release(env, &answer);
}

static void want_of_memory_is_an_error(void **state) {
  env_t *env = *state;
  answer_t answer;
  env->fail_from = env->calls + 1;
  assert_int_equal(ask_host(env, "127.0.0.1", AF_UNSPEC, 0, &answer), ALOOP_ENOMEM);
  assert_int_equal(ask_host(env, NULL, AF_UNSPEC, 0, &answer), ALOOP_ENOMEM);
  assert_int_equal(ask_host(env, "127.1", AF_UNSPEC, 0, &answer), ALOOP_ENOMEM);
  assert_int_equal(ask_host(env, "name.test", AF_UNSPEC, 0, &answer), ALOOP_ENOMEM);
}

static void a_forked_child_forgets_the_parents_lookups(void **state) {
  env_t *env = *state;
  answer_t answer;
  start_slow(env, &answer);
  pid_t child = fork();
  if (child == 0) {
    int rc = aloop_after_fork(env->loop);
    aloop__resolve_cancel(answer.lookup);
    if (rc == 0) rc = aloop_close(env->loop);
    _exit(rc == 0 && !answer.came ? 0 : 1);
  }
  int status = -1;
  assert_true(child > 0);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  assert_int_equal(status, 0);
  names_open_gate();
  run_until(env->loop, &answer.came);
  release(env, &answer);
}

TESTS(T(numeric_hosts_are_answered_at_once), T(old_spellings_of_numbers_are_answered_at_once),
      T(zones_are_answered_at_once), T(a_numeric_host_of_another_family_is_an_error),
      T(ipv4_hosts_can_be_mapped), T(names_can_be_ruled_out), T(no_host_means_every_interface),
      T(the_protocol_asked_for_is_in_the_answer), T(names_are_looked_up_in_a_thread), T(localhost_is_found),
      T(a_name_that_cannot_be_is_an_error), T(answers_keep_their_order_without_repeats),
      T(an_answer_without_internet_addresses_is_no_data), T(the_resolvers_errors_have_codes),
      T(the_thread_takes_no_signals), T(many_lookups_go_side_by_side), T(a_cancelled_lookup_says_nothing),
      T(an_answer_on_its_way_can_be_cancelled), T(cancelling_at_any_moment_is_safe),
      T(closing_the_loop_does_not_wait_for_a_lookup), T(closing_the_loop_drops_an_answer_on_its_way),
      T(closing_at_any_moment_is_safe), T(an_answer_waits_for_memory), T(want_of_memory_is_an_error),
      T(a_forked_child_forgets_the_parents_lookups))
