/* SPDX-License-Identifier: MIT
 *
 * What the model is made of besides objects: the input, memory that can run out, a clock that jumps, and a
 * kernel with or without sendfile. See fuzz_api.c.
 */
#include "world.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif

world_t w;
uint8_t file_bytes[FILE_SIZE];
int files[CONNS];

size_t length(void) {
  unsigned n = byte();
  return n < 200 ? n : (size_t)(n - 199) * 700;
}

/* What a callback does besides. */
void react(void) {
  if (fuzz.size == 0 || w.depth >= DEPTH_MAX || w.closed) return;
  w.depth++;
  for (unsigned n = byte() & 3; n > 1; n--) act();
  w.depth--;
}

void *current_context(void) {
  return aloop_var_get(w.loop, w.var, NULL);
}

/* Whether the call answered as it had to. */
bool answered(int rc, int expected) {
  MUST(rc == expected || (w.starved && rc == ALOOP_ENOMEM));
  return rc == 0;
}

void famine(void) {
  if (w.starved) fuzz.fail_every = fuzz.fail_every == 1 ? 0 : 1;
}

#ifdef __linux__
/* Stands before the C library's, so that the fallback has its turn too. */
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
  static ssize_t (*real)(int, int, off_t *, size_t);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, CALLED_SENDFILE);
    memcpy(&real, &symbol, sizeof real);
  }
  if (!w.no_sendfile) return real(out, in, offset, count);
  errno = EINVAL;
  return -1;
}
#endif

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
  if (n == 0) w.now += timeout;
  return n;
}

static int64_t poller_now(void *state) {
  (void)state;
  return w.now;
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
