/* SPDX-License-Identifier: MIT
 *
 * Running a loop until a future is done: run_forever with a done callback that stops the loop. It lives here
 * because the core knows nothing of futures.
 *
 * The callback is taken back whatever ended the run, even if it is already queued: left behind it would stop
 * the next run. A future that is done before the call still gives one turn, as in asyncio. The reference is
 * given up in every case, so that calls nest: aloop_run_until_complete(loop, aloop_sleep(loop, ...)).
 */
#include "core/report.h"
#include "future/future.h"

static void stop_loop(aloop_future_t *future, void *arg) {
  (void)arg;
  aloop_stop(future->object.loop);
}

/* 0 when the future is done, else why not. */
static int run(aloop_t *loop, aloop_future_t *future) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (future == NULL) return ALOOP_ENOMEM;
  if (future->object.loop != loop)
    return aloop__misuse(loop, ALOOP_EOTHERLOOP, "a loop runs until a future of its own is done");
  if (aloop__future_watch(future, stop_loop, NULL) < 0) return ALOOP_ENOMEM;
  rc = aloop_run_forever(loop);
  aloop__future_unwatch(future, stop_loop, NULL);
  if (rc < 0) return rc;
  return aloop_future_done(future) ? 0 : ALOOP_ESTOPPED;
}

/* A call from a wrong thread (debug mode) touches nothing. */
static void give_up(aloop_future_t *future, int rc) {
  if (rc != ALOOP_ENOTLOOPTHREAD) aloop_future_unref(future);
}

int64_t aloop_run_until_complete(aloop_t *loop, aloop_future_t *future) {
  int rc = run(loop, future);
  int64_t result = rc < 0 ? rc : aloop_future_result(future);
  give_up(future, rc);
  return result;
}

int aloop_run_until_complete_ptr(aloop_t *loop, aloop_future_t *future, void *out) {
  int rc = aloop__loop_thread(loop);
  if (rc == 0 && out == NULL)
    rc = aloop__misuse(loop, ALOOP_EINVAL, "the object of a future needs a place to go to");
  if (rc == 0) rc = run(loop, future);
  int result = rc < 0 ? rc : aloop_future_take_ptr(future, out);
  give_up(future, rc);
  return result;
}
