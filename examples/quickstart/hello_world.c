/* SPDX-License-Identifier: MIT
 *
 * Hello world: a callback that the loop runs as soon as it can, and that stops the loop.
 */
#include "aloop.h"

#include <stdio.h>

static void hello(aloop_t *loop, void *arg) {
  printf("Hello %s\n", (const char *)arg);
  aloop_stop(loop);
}

int main(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  aloop_call_soon(loop, hello, "World");
  aloop_run_forever(loop);
  aloop_free(loop);
  return 0;
}
