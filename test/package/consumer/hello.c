/* SPDX-License-Identifier: MIT
 *
 * The smallest program worth linking: a timer says hello. It is built as C11 and as C++17 against the installed library.
 * The version of the library must be that of its header, which the caller compares with the package files.
 */
#include <aloop.h>

#include <stdio.h>
#include <string.h>

static void hello(aloop_t *loop, void *arg) {
  printf("hello from aloop %s\n", (const char *)arg);
  aloop_stop(loop);
}

int main(void) {
  const char *version = ALOOP_STRING(ALOOP_VERSION_MAJOR) "." ALOOP_STRING(
      ALOOP_VERSION_MINOR) "." ALOOP_STRING(ALOOP_VERSION_PATCH);
  if (strcmp(version, aloop_version()) != 0) return 2;
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  aloop_call_later(loop, ALOOP_MILLIS(1), hello, (void *)aloop_version());
  int result = aloop_run_forever(loop);
  aloop_free(loop);
  return result < 0;
}
