/* SPDX-License-Identifier: MIT
 *
 * Peers: see peers.h. Limits on waiting exist only to end a test that hangs.
 */
#include "peers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS_LIMIT = 30 };

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int peer_bind(const char *host, int *port) {
  struct sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  inet_pton(AF_INET, host, &address.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(fd >= 0);
  assert_int_equal(bind(fd, (struct sockaddr *)(void *)&address, size), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)(void *)&address, &size), 0);
  *port = ntohs(address.sin_port);
  return fd;
}

int peer_listen(int backlog, int *port) {
  int fd = peer_bind("127.0.0.1", port);
  assert_int_equal(listen(fd, backlog), 0);
  return fd;
}

int peer_connect(int port) {
  struct sockaddr_in address = loopback(port);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(fd >= 0);
  assert_int_equal(connect(fd, (struct sockaddr *)(void *)&address, sizeof address), 0);
  return fd;
}

bool peer_refused(int port) {
  struct sockaddr_in address = loopback(port);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_true(fd >= 0);
  bool refused = connect(fd, (struct sockaddr *)(void *)&address, sizeof address) < 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

peer_state_t peer_look(int fd) {
  char byte;
  ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (n > 0) return PEER_READABLE;
  if (n == 0) return PEER_EOF;
  return errno == EAGAIN || errno == EWOULDBLOCK ? PEER_OPEN : PEER_RESET;
}

static time_t seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

static void turn(aloop_t *loop, time_t begun) {
  int rc = aloop_run_once(loop, ALOOP_MILLIS(10));
  if (rc < 0) fail_msg("aloop_run_once: %s", aloop_error_name(rc));
  if (seconds() - begun > SECONDS_LIMIT) fail_msg("still waiting after %d s", (int)SECONDS_LIMIT);
}

void peer_await_end(aloop_t *loop, int fd) {
  time_t begun = seconds();
  while (peer_look(fd) < PEER_EOF) turn(loop, begun);
}

void run_until_count(aloop_t *loop, const int *counter, int count) {
  time_t begun = seconds();
  while (*counter < count) turn(loop, begun);
}

void run_turns(aloop_t *loop, int count) {
  for (int i = 0; i < count; i++) assert_true(aloop_run_once(loop, 0) >= 0);
}

static struct rlimit limit_before;

void use_up_fds(void) {
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit_before), 0);
  int next = dup(STDERR_FILENO); /* the lowest free number: all below are in use */
  assert_true(next >= 0);
  close(next);
  struct rlimit limit = limit_before;
  limit.rlim_cur = (rlim_t)next;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

void restore_fd_limit(void) {
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit_before), 0);
}
