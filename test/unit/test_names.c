/* SPDX-License-Identifier: MIT
 *
 * aloop_getaddrinfo and aloop_getnameinfo: what is answered at once, what a thread or a resolver of the
 * caller's brings, deadlines and being forgotten. threads: yes
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "jobs.h"
#include "names.h"
#include "net/address.h"
#include "peers.h"
#include "script.h"

/* ---- Asking ---------------------------------------------------------------------------------------------- */

/* Asks for what the library answers at once; returns its error, with the list. */
static int64_t answer_now(env_t *env, const char *host, const char *service, const struct addrinfo *hints,
                          struct addrinfo **list) {
  aloop_future_t *future = aloop_getaddrinfo(env->loop, host, service, hints, ALOOP_FOREVER);
  assert_true(aloop_future_done(future));
  int64_t rc = aloop_future_result(future);
  *list = NULL;
  if (rc >= 0) assert_int_equal(aloop_future_take_ptr(future, list), 0);
  aloop_future_unref(future);
  return rc;
}

static int64_t error_now(env_t *env, const char *host, const char *service, const struct addrinfo *hints) {
  struct addrinfo *list;
  int64_t rc = answer_now(env, host, service, hints, &list);
  if (list != NULL) freeaddrinfo(list);
  return rc;
}

/* A question to the resolver, which is not done on return. */
static aloop_future_t *ask(env_t *env, const char *host, int64_t timeout) {
  aloop_future_t *future = aloop_getaddrinfo(env->loop, host, "80", NULL, timeout);
  assert_non_null(future);
  assert_false(aloop_future_done(future));
  return future;
}

static void assert_address(const struct addrinfo *node, const char *text) {
  char room[ALOOP__ADDRESS_TEXT];
  assert_non_null(node);
  assert_string_equal(aloop__address_text(node->ai_addr, node->ai_addrlen, room), text);
}

/* What a future has: borrowed. */
static const struct addrinfo *list_of(aloop_future_t *future) {
  const struct addrinfo *list = NULL;
  assert_int_equal(aloop_future_result_ptr(future, &list), 0);
  return list;
}

static void cancel(aloop_future_t *future) {
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
}

static struct sockaddr_in address_of(const char *host, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  assert_int_equal(inet_pton(AF_INET, host, &address.sin_addr), 1);
  return address;
}

static aloop_future_t *ask_back(env_t *env, const char *host, int flags, int64_t timeout) {
  struct sockaddr_in address = address_of(host, 80);
  return aloop_getnameinfo(env->loop, (const struct sockaddr *)(const void *)&address, sizeof address, flags,
                           timeout);
}

/* ---- At once --------------------------------------------------------------------------------------------- */

static void numeric_names_are_answered_at_once(void **state) {
  env_t *env = *state;
  int begun = names_begun();
  struct addrinfo *list;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
  assert_int_equal(answer_now(env, "127.0.0.1", "80", &hints, &list), 0);
  assert_address(list, "127.0.0.1 port 80");
  assert_int_equal(list->ai_socktype, SOCK_STREAM);
  assert_null(list->ai_next);
  freeaddrinfo(list);
  assert_int_equal(answer_now(env, "::1", NULL, NULL, &list), 0);
  assert_address(list, "::1 port 0");
  freeaddrinfo(list);
  assert_int_equal(answer_now(env, "127.1", "443", NULL, &list), 0);
  assert_address(list, "127.0.0.1 port 443");
  freeaddrinfo(list);
  assert_int_equal(names_begun(), begun);
}

static void no_host_means_this_machine(void **state) {
  env_t *env = *state;
  struct addrinfo *list;
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  assert_int_equal(answer_now(env, NULL, "80", &hints, &list), 0);
  assert_address(list, "127.0.0.1 port 80");
  freeaddrinfo(list);
  hints.ai_flags = AI_PASSIVE;
  assert_int_equal(answer_now(env, NULL, "80", &hints, &list), 0);
  assert_address(list, "0.0.0.0 port 80");
  freeaddrinfo(list);
}

static void a_list_that_nobody_takes_goes_with_its_future(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "127.0.0.1", "80", NULL, ALOOP_FOREVER);
  assert_address(list_of(future), "127.0.0.1 port 80");
  aloop_future_unref(future);
}

static void names_can_be_ruled_out(void **state) {
  env_t *env = *state;
  struct addrinfo hosts = {.ai_flags = AI_NUMERICHOST}, services = {.ai_flags = AI_NUMERICSERV};
  assert_int_equal(error_now(env, "localhost", "80", &hosts), ALOOP_EAI_NONAME);
  assert_int_equal(error_now(env, "127.0.0.1", "http", &services), ALOOP_EAI_NONAME);
  assert_int_equal(error_now(env, "name.test", "http", &services), ALOOP_EAI_NONAME);
}

static void impossible_wishes_are_errors_at_once(void **state) {
  env_t *env = *state;
  struct addrinfo six = {.ai_family = AF_INET6}, unix_family = {.ai_family = AF_UNIX};
  struct addrinfo flags = {.ai_flags = 0x40000000}, type = {.ai_socktype = 4711};
  assert_int_equal(error_now(env, "127.0.0.1", "80", &six), ALOOP_EAI_ADDRFAMILY);
  assert_int_equal(error_now(env, "127.0.0.1", "80", &unix_family), ALOOP_EAI_FAMILY);
  assert_int_equal(error_now(env, "127.0.0.1", "80", &flags), ALOOP_EAI_BADFLAGS);
  int64_t error = error_now(env, "127.0.0.1", "80", &type);
  assert_true(error == ALOOP_EAI_SOCKTYPE || error == ALOOP_EAI_SERVICE); /* which one differs by C library */
  assert_int_equal(error_now(env, "127.0.0.1", "65535", NULL), 0);
  assert_int_equal(error_now(env, "127.0.0.1", "65536", NULL), ALOOP_EAI_SERVICE);
  assert_int_equal(error_now(env, "127.0.0.1", "99999999999999999999", NULL), ALOOP_EAI_SERVICE);
}

static void an_error_says_what_was_looked_up(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "127.0.0.1", "65536", NULL, ALOOP_FOREVER);
  assert_string_equal(aloop_future_message(future),
                      "look up 127.0.0.1: service not known for this socket type");
  aloop_future_unref(future);
}

static void assert_refused(aloop_future_t *future, const char *message) {
  assert_int_equal(aloop_future_result(future), ALOOP_EINVAL);
  assert_string_equal(aloop_future_message(future), message);
  aloop_future_unref(future);
}

static void wrong_arguments_are_explained(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  assert_refused(aloop_getaddrinfo(env->loop, NULL, NULL, NULL, 0),
                 "a lookup needs a host, a service, or both");
  assert_refused(aloop_getaddrinfo(env->loop, "", "80", NULL, 0), "the host is empty: NULL means this machine");
  assert_refused(aloop_getaddrinfo(env->loop, "::1", "", NULL, 0), "the service is empty: NULL means none");
  assert_refused(aloop_getaddrinfo(env->loop, "::1", NULL, NULL, -2),
                 "the timeout is negative: ALOOP_FOREVER means no limit");
  assert_refused(aloop_getnameinfo(env->loop, NULL, 16, 0, 0), "a lookup needs an address, and its size");
  assert_refused(ask_back(env, "127.0.0.1", 0, -2), "the timeout is negative: ALOOP_FOREVER means no limit");
  struct sockaddr_storage storage = {.ss_family = AF_INET};
  const struct sockaddr *address = (const struct sockaddr *)(const void *)&storage;
  assert_refused(aloop_getnameinfo(env->loop, address, 1, 0, 0), "a lookup needs an address, and its size");
  assert_refused(aloop_getnameinfo(env->loop, address, sizeof storage + 1, 0, 0),
                 "a lookup needs an address, and its size");
  assert_int_equal(env->reports, 8);
  assert_null(aloop_getaddrinfo(NULL, "::1", NULL, NULL, 0));
  assert_null(aloop_getnameinfo(NULL, address, sizeof storage, 0, 0));
}

static void a_closed_loop_looks_nothing_up(void **state) {
  env_t *env = *state;
  aloop_close(env->loop);
  assert_int_equal(error_now(env, "127.0.0.1", "80", NULL), ALOOP_ECLOSED);
  assert_int_equal(error_now(env, "name.test", "80", NULL), ALOOP_ECLOSED);
  aloop_future_t *future = ask_back(env, "127.0.0.1", 0, ALOOP_FOREVER);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
  assert_int_equal(aloop_set_resolver(env->loop, NULL, NULL), ALOOP_ECLOSED);
}

/* ---- In a thread ----------------------------------------------------------------------------------------- */

static void names_are_looked_up_in_a_thread(void **state) {
  env_t *env = *state;
  struct addrinfo *list;
  aloop_future_t *future = ask(env, "self.test", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_false(pthread_equal(names_thread, pthread_self()));
  assert_int_equal(aloop_future_take_ptr(future, &list), 0);
  aloop_future_unref(future);
  assert_address(list, "127.0.0.1 port 80");
  freeaddrinfo(list);
}

static void a_list_from_a_thread_goes_with_its_future(void **state) {
  env_t *env = *state;
  aloop_future_t *future = ask(env, "many.test", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_address(list_of(future), "::1 port 80");
  assert_address(list_of(future)->ai_next, "127.0.0.1 port 80");
  aloop_future_unref(future);
  assert_true(names_are_freed());
}

static void localhost_is_found(void **state) {
  env_t *env = *state;
  struct addrinfo *list;
  if (getaddrinfo("localhost", NULL, NULL, &list) != 0) skip(); /* no /etc/hosts, as in a bare chroot */
  freeaddrinfo(list);
  aloop_future_t *future = ask(env, "localhost", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_non_null(list_of(future));
  aloop_future_unref(future);
}

static void services_by_name_are_looked_up_in_a_thread(void **state) {
  env_t *env = *state;
  struct addrinfo *list;
  if (getaddrinfo("127.0.0.1", "http", NULL, &list) != 0) skip(); /* no /etc/services */
  freeaddrinfo(list);
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "127.0.0.1", "http", NULL, ALOOP_FOREVER);
  assert_false(aloop_future_done(future));
  assert_int_equal(run_future(env->loop, future), 0);
  assert_address(list_of(future), "127.0.0.1 port 80");
  aloop_future_unref(future);
  struct addrinfo hints = {.ai_family = AF_INET, .ai_flags = AI_PASSIVE};
  future = aloop_getaddrinfo(env->loop, NULL, "http", &hints, ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_address(list_of(future), "0.0.0.0 port 80");
  aloop_future_unref(future);
}

static void arguments_are_copied(void **state) {
  env_t *env = *state;
  char host[] = "name.test", service[] = "81";
  struct addrinfo hints = {.ai_family = AF_INET};
  aloop_future_t *future = aloop_getaddrinfo(env->loop, host, service, &hints, ALOOP_FOREVER);
  memset(host, 'x', sizeof host - 1);
  memset(service, '9', sizeof service - 1);
  memset(&hints, 255, sizeof hints);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_address(list_of(future), "127.0.0.1 port 81");
  aloop_future_unref(future);
}

static void a_failed_lookup_says_what_was_asked(void **state) {
  env_t *env = *state;
  names_result = EAI_AGAIN;
  aloop_future_t *future = ask(env, "fail.test", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), ALOOP_EAI_AGAIN);
  assert_string_equal(aloop_future_message(future),
                      "look up fail.test: name server did not answer; try again later");
  aloop_future_unref(future);
  names_result = EAI_SERVICE;
  future = aloop_getaddrinfo(env->loop, "fail.test", "gopher", NULL, ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), ALOOP_EAI_SERVICE);
  assert_string_equal(aloop_future_message(future),
                      "look up fail.test, service gopher: service not known for this socket type");
  aloop_future_unref(future);
}

static bool was_reported(const env_t *env, const char *message) {
  for (int i = 0; i < env->reports && i < REPORTS_MAX; i++)
    if (strcmp(env->report_messages[i], message) == 0) return true;
  return false;
}

static void debug_mode_tells_of_slow_lookups(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  assert_int_equal(aloop_set_slow_callback_duration(env->loop, ALOOP_SECONDS(1000)), 0);
  aloop_future_t *future = ask(env, "name.test", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  assert_false(was_reported(env, "looking up name.test was slow"));
  assert_int_equal(aloop_set_slow_callback_duration(env->loop, 1), 0);
  names_result = EAI_AGAIN;
  future = ask(env, "fail.test", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), ALOOP_EAI_AGAIN);
  aloop_future_unref(future);
  assert_true(was_reported(env, "looking up fail.test was slow"));
}

static int cancel_it(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  aloop_future_t **future = arg;
  (void)loop;
  if (*future == NULL || strncmp(context->message, "looking up", 10) != 0) return 0;
  assert_int_equal(aloop_future_cancel(*future), 1);
  aloop_future_unref(*future);
  *future = NULL;
  return 0;
}

static void who_hears_of_a_slow_lookup_may_cancel_it(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  assert_int_equal(aloop_set_slow_callback_duration(env->loop, 1), 0);
  aloop_future_t *future = NULL;
  aloop_set_exception_handler(env->loop, cancel_it, &future);
  for (int i = 0; i < 2; i++) {
    names_result = i == 0 ? 0 : EAI_AGAIN;
    future = ask(env, i == 0 ? "name.test" : "fail.test", ALOOP_FOREVER);
    while (future != NULL) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  }
  aloop_set_exception_handler(env->loop, NULL, NULL);
  names_finish(env->loop);
}

static void a_deadline_ends_a_lookup(void **state) {
  env_t *env = *state;
  aloop_future_t *future = ask(env, "slow.test", ALOOP_MILLIS(5));
  names_await_slow();
  int64_t start = aloop_update_time(env->loop);
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  assert_true(aloop_update_time(env->loop) - start < ALOOP_SECONDS(20));
  assert_string_equal(aloop_future_message(future), "look up slow.test: no answer after 5 ms");
  aloop_future_unref(future);
  names_open_gate();
  names_finish(env->loop);
}

static void a_deadline_that_is_not_needed_does_no_harm(void **state) {
  env_t *env = *state;
  aloop_future_t *future = ask(env, "name.test", ALOOP_SECONDS(100));
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
}

static void without_time_only_numbers_are_answered(void **state) {
  env_t *env = *state;
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "127.0.0.1", "80", NULL, 0);
  assert_int_equal(aloop_future_result(future), 0);
  aloop_future_unref(future);
  future = aloop_getaddrinfo(env->loop, "fail.test", "80", NULL, 0);
  assert_int_equal(aloop_future_result(future), ALOOP_ETIMEDOUT);
  aloop_future_unref(future);
}

static void a_cancelled_lookup_is_forgotten(void **state) {
  env_t *env = *state;
  aloop_future_t *future = ask(env, "slow.test", ALOOP_SECONDS(100));
  names_await_slow();
  cancel(future);
  names_open_gate();
  names_finish(env->loop);
  run_turns(env->loop, 2);
}

static void an_answer_can_be_cancelled_at_any_moment(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 100; i++) {
    aloop_future_t *future = ask(env, "name.test", ALOOP_FOREVER);
    for (int turn = 0; turn < i % 5; turn++) aloop_run_once(env->loop, 0);
    aloop_future_cancel(future);
    aloop_future_unref(future);
  }
  names_finish(env->loop);
}

static void closing_the_loop_does_not_wait_for_a_lookup(void **state) {
  env_t *env = *state;
  aloop_future_t *future = ask(env, "slow.test", ALOOP_SECONDS(100));
  aloop_future_t *back = ask_back(env, "192.0.2.2", 0, ALOOP_FOREVER);
  names_await_slow();
  names_await_slow();
  aloop_close(env->loop);
  assert_true(aloop_future_cancelled(future));
  assert_true(aloop_future_cancelled(back));
  aloop_future_unref(future);
  aloop_future_unref(back);
  env_loop(env, (aloop_options_t){.debug = -1});
  names_open_gate();
  names_open_gate();
  names_await_freed();
}

/* ---- The executor ---------------------------------------------------------------------------------------- */

enum { FLOOD = 1000 };

static void flood(env_t *env, aloop_future_t **futures, int64_t timeout) {
  for (int i = 0; i < FLOOD; i++) futures[i] = ask(env, "slow.test", timeout);
  for (int i = 0; i < 2; i++) names_await_slow();
}

/* The pool of two threads per lane that env->loop uses. */
static aloop_executor_t *use_small_pool(env_t *env) {
  aloop_executor_t *pool = make_pool(2);
  assert_int_equal(aloop_set_default_executor(env->loop, pool), 0);
  return pool;
}

static void end_lookups(env_t *env, aloop_executor_t *pool) {
  for (int i = 0; i < 2; i++) names_open_gate();
  end_pool(pool);
  run_turns(env->loop, 2);
  assert_true(names_are_freed());
}

static void a_blocked_resolver_holds_up_nothing_else(void **state) {
  env_t *env = *state;
  static aloop_future_t *futures[FLOOD];
  static const int lanes[] = {ALOOP_LANE_FILE, ALOOP_LANE_USER};
  aloop_executor_t *pool = use_small_pool(env);
  int number = 5, begun = names_begun();
  flood(env, futures, ALOOP_FOREVER);
  for (int i = 0; i < 2; i++) {
    aloop_job_options_t job = {.size = sizeof job, .fn = return_int, .arg = &number, .lane = lanes[i]};
    aloop_future_t *future = aloop_submit(env->loop, NULL, &job);
    assert_int_equal(run_future(env->loop, future), 5);
    aloop_future_unref(future);
  }
  assert_int_equal(lane_stats(pool, ALOOP_LANE_DNS).queued, FLOOD - 2);
  for (int i = 0; i < FLOOD; i++) cancel(futures[i]);
  assert_int_equal(lane_stats(pool, ALOOP_LANE_DNS).queued, 0);
  assert_int_equal(names_begun() - begun, 2);
  end_lookups(env, pool);
}

static void deadlines_hold_behind_a_blocked_resolver(void **state) {
  env_t *env = *state;
  static aloop_future_t *futures[FLOOD];
  aloop_executor_t *pool = use_small_pool(env);
  int begun = names_begun();
  flood(env, futures, ALOOP_MILLIS(20));
  for (int i = 0; i < FLOOD; i++) {
    assert_int_equal(run_future(env->loop, futures[i]), ALOOP_ETIMEDOUT);
    aloop_future_unref(futures[i]);
  }
  assert_int_equal(names_begun() - begun, 2);
  end_lookups(env, pool);
}

static aloop_executor_t *use_shelf(env_t *env, shelf_t *shelf) {
  aloop_executor_t *executor = make_shelf(shelf);
  assert_int_equal(aloop_set_default_executor(env->loop, executor), 0);
  return executor;
}

/* Before the shelf goes. */
static void end_shelf(env_t *env, aloop_executor_t *executor) {
  if (!aloop_is_closed(env->loop)) assert_int_equal(aloop_set_default_executor(env->loop, NULL), 0);
  aloop_executor_unref(executor);
}

static void lookups_go_to_the_programs_executor(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  aloop_executor_t *executor = use_shelf(env, &shelf);
  assert_int_equal(error_now(env, "127.0.0.1", "80", NULL), 0);
  aloop_future_unref(ask_back(env, "127.0.0.1", NI_NUMERICHOST | NI_NUMERICSERV, 0));
  assert_int_equal(shelf.count, 0);
  aloop_future_t *future = ask(env, "name.test", ALOOP_FOREVER);
  aloop_future_t *back = ask_back(env, "192.0.2.1", 0, ALOOP_FOREVER);
  assert_int_equal(shelf.count, 2);
  assert_int_equal(shelf.lane, ALOOP_LANE_DNS);
  for (int i = 0; i < 2; i++) aloop_job_run(shelf.jobs[i]);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_address(list_of(future), "127.0.0.1 port 80");
  assert_int_equal(run_future(env->loop, back), 0);
  aloop_future_unref(future);
  aloop_future_unref(back);
  end_shelf(env, executor);
}

static void a_cancelled_lookup_leaves_the_queue(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  aloop_executor_t *executor = use_shelf(env, &shelf);
  cancel(ask(env, "name.test", ALOOP_FOREVER));
  cancel(ask_back(env, "192.0.2.1", 0, ALOOP_FOREVER));
  assert_int_equal(shelf.cancelled, 2);
  aloop_future_t *future = ask(env, "name.test", ALOOP_MILLIS(1));
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  assert_int_equal(shelf.cancelled, 3);
  aloop_future_unref(future);
  end_shelf(env, executor);
}

static void an_answer_that_comes_too_late_is_freed(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  aloop_executor_t *executor = use_shelf(env, &shelf);
  shelf.keep = true;
  cancel(ask(env, "name.test", ALOOP_FOREVER));
  aloop_job_run(shelf.jobs[0]);
  run_turns(env->loop, 1);
  assert_true(names_are_freed());
  cancel(ask(env, "name.test", ALOOP_FOREVER));
  cancel(ask_back(env, "192.0.2.1", 0, ALOOP_FOREVER));
  aloop_close(env->loop);
  aloop_job_run(shelf.jobs[1]);
  aloop_job_run(shelf.jobs[2]);
  assert_true(names_are_freed());
  end_shelf(env, executor);
}

static void an_executor_that_takes_no_job_says_why(void **state) {
  env_t *env = *state;
  shelf_t shelf;
  aloop_executor_t *executor = use_shelf(env, &shelf);
  shelf.refuse = ALOOP_EAGAIN;
  assert_int_equal(error_now(env, "name.test", "80", NULL), ALOOP_EAGAIN);
  aloop_future_t *future = ask_back(env, "192.0.2.1", 0, ALOOP_FOREVER);
  assert_int_equal(aloop_future_result(future), ALOOP_EAGAIN);
  assert_string_equal(
      aloop_future_message(future),
      "look up 192.0.2.1 port 80: shelf: the executor's queue is full, or it could start no thread");
  aloop_future_unref(future);
  end_shelf(env, executor);
  names_finish(env->loop); /* shuts it down */
  assert_int_equal(error_now(env, "name.test", "80", NULL), ALOOP_ECLOSED);
}

/* What the child of a fork finds: the parent's lookups at an end, and new ones possible. */
static bool works_in_child(env_t *env, aloop_future_t *future) {
  if (aloop_after_fork(env->loop) != 0) return false;
  if (aloop_run_until_complete(env->loop, aloop_future_ref(future)) != ALOOP_ECHILD) return false;
  aloop_future_t *second = aloop_getaddrinfo(env->loop, "name.test", "80", NULL, ALOOP_FOREVER);
  return aloop_run_until_complete(env->loop, second) == 0 && aloop_close(env->loop) == 0;
}

/* The thread sanitizer allows no new threads in the child of a program with threads. */
#if defined(__SANITIZE_THREAD__)
#define NO_THREADS_IN_CHILD 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_THREADS_IN_CHILD 1
#endif
#endif

static void a_forked_child_can_look_names_up(void **state) {
  env_t *env = *state;
#ifdef NO_THREADS_IN_CHILD
  skip();
#endif
  aloop_future_t *future = ask(env, "slow.test", ALOOP_FOREVER);
  names_await_slow();
  pid_t child = fork();
  if (child == 0) _exit(works_in_child(env, future) ? 0 : 1);
  int status = -1;
  assert_true(child > 0);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  assert_int_equal(status, 0);
  names_open_gate();
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
}

/* ---- A resolver of the caller's -------------------------------------------------------------------------- */

static const line_t lines[] = {{.host = "now.test", .addresses = "127.0.0.1"},
                               {.host = "two.test", .addresses = "::1 127.0.0.1", .delay = ALOOP_MILLIS(1)},
                               {.host = "late.test", .addresses = "::1", .delay = ALOOP_SECONDS(1000)},
                               {.host = "sick.test",
                                .error = ALOOP_EAI_FAIL,
                                .message = "the server is on fire",
                                .delay = ALOOP_MILLIS(1)}};

static void use_script(env_t *env, script_t *script) {
  assert_int_equal(aloop_set_resolver(env->loop, &script_resolver, script), 0);
}

static void a_resolver_answers_instead(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_family = AF_INET6, .ai_socktype = SOCK_DGRAM};
  int begun = names_begun();
  use_script(env, &script);
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "two.test", "80", &hints, ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_address(list_of(future), "::1 port 80");
  assert_address(list_of(future)->ai_next, "127.0.0.1 port 80");
  assert_string_equal(script.service, "80");
  assert_int_equal(script.hints.ai_flags, AI_CANONNAME);
  assert_int_equal(script.hints.ai_family, AF_INET6);
  assert_int_equal(script.hints.ai_socktype, SOCK_DGRAM);
  aloop_future_unref(future);
  assert_int_equal(script.asked, 1);
  assert_int_equal(script.lists, 0);
  assert_int_equal(names_begun(), begun);
}

static void a_resolver_may_answer_at_once(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  use_script(env, &script);
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "now.test", "80", NULL, 0);
  assert_true(aloop_future_done(future));
  assert_address(list_of(future), "127.0.0.1 port 80");
  aloop_future_unref(future);
  assert_int_equal(script.lists, 0);
}

static void a_resolver_is_not_asked_for_numbers(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  use_script(env, &script);
  assert_int_equal(error_now(env, "127.0.0.1", "80", NULL), 0);
  assert_int_equal(error_now(env, NULL, "80", NULL), 0);
  assert_int_equal(script.asked, 0);
  assert_int_equal(error_now(env, "127.0.0.1", "http", NULL), ALOOP_EAI_NONAME);
  assert_int_equal(script.asked, 1);
  assert_string_equal(script.service, "http");
}

static void a_resolvers_message_is_passed_on(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  use_script(env, &script);
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "sick.test", "80", NULL, ALOOP_SECONDS(1));
  assert_int_equal(run_future(env->loop, future), ALOOP_EAI_FAIL);
  assert_string_equal(aloop_future_message(future), "look up sick.test: the server is on fire");
  aloop_future_unref(future);
}

static void a_resolver_hears_of_cancelling(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  use_script(env, &script);
  cancel(aloop_getaddrinfo(env->loop, "late.test", "80", NULL, ALOOP_FOREVER));
  assert_int_equal(script.cancelled, 1);
  aloop_future_t *future = aloop_getaddrinfo(env->loop, "late.test", "80", NULL, ALOOP_MILLIS(1));
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  assert_int_equal(script.cancelled, 2);
  aloop_future_unref(future);
  future = aloop_getaddrinfo(env->loop, "late.test", "80", NULL, 0);
  assert_int_equal(aloop_future_result(future), ALOOP_ETIMEDOUT);
  assert_int_equal(script.cancelled, 3);
  aloop_future_unref(future);
  future = aloop_getaddrinfo(env->loop, "late.test", "80", NULL, ALOOP_FOREVER);
  aloop_close(env->loop);
  assert_int_equal(script.cancelled, 4);
  assert_int_equal(script.lists, 0);
  aloop_future_unref(future);
}

static void connections_ask_the_resolver(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  int port;
  int listener = peer_listen(5, &port);
  aloop_protocol_t table = {.size = sizeof table};
  aloop_connect_options_t options = {
      .size = sizeof options, .host = "two.test", .port = port, .family = AF_INET};
  aloop_transport_t *transport;
  use_script(env, &script);
  assert_int_equal(aloop_run_until_complete_ptr(
                       env->loop, aloop_create_connection(env->loop, &table, NULL, &options), &transport),
                   0);
  assert_int_equal(script.hints.ai_family, AF_INET);
  assert_int_equal(script.hints.ai_socktype, SOCK_STREAM);
  aloop_transport_abort(transport);
  aloop_transport_unref(transport);
  run_turns(env->loop, 2);
  options.host = "unheard-of.test";
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_create_connection(env->loop, &table, NULL, &options)),
      ALOOP_EAI_NONAME);
  assert_int_equal(script.asked, 2);
  assert_int_equal(script.lists, 0);
  close(listener);
}

static void servers_ask_the_resolver(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  static const char *const hosts[] = {"now.test", "localhost"};
  aloop_protocol_t table = {.size = sizeof table};
  aloop_server_options_t options = {.size = sizeof options, .hosts = hosts, .hosts_count = 1};
  aloop_server_t *server;
  use_script(env, &script);
  assert_int_equal(
      aloop_run_until_complete_ptr(env->loop, aloop_create_server(env->loop, &table, NULL, &options), &server),
      0);
  assert_int_equal(aloop_server_sockets(server), 1);
  assert_int_equal(script.hints.ai_flags & AI_PASSIVE, AI_PASSIVE);
  aloop_server_close(server);
  aloop_server_unref(server);
  options.hosts_count = 2;
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_create_server(env->loop, &table, NULL, &options)),
                   ALOOP_EAI_NONAME);
  assert_int_equal(script.asked, 3);
  assert_int_equal(script.lists, 0);
}

static void the_default_resolver_can_be_restored(void **state) {
  env_t *env = *state;
  script_t script = SCRIPT(lines);
  void *arg = &script;
  const aloop_resolver_t *first = aloop_get_resolver(env->loop, &arg);
  assert_non_null(first);
  assert_null(arg);
  use_script(env, &script);
  assert_ptr_equal(aloop_get_resolver(env->loop, &arg), &script_resolver);
  assert_ptr_equal(arg, &script);
  assert_int_equal(aloop_set_resolver(env->loop, NULL, NULL), 0);
  assert_ptr_equal(aloop_get_resolver(env->loop, NULL), first);
  aloop_future_t *future = ask(env, "name.test", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  assert_int_equal(script.asked, 0);
}

/* Knows one name, and asks the resolver before it for all others. */
typedef struct chain {
  const aloop_resolver_t *next;
  void *next_arg;
  script_t script;
} chain_t;

static aloop_future_t *ask_chain(aloop_t *loop, const char *host, const char *service,
                                 const struct addrinfo *hints, void *arg) {
  chain_t *self = arg;
  if (strcmp(host, "now.test") == 0)
    return script_resolver.getaddrinfo(loop, host, service, hints, &self->script);
  return self->next->getaddrinfo(loop, host, service, hints, self->next_arg);
}

static void resolvers_can_be_chained(void **state) {
  env_t *env = *state;
  static const aloop_resolver_t table = {.size = sizeof table, .getaddrinfo = ask_chain};
  chain_t chain = {.script = SCRIPT(lines)};
  chain.next = aloop_get_resolver(env->loop, &chain.next_arg);
  assert_int_equal(aloop_set_resolver(env->loop, &table, &chain), 0);
  assert_int_equal(error_now(env, "now.test", "80", NULL), 0);
  aloop_future_t *future = ask(env, "name.test", ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), 0);
  assert_address(list_of(future), "127.0.0.1 port 80");
  aloop_future_unref(future);
  assert_int_equal(chain.script.asked, 1);
}

static void without_memory_the_resolver_stays(void **state) {
  env_t *env = *state;
  env->fail_from = env->calls + 1;
  assert_int_equal(aloop_set_resolver(env->loop, &script_resolver, NULL), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_ptr_not_equal(aloop_get_resolver(env->loop, NULL), &script_resolver);
  assert_int_equal(aloop_set_resolver(env->loop, &script_resolver, NULL), 0);
  assert_ptr_equal(aloop_get_resolver(env->loop, NULL), &script_resolver);
}

static void a_resolver_without_size_or_function_is_refused(void **state) {
  env_t *env = *state;
  aloop_resolver_t table = {.size = sizeof table};
  assert_int_equal(aloop_set_resolver(env->loop, &table, NULL), ALOOP_EINVAL);
  table = script_resolver;
  table.size = 0;
  assert_int_equal(aloop_set_resolver(env->loop, &table, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_set_resolver(NULL, &script_resolver, NULL), ALOOP_EINVAL);
}

static aloop_future_t *answer_elsewhere(aloop_t *loop, const char *host, const char *service,
                                        const struct addrinfo *hints, void *arg) {
  (void)loop, (void)host, (void)service, (void)hints;
  return aloop_future_new(arg);
}

static void a_resolver_answers_on_the_loop_that_asks(void **state) {
  env_t *env = *state;
  aloop_resolver_t table = {.size = sizeof table, .getaddrinfo = answer_elsewhere};
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_set_resolver(env->loop, &table, other), 0);
  assert_int_equal(error_now(env, "name.test", "80", NULL), ALOOP_EOTHERLOOP);
  aloop_free(other);
}

static aloop_future_t *answer_nothing(aloop_t *loop, const char *host, const char *service,
                                      const struct addrinfo *hints, void *arg) {
  (void)host, (void)service, (void)hints, (void)arg;
  aloop_future_t *future = aloop_future_new(loop);
  aloop_future_set_value(future, 0);
  return future;
}

static void an_answer_without_a_list_connects_nowhere(void **state) {
  env_t *env = *state;
  aloop_resolver_t table = {.size = sizeof table, .getaddrinfo = answer_nothing};
  aloop_protocol_t protocol = {.size = sizeof protocol};
  aloop_connect_options_t options = {.size = sizeof options, .host = "name.test", .port = 80};
  assert_int_equal(aloop_set_resolver(env->loop, &table, NULL), 0);
  aloop_future_t *future = aloop_create_connection(env->loop, &protocol, NULL, &options);
  assert_int_equal(run_future(env->loop, future), ALOOP_EAI_NODATA);
  aloop_future_unref(future);
}

/* A resolver of the worst kind: it ends the call that asks it. */
typedef struct villain {
  aloop_future_t *victim; /* cancelled; NULL: the loop is closed */
  int asked;
  script_t script; /* for other hosts */
} villain_t;

static aloop_future_t *ask_villain(aloop_t *loop, const char *host, const char *service,
                                   const struct addrinfo *hints, void *arg) {
  villain_t *self = arg;
  aloop_future_t *future = aloop_future_new(loop);
  self->asked++;
  if (strcmp(host, "last.test") != 0) {
    aloop_future_unref(future);
    return script_resolver.getaddrinfo(loop, host, service, hints, &self->script);
  }
  if (self->victim != NULL)
    assert_int_equal(aloop_future_cancel(self->victim), 1);
  else
    aloop_close(loop);
  return future;
}

static const aloop_resolver_t villain_resolver = {.size = sizeof villain_resolver, .getaddrinfo = ask_villain};

/* The way a call asks: with this host, and this local one. */
static aloop_future_t *begin_call(env_t *env, int way, const char *host, const char *local) {
  static const aloop_protocol_t table = {.size = sizeof table};
  aloop_connect_options_t to = {
      .size = sizeof to, .host = host, .port = 80, .local_host = local, .timeout = ALOOP_SECONDS(1)};
  aloop_server_options_t at = {.size = sizeof at, .host = host};
  if (way == 0) return aloop_create_connection(env->loop, &table, NULL, &to);
  if (way == 1) return aloop_create_server(env->loop, &table, NULL, &at);
  return aloop_getaddrinfo(env->loop, host, "80", NULL, ALOOP_SECONDS(1));
}

static void assert_closes(env_t *env, int way, const char *host, const char *local, int64_t error) {
  villain_t villain = {.script = SCRIPT(lines)};
  assert_int_equal(aloop_set_resolver(env->loop, &villain_resolver, &villain), 0);
  aloop_future_t *future = begin_call(env, way, host, local);
  assert_true(villain.asked >= 1);
  assert_int_equal(aloop_future_result(future), error);
  aloop_future_unref(future);
  env_loop(env, (aloop_options_t){.debug = -1});
}

static void a_resolver_may_close_the_loop(void **state) {
  assert_closes(*state, 0, "last.test", NULL, ALOOP_ECANCELED);
  assert_closes(*state, 0, "two.test", "last.test", ALOOP_ECANCELED);
  assert_closes(*state, 1, "last.test", NULL, ALOOP_ECANCELED);
  assert_closes(*state, 2, "last.test", NULL, ALOOP_ECLOSED);
}

/* The call has a future that a resolver can know of when it asks for a second host in a later turn. */
static void a_resolver_may_cancel_the_call(void **state) {
  env_t *env = *state;
  static const char *const hosts[] = {"two.test", "last.test"};
  villain_t villain = {.script = SCRIPT(lines)};
  aloop_protocol_t table = {.size = sizeof table};
  aloop_server_options_t at = {.size = sizeof at, .hosts = hosts, .hosts_count = 2};
  assert_int_equal(aloop_set_resolver(env->loop, &villain_resolver, &villain), 0);
  villain.victim = aloop_create_server(env->loop, &table, NULL, &at);
  assert_int_equal(run_future(env->loop, villain.victim), ALOOP_ECANCELED);
  assert_int_equal(villain.asked, 2);
  aloop_future_unref(villain.victim);
}

/* ---- From addresses to names ----------------------------------------------------------------------------- */

static const aloop_nameinfo_t *names_of(aloop_future_t *future) {
  const aloop_nameinfo_t *names = NULL;
  assert_int_equal(aloop_future_result_ptr(future, &names), 0);
  return names;
}

static void numbers_of_an_address_come_at_once(void **state) {
  env_t *env = *state;
  aloop_nameinfo_t *names;
  aloop_future_t *future = ask_back(env, "192.0.2.1", NI_NUMERICHOST | NI_NUMERICSERV, ALOOP_FOREVER);
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_take_ptr(future, &names), 0);
  aloop_future_unref(future);
  assert_string_equal(names->host, "192.0.2.1");
  assert_string_equal(names->service, "80");
  free(names);
}

static void names_of_an_address_come_from_a_thread(void **state) {
  env_t *env = *state;
  aloop_nameinfo_t *names;
  aloop_future_t *future = ask_back(env, "192.0.2.1", 0, ALOOP_FOREVER);
  assert_false(aloop_future_done(future));
  assert_int_equal(run_future(env->loop, future), 0);
  assert_string_equal(names_of(future)->host, "name.test");
  assert_int_equal(aloop_future_take_ptr(future, &names), 0);
  aloop_future_unref(future);
  assert_string_equal(names->service, "service");
  free(names);
}

static void a_service_of_an_address_takes_a_thread(void **state) {
  env_t *env = *state;
  aloop_future_t *future = ask_back(env, "127.0.0.1", NI_NUMERICHOST, ALOOP_FOREVER);
  assert_false(aloop_future_done(future));
  assert_int_equal(run_future(env->loop, future), 0);
  assert_string_equal(names_of(future)->host, "127.0.0.1");
  aloop_future_unref(future);
}

static void an_address_without_name_is_an_error(void **state) {
  env_t *env = *state;
  names_result = EAI_NONAME;
  aloop_future_t *future = ask_back(env, "192.0.2.3", NI_NAMEREQD, ALOOP_FOREVER);
  assert_int_equal(run_future(env->loop, future), ALOOP_EAI_NONAME);
  assert_string_equal(aloop_future_message(future), "look up 192.0.2.3 port 80: host or service not known");
  aloop_future_unref(future);
}

static void an_address_of_an_odd_family_is_an_error(void **state) {
  env_t *env = *state;
  struct sockaddr_storage storage = {.ss_family = 4711};
  aloop_future_t *future = aloop_getnameinfo(env->loop, (const struct sockaddr *)(const void *)&storage,
                                             sizeof storage, NI_NUMERICHOST | NI_NUMERICSERV, ALOOP_FOREVER);
  assert_int_equal(aloop_future_result(future), ALOOP_EAI_FAMILY);
  assert_string_equal(aloop_future_message(future),
                      "look up an address of family 4711: address family not supported for a name lookup");
  aloop_future_unref(future);
}

static void a_deadline_ends_a_lookup_of_names(void **state) {
  env_t *env = *state;
  aloop_future_t *future = ask_back(env, "192.0.2.2", 0, ALOOP_MILLIS(5));
  names_await_slow();
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  assert_string_equal(aloop_future_message(future), "look up 192.0.2.2 port 80: no answer after 5 ms");
  aloop_future_unref(future);
  names_open_gate();
  names_finish(env->loop);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

static bool succeeded_or_want_of_memory(env_t *env, aloop_future_t *future) {
  int64_t rc = future != NULL ? run_future(env->loop, future) : ALOOP_ENOMEM;
  aloop_future_unref(future);
  if (rc != 0) assert_int_equal(rc, ALOOP_ENOMEM);
  return rc == 0;
}

static void ask_in_every_way(env_t *env) {
  script_t script = SCRIPT(lines);
  succeeded_or_want_of_memory(env, aloop_getaddrinfo(env->loop, "127.0.0.1", "80", NULL, ALOOP_FOREVER));
  succeeded_or_want_of_memory(env, ask_back(env, "127.0.0.1", NI_NUMERICHOST | NI_NUMERICSERV, ALOOP_FOREVER));
  if (aloop_set_resolver(env->loop, &script_resolver, &script) == 0) {
    succeeded_or_want_of_memory(env, aloop_getaddrinfo(env->loop, "now.test", "80", NULL, ALOOP_FOREVER));
    succeeded_or_want_of_memory(env, aloop_getaddrinfo(env->loop, "two.test", "80", NULL, ALOOP_SECONDS(1)));
  }
  env->fail_from = 0;
  run_turns(env->loop, 3);
  assert_int_equal(script.lists, 0);
}

static void every_want_of_memory_is_survived(void **state) {
  torture(*state, ask_in_every_way);
}

/* Waits for a future whose job is on the shelf, if there is one. */
static void run_shelf(env_t *env, shelf_t *shelf, aloop_future_t *future) {
  for (int i = 0; i < shelf->count; i++) aloop_job_run(shelf->jobs[i]);
  shelf->count = 0;
  succeeded_or_want_of_memory(env, future);
}

static void ask_through_the_executor(env_t *env) {
  shelf_t shelf;
  aloop_executor_t *executor = make_shelf(&shelf);
  if (aloop_set_default_executor(env->loop, executor) == 0) {
    run_shelf(env, &shelf, aloop_getaddrinfo(env->loop, "name.test", "80", NULL, ALOOP_SECONDS(1)));
    run_shelf(env, &shelf, ask_back(env, "192.0.2.1", 0, ALOOP_FOREVER));
  }
  env->fail_from = 0;
  run_turns(env->loop, 3);
  assert_true(names_are_freed());
  end_shelf(env, executor);
}

static void every_want_of_memory_around_a_job_is_survived(void **state) {
  torture(*state, ask_through_the_executor);
}

TESTS(T(numeric_names_are_answered_at_once), T(no_host_means_this_machine),
      T(a_list_that_nobody_takes_goes_with_its_future), T(names_can_be_ruled_out),
      T(impossible_wishes_are_errors_at_once), T(an_error_says_what_was_looked_up),
      T(wrong_arguments_are_explained), T(a_closed_loop_looks_nothing_up), T(names_are_looked_up_in_a_thread),
      T(a_list_from_a_thread_goes_with_its_future), T(localhost_is_found),
      T(services_by_name_are_looked_up_in_a_thread), T(arguments_are_copied),
      T(a_failed_lookup_says_what_was_asked), T(debug_mode_tells_of_slow_lookups),
      T(who_hears_of_a_slow_lookup_may_cancel_it), T(a_deadline_ends_a_lookup),
      T(a_deadline_that_is_not_needed_does_no_harm), T(without_time_only_numbers_are_answered),
      T(a_cancelled_lookup_is_forgotten), T(an_answer_can_be_cancelled_at_any_moment),
      T(closing_the_loop_does_not_wait_for_a_lookup), T(a_blocked_resolver_holds_up_nothing_else),
      T(deadlines_hold_behind_a_blocked_resolver), T(lookups_go_to_the_programs_executor),
      T(a_cancelled_lookup_leaves_the_queue), T(an_answer_that_comes_too_late_is_freed),
      T(an_executor_that_takes_no_job_says_why), T(a_forked_child_can_look_names_up),
      T(a_resolver_answers_instead), T(a_resolver_may_answer_at_once), T(a_resolver_is_not_asked_for_numbers),
      T(a_resolvers_message_is_passed_on), T(a_resolver_hears_of_cancelling), T(connections_ask_the_resolver),
      T(servers_ask_the_resolver), T(the_default_resolver_can_be_restored), T(resolvers_can_be_chained),
      T(without_memory_the_resolver_stays), T(a_resolver_without_size_or_function_is_refused),
      T(a_resolver_answers_on_the_loop_that_asks), T(an_answer_without_a_list_connects_nowhere),
      T(a_resolver_may_close_the_loop), T(a_resolver_may_cancel_the_call),
      T(numbers_of_an_address_come_at_once), T(names_of_an_address_come_from_a_thread),
      T(a_service_of_an_address_takes_a_thread), T(an_address_without_name_is_an_error),
      T(an_address_of_an_odd_family_is_an_error), T(a_deadline_ends_a_lookup_of_names),
      T(every_want_of_memory_is_survived), T(every_want_of_memory_around_a_job_is_survived))
