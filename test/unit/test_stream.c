/* SPDX-License-Identifier: MIT
 *
 * The life of a stream transport, and what arrives: connection_made once, connection_lost once, whatever
 * happens between, and nothing of one connection ever in another. Writing is in test_write.c. pollers: all,
 * lacks: all
 */
#include "streams.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/driver.h"
#include "net/stream.h"

static void close_transport(tape_t *tape) {
  aloop_transport_close(tape->transport);
}

static void abort_transport(tape_t *tape) {
  aloop_transport_abort(tape->transport);
}

static void reset_transport(tape_t *tape) {
  aloop_transport_abort_reset(tape->transport);
}

static void fail_transport(tape_t *tape) {
  aloop_transport_abort_error(tape->transport, ALOOP_EIO);
}

static void pause_transport(tape_t *tape) {
  assert_int_equal(aloop_transport_pause_reading(tape->transport), 0);
}

/* ---- Life ----------------------------------------------------------------------------------------------- */

static void made_comes_in_the_next_turn(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  make_socketpair(fds);
  attach_tape(&tape, &plain_protocol, fds[0]);
  assert_int_equal(tape.events_count, 0);
  assert_false(aloop_transport_is_closing(tape.transport));
  assert_false(aloop_transport_is_reading(tape.transport));
  aloop_run_once(env->loop, 0);
  assert_string_equal(tape.events, "M");
  assert_true(aloop_transport_is_reading(tape.transport));
  assert_ptr_equal(aloop_transport_loop(tape.transport), env->loop);
  end_tape(&tape, fds[1]);
}

static void bytes_arrive_in_order(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "one ");
  aloop_run_once(env->loop, 0);
  say(peer, "two ");
  say(peer, "three");
  settle(env->loop);
  assert_int_equal(tape.size, 13);
  assert_memory_equal(tape.bytes, "one two three", 13);
  end_tape(&tape, peer);
  assert_string_equal(tape.events, "MDL");
  assert_int_equal(tape.error, 0);
}

static void close_is_told_once_and_never_inside_the_call(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_close(tape.transport);
  aloop_transport_close(tape.transport);
  assert_true(aloop_transport_is_closing(tape.transport));
  assert_string_equal(tape.events, "M");
  aloop_run_once(env->loop, 0);
  assert_string_equal(tape.events, "ML");
  assert_int_equal(tape.error, 0);
  aloop_transport_close(tape.transport);
  settle(env->loop);
  assert_true(at_eof(peer));
  end_tape(&tape, peer);
}

static void abort_is_told_once_and_never_inside_the_call(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_abort(tape.transport);
  aloop_transport_abort_error(tape.transport, ALOOP_EIO);
  assert_true(aloop_transport_is_closing(tape.transport));
  assert_string_equal(tape.events, "M");
  aloop_run_once(env->loop, 0);
  assert_string_equal(tape.events, "ML");
  assert_int_equal(tape.error, 0);
  end_tape(&tape, peer);
}

static void a_closed_connection_delivers_no_more(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "late");
  aloop_transport_close(tape.transport);
  end_tape(&tape, peer);
  assert_string_equal(tape.events, "ML");
}

static void an_end_before_the_beginning_is_told_after_it(void **state) {
  env_t *env = *state;
  void (*const ends[])(tape_t *) = {close_transport, abort_transport, reset_transport, fail_transport};
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
    tape_t tape = {.env = env};
    int fds[2];
    make_socketpair(fds);
    attach_tape(&tape, &plain_protocol, fds[0]);
    ends[i](&tape);
    assert_int_equal(tape.events_count, 0);
    settle(env->loop);
    assert_string_equal(tape.events, "ML");
    end_tape(&tape, fds[1]);
  }
}

/* A connection on which every callback is due: data, pause, resume, EOF, loss. */
static void live_fully(tape_t *tape, const aloop_protocol_t *table) {
  aloop_t *loop = tape->env->loop;
  tape->answer[AT_EOF] = 1;
  int fds[2];
  make_socketpair(fds);
  attach_tape(tape, table, fds[0]);
  say(fds[1], "hello");
  settle(loop);
  size_t size = 1024 * 1024;
  char *much = calloc(1, size);
  int rc = aloop_transport_write(tape->transport, much, size);
  assert_true(rc == 0 || (rc == ALOOP_ECLOSED && aloop_transport_is_closing(tape->transport)));
  collect(loop, tape, fds[1], much, size);
  free(much);
  shutdown(fds[1], SHUT_WR);
  settle(loop);
  end_tape(tape, fds[1]);
}

static void every_callback_has_its_place(void **state) {
  env_t *env = *state;
  tape_t plain = {.env = env};
  live_fully(&plain, &plain_protocol);
  assert_string_equal(plain.events, "MDPREL");
  tape_t buffered = {.env = env};
  live_fully(&buffered, &buffered_protocol);
  assert_string_equal(buffered.events, "MDPREL");
}

static void end_inside_every_callback(env_t *env, void (*end)(tape_t *), int error) {
  for (int which = 0; which < CALLBACKS; which++) {
    tape_t tape = {.env = env};
    tape.on[which] = end;
    live_fully(&tape, which == BUFFER || which == UPDATED ? &buffered_protocol : &plain_protocol);
    assert_true(tape.calls[which] == 1);
    assert_int_equal(tape.error, which == LOST ? 0 : error);
  }
}

static void close_works_inside_every_callback(void **state) {
  end_inside_every_callback(*state, close_transport, 0);
}

static void abort_works_inside_every_callback(void **state) {
  end_inside_every_callback(*state, abort_transport, 0);
}

static void abort_reset_works_inside_every_callback(void **state) {
  end_inside_every_callback(*state, reset_transport, 0);
}

static void abort_error_works_inside_every_callback(void **state) {
  end_inside_every_callback(*state, fail_transport, ALOOP_EIO);
}

static void unref_transport_of(tape_t *tape) {
  aloop_transport_unref(tape->transport);
  tape->transport = NULL;
}

static void the_last_reference_may_go_inside_connection_lost(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  tape.on[LOST] = unref_transport_of;
  aloop_transport_abort(tape.transport);
  run_until(env->loop, &tape.lost);
  settle(env->loop);
  release_tape(&tape, peer);
}

static void abort_reset_resets_the_peer(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  aloop_transport_abort_reset(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  char byte;
  ssize_t n = -1;
  for (int i = 0; i < 1000000 && (n = read(peer, &byte, 1)) < 0 && errno == EAGAIN; i++) continue;
  assert_int_equal(n, -1);
  assert_int_equal(errno, ECONNRESET);
  end_tape(&tape, peer);
}

static void abort_error_takes_only_errors(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_abort_error(tape.transport, 5);
  end_tape(&tape, peer);
  assert_int_equal(tape.error, 0);
}

static void a_reset_by_the_peer_is_reported(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(peer);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ECONNRESET);
  end_tape(&tape, -1);
}

/* ---- EOF and pausing ------------------------------------------------------------------------------------ */

static void eof_closes_the_connection(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "last");
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_string_equal(tape.events, "MDEL");
  assert_int_equal(tape.error, 0);
  end_tape(&tape, peer);
}

static void eof_closes_without_a_callback_too(void **state) {
  env_t *env = *state;
  aloop_protocol_t silent = plain_protocol;
  silent.eof_received = NULL;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &silent);
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_string_equal(tape.events, "ML");
  end_tape(&tape, peer);
}

static void eof_can_keep_the_connection_for_writing(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .answer[AT_EOF] = 1};
  int peer = open_tape(&tape, &plain_protocol);
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_string_equal(tape.events, "ME");
  assert_false(aloop_transport_is_closing(tape.transport));
  assert_false(aloop_transport_is_reading(tape.transport));
  assert_int_equal(aloop_transport_write(tape.transport, "answer", 6), 0);
  char text[8];
  assert_int_equal(collect(env->loop, &tape, peer, text, 6), 6);
  aloop_transport_close(tape.transport);
  settle(env->loop);
  assert_true(at_eof(peer));
  end_tape(&tape, peer);
}

static void eof_is_told_once_though_reading_is_resumed(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .answer[AT_EOF] = 1};
  int peer = open_tape(&tape, &plain_protocol);
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_int_equal(aloop_transport_pause_reading(tape.transport), 0);
  assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
  assert_false(aloop_transport_is_reading(tape.transport));
  settle(env->loop);
  assert_string_equal(tape.events, "ME");
  end_tape(&tape, peer);
}

static void eof_waits_while_reading_is_paused(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_pause_reading(tape.transport);
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_string_equal(tape.events, "M");
  aloop_transport_resume_reading(tape.transport);
  settle(env->loop);
  assert_string_equal(tape.events, "MEL");
  end_tape(&tape, peer);
}

static void pausing_inside_connection_made_holds(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[MADE] = pause_transport};
  int peer = open_tape(&tape, &plain_protocol);
  assert_false(aloop_transport_is_reading(tape.transport));
  say(peer, "wait");
  settle(env->loop);
  assert_string_equal(tape.events, "M");
  assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
  settle(env->loop);
  assert_string_equal(tape.events, "MD");
  end_tape(&tape, peer);
}

static void pausing_and_resuming_twice_is_once(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_transport_pause_reading(tape.transport), 0);
    assert_false(aloop_transport_is_reading(tape.transport));
  }
  say(peer, "x");
  settle(env->loop);
  assert_int_equal(tape.size, 0);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
    assert_true(aloop_transport_is_reading(tape.transport));
  }
  settle(env->loop);
  assert_int_equal(tape.size, 1);
  end_tape(&tape, peer);
}

static void pausing_inside_data_received_holds_back_the_rest(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[UPDATED] = pause_transport, .offer = 4};
  int peer = open_tape(&tape, &buffered_protocol);
  say(peer, "abcdefgh");
  settle(env->loop);
  assert_int_equal(tape.size, 4);
  aloop_transport_resume_reading(tape.transport);
  settle(env->loop);
  assert_int_equal(tape.size, 8);
  assert_memory_equal(tape.bytes, "abcdefgh", 8);
  end_tape(&tape, peer);
}

static void pausing_inside_get_buffer_holds(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[BUFFER] = pause_transport};
  int peer = open_tape(&tape, &buffered_protocol);
  say(peer, "wait");
  settle(env->loop);
  assert_int_equal(tape.size, 0);
  tape.on[BUFFER] = NULL;
  aloop_transport_resume_reading(tape.transport);
  settle(env->loop);
  assert_memory_equal(tape.bytes, "wait", 4);
  end_tape(&tape, peer);
}

static void a_connection_that_closes_slowly_reads_no_more(void **state) {
  static char bytes[4 << 20]; /* more than a socket takes */
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_write(tape.transport, bytes, sizeof bytes), 0);
  assert_true(aloop_transport_get_write_buffer_size(tape.transport) > 0);
  aloop_transport_close(tape.transport);
  settle(env->loop);
  say(peer, "unread");
  assert_int_equal(aloop_run_once(env->loop, 0), 0); /* nobody is called: the loop would sleep */
  aloop_transport_abort(tape.transport);
  end_tape(&tape, peer);
  assert_null(strchr(tape.events, 'D'));
}

static void resuming_a_closing_connection_does_nothing(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_pause_reading(tape.transport);
  say(peer, "unread");
  aloop_transport_close(tape.transport);
  assert_int_equal(aloop_transport_resume_reading(tape.transport), 0);
  assert_false(aloop_transport_is_reading(tape.transport));
  end_tape(&tape, peer);
  assert_string_equal(tape.events, "ML");
}

/* ---- Errors of callbacks -------------------------------------------------------------------------------- */

static void an_error_of_a_callback_ends_the_connection(void **state) {
  env_t *env = *state;
  const int failing[] = {DATA, BUFFER, UPDATED, AT_EOF};
  for (size_t i = 0; i < sizeof failing / sizeof failing[0]; i++) {
    int which = failing[i];
    tape_t tape = {.env = env};
    tape.answer[which] = ALOOP_EMSGSIZE;
    bool buffered = which == BUFFER || which == UPDATED;
    int peer = open_tape(&tape, buffered ? &buffered_protocol : &plain_protocol);
    say(peer, "x");
    shutdown(peer, SHUT_WR);
    run_until(env->loop, &tape.lost);
    assert_int_equal(tape.error, ALOOP_EMSGSIZE);
    assert_int_equal(tape.calls[which], 1);
    end_tape(&tape, peer);
  }
}

static void an_end_inside_a_failing_callback_comes_first(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .answer[DATA] = ALOOP_EMSGSIZE, .on[DATA] = fail_transport};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "x");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_EIO);
  end_tape(&tape, peer);
}

static void a_buffer_without_room_is_an_error(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .offer_nothing = true};
  int peer = open_tape(&tape, &buffered_protocol);
  say(peer, "x");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ENOBUFS);
  end_tape(&tape, peer);
}

/* ---- Protocols ------------------------------------------------------------------------------------------ */

static void a_buffered_protocol_reads_into_its_memory(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .offer = 7};
  int peer = open_tape(&tape, &buffered_protocol);
  char sent[1000];
  pattern(sent, sizeof sent, 1);
  assert_int_equal(write(peer, sent, sizeof sent), sizeof sent);
  settle(env->loop);
  assert_int_equal(tape.size, sizeof sent);
  assert_memory_equal(tape.bytes, sent, sizeof sent);
  shutdown(peer, SHUT_WR);
  settle(env->loop);
  assert_string_equal(tape.events, "MDEL");
  end_tape(&tape, peer);
}

/* Turns the table over at each call. */
static void switch_protocol(tape_t *tape) {
  const aloop_protocol_t *table;
  assert_ptr_equal(aloop_transport_get_protocol(tape->transport, &table), tape);
  table = table == &plain_protocol ? &buffered_protocol : &plain_protocol;
  assert_int_equal(aloop_transport_set_protocol(tape->transport, table, tape), 0);
}

static void protocols_switch_inside_callbacks(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .offer = 5};
  tape.on[DATA] = tape.on[UPDATED] = switch_protocol;
  int peer = open_tape(&tape, &plain_protocol);
  for (int i = 0; i < 10; i++) {
    say(peer, "0123456789");
    settle(env->loop);
    assert_int_equal(tape.size, (size_t)(i + 1) * 10);
    assert_memory_equal(tape.bytes + i * 10, "0123456789", 10);
  }
  assert_true(tape.calls[DATA] > 1 && tape.calls[UPDATED] > 1);
  end_tape(&tape, peer);
}

static void a_switch_inside_get_buffer_loses_no_byte(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[BUFFER] = switch_protocol};
  int peer = open_tape(&tape, &buffered_protocol);
  say(peer, "for the new one");
  settle(env->loop);
  assert_int_equal(tape.calls[BUFFER], 1);
  assert_int_equal(tape.calls[UPDATED], 0);
  assert_int_equal(tape.calls[DATA], 1);
  assert_memory_equal(tape.bytes, "for the new one", 15);
  end_tape(&tape, peer);
}

static void hand_over(tape_t *tape) {
  assert_int_equal(aloop_transport_set_protocol(tape->transport, &buffered_protocol, tape->arg), 0);
}

static void a_buffer_of_the_old_protocol_is_not_used(void **state) {
  env_t *env = *state;
  tape_t new = {.env = env};
  tape_t old = {.env = env, .on[BUFFER] = hand_over, .arg = &new};
  int peer = open_tape(&old, &buffered_protocol);
  new.transport = aloop_transport_ref(old.transport);
  say(peer, "for the new one");
  settle(env->loop);
  assert_int_equal(old.calls[UPDATED], 0);
  assert_int_equal(new.size, 15);
  assert_memory_equal(new.bytes, "for the new one", 15);
  assert_int_equal(aloop_transport_set_protocol(old.transport, &buffered_protocol, &old), 0);
  aloop_transport_unref(new.transport);
  free(new.bytes);
  end_tape(&old, peer);
}

static void a_new_protocol_gets_the_end(void **state) {
  env_t *env = *state;
  tape_t old = {.env = env};
  tape_t new = {.env = env};
  int peer = open_tape(&old, &plain_protocol);
  new.transport = aloop_transport_ref(old.transport);
  assert_int_equal(aloop_transport_set_protocol(old.transport, &plain_protocol, &new), 0);
  assert_ptr_equal(aloop_transport_get_protocol(old.transport, NULL), &new);
  say(peer, "x");
  aloop_transport_pause_reading(old.transport);
  aloop_transport_resume_reading(old.transport);
  settle(env->loop);
  aloop_transport_abort(old.transport);
  run_until(env->loop, &new.lost);
  assert_string_equal(old.events, "M");
  assert_string_equal(new.events, "DL");
  free(new.bytes);
  aloop_transport_unref(new.transport);
  aloop_transport_unref(old.transport);
  close(peer);
}

static void a_table_without_size_is_refused(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  const aloop_protocol_t empty = {0};
  assert_int_equal(aloop_transport_set_protocol(tape.transport, &empty, &tape), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_protocol(tape.transport, NULL, &tape), ALOOP_EINVAL);
  const aloop_protocol_t *table;
  assert_ptr_equal(aloop_transport_get_protocol(tape.transport, &table), &tape);
  assert_ptr_equal(table, &plain_protocol);
  end_tape(&tape, peer);
}

static void an_empty_table_reads_and_closes(void **state) {
  env_t *env = *state;
  static const aloop_protocol_t empty = {.size = sizeof empty};
  int fds[2];
  make_socketpair(fds);
  aloop_transport_t *transport = aloop__stream_new(env->loop, NULL, fds[0], &empty, NULL, NULL, NULL, NULL);
  aloop_transport_ref(transport);
  say(fds[1], "nobody listens");
  settle(env->loop);
  assert_false(aloop_transport_is_closing(transport));
  close(fds[1]);
  settle(env->loop);
  assert_int_equal(aloop_transport_fd(transport), ALOOP_ECLOSED);
  aloop_transport_unref(transport);
}

/* ---- The making ----------------------------------------------------------------------------------------- */

static void *create_nothing(void *arg) {
  ++*(int *)arg;
  return NULL;
}

static void a_factory_that_fails_refuses_the_connection(void **state) {
  env_t *env = *state;
  aloop_protocol_t table = plain_protocol;
  table.create = create_nothing;
  int calls = 0;
  int fds[2];
  make_socketpair(fds);
  aloop_future_t *waiter = aloop_future_new(env->loop);
  assert_non_null(
      aloop__stream_new(env->loop, NULL, fds[0], &table, &calls, NULL, aloop_future_ref(waiter), ALOOP_HERE));
  assert_int_equal(run_future(env->loop, waiter), ALOOP_ENOMEM);
  assert_int_equal(calls, 1);
  aloop_future_unref(waiter);
  close(fds[1]);
}

static void *create_self(void *arg) {
  return arg;
}

static void the_waiter_learns_after_connection_made(void **state) {
  env_t *env = *state;
  aloop_protocol_t table = plain_protocol;
  table.create = create_self;
  tape_t tape = {.env = env};
  int fds[2];
  make_socketpair(fds);
  aloop_future_t *waiter = aloop_future_new(env->loop);
  assert_non_null(
      aloop__stream_new(env->loop, NULL, fds[0], &table, &tape, NULL, aloop_future_ref(waiter), ALOOP_HERE));
  assert_int_equal(run_future(env->loop, waiter), 0);
  assert_string_equal(tape.events, "M");
  aloop_transport_t *taken;
  assert_int_equal(aloop_future_take_ptr(waiter, &taken), 0);
  assert_ptr_equal(taken, tape.transport);
  aloop_future_unref(waiter);
  aloop_transport_unref(taken);
  end_tape(&tape, fds[1]);
}

static void a_cancelled_connection_is_dropped_unseen(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  make_socketpair(fds);
  aloop_future_t *waiter = aloop_future_new(env->loop);
  assert_non_null(aloop__stream_new(env->loop, NULL, fds[0], &plain_protocol, &tape, NULL,
                                    aloop_future_ref(waiter), ALOOP_HERE));
  assert_int_equal(aloop_future_cancel(waiter), 1);
  settle(env->loop);
  assert_int_equal(tape.events_count, 0);
  aloop_future_unref(waiter);
  close(fds[1]);
}

static void closing_the_loop_first_fails_the_waiter(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2];
  make_socketpair(fds);
  aloop_future_t *waiter = aloop_future_new(env->loop);
  assert_non_null(aloop__stream_new(env->loop, NULL, fds[0], &plain_protocol, &tape, NULL,
                                    aloop_future_ref(waiter), ALOOP_HERE));
  aloop_close(env->loop);
  assert_true(aloop_future_done(waiter));
  assert_true(aloop_future_result(waiter) < 0);
  assert_int_equal(tape.events_count, 0);
  aloop_future_unref(waiter);
  close(fds[1]);
}

static void the_descriptor_belongs_to_the_transport(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  int fd = aloop_transport_fd(tape.transport);
  assert_int_equal(aloop_add_reader(env->loop, fd, (aloop_callback_fn)abort, NULL), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(env->loop, fd), ALOOP_EBUSY);
  assert_null(aloop__stream_new(env->loop, NULL, fd, &plain_protocol, &tape, NULL, NULL, ALOOP_HERE));
  end_tape(&tape, peer);
}

/* With what the allocator and the table of watches take for each, an idle connection costs 160 bytes. */
static void a_connection_is_small(void **state) {
  (void)state;
  if (sizeof(void *) == 8) assert_true(sizeof(aloop_transport_t) <= 136);
}

static void a_connection_that_is_lost_leaves_its_block_to_the_next(void **state) {
  env_t *env = *state;
  long calls = 0;
  for (int i = 0; i < 4; i++) {
    tape_t tape = {.env = env};
    if (i == 2) calls = env->calls; /* what a loop makes once is there by now */
    end_tape(&tape, open_tape(&tape, &plain_protocol));
  }
  assert_int_equal(env->calls, calls);
}

static void many_connections_leave_but_some_of_their_blocks(void **state) {
  enum { MANY = 200, SOME = 100 };
  env_t *env = *state;
  static tape_t tapes[MANY];
  int peers[MANY];
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env};
    peers[i] = open_tape(&tapes[i], &plain_protocol);
  }
  long live = env->live;
  for (int i = 0; i < MANY; i++) end_tape(&tapes[i], peers[i]);
  assert_true(env->live <= live - SOME);
}

TESTS(T(made_comes_in_the_next_turn), T(bytes_arrive_in_order), T(close_is_told_once_and_never_inside_the_call),
      T(abort_is_told_once_and_never_inside_the_call), T(a_closed_connection_delivers_no_more),
      T(an_end_before_the_beginning_is_told_after_it), T(every_callback_has_its_place),
      T(close_works_inside_every_callback), T(abort_works_inside_every_callback),
      T(abort_reset_works_inside_every_callback), T(abort_error_works_inside_every_callback),
      T(the_last_reference_may_go_inside_connection_lost), T(abort_reset_resets_the_peer),
      T(abort_error_takes_only_errors), T(a_reset_by_the_peer_is_reported), T(eof_closes_the_connection),
      T(eof_closes_without_a_callback_too), T(eof_can_keep_the_connection_for_writing),
      T(eof_is_told_once_though_reading_is_resumed), T(eof_waits_while_reading_is_paused),
      T(pausing_inside_connection_made_holds), T(pausing_and_resuming_twice_is_once),
      T(pausing_inside_data_received_holds_back_the_rest), T(pausing_inside_get_buffer_holds),
      T(a_connection_that_closes_slowly_reads_no_more), T(resuming_a_closing_connection_does_nothing),
      T(an_error_of_a_callback_ends_the_connection), T(an_end_inside_a_failing_callback_comes_first),
      T(a_buffer_without_room_is_an_error), T(a_buffered_protocol_reads_into_its_memory),
      T(protocols_switch_inside_callbacks), T(a_switch_inside_get_buffer_loses_no_byte),
      T(a_buffer_of_the_old_protocol_is_not_used), T(a_new_protocol_gets_the_end),
      T(a_table_without_size_is_refused), T(an_empty_table_reads_and_closes),
      T(a_factory_that_fails_refuses_the_connection), T(the_waiter_learns_after_connection_made),
      T(a_cancelled_connection_is_dropped_unseen), T(closing_the_loop_first_fails_the_waiter),
      T(the_descriptor_belongs_to_the_transport), T(a_connection_is_small),
      T(a_connection_that_is_lost_leaves_its_block_to_the_next),
      T(many_connections_leave_but_some_of_their_blocks))
