/* SPDX-License-Identifier: MIT
 *
 * Names to addresses: what is answered at once, what the helper thread brings, and what becomes of a lookup
 * that nobody waits for any more. getaddrinfo is replaced here for hosts that end in ".test", so that no name
 * server is asked and a lookup takes as long as the test wants. threads: yes
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/memory.h"
#include "harness.h"
#include "net/resolve.h"

/* ---- A getaddrinfo under control ------------------------------------------------------------------------- */

enum { FAKE_FLAG = 0x5a5a };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int gate;            /* how many of "slow.test" may go on */
static int entered;         /* ... and how many have begun */
static int asked;           /* lookups that get an answer */
static int freed;           /* ... and answers released */
static int fake_result;     /* of "fail.test" */
static int fake_errno;      /* ... and errno */
static sigset_t fake_mask;  /* what is blocked in the thread of "self.test" */
static pthread_t fake_from; /* ... and that thread */

static void count(int *counter, int by) {
  pthread_mutex_lock(&lock);
  *counter += by;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

/* Waits for a counter and takes one from it. */
static void take_one(int *counter) {
  pthread_mutex_lock(&lock);
  while (*counter == 0) pthread_cond_wait(&changed, &lock);
  --*counter;
  pthread_mutex_unlock(&lock);
}

/* Every answer was released, by whichever thread came last. */
static void await_freed(void) {
  pthread_mutex_lock(&lock);
  while (freed != asked) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static struct addrinfo *fake_node(const char *host, const char *port, struct addrinfo *next) {
  struct addrinfo *node = calloc(1, sizeof *node + sizeof(struct sockaddr_in6));
  struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)(node + 1);
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)(node + 1);
  bool six = strchr(host, ':') != NULL;
  node->ai_flags = FAKE_FLAG;
  node->ai_protocol = IPPROTO_TCP;
  node->ai_addr = (struct sockaddr *)(void *)(node + 1);
  node->ai_addr->sa_family = six ? AF_INET6 : AF_INET;
  node->ai_addrlen = six ? sizeof *v6 : sizeof *v4;
  if (six)
    v6->sin6_port = htons((uint16_t)strtol(port, NULL, 10));
  else
    v4->sin_port = htons((uint16_t)strtol(port, NULL, 10));
  inet_pton(six ? AF_INET6 : AF_INET, host, six ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr);
  node->ai_next = next;
  return node;
}

static int fake_lookup(const char *host, const char *port, struct addrinfo **found) {
  if (strcmp(host, "self.test") == 0) {
    fake_from = pthread_self();
    pthread_sigmask(SIG_SETMASK, NULL, &fake_mask);
  }
  if (strcmp(host, "slow.test") == 0) {
    count(&entered, 1);
    take_one(&gate);
  }
  if (strcmp(host, "fail.test") == 0) {
    errno = fake_errno;
    return fake_result;
  }
  *found = fake_node("127.0.0.1", port, NULL);
  if (strcmp(host, "many.test") == 0) *found = fake_node("::1", port, fake_node("127.0.0.1", port, *found));
  if (strcmp(host, "odd.test") == 0) (*found)->ai_addr->sa_family = AF_UNIX;
  return 0;
}

int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
  typedef int (*real_fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  size_t length = strlen(host);
  if (length > 5 && strcmp(host + length - 5, ".test") == 0) return fake_lookup(host, port, found);
  void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
  real_fn real;
  memcpy(&real, &symbol, sizeof real);
  return real(host, port, hints, found);
}

void freeaddrinfo(struct addrinfo *found) {
  typedef void (*real_fn)(struct addrinfo *);
  if (found->ai_flags == FAKE_FLAG) {
    while (found != NULL) {
      struct addrinfo *next = found->ai_next;
      free(found);
      found = next;
    }
    count(&freed, 1);
    return;
  }
  void *symbol = dlsym(RTLD_NEXT, "freeaddrinfo");
  real_fn real;
  memcpy(&real, &symbol, sizeof real);
  real(found);
}

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
  int rc = aloop__resolve(env->loop, query, &answer->addresses, take, answer, &answer->lookup);
  if (rc == 1 && strstr(query->host, ".test") != NULL && strcmp(query->host, "fail.test") != 0)
    count(&asked, 1);
  return rc;
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

static void open_gate(void) {
  count(&gate, 1);
}

static void start_slow(env_t *env, answer_t *answer) {
  assert_int_equal(ask_host(env, "slow.test", AF_UNSPEC, 0, answer), 1);
  take_one(&entered);
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
  assert_false(pthread_equal(fake_from, pthread_self()));
  release(env, &answer);
}

static void localhost_is_found(void **state) {
  env_t *env = *state;
  answer_t answer;
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
    fake_result = pairs[i][0];
    fake_errno = pairs[i][1];
    assert_int_equal(answer_to(env, "fail.test", &answer), pairs[i][2]);
  }
}

static void the_thread_takes_no_signals(void **state) {
  env_t *env = *state;
  answer_t answer;
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  assert_int_equal(answer_to(env, "self.test", &answer), 0);
  assert_true(sigismember(&fake_mask, SIGINT));
  assert_true(sigismember(&fake_mask, SIGCHLD));
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  assert_int_equal(sigismember(&before, SIGINT), sigismember(&after, SIGINT));
  release(env, &answer);
}

static void many_lookups_go_side_by_side(void **state) {
  env_t *env = *state;
  answer_t answers[8];
  for (int i = 0; i < 8; i++) start_slow(env, &answers[i]);
  for (int i = 0; i < 8; i++) open_gate();
  for (int i = 0; i < 8; i++) {
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
  open_gate();
  await_freed();
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
  await_freed();
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
  await_freed();
}

static void closing_the_loop_does_not_wait_for_a_lookup(void **state) {
  env_t *env = *state;
  answer_t answer;
  start_slow(env, &answer);
  env_loop(env, (aloop_options_t){.debug = -1}); /* frees the old one */
  assert_false(answer.came);
  open_gate();
  await_freed();
  assert_false(answer.came);
}

static void closing_the_loop_drops_an_answer_on_its_way(void **state) {
  env_t *env = *state;
  answer_t answer;
  assert_int_equal(ask_host(env, "name.test", AF_UNSPEC, 0, &answer), 1);
  await_post(env);
  env_loop(env, (aloop_options_t){.debug = -1});
  await_freed();
  assert_false(answer.came);
}

static void closing_at_any_moment_is_safe(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 30; i++) {
    answer_t answer;
    assert_int_equal(ask_host(env, "name.test", AF_UNSPEC, 0, &answer), 1);
    for (int spin = 0; spin < i * 50; spin++) sched_yield();
    env_loop(env, (aloop_options_t){.debug = -1});
    assert_false(answer.came);
  }
  await_freed();
}

static void an_answer_waits_for_memory(void **state) {
  env_t *env = *state;
  answer_t answer;
  start_slow(env, &answer);
  env->fail_at = env->calls + 1; /* the first post's, if it needs any */
  open_gate();
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
    if (rc == 0) rc = aloop_close(env->loop);
    _exit(rc == 0 && !answer.came ? 0 : 1);
  }
  int status = -1;
  assert_true(child > 0);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  assert_int_equal(status, 0);
  open_gate();
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
