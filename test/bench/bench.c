/* SPDX-License-Identifier: MIT
 *
 * The half of every benchmark program that is the same for all peers: main(), the scenarios with their
 * repetitions, and the helpers of bench.h.
 *
 * In-process scenarios run `--repeat` times in this process after one run that does not count, and print the
 * median. Network scenarios start two processes, this program again as `serve` and the common load generator
 * bench_client, and pass on what the client prints. The server knows nothing about being measured: the client
 * reads the server's CPU clock from outside. Server and client are bound to different CPUs where there are two.
 *
 * Output is one line: peer, scenario with its parameters, then name=value pairs. run.sh makes the tables.
 */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

typedef struct options {
  long count, size, connections, depth, repeat, producers;
  double seconds;
  bool report;      /* serve: answer questions about memory on standard input */
  bool datagrams;   /* ... count datagrams, and answer with their number */
  const char *path; /* ... on this Unix socket */
  const char *work; /* serve: what to do, NULL: echo */
  long target;      /* serve: the port that a relay connects to */
} options_t;

char bench_bytes[BENCH_BUFFER], bench_block[BENCH_BLOCK];
const char *bench_path;
volatile long bench_received;

/* ---- Helpers for peers ----------------------------------------------------------------------------------- */

void bench_die(const char *what) {
  fprintf(stderr, "%s: %s: %s\n", peer_name, what, strerror(errno));
  _exit(1);
}

static int64_t read_clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t bench_now(void) {
  return read_clock(CLOCK_MONOTONIC);
}

int64_t bench_cpu(void) {
  return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void bench_sleep_until(int64_t when) {
  struct timespec until = {.tv_sec = when / 1000000000, .tv_nsec = when % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
  }
}

void *bench_alloc(size_t bytes) {
  void *block = calloc(1, bytes);
  if (block == NULL) bench_die("calloc");
  return block;
}

void bench_pipe(int fds[2]) {
  if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) bench_die("pipe2");
}

void bench_nodelay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int bench_datagram_socket(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) bench_die("bind");
  return fd;
}

static int listen_at(const char *path) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BENCH_BACKLOG) != 0)
    bench_die("listen");
  return fd;
}

int bench_listen(void) {
  if (bench_path != NULL) return listen_at(bench_path);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BENCH_BACKLOG) != 0)
    bench_die("listen");
  return fd;
}

int bench_accept(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0 && bench_path == NULL) bench_nodelay(fd);
  return fd;
}

static int port_of(int fd) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) bench_die("getsockname");
  return ntohs(address.sin_port);
}

void bench_listening(int fd) {
  printf("%d %ld\n", port_of(fd), (long)getpid());
  fflush(stdout);
}

static void *producer(void *arg) {
  const bench_producers_t *producers = arg;
  for (long i = 0; i < producers->each; i++) producers->post(producers->user);
  return NULL;
}

void bench_producers_start(bench_producers_t *producers, int count, long total, void (*post)(void *),
                           void *user) {
  producers->post = post;
  producers->user = user;
  producers->count = count;
  producers->each = total / count;
  for (int i = 0; i < count; i++)
    if (pthread_create(&producers->threads[i], NULL, producer, producers) != 0) bench_die("pthread_create");
}

void bench_producers_join(bench_producers_t *producers) {
  for (int i = 0; i < producers->count; i++) pthread_join(producers->threads[i], NULL);
}

void bench_mailbox_init(bench_mailbox_t *mailbox) {
  memset(mailbox, 0, sizeof *mailbox);
  pthread_mutex_init(&mailbox->lock, NULL);
}

bool bench_mailbox_put(bench_mailbox_t *mailbox, void (*fn)(void *), void *arg) {
  pthread_mutex_lock(&mailbox->lock);
  if (mailbox->count == mailbox->room) {
    mailbox->room = mailbox->room ? 2 * mailbox->room : 1024;
    mailbox->calls = realloc(mailbox->calls, mailbox->room * sizeof *mailbox->calls);
    if (mailbox->calls == NULL) bench_die("realloc");
  }
  mailbox->calls[mailbox->count++] = (bench_call_t){fn, arg};
  bool first = mailbox->count == 1;
  pthread_mutex_unlock(&mailbox->lock);
  return first;
}

void bench_mailbox_run(bench_mailbox_t *mailbox) {
  pthread_mutex_lock(&mailbox->lock);
  bench_call_t *calls = mailbox->calls;
  size_t count = mailbox->count, room = mailbox->room;
  mailbox->calls = mailbox->spare;
  mailbox->room = mailbox->spare_room;
  mailbox->count = 0;
  pthread_mutex_unlock(&mailbox->lock);
  for (size_t i = 0; i < count; i++) calls[i].fn(calls[i].arg);
  mailbox->spare = calls;
  mailbox->spare_room = room;
}

void bench_mailbox_free(bench_mailbox_t *mailbox) {
  free(mailbox->calls);
  free(mailbox->spare);
  pthread_mutex_destroy(&mailbox->lock);
}

/* ---- In-process scenarios -------------------------------------------------------------------------------- */

static uint64_t random_next(uint64_t *state) { /* xorshift; the same numbers for everybody */
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* Random delays from `least` to `least + spread` ns. */
static int64_t *random_delays(long count, int64_t least, int64_t spread) {
  int64_t *delays = bench_alloc((size_t)count * sizeof *delays);
  uint64_t state = 88172645463325252u;
  for (long i = 0; i < count; i++) delays[i] = least + (int64_t)(random_next(&state) % (uint64_t)spread);
  return delays;
}

static uint32_t *random_order(long count) {
  uint32_t *order = bench_alloc((size_t)count * sizeof *order);
  uint64_t state = 2463534242u;
  for (long i = 0; i < count; i++) order[i] = (uint32_t)i;
  for (long i = count - 1; i > 0; i--) {
    long j = (long)(random_next(&state) % (uint64_t)(i + 1));
    uint32_t swap = order[i];
    order[i] = order[j];
    order[j] = swap;
  }
  return order;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, long count) {
  qsort(values, (size_t)count, sizeof *values, compare_doubles);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* Runs measure() once unmeasured and then `repeat` times; prints the median and the least in ns per operation.
 */
static void repeated(const options_t *options, const char *label, double operations,
                     int64_t (*measure)(const options_t *)) {
  double *values = bench_alloc((size_t)options->repeat * sizeof *values);
  measure(options);
  for (long i = 0; i < options->repeat; i++) {
    int64_t took = measure(options);
    if (took < 0) bench_die("not everything was called");
    values[i] = (double)took / operations;
  }
  double middle = median(values, options->repeat);
  printf("%s %s ns=%.2f min_ns=%.2f", peer_name, label, middle, values[0]);
  free(values);
}

static int64_t measure_chain(const options_t *options) {
  return peer_chain(options->count);
}

static void chain(options_t *options) {
  if (options->count == 0) options->count = 200000;
  repeated(options, "chain", (double)options->count, measure_chain);
  putchar('\n');
}

static int64_t measure_burst(const options_t *options) {
  return peer_burst(options->size, options->count / options->size);
}

static void burst(options_t *options) {
  if (options->count == 0) options->count = 1000000;
  if (options->size == 0) options->size = 1000;
  double operations = (double)(options->count / options->size * options->size);
  char label[64];
  snprintf(label, sizeof label, "burst/%ld", options->size);
  repeated(options, label, operations, measure_burst);
  putchar('\n');
}

static void print_times(const char *name, const int64_t *times, long rounds, long count) {
  double *values = bench_alloc((size_t)rounds * sizeof *values);
  for (long i = 0; i < rounds; i++) values[i] = (double)times[i] / (double)count;
  double middle = median(values + 1, rounds - 1); /* the first round grows arrays */
  printf(" %s=%.2f min_%s=%.2f", name, middle, name, values[1]);
  free(values);
}

static void timers(options_t *options) {
  long count = options->count ? options->count : 1000000, rounds = options->repeat + 1;
  int64_t *delays = random_delays(count, 60000000000, 3600000000000);
  int64_t *inserts = bench_alloc((size_t)rounds * sizeof *inserts);
  int64_t *cancels = bench_alloc((size_t)rounds * sizeof *cancels);
  peer_timers(count, delays, rounds, inserts, cancels);
  printf("%s timers", peer_name);
  print_times("insert_ns", inserts, rounds, count);
  print_times("cancel_ns", cancels, rounds, count);
  putchar('\n');
  free(inserts);
  free(cancels);
  free(delays);
}

static void fire(options_t *options) {
  long count = options->count ? options->count : 1000000, rounds = options->repeat + 1;
  int64_t *delays = random_delays(count, 1000000, 250000000);
  int64_t *times = bench_alloc((size_t)rounds * sizeof *times);
  peer_fire(count, delays, rounds, times);
  printf("%s fire", peer_name);
  print_times("ns", times, rounds, count);
  putchar('\n');
  free(times);
  free(delays);
}

static uint32_t *rearm_order;

static int64_t measure_rearm(const options_t *options) {
  return peer_rearm(options->size, 60000000000, options->count, rearm_order);
}

static void rearm(options_t *options) {
  if (options->count == 0) options->count = 1000000;
  if (options->size == 0) options->size = 100000;
  rearm_order = random_order(options->size);
  repeated(options, "rearm", (double)options->count, measure_rearm);
  putchar('\n');
  free(rearm_order);
}

static void posts(options_t *options) {
  if (options->count == 0) options->count = 1000000;
  if (options->producers == 0) options->producers = 1;
  long rounds = options->repeat + 1;
  int64_t *times = bench_alloc((size_t)rounds * sizeof *times);
  int64_t cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
  peer_posts((int)options->producers, options->count, rounds, times);
  cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf("%s posts/%ld", peer_name, options->producers);
  print_times("ns", times, rounds, options->count);
  printf(" cpu_ns=%.2f\n", (double)cpu / (double)(rounds * options->count));
  free(times);
}

static int64_t measure_lookup(const options_t *options) {
  return peer_lookup(options->count);
}

static void lookup(options_t *options) {
  if (peer_lookup == NULL) return;
  if (options->count == 0) options->count = 20000;
  repeated(options, "lookup", (double)options->count, measure_lookup);
  putchar('\n');
}

static void jobs(options_t *options) {
  if (peer_jobs == NULL) return;
  if (options->size == 0) options->size = 1;
  if (options->count == 0) options->count = options->size == 1 ? 20000 : 500000;
  long rounds = options->repeat + 1, count = options->count / options->size * options->size;
  int64_t *times = bench_alloc((size_t)rounds * sizeof *times);
  int64_t cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
  peer_jobs(options->size, count, rounds, times);
  cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf("%s jobs/%ld", peer_name, options->size);
  print_times("ns", times, rounds, count);
  printf(" cpu_ns=%.2f\n", (double)cpu / (double)(rounds * count));
  free(times);
}

static void tasks(options_t *options) {
  if (peer_tasks == NULL) return;
  if (options->count == 0) options->count = 500000;
  long rounds = options->repeat + 1;
  size_t size = (size_t)rounds * sizeof(int64_t);
  bench_tasks_t times = {bench_alloc(size), bench_alloc(size), bench_alloc(size), bench_alloc(size)};
  peer_tasks(options->count, rounds, &times);
  printf("%s tasks", peer_name);
  print_times("create_ns", times.create, rounds, options->count);
  print_times("ready_ns", times.ready, rounds, options->count);
  print_times("pending_ns", times.pending, rounds, options->count);
  print_times("future_ns", times.future, rounds, options->count);
  putchar('\n');
  free(times.create);
  free(times.ready);
  free(times.pending);
  free(times.future);
}

static void sync_objects(options_t *options) {
  if (peer_sync == NULL) return;
  if (options->count == 0) options->count = 500000;
  long rounds = options->repeat + 1;
  size_t size = (size_t)rounds * sizeof(int64_t);
  bench_sync_t times = {bench_alloc(size), bench_alloc(size), bench_alloc(size), bench_alloc(size),
                        bench_alloc(size)};
  peer_sync(options->count, rounds, &times);
  printf("%s sync", peer_name);
  print_times("lock_ns", times.lock, rounds, options->count);
  print_times("hand_over_ns", times.hand_over, rounds, options->count);
  print_times("queue_ns", times.queue, rounds, options->count);
  print_times("limit_ns", times.limit, rounds, options->count);
  print_times("group_ns", times.group, rounds, options->count);
  putchar('\n');
  free(times.lock);
  free(times.hand_over);
  free(times.queue);
  free(times.limit);
  free(times.group);
}

static int64_t measure_pipe(const options_t *options) {
  return peer_pipe(options->size, options->depth, options->count / options->depth * options->depth);
}

static void pipes(options_t *options) {
  if (peer_pipe == NULL) return;
  if (options->size == 0) options->size = 64;
  if (options->count == 0) options->count = options->size < 4096 ? 200000 : 20000;
  if (options->size > BENCH_BUFFER) options->size = BENCH_BUFFER;
  char label[64];
  signal(SIGPIPE, SIG_IGN); /* as programs with pipes do, or have to */
  snprintf(label, sizeof label, "pipe/%ld/%ld", options->size, options->depth);
  repeated(options, label, (double)(options->count / options->depth * options->depth), measure_pipe);
  putchar('\n');
}

static void collect_answers(int fd, long count) {
  static char answer[BENCH_BUFFER];
  for (long i = 0; i < count; i++)
    if (recv(fd, answer, sizeof answer, MSG_DONTWAIT) < 0) bench_die("an answer is missing");
}

int64_t bench_datagrams(int port, long size, long depth, long count, void (*turn)(void *loop), void *loop,
                        const long *echoed) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  address.sin_port = htons((uint16_t)port);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) bench_die("connect");
  int64_t took = 0;
  for (long done = 0; done < count; done += depth) {
    for (long i = 0; i < depth; i++)
      if (send(fd, bench_bytes, (size_t)size, 0) != size) bench_die("send");
    int64_t start = bench_cpu();
    while (*echoed < done + depth) turn(loop);
    took += bench_cpu() - start;
    collect_answers(fd, depth);
  }
  close(fd);
  return took;
}

static int64_t measure_datagrams(const options_t *options) {
  return peer_datagrams(options->size, options->depth, options->count / options->depth * options->depth);
}

static void datagrams(options_t *options) {
  if (peer_datagrams == NULL) return;
  if (options->size == 0) options->size = 64;
  if (options->count == 0) options->count = 100000;
  char label[64];
  snprintf(label, sizeof label, "udp/%ld/%ld", options->size, options->depth);
  repeated(options, label, (double)(options->count / options->depth * options->depth), measure_datagrams);
  putchar('\n');
}

static int64_t measure_spawn(const options_t *options) {
  return peer_spawn(options->count, options->depth);
}

/* Memory in small pages, as a heap that has grown piece by piece. */
static void *small_pages(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) bench_die("mmap");
#ifdef MADV_NOHUGEPAGE
  madvise(memory, bytes, MADV_NOHUGEPAGE);
#endif
  memset(memory, 1, bytes);
  return memory;
}

/* From a parent that has --size MiB of its own in memory. */
static void spawn(options_t *options) {
  if (peer_spawn == NULL) return;
  if (options->count == 0) options->count = 200;
  size_t bytes = (size_t)options->size << 20;
  void *memory = bytes > 0 ? small_pages(bytes) : NULL;
  char label[64];
  snprintf(label, sizeof label, "spawn/%ld/%ld", options->depth, options->size);
  repeated(options, label, (double)options->count, measure_spawn);
  putchar('\n');
  if (memory != NULL) munmap(memory, bytes);
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

/* Bytes that are allocated now, as the C library counts them. */
static size_t allocated(void) {
#if defined(__GLIBC__)
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
#else
  return 0;
#endif
}

/* Bytes of memory that this process has in use, as the kernel counts them. */
static size_t resident(void) {
  long total = 0, pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%ld %ld", &total, &pages) != 2) bench_die("statm");
  fclose(file);
  return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int64_t measure_loop(const options_t *options) {
  int64_t start = bench_cpu();
  for (long i = 0; i < options->count; i++) peer_loop_free(peer_loop_new());
  return bench_cpu() - start;
}

static void loop(options_t *options) {
  enum { ALIVE = 100 };
  if (options->count == 0) options->count = 1000;
  repeated(options, "loop", (double)options->count, measure_loop);
  void *loops[ALIVE];
  size_t before = allocated(), resident_before = resident();
  for (int i = 0; i < ALIVE; i++) {
    loops[i] = peer_loop_new();
    peer_loop_turn(loops[i]);
  }
  size_t after = allocated(), resident_after = resident();
  for (int i = 0; i < ALIVE; i++) peer_loop_free(loops[i]);
  printf(" bytes=%.0f resident=%.0f\n", (double)(after - before) / ALIVE,
         (double)(resident_after - resident_before) / ALIVE);
}

/* ---- Network scenarios ----------------------------------------------------------------------------------- */

static void bind_to_cpu(int index) {
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)index, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static void allow_many_descriptors(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/* Answers each byte on standard input with "ALLOCATED RESIDENT", or "DATAGRAMS 0". */
static void *report(void *arg) {
  const options_t *options = arg;
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    if (options->datagrams)
      printf("%ld 0\n", bench_received);
    else
      printf("%zu %zu\n", allocated(), resident());
    fflush(stdout);
  }
  _exit(0);
}

/* An orderly exit, so that valgrind and strace print what they counted. */
static void on_terminate(int signal) {
  (void)signal;
  _exit(0);
}

enum { FILE_SIZE = 64 << 20 };

/* In memory, as a file that is sent often. */
static int make_file(void) {
  int file = memfd_create("bench", MFD_CLOEXEC);
  for (long done = 0; file >= 0 && done < FILE_SIZE; done += (long)sizeof bench_bytes)
    if (write(file, bench_bytes, sizeof bench_bytes) != sizeof bench_bytes) bench_die("write");
  if (file < 0) bench_die("memfd_create");
  return file;
}

static void do_work(const options_t *options) {
  const char *work = options->work;
  if (work == NULL)
    peer_serve(options->report);
  else if (strcmp(work, "push") == 0)
    peer_serve_sink();
  else if (strcmp(work, "pull") == 0)
    peer_serve_source();
  else if (strcmp(work, "file") == 0)
    peer_serve_file(make_file(), FILE_SIZE);
  else
    peer_serve_relay((int)options->target);
}

static void serve(options_t *options) {
  struct sigaction action = {.sa_handler = on_terminate};
  sigaction(SIGTERM, &action, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  allow_many_descriptors();
  bind_to_cpu(0);
  pthread_t thread;
  if (options->report && pthread_create(&thread, NULL, report, options) != 0) bench_die("pthread_create");
  bench_path = options->path;
  if (options->datagrams)
    peer_receive();
  else
    do_work(options);
}

typedef struct server {
  pid_t pid;
  int port;
  FILE *ask, *answer; /* its standard input and output */
} server_t;

/* Options of a program beyond those it always gets. */
typedef const char *further_t[5];

static server_t start_server(const further_t further) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) bench_die("pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  const char *argv[] = {"bench", "serve", further[0], further[1], further[2], further[3], NULL};
  server_t server;
  errno = posix_spawn(&server.pid, "/proc/self/exe", &actions, NULL, (char *const *)argv, environ);
  if (errno != 0) bench_die("posix_spawn");
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  server.ask = fdopen(in[1], "w");
  server.answer = fdopen(out[0], "r");
  long pid = 0;
  if (fscanf(server.answer, "%d %ld", &server.port, &pid) != 2) bench_die("server did not start");
  return server;
}

static void stop_server(server_t *server) {
  kill(server->pid, SIGTERM);
  waitpid(server->pid, NULL, 0);
  fclose(server->ask);
  fclose(server->answer);
}

/* Runs bench_client, which lies beside this program, and gives it our standard output. */
static void run_client(char *const argv[]) {
  char path[4096];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - sizeof "bench_client");
  if (length < 0) bench_die("readlink");
  path[length] = '\0';
  strcpy(strrchr(path, '/') + 1, "bench_client");
  pid_t pid;
  fflush(stdout);
  errno = posix_spawn(&pid, path, NULL, NULL, argv, environ);
  if (errno != 0) bench_die(path);
  waitpid(pid, NULL, 0);
}

/* With options of the server and of the client. */
static void measure_server(const char *mode, const char *label, const options_t *options,
                           const further_t of_server, const further_t of_client) {
  server_t server = start_server(of_server);
  char text[7][32];
  snprintf(text[0], sizeof text[0], "%d", server.port);
  snprintf(text[1], sizeof text[1], "%ld", (long)server.pid);
  snprintf(text[2], sizeof text[2], "%ld", options->connections);
  snprintf(text[3], sizeof text[3], "%ld", options->size);
  snprintf(text[4], sizeof text[4], "%ld", options->depth);
  snprintf(text[5], sizeof text[5], "%g", options->seconds);
  const char *argv[] = {
      "bench_client",  mode,         "--label", label,   "--port",  text[0], "--pid",     text[1],
      "--connections", text[2],      "--size",  text[3], "--depth", text[4], "--seconds", text[5],
      of_client[0],    of_client[1], NULL};
  run_client((char *const *)argv);
  stop_server(&server);
}

static void echo(options_t *options) {
  if (options->connections == 0) options->connections = 50;
  if (options->size == 0) options->size = 64;
  char label[96];
  snprintf(label, sizeof label, "%s echo/%ld/%ld/%ld", peer_name, options->connections, options->size,
           options->depth);
  measure_server("echo", label, options, (further_t){NULL}, (further_t){NULL});
}

/* The same over a Unix socket. */
static void unix_echo(options_t *options) {
  if (options->connections == 0) options->connections = 50;
  if (options->size == 0) options->size = 64;
  char label[96], folder[] = "/tmp/aloop-bench-XXXXXX", path[64];
  if (mkdtemp(folder) == NULL) bench_die("mkdtemp");
  snprintf(path, sizeof path, "%s/echo", folder);
  snprintf(label, sizeof label, "%s unix/%ld/%ld/%ld", peer_name, options->connections, options->size,
           options->depth);
  measure_server("echo", label, options, (further_t){"--path", path}, (further_t){"--path", path});
  unlink(path);
  rmdir(folder);
}

static void bulk(const char *name, bool known, options_t *options) {
  char label[96];
  if (!known) return;
  if (options->connections == 0) options->connections = 1;
  options->size = strcmp(name, "file") == 0 ? FILE_SIZE : (long)sizeof bench_bytes;
  snprintf(label, sizeof label, "%s %s/%ld", peer_name, name, options->connections);
  measure_server(name, label, options, (further_t){"--work", name}, (further_t){NULL});
}

static void push(options_t *options) {
  bulk("push", peer_serve_sink != NULL, options);
}

static void pull(options_t *options) {
  bulk("pull", peer_serve_source != NULL, options);
}

static void files(options_t *options) {
  bulk("file", peer_serve_file != NULL, options);
}

/* With a size messages go there and back, without one bytes go one way as fast as they can. */
static void relay(options_t *options) {
  char label[96], port[16], number[16];
  if (peer_serve_relay == NULL) return;
  if (options->connections == 0) options->connections = 1;
  int listener = bench_listen();
  fcntl(listener, F_SETFD, 0); /* the client's */
  if (options->size > 0)
    snprintf(label, sizeof label, "%s relay/%ld/%ld/%ld", peer_name, options->connections, options->size,
             options->depth);
  else
    snprintf(label, sizeof label, "%s relay/%ld", peer_name, options->connections);
  const char *mode = options->size > 0 ? "relay" : "stream";
  if (options->size == 0) options->size = (long)sizeof bench_bytes;
  snprintf(port, sizeof port, "%d", port_of(listener));
  snprintf(number, sizeof number, "%d", listener);
  measure_server(mode, label, options, (further_t){"--work", "relay", "--target", port},
                 (further_t){"--listener", number});
  close(listener);
}

static void churn(options_t *options) {
  if (options->connections == 0) options->connections = 32;
  options->size = 1;
  char label[96];
  snprintf(label, sizeof label, "%s churn", peer_name);
  measure_server("churn", label, options, (further_t){NULL}, (further_t){NULL});
}

static void ask_memory(server_t *server, size_t *heap, size_t *resident_bytes) {
  usleep(50000); /* until it is idle */
  fputc('m', server->ask);
  fflush(server->ask);
  if (fscanf(server->answer, "%zu %zu", heap, resident_bytes) != 2) bench_die("server did not answer");
}

/* A connection that has seen one request of 64 bytes and its answer. */
static int used_connection(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  address.sin_port = htons((uint16_t)port);
  char data[64] = "idle";
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) bench_die("connect");
  if (send(fd, data, sizeof data, 0) != sizeof data || recv(fd, data, sizeof data, MSG_WAITALL) != sizeof data)
    bench_die("echo");
  return fd;
}

static void idle(options_t *options) {
  long count = options->connections ? options->connections : 10000;
  allow_many_descriptors();
  server_t server = start_server((further_t){"--report"});
  int *fds = bench_alloc((size_t)count * sizeof *fds);
  size_t heap[2], pages[2];
  ask_memory(&server, &heap[0], &pages[0]);
  for (long i = 0; i < count; i++) fds[i] = used_connection(server.port);
  ask_memory(&server, &heap[1], &pages[1]);
  printf("%s idle/%ld bytes=%.1f resident=%.1f\n", peer_name, count,
         (double)(heap[1] - heap[0]) / (double)count, (double)(pages[1] - pages[0]) / (double)count);
  for (long i = 0; i < count; i++) close(fds[i]);
  free(fds);
  stop_server(&server);
}

/* ---- Datagrams one way ----------------------------------------------------------------------------------- */

enum { BLAST_CALL = 32 }; /* messages in a system call */

typedef struct blast {
  struct mmsghdr messages[BLAST_CALL];
  struct iovec part;
  size_t control[8]; /* one control message */
  int fd;
} blast_t;

/* Messages of `depth` datagrams each, which the kernel cuts if it has to. */
static void prepare_blast(blast_t *blast, int port, const options_t *options) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  address.sin_port = htons((uint16_t)port);
  blast->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (blast->fd < 0 || connect(blast->fd, (struct sockaddr *)&address, sizeof address) != 0)
    bench_die("connect");
  blast->part = (struct iovec){.iov_base = bench_bytes, .iov_len = (size_t)(options->size * options->depth)};
  for (int i = 0; i < BLAST_CALL; i++)
    blast->messages[i].msg_hdr = (struct msghdr){.msg_iov = &blast->part, .msg_iovlen = 1};
  if (options->depth == 1) return;
  uint16_t segment = (uint16_t)options->size;
  struct cmsghdr *header = (struct cmsghdr *)blast->control;
  *header = (struct cmsghdr){.cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT};
  header->cmsg_len = CMSG_LEN(sizeof segment);
  memcpy(CMSG_DATA(header), &segment, sizeof segment);
  for (int i = 0; i < BLAST_CALL; i++) {
    blast->messages[i].msg_hdr.msg_control = blast->control;
    blast->messages[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof segment);
  }
}

/* Sends as fast as it can. Returns how many messages. */
static long send_until(blast_t *blast, int64_t until) {
  long sent = 0;
  while (bench_now() < until) {
    int n = sendmmsg(blast->fd, blast->messages, BLAST_CALL, 0);
    if (n < 0 && errno != ENOBUFS && errno != EAGAIN) bench_die("sendmmsg");
    sent += n > 0 ? n : 0;
  }
  return sent;
}

static void ask_received(server_t *server, clockid_t clock, size_t *received, int64_t *cpu) {
  size_t zero;
  ask_memory(server, received, &zero);
  *cpu = read_clock(clock);
}

static void blast(options_t *options) {
  if (peer_receive == NULL) return;
  if (options->size == 0) options->size = 64;
  if (options->size * options->depth > 65000) options->depth = 65000 / options->size;
  server_t server = start_server((further_t){"--report", "--datagrams"});
  clockid_t clock;
  blast_t *blast = bench_alloc(sizeof *blast);
  size_t received[2];
  int64_t cpu[2];
  bind_to_cpu(1);
  if (clock_getcpuclockid(server.pid, &clock) != 0) bench_die("clock_getcpuclockid");
  prepare_blast(blast, server.port, options);
  send_until(blast, bench_now() + (int64_t)(options->seconds * 2e8));
  ask_received(&server, clock, &received[0], &cpu[0]);
  int64_t start = bench_now();
  double sent = (double)(send_until(blast, start + (int64_t)(options->seconds * 1e9)) * options->depth);
  double seconds = (double)(bench_now() - start) / 1e9;
  ask_received(&server, clock, &received[1], &cpu[1]);
  double count = (double)(received[1] - received[0]);
  printf("%s blast/%ld/%ld per_s=%.1f cpu_ns=%.1f lost=%.1f\n", peer_name, options->size, options->depth,
         count / seconds, (double)(cpu[1] - cpu[0]) / count, 100 * (1 - count / sent));
  close(blast->fd);
  free(blast);
  stop_server(&server);
}

/* ---- The command line ------------------------------------------------------------------------------------ */

static const struct {
  const char *name;
  void (*run)(options_t *options);
} scenarios[] = {{"chain", chain}, {"burst", burst},   {"timers", timers}, {"fire", fire},
                 {"rearm", rearm}, {"posts", posts},   {"lookup", lookup}, {"jobs", jobs},
                 {"pipe", pipes},  {"udp", datagrams}, {"blast", blast},   {"unix", unix_echo},
                 {"spawn", spawn}, {"loop", loop},     {"tasks", tasks},   {"sync", sync_objects},
                 {"echo", echo},   {"churn", churn},   {"idle", idle},     {"push", push},
                 {"pull", pull},   {"file", files},    {"relay", relay},   {"serve", serve}};

static void usage(void) {
  fprintf(stderr,
          "usage: bench_%s SCENARIO [--count N] [--size N] [--connections N] [--depth N] [--repeat N]\n"
          "       [--producers N] [--seconds S] [--report]\nscenarios:",
          peer_name);
  for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) fprintf(stderr, " %s", scenarios[i].name);
  fputc('\n', stderr);
  exit(2);
}

static options_t parse(int argc, char **argv) {
  options_t options = {.depth = 1, .repeat = 5, .seconds = 1};
  const struct {
    const char *name;
    long *value;
  } numbers[] = {
      {"--count", &options.count},  {"--size", &options.size},     {"--connections", &options.connections},
      {"--depth", &options.depth},  {"--repeat", &options.repeat}, {"--producers", &options.producers},
      {"--target", &options.target}};
  for (int i = 2; i < argc; i++) {
    bool known = strcmp(argv[i], "--report") == 0, datagrams = strcmp(argv[i], "--datagrams") == 0;
    options.report |= known;
    options.datagrams |= datagrams;
    if (known || datagrams) continue;
    if (i + 1 == argc) usage();
    if (strcmp(argv[i], "--path") == 0) {
      options.path = argv[++i];
      continue;
    }
    if (strcmp(argv[i], "--seconds") == 0) {
      options.seconds = atof(argv[++i]);
      continue;
    }
    if (strcmp(argv[i], "--work") == 0) {
      options.work = argv[++i];
      continue;
    }
    for (size_t n = 0; n < sizeof numbers / sizeof numbers[0] && !known; n++) {
      known = strcmp(argv[i], numbers[n].name) == 0;
      if (known) *numbers[n].value = atol(argv[i + 1]);
    }
    if (!known) usage();
    i++;
  }
  if (options.depth < 1 || options.repeat < 1 || options.producers < 0 || options.producers > 16) usage();
  return options;
}

int main(int argc, char **argv) {
  if (argc < 2) usage();
  options_t options = parse(argc, argv);
  for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
    if (strcmp(argv[1], scenarios[i].name) == 0) {
      scenarios[i].run(&options);
      return 0;
    }
  usage();
}
