/* SPDX-License-Identifier: MIT
 *
 * Async generators: functions that hand out one item after the other, and may await in between.
 *
 * A generator is a coroutine of its own. Asking it (next, throw, close) makes a future, a step. A task that
 * awaits a step before it has begun runs it: the generator's coroutine takes the place of the task's (`active`
 * in task.h), so the function is part of the task: it is the current one, what the function awaits the task
 * waits for, and a request to end reaches it. The function yields by giving the place back. No turn passes, and
 * no other task is made.
 *
 * A step that nobody awaits in this way, because it was given to wait_for or gather or a callback, begins in
 * the next turn, in a task of its own. All steps not begun are in one list per loop with one queued callback,
 * so that steps which are awaited at once leave nothing behind in the ready deque.
 *
 * One step at a time: another is refused with ALOOP_EBUSY. An item is a promise (future.h): if the step that it
 * answers is dropped unread, the next step gets it. By asking for another item the caller gives that up.
 *
 * A generator that has begun and not ended is open. Letting go of an open one closes it in the background: the
 * yield that it stands at answers ALOOP_ECLOSED, and its frames unwind. What is open when the loop is closed
 * unwinds there, in something that only looks like a task, and is dropped if it goes on and on.
 *
 * Costs: a step is one block, of which each generator keeps a spare one; two switches per item.
 */
#include "task/generator.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"

enum { REFUSALS_MAX = 1000 };

typedef enum ask { NEXT, THROW, CLOSE } ask_t;

typedef struct step {
  aloop_future_t future;
  aloop__list_t link;           /* in the list of those that have not begun */
  aloop_generator_t *generator; /* a reference */
  aloop__map_t *map;            /* the context of who asked, a reference, until it begins */
  aloop__task_t *runner;        /* the task that it is part of; NULL: not begun, or done */
  void *item;
  uint64_t serial;
  ask_t ask;
  int error; /* what yield answers */
  bool begun;
  bool alone; /* runner is a task of its own */
} step_t;

typedef enum state { FRESH, OPEN, RUNNING, ENDED } state_t;

struct aloop_generator {
  aloop__object_t object;
  aloop_generator_fn fn;
  void *arg;
  aloop_destroy_fn destroy;
  size_t stack_size;
  char *name;
  aloop__coroutine_t *coroutine; /* NULL: not begun, or ended */
  aloop__coroutine_t *back;      /* who gets the place when it yields */
  aloop_generator_t *outer;      /* which generator of the same task runs it, or NULL */
  step_t *step;                  /* to be answered; NULL: none */
  step_t *spare;
  void *left; /* an item that nobody has read */
  bool has_left;
  state_t state;
  int thrown;       /* what yield answers */
  int64_t value;    /* what the function returned */
  uint64_t serial;  /* of the last step that began */
  unsigned refused; /* yields since the loop is being closed */
  bool stubborn;    /* it yielded while it was being closed */
};

static step_t *step_of(aloop_future_t *future) {
  return ALOOP_CONTAINER_OF(future, step_t, future);
}

static aloop_generator_t *generator_of(aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop_generator_t, object);
}

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the generator is NULL");
}

static int enter(const aloop_generator_t *generator) {
  return ALOOP_LIKELY(generator != NULL) ? aloop__loop_thread(generator->object.loop) : refuse_null();
}

/* ---- Steps ----------------------------------------------------------------------------------------------- */

static void unlink_step(step_t *step) {
  aloop__list_remove(&step->link);
  aloop__map_clear(step->generator->object.loop, &step->map);
}

/* Somebody else ends the future: the generator has nobody to answer any more. */
static void stop_step(aloop_future_t *future, void *arg) {
  (void)future;
  step_t *step = arg;
  unlink_step(step);
  step->generator->step = NULL;
}

/* A step that runs ends when the function reacts. */
static void ask_step(aloop_future_t *future, const char *message) {
  step_t *step = step_of(future);
  if (!step->begun)
    aloop__future_break(future, message);
  else if (step->alone)
    aloop__future_cancel(&step->runner->future, message);
  else if (step->runner->awaited != NULL)
    aloop__future_cancel(step->runner->awaited, message);
}

static void destroy_step(aloop__object_t *object) {
  step_t *step = step_of(ALOOP_CONTAINER_OF(object, aloop_future_t, object));
  if (!aloop__future_release(&step->future)) return;
  aloop_generator_t *generator = step->generator;
  bool keep = generator->spare == NULL;
  aloop__object_end(object, keep ? NULL : step);
  if (keep) generator->spare = step;
  aloop__object_unref(&generator->object);
}

const aloop__future_kind_t aloop__generator_step_kind = {.object = {.name = "generator step",
                                                                    .index = ALOOP__FUTURE,
                                                                    .describe = aloop__future_describe,
                                                                    .destroy = destroy_step,
                                                                    .close = aloop__future_close,
                                                                    .resume = aloop__future_resume},
                                                         .cancel = ask_step};

static int keep_item(aloop_future_t *future, void *giver) {
  (void)giver;
  future->ptr = step_of(future)->item;
  future->destroy = NULL;
  future->owner = true;
  return 0;
}

static void leave_item(aloop_future_t *future, void *giver) {
  (void)giver;
  step_t *step = step_of(future);
  aloop_generator_t *generator = step->generator;
  if (step->serial != generator->serial || generator->state != OPEN) return;
  generator->left = step->item;
  generator->has_left = true;
}

static const aloop__promise_t promised_item = {keep_item, leave_item, leave_item};

static void answer_item(step_t *step, void *item) {
  step->item = item;
  step->serial = step->generator->serial;
  aloop__future_finish_promise(&step->future, 1, &promised_item, step->generator);
}

/* The end of the step that the generator was asked for, which has begun or never will; it may be gone after. */
static step_t *take_step(aloop_generator_t *generator) {
  step_t *step = generator->step;
  generator->step = NULL;
  if (step != NULL) {
    unlink_step(step);
    step->runner = NULL;
  }
  return step;
}

/* The message is the one that the function gave aloop_return_error. */
static void fail_step(step_t *step, int error, const aloop__task_t *task) {
  const aloop__future_extra_t *extra = task != NULL && task->noted == error ? task->future.extra : NULL;
  const char *message = extra != NULL ? extra->message : NULL;
  aloop__future_fail(&step->future, error, message != NULL ? "%s" : NULL, message);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* Gives up all that belongs to the function. */
static void end(aloop_generator_t *generator) {
  generator->state = ENDED;
  generator->has_left = false;
  aloop__coroutine_free(generator->coroutine);
  generator->coroutine = NULL;
  aloop_destroy_fn destroy = generator->destroy;
  generator->destroy = NULL;
  if (destroy != NULL) destroy(generator->arg);
}

/* The function has returned. */
static void finish(aloop_generator_t *generator, const aloop__task_t *task) {
  int64_t value = generator->value;
  end(generator);
  step_t *step = take_step(generator);
  if (step == NULL) return;
  if (value < INT32_MIN) value = ALOOP_EINVAL;
  if (value >= 0 || (value == ALOOP_ECLOSED && step->ask == CLOSE))
    aloop__future_finish(&step->future, 0);
  else
    fail_step(step, (int)value, task);
}

void aloop__generator_abandon(aloop__task_t *task) {
  while (task->generator != NULL) {
    aloop_generator_t *generator = task->generator;
    task->generator = generator->outer;
    end(generator);
    step_t *step = take_step(generator);
    if (step != NULL) aloop__future_fail(&step->future, ALOOP_ECLOSED, NULL);
    aloop__object_unref(&generator->object); /* that of the frame */
  }
}

/* ---- Running --------------------------------------------------------------------------------------------- */

/* The coroutine. Who runs it may have changed when the function returns. */
static void run(aloop__coroutine_t *self, void *arg) {
  (void)self;
  aloop_generator_t *generator = arg;
  generator->value = generator->fn(generator->object.loop, generator->arg);
  aloop__task_t *task = aloop__task_current();
  task->generator = generator->outer;
  task->active = generator->back;
}

static int begin(aloop_generator_t *generator) {
  aloop__stacks_t *stacks = &aloop__tasks_of(generator->object.loop)->stacks;
  int rc = aloop__coroutine_new(stacks, generator->stack_size, run, generator, &generator->coroutine);
  if (rc == 0)
    aloop__coroutine_set_label(generator->coroutine, generator->name != NULL ? generator->name : "a generator");
  return rc;
}

static void run_step(aloop__task_t *task, step_t *step) {
  aloop_generator_t *generator = step->generator;
  step->begun = true;
  unlink_step(step);
  int rc = generator->coroutine == NULL ? begin(generator) : 0;
  if (rc < 0) {
    take_step(generator);
    aloop__future_fail(&step->future, rc, NULL);
    return;
  }
  aloop__object_ref(&generator->object);
  step->runner = task;
  generator->serial++;
  generator->has_left = false;
  generator->state = RUNNING;
  generator->thrown = step->error;
  generator->back = task->active;
  generator->outer = task->generator;
  task->generator = generator;
  aloop__task_transfer(task, generator->coroutine);
  if (aloop__coroutine_ended(generator->coroutine)) finish(generator, task);
  aloop__object_unref(&generator->object);
}

void aloop__generator_run(aloop__task_t *task, aloop_future_t *step) {
  if (!step_of(step)->begun) run_step(task, step_of(step));
}

static int64_t run_alone(aloop_t *loop, void *arg) {
  (void)loop;
  run_step(aloop__task_current(), arg);
  return 0;
}

/* Begins a step that no task has taken. */
static void begin_alone(aloop_t *loop, step_t *step) {
  aloop_task_options_t options = {.size = sizeof options, .name = step->generator->name, .eager = true};
  aloop__map_t *map = loop->context;
  loop->context = step->map;
  step->map = NULL;
  step->alone = true;
  aloop__object_ref(&step->future.object);
  aloop_future_t *task = aloop__task_create(loop, run_alone, step, &options, step->generator->object.origin);
  aloop__map_clear(loop, &loop->context);
  loop->context = map;
  if (!step->begun) { /* out of memory */
    take_step(step->generator);
    aloop__future_fail(&step->future, ALOOP_ENOMEM, NULL);
  }
  if (task != NULL) aloop__future_ignore(task);
  aloop_future_unref(task);
  aloop_future_unref(&step->future);
}

/* What was asked for since the last turn, and no task has taken. */
static void begin_steps(aloop_t *loop, void *arg) {
  aloop__tasks_t *tasks = arg;
  tasks->steps_queued = false;
  aloop__list_t now; /* what is asked for meanwhile waits for the next turn */
  aloop__list_append(&tasks->steps, &now);
  aloop__list_remove(&tasks->steps);
  while (!aloop__list_empty(&now)) begin_alone(loop, ALOOP_CONTAINER_OF(now.next, step_t, link));
}

int aloop_yield(void *item) {
  aloop__task_t *task = aloop__task_current();
  aloop_generator_t *generator = task != NULL ? task->generator : NULL;
  if (generator == NULL || generator->coroutine != task->active)
    return aloop__misuse(NULL, ALOOP_EPERM, "only the function of a generator yields");
  if (generator->object.loop->guard & ALOOP__GUARD_CLOSED) {
    if (++generator->refused > REFUSALS_MAX) aloop__coroutine_suspend(task->active);
    return ALOOP_ECLOSED;
  }
  step_t *step = take_step(generator);
  generator->state = OPEN;
  if (step == NULL) { /* it was broken off */
    generator->left = item;
    generator->has_left = true;
  } else if (step->ask == CLOSE) {
    generator->stubborn = true;
    aloop__future_fail(&step->future, ALOOP_EINVAL, "the generator yielded while it was being closed");
  } else {
    answer_item(step, item);
  }
  task->generator = generator->outer;
  aloop__task_transfer(task, generator->back);
  return generator->thrown;
}

/* ---- Asking ---------------------------------------------------------------------------------------------- */

static step_t *new_step(aloop_generator_t *generator, ask_t ask, int error) {
  aloop_t *loop = generator->object.loop;
  step_t *step = generator->spare != NULL ? generator->spare : aloop__memory_new(loop, sizeof *step);
  if (step == NULL) return NULL;
  generator->spare = NULL;
  memset((char *)step + sizeof step->future, 0, sizeof *step - sizeof step->future);
  aloop__list_init(&step->link);
  step->generator = generator;
  step->ask = ask;
  step->error = error;
  aloop__object_ref(&generator->object);
  aloop__future_init(&step->future, loop, &aloop__generator_step_kind, generator->object.origin);
  step->future.sealed = true;
  return step;
}

/* False: the generator has to run first. */
static bool answer_at_once(aloop_generator_t *generator, step_t *step) {
  if (step->ask == NEXT && generator->has_left) {
    generator->has_left = false;
    answer_item(step, generator->left);
    return true;
  }
  if (generator->state == ENDED || (generator->state == FRESH && step->ask == CLOSE)) {
    if (generator->state == FRESH) end(generator);
    aloop__future_finish(&step->future, 0);
    return true;
  }
  if (generator->state == FRESH && step->ask == THROW) {
    end(generator);
    aloop__future_fail(&step->future, step->error, NULL);
    return true;
  }
  return false;
}

/* False: out of memory. */
static bool queue_step(aloop_generator_t *generator, step_t *step) {
  aloop_t *loop = generator->object.loop;
  aloop__tasks_t *tasks = aloop__tasks_of(loop);
  if (!tasks->steps_queued) {
    if (!aloop__ready_push(loop, begin_steps, tasks)) return false;
    tasks->steps_queued = true;
    if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_HOOK)) aloop__loop_armed(loop);
  }
  aloop__list_append(&tasks->steps, &step->link);
  step->map = aloop__map_ref(loop->context);
  generator->step = step;
  aloop__future_set_operation(&step->future, stop_step, step);
  return true;
}

static aloop_future_t *ask(aloop_generator_t *generator, ask_t ask, int error) {
  if (generator->step != NULL || generator->state == RUNNING)
    return aloop__future_refused(generator->object.loop, generator->object.origin, ALOOP_EBUSY,
                                 "one step of a generator at a time: await the one before");
  step_t *step = new_step(generator, ask, error);
  if (step == NULL) return NULL;
  bool done = step->future.state != ALOOP__PENDING; /* the loop is closed */
  if (!done && !answer_at_once(generator, step) && !queue_step(generator, step)) {
    aloop__future_fail(&step->future, ALOOP_ENOMEM, NULL);
    aloop__future_ignore(&step->future);
    aloop_future_unref(&step->future);
    return NULL;
  }
  return &step->future;
}

aloop_future_t *aloop_generator_next(aloop_generator_t *generator) {
  return enter(generator) == 0 ? ask(generator, NEXT, 0) : NULL;
}

aloop_future_t *aloop_generator_throw(aloop_generator_t *generator, int error) {
  if (enter(generator) < 0) return NULL;
  if (error < 0) return ask(generator, THROW, error);
  return aloop__future_refused(generator->object.loop, generator->object.origin, ALOOP_EINVAL,
                               "what is thrown into a generator is a negative code");
}

aloop_future_t *aloop_generator_close(aloop_generator_t *generator) {
  return enter(generator) == 0 ? ask(generator, CLOSE, ALOOP_ECLOSED) : NULL;
}

/* ---- The object ------------------------------------------------------------------------------------------ */

static void describe(const aloop__object_t *object, char *text, size_t size) {
  static const char *const states[] = {"not begun", "open", "running", "ended"};
  const aloop_generator_t *generator = (const aloop_generator_t *)(const void *)object;
  snprintf(text, size, "%s%s%s", generator->name != NULL ? generator->name : "",
           generator->name != NULL ? " " : "", states[generator->state]);
}

static void report(aloop_generator_t *generator, int error, const char *what) {
  char text[200];
  snprintf(text, sizeof text, "generator %s%s%s", generator->name != NULL ? generator->name : "",
           generator->name != NULL ? " " : "", what);
  aloop_error_context_t context = aloop__report_context(text, error);
  context.origin = generator->object.origin;
  aloop__report(generator->object.loop, &context);
}

/* The loop is being closed: the frames unwind in something that looks like a task. It comes back here when the
 * function returns, or has been told a thousand times that there is nothing to wait for: false then. */
static bool unwind(aloop_generator_t *generator) {
  aloop_t *loop = generator->object.loop;
  aloop__task_t task = {.active = generator->coroutine, .generator = generator};
  task.future.object.loop = loop;
  generator->state = RUNNING;
  generator->thrown = ALOOP_ECLOSED;
  generator->back = generator->coroutine;
  generator->outer = NULL;
  aloop__object_ref(&generator->object);
  aloop_t *running = aloop__current_run(loop);
  aloop__task_step(&task);
  aloop__current_run(running);
  aloop__map_clear(loop, &task.map);
  (void)aloop__future_release(&task.future);
  if (!aloop__coroutine_ended(generator->coroutine)) {
    aloop__generator_abandon(&task);
    return false;
  }
  end(generator);
  aloop__object_unref(&generator->object);
  return true;
}

static void close_generator(aloop__object_t *object) {
  aloop_generator_t *generator = generator_of(object);
  if (generator->state == FRESH) end(generator);
  if (generator->state != OPEN) return;
  aloop__misuse(object->loop, ALOOP_ECLOSED, "await aloop_shutdown_asyncgens before the loop is closed");
  if (!unwind(generator))
    report(generator, ALOOP_ECLOSED, "went on while its loop was being closed; its frames are dropped");
}

/* An error of the function is reported as one that nobody read. */
static void close_in_background(aloop_generator_t *generator) {
  aloop_future_t *closing = ask(generator, CLOSE, ALOOP_ECLOSED);
  if (closing != NULL)
    aloop_future_unref(closing);
  else
    end(generator); /* out of memory: its frames are dropped */
}

static void destroy_generator(aloop__object_t *object) {
  aloop_generator_t *generator = generator_of(object);
  if (generator->state != ENDED) {
    object->refs = 1;
    if (object->loop->guard & ALOOP__GUARD_CLOSED)
      close_generator(object);
    else if (generator->state == OPEN && !generator->stubborn)
      close_in_background(generator);
    else
      end(generator);
    aloop__object_unref(object);
    return;
  }
  aloop_t *loop = object->loop;
  aloop__memory_release(loop, generator->name);
  aloop__memory_release(loop, generator->spare);
  aloop__object_end(object, generator);
}

static const aloop__kind_t kind = {.name = "generator",
                                   .index = ALOOP__GENERATOR,
                                   .describe = describe,
                                   .destroy = destroy_generator,
                                   .close = close_generator};

int aloop_generator_new_from(aloop_t *loop, aloop_generator_fn fn, void *arg,
                             const aloop_generator_options_t *given, aloop_generator_t **out,
                             const char *origin) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  aloop_generator_options_t options = {.size = sizeof options};
  if (fn == NULL || out == NULL)
    return aloop__misuse(loop, ALOOP_EINVAL, "a generator is made with a function, and goes to a place");
  if (given != NULL && aloop__memory_copy_options(&options, sizeof options, given) < 0)
    return aloop__misuse(loop, ALOOP_EINVAL,
                         "set options.size to sizeof(aloop_generator_options_t) and nothing behind it");
  if (aloop__tasks_open(loop) == NULL) return ALOOP_ENOMEM;
  aloop_generator_t *generator = aloop__memory_zero(loop, sizeof *generator);
  char *name = options.name != NULL ? aloop__memory_string(loop, options.name) : NULL;
  if (generator == NULL || (options.name != NULL && name == NULL)) {
    aloop__memory_release(loop, name);
    aloop__memory_release(loop, generator);
    return ALOOP_ENOMEM;
  }
  aloop__object_init(&generator->object, loop, &kind, origin);
  generator->fn = fn;
  generator->arg = arg;
  generator->destroy = options.destroy;
  generator->stack_size = options.stack_size;
  generator->name = name;
  *out = generator;
  return 0;
}

int(aloop_generator_new)(aloop_t *loop, aloop_generator_fn fn, void *arg,
                         const aloop_generator_options_t *options, aloop_generator_t **out) {
  return aloop_generator_new_from(loop, fn, arg, options, out, NULL);
}

aloop_generator_t *aloop_generator_ref(aloop_generator_t *generator) {
  if (generator == NULL || enter(generator) < 0) return NULL;
  aloop__object_ref(&generator->object);
  return generator;
}

void aloop_generator_unref(aloop_generator_t *generator) {
  if (generator != NULL && enter(generator) == 0) aloop__object_unref(&generator->object);
}

/* ---- All of them ----------------------------------------------------------------------------------------- */

static void on_closed(aloop_future_t *future, void *arg) {
  (void)arg;
  int64_t error = aloop_future_result(future);
  if (error >= 0) return;
  char text[200];
  snprintf(text, sizeof text, "closing a generator failed: %s", aloop_future_message(future));
  aloop_error_context_t context = aloop__report_context(text, (int)error);
  context.future = future;
  context.origin = future->object.origin;
  aloop__report(future->object.loop, &context);
}

/* Fills in a closing step for each open one. Returns how many. */
static size_t close_open(aloop_t *loop, aloop_future_t **steps, size_t most) {
  size_t count = 0;
  for (aloop__list_t *at = loop->objects.next; at != &loop->objects && count < most; at = at->next) {
    aloop__object_t *object = ALOOP_CONTAINER_OF(at, aloop__object_t, link);
    if (object->kind != &kind || generator_of(object)->state != OPEN || generator_of(object)->step != NULL)
      continue;
    aloop_future_t *step = ask(generator_of(object), CLOSE, ALOOP_ECLOSED);
    if (step == NULL) continue;
    if (aloop__future_watch(step, on_closed, NULL) < 0) aloop__future_ignore(step);
    steps[count++] = step;
  }
  return count;
}

aloop_future_t *aloop_shutdown_asyncgens(aloop_t *loop) {
  if (!aloop__loop_ok(loop)) return NULL;
  size_t most = loop->live[ALOOP__GENERATOR];
  aloop_future_t **steps = aloop__memory_new(loop, (most + 1) * sizeof *steps);
  if (steps == NULL) return NULL;
  size_t count = close_open(loop, steps, most);
  aloop_future_t *all = aloop_gather(loop, steps, count, ALOOP_RETURN_ERRORS);
  aloop__memory_release(loop, steps);
  return all;
}
