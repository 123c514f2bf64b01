/* SPDX-License-Identifier: MIT
 *
 * Code of the program that the library calls from inside of its own calls, outside of a run: destructors of
 * context variables' values (each kind of thing that captures a context has the last reference to one), of what
 * is owned, and the exception handler. Each frees the loop, closes it, or lets go of the very object. Nothing may
 * be touched afterwards that is gone (the address sanitizer looks on). pollers: all
 */
#include "dgrams.h"
#include "mocktls.h"
#include "streams.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct bomb bomb_t;

typedef struct bombing {
  const char *name;
  void (*begin)(bomb_t *bomb); /* captures the context */
  void (*end)(bomb_t *bomb);   /* ends what has captured it */
} bombing_t;

struct bomb {
  env_t *env;
  aloop_t *loop; /* NULL once it was freed */
  int how;
  int calls;
  aloop_var_t *var;
  aloop_handle_t handle;
  aloop_future_t *future, *other;
  tape_t tape;
  post_t post;
  int fds[3];
  aloop_server_t *server;
  aloop_datagram_t *other_endpoint;
  aloop_queue_t *queue;
  aloop_generator_t *generator;
  aloop_context_t *context;
  aloop_var_token_t *token;
  char bytes[16];
};

enum { FREE, CLOSE, LET_GO, WAYS };

/* What the program has of it. */
static void let_go(bomb_t *bomb) {
  aloop_future_t *future = bomb->future;
  aloop_future_t *other = bomb->other;
  bomb->future = bomb->other = NULL;
  aloop_future_unref(future);
  aloop_future_unref(other);
}

static void explode(void *arg) {
  bomb_t *bomb = arg;
  bomb->calls++;
  if (bomb->how == LET_GO) let_go(bomb);
  if (bomb->how == CLOSE) aloop_close(bomb->loop);
  if (bomb->how == FREE) {
    aloop_t *loop = bomb->loop;
    bomb->loop = bomb->env->loop = NULL;
    aloop_free(loop);
  }
}

static void never(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

static void other_never(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

static void on_signal(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum, (void)arg;
}

static void on_done(aloop_future_t *future, void *arg) {
  (void)future, (void)arg;
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

static void soon(bomb_t *bomb) {
  bomb->handle = aloop_call_soon(bomb->loop, never, NULL);
}

static void later(bomb_t *bomb) {
  bomb->handle = aloop_call_later(bomb->loop, ALOOP_SECONDS(100), never, NULL);
}

static void every(bomb_t *bomb) {
  bomb->handle = aloop_call_every(bomb->loop, ALOOP_SECONDS(100), never, NULL);
}

static void cancel(bomb_t *bomb) {
  assert_int_equal(aloop_cancel(bomb->loop, &bomb->handle), 1);
}

static void add_reader(bomb_t *bomb) {
  assert_int_equal(aloop_add_reader(bomb->loop, bomb->fds[0], never, NULL), 0);
}

static void remove_reader(bomb_t *bomb) {
  assert_int_equal(aloop_remove_reader(bomb->loop, bomb->fds[0]), 1);
}

static void replace_reader(bomb_t *bomb) {
  assert_int_equal(aloop_add_reader(bomb->loop, bomb->fds[0], other_never, NULL), 0);
}

static void add_both(bomb_t *bomb) {
  add_reader(bomb);
  assert_int_equal(aloop_add_writer(bomb->loop, bomb->fds[0], never, NULL), 0);
}

static void remove_both(bomb_t *bomb) {
  remove_reader(bomb);
  assert_int_equal(aloop_remove_writer(bomb->loop, bomb->fds[0]), 1);
}

static void add_signal(bomb_t *bomb) {
  assert_int_equal(aloop_add_signal_handler(bomb->loop, SIGUSR1, on_signal, NULL, 0), 0);
}

static void remove_signal(bomb_t *bomb) {
  assert_int_equal(aloop_remove_signal_handler(bomb->loop, SIGUSR1, on_signal, NULL), 1);
}

static void replace_signal(bomb_t *bomb) {
  assert_int_equal(aloop_add_signal_handler(bomb->loop, SIGUSR1, on_signal, NULL, 0), 0);
}

/* ---- Variables ------------------------------------------------------------------------------------------- */

static void copy_context(bomb_t *bomb) {
  assert_int_equal(aloop_context_copy(bomb->loop, &bomb->context), 0);
}

static void drop_context(bomb_t *bomb) {
  aloop_context_unref(bomb->context);
}

static void unset(aloop_t *loop, void *arg) {
  bomb_t *bomb = arg;
  assert_int_equal(aloop_var_set(loop, bomb->var, NULL, NULL, NULL), 0);
}

static void unset_inside(bomb_t *bomb) {
  assert_int_equal(aloop_context_run(bomb->loop, bomb->context, unset, bomb), 0);
  aloop_context_unref(bomb->context);
}

static void keep_token(bomb_t *bomb) {
  assert_int_equal(aloop_var_set(bomb->loop, bomb->var, NULL, NULL, &bomb->token), 0);
}

static void drop_token(bomb_t *bomb) {
  aloop_var_token_free(bomb->token);
}

/* The value is that of no callback but the context outside of callbacks. */
static void set_again(bomb_t *bomb) {
  assert_int_equal(aloop_var_reset(bomb->loop, bomb->token), 0);
  assert_int_equal(aloop_var_set(bomb->loop, bomb->var, NULL, NULL, NULL), 0);
}

/* ---- Futures --------------------------------------------------------------------------------------------- */

static void await_one(bomb_t *bomb) {
  bomb->future = aloop_future_new(bomb->loop);
  assert_int_equal(aloop_future_add_done_callback(bomb->future, on_done, NULL), 0);
}

static void await_twice(bomb_t *bomb) {
  await_one(bomb);
  assert_int_equal(aloop_future_add_done_callback(bomb->future, on_done, bomb), 0);
}

static void await_no_more(bomb_t *bomb) {
  assert_int_equal(aloop_future_remove_done_callback(bomb->future, on_done, NULL), 1);
  if (bomb->calls == 0) aloop_future_remove_done_callback(bomb->future, on_done, bomb);
}

static void unref_future(bomb_t *bomb) {
  let_go(bomb);
}

static void cancel_future(bomb_t *bomb) {
  assert_int_equal(aloop_future_cancel(bomb->future), 1);
}

static void end_future_and_unref(bomb_t *bomb) {
  assert_int_equal(aloop_future_set_value(bomb->future, 1), 0);
  let_go(bomb);
}

static void sleep_long(bomb_t *bomb) {
  bomb->future = aloop_sleep(bomb->loop, ALOOP_SECONDS(100));
}

static void wait_long(bomb_t *bomb) {
  bomb->other = aloop_future_new(bomb->loop);
  bomb->future = aloop_wait_for(aloop_future_ref(bomb->other), ALOOP_SECONDS(100));
}

static void wait_for_all(bomb_t *bomb) {
  aloop_future_t *futures[] = {aloop_future_new(bomb->loop), aloop_future_new(bomb->loop)};
  bomb->future = aloop_wait(bomb->loop, futures, 2, ALOOP_SECONDS(100), ALOOP_ALL_COMPLETED);
}

static int64_t run_task(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return 0;
}

static void begin_task(bomb_t *bomb) {
  bomb->future = aloop_create_task(bomb->loop, run_task, NULL, NULL);
}

static int64_t sleep_in_task(aloop_t *loop, void *arg) {
  (void)arg;
  return aloop_await(aloop_sleep(loop, ALOOP_SECONDS(100)));
}

static void begin_sleeper(bomb_t *bomb) {
  bomb->future = aloop_create_task(bomb->loop, sleep_in_task, NULL, NULL);
  run_turn(bomb->loop);
  run_turn(bomb->loop);
}

/* ---- The network ----------------------------------------------------------------------------------------- */

static aloop_future_t *resolve_never(aloop_t *loop, const char *host, const char *service,
                                     const struct addrinfo *hints, void *arg) {
  (void)host, (void)service, (void)hints, (void)arg;
  return aloop_future_new(loop);
}

static const aloop_resolver_t never_resolver = {.size = sizeof never_resolver, .getaddrinfo = resolve_never};

static void look_up(bomb_t *bomb) {
  assert_int_equal(aloop_set_resolver(bomb->loop, &never_resolver, NULL), 0);
  bomb->future = aloop_getaddrinfo(bomb->loop, "host.test", NULL, NULL, ALOOP_SECONDS(100));
}

static void connect_with(bomb_t *bomb, const char *host, int64_t timeout) {
  aloop_connect_options_t options = {.size = sizeof options, .host = host, .port = 1, .timeout = timeout};
  assert_int_equal(aloop_set_resolver(bomb->loop, &never_resolver, NULL), 0);
  bomb->future = aloop_create_connection(bomb->loop, &plain_protocol, &bomb->tape, &options);
}

static void connect_to_name(bomb_t *bomb) {
  connect_with(bomb, "host.test", ALOOP_SECONDS(100));
}

static void connect_without_timeout(bomb_t *bomb) {
  connect_with(bomb, "host.test", 0);
}

static void connect_to_fd(bomb_t *bomb) {
  aloop_connect_options_t options = {.size = sizeof options, .fd = bomb->fds[0]};
  bomb->future = aloop_create_connection(bomb->loop, &plain_protocol, &bomb->tape, &options);
}

static void serve_name(bomb_t *bomb) {
  aloop_server_options_t options = {.size = sizeof options, .host = "host.test"};
  assert_int_equal(aloop_set_resolver(bomb->loop, &never_resolver, NULL), 0);
  bomb->future = aloop_create_server(bomb->loop, &plain_protocol, &bomb->tape, &options);
}

static void open_endpoint(bomb_t *bomb) {
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "host.test"};
  assert_int_equal(aloop_set_resolver(bomb->loop, &never_resolver, NULL), 0);
  bomb->future = aloop_create_datagram_endpoint(bomb->loop, &single_protocol, &bomb->post, &options);
}

static void open_stream(bomb_t *bomb) {
  attach_tape(&bomb->tape, &plain_protocol, bomb->fds[0]);
  bomb->fds[0] = -1;
  while (bomb->tape.calls[MADE] == 0) run_turn(bomb->loop);
}

static void abort_stream(bomb_t *bomb) {
  aloop_transport_abort(bomb->tape.transport);
  run_turn(bomb->loop);
  aloop_transport_unref(bomb->tape.transport);
  bomb->tape.transport = NULL;
}

static void open_timed_stream(bomb_t *bomb) {
  open_stream(bomb);
  assert_int_equal(aloop_transport_set_timeouts(bomb->tape.transport, ALOOP_SECONDS(9), 0, 0), 0);
}

static void set_other_timeouts(bomb_t *bomb) {
  assert_int_equal(aloop_transport_set_timeouts(bomb->tape.transport, 0, ALOOP_SECONDS(9), 0), 0);
}

static void set_no_timeouts(bomb_t *bomb) {
  assert_int_equal(aloop_transport_set_timeouts(bomb->tape.transport, 0, 0, 0), 0);
}

static void shake_hands(bomb_t *bomb) {
  mock_begin();
  bomb->future = mock_accept(&bomb->tape, &plain_protocol, &bomb->fds[2]);
  run_turn(bomb->loop);
}

static void serve(bomb_t *bomb) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  bomb->future = aloop_create_server(bomb->loop, &plain_protocol, &bomb->tape, &options);
  assert_int_equal(run_future(bomb->loop, bomb->future), 0);
  assert_int_equal(aloop_future_take_ptr(bomb->future, &bomb->server), 0);
}

static void close_server(bomb_t *bomb) {
  aloop_server_close(bomb->server);
  aloop_server_unref(bomb->server);
}

static void open_local_endpoint(bomb_t *bomb) {
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "127.0.0.1"};
  bomb->future = aloop_create_datagram_endpoint(bomb->loop, &single_protocol, &bomb->post, &options);
  assert_int_equal(run_future(bomb->loop, bomb->future), 0);
  assert_int_equal(aloop_future_take_ptr(bomb->future, &bomb->other_endpoint), 0);
}

static void abort_endpoint(bomb_t *bomb) {
  aloop_datagram_abort(bomb->post.endpoint);
  run_turn(bomb->loop);
  aloop_datagram_unref(bomb->other_endpoint);
  aloop_datagram_unref(bomb->post.endpoint);
  bomb->post.endpoint = NULL;
}

/* ---- What is owned --------------------------------------------------------------------------------------- */

static void fill_queue(bomb_t *bomb) {
  aloop_queue_options_t options = {.size = sizeof options, .destroy = explode};
  assert_int_equal(aloop_queue_new(bomb->loop, &options, &bomb->queue), 0);
  assert_int_equal(aloop_queue_put_nowait(bomb->queue, bomb), 0);
}

static void free_queue(bomb_t *bomb) {
  aloop_queue_free(bomb->queue);
}

static void shut_queue_down(bomb_t *bomb) {
  bomb->future = aloop_queue_join(bomb->queue);
  assert_int_equal(aloop_queue_shutdown(bomb->queue, true), 0);
  aloop_queue_free(bomb->queue);
}

static void get_and_forget(bomb_t *bomb) {
  bomb->future = aloop_queue_get(bomb->queue);
  let_go(bomb);
  aloop_queue_free(bomb->queue);
}

static void task_with_argument(bomb_t *bomb) {
  aloop_task_options_t options = {.size = sizeof options, .destroy = explode};
  bomb->future = aloop_create_task(bomb->loop, run_task, bomb, &options);
}

static int64_t return_bomb(aloop_t *loop, void *arg) {
  (void)loop;
  return aloop_return_ptr(arg, explode);
}

static void task_with_result(bomb_t *bomb) {
  bomb->future = aloop_create_task(bomb->loop, return_bomb, bomb, NULL);
  assert_int_equal(run_future(bomb->loop, bomb->future), 0);
}

static void generator_with_argument(bomb_t *bomb) {
  aloop_generator_options_t options = {.size = sizeof options, .destroy = explode};
  assert_int_equal(aloop_generator_new(bomb->loop, run_task, bomb, &options, &bomb->generator), 0);
}

static void unref_generator(bomb_t *bomb) {
  aloop_generator_unref(bomb->generator);
}

static int64_t do_nothing(void *arg) {
  (void)arg;
  return 0;
}

static void job_with_argument(bomb_t *bomb) {
  aloop_job_options_t options = {.size = sizeof options, .fn = do_nothing, .arg = bomb, .destroy = explode};
  bomb->future = aloop_submit(bomb->loop, NULL, &options);
  assert_int_equal(run_future(bomb->loop, bomb->future), 0);
}

static void future_with_object(bomb_t *bomb) {
  bomb->future = aloop_future_new(bomb->loop);
  assert_int_equal(aloop_future_set_result(bomb->future, 0, bomb, explode), 0);
}

static void gathered(bomb_t *bomb) {
  future_with_object(bomb);
  bomb->future = aloop_gather(bomb->loop, &bomb->future, 1, 0);
  run_turn(bomb->loop);
}

/* ---- Reports --------------------------------------------------------------------------------------------- */

static int on_report(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  bomb_t *bomb = arg;
  (void)loop, (void)context;
  if (bomb->calls == 0) explode(bomb);
  return 0;
}

static void listen_to_reports(bomb_t *bomb) {
  assert_int_equal(aloop_set_exception_handler(bomb->loop, on_report, bomb), 0);
}

static void fail_unread(bomb_t *bomb) {
  listen_to_reports(bomb);
  bomb->future = aloop_future_new(bomb->loop);
  assert_int_equal(aloop_future_set_error(bomb->future, ALOOP_EIO, "unread"), 0);
}

static void listen_with_stream(bomb_t *bomb) {
  open_stream(bomb);
  listen_to_reports(bomb);
}

static void close_with_stream(bomb_t *bomb) {
  aloop_t *loop = bomb->loop;
  aloop_close(loop); /* the handler may free it in there */
}

#define MISTAKE(name, call)                                                                                    \
  static void name(bomb_t *bomb) {                                                                             \
    aloop_t *loop = bomb->loop;                                                                                \
    (void)loop;                                                                                                \
    call;                                                                                                      \
  }
MISTAKE(soon_nothing, aloop_call_soon(loop, NULL, NULL))
MISTAKE(later_nothing, aloop_call_later(loop, 1, NULL, NULL))
MISTAKE(every_nothing, aloop_call_every(loop, 1, NULL, NULL))
MISTAKE(cancel_nothing, aloop_cancel(loop, NULL))
MISTAKE(read_nothing, aloop_add_reader(loop, bomb->fds[0], NULL, NULL))
MISTAKE(stop_with_nothing, aloop_stop_with_error(loop, 0))
MISTAKE(set_nothing, aloop_var_set(loop, NULL, NULL, NULL, NULL))
MISTAKE(enter_nothing, aloop_context_run(loop, NULL, never, NULL))
MISTAKE(no_signal, aloop_add_signal_handler(loop, 1000, on_signal, NULL, 0))
MISTAKE(gather_nothing, bomb->future = aloop_gather(loop, NULL, 2, 0))
MISTAKE(wait_for_nothing, bomb->future = aloop_wait(loop, NULL, 0, 0, ALOOP_ALL_COMPLETED))
MISTAKE(connect_to_nothing, bomb->future = aloop_create_connection(loop, &plain_protocol, bomb, NULL))
MISTAKE(serve_nothing, bomb->future = aloop_create_server(loop, &plain_protocol, bomb, NULL))
MISTAKE(no_endpoint, bomb->future = aloop_create_datagram_endpoint(loop, &single_protocol, bomb, NULL))
MISTAKE(look_up_nothing, bomb->future = aloop_getaddrinfo(loop, NULL, NULL, NULL, 0))
MISTAKE(receive_into_nothing, bomb->future = aloop_sock_recv(loop, bomb->fds[0], NULL, 1))
MISTAKE(send_nothing, bomb->future = aloop_sock_sendall(loop, bomb->fds[0], NULL, 1))
MISTAKE(no_task, bomb->future = aloop_create_task(loop, NULL, NULL, NULL))
MISTAKE(no_job, bomb->future = aloop_submit(loop, NULL, NULL))
MISTAKE(no_queue, aloop_queue_new(loop, NULL, NULL))
MISTAKE(no_limits, aloop_transport_set_write_buffer_limits(bomb->tape.transport, 1, 2))
MISTAKE(no_timeouts, aloop_transport_set_timeouts(bomb->tape.transport, -1, 0, 0))
MISTAKE(no_protocol, aloop_transport_set_protocol(bomb->tape.transport, NULL, NULL))
MISTAKE(no_bytes, aloop_transport_write(bomb->tape.transport, NULL, 1))
MISTAKE(no_file, bomb->future = aloop_sendfile(bomb->tape.transport, -1, 0, 0, 0))
MISTAKE(no_other, bomb->future = aloop_relay(bomb->tape.transport, bomb->tape.transport))
MISTAKE(no_tls, bomb->future = aloop_start_tls(bomb->tape.transport, NULL, NULL, NULL))
MISTAKE(a_used_fd, aloop_connect_options_t o = {.size = sizeof o};
        o.fd = aloop_transport_fd(bomb->tape.transport);
        bomb->future = aloop_create_connection(loop, &plain_protocol, bomb, &o))
MISTAKE(receive_from_a_used_fd, bomb->future = aloop_sock_recv(loop, aloop_transport_fd(bomb->tape.transport),
                                                               bomb->bytes, sizeof bomb->bytes))

/* ---- The test -------------------------------------------------------------------------------------------- */

static const bombing_t bombings[] = {
    {"a callback, cancelled", soon, cancel},
    {"a timer, cancelled", later, cancel},
    {"a repeated timer, cancelled", every, cancel},
    {"a reader, removed", add_reader, remove_reader},
    {"a reader, replaced", add_reader, replace_reader},
    {"a reader and a writer, removed", add_both, remove_both},
    {"a signal handler, removed", add_signal, remove_signal},
    {"a signal handler, replaced", add_signal, replace_signal},
    {"a context, let go", copy_context, drop_context},
    {"a context, unset inside", copy_context, unset_inside},
    {"a token, freed", keep_token, drop_token},
    {"a token, used, and set again", keep_token, set_again},
    {"a done callback, removed", await_one, await_no_more},
    {"two done callbacks, removed", await_twice, await_no_more},
    {"a future with a done callback, let go", await_one, unref_future},
    {"a future with a done callback, ended and let go", await_one, end_future_and_unref},
    {"a sleep, cancelled", sleep_long, cancel_future},
    {"a sleep, let go", sleep_long, unref_future},
    {"a wait with a timeout, cancelled", wait_long, cancel_future},
    {"a wait for several, cancelled", wait_for_all, cancel_future},
    {"a task that has not begun, let go", begin_task, unref_future},
    {"a task that has not begun, cancelled", begin_task, cancel_future},
    {"a task that waits, let go", begin_sleeper, unref_future},
    {"a lookup, cancelled", look_up, cancel_future},
    {"a connect, cancelled", connect_to_name, cancel_future},
    {"a connect without a timeout, cancelled", connect_without_timeout, cancel_future},
    {"a connection of a descriptor, cancelled", connect_to_fd, cancel_future},
    {"a server that is looked up, cancelled", serve_name, cancel_future},
    {"an endpoint that is looked up, cancelled", open_endpoint, cancel_future},
    {"a stream, aborted", open_stream, abort_stream},
    {"a stream with a timeout, aborted", open_timed_stream, abort_stream},
    {"a stream, let go after the timeout was changed", open_timed_stream, set_other_timeouts},
    {"a timeout, unset", open_timed_stream, set_no_timeouts},
    {"a TLS handshake, cancelled", shake_hands, cancel_future},
    {"a server, closed", serve, close_server},
    {"an endpoint, aborted", open_local_endpoint, abort_endpoint},
};

static const bombing_t objects[] = {
    {"an item, freed with its queue", fill_queue, free_queue},
    {"an item, dropped by a shutdown", fill_queue, shut_queue_down},
    {"an item, promised", fill_queue, get_and_forget},
    {"the argument of a task, cancelled", task_with_argument, cancel_future},
    {"the result of a task", task_with_result, unref_future},
    {"the argument of a generator", generator_with_argument, unref_generator},
    {"the argument of a job", job_with_argument, unref_future},
    {"the object of a future", future_with_object, unref_future},
    {"the object of a future that was gathered", gathered, unref_future},
};

static const bombing_t reports[] = {
    {"an error that nobody read", fail_unread, unref_future},
    {"a stream that is open as the loop is closed", listen_with_stream, close_with_stream},
    {"call_soon", listen_to_reports, soon_nothing},
    {"call_later", listen_to_reports, later_nothing},
    {"call_every", listen_to_reports, every_nothing},
    {"cancel", listen_to_reports, cancel_nothing},
    {"add_reader", listen_to_reports, read_nothing},
    {"stop_with_error", listen_to_reports, stop_with_nothing},
    {"var_set", listen_to_reports, set_nothing},
    {"context_run", listen_to_reports, enter_nothing},
    {"add_signal_handler", listen_to_reports, no_signal},
    {"gather", listen_to_reports, gather_nothing},
    {"wait", listen_to_reports, wait_for_nothing},
    {"create_connection", listen_to_reports, connect_to_nothing},
    {"create_server", listen_to_reports, serve_nothing},
    {"create_datagram_endpoint", listen_to_reports, no_endpoint},
    {"getaddrinfo", listen_to_reports, look_up_nothing},
    {"sock_recv", listen_to_reports, receive_into_nothing},
    {"sock_sendall", listen_to_reports, send_nothing},
    {"create_task", listen_to_reports, no_task},
    {"submit", listen_to_reports, no_job},
    {"queue_new", listen_to_reports, no_queue},
    {"set_write_buffer_limits", listen_with_stream, no_limits},
    {"set_timeouts", listen_with_stream, no_timeouts},
    {"set_protocol", listen_with_stream, no_protocol},
    {"write", listen_with_stream, no_bytes},
    {"sendfile", listen_with_stream, no_file},
    {"relay", listen_with_stream, no_other},
    {"start_tls", listen_with_stream, no_tls},
    {"create_connection of a used fd", listen_with_stream, a_used_fd},
    {"sock_recv from a used fd", listen_with_stream, receive_from_a_used_fd},
};

/* What the program has, and the loop if it is still there. */
static void clear_away(bomb_t *bomb, const bombing_t *bombing) {
  if (bomb->loop != NULL) {
    bomb->how = LET_GO;
    aloop_free(bomb->loop);
    bomb->env->loop = NULL;
  }
  let_go(bomb);
  aloop_transport_unref(bomb->tape.transport);
  aloop_datagram_unref(bomb->post.endpoint);
  aloop_var_unref(bomb->var);
  free(bomb->tape.bytes);
  for (int i = 0; i < 3; i++)
    if (bomb->fds[i] >= 0) close(bomb->fds[i]);
  if (bomb->calls != 1 || bomb->env->live != 0)
    fail_msg("%s: %d calls, %ld blocks live", bombing->name, bomb->calls, bomb->env->live);
}

static void open_bomb(bomb_t *bomb, env_t *env, int how) {
  env_loop(env, (aloop_options_t){.debug = 1});
  *bomb = (bomb_t){.env = env, .loop = env->loop, .how = how, .tape = {.env = env}, .post = {.env = env}};
  make_socketpair(bomb->fds);
  bomb->fds[2] = -1;
}

/* The value is set for the beginning only. Some things the loop keeps: they go when it is closed. */
static void run_with_value(env_t *env, const bombing_t *bombing, int how) {
  bomb_t bomb;
  open_bomb(&bomb, env, how);
  assert_int_equal(aloop_var_new("v", &bomb.var), 0);
  assert_int_equal(aloop_var_set(bomb.loop, bomb.var, &bomb, explode, NULL), 0);
  bombing->begin(&bomb);
  assert_int_equal(aloop_var_set(bomb.loop, bomb.var, NULL, NULL, NULL), 0);
  if (bomb.calls > 0) fail_msg("%s has not captured the context", bombing->name);
  bombing->end(&bomb);
  clear_away(&bomb, bombing);
}

static void run_plainly(env_t *env, const bombing_t *bombing, int how) {
  bomb_t bomb;
  open_bomb(&bomb, env, how);
  bombing->begin(&bomb);
  if (bomb.calls > 0) fail_msg("%s: too early", bombing->name);
  bombing->end(&bomb);
  clear_away(&bomb, bombing);
}

static void run_report(env_t *env, const bombing_t *bombing, int how) {
  bomb_t bomb;
  open_bomb(&bomb, env, how);
  bombing->begin(&bomb);
  bombing->end(&bomb);
  if (bomb.calls != 1) fail_msg("%s: not reported at once", bombing->name);
  clear_away(&bomb, bombing);
}

#define EACH(list, run)                                                                                        \
  for (size_t i = 0; i < sizeof(list) / sizeof(list)[0]; i++)                                                  \
    for (int how = 0; how < WAYS; how++) run(*state, &(list)[i], how)

static void destructors_of_values_may_do_anything(void **state) {
  EACH(bombings, run_with_value);
}

static void destructors_of_what_is_owned_may_do_anything(void **state) {
  EACH(objects, run_plainly);
}

static void who_hears_of_mistakes_may_do_anything(void **state) {
  EACH(reports, run_report);
}

TESTS(T(destructors_of_values_may_do_anything), T(destructors_of_what_is_owned_may_do_anything),
      T(who_hears_of_mistakes_may_do_anything))
