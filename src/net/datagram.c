/* SPDX-License-Identifier: MIT
 *
 * The datagram endpoint: its life, and what it knows of its socket.
 *
 * An endpoint walks down the states of a stream (stream.h), by the same rules: connection_made is queued when
 * it is made, and the one way out is aloop__datagram_end, which takes the descriptor from the poller at once,
 * drops what was unsent and queues connection_lost. What differs is what ends it. Errors of single datagrams
 * (refused, unreachable, too long) are told to error_received, and the endpoint lives on; only close, abort,
 * the end of the loop and a descriptor that is no socket any more end it.
 *
 * The loop holds one reference until connection_lost has run, which it does from the ready deque only: so no
 * call that is at work on an endpoint needs a reference of its own.
 */
#include "net/datagram.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/write.h"

static aloop_datagram_t *of_object(const aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop_datagram_t, object);
}

int aloop__datagram_watch(aloop_datagram_t *endpoint, uint32_t direction, bool on) {
  uint32_t interest = aloop__watch_interest(&endpoint->watch) & ~direction;
  return aloop__watch_set(endpoint->object.loop, &endpoint->watch, interest | (on ? direction : 0u));
}

/* Receives, or no more. */
static int receive(aloop_datagram_t *endpoint, bool on) {
  const aloop__driver_t *driver = aloop__net_of(endpoint->object.loop)->driver;
  if (driver->receive != NULL && (endpoint->flags & ALOOP__DGRAM_LOCAL) == 0)
    return driver->receive(endpoint, on);
  return aloop__datagram_watch(endpoint, ALOOP_READABLE, on);
}

void aloop__datagram_report(aloop_datagram_t *endpoint, int error) {
  if (endpoint->state >= ALOOP__ENDING || endpoint->table->error_received == NULL) return;
  endpoint->table->error_received(endpoint, endpoint->protocol, error);
}

/* ---- The end -------------------------------------------------------------------------------------------- */

static void fail_waiter(aloop_datagram_t *endpoint, int error) {
  aloop_future_t *waiter = endpoint->waiter;
  endpoint->waiter = NULL;
  if (waiter != NULL && !aloop_future_done(waiter)) aloop_future_set_error(waiter, error, NULL);
  aloop_future_unref(waiter);
}

static void finish(aloop_datagram_t *endpoint) {
  endpoint->state = ALOOP__LOST;
  if ((endpoint->flags & ALOOP__DGRAM_MADE) && endpoint->table->connection_lost != NULL)
    endpoint->table->connection_lost(endpoint, endpoint->protocol, endpoint->error);
  aloop__unix_file_drop(endpoint->object.loop, &endpoint->file);
  if ((endpoint->flags & ALOOP__DGRAM_BORROWED) == 0) close(endpoint->fd);
  endpoint->fd = -1;
  aloop__object_unref(&endpoint->object);
}

static void lost(aloop_t *loop, void *arg) {
  aloop_datagram_t *endpoint = arg;
  loop->context = aloop__map_ref(endpoint->context);
  finish(endpoint);
}

/* Always behind connection_made. */
static void queue_lost(aloop_datagram_t *endpoint) {
  bool made_waits = (endpoint->flags & ALOOP__DGRAM_MADE_DUE) != 0;
  if (made_waits || !aloop__ready_push(endpoint->object.loop, lost, endpoint)) {
    endpoint->flags |= ALOOP__DGRAM_LOST_DUE;
    aloop__object_stall(&endpoint->object);
  }
  aloop__loop_armed(endpoint->object.loop);
}

/* Everything about an end but its announcement. Returns false if it has ended before. */
static bool stop(aloop_datagram_t *endpoint, int error) {
  if (endpoint->state >= ALOOP__ENDING) return false;
  endpoint->state = ALOOP__ENDING;
  endpoint->error = error;
  receive(endpoint, false);
  aloop__watch_stop(endpoint->object.loop, &endpoint->watch);
  aloop__dgram_drop(endpoint);
  return true;
}

void aloop__datagram_end(aloop_datagram_t *endpoint, int error) {
  if (stop(endpoint, error)) queue_lost(endpoint);
}

/* ---- The beginning -------------------------------------------------------------------------------------- */

static bool make_protocol(aloop_datagram_t *endpoint) {
  if (endpoint->table->create == NULL) return true;
  endpoint->protocol = endpoint->table->create(endpoint->protocol);
  return endpoint->protocol != NULL;
}

static void want_controls(const aloop_datagram_t *endpoint) {
  aloop__control_want(endpoint->fd, (endpoint->flags & ALOOP__DGRAM_WANT_LOCAL) != 0,
                      (endpoint->flags & ALOOP__DGRAM_WANT_ECN) != 0,
                      (endpoint->flags & ALOOP__DGRAM_WANT_SEGMENTS) != 0);
}

/* Takes the descriptor, if it is a caller's, and makes the protocol. On failure the descriptor is as it was. */
static int begin(aloop_datagram_t *endpoint) {
  aloop__adopted_t before;
  if ((endpoint->flags & ALOOP__DGRAM_BORROWED) == 0) return make_protocol(endpoint) ? 0 : ALOOP_ENOMEM;
  int rc = aloop__address_adopt(endpoint->fd, &before);
  if (rc < 0) return rc;
  if (!make_protocol(endpoint)) {
    aloop__address_give_back(endpoint->fd, &before);
    return ALOOP_ENOMEM;
  }
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_BORROWED;
  return 0;
}

static void unref_endpoint(void *value) {
  aloop_datagram_unref(value);
}

static void finish_waiter(aloop_datagram_t *endpoint) {
  aloop_future_t *waiter = endpoint->waiter;
  if (waiter == NULL) return;
  endpoint->waiter = NULL;
  aloop__object_ref(&endpoint->object);
  if (aloop_future_set_result(waiter, 0, endpoint, unref_endpoint) < 0) aloop__object_unref(&endpoint->object);
  aloop_future_unref(waiter);
}

static void start_reading(aloop_datagram_t *endpoint) {
  if (endpoint->state != ALOOP__OPEN) return;
  int rc = receive(endpoint, true);
  if (rc < 0) aloop__datagram_end(endpoint, rc);
}

static void made(aloop_t *loop, void *arg) {
  aloop_datagram_t *endpoint = arg;
  loop->context = aloop__map_ref(endpoint->context);
  bool unwanted = endpoint->waiter != NULL && aloop_future_done(endpoint->waiter);
  int rc = unwanted ? ALOOP_ECANCELED : begin(endpoint);
  if (rc < 0) {
    fail_waiter(endpoint, rc);
    /* If it has ended already, the queued end does the rest, without a call. */
    if (stop(endpoint, ALOOP_ECANCELED)) finish(endpoint);
    return;
  }
  endpoint->flags |= ALOOP__DGRAM_MADE;
  want_controls(endpoint);
  if (endpoint->state == ALOOP__OPENING) endpoint->state = ALOOP__OPEN;
  if (endpoint->table->connection_made != NULL) endpoint->table->connection_made(endpoint, endpoint->protocol);
  start_reading(endpoint);
  finish_waiter(endpoint);
}

static bool resume(aloop__object_t *object) {
  aloop_datagram_t *endpoint = of_object(object);
  if (endpoint->flags & ALOOP__DGRAM_MADE_DUE) {
    if (!aloop__ready_push(object->loop, made, endpoint)) return false;
    endpoint->flags &= (uint16_t)~ALOOP__DGRAM_MADE_DUE;
  }
  if (endpoint->flags & ALOOP__DGRAM_LOST_DUE) {
    if (!aloop__ready_push(object->loop, lost, endpoint)) return false;
    endpoint->flags &= (uint16_t)~ALOOP__DGRAM_LOST_DUE;
  }
  return true;
}

static void report_open(aloop_datagram_t *endpoint) {
  aloop_error_context_t context =
      aloop__report_context("a datagram endpoint was still open when its loop was closed", 0);
  context.datagram = endpoint;
  context.protocol = endpoint->protocol;
  context.fd = endpoint->fd;
  context.origin = endpoint->object.origin;
  aloop__report(endpoint->object.loop, &context);
}

static void close_object(aloop__object_t *object) {
  aloop_datagram_t *endpoint = of_object(object);
  aloop_t *loop = object->loop;
  if (endpoint->state == ALOOP__LOST) return;
  if (endpoint->state < ALOOP__CLOSING && (loop->guard & ALOOP__GUARD_DEBUG)) report_open(endpoint);
  aloop__map_t *outer = loop->context;
  loop->context = aloop__map_ref(endpoint->context);
  stop(endpoint, ALOOP_ECLOSED);
  fail_waiter(endpoint, ALOOP_ECLOSED);
  finish(endpoint);
  aloop__map_clear(loop, &loop->context);
  loop->context = outer;
}

static void destroy(aloop__object_t *object) {
  ALOOP_CHECK(of_object(object)->state == ALOOP__LOST);
  aloop__map_unref(object->loop, of_object(object)->context);
  aloop__object_end(object, of_object(object));
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  static const char *const names[] = {"opening", "open", "closing", "ending", "lost"};
  const aloop_datagram_t *endpoint = of_object(object);
  snprintf(text, size, "fd %d, %s%s, %zu bytes to send", endpoint->fd, names[endpoint->state],
           endpoint->flags & ALOOP__DGRAM_WRITE_PAUSED ? ", writing paused" : "", endpoint->unsent);
}

static const aloop__kind_t datagram_kind = {
    .name = "datagram endpoint",
    .index = ALOOP__DATAGRAM,
    .describe = describe,
    .destroy = destroy,
    .close = close_object,
    .resume = resume,
};

static void readable(aloop_t *loop, void *arg) {
  aloop_datagram_t *endpoint = ALOOP_CONTAINER_OF(arg, aloop_datagram_t, watch);
  aloop__datagram_enter_context(loop, endpoint);
  aloop__dgram_readable(endpoint);
}

static void writable(aloop_t *loop, void *arg) {
  aloop_datagram_t *endpoint = ALOOP_CONTAINER_OF(arg, aloop_datagram_t, watch);
  aloop__datagram_enter_context(loop, endpoint);
  aloop__dgram_writable(endpoint);
}

static const aloop__watch_ops_t datagram_ops = {
    .name = "datagram endpoint", .readable = readable, .writable = writable};

aloop_datagram_t *aloop__datagram_of(aloop__watch_t *watch) {
  return watch->ops == &datagram_ops ? ALOOP_CONTAINER_OF(watch, aloop_datagram_t, watch) : NULL;
}

/* The stop function of the waiter. It is called as well when the endpoint itself ends the future, and has let
 * go of it by then. */
static void drop_endpoint(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_datagram_t *endpoint = arg;
  if (endpoint->waiter != NULL) aloop__datagram_end(endpoint, ALOOP_ECANCELED);
}

int aloop__datagram_check_protocol(const aloop_datagram_protocol_t *table) {
  return table != NULL && table->size >= sizeof *table ? 0 : ALOOP_EINVAL;
}

aloop_datagram_t *aloop__datagram_new(aloop_t *loop, int fd, uint16_t flags, const struct sockaddr *peer,
                                      socklen_t peer_size, const aloop_datagram_protocol_t *table, void *arg,
                                      aloop_future_t *future, const char *origin) {
  if (aloop__dgrams_open(loop) == NULL) return NULL;
  aloop_datagram_t *endpoint = aloop__memory_zero(loop, sizeof *endpoint);
  if (endpoint == NULL) return NULL;
  endpoint->watch.fd = -1;
  aloop__object_init(&endpoint->object, loop, &datagram_kind, origin);
  if (aloop__watch_claim(loop, &endpoint->watch, fd, &datagram_ops) < 0 ||
      !aloop__ready_push(loop, made, endpoint)) {
    aloop__watch_stop(loop, &endpoint->watch);
    aloop__object_end(&endpoint->object, endpoint);
    return NULL;
  }
  endpoint->table = table;
  endpoint->protocol = arg;
  endpoint->fd = fd;
  endpoint->flags = flags;
  endpoint->cut_max = aloop__dgram_cut_max(fd);
  endpoint->ask = 2;
  endpoint->high = ALOOP__DEFAULT_HIGH;
  endpoint->low = ALOOP__DEFAULT_LOW;
  if (peer != NULL) memcpy(&endpoint->peer, peer, peer_size);
  endpoint->peer_size = peer != NULL ? peer_size : 0;
  endpoint->context = aloop__map_ref(loop->context);
  endpoint->waiter = aloop_future_ref(future);
  aloop__future_set_operation(future, drop_endpoint, endpoint);
  aloop__loop_armed(loop);
  return endpoint;
}

/* ---- Public --------------------------------------------------------------------------------------------- */

int aloop__datagram_refuse(const aloop_datagram_t *endpoint) {
  if (endpoint == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the datagram endpoint is NULL");
  return aloop__loop_thread(endpoint->object.loop);
}

aloop_datagram_t *aloop_datagram_ref(aloop_datagram_t *endpoint) {
  if (endpoint == NULL || aloop__datagram_enter(endpoint) < 0) return NULL;
  aloop__object_ref(&endpoint->object);
  return endpoint;
}

void aloop_datagram_unref(aloop_datagram_t *endpoint) {
  if (endpoint != NULL && aloop__datagram_enter(endpoint) == 0) aloop__object_unref(&endpoint->object);
}

aloop_t *aloop_datagram_loop(const aloop_datagram_t *endpoint) {
  return endpoint != NULL || aloop__datagram_refuse(endpoint) == 0 ? endpoint->object.loop : NULL;
}

void aloop_datagram_close(aloop_datagram_t *endpoint) {
  if (aloop__datagram_enter(endpoint) < 0 || endpoint->state >= ALOOP__CLOSING) return;
  endpoint->state = ALOOP__CLOSING;
  int rc = receive(endpoint, false);
  aloop__dgram_uncork(endpoint);
  if (endpoint->unsent == 0 || rc < 0) aloop__datagram_end(endpoint, rc);
}

void aloop_datagram_abort(aloop_datagram_t *endpoint) {
  if (aloop__datagram_enter(endpoint) == 0) aloop__datagram_end(endpoint, 0);
}

bool aloop_datagram_is_closing(const aloop_datagram_t *endpoint) {
  return aloop__datagram_enter(endpoint) < 0 || endpoint->state >= ALOOP__CLOSING;
}

int aloop_datagram_set_protocol(aloop_datagram_t *endpoint, const aloop_datagram_protocol_t *table,
                                void *protocol) {
  int rc = aloop__datagram_enter(endpoint);
  if (rc < 0) return rc;
  if (aloop__datagram_check_protocol(table) < 0)
    return aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "a protocol table has its size set");
  endpoint->table = table;
  endpoint->protocol = protocol;
  return 0;
}

void *aloop_datagram_get_protocol(const aloop_datagram_t *endpoint, const aloop_datagram_protocol_t **table) {
  if (aloop__datagram_enter(endpoint) < 0) return NULL;
  if (table != NULL) *table = endpoint->table;
  return endpoint->protocol;
}

int aloop_datagram_fd(const aloop_datagram_t *endpoint) {
  int rc = aloop__datagram_enter(endpoint);
  if (rc < 0) return rc;
  return endpoint->fd >= 0 ? endpoint->fd : ALOOP_ECLOSED;
}

static int enter_address(const aloop_datagram_t *endpoint, const void *address, const socklen_t *size) {
  int rc = aloop__datagram_enter(endpoint);
  if (rc == 0 && (address == NULL || size == NULL))
    rc = aloop__misuse(endpoint->object.loop, ALOOP_EINVAL, "an address needs a place and its size");
  return rc;
}

int aloop_datagram_sockname(const aloop_datagram_t *endpoint, struct sockaddr *address, socklen_t *size) {
  int rc = enter_address(endpoint, address, size);
  if (rc < 0) return rc;
  if (endpoint->fd < 0) return ALOOP_ECLOSED;
  return getsockname(endpoint->fd, address, size) < 0 ? -errno : 0;
}

int aloop_datagram_peername(const aloop_datagram_t *endpoint, struct sockaddr *address, socklen_t *size) {
  int rc = enter_address(endpoint, address, size);
  if (rc < 0) return rc;
  if (endpoint->peer_size == 0) return ALOOP_ENOTCONN;
  memcpy(address, &endpoint->peer, *size < endpoint->peer_size ? *size : endpoint->peer_size);
  *size = endpoint->peer_size;
  return 0;
}
