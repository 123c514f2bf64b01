/* SPDX-License-Identifier: MIT
 *
 * The default executor of a loop: the one that serves jobs which name none. Unless the program sets another, it
 * is a thread pool of the loop's own, made by the first job. It is a plain executor with one reference held
 * here, so closing the loop gives that up: a pool of the loop's own then shuts down without waiting, one that
 * other loops share goes on.
 *
 * Shutting down waits for jobs, which a loop must not, so a helper thread does the waiting: it runs
 * aloop_executor_shutdown as a job of its own, and the job's future is the caller's. Such a thread lives as
 * long as the wait and is forgotten if the loop is closed first.
 *
 * In the child of a fork a pool of the loop's own has lost its threads. It is dropped and made anew; an
 * executor of the program is the program's affair.
 */
#include "core/report.h"
#include "executor/executor.h"
#include "executor/job.h"
#include "executor/thread.h"
#include "future/future.h"

int aloop__default_open(aloop__jobs_t *jobs, aloop_executor_t **out) {
  if (jobs->shut) return ALOOP_ECLOSED;
  if (jobs->own && jobs->executor_forks != aloop__current_forks_seen()) aloop__default_close(jobs);
  if (ALOOP_UNLIKELY(jobs->executor == NULL)) {
    int rc = aloop_thread_pool_new(NULL, &jobs->executor);
    if (rc < 0) return rc;
    jobs->own = true;
    jobs->executor_forks = aloop__current_forks();
  }
  *out = jobs->executor;
  return 0;
}

void aloop__default_close(aloop__jobs_t *jobs) {
  aloop_executor_t *executor = jobs->executor;
  jobs->executor = NULL;
  jobs->own = false;
  aloop_executor_unref(executor);
}

int aloop_set_default_executor(aloop_t *loop, aloop_executor_t *executor) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (aloop__executor_is_process_pool(executor))
    return aloop__misuse(loop, ALOOP_EINVAL,
                         "a default executor runs jobs of this process; a process pool does not");
  aloop__jobs_t *jobs = aloop__jobs_open(loop);
  if (jobs == NULL) return ALOOP_ENOMEM;
  aloop_executor_t *before = jobs->executor;
  jobs->executor = aloop_executor_ref(executor);
  jobs->executor_forks = aloop__current_forks();
  jobs->own = jobs->shut = false;
  aloop_executor_unref(before); /* last: the program's own may do anything as it ends */
  return 0;
}

aloop_executor_t *aloop_get_default_executor(aloop_t *loop) {
  aloop_executor_t *executor;
  if (aloop__loop_enter(loop) < 0) return NULL;
  aloop__jobs_t *jobs = aloop__jobs_open(loop);
  return jobs != NULL && aloop__default_executor(jobs, &executor) == 0 ? executor : NULL;
}

/* ---- Shutting down --------------------------------------------------------------------------------------- */

typedef struct request {
  aloop_executor_t *executor;
  int64_t timeout;
} request_t;

static void release(request_t *request) {
  aloop_executor_unref(request->executor);
  aloop__executor_free_block(request);
}

/* The job. It releases its argument itself, which is no object for the future. */
static int64_t wait_for_end(void *arg) {
  request_t *request = arg;
  int rc = aloop_executor_shutdown(request->executor, request->timeout, 0);
  release(request);
  return rc;
}

static void *run_helper(void *job) {
  aloop__thread_name("aloop-shutdown");
  aloop_job_run(job);
  return NULL;
}

static int submit_to_helper(void *state, aloop_job_t *job, int lane) {
  (void)state;
  (void)lane;
  return aloop__thread_start(NULL, NULL, run_helper, job);
}

static const aloop_executor_table_t helper = {
    .size = sizeof helper, .name = "helper", .submit = submit_to_helper};

/* NULL: out of memory. */
static request_t *new_request(aloop_executor_t *executor, int64_t timeout) {
  request_t *request = aloop__executor_new_block(sizeof *request);
  if (request == NULL) return NULL;
  request->executor = aloop_executor_ref(executor);
  request->timeout = timeout;
  return request;
}

static aloop_future_t *shut_down(aloop__jobs_t *jobs, int64_t timeout) {
  aloop_executor_t *thread;
  if (aloop_executor_new(&helper, NULL, &thread) < 0) return NULL;
  request_t *request = new_request(jobs->executor, timeout);
  aloop_future_t *future = NULL;
  if (request != NULL) future = aloop_run_in_executor(jobs->loop, thread, wait_for_end, request);
  aloop_executor_unref(thread);
  if (future == NULL || aloop_future_done(future)) { /* there is no such thread */
    if (request != NULL) release(request);
    return future;
  }
  jobs->shut = true;
  aloop_executor_shutdown(jobs->executor, 0, 0);
  return future;
}

aloop_future_t *aloop_shutdown_default_executor(aloop_t *loop, int64_t timeout) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (timeout < ALOOP_FOREVER)
    return aloop__future_refused(loop, NULL, ALOOP_EINVAL, "a timeout is not negative, or ALOOP_FOREVER");
  aloop__jobs_t *jobs = aloop_is_closed(loop) ? NULL : aloop__jobs_open(loop);
  if (jobs != NULL && jobs->executor != NULL) return shut_down(jobs, timeout);
  if (jobs == NULL && !aloop_is_closed(loop)) return NULL;
  aloop_future_t *future = aloop__future_new(loop, NULL);
  if (future != NULL && jobs != NULL) jobs->shut = true;
  aloop__future_finish(future, 0);
  return future;
}
