/* SPDX-License-Identifier: MIT
 *
 * The stream transport as the other files of the room see it: its states, what the I/O driver below it calls,
 * and what servers and connects above it call. See stream.c for the story.
 */
#ifndef ALOOP_NET_STREAM_H
#define ALOOP_NET_STREAM_H

#include "aloop.h"
#include "core/loop.h"
#include "net/outbox.h"

/* A transport only ever moves down this list. */
typedef enum aloop__stream_state {
  ALOOP__OPENING, /* connection_made is queued */
  ALOOP__OPEN,
  ALOOP__CLOSING, /* close was called; unsent bytes are on their way */
  ALOOP__ENDING,  /* no more I/O; connection_lost is queued */
  ALOOP__LOST     /* connection_lost was called, the descriptor is closed */
} aloop__stream_state_t;

/* Independent facts beside the state. */
enum {
  ALOOP__PAUSED = 1,        /* reading, by the user */
  ALOOP__EOF_RECEIVED = 2,  /* the peer sends no more */
  ALOOP__EOF_WANTED = 4,    /* write_eof was called */
  ALOOP__EOF_SENT = 8,      /* ... and the write side is shut down */
  ALOOP__WRITE_PAUSED = 16, /* pause_writing was called, resume_writing was not yet */
  ALOOP__RESET = 32,        /* close with RST */
  ALOOP__MADE = 64,         /* connection_made was called */
  ALOOP__MADE_DUE = 128,    /* could not be queued for want of memory */
  ALOOP__LOST_DUE = 256,
  ALOOP__SENDFILE = 512,  /* a sendfile owns the write side; reading rests */
  ALOOP__UNUSUAL = 1024,  /* to read from: extras, or a protocol that has a buffer or no data_received */
  ALOOP__EXTRAS = 4096,   /* `extras` is there */
  ALOOP__BORROWED = 8192, /* the descriptor is a caller's until connection_made */
  ALOOP__NO_READ = 16384, /* one direction only: a pipe's write end */
  ALOOP__NO_WRITE = 32768,
  ALOOP__SHUT = 2048,  /* closing or later, or a carrier: in a bit, for the one test that each write makes */
  ALOOP__HELD = 65536, /* not read from: the other side of a relay is full */
  ALOOP__MESSAGES = 131072,   /* each write is a message of its own: never joined, cut or corked */
  ALOOP__PIPED = 262144,      /* bytes for it wait in a relay's pipe */
  ALOOP__SECRET = 524288,     /* unsent bytes are cleared when they have gone */
  ALOOP__AWAITED = 4194304,   /* the transport above waits for room in the socket */
  ALOOP__ANNOUNCED = 1048576, /* connection_made was queued */
  /* It belongs to the transport above it, which is its protocol until that has gone: public calls answer
   * ALOOP_ECLOSED. */
  ALOOP__CARRIER = 2097152
};

typedef struct aloop__sendfile aloop__sendfile_t;
typedef struct aloop__relay aloop__relay_t;
typedef struct aloop__driver aloop__driver_t;
struct aloop__layer;
struct aloop__net;

/* What most connections never need: made on first use. */
typedef struct aloop__stream_extras {
  aloop__map_t *context;         /* a reference, or NULL */
  int64_t idle, read, write;     /* timeouts in ns, 0: off */
  int64_t last_read, last_write; /* when bytes last moved */
  aloop_handle_t timer;
  size_t cap;
  aloop__sendfile_t *sendfile;
  aloop__relay_t *relay;
  socklen_t peer_size; /* 0: not asked yet */
  struct sockaddr_storage peer;
} aloop__stream_extras_t;

/* There are many, so they are kept small: 136 bytes, and what each message touches comes first: with many
 * connections it is cache misses that they cost. */
struct aloop_transport {
  aloop__watch_t watch; /* the readiness driver's; its fd is the transport's in any case */
  uint32_t flags;
  int error;
  const aloop_protocol_t *table;
  void *protocol; /* before connection_made: the factory's argument */
  aloop__outbox_t outbox;
  aloop__stream_extras_t *extras;
  aloop__object_t object; /* its state is an aloop__stream_state_t */
  const aloop__driver_t *driver;
  aloop_server_t *server;
  aloop_future_t *waiter; /* of the connect, until connection_made */
  uint32_t high, low;
};

/* Makes a transport for a connected non-blocking socket (a NULL driver: the loop's own) or what else the driver
 * serves, with one reference that belongs to the loop until connection_lost, and queues connection_made.
 * `waiter` (a reference that moves in, or NULL) is then done with the transport; if it is done by then because
 * it was cancelled, the connection is dropped without a call to the protocol. `server` is counted up; NULL:
 * none. NULL: out of memory; fd and waiter stay the caller's. */
aloop_transport_t *aloop__stream_new(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                     const aloop_protocol_t *table, void *arg, aloop_server_t *server,
                                     aloop_future_t *waiter, const char *origin);

/* The same for a future that is an operation and ends with the transport; cancelling it takes the descriptor
 * from the loop at once. NULL: out of memory, and nothing has changed. */
aloop_transport_t *aloop__stream_hand_over(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                           const aloop_protocol_t *table, void *arg, aloop_future_t *future,
                                           const struct aloop__layer *layer, const char *origin);

/* At the end of the loop's network. */
void aloop__stream_close_spares(aloop_t *loop, struct aloop__net *net);

/* The one with the descriptor: the transport itself, or the one at the bottom of what lies beneath. */
aloop_transport_t *aloop__stream_bottom(aloop_transport_t *transport);

/* connect.c: a transport over a caller's connected descriptor, which is not touched before connection_made. A
 * NULL driver: that of its kind. */
aloop_future_t *aloop__connect_fd(aloop_t *loop, const aloop__driver_t *driver, const aloop_protocol_t *table,
                                  void *arg, int fd, const struct aloop__layer *layer, const char *origin);

/* 0, or ALOOP_EINVAL for a table that cannot be used. */
int aloop__stream_check_protocol(const aloop_protocol_t *table);

/* Whether a descriptor of the caller's can be used: an open socket of the driver's type that nobody watches in
 * this loop. Returns 0, or a code with a reason in words. */
int aloop__stream_check_descriptor(const aloop_t *loop, const aloop__driver_t *driver, int fd,
                                   const char **reason);

/* No delay for small writes (TCP_NODELAY); without effect on other sockets. */
void aloop__stream_set_nodelay(int fd);

/* ---- For a transport over another (layer.h) ---- */

/* aloop__stream_new in two steps, for one whose connection_made comes later, or never: end it as any other.
 * Before the second step it can be discarded as if it had never been. */
aloop_transport_t *aloop__stream_prepare(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                         const aloop_protocol_t *table, void *arg, const char *origin);
void aloop__stream_discard(aloop_transport_t *transport);
void aloop__stream_announce(aloop_transport_t *transport);

/* aloop__stream_end in two steps: everything but connection_lost (false: it has ended before), and what comes
 * then, from the ready deque only. */
bool aloop__stream_stop(aloop_transport_t *transport, int error);
void aloop__stream_finish(aloop_transport_t *transport);

/* Ends the future of whoever waits for connection_made, if anybody does. */
void aloop__stream_fail_waiter(aloop_transport_t *transport, int error, const char *message);

/* aloop_transport_close, of a carrier too. */
void aloop__stream_close(aloop_transport_t *transport);

/* ---- Called by the I/O driver ---- */

/* A buffered protocol's own memory to read to. Returns 1, 0 if it does not want to read any more, or a code,
 * which ends the connection. */
int aloop__stream_get_buffer(aloop_transport_t *transport, void **buffer, size_t *size);

/* aloop__stream_received (write.h): `size` > 0 bytes arrived there. */
void aloop__stream_received_eof(aloop_transport_t *transport);

/* The first `size` bytes of the outbox were sent. */
void aloop__stream_sent(aloop_transport_t *transport, size_t size);

/* The one exit: no more I/O from here on; connection_lost(error) is queued. Later calls do nothing. */
void aloop__stream_end(aloop_transport_t *transport, int error);

/* The same when the user wants it: what he wrote before is tried first (a row of writes, write.c). */
void aloop__stream_end_by_user(aloop_transport_t *transport, int error);

/* The context of its callbacks, or NULL. */
static inline aloop__map_t *aloop__stream_context(const aloop_transport_t *transport) {
  return transport->extras != NULL ? transport->extras->context : NULL;
}

/* A callback of the library for this transport begins: what runs in it has its context. */
static inline void aloop__stream_enter_context(aloop_t *loop, const aloop_transport_t *transport) {
  if (ALOOP_UNLIKELY(transport->extras != NULL)) loop->context = aloop__map_ref(transport->extras->context);
}

/* Who hears of what happens. */
static inline void aloop__stream_set_table(aloop_transport_t *transport, const aloop_protocol_t *table,
                                           void *protocol) {
  bool usual = table->get_buffer == NULL && table->data_received != NULL && transport->extras == NULL;
  transport->table = table;
  transport->protocol = protocol;
  transport->flags = (transport->flags & ~(uint32_t)ALOOP__UNUSUAL) | (usual ? 0 : ALOOP__UNUSUAL);
}

/* Whether bytes may be delivered now. */
static inline bool aloop__stream_wants_read(const aloop_transport_t *transport) {
  return transport->object.state == ALOOP__OPEN &&
         (transport->flags & (ALOOP__PAUSED | ALOOP__EOF_RECEIVED | ALOOP__SENDFILE | ALOOP__NO_READ |
                              ALOOP__HELD | ALOOP__MADE)) == ALOOP__MADE;
}

/* ---- Shared by the files of this room ---- */

/* What public calls on a transport begin with: 0, ALOOP_EINVAL for NULL, ALOOP_ENOTLOOPTHREAD, or ALOOP_ECLOSED
 * for one that carries another. */
int aloop__stream_refuse(const aloop_transport_t *transport);

static inline int aloop__stream_enter(const aloop_transport_t *transport) {
  bool usual = ALOOP_LIKELY(transport != NULL) &&
               ALOOP_LIKELY((transport->object.loop->guard | (transport->flags & ALOOP__CARRIER)) == 0);
  return usual ? 0 : aloop__stream_refuse(transport);
}

/* Reads or not, as aloop__stream_wants_read says. A failure ends the connection. */
void aloop__stream_tell_reading(aloop_transport_t *transport);
static inline void aloop__stream_update_reading(aloop_transport_t *transport) {
  if (transport->object.state < ALOOP__ENDING) aloop__stream_tell_reading(transport);
}

/* Sends or buffers bytes without the checks of a public write. */
void aloop__stream_put(aloop_transport_t *transport, const struct iovec *iov, int count);

/* The outbox is empty: sends EOF, ends, or goes on with a sendfile, whichever is due. */
void aloop__stream_drained(aloop_transport_t *transport);

/* The socket takes bytes again, and the outbox has none: goes on with a sendfile, or tells the transport
 * above. */
void aloop__stream_room(aloop_transport_t *transport);

/* The extras, made if need be; NULL: out of memory. */
aloop__stream_extras_t *aloop__stream_extras(aloop_transport_t *transport);

/* The context of its callbacks; NULL: none. ALOOP_ENOMEM only with a context and without extras. */
int aloop__stream_set_context(aloop_transport_t *transport, aloop__map_t *context);

/* Bytes moved, here or beneath: timeouts count anew. To be called where there are extras. */
void aloop__stream_touch(aloop_transport_t *transport, bool in, bool out);
void aloop__stream_stop_timeouts(aloop_transport_t *transport);

/* sendfile.c: the socket takes bytes again; the connection ended under it. */
void aloop__sendfile_go_on(aloop_transport_t *transport);
void aloop__sendfile_lost(aloop_transport_t *transport, int error);

/* In the child of a fork: the parent goes on with it. */
void aloop__sendfile_forked(aloop_transport_t *transport);

/* server.c: a connection of this server is lost. Gives the reference of aloop__stream_new back. */
void aloop__server_client_lost(aloop_server_t *server);

#endif
