/* SPDX-License-Identifier: MIT
 *
 * Tasks against their model: small random programs of tasks and futures, which asyncio_model.py has Python's asyncio run
 * first, have to print the same lines in the same order here. They are about cancelling in every order: counting, taking
 * back, requests that come before, during and after a wait. Skipped where there is no python3.
 * pollers: all
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TASKS = 5, STEPS = 7, FUTURES = 3, TURNS = 60, LINES = 200 };

typedef struct model_step {
  char op[12];
  int arg, flags;
} model_step_t;

typedef struct program program_t;

typedef struct body {
  program_t *program;
  int number, count;
  model_step_t steps[STEPS];
} body_t;

struct program {
  aloop_t *loop;
  int tasks, futures, lines, printed;
  body_t bodies[TASKS];
  aloop_future_t *running[TASKS], *waiting[FUTURES];
  char expected[LINES][40], got[LINES][40];
};

/* ---- Running a program --------------------------------------------------------------------------------------- */

static void print(program_t *program, const char *text) {
  if (program->printed < LINES) snprintf(program->got[program->printed], 40, "%s", text);
  program->printed++;
}

static void print_step(const body_t *body, int index, const char *said) {
  char line[40];
  snprintf(line, sizeof line, "> %d %d %s", body->number, index, said);
  print(body->program, line);
}

static const char *outcome(int64_t rc) {
  return rc >= 0 ? "ok" : rc == ALOOP_ECANCELED ? "cancelled" : rc == ALOOP_ENOTDONE ? "pending" : "error";
}

static void set_soon(aloop_t *loop, void *arg) {
  (void)loop;
  if (!aloop_future_done(arg)) aloop_future_set_value(arg, 0);
  aloop_future_unref(arg);
}

/* What a step waits for, or NULL. */
static aloop_future_t *awaitable(const program_t *program, const model_step_t *step) {
  if (strcmp(step->op, "task") == 0) return aloop_future_ref(program->running[step->arg]);
  if (strcmp(step->op, "future") == 0) return aloop_future_ref(program->waiting[step->arg]);
  if (strcmp(step->op, "shield") == 0) return aloop_shield(aloop_future_ref(program->waiting[step->arg]));
  if (strcmp(step->op, "yield") != 0) return NULL;
  aloop_future_t *future = aloop_future_new(program->loop);
  aloop_call_soon(program->loop, set_soon, aloop_future_ref(future));
  return future;
}

static int call(const program_t *program, const model_step_t *step) {
  if (strcmp(step->op, "cancel") == 0) return aloop_future_cancel(program->running[step->arg]);
  if (strcmp(step->op, "uncancel") == 0) return aloop_task_uncancel(program->running[step->arg]);
  aloop_future_t *future = program->waiting[step->arg];
  if (strcmp(step->op, "drop") == 0) return aloop_future_cancel(future);
  if (aloop_future_done(future)) return 0;
  int rc = strcmp(step->op, "set") == 0 ? aloop_future_set_value(future, 0)
                                        : aloop_future_set_error(future, ALOOP_EIO, NULL);
  return rc == 0;
}

static int64_t run_body(aloop_t *loop, void *arg) {
  body_t *body = arg;
  (void)loop;
  for (int i = 0; i < body->count; i++) {
    const model_step_t *step = &body->steps[i];
    aloop_future_t *future = awaitable(body->program, step);
    char number[16];
    if (future == NULL) {
      snprintf(number, sizeof number, "%d", call(body->program, step));
      print_step(body, i, number);
      continue;
    }
    int64_t rc = aloop_await(future);
    print_step(body, i, outcome(rc));
    if (rc < 0 && (step->flags & (rc == ALOOP_ECANCELED ? 1 : 2)) == 0) return rc;
  }
  return 0;
}

static void turns(const program_t *program) {
  for (int i = 0; i < TURNS; i++) run_turn(program->loop);
}

static void run_program(program_t *program) {
  char line[40];
  for (int i = 0; i < program->futures; i++) program->waiting[i] = aloop_future_new(program->loop);
  for (int i = 0; i < program->tasks; i++)
    program->running[i] = aloop_create_task(program->loop, run_body, &program->bodies[i], NULL);
  turns(program);
  for (int i = 0; i < program->tasks; i++) {
    snprintf(line, sizeof line, "> cancel %d", aloop_future_cancel(program->running[i]));
    print(program, line);
  }
  turns(program);
  for (int i = 0; i < program->futures; i++) aloop_future_cancel(program->waiting[i]);
  turns(program);
  for (int i = 0; i < program->tasks; i++) {
    const char *said = outcome(aloop_future_result(program->running[i]));
    snprintf(line, sizeof line, "> %s %d", said, aloop_task_cancelling(program->running[i]));
    print(program, line);
    aloop_future_unref(program->running[i]);
  }
  for (int i = 0; i < program->futures; i++) {
    aloop_future_result(program->waiting[i]);
    aloop_future_unref(program->waiting[i]);
  }
}

/* ---- Reading and comparing ----------------------------------------------------------------------------------- */

static bool read_line(FILE *from, char *line, int size) {
  if (fgets(line, size, from) == NULL) return false;
  line[strcspn(line, "\n")] = '\0';
  return true;
}

/* Returns false at the end. */
static bool read_program(FILE *from, program_t *program) {
  char line[80];
  memset(program, 0, sizeof *program);
  while (read_line(from, line, sizeof line)) {
    model_step_t step;
    int number;
    if (strcmp(line, "end") == 0) return true;
    if (line[0] == '>' && program->lines < LINES)
      snprintf(program->expected[program->lines++], 40, "%.39s", line);
    else if (sscanf(line, "op %d %11s %d %d", &number, step.op, &step.arg, &step.flags) == 4)
      program->bodies[number].steps[program->bodies[number].count++] = step;
    else if (sscanf(line, "program %d %d", &program->tasks, &program->futures) != 2)
      fail_msg("not a line of a program: %s", line);
  }
  return false;
}

static void compare(const program_t *program) {
  for (int i = 0; i < program->lines || i < program->printed; i++) {
    const char *expected = i < program->lines ? program->expected[i] : "(nothing)";
    const char *got = i < program->printed ? program->got[i] : "(nothing)";
    if (strcmp(expected, got) == 0) continue;
    for (int task = 0; task < program->tasks; task++)
      for (int step = 0; step < program->bodies[task].count; step++)
        print_error("op %d %s %d %d\n", task, program->bodies[task].steps[step].op,
                    program->bodies[task].steps[step].arg, program->bodies[task].steps[step].flags);
    for (int before = 0; before < i; before++) print_error("%s\n", program->got[before]);
    fail_msg("asyncio says: %s; we say: %s", expected, got);
  }
}

static FILE *ask_python(void) {
  char command[600];
  const char *first = getenv("MODEL_FIRST"), *count = getenv("MODEL_COUNT");
  const char *slash = strrchr(__FILE__, '/');
  int length = slash != NULL ? (int)(slash - __FILE__) : 0;
  snprintf(command, sizeof command, "python3 %.*s/asyncio_model.py %s %s", length, __FILE__,
           first != NULL ? first : "1", count != NULL ? count : "300");
  return popen(command, "r");
}

static void tasks_do_what_asyncio_does(void **state) {
  env_t *env = *state;
  static program_t program;
  if (system("python3 -c 'import asyncio; asyncio.tasks._PyTask.uncancel' 2>/dev/null") != 0) skip();
  FILE *python = ask_python();
  assert_non_null(python);
  int count = 0;
  for (; read_program(python, &program); count++) {
    program.loop = env->loop;
    for (int i = 0; i < program.tasks; i++) {
      program.bodies[i].program = &program;
      program.bodies[i].number = i;
    }
    run_program(&program);
    compare(&program);
    assert_int_equal(aloop_all_tasks(env->loop, NULL, 0), 0);
    env->reports = 0;
  }
  assert_int_equal(pclose(python), 0);
  assert_true(count > 0);
}

TESTS(T(tasks_do_what_asyncio_does))
