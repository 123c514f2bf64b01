/* SPDX-License-Identifier: MIT
 *
 * The limit: no library, only what each task needs. A ring of callbacks; a 4-ary heap of deadlines with the
 * position of each timer beside it; an array under a mutex plus an eventfd for other threads; a level-triggered
 * epoll loop that reads and writes at once. A general event loop cannot be faster than this by much; the
 * question is how near it comes.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const peer_name = "raw";

/* ---- Callbacks: a ring ----------------------------------------------------------------------------------- */

enum { RING = 65536 };

typedef struct ring {
  bench_call_t calls[RING];
  uint32_t head, tail;
  long left;
} ring_t;

static ring_t ring;

static void ring_put(void (*fn)(void *), void *arg) {
  ring.calls[ring.tail++ % RING] = (bench_call_t){fn, arg};
}

static void ring_run(void) {
  while (ring.head != ring.tail) {
    bench_call_t call = ring.calls[ring.head++ % RING];
    call.fn(call.arg);
  }
}

static void link_of_chain(void *arg) {
  if (--ring.left > 0) ring_put(link_of_chain, arg);
}

int64_t peer_chain(long count) {
  ring.left = count;
  int64_t start = bench_cpu();
  ring_put(link_of_chain, NULL);
  ring_run();
  return bench_cpu() - start;
}

static void count_down(void *arg) {
  long *left = arg;
  --*left;
}

int64_t peer_burst(long size, long rounds) {
  long left = size * rounds;
  int64_t start = bench_cpu();
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < size; i++) ring_put(count_down, &left);
    ring_run();
  }
  return left == 0 ? bench_cpu() - start : -1;
}

/* ---- Timers: a 4-ary heap -------------------------------------------------------------------------------- */

typedef struct entry {
  int64_t when;
  uint32_t timer;
} entry_t;

typedef struct heap {
  entry_t *block, *entries; /* entries[1], [5], [9] begin a cache line: four brothers share one */
  uint32_t *places;         /* of each timer in entries */
  uint32_t count;
} heap_t;

static heap_t heap_new(long room) {
  size_t bytes = ((size_t)room + 3) * sizeof(entry_t);
  entry_t *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (block == NULL) bench_die("aligned_alloc");
  memset(block, 0, bytes);
  return (heap_t){.block = block, .entries = block + 3, .places = bench_alloc((size_t)room * sizeof(uint32_t))};
}

static void heap_free(heap_t *heap) {
  free(heap->block);
  free(heap->places);
}

static void heap_place(heap_t *heap, uint32_t place, entry_t entry) {
  heap->entries[place] = entry;
  heap->places[entry.timer] = place;
}

static void heap_up(heap_t *heap, uint32_t place, entry_t entry) {
  while (place > 0) {
    uint32_t parent = (place - 1) / 4;
    if (heap->entries[parent].when <= entry.when) break;
    heap_place(heap, place, heap->entries[parent]);
    place = parent;
  }
  heap_place(heap, place, entry);
}

static void heap_down(heap_t *heap, uint32_t place, entry_t entry) {
  for (;;) {
    uint32_t first = place * 4 + 1, end = first + 4;
    if (first >= heap->count) break;
    if (end > heap->count) end = heap->count;
    uint32_t least = first;
    for (uint32_t i = first + 1; i < end; i++)
      if (heap->entries[i].when < heap->entries[least].when) least = i;
    if (entry.when <= heap->entries[least].when) break;
    heap_place(heap, place, heap->entries[least]);
    place = least;
  }
  heap_place(heap, place, entry);
}

static void heap_insert(heap_t *heap, int64_t when, uint32_t timer) {
  heap_up(heap, heap->count++, (entry_t){when, timer});
}

static void heap_remove(heap_t *heap, uint32_t place) {
  entry_t last = heap->entries[--heap->count];
  if (place == heap->count) return;
  if (place > 0 && last.when < heap->entries[(place - 1) / 4].when)
    heap_up(heap, place, last);
  else
    heap_down(heap, place, last);
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  heap_t heap = heap_new(count);
  for (long round = 0; round < rounds; round++) {
    int64_t start = bench_cpu();
    for (long i = 0; i < count; i++) heap_insert(&heap, start + delays[i], (uint32_t)i);
    int64_t middle = bench_cpu();
    for (long i = 0; i < count; i++) heap_remove(&heap, heap.places[i]);
    inserts[round] = middle - start;
    cancels[round] = bench_cpu() - middle;
  }
  heap_free(&heap);
}

static void fire_due(heap_t *heap, const bench_call_t *calls, int64_t now) {
  while (heap->count > 0 && heap->entries[0].when <= now) {
    const bench_call_t *call = &calls[heap->entries[0].timer];
    heap_remove(heap, 0);
    call->fn(call->arg);
  }
}

void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) {
  heap_t heap = heap_new(count);
  long left;
  bench_call_t *calls = bench_alloc((size_t)count * sizeof *calls);
  for (long i = 0; i < count; i++) calls[i] = (bench_call_t){count_down, &left};
  for (long round = 0; round < rounds; round++) {
    int64_t now = bench_now(), last = 0;
    left = count;
    for (long i = 0; i < count; i++) {
      heap_insert(&heap, now + delays[i], (uint32_t)i);
      if (now + delays[i] > last) last = now + delays[i];
    }
    bench_sleep_until(last + 1000000);
    int64_t start = bench_cpu();
    fire_due(&heap, calls, bench_now());
    times[round] = bench_cpu() - start;
    if (left != 0) bench_die("not every timer was called");
  }
  heap_free(&heap);
  free(calls);
}

/* Pushing back only notes the new deadline; a timer that reaches the top of the heap too early is moved then.
 */
int64_t peer_rearm(long timers, int64_t timeout, long total, const uint32_t *order) {
  heap_t heap = heap_new(timers);
  int64_t *deadlines = bench_alloc((size_t)timers * sizeof *deadlines);
  for (long i = 0; i < timers; i++) heap_insert(&heap, deadlines[i] = bench_now() + timeout, (uint32_t)i);
  int64_t start = bench_cpu(), now = 0;
  for (long i = 0; i < total; i++) {
    if (i % 1000 == 0) now = bench_now();
    while (heap.entries[0].when <= now)
      heap_down(&heap, 0, (entry_t){deadlines[heap.entries[0].timer], heap.entries[0].timer});
    deadlines[order[i % timers]] = now + timeout;
  }
  int64_t took = bench_cpu() - start;
  heap_free(&heap);
  free(deadlines);
  return took;
}

/* ---- Posts ----------------------------------------------------------------------------------------------- */

typedef struct posts {
  bench_mailbox_t mailbox;
  int wake;
  long left;
} posts_t;

static void post(void *user) {
  posts_t *posts = user;
  uint64_t one = 1;
  if (bench_mailbox_put(&posts->mailbox, count_down, &posts->left))
    if (write(posts->wake, &one, sizeof one) != sizeof one) bench_die("eventfd");
}

void peer_posts(int producers, long count, long rounds, int64_t *times) {
  posts_t posts = {.wake = eventfd(0, EFD_CLOEXEC)};
  bench_mailbox_init(&posts.mailbox);
  for (long round = 0; round < rounds; round++) {
    bench_producers_t threads;
    posts.left = count;
    int64_t start = bench_now();
    bench_producers_start(&threads, producers, count, post, &posts);
    while (posts.left > 0) {
      uint64_t wakes;
      if (read(posts.wake, &wakes, sizeof wakes) != sizeof wakes) bench_die("eventfd");
      bench_mailbox_run(&posts.mailbox);
    }
    times[round] = bench_now() - start;
    bench_producers_join(&threads);
  }
  bench_mailbox_free(&posts.mailbox);
  close(posts.wake);
}

/* ---- Lookups --------------------------------------------------------------------------------------------- */

int64_t peer_lookup(long count) {
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *list;
  int64_t start = bench_now();
  for (long i = 0; i < count; i++) {
    if (getaddrinfo("127.0.0.1", "80", &hints, &list) != 0) bench_die("getaddrinfo");
    freeaddrinfo(list);
  }
  return bench_now() - start;
}

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

/* Message by message, as far as the pipe takes them; what it does not take waits until something was read. */
static long write_messages(int fd, long size, long left) {
  while (left > 0) {
    ssize_t n = write(fd, bench_bytes, (size_t)(left % size > 0 ? left % size : size));
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) bench_die("write");
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

static int receive(inbox_t *inbox) {
  for (int i = 0; i < BATCH; i++) {
    inbox->parts[i] = (struct iovec){inbox->bytes[i], sizeof inbox->bytes[i]};
    inbox->messages[i].msg_hdr = (struct msghdr){.msg_name = &inbox->from[i],
                                                 .msg_namelen = sizeof inbox->from[i],
                                                 .msg_iov = &inbox->parts[i],
                                                 .msg_iovlen = 1};
  }
  return recvmmsg(inbox->fd, inbox->messages, BATCH, 0, NULL);
}

static inbox_t *new_inbox(void) {
  inbox_t *inbox = bench_alloc(sizeof *inbox);
  struct epoll_event event = {.events = EPOLLIN};
  inbox->fd = bench_datagram_socket();
  inbox->poller = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ctl(inbox->poller, EPOLL_CTL_ADD, inbox->fd, &event) != 0) bench_die("epoll_ctl");
  return inbox;
}

static void echo_datagrams(void *arg) {
  inbox_t *inbox = arg;
  struct epoll_event event;
  if (epoll_wait(inbox->poller, &event, 1, 0) != 1) return;
  int count = receive(inbox);
  if (count <= 0) return;
  for (int i = 0; i < count; i++) inbox->parts[i].iov_len = inbox->messages[i].msg_len;
  if (sendmmsg(inbox->fd, inbox->messages, (unsigned)count, 0) != count) bench_die("sendmmsg");
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
    int count = receive(inbox);
    bench_received += count > 0 ? count : 0;
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

/* ---- The loop -------------------------------------------------------------------------------------------- */

typedef struct loop {
  int poller, wake;
} loop_t;

void *peer_loop_new(void) {
  loop_t *loop = bench_alloc(sizeof *loop);
  *loop = (loop_t){epoll_create1(EPOLL_CLOEXEC), eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  struct epoll_event event = {.events = EPOLLIN};
  if (epoll_ctl(loop->poller, EPOLL_CTL_ADD, loop->wake, &event) != 0) bench_die("epoll_ctl");
  return loop;
}

void peer_loop_turn(void *arg) {
  loop_t *loop = arg;
  struct epoll_event event;
  epoll_wait(loop->poller, &event, 1, 0);
}

void peer_loop_free(void *arg) {
  loop_t *loop = arg;
  close(loop->poller);
  close(loop->wake);
  free(loop);
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
