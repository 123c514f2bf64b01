/* SPDX-License-Identifier: MIT
 *
 * Timeouts of a connection: idle, read, write.
 *
 * Busy connections must not pay for them: moving bytes only notes the time. One timer per connection that has
 * timeouts wakes up at the earliest moment at which one of them can have run out, looks at the notes, and
 * either ends the connection or sleeps on until the next such moment. So a timer fires at most once per timeout
 * period, whatever the traffic, and never early.
 *
 * The clock behind a note is the one of the current callback (clock.c): a connection without timeouts has no
 * extras and never asks for it.
 *
 * Of a transport over another it counts what the one with the descriptor moves: a large record that goes out
 * (or comes in) slowly is progress long before it is whole.
 */
#include "core/memory.h"
#include "core/report.h"
#include "net/stream.h"
#include "net/write.h"

aloop__stream_extras_t *aloop__stream_extras(aloop_transport_t *transport) {
  if (transport->extras == NULL)
    transport->extras = aloop__memory_zero(transport->object.loop, sizeof *transport->extras);
  if (transport->extras != NULL) transport->flags |= ALOOP__EXTRAS | ALOOP__UNUSUAL;
  return transport->extras;
}

static bool any(const aloop__stream_extras_t *extras) {
  return extras->idle > 0 || extras->read > 0 || extras->write > 0;
}

void aloop__stream_touch(aloop_transport_t *transport, bool in, bool out) {
  while ((transport->flags & ALOOP__CARRIER) && transport->protocol != NULL) transport = transport->protocol;
  aloop__stream_extras_t *extras = transport->extras;
  if (extras == NULL || !any(extras)) return;
  int64_t now = aloop__loop_time(transport->object.loop);
  if (in) extras->last_read = now;
  if (out) extras->last_write = now;
}

static int64_t earlier(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t after(int64_t moment, int64_t delay) {
  return delay > ALOOP__NEVER - 1 - moment ? ALOOP__NEVER - 1 : moment + delay;
}

/* When a timeout that counts right now runs out. */
static int64_t deadline_of(const aloop_transport_t *transport) {
  const aloop__stream_extras_t *extras = transport->extras;
  int64_t last = extras->last_read > extras->last_write ? extras->last_read : extras->last_write;
  int64_t deadline = ALOOP__NEVER;
  bool unsent = aloop__stream_has_unsent(transport);
  if (extras->idle > 0) deadline = after(last, extras->idle);
  if (extras->read > 0 && aloop__stream_wants_read(transport))
    deadline = earlier(deadline, after(extras->last_read, extras->read));
  if (extras->write > 0 && unsent) deadline = earlier(deadline, after(extras->last_write, extras->write));
  return deadline;
}

/* The shortest timeout: none that starts to count later can run out before that much time from now. */
static int64_t shortest(const aloop__stream_extras_t *extras) {
  int64_t delay = ALOOP__NEVER;
  if (extras->idle > 0) delay = extras->idle;
  if (extras->read > 0) delay = earlier(delay, extras->read);
  if (extras->write > 0) delay = earlier(delay, extras->write);
  return delay;
}

static int arm(aloop_transport_t *transport, int64_t now, aloop_callback_fn look) {
  aloop__stream_extras_t *extras = transport->extras;
  int64_t when = earlier(deadline_of(transport), after(now, shortest(extras)));
  extras->timer = aloop__timers_add(transport->object.loop, when, 0, look, transport, transport->object.origin);
  return aloop_handle_error(extras->timer);
}

static void look(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = arg;
  int64_t now = aloop__loop_time(loop);
  if (deadline_of(transport) <= now)
    aloop__stream_end(transport, ALOOP_ETIMEDOUT);
  else if (arm(transport, now, look) < 0)
    aloop__stream_end(transport, ALOOP_ENOMEM);
}

void aloop__stream_stop_timeouts(aloop_transport_t *transport) {
  aloop__stream_extras_t *extras = transport->extras;
  if (extras == NULL) return;
  aloop__timer_t *timer = aloop__timers_find(transport->object.loop, extras->timer);
  if (timer != NULL) aloop__timers_cancel(transport->object.loop, timer);
  extras->timer = (aloop_handle_t){0};
}

int aloop_transport_set_timeouts(aloop_transport_t *transport, int64_t idle, int64_t read, int64_t write) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  aloop_t *loop = transport->object.loop;
  if (idle < 0 || read < 0 || write < 0)
    return aloop__misuse(loop, ALOOP_EINVAL, "timeouts are 0 (off) or a number of ns");
  if (transport->object.state >= ALOOP__ENDING) return ALOOP_ECLOSED;
  aloop__stream_extras_t *extras = aloop__stream_extras(transport);
  /* What has no extras notes nothing. */
  if (extras == NULL || aloop__stream_extras(aloop__stream_bottom(transport)) == NULL) return ALOOP_ENOMEM;
  aloop__stream_extras_t before = *extras;
  extras->idle = idle;
  extras->read = read;
  extras->write = write;
  extras->last_read = extras->last_write = aloop__loop_time(loop);
  if (any(extras) && arm(transport, extras->last_read, look) < 0) {
    *extras = before;
    return ALOOP_ENOMEM;
  }
  aloop__timer_t *old = aloop__timers_find(loop, before.timer);
  if (old != NULL) aloop__timers_cancel(loop, old);
  if (!any(extras)) extras->timer = (aloop_handle_t){0};
  return 0;
}
