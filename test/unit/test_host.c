/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 * threads: yes
 *
 * A host that runs the loop inside its own: it waits on the loop's descriptor no longer than the loop says,
 * then gives it a turn. Nothing else may be needed for I/O, timers and posts to come through. And a child of a
 * fork, whose loop must leave the parent's alone.
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop.h"

enum { SAFETY_MS = 10000 }; /* only a lost wake-up waits that long */

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void skip_without_descriptor(env_t *env) {
  if (aloop_backend_fd(env->loop) == ALOOP_ENOTSUP) skip();
}

/* What a host does once. Returns false if it waited in vain. */
static bool host_step(aloop_t *loop) {
  int64_t timeout = aloop_next_timeout(loop);
  assert_true(timeout >= ALOOP_FOREVER);
  bool limited = timeout != ALOOP_FOREVER && timeout < ALOOP_MILLIS(SAFETY_MS);
  struct pollfd backend = {.fd = aloop_backend_fd(loop), .events = POLLIN};
  int ready = poll(&backend, 1, limited ? (int)((timeout + 999999) / 1000000) : SAFETY_MS);
  run_turn(loop);
  return ready > 0 || limited;
}

static void host_until(aloop_t *loop, const int *counter, int wanted) {
  while (*counter < wanted) assert_true(host_step(loop));
}

static void take_byte(aloop_t *loop, void *arg) {
  (void)loop;
  int *fd = arg;
  char byte;
  if (read(fd[0], &byte, 1) == 1) fd[2]++;
}

static void a_host_hears_of_io(void **state) {
  env_t *env = *state;
  skip_without_descriptor(env);
  int fds[3] = {0};
  make_pipe(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], take_byte, fds), 0);
  for (int i = 1; i <= 3; i++) {
    assert_int_equal(write(fds[1], "x", 1), 1);
    host_until(env->loop, &fds[2], i);
  }
  aloop_remove_reader(env->loop, fds[0]);
  close(fds[0]);
  close(fds[1]);
}

static void a_host_hears_of_timers(void **state) {
  env_t *env = *state;
  skip_without_descriptor(env);
  int calls = 0;
  aloop_call_later(env->loop, ALOOP_MILLIS(3), count, &calls);
  aloop_call_later(env->loop, ALOOP_MILLIS(1), count, &calls);
  host_until(env->loop, &calls, 2);
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
}

/* The first post is special to the mailbox, so there are more of them. */
static void a_host_hears_of_each_post(void **state) {
  env_t *env = *state;
  skip_without_descriptor(env);
  int calls = 0;
  for (int i = 1; i <= 5; i++) {
    assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER); /* the host goes to sleep */
    assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), 0);
    struct pollfd backend = {.fd = aloop_backend_fd(env->loop), .events = POLLIN};
    assert_int_equal(poll(&backend, 1, 0), 1);
    while (calls < i) run_turn(env->loop);
    run_turn(env->loop);
    assert_int_equal(poll(&backend, 1, 0), 0); /* and is not kept awake */
  }
}

static void a_host_hears_of_what_was_posted_before_it_asked(void **state) {
  env_t *env = *state;
  int calls = 0;
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), 0);
  struct pollfd backend = {.fd = aloop_backend_fd(env->loop), .events = POLLIN};
  if (backend.fd == ALOOP_ENOTSUP) skip();
  assert_int_equal(poll(&backend, 1, 0), 1);
  host_until(env->loop, &calls, 1);
}

typedef struct pong {
  aloop_t *loop;
  atomic_int heard;
  int rounds;
} pong_t;

static void hear(aloop_t *loop, void *arg) {
  (void)loop;
  atomic_fetch_add(&((pong_t *)arg)->heard, 1);
}

/* Each post meets a host that sleeps or is about to. */
static void *ping(void *arg) {
  pong_t *pong = arg;
  for (int i = 0; i < pong->rounds; i++) {
    while (atomic_load(&pong->heard) < i) poll(NULL, 0, 0);
    if (aloop_call_soon_threadsafe(pong->loop, hear, pong) < 0) return arg;
  }
  return NULL;
}

static void no_post_to_a_hosted_loop_is_lost(void **state) {
  env_t *env = *state;
  skip_without_descriptor(env);
  pong_t pong = {.loop = env->loop, .rounds = 2000};
  pthread_t thread;
  void *failed;
  assert_int_equal(pthread_create(&thread, NULL, ping, &pong), 0);
  while (atomic_load(&pong.heard) < pong.rounds) assert_true(host_step(env->loop));
  pthread_join(thread, &failed);
  assert_null(failed);
}

/* A loop that ran by itself before its host took over. */
static void a_host_may_take_over_from_a_run(void **state) {
  env_t *env = *state;
  skip_without_descriptor(env);
  int calls = 0;
  aloop_call_soon_threadsafe(env->loop, count, &calls);
  while (calls < 1) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  aloop_stop(env->loop);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  aloop_call_soon_threadsafe(env->loop, count, &calls);
  host_until(env->loop, &calls, 2);
}

static void the_next_timeout_is_exact(void **state) {
  env_t *env = *state;
  int calls = 0;
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
  aloop_handle_t timer = aloop_call_later(env->loop, ALOOP_SECONDS(5), count, &calls);
  int64_t timeout = aloop_next_timeout(env->loop);
  assert_true(timeout > ALOOP_SECONDS(4) && timeout <= ALOOP_SECONDS(5));
  aloop_handle_t soon = aloop_call_soon(env->loop, count, &calls);
  assert_int_equal(aloop_next_timeout(env->loop), 0);
  aloop_cancel(env->loop, &soon);
  run_turn(env->loop); /* a cancelled callback keeps its place until then */
  assert_true(aloop_next_timeout(env->loop) > 0);
  aloop_cancel(env->loop, &timer);
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
  aloop_call_later(env->loop, 0, count, &calls);
  assert_int_equal(aloop_next_timeout(env->loop), 0);
  aloop_stop(env->loop);
  assert_int_equal(aloop_next_timeout(env->loop), 0);
}

static void the_hook_tells_of_what_is_due_sooner(void **state) {
  env_t *env = *state;
  int armed = 0, calls = 0;
  assert_int_equal(aloop_set_armed_hook(env->loop, count, &armed), 0);
  aloop_handle_t timer = aloop_call_later(env->loop, ALOOP_SECONDS(10), count, &calls);
  assert_int_equal(armed, 1);
  aloop_call_later(env->loop, ALOOP_SECONDS(20), count, &calls); /* later: no news */
  assert_int_equal(armed, 1);
  aloop_call_later(env->loop, ALOOP_SECONDS(5), count, &calls);
  assert_int_equal(armed, 2);
  aloop_reschedule(env->loop, &timer, aloop_time(env->loop) + ALOOP_SECONDS(30)); /* later: no news */
  assert_int_equal(armed, 2);
  aloop_reschedule(env->loop, &timer, aloop_time(env->loop) + ALOOP_SECONDS(1));
  assert_int_equal(armed, 3);
  aloop_call_soon(env->loop, count, &calls);
  assert_int_equal(armed, 4);
  aloop_stop(env->loop);
  assert_int_equal(armed, 5);
}

static void schedule_more(aloop_t *loop, void *arg) {
  aloop_call_soon(loop, count, arg);
  aloop_call_later(loop, 1, count, arg);
  aloop_stop(loop);
}

static void the_hook_is_silent_inside_a_turn(void **state) {
  env_t *env = *state;
  int armed = 0, calls = 0;
  aloop_call_soon(env->loop, schedule_more, &calls);
  aloop_set_armed_hook(env->loop, count, &armed);
  run_turn(env->loop);
  assert_int_equal(armed, 0);
}

static void nonsense_is_refused(void **state) {
  (void)state;
  assert_int_equal(aloop_backend_fd(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_next_timeout(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_set_armed_hook(NULL, count, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_after_fork(NULL), ALOOP_EINVAL);
}

/* ---- Fork ------------------------------------------------------------------------------------------------ */

/* Runs `in_child` in a child of a fork; it returns 0 if all is well. */
static void expect_of_child(env_t *env, int (*in_child)(env_t *env, void *arg), void *arg) {
  if (on_libkqueue(env)) return; /* its child may only exec */
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(in_child(env, arg));
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
}

/* The old wake-up descriptor is closed when there can be no new one; its number may be anybody's then. */
static int post_without_descriptors(env_t *env, void *arg) {
  const int *fds = arg;
  struct rlimit limit, none;
  char bytes[16];
  int copies[2], calls = 0;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
  none = limit;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_NOFILE, &none);
  int rc = aloop_after_fork(env->loop);
  setrlimit(RLIMIT_NOFILE, &limit);
  if (rc != ALOOP_EMFILE) return 2;
  for (int i = 0; i < 2; i++) copies[i] = dup(fds[1]);
  if (aloop_call_soon_threadsafe(env->loop, count, &calls) != 0) return 3;
  if (read(fds[0], bytes, sizeof bytes) > 0) return 4;
  for (int i = 0; i < 2; i++) close(copies[i]);
  if (aloop_after_fork(env->loop) != 0) return 5;
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  return calls == 1 ? 0 : 6;
}

static void a_child_that_gets_no_descriptors_writes_to_no_other(void **state) {
  env_t *env = *state;
  int fds[2];
  make_pipe(fds);
  expect_of_child(env, post_without_descriptors, fds);
  close(fds[0]);
  close(fds[1]);
}

static int free_loop(env_t *env, void *arg) {
  (void)arg;
  aloop_free(env->loop);
  return 0;
}

static int stop_watching(env_t *env, void *arg) {
  const int *fds = arg;
  return aloop_remove_reader(env->loop, fds[0]) == 1 ? 0 : 1;
}

static void what_a_child_stops_goes_on_in_the_parent(void **state) {
  env_t *env = *state;
  int fds[3] = {0}, posts = 0;
  make_pipe(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], take_byte, fds), 0);
  run_turn(env->loop);
  expect_of_child(env, stop_watching, fds);
  expect_of_child(env, free_loop, NULL);
  assert_int_equal(write(fds[1], "x", 1), 1);
  run_turn(env->loop);
  assert_int_equal(fds[2], 1);
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &posts), 0);
  while (posts == 0) assert_true(aloop_run_once(env->loop, ALOOP_MILLIS(SAFETY_MS)) > 0);
  aloop_remove_reader(env->loop, fds[0]);
  close(fds[0]);
  close(fds[1]);
}

static int watch_then_go_on(env_t *env, void *arg) {
  int *fds = arg;
  if (aloop_add_reader(env->loop, fds[0], take_byte, fds) != 0) return 1;
  if (aloop_after_fork(env->loop) != 0) return 2;
  if (write(fds[1], "x", 1) != 1 || aloop_run_once(env->loop, 0) != 1 || fds[2] != 1) return 3;
  aloop_free(env->loop);
  return 0;
}

static void what_a_child_watches_before_it_goes_on_is_its_own(void **state) {
  env_t *env = *state;
  int fds[3] = {0};
  make_pipe(fds);
  expect_of_child(env, watch_then_go_on, fds);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(write(fds[1], "x", 1), 1);
  run_turn(env->loop);
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.stale, 0); /* no event of a watch that only the child had */
  close(fds[0]);
  close(fds[1]);
}

/* A handler that mends what it is told of: it watches something else in its place. */
typedef struct mender {
  int fds[3];
  int reports;
} mender_t;

static int mend(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  mender_t *mender = arg;
  mender->reports++;
  aloop_remove_reader(loop, context->fd);
  return aloop_add_reader(loop, mender->fds[0], take_byte, mender->fds);
}

static int go_on_with_a_loss(env_t *env, void *arg) {
  const int *lost = arg;
  mender_t mender = {0};
  make_pipe(mender.fds);
  if (close(*lost) != 0 || aloop_set_exception_handler(env->loop, mend, &mender) != 0) return 1;
  if (aloop_after_fork(env->loop) != 0 || mender.reports != 1) return 2;
  if (write(mender.fds[1], "x", 1) != 1 || aloop_run_once(env->loop, ALOOP_SECONDS(1)) < 1) return 3;
  return mender.fds[2] == 1 ? 0 : 4;
}

static void what_is_watched_while_a_loss_is_reported_is_watched(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_pipe(fds);
  int high = fcntl(fds[0], F_DUPFD_CLOEXEC, 100); /* whatever is opened later lies below it */
  assert_int_equal(aloop_add_reader(env->loop, high, count, &calls), 0);
  expect_of_child(env, go_on_with_a_loss, &high);
  aloop_remove_reader(env->loop, high);
  close(high);
  close(fds[0]);
  close(fds[1]);
}

enum { POSTS = 3000, ALLOCATIONS = 20 };

typedef struct shortage {
  long nth; /* allocation from which on they fail */
  int calls;
  int fds[3];
} shortage_t;

static int go_on_without_memory(env_t *env, void *arg) {
  shortage_t *shortage = arg;
  env->fail_from = env->calls + shortage->nth;
  int rc = aloop_after_fork(env->loop);
  if (shortage->nth == 1 && rc != ALOOP_ENOMEM) return 1;
  if (rc != 0 && (rc != ALOOP_ENOMEM || aloop_run_once(env->loop, 0) != ALOOP_ECHILD)) return 2;
  env->fail_from = 0;
  if (aloop_after_fork(env->loop) != 0 || write(shortage->fds[1], "x", 1) != 1) return 3;
  for (int i = 0; i < 10; i++) aloop_run_once(env->loop, 0);
  aloop_free(env->loop);
  return shortage->calls == POSTS && shortage->fds[2] == 1 ? 0 : 4;
}

static void a_child_keeps_everything_even_if_memory_is_short_at_first(void **state) {
  env_t *env = *state;
  shortage_t shortage = {0};
  for (int i = 0; i < POSTS; i++)
    assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &shortage.calls), 0);
  for (shortage.nth = 1; shortage.nth < ALLOCATIONS; shortage.nth++) {
    make_pipe(shortage.fds);
    assert_int_equal(aloop_add_reader(env->loop, shortage.fds[0], take_byte, shortage.fds), 0);
    expect_of_child(env, go_on_without_memory, &shortage);
    aloop_remove_reader(env->loop, shortage.fds[0]);
    close(shortage.fds[0]);
    close(shortage.fds[1]);
  }
  assert_int_equal(shortage.calls, 0);
}

/* As if another thread were in the middle of a post when the process forked. */
static int free_with_a_post_under_way(env_t *env, void *arg) {
  (void)arg;
  atomic_fetch_add(&env->loop->mailbox.state, 4);
  atomic_fetch_add(&env->loop->mailbox.wakers, 1);
  aloop_free(env->loop);
  return 0;
}

static void a_child_does_not_wait_for_posters_that_stayed_behind(void **state) {
  env_t *env = *state;
  int calls = 0;
  aloop_call_soon_threadsafe(env->loop, count, &calls);
  expect_of_child(env, free_with_a_post_under_way, NULL);
}

static void without_a_fork_there_is_nothing_to_do(void **state) {
  env_t *env = *state;
  int calls = 0, fds = open_fds();
  aloop_call_soon(env->loop, count, &calls);
  assert_int_equal(aloop_after_fork(env->loop), 0);
  assert_int_equal(open_fds(), fds);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
}

static int run_untold(env_t *env, void *arg) {
  (void)arg;
  if (aloop_running_loop() != NULL) return 1;
  if (aloop_run_once(env->loop, 0) != ALOOP_ECHILD || aloop_run_forever(env->loop) != ALOOP_ECHILD) return 2;
  if (aloop_after_fork(env->loop) != 0 || aloop_run_once(env->loop, 0) != 0) return 3;
  return aloop_after_fork(env->loop) == 0 ? 0 : 4;
}

static void in_a_child_the_loop_must_be_told(void **state) {
  env_t *env = *state;
  expect_of_child(env, run_untold, NULL);
  run_turn(env->loop);
}

typedef struct family {
  int fds[3];
  int soon, timers, posts;
} family_t;

static int live_on(env_t *env, void *arg) {
  family_t *family = arg;
  if (aloop_after_fork(env->loop) != 0) return 1;
  while (family->timers == 0 || family->posts == 0)
    if (aloop_run_once(env->loop, ALOOP_FOREVER) < 0) return 2;
  if (write(family->fds[1], "x", 1) != 1) return 3;
  while (family->fds[2] == 0)
    if (aloop_run_once(env->loop, ALOOP_FOREVER) < 0) return 4;
  if (family->soon != 1 || family->timers != 1 || family->posts != 1) return 5;
  if (aloop_call_soon_threadsafe(env->loop, count, &family->posts) != 0) return 6;
  while (family->posts == 1)
    if (aloop_run_once(env->loop, ALOOP_FOREVER) < 0) return 7;
  if (aloop_remove_reader(env->loop, family->fds[0]) != 1) return 8;
  aloop_free(env->loop);
  return env->live == 0 ? 0 : 9;
}

static void parent_and_child_keep_what_was_scheduled_and_watched(void **state) {
  env_t *env = *state;
  family_t family = {0};
  make_pipe(family.fds);
  aloop_add_reader(env->loop, family.fds[0], take_byte, family.fds);
  aloop_call_soon(env->loop, count, &family.soon);
  aloop_call_later(env->loop, ALOOP_MILLIS(1), count, &family.timers);
  aloop_call_soon_threadsafe(env->loop, count, &family.posts);
  expect_of_child(env, live_on, &family);
  assert_int_equal(live_on(env, &family), 0);
  env->loop = NULL; /* freed there */
  close(family.fds[0]);
  close(family.fds[1]);
}

static int run_again_inside(env_t *env, void *arg) {
  int calls = 0;
  (void)arg;
  if (aloop_running_loop() != NULL || aloop_after_fork(env->loop) != 0 || aloop_is_running(env->loop)) return 1;
  aloop_call_soon(env->loop, count, &calls);
  return aloop_run_once(env->loop, 0) == 1 && calls == 1 ? 0 : 2;
}

static void fork_inside(aloop_t *loop, void *env) {
  (void)loop;
  expect_of_child(env, run_again_inside, NULL);
}

static void a_callback_may_fork(void **state) {
  env_t *env = *state;
  aloop_call_soon(env->loop, fork_inside, env);
  run_turn(env->loop);
}

/* The loop of a child that forked in a callback, and what it must find there. */
typedef struct stray {
  env_t *env;
  int (*act)(env_t *env); /* in the child, before the callback returns */
  pid_t child;            /* 0: this is it */
  int status;
  int fds[3];
  int calls;
} stray_t;

static void fork_and_return(aloop_t *loop, void *arg) {
  stray_t *stray = arg;
  (void)loop;
  stray->child = fork();
  if (stray->child != 0) {
    assert_int_equal(waitpid(stray->child, &stray->status, 0), stray->child);
    return;
  }
  alarm(20);
  int rc = stray->act(stray->env);
  if (rc != 0) _exit(rc);
}

static int do_nothing(env_t *env) {
  return aloop_is_running(env->loop) ? 1 : 0;
}

static int tell(env_t *env) {
  return aloop_after_fork(env->loop) == 0 && !aloop_is_running(env->loop) ? 0 : 2;
}

static int stop_too(env_t *env) {
  return aloop_stop(env->loop) == 0 ? 0 : 3;
}

static int (*const acts[])(env_t *env) = {do_nothing, tell, stop_too};

/* The run has ended in the child, which goes on with what is left when it is told to. */
static int go_on_alone(stray_t *stray, int rc) {
  aloop_t *loop = stray->env->loop;
  if (rc != ALOOP_ECHILD || stray->calls != 1 || stray->fds[2] != 0 || aloop_running_loop() != NULL) return 4;
  if (stray->act != tell && aloop_run_once(loop, 0) != ALOOP_ECHILD) return 5;
  if (aloop_after_fork(loop) != 0 || aloop_run_once(loop, ALOOP_SECONDS(1)) != 2) return 6;
  if (stray->calls != 2 || stray->fds[2] != 1 || aloop_next_timeout(loop) != ALOOP_FOREVER) return 7;
  aloop_free(loop);
  return 0;
}

static void a_callback_that_returns_in_a_child_ends_the_run_there(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip(); /* libkqueue's child may only exec */
  for (size_t i = 0; i < 2 * sizeof acts / sizeof acts[0]; i++) {
    stray_t stray = {.env = env, .act = acts[i / 2]};
    make_pipe(stray.fds);
    assert_int_equal(aloop_add_reader(env->loop, stray.fds[0], take_byte, stray.fds), 0);
    assert_int_equal(write(stray.fds[1], "x", 1), 1);
    aloop_call_soon(env->loop, count, &stray.calls);
    aloop_call_soon(env->loop, fork_and_return, &stray);
    aloop_call_soon(env->loop, count, &stray.calls);
    if (i % 2 == 0) aloop_stop(env->loop);
    int rc = i % 2 == 0 ? aloop_run_forever(env->loop) : aloop_run_once(env->loop, 0);
    if (stray.child == 0) _exit(go_on_alone(&stray, rc));
    assert_int_equal(stray.status, 0);
    assert_true(rc >= 0 && stray.calls == 2);
    assert_int_equal(write(stray.fds[1], "x", 1), 1); /* the child has read the other one */
    while (stray.fds[2] == 0) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
    aloop_remove_reader(env->loop, stray.fds[0]);
    close(stray.fds[0]);
    close(stray.fds[1]);
  }
}

/* With no descriptors left for the child. */
static int give_up_inside(env_t *env, void *arg) {
  struct rlimit limit, none;
  (void)arg;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
  none = limit;
  none.rlim_cur = 0;
  setrlimit(RLIMIT_NOFILE, &none);
  if (aloop_after_fork(env->loop) != ALOOP_EMFILE) return 2;
  setrlimit(RLIMIT_NOFILE, &limit);
  aloop_free(env->loop);
  return env->live == 0 ? 0 : 3;
}

static int free_inside(env_t *env, void *arg) {
  (void)arg;
  aloop_free(env->loop);
  return env->live == 0 ? 0 : 1;
}

static void fork_to_free(aloop_t *loop, void *env) {
  (void)loop;
  expect_of_child(env, free_inside, NULL);
  expect_of_child(env, give_up_inside, NULL);
}

static void a_child_may_free_the_loop_inside_a_callback(void **state) {
  env_t *env = *state;
  aloop_call_soon(env->loop, fork_to_free, env);
  run_turn(env->loop);
}

static int begin_again(env_t *env, void *arg) {
  int calls = 0;
  if (aloop_is_running(env->loop) || env->reports != 0) return 1;
  if (arg != NULL && aloop_after_fork(env->loop) != 0) return 2;
  if (arg != NULL && aloop_call_soon_threadsafe(env->loop, count, &calls) != 0) return 3;
  if (arg != NULL && (aloop_run_once(env->loop, 0) != 1 || calls != 1)) return 4;
  aloop_free(env->loop);
  return env->live == 0 && env->reports == 0 ? 0 : 5;
}

static void *fork_elsewhere(void *arg) {
  env_t *env = arg;
  expect_of_child(env, begin_again, NULL);
  expect_of_child(env, begin_again, env);
  return NULL;
}

static void let_another_thread_fork(aloop_t *loop, void *env) {
  pthread_t thread;
  (void)loop;
  assert_int_equal(pthread_create(&thread, NULL, fork_elsewhere, env), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Debug mode knows that the loop runs in no thread of the child. */
static void a_thread_that_does_not_run_the_loop_may_fork(void **state) {
  env_t *env = *state;
  for (int debug = 0; debug < 2; debug++) {
    assert_int_equal(aloop_set_debug(env->loop, debug != 0), 0);
    assert_int_equal(aloop_set_slow_callback_duration(env->loop, ALOOP_SECONDS(1000)), 0);
    aloop_call_soon(env->loop, let_another_thread_fork, env);
    run_turn(env->loop);
  }
}

static int make_another(env_t *env, void *arg) {
  aloop_t *loop;
  int calls = 0;
  (void)env;
  (void)arg;
  if (aloop_new(NULL, &loop) != 0) return 1;
  aloop_call_soon(loop, count, &calls);
  if (aloop_run_once(loop, 0) != 1) return 2;
  aloop_free(loop);
  return 0;
}

static void a_new_loop_works_in_a_child(void **state) {
  expect_of_child(*state, make_another, NULL);
}

TESTS(T(a_host_hears_of_io), T(a_host_hears_of_timers), T(a_host_hears_of_each_post),
      T(a_host_hears_of_what_was_posted_before_it_asked), T(no_post_to_a_hosted_loop_is_lost),
      T(a_host_may_take_over_from_a_run), T(what_a_child_stops_goes_on_in_the_parent),
      T(what_a_child_watches_before_it_goes_on_is_its_own),
      T(what_is_watched_while_a_loss_is_reported_is_watched),
      T(a_child_keeps_everything_even_if_memory_is_short_at_first),
      T(a_child_does_not_wait_for_posters_that_stayed_behind),
      T(a_child_that_gets_no_descriptors_writes_to_no_other), T(the_next_timeout_is_exact),
      T(the_hook_tells_of_what_is_due_sooner), T(the_hook_is_silent_inside_a_turn), T(nonsense_is_refused),
      T(without_a_fork_there_is_nothing_to_do), T(in_a_child_the_loop_must_be_told),
      T(parent_and_child_keep_what_was_scheduled_and_watched), T(a_callback_may_fork),
      T(a_callback_that_returns_in_a_child_ends_the_run_there), T(a_child_may_free_the_loop_inside_a_callback),
      T(a_thread_that_does_not_run_the_loop_may_fork), T(a_new_loop_works_in_a_child))
