/* SPDX-License-Identifier: MIT
 *
 * Readers and writers of descriptors: only those that are installed are called, and only the last one
 * installed. See fuzz_api.c.
 */
#include "world.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

void make_pair(int fds[2]) {
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  for (int i = 0; i < 2; i++) fcntl(fds[i], F_SETFL, O_NONBLOCK);
}

static void readable(pair_t *pair, int which) {
  char bytes[64];
  MUST(!w.closed && pair->reader == which);
  ssize_t n = read(pair->fds[0], bytes, byte() & 63);
  (void)n;
  react();
}

static void writable(pair_t *pair, int which) {
  MUST(!w.closed && pair->writer == which);
  react();
}

static void readable_1(aloop_t *loop, void *arg) {
  (void)loop;
  readable(arg, 1);
}

static void readable_2(aloop_t *loop, void *arg) {
  (void)loop;
  readable(arg, 2);
}

static void writable_1(aloop_t *loop, void *arg) {
  (void)loop;
  writable(arg, 1);
}

static void writable_2(aloop_t *loop, void *arg) {
  (void)loop;
  writable(arg, 2);
}

static pair_t *some_pair(void) {
  pair_t *pair = &w.pairs[byte() % PAIRS];
  if (pair->fds[0] < 0) make_pair(pair->fds);
  return pair;
}

void add_watch(void) {
  pair_t *pair = some_pair();
  unsigned what = byte();
  int which = what & 1 ? 1 : 2;
  int fd = pair->fds[0];
  if (what & 2) {
    if (answered(aloop_add_reader(w.loop, fd, which == 1 ? readable_1 : readable_2, pair), 0))
      pair->reader = which;
  } else {
    if (answered(aloop_add_writer(w.loop, fd, which == 1 ? writable_1 : writable_2, pair), 0))
      pair->writer = which;
  }
}

void remove_watches(pair_t *pair, bool reader, bool writer) {
  if (reader) {
    MUST(aloop_remove_reader(w.loop, pair->fds[0]) == (pair->reader != 0));
    pair->reader = 0;
  }
  if (writer) {
    MUST(aloop_remove_writer(w.loop, pair->fds[0]) == (pair->writer != 0));
    pair->writer = 0;
  }
}

void remove_watch(void) {
  pair_t *pair = some_pair();
  unsigned what = byte();
  remove_watches(pair, what & 1, what & 2);
}

void close_pair(pair_t *pair) {
  if (pair->fds[0] < 0) return;
  close(pair->fds[0]);
  if (pair->fds[1] >= 0) close(pair->fds[1]);
  *pair = (pair_t){.fds = {-1, -1}};
}

void end_pair(void) {
  pair_t *pair = some_pair();
  remove_watches(pair, true, true);
  close_pair(pair);
}

void feed_pair(void) {
  pair_t *pair = some_pair();
  unsigned n = byte();
  if (pair->fds[1] < 0) return;
  if (n > 0) send(pair->fds[1], file_bytes, n, MSG_NOSIGNAL);
  if (n > 0) return;
  close(pair->fds[1]);
  pair->fds[1] = -1;
}
