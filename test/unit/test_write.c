/* SPDX-License-Identifier: MIT
 *
 * Writing to a stream: gathering, order, exactness, water marks, the hard cap, owned memory, half-close, and memory
 * that runs out. The test stands in for send and sendmsg, so that it can count them and decide how much the socket
 * takes. pollers: all
 */
#include "streams.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/driver.h"

/* ---- The socket as the library sees it ------------------------------------------------------------------ */

static struct {
  long calls;   /* that were tried */
  bool limited; /* the socket takes only... */
  size_t allow; /* ... so many bytes more */
  int error;    /* ... or fails with this */
} wire;

static void limit(size_t bytes) {
  wire.limited = true;
  wire.allow = bytes;
}

static void lift_limit(void) {
  wire.limited = false;
}

/* How many of `size` bytes to send: 0 with errno set if none. */
static size_t grant(size_t size) {
  wire.calls++;
  if (wire.error != 0) {
    errno = wire.error;
    return 0;
  }
  if (!wire.limited) return size;
  size_t n = size < wire.allow ? size : wire.allow;
  wire.allow -= n;
  if (n == 0) errno = EAGAIN;
  return n;
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  size_t n = grant(size);
  return n == 0 && size > 0 ? -1 : sendto(fd, data, n, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  static ssize_t (*real)(int, const struct msghdr *, int);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, "sendmsg");
    memcpy(&real, &symbol, sizeof real);
  }
  struct iovec parts[IOV_MAX];
  struct msghdr cut = *message;
  size_t size = 0;
  for (size_t i = 0; i < (size_t)message->msg_iovlen; i++) size += message->msg_iov[i].iov_len;
  size_t n = grant(size);
  if (n == 0 && size > 0) return -1;
  size_t count = 0;
  for (size_t left = n; left > 0; count++) {
    parts[count] = message->msg_iov[count];
    if (parts[count].iov_len > left) parts[count].iov_len = left;
    left -= parts[count].iov_len;
  }
  cut.msg_iov = parts;
  cut.msg_iovlen = (unsigned short)count;
  return real(fd, &cut, flags);
}

/* ---- Small helpers -------------------------------------------------------------------------------------- */

static void say(int fd, const char *text) {
  assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void put(tape_t *tape, const char *text) {
  assert_int_equal(aloop_transport_write(tape->transport, text, strlen(text)), 0);
}

static void expect(tape_t *tape, int peer, const char *text) {
  char got[256];
  size_t size = strlen(text);
  assert_int_equal(collect(tape->env->loop, tape, peer, got, size), size);
  assert_memory_equal(got, text, size);
  assert_int_equal(drain(peer, got, sizeof got), 0);
}

static size_t unsent(const tape_t *tape) {
  return aloop_transport_get_write_buffer_size(tape->transport);
}

static void count_release(void *arg) {
  ++*(int *)arg;
}

static int put_owned(tape_t *tape, const char *text, int *released) {
  return aloop_transport_write_owned(tape->transport, text, strlen(text), count_release, released);
}

/* ---- At once and gathered ------------------------------------------------------------------------------- */

static void a_write_is_sent_at_once(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  wire.calls = 0;
  put(&tape, "hello");
  char text[8];
  assert_int_equal(wire.calls, 1);
  assert_int_equal(unsent(&tape), 0);
  assert_int_equal(drain(peer, text, sizeof text), 5);
  assert_memory_equal(text, "hello", 5);
  end_tape(&tape, peer);
}

static void nothing_is_written_for_nothing(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  struct iovec empty[] = {{NULL, 0}, {"", 0}};
  wire.calls = 0;
  assert_int_equal(aloop_transport_write(tape.transport, NULL, 0), 0);
  assert_int_equal(aloop_transport_write(tape.transport, "", 0), 0);
  assert_int_equal(aloop_transport_writev(tape.transport, NULL, 0), 0);
  assert_int_equal(aloop_transport_writev(tape.transport, empty, 2), 0);
  assert_int_equal(wire.calls, 0);
  end_tape(&tape, peer);
}

static void senseless_writes_are_refused(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int released = 0;
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_write(tape.transport, NULL, 1), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_writev(tape.transport, NULL, 1), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_writev(tape.transport, &(struct iovec){"x", 1}, -1), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_write_owned(tape.transport, NULL, 1, count_release, &released),
                   ALOOP_EINVAL);
  assert_int_equal(released, 0);
  end_tape(&tape, peer);
}

static void answer_in_pieces(tape_t *tape) {
  aloop_transport_t *transport = tape->transport;
  char word[] = "copied ";
  struct iovec parts[] = {{"in ", 3}, {NULL, 0}, {"parts ", 6}};
  assert_int_equal(aloop_transport_write(transport, tape->data, 2), 0);
  assert_int_equal(aloop_transport_write(transport, word, strlen(word)), 0);
  memset(word, '#', strlen(word));
  assert_int_equal(aloop_transport_writev(transport, parts, 3), 0);
  assert_int_equal(aloop_transport_write(transport, tape->data + 2, 2), 0);
  assert_int_equal(aloop_transport_write(transport, tape->data + 4, 2), 0);
  assert_int_equal(unsent(tape), 2 + 7 + 9 + 4);
}

static void writes_in_data_received_leave_together(void **state) {
  env_t *env = *state;
  const aloop_protocol_t *tables[] = {&plain_protocol, &buffered_protocol};
  for (int i = 0; i < 2; i++) {
    tape_t tape = {.env = env};
    tape.on[DATA] = tape.on[UPDATED] = answer_in_pieces;
    int peer = open_tape(&tape, tables[i]);
    for (int round = 0; round < 3; round++) {
      wire.calls = 0;
      say(peer, "abcdef");
      expect(&tape, peer, "abcopied in parts cdef");
      assert_int_equal(wire.calls, 1);
      assert_int_equal(unsent(&tape), 0);
    }
    end_tape(&tape, peer);
  }
}

static char kilobyte[1024];

static void answer_with_a_copy(tape_t *tape) {
  assert_int_equal(aloop_transport_write(tape->transport, kilobyte, sizeof kilobyte), 0);
}

static void gathering_does_not_wear_out(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = answer_with_a_copy};
  char got[sizeof kilobyte];
  int peer = open_tape(&tape, &plain_protocol);
  for (int i = 0; i < 2 * ALOOP__CORK_SIZE / (int)sizeof kilobyte; i++) {
    say(peer, "x");
    assert_int_equal(collect(env->loop, &tape, peer, got, sizeof got), sizeof got);
  }
  tape.on[DATA] = answer_in_pieces;
  wire.calls = 0;
  say(peer, "abcdef");
  expect(&tape, peer, "abcopied in parts cdef");
  assert_int_equal(wire.calls, 1);
  end_tape(&tape, peer);
}

static void answer_from_reused_memory(tape_t *tape) {
  assert_int_equal(aloop_transport_write(tape->transport, tape->buffer, 3), 0);
  memset(tape->buffer, '#', sizeof tape->buffer);
}

static void a_buffered_protocol_may_use_its_memory_again_at_once(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[UPDATED] = answer_from_reused_memory};
  int peer = open_tape(&tape, &buffered_protocol);
  say(peer, "abc");
  expect(&tape, peer, "abc");
  end_tape(&tape, peer);
}

static void answer_with_every_kind(tape_t *tape) {
  int *released = tape->arg;
  put(tape, "one ");
  assert_int_equal(put_owned(tape, "two ", released), 0);
  put(tape, "three ");
  struct iovec parts[100];
  for (int i = 0; i < 100; i++) parts[i] = (struct iovec){"a", 1};
  assert_int_equal(aloop_transport_writev(tape->transport, parts, 100), 0);
  put(tape, " four");
}

static void every_kind_keeps_its_place_in_data_received(void **state) {
  env_t *env = *state;
  int released = 0;
  tape_t tape = {.env = env, .on[DATA] = answer_with_every_kind, .arg = &released};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "x");
  char text[128] = "one two three ";
  memset(text + 14, 'a', 100);
  strcpy(text + 114, " four");
  expect(&tape, peer, text);
  assert_int_equal(released, 1);
  end_tape(&tape, peer);
}

static void write_to_the_other(tape_t *tape) {
  tape_t *other = tape->arg;
  char got[8];
  put(tape, "mine");
  put(other, "yours");
  assert_int_equal(drain(*(int *)other->arg, got, sizeof got), 5);
}

static void only_the_writes_of_the_receiver_are_gathered(void **state) {
  env_t *env = *state;
  int other_peer;
  tape_t other = {.env = env, .arg = &other_peer};
  tape_t tape = {.env = env, .on[DATA] = write_to_the_other, .arg = &other};
  other_peer = open_tape(&other, &plain_protocol);
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "x");
  expect(&tape, peer, "mine");
  end_tape(&tape, peer);
  end_tape(&other, other_peer);
}

static void answer_and_abort(tape_t *tape) {
  put(tape, "never sent");
  aloop_transport_abort(tape->transport);
  assert_int_equal(unsent(tape), 0);
}

static void abort_drops_what_was_gathered(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = answer_and_abort};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "x");
  run_until(env->loop, &tape.lost);
  assert_true(at_eof(peer));
  end_tape(&tape, peer);
}

static void answer_and_close(tape_t *tape) {
  put(tape, "good ");
  put(tape, "bye");
  aloop_transport_close(tape->transport);
  assert_int_equal(aloop_transport_write(tape->transport, "x", 1), ALOOP_ECLOSED);
}

static void close_sends_what_was_gathered(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = answer_and_close};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "x");
  expect(&tape, peer, "good bye");
  run_until(env->loop, &tape.lost);
  assert_true(at_eof(peer));
  assert_int_equal(tape.error, 0);
  end_tape(&tape, peer);
}

/* ---- Order and exactness -------------------------------------------------------------------------------- */

enum { STREAM = 8 * 1024 * 1024, PLAN = 40 };

typedef struct piece {
  size_t size;
  bool echo; /* from what was received */
} piece_t;

typedef struct traffic {
  tape_t tape;
  int peer;
  unsigned random;
  size_t written;
  size_t read;
  int owned;
  int released;
  piece_t plan[PLAN]; /* of the next data_received */
  int plan_size;
  bool paused;
} traffic_t;

static unsigned dice(traffic_t *traffic, unsigned sides) {
  traffic->random = traffic->random * 1103515245u + 12345u;
  return (traffic->random >> 16) % sides;
}

static size_t some_size(traffic_t *traffic) {
  static const unsigned most[] = {4, 40, 600, 9000, 70000};
  return 1 + dice(traffic, most[dice(traffic, 5)]);
}

typedef struct loan {
  traffic_t *traffic;
  char bytes[];
} loan_t;

static void end_loan(void *arg) {
  loan_t *loan = arg;
  loan->traffic->released++;
  free(loan);
}

static void write_owned_piece(traffic_t *traffic, size_t size) {
  loan_t *loan = malloc(sizeof *loan + size);
  assert_non_null(loan);
  loan->traffic = traffic;
  pattern(loan->bytes, size, (unsigned)traffic->written);
  traffic->owned++;
  assert_int_equal(aloop_transport_write_owned(traffic->tape.transport, loan->bytes, size, end_loan, loan), 0);
}

/* Writes that many bytes of the pattern by one call of some kind. */
static void write_piece(traffic_t *traffic, size_t size) {
  aloop_transport_t *transport = traffic->tape.transport;
  static char bytes[70000];
  struct iovec parts[120];
  unsigned kind = dice(traffic, 3);
  pattern(bytes, size, (unsigned)traffic->written);
  if (kind == 0) {
    assert_int_equal(aloop_transport_write(transport, bytes, size), 0);
  } else if (kind == 1) {
    write_owned_piece(traffic, size);
  } else {
    int count = 0;
    for (size_t at = 0; at < size;) {
      size_t n = count == 119 ? size - at : dice(traffic, (unsigned)(size - at) + 1);
      parts[count++] = (struct iovec){bytes + at, n};
      at += n;
    }
    assert_int_equal(aloop_transport_writev(transport, parts, count), 0);
  }
  memset(bytes, '#', size);
  traffic->written += size;
}

/* Inside data_received: what was planned, partly from the bytes that came. */
static void follow_plan(tape_t *tape) {
  traffic_t *traffic = tape->arg;
  size_t at = 0;
  for (int i = 0; i < traffic->plan_size; i++) {
    const piece_t *piece = &traffic->plan[i];
    if (!piece->echo) {
      write_piece(traffic, piece->size);
      continue;
    }
    assert_true(at + piece->size <= tape->data_size);
    assert_int_equal(aloop_transport_write(tape->transport, tape->data + at, piece->size), 0);
    at += piece->size;
    traffic->written += piece->size;
  }
  assert_int_equal(at, tape->data_size);
  traffic->plan_size = 0;
  tape->size = 0;
}

static void note_pause(tape_t *tape) {
  traffic_t *traffic = tape->arg;
  assert_false(traffic->paused);
  traffic->paused = true;
}

static void note_resume(tape_t *tape) {
  traffic_t *traffic = tape->arg;
  assert_true(traffic->paused);
  traffic->paused = false;
  bool closing = aloop_transport_is_closing(tape->transport);
  if (!closing && dice(traffic, 3) == 0) write_piece(traffic, some_size(traffic));
}

/* Sends the peer's bytes for a plan: the pattern as it has to come back, pieces of the transport's own between. */
static void make_plan(traffic_t *traffic) {
  static char bytes[4096];
  size_t at = traffic->written;
  size_t size = 0;
  int count = 1 + (int)dice(traffic, PLAN - 1);
  for (int i = 0; i < count; i++) {
    piece_t piece = {some_size(traffic), i == 0 || dice(traffic, 2) == 0};
    if (piece.echo && piece.size > (sizeof bytes - size) / 2) piece.size = 1;
    if (piece.echo) {
      pattern(bytes + size, piece.size, (unsigned)at);
      size += piece.size;
    }
    traffic->plan[i] = piece;
    at += piece.size;
  }
  traffic->plan_size = count;
  assert_int_equal(write(traffic->peer, bytes, size), (ssize_t)size);
}

static void read_some(traffic_t *traffic, size_t most) {
  static char got[100000];
  static char expected[100000];
  size_t n = drain(traffic->peer, got, most < sizeof got ? most : sizeof got);
  pattern(expected, n, (unsigned)traffic->read);
  assert_memory_equal(got, expected, n);
  traffic->read += n;
}

static void bytes_arrive_exactly_whatever_the_writes(void **state) {
  env_t *env = *state;
  for (int buffered = 0; buffered < 2; buffered++) {
    static traffic_t traffic;
    int small = 4096;
    traffic = (traffic_t){.random = 3, .tape = {.env = env, .arg = &traffic}};
    traffic.tape.on[DATA] = traffic.tape.on[UPDATED] = follow_plan;
    traffic.tape.on[PAUSE] = note_pause;
    traffic.tape.on[RESUME] = note_resume;
    traffic.peer = open_tape(&traffic.tape, buffered ? &buffered_protocol : &plain_protocol);
    setsockopt(aloop_transport_fd(traffic.tape.transport), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    aloop_transport_set_write_buffer_limits(traffic.tape.transport, 30000, 10000);
    while (traffic.written < STREAM) {
      unsigned what = dice(&traffic, 4);
      if (!traffic.paused && what == 0) write_piece(&traffic, some_size(&traffic));
      if (!traffic.paused && what == 1) make_plan(&traffic);
      do assert_true(aloop_run_once(env->loop, 0) >= 0);
      while (traffic.plan_size > 0);
      read_some(&traffic, dice(&traffic, 3) * 20000);
      assert_true(traffic.paused || unsent(&traffic.tape) <= 30000);
    }
    aloop_transport_close(traffic.tape.transport);
    while (!traffic.tape.lost) {
      read_some(&traffic, SIZE_MAX);
      assert_true(aloop_run_once(env->loop, 0) >= 0);
    }
    read_some(&traffic, SIZE_MAX);
    assert_int_equal(traffic.read, traffic.written);
    assert_int_equal(traffic.released, traffic.owned);
    assert_int_equal(traffic.tape.error, 0);
    end_tape(&traffic.tape, traffic.peer);
  }
}

static void more_parts_than_the_kernel_takes(void **state) {
  env_t *env = *state;
  enum { PARTS = 3 * IOV_MAX };
  static struct iovec parts[PARTS];
  static char bytes[PARTS * 3];
  static char got[PARTS * 3];
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  pattern(bytes, sizeof bytes, 0);
  for (int i = 0; i < PARTS; i++) parts[i] = (struct iovec){bytes + i * 3, 3};
  assert_int_equal(aloop_transport_writev(tape.transport, parts, PARTS), 0);
  assert_int_equal(collect(env->loop, &tape, peer, got, sizeof got), sizeof got);
  assert_memory_equal(got, bytes, sizeof got);
  end_tape(&tape, peer);
}

static void a_socket_that_takes_little_gets_everything_in_order(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  limit(3);
  put(&tape, "01234");
  assert_int_equal(unsent(&tape), 2);
  assert_int_equal(put_owned(&tape, "5678", &released), 0);
  struct iovec parts[] = {{"9a", 2}, {"bc", 2}};
  assert_int_equal(aloop_transport_writev(tape.transport, parts, 2), 0);
  assert_int_equal(unsent(&tape), 10);
  for (size_t left = 10; left > 0; left--) {
    assert_int_equal(released, left < 5);
    limit(1);
    while (wire.allow > 0) assert_true(aloop_run_once(env->loop, 0) >= 0);
    assert_int_equal(unsent(&tape), left - 1);
  }
  lift_limit();
  expect(&tape, peer, "0123456789abc");
  end_tape(&tape, peer);
}

/* ---- Water marks ---------------------------------------------------------------------------------------- */

/* Lets exactly so many bytes go. */
static void let_go(tape_t *tape, size_t bytes) {
  limit(bytes);
  for (int i = 0; i < 3 || wire.allow > 0; i++) assert_true(aloop_run_once(tape->env->loop, 0) >= 0);
}

static void writing_pauses_above_high_and_resumes_at_low(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 10, 4), 0);
  for (int round = 0; round < 2; round++) {
    tape.events_count = 1;
    limit(0);
    put(&tape, "0123456789");
    assert_int_equal(tape.events_count, 1);
    put(&tape, "a");
    assert_int_equal(tape.events[1], 'P');
    put(&tape, "b");
    assert_int_equal(tape.events_count, 2);
    let_go(&tape, 7);
    assert_int_equal(unsent(&tape), 5);
    assert_int_equal(tape.events_count, 2);
    put(&tape, "0123456789");
    assert_int_equal(tape.events_count, 2);
    let_go(&tape, 11);
    assert_int_equal(unsent(&tape), 4);
    assert_int_equal(tape.events_count, 3);
    assert_int_equal(tape.events[2], 'R');
    let_go(&tape, 4);
    assert_int_equal(tape.events_count, 3);
  }
  lift_limit();
  end_tape(&tape, peer);
}

static void new_limits_may_pause_but_never_resume(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  limit(0);
  put(&tape, "0123456789");
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 10, 0), 0);
  assert_string_equal(tape.events, "M");
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 9, 0), 0);
  assert_string_equal(tape.events, "MP");
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 1000, 500), 0);
  let_go(&tape, 0);
  assert_string_equal(tape.events, "MP");
  let_go(&tape, 1);
  assert_string_equal(tape.events, "MPR");
  lift_limit();
  end_tape(&tape, peer);
}

static void a_high_mark_of_zero_pauses_whenever_something_waits(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 0, -1), 0);
  put(&tape, "sent at once");
  assert_string_equal(tape.events, "M");
  limit(1);
  put(&tape, "ab");
  assert_string_equal(tape.events, "MP");
  let_go(&tape, 1);
  assert_string_equal(tape.events, "MPR");
  lift_limit();
  end_tape(&tape, peer);
}

static void check_limits(aloop_transport_t *transport, int64_t high, int64_t low, size_t expected_high,
                         size_t expected_low) {
  size_t got_high = 1;
  size_t got_low = 1;
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, high, low), 0);
  assert_int_equal(aloop_transport_get_write_buffer_limits(transport, &got_high, &got_low), 0);
  assert_int_equal(got_high, expected_high);
  assert_int_equal(got_low, expected_low);
}

static void limits_have_defaults(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  size_t high;
  size_t low;
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_get_write_buffer_limits(tape.transport, &high, &low), 0);
  assert_int_equal(high, 65536);
  assert_int_equal(low, 16384);
  check_limits(tape.transport, 1000, -1, 1000, 250);
  check_limits(tape.transport, -1, 1000, 4000, 1000);
  check_limits(tape.transport, -1, -1, 65536, 16384);
  check_limits(tape.transport, 7, 7, 7, 7);
  check_limits(tape.transport, 0, -1, 0, 0);
  check_limits(tape.transport, -1, 0, 0, 0);
  check_limits(tape.transport, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX);
  end_tape(&tape, peer);
}

static void impossible_limits_change_nothing(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  size_t high;
  size_t low;
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_t *transport = tape.transport;
  check_limits(transport, 100, 50, 100, 50);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, 10, 11), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, INT64_MAX, 0), ALOOP_ERANGE);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, (int64_t)UINT32_MAX + 1, 0),
                   ALOOP_ERANGE);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, -1, INT64_MAX), ALOOP_ERANGE);
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, -1, (int64_t)1 << 30), ALOOP_ERANGE);
  assert_int_equal(aloop_transport_get_write_buffer_limits(transport, &high, &low), 0);
  assert_int_equal(high, 100);
  assert_int_equal(low, 50);
  end_tape(&tape, peer);
}

static void put_more(tape_t *tape) {
  tape->on[RESUME] = NULL;
  put(tape, "more");
}

static void resume_writing_may_write_again(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[RESUME] = put_more};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(0);
  put(&tape, "first ");
  lift_limit();
  expect(&tape, peer, "first more");
  end_tape(&tape, peer);
}

static void close_transport(tape_t *tape) {
  aloop_transport_close(tape->transport);
}

static void closing_inside_resume_writing_ends_once(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[RESUME] = close_transport};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(0);
  put(&tape, "all of it");
  lift_limit();
  expect(&tape, peer, "all of it");
  settle(env->loop);
  assert_string_equal(tape.events, "MPRL");
  assert_int_equal(tape.error, 0);
  end_tape(&tape, peer);
}

static void closing_inside_pause_writing_sends_the_rest(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[PAUSE] = close_transport};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(1);
  put(&tape, "all of it");
  assert_int_equal(unsent(&tape), 8);
  lift_limit();
  expect(&tape, peer, "all of it");
  settle(env->loop);
  assert_true(tape.lost);
  assert_int_equal(tape.error, 0);
  end_tape(&tape, peer);
}

static void abort_transport(tape_t *tape) {
  aloop_transport_abort(tape->transport);
}

static void aborting_inside_pause_writing_drops_the_rest(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[PAUSE] = abort_transport};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(1);
  assert_int_equal(put_owned(&tape, "all of it", &released), 0);
  assert_int_equal(released, 1);
  assert_int_equal(unsent(&tape), 0);
  lift_limit();
  settle(env->loop);
  assert_string_equal(tape.events, "MPL");
  end_tape(&tape, peer);
}

static void abort_by_release(void *arg) {
  tape_t *tape = arg;
  aloop_transport_abort(tape->transport);
}

static void an_aborted_connection_does_not_resume_writing(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_set_write_buffer_limits(tape.transport, 2, 0);
  limit(0);
  assert_int_equal(aloop_transport_write_owned(tape.transport, "owned", 5, abort_by_release, &tape), 0);
  put(&tape, "never sent");
  lift_limit();
  settle(env->loop);
  assert_string_equal(tape.events, "MPL");
  end_tape(&tape, peer);
}

/* ---- The hard cap --------------------------------------------------------------------------------------- */

static void over_the_cap_nothing_is_taken(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  struct iovec parts[] = {{"89", 2}, {"ab", 2}};
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 10), 0);
  limit(0);
  put(&tape, "01234567");
  assert_int_equal(aloop_transport_write(tape.transport, "890", 3), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_writev(tape.transport, parts, 2), ALOOP_ENOBUFS);
  assert_int_equal(put_owned(&tape, "890", &released), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_write(tape.transport, "0", SIZE_MAX), ALOOP_ENOBUFS);
  assert_int_equal(released, 0);
  assert_int_equal(unsent(&tape), 8);
  put(&tape, "89");
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 0), 0);
  put(&tape, "a");
  lift_limit();
  expect(&tape, peer, "0123456789a");
  end_tape(&tape, peer);
}

static void answer_over_the_cap(tape_t *tape) {
  put(tape, "12345");
  assert_int_equal(aloop_transport_write(tape->transport, "67890a", 6), ALOOP_ENOBUFS);
  put(tape, "67890");
  assert_int_equal(aloop_transport_write(tape->transport, "x", 1), ALOOP_ENOBUFS);
}

static void the_cap_counts_what_is_gathered(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = answer_over_the_cap};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 10), 0);
  say(peer, "x");
  expect(&tape, peer, "1234567890");
  end_tape(&tape, peer);
}

/* ---- Owned memory --------------------------------------------------------------------------------------- */

static void owned_memory_is_released_once_sent(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  assert_int_equal(put_owned(&tape, "at once ", &released), 0);
  assert_int_equal(released, 1);
  assert_int_equal(put_owned(&tape, "", &released), 0);
  assert_int_equal(released, 2);
  assert_int_equal(aloop_transport_write_owned(tape.transport, "static ", 7, NULL, NULL), 0);
  limit(0);
  assert_int_equal(put_owned(&tape, "later", &released), 0);
  assert_int_equal(put_owned(&tape, "", &released), 0);
  assert_int_equal(released, 3);
  let_go(&tape, 4);
  assert_int_equal(released, 3);
  let_go(&tape, 1);
  assert_int_equal(released, 4);
  lift_limit();
  expect(&tape, peer, "at once static later");
  end_tape(&tape, peer);
  assert_int_equal(released, 4);
}

static void owned_memory_is_released_when_dropped(void **state) {
  env_t *env = *state;
  for (int end = 0; end < 3; end++) {
    tape_t tape = {.env = env};
    int peer = open_tape(&tape, &plain_protocol);
    int released = 0;
    limit(1);
    assert_int_equal(put_owned(&tape, "half sent", &released), 0);
    assert_int_equal(put_owned(&tape, "unsent", &released), 0);
    assert_int_equal(released, 0);
    if (end == 0) aloop_transport_abort(tape.transport);
    if (end == 1) wire.error = EPIPE;
    if (end == 1) run_until(env->loop, &tape.lost);
    if (end == 2) aloop_close(env->loop);
    assert_int_equal(released, 2);
    wire.error = 0;
    lift_limit();
    if (end < 2) end_tape(&tape, peer);
    if (end == 2) release_tape(&tape, peer);
    assert_int_equal(released, 2);
  }
}

static void owned_memory_is_released_when_the_socket_fails(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  wire.error = ECONNRESET;
  assert_int_equal(put_owned(&tape, "x", &released), 0);
  assert_int_equal(released, 1);
  wire.error = 0;
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ECONNRESET);
  end_tape(&tape, peer);
}

static void refused_memory_stays_the_callers(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int released = 0;
  limit(0);
  env->fail_from = env->calls + 1;
  assert_int_equal(put_owned(&tape, "x", &released), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  assert_int_equal(put_owned(&tape, "x", &released), ALOOP_EPIPE);
  aloop_transport_close(tape.transport);
  assert_int_equal(put_owned(&tape, "x", &released), ALOOP_ECLOSED);
  lift_limit();
  end_tape(&tape, peer);
  assert_int_equal(released, 0);
}

static void write_by_release(void *arg) {
  put(arg, " and more");
}

static void a_release_may_write(void **state) {
  env_t *env = *state;
  for (size_t allowed = 0; allowed <= 12; allowed++) {
    tape_t tape = {.env = env};
    int peer = open_tape(&tape, &plain_protocol);
    limit(allowed);
    assert_int_equal(aloop_transport_write_owned(tape.transport, "owned", 5, write_by_release, &tape), 0);
    if (allowed < 5) put(&tape, " next");
    lift_limit();
    expect(&tape, peer, allowed < 5 ? "owned next and more" : "owned and more");
    end_tape(&tape, peer);
  }
}

static void a_release_may_abort(void **state) {
  env_t *env = *state;
  for (size_t allowed = 0; allowed <= 5; allowed++) {
    tape_t tape = {.env = env};
    int peer = open_tape(&tape, &plain_protocol);
    int released = 0;
    limit(allowed);
    assert_int_equal(aloop_transport_write_owned(tape.transport, "owned", 5, abort_by_release, &tape), 0);
    int rc = put_owned(&tape, "other", &released);
    assert_int_equal(rc, allowed < 5 ? 0 : ALOOP_ECLOSED);
    lift_limit();
    run_until(env->loop, &tape.lost);
    assert_int_equal(released, allowed < 5);
    assert_int_equal(tape.error, 0);
    end_tape(&tape, peer);
  }
}

/* ---- EOF and the end ------------------------------------------------------------------------------------ */

static void eof_follows_the_last_byte(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_true(aloop_transport_can_write_eof(tape.transport));
  limit(0);
  put(&tape, "last words");
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_EPIPE);
  assert_false(aloop_transport_is_closing(tape.transport));
  lift_limit();
  char text[16];
  assert_int_equal(collect(env->loop, &tape, peer, text, 10), 10);
  settle(env->loop);
  assert_true(at_eof(peer));
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  end_tape(&tape, peer);
  assert_string_equal(tape.events, "ML");
}

static void both_sides_may_half_close(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .answer[AT_EOF] = 1};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  assert_true(at_eof(peer));
  say(peer, "still talking");
  shutdown(peer, SHUT_WR);
  run_until(env->loop, &tape.eof);
  assert_int_equal(tape.size, 13);
  assert_false(aloop_transport_is_closing(tape.transport));
  aloop_transport_close(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_string_equal(tape.events, "MDEL");
  end_tape(&tape, peer);
}

static void answer_with_eof(tape_t *tape) {
  put(tape, "answer");
  assert_int_equal(aloop_transport_write_eof(tape->transport), 0);
  assert_int_equal(aloop_transport_write(tape->transport, "x", 1), ALOOP_EPIPE);
}

static void eof_follows_what_was_gathered(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = answer_with_eof};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "x");
  expect(&tape, peer, "answer");
  assert_true(at_eof(peer));
  end_tape(&tape, peer);
}

static void close_sends_what_is_unsent_first(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  limit(2);
  put(&tape, "all of it");
  aloop_transport_close(tape.transport);
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  let_go(&tape, 3);
  assert_false(tape.lost);
  lift_limit();
  expect(&tape, peer, "all of it");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_true(at_eof(peer));
  end_tape(&tape, peer);
}

static void a_failing_socket_is_reported_at_the_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_pause_reading(tape.transport);
  close(peer);
  put(&tape, "into the void");
  assert_true(aloop_transport_is_closing(tape.transport));
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), ALOOP_ECLOSED);
  assert_false(tape.lost);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_EPIPE);
  end_tape(&tape, -1);
}

static void a_socket_that_fails_later_is_reported_too(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  limit(0);
  put(&tape, "unsent");
  aloop_transport_close(tape.transport);
  lift_limit();
  wire.error = ETIMEDOUT;
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  wire.error = 0;
  end_tape(&tape, peer);
}

static void an_interrupted_send_is_tried_again(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  wire.error = EINTR;
  put(&tape, "patience");
  assert_int_equal(unsent(&tape), 8);
  wire.error = 0;
  expect(&tape, peer, "patience");
  end_tape(&tape, peer);
}

/* ---- Out of memory -------------------------------------------------------------------------------------- */

/* Appends what was accepted to what has to arrive. */
static void account(char *accepted, int rc, const char *text) {
  if (rc == 0) strcat(accepted, text);
  assert_true(rc == 0 || rc == ALOOP_ENOMEM || rc == ALOOP_ECLOSED);
}

static void write_while_out_of_memory(tape_t *tape, char *accepted, int *owned, int *released) {
  aloop_transport_t *transport = tape->transport;
  struct iovec parts[] = {{"7", 1}, {"8", 1}, {"9", 1}};
  account(accepted, aloop_transport_write(transport, "0123", 4), "0123");
  int rc = put_owned(tape, "456", released);
  *owned += rc == 0;
  account(accepted, rc, "456");
  account(accepted, aloop_transport_writev(transport, parts, 3), "789");
  account(accepted, aloop_transport_write(transport, kilobyte, 1), "x");
}

static void scenario_writes(env_t *env) {
  for (size_t allowed = 0; allowed < 14; allowed++) {
    tape_t tape = {.env = env};
    char accepted[64] = "";
    char got[64] = "";
    int owned = 0;
    int released = 0;
    long fail_at = env->fail_at;
    long fail_from = env->fail_from;
    env->fail_at = env->fail_from = 0;
    int peer = open_tape(&tape, &plain_protocol);
    env->fail_at = fail_at;
    env->fail_from = fail_from;
    limit(allowed);
    write_while_out_of_memory(&tape, accepted, &owned, &released);
    aloop_transport_close(tape.transport);
    lift_limit();
    for (int i = 0; i < 4; i++) assert_true(aloop_run_once(env->loop, 0) >= 0);
    env->fail_at = env->fail_from = 0;
    run_until(env->loop, &tape.lost);
    size_t size = drain(peer, got, sizeof got);
    assert_true(tape.error == 0 || tape.error == ALOOP_ENOMEM);
    if (tape.error == 0) assert_string_equal(got, accepted);
    assert_true(size <= 11);
    assert_int_equal(released, owned);
    end_tape(&tape, peer);
    env->fail_at = fail_at;
    env->fail_from = fail_from;
  }
}

static void out_of_memory_refuses_whole_writes_or_ends(void **state) {
  kilobyte[0] = 'x';
  torture(*state, scenario_writes);
  lift_limit();
  kilobyte[0] = 0;
}

static void a_write_that_was_sent_in_part_is_not_refused(void **state) {
  env_t *env = *state;
  for (int kind = 0; kind < 3; kind++) {
    tape_t tape = {.env = env};
    struct iovec parts[] = {{"ab", 2}, {"cd", 2}};
    int released = 0;
    int peer = open_tape(&tape, &plain_protocol);
    settle(env->loop);
    limit(1);
    env->fail_from = env->calls + 1;
    if (kind == 0) assert_int_equal(aloop_transport_write(tape.transport, "abcd", 4), 0);
    if (kind == 1) assert_int_equal(aloop_transport_writev(tape.transport, parts, 2), 0);
    if (kind == 2) assert_int_equal(put_owned(&tape, "abcd", &released), 0);
    assert_int_equal(released, kind == 2);
    assert_true(aloop_transport_is_closing(tape.transport));
    env->fail_from = 0;
    lift_limit();
    run_until(env->loop, &tape.lost);
    assert_int_equal(tape.error, ALOOP_ENOMEM);
    end_tape(&tape, peer);
  }
}

static void answer_while_out_of_memory(tape_t *tape) {
  tape->env->fail_from = tape->env->calls + 1;
  put(tape, "one ");
  put(tape, "two");
}

static void gathered_bytes_that_cannot_be_kept_end_the_connection(void **state) {
  env_t *env = *state;
  for (size_t allowed = 0; allowed < 7; allowed += 3) {
    tape_t tape = {.env = env, .on[DATA] = answer_while_out_of_memory};
    int peer = open_tape(&tape, &plain_protocol);
    settle(env->loop);
    limit(allowed);
    say(peer, "x");
    for (int i = 0; i < 4; i++) assert_true(aloop_run_once(env->loop, 0) >= 0);
    env->fail_from = 0;
    lift_limit();
    run_until(env->loop, &tape.lost);
    assert_int_equal(tape.error, ALOOP_ENOMEM);
    end_tape(&tape, peer);
  }
}

TESTS(T(a_write_is_sent_at_once), T(nothing_is_written_for_nothing), T(senseless_writes_are_refused),
      T(writes_in_data_received_leave_together), T(gathering_does_not_wear_out),
      T(a_buffered_protocol_may_use_its_memory_again_at_once), T(every_kind_keeps_its_place_in_data_received),
      T(only_the_writes_of_the_receiver_are_gathered), T(abort_drops_what_was_gathered),
      T(close_sends_what_was_gathered), T(bytes_arrive_exactly_whatever_the_writes),
      T(more_parts_than_the_kernel_takes), T(a_socket_that_takes_little_gets_everything_in_order),
      T(writing_pauses_above_high_and_resumes_at_low), T(new_limits_may_pause_but_never_resume),
      T(a_high_mark_of_zero_pauses_whenever_something_waits), T(limits_have_defaults),
      T(impossible_limits_change_nothing), T(resume_writing_may_write_again),
      T(closing_inside_resume_writing_ends_once), T(closing_inside_pause_writing_sends_the_rest),
      T(aborting_inside_pause_writing_drops_the_rest), T(an_aborted_connection_does_not_resume_writing),
      T(over_the_cap_nothing_is_taken), T(the_cap_counts_what_is_gathered),
      T(owned_memory_is_released_once_sent), T(owned_memory_is_released_when_dropped),
      T(owned_memory_is_released_when_the_socket_fails), T(refused_memory_stays_the_callers),
      T(a_release_may_write), T(a_release_may_abort), T(eof_follows_the_last_byte),
      T(both_sides_may_half_close), T(eof_follows_what_was_gathered), T(close_sends_what_is_unsent_first),
      T(a_failing_socket_is_reported_at_the_end), T(a_socket_that_fails_later_is_reported_too),
      T(an_interrupted_send_is_tried_again), T(out_of_memory_refuses_whole_writes_or_ends),
      T(a_write_that_was_sent_in_part_is_not_refused), T(gathered_bytes_that_cannot_be_kept_end_the_connection))
