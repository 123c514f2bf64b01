/* SPDX-License-Identifier: MIT
 *
 * A datagram endpoint, as the files that make it up see it: datagram.c (its life), dgram_receive.c,
 * dgram_send.c, and endpoint.c, which opens one.
 */
#ifndef ALOOP_NET_DATAGRAM_H
#define ALOOP_NET_DATAGRAM_H

#include "aloop.h"
#include "core/loop.h"
#include "net/control.h"
#include "net/driver.h"
#include "net/mmsg.h"
#include "net/unix.h"

enum {
  ALOOP__DGRAM_BATCH = 32,        /* datagrams in one system call */
  ALOOP__DGRAM_SLOT = 65536 + 128 /* room for one: more than UDP can have; the rest keeps the beginnings of
                                   * slots out of each other's cache lines */
};

/* Independent facts beside the state, which is one of a stream's (stream.h). */
enum {
  ALOOP__DGRAM_MADE = 1,          /* connection_made was called */
  ALOOP__DGRAM_MADE_DUE = 2,      /* could not be queued for want of memory */
  ALOOP__DGRAM_LOST_DUE = 4,      /* ... connection_lost */
  ALOOP__DGRAM_BORROWED = 8,      /* the descriptor is a caller's until connection_made */
  ALOOP__DGRAM_WRITE_PAUSED = 16, /* pause_writing was called, resume_writing was not yet */
  ALOOP__DGRAM_CORKED = 32,       /* received datagrams are being delivered */
  ALOOP__DGRAM_CONNECTED = 64,    /* the kernel knows `peer` */
  ALOOP__DGRAM_WANT_LOCAL = 512,  /* messages say where they came to */
  ALOOP__DGRAM_WANT_ECN = 1024,
  ALOOP__DGRAM_WANT_SEGMENTS = 256, /* several datagrams of one sender may come as one message */
  ALOOP__DGRAM_LOCAL = 128,         /* a Unix socket: datagrams may be larger than a slot */
  ALOOP__DGRAM_ASKED = 2048         /* the completion driver's: a receive is in the kernel */
};

/* One that waits to be sent; what its message points to lies behind it. */
typedef struct aloop__dgram {
  struct aloop__dgram *next;
  aloop_message_t message;
} aloop__dgram_t;

struct aloop_datagram {
  aloop__object_t object;
  aloop__watch_t watch;
  const aloop_datagram_protocol_t *table;
  void *protocol;         /* before connection_made: the factory's argument */
  aloop_future_t *waiter; /* of create_datagram_endpoint, until connection_made */
  aloop__map_t *context;
  aloop__unix_file_t *file; /* of a Unix socket that we have bound; NULL: none */
  aloop__dgram_t *first, *last;
  size_t unsent; /* bytes that wait, each datagram counted as at least one */
  size_t cap;
  uint32_t high, low;
  int fd;
  int error;
  uint16_t state;
  uint16_t flags;
  uint16_t ask;        /* how many datagrams the next receive asks for */
  uint16_t singles;    /* so many turns in a row brought one */
  uint16_t cut_max;    /* the largest segments that the kernel cuts messages into; 0: it cuts none */
  uint16_t port;       /* of the socket, if local addresses are wanted; in network order */
  socklen_t peer_size; /* 0: each datagram has an address of its own */
  struct sockaddr_storage peer;
};

/* What all endpoints of a loop share; made with the first. */
typedef struct aloop__dgrams {
  aloop__mmsg_t in[ALOOP__DGRAM_BATCH];
  struct iovec in_parts[ALOOP__DGRAM_BATCH];
  struct sockaddr_storage from[ALOOP__DGRAM_BATCH];
  struct sockaddr_storage locals[ALOOP__DGRAM_BATCH];
  aloop__control_t controls[ALOOP__DGRAM_BATCH];
  aloop_message_t messages[ALOOP__DGRAM_BATCH];
  unsigned in_count; /* so many of `in` are laid out for such slots, ready to be received into; 0: none */
  bool in_controls;
  size_t in_slot;
  char *buffer;       /* ALOOP__DGRAM_BATCH slots; where nothing is received its pages are never touched */
  const char *memory; /* what is being delivered lies somewhere here */
  size_t memory_size;

  /* Sends made while received datagrams are delivered; small ones are copied to the network's cork buffer. */
  unsigned out_count;
  uint32_t out_used; /* of the cork buffer */
  size_t out_size;   /* as `unsent` */
  aloop_message_t out[ALOOP__DGRAM_BATCH];
  struct sockaddr_storage to[ALOOP__DGRAM_BATCH];
} aloop__dgrams_t;

/* ---- datagram.c ------------------------------------------------------------------------------------------ */

/* 0, or ALOOP_EINVAL for a table that cannot be used. */
int aloop__datagram_check_protocol(const aloop_datagram_protocol_t *table);

/* Makes an endpoint for a datagram socket, non-blocking unless `flags` has BORROWED, and hands the future over
 * to it, an operation that ends when connection_made was called. `peer` (may be NULL) is where datagrams
 * without an address go. NULL: out of memory, and nothing has changed. */
aloop_datagram_t *aloop__datagram_new(aloop_t *loop, int fd, uint16_t flags, const struct sockaddr *peer,
                                      socklen_t peer_size, const aloop_datagram_protocol_t *table, void *arg,
                                      aloop_future_t *future, const char *origin);

/* The one exit, as aloop__stream_end. */
void aloop__datagram_end(aloop_datagram_t *endpoint, int error);

/* Tells the protocol of an error that is no end. */
void aloop__datagram_report(aloop_datagram_t *endpoint, int error);

/* Watches one direction, or no more. A failure is returned, nothing else happens. */
int aloop__datagram_watch(aloop_datagram_t *endpoint, uint32_t direction, bool on);

/* Whose watch it is; NULL: no endpoint's. */
aloop_datagram_t *aloop__datagram_of(aloop__watch_t *watch);

int aloop__datagram_refuse(const aloop_datagram_t *endpoint);

/* What public calls begin with: 0, ALOOP_EINVAL for NULL, or ALOOP_ENOTLOOPTHREAD. */
static inline int aloop__datagram_enter(const aloop_datagram_t *endpoint) {
  bool usual = ALOOP_LIKELY(endpoint != NULL) && ALOOP_LIKELY(endpoint->object.loop->guard == 0);
  return usual ? 0 : aloop__datagram_refuse(endpoint);
}

/* ---- dgram_receive.c ------------------------------------------------------------------------------------- */

/* For what the poller has told of it. */
static inline void aloop__datagram_enter_context(aloop_t *loop, const aloop_datagram_t *endpoint) {
  if (ALOOP_UNLIKELY(endpoint->context != NULL)) loop->context = aloop__map_ref(endpoint->context);
}

/* The descriptor is readable: receives and delivers. */
void aloop__dgram_readable(aloop_datagram_t *endpoint);

/* The same, whether it is or not; only half as many calls, because others have brought something before. */
void aloop__dgram_receive_some(aloop_datagram_t *endpoint);

/* Delivers so many datagrams, which are described in `in` and `in_parts` and lie in `memory`. */
void aloop__dgram_deliver(aloop_datagram_t *endpoint, int count, const char *memory, size_t size);

/* Delivers one without extras, which is whole, without a detour. */
void aloop__dgram_deliver_one(aloop_datagram_t *endpoint, const aloop_message_t *message, const char *memory,
                              size_t size);

/* A receive has failed. */
void aloop__dgram_failed(aloop_datagram_t *endpoint, int error);

static inline bool aloop__dgram_wants_controls(const aloop_datagram_t *endpoint) {
  enum { ANY = ALOOP__DGRAM_WANT_LOCAL | ALOOP__DGRAM_WANT_ECN | ALOOP__DGRAM_WANT_SEGMENTS };
  return (endpoint->flags & ANY) != 0;
}

/* What endpoints share. NULL: out of memory. */
aloop__dgrams_t *aloop__dgrams_open(aloop_t *loop);
void aloop__dgrams_close(aloop_t *loop, aloop__dgrams_t *dgrams);

static inline aloop__dgrams_t *aloop__dgrams_of(const aloop_t *loop) {
  return aloop__net_of(loop)->dgrams;
}

/* ---- dgram_send.c ---------------------------------------------------------------------------------------- */

/* The descriptor is writable: sends what waits. */
void aloop__dgram_writable(aloop_datagram_t *endpoint);

/* Sends what was gathered while datagrams were delivered. */
void aloop__dgram_uncork(aloop_datagram_t *endpoint);

/* The largest segments that the kernel may be asked to cut messages into; 0: it cannot. */
uint16_t aloop__dgram_cut_max(int fd);

/* In the child of a fork: the parent sends what waits. 0 or ALOOP_ENOMEM. */
int aloop__dgram_forked(aloop_datagram_t *endpoint);

/* Forgets everything that was not sent; what was gathered, if there is anything at all (NULL). */
void aloop__dgram_drop(aloop_datagram_t *endpoint);
void aloop__dgrams_forget(aloop__dgrams_t *dgrams);

#endif
