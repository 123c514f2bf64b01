/* SPDX-License-Identifier: MIT
 *
 * The scenarios with two processes: this program again as `serve`, and the common load generator bench_client, whose
 * line is passed on. The server knows nothing about being measured: the client reads the server's CPU clock from
 * outside. Server and client are bound to different CPUs where there are two.
 */
#include "bench_scenarios.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- Network scenarios ----------------------------------------------------------------------------------- */

/* Answers each byte on standard input with "ALLOCATED RESIDENT", or "DATAGRAMS 0". */
static void *report(void *arg) {
  const bench_options_t *options = arg;
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    if (options->datagrams)
      printf("%ld 0\n", bench_received);
    else
      printf("%zu %zu\n", bench_allocated(), bench_resident());
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

static void do_work(const bench_options_t *options) {
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

static void serve(bench_options_t *options) {
  struct sigaction action = {.sa_handler = on_terminate};
  sigaction(SIGTERM, &action, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  bench_allow_many_descriptors();
  bench_bind_to_cpu(0);
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
static void measure_server(const char *mode, const char *label, const bench_options_t *options,
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

static void echo(bench_options_t *options) {
  if (peer_serve == NULL) return;
  if (options->connections == 0) options->connections = 50;
  if (options->size == 0) options->size = 64;
  char label[96];
  snprintf(label, sizeof label, "%s echo/%ld/%ld/%ld", peer_name, options->connections, options->size,
           options->depth);
  measure_server("echo", label, options, (further_t){NULL}, (further_t){NULL});
}

/* The same over a Unix socket. */
static void unix_echo(bench_options_t *options) {
  if (peer_serve == NULL) return;
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

static void bulk(const char *name, bool known, bench_options_t *options) {
  char label[96];
  if (!known) return;
  if (options->connections == 0) options->connections = 1;
  options->size = strcmp(name, "file") == 0 ? FILE_SIZE : (long)sizeof bench_bytes;
  snprintf(label, sizeof label, "%s %s/%ld", peer_name, name, options->connections);
  measure_server(name, label, options, (further_t){"--work", name}, (further_t){NULL});
}

static void push(bench_options_t *options) {
  bulk("push", peer_serve_sink != NULL, options);
}

static void pull(bench_options_t *options) {
  bulk("pull", peer_serve_source != NULL, options);
}

static void files(bench_options_t *options) {
  bulk("file", peer_serve_file != NULL, options);
}

/* With a size messages go there and back, without one bytes go one way as fast as they can. */
static void relay(bench_options_t *options) {
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
  snprintf(port, sizeof port, "%d", bench_port_of(listener));
  snprintf(number, sizeof number, "%d", listener);
  measure_server(mode, label, options, (further_t){"--work", "relay", "--target", port},
                 (further_t){"--listener", number});
  close(listener);
}

static void churn(bench_options_t *options) {
  if (peer_serve == NULL) return;
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

static void idle(bench_options_t *options) {
  if (peer_serve == NULL) return;
  long count = options->connections ? options->connections : 10000;
  bench_allow_many_descriptors();
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
static void prepare_blast(blast_t *blast, int port, const bench_options_t *options) {
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
  *cpu = bench_read_clock(clock);
}

static void blast(bench_options_t *options) {
  if (peer_receive == NULL) return;
  if (options->size == 0) options->size = 64;
  if (options->size * options->depth > 65000) options->depth = 65000 / options->size;
  server_t server = start_server((further_t){"--report", "--datagrams"});
  clockid_t clock;
  blast_t *blast = bench_alloc(sizeof *blast);
  size_t received[2];
  int64_t cpu[2];
  bench_bind_to_cpu(1);
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

const bench_scenario_t bench_network[] = {
    {"echo", echo}, {"unix", unix_echo}, {"churn", churn}, {"idle", idle},   {"blast", blast}, {"push", push},
    {"pull", pull}, {"file", files},     {"relay", relay}, {"serve", serve}, {NULL, NULL}};
