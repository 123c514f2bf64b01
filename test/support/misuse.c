/* SPDX-License-Identifier: MIT
 *
 * Checks for calls that are wrong: see misuse.h. The state of the loop is read from its struct, because the
 * calls that tell of it are themselves among those under test.
 */
#include "misuse.h"

#include <pthread.h>
#include <string.h>

#include "core/loop.h"

enum { CANARY = 0xa5 };

static void fault(misuse_t *m, const char *call, const char *file, int line, const char *what, int64_t got,
                  int64_t wanted) {
  m->faults++;
  print_error("%s:%d: %s%s: %s is %lld (%s), not %lld (%s)\n", file, line, call,
              m->debug ? " in debug mode" : "", what, (long long)got, aloop_error_name(got), (long long)wanted,
              aloop_error_name(wanted));
}

static void count(const aloop_t *loop, uint64_t counts[8]) {
  memset(counts, 0, 8 * sizeof counts[0]);
  for (int i = 0; i < ALOOP__KINDS; i++) counts[0] += loop->live[i];
  counts[1] = loop->tail - loop->head;
  counts[2] = loop->timers.live;
  counts[3] = loop->watches_count;
  counts[4] = loop->guard;
  counts[5] = loop->attention;
  counts[6] = (uint64_t)(int64_t)loop->stop_error;
  counts[7] = aloop__mailbox_pending(loop);
}

void misuse_before(misuse_t *m) {
  memset(&m->out, CANARY, sizeof m->out);
  m->reports_before = m->env->reports;
  count(m->loop, m->counts_before);
}

static void check_reports(misuse_t *m, const char *call, const char *file, int line, int64_t error,
                          bool mistake) {
  const env_t *env = m->env;
  int wanted = mistake && m->debug, got = env->reports - m->reports_before;
  if (got != wanted) fault(m, call, file, line, "the number of reports", got, wanted);
  for (int i = m->reports_before; i < env->reports && i < REPORTS_MAX; i++) {
    if (env->report_messages[i][0] == '\0' || strchr(env->report_messages[i], ' ') == NULL)
      fault(m, call, file, line, "a message without words", i, 0);
    if (got != wanted)
      print_error("  %s (%s)\n", env->report_messages[i], aloop_error_name(env->report_errors[i]));
    if (error < 0 && env->report_errors[i] != error)
      fault(m, call, file, line, "the error of the report", env->report_errors[i], error);
  }
  m->env->reports = m->reports_before; /* room for more */
}

static void check_state(misuse_t *m, const char *call, const char *file, int line) {
  static const char *const names[] = {"the number of objects",
                                      "... callbacks",
                                      "... timers",
                                      "... watches",
                                      "the guard",
                                      "attention",
                                      "stop_error",
                                      "posts"};
  uint64_t now[8];
  count(m->loop, now);
  for (int i = 0; i < 8; i++)
    if (now[i] != m->counts_before[i])
      fault(m, call, file, line, names[i], (int64_t)now[i], (int64_t)m->counts_before[i]);
  for (size_t i = 0; i < sizeof m->out.bytes; i++)
    if (m->out.bytes[i] != CANARY) {
      fault(m, call, file, line, "a byte of the output", m->out.bytes[i], CANARY);
      break;
    }
}

void misuse_after(misuse_t *m, const char *call, const char *file, int line, int64_t got, int64_t wanted,
                  bool mistake) {
  if (got != wanted) fault(m, call, file, line, "the result", got, wanted);
  check_reports(m, call, file, line, wanted, mistake);
  check_state(m, call, file, line);
}

void misuse_future(misuse_t *m, const char *call, const char *file, int line, aloop_future_t *future,
                   int64_t wanted, bool mistake) {
  if (future == NULL || !aloop_future_done(future)) {
    fault(m, call, file, line, "a future that is NULL or pending", 0, wanted);
    if (future != NULL) aloop_future_cancel(future);
  }
  int64_t got = future != NULL ? aloop_future_result(future) : 0;
  const char *message = future != NULL ? aloop_future_message(future) : "";
  if (message[0] == '\0' ||
      (mistake && strcmp(message, aloop_strerror(wanted)) == 0 && wanted != ALOOP_ECLOSED))
    fault(m, call, file, line, "a future without a message", 0, wanted);
  aloop_future_unref(future);
  misuse_after(m, call, file, line, got, wanted, mistake);
}

void misuse_begin(misuse_t *m, env_t *env, bool debug) {
  /* However slow a machine with sanitizers is, no callback of these tests is slow. */
  env_loop(env, (aloop_options_t){.debug = debug ? 1 : -1, .slow_callback_duration = INT64_MAX});
  env->reports = 0;
  *m = (misuse_t){.env = env, .loop = env->loop, .debug = debug};
}

void misuse_end(misuse_t *m) {
  if (m->faults > 0) fail_msg("%d faults", m->faults);
}

typedef struct call {
  misuse_t *m;
  misuse_fn body;
} call_t;

static void make(aloop_t *loop, void *arg) {
  (void)loop;
  call_t *call = arg;
  call->body(call->m);
}

void misuse_in_callback(misuse_t *m, misuse_fn body) {
  call_t call = {m, body};
  assert_int_equal(aloop_handle_error(aloop_call_soon(m->loop, make, &call)), 0);
  assert_true(aloop_run_once(m->loop, 0) > 0);
}

static void *make_in_thread(void *arg) {
  make(NULL, arg);
  return NULL;
}

static void await_thread(aloop_t *loop, void *arg) {
  (void)loop;
  pthread_t thread;
  if (pthread_create(&thread, NULL, make_in_thread, arg) != 0) fail_msg("no thread");
  pthread_join(thread, NULL);
}

void misuse_in_thread(misuse_t *m, misuse_fn body) {
  call_t call = {m, body};
  assert_int_equal(aloop_handle_error(aloop_call_soon(m->loop, await_thread, &call)), 0);
  assert_true(aloop_run_once(m->loop, 0) > 0);
}

void in_both_modes(env_t *env, misuse_fn body) {
  misuse_t m;
  for (int debug = 0; debug < 2; debug++) {
    misuse_begin(&m, env, debug);
    misuse_in_callback(&m, body);
    misuse_end(&m);
  }
}

void in_both_modes_outside(env_t *env, misuse_fn body) {
  misuse_t m;
  for (int debug = 0; debug < 2; debug++) {
    misuse_begin(&m, env, debug);
    body(&m);
    misuse_end(&m);
  }
}
