/* SPDX-License-Identifier: MIT
 *
 * open_connection and open_unix_connection: a connect whose transport has a stream for protocol.
 *
 * The stream is made first, as the protocol that the transport calls, and is connected by connection_made. The
 * caller's future is an outer one over the connect: it shares its error, message and attempts, or ends with
 * the stream. Cancelling it cancels the connect; if that has just succeeded, giving up the stream closes the
 * connection.
 */
#include "core/memory.h"
#include "task/duplex.h"

typedef struct opening {
  aloop__future_extra_t extra;
  aloop_stream_t *stream;
} opening_t;

static opening_t *opening_of(aloop_future_t *outer) {
  return ALOOP_CONTAINER_OF(outer->extra, opening_t, extra);
}

static void on_connected(aloop_future_t *inner, void *arg) {
  aloop_future_t *outer = arg;
  aloop_stream_t *stream = opening_of(outer)->stream;
  if (aloop_future_result(inner) >= 0 && aloop__future_finish_ptr(outer, 0, stream, aloop__duplex_unref))
    return;
  aloop_stream_unref(stream);
  aloop__future_follow(outer, inner);
}

/* The stop function. */
static void stop(aloop_future_t *outer, void *arg) {
  (void)arg;
  opening_t *opening = opening_of(outer);
  aloop__future_unwatch(opening->extra.children[0], on_connected, outer);
  aloop_future_cancel(opening->extra.children[0]);
  aloop_stream_unref(opening->stream);
}

/* Both are taken over. */
static aloop_future_t *wait_for(aloop_t *loop, aloop_stream_t *stream, aloop_future_t *inner) {
  aloop_future_t *outer = inner != NULL ? aloop__future_over(loop, NULL, sizeof(opening_t), &inner, 1) : NULL;
  if (outer == NULL) {
    if (inner != NULL) aloop_future_cancel(inner);
    aloop_future_unref(inner);
    aloop_stream_unref(stream);
    return NULL;
  }
  outer->object.origin = inner->object.origin;
  opening_of(outer)->stream = stream;
  if (aloop_future_done(inner)) {
    on_connected(inner, outer);
  } else if (aloop__future_watch(inner, on_connected, outer) < 0) {
    stop(outer, NULL);
    aloop_future_unref(outer);
    return NULL;
  } else {
    aloop__future_set_operation(outer, stop, NULL);
  }
  return outer;
}

static aloop_stream_t *begin(aloop_t *loop, const aloop_stream_options_t *options, const char *origin,
                             aloop_future_t **refused) {
  size_t limit;
  *refused = NULL;
  if (loop->guard & ALOOP__GUARD_CLOSED) {
    *refused = aloop__future_new(loop, origin);
    return NULL;
  }
  if (aloop__duplex_limit(options, &limit) == 0) return aloop__duplex_new(loop, limit, origin);
  *refused = aloop__future_refused(loop, origin, ALOOP_EINVAL, ALOOP__DUPLEX_RULE);
  return NULL;
}

aloop_future_t *aloop_open_connection(aloop_t *loop, const aloop_connect_options_t *options,
                                      const aloop_stream_options_t *stream_options) {
  aloop_future_t *refused;
  if (aloop__loop_thread(loop) < 0) return NULL;
  aloop_stream_t *stream = begin(loop, stream_options, "aloop_open_connection", &refused);
  if (stream == NULL) return refused;
  return wait_for(loop, stream, aloop_create_connection(loop, &aloop__duplex_table, stream, options));
}

aloop_future_t *aloop_open_unix_connection(aloop_t *loop, const aloop_unix_connect_options_t *options,
                                           const aloop_stream_options_t *stream_options) {
  aloop_future_t *refused;
  if (aloop__loop_thread(loop) < 0) return NULL;
  aloop_stream_t *stream = begin(loop, stream_options, "aloop_open_unix_connection", &refused);
  if (stream == NULL) return refused;
  return wait_for(loop, stream, aloop_create_unix_connection(loop, &aloop__duplex_table, stream, options));
}
