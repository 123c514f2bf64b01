/* SPDX-License-Identifier: MIT
 *
 * See fuzz.h.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

fuzz_t fuzz;

void broken(const char *file, int line, const char *promise) {
  fprintf(stderr, "%s:%d: broken promise: %s\n", file, line, promise);
  abort();
}

void begin_input(const uint8_t *data, size_t size) {
  fuzz = (fuzz_t){.data = data, .size = size};
}

unsigned byte(void) {
  if (fuzz.size == 0) return 0;
  fuzz.size--;
  return *fuzz.data++;
}

void *resize(void *user, void *block, size_t bytes) {
  (void)user;
  fuzz.allocations++;
  if (fuzz.fail_every > 0 && fuzz.allocations % fuzz.fail_every == 0) return NULL;
  void *made = realloc(block, bytes);
  MUST(made != NULL);
  fuzz.live += block == NULL;
  return made;
}

void release(void *user, void *block) {
  (void)user;
  MUST(block != NULL);
  fuzz.live--;
  free(block);
}

int ignore_report(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop, (void)context, (void)arg;
  return 0;
}

/* ---- A clock that jumps ---------------------------------------------------------------------------------- */

static const aloop_poller_t *inner;

static int poller_open(void *arg, const aloop_allocator_t *allocator, void **state) {
  return inner->open(arg, allocator, state);
}

static void poller_close(void *state) {
  inner->close(state);
}

static int poller_update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  return inner->update(state, fd, token, before, after);
}

/* Nobody else is there to wait for: without events the clock jumps. */
static int poller_wait(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  MUST(timeout >= 0);
  int n = inner->wait(state, events, capacity, 0);
  if (n == 0) fuzz.now += timeout;
  return n;
}

static int64_t poller_now(void *state) {
  (void)state;
  return fuzz.now;
}

const aloop_poller_t *jumping_poller(unsigned which) {
  static const char *const names[] = {NULL, "poll", "select", "auto"};
  static const aloop_poller_t table = {.size = sizeof table,
                                       .name = "jumping",
                                       .open = poller_open,
                                       .close = poller_close,
                                       .update = poller_update,
                                       .wait = poller_wait,
                                       .now = poller_now};
  inner = aloop_poller_find(names[which % 4]);
  MUST(inner != NULL);
  return &table;
}
