/* SPDX-License-Identifier: MIT
 *
 * aloop_stream_start_tls: a stream goes on over TLS.
 *
 * The work is aloop_start_tls's; the protocol stays the stream. The new transport shows itself with the first
 * event it has, or as the result of the handshake, whichever comes first: the stream follows it then
 * (aloop__duplex_follow). Until the end of the handshake nothing can be read from the stream or written to it.
 *
 * What was received before and not read is thrown away, as it must be: it came in clear, perhaps from somebody
 * in between, and must not look as if it had come through TLS. That is also why a read that waits is refused,
 * and a result that nobody has read yet.
 *
 * The caller's future is an outer one over the handshake. It holds the stream; who gives up both the stream and
 * the wait ends the connection.
 */
#include "core/memory.h"
#include "core/report.h"
#include "net/stream.h"
#include "task/duplex.h"
#include "task/task.h"

static const char origin[] = "aloop_stream_start_tls";

typedef struct upgrade {
  aloop__future_extra_t extra;
  aloop_stream_t *stream;
} upgrade_t;

static aloop_stream_t *stream_of(aloop_future_t *outer) {
  return ALOOP_CONTAINER_OF(outer->extra, upgrade_t, extra)->stream;
}

static void on_secured(aloop_future_t *inner, void *arg) {
  aloop_future_t *outer = arg;
  aloop_stream_t *stream = stream_of(outer);
  aloop_transport_t *transport;
  stream->upgrade = NULL;
  if (aloop_future_take_ptr(inner, &transport) == 0) {
    aloop__duplex_follow(stream, transport);
    aloop_transport_unref(transport);
    aloop__future_finish(outer, 0);
  } else {
    aloop__future_follow(outer, inner);
  }
  aloop_stream_unref(stream);
}

/* The stop function. */
static void stop(aloop_future_t *outer, void *arg) {
  (void)arg;
  aloop_stream_t *stream = stream_of(outer);
  aloop_future_t *inner = outer->extra->children[0];
  stream->upgrade = NULL;
  aloop__future_unwatch(inner, on_secured, outer);
  aloop_future_cancel(inner);
  aloop_stream_unref(stream);
}

static void forget_received(aloop_stream_t *stream) {
  aloop__inbox_settle(&stream->inbox, false);
  stream->inbox.taken = aloop__inbox_size(&stream->inbox);
  aloop__inbox_settle(&stream->inbox, false);
  stream->flags &= ~(unsigned)ALOOP__DUPLEX_PAUSED;
}

/* NULL, or what the caller has to do first. */
static const char *fault_of(const aloop_stream_t *stream) {
  if (stream->upgrade != NULL) return "start_tls of this stream is under way";
  if (stream->read.future != NULL) return "start_tls while a read waits: wait for it or cancel it first";
  if (stream->unread != NULL)
    return "start_tls while a read's result was not read: read or drop its future first";
  if (stream->flags & ALOOP__DUPLEX_FULL)
    return "start_tls above the high-water mark: wait for aloop_stream_drain first";
  return NULL;
}

/* Takes over the handshake. */
static aloop_future_t *wait_for(aloop_stream_t *stream, aloop_future_t *inner) {
  aloop_future_t *outer = aloop__future_over(stream->object.loop, NULL, sizeof(upgrade_t), &inner, 1);
  if (outer == NULL || aloop__future_watch(inner, on_secured, outer) < 0) {
    aloop_future_cancel(inner);
    aloop_future_unref(outer != NULL ? outer : inner);
    return NULL;
  }
  ALOOP_CONTAINER_OF(outer->extra, upgrade_t, extra)->stream = stream;
  aloop__object_ref(&stream->object);
  outer->object.origin = origin;
  stream->upgrade = outer;
  aloop__future_set_operation(outer, stop, NULL);
  return outer;
}

aloop_future_t *aloop_stream_start_tls(aloop_stream_t *stream, const aloop_start_tls_options_t *options) {
  if (aloop__duplex_enter(stream) < 0) return NULL;
  aloop_t *loop = stream->object.loop;
  const char *fault = fault_of(stream);
  if (fault != NULL) return aloop__future_refused(loop, origin, ALOOP_EBUSY, fault);
  if (stream->flags & ALOOP__DUPLEX_LOST)
    return aloop__future_failed(loop, origin, stream->error < 0 ? stream->error : ALOOP_ECLOSED, NULL);
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  if (tasks != NULL && tasks->corked == stream->transport) aloop__task_uncork(tasks);
  aloop_future_t *inner = aloop_start_tls(stream->transport, NULL, NULL, options);
  if (inner == NULL || aloop_future_done(inner)) return inner; /* refused, and nothing has changed */
  forget_received(stream);
  return wait_for(stream, inner);
}
