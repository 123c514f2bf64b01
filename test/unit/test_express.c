/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * The express: who gets it, when it ends, and that the posts of all threads keep one order with it.
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>
#if ALOOP_HAVE_MEMBARRIER
#include <linux/membarrier.h>
#include <sys/syscall.h>
#endif

#include "core/express.h"
#include "core/loop.h"

enum { PAGE = 512, RING = 1024, TRIES = 1000 };

/* Posts are numbered by whoever makes them, one thread at a time, and have to be called in that order. */
typedef struct line {
  aloop_t *loop;
  intptr_t posted;
  atomic_intptr_t heard;
  intptr_t count; /* of all that are to be made */
  atomic_int turn;
  void (*then)(struct line *line); /* once this thread has the express */
  bool goes_on;                    /* after it */
  int tries;
} line_t;

static line_t line;

static void hear(aloop_t *loop, void *number) {
  (void)loop;
  assert_int_equal((intptr_t)number, atomic_fetch_add(&line.heard, 1));
}

static int post_one(void) {
  int rc = aloop_call_soon_threadsafe(line.loop, hear, (void *)line.posted);
  line.posted += rc == 0;
  return rc;
}

static void post_many(int count) {
  for (int i = 0; i < count; i++) assert_int_equal(post_one(), 0);
}

static bool has_membarrier(void) {
#if ALOOP_HAVE_MEMBARRIER
  return (syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) & MEMBARRIER_CMD_PRIVATE_EXPEDITED) > 0;
#else
  return false;
#endif
}

static void begin(aloop_t *loop) {
  if (!has_membarrier()) skip();
  aloop__express_allow(true);
  line = (line_t){.loop = loop};
}

static bool is_mine(void) {
  return atomic_load(&line.loop->mailbox.owner) == aloop__express_self();
}

static uint64_t waiting(void) {
  const aloop__mailbox_t *mailbox = &line.loop->mailbox;
  return mailbox->express != NULL ? aloop__express_posted(mailbox) - aloop__express_taken(mailbox) : 0;
}

static void hear_all(void) {
  while (atomic_load(&line.heard) < line.posted) assert_true(run_turn(line.loop) > 0);
}

/* ---- One thread: the loop's own -------------------------------------------------------------------------- */

static void fill_pages(aloop_t *loop, void *arg) {
  if (!is_mine()) {
    assert_true(line.tries++ < TRIES);
    post_many(PAGE / 4);
    aloop_call_soon(loop, fill_pages, arg);
    return;
  }
  line.then(&line);
  if (!line.goes_on) aloop_stop(loop);
}

/* Calls `then` in a run in which this thread has the express. */
static void with_express(void (*then)(line_t *)) {
  line.then = then;
  line.tries = 0;
  aloop_call_soon(line.loop, fill_pages, NULL);
  assert_int_equal(aloop_run_forever(line.loop), 0);
}

static void post_hundred(line_t *self) {
  (void)self;
  uint64_t claimed = aloop__mailbox_claimed(&line.loop->mailbox);
  post_many(100);
  assert_int_equal(waiting(), 100);
  assert_int_equal(aloop__mailbox_claimed(&line.loop->mailbox), claimed);
}

static void who_begins_two_pages_gets_it_until_the_run_ends(void **state) {
  env_t *env = *state;
  begin(env->loop);
  for (int round = 0; round < 3; round++) {
    with_express(post_hundred);
    assert_false(is_mine());
    assert_int_equal(aloop_next_timeout(env->loop), 0);
    uint64_t before = waiting();
    post_many(1);
    assert_int_equal(waiting(), before);
    hear_all();
  }
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.posts, line.posted);
}

static void post_too_many(line_t *self) {
  (void)self;
  post_many(RING + 2 * PAGE);
  assert_int_equal(waiting(), RING);
}

static void what_finds_no_room_goes_to_the_mailbox(void **state) {
  env_t *env = *state;
  begin(env->loop);
  for (int round = 0; round < 3; round++) {
    with_express(post_too_many);
    run_turn(env->loop);
    post_many(10);
    hear_all();
  }
}

static void *post_by_another(void *failed) {
  *(bool *)failed = post_one() != 0;
  return NULL;
}

static void have_another(void *(*post)(void *failed)) {
  pthread_t thread;
  bool failed = true;
  assert_int_equal(pthread_create(&thread, NULL, post, &failed), 0);
  pthread_join(thread, NULL);
  assert_false(failed);
}

static void have_another_post(void) {
  have_another(post_by_another);
}

static void take_turns(line_t *self) {
  (void)self;
  for (int i = 0; i < 20; i++) {
    post_many(i % 3);
    have_another_post();
    if (i % 4 == 0) have_another_post();
  }
  assert_true(waiting() > 0);
}

static void posts_of_two_threads_are_called_in_their_order(void **state) {
  env_t *env = *state;
  begin(env->loop);
  for (int round = 0; round < 3; round++) {
    with_express(take_turns);
    hear_all();
  }
}

static bool was_mine_at_the_end;

static void look_when_all_is_heard(aloop_t *loop, void *arg) {
  if (atomic_load(&line.heard) < line.posted) {
    aloop_call_soon(loop, look_when_all_is_heard, arg);
    return;
  }
  was_mine_at_the_end = is_mine();
  aloop_stop(loop);
}

static void *post_pages(void *failed) {
  *(bool *)failed = false;
  for (int i = 0; i < 3 * PAGE; i++) *(bool *)failed |= post_one() != 0;
  return NULL;
}

static void post_less_than_another(line_t *self) {
  self->goes_on = true;
  post_many(1);
  have_another(post_pages);
  assert_true(is_mine());
  aloop_call_soon(self->loop, look_when_all_is_heard, NULL);
}

static void who_posts_less_than_others_loses_it(void **state) {
  env_t *env = *state;
  begin(env->loop);
  with_express(post_less_than_another);
  assert_false(was_mine_at_the_end);
}

static void post_more_than_the_ring_takes(line_t *self) {
  self->goes_on = true;
  post_many(RING + 5 * PAGE);
  aloop_call_soon(self->loop, look_when_all_is_heard, NULL);
}

static void who_fills_the_ring_and_pages_besides_keeps_it(void **state) {
  env_t *env = *state;
  begin(env->loop);
  with_express(post_more_than_the_ring_takes);
  assert_true(was_mine_at_the_end);
}

static void posts_in_it_are_dropped_by_close(void **state) {
  env_t *env = *state;
  begin(env->loop);
  with_express(post_hundred);
  intptr_t heard = atomic_load(&line.heard);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(post_one(), ALOOP_ECLOSED);
  assert_int_equal(atomic_load(&line.heard), heard);
}

static void without_memory_the_mailbox_takes_all(void **state) {
  env_t *env = *state;
  begin(env->loop);
  env->fail_from = env->calls + 5; /* directory and pages are there, the express is not */
  for (int i = 0; i < 8; i++) {
    for (int post = 0; post < 200; post++) post_one();
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  env->fail_from = 0;
  hear_all();
}

static void a_kernel_that_refuses_barriers_costs_a_moment(void **state) {
  env_t *env = *state;
  begin(env->loop);
  aloop__express_refuse_barriers(true);
  with_express(post_hundred);
  aloop__express_refuse_barriers(false);
  hear_all();
  post_many(3 * PAGE);
  hear_all();
  assert_false(is_mine());
}

static int live_on(void) {
  if (aloop_after_fork(line.loop) < 0) return 1;
  for (int i = 0; i < 100 && atomic_load(&line.heard) < line.posted; i++) run_turn(line.loop);
  if (atomic_load(&line.heard) != line.posted) return 2;
  post_many(3 * PAGE);
  for (int i = 0; i < 100 && atomic_load(&line.heard) < line.posted; i++) run_turn(line.loop);
  return atomic_load(&line.heard) == line.posted ? 0 : 3;
}

static void a_child_keeps_what_is_in_it(void **state) {
  env_t *env = *state;
  void (*ways[])(line_t *) = {post_hundred, post_too_many, take_turns};
  begin(env->loop);
  for (int way = 0; way < 3; way++) {
    with_express(ways[way]);
    pid_t child = fork();
    if (child == 0) _exit(live_on());
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    hear_all();
  }
}

/* ---- Several threads ------------------------------------------------------------------------------------- */

static void run_until_heard(intptr_t count) {
  while (atomic_load(&line.heard) < count) assert_true(aloop_run_once(line.loop, ALOOP_SECONDS(10)) >= 0);
}

static void start(pthread_t *thread, void *(*fn)(void *)) {
  assert_int_equal(pthread_create(thread, NULL, fn, NULL), 0);
}

static void join(pthread_t thread) {
  void *failed;
  pthread_join(thread, &failed);
  assert_null(failed);
}

static void stop_at_last(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

/* Bursts, after each of which the loop falls asleep, or is about to. */
static void *post_bursts(void *arg) {
  (void)arg;
  for (int burst = 1; line.posted < line.count; burst = burst * 5 % 8191) {
    for (int i = 0; i < burst && line.posted < line.count; i++)
      if (post_one() < 0) return &line;
    while (atomic_load(&line.heard) < line.posted) sched_yield();
  }
  aloop_call_soon_threadsafe(line.loop, stop_at_last, NULL);
  return NULL;
}

static void no_wake_up_is_lost(void **state) {
  env_t *env = *state;
  pthread_t thread;
  begin(env->loop);
  line.count = 200000;
  start(&thread, post_bursts);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  join(thread);
  assert_int_equal(atomic_load(&line.heard), line.count);
}

/* A run for each few turns: whoever waits for the next run has to be told of what it does not see. */
static void no_post_is_lost_between_runs(void **state) {
  env_t *env = *state;
  pthread_t thread;
  begin(env->loop);
  line.count = 100000;
  start(&thread, post_bursts);
  run_until_heard(line.count);
  join(thread);
}

enum { RUNNERS = 10, STRETCH = 3000 };

static void *run_stretch(void *arg) {
  (void)arg;
  for (int i = 0; i < STRETCH; i++) {
    if (post_one() < 0) return &line;
    if (i % 1000 == 500) sched_yield();
  }
  return NULL;
}

static void *start_runners(void *arg) {
  (void)arg;
  for (int i = 0; i < RUNNERS; i++) {
    pthread_t thread;
    void *failed;
    if (pthread_create(&thread, NULL, run_stretch, NULL) != 0) return &line;
    pthread_join(thread, &failed);
    if (failed != NULL) return failed;
  }
  aloop_call_soon_threadsafe(line.loop, stop_at_last, NULL);
  return NULL;
}

static void it_goes_from_thread_to_thread(void **state) {
  env_t *env = *state;
  pthread_t thread;
  begin(env->loop);
  start(&thread, start_runners);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  join(thread);
  assert_int_equal(atomic_load(&line.heard), RUNNERS * STRETCH);
}

/* Two threads pass the turn to each other as fast as they can: one with many posts, so that it gets the express,
 * the other with one. */
static void *post_many_by_turns(void *arg) {
  (void)arg;
  for (int round = 0; line.posted < line.count; round++) {
    int many = round % 10 == 0 ? 3 * PAGE : round % 7;
    for (int i = 0; i < many; i++)
      if (post_one() < 0) return &line;
    atomic_store(&line.turn, 1);
    while (atomic_load(&line.turn) != 0) sched_yield();
  }
  atomic_store(&line.turn, 2);
  aloop_call_soon_threadsafe(line.loop, stop_at_last, NULL);
  return NULL;
}

static void *post_one_by_turns(void *arg) {
  (void)arg;
  for (;;) {
    int turn = atomic_load(&line.turn);
    if (turn == 2) return NULL;
    if (turn == 0) {
      sched_yield();
      continue;
    }
    if (post_one() < 0) return &line;
    atomic_store(&line.turn, 0);
  }
}

static void what_happened_before_in_another_thread_is_called_before(void **state) {
  env_t *env = *state;
  pthread_t threads[2];
  begin(env->loop);
  line.count = 100000;
  start(&threads[0], post_many_by_turns);
  start(&threads[1], post_one_by_turns);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  for (int i = 0; i < 2; i++) join(threads[i]);
  assert_int_equal(atomic_load(&line.heard), line.posted);
}

static void *post_until_closed(void *arg) {
  (void)arg;
  int rc = 0;
  while (rc == 0 || rc == ALOOP_ENOMEM) {
    rc = post_one();
    if (line.posted - atomic_load(&line.heard) > 20000) sched_yield();
  }
  return rc == ALOOP_ECLOSED ? NULL : &line;
}

static void close_in_the_middle(intptr_t patience) {
  aloop_t *loop;
  pthread_t thread;
  assert_int_equal(aloop_new(NULL, &loop), 0);
  begin(loop);
  start(&thread, post_until_closed);
  run_until_heard(patience);
  assert_int_equal(aloop_close(loop), 0);
  join(thread);
  assert_true(atomic_load(&line.heard) <= line.posted);
  aloop_free(loop);
}

static void every_moment_is_a_moment_to_close(void **state) {
  (void)state;
  if (!has_membarrier()) skip(); /* before there is a loop to be freed */
  for (int i = 0; i < 200; i++) close_in_the_middle(i * 37 % 5000);
}

TESTS(T(who_begins_two_pages_gets_it_until_the_run_ends), T(what_finds_no_room_goes_to_the_mailbox),
      T(posts_of_two_threads_are_called_in_their_order), T(who_posts_less_than_others_loses_it),
      T(who_fills_the_ring_and_pages_besides_keeps_it), T(posts_in_it_are_dropped_by_close),
      T(without_memory_the_mailbox_takes_all), T(a_kernel_that_refuses_barriers_costs_a_moment),
      T(a_child_keeps_what_is_in_it), T(no_wake_up_is_lost), T(no_post_is_lost_between_runs),
      T(it_goes_from_thread_to_thread), T(what_happened_before_in_another_thread_is_called_before),
      T(every_moment_is_a_moment_to_close))
