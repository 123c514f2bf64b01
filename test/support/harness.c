/* SPDX-License-Identifier: MIT
 *
 * The test fixture: see harness.h. A loop under test allocates through a counting allocator; teardown frees
 * the loop and then compares descriptors and live blocks with what there was before. Time limits exist only to
 * end a test that hangs.
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "poller/ring.h"

static int64_t wall(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *counting_resize(void *user, void *block, size_t bytes) {
  env_t *env = user;
  long call = __atomic_add_fetch(&env->calls, 1, __ATOMIC_SEQ_CST);
  long from = __atomic_load_n(&env->fail_from, __ATOMIC_RELAXED);
  if (call == __atomic_load_n(&env->fail_at, __ATOMIC_RELAXED) || (from != 0 && call >= from)) return NULL;
  void *grown = realloc(block, bytes);
  if (grown != NULL && block == NULL) __atomic_add_fetch(&env->live, 1, __ATOMIC_SEQ_CST);
  return grown;
}

static void counting_release(void *user, void *block) {
  env_t *env = user;
  if (block != NULL) __atomic_sub_fetch(&env->live, 1, __ATOMIC_SEQ_CST);
  free(block);
}

static int collect_report(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop;
  env_t *env = arg;
  if (env->reports < REPORTS_MAX) {
    env->report_errors[env->reports] = context->error;
    snprintf(env->report_messages[env->reports], sizeof env->report_messages[0], "%s", context->message);
    snprintf(env->report_origins[env->reports], sizeof env->report_origins[0], "%s",
             context->origin ? context->origin : "");
  }
  env->reports++;
  return 0;
}

/* libkqueue closes what belongs to a kqueue in a thread of its own; this waits for it. No other library has
 * it. */
#ifdef __GNUC__
__attribute__((weak)) void libkqueue_drain_pending_close(void);

static bool settle(void) {
  if (libkqueue_drain_pending_close == NULL) return false;
  libkqueue_drain_pending_close();
  return true;
}
#else
static bool settle(void) {
  return false;
}
#endif

int open_fds(void) {
  settle();
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  int count = 0;
  static struct pollfd fds[4096];
  for (rlim_t base = 0; base < limit.rlim_cur && base < 65536; base += 4096) {
    for (int i = 0; i < 4096; i++) fds[i] = (struct pollfd){.fd = (int)base + i};
    rlim_t left = limit.rlim_cur - base;
    nfds_t n = left < 4096 ? (nfds_t)left : 4096;
    if (poll(fds, n, 0) < 0) break;
    for (nfds_t i = 0; i < n; i++) count += (fds[i].revents & POLLNVAL) == 0;
  }
  return count;
}

void env_watch(env_t *env, aloop_t *loop) {
  aloop_set_exception_handler(loop, collect_report, env);
}

void env_loop(env_t *env, aloop_options_t options) {
  aloop_free(env->loop);
  settle();
  options.size = sizeof options;
  options.allocator = &env->allocator;
  /* A machine that stands still for a while must not add reports to those that a test counts. */
  if (options.slow_callback_duration == 0) options.slow_callback_duration = ALOOP_SECONDS(1000);
  env->loop = NULL;
  assert_int_equal(aloop_new(&options, &env->loop), 0);
  env_watch(env, env->loop);
}

void trace_step(aloop_t *loop, void *arg) {
  (void)loop;
  step_t *step = arg;
  trace_t *trace = step->trace;
  if (trace->length + 1 < sizeof trace->text) trace->text[trace->length++] = step->letter;
}

void trace_done(aloop_future_t *future, void *arg) {
  assert_true(aloop_future_done(future));
  trace_step(aloop_future_loop(future), arg);
}

int run_turn(aloop_t *loop) {
  int rc = aloop_run_once(loop, 0);
  if (rc < 0) fail_msg("aloop_run_once: %s", aloop_error_name(rc));
  return rc;
}

void run_until(aloop_t *loop, const bool *flag) {
  int64_t limit = wall() + 30 * (int64_t)1000000000;
  while (!*flag) {
    int rc = aloop_run_once(loop, ALOOP_SECONDS(1));
    if (rc < 0) fail_msg("aloop_run_once: %s", aloop_error_name(rc));
    if (wall() > limit) fail_msg("still waiting after 30 s");
  }
}

int64_t run_future(aloop_t *loop, aloop_future_t *future) {
  assert_non_null(future);
  int64_t limit = wall() + 30 * (int64_t)1000000000;
  while (!aloop_future_done(future)) {
    int rc = aloop_run_once(loop, ALOOP_SECONDS(1));
    if (rc < 0) fail_msg("aloop_run_once: %s", aloop_error_name(rc));
    if (wall() > limit) fail_msg("future still pending after 30 s");
  }
  return aloop_future_result(future);
}

/* Returns whether the scenario got as far as the n-th allocation. */
static bool torture_once(env_t *env, void (*scenario)(env_t *env), long n, bool all) {
  env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  env->calls = 0;
  env->fail_at = all ? 0 : n;
  env->fail_from = all ? n : 0;
  scenario(env);
  bool reached = env->calls >= n;
  env->fail_at = env->fail_from = 0;
  aloop_free(env->loop);
  env->loop = NULL;
  if (env->live != 0)
    fail_msg("allocation %ld%s failed: %ld blocks live", n, all ? " and later ones" : "", env->live);
  return reached;
}

void torture(env_t *env, void (*scenario)(env_t *env)) {
  for (int all = 0; all < 2; all++) {
    long n = 1;
    while (torture_once(env, scenario, n, all)) n++;
    assert_true(n > 1);
  }
}

static void set_flags(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void make_socketpair(int fds[2]) {
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  set_flags(fds[0]);
  set_flags(fds[1]);
}

void make_pipe(int fds[2]) {
  assert_int_equal(pipe(fds), 0);
  set_flags(fds[0]);
  set_flags(fds[1]);
}

bool on_poller(const env_t *env, const char *name) {
  return strcmp(aloop_poller_name(env->loop), name) == 0;
}

bool on_libkqueue(const env_t *env) {
#ifdef HARNESS_LIBKQUEUE
  return on_poller(env, "kqueue");
#else
  (void)env;
  return false;
#endif
}

/* A kernel whose io_uring lacks something, as a number (poller/ring.h). */
static void play_older_kernel(void) {
#ifdef ALOOP_HAVE_IO_URING
  const char *lacks = getenv("ALOOP_RING_LACKS");
  if (lacks != NULL) atomic_store(&aloop__ring_forbidden, (unsigned)strtoul(lacks, NULL, 10));
#endif
}

int test_setup(void **state) {
  env_t *env = calloc(1, sizeof *env);
  if (env == NULL) return -1;
  signal(SIGPIPE, SIG_DFL); /* the library must do without it being ignored */
  env->allocator = (aloop_allocator_t){sizeof env->allocator, counting_resize, counting_release, env};
  env->fds = open_fds();
  play_older_kernel();
  *state = env;
  env_loop(env, (aloop_options_t){.debug = -1});
  return 0;
}

int test_teardown(void **state) {
  env_t *env = *state;
  __atomic_store_n(&env->fail_at, 0, __ATOMIC_RELAXED); /* a thread may still be reading them */
  __atomic_store_n(&env->fail_from, 0, __ATOMIC_RELAXED);
  aloop_free(env->loop);
  int fds = open_fds();
  for (int i = 0; i < 1000 && fds != env->fds && settle(); i++) {
    poll(NULL, 0, 1);
    fds = open_fds();
  }
  int leaked = fds != env->fds || env->live != 0;
  if (leaked) print_error("descriptors %d -> %d, live blocks %ld\n", env->fds, fds, env->live);
  free(env);
  return leaked ? -1 : 0;
}

int test_main(int argc, char **argv, const struct CMUnitTest *tests, size_t count) {
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  /* What libraries beneath open once and keep, they open now, before descriptors are counted. */
  aloop_t *first;
  if (aloop_new(NULL, &first) == 0) aloop_free(first);
  libkqueue_begin();
  return _cmocka_run_group_tests("tests", tests, count, NULL, NULL);
}
