/* SPDX-License-Identifier: MIT
 *
 * The scenarios that run in one process. Each runs `--repeat` times after one run that does not count; the median is
 * printed. Where it starts and ends the time is up to the peer, as bench.h says.
 */
#include "bench_scenarios.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

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
static void repeated(const bench_options_t *options, const char *label, double operations,
                     int64_t (*measure)(const bench_options_t *)) {
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

static int64_t measure_chain(const bench_options_t *options) {
  return peer_chain(options->count);
}

static void chain(bench_options_t *options) {
  if (peer_chain == NULL) return;
  if (options->count == 0) options->count = 200000;
  repeated(options, "chain", (double)options->count, measure_chain);
  putchar('\n');
}

static int64_t measure_burst(const bench_options_t *options) {
  return peer_burst(options->size, options->count / options->size);
}

static void burst(bench_options_t *options) {
  if (peer_burst == NULL) return;
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

static void timers(bench_options_t *options) {
  if (peer_timers == NULL) return;
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

static void fire(bench_options_t *options) {
  if (peer_fire == NULL) return;
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

enum { TIMEOUT_S = 60 };

static uint32_t *rearm_order;

static int64_t measure_rearm(const bench_options_t *options) {
  return peer_rearm(options->size, TIMEOUT_S * INT64_C(1000000000), options->count, rearm_order);
}

static int64_t measure_restart(const bench_options_t *options) {
  return peer_restart(options->size, TIMEOUT_S * INT64_C(1000000000), options->count, rearm_order);
}

static void with_timers_running(bench_options_t *options, const char *label,
                                int64_t (*measure)(const bench_options_t *)) {
  if (options->count == 0) options->count = 1000000;
  if (options->size == 0) options->size = 100000;
  rearm_order = random_order(options->size);
  repeated(options, label, (double)options->count, measure);
  putchar('\n');
  free(rearm_order);
}

static void rearm(bench_options_t *options) {
  if (peer_rearm != NULL) with_timers_running(options, "rearm", measure_rearm);
}

static void restart(bench_options_t *options) {
  if (peer_restart != NULL) with_timers_running(options, "restart", measure_restart);
}

static void posts(bench_options_t *options) {
  if (peer_posts == NULL) return;
  if (options->count == 0) options->count = 1000000;
  if (options->producers == 0) options->producers = 1;
  long rounds = options->repeat + 1;
  int64_t *times = bench_alloc((size_t)rounds * sizeof *times);
  int64_t cpu = bench_read_clock(CLOCK_PROCESS_CPUTIME_ID);
  peer_posts((int)options->producers, options->count, rounds, times);
  cpu = bench_read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf("%s posts/%ld", peer_name, options->producers);
  print_times("ns", times, rounds, options->count);
  printf(" cpu_ns=%.2f\n", (double)cpu / (double)(rounds * options->count));
  free(times);
}

static int64_t measure_pingpong(const bench_options_t *options) {
  return peer_pingpong(options->count);
}

static void pingpong(bench_options_t *options) {
  if (peer_pingpong == NULL) return;
  if (options->count == 0) options->count = 20000;
  int64_t cpu = bench_read_clock(CLOCK_PROCESS_CPUTIME_ID);
  repeated(options, "pingpong", (double)options->count, measure_pingpong);
  cpu = bench_read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf(" cpu_ns=%.2f\n", (double)cpu / (double)((options->repeat + 1) * options->count));
}

static int64_t measure_lookup(const bench_options_t *options) {
  return peer_lookup(options->count);
}

static void lookup(bench_options_t *options) {
  if (peer_lookup == NULL) return;
  if (options->count == 0) options->count = 20000;
  repeated(options, "lookup", (double)options->count, measure_lookup);
  putchar('\n');
}

static void jobs(bench_options_t *options) {
  if (peer_jobs == NULL) return;
  if (options->size == 0) options->size = 1;
  if (options->count == 0) options->count = options->size == 1 ? 20000 : 500000;
  long rounds = options->repeat + 1, count = options->count / options->size * options->size;
  int64_t *times = bench_alloc((size_t)rounds * sizeof *times);
  int64_t cpu = bench_read_clock(CLOCK_PROCESS_CPUTIME_ID);
  peer_jobs(options->size, count, rounds, times);
  cpu = bench_read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  printf("%s jobs/%ld", peer_name, options->size);
  print_times("ns", times, rounds, count);
  printf(" cpu_ns=%.2f\n", (double)cpu / (double)(rounds * count));
  free(times);
}

static void tasks(bench_options_t *options) {
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

static void sync_objects(bench_options_t *options) {
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

static int64_t measure_pipe(const bench_options_t *options) {
  return peer_pipe(options->size, options->depth, options->count / options->depth * options->depth);
}

static void pipes(bench_options_t *options) {
  if (peer_pipe == NULL) return;
  if (options->size == 0) options->size = 64;
  if (options->count == 0) options->count = options->size < 4096 ? 200000 : 20000;
  if (options->size > BENCH_BUFFER) options->size = BENCH_BUFFER;
  char label[64];
  signal(SIGPIPE, SIG_IGN); /* as programs with pipes do, or have to */
  snprintf(label, sizeof label, "%s/%ld/%ld", bench_pairs ? "pair" : "pipe", options->size, options->depth);
  repeated(options, label, (double)(options->count / options->depth * options->depth), measure_pipe);
  putchar('\n');
}

static void pairs(bench_options_t *options) {
  bench_pairs = true;
  pipes(options);
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

static int64_t measure_datagrams(const bench_options_t *options) {
  return peer_datagrams(options->size, options->depth, options->count / options->depth * options->depth);
}

static void datagrams(bench_options_t *options) {
  if (peer_datagrams == NULL) return;
  if (options->size == 0) options->size = 64;
  if (options->count == 0) options->count = 100000;
  char label[64];
  snprintf(label, sizeof label, "udp/%ld/%ld", options->size, options->depth);
  repeated(options, label, (double)(options->count / options->depth * options->depth), measure_datagrams);
  putchar('\n');
}

static int64_t measure_spawn(const bench_options_t *options) {
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
static void spawn(bench_options_t *options) {
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

static int64_t measure_loop(const bench_options_t *options) {
  int64_t start = bench_cpu();
  for (long i = 0; i < options->count; i++) peer_loop_free(peer_loop_new());
  return bench_cpu() - start;
}

static void loop(bench_options_t *options) {
  if (peer_loop_new == NULL) return;
  enum { ALIVE = 100 };
  if (options->count == 0) options->count = 1000;
  repeated(options, "loop", (double)options->count, measure_loop);
  void *loops[ALIVE];
  size_t before = bench_allocated(), resident_before = bench_resident();
  for (int i = 0; i < ALIVE; i++) {
    loops[i] = peer_loop_new();
    peer_loop_turn(loops[i]);
  }
  size_t after = bench_allocated(), resident_after = bench_resident();
  for (int i = 0; i < ALIVE; i++) peer_loop_free(loops[i]);
  printf(" bytes=%.0f resident=%.0f\n", (double)(after - before) / ALIVE,
         (double)(resident_after - resident_before) / ALIVE);
}

/* What `count` of them take, in bytes for each. */
static void print_memory(const char *name, void (*make)(void *loop, long count), long count) {
  if (make == NULL) return;
  void *loop = peer_loop_new();
  peer_loop_turn(loop);
  size_t before = bench_allocated(), resident_before = bench_resident();
  make(loop, count);
  peer_loop_turn(loop);
  printf(" %s_bytes=%.1f %s_resident=%.1f", name, (double)(bench_allocated() - before) / (double)count, name,
         (double)(bench_resident() - resident_before) / (double)count);
}

/* Nothing is freed: the process ends. */
static void memory(bench_options_t *options) {
  if (peer_make_timers == NULL && peer_make_tasks == NULL) return;
  long count = options->count ? options->count : 100000;
  printf("%s memory", peer_name);
  print_memory("timer", peer_make_timers, count);
  print_memory("task", peer_make_tasks, count / 10);
  putchar('\n');
}

const bench_scenario_t bench_inside[] = {
    {"chain", chain},     {"burst", burst}, {"timers", timers},     {"fire", fire},     {"rearm", rearm},
    {"restart", restart}, {"posts", posts}, {"pingpong", pingpong}, {"lookup", lookup}, {"jobs", jobs},
    {"pipe", pipes},      {"pair", pairs},  {"udp", datagrams},     {"spawn", spawn},   {"loop", loop},
    {"memory", memory},   {"tasks", tasks}, {"sync", sync_objects}, {NULL, NULL}};
