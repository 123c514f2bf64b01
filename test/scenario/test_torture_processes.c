/* SPDX-License-Identifier: MIT
 *
 * Torture of a process pool: one is made, does jobs, meets a crash and a cancel, and ends, while a call fails in
 * the program, in the nursery or in a worker, which go on counting where the program was when it forked. Every
 * future ends, with a code that a caller may meet, and no process is left.
 *
 * faults: yes
 * threads: yes
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "torture.h"

enum { JOBS = 4, SIZE = 1000 };

static int64_t echo(const void *data, size_t size, aloop_reply_t *reply) {
  int rc = aloop_reply_add(reply, data, size);
  return rc < 0 ? rc : (int64_t)size;
}

static int64_t crash(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  _exit(3);
}

/* EAGAIN is nobody's own affair here: there can be no more processes. */
static bool may_be(int64_t error) {
  return error == ALOOP_EAGAIN || is_known(error);
}

static bool is_done(const void *future) {
  return aloop_future_done(future);
}

static void check_bytes(aloop_future_t *future, const char *data) {
  aloop_bytes_t *bytes;
  if (aloop_future_result_ptr(future, &bytes) < 0) return;
  ALWAYS(bytes->size == SIZE && memcmp(bytes->data, data, SIZE) == 0);
}

static void do_jobs(run_t *run, aloop_executor_t *pool) {
  char data[SIZE];
  memset(data, 'd', sizeof data);
  aloop_future_t *futures[JOBS];
  for (int i = 0; i < JOBS; i++)
    futures[i] = run_made(run, aloop_run_in_process(run->loop, pool, i == 1 ? crash : echo, data, SIZE));
  if (futures[3] != NULL) aloop_future_cancel(futures[3]);
  for (int i = 0; i < JOBS; i++) {
    if (futures[i] == NULL) continue;
    if (run_to(run, is_done, futures[i])) {
      int64_t value = aloop_future_result(futures[i]);
      NORMALLY(run, value == (i == 1 ? ALOOP_ECRASHED : i == 3 ? ALOOP_ECANCELED : SIZE));
      ALWAYS(value == SIZE || may_be(value));
      check_bytes(futures[i], data);
    }
    aloop_future_unref(futures[i]);
  }
}

/* Whether this process gets rid of its children. */
static bool no_children(void) {
  for (int i = 0; i < 10000; i++) {
    siginfo_t info;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD) return true;
    poll(NULL, 0, 1);
  }
  return false;
}

static void play(run_t *run) {
  aloop_process_pool_options_t options = {.size = sizeof options, .workers = 2};
  aloop_executor_t *pool;
  int rc = aloop_process_pool_new(&options, &pool);
  NORMALLY(run, rc == 0);
  ALWAYS(rc == 0 || may_be(rc));
  if (rc == 0 && run_open(run, -1)) do_jobs(run, pool);
  if (rc == 0) {
    int ended = aloop_executor_shutdown(pool, ALOOP_FOREVER, 0);
    ALWAYS(ended == 0);
    aloop_executor_unref(pool);
  }
  faults_pause();
  ALWAYS(no_children());
  faults_resume();
}

static void process_pools_are_tortured(void **state) {
  torture_all(*state, "process pool", play);
}

TESTS(T(process_pools_are_tortured))
