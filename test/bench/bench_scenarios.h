/* SPDX-License-Identifier: MIT
 *
 * What the files of the common half share: the options of the command line, and the scenarios in two lists, those that
 * run in one process (bench_inside.c) and those with a server and a client (bench_network.c).
 */
#ifndef BENCH_SCENARIOS_H
#define BENCH_SCENARIOS_H

#include "bench.h"

#include <time.h>

typedef struct bench_options {
  long count, size, connections, depth, repeat, producers;
  double seconds;
  bool report;      /* serve: answer questions about memory on standard input */
  bool datagrams;   /* ... count datagrams, and answer with their number */
  const char *path; /* ... on this Unix socket */
  const char *work; /* serve: what to do, NULL: echo */
  long target;      /* serve: the port that a relay connects to */
  long collect;     /* callgrind collects from this call of bench_cpu to the next; -1: from the start */
  long pairs;       /* ... and so on, this many times */
} bench_options_t;

typedef struct bench_scenario {
  const char *name;
  void (*run)(bench_options_t *options);
} bench_scenario_t;

/* Their last one has no name. */
extern const bench_scenario_t bench_inside[], bench_network[];

int64_t bench_read_clock(clockid_t clock);
void bench_bind_to_cpu(int index); /* if there are two */
void bench_allow_many_descriptors(void);
int bench_port_of(int fd);

/* Bytes that are allocated now, as the C library counts them; bytes that this process has in memory, as the kernel
 * does. */
size_t bench_allocated(void);
size_t bench_resident(void);

#endif
