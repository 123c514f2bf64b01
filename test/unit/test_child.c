/* SPDX-License-Identifier: MIT
 *
 * Watching a child: its end is told once, in a later turn, with the status that was collected for this child
 * alone, by every way that a system may offer.
 *
 * pollers: all threads: yes
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "core/clock.h"
#include "core/loop.h"
#include "peers.h"
#include "process/child.h"
#include "process/spawn.h"

typedef struct watched {
  aloop__child_t child;
  bool ended;
  int calls;
} watched_t;

static void note_end(aloop_t *loop, aloop__child_t *child) {
  (void)loop;
  watched_t *watched = ALOOP_CONTAINER_OF(child, watched_t, child);
  watched->ended = true;
  watched->calls++;
}

/* Starts a shell command whose stdin is `in`, and watches it. */
static void start(env_t *env, watched_t *watched, const char *command, int in) {
  aloop__spawned_t spawned;
  aloop_process_options_t options = {.argv = (const char *const[]){"/bin/sh", "-c", command, NULL}};
  *watched = (watched_t){.ended = false};
  aloop__child_init(&watched->child);
  assert_int_equal(watched->child.code, ALOOP_ENOTDONE);
  assert_int_equal(aloop__spawn(env->loop, &options, (int[3]){in, 1, 2}, &spawned), 0);
  assert_int_equal(aloop__child_watch(env->loop, &watched->child, spawned.pid, spawned.pidfd, note_end), 0);
  assert_int_equal(watched->child.pid, spawned.pid);
}

static void await_child(const watched_t *watched) {
  siginfo_t info;
  while (waitid(P_PID, (id_t)watched->child.pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) continue;
}

IN_EVERY_WAY(the_exit_code_is_told_once) {
  watched_t watched;
  start(env, &watched, "exit 17", 0);
  run_until(env->loop, &watched.ended);
  assert_int_equal(watched.child.code, 17);
  run_turns(env->loop, 3);
  assert_int_equal(watched.calls, 1);
  assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

IN_EVERY_WAY(the_end_is_told_in_a_later_turn) {
  watched_t watched;
  start(env, &watched, "exit 0", 0);
  await_child(&watched);
  assert_int_equal(watched.calls, 0);
  run_until(env->loop, &watched.ended);
  assert_int_equal(watched.child.code, 0);
}

IN_EVERY_WAY(a_signal_is_a_negative_code) {
  watched_t watched;
  int gate[2];
  make_gate(gate);
  start(env, &watched, "read x", gate[0]);
  assert_int_equal(aloop__child_signal(&watched.child, 0), 0);
  assert_int_equal(aloop__child_signal(&watched.child, SIGQUIT), 0);
  run_until(env->loop, &watched.ended);
  assert_int_equal(watched.child.code, -SIGQUIT);
  assert_int_equal(aloop__child_signal(&watched.child, SIGQUIT), ALOOP_ESRCH);
  close(gate[0]);
  close(gate[1]);
}

IN_EVERY_WAY(a_status_that_somebody_else_took_is_lost) {
  watched_t watched;
  start(env, &watched, "exit 5", 0);
  int status;
  while (waitpid(watched.child.pid, &status, 0) < 0 && errno == EINTR) continue;
  run_until(env->loop, &watched.ended);
  assert_int_equal(watched.child.code, ALOOP_EREAPED);
}

IN_EVERY_WAY(other_children_of_the_program_are_left_alone) {
  watched_t watched;
  pid_t other = fork();
  if (other == 0) _exit(33);
  start(env, &watched, "exit 1", 0);
  run_until(env->loop, &watched.ended);
  int status;
  pid_t ended;
  do ended = waitpid(other, &status, 0);
  while (ended < 0 && errno == EINTR);
  assert_int_equal(ended, other);
  assert_int_equal(WEXITSTATUS(status), 33);
}

IN_EVERY_WAY(a_released_child_is_not_told_of) {
  watched_t watched;
  int before = open_fds();
  start(env, &watched, "exit 0", 0);
  aloop__child_release(env->loop, &watched.child);
  aloop__child_release(env->loop, &watched.child);
  await_child(&watched);
  run_turns(env->loop, 5);
  assert_int_equal(watched.calls, 0);
  assert_int_equal(open_fds(), before);
  while (waitpid(watched.child.pid, NULL, 0) < 0 && errno == EINTR) continue;
}

IN_EVERY_WAY(a_killed_child_can_be_awaited) {
  watched_t watched;
  int gate[2];
  make_gate(gate);
  start(env, &watched, "read x", gate[0]);
  assert_false(aloop__child_await(&watched.child, aloop__clock_monotonic() + ALOOP_MILLIS(5)));
  assert_int_equal(aloop__child_signal(&watched.child, SIGKILL), 0);
  assert_true(aloop__child_await(&watched.child, aloop__clock_monotonic() + ALOOP_SECONDS(20)));
  assert_int_equal(watched.child.code, -SIGKILL);
  aloop__child_release(env->loop, &watched.child);
  run_turns(env->loop, 3);
  assert_int_equal(watched.calls, 0);
  close(gate[0]);
  close(gate[1]);
}

/* A poller that refuses pidfds leaves the thread. */
static int refuse_update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  (void)state, (void)fd, (void)token, (void)before;
  return after == 0 ? 0 : ALOOP_EPERM;
}

static void a_poller_that_cannot_watch_it_makes_no_difference(void **state) {
  env_t *env = *state;
  const aloop_poller_t *real = env->loop->poller;
  aloop_poller_t refusing = *real;
  watched_t watched;
  refusing.update = refuse_update;
  env->loop->poller = &refusing;
  start(env, &watched, "exit 9", 0);
  env->loop->poller = real;
  assert_int_equal(watched.child.watch.fd, -1);
  run_until(env->loop, &watched.ended);
  assert_int_equal(watched.child.code, 9);
}

static void a_fork_has_no_claim_to_the_child(void **state) {
  env_t *env = *state;
  watched_t watched;
  int gate[2];
  make_gate(gate);
  start(env, &watched, "read x", gate[0]);
  assert_true(aloop__child_is_mine(&watched.child));
  pid_t pid = fork();
  if (pid == 0) {
    bool mine = aloop__child_is_mine(&watched.child) ||
                aloop__child_await(&watched.child, aloop__clock_monotonic() + ALOOP_SECONDS(1));
    _exit(mine ? 1 : 0);
  }
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_int_equal(aloop__child_signal(&watched.child, SIGKILL), 0);
  run_until(env->loop, &watched.ended);
  close(gate[0]);
  close(gate[1]);
}

TESTS(T(the_exit_code_is_told_once), T(the_end_is_told_in_a_later_turn), T(a_signal_is_a_negative_code),
      T(a_status_that_somebody_else_took_is_lost), T(other_children_of_the_program_are_left_alone),
      T(a_released_child_is_not_told_of), T(a_killed_child_can_be_awaited),
      T(a_poller_that_cannot_watch_it_makes_no_difference), T(a_fork_has_no_claim_to_the_child))
