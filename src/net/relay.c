/* SPDX-License-Identifier: MIT
 *
 * aloop_relay: two transports joined, so that what one receives is written to the other.
 *
 * A relay puts a protocol of its own in the place of the two that are there, and puts them back when it ends,
 * before anything else is done to the transports. So connection_lost goes the way it always goes, to the
 * protocol that was there before, once; and a relay that is cancelled leaves two transports as they would be
 * if their protocols had done the work themselves. Meanwhile the protocols are told nothing.
 *
 * Each side is the source of one way and the sink of the other. A way has ended when its source has received
 * EOF; the sink is then told EOF, once it has sent what is on its way. When both have ended and both sinks have
 * sent everything, the relay is done and closes both. A side that cannot send or cannot receive (a pipe) has
 * one way that has ended from the start.
 *
 * Back-pressure is that of every stream: a sink above its high-water mark holds its source (the flag HELD)
 * until it has fallen to the low one. It stands beside the user's own pausing, which counts as ever; but what
 * was paused before is resumed, for that is how two connections wait for each other.
 *
 * How a relay ends is how its transports end. EOF from both: both are closed. One is closed by the user: what
 * was read is still sent, both are closed. One is aborted, times out or fails: the other is reset, lest its
 * peer take the torn-off rest for the whole.
 *
 * Descriptors that come with the bytes of a Unix socket are passed on if the other side is one too.
 */
#include "net/relay.h"

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/driver.h"
#include "net/write.h"

typedef struct side {
  aloop_transport_t *transport;
  struct side *other;
  aloop__relay_t *relay;
  const aloop_protocol_t *table; /* to be put back */
  void *protocol;
  bool told_to_pause; /* that protocol was, and not yet to resume */
  bool ended;         /* nothing more comes from here */
} side_t;

struct aloop__relay {
  aloop_future_t *future;
  int64_t moved;
  side_t sides[2];
};

const char aloop__relay_rule[] = "a relay has this transport; cancel it first, or wait for its end";

static side_t *side_of(const aloop_transport_t *transport) {
  aloop__relay_t *relay = transport->extras->relay;
  return &relay->sides[relay->sides[0].transport == transport ? 0 : 1];
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void put_back(side_t *side) {
  aloop_transport_t *transport = side->transport;
  uint32_t paused = side->told_to_pause ? ALOOP__WRITE_PAUSED : 0;
  transport->table = side->table;
  transport->protocol = side->protocol;
  transport->flags = (transport->flags & ~(uint32_t)(ALOOP__WRITE_PAUSED | ALOOP__HELD)) | paused;
  transport->extras->relay = NULL;
}

/* The relay is no more; the transports are as it has left them. Returns the future, which has not ended. */
static aloop_future_t *dissolve(aloop__relay_t *relay) {
  aloop_future_t *future = relay->future;
  put_back(&relay->sides[0]);
  put_back(&relay->sides[1]);
  aloop__memory_release(future->object.loop, relay);
  return future;
}

/* Nothing is on its way any more. */
static void finish(aloop__relay_t *relay) {
  aloop_transport_t *a = relay->sides[0].transport;
  aloop_transport_t *b = relay->sides[1].transport;
  int64_t moved = relay->moved;
  aloop_future_t *future = dissolve(relay);
  aloop_transport_close(a);
  aloop_transport_close(b);
  aloop__future_finish(future, moved);
}

static const char *name_of(const side_t *side) {
  return side == side->relay->sides ? "first" : "second";
}

void aloop__relay_closed(aloop_transport_t *transport) {
  side_t *side = side_of(transport);
  aloop_transport_t *other = side->other->transport;
  const char *name = name_of(side);
  aloop_future_t *future = dissolve(side->relay);
  aloop_transport_close(other);
  aloop__future_fail(future, ALOOP_ECLOSED, "the %s transport was closed", name);
}

void aloop__relay_lost(aloop_transport_t *transport, int error) {
  side_t *side = side_of(transport);
  aloop_transport_t *other = side->other->transport;
  const char *name = name_of(side);
  aloop_future_t *future = dissolve(side->relay);
  bool closing = (transport->object.loop->guard & ALOOP__GUARD_CLOSED) != 0;
  if (!closing) {
    other->flags |= ALOOP__RESET;
    aloop__stream_end(other, 0);
  }
  if (error < 0)
    aloop__future_fail(future, error, "the %s transport failed: %s", name, aloop_strerror(error));
  else
    aloop__future_fail(future, ALOOP_ECLOSED, "the %s transport was aborted", name);
}

/* The stream goes on without us: an EOF that has come will come again, for the protocol. */
static void go_on(aloop_transport_t *transport) {
  transport->flags &= ~(uint32_t)ALOOP__EOF_RECEIVED;
  aloop__stream_update_reading(transport);
  aloop__write_check_high(transport);
  aloop__write_check_low(transport);
}

static void cancelled(aloop_future_t *future, void *arg) {
  aloop__relay_t *relay = arg;
  aloop_transport_t *a = relay->sides[0].transport;
  aloop_transport_t *b = relay->sides[1].transport;
  dissolve(relay);
  if (future->object.loop->guard & ALOOP__GUARD_CLOSED) return;
  go_on(a);
  go_on(b);
}

/* ---- What comes in --------------------------------------------------------------------------------------- */

static bool is_sent(const side_t *side) {
  return side->transport->outbox.size == 0;
}

/* Something has ended or was sent: what is due now? */
static void go_further(side_t *sink) {
  aloop__relay_t *relay = sink->relay;
  side_t *sides = relay->sides;
  if (!sink->other->ended) return;
  if (sides[0].ended && sides[1].ended) {
    if (is_sent(&sides[0]) && is_sent(&sides[1])) finish(relay);
    return;
  }
  if (sink->transport->flags & ALOOP__EOF_WANTED) return;
  sink->transport->flags |= ALOOP__EOF_WANTED;
  aloop__stream_drained(sink->transport);
}

void aloop__relay_drained(aloop_transport_t *transport) {
  go_further(side_of(transport));
}

static int pass_on(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  side_t *side = protocol;
  struct iovec part = {.iov_base = (void *)data, .iov_len = size};
  side->relay->moved += (int64_t)size;
  aloop__stream_put(side->other->transport, &part, 1);
  return 0; /* the relay may be gone */
}

/* Keeps the transport. */
static int pass_end_on(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  side_t *side = protocol;
  side->ended = true;
  go_further(side->other);
  return 1;
}

static void hold(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  side_t *side = protocol;
  side->other->transport->flags |= ALOOP__HELD;
  aloop__stream_update_reading(side->other->transport);
}

static void let_go(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  side_t *side = protocol;
  side->other->transport->flags &= ~(uint32_t)ALOOP__HELD;
  aloop__stream_update_reading(side->other->transport);
}

static const aloop_protocol_t relay_protocol = {
    .size = sizeof relay_protocol,
    .data_received = pass_on,
    .eof_received = pass_end_on,
    .pause_writing = hold,
    .resume_writing = let_go,
};

void aloop__relay_set_protocol(aloop_transport_t *transport, const aloop_protocol_t *table, void *protocol) {
  side_t *side = side_of(transport);
  side->table = table;
  side->protocol = protocol;
}

void *aloop__relay_get_protocol(const aloop_transport_t *transport, const aloop_protocol_t **table) {
  const side_t *side = side_of(transport);
  if (table != NULL) *table = side->table;
  return side->protocol;
}

/* ---- The beginning --------------------------------------------------------------------------------------- */

/* Why one of the two cannot be relayed, with the rule if that is the caller's fault, or 0. */
static int check(const aloop_transport_t *transport, const char **rule) {
  if (transport->state >= ALOOP__CLOSING) return ALOOP_ECLOSED;
  if (aloop__relay_of(transport) != NULL) {
    *rule = aloop__relay_rule;
    return ALOOP_EBUSY;
  }
  if (transport->flags & ALOOP__SENDFILE) {
    *rule = "a relay during sendfile; wait for its end first";
    return ALOOP_EBUSY;
  }
  if (transport->flags & ALOOP__EOF_WANTED) {
    *rule = "a relay after write_eof";
    return ALOOP_EPIPE;
  }
  return 0;
}

static bool has_way(const aloop_transport_t *from, const aloop_transport_t *to) {
  return (from->flags & ALOOP__NO_READ) == 0 && (to->flags & ALOOP__NO_WRITE) == 0;
}

static int check_both(const aloop_transport_t *a, const aloop_transport_t *b, const char **rule) {
  if (a->object.loop != b->object.loop) {
    *rule = "a relay joins transports of one loop";
    return ALOOP_EOTHERLOOP;
  }
  if (a == b) {
    *rule = "a relay joins two transports, not one with itself";
    return ALOOP_EINVAL;
  }
  int rc = check(a, rule);
  if (rc == 0) rc = check(b, rule);
  if (rc < 0 || has_way(a, b) || has_way(b, a)) return rc;
  *rule = "a relay needs one transport to read from and another to write to";
  return ALOOP_ENOTSUP;
}

static void refuse(aloop_future_t *future, int error, const char *rule) {
  if (rule != NULL) aloop__misuse(future->object.loop, error, rule);
  aloop__future_fail(future, error, rule != NULL ? "%s" : NULL, rule);
}

/* Takes the transport over from its protocol. */
static void take(aloop__relay_t *relay, int index, aloop_transport_t *transport) {
  side_t *side = &relay->sides[index];
  *side = (side_t){.transport = transport,
                   .other = &relay->sides[1 - index],
                   .relay = relay,
                   .table = transport->table,
                   .protocol = transport->protocol,
                   .told_to_pause = (transport->flags & ALOOP__WRITE_PAUSED) != 0};
  transport->table = &relay_protocol;
  transport->protocol = side;
  transport->extras->relay = relay;
  transport->flags &= ~(uint32_t)ALOOP__PAUSED;
}

/* What the protocols have left behind: unsent bytes, an EOF. False: that was all. */
static bool begin(side_t *from) {
  aloop_transport_t *source = from->transport;
  aloop__relay_t *relay = from->relay;
  if (from->other->told_to_pause) source->flags |= ALOOP__HELD;
  aloop__stream_update_reading(source);
  if (aloop__relay_of(source) != relay) return false;
  if (from->ended) go_further(from->other);
  return aloop__relay_of(source) == relay;
}

static aloop__relay_t *join(aloop_transport_t *a, aloop_transport_t *b) {
  aloop_t *loop = a->object.loop;
  aloop__relay_t *relay = aloop__memory_zero(loop, sizeof *relay);
  if (relay == NULL || aloop__stream_extras(a) == NULL || aloop__stream_extras(b) == NULL) {
    aloop__memory_release(loop, relay);
    return NULL;
  }
  take(relay, 0, a);
  take(relay, 1, b);
  relay->sides[0].ended = (a->flags & ALOOP__EOF_RECEIVED) != 0 || !has_way(a, b);
  relay->sides[1].ended = (b->flags & ALOOP__EOF_RECEIVED) != 0 || !has_way(b, a);
  return relay;
}

aloop_future_t *aloop_relay(aloop_transport_t *a, aloop_transport_t *b) {
  if (aloop__stream_enter(a) < 0 || aloop__stream_enter(b) < 0) return NULL;
  aloop_future_t *future = aloop__future_new(a->object.loop, a->object.origin);
  if (future == NULL || aloop_future_done(future)) return future;
  aloop__cork_flush(a); /* may call pause_writing, and so change what follows */
  aloop__cork_flush(b);
  const char *rule = NULL;
  int rc = check_both(a, b, &rule);
  if (rc < 0) {
    refuse(future, rc, rule);
    return future;
  }
  aloop__relay_t *relay = join(a, b);
  if (relay == NULL) {
    aloop_future_unref(future);
    return NULL;
  }
  relay->future = future;
  aloop__future_set_operation(future, cancelled, relay);
  if (begin(&relay->sides[0])) begin(&relay->sides[1]);
  return future;
}
