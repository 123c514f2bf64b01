/* SPDX-License-Identifier: MIT
 *
 * Subprocesses: what the protocol hears and in which order, the pipes, the end of a child in all its forms, and
 * loops that are closed meanwhile. Children wait for a byte on a pipe rather than for time to pass.
 *
 * pollers: all threads: yes
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "peers.h"

static aloop_process_options_t plain_options(void) {
  return (aloop_process_options_t){.size = sizeof(aloop_process_options_t)};
}

static int64_t signal_of(int64_t status) {
  return ALOOP_EXIT_SIGNAL(status);
}

/* ---- Events ---------------------------------------------------------------------------------------------- */

IN_EVERY_WAY(made_comes_first_and_lost_last) {
  notes_t notes = {.env = env};
  int code;
  start_noted(&notes, "echo out; echo err >&2; exit 3", NULL);
  assert_int_equal(aloop_process_returncode(notes.process, &code), notes.exited ? 0 : ALOOP_ENOTDONE);
  await_lost(&notes);
  assert_string_equal(notes.text[1], "out\n");
  assert_string_equal(notes.text[2], "err\n");
  for (const char *event = "M12abcXL"; *event != '\0'; event++) assert_true(has_event(&notes, *event));
  assert_int_equal(notes.events_count, 8);
  assert_int_equal(notes.error, 0);
  assert_int_equal(notes.pipe_errors[1], 0);
  assert_int_equal(aloop_process_returncode(notes.process, &code), 0);
  assert_int_equal(code, 3);
  end_notes(&notes);
}

static void expect_still_running(notes_t *notes) {
  int code;
  assert_int_equal(aloop_process_returncode(notes->process, &code), ALOOP_ENOTDONE);
}

IN_EVERY_WAY(the_process_is_complete_when_it_is_made) {
  notes_t notes = {.env = env, .on_made = expect_still_running};
  start_noted(&notes, "cat", NULL);
  assert_true(aloop_process_pid(notes.process) > 0);
  assert_ptr_equal(aloop_process_loop(notes.process), env->loop);
  assert_ptr_equal(aloop_process_get_protocol(notes.process), &notes);
  for (int fd = 0; fd < 3; fd++) assert_non_null(aloop_process_pipe(notes.process, fd));
  assert_null(aloop_process_pipe(notes.process, 3));
  assert_null(aloop_process_pipe(notes.process, -1));
  assert_false(aloop_process_is_closing(notes.process));
  pid_t pid = aloop_process_pid(notes.process);
  aloop_process_close(notes.process);
  assert_true(aloop_process_is_closing(notes.process));
  await_lost(&notes);
  assert_int_equal(aloop_process_pid(notes.process), pid);
  end_notes(&notes);
}

IN_EVERY_WAY(an_exit_before_connection_made_is_told_after_it) {
  notes_t notes = {.env = env};
  aloop_future_t *future =
      aloop_subprocess_shell(env->loop, &noting_protocol, &notes, "echo early; exit 1", NULL);
  siginfo_t info;
  while (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) continue;
  assert_false(notes.made);
  run_future(env->loop, future);
  await_lost(&notes);
  assert_string_equal(notes.text[1], "early\n");
  assert_true(has_event(&notes, 'X'));
  aloop_future_unref(future);
  end_notes(&notes);
}

IN_EVERY_WAY(a_child_without_pipes_has_the_same_life) {
  notes_t notes = {.env = env};
  aloop_process_options_t options = plain_options();
  options.in.kind = options.out.kind = options.err.kind = ALOOP_STDIO_DEVNULL;
  start_noted(&notes, "exit 2", &options);
  await_lost(&notes);
  assert_string_equal(notes.events, "MXL");
  for (int fd = 0; fd < 3; fd++) assert_null(aloop_process_pipe(notes.process, fd));
  end_notes(&notes);
}

IN_EVERY_WAY(a_protocol_may_be_empty) {
  static const aloop_process_protocol_t empty = {.size = sizeof empty};
  aloop_process_t *process;
  assert_int_equal(aloop_run_until_complete_ptr(
                       env->loop,
                       aloop_subprocess_shell(env->loop, &empty, NULL, "echo a; echo b >&2; exit 9", NULL),
                       &process),
                   0);
  assert_int_equal(wait_result(env, process), 9);
  aloop_process_unref(process);
  await_no_process(env);
}

static void *refuse(void *arg) {
  (*(int *)arg)++;
  return NULL;
}

IN_EVERY_WAY(a_factory_may_refuse) {
  static const aloop_process_protocol_t refusing = {.size = sizeof refusing, .create = refuse};
  int calls = 0;
  aloop_future_t *future = aloop_subprocess_shell(env->loop, &refusing, &calls, "cat", NULL);
  assert_int_equal(run_future(env->loop, future), ALOOP_ENOMEM);
  aloop_future_unref(future);
  assert_int_equal(calls, 1);
  await_no_process(env);
}

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

IN_EVERY_WAY(bytes_go_in_and_come_out) {
  notes_t notes = {.env = env};
  start_noted(&notes, "cat; echo end", NULL);
  aloop_transport_t *in = aloop_process_pipe(notes.process, 0);
  assert_int_equal(aloop_transport_write(in, "hello\n", 6), 0);
  while (notes.size[1] < 6) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  assert_int_equal(aloop_transport_write_eof(in), 0);
  await_lost(&notes);
  assert_string_equal(notes.text[1], "hello\nend\n");
  end_notes(&notes);
}

IN_EVERY_WAY(a_child_that_does_not_read_holds_its_writer_back) {
  static char bytes[1 << 20];
  notes_t notes = {.env = env};
  int gate[2];
  make_gate(gate);
  aloop_process_options_t options = passing(gate);
  char command[80];
  snprintf(command, sizeof command, "read x </dev/fd/%d; wc -c", gate[0]);
  start_noted(&notes, command, &options);
  memset(bytes, 'x', sizeof bytes);
  aloop_transport_t *in = aloop_process_pipe(notes.process, 0);
  assert_int_equal(aloop_transport_write(in, bytes, sizeof bytes), 0);
  assert_true(has_event(&notes, 'P'));
  assert_int_equal(write(gate[1], "\n", 1), 1);
  while (!has_event(&notes, 'R')) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  aloop_transport_write_eof(in);
  await_lost(&notes);
  assert_int_equal(strtol(notes.text[1], NULL, 10), sizeof bytes);
  close(gate[0]);
  close(gate[1]);
  end_notes(&notes);
}

IN_EVERY_WAY(a_child_that_closes_stdin_breaks_the_pipe) {
  static char bytes[1 << 20];
  notes_t notes = {.env = env};
  start_noted(&notes, "exec <&-; echo closed; read x <&1; true", NULL);
  while (notes.size[1] < 7) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  aloop_transport_t *in = aloop_process_pipe(notes.process, 0);
  int rc = aloop_transport_write(in, bytes, sizeof bytes);
  assert_true(rc == 0 || rc == ALOOP_ECLOSED);
  await_lost(&notes);
  assert_true(notes.pipe_errors[0] == ALOOP_EPIPE || notes.pipe_errors[0] == 0);
  end_notes(&notes);
}

static void pause_stdout(notes_t *notes) {
  assert_int_equal(aloop_transport_pause_reading(aloop_process_pipe(notes->process, 1)), 0);
}

IN_EVERY_WAY(reading_can_be_paused_from_the_start) {
  notes_t notes = {.env = env, .on_made = pause_stdout};
  start_noted(&notes, "echo out; echo err >&2", NULL);
  run_until(env->loop, &notes.exited);
  run_turns(env->loop, 3);
  assert_int_equal(notes.size[1], 0);
  assert_false(notes.lost);
  assert_int_equal(aloop_transport_resume_reading(aloop_process_pipe(notes.process, 1)), 0);
  await_lost(&notes);
  assert_string_equal(notes.text[1], "out\n");
  end_notes(&notes);
}

static int take_pipe_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport, (void)data;
  *(size_t *)protocol += size;
  return 0;
}

IN_EVERY_WAY(a_pipe_may_get_a_protocol_of_its_own) {
  static const aloop_protocol_t counting = {.size = sizeof counting, .data_received = take_pipe_data};
  size_t size = 0;
  aloop_process_t *process = start_plain(env, "echo hello", NULL);
  aloop_transport_t *out = aloop_process_pipe(process, 1);
  assert_int_equal(aloop_transport_set_protocol(out, &counting, &size), 0);
  assert_int_equal(aloop_transport_resume_reading(out), 0);
  assert_int_equal(wait_result(env, process), 0);
  aloop_process_unref(process);
  await_no_process(env);
  assert_int_equal(size, 6);
}

/* ---- Where streams go ------------------------------------------------------------------------------------ */

static int temporary_file(void) {
  char name[] = "/tmp/aloop-subprocess-XXXXXX";
  int file = mkstemp(name);
  assert_true(file >= 0);
  unlink(name);
  return file;
}

static void expect_in_file(int file, const char *text) {
  char got[256];
  ssize_t n = pread(file, got, sizeof got - 1, 0);
  assert_true(n >= 0);
  got[n] = '\0';
  assert_string_equal(got, text);
}

IN_EVERY_WAY(errors_may_go_where_output_goes) {
  notes_t notes = {.env = env};
  aloop_process_options_t options = plain_options();
  options.err.kind = ALOOP_STDIO_STDOUT;
  start_noted(&notes, "echo one; echo two >&2; echo three", &options);
  assert_null(aloop_process_pipe(notes.process, 2));
  await_lost(&notes);
  assert_string_equal(notes.text[1], "one\ntwo\nthree\n");
  end_notes(&notes);
}

IN_EVERY_WAY(streams_may_be_descriptors_of_the_caller) {
  int in = temporary_file(), out = temporary_file();
  notes_t notes = {.env = env};
  aloop_process_options_t options = plain_options();
  assert_int_equal(write(in, "input\n", 6), 6);
  lseek(in, 0, SEEK_SET);
  options.in = (aloop_stdio_t){ALOOP_STDIO_FD, in};
  options.out = (aloop_stdio_t){ALOOP_STDIO_FD, out};
  options.err.kind = ALOOP_STDIO_STDOUT;
  start_noted(&notes, "cat; echo err >&2", &options);
  await_lost(&notes);
  expect_in_file(out, "input\nerr\n");
  assert_true(fcntl(in, F_GETFD) >= 0); /* still the caller's */
  close(in);
  close(out);
  end_notes(&notes);
}

IN_EVERY_WAY(streams_may_be_inherited_or_nowhere) {
  int out = temporary_file(), saved = fcntl(1, F_DUPFD_CLOEXEC, 10);
  notes_t notes = {.env = env};
  aloop_process_options_t options = plain_options();
  options.in.kind = ALOOP_STDIO_DEVNULL;
  options.out.kind = ALOOP_STDIO_INHERIT;
  options.err.kind = ALOOP_STDIO_DEVNULL;
  fflush(stdout);
  dup2(out, 1);
  start_noted(&notes, "cat; echo here; echo gone >&2", &options);
  dup2(saved, 1);
  close(saved);
  await_lost(&notes);
  expect_in_file(out, "here\n");
  close(out);
  end_notes(&notes);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

IN_EVERY_WAY(wait_tells_the_exit_code_and_the_signal) {
  aloop_process_t *process = start_plain(env, "exit 42", NULL);
  assert_int_equal(wait_result(env, process), 42);
  assert_int_equal(wait_result(env, process), 42); /* again */
  aloop_process_unref(process);
  process = start_plain(env, "kill -ABRT $$", NULL);
  int64_t status = wait_result(env, process);
  assert_int_equal(status, 256 + SIGABRT);
  assert_int_equal(signal_of(status), SIGABRT);
  assert_int_equal(signal_of(42), 0);
  int code;
  assert_int_equal(aloop_process_returncode(process, &code), 0);
  assert_int_equal(code, -SIGABRT);
  aloop_process_unref(process);
  await_no_process(env);
}

IN_EVERY_WAY(several_may_wait_and_one_give_up) {
  notes_t notes = {.env = env};
  start_noted(&notes, "cat", NULL);
  aloop_future_t *first = aloop_process_wait(notes.process);
  aloop_future_t *second = aloop_process_wait(notes.process);
  assert_int_equal(aloop_future_cancel(first), 1);
  aloop_transport_write_eof(aloop_process_pipe(notes.process, 0));
  assert_int_equal(run_future(env->loop, second), 0);
  aloop_future_unref(first);
  aloop_future_unref(second);
  end_notes(&notes);
}

IN_EVERY_WAY(wait_does_not_wait_for_a_grandchild) {
  notes_t notes = {.env = env};
  int gate[2];
  make_gate(gate);
  aloop_process_options_t options = passing(gate);
  char command[80];
  snprintf(command, sizeof command, "(read x; echo late) </dev/fd/%d & exit 4", gate[0]);
  start_noted(&notes, command, &options);
  assert_int_equal(wait_result(env, notes.process), 4);
  run_turns(env->loop, 3);
  assert_true(notes.exited);
  assert_false(notes.lost);
  assert_int_equal(write(gate[1], "\n", 1), 1);
  await_lost(&notes);
  assert_string_equal(notes.text[1], "late\n");
  close(gate[0]);
  close(gate[1]);
  end_notes(&notes);
}

IN_EVERY_WAY(signals_reach_a_running_child_only) {
  notes_t notes = {.env = env};
  start_noted(&notes, "trap 'echo got; exit 5' USR1; echo ready; while :; do read x; done", NULL);
  while (notes.size[1] < 6) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  assert_int_equal(aloop_process_send_signal(notes.process, 9999), ALOOP_EINVAL);
  assert_int_equal(aloop_process_send_signal(notes.process, 0), 0);
  assert_int_equal(aloop_process_send_signal(notes.process, SIGUSR1), 0);
  aloop_transport_write(aloop_process_pipe(notes.process, 0), "\n", 1);
  await_lost(&notes);
  assert_string_equal(notes.text[1], "ready\ngot\n");
  assert_int_equal(aloop_process_send_signal(notes.process, SIGUSR1), ALOOP_ESRCH);
  assert_int_equal(aloop_process_kill(notes.process), ALOOP_ESRCH);
  end_notes(&notes);
}

IN_EVERY_WAY(a_signal_to_a_child_that_has_just_ended_is_no_error) {
  notes_t notes = {.env = env};
  start_noted(&notes, "cat", NULL);
  assert_int_equal(aloop_process_terminate(notes.process), 0);
  await_end(notes.process);
  assert_int_equal(aloop_process_terminate(notes.process), 0);
  assert_int_equal(aloop_process_kill(notes.process), 0);
  assert_int_equal(wait_result(env, notes.process), 256 + SIGTERM);
  end_notes(&notes);
}

IN_EVERY_WAY(close_kills_what_does_not_listen) {
  notes_t notes = {.env = env};
  int gate[2];
  make_gate(gate);
  aloop_process_options_t options = passing(gate);
  char command[80];
  snprintf(command, sizeof command, "trap '' TERM; echo ready; read x </dev/fd/%d", gate[0]);
  start_noted(&notes, command, &options);
  while (notes.size[1] < 6) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  assert_int_equal(aloop_process_terminate(notes.process), 0);
  aloop_process_close(notes.process);
  aloop_process_close(notes.process);
  await_lost(&notes);
  int code;
  assert_int_equal(aloop_process_returncode(notes.process, &code), 0);
  assert_int_equal(code, -SIGKILL);
  assert_int_equal(notes.error, 0);
  close(gate[0]);
  close(gate[1]);
  end_notes(&notes);
}

IN_EVERY_WAY(close_does_not_wait_for_unsent_bytes) {
  static char bytes[1 << 20];
  notes_t notes = {.env = env};
  start_noted(&notes, "kill -STOP $$", NULL);
  assert_int_equal(aloop_transport_write(aloop_process_pipe(notes.process, 0), bytes, sizeof bytes), 0);
  aloop_process_close(notes.process);
  await_lost(&notes);
  end_notes(&notes);
}

static void close_it(notes_t *notes) {
  aloop_process_close(notes->process);
}

IN_EVERY_WAY(close_works_inside_callbacks) {
  notes_t first = {.env = env, .on_made = close_it};
  start_noted(&first, "cat", NULL);
  await_lost(&first);
  end_notes(&first);
  notes_t second = {.env = env, .on_exited = close_it, .on_lost = close_it};
  start_noted(&second, "echo x", NULL);
  await_lost(&second);
  end_notes(&second);
}

IN_EVERY_WAY(a_child_that_somebody_else_collected_is_reported) {
  notes_t notes = {.env = env};
  int code;
  start_noted(&notes, "cat", NULL);
  aloop_transport_abort(aloop_process_pipe(notes.process, 0));
  run_turns(env->loop, 3);
  if (!notes.exited) {
    pid_t pid;
    do pid = waitpid(aloop_process_pid(notes.process), NULL, 0);
    while (pid < 0 && errno == EINTR);
    assert_int_equal(pid, aloop_process_pid(notes.process));
    aloop_future_t *wait = aloop_process_wait(notes.process);
    assert_int_equal(run_future(env->loop, wait), ALOOP_EREAPED);
    assert_string_equal(aloop_future_message(wait), aloop_strerror(ALOOP_EREAPED));
    aloop_future_unref(wait);
    assert_int_equal(aloop_process_returncode(notes.process, &code), ALOOP_EREAPED);
    assert_int_equal(aloop_process_kill(notes.process), ALOOP_ESRCH);
  }
  await_lost(&notes);
  end_notes(&notes);
}

IN_EVERY_WAY(a_host_that_ignores_sigchld_loses_the_status_only) {
  notes_t notes = {.env = env};
  signal(SIGCHLD, SIG_IGN);
  start_noted(&notes, "echo x; exit 3", NULL);
  await_lost(&notes);
  signal(SIGCHLD, SIG_DFL);
  int code;
  assert_int_equal(aloop_process_returncode(notes.process, &code), ALOOP_EREAPED);
  assert_string_equal(notes.text[1], "x\n");
  end_notes(&notes);
}

IN_EVERY_WAY(sigchld_of_the_host_is_not_touched) {
  struct sigaction before, after;
  sigaction(SIGCHLD, NULL, &before);
  aloop_process_t *process = start_plain(env, "exit 0", NULL);
  sigaction(SIGCHLD, NULL, &after);
  assert_true(before.sa_handler == after.sa_handler && before.sa_flags == after.sa_flags);
  assert_int_equal(wait_result(env, process), 0);
  aloop_process_unref(process);
  await_no_process(env);
}

/* ---- Whose it is ----------------------------------------------------------------------------------------- */

IN_EVERY_WAY(a_cancelled_start_leaves_no_child) {
  notes_t notes = {.env = env};
  aloop_future_t *future = aloop_subprocess_shell(env->loop, &noting_protocol, &notes, "cat", NULL);
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
  await_no_process(env);
  assert_string_equal(notes.events, "");
}

IN_EVERY_WAY(a_process_without_references_lives_on) {
  notes_t notes = {.env = env};
  start_noted(&notes, "read x; echo $x", NULL);
  aloop_transport_t *in = aloop_process_pipe(notes.process, 0);
  aloop_process_unref(notes.process);
  run_turns(env->loop, 3);
  assert_false(notes.lost);
  assert_int_equal(aloop_transport_write(in, "late\n", 5), 0);
  await_lost(&notes);
  assert_string_equal(notes.text[1], "late\n");
}

IN_EVERY_WAY(pipes_that_nobody_can_read_any_more_are_closed) {
  aloop_process_t *process = start_plain(env, "echo unread", NULL);
  aloop_process_unref(process); /* before the end */
  await_no_process(env);
  process = start_plain(env, "echo unread", NULL);
  assert_int_equal(wait_result(env, process), 0);
  aloop_process_unref(process); /* after it */
  await_no_process(env);
}

IN_EVERY_WAY(a_process_outlives_its_loop_as_an_object) {
  notes_t notes = {.env = env};
  start_noted(&notes, "cat", NULL);
  aloop_process_t *process = notes.process;
  aloop_future_t *wait = aloop_process_wait(process);
  aloop_close(env->loop);
  assert_true(notes.lost);
  assert_int_equal(notes.error, ALOOP_ECLOSED);
  for (int fd = 0; fd < 3; fd++) assert_int_equal(notes.pipe_errors[fd], ALOOP_ECLOSED);
  assert_string_equal(notes.events + notes.events_count - 1, "L");
  int code;
  assert_int_equal(aloop_process_returncode(process, &code), 0);
  assert_int_equal(code, -SIGKILL);
  assert_true(aloop_future_done(wait));
  assert_int_equal(aloop_process_kill(process), ALOOP_ESRCH);
  aloop_process_close(process);
  aloop_future_t *late = aloop_process_wait(process);
  assert_int_equal(aloop_future_result(late), ALOOP_ECLOSED);
  aloop_future_unref(late);
  aloop_future_unref(wait);
  aloop_process_unref(process);
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
  env_loop(env, (aloop_options_t){.debug = -1});
}

IN_EVERY_WAY(closing_the_loop_ends_starts_and_many_children) {
  enum { CHILDREN = 20 };
  static notes_t notes[CHILDREN];
  for (int i = 0; i < CHILDREN; i++) {
    notes[i] = (notes_t){.env = env};
    start_noted(&notes[i], i % 2 == 0 ? "cat" : "exit 1", NULL);
    if (i % 4 == 1 && !notes[i].exited) await_end(notes[i].process);
  }
  notes_t unmade = {.env = env};
  aloop_future_t *future = aloop_subprocess_shell(env->loop, &noting_protocol, &unmade, "cat", NULL);
  aloop_close(env->loop);
  assert_true(aloop_future_done(future));
  assert_true(aloop_future_result(future) < 0);
  aloop_future_unref(future);
  assert_false(unmade.made);
  for (int i = 0; i < CHILDREN; i++) {
    assert_true(notes[i].lost && notes[i].exited);
    aloop_process_unref(notes[i].process);
  }
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
  env_loop(env, (aloop_options_t){.debug = -1});
}

IN_EVERY_WAY(debug_mode_reports_a_child_left_running) {
  env_loop(env, (aloop_options_t){.debug = 1, .slow_callback_duration = ALOOP_SECONDS(60)});
  env->reports = 0;
  notes_t notes = {.env = env};
  start_noted(&notes, "cat", NULL);
  aloop_process_unref(notes.process);
  aloop_close(env->loop);
  assert_int_equal(env->reports, 1); /* and not of its pipes */
  assert_string_equal(env->report_messages[0], "a child process was still running when its loop was closed");
  env_loop(env, (aloop_options_t){.debug = -1});
}

static void close_loop(void *arg) {
  aloop_free(arg);
}

IN_EVERY_WAY(a_fork_leaves_the_parents_children_alone) {
  notes_t notes = {.env = env};
  start_noted(&notes, "read x; exit 6", NULL);
  pid_t pid = fork();
  if (pid == 0) {
    aloop_process_unref(notes.process);
    close_loop(env->loop);
    _exit(notes.lost ? 0 : 1);
  }
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_int_equal(aloop_transport_write(aloop_process_pipe(notes.process, 0), "\n", 1), 0);
  assert_int_equal(wait_result(env, notes.process), 6);
  await_lost(&notes);
  end_notes(&notes);
}

/* ---- Failing --------------------------------------------------------------------------------------------- */

static void expect_error(env_t *env, aloop_process_options_t options, int64_t error, const char *message) {
  static const char *const argv[] = {"true", NULL};
  char text[256];
  options.size = sizeof options;
  if (options.argv == NULL) options.argv = argv;
  assert_int_equal(start_error(env, &options, text), error);
  assert_string_equal(text, message);
  await_no_process(env);
}

IN_EVERY_WAY(a_failed_start_says_what_failed) {
  expect_error(env, (aloop_process_options_t){.cwd = "/nope"}, ALOOP_ENOENT, "chdir to /nope: no such entry");
  expect_error(env, (aloop_process_options_t){.argv = (const char *const[]){"no-such-program", NULL}},
               ALOOP_ENOENT, "execute no-such-program: no such entry");
  expect_error(env, (aloop_process_options_t){.argv = (const char *const[]){"/etc/passwd", NULL}}, ALOOP_EACCES,
               "execute /etc/passwd: permission denied");
  expect_error(env, (aloop_process_options_t){.in = {ALOOP_STDIO_FD, 4000}}, ALOOP_EBADF,
               "set up stdin: bad file descriptor");
  expect_error(env, (aloop_process_options_t){.pass_fds = (int[]){4000}, .pass_fds_count = 1}, ALOOP_EBADF,
               "pass descriptor 4000: bad file descriptor");
}

static void expect_refusal(env_t *env, aloop_process_options_t options) {
  static const char *const argv[] = {"true", NULL};
  options.size = sizeof options;
  if (options.argv == NULL) options.argv = argv;
  assert_int_equal(start_error(env, &options, NULL), ALOOP_EINVAL);
}

static void options_that_make_no_sense_are_refused(void **state) {
  env_t *env = *state;
  static const char *const nothing[] = {NULL};
  expect_refusal(env, (aloop_process_options_t){.argv = nothing});
  expect_refusal(env, (aloop_process_options_t){.in = {ALOOP_STDIO_STDOUT, 0}});
  expect_refusal(env, (aloop_process_options_t){.out = {ALOOP_STDIO_STDOUT, 0}});
  expect_refusal(env, (aloop_process_options_t){.err = {7, 0}});
  expect_refusal(env, (aloop_process_options_t){.pass_fds_count = 1});
  expect_refusal(env, (aloop_process_options_t){.pass_fds = (int[]){2}, .pass_fds_count = 1});
  expect_refusal(env, (aloop_process_options_t){.process_group = -2});
  expect_refusal(env, (aloop_process_options_t){.process_group = -1, .start_new_session = true});
  expect_refusal(env, (aloop_process_options_t){.restore_signals = 1});
  expect_refusal(env, (aloop_process_options_t){.set = 64});
  expect_refusal(env, (aloop_process_options_t){.set = ALOOP_SET_GROUPS, .groups_count = 1});
  aloop_process_options_t options = plain_options();
  assert_int_equal(start_error(env, &options, NULL), ALOOP_EINVAL); /* no argv */
  options.size = 0;
  assert_int_equal(start_error(env, &options, NULL), ALOOP_EINVAL);
  assert_int_equal(start_error(env, NULL, NULL), ALOOP_EINVAL);
}

static int64_t shell_error(env_t *env, const aloop_process_protocol_t *table, const char *command,
                           const aloop_process_options_t *options) {
  aloop_future_t *future = aloop_subprocess_shell(env->loop, table, NULL, command, options);
  int64_t error = run_future(env->loop, future);
  aloop_future_unref(future);
  return error;
}

static void a_shell_needs_a_command_and_no_arguments(void **state) {
  env_t *env = *state;
  static const aloop_process_protocol_t no_size = {0};
  static const char *const argv[] = {"true", NULL};
  aloop_process_options_t options = plain_options();
  assert_int_equal(shell_error(env, NULL, NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(shell_error(env, &no_size, "true", NULL), ALOOP_EINVAL);
  options.argv = argv;
  assert_int_equal(shell_error(env, NULL, "true", &options), ALOOP_EINVAL);
  options.size = 0;
  assert_int_equal(shell_error(env, NULL, "true", &options), ALOOP_EINVAL);
}

IN_EVERY_WAY(without_descriptors_a_start_fails_and_leaves_none) {
  aloop_process_options_t options = plain_options();
  char text[256];
  options.argv = (const char *const[]){"/bin/true", NULL};
  int before = open_fds();
  use_up_fds();
  int64_t error = start_error(env, &options, text);
  restore_fd_limit();
  assert_int_equal(error, ALOOP_EMFILE);
  assert_string_equal(text, "set up stdin: too many open descriptors in this process");
  assert_int_equal(open_fds(), before);
}

static void nothing_is_asked_of_no_process(void **state) {
  (void)state;
  int code;
  assert_null(aloop_process_ref(NULL));
  aloop_process_unref(NULL);
  aloop_process_close(NULL);
  assert_true(aloop_process_is_closing(NULL));
  assert_null(aloop_process_loop(NULL));
  assert_null(aloop_process_pipe(NULL, 0));
  assert_null(aloop_process_get_protocol(NULL));
  assert_null(aloop_process_wait(NULL));
  assert_null(aloop_process_communicate(NULL, NULL, 0, 0));
  assert_int_equal(aloop_process_returncode(NULL, &code), ALOOP_EINVAL);
  assert_int_equal(aloop_process_send_signal(NULL, SIGTERM), ALOOP_EINVAL);
}

static void a_closed_loop_starts_nothing(void **state) {
  env_t *env = *state;
  aloop_close(env->loop);
  aloop_future_t *future = aloop_subprocess_shell(env->loop, NULL, NULL, "true", NULL);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
}

/* ---- Looking inside -------------------------------------------------------------------------------------- */

typedef struct search {
  const char *text;
  bool found;
} search_t;

static void look_for(void *arg, const char *line) {
  search_t *search = arg;
  search->found |= strncmp(line, search->text, strlen(search->text)) == 0;
}

IN_EVERY_WAY(the_dump_shows_processes) {
  notes_t notes = {.env = env};
  char text[96];
  start_noted(&notes, "cat", NULL);
  snprintf(text, sizeof text, "process pid %ld, running, 3 pipes open", (long)aloop_process_pid(notes.process));
  search_t search = {text, false};
  assert_int_equal(aloop_dump(env->loop, look_for, &search), 0);
  assert_true(search.found);
  aloop_process_close(notes.process);
  await_lost(&notes);
  snprintf(text, sizeof text, "process pid %ld, ended by signal 9, closing, 0 pipes open",
           (long)aloop_process_pid(notes.process));
  search = (search_t){text, false};
  assert_int_equal(aloop_dump(env->loop, look_for, &search), 0);
  assert_true(search.found);
  end_notes(&notes);
}

/* ---- Many ------------------------------------------------------------------------------------------------ */

IN_EVERY_WAY(many_children_live_side_by_side) {
  enum { CHILDREN = 200 };
  aloop_future_t *waits[CHILDREN];
  char command[64];
  for (int i = 0; i < CHILDREN; i++) {
    snprintf(command, sizeof command, "read x; exit %d", i % 100);
    aloop_process_options_t options = plain_options();
    options.out.kind = options.err.kind = ALOOP_STDIO_DEVNULL;
    aloop_process_t *process = start_plain(env, command, &options);
    waits[i] = aloop_process_wait(process);
    aloop_transport_close(aloop_process_pipe(process, 0));
    aloop_process_unref(process);
  }
  for (int i = 0; i < CHILDREN; i++) {
    assert_int_equal(run_future(env->loop, waits[i]), i % 100);
    aloop_future_unref(waits[i]);
  }
  await_no_process(env);
}

typedef struct worker {
  pthread_t thread;
  int first;
  int failures;
} worker_t;

/* Assertions of cmocka belong to the main thread. */
static void *run_children(void *arg) {
  worker_t *worker = arg;
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return NULL;
  for (int i = 0; i < 30; i++) {
    char command[32];
    int code = (worker->first + i) % 100;
    aloop_process_t *process;
    snprintf(command, sizeof command, "exit %d", code);
    if (aloop_run_until_complete_ptr(loop, aloop_subprocess_shell(loop, NULL, NULL, command, NULL), &process) <
        0) {
      worker->failures++;
      continue;
    }
    worker->failures += aloop_run_until_complete(loop, aloop_process_wait(process)) != code;
    aloop_process_unref(process);
  }
  aloop_free(loop);
  return NULL;
}

IN_EVERY_WAY(two_loops_in_two_threads_have_their_own_children) {
  worker_t workers[2] = {{.first = 0}, {.first = 50}};
  (void)env;
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&workers[i].thread, NULL, run_children, &workers[i]), 0);
  for (int i = 0; i < 2; i++) {
    pthread_join(workers[i].thread, NULL);
    assert_int_equal(workers[i].failures, 0);
  }
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

/* Every failure is ALOOP_ENOMEM, and nothing is left behind. */
static void live_once(env_t *env) {
  notes_t notes = {.env = env};
  aloop_future_t *future = aloop_subprocess_shell(env->loop, &noting_protocol, &notes, "echo x; cat", NULL);
  for (int i = 0; i < 200 && future != NULL && !aloop_future_done(future); i++) aloop_run_once(env->loop, 0);
  if (future != NULL && !aloop_future_done(future)) env->fail_from = 0;
  if (future != NULL) {
    int64_t result = run_future(env->loop, future);
    assert_true(result == 0 || result == ALOOP_ENOMEM);
  }
  aloop_future_unref(future);
  if (notes.made) {
    aloop_future_t *wait = aloop_process_wait(notes.process);
    aloop_transport_close(aloop_process_pipe(notes.process, 0));
    for (int i = 0; i < 200 && !notes.lost; i++) aloop_run_once(env->loop, ALOOP_MILLIS(1));
    env->fail_from = 0;
    await_lost(&notes);
    if (wait != NULL) assert_true(aloop_future_result(wait) == 0 || aloop_future_result(wait) == ALOOP_ENOMEM);
    aloop_future_unref(wait);
    aloop_process_unref(notes.process);
  }
  env->fail_from = 0;
  await_no_process(env);
}

static void out_of_memory_leaves_no_child(void **state) {
  for (int way = 0; way < 2; way++) { /* a thread that watches would allocate when it likes */
    use_way(way);
    torture(*state, live_once);
  }
  use_way(0);
}

TESTS(T(made_comes_first_and_lost_last), T(the_process_is_complete_when_it_is_made),
      T(an_exit_before_connection_made_is_told_after_it), T(a_child_without_pipes_has_the_same_life),
      T(a_protocol_may_be_empty), T(a_factory_may_refuse), T(bytes_go_in_and_come_out),
      T(a_child_that_does_not_read_holds_its_writer_back), T(a_child_that_closes_stdin_breaks_the_pipe),
      T(reading_can_be_paused_from_the_start), T(a_pipe_may_get_a_protocol_of_its_own),
      T(errors_may_go_where_output_goes), T(streams_may_be_descriptors_of_the_caller),
      T(streams_may_be_inherited_or_nowhere), T(wait_tells_the_exit_code_and_the_signal),
      T(several_may_wait_and_one_give_up), T(wait_does_not_wait_for_a_grandchild),
      T(signals_reach_a_running_child_only), T(a_signal_to_a_child_that_has_just_ended_is_no_error),
      T(close_kills_what_does_not_listen), T(close_does_not_wait_for_unsent_bytes),
      T(close_works_inside_callbacks), T(a_child_that_somebody_else_collected_is_reported),
      T(a_host_that_ignores_sigchld_loses_the_status_only), T(sigchld_of_the_host_is_not_touched),
      T(a_cancelled_start_leaves_no_child), T(a_process_without_references_lives_on),
      T(pipes_that_nobody_can_read_any_more_are_closed), T(a_process_outlives_its_loop_as_an_object),
      T(closing_the_loop_ends_starts_and_many_children), T(debug_mode_reports_a_child_left_running),
      T(a_fork_leaves_the_parents_children_alone), T(a_failed_start_says_what_failed),
      T(options_that_make_no_sense_are_refused), T(a_shell_needs_a_command_and_no_arguments),
      T(without_descriptors_a_start_fails_and_leaves_none), T(nothing_is_asked_of_no_process),
      T(a_closed_loop_starts_nothing), T(the_dump_shows_processes), T(many_children_live_side_by_side),
      T(two_loops_in_two_threads_have_their_own_children), T(out_of_memory_leaves_no_child))
