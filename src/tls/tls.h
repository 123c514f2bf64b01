/* SPDX-License-Identifier: MIT
 *
 * The TLS transport and the contexts as the files of this room see them. See tls.c for the story.
 */
#ifndef ALOOP_TLS_TLS_H
#define ALOOP_TLS_TLS_H

#include <stdatomic.h>

#include "net/driver.h"
#include "net/layer.h"

/* ---- Contexts (contexts.c) ------------------------------------------------------------------------------- */

typedef struct aloop__tls_name aloop__tls_name_t;

struct aloop_tls_context {
  const aloop__wrapper_t *wrapper; /* first: the net room knows no more than that */
  const aloop_tls_engine_t *engine;
  void *state; /* the engine's */
  atomic_uint refs;
  int role;
  int verify;
  unsigned kernel;      /* ALOOP__TLS_KERNEL...; 0: it is left alone */
  pthread_mutex_t lock; /* of names */
  aloop__tls_name_t *names;
};

/* The context for a name that a client asks for, with a reference, or NULL: the context itself. Any thread. */
aloop_tls_context_t *aloop__tls_context_for(aloop_tls_context_t *context, const char *name);

/* aloop__wrapper_t.wrap, ref, unref and fault. */
extern const aloop__wrapper_t aloop__tls_wrapper;
void aloop__tls_context_hold(aloop_tls_context_t *context);
const char *aloop__tls_context_fault(const aloop_tls_context_t *context, bool serves,
                                     const char *server_hostname);

/* ---- Transports ------------------------------------------------------------------------------------------ */

/* Only moves down this list. */
typedef enum aloop__tls_phase {
  ALOOP__TLS_WAITING, /* for the carrier's connection_made */
  ALOOP__TLS_HANDSHAKE,
  ALOOP__TLS_OPEN,
  ALOOP__TLS_SHUT, /* the end is said and the carrier closing; the transport ends when it is lost */
  ALOOP__TLS_OVER  /* nothing goes to the engine any more */
} aloop__tls_phase_t;

typedef struct aloop__tls_level aloop__tls_level_t;
typedef struct aloop__tls_queued aloop__tls_queued_t;

typedef struct aloop__tls {
  aloop_transport_t transport; /* first; its fd is the carrier's, for questions only */
  aloop_transport_t *carrier;  /* a reference; NULL once closed */
  aloop_tls_context_t *context;
  aloop_tls_context_t *chosen; /* by name, or NULL */
  void *session;               /* the engine's; NULL before the handshake and once closed */
  aloop__tls_level_t *level;   /* the shared buffers it works with */
  unsigned char *held;         /* received and not yet taken by the engine */
  size_t held_size;
  char *server_hostname;      /* until the session is made */
  char *error;                /* why TLS ended it, in words */
  aloop__tls_queued_t *queue; /* records for the kernel that are no data */
  aloop_handle_t timer;       /* of the handshake, of the shutdown */
  int64_t handshake_timeout;
  int64_t shutdown_timeout;
  size_t count;     /* bytes received in the handshake; what was unsent when the shutdown timer last looked */
  int failure;      /* of which the exception handler is to hear, or 0 */
  uint32_t answers; /* bytes that the engine has put out while it read, since the carrier is full */
  uint8_t phase;
  uint8_t depth;   /* how many TLS transports are beneath */
  uint8_t queued;  /* how many in `queue` */
  bool blocked;    /* the carrier has unsent bytes, or its socket no room: nothing is sent before it has */
  bool stalled;    /* the engine has bytes that nobody wanted yet */
  bool ended;      /* the peer has ended its stream */
  bool told;       /* we have ended ours */
  bool sent;       /* ... and had nothing else unsent then: whether it arrives is of no interest */
  bool pumping;    /* aloop__tls_pump is queued */
  bool begun;      /* connection_made is over */
  bool stopped;    /* the carrier has been stopped by us and is to be finished */
  bool wants_room; /* a sendfile waits */
  bool offered;    /* the engine was asked for keys for the kernel */
  bool kernel;     /* the kernel has them: it encrypts */
  bool unfinished; /* ... and the last record of a sendfile waits for more */
} aloop__tls_t;

extern const aloop__driver_t aloop__driver_tls;

static inline aloop__tls_t *aloop__tls_of(const aloop_transport_t *transport) {
  return (aloop__tls_t *)(void *)transport;
}

static inline const aloop_tls_engine_t *aloop__tls_engine(const aloop__tls_t *self) {
  return self->context->engine;
}

/* tls.c: the handshake goes on with what has come. */
void aloop__tls_shake(aloop__tls_t *self, aloop_tls_wire_t *wire);

/* Ends the connection for a reason in words; with NULL the engine is asked. */
void aloop__tls_fail(aloop__tls_t *self, int error, const char *reason);

/* A live transport becomes the carrier of a new one (start_tls). NULL: out of memory, nothing has changed. */
aloop_transport_t *aloop__tls_over(aloop_transport_t *carrier, const aloop_protocol_t *table, void *protocol,
                                   const aloop__layer_t *layer, aloop_future_t *waiter, const char *origin);

/* Shakes hands: from the carrier's connection_made, and start_tls. */
void aloop__tls_begin(aloop__tls_t *self);

/* ---- Bytes (tls_io.c) ------------------------------------------------------------------------------------ */

enum { ALOOP__TLS_DEPTH_MAX = 4, ALOOP__TLS_RECORD = 16384, ALOOP__TLS_HANDSHAKE_MAX = 262144 };

/* What the engine's calls are given. */
typedef struct aloop__tls_io {
  aloop_tls_wire_t wire;
  aloop__tls_t *self;
} aloop__tls_io_t;

aloop__tls_io_t aloop__tls_io_of(aloop__tls_t *self, const unsigned char *data, size_t size);

static inline aloop__tls_t *aloop__tls_of_wire(aloop_tls_wire_t *wire) {
  return ((aloop__tls_io_t *)(void *)wire)->self;
}

/* A memset that the compiler does not know to be of no use. */
void aloop__tls_clear(void *block, size_t size);

/* The buffers shared by all transports of a loop with as many TLS transports beneath; NULL: out of memory. */
aloop__tls_level_t *aloop__tls_level(aloop_t *loop, unsigned depth);

/* Where the carrier's bytes go to, and that they came: with none, the engine is just asked. */
void aloop__tls_get_buffer(aloop__tls_t *self, void **buffer, size_t *size);
void aloop__tls_received(aloop__tls_t *self, size_t size);

/* Whether bytes of the carrier are of use now. */
bool aloop__tls_wants_input(const aloop__tls_t *self);

/* Hands what the engine has put out to the carrier. */
void aloop__tls_flush(aloop__tls_t *self);

/* The carrier has sent everything. */
void aloop__tls_unblocked(aloop__tls_t *self);

/* The end of our stream. */
int aloop__tls_say_end(aloop__tls_t *self);

/* aloop__driver_t.read, send, flush, await_room. */
int aloop__tls_read(aloop_transport_t *transport, bool on);
ssize_t aloop__tls_send(aloop_transport_t *transport, const struct iovec *iov, int count);
int aloop__tls_flush_outbox(aloop_transport_t *transport);
int aloop__tls_await_room(aloop_transport_t *transport);

/* ---- Kernel TLS (tls_kernel.c) --------------------------------------------------------------------------- */

/* What the kernel may be used for, in a context. */
enum {
  ALOOP__TLS_KERNEL = 1,       /* connections of TLS 1.2 */
  ALOOP__TLS_KERNEL_KEYS = 2,  /* it can exchange keys */
  ALOOP__TLS_KERNEL_ALWAYS = 4 /* connections of TLS 1.3 */
};

/* What this kernel has: the first two, or 0. */
unsigned aloop__tls_kernel_probe(void);

/* Lets the kernel encrypt, if everybody agrees: after the handshake, and when the carrier is empty again. */
void aloop__tls_kernel_offer(aloop__tls_t *self);

/* aloop_tls_wire_t.keys, record. */
int aloop__tls_kernel_keys(aloop_tls_wire_t *wire, const aloop_tls_keys_t *keys);
int aloop__tls_kernel_record(aloop_tls_wire_t *wire, int type, const void *data, size_t size);

/* Of transports whose kernel encrypts. The socket has room: whether data may be sent now. */
bool aloop__tls_kernel_unblocked(aloop__tls_t *self);

/* Closes the carrier when everything has reached the TCP buffer. */
void aloop__tls_kernel_finish(aloop__tls_t *self);

/* What the peer has not acknowledged yet. */
size_t aloop__tls_kernel_unsent(const aloop__tls_t *self);

/* Forgets the queue. */
void aloop__tls_kernel_drop(aloop__tls_t *self);

/* The driver's calls for them. */
ssize_t aloop__tls_kernel_send(aloop__tls_t *self, const struct iovec *iov, int count);
void aloop__tls_kernel_write_outbox(aloop__tls_t *self);
int aloop__tls_kernel_flush_outbox(aloop__tls_t *self);
int aloop__tls_kernel_await_room(aloop__tls_t *self);
ssize_t aloop__tls_kernel_send_file(aloop__tls_t *self, int file, int64_t offset, int64_t count);
void aloop__tls_kernel_file_over(aloop__tls_t *self);

#endif
