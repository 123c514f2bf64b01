/* SPDX-License-Identifier: MIT
 *
 * Jobs: see job.c.
 */
#ifndef ALOOP_EXECUTOR_JOB_H
#define ALOOP_EXECUTOR_JOB_H

#include "aloop.h"
#include "core/loop.h"
#include "core/spares.h"

typedef struct aloop__inbox aloop__inbox_t;

/* One reference to an executor for all jobs that a loop has there. */
typedef struct aloop__use {
  aloop_executor_t *executor; /* NULL: free */
  size_t jobs;
} aloop__use_t;

enum { ALOOP__USES = 4 };

struct aloop_job {
  /* For the executor that has the job, and for the thread that runs it: one cache line. */
  aloop_job_t *next; /* in an executor's queue, then in the inbox, then among spare blocks */
  aloop_job_t *prev; /* in an executor's queue */
  aloop_job_fn fn;
  void *arg;
  int64_t value; /* what fn returned, or why it was not called */
  aloop__inbox_t *inbox;
  uint64_t since; /* when it was queued, in ticks */
  uint8_t lane;
  bool queued;
  atomic_bool begun; /* fn was called, or will not be */

  /* The loop's. */
  aloop_destroy_fn destroy;   /* of arg; NULL: nothing to do, or somebody else does it */
  aloop_future_t *future;     /* NULL: cancelled */
  aloop_executor_t *executor; /* as long as there is a future, */
  aloop__use_t *use;          /* which this counts; NULL: by a reference of the job's own */
};

/* What executors keep per loop. */
typedef struct aloop__jobs {
  aloop__room_t room;
  aloop_t *loop;
  aloop__inbox_t *inbox;
  aloop_job_t *due; /* taken from the inbox, in the order in which they finished */
  aloop_job_t **due_end;
  aloop__use_t uses[ALOOP__USES];
  aloop__spares_t spares; /* blocks for jobs, of malloc */
  unsigned forks;         /* the process that the lock of the inbox is good for */

  /* The default executor: see default.c. */
  aloop_executor_t *executor; /* NULL: not made yet */
  bool own;                   /* it is the loop's own, not the program's */
  bool shut;
  unsigned executor_forks; /* the process that it was made or set in */
} aloop__jobs_t;

/* Made on first use. NULL: out of memory. */
aloop__jobs_t *aloop__jobs_open(aloop_t *loop);

static inline aloop__jobs_t *aloop__jobs_of(const aloop_t *loop) {
  aloop__room_t *room = loop->rooms[ALOOP__ROOM_EXECUTOR];
  return room != NULL ? ALOOP_CONTAINER_OF(room, aloop__jobs_t, room) : NULL;
}

/* The default executor, made if need be: 0, or why there is none. Borrowed. */
int aloop__default_open(aloop__jobs_t *jobs, aloop_executor_t **executor);

static inline int aloop__default_executor(aloop__jobs_t *jobs, aloop_executor_t **executor) {
  *executor = jobs->executor;
  bool usual = ALOOP_LIKELY(*executor != NULL) && ALOOP_LIKELY(!jobs->shut) &&
               ALOOP_LIKELY(jobs->executor_forks == aloop__current_forks_seen());
  return usual ? 0 : aloop__default_open(jobs, executor);
}

/* The loop is closed. */
void aloop__default_close(aloop__jobs_t *jobs);

#endif
