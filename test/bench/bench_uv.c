/* SPDX-License-Identifier: MIT
 *
 * libuv, as its users write it for speed: handles embedded in their own structs. libuv has no call_soon; its idle
 * handles, which run once per turn, are the nearest thing. uv_async_send only wakes, so posts go through the mailbox
 * of bench.h. Making a handle (uv_timer_init) happens once in its life and is not measured, starting and stopping
 * it is.
 */
#include "bench.h"

#include <stdlib.h>
#include <uv.h>

const char *const peer_name = "uv";

static int64_t to_ms(int64_t ns) {
  return ns / 1000000;
}

/* ---- Loop ------------------------------------------------------------------------------------------------ */

void *peer_loop_new(void) {
  uv_loop_t *loop = bench_alloc(sizeof *loop);
  if (uv_loop_init(loop) != 0) bench_die("uv_loop_init");
  return loop;
}

void peer_loop_turn(void *loop) {
  uv_run(loop, UV_RUN_NOWAIT);
}

static void close_handle(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

void peer_loop_free(void *loop) {
  while (uv_loop_close(loop) == UV_EBUSY) {
    uv_walk(loop, close_handle, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
  }
  free(loop);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

static void link_of_chain(uv_idle_t *idle) {
  long *left = idle->data;
  if (--*left == 0) uv_idle_stop(idle);
}

int64_t peer_chain(long count) {
  uv_loop_t *loop = peer_loop_new();
  uv_idle_t idle = {.data = &count};
  uv_idle_init(loop, &idle);
  int64_t start = bench_cpu();
  uv_idle_start(&idle, link_of_chain);
  uv_run(loop, UV_RUN_DEFAULT);
  int64_t took = bench_cpu() - start;
  peer_loop_free(loop);
  return took;
}

static void run_once(uv_idle_t *idle) {
  long *left = idle->data;
  --*left;
  uv_idle_stop(idle);
}

int64_t peer_burst(long size, long rounds) {
  uv_loop_t *loop = peer_loop_new();
  uv_idle_t *idles = bench_alloc((size_t)size * sizeof *idles);
  long left = size * rounds;
  for (long i = 0; i < size; i++) {
    uv_idle_init(loop, &idles[i]);
    idles[i].data = &left;
  }
  int64_t start = bench_cpu();
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < size; i++) uv_idle_start(&idles[i], run_once);
    uv_run(loop, UV_RUN_DEFAULT);
  }
  int64_t took = bench_cpu() - start;
  peer_loop_free(loop);
  free(idles);
  return left == 0 ? took : -1;
}

/* ---- Timers ---------------------------------------------------------------------------------------------- */

static long timers_left;

static void on_timer(uv_timer_t *timer) {
  (void)timer;
  timers_left--;
}

static uv_timer_t *new_timers(uv_loop_t *loop, long count) {
  uv_timer_t *timers = bench_alloc((size_t)count * sizeof *timers);
  for (long i = 0; i < count; i++) uv_timer_init(loop, &timers[i]);
  uv_update_time(loop);
  return timers;
}

/* Returns the longest delay. */
static int64_t start_timers(uv_timer_t *timers, long count, const int64_t *delays) {
  int64_t last = 0;
  for (long i = 0; i < count; i++) {
    uv_timer_start(&timers[i], on_timer, (uint64_t)to_ms(delays[i]), 0);
    if (delays[i] > last) last = delays[i];
  }
  return last;
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  uv_loop_t *loop = peer_loop_new();
  uv_timer_t *timers = new_timers(loop, count);
  for (long round = 0; round < rounds; round++) {
    int64_t start = bench_cpu();
    start_timers(timers, count, delays);
    uv_run(loop, UV_RUN_NOWAIT);
    int64_t middle = bench_cpu();
    for (long i = 0; i < count; i++) uv_timer_stop(&timers[i]);
    uv_run(loop, UV_RUN_NOWAIT);
    inserts[round] = middle - start;
    cancels[round] = bench_cpu() - middle;
  }
  peer_loop_free(loop);
  free(timers);
}

void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) {
  uv_loop_t *loop = peer_loop_new();
  uv_timer_t *timers = new_timers(loop, count);
  for (long round = 0; round < rounds; round++) {
    timers_left = count;
    uv_update_time(loop);
    bench_sleep_until(bench_now() + start_timers(timers, count, delays) + 2000000);
    int64_t start = bench_cpu();
    uv_run(loop, UV_RUN_DEFAULT);
    times[round] = bench_cpu() - start;
    if (timers_left != 0) bench_die("not every timer was called");
  }
  peer_loop_free(loop);
  free(timers);
}

static int64_t push_back(long timers_count, int64_t timeout, long total, const uint32_t *order, bool restart) {
  uv_loop_t *loop = peer_loop_new();
  uv_timer_t *timers = new_timers(loop, timers_count);
  for (long i = 0; i < timers_count; i++)
    uv_timer_start(&timers[i], on_timer, (uint64_t)to_ms(timeout), (uint64_t)to_ms(timeout));
  int64_t start = bench_cpu();
  for (long i = 0; i < total; i++) {
    if (i % 1000 == 0) uv_run(loop, UV_RUN_NOWAIT);
    uv_timer_t *timer = &timers[order[i % timers_count]];
    if (restart) {
      uv_timer_stop(timer);
      uv_timer_start(timer, on_timer, (uint64_t)to_ms(timeout), 0);
    } else {
      uv_timer_again(timer);
    }
  }
  int64_t took = bench_cpu() - start;
  peer_loop_free(loop);
  free(timers);
  return took;
}

int64_t peer_rearm(long count, int64_t timeout, long total, const uint32_t *order) {
  return push_back(count, timeout, total, order, false);
}

int64_t peer_restart(long count, int64_t timeout, long total, const uint32_t *order) {
  return push_back(count, timeout, total, order, true);
}

void peer_make_timers(void *loop, long count) {
  uv_timer_t *timers = new_timers(loop, count);
  for (long i = 0; i < count; i++) uv_timer_start(&timers[i], on_timer, 60000, 0);
}

/* ---- Posts ----------------------------------------------------------------------------------------------- */

typedef struct posts {
  bench_mailbox_t mailbox;
  uv_async_t wake;
  long left;
} posts_t;

static void posted(void *arg) {
  posts_t *posts = arg;
  posts->left--;
}

static void post(void *user) {
  posts_t *posts = user;
  if (bench_mailbox_put(&posts->mailbox, posted, posts)) uv_async_send(&posts->wake);
}

static void on_wake(uv_async_t *wake) {
  posts_t *posts = wake->data;
  bench_mailbox_run(&posts->mailbox);
  if (posts->left == 0) uv_stop(wake->loop);
}

void peer_posts(int producers, long count, long rounds, int64_t *times) {
  uv_loop_t *loop = peer_loop_new();
  posts_t posts;
  bench_mailbox_init(&posts.mailbox);
  uv_async_init(loop, &posts.wake, on_wake);
  posts.wake.data = &posts;
  for (long round = 0; round < rounds; round++) {
    bench_producers_t threads;
    posts.left = count;
    int64_t start = bench_now();
    bench_producers_start(&threads, producers, count, post, &posts);
    uv_run(loop, UV_RUN_DEFAULT);
    times[round] = bench_now() - start;
    bench_producers_join(&threads);
  }
  peer_loop_free(loop);
  bench_mailbox_free(&posts.mailbox);
}

typedef struct side {
  bench_side_t side;
  bench_mailbox_t mailbox;
  uv_loop_t *loop;
  uv_async_t wake;
} side_t;

static void arrived(void *side) {
  bench_side_arrive(side);
}

static void post_to(bench_side_t *to) {
  side_t *side = (side_t *)to;
  if (bench_mailbox_put(&side->mailbox, arrived, to)) uv_async_send(&side->wake);
}

static void run_side(bench_side_t *side) {
  uv_run(((side_t *)side)->loop, UV_RUN_DEFAULT);
}

static void stop_side(bench_side_t *side) {
  uv_stop(((side_t *)side)->loop);
}

static void on_side_wake(uv_async_t *wake) {
  bench_mailbox_run(wake->data);
}

int64_t peer_pingpong(long count) {
  side_t sides[2];
  for (int i = 0; i < 2; i++) {
    sides[i] = (side_t){{.post = post_to, .run = run_side, .stop = stop_side}, .loop = peer_loop_new()};
    bench_mailbox_init(&sides[i].mailbox);
    uv_async_init(sides[i].loop, &sides[i].wake, on_side_wake);
    sides[i].wake.data = &sides[i].mailbox;
  }
  int64_t took = bench_pingpong(&sides[0].side, &sides[1].side, count);
  for (int i = 0; i < 2; i++) {
    peer_loop_free(sides[i].loop);
    bench_mailbox_free(&sides[i].mailbox);
  }
  return took;
}

/* ---- Lookups --------------------------------------------------------------------------------------------- */

static void found(uv_getaddrinfo_t *request, int status, struct addrinfo *list);

static void look_up(uv_getaddrinfo_t *request) {
  if (uv_getaddrinfo(request->loop, request, found, "127.0.0.1", "80", NULL) != 0) bench_die("uv_getaddrinfo");
}

static void found(uv_getaddrinfo_t *request, int status, struct addrinfo *list) {
  long *left = request->data;
  if (status != 0) bench_die("uv_getaddrinfo");
  uv_freeaddrinfo(list);
  if (--*left > 0) look_up(request);
}

int64_t peer_lookup(long count) {
  uv_getaddrinfo_t request = {.loop = peer_loop_new(), .data = &count};
  int64_t start = bench_now();
  look_up(&request);
  uv_run(request.loop, UV_RUN_DEFAULT);
  int64_t took = bench_now() - start;
  peer_loop_free(request.loop);
  return count == 0 ? took : -1;
}

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

typedef struct jobs {
  uv_loop_t *loop;
  uv_work_t *requests; /* reused, as careful users do */
  long burst, back, left;
} jobs_t;

static void do_nothing(uv_work_t *request) {
  (void)request;
}

static void came_back(uv_work_t *request, int status);

static void send_jobs(jobs_t *jobs) {
  jobs->back = 0;
  for (long i = 0; i < jobs->burst; i++) {
    jobs->requests[i].data = jobs;
    if (uv_queue_work(jobs->loop, &jobs->requests[i], do_nothing, came_back) != 0) bench_die("uv_queue_work");
  }
}

static void came_back(uv_work_t *request, int status) {
  jobs_t *jobs = request->data;
  if (status != 0 || ++jobs->back < jobs->burst) return;
  jobs->left -= jobs->burst;
  if (jobs->left > 0) send_jobs(jobs);
}

void peer_jobs(long burst, long count, long rounds, int64_t *times) {
  jobs_t jobs = {.loop = peer_loop_new(), .burst = burst};
  jobs.requests = bench_alloc((size_t)burst * sizeof *jobs.requests);
  for (long round = 0; round < rounds; round++) {
    jobs.left = count;
    int64_t start = bench_now();
    send_jobs(&jobs);
    uv_run(jobs.loop, UV_RUN_DEFAULT);
    times[round] = bench_now() - start;
  }
  peer_loop_free(jobs.loop);
  free(jobs.requests);
}
