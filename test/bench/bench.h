/* SPDX-License-Identifier: MIT
 *
 * What every benchmark program shares. bench.c holds main(), reads the command line, repeats and prints;
 * bench_NAME.c implements the peer_... functions below with one event library, in the way a careful user of
 * that library would. So each program answers to the same scenarios:
 *
 *     bench_uv echo --connections 50 --size 64 --seconds 1
 *     uv echo/50/64/1 rps=123456.0 cpu_ns=6543.0 p50_us=210.0 p99_us=420.0
 */
#ifndef BENCH_H
#define BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  BENCH_BACKLOG = 1024, /* of every listening socket */
  BENCH_BUFFER = 65536, /* bytes that every server reads at once, unless its library decides that */
  BENCH_BLOCK = 524288  /* bytes that a source writes at once */
};

/* ---- What a peer implements: the time of the measured part in ns ----------------------------------------- */

/* Any of them may be missing: then the peer has no such row. Where a part is measured as CPU time of the
 * thread, bench_cpu is called at its start and at its end, and nowhere else; that is also what callgrind counts. */

extern const char *const peer_name;

/* `count` callbacks, each of which schedules the next. */
int64_t peer_chain(long count) __attribute__((weak));

/* `rounds` times: `size` callbacks are scheduled, then all of them run. */
int64_t peer_burst(long size, long rounds) __attribute__((weak));

/* On one loop, `rounds` times: starts `count` timers of these delays (ns) and turns once, cancels them in the order
 * they were started and turns once. The times of each round go to inserts[] and cancels[]. */
void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels)
    __attribute__((weak));

/* On one loop, `rounds` times: starts `count` timers, sleeps until all are due, measures until the last was
 * called. */
void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) __attribute__((weak));

/* Has `timers` timers of `timeout` ns running and pushes `total` of them, in this order (repeated), back to
 * their full timeout, 1000 in each turn of the loop. */
int64_t peer_rearm(long timers, int64_t timeout, long total, const uint32_t *order) __attribute__((weak));

/* The same for a program that does not know of pushing back: it stops the timer and starts it anew. */
int64_t peer_restart(long timers, int64_t timeout, long total, const uint32_t *order) __attribute__((weak));

/* On one loop, `rounds` times: `count` callbacks come from `producers` threads (bench_producers_start). */
void peer_posts(int producers, long count, long rounds, int64_t *times) __attribute__((weak));

/* Two loops in two threads: a callback posts the next one to the other loop, `count` times there and back. */
int64_t peer_pingpong(long count) __attribute__((weak));

/* `count` times: looks up the addresses of "127.0.0.1" port 80, and goes on when told of them. */
int64_t peer_lookup(long count) __attribute__((weak));

/* On one loop, `rounds` times: gives `count` jobs that do nothing to a pool of threads, `burst` at a time; the
 * next ones when the last of them has come back. */
void peer_jobs(long burst, long count, long rounds, int64_t *times) __attribute__((weak));

/* `count` messages of `size` bytes go through a pipe from one end on a loop to the other on the same loop:
 * `depth` at a time, the next ones when all of them have arrived. */
int64_t peer_pipe(long size, long depth, long count) __attribute__((weak));

/* `count` datagrams of `size` bytes are echoed over the loopback device, `depth` at a time: makes the echo
 * server and gives all else to bench_datagrams. */
int64_t peer_datagrams(long size, long depth, long count) __attribute__((weak));

/* `count` times: runs /bin/true with its output in a pipe, until it has ended and the pipe too; `depth` of them
 * at any moment. */
int64_t peer_spawn(long count, long depth) __attribute__((weak));

/* On one loop, `rounds` times each: makes `count` tasks that return at once, 100 in each turn; awaits `count` futures
 * that are done; awaits `count` that are done a turn later; and, to compare with, makes and reads `count` done
 * futures without a task. */
typedef struct bench_tasks {
  int64_t *create, *ready, *pending, *future;
} bench_tasks_t;
void peer_tasks(long count, long rounds, const bench_tasks_t *times) __attribute__((weak));

/* On one loop, `rounds` times each, `count` times in tasks: takes and releases a free lock; hands a lock over between
 * two tasks; puts an item for another task, through a queue of one place; begins and ends a time limit; begins and
 * ends a group of one task that returns at once. */
typedef struct bench_sync {
  int64_t *lock, *hand_over, *queue, *limit, *group;
} bench_sync_t;
void peer_sync(long count, long rounds, const bench_sync_t *times) __attribute__((weak));

/* A loop, ready to use; one turn of it that does not wait; its end. */
void *peer_loop_new(void) __attribute__((weak));
void peer_loop_turn(void *loop) __attribute__((weak));
void peer_loop_free(void *loop) __attribute__((weak));

/* Starts timers with a timeout of a minute on a loop, and keeps what its user would need to stop them; makes tasks that
 * wait for what never comes. */
void peer_make_timers(void *loop, long count) __attribute__((weak));
void peer_make_tasks(void *loop, long count) __attribute__((weak));

/* A UDP socket on 127.0.0.1, port 0, that counts in bench_received what it receives, until the process is
 * killed; calls bench_listening first. */
void peer_receive(void) __attribute__((weak));

/* An echo server on 127.0.0.1, port 0, or on the Unix socket bench_path: calls bench_listening, then serves until the process is killed.
 * `for_memory`: where the library offers a choice, the form that takes least memory for an idle connection. */
void peer_serve(bool for_memory) __attribute__((weak));

/* Such servers with other work; libraries leave out what they cannot do. The sink reads and forgets; the source
 * writes bench_block again and again; the third sends a file of `size` bytes for each byte that it
 * reads; the relay makes a connection to this port of 127.0.0.1 for each that it gets, and passes bytes between
 * the two both ways. */
void peer_serve_sink(void) __attribute__((weak));
void peer_serve_source(void) __attribute__((weak));
void peer_serve_file(int file, long size) __attribute__((weak));
void peer_serve_relay(int port) __attribute__((weak));

/* ---- What bench.c offers to peers ------------------------------------------------------------------------ */

extern const char *bench_path; /* NULL: TCP */
extern volatile long bench_received;

int64_t bench_now(void);
int64_t bench_cpu(void); /* of this thread: other programs on the machine disturb it little */
void bench_sleep_until(int64_t when);
void bench_die(const char *what) __attribute__((noreturn));
void *bench_alloc(size_t bytes);

/* A non-blocking listening socket on 127.0.0.1 with a port chosen by the kernel, or on bench_path; a UDP socket
 * on such a port. */
int bench_datagram_socket(void);
int bench_listen(void);
int bench_accept(int listener); /* non-blocking, TCP_NODELAY as the listener; negative: none left */
void bench_nodelay(int fd);

/* The client of peer_datagrams, without a library: asks the server on this port, and turns its loop until
 * *echoed says that all of a batch went back. Returns the server's time only. */
int64_t bench_datagrams(int port, long size, long depth, long count, void (*turn)(void *loop), void *loop,
                        const long *echoed);

/* A non-blocking pipe, or a pair of Unix sockets in the scenario of that name; bytes to send, enough for every
 * size. */
extern bool bench_pairs;
void bench_pipe(int fds[2]);
extern char bench_bytes[BENCH_BUFFER];
extern char bench_block[BENCH_BLOCK];

/* Says that the server on this listening socket is ready. */
void bench_listening(int fd);

/* Threads that call post(user) `count` times in all, as fast as they can. */
typedef struct bench_producers {
  void (*post)(void *user);
  void *user;
  long each;
  int count;
  pthread_t threads[16];
} bench_producers_t;
void bench_producers_start(bench_producers_t *producers, int count, long total, void (*post)(void *),
                           void *user);
void bench_producers_join(bench_producers_t *producers);

/* One of the two that play: `post` has bench_side_arrive called on its loop, `run` runs that loop until `stop`. The
 * peer gives these, bench_pingpong does the rest: it runs `far` in a thread of its own. */
typedef struct bench_side {
  void (*post)(struct bench_side *side);
  void (*run)(struct bench_side *side);
  void (*stop)(struct bench_side *side);
  struct bench_side *opposite;
  long left;
  bool far;
} bench_side_t;
void bench_side_arrive(bench_side_t *side);
int64_t bench_pingpong(bench_side_t *near, bench_side_t *far, long count);

/* For libraries whose cross-thread call only wakes the loop: the queue that their users write beside it. A
 * mutex guards an array that the loop swaps for an empty one, so the lock is taken once per batch on that side.
 */
typedef struct bench_call {
  void (*fn)(void *arg);
  void *arg;
} bench_call_t;
typedef struct bench_mailbox {
  pthread_mutex_t lock;
  bench_call_t *calls, *spare;
  size_t count, room, spare_room;
} bench_mailbox_t;
void bench_mailbox_init(bench_mailbox_t *mailbox);
bool bench_mailbox_put(bench_mailbox_t *mailbox, void (*fn)(void *),
                       void *arg);                /* true: was empty, wake the loop */
void bench_mailbox_run(bench_mailbox_t *mailbox); /* calls what was put */
void bench_mailbox_free(bench_mailbox_t *mailbox);

#ifdef __cplusplus
}
#endif

#endif
