/* SPDX-License-Identifier: MIT
 *
 * A future stands for a result that is not there yet. Here a timer sets it after a second, and main waits for
 * it.
 *
 * Two parties hold the future: the timer, until it has set it, and main, which gives its reference to
 * aloop_run_until_complete_ptr.
 */
#include "aloop.h"

#include <stdio.h>

static void set_result(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_future_t *future = arg;
  aloop_future_set_result(future, 0, "... world", NULL); /* NULL: nobody needs to free a constant */
  aloop_future_unref(future);
}

int main(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  aloop_future_t *future = aloop_future_new(loop);
  if (future == NULL) return 1;
  aloop_call_later(loop, ALOOP_SECONDS(1), set_result, aloop_future_ref(future));

  puts("hello ...");
  const char *result;
  int error = aloop_run_until_complete_ptr(loop, future, &result);
  puts(error < 0 ? aloop_strerror(error) : result);

  aloop_free(loop);
  return error < 0;
}
