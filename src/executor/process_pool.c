/* SPDX-License-Identifier: MIT
 *
 * The process pool: an executor whose jobs run in other processes, so that a crash costs one job and nothing
 * else. Each job has a thread of a private thread pool for as long as it runs: the thread takes a worker that
 * is free, or has the nursery (nursery.c) make one, sends it the bytes, waits for the answer (worker.c), and
 * gives the worker back. Queue, limits, statistics and shutdown are the thread pool's. There are as many
 * threads as workers, so a thread always finds a place for its own.
 *
 * A future of aloop_run_in_process has a task, and beneath it the future of a common job whose argument the
 * task is. Both sides have a count on the task, because either may end first: the job's side in whichever
 * thread is last to have it, the future's in the loop's. Cancelling takes the job out of the queue or, under
 * the pool's lock, which says whether a worker is at it, has that worker killed. The thread then ends it and
 * another is made for the next job.
 *
 * Workers that did a job stay for the next. One that died in between, or has done max_jobs, is replaced. If
 * the nursery itself was killed there is nobody to make workers: forking it anew would copy a process that may
 * be large and full of threads by now, so jobs fail with ALOOP_ECRASHED from then on, and say so.
 *
 * Once the pool is shut down, or nobody has it any more, the nursery goes when the last job that was taken is
 * done. Whoever waits for the shutdown waits for that too; else a thread is started to do so, because no
 * process and no zombie may be left.
 *
 * In the child of a fork the workers are the parent's: there jobs are refused, and what is left is forgotten.
 */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "executor/executor.h"
#include "executor/job.h"
#include "executor/nursery.h"
#include "executor/thread.h"
#include "executor/worker.h"
#include "future/future.h"

enum { WORKERS_MAX = 4096, TEXT_SIZE = 160 };

#define THREAD_NAME "aloop-process"

/* A worker's place. */
typedef struct place {
  aloop__worker_t worker; /* none: one is made when the place is taken */
  int64_t jobs;           /* that it has done */
  bool taken;             /* by a thread, to which the members above belong as long */
  bool busy;              /* with a job: it may be killed */
} place_t;

typedef struct pool {
  pthread_mutex_t lock;    /* what `place` says, counts, and what tasks have to do with places */
  pthread_mutex_t nursing; /* the nursery is asked by one thread at a time */
  aloop__nursery_t nursery;
  aloop_executor_t *threads;
  aloop__worker_setup_t setup;
  int64_t max_jobs;
  size_t refs;    /* the executor's, and one per task */
  size_t claims;  /* jobs that were taken and may still need a worker */
  bool shut;      /* no more are taken */
  bool closing;   /* a thread sees to the end of the processes */
  unsigned forks; /* when it was made */
  int size;
  place_t places[];
} pool_t;

typedef struct task {
  pool_t *pool;
  aloop_future_t *future; /* what the program waits for; NULL: it does not any more */
  aloop_future_t *job;    /* what the executor ends */

  /* Guarded by the pool's lock. */
  int refs;
  bool claim;
  bool cancelled;
  place_t *place;

  aloop_process_fn fn;
  int64_t result;
  aloop_bytes_t *bytes;
  char text[TEXT_SIZE]; /* of an error that is not the function's own; or empty */
  size_t size;
  char data[];
} task_t;

/* ---- The end of a pool ----------------------------------------------------------------------------------- */

static bool is_forked(const pool_t *pool) {
  return pool->forks != aloop__current_forks();
}

static void lock(pool_t *pool) {
  pthread_mutex_lock(&pool->lock);
}

static void unlock(pool_t *pool) {
  pthread_mutex_unlock(&pool->lock);
}

static void forget_workers(pool_t *pool) {
  for (int i = 0; i < pool->size; i++) aloop__worker_forget(&pool->places[i].worker);
}

/* No thread is at a job, nor will be. Waits until the processes are gone. */
static void close_workers(pool_t *pool) {
  pthread_mutex_lock(&pool->nursing);
  forget_workers(pool);
  aloop__nursery_close(&pool->nursery);
  pthread_mutex_unlock(&pool->nursing);
}

/* In the child of a fork the locks may be held for ever. */
static void free_pool(pool_t *pool) {
  if (is_forked(pool)) {
    aloop__nursery_forget(&pool->nursery);
    forget_workers(pool);
  } else {
    close_workers(pool);
    pthread_mutex_destroy(&pool->nursing);
    pthread_mutex_destroy(&pool->lock);
  }
  aloop__executor_free_block(pool);
}

static void drop_pool(pool_t *pool) {
  bool forked = is_forked(pool);
  if (!forked) lock(pool);
  bool last = --pool->refs == 0;
  if (!forked) unlock(pool);
  if (last) free_pool(pool);
}

static void close_and_drop(pool_t *pool) {
  close_workers(pool);
  drop_pool(pool);
}

static void *run_closing(void *pool) {
  aloop__thread_name(THREAD_NAME);
  close_and_drop(pool);
  return NULL;
}

static void release_workers(pool_t *pool) {
  pthread_mutex_lock(&pool->nursing);
  forget_workers(pool);
  aloop__nursery_release(&pool->nursery);
  pthread_mutex_unlock(&pool->nursing);
}

/* If nothing needs a worker any more, lets go of them. A thread waits for their end: processes with much memory
 * take their time, and this thread may be a loop's. */
static void close_if_over(pool_t *pool) {
  lock(pool);
  bool over = pool->shut && pool->claims == 0 && !pool->closing;
  if (over) {
    pool->closing = true;
    pool->refs++;
  }
  unlock(pool);
  if (over) release_workers(pool);
  if (over && aloop__thread_start(NULL, NULL, run_closing, pool) < 0) close_and_drop(pool);
}

/* The job needs no worker any more. */
static void give_up_claim(task_t *task) {
  pool_t *pool = task->pool;
  if (is_forked(pool)) return;
  lock(pool);
  if (task->claim) pool->claims--;
  task->claim = false;
  unlock(pool);
  close_if_over(pool);
}

static void drop_task(task_t *task) {
  pool_t *pool = task->pool;
  bool forked = is_forked(pool);
  if (!forked) lock(pool);
  bool last = --task->refs == 0;
  if (!forked) unlock(pool);
  if (!last) return;
  free(task->bytes);
  aloop__executor_free_block(task);
  drop_pool(pool);
}

/* The argument of a job is destroyed: the job has run, or never will. */
static void end_job_side(void *arg) {
  give_up_claim(arg);
  drop_task(arg);
}

/* ---- A job, in a thread ---------------------------------------------------------------------------------- */

/* There are as many places as threads. */
static place_t *take_place(pool_t *pool) {
  place_t *place = pool->places;
  lock(pool);
  while (place->taken) place++;
  ALOOP_CHECK(place < pool->places + pool->size);
  place->taken = true;
  unlock(pool);
  return place;
}

static void give_place(pool_t *pool, place_t *place) {
  lock(pool);
  place->taken = false;
  unlock(pool);
}

static void end_worker(place_t *place, char how[ALOOP__WORKER_TEXT]) {
  aloop__worker_end(&place->worker, how);
  place->jobs = 0;
}

/* Sees to it that there is a living worker. */
static int fill_place(pool_t *pool, place_t *place, char text[TEXT_SIZE]) {
  char how[ALOOP__WORKER_TEXT];
  if (place->worker.pid != 0 && aloop__worker_idle(&place->worker)) return 0;
  if (place->worker.pid != 0) end_worker(place, how);
  pthread_mutex_lock(&pool->nursing);
  int rc = aloop__nursery_fork(&pool->nursery, &place->worker);
  pthread_mutex_unlock(&pool->nursing);
  if (rc == ALOOP_ECRASHED)
    snprintf(text, TEXT_SIZE, "the process that makes the workers is gone: make a new pool");
  else if (rc < 0)
    snprintf(text, TEXT_SIZE, "no worker process could be made: %s", aloop_strerror(rc));
  return rc;
}

/* From here on to the end of the job cancelling kills the worker. False: it came before. */
static bool begin(task_t *task, place_t *place) {
  lock(task->pool);
  bool begun = !task->cancelled;
  task->place = begun ? place : NULL;
  place->busy = begun;
  unlock(task->pool);
  return begun;
}

/* Whether the worker was killed. */
static bool end(task_t *task, place_t *place) {
  lock(task->pool);
  task->place = NULL;
  place->busy = false;
  bool cancelled = task->cancelled;
  unlock(task->pool);
  return cancelled;
}

static void work(task_t *task, place_t *place) {
  pool_t *pool = task->pool;
  char how[ALOOP__WORKER_TEXT];
  int64_t result = ALOOP_ECANCELED;
  if (!begin(task, place)) return;
  int rc = aloop__worker_call(&place->worker, task->fn, task->data, task->size, &result, &task->bytes);
  bool killed = end(task, place);
  place->jobs++;
  task->result = rc < 0 ? rc : result;
  if (rc == 0 && !killed && (pool->max_jobs == 0 || place->jobs < pool->max_jobs)) return;
  end_worker(place, how);
  if (rc == ALOOP_ECRASHED) snprintf(task->text, TEXT_SIZE, "%s before its job was done", how);
}

/* Every end but one in the queue is a success of the job: what became of the task is told in the task. */
static int64_t run_task(void *arg) {
  task_t *task = arg;
  pool_t *pool = task->pool;
  place_t *place = take_place(pool);
  task->result = fill_place(pool, place, task->text);
  if (task->result == 0) work(task, place);
  give_place(pool, place);
  give_up_claim(task);
  return 0;
}

/* ---- The table ------------------------------------------------------------------------------------------- */

/* Notes that the job is going to need a worker. */
static int claim(pool_t *pool, task_t *task) {
  lock(pool);
  int rc = pool->shut ? ALOOP_ECLOSED : 0;
  if (rc == 0) {
    task->claim = true;
    pool->claims++;
  }
  unlock(pool);
  return rc;
}

static int pool_submit(void *state, aloop_job_t *job, int lane) {
  pool_t *pool = state;
  (void)lane;
  if (job->fn != run_task) return ALOOP_ENOTSUP; /* its argument means nothing to another process */
  if (is_forked(pool)) return ALOOP_ECHILD;
  int rc = claim(pool, job->arg);
  if (rc < 0) return rc;
  rc = aloop__executor_submit(pool->threads, job, ALOOP_LANE_USER);
  if (rc < 0) give_up_claim(job->arg);
  return rc;
}

static int pool_cancel(void *state, aloop_job_t *job) {
  const pool_t *pool = state;
  return aloop__executor_cancel(pool->threads, job);
}

static int pool_shutdown(void *state, int64_t timeout, unsigned flags) {
  pool_t *pool = state;
  if (is_forked(pool)) return 0;
  lock(pool);
  pool->shut = true;
  unlock(pool);
  int rc = aloop_executor_shutdown(pool->threads, timeout, flags);
  if (rc < 0 || timeout == 0) {
    close_if_over(pool);
    return rc;
  }
  lock(pool);
  pool->closing = true;
  unlock(pool);
  close_workers(pool); /* all threads have ended */
  return 0;
}

static int pool_stats(void *state, aloop_executor_stats_t *stats) {
  const pool_t *pool = state;
  return aloop_executor_stats(pool->threads, stats);
}

/* After a shutdown, so that claims only become fewer. */
static void pool_destroy(void *state) {
  pool_t *pool = state;
  aloop_executor_unref(pool->threads);
  drop_pool(pool);
}

static const aloop_executor_table_t table = {.size = sizeof table,
                                             .name = "process pool",
                                             .submit = pool_submit,
                                             .cancel = pool_cancel,
                                             .shutdown = pool_shutdown,
                                             .stats = pool_stats,
                                             .destroy = pool_destroy};

bool aloop__executor_is_process_pool(const aloop_executor_t *executor) {
  return aloop__executor_state(executor, &table) != NULL;
}

/* ---- Making one ------------------------------------------------------------------------------------------ */

static int default_workers(void) {
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  return cpus < 1 ? 1 : cpus < WORKERS_MAX ? (int)cpus : WORKERS_MAX;
}

static pool_t *new_pool(const aloop_process_pool_options_t *options) {
  int size = options->workers > 0 ? options->workers : default_workers();
  pool_t *pool = aloop__executor_new_block(sizeof *pool + (size_t)size * sizeof(place_t));
  if (pool == NULL) return NULL;
  if (pthread_mutex_init(&pool->lock, NULL) != 0) {
    aloop__executor_free_block(pool);
    return NULL;
  }
  if (pthread_mutex_init(&pool->nursing, NULL) != 0) {
    pthread_mutex_destroy(&pool->lock);
    aloop__executor_free_block(pool);
    return NULL;
  }
  pool->setup = (aloop__worker_setup_t){options->initializer, options->initializer_arg};
  pool->max_jobs = options->max_jobs;
  pool->refs = 1;
  pool->size = size;
  pool->forks = aloop__current_forks();
  return pool;
}

static int open_pool(pool_t *pool, size_t queue_limit, aloop_executor_t **out) {
  aloop_thread_pool_options_t options = {.size = sizeof options, .name = THREAD_NAME};
  options.threads[ALOOP_LANE_USER] = pool->size;
  options.queue_limit = queue_limit;
  int rc = aloop__nursery_open(&pool->nursery, pool->size, aloop__worker_serve, &pool->setup);
  if (rc == 0) rc = aloop_thread_pool_new(&options, &pool->threads);
  if (rc == 0) rc = aloop_executor_new(&table, pool, out);
  if (rc < 0) aloop_executor_unref(pool->threads);
  return rc;
}

static int misuse(const char *rule) {
  return aloop__misuse(NULL, ALOOP_EINVAL, rule);
}

int aloop_process_pool_new(const aloop_process_pool_options_t *options, aloop_executor_t **out) {
  aloop_process_pool_options_t copy = {.size = sizeof copy};
  if (out == NULL) return misuse("a new pool needs a place to go to");
  if (options != NULL && aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return misuse("set options.size to sizeof(aloop_process_pool_options_t)");
  if (copy.workers < 0 || copy.workers > WORKERS_MAX) return misuse("options.workers is from 0 to 4096");
  if (copy.max_jobs < 0) return misuse("options.max_jobs is not negative");
  pool_t *pool = new_pool(&copy);
  if (pool == NULL) return ALOOP_ENOMEM;
  int rc = open_pool(pool, copy.queue_limit, out);
  if (rc < 0) free_pool(pool);
  return rc;
}

/* ---- The future's side ----------------------------------------------------------------------------------- */

/* What the task came to. */
static void finish(aloop_future_t *future, task_t *task) {
  aloop_bytes_t *bytes = task->bytes;
  if (task->result >= 0) {
    task->bytes = NULL;
    aloop__future_finish_ptr(future, task->result, bytes, free);
    return;
  }
  const char *text = task->text;
  if (text[0] == '\0' && bytes != NULL && bytes->size > 0) text = bytes->data;
  int error = task->result < INT_MIN ? ALOOP_ERANGE : (int)task->result;
  aloop__future_fail(future, error, text[0] != '\0' ? "%s" : NULL, text);
}

static void drop_job(task_t *task) {
  aloop_future_t *job = task->job;
  task->job = NULL;
  aloop_future_unref(job);
}

static void job_done(aloop_future_t *job, void *arg) {
  task_t *task = arg;
  aloop_future_t *future = task->future;
  int64_t value = aloop_future_result(job);
  task->future = NULL;
  if (value == 0)
    finish(future, task);
  else
    aloop__future_fail(future, (int)value, "%s", aloop_future_message(job));
  drop_job(task);
  drop_task(task);
}

/* The program does not wait any more. */
static void stop(aloop_future_t *future, void *arg) {
  task_t *task = arg;
  pool_t *pool = task->pool;
  (void)future;
  task->future = NULL;
  aloop__future_unwatch(task->job, job_done, task);
  if (!is_forked(pool)) {
    lock(pool);
    task->cancelled = true;
    if (task->place != NULL && task->place->busy) aloop__worker_kill(&task->place->worker);
    unlock(pool);
  }
  aloop_future_cancel(task->job);
  drop_job(task);
  drop_task(task);
}

static task_t *new_task(pool_t *pool, aloop_process_fn fn, const void *data, size_t size) {
  if (size > SIZE_MAX / 2) return NULL;
  task_t *task = aloop__memory_default.resize(NULL, NULL, sizeof *task + size);
  if (task == NULL) return NULL;
  memset(task, 0, sizeof *task);
  task->pool = pool;
  task->refs = 2;
  task->fn = fn;
  task->size = size;
  if (size > 0) memcpy(task->data, data, size);
  if (!is_forked(pool)) lock(pool);
  pool->refs++;
  if (!is_forked(pool)) unlock(pool);
  return task;
}

/* Gives the task to the executor: false if there is no memory for that. */
static bool start(aloop_t *loop, aloop_executor_t *executor, aloop_future_t *future, task_t *task) {
  const aloop_job_options_t options = {
      .size = sizeof options, .fn = run_task, .arg = task, .destroy = end_job_side, .lane = ALOOP_LANE_USER};
  task->job = aloop_submit(loop, executor, &options);
  if (task->job == NULL) {
    drop_task(task);
    return false;
  }
  aloop__future_ignore(task->job);
  if (aloop_future_done(task->job)) {
    aloop__future_fail(future, (int)aloop_future_result(task->job), "%s", aloop_future_message(task->job));
    drop_job(task);
    return true;
  }
  if (aloop__future_watch(task->job, job_done, task) < 0) {
    aloop_future_cancel(task->job);
    drop_job(task);
    return false;
  }
  task->future = future;
  aloop__future_set_operation(future, stop, task);
  return true;
}

static aloop_future_t *refuse(aloop_t *loop, const char *rule) {
  return aloop__future_refused(loop, NULL, ALOOP_EINVAL, rule);
}

aloop_future_t *aloop_run_in_process(aloop_t *loop, aloop_executor_t *executor, aloop_process_fn fn,
                                     const void *data, size_t size) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  pool_t *pool = aloop__executor_state(executor, &table);
  if (pool == NULL) return refuse(loop, "pass a pool that aloop_process_pool_new made");
  if (fn == NULL) return refuse(loop, "a job needs a function");
  if (data == NULL && size > 0) return refuse(loop, "data is NULL, but size is not 0");
  aloop_future_t *future = aloop__future_new(loop, NULL);
  if (future == NULL || aloop_future_done(future)) return future;
  task_t *task = new_task(pool, fn, data, size);
  bool started = task != NULL && start(loop, executor, future, task);
  if (task != NULL && task->future == NULL) drop_task(task);
  if (started) return future;
  aloop_future_unref(future);
  return NULL;
}
