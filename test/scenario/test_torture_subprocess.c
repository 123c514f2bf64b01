/* SPDX-License-Identifier: MIT
 *
 * Torture of subprocesses: one that is told something and says it back, and one that is closed while it waits,
 * each started while a call fails. Every future ends, connection_lost comes once for each connection_made, what
 * was said is whole or an error, and no child is left but one whose status could not be collected.
 *
 * pollers: all
 * faults: yes
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "torture.h"

enum { SIZE = 100000 };

static char text[SIZE];

/* What a start may bring: besides the codes of the table that of a system with too many processes. */
static bool may_fail_with(int64_t error) {
  return is_known(error) || error == ALOOP_EAGAIN;
}

static bool is_done(const void *future) {
  return aloop_future_done(future);
}

/* Starts cat. NULL: not this time. */
static aloop_process_t *start(run_t *run, const aloop_process_protocol_t *protocol, void *arg) {
  static const char *const argv[] = {"cat", NULL};
  aloop_process_options_t options = {.size = sizeof options, .argv = argv, .err = {ALOOP_STDIO_DEVNULL, 0}};
  aloop_process_t *process = NULL;
  aloop_future_t *future = aloop_subprocess_exec(run->loop, protocol, arg, &options);
  if (run_made(run, future) == NULL) return NULL;
  run_to(run, is_done, future);
  int rc = aloop_future_take_ptr(future, &process);
  NORMALLY(run, rc == 0);
  ALWAYS(rc == 0 || rc == ALOOP_ENOTDONE || may_fail_with(rc));
  aloop_future_unref(future);
  return process;
}

/* Closing the loop ends what is still there. Only a status that could not be collected leaves a child. */
static void end(run_t *run) {
  aloop_close(run->loop);
  faults_pause();
  pid_t left;
  do left = waitpid(-1, NULL, 0);
  while (left > 0 || (left < 0 && errno == EINTR));
  faults_resume();
}

/* ---- An answer ------------------------------------------------------------------------------------------- */

static void check_output(run_t *run, const aloop_output_t *output) {
  NORMALLY(run, output->returncode == 0 && output->out_size == sizeof text);
  ALWAYS(output->out_size <= sizeof text && memcmp(output->out, text, output->out_size) == 0);
  ALWAYS(output->err == NULL);
}

static void play_answer(run_t *run) {
  memset(text, 'x', sizeof text);
  size_t size = run->kind == FAULT_SHORT ? 100 : sizeof text;
  if (!run_open(run, 0)) return;
  aloop_process_t *process = start(run, NULL, NULL);
  aloop_output_t *output = NULL;
  if (process != NULL) {
    aloop_future_t *future = aloop_process_communicate(process, text, size, 0);
    if (run_object_of(run, future, &output)) {
      ALWAYS(output->out_size <= size);
      if (size == sizeof text) check_output(run, output);
    }
  }
  free(output);
  aloop_process_unref(process);
  end(run);
}

/* ---- A close --------------------------------------------------------------------------------------------- */

typedef struct life {
  int made, exited, lost, pipes;
} life_t;

static void made(aloop_process_t *process, void *protocol) {
  (void)process;
  life_t *life = protocol;
  ALWAYS(life->made++ == 0);
}

static void pipe_lost(aloop_process_t *process, void *protocol, int fd, int error) {
  (void)process, (void)error;
  life_t *life = protocol;
  ALWAYS(life->made == 1 && life->lost == 0 && fd < 2);
  life->pipes++;
}

static void exited(aloop_process_t *process, void *protocol) {
  (void)process;
  life_t *life = protocol;
  ALWAYS(life->made == 1 && life->lost == 0);
  ALWAYS(life->exited++ == 0);
}

static void lost(aloop_process_t *process, void *protocol, int error) {
  (void)process, (void)error;
  life_t *life = protocol;
  ALWAYS(life->made == 1 && life->pipes == 2);
  ALWAYS(life->lost++ == 0);
}

static const aloop_process_protocol_t protocol_of_life = {.size = sizeof protocol_of_life,
                                                          .connection_made = made,
                                                          .pipe_connection_lost = pipe_lost,
                                                          .process_exited = exited,
                                                          .connection_lost = lost};

static bool is_over(const void *arg) {
  const life_t *life = arg;
  return life->made == life->lost;
}

static void play_close(run_t *run) {
  life_t life = {0};
  if (!run_open(run, 0)) return;
  aloop_process_t *process = start(run, &protocol_of_life, &life);
  aloop_future_t *wait = process != NULL ? aloop_process_wait(process) : NULL;
  if (process != NULL) aloop_process_close(process);
  run_to(run, is_over, &life);
  NORMALLY(run, life.lost == 1 && life.exited == 1);
  aloop_future_unref(wait);
  aloop_process_unref(process);
  end(run);
  ALWAYS(life.made == life.lost);
}

static void a_conversation_survives(void **state) {
  torture_all(*state, "a conversation", play_answer);
}

static void a_close_survives(void **state) {
  torture_all(*state, "a close", play_close);
}

TESTS(T(a_conversation_survives), T(a_close_survives))
