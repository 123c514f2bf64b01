/* SPDX-License-Identifier: MIT
 *
 * The bytes of TLS transports: pieces of every size in both directions, pauses that hold everything back, one
 * count for what is unsent, and TLS over TLS. pollers: all
 */
#include "crowd.h"
#include "mocktls.h"
#include "peers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Receiving ------------------------------------------------------------------------------------------- */

/* Hello, finished, `count` records "0123456789", and the end. */
static size_t script(char *into, int count) {
  static const char text[] = "0123456789";
  char turned[sizeof text];
  size_t size = mock_record(into, 'H', "", 0);
  for (size_t i = 0; i < sizeof turned; i++) turned[i] = (char)(text[i] ^ 0xff);
  size += mock_record(into + size, 'F', "", 0);
  for (int i = 0; i < count; i++) size += mock_record(into + size, 'D', turned, 10);
  return size + mock_record(into + size, 'E', "", 0);
}

static void receive_in_pieces(env_t *env, const aloop_protocol_t *table, size_t piece, bool swallows,
                              bool greedy, size_t offer) {
  enum { RECORDS = 20 };
  char bytes[512];
  int peer;
  tape_t tape = {.env = env, .offer = offer};
  size_t size = script(bytes, RECORDS);
  mock_begin();
  mock.swallows = swallows;
  mock.greedy = greedy;
  aloop_future_t *future = mock_accept(&tape, table, &peer);
  for (size_t at = 0; at < size; at += piece) {
    size_t n = size - at < piece ? size - at : piece;
    assert_int_equal(write(peer, bytes + at, n), n);
    settle(env->loop);
  }
  run_until(env->loop, &tape.lost);
  aloop_future_unref(future);
  assert_string_equal(tape.events, "MDEL");
  assert_int_equal(tape.error, 0);
  assert_int_equal(tape.size, RECORDS * 10);
  for (size_t i = 0; i < tape.size; i++) assert_int_equal(tape.bytes[i], '0' + (int)(i % 10));
  release_tape(&tape, peer);
}

static void bytes_may_come_in_pieces_of_any_size(void **state) {
  static const size_t pieces[] = {1, 2, 3, 7, 13, 14, 100, 500};
  for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
    for (int how = 0; how < 4; how++)
      receive_in_pieces(*state, &plain_protocol, pieces[i], how & 1, how & 2, 0);
}

static void a_buffered_protocol_gets_them_in_its_own_memory(void **state) {
  static const size_t offers[] = {1, 3, 10, 11, 0};
  for (size_t i = 0; i < sizeof offers / sizeof offers[0]; i++)
    for (int how = 0; how < 4; how++) {
      receive_in_pieces(*state, &buffered_protocol, 500, how & 1, how & 2, offers[i]);
      receive_in_pieces(*state, &buffered_protocol, 5, how & 1, how & 2, offers[i]);
    }
}

static void several_records_are_one_delivery(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  for (int i = 0; i < 10; i++) mock_say(peer, 'D', "abc");
  settle(env->loop);
  assert_int_equal(tape.size, 30);
  assert_int_equal(tape.calls[DATA], 1);
  end_tape(&tape, peer);
}

static void pause_here(tape_t *tape) {
  aloop_transport_pause_reading(tape->transport);
}

static void a_pause_holds_back_what_has_come_and_the_end(void **state) {
  for (int how = 0; how < 4; how++) {
    env_t *env = *state;
    tape_t tape = {.env = env};
    mock_begin();
    mock.swallows = how & 1;
    mock.greedy = how & 2;
    int peer = open_mock_server(&tape, &plain_protocol);
    aloop_transport_pause_reading(tape.transport);
    assert_false(aloop_transport_is_reading(tape.transport));
    mock_say(peer, 'D', "one");
    mock_say(peer, 'E', "");
    shutdown(peer, SHUT_WR);
    settle(env->loop);
    assert_string_equal(tape.events, "M");
    aloop_transport_resume_reading(tape.transport);
    run_until(env->loop, &tape.lost);
    assert_string_equal(tape.events, "MDEL");
    assert_int_equal(tape.error, 0);
    assert_int_equal(tape.size, 3);
    release_tape(&tape, peer);
  }
}

static void a_pause_in_the_middle_keeps_the_rest(void **state) {
  for (int how = 0; how < 4; how++) {
    env_t *env = *state;
    tape_t tape = {.env = env, .offer = 2, .on[UPDATED] = pause_here};
    mock_begin();
    mock.swallows = how & 1;
    mock.greedy = how & 2;
    int peer = open_mock_server(&tape, &buffered_protocol);
    mock_say(peer, 'D', "ab");
    mock_say(peer, 'D', "cd");
    mock_say(peer, 'D', "efg");
    mock_say(peer, 'E', "");
    for (size_t size = 2; size < 8; size += 2) {
      run_until_count(env->loop, (const int *)(const void *)&tape.size, (int)(size < 7 ? size : 7));
      settle(env->loop);
      assert_int_equal(tape.size, size < 7 ? size : 7);
      assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
      assert_int_equal(tape.size, size < 7 ? size : 7);
    }
    settle(env->loop);
    assert_int_equal(tape.size, 7);
    aloop_transport_resume_reading(tape.transport);
    run_until(env->loop, &tape.lost);
    assert_memory_equal(tape.bytes, "abcdefg", 7);
    assert_int_equal(tape.error, 0);
    release_tape(&tape, peer);
  }
}

static void pause_at_once(tape_t *tape) {
  aloop_transport_pause_reading(tape->transport);
}

/* The carrier reads on until something comes; that may be its end. */
static void a_pause_holds_back_what_came_before_the_peer_left(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .offer = 2, .on[UPDATED] = pause_at_once};
  mock_begin();
  mock.tcp = true;
  int peer = open_mock_server(&tape, &buffered_protocol);
  mock_say(peer, 'D', "abcdef");
  mock_say(peer, 'E', "");
  while (tape.size == 0) assert_true(aloop_run_once(env->loop, ALOOP_MILLIS(1)) >= 0);
  close(peer);
  for (int i = 0; !tape.lost; i++) {
    assert_true(i < 1000);
    aloop_run_once(env->loop, i % 100 == 0 ? ALOOP_MILLIS(1) : 0);
    if (i % 100 == 99) aloop_transport_resume_reading(tape.transport);
  }
  assert_int_equal(tape.size, 6);
  assert_memory_equal(tape.bytes, "abcdef", 6);
  assert_true(tape.eof);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, -1);
}

static void stop_hard(tape_t *tape) {
  assert_int_equal(aloop_stop_with_error(tape->env->loop, ALOOP_EINTR), 0);
}

/* Each run ends with its first delivery; the peer's end is one of them. */
static void expect_stops(tape_t *tape, int callback, long count) {
  aloop_t *loop = tape->env->loop;
  for (long calls = 1; calls <= count; calls++) {
    int rc = 0;
    while (tape->calls[callback] < calls) rc = aloop_run_once(loop, ALOOP_SECONDS(1));
    assert_int_equal(rc, ALOOP_EINTR);
    assert_int_equal(tape->calls[callback], calls);
    assert_int_equal(tape->calls[AT_EOF], 0);
  }
  run_until(loop, &tape->lost);
  assert_string_equal(tape->events, "MDEL");
  assert_int_equal(tape->error, 0);
  assert_memory_equal(tape->bytes, "abcdefgh", tape->size);
  assert_int_equal(tape->size, 8);
}

static void a_fatal_stop_ends_the_deliveries(void **state) {
  for (int how = 0; how < 8; how++) {
    env_t *env = *state;
    bool plain = how & 4;
    tape_t tape = {.env = env, .offer = 3, .on[UPDATED] = stop_hard, .on[DATA] = stop_hard};
    mock_begin();
    mock.swallows = how & 1;
    mock.greedy = how & 2;
    int peer = open_mock_server(&tape, plain ? &plain_protocol : &buffered_protocol);
    mock_say(peer, 'D', "abc");
    mock_say(peer, 'D', "defgh");
    mock_say(peer, 'E', "");
    shutdown(peer, SHUT_WR);
    expect_stops(&tape, plain ? DATA : UPDATED, plain ? 1 : 3);
    release_tape(&tape, peer);
  }
}

static void pausing_inside_connection_made_is_honoured(void **state) {
  env_t *env = *state;
  int peer;
  tape_t tape = {.env = env, .on[MADE] = pause_here};
  mock_begin();
  aloop_future_t *future = mock_accept(&tape, &plain_protocol, &peer);
  mock_say(peer, 'H', "");
  mock_say(peer, 'F', "");
  mock_say(peer, 'D', "early");
  assert_int_equal(value_of(env, future), 0);
  settle(env->loop);
  assert_string_equal(tape.events, "M");
  aloop_transport_resume_reading(tape.transport);
  settle(env->loop);
  assert_string_equal(tape.events, "MD");
  end_tape(&tape, peer);
}

static void say_again(tape_t *tape) {
  aloop_transport_write(tape->transport, tape->data, tape->data_size);
}

static void an_answer_leaves_as_one_record(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = say_again};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock_say(peer, 'D', "abc");
  mock_say(peer, 'D', "def");
  mock_expect(env->loop, peer, 'D', "abcdef");
  end_tape(&tape, peer);
}

static void say_parts(tape_t *tape) {
  put(tape, "head ");
  aloop_transport_write(tape->transport, tape->data, tape->data_size);
  put(tape, " tail");
}

static void parts_of_an_answer_are_joined(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = say_parts};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock_say(peer, 'D', "body");
  mock_expect(env->loop, peer, 'D', "head body tail");
  end_tape(&tape, peer);
}

static void say_three(aloop_t *loop, void *arg) {
  (void)loop;
  put(arg, "one");
  put(arg, "two ");
  put(arg, "three");
}

static void a_row_of_writes_leaves_as_two_records(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  aloop_call_soon(env->loop, say_three, &tape);
  mock_expect(env->loop, peer, 'D', "one");
  mock_expect(env->loop, peer, 'D', "two three");
  assert_int_equal(unsent(&tape), 0);
  end_tape(&tape, peer);
}

static void say_three_and_close(aloop_t *loop, void *arg) {
  say_three(loop, arg);
  aloop_transport_close(((tape_t *)arg)->transport);
}

static void a_row_of_writes_is_sent_before_the_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  aloop_call_soon(env->loop, say_three_and_close, &tape);
  mock_expect(env->loop, peer, 'D', "one");
  mock_expect(env->loop, peer, 'D', "two three");
  mock_expect(env->loop, peer, 'E', NULL);
  end_tape(&tape, peer);
}

static void fail_here(tape_t *tape) {
  tape->answer[DATA] = ALOOP_EPERM;
}

static void an_error_of_the_protocol_ends_the_connection(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = fail_here};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock_say(peer, 'D', "x");
  mock_say(peer, 'D', "y");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_EPERM);
  release_tape(&tape, peer);
}

/* ---- Sending --------------------------------------------------------------------------------------------- */

enum { MANY = 3 * 1024 * 1024 };

static unsigned char sent[MANY];
static unsigned char wire[MANY + MANY / 8];
static unsigned char got[MANY];

/* The text of all records; returns its size, and what follows the last of them at *end. */
static size_t unwrap(const unsigned char *from, size_t size, size_t *end) {
  size_t total = 0, at = 0;
  while (at + 3 <= size && from[at] == 'D') {
    size_t n = (size_t)(from[at + 1] << 8 | from[at + 2]);
    if (at + 3 + n > size) break;
    for (size_t i = 0; i < n; i++) got[total + i] = from[at + 3 + i] ^ 0xff;
    total += n;
    at += 3 + n;
  }
  *end = at;
  return total;
}

static void many_bytes_go_through_a_full_buffer(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  size_t size = 0, end, total = 0;
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  pattern(sent, sizeof sent, 1);
  assert_int_equal(aloop_transport_write(tape.transport, sent, sizeof sent), 0);
  assert_string_equal(tape.events, "MP");
  assert_true(unsent(&tape) > 65536);
  for (int i = 0; total < sizeof sent; i++) {
    size += drain(peer, wire + size, sizeof wire - size);
    total = unwrap(wire, size, &end);
    assert_true(i < 100000);
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  settle(env->loop);
  assert_string_equal(tape.events, "MPR");
  assert_int_equal(unsent(&tape), 0);
  assert_memory_equal(got, sent, sizeof sent);
  assert_int_equal(end, size);
  end_tape(&tape, peer);
}

static void all_that_is_unsent_is_counted_in_one_number(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  size_t room = fill(aloop_transport_fd(tape.transport)); /* behind the transport's back */
  assert_true(room > 0);
  put(&tape, "abc");
  assert_int_equal(unsent(&tape), 3 + 3);
  put(&tape, "defg");
  assert_int_equal(unsent(&tape), 6 + 4);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 9, 0), 0);
  assert_string_equal(tape.events, "MP");
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 12), 0);
  assert_int_equal(aloop_transport_write(tape.transport, "hij", 3), ALOOP_ENOBUFS);
  put(&tape, "hi");
  assert_int_equal(drain(peer, wire, room), room);
  mock_expect(env->loop, peer, 'D', "abc");
  mock_expect(env->loop, peer, 'D', "defghi");
  settle(env->loop);
  assert_string_equal(tape.events, "MPR");
  end_tape(&tape, peer);
}

static void many_parts_fill_records(void **state) {
  enum { PARTS = 200, PART = 1000 };
  env_t *env = *state;
  tape_t tape = {.env = env};
  struct iovec parts[PARTS];
  size_t size = 0, end;
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  pattern(sent, PARTS * PART, 3);
  for (int i = 0; i < PARTS; i++) parts[i] = (struct iovec){.iov_base = sent + i * PART, .iov_len = PART};
  assert_int_equal(aloop_transport_writev(tape.transport, parts, PARTS), 0);
  size_t total = 0;
  for (int i = 0; total < PARTS * PART; i++) {
    size += drain(peer, wire + size, sizeof wire - size);
    total = unwrap(wire, size, &end);
    assert_true(i < 100000 && aloop_run_once(env->loop, 0) >= 0);
  }
  assert_memory_equal(got, sent, PARTS * PART);
  assert_true(size < PARTS * PART + 3 * (PARTS * PART / 16384 + 20));
  end_tape(&tape, peer);
}

static void owned_memory_is_released_once(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int released = 0;
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_int_equal(put_owned(&tape, "mine", &released), 0);
  assert_int_equal(released, 1);
  mock_expect(env->loop, peer, 'D', "mine");
  size_t room = fill(aloop_transport_fd(tape.transport));
  put(&tape, "x");
  assert_int_equal(put_owned(&tape, "later", &released), 0);
  assert_int_equal(released, 1);
  assert_int_equal(drain(peer, wire, room), room);
  mock_expect(env->loop, peer, 'D', "x");
  mock_expect(env->loop, peer, 'D', "later");
  assert_int_equal(released, 2);
  end_tape(&tape, peer);
}

static void a_file_is_sent_through_the_fallback(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  char name[] = "/tmp/aloop-tls-XXXXXX";
  size_t size = 0, end, total = 0;
  mock_begin();
  int file = mkstemp(name);
  assert_true(file >= 0);
  unlink(name);
  pattern(sent, sizeof sent, 9);
  assert_int_equal(write(file, sent, sizeof sent), sizeof sent);
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_int_equal(error_of(env, aloop_sendfile(tape.transport, file, 0, 0, ALOOP_NO_FALLBACK), NULL),
                   ALOOP_ENOTSUP);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  for (int i = 0; total < sizeof sent; i++) {
    size += drain(peer, wire + size, sizeof wire - size);
    total = unwrap(wire, size, &end);
    assert_true(i < 100000 && aloop_run_once(env->loop, 0) >= 0);
  }
  assert_int_equal(value_of(env, future), sizeof sent);
  assert_memory_equal(got, sent, sizeof sent);
  close(file);
  end_tape(&tape, peer);
}

static void cancel_sendfile(tape_t *tape) {
  if (tape->arg != NULL) aloop_future_cancel(tape->arg);
}

/* TLS takes each piece of the file whole, which is more than the mark; the second one is the last. */
static void who_is_told_to_pause_may_cancel_a_sendfile(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[PAUSE] = cancel_sendfile};
  char name[] = "/tmp/aloop-tls-XXXXXX";
  int small = 8192;
  mock_begin();
  int file = mkstemp(name);
  assert_true(file >= 0);
  unlink(name);
  assert_int_equal(write(file, sent, sizeof sent), sizeof sent);
  int peer = open_mock_server(&tape, &plain_protocol);
  int fd = aloop_transport_fd(tape.transport);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 8192, 0), 0);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 131072, 0);
  assert_int_equal(tape.calls[PAUSE], 1);
  tape.arg = future;
  for (int i = 0; !aloop_future_done(future); i++) {
    assert_true(i < 100000 && aloop_run_once(env->loop, 0) >= 0);
    drain(peer, wire, sizeof wire);
  }
  assert_int_equal(error_of(env, future, NULL), ALOOP_ECANCELED);
  assert_int_equal(tape.calls[PAUSE], 2);
  close(file);
  end_tape(&tape, peer);
}

static void a_peer_that_takes_no_answers_is_sent_away(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  mock_say(peer, 'U', "");
  mock_expect(env->loop, peer, 'U', "");
  size_t room = fill(aloop_transport_fd(tape.transport));
  for (int i = 0; i < 4000; i++) {
    mock_say(peer, 'U', "");
    settle(env->loop);
  }
  assert_false(tape.lost);
  assert_int_equal(drain(peer, wire, room), room);
  for (int i = 0; i < 4000; i++) mock_expect(env->loop, peer, 'U', "");
  fill(aloop_transport_fd(tape.transport));
  for (int i = 0; !tape.lost; i++) {
    assert_true(i < 10000 && unsent(&tape) < 20000);
    mock_say(peer, 'U', "");
    settle(env->loop);
  }
  assert_int_equal(tape.error, ALOOP_ETLS);
  assert_string_equal(aloop_transport_tls_error(tape.transport),
                      "the peer wants answers and does not take them");
  release_tape(&tape, peer);
}

static void what_waits_is_sent_before_the_end(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  size_t room = fill(aloop_transport_fd(tape.transport));
  put(&tape, "abc");
  put(&tape, "def");
  aloop_transport_close(tape.transport);
  settle(env->loop);
  assert_false(tape.lost);
  assert_int_equal(drain(peer, wire, room), room);
  mock_expect(env->loop, peer, 'D', "abc");
  mock_expect(env->loop, peer, 'D', "def");
  mock_expect(env->loop, peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, peer);
}

static void an_idle_connection_times_out(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_timeouts(tape.transport, ALOOP_MILLIS(20), 0, 0), 0);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  release_tape(&tape, peer);
}

/* ---- Timeouts, on a clock that jumps --------------------------------------------------------------------- */

static void raise_flag(aloop_t *loop, void *arg) {
  (void)loop;
  *(bool *)arg = true;
}

/* Lets so much time pass, or until the connection is lost. */
static void pass(tape_t *tape, int64_t delay) {
  bool there = false;
  aloop_t *loop = tape->env->loop;
  aloop_handle_t handle = aloop_call_later(loop, delay, raise_flag, &there);
  while (!there && !tape->lost) assert_true(aloop_run_once(loop, -1) >= 0);
  aloop_cancel(loop, &handle);
}

static int open_slow(tape_t *tape, env_t *env) {
  const int small = 4096;
  if (!on_poller(env, "virtual")) env_loop(env, (aloop_options_t){.poller = "virtual", .debug = -1});
  *tape = (tape_t){.env = env};
  mock_begin();
  int peer = open_mock_server(tape, &plain_protocol);
  assert_int_equal(setsockopt(aloop_transport_fd(tape->transport), SOL_SOCKET, SO_SNDBUF, &small, sizeof small),
                   0);
  return peer;
}

/* Less than a record each time, but never nothing. */
static void a_slow_reader_is_not_cut_off(void **state) {
  tape_t tape;
  size_t taken = 0;
  int peer = open_slow(&tape, *state);
  assert_int_equal(aloop_transport_set_timeouts(tape.transport, 0, 0, ALOOP_SECONDS(5)), 0);
  assert_int_equal(aloop_transport_write(tape.transport, wire, 200000), 0);
  for (int64_t seconds = 0; unsent(&tape) > 100000; seconds += 4) {
    assert_false(tape.lost);
    assert_true(seconds < 4000);
    pass(&tape, ALOOP_SECONDS(4));
    size_t n = drain(peer, wire, sizeof wire);
    assert_true(n < 16384);
    taken += n;
  }
  assert_true(taken > 60000);
  int64_t last = aloop_time(tape.env->loop);
  pass(&tape, ALOOP_SECONDS(100));
  assert_true(tape.lost);
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  assert_int_equal(aloop_time(tape.env->loop) - last, ALOOP_SECONDS(5));
  release_tape(&tape, peer);
}

static void a_record_may_take_its_time(void **state) {
  tape_t tape;
  char record[16];
  int peer = open_slow(&tape, *state);
  assert_int_equal(aloop_transport_set_timeouts(tape.transport, ALOOP_SECONDS(5), ALOOP_SECONDS(5), 0), 0);
  size_t size = mock_record(record, 'D', "0123456789", 10);
  for (size_t i = 0; i < size; i++) {
    pass(&tape, ALOOP_SECONDS(4));
    assert_int_equal(tape.size, 0);
    assert_int_equal(write(peer, record + i, 1), 1);
  }
  pass(&tape, ALOOP_SECONDS(4));
  assert_int_equal(tape.size, 10);
  int64_t last = aloop_time(tape.env->loop);
  pass(&tape, ALOOP_SECONDS(100));
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  assert_int_equal(aloop_time(tape.env->loop) - last, ALOOP_SECONDS(1));
  release_tape(&tape, peer);
}

static void timeouts_go_on_over_tls(void **state) {
  tape_t tape;
  int peer = open_slow(&tape, *state);
  assert_int_equal(aloop_transport_set_timeouts(tape.transport, ALOOP_SECONDS(5), 0, 0), 0);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_start_tls_options_t options = {.size = sizeof options, .tls = context};
  aloop_transport_t *old = tape.transport;
  aloop_future_t *future = aloop_start_tls(old, NULL, NULL, &options);
  tape.transport = NULL;
  aloop_tls_context_unref(context);
  char hello[16], record[32];
  size_t size = mock_record(hello, 'H', "", 0);
  for (size_t i = 0; i < size; i++) hello[i] = (char)(hello[i] ^ 0xff);
  size = mock_record(record, 'D', hello, size);
  for (size_t i = 0; i < size; i++) { /* of the outer connection, and not yet a hello of the inner one */
    pass(&tape, ALOOP_SECONDS(4));
    assert_int_equal(write(peer, record + i, 1), 1);
  }
  pass(&tape, ALOOP_SECONDS(4));
  assert_false(tape.lost);
  pass(&tape, ALOOP_SECONDS(2));
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  aloop_future_unref(future);
  aloop_transport_unref(old);
  release_tape(&tape, peer);
}

/* ---- TLS over TLS ---------------------------------------------------------------------------------------- */

static void tls_goes_over_tls(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = say_parts};
  mock_begin();
  int peer = open_mock_client(&tape, &plain_protocol);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_CLIENT);
  aloop_start_tls_options_t options = {.size = sizeof options, .tls = context, .server_hostname = "inner.test"};
  aloop_transport_t *outer = tape.transport;
  aloop_future_t *future = aloop_start_tls(outer, NULL, NULL, &options);
  aloop_tls_context_unref(context);
  char inner[64];
  size_t size = mock_record(inner, 'H', "inner.test", 10);
  inner[size] = '\0';
  char text[64] = "";
  memcpy(text, inner, size);
  mock_expect(env->loop, peer, 'D', NULL);
  /* The records of the inner handshake are texts of the outer one. */
  char record[128], turned[64];
  size = mock_record(turned, 'S', "", 0);
  for (size_t i = 0; i < size; i++) turned[i] = (char)(turned[i] ^ 0xff);
  size = mock_record(record, 'D', turned, size);
  assert_int_equal(write(peer, record, size), size);
  assert_int_equal(run_future(env->loop, future), 0);
  tape.transport = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &tape.transport), 0);
  aloop_future_unref(future);
  assert_ptr_not_equal(tape.transport, outer);
  mock_expect(env->loop, peer, 'D', NULL); /* F */
  put(&tape, "deep");
  unsigned char whole[64];
  size = 0;
  while (size < 3 + 3 + 4) {
    size += drain(peer, whole + size, sizeof whole - size);
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  assert_int_equal(whole[0], 'D');
  assert_int_equal(whole[3] ^ 0xff, 'D');
  assert_int_equal(whole[6], 'd'); /* turned twice */
  size = mock_record(turned, 'D', "\x87", 1);
  for (size_t i = 0; i < size; i++) turned[i] = (char)(turned[i] ^ 0xff);
  size = mock_record(record, 'D', turned, size);
  assert_int_equal(write(peer, record, size), size);
  settle(env->loop);
  assert_int_equal(tape.size, 1);
  assert_int_equal(tape.bytes[0], 'x');
  aloop_transport_unref(outer);
  aloop_transport_close(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, peer);
}

TESTS(T(a_fatal_stop_ends_the_deliveries), T(bytes_may_come_in_pieces_of_any_size),
      T(a_buffered_protocol_gets_them_in_its_own_memory), T(several_records_are_one_delivery),
      T(a_pause_holds_back_what_has_come_and_the_end), T(a_pause_in_the_middle_keeps_the_rest),
      T(a_pause_holds_back_what_came_before_the_peer_left), T(pausing_inside_connection_made_is_honoured),
      T(an_answer_leaves_as_one_record), T(parts_of_an_answer_are_joined),
      T(a_row_of_writes_leaves_as_two_records), T(a_row_of_writes_is_sent_before_the_end),
      T(an_error_of_the_protocol_ends_the_connection), T(many_bytes_go_through_a_full_buffer),
      T(all_that_is_unsent_is_counted_in_one_number), T(many_parts_fill_records),
      T(owned_memory_is_released_once), T(a_file_is_sent_through_the_fallback),
      T(who_is_told_to_pause_may_cancel_a_sendfile), T(a_peer_that_takes_no_answers_is_sent_away),
      T(what_waits_is_sent_before_the_end), T(an_idle_connection_times_out), T(a_slow_reader_is_not_cut_off),
      T(a_record_may_take_its_time), T(timeouts_go_on_over_tls), T(tls_goes_over_tls))
