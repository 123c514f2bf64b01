/* SPDX-License-Identifier: MIT
 *
 * create_connection and connect_accepted_socket: every way to a transport, every reason against one, and
 * nothing left behind. Peers are plain sockets of the test. pollers: all
 */
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "names.h"
#include "peers.h"

/* ---- Peers ----------------------------------------------------------------------------------------------- */

static bool completes(int fd) {
  struct pollfd poller = {.fd = fd, .events = POLLOUT};
  return poll(&poller, 1, 50) == 1;
}

/* A listener whose backlog is full, so that a connect hangs. */
typedef struct busy {
  int listener;
  int port;
  int fillers[8];
  int count;
} busy_t;

static void busy_open(busy_t *busy) {
  busy->listener = peer_listen(0, &busy->port);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)busy->port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (busy->count = 0; busy->count < 8;) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connect(fd, (struct sockaddr *)(void *)&address, sizeof address);
    busy->fillers[busy->count++] = fd;
    if (!completes(fd)) return;
  }
}

static void busy_close(busy_t *busy) {
  for (int i = 0; i < busy->count; i++) close(busy->fillers[i]);
  close(busy->listener);
}

/* ---- The protocol ---------------------------------------------------------------------------------------- */

typedef struct recorder {
  int made, lost, error;
  bool ended;
  aloop_transport_t *transport;
  aloop_future_t *cancel_in_made;
} recorder_t;

static void on_made(aloop_transport_t *transport, void *protocol) {
  recorder_t *self = protocol;
  self->made++;
  self->transport = transport;
  if (self->cancel_in_made != NULL) aloop_future_cancel(self->cancel_in_made);
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  recorder_t *self = protocol;
  self->lost++;
  self->error = error;
  self->ended = true;
}

static const aloop_protocol_t table = {
    .size = sizeof(aloop_protocol_t), .connection_made = on_made, .connection_lost = on_lost};

static void *no_protocol(void *arg) {
  (void)arg;
  return NULL;
}

static const aloop_protocol_t refusing_table = {
    .size = sizeof(aloop_protocol_t), .create = no_protocol, .connection_made = on_made};

static aloop_connect_options_t to(const char *host, int port) {
  return (aloop_connect_options_t){.size = sizeof(aloop_connect_options_t), .host = host, .port = port};
}

static aloop_future_t *start(env_t *env, recorder_t *recorder, aloop_connect_options_t options) {
  aloop_future_t *future = aloop_create_connection(env->loop, &table, recorder, &options);
  assert_non_null(future);
  return future;
}

/* Waits for a transport and takes it over. */
static aloop_transport_t *taken(env_t *env, aloop_future_t *future) {
  aloop_transport_t *transport = NULL;
  if (run_future(env->loop, future) < 0) fail_msg("connect: %s", aloop_future_message(future));
  assert_int_equal(aloop_future_take_ptr(future, &transport), 0);
  assert_non_null(transport);
  aloop_future_unref(future);
  return transport;
}

/* Ends a connection and waits until its protocol knows. */
static void finish(env_t *env, recorder_t *recorder, aloop_transport_t *transport) {
  aloop_transport_abort(transport);
  aloop_transport_unref(transport);
  run_until(env->loop, &recorder->ended);
  assert_int_equal(recorder->made, 1);
  assert_int_equal(recorder->lost, 1);
}

/* Waits for a failure: the error, and the message in *text if it is not NULL. */
static int64_t failure(env_t *env, aloop_future_t *future, char *text) {
  int64_t error = run_future(env->loop, future);
  assert_true(error < 0);
  if (text != NULL) snprintf(text, 1024, "%s", aloop_future_message(future));
  aloop_future_unref(future);
  return error;
}

/* ---- Connecting ------------------------------------------------------------------------------------------ */

static void connects_to_a_numeric_host(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_transport_t *transport = taken(env, start(env, &recorder, to("127.0.0.1", port)));
  assert_int_equal(recorder.made, 1);
  assert_ptr_equal(recorder.transport, transport);
  struct sockaddr_in peer;
  socklen_t size = sizeof peer;
  assert_int_equal(aloop_transport_peername(transport, (struct sockaddr *)(void *)&peer, &size), 0);
  assert_int_equal(ntohs(peer.sin_port), port);
  finish(env, &recorder, transport);
  close(listener);
}

static void connects_to_a_name(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("name.test", port);
  options.family = AF_INET;
  finish(env, &recorder, taken(env, start(env, &recorder, options)));
  close(listener);
}

static void tries_every_address_of_a_name(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port); /* IPv4 only: the first address refuses */
  recorder_t recorder = {0};
  finish(env, &recorder, taken(env, start(env, &recorder, to("many.test", port))));
  close(listener);
}

static void connects_over_ipv6(void **state) {
  env_t *env = *state;
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET6, SOCK_STREAM, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)(void *)&address, size) < 0) {
    if (listener >= 0) close(listener);
    skip();
  }
  assert_int_equal(listen(listener, 5), 0);
  assert_int_equal(getsockname(listener, (struct sockaddr *)(void *)&address, &size), 0);
  recorder_t recorder = {0};
  finish(env, &recorder, taken(env, start(env, &recorder, to("::1", ntohs(address.sin6_port)))));
  close(listener);
}

static void option_strings_are_copied(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  char host[] = "name.test", local[] = "127.0.0.1";
  aloop_connect_options_t options = to(host, port);
  options.family = AF_INET;
  options.local_host = local;
  aloop_future_t *future = start(env, &recorder, options);
  memset(host, 'x', sizeof host - 1);
  memset(local, 'x', sizeof local - 1);
  finish(env, &recorder, taken(env, future));
  close(listener);
}

static void sockets_send_without_delay_and_do_not_leak_into_children(void **state) {
  env_t *env = *state;
  int port, on = 0;
  socklen_t size = sizeof on;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_transport_t *transport = taken(env, start(env, &recorder, to("127.0.0.1", port)));
  int fd = aloop_transport_fd(transport);
  assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
  assert_true(on);
  assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  finish(env, &recorder, transport);
  close(listener);
}

static void an_unread_future_keeps_its_connection(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_future_detach(start(env, &recorder, to("127.0.0.1", port)));
  while (recorder.made == 0) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  run_turns(env->loop, 2);
  assert_false(aloop_transport_is_closing(recorder.transport));
  aloop_transport_abort(recorder.transport);
  run_until(env->loop, &recorder.ended);
  close(listener);
}

/* ---- Local addresses ------------------------------------------------------------------------------------- */

static void binds_to_a_local_address(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", port);
  options.local_host = "127.0.0.2";
  aloop_transport_t *transport = taken(env, start(env, &recorder, options));
  struct sockaddr_in name;
  socklen_t size = sizeof name;
  assert_int_equal(aloop_transport_sockname(transport, (struct sockaddr *)(void *)&name, &size), 0);
  assert_int_equal(ntohl(name.sin_addr.s_addr), INADDR_LOOPBACK + 1);
  finish(env, &recorder, transport);
  close(listener);
}

static void binds_to_a_local_port(void **state) {
  env_t *env = *state;
  int port, local_port;
  int listener = peer_listen(5, &port);
  int probe = peer_bind("127.0.0.1", &local_port); /* a port that is free in a moment */
  close(probe);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", port);
  options.local_port = local_port;
  aloop_transport_t *transport = taken(env, start(env, &recorder, options));
  struct sockaddr_in name;
  socklen_t size = sizeof name;
  assert_int_equal(aloop_transport_sockname(transport, (struct sockaddr *)(void *)&name, &size), 0);
  assert_int_equal(ntohs(name.sin_port), local_port);
  finish(env, &recorder, transport);
  close(listener);
}

static void a_local_address_must_be_of_this_machine(void **state) {
  env_t *env = *state;
  char text[1024];
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", port);
  options.local_host = "203.0.113.77";
  assert_int_equal(failure(env, start(env, &recorder, options), text), ALOOP_EADDRNOTAVAIL);
  assert_non_null(strstr(text, "from 203.0.113.77"));
  close(listener);
}

static void a_local_address_must_be_of_the_same_family(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", port);
  options.local_host = "::1";
  assert_int_equal(failure(env, start(env, &recorder, options), NULL), ALOOP_EADDRNOTAVAIL);
  close(listener);
}

static void an_unknown_local_host_is_an_error(void **state) {
  env_t *env = *state;
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", 1);
  options.local_host = "127.0.0.1";
  options.family = AF_INET6;
  options.host = "::1";
  assert_int_equal(failure(env, start(env, &recorder, options), NULL), ALOOP_EAI_ADDRFAMILY);
}

/* ---- Failures -------------------------------------------------------------------------------------------- */

static void a_refused_connection_says_where(void **state) {
  env_t *env = *state;
  char text[1024], expected[128];
  int port;
  int closed = peer_bind("127.0.0.1", &port);
  recorder_t recorder = {0};
  assert_int_equal(failure(env, start(env, &recorder, to("127.0.0.1", port)), text), ALOOP_ECONNREFUSED);
  snprintf(expected, sizeof expected, "connect to 127.0.0.1 port %d: connection refused", port);
  assert_string_equal(text, expected);
  assert_int_equal(recorder.made, 0);
  close(closed);
}

static void every_attempt_is_remembered(void **state) {
  env_t *env = *state;
  char text[1024], expected[128];
  int port;
  int closed = peer_bind("127.0.0.1", &port);
  recorder_t recorder = {0};
  aloop_future_t *future = start(env, &recorder, to("many.test", port));
  int64_t error = run_future(env->loop, future);
  aloop_attempt_t first, second;
  assert_int_equal(aloop_future_attempt(future, 0, &first), 0);
  assert_int_equal(aloop_future_attempt(future, 1, &second), 0);
  assert_int_equal(aloop_future_attempt(future, 2, &second), ALOOP_ENOENT);
  assert_int_equal(first.address.ss_family, AF_INET6);
  assert_int_equal(first.error, error); /* refused, or there is no IPv6 */
  assert_int_equal(second.address.ss_family, AF_INET);
  assert_int_equal(second.error, ALOOP_ECONNREFUSED);
  failure(env, future, text);
  snprintf(expected, sizeof expected, "connect to ::1 port %d: ", port);
  assert_ptr_equal(strstr(text, expected), text);
  snprintf(expected, sizeof expected, "; connect to 127.0.0.1 port %d: connection refused", port);
  assert_non_null(strstr(text, expected));
  close(closed);
}

static void an_unknown_host_is_an_error_with_a_message(void **state) {
  env_t *env = *state;
  char text[1024];
  names_result = EAI_NONAME;
  recorder_t recorder = {0};
  assert_int_equal(failure(env, start(env, &recorder, to("fail.test", 80)), text), ALOOP_EAI_NONAME);
  assert_string_equal(text, "look up fail.test: host or service not known");
}

static void an_address_of_the_wrong_family_is_an_error(void **state) {
  env_t *env = *state;
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", 80);
  options.family = AF_INET6;
  assert_int_equal(failure(env, start(env, &recorder, options), NULL), ALOOP_EAI_ADDRFAMILY);
}

static void a_factory_may_refuse(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  aloop_connect_options_t options = to("127.0.0.1", port);
  aloop_future_t *future = aloop_create_connection(env->loop, &refusing_table, NULL, &options);
  assert_int_equal(failure(env, future, NULL), ALOOP_ENOMEM);
  run_turns(env->loop, 2);
  close(listener);
}

static void an_odd_protocol_number_is_an_error(void **state) {
  env_t *env = *state;
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", 80);
  options.proto = 250;
  failure(env, start(env, &recorder, options), NULL);
}

/* ---- Wrong options --------------------------------------------------------------------------------------- */

static void expect_refusal(env_t *env, const aloop_protocol_t *protocol, const aloop_connect_options_t *options,
                           const char *word) {
  char text[1024];
  aloop_future_t *future = aloop_create_connection(env->loop, protocol, NULL, options);
  assert_non_null(future);
  assert_true(aloop_future_done(future));
  assert_int_equal(failure(env, future, text), ALOOP_EINVAL);
  if (strstr(text, word) == NULL) fail_msg("\"%s\" does not speak of %s", text, word);
}

static void wrong_options_are_explained(void **state) {
  env_t *env = *state;
  aloop_connect_options_t options = to("127.0.0.1", 0);
  expect_refusal(env, &table, NULL, "options.size");
  expect_refusal(env, NULL, &options, "protocol");
  expect_refusal(env, &(aloop_protocol_t){.size = 0}, &options, "protocol");
  expect_refusal(env, &table, &(aloop_connect_options_t){.host = "127.0.0.1"}, "options.size");
  expect_refusal(env, &table, &options, "options.port");
  options.port = 65536;
  expect_refusal(env, &table, &options, "options.port");
  options.port = -1;
  expect_refusal(env, &table, &options, "options.port");
  options = to("", 80);
  expect_refusal(env, &table, &options, "options.host");
  options = to(NULL, 80);
  expect_refusal(env, &table, &options, "options.host");
  options = to(NULL, 0);
  options.local_host = "127.0.0.1";
  expect_refusal(env, &table, &options, "local_host");
  options = to("127.0.0.1", 80);
  options.fd = 5;
  expect_refusal(env, &table, &options, "not both");
  options = to("127.0.0.1", 80);
  options.local_port = 70000;
  expect_refusal(env, &table, &options, "options.local_port");
  options = to("127.0.0.1", 80);
  options.family = AF_UNIX;
  expect_refusal(env, &table, &options, "options.family");
  options = to("127.0.0.1", 80);
  options.timeout = -5;
  expect_refusal(env, &table, &options, "options.timeout");
}

static void debug_mode_hears_of_wrong_options(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.debug = 1});
  aloop_connect_options_t options = to("127.0.0.1", 0);
  expect_refusal(env, &table, &options, "options.port");
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EINVAL);
}

static void a_closed_loop_connects_nowhere(void **state) {
  env_t *env = *state;
  aloop_close(env->loop);
  recorder_t recorder = {0};
  aloop_future_t *future = start(env, &recorder, to("127.0.0.1", 80));
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
  assert_null(aloop_create_connection(NULL, &table, NULL, NULL));
}

/* ---- Timeout --------------------------------------------------------------------------------------------- */

static void a_connect_that_hangs_times_out(void **state) {
  env_t *env = *state;
  char text[1024];
  busy_t busy;
  busy_open(&busy);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", busy.port);
  options.timeout = ALOOP_MILLIS(20);
  int64_t begun = aloop_time(env->loop);
  int fds = open_fds();
  aloop_future_t *future = start(env, &recorder, options);
  assert_int_equal(run_future(env->loop, future), ALOOP_ETIMEDOUT);
  assert_int_equal(open_fds(), fds);
  aloop_attempt_t attempt;
  assert_int_equal(aloop_future_attempt(future, 0, &attempt), 0);
  assert_int_equal(attempt.error, ALOOP_ETIMEDOUT);
  assert_int_equal(failure(env, future, text), ALOOP_ETIMEDOUT);
  assert_true(aloop_update_time(env->loop) - begun >= ALOOP_MILLIS(20));
  assert_non_null(strstr(text, "after 20 ms"));
  assert_non_null(strstr(text, "connect to 127.0.0.1 port"));
  busy_close(&busy);
}

static void a_timeout_that_is_not_needed_does_no_harm(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", port);
  options.timeout = ALOOP_SECONDS(3600);
  finish(env, &recorder, taken(env, start(env, &recorder, options)));
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.timers, 0);
  close(listener);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------ */

static void assert_nothing_left(env_t *env, int fds) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.watches, 0);
  assert_int_equal(metrics.timers, 0);
  assert_int_equal(open_fds(), fds);
}

static void cancelling_while_connecting_leaves_nothing(void **state) {
  env_t *env = *state;
  busy_t busy;
  busy_open(&busy);
  recorder_t recorder = {0};
  int fds = open_fds();
  aloop_connect_options_t options = to("127.0.0.1", busy.port);
  options.timeout = ALOOP_SECONDS(10);
  aloop_future_t *future = start(env, &recorder, options);
  assert_int_equal(open_fds(), fds + 1);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_nothing_left(env, fds);
  assert_true(aloop_future_cancelled(future));
  aloop_future_unref(future);
  run_turns(env->loop, 3);
  assert_int_equal(recorder.made, 0);
  busy_close(&busy);
}

static void cancelling_the_second_attempt_leaves_nothing(void **state) {
  env_t *env = *state;
  busy_t busy;
  busy_open(&busy);
  recorder_t recorder = {0};
  int fds = open_fds();
  aloop_future_t *future = start(env, &recorder, to("many.test", busy.port)); /* ::1 refuses, 127.0.0.1 hangs */
  aloop_attempt_t attempt;
  while (aloop_future_attempt(future, 0, &attempt) < 0)
    assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  assert_false(aloop_future_done(future));
  assert_int_equal(open_fds(), fds + 1);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_nothing_left(env, fds);
  assert_int_equal(aloop_future_attempt(future, 1, &attempt), ALOOP_ENOENT);
  aloop_future_unref(future);
  busy_close(&busy);
}

static void cancelling_during_the_lookup_leaves_nothing(void **state) {
  env_t *env = *state;
  recorder_t recorder = {0};
  int fds = open_fds();
  aloop_future_t *future = start(env, &recorder, to("slow.test", 9));
  names_await_slow();
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_nothing_left(env, fds);
  aloop_future_unref(future);
  run_turns(env->loop, 3);
  names_open_gate();
}

static void cancelling_between_connected_and_made_ends_the_connection(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  int fds = open_fds();
  aloop_future_t *future = start(env, &recorder, to("127.0.0.1", port));
  /* Until the transport is there, which is not yet told. */
  aloop_metrics_t metrics = {.size = sizeof metrics};
  do {
    assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
    assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  } while (metrics.transports == 0);
  assert_false(aloop_future_done(future));
  assert_int_equal(aloop_future_cancel(future), 1);
  run_turns(env->loop, 3);
  assert_nothing_left(env, fds);
  assert_int_equal(recorder.made, 0);
  assert_int_equal(recorder.lost, 0);
  aloop_future_unref(future);
  close(listener);
}

static void cancelling_inside_connection_made_ends_the_connection(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_future_t *future = start(env, &recorder, to("127.0.0.1", port));
  recorder.cancel_in_made = future;
  run_until(env->loop, &recorder.ended);
  assert_true(aloop_future_cancelled(future));
  assert_int_equal(recorder.lost, 1);
  assert_int_equal(recorder.error, ALOOP_ECANCELED);
  aloop_future_unref(future);
  close(listener);
}

static void cancelling_too_late_changes_nothing(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_future_t *future = start(env, &recorder, to("127.0.0.1", port));
  assert_int_equal(run_future(env->loop, future), 0);
  assert_int_equal(aloop_future_cancel(future), 0);
  run_turns(env->loop, 3);
  assert_false(aloop_transport_is_closing(recorder.transport));
  finish(env, &recorder, taken(env, future));
  close(listener);
}

static void closing_the_loop_ends_a_connect(void **state) {
  env_t *env = *state;
  busy_t busy;
  busy_open(&busy);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to("127.0.0.1", busy.port);
  options.timeout = ALOOP_SECONDS(10);
  aloop_future_t *future = start(env, &recorder, options);
  aloop_future_t *lookup = start(env, &recorder, to("slow.test", busy.port));
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_future_cancelled(future));
  assert_true(aloop_future_cancelled(lookup));
  aloop_future_unref(future);
  aloop_future_unref(lookup);
  names_open_gate();
  busy_close(&busy);
}

static void closing_the_loop_before_connection_made_loses_the_connection_silently(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  recorder_t recorder = {0};
  aloop_future_t *future = start(env, &recorder, to("127.0.0.1", port));
  aloop_metrics_t metrics = {.size = sizeof metrics};
  do {
    assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
    assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  } while (metrics.transports == 0);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_future_result(future) < 0);
  assert_int_equal(recorder.made + recorder.lost, 0);
  aloop_future_unref(future);
  close(listener);
}

/* ---- Descriptors of the caller --------------------------------------------------------------------------- */

static void blocking_pair(int fds[2]) {
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

static void assert_untouched(int fd) {
  assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
  assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
}

static void takes_a_connected_socket(void **state) {
  env_t *env = *state;
  int fds[2];
  blocking_pair(fds);
  recorder_t recorder = {0};
  aloop_connect_options_t options = to(NULL, 0);
  options.fd = fds[0];
  aloop_transport_t *transport = taken(env, start(env, &recorder, options));
  assert_int_equal(aloop_transport_fd(transport), fds[0]);
  assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
  finish(env, &recorder, transport);
  run_turns(env->loop, 1);
  assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* it was the transport's to close */
  close(fds[1]);
}

static void takes_an_accepted_socket(void **state) {
  env_t *env = *state;
  int port, on = 0;
  socklen_t size = sizeof on;
  int listener = peer_listen(5, &port);
  recorder_t client = {0}, served = {0};
  aloop_transport_t *transport = taken(env, start(env, &client, to("127.0.0.1", port)));
  int fd = accept(listener, NULL, NULL);
  aloop_transport_t *other = taken(env, aloop_connect_accepted_socket(env->loop, &table, &served, fd, NULL));
  assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
  assert_true(on);
  finish(env, &served, other);
  finish(env, &client, transport);
  close(listener);
}

static void expect_bad_fd(env_t *env, int fd, int error, const char *word) {
  char text[1024];
  assert_int_equal(failure(env, aloop_connect_accepted_socket(env->loop, &table, NULL, fd, NULL), text), error);
  if (strstr(text, word) == NULL) fail_msg("\"%s\" does not speak of %s", text, word);
}

static void unusable_descriptors_are_refused_and_left_alone(void **state) {
  env_t *env = *state;
  int fds[2], port;
  assert_int_equal(pipe(fds), 0);
  expect_bad_fd(env, fds[0], ALOOP_ENOTSOCK, "not a socket");
  assert_untouched(fds[0]);
  close(fds[0]);
  close(fds[1]);
  expect_bad_fd(env, fds[0], ALOOP_EBADF, "not open");
  expect_bad_fd(env, -1, ALOOP_EBADF, "not open");
  int datagram = socket(AF_INET, SOCK_DGRAM, 0);
  expect_bad_fd(env, datagram, ALOOP_EINVAL, "stream");
  assert_untouched(datagram);
  close(datagram);
  int unconnected = peer_bind("127.0.0.1", &port);
  expect_bad_fd(env, unconnected, ALOOP_ENOTCONN, "not connected");
  assert_untouched(unconnected);
  close(unconnected);
  assert_int_equal(failure(env, aloop_connect_accepted_socket(env->loop, NULL, NULL, STDIN_FILENO, NULL), NULL),
                   ALOOP_EINVAL);
}

static void ignore(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

static void a_watched_descriptor_is_refused(void **state) {
  env_t *env = *state;
  int fds[2];
  blocking_pair(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], ignore, NULL), 0);
  expect_bad_fd(env, fds[0], ALOOP_EBUSY, "in use");
  assert_untouched(fds[0]);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close(fds[0]);
  close(fds[1]);
}

static void a_cancelled_connect_gives_the_descriptor_back_at_once(void **state) {
  env_t *env = *state;
  int fds[2];
  blocking_pair(fds);
  recorder_t recorder = {0};
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &table, &recorder, fds[0], NULL);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], ignore, NULL), 0); /* free again */
  aloop_future_unref(future);
  run_turns(env->loop, 3);
  assert_untouched(fds[0]);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  assert_int_equal(recorder.made + recorder.lost, 0);
  close(fds[0]);
  close(fds[1]);
}

static void a_refused_protocol_gives_the_descriptor_back(void **state) {
  env_t *env = *state;
  int fds[2];
  blocking_pair(fds);
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &refusing_table, NULL, fds[0], NULL);
  assert_int_equal(failure(env, future, NULL), ALOOP_ENOMEM);
  run_turns(env->loop, 2);
  assert_untouched(fds[0]);
  close(fds[0]);
  close(fds[1]);
}

static void closing_the_loop_gives_the_descriptor_back(void **state) {
  env_t *env = *state;
  int fds[2];
  blocking_pair(fds);
  recorder_t recorder = {0};
  aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &table, &recorder, fds[0], NULL);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(aloop_future_result(future) < 0);
  aloop_future_unref(future);
  assert_untouched(fds[0]);
  close(fds[0]);
  close(fds[1]);
}

/* ---- Context and memory ---------------------------------------------------------------------------------- */

static aloop_var_t *variable;
static void *seen_in_made;

static void remember_variable(aloop_transport_t *transport, void *protocol) {
  seen_in_made = aloop_var_get(aloop_transport_loop(transport), variable, NULL);
  on_made(transport, protocol);
}

static void set_and_connect(aloop_t *loop, void *arg) {
  static const aloop_protocol_t remembering = {
      .size = sizeof(aloop_protocol_t), .connection_made = remember_variable, .connection_lost = on_lost};
  static recorder_t recorder;
  static int value;
  aloop_future_t **future = arg;
  aloop_connect_options_t options = to("name.test", (int)(intptr_t)*future);
  options.family = AF_INET;
  assert_int_equal(aloop_var_set(loop, variable, &value, NULL, NULL), 0);
  *future = aloop_create_connection(loop, &remembering, &recorder, &options);
}

static void callbacks_run_in_the_context_of_the_call(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(5, &port);
  assert_int_equal(aloop_var_new("variable", &variable), 0);
  aloop_future_t *future = (aloop_future_t *)(intptr_t)port;
  aloop_call_soon(env->loop, set_and_connect, &future);
  run_turns(env->loop, 1);
  aloop_transport_t *transport = taken(env, future);
  assert_non_null(seen_in_made);
  aloop_transport_abort(transport);
  aloop_transport_unref(transport);
  run_turns(env->loop, 2);
  aloop_var_unref(variable);
  close(listener);
}

/* One attempt at a whole connect, in which the n-th allocation fails. Returns whether it got as far. */
static bool connect_without_memory(env_t *env, const char *host, int port, long n) {
  recorder_t recorder = {0};
  aloop_connect_options_t options = to(host, port);
  options.local_host = "127.0.0.1";
  options.family = AF_INET;
  if (strcmp(host, "name.test") != 0) options.timeout = ALOOP_SECONDS(60); /* virtual time outruns a thread */
  env_loop(env, (aloop_options_t){.debug = -1});
  long begun = env->calls;
  env->fail_at = begun + n;
  aloop_future_t *future = aloop_create_connection(env->loop, &table, &recorder, &options);
  int64_t rc = future != NULL ? run_future(env->loop, future) : ALOOP_ENOMEM;
  bool reached = env->calls >= env->fail_at;
  env->fail_at = 0;
  if (rc < 0) assert_int_equal(rc, ALOOP_ENOMEM);
  if (rc == 0) {
    aloop_transport_abort(recorder.transport);
    run_until(env->loop, &recorder.ended);
  }
  aloop_future_unref(future);
  return reached;
}

static void every_want_of_memory_is_survived(void **state) {
  env_t *env = *state;
  int port;
  int listener = peer_listen(100, &port);
  for (long n = 1; connect_without_memory(env, "127.0.0.1", port, n); n++) assert_true(n < 200);
  for (long n = 1; connect_without_memory(env, "name.test", port, n); n++) assert_true(n < 200);
  close(listener);
}

TESTS(T(connects_to_a_numeric_host), T(connects_to_a_name), T(tries_every_address_of_a_name),
      T(connects_over_ipv6), T(option_strings_are_copied),
      T(sockets_send_without_delay_and_do_not_leak_into_children), T(an_unread_future_keeps_its_connection),
      T(binds_to_a_local_address), T(binds_to_a_local_port), T(a_local_address_must_be_of_this_machine),
      T(a_local_address_must_be_of_the_same_family), T(an_unknown_local_host_is_an_error),
      T(a_refused_connection_says_where), T(every_attempt_is_remembered),
      T(an_unknown_host_is_an_error_with_a_message), T(an_address_of_the_wrong_family_is_an_error),
      T(a_factory_may_refuse), T(an_odd_protocol_number_is_an_error), T(wrong_options_are_explained),
      T(debug_mode_hears_of_wrong_options), T(a_closed_loop_connects_nowhere),
      T(a_connect_that_hangs_times_out), T(a_timeout_that_is_not_needed_does_no_harm),
      T(cancelling_while_connecting_leaves_nothing), T(cancelling_the_second_attempt_leaves_nothing),
      T(cancelling_during_the_lookup_leaves_nothing),
      T(cancelling_between_connected_and_made_ends_the_connection),
      T(cancelling_inside_connection_made_ends_the_connection), T(cancelling_too_late_changes_nothing),
      T(closing_the_loop_ends_a_connect),
      T(closing_the_loop_before_connection_made_loses_the_connection_silently), T(takes_a_connected_socket),
      T(takes_an_accepted_socket), T(unusable_descriptors_are_refused_and_left_alone),
      T(a_watched_descriptor_is_refused), T(a_cancelled_connect_gives_the_descriptor_back_at_once),
      T(a_refused_protocol_gives_the_descriptor_back), T(closing_the_loop_gives_the_descriptor_back),
      T(callbacks_run_in_the_context_of_the_call), T(every_want_of_memory_is_survived))
