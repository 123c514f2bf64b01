/* SPDX-License-Identifier: MIT
 *
 * Tasks: functions with a stack of their own, as futures.
 *
 * A task is a future with a coroutine behind it. It runs in steps: the first is queued by aloop_create_task,
 * each later one is a done callback of the future that the task waits for. A step ends where the function waits
 * for something again or returns; aloop__task_step is what lies around it: the task becomes the current one of
 * its loop, its context the loop's. A coroutine, and with it a stack, is taken when the first step begins and
 * given back when the last one ends, so any number of tasks that never wait share one warm stack.
 *
 * A task may run on several coroutines: an async generator that it asks for the next item is gone on with
 * inside the step, and what the generator waits for the task waits for. `active` is the one to go on with. They
 * change places here, outside of both (aloop__task_transfer), so none is ever resumed from within another.
 *
 * Cancelling asks (await.c has the other half): the future that the task waits for is cancelled, if it lets
 * itself, and its end is the task's wake-up; else must_cancel makes the next await that waits end with it.
 * Requests are counted for those who have to tell their own from others' (task groups, time limits). A request
 * that comes after the last await still wins over a result, not over an error.
 *
 * When the loop is closed, a task is stepped from here until its function returns; aloop_await answers at once
 * with ALOOP_ECLOSED, so frames unwind and release what they hold. A function that goes on waiting a thousand
 * times gets its frames dropped, and a report.
 *
 * Costs: a task is one block, from a free list, and its stack, from a pool. Making, stepping, cancelling and
 * ending are O(1). all_tasks walks the live objects of the loop. Names are written when somebody asks. A task
 * that returns at once takes 637 instructions: 160 to make it, 170 for its stack and coroutine until these are
 * given back, 85 for the switch both ways with what is called there, 130 for its end; the rest is the step, the
 * turn and the program. Setting the members of a new coroutine one by one was tried: three instructions.
 */
#include "task/generator.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"
#include "core/short_lived.h"
#include "net/write.h"

enum { SPARES_MAX = 1024, POOLED_MANY = 64 };
#define TIDY_AFTER ALOOP_SECONDS(1)

/* ---- What a loop keeps ----------------------------------------------------------------------------------- */

static void close_room(aloop_t *loop, aloop__room_t *room) {
  aloop__tasks_t *self = ALOOP_CONTAINER_OF(room, aloop__tasks_t, room);
  aloop__spares_release(loop, &self->spares, sizeof(aloop__task_t));
  aloop__overflow_unwatch(&self->overflow);
  aloop__stacks_close(&self->stacks);
  aloop__memory_release(loop, self);
}

static void describe_room(const aloop__room_t *room, char *text, size_t size) {
  const aloop__stacks_t *stacks = &ALOOP_CONTAINER_OF(room, const aloop__tasks_t, room)->stacks;
  if (stacks->high_water == 0) return;
  snprintf(text, size, "stacks of tasks: %zu in use, at most %zu so far, %zu pooled, %zu KiB of address space",
           stacks->live, stacks->high_water, stacks->pooled, stacks->reserved / 1024);
}

aloop__tasks_t *aloop__tasks_open(aloop_t *loop) {
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  if (ALOOP_LIKELY(tasks != NULL) || (loop->guard & ALOOP__GUARD_CLOSED)) return tasks;
  tasks = aloop__memory_zero(loop, sizeof *tasks);
  if (tasks == NULL) return NULL;
  tasks->room.close = close_room;
  tasks->room.describe = describe_room;
  aloop__stacks_init(&tasks->stacks, loop);
  aloop__list_init(&tasks->steps);
  loop->rooms[ALOOP__ROOM_TASK] = &tasks->room;
  return tasks;
}

static void *take_block(aloop_t *loop) {
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  if (tasks == NULL || tasks->spares.first == NULL) return aloop__memory_new(loop, sizeof(aloop__task_t));
  return aloop__spares_take(&tasks->spares, sizeof(aloop__task_t));
}

static void give_block(aloop__task_t *task) {
  aloop__tasks_t *tasks = aloop__tasks_of(task->future.object.loop);
  aloop__short_lived_give(tasks != NULL ? &tasks->spares : NULL, SPARES_MAX, &task->future.object, task,
                          sizeof *task);
}

static aloop__task_t *task_at(aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop__task_t, future.object);
}

static aloop_t *loop_of(const aloop__task_t *task) {
  return task->future.object.loop;
}

/* ---- Names ----------------------------------------------------------------------------------------------- */

const char *aloop__task_name(aloop__task_t *task) {
  if (task->name != NULL) return task->name;
  if (task->number_name[0] == '\0')
    snprintf(task->number_name, sizeof task->number_name, "Task-%" PRIu64, task->number);
  return task->number_name;
}

/* ---- Steps ----------------------------------------------------------------------------------------------- */

void aloop__task_uncork(aloop__tasks_t *tasks) {
  aloop_transport_t *transport = tasks->corked;
  tasks->corked = NULL;
  aloop__cork_close(transport);
}

/* False: the context is entered by others, and the task is to have another one. */
static ALOOP_NOINLINE bool enter_shared(aloop__task_t *task) {
  task->shares = !aloop__context_is_entered(task->context);
  if (task->shares)
    aloop__context_enter(task->context);
  else
    aloop__misuse(loop_of(task), ALOOP_EBUSY, "the context of a task is entered by others when it goes on");
  return task->shares;
}

ALOOP_INLINE void enter_task(aloop_t *loop, aloop__tasks_t *tasks, aloop__task_t *task) {
  task->outer = tasks->current;
  task->outer_map = loop->context;
  tasks->current = task;
  if (ALOOP_UNLIKELY(task->context != NULL) && enter_shared(task)) return;
  loop->context = task->map;
  task->map = NULL;
}

ALOOP_INLINE void leave_task(aloop_t *loop, aloop__tasks_t *tasks, aloop__task_t *task) {
  tasks->corks = false;
  if (tasks->corked != NULL) aloop__task_uncork(tasks);
  if (ALOOP_UNLIKELY(task->shares))
    aloop__context_leave(task->context);
  else
    task->map = loop->context;
  task->shares = false;
  loop->context = task->outer_map;
  tasks->current = task->outer;
}

void aloop__task_enter(aloop__task_t *task) {
  enter_task(loop_of(task), aloop__tasks_of(loop_of(task)), task);
}

void aloop__task_leave(aloop__task_t *task) {
  leave_task(loop_of(task), aloop__tasks_of(loop_of(task)), task);
}

static ALOOP_NOINLINE void let_go_of_context(aloop__task_t *task) {
  aloop_context_t *context = task->context;
  task->context = NULL;
  if (task->map != NULL) aloop__map_clear(loop_of(task), &task->map);
  if (context != NULL) aloop__context_unref(context);
}

void aloop__task_let_go(aloop__task_t *task) {
  if (ALOOP_UNLIKELY(task->map != NULL) || ALOOP_UNLIKELY(task->context != NULL)) let_go_of_context(task);
  aloop_destroy_fn destroy = task->destroy;
  task->destroy = NULL;
  if (destroy != NULL) destroy(task->arg);
}

static void tidy_stacks(aloop_t *loop, void *arg) {
  aloop__tasks_t *tasks = arg;
  tasks->tidying = aloop__stacks_tidy(&tasks->stacks) &&
                   aloop_handle_error(aloop_call_later(loop, TIDY_AFTER, tidy_stacks, tasks)) == 0;
}

/* After a crowd of tasks the memory of its stacks goes back, when it was not needed for a second or two. */
static ALOOP_NOINLINE void tidy_later(aloop_t *loop, aloop__tasks_t *tasks) {
  if (loop->guard & ALOOP__GUARD_CLOSED) return;
  aloop__map_t *map = loop->context;
  loop->context = NULL;
  tasks->tidying = aloop_handle_error(aloop_call_later(loop, TIDY_AFTER, tidy_stacks, tasks)) == 0;
  loop->context = map;
}

static void give_stack(aloop__task_t *task) {
  aloop_t *loop = loop_of(task);
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  aloop__coroutine_free(task->coroutine);
  task->coroutine = task->active = NULL;
  if (ALOOP_UNLIKELY(tasks->stacks.pooled > POOLED_MANY && !tasks->tidying)) tidy_later(loop, tasks);
}

/* What the function returned becomes the end of the future. */
void aloop__task_end(aloop__task_t *task, int64_t value) {
  aloop_future_t *future = &task->future;
  if (ALOOP_UNLIKELY(task->generator != NULL)) aloop__generator_abandon(task);
  if (task->coroutine != NULL) give_stack(task);
  if (value >= 0 && task->must_cancel) value = ALOOP_ECANCELED;
  task->must_cancel = false;
  aloop__task_let_go(task);
  if (value >= 0 && task->has_ptr) {
    task->has_ptr = false;
    aloop__future_finish_ptr(future, value, task->ptr, task->destroy_ptr);
  } else if (value >= 0) {
    aloop__future_finish(future, value);
  } else {
    if (value < INT32_MIN) value = ALOOP_EINVAL;
    if (task->noted != value) aloop__future_set_message(future, NULL);
    if (value == ALOOP_ECLOSED && (loop_of(task)->guard & ALOOP__GUARD_CLOSED)) aloop__future_ignore(future);
    aloop__future_fail(future, (int)value, NULL);
  }
}

void aloop__task_step(aloop__task_t *task) {
  aloop_t *loop = loop_of(task);
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  enter_task(loop, tasks, task);
  aloop__coroutine_t *co;
  do {
    co = task->active;
    aloop__coroutine_resume(co);
  } while (ALOOP_UNLIKELY(task->active != co));
  leave_task(loop, tasks, task);
  if (co == task->coroutine && aloop__coroutine_ended(co)) aloop__task_end(task, task->future.value);
}

void aloop__task_transfer(aloop__task_t *task, aloop__coroutine_t *to) {
  aloop__coroutine_t *from = task->active;
  task->active = to;
  aloop__coroutine_suspend(from);
}

/* The coroutine. */
static void run(aloop__coroutine_t *self, void *arg) {
  (void)self;
  aloop__task_t *task = arg;
  task->future.value = task->fn(loop_of(task), task->arg); /* pending still: the place is free */
}

/* Debug mode: an overflow of its stack will be told with its name. */
static ALOOP_NOINLINE void watch_stack(aloop_t *loop, aloop__task_t *task) {
  aloop__overflow_watch(&aloop__tasks_of(loop)->overflow);
  aloop__coroutine_set_label(task->coroutine, aloop__task_name(task));
}

/* The first step; `arg` holds itself until its end. */
static void begin(aloop_t *loop, void *arg) {
  aloop__task_t *task = arg;
  if (task->must_cancel) {
    aloop__task_end(task, ALOOP_ECANCELED);
    return;
  }
  int rc = aloop__coroutine_new(&aloop__tasks_of(loop)->stacks, task->stack_size, run, task, &task->coroutine);
  if (rc < 0) {
    aloop__task_end(task, rc);
    return;
  }
  if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_DEBUG)) watch_stack(loop, task);
  task->active = task->coroutine;
  aloop__task_step(task);
}

/* An eager one, perhaps made by a factory: what it makes is none of the factory's. */
static void begin_at_once(aloop_t *loop, aloop__task_t *task) {
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  bool in_factory = tasks->in_factory;
  tasks->in_factory = false;
  begin(loop, task);
  tasks->in_factory = in_factory;
}

/* ---- The kind of future ---------------------------------------------------------------------------------- */

/* One request. */
static void note_request(aloop__task_t *task, const char *message) {
  task->cancelling++;
  aloop__future_set_message(&task->future, message);
  task->noted = ALOOP_ECANCELED;
}

/* The task of ours that this one waits for, or NULL. */
static aloop__task_t *awaited_task(const aloop__task_t *task) {
  aloop__task_t *next = aloop__task_of(task->awaited);
  return next != NULL && !next->foreign && next->future.state == ALOOP__PENDING ? next : NULL;
}

/* The request arrives at a task that waits for no other one. */
static void deliver(aloop__task_t *task, const char *message) {
  bool goes_on = task->awaited == NULL || task->awaited->pause;
  if (goes_on || aloop__future_cancel(task->awaited, message) == 0) task->must_cancel = true;
}

/* A request goes down from task to task, along what each waits for, by a loop, because such a chain may be
 * long. One that comes back to where it has been, has found tasks that wait for each other in a circle, which
 * nothing else would ever end: there the wait itself is given up. */
static void ask(aloop_future_t *future, const char *message) {
  aloop__task_t *task = (aloop__task_t *)(void *)future, *asked = NULL;
  note_request(task, message);
  if (task->foreign) {
    task->cancel(future, task->arg);
    return;
  }
  while (!task->asking) {
    aloop__object_ref(&task->future.object);
    task->asking = true;
    task->asked_before = asked;
    asked = task;
    aloop__task_t *next = awaited_task(task);
    if (next == NULL) break;
    note_request(next, message);
    task = next;
  }
  if (task != asked)
    aloop__task_give_up_waiting(task);
  else
    deliver(task, message);
  while (asked != NULL) {
    task = asked;
    asked = task->asked_before;
    task->asking = false;
    aloop_future_unref(&task->future);
  }
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  aloop__task_t *task = task_at((aloop__object_t *)object);
  int used = snprintf(text, size, "%s ", aloop__task_name(task));
  if (used < 0 || (size_t)used >= size) return;
  text += used;
  size -= (size_t)used;
  if (task->future.state != ALOOP__PENDING || task->foreign)
    aloop__future_describe(object, text, size);
  else if (task->awaited != NULL)
    snprintf(text, size, "waits for a %s%s%s", task->awaited->object.kind->name,
             task->awaited->object.origin != NULL ? " from " : "",
             task->awaited->object.origin != NULL ? task->awaited->object.origin : "");
  else
    snprintf(text, size, "%s", task->coroutine != NULL ? "runs" : "is about to begin");
}

static void destroy(aloop__object_t *object) {
  aloop__task_t *task = task_at(object);
  if (ALOOP_UNLIKELY(!aloop__future_release(&task->future))) return;
  if (ALOOP_UNLIKELY(task->name != NULL)) aloop__memory_release(object->loop, task->name);
  if (ALOOP_UNLIKELY(task->has_ptr) && task->destroy_ptr != NULL) task->destroy_ptr(task->ptr);
  give_block(task);
}

/* Its frames get the chance to unwind. */
static void unwind(aloop__task_t *task) {
  aloop_t *loop = loop_of(task);
  aloop_t *running = aloop__current_run(loop);
  aloop__task_step(task);
  aloop__current_run(running);
  if (task->future.state != ALOOP__PENDING) return;
  char text[160];
  snprintf(text, sizeof text, "%s went on waiting while its loop was being closed; its frames are dropped",
           aloop__task_name(task));
  aloop_error_context_t context = aloop__report_context(text, ALOOP_ECLOSED);
  context.future = &task->future;
  context.origin = task->future.object.origin;
  aloop__report(loop, &context);
  aloop__task_end(task, ALOOP_ECLOSED);
}

static void close_task(aloop__object_t *object) {
  aloop__task_t *task = task_at(object);
  if (task->future.state == ALOOP__PENDING) {
    if (task->foreign)
      ask(&task->future, NULL);
    else if (task->coroutine == NULL)
      aloop__task_end(task, ALOOP_ECANCELED);
    else
      unwind(task);
  }
  aloop__future_close(object);
}

static const char *label(aloop_future_t *future) {
  return aloop__task_name((aloop__task_t *)(void *)future);
}

static const aloop__future_kind_t kind = {.object = {.name = "task",
                                                     .index = ALOOP__TASK,
                                                     .describe = describe,
                                                     .destroy = destroy,
                                                     .close = close_task,
                                                     .resume = aloop__future_resume},
                                          .cancel = ask,
                                          .label = label};

aloop__task_t *aloop__task_of(const aloop_future_t *future) {
  bool is_task = future != NULL && future->object.kind == &kind.object;
  return is_task ? ALOOP_CONTAINER_OF(future, aloop__task_t, future) : NULL;
}

/* ---- Making one ------------------------------------------------------------------------------------------ */

/* What is left out has no meaning until it is set with something else. */
static inline void set_up(aloop__task_t *task, const aloop_task_options_t *options) {
  task->coroutine = task->active = NULL;
  task->generator = NULL;
  task->awaited = NULL;
  task->map = NULL;
  task->context = options->context;
  task->destroy = options->destroy;
  task->stack_size = options->stack_size;
  task->noted = 0;
  task->cancelling = task->refused = 0;
  task->must_cancel = task->gave_up = task->has_ptr = task->foreign = task->shares = task->entered =
      task->asking = false;
  task->number_name[0] = '\0';
}

/* The rest of a task's making, where it has a block. */
static inline void begin_life(aloop__task_t *task, aloop_t *loop, const aloop_task_options_t *options,
                              char *name, uint64_t number, const char *origin) {
  aloop__future_init(&task->future, loop, &kind, origin);
  set_up(task, options);
  task->name = name;
  task->number = number;
  if (ALOOP_UNLIKELY(task->context != NULL))
    aloop__context_ref(task->context);
  else if (ALOOP_UNLIKELY(loop->context != NULL))
    task->map = aloop__map_ref(loop->context);
  aloop__future_set_operation(&task->future, NULL, NULL);
}

static ALOOP_NOINLINE aloop__task_t *new_slowly(aloop_t *loop, const aloop_task_options_t *options,
                                                const char *origin) {
  aloop__tasks_t *tasks = aloop__tasks_open(loop);
  if (tasks == NULL && (loop->guard & ALOOP__GUARD_CLOSED) == 0) return NULL;
  char *name = options->name != NULL ? aloop__memory_string(loop, options->name) : NULL;
  if (options->name != NULL && name == NULL) return NULL;
  aloop__task_t *task = take_block(loop);
  if (task == NULL) {
    aloop__memory_release(loop, name);
    return NULL;
  }
  begin_life(task, loop, options, name, tasks != NULL ? ++tasks->count : 0, origin);
  return task;
}

/* The usual: a block is there, and nobody gives the task a name. */
aloop__task_t *aloop__task_new(aloop_t *loop, const aloop_task_options_t *options, const char *origin) {
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  if (ALOOP_UNLIKELY(tasks == NULL) || ALOOP_UNLIKELY(tasks->spares.first == NULL) || options->name != NULL)
    return new_slowly(loop, options, origin);
  aloop__task_t *task = take_block(loop);
  begin_life(task, loop, options, NULL, ++tasks->count, origin);
  return task;
}

const char *aloop__task_options(const aloop_t *loop, const aloop_task_options_t *given,
                                aloop_task_options_t *options, int *error) {
  *error = ALOOP_EINVAL;
  if (given == NULL) return NULL;
  if (aloop__memory_copy_options(options, sizeof *options, given) < 0) {
    *options = (aloop_task_options_t){.size = sizeof *options};
    return "set options.size to sizeof(aloop_task_options_t) and nothing behind it";
  }
  if (options->context == NULL) return NULL;
  const char *rule = NULL;
  if (aloop__context_loop(options->context) != loop) {
    *error = ALOOP_EOTHERLOOP;
    rule = "a task runs in a context of its own loop";
  } else if (options->eager && aloop__context_is_entered(options->context)) {
    *error = ALOOP_EBUSY;
    rule = "an eager task cannot begin in a context that is entered";
  }
  if (rule != NULL) options->context = NULL;
  return rule;
}

aloop_future_t *aloop__task_refuse(aloop__task_t *task, int error, const char *rule) {
  aloop__future_set_message(&task->future, rule);
  task->noted = aloop__misuse(loop_of(task), error, rule);
  aloop__task_end(task, error);
  return &task->future;
}

/* Queues the first step. False: out of memory. */
static bool schedule(aloop__task_t *task) {
  aloop_t *loop = loop_of(task);
  if (!aloop__ready_push_captured(loop, begin, task, NULL, task->future.object.origin)) return false;
  if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_HOOK)) aloop__loop_armed(loop);
  return true;
}

/* Out of memory: `arg` stays the caller's. */
static aloop_future_t *give_up(aloop__task_t *task) {
  task->destroy = NULL;
  aloop__task_end(task, ALOOP_ECANCELED);
  aloop_future_unref(&task->future);
  return NULL;
}

/* A task with these options, which break a rule (and what code that has) or none. */
ALOOP_INLINE aloop_future_t *create(aloop_t *loop, aloop_task_fn fn, void *arg,
                                    const aloop_task_options_t *options, const char *rule, int error,
                                    const char *origin) {
  aloop__task_t *task = aloop__task_new(loop, options, origin);
  if (ALOOP_UNLIKELY(task == NULL)) return NULL;
  task->fn = fn;
  task->arg = arg;
  if (ALOOP_UNLIKELY(task->future.state != ALOOP__PENDING)) { /* the loop is closed */
    aloop__task_let_go(task);
    return &task->future;
  }
  if (ALOOP_UNLIKELY(rule != NULL)) return aloop__task_refuse(task, error, rule);
  task->future.sealed = true;
  if (options->eager && aloop_running_loop() == loop)
    begin_at_once(loop, task);
  else if (ALOOP_UNLIKELY(!schedule(task)))
    return give_up(task);
  return &task->future;
}

static ALOOP_NOINLINE aloop_future_t *create_with(aloop_t *loop, aloop_task_fn fn, void *arg,
                                                  const aloop_task_options_t *given, const char *origin) {
  int error;
  aloop_task_options_t options = {.size = sizeof options};
  const char *rule = aloop__task_options(loop, given, &options, &error);
  if (rule == NULL && fn == NULL) rule = "a task is made with a function";
  return create(loop, fn, arg, &options, rule, error, origin);
}

aloop_future_t *aloop__task_create(aloop_t *loop, aloop_task_fn fn, void *arg,
                                   const aloop_task_options_t *given, const char *origin) {
  static const aloop_task_options_t usual = {.size = sizeof usual};
  if (given != NULL || ALOOP_UNLIKELY(fn == NULL)) return create_with(loop, fn, arg, given, origin);
  return create(loop, fn, arg, &usual, NULL, 0, origin);
}

aloop_future_t *aloop_create_task_from(aloop_t *loop, aloop_task_fn fn, void *arg,
                                       const aloop_task_options_t *options, const char *origin) {
  if (ALOOP_UNLIKELY(!aloop__loop_ok(loop))) return NULL;
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  if (ALOOP_UNLIKELY(tasks != NULL && tasks->factory != NULL && !tasks->in_factory))
    return aloop__task_from_factory(tasks, loop, fn, arg, options, origin);
  return aloop__task_create(loop, fn, arg, options, origin);
}

aloop_future_t *(aloop_create_task)(aloop_t *loop, aloop_task_fn fn, void *arg,
                                    const aloop_task_options_t *options) {
  return aloop_create_task_from(loop, fn, arg, options, NULL);
}

/* ---- What is known of tasks ------------------------------------------------------------------------------ */

aloop_future_t *aloop_current_task(const aloop_t *loop) {
  if (!aloop__loop_ok(loop)) return NULL;
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  return tasks != NULL && tasks->current != NULL ? &tasks->current->future : NULL;
}

size_t aloop_all_tasks(aloop_t *loop, aloop_future_t **tasks, size_t capacity) {
  if (!aloop__loop_ok(loop)) return 0;
  if (tasks == NULL && capacity > 0) {
    aloop__misuse(loop, ALOOP_EINVAL, "aloop_all_tasks needs an array for the tasks");
    return 0;
  }
  size_t count = 0;
  for (aloop__list_t *at = loop->objects.next; at != &loop->objects; at = at->next) {
    aloop__object_t *object = ALOOP_CONTAINER_OF(at, aloop__object_t, link);
    if (object->kind != &kind.object || task_at(object)->future.state != ALOOP__PENDING) continue;
    if (count < capacity) tasks[count] = aloop_future_ref(&task_at(object)->future);
    count++;
  }
  return count;
}

bool aloop_is_task(const aloop_future_t *future) {
  if (future == NULL) aloop__misuse(NULL, ALOOP_EINVAL, "the future is NULL");
  return aloop__task_of(future) != NULL;
}

/* What calls about a task begin with: 0, or why there is none. */
static int enter(const aloop_future_t *future, aloop__task_t **task) {
  if (future == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the task is NULL");
  int rc = aloop__loop_thread(future->object.loop);
  if (rc < 0) return rc;
  *task = aloop__task_of(future);
  if (*task != NULL) return 0;
  return aloop__misuse(future->object.loop, ALOOP_EINVAL, "this future is not a task");
}

const char *aloop_task_name(aloop_future_t *future) {
  aloop__task_t *task;
  return enter(future, &task) == 0 ? aloop__task_name(task) : "";
}

int aloop_task_set_name(aloop_future_t *future, const char *name) {
  aloop__task_t *task;
  int rc = enter(future, &task);
  if (rc < 0) return rc;
  aloop_t *loop = loop_of(task);
  if (name == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a task's name is a string");
  char *copy = aloop__memory_string(loop, name);
  if (copy == NULL) return ALOOP_ENOMEM;
  if (task->coroutine != NULL) aloop__coroutine_set_label(task->coroutine, copy);
  aloop__memory_release(loop, task->name);
  task->name = copy;
  return 0;
}

int aloop_task_cancel(aloop_future_t *future, const char *message) {
  aloop__task_t *task;
  int rc = enter(future, &task);
  return rc < 0 ? rc : aloop__future_cancel(future, message);
}

int aloop_task_uncancel(aloop_future_t *future) {
  aloop__task_t *task;
  int rc = enter(future, &task);
  if (rc < 0) return rc;
  if (task->cancelling > 0 && --task->cancelling == 0) task->must_cancel = false;
  return (int)task->cancelling;
}

int aloop_task_cancelling(const aloop_future_t *future) {
  aloop__task_t *task;
  int rc = enter(future, &task);
  return rc < 0 ? rc : (int)task->cancelling;
}
