/* SPDX-License-Identifier: MIT
 *
 * Reading from a stream: read, readexactly, readline, readuntil.
 *
 * One read waits at a time. It is tried when it is asked for and then whenever bytes, the end or an error
 * come, each time by its own `answer`, which knows nothing of futures that wait or do not.
 *
 * Cancelling consumes nothing: a read that waits has taken nothing yet, it only looks. One that was answered
 * may still be cancelled with the task that awaits it, before its result is read. Therefore what it was given
 * is a promise (future.h): it stays in the inbox until somebody reads the value, and comes back if nobody does.
 * A result that can still be read is in the way of the next read, which is refused: nothing is lost without a
 * word. A line that was read stays on loan until the next read begins.
 *
 * The transport rests when more than twice the limit waits, and goes on at the limit or when a read needs
 * more, as in asyncio. It also rests when a line on loan keeps the block from moving, until the next read.
 */
#include <string.h>

#include "core/report.h"
#include "net/stream.h"
#include "task/duplex.h"

#define WRITE_PIPE "a read from a write pipe"

/* ---- Flow ------------------------------------------------------------------------------------------------ */

static void pause_if_full(aloop_stream_t *stream) {
  if (aloop__inbox_size(&stream->inbox) <= 2 * stream->limit || (stream->flags & ALOOP__DUPLEX_PAUSED)) return;
  stream->flags |= ALOOP__DUPLEX_PAUSED;
  aloop_transport_pause_reading(stream->transport);
}

/* A failure leaves it paused: the next read tries again. */
static int resume(aloop_stream_t *stream) {
  if ((stream->flags & ALOOP__DUPLEX_PAUSED) == 0) return 0;
  int rc = aloop_transport_resume_reading(stream->transport);
  if (rc == 0) stream->flags &= ~(unsigned)ALOOP__DUPLEX_PAUSED;
  return rc;
}

static void resume_if_room(aloop_stream_t *stream) {
  if (ALOOP_LIKELY((stream->flags & ALOOP__DUPLEX_PAUSED) == 0)) return;
  if (aloop__inbox_size(&stream->inbox) <= stream->limit && !aloop__inbox_stuck(&stream->inbox)) resume(stream);
}

/* ---- Answers --------------------------------------------------------------------------------------------- */

/* The result is read. */
static int keep(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_stream_t *stream = giver;
  stream->unread = NULL;
  if (!stream->inbox.lent) aloop__inbox_settle(&stream->inbox, false);
  return 0;
}

/* It never will be. */
static void take_back(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_stream_t *stream = giver;
  stream->unread = NULL;
  aloop__inbox_settle(&stream->inbox, true);
  pause_if_full(stream);
}

static const aloop__promise_t promise = {.keep = keep, .drop = take_back, .forsake = take_back};

/* Ends the read with what was handed out. */
static bool finish(aloop_stream_t *stream, aloop__read_t *read, size_t size) {
  stream->unread = read->future;
  aloop__future_finish_promise(read->future, (int64_t)size, &promise, stream);
  resume_if_room(stream);
  return true;
}

/* What a read answers that the bytes there are do not suffice for; false: it waits. */
static bool at_the_end(aloop_stream_t *stream, aloop__read_t *read) {
  if (stream->flags & ALOOP__DUPLEX_EOF) {
    aloop__future_fail(read->future, ALOOP_EOF, NULL);
    return true;
  }
  return (stream->flags & ALOOP__DUPLEX_LOST) && aloop__future_fail(read->future, stream->error, NULL);
}

static bool copy_out(aloop_stream_t *stream, aloop__read_t *read, size_t size) {
  aloop__inbox_take(&stream->inbox, read->into, size);
  return finish(stream, read, size);
}

static bool lend_out(aloop_stream_t *stream, aloop__read_t *read, size_t size) {
  const char *data = aloop__inbox_lend(&stream->inbox, size);
  memcpy(read->into, &data, sizeof data);
  return finish(stream, read, size);
}

static bool answer_nothing(aloop_stream_t *stream, aloop__read_t *read) {
  (void)stream;
  return aloop__future_finish(read->future, 0);
}

static bool answer_some(aloop_stream_t *stream, aloop__read_t *read) {
  size_t there = aloop__inbox_size(&stream->inbox);
  if (there > 0) return copy_out(stream, read, there < read->size ? there : read->size);
  if (stream->flags & ALOOP__DUPLEX_EOF) return aloop__future_finish(read->future, 0);
  return at_the_end(stream, read);
}

static bool answer_exactly(aloop_stream_t *stream, aloop__read_t *read) {
  size_t there = aloop__inbox_size(&stream->inbox);
  if (there >= read->size) return copy_out(stream, read, read->size);
  if (stream->flags & ALOOP__DUPLEX_EOF)
    return aloop__future_fail(read->future, ALOOP_EOF, "the stream ended after %zu of %zu bytes", there,
                              read->size);
  return at_the_end(stream, read);
}

static bool overrun(aloop_stream_t *stream, aloop__read_t *read, bool found) {
  return aloop__future_fail(read->future, ALOOP_ERANGE,
                            "the separator %s the limit of %zu bytes; nothing was consumed",
                            found ? "lies beyond" : "was not found within", stream->limit);
}

/* True: the read has ended. */
static bool answer_found(aloop_stream_t *stream, aloop__read_t *read) {
  aloop__inbox_t *inbox = &stream->inbox;
  size_t at = aloop__inbox_find(inbox, read->separator, read->separator_size);
  if (at == SIZE_MAX) return inbox->scanned > stream->limit && overrun(stream, read, false);
  if (at > stream->limit) return overrun(stream, read, true);
  return lend_out(stream, read, at + read->separator_size);
}

static bool answer_until(aloop_stream_t *stream, aloop__read_t *read) {
  if (answer_found(stream, read)) return true;
  if (stream->flags & ALOOP__DUPLEX_EOF)
    return aloop__future_fail(read->future, ALOOP_EOF,
                              "the stream ended after %zu bytes, without the separator",
                              aloop__inbox_size(&stream->inbox));
  return at_the_end(stream, read);
}

static bool answer_line(aloop_stream_t *stream, aloop__read_t *read) {
  if (answer_found(stream, read)) return true;
  if ((stream->flags & ALOOP__DUPLEX_EOF) == 0) return at_the_end(stream, read);
  size_t there = aloop__inbox_size(&stream->inbox);
  if (there > 0) return lend_out(stream, read, there);
  return aloop__future_finish(read->future, 0);
}

/* ---- The read that waits --------------------------------------------------------------------------------- */

void aloop__reading_go_on(aloop_stream_t *stream) {
  if (stream->read.future != NULL) {
    if (!stream->read.answer(stream, &stream->read)) return;
    stream->read.future = NULL;
  }
  pause_if_full(stream);
}

void aloop__reading_fail(aloop_stream_t *stream, int error) {
  aloop_future_t *future = stream->read.future;
  stream->read.future = NULL;
  aloop__future_fail(future, error, NULL);
}

/* The stop function. */
static void cancelled(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_stream_t *stream = arg;
  stream->read.future = NULL;
  pause_if_full(stream);
}

static void wait_for_more(aloop_stream_t *stream, const aloop__read_t *read) {
  aloop__inbox_rest(stream->object.loop, &stream->inbox);
  int rc = stream->transport->flags & ALOOP__NO_READ ? ALOOP_ENOTSUP : resume(stream);
  if (rc < 0) {
    if (rc == ALOOP_ENOTSUP) aloop__misuse(stream->object.loop, rc, WRITE_PIPE);
    aloop__future_fail(read->future, rc, "%s", rc == ALOOP_ENOTSUP ? WRITE_PIPE : aloop_strerror(rc));
    return;
  }
  stream->read = *read;
  aloop__future_set_operation(read->future, cancelled, stream);
}

static aloop_future_t *start(aloop_stream_t *stream, aloop__read_t *read, const char *origin) {
  aloop_t *loop = stream->object.loop;
  if (ALOOP_UNLIKELY(stream->read.future != NULL))
    return aloop__future_refused(loop, origin, ALOOP_EBUSY, "another read of this stream is under way");
  if (ALOOP_UNLIKELY(stream->upgrade != NULL))
    return aloop__future_refused(loop, origin, ALOOP_EBUSY, "start_tls of this stream is under way");
  if (ALOOP_UNLIKELY(stream->unread != NULL))
    return aloop__future_refused(loop, origin, ALOOP_EBUSY,
                                 "the result of the last read is still to be read; read or release its future");
  read->future = aloop__future_new(loop, origin);
  if (ALOOP_UNLIKELY(read->future == NULL || read->future->state != ALOOP__PENDING)) return read->future;
  aloop__inbox_settle(&stream->inbox, false);
  bool hopeless = stream->inbox.head == stream->inbox.tail && read->size + read->separator_size > 0 &&
                  (stream->flags & (ALOOP__DUPLEX_EOF | ALOOP__DUPLEX_LOST)) == 0;
  if (hopeless || !read->answer(stream, read)) wait_for_more(stream, read);
  return read->future;
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

static aloop_future_t *refuse(aloop_stream_t *stream, const char *origin, const char *rule) {
  return aloop__future_refused(stream->object.loop, origin, ALOOP_EINVAL, rule);
}

aloop_future_t *aloop_stream_read(aloop_stream_t *stream, void *buffer, size_t size) {
  static const char origin[] = "aloop_stream_read";
  if (ALOOP_UNLIKELY(aloop__duplex_enter(stream) < 0)) return NULL;
  if (buffer == NULL && size > 0) return refuse(stream, origin, "the buffer of a read is NULL");
  aloop__read_t read = {.answer = size > 0 ? answer_some : answer_nothing, .into = buffer, .size = size};
  return start(stream, &read, origin);
}

aloop_future_t *aloop_stream_readexactly(aloop_stream_t *stream, void *buffer, size_t size) {
  static const char origin[] = "aloop_stream_readexactly";
  if (ALOOP_UNLIKELY(aloop__duplex_enter(stream) < 0)) return NULL;
  if (buffer == NULL && size > 0) return refuse(stream, origin, "the buffer of a read is NULL");
  if (size > PTRDIFF_MAX) return refuse(stream, origin, "a read is of no more than memory holds");
  aloop__read_t read = {.answer = size > 0 ? answer_exactly : answer_nothing, .into = buffer, .size = size};
  return start(stream, &read, origin);
}

aloop_future_t *aloop_stream_readline(aloop_stream_t *stream, const char **line) {
  static const char origin[] = "aloop_stream_readline";
  if (ALOOP_UNLIKELY(aloop__duplex_enter(stream) < 0)) return NULL;
  if (line == NULL) return refuse(stream, origin, "a line needs a place for its address");
  aloop__read_t read = {.answer = answer_line, .into = (void *)line, .separator = "\n", .separator_size = 1};
  return start(stream, &read, origin);
}

aloop_future_t *aloop_stream_readuntil(aloop_stream_t *stream, const void *separator, size_t size,
                                       const char **data) {
  static const char origin[] = "aloop_stream_readuntil";
  if (ALOOP_UNLIKELY(aloop__duplex_enter(stream) < 0)) return NULL;
  if (data == NULL) return refuse(stream, origin, "what is read needs a place for its address");
  if (separator == NULL || size == 0) return refuse(stream, origin, "a separator has at least one byte");
  aloop__read_t read = {
      .answer = answer_until, .into = (void *)data, .separator = separator, .separator_size = size};
  return start(stream, &read, origin);
}

bool aloop_stream_at_eof(const aloop_stream_t *stream) {
  if (aloop__duplex_enter(stream) < 0) return true;
  if ((stream->flags & ALOOP__DUPLEX_EOF) == 0) return false;
  return stream->unread == NULL && aloop__inbox_size(&stream->inbox) == 0;
}
