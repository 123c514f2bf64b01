/* SPDX-License-Identifier: MIT
 *
 * What the tests of executors share: jobs that a test holds up, pools, and an executor in which nothing happens
 * by itself.
 *
 *     gate_t gate;
 *     gate_init(&gate);
 *     future = aloop_run_in_executor(loop, pool, pass_gate, &gate);
 *     gate_await(&gate, 1);    one job has come to the gate
 *     gate_open(&gate);        it and all later ones go through
 */
#ifndef JOBS_H
#define JOBS_H

#include <pthread.h>
#include <stdatomic.h>

#include "harness.h"

typedef struct gate {
  pthread_mutex_t lock;
  pthread_cond_t change;
  int arrived; /* jobs that came so far */
  int passed;
  bool open;
} gate_t;

void gate_init(gate_t *gate);
void gate_await(gate_t *gate, int arrived);
void gate_open(gate_t *gate);
int gate_arrived(gate_t *gate);

/* A job: waits until the gate is open and returns 7. */
int64_t pass_gate(void *gate);

/* A job: returns the int that its argument points to. */
int64_t return_int(void *number);

/* A destructor that counts its calls. */
typedef struct counted {
  atomic_int destroyed;
  int64_t value; /* of return_counted */
  gate_t *gate;  /* that return_counted passes first; may be NULL */
} counted_t;
void destroy_counted(void *counted);
int64_t return_counted(void *counted);

/* Submits return_counted, owning its argument. */
aloop_future_t *submit_counted(aloop_t *loop, aloop_executor_t *executor, counted_t *counted);

/* Jobs of the loop that have not ended. */
uint64_t live_jobs(const env_t *env);

/* A pool with so many threads in each lane. */
aloop_executor_t *make_pool(int threads);

/* Shuts down, waiting for ever, and gives the reference up. */
void end_pool(aloop_executor_t *pool);

aloop_lane_stats_t lane_stats(const aloop_executor_t *pool, int lane);

/* Waits until a number in the statistics of a lane (an offset in aloop_lane_stats_t) has reached a value. */
#define await_stat(pool, lane, member, value)                                                                  \
  do sched_yield();                                                                                            \
  while (lane_stats(pool, lane).member != (uint64_t)(value))

/* An executor of the test's own: jobs wait in a list until the test does something with them. */
typedef struct shelf {
  aloop_job_t *jobs[64];
  int count;
  int lane;   /* of the last one */
  int refuse; /* a code to answer submit with */
  bool keep;  /* cancel comes too late */
  int cancelled, shutdowns, destroyed;
  int64_t timeout; /* of the last shutdown */
  unsigned flags;
} shelf_t;
extern const aloop_executor_table_t shelf_table;
aloop_executor_t *make_shelf(shelf_t *shelf);

/* Takes a job off the shelf and runs it. */
void shelf_run(shelf_t *shelf, int index);

#endif
