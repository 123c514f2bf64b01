/* SPDX-License-Identifier: MIT
 *
 * libev with raw watchers: it has no buffered streams, so its users read and write descriptors themselves, as
 * here. ev_feed_event is its call_soon: cheap, but last in first out, and a chain of it never lets I/O through.
 * ev_async_send only wakes, so posts go through the mailbox of bench.h. An idle timeout is ev_timer_again, as
 * its manual advises.
 */
#include "bench.h"

#include <errno.h>
#include <ev.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char *const peer_name = "ev";

static double to_seconds(int64_t ns) {
  return (double)ns / 1e9;
}

/* ---- Loop ------------------------------------------------------------------------------------------------ */

static struct ev_loop *new_loop(void) {
  struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
  if (loop == NULL) bench_die("ev_loop_new");
  return loop;
}

void *peer_loop_new(void) {
  return new_loop();
}

void peer_loop_turn(void *loop) {
  ev_run(loop, EVRUN_NOWAIT);
}

void peer_loop_free(void *loop) {
  ev_loop_destroy(loop);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

static void link_of_chain(struct ev_loop *loop, struct ev_watcher *watcher, int events) {
  long *left = watcher->data;
  (void)events;
  if (--*left > 0) ev_feed_event(loop, watcher, EV_CUSTOM);
}

int64_t peer_chain(long count) {
  struct ev_loop *loop = new_loop();
  struct ev_watcher watcher;
  ev_init(&watcher, link_of_chain);
  watcher.data = &count;
  int64_t start = bench_cpu();
  ev_feed_event(loop, &watcher, EV_CUSTOM);
  ev_run(loop, EVRUN_NOWAIT);
  int64_t took = bench_cpu() - start;
  ev_loop_destroy(loop);
  return count == 0 ? took : -1;
}

static void run_once(struct ev_loop *loop, struct ev_watcher *watcher, int events) {
  long *left = watcher->data;
  (void)loop, (void)events;
  --*left;
}

int64_t peer_burst(long size, long rounds) {
  struct ev_loop *loop = new_loop();
  struct ev_watcher *watchers = bench_alloc((size_t)size * sizeof *watchers);
  long left = size * rounds;
  for (long i = 0; i < size; i++) {
    ev_init(&watchers[i], run_once);
    watchers[i].data = &left;
  }
  int64_t start = bench_cpu();
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < size; i++) ev_feed_event(loop, &watchers[i], EV_CUSTOM);
    ev_run(loop, EVRUN_NOWAIT);
  }
  int64_t took = bench_cpu() - start;
  ev_loop_destroy(loop);
  free(watchers);
  return left == 0 ? took : -1;
}

/* ---- Timers ---------------------------------------------------------------------------------------------- */

static long timers_left;

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events) {
  (void)loop, (void)timer, (void)events;
  timers_left--;
}

static ev_timer *new_timers(struct ev_loop *loop, long count) {
  ev_timer *timers = bench_alloc((size_t)count * sizeof *timers);
  for (long i = 0; i < count; i++) ev_timer_init(&timers[i], on_timer, 0, 0);
  ev_now_update(loop);
  return timers;
}

/* Returns the longest delay. */
static int64_t start_timers(struct ev_loop *loop, ev_timer *timers, long count, const int64_t *delays) {
  int64_t last = 0;
  for (long i = 0; i < count; i++) {
    ev_timer_set(&timers[i], to_seconds(delays[i]), 0);
    ev_timer_start(loop, &timers[i]);
    if (delays[i] > last) last = delays[i];
  }
  return last;
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  struct ev_loop *loop = new_loop();
  ev_timer *timers = new_timers(loop, count);
  for (long round = 0; round < rounds; round++) {
    int64_t start = bench_cpu();
    start_timers(loop, timers, count, delays);
    ev_run(loop, EVRUN_NOWAIT);
    int64_t middle = bench_cpu();
    for (long i = 0; i < count; i++) ev_timer_stop(loop, &timers[i]);
    ev_run(loop, EVRUN_NOWAIT);
    inserts[round] = middle - start;
    cancels[round] = bench_cpu() - middle;
  }
  ev_loop_destroy(loop);
  free(timers);
}

void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) {
  struct ev_loop *loop = new_loop();
  ev_timer *timers = new_timers(loop, count);
  for (long round = 0; round < rounds; round++) {
    timers_left = count;
    ev_now_update(loop);
    bench_sleep_until(bench_now() + start_timers(loop, timers, count, delays) + 2000000);
    int64_t start = bench_cpu();
    ev_run(loop, 0);
    times[round] = bench_cpu() - start;
    if (timers_left != 0) bench_die("not every timer was called");
  }
  ev_loop_destroy(loop);
  free(timers);
}

static int64_t push_back(long timers_count, int64_t timeout, long total, const uint32_t *order, bool restart) {
  struct ev_loop *loop = new_loop();
  ev_timer *timers = new_timers(loop, timers_count);
  for (long i = 0; i < timers_count; i++) {
    ev_timer_set(&timers[i], 0, to_seconds(timeout));
    ev_timer_again(loop, &timers[i]);
  }
  int64_t start = bench_cpu();
  for (long i = 0; i < total; i++) {
    if (i % 1000 == 0) ev_run(loop, EVRUN_NOWAIT);
    ev_timer *timer = &timers[order[i % timers_count]];
    if (restart) {
      ev_timer_stop(loop, timer);
      ev_timer_set(timer, to_seconds(timeout), 0);
      ev_timer_start(loop, timer);
    } else {
      ev_timer_again(loop, timer);
    }
  }
  int64_t took = bench_cpu() - start;
  ev_loop_destroy(loop);
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
  ev_timer *timers = new_timers(loop, count);
  for (long i = 0; i < count; i++) {
    ev_timer_set(&timers[i], 60, 0);
    ev_timer_start(loop, &timers[i]);
  }
}

/* ---- Posts ----------------------------------------------------------------------------------------------- */

typedef struct posts {
  bench_mailbox_t mailbox;
  struct ev_loop *loop;
  ev_async wake;
  long left;
} posts_t;

static void posted(void *arg) {
  posts_t *posts = arg;
  posts->left--;
}

static void post(void *user) {
  posts_t *posts = user;
  if (bench_mailbox_put(&posts->mailbox, posted, posts)) ev_async_send(posts->loop, &posts->wake);
}

static void on_wake(struct ev_loop *loop, ev_async *wake, int events) {
  posts_t *posts = wake->data;
  (void)events;
  bench_mailbox_run(&posts->mailbox);
  if (posts->left == 0) ev_break(loop, EVBREAK_ALL);
}

void peer_posts(int producers, long count, long rounds, int64_t *times) {
  posts_t posts = {.loop = new_loop()};
  bench_mailbox_init(&posts.mailbox);
  ev_async_init(&posts.wake, on_wake);
  posts.wake.data = &posts;
  ev_async_start(posts.loop, &posts.wake);
  for (long round = 0; round < rounds; round++) {
    bench_producers_t threads;
    posts.left = count;
    int64_t start = bench_now();
    bench_producers_start(&threads, producers, count, post, &posts);
    ev_run(posts.loop, 0);
    times[round] = bench_now() - start;
    bench_producers_join(&threads);
  }
  ev_loop_destroy(posts.loop);
  bench_mailbox_free(&posts.mailbox);
}

typedef struct side {
  bench_side_t side;
  bench_mailbox_t mailbox;
  struct ev_loop *loop;
  ev_async wake;
} side_t;

static void arrived(void *side) {
  bench_side_arrive(side);
}

static void post_to(bench_side_t *to) {
  side_t *side = (side_t *)to;
  if (bench_mailbox_put(&side->mailbox, arrived, to)) ev_async_send(side->loop, &side->wake);
}

static void run_side(bench_side_t *side) {
  ev_run(((side_t *)side)->loop, 0);
}

static void stop_side(bench_side_t *side) {
  ev_break(((side_t *)side)->loop, EVBREAK_ALL);
}

static void on_side_wake(struct ev_loop *loop, ev_async *wake, int events) {
  (void)loop, (void)events;
  bench_mailbox_run(wake->data);
}

int64_t peer_pingpong(long count) {
  side_t sides[2];
  for (int i = 0; i < 2; i++) {
    sides[i] = (side_t){{.post = post_to, .run = run_side, .stop = stop_side}, .loop = new_loop()};
    bench_mailbox_init(&sides[i].mailbox);
    ev_async_init(&sides[i].wake, on_side_wake);
    sides[i].wake.data = &sides[i].mailbox;
    ev_async_start(sides[i].loop, &sides[i].wake);
  }
  int64_t took = bench_pingpong(&sides[0].side, &sides[1].side, count);
  for (int i = 0; i < 2; i++) {
    ev_loop_destroy(sides[i].loop);
    bench_mailbox_free(&sides[i].mailbox);
  }
  return took;
}

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

typedef struct pipes {
  ev_io in, out;
  long size, depth, left; /* messages not yet sent */
  long unsent, under_way; /* bytes */
} pipes_t;

/* Message by message; what the pipe does not take waits for room. */
static void write_messages(struct ev_loop *loop, pipes_t *pipes) {
  while (pipes->unsent > 0) {
    long part = pipes->unsent % pipes->size;
    ssize_t n = write(pipes->out.fd, bench_bytes, (size_t)(part > 0 ? part : pipes->size));
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) bench_die("write");
    pipes->unsent -= n;
  }
  if (pipes->unsent > 0)
    ev_io_start(loop, &pipes->out);
  else
    ev_io_stop(loop, &pipes->out);
}

static void send_messages(struct ev_loop *loop, pipes_t *pipes) {
  pipes->left -= pipes->depth;
  pipes->unsent = pipes->under_way = pipes->depth * pipes->size;
  write_messages(loop, pipes);
}

static void on_room(struct ev_loop *loop, ev_io *io, int events) {
  (void)events;
  write_messages(loop, io->data);
}

static void on_message(struct ev_loop *loop, ev_io *io, int events) {
  static char into[BENCH_BUFFER];
  pipes_t *pipes = io->data;
  (void)events;
  ssize_t n = read(io->fd, into, sizeof into);
  if (n <= 0) bench_die("read");
  pipes->under_way -= n;
  if (pipes->under_way > 0) return;
  if (pipes->left > 0)
    send_messages(loop, pipes);
  else
    ev_break(loop, EVBREAK_ALL);
}

int64_t peer_pipe(long size, long depth, long count) {
  struct ev_loop *loop = new_loop();
  pipes_t pipes = {.size = size, .depth = depth, .left = count};
  int fds[2];
  bench_pipe(fds);
  ev_io_init(&pipes.in, on_message, fds[0], EV_READ);
  ev_io_init(&pipes.out, on_room, fds[1], EV_WRITE);
  pipes.in.data = pipes.out.data = &pipes;
  ev_io_start(loop, &pipes.in);
  int64_t start = bench_cpu();
  send_messages(loop, &pipes);
  ev_run(loop, 0);
  int64_t took = bench_cpu() - start;
  ev_loop_destroy(loop);
  close(fds[0]);
  close(fds[1]);
  return pipes.left == 0 ? took : -1;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

enum { DATAGRAMS = 64 }; /* per event */

static char buffer[BENCH_BUFFER];

static void echo_datagrams(struct ev_loop *loop, ev_io *io, int events) {
  struct sockaddr_in from;
  (void)loop, (void)events;
  for (int i = 0; i < DATAGRAMS; i++) {
    socklen_t size = sizeof from;
    ssize_t n = recvfrom(io->fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &size);
    if (n < 0) return;
    if (sendto(io->fd, buffer, (size_t)n, 0, (struct sockaddr *)&from, size) != n) bench_die("sendto");
    ++*(long *)io->data;
  }
}

int64_t peer_datagrams(long size, long depth, long count) {
  struct ev_loop *loop = new_loop();
  struct sockaddr_in address;
  socklen_t address_size = sizeof address;
  long echoed = 0;
  ev_io io;
  ev_io_init(&io, echo_datagrams, bench_datagram_socket(), EV_READ);
  io.data = &echoed;
  ev_io_start(loop, &io);
  getsockname(io.fd, (struct sockaddr *)&address, &address_size);
  int64_t took = bench_datagrams(ntohs(address.sin_port), size, depth, count, peer_loop_turn, loop, &echoed);
  ev_loop_destroy(loop);
  close(io.fd);
  return took;
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

typedef struct connection {
  ev_io io;
  char *rest; /* what the socket did not take; nothing is read until it is gone */
  size_t rest_at, rest_size;
} connection_t;

static void end(struct ev_loop *loop, connection_t *connection) {
  ev_io_stop(loop, &connection->io);
  close(connection->io.fd);
  free(connection->rest);
  free(connection);
}

static void watch(struct ev_loop *loop, connection_t *connection, int events) {
  ev_io_stop(loop, &connection->io);
  ev_io_set(&connection->io, connection->io.fd, events);
  ev_io_start(loop, &connection->io);
}

static void write_rest(struct ev_loop *loop, connection_t *connection) {
  ssize_t n =
      send(connection->io.fd, connection->rest + connection->rest_at, connection->rest_size, MSG_NOSIGNAL);
  if (n < 0) {
    if (errno != EAGAIN) end(loop, connection);
    return;
  }
  connection->rest_at += (size_t)n;
  connection->rest_size -= (size_t)n;
  if (connection->rest_size > 0) return;
  free(connection->rest);
  connection->rest = NULL;
  watch(loop, connection, EV_READ);
}

static void keep_rest(struct ev_loop *loop, connection_t *connection, const char *data, size_t size) {
  connection->rest = bench_alloc(size);
  memcpy(connection->rest, data, size);
  connection->rest_at = 0;
  connection->rest_size = size;
  watch(loop, connection, EV_WRITE);
}

static void echo(struct ev_loop *loop, ev_io *io, int events) {
  connection_t *connection = (connection_t *)io;
  if (events & EV_WRITE) {
    write_rest(loop, connection);
    return;
  }
  ssize_t n = recv(io->fd, buffer, sizeof buffer, 0);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) end(loop, connection);
    return;
  }
  ssize_t sent = send(io->fd, buffer, (size_t)n, MSG_NOSIGNAL);
  if (sent == n) return;
  if (sent < 0 && errno != EAGAIN)
    end(loop, connection);
  else
    keep_rest(loop, connection, buffer + (sent < 0 ? 0 : sent), (size_t)(n - (sent < 0 ? 0 : sent)));
}

/* What happens on a connection, and what it waits for first. */
typedef struct work {
  void (*event)(struct ev_loop *loop, ev_io *io, int events);
  int first;
} work_t;

static void on_connection(struct ev_loop *loop, ev_io *listener, int events) {
  const work_t *work = listener->data;
  (void)events;
  for (int fd; (fd = bench_accept(listener->fd)) >= 0;) {
    connection_t *connection = bench_alloc(sizeof *connection);
    ev_io_init(&connection->io, work->event, fd, work->first);
    ev_io_start(loop, &connection->io);
  }
}

static void serve(const work_t *work) {
  struct ev_loop *loop = new_loop();
  ev_io listener;
  ev_io_init(&listener, on_connection, bench_listen(), EV_READ);
  listener.data = (void *)work;
  ev_io_start(loop, &listener);
  bench_listening(listener.fd);
  ev_run(loop, 0);
}

void peer_serve(bool for_memory) {
  static const work_t echoing = {echo, EV_READ};
  (void)for_memory;
  serve(&echoing);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static void forget(struct ev_loop *loop, ev_io *io, int events) {
  (void)events;
  ssize_t n = recv(io->fd, buffer, sizeof buffer, 0);
  if (n == 0 || (n < 0 && errno != EAGAIN)) end(loop, (connection_t *)io);
}

void peer_serve_sink(void) {
  static const work_t sink = {forget, EV_READ};
  serve(&sink);
}

static void write_on(struct ev_loop *loop, ev_io *io, int events) {
  (void)events;
  ssize_t n;
  do n = send(io->fd, bench_block, sizeof bench_block, MSG_NOSIGNAL);
  while (n == (ssize_t)sizeof bench_block);
  if (n < 0 && errno != EAGAIN) end(loop, (connection_t *)io);
}

void peer_serve_source(void) {
  static const work_t source = {write_on, EV_WRITE};
  serve(&source);
}
