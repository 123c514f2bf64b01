/* SPDX-License-Identifier: MIT
 *
 * aloop, as its users write it: call_soon, call_later, reschedule, call_soon_threadsafe, a server with a
 * protocol table.
 *
 * Timers are started inside a running callback, where aloop's clock is read once and then cached. That is no
 * trick: the peers' clocks are cached all the time, so without it aloop alone would pay for a clock read per
 * timer.
 */
#include "bench.h"

#include <aloop.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/* Weak, as peer_serve is: others that use these files have another server. */
__attribute__((weak)) const char *const peer_name = "aloop";

/* ---- Loop ------------------------------------------------------------------------------------------------ */

static aloop_t *new_loop(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) != 0) bench_die("aloop_new");
  return loop;
}

void *peer_loop_new(void) {
  return new_loop();
}

void peer_loop_turn(void *loop) {
  aloop_run_once(loop, 0);
}

void peer_loop_free(void *loop) {
  aloop_free(loop);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

static void link_of_chain(aloop_t *loop, void *arg) {
  long *left = arg;
  if (--*left > 0)
    aloop_call_soon(loop, link_of_chain, left);
  else
    aloop_stop(loop);
}

int64_t peer_chain(long count) {
  aloop_t *loop = new_loop();
  int64_t start = bench_cpu();
  aloop_call_soon(loop, link_of_chain, &count);
  aloop_run_forever(loop);
  int64_t took = bench_cpu() - start;
  aloop_free(loop);
  return took;
}

static void count_down(aloop_t *loop, void *arg) {
  long *left = arg;
  (void)loop;
  --*left;
}

int64_t peer_burst(long size, long rounds) {
  aloop_t *loop = new_loop();
  long left = size * rounds;
  int64_t start = bench_cpu();
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < size; i++) aloop_call_soon(loop, count_down, &left);
    aloop_run_once(loop, 0);
  }
  int64_t took = bench_cpu() - start;
  aloop_free(loop);
  return left == 0 ? took : -1;
}

/* ---- Timers ---------------------------------------------------------------------------------------------- */

typedef struct timers {
  const int64_t *delays;
  const uint32_t *order;
  aloop_handle_t *handles;
  aloop_t *loop;
  int64_t timeout, insert, start, took;
  long count, total, done, left;
  aloop_callback_fn some; /* pushes a thousand back */
} timers_t;

static int64_t start_timers(aloop_t *loop, timers_t *timers, aloop_callback_fn fn) {
  int64_t last = 0;
  for (long i = 0; i < timers->count; i++) {
    timers->handles[i] = aloop_call_later(loop, timers->delays[i], fn, timers);
    if (timers->delays[i] > last) last = timers->delays[i];
  }
  return last;
}

static timers_t *timers_new(long count, const int64_t *delays) {
  timers_t *timers = bench_alloc(sizeof *timers);
  *timers = (timers_t){.loop = new_loop(), .delays = delays, .count = count};
  timers->handles = bench_alloc((size_t)count * sizeof *timers->handles);
  return timers;
}

static void timers_free(timers_t *timers) {
  aloop_free(timers->loop);
  free(timers->handles);
  free(timers);
}

/* Calls `first` inside the loop and runs it until finish() is called. */
static void run_from_callback(timers_t *timers, aloop_callback_fn first) {
  aloop_call_soon(timers->loop, first, timers);
  aloop_run_forever(timers->loop);
}

static void finish(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  timers->took = bench_cpu() - timers->start;
  aloop_stop(loop);
}

static void on_timer(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  if (--timers->left == 0) finish(loop, timers);
}

static void cancel_all(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  timers->start = bench_cpu();
  timers->insert = timers->start - timers->insert;
  for (long i = 0; i < timers->count; i++) aloop_cancel(loop, &timers->handles[i]);
  aloop_call_soon(loop, finish, timers); /* in the next turn, so that work put off is measured too */
}

static void insert_all(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  timers->insert = bench_cpu();
  start_timers(loop, timers, on_timer);
  aloop_call_soon(loop, cancel_all, timers); /* likewise */
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  timers_t *timers = timers_new(count, delays);
  for (long round = 0; round < rounds; round++) {
    run_from_callback(timers, insert_all);
    inserts[round] = timers->insert;
    cancels[round] = timers->took;
  }
  timers_free(timers);
}

static void insert_and_sleep(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  bench_sleep_until(bench_now() + start_timers(loop, timers, on_timer) + 2000000);
  timers->start = bench_cpu();
}

void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) {
  timers_t *timers = timers_new(count, delays);
  for (long round = 0; round < rounds; round++) {
    timers->left = count;
    run_from_callback(timers, insert_and_sleep);
    times[round] = timers->took;
  }
  timers_free(timers);
}

/* After how many the turn ends. */
static long turn_end(const timers_t *timers) {
  return timers->done + 1000 < timers->total ? timers->done + 1000 : timers->total;
}

static void go_on(aloop_t *loop, timers_t *timers) {
  if (timers->done < timers->total)
    aloop_call_soon(loop, timers->some, timers);
  else
    finish(loop, timers);
}

static void rearm_some(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  int64_t when = aloop_time(loop) + timers->timeout;
  for (long end = turn_end(timers); timers->done < end; timers->done++)
    aloop_reschedule(loop, &timers->handles[timers->order[timers->done % timers->count]], when);
  go_on(loop, timers);
}

static void restart_some(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  for (long end = turn_end(timers); timers->done < end; timers->done++) {
    aloop_handle_t *handle = &timers->handles[timers->order[timers->done % timers->count]];
    aloop_cancel(loop, handle);
    *handle = aloop_call_later(loop, timers->timeout, on_timer, timers);
  }
  go_on(loop, timers);
}

static void insert_and_push(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  for (long i = 0; i < timers->count; i++)
    timers->handles[i] = aloop_call_later(loop, timers->timeout, on_timer, timers);
  timers->start = bench_cpu();
  aloop_call_soon(loop, timers->some, timers);
}

static int64_t push_back(long count, int64_t timeout, long total, const uint32_t *order,
                         aloop_callback_fn some) {
  timers_t *timers = timers_new(count, NULL);
  timers->timeout = timeout;
  timers->total = total;
  timers->order = order;
  timers->some = some;
  run_from_callback(timers, insert_and_push);
  int64_t took = timers->took;
  timers_free(timers);
  return took;
}

int64_t peer_rearm(long count, int64_t timeout, long total, const uint32_t *order) {
  return push_back(count, timeout, total, order, rearm_some);
}

int64_t peer_restart(long count, int64_t timeout, long total, const uint32_t *order) {
  return push_back(count, timeout, total, order, restart_some);
}

void peer_make_timers(void *loop, long count) {
  aloop_handle_t *handles = bench_alloc((size_t)count * sizeof *handles);
  for (long i = 0; i < count; i++) handles[i] = aloop_call_later(loop, ALOOP_SECONDS(60), on_timer, NULL);
}

/* ---- Posts ----------------------------------------------------------------------------------------------- */

typedef struct posts {
  aloop_t *loop;
  long left;
} posts_t;

static void posted(aloop_t *loop, void *arg) {
  posts_t *posts = arg;
  if (--posts->left == 0) aloop_stop(loop);
}

static void post(void *user) {
  posts_t *posts = user;
  if (aloop_call_soon_threadsafe(posts->loop, posted, posts) != 0) bench_die("aloop_call_soon_threadsafe");
}

void peer_posts(int producers, long count, long rounds, int64_t *times) {
  posts_t posts = {.loop = new_loop()};
  for (long round = 0; round < rounds; round++) {
    bench_producers_t threads;
    posts.left = count;
    int64_t start = bench_now();
    bench_producers_start(&threads, producers, count, post, &posts);
    aloop_run_forever(posts.loop);
    times[round] = bench_now() - start;
    bench_producers_join(&threads);
  }
  aloop_free(posts.loop);
}

typedef struct side {
  bench_side_t side;
  aloop_t *loop;
} side_t;

static void arrived(aloop_t *loop, void *arg) {
  (void)loop;
  bench_side_arrive(arg);
}

static void post_to(bench_side_t *side) {
  if (aloop_call_soon_threadsafe(((side_t *)side)->loop, arrived, side) != 0)
    bench_die("aloop_call_soon_threadsafe");
}

static void run_side(bench_side_t *side) {
  aloop_run_forever(((side_t *)side)->loop);
}

static void stop_side(bench_side_t *side) {
  aloop_stop(((side_t *)side)->loop);
}

int64_t peer_pingpong(long count) {
  side_t sides[2];
  for (int i = 0; i < 2; i++)
    sides[i] = (side_t){{.post = post_to, .run = run_side, .stop = stop_side}, new_loop()};
  int64_t took = bench_pingpong(&sides[0].side, &sides[1].side, count);
  for (int i = 0; i < 2; i++) aloop_free(sides[i].loop);
  return took;
}

/* ---- Lookups --------------------------------------------------------------------------------------------- */

typedef struct lookups {
  aloop_t *loop;
  long left;
} lookups_t;

static void look_up(lookups_t *lookups);

static void found(aloop_future_t *future, void *arg) {
  lookups_t *lookups = arg;
  struct addrinfo *list;
  if (aloop_future_take_ptr(future, &list) != 0) bench_die("aloop_getaddrinfo");
  freeaddrinfo(list);
  if (--lookups->left == 0)
    aloop_stop(lookups->loop);
  else
    look_up(lookups);
}

static void look_up(lookups_t *lookups) {
  aloop_future_t *future = aloop_getaddrinfo(lookups->loop, "127.0.0.1", "80", NULL, ALOOP_FOREVER);
  aloop_future_add_done_callback(future, found, lookups);
  aloop_future_unref(future);
}

int64_t peer_lookup(long count) {
  lookups_t lookups = {.loop = new_loop(), .left = count};
  int64_t start = bench_now();
  look_up(&lookups);
  aloop_run_forever(lookups.loop);
  int64_t took = bench_now() - start;
  aloop_free(lookups.loop);
  return took;
}

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

typedef struct jobs {
  long burst, back, left;
} jobs_t;

static int64_t do_nothing(void *arg) {
  (void)arg;
  return 0;
}

static void came_back(aloop_future_t *future, void *arg);

static void send_jobs(aloop_t *loop, void *arg) {
  jobs_t *jobs = arg;
  jobs->back = 0;
  for (long i = 0; i < jobs->burst; i++) {
    aloop_future_t *future = aloop_run_in_executor(loop, NULL, do_nothing, jobs);
    if (aloop_future_add_done_callback(future, came_back, jobs) != 0) bench_die("aloop_run_in_executor");
    aloop_future_unref(future);
  }
}

static void came_back(aloop_future_t *future, void *arg) {
  jobs_t *jobs = arg;
  aloop_t *loop = aloop_future_loop(future);
  if (++jobs->back < jobs->burst) return;
  jobs->left -= jobs->burst;
  if (jobs->left > 0)
    send_jobs(loop, jobs);
  else
    aloop_stop(loop);
}

void peer_jobs(long burst, long count, long rounds, int64_t *times) {
  aloop_t *loop = new_loop();
  for (long round = 0; round < rounds; round++) {
    jobs_t jobs = {.burst = burst, .left = count};
    int64_t start = bench_now();
    aloop_call_soon(loop, send_jobs, &jobs);
    aloop_run_forever(loop);
    times[round] = bench_now() - start;
  }
  aloop_free(loop);
}
