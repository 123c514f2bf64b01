/* SPDX-License-Identifier: MIT
 *
 * Stream transports and their loop: descriptors that are used again, references that last longer, a loop
 * that closes, the context of callbacks, fairness, hosts, and memory that runs out. pollers: all
 */
#include "streams.h"

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

/* ---- Reuse and lifetime --------------------------------------------------------------------------------- */

enum { SEATS = 12, ROUNDS = 400 };

typedef struct seat {
  tape_t tape;
  int peer;
  char mark;
} seat_t;

static void check_marks(seat_t *seat) {
  for (size_t i = 0; i < seat->tape.size; i++) assert_int_equal(seat->tape.bytes[i], seat->mark);
  seat->tape.size = 0;
}

static void say_marks(seat_t *seat, unsigned random) {
  char bytes[64];
  memset(bytes, seat->mark, sizeof bytes);
  ssize_t n = write(seat->peer, bytes, 1 + random % sizeof bytes);
  (void)n;
}

/* Descriptors come and go in every turn, so that their numbers are used again at once. */
static void descriptors_are_reused_without_mixing_bytes(void **state) {
  env_t *env = *state;
  static seat_t seats[SEATS];
  unsigned random = 1;
  memset(seats, 0, sizeof seats);
  void (*const ends[])(tape_t *) = {close_transport, abort_transport, reset_transport, fail_transport};
  for (int round = 0; round < ROUNDS; round++) {
    seat_t *seat = &seats[random % SEATS];
    random = random * 1103515245u + 12345u;
    if (seat->tape.transport == NULL) {
      int fds[2];
      make_socketpair(fds);
      seat->tape = (tape_t){.env = env};
      seat->mark = (char)('a' + round % 26);
      seat->peer = fds[1];
      attach_tape(&seat->tape, round % 3 == 0 ? &buffered_protocol : &plain_protocol, fds[0]);
      say_marks(seat, random >> 16);
    } else if (random >> 16 & 1) {
      say_marks(seat, random >> 18);
      ends[random >> 20 & 3](&seat->tape);
    } else {
      say_marks(seat, random >> 18);
    }
    for (int i = 0; i < SEATS; i++)
      if (seats[i].tape.transport != NULL) say_marks(&seats[i], random >> 17);
    aloop_run_once(env->loop, 0);
    for (int i = 0; i < SEATS; i++) {
      check_marks(&seats[i]);
      if (seats[i].tape.lost && seats[i].tape.transport != NULL) release_tape(&seats[i].tape, seats[i].peer);
    }
  }
  for (int i = 0; i < SEATS; i++)
    if (seats[i].tape.transport != NULL) end_tape(&seats[i].tape, seats[i].peer);
}

/* Every call on a transport that is lost. */
static void call_everything(aloop_transport_t *transport) {
  struct iovec part = {.iov_base = "x", .iov_len = 1};
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  size_t high;
  size_t low;
  assert_int_equal(aloop_transport_write(transport, "x", 1), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_write(transport, NULL, 0), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_writev(transport, &part, 1), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_write_owned(transport, "x", 1, NULL, NULL), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_write_eof(transport), 0);
  assert_true(aloop_transport_can_write_eof(transport));
  aloop_transport_close(transport);
  aloop_transport_abort(transport);
  aloop_transport_abort_reset(transport);
  aloop_transport_abort_error(transport, ALOOP_EIO);
  assert_true(aloop_transport_is_closing(transport));
  assert_int_equal(aloop_transport_pause_reading(transport), 0);
  assert_int_equal(aloop_transport_resume_reading(transport), 0);
  assert_false(aloop_transport_is_reading(transport));
  assert_int_equal(aloop_transport_set_write_buffer_limits(transport, 10, 5), 0);
  assert_int_equal(aloop_transport_get_write_buffer_limits(transport, &high, &low), 0);
  assert_int_equal(aloop_transport_set_write_buffer_cap(transport, 10), 0);
  assert_int_equal(aloop_transport_get_write_buffer_size(transport), 0);
  assert_int_equal(aloop_transport_set_protocol(transport, &plain_protocol, NULL), 0);
  assert_null(aloop_transport_get_protocol(transport, NULL));
  assert_int_equal(aloop_transport_set_timeouts(transport, 1, 1, 1), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_fd(transport), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_sockname(transport, (struct sockaddr *)&address, &size), ALOOP_ECLOSED);
  assert_null(aloop_transport_server(transport));
  aloop_future_t *future = aloop_sendfile(transport, 0, 0, 0, 0);
  assert_non_null(future);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
}

static void a_lost_transport_answers_every_call(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_t *transport = aloop_transport_ref(tape.transport);
  end_tape(&tape, peer);
  call_everything(transport);
  aloop_run_once(env->loop, 0);
  aloop_transport_unref(transport);
}

static void a_transport_outlives_its_loop(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_t *transport = aloop_transport_ref(tape.transport);
  aloop_close(env->loop);
  call_everything(transport);
  aloop_free(env->loop);
  env->loop = NULL;
  call_everything(transport);
  release_tape(&tape, peer);
  aloop_transport_unref(transport);
}

static void null_is_no_transport(void **state) {
  (void)state;
  aloop_transport_unref(NULL);
  assert_null(aloop_transport_ref(NULL));
  aloop_transport_close(NULL);
  aloop_transport_abort(NULL);
  aloop_transport_abort_reset(NULL);
  aloop_transport_abort_error(NULL, -1);
  assert_true(aloop_transport_is_closing(NULL));
  assert_false(aloop_transport_is_reading(NULL));
  assert_int_equal(aloop_transport_pause_reading(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_resume_reading(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_write(NULL, "x", 1), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_write_eof(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_protocol(NULL, &plain_protocol, NULL), ALOOP_EINVAL);
  assert_null(aloop_transport_get_protocol(NULL, NULL));
  assert_null(aloop_transport_loop(NULL));
}

/* ---- The loop closes ------------------------------------------------------------------------------------ */

static void closing_the_loop_ends_open_connections(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  say(peer, "unread");
  assert_int_equal(aloop_transport_write(tape.transport, "x", 1), 0);
  env->reports = 0;
  aloop_close(env->loop);
  assert_string_equal(tape.events, "ML");
  assert_int_equal(tape.error, ALOOP_ECLOSED);
  assert_int_equal(env->reports, 1);
  assert_non_null(strstr(env->report_messages[0], "transport"));
  assert_non_null(strstr(env->report_origins[0], "streams.c:"));
  release_tape(&tape, peer);
}

static void closing_the_loop_calls_a_queued_end_once(void **state) {
  env_t *env = *state;
  aloop_set_debug(env->loop, true);
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_abort_error(tape.transport, ALOOP_EIO);
  aloop_close(env->loop);
  assert_string_equal(tape.events, "ML");
  assert_int_equal(tape.error, ALOOP_EIO);
  assert_int_equal(env->reports, 0);
  release_tape(&tape, peer);
}

typedef struct neighbours {
  aloop_transport_t *transports[3];
  int count;
} neighbours_t;

static void write_to_neighbours(tape_t *tape) {
  neighbours_t *neighbours = tape->arg;
  for (int i = 0; i < neighbours->count; i++) {
    int rc = aloop_transport_write(neighbours->transports[i], "bye", 3);
    assert_true(rc == 0 || rc == ALOOP_ECLOSED);
    aloop_transport_close(neighbours->transports[i]);
  }
}

static void connections_may_touch_each_other_while_the_loop_closes(void **state) {
  env_t *env = *state;
  tape_t tapes[3];
  int peers[3];
  neighbours_t neighbours = {.count = 3};
  for (int i = 0; i < 3; i++) {
    tapes[i] = (tape_t){.env = env, .on[LOST] = write_to_neighbours, .arg = &neighbours};
    peers[i] = open_tape(&tapes[i], &plain_protocol);
    neighbours.transports[i] = tapes[i].transport;
  }
  aloop_close(env->loop);
  for (int i = 0; i < 3; i++) release_tape(&tapes[i], peers[i]);
}

/* ---- Context, fairness, hosts --------------------------------------------------------------------------- */

typedef struct contexts {
  aloop_var_t *var;
  int seen;
} contexts_t;

static void look_at_context(tape_t *tape) {
  contexts_t *contexts = tape->arg;
  assert_string_equal(aloop_var_get(tape->env->loop, contexts->var, "nothing"), "ours");
  contexts->seen++;
}

static void make_in_context(aloop_t *loop, void *arg) {
  tape_t *tape = arg;
  contexts_t *contexts = tape->arg;
  assert_int_equal(aloop_var_set(loop, contexts->var, "ours", NULL, NULL), 0);
  int fds[2];
  make_socketpair(fds);
  attach_tape(tape, &plain_protocol, fds[0]);
  say(fds[1], "x");
  shutdown(fds[1], SHUT_WR);
  tape->answer[AT_EOF] = 1;
  tape->size = (size_t)fds[1]; /* handed over; data_received resets it */
}

static void callbacks_see_the_context_of_creation(void **state) {
  env_t *env = *state;
  for (int end = 0; end < 2; end++) {
    contexts_t contexts = {0};
    assert_int_equal(aloop_var_new("whose", &contexts.var), 0);
    tape_t tape = {.env = env, .arg = &contexts};
    tape.on[MADE] = tape.on[DATA] = tape.on[AT_EOF] = tape.on[LOST] = look_at_context;
    aloop_call_soon(env->loop, make_in_context, &tape);
    aloop_run_once(env->loop, 0);
    int peer = (int)tape.size;
    tape.size = 0;
    settle(env->loop);
    if (end == 0) {
      aloop_transport_abort(tape.transport);
      settle(env->loop);
    } else {
      aloop_close(env->loop);
    }
    assert_string_equal(tape.events, "MDEL");
    assert_int_equal(contexts.seen, 4);
    assert_string_equal(aloop_var_get(env->loop, contexts.var, "nothing"), "nothing");
    release_tape(&tape, peer);
    aloop_var_unref(contexts.var);
  }
}

static void refill(tape_t *tape) {
  fill(*(int *)tape->arg);
}

static size_t read_in_one_turn(env_t *env, const aloop_protocol_t *table, size_t offer, long *calls) {
  int peer;
  tape_t busy = {.env = env, .arg = &peer, .offer = offer};
  busy.on[DATA] = busy.on[UPDATED] = refill;
  peer = open_tape(&busy, table);
  tape_t quiet = {.env = env};
  int other = open_tape(&quiet, &plain_protocol);
  settle(env->loop);
  fill(peer);
  say(other, "me too");
  aloop_run_once(env->loop, 0);
  size_t size = busy.size;
  *calls = busy.calls[DATA] + busy.calls[UPDATED];
  assert_int_equal(quiet.size, 6);
  busy.on[DATA] = busy.on[UPDATED] = NULL;
  end_tape(&busy, peer);
  end_tape(&quiet, other);
  return size;
}

static void a_busy_connection_leaves_room_for_others(void **state) {
  env_t *env = *state;
  long calls;
  assert_true(read_in_one_turn(env, &plain_protocol, 0, &calls) <= ALOOP__READ_BUDGET);
  assert_true(read_in_one_turn(env, &buffered_protocol, 0, &calls) <= ALOOP__READ_BUDGET + 4096);
}

static void a_tiny_buffer_does_not_keep_the_loop_busy(void **state) {
  env_t *env = *state;
  long calls;
  read_in_one_turn(env, &buffered_protocol, 1, &calls);
  assert_true(calls <= 256);
}

static void count_hook(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void a_host_learns_of_connections_made_and_ended_between_turns(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int hooks = 0;
  int fds[2];
  make_socketpair(fds);
  assert_int_equal(aloop_set_armed_hook(env->loop, count_hook, &hooks), 0);
  attach_tape(&tape, &plain_protocol, fds[0]);
  assert_true(hooks > 0);
  settle(env->loop);
  hooks = 0;
  aloop_transport_abort(tape.transport);
  assert_true(hooks > 0);
  end_tape(&tape, fds[1]);
}

/* ---- Out of memory -------------------------------------------------------------------------------------- */

static void scenario_life(env_t *env) {
  tape_t tape = {.env = env, .answer[AT_EOF] = 1};
  int fds[2];
  make_socketpair(fds);
  tape.transport = aloop__stream_new(env->loop, NULL, fds[0], &plain_protocol, &tape, NULL, NULL, ALOOP_HERE);
  if (tape.transport == NULL) {
    close(fds[0]);
    close(fds[1]);
    return;
  }
  aloop_transport_ref(tape.transport);
  say(fds[1], "x");
  shutdown(fds[1], SHUT_WR);
  for (int i = 0; i < 5; i++) assert_true(aloop_run_once(env->loop, 0) >= 0);
  aloop_transport_set_timeouts(tape.transport, ALOOP_SECONDS(1), 0, 0);
  aloop_transport_close(tape.transport);
  for (int i = 0; i < 5; i++) assert_true(aloop_run_once(env->loop, 0) >= 0);
  env->fail_at = env->fail_from = 0;
  end_tape(&tape, fds[1]);
}

static void out_of_memory_never_loses_an_end(void **state) {
  torture(*state, scenario_life);
}

/* The deque is full at the moment of the abort. */
static void nothing(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void an_end_that_cannot_be_queued_comes_later(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  settle(env->loop);
  env->fail_from = env->calls + 1;
  int ran = 0;
  while (aloop_handle_error(aloop_call_soon(env->loop, nothing, &ran)) == 0) continue;
  aloop_transport_abort_error(tape.transport, ALOOP_EIO);
  assert_true(aloop_transport_is_closing(tape.transport));
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_EIO);
  env->fail_from = 0;
  end_tape(&tape, peer);
}

/* ---- Inspection ----------------------------------------------------------------------------------------- */

static void find_line(void *arg, const char *text) {
  if (strstr(text, "transport") != NULL && strstr(text, "reading paused") != NULL) *(bool *)arg = true;
}

static void a_transport_is_in_the_metrics_and_the_dump(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  aloop_transport_pause_reading(tape.transport);
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.transports, 1);
  bool found = false;
  assert_int_equal(aloop_dump(env->loop, find_line, &found), 0);
  assert_true(found);
  end_tape(&tape, peer);
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.transports, 0);
  assert_int_equal(metrics.watches, 0);
}

static void stop_hard(tape_t *tape) {
  aloop_stop_with_error(tape->env->loop, ALOOP_EINTR);
}

/* What a protocol with a small buffer has not got yet waits for the next run. */
static void a_fatal_stop_ends_the_reading(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[UPDATED] = stop_hard, .offer = 10};
  int peer = open_tape(&tape, &buffered_protocol);
  say(peer, "0123456789abcdefghij-the rest");
  for (long calls = 1; calls <= 3; calls++) {
    int rc = 0;
    while (tape.calls[UPDATED] < calls) rc = aloop_run_once(env->loop, ALOOP_SECONDS(1));
    assert_int_equal(rc, ALOOP_EINTR);
    assert_int_equal(tape.calls[UPDATED], calls);
  }
  assert_int_equal(tape.size, 29);
  assert_memory_equal(tape.bytes, "0123456789abcdefghij-the rest", 29);
  end_tape(&tape, peer);
}

TESTS(T(a_fatal_stop_ends_the_reading), T(descriptors_are_reused_without_mixing_bytes),
      T(a_lost_transport_answers_every_call), T(a_transport_outlives_its_loop), T(null_is_no_transport),
      T(closing_the_loop_ends_open_connections), T(closing_the_loop_calls_a_queued_end_once),
      T(connections_may_touch_each_other_while_the_loop_closes), T(callbacks_see_the_context_of_creation),
      T(a_busy_connection_leaves_room_for_others), T(a_tiny_buffer_does_not_keep_the_loop_busy),
      T(a_host_learns_of_connections_made_and_ended_between_turns), T(out_of_memory_never_loses_an_end),
      T(an_end_that_cannot_be_queued_comes_later), T(a_transport_is_in_the_metrics_and_the_dump))
