/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 * threads: yes
 *
 * A host that runs the loop inside its own: it waits on the loop's descriptor no longer than the loop says,
 * then gives it a turn. Nothing else may be needed for I/O, timers and posts to come through.
 */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

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

TESTS(T(a_host_hears_of_io), T(a_host_hears_of_timers), T(a_host_hears_of_each_post),
      T(no_post_to_a_hosted_loop_is_lost), T(a_host_may_take_over_from_a_run))
