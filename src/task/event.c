/* SPDX-License-Identifier: MIT
 *
 * Events: a flag that can be waited for.
 *
 * Setting the flag ends all that wait at this moment, also if it is cleared again before they run: whoever
 * needs to know looks at it once more. Nothing is handed over, so nothing can get lost. Setting costs
 * O(waiters), all else O(1).
 */
#include <stdio.h>

#include "core/memory.h"
#include "core/report.h"
#include "task/waiters.h"

struct aloop_event {
  aloop__object_t object;
  aloop__waiters_t waiters; /* empty while the flag is set */
  bool set;
};

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the event is NULL");
}

static inline int enter(const aloop_event_t *event) {
  return ALOOP_LIKELY(event != NULL) ? aloop__loop_thread(event->object.loop) : refuse_null();
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_event_t *event = (const aloop_event_t *)(const void *)object;
  snprintf(text, size, "%s, %zu waiting", event->set ? "set" : "clear", event->waiters.count);
}

static void destroy(aloop__object_t *object) {
  aloop__object_end(object, object);
}

/* Who waits is closed by himself. */
static void close_event(aloop__object_t *object) {
  (void)object;
}

static const aloop__kind_t kind = {
    .name = "event", .index = ALOOP__SYNC, .describe = describe, .destroy = destroy, .close = close_event};

int aloop_event_new(aloop_t *loop, aloop_event_t **out) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (out == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a new event needs a place to go to");
  aloop_event_t *event = aloop__memory_zero(loop, sizeof *event);
  if (event == NULL) return ALOOP_ENOMEM;
  aloop__object_init(&event->object, loop, &kind, NULL);
  aloop__waiters_init(&event->waiters);
  *out = event;
  return 0;
}

void aloop_event_free(aloop_event_t *event) {
  if (event == NULL || enter(event) < 0) return;
  aloop__waiters_fail_all(&event->waiters, ALOOP_ECANCELED, "the event was freed");
  aloop__object_unref(&event->object);
}

aloop_future_t *aloop_event_wait(aloop_event_t *event) {
  static const char origin[] = "aloop_event_wait";
  if (enter(event) < 0) return NULL;
  aloop_t *loop = event->object.loop;
  if (!event->set) return aloop__waiters_join(&event->waiters, loop, origin);
  aloop_future_t *future = aloop__future_new(loop, origin);
  aloop__future_finish(future, 0);
  return future;
}

int aloop_event_set(aloop_event_t *event) {
  int rc = enter(event);
  if (rc < 0) return rc;
  event->set = true;
  aloop__waiters_finish_all(&event->waiters, 0);
  return 0;
}

int aloop_event_clear(aloop_event_t *event) {
  int rc = enter(event);
  if (rc < 0) return rc;
  event->set = false;
  return 0;
}

bool aloop_event_is_set(const aloop_event_t *event) {
  return enter(event) == 0 && event->set;
}
