/* SPDX-License-Identifier: MIT
 *
 * Rows of writes: that the first write of a callback goes at once and the next ones together, no later than with
 * the turn and before whatever acts on them; and that nothing else can be told from writes that all go at once.
 * pollers: all
 */
#include "wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/stream.h"

typedef struct row {
  tape_t tape;
  int peer;
  tape_t other;
  int other_peer;
  int released;
  int file;
  void (*act)(struct row *row);
  char got[32768];
} row_t;

static row_t *open_row(env_t *env) {
  row_t *row = calloc(1, sizeof *row);
  assert_non_null(row);
  row->tape.env = row->other.env = env;
  row->tape.arg = row->other.arg = row;
  row->peer = open_tape(&row->tape, &plain_protocol);
  row->other_peer = open_tape(&row->other, &plain_protocol);
  row->file = -1;
  wire.calls = 0;
  wire.error = 0;
  lift_limit();
  return row;
}

static void end_row(row_t *row) {
  wire.error = 0;
  lift_limit();
  end_tape(&row->tape, row->peer);
  end_tape(&row->other, row->other_peer);
  if (row->file >= 0) close(row->file);
  free(row);
}

/* What the peer has by now. */
static void expect_now(row_t *row, int peer, const char *text) {
  size_t size = drain(peer, row->got, sizeof row->got);
  assert_int_equal(size, strlen(text));
  assert_memory_equal(row->got, text, size);
}

static void call(aloop_t *loop, void *arg) {
  row_t *row = arg;
  (void)loop;
  row->act(row);
}

/* One turn with one callback. */
static void in_callback(row_t *row, void (*act)(row_t *row)) {
  aloop_t *loop = row->tape.env->loop;
  row->act = act;
  assert_int_equal(aloop_handle_error(aloop_call_soon(loop, call, row)), 0);
  run_turn(loop);
}

/* ---- At once and together ------------------------------------------------------------------------------- */

static void write_in_every_way(row_t *row) {
  char word[] = "three ";
  struct iovec parts[] = {{"four ", 5}, {NULL, 0}, {"five", 4}};
  put(&row->tape, "one ");
  expect_now(row, row->peer, "one ");
  assert_int_equal(unsent(&row->tape), 0);
  assert_int_equal(put_owned(&row->tape, "two ", &row->released), 0);
  put(&row->tape, word);
  memset(word, '#', strlen(word));
  assert_int_equal(aloop_transport_writev(row->tape.transport, parts, 3), 0);
  assert_int_equal(wire.calls, 1);
  assert_int_equal(unsent(&row->tape), 19);
  assert_int_equal(row->released, 1);
}

static void later_writes_of_a_callback_leave_together(void **state) {
  row_t *row = open_row(*state);
  for (int i = 0; i < 3; i++) {
    wire.calls = row->released = 0;
    in_callback(row, write_in_every_way);
    assert_int_equal(wire.calls, 2);
    expect_now(row, row->peer, "two three four five");
    assert_int_equal(unsent(&row->tape), 0);
    assert_int_equal(aloop_next_timeout(row->tape.env->loop), ALOOP_FOREVER);
  }
  end_row(row);
}

static void write_one(row_t *row) {
  put(&row->tape, "x");
  expect_now(row, row->peer, "x");
}

static void the_first_write_of_each_callback_goes_at_once(void **state) {
  row_t *row = open_row(*state);
  row->act = write_one;
  for (int i = 0; i < 3; i++) aloop_call_soon(row->tape.env->loop, call, row);
  assert_int_equal(run_turn(row->tape.env->loop), 3);
  assert_int_equal(wire.calls, 3);
  end_row(row);
}

static void outside_of_callbacks_every_write_goes_at_once(void **state) {
  row_t *row = open_row(*state);
  put(&row->tape, "one ");
  put(&row->tape, "two");
  assert_int_equal(wire.calls, 2);
  expect_now(row, row->peer, "one two");
  end_row(row);
}

static void write_three(row_t *row) {
  put(&row->tape, "one ");
  put(&row->tape, "two ");
  put(&row->tape, "three");
}

static void pass_on(tape_t *tape) {
  write_three(tape->arg);
}

static void stop_when_whole(tape_t *tape) {
  if (tape->size == 13) aloop_stop(tape->env->loop);
}

/* A loop that has nothing but connections turns in another way; it would wait for ever. */
static void a_row_is_sent_before_the_loop_waits(void **state) {
  row_t *row = open_row(*state);
  tape_t reader = {.env = *state, .on[DATA] = stop_when_whole};
  attach_tape(&reader, &plain_protocol, dup(row->peer));
  row->other.on[DATA] = pass_on;
  settle(reader.env->loop);
  wire.calls = 0;
  for (int i = 0; i < 3; i++) {
    reader.size = 0;
    say(row->other_peer, "go");
    assert_int_equal(aloop_run_forever(reader.env->loop), 0);
    assert_memory_equal(reader.bytes, "one two three", 13);
  }
  assert_int_equal(wire.calls, 6);
  end_tape(&reader, -1);
  end_row(row);
}

static void stop(row_t *row) {
  write_three(row);
  aloop_stop(row->tape.env->loop);
}

static void stop_hard(row_t *row) {
  write_three(row);
  aloop_stop_with_error(row->tape.env->loop, ALOOP_EIO);
}

static void a_row_is_sent_before_the_run_ends(void **state) {
  row_t *row = open_row(*state);
  row->act = stop;
  aloop_call_soon(row->tape.env->loop, call, row);
  assert_int_equal(aloop_run_forever(row->tape.env->loop), 0);
  expect_now(row, row->peer, "one two three");
  row->act = stop_hard;
  aloop_call_soon(row->tape.env->loop, call, row);
  assert_int_equal(aloop_run_forever(row->tape.env->loop), ALOOP_EIO);
  expect_now(row, row->peer, "one two three");
  end_row(row);
}

/* ---- What ends a row ------------------------------------------------------------------------------------ */

static void write_two(row_t *row) {
  put(&row->tape, "one ");
  put(&row->tape, "two");
  assert_int_equal(unsent(&row->tape), 3);
}

static void alternate(row_t *row) {
  write_two(row);
  put(&row->other, "mine ");
  expect_now(row, row->peer, "one two");
  put(&row->other, "as well");
  assert_int_equal(wire.calls, 3);
  put(&row->tape, "last");
  expect_now(row, row->peer, "last");
  expect_now(row, row->other_peer, "mine as well");
  assert_int_equal(wire.calls, 5);
}

static void a_write_to_another_transport_ends_it(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, alternate);
  assert_int_equal(wire.calls, 5);
  end_row(row);
}

static void write_much(row_t *row) {
  static char much[8192];
  pattern(much, sizeof much, 1);
  write_two(row);
  assert_int_equal(aloop_transport_write(row->tape.transport, much, sizeof much), 0);
  assert_int_equal(unsent(&row->tape), 0);
  assert_int_equal(drain(row->peer, row->got, sizeof row->got), 7 + sizeof much);
  assert_memory_equal(row->got, "one two", 7);
  assert_memory_equal(row->got + 7, much, sizeof much);
}

static void much_is_not_copied(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, write_much);
  assert_int_equal(wire.calls, 3);
  end_row(row);
}

enum { MANY = 300, PIECE = 100 };

static void write_many(row_t *row) {
  char piece[PIECE];
  for (unsigned i = 0; i < MANY; i++) {
    pattern(piece, PIECE, i * PIECE);
    assert_int_equal(aloop_transport_write(row->tape.transport, piece, PIECE), 0);
    assert_true(unsent(&row->tape) <= 16384);
  }
}

static void a_long_row_leaves_in_parts(void **state) {
  row_t *row = open_row(*state);
  char all[MANY * PIECE];
  pattern(all, sizeof all, 0);
  in_callback(row, write_many);
  assert_true(wire.calls <= 4);
  assert_int_equal(drain(row->peer, row->got, sizeof row->got), sizeof all);
  assert_memory_equal(row->got, all, sizeof all);
  end_row(row);
}

static void close_it(row_t *row) {
  aloop_transport_close(row->tape.transport);
}

static void abort_it(row_t *row) {
  aloop_transport_abort(row->tape.transport);
}

static void half_close(row_t *row) {
  assert_int_equal(aloop_transport_write_eof(row->tape.transport), 0);
}

static void set_limits(row_t *row) {
  assert_int_equal(aloop_transport_set_write_buffer_limits(row->tape.transport, 1, 0), 0);
  assert_int_equal(row->tape.calls[PAUSE], 0);
}

static void set_cap(row_t *row) {
  assert_int_equal(aloop_transport_set_write_buffer_cap(row->tape.transport, 3), 0);
  put(&row->tape, "");
}

static void send_empty_file(row_t *row) {
  aloop_future_t *future = aloop_sendfile(row->tape.transport, row->file, 0, 0, 0);
  assert_true(aloop_future_done(future));
  aloop_future_unref(future);
}

static void relay(row_t *row) {
  aloop_future_t *future = aloop_relay(row->tape.transport, row->other.transport);
  aloop_future_cancel(future);
  aloop_future_unref(future);
}

static void (*const actions[])(row_t *row) = {close_it, abort_it,        half_close, set_limits,
                                              set_cap,  send_empty_file, relay};

static void write_and_act(row_t *row) {
  void (*act)(row_t *) = actions[row->released];
  write_two(row);
  act(row);
  expect_now(row, row->peer, "one two");
}

static int make_empty_file(void) {
  char path[] = "/tmp/aloop-row-XXXXXX";
  int file = mkstemp(path);
  assert_true(file >= 0);
  unlink(path);
  return file;
}

static void what_acts_on_the_bytes_finds_them_sent(void **state) {
  for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
    row_t *row = open_row(*state);
    row->file = make_empty_file();
    row->released = (int)i;
    in_callback(row, write_and_act);
    settle(row->tape.env->loop);
    expect_now(row, row->peer, "");
    end_row(row);
  }
}

static void reset(row_t *row) {
  write_two(row);
  aloop_transport_abort_reset(row->tape.transport);
}

static void a_reset_drops_it(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, reset);
  settle(row->tape.env->loop);
  expect_now(row, row->peer, "one ");
  assert_true(row->tape.lost);
  end_row(row);
}

static void write_and_fail(tape_t *tape) {
  write_three(tape->arg);
  tape->answer[AT_EOF] = ALOOP_EIO;
}

static void an_error_of_a_callback_comes_behind_it(void **state) {
  row_t *row = open_row(*state);
  row->tape.on[AT_EOF] = write_and_fail;
  assert_int_equal(shutdown(row->peer, SHUT_WR), 0);
  run_until(row->tape.env->loop, &row->tape.lost);
  assert_int_equal(row->tape.error, ALOOP_EIO);
  expect_now(row, row->peer, "one two three");
  end_row(row);
}

/* ---- Full buffers --------------------------------------------------------------------------------------- */

static void fill_up(row_t *row) {
  aloop_transport_set_write_buffer_limits(row->tape.transport, 4, 0);
  put(&row->tape, "1");
  limit(1);
  put(&row->tape, "23");
  assert_int_equal(row->tape.calls[PAUSE], 0);
  put(&row->tape, "456");
  assert_int_equal(row->tape.calls[PAUSE], 0); /* one was taken, four wait */
  put(&row->tape, "7");
  assert_int_equal(row->tape.calls[PAUSE], 1);
  assert_int_equal(unsent(&row->tape), 5);
}

static void writing_is_paused_inside_a_write(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, fill_up);
  assert_int_equal(row->tape.calls[PAUSE], 1);
  lift_limit();
  expect(&row->tape, row->peer, "1234567");
  assert_int_equal(row->tape.calls[RESUME], 1);
  end_row(row);
}

static void write_with_mark_zero(row_t *row) {
  aloop_transport_set_write_buffer_limits(row->tape.transport, 0, 0);
  write_three(row);
  assert_int_equal(wire.calls, 3);
  expect_now(row, row->peer, "one two three");
}

static void nothing_waits_below_a_mark_of_zero(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, write_with_mark_zero);
  assert_int_equal(row->tape.calls[PAUSE], 0);
  end_row(row);
}

static void write_up_to_the_cap(row_t *row) {
  aloop_transport_set_write_buffer_cap(row->tape.transport, 5);
  write_three(row);
  assert_int_equal(wire.calls, 3);
  limit(0);
  put(&row->tape, "12345");
  assert_int_equal(aloop_transport_write(row->tape.transport, "6", 1), ALOOP_ENOBUFS);
}

static void only_what_the_socket_refuses_counts_to_the_cap(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, write_up_to_the_cap);
  lift_limit();
  expect(&row->tape, row->peer, "one two three12345");
  end_row(row);
}

static void write_while_little_goes(row_t *row) {
  limit(5);
  write_three(row);
}

static void what_the_socket_does_not_take_follows(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, write_while_little_goes);
  expect_now(row, row->peer, "one t");
  assert_int_equal(unsent(&row->tape), 8);
  in_callback(row, write_three); /* behind it */
  lift_limit();
  expect(&row->tape, row->peer, "wo threeone two three");
  end_row(row);
}

static void write_behind_a_full_socket(row_t *row) {
  limit(0);
  write_three(row);
  assert_int_equal(wire.calls, 1);
}

static void a_full_socket_is_not_tried_again(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, write_behind_a_full_socket);
  assert_int_equal(wire.calls, 1);
  lift_limit();
  expect(&row->tape, row->peer, "one two three");
  end_row(row);
}

/* ---- Trouble -------------------------------------------------------------------------------------------- */

static void write_and_break(row_t *row) {
  put(&row->tape, "one");
  assert_int_equal(put_owned(&row->tape, "two", &row->released), 0);
  wire.error = EPIPE;
  put(&row->tape, "three");
  assert_false(aloop_transport_is_closing(row->tape.transport));
}

static void a_failing_socket_is_reported_at_the_end(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, write_and_break);
  assert_int_equal(aloop_transport_write(row->tape.transport, "x", 1), ALOOP_ECLOSED);
  run_until(row->tape.env->loop, &row->tape.lost);
  assert_int_equal(row->tape.error, ALOOP_EPIPE);
  assert_int_equal(row->released, 1);
  end_row(row);
}

static void break_and_write_to_the_other(row_t *row) {
  write_and_break(row);
  wire.error = EPIPE;
  aloop_transport_close(row->other.transport);
  wire.error = 0;
  aloop_transport_abort_reset(row->tape.transport);
  assert_int_equal(aloop_transport_write(row->tape.transport, "x", 1), ALOOP_ECLOSED);
}

static void the_end_of_its_connection_ends_it(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, break_and_write_to_the_other);
  run_until(row->tape.env->loop, &row->tape.lost);
  expect_now(row, row->peer, "one");
  end_row(row);
}

static void write_without_memory(row_t *row) {
  env_t *env = row->tape.env;
  env->fail_from = env->calls + 1;
  write_three(row);
  assert_int_equal(put_owned(&row->tape, " four", &row->released), 0);
  env->fail_from = 0;
  assert_int_equal(wire.calls, 4);
  assert_int_equal(row->released, 1);
  expect_now(row, row->peer, "one two three four");
}

static void without_memory_every_write_goes_at_once(void **state) {
  row_t *row = open_row(*state);
  in_callback(row, write_without_memory);
  end_row(row);
}

static void answer_late(tape_t *tape) {
  assert_int_equal(aloop_transport_write(tape->transport, tape->data, tape->data_size), 0);
  put(tape, "!");
}

static void write_and_be_asked(row_t *row) {
  write_two(row);
}

/* The answer inside data_received comes behind a row that a callback of the same turn began. */
static void an_answer_keeps_its_place_behind_it(void **state) {
  row_t *row = open_row(*state);
  row->tape.on[DATA] = answer_late;
  row->act = write_and_be_asked;
  say(row->peer, "what");
  aloop_call_soon(row->tape.env->loop, call, row);
  expect(&row->tape, row->peer, "one twowhat!");
  end_row(row);
}

/* ---- Fork ----------------------------------------------------------------------------------------------- */

static int close_in_child(row_t *row) {
  aloop_transport_close(row->tape.transport);
  aloop_free(row->tape.env->loop); /* here it does not run */
  return 0;
}

static int abort_in_child(row_t *row) {
  aloop_transport_abort(row->tape.transport);
  return 0;
}

static int go_on_in_child(row_t *row) {
  aloop_t *loop = row->tape.env->loop;
  if (aloop_after_fork(loop) != 0 || unsent(&row->tape) != 0) return 1;
  if (aloop_run_once(loop, 0) < 0) return 2;
  put(&row->tape, "child ");
  return 0;
}

static int (*const in_child[])(row_t *row) = {close_in_child, abort_in_child, go_on_in_child};

static void write_and_fork(row_t *row) {
  int (*act)(row_t *) = in_child[row->released];
  put(&row->tape, "one ");
  put(&row->tape, "two");
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(act(row));
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
}

static void a_child_leaves_it_to_its_parent(void **state) {
  env_t *env = *state;
  if (on_libkqueue(env)) skip(); /* its child may only exec */
  for (int i = 0; i < 3; i++) {
    row_t *row = open_row(env);
    row->released = i;
    in_callback(row, write_and_fork);
    expect_now(row, row->peer, in_child[i] == go_on_in_child ? "one child two" : "one two");
    end_row(row);
  }
}

static pid_t child_of_answer;

/* The child returns from data_received. */
static void answer_and_fork(tape_t *tape) {
  int status = -1;
  answer_late(tape);
  child_of_answer = fork();
  if (child_of_answer == 0) {
    alarm(20);
    return;
  }
  assert_int_equal(waitpid(child_of_answer, &status, 0), child_of_answer);
  assert_int_equal(status, 0);
}

static void an_answer_that_waits_leaves_the_parent_alone(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip(); /* libkqueue's child may only exec */
  row_t *row = open_row(env);
  row->tape.on[DATA] = answer_and_fork;
  child_of_answer = -1;
  say(row->peer, "what");
  while (row->tape.calls[DATA] == 0) {
    int rc = aloop_run_once(env->loop, ALOOP_SECONDS(1));
    if (child_of_answer == 0) _exit(rc == ALOOP_ECHILD ? 0 : 1);
    assert_true(rc >= 0);
  }
  expect_now(row, row->peer, "what!");
  end_row(row);
}

/* ---- Tasks ---------------------------------------------------------------------------------------------- */

static int64_t write_in_steps(aloop_t *loop, void *arg) {
  row_t *row = arg;
  write_two(row);
  expect_now(row, row->peer, "one ");
  aloop_await(aloop_sleep(loop, 0));
  expect_now(row, row->peer, "two");
  write_two(row);
  return 0;
}

static void a_task_that_waits_leaves_nothing_behind(void **state) {
  row_t *row = open_row(*state);
  aloop_t *loop = row->tape.env->loop;
  aloop_future_t *task = aloop_create_task(loop, write_in_steps, row, NULL);
  assert_int_equal(run_future(loop, task), 0);
  aloop_future_unref(task);
  expect_now(row, row->peer, "one two");
  assert_int_equal(wire.calls, 4);
  end_row(row);
}

TESTS(T(later_writes_of_a_callback_leave_together), T(the_first_write_of_each_callback_goes_at_once),
      T(outside_of_callbacks_every_write_goes_at_once), T(a_row_is_sent_before_the_loop_waits),
      T(a_row_is_sent_before_the_run_ends), T(a_write_to_another_transport_ends_it), T(much_is_not_copied),
      T(a_long_row_leaves_in_parts), T(what_acts_on_the_bytes_finds_them_sent), T(a_reset_drops_it),
      T(an_error_of_a_callback_comes_behind_it), T(writing_is_paused_inside_a_write),
      T(nothing_waits_below_a_mark_of_zero), T(only_what_the_socket_refuses_counts_to_the_cap),
      T(what_the_socket_does_not_take_follows), T(a_full_socket_is_not_tried_again),
      T(a_failing_socket_is_reported_at_the_end), T(the_end_of_its_connection_ends_it),
      T(without_memory_every_write_goes_at_once), T(an_answer_keeps_its_place_behind_it),
      T(an_answer_that_waits_leaves_the_parent_alone), T(a_child_leaves_it_to_its_parent),
      T(a_task_that_waits_leaves_nothing_behind))
