/* SPDX-License-Identifier: MIT
 *
 * Tasks: functions that wait without holding up anybody. aloop_await suspends the function it is called in, with all
 * its locals, and others run until the future is done.
 *
 * The two greetings are tasks of their own, so their waits overlap: all of it takes two seconds, not three.
 */
#include "aloop.h"

#include <stdio.h>

typedef struct greeting {
  int64_t delay;
  const char *what;
} greeting_t;

static int64_t say_after(aloop_t *loop, void *arg) {
  const greeting_t *greeting = arg;
  int64_t rc = aloop_await(aloop_sleep(loop, greeting->delay));
  if (rc < 0) return rc; /* the task was cancelled, or there is no memory */
  printf("%s\n", greeting->what);
  return 0;
}

static int64_t hello(aloop_t *loop, void *arg) {
  (void)arg;
  greeting_t greetings[] = {{ALOOP_SECONDS(1), "hello"}, {ALOOP_SECONDS(2), "world"}};
  int64_t started = aloop_time(loop);

  aloop_future_t *first = aloop_create_task(loop, say_after, &greetings[0], NULL);
  aloop_future_t *second = aloop_create_task(loop, say_after, &greetings[1], NULL);
  int64_t rc = aloop_await(first);
  int64_t rc_too = aloop_await(second); /* both: they use our locals */

  printf("in %d seconds\n", (int)((aloop_time(loop) - started) / ALOOP_SECONDS(1)));
  return rc < 0 ? rc : rc_too;
}

int main(void) {
  return aloop_run(hello, NULL, NULL) < 0;
}
