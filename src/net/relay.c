/* SPDX-License-Identifier: MIT
 *
 * aloop_relay: two transports joined, so that what one receives is written to the other.
 *
 * A relay puts a protocol of its own in the place of the two that are there, and puts them back when it ends,
 * before anything else is done to the transports. So connection_lost goes the way it always goes, to the
 * protocol that was there before, once; and a relay that is cancelled leaves two transports as they would be if
 * their protocols had done the work themselves. Meanwhile the protocols are told nothing.
 *
 * Each side is the source of one way and the sink of the other. A way has ended when its source has received
 * EOF; the sink is then told EOF, once it has sent what is on its way. When both have ended and both sinks have
 * sent everything, the relay is done and closes both. A side that cannot send or cannot receive (a pipe) has
 * one way that has ended from the start. A side without half ends (TLS before 1.3) cannot be told EOF alone: as
 * a sink it hears of it by the close, when the other way has ended too; as a source its EOF ends both ways,
 * since it takes nothing any more.
 *
 * Back-pressure is that of every stream: a sink above its high-water mark holds its source (the flag HELD)
 * until it has fallen to the low one. It stands beside the user's own pausing, which counts as ever; but what
 * was paused before is resumed, for that is how two connections wait for each other.
 *
 * How a relay ends is how its transports end. EOF from both: both are closed. One is closed by the user: what
 * was read is still sent, both are closed. One is aborted, times out or fails: the other is reset, lest its
 * peer take the torn-off rest for the whole.
 *
 * Most relays are idle or pass small messages: those are read into the loop's buffer and sent from there, as
 * any protocol would do. When a read brings SPLICE_FROM bytes or more the way changes to splice(2) (splice.c),
 * which takes a third of the time per byte then: what is there goes through a pipe to the sink, and when the
 * sink does not take all of it the source is held until it has. Pieces below SPLICE_BELOW change it back. For
 * that the watches of both transports call the relay first. A driver that cannot have its descriptor spliced
 * (of Unix sockets, of files, of TLS) says so, and the way of the copy is taken always; one that has received
 * what is to be spliced is asked to leave it in the socket. When a relay ends early, what is in a pipe is read
 * back and written to the sink.
 *
 * Descriptors that come with the bytes of a Unix socket are passed on if the other side is one too, else
 * closed.
 */
#include "net/relay.h"

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/driver.h"
#include "net/splice.h"
#include "net/unix.h"
#include "net/write.h"

enum { SPLICE_FROM = 32768, SPLICE_BELOW = 8192, PIECE = 16384 };

typedef struct side {
  aloop_transport_t *transport;
  struct side *other;
  aloop__relay_t *relay;
  const aloop_protocol_t *table; /* to be put back */
  void *protocol;
  bool told_to_pause;            /* that protocol was, and not yet to resume */
  bool ended;                    /* nothing more comes from here */
  bool splices;                  /* bytes from here are spliced */
  aloop__splice_pipe_t *pipe;    /* they did not all go through: the rest is here, */
  size_t piped;                  /* so many */
  const aloop__watch_ops_t *ops; /* of the driver, if the watch is the relay's; or NULL */
} side_t;

struct aloop__relay {
  aloop_future_t *future;
  int64_t moved;
  bool copies; /* splice is not possible here */
  side_t sides[2];
};

const char aloop__relay_rule[] = "a relay has this transport; cancel it first, or wait for its end";

static side_t *side_of(const aloop_transport_t *transport) {
  aloop__relay_t *relay = transport->extras->relay;
  return &relay->sides[relay->sides[0].transport == transport ? 0 : 1];
}

size_t aloop__relay_size(const aloop_transport_t *transport) {
  return transport->flags & ALOOP__PIPED ? side_of(transport)->other->piped : 0;
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* What was read for a transport and not sent. */
typedef struct rest {
  aloop_transport_t *sink;
  aloop__splice_pipe_t *pipe; /* NULL: nothing */
  size_t size;
} rest_t;

static rest_t put_back(side_t *side) {
  enum { OURS = ALOOP__WRITE_PAUSED | ALOOP__HELD | ALOOP__PIPED };
  aloop_transport_t *transport = side->transport;
  uint32_t paused = side->told_to_pause ? ALOOP__WRITE_PAUSED : 0;
  aloop__stream_set_table(transport, side->table, side->protocol);
  transport->flags = (transport->flags & ~(uint32_t)OURS) | paused;
  transport->extras->relay = NULL;
  if (side->ops != NULL) transport->watch.ops = side->ops;
  return (rest_t){.sink = side->other->transport, .pipe = side->pipe, .size = side->piped};
}

static void drop_rest(const rest_t *rest) {
  if (rest->pipe != NULL) aloop__splice_give(rest->sink->object.loop, rest->pipe, false);
}

/* Back into memory, and to the sink as if it had been written. */
static void write_rest(const rest_t *rest) {
  char piece[PIECE];
  size_t left = rest->size;
  while (left > 0 && rest->sink->object.state < ALOOP__CLOSING) {
    ssize_t n = aloop__splice_read(rest->pipe, piece, left < sizeof piece ? left : sizeof piece);
    if (n <= 0) {
      aloop__stream_end(rest->sink, n < 0 ? (int)n : ALOOP_EIO);
      break;
    }
    struct iovec part = {.iov_base = piece, .iov_len = (size_t)n};
    aloop__stream_put(rest->sink, &part, 1);
    left -= (size_t)n;
  }
  drop_rest(rest);
}

/* The relay is no more; the transports are as it has left them. Returns the future, which has not ended. What
 * is in the pipes belongs to the streams, or is dropped. */
static aloop_future_t *dissolve(aloop__relay_t *relay, bool keeps) {
  aloop_future_t *future = relay->future;
  rest_t rests[2] = {put_back(&relay->sides[0]), put_back(&relay->sides[1])};
  aloop__memory_release(future->object.loop, relay);
  for (int i = 0; i < 2; i++) {
    if (keeps)
      write_rest(&rests[i]);
    else
      drop_rest(&rests[i]);
  }
  return future;
}

/* Nothing is on its way any more. */
static void finish(aloop__relay_t *relay) {
  aloop_transport_t *a = relay->sides[0].transport;
  aloop_transport_t *b = relay->sides[1].transport;
  int64_t moved = relay->moved;
  aloop_future_t *future = dissolve(relay, false);
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
  aloop_future_t *future = dissolve(side->relay, true);
  aloop_transport_close(other);
  aloop__future_fail(future, ALOOP_ECLOSED, "the %s transport was closed", name);
}

void aloop__relay_lost(aloop_transport_t *transport, int error) {
  side_t *side = side_of(transport);
  aloop_transport_t *other = side->other->transport;
  const char *name = name_of(side);
  aloop_future_t *future = dissolve(side->relay, false);
  bool closing = (transport->object.loop->guard & ALOOP__GUARD_CLOSED) != 0;
  if (!closing) {
    other->flags |= ALOOP__RESET;
    aloop__stream_end(other, 0);
  }
  if (error < 0)
    aloop__future_fail(future, error, "the %s transport failed", name);
  else
    aloop__future_fail(future, ALOOP_ECLOSED, "the %s transport was aborted", name);
}

/* The stream goes on without us: an EOF that has come will come again, for the protocol. */
static void go_on(aloop_transport_t *transport) {
  if (transport->object.state >= ALOOP__ENDING) return;
  transport->flags &= ~(uint32_t)ALOOP__EOF_RECEIVED;
  aloop__stream_touch(transport, true, false);
  aloop__stream_update_reading(transport);
  aloop__write_check_high(transport);
  aloop__write_check_low(transport);
}

static void cancelled(aloop_future_t *future, void *arg) {
  aloop__relay_t *relay = arg;
  aloop_transport_t *a = relay->sides[0].transport;
  aloop_transport_t *b = relay->sides[1].transport;
  bool closing = (future->object.loop->guard & ALOOP__GUARD_CLOSED) != 0;
  aloop__object_ref(&a->object); /* outside of a run pause_writing may free the loop */
  aloop__object_ref(&b->object);
  dissolve(relay, !closing);
  if (!closing) go_on(a);
  if (!closing) go_on(b);
  aloop__object_unref(&a->object);
  aloop__object_unref(&b->object);
}

/* ---- Ways that end --------------------------------------------------------------------------------------- */

static bool is_sent(const side_t *sink) {
  return aloop__outbox_empty(&sink->transport->outbox) && sink->other->piped == 0;
}

static bool has_half_ends(const side_t *side) {
  const aloop__driver_t *driver = side->transport->driver;
  return driver->can_send_eof == NULL || driver->can_send_eof(side->transport);
}

/* Something has ended or was sent: what is due now? */
static void go_further(side_t *sink) {
  aloop__relay_t *relay = sink->relay;
  side_t *sides = relay->sides;
  if (!sink->other->ended || !is_sent(sink)) return;
  if (sides[0].ended && sides[1].ended) {
    if (is_sent(sink->other)) finish(relay);
    return;
  }
  bool is_told = (sink->transport->flags & (ALOOP__EOF_WANTED | ALOOP__NO_WRITE)) != 0;
  if (is_told || !has_half_ends(sink) || (sink->other->transport->flags & ALOOP__EOF_RECEIVED) == 0)
    return; /* a way that never was */
  sink->transport->flags |= ALOOP__EOF_WANTED;
  aloop__stream_drained(sink->transport);
}

static void hold(side_t *source) {
  source->transport->flags |= ALOOP__HELD;
  aloop__stream_update_reading(source->transport);
}

/* Keeps the transport. */
static int pass_end_on(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  aloop__relay_t *relay = side->relay;
  side->ended = true;
  if (!has_half_ends(side) && !side->other->ended) {
    side->other->ended = true;
    hold(side->other);
    if (aloop__relay_of(transport) != relay) return 1;
  }
  go_further(side->other);
  return 1;
}

/* ---- Back-pressure --------------------------------------------------------------------------------------- */

static void let_go(side_t *source) {
  if (source->ended || (source->transport->flags & ALOOP__HELD) == 0) return;
  source->transport->flags &= ~(uint32_t)ALOOP__HELD;
  aloop__stream_touch(source->transport, true, false); /* it could not read before */
  aloop__stream_update_reading(source->transport);
}

static void sink_is_full(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  side_t *sink = protocol;
  hold(sink->other);
}

/* Before bytes are spliced what was copied must be gone: then aloop__relay_drained lets go. */
static void sink_has_room(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  side_t *sink = protocol;
  if (!sink->other->splices) let_go(sink->other);
}

/* The pipe belongs to both processes. */
void aloop__relay_forked(aloop_transport_t *transport) {
  side_t *source = side_of(transport)->other;
  aloop__splice_give(transport->object.loop, source->pipe, false);
  source->pipe = NULL;
  source->piped = 0;
  transport->flags &= ~(uint32_t)ALOOP__PIPED;
}

void aloop__relay_drained(aloop_transport_t *transport) {
  side_t *sink = side_of(transport);
  aloop__relay_t *relay = sink->relay;
  bool full = (transport->flags & ALOOP__WRITE_PAUSED) != 0; /* with an empty outbox: beneath */
  if (sink->other->piped == 0 && !full) let_go(sink->other);
  if (aloop__relay_of(transport) == relay) go_further(sink);
}

/* ---- Splicing -------------------------------------------------------------------------------------------- */

static int descriptor_of(const aloop_transport_t *transport) {
  return transport->driver->splice_fd != NULL ? transport->driver->splice_fd(transport) : -1;
}

/* Never again on this relay. */
static void copy_always(aloop__relay_t *relay) {
  relay->copies = true;
  relay->sides[0].splices = relay->sides[1].splices = false;
}

/* Empties the pipe of a source as far as its sink takes it; one that is empty is given back. The relay may be
 * gone then. */
static void splice_out(side_t *source) {
  aloop_transport_t *sink = source->other->transport;
  ssize_t n = aloop__splice_out(source->pipe, descriptor_of(sink), source->piped);
  if (n == ALOOP_ENOTSUP) {
    rest_t rest = {.sink = sink, .pipe = source->pipe, .size = source->piped};
    copy_always(source->relay);
    source->pipe = NULL;
    source->piped = 0;
    write_rest(&rest);
    return;
  }
  if (n < 0 && n != ALOOP_EAGAIN) {
    aloop__stream_end(sink, (int)n);
    return;
  }
  if (n > 0) {
    source->piped -= (size_t)n;
    aloop__stream_touch(sink, false, true);
  }
  if (source->piped > 0) return;
  aloop__splice_give(sink->object.loop, source->pipe, true);
  source->pipe = NULL;
}

/* The sink has not taken everything. */
static void await_room(side_t *source) {
  aloop_transport_t *sink = source->other->transport;
  aloop__relay_t *relay = source->relay;
  sink->flags |= ALOOP__PIPED;
  aloop__stream_touch(sink, false, true);
  int rc = sink->driver->await_room(sink);
  if (rc < 0)
    aloop__stream_end(sink, rc);
  else if (aloop__relay_of(sink) == relay)
    hold(source);
}

/* One pipe full, at most. */
static void splice_in(side_t *source) {
  aloop_transport_t *transport = source->transport;
  aloop__relay_t *relay = source->relay;
  ssize_t n = aloop__splice_in(descriptor_of(transport), source->pipe);
  if (n <= 0) {
    aloop__splice_give(transport->object.loop, source->pipe, true);
    source->pipe = NULL;
    if (n == ALOOP_ENOTSUP)
      copy_always(relay); /* the event comes again */
    else if (n == 0)
      aloop__stream_received_eof(transport);
    else if (n != ALOOP_EAGAIN)
      aloop__stream_end(transport, (int)n);
    return;
  }
  source->piped = (size_t)n;
  source->splices = n >= SPLICE_BELOW;
  relay->moved += n;
  aloop__stream_touch(transport, true, false);
  splice_out(source);
  if (aloop__relay_of(transport) == relay && source->piped > 0) await_room(source);
}

static void readable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  side_t *source = side_of(transport);
  if (!source->splices || (transport->flags & ALOOP__NO_READ)) {
    source->ops->readable(loop, arg);
    return;
  }
  if (!aloop__outbox_empty(&source->other->transport->outbox)) {
    hold(source);
    return;
  }
  ALOOP_CHECK(source->pipe == NULL);
  source->pipe = aloop__splice_take(loop);
  if (source->pipe != NULL) {
    splice_in(source);
  } else {
    source->splices = false; /* no descriptor is free */
    source->ops->readable(loop, arg);
  }
}

static void writable(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = ALOOP_CONTAINER_OF(arg, aloop_transport_t, watch);
  side_t *sink = side_of(transport);
  if (sink->other->piped == 0) {
    sink->ops->writable(loop, arg);
    return;
  }
  aloop__relay_t *relay = sink->relay;
  splice_out(sink->other);
  if (aloop__relay_of(transport) != relay || sink->other->piped > 0) return;
  transport->flags &= ~(uint32_t)ALOOP__PIPED;
  if (!aloop__outbox_empty(&transport->outbox)) return;
  uint32_t interest = aloop__watch_interest(&transport->watch) & ~(uint32_t)ALOOP_WRITABLE;
  int rc = aloop__watch_set(loop, &transport->watch, interest);
  if (rc < 0)
    aloop__stream_end(transport, rc);
  else
    aloop__relay_drained(transport);
}

static const aloop__watch_ops_t splice_ops = {.name = "relay", .readable = readable, .writable = writable};

static void hook(side_t *side) {
  if (side->ops != NULL) return;
  side->ops = side->transport->watch.ops;
  side->transport->watch.ops = &splice_ops;
}

/* Much has come at once: more may be on its way. */
static ALOOP_NOINLINE void begin_to_splice(side_t *source) {
  side_t *sink = source->other;
  if (source->relay->copies) return;
  if (descriptor_of(source->transport) < 0 || descriptor_of(sink->transport) < 0) return;
  hook(source);
  hook(sink);
  source->splices = true;
}

/* ---- Copying --------------------------------------------------------------------------------------------- */

static int pass_on(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  side_t *source = protocol;
  struct iovec part = {.iov_base = (void *)data, .iov_len = size};
  aloop_transport_t *sink = source->other->transport;
  if (ALOOP_UNLIKELY(aloop__unix_passes_fds(transport))) {
    int rc = aloop__unix_pass_fds(transport, sink);
    if (rc < 0 || (size == 0 && (sink->flags & ALOOP__MESSAGES) == 0)) return rc;
  }
  source->relay->moved += (int64_t)size;
  if (ALOOP_UNLIKELY(size >= SPLICE_FROM)) begin_to_splice(source);
  aloop__stream_put(sink, &part, 1);
  return 0; /* the relay may be gone */
}

static const aloop_protocol_t relay_protocol = {
    .size = sizeof relay_protocol,
    .data_received = pass_on,
    .eof_received = pass_end_on,
    .pause_writing = sink_is_full,
    .resume_writing = sink_has_room,
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
  if (transport->object.state >= ALOOP__CLOSING) return ALOOP_ECLOSED;
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
  aloop__stream_set_table(transport, &relay_protocol, side);
  transport->extras->relay = relay;
  transport->flags &= ~(uint32_t)ALOOP__PAUSED;
  if (transport->driver->relayed != NULL) transport->driver->relayed(transport);
}

/* What the protocols have left behind: unsent bytes, an EOF. False: that was all. */
static bool begin(side_t *from) {
  aloop_transport_t *source = from->transport;
  aloop__relay_t *relay = from->relay;
  if (from->other->told_to_pause) source->flags |= ALOOP__HELD;
  aloop__stream_touch(source, true, false);
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
