/* SPDX-License-Identifier: MIT
 *
 * Torture of what needs no network: callbacks, timers, posts, descriptors, futures, signals. Each callback that
 * was accepted is called once, each that was refused never; each future ends; each object is destroyed once.
 *
 * pollers: all
 * faults: yes
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "torture.h"

/* ---- Callbacks --------------------------------------------------------------------------------------------- */

enum { SOONS = 40, LATERS = 20, POSTS = 700, ERRANDS = SOONS + LATERS + POSTS + 2 };

typedef struct errand {
  bool accepted;
  int calls;
} errand_t;

typedef struct errands {
  errand_t list[ERRANDS];
  int count;
  aloop_handle_t beat;
  int beats;
  int fds[2];
  int bytes_read, bytes_written;
  bool watching;
} errands_t;

static void run_errand(aloop_t *loop, void *arg) {
  (void)loop;
  ((errand_t *)arg)->calls++;
}

static errand_t *next_errand(errands_t *errands) {
  return &errands->list[errands->count++];
}

static void note(run_t *run, errand_t *errand, int error) {
  NORMALLY(run, error == 0);
  ALWAYS(error == 0 || error == ALOOP_ENOMEM);
  errand->accepted = error == 0;
}

static void beat(aloop_t *loop, void *arg) {
  errands_t *errands = arg;
  if (++errands->beats == 3) ALWAYS(aloop_cancel(loop, &errands->beat) == 1);
}

static void schedule(run_t *run, errands_t *errands) {
  aloop_t *loop = run->loop;
  for (int i = 0; i < SOONS; i++) {
    errand_t *errand = next_errand(errands);
    note(run, errand, aloop_handle_error(aloop_call_soon(loop, run_errand, errand)));
  }
  for (int i = 0; i < LATERS; i++) {
    errand_t *errand = next_errand(errands);
    aloop_handle_t handle = aloop_call_later(loop, ALOOP_MICROS(300 * (i % 4)), run_errand, errand);
    note(run, errand, aloop_handle_error(handle));
  }
  for (int i = 0; i < POSTS; i++) {
    errand_t *errand = next_errand(errands);
    note(run, errand, aloop_call_soon_threadsafe(loop, run_errand, errand));
  }
  errands->beat = aloop_call_every(loop, ALOOP_MICROS(200), beat, errands);
}

static void change_minds(run_t *run, errands_t *errands) {
  aloop_t *loop = run->loop;
  errand_t *moved = next_errand(errands);
  aloop_handle_t handle = aloop_call_later(loop, ALOOP_SECONDS(3600), run_errand, moved);
  note(run, moved, aloop_handle_error(handle));
  if (moved->accepted) ALWAYS(aloop_reschedule(loop, &handle, aloop_time(loop) + ALOOP_MILLIS(1)) == 0);
  errand_t *cancelled = next_errand(errands);
  handle = aloop_call_later(loop, 0, run_errand, cancelled);
  note(run, cancelled, aloop_handle_error(handle));
  if (cancelled->accepted) ALWAYS(aloop_cancel(loop, &handle) == 1);
  cancelled->accepted = false;
}

static void read_byte(aloop_t *loop, void *arg) {
  errands_t *errands = arg;
  char byte;
  faults_pause();
  if (read(errands->fds[0], &byte, 1) == 1) errands->bytes_read++;
  faults_resume();
  ALWAYS(aloop_remove_reader(loop, errands->fds[0]) == 1);
}

static void write_byte(aloop_t *loop, void *arg) {
  errands_t *errands = arg;
  faults_pause();
  if (write(errands->fds[1], "x", 1) == 1) errands->bytes_written++;
  faults_resume();
  ALWAYS(aloop_remove_writer(loop, errands->fds[1]) == 1);
}

static void watch(run_t *run, errands_t *errands) {
  int reader = aloop_add_reader(run->loop, errands->fds[0], read_byte, errands);
  int writer = aloop_add_writer(run->loop, errands->fds[1], write_byte, errands);
  NORMALLY(run, reader == 0 && writer == 0);
  ALWAYS((reader == 0 || is_known(reader)) && (writer == 0 || is_known(writer)));
  errands->watching = reader == 0 && writer == 0;
}

static bool errands_done(const void *arg) {
  const errands_t *errands = arg;
  for (int i = 0; i < errands->count; i++)
    if (errands->list[i].calls < errands->list[i].accepted) return false;
  if (errands->watching && errands->bytes_read < 1) return false;
  return aloop_handle_error(errands->beat) != 0; /* refused, or has cancelled itself */
}

typedef struct both {
  run_t *run;
  errands_t *errands;
} both_t;

static void schedule_in_context(aloop_t *loop, void *arg) {
  (void)loop;
  both_t *both = arg;
  schedule(both->run, both->errands);
  change_minds(both->run, both->errands);
}

/* Everything is scheduled within a context that has a variable. */
static void begin_errands(run_t *run, errands_t *errands, aloop_var_t *var) {
  both_t both = {run, errands};
  aloop_context_t *context;
  int rc = aloop_var_set(run->loop, var, errands, NULL, NULL);
  NORMALLY(run, rc == 0);
  ALWAYS(rc == 0 || rc == ALOOP_ENOMEM);
  if (aloop_context_copy(run->loop, &context) < 0) {
    ALWAYS(run->memory);
    return;
  }
  ALWAYS(aloop_context_run(run->loop, context, schedule_in_context, &both) == 0);
  aloop_context_unref(context);
}

static void play_callbacks(run_t *run) {
  static errands_t errands;
  aloop_var_t *var;
  memset(&errands, 0, sizeof errands);
  if (!run_open(run, 0)) return;
  faults_pause();
  make_pipe(errands.fds);
  faults_resume();
  ALWAYS(aloop_var_new("variable", &var) == 0);
  begin_errands(run, &errands, var);
  watch(run, &errands);
  run_to(run, errands_done, &errands);
  for (int i = 0; i < errands.count; i++) {
    const errand_t *errand = &errands.list[i];
    ALWAYS(errand->calls == errand->accepted || (run->broken && errand->calls == 0));
  }
  NORMALLY(run, errands.beats == 3 && errands.bytes_read == 1 && errands.bytes_written == 1);
  aloop_close(run->loop);
  aloop_var_unref(var);
  faults_pause();
  close(errands.fds[0]);
  close(errands.fds[1]);
  faults_resume();
}

static void callbacks(void **state) {
  torture_all(*state, "callbacks", play_callbacks);
}

/* ---- Futures ----------------------------------------------------------------------------------------------- */

enum { FUTURES_MAX = 64 };

typedef struct futures {
  aloop_future_t *list[FUTURES_MAX];
  int count;
  int callbacks_added, callbacks_called;
  int objects_made, objects_destroyed;
} futures_t;

/* Looked at in the end. */
static void keep(const run_t *run, futures_t *futures, aloop_future_t *future) {
  if (run_made(run, future) != NULL) futures->list[futures->count++] = future;
}

/* The same for a future that another call takes over: a reference for that. */
static aloop_future_t *lend(const run_t *run, futures_t *futures, aloop_future_t *future) {
  keep(run, futures, future);
  return aloop_future_ref(future);
}

static void begin_gathers(run_t *run, futures_t *futures) {
  aloop_t *loop = run->loop;
  aloop_future_t *good[] = {lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(500))),
                            lend(run, futures, aloop_sleep(loop, 0)),
                            lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(200)))};
  keep(run, futures, aloop_gather(loop, good, 3, 0));
  aloop_future_t *failing = aloop_future_new(loop);
  aloop_future_t *bad[] = {lend(run, futures, failing),
                           lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(100)))};
  keep(run, futures, aloop_gather(loop, bad, 2, 0));
  if (failing != NULL) aloop_future_set_error(failing, ALOOP_EIO, "it had to be");
  aloop_future_t *mixed[] = {lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(100))),
                             aloop_future_ref(failing)};
  keep(run, futures, aloop_gather(loop, mixed, 2, ALOOP_RETURN_ERRORS));
}

static void begin_waits(run_t *run, futures_t *futures) {
  aloop_t *loop = run->loop;
  aloop_future_t *two[] = {lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(500))),
                           lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(100)))};
  keep(run, futures, aloop_wait(loop, two, 2, ALOOP_FOREVER, ALOOP_FIRST_COMPLETED));
  aloop_future_t *one[] = {lend(run, futures, aloop_sleep(loop, ALOOP_MILLIS(1)))};
  keep(run, futures, aloop_wait(loop, one, 1, ALOOP_MICROS(100), ALOOP_ALL_COMPLETED));
}

/* Outer futures of one inner; a missing inner one gives a missing outer one. */
static void begin_limits(run_t *run, futures_t *futures) {
  aloop_t *loop = run->loop;
  keep(run, futures,
       aloop_wait_for(lend(run, futures, aloop_sleep(loop, ALOOP_SECONDS(3600))), ALOOP_MICROS(300)));
  keep(run, futures,
       aloop_wait_for(lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(100))), ALOOP_SECONDS(3600)));
  keep(run, futures, aloop_shield(lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(200)))));
  aloop_future_t *shield = aloop_shield(lend(run, futures, aloop_sleep(loop, ALOOP_MICROS(100))));
  keep(run, futures, shield);
  if (shield != NULL) ALWAYS(aloop_future_cancel(shield) == 1);
}

static void on_done(aloop_future_t *future, void *arg) {
  ALWAYS(aloop_future_done(future));
  ((futures_t *)arg)->callbacks_called++;
}

static void destroy_object(void *arg) {
  ((futures_t *)arg)->objects_destroyed++;
}

static void begin_callbacks(run_t *run, futures_t *futures) {
  aloop_future_t *future = aloop_future_new(run->loop);
  keep(run, futures, future);
  for (int i = 0; future != NULL && i < 40; i++) {
    int rc = aloop_future_add_done_callback(future, on_done, futures);
    NORMALLY(run, rc == 0);
    ALWAYS(rc == 0 || rc == ALOOP_ENOMEM);
    futures->callbacks_added += rc == 0;
    if (i == 20) ALWAYS(aloop_future_set_result(future, 7, futures, destroy_object) == 0);
  }
  futures->objects_made += future != NULL;
}

static bool futures_done(const void *arg) {
  const futures_t *futures = arg;
  for (int i = 0; i < futures->count; i++)
    if (!aloop_future_done(futures->list[i])) return false;
  return futures->callbacks_called == futures->callbacks_added;
}

static void play_futures(run_t *run) {
  futures_t futures = {0};
  if (!run_open(run, 0)) return;
  begin_gathers(run, &futures);
  begin_waits(run, &futures);
  begin_limits(run, &futures);
  begin_callbacks(run, &futures);
  int64_t slept =
      run->broken ? 0 : aloop_run_until_complete(run->loop, aloop_sleep(run->loop, ALOOP_MICROS(50)));
  NORMALLY(run, slept == 0);
  ALWAYS(slept == 0 || is_known(slept));
  run_to(run, futures_done, &futures);
  ALWAYS(futures.callbacks_called == futures.callbacks_added || run->broken);
  aloop_close(run->loop);
  for (int i = 0; i < futures.count; i++) {
    ALWAYS(aloop_future_done(futures.list[i]));
    int64_t value = aloop_future_result(futures.list[i]);
    ALWAYS(value >= 0 || is_known(value));
    aloop_future_unref(futures.list[i]);
  }
  ALWAYS(futures.objects_destroyed == futures.objects_made);
}

static void futures(void **state) {
  torture_all(*state, "futures", play_futures);
}

/* ---- Signals ----------------------------------------------------------------------------------------------- */

enum { HANDLERS = 24 }; /* more than fit into a new ready deque */

typedef struct listener {
  bool accepted;
  int calls;
} listener_t;

static void hear(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum;
  ((listener_t *)arg)->calls++;
}

static bool all_heard(const void *arg) {
  const listener_t *listeners = arg;
  for (int i = 0; i < HANDLERS; i++)
    if (listeners[i].calls < listeners[i].accepted) return false;
  return true;
}

static bool is_default(int signum) {
  struct sigaction action;
  return sigaction(signum, NULL, &action) == 0 && action.sa_handler == SIG_DFL;
}

static void play_signals(run_t *run) {
  listener_t listeners[HANDLERS] = {{0}};
  int accepted = 0;
  if (!run_open(run, 0)) return;
  for (int i = 0; i < HANDLERS; i++) {
    int rc = aloop_add_signal_handler(run->loop, SIGUSR1, hear, &listeners[i], 0);
    NORMALLY(run, rc == 0);
    ALWAYS(rc == 0 || is_known(rc));
    listeners[i].accepted = rc == 0;
    accepted += rc == 0;
  }
  ALWAYS(is_default(SIGUSR1) == (accepted == 0));
  if (accepted > 0) raise(SIGUSR1);
  run_to(run, all_heard, listeners);
  for (int i = 0; i < HANDLERS; i++)
    ALWAYS(listeners[i].calls == listeners[i].accepted || (run->broken && listeners[i].calls == 0));
  ALWAYS(aloop_remove_signal_handler(run->loop, SIGUSR1, NULL, NULL) == accepted);
  ALWAYS(is_default(SIGUSR1));
}

static void signals(void **state) {
  torture_all(*state, "signals", play_signals);
}

TESTS(T(callbacks), T(futures), T(signals))
