/* SPDX-License-Identifier: MIT
 *
 * The thread pool. Its jobs wait in lanes, each a queue with a limit of its own: how many of its jobs may run
 * at one time. Threads belong to no lane. One that is free takes the first job of a lane under its limit, and
 * goes round the lanes so that none is left out; as there may be as many threads as all limits together, files
 * never wait for names, nor names for the program's own work.
 *
 * One lock guards everything, and is held for some twenty instructions. Every step is O(1): a job is linked
 * both ways, so that taking it back needs no search. But loops and threads that want it at once put each other
 * to sleep, which took two thirds of the time of a flood. So while a thread that was woken has not come yet, a
 * job is left for it on a stack, without the lock: the stack has a mark at its bottom, which that thread takes
 * away together with the jobs. Others look there when their lanes have nothing, and now and then. A queue with
 * a limit has to be counted, and so is always locked. The clock is not read for jobs that are left there (27 ns
 * on a virtual machine): whoever takes them away spreads their times over that since the last look.
 *
 * Threads are started, and woken, by need and one at a time: a job that could run at once calls one thread,
 * unless one is coming already; a thread that has come and found a job calls the next if there is more to do.
 * So a flood of small jobs costs few wake-ups, and starting many threads is not the loop's work. The thread
 * that fell asleep last is woken first, and the others reach their idle timeout. A thread without work sleeps
 * at once: looking around for a moment first was measured, and made nothing faster. Threads are called under
 * the lock and woken without it, or they would wait for it at once.
 *
 * A thread that ends joins the one that ended before it, and whoever shuts the pool down joins the last, so no
 * thread stays unjoined however many come and go. If the executor is released first, the last thread releases
 * the pool and nobody joins it.
 *
 * In the child of a fork there are no threads, and the lock may be held for ever: a pool of the parent is
 * refused with ALOOP_ECHILD, and released without a look at the lock.
 *
 * A job in a flood costs some 720 instructions in all threads. A bare hand-over to one thread and back, over
 * two stacks as here but without lock, clock, futures or a poller, takes 46 to 70 ns, 15 to 40 over rings of
 * pointers. Built, measured in floods of 1000 empty jobs (of this one's CPU time), and left out: a thread that
 * takes up to 16 tiny jobs under one lock, while others may help and any may still be cancelled (0.98, and 175
 * lines; reading the clock more seldom, too, it falls on the heels of the loop, whose submitting then takes
 * twice as long); a second thread that only looks every 200 us whether the first one still gets on (0.95 to
 * 0.98); jobs on cache lines of their own (1.0).
 *
 * Left out: stealing, priorities, and binding to CPUs.
 */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/list.h"
#include "core/memory.h"
#include "core/report.h"
#include "executor/executor.h"
#include "executor/job.h"
#include "executor/thread.h"

enum { THREADS_MAX = 32, THREADS_MORE = 4, NAME_SIZE = 16, LOOK_AFTER = 16 };

#define IDLE_TIMEOUT ALOOP_SECONDS(30)

typedef struct lane {
  aloop_job_t *first, *last;
  unsigned bit; /* in pool->wanting */
  size_t queued;
  size_t running;
  size_t limit;
  uint64_t done, cancelled, refused;
  uint64_t wait_ticks, wait_max, run_ticks, run_max;
} lane_t;

typedef struct pool {
  /* Jobs on their way into the lanes, the last one first, under a mark if somebody is coming for them. */
  _Atomic(aloop_job_t *) arrived;
  char apart[ALOOP__CACHE_LINE];
  pthread_mutex_t lock;
  unsigned wanting;  /* a bit for each lane that has a job which could run */
  lane_t *last_lane; /* that gave a job */
  unsigned turns;    /* how often one was asked for */
  uint64_t looked;   /* when somebody last looked at the arrivals, in ticks */
  size_t coming;     /* threads that are going to look for a job: just started or woken, */
  size_t woken;      /* and only those: they do come */
  lane_t lanes[ALOOP_LANES];
  size_t threads;
  size_t limit;         /* of all lanes together */
  aloop__list_t idle;   /* sleeping threads, the last one to fall asleep last */
  pthread_cond_t empty; /* the last thread is about to end */
  bool shut;
  bool released; /* by the executor: the last thread frees the pool */
  bool ended_any;
  pthread_t ended; /* the last thread that ended, to be joined */

  size_t queue_limit;
  int64_t idle_timeout;
  pthread_attr_t attributes;
  void *(*run)(void *worker);
  unsigned forks;
  int64_t born_time;
  uint64_t born_ticks;
  char name[NAME_SIZE];
} pool_t;

typedef struct worker {
  aloop__list_t link; /* in pool->idle */
  pool_t *pool;
  aloop__bed_t bed;
} worker_t;

/* What is to be done without the lock so that somebody comes. */
typedef struct call {
  void *bell; /* a thread's that sleeps */
  bool start; /* a thread was counted, and has to be started */
} call_t;

/* The pool whose thread this is. */
static _Thread_local const pool_t *working_for;

static void lock(pool_t *pool) {
  pthread_mutex_lock(&pool->lock);
}

static void unlock(pool_t *pool) {
  pthread_mutex_unlock(&pool->lock);
}

/* Two CPUs may disagree a little about the time. */
static uint64_t ticks_between(uint64_t from, uint64_t to) {
  return to > from ? to - from : 0;
}

static void add_ticks(uint64_t *total, uint64_t *max, uint64_t ticks) {
  *total += ticks;
  if (ticks > *max) *max = ticks;
}

/* ---- Queues: the lock is held ---------------------------------------------------------------------------- */

/* To be called after every change of a lane. */
ALOOP_INLINE void note(pool_t *pool, const lane_t *lane) {
  unsigned others = pool->wanting & ~lane->bit;
  pool->wanting = lane->first != NULL && lane->running < lane->limit ? others | lane->bit : others;
}

ALOOP_INLINE void append(lane_t *lane, aloop_job_t *job) {
  job->next = NULL;
  job->prev = lane->last;
  job->queued = true;
  if (lane->last != NULL)
    lane->last->next = job;
  else
    lane->first = job;
  lane->last = job;
  lane->queued++;
}

static void take_out(pool_t *pool, lane_t *lane, aloop_job_t *job) {
  if (job->prev != NULL)
    job->prev->next = job->next;
  else
    lane->first = job->next;
  if (job->next != NULL)
    job->next->prev = job->prev;
  else
    lane->last = job->prev;
  job->queued = false;
  lane->queued--;
  note(pool, lane);
}

/* The bottom of the stack of arrivals. */
static aloop_job_t somebody_comes;

/* Moves the jobs that have arrived to their lanes, in their order. The clock was not read for each: they count
 * as having come evenly since somebody last looked. */
static void take_arrivals(pool_t *pool, uint64_t now) {
  uint64_t count = 0, since = pool->looked;
  aloop_job_t *rest = pool->woken > 0 ? &somebody_comes : NULL;
  pool->looked = now;
  if (atomic_load_explicit(&pool->arrived, memory_order_relaxed) == rest) return;
  aloop_job_t *job = atomic_exchange_explicit(&pool->arrived, rest, memory_order_acquire), *first = NULL;
  for (; job != NULL && job != &somebody_comes; count++) {
    aloop_job_t *next = job->next;
    job->next = first;
    first = job;
    job = next;
  }
  uint64_t step = count > 0 ? ticks_between(since, now) / count : 0;
  while (first != NULL) {
    aloop_job_t *next = first->next;
    first->since = since += step;
    append(&pool->lanes[first->lane], first);
    first = next;
  }
  for (int i = 0; i < ALOOP_LANES; i++) note(pool, &pool->lanes[i]);
}

/* The first job of the next lane that has one which could run. Counts it as running. */
ALOOP_INLINE aloop_job_t *next_job(pool_t *pool, uint64_t now) {
  if (pool->wanting == 0 || pool->turns++ % LOOK_AFTER == 0) take_arrivals(pool, now);
  if (pool->wanting == 0) return NULL;
  lane_t *lane = pool->last_lane;
  do lane = lane == &pool->lanes[ALOOP_LANES - 1] ? pool->lanes : lane + 1;
  while ((pool->wanting & lane->bit) == 0);
  pool->last_lane = lane;
  aloop_job_t *job = lane->first;
  lane->first = job->next;
  if (job->next != NULL)
    job->next->prev = NULL;
  else
    lane->last = NULL;
  job->queued = false;
  lane->queued--;
  lane->running++;
  note(pool, lane);
  return job;
}

/* ---- The end of a pool ----------------------------------------------------------------------------------- */

static void free_pool(pool_t *pool) {
  pthread_cond_destroy(&pool->empty);
  pthread_mutex_destroy(&pool->lock);
  pthread_attr_destroy(&pool->attributes);
  aloop__executor_free_block(pool);
}

static void free_worker(worker_t *worker) {
  aloop__thread_bed_destroy(&worker->bed);
  aloop__executor_free_block(worker);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

/* Starts a thread that is counted already. Needs no lock. */
static int start_thread(pool_t *pool) {
  pthread_t thread;
  worker_t *worker = aloop__executor_new_block(sizeof *worker);
  if (worker == NULL) return ALOOP_ENOMEM;
  if (aloop__thread_bed_init(&worker->bed) < 0) {
    aloop__executor_free_block(worker);
    return ALOOP_ENOMEM;
  }
  worker->pool = pool;
  int rc = aloop__thread_start(&thread, &pool->attributes, pool->run, worker);
  if (rc < 0) free_worker(worker);
  return rc;
}

static void count_thread(pool_t *pool) {
  pool->threads++;
  pool->coming++;
}

static void uncount_thread(pool_t *pool) {
  pool->threads--;
  pool->coming--;
}

/* Takes the thread that fell asleep last out of the list and calls it. The lock is held. */
static void *call_sleeper(pool_t *pool) {
  worker_t *worker = ALOOP_CONTAINER_OF(pool->idle.prev, worker_t, link);
  aloop__list_remove(&worker->link);
  pool->coming++;
  pool->woken++;
  take_arrivals(pool, aloop__clock_ticks()); /* for the mark */
  return aloop__thread_call(&worker->bed);
}

static void wake_all(pool_t *pool) {
  while (!aloop__list_empty(&pool->idle)) aloop__thread_ring(call_sleeper(pool));
}

static ALOOP_NOINLINE call_t call_another(pool_t *pool) {
  if (!aloop__list_empty(&pool->idle)) return (call_t){.bell = call_sleeper(pool)};
  count_thread(pool);
  return (call_t){.start = true};
}

/* Sees to it that somebody comes if there is something to do. */
static inline call_t call_thread(pool_t *pool) {
  return pool->coming > 0 || pool->wanting == 0 ? (call_t){0} : call_another(pool);
}

/* In a thread of the pool, without the lock. That it fails does not matter: the threads there are come when
 * they are done. */
static void start_counted(pool_t *pool) {
  if (start_thread(pool) == 0) return;
  lock(pool);
  uncount_thread(pool);
  unlock(pool);
}

/* Runs jobs until there is none for this thread. The lock is held but while they run. */
static void work(pool_t *pool) {
  uint64_t now = aloop__clock_ticks();
  for (aloop_job_t *job = next_job(pool, now); job != NULL; job = next_job(pool, now)) {
    lane_t *lane = pool->last_lane;
    add_ticks(&lane->wait_ticks, &lane->wait_max, ticks_between(job->since, now));
    call_t call = call_thread(pool);
    unlock(pool);
    if (call.bell != NULL) aloop__thread_ring(call.bell);
    if (call.start) start_counted(pool);
    uint64_t begun = call.start ? aloop__clock_ticks() : now;
    aloop_job_run(job);
    now = aloop__clock_ticks();
    lock(pool);
    lane->running--;
    lane->done++;
    note(pool, lane);
    add_ticks(&lane->run_ticks, &lane->run_max, ticks_between(begun, now));
  }
}

/* Sleeps until called. False: nobody has called for so long that the thread should end. */
static bool rest(pool_t *pool, worker_t *self) {
  int64_t deadline = aloop__thread_deadline(pool->idle_timeout);
  aloop__list_append(&pool->idle, &self->link);
  if (!aloop__thread_sleep(&self->bed, &pool->lock, deadline)) {
    aloop__list_remove(&self->link);
    return false;
  }
  pool->coming--;
  pool->woken--;
  take_arrivals(pool, aloop__clock_ticks());
  return true;
}

/* The lock is held, and no more afterwards. */
static void end_thread(pool_t *pool, worker_t *self) {
  bool join = pool->ended_any;
  pthread_t before = pool->ended;
  pool->ended = pthread_self();
  pool->ended_any = true;
  bool last = --pool->threads == 0;
  bool release = last && pool->released;
  if (last) pthread_cond_broadcast(&pool->empty);
  unlock(pool);
  free_worker(self);
  if (join) pthread_join(before, NULL);
  if (!release) return;
  pthread_detach(pthread_self());
  free_pool(pool);
}

static void *run_worker(void *arg) {
  worker_t *self = arg;
  pool_t *pool = self->pool;
  working_for = pool;
  aloop__thread_name(pool->name);
  lock(pool);
  pool->coming--;
  for (;;) {
    work(pool);
    if (pool->shut || pool->threads > pool->limit) break;
    if (!rest(pool, self) && pool->wanting == 0) break;
  }
  end_thread(pool, self);
  return NULL;
}

/* ---- The table ------------------------------------------------------------------------------------------- */

static bool is_forked(const pool_t *pool) {
  return pool->forks != aloop__current_forks_seen();
}

static bool is_full(const pool_t *pool, const lane_t *lane) {
  size_t taken = lane->queued + lane->running;
  return pool->queue_limit > 0 && taken >= lane->limit && taken - lane->limit >= pool->queue_limit;
}

static int queue_job(pool_t *pool, aloop_job_t *job, int index, void **bell) {
  lane_t *lane = &pool->lanes[index];
  if (pool->shut) return ALOOP_ECLOSED;
  if (is_full(pool, lane)) return ALOOP_EAGAIN;
  append(lane, job);
  note(pool, lane);
  call_t call = call_thread(pool);
  *bell = call.bell;
  int rc = call.start ? start_thread(pool) : 0;
  if (rc == 0) return 0;
  uncount_thread(pool);
  if (pool->threads > 0) return 0; /* one of them comes when it is done */
  take_out(pool, lane, job);
  return rc;
}

/* Leaves the job with those that have arrived, if somebody comes for them. */
static bool arrive(pool_t *pool, aloop_job_t *job) {
  aloop_job_t *top = atomic_load_explicit(&pool->arrived, memory_order_relaxed);
  do {
    if (top == NULL) return false;
    job->next = top;
  } while (!atomic_compare_exchange_weak_explicit(&pool->arrived, &top, job, memory_order_release,
                                                  memory_order_relaxed));
  return true;
}

static ALOOP_NOINLINE int submit_locked(pool_t *pool, aloop_job_t *job, int lane) {
  void *bell = NULL;
  job->since = aloop__clock_ticks();
  lock(pool);
  int rc = queue_job(pool, job, lane, &bell);
  if (rc < 0) pool->lanes[lane].refused++;
  unlock(pool);
  aloop__thread_ring(bell);
  return rc;
}

static int pool_submit(void *state, aloop_job_t *job, int lane) {
  pool_t *pool = state;
  if (ALOOP_UNLIKELY(is_forked(pool))) return ALOOP_ECHILD;
  job->lane = (uint8_t)lane;
  return pool->queue_limit == 0 && arrive(pool, job) ? 0 : submit_locked(pool, job, lane);
}

static int pool_cancel(void *state, aloop_job_t *job) {
  pool_t *pool = state;
  if (is_forked(pool)) return !atomic_load_explicit(&job->begun, memory_order_relaxed);
  lock(pool);
  take_arrivals(pool, aloop__clock_ticks());
  bool taken = job->queued;
  if (taken) {
    lane_t *lane = &pool->lanes[job->lane];
    take_out(pool, lane, job);
    lane->cancelled++;
  }
  unlock(pool);
  return taken;
}

/* Empties the queues. Returns the jobs, linked by `next`. */
static aloop_job_t *take_all(pool_t *pool) {
  aloop_job_t *all = NULL;
  aloop_job_t **end = &all;
  take_arrivals(pool, aloop__clock_ticks());
  for (int i = 0; i < ALOOP_LANES; i++) {
    lane_t *lane = &pool->lanes[i];
    while (lane->first != NULL) {
      aloop_job_t *job = lane->first;
      take_out(pool, lane, job);
      lane->cancelled++;
      job->next = NULL;
      *end = job;
      end = &job->next;
    }
  }
  return all;
}

static void drop_all(aloop_job_t *job) {
  while (job != NULL) {
    aloop_job_t *next = job->next;
    aloop_job_drop(job, ALOOP_ECANCELED);
    job = next;
  }
}

/* Joins the last thread, after the others have ended. The lock is held, and no more afterwards. */
static void join_last(pool_t *pool) {
  bool join = pool->ended_any;
  pthread_t last = pool->ended;
  pool->ended_any = false;
  unlock(pool);
  if (join) pthread_join(last, NULL);
}

static int pool_shutdown(void *state, int64_t timeout, unsigned flags) {
  pool_t *pool = state;
  if (is_forked(pool)) return ALOOP_ECHILD;
  if (timeout != 0 && working_for == pool)
    return aloop__misuse(NULL, ALOOP_EBUSY, "a job must not wait for the end of the threads that run it");
  int64_t deadline = aloop__thread_deadline(timeout);
  lock(pool);
  pool->shut = true;
  wake_all(pool);
  if (flags & ALOOP_CANCEL_QUEUED) {
    aloop_job_t *cancelled = take_all(pool);
    unlock(pool);
    drop_all(cancelled);
    lock(pool);
  }
  bool late = timeout == 0;
  while (pool->threads > 0 && !late) late = aloop__thread_wait(&pool->empty, &pool->lock, deadline);
  if (pool->threads == 0) {
    join_last(pool);
    return 0;
  }
  unlock(pool);
  return timeout == 0 ? 0 : ALOOP_ETIMEDOUT;
}

static int64_t to_ns(const pool_t *pool, uint64_t ticks) {
  double elapsed = (double)(aloop__clock_monotonic() - pool->born_time);
  double counted = (double)(aloop__clock_ticks() - pool->born_ticks);
  return counted > 0 ? (int64_t)((double)ticks * elapsed / counted) : 0;
}

static int pool_stats(void *state, aloop_executor_stats_t *stats) {
  pool_t *pool = state;
  if (is_forked(pool)) return ALOOP_ECHILD;
  lock(pool);
  take_arrivals(pool, aloop__clock_ticks());
  size_t idle = pool->threads;
  for (int i = 0; i < ALOOP_LANES; i++) idle -= pool->lanes[i].running;
  for (int i = 0; i < ALOOP_LANES; i++) {
    const lane_t *lane = &pool->lanes[i];
    aloop_lane_stats_t *to = &stats->lanes[i];
    to->queued = lane->queued;
    to->running = lane->running;
    to->idle = lane->running < lane->limit ? idle : 0;
    to->threads = to->running + to->idle;
    to->done = lane->done;
    to->cancelled = lane->cancelled;
    to->refused = lane->refused;
    to->wait_time = to_ns(pool, lane->wait_ticks);
    to->wait_max = to_ns(pool, lane->wait_max);
    to->run_time = to_ns(pool, lane->run_ticks);
    to->run_max = to_ns(pool, lane->run_max);
  }
  unlock(pool);
  return 0;
}

static void pool_destroy(void *state) {
  pool_t *pool = state;
  if (is_forked(pool)) {
    aloop__executor_free_block(pool);
    return;
  }
  lock(pool);
  pool->released = true;
  if (pool->threads > 0) {
    unlock(pool); /* the last thread frees it */
    return;
  }
  join_last(pool);
  free_pool(pool);
}

static const aloop_executor_table_t table = {.size = sizeof table,
                                             .name = "thread pool",
                                             .submit = pool_submit,
                                             .cancel = pool_cancel,
                                             .shutdown = pool_shutdown,
                                             .stats = pool_stats,
                                             .destroy = pool_destroy};

/* ---- Making one ------------------------------------------------------------------------------------------ */

static long count_cpus(void) {
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  return cpus > 0 ? cpus : 1;
}

static size_t default_limit(void) {
  long limit = count_cpus() + THREADS_MORE;
  return (size_t)(limit < THREADS_MAX ? limit : THREADS_MAX);
}

static void set_limit(pool_t *pool, int lane, int threads) {
  pool->limit -= pool->lanes[lane].limit;
  pool->lanes[lane].limit = threads > 0 ? (size_t)threads : default_limit();
  pool->limit += pool->lanes[lane].limit;
  note(pool, &pool->lanes[lane]);
}

static const char *fault_of(const aloop_thread_pool_options_t *options) {
  for (int i = 0; i < ALOOP_LANES; i++)
    if (options->threads[i] < 0) return "a lane has 1 thread or more, or 0: as many as are usual";
  return options->idle_timeout < ALOOP_FOREVER ? "a timeout is not negative, or ALOOP_FOREVER" : NULL;
}

/* What can fail, in a pool that is cleared. */
static int open_pool(pool_t *pool, size_t stack_size) {
  if (pthread_attr_init(&pool->attributes) != 0) return ALOOP_ENOMEM;
  int rc = stack_size == 0 || pthread_attr_setstacksize(&pool->attributes, stack_size) == 0 ? 0 : ALOOP_EINVAL;
  if (rc == 0 && pthread_mutex_init(&pool->lock, NULL) != 0) rc = ALOOP_ENOMEM;
  if (rc == 0 && (rc = aloop__thread_condition(&pool->empty)) < 0) pthread_mutex_destroy(&pool->lock);
  if (rc < 0) pthread_attr_destroy(&pool->attributes);
  return rc;
}

static void set_up(pool_t *pool, const aloop_thread_pool_options_t *options) {
  aloop__list_init(&pool->idle);
  pool->last_lane = pool->lanes;
  for (int i = 0; i < ALOOP_LANES; i++) {
    pool->lanes[i].bit = 1u << i;
    set_limit(pool, i, options->threads[i]);
  }
  snprintf(pool->name, sizeof pool->name, "%s", options->name != NULL ? options->name : "aloop-pool");
  pool->run = run_worker;
  pool->queue_limit = options->queue_limit;
  pool->idle_timeout = options->idle_timeout != 0 ? options->idle_timeout : IDLE_TIMEOUT;
  pool->forks = aloop__current_forks();
  pool->born_time = aloop__clock_monotonic();
  pool->born_ticks = aloop__clock_ticks();
}

int aloop_thread_pool_new(const aloop_thread_pool_options_t *options, aloop_executor_t **out) {
  aloop_thread_pool_options_t copy = {.size = sizeof copy};
  if (out == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "a new pool needs a place to go to");
  if (options != NULL && aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__misuse(NULL, ALOOP_EINVAL, "set options.size to sizeof(aloop_thread_pool_options_t)");
  const char *fault = fault_of(&copy);
  if (fault != NULL) return aloop__misuse(NULL, ALOOP_EINVAL, fault);
  pool_t *pool = aloop__executor_new_block(sizeof *pool);
  if (pool == NULL) return ALOOP_ENOMEM;
  int rc = open_pool(pool, copy.stack_size);
  if (rc < 0) {
    aloop__executor_free_block(pool);
    if (rc == ALOOP_EINVAL) aloop__misuse(NULL, rc, "options.stack_size is below what the system asks for");
    return rc;
  }
  set_up(pool, &copy);
  rc = aloop_executor_new(&table, pool, out);
  if (rc < 0) free_pool(pool);
  return rc;
}

int aloop_thread_pool_resize(aloop_executor_t *executor, int lane, int threads) {
  if (executor == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the executor is NULL");
  if (lane < 0 || lane >= ALOOP_LANES)
    return aloop__misuse(NULL, ALOOP_EINVAL, "the lane is none of ALOOP_LANE_USER, FILE and DNS");
  if (threads < 0)
    return aloop__misuse(NULL, ALOOP_EINVAL, "a lane has 1 thread or more, or 0: as many as are usual");
  pool_t *pool = aloop__executor_state(executor, &table);
  if (pool == NULL) return aloop__misuse(NULL, ALOOP_ENOTSUP, "only thread pools can be resized");
  if (is_forked(pool)) return ALOOP_ECHILD;
  lock(pool);
  set_limit(pool, lane, threads);
  if (pool->threads > pool->limit) wake_all(pool);
  call_t call = call_thread(pool);
  if (call.start && start_thread(pool) < 0) uncount_thread(pool);
  unlock(pool);
  aloop__thread_ring(call.bell);
  return 0;
}
