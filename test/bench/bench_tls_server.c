/* SPDX-License-Identifier: MIT
 *
 * main() of the TLS servers under test, and what they share. See bench_tls.h.
 */
#include "bench_tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGE_SIZE = 1024 };

char bench_tls_block[BENCH_TLS_BLOCK];
char bench_tls_response[PAGE_SIZE + 256];
size_t bench_tls_response_size;

void bench_tls_die(const char *what) {
  fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
  _exit(1);
}

void bench_tls_nodelay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void bench_tls_listening(int fd) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) bench_tls_die("getsockname");
  printf("%d %ld\n", ntohs(address.sin_port), (long)getpid());
  fflush(stdout);
}

size_t bench_tls_requests(unsigned *state, const char *data, size_t size) {
  static const char end[] = "\r\n\r\n";
  size_t count = 0;
  for (size_t i = 0; i < size; i++) {
    *state = data[i] == end[*state] ? *state + 1 : data[i] == '\r';
    if (*state < 4) continue;
    *state = 0;
    count++;
  }
  return count;
}

static void make_response(void) {
  int size = snprintf(bench_tls_response, sizeof bench_tls_response,
                      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
                      "Connection: keep-alive\r\n\r\n",
                      PAGE_SIZE);
  memset(bench_tls_response + size, 'x', PAGE_SIZE);
  bench_tls_response_size = (size_t)size + PAGE_SIZE;
}

/* An orderly exit, so that valgrind and strace print what they counted. */
static void on_terminate(int signal) {
  (void)signal;
  _exit(0);
}

static void prepare_process(void) {
  struct sigaction terminate = {.sa_handler = on_terminate}, ignore = {.sa_handler = SIG_IGN};
  sigaction(SIGTERM, &terminate, NULL);
  sigaction(SIGPIPE, &ignore, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(0, &set);
  if (sysconf(_SC_NPROCESSORS_ONLN) > 1) sched_setaffinity(0, sizeof set, &set);
}

int main(int argc, char **argv) {
  static const char *const works[] = {"echo", "http", "source", "sink"};
  for (int work = 0; argc == 4 && work < 4; work++) {
    if (strcmp(argv[1], works[work]) != 0) continue;
    prepare_process();
    make_response();
    peer_serve_tls((bench_tls_work_t)work, argv[2], argv[3]);
  }
  fprintf(stderr, "usage: %s echo|http|source|sink CERTIFICATE KEY\n", argv[0]);
  return 2;
}
