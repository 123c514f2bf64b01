/* SPDX-License-Identifier: MIT
 *
 * The load generator, the same for every server. One process, one bare epoll loop, no allocation while it
 * measures, so that it costs less than any server under test and the same for each.
 *
 *   echo    `--connections` connections keep `--depth` requests of `--size` bytes in flight each: a request is
 *           sent as soon as an answer is complete. Latency is from that send to the last byte of the answer.
 *   churn   `--connections` slots, each again and again: connect, send a byte, read it back, close. Latency is
 *           from connect to the byte. Connections come from many addresses of 127/8, so that ports in TIME_WAIT
 *           never run out.
 *   push    `--connections` connections send as fast as they can.
 *   pull    they read as fast as they can; the bytes are dropped unseen.
 *   file    as pull, but a byte is sent first and after each `--size` bytes.
 *   relay   as echo; but the answers are made here, too, on the connections that the server under test makes to
 *           the socket `--listener`: it stands between.
 *   stream  push on one side of it, pull on the other.
 *
 * Of push, pull, file and stream a "request" is a MiB, counted where it is read if that is here. The first
 * fifth of the time (`--seconds`) warms up and does not count; answers are compared with what was sent only
 * then. `--path` names a Unix socket instead of a port. With `--requests N` there is no time and no warm-up:
 * each connection makes N / connections requests (strace and callgrind count such runs). `--pid` names the
 * server, whose CPU clock is read when the measured part starts and ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 1024, READ_SIZE = 262144, PULL_SIZE = 1 << 22, DEPTH_MAX = 64 };

typedef struct connection {
  int fd;
  bool far;                 /* beyond the server under test: it came to the listener */
  bool writing;             /* epoll is asked about writability too */
  uint64_t received;        /* bytes of answers */
  uint64_t sent;            /* bytes of requests */
  uint64_t asked;           /* requests, also those not sent completely */
  int64_t since[DEPTH_MAX]; /* when the request of this number modulo DEPTH_MAX was made */
} connection_t;

static struct {
  long connections, size, depth, requests, port, pid, listener, cpu;
  double seconds;
  const char *label, *path;
} options = {
    .connections = 50, .size = 64, .depth = 1, .seconds = 1, .listener = -1, .cpu = 1, .label = "client"};

static int poller;
static char *payload; /* size * (depth + 1) bytes, the same pattern in each request, a line */
static char *buffer, *far_buffer;
static bool measuring, checking;
static uint64_t answered;

static void die(const char *what) {
  fprintf(stderr, "bench_client: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec now = {0};
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t now_ns(void) {
  return clock_ns(CLOCK_MONOTONIC);
}

/* ---- Latencies: a histogram with 64 steps per power of two, exact to 1.6 % ------------------------------- */

enum { STEPS = 64, POWERS = 40 };
static uint64_t histogram[POWERS * STEPS];

static void record(int64_t ns) {
  uint64_t value = ns < STEPS ? STEPS : (uint64_t)ns;
  int power = 63 - __builtin_clzll(value) - 6;
  if (power >= POWERS) power = POWERS - 1;
  histogram[power * STEPS + (int)((value >> power) & (STEPS - 1))]++;
}

static double percentile_us(double fraction) {
  uint64_t total = 0, seen = 0;
  for (int i = 0; i < POWERS * STEPS; i++) total += histogram[i];
  for (int i = 0; i < POWERS * STEPS; i++) {
    seen += histogram[i];
    if ((double)seen >= fraction * (double)total && total > 0)
      return (double)((uint64_t)(STEPS + i % STEPS) << (i / STEPS)) / 1000;
  }
  return 0;
}

/* ---- Sockets --------------------------------------------------------------------------------------------- */

static void watch(connection_t *connection, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = connection};
  if (epoll_ctl(poller, operation, connection->fd, &event) != 0) die("epoll_ctl");
}

static int connect_path(void) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strncpy(to.sun_path, options.path, sizeof to.sun_path - 1);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("connect");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/* A connected socket from an address of 127/8 that changes with each call. */
static int connect_socket(void) {
  static uint32_t source;
  int on = 1;
  if (options.path != NULL) return connect_path();
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + source++ % 200)};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  to.sin_port = htons((uint16_t)options.port);
  if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0) die("bind");
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("connect");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

/* Sends what was asked and is not sent yet; the request pattern makes every request look the same. */
static void send_requests(connection_t *connection) {
  uint64_t size = (uint64_t)options.size;
  while (connection->sent < connection->asked * size) {
    uint64_t left = connection->asked * size - connection->sent;
    ssize_t n = send(connection->fd, payload + connection->sent % size, left, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) die("send");
    connection->sent += (uint64_t)n;
  }
  bool full = connection->sent < connection->asked * size;
  if (full != connection->writing) watch(connection, EPOLL_CTL_MOD, full ? EPOLLIN | EPOLLOUT : EPOLLIN);
  connection->writing = full;
}

static void ask(connection_t *connection, uint64_t count, int64_t now) {
  uint64_t limit = options.requests ? (uint64_t)(options.requests / options.connections) : UINT64_MAX;
  for (uint64_t i = 0; i < count && connection->asked < limit; i++)
    connection->since[connection->asked++ % DEPTH_MAX] = now;
  send_requests(connection);
}

static void check_answer(const connection_t *connection, size_t bytes) {
  size_t size = (size_t)options.size, at = connection->received % size;
  for (size_t done = 0; done < bytes;) {
    size_t part = bytes - done < size - at ? bytes - done : size - at;
    if (memcmp(buffer + done, payload + at, part) != 0) die("the answer differs from the request");
    done += part;
    at = 0;
  }
}

static void read_answers(connection_t *connection) {
  ssize_t n = recv(connection->fd, buffer, READ_SIZE, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) die("recv");
  if (checking) check_answer(connection, (size_t)n);
  int64_t now = now_ns();
  uint64_t size = (uint64_t)options.size, first = connection->received / size;
  connection->received += (uint64_t)n;
  uint64_t last = connection->received / size;
  answered += last - first;
  for (uint64_t i = first; measuring && i < last; i++) record(now - connection->since[i % DEPTH_MAX]);
  if (last > first) ask(connection, last - first, now);
}

static void echo_event(connection_t *connection, uint32_t events) {
  if (events & EPOLLOUT) send_requests(connection);
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_answers(connection);
}

static void echo_start(connection_t *connection) {
  connection->fd = connect_socket();
  watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

/* ---- Churn ----------------------------------------------------------------------------------------------- */

static void churn_start(connection_t *connection) {
  connection->since[0] = now_ns();
  connection->fd = connect_socket();
  watch(connection, EPOLL_CTL_ADD, EPOLLIN);
  if (send(connection->fd, payload, 1, MSG_NOSIGNAL) != 1) die("send");
}

static void churn_event(connection_t *connection, uint32_t events) {
  (void)events;
  if (recv(connection->fd, buffer, 1, 0) != 1) die("recv");
  if (measuring) record(now_ns() - connection->since[0]);
  close(connection->fd);
  answered++;
  churn_start(connection);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static uint64_t bytes_moved;

static void count_bytes(ssize_t n) {
  bytes_moved += (uint64_t)n;
  answered += bytes_moved >> 20;
  bytes_moved &= (1 << 20) - 1;
}

static void push_bytes(connection_t *connection) {
  ssize_t n = send(connection->fd, buffer, READ_SIZE, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) die("send");
  if (n > 0 && options.listener < 0) count_bytes(n);
}

/* What MSG_TRUNC drops was received and is not copied. */
static void pull_bytes(connection_t *connection) {
  ssize_t n = recv(connection->fd, buffer, PULL_SIZE, MSG_TRUNC);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) die("recv");
  count_bytes(n);
  connection->received += (uint64_t)n;
}

static void ask_for_file(connection_t *connection) {
  if (send(connection->fd, payload, 1, MSG_NOSIGNAL) != 1) die("send");
  connection->asked++;
}

static void push_event(connection_t *connection, uint32_t events) {
  if (events & EPOLLIN) die("the server said something");
  push_bytes(connection);
}

static void pull_event(connection_t *connection, uint32_t events) {
  (void)events;
  pull_bytes(connection);
}

static void file_event(connection_t *connection, uint32_t events) {
  (void)events;
  pull_bytes(connection);
  if (connection->received == connection->asked * (uint64_t)options.size) ask_for_file(connection);
}

static void push_start(connection_t *connection) {
  connection->fd = connect_socket();
  watch(connection, EPOLL_CTL_ADD, EPOLLOUT);
}

static void pull_start(connection_t *connection) {
  connection->fd = connect_socket();
  watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static void file_start(connection_t *connection) {
  pull_start(connection);
  ask_for_file(connection);
}

/* ---- Both sides of a relay ------------------------------------------------------------------------------- */

/* One more connection of the server under test, which makes one for each of ours. */
static void accept_far(void) {
  connection_t *connection = calloc(1, sizeof *connection);
  connection->far = true;
  connection->fd = accept4((int)options.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (connection->fd < 0) die("accept");
  int on = 1;
  setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static void answer(const connection_t *connection) {
  ssize_t n = recv(connection->fd, far_buffer, READ_SIZE, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0 || send(connection->fd, far_buffer, (size_t)n, MSG_NOSIGNAL) != n) die("far side");
}

static void relay_event(connection_t *connection, uint32_t events) {
  if (connection->far)
    answer(connection);
  else
    echo_event(connection, events);
}

static void stream_event(connection_t *connection, uint32_t events) {
  if (connection->far)
    pull_bytes(connection);
  else
    push_event(connection, events);
}

/* Blocks until the server has connected. */
static void far_start(void) {
  fcntl((int)options.listener, F_SETFL, 0);
  for (long i = 0; i < options.connections; i++) accept_far();
}

/* ---- The run --------------------------------------------------------------------------------------------- */

/* Handles events until the clock shows `until`, or until `requests` answers have come. */
static void run_until(int64_t until, uint64_t requests, void (*event)(connection_t *, uint32_t)) {
  static struct epoll_event events[EVENTS];
  while (answered < requests && now_ns() < until) {
    int count = epoll_wait(poller, events, EVENTS, 100);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; i++) event(events[i].data.ptr, events[i].events);
  }
}

static void measure(void (*event)(connection_t *, uint32_t)) {
  clockid_t cpu_clock = CLOCK_PROCESS_CPUTIME_ID;
  if (options.pid != 0 && clock_getcpuclockid((pid_t)options.pid, &cpu_clock) != 0) die("clock_getcpuclockid");
  int64_t start = now_ns(), length = (int64_t)(options.seconds * 1e9);
  checking = true;
  run_until(start + length / 5, UINT64_MAX, event);
  checking = false;
  measuring = true;
  answered = 0;
  int64_t cpu = clock_ns(cpu_clock), from = now_ns();
  run_until(from + length, UINT64_MAX, event);
  int64_t wall = now_ns() - from;
  cpu = clock_ns(cpu_clock) - cpu;
  double count = answered ? (double)answered : 1;
  printf("%s per_s=%.1f cpu_ns=%.1f p50_us=%.1f p99_us=%.1f p999_us=%.1f\n", options.label,
         count * 1e9 / (double)wall, (double)cpu / count, percentile_us(0.5), percentile_us(0.99),
         percentile_us(0.999));
}

static void parse(int argc, char **argv) {
  const struct {
    const char *name;
    long *value;
  } numbers[] = {
      {"--connections", &options.connections}, {"--size", &options.size}, {"--depth", &options.depth},
      {"--requests", &options.requests},       {"--port", &options.port}, {"--pid", &options.pid},
      {"--listener", &options.listener},       {"--cpu", &options.cpu}};
  for (int i = 2; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--label") == 0) options.label = argv[i + 1];
    if (strcmp(argv[i], "--path") == 0) options.path = argv[i + 1];
    if (strcmp(argv[i], "--seconds") == 0) options.seconds = atof(argv[i + 1]);
    for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++)
      if (strcmp(argv[i], numbers[n].name) == 0) *numbers[n].value = atol(argv[i + 1]);
  }
  if ((options.port == 0 && options.path == NULL) || options.size < 1 || options.connections < 1 ||
      options.depth < 1 || options.depth > DEPTH_MAX) {
    fprintf(stderr, "usage: bench_client echo|churn|push|pull|file|relay|stream --port N [--pid N]\n"
                    "       [--connections N] [--size N] [--depth N] [--seconds S] [--requests N] [--label "
                    "TEXT] [--cpu N]\n");
    exit(2);
  }
}

static void prepare_process(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (cpus < 2) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)options.cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static const struct scenario {
  const char *name;
  void (*start)(connection_t *);
  void (*event)(connection_t *, uint32_t);
} scenarios[] = {
    {"echo", echo_start, echo_event},     {"churn", churn_start, churn_event},
    {"push", push_start, push_event},     {"pull", pull_start, pull_event},
    {"file", file_start, file_event},     {"relay", echo_start, relay_event},
    {"stream", push_start, stream_event},
};

int main(int argc, char **argv) {
  parse(argc, argv);
  prepare_process();
  const struct scenario *scenario = scenarios;
  while (strcmp(argv[1], scenario->name) != 0) {
    if (++scenario == scenarios + sizeof scenarios / sizeof scenarios[0]) die(argv[1]);
  }
  connection_t *connections = calloc((size_t)options.connections, sizeof *connections);
  size_t payload_size = (size_t)options.size * (size_t)(options.depth + 1);
  payload = malloc(payload_size);
  buffer = malloc(PULL_SIZE);
  far_buffer = malloc(READ_SIZE);
  poller = epoll_create1(EPOLL_CLOEXEC);
  if (connections == NULL || payload == NULL || buffer == NULL || far_buffer == NULL || poller < 0)
    die("start");
  for (size_t i = 0; i < payload_size; i++) payload[i] = (char)('a' + i % (size_t)options.size % 23);
  for (size_t i = (size_t)options.size; i <= payload_size; i += (size_t)options.size) payload[i - 1] = '\n';
  memset(buffer, 0, PULL_SIZE);
  for (long i = 0; i < options.connections; i++) scenario->start(&connections[i]);
  if (options.listener >= 0) far_start();
  for (long i = 0; i < options.connections && scenario->start == echo_start; i++)
    ask(&connections[i], (uint64_t)options.depth, now_ns());
  void (*event)(connection_t *, uint32_t) = scenario->event;
  if (options.requests)
    run_until(INT64_MAX, (uint64_t)(options.requests / options.connections * options.connections), event);
  else
    measure(event);
  return 0;
}
