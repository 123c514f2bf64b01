/* SPDX-License-Identifier: MIT
 *
 * Streams: StreamReader and StreamWriter as one object over a transport. Its life, what the transport tells
 * it, and writing; reading is in reading.c, the memory behind it in inbox.c.
 *
 * Nothing here needs a task. What waits is a future, as everywhere, and may be awaited, watched or run.
 *
 * A stream has the references of its users and, while it is the protocol of a transport, one of the
 * connection, which connection_lost gives back. When that is the only one left nobody can use the stream any
 * more, and it closes the connection, sending what was written. In its turn it holds on to the transport, so
 * that a stream whose connection is lost still answers: with what was received and not read yet, then with
 * the error of the connection or its end.
 *
 * The transport reads into the inbox directly (a buffered protocol): no copy until a reader asks for one.
 *
 * A drain waits only between pause_writing and resume_writing; most do not, and share one future that is done.
 * Whoever waits when the connection is lost hears the error; the bytes he waits for were dropped.
 *
 * What a task writes until it waits for something leaves together, in the network's cork (net/write.c), as if
 * it were an answer inside data_received: a head and a body, or the answers to all requests that came together.
 */
#include "task/duplex.h"

#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"
#include "net/stream.h"
#include "net/write.h"
#include "task/task.h"

enum { DEFAULT_LIMIT = 65536 };

static aloop_stream_t *of_object(const aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop_stream_t, object);
}

/* ---- What the transport tells ---------------------------------------------------------------------------- */

void aloop__duplex_follow(aloop_stream_t *stream, aloop_transport_t *transport) {
  if (ALOOP_LIKELY(stream->transport == transport)) return;
  aloop_transport_unref(stream->transport);
  stream->transport = aloop_transport_ref(transport);
}

static int get_buffer(aloop_transport_t *transport, void *protocol, size_t hint, void **buffer, size_t *size) {
  (void)hint;
  aloop_stream_t *stream = protocol;
  aloop__duplex_follow(stream, transport);
  int rc = aloop__inbox_space(stream->object.loop, &stream->inbox, buffer, size);
  if (ALOOP_LIKELY(rc == 0)) {
    stream->offered = *size;
    return 0;
  }
  /* The connection can wait. */
  stream->flags |= ALOOP__DUPLEX_PAUSED;
  aloop_transport_pause_reading(transport);
  if (rc == ALOOP_ENOMEM) aloop__reading_fail(stream, rc);
  return 0;
}

static int buffer_updated(aloop_transport_t *transport, void *protocol, size_t size) {
  (void)transport;
  aloop_stream_t *stream = protocol;
  aloop__inbox_added(&stream->inbox, size, stream->offered);
  aloop__reading_go_on(stream);
  return 0;
}

/* The other direction stays open. */
static int eof_received(aloop_transport_t *transport, void *protocol) {
  aloop_stream_t *stream = protocol;
  aloop__duplex_follow(stream, transport);
  stream->flags |= ALOOP__DUPLEX_EOF;
  aloop__reading_go_on(stream);
  return 1;
}

static void pause_writing(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  ((aloop_stream_t *)protocol)->flags |= ALOOP__DUPLEX_FULL;
}

static void resume_writing(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  aloop_stream_t *stream = protocol;
  stream->flags &= ~(unsigned)ALOOP__DUPLEX_FULL;
  aloop__waiters_finish_all(&stream->drains, 0);
}

/* What a write or drain answers once the connection has ended, be that told or not; 0: it has not. */
static int ended_with(const aloop_stream_t *stream) {
  const aloop_transport_t *transport = stream->transport;
  if (ALOOP_LIKELY(transport->object.state < ALOOP__ENDING)) return 0;
  return transport->error < 0 ? transport->error : ALOOP_ECLOSED;
}

static void connection_lost(aloop_transport_t *transport, void *protocol, int error) {
  aloop_stream_t *stream = protocol;
  aloop__duplex_follow(stream, transport);
  stream->flags &= ~(unsigned)(ALOOP__DUPLEX_CONNECTED | ALOOP__DUPLEX_FULL);
  stream->flags |= ALOOP__DUPLEX_LOST | (error == 0 ? ALOOP__DUPLEX_EOF : 0u);
  stream->error = error;
  aloop__reading_go_on(stream);
  aloop__waiters_fail_all(&stream->drains, ended_with(stream), NULL);
  if (error < 0)
    aloop__waiters_fail_all(&stream->closers, error, NULL);
  else
    aloop__waiters_finish_all(&stream->closers, 0);
  aloop__object_unref(&stream->object);
}

static void connection_made(aloop_transport_t *transport, void *protocol) {
  aloop__duplex_connect(protocol, transport);
}

const aloop_protocol_t aloop__duplex_table = {
    .size = sizeof aloop__duplex_table,
    .connection_made = connection_made,
    .get_buffer = get_buffer,
    .buffer_updated = buffer_updated,
    .eof_received = eof_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .connection_lost = connection_lost,
};

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void destroy(aloop__object_t *object) {
  aloop_stream_t *stream = of_object(object);
  ALOOP_CHECK((stream->flags & ALOOP__DUPLEX_CONNECTED) == 0 && stream->read.future == NULL);
  if (stream->unread != NULL) aloop__future_forsake(stream->unread);
  aloop_future_unref(stream->drained);
  aloop__inbox_release(object->loop, &stream->inbox);
  aloop_transport_unref(stream->transport);
  aloop__object_end(object, stream);
}

/* Its transport is closed, too, and tells it. */
static void close_object(aloop__object_t *object) {
  (void)object;
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_stream_t *stream = of_object(object);
  snprintf(text, size, "over fd %d, %zu bytes to read%s%s%s%s",
           stream->transport != NULL ? stream->transport->watch.fd : -1, aloop__inbox_size(&stream->inbox),
           stream->read.future != NULL ? ", a read waits" : "",
           stream->flags & ALOOP__DUPLEX_PAUSED ? ", reading paused" : "",
           stream->flags & ALOOP__DUPLEX_EOF ? ", at its end" : "",
           stream->flags & ALOOP__DUPLEX_LOST ? ", lost" : "");
}

static const aloop__kind_t kind = {
    .name = "stream",
    .index = ALOOP__STREAM,
    .describe = describe,
    .destroy = destroy,
    .close = close_object,
};

int aloop__duplex_limit(const aloop_stream_options_t *options, size_t *limit) {
  aloop_stream_options_t copy = {0};
  if (options != NULL && aloop__memory_copy_options(&copy, sizeof copy, options) < 0) return ALOOP_EINVAL;
  *limit = copy.limit == 0 ? DEFAULT_LIMIT : copy.limit < SIZE_MAX / 4 ? copy.limit : SIZE_MAX / 4;
  return 0;
}

aloop_stream_t *aloop__duplex_new(aloop_t *loop, size_t limit, const char *origin) {
  aloop_stream_t *stream = aloop__memory_zero(loop, sizeof *stream);
  if (stream == NULL) return NULL;
  aloop__object_init(&stream->object, loop, &kind, origin);
  aloop__waiters_init(&stream->drains);
  aloop__waiters_init(&stream->closers);
  stream->limit = limit;
  return stream;
}

void aloop__duplex_connect(aloop_stream_t *stream, aloop_transport_t *transport) {
  stream->transport = aloop_transport_ref(transport);
  stream->flags |= ALOOP__DUPLEX_CONNECTED;
  aloop__object_ref(&stream->object);
}

size_t aloop__duplex_leave(aloop_stream_t *stream, const void **data) {
  aloop__inbox_t *inbox = &stream->inbox;
  bool connected = (stream->flags & ALOOP__DUPLEX_CONNECTED) != 0;
  aloop__inbox_settle(inbox, false);
  size_t size = aloop__inbox_size(inbox);
  *data = size > 0 ? inbox->block + inbox->head : NULL;
  inbox->taken = size;
  stream->flags &= ~(unsigned)(ALOOP__DUPLEX_CONNECTED | ALOOP__DUPLEX_FULL);
  stream->flags |= ALOOP__DUPLEX_LOST | ALOOP__DUPLEX_EOF;
  aloop__waiters_finish_all(&stream->closers, 0);
  if (connected) aloop__object_unref(&stream->object);
  return size;
}

void aloop__duplex_unref(void *stream) {
  aloop_stream_unref(stream);
}

/* What had happened to the transport before. */
static unsigned flags_of(const aloop_transport_t *transport) {
  unsigned flags = 0;
  if (transport->flags & ALOOP__EOF_RECEIVED) flags |= ALOOP__DUPLEX_EOF;
  if (transport->flags & ALOOP__WRITE_PAUSED) flags |= ALOOP__DUPLEX_FULL;
  if (transport->object.state == ALOOP__LOST) {
    flags |= ALOOP__DUPLEX_LOST;
    if (transport->error == 0) flags |= ALOOP__DUPLEX_EOF;
  }
  return flags;
}

int aloop_stream_new(aloop_transport_t *transport, const aloop_stream_options_t *options,
                     aloop_stream_t **stream) {
  size_t limit;
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  aloop_t *loop = transport->object.loop;
  if (loop->guard & ALOOP__GUARD_CLOSED) return ALOOP_ECLOSED;
  if (stream == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a stream needs a place to go to");
  if (aloop__duplex_limit(options, &limit) < 0) return aloop__misuse(loop, ALOOP_EINVAL, ALOOP__DUPLEX_RULE);
  if (transport->object.state < ALOOP__LOST && (transport->flags & ALOOP__MADE) == 0)
    return aloop__misuse(loop, ALOOP_EINVAL, "a stream needs a transport whose connection_made was called");
  if (transport->table == &aloop__duplex_table)
    return aloop__misuse(loop, ALOOP_EBUSY, "the transport belongs to another stream");
  aloop_stream_t *made = aloop__duplex_new(loop, limit, "aloop_stream_new");
  if (made == NULL) return ALOOP_ENOMEM;
  made->flags = flags_of(transport);
  if (transport->object.state < ALOOP__LOST) {
    aloop_transport_set_protocol(transport, &aloop__duplex_table, made);
    aloop__duplex_connect(made, transport);
    /* If it cannot be read now the first read tries again. */
    if (aloop_transport_resume_reading(transport) < 0) made->flags |= ALOOP__DUPLEX_PAUSED;
  } else {
    made->error = transport->error;
    made->transport = aloop_transport_ref(transport);
  }
  *stream = made;
  return 0;
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

int aloop__duplex_refuse(const aloop_stream_t *stream) {
  if (stream == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the stream is NULL");
  return aloop__loop_thread(stream->object.loop);
}

aloop_stream_t *aloop_stream_ref(aloop_stream_t *stream) {
  if (stream == NULL || aloop__duplex_enter(stream) < 0) return NULL;
  aloop__object_ref(&stream->object);
  return stream;
}

void aloop_stream_unref(aloop_stream_t *stream) {
  if (stream == NULL || aloop__duplex_enter(stream) < 0) return;
  uint32_t others = stream->upgrade != NULL ? 2 : 1; /* references of the library's own */
  if (stream->object.refs == others + 1 && (stream->flags & ALOOP__DUPLEX_CONNECTED))
    aloop_stream_close(stream);
  aloop__object_unref(&stream->object);
}

aloop_t *aloop_stream_loop(const aloop_stream_t *stream) {
  return aloop__duplex_enter(stream) == 0 ? stream->object.loop : NULL;
}

aloop_transport_t *aloop_stream_transport(const aloop_stream_t *stream) {
  return aloop__duplex_enter(stream) == 0 ? stream->transport : NULL;
}

int aloop_stream_error(const aloop_stream_t *stream) {
  int rc = aloop__duplex_enter(stream);
  return rc < 0 ? rc : stream->error;
}

/* What keeps a write or drain from being tried, or 0. */
static int check(const aloop_stream_t *stream) {
  int rc = aloop__duplex_enter(stream);
  if (ALOOP_UNLIKELY(rc < 0)) return rc;
  if (ALOOP_LIKELY(stream->upgrade == NULL)) return ended_with(stream);
  return aloop__misuse(stream->object.loop, ALOOP_EBUSY, "a write to a stream whose start_tls is under way");
}

/* In a step of a task, writes to a stream wait for the end of the step or for a write to another one. */
static inline void cork(const aloop_stream_t *stream) {
  aloop__tasks_t *tasks = aloop__tasks_of(stream->object.loop);
  aloop_transport_t *transport = stream->transport;
  if (tasks == NULL || !tasks->corks || tasks->corked == transport) return;
  if (tasks->corked != NULL) aloop__task_uncork(tasks);
  if ((transport->flags & ALOOP__SHUT) || !aloop__outbox_empty(&transport->outbox)) return;
  if (aloop__cork_is_open(transport)) return;
  tasks->corked = transport;
  aloop__cork_open(transport);
}

int aloop_stream_write(aloop_stream_t *stream, const void *data, size_t size) {
  int rc = check(stream);
  if (ALOOP_UNLIKELY(rc < 0)) return rc;
  cork(stream);
  return aloop_transport_write(stream->transport, data, size);
}

int aloop_stream_writev(aloop_stream_t *stream, const struct iovec *iov, int count) {
  int rc = check(stream);
  if (ALOOP_UNLIKELY(rc < 0)) return rc;
  cork(stream);
  return aloop_transport_writev(stream->transport, iov, count);
}

int aloop_stream_write_eof(aloop_stream_t *stream) {
  int rc = aloop__duplex_enter(stream);
  return rc < 0 ? rc : aloop_transport_write_eof(stream->transport);
}

bool aloop_stream_can_write_eof(const aloop_stream_t *stream) {
  return aloop__duplex_enter(stream) == 0 && aloop_transport_can_write_eof(stream->transport);
}

static aloop_future_t *done_with(aloop_t *loop, int rc, const char *origin) {
  if (rc < 0) return aloop__future_failed(loop, origin, rc, NULL);
  aloop_future_t *future = aloop__future_new(loop, origin);
  aloop__future_finish(future, 0);
  return future;
}

aloop_future_t *aloop_stream_drain(aloop_stream_t *stream) {
  static const char origin[] = "aloop_stream_drain";
  if (aloop__duplex_enter(stream) < 0) return NULL;
  int rc = check(stream);
  if (rc == 0 && (stream->flags & ALOOP__DUPLEX_FULL))
    return aloop__waiters_join(&stream->drains, stream->object.loop, origin);
  if (rc < 0 || (stream->object.loop->guard & ALOOP__GUARD_CLOSED))
    return done_with(stream->object.loop, rc, origin);
  if (stream->drained == NULL) stream->drained = done_with(stream->object.loop, 0, origin);
  return aloop_future_ref(stream->drained);
}

/* A handshake has nothing that could still be sent: its end is the connection's. */
void aloop_stream_close(aloop_stream_t *stream) {
  if (aloop__duplex_enter(stream) < 0) return;
  if (stream->upgrade != NULL)
    aloop_future_cancel(stream->upgrade);
  else
    aloop_transport_close(stream->transport);
}

void aloop_stream_abort(aloop_stream_t *stream) {
  if (aloop__duplex_enter(stream) < 0) return;
  if (stream->upgrade != NULL)
    aloop_future_cancel(stream->upgrade);
  else
    aloop_transport_abort(stream->transport);
}

bool aloop_stream_is_closing(const aloop_stream_t *stream) {
  if (aloop__duplex_enter(stream) < 0) return true;
  return stream->upgrade == NULL && aloop_transport_is_closing(stream->transport);
}

aloop_future_t *aloop_stream_wait_closed(aloop_stream_t *stream) {
  static const char origin[] = "aloop_stream_wait_closed";
  if (aloop__duplex_enter(stream) < 0) return NULL;
  if (stream->flags & ALOOP__DUPLEX_LOST) return done_with(stream->object.loop, stream->error, origin);
  return aloop__waiters_join(&stream->closers, stream->object.loop, origin);
}
