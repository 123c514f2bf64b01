/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 * threads: yes
 *
 * Signals of a loop: that its handlers are called, how often, in which order and with what, and that nothing of
 * it is left. What happens to the process's dispositions is in test_sigtable.c.
 */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOPS = 8, STORM = 100000 };

typedef struct heard {
  int calls;
  int last; /* signal */
  bool rang;
} heard_t;

static void hear(aloop_t *loop, int signum, void *arg) {
  (void)loop;
  heard_t *heard = arg;
  heard->calls++;
  heard->last = signum;
  heard->rang = true;
}

static void step(aloop_t *loop, int signum, void *arg) {
  (void)signum;
  trace_step(loop, arg);
}

/* Reads what arrived, and makes the calls. */
static void two_turns(aloop_t *loop) {
  run_turn(loop);
  run_turn(loop);
}

/* ---- One thread ------------------------------------------------------------------------------------------ */

static void a_handler_is_called_in_the_turn_after_the_wake_up(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0), 0);
  raise(SIGUSR1);
  assert_int_equal(heard.calls, 0);
  assert_int_equal(run_turn(env->loop), 0); /* the wake-up is read, which is no callback; */
  assert_int_equal(heard.calls, 0);
  assert_int_equal(run_turn(env->loop), 1); /* the call is made */
  assert_int_equal(heard.calls, 1);
  assert_int_equal(heard.last, SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

static void handlers_run_in_the_order_added(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t steps[] = {{&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'}, {&trace, 'x'}, {&trace, 'y'}};
  aloop_add_signal_handler(env->loop, SIGUSR2, step, &steps[3], 0);
  for (int i = 0; i < 3; i++) aloop_add_signal_handler(env->loop, SIGUSR1, step, &steps[i], 0);
  aloop_add_signal_handler(env->loop, SIGUSR2, step, &steps[4], 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_string_equal(trace.text, "abc");
  raise(SIGUSR2);
  two_turns(env->loop);
  assert_string_equal(trace.text, "abcxy");
}

static void callbacks_scheduled_before_run_before(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t steps[] = {{&trace, 'a'}, {&trace, 'b'}, {&trace, 'c'}};
  aloop_add_signal_handler(env->loop, SIGUSR1, step, &steps[1], 0);
  raise(SIGUSR1);
  run_turn(env->loop);
  aloop_call_soon(env->loop, trace_step, &steps[2]);
  run_turn(env->loop);
  aloop_call_soon(env->loop, trace_step, &steps[0]);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_string_equal(trace.text, "bcab");
}

static void the_same_pair_again_keeps_its_place(void **state) {
  env_t *env = *state;
  trace_t trace = {0};
  step_t steps[] = {{&trace, 'a'}, {&trace, 'b'}};
  for (int i = 0; i < 4; i++)
    assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, step, &steps[i & 1], 0), 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_string_equal(trace.text, "ab");
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, step, &steps[0]), 1);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, step, &steps[0]), 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, step, &steps[0], 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_string_equal(trace.text, "abba");
}

static void remove_takes_one_or_all(void **state) {
  env_t *env = *state;
  heard_t heard[5] = {{0}};
  for (int i = 0; i < 5; i++) aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard[i], 0);
  aloop_add_signal_handler(env->loop, SIGUSR2, hear, &heard[0], 0);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, hear, &heard[2]), 1);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, step, &heard[1]), 0);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGHUP, NULL, NULL), 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  for (int i = 0; i < 5; i++) assert_int_equal(heard[i].calls, i != 2);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL), 4);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL), 0);
  raise(SIGUSR2);
  two_turns(env->loop);
  assert_int_equal(heard[0].last, SIGUSR2);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR2, NULL, NULL), 1);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR2, NULL, NULL), 0);
}

static void removing_drops_a_queued_call(void **state) {
  env_t *env = *state;
  heard_t dropped = {0}, kept = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &dropped, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &kept, 0);
  raise(SIGUSR1);
  run_turn(env->loop);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, hear, &dropped), 1);
  two_turns(env->loop);
  assert_int_equal(dropped.calls, 0);
  assert_int_equal(kept.calls, 1);
}

static void what_arrived_is_forgotten_with_the_last_handler(void **state) {
  env_t *env = *state;
  heard_t gone = {0}, later = {0};
  aloop_add_signal_handler(env->loop, SIGUSR2, hear, &later, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &gone, 0);
  raise(SIGUSR1);
  aloop_remove_signal_handler(env->loop, SIGUSR1, hear, &gone);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &later, 0);
  two_turns(env->loop);
  assert_int_equal(gone.calls + later.calls, 0);
  raise(SIGUSR2);
  two_turns(env->loop);
  assert_int_equal(later.calls, 1);
}

typedef struct remover {
  int calls;
  struct remover *other;
} remover_t;

static void remove_both(aloop_t *loop, int signum, void *arg) {
  remover_t *self = arg;
  self->calls++;
  assert_int_equal(aloop_remove_signal_handler(loop, signum, remove_both, self), 1);
  assert_int_equal(aloop_remove_signal_handler(loop, signum, remove_both, self->other), 1);
}

static void a_handler_may_remove_itself_and_the_next(void **state) {
  env_t *env = *state;
  remover_t second = {0}, first = {0, &second};
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, remove_both, &first, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, remove_both, &second, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(first.calls, 1);
  assert_int_equal(second.calls, 0);
  assert_int_equal(heard.calls, 1);
}

static void remove_all(aloop_t *loop, int signum, void *arg) {
  ++*(int *)arg;
  aloop_remove_signal_handler(loop, signum, NULL, NULL);
}

static void a_handler_may_remove_all_of_them(void **state) {
  env_t *env = *state;
  int calls[3] = {0};
  for (int i = 0; i < 3; i++) aloop_add_signal_handler(env->loop, SIGUSR1, remove_all, &calls[i], 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(calls[0], 1);
  assert_int_equal(calls[1] + calls[2], 0);
  for (int i = 0; i < 3; i++) aloop_add_signal_handler(env->loop, SIGUSR1, remove_all, &calls[i], 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(calls[0], 2);
}

static void add_hearer(aloop_t *loop, int signum, void *arg) {
  aloop_add_signal_handler(loop, signum, hear, arg, 0);
}

static void a_handler_added_by_a_handler_waits_for_the_next_signal(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, add_hearer, &heard, 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

static void raise_again(aloop_t *loop, int signum, void *arg) {
  (void)loop;
  if (++*(int *)arg < 3) raise(signum);
}

static void a_handler_may_raise_its_signal(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_add_signal_handler(env->loop, SIGUSR1, raise_again, &calls, 0);
  raise(SIGUSR1);
  for (int i = 0; i < 10; i++) run_turn(env->loop);
  assert_int_equal(calls, 3);
}

static void a_storm_is_one_call(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  for (int i = 0; i < STORM; i++) raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

static void an_arrival_before_the_queued_call_is_one_with_it(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  raise(SIGUSR1);
  run_turn(env->loop);
  raise(SIGUSR1);
  two_turns(env->loop);
  two_turns(env->loop);
  assert_in_range(heard.calls, 1, 2); /* the second was there before the call; it may bring another one */
}

static void every_signal_has_its_own_handlers(void **state) {
  env_t *env = *state;
  static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD, SIGWINCH, SIGALRM};
  heard_t heard[8] = {{0}};
  for (int i = 0; i < 8; i++)
    assert_int_equal(aloop_add_signal_handler(env->loop, signals[i], hear, &heard[i], 0), 0);
  for (int i = 0; i < 8; i += 2) raise(signals[i]);
  two_turns(env->loop);
  for (int i = 0; i < 8; i++) {
    assert_int_equal(heard[i].calls, i % 2 == 0);
    if (i % 2 == 0) assert_int_equal(heard[i].last, signals[i]);
  }
}

static void real_time_signals_work_too(void **state) {
#ifdef SIGRTMIN
  env_t *env = *state;
  heard_t first = {0}, last = {0};
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGRTMIN, hear, &first, 0), 0);
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGRTMAX, hear, &last, 0), 0);
  raise(SIGRTMIN);
  raise(SIGRTMAX);
  raise(SIGRTMAX);
  two_turns(env->loop);
  assert_int_equal(first.last, SIGRTMIN);
  assert_int_equal(last.last, SIGRTMAX);
  assert_int_equal(last.calls, 1);
#else
  (void)state;
  skip();
#endif
}

static void stop(aloop_t *loop, int signum, void *arg) {
  (void)signum, (void)arg;
  aloop_stop(loop);
}

static void raise_now(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  raise(SIGTERM);
}

static void a_handler_stops_a_loop_that_runs_forever(void **state) {
  env_t *env = *state;
  aloop_add_signal_handler(env->loop, SIGTERM, stop, NULL, 0);
  aloop_call_soon(env->loop, raise_now, NULL);
  assert_int_equal(aloop_run_forever(env->loop), 0);
}

static void fail_hard(aloop_t *loop, int signum, void *arg) {
  (void)signum, (void)arg;
  aloop_stop_with_error(loop, ALOOP_EIO);
}

static void a_fatal_stop_leaves_the_other_calls_to_the_next_run(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, fail_hard, NULL, 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  raise(SIGUSR1);
  run_turn(env->loop);
  assert_int_equal(aloop_run_once(env->loop, 0), ALOOP_EIO);
  assert_int_equal(heard.calls, 0);
  run_turn(env->loop);
  assert_int_equal(heard.calls, 1);
}

/* ---- What a callback has --------------------------------------------------------------------------------- */

typedef struct with_var {
  aloop_var_t *var;
  char seen[8];
} with_var_t;

static void look_at_var(aloop_t *loop, int signum, void *arg) {
  (void)signum;
  with_var_t *with = arg;
  snprintf(with->seen, sizeof with->seen, "%s", (const char *)aloop_var_get(loop, with->var, "none"));
  aloop_var_set(loop, with->var, "mine", NULL, NULL); /* ends with the callback */
}

static void each_handler_has_the_context_it_was_added_in(void **state) {
  env_t *env = *state;
  with_var_t with[3] = {{NULL, ""}};
  static char *values[] = {"none", "one", "two"};
  assert_int_equal(aloop_var_new("v", &with[0].var), 0);
  for (int i = 0; i < 3; i++) {
    with[i].var = with[0].var;
    if (i > 0) aloop_var_set(env->loop, with[0].var, values[i], NULL, NULL);
    aloop_add_signal_handler(env->loop, SIGUSR1, look_at_var, &with[i], 0);
  }
  for (int i = 0; i < 2; i++) {
    raise(SIGUSR1);
    two_turns(env->loop);
    for (int j = 0; j < 3; j++) assert_string_equal(with[j].seen, values[j]);
  }
  aloop_add_signal_handler(env->loop, SIGUSR1, look_at_var, &with[0], 0); /* takes the context of now */
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_string_equal(with[0].seen, "two");
  aloop_var_unref(with[0].var);
}

static aloop_t *loop_of_destructor;

static void remove_and_close(void *value) {
  (void)value;
  aloop_remove_signal_handler(loop_of_destructor, SIGUSR1, NULL, NULL);
  aloop_close(loop_of_destructor);
}

static void add_with_value(aloop_t *loop, void *arg) {
  aloop_var_set(loop, arg, arg, remove_and_close, NULL);
  aloop_add_signal_handler(loop, SIGUSR1, hear, NULL, 0);
}

/* A value of the context that is destroyed with the handler may do anything, closing the loop included. */
static void a_destructor_may_close_the_loop_while_handlers_are_removed(void **state) {
  env_t *env = *state;
  heard_t heard[2] = {{0}};
  aloop_var_t *var;
  aloop_context_t *context;
  loop_of_destructor = env->loop;
  assert_int_equal(aloop_var_new("v", &var), 0);
  assert_int_equal(aloop_context_copy(env->loop, &context), 0);
  assert_int_equal(aloop_context_run(env->loop, context, add_with_value, var), 0);
  aloop_context_unref(context);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard[0], 0);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard[1], 0);
  raise(SIGUSR1);
  run_turn(env->loop);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL), 3);
  assert_true(aloop_is_closed(env->loop));
  aloop_var_unref(var);
}

static void be_slow(aloop_t *loop, int signum, void *arg) {
  (void)signum, (void)arg;
  aloop_set_slow_callback_duration(loop, 1);
}

static void a_slow_handler_is_reported_with_its_origin(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.debug = 1, .slow_callback_duration = ALOOP_SECONDS(100)});
  aloop_add_signal_handler_from(env->loop, SIGUSR1, be_slow, NULL, 0, "there.c:7");
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(env->reports, 1);
  assert_string_equal(env->report_origins[0], "there.c:7");
}

static void keep_line(void *arg, const char *text) {
  char *all = arg;
  snprintf(all + strlen(all), 2000 - strlen(all), "%s\n", text);
}

static void the_dump_and_the_metrics_show_handlers(void **state) {
  env_t *env = *state;
  char text[2000] = "";
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_add_signal_handler_from(env->loop, SIGTERM, hear, env, 0, "there.c:7");
  (aloop_add_signal_handler)(env->loop, SIGTERM, stop, NULL, 0);
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.signal_handlers, 2);
  aloop_dump(env->loop, keep_line, text);
  assert_non_null(strstr(text, "signal handler for signal 15, from there.c:7\n"));
  aloop_remove_signal_handler(env->loop, SIGTERM, NULL, NULL);
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.signal_handlers, 0);
}

/* ---- What is refused ------------------------------------------------------------------------------------- */

static void what_cannot_be_caught_is_refused(void **state) {
  env_t *env = *state;
  static const int numbers[] = {0, -1, -15, 128, 129, 1000, INT32_MAX, INT32_MIN, SIGKILL, SIGSTOP};
  int fds = open_fds();
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    assert_int_equal(aloop_add_signal_handler(env->loop, numbers[i], hear, env, 0), ALOOP_EINVAL);
    assert_int_equal(aloop_remove_signal_handler(env->loop, numbers[i], hear, env), ALOOP_EINVAL);
  }
#ifdef SIGRTMIN
  for (int i = 32; i < SIGRTMIN; i++) /* the C library's own */
    assert_int_equal(aloop_add_signal_handler(env->loop, i, hear, env, 0), ALOOP_EINVAL);
  for (int i = SIGRTMAX + 1; i < 140; i++)
    assert_int_equal(aloop_add_signal_handler(env->loop, i, hear, env, 0), ALOOP_EINVAL);
#endif
  assert_int_equal(open_fds(), fds);
}

static void nonsense_is_refused(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_add_signal_handler(NULL, SIGUSR1, hear, env, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_remove_signal_handler(NULL, SIGUSR1, hear, env), ALOOP_EINVAL);
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, NULL, env, 0), ALOOP_EINVAL);
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, hear, env, 2), ALOOP_EINVAL);
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, hear, env, 0x80000001), ALOOP_EINVAL);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, env, 0);
  aloop_close(env->loop);
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, hear, env, 0), ALOOP_ECLOSED);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, hear, env), 0);
}

static void debug_mode_says_the_rule(void **state) {
  env_t *env = *state;
  env_loop(env, (aloop_options_t){.debug = 1});
  aloop_add_signal_handler(env->loop, SIGKILL, hear, env, 0);
  aloop_remove_signal_handler(env->loop, 0, hear, env);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, env, 8);
  assert_int_equal(env->reports, 3);
  assert_string_equal(env->report_messages[0], "there is no such signal, or it cannot be caught");
}

static void without_descriptors_nothing_is_added(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  struct rlimit before, none;
  struct sigaction action;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = before;
  none.rlim_cur = 3;
  setrlimit(RLIMIT_NOFILE, &none);
  int rc = aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  setrlimit(RLIMIT_NOFILE, &before);
  assert_int_equal(rc, ALOOP_EMFILE);
  sigaction(SIGUSR1, NULL, &action);
  assert_ptr_equal(action.sa_handler, SIG_DFL);
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0), 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void the_last_handler_takes_the_descriptor_along(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  int fds = open_fds();
  for (int i = 0; i < 3; i++) {
    aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
    aloop_add_signal_handler(env->loop, SIGUSR2, hear, &heard, 0);
    assert_true(open_fds() > fds);
    raise(SIGUSR1);
    aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL);
    aloop_remove_signal_handler(env->loop, SIGUSR2, NULL, NULL);
    assert_int_equal(open_fds(), fds);
  }
}

static void closing_forgets_what_has_arrived(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  raise(SIGUSR1);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(heard.calls, 0);
}

static void closing_drops_queued_calls(void **state) {
  env_t *env = *state;
  heard_t heard[20] = {{0}};
  for (int i = 0; i < 20; i++) aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard[i], 0);
  raise(SIGUSR1);
  run_turn(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  for (int i = 0; i < 20; i++) assert_int_equal(heard[i].calls, 0);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

static void block(int how, int signum) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signum);
  pthread_sigmask(how, &set, NULL);
}

typedef struct sender {
  pthread_t thread, target;
  bool to_process; /* else to the target */
  int signum;
  int count;
  atomic_int sent;
  atomic_int go;
} sender_t;

static void *send_all(void *arg) {
  sender_t *sender = arg;
  while (!atomic_load(&sender->go)) poll(NULL, 0, 1);
  for (int i = 0; i < sender->count; i++) {
    atomic_store(&sender->sent, i + 1);
    if (sender->to_process)
      kill(getpid(), sender->signum);
    else
      pthread_kill(sender->target, sender->signum);
  }
  return NULL;
}

static void start_sender(sender_t *sender) {
  sender->target = pthread_self();
  assert_int_equal(pthread_create(&sender->thread, NULL, send_all, sender), 0);
}

static void let_go(aloop_t *loop, void *arg) {
  (void)loop;
  atomic_store(&((sender_t *)arg)->go, 1);
}

/* The loop sleeps, or is about to, when the signal comes. */
static void wake_by(env_t *env, bool to_process, bool blocked_here) {
  heard_t heard = {0};
  sender_t sender = {.signum = SIGUSR1, .count = 1, .to_process = to_process};
  start_sender(&sender);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  if (blocked_here) block(SIG_BLOCK, SIGUSR1);
  aloop_call_soon(env->loop, let_go, &sender);
  while (!heard.rang) assert_true(aloop_run_once(env->loop, ALOOP_FOREVER) >= 0);
  pthread_join(sender.thread, NULL);
  if (blocked_here) block(SIG_UNBLOCK, SIGUSR1);
  assert_int_equal(heard.calls, 1);
}

static void a_signal_to_its_thread_wakes_a_sleeping_loop(void **state) {
  wake_by(*state, false, false);
}

static void a_signal_to_the_process_wakes_a_sleeping_loop(void **state) {
  wake_by(*state, true, false);
}

static void a_signal_blocked_in_the_loops_thread_is_heard_through_another(void **state) {
  wake_by(*state, true, true);
}

static void a_signal_blocked_in_all_other_threads_is_heard(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  sender_t sender = {.signum = SIGUSR1, .count = 1, .to_process = true};
  block(SIG_BLOCK, SIGUSR1);
  start_sender(&sender); /* inherits the mask */
  block(SIG_UNBLOCK, SIGUSR1);
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  aloop_call_soon(env->loop, let_go, &sender);
  while (!heard.rang) assert_true(aloop_run_once(env->loop, ALOOP_FOREVER) >= 0);
  pthread_join(sender.thread, NULL);
  assert_int_equal(heard.calls, 1);
}

typedef struct follower {
  sender_t *sender;
  int seen;
  int calls;
  bool all;
} follower_t;

static void follow(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum;
  follower_t *follower = arg;
  follower->calls++;
  follower->seen = atomic_load(&follower->sender->sent);
  follower->all = follower->seen == follower->sender->count;
}

/* However many there are and however they merge, the last one is followed by a call. */
static void the_last_of_a_storm_is_not_lost(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 20; i++) {
    sender_t sender = {.signum = SIGUSR1, .count = STORM / 50, .to_process = i % 2 == 0, .go = 1};
    follower_t follower = {.sender = &sender};
    aloop_add_signal_handler(env->loop, SIGUSR1, follow, &follower, 0);
    start_sender(&sender);
    run_until(env->loop, &follower.all);
    pthread_join(sender.thread, NULL);
    assert_in_range(follower.calls, 1, STORM / 50);
    assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL), 1);
  }
}

typedef struct station {
  pthread_t thread;
  atomic_int *ready;
  sender_t *sender;
  int error;
} station_t;

static void follow_and_stop(aloop_t *loop, int signum, void *arg) {
  follow(loop, signum, arg);
  if (((follower_t *)arg)->all) aloop_stop(loop);
}

static void *run_station(void *arg) {
  station_t *station = arg;
  follower_t follower = {.sender = station->sender};
  aloop_t *loop;
  station->error = aloop_new(NULL, &loop);
  if (station->error < 0) return NULL;
  station->error = aloop_add_signal_handler(loop, SIGUSR1, follow_and_stop, &follower, 0);
  atomic_fetch_add(station->ready, 1);
  if (station->error == 0) station->error = aloop_run_forever(loop);
  aloop_free(loop);
  return NULL;
}

static void many_loops_in_many_threads_hear_the_same_signal(void **state) {
  (void)state;
  station_t stations[LOOPS] = {{0}};
  atomic_int ready = 0;
  sender_t sender = {.signum = SIGUSR1, .count = 500, .to_process = true};
  for (int i = 0; i < LOOPS; i++) {
    stations[i] = (station_t){.ready = &ready, .sender = &sender};
    assert_int_equal(pthread_create(&stations[i].thread, NULL, run_station, &stations[i]), 0);
  }
  while (atomic_load(&ready) < LOOPS) poll(NULL, 0, 1);
  start_sender(&sender);
  atomic_store(&sender.go, 1);
  pthread_join(sender.thread, NULL);
  for (int i = 0; i < LOOPS; i++) {
    pthread_join(stations[i].thread, NULL);
    assert_int_equal(stations[i].error, 0);
  }
}

static void *add_from_elsewhere(void *arg) {
  aloop_t *loop = arg;
  heard_t heard = {0};
  bool refused = aloop_add_signal_handler(loop, SIGUSR1, hear, &heard, 0) == ALOOP_ENOTLOOPTHREAD &&
                 aloop_remove_signal_handler(loop, SIGUSR1, hear, &heard) == ALOOP_ENOTLOOPTHREAD;
  return refused ? NULL : arg;
}

static void start_and_join(aloop_t *loop, void *arg) {
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, add_from_elsewhere, loop), 0);
  pthread_join(thread, arg);
}

static void another_thread_is_refused_in_debug_mode(void **state) {
  env_t *env = *state;
  void *failed = env;
  env_loop(env, (aloop_options_t){.debug = 1, .slow_callback_duration = ALOOP_SECONDS(100)});
  aloop_call_soon(env->loop, start_and_join, &failed);
  run_turn(env->loop);
  assert_null(failed);
}

static void a_host_hears_of_a_signal(void **state) {
  env_t *env = *state;
  int fd = aloop_backend_fd(env->loop);
  if (fd == ALOOP_ENOTSUP) skip();
  heard_t heard = {0};
  struct pollfd backend = {.fd = fd, .events = POLLIN};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  run_turn(env->loop);
  assert_int_equal(poll(&backend, 1, 0), 0);
  raise(SIGUSR1);
  assert_int_equal(poll(&backend, 1, 0), 1);
  run_turn(env->loop);
  assert_int_equal(aloop_next_timeout(env->loop), 0);
  run_turn(env->loop);
  assert_int_equal(heard.calls, 1);
  assert_int_equal(poll(&backend, 1, 0), 0);
}

/* ---- Fork ------------------------------------------------------------------------------------------------ */

/* Runs fn in a child; returns what it returned there. */
static int in_child(env_t *env, int (*fn)(env_t *env, heard_t *heard), heard_t *heard) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) _exit(fn(env, heard));
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static int raise_and_leave(env_t *env, heard_t *heard) {
  (void)env, (void)heard;
  raise(SIGUSR1);
  return 0;
}

static void a_signal_of_the_child_does_not_reach_the_parent(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  assert_int_equal(in_child(env, raise_and_leave, &heard), 0);
  uint64_t before = 0;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_metrics(env->loop, &metrics);
  before = metrics.events;
  two_turns(env->loop);
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.events, before);
  assert_int_equal(heard.calls, 0);
}

static int hear_in_child(env_t *env, heard_t *heard) {
  raise(SIGUSR1); /* kept until the loop may run */
  if (aloop_after_fork(env->loop) < 0) return 1;
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  if (heard->calls != 1) return 2;
  raise(SIGUSR1);
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  return heard->calls == 2 ? 0 : 3;
}

static void a_child_hears_its_own_signals_after_fork(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  assert_int_equal(in_child(env, hear_in_child, &heard), 0);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

static int listen_in_child(env_t *env, heard_t *heard) {
  if (aloop_after_fork(env->loop) < 0) return 100;
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  return heard->calls;
}

static void what_arrived_in_the_parent_is_for_the_parent(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  raise(SIGUSR1);
  assert_int_equal(in_child(env, listen_in_child, &heard), 0);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

static int change_in_child(env_t *env, heard_t *heard) {
  struct sigaction action;
  if (aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL) != 1) return 1;
  sigaction(SIGUSR1, NULL, &action);
  if (action.sa_handler != SIG_DFL) return 2;
  if (aloop_add_signal_handler(env->loop, SIGUSR2, hear, heard, 0) < 0) return 3;
  raise(SIGUSR2);
  if (aloop_after_fork(env->loop) < 0) return 4;
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  return heard->last == SIGUSR2 ? 0 : 5;
}

static void what_the_child_changes_is_its_own(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  assert_int_equal(in_child(env, change_in_child, &heard), 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

static int close_in_child(env_t *env, heard_t *heard) {
  (void)heard;
  return aloop_close(env->loop) == 0 ? 0 : 1;
}

static void a_child_may_close_the_loop(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0);
  assert_int_equal(in_child(env, close_in_child, &heard), 0);
  raise(SIGUSR1);
  two_turns(env->loop);
  assert_int_equal(heard.calls, 1);
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

enum { HANDLERS = 40 }; /* more than the deque has room for at first */

static void handlers_without_memory(env_t *env) {
  heard_t heard[HANDLERS] = {{0}};
  for (int i = 0; i < HANDLERS; i++) {
    int rc = aloop_add_signal_handler(env->loop, i % 2 ? SIGUSR1 : SIGUSR2, hear, &heard[i], 0);
    assert_true(rc == 0 || rc == ALOOP_ENOMEM);
    heard[i].last = rc;
  }
  if (heard[0].last < 0 || heard[1].last < 0) return; /* one of the signals would end us */
  raise(SIGUSR1);
  raise(SIGUSR2);
  for (int i = 0; i < HANDLERS; i++) {
    if (i == HANDLERS / 2) env->fail_from = 0;
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  for (int i = 0; i < HANDLERS; i++) assert_int_equal(heard[i].calls, heard[i].last != ALOOP_ENOMEM);
  aloop_remove_signal_handler(env->loop, SIGUSR1, NULL, NULL);
}

static void every_handler_is_called_once_however_short_memory_is(void **state) {
  torture(*state, handlers_without_memory);
}

static void a_handler_whose_call_waits_for_memory_may_be_removed(void **state) {
  env_t *env = *state;
  heard_t heard[HANDLERS] = {{0}};
  for (int i = 0; i < HANDLERS; i++) aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard[i], 0);
  raise(SIGUSR1);
  env->fail_from = env->calls + 1;
  run_turn(env->loop);
  assert_int_equal(aloop_remove_signal_handler(env->loop, SIGUSR1, hear, &heard[HANDLERS - 1]), 1);
  env->fail_from = 0;
  two_turns(env->loop);
  two_turns(env->loop);
  for (int i = 0; i < HANDLERS; i++) assert_int_equal(heard[i].calls, i != HANDLERS - 1);
}

TESTS(T(a_handler_is_called_in_the_turn_after_the_wake_up), T(handlers_run_in_the_order_added),
      T(callbacks_scheduled_before_run_before), T(the_same_pair_again_keeps_its_place),
      T(remove_takes_one_or_all), T(removing_drops_a_queued_call),
      T(what_arrived_is_forgotten_with_the_last_handler), T(a_handler_may_remove_itself_and_the_next),
      T(a_handler_may_remove_all_of_them), T(a_handler_added_by_a_handler_waits_for_the_next_signal),
      T(a_handler_may_raise_its_signal), T(a_storm_is_one_call),
      T(an_arrival_before_the_queued_call_is_one_with_it), T(every_signal_has_its_own_handlers),
      T(real_time_signals_work_too), T(a_handler_stops_a_loop_that_runs_forever),
      T(a_fatal_stop_leaves_the_other_calls_to_the_next_run), T(each_handler_has_the_context_it_was_added_in),
      T(a_destructor_may_close_the_loop_while_handlers_are_removed),
      T(a_slow_handler_is_reported_with_its_origin), T(the_dump_and_the_metrics_show_handlers),
      T(what_cannot_be_caught_is_refused), T(nonsense_is_refused), T(debug_mode_says_the_rule),
      T(without_descriptors_nothing_is_added), T(the_last_handler_takes_the_descriptor_along),
      T(closing_forgets_what_has_arrived), T(closing_drops_queued_calls),
      T(a_signal_to_its_thread_wakes_a_sleeping_loop), T(a_signal_to_the_process_wakes_a_sleeping_loop),
      T(a_signal_blocked_in_the_loops_thread_is_heard_through_another),
      T(a_signal_blocked_in_all_other_threads_is_heard), T(the_last_of_a_storm_is_not_lost),
      T(many_loops_in_many_threads_hear_the_same_signal), T(another_thread_is_refused_in_debug_mode),
      T(a_host_hears_of_a_signal), T(a_signal_of_the_child_does_not_reach_the_parent),
      T(a_child_hears_its_own_signals_after_fork), T(what_arrived_in_the_parent_is_for_the_parent),
      T(what_the_child_changes_is_its_own), T(a_child_may_close_the_loop),
      T(every_handler_is_called_once_however_short_memory_is),
      T(a_handler_whose_call_waits_for_memory_may_be_removed))
