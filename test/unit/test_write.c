/* SPDX-License-Identifier: MIT
 *
 * Writing to a stream: gathering, order, exactness, half-close, and memory that runs out. pollers: all
 */
#include "wire.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/driver.h"

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
  int plan_at; /* pieces done */
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

/* Inside data_received: what was planned, partly from the bytes that came; perhaps not all of them at once. */
static void follow_plan(tape_t *tape) {
  traffic_t *traffic = tape->arg;
  size_t at = 0;
  for (; traffic->plan_at < traffic->plan_size; traffic->plan_at++) {
    piece_t *piece = &traffic->plan[traffic->plan_at];
    if (!piece->echo) {
      write_piece(traffic, piece->size);
      continue;
    }
    size_t n = piece->size < tape->data_size - at ? piece->size : tape->data_size - at;
    assert_int_equal(aloop_transport_write(tape->transport, tape->data + at, n), 0);
    at += n;
    traffic->written += n;
    piece->size -= n;
    if (piece->size > 0) break;
  }
  assert_int_equal(at, tape->data_size);
  if (traffic->plan_at == traffic->plan_size) traffic->plan_at = traffic->plan_size = 0;
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
  if (!closing && traffic->plan_size == 0 && dice(traffic, 3) == 0) write_piece(traffic, some_size(traffic));
}

/* Sends the peer's bytes for a plan: the pattern as it has to come back, pieces of the transport's own
 * between. */
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
      T(eof_follows_the_last_byte), T(both_sides_may_half_close), T(eof_follows_what_was_gathered),
      T(close_sends_what_is_unsent_first), T(a_failing_socket_is_reported_at_the_end),
      T(a_socket_that_fails_later_is_reported_too), T(an_interrupted_send_is_tried_again),
      T(out_of_memory_refuses_whole_writes_or_ends), T(a_write_that_was_sent_in_part_is_not_refused),
      T(gathered_bytes_that_cannot_be_kept_end_the_connection))
