/* SPDX-License-Identifier: MIT
 *
 * Overflows of stacks: debug mode tells them from other crashes, and leaves the process as it was. What crashes does so
 * in a child process.
 */
#include "harness.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "task/overflow.h"

typedef struct crash {
  char text[4096]; /* what it wrote to stderr */
  int status;
} crash_t;

/* Runs the task in a child until that has ended. */
static crash_t crash(void (*prepare)(void), bool debug, aloop_task_fn fn) {
  crash_t result = {.status = -1};
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  if (child == 0) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    dup2(ends[1], STDERR_FILENO);
    signal(SIGSEGV, SIG_DFL); /* not as cmocka has it */
    signal(SIGBUS, SIG_DFL);
    if (prepare != NULL) prepare();
    aloop_t *loop;
    aloop_options_t options = {.size = sizeof options, .debug = debug ? 1 : -1};
    aloop_task_options_t named = {.size = sizeof named, .name = "deep one", .stack_size = 65536};
    if (aloop_new(&options, &loop) == 0)
      aloop_run_until_complete(loop, aloop_create_task(loop, fn, NULL, &named));
    _exit(0);
  }
  close(ends[1]);
  size_t used = 0;
  for (ssize_t got; (got = read(ends[0], result.text + used, sizeof result.text - 1 - used)) > 0;)
    used += (size_t)got;
  close(ends[0]);
  assert_int_equal(waitpid(child, &result.status, 0), child);
  return result;
}

static int recurse(int depth) {
  volatile char frame[256];
  memset((char *)frame, depth & 1, sizeof frame);
  return depth == 0 ? frame[0] : recurse(depth - 1) + frame[255];
}

static int64_t go_deep(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return recurse(1000000);
}

static char *volatile nowhere = (char *)64;

static int64_t write_nowhere(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  *nowhere = 1;
  return 0;
}

static const char line[] =
    "aloop: deep one overflowed its stack of 65536 bytes; see stack_size in aloop_task_options_t\n";

static bool died_of_a_fault(const crash_t *result) {
  return WIFSIGNALED(result->status) &&
         (WTERMSIG(result->status) == SIGSEGV || WTERMSIG(result->status) == SIGBUS);
}

static void debug_mode_names_the_task(void **state) {
  (void)state;
  crash_t result = crash(NULL, true, go_deep);
  assert_non_null(strstr(result.text, line));
  assert_true(died_of_a_fault(&result));
}

static void without_it_nothing_is_said(void **state) {
  (void)state;
  crash_t result = crash(NULL, false, go_deep);
  assert_null(strstr(result.text, "aloop: "));
  assert_true(died_of_a_fault(&result));
}

static void other_faults_are_not_named(void **state) {
  (void)state;
  crash_t result = crash(NULL, true, write_nowhere);
  assert_null(strstr(result.text, "aloop: "));
  assert_true(died_of_a_fault(&result));
}

static void exit_with_42(int number) {
  (void)number;
  _exit(42);
}

static void exit_with_43(int number, siginfo_t *info, void *context) {
  (void)number, (void)context;
  _exit(info->si_addr != NULL ? 43 : 44);
}

static void handle_plainly(void) {
  struct sigaction action = {.sa_handler = exit_with_42};
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
}

static void handle_with_details(void) {
  struct sigaction action = {.sa_sigaction = exit_with_43, .sa_flags = SA_SIGINFO};
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
}

static void the_handler_of_before_is_called(void **state) {
  (void)state;
  crash_t result = crash(handle_plainly, true, go_deep);
  assert_string_equal(result.text, line);
  assert_true(WIFEXITED(result.status) && WEXITSTATUS(result.status) == 42);
  result = crash(handle_with_details, true, go_deep);
  assert_string_equal(result.text, line);
  assert_true(WIFEXITED(result.status) && WEXITSTATUS(result.status) == 43);
}

static int64_t send_one(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return kill(getpid(), SIGSEGV);
}

static void a_signal_that_was_sent_does_what_it_did(void **state) {
  (void)state;
  crash_t result = crash(NULL, true, send_one);
  assert_null(strstr(result.text, "aloop: "));
  assert_true(died_of_a_fault(&result));
  result = crash(handle_plainly, true, send_one);
  assert_true(WIFEXITED(result.status) && WEXITSTATUS(result.status) == 42);
}

static void the_last_one_restores_what_was_there(void **state) {
  (void)state;
  struct sigaction before, now;
  stack_t stack_before, stack_now;
  sigaction(SIGSEGV, NULL, &before);
  sigaltstack(NULL, &stack_before);
  aloop__overflow_t one = {.on = false}, two = {.on = false};
  aloop__overflow_watch(&one);
  aloop__overflow_watch(&two);
  assert_true(one.on && two.on);
  sigaction(SIGSEGV, NULL, &now);
  assert_true(now.sa_flags & SA_ONSTACK);
  aloop__overflow_unwatch(&two);
  aloop__overflow_unwatch(&two);
  sigaction(SIGSEGV, NULL, &now);
  assert_true(now.sa_flags & SA_ONSTACK);
  aloop__overflow_unwatch(&one);
  sigaction(SIGSEGV, NULL, &now);
  sigaltstack(NULL, &stack_now);
  assert_true(now.sa_handler == before.sa_handler && now.sa_flags == before.sa_flags);
  assert_int_equal(stack_now.ss_flags, stack_before.ss_flags);
}

static void a_handler_that_came_later_stays(void **state) {
  (void)state;
  struct sigaction before, mine = {.sa_handler = exit_with_42}, now;
  sigaction(SIGSEGV, NULL, &before);
  aloop__overflow_t one = {.on = false};
  aloop__overflow_watch(&one);
  sigaction(SIGSEGV, &mine, NULL);
  aloop__overflow_unwatch(&one);
  sigaction(SIGSEGV, NULL, &now);
  assert_true(now.sa_handler == exit_with_42);
  sigaction(SIGSEGV, &before, NULL);
}

static void a_long_name_is_cut(void **state) {
  env_t *env = *state;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, env->loop);
  aloop__stack_t *stack;
  assert_int_equal(aloop__stacks_take(&stacks, 0, &stack), 0);
  char name[300], text[400];
  memset(name, 'x', sizeof name);
  name[sizeof name - 1] = '\0';
  stack->label = name;
  size_t size = aloop__overflow_describe(stack, text, 240);
  assert_true(size < 240 && text[size - 1] == '\n');
  assert_int_equal(aloop__overflow_describe(stack, text, 10), 9);
  stack->label = NULL;
  text[aloop__overflow_describe(stack, text, 240)] = '\0';
  assert_non_null(strstr(text, "a task overflowed its stack of 262144 bytes"));
  aloop__stacks_give(&stacks, stack);
  aloop__stacks_close(&stacks);
}

TESTS(T(debug_mode_names_the_task), T(without_it_nothing_is_said), T(other_faults_are_not_named),
      T(the_handler_of_before_is_called), T(a_signal_that_was_sent_does_what_it_did),
      T(the_last_one_restores_what_was_there), T(a_handler_that_came_later_stays), T(a_long_name_is_cut))
