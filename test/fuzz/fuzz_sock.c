/* SPDX-License-Identifier: MIT
 *
 * Any sequence of operations on sockets. The input is a program: each byte names an action, those behind it are
 * its arguments, and what runs when an operation ends takes its actions from the same stream. There are a few
 * pairs of connected sockets, of which ends are closed and made anew all the time, so that descriptor numbers
 * come back at once, and a listener. What must hold:
 *
 * - no byte of one connection ever reaches another: each has bytes of its own, which tell the connection and
 *   the   position;
 * - each operation ends once, with a result that could happen, and its future's callback comes once;
 * - a direction has one user: a second one is refused, and only then;
 * - when cancel returns, the buffer is left alone for good, and the position of a file that was being sent is
 *   just   behind the last byte that went out;
 * - an operation ends when its descriptor is ready, and every descriptor and block is given back, accepted
 *   connections that nobody asked for included.
 *
 * In one input out of four, allocations fail now and then: operations may then end with ALOOP_ENOMEM. Only the
 * public header is used. A broken promise traps.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PAIRS = 4, ENDS = 2 * PAIRS, OPS = 400, ACTIONS = 400, DEPTH = 3, BUFFER = 8192, SEND_MAX = 65536 };
enum { UNTOUCHED = 0xa5 };

typedef enum kind { RECV, RECVFROM, SENDALL, SENDTO, SENDFILE, CONNECT, ACCEPT } kind_t;

typedef struct op {
  kind_t kind;
  aloop_future_t *future; /* our reference; NULL: no operation */
  struct end *end;        /* NULL: a connect or an accept */
  int fd;                 /* of a connect */
  bool ended, called, cancelled;
  size_t size;
  unsigned char *bytes; /* `size` of them, and nobody else's */
} op_t;

typedef struct end {
  int fd; /* -1: closed */
  int file;
  uint64_t id;       /* of the bytes that it sends */
  uint64_t sent;     /* as far as we know */
  uint64_t received; /* by the other end */
  bool alone;        /* the other end was closed: what is sent goes nowhere */
  op_t *reader, *writer;
  bool watches_reader, watches_writer;
} end_t;

static struct {
  aloop_t *loop;
  bool over; /* nothing new begins */
  int actions, depth;
  bool starved;
  uint64_t ids;
  op_t ops[OPS];
  int op_count;
  op_t *accepting;
  int listener;
  struct sockaddr_in address;
} w;

static end_t ends[ENDS]; /* 2 i and 2 i + 1 are connected */

/* ---- Bytes --------------------------------------------------------------------------------------------------
 * */

static unsigned char pattern(uint64_t id, uint64_t at) {
  uint64_t z = (id << 40 ^ at) * 0x9e3779b97f4a7c15U;
  return (unsigned char)(z >> 56 ^ z >> 24);
}

static end_t *other_of(end_t *end) {
  return &ends[(end - ends) ^ 1];
}

/* `size` bytes came out at the other end. */
static void check_bytes(end_t *from, const unsigned char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) MUST(bytes[i] == pattern(from->id, from->received + i));
  from->received += size;
}

static void make_bytes(const end_t *end, unsigned char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) bytes[i] = pattern(end->id, end->sent + i);
}

/* How much was sent, when the operation does not tell: it waits to be received. */
static void find_position(end_t *end) {
  int waiting = 0;
  if (end->alone) return;
  MUST(ioctl(other_of(end)->fd, FIONREAD, &waiting) == 0);
  end->sent = end->received + (uint64_t)waiting;
}

/* ---- The end of an operation --------------------------------------------------------------------------------
 * */

static void act(void);

static bool gone(int64_t error) {
  return error == ALOOP_EPIPE || error == ALOOP_ECONNRESET;
}

static void end_reading(op_t *op, int64_t result) {
  end_t *from = other_of(op->end);
  op->end->reader = NULL;
  size_t got = result > 0 ? (size_t)result : 0;
  MUST(got <= op->size);
  if (result == 0)
    MUST(op->end->alone);
  else if (result < 0)
    MUST(op->cancelled || (op->end->alone && gone(result)) || (w.starved && result == ALOOP_ENOMEM));
  check_bytes(from, op->bytes, got);
  for (size_t i = got; i < op->size; i++) MUST(op->bytes[i] == UNTOUCHED);
}

static void end_writing(op_t *op, int64_t result) {
  end_t *end = op->end;
  uint64_t before = end->sent;
  end->writer = NULL;
  if (result >= 0) {
    MUST(result == (int64_t)op->size || (op->kind == SENDTO && result > 0));
    end->sent += (uint64_t)result;
  } else {
    MUST(op->cancelled || (end->alone && gone(result)) || (w.starved && result == ALOOP_ENOMEM));
    find_position(end);
  }
  uint64_t sent = end->sent - before;
  MUST(sent <= op->size);
  if (op->kind != SENDFILE) return;
  off_t position = lseek(end->file, 0, SEEK_CUR);
  if (end->alone && result < 0)
    MUST(position >= 1 && position <= (off_t)op->size + 1);
  else
    MUST(position == (off_t)sent + 1);
}

/* A descriptor that is not read must go with its future. */
static void end_accept(op_t *op) {
  w.accepting = NULL;
  if (byte() & 1) return;
  int64_t fd = aloop_future_result(op->future);
  if (fd < 0) {
    MUST(op->cancelled || (w.starved && fd == ALOOP_ENOMEM));
    return;
  }
  MUST(fcntl((int)fd, F_GETFL) & O_NONBLOCK);
  MUST(close((int)fd) == 0);
}

static void end_connect(op_t *op, int64_t result) {
  MUST(result == 0 || op->cancelled || (w.starved && result == ALOOP_ENOMEM));
  MUST(close(op->fd) == 0);
}

static void settle_one(op_t *op) {
  if (op->future == NULL || op->ended || !aloop_future_done(op->future)) return;
  op->ended = true;
  if (op->kind == ACCEPT)
    end_accept(op);
  else if (op->kind == CONNECT)
    end_connect(op, aloop_future_result(op->future));
  else if (op->kind <= RECVFROM)
    end_reading(op, aloop_future_result(op->future));
  else
    end_writing(op, aloop_future_result(op->future));
}

/* Learns what has ended: first what was received, by which others know how much they sent. */
static void settle(void) {
  for (int i = 0; i < w.op_count; i++)
    if (w.ops[i].kind <= RECVFROM) settle_one(&w.ops[i]);
  for (int i = 0; i < w.op_count; i++) settle_one(&w.ops[i]);
}

static void on_done(aloop_future_t *future, void *arg) {
  op_t *op = arg;
  MUST(op->future == future && !op->called && aloop_future_done(future));
  op->called = true;
  for (unsigned i = byte() & 3; i > 0; i--) act();
}

/* ---- Actions ------------------------------------------------------------------------------------------------
 * */

static end_t *some_end(void) {
  return &ends[byte() % ENDS];
}

static size_t some_size(size_t most) {
  unsigned n = byte();
  size_t size = n < 64 ? n : n < 192 ? n * 16u : n * 256u;
  return size < most ? size : most;
}

static op_t *new_op(kind_t kind, end_t *end, size_t size) {
  op_t *op = &w.ops[w.op_count++];
  *op = (op_t){.kind = kind, .end = end, .size = size, .bytes = malloc(size + 1)};
  MUST(op->bytes != NULL);
  memset(op->bytes, UNTOUCHED, size);
  return op;
}

/* The call was made. Returns whether the operation began. */
static bool began(op_t *op, aloop_future_t *future, bool busy) {
  MUST(future != NULL || w.starved);
  /* The result of an accept that succeeded is not read here. */
  bool failed = future != NULL && aloop_future_message(future)[0] != '\0';
  bool refused = failed && aloop_future_result(future) == ALOOP_EBUSY;
  MUST(future == NULL || refused == busy);
  if (future != NULL && !refused) {
    op->future = future;
    if (aloop_future_add_done_callback(future, on_done, op) < 0) {
      MUST(w.starved);
      op->called = true;
    }
    return true;
  }
  aloop_future_unref(future);
  free(op->bytes);
  w.op_count--;
  return false;
}

static void begin_reading(void) {
  end_t *end = some_end();
  unsigned how = byte();
  if (end->fd < 0 || w.op_count == OPS) return;
  op_t *op = new_op(how & 1 ? RECV : RECVFROM, end, 1 + some_size(BUFFER));
  aloop_future_t *future = how & 1 ? aloop_sock_recv(w.loop, end->fd, op->bytes, op->size)
                                   : aloop_sock_recvfrom(w.loop, end->fd, op->bytes, op->size, NULL, NULL);
  if (began(op, future, end->reader != NULL || end->watches_reader)) end->reader = op;
}

static aloop_future_t *send_file(op_t *op) {
  end_t *end = op->end;
  if (end->writer != NULL || op->size == 0) op->size = end->writer != NULL ? op->size : 1;
  if (end->writer == NULL) {
    make_bytes(end, op->bytes, op->size);
    MUST(ftruncate(end->file, 0) == 0);
    MUST(pwrite(end->file, op->bytes, op->size, 1) == (ssize_t)op->size);
  }
  return aloop_sock_sendfile(w.loop, end->fd, end->file, 1, (int64_t)op->size, 0);
}

static void begin_writing(void) {
  end_t *end = some_end();
  kind_t kind = (kind_t)(SENDALL + byte() % 3);
  if (end->fd < 0 || w.op_count == OPS) return;
  op_t *op = new_op(kind, end, 1 + some_size(SEND_MAX));
  make_bytes(end, op->bytes, op->size);
  bool busy = end->writer != NULL || end->watches_writer;
  aloop_future_t *future = kind == SENDALL  ? aloop_sock_sendall(w.loop, end->fd, op->bytes, op->size)
                           : kind == SENDTO ? aloop_sock_sendto(w.loop, end->fd, op->bytes, op->size, NULL, 0)
                                            : send_file(op);
  if (began(op, future, busy)) end->writer = op;
}

static void cancel(op_t *op) {
  if (op == NULL || op->ended) return;
  op->cancelled = !aloop_future_done(op->future);
  MUST(aloop_future_cancel(op->future) == op->cancelled);
  settle_one(op);
}

static void cancel_some(void) {
  end_t *end = some_end();
  unsigned which = byte();
  if (which & 1) cancel(end->reader);
  if (which & 2) cancel(end->writer);
  if ((which & 0x1c) == 0) cancel(w.accepting);
}

static void on_watch(aloop_t *loop, void *arg) {
  end_t *end = arg;
  MUST(loop == w.loop && end->fd >= 0 && (end->watches_reader || end->watches_writer));
  if (byte() & 1) act();
}

static void answered(int rc, bool busy, bool *flag, bool value) {
  if (busy)
    MUST(rc == ALOOP_EBUSY);
  else if (rc < 0)
    MUST(w.starved && rc == ALOOP_ENOMEM);
  else
    *flag = value;
}

static void watch(void) {
  end_t *end = some_end();
  unsigned how = byte();
  if (end->fd < 0) return;
  bool reads = end->reader != NULL, writes = end->writer != NULL;
  if ((how & 3) == 0)
    answered(aloop_add_reader(w.loop, end->fd, on_watch, end), reads, &end->watches_reader, true);
  if ((how & 3) == 1)
    answered(aloop_add_writer(w.loop, end->fd, on_watch, end), writes, &end->watches_writer, true);
  if ((how & 3) == 2) answered(aloop_remove_reader(w.loop, end->fd), reads, &end->watches_reader, false);
  if ((how & 3) == 3) answered(aloop_remove_writer(w.loop, end->fd), writes, &end->watches_writer, false);
}

/* Past the loop. */
static void receive_plainly(end_t *end, size_t size) {
  unsigned char bytes[BUFFER];
  if (end->fd < 0 || end->reader != NULL) return;
  ssize_t n = recv(end->fd, bytes, size, MSG_DONTWAIT);
  if (n > 0) check_bytes(other_of(end), bytes, (size_t)n);
}

static void send_plainly(end_t *end, size_t size) {
  unsigned char bytes[BUFFER];
  if (end->fd < 0 || end->writer != NULL) return;
  make_bytes(end, bytes, size);
  ssize_t n = send(end->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n > 0) end->sent += (uint64_t)n;
}

static void use_plainly(void) {
  end_t *end = some_end();
  size_t size = 1 + some_size(BUFFER - 1);
  if (byte() & 1)
    receive_plainly(end, size);
  else
    send_plainly(end, size);
}

/* Everything that was asked for it is taken back, and it is closed in the next statement. */
static void close_end(end_t *end) {
  if (end->fd < 0) return;
  if (end->watches_reader) MUST(aloop_remove_reader(w.loop, end->fd) == 1);
  if (end->watches_writer) MUST(aloop_remove_writer(w.loop, end->fd) == 1);
  end->watches_reader = end->watches_writer = false;
  cancel(end->reader);
  cancel(end->writer);
  MUST(end->reader == NULL && end->writer == NULL);
  MUST(close(end->fd) == 0);
  end->fd = -1;
  other_of(end)->alone = true;
}

static void open_pair(int i) {
  int fds[2], small = 4096;
  close_end(&ends[2 * i]);
  close_end(&ends[2 * i + 1]);
  MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  for (int k = 0; k < 2; k++) {
    end_t *end = &ends[2 * i + k];
    *end = (end_t){.fd = fds[k], .file = end->file, .id = ++w.ids};
    fcntl(fds[k], F_SETFL, O_NONBLOCK);
    setsockopt(fds[k], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  }
}

static void reopen(void) {
  unsigned how = byte();
  if (how & 0x80)
    close_end(&ends[how % ENDS]);
  else
    open_pair((int)(how % PAIRS));
}

static void begin_connect(void) {
  if (w.op_count == OPS) return;
  op_t *op = new_op(CONNECT, NULL, 0);
  op->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  int fd = op->fd;
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now); /* or its port rests for a minute */
  if (!began(op, aloop_sock_connect(w.loop, fd, (struct sockaddr *)&w.address, sizeof w.address), false))
    close(fd);
}

static void cancel_connect(void) {
  unsigned from = byte();
  for (int i = 0; i < w.op_count; i++) {
    op_t *op = &w.ops[(from + (unsigned)i) % (unsigned)w.op_count];
    if (op->kind != CONNECT || op->ended) continue;
    cancel(op);
    return;
  }
}

static void begin_accept(void) {
  if (w.op_count == OPS) return;
  op_t *op = new_op(ACCEPT, NULL, 0);
  if (began(op, aloop_sock_accept(w.loop, w.listener, NULL, NULL), w.accepting != NULL)) w.accepting = op;
}

static void turn(void) {
  if (aloop_is_running(w.loop)) return;
  int rc = aloop_run_once(w.loop, 0);
  MUST(rc >= 0 || (w.starved && rc == ALOOP_ENOMEM));
}

static void act(void) {
  static void (*const actions[16])(void) = {turn,          turn,          turn,          turn,
                                            begin_reading, begin_reading, begin_reading, begin_writing,
                                            begin_writing, cancel_some,   use_plainly,   use_plainly,
                                            watch,         reopen,        begin_connect, begin_accept};
  if (w.over || fuzz.size == 0 || w.depth == DEPTH || w.actions++ > ACTIONS) return;
  w.depth++;
  settle();
  unsigned which = byte();
  if (which >= 0xf0)
    cancel_connect();
  else
    actions[which & 15]();
  settle();
  w.depth--;
}

/* ---- The end ------------------------------------------------------------------------------------------------
 * */

static bool any_pending(void) {
  bool pending = false;
  for (int i = 0; i < w.op_count; i++) pending |= !w.ops[i].ended && w.ops[i].kind != ACCEPT;
  return pending;
}

/* Whatever waits gets what it waits for, and must then end. */
static void wind_down(void) {
  for (int i = 0; i < ENDS; i++) {
    end_t *end = &ends[i];
    if (end->fd >= 0 && end->watches_reader) aloop_remove_reader(w.loop, end->fd);
    if (end->fd >= 0 && end->watches_writer) aloop_remove_writer(w.loop, end->fd);
    end->watches_reader = end->watches_writer = false;
  }
  for (int turns = 0; any_pending(); turns++) {
    MUST(turns < 5000);
    for (int i = 0; i < ENDS; i++) {
      receive_plainly(&ends[i], BUFFER);
      if (other_of(&ends[i])->reader != NULL) send_plainly(&ends[i], 1);
    }
    turn();
    settle();
  }
  turn(); /* their callbacks */
  turn();
  for (int i = 0; i < w.op_count; i++) MUST(w.ops[i].called || !w.ops[i].ended);
}

static bool begin(void) {
  static const char *const pollers[] = {"auto", "poll", "select", "virtual"};
  aloop_allocator_t allocator = {sizeof allocator, resize, release, NULL};
  unsigned how = byte();
  aloop_options_t options = {
      .size = sizeof options, .poller = pollers[how & 3], .allocator = &allocator, .debug = -1};
  w.starved = (how & 0x0c) == 0x0c;
  if (w.starved) fuzz.fail_every = 2 + byte() % 40;
  int rc = aloop_new(&options, &w.loop);
  MUST(rc == 0 || (w.starved && rc == ALOOP_ENOMEM));
  return rc == 0;
}

/* What outlives an input: files, and the listener. */
static void make_world(void) {
  socklen_t size = sizeof w.address;
  for (int i = 0; i < ENDS; i++) {
    char name[] = "/tmp/aloop-fuzz-XXXXXX";
    ends[i].file = mkstemp(name);
    MUST(ends[i].file >= 0);
    unlink(name);
  }
  w.address = (struct sockaddr_in){.sin_family = AF_INET};
  w.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  w.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  MUST(bind(w.listener, (struct sockaddr *)&w.address, size) == 0 && listen(w.listener, 1000) == 0);
  MUST(getsockname(w.listener, (struct sockaddr *)&w.address, &size) == 0);
}

static int open_descriptors(void) {
  static struct pollfd fds[600];
  int count = 0;
  for (int i = 0; i < 600; i++) fds[i] = (struct pollfd){.fd = i};
  MUST(poll(fds, 600, 0) >= 0);
  for (int i = 0; i < 600; i++) count += (fds[i].revents & POLLNVAL) == 0;
  return count;
}

static void end_world(void) {
  w.over = true;
  fuzz.size = 0;
  MUST(aloop_close(w.loop) == 0);
  for (int i = 0; i < w.op_count; i++) {
    op_t *op = &w.ops[i];
    MUST(aloop_future_done(op->future));
    if (!op->ended) op->cancelled = true;
  }
  settle();
  for (int i = 0; i < ENDS; i++) {
    ends[i].watches_reader = ends[i].watches_writer = false;
    close_end(&ends[i]);
  }
  for (int i = 0; i < w.op_count; i++) {
    aloop_future_unref(w.ops[i].future);
    free(w.ops[i].bytes);
  }
  aloop_free(w.loop);
  for (int fd; (fd = accept(w.listener, NULL, NULL)) >= 0;) close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (w.listener == 0) make_world();
  int descriptors = open_descriptors(), listener = w.listener;
  struct sockaddr_in address = w.address;
  memset(&w, 0, sizeof w);
  w.listener = listener;
  w.address = address;
  begin_input(data, size);
  if (begin()) {
    aloop_set_exception_handler(w.loop, ignore_report, NULL);
    for (int i = 0; i < ENDS; i++) ends[i] = (end_t){.fd = -1, .file = ends[i].file};
    for (int i = 0; i < PAIRS; i++) open_pair(i);
    while (fuzz.size > 0 && w.actions < ACTIONS) act();
    fuzz.fail_every = 0;
    w.over = true;
    settle();
    if (size % 3 != 0) wind_down();
    end_world();
  }
  MUST(fuzz.live == 0);
  MUST(open_descriptors() == descriptors);
  return 0;
}
