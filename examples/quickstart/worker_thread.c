/* SPDX-License-Identifier: MIT
 *
 * A loop in a thread of its own, for a program that is not asynchronous: it hands over work, goes about its own affairs,
 * and asks for the results when it needs them.
 *
 * aloop_run_coroutine_threadsafe begins a task from any thread; the sync future that it gives can be waited for there,
 * with a time limit. What a task uses belongs to it until that wait is over.
 */
#include "aloop.h"

#include <pthread.h>
#include <stdio.h>

/* ---- The worker -------------------------------------------------------------------------------------------- */

typedef struct worker {
  aloop_t *loop;
  pthread_t thread;
} worker_t;

static void *turn(void *arg) {
  worker_t *worker = arg;
  aloop_run_forever(worker->loop);
  return NULL;
}

static int worker_start(worker_t *worker) {
  int rc = aloop_new(NULL, &worker->loop);
  if (rc == 0 && pthread_create(&worker->thread, NULL, turn, worker) != 0) {
    aloop_free(worker->loop);
    rc = ALOOP_EAGAIN;
  }
  return rc;
}

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

/* Tasks that have not ended by now see ALOOP_ECLOSED, and so do those who wait for them. */
static void worker_stop(worker_t *worker) {
  aloop_call_soon_threadsafe(worker->loop, stop, NULL);
  pthread_join(worker->thread, NULL);
  aloop_free(worker->loop);
}

/* ---- Work -------------------------------------------------------------------------------------------------- */

typedef struct request {
  int number;
  int64_t delay;
} request_t;

/* As slow as a network would be. */
static int64_t square(aloop_t *loop, void *arg) {
  const request_t *request = arg;
  int64_t rc = aloop_await(aloop_sleep(loop, request->delay));
  return rc < 0 ? rc : (int64_t)request->number * request->number;
}

static void ask(worker_t *worker, request_t *requests, int count) {
  aloop_sync_future_t *answers[8];
  int asked = 0;
  while (asked < count &&
         aloop_run_coroutine_threadsafe(worker->loop, square, &requests[asked], &answers[asked]) == 0)
    asked++;
  puts("asked; meanwhile this thread does as it likes");
  for (int i = 0; i < asked; i++) {
    int64_t answer = aloop_sync_wait(answers[i], ALOOP_SECONDS(1));
    if (answer == ALOOP_ETIMEDOUT) {
      aloop_sync_cancel(answers[i]);
      answer = aloop_sync_wait(answers[i], ALOOP_FOREVER); /* until it has let go of the request */
    }
    if (answer >= 0)
      printf("%d * %d = %lld\n", requests[i].number, requests[i].number, (long long)answer);
    else
      printf("%d * %d: %s\n", requests[i].number, requests[i].number, aloop_strerror(answer));
    aloop_sync_unref(answers[i]);
  }
}

int main(void) {
  worker_t worker;
  if (worker_start(&worker) < 0) return 1;
  request_t requests[] = {{2, ALOOP_MILLIS(300)}, {3, ALOOP_MILLIS(100)}, {4, ALOOP_SECONDS(60)}};
  ask(&worker, requests, 3);
  worker_stop(&worker);
  return 0;
}
