/* SPDX-License-Identifier: MIT
 *
 * The limit for what goes through descriptors: a level-triggered epoll loop that reads and writes at once, into and out
 * of one buffer; datagrams in batches; posix_spawn.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

enum { GATHER = 128 };

/* Many messages in a call, as far as the pipe takes them; what it does not take waits until something was read. */
static long write_messages(int fd, long size, long left) {
  while (left > 0) {
    struct iovec parts[GATHER];
    int count = 0;
    for (long at = 0; at < left && count < GATHER; at += (long)parts[count++].iov_len)
      parts[count] = (struct iovec){bench_bytes, (size_t)((left - at) % size > 0 ? (left - at) % size : size)};
    ssize_t n = writev(fd, parts, count);
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) bench_die("writev");
    left -= n;
  }
  return left;
}

int64_t peer_pipe(long size, long depth, long count) {
  static char into[BENCH_BUFFER];
  int fds[2];
  struct epoll_event event = {.events = EPOLLIN};
  int poller = epoll_create1(EPOLL_CLOEXEC);
  bench_pipe(fds);
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fds[0], &event) != 0) bench_die("epoll_ctl");
  int64_t start = bench_cpu();
  for (; count > 0; count -= depth) {
    long unsent = size * depth;
    for (long left = size * depth; left > 0;) {
      unsent = write_messages(fds[1], size, unsent);
      if (epoll_wait(poller, &event, 1, -1) != 1) bench_die("epoll_wait");
      ssize_t n = read(fds[0], into, sizeof into);
      if (n <= 0) bench_die("read");
      left -= n;
    }
  }
  int64_t took = bench_cpu() - start;
  close(poller);
  close(fds[0]);
  close(fds[1]);
  return took;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

enum { BATCH = 32 };

typedef struct inbox {
  struct mmsghdr messages[BATCH];
  struct iovec parts[BATCH];
  struct sockaddr_storage from[BATCH];
  char bytes[BATCH][2048];
  int fd, poller;
  long echoed;
} inbox_t;

/* The first ones, for the next call to fill. */
static void make_ready(inbox_t *inbox, int count) {
  for (int i = 0; i < count; i++) {
    inbox->parts[i] = (struct iovec){inbox->bytes[i], sizeof inbox->bytes[i]};
    inbox->messages[i].msg_hdr = (struct msghdr){.msg_name = &inbox->from[i],
                                                 .msg_namelen = sizeof inbox->from[i],
                                                 .msg_iov = &inbox->parts[i],
                                                 .msg_iovlen = 1};
  }
}

static inbox_t *new_inbox(void) {
  inbox_t *inbox = bench_alloc(sizeof *inbox);
  struct epoll_event event = {.events = EPOLLIN};
  make_ready(inbox, BATCH);
  inbox->fd = bench_datagram_socket();
  inbox->poller = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ctl(inbox->poller, EPOLL_CTL_ADD, inbox->fd, &event) != 0) bench_die("epoll_ctl");
  return inbox;
}

static void echo_datagrams(void *arg) {
  inbox_t *inbox = arg;
  struct epoll_event event;
  if (epoll_wait(inbox->poller, &event, 1, 0) != 1) return;
  int count = recvmmsg(inbox->fd, inbox->messages, BATCH, 0, NULL);
  if (count <= 0) return;
  for (int i = 0; i < count; i++) inbox->parts[i].iov_len = inbox->messages[i].msg_len;
  if (sendmmsg(inbox->fd, inbox->messages, (unsigned)count, 0) != count) bench_die("sendmmsg");
  make_ready(inbox, count);
  inbox->echoed += count;
}

int64_t peer_datagrams(long size, long depth, long count) {
  inbox_t *inbox = new_inbox();
  struct sockaddr_in address;
  socklen_t address_size = sizeof address;
  getsockname(inbox->fd, (struct sockaddr *)&address, &address_size);
  int64_t took =
      bench_datagrams(ntohs(address.sin_port), size, depth, count, echo_datagrams, inbox, &inbox->echoed);
  close(inbox->fd);
  close(inbox->poller);
  free(inbox);
  return took;
}

void peer_receive(void) {
  inbox_t *inbox = new_inbox();
  struct epoll_event event;
  bench_listening(inbox->fd);
  while (epoll_wait(inbox->poller, &event, 1, -1) >= 0) {
    int count = recvmmsg(inbox->fd, inbox->messages, BATCH, 0, NULL);
    bench_received += count > 0 ? count : 0; /* their names and parts are as they were */
  }
}

/* ---- Programs -------------------------------------------------------------------------------------------- */

typedef struct program {
  pid_t pid;
  int out;
} program_t;

static program_t start_program(void) {
  static char *argv[] = {"/bin/true", NULL};
  int ends[2];
  program_t program;
  posix_spawn_file_actions_t actions;
  if (pipe2(ends, O_CLOEXEC) != 0) bench_die("pipe2");
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  if (posix_spawn(&program.pid, argv[0], &actions, NULL, argv, NULL) != 0) bench_die("posix_spawn");
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  program.out = ends[0];
  return program;
}

static void end_program(const program_t *program) {
  char bytes[64];
  while (read(program->out, bytes, sizeof bytes) > 0) continue;
  close(program->out);
  if (waitpid(program->pid, NULL, 0) != program->pid) bench_die("waitpid");
}

/* Ended in the order of their start, which is nearly the order of their ends. */
int64_t peer_spawn(long count, long depth) {
  program_t *programs = bench_alloc((size_t)depth * sizeof *programs);
  int64_t start = bench_now();
  for (long i = 0; i < count; i++) {
    if (i >= depth) end_program(&programs[i % depth]);
    programs[i % depth] = start_program();
  }
  for (long i = count < depth ? 0 : count - depth; i < count; i++) end_program(&programs[i % depth]);
  int64_t took = bench_now() - start;
  free(programs);
  return took;
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

typedef struct connection {
  int fd;
  char *rest; /* what the socket did not take; nothing is read until it is gone */
  size_t rest_at, rest_size;
  off_t file_at;

  struct connection *opposite; /* of a relay; and then: */
  int pipe[2];
  size_t piped; /* bytes in it, for this connection */
  bool splices, over;
} connection_t;

static int poller;
static char buffer[BENCH_BUFFER];

static void watch(connection_t *connection, int operation, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = connection};
  if (epoll_ctl(poller, operation, connection->fd, &event) != 0) bench_die("epoll_ctl");
}

static void end(connection_t *connection) {
  close(connection->fd);
  free(connection->rest);
  free(connection);
}

static void write_rest(connection_t *connection) {
  ssize_t n = send(connection->fd, connection->rest + connection->rest_at, connection->rest_size, MSG_NOSIGNAL);
  if (n < 0) {
    if (errno != EAGAIN) end(connection);
    return;
  }
  connection->rest_at += (size_t)n;
  connection->rest_size -= (size_t)n;
  if (connection->rest_size > 0) return;
  free(connection->rest);
  connection->rest = NULL;
  watch(connection, EPOLL_CTL_MOD, EPOLLIN);
}

static void keep_rest(connection_t *connection, const char *data, size_t size) {
  connection->rest = bench_alloc(size);
  memcpy(connection->rest, data, size);
  connection->rest_at = 0;
  connection->rest_size = size;
  watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
}

static void echo(connection_t *connection) {
  ssize_t n = recv(connection->fd, buffer, sizeof buffer, 0);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) end(connection);
    return;
  }
  ssize_t sent = send(connection->fd, buffer, (size_t)n, MSG_NOSIGNAL);
  if (sent == n) return;
  if (sent < 0 && errno != EAGAIN)
    end(connection);
  else
    keep_rest(connection, buffer + (sent < 0 ? 0 : sent), (size_t)(n - (sent < 0 ? 0 : sent)));
}

/* A connection goes to `start`; what happens on it, to `event`. */
static void serve(void (*start)(connection_t *), void (*event)(connection_t *, uint32_t events)) {
  static struct epoll_event events[1024];
  connection_t listener = {.fd = bench_listen()};
  poller = epoll_create1(EPOLL_CLOEXEC);
  watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
  bench_listening(listener.fd);
  for (;;) {
    int count = epoll_wait(poller, events, 1024, -1);
    for (int i = 0; i < count; i++) {
      connection_t *connection = events[i].data.ptr;
      if (connection != &listener) {
        event(connection, events[i].events);
        continue;
      }
      for (int fd; (fd = bench_accept(listener.fd)) >= 0;) {
        connection = bench_alloc(sizeof *connection);
        connection->fd = fd;
        start(connection);
      }
    }
  }
}

static void read_first(connection_t *connection) {
  watch(connection, EPOLL_CTL_ADD, EPOLLIN);
}

static void echo_event(connection_t *connection, uint32_t events) {
  (void)events;
  if (connection->rest != NULL)
    write_rest(connection);
  else
    echo(connection);
}

void peer_serve(bool for_memory) {
  (void)for_memory;
  serve(read_first, echo_event);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static void forget(connection_t *connection, uint32_t events) {
  (void)events;
  ssize_t n = recv(connection->fd, buffer, sizeof buffer, 0);
  if (n == 0 || (n < 0 && errno != EAGAIN)) end(connection);
}

void peer_serve_sink(void) {
  serve(read_first, forget);
}

static void write_first(connection_t *connection) {
  watch(connection, EPOLL_CTL_ADD, EPOLLOUT);
}

/* The kernel says again when there is room. */
static void write_on(connection_t *connection, uint32_t events) {
  (void)events;
  ssize_t n;
  do n = send(connection->fd, bench_block, sizeof bench_block, MSG_NOSIGNAL);
  while (n == (ssize_t)sizeof bench_block);
  if (n < 0 && errno != EAGAIN) end(connection);
}

void peer_serve_source(void) {
  serve(write_first, write_on);
}

static int file_to_send;
static long file_size;

static void send_file(connection_t *connection, uint32_t events) {
  if (events & EPOLLIN) {
    if (recv(connection->fd, buffer, sizeof buffer, 0) <= 0) {
      end(connection);
      return;
    }
    connection->file_at = 0;
    watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
  }
  ssize_t n =
      sendfile(connection->fd, file_to_send, &connection->file_at, (size_t)(file_size - connection->file_at));
  if (n < 0 && errno != EAGAIN)
    end(connection);
  else if (connection->file_at == file_size)
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
}

void peer_serve_file(int file, long size) {
  file_to_send = file;
  file_size = size;
  serve(read_first, send_file);
}

/* ---- Relay: reads that fill the buffer are followed by splices, until little comes ----------------------- */

enum { PIPE_SIZE = 1 << 20, LITTLE = 16384 };

static struct sockaddr_in relay_target = {.sin_family = AF_INET};

/* Ends both; what still refers to them are events of this turn, so they are not freed. */
static void relay_end(connection_t *connection) {
  connection_t *both[] = {connection, connection->opposite};
  for (int i = 0; i < 2; i++) {
    close(both[i]->fd);
    if (both[i]->pipe[1] > 0) close(both[i]->pipe[0]), close(both[i]->pipe[1]);
    both[i]->over = true;
  }
}

static void relay_watch(connection_t *connection) {
  bool reads = connection->opposite->rest_size == 0 && connection->opposite->piped == 0;
  bool writes = connection->rest_size > 0 || connection->piped > 0;
  watch(connection, EPOLL_CTL_MOD, (reads ? EPOLLIN : 0u) | (writes ? EPOLLOUT : 0u));
}

static void relay_start(connection_t *connection) {
  connection_t *opposite = bench_alloc(sizeof *opposite);
  opposite->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(opposite->fd, (struct sockaddr *)&relay_target, sizeof relay_target) != 0) bench_die("connect");
  fcntl(opposite->fd, F_SETFL, O_NONBLOCK);
  bench_nodelay(opposite->fd);
  connection->opposite = opposite;
  opposite->opposite = connection;
  read_first(connection);
  read_first(opposite);
}

/* What waits for this connection. Returns false if it is over. */
static bool relay_write(connection_t *sink) {
  ssize_t n;
  if (sink->piped > 0) {
    n = splice(sink->pipe[0], NULL, sink->fd, NULL, sink->piped, SPLICE_F_NONBLOCK);
    if (n > 0) sink->piped -= (size_t)n;
  } else {
    n = send(sink->fd, sink->rest + sink->rest_at, sink->rest_size, MSG_NOSIGNAL);
    if (n > 0) sink->rest_size -= (size_t)n, sink->rest_at += (size_t)n;
  }
  if (n > 0 || errno == EAGAIN) return true;
  relay_end(sink);
  return false;
}

/* Returns what came, or as read(2). */
static ssize_t relay_splice(connection_t *source, connection_t *sink) {
  if (sink->pipe[1] == 0) {
    if (pipe2(sink->pipe, O_NONBLOCK | O_CLOEXEC) != 0) bench_die("pipe2");
    fcntl(sink->pipe[0], F_SETPIPE_SZ, PIPE_SIZE);
  }
  ssize_t n = splice(source->fd, NULL, sink->pipe[1], NULL, PIPE_SIZE, SPLICE_F_NONBLOCK);
  if (n > 0) sink->piped = (size_t)n;
  sink->splices = n >= LITTLE;
  return n;
}

static ssize_t relay_read(connection_t *source, connection_t *sink) {
  if (sink->rest == NULL) sink->rest = bench_alloc(BENCH_BUFFER);
  ssize_t n = recv(source->fd, sink->rest, BENCH_BUFFER, 0);
  sink->rest_at = 0;
  sink->rest_size = n > 0 ? (size_t)n : 0;
  sink->splices = n == BENCH_BUFFER;
  return n;
}

static void relay_event(connection_t *connection, uint32_t events) {
  connection_t *sink = connection->opposite;
  if (connection->over) return;
  if (events & EPOLLOUT) {
    if (!relay_write(connection)) return;
    relay_watch(connection);
    relay_watch(sink);
  }
  if ((events & ~(uint32_t)EPOLLOUT) == 0 || sink->piped > 0 || sink->rest_size > 0) return;
  ssize_t n = sink->splices ? relay_splice(connection, sink) : relay_read(connection, sink);
  if (n <= 0) {
    if (n == 0 || errno != EAGAIN) relay_end(connection);
    return;
  }
  if (!relay_write(sink) || (sink->piped == 0 && sink->rest_size == 0)) return;
  relay_watch(connection);
  relay_watch(sink);
}

void peer_serve_relay(int port) {
  relay_target.sin_port = htons((uint16_t)port);
  relay_target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  serve(relay_start, relay_event);
}
