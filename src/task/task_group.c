/* SPDX-License-Identifier: MIT
 *
 * Task groups: tasks that end before the scope that made them does.
 *
 * The first child that fails cancels the others, and the parent, once, so that it leaves what it is doing; the
 * end of the group takes that request back. Whatever else cancels the parent cancels the children, too, and is
 * the result, unless a child failed: then the failure is the result and the request stays with the parent,
 * whose next await ends with it. This is asyncio's TaskGroup of 3.13, with one addition: the result is one
 * error where Python raises a group of them; the others can be asked for.
 *
 * The parent waits for the children on one future, made at the beginning, so that the end cannot fail for want
 * of memory. Cancelling that future does not end it: the parent leaves it, and when its turn comes cancels the
 * children and waits for it again. Until then children that are about to begin or to end do so.
 *
 * A child that cannot be made for want of memory is a failure, too: who detaches what he gets need not look.
 *
 * A child is known by a node that is in one of two lists: of those that run, and of those that failed, in the
 * order of their failures. Nodes of children that ended well are used again. All is O(1) but the cancel of all
 * children and looking for an error by its index.
 */
#include "core/memory.h"
#include "core/report.h"
#include "task/task.h"

#include <stdio.h>

typedef struct child {
  aloop__list_t link;
  aloop_task_group_t *group;
  aloop_future_t *future; /* a reference */
} child_t;

struct aloop_task_group {
  aloop__object_t object; /* a reference for the caller, and one while children run */
  aloop_future_t *parent; /* a reference */
  aloop_future_t *ended;  /* a reference; finished when the last child ends while the parent waits for it */
  aloop__list_t running;
  aloop__list_t failed;
  aloop__list_t spares;
  size_t running_count;
  size_t failed_count;
  bool ending;           /* aloop_task_group_end was called, */
  bool over;             /* ... has returned */
  bool aborting;         /* the children were cancelled */
  bool parent_cancelled; /* by the group, once */
  bool cancelled;        /* the parent was, by others */
  bool starved;          /* a child could not be made */
};

static int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the task group is NULL");
}

static int enter(const aloop_task_group_t *group) {
  return group != NULL ? aloop__loop_thread(group->object.loop) : refuse_null();
}

static child_t *child_at(aloop__list_t *link) {
  return ALOOP_CONTAINER_OF(link, child_t, link);
}

/* ---- Children end ---------------------------------------------------------------------------------------- */

/* The cancel of one may end others: a child's end is noted by a callback, later, so the list stays as it is. */
static void abort_children(aloop_task_group_t *group) {
  group->aborting = true;
  for (aloop__list_t *at = group->running.next; at != &group->running; at = at->next)
    aloop_future_cancel(child_at(at)->future);
}

static void report_orphan(const aloop_task_group_t *group, aloop_future_t *future) {
  aloop_error_context_t context = aloop__report_context(
      "a child of a task group failed after its parent task had ended", (int)future->value);
  context.future = future;
  context.origin = future->object.origin;
  aloop__report(group->object.loop, &context);
}

/* The first failure ends it all. */
static void fail(aloop_task_group_t *group) {
  if (group->aborting || group->parent_cancelled) return;
  abort_children(group);
  group->parent_cancelled = true;
  aloop__future_cancel(group->parent, NULL);
}

static void note_failure(aloop_task_group_t *group, child_t *child) {
  aloop__future_ignore(child->future);
  aloop__list_append(&group->failed, &child->link);
  group->failed_count++;
  if (group->parent->state == ALOOP__PENDING)
    fail(group);
  else
    report_orphan(group, child->future);
}

static void on_child(aloop_future_t *future, void *arg) {
  child_t *child = arg;
  aloop_task_group_t *group = child->group;
  aloop__object_ref(&group->object);
  aloop__list_remove(&child->link);
  if (--group->running_count == 0) {
    if (group->ending) aloop__future_finish(group->ended, 0);
    aloop__object_unref(&group->object);
  }
  if (future->state == ALOOP__FAILED && future->value != ALOOP_ECANCELED) {
    note_failure(group, child);
  } else {
    child->future = NULL;
    aloop__list_append(&group->spares, &child->link);
    aloop_future_unref(future);
  }
  aloop__object_unref(&group->object);
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void release_list(aloop_task_group_t *group, aloop__list_t *list) {
  while (!aloop__list_empty(list)) {
    child_t *child = child_at(list->next);
    aloop__list_remove(&child->link);
    aloop_future_unref(child->future);
    aloop__memory_release(group->object.loop, child);
  }
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_task_group_t *group = (const aloop_task_group_t *)(const void *)object;
  snprintf(text, size, "of %zu running, %zu failed%s", group->running_count, group->failed_count,
           group->aborting ? ", cancelled" : "");
}

static void destroy(aloop__object_t *object) {
  aloop_task_group_t *group = ALOOP_CONTAINER_OF(object, aloop_task_group_t, object);
  release_list(group, &group->failed);
  release_list(group, &group->spares);
  aloop_future_unref(group->ended);
  aloop_future_unref(group->parent);
  aloop__object_end(object, group);
}

/* The ends of children are not going to be heard of any more. Their errors still count as read. */
static void close_group(aloop__object_t *object) {
  aloop_task_group_t *group = ALOOP_CONTAINER_OF(object, aloop_task_group_t, object);
  if (group->running_count == 0) return;
  for (aloop__list_t *at = group->running.next; at != &group->running; at = at->next) {
    aloop__future_unwatch(child_at(at)->future, on_child, child_at(at));
    aloop__future_ignore(child_at(at)->future);
  }
  group->running_count = 0;
  release_list(group, &group->running);
  aloop__object_unref(object);
}

static const aloop__kind_t kind = {
    .name = "task group", .index = ALOOP__SYNC, .describe = describe, .destroy = destroy, .close = close_group};

/* The parent is cancelled while it waits for the children. */
static void pass_cancel_on(aloop_task_group_t *group) {
  if (group->aborting) return;
  group->cancelled = true;
  abort_children(group);
}

static void hear_cancel(aloop_future_t *ended, const char *message) {
  (void)message;
  aloop_task_group_t *group = ended->stop_arg;
  if (!aloop__task_give_up_waiting(aloop__task_of(group->parent))) pass_cancel_on(group); /* out of memory */
}

static const aloop__future_kind_t waiting = {.object = {.name = "future",
                                                        .index = ALOOP__FUTURE,
                                                        .describe = aloop__future_describe,
                                                        .destroy = aloop__future_destroy,
                                                        .close = aloop__future_close,
                                                        .resume = aloop__future_resume},
                                             .cancel = hear_cancel};

int aloop_task_group_begin(aloop_t *loop, aloop_task_group_t **out) {
  static const char origin[] = "aloop_task_group_begin";
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (out == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a new task group needs a place to go to");
  aloop__task_t *parent = aloop__task_current();
  if (parent == NULL || parent->foreign || parent->future.object.loop != loop)
    return aloop__misuse(loop, ALOOP_EPERM, "a task group is begun by the task of this loop that will end it");
  aloop_task_group_t *group = aloop__memory_zero(loop, sizeof *group);
  aloop_future_t *ended = aloop__future_new(loop, origin);
  if (group == NULL || ended == NULL) {
    aloop__memory_release(loop, group);
    aloop_future_unref(ended);
    return ALOOP_ENOMEM;
  }
  aloop__object_init(&group->object, loop, &kind, origin);
  ended->object.kind = &waiting.object;
  ended->stop_arg = group;
  group->ended = ended;
  group->parent = aloop_future_ref(&parent->future);
  aloop__list_init(&group->running);
  aloop__list_init(&group->failed);
  aloop__list_init(&group->spares);
  *out = group;
  return 0;
}

void aloop_task_group_free(aloop_task_group_t *group) {
  if (group == NULL || enter(group) < 0) return;
  if (group->running_count > 0 && (group->object.loop->guard & ALOOP__GUARD_CLOSED) == 0) {
    aloop__misuse(group->object.loop, ALOOP_EBUSY, "a task group is ended before it is freed");
    group->over = true;
    abort_children(group);
  }
  aloop__object_unref(&group->object);
}

/* ---- Children begin -------------------------------------------------------------------------------------- */

static child_t *take_child(aloop_task_group_t *group) {
  if (aloop__list_empty(&group->spares)) return aloop__memory_new(group->object.loop, sizeof(child_t));
  child_t *child = child_at(group->spares.next);
  aloop__list_remove(&child->link);
  return child;
}

static void add_child(aloop_task_group_t *group, child_t *child, aloop_future_t *future) {
  child->group = group;
  child->future = aloop_future_ref(future);
  aloop__list_append(&group->running, &child->link);
  if (group->running_count++ == 0) aloop__object_ref(&group->object);
  if (future->state != ALOOP__PENDING || aloop__future_watch(future, on_child, child) < 0)
    on_child(future, child);
}

/* A child that comes too late. */
static aloop_future_t *refuse_child(const aloop_task_group_t *group, void *arg,
                                    const aloop_task_options_t *options, const char *origin) {
  aloop_t *loop = group->object.loop;
  bool over = group->over || (group->ending && group->running_count == 0);
  aloop_future_t *future =
      over ? aloop__future_refused(loop, origin, ALOOP_EPERM, "the task group has ended")
           : aloop__future_failed(loop, origin, ALOOP_ECLOSED, "the task group is being cancelled");
  aloop_task_options_t known = {.size = sizeof known};
  if (options != NULL) aloop__memory_copy_options(&known, sizeof known, options);
  if (future != NULL && known.destroy != NULL) known.destroy(arg);
  return future;
}

aloop_future_t *aloop_task_group_create_task_from(aloop_task_group_t *group, aloop_task_fn fn, void *arg,
                                                  const aloop_task_options_t *options, const char *origin) {
  if (enter(group) < 0) return NULL;
  aloop_t *loop = group->object.loop;
  bool open = !group->over && !group->aborting && !(group->ending && group->running_count == 0);
  if (!open) return refuse_child(group, arg, options, origin);
  child_t *child = take_child(group);
  aloop_future_t *future = child != NULL ? aloop_create_task_from(loop, fn, arg, options, origin) : NULL;
  if (future != NULL && (loop->guard & ALOOP__GUARD_CLOSED) == 0) {
    add_child(group, child, future);
    return future;
  }
  aloop__memory_release(loop, child);
  if (future != NULL) return future;
  group->starved = true;
  fail(group);
  return NULL;
}

aloop_future_t *(aloop_task_group_create_task)(aloop_task_group_t *group, aloop_task_fn fn, void *arg,
                                               const aloop_task_options_t *options) {
  return aloop_task_group_create_task_from(group, fn, arg, options, NULL);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* The first error of a child, with its message for the case that the parent returns it. */
static int64_t first_failure(aloop_task_group_t *group) {
  aloop_future_t *future = child_at(group->failed.next)->future;
  return aloop_return_error((int)aloop_future_result(future), "%s", aloop_future_message(future));
}

/* A request of somebody else goes on: the next await of the parent ends with it. */
static void renew_request(aloop_future_t *parent) {
  if (aloop_task_cancelling(parent) == 0) return;
  aloop_task_uncancel(parent);
  aloop__future_cancel(parent, NULL);
}

/* All children have ended. */
static int64_t sum_up(aloop_task_group_t *group, int64_t rc, bool failed_first) {
  bool cancelled = group->cancelled || rc == ALOOP_ECANCELED;
  if (group->parent_cancelled && aloop_task_uncancel(group->parent) == 0) cancelled = false;
  if (group->starved && group->failed_count == 0 && (rc >= 0 || rc == ALOOP_ECANCELED) && !cancelled)
    rc = ALOOP_ENOMEM;
  bool own_error = rc < 0 && rc != ALOOP_ECANCELED;
  if (group->failed_count == 0 && !own_error) return cancelled ? ALOOP_ECANCELED : rc;
  if (cancelled && group->failed_count == 0) return ALOOP_ECANCELED;
  renew_request(group->parent);
  return own_error && !failed_first ? rc : first_failure(group);
}

static bool is_parent(const aloop_task_group_t *group) {
  aloop__task_t *task = aloop__task_current();
  return task != NULL && &task->future == group->parent;
}

int64_t aloop_task_group_end(aloop_task_group_t *group, int64_t rc) {
  int error = enter(group);
  if (error < 0) return rc < 0 ? rc : error;
  if (!is_parent(group) || group->ending) {
    error =
        aloop__misuse(group->object.loop, ALOOP_EPERM, "a task group is ended once, by the task that began it");
    return rc < 0 ? rc : error;
  }
  bool failed_first = group->failed_count > 0;
  group->ending = true;
  if (rc < 0 && !group->aborting) abort_children(group);
  while (group->running_count > 0) {
    error = aloop__task_wait(group->ended);
    if (error == ALOOP_ECLOSED) return rc < 0 ? rc : error;
    if (error == ALOOP_ECANCELED) pass_cancel_on(group);
  }
  group->over = true;
  return sum_up(group, rc, failed_first);
}

size_t aloop_task_group_errors(const aloop_task_group_t *group) {
  return enter(group) == 0 ? group->failed_count : 0;
}

aloop_future_t *aloop_task_group_error(const aloop_task_group_t *group, size_t index) {
  if (enter(group) < 0 || index >= group->failed_count) return NULL;
  aloop__list_t *at = group->failed.next;
  while (index-- > 0) at = at->next;
  return child_at(at)->future;
}
