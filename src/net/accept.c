/* SPDX-License-Identifier: MIT
 *
 * When a server accepts: while it serves, is neither paused nor full, and does not rest. One function works
 * that out and tells the driver; whatever changes a part of it calls that function.
 *
 * Resting is the answer to a process that is out of descriptors (or memory). Nothing is wrong with the waiting
 * connection, so the kernel would report it again and again, and the loop would do nothing else. So all
 * listeners stop, and a timer tries again, after 50 ms at first, twice as long after each failure up to a
 * second. The exception handler is told once, and not again before a connection was accepted: the time in
 * between is one episode, however many accepts fail.
 *
 * Resting alone would leave a client waiting in the backlog for a server that may not recover. Therefore each
 * loop with a server keeps a spare descriptor: it is given up for a moment to accept one connection and close
 * it, so that its client sees an end and can go elsewhere. One per failure is enough: the others may still be
 * served, once there are descriptors.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/report.h"
#include "net/server.h"

#define FIRST_DELAY ALOOP_MILLIS(50)
#define LONGEST_DELAY ALOOP_SECONDS(1)

static inline bool wants_clients(const aloop_server_t *server) {
  if (!server->serving || server->paused || server->resting) return false;
  if (server->spread != NULL) return aloop__spread_wants(server->spread);
  return server->max_clients == 0 || server->clients < server->max_clients;
}

/* ---- Telling the driver ---------------------------------------------------------------------------------- */

static int set_accepting(aloop__listener_t *listener, bool on) {
  if (listener->accepting == on) return 0;
  int rc = aloop__net_of(listener->server->object.loop)->driver->listen(listener, on);
  if (rc == 0) listener->accepting = on;
  return rc;
}

static void stop_all(aloop_server_t *server) {
  if (server->branch != NULL) aloop__branch_set_open(server->branch, false);
  for (size_t i = 0; i < server->listeners_count; i++) set_accepting(&server->listeners[i], false);
}

static void open_spare(aloop__net_t *net) {
  if (net->spare_fd < 0) net->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int start_all(aloop_server_t *server) {
  int rc = 0;
  if (server->branch != NULL) {
    aloop__branch_set_open(server->branch, true);
    return 0;
  }
  open_spare(aloop__net_of(server->object.loop));
  for (size_t i = 0; i < server->listeners_count && rc == 0; i++)
    rc = set_accepting(&server->listeners[i], true);
  if (rc < 0) stop_all(server);
  return rc;
}

int aloop__accept_update(aloop_server_t *server) {
  if (wants_clients(server)) return start_all(server);
  stop_all(server);
  return 0;
}

/* ---- Resting --------------------------------------------------------------------------------------------- */

static void try_again(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_server_t *server = arg;
  server->resting = false;
  aloop__accept_retry(server);
}

/* False: out of memory, also for the timer. */
static bool start_rest(aloop_server_t *server) {
  server->retry = aloop_call_later_from(server->object.loop, server->retry_delay, try_again, server, NULL);
  return aloop_handle_error(server->retry) == 0;
}

static void rest(aloop_server_t *server) {
  int64_t longer = server->retry_delay * 2;
  server->retry_delay = longer == 0 ? FIRST_DELAY : longer < LONGEST_DELAY ? longer : LONGEST_DELAY;
  server->resting = true;
  aloop__accept_update(server);
  if (!start_rest(server)) aloop__object_stall(&server->object);
}

bool aloop__accept_resume(aloop__object_t *object) {
  aloop_server_t *server = ALOOP_CONTAINER_OF(object, aloop_server_t, object);
  if (server->spread != NULL && !aloop__spread_resume(server->spread)) return false;
  return !server->resting || aloop_handle_pending(object->loop, server->retry) || start_rest(server);
}

void aloop__accept_retry(aloop_server_t *server) {
  if (aloop__accept_update(server) < 0) rest(server);
}

void aloop__accept_stop(aloop_server_t *server) {
  if (server->resting) aloop_cancel(server->object.loop, &server->retry);
  server->resting = false;
  stop_all(server);
}

void aloop__accept_end(aloop_server_t *server) {
  aloop__accept_stop(server);
  for (size_t i = 0; i < server->listeners_count; i++)
    aloop__net_of(server->object.loop)->driver->forget(&server->listeners[i]);
}

/* ---- Out of descriptors ---------------------------------------------------------------------------------- */

/* Ends one waiting connection. */
static void shed(aloop__listener_t *listener) {
  aloop__net_t *net = aloop__net_of(listener->server->object.loop);
  if (net->spare_fd < 0) return;
  close(net->spare_fd);
  net->spare_fd = -1;
  int fd = accept(listener->fd, NULL, NULL);
  if (fd >= 0) close(fd);
  open_spare(net);
}

static void begin_episode(aloop_server_t *server, int fd, int error) {
  aloop_error_context_t context =
      aloop__report_context("a server cannot accept connections and tries again from time to time", error);
  server->episode = true;
  context.fd = fd;
  context.server = server;
  context.origin = server->object.origin;
  aloop__report(server->object.loop, &context);
}

static void end_episode(aloop_server_t *server) {
  server->episode = false;
  server->retry_delay = 0;
  if (server->branch == NULL) open_spare(aloop__net_of(server->object.loop));
}

void aloop__accept_failed(aloop_server_t *server, int fd, int error) {
  rest(server);
  if (!server->episode) begin_episode(server, fd, error);
}

void aloop__listener_failed(aloop__listener_t *listener, int error) {
  if (error == ALOOP_EMFILE || error == ALOOP_ENFILE) shed(listener);
  aloop__accept_failed(listener->server, listener->fd, error);
}

/* ---- Accepting ------------------------------------------------------------------------------------------- */

/* Most kernels let an accepted socket inherit TCP_NODELAY from the listening one, which saves a call for
 * each. */
static ALOOP_NOINLINE void set_nodelay(aloop__listener_t *listener, int fd) {
  int on = 0;
  socklen_t size = sizeof on;
  listener->nodelay_inherited = getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size) == 0 && on != 0;
  if (!listener->nodelay_inherited) aloop__stream_set_nodelay(fd);
}

/* See server.h. */
ALOOP_INLINE bool take(aloop_server_t *server, const aloop__driver_t *driver, int fd) {
  aloop_t *loop = server->object.loop;
  if (server->context != NULL && loop->context == NULL) loop->context = aloop__map_ref(server->context);
  if (aloop__layer_new(loop, driver, fd, server->table, server->arg, server, NULL, &server->layer,
                       server->object.origin) == NULL)
    return false;
  if (ALOOP_UNLIKELY(server->episode)) end_episode(server);
  aloop__object_ref(&server->object);
  server->clients++;
  loop->accepted++;
  return true;
}

bool aloop__accept_take(aloop_server_t *server, const aloop__driver_t *driver, int fd) {
  return take(server, driver, fd);
}

/* See server.h: for every connection that is accepted, it is a part of aloop__listener_accepted. */
ALOOP_INLINE bool place(aloop_server_t *server, const aloop__driver_t *driver, int fd) {
  aloop__spread_place_t where =
      server->spread != NULL ? aloop__spread_place(server->spread, driver, fd) : ALOOP__SPREAD_HERE;
  if (where == ALOOP__SPREAD_AWAY) server->object.loop->handed_over++;
  if (where == ALOOP__SPREAD_AWAY) return true;
  if (where == ALOOP__SPREAD_HERE && take(server, driver, fd)) return true;
  close(fd);
  return where == ALOOP__SPREAD_NOWHERE;
}

bool aloop__accept_place(aloop_server_t *server, const aloop__driver_t *driver, int fd) {
  return place(server, driver, fd);
}

bool aloop__listener_accepted(aloop__listener_t *listener, int fd) {
  aloop_server_t *server = listener->server;
  if (!listener->nodelay_inherited) set_nodelay(listener, fd);
  if (ALOOP_UNLIKELY(!place(server, listener->driver, fd))) {
    aloop__listener_failed(listener, ALOOP_ENOMEM);
    return false;
  }
  if (!wants_clients(server)) aloop__accept_update(server);
  return listener->accepting;
}
