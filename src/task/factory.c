/* SPDX-License-Identifier: MIT
 *
 * Task factories and foreign tasks: how a language runtime brings its own coroutines.
 *
 * A factory answers aloop_create_task in our place. What it returns may be any future of the loop; a foreign
 * task is one that also has a name, counts its cancels and is among all_tasks, while its body is elsewhere: the
 * runtime says when it runs (enter, leave), ends it like any future, and is told when somebody wants it to end.
 * Entering does for a foreign task what a step does for one of ours: it becomes the current task, its context
 * the loop's. Entered tasks nest, as eager ones do.
 *
 * Inside the factory aloop_create_task makes a task of ours, so a factory can wrap as well as replace.
 *
 * A foreign task has no stack of ours: it cannot aloop_await, and aloop_close, which asks it to end, does not
 * wait for it.
 */
#include "core/report.h"
#include "task/task.h"

/* ---- Factories ------------------------------------------------------------------------------------------- */

aloop_future_t *aloop__task_from_factory(aloop__tasks_t *tasks, aloop_t *loop, aloop_task_fn fn, void *arg,
                                         const aloop_task_options_t *options, const char *origin) {
  tasks->in_factory = true;
  aloop_future_t *future = tasks->factory(loop, fn, arg, options, tasks->factory_arg);
  tasks->in_factory = false;
  if (future == NULL) return NULL;
  if (future->object.loop != loop) {
    aloop_future_unref(future);
    return aloop__future_refused(loop, origin, ALOOP_EOTHERLOOP,
                                 "a task factory returns a future of the loop that it is asked by");
  }
  if (future->object.origin == NULL) future->object.origin = origin;
  return future;
}

int aloop_set_task_factory(aloop_t *loop, aloop_task_factory_fn factory, void *arg) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  aloop__tasks_t *tasks = aloop__tasks_open(loop);
  if (tasks == NULL) return ALOOP_ENOMEM;
  tasks->factory = factory;
  tasks->factory_arg = arg;
  return 0;
}

aloop_task_factory_fn aloop_get_task_factory(const aloop_t *loop, void **arg) {
  if (!aloop__loop_ok(loop)) return NULL;
  const aloop__tasks_t *tasks = aloop__tasks_of(loop);
  if (arg != NULL) *arg = tasks != NULL ? tasks->factory_arg : NULL;
  return tasks != NULL ? tasks->factory : NULL;
}

/* ---- Foreign tasks --------------------------------------------------------------------------------------- */

/* The future is about to end. While the task is entered it still needs its context. */
static void stop(aloop_future_t *future, void *arg) {
  aloop__task_t *task = arg;
  (void)future;
  if (!task->entered) aloop__task_let_go(task);
}

aloop_future_t *aloop_foreign_task_new(aloop_t *loop, const aloop_task_options_t *given, aloop_done_fn cancel,
                                       void *arg) {
  if (!aloop__loop_ok(loop)) return NULL;
  int error;
  aloop_task_options_t options = {.size = sizeof options};
  const char *rule = aloop__task_options(loop, given, &options, &error);
  if (rule == NULL && cancel == NULL) rule = "a foreign task needs a function that brings it to its end";
  aloop__task_t *task = aloop__task_new(loop, &options, NULL);
  if (task == NULL) return NULL;
  task->foreign = true;
  task->cancel = cancel;
  task->arg = arg;
  if (task->future.state != ALOOP__PENDING)
    aloop__task_let_go(task);
  else if (rule != NULL)
    return aloop__task_refuse(task, error, rule);
  aloop__future_set_operation(&task->future, stop, task);
  return &task->future;
}

/* 0, or why the future cannot be entered or left. */
static int check(const aloop_future_t *future) {
  if (future == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the task is NULL");
  aloop_t *loop = future->object.loop;
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  const aloop__task_t *task = aloop__task_of(future);
  if (task != NULL && task->foreign) return 0;
  return aloop__misuse(loop, ALOOP_EINVAL, "only foreign tasks are entered and left; ours do it themselves");
}

int aloop_task_enter(aloop_future_t *future) {
  int rc = check(future);
  if (rc < 0) return rc;
  aloop__task_t *task = aloop__task_of(future);
  aloop_t *loop = future->object.loop;
  if (task->entered) return aloop__misuse(loop, ALOOP_EBUSY, "the task is already entered");
  if (future->state != ALOOP__PENDING) return aloop__misuse(loop, ALOOP_EDONE, "the task has ended");
  aloop__object_ref(&future->object);
  aloop__task_enter(task);
  task->entered = true;
  return 0;
}

int aloop_task_leave(aloop_future_t *future) {
  int rc = check(future);
  if (rc < 0) return rc;
  aloop__task_t *task = aloop__task_of(future);
  if (aloop__tasks_of(future->object.loop)->current != task)
    return aloop__misuse(future->object.loop, ALOOP_EPERM, "only the current task can be left");
  aloop__task_leave(task);
  task->entered = false;
  if (future->state != ALOOP__PENDING) aloop__task_let_go(task);
  aloop_future_unref(future);
  return 0;
}
