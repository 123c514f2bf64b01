/* SPDX-License-Identifier: MIT
 *
 * Happy eyeballs (RFC 8305) in create_connection: which address is tried when. The resolver follows a script
 * and the clock is virtual, so moments are exact. An address that does not answer is a listener whose backlog
 * is full; addresses that nobody listens at refuse.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "script.h"

enum { FILLERS = 8 };

typedef struct place {
  int listener;
  int fillers[FILLERS];
  int count;
} place_t;

typedef struct address {
  struct sockaddr_storage as;
  socklen_t size;
} address_t;

static address_t address_of(const char *host, int port) {
  address_t address = {.size = sizeof(struct sockaddr_in)};
  struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&address.as;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&address.as;
  v4->sin_port = htons((uint16_t)port); /* where sin6_port is, too */
  v4->sin_family = AF_INET;
  if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) return address;
  inet_pton(AF_INET6, host, &v6->sin6_addr);
  v6->sin6_family = AF_INET6;
  address.size = sizeof *v6;
  return address;
}

static int port_of(int fd) {
  struct sockaddr_in6 address;
  socklen_t size = sizeof address;
  assert_int_equal(getsockname(fd, (struct sockaddr *)(void *)&address, &size), 0);
  return ntohs(address.sin6_port);
}

/* A place where connections are answered; false: this machine has no such address, or the port is taken. */
static bool open_place(place_t *place, const char *host, int port, int backlog) {
  address_t address = address_of(host, port);
  int on = 1;
  *place = (place_t){.listener = socket(address.as.ss_family, SOCK_STREAM, 0)};
  if (place->listener < 0) return false;
  if (address.as.ss_family == AF_INET6) setsockopt(place->listener, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(place->listener, (struct sockaddr *)&address.as, address.size) == 0 &&
      listen(place->listener, backlog) == 0)
    return true;
  close(place->listener);
  return false;
}

/* ... and one where they hang. */
static bool open_hole(place_t *place, const char *host, int port) {
  if (!open_place(place, host, port, 0)) return false;
  address_t address = address_of(host, port_of(place->listener));
  while (place->count < FILLERS) {
    int fd = socket(address.as.ss_family, SOCK_STREAM, 0);
    struct pollfd answer = {.fd = fd, .events = POLLOUT};
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connect(fd, (struct sockaddr *)&address.as, address.size);
    place->fillers[place->count++] = fd;
    if (poll(&answer, 1, 50) == 0) return true;
  }
  fail_msg("a full backlog still takes connections");
  return false;
}

static void close_place(const place_t *place) {
  for (int i = 0; i < place->count; i++) close(place->fillers[i]);
  close(place->listener);
}

/* ---- Connecting ------------------------------------------------------------------------------------------ */

typedef struct run {
  env_t *env;
  script_t script;
  int64_t begun;
  aloop_connect_options_t options;
  aloop_transport_t *transport;
  bool lost;
} run_t;

static void note_made(aloop_transport_t *transport, void *protocol) {
  ((run_t *)protocol)->transport = transport;
}

static void note_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport, (void)error;
  ((run_t *)protocol)->lost = true;
}

static const aloop_protocol_t table = {
    .size = sizeof(aloop_protocol_t), .connection_made = note_made, .connection_lost = note_lost};

static void prepare(run_t *run, env_t *env, script_t script, int port) {
  *run = (run_t){.env = env, .script = script};
  run->options = (aloop_connect_options_t){.size = sizeof run->options, .host = "host.test", .port = port};
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  assert_int_equal(aloop_set_resolver(env->loop, &script_resolver, &run->script), 0);
}

static aloop_future_t *begin(run_t *run) {
  run->begun = aloop_time(run->env->loop);
  return aloop_create_connection(run->env->loop, &table, run, &run->options);
}

static int64_t elapsed(const run_t *run) {
  return aloop_update_time(run->env->loop) - run->begun;
}

/* The connection came about after that long, with this host. */
static void expect_connected(run_t *run, aloop_future_t *future, const char *host, int64_t after) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  if (run_future(run->env->loop, future) < 0) fail_msg("connect: %s", aloop_future_message(future));
  assert_int_equal(elapsed(run), after);
  address_t wanted = address_of(host, run->options.port);
  assert_int_equal(aloop_transport_peername(run->transport, (struct sockaddr *)&peer, &size), 0);
  assert_int_equal(size, wanted.size);
  assert_memory_equal(&peer, &wanted.as, size);
  aloop_transport_abort(run->transport);
  run_until(run->env->loop, &run->lost);
}

static void expect_attempt(const aloop_future_t *future, size_t index, const char *host, int error) {
  aloop_attempt_t attempt;
  char text[INET6_ADDRSTRLEN];
  assert_int_equal(aloop_future_attempt(future, index, &attempt), 0);
  const void *bytes = attempt.address.ss_family == AF_INET
                          ? (const void *)&((struct sockaddr_in *)(void *)&attempt.address)->sin_addr
                          : (const void *)&((struct sockaddr_in6 *)(void *)&attempt.address)->sin6_addr;
  inet_ntop(attempt.address.ss_family, bytes, text, sizeof text);
  assert_string_equal(text, host);
  if (error != 0) assert_int_equal(attempt.error, error);
}

static void expect_attempts(const aloop_future_t *future, size_t count) {
  aloop_attempt_t attempt;
  if (count > 0) assert_int_equal(aloop_future_attempt(future, count - 1, &attempt), 0);
  assert_int_equal(aloop_future_attempt(future, count, &attempt), ALOOP_ENOENT);
}

/* Ends a run that connected, or one that did not. */
static void finish(const run_t *run, aloop_future_t *future) {
  aloop_future_unref(future);
  assert_int_equal(run->script.lists, 0);
}

/* ---- Head starts ----------------------------------------------------------------------------------------- */

static const line_t two_lines[] = {{.host = "host.test", .family = AF_INET, .addresses = "127.0.0.1 127.0.0.2"},
                                   {.host = "host.test", .family = AF_INET6, .error = ALOOP_EAI_NODATA},
                                   {.host = "host.test", .addresses = "127.0.0.1 127.0.0.2"}};

/* 127.0.0.1 does not answer, 127.0.0.2 does, at the same port. */
static void open_hole_and_place(place_t *hole, place_t *place) {
  for (int i = 0; i < 100; i++) {
    assert_true(open_hole(hole, "127.0.0.1", 0));
    if (open_place(place, "127.0.0.2", port_of(hole->listener), 5)) return;
    close_place(hole);
  }
  fail_msg("no port is free at both addresses");
}

static void expect_head_start(env_t *env, int64_t delay, int64_t after) {
  place_t hole, place;
  run_t run;
  open_hole_and_place(&hole, &place);
  prepare(&run, env, SCRIPT(two_lines), port_of(hole.listener));
  run.options.happy_eyeballs_delay = delay;
  aloop_future_t *future = begin(&run);
  expect_connected(&run, future, "127.0.0.2", after);
  expect_attempts(future, 0);
  finish(&run, future);
  close_place(&hole);
  close_place(&place);
}

static void a_silent_address_costs_its_head_start(void **state) {
  expect_head_start(*state, 0, ALOOP_MILLIS(250));
}

static void the_head_start_is_an_option(void **state) {
  expect_head_start(*state, ALOOP_SECONDS(2), ALOOP_SECONDS(2));
}

static void a_refused_address_costs_no_time(void **state) {
  env_t *env = *state;
  place_t place;
  run_t run;
  assert_true(open_place(&place, "127.0.0.2", 0, 5));
  prepare(&run, env, SCRIPT(two_lines), port_of(place.listener));
  aloop_future_t *future = begin(&run);
  expect_connected(&run, future, "127.0.0.2", 0);
  expect_attempts(future, 1);
  expect_attempt(future, 0, "127.0.0.1", ALOOP_ECONNREFUSED);
  finish(&run, future);
  close_place(&place);
}

static void without_happy_eyeballs_an_address_has_all_the_time(void **state) {
  env_t *env = *state;
  place_t hole, place;
  run_t run;
  open_hole_and_place(&hole, &place);
  prepare(&run, env, SCRIPT(two_lines), port_of(hole.listener));
  run.options.happy_eyeballs_delay = ALOOP_FOREVER;
  run.options.timeout = ALOOP_SECONDS(3);
  aloop_future_t *future = begin(&run);
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  assert_int_equal(elapsed(&run), ALOOP_SECONDS(3));
  assert_int_equal(run.script.asked, 1);
  assert_int_equal(run.script.hints.ai_family, AF_UNSPEC);
  expect_attempts(future, 1);
  expect_attempt(future, 0, "127.0.0.1", ALOOP_ETIMEDOUT);
  finish(&run, future);
  close_place(&hole);
  close_place(&place);
}

static void the_timeout_counts_for_all_together(void **state) {
  env_t *env = *state;
  place_t hole, other;
  run_t run;
  open_hole_and_place(&hole, &other);
  close_place(&other);
  assert_true(open_hole(&other, "127.0.0.2", port_of(hole.listener)));
  prepare(&run, env, SCRIPT(two_lines), port_of(hole.listener));
  run.options.timeout = ALOOP_MILLIS(400);
  aloop_future_t *future = begin(&run);
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  assert_int_equal(elapsed(&run), ALOOP_MILLIS(400));
  expect_attempts(future, 2);
  expect_attempt(future, 0, "127.0.0.1", ALOOP_ETIMEDOUT);
  expect_attempt(future, 1, "127.0.0.2", ALOOP_ETIMEDOUT);
  finish(&run, future);
  close_place(&hole);
  close_place(&other);
}

static void cancelling_closes_every_attempt(void **state) {
  env_t *env = *state;
  place_t hole, other;
  run_t run;
  open_hole_and_place(&hole, &other);
  close_place(&other);
  assert_true(open_hole(&other, "127.0.0.2", port_of(hole.listener)));
  prepare(&run, env, SCRIPT(two_lines), port_of(hole.listener));
  int before = open_fds();
  aloop_future_t *future = begin(&run);
  assert_int_equal(aloop_run_until_complete(env->loop, aloop_sleep(env->loop, ALOOP_MILLIS(300))), 0);
  assert_int_equal(open_fds(), before + 2);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(open_fds(), before);
  finish(&run, future);
  close_place(&hole);
  close_place(&other);
}

/* ---- Families -------------------------------------------------------------------------------------------- */

/* Refuses at ::1, if there is such an address; it is an attempt all the same. */
static void families_take_turns(void **state) {
  static const line_t lines[] = {
      {.host = "host.test", .family = AF_INET, .addresses = "127.0.0.1 127.0.0.2 127.0.0.3"},
      {.host = "host.test", .family = AF_INET6, .addresses = "::1 ::ffff:127.0.0.9"}};
  env_t *env = *state;
  place_t place;
  run_t run;
  assert_true(open_place(&place, "127.0.0.250", 0, 5)); /* keeps the port from everybody else */
  prepare(&run, env, SCRIPT(lines), port_of(place.listener));
  aloop_future_t *future = begin(&run);
  assert_true(run_future(env->loop, future) < 0);
  expect_attempts(future, 5);
  expect_attempt(future, 0, "::1", 0);
  expect_attempt(future, 1, "127.0.0.1", ALOOP_ECONNREFUSED);
  expect_attempt(future, 2, "::ffff:127.0.0.9", 0);
  expect_attempt(future, 3, "127.0.0.2", ALOOP_ECONNREFUSED);
  expect_attempt(future, 4, "127.0.0.3", ALOOP_ECONNREFUSED);
  assert_non_null(strstr(aloop_future_message(future), "127.0.0.3"));
  finish(&run, future);
  close_place(&place);
}

/* Answers for IPv4 at once and for IPv6 after `delay`; somebody listens at 127.0.0.1 alone. */
static void expect_slow_ipv6(env_t *env, line_t v6, int64_t after, int cancelled) {
  line_t lines[] = {{.host = "host.test", .family = AF_INET, .addresses = "127.0.0.1"}, v6};
  place_t place;
  run_t run;
  assert_true(open_place(&place, "127.0.0.1", 0, 5));
  prepare(&run, env, SCRIPT(lines), port_of(place.listener));
  aloop_future_t *future = begin(&run);
  expect_connected(&run, future, "127.0.0.1", after);
  assert_int_equal(run.script.cancelled, cancelled);
  finish(&run, future);
  close_place(&place);
}

static void ipv4_waits_a_moment_for_ipv6_to_be_looked_up(void **state) {
  line_t slow = {.host = "host.test", .family = AF_INET6, .addresses = "::1", .delay = ALOOP_SECONDS(5)};
  expect_slow_ipv6(*state, slow, ALOOP_MILLIS(50), 1);
}

static void ipv4_does_not_wait_when_there_is_no_ipv6(void **state) {
  line_t none = {.host = "host.test", .family = AF_INET6, .error = ALOOP_EAI_NODATA, .delay = ALOOP_MILLIS(20)};
  expect_slow_ipv6(*state, none, ALOOP_MILLIS(20), 0);
}

static void ipv6_does_not_wait_for_ipv4(void **state) {
  static const line_t lines[] = {
      {.host = "host.test", .family = AF_INET, .addresses = "127.0.0.1", .delay = ALOOP_SECONDS(5)},
      {.host = "host.test", .family = AF_INET6, .addresses = "::1"}};
  env_t *env = *state;
  place_t place;
  run_t run;
  if (!open_place(&place, "::1", 0, 5)) skip();
  prepare(&run, env, SCRIPT(lines), port_of(place.listener));
  aloop_future_t *future = begin(&run);
  expect_connected(&run, future, "::1", 0);
  assert_int_equal(run.script.cancelled, 1);
  finish(&run, future);
  close_place(&place);
}

static void ipv6_that_comes_in_time_goes_first(void **state) {
  static const line_t lines[] = {
      {.host = "host.test", .family = AF_INET, .addresses = "127.0.0.1"},
      {.host = "host.test", .family = AF_INET6, .addresses = "::1", .delay = ALOOP_MILLIS(49)}};
  env_t *env = *state;
  place_t place;
  run_t run;
  if (!open_place(&place, "::1", 0, 5)) skip();
  prepare(&run, env, SCRIPT(lines), port_of(place.listener));
  aloop_future_t *future = begin(&run);
  expect_connected(&run, future, "::1", ALOOP_MILLIS(49));
  expect_attempts(future, 0);
  finish(&run, future);
  close_place(&place);
}

/* The path of an IPv6 network that leads nowhere. */
static void ipv4_overtakes_silent_ipv6(void **state) {
  static const line_t lines[] = {{.host = "host.test", .family = AF_INET, .addresses = "127.0.0.1"},
                                 {.host = "host.test", .family = AF_INET6, .addresses = "::1"}};
  env_t *env = *state;
  place_t hole, place;
  run_t run;
  if (!open_hole(&hole, "::1", 0)) skip();
  if (!open_place(&place, "127.0.0.1", port_of(hole.listener), 5)) {
    close_place(&hole); /* somebody has the port; another run will have better luck */
    skip();
  }
  prepare(&run, env, SCRIPT(lines), port_of(hole.listener));
  aloop_future_t *future = begin(&run);
  expect_connected(&run, future, "127.0.0.1", ALOOP_MILLIS(250));
  finish(&run, future);
  close_place(&hole);
  close_place(&place);
}

static void a_late_answer_is_tried_beside_a_silent_address(void **state) {
  static const line_t lines[] = {{.host = "host.test", .family = AF_INET6, .error = ALOOP_EAI_NODATA},
                                 {.host = "host.test", .family = AF_INET, .addresses = "127.0.0.1"},
                                 {.host = "local.test", .addresses = "127.0.0.1"}};
  env_t *env = *state;
  place_t hole;
  run_t run;
  assert_true(open_hole(&hole, "127.0.0.1", 0));
  prepare(&run, env, SCRIPT(lines), port_of(hole.listener));
  run.options.local_host = "local.test";
  run.options.timeout = ALOOP_SECONDS(1);
  aloop_future_t *future = begin(&run);
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  expect_attempts(future, 1);
  finish(&run, future);
  close_place(&hole);
}

/* ---- Failures -------------------------------------------------------------------------------------------- */

static void expect_error(env_t *env, int v6, int v4, int64_t delay, int error) {
  line_t lines[] = {{.host = "host.test", .family = AF_INET6, .error = v6, .delay = delay},
                    {.host = "host.test", .family = AF_INET, .error = v4}};
  run_t run;
  prepare(&run, env, SCRIPT(lines), 80);
  aloop_future_t *future = begin(&run);
  assert_int_equal(run_future(env->loop, future), error);
  assert_int_equal(elapsed(&run), delay);
  assert_non_null(strstr(aloop_future_message(future), "look up host.test"));
  expect_attempts(future, 0);
  finish(&run, future);
}

static void of_two_errors_the_one_that_says_more_counts(void **state) {
  expect_error(*state, ALOOP_EAI_NONAME, ALOOP_EAI_NONAME, 0, ALOOP_EAI_NONAME);
  expect_error(*state, ALOOP_EAI_NODATA, ALOOP_EAI_NONAME, 0, ALOOP_EAI_NONAME);
  expect_error(*state, ALOOP_EAI_NODATA, ALOOP_EAI_AGAIN, 0, ALOOP_EAI_AGAIN);
  expect_error(*state, ALOOP_EAI_AGAIN, ALOOP_EAI_NONAME, 0, ALOOP_EAI_AGAIN);
  expect_error(*state, ALOOP_EAI_NODATA, ALOOP_EAI_ADDRFAMILY, 0, ALOOP_EAI_NODATA);
}

static void an_error_waits_for_the_other_family(void **state) {
  expect_error(*state, ALOOP_EAI_FAIL, ALOOP_EAI_NONAME, ALOOP_SECONDS(7), ALOOP_EAI_FAIL);
}

static void a_family_that_is_asked_for_is_asked_alone(void **state) {
  env_t *env = *state;
  place_t place;
  run_t run;
  assert_true(open_place(&place, "127.0.0.2", 0, 5));
  prepare(&run, env, SCRIPT(two_lines), port_of(place.listener));
  run.options.family = AF_INET;
  aloop_future_t *future = begin(&run);
  expect_connected(&run, future, "127.0.0.2", 0);
  assert_int_equal(run.script.asked, 1);
  assert_int_equal(run.script.hints.ai_family, AF_INET);
  finish(&run, future);
  close_place(&place);
}

static void a_zone_reaches_the_socket(void **state) {
  env_t *env = *state;
  aloop_attempt_t attempt;
  run_t run;
  prepare(&run, env, SCRIPT(two_lines), 80);
  run.options.host = "fe80::1%lo"; /* nobody's address */
  run.options.timeout = ALOOP_SECONDS(1);
  aloop_future_t *future = begin(&run);
  assert_true(run_future(env->loop, future) < 0);
  assert_int_equal(run.script.asked, 0);
  assert_int_equal(aloop_future_attempt(future, 0, &attempt), 0);
  assert_int_equal(((struct sockaddr_in6 *)(void *)&attempt.address)->sin6_scope_id, if_nametoindex("lo"));
  finish(&run, future);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

static int torture_port;

static void connect_past_a_hole(env_t *env) {
  run_t run = {.env = env, .script = SCRIPT(two_lines)};
  run.options = (aloop_connect_options_t){
      .size = sizeof run.options,
      .host = "host.test",
      .port = torture_port,
      .timeout = ALOOP_SECONDS(10)}; /* for the hole alone, when there is no memory for the other attempt */
  if (aloop_set_resolver(env->loop, &script_resolver, &run.script) < 0) return;
  aloop_future_t *future = begin(&run);
  if (future != NULL && run_future(env->loop, future) == 0) {
    env->fail_from = 0;
    aloop_transport_abort(run.transport);
    run_until(env->loop, &run.lost);
  }
  aloop_future_unref(future);
  aloop_set_resolver(env->loop, NULL, NULL);
}

static void every_want_of_memory_is_survived(void **state) {
  place_t hole, place;
  open_hole_and_place(&hole, &place);
  torture_port = port_of(hole.listener);
  torture(*state, connect_past_a_hole);
  close_place(&hole);
  close_place(&place);
}

TESTS(T(a_silent_address_costs_its_head_start), T(the_head_start_is_an_option),
      T(a_refused_address_costs_no_time), T(without_happy_eyeballs_an_address_has_all_the_time),
      T(the_timeout_counts_for_all_together), T(cancelling_closes_every_attempt), T(families_take_turns),
      T(ipv4_waits_a_moment_for_ipv6_to_be_looked_up), T(ipv4_does_not_wait_when_there_is_no_ipv6),
      T(ipv6_does_not_wait_for_ipv4), T(ipv6_that_comes_in_time_goes_first), T(ipv4_overtakes_silent_ipv6),
      T(a_late_answer_is_tried_beside_a_silent_address), T(of_two_errors_the_one_that_says_more_counts),
      T(an_error_waits_for_the_other_family), T(a_family_that_is_asked_for_is_asked_alone),
      T(a_zone_reaches_the_socket), T(every_want_of_memory_is_survived))
