/* SPDX-License-Identifier: MIT
 *
 * The TLS transport: its life.
 *
 * It is a stream transport like any other (net/stream.c) whose driver has no descriptor beneath it but another
 * transport, the carrier: a socket's, a pipe's, a TLS transport. The carrier belongs to it: its protocol is the
 * table below, its public calls answer ALOOP_ECLOSED, and it has no water marks but zero, so that "the carrier
 * has unsent bytes" is told as pause_writing and resume_writing.
 *
 * Phases are entered in their order, and none twice: waiting for the carrier, handshake, open, shut, over. The
 * transport's connection_made is announced when the handshake is done. A close says the end of the stream
 * behind what is unsent and closes the carrier, whose loss is then the transport's end; the peer's own end is
 * not waited for, since peers need not send one, and one that is gone already does not hear ours. Any other
 * end, from above (abort), from the engine or from the carrier, stops both at once.
 *
 * The carrier is finished (its descriptor closed) by whoever ends last: after connection_lost of the transport
 * above, so that addresses can be asked for inside it, or by itself if it was not made yet.
 *
 * One timer per connection, for the handshake first and for the shutdown later. The shutdown's looks whether
 * anything was sent since it was last set, and only then gives up: a slow reader is served, a dead one is not.
 */
#include "tls/tls.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"
#include "net/write.h"

#define HANDSHAKE_TIMEOUT ALOOP_SECONDS(60)
#define SHUTDOWN_TIMEOUT ALOOP_SECONDS(10)

enum { REASON_MAX = 256 };

/* ---- Failing --------------------------------------------------------------------------------------------- */

/* Tells of `failure`. */
static void report(aloop__tls_t *self) {
  aloop_transport_t *transport = &self->transport;
  aloop_error_context_t context =
      aloop__report_context(self->error != NULL ? self->error : "a TLS connection failed", self->failure);
  self->failure = 0;
  context.transport = transport;
  context.fd = transport->watch.fd;
  context.origin = transport->object.origin;
  aloop__report(transport->object.loop, &context);
}

void aloop__tls_fail(aloop__tls_t *self, int error, const char *reason) {
  char text[REASON_MAX];
  aloop_transport_t *transport = &self->transport;
  if (transport->object.state >= ALOOP__ENDING) return;
  snprintf(text, sizeof text, "%s", reason != NULL ? reason : aloop_strerror(error));
  if (reason == NULL && self->session != NULL)
    aloop__tls_engine(self)->reason(self->session, text, sizeof text);
  if (self->error == NULL) self->error = aloop__memory_string(transport->object.loop, text);
  if (transport->object.loop->guard & ALOOP__GUARD_DEBUG) self->failure = error;
  /* Outside of a run who hears of it may free the loop, and calls that are at work would go on with nothing:
   * it is told when the connection is closed. */
  if (self->failure < 0 && aloop__loop_runs_here(transport->object.loop)) report(self);
  aloop__stream_fail_waiter(transport, error, text);
  aloop__stream_end(transport, error);
}

/* ---- Timers ---------------------------------------------------------------------------------------------- */

static void stop_timer(aloop__tls_t *self) {
  aloop_cancel(self->transport.object.loop, &self->timer);
}

static int start_timer(aloop__tls_t *self, int64_t delay, aloop_callback_fn fn) {
  aloop_transport_t *transport = &self->transport;
  self->timer = aloop_call_later_from(transport->object.loop, delay, fn, self, transport->object.origin);
  return aloop_handle_error(self->timer);
}

static void handshake_timed_out(aloop_t *loop, void *arg) {
  (void)loop;
  aloop__tls_fail(arg, ALOOP_ETIMEDOUT, "the TLS handshake took too long");
}

/* Unsent bytes that nobody has taken since the last look. */
static void look_at_shutdown(aloop_t *loop, void *arg) {
  (void)loop;
  aloop__tls_t *self = arg;
  size_t unsent = aloop__stream_unsent(&self->transport);
  if (self->kernel) unsent += aloop__tls_kernel_unsent(self);
  bool moved = unsent < self->count;
  self->count = unsent;
  if (!moved)
    aloop__tls_fail(self, ALOOP_ETIMEDOUT, "the peer took nothing while the TLS connection was closing");
  else if (start_timer(self, self->shutdown_timeout, look_at_shutdown) < 0)
    aloop__stream_end(&self->transport, ALOOP_ENOMEM);
}

/* ---- The handshake --------------------------------------------------------------------------------------- */

static void shaken(aloop__tls_t *self) {
  stop_timer(self);
  self->phase = ALOOP__TLS_OPEN;
  aloop__tls_kernel_offer(self);
  aloop__stream_announce(&self->transport);
}

void aloop__tls_shake(aloop__tls_t *self, aloop_tls_wire_t *wire) {
  int rc = aloop__tls_engine(self)->handshake(self->session, wire);
  aloop__tls_flush(self);
  if (rc < 0)
    aloop__tls_fail(self, rc, NULL);
  else if (self->phase == ALOOP__TLS_HANDSHAKE && rc > 0)
    shaken(self);
  else if (self->count > ALOOP__TLS_HANDSHAKE_MAX)
    aloop__tls_fail(self, ALOOP_ETLS, "the peer's TLS handshake is too long");
}

/* The engine asks which context serves a name. */
static void *choose(void *arg, const char *name) {
  aloop__tls_t *self = arg;
  self->chosen = aloop__tls_context_for(self->context, name);
  return self->chosen != NULL ? self->chosen->state : NULL;
}

static int make_session(aloop__tls_t *self) {
  aloop_tls_session_t how = {
      .size = sizeof how, .server_hostname = self->server_hostname, .choose = choose, .arg = self};
  int rc = aloop__tls_engine(self)->session_new(self->context->state, &how, &self->session);
  if (rc < 0) self->session = NULL;
  aloop__memory_release(self->transport.object.loop, self->server_hostname);
  self->server_hostname = NULL;
  return rc;
}

void aloop__tls_begin(aloop__tls_t *self) {
  if (self->phase != ALOOP__TLS_WAITING) return;
  int rc = make_session(self);
  if (rc == 0) rc = start_timer(self, self->handshake_timeout, handshake_timed_out);
  if (rc < 0) {
    aloop__tls_fail(self, rc, rc == ALOOP_ETLS ? "the server's name cannot be used for TLS" : NULL);
    return;
  }
  self->phase = ALOOP__TLS_HANDSHAKE;
  if (self->context->role == ALOOP_TLS_CLIENT) aloop__tls_received(self, 0);
}

/* ---- What the carrier tells ------------------------------------------------------------------------------ */

static void carrier_made(aloop_transport_t *carrier, void *protocol) {
  (void)carrier;
  aloop__tls_begin(protocol);
}

static int carrier_get_buffer(aloop_transport_t *carrier, void *protocol, size_t hint, void **buffer,
                              size_t *size) {
  (void)hint;
  if (aloop__tls_wants_input(protocol)) {
    aloop__tls_get_buffer(protocol, buffer, size);
  } else {
    carrier->flags |= ALOOP__PAUSED;
    aloop__stream_update_reading(carrier);
  }
  return 0;
}

/* The cork is for the protocol above: what goes to the carrier has been gathered. */
static int carrier_received(aloop_transport_t *carrier, void *protocol, size_t size) {
  aloop__net_of(carrier->object.loop)->cork.owner = NULL;
  aloop__tls_received(protocol, size);
  return 0;
}

static int carrier_ended(aloop_transport_t *carrier, void *protocol) {
  (void)carrier;
  aloop__tls_t *self = protocol;
  if (self->phase <= ALOOP__TLS_HANDSHAKE)
    aloop__tls_fail(self, ALOOP_ECONNRESET, "the peer closed the connection during the TLS handshake");
  else if (self->phase == ALOOP__TLS_OPEN && !self->ended)
    aloop__tls_fail(self, ALOOP_ETLS_TRUNCATED, aloop_strerror(ALOOP_ETLS_TRUNCATED));
  return 1;
}

static void carrier_full(aloop_transport_t *carrier, void *protocol) {
  (void)carrier;
  ((aloop__tls_t *)protocol)->blocked = true;
}

static void carrier_empty(aloop_transport_t *carrier, void *protocol) {
  (void)carrier;
  aloop__tls_unblocked(protocol);
}

/* From the ready deque, so that the transport above may be finished here and now, with the descriptor still
 * open; but not before other callbacks of it that are queued. */
static void carrier_lost(aloop_transport_t *carrier, void *protocol, int error) {
  (void)carrier;
  aloop__tls_t *self = protocol;
  aloop_transport_t *transport = &self->transport;
  if (self->phase == ALOOP__TLS_OVER) return;
  if (self->phase == ALOOP__TLS_SHUT && self->sent && error != ALOOP_ECLOSED) error = 0;
  if (self->phase <= ALOOP__TLS_HANDSHAKE && error < 0) aloop__stream_fail_waiter(transport, error, NULL);
  bool queued = (transport->flags & ALOOP__ANNOUNCED) && !self->begun;
  if (self->pumping || queued) {
    transport->watch.fd = -1;
    aloop__stream_end(transport, error);
  } else if (aloop__stream_stop(transport, error)) {
    aloop__stream_finish(transport);
  }
}

static const aloop_protocol_t carrier_protocol = {
    .size = sizeof carrier_protocol,
    .connection_made = carrier_made,
    .get_buffer = carrier_get_buffer,
    .buffer_updated = carrier_received,
    .eof_received = carrier_ended,
    .pause_writing = carrier_full,
    .resume_writing = carrier_empty,
    .connection_lost = carrier_lost,
};

/* Of a carrier whose transport has gone before it. */
static const aloop_protocol_t no_protocol = {.size = sizeof no_protocol};

/* ---- The driver ------------------------------------------------------------------------------------------ */

static int attach(aloop_transport_t *transport) {
  (void)transport;
  return 0;
}

static void stop_carrier(aloop__tls_t *self) {
  aloop_transport_t *carrier = self->carrier;
  carrier->flags |= self->transport.flags & ALOOP__RESET;
  if (carrier->flags & ALOOP__MADE)
    self->stopped = aloop__stream_stop(carrier, 0);
  else
    aloop__stream_end(carrier, ALOOP_ECANCELED);
}

static void detach(aloop_transport_t *transport) {
  aloop__tls_t *self = aloop__tls_of(transport);
  self->phase = ALOOP__TLS_OVER;
  stop_timer(self);
  if (self->carrier != NULL) stop_carrier(self);
}

static void drop_carrier(aloop__tls_t *self) {
  aloop_transport_t *carrier = self->carrier;
  self->carrier = NULL;
  if (carrier == NULL) return;
  aloop__stream_set_table(carrier, &no_protocol, NULL);
  if (self->stopped && carrier->object.state != ALOOP__LOST)
    aloop__stream_finish(carrier); /* aloop_close may have done it */
  aloop__object_unref(&carrier->object);
}

static void close_tls(aloop_transport_t *transport) {
  aloop__tls_t *self = aloop__tls_of(transport);
  aloop_t *loop = transport->object.loop;
  if (self->failure < 0) report(self);
  drop_carrier(self);
  if (self->session != NULL) aloop__tls_engine(self)->session_free(self->session);
  self->session = NULL;
  aloop__tls_kernel_drop(self);
  aloop_tls_context_unref(self->chosen);
  aloop_tls_context_unref(self->context);
  self->chosen = self->context = NULL;
  aloop__memory_release(loop, self->held);
  aloop__memory_release(loop, self->server_hostname);
  self->held = NULL;
  self->server_hostname = NULL;
}

static void destroy(aloop_transport_t *transport) {
  aloop__memory_release(transport->object.loop, aloop__tls_of(transport)->error);
}

static ssize_t send_file(aloop_transport_t *transport, int file, int64_t offset, int64_t count) {
  aloop__tls_t *self = aloop__tls_of(transport);
  return self->kernel ? aloop__tls_kernel_send_file(self, file, offset, count) : ALOOP_ENOTSUP;
}

static void sendfile_over(aloop_transport_t *transport) {
  aloop__tls_kernel_file_over(aloop__tls_of(transport));
}

static int send_eof(aloop_transport_t *transport) {
  return aloop__tls_say_end(aloop__tls_of(transport));
}

static void forked(aloop_transport_t *transport) {
  aloop__tls_t *self = aloop__tls_of(transport);
  aloop__tls_kernel_drop(self);
  self->unfinished = false;
}

static size_t beneath(const aloop_transport_t *transport) {
  const aloop__tls_t *self = aloop__tls_of(transport);
  return self->carrier != NULL ? aloop__stream_unsent(self->carrier) : 0;
}

static bool can_send_eof(const aloop_transport_t *transport) {
  const aloop__tls_t *self = aloop__tls_of(transport);
  return self->phase == ALOOP__TLS_OPEN && aloop__tls_engine(self)->half_close(self->session);
}

static void closing(aloop_transport_t *transport) {
  aloop__tls_t *self = aloop__tls_of(transport);
  if (self->phase != ALOOP__TLS_OPEN) return;
  self->count = SIZE_MAX;
  if (start_timer(self, self->shutdown_timeout, look_at_shutdown) < 0)
    aloop__stream_end(transport, ALOOP_ENOMEM);
}

static void finish(aloop_transport_t *transport) {
  aloop__tls_t *self = aloop__tls_of(transport);
  if (self->phase < ALOOP__TLS_OPEN) {
    aloop__stream_fail_waiter(transport, ALOOP_ECONNABORTED, "closed during the TLS handshake");
    aloop__stream_end(transport, 0);
  }
  if (self->phase != ALOOP__TLS_OPEN) return;
  self->sent = aloop__stream_unsent(self->carrier) == 0;
  int rc = aloop__tls_say_end(self);
  if (rc < 0) aloop__tls_fail(self, rc, NULL);
  if (self->phase != ALOOP__TLS_OPEN) return;
  self->phase = ALOOP__TLS_SHUT;
  if (self->kernel)
    aloop__tls_kernel_finish(self);
  else
    aloop__stream_close(self->carrier);
}

static aloop_transport_t *bottom(aloop_transport_t *transport) {
  aloop_transport_t *carrier = aloop__tls_of(transport)->carrier;
  return carrier != NULL ? aloop__stream_bottom(carrier) : transport;
}

const aloop__driver_t aloop__driver_tls = {
    .name = "tls",
    .transport_size = sizeof(aloop__tls_t),
    .attach = attach,
    .detach = detach,
    .close = close_tls,
    .destroy = destroy,
    .forked = forked,
    .read = aloop__tls_read,
    .send = aloop__tls_send,
    .flush = aloop__tls_flush_outbox,
    .send_eof = send_eof,
    .sendfile = send_file,
    .sendfile_over = sendfile_over,
    .await_room = aloop__tls_await_room,
    .beneath = beneath,
    .can_send_eof = can_send_eof,
    .closing = closing,
    .finish = finish,
    .bottom = bottom,
};

/* ---- Making one ------------------------------------------------------------------------------------------ */

/* Without its carrier yet. */
static aloop__tls_t *make(aloop_t *loop, int fd, unsigned depth, const aloop_protocol_t *table, void *arg,
                          const aloop__layer_t *layer, const char *origin) {
  const char *name = layer->server_hostname;
  char *copy = NULL;
  aloop__tls_level_t *level = aloop__tls_level(loop, depth);
  if (level == NULL) return NULL;
  if (name != NULL && name[0] != '\0') {
    copy = aloop__memory_string(loop, name);
    if (copy == NULL) return NULL;
  }
  aloop_transport_t *transport = aloop__stream_prepare(loop, &aloop__driver_tls, fd, table, arg, origin);
  if (transport == NULL) {
    aloop__memory_release(loop, copy);
    return NULL;
  }
  aloop__tls_t *self = aloop__tls_of(transport);
  self->context = aloop_tls_context_ref(layer->context);
  self->server_hostname = copy;
  self->level = level;
  self->depth = (uint8_t)depth;
  self->handshake_timeout = layer->handshake_timeout > 0 ? layer->handshake_timeout : HANDSHAKE_TIMEOUT;
  self->shutdown_timeout = layer->shutdown_timeout > 0 ? layer->shutdown_timeout : SHUTDOWN_TIMEOUT;
  transport->flags |= ALOOP__SECRET;
  return self;
}

/* The carrier is the transport's from now on. */
static void carry(aloop__tls_t *self, aloop_transport_t *carrier) {
  aloop__object_ref(&carrier->object);
  self->carrier = carrier;
  carrier->flags |= ALOOP__CARRIER | ALOOP__SHUT;
  aloop__stream_set_table(carrier, &carrier_protocol, self);
  carrier->high = carrier->low = 0;
}

static aloop_transport_t *wrap(aloop_t *loop, const aloop__driver_t *driver, int fd,
                               const aloop_protocol_t *table, void *arg, aloop_server_t *server,
                               aloop_future_t *waiter, const aloop__layer_t *layer, const char *origin) {
  aloop__tls_t *self = make(loop, fd, 0, table, arg, layer, origin);
  if (self == NULL) return NULL;
  aloop_transport_t *carrier = aloop__stream_new(loop, driver, fd, &carrier_protocol, self, NULL, NULL, origin);
  if (carrier == NULL) {
    close_tls(&self->transport);
    aloop__stream_discard(&self->transport);
    return NULL;
  }
  carry(self, carrier);
  self->transport.server = server;
  self->transport.waiter = waiter;
  return &self->transport;
}

/* Timeouts and limits of the old transport go on with the new one. */
static int take_over_extras(aloop_transport_t *transport, aloop_transport_t *carrier) {
  aloop__stream_extras_t *from = carrier->extras;
  if (from == NULL) return 0;
  aloop__stream_extras_t *to = aloop__stream_extras(transport);
  if (to == NULL) return ALOOP_ENOMEM;
  to->cap = from->cap;
  to->peer = from->peer;
  to->peer_size = from->peer_size;
  return aloop_transport_set_timeouts(transport, from->idle, from->read, from->write);
}

static void forget_extras(aloop_transport_t *carrier) {
  if (carrier->extras == NULL) return;
  aloop__stream_stop_timeouts(carrier);
  carrier->extras->idle = carrier->extras->read = carrier->extras->write = 0;
}

static void take_over(aloop__tls_t *self, aloop_transport_t *carrier) {
  aloop_transport_t *transport = &self->transport;
  transport->high = carrier->high;
  transport->low = carrier->low;
  transport->flags |= ALOOP__MADE | (carrier->flags & ALOOP__WRITE_PAUSED);
  transport->server = carrier->server;
  carrier->server = NULL;
  self->blocked = aloop__stream_unsent(carrier) > 0;
  carrier->flags &= ~(uint32_t)(ALOOP__WRITE_PAUSED | ALOOP__PAUSED);
  if (self->blocked) carrier->flags |= ALOOP__WRITE_PAUSED;
  forget_extras(carrier);
}

aloop_transport_t *aloop__tls_over(aloop_transport_t *carrier, const aloop_protocol_t *table, void *protocol,
                                   const aloop__layer_t *layer, aloop_future_t *waiter, const char *origin) {
  aloop_t *loop = carrier->object.loop;
  unsigned depth = carrier->driver == &aloop__driver_tls ? aloop__tls_of(carrier)->depth + 1u : 0;
  aloop__tls_t *self = make(loop, carrier->watch.fd, depth, table, protocol, layer, origin);
  if (self == NULL) return NULL;
  if (take_over_extras(&self->transport, carrier) < 0 ||
      aloop__stream_set_context(carrier, aloop__stream_context(&self->transport)) < 0) {
    aloop__stream_stop_timeouts(&self->transport);
    close_tls(&self->transport);
    aloop__stream_discard(&self->transport);
    return NULL;
  }
  take_over(self, carrier);
  carry(self, carrier);
  self->transport.waiter = waiter;
  return &self->transport;
}

const aloop__wrapper_t aloop__tls_wrapper = {
    .wrap = wrap,
    .ref = aloop__tls_context_hold,
    .unref = aloop_tls_context_unref,
    .fault = aloop__tls_context_fault,
};
