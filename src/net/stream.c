/* SPDX-License-Identifier: MIT
 *
 * The stream transport: its life, and what arrives.
 *
 * A transport walks down five states and never up (stream.h). connection_made is queued when it is made; the
 * one way out is aloop__stream_end: it takes the descriptor from the driver at once, drops what was unsent and
 * queues connection_lost, which is therefore called exactly once for each connection_made, whatever ended the
 * connection and wherever it was called from. The descriptor stays open until connection_lost returns, so that
 * the protocol may still ask for addresses.
 *
 * Everything else is a flag (paused, EOF received, ...); whether to read follows from state and flags in one
 * function, aloop__stream_wants_read, and is told to the driver whenever one of them changes.
 *
 * What arrives is handed to the protocol inside a cork (write.c): an answer leaves in one system call. An error
 * of a protocol's callback ends the connection with that error, as an exception does in asyncio.
 *
 * The loop holds one reference from the making until connection_lost has run, which it does from the ready
 * deque: inside a run a transport never goes away under a call that is at work on it. Outside of one a
 * destructor or callback may close the loop, which calls connection_lost at once; calls that go on using the
 * transport after such a callback hold a reference of their own. If connection_made or connection_lost cannot
 * be queued for want of memory, the object is stalled and tried again each turn (core/object.h).
 *
 * The blocks of transports are used again, those of the loop's own driver: where connections come and go many
 * at a time, malloc and free took 320 of 1440 instructions for each. Up to 64 blocks (9 KB) wait.
 */
#include "net/stream.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"
#include "core/short_lived.h"
#include "future/future.h"
#include "net/driver.h"
#include "net/layer.h"
#include "net/relay.h"
#include "net/write.h"

static aloop_transport_t *of_object(const aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop_transport_t, object);
}

/* ---- Memory --------------------------------------------------------------------------------------------- */

enum { SPARES_MAX = 64 };

static size_t block_size(const aloop__driver_t *driver) {
  return driver->transport_size != 0 ? driver->transport_size : sizeof(aloop_transport_t);
}

static void *take_block(aloop_t *loop, aloop__net_t *net, const aloop__driver_t *driver) {
  if (net->spares.first == NULL || driver != net->driver) return aloop__memory_new(loop, block_size(driver));
  return aloop__spares_take(&net->spares, block_size(driver));
}

/* The block goes to the spare ones, or to the allocator. */
static void end_object(aloop_transport_t *transport) {
  aloop__net_t *net = aloop__net_of(transport->object.loop);
  const aloop__driver_t *driver = transport->driver;
  aloop__spares_t *spares = net != NULL && driver == net->driver ? &net->spares : NULL;
  aloop__short_lived_give(spares, SPARES_MAX, &transport->object, transport, block_size(driver));
}

void aloop__stream_close_spares(aloop_t *loop, aloop__net_t *net) {
  aloop__spares_release(loop, &net->spares, block_size(net->driver));
}

/* ---- The end -------------------------------------------------------------------------------------------- */

/* The waiter's connect came to nothing before connection_made. */
void aloop__stream_fail_waiter(aloop_transport_t *transport, int error, const char *message) {
  aloop_future_t *waiter = transport->waiter;
  if (waiter == NULL) return;
  transport->waiter = NULL;
  if (!aloop_future_done(waiter)) aloop_future_set_error(waiter, error, message);
  aloop_future_unref(waiter);
}

static void fail_waiter(aloop_transport_t *transport, int error) {
  aloop__stream_fail_waiter(transport, error, NULL);
}

void aloop__stream_finish(aloop_transport_t *transport) {
  aloop_server_t *server = transport->server;
  transport->object.state = ALOOP__LOST;
  fail_waiter(transport, transport->error < 0 ? transport->error : ALOOP_ECANCELED);
  if ((transport->flags & (ALOOP__MADE | ALOOP__CARRIER)) && transport->table->connection_lost != NULL)
    transport->table->connection_lost(transport, transport->protocol, transport->error);
  transport->driver->close(transport);
  transport->watch.fd = -1;
  transport->server = NULL;
  if (server != NULL) aloop__server_client_lost(server);
  aloop__object_unref(&transport->object);
}

static void lost(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = arg;
  aloop__stream_enter_context(loop, transport);
  aloop__stream_finish(transport);
}

/* Always behind connection_made. */
static void queue_lost(aloop_transport_t *transport) {
  bool made_waits = (transport->flags & ALOOP__MADE_DUE) != 0;
  if (made_waits || !aloop__ready_push(transport->object.loop, lost, transport)) {
    transport->flags |= ALOOP__LOST_DUE;
    aloop__object_stall(&transport->object);
  }
  aloop__loop_armed(transport->object.loop);
}

/* Without a word to the relay it is part of. */
ALOOP_INLINE bool stop(aloop_transport_t *transport, int error) {
  if (transport->object.state >= ALOOP__ENDING) return false;
  transport->object.state = ALOOP__ENDING;
  transport->flags |= ALOOP__SHUT;
  transport->error = error;
  aloop_t *loop = transport->object.loop;
  aloop__cork_drop(transport);
  transport->driver->detach(transport);
  if (transport->extras != NULL) aloop__stream_stop_timeouts(transport);
  if (transport->flags & ALOOP__SENDFILE) aloop__sendfile_lost(transport, error < 0 ? error : ALOOP_ECLOSED);
  /* Last: who releases bytes may do anything, and outside of a run close the loop. */
  if (!aloop__outbox_empty(&transport->outbox)) aloop__outbox_clear(loop, &transport->outbox);
  return true;
}

static void leave_relay(aloop_transport_t *transport, int error) {
  if (aloop__relay_of(transport) != NULL) aloop__relay_lost(transport, error);
}

bool aloop__stream_stop(aloop_transport_t *transport, int error) {
  if (!stop(transport, error)) return false;
  leave_relay(transport, error);
  return true;
}

void aloop__stream_end(aloop_transport_t *transport, int error) {
  if (transport->object.state >= ALOOP__ENDING) return;
  aloop__object_ref(&transport->object);
  stop(transport, error);
  if (transport->object.state == ALOOP__ENDING) {
    queue_lost(transport); /* before that of the other side */
    leave_relay(transport, error);
  }
  aloop__object_unref(&transport->object);
}

void aloop__stream_end_by_user(aloop_transport_t *transport, int error) {
  aloop__row_flush(transport);
  aloop__stream_end(transport, error);
}

/* ---- The beginning -------------------------------------------------------------------------------------- */

/* The factory. False: the connection is refused. */
static bool make_protocol(aloop_transport_t *transport) {
  if (transport->table->create == NULL) return true;
  transport->protocol = transport->table->create(transport->protocol);
  return transport->protocol != NULL;
}

/* Takes the descriptor, if it is a caller's, and makes the protocol. On failure the descriptor is as it was. */
static int begin(aloop_transport_t *transport) {
  aloop__adopted_t before;
  if ((transport->flags & ALOOP__BORROWED) == 0) return make_protocol(transport) ? 0 : ALOOP_ENOMEM;
  int rc = transport->driver->adopt(transport, &before);
  if (rc < 0) return rc;
  if (!make_protocol(transport)) {
    transport->driver->give_back(transport, &before);
    return ALOOP_ENOMEM;
  }
  transport->flags &= ~(uint32_t)ALOOP__BORROWED;
  return 0;
}

static void unref_transport(void *value) {
  aloop_transport_unref(value);
}

static void finish_waiter(aloop_transport_t *transport) {
  aloop_future_t *waiter = transport->waiter;
  if (waiter == NULL) return;
  transport->waiter = NULL;
  aloop__object_ref(&transport->object);
  if (aloop_future_set_result(waiter, 0, transport, unref_transport) < 0)
    aloop__object_unref(&transport->object);
  aloop_future_unref(waiter);
}

/* Nobody waits for it any more, or what it was to carry has ended. */
static bool is_unwanted(const aloop_transport_t *transport) {
  if (transport->flags & ALOOP__CARRIER) return transport->object.state >= ALOOP__ENDING;
  return transport->waiter != NULL && aloop_future_done(transport->waiter);
}

static void made(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = arg;
  aloop__stream_enter_context(loop, transport);
  int rc = is_unwanted(transport) ? ALOOP_ECANCELED : transport->flags & ALOOP__MADE ? 0 : begin(transport);
  if (rc < 0) {
    fail_waiter(transport, rc);
    /* If it has ended already, the queued end does the rest, without a call. */
    if (aloop__stream_stop(transport, rc)) aloop__stream_finish(transport);
    return;
  }
  bool first = (transport->flags & ALOOP__MADE) == 0;
  transport->flags |= ALOOP__MADE;
  if (transport->object.state == ALOOP__OPENING) transport->object.state = ALOOP__OPEN;
  if (first && transport->table->connection_made != NULL)
    transport->table->connection_made(transport, transport->protocol);
  aloop__stream_update_reading(transport);
  finish_waiter(transport);
}

static bool resume(aloop__object_t *object) {
  aloop_transport_t *transport = of_object(object);
  if (transport->flags & ALOOP__MADE_DUE) {
    if (!aloop__ready_push(object->loop, made, transport)) return false;
    transport->flags &= ~(uint32_t)ALOOP__MADE_DUE;
  }
  if (transport->flags & ALOOP__LOST_DUE) {
    if (!aloop__ready_push(object->loop, lost, transport)) return false;
    transport->flags &= ~(uint32_t)ALOOP__LOST_DUE;
  }
  return true;
}

static void close_object(aloop__object_t *object) {
  aloop_transport_t *transport = of_object(object);
  if (transport->object.state == ALOOP__LOST) return;
  if (transport->object.state < ALOOP__CLOSING && (transport->flags & ALOOP__CARRIER) == 0 &&
      (object->loop->guard & ALOOP__GUARD_DEBUG)) {
    aloop_error_context_t context =
        aloop__report_context("a transport was still open when its loop was closed", 0);
    context.transport = transport;
    context.protocol = transport->protocol;
    context.fd = transport->watch.fd;
    context.origin = object->origin;
    aloop__report(object->loop, &context);
  }
  aloop_t *loop = object->loop;
  aloop__map_t *outer = loop->context;
  loop->context = NULL;
  aloop__stream_enter_context(loop, transport);
  aloop__stream_stop(transport, ALOOP_ECLOSED);
  fail_waiter(transport, ALOOP_ECLOSED);
  aloop__stream_finish(transport);
  aloop__map_clear(loop, &loop->context);
  loop->context = outer;
}

static ALOOP_NOINLINE void release_extras(aloop_transport_t *transport) {
  aloop__map_unref(transport->object.loop, transport->extras->context);
  aloop__memory_release(transport->object.loop, transport->extras);
}

static inline void release(aloop_transport_t *transport) {
  if (ALOOP_UNLIKELY(transport->extras != NULL)) release_extras(transport);
  end_object(transport);
}

static void destroy(aloop__object_t *object) {
  aloop_transport_t *transport = of_object(object);
  ALOOP_CHECK(transport->object.state == ALOOP__LOST);
  if (transport->driver->destroy != NULL) transport->driver->destroy(transport);
  release(transport);
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  static const char *const names[] = {"opening", "open", "closing", "ending", "lost"};
  const aloop_transport_t *transport = of_object(object);
  snprintf(text, size, "fd %d, %s%s%s%s%s%s, %zu bytes to send", transport->watch.fd,
           names[transport->object.state], aloop__relay_of(transport) != NULL ? ", relayed" : "",
           transport->flags & ALOOP__CARRIER ? ", carries TLS" : "",
           transport->flags & ALOOP__PAUSED ? ", reading paused" : "",
           transport->flags & ALOOP__EOF_RECEIVED ? ", EOF received" : "",
           transport->flags & ALOOP__WRITE_PAUSED ? ", writing paused" : "",
           aloop__outbox_size(&transport->outbox));
}

static const aloop__kind_t stream_kind = {
    .name = "transport",
    .index = ALOOP__TRANSPORT,
    .describe = describe,
    .destroy = destroy,
    .close = close_object,
    .resume = resume,
};

int aloop__stream_check_protocol(const aloop_protocol_t *table) {
  /* The size of the first version: a longer table comes from a newer caller, a shorter one is not one. */
  return table != NULL && table->size >= sizeof *table ? 0 : ALOOP_EINVAL;
}

int aloop__stream_check_descriptor(const aloop_t *loop, const aloop__driver_t *driver, int fd,
                                   const char **reason) {
  int type = 0, wanted = driver == &aloop__driver_seqpacket ? SOCK_SEQPACKET : SOCK_STREAM;
  socklen_t size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) {
    *reason = errno == ENOTSOCK ? "the descriptor is not a socket" : "the descriptor is not open";
    return -errno;
  }
  if (type != wanted) {
    *reason = "the descriptor is not a stream socket";
    return ALOOP_EINVAL;
  }
  if (aloop__watch_find(loop, fd) == NULL) return 0;
  *reason = "the descriptor is in use by this loop: a server or transport has it, or add_reader or add_writer";
  return ALOOP_EBUSY;
}

int aloop__stream_set_context(aloop_transport_t *transport, aloop__map_t *context) {
  if (context == NULL && transport->extras == NULL) return 0;
  aloop__stream_extras_t *extras = aloop__stream_extras(transport);
  if (extras == NULL) return ALOOP_ENOMEM;
  aloop__map_t *before = extras->context;
  extras->context = aloop__map_ref(context);
  aloop__map_unref(transport->object.loop, before);
  return 0;
}

/* Every member is set one by one: to clear the whole block first takes more than all of that. */
ALOOP_INLINE aloop_transport_t *prepare(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                        const aloop_protocol_t *table, void *arg, aloop_server_t *server,
                                        aloop_future_t *waiter, const char *origin) {
  aloop__net_t *net = aloop__net_open(loop);
  if (ALOOP_UNLIKELY(net == NULL)) return NULL;
  if (driver == NULL) driver = net->driver;
  aloop_transport_t *transport = take_block(loop, net, driver);
  if (ALOOP_UNLIKELY(transport == NULL)) return NULL;
  if (block_size(driver) > sizeof *transport) memset(transport + 1, 0, block_size(driver) - sizeof *transport);
  transport->watch = (aloop__watch_t){.fd = fd};
  transport->flags = 0;
  transport->error = 0;
  transport->outbox.last = NULL;
  transport->extras = NULL;
  transport->driver = driver;
  transport->server = server;
  transport->waiter = waiter;
  transport->high = ALOOP__DEFAULT_HIGH;
  transport->low = ALOOP__DEFAULT_LOW;
  aloop__stream_set_table(transport, table, arg);
  aloop__object_init(&transport->object, loop, &stream_kind, origin);
  if ((loop->context != NULL && aloop__stream_set_context(transport, loop->context) < 0) ||
      driver->attach(transport) < 0) {
    release(transport);
    return NULL;
  }
  return transport;
}

aloop_transport_t *aloop__stream_prepare(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                         const aloop_protocol_t *table, void *arg, const char *origin) {
  return prepare(loop, driver, fd, table, arg, NULL, NULL, origin);
}

void aloop__stream_discard(aloop_transport_t *transport) {
  transport->driver->detach(transport);
  release(transport);
}

void aloop__stream_announce(aloop_transport_t *transport) {
  if (!aloop__ready_push(transport->object.loop, made, transport)) {
    transport->flags |= ALOOP__MADE_DUE;
    aloop__object_stall(&transport->object);
  }
  transport->flags |= ALOOP__ANNOUNCED;
  aloop__loop_armed(transport->object.loop);
}

aloop_transport_t *aloop__stream_new(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                     const aloop_protocol_t *table, void *arg, aloop_server_t *server,
                                     aloop_future_t *waiter, const char *origin) {
  aloop_transport_t *transport = prepare(loop, driver, fd, table, arg, server, waiter, origin);
  if (ALOOP_UNLIKELY(transport == NULL)) return NULL;
  if (!aloop__ready_push(loop, made, transport)) {
    aloop__stream_discard(transport);
    return NULL;
  }
  transport->flags |= ALOOP__ANNOUNCED;
  aloop__loop_armed(loop);
  return transport;
}

/* The stop function of the waiter. It is called as well when the transport itself ends the future, and has let
 * go of it by then. */
static void drop_transport(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_transport_t *transport = arg;
  if (transport->waiter != NULL) aloop__stream_end(transport, ALOOP_ECANCELED);
}

aloop_transport_t *aloop__stream_hand_over(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                           const aloop_protocol_t *table, void *arg, aloop_future_t *future,
                                           const aloop__layer_t *layer, const char *origin) {
  aloop_transport_t *transport = aloop__layer_new(loop, driver, fd, table, arg, NULL, future, layer, origin);
  if (transport == NULL) return NULL;
  aloop_future_ref(future);
  aloop__future_set_operation(future, drop_transport, transport);
  return transport;
}

aloop_transport_t *aloop__stream_bottom(aloop_transport_t *transport) {
  return transport->driver->bottom != NULL ? transport->driver->bottom(transport) : transport;
}

/* ---- What arrives --------------------------------------------------------------------------------------- */

void aloop__stream_tell_reading(aloop_transport_t *transport) {
  int rc = transport->driver->read(transport, aloop__stream_wants_read(transport));
  if (rc < 0) aloop__stream_end(transport, rc);
}

int aloop__stream_get_buffer(aloop_transport_t *transport, void **buffer, size_t *size) {
  const aloop_protocol_t *table = transport->table;
  void *protocol = transport->protocol;
  *size = 0;
  int rc = table->get_buffer(transport, protocol, ALOOP__READ_HINT, buffer, size);
  if (rc < 0) return rc;
  /* It may have paused or ended the connection, or handed it to a protocol that has other memory. */
  if (!aloop__stream_wants_read(transport) || transport->table != table || transport->protocol != protocol)
    return 0;
  return *size > 0 ? 1 : ALOOP_ENOBUFS;
}

void aloop__stream_received_eof(aloop_transport_t *transport) {
  transport->flags |= ALOOP__EOF_RECEIVED;
  int rc = 0;
  if (transport->table->eof_received != NULL)
    rc = transport->table->eof_received(transport, transport->protocol);
  bool reads_only = (transport->flags & ALOOP__NO_WRITE) != 0 && aloop__relay_of(transport) == NULL;
  if (rc < 0)
    aloop__stream_end_by_user(transport, rc);
  else if (rc == 0 || reads_only)
    aloop_transport_close(transport);
  aloop__stream_update_reading(transport); /* last: as a rule it has ended */
}

void aloop__stream_drained(aloop_transport_t *transport) {
  if (transport->object.state >= ALOOP__ENDING || !aloop__outbox_empty(&transport->outbox) ||
      aloop__cork_size(transport) > 0)
    return;
  if (transport->flags & ALOOP__SENDFILE) {
    aloop__sendfile_go_on(transport);
    return;
  }
  if ((transport->flags & (ALOOP__EOF_WANTED | ALOOP__EOF_SENT)) == ALOOP__EOF_WANTED) {
    transport->flags |= ALOOP__EOF_SENT;
    int rc = transport->driver->send_eof(transport);
    if (rc < 0) {
      aloop__stream_end(transport, rc);
      return;
    }
  }
  if (transport->object.state == ALOOP__CLOSING && transport->driver->finish != NULL)
    transport->driver->finish(transport);
  else if (transport->object.state == ALOOP__CLOSING)
    aloop__stream_end(transport, 0);
  else if (aloop__relay_of(transport) != NULL)
    aloop__relay_drained(transport);
}

void aloop__stream_room(aloop_transport_t *transport) {
  if (transport->flags & ALOOP__SENDFILE) {
    aloop__sendfile_go_on(transport);
  } else if (transport->flags & ALOOP__AWAITED) {
    transport->flags &= ~(uint32_t)ALOOP__AWAITED;
    if (transport->table->resume_writing != NULL)
      transport->table->resume_writing(transport, transport->protocol);
  }
}

/* ---- Public --------------------------------------------------------------------------------------------- */

int aloop__stream_refuse(const aloop_transport_t *transport) {
  if (transport == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the transport is NULL");
  int rc = aloop__loop_thread(transport->object.loop);
  return rc == 0 && (transport->flags & ALOOP__CARRIER) ? ALOOP_ECLOSED : rc;
}

/* A reference may be taken and given back whatever has become of the connection. */
static bool may_count(const aloop_transport_t *transport) {
  return transport != NULL && aloop__loop_thread(transport->object.loop) == 0;
}

aloop_transport_t *aloop_transport_ref(aloop_transport_t *transport) {
  if (!may_count(transport)) return NULL;
  aloop__object_ref(&transport->object);
  return transport;
}

void aloop_transport_unref(aloop_transport_t *transport) {
  if (may_count(transport)) aloop__object_unref(&transport->object);
}

void aloop__stream_close(aloop_transport_t *transport) {
  if (aloop__relay_of(transport) != NULL) aloop__relay_closed(transport);
  if (transport->object.state >= ALOOP__CLOSING) return;
  transport->object.state = ALOOP__CLOSING;
  transport->flags |= ALOOP__SHUT;
  if (transport->driver->closing != NULL) transport->driver->closing(transport);
  aloop__cork_flush(transport);
  aloop__stream_drained(transport);
  aloop__stream_update_reading(transport); /* of one that still has bytes to send */
}

void aloop_transport_close(aloop_transport_t *transport) {
  if (aloop__stream_enter(transport) == 0) aloop__stream_close(transport);
}

void aloop_transport_abort_error(aloop_transport_t *transport, int error) {
  if (aloop__stream_enter(transport) < 0) return;
  aloop__stream_end_by_user(transport, error < 0 ? error : 0);
}

void aloop_transport_abort(aloop_transport_t *transport) {
  aloop_transport_abort_error(transport, 0);
}

void aloop_transport_abort_reset(aloop_transport_t *transport) {
  if (aloop__stream_enter(transport) < 0) return;
  transport->flags |= ALOOP__RESET;
  aloop__stream_end(transport, 0);
}

bool aloop_transport_is_closing(const aloop_transport_t *transport) {
  return aloop__stream_enter(transport) < 0 || transport->object.state >= ALOOP__CLOSING;
}

int aloop_transport_pause_reading(aloop_transport_t *transport) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  transport->flags |= ALOOP__PAUSED;
  aloop__stream_update_reading(transport);
  return 0;
}

int aloop_transport_resume_reading(aloop_transport_t *transport) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0 || (transport->flags & ALOOP__PAUSED) == 0) return rc;
  transport->flags &= ~(uint32_t)ALOOP__PAUSED;
  if (!aloop__stream_wants_read(transport)) return 0;
  rc = transport->driver->read(transport, true);
  if (rc < 0) transport->flags |= ALOOP__PAUSED;
  if (rc == 0 && transport->extras != NULL) aloop__stream_touch(transport, true, false);
  return rc;
}

bool aloop_transport_is_reading(const aloop_transport_t *transport) {
  return aloop__stream_enter(transport) == 0 && transport->object.state == ALOOP__OPEN &&
         (transport->flags & (ALOOP__PAUSED | ALOOP__EOF_RECEIVED | ALOOP__NO_READ)) == 0;
}

int aloop_transport_set_protocol(aloop_transport_t *transport, const aloop_protocol_t *table, void *protocol) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  if (aloop__stream_check_protocol(table) < 0)
    return aloop__misuse(transport->object.loop, ALOOP_EINVAL, "a protocol table has its size set");
  if (aloop__relay_of(transport) != NULL) {
    aloop__relay_set_protocol(transport, table, protocol);
    return 0;
  }
  aloop__stream_set_table(transport, table, protocol);
  return 0;
}

void *aloop_transport_get_protocol(const aloop_transport_t *transport, const aloop_protocol_t **table) {
  if (aloop__stream_enter(transport) < 0) return NULL;
  if (aloop__relay_of(transport) != NULL) return aloop__relay_get_protocol(transport, table);
  if (table != NULL) *table = transport->table;
  return transport->protocol;
}
