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

/* Weak, as peer_serve is: bench_aloop_sock.c has another server. */
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

static void insert_and_cancel(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  int64_t start = bench_cpu();
  start_timers(loop, timers, on_timer);
  timers->start = bench_cpu();
  timers->insert = timers->start - start;
  for (long i = 0; i < timers->count; i++) aloop_cancel(loop, &timers->handles[i]);
  aloop_call_soon(loop, finish, timers); /* in the next turn, so that work put off is measured too */
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  timers_t *timers = timers_new(count, delays);
  for (long round = 0; round < rounds; round++) {
    run_from_callback(timers, insert_and_cancel);
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

static void rearm_some(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  int64_t when = aloop_time(loop) + timers->timeout;
  for (long end = timers->done + 1000; timers->done < timers->total && timers->done < end; timers->done++)
    aloop_reschedule(loop, &timers->handles[timers->order[timers->done % timers->count]], when);
  if (timers->done < timers->total)
    aloop_call_soon(loop, rearm_some, timers);
  else
    finish(loop, timers);
}

static void insert_and_rearm(aloop_t *loop, void *arg) {
  timers_t *timers = arg;
  for (long i = 0; i < timers->count; i++)
    timers->handles[i] = aloop_call_later(loop, timers->timeout, on_timer, timers);
  timers->start = bench_cpu();
  aloop_call_soon(loop, rearm_some, timers);
}

int64_t peer_rearm(long count, int64_t timeout, long total, const uint32_t *order) {
  timers_t *timers = timers_new(count, NULL);
  timers->timeout = timeout;
  timers->total = total;
  timers->order = order;
  run_from_callback(timers, insert_and_rearm);
  int64_t took = timers->took;
  timers_free(timers);
  return took;
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

/* ---- Tasks ----------------------------------------------------------------------------------------------- */

static int64_t do_nothing_there(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return 0;
}

static int64_t create(aloop_t *loop, void *arg) {
  for (long i = 1; i <= *(long *)arg; i++) {
    aloop_future_detach(aloop_create_task(loop, do_nothing_there, NULL, NULL));
    if (i % 100 == 0) aloop_await(aloop_sleep(loop, 0));
  }
  return aloop_await(aloop_sleep(loop, 0));
}

static int64_t await_ready(aloop_t *loop, void *arg) {
  for (long i = 0; i < *(long *)arg; i++) {
    aloop_future_t *future = aloop_future_new(loop);
    aloop_future_set_value(future, 1);
    aloop_await(future);
  }
  return 0;
}

static int64_t await_pending(aloop_t *loop, void *arg) {
  for (long i = 0; i < *(long *)arg; i++) aloop_await(aloop_sleep(loop, 0));
  return 0;
}

static int64_t read_ready(aloop_t *loop, void *arg) {
  for (long i = 0; i < *(long *)arg; i++) {
    aloop_future_t *future = aloop_future_new(loop);
    aloop_future_set_value(future, 1);
    aloop_future_result(future);
    aloop_future_unref(future);
  }
  return 0;
}

static void measure_task(aloop_task_fn fn, long count, long rounds, int64_t *times) {
  aloop_t *loop = new_loop();
  for (long i = 0; i < rounds; i++) {
    int64_t start = bench_cpu();
    aloop_run_until_complete(loop, aloop_create_task(loop, fn, &count, NULL));
    times[i] = bench_cpu() - start;
  }
  aloop_free(loop);
}

void peer_tasks(long count, long rounds, const bench_tasks_t *times) {
  measure_task(create, count, rounds, times->create);
  measure_task(await_ready, count, rounds, times->ready);
  measure_task(await_pending, count, rounds, times->pending);
  measure_task(read_ready, count, rounds, times->future);
}

/* ---- What tasks share ------------------------------------------------------------------------------------ */

typedef struct shared {
  aloop_lock_t *lock;
  aloop_queue_t *queue;
  long count;
} shared_t;

static int64_t take_and_release(aloop_t *loop, void *arg) {
  (void)loop;
  shared_t *shared = arg;
  for (long i = 0; i < shared->count; i++) {
    aloop_await(aloop_lock_acquire(shared->lock));
    aloop_lock_release(shared->lock);
  }
  return 0;
}

/* Half of them by another task, which waits for the lock whenever this one has it. */
static int64_t take_turns(aloop_t *loop, void *arg) {
  shared_t *shared = arg;
  aloop_await(aloop_lock_acquire(shared->lock));
  aloop_await(aloop_sleep(loop, 0)); /* until the other waits */
  for (long i = 0; i < shared->count / 2; i++) {
    aloop_lock_release(shared->lock);
    aloop_await(aloop_lock_acquire(shared->lock));
  }
  return aloop_lock_release(shared->lock);
}

static int64_t hand_over(aloop_t *loop, void *arg) {
  aloop_future_t *both[] = {aloop_create_task(loop, take_turns, arg, NULL),
                            aloop_create_task(loop, take_turns, arg, NULL)};
  return aloop_await(aloop_gather(loop, both, 2, 0));
}

static int64_t put_all(aloop_t *loop, void *arg) {
  (void)loop;
  shared_t *shared = arg;
  for (long i = 0; i < shared->count; i++) aloop_await(aloop_queue_put(shared->queue, shared));
  return 0;
}

static int64_t get_all(aloop_t *loop, void *arg) {
  shared_t *shared = arg;
  void *item;
  aloop_future_t *other = aloop_create_task(loop, put_all, arg, NULL);
  for (long i = 0; i < shared->count; i++) aloop_await_ptr(aloop_queue_get(shared->queue), &item);
  return aloop_await(other);
}

static int64_t limit_nothing(aloop_t *loop, void *arg) {
  (void)loop;
  for (long i = 0; i < ((shared_t *)arg)->count; i++) {
    aloop_timeout_t limit;
    aloop_timeout_begin(&limit, ALOOP_SECONDS(10));
    aloop_timeout_end(&limit, 0);
  }
  return 0;
}

static int64_t group_one(aloop_t *loop, void *arg) {
  for (long i = 0; i < ((shared_t *)arg)->count; i++) {
    aloop_task_group_t *group;
    aloop_task_group_begin(loop, &group);
    aloop_future_detach(aloop_task_group_create_task(group, do_nothing_there, NULL, NULL));
    aloop_task_group_end(group, 0);
    aloop_task_group_free(group);
  }
  return 0;
}

static void measure_shared(aloop_task_fn fn, long count, long rounds, int64_t *times) {
  aloop_t *loop = new_loop();
  aloop_queue_options_t options = {.size = sizeof options, .maxsize = 1};
  shared_t shared = {.count = count};
  aloop_lock_new(loop, &shared.lock);
  aloop_queue_new(loop, &options, &shared.queue);
  for (long i = 0; i < rounds; i++) {
    int64_t start = bench_cpu();
    aloop_run_until_complete(loop, aloop_create_task(loop, fn, &shared, NULL));
    times[i] = bench_cpu() - start;
  }
  aloop_queue_free(shared.queue);
  aloop_lock_free(shared.lock);
  aloop_free(loop);
}

void peer_sync(long count, long rounds, const bench_sync_t *times) {
  measure_shared(take_and_release, count, rounds, times->lock);
  measure_shared(hand_over, count, rounds, times->hand_over);
  measure_shared(get_all, count, rounds, times->queue);
  measure_shared(limit_nothing, count, rounds, times->limit);
  measure_shared(group_one, count, rounds, times->group);
}

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

typedef struct pipes {
  aloop_transport_t *in, *out;
  long size, depth, left; /* messages not yet sent */
  long under_way;         /* bytes */
} pipes_t;

static void send_messages(pipes_t *pipes) {
  pipes->left -= pipes->depth;
  pipes->under_way = pipes->depth * pipes->size;
  for (long i = 0; i < pipes->depth; i++)
    if (aloop_transport_write_owned(pipes->out, bench_bytes, (size_t)pipes->size, NULL, NULL) != 0)
      bench_die("aloop_transport_write_owned");
}

static int on_message(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  pipes_t *pipes = protocol;
  (void)data;
  pipes->under_way -= (long)size;
  if (pipes->under_way > 0) return 0;
  if (pipes->left > 0)
    send_messages(pipes);
  else
    aloop_stop(aloop_transport_loop(transport));
  return 0;
}

int64_t peer_pipe(long size, long depth, long count) {
  static const aloop_protocol_t reader = {.size = sizeof reader, .data_received = on_message};
  static const aloop_protocol_t writer = {.size = sizeof writer};
  aloop_t *loop = new_loop();
  pipes_t pipes = {.size = size, .depth = depth, .left = count};
  int fds[2];
  bench_pipe(fds);
  aloop_future_t *in = aloop_connect_read_pipe(loop, &reader, &pipes, fds[0]);
  aloop_future_t *out = aloop_connect_write_pipe(loop, &writer, &pipes, fds[1]);
  if (aloop_run_until_complete_ptr(loop, in, &pipes.in) != 0) bench_die("aloop_connect_read_pipe");
  if (aloop_run_until_complete_ptr(loop, out, &pipes.out) != 0) bench_die("aloop_connect_write_pipe");
  int64_t start = bench_cpu();
  send_messages(&pipes);
  aloop_run_forever(loop);
  int64_t took = bench_cpu() - start;
  aloop_transport_unref(pipes.in);
  aloop_transport_unref(pipes.out);
  aloop_free(loop);
  return pipes.left == 0 ? took : -1;
}

/* ---- Programs -------------------------------------------------------------------------------------------- */

typedef struct programs {
  aloop_t *loop;
  long to_start, to_end;
} programs_t;

static void start_program(programs_t *programs);

static void program_lost(aloop_process_t *process, void *protocol, int error) {
  (void)process, (void)error;
  programs_t *programs = protocol;
  if (--programs->to_end == 0) aloop_stop(programs->loop);
  if (programs->to_start > 0) start_program(programs);
}

static void start_program(programs_t *programs) {
  static const aloop_process_protocol_t protocol = {.size = sizeof protocol, .connection_lost = program_lost};
  static const char *const argv[] = {"/bin/true", NULL};
  static const aloop_process_options_t options = {.size = sizeof options,
                                                  .argv = argv,
                                                  .in = {.kind = ALOOP_STDIO_DEVNULL},
                                                  .err = {.kind = ALOOP_STDIO_INHERIT}};
  programs->to_start--;
  aloop_future_detach(aloop_subprocess_exec(programs->loop, &protocol, programs, &options));
}

int64_t peer_spawn(long count, long depth) {
  programs_t programs = {.loop = new_loop(), .to_start = count, .to_end = count};
  int64_t start = bench_now();
  for (long i = 0; i < depth; i++) start_program(&programs);
  aloop_run_forever(programs.loop);
  int64_t took = bench_now() - start;
  aloop_free(programs.loop);
  return took;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

static void echo_datagrams(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                           size_t count) {
  if (aloop_datagram_send_many(endpoint, messages, count) != (int64_t)count)
    bench_die("aloop_datagram_send_many");
  *(long *)protocol += (long)count;
}

static const aloop_datagram_protocol_t datagram_protocol = {.size = sizeof datagram_protocol,
                                                            .datagrams_received = echo_datagrams};

int64_t peer_datagrams(long size, long depth, long count) {
  aloop_t *loop = new_loop();
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "127.0.0.1"};
  aloop_datagram_t *endpoint;
  struct sockaddr_in address;
  socklen_t address_size = sizeof address;
  long echoed = 0;
  aloop_future_t *made = aloop_create_datagram_endpoint(loop, &datagram_protocol, &echoed, &options);
  if (aloop_run_until_complete_ptr(loop, made, &endpoint) != 0 ||
      aloop_datagram_sockname(endpoint, (struct sockaddr *)&address, &address_size) != 0)
    bench_die("aloop_create_datagram_endpoint");
  int64_t took = bench_datagrams(ntohs(address.sin_port), size, depth, count, peer_loop_turn, loop, &echoed);
  aloop_datagram_unref(endpoint);
  aloop_free(loop);
  return took;
}

static void count_datagrams(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                            size_t count) {
  (void)endpoint, (void)protocol;
  for (size_t i = 0; i < count; i++) {
    size_t segment = messages[i].segment;
    bench_received += segment == 0 ? 1 : (long)((messages[i].size + segment - 1) / segment);
  }
}

void peer_receive(void) {
  static const aloop_datagram_protocol_t counter = {.size = sizeof counter,
                                                    .datagrams_received = count_datagrams};
  aloop_t *loop = new_loop();
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "127.0.0.1", .want_segments = true};
  aloop_future_t *made = aloop_create_datagram_endpoint(loop, &counter, NULL, &options);
  aloop_datagram_t *endpoint;
  if (aloop_run_until_complete_ptr(loop, made, &endpoint) != 0) bench_die("aloop_create_datagram_endpoint");
  bench_listening(aloop_datagram_fd(endpoint));
  aloop_run_forever(loop);
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

static int echo(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  return aloop_transport_write(transport, data, size);
}

static void on_full(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_pause_reading(transport);
}

static void on_drained(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_resume_reading(transport);
}

static const aloop_protocol_t protocol = {
    .size = sizeof protocol, .data_received = echo, .pause_writing = on_full, .resume_writing = on_drained};

static void serve(const aloop_protocol_t *table, void *arg) {
  aloop_t *loop = new_loop();
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .backlog = BENCH_BACKLOG};
  aloop_unix_server_options_t at = {
      .size = sizeof at, .path = bench_path, .backlog = BENCH_BACKLOG, .flags = ALOOP_UNIX_NO_DESCRIPTORS};
  aloop_server_t *server;
  aloop_future_t *made = bench_path != NULL ? aloop_create_unix_server(loop, table, arg, &at)
                                            : aloop_create_server(loop, table, arg, &options);
  if (aloop_run_until_complete_ptr(loop, made, &server) != 0) bench_die("aloop_create_server");
  bench_listening(aloop_server_socket(server, 0, NULL, NULL));
  aloop_run_forever(loop);
}

__attribute__((weak)) void peer_serve(bool for_memory) {
  (void)for_memory;
  serve(&protocol, NULL);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static int forget(aloop_transport_t *transport, void *arg, const void *data, size_t size) {
  (void)transport, (void)arg, (void)data, (void)size;
  return 0;
}

void peer_serve_sink(void) {
  static const aloop_protocol_t sink = {.size = sizeof sink, .data_received = forget};
  serve(&sink, NULL);
}

/* Until pause_writing, after which the buffer is full. */
static void write_on(aloop_transport_t *transport, void *arg) {
  bool *full = arg;
  *full = false;
  while (!*full)
    if (aloop_transport_write_owned(transport, bench_block, sizeof bench_block, NULL, NULL) != 0) break;
}

static void note_full(aloop_transport_t *transport, void *arg) {
  (void)transport;
  *(bool *)arg = true;
}

static void *make_flag(void *arg) {
  (void)arg;
  return bench_alloc(sizeof(bool));
}

void peer_serve_source(void) {
  static const aloop_protocol_t source = {.size = sizeof source,
                                          .create = make_flag,
                                          .connection_made = write_on,
                                          .pause_writing = note_full,
                                          .resume_writing = write_on};
  serve(&source, NULL);
}

static int send_file(aloop_transport_t *transport, void *arg, const void *data, size_t size) {
  (void)data, (void)size;
  aloop_future_t *future = aloop_sendfile(transport, *(const int *)arg, 0, 0, 0);
  aloop_future_detach(future);
  return 0;
}

void peer_serve_file(int file, long size) {
  static const aloop_protocol_t files = {.size = sizeof files, .data_received = send_file};
  (void)size;
  serve(&files, &file);
}

/* ---- Relay ----------------------------------------------------------------------------------------------- */

static const aloop_protocol_t nothing = {.size = sizeof nothing};

static void on_connected(aloop_future_t *connecting, void *arg) {
  aloop_transport_t *target;
  if (aloop_future_take_ptr(connecting, &target) != 0) bench_die("aloop_create_connection");
  aloop_future_detach(aloop_relay(arg, target));
  aloop_transport_unref(target);
}

static void connect_target(aloop_transport_t *transport, void *arg) {
  aloop_transport_pause_reading(transport);
  aloop_connect_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = *(const int *)arg};
  aloop_future_t *connecting =
      aloop_create_connection(aloop_transport_loop(transport), &nothing, NULL, &options);
  aloop_future_add_done_callback(connecting, on_connected, transport);
  aloop_future_unref(connecting);
}

void peer_serve_relay(int port) {
  static const aloop_protocol_t client = {.size = sizeof client, .connection_made = connect_target};
  serve(&client, &port);
}
