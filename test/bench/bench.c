/* SPDX-License-Identifier: MIT
 *
 * The half of every benchmark program that is the same for all peers: main() and the command line, and the helpers of
 * bench.h. The scenarios are in bench_inside.c and bench_network.c.
 *
 * Output is one line: peer, scenario with its parameters, then name=value pairs. run.sh makes the tables.
 *
 * Under callgrind a program can have only its measured part counted: with `--collect 4 --pairs 1` callgrind collects
 * from the fifth call of bench_cpu(), which is where measuring starts, to the next, where it ends; with more pairs from
 * the seventh to the eighth, too, and so on. What the program does beside that does not count.
 */
#include "bench_scenarios.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#if defined(__has_include) && __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_TOGGLE_COLLECT (void)0
#endif

char bench_bytes[BENCH_BUFFER], bench_block[BENCH_BLOCK];
const char *bench_path;
volatile long bench_received;

/* ---- Helpers for peers ----------------------------------------------------------------------------------- */

void bench_die(const char *what) {
  fprintf(stderr, "%s: %s: %s\n", peer_name, what, strerror(errno));
  _exit(1);
}

int64_t bench_read_clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t bench_now(void) {
  return bench_read_clock(CLOCK_MONOTONIC);
}

static long calls_of_cpu, collect_from = -1, collect_to = -1;

int64_t bench_cpu(void) {
  bool toggles = calls_of_cpu >= collect_from && calls_of_cpu < collect_to;
  bool ends = ((calls_of_cpu++ - collect_from) & 1) != 0;
  if (toggles && ends) CALLGRIND_TOGGLE_COLLECT;
  int64_t now = bench_read_clock(CLOCK_THREAD_CPUTIME_ID);
  if (toggles && !ends) CALLGRIND_TOGGLE_COLLECT;
  return now;
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

bool bench_pairs;

void bench_pipe(int fds[2]) {
  int rc = bench_pairs ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds)
                       : pipe2(fds, O_NONBLOCK | O_CLOEXEC);
  if (rc != 0) bench_die("pipe2 or socketpair");
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
  bench_nodelay(fd); /* inherited by what is accepted */
  return fd;
}

int bench_accept(int listener) {
  return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

int bench_port_of(int fd) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) bench_die("getsockname");
  return ntohs(address.sin_port);
}

void bench_listening(int fd) {
  printf("%d %ld\n", bench_port_of(fd), (long)getpid());
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

void bench_side_arrive(bench_side_t *side) {
  side->left--;
  if (side->far || side->left > 0) side->opposite->post(side->opposite);
  if (side->left == 0) side->stop(side);
}

static void *run_side(void *side) {
  ((bench_side_t *)side)->run(side);
  return NULL;
}

int64_t bench_pingpong(bench_side_t *near, bench_side_t *far, long count) {
  pthread_t thread;
  near->opposite = far;
  far->opposite = near;
  far->far = true;
  near->left = far->left = count;
  int64_t start = bench_now();
  if (pthread_create(&thread, NULL, run_side, far) != 0) bench_die("pthread_create");
  far->post(far);
  near->run(near);
  int64_t took = bench_now() - start;
  pthread_join(thread, NULL);
  return took;
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

/* ---- What the scenarios need ----------------------------------------------------------------------------- */

size_t bench_allocated(void) {
#if defined(__GLIBC__)
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
#else
  return 0;
#endif
}

size_t bench_resident(void) {
  long total = 0, pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%ld %ld", &total, &pages) != 2) bench_die("statm");
  fclose(file);
  return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

void bench_bind_to_cpu(int index) {
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)index, &set);
  sched_setaffinity(0, sizeof set, &set);
}

void bench_allow_many_descriptors(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- The command line ------------------------------------------------------------------------------------ */

static const bench_scenario_t *const lists[] = {bench_inside, bench_network};

static const bench_scenario_t *find_scenario(const char *name) {
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
    for (const bench_scenario_t *scenario = lists[i]; scenario->name != NULL; scenario++)
      if (strcmp(name, scenario->name) == 0) return scenario;
  return NULL;
}

static void usage(void) {
  fprintf(stderr,
          "usage: bench_%s SCENARIO [--count N] [--size N] [--connections N] [--depth N] [--repeat N]\n"
          "       [--producers N] [--seconds S] [--report]\nscenarios:",
          peer_name);
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
    for (const bench_scenario_t *scenario = lists[i]; scenario->name != NULL; scenario++)
      fprintf(stderr, " %s", scenario->name);
  fputc('\n', stderr);
  exit(2);
}

/* An option with a value: a number, a text or a time. */
typedef struct option {
  const char *name;
  long *number;
  const char **text;
  double *seconds;
} option_t;

static void set_option(const option_t *option, const char *value) {
  if (option->number != NULL) *option->number = atol(value);
  if (option->text != NULL) *option->text = value;
  if (option->seconds != NULL) *option->seconds = atof(value);
}

static bench_options_t parse(int argc, char **argv) {
  bench_options_t options = {.depth = 1, .repeat = 5, .seconds = 1, .collect = -1};
  const option_t known[] = {{"--count", .number = &options.count},
                            {"--size", .number = &options.size},
                            {"--connections", .number = &options.connections},
                            {"--depth", .number = &options.depth},
                            {"--repeat", .number = &options.repeat},
                            {"--producers", .number = &options.producers},
                            {"--target", .number = &options.target},
                            {"--collect", .number = &options.collect},
                            {"--pairs", .number = &options.pairs},
                            {"--path", .text = &options.path},
                            {"--work", .text = &options.work},
                            {"--seconds", .seconds = &options.seconds},
                            {.name = NULL}};
  for (int i = 2; i < argc; i++) {
    bool report = strcmp(argv[i], "--report") == 0, datagrams = strcmp(argv[i], "--datagrams") == 0;
    options.report |= report;
    options.datagrams |= datagrams;
    if (report || datagrams) continue;
    const option_t *option = known;
    while (option->name != NULL && strcmp(argv[i], option->name) != 0) option++;
    if (option->name == NULL || i + 1 == argc) usage();
    set_option(option, argv[++i]);
  }
  if (options.depth < 1 || options.repeat < 1 || options.producers < 0 || options.producers > 16) usage();
  return options;
}

int main(int argc, char **argv) {
  const bench_scenario_t *scenario = argc < 2 ? NULL : find_scenario(argv[1]);
  if (scenario == NULL) usage();
  bench_options_t options = parse(argc, argv);
  if (options.collect >= 0) {
    collect_from = options.collect;
    collect_to = collect_from + 2 * options.pairs;
  }
  scenario->run(&options);
  return 0;
}
