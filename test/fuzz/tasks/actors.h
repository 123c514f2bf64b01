/* SPDX-License-Identifier: MIT
 *
 * What the fuzzer of tasks knows: its model of what tasks wait for. See fuzz_tasks.c for the idea.
 */
#ifndef FUZZ_TASKS_ACTORS_H
#define FUZZ_TASKS_ACTORS_H

#include "fuzz.h"

enum { SLOTS = 20, LOCKS = 3, EVENTS = 2, PLACES = 2, BARRIERS = 2, QUEUES = 3, GENERATORS = 3, PIPES = 2 };
enum { NO_TASK = 1 << 30 };
enum { ACTIONS_MAX = 1500, DEPTH_MAX = 5, NEST_MAX = 6, TASKS_MAX = 40, ALL_MAX = 4096, JOBS_MAX = 16 };

/* What the result of a future stands for. */
typedef enum kind { NOTHING, SLEEP, LOCK, PLACE, GET, STEP, ROUND, OBJECT, KINDS } kind_t;

/* A future and what its result changes in the model, once it is read. */
typedef struct wish {
  aloop_future_t *future; /* our reference, or NULL */
  kind_t kind;
  unsigned index;
  unsigned life; /* of the object, which may be another one by then */
  int64_t until; /* of a sleep */
  int serial;    /* of the oldest task behind it; NO_TASK: none */
} wish_t;

typedef struct lock_model {
  aloop_lock_t *lock;
  aloop_condition_t *condition; /* over it, or NULL */
  unsigned life;
  int waits; /* of the condition, under way */
  bool held;
  bool loose; /* the model lost sight of who has it */
} lock_model_t;

typedef struct place_model {
  aloop_semaphore_t *semaphore;
  unsigned life;
  bool loose;
  bool bounded;
  int64_t held, total;
} place_model_t;

typedef struct queue_model {
  aloop_queue_t *queue;
  unsigned life;
} queue_model_t;

typedef struct item {
  int urgency;
} item_t;

typedef struct generator_model {
  aloop_generator_t *generator;
  int serial;
  unsigned life;
  uint64_t read; /* which items were, a bit for each */
} generator_model_t;

typedef struct stream_model {
  aloop_stream_t *stream;
  unsigned life;
  size_t written, read; /* bytes; SIZE_MAX: nobody knows */
} stream_model_t;

typedef struct tasks_world {
  aloop_t *loop;
  bool starved; /* allocations may fail */
  bool real;    /* the clock runs by itself */
  bool closing;
  int actions;
  int depth;
  int serials; /* given to tasks and generators. They wait for younger ones only, so there are no circles */
  int floor;   /* of whoever acts, and how deep */
  int nest;
  int bodies;    /* functions of tasks and generators that run */
  int arguments; /* of tasks and generators, not yet destroyed */
  int items;     /* of queues, alive */
  int objects;   /* results of tasks, alive */
  wish_t slots[SLOTS];
  lock_model_t locks[LOCKS];
  aloop_event_t *events[EVENTS];
  place_model_t places[PLACES];
  aloop_barrier_t *barriers[BARRIERS];
  queue_model_t queues[QUEUES];
  generator_model_t generators[GENERATORS];
  aloop_executor_t *executor;
  aloop_job_t *jobs_waiting[JOBS_MAX];
  int job_count;
  int jobs;                          /* arguments of jobs, alive */
  stream_model_t streams[2 * PIPES]; /* each the peer of its neighbour */
  bool opening[PIPES];
  aloop_sync_future_t *sync;
} tasks_world_t;

extern tasks_world_t t;

/* ---- fuzz_tasks.c ---------------------------------------------------------------------------------------- */

/* A few actions, as the input says; of the task or generator of that number, so deep in one another. */
void react(void);
void react_as(int serial, int nest);

bool in_task(void);

/* A time that is over soon. */
int64_t moment(void);

/* A code that a caller may meet. */
void check_code(int64_t rc);

/* Waits for the end of a future, in some way, or leaves it in a slot. Takes over the reference. Behind the
 * second kind there is a task. */
void have(aloop_future_t *future, kind_t kind, unsigned index, unsigned life);
void have_behind(int serial, aloop_future_t *future, kind_t kind, unsigned index, unsigned life);

/* Gives up what is in a slot. */
void drop(wish_t *wish);

/* ---- sync.c ---------------------------------------------------------------------------------------------- */

/* What follows from a result that was read. */
void read_lock(const wish_t *wish, int64_t rc);
void read_place(const wish_t *wish, int64_t rc);
void lose_sight(const wish_t *wish);

void use_lock(void);
void use_condition(void);
void use_event(void);
void use_place(void);
void use_barrier(void);
void use_queue(void);
void release_all(void);
void free_sync(void);

/* An item that was got. */
void drop_item(void *item);

/* ---- others.c -------------------------------------------------------------------------------------------- */

void read_step(const wish_t *wish, int64_t rc, const void *item);
void use_generator(void);
void use_job(void);
void use_stream(void);
void drop_jobs(void);
void free_others(void);

#endif
