/* SPDX-License-Identifier: MIT
 *
 * One loop per thread: a TCP echo server for several cores.
 *
 *     threads [--host HOST] [--port PORT]    default 127.0.0.1 and 7777; port 0: any free one
 *             [--threads N]                  loops, each in a thread of its own; default 2
 *             [--reuse-port]                 each loop has a listening socket of its own
 *     printf hello | nc -N 127.0.0.1 7777
 *     pkill -USR1 threads                    prints what each loop has done; so does the end
 *
 * There are two ways to share connections out. Without an option one loop accepts them all and hands each to
 * the loop with the fewest (aloop_server_options_t.loops): loads stay even, a loop that is closed or busy is
 * passed over, and there is one server to count, limit and drain. With --reuse-port every loop has a server for
 * the same address, and the kernel throws dice for each connection: no connection changes threads, but a loop
 * may get more than the others, and those in the backlog of a loop that ends are lost.
 *
 * Either way the threads share nothing once a connection has its loop: every callback of it comes from that
 * loop's thread. What belongs to another thread's loop is done there, by aloop_call_soon_threadsafe. The end:
 * first the servers are drained, then the loops are stopped, then the threads are joined.
 */
#include "common.h"

#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>

#define GRACE ALOOP_SECONDS(1)

typedef struct crew crew_t;

typedef struct worker {
  crew_t *crew;
  int number;
  aloop_t *loop;
  aloop_server_t *server; /* NULL: it gets its connections from another one's */
  pthread_t thread;
} worker_t;

/* Belongs to main's thread, whose loop is that of the first worker. */
struct crew {
  aloop_server_options_t listen;
  worker_t *workers;
  int count;   /* loops */
  int started; /* threads, main's included */
  int serving; /* servers that are not drained */
  bool reuse_port;
  bool stopping;
};

/* ---- The protocol, on whatever loop ---------------------------------------------------------------------- */

static int send_back(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  return aloop_transport_write(transport, data, size);
}

static void stop_reading(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_pause_reading(transport);
}

static void go_on_reading(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  int error = aloop_transport_resume_reading(transport);
  if (error < 0) aloop_transport_abort_error(transport, error);
}

static const aloop_protocol_t echo_protocol = {
    .size = sizeof echo_protocol,
    .data_received = send_back,
    .pause_writing = stop_reading,
    .resume_writing = go_on_reading,
};

/* ---- What a loop has done -------------------------------------------------------------------------------- */

static void report(aloop_t *loop, void *arg) {
  const worker_t *worker = arg;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  if (aloop_metrics(loop, &metrics) < 0) return;
  int64_t time = metrics.busy_time + metrics.idle_time;
  printf("loop %d: %" PRIu64 " connections now, %" PRIu64 " accepted, %" PRIu64 " handed over, %" PRIu64
         " events, %" PRIu64 " turns, busy %d %%\n",
         worker->number, metrics.transports, metrics.accepted, metrics.handed_over, metrics.events,
         metrics.turns, time > 0 ? (int)(metrics.busy_time * 100 / time) : 0);
  fflush(stdout);
}

/* Each in its own thread. */
static void report_all(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum;
  crew_t *crew = arg;
  for (int i = 0; i < crew->count; i++)
    aloop_call_soon_threadsafe(crew->workers[i].loop, report, &crew->workers[i]);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

/* In main's thread: the last server is drained, so that no loop has anything to do any more. */
static void one_less(aloop_t *loop, void *arg) {
  (void)loop;
  crew_t *crew = arg;
  if (--crew->serving > 0) return;
  for (int i = 0; i < crew->count; i++) aloop_call_soon_threadsafe(crew->workers[i].loop, stop, NULL);
}

/* In the thread of the server's loop, as the next two. */
static void on_drained(aloop_future_t *drained, void *arg) {
  const worker_t *worker = arg;
  aloop_future_unref(drained);
  aloop_call_soon_threadsafe(worker->crew->workers[0].loop, one_less, worker->crew);
}

static void drain(aloop_t *loop, void *arg) {
  (void)loop;
  worker_t *worker = arg;
  aloop_future_t *drained = aloop_server_drain(worker->server, GRACE);
  if (drained == NULL || aloop_future_add_done_callback(drained, on_drained, worker) < 0)
    on_drained(drained, worker);
}

static void abort_clients(aloop_t *loop, void *arg) {
  (void)loop;
  const worker_t *worker = arg;
  aloop_server_abort_clients(worker->server);
}

/* The first signal gives clients a moment to finish, the second one does not. */
static void stop_all(aloop_t *loop, int signum, void *arg) {
  (void)loop, (void)signum;
  crew_t *crew = arg;
  for (int i = 0; i < crew->count; i++) {
    worker_t *worker = &crew->workers[i];
    if (worker->server != NULL)
      aloop_call_soon_threadsafe(worker->loop, crew->stopping ? abort_clients : drain, worker);
  }
  crew->stopping = true;
}

/* ---- The beginning --------------------------------------------------------------------------------------- */

/* Before any thread runs, main's may use all the loops. */
static int make_loops(crew_t *crew) {
  crew->workers = calloc((size_t)crew->count, sizeof crew->workers[0]);
  if (crew->workers == NULL) return ALOOP_ENOMEM;
  for (int i = 0; i < crew->count; i++) {
    worker_t *worker = &crew->workers[i];
    worker->crew = crew;
    worker->number = i + 1;
    int error = aloop_new(NULL, &worker->loop);
    if (error < 0) fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    if (error < 0) return error;
  }
  return 0;
}

static int serve_on(crew_t *crew, worker_t *worker) {
  int error = make_server(worker->loop, &echo_protocol, NULL, &crew->listen, &worker->server);
  if (error == 0) crew->serving++;
  return error;
}

static int serve_with_one_acceptor(crew_t *crew) {
  aloop_t **loops = calloc((size_t)crew->count, sizeof(aloop_t *));
  if (loops == NULL) return ALOOP_ENOMEM;
  for (int i = 0; i < crew->count; i++) loops[i] = crew->workers[i].loop;
  crew->listen.loops = loops;
  crew->listen.loops_count = (size_t)crew->count;
  int error = serve_on(crew, &crew->workers[0]);
  free(loops);
  return error;
}

/* The port that the first one got is that of the others. */
static int serve_with_a_socket_each(crew_t *crew) {
  int error = 0;
  crew->listen.reuse_port = true;
  for (int i = 0; i < crew->count && error == 0; i++) {
    error = serve_on(crew, &crew->workers[i]);
    if (i == 0 && error == 0) crew->listen.port = aloop_server_port(crew->workers[0].server);
  }
  return error;
}

static void *work(void *arg) {
  const worker_t *worker = arg;
  aloop_run_forever(worker->loop);
  return NULL;
}

static int start_threads(crew_t *crew) {
  for (crew->started = 1; crew->started < crew->count; crew->started++) {
    worker_t *worker = &crew->workers[crew->started];
    int error = -pthread_create(&worker->thread, NULL, work, worker);
    if (error < 0) fprintf(stderr, "cannot start a thread: %s\n", aloop_strerror(error));
    if (error < 0) return error;
  }
  return 0;
}

static int run(crew_t *crew) {
  int error = make_loops(crew);
  if (error < 0) return error;
  aloop_t *loop = crew->workers[0].loop;
  error = crew->reuse_port ? serve_with_a_socket_each(crew) : serve_with_one_acceptor(crew);
  if (error == 0) error = watch_stop_signals(loop, stop_all, crew);
  if (error == 0) error = aloop_add_signal_handler(loop, SIGUSR1, report_all, crew, 0);
  if (error == 0) error = start_threads(crew);
  if (error < 0) return error;
  print_addresses(crew->workers[0].server, "listening on ", "");
  return aloop_run_forever(loop);
}

/* The threads of loops that nobody has stopped are told to end, too. */
static void take_down(crew_t *crew) {
  for (int i = 1; i < crew->started; i++) {
    aloop_call_soon_threadsafe(crew->workers[i].loop, stop, NULL);
    pthread_join(crew->workers[i].thread, NULL);
  }
  for (int i = 0; i < crew->count && crew->workers != NULL; i++) {
    worker_t *worker = &crew->workers[i];
    if (worker->loop == NULL) continue;
    report(worker->loop, worker);
    aloop_server_unref(worker->server);
    aloop_free(worker->loop);
  }
  free(crew->workers);
}

static void read_options(int argc, char **argv, crew_t *crew) {
  static const struct option names[] = {{"host", required_argument, NULL, 'h'},
                                        {"port", required_argument, NULL, 'p'},
                                        {"threads", required_argument, NULL, 't'},
                                        {"reuse-port", no_argument, NULL, 'r'},
                                        {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      crew->listen.host = optarg;
    else if (option == 'p')
      crew->listen.port = parse_number("--port", optarg, 0, 65535);
    else if (option == 't')
      crew->count = parse_number("--threads", optarg, 1, 256);
    else if (option == 'r')
      crew->reuse_port = true;
    else
      optind = argc + 1;
  }
  if (optind == argc) return;
  fprintf(stderr, "usage: threads [--host HOST] [--port PORT] [--threads N] [--reuse-port]\n");
  exit(2);
}

int main(int argc, char **argv) {
  crew_t crew = {.listen = {.size = sizeof crew.listen, .host = "127.0.0.1", .port = 7777, .backlog = 1024},
                 .count = 2};
  read_options(argc, argv, &crew);
  int error = run(&crew);
  take_down(&crew);
  return error == 0 ? 0 : 1;
}
