/* SPDX-License-Identifier: MIT
 *
 * A stream (StreamReader and StreamWriter in one) as the files that make, read and serve such see it. The name
 * is theirs: aloop__stream_ belongs to the transports beneath.
 */
#ifndef ALOOP_TASK_DUPLEX_H
#define ALOOP_TASK_DUPLEX_H

#include "aloop.h"
#include "core/loop.h"
#include "future/future.h"
#include "task/inbox.h"
#include "task/waiters.h"

enum {
  ALOOP__DUPLEX_CONNECTED = 1, /* connection_lost is yet to come, and brings a reference back */
  ALOOP__DUPLEX_LOST = 2,      /* it came */
  ALOOP__DUPLEX_EOF = 4,       /* nothing more arrives, and nothing is wrong */
  ALOOP__DUPLEX_PAUSED = 8,    /* the transport, by us */
  ALOOP__DUPLEX_FULL = 16      /* its write buffer, between pause_writing and resume_writing */
};

/* What a read asks for. */
typedef struct aloop__read {
  aloop_future_t *future; /* while it waits */
  bool (*answer)(aloop_stream_t *stream, struct aloop__read *read);
  void *into; /* a buffer, or where the address of what is lent goes */
  size_t size;
  const char *separator;
  size_t separator_size;
} aloop__read_t;

struct aloop_stream {
  aloop__object_t object;
  aloop_transport_t *transport; /* a reference; NULL: not connected yet */
  aloop__inbox_t inbox;
  size_t offered; /* to the transport, of the inbox */
  size_t limit;
  unsigned flags;
  int error;                /* of the connection */
  aloop__read_t read;       /* future: the one that waits, or NULL */
  aloop_future_t *unread;   /* has a result that nobody has read yet; or NULL */
  aloop_future_t *upgrade;  /* start_tls under way, or NULL */
  aloop_future_t *drained;  /* of drains that need not wait, or NULL */
  aloop__waiters_t drains;  /* for the write buffer */
  aloop__waiters_t closers; /* for the end */
};

extern const aloop_protocol_t aloop__duplex_table;

/* 0 and the limit, or ALOOP_EINVAL. */
int aloop__duplex_limit(const aloop_stream_options_t *options, size_t *limit);
#define ALOOP__DUPLEX_RULE "set options.size to sizeof(aloop_stream_options_t)"

/* One that is not connected, with one reference. NULL: out of memory. */
aloop_stream_t *aloop__duplex_new(aloop_t *loop, size_t limit, const char *origin);

/* Takes over a transport whose protocol it is, or is made. */
void aloop__duplex_connect(aloop_stream_t *stream, aloop_transport_t *transport);

/* Another transport has taken the place of its own. */
void aloop__duplex_follow(aloop_stream_t *stream, aloop_transport_t *transport);

/* Leaves its transport to others: the stream is at its end. Returns how many bytes were received and not read,
 * which are valid until the next read or the end of the stream. Nothing waits to be read, and the caller holds
 * a reference. */
size_t aloop__duplex_leave(aloop_stream_t *stream, const void **data);

/* For futures whose object is a stream. */
void aloop__duplex_unref(void *stream);

/* What public calls begin with: 0, ALOOP_EINVAL for NULL, or ALOOP_ENOTLOOPTHREAD. */
int aloop__duplex_refuse(const aloop_stream_t *stream);

static inline int aloop__duplex_enter(const aloop_stream_t *stream) {
  bool usual = ALOOP_LIKELY(stream != NULL) && ALOOP_LIKELY(stream->object.loop->guard == 0);
  return usual ? 0 : aloop__duplex_refuse(stream);
}

/* ---- reading.c ------------------------------------------------------------------------------------------- */

/* Something has changed: bytes, the end, an error. Ends the read that waits, if it can. */
void aloop__reading_go_on(aloop_stream_t *stream);
void aloop__reading_fail(aloop_stream_t *stream, int error);

#endif
