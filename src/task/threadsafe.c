/* SPDX-License-Identifier: MIT
 *
 * Tasks and other threads: run_coroutine_threadsafe, and to_thread for the way back.
 *
 * A sync future belongs to the threads that hold it; it has a lock of its own, and its count is atomic. What it
 * shares with the loop goes one way each: the starting thread posts `start`, a cancelling thread posts
 * `cancel`, the loop's thread sets the value and signals. The loop's own reference lasts until the task has
 * ended and no post of a cancel is on its way any more; as long it is a guest of the loop (src/core/guest.c),
 * so a thread that waits hears of it when the loop is closed first.
 *
 * Cancelling is a request, as with every task: a wait ends when the task has, so what the task uses, its
 * argument for one, is the thread's own again when the wait is over. This is where we leave asyncio, whose
 * future is cancelled while the task may still be at work.
 *
 * Left out: the object of a task's result, which belongs to the loop's thread. It goes with the task.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "core/report.h"
#include "executor/executor.h"
#include "executor/thread.h"
#include "future/future.h"

struct aloop_sync_future {
  aloop__guest_t guest;
  atomic_uint refs;
  pthread_mutex_t lock;
  pthread_cond_t ended;
  aloop_t *loop; /* valid until it is done */
  bool done;
  int64_t value;
  uint32_t cancels; /* posted and not run yet */
  unsigned forks;   /* the process that its lock is good for */

  /* The loop's thread. */
  aloop_task_fn fn;
  void *arg;
  aloop_future_t *task;
  uint32_t early; /* requests that came before the task was made */
};

static aloop_sync_future_t *sync_of(aloop__guest_t *guest) {
  return ALOOP_CONTAINER_OF(guest, aloop_sync_future_t, guest);
}

void aloop_sync_unref(aloop_sync_future_t *future) {
  if (future == NULL || atomic_fetch_sub(&future->refs, 1) > 1) return;
  pthread_cond_destroy(&future->ended);
  pthread_mutex_destroy(&future->lock);
  aloop__executor_free_block(future);
}

/* ---- In the loop's thread -------------------------------------------------------------------------------- */

/* In the child of a fork there is nobody to keep out, and the lock may be held for ever. */
static void lock(aloop_sync_future_t *future) {
  if (future->forks == aloop__current_forks_seen()) pthread_mutex_lock(&future->lock);
}

static void unlock(aloop_sync_future_t *future) {
  if (future->forks == aloop__current_forks_seen()) pthread_mutex_unlock(&future->lock);
}

static void end(aloop_sync_future_t *future, int64_t value) {
  aloop_future_unref(future->task);
  future->task = NULL;
  lock(future);
  future->done = true;
  future->value = value;
  pthread_cond_broadcast(&future->ended);
  unlock(future);
}

/* Gives up the loop's reference if nothing more can come. */
static void leave_if_over(aloop_t *loop, aloop_sync_future_t *future) {
  lock(future);
  bool over = future->done && future->cancels == 0;
  unlock(future);
  if (!over) return;
  aloop__guests_leave(loop, &future->guest);
  aloop_sync_unref(future);
}

static void on_done(aloop_future_t *task, void *arg) {
  aloop_t *loop = task->object.loop;
  end(arg, aloop_future_result(task));
  leave_if_over(loop, arg);
}

static void start(aloop_t *loop, void *arg) {
  aloop_sync_future_t *future = arg;
  future->task = aloop_create_task_from(loop, future->fn, future->arg, NULL, NULL);
  if (future->task == NULL || aloop__future_watch(future->task, on_done, future) < 0) {
    if (future->task != NULL) aloop_future_cancel(future->task); /* it has not begun */
    end(future, ALOOP_ENOMEM);
    leave_if_over(loop, future);
    return;
  }
  for (; future->early > 0; future->early--) aloop_future_cancel(future->task);
}

static void cancel(aloop_t *loop, void *arg) {
  aloop_sync_future_t *future = arg;
  lock(future);
  future->cancels--;
  bool done = future->done;
  unlock(future);
  if (done)
    leave_if_over(loop, future);
  else if (future->task == NULL)
    future->early++;
  else
    aloop_future_cancel(future->task);
}

/* The loop is closed. In the child of a fork the threads that wait are not there, and neither may be the one
 * that has the lock. */
static void farewell(aloop__guest_t *guest) {
  aloop_sync_future_t *future = sync_of(guest);
  if (future->forks != aloop__current_forks_seen()) {
    aloop_future_unref(future->task);
    return;
  }
  int64_t value = future->task != NULL ? aloop_future_result(future->task) : ALOOP_ECLOSED;
  if (!future->done) end(future, value == ALOOP_ENOTDONE ? ALOOP_ECLOSED : value);
  aloop_sync_unref(future);
}

/* ---- In any thread --------------------------------------------------------------------------------------- */

/* Two references: the caller's and the loop's. NULL: out of memory. */
static aloop_sync_future_t *sync_new(aloop_t *loop, aloop_task_fn fn, void *arg) {
  aloop_sync_future_t *future = aloop__executor_new_block(sizeof *future);
  if (future == NULL) return NULL;
  if (pthread_mutex_init(&future->lock, NULL) != 0) goto no_lock;
  if (aloop__thread_condition(&future->ended) < 0) goto no_condition;
  atomic_init(&future->refs, 2);
  future->guest.farewell = farewell;
  future->loop = loop;
  future->fn = fn;
  future->arg = arg;
  future->forks = aloop__current_forks();
  return future;

no_condition:
  pthread_mutex_destroy(&future->lock);
no_lock:
  aloop__executor_free_block(future);
  return NULL;
}

int aloop_run_coroutine_threadsafe(aloop_t *loop, aloop_task_fn fn, void *arg, aloop_sync_future_t **out) {
  if (loop == NULL || fn == NULL || out == NULL)
    return aloop__misuse(loop, ALOOP_EINVAL,
                         "a task is made with a loop, a function and a place for its future");
  aloop_sync_future_t *future = sync_new(loop, fn, arg);
  if (future == NULL) return ALOOP_ENOMEM;
  if (!aloop__guests_join(loop, &future->guest)) {
    atomic_store(&future->refs, 1);
    aloop_sync_unref(future);
    return ALOOP_ECLOSED;
  }
  int rc = aloop_call_soon_threadsafe_from(loop, start, future, NULL);
  if (rc == 0 || rc == ALOOP_ECLOSED) { /* closed meanwhile: it hears of that */
    *out = future;
    return 0;
  }
  aloop_sync_unref(future); /* the loop's reference stays until it is closed: guests leave in its thread only */
  return rc;
}

/* Whether the calling thread runs the loop that would have to end the future. The lock is held. */
static bool would_wait_for_itself(const aloop_sync_future_t *future) {
  return aloop_running_loop() == future->loop;
}

int64_t aloop_sync_wait(aloop_sync_future_t *future, int64_t timeout) {
  if (future == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the sync future is NULL");
  if (timeout < ALOOP_FOREVER)
    return aloop__misuse(NULL, ALOOP_EINVAL, "a timeout is not negative, or ALOOP_FOREVER");
  int64_t deadline = aloop__thread_deadline(timeout);
  pthread_mutex_lock(&future->lock);
  bool refused = !future->done && timeout != 0 && would_wait_for_itself(future);
  bool late = timeout == 0;
  while (!future->done && !late && !refused) late = aloop__thread_wait(&future->ended, &future->lock, deadline);
  int64_t value = future->done ? future->value : ALOOP_ETIMEDOUT;
  pthread_mutex_unlock(&future->lock);
  if (!refused) return value;
  return aloop__misuse(NULL, ALOOP_EPERM, "the thread of a loop would wait for itself; await the task instead");
}

int aloop_sync_cancel(aloop_sync_future_t *future) {
  if (future == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the sync future is NULL");
  pthread_mutex_lock(&future->lock);
  int rc = future->done ? 0 : aloop_call_soon_threadsafe_from(future->loop, cancel, future, NULL);
  if (!future->done && rc == 0) {
    future->cancels++;
    rc = 1;
  }
  pthread_mutex_unlock(&future->lock);
  return rc == ALOOP_ECLOSED ? 0 : rc;
}

bool aloop_sync_done(aloop_sync_future_t *future) {
  if (future == NULL) {
    aloop__misuse(NULL, ALOOP_EINVAL, "the sync future is NULL");
    return true;
  }
  pthread_mutex_lock(&future->lock);
  bool done = future->done;
  pthread_mutex_unlock(&future->lock);
  return done;
}

aloop_sync_future_t *aloop_sync_ref(aloop_sync_future_t *future) {
  if (future != NULL) atomic_fetch_add_explicit(&future->refs, 1, memory_order_relaxed);
  return future;
}

aloop_future_t *aloop_to_thread(aloop_t *loop, aloop_job_fn fn, void *arg) {
  return aloop_run_in_executor(loop, NULL, fn, arg);
}
