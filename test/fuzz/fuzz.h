/* SPDX-License-Identifier: MIT
 *
 * What the targets share that run the library itself: the input, an allocator that counts and can fail, and the
 * end when a promise is broken.
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include "aloop.h"

/* A broken promise traps. */
#define MUST(condition) ((condition) ? (void)0 : broken(__FILE__, __LINE__, #condition))
_Noreturn void broken(const char *file, int line, const char *promise);

typedef struct fuzz {
  const uint8_t *data; /* the rest of the input */
  size_t size;
  long live; /* blocks */
  unsigned allocations;
  unsigned fail_every; /* 0: never */
  int64_t now;         /* of the poller below */
} fuzz_t;

extern fuzz_t fuzz;

/* Everything from its beginning, with this input. */
void begin_input(const uint8_t *data, size_t size);

/* The next byte of the input; 0 behind its end. */
unsigned byte(void);

/* The allocator. */
void *resize(void *user, void *block, size_t bytes);
void release(void *user, void *block);

/* One of the built-in pollers with a clock that jumps: without events the time is over at once. */
const aloop_poller_t *jumping_poller(unsigned which);

/* An exception handler: reports are no news. */
int ignore_report(aloop_t *loop, const aloop_error_context_t *context, void *arg);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
