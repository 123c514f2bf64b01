/* SPDX-License-Identifier: MIT
 *
 * Tasks as the rest of the room sees them. See task.c.
 */
#ifndef ALOOP_TASK_TASK_H
#define ALOOP_TASK_TASK_H

#include "core/spares.h"
#include "future/future.h"
#include "task/coroutine.h"
#include "task/overflow.h"

typedef struct aloop__task aloop__task_t;

struct aloop__task {
  aloop_future_t future;
  aloop__coroutine_t *coroutine; /* runs fn; NULL: not begun, ended, or foreign */
  aloop__coroutine_t *active;    /* is gone on with at the next step: coroutine, or a generator's */
  aloop_generator_t *generator;  /* the innermost one that runs as part of the task, or NULL */
  aloop_future_t *awaited;       /* borrowed from the frame that waits for it; NULL: none does */
  union {
    aloop_task_fn fn;
    aloop_done_fn cancel; /* foreign */
  };
  void *arg;
  aloop_destroy_fn destroy; /* of arg */
  aloop__map_t *map;        /* its context between two steps, unless it shares one: */
  aloop_context_t *context; /* a reference, or NULL */
  aloop__task_t *outer;     /* of a foreign one that was entered: who was current before */
  aloop__map_t *outer_map;
  aloop__task_t *asked_before; /* while asking: where the request came from */
  void *ptr;                   /* what aloop_return_ptr was given */
  aloop_destroy_fn destroy_ptr;
  size_t stack_size;
  char *name; /* NULL: by number */
  uint64_t number;
  int noted;           /* the code that the future's message is for, before it ends */
  uint32_t cancelling; /* requests, counted */
  uint32_t refused;    /* awaits since the loop is being closed */
  bool must_cancel;    /* a request that is still to be delivered, unless it is taken back before */
  bool gave_up;        /* it waits for its turn only, to be told of a request */
  bool has_ptr;
  bool foreign;
  bool shares;          /* it has entered `context` */
  bool asking;          /* a request passes through it at this moment */
  bool entered;         /* foreign: between aloop_task_enter and _leave */
  char number_name[28]; /* "Task-1", once somebody asks */
};

/* What tasks keep per loop. */
typedef struct aloop__tasks {
  aloop__room_t room;
  aloop__stacks_t stacks;
  aloop__task_t *current;
  bool corks;                    /* writes of this step are gathered, */
  aloop_transport_t *corked;     /* now those to this connection; or NULL */
  uint64_t count;                /* made so far */
  aloop__spares_t spares;        /* blocks for tasks */
  aloop_task_factory_fn factory; /* NULL: ours */
  void *factory_arg;
  bool in_factory; /* which makes tasks of ours */
  aloop__overflow_t overflow;
  aloop__list_t steps; /* of generators, not begun yet */
  bool tidying;        /* a timer will tidy the stacks */
  bool steps_queued;   /* ... which a queued callback will do */
} aloop__tasks_t;

/* Made on first use. NULL: out of memory, or the loop is closed. */
aloop__tasks_t *aloop__tasks_open(aloop_t *loop);

static inline aloop__tasks_t *aloop__tasks_of(const aloop_t *loop) {
  aloop__room_t *room = loop->rooms[ALOOP__ROOM_TASK];
  return room != NULL ? ALOOP_CONTAINER_OF(room, aloop__tasks_t, room) : NULL;
}

/* The task that runs in this thread, or NULL. */
static inline aloop__task_t *aloop__task_current(void) {
  aloop_t *loop = aloop__current_running;
  aloop__tasks_t *tasks = loop != NULL ? aloop__tasks_of(loop) : NULL;
  return tasks != NULL ? tasks->current : NULL;
}

/* NULL if the future is no task. */
aloop__task_t *aloop__task_of(const aloop_future_t *future);

/* A task's name, which is written into the task where it has none yet. */
const char *aloop__task_name(aloop__task_t *task);

/* aloop_create_task without a factory. */
aloop_future_t *aloop__task_create(aloop_t *loop, aloop_task_fn fn, void *arg,
                                   const aloop_task_options_t *options, const char *origin);

/* Runs the task until its next await that waits. */
void aloop__task_step(aloop__task_t *task);

/* The current task goes on in another coroutine, a generator's; returns when that one comes back to
 * `task->active` of before by the same call. A coroutine whose function returns sets task->active before
 * instead. */
void aloop__task_transfer(aloop__task_t *task, aloop__coroutine_t *to);

/* Waits for the end of `future`, of which the caller holds a reference. 0: it has come; else what the await
 * ends with instead. */
int aloop__task_wait(aloop_future_t *future);

/* Ends the wait of a suspended task in its next turn, by its being cancelled; once, however often it is asked.
 * False: it goes on waiting, out of memory. */
bool aloop__task_give_up_waiting(aloop__task_t *task);

/* A pending task that has not begun, with references for the caller and for itself; or one that has failed. The
 * options were checked. NULL: out of memory. */
aloop__task_t *aloop__task_new(aloop_t *loop, const aloop_task_options_t *options, const char *origin);

/* What the loop's factory makes instead of a task of ours. */
aloop_future_t *aloop__task_from_factory(aloop__tasks_t *tasks, aloop_t *loop, aloop_task_fn fn, void *arg,
                                         const aloop_task_options_t *options, const char *origin);

/* The options in force. Returns NULL, or the rule that the caller has broken and its code in *error. */
const char *aloop__task_options(const aloop_t *loop, const aloop_task_options_t *given,
                                aloop_task_options_t *options, int *error);

/* The end of a task that cannot begin. */
aloop_future_t *aloop__task_refuse(aloop__task_t *task, int error, const char *rule);

/* What the task has taken over goes: arg, context. */
void aloop__task_let_go(aloop__task_t *task);

/* Sends what was gathered. */
void aloop__task_uncork(aloop__tasks_t *tasks);

/* Enters the task: it is the current one, in its context, until the call of _leave. */
void aloop__task_enter(aloop__task_t *task);
void aloop__task_leave(aloop__task_t *task);

/* Ends the task: `value` is what its function has returned. */
void aloop__task_end(aloop__task_t *task, int64_t value);

#endif
