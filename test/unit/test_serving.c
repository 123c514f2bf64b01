/* SPDX-License-Identifier: MIT
 *
 * Servers with a task for each connection: what the tasks are given, how they end, how servers end with clients
 * inside their tasks. pollers: all
 */
#include "duplexes.h"
#include "peers.h"
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct served {
  int begun, ended;
  int64_t result;  /* of each */
  int64_t awaited; /* by the last, before it ended */
} served_t;

static aloop_server_t *taken(aloop_t *loop, aloop_future_t *future) {
  aloop_server_t *server = NULL;
  if (run_future(loop, future) < 0) fail_msg("%s", aloop_future_message(future));
  assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  aloop_future_unref(future);
  return server;
}

static aloop_server_t *serve(env_t *env, aloop_client_fn fn, void *arg) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  return taken(env->loop, aloop_start_server(env->loop, fn, arg, &options, NULL));
}

/* Closed, and without clients. */
static void end_server(env_t *env, aloop_server_t *server) {
  aloop_server_close(server);
  assert_int_equal(finish(env->loop, aloop_server_wait_closed(server)), 0);
  aloop_server_unref(server);
  settle(env->loop);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.servers, 0);
  assert_int_equal(metrics.streams, 0);
  assert_int_equal(metrics.transports, 0);
  assert_int_equal(metrics.tasks, 0);
}

static int64_t echo_lines(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop;
  served_t *served = arg;
  const char *line;
  int64_t size;
  served->begun++;
  while ((size = aloop_await(aloop_stream_readline(stream, &line))) > 0) {
    aloop_stream_write(stream, line, (size_t)size);
    int64_t rc = aloop_await(aloop_stream_drain(stream));
    if (rc < 0) break;
  }
  served->awaited = size;
  served->ended++;
  return served->result;
}

static void expect_echo(env_t *env, int peer, const char *line) {
  char got[100] = "";
  size_t size = 0;
  say(peer, line);
  for (int i = 0; i < 100000 && size < strlen(line); i++) {
    aloop_run_once(env->loop, 0);
    ssize_t n = recv(peer, got + size, sizeof got - 1 - size, MSG_DONTWAIT);
    if (n > 0) size += (size_t)n;
  }
  assert_string_equal(got, line);
}

static void each_connection_gets_a_task(void **state) {
  env_t *env = *state;
  served_t served = {0};
  int peers[5];
  aloop_server_t *server = serve(env, echo_lines, &served);
  for (int i = 0; i < 5; i++) peers[i] = peer_connect(aloop_server_port(server));
  for (int i = 0; i < 5; i++) expect_echo(env, peers[i], "hello\n");
  for (int i = 4; i >= 0; i--) expect_echo(env, peers[i], "again\n");
  assert_int_equal(served.begun, 5);
  assert_int_equal(aloop_server_clients(server), 5);
  for (int i = 0; i < 5; i++) close(peers[i]);
  run_until_count(env->loop, &served.ended, 5);
  assert_int_equal(served.awaited, 0);
  end_server(env, server);
  assert_int_equal(env->reports, 0);
}

static void unix_servers_too(void **state) {
  env_t *env = *state;
  served_t served = {0};
  char path[] = "/tmp/aloop-serving-XXXXXX";
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  assert_non_null(mkdtemp(path));
  snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", path);
  aloop_unix_server_options_t options = {.size = sizeof options, .path = address.sun_path};
  aloop_server_t *server =
      taken(env->loop, aloop_start_unix_server(env->loop, echo_lines, &served, &options, NULL));
  int peer = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(connect(peer, (struct sockaddr *)(void *)&address, sizeof address), 0);
  expect_echo(env, peer, "hello\n");
  close(peer);
  end_server(env, server);
  assert_int_equal(rmdir(path), 0);
}

static int64_t say_goodbye(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop, (void)arg;
  static char much[300000];
  return aloop_stream_write(stream, much, sizeof much);
}

static void what_was_written_is_sent_after_the_task(void **state) {
  env_t *env = *state;
  static char got[100000];
  size_t size = 0;
  ssize_t n = -1;
  aloop_server_t *server = serve(env, say_goodbye, NULL);
  int peer = peer_connect(aloop_server_port(server));
  while (n != 0) {
    aloop_run_once(env->loop, 0);
    n = recv(peer, got, sizeof got, MSG_DONTWAIT);
    if (n > 0) size += (size_t)n;
  }
  assert_int_equal(size, 300000);
  close(peer);
  end_server(env, server);
}

static int64_t hold_on(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop;
  *(aloop_stream_t **)arg = aloop_stream_ref(stream);
  return 0;
}

static void a_task_may_keep_the_stream_which_is_closed_all_the_same(void **state) {
  env_t *env = *state;
  aloop_stream_t *kept = NULL;
  aloop_server_t *server = serve(env, hold_on, &kept);
  int peer = peer_connect(aloop_server_port(server));
  peer_await_end(env->loop, peer);
  assert_non_null(kept);
  expect_end(kept);
  aloop_stream_unref(kept);
  close(peer);
  end_server(env, server);
}

/* ---- Errors ---------------------------------------------------------------------------------------------- */

static void run_one_client(env_t *env, served_t *served) {
  aloop_server_t *server = serve(env, echo_lines, served);
  int peer = peer_connect(aloop_server_port(server));
  expect_echo(env, peer, "hello\n");
  shutdown(peer, SHUT_WR);
  run_until_count(env->loop, &served->ended, 1);
  close(peer);
  end_server(env, server);
}

static void a_task_that_fails_is_reported(void **state) {
  env_t *env = *state;
  run_one_client(env, &(served_t){.result = ALOOP_EIO});
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EIO);
  assert_string_equal(env->report_messages[0], "the task of a client failed: input/output error");
}

static int64_t explain(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop, (void)stream, (void)arg;
  return aloop_return_error(ALOOP_EINVAL, "no such command: %s", "sing");
}

static void a_message_is_part_of_the_report(void **state) {
  env_t *env = *state;
  aloop_server_t *server = serve(env, explain, NULL);
  int peer = peer_connect(aloop_server_port(server));
  peer_await_end(env->loop, peer);
  close(peer);
  end_server(env, server);
  assert_int_equal(env->reports, 1);
  assert_string_equal(env->report_messages[0], "the task of a client failed: no such command: sing");
}

static void a_task_that_was_cancelled_is_not(void **state) {
  env_t *env = *state;
  run_one_client(env, &(served_t){.result = ALOOP_ECANCELED});
  assert_int_equal(env->reports, 0);
}

static int64_t hand_on(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop;
  char byte;
  ++*(int *)arg;
  return aloop_await(aloop_stream_readexactly(stream, &byte, 1));
}

static void what_ended_the_connection_is_news_to_debug_mode_only(void **state) {
  env_t *env = *state;
  for (int debug = -1; debug < 2; debug += 2) {
    int begun = 0;
    assert_int_equal(aloop_set_debug(env->loop, debug > 0), 0);
    aloop_server_t *server = serve(env, hand_on, &begun);
    int peer = peer_connect(aloop_server_port(server));
    run_until_count(env->loop, &begun, 1);
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(peer);
    end_server(env, server);
    assert_int_equal(env->reports, debug > 0);
    if (debug > 0) assert_int_equal(env->report_errors[0], ALOOP_ECONNRESET);
  }
  env->reports = 0;
}

static int64_t get_from_closed_queue(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop, (void)stream;
  return aloop_await(aloop_queue_get(arg));
}

/* The connection was well: that a queue has been shut down is another matter, with the same code. */
static void the_end_of_something_else_is_not_that_of_the_connection(void **state) {
  env_t *env = *state;
  aloop_queue_t *queue;
  assert_int_equal(aloop_queue_new(env->loop, NULL, &queue), 0);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  aloop_server_t *server = serve(env, get_from_closed_queue, queue);
  int peer = peer_connect(aloop_server_port(server));
  peer_await_end(env->loop, peer);
  close(peer);
  end_server(env, server);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_ECLOSED);
  aloop_queue_free(queue);
}

/* ---- The end of servers ---------------------------------------------------------------------------------- */

static void closing_leaves_clients_alone(void **state) {
  env_t *env = *state;
  served_t served = {0};
  aloop_server_t *server = serve(env, echo_lines, &served);
  int peer = peer_connect(aloop_server_port(server));
  expect_echo(env, peer, "hello\n");
  aloop_server_close(server);
  aloop_future_t *closed = aloop_server_wait_closed(server);
  expect_echo(env, peer, "still there\n");
  assert_false(aloop_future_done(closed));
  close(peer);
  assert_int_equal(finish(env->loop, closed), 0);
  end_server(env, server);
  assert_int_equal(served.ended, 1);
}

static void closing_clients_is_the_end_of_their_streams(void **state) {
  env_t *env = *state;
  for (int how = 0; how < 2; how++) {
    served_t served = {0};
    aloop_server_t *server = serve(env, echo_lines, &served);
    int peer = peer_connect(aloop_server_port(server));
    expect_echo(env, peer, "hello\n");
    aloop_server_close(server);
    assert_int_equal((how ? aloop_server_close_clients : aloop_server_abort_clients)(server), 1);
    run_until_count(env->loop, &served.ended, 1);
    assert_int_equal(served.awaited, 0);
    end_server(env, server);
    close(peer);
  }
}

static void a_drain_waits_and_then_ends_streams(void **state) {
  env_t *env = *state;
  served_t served = {0};
  aloop_server_t *server = serve(env, echo_lines, &served);
  int patient = peer_connect(aloop_server_port(server)), quick = peer_connect(aloop_server_port(server));
  expect_echo(env, patient, "hello\n");
  expect_echo(env, quick, "hello\n");
  close(quick);
  while (aloop_server_clients(server) > 1) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  aloop_future_t *drained = aloop_server_drain(server, ALOOP_MILLIS(20));
  settle(env->loop);
  assert_int_equal(finish(env->loop, drained), 1);
  settle(env->loop);
  assert_int_equal(served.ended, 2);
  end_server(env, server);
  close(patient);
}

static void the_loop_is_closed_with_clients_in_their_tasks(void **state) {
  env_t *env = *state;
  served_t served = {0};
  aloop_server_t *server = serve(env, echo_lines, &served);
  int peer = peer_connect(aloop_server_port(server)), late = peer_connect(aloop_server_port(server));
  expect_echo(env, peer, "hello\n");
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(served.ended, served.begun);
  assert_true(served.awaited < 0);
  aloop_server_unref(server);
  close(peer);
  close(late);
}

static void tasks_may_be_cancelled(void **state) {
  env_t *env = *state;
  served_t served = {.result = ALOOP_ECANCELED};
  aloop_server_t *server = serve(env, echo_lines, &served);
  int peer = peer_connect(aloop_server_port(server));
  expect_echo(env, peer, "hello\n");
  aloop_future_t *task;
  assert_int_equal(aloop_all_tasks(env->loop, &task, 1), 1);
  assert_int_equal(aloop_future_cancel(task), 1);
  assert_int_equal(finish(env->loop, task), ALOOP_ECANCELED);
  assert_int_equal(served.awaited, ALOOP_ECANCELED);
  peer_await_end(env->loop, peer);
  close(peer);
  end_server(env, server);
}

/* A client's whole life, of which some await is cancelled; what was not consumed can still be read. */
typedef struct life {
  aloop_server_t *server;
  aloop_stream_t *stream;
  int read; /* bytes */
  bool over;
} life_t;

static int64_t live_as_a_client(aloop_t *loop, void *arg) {
  life_t *life = arg;
  const char *line;
  char block[8];
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  options.port = aloop_server_port(life->server);
  int64_t rc = aloop_await_ptr(aloop_open_connection(loop, &options, NULL), &life->stream);
  if (rc == 0) rc = aloop_stream_write(life->stream, "one line\n12345678\n", 18);
  if (rc == 0) rc = aloop_await(aloop_stream_drain(life->stream));
  if (rc == 0) rc = aloop_await(aloop_stream_readline(life->stream, &line));
  if (rc > 0) life->read += (int)rc;
  if (rc > 0) rc = aloop_await(aloop_stream_readexactly(life->stream, block, 8));
  if (rc > 0) life->read += (int)rc;
  if (rc > 0) rc = aloop_await(aloop_stream_read(life->stream, block, 1));
  if (rc > 0) life->read += (int)rc;
  if (rc > 0) rc = aloop_stream_write_eof(life->stream);
  if (rc == 0) rc = aloop_await(aloop_stream_read(life->stream, block, 1));
  if (rc == 0) aloop_stream_close(life->stream);
  if (rc == 0) rc = aloop_await(aloop_stream_wait_closed(life->stream));
  life->over = rc == 0;
  return rc;
}

/* What the life left unread is what comes next. */
static void read_the_rest(env_t *env, const life_t *life) {
  static const char all[] = "one line\n12345678\n";
  char rest[32] = "";
  if (life->over || life->stream == NULL) return;
  if (aloop_stream_write_eof(life->stream) < 0) return;
  size_t size = 0;
  int64_t n;
  while ((n = finish(env->loop, aloop_stream_read(life->stream, rest + size, sizeof rest - 1 - size))) > 0)
    size += (size_t)n;
  assert_int_equal(n, 0);
  if (life->read > 0 || size > 0) assert_string_equal(rest, all + life->read);
}

static void cancelling_a_client_in_any_turn_loses_nothing(void **state) {
  env_t *env = *state;
  bool over = false;
  for (int turns = 0; !over && turns < 200; turns++) {
    served_t served = {0};
    life_t life = {.server = serve(env, echo_lines, &served)};
    aloop_future_t *task = aloop_create_task(env->loop, live_as_a_client, &life, NULL);
    for (int i = 0; i < turns; i++) aloop_run_once(env->loop, 0);
    aloop_future_cancel(task);
    int64_t rc = finish(env->loop, task);
    assert_true(rc == 0 || rc == ALOOP_ECANCELED);
    over = life.over;
    read_the_rest(env, &life);
    aloop_stream_unref(life.stream);
    end_server(env, life.server);
    assert_int_equal(served.begun, served.ended);
  }
  assert_true(over);
}

/* Cancels it after so many turns, if it is not done by then. */
static void start_and_cancel(env_t *env, const char *host, int turns) {
  served_t served = {0};
  aloop_server_options_t options = {.size = sizeof options, .host = host};
  aloop_future_t *future = aloop_start_server(env->loop, echo_lines, &served, &options, NULL);
  for (int i = 0; i < turns; i++) aloop_run_once(env->loop, 0);
  bool cancelled = aloop_future_cancel(future) > 0;
  aloop_server_t *server = NULL;
  if (!cancelled && aloop_future_take_ptr(future, &server) == 0) end_server(env, server);
  aloop_future_unref(future);
  settle(env->loop);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.servers, 0);
}

/* Not with a name that a thread looks up: cancelled, it may still read /etc/hosts when descriptors are counted. */
static void a_start_that_is_cancelled_leaves_nothing(void **state) {
  env_t *env = *state;
  static const line_t lines[] = {{.host = "now.test", .addresses = "127.0.0.1"},
                                 {.host = "late.test", .addresses = "127.0.0.1", .delay = ALOOP_SECONDS(1000)}};
  static const char *const hosts[] = {"127.0.0.1", "now.test", "late.test"};
  script_t script = SCRIPT(lines);
  assert_int_equal(aloop_set_resolver(env->loop, &script_resolver, &script), 0);
  for (int turns = 0; turns < 4; turns++)
    for (int i = 0; i < 3; i++) start_and_cancel(env, hosts[i], turns);
  assert_int_equal(script.asked, 8);
  assert_int_equal(script.cancelled, 4);
  assert_int_equal(script.lists, 0);
  assert_int_equal(aloop_set_resolver(env->loop, NULL, NULL), 0);
}

static void errors_are_those_of_the_server(void **state) {
  env_t *env = *state;
  served_t served = {0};
  int port, listener = peer_listen(1, &port);
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = port};
  aloop_future_t *future = aloop_start_server(env->loop, echo_lines, &served, &options, NULL);
  assert_int_equal(run_future(env->loop, future), ALOOP_EADDRINUSE);
  assert_non_null(strstr(aloop_future_message(future), "127.0.0.1"));
  aloop_future_unref(future);
  close(listener);
}

static void short_of_memory(env_t *env) {
  served_t served = {0};
  int fds[2], peer = -1;
  char path[] = "/tmp/aloop-serving-XXXXXX";
  assert_non_null(mkdtemp(path));
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", path);
  aloop_unix_server_options_t options = {.size = sizeof options, .path = address.sun_path};
  aloop_server_t *server = NULL;
  make_socketpair(fds);
  aloop_future_t *future = aloop_start_unix_server(env->loop, echo_lines, &served, &options, NULL);
  for (int i = 0; future != NULL && !aloop_future_done(future) && i < 100; i++) aloop_run_once(env->loop, 0);
  if (future != NULL && aloop_future_take_ptr(future, &server) == 0) {
    peer = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(peer, (struct sockaddr *)(void *)&address, sizeof address), 0);
    say(peer, "hello\n");
    for (int i = 0; i < 20; i++) aloop_run_once(env->loop, 0);
    env->fail_from = 0;
    close(peer);
    aloop_server_close(server);
    for (int i = 0; i < 20; i++) aloop_run_once(env->loop, 0);
  }
  aloop_future_unref(future);
  aloop_server_unref(server);
  env->fail_from = 0;
  aloop_close(env->loop);
  assert_int_equal(served.begun, served.ended);
  assert_int_equal(rmdir(path), 0);
  env->reports = 0;
  close(fds[0]);
  close(fds[1]);
}

static void out_of_memory_anywhere(void **state) {
  torture(*state, short_of_memory);
}

TESTS(T(each_connection_gets_a_task), T(unix_servers_too), T(what_was_written_is_sent_after_the_task),
      T(a_task_may_keep_the_stream_which_is_closed_all_the_same), T(a_task_that_fails_is_reported),
      T(a_message_is_part_of_the_report), T(a_task_that_was_cancelled_is_not),
      T(what_ended_the_connection_is_news_to_debug_mode_only),
      T(the_end_of_something_else_is_not_that_of_the_connection), T(closing_leaves_clients_alone),
      T(closing_clients_is_the_end_of_their_streams), T(a_drain_waits_and_then_ends_streams),
      T(the_loop_is_closed_with_clients_in_their_tasks), T(tasks_may_be_cancelled),
      T(cancelling_a_client_in_any_turn_loses_nothing), T(a_start_that_is_cancelled_leaves_nothing),
      T(errors_are_those_of_the_server), T(out_of_memory_anywhere))
