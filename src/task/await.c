/* SPDX-License-Identifier: MIT
 *
 * await: a task waits for a future.
 *
 * One that is done is read on the spot, as in asyncio: no suspension, no turn. For a pending one the task
 * leaves a done callback and its coroutine; the callback is the next step. What the frame waits for is noted in
 * the task, so that cancelling the task can cancel that.
 *
 * Between the end of the future and the step that it queued, the task may be cancelled. Then the await ends
 * with ALOOP_ECANCELED and the future is dropped unread: what it would have handed over goes back to where it
 * came from (aloop__future_forsake), its error counts as read.
 *
 * Once the loop is being closed nothing waits: each await answers ALOOP_ECLOSED, until a task has had a
 * thousand such answers; then it is left suspended, and dropped by who unwinds it (task.c).
 */
#include <stdarg.h>
#include <stdio.h>

#include "core/report.h"
#include "task/generator.h"

enum { REFUSALS_MAX = 1000, MESSAGE_MAX = 256 };

/* From the ready deque: nothing is being read at this moment, so the cork is free for what the step writes. */
static void on_awaited(aloop_future_t *future, void *task) {
  aloop__tasks_of(future->object.loop)->corks = true;
  aloop__task_step(task);
}

static void go_on(aloop_t *loop, void *task) {
  (void)loop;
  aloop__task_step(task);
}

bool aloop__task_give_up_waiting(aloop__task_t *task) {
  if (task->gave_up) return true;
  if (task->awaited == NULL || task->must_cancel) return false;
  if (!aloop__ready_push(task->future.object.loop, go_on, task)) return false;
  aloop__future_unwatch(task->awaited, on_awaited, task);
  task->gave_up = true;
  return true;
}

/* The loop is being closed. */
static ALOOP_NOINLINE int refuse_to_wait(aloop__task_t *task) {
  task->refused++;
  return ALOOP_ECLOSED;
}

/* A request that was under way when the wait began ends it. */
static void deliver_request(aloop__task_t *task, aloop_future_t *future) {
  if (future->pause) return;
  const aloop__future_extra_t *extra = task->future.extra;
  const char *message = extra != NULL && task->noted == ALOOP_ECANCELED ? extra->message : NULL;
  task->must_cancel = false;
  if (aloop__future_cancel(future, message) != 1) task->must_cancel = true;
}

/* Suspends. */
static int wait_for_end(aloop__task_t *task, aloop_future_t *future) {
  if (ALOOP_UNLIKELY(aloop__future_watch(future, on_awaited, task) < 0)) return ALOOP_ENOMEM;
  task->awaited = future;
  if (ALOOP_UNLIKELY(task->must_cancel)) deliver_request(task, future);
  aloop__coroutine_suspend(task->active);
  task->awaited = NULL;
  if (ALOOP_LIKELY(!task->must_cancel && !task->gave_up &&
                   (task->future.object.loop->guard & ALOOP__GUARD_CLOSED) == 0))
    return 0;
  if (task->future.object.loop->guard & ALOOP__GUARD_CLOSED) {
    aloop__future_unwatch(future, on_awaited, task);
    return refuse_to_wait(task);
  }
  task->must_cancel = task->gave_up = false;
  return ALOOP_ECANCELED;
}

/* Why the future cannot be waited for, or 0. */
static ALOOP_NOINLINE int check(const aloop__task_t *task, const aloop_future_t *future) {
  aloop_t *loop = task != NULL ? task->future.object.loop : NULL;
  int rc = future != NULL ? aloop__loop_thread(future->object.loop) : 0;
  if (rc < 0) return rc;
  if (task == NULL || task->foreign)
    return aloop__misuse(future != NULL ? future->object.loop : NULL, ALOOP_EPERM,
                         task == NULL ? "only a task can await; outside of one use aloop_run_until_complete"
                                      : "a task of another runtime awaits in that runtime's way");
  if (future == NULL) return ALOOP_ENOMEM;
  if (future->object.loop != loop)
    return aloop__misuse(loop, ALOOP_EOTHERLOOP, "a task awaits futures of its own loop");
  if (future == &task->future) return aloop__misuse(loop, ALOOP_EINVAL, "a task cannot await itself");
  return 0;
}

/* Whether all is as it should be. */
static inline bool is_usual(const aloop__task_t *task, const aloop_future_t *future) {
  return ALOOP_LIKELY(task != NULL) && ALOOP_LIKELY(future != NULL) && ALOOP_LIKELY(!task->foreign) &&
         ALOOP_LIKELY(task->future.object.loop == future->object.loop) &&
         ALOOP_LIKELY(future->object.loop->guard == 0) && ALOOP_LIKELY(future != &task->future);
}

/* All that is unusual about an await, and waiting. */
static inline int wait_slowly(aloop_future_t *future) {
  aloop__task_t *task = aloop__task_current();
  if (ALOOP_UNLIKELY(!is_usual(task, future))) {
    int rc = check(task, future);
    if (rc < 0) return rc;
    if (task->future.object.loop->guard & ALOOP__GUARD_CLOSED) return refuse_to_wait(task);
  }
  if (ALOOP_UNLIKELY(future->state == ALOOP__PENDING && aloop__generator_is_step(future)))
    aloop__generator_run(task, future);
  return future->state != ALOOP__PENDING ? 0 : wait_for_end(task, future);
}

/* The same, and the future is done. */
static inline bool is_ready(const aloop_future_t *future) {
  return is_usual(aloop__task_current(), future) && future->state != ALOOP__PENDING;
}

/* An await ended without its future: the code is its answer, unless it had too many. */
static ALOOP_NOINLINE int64_t answer(int rc) {
  aloop__task_t *task = rc == ALOOP_ECLOSED ? aloop__task_current() : NULL;
  if (task != NULL && task->refused > REFUSALS_MAX) aloop__coroutine_suspend(task->active);
  return rc;
}

int aloop__task_wait(aloop_future_t *future) {
  int rc = is_ready(future) ? 0 : wait_slowly(future);
  return ALOOP_UNLIKELY(rc < 0) ? (int)answer(rc) : 0;
}

/* The same after giving up the reference. One of another loop may be in use there. */
static ALOOP_NOINLINE int64_t drop(aloop_future_t *future, int rc) {
  if (future == NULL || rc == ALOOP_ENOTLOOPTHREAD) return rc;
  if (rc == ALOOP_ECANCELED || rc == ALOOP_ECLOSED) {
    if (future->state == ALOOP__FAILED) aloop__future_ignore(future);
    aloop__future_forsake(future);
  }
  aloop_future_unref(future);
  return answer(rc);
}

/* The future is done, and we are where it may be used. */
static inline int64_t take(aloop_future_t *future) {
  int64_t value = aloop__future_read(future);
  aloop__object_unref(&future->object);
  return value;
}

/* Returns to the caller of aloop_await: after a switch every return is one that the CPU did not expect, so
 * there are as few as possible. */
static ALOOP_NOINLINE int64_t await_slowly(aloop_future_t *future) {
  int rc = wait_slowly(future);
  return ALOOP_UNLIKELY(rc < 0) ? drop(future, rc) : take(future);
}

int64_t aloop_await(aloop_future_t *future) {
  return is_ready(future) ? take(future) : await_slowly(future);
}

static ALOOP_NOINLINE int refuse_place(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the object of a future needs a place to go to");
}

int aloop_await_ptr(aloop_future_t *future, void *out) {
  int rc = ALOOP_UNLIKELY(out == NULL) ? refuse_place() : is_ready(future) ? 0 : wait_slowly(future);
  if (ALOOP_UNLIKELY(rc < 0)) return (int)drop(future, rc);
  rc = aloop_future_take_ptr(future, out);
  aloop_future_unref(future);
  return rc;
}

int64_t aloop_await_keep(aloop_future_t *future) {
  int rc = is_ready(future) ? 0 : wait_slowly(future);
  return ALOOP_UNLIKELY(rc < 0) ? answer(rc) : aloop_future_result(future);
}

/* ---- What a function returns ----------------------------------------------------------------------------- */

/* The current task, or NULL after the mistake was reported. */
static aloop__task_t *returning(void) {
  aloop__task_t *task = aloop__task_current();
  if (task == NULL || task->foreign) {
    aloop__misuse(NULL, ALOOP_EPERM, "this is what the function of a task returns");
    return NULL;
  }
  return task;
}

int64_t aloop_return_ptr(void *ptr, aloop_destroy_fn destroy) {
  aloop__task_t *task = returning();
  if (task == NULL) return ALOOP_EPERM;
  if (task->generator != NULL)
    return aloop__misuse(task->future.object.loop, ALOOP_EPERM, "a generator hands out objects by aloop_yield");
  bool had = task->has_ptr;
  void *old = task->ptr;
  aloop_destroy_fn destroy_old = task->destroy_ptr;
  task->ptr = ptr;
  task->destroy_ptr = destroy;
  task->has_ptr = true;
  if (had && destroy_old != NULL) destroy_old(old);
  return 0;
}

int64_t aloop_return_error(int error, const char *format, ...) {
  aloop__task_t *task = returning();
  if (task == NULL) return ALOOP_EPERM;
  if (error >= 0)
    return aloop__misuse(task->future.object.loop, ALOOP_EINVAL, "aloop_return_error takes a negative code");
  char text[MESSAGE_MAX];
  if (format != NULL) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
  }
  aloop__future_set_message(&task->future, format != NULL ? text : NULL);
  task->noted = error;
  return error;
}
