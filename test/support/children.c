/* SPDX-License-Identifier: MIT
 *
 * Children under test: see children.h.
 */
#include "children.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "process/spawn.h"

void use_way(int n) {
  static const unsigned ways[WAYS] = {0, ALOOP__WITHOUT_CLONE, ALOOP__WITHOUT_PIDFD | ALOOP__WITHOUT_KQUEUE};
  aloop__spawn_without = ways[n];
}

static void note(notes_t *notes, char event) {
  if (notes->events_count + 1 < sizeof notes->events) notes->events[notes->events_count++] = event;
}

static void made(aloop_process_t *process, void *protocol) {
  notes_t *notes = protocol;
  notes->process = aloop_process_ref(process);
  notes->made = true;
  note(notes, 'M');
  if (notes->on_made != NULL) notes->on_made(notes);
}

static void data(aloop_process_t *process, void *protocol, int fd, const void *bytes, size_t size) {
  notes_t *notes = protocol;
  assert_ptr_equal(process, notes->process);
  assert_true(fd == 1 || fd == 2);
  char event = (char)('0' + fd);
  if (notes->events_count == 0 || notes->events[notes->events_count - 1] != event) note(notes, event);
  size_t used = notes->size[fd] < NOTES_ROOM - 1 ? notes->size[fd] : NOTES_ROOM - 1;
  size_t fits = NOTES_ROOM - 1 - used < size ? NOTES_ROOM - 1 - used : size;
  memcpy(notes->text[fd] + used, bytes, fits);
  notes->size[fd] += size;
}

static void pipe_lost(aloop_process_t *process, void *protocol, int fd, int error) {
  notes_t *notes = protocol;
  assert_ptr_equal(process, notes->process);
  notes->pipe_errors[fd] = error;
  note(notes, (char)('a' + fd));
}

static void exited(aloop_process_t *process, void *protocol) {
  notes_t *notes = protocol;
  assert_ptr_equal(process, notes->process);
  notes->exited = true;
  note(notes, 'X');
  if (notes->on_exited != NULL) notes->on_exited(notes);
}

static void pause_writing(aloop_process_t *process, void *protocol) {
  (void)process;
  note(protocol, 'P');
}

static void resume_writing(aloop_process_t *process, void *protocol) {
  (void)process;
  note(protocol, 'R');
}

static void lost(aloop_process_t *process, void *protocol, int error) {
  notes_t *notes = protocol;
  assert_ptr_equal(process, notes->process);
  assert_false(notes->lost);
  notes->error = error;
  notes->lost = true;
  note(notes, 'L');
  if (notes->on_lost != NULL) notes->on_lost(notes);
}

const aloop_process_protocol_t noting_protocol = {
    .size = sizeof noting_protocol,
    .connection_made = made,
    .pipe_data_received = data,
    .pipe_connection_lost = pipe_lost,
    .process_exited = exited,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .connection_lost = lost,
};

/* Without a process there is a message why. */
static void expect_started(aloop_future_t *future) {
  if (aloop_future_result(future) < 0) fail_msg("not started: %s", aloop_future_message(future));
}

void start_noted(notes_t *notes, const char *command, const aloop_process_options_t *options) {
  aloop_t *loop = notes->env->loop;
  aloop_future_t *future = aloop_subprocess_shell(loop, &noting_protocol, notes, command, options);
  run_future(loop, future);
  expect_started(future);
  assert_true(notes->made);
  aloop_future_unref(future);
}

aloop_process_t *start_plain(env_t *env, const char *command, const aloop_process_options_t *options) {
  aloop_process_t *process = NULL;
  aloop_future_t *future = aloop_subprocess_shell(env->loop, NULL, NULL, command, options);
  run_future(env->loop, future);
  expect_started(future);
  assert_int_equal(aloop_future_take_ptr(future, &process), 0);
  aloop_future_unref(future);
  return process;
}

int64_t start_error(env_t *env, const aloop_process_options_t *options, char text[256]) {
  aloop_future_t *future = aloop_subprocess_exec(env->loop, NULL, NULL, options);
  int64_t error = run_future(env->loop, future);
  if (text != NULL) snprintf(text, 256, "%s", aloop_future_message(future));
  aloop_future_unref(future);
  return error;
}

void await_lost(notes_t *notes) {
  run_until(notes->env->loop, &notes->lost);
}

void end_notes(notes_t *notes) {
  if (!notes->lost) {
    aloop_process_close(notes->process);
    await_lost(notes);
  }
  assert_true(notes->events[0] == 'M' && notes->events[notes->events_count - 1] == 'L');
  aloop_process_unref(notes->process);
  notes->process = NULL;
}

int64_t wait_result(env_t *env, aloop_process_t *process) {
  aloop_future_t *future = aloop_process_wait(process);
  int64_t result = run_future(env->loop, future);
  aloop_future_unref(future);
  return result;
}

void await_no_process(env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  for (int i = 0;; i++) {
    assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
    if (metrics.processes == 0) break;
    assert_true(i < 10000);
    assert_true(aloop_run_once(env->loop, ALOOP_MILLIS(10)) >= 0);
  }
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
  assert_int_equal(errno, ECHILD);
}

void await_end(aloop_process_t *process) {
  siginfo_t info;
  int rc;
  do rc = waitid(P_PID, (id_t)aloop_process_pid(process), &info, WEXITED | WNOWAIT);
  while (rc < 0 && errno == EINTR);
  assert_int_equal(rc, 0);
}

void make_gate(int gate[2]) {
  make_pipe(gate);
  fcntl(gate[0], F_SETFL, 0);
}

aloop_process_options_t passing(const int *fd) {
  return (aloop_process_options_t){
      .size = sizeof(aloop_process_options_t), .pass_fds = fd, .pass_fds_count = 1};
}

bool has_event(const notes_t *notes, char event) {
  return memchr(notes->events, event, notes->events_count) != NULL;
}
