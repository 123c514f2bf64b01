/* SPDX-License-Identifier: MIT
 *
 * Wrong calls that start processes, and on processes: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"

#include <signal.h>
#include <unistd.h>

static const char *const cat[] = {"cat", NULL};
static const char *const nobody[] = {NULL};

/* ---- Starting -------------------------------------------------------------------------------------------- */

static aloop_future_t *start(misuse_t *m, aloop_process_options_t options, size_t size) {
  options.size = size;
  return aloop_subprocess_exec(m->loop, NULL, m, &options);
}

#define START_WITH(...) start(m, (aloop_process_options_t){__VA_ARGS__}, sizeof(aloop_process_options_t))
#define START(...) START_WITH(.argv = cat, __VA_ARGS__)

static void tables_and_sizes(misuse_t *m) {
  aloop_process_options_t options = {.size = sizeof options, .argv = cat};
  aloop_process_protocol_t unsized = {0}, partial = {.size = sizeof partial - 8};
  struct {
    aloop_process_options_t known;
    size_t unknown[2];
  } later = {{.size = sizeof later, .argv = cat}, {0, 1}};
  MISTAKE(aloop_subprocess_exec(NULL, NULL, m, &options), 0);
  MISTAKE_OF_FUTURE(aloop_subprocess_exec(m->loop, NULL, m, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_subprocess_exec(m->loop, NULL, m, &later.known), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_subprocess_exec(m->loop, &unsized, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_subprocess_exec(m->loop, &partial, m, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(start(m, options, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(start(m, options, sizeof(size_t)), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(start(m, options, sizeof options + 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(start(m, options, SIZE_MAX), ALOOP_EINVAL);
  MISTAKE(aloop_subprocess_shell(NULL, NULL, m, "true", NULL), 0);
  MISTAKE_OF_FUTURE(aloop_subprocess_shell(m->loop, NULL, m, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_subprocess_shell(m->loop, &unsized, m, "true", NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_subprocess_shell(m->loop, NULL, m, "true", &options), ALOOP_EINVAL);
  options = (aloop_process_options_t){.size = 3};
  MISTAKE_OF_FUTURE(aloop_subprocess_shell(m->loop, NULL, m, "true", &options), ALOOP_EINVAL);
}

static void options_of_processes(misuse_t *m) {
  int low[] = {2}, negative[] = {-1}, gone[] = {dup(0)};
  close(gone[0]);
  MISTAKE_OF_FUTURE(START_WITH(.argv = NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START_WITH(.argv = nobody), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.pass_fds_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.pass_fds_count = SIZE_MAX), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.pass_fds = low, .pass_fds_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.pass_fds = negative, .pass_fds_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.pass_fds = gone, .pass_fds_count = 1), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(START(.process_group = -2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.process_group = -1, .start_new_session = true), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.restore_signals = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.restore_signals = -2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.set = 16), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.set = ~0u), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.set = ALOOP_SET_GROUPS, .groups_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.in = {.kind = -1}), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.err = {.kind = 5}), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.in = {.kind = ALOOP_STDIO_STDOUT}), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.out = {.kind = ALOOP_STDIO_STDOUT}), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(START(.in = {ALOOP_STDIO_FD, -1}), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(START(.err = {ALOOP_STDIO_FD, gone[0]}), ALOOP_EBADF);
}

/* That a program is not there is for a program to find out. Its pipes end in the next turn. */
static void answers_of_the_system(misuse_t *m) {
  const char *const missing[] = {"/no/such/program", NULL};
  aloop_future_t *futures[] = {START_WITH(.argv = missing), START(.cwd = "/no/such/folder")};
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_future_result(futures[i]), ALOOP_ENOENT);
    aloop_future_unref(futures[i]);
  }
  assert_int_equal(m->env->reports, 0);
}

static void in_a_closed_loop(misuse_t *m) {
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE_OF_FUTURE(START(.cwd = "/"), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(START_WITH(.argv = nobody), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_subprocess_shell(m->loop, NULL, m, "true", NULL), ALOOP_ECLOSED);
}

/* ---- Processes ------------------------------------------------------------------------------------------- */

static void null_processes(misuse_t *m) {
  ORDINARY(aloop_process_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_process_unref(NULL));
  MISTAKE(aloop_process_loop(NULL), 0);
  MISTAKE(aloop_process_pid(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_process_returncode(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_process_pipe(NULL, 0), 0);
  MISTAKE(aloop_process_get_protocol(NULL), 0);
  MISTAKE(aloop_process_wait(NULL), 0);
  MISTAKE(aloop_process_communicate(NULL, NULL, 0, 0), 0);
  MISTAKE(aloop_process_send_signal(NULL, SIGTERM), ALOOP_EINVAL);
  MISTAKE(aloop_process_terminate(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_process_kill(NULL), ALOOP_EINVAL);
  MISTAKE_OF_VOID(aloop_process_close(NULL));
  MISTAKE(aloop_process_is_closing(NULL), true);
}

static void a_running_process(misuse_t *m) {
  aloop_process_t *process = m->arg;
  MISTAKE(aloop_process_returncode(process, NULL), ALOOP_EINVAL);
  ORDINARY(aloop_process_returncode(process, OUT), ALOOP_ENOTDONE);
  MISTAKE(aloop_process_pipe(process, -1), 0);
  MISTAKE(aloop_process_pipe(process, 3), 0);
  MISTAKE(aloop_process_pipe(process, INT32_MIN), 0);
  MISTAKE(aloop_process_send_signal(process, -1), ALOOP_EINVAL);
  MISTAKE(aloop_process_send_signal(process, INT32_MAX), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_process_communicate(process, NULL, 1, 0), ALOOP_EINVAL);
  aloop_future_t *future = aloop_process_communicate(process, "x", 1, 0);
  MISTAKE_OF_FUTURE(aloop_process_communicate(process, "x", 1, 0), ALOOP_EBUSY);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  ORDINARY(aloop_process_is_closing(process), false);
}

static void a_process_that_has_ended(misuse_t *m) {
  aloop_process_t *process = m->arg;
  MISTAKE(aloop_process_returncode(process, NULL), ALOOP_EINVAL);
  ORDINARY(aloop_process_send_signal(process, SIGTERM), ALOOP_ESRCH);
  ORDINARY(aloop_process_terminate(process), ALOOP_ESRCH);
  ORDINARY(aloop_process_kill(process), ALOOP_ESRCH);
  ORDINARY(aloop_process_pid(process) > 0, true);
  aloop_process_close(process);
  ORDINARY_OF_VOID(aloop_process_close(process));
  ORDINARY(aloop_process_is_closing(process), true);
  ORDINARY(aloop_process_loop(process) == m->loop, true);
}

static void a_process_of_a_closed_loop(misuse_t *m) {
  a_process_that_has_ended(m);
  MISTAKE_OF_FUTURE(aloop_process_wait(m->arg), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_process_communicate(m->arg, NULL, 0, 0), ALOOP_ECLOSED);
}

static void a_process_with_a_protocol(misuse_t *m) {
  MISTAKE_OF_FUTURE(aloop_process_communicate(m->arg, NULL, 0, 0), ALOOP_EBUSY);
}

static void a_process_without_stdin(misuse_t *m) {
  MISTAKE_OF_FUTURE(aloop_process_communicate(m->arg, "x", 1, 0), ALOOP_EINVAL);
  ORDINARY(aloop_process_pipe(m->arg, 0), 0);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

#define REFUSED(call) MISTAKE(call, ALOOP_ENOTLOOPTHREAD)

static void calls_of_another_thread(misuse_t *m) {
  aloop_process_t *process = m->arg;
  MISTAKE(START(.cwd = "/"), 0);
  MISTAKE(aloop_subprocess_shell(m->loop, NULL, m, "true", NULL), 0);
  MISTAKE(aloop_process_ref(process), 0);
  MISTAKE_OF_VOID(aloop_process_unref(process));
  MISTAKE(aloop_process_loop(process), 0);
  REFUSED(aloop_process_pid(process));
  REFUSED(aloop_process_returncode(process, OUT));
  MISTAKE(aloop_process_pipe(process, 0), 0);
  MISTAKE(aloop_process_get_protocol(process), 0);
  MISTAKE(aloop_process_wait(process), 0);
  MISTAKE(aloop_process_communicate(process, NULL, 0, 0), 0);
  REFUSED(aloop_process_send_signal(process, SIGTERM));
  REFUSED(aloop_process_terminate(process));
  REFUSED(aloop_process_kill(process));
  MISTAKE_OF_VOID(aloop_process_close(process));
  MISTAKE(aloop_process_is_closing(process), true);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void wrong_tables_and_sizes(void **state) {
  in_both_modes(*state, tables_and_sizes);
}

static void wrong_options(void **state) {
  in_both_modes(*state, options_of_processes);
  in_both_modes(*state, answers_of_the_system);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, in_a_closed_loop);
}

static void processes_that_are_null(void **state) {
  in_both_modes(*state, null_processes);
}

/* A child that waits for its stdin, or one that ends at once. */
static void begin(misuse_t *m, env_t *env, bool debug, const aloop_process_protocol_t *protocol, int in) {
  aloop_process_options_t options = {.size = sizeof options, .argv = cat, .in = {.kind = in}};
  aloop_process_t *process = NULL;
  misuse_begin(m, env, debug);
  aloop_future_t *future = aloop_subprocess_exec(m->loop, protocol, m, &options);
  assert_int_equal(run_future(m->loop, future), 0);
  assert_int_equal(aloop_future_take_ptr(future, &process), 0);
  aloop_future_unref(future);
  m->arg = process;
}

static void await_end(misuse_t *m) {
  aloop_future_t *future = aloop_process_wait(m->arg);
  assert_true(run_future(m->loop, future) >= 0);
  aloop_future_unref(future);
}

static void end(misuse_t *m) {
  aloop_process_close(m->arg);
  await_end(m);
  aloop_process_unref(m->arg);
  misuse_end(m);
}

static void running_processes(void **state) {
  misuse_t m;
  for (int debug = 0; debug < 2; debug++) {
    begin(&m, *state, debug, NULL, ALOOP_STDIO_PIPE);
    misuse_in_callback(&m, a_running_process);
    end(&m);
  }
}

static void processes_that_have_ended(void **state) {
  misuse_t m;
  for (int debug = 0; debug < 2; debug++) {
    begin(&m, *state, debug, NULL, ALOOP_STDIO_DEVNULL);
    await_end(&m);
    misuse_in_callback(&m, a_process_that_has_ended);
    end(&m);
  }
}

static void processes_of_closed_loops(void **state) {
  misuse_t m;
  for (int debug = 0; debug < 2; debug++) {
    begin(&m, *state, debug, NULL, ALOOP_STDIO_PIPE);
    assert_int_equal(aloop_close(m.loop), 0);
    a_process_of_a_closed_loop(&m);
    aloop_process_unref(m.arg);
    misuse_end(&m);
  }
}

static void who_gets_the_output(void **state) {
  static const aloop_process_protocol_t protocol = {.size = sizeof protocol};
  misuse_t m;
  for (int debug = 0; debug < 2; debug++) {
    begin(&m, *state, debug, &protocol, ALOOP_STDIO_PIPE);
    misuse_in_callback(&m, a_process_with_a_protocol);
    end(&m);
    begin(&m, *state, debug, NULL, ALOOP_STDIO_DEVNULL);
    misuse_in_callback(&m, a_process_without_stdin);
    end(&m);
  }
}

static void another_thread(void **state) {
  misuse_t m;
  begin(&m, *state, true, NULL, ALOOP_STDIO_PIPE);
  misuse_in_thread(&m, calls_of_another_thread);
  end(&m);
}

TESTS(T(wrong_tables_and_sizes), T(wrong_options), T(closed_loops), T(processes_that_are_null),
      T(running_processes), T(processes_that_have_ended), T(processes_of_closed_loops), T(who_gets_the_output),
      T(another_thread))
