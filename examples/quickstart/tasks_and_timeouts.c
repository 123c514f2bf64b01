/* SPDX-License-Identifier: MIT
 *
 * Three ways to end what takes too long, and a task that tidies up when it is cancelled.
 *
 * A cancelled task is asked to end: its aloop_await answers ALOOP_ECANCELED, and it goes on from there to release
 * what it holds. Whoever waits for it gets an answer when it has done so.
 */
#include "aloop.h"

#include <stdio.h>

static int64_t download(aloop_t *loop, void *arg) {
  const char *name = arg;
  printf("%s: begins\n", name);
  for (int part = 1; part <= 3; part++) {
    int64_t rc = aloop_await(aloop_sleep(loop, ALOOP_MILLIS(200)));
    if (rc < 0) {
      printf("%s: given up before part %d, tidied up\n", name, part);
      return rc;
    }
  }
  return aloop_return_error(ALOOP_ENOENT, "%s: no such file", name);
}

/* A limit for one future. */
static void wait_for_one(aloop_t *loop) {
  aloop_future_t *task = aloop_create_task(loop, download, "one", NULL);
  int64_t rc = aloop_await(aloop_wait_for(task, ALOOP_MILLIS(500)));
  printf("one: %s\n", aloop_error_name(rc));
}

/* A limit for all that is awaited in a stretch of code. */
static void limit_a_scope(aloop_t *loop) {
  aloop_timeout_t limit;
  int64_t rc = aloop_timeout_begin(&limit, ALOOP_MILLIS(500));
  while (rc == 0) rc = aloop_await(aloop_sleep(loop, ALOOP_MILLIS(300)));
  rc = aloop_timeout_end(&limit, rc);
  printf("two: %s\n", aloop_error_name(rc));
}

/* By hand. The reference is kept for the message. */
static void cancel_by_hand(aloop_t *loop) {
  aloop_future_t *patient = aloop_create_task(loop, download, "three", NULL);
  aloop_future_t *hasty = aloop_create_task(loop, download, "four", NULL);
  aloop_await(aloop_sleep(loop, ALOOP_MILLIS(100)));
  if (hasty != NULL) aloop_task_cancel(hasty, "changed my mind");
  aloop_await_keep(hasty);
  if (hasty != NULL) printf("four: %s\n", aloop_future_message(hasty));
  aloop_await_keep(patient);
  if (patient != NULL) printf("%s\n", aloop_future_message(patient));
  aloop_future_unref(hasty);
  aloop_future_unref(patient);
}

static int64_t run(aloop_t *loop, void *arg) {
  (void)arg;
  wait_for_one(loop);
  limit_a_scope(loop);
  cancel_by_hand(loop);
  return 0;
}

int main(void) {
  return aloop_run(run, NULL, NULL) < 0;
}
