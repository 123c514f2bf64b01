/* SPDX-License-Identifier: MIT
 *
 * Process pools: jobs in other processes, what a crash costs, cancelling, and how pools and loops end. Workers
 * tell what they do in memory that they share with the test. threads: yes
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

typedef struct shared {
  atomic_int begun;
  atomic_int gate; /* jobs wait for it to open */
  atomic_int pid;  /* of the worker that began last */
} shared_t;

static shared_t *shared;
static int value_of_initializer;

static bool wait_for(const atomic_int *number, int value) {
  for (int i = 0; i < 30000; i++) {
    if (atomic_load(number) >= value) return true;
    poll(NULL, 0, 1);
  }
  return false;
}

static void note_begin(void) {
  atomic_store(&shared->pid, (int)getpid());
  atomic_fetch_add(&shared->begun, 1);
}

static int64_t echo(const void *data, size_t size, aloop_reply_t *reply) {
  note_begin();
  int rc = aloop_reply_add(reply, data, size);
  return rc < 0 ? rc : (int64_t)size;
}

static int64_t tell_pid(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  return getpid();
}

static int64_t tell_parent(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  return getppid();
}

static int64_t tell_value(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  return value_of_initializer;
}

static int64_t count_descriptors(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  int64_t count = 0;
  for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

/* Waits until as many jobs have begun as the byte says. */
static int64_t meet(const void *data, size_t size, aloop_reply_t *reply) {
  (void)size, (void)reply;
  note_begin();
  return wait_for(&shared->begun, *(const char *)data) ? getpid() : ALOOP_ETIMEDOUT;
}

static int64_t wait_at_gate(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  note_begin();
  return wait_for(&shared->gate, 1) ? 7 : ALOOP_ETIMEDOUT;
}

static int64_t hang(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  note_begin();
  while (pause() < 0) continue;
  return 0;
}

static int64_t crash(const void *data, size_t size, aloop_reply_t *reply) {
  (void)size, (void)reply;
  int how = *(const char *)data;
  struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (how == 'a') abort();
  if (how == 'x') _exit(3);
  if (how == 's') signal(SIGSEGV, SIG_DFL); /* a sanitizer has its own idea of it */
  raise(how == 's' ? SIGSEGV : SIGKILL);
  return 0;
}

static int64_t refuse(const void *data, size_t size, aloop_reply_t *reply) {
  if (size > 0) aloop_reply_add(reply, data, size);
  return ALOOP_EPERM;
}

/* A worker is a process like any other: it may have a loop, and a pool. */
static int64_t use_a_loop(const void *data, size_t size, aloop_reply_t *reply) {
  aloop_t *loop;
  aloop_executor_t *pool;
  int rc = aloop_process_pool_new(NULL, &pool);
  if (rc == 0) rc = aloop_new(NULL, &loop);
  if (rc < 0) return rc;
  (void)reply;
  int64_t value = aloop_run_until_complete(loop, aloop_run_in_process(loop, pool, echo, data, size));
  aloop_executor_unref(pool);
  aloop_free(loop);
  return value;
}

static int64_t plain(void *arg) {
  (void)arg;
  return 0;
}

/* ---- A pool ---------------------------------------------------------------------------------------------- */

static aloop_executor_t *new_pool(aloop_process_pool_options_t options) {
  aloop_executor_t *pool;
  void *memory = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_ptr_not_equal(memory, MAP_FAILED);
  shared = memory;
  options.size = sizeof options;
  assert_int_equal(aloop_process_pool_new(&options, &pool), 0);
  return pool;
}

static aloop_executor_t *pool_of(int workers) {
  return new_pool((aloop_process_pool_options_t){.workers = workers});
}

/* Whether this process gets rid of all its children, within a time. */
static bool no_children(void) {
  for (int i = 0; i < 30000; i++) {
    siginfo_t info;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD) return true;
    poll(NULL, 0, 1);
  }
  return false;
}

static void end_pool(aloop_executor_t *pool) {
  aloop_executor_unref(pool);
  assert_true(no_children());
  munmap(shared, sizeof *shared);
}

/* Waits until as many jobs have begun. */
static void await_begun(int count) {
  assert_true(wait_for(&shared->begun, count));
}

static void open_gate(void) {
  atomic_store(&shared->gate, 1);
}

/* Waits for the end of a job and gives its future up. */
static int64_t end_of(env_t *env, aloop_future_t *future) {
  int64_t value = run_future(env->loop, future);
  aloop_future_unref(future);
  return value;
}

static int64_t run(env_t *env, aloop_executor_t *pool, aloop_process_fn fn) {
  return end_of(env, aloop_run_in_process(env->loop, pool, fn, NULL, 0));
}

static void assert_fails(env_t *env, aloop_future_t *future, int error, const char *message) {
  assert_int_equal(run_future(env->loop, future), error);
  if (strstr(aloop_future_message(future), message) == NULL)
    fail_msg("\"%s\" does not say \"%s\"", aloop_future_message(future), message);
  aloop_future_unref(future);
}

static void assert_crashes(env_t *env, aloop_executor_t *pool, char how, const char *message) {
  assert_fails(env, aloop_run_in_process(env->loop, pool, crash, &how, 1), ALOOP_ECRASHED, message);
}

static void await_death(pid_t pid) {
  for (int i = 0; i < 30000; i++) {
    if (kill(pid, 0) < 0) return;
    poll(NULL, 0, 1);
  }
  fail_msg("the worker lives on");
}

/* ---- Running --------------------------------------------------------------------------------------------- */

static void a_job_runs_in_another_process(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  int64_t pid = run(env, pool, tell_pid);
  assert_true(pid > 0 && pid != getpid());
  assert_int_equal(run(env, pool, tell_pid), pid); /* the worker is kept */
  end_pool(pool);
}

static void bytes_go_to_and_fro(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_bytes_t *bytes;
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, echo, "hello", 5);
  assert_int_equal(run_future(env->loop, future), 5);
  assert_int_equal(aloop_future_result_ptr(future, &bytes), 0);
  assert_int_equal(bytes->size, 5);
  assert_int_equal(aloop_future_take_ptr(future, &bytes), 0);
  aloop_future_unref(future);
  assert_string_equal(bytes->data, "hello");
  free(bytes);
  end_pool(pool);
}

static void large_bytes_go_to_and_fro(void **state) {
  env_t *env = *state;
  enum { SIZE = 24 << 20 };
  aloop_executor_t *pool = pool_of(1);
  aloop_bytes_t *bytes;
  unsigned char *data = malloc(SIZE);
  assert_non_null(data);
  for (size_t i = 0; i < SIZE; i++) data[i] = (unsigned char)(i * 11 + i / 4096);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, echo, data, SIZE);
  assert_int_equal(run_future(env->loop, future), SIZE);
  assert_int_equal(aloop_future_result_ptr(future, &bytes), 0);
  assert_memory_equal(bytes->data, data, SIZE);
  aloop_future_unref(future);
  free(data);
  end_pool(pool);
}

static void workers_run_side_by_side(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(3);
  aloop_future_t *futures[3];
  int64_t pids[3];
  for (int i = 0; i < 3; i++) futures[i] = aloop_run_in_process(env->loop, pool, meet, "\3", 1);
  for (int i = 0; i < 3; i++) pids[i] = end_of(env, futures[i]);
  assert_true(pids[0] > 0 && pids[1] > 0 && pids[2] > 0);
  assert_true(pids[0] != pids[1] && pids[0] != pids[2] && pids[1] != pids[2]);
  end_pool(pool);
}

static void more_jobs_than_workers_wait(void **state) {
  env_t *env = *state;
  enum { JOBS = 100 };
  aloop_executor_t *pool = pool_of(2);
  aloop_future_t *futures[JOBS];
  for (int i = 0; i < JOBS; i++) futures[i] = aloop_run_in_process(env->loop, pool, echo, &i, sizeof i);
  for (int i = 0; i < JOBS; i++) {
    aloop_bytes_t *bytes;
    assert_int_equal(run_future(env->loop, futures[i]), sizeof i);
    assert_int_equal(aloop_future_result_ptr(futures[i], &bytes), 0);
    assert_memory_equal(bytes->data, &i, sizeof i);
    aloop_future_unref(futures[i]);
  }
  end_pool(pool);
}

static void workers_have_no_descriptor_of_ours(void **state) {
  env_t *env = *state;
  int fds[2];
  make_pipe(fds);
  aloop_executor_t *pool = pool_of(2);
  run(env, pool, tell_pid);
  assert_int_equal(run(env, pool, count_descriptors), 4); /* 0 to 2, and its socket */
  close(fds[1]);
  struct pollfd entry = {.fd = fds[0], .events = POLLIN};
  assert_int_equal(poll(&entry, 1, 30000), 1); /* EOF: nobody else has the other end */
  close(fds[0]);
  end_pool(pool);
}

static void initialize(void *arg) {
  value_of_initializer = *(int *)arg;
}

static void the_initializer_prepares_each_worker(void **state) {
  env_t *env = *state;
  static int value = 99;
  aloop_executor_t *pool = new_pool((aloop_process_pool_options_t){
      .workers = 1, .max_jobs = 1, .initializer = initialize, .initializer_arg = &value});
  assert_int_equal(run(env, pool, tell_value), 99);
  assert_int_equal(run(env, pool, tell_value), 99);
  assert_int_equal(value_of_initializer, 0);
  end_pool(pool);
}

static void a_worker_is_replaced_after_so_many_jobs(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = new_pool((aloop_process_pool_options_t){.workers = 1, .max_jobs = 2});
  int64_t pids[6];
  for (int i = 0; i < 6; i++) pids[i] = run(env, pool, tell_pid);
  for (int i = 0; i < 6; i += 2) assert_int_equal(pids[i], pids[i + 1]);
  assert_true(pids[1] != pids[2] && pids[3] != pids[4]);
  end_pool(pool);
}

static void a_code_comes_with_its_message(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  assert_fails(env, aloop_run_in_process(env->loop, pool, refuse, "not today", 9), ALOOP_EPERM, "not today");
  assert_fails(env, aloop_run_in_process(env->loop, pool, refuse, NULL, 0), ALOOP_EPERM,
               aloop_strerror(ALOOP_EPERM));
  end_pool(pool);
}

static void a_job_may_use_the_library(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  for (int i = 0; i < 2; i++)
    assert_int_equal(end_of(env, aloop_run_in_process(env->loop, pool, use_a_loop, "abc", 3)), 3);
  end_pool(pool);
}

static void statistics_are_kept(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_executor_stats_t stats = {.size = sizeof stats};
  for (int i = 0; i < 3; i++) run(env, pool, tell_pid);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  assert_int_equal(aloop_executor_stats(pool, &stats), 0);
  assert_int_equal(stats.lanes[ALOOP_LANE_USER].done, 3);
  end_pool(pool);
}

/* ---- Crashes --------------------------------------------------------------------------------------------- */

static void a_crash_is_told_as_what_it_was(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  assert_crashes(env, pool, 'a', "was killed by signal 6 (SIGABRT) before its job was done");
  assert_crashes(env, pool, 's', "was killed by signal 11 (SIGSEGV) before its job was done");
  assert_crashes(env, pool, 'k', "was killed by signal 9 (SIGKILL) before its job was done");
  assert_crashes(env, pool, 'x', "exited with code 3 before its job was done");
  assert_true(run(env, pool, tell_pid) > 0);
  end_pool(pool);
}

static void a_crash_costs_nobody_else_anything(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(2);
  aloop_future_t *other = aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0);
  await_begun(1);
  aloop_future_t *crashing = aloop_run_in_process(env->loop, pool, crash, "a", 1);
  aloop_future_t *queued = aloop_run_in_process(env->loop, pool, echo, "hello", 5);
  assert_fails(env, crashing, ALOOP_ECRASHED, "SIGABRT");
  assert_int_equal(end_of(env, queued), 5);
  assert_false(aloop_future_done(other));
  open_gate();
  assert_int_equal(end_of(env, other), 7);
  end_pool(pool);
}

static void a_worker_killed_from_outside_is_a_crash(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, hang, NULL, 0);
  await_begun(1);
  kill(atomic_load(&shared->pid), SIGKILL);
  assert_fails(env, future, ALOOP_ECRASHED, "SIGKILL");
  end_pool(pool);
}

static void an_idle_worker_that_died_is_replaced(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  int64_t pid = run(env, pool, tell_pid);
  kill((pid_t)pid, SIGKILL);
  await_death((pid_t)pid);
  assert_true(run(env, pool, tell_pid) != pid);
  end_pool(pool);
}

static void crash_in_initializer(void *arg) {
  (void)arg;
  _exit(9);
}

static void a_crash_of_the_initializer_fails_the_job(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool =
      new_pool((aloop_process_pool_options_t){.workers = 1, .initializer = crash_in_initializer});
  for (int i = 0; i < 2; i++)
    assert_fails(env, aloop_run_in_process(env->loop, pool, echo, "x", 1), ALOOP_ECRASHED,
                 "exited with code 9");
  end_pool(pool);
}

static void without_the_nursery_there_are_no_more_workers(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(2);
  pid_t nursery = (pid_t)run(env, pool, tell_parent);
  aloop_future_t *running = aloop_run_in_process(env->loop, pool, hang, NULL, 0);
  await_begun(1);
  kill(nursery, SIGKILL);
  assert_fails(env, running, ALOOP_ECRASHED, "and the process that made it are gone");
  assert_fails(env, aloop_run_in_process(env->loop, pool, echo, "x", 1), ALOOP_ECRASHED, "make a new pool");
  end_pool(pool);
}

static void a_storm_of_crashes_passes(void **state) {
  env_t *env = *state;
  enum { JOBS = 200 };
  aloop_executor_t *pool = new_pool((aloop_process_pool_options_t){.workers = 4, .max_jobs = 5});
  aloop_future_t *futures[JOBS];
  for (int i = 0; i < JOBS; i++) {
    aloop_process_fn fn = i % 3 == 1 ? crash : echo;
    futures[i] = aloop_run_in_process(env->loop, pool, fn, &"xak"[i % 2 * 2], 1);
  }
  for (int i = 2; i < JOBS; i += 3) aloop_future_cancel(futures[i]);
  for (int i = 0; i < JOBS; i++) {
    static const int ends[] = {1, ALOOP_ECRASHED, ALOOP_ECANCELED};
    assert_int_equal(end_of(env, futures[i]), ends[i % 3]);
  }
  end_pool(pool);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------ */

static void a_queued_job_can_be_cancelled(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *first = aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0);
  await_begun(1);
  aloop_future_t *second = aloop_run_in_process(env->loop, pool, echo, "x", 1);
  assert_int_equal(aloop_future_cancel(second), 1);
  aloop_future_unref(second);
  open_gate();
  assert_int_equal(end_of(env, first), 7);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  assert_int_equal(atomic_load(&shared->begun), 1);
  end_pool(pool);
}

static void cancelling_a_running_job_kills_its_worker(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, hang, NULL, 0);
  await_begun(1);
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_true(aloop_future_cancelled(future));
  aloop_future_unref(future);
  await_death(atomic_load(&shared->pid));
  assert_true(run(env, pool, tell_pid) > 0);
  end_pool(pool);
}

static void a_deadline_kills_too(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, hang, NULL, 0);
  await_begun(1);
  assert_int_equal(end_of(env, aloop_wait_for(future, ALOOP_MILLIS(5))), ALOOP_ETIMEDOUT);
  await_death(atomic_load(&shared->pid));
  end_pool(pool);
}

static void whoever_ends_the_future_ends_the_job(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, hang, NULL, 0);
  await_begun(1);
  assert_int_equal(aloop_future_set_value(future, 5), 0);
  await_death(atomic_load(&shared->pid));
  assert_int_equal(end_of(env, future), 5);
  end_pool(pool);
}

static void a_future_that_is_given_up_goes_on(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_detach(aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0));
  await_begun(1);
  open_gate();
  assert_true(run(env, pool, tell_pid) == atomic_load(&shared->pid));
  end_pool(pool);
}

static void cancelling_at_any_moment_is_safe(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(2);
  for (int i = 0; i < 60; i++) {
    aloop_future_t *future = aloop_run_in_process(env->loop, pool, echo, "hello", 5);
    for (int spin = 0; spin < i * 20; spin++) sched_yield();
    aloop_future_cancel(future);
    aloop_future_unref(future);
    if (i % 8 == 0) assert_int_equal(end_of(env, aloop_run_in_process(env->loop, pool, echo, "x", 1)), 1);
  }
  end_pool(pool);
}

/* ---- Refusals -------------------------------------------------------------------------------------------- */

static void wrong_arguments_are_refused(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1), *threads, *none;
  assert_int_equal(aloop_thread_pool_new(NULL, &threads), 0);
  assert_fails(env, aloop_run_in_process(env->loop, NULL, echo, "x", 1), ALOOP_EINVAL,
               "aloop_process_pool_new");
  assert_fails(env, aloop_run_in_process(env->loop, threads, echo, "x", 1), ALOOP_EINVAL, "process_pool");
  assert_fails(env, aloop_run_in_process(env->loop, pool, NULL, "x", 1), ALOOP_EINVAL, "function");
  assert_fails(env, aloop_run_in_process(env->loop, pool, echo, NULL, 1), ALOOP_EINVAL, "NULL");
  assert_null(aloop_run_in_process(env->loop, pool, echo, "x", SIZE_MAX));
  assert_int_equal(aloop_process_pool_new(NULL, NULL), ALOOP_EINVAL);
  aloop_process_pool_options_t options = {.workers = 1};
  assert_int_equal(aloop_process_pool_new(&options, &none), ALOOP_EINVAL); /* no size */
  options = (aloop_process_pool_options_t){.size = sizeof options, .workers = -1};
  assert_int_equal(aloop_process_pool_new(&options, &none), ALOOP_EINVAL);
  options = (aloop_process_pool_options_t){.size = sizeof options, .max_jobs = -1};
  assert_int_equal(aloop_process_pool_new(&options, &none), ALOOP_EINVAL);
  aloop_executor_unref(threads);
  end_pool(pool);
}

static void jobs_of_this_process_are_refused(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  assert_fails(env, aloop_run_in_executor(env->loop, pool, plain, NULL), ALOOP_ENOTSUP, "aloop_run_in_process");
  end_pool(pool);
}

static void options_may_be_left_out(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool;
  assert_int_equal(aloop_process_pool_new(NULL, &pool), 0);
  assert_true(run(env, pool, tell_pid) > 0);
  aloop_executor_unref(pool);
  assert_true(no_children());
}

static void a_full_queue_refuses(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = new_pool((aloop_process_pool_options_t){.workers = 1, .queue_limit = 1});
  aloop_future_t *running = aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0);
  await_begun(1);
  aloop_future_t *queued = aloop_run_in_process(env->loop, pool, echo, "x", 1);
  assert_fails(env, aloop_run_in_process(env->loop, pool, echo, "x", 1), ALOOP_EAGAIN, "full");
  open_gate();
  assert_int_equal(end_of(env, running), 7);
  assert_int_equal(end_of(env, queued), 1);
  end_pool(pool);
}

static void in_a_child_of_the_program_the_pool_is_refused(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  int64_t pid = run(env, pool, tell_pid);
  int status = -1;
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    if (aloop_after_fork(env->loop) < 0) _exit(2);
    aloop_future_t *future = aloop_run_in_process(env->loop, pool, echo, "x", 1);
    if (future == NULL || aloop_future_result(future) != ALOOP_ECHILD) _exit(3);
    aloop_future_unref(future);
    aloop_executor_unref(pool);
    aloop_free(env->loop);
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_int_equal(run(env, pool, tell_pid), pid); /* here all is well */
  end_pool(pool);
}

static void in_a_child_a_running_job_is_the_parents(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0);
  await_begun(1);
  int status = -1;
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    if (aloop_after_fork(env->loop) < 0) _exit(2);
    aloop_future_cancel(future);
    aloop_future_unref(future);
    aloop_free(env->loop);
    aloop_executor_unref(pool);
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  open_gate();
  assert_int_equal(end_of(env, future), 7);
  end_pool(pool);
}

/* ---- Shutting down --------------------------------------------------------------------------------------- */

static void a_shutdown_waits_for_queued_jobs(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *first = aloop_run_in_process(env->loop, pool, echo, "x", 1);
  aloop_future_t *second = aloop_run_in_process(env->loop, pool, echo, "xy", 2);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  assert_int_equal(atomic_load(&shared->begun), 2);
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* all gone already */
  assert_int_equal(errno, ECHILD);
  assert_int_equal(end_of(env, first), 1);
  assert_int_equal(end_of(env, second), 2);
  assert_int_equal(run(env, pool, echo), ALOOP_ECLOSED);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  end_pool(pool);
}

static void a_shutdown_need_not_wait(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *first = aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0);
  await_begun(1);
  aloop_future_t *second = aloop_run_in_process(env->loop, pool, echo, "xy", 2);
  aloop_executor_shutdown(pool, 0, 0);
  assert_int_equal(run(env, pool, echo), ALOOP_ECLOSED);
  open_gate();
  assert_int_equal(end_of(env, first), 7);
  assert_int_equal(end_of(env, second), 2);
  assert_true(no_children()); /* though nobody looks at the pool again */
  end_pool(pool);
}

static void a_shutdown_waits_until_its_deadline(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, hang, NULL, 0);
  await_begun(1);
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_MILLIS(20), 0), ALOOP_ETIMEDOUT);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  assert_true(no_children());
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, 0), 0);
  end_pool(pool);
}

static void a_shutdown_can_cancel_what_is_queued(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *first = aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0);
  await_begun(1);
  aloop_future_t *second = aloop_run_in_process(env->loop, pool, echo, "xy", 2);
  open_gate();
  assert_int_equal(aloop_executor_shutdown(pool, ALOOP_FOREVER, ALOOP_CANCEL_QUEUED), 0);
  int64_t value = end_of(env, second);
  assert_true(value == ALOOP_ECANCELED || value == 2); /* the first may have been quick */
  assert_int_equal(end_of(env, first), 7);
  end_pool(pool);
}

static void the_last_reference_waits_for_nobody(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *first = aloop_run_in_process(env->loop, pool, wait_at_gate, NULL, 0);
  aloop_future_t *second = aloop_run_in_process(env->loop, pool, echo, "xy", 2);
  aloop_executor_unref(pool);
  open_gate();
  assert_int_equal(end_of(env, first), 7);
  assert_int_equal(end_of(env, second), 2);
  assert_true(no_children());
  end_pool(NULL);
}

static void a_pool_without_jobs_leaves_nothing(void **state) {
  (void)state;
  end_pool(pool_of(3));
}

/* ---- Loops ----------------------------------------------------------------------------------------------- */

static void closing_the_loop_kills_what_runs_for_it(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_future_t *running = aloop_run_in_process(env->loop, pool, hang, NULL, 0);
  aloop_future_t *queued = aloop_run_in_process(env->loop, pool, echo, "x", 1);
  await_begun(1);
  pid_t pid = atomic_load(&shared->pid);
  aloop_close(env->loop);
  assert_true(aloop_future_cancelled(running));
  assert_true(aloop_future_cancelled(queued));
  aloop_future_unref(running);
  aloop_future_unref(queued);
  await_death(pid);
  env_loop(env, (aloop_options_t){.debug = -1});
  assert_int_equal(end_of(env, aloop_run_in_process(env->loop, pool, echo, "xy", 2)), 2);
  end_pool(pool);
}

static void a_closed_loop_is_refused(void **state) {
  env_t *env = *state;
  aloop_executor_t *pool = pool_of(1);
  aloop_close(env->loop);
  aloop_future_t *future = aloop_run_in_process(env->loop, pool, echo, "x", 1);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
  end_pool(pool);
}

typedef struct other {
  aloop_executor_t *pool;
  bool well;
} other_t;

static void *use_pool(void *arg) {
  other_t *self = arg;
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return NULL;
  self->well = true;
  for (int i = 0; i < 50; i++) {
    int64_t size = aloop_run_until_complete(loop, aloop_run_in_process(loop, self->pool, echo, "hello", 5));
    if (size != 5) self->well = false;
  }
  aloop_executor_unref(self->pool);
  aloop_free(loop);
  return NULL;
}

static void loops_in_several_threads_share_a_pool(void **state) {
  (void)state;
  aloop_executor_t *pool = pool_of(2);
  other_t others[3];
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) {
    others[i] = (other_t){aloop_executor_ref(pool), false};
    assert_int_equal(pthread_create(&threads[i], NULL, use_pool, &others[i]), 0);
  }
  aloop_executor_unref(pool);
  for (int i = 0; i < 3; i++) {
    pthread_join(threads[i], NULL);
    assert_true(others[i].well);
  }
  end_pool(NULL);
}

static atomic_bool busy;

/* What a compiler cannot leave out. */
static void use_memory(size_t size) {
  void *volatile block = malloc(size);
  free(block);
}

static void *allocate(void *arg) {
  unsigned size = 1;
  while (atomic_load(&busy)) {
    size = (size * 7 + 11) % 5000;
    use_memory(size + 1);
  }
  return arg;
}

static int64_t allocate_too(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size;
  for (size_t i = 0; i < 100; i++) use_memory(i * 100 + 1);
  return aloop_reply_add(reply, "x", 1);
}

/* Not what pools are for, but their workers must not wait for locks of threads that stayed behind. */
static void a_pool_can_be_made_among_busy_threads(void **state) {
  env_t *env = *state;
  pthread_t threads[3];
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
  skip(); /* its malloc has such locks; the C library's takes care at a fork */
#endif
  atomic_store(&busy, true);
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, allocate, NULL), 0);
  for (int i = 0; i < 20; i++) {
    aloop_executor_t *pool = pool_of(1);
    assert_int_equal(run(env, pool, allocate_too), 0);
    end_pool(pool);
  }
  atomic_store(&busy, false);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static aloop_executor_t *tortured;

static void play(env_t *env) {
  for (int i = 0; i < 2; i++) {
    aloop_future_t *future = aloop_run_in_process(env->loop, tortured, echo, "hello", 5);
    if (future == NULL) continue;
    if (i == 1) aloop_future_cancel(future);
    int64_t value = run_future(env->loop, future);
    assert_true(value == (i == 1 ? ALOOP_ECANCELED : 5) || value == ALOOP_ENOMEM);
    aloop_future_unref(future);
  }
}

static void want_of_memory_is_survived(void **state) {
  env_t *env = *state;
  tortured = pool_of(1);
  torture(env, play);
  end_pool(tortured);
}

TESTS(T(a_job_runs_in_another_process), T(bytes_go_to_and_fro), T(large_bytes_go_to_and_fro),
      T(workers_run_side_by_side), T(more_jobs_than_workers_wait), T(workers_have_no_descriptor_of_ours),
      T(the_initializer_prepares_each_worker), T(a_worker_is_replaced_after_so_many_jobs),
      T(a_code_comes_with_its_message), T(a_job_may_use_the_library), T(statistics_are_kept),
      T(a_crash_is_told_as_what_it_was), T(a_crash_costs_nobody_else_anything),
      T(a_worker_killed_from_outside_is_a_crash), T(an_idle_worker_that_died_is_replaced),
      T(a_crash_of_the_initializer_fails_the_job), T(without_the_nursery_there_are_no_more_workers),
      T(a_storm_of_crashes_passes), T(a_queued_job_can_be_cancelled),
      T(cancelling_a_running_job_kills_its_worker), T(a_deadline_kills_too),
      T(whoever_ends_the_future_ends_the_job), T(a_future_that_is_given_up_goes_on),
      T(cancelling_at_any_moment_is_safe), T(wrong_arguments_are_refused), T(jobs_of_this_process_are_refused),
      T(options_may_be_left_out), T(a_full_queue_refuses), T(in_a_child_of_the_program_the_pool_is_refused),
      T(in_a_child_a_running_job_is_the_parents), T(a_shutdown_waits_for_queued_jobs),
      T(a_shutdown_need_not_wait), T(a_shutdown_waits_until_its_deadline),
      T(a_shutdown_can_cancel_what_is_queued), T(the_last_reference_waits_for_nobody),
      T(a_pool_without_jobs_leaves_nothing), T(closing_the_loop_kills_what_runs_for_it),
      T(a_closed_loop_is_refused), T(loops_in_several_threads_share_a_pool),
      T(a_pool_can_be_made_among_busy_threads), T(want_of_memory_is_survived))
