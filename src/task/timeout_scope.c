/* SPDX-License-Identifier: MIT
 *
 * Time limits as scopes on a task's stack: whatever the task awaits between begin and end is cancelled when the
 * time is over, and that cancel, and only that, becomes ALOOP_ETIMEDOUT at the end.
 *
 * Which cancel it was is told by counting, as in asyncio: the task counts the requests to cancel it; a scope
 * remembers the count of its beginning, and when it has made a request of its own it takes that back at its
 * end. If no more are left than at the beginning there was no other, and the cancel was the scope's. Scopes
 * nest: with equal deadlines each makes its request, and the outermost has the timeout.
 *
 * The timer must not refer to the caller's struct, which is on a stack that may be gone if a function
 * forgets the end of its scope. So it refers to a future that the struct refers to, too; it comes from a free
 * list. A forgotten scope costs that future and one cancel, not the stack of somebody else. The dump shows it.
 *
 * Beginning and ending are O(1) but for the timer.
 */
#include "core/report.h"
#include "task/task.h"

static const char origin[] = "aloop_timeout_begin";

/* The scope's future, pending until the time is over, has its task here. */
static aloop_future_t *task_of(const aloop_future_t *inside) {
  return inside->stop_arg;
}

static bool is_expired(const aloop_future_t *inside) {
  return inside->state == ALOOP__DONE;
}

static void on_time(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_future_t *inside = arg, *task = aloop_future_ref(task_of(inside));
  aloop__future_finish(inside, 0);
  aloop__future_cancel(task, NULL);
  aloop_future_unref(task);
}

/* Arms the timer, or moves it. On failure everything is as before. */
static int arm(aloop_future_t *inside, int64_t when) {
  aloop_t *loop = inside->object.loop;
  aloop_handle_t none = {0}, timer = none;
  bool soon = when != ALOOP_FOREVER && when <= aloop_time(loop);
  if (when != ALOOP_FOREVER && !soon && aloop_reschedule(loop, &inside->timer, when) == 0) return 0;
  if (soon)
    timer = aloop_call_soon_from(loop, on_time, inside, origin);
  else if (when != ALOOP_FOREVER)
    timer = aloop_call_at_from(loop, when, on_time, inside, origin);
  if (when != ALOOP_FOREVER && aloop_handle_error(timer) < 0) return aloop_handle_error(timer);
  aloop_cancel(loop, &inside->timer);
  inside->timer = timer;
  return 0;
}

/* The task that begins a scope, or NULL and why not. */
static aloop__task_t *beginner(int *error) {
  aloop__task_t *task = aloop__task_current();
  *error = 0;
  if (task == NULL)
    *error = aloop__misuse(NULL, ALOOP_EPERM, "a time limit is for a task; elsewhere use aloop_wait_for");
  else
    *error = aloop__loop_enter(task->future.object.loop);
  return *error == 0 ? task : NULL;
}

/* Begins a scope whose deadline is `when`, or `delay` ns from now. */
static int begin(aloop_timeout_t *scope, bool relative, int64_t time) {
  if (scope == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "a time limit needs a place: &scope");
  *scope = (aloop_timeout_t){.when = ALOOP_FOREVER};
  aloop__task_t *task = beginner(&scope->error);
  if (task == NULL) return scope->error;
  aloop_t *loop = task->future.object.loop;
  aloop_future_t *inside = aloop__future_new(loop, origin);
  if (inside == NULL) return scope->error = ALOOP_ENOMEM;
  inside->stop_arg = &task->future;
  if (relative && time != ALOOP_FOREVER) {
    int64_t now = aloop_time(loop);
    time = time <= 0 ? now : time < INT64_MAX - now ? now + time : INT64_MAX;
  }
  scope->error = arm(inside, time);
  if (scope->error < 0) {
    aloop_future_unref(inside);
    return scope->error;
  }
  scope->inside = inside;
  scope->task = aloop_future_ref(&task->future);
  scope->cancelling = (int)task->cancelling;
  scope->when = time;
  return 0;
}

int aloop_timeout_begin(aloop_timeout_t *scope, int64_t delay) {
  return begin(scope, true, delay);
}

int aloop_timeout_begin_at(aloop_timeout_t *scope, int64_t when) {
  return begin(scope, false, when);
}

/* A scope that has ended, or could not begin; the latter was told already. */
static ALOOP_NOINLINE int64_t end_of_none(const aloop_timeout_t *scope, int64_t rc) {
  int error = scope != NULL ? scope->error : 0;
  if (error == 0) error = aloop__misuse(NULL, ALOOP_EPERM, "a time limit is ended once, after its beginning");
  return rc < 0 ? rc : error;
}

int64_t aloop_timeout_end(aloop_timeout_t *scope, int64_t rc) {
  if (scope == NULL || scope->inside == NULL) return end_of_none(scope, rc);
  aloop_future_t *inside = scope->inside, *task = scope->task;
  int error = aloop__loop_thread(task->object.loop);
  if (error < 0) return rc < 0 ? rc : error;
  scope->inside = scope->task = NULL;
  scope->expired = is_expired(inside);
  if (scope->expired) {
    int left = aloop_task_uncancel(task);
    if (left <= scope->cancelling && rc == ALOOP_ECANCELED) rc = ALOOP_ETIMEDOUT;
  } else if (inside->state == ALOOP__PENDING) {
    aloop_cancel(task->object.loop, &inside->timer);
  }
  aloop_future_unref(inside);
  aloop_future_unref(task);
  return rc;
}

int aloop_timeout_reschedule(aloop_timeout_t *scope, int64_t when) {
  if (scope == NULL || scope->inside == NULL)
    return aloop__misuse(NULL, ALOOP_EPERM, "a time limit is moved between its beginning and its end");
  int rc = aloop__loop_enter(scope->task->object.loop);
  if (rc < 0) return rc;
  if (is_expired(scope->inside)) return ALOOP_EDONE;
  rc = arm(scope->inside, when);
  if (rc == 0) scope->when = when;
  return rc;
}

int64_t aloop_timeout_when(const aloop_timeout_t *scope) {
  if (scope != NULL) return scope->when;
  return aloop__misuse(NULL, ALOOP_EINVAL, "the time limit is NULL");
}

bool aloop_timeout_expired(const aloop_timeout_t *scope) {
  if (scope != NULL) return scope->inside != NULL ? is_expired(scope->inside) : scope->expired;
  aloop__misuse(NULL, ALOOP_EINVAL, "the time limit is NULL");
  return false;
}
