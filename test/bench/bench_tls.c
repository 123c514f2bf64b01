/* SPDX-License-Identifier: MIT
 *
 * The TLS benchmarks: starts a server, loads it as a client, and says what the server's CPU clock has
 * counted.
 *
 *     bench_tls SCENARIO PEER --certs FOLDER [--www FOLDER] ...
 *     bench_tls SCENARIO PEER --certs FOLDER [--www FOLDER] --requests N --under TOOL
 *
 * The second form makes so many requests (or connections) and says nothing: the tool that the server runs under,
 * words with spaces between them, counts.
 *
 * A PEER is a library (aloop, event, asio: the program bench_tls_PEER beside this one) or a web server (web,
 * the http server of aloop's examples, which is beside this one as well, or nginx). Scenarios of libraries:
 * echo, http (a page of 1 KiB from memory), pull, push, shake, resume, idle. Of web servers: http (the file
 * /page of --www), file (/big), shake, resume, idle.
 *
 * The client decides on TLS version and cipher, so they are the same for all; it believes any certificate.
 * It is one thread over OpenSSL, epoll and non-blocking sockets, bound to another CPU than the server. Its
 * requests are a record each, and those of one turn leave in one system call. Its own work on a byte is as
 * much as the server's: what it measures is not how fast both are together but what the server's side costs.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { EVENTS = 256, READ_SIZE = 65536, BUFFERED = 65536, DEPTH_MAX = 64, PATH_MAX_ = 4096, WORDS_MAX = 32 };

typedef struct connection {
  SSL *ssl;
  BIO *out; /* collects records, so that they leave together */
  int fd;
  bool shaken, writing;
  uint64_t received, asked, sent; /* bytes; requests; requests given to OpenSSL */
  int64_t since[DEPTH_MAX];
} connection_t;

static struct {
  long connections, size, depth, port, requests;
  double seconds;
  const char *certs, *www, *tls, *under;
} options = {.connections = 50, .size = 64, .depth = 1, .seconds = 1, .tls = "1.3"};

static const char *scenario, *peer;
static char request[16384], buffer[READ_SIZE];
static size_t request_size, answer_size; /* answer_size 0: bytes are counted, in MiB */
static SSL_CTX *ctx;
static SSL_SESSION *latest; /* what the next connection resumes, if it is to */
static bool resume, measuring;
static uint64_t answered, bytes_moved, not_resumed;
static int poller;
static pid_t server, told; /* the process that was started; what it says is the server's own number */
static int64_t latencies[1 << 20];
static size_t latencies_count;

static void die(const char *what) {
  fprintf(stderr, "bench_tls %s %s: %s: %s\n", scenario, peer, what, strerror(errno));
  if (server > 0) kill(server, SIGKILL);
  exit(1);
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec now = {0};
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t now_ns(void) {
  return clock_ns(CLOCK_MONOTONIC);
}

static bool is(const char *name) {
  return strcmp(scenario, name) == 0;
}

static bool is_web(void) {
  return strcmp(peer, "web") == 0 || strcmp(peer, "nginx") == 0;
}

/* ---- Servers --------------------------------------------------------------------------------------------- */

static void bind_to_cpu(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sysconf(_SC_NPROCESSORS_ONLN) > 1) sched_setaffinity(0, sizeof set, &set);
}

/* With its standard output in a pipe, which is returned. */
static FILE *start(const char *const command[]) {
  const char *argv[WORDS_MAX];
  static char under[PATH_MAX_];
  int out[2], words = 0;
  snprintf(under, sizeof under, "%s", options.under != NULL ? options.under : "");
  for (char *word = strtok(under, " "); word != NULL && words < WORDS_MAX / 2; word = strtok(NULL, " "))
    argv[words++] = word;
  for (int i = 0; i == 0 || command[i - 1] != NULL; i++) argv[words++] = command[i];
  if (pipe2(out, O_CLOEXEC) != 0) die("pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  bind_to_cpu(0);
  errno = posix_spawnp(&server, argv[0], &actions, NULL, (char *const *)argv, environ);
  if (errno != 0) die(argv[0]);
  bind_to_cpu(1);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  return fdopen(out[0], "r");
}

/* The program of the peer, which lies beside this one. */
static const char *program(void) {
  static char path[PATH_MAX_];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
  if (length < 0) die("readlink");
  path[length] = '\0';
  snprintf(strrchr(path, '/'), 64, "/bench_tls_%s", peer);
  return path;
}

static void start_library(const char *certificate, const char *key) {
  const char *work = is("http") ? "http" : is("pull") ? "source" : is("push") ? "sink" : "echo";
  FILE *said = start((const char *[]){program(), work, certificate, key, NULL});
  long pid;
  if (fscanf(said, "%ld %ld", &options.port, &pid) != 2) die("the server did not start");
  told = (pid_t)pid;
}

static int free_port(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &size) != 0)
    die("bind");
  close(fd);
  return ntohs(address.sin_port);
}

static void wait_until_it_listens(void) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  to.sin_port = htons((uint16_t)options.port);
  for (int i = 0; i < 2000; i++) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
    close(fd);
    if (connected) return;
    usleep(10000);
  }
  die("the server did not start");
}

/* One process, without a log, that closes no connection after many requests; else its defaults. */
static void start_nginx(const char *certificate, const char *key) {
  char path[PATH_MAX_];
  snprintf(path, sizeof path, "%s/nginx.conf", options.certs);
  FILE *conf = fopen(path, "w");
  if (conf == NULL) die(path);
  fprintf(conf,
          "daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;\n"
          "pid %s/nginx.pid; error_log /dev/null;\n"
          "events { worker_connections 16000; }\n"
          "http {\n"
          "  access_log off; sendfile on; default_type text/plain; keepalive_requests 1000000000;\n"
          "  server {\n"
          "    listen 127.0.0.1:%ld ssl backlog=1024; root %s;\n"
          "    ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;\n"
          "  }\n"
          "}\n",
          options.certs, options.port, options.www, certificate, key);
  fclose(conf);
  start((const char *[]){"nginx", "-e", "stderr", "-c", path, NULL});
}

static void start_web(const char *certificate, const char *key) {
  char port[16];
  options.port = free_port();
  snprintf(port, sizeof port, "%ld", options.port);
  if (strcmp(peer, "nginx") == 0)
    start_nginx(certificate, key);
  else
    start((const char *[]){program(), "--port", port, "--root", options.www, "--tls", certificate, key, NULL});
  wait_until_it_listens();
}

static void start_server(void) {
  char certificate[PATH_MAX_], key[PATH_MAX_];
  snprintf(certificate, sizeof certificate, "%s/server.pem", options.certs);
  snprintf(key, sizeof key, "%s/server.key", options.certs);
  if (is_web())
    start_web(certificate, key);
  else
    start_library(certificate, key);
}

/* Not politely, the web servers would wait for their clients; but a tool has to say what it has counted. */
static void stop_server(void) {
  if (options.under == NULL)
    kill(server, SIGKILL);
  else
    kill(told > 0 ? told : server, SIGTERM);
  waitpid(server, NULL, 0);
}

static long resident(void) {
  char path[64];
  long all = 0, in_memory = 0;
  usleep(100000); /* until it is idle */
  snprintf(path, sizeof path, "/proc/%ld/statm", (long)server);
  FILE *file = fopen(path, "r");
  if (file == NULL || fscanf(file, "%ld %ld", &all, &in_memory) != 2) die(path);
  fclose(file);
  return in_memory * sysconf(_SC_PAGESIZE);
}

/* ---- Connections ----------------------------------------------------------------------------------------- */

static int keep_session(SSL *ssl, SSL_SESSION *session) {
  (void)ssl;
  SSL_SESSION_free(latest);
  latest = session;
  return 1;
}

static void make_context(void) {
  bool old = strcmp(options.tls, "1.2") == 0;
  ctx = SSL_CTX_new(TLS_client_method());
  if (ctx == NULL || SSL_CTX_set_ciphersuites(ctx, "TLS_AES_256_GCM_SHA384") != 1 ||
      SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES256-GCM-SHA384") != 1 ||
      SSL_CTX_set_max_proto_version(ctx, old ? TLS1_2_VERSION : TLS1_3_VERSION) != 1)
    die("SSL_CTX_new");
  SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_default_read_buffer_len(ctx, READ_SIZE + 1024);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(ctx, keep_session);
}

/* From an address of 127/8 that changes with each call. */
static int connect_socket(void) {
  static uint32_t source;
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002 + source++ % 200)};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  to.sin_port = htons((uint16_t)options.port);
  if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0) die("bind");
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) die("connect");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static void open_connection(connection_t *connection) {
  memset(connection, 0, sizeof *connection);
  connection->fd = connect_socket();
  connection->since[0] = now_ns();
  connection->ssl = SSL_new(ctx);
  BIO *in = BIO_new_socket(connection->fd, BIO_NOCLOSE), *out = BIO_new_socket(connection->fd, BIO_NOCLOSE);
  connection->out = BIO_new(BIO_f_buffer());
  if (connection->ssl == NULL || in == NULL || out == NULL || connection->out == NULL ||
      BIO_set_write_buffer_size(connection->out, BUFFERED) != 1)
    die("SSL_new");
  SSL_set_bio(connection->ssl, in, BIO_push(connection->out, out));
  SSL_set_connect_state(connection->ssl);
  if (resume && latest != NULL && SSL_set_session(connection->ssl, latest) != 1) die("SSL_set_session");
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event) != 0) die("epoll_ctl");
}

static void close_connection(connection_t *connection) {
  SSL_shutdown(connection->ssl);
  (void)BIO_flush(connection->out);
  SSL_free(connection->ssl);
  close(connection->fd);
}

static void wait_for_room(connection_t *connection, bool on) {
  if (connection->writing == on) return;
  connection->writing = on;
  struct epoll_event event = {.events = on ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = connection};
  if (epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event) != 0) die("epoll_ctl");
}

/* Whether it may go on; otherwise the socket has to become ready first. */
static bool succeeded(connection_t *connection, int rc, const char *what) {
  if (rc > 0) return true;
  int error = SSL_get_error(connection->ssl, rc);
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) die(what);
  if (error == SSL_ERROR_WANT_WRITE) wait_for_room(connection, true);
  return false;
}

static void flush(connection_t *connection) {
  if (BIO_flush(connection->out) > 0)
    wait_for_room(connection, false);
  else if (BIO_should_retry(connection->out))
    wait_for_room(connection, true);
  else
    die("BIO_flush");
}

/* ---- Requests -------------------------------------------------------------------------------------------- */

static void count_bytes(int n) {
  bytes_moved += (uint64_t)n;
  answered += bytes_moved >> 20;
  bytes_moved &= (1 << 20) - 1;
}

static void send_requests(connection_t *connection) {
  for (; connection->sent < connection->asked; connection->sent++)
    if (!succeeded(connection, SSL_write(connection->ssl, request, (int)request_size), "SSL_write")) return;
  flush(connection);
}

static void push(connection_t *connection) {
  for (int i = 0; i < 16; i++) {
    int n = SSL_write(connection->ssl, request, 16384);
    if (!succeeded(connection, n, "SSL_write")) return;
    count_bytes(n);
  }
  wait_for_room(connection, true);
}

static void ask(connection_t *connection, uint64_t count) {
  uint64_t limit = options.requests ? (uint64_t)(options.requests / options.connections) : UINT64_MAX;
  int64_t now = now_ns();
  for (; count > 0 && connection->asked < limit; count--)
    connection->since[connection->asked++ % DEPTH_MAX] = now;
  send_requests(connection);
}

static void note_latency(int64_t since) {
  if (measuring && latencies_count < sizeof latencies / sizeof *latencies)
    latencies[latencies_count++] = now_ns() - since;
}

static void shake(connection_t *connection) {
  int rc = SSL_do_handshake(connection->ssl);
  flush(connection);
  connection->shaken = succeeded(connection, rc, "SSL_do_handshake");
}

/* The handshake is over. */
static void go_on(connection_t *connection) {
  if (is("push"))
    push(connection);
  else if (!is("pull"))
    ask(connection, is("echo") || is("http") ? (uint64_t)options.depth : 1);
}

/* A client speaks first. A quick server has answered by then. */
static void begin(connection_t *connection) {
  open_connection(connection);
  shake(connection);
  if (connection->shaken) go_on(connection);
}

/* One connection has done its part: the next. */
static void renew(connection_t *connection) {
  if (resume && !SSL_session_reused(connection->ssl)) not_resumed++;
  close_connection(connection);
  begin(connection);
}

/* Bytes of answers have come. Returns false if the connection has been replaced. */
static bool received(connection_t *connection, int n) {
  uint64_t whole = answer_size > 0 ? connection->received / answer_size : 0;
  connection->received += (uint64_t)n;
  if (is("pull") || is("file")) count_bytes(n);
  if (is("pull")) return true;
  uint64_t fresh = connection->received / answer_size - whole;
  if (fresh == 0) return true;
  if (!is("file")) answered += fresh;
  for (uint64_t i = whole; i < whole + fresh; i++) note_latency(connection->since[i % DEPTH_MAX]);
  if (is("idle")) return true;
  if (is("shake") || is("resume"))
    renew(connection);
  else
    ask(connection, fresh);
  return !is("shake") && !is("resume");
}

static void read_answers(connection_t *connection) {
  for (;;) {
    int n = SSL_read(connection->ssl, buffer, sizeof buffer);
    if (!succeeded(connection, n, "SSL_read")) return;
    if (is("echo") && memcmp(buffer, request, (size_t)n < request_size ? (size_t)n : request_size) != 0)
      die("the answer differs from the request");
    if (!received(connection, n)) return;
  }
}

static void on_event(connection_t *connection, uint32_t events) {
  if (!connection->shaken) {
    shake(connection);
    if (!connection->shaken) return;
    go_on(connection);
  } else if (events & EPOLLOUT) {
    if (is("push"))
      push(connection);
    else
      send_requests(connection);
  }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_answers(connection);
}

/* ---- The run --------------------------------------------------------------------------------------------- */

static void run_until(int64_t until, uint64_t requests) {
  static struct epoll_event events[EVENTS];
  while (answered < requests && now_ns() < until) {
    int count = epoll_wait(poller, events, EVENTS, 100);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; i++) on_event(events[i].data.ptr, events[i].events);
  }
}

/* The size of an answer to the request, and a session to resume. */
static void learn(void) {
  connection_t first;
  char text[4096];
  int size = 0;
  if (is_web() || is("http"))
    request_size =
        (size_t)sprintf(request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", is("file") ? "/big" : "/page");
  else
    request_size = is("echo") ? (size_t)options.size : 1;
  if (is("push") || is("pull")) return;
  open_connection(&first);
  fcntl(first.fd, F_SETFL, 0);
  SSL_clear_mode(first.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
  if (SSL_do_handshake(first.ssl) != 1) die("the first handshake");
  if (SSL_write(first.ssl, request, (int)request_size) <= 0 || BIO_flush(first.out) <= 0) die("SSL_write");
  answer_size = request_size;
  if (is_web() || is("http")) {
    while (size < (int)sizeof text - 1 && (text[size] = '\0', strstr(text, "\r\n\r\n") == NULL)) {
      int n = SSL_read(first.ssl, text + size, (int)sizeof text - 1 - size);
      if (n <= 0) die("SSL_read");
      size += n;
    }
    const char *length = strcasestr(text, "content-length:");
    if (strncmp(text, "HTTP/1.1 200", 12) != 0 || length == NULL) die(text);
    answer_size = (size_t)(strstr(text, "\r\n\r\n") + 4 - text) + (size_t)atol(length + 15);
  } else if (SSL_read(first.ssl, text, sizeof text) <= 0) {
    die("SSL_read");
  }
  epoll_ctl(poller, EPOLL_CTL_DEL, first.fd, NULL);
  close_connection(&first);
}

static int compare(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static double percentile_us(double fraction) {
  qsort(latencies, latencies_count, sizeof *latencies, compare);
  return latencies_count > 0 ? (double)latencies[(size_t)(fraction * (double)(latencies_count - 1))] / 1000 : 0;
}

/* Web servers have rows of their own: what they do for a request is not the same. */
static void print_label(void) {
  const char *name = is_web() ? "web" : "tls";
  printf("%s %s-%s", strcmp(peer, "web") == 0 ? "aloop" : peer, name, scenario);
  if (is("echo"))
    printf("/%ld/%ld/%ld", options.connections, options.size, options.depth);
  else if (is("http") || is("idle"))
    printf("/%ld", options.connections);
}

static void measure(void) {
  clockid_t cpu_clock;
  if (clock_getcpuclockid(server, &cpu_clock) != 0) die("clock_getcpuclockid");
  int64_t length = (int64_t)(options.seconds * 1e9);
  run_until(now_ns() + length / 5, UINT64_MAX);
  measuring = true;
  answered = not_resumed = 0;
  int64_t cpu = clock_ns(cpu_clock), from = now_ns();
  run_until(from + length, UINT64_MAX);
  int64_t wall = now_ns() - from;
  cpu = clock_ns(cpu_clock) - cpu;
  double count = answered ? (double)answered : 1;
  if (not_resumed > 0) die("a session was not resumed");
  print_label();
  printf(" per_s=%.1f cpu_ns=%.1f p50_us=%.1f p99_us=%.1f\n", count * 1e9 / (double)wall, (double)cpu / count,
         percentile_us(0.5), percentile_us(0.99));
}

static void measure_memory(connection_t *connections) {
  long before = resident();
  for (long i = 0; i < options.connections; i++) {
    begin(&connections[i]);
    answered = 0;
    run_until(INT64_MAX, 1);
  }
  print_label();
  printf(" resident=%.1f\n", (double)(resident() - before) / (double)options.connections);
}

static void usage(void) {
  fprintf(stderr, "usage: bench_tls echo|http|pull|push|shake|resume|idle aloop|event|asio --certs FOLDER\n"
                  "       bench_tls http|file|shake|resume|idle web|nginx --certs FOLDER --www FOLDER\n"
                  "       [--connections N] [--size N] [--depth N] [--seconds S] [--tls 1.2]\n"
                  "       [--requests N --under TOOL]\n");
  exit(2);
}

static void parse(int argc, char **argv) {
  const struct {
    const char *name;
    long *number;
    const char **text;
  } known[] = {
      {"--connections", &options.connections, NULL},
      {"--size", &options.size, NULL},
      {"--depth", &options.depth, NULL},
      {"--requests", &options.requests, NULL},
      {"--certs", NULL, &options.certs},
      {"--www", NULL, &options.www},
      {"--tls", NULL, &options.tls},
      {"--under", NULL, &options.under},
  };
  if (argc < 3) usage();
  scenario = argv[1];
  peer = argv[2];
  int at = 3;
  for (; at + 1 < argc; at += 2) {
    if (strcmp(argv[at], "--seconds") == 0) options.seconds = atof(argv[at + 1]);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
      if (strcmp(argv[at], known[i].name) != 0) continue;
      if (known[i].number != NULL) *known[i].number = atol(argv[at + 1]);
      if (known[i].text != NULL) *known[i].text = argv[at + 1];
    }
  }
  bool ready = options.certs != NULL && (options.under == NULL) == (options.requests == 0);
  if (at != argc || !ready || options.connections < 1 || options.depth < 1 || options.depth > DEPTH_MAX ||
      options.size < 1 || options.size > 16384)
    usage();
}

int main(int argc, char **argv) {
  parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  connection_t *connections = calloc((size_t)options.connections, sizeof *connections);
  poller = epoll_create1(EPOLL_CLOEXEC);
  if (connections == NULL || poller < 0) die("start");
  memset(request, 'x', sizeof request);
  make_context();
  start_server();
  bind_to_cpu(1);
  learn();
  resume = is("resume");
  if (is("idle")) {
    measure_memory(connections);
  } else {
    for (long i = 0; i < options.connections; i++) begin(&connections[i]);
    if (options.requests == 0)
      measure();
    else
      run_until(INT64_MAX, (uint64_t)(options.requests / options.connections * options.connections));
  }
  stop_server();
  return 0;
}
