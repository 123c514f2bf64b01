/* SPDX-License-Identifier: MIT
 *
 * A task with a long day is cancelled at its n-th suspension, for every n, and in every moment of it: before it waits,
 * while it waits, and between the end of what it waits for and its own next step. Each time it has to end cancelled, in
 * a bounded number of turns, with nothing left behind: no task, no lock held, no item lost, no descriptor, no memory.
 * pollers: all
 */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef enum moment { NEVER, BEFORE, DURING, BETWEEN, MOMENTS } moment_t;

enum { ITEMS = 4, TURNS_MAX = 2000 };

typedef struct day {
  aloop_t *loop;
  aloop_future_t *main;
  moment_t moment;
  int n; /* the suspension to cancel at */
  int counted;
  bool io;
  aloop_lock_t *lock;
  aloop_queue_t *queue;
  aloop_semaphore_t *semaphore;
  int got, put; /* items */
  int open;     /* what the day has opened and not closed */
  struct sockaddr_in address;
} day_t;

/* ---- Being cancelled ----------------------------------------------------------------------------------------- */

static void cancel_soon(aloop_t *loop, void *arg) {
  day_t *day = arg;
  (void)loop;
  aloop_future_cancel(day->main);
}

static void cancel_between(aloop_future_t *future, void *arg) {
  (void)future;
  cancel_soon(NULL, arg);
}

/* Before each await of the main task, or of what runs in it. */
static aloop_future_t *mark(day_t *day, aloop_future_t *future) {
  if (future == NULL || aloop_future_done(future) || aloop_current_task(day->loop) != day->main) return future;
  if (++day->counted != day->n) return future;
  if (day->moment == BEFORE)
    aloop_future_cancel(day->main);
  else if (day->moment == DURING)
    aloop_call_soon(day->loop, cancel_soon, day);
  else if (day->moment == BETWEEN)
    aloop_future_add_done_callback(future, cancel_between, day); /* it comes before the task's own */
  return future;
}

/* ---- The day ------------------------------------------------------------------------------------------------- */

static int64_t nap(day_t *day, int64_t delay) {
  return aloop_await(mark(day, aloop_sleep(day->loop, delay)));
}

static int64_t child(aloop_t *loop, void *arg) {
  day_t *day = arg;
  day->open++;
  int64_t rc = aloop_await(aloop_sleep(loop, 1000));
  if (rc == 0) rc = aloop_await(aloop_sleep(loop, 0));
  day->open--;
  return rc < 0 ? rc : 1;
}

/* Takes its time to give in. */
static int64_t slow_child(aloop_t *loop, void *arg) {
  int64_t rc = child(loop, arg);
  if (rc == ALOOP_ECANCELED) aloop_await(aloop_sleep(loop, 1000));
  return rc;
}

static int64_t await_children(day_t *day) {
  int64_t rc = aloop_await(mark(day, aloop_create_task(day->loop, child, day, NULL)));
  if (rc < 0) return rc;
  aloop_future_t *tasks[] = {aloop_create_task(day->loop, child, day, NULL),
                             aloop_create_task(day->loop, slow_child, day, NULL), aloop_sleep(day->loop, 3000)};
  rc = aloop_await(mark(day, aloop_gather(day->loop, tasks, 3, 0)));
  if (rc < 0) return rc;
  rc = aloop_await(mark(day, aloop_wait_for(aloop_create_task(day->loop, slow_child, day, NULL), 500)));
  if (rc != ALOOP_ETIMEDOUT) return rc < 0 ? rc : ALOOP_EIO;
  rc = aloop_await(mark(day, aloop_shield(aloop_create_task(day->loop, child, day, NULL))));
  if (rc < 0) return rc;
  aloop_future_t *two[] = {aloop_create_task(day->loop, child, day, NULL), aloop_sleep(day->loop, 0)};
  return aloop_await(mark(day, aloop_wait(day->loop, two, 2, ALOOP_FOREVER, ALOOP_FIRST_COMPLETED)));
}

static int64_t hold_the_lock(aloop_t *loop, void *arg) {
  day_t *day = arg;
  int64_t rc = aloop_await(aloop_lock_acquire(day->lock));
  if (rc < 0) return rc;
  rc = aloop_await(aloop_sleep(loop, 2000));
  aloop_lock_release(day->lock);
  return rc;
}

static int64_t share(day_t *day) {
  aloop_future_detach(aloop_create_task(day->loop, hold_the_lock, day, NULL));
  int64_t rc = nap(day, 0);
  if (rc < 0) return rc;
  rc = aloop_await(mark(day, aloop_lock_acquire(day->lock)));
  if (rc < 0) return rc;
  rc = nap(day, 10);
  aloop_lock_release(day->lock);
  if (rc < 0) return rc;
  rc = aloop_await(mark(day, aloop_semaphore_acquire(day->semaphore)));
  if (rc < 0) return rc;
  rc = nap(day, 0);
  aloop_semaphore_release(day->semaphore);
  return rc;
}

static int64_t produce(aloop_t *loop, void *arg) {
  day_t *day = arg;
  for (int i = 0; i < ITEMS; i++) {
    int64_t rc = aloop_await(aloop_queue_put(day->queue, day));
    if (rc < 0) return rc;
    day->put++;
    rc = aloop_await(aloop_sleep(loop, i % 2 * 100));
    if (rc < 0) return rc;
  }
  return 0;
}

static int64_t consume(day_t *day) {
  aloop_future_t *producer = aloop_create_task(day->loop, produce, day, NULL);
  int64_t rc = 0;
  while (day->got < ITEMS && rc == 0) {
    void *item;
    rc = aloop_await_ptr(mark(day, aloop_queue_get(day->queue)), &item);
    day->got += rc == 0;
  }
  if (rc == 0) return aloop_await(mark(day, producer));
  aloop_future_unref(producer);
  return rc;
}

static int listening(struct sockaddr_in *address) {
  socklen_t size = sizeof *address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0 || bind(fd, (struct sockaddr *)address, size) < 0 || listen(fd, 5) < 0) fail_msg("no listener");
  getsockname(fd, (struct sockaddr *)address, &size);
  return fd;
}

static int64_t knock(aloop_t *loop, void *arg) {
  const struct sockaddr_in *address = arg;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int64_t rc = aloop_await(aloop_sock_connect(loop, fd, (const struct sockaddr *)address, sizeof *address));
  if (rc == 0) rc = aloop_await(aloop_sock_sendall(loop, fd, "hello", 5));
  close(fd);
  return rc;
}

static int64_t converse(day_t *day) {
  char buffer[16];
  int listener = listening(&day->address);
  aloop_future_t *client = aloop_create_task(day->loop, knock, &day->address, NULL);
  int64_t fd = aloop_await(mark(day, aloop_sock_accept(day->loop, listener, NULL, NULL)));
  int64_t rc = fd;
  if (fd >= 0) {
    rc = aloop_await(mark(day, aloop_sock_recv(day->loop, (int)fd, buffer, sizeof buffer)));
    close((int)fd);
  }
  close(listener);
  if (rc >= 0) return aloop_await(mark(day, client));
  aloop_future_cancel(client);
  aloop_future_detach(client);
  return rc;
}

static int64_t work(void *arg) {
  (void)arg;
  return 5;
}

static int64_t live(aloop_t *loop, void *arg) {
  day_t *day = arg;
  day->open++;
  int64_t rc = nap(day, 0);
  if (rc >= 0) rc = nap(day, 1000);
  if (rc >= 0) rc = await_children(day);
  if (rc >= 0) rc = share(day);
  if (rc >= 0) rc = consume(day);
  if (rc >= 0 && day->io) rc = converse(day);
  if (rc >= 0 && day->io) rc = aloop_await(mark(day, aloop_to_thread(loop, work, NULL)));
  day->open--;
  return rc < 0 ? rc : 100;
}

/* ---- All its ends -------------------------------------------------------------------------------------------- */

static void report(const day_t *day, const char *what) {
  static const char *const moments[] = {"never", "before", "during", "between"};
  fail_msg("cancelled %s suspension %d: %s", moments[day->moment], day->n, what);
}

/* Lets the producer finish, if nobody takes its items any more. */
static void drain(day_t *day) {
  void *item;
  while (aloop_queue_get_nowait(day->queue, &item) == 0) day->got++;
}

static void finish(day_t *day) {
  for (int i = 0; aloop_all_tasks(day->loop, NULL, 0) > 0; i++) {
    if (i == TURNS_MAX) report(day, "tasks are left");
    if (aloop_run_once(day->loop, ALOOP_MILLIS(1)) < 0) report(day, "the loop is broken");
    drain(day);
  }
  drain(day);
}

static void check(day_t *day, int64_t result) {
  bool reached = day->moment != NEVER && day->counted >= day->n;
  if (reached && result != ALOOP_ECANCELED) report(day, aloop_error_name(result));
  if (!reached && result != 100) report(day, "the day did not end well");
  if (day->open != 0) report(day, "something is left open");
  if (day->got != day->put) report(day, "an item is lost");
  if (aloop_lock_locked(day->lock)) report(day, "the lock is held");
  if (aloop_semaphore_value(day->semaphore) != 1) report(day, "the semaphore is held");
}

/* Returns whether it got as far as the n-th suspension. */
static bool live_a_day(env_t *env, moment_t moment, int n) {
  env_loop(env, (aloop_options_t){.debug = -1});
  day_t day = {.loop = env->loop, .moment = moment, .n = n, .io = !on_poller(env, "virtual")};
  aloop_queue_options_t one = {.size = sizeof one, .maxsize = 1};
  assert_int_equal(aloop_lock_new(day.loop, &day.lock), 0);
  assert_int_equal(aloop_queue_new(day.loop, &one, &day.queue), 0);
  assert_int_equal(aloop_semaphore_new(day.loop, 1, false, &day.semaphore), 0);
  day.main = aloop_create_task(day.loop, live, &day, NULL);
  int64_t result = run_future(day.loop, day.main);
  aloop_future_unref(day.main);
  finish(&day);
  check(&day, result);
  aloop_queue_free(day.queue);
  aloop_semaphore_free(day.semaphore);
  aloop_lock_free(day.lock);
  aloop_run_until_complete(day.loop, aloop_shutdown_default_executor(day.loop, ALOOP_FOREVER));
  aloop_free(env->loop);
  env->loop = NULL;
  if (env->live != 0) report(&day, "memory is left");
  if (env->reports != 0) report(&day, env->report_messages[0]);
  return moment != NEVER && day.counted >= n;
}

static void it_may_be_cancelled_whenever_it_waits(void **state) {
  env_t *env = *state;
  live_a_day(env, NEVER, 0);
  for (moment_t moment = BEFORE; moment < MOMENTS; moment++) {
    int n = 1;
    while (live_a_day(env, moment, n)) n++;
    assert_true(n > 15);
  }
}

/* The loop is closed instead. */
static void its_loop_may_be_closed_whenever_it_waits(void **state) {
  env_t *env = *state;
  bool over = false;
  for (int turns = 0; !over; turns++) {
    env_loop(env, (aloop_options_t){.debug = -1});
    day_t day = {.loop = env->loop, .io = !on_poller(env, "virtual")};
    aloop_queue_options_t one = {.size = sizeof one, .maxsize = 1};
    assert_int_equal(aloop_lock_new(day.loop, &day.lock), 0);
    assert_int_equal(aloop_queue_new(day.loop, &one, &day.queue), 0);
    assert_int_equal(aloop_semaphore_new(day.loop, 1, false, &day.semaphore), 0);
    day.main = aloop_create_task(day.loop, live, &day, NULL);
    for (int i = 0; i < turns && !over; i++) {
      assert_true(aloop_run_once(day.loop, ALOOP_MILLIS(1)) >= 0);
      over = aloop_future_done(day.main);
    }
    aloop_close(day.loop);
    int64_t result = aloop_future_result(day.main);
    assert_true(over || result == ALOOP_ECLOSED || result == ALOOP_ECANCELED);
    assert_int_equal(day.open, 0);
    aloop_future_unref(day.main);
    aloop_queue_free(day.queue);
    aloop_semaphore_free(day.semaphore);
    aloop_lock_free(day.lock);
    aloop_free(env->loop);
    env->loop = NULL;
    assert_int_equal(env->live, 0);
    if (turns > 10000) fail_msg("the day has no end");
  }
}

TESTS(T(it_may_be_cancelled_whenever_it_waits), T(its_loop_may_be_closed_whenever_it_waits))
