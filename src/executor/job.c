/* SPDX-License-Identifier: MIT
 *
 * Jobs: work that leaves the loop's thread, and how its end comes back.
 *
 * A future, a job and an argument have three lives here. The future belongs to the loop's thread like any
 * other. The job is given to an executor, which must run or drop it once, or hand it back when asked to cancel.
 * The argument, if the job owns it, ends with the job, or becomes the object of the future.
 *
 * A job that is done goes to the inbox of its loop: a stack that any thread pushes to without a lock, and that
 * the loop takes as a whole. Only the push that finds it empty tells the loop, so that under a flood a job
 * costs one compare-and-swap and not one post. Telling is a post (call_soon_threadsafe); if there is no memory
 * for it the wake-up descriptor is written to instead, which needs none, and the loop looks into the inbox
 * then. So no end is ever lost and no worker ever waits for memory.
 *
 * The inbox outlives its loop. To push a first job takes its lock, under which the loop may be told; closing
 * takes the lock, too, puts CLOSED in the place of the stack and notes how many jobs are still out. Each of
 * them finds CLOSED when it is done, destroys its argument in the thread where it is, and the last one frees
 * the inbox. So aloop_close waits for nobody, and nobody touches a loop that is gone.
 *
 * A future that ends early (cancel, aloop_close, set_value by the program) takes its job back if the executor
 * can; then the argument is destroyed at once. Else the job runs on, unheard, and the argument ends after it.
 *
 * In the child of a fork there are no other threads. aloop_after_fork ends what was under way with
 * ALOOP_ECHILD; the arguments of jobs that a thread was at are left alone, because nobody knows in which state
 * they are.
 *
 * Blocks of jobs are kept for reuse by the loop, which alone makes them. Left out: priorities, and any promise
 * about the order in which jobs end.
 */
#include "executor/job.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/memory.h"
#include "core/report.h"
#include "executor/executor.h"
#include "future/future.h"

#define ORIGIN "aloop_run_in_executor"

enum { SPARES_MAX = 1024, ENDED_AT_ONCE = 1024 };

struct aloop__inbox {
  _Atomic(aloop_job_t *) done; /* the last one pushed first */
  char apart[64];
  pthread_mutex_t lock;
  aloop_t *loop; /* NULL: closed */
  size_t out;    /* jobs that are not done, once it is closed */
};

static aloop_job_t closed_mark;
#define CLOSED (&closed_mark)

/* ---- The end of a job, in its loop ----------------------------------------------------------------------- */

/* The count of an executor's jobs, or an unused one, or NULL: all are in use. */
static aloop__use_t *use_of(aloop__jobs_t *jobs, const aloop_executor_t *executor) {
  aloop__use_t *spare = NULL;
  for (aloop__use_t *use = jobs->uses; use < jobs->uses + ALOOP__USES; use++) {
    if (use->executor == executor) return use;
    if (use->executor == NULL && spare == NULL) spare = use;
  }
  return spare;
}

/* While a job has a future its executor lives. */
static inline void keep_executor(aloop__jobs_t *jobs, aloop_job_t *job, aloop_executor_t *executor) {
  aloop__use_t *use = jobs->uses;
  if (ALOOP_UNLIKELY(use->executor != executor)) use = use_of(jobs, executor);
  job->executor = executor;
  job->use = use;
  if (use == NULL || use->executor == NULL) aloop_executor_ref(executor);
  if (use == NULL) return;
  use->executor = executor;
  use->jobs++;
}

/* Returns the executor if nobody here needs it any more: a reference. */
static aloop_executor_t *leave_executor(aloop_job_t *job) {
  aloop_executor_t *executor = job->executor;
  aloop__use_t *use = job->use;
  job->executor = NULL;
  if (executor == NULL || use == NULL) return executor;
  if (--use->jobs > 0) return NULL;
  use->executor = NULL;
  return executor;
}

/* The block goes back to the loop that made it. */
static void give_block(aloop__jobs_t *jobs, aloop_job_t *job) {
  jobs->loop->live[ALOOP__JOB]--;
  if (jobs->spares.count == SPARES_MAX)
    aloop__executor_free_block(job);
  else
    aloop__spares_give(&jobs->spares, job, sizeof *job);
}

/* The job is done, or is not going to be. Its argument's destructor and the executor's are called last:
 * they may do anything, and close the loop. */
static void end_job(aloop__jobs_t *jobs, aloop_job_t *job) {
  aloop_executor_t *executor = leave_executor(job);
  aloop_destroy_fn destroy = job->destroy;
  void *arg = job->arg;
  give_block(jobs, job);
  if (destroy != NULL) destroy(arg);
  if (executor != NULL) aloop_executor_unref(executor);
}

static void end_future(aloop_job_t *job) {
  aloop_future_t *future = job->future;
  job->future = NULL;
  if (future == NULL) return;
  if (job->value < 0) {
    aloop__future_fail(future, job->value < INT_MIN ? ALOOP_ERANGE : (int)job->value, NULL);
  } else if (job->destroy != NULL) {
    aloop_destroy_fn destroy = job->destroy;
    job->destroy = NULL;
    aloop__future_finish_ptr(future, job->value, job->arg, destroy);
  } else {
    aloop__future_finish(future, job->value);
  }
}

/* Moves a stack to the end of the list of due jobs, where the one that finished first comes first. */
static void append_due(aloop__jobs_t *jobs, aloop_job_t *top) {
  aloop_job_t *first = NULL, *last = top;
  if (top == NULL) return;
  while (top != NULL) {
    aloop_job_t *next = top->next;
    top->next = first;
    first = top;
    top = next;
  }
  *jobs->due_end = first;
  jobs->due_end = &last->next;
}

static aloop_job_t *next_due(aloop__jobs_t *jobs) {
  aloop_job_t *job = jobs->due;
  jobs->due = job->next;
  if (jobs->due == NULL) jobs->due_end = &jobs->due;
  return job;
}

/* Ends what has finished. A flood is ended in parts, so that it does not keep the loop from I/O. */
static void drain(aloop_t *loop, void *arg) {
  (void)arg;
  aloop__jobs_t *jobs = aloop__jobs_of(loop);
  append_due(jobs, atomic_exchange_explicit(&jobs->inbox->done, NULL, memory_order_acquire));
  for (int left = ENDED_AT_ONCE; jobs->due != NULL; left--) {
    if (left <= 0 && aloop__ready_push(loop, drain, NULL)) return;
    aloop_job_t *job = next_due(jobs);
    end_future(job);
    end_job(jobs, job);
  }
}

/* ---- The end of a job, in any thread --------------------------------------------------------------------- */

static void free_inbox(aloop__inbox_t *inbox) {
  pthread_mutex_destroy(&inbox->lock);
  aloop__executor_free_block(inbox);
}

/* Nobody is there to hear of it. */
static void end_orphan(aloop_job_t *job) {
  aloop__inbox_t *inbox = job->inbox;
  if (job->destroy != NULL) job->destroy(job->arg);
  aloop__executor_free_block(job);
  pthread_mutex_lock(&inbox->lock);
  bool last = --inbox->out == 0;
  pthread_mutex_unlock(&inbox->lock);
  if (last) free_inbox(inbox);
}

/* The stack was empty. The lock is held, so the loop is there or known to be gone. */
static void tell_loop(aloop__inbox_t *inbox) {
  if (inbox->loop == NULL) return;
  int rc = aloop_call_soon_threadsafe_from(inbox->loop, drain, NULL, NULL);
  if (rc == ALOOP_ENOMEM) aloop__wake_signal(inbox->loop);
}

typedef enum pushed { REFUSED, FIRST, ON_TOP } pushed_t;

/* From FIRST and ON_TOP on the job belongs to the loop. */
static pushed_t push(aloop__inbox_t *inbox, aloop_job_t *job, bool may_be_first) {
  aloop_job_t *top = atomic_load_explicit(&inbox->done, memory_order_relaxed);
  do {
    if (top == CLOSED || (top == NULL && !may_be_first)) return REFUSED;
    job->next = top;
  } while (!atomic_compare_exchange_weak_explicit(&inbox->done, &top, job, memory_order_release,
                                                  memory_order_relaxed));
  return top == NULL ? FIRST : ON_TOP;
}

static void finish(aloop_job_t *job) {
  aloop__inbox_t *inbox = job->inbox;
  pushed_t pushed = push(inbox, job, false);
  if (pushed == REFUSED) {
    pthread_mutex_lock(&inbox->lock);
    pushed = push(inbox, job, true);
    if (pushed == FIRST) tell_loop(inbox);
    pthread_mutex_unlock(&inbox->lock);
  }
  if (pushed == REFUSED) end_orphan(job);
}

void aloop_job_run(aloop_job_t *job) {
  if (job == NULL) {
    aloop__misuse(NULL, ALOOP_EINVAL, "the job is NULL");
    return;
  }
  atomic_store_explicit(&job->begun, true, memory_order_relaxed);
  job->value = job->fn(job->arg);
  finish(job);
}

void aloop_job_drop(aloop_job_t *job, int error) {
  if (job == NULL || error >= 0)
    aloop__misuse(NULL, ALOOP_EINVAL, "a job is dropped with a negative code, and is not NULL");
  if (job == NULL) return;
  atomic_store_explicit(&job->begun, true, memory_order_relaxed);
  job->value = error < 0 ? error : ALOOP_ECANCELED;
  finish(job);
}

/* ---- The room -------------------------------------------------------------------------------------------- */

static aloop__inbox_t *new_inbox(aloop_t *loop) {
  aloop__inbox_t *inbox = aloop__executor_new_block(sizeof *inbox);
  if (inbox == NULL) return NULL;
  if (pthread_mutex_init(&inbox->lock, NULL) != 0) {
    aloop__executor_free_block(inbox);
    return NULL;
  }
  atomic_init(&inbox->done, NULL);
  inbox->loop = loop;
  return inbox;
}

/* In the child of a fork another thread may seem to hold the lock for ever. */
static void renew_lock(aloop__jobs_t *jobs) {
  if (jobs->forks == aloop__current_forks()) return;
  jobs->forks = aloop__current_forks();
  pthread_mutex_init(&jobs->inbox->lock, NULL);
}

/* From now on jobs end where they are. Those that have finished become due. */
static void close_inbox(aloop__jobs_t *jobs) {
  aloop__inbox_t *inbox = jobs->inbox;
  size_t due = 0;
  pthread_mutex_lock(&inbox->lock);
  inbox->loop = NULL;
  append_due(jobs, atomic_exchange_explicit(&inbox->done, CLOSED, memory_order_acquire));
  for (const aloop_job_t *job = jobs->due; job != NULL; job = job->next) due++;
  inbox->out = jobs->loop->live[ALOOP__JOB] - due;
  bool last = inbox->out == 0;
  pthread_mutex_unlock(&inbox->lock);
  if (last) free_inbox(inbox);
}

static void close_room(aloop_t *loop, aloop__room_t *room) {
  aloop__jobs_t *jobs = ALOOP_CONTAINER_OF(room, aloop__jobs_t, room);
  aloop__default_close(jobs);
  renew_lock(jobs);
  close_inbox(jobs);
  while (jobs->due != NULL) end_job(jobs, next_due(jobs)); /* their futures have ended */
  while (jobs->spares.first != NULL)
    aloop__executor_free_block(aloop__spares_take(&jobs->spares, sizeof(aloop_job_t)));
  loop->live[ALOOP__JOB] = 0;
  aloop__memory_release(loop, jobs);
}

static void woken(aloop_t *loop, aloop__room_t *room) {
  const aloop__jobs_t *jobs = ALOOP_CONTAINER_OF(room, aloop__jobs_t, room);
  if (atomic_load_explicit(&jobs->inbox->done, memory_order_relaxed) != NULL) drain(loop, NULL);
}

/* The future ends early: takes the job back, or forgets it. */
static void take_back(aloop_future_t *future, void *arg) {
  aloop_job_t *job = arg;
  aloop_t *loop = future->object.loop;
  job->future = NULL;
  bool taken = aloop__executor_cancel(job->executor, job);
  if (taken && atomic_load_explicit(&job->begun, memory_order_relaxed)) {
    aloop__misuse(loop, ALOOP_EALREADY,
                  "an executor's cancel must not give back a job that was run or dropped");
    taken = false;
  }
  if (taken)
    end_job(aloop__jobs_of(loop), job);
  else
    aloop_executor_unref(leave_executor(job));
}

static int give_up(aloop__object_t *object) {
  aloop_future_t *future = aloop__future_of_operation(object, take_back);
  if (future == NULL) return 0;
  take_back(future, future->stop_arg);
  aloop__future_fail(future, ALOOP_ECHILD, "the job was in a thread of the parent process when it forked");
  return 0;
}

/* In the child: whoever was at the jobs did not come along. */
static int after_fork(aloop_t *loop, aloop__room_t *room) {
  renew_lock(ALOOP_CONTAINER_OF(room, aloop__jobs_t, room));
  drain(loop, NULL);
  return aloop__object_each(loop, give_up);
}

aloop__jobs_t *aloop__jobs_open(aloop_t *loop) {
  aloop__jobs_t *jobs = aloop__jobs_of(loop);
  if (ALOOP_LIKELY(jobs != NULL)) return jobs;
  jobs = aloop__memory_zero(loop, sizeof *jobs);
  if (jobs == NULL) return NULL;
  jobs->inbox = new_inbox(loop);
  if (jobs->inbox == NULL) {
    aloop__memory_release(loop, jobs);
    return NULL;
  }
  jobs->room = (aloop__room_t){.close = close_room, .woken = woken, .after_fork = after_fork};
  jobs->loop = loop;
  jobs->forks = loop->fork_generation;
  jobs->due_end = &jobs->due;
  loop->rooms[ALOOP__ROOM_EXECUTOR] = &jobs->room;
  return jobs;
}

/* ---- Submitting ------------------------------------------------------------------------------------------ */

/* A block for a job, counted. NULL: out of memory. */
static inline aloop_job_t *take_block(aloop__jobs_t *jobs) {
  bool spare = ALOOP_LIKELY(jobs->spares.first != NULL);
  aloop_job_t *job =
      spare ? aloop__spares_take(&jobs->spares, sizeof *job) : aloop__executor_new_block(sizeof *job);
  if (ALOOP_UNLIKELY(job == NULL)) return NULL;
  jobs->loop->live[ALOOP__JOB]++;
  return job;
}

static const char *reason_of(int error) {
  switch (error) {
  case ALOOP_ECLOSED:
    return "the executor is shut down and takes no more jobs";
  case ALOOP_EAGAIN:
    return "the executor's queue is full, or it could start no thread";
  case ALOOP_ECHILD:
    return "the threads of this executor are in the parent process: make a new one after fork";
  case ALOOP_ENOTSUP:
    return "this executor has no such jobs; those of a process pool come from aloop_run_in_process";
  default:
    return NULL;
  }
}

/* The executor has not taken the job. */
static ALOOP_NOINLINE void not_taken(aloop_job_t *job, int error) {
  const char *reason = reason_of(error);
  aloop_future_t *future = job->future;
  aloop_t *loop = future->object.loop;
  job->future = NULL;
  aloop__future_fail(future, error, reason != NULL ? "%s: %s" : NULL, aloop__executor_name(job->executor),
                     reason);
  end_job(aloop__jobs_of(loop), job);
  if (error == ALOOP_ECLOSED || error == ALOOP_ECHILD || error == ALOOP_ENOTSUP)
    aloop__misuse(loop, error, reason);
}

/* A future that has failed, because of a mistake; then the argument is destroyed. NULL: it is the caller's. */
static aloop_future_t *refuse(aloop_t *loop, const aloop_job_options_t *options, int error, const char *rule) {
  aloop_future_t *future = aloop__future_refused(loop, ORIGIN, error, rule);
  if (future != NULL && options->destroy != NULL) options->destroy(options->arg);
  return future;
}

/* Why a job cannot be submitted to this loop at all. */
static ALOOP_NOINLINE aloop_future_t *refuse_loop(aloop_t *loop, const aloop_job_options_t *options) {
  if (loop->guard & ALOOP__GUARD_CLOSED) return refuse(loop, options, ALOOP_ECLOSED, "the loop is closed");
  return refuse(loop, options, ALOOP_ECHILD,
                "the loop was made before fork; call aloop_after_fork in the child");
}

ALOOP_INLINE aloop_future_t *submit(aloop_t *loop, aloop_executor_t *executor,
                                    const aloop_job_options_t *options) {
  if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_CLOSED) ||
      ALOOP_UNLIKELY(loop->fork_generation != aloop__current_forks_seen()))
    return refuse_loop(loop, options);
  aloop__jobs_t *jobs = aloop__jobs_of(loop);
  if (ALOOP_UNLIKELY(jobs == NULL) && (jobs = aloop__jobs_open(loop)) == NULL) return NULL;
  int rc = executor == NULL ? aloop__default_executor(jobs, &executor) : 0;
  if (rc == ALOOP_ENOMEM) return NULL;
  if (rc < 0) return refuse(loop, options, rc, "the default executor is shut down: aloop_set_default_executor");
  aloop_job_t *job = take_block(jobs);
  if (job == NULL) return NULL;
  aloop_future_t *future = aloop__future_new(loop, ORIGIN);
  if (future == NULL) {
    give_block(jobs, job);
    return NULL;
  }
  job->fn = options->fn;
  job->arg = options->arg;
  job->destroy = options->destroy;
  job->queued = false;
  atomic_store_explicit(&job->begun, false, memory_order_relaxed);
  job->inbox = jobs->inbox;
  job->future = future;
  keep_executor(jobs, job, executor);
  aloop__future_set_operation(future, take_back, job);
  rc = aloop__executor_submit(executor, job, options->lane);
  if (ALOOP_UNLIKELY(rc < 0)) not_taken(job, rc);
  return future;
}

aloop_future_t *aloop_submit(aloop_t *loop, aloop_executor_t *executor, const aloop_job_options_t *options) {
  aloop_job_options_t copy = {0};
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return refuse(loop, &copy, ALOOP_EINVAL, "set options.size to sizeof(aloop_job_options_t)");
  if (copy.fn == NULL) return refuse(loop, &copy, ALOOP_EINVAL, "a job needs a function: set options.fn");
  if (copy.lane < 0 || copy.lane >= ALOOP_LANES)
    return refuse(loop, &copy, ALOOP_EINVAL, "options.lane is none of ALOOP_LANE_USER, FILE and DNS");
  return submit(loop, executor, &copy);
}

aloop_future_t *aloop_run_in_executor(aloop_t *loop, aloop_executor_t *executor, aloop_job_fn fn, void *arg) {
  const aloop_job_options_t options = {.fn = fn, .arg = arg};
  if (!aloop__loop_ok(loop)) return NULL;
  if (ALOOP_UNLIKELY(fn == NULL)) return refuse(loop, &options, ALOOP_EINVAL, "a job needs a function");
  return submit(loop, executor, &options);
}
