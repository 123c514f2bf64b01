/* SPDX-License-Identifier: MIT
 *
 * start_server and start_unix_server: a server that makes a stream and a task of each connection.
 *
 * The server is one of create_server, whose connection_made makes the stream and starts the task. What that
 * needs to know, the acceptor, is the server's `arg`, and counted: the server has one reference, which it gives
 * up with its memory, and so has each task. Loops in several threads may share it, if the server is on several:
 * it belongs to none of them, is only read, and its count is atomic.
 *
 * A task owns its stream. When its function has returned, or will never run, the stream is closed: what was
 * written is still sent. (asyncio leaves that to the function, and to the garbage collector.) A function that
 * fails is reported to the exception handler, unless it was cancelled; when it only hands on what ended its
 * connection, that is news to debug mode alone, as with transports. (ALOOP_ECLOSED while the connection lives
 * is the word of something else, a queue that was shut down for example.)
 *
 * Servers end as all servers do. Their clients are transports: closing or aborting them, by close_clients,
 * abort_clients or a drain, is the end of the stream for the tasks, which are not cancelled by it.
 */
#include <stdatomic.h>
#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"
#include "executor/executor.h"
#include "net/server.h"
#include "net/stream.h"
#include "task/duplex.h"
#include "task/task.h"

typedef struct acceptor {
  aloop_client_fn fn;
  void *arg;
  size_t limit;
  const char *origin;
  atomic_uint refs;
} acceptor_t;

/* What a task is given. */
typedef struct client {
  acceptor_t *acceptor;
  aloop_stream_t *stream;
} client_t;

static void unref_acceptor(void *arg) {
  acceptor_t *acceptor = arg;
  if (atomic_fetch_sub(&acceptor->refs, 1) == 1) aloop__executor_free_block(acceptor);
}

static aloop_t *loop_of(const client_t *client) {
  return client->stream->transport->object.loop;
}

/* ---- Clients --------------------------------------------------------------------------------------------- */

static void report(const client_t *client, int error) {
  char text[320];
  aloop_t *loop = loop_of(client);
  aloop_future_t *task = aloop_current_task(loop);
  const aloop_stream_t *stream = client->stream;
  aloop__future_ignore(task);
  bool ended = stream->transport->object.state >= ALOOP__CLOSING;
  bool own = ended && (error == ALOOP_ECLOSED || error == stream->transport->error);
  if (error == ALOOP_ECANCELED || (loop->guard & ALOOP__GUARD_CLOSED)) return;
  if (own && (loop->guard & ALOOP__GUARD_DEBUG) == 0) return;
  const char *message = task->extra != NULL ? task->extra->message : NULL;
  snprintf(text, sizeof text, "the task of a client failed: %s",
           message != NULL ? message : aloop_strerror(error));
  aloop_error_context_t context = aloop__report_context(text, error);
  context.future = task;
  context.transport = stream->transport;
  context.server = stream->transport->server;
  context.origin = client->acceptor->origin;
  aloop__report(loop, &context);
}

/* The task. */
static int64_t serve(aloop_t *loop, void *arg) {
  client_t *client = arg;
  int64_t rc = client->acceptor->fn(loop, client->stream, client->acceptor->arg);
  if (rc < 0) report(client, rc < INT32_MIN ? ALOOP_EINVAL : (int)rc);
  return rc;
}

/* It has ended, or never began. */
static void gone(void *arg) {
  client_t *client = arg;
  aloop_t *loop = loop_of(client);
  aloop_transport_close(client->stream->transport);
  aloop_stream_unref(client->stream);
  unref_acceptor(client->acceptor);
  aloop__memory_release(loop, client);
}

/* Takes over a reference to the stream, and one to the acceptor. */
static int start_task(aloop_t *loop, acceptor_t *acceptor, aloop_stream_t *stream) {
  aloop_task_options_t options = {.size = sizeof options, .destroy = gone};
  client_t *client = aloop__memory_new(loop, sizeof *client);
  if (client == NULL) return ALOOP_ENOMEM;
  *client = (client_t){acceptor, stream};
  aloop_future_t *task = aloop_create_task_from(loop, serve, client, &options, acceptor->origin);
  if (task == NULL) aloop__memory_release(loop, client);
  aloop_future_detach(task);
  return task != NULL ? 0 : ALOOP_ENOMEM;
}

/* There is no memory for its stream or task. */
static void refuse(aloop_transport_t *transport, const acceptor_t *acceptor) {
  aloop_error_context_t context =
      aloop__report_context("there is no memory for the task of a client", ALOOP_ENOMEM);
  context.transport = transport;
  context.server = transport->server;
  context.origin = acceptor->origin;
  aloop__report(transport->object.loop, &context);
  aloop_transport_abort_error(transport, ALOOP_ENOMEM);
}

static void connection_made(aloop_transport_t *transport, void *protocol) {
  acceptor_t *acceptor = protocol;
  aloop_t *loop = transport->object.loop;
  aloop_stream_t *stream = aloop__duplex_new(loop, acceptor->limit, acceptor->origin);
  if (stream == NULL) {
    refuse(transport, acceptor);
    return;
  }
  aloop_transport_set_protocol(transport, &aloop__duplex_table, stream);
  aloop__duplex_connect(stream, transport);
  atomic_fetch_add_explicit(&acceptor->refs, 1, memory_order_relaxed);
  if (start_task(loop, acceptor, stream) == 0) return;
  refuse(transport, acceptor);
  unref_acceptor(acceptor);
  aloop_stream_unref(stream);
}

static const aloop_protocol_t acceptor_table = {.size = sizeof acceptor_table,
                                                .connection_made = connection_made};

/* ---- Servers --------------------------------------------------------------------------------------------- */

typedef struct starting {
  aloop__future_extra_t extra;
  acceptor_t *acceptor;
} starting_t;

static starting_t *starting_of(aloop_future_t *outer) {
  return ALOOP_CONTAINER_OF(outer->extra, starting_t, extra);
}

static void unref_server(void *server) {
  aloop_server_unref(server);
}

/* From here on the acceptor goes with the server. NULL: there is none, and the acceptor goes now. */
static aloop_server_t *hand_over(acceptor_t *acceptor, aloop_future_t *inner) {
  aloop_server_t *server = NULL;
  if (aloop_future_take_ptr(inner, &server) == 0)
    aloop__server_release_with(server, unref_acceptor);
  else
    unref_acceptor(acceptor);
  return server;
}

/* A server that nobody is going to get is closed. */
static void abandon(acceptor_t *acceptor, aloop_future_t *inner) {
  aloop_future_cancel(inner);
  aloop_server_t *server = hand_over(acceptor, inner);
  if (server == NULL) return;
  aloop_server_close(server);
  aloop_server_unref(server);
}

static void on_started(aloop_future_t *inner, void *arg) {
  aloop_future_t *outer = arg;
  aloop_server_t *server = hand_over(starting_of(outer)->acceptor, inner);
  if (server != NULL)
    aloop__future_finish_ptr(outer, 0, server, unref_server);
  else
    aloop__future_follow(outer, inner);
}

/* The stop function. */
static void stop(aloop_future_t *outer, void *arg) {
  (void)arg;
  aloop_future_t *inner = outer->extra->children[0];
  aloop__future_unwatch(inner, on_started, outer);
  abandon(starting_of(outer)->acceptor, inner);
}

static aloop_future_t *wait_for(aloop_t *loop, acceptor_t *acceptor, aloop_future_t *inner) {
  if (inner == NULL) {
    unref_acceptor(acceptor);
    return NULL;
  }
  aloop_future_t *outer = aloop__future_over(loop, NULL, sizeof(starting_t), &inner, 1);
  if (outer == NULL) {
    abandon(acceptor, inner);
    aloop_future_unref(inner);
    return NULL;
  }
  outer->object.origin = acceptor->origin;
  starting_of(outer)->acceptor = acceptor;
  if (aloop_future_done(inner)) {
    on_started(inner, outer);
  } else if (aloop__future_watch(inner, on_started, outer) < 0) {
    stop(outer, NULL);
    aloop_future_unref(outer);
    return NULL;
  } else {
    aloop__future_set_operation(outer, stop, NULL);
  }
  return outer;
}

/* NULL: *refused is what to return. */
static acceptor_t *begin(aloop_t *loop, aloop_client_fn fn, void *arg, const aloop_stream_options_t *options,
                         const char *origin, aloop_future_t **refused) {
  size_t limit;
  *refused = NULL;
  if (loop->guard & ALOOP__GUARD_CLOSED) {
    *refused = aloop__future_new(loop, origin);
    return NULL;
  }
  const char *rule = fn == NULL ? "a server needs a function for its clients" : NULL;
  if (rule == NULL && aloop__duplex_limit(options, &limit) < 0) rule = ALOOP__DUPLEX_RULE;
  if (rule != NULL) {
    *refused = aloop__future_refused(loop, origin, ALOOP_EINVAL, rule);
    return NULL;
  }
  acceptor_t *acceptor = aloop__executor_new_block(sizeof *acceptor);
  if (acceptor == NULL) return NULL;
  *acceptor = (acceptor_t){.fn = fn, .arg = arg, .limit = limit, .origin = origin};
  atomic_init(&acceptor->refs, 1);
  return acceptor;
}

aloop_future_t *aloop_start_server(aloop_t *loop, aloop_client_fn fn, void *arg,
                                   const aloop_server_options_t *options,
                                   const aloop_stream_options_t *stream_options) {
  aloop_future_t *refused;
  if (aloop__loop_thread(loop) < 0) return NULL;
  acceptor_t *acceptor = begin(loop, fn, arg, stream_options, "aloop_start_server", &refused);
  if (acceptor == NULL) return refused;
  return wait_for(loop, acceptor, aloop_create_server(loop, &acceptor_table, acceptor, options));
}

aloop_future_t *aloop_start_unix_server(aloop_t *loop, aloop_client_fn fn, void *arg,
                                        const aloop_unix_server_options_t *options,
                                        const aloop_stream_options_t *stream_options) {
  aloop_future_t *refused;
  if (aloop__loop_thread(loop) < 0) return NULL;
  acceptor_t *acceptor = begin(loop, fn, arg, stream_options, "aloop_start_unix_server", &refused);
  if (acceptor == NULL) return refused;
  return wait_for(loop, acceptor, aloop_create_unix_server(loop, &acceptor_table, acceptor, options));
}
