/* SPDX-License-Identifier: MIT
 *
 * Torture of the operations on sockets: connect and accept, bytes one way, a file the other, datagrams, an end by
 * cancel. What arrives is the beginning of what was sent, a file's position is where it should be, and no
 * descriptor stays behind, whichever call fails.
 *
 * pollers: all
 * faults: yes
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peers.h"
#include "torture.h"

enum { FILE_OFFSET = 100, ROOM = 4096 };

typedef struct stage {
  run_t *run;
  int listener, client, server; /* -1: none */
  int box[2];                   /* datagrams go from the second to the first */
  struct sockaddr_in address, box_address;
  int file;
  size_t total;
} stage_t;

/* What is sent everywhere: a byte tells its place. */
static unsigned char text[40000];

static int make_socket(int type, bool named, struct sockaddr_in *address) {
  socklen_t size = sizeof *address;
  int fd = socket(AF_INET, type, 0);
  assert_true(fd >= 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (!named) return fd;
  *address = (struct sockaddr_in){.sin_family = AF_INET};
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  assert_int_equal(bind(fd, (struct sockaddr *)address, size), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
  return fd;
}

static void open_stage(stage_t *stage, run_t *run) {
  char path[] = "/tmp/aloop-torture-XXXXXX";
  faults_pause();
  for (size_t i = 0; i < sizeof text; i++) text[i] = (unsigned char)(i * 7 + i / 256);
  *stage = (stage_t){.run = run, .server = -1, .total = run->kind == FAULT_SHORT ? 300 : sizeof text};
  stage->listener = make_socket(SOCK_STREAM, true, &stage->address);
  assert_int_equal(listen(stage->listener, 5), 0);
  stage->client = make_socket(SOCK_STREAM, false, NULL);
  stage->box[0] = make_socket(SOCK_DGRAM, true, &stage->box_address);
  stage->box[1] = make_socket(SOCK_DGRAM, false, NULL);
  stage->file = mkstemp(path);
  unlink(path);
  assert_int_equal(write(stage->file, text, sizeof text), sizeof text);
  faults_resume();
  faults_limit_sends(ROOM);
}

static void close_stage(const stage_t *stage) {
  faults_pause();
  int fds[] = {stage->listener, stage->client, stage->server, stage->box[0], stage->box[1], stage->file};
  for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
    if (fds[i] >= 0) close(fds[i]);
  faults_resume();
}

/* Ends an operation, however far it came. */
static int64_t give_up(run_t *run, aloop_future_t *future) {
  if (run_made(run, future) == NULL) return ALOOP_ENOMEM;
  aloop_future_cancel(future);
  int64_t value = aloop_future_result(future);
  ALWAYS(value >= 0 || is_known(value));
  aloop_future_unref(future);
  return value;
}

/* A connection, or false. The accept begins first and waits. */
static bool meet(stage_t *stage) {
  run_t *run = stage->run;
  aloop_future_t *accepting = aloop_sock_accept(run->loop, stage->listener, NULL, NULL);
  aloop_future_t *connecting =
      aloop_sock_connect(run->loop, stage->client, (struct sockaddr *)&stage->address, sizeof stage->address);
  int64_t rc = run_end_of(run, connecting);
  NORMALLY(run, rc == 0);
  if (rc < 0) {
    int64_t fd = give_up(run, accepting);
    stage->server = fd >= 0 ? (int)fd : -1;
    return false;
  }
  int64_t fd = run_end_of(run, accepting);
  NORMALLY(run, fd >= 0);
  stage->server = fd >= 0 ? (int)fd : -1;
  return fd >= 0;
}

typedef struct flow {
  aloop_future_t *sending, *receiving;
} flow_t;

/* Something came, or nothing will. */
static bool flow_stopped(const void *arg) {
  const flow_t *flow = arg;
  if (aloop_future_done(flow->receiving)) return true;
  return aloop_future_done(flow->sending) && aloop_future_result(flow->sending) < 0;
}

/* Receives what the other end sends until the end of that, or of the patience. Returns how much came. */
static size_t receive(const stage_t *stage, int fd, aloop_future_t *sending, const unsigned char *expected) {
  unsigned char bytes[5000];
  size_t got = 0;
  while (sending != NULL && got < stage->total) {
    flow_t flow = {sending, aloop_sock_recv(stage->run->loop, fd, bytes, sizeof bytes)};
    if (run_made(stage->run, flow.receiving) != NULL) run_to(stage->run, flow_stopped, &flow);
    int64_t n = give_up(stage->run, flow.receiving);
    NORMALLY(stage->run, n > 0);
    if (n <= 0) break;
    ALWAYS(got + (size_t)n <= stage->total && memcmp(bytes, expected + got, (size_t)n) == 0);
    got += (size_t)n;
  }
  return got;
}

static void send_bytes(const stage_t *stage) {
  run_t *run = stage->run;
  aloop_future_t *sending = aloop_sock_sendall(run->loop, stage->client, text, stage->total);
  size_t got = receive(stage, stage->server, sending, text);
  NORMALLY(run, got == stage->total);
  int64_t sent = got == stage->total ? run_end_of(run, sending) : give_up(run, sending);
  NORMALLY(run, sent == (int64_t)stage->total);
}

static void send_file(stage_t *stage) {
  run_t *run = stage->run;
  int64_t count = (int64_t)(stage->total -= FILE_OFFSET);
  aloop_future_t *sending = aloop_sock_sendfile(run->loop, stage->server, stage->file, FILE_OFFSET, count, 0);
  size_t got = receive(stage, stage->client, sending, text + FILE_OFFSET);
  NORMALLY(run, got == stage->total);
  int64_t sent = got == stage->total ? run_end_of(run, sending) : give_up(run, sending);
  NORMALLY(run, sent == count);
  faults_pause();
  NORMALLY(run, lseek(stage->file, 0, SEEK_CUR) == FILE_OFFSET + (off_t)sent);
  faults_resume();
}

static void send_datagram(const stage_t *stage) {
  run_t *run = stage->run;
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  char bytes[8] = "";
  aloop_future_t *receiving =
      aloop_sock_recvfrom(run->loop, stage->box[0], bytes, sizeof bytes, (struct sockaddr *)&from, &size);
  int64_t sent = run_end_of(run, aloop_sock_sendto(run->loop, stage->box[1], "hello", 5,
                                                   (const struct sockaddr *)&stage->box_address,
                                                   sizeof stage->box_address));
  NORMALLY(run, sent == 5);
  int64_t got = sent == 5 ? run_end_of(run, receiving) : give_up(run, receiving);
  NORMALLY(run, got == 5 && strcmp(bytes, "hello") == 0 && from.sin_family == AF_INET);
}

/* What is cancelled leaves its descriptor to be closed. */
static void change_ones_mind(stage_t *stage) {
  run_t *run = stage->run;
  char byte;
  aloop_future_t *receiving = aloop_sock_recv(run->loop, stage->client, &byte, 1);
  int64_t value = give_up(run, receiving);
  NORMALLY(run, value == ALOOP_ECANCELED);
  faults_pause();
  close(stage->client);
  stage->client = -1;
  faults_resume();
  value = run_end_of(run, aloop_sock_recv(run->loop, stage->server, &byte, 1));
  NORMALLY(run, value == 0);
}

static void play(run_t *run) {
  stage_t stage;
  open_stage(&stage, run);
  if (run_open(run, -1)) {
    send_datagram(&stage);
    if (meet(&stage)) {
      send_bytes(&stage);
      send_file(&stage);
      change_ones_mind(&stage);
    }
    aloop_close(run->loop);
  }
  close_stage(&stage);
}

static void play_copied(run_t *run) {
  faults_without_sendfile();
  play(run);
}

static void operations(void **state) {
  torture_all(*state, "operations", play);
}

static void copied_files(void **state) {
  torture_all(*state, "operations without sendfile", play_copied);
}

TESTS(T(operations), T(copied_files))
