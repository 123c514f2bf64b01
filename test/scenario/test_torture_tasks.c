/* SPDX-License-Identifier: MIT
 *
 * Torture of tasks: two talk through a pair of sockets, a third is cancelled, a fourth is begun as if by another thread,
 * then what is left unwinds as the loop is closed. Whichever allocation or system call fails, each argument is destroyed
 * once, each future ends, and no stack and no descriptor stays behind.
 *
 * pollers: all
 * faults: yes
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "torture.h"

enum { ROUNDS = 3 };

typedef struct talk {
  run_t *run;
  int fds[2];
  int destroyed, made;
  int64_t posted;
} talk_t;

static void count_destroy(void *arg) {
  ((talk_t *)arg)->destroyed++;
}

/* The listener is gone, however far it came: the speaker need not wait for it. */
static void hang_up(void *arg) {
  count_destroy(arg);
  faults_pause();
  shutdown(((talk_t *)arg)->fds[1], SHUT_RDWR);
  faults_resume();
}

static aloop_future_t *begin(talk_t *talk, aloop_task_fn fn, const char *name) {
  aloop_task_options_t options = {.size = sizeof options, .name = name};
  options.destroy = name != NULL ? hang_up : count_destroy;
  aloop_future_t *task = run_made(talk->run, aloop_create_task(talk->run->loop, fn, talk, &options));
  talk->made += task != NULL;
  return task;
}

static int64_t answer(aloop_t *loop, void *arg) {
  talk_t *talk = arg;
  char buffer[8];
  for (;;) {
    int64_t got = aloop_await(aloop_sock_recv(loop, talk->fds[1], buffer, sizeof buffer));
    if (got <= 0) return got;
    int64_t rc = aloop_await(aloop_sock_sendall(loop, talk->fds[1], buffer, (size_t)got));
    if (rc < 0) return rc;
  }
}

static int64_t ask(aloop_t *loop, talk_t *talk) {
  char buffer[4];
  int64_t total = 0;
  int64_t rc = aloop_await(aloop_sock_sendall(loop, talk->fds[0], "ping", 4));
  while (rc > 0 && total < 4) {
    aloop_future_t *more = aloop_sock_recv(loop, talk->fds[0], buffer, sizeof buffer);
    rc = aloop_await(aloop_wait_for(more, ALOOP_SECONDS(20)));
    if (rc > 0) total += rc;
  }
  return rc < 0 ? rc : total == 4 ? 0 : ALOOP_EPIPE;
}

static int64_t wait_for_ever(aloop_t *loop, void *arg) {
  (void)arg;
  int64_t rc = aloop_await(aloop_future_new(loop));
  return rc == ALOOP_ECANCELED ? aloop_return_error(ALOOP_ECANCELED, "%s", "given up") : rc;
}

static int64_t talk_and_go(aloop_t *loop, void *arg) {
  talk_t *talk = arg;
  for (int i = 0; i < ROUNDS; i++) {
    int64_t rc = ask(loop, talk);
    if (rc < 0) return rc;
  }
  aloop_future_t *waiting = begin(talk, wait_for_ever, NULL);
  int64_t rc = aloop_await(aloop_sleep(loop, 0));
  if (waiting != NULL) aloop_task_cancel(waiting, "enough");
  int64_t other = aloop_await(waiting);
  return rc < 0 ? rc : other == ALOOP_ECANCELED ? ROUNDS : other;
}

static int64_t posted(aloop_t *loop, void *arg) {
  talk_t *talk = arg;
  int64_t rc = aloop_await(aloop_sleep(loop, 0));
  talk->posted = rc < 0 ? rc : 5;
  return talk->posted;
}

static bool sync_is_done(const void *future) {
  return aloop_sync_done((aloop_sync_future_t *)future);
}

static void post_one(talk_t *talk) {
  run_t *run = talk->run;
  aloop_sync_future_t *future;
  int rc = aloop_run_coroutine_threadsafe(run->loop, posted, talk, &future);
  NORMALLY(run, rc == 0);
  ALWAYS(rc == 0 || is_known(rc));
  if (rc < 0) return;
  if (run_to(run, sync_is_done, future)) {
    int64_t value = aloop_sync_wait(future, 0);
    NORMALLY(run, value == 5);
    ALWAYS(value == 5 || is_known(value));
  }
  aloop_sync_unref(future);
}

static void play(run_t *run) {
  talk_t talk = {.run = run};
  faults_pause();
  make_socketpair(talk.fds);
  faults_resume();
  if (run_open(run, -1)) {
    aloop_future_t *listener = begin(&talk, answer, "listener"), *speaker = begin(&talk, talk_and_go, NULL);
    if (listener == NULL) hang_up(&talk), talk.destroyed--;
    int64_t rounds = run_end_of(run, speaker);
    NORMALLY(run, rounds == ROUNDS);
    post_one(&talk);
    aloop_future_t *last = begin(&talk, wait_for_ever, NULL);
    if (!run->broken) run_a_turn(run);
    aloop_close(run->loop);
    aloop_future_t *left[] = {listener, last};
    for (int i = 0; i < 2; i++) {
      ALWAYS(left[i] == NULL || aloop_future_result(left[i]) != ALOOP_ENOTDONE);
      aloop_future_unref(left[i]);
    }
  }
  ALWAYS(talk.destroyed == talk.made);
  close(talk.fds[0]);
  close(talk.fds[1]);
}

static void tasks_survive(void **state) {
  env_t *env = *state;
  if (on_poller(env, "virtual")) skip();
  torture_all(env, "tasks", play);
}

TESTS(T(tasks_survive))
