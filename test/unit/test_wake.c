/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 *
 * The wake-up descriptor: a signal before or during a wait ends it, is heard once, and costs no callback.
 */
#include "harness.h"

#include <fcntl.h>

#include "core/loop.h"

static void a_signal_ends_the_next_wait(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 3; i++) {
    aloop__wake_signal(env->loop);
    assert_int_equal(aloop_run_once(env->loop, ALOOP_FOREVER), 0);
  }
}

static void a_signal_is_heard_once(void **state) {
  env_t *env = *state;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  for (int i = 0; i < 100; i++) aloop__wake_signal(env->loop);
  run_turn(env->loop);
  run_turn(env->loop);
  run_turn(env->loop);
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.events, 1);
  assert_int_equal(metrics.callbacks, 0);
  assert_int_equal(metrics.stale, 0);
}

static void very_many_signals_block_nobody(void **state) {
  env_t *env = *state;
  for (int i = 0; i < 100000; i++) aloop__wake_signal(env->loop); /* more than a pipe holds */
  run_turn(env->loop);
  assert_int_equal(run_turn(env->loop), 0);
}

static void a_signal_leaves_errno_alone(void **state) {
  env_t *env = *state;
  errno = ENOSPC;
  aloop__wake_signal(env->loop);
  assert_int_equal(errno, ENOSPC);
}

static void its_descriptors_are_not_inherited(void **state) {
  env_t *env = *state;
  int fds[] = {env->loop->wake.fd, env->loop->wake_write};
  for (int i = 0; i < 2; i++) {
    assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
  }
}

static void it_is_no_watch_of_the_users(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_remove_reader(env->loop, env->loop->wake.fd), ALOOP_EBUSY);
}

typedef struct listener {
  aloop__room_t room;
  int woken;
} listener_t;

static void note_woken(aloop_t *loop, aloop__room_t *room) {
  (void)loop;
  ((listener_t *)(void *)room)->woken++;
}

static void stop_now(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop_with_error(loop, ALOOP_EPERM);
}

static void a_signal_is_heard_after_a_stop_that_left_its_event(void **state) {
  env_t *env = *state;
  listener_t listener = {.room.woken = note_woken};
  run_turn(env->loop);
  aloop__wake_signal(env->loop);
  aloop_call_soon(env->loop, stop_now, NULL);
  env->loop->rooms[ALOOP__ROOM_NET] = &listener.room;
  int rc = aloop_run_once(env->loop, 0);
  run_turn(env->loop);
  env->loop->rooms[ALOOP__ROOM_NET] = NULL;
  assert_int_equal(rc, ALOOP_EPERM);
  assert_int_equal(listener.woken, 1);
}

TESTS(T(a_signal_ends_the_next_wait), T(a_signal_is_heard_once), T(very_many_signals_block_nobody),
      T(a_signal_leaves_errno_alone), T(a_signal_is_heard_after_a_stop_that_left_its_event),
      T(its_descriptors_are_not_inherited), T(it_is_no_watch_of_the_users))
