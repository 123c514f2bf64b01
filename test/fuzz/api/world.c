/* SPDX-License-Identifier: MIT
 *
 * What the model is made of besides objects: the input, memory that can run out, and a
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
