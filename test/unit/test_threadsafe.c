/* SPDX-License-Identifier: MIT
 *
 * Tasks that other threads begin, wait for and cancel. The loop runs in the test's thread, the others are the foreign
 * ones.
 * pollers: all, threads: yes
 */
#include "harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_t begin_thread(void *(*fn)(void *), void *arg) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, fn, arg) != 0) fail_msg("no thread");
  return thread;
}

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

/* Real time counts here, so the loop runs on a poller whose clock does not jump. */
static aloop_t *real_loop(env_t *env) {
  if (on_poller(env, "virtual")) env_loop(env, (aloop_options_t){.poller = "poll", .debug = -1});
  return env->loop;
}

/* ---- Values -------------------------------------------------------------------------------------------------- */

static int64_t twice(aloop_t *loop, void *arg) {
  int64_t rc = aloop_await(aloop_sleep(loop, 0));
  return rc < 0 ? rc : *(int *)arg * 2;
}

typedef struct feeder {
  aloop_t *loop;
  int64_t sum;
} feeder_t;

static void *feed(void *arg) {
  feeder_t *self = arg;
  for (int i = 1; i <= 100; i++) {
    aloop_sync_future_t *future;
    int rc = aloop_run_coroutine_threadsafe(self->loop, twice, &i, &future);
    self->sum += rc < 0 ? rc : aloop_sync_wait(future, ALOOP_FOREVER);
    self->sum += aloop_sync_done(future) ? 0 : 1000000;
    aloop_sync_unref(future);
  }
  aloop_call_soon_threadsafe(self->loop, stop, NULL);
  return NULL;
}

static void a_thread_gets_what_its_tasks_return(void **state) {
  feeder_t feeder = {.loop = real_loop(*state)};
  pthread_t thread = begin_thread(feed, &feeder);
  assert_int_equal(aloop_run_forever(feeder.loop), 0);
  pthread_join(thread, NULL);
  assert_int_equal(feeder.sum, 10100);
}

enum { CROWD = 4, EACH = 200 };

typedef struct member {
  aloop_t *loop;
  atomic_int *left;
  int64_t sum;
} member_t;

static void *be_one_of_many(void *arg) {
  member_t *self = arg;
  aloop_sync_future_t *futures[EACH];
  int numbers[EACH];
  for (int i = 0; i < EACH; i++) {
    numbers[i] = i;
    if (aloop_run_coroutine_threadsafe(self->loop, twice, &numbers[i], &futures[i]) < 0) abort();
  }
  for (int i = 0; i < EACH; i += 7) aloop_sync_cancel(futures[i]);
  for (int i = 0; i < EACH; i++) {
    int64_t value = aloop_sync_wait(futures[i], ALOOP_FOREVER);
    self->sum += value == ALOOP_ECANCELED ? 2 * i : value;
    aloop_sync_unref(aloop_sync_ref(futures[i]));
    aloop_sync_unref(futures[i]);
  }
  if (atomic_fetch_sub(self->left, 1) == 1) aloop_call_soon_threadsafe(self->loop, stop, NULL);
  return NULL;
}

static void many_threads_may_do_so_at_once(void **state) {
  atomic_int left = CROWD;
  member_t members[CROWD];
  pthread_t threads[CROWD];
  aloop_t *loop = real_loop(*state);
  for (int i = 0; i < CROWD; i++) {
    members[i] = (member_t){.loop = loop, .left = &left};
    threads[i] = begin_thread(be_one_of_many, &members[i]);
  }
  assert_int_equal(aloop_run_forever(loop), 0);
  for (int i = 0; i < CROWD; i++) {
    pthread_join(threads[i], NULL);
    assert_int_equal(members[i].sum, EACH * (EACH - 1));
  }
}

/* ---- Time and cancel ----------------------------------------------------------------------------------------- */

/* Counts up when it begins, and down when it ends. */
static int64_t wait_for_ever(aloop_t *loop, void *arg) {
  atomic_int *inside = arg;
  if (inside != NULL) atomic_fetch_add(inside, 1);
  int64_t rc = aloop_await(aloop_future_new(loop));
  if (inside != NULL) atomic_fetch_sub(inside, 1);
  return rc;
}

static void *lose_patience(void *arg) {
  feeder_t *self = arg;
  atomic_int inside = 0; /* it may be cancelled before it begins */
  aloop_sync_future_t *future;
  if (aloop_run_coroutine_threadsafe(self->loop, wait_for_ever, &inside, &future) < 0) abort();
  bool good = aloop_sync_wait(future, 0) == ALOOP_ETIMEDOUT && !aloop_sync_done(future);
  good = good && aloop_sync_wait(future, ALOOP_MILLIS(5)) == ALOOP_ETIMEDOUT;
  good = good && aloop_sync_cancel(future) == 1;
  good = good && aloop_sync_wait(future, ALOOP_FOREVER) == ALOOP_ECANCELED && atomic_load(&inside) == 0;
  good = good && aloop_sync_cancel(future) == 0 && aloop_sync_wait(future, 0) == ALOOP_ECANCELED;
  aloop_sync_unref(future);
  self->sum = good;
  aloop_call_soon_threadsafe(self->loop, stop, NULL);
  return NULL;
}

static void a_wait_has_a_limit_and_a_cancel_ends_it(void **state) {
  feeder_t feeder = {.loop = real_loop(*state)};
  pthread_t thread = begin_thread(lose_patience, &feeder);
  assert_int_equal(aloop_run_forever(feeder.loop), 0);
  pthread_join(thread, NULL);
  assert_int_equal(feeder.sum, 1);
}

static void *forget_it(void *arg) {
  feeder_t *self = arg;
  aloop_sync_future_t *future;
  if (aloop_run_coroutine_threadsafe(self->loop, twice, &self->sum, &future) < 0) abort();
  aloop_sync_unref(future);
  aloop_call_soon_threadsafe(self->loop, stop, NULL);
  return NULL;
}

static void one_that_nobody_holds_goes_on(void **state) {
  feeder_t feeder = {.loop = real_loop(*state)};
  pthread_t thread = begin_thread(forget_it, &feeder);
  assert_int_equal(aloop_run_forever(feeder.loop), 0);
  pthread_join(thread, NULL);
  while (run_turn(feeder.loop) > 0) continue;
  assert_int_equal(aloop_all_tasks(feeder.loop, NULL, 0), 0);
}

/* ---- The end of the loop ------------------------------------------------------------------------------------- */

typedef struct late {
  aloop_t *loop;
  aloop_task_fn fn;
  atomic_bool begun;
  int64_t result;
} late_t;

static void *wait_for_the_end(void *arg) {
  late_t *self = arg;
  aloop_sync_future_t *future;
  if (aloop_run_coroutine_threadsafe(self->loop, self->fn, NULL, &future) < 0) abort();
  atomic_store(&self->begun, true);
  self->result = aloop_sync_wait(future, ALOOP_FOREVER);
  aloop_sync_unref(future);
  return NULL;
}

static void closing_the_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  for (int turns = 0; turns < 3; turns++) { /* not yet taken; made; waiting */
    late_t late = {.loop = env->loop, .fn = wait_for_ever};
    pthread_t thread = begin_thread(wait_for_the_end, &late);
    while (!atomic_load(&late.begun)) usleep(100);
    for (int i = 0; i < turns; i++) run_turn(env->loop);
    aloop_free(env->loop);
    env->loop = NULL;
    pthread_join(thread, NULL);
    if (turns != 1) assert_int_equal(late.result, ALOOP_ECLOSED);
    if (turns == 1) assert_true(late.result == ALOOP_ECANCELED || late.result == ALOOP_ECLOSED);
    env_loop(env, (aloop_options_t){.debug = -1});
  }
}

static void a_closed_loop_begins_nothing(void **state) {
  env_t *env = *state;
  aloop_sync_future_t *future = NULL;
  aloop_close(env->loop);
  assert_int_equal(aloop_run_coroutine_threadsafe(env->loop, twice, NULL, &future), ALOOP_ECLOSED);
  assert_null(future);
}

static void a_sync_future_outlives_its_loop(void **state) {
  env_t *env = *state;
  int number = 4;
  aloop_sync_future_t *future;
  assert_int_equal(aloop_run_coroutine_threadsafe(env->loop, twice, &number, &future), 0);
  while (!aloop_sync_done(future)) run_turn(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(aloop_sync_wait(future, ALOOP_FOREVER), 8);
  assert_int_equal(aloop_sync_cancel(future), 0);
  aloop_sync_unref(future);
}

static void a_cancel_under_way_ends_with_the_loop(void **state) {
  env_t *env = *state;
  aloop_sync_future_t *future;
  assert_int_equal(aloop_run_coroutine_threadsafe(env->loop, wait_for_ever, NULL, &future), 0);
  assert_int_equal(aloop_sync_cancel(future), 1);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(aloop_sync_wait(future, 0), ALOOP_ECLOSED);
  aloop_sync_unref(future);
}

static void wait_here(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_sync_future_t *future = arg;
  assert_int_equal(aloop_sync_wait(future, ALOOP_FOREVER), ALOOP_EPERM);
  assert_int_equal(aloop_sync_wait(future, 0), ALOOP_ETIMEDOUT);
}

static void the_loops_own_thread_does_not_wait(void **state) {
  env_t *env = *state;
  aloop_sync_future_t *future;
  assert_int_equal(aloop_run_coroutine_threadsafe(env->loop, wait_for_ever, NULL, &future), 0);
  aloop_call_soon(env->loop, wait_here, future);
  run_turn(env->loop);
  aloop_sync_cancel(future);
  while (!aloop_sync_done(future)) run_turn(env->loop);
  aloop_sync_unref(future);
}

static void in_a_child_nobody_waits(void **state) {
  env_t *env = *state;
  int number = 4;
  aloop_sync_future_t *future;
  assert_int_equal(aloop_run_coroutine_threadsafe(env->loop, twice, &number, &future), 0);
  run_turn(env->loop);
  pid_t child = fork();
  if (child == 0) {
    bool good = aloop_after_fork(env->loop) == 0;
    for (int i = 0; i < 5; i++) good = good && aloop_run_once(env->loop, 0) >= 0;
    aloop_free(env->loop);
    _exit(good ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  while (!aloop_sync_done(future)) run_turn(env->loop);
  assert_int_equal(aloop_sync_wait(future, 0), 8);
  aloop_sync_unref(future);
}

/* ---- to_thread ----------------------------------------------------------------------------------------------- */

static int64_t work(void *arg) {
  return *(int *)arg + 1;
}

static int64_t send_away(aloop_t *loop, void *arg) {
  return aloop_await(aloop_to_thread(loop, work, arg));
}

static void a_task_sends_work_to_a_thread(void **state) {
  aloop_t *loop = real_loop(*state);
  int number = 41;
  assert_int_equal(aloop_run_until_complete(loop, aloop_create_task(loop, send_away, &number, NULL)), 42);
  aloop_run_until_complete(loop, aloop_shutdown_default_executor(loop, ALOOP_FOREVER));
}

TESTS(T(a_thread_gets_what_its_tasks_return), T(many_threads_may_do_so_at_once),
      T(a_wait_has_a_limit_and_a_cancel_ends_it), T(one_that_nobody_holds_goes_on),
      T(closing_the_loop_ends_the_wait), T(a_closed_loop_begins_nothing), T(a_sync_future_outlives_its_loop),
      T(a_cancel_under_way_ends_with_the_loop), T(the_loops_own_thread_does_not_wait),
      T(in_a_child_nobody_waits), T(a_task_sends_work_to_a_thread))
