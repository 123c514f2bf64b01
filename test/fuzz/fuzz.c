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
