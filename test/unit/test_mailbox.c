/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * Posts from other threads: nothing lost, nothing out of order, one wake-up per sleep, refusal after close.
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/loop.h"

enum { MANY = 1024 }; /* two pages */

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

/* ---- One thread ---------------------------------------------------------------------------------------------- */

/* Numbers that must arrive in order; arg points into `numbers`, whose value is its index. */
typedef struct line {
  int next;
  int numbers[5 * MANY];
} line_t;

static void in_line(aloop_t *loop, void *arg) {
  (void)loop;
  int number = *(int *)arg;
  line_t *line = ALOOP_CONTAINER_OF((int *)arg - number, line_t, numbers);
  assert_int_equal(number, line->next++);
}

static void posts_keep_their_order_across_pages(void **state) {
  env_t *env = *state;
  static line_t line;
  for (int i = 0; i < 5 * MANY; i++) line.numbers[i] = i;
  for (int round = 0; round < 3; round++) {
    line.next = 0;
    for (int i = 0; i < 5 * MANY; i++) {
      assert_int_equal(aloop_call_soon_threadsafe(env->loop, in_line, &line.numbers[i]), 0);
      if (i == MANY + 100) run_turn(env->loop);
    }
    while (line.next < 5 * MANY) run_turn(env->loop);
  }
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_metrics(env->loop, &metrics);
  assert_int_equal(metrics.posts, 3 * 5 * MANY);
}

static void a_post_before_the_first_run_arrives(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, stop, NULL), 0);
  assert_int_equal(aloop_next_timeout(env->loop), 0);
  assert_int_equal(aloop_run_forever(env->loop), 0);
}

static void post_again(aloop_t *loop, void *arg) {
  int *left = arg;
  if (--*left == 0)
    aloop_stop(loop);
  else
    assert_int_equal(aloop_call_soon_threadsafe(loop, post_again, arg), 0);
}

static void a_callback_may_post_to_its_own_loop(void **state) {
  env_t *env = *state;
  int left = 3 * MANY;
  aloop_call_soon(env->loop, post_again, &left);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  assert_int_equal(left, 0);
}

static void nonsense_is_refused(void **state) {
  env_t *env = *state;
  assert_int_equal(aloop_call_soon_threadsafe(NULL, count, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, NULL, NULL), ALOOP_EINVAL);
}

static void after_close_posts_are_refused(void **state) {
  env_t *env = *state;
  int calls = 0;
  for (int i = 0; i < 2 * MANY; i++) assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), 0);
  aloop_close(env->loop);
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), ALOOP_ECLOSED);
  assert_int_equal(calls, 0);
}

static void lack_of_memory_is_told_to_the_poster(void **state) {
  env_t *env = *state;
  int calls = 0, posted = 0;
  env->fail_from = 1;
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), 0);
  env->fail_from = 1;
  for (int i = 0; i < 2 * MANY; i++) {
    int rc = aloop_call_soon_threadsafe(env->loop, count, &calls);
    assert_true(rc == 0 || rc == ALOOP_ENOMEM);
    posted += rc == 0;
  }
  assert_in_range(posted, 1, 2 * MANY - 1);
  /* The deque cannot take them all either: they arrive as there is room. */
  for (int i = 0; i < 2 * MANY && calls <= posted; i++) run_turn(env->loop);
  assert_int_equal(calls, 1 + posted);
}

static void post_some(env_t *env) {
  int calls = 0, posted = 0;
  for (int i = 0; i < MANY + 50; i++) posted += aloop_call_soon_threadsafe(env->loop, count, &calls) == 0;
  run_turn(env->loop);
  for (int i = 0; i < 10; i++) posted += aloop_call_soon_threadsafe(env->loop, count, &calls) == 0;
  env->fail_from = 0;
  for (int i = 0; i < 5; i++) run_turn(env->loop);
  assert_int_equal(calls, posted);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, post_some);
}

/* The directory is of fixed size; what it cannot name is refused until the loop has taken some. */
static void two_million_posts_may_wait(void **state) {
  env_t *env = *state;
  int calls = 0, posted = 0;
  while (aloop_call_soon_threadsafe(env->loop, count, &calls) == 0) posted++;
  assert_in_range(posted, 2000000, 2200000);
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), ALOOP_ENOMEM);
  run_turn(env->loop);
  assert_in_range(calls, 1, posted / 100); /* some at a time: I/O has its turn */
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), 0);
  posted++;
  while (calls < posted) assert_true(run_turn(env->loop) > 0);
  assert_int_equal(run_turn(env->loop), 0);
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &calls), 0);
  while (calls <= posted) run_turn(env->loop);
}

typedef struct seen {
  aloop_var_t *var;
  void *value;
} seen_t;

static void look_up(aloop_t *loop, void *arg) {
  seen_t *seen = arg;
  seen->value = aloop_var_get(loop, seen->var, NULL);
}

static void a_post_has_no_context(void **state) {
  env_t *env = *state;
  seen_t seen = {.value = env};
  assert_int_equal(aloop_var_new("v", &seen.var), 0);
  assert_int_equal(aloop_var_set(env->loop, seen.var, env, NULL, NULL), 0);
  aloop_call_soon_threadsafe(env->loop, look_up, &seen);
  while (seen.value == env) run_turn(env->loop);
  assert_null(seen.value);
  aloop_var_unref(seen.var);
}

/* ---- Wake-ups ------------------------------------------------------------------------------------------------ */

/* How many times the wake-up was written since it was last heard; it stays as it is. */
static int wake_ups(const aloop_t *loop) {
  uint64_t words[64];
  ssize_t n = read(loop->wake.fd, words, sizeof words);
  if (n <= 0) return 0;
  assert_int_equal(write(loop->wake_write, words, (size_t)n), n);
  return loop->wake_write == loop->wake.fd ? (int)words[0] : (int)(n / (ssize_t)sizeof words[0]);
}

/* The poll poller; but when the loop goes to sleep for ever, `posts` callbacks are posted to it. */
typedef struct sleeper {
  void *poll;
  const aloop_poller_t *table;
  aloop_t *loop;
  int posts;
  int sleeps;
  int writes;
  int calls;
  bool interrupted; /* somebody else in a post of one */
} sleeper_t;

static int sleeper_open(void *arg, const aloop_allocator_t *allocator, void **state) {
  sleeper_t *sleeper = arg;
  sleeper->table = aloop_poller_find("poll");
  *state = sleeper;
  return sleeper->table->open(NULL, allocator, &sleeper->poll);
}

static void sleeper_close(void *state) {
  sleeper_t *sleeper = state;
  sleeper->table->close(sleeper->poll);
}

static int sleeper_update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  sleeper_t *sleeper = state;
  return sleeper->table->update(sleeper->poll, fd, token, before, after);
}

/* Another thread, interrupted in the middle of a post, goes on as soon as the loop lets it. */
static void finish_post(sleeper_t *sleeper) {
  if (!sleeper->interrupted) return;
  sleeper->interrupted = false;
  atomic_fetch_sub(&sleeper->loop->mailbox.state, 4);
  assert_int_equal(aloop_call_soon_threadsafe(sleeper->loop, count, &sleeper->calls), 0);
}

static int sleeper_wait(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  sleeper_t *sleeper = state;
  if (timeout > 0) finish_post(sleeper);
  if (timeout < 0) {
    sleeper->sleeps++;
    for (int i = 0; i < sleeper->posts; i++)
      assert_int_equal(aloop_call_soon_threadsafe(sleeper->loop, count, &sleeper->calls), 0);
    sleeper->writes += wake_ups(sleeper->loop);
  }
  return sleeper->table->wait(sleeper->poll, events, capacity, timeout);
}

static const aloop_poller_t sleeper_table = {.size = sizeof(aloop_poller_t),
                                             .name = "sleeper",
                                             .open = sleeper_open,
                                             .close = sleeper_close,
                                             .update = sleeper_update,
                                             .wait = sleeper_wait};

static void each_sleep_costs_one_wake_up(void **state) {
  env_t *env = *state;
  int posts[] = {1, 7, 100, MANY, 3 * MANY};
  for (int way = 0; way < 5; way++) {
    sleeper_t sleeper = {.posts = posts[way]};
    env_loop(env, (aloop_options_t){.poller_table = &sleeper_table, .poller_arg = &sleeper, .debug = -1});
    sleeper.loop = env->loop;
    for (int sleep = 1; sleep <= 10; sleep++) {
      while (sleeper.sleeps < sleep) assert_true(aloop_run_once(env->loop, ALOOP_FOREVER) >= 0);
      while (sleeper.calls < sleep * posts[way]) run_turn(env->loop);
      assert_int_equal(sleeper.writes, sleep);
    }
    aloop_close(env->loop); /* before the sleeper goes */
  }
}

/* What cannot be woken does not sleep, but it leaves the CPU to whoever has to go on. */
static void a_poster_that_was_interrupted_gets_the_cpu(void **state) {
  env_t *env = *state;
  sleeper_t sleeper = {.interrupted = true};
  env_loop(env, (aloop_options_t){.poller_table = &sleeper_table, .poller_arg = &sleeper, .debug = -1});
  sleeper.loop = env->loop;
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &sleeper.calls), 0);
  while (sleeper.calls == 0) run_turn(env->loop);
  atomic_fetch_add(&env->loop->mailbox.state, 4);            /* claimed, */
  atomic_fetch_and(&env->loop->mailbox.state, ~UINT64_C(1)); /* and the wake-up is written */
  for (int i = 0; i < 1000 && sleeper.calls < 2; i++)
    assert_true(aloop_run_once(env->loop, i % 2 == 0 ? ALOOP_FOREVER : ALOOP_SECONDS(1)) >= 0);
  assert_int_equal(sleeper.calls, 2);
  assert_int_equal(sleeper.sleeps, 0);
  aloop_close(env->loop);
}

/* Keeps the loop busy for some turns and posts to it in each. */
typedef struct busy {
  int turns;
  int calls;
} busy_t;

static void keep_busy(aloop_t *loop, void *arg) {
  busy_t *busy = arg;
  for (int i = 0; i < 10; i++) aloop_call_soon_threadsafe(loop, count, &busy->calls);
  if (--busy->turns == 0)
    aloop_stop(loop);
  else
    aloop_call_soon(loop, keep_busy, busy);
}

static void a_busy_loop_is_not_woken(void **state) {
  env_t *env = *state;
  busy_t busy = {.turns = 30};
  aloop_call_soon(env->loop, keep_busy, &busy);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  /* A loop that does not run sleeps, so the first post of a run wakes. */
  assert_in_range(wake_ups(env->loop), 0, 1);
  while (busy.calls < 300) run_turn(env->loop);
}

/* ---- Several threads ----------------------------------------------------------------------------------------- */

enum { PRODUCERS = 4, EACH = 20000 };

typedef struct producer {
  aloop_t *loop;
  pthread_t thread;
  int numbers[EACH];
  int next;
  int *total;
} producer_t;

static void from_producer(aloop_t *loop, void *arg) {
  int number = *(int *)arg;
  producer_t *producer = ALOOP_CONTAINER_OF((int *)arg - number, producer_t, numbers);
  assert_int_equal(number, producer->next++);
  if (++*producer->total == PRODUCERS * EACH) aloop_stop(loop);
}

static void *produce(void *arg) {
  producer_t *producer = arg;
  for (int i = 0; i < EACH; i++) {
    if (aloop_call_soon_threadsafe(producer->loop, from_producer, &producer->numbers[i]) < 0) return arg;
    if (i % 977 == 0) sched_yield(); /* let the loop fall asleep now and then */
  }
  return NULL;
}

static void start_producer(producer_t *producer, aloop_t *loop, int *total) {
  producer->loop = loop;
  producer->next = 0;
  producer->total = total;
  for (int i = 0; i < EACH; i++) producer->numbers[i] = i;
  assert_int_equal(pthread_create(&producer->thread, NULL, produce, producer), 0);
}

static void each_producer_keeps_its_order(void **state) {
  env_t *env = *state;
  static producer_t producers[PRODUCERS];
  int total = 0;
  for (int i = 0; i < PRODUCERS; i++) start_producer(&producers[i], env->loop, &total);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  for (int i = 0; i < PRODUCERS; i++) {
    void *failed;
    pthread_join(producers[i].thread, &failed);
    assert_null(failed);
    assert_int_equal(producers[i].next, EACH);
  }
}

/* Two threads that post by turns, a few or many in a row, and agree by a lock on whose turn it is. */
typedef struct turns {
  aloop_t *loop;
  pthread_mutex_t lock;
  int posted; /* with the lock */
  int arrived;
  int numbers[EACH];
} turns_t;

static void in_turn(aloop_t *loop, void *arg) {
  int number = *(int *)arg;
  turns_t *turns = ALOOP_CONTAINER_OF((int *)arg - number, turns_t, numbers);
  assert_int_equal(number, turns->arrived++);
  if (turns->arrived == EACH) aloop_stop(loop);
}

/* Returns whether there are more to come, or -1. */
static int post_a_few(turns_t *turns) {
  int many = turns->posted % 7 == 0 ? MANY : turns->posted % 50 + 1;
  for (; many > 0 && turns->posted < EACH; many--)
    if (aloop_call_soon_threadsafe(turns->loop, in_turn, &turns->numbers[turns->posted++]) < 0) return -1;
  return turns->posted < EACH;
}

static void *take_turns(void *arg) {
  turns_t *turns = arg;
  int more;
  do {
    pthread_mutex_lock(&turns->lock);
    more = post_a_few(turns);
    pthread_mutex_unlock(&turns->lock);
    sched_yield();
  } while (more > 0);
  return more < 0 ? arg : NULL;
}

static void what_happened_before_in_another_thread_is_called_before(void **state) {
  env_t *env = *state;
  static turns_t turns = {.lock = PTHREAD_MUTEX_INITIALIZER};
  pthread_t threads[2];
  turns.loop = env->loop;
  for (int i = 0; i < EACH; i++) turns.numbers[i] = i;
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, take_turns, &turns), 0);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  for (int i = 0; i < 2; i++) {
    void *failed;
    pthread_join(threads[i], &failed);
    assert_null(failed);
  }
}

/* Ping-pong: each post meets a loop that sleeps or is about to. */
typedef struct pong {
  aloop_t *loop;
  atomic_int heard;
  int rounds;
} pong_t;

static void hear(aloop_t *loop, void *arg) {
  pong_t *pong = arg;
  if (atomic_fetch_add(&pong->heard, 1) + 1 == pong->rounds) aloop_stop(loop);
}

static void *ping(void *arg) {
  pong_t *pong = arg;
  for (int i = 0; i < pong->rounds; i++) {
    while (atomic_load(&pong->heard) < i) sched_yield();
    if (aloop_call_soon_threadsafe(pong->loop, hear, pong) < 0) return arg;
  }
  return NULL;
}

static void no_wake_up_is_lost(void **state) {
  env_t *env = *state;
  pong_t pong = {.loop = env->loop, .rounds = 5000};
  pthread_t thread;
  void *failed;
  assert_int_equal(pthread_create(&thread, NULL, ping, &pong), 0);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  pthread_join(thread, &failed);
  assert_null(failed);
}

typedef struct racer {
  aloop_t *loop;
  pthread_t thread;
  atomic_int *started;
  int calls;
  int last;
} racer_t;

static void *post_until_closed(void *arg) {
  racer_t *racer = arg;
  atomic_fetch_add(racer->started, 1);
  for (int i = 0; racer->last == 0; i++) {
    racer->last = aloop_call_soon_threadsafe(racer->loop, count, &racer->calls);
    if (i > MANY) sched_yield(); /* three posters are faster than one loop: do not fill the memory */
  }
  return NULL;
}

static void posting_may_race_closing(void **state) {
  env_t *env = *state;
  for (int round = 0; round < 20; round++) {
    env_loop(env, (aloop_options_t){.debug = -1});
    racer_t racers[3] = {0};
    atomic_int started = 0;
    for (int i = 0; i < 3; i++) {
      racers[i].loop = env->loop;
      racers[i].started = &started;
      assert_int_equal(pthread_create(&racers[i].thread, NULL, post_until_closed, &racers[i]), 0);
    }
    while (atomic_load(&started) < 3) sched_yield();
    for (int i = 0; i < round; i++) run_turn(env->loop);
    assert_int_equal(aloop_close(env->loop), 0);
    for (int i = 0; i < 3; i++) {
      pthread_join(racers[i].thread, NULL);
      assert_int_equal(racers[i].last, ALOOP_ECLOSED);
    }
  }
}

/* A poster whose posts are numbered: the loop must see them without a gap, for as long as it runs. */
typedef struct counter {
  aloop_t *loop;
  pthread_t thread;
  intptr_t posted; /* accepted */
  intptr_t heard;
  int last; /* what ended it */
} counter_t;

enum { COUNTERS = 4, CLOSES = 1000, LEAD_MAX = 200 };

static counter_t counters[COUNTERS];
static atomic_int heard_in_all;

/* The argument: the poster in the low bits, the number above. */
static void hear_number(aloop_t *loop, void *arg) {
  (void)loop;
  counter_t *counter = &counters[(uintptr_t)arg % COUNTERS];
  assert_int_equal((intptr_t)arg / COUNTERS, counter->heard++);
  atomic_fetch_add(&heard_in_all, 1);
}

/* A loop that gets no CPU while millions of posts are made has no room for more: that is no end. */
static void *count_until_closed(void *arg) {
  counter_t *counter = arg;
  intptr_t self = counter - counters;
  while (counter->last == 0 || counter->last == ALOOP_ENOMEM) {
    if (counter->posted % LEAD_MAX == LEAD_MAX - 1) sched_yield();
    void *number = (void *)(counter->posted * COUNTERS + self);
    counter->last = aloop_call_soon_threadsafe(counter->loop, hear_number, number);
    counter->posted += counter->last == 0;
  }
  return NULL;
}

static void close_in_the_middle(int patience) {
  aloop_t *loop;
  assert_int_equal(aloop_new(NULL, &loop), 0);
  atomic_store(&heard_in_all, 0);
  for (int i = 0; i < COUNTERS; i++) {
    counters[i] = (counter_t){.loop = loop};
    assert_int_equal(pthread_create(&counters[i].thread, NULL, count_until_closed, &counters[i]), 0);
  }
  while (atomic_load(&heard_in_all) < patience) assert_true(aloop_run_once(loop, ALOOP_SECONDS(10)) >= 0);
  assert_int_equal(aloop_close(loop), 0);
  for (int i = 0; i < COUNTERS; i++) {
    pthread_join(counters[i].thread, NULL);
    assert_int_equal(counters[i].last, ALOOP_ECLOSED);
    assert_true(counters[i].heard <= counters[i].posted);
  }
  aloop_free(loop);
}

/* Each post ran, was dropped by the close, or was refused; and nothing touches the mailbox afterwards. */
static void every_moment_is_a_moment_to_close(void **state) {
  (void)state;
  for (int i = 0; i < CLOSES; i++) close_in_the_middle(i % 50);
}

static void *stop_soon(void *loop) {
  aloop_call_soon_threadsafe(loop, stop, NULL);
  return NULL;
}

static void loops_in_two_threads_do_not_meet(void **state) {
  env_t *env = *state;
  aloop_t *other;
  pthread_t thread;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(pthread_create(&thread, NULL, stop_soon, other), 0);
  assert_int_equal(aloop_run_forever(other), 0);
  pthread_join(thread, NULL);
  assert_int_equal(run_turn(env->loop), 0);
  aloop_free(other);
}

TESTS(T(posts_keep_their_order_across_pages), T(a_post_before_the_first_run_arrives),
      T(a_callback_may_post_to_its_own_loop), T(nonsense_is_refused), T(after_close_posts_are_refused),
      T(lack_of_memory_is_told_to_the_poster), T(every_allocation_may_fail), T(two_million_posts_may_wait),
      T(a_post_has_no_context), T(each_sleep_costs_one_wake_up), T(a_poster_that_was_interrupted_gets_the_cpu),
      T(a_busy_loop_is_not_woken), T(each_producer_keeps_its_order),
      T(what_happened_before_in_another_thread_is_called_before), T(no_wake_up_is_lost),
      T(posting_may_race_closing), T(every_moment_is_a_moment_to_close), T(loops_in_two_threads_do_not_meet))
