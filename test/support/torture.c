/* SPDX-License-Identifier: MIT
 *
 * Torture: see torture.h. A first run in which nothing fails counts allocations and system calls and notes
 * which call was the n-th. Later runs may differ from it a little, because the kernel has a say in how much
 * a call moves; the n-th call is then another one, and fails with an error of its own. / */
#include "torture.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { TURNS_MAX = 200000, SECONDS_MAX = 20, TURNS_WITHOUT_MEMORY = 40, ERRORS_MAX = 4, TINY_RLIMIT = 256 };

char torture_where[200];

bool run_is_strict(const run_t *run) {
  return !run->memory && run->kind != FAULT_ERROR && run->kind != FAULT_ERRORS;
}

bool is_known(int64_t error) {
  return strcmp(aloop_error_name(error), "UNKNOWN") != 0 && error != ALOOP_EAGAIN && error != ALOOP_EINTR;
}

bool run_open(run_t *run, int debug) {
  aloop_options_t options = {.size = sizeof options, .allocator = &run->env->allocator, .debug = debug};
  int rc = aloop_new(&options, &run->loop);
  NORMALLY(run, rc == 0);
  ALWAYS(rc == 0 || is_known(rc));
  if (rc == 0) env_watch(run->env, run->loop);
  return rc == 0;
}

bool run_a_turn(run_t *run) {
  int rc = aloop_run_once(run->loop, run->env->fail_from != 0 ? ALOOP_MILLIS(1) : ALOOP_MILLIS(50));
  NORMALLY(run, rc >= 0);
  ALWAYS(rc >= 0 || is_known(rc));
  run->broken = rc < 0;
  return rc >= 0;
}

bool run_to(run_t *run, bool (*over)(const void *arg), const void *arg) {
  time_t begun = time(NULL);
  for (int i = 0; !over(arg); i++) {
    if (i == TURNS_WITHOUT_MEMORY) run->env->fail_from = 0;
    if (run->broken || !run_a_turn(run)) return false;
    if (i > TURNS_MAX || time(NULL) - begun > SECONDS_MAX) fail_msg("%s: hangs", torture_where);
  }
  return true;
}

static bool is_done(const void *future) {
  return aloop_future_done(future);
}

aloop_future_t *run_made(const run_t *run, aloop_future_t *future) {
  ALWAYS(future != NULL || run->memory);
  return future;
}

int64_t run_end_of(run_t *run, aloop_future_t *future) {
  if (run_made(run, future) == NULL) return ALOOP_ENOMEM;
  run_to(run, is_done, future);
  int64_t value = aloop_future_result(future);
  ALWAYS(value >= 0 || is_known(value));
  aloop_future_unref(future);
  return value;
}

bool run_object_of(run_t *run, aloop_future_t *future, void *out) {
  if (run_made(run, future) == NULL) return false;
  run_to(run, is_done, future);
  int rc = aloop_future_take_ptr(future, out);
  ALWAYS(rc == 0 || is_known(rc));
  aloop_future_unref(future);
  return rc == 0;
}

/* ---- One run ----------------------------------------------------------------------------------------------- */

typedef struct trial {
  scenario_fn play;
  fault_kind_t kind;
  long n;          /* call or allocation */
  int variant;     /* of the call's errors */
  bool memory_one; /* the n-th allocation fails, */
  bool memory_all; /* all from the n-th on fail */
} trial_t;

static void describe(const char *name, const trial_t *trial) {
  static const char *const kinds[] = {
      "nothing fails", "fails", "fails a few times", "is interrupted", "would wait",
      "interruptions", "waits", "one byte at a time"};
  if (trial->memory_one || trial->memory_all)
    snprintf(torture_where, sizeof torture_where, "%s, allocation %ld%s fails", name, trial->n,
             trial->memory_all ? " and all later ones" : "");
  else
    snprintf(torture_where, sizeof torture_where, "%s, call %ld (%s), error %d: %s", name, trial->n,
             faults_name(trial->n), trial->variant, kinds[trial->kind]);
}

static void run_trial(env_t *env, const char *name, const trial_t *trial) {
  run_t run = {.env = env, .kind = trial->kind, .memory = trial->memory_one || trial->memory_all};
  describe(name, trial);
  int fds = open_fds();
  env->calls = env->reports = 0;
  env->fail_at = trial->memory_one ? trial->n : 0;
  env->fail_from = trial->memory_all ? trial->n : 0;
  faults_begin(trial->kind, trial->n, trial->variant);
  trial->play(&run);
  aloop_free(run.loop);
  faults_end();
  env->fail_at = env->fail_from = 0;
  int left = open_fds();
  if (left != fds) fail_msg("%s: descriptors %d -> %d", torture_where, fds, left);
  if (env->live != 0) fail_msg("%s: %ld blocks live", torture_where, env->live);
}

/* ---- All runs ---------------------------------------------------------------------------------------------- */

static long short_of_memory(env_t *env, const char *name, scenario_fn play) {
  long runs = 0;
  for (int all = 0; all < 2; all++) {
    bool reached = true;
    for (long n = 1; reached; n++, runs++) {
      run_trial(env, name, &(trial_t){.play = play, .n = n, .memory_one = !all, .memory_all = all});
      reached = env->calls >= n;
    }
  }
  return runs;
}

static long failing_calls(env_t *env, const char *name, scenario_fn play, long calls) {
  long runs = 0;
  for (long n = 1; n <= calls; n++) {
    trial_t trial = {.play = play, .n = n};
    for (; trial.variant < faults_errors(n); trial.variant++, runs += 2) {
      trial.kind = FAULT_ERROR;
      run_trial(env, name, &trial);
      trial.kind = FAULT_ERRORS;
      run_trial(env, name, &trial);
    }
  }
  return runs;
}

static long harmless_faults(env_t *env, const char *name, scenario_fn play, long calls) {
  long runs = 0;
  trial_t trial = {.play = play};
  for (trial.n = 1; trial.n <= calls; trial.n++) {
    trial.kind = FAULT_INTERRUPT;
    if (faults_interruptible(trial.n) && ++runs) run_trial(env, name, &trial);
    trial.kind = FAULT_AGAIN;
    if (faults_may_wait(trial.n) && ++runs) run_trial(env, name, &trial);
  }
  for (trial.kind = FAULT_INTERRUPT_OFTEN; trial.kind <= FAULT_SHORT; trial.kind++, runs++)
    run_trial(env, name, &trial);
  return runs;
}

/* Fewer numbers to look through when descriptors are counted. */
static void limit_fds(rlim_t most) {
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur > most) limit.rlim_cur = most;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

void torture_all(env_t *env, const char *name, scenario_fn play) {
  limit_fds(TINY_RLIMIT);
  aloop_free(env->loop);
  env->loop = NULL;
  trial_t nothing = {.play = play};
  run_trial(env, name, &nothing); /* what is made once is made now */
  run_trial(env, name, &nothing);
  long calls = faults_calls() < FAULT_CALLS_MAX ? faults_calls() : FAULT_CALLS_MAX - 1;
  long allocations = env->calls;
  long memory = short_of_memory(env, name, play);
  long failures = failing_calls(env, name, play, calls);
  long harmless = harmless_faults(env, name, play, calls);
  print_message("%s: %ld allocations, %ld system calls; %ld runs short of memory, %ld with a failing call, "
                "%ld with a harmless fault\n",
                name, allocations, calls, memory, failures, harmless);
}
