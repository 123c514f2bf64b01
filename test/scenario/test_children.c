/* SPDX-License-Identifier: MIT
 *
 * Two thousand children at one time: all are started, all wait at one pipe, each end arrives once, and closing
 * the loop under them leaves none behind. A system that does not allow so many has nothing to test.
 * pollers: all
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"

enum { MANY = 2000, SPARE = 200 };

typedef struct crowd {
  int started, made, exited, lost;
  bool all_made, all_lost;
} crowd_t;

static void made(aloop_process_t *process, void *protocol) {
  (void)process;
  crowd_t *crowd = protocol;
  crowd->all_made = ++crowd->made == crowd->started;
}

static void exited(aloop_process_t *process, void *protocol) {
  crowd_t *crowd = protocol;
  int code;
  if (aloop_process_returncode(process, &code) == 0) crowd->exited++;
}

static void lost(aloop_process_t *process, void *protocol, int error) {
  (void)process, (void)error;
  crowd_t *crowd = protocol;
  crowd->all_lost = ++crowd->lost == crowd->started;
}

static const aloop_process_protocol_t crowd_protocol = {
    .size = sizeof crowd_protocol, .connection_made = made, .process_exited = exited, .connection_lost = lost};

/* A descriptor for each child, and the processes themselves. */
static bool allows(size_t many) {
  struct rlimit files, processes;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < many + SPARE) return false;
#ifdef RLIMIT_NPROC
  if (getrlimit(RLIMIT_NPROC, &processes) == 0 && processes.rlim_cur < 2 * many) return false;
#else
  (void)processes;
#endif
  return true;
}

/* Starts children that live until the pipe's other end is closed. */
static void start_many(env_t *env, crowd_t *crowd, int gate) {
  static const char *const argv[] = {"cat", NULL};
  aloop_process_options_t options = {.size = sizeof options,
                                     .argv = argv,
                                     .in = {ALOOP_STDIO_FD, gate},
                                     .out = {.kind = ALOOP_STDIO_DEVNULL},
                                     .err = {.kind = ALOOP_STDIO_INHERIT}};
  crowd->started = MANY;
  for (int i = 0; i < MANY; i++) {
    aloop_future_t *future = aloop_subprocess_exec(env->loop, &crowd_protocol, crowd, &options);
    assert_non_null(future);
    if (aloop_future_done(future)) fail_msg("child %d: %s", i, aloop_future_message(future));
    aloop_future_detach(future);
  }
  run_until(env->loop, &crowd->all_made);
}

static void two_thousand_children_end_and_are_told_of(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int gate[2];
  if (!allows(MANY)) skip();
  make_gate(gate);
  start_many(env, &crowd, gate[0]);
  close(gate[0]);
  assert_int_equal(crowd.lost, 0);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.processes, MANY);
  close(gate[1]);
  run_until(env->loop, &crowd.all_lost);
  assert_int_equal(crowd.exited, MANY);
  await_no_process(env);
}

static void a_loop_that_closes_takes_two_thousand_with_it(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int gate[2];
  if (!allows(MANY)) skip();
  make_gate(gate);
  start_many(env, &crowd, gate[0]);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(crowd.lost, MANY);
  assert_int_equal(crowd.exited, MANY);
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
  close(gate[0]);
  close(gate[1]);
}

TESTS(T(two_thousand_children_end_and_are_told_of), T(a_loop_that_closes_takes_two_thousand_with_it))
