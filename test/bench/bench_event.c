/* SPDX-License-Identifier: MIT
 *
 * libevent: bufferevents for streams and an evconnlistener, as its book advises, with the data moved from
 * buffer to buffer without a copy. Loops are made without locks (and with the epoll change list) except where
 * other threads post. event_active is its call_soon; a chain of it never lets I/O through. A wake from another
 * thread is event_active too, the callbacks themselves go through the mailbox of bench.h. Idle timeouts use its
 * common timeouts, made for timers of equal length. Timers are started inside a callback, where libevent's
 * clock is cached.
 */
#include "bench.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const peer_name = "event";

static struct timeval to_timeval(int64_t ns) {
  return (struct timeval){.tv_sec = ns / 1000000000, .tv_usec = ns % 1000000000 / 1000};
}

/* ---- Loop ------------------------------------------------------------------------------------------------ */

static struct event_base *new_base(int flags) {
  struct event_config *config = event_config_new();
  event_config_set_flag(config, flags | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
  struct event_base *base = event_base_new_with_config(config);
  if (base == NULL) bench_die("event_base_new");
  event_config_free(config);
  return base;
}

void *peer_loop_new(void) {
  return new_base(EVENT_BASE_FLAG_NOLOCK);
}

void peer_loop_turn(void *base) {
  event_base_loop(base, EVLOOP_NONBLOCK);
}

void peer_loop_free(void *base) {
  event_base_free(base);
}

/* Calls fn inside the loop and then runs it until nothing is left to do. */
static void run_from_callback(struct event_base *base, event_callback_fn fn, void *arg) {
  struct event first;
  event_assign(&first, base, -1, 0, fn, arg);
  event_active(&first, EV_TIMEOUT, 0);
  event_base_dispatch(base);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

typedef struct chain {
  struct event event;
  long left;
} chain_t;

static void link_of_chain(evutil_socket_t fd, short events, void *arg) {
  chain_t *chain = arg;
  (void)fd, (void)events;
  if (--chain->left > 0) event_active(&chain->event, EV_TIMEOUT, 0);
}

int64_t peer_chain(long count) {
  struct event_base *base = peer_loop_new();
  chain_t chain = {.left = count};
  event_assign(&chain.event, base, -1, 0, link_of_chain, &chain);
  int64_t start = bench_cpu();
  event_active(&chain.event, EV_TIMEOUT, 0);
  event_base_dispatch(base);
  int64_t took = bench_cpu() - start;
  event_base_free(base);
  return chain.left == 0 ? took : -1;
}

static void count_down(evutil_socket_t fd, short events, void *arg) {
  long *left = arg;
  (void)fd, (void)events;
  --*left;
}

int64_t peer_burst(long size, long rounds) {
  struct event_base *base = peer_loop_new();
  struct event *all = bench_alloc((size_t)size * sizeof *all);
  long left = size * rounds;
  for (long i = 0; i < size; i++) event_assign(&all[i], base, -1, 0, count_down, &left);
  int64_t start = bench_cpu();
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < size; i++) event_active(&all[i], EV_TIMEOUT, 0);
    event_base_dispatch(base);
  }
  int64_t took = bench_cpu() - start;
  event_base_free(base);
  free(all);
  return left == 0 ? took : -1;
}

/* ---- Timers ---------------------------------------------------------------------------------------------- */

typedef struct timers {
  struct event_base *base;
  struct event *events;
  const int64_t *delays;
  long count, left;
  int64_t insert, start;
} timers_t;

static timers_t *timers_new(long count, const int64_t *delays) {
  timers_t *timers = bench_alloc(sizeof *timers);
  *timers = (timers_t){.base = new_base(EVENT_BASE_FLAG_NOLOCK), .delays = delays, .count = count};
  timers->events = bench_alloc((size_t)count * sizeof *timers->events);
  for (long i = 0; i < count; i++)
    event_assign(&timers->events[i], timers->base, -1, 0, count_down, &timers->left);
  return timers;
}

static int64_t timers_start(timers_t *timers) {
  int64_t last = 0;
  for (long i = 0; i < timers->count; i++) {
    struct timeval delay = to_timeval(timers->delays[i]);
    event_add(&timers->events[i], &delay);
    if (timers->delays[i] > last) last = timers->delays[i];
  }
  return last;
}

static void timers_free(timers_t *timers) {
  event_base_free(timers->base);
  free(timers->events);
  free(timers);
}

static void cancel_all(evutil_socket_t fd, short events, void *arg) {
  timers_t *timers = arg;
  (void)fd, (void)events;
  timers->start = bench_cpu();
  timers->insert = timers->start - timers->insert;
  for (long i = 0; i < timers->count; i++) event_del(&timers->events[i]);
}

static void insert_all(evutil_socket_t fd, short events, void *arg) {
  static const struct timeval at_once = {0, 0};
  timers_t *timers = arg;
  (void)fd, (void)events;
  timers->insert = bench_cpu();
  timers_start(timers);
  event_base_once(timers->base, -1, EV_TIMEOUT, cancel_all, timers, &at_once); /* after a turn */
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  timers_t *timers = timers_new(count, delays);
  for (long round = 0; round < rounds; round++) {
    run_from_callback(timers->base, insert_all, timers);
    cancels[round] = bench_cpu() - timers->start;
    inserts[round] = timers->insert;
  }
  timers_free(timers);
}

static void insert_and_sleep(evutil_socket_t fd, short events, void *arg) {
  timers_t *timers = arg;
  (void)fd, (void)events;
  bench_sleep_until(bench_now() + timers_start(timers) + 2000000);
  timers->start = bench_cpu();
}

void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) {
  timers_t *timers = timers_new(count, delays);
  for (long round = 0; round < rounds; round++) {
    timers->left = count;
    run_from_callback(timers->base, insert_and_sleep, timers);
    times[round] = bench_cpu() - timers->start;
    if (timers->left != 0) bench_die("not every timer was called");
  }
  timers_free(timers);
}

typedef struct rearm {
  struct event_base *base;
  struct event *events;
  struct event turn;
  const struct timeval *timeout;
  const uint32_t *order;
  long timers, total, done;
  bool restart;
} rearm_t;

static void rearm_some(evutil_socket_t fd, short events, void *arg) {
  rearm_t *rearm = arg;
  (void)fd, (void)events;
  for (long end = rearm->done + 1000; rearm->done < rearm->total && rearm->done < end; rearm->done++) {
    struct event *event = &rearm->events[rearm->order[rearm->done % rearm->timers]];
    if (rearm->restart) event_del(event);
    event_add(event, rearm->timeout);
  }
}

static int64_t push_back(long timers, int64_t timeout, long total, const uint32_t *order, bool restart) {
  rearm_t rearm = {.base = new_base(EVENT_BASE_FLAG_NOLOCK),
                   .order = order,
                   .timers = timers,
                   .total = total,
                   .restart = restart};
  struct timeval length = to_timeval(timeout);
  long fired = 0;
  rearm.timeout = event_base_init_common_timeout(rearm.base, &length);
  rearm.events = bench_alloc((size_t)timers * sizeof *rearm.events);
  for (long i = 0; i < timers; i++) {
    event_assign(&rearm.events[i], rearm.base, -1, 0, count_down, &fired);
    event_add(&rearm.events[i], rearm.timeout);
  }
  event_assign(&rearm.turn, rearm.base, -1, 0, rearm_some, &rearm);
  int64_t start = bench_cpu();
  while (rearm.done < total) {
    event_active(&rearm.turn, EV_TIMEOUT, 0);
    event_base_loop(rearm.base, EVLOOP_NONBLOCK);
  }
  int64_t took = bench_cpu() - start;
  for (long i = 0; i < timers; i++) event_del(&rearm.events[i]);
  event_base_free(rearm.base);
  free(rearm.events);
  return fired == 0 ? took : -1;
}

int64_t peer_rearm(long timers, int64_t timeout, long total, const uint32_t *order) {
  return push_back(timers, timeout, total, order, false);
}

int64_t peer_restart(long timers, int64_t timeout, long total, const uint32_t *order) {
  return push_back(timers, timeout, total, order, true);
}

void peer_make_timers(void *base, long count) {
  static long fired;
  struct event *events = bench_alloc((size_t)count * sizeof *events);
  const struct timeval minute = {.tv_sec = 60};
  for (long i = 0; i < count; i++) {
    event_assign(&events[i], base, -1, 0, count_down, &fired);
    event_add(&events[i], &minute);
  }
}

/* ---- Posts ----------------------------------------------------------------------------------------------- */

typedef struct posts {
  bench_mailbox_t mailbox;
  struct event_base *base;
  struct event *wake;
  long left;
} posts_t;

static void posted(void *arg) {
  posts_t *posts = arg;
  posts->left--;
}

static void post(void *user) {
  posts_t *posts = user;
  if (bench_mailbox_put(&posts->mailbox, posted, posts)) event_active(posts->wake, EV_READ, 0);
}

static void on_wake(evutil_socket_t fd, short events, void *arg) {
  posts_t *posts = arg;
  (void)fd, (void)events;
  bench_mailbox_run(&posts->mailbox);
  if (posts->left == 0) event_base_loopbreak(posts->base);
}

void peer_posts(int producers, long count, long rounds, int64_t *times) {
  evthread_use_pthreads();
  posts_t posts = {.base = new_base(0)};
  bench_mailbox_init(&posts.mailbox);
  posts.wake = event_new(posts.base, -1, EV_PERSIST, on_wake, &posts);
  for (long round = 0; round < rounds; round++) {
    bench_producers_t threads;
    posts.left = count;
    int64_t start = bench_now();
    bench_producers_start(&threads, producers, count, post, &posts);
    event_base_loop(posts.base, EVLOOP_NO_EXIT_ON_EMPTY);
    times[round] = bench_now() - start;
    bench_producers_join(&threads);
  }
  event_free(posts.wake);
  event_base_free(posts.base);
  bench_mailbox_free(&posts.mailbox);
}

typedef struct side {
  bench_side_t side;
  bench_mailbox_t mailbox;
  struct event_base *base;
  struct event *wake;
} side_t;

static void arrived(void *side) {
  bench_side_arrive(side);
}

static void post_to(bench_side_t *to) {
  side_t *side = (side_t *)to;
  if (bench_mailbox_put(&side->mailbox, arrived, to)) event_active(side->wake, EV_READ, 0);
}

static void run_side(bench_side_t *side) {
  event_base_loop(((side_t *)side)->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

static void stop_side(bench_side_t *side) {
  event_base_loopbreak(((side_t *)side)->base);
}

static void on_side_wake(evutil_socket_t fd, short events, void *arg) {
  (void)fd, (void)events;
  bench_mailbox_run(arg);
}

int64_t peer_pingpong(long count) {
  side_t sides[2];
  evthread_use_pthreads();
  for (int i = 0; i < 2; i++) {
    sides[i] = (side_t){{.post = post_to, .run = run_side, .stop = stop_side}, .base = new_base(0)};
    bench_mailbox_init(&sides[i].mailbox);
    sides[i].wake = event_new(sides[i].base, -1, EV_PERSIST, on_side_wake, &sides[i].mailbox);
  }
  int64_t took = bench_pingpong(&sides[0].side, &sides[1].side, count);
  for (int i = 0; i < 2; i++) {
    event_free(sides[i].wake);
    event_base_free(sides[i].base);
    bench_mailbox_free(&sides[i].mailbox);
  }
  return took;
}

/* ---- Pipes: a bufferevent at each end -------------------------------------------------------------------- */

typedef struct pipes {
  struct bufferevent *in, *out;
  struct event_base *base;
  long size, depth, left; /* messages not yet sent */
  long under_way;         /* bytes */
} pipes_t;

static void send_messages(pipes_t *pipes) {
  pipes->left -= pipes->depth;
  pipes->under_way = pipes->depth * pipes->size;
  struct evbuffer *output = bufferevent_get_output(pipes->out);
  for (long i = 0; i < pipes->depth; i++)
    evbuffer_add_reference(output, bench_bytes, (size_t)pipes->size, NULL, NULL);
}

static void on_message(struct bufferevent *in, void *arg) {
  pipes_t *pipes = arg;
  struct evbuffer *input = bufferevent_get_input(in);
  size_t size = evbuffer_get_length(input);
  evbuffer_drain(input, size);
  pipes->under_way -= (long)size;
  if (pipes->under_way > 0) return;
  if (pipes->left > 0)
    send_messages(pipes);
  else
    event_base_loopbreak(pipes->base);
}

int64_t peer_pipe(long size, long depth, long count) {
  pipes_t pipes = {.base = peer_loop_new(), .size = size, .depth = depth, .left = count};
  int fds[2];
  bench_pipe(fds);
  pipes.in = bufferevent_socket_new(pipes.base, fds[0], BEV_OPT_CLOSE_ON_FREE);
  pipes.out = bufferevent_socket_new(pipes.base, fds[1], BEV_OPT_CLOSE_ON_FREE);
  bufferevent_setcb(pipes.in, on_message, NULL, NULL, &pipes);
  bufferevent_set_max_single_read(pipes.in, BENCH_BUFFER);
  bufferevent_set_max_single_write(pipes.out, BENCH_BUFFER);
  bufferevent_enable(pipes.in, EV_READ);
  bufferevent_disable(pipes.in, EV_WRITE);
  bufferevent_enable(pipes.out, EV_WRITE);
  int64_t start = bench_cpu();
  send_messages(&pipes);
  event_base_dispatch(pipes.base);
  int64_t took = bench_cpu() - start;
  bufferevent_free(pipes.in);
  bufferevent_free(pipes.out);
  event_base_free(pipes.base);
  return pipes.left == 0 ? took : -1;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

enum { DATAGRAMS = 64 }; /* per event: libevent leaves receiving to its users */

static char bytes[BENCH_BUFFER];

static void echo_datagrams(evutil_socket_t fd, short events, void *arg) {
  struct sockaddr_in from;
  (void)events;
  for (int i = 0; i < DATAGRAMS; i++) {
    socklen_t size = sizeof from;
    ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &size);
    if (n < 0) return;
    if (sendto(fd, bytes, (size_t)n, 0, (struct sockaddr *)&from, size) != n) bench_die("sendto");
    ++*(long *)arg;
  }
}

static int bind_datagrams(struct event_base *base, event_callback_fn fn, void *arg) {
  int fd = bench_datagram_socket();
  event_add(event_new(base, fd, EV_READ | EV_PERSIST, fn, arg), NULL);
  return fd;
}

int64_t peer_datagrams(long size, long depth, long count) {
  struct event_base *base = peer_loop_new();
  struct sockaddr_in address;
  socklen_t address_size = sizeof address;
  long echoed = 0;
  int fd = bind_datagrams(base, echo_datagrams, &echoed);
  getsockname(fd, (struct sockaddr *)&address, &address_size);
  int64_t took = bench_datagrams(ntohs(address.sin_port), size, depth, count, peer_loop_turn, base, &echoed);
  event_base_free(base);
  close(fd);
  return took;
}

static void count_datagrams(evutil_socket_t fd, short events, void *arg) {
  struct sockaddr_storage from;
  (void)events, (void)arg;
  for (int i = 0; i < DATAGRAMS; i++) {
    socklen_t size = sizeof from;
    if (recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &size) < 0) return;
    bench_received++;
  }
}

void peer_receive(void) {
  struct event_base *base = peer_loop_new();
  bench_listening(bind_datagrams(base, count_datagrams, NULL));
  event_base_dispatch(base);
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

static void echo(struct bufferevent *stream, void *arg) {
  (void)arg;
  bufferevent_write_buffer(stream, bufferevent_get_input(stream));
}

static void on_end(struct bufferevent *stream, short events, void *arg) {
  (void)arg;
  if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) bufferevent_free(stream);
}

static struct bufferevent *open_stream(struct event_base *base, evutil_socket_t fd) {
  if (fd >= 0 && bench_path == NULL) bench_nodelay(fd);
  return bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
}

static void on_connection(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                          int size, void *arg) {
  (void)address, (void)size, (void)arg;
  struct bufferevent *stream = open_stream(evconnlistener_get_base(listener), fd);
  bufferevent_setcb(stream, echo, NULL, on_end, NULL);
  bufferevent_enable(stream, EV_READ | EV_WRITE);
}

static void serve(evconnlistener_cb on_client) {
  struct event_base *base = peer_loop_new();
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  enum { FLAGS = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE };
  struct evconnlistener *listener =
      bench_path != NULL ? evconnlistener_new(base, on_client, NULL, LEV_OPT_CLOSE_ON_FREE, 0, bench_listen())
                         : evconnlistener_new_bind(base, on_client, NULL, FLAGS, BENCH_BACKLOG,
                                                   (struct sockaddr *)&address, sizeof address);
  if (listener == NULL) bench_die("evconnlistener_new_bind");
  bench_listening(evconnlistener_get_fd(listener));
  event_base_dispatch(base);
}

void peer_serve(bool for_memory) {
  (void)for_memory;
  serve(on_connection);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static void forget(struct bufferevent *stream, void *arg) {
  (void)arg;
  struct evbuffer *input = bufferevent_get_input(stream);
  evbuffer_drain(input, evbuffer_get_length(input));
}

static void on_pushing(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                       void *arg) {
  (void)address, (void)size, (void)arg;
  struct bufferevent *stream = open_stream(evconnlistener_get_base(listener), fd);
  bufferevent_setcb(stream, forget, NULL, on_end, NULL);
  bufferevent_set_max_single_read(stream, BENCH_BUFFER);
  bufferevent_enable(stream, EV_READ | EV_WRITE);
}

void peer_serve_sink(void) {
  serve(on_pushing);
}

/* Without a copy. Called when all is gone. */
static void write_on(struct bufferevent *stream, void *arg) {
  (void)arg;
  evbuffer_add_reference(bufferevent_get_output(stream), bench_block, sizeof bench_block, NULL, NULL);
}

static void on_pulling(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                       void *arg) {
  (void)address, (void)size;
  struct bufferevent *stream = open_stream(evconnlistener_get_base(listener), fd);
  bufferevent_setcb(stream, NULL, write_on, on_end, NULL);
  bufferevent_set_max_single_write(stream, BENCH_BLOCK);
  bufferevent_enable(stream, EV_WRITE);
  write_on(stream, arg);
}

void peer_serve_source(void) {
  serve(on_pulling);
}

static struct evbuffer_file_segment *segment;

static void send_file(struct bufferevent *stream, void *arg) {
  forget(stream, arg);
  evbuffer_add_file_segment(bufferevent_get_output(stream), segment, 0, -1);
}

static void on_asking(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                      void *arg) {
  (void)address, (void)size, (void)arg;
  struct bufferevent *stream = open_stream(evconnlistener_get_base(listener), fd);
  bufferevent_setcb(stream, send_file, NULL, on_end, NULL);
  bufferevent_set_max_single_write(stream, 1 << 30);
  bufferevent_enable(stream, EV_READ | EV_WRITE);
}

void peer_serve_file(int file, long size) {
  segment = evbuffer_file_segment_new(file, 0, size, EVBUF_FS_DISABLE_LOCKING);
  serve(on_asking);
}

/* ---- Relay: chains of buffers move from one stream to the other ------------------------------------------ */

static struct sockaddr_in relay_target = {.sin_family = AF_INET};

enum { MOST = 8 * BENCH_BUFFER };

static void let_read(struct bufferevent *sink, void *arg) {
  struct bufferevent *source = arg;
  bufferevent_setwatermark(sink, EV_WRITE, 0, 0);
  bufferevent_enable(source, EV_READ);
}

static void pass_on(struct bufferevent *source, void *arg) {
  struct bufferevent *sink = arg;
  bufferevent_write_buffer(sink, bufferevent_get_input(source));
  if (evbuffer_get_length(bufferevent_get_output(sink)) < MOST) return;
  bufferevent_setwatermark(sink, EV_WRITE, MOST / 2, MOST);
  bufferevent_disable(source, EV_READ);
}

static void on_either_end(struct bufferevent *stream, short events, void *arg) {
  if ((events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) == 0) return;
  bufferevent_free(stream);
  bufferevent_free(arg);
}

static void on_relayed(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                       void *arg) {
  (void)address, (void)size, (void)arg;
  struct event_base *base = evconnlistener_get_base(listener);
  struct bufferevent *client = open_stream(base, fd), *target = open_stream(base, -1);
  if (bufferevent_socket_connect(target, (struct sockaddr *)&relay_target, sizeof relay_target) != 0)
    bench_die("bufferevent_socket_connect");
  bench_nodelay(bufferevent_getfd(target));
  struct bufferevent *both[] = {client, target};
  for (int i = 0; i < 2; i++) {
    bufferevent_setcb(both[i], pass_on, let_read, on_either_end, both[1 - i]);
    bufferevent_set_max_single_read(both[i], BENCH_BUFFER);
    bufferevent_set_max_single_write(both[i], BENCH_BUFFER);
    bufferevent_enable(both[i], EV_READ | EV_WRITE);
  }
}

void peer_serve_relay(int port) {
  relay_target.sin_port = htons((uint16_t)port);
  relay_target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  serve(on_relayed);
}
