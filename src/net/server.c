/* SPDX-License-Identifier: MIT
 *
 * Servers: their life, their end, and the public calls.
 *
 * A server holds a reference to itself until it is closed, and each client holds one, so that its users may
 * forget it. Closing ends the listening and nothing else: connections live on. "Gone" is the moment when it is
 * both closed and without clients, and it comes exactly once; wait_closed and drain end then.
 *
 * Clients are not listed: they are found among the loop's live objects by their `server`, in a walk that costs
 * as much as the loop has objects and is made only to end them all. A client ends by itself a million times for
 * each such walk, and pays nothing for it. Ending a connection may call back (release functions of unsent
 * bytes), and what is called may end other connections or this server; the walk holds on to the connection at
 * hand only, and looks for the next one afterwards.
 *
 * A drain is a future with a timer that goes through two phases: close who is left, abort who is still left.
 */
#include "net/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/address.h"

typedef struct waiter {
  aloop__list_t link;
  aloop_future_t *future;
  aloop_t *loop;
} waiter_t;

/* What public calls begin with: 0, ALOOP_EINVAL for NULL, or ALOOP_ENOTLOOPTHREAD. */
static int enter(const aloop_server_t *server) {
  if (server == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the server is NULL");
  return aloop__loop_thread(server->object.loop);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void release_waiter(waiter_t *waiter) {
  aloop__list_remove(&waiter->link);
  aloop__memory_release(waiter->loop, waiter);
}

/* Ends a future; of a server that has lost sight of clients, without its result. */
static void end_future(const aloop_server_t *server, aloop_future_t *future, size_t result) {
  if (server->severed)
    aloop__future_fail(future, ALOOP_ECLOSED, NULL);
  else
    aloop__future_finish(future, (int64_t)result);
}

static void end_drain(aloop_server_t *server) {
  aloop_future_t *future = server->drain;
  server->drain = NULL;
  aloop_cancel(server->object.loop, &server->drain_timer);
  end_future(server, future, server->drain_left);
}

/* Closed, and the last client lost. */
static void gone(aloop_server_t *server) {
  while (!aloop__list_empty(&server->waiters)) {
    waiter_t *waiter = ALOOP_CONTAINER_OF(server->waiters.next, waiter_t, link);
    aloop_future_t *future = waiter->future;
    release_waiter(waiter);
    end_future(server, future, 0);
  }
  if (server->drain != NULL) end_drain(server);
}

void aloop__server_settle(aloop_server_t *server) {
  if (!server->closed || aloop__server_population(server) > 0) return;
  gone(server);
  if (server->spread != NULL) aloop__spread_detach(server->spread);
}

static void close_sockets(aloop_server_t *server) {
  aloop__accept_end(server);
  aloop__unix_file_drop(server->object.loop, &server->file); /* while its inode cannot be another's */
  for (size_t i = 0; i < server->listeners_count; i++) close(server->listeners[i].fd);
  server->listeners_count = 0;
}

void aloop_server_close(aloop_server_t *server) {
  if (enter(server) < 0 || server->closed) return;
  server->closed = true;
  server->serving = false;
  close_sockets(server);
  if (server->spread != NULL) aloop__spread_close(server->spread);
  if (server->branch != NULL) aloop__branch_closed(server->branch);
  aloop_future_t *forever = server->forever;
  server->forever = NULL;
  aloop__future_fail(forever, ALOOP_ECANCELED, NULL);
  aloop__server_settle(server);
  aloop__object_unref(&server->object);
}

void aloop__server_client_lost(aloop_server_t *server) {
  server->clients--;
  if (server->closed)
    aloop__server_settle(server);
  else if (server->max_clients > 0 || server->spread != NULL) /* there may have been no room */
    aloop__accept_retry(server);
  if (server->branch != NULL) aloop__branch_lost(server->branch);
  aloop__object_unref(&server->object);
}

/* ---- The object ------------------------------------------------------------------------------------------ */

static aloop_server_t *of_object(const aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop_server_t, object);
}

static void describe_place(const aloop_server_t *server, char *text, size_t size) {
  char address[ALOOP__ADDRESS_TEXT] = "nowhere";
  struct sockaddr_storage storage;
  struct sockaddr *name = (struct sockaddr *)(void *)&storage;
  socklen_t length = sizeof storage;
  if (aloop_server_socket(server, 0, name, &length) >= 0) aloop__address_text(name, length, address);
  if (server->branch != NULL)
    snprintf(text, size, "part of another loop's");
  else if (server->spread != NULL)
    snprintf(text, size, "on %s for %zu clients on %zu loops", address, aloop__server_population(server),
             aloop__spread_loops(server->spread));
  else
    snprintf(text, size, "on %s", address);
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_server_t *server = of_object(object);
  char place[ALOOP__ADDRESS_TEXT + 64];
  describe_place(server, place, sizeof place);
  snprintf(text, size, "%s, %s%s%s, %zu clients", place,
           server->closed    ? "closed"
           : server->serving ? "serving"
                             : "not serving yet",
           server->paused ? ", accepting paused" : "", server->resting ? ", accepting rests" : "",
           server->clients);
}

static void destroy(aloop__object_t *object) {
  aloop_server_t *server = of_object(object);
  ALOOP_CHECK(server->closed && server->clients == 0 && aloop__list_empty(&server->waiters));
  if (server->release != NULL) server->release(server->arg);
  aloop__layer_drop(&server->layer);
  aloop__map_unref(object->loop, server->context);
  aloop__memory_release(object->loop, server->listeners);
  aloop__object_end(object, server);
}

static void close_object(aloop__object_t *object) {
  aloop_server_t *server = of_object(object);
  if (server->serving && server->branch == NULL && (object->loop->guard & ALOOP__GUARD_DEBUG)) {
    aloop_error_context_t context =
        aloop__report_context("a server was still serving when its loop was closed", 0);
    context.server = server;
    context.fd = server->listeners[0].fd;
    context.origin = object->origin;
    aloop__report(object->loop, &context);
  }
  aloop_server_close(server);
  if (server->spread == NULL) return;
  server->severed = true;
  aloop__spread_detach(server->spread);
  aloop__server_settle(server);
}

static const aloop__kind_t kind = {
    .name = "server",
    .index = ALOOP__SERVER,
    .describe = describe,
    .destroy = destroy,
    .close = close_object,
    .resume = aloop__accept_resume,
};

void aloop__server_begin(aloop_server_t *server, aloop_t *loop, const aloop_protocol_t *table, void *arg,
                         const char *origin) {
  aloop__object_init(&server->object, loop, &kind, origin);
  aloop__list_init(&server->waiters);
  server->table = table;
  server->arg = arg;
}

void aloop__server_release_with(aloop_server_t *server, aloop_destroy_fn release) {
  if (server->spread != NULL)
    aloop__spread_release_with(server->spread, release);
  else
    server->release = release;
}

aloop_server_t *aloop__server_new(aloop_t *loop, const aloop_protocol_t *table, void *arg, size_t room) {
  if (aloop__net_open(loop) == NULL) return NULL;
  aloop_server_t *server = aloop__memory_zero(loop, sizeof *server);
  aloop__listener_t *listeners = aloop__memory_zero(loop, room * sizeof *listeners);
  if (server == NULL || listeners == NULL) {
    aloop__memory_release(loop, listeners);
    aloop__memory_release(loop, server);
    return NULL;
  }
  aloop__server_begin(server, loop, table, arg, "aloop_create_server");
  server->listeners = listeners;
  return server;
}

void aloop__server_add(aloop_server_t *server, const aloop__driver_t *driver, int fd) {
  aloop__listener_t *listener = &server->listeners[server->listeners_count++];
  *listener = (aloop__listener_t){.watch.fd = -1, .server = server, .driver = driver, .fd = fd};
  listener->nodelay_inherited = driver != NULL; /* such sockets know no TCP */
}

aloop_server_t *aloop_server_ref(aloop_server_t *server) {
  if (server == NULL || enter(server) < 0) return NULL;
  aloop__object_ref(&server->object);
  return server;
}

void aloop_server_unref(aloop_server_t *server) {
  if (server != NULL && enter(server) == 0) aloop__object_unref(&server->object);
}

aloop_t *aloop_server_get_loop(const aloop_server_t *server) {
  return enter(server) == 0 ? server->object.loop : NULL;
}

/* ---- Serving --------------------------------------------------------------------------------------------- */

/* What they begin with where a closed server is of no use. */
static int enter_open(const aloop_server_t *server) {
  int rc = enter(server);
  return rc == 0 && server->closed ? ALOOP_ECLOSED : rc;
}

int aloop__server_listen(aloop_server_t *server, size_t *failed) {
  for (size_t i = 0; i < server->listeners_count; i++) {
    *failed = i;
    if (listen(server->listeners[i].fd, server->backlog) < 0) return -errno;
  }
  server->serving = true;
  int rc = aloop__accept_update(server);
  if (rc < 0) server->serving = false;
  return rc;
}

int aloop_server_start_serving(aloop_server_t *server) {
  size_t failed;
  int rc = enter_open(server);
  if (rc < 0 || server->serving) return rc;
  return aloop__server_listen(server, &failed);
}

/* Cancelling serve_forever closes the server. */
static void stop_serving(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_server_t *server = arg;
  server->forever = NULL;
  aloop_server_close(server);
}

aloop_future_t *aloop_server_serve_forever(aloop_server_t *server) {
  static const char origin[] = "aloop_server_serve_forever";
  if (enter(server) < 0) return NULL;
  aloop_t *loop = server->object.loop;
  if (server->closed) return aloop__future_failed(loop, origin, ALOOP_ECLOSED, "the server is closed");
  if (server->forever != NULL)
    return aloop__future_refused(loop, origin, ALOOP_EBUSY, "aloop_server_serve_forever was called before");
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future == NULL || aloop_future_done(future)) return future;
  int rc = aloop_server_start_serving(server);
  if (rc < 0) {
    aloop__future_fail(future, rc, NULL);
    return future;
  }
  server->forever = future;
  aloop__future_set_operation(future, stop_serving, server);
  return future;
}

bool aloop_server_is_serving(const aloop_server_t *server) {
  return enter(server) == 0 && server->serving;
}

int aloop_server_pause_accepting(aloop_server_t *server) {
  int rc = enter_open(server);
  if (rc < 0) return rc;
  server->paused = true;
  aloop__accept_stop(server);
  return 0;
}

int aloop_server_resume_accepting(aloop_server_t *server) {
  int rc = enter_open(server);
  if (rc < 0 || !server->paused) return rc;
  server->paused = false;
  rc = aloop__accept_update(server);
  if (rc < 0) server->paused = true;
  return rc;
}

/* ---- Waiting for the end --------------------------------------------------------------------------------- */

static void forget_waiter(aloop_future_t *future, void *arg) {
  (void)future;
  release_waiter(arg);
}

aloop_future_t *aloop_server_wait_closed(aloop_server_t *server) {
  if (enter(server) < 0) return NULL;
  aloop_t *loop = server->object.loop;
  aloop_future_t *future = aloop__future_new(loop, "aloop_server_wait_closed");
  if (future == NULL || aloop_future_done(future)) return future;
  if (server->closed && aloop__server_population(server) == 0) {
    aloop__future_finish(future, 0);
    return future;
  }
  waiter_t *waiter = aloop__memory_new(loop, sizeof *waiter);
  if (waiter == NULL) {
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  *waiter = (waiter_t){.future = future, .loop = loop};
  aloop__list_append(&server->waiters, &waiter->link);
  aloop__future_set_operation(future, forget_waiter, waiter);
  return future;
}

/* ---- Ending clients -------------------------------------------------------------------------------------- */

static aloop_transport_t *client_at(aloop__list_t *node, const aloop_server_t *server) {
  aloop__object_t *object = ALOOP_CONTAINER_OF(node, aloop__object_t, link);
  if (object->kind->index != ALOOP__TRANSPORT) return NULL;
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(object, aloop_transport_t, object);
  return transport->server == server && transport->object.state != ALOOP__LOST ? transport : NULL;
}

static int end_clients(aloop_server_t *server, void (*end)(aloop_transport_t *)) {
  int rc = enter(server);
  if (rc < 0) return rc;
  aloop_t *loop = server->object.loop;
  aloop__object_ref(&server->object);
  aloop__list_t *at = loop->objects.next;
  while (at != &loop->objects) {
    aloop_transport_t *client = client_at(at, server);
    if (client == NULL) {
      at = at->next;
      continue;
    }
    aloop__object_ref(&client->object);
    end(client);
    rc++;
    at = at->next;
    aloop__object_unref(&client->object);
  }
  if (server->spread != NULL)
    rc += (int)aloop__spread_end_clients(server->spread, end == aloop_transport_abort);
  aloop__object_unref(&server->object);
  return rc;
}

int aloop_server_close_clients(aloop_server_t *server) {
  return end_clients(server, aloop_transport_close);
}

int aloop_server_abort_clients(aloop_server_t *server) {
  return end_clients(server, aloop_transport_abort);
}

/* ---- Drain ----------------------------------------------------------------------------------------------- */

static void abort_those_left(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_server_abort_clients(arg);
}

/* Grace is over. */
static void close_those_left(aloop_t *loop, void *arg) {
  aloop_server_t *server = arg;
  server->drain_left = aloop__server_population(server);
  server->drain_timer = aloop_call_later_from(loop, server->drain_grace, abort_those_left, server, NULL);
  if (aloop_handle_error(server->drain_timer) < 0)
    aloop_server_abort_clients(server);
  else
    aloop_server_close_clients(server);
}

static void forget_drain(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_server_t *server = arg;
  server->drain = NULL;
  aloop_cancel(server->object.loop, &server->drain_timer);
}

aloop_future_t *aloop_server_drain(aloop_server_t *server, int64_t grace) {
  static const char origin[] = "aloop_server_drain";
  if (enter(server) < 0) return NULL;
  aloop_t *loop = server->object.loop;
  if (server->drain != NULL)
    return aloop__future_failed(loop, origin, ALOOP_EALREADY, "another drain is under way");
  if (grace < ALOOP_FOREVER)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL, "the grace of a drain is not negative");
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future == NULL || aloop_future_done(future)) return future;
  server->drain_timer = (aloop_handle_t){0};
  if (grace != ALOOP_FOREVER) {
    server->drain_timer = aloop_call_later_from(loop, grace, close_those_left, server, NULL);
    int rc = aloop_handle_error(server->drain_timer);
    if (rc < 0) {
      aloop__future_fail(future, rc, NULL);
      return future;
    }
  }
  server->drain = future;
  server->drain_grace = grace;
  server->drain_left = 0;
  aloop__future_set_operation(future, forget_drain, server);
  aloop__object_ref(&server->object);
  aloop_server_close(server);
  aloop__server_settle(server); /* it may have been closed before */
  aloop__object_unref(&server->object);
  return future;
}

/* ---- Questions ------------------------------------------------------------------------------------------- */

size_t aloop_server_sockets(const aloop_server_t *server) {
  return enter(server) == 0 ? server->listeners_count : 0;
}

int aloop_server_socket(const aloop_server_t *server, size_t index, struct sockaddr *address, socklen_t *size) {
  int rc = enter(server);
  if (rc < 0) return rc;
  if (address != NULL && size == NULL)
    return aloop__misuse(server->object.loop, ALOOP_EINVAL, "an address needs a place and its size");
  if (index >= server->listeners_count) return ALOOP_ENOENT;
  int fd = server->listeners[index].fd;
  if (address != NULL && getsockname(fd, address, size) < 0) return -errno;
  return fd;
}

int aloop_server_port(const aloop_server_t *server) {
  struct sockaddr_storage storage;
  struct sockaddr *name = (struct sockaddr *)(void *)&storage;
  socklen_t size = sizeof storage;
  int rc = aloop_server_socket(server, 0, name, &size);
  return rc < 0 ? rc : aloop__address_port(name);
}

size_t aloop_server_clients(const aloop_server_t *server) {
  return enter(server) == 0 ? aloop__server_population(server) : 0;
}
