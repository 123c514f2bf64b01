/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * The process's table of signals: what it does to dispositions, how it lives with others who set them, and that
 * handlers at work in other threads are safe from whoever removes and closes meanwhile.
 */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process/sigtable.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

static void count(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum;
  ++*(int *)arg;
}

static void ignore(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum, (void)arg;
}

static void two_turns(aloop_t *loop) {
  run_turn(loop);
  run_turn(loop);
}

static struct sigaction disposition(int signum) {
  struct sigaction action;
  assert_int_equal(sigaction(signum, NULL, &action), 0);
  return action;
}

static void set_handler(int signum, void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  assert_int_equal(sigaction(signum, &action, NULL), 0);
}

/* Another loop of the same thread. */
static aloop_t *second_loop(env_t *env) {
  aloop_t *loop;
  aloop_options_t options = {.size = sizeof options, .allocator = &env->allocator, .debug = -1};
  assert_int_equal(aloop_new(&options, &loop), 0);
  return loop;
}

/* ---- What was there before ------------------------------------------------------------------------------- */

static volatile sig_atomic_t earlier_calls;
static volatile sig_atomic_t earlier_value;
static volatile sig_atomic_t earlier_blocked; /* bits: SIGUSR2, SIGHUP, SIGUSR1 blocked while it ran */

static void note_call(int signum) {
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  earlier_blocked = sigismember(&mask, SIGUSR2) | sigismember(&mask, SIGHUP) << 1;
  earlier_blocked |= sigismember(&mask, signum) << 2;
  earlier_calls++;
  errno = EDOM;
}

static void note_info(int signum, siginfo_t *info, void *context) {
  note_call(signum);
  earlier_value = info != NULL && info->si_signo == signum && context != NULL ? info->si_value.sival_int : -1;
}

static void reset_notes(void) {
  earlier_calls = earlier_value = earlier_blocked = 0;
}

static void assert_same(const struct sigaction *one, const struct sigaction *other) {
  assert_int_equal(one->sa_flags, other->sa_flags);
  assert_ptr_equal(one->sa_handler, other->sa_handler);
  for (int i = 1; i < 32; i++) assert_int_equal(sigismember(&one->sa_mask, i), sigismember(&other->sa_mask, i));
}

static void what_was_there_before_comes_back_exactly(void **state) {
  env_t *env = *state;
  struct sigaction befores[4] = {
      {.sa_handler = SIG_DFL},
      {.sa_handler = SIG_IGN},
      {.sa_handler = note_call, .sa_flags = SA_NODEFER | (int)SA_RESETHAND},
      {.sa_sigaction = note_info, .sa_flags = SA_SIGINFO | SA_ONSTACK},
  };
  sigaddset(&befores[2].sa_mask, SIGUSR2);
  sigaddset(&befores[3].sa_mask, SIGHUP);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(sigaction(SIGUSR1, &befores[i], NULL), 0);
    struct sigaction before = disposition(SIGUSR1);
    aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
    struct sigaction during = disposition(SIGUSR1);
    assert_true(during.sa_sigaction != before.sa_sigaction);
    aloop_remove_signal_handler(env->loop, SIGUSR1, ignore, NULL);
    struct sigaction after = disposition(SIGUSR1);
    assert_same(&before, &after);
  }
  signal(SIGUSR1, SIG_DFL);
}

static void closing_the_loop_restores_too(void **state) {
  env_t *env = *state;
  signal(SIGUSR1, SIG_IGN);
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
  aloop_add_signal_handler(env->loop, SIGUSR2, ignore, NULL, 0);
  aloop_close(env->loop);
  assert_ptr_equal(disposition(SIGUSR1).sa_handler, SIG_IGN);
  assert_ptr_equal(disposition(SIGUSR2).sa_handler, SIG_DFL);
  signal(SIGUSR1, SIG_DFL);
}

static void only_the_last_of_all_loops_restores(void **state) {
  env_t *env = *state;
  int calls[2] = {0};
  aloop_t *other = second_loop(env);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls[0], 0);
  aloop_add_signal_handler(other, SIGUSR1, count, &calls[1], 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  two_turns(other);
  aloop_close(env->loop);
  raise(SIGUSR1);
  two_turns(other);
  assert_int_equal(calls[0], 1);
  assert_int_equal(calls[1], 2);
  aloop_free(other);
  assert_ptr_equal(disposition(SIGUSR1).sa_handler, SIG_DFL);
}

static void nothing_is_installed_that_nobody_asked_for(void **state) {
  env_t *env = *state;
  struct sigaction before[32], after;
  for (int i = 1; i < 32; i++) before[i] = disposition(i);
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
  for (int i = 1; i < 32; i++) {
    after = disposition(i);
    if (i != SIGUSR1) assert_same(&before[i], &after);
  }
}

static void children_become_zombies_or_not_as_before(void **state) {
  env_t *env = *state;
  set_handler(SIGCHLD, SIG_DFL, SA_NOCLDWAIT);
  aloop_add_signal_handler(env->loop, SIGCHLD, ignore, NULL, 0);
  assert_true(disposition(SIGCHLD).sa_flags & SA_NOCLDWAIT);
  aloop_remove_signal_handler(env->loop, SIGCHLD, ignore, NULL);
  set_handler(SIGCHLD, SIG_DFL, 0);
  aloop_add_signal_handler(env->loop, SIGCHLD, ignore, NULL, 0);
  assert_false(disposition(SIGCHLD).sa_flags & SA_NOCLDWAIT);
}

/* ---- Chaining -------------------------------------------------------------------------------------------- */

static void what_was_there_before_is_called_only_if_asked_for(void **state) {
  env_t *env = *state;
  int calls = 0;
  reset_notes();
  set_handler(SIGUSR1, note_call, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, ALOOP_SIGNAL_CHAIN);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 1); /* at once, inside the signal handler */
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 1);
  two_turns(env->loop);
  assert_int_equal(calls, 1);
  aloop_close(env->loop);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 2);
  signal(SIGUSR1, SIG_DFL);
}

static void one_of_many_handlers_is_enough_to_chain(void **state) {
  env_t *env = *state;
  aloop_t *other = second_loop(env);
  reset_notes();
  set_handler(SIGUSR1, note_call, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
  aloop_add_signal_handler(other, SIGUSR1, ignore, NULL, 0);
  aloop_add_signal_handler(other, SIGUSR1, ignore, env, ALOOP_SIGNAL_CHAIN);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 1);
  aloop_remove_signal_handler(other, SIGUSR1, ignore, env);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 1);
  aloop_add_signal_handler(other, SIGUSR1, ignore, env, ALOOP_SIGNAL_CHAIN);
  aloop_free(other);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 1);
  aloop_close(env->loop);
  signal(SIGUSR1, SIG_DFL);
}

static void the_chain_has_siginfo_mask_and_errno(void **state) {
  env_t *env = *state;
  struct sigaction before = {.sa_sigaction = note_info, .sa_flags = SA_SIGINFO};
  union sigval value = {.sival_int = 42};
  reset_notes();
  sigaddset(&before.sa_mask, SIGUSR2);
  sigaction(SIGUSR1, &before, NULL);
  raise(SIGUSR1);
  int blocked = earlier_blocked;
  assert_int_equal(blocked & 5, 5);
  reset_notes();
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, ALOOP_SIGNAL_CHAIN);
#ifdef __linux__
  assert_int_equal(sigqueue(getpid(), SIGUSR1, value), 0);
  while (earlier_calls == 0) poll(NULL, 0, 1);
  assert_int_equal(earlier_value, 42);
#else
  (void)value;
  raise(SIGUSR1);
#endif
  assert_int_equal(earlier_calls, 1);
  assert_int_equal(earlier_blocked, blocked); /* as without us */
  errno = EIO;
  raise(SIGUSR1);
  assert_int_equal(errno, EIO);
  aloop_close(env->loop);
  signal(SIGUSR1, SIG_DFL);
}

static void ignored_and_default_signals_chain_to_nothing(void **state) {
  env_t *env = *state;
  int calls = 0;
  signal(SIGUSR1, SIG_IGN);
  signal(SIGTERM, SIG_DFL);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, ALOOP_SIGNAL_CHAIN);
  aloop_add_signal_handler(env->loop, SIGTERM, count, &calls, ALOOP_SIGNAL_CHAIN);
  raise(SIGUSR1);
  raise(SIGTERM);
  two_turns(env->loop);
  assert_int_equal(calls, 2);
  aloop_close(env->loop);
  signal(SIGUSR1, SIG_DFL);
}

static void a_handler_for_one_time_is_called_one_time(void **state) {
  env_t *env = *state;
  reset_notes();
  set_handler(SIGUSR1, note_call, (int)SA_RESETHAND);
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, ALOOP_SIGNAL_CHAIN);
  raise(SIGUSR1);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 1);
  aloop_close(env->loop);
  assert_ptr_equal(disposition(SIGUSR1).sa_handler, SIG_DFL);
}

static sigjmp_buf landing;

static void jump(int signum) {
  siglongjmp(landing, signum);
}

static void what_was_there_before_may_jump_away(void **state) {
  env_t *env = *state;
  int calls = 0;
  volatile int jumps = 0;
  set_handler(SIGUSR1, jump, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, ALOOP_SIGNAL_CHAIN);
  if (sigsetjmp(landing, 1) != 0) jumps = jumps + 1;
  if (jumps < 3) raise(SIGUSR1);
  assert_int_equal(jumps, 3);
  two_turns(env->loop);
  assert_int_equal(calls, 1);
  aloop_close(env->loop); /* waits for no handler that never came back */
  signal(SIGUSR1, SIG_DFL);
}

/* ---- Others who set dispositions ------------------------------------------------------------------------- */

static struct sigaction beneath; /* what the other one found, and passes signals on to */
static volatile sig_atomic_t over_calls;

static void pass_on(int signum, siginfo_t *info, void *context) {
  over_calls++;
  if (beneath.sa_flags & SA_SIGINFO) beneath.sa_sigaction(signum, info, context);
}

static void install_over(int signum) {
  struct sigaction action = {.sa_sigaction = pass_on, .sa_flags = SA_SIGINFO};
  over_calls = 0;
  assert_int_equal(sigaction(signum, &action, &beneath), 0);
}

static void what_others_put_over_ours_stays(void **state) {
  env_t *env = *state;
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
  signal(SIGUSR1, SIG_IGN);
  aloop_remove_signal_handler(env->loop, SIGUSR1, ignore, NULL);
  assert_ptr_equal(disposition(SIGUSR1).sa_handler, SIG_IGN);
  signal(SIGUSR1, SIG_DFL);
}

static void adding_goes_over_what_others_put_there(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  set_handler(SIGUSR1, note_call, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0); /* nothing new: it stays beneath */
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(calls, 0);
  aloop_remove_signal_handler(env->loop, SIGUSR1, count, &calls);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(calls, 1);
  aloop_close(env->loop);
  assert_ptr_equal(disposition(SIGUSR1).sa_handler, note_call);
  signal(SIGUSR1, SIG_DFL);
}

static void who_passes_on_to_ours_is_served_and_left_alone(void **state) {
  env_t *env = *state;
  int calls = 0;
  reset_notes();
  set_handler(SIGUSR1, note_call, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  install_over(SIGUSR1);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(over_calls, 1);
  assert_int_equal(calls, 1);
  assert_int_equal(earlier_calls, 0);
  aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL);
  raise(SIGUSR1); /* goes through us, as if we were not there */
  assert_int_equal(over_calls, 2);
  assert_int_equal(earlier_calls, 1);
  signal(SIGUSR1, SIG_DFL);
}

static void a_chain_that_leads_back_here_is_not_endless(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, ALOOP_SIGNAL_CHAIN);
  install_over(SIGUSR1);
  aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, ALOOP_SIGNAL_CHAIN);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(calls, 1);
  aloop_close(env->loop);
  assert_ptr_equal(disposition(SIGUSR1).sa_sigaction, pass_on);
  raise(SIGUSR1);
  signal(SIGUSR1, SIG_DFL);
}

/* As a second copy of the library in the process would do that ends after us. */
static void ours_put_back_by_others_serves_again(void **state) {
  env_t *env = *state;
  int calls = 0;
  reset_notes();
  set_handler(SIGUSR1, note_call, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  install_over(SIGUSR1);
  aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL);
  sigaction(SIGUSR1, &beneath, NULL);
  raise(SIGUSR1);
  assert_int_equal(earlier_calls, 1);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, ALOOP_SIGNAL_CHAIN);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(calls, 1);
  assert_int_equal(earlier_calls, 2);
  aloop_close(env->loop);
  assert_ptr_equal(disposition(SIGUSR1).sa_handler, note_call);
  signal(SIGUSR1, SIG_DFL);
}

/* ---- What others notice of the handler ------------------------------------------------------------------- */

static void errno_is_left_alone(void **state) {
  env_t *env = *state;
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
  errno = EDOM;
  raise(SIGUSR1);
  assert_int_equal(errno, EDOM);
}

static void the_signal_mask_is_left_alone(void **state) {
  env_t *env = *state;
  sigset_t before, after;
  pthread_sigmask(SIG_BLOCK, NULL, &before);
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  aloop_close(env->loop);
  pthread_sigmask(SIG_BLOCK, NULL, &after);
  for (int i = 1; i < 32; i++) assert_int_equal(sigismember(&before, i), sigismember(&after, i));
}

typedef struct helper {
  pthread_t thread;
  int fds[2];
  atomic_int state;
  atomic_int ends;
  ssize_t result;
  int error;
} helper_t;

static void *read_blocking(void *arg) {
  helper_t *helper = arg;
  char byte;
  atomic_store(&helper->state, 1);
  helper->result = read(helper->fds[0], &byte, 1);
  helper->error = errno;
  return NULL;
}

static void sleep_a_moment(void) {
  poll(NULL, 0, 2);
}

/* SA_RESTART. Whether the thread is inside the call by then is up to the kernel; a hundred signals will find it
 * there. */
static void a_blocking_call_in_another_thread_is_restarted(void **state) {
  env_t *env = *state;
  int calls = 0;
  helper_t helper = {0};
  assert_int_equal(pipe(helper.fds), 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  assert_int_equal(pthread_create(&helper.thread, NULL, read_blocking, &helper), 0);
  while (atomic_load(&helper.state) == 0) sleep_a_moment();
  for (int i = 0; i < 100; i++) {
    pthread_kill(helper.thread, SIGUSR1);
    if (i % 10 == 0) sleep_a_moment();
  }
  assert_int_equal(write(helper.fds[1], "x", 1), 1);
  pthread_join(helper.thread, NULL);
  assert_int_equal(helper.result, 1);
  two_turns(env->loop);
  assert_int_equal(calls, 1);
  close(helper.fds[0]);
  close(helper.fds[1]);
}

enum { STACK = 256 * 1024 };
static char *stack_bottom;
static atomic_int on_stack;

static void look_where(int signum) {
  stack_t now;
  (void)signum;
  atomic_store(&on_stack, sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_ONSTACK) ? 1 : 2);
}

static void *raise_on_stack(void *arg) {
  stack_t stack = {.ss_sp = stack_bottom, .ss_size = STACK}, none = {.ss_flags = SS_DISABLE};
  if (sigaltstack(&stack, NULL) < 0) return arg;
  raise(SIGUSR1);
  sigaltstack(&none, NULL);
  return NULL;
}

static void the_handler_runs_on_the_alternate_stack(void **state) {
  env_t *env = *state;
  pthread_t thread;
  void *failed;
  stack_bottom = malloc(STACK);
  assert_non_null(stack_bottom);
  set_handler(SIGUSR1, look_where, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, ignore, NULL, ALOOP_SIGNAL_CHAIN);
  assert_int_equal(pthread_create(&thread, NULL, raise_on_stack, env), 0);
  pthread_join(thread, &failed);
  assert_null(failed);
  aloop_close(env->loop);
  signal(SIGUSR1, SIG_DFL);
  free(stack_bottom);
  assert_int_equal(atomic_load(&on_stack), 1);
}

static void *be_cancelled_later(void *arg) {
  helper_t *helper = arg;
  atomic_store(&helper->state, 1);
  while (atomic_load(&helper->state) == 1) continue;
  raise(SIGUSR1);
  atomic_store(&helper->state, 3); /* got here: was not cancelled inside the handler */
  pthread_testcancel();
  return NULL;
}

/* write is a cancellation point: a thread that ended there would never be counted down. */
static void a_thread_about_to_be_cancelled_may_handle_signals(void **state) {
  env_t *env = *state;
  int calls = 0;
  helper_t helper = {0};
  void *result;
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  assert_int_equal(pthread_create(&helper.thread, NULL, be_cancelled_later, &helper), 0);
  while (atomic_load(&helper.state) == 0) sleep_a_moment();
  pthread_cancel(helper.thread);
  atomic_store(&helper.state, 2);
  pthread_join(helper.thread, &result);
  assert_ptr_equal(result, PTHREAD_CANCELED);
  assert_int_equal(atomic_load(&helper.state), 3);
  two_turns(env->loop);
  assert_int_equal(calls, 1);
}

/* ---- Threads and forks ----------------------------------------------------------------------------------- */

static void *raise_all_the_time(void *arg) {
  helper_t *helper = arg;
  for (int i = 0; !atomic_load(&helper->ends); i++) raise(i & 1 ? SIGUSR1 : SIGUSR2);
  return NULL;
}

static void start_raising(helper_t *helpers, int n) {
  for (int i = 0; i < n; i++)
    assert_int_equal(pthread_create(&helpers[i].thread, NULL, raise_all_the_time, &helpers[i]), 0);
}

static void end_raising(helper_t *helpers, int n) {
  for (int i = 0; i < n; i++) {
    atomic_store(&helpers[i].ends, 1);
    pthread_join(helpers[i].thread, NULL);
  }
}

enum { RAISERS = 3, ROUNDS = 300 };

/* What a handler looks at must not be released under it: the sanitizers would see it. */
static void loops_come_and_go_while_handlers_are_at_work(void **state) {
  env_t *env = *state;
  helper_t helpers[RAISERS] = {{0}};
  signal(SIGUSR1, SIG_IGN);
  signal(SIGUSR2, SIG_IGN);
  start_raising(helpers, RAISERS);
  int calls = 0;
  for (int i = 0; i < ROUNDS; i++) {
    aloop_t *one = second_loop(env), *other = second_loop(env);
    aloop_add_signal_handler(one, SIGUSR1, count, &calls, i & 1 ? ALOOP_SIGNAL_CHAIN : 0);
    aloop_add_signal_handler(other, SIGUSR1, count, &calls, 0);
    aloop_add_signal_handler(other, SIGUSR2, count, &calls, 0);
    raise(SIGUSR2);
    two_turns(other);
    aloop_remove_signal_handler(other, SIGUSR1, NULL, NULL);
    two_turns(one);
    aloop_free(i & 2 ? one : other);
    aloop_free(i & 2 ? other : one);
  }
  end_raising(helpers, RAISERS);
  assert_true(calls >= ROUNDS);
  assert_ptr_equal(disposition(SIGUSR1).sa_handler, SIG_IGN);
  signal(SIGUSR1, SIG_DFL);
  signal(SIGUSR2, SIG_DFL);
}

static void *come_and_go(void *arg) {
  helper_t *helper = arg;
  aloop_t *loop;
  int calls = 0;
  if (aloop_new(NULL, &loop) < 0) return arg;
  while (!atomic_load(&helper->ends)) {
    if (aloop_add_signal_handler(loop, SIGUSR1, count, &calls, 0) < 0) helper->error = 1;
    if (aloop_remove_signal_handler(loop, SIGUSR1, count, &calls) != 1) helper->error = 2;
  }
  aloop_free(loop);
  return NULL;
}

static int use_table(env_t *env) {
  int calls = 0;
  if (aloop_after_fork(env->loop) < 0) return 1;
  if (aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0) < 0) return 2;
  raise(SIGUSR1);
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  if (calls != 1) return 3;
  return aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL) == 1 ? 0 : 4;
}

/* Whatever other threads were at, the child can use the table. Not so malloc of the address sanitizer, whose lock
 * another thread may have held. */
static void a_fork_finds_the_table_whole(void **state) {
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
  skip();
#endif
  env_t *env = *state;
  helper_t changers[2] = {{0}}, raiser[1] = {{0}};
  signal(SIGUSR1, SIG_IGN);
  signal(SIGUSR2, SIG_IGN);
  for (int i = 0; i < 2; i++)
    assert_int_equal(pthread_create(&changers[i].thread, NULL, come_and_go, &changers[i]), 0);
  start_raising(raiser, 1);
  for (int i = 0; i < 100; i++) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(use_table(env));
    int status;
    while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
  }
  end_raising(raiser, 1);
  for (int i = 0; i < 2; i++) {
    atomic_store(&changers[i].ends, 1);
    pthread_join(changers[i].thread, NULL);
    assert_int_equal(changers[i].error, 0);
  }
  signal(SIGUSR1, SIG_DFL);
  signal(SIGUSR2, SIG_DFL);
}

/* A child that shares our memory until it execs. What it hears is its own affair. */
static void a_signal_of_a_vforked_child_is_not_ours(void **state) {
#if defined(__linux__) && !defined(__SANITIZE_THREAD__) && !__has_feature(thread_sanitizer)
  env_t *env = *state;
  int calls = 0, status;
  aloop_add_signal_handler(env->loop, SIGUSR1, count, &calls, 0);
  pid_t pid = vfork();
  if (pid == 0) {
    kill(getpid(), SIGUSR1); /* raise may look up the thread's number in memory that is the parent's */
    _exit(0);
  }
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  two_turns(env->loop);
  assert_int_equal(calls, 0);
#else
  (void)state;
  skip();
#endif
}

/* ---- Numbers --------------------------------------------------------------------------------------------- */

static void every_signal_but_two_and_the_c_librarys_own_can_be_caught(void **state) {
  (void)state;
  for (int i = 1; i < 32; i++) assert_int_equal(aloop__sigtable_catchable(i), i != SIGKILL && i != SIGSTOP);
#ifdef SIGRTMIN
  for (int i = 32; i < SIGRTMIN; i++) assert_false(aloop__sigtable_catchable(i));
  for (int i = SIGRTMIN; i <= SIGRTMAX; i++) assert_true(aloop__sigtable_catchable(i));
#endif
  assert_false(aloop__sigtable_catchable(0));
  assert_false(aloop__sigtable_catchable(-1));
  assert_false(aloop__sigtable_catchable(ALOOP__SIGNALS));
}

TESTS(T(what_was_there_before_comes_back_exactly), T(closing_the_loop_restores_too),
      T(only_the_last_of_all_loops_restores), T(nothing_is_installed_that_nobody_asked_for),
      T(children_become_zombies_or_not_as_before), T(what_was_there_before_is_called_only_if_asked_for),
      T(one_of_many_handlers_is_enough_to_chain), T(the_chain_has_siginfo_mask_and_errno),
      T(ignored_and_default_signals_chain_to_nothing), T(a_handler_for_one_time_is_called_one_time),
      T(what_was_there_before_may_jump_away), T(what_others_put_over_ours_stays),
      T(adding_goes_over_what_others_put_there), T(who_passes_on_to_ours_is_served_and_left_alone),
      T(a_chain_that_leads_back_here_is_not_endless), T(ours_put_back_by_others_serves_again),
      T(errno_is_left_alone), T(the_signal_mask_is_left_alone),
      T(a_blocking_call_in_another_thread_is_restarted), T(the_handler_runs_on_the_alternate_stack),
      T(a_thread_about_to_be_cancelled_may_handle_signals), T(loops_come_and_go_while_handlers_are_at_work),
      T(a_fork_finds_the_table_whole), T(a_signal_of_a_vforked_child_is_not_ours),
      T(every_signal_but_two_and_the_c_librarys_own_can_be_caught))
