/* SPDX-License-Identifier: MIT
 *
 * The loop explains itself: debug switches, metrics and the dump.
 *
 * Counters are kept always, because they cost an addition each. Busy and idle time are measured in ticks
 * (clock.h) around waits only, and turned into nanoseconds here, by the ratio of ticks to clock since the loop
 * was made. The dump walks every structure that can keep a loop busy, so it is as slow as it is complete; it
 * is meant for people.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/clock.h"
#include "core/loop.h"
#include "core/memory.h"
#include "core/report.h"

bool aloop_get_debug(const aloop_t *loop) {
  return aloop__loop_ok(loop) && (loop->guard & ALOOP__GUARD_DEBUG) != 0;
}

int aloop_set_debug(aloop_t *loop, bool on) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (on)
    loop->guard |= ALOOP__GUARD_DEBUG;
  else
    loop->guard &= ~(uint32_t)ALOOP__GUARD_DEBUG;
  aloop__ready_set_limit(loop);
  aloop__loop_interrupt(loop); /* the rest of the batch runs with a clock, or without */
  return 0;
}

int aloop_set_slow_callback_duration(aloop_t *loop, int64_t duration) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (duration <= 0) return aloop__misuse(loop, ALOOP_EINVAL, "a slow callback lasts more than 0 ns");
  loop->slow_callback_duration = duration;
  return 0;
}

/* Callbacks in the deque that are still going to run, timers that are due aside. */
static uint64_t count_ready(const aloop_t *loop) {
  uint64_t count = 0;
  for (uint64_t at = loop->head; at != loop->tail; at++)
    count += aloop__entry_waits(&loop->ring[at & loop->mask]);
  return count;
}

static int64_t to_ns(const aloop_t *loop, uint64_t ticks) {
  double elapsed = (double)(aloop__clock_monotonic() - loop->born_time);
  double counted = (double)(aloop__clock_ticks() - loop->born_ticks);
  return counted > 0 ? (int64_t)((double)ticks * elapsed / counted) : 0;
}

int aloop_metrics(aloop_t *loop, aloop_metrics_t *metrics) {
  int rc = aloop__loop_thread(loop);
  if (rc < 0) return rc;
  size_t size = metrics != NULL ? metrics->size : 0;
  if (size <= sizeof size) return aloop__misuse(loop, ALOOP_EINVAL, "set metrics.size to sizeof metrics");
  uint64_t run = loop->run_ticks + (loop->running ? aloop__clock_ticks() - loop->run_started : 0);
  uint64_t idle = loop->idle_ticks < run ? loop->idle_ticks : run;
  aloop_metrics_t now = {
      .size = size,
      .turns = loop->turns,
      .polls = loop->polls,
      .events = loop->events,
      .callbacks = aloop__loop_callbacks(loop),
      .posts = loop->posts,
      .stale = loop->stale,
      .busy_time = to_ns(loop, run - idle),
      .idle_time = to_ns(loop, idle),
      .ready = count_ready(loop),
      .timers = loop->timers.live,
      .watches = loop->watches_count - (loop->wake.fd >= 0),
      .futures = loop->live[ALOOP__FUTURE],
      .transports = loop->live[ALOOP__TRANSPORT],
      .servers = loop->live[ALOOP__SERVER],
      .signal_handlers = loop->live[ALOOP__SIGNAL_HANDLER],
      .jobs = loop->live[ALOOP__JOB],
      .processes = loop->live[ALOOP__PROCESS],
      .datagrams = loop->live[ALOOP__DATAGRAM],
      .sync_objects = loop->live[ALOOP__SYNC],
      .tasks = loop->live[ALOOP__TASK],
      .streams = loop->live[ALOOP__STREAM],
      .generators = loop->live[ALOOP__GENERATOR],
      .accepted = loop->accepted,
      .handed_over = loop->handed_over,
  };
  for (int i = 0; i < ALOOP_LAG_BUCKETS && loop->lag != NULL; i++) now.lag[i] = loop->lag[i];
  unsigned char *to = (unsigned char *)metrics;
  for (size_t i = 0; i < size && i < sizeof now; i++) to[i] = ((const unsigned char *)&now)[i];
  return 0;
}

typedef struct writer {
  void (*line)(void *arg, const char *text);
  void *arg;
} writer_t;

static void say(const writer_t *out, const char *what, const char *origin) {
  char text[400];
  snprintf(text, sizeof text, "%s%s%s", what, origin != NULL ? ", from " : "", origin != NULL ? origin : "");
  out->line(out->arg, text);
}

static void dump_ready(const aloop_t *loop, const writer_t *out) {
  for (uint64_t at = loop->head; at != loop->tail; at++) {
    const aloop__entry_t *entry = &loop->ring[at & loop->mask];
    if (aloop__entry_waits(entry)) say(out, "callback ready", aloop__timers_origin(loop, entry));
  }
}

typedef struct timer_writer {
  const writer_t *out;
  int64_t now;
} timer_writer_t;

static void dump_timer(void *user, int64_t when, int64_t period, const char *origin) {
  const timer_writer_t *to = user;
  char text[96];
  snprintf(text, sizeof text, "timer due in %" PRId64 " us%s", (when - to->now) / 1000,
           period > 0 ? ", repeating" : "");
  say(to->out, text, origin);
}

static void dump_timers(aloop_t *loop, const writer_t *out) {
  timer_writer_t to = {out, aloop_time(loop)};
  aloop__timers_each(&loop->timers, dump_timer, &to);
}

static void dump_watch(const writer_t *out, aloop__watch_t *watch) {
  char text[160];
  aloop__watch_describe(watch, text, sizeof text);
  say(out, text, aloop__watch_origin(watch, aloop__watch_interest(watch)));
}

static void dump_watches(aloop_t *loop, const writer_t *out) {
  if (loop->wake.fd >= 0) dump_watch(out, &loop->wake);
  for (int fd = 0; fd < loop->watches_size; fd++)
    if (loop->watches[fd] != NULL) dump_watch(out, loop->watches[fd]);
}

static void dump_objects(const aloop_t *loop, const writer_t *out) {
  for (const aloop__list_t *at = loop->objects.next; at != &loop->objects; at = at->next) {
    const aloop__object_t *object = ALOOP_CONTAINER_OF(at, aloop__object_t, link);
    char state[200] = "";
    char text[240];
    object->kind->describe(object, state, sizeof state);
    snprintf(text, sizeof text, "%s %s", object->kind->name, state);
    say(out, text, object->origin);
  }
}

static void dump_rooms(const aloop_t *loop, const writer_t *out) {
  for (int i = 0; i < ALOOP__ROOMS; i++) {
    const aloop__room_t *room = loop->rooms[i];
    char text[200] = "";
    if (room != NULL && room->describe != NULL) room->describe(room, text, sizeof text);
    if (text[0] != '\0') say(out, text, NULL);
  }
}

static void dump_reason(const aloop_t *loop, const writer_t *out) {
  char text[320];
  snprintf(text, sizeof text,
           "%s loop on %s: %" PRIu64 " callbacks ready, %u timers, %u descriptors watched, %u futures, "
           "%u transports, %u servers, %u signal handlers, %u jobs, %u processes, %u datagram endpoints, "
           "%u sync objects, %u tasks, %u streams, %u generators",
           loop->running ? "running" : "stopped", loop->poller->name, count_ready(loop), loop->timers.live,
           loop->watches_count - (loop->wake.fd >= 0), loop->live[ALOOP__FUTURE], loop->live[ALOOP__TRANSPORT],
           loop->live[ALOOP__SERVER], loop->live[ALOOP__SIGNAL_HANDLER], loop->live[ALOOP__JOB],
           loop->live[ALOOP__PROCESS], loop->live[ALOOP__DATAGRAM], loop->live[ALOOP__SYNC],
           loop->live[ALOOP__TASK], loop->live[ALOOP__STREAM], loop->live[ALOOP__GENERATOR]);
  say(out, text, NULL);
}

int aloop_dump(aloop_t *loop, void (*line)(void *arg, const char *text), void *arg) {
  int rc = aloop__loop_thread(loop);
  if (rc < 0) return rc;
  if (line == NULL)
    return aloop__misuse(loop, ALOOP_EINVAL, "aloop_dump needs a function to give the lines to");
  writer_t out = {line, arg};
  dump_ready(loop, &out);
  dump_timers(loop, &out);
  dump_watches(loop, &out);
  dump_objects(loop, &out);
  dump_rooms(loop, &out);
  dump_reason(loop, &out);
  return 0;
}
