/* SPDX-License-Identifier: MIT
 *
 * All that tasks wait for against its model: small random programs, which asyncio_programs.py has Python's
 * asyncio run first, have to print the same lines in the same order here. They are about who goes on, when, with
 * what, whatever is cancelled in between. The clock is the test's own: it goes on by a step each turn, in both.
 * Programs that come upon one of the differences that aloop.h tells of are run and not compared. Skipped where
 * there is no Python of 3.13 or later; MODEL_PYTHON names one, MODEL_FIRST, MODEL_COUNT and MODEL_FEATURES choose
 * programs.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODIES = 6, STEPS = 20, FUTURES = 3, TURNS = 40, LINES = 400, WIDTH = 48, DEPTH = 12, NOTHING = 99 };
#define TURN ALOOP_MILLIS(1)

typedef struct program program_t;

typedef struct model_step {
  char op[20];
  int a, b, flags;
} model_step_t;

typedef struct body {
  program_t *program;
  int number, count, scopes, groups;
  bool begun;
  model_step_t steps[STEPS];
  aloop_timeout_t *scope[DEPTH];
  aloop_task_group_t *group[DEPTH];
} body_t;

struct program {
  aloop_t *loop;
  int count, started, parties, lines, printed, timers;
  bool over, differs;
  body_t bodies[BODIES];
  aloop_future_t *running[BODIES], *futures[FUTURES];
  aloop_lock_t *locks[2];
  aloop_event_t *events[2];
  aloop_condition_t *condition;
  aloop_semaphore_t *semaphores[2];
  aloop_barrier_t *barrier;
  aloop_queue_t *queues[3];
  char expected[LINES][WIDTH], got[LINES][WIDTH];
};

/* What a step does. An awaitable answers with a future, a call with NULL and *value. */
typedef struct context {
  program_t *program;
  body_t *body;
  int at;
} context_t;

/* ---- A clock that stands still between the turns --------------------------------------------------------------- */

static int64_t now;

static int open_poller(void *arg, const aloop_allocator_t *allocator, void **state) {
  (void)arg, (void)allocator;
  *state = &now;
  return 0;
}

static void close_poller(void *state) {
  (void)state;
}

static int update_poller(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  (void)state, (void)fd, (void)token, (void)before, (void)after;
  return 0;
}

static int look(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  (void)state, (void)events, (void)capacity, (void)timeout;
  return 0;
}

static int64_t tell(void *state) {
  return *(int64_t *)state;
}

static const aloop_poller_t still = {.size = sizeof still,
                                     .name = "still",
                                     .open = open_poller,
                                     .close = close_poller,
                                     .update = update_poller,
                                     .wait = look,
                                     .now = tell};

static int64_t delay(program_t *program, int turns) {
  program->timers++;
  return turns * TURN - TURN / 2 + program->timers * (TURN / 1000);
}

/* ---- Words ----------------------------------------------------------------------------------------------------- */

static void say(program_t *program, const char *format, ...) {
  va_list arguments;
  if (program->over) return;
  va_start(arguments, format);
  if (program->printed < LINES) vsnprintf(program->got[program->printed], WIDTH, format, arguments);
  program->printed++;
  va_end(arguments);
}

static const char *word(int64_t rc) {
  static const struct {
    int64_t rc;
    const char *word;
  } words[] = {{ALOOP_ECANCELED, "cancelled"}, {ALOOP_EIO, "error"},      {ALOOP_ETIMEDOUT, "timeout"},
               {ALOOP_EBROKEN, "broken"},      {ALOOP_ECLOSED, "closed"}, {ALOOP_EAGAIN, "again"},
               {ALOOP_EPERM, "misuse"},        {ALOOP_ERANGE, "misuse"},  {ALOOP_EDONE, "misuse"},
               {ALOOP_ENOTDONE, "pending"}};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    if (words[i].rc == rc) return words[i].word;
  return rc >= 0 ? "ok" : aloop_error_name(rc);
}

/* ---- Steps: tasks ---------------------------------------------------------------------------------------------- */

static int64_t run_body(aloop_t *loop, void *arg);

static aloop_future_t *one_of(const program_t *program, int a) {
  return program->futures[a % FUTURES];
}

static int64_t begin(context_t *c, int number, int flags, aloop_task_group_t *group) {
  body_t *body = &c->program->bodies[number];
  aloop_task_options_t options = {.size = sizeof options, .eager = (flags & 4) != 0};
  if (body->begun) return NOTHING;
  body->begun = true;
  aloop_future_t *task = group != NULL ? aloop_task_group_create_task(group, run_body, body, &options)
                                       : aloop_create_task(c->program->loop, run_body, body, &options);
  if (aloop_is_task(task)) {
    c->program->running[number] = task;
    return 0;
  }
  aloop_future_result(task);
  aloop_future_unref(task);
  return ALOOP_EPERM;
}

static void set_soon(aloop_t *loop, void *arg) {
  (void)loop;
  if (!aloop_future_done(arg)) aloop_future_set_value(arg, 0);
  aloop_future_unref(arg);
}

static aloop_future_t *yield(aloop_t *loop) {
  aloop_future_t *future = aloop_future_new(loop);
  aloop_handle_t handle = aloop_call_soon(loop, set_soon, aloop_future_ref(future));
  if (aloop_handle_error(handle) < 0) aloop_future_unref(future);
  return future;
}

static int64_t limit(program_t *program, int b) {
  return b % 5 ? delay(program, b % 5) : b < 30 ? ALOOP_FOREVER : 0;
}

static size_t some(const context_t *c, int a, bool pending, aloop_future_t **futures) {
  size_t count = 0;
  for (int i = 0; i < FUTURES; i++)
    if (a >> i & 1 || (i == 0 && (a & 7) == 0))
      if (!pending || !aloop_future_done(c->program->futures[i]))
        futures[count++] = aloop_future_ref(c->program->futures[i]);
  return count;
}

static size_t tasks_after(const context_t *c, aloop_future_t **tasks) {
  size_t count = 0;
  for (int i = c->body->number + 1; i < c->program->count; i++)
    if (c->program->running[i] != NULL) tasks[count++] = aloop_future_ref(c->program->running[i]);
  return count;
}

static aloop_future_t *wait_or_gather(context_t *c, const model_step_t *step, int64_t *value) {
  aloop_future_t *many[BODIES];
  bool tasks = strstr(step->op, "tasks") != NULL;
  size_t count = tasks ? tasks_after(c, many) : some(c, step->a, false, many);
  if (count == 0) {
    *value = NOTHING;
    return NULL;
  }
  if (step->op[0] == 'g')
    return aloop_gather(c->program->loop, many, count, step->b % 2 ? ALOOP_RETURN_ERRORS : 0);
  int64_t timeout = step->b % 5 ? delay(c->program, step->b % 5) : ALOOP_FOREVER;
  return aloop_wait(c->program->loop, many, count, timeout, step->b % 3);
}

static aloop_future_t *await_future(context_t *c, const model_step_t *step, int64_t *value) {
  program_t *program = c->program;
  const char *op = step->op;
  if (strcmp(op, "yield") == 0) return yield(program->loop);
  if (strcmp(op, "sleep0") == 0) return aloop_sleep(program->loop, 0);
  if (strcmp(op, "sleep") == 0) return aloop_sleep(program->loop, delay(program, 1 + step->a % 4));
  if (strcmp(op, "future") == 0) return aloop_future_ref(one_of(program, step->a));
  if (strcmp(op, "shield") == 0) return aloop_shield(aloop_future_ref(one_of(program, step->a)));
  if (strcmp(op, "waitfor") == 0)
    return aloop_wait_for(aloop_future_ref(one_of(program, step->a)), limit(program, step->b));
  aloop_future_t *task = program->running[step->a];
  *value = NOTHING;
  if (task == NULL) return NULL;
  if (strcmp(op, "task") == 0) return aloop_future_ref(task);
  if (strcmp(op, "shield_task") == 0) return aloop_shield(aloop_future_ref(task));
  return aloop_wait_for(aloop_future_ref(task), limit(program, step->b));
}

static int64_t call_future(context_t *c, const model_step_t *step) {
  aloop_future_t *future = one_of(c->program, step->a);
  if (strcmp(step->op, "drop") == 0) return aloop_future_cancel(future);
  if (aloop_future_done(future)) return NOTHING;
  return strcmp(step->op, "set") == 0 ? aloop_future_set_value(future, step->a)
                                      : aloop_future_set_error(future, ALOOP_EIO, NULL);
}

static int64_t call_task(context_t *c, const model_step_t *step) {
  aloop_future_t *task = c->program->running[step->a];
  if (strcmp(step->op, "spawn") == 0) return begin(c, step->a, step->flags, NULL);
  if (strcmp(step->op, "child") == 0)
    return c->body->groups == 0 ? NOTHING : begin(c, step->a, step->flags, c->body->group[c->body->groups - 1]);
  if (task == NULL) return NOTHING;
  if (strcmp(step->op, "cancel") == 0) return aloop_future_cancel(task);
  return strcmp(step->op, "uncancel") == 0 ? aloop_task_uncancel(task) : aloop_task_cancelling(task);
}

/* How many are done when the task goes on, which may be more than when the wait ended. */
static int64_t await_many(aloop_future_t *outer) {
  int64_t rc = aloop_await_keep(outer), done = 0;
  aloop_future_t *child;
  for (size_t i = 0; rc >= 0 && (child = aloop_future_child(outer, i)) != NULL; i++)
    done += aloop_future_done(child);
  aloop_future_unref(outer);
  return rc < 0 ? rc : done;
}

static int64_t reschedule(context_t *c, const model_step_t *step) {
  if (c->body->scopes == 0) return NOTHING;
  int64_t when = step->a % 5 ? now + delay(c->program, step->a % 5) : ALOOP_FOREVER;
  return aloop_timeout_reschedule(c->body->scope[c->body->scopes - 1], when);
}

static int64_t each(context_t *c, const model_step_t *step) {
  aloop_future_t *many[FUTURES];
  size_t count = some(c, step->a, true, many);
  aloop_as_completed_t *all;
  int64_t timeout = step->b % 5 ? delay(c->program, step->b % 5) : ALOOP_FOREVER, rc = 0;
  int error = aloop_as_completed_new(c->program->loop, many, count, timeout, &all);
  if (error < 0) return error; /* the loop is being closed */
  for (size_t i = 0; i < count && rc >= 0; i++) {
    rc = aloop_await(aloop_as_completed_next(all));
    if (rc >= 0) say(c->program, "> %d %d each %d", c->body->number, c->at, (int)rc);
  }
  aloop_as_completed_free(all);
  return rc < 0 ? rc : (int64_t)count;
}

/* ---- Steps: what tasks share ----------------------------------------------------------------------------------- */

static bool is_set(void *event) {
  return aloop_event_is_set(event);
}

static aloop_future_t *await_shared(context_t *c, const model_step_t *step) {
  program_t *program = c->program;
  const char *op = step->op;
  if (strcmp(op, "acquire") == 0) return aloop_lock_acquire(program->locks[step->a % 2]);
  if (strcmp(op, "event_wait") == 0) return aloop_event_wait(program->events[step->a % 2]);
  if (strcmp(op, "condition_acquire") == 0) return aloop_condition_acquire(program->condition);
  if (strcmp(op, "condition_wait") == 0) return aloop_condition_wait(program->condition);
  if (strcmp(op, "semaphore_acquire") == 0) return aloop_semaphore_acquire(program->semaphores[step->a % 2]);
  if (strcmp(op, "barrier_wait") == 0) return aloop_barrier_wait(program->barrier);
  if (strcmp(op, "join") == 0) return aloop_queue_join(program->queues[step->a % 3]);
  if (strcmp(op, "put") == 0) return aloop_queue_put(program->queues[step->a % 3], (void *)(intptr_t)step->b);
  if (strcmp(op, "waitfor_lock") == 0)
    return aloop_wait_for(aloop_lock_acquire(program->locks[step->a % 2]), delay(program, 1 + step->b % 4));
  if (strcmp(op, "waitfor_event") == 0)
    return aloop_wait_for(aloop_event_wait(program->events[step->a % 2]), delay(program, 1 + step->b % 4));
  return NULL;
}

static int64_t get(aloop_future_t *future) {
  void *item;
  int rc = aloop_await_ptr(future, &item);
  return rc < 0 ? rc : (int64_t)(intptr_t)item;
}

static int64_t call_queue(context_t *c, const model_step_t *step) {
  aloop_queue_t *queue = c->program->queues[step->a % 3];
  void *item = NULL;
  int rc;
  if (strcmp(step->op, "get") == 0) return get(aloop_queue_get(queue));
  if (strcmp(step->op, "waitfor_get") == 0)
    return get(aloop_wait_for(aloop_queue_get(queue), delay(c->program, 1 + step->b % 4)));
  if (strcmp(step->op, "put_nowait") == 0) return aloop_queue_put_nowait(queue, (void *)(intptr_t)step->b);
  if (strcmp(step->op, "task_done") == 0) return aloop_queue_task_done(queue);
  if (strcmp(step->op, "qsize") == 0) return (int64_t)aloop_queue_qsize(queue);
  if (strcmp(step->op, "shutdown") == 0)
    return step->b % 4 < 2 ? aloop_queue_shutdown(queue, step->b % 2 == 1) : NOTHING;
  rc = aloop_queue_get_nowait(queue, &item);
  return rc < 0 ? rc : (int64_t)(intptr_t)item;
}

static int64_t call_shared(context_t *c, const model_step_t *step) {
  program_t *program = c->program;
  const char *op = step->op;
  if (strcmp(op, "locked") == 0) return 0;
  if (strcmp(op, "release") == 0) return aloop_lock_release(program->locks[step->a % 2]);
  if (strcmp(op, "event_set") == 0) return aloop_event_set(program->events[step->a % 2]);
  if (strcmp(op, "event_clear") == 0) return aloop_event_clear(program->events[step->a % 2]);
  if (strcmp(op, "condition_release") == 0) return aloop_condition_release(program->condition);
  if (strcmp(op, "notify") == 0) return aloop_condition_notify(program->condition, 1 + (size_t)step->a % 2);
  if (strcmp(op, "notify_all") == 0) return aloop_condition_notify_all(program->condition);
  if (strcmp(op, "semaphore_release") == 0) return aloop_semaphore_release(program->semaphores[step->a % 2]);
  if (strcmp(op, "semaphore_value") == 0) return aloop_semaphore_locked(program->semaphores[step->a % 2]);
  if (strcmp(op, "barrier_reset") == 0) return aloop_barrier_reset(program->barrier);
  if (strcmp(op, "barrier_abort") == 0) return aloop_barrier_abort(program->barrier);
  if (strcmp(op, "condition_wait_for") == 0) {
    aloop_event_t *event = program->events[step->a % 2];
    return is_set(event) ? 0 : aloop_await(aloop_condition_wait_for(program->condition, is_set, event));
  }
  return call_queue(c, step);
}

static bool is_among(const char *op, const char *names) {
  const char *at = strstr(names, op);
  size_t length = strlen(op);
  while (at != NULL && ((at > names && at[-1] != ' ') || (at[length] != ' ' && at[length] != '\0')))
    at = strstr(at + 1, op);
  return at != NULL;
}

/* Does a step that opens no block. */
static int64_t do_step(context_t *c, const model_step_t *step) {
  int64_t value = 0;
  aloop_future_t *future;
  if (is_among(step->op, "spawn child cancel uncancel cancelling")) return call_task(c, step);
  if (is_among(step->op, "set fail drop")) return call_future(c, step);
  if (strcmp(step->op, "reschedule") == 0) return reschedule(c, step);
  if (strcmp(step->op, "each") == 0) return each(c, step);
  if (is_among(step->op, "yield sleep0 sleep future task shield shield_task waitfor waitfor_task"))
    future = await_future(c, step, &value);
  else if (is_among(step->op, "wait wait_tasks gather gather_tasks"))
    future = wait_or_gather(c, step, &value);
  else
    future = await_shared(c, step);
  if (future != NULL)
    return step->op[0] == 'w' && step->op[4] != 'f' ? await_many(future) : aloop_await(future);
  return value != 0 ? value : call_shared(c, step);
}

/* ---- Running a program ----------------------------------------------------------------------------------------- */

static int64_t run_steps(body_t *body, int at);

static int64_t run_timeout(body_t *body, int at, int a) {
  aloop_timeout_t scope;
  int64_t time = a % 5 ? delay(body->program, a % 5) : a < 40 ? -(a % 2) : ALOOP_FOREVER;
  if (a % 5 == 0 && a < 40) time *= 2; /* not ALOOP_FOREVER */
  aloop_timeout_begin(&scope, time);
  body->scope[body->scopes++] = &scope;
  int64_t rc = aloop_timeout_end(&scope, run_steps(body, at + 1));
  body->scopes--;
  say(body->program, "> %d %d expired %d", body->number, at, aloop_timeout_expired(&scope));
  return rc;
}

static int64_t run_group(body_t *body, int at) {
  aloop_task_group_t *group;
  int error = aloop_task_group_begin(body->program->loop, &group);
  if (error < 0) return error; /* the loop is being closed */
  body->group[body->groups++] = group;
  int64_t inside = run_steps(body, at + 1);
  int64_t rc = aloop_task_group_end(group, inside);
  body->groups--;
  if (rc < 0 && rc != ALOOP_ECANCELED) {
    int errors = (int)aloop_task_group_errors(group) + (inside < 0 && inside != ALOOP_ECANCELED);
    say(body->program, "> %d %d errors %d", body->number, at, errors);
    rc = ALOOP_EIO;
  }
  aloop_task_group_free(group);
  return rc;
}

static bool opens(const model_step_t *step) {
  return strcmp(step->op, "timeout") == 0 || strcmp(step->op, "group") == 0;
}

static int end_of(const body_t *body, int at) {
  int depth = 0;
  while (at < body->count) {
    depth += opens(&body->steps[at]) - (strcmp(body->steps[at].op, "close") == 0);
    at++;
    if (depth == 0) break;
  }
  return at;
}

/* To the end of the block. */
static int64_t run_steps(body_t *body, int at) {
  while (at < body->count && strcmp(body->steps[at].op, "close") != 0) {
    const model_step_t *step = &body->steps[at];
    context_t context = {body->program, body, at};
    int64_t rc = strcmp(step->op, "timeout") == 0 ? run_timeout(body, at, step->a)
                 : strcmp(step->op, "group") == 0 ? run_group(body, at)
                                                  : do_step(&context, step);
    if (rc < 0) {
      say(body->program, "> %d %d %s", body->number, at, word(rc));
      if ((step->flags & (rc == ALOOP_ECANCELED ? 1 : 2)) == 0) return rc;
    } else {
      say(body->program, "> %d %d ok %d", body->number, at, (int)rc);
    }
    at = opens(step) ? end_of(body, at) : at + 1;
  }
  return 0;
}

static int64_t run_body(aloop_t *loop, void *arg) {
  body_t *body = arg;
  (void)loop;
  int64_t rc = run_steps(body, 0);
  return rc < 0 ? rc : body->number;
}

static int compare_items(const void *a, const void *b, void *arg) {
  (void)arg;
  return ((intptr_t)a > (intptr_t)b) - ((intptr_t)a < (intptr_t)b);
}

static void make_objects(program_t *program) {
  aloop_t *loop = program->loop;
  aloop_queue_options_t options = {.size = sizeof options, .maxsize = 1};
  for (int i = 0; i < FUTURES; i++) program->futures[i] = aloop_future_new(loop);
  for (int i = 0; i < 2; i++) {
    aloop_lock_new(loop, &program->locks[i]);
    aloop_event_new(loop, &program->events[i]);
    aloop_semaphore_new(loop, i + 1, i == 1, &program->semaphores[i]);
  }
  aloop_condition_new(loop, NULL, &program->condition);
  aloop_barrier_new(loop, (size_t)program->parties, &program->barrier);
  for (int i = 0; i < 3; i++) {
    options.kind = i == 0 ? ALOOP_FIFO : i == 1 ? ALOOP_LIFO : ALOOP_PRIORITY;
    options.compare = i == 2 ? compare_items : NULL;
    aloop_queue_new(loop, &options, &program->queues[i]);
    options.maxsize = 2;
  }
}

static void free_objects(program_t *program) {
  for (int i = 0; i < 2; i++) {
    aloop_lock_free(program->locks[i]);
    aloop_event_free(program->events[i]);
    aloop_semaphore_free(program->semaphores[i]);
  }
  aloop_condition_free(program->condition);
  aloop_barrier_free(program->barrier);
  for (int i = 0; i < 3; i++) aloop_queue_free(program->queues[i]);
  for (int i = 0; i < FUTURES; i++) {
    aloop_future_result(program->futures[i]);
    aloop_future_unref(program->futures[i]);
  }
  for (int i = 0; i < program->count; i++) aloop_future_unref(program->running[i]);
}

static void turns(const program_t *program) {
  for (int i = 0; i < TURNS; i++) {
    now += TURN;
    run_turn(program->loop);
  }
}

static void run_program(program_t *program) {
  context_t context = {program, NULL, 0};
  make_objects(program);
  for (int i = 0; i < program->started; i++) begin(&context, i, 0, NULL);
  turns(program);
  for (int i = 0; i < program->count; i++)
    if (program->running[i] != NULL)
      say(program, "> cancel %d %d", i, aloop_future_cancel(program->running[i]));
  turns(program);
  for (int i = 0; i < FUTURES; i++) aloop_future_cancel(program->futures[i]);
  turns(program);
  for (int i = 0; i < program->count; i++) {
    aloop_future_t *task = program->running[i];
    say(program, "> task %s %d", task != NULL ? word(aloop_future_result(task)) : "none",
        task != NULL ? aloop_task_cancelling(task) : 0);
  }
  program->over = true;
  aloop_close(program->loop);
  free_objects(program);
}

/* ---- Reading and comparing ------------------------------------------------------------------------------------- */

/* Returns false at the end. */
static bool read_program(FILE *from, program_t *program) {
  char line[120];
  memset(program, 0, sizeof *program);
  while (fgets(line, sizeof line, from) != NULL) {
    model_step_t step;
    int number;
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "end") == 0) return true;
    if (strcmp(line, "differs") == 0) {
      program->differs = true;
      continue;
    }
    if (line[0] == '>' && program->lines < LINES)
      snprintf(program->expected[program->lines++], WIDTH, "%.47s", line);
    else if (sscanf(line, "op %d %19s %d %d %d", &number, step.op, &step.a, &step.b, &step.flags) == 5)
      program->bodies[number].steps[program->bodies[number].count++] = step;
    else if (sscanf(line, "program %d %d %d", &program->count, &program->started, &program->parties) != 3)
      fail_msg("not a line of a program: %s", line);
  }
  return false;
}

static void print_program(const program_t *program, int lines) {
  for (int i = 0; i < program->count; i++)
    for (int at = 0; at < program->bodies[i].count; at++) {
      const model_step_t *step = &program->bodies[i].steps[at];
      print_error("%d %d %s%s %d %d %d\n", i, at, i < program->started ? "" : "(later) ", step->op, step->a,
                  step->b, step->flags);
    }
  for (int i = 0; i < lines; i++) print_error("%s\n", program->got[i]);
}

/* Returns whether they are equal. */
static bool compare(const program_t *program, int seed) {
  for (int i = 0; i < program->lines || i < program->printed; i++) {
    const char *expected = i < program->lines ? program->expected[i] : "(nothing)";
    const char *got = i < program->printed ? program->got[i] : "(nothing)";
    if (strcmp(expected, got) == 0) continue;
    print_program(program, i);
    print_error("program %d: asyncio says: %s; we say: %s\n\n", seed, expected, got);
    return false;
  }
  return true;
}

static const char *python(void) {
  static const char *const names[] = {"python3", "python3.13", "python3.14", NULL};
  static char command[300];
  const char *given = getenv("MODEL_PYTHON");
  for (int i = given != NULL ? -1 : 0; i < 0 || names[i] != NULL; i++) {
    const char *name = i < 0 ? given : names[i];
    snprintf(command, sizeof command, "%s -c 'import asyncio; asyncio.QueueShutDown' 2>/dev/null", name);
    if (system(command) == 0) return name;
  }
  return NULL;
}

static FILE *ask_python(const char *name, int first) {
  char command[900];
  const char *count = getenv("MODEL_COUNT"), *features = getenv("MODEL_FEATURES");
  const char *slash = strrchr(__FILE__, '/');
  int length = slash != NULL ? (int)(slash - __FILE__) : 0;
  snprintf(command, sizeof command, "%s %.*s/asyncio_programs.py %d %s %s", name, length, __FILE__, first,
           count != NULL ? count : "300", features != NULL ? features : "");
  return popen(command, "r");
}

static void tasks_wait_as_in_asyncio(void **state) {
  env_t *env = *state;
  static program_t program;
  const char *name = python(), *first = getenv("MODEL_FIRST");
  if (name == NULL) skip();
  int seed = first != NULL ? atoi(first) : 1, count = 0, different = 0;
  FILE *from = ask_python(name, seed);
  assert_non_null(from);
  for (; read_program(from, &program); count++) {
    now = 1000 * TURN;
    env_loop(env, (aloop_options_t){.poller_table = &still, .debug = -1});
    program.loop = env->loop;
    for (int i = 0; i < BODIES; i++) {
      program.bodies[i].program = &program;
      program.bodies[i].number = i;
    }
    run_program(&program);
    if (!program.differs && !compare(&program, seed + count)) different++;
    env->reports = 0;
  }
  assert_int_equal(pclose(from), 0);
  assert_true(count > 0);
  if (different > 0) fail_msg("%d of %d programs differ", different, count);
}

TESTS(T(tasks_wait_as_in_asyncio))
