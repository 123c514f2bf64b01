/* SPDX-License-Identifier: MIT
 *
 * Any sequence of reads from a stream, against a model: what was sent, and how much of it was consumed. The
 * input is a program: each byte names an action, those behind it are its arguments. The peer sends pieces of any
 * size, full of separators and of halves of them; reads of every kind begin, are cancelled, end and are read
 * or given up unread, with turns of the loop between. What must hold:
 *
 * - each read gives exactly the bytes that the model says come next, and ends so if and only if the model says
 *   that it can: limits hold to the byte, nothing waits for what is there;
 * - what was cancelled or goes unread consumes nothing;
 * - a line on loan stays as it is until the next read;
 * - one read at a time, and every descriptor and block is given back.
 *
 * In one input out of four, allocations fail now and then: reads may then end with ALOOP_ENOMEM, and the next
 * ones go on. Only the public header is used. A broken promise traps.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SENT_MAX = 1 << 20, PIECE_MAX = 20000, ACTIONS = 600, READ_MAX = 70000 };

typedef enum kind { SOME, EXACTLY, LINE, UNTIL, KINDS } kind_t;

static struct {
  aloop_t *loop;
  aloop_stream_t *stream;
  int peer; /* -1: it has ended */
  size_t limit;

  unsigned char *sent; /* the model: all of it, */
  size_t sent_size;    /* how much there is, */
  size_t consumed;     /* and what was read */
  bool ended;

  aloop_future_t *future; /* of the read, until its end was dealt with */
  kind_t kind;
  size_t wanted; /* of SOME and EXACTLY */
  const char *separator;
  unsigned char *buffer;
  const char *line;
  const char *lent; /* still to be whole, */
  size_t lent_size; /* with so many bytes, */
  size_t lent_from; /* which are those of the model from here on */
} w;

/* ---- The model ------------------------------------------------------------------------------------------- */

/* Where the separator begins behind what was consumed; SIZE_MAX: it is not there. */
static size_t find(void) {
  size_t width = strlen(w.separator);
  for (size_t at = w.consumed; at + width <= w.sent_size; at++)
    if (memcmp(w.sent + at, w.separator, width) == 0) return at - w.consumed;
  return SIZE_MAX;
}

/* What the read ends with when all that was sent has arrived; ALOOP_ENOTDONE: it waits. */
static int64_t predict(void) {
  size_t there = w.sent_size - w.consumed;
  if (w.kind == SOME) {
    if (there > 0) return (int64_t)(there < w.wanted ? there : w.wanted);
    return w.ended ? 0 : ALOOP_ENOTDONE;
  }
  if (w.kind == EXACTLY) {
    if (there >= w.wanted) return (int64_t)w.wanted;
    return w.ended ? ALOOP_EOF : ALOOP_ENOTDONE;
  }
  size_t at = find(), width = strlen(w.separator);
  if (at != SIZE_MAX) return at <= w.limit ? (int64_t)(at + width) : ALOOP_ERANGE;
  if (there >= width && there - width + 1 > w.limit) return ALOOP_ERANGE;
  if (!w.ended) return ALOOP_ENOTDONE;
  return w.kind == LINE ? (int64_t)there : ALOOP_EOF;
}

static void check_loan(void) {
  if (w.lent == NULL) return;
  MUST(memcmp(w.lent, w.sent + w.lent_from, w.lent_size) == 0);
  MUST(w.lent[w.lent_size] == '\0');
}

/* The end of a read, whose value is looked at or not. */
static void deal_with_end(bool read) {
  bool lends = w.kind == LINE || w.kind == UNTIL;
  if (read) {
    int64_t value = aloop_future_result(w.future), wanted = predict();
    if (value == ALOOP_ENOMEM) {
      MUST(fuzz.fail_every > 0);
    } else if (w.kind == SOME && value > 0) {
      MUST(value <= wanted);
    } else {
      MUST(value == wanted);
    }
    if (value > 0)
      MUST(memcmp(lends ? (const void *)w.line : w.buffer, w.sent + w.consumed, (size_t)value) == 0);
    if (value > 0 && lends) {
      w.lent = w.line;
      w.lent_size = (size_t)value;
      w.lent_from = w.consumed;
    }
    if (value > 0) w.consumed += (size_t)value;
  }
  aloop_future_unref(w.future);
  w.future = NULL;
  check_loan();
}

/* ---- Actions --------------------------------------------------------------------------------------------- */

static void run(unsigned turns) {
  while (turns-- > 0) aloop_run_once(w.loop, 0);
  check_loan();
}

static void send_piece(void) {
  size_t size = byte();
  unsigned alphabet = byte();
  if (size >= 192) size = (size - 192) * 317 % PIECE_MAX;
  if (w.peer < 0 || size > SENT_MAX - w.sent_size) return;
  for (size_t i = 0; i < size; i++) {
    uint64_t z = (w.sent_size + i + 1) * 0x9e3779b97f4a7c15U;
    unsigned pick = (unsigned)(z >> 59);
    unsigned char letter = (unsigned char)('a' + (z >> 40) % 23);
    if (alphabet % 4 == 1 && pick < 2) letter = '\n';
    if (alphabet % 4 == 2) letter = pick < 16 ? '\r' : '\n';
    if (alphabet % 4 == 3 && i + 1 == size) letter = '\n';
    w.sent[w.sent_size + i] = letter;
  }
  ssize_t n = size > 0 ? write(w.peer, w.sent + w.sent_size, size) : 0;
  if (n > 0) w.sent_size += (size_t)n;
}

static void end_peer(void) {
  if (w.peer < 0) return;
  close(w.peer);
  w.peer = -1;
  w.ended = true;
}

static aloop_future_t *begin(kind_t kind, unsigned size) {
  static const char *const separators[] = {"\r\n", "\r\n\r\n", "\n\n", "\r\r\n"};
  w.kind = kind;
  w.wanted = size < 200 ? size + 1 : (size - 199) * 1013 % READ_MAX + 1;
  w.separator = kind == LINE ? "\n" : separators[size % 4];
  w.lent = NULL;
  if (kind == SOME) return aloop_stream_read(w.stream, w.buffer, w.wanted);
  if (kind == EXACTLY) return aloop_stream_readexactly(w.stream, w.buffer, w.wanted);
  if (kind == LINE) return aloop_stream_readline(w.stream, &w.line);
  return aloop_stream_readuntil(w.stream, w.separator, strlen(w.separator), &w.line);
}

static void start_read(void) {
  kind_t kind = byte() % KINDS;
  unsigned size = byte();
  if (w.future == NULL) {
    w.future = begin(kind, size);
    MUST(w.future != NULL || fuzz.fail_every > 0);
    return;
  }
  /* One waits, or its result was not read: then a second is refused; if it was an error, it is not. */
  char other;
  aloop_future_t *second = aloop_future_done(w.future) ? NULL : aloop_stream_read(w.stream, &other, 1);
  if (second != NULL) MUST(aloop_future_result(second) == ALOOP_EBUSY);
  aloop_future_unref(second);
}

static void finish_read(bool read) {
  if (w.future != NULL && aloop_future_done(w.future)) deal_with_end(read);
}

static void cancel_read(void) {
  if (w.future == NULL) return;
  bool pending = !aloop_future_done(w.future);
  MUST(aloop_future_cancel(w.future) == pending);
  if (!pending) return;
  aloop_future_unref(w.future);
  w.future = NULL;
}

/* Everything arrives; what can end has ended. */
static void settle(void) {
  for (int turns = 0, idle = 0; idle < 3; turns++) {
    MUST(turns < 100000);
    idle = aloop_run_once(w.loop, 0) > 0 ? 0 : idle + 1;
  }
  check_loan();
  if (fuzz.fail_every > 0) return;
  if (w.future != NULL) MUST(aloop_future_done(w.future) == (predict() != ALOOP_ENOTDONE));
  if (w.future == NULL) MUST(aloop_stream_at_eof(w.stream) == (w.ended && w.consumed == w.sent_size));
}

static void act(void) {
  switch (byte() % 10) {
  case 0:
  case 1:
    send_piece();
    break;
  case 2:
  case 3:
    start_read();
    break;
  case 4:
  case 5:
    finish_read(true);
    break;
  case 6:
    finish_read(false);
    break;
  case 7:
    run(byte() % 4);
    break;
  case 8:
    if (byte() % 4 == 0) cancel_read();
    break;
  default:
    if (byte() % 32 == 0) end_peer();
    settle();
  }
}

/* ---- A run ----------------------------------------------------------------------------------------------- */

static bool set_up(void) {
  static const aloop_protocol_t nothing = {.size = sizeof nothing};
  static aloop_allocator_t allocator = {sizeof allocator, resize, release, NULL};
  static const char *const pollers[] = {"poll", "uring", "epoll"};
  const char *poller = pollers[fuzz.size % 3];
  unsigned first = byte(), limit = byte();
  aloop_options_t options = {.size = sizeof options, .poller = poller, .allocator = &allocator, .debug = -1};
  int fds[2];
  MUST(aloop_new(&options, &w.loop) == 0);
  MUST(aloop_set_exception_handler(w.loop, ignore_report, NULL) == 0);
  MUST(aloop_socketpair(SOCK_STREAM, fds) == 0);
  aloop_transport_t *transport = NULL;
  aloop_future_t *future = aloop_connect_accepted_socket(w.loop, &nothing, NULL, fds[0], NULL);
  while (!aloop_future_done(future)) aloop_run_once(w.loop, 0);
  MUST(aloop_future_take_ptr(future, &transport) == 0);
  aloop_future_unref(future);
  w.limit = limit < 128 ? limit + 1 : (limit - 127) * 531;
  aloop_stream_options_t limits = {.size = sizeof limits, .limit = w.limit};
  MUST(aloop_stream_new(transport, &limits, &w.stream) == 0);
  aloop_transport_unref(transport);
  w.peer = fds[1];
  if (first % 4 == 3) fuzz.fail_every = first / 4 % 13 + 2;
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  memset(&w, 0, sizeof w);
  begin_input(data, size);
  w.sent = malloc(SENT_MAX);
  w.buffer = malloc(READ_MAX + 1);
  MUST(w.sent != NULL && w.buffer != NULL && set_up());
  for (int i = 0; i < ACTIONS && fuzz.size > 0; i++) act();
  settle();
  finish_read(true);
  if (w.future != NULL) cancel_read();
  aloop_stream_unref(w.stream);
  if (w.peer >= 0) close(w.peer);
  fuzz.fail_every = 0;
  aloop_free(w.loop);
  MUST(fuzz.live == 0);
  free(w.sent);
  free(w.buffer);
  return 0;
}
