/* SPDX-License-Identifier: MIT
 *
 * The completion driver: stream sockets over io_uring. Requests are prepared in memory and handed over with
 * the one system call that waits for completions, so a turn costs one system call, however many connections are
 * at work in it.
 *
 * Receiving: one multishot receive per connection stays in the kernel for as long as reading is wanted. Each
 * completion names bytes in a buffer of the loop's ring (completion_buffers.c); the protocol sees them there,
 * and they are given back when data_received returns. Completions come in the order of the bytes, also across
 * a pause: bytes that came when nobody wanted them are held, and are delivered before newer ones; small pieces
 * as copies, so that they do not keep a buffer, and all when half of the buffers are kept. With all buffers in
 * use the kernel ends the receive. Then the socket is read as the readiness driver does it, and the receive is
 * asked for again. (Without the reading, ten thousand connections with 16 KiB each took turns of which nearly
 * all receives came to nothing: 106 us of CPU time for each echo instead of 12.)
 *
 * Sending is what the readiness driver does: at once, and when the socket is full, again when the poller says
 * that it has room. The kernel's TCP is what costs, and not the call. Sends as requests, handed over together,
 * were measured by a bare program that changes between the two ways from turn to turn: CPU time of an echo, by
 * requests to by calls (the median of 15 to 400 pairs, whose quartiles lie 5 to 30 percent apart):
 *
 *     connections       1      50     200    1000    8000
 *     TCP, 64 B        1.06   0.99   0.93    0.94    0.90
 *     ... as copies    1.10   0.99   0.92    0.97    0.86
 *     TCP, 16 KiB      1.05   1.02           1.03    1.05
 *     ... as copies    1.18   1.24           1.16    1.12
 *     Unix, 64 B       1.12   0.96           0.96    1.01
 *     Unix, 16 KiB     1.12   1.03           1.05    1.10
 *
 * So it was built: where eight more connections had something in a turn, answers of up to 1 KiB were put off as
 * copies in their outboxes and left by one call for all. Nothing of the gain was left (TCP, 64 B: 1.00 with 50
 * connections, 1.04 with 200, 1.03 with 1000, 0.99 with 8000), and it went out again: copies and lists cost as
 * much as calls do, and only 20 completions come at a time. Sends without a copy (SEND_ZC) took 14 to 28
 * percent more for 4 and 16 KiB over the loopback device, which copies anyway. A send as a request also keeps
 * its buffer from the next receive, and cannot tell its caller what the socket took.
 *
 * Cancelling is not waiting. Requests are named after the generation of the connection's watch, so what comes
 * later finds nobody and only gives its buffer back; a descriptor may be closed and used again at once. A
 * request keeps its socket open until the kernel has ended it, which happens with the next call that hands
 * over the cancel: in the same turn, or when the run ends.
 *
 * A relay wants the bytes left in the socket, to splice them. The readiness driver takes its transports over,
 * for good, once the receive has ended and what it brought is delivered.
 *
 * Connecting is left to connect.c, which waits through the poller. As a request it saves three system calls,
 * but took only 4 percent less CPU time in a bare program over TCP (8.0 instead of 8.4 us), and 16 percent more
 * over a Unix socket, where the call is over at once. The request would also go down with a ring that is left
 * for another thread, and want its address to stay until it is handed over.
 *
 * Not here: plain descriptors, which wait through the poller; datagrams, in completion_datagram.c. Descriptors
 * above a million do not fit into a name; no process has them by default.
 */
#ifdef ALOOP_HAVE_IO_URING

#include "net/completion.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/memory.h"
#include "net/datagram.h"
#include "net/readiness.h"
#include "net/write.h"

enum { PIECES = 64 }; /* for a protocol with tiny buffers, in one go */

/* Bytes that wait to be wanted: a piece of a buffer, or a copy behind this. */
typedef struct held {
  struct held *next;
  const char *data;
  size_t size;
  uint32_t flags; /* name the buffer */
  bool copied;
} held_t;

typedef struct completion_transport {
  aloop_transport_t transport;
  held_t *held;   /* bytes that came while nobody wanted them, oldest first */
  int end;        /* held behind them: ALOOP_EOF or an error; 0: none */
  bool asked;     /* a receive is in the kernel: its last completion has not come */
  bool cancelled; /* ... and shall end */
  bool relayed;   /* the readiness driver is to take over */
  bool waiting;   /* for deliver_all */
} completion_transport_t;

static completion_transport_t *of(aloop_transport_t *transport) {
  return ALOOP_CONTAINER_OF(transport, completion_transport_t, transport);
}

bool aloop__completion_cancel(aloop_t *loop, uint64_t name) {
  return aloop__ring_cancel(aloop__completion_of(loop), &loop->allocator, name);
}

/* ---- Receiving ------------------------------------------------------------------------------------------- */

static uint64_t receive_name(const completion_transport_t *self) {
  return aloop__completion_name(ALOOP__COMPLETION_RECEIVE, 0, &self->transport.watch);
}

static int receive(aloop_t *loop, completion_transport_t *self) {
  struct io_uring_sqe *request = aloop__ring_request(aloop__completion_of(loop));
  if (request == NULL) return aloop__completion_refused(loop);
  request->opcode = IORING_OP_RECV;
  request->fd = self->transport.watch.fd;
  request->ioprio = IORING_RECV_MULTISHOT;
  request->flags = IOSQE_BUFFER_SELECT;
  request->user_data = receive_name(self);
  self->asked = true;
  return 0;
}

/* What comes all the same is held. */
static void receive_no_more(aloop_t *loop, completion_transport_t *self) {
  if (self->asked && !self->cancelled) self->cancelled = aloop__completion_cancel(loop, receive_name(self));
}

/* Large pieces stay in the kernel's buffer, until half of the buffers may be kept from it. */
static bool stays(const aloop__completion_net_t *state, size_t size) {
  enum { SMALL = 4096 };
  return size >= SMALL && state->held_pieces < state->buffers.shape.count / 2u;
}

/* Keeps a piece for later. NULL: out of memory. */
static held_t *hold(completion_transport_t *self, const char *data, size_t size, uint32_t flags) {
  aloop_t *loop = self->transport.object.loop;
  aloop__completion_net_t *state = aloop__completion_net(loop);
  bool copied = !stays(state, size);
  held_t *held = aloop__memory_new(loop, sizeof *held + (copied ? size : 0));
  if (held == NULL) return NULL;
  *held = (held_t){.data = data, .size = size, .flags = flags, .copied = copied};
  if (copied)
    held->data = memcpy(held + 1, data, size);
  else
    state->held_pieces++;
  held_t **last = &self->held;
  while (*last != NULL) last = &(*last)->next;
  *last = held;
  return held;
}

static held_t *take_first(completion_transport_t *self) {
  held_t *first = self->held;
  self->held = first->next;
  return first;
}

static void put_back(completion_transport_t *self, held_t *first) {
  first->next = self->held;
  self->held = first;
}

static void release(aloop_t *loop, held_t *held) {
  aloop__completion_net_t *state = aloop__completion_net(loop);
  if (!held->copied) {
    state->held_pieces--;
    aloop__completion_give_back(&state->buffers, held->flags);
  }
  aloop__memory_release(loop, held);
}

static void drop_held(aloop_t *loop, completion_transport_t *self) {
  while (self->held != NULL) release(loop, take_first(self));
}

/* A piece for a buffered protocol. Returns how many bytes it took; 0: it wants none, or has become another one.
 */
static size_t deliver_piece(aloop_transport_t *transport, aloop__net_t *net, const char *data, size_t size) {
  void *buffer;
  size_t room;
  int rc = aloop__stream_get_buffer(transport, &buffer, &room);
  if (rc < 0) aloop__stream_end(transport, rc);
  if (rc <= 0) return 0;
  size_t n = size < room ? size : room;
  memcpy(buffer, data, n);
  aloop__stream_received(transport, &net->cork, buffer, n, aloop__readiness_socket_send);
  return n;
}

/* The rest of deliver, for a buffered protocol. */
static ALOOP_NOINLINE size_t deliver_pieces(aloop_transport_t *transport, aloop__net_t *net, const char *data,
                                            size_t size) {
  size_t taken = 0;
  for (int calls = 0; calls < PIECES && taken < size && aloop__stream_wants_read(transport); calls++) {
    if (transport->table->get_buffer == NULL) {
      aloop__stream_received(transport, &net->cork, data + taken, size - taken, aloop__readiness_socket_send);
      return size;
    }
    taken += deliver_piece(transport, net, data + taken, size - taken);
    if (transport->object.loop->stop_error != 0) break;
  }
  return taken;
}

/* Hands bytes to the protocol, which may change or stop wanting them meanwhile. Returns how many it took. */
static inline size_t deliver(aloop_transport_t *transport, const char *data, size_t size) {
  aloop__net_t *net = aloop__net_of(transport->object.loop);
  if (ALOOP_UNLIKELY(transport->table->get_buffer != NULL)) return deliver_pieces(transport, net, data, size);
  aloop__stream_received(transport, &net->cork, data, size, aloop__readiness_socket_send);
  return size;
}

/* A buffered protocol is asked for memory first, as by the readiness driver: it may find that it wants nothing
 * now (TLS, while its own reader rests). Then the end waits. */
static void deliver_end(aloop_transport_t *transport, int end) {
  void *buffer;
  size_t room;
  int rc = transport->table->get_buffer != NULL ? aloop__stream_get_buffer(transport, &buffer, &room) : 1;
  if (rc < 0) aloop__stream_end(transport, rc);
  if (rc <= 0) return;
  if (end == ALOOP_EOF)
    aloop__stream_received_eof(transport);
  else
    aloop__stream_end(transport, end);
}

/* The pieces that a protocol with tiny buffers left over, or a pause. The bytes stay during the call, even if
 * the transport ends in it. */
static void deliver_pieces_held(completion_transport_t *self) {
  aloop_transport_t *transport = &self->transport;
  const aloop_t *loop = transport->object.loop;
  while (self->held != NULL && aloop__stream_wants_read(transport) && loop->stop_error == 0) {
    held_t *first = take_first(self);
    size_t taken = deliver(transport, first->data, first->size);
    first->data += taken;
    first->size -= taken;
    if (first->size > 0 && transport->object.state < ALOOP__ENDING) {
      put_back(self, first);
      return;
    }
    release(transport->object.loop, first);
  }
}

static bool has_held(const completion_transport_t *self) {
  return (self->held != NULL || self->end != 0) && aloop__stream_wants_read(&self->transport);
}

static void deliver_held(completion_transport_t *self) {
  aloop_transport_t *transport = &self->transport;
  deliver_pieces_held(self);
  if (has_held(self) && self->held == NULL && transport->object.loop->stop_error == 0)
    deliver_end(transport, self->end);
}

static void stop_waiting(aloop_t *loop, completion_transport_t *self) {
  aloop__completion_net_t *state = aloop__completion_net(loop);
  if (!self->waiting) return;
  size_t i = 0;
  while (state->waiting[i] != &self->transport) i++;
  state->waiting[i] = NULL;
  self->waiting = false;
}

static int start_waiting(aloop_t *loop, completion_transport_t *self) {
  aloop__completion_net_t *state = aloop__completion_net(loop);
  if (state->waiting_count == state->waiting_room) {
    size_t room = state->waiting_room != 0 ? state->waiting_room * 2 : 8;
    void *grown = aloop__memory_resize(loop, state->waiting, room * sizeof(aloop_transport_t *));
    if (grown == NULL) return ALOOP_ENOMEM;
    state->waiting = grown;
    state->waiting_room = room;
  }
  state->waiting[state->waiting_count++] = &self->transport;
  self->waiting = true;
  return 0;
}

/* Those who have gone leave gaps; a list that is empty needs no memory. */
static void close_gaps(aloop_t *loop, aloop__completion_net_t *state) {
  size_t count = 0;
  for (size_t i = 0; i < state->waiting_count; i++)
    if (state->waiting[i] != NULL) state->waiting[count++] = state->waiting[i];
  state->waiting_count = count;
  if (count > 0) return;
  aloop__memory_release(loop, state->waiting);
  state->waiting = NULL;
  state->waiting_room = 0;
}

/* Its place is free for it if something is left over. */
static void deliver_waiting(aloop_t *loop, aloop__completion_net_t *state, size_t place) {
  completion_transport_t *self = of(state->waiting[place]);
  state->waiting[place] = NULL;
  self->waiting = false;
  aloop__map_clear(loop, &loop->context);
  aloop__stream_enter_context(loop, &self->transport);
  deliver_held(self);
  if (has_held(self) && !self->waiting) {
    state->waiting[place] = &self->transport;
    self->waiting = true;
  } else if (self->relayed) {
    aloop__stream_update_reading(&self->transport);
  }
}

/* Everybody once; what is left over waits for the next turn. */
static void deliver_all(aloop_t *loop, void *arg) {
  aloop__completion_net_t *state = arg;
  size_t count = state->waiting_count;
  state->delivering = false;
  for (size_t i = 0; i < count && loop->stop_error == 0; i++)
    if (state->waiting[i] != NULL) deliver_waiting(loop, state, i);
  close_gaps(loop, state);
  if (state->waiting_count == 0 || state->delivering) return;
  state->delivering = aloop__ready_push(loop, deliver_all, state);
  for (size_t i = 0; !state->delivering && i < state->waiting_count; i++)
    if (state->waiting[i] != NULL) aloop__stream_end(state->waiting[i], ALOOP_ENOMEM);
}

/* In the next turn, if there is anything to deliver. */
static int deliver_soon(aloop_t *loop, completion_transport_t *self) {
  aloop__completion_net_t *state = aloop__completion_net(loop);
  if (self->waiting || !has_held(self)) return 0;
  if (!state->delivering) state->delivering = aloop__ready_push(loop, deliver_all, state);
  return state->delivering ? start_waiting(loop, self) : ALOOP_ENOMEM;
}

/* From here on the readiness driver reads, if nothing of ours is left; the last of it leads here again. */
static int leave(aloop_t *loop, completion_transport_t *self) {
  receive_no_more(loop, self);
  if (self->asked || self->held != NULL) return 0;
  stop_waiting(loop, self);
  aloop__readiness_take_over(&self->transport);
  return aloop__readiness_read(&self->transport, true);
}

static void relayed(aloop_transport_t *transport) {
  of(transport)->relayed = true;
}

/* A receive that was cancelled has to end before the next one is asked for; its last completion leads here. */
static int read_on(aloop_transport_t *transport, bool on) {
  completion_transport_t *self = of(transport);
  aloop_t *loop = transport->object.loop;
  if (!on) {
    receive_no_more(loop, self);
    return 0;
  }
  int rc = deliver_soon(loop, self);
  if (rc < 0 || self->end != 0) return rc;
  if (ALOOP_UNLIKELY(self->relayed)) return leave(loop, self);
  return self->asked ? 0 : receive(loop, self);
}

/* Returns whether the piece is needed still. */
static bool arrived(completion_transport_t *self, const char *data, size_t size, uint32_t flags, bool keep) {
  aloop_transport_t *transport = &self->transport;
  bool wanted = !keep && self->held == NULL && aloop__stream_wants_read(transport);
  size_t taken = wanted ? deliver(transport, data, size) : 0;
  if (taken == size || transport->object.state >= ALOOP__ENDING) return false;
  held_t *held = hold(self, data + taken, size - taken, flags);
  if (held == NULL) aloop__stream_end(transport, ALOOP_ENOMEM);
  return held != NULL && !held->copied;
}

/* There was no buffer for what is in the socket. Nobody may ask for a receive while that is read, or bytes
 * could change places. */
static void receive_at_once(aloop_t *loop, completion_transport_t *self) {
  aloop__completion_buffers_short(&aloop__completion_net(loop)->buffers);
  if (self->held != NULL || self->relayed || !aloop__stream_wants_read(&self->transport)) return;
  self->asked = true;
  aloop__readiness_socket_readable(loop, &self->transport.watch);
  self->asked = self->cancelled = false;
}

/* The end of what arrives, or nothing that matters: the receive was cancelled, or there was no buffer. */
static void ended(completion_transport_t *self, int result, bool keep) {
  if (result == -ENOBUFS) {
    if (!keep) receive_at_once(self->transport.object.loop, self);
    return;
  }
  if (result == -ECANCELED || (result < 0 && aloop__readiness_is_retry(-result))) return;
  self->end = result == 0 ? ALOOP_EOF : result;
  if (!keep && self->held == NULL && aloop__stream_wants_read(&self->transport))
    deliver_end(&self->transport, self->end);
}

/* Returns whether the bytes are needed still. */
static bool received_by(aloop_t *loop, completion_transport_t *self, const aloop__ring_done_t *completion,
                        const char *data, bool keep) {
  aloop_transport_t *transport = &self->transport;
  bool needed = false;
  if (ALOOP_UNLIKELY((completion->flags & IORING_CQE_F_MORE) == 0)) self->asked = self->cancelled = false;
  aloop__stream_enter_context(loop, transport);
  if (ALOOP_LIKELY(completion->result > 0))
    needed = arrived(self, data, (size_t)completion->result, completion->flags, keep);
  else
    ended(self, completion->result, keep);
  bool idle = !self->asked || self->held != NULL;
  if (ALOOP_UNLIKELY(idle) && !keep && aloop__stream_wants_read(transport)) {
    int rc = read_on(transport, true);
    if (rc < 0) aloop__stream_end(transport, rc);
  }
  return needed;
}

static void received(aloop_t *loop, const aloop__ring_done_t *completion, bool keep) {
  aloop__watch_t *watch = aloop__completion_watch(loop, completion->name);
  aloop__completion_buffers_t *buffers = &aloop__completion_net(loop)->buffers;
  const char *data = NULL;
  bool needed = false;
  if (ALOOP_LIKELY(aloop__completion_has_piece(buffers, completion)))
    data = aloop__completion_take(buffers, completion, loop->polls);
  if (ALOOP_LIKELY(watch != NULL)) {
    aloop_transport_t *transport = ALOOP_CONTAINER_OF(watch, aloop_transport_t, watch);
    needed = received_by(loop, of(transport), completion, data, keep);
  }
  if (ALOOP_LIKELY(data != NULL) && ALOOP_LIKELY(!needed))
    aloop__completion_give_back(buffers, completion->flags);
}

/* ---- Completions ----------------------------------------------------------------------------------------- */

static void completed(aloop_t *loop, void *arg) {
  const aloop_poll_event_t *event = arg;
  aloop__ring_done_t completion = aloop__uring_take(loop->poller_state, event->token);
  if (ALOOP_LIKELY(aloop__ring_kind(completion.name) == ALOOP__COMPLETION_RECEIVE))
    received(loop, &completion, false);
  else if (aloop__ring_kind(completion.name) == ALOOP__COMPLETION_ACCEPT)
    aloop__completion_accepted(loop, &completion, false);
  else if (aloop__ring_kind(completion.name) == ALOOP__COMPLETION_DATAGRAM)
    aloop__completion_datagram(loop, &completion, event->token);
}

/* ---- Attaching ------------------------------------------------------------------------------------------- */

/* What arrives does not come through the poller. */
static void never(aloop_t *loop, void *watch) {
  (void)loop, (void)watch;
}

static const aloop__watch_ops_t stream_ops = {
    .name = "transport", .readable = never, .writable = aloop__readiness_socket_writable};

static int attach(aloop_transport_t *transport) {
  if (transport->watch.fd >= 1 << ALOOP__COMPLETION_FD_BITS) return ALOOP_EMFILE;
  return aloop__readiness_attach(transport, &stream_ops);
}

static void detach(aloop_transport_t *transport) {
  completion_transport_t *self = of(transport);
  aloop_t *loop = transport->object.loop;
  if (!aloop__watch_is_claimed(&transport->watch)) return;
  receive_no_more(loop, self);
  stop_waiting(loop, self);
  drop_held(loop, self);
  aloop__readiness_detach(transport);
}

const aloop__driver_t aloop__driver_completion = {
    .name = "completion",
    .transport_size = sizeof(completion_transport_t),
    .adopt = aloop__readiness_adopt,
    .give_back = aloop__readiness_give_back,
    .close = aloop__readiness_close,
    .attach = attach,
    .detach = detach,
    .read = read_on,
    .send = aloop__readiness_socket_send,
    .flush = aloop__readiness_flush,
    .send_eof = aloop__readiness_send_eof,
    .sendfile = aloop__readiness_socket_sendfile,
    .await_room = aloop__readiness_flush,
    .relayed = relayed,
    .listen = aloop__completion_listen,
    .forget = aloop__completion_forget,
    .receive = aloop__completion_receive,
};

/* ---- Per loop -------------------------------------------------------------------------------------------- */

/* Multishot receive has no probe of its own; zero-copy send came with it (6.0) and has. */
static bool is_new_enough(const aloop__ring_t *ring) {
  enum { OPS = IORING_OP_SEND_ZC + 1 };
  union {
    struct io_uring_probe probe;
    char room[sizeof(struct io_uring_probe) + OPS * sizeof(struct io_uring_probe_op)];
  } answer;
  memset(&answer, 0, sizeof answer);
  if (aloop__ring_forbids(ALOOP__RING_NO_DRIVER)) return false;
  /* Without deferred work bytes may arrive while the ring changes threads; only a host has no choice. */
  if (!ring->defers && !ring->hosted) return false;
  if (syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_PROBE, &answer, OPS) < 0) return false;
  return answer.probe.last_op >= IORING_OP_SEND_ZC;
}

/* The poller is about to be opened anew. What the ring has finished is kept for later. */
static void leaving(aloop_t *loop) {
  aloop__ring_hand_over(aloop__completion_of(loop)); /* fails harmlessly in another thread than the ring's */
  aloop__ring_done_t completion;
  while (aloop__uring_take_next(loop->poller_state, &completion)) {
    if (aloop__ring_kind(completion.name) == ALOOP__COMPLETION_RECEIVE) received(loop, &completion, true);
    if (aloop__ring_kind(completion.name) == ALOOP__COMPLETION_ACCEPT)
      aloop__completion_accepted(loop, &completion, true);
    if (aloop__ring_kind(completion.name) == ALOOP__COMPLETION_DATAGRAM)
      aloop__completion_datagram_keep(loop, &completion);
  }
}

/* The requests of one transport, made again. */
static int ask_again(aloop_transport_t *transport) {
  completion_transport_t *self = of(transport);
  self->asked = self->cancelled = false;
  return aloop__stream_wants_read(transport) ? read_on(transport, true) : 0;
}

static int moved(aloop_t *loop, void *poller_state) {
  aloop__completion_net_t *state = aloop__completion_net(loop);
  void *old = loop->poller_state;
  loop->poller_state = poller_state;
  int rc = aloop__completion_buffers_move(&state->buffers, aloop__completion_of(loop));
  if (rc == 0) rc = aloop__completion_datagrams_move(loop);
  for (int fd = 0; fd < loop->watches_size && rc == 0; fd++) {
    aloop__watch_t *watch = loop->watches[fd];
    if (watch == NULL) continue;
    if (watch->ops == &stream_ops) rc = ask_again(ALOOP_CONTAINER_OF(watch, aloop_transport_t, watch));
    aloop_datagram_t *endpoint = aloop__datagram_of(watch);
    if (endpoint != NULL) rc = aloop__completion_receive_again(endpoint);
    if (aloop__completion_is_listener(watch)) rc = aloop__completion_listen_again(loop, watch);
  }
  loop->poller_state = old;
  return rc;
}

static const aloop__requests_t requests = {.completed = completed, .leaving = leaving, .moved = moved};

static int open_buffers(aloop__completion_buffers_t *buffers, const aloop__ring_t *ring) {
  static const aloop__completion_shape_t shared = {
      .count = 8, .least = 4, .weight = 4, .size = 65536, .in_pieces = true};
  static const aloop__completion_shape_t whole = {.count = 256, .least = 16, .weight = 4, .size = 16384};
  int rc = aloop__completion_buffers_open(buffers, &shared, ring);
  return rc == ALOOP_ENOTSUP ? aloop__completion_buffers_open(buffers, &whole, ring) : rc;
}

int aloop__completion_open(aloop_t *loop, aloop__completion_net_t **out) {
  aloop__ring_t *ring = aloop__completion_of(loop);
  if (!is_new_enough(ring)) return ALOOP_ENOTSUP;
  aloop__completion_net_t *state = aloop__memory_zero(loop, sizeof *state);
  if (state == NULL) return ALOOP_ENOMEM;
  int rc = open_buffers(&state->buffers, ring);
  if (rc < 0) {
    aloop__memory_release(loop, state);
    return rc;
  }
  loop->requests = &requests;
  *out = state;
  return 0;
}

void aloop__completion_close(aloop_t *loop, aloop__completion_net_t *state) {
  /* The cancels: sockets that are closed shall be closed when this returns. */
  aloop__ring_hand_over(aloop__completion_of(loop));
  aloop__ring_done_t completion;
  while (aloop__uring_take_next(loop->poller_state, &completion))
    if (aloop__ring_kind(completion.name) == ALOOP__COMPLETION_ACCEPT && completion.result >= 0)
      close(completion.result);
  aloop__completion_accepts_close(loop, &state->accepts);
  aloop__completion_datagrams_close(loop, state->dgrams);
  aloop__completion_buffers_close(&state->buffers);
  aloop__memory_release(loop, state->waiting);
  aloop__memory_release(loop, state);
  loop->requests = NULL;
}

#else
typedef int aloop__completion_is_not_built; /* ISO C wants a declaration in every file */
#endif
