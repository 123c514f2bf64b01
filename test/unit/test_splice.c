/* SPDX-License-Identifier: MIT
 *
 * Relays that splice: when they do, what happens to bytes that wait in a pipe, and that everything goes as well
 * where the kernel does not splice. The test stands in for splice and pipe2. pollers: all, needs: SPLICE,
 * wraps: splice pipe2
 */
#include "pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The system as the library sees it ------------------------------------------------------------------- */

typedef struct kernel {
  long calls;   /* of splice, that moved something */
  long fail_at; /* from this call on (1, 2, ...) splice fails with this; 0: never */
  int error;
  bool no_pipes; /* there is no descriptor left */
} kernel_t;

static kernel_t kernel;
static long asked;

ssize_t __real_splice(int in, off_t *at_in, int out, off_t *at_out, size_t size, unsigned flags);
ssize_t __wrap_splice(int in, off_t *at_in, int out, off_t *at_out, size_t size, unsigned flags);
int __real_pipe2(int ends[2], int flags);
int __wrap_pipe2(int ends[2], int flags);

ssize_t __wrap_splice(int in, off_t *at_in, int out, off_t *at_out, size_t size, unsigned flags) {
  if (kernel.fail_at > 0 && ++asked >= kernel.fail_at) {
    errno = kernel.error;
    return -1;
  }
  ssize_t n = __real_splice(in, at_in, out, at_out, size, flags);
  kernel.calls += n > 0;
  return n;
}

int __wrap_pipe2(int ends[2], int flags) {
  if (!kernel.no_pipes) return __real_pipe2(ends, flags);
  errno = EMFILE;
  return -1;
}

/* ---- Small helpers --------------------------------------------------------------------------------------- */

enum { BIG = 3 * 1024 * 1024 };

static char sent[BIG], got[BIG];

typedef struct joint {
  aloop_t *loop;
  tape_t a, b;
  int peer_a, peer_b;
  aloop_future_t *future;
} joint_t;

/* The sockets do not swallow everything at once. */
static int open_small(tape_t *tape) {
  const int size = 65536;
  int peer = open_tcp_tape(tape, &plain_protocol);
  int fd = aloop_transport_fd(tape->transport);
  assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
  return peer;
}

static void join(joint_t *joint) {
  kernel = (kernel_t){.calls = 0};
  asked = 0;
  pattern(sent, BIG, 3);
  joint->future = aloop_relay(joint->a.transport, joint->b.transport);
  assert_false(aloop_future_done(joint->future));
}

static void begin(joint_t *joint, env_t *env) {
  *joint = (joint_t){.loop = env->loop, .a = {.env = env}, .b = {.env = env}};
  joint->peer_a = open_small(&joint->a);
  joint->peer_b = open_small(&joint->b);
  join(joint);
}

static void expect_result(joint_t *joint, int64_t result) {
  assert_int_equal(run_future(joint->loop, joint->future), result);
  aloop_future_unref(joint->future);
  joint->future = NULL;
}

static void finish(joint_t *joint) {
  assert_null(joint->future);
  end_tape(&joint->a, joint->peer_a);
  end_tape(&joint->b, joint->peer_b);
}

/* Writes as much as goes in while nobody reads at the other end. Returns how much that was. */
static size_t fill_up(joint_t *joint, int peer) {
  size_t in = 0;
  for (int idle = 0; idle < 5 && in < BIG;) {
    ssize_t n = write(peer, sent + in, BIG - in);
    idle = n > 0 ? 0 : idle + 1;
    if (n > 0) in += (size_t)n;
    settle(joint->loop);
  }
  return in;
}

/* Everything from one peer to the other, in pieces of the writer's choice. */
static void move(joint_t *joint, int from, int to, size_t size) {
  size_t in = 0, out = 0;
  for (int turns = 0; out < size; turns++) {
    assert_true(turns < 1000000);
    ssize_t n = in < size ? write(from, sent + in, size - in) : 0;
    if (n > 0) in += (size_t)n;
    assert_true(aloop_run_once(joint->loop, 0) >= 0);
    out += drain(to, got + out, size - out);
  }
  assert_memory_equal(sent, got, size);
}

static void end_well(joint_t *joint, int64_t moved) {
  shutdown(joint->peer_a, SHUT_WR);
  shutdown(joint->peer_b, SHUT_WR);
  expect_result(joint, moved);
}

/* ---- When ------------------------------------------------------------------------------------------------ */

static void much_is_spliced_both_ways(void **state) {
  joint_t joint;
  begin(&joint, *state);
  move(&joint, joint.peer_a, joint.peer_b, BIG);
  assert_true(kernel.calls > 0);
  long before = kernel.calls;
  move(&joint, joint.peer_b, joint.peer_a, BIG);
  assert_true(kernel.calls > before);
  end_well(&joint, 2 * BIG);
  finish(&joint);
}

static void small_messages_are_copied(void **state) {
  joint_t joint;
  begin(&joint, *state);
  for (int i = 0; i < 100; i++) move(&joint, joint.peer_a, joint.peer_b, 4096);
  assert_int_equal(kernel.calls, 0);
  end_well(&joint, 100 * 4096);
  finish(&joint);
}

static void small_messages_after_much_are_copied_again(void **state) {
  joint_t joint;
  begin(&joint, *state);
  move(&joint, joint.peer_a, joint.peer_b, BIG);
  for (int i = 0; i < 10; i++) move(&joint, joint.peer_a, joint.peer_b, 100);
  long before = kernel.calls;
  for (int i = 0; i < 10; i++) move(&joint, joint.peer_a, joint.peer_b, 100);
  assert_int_equal(kernel.calls, before);
  end_well(&joint, BIG + 2000);
  finish(&joint);
}

static void unix_sockets_are_not_spliced(void **state) {
  env_t *env = *state;
  int fds[2];
  joint_t joint = {.loop = env->loop, .a = {.env = env}, .b = {.env = env}};
  joint.peer_b = open_small(&joint.b);
  make_socketpair(fds);
  aloop_connect_options_t options = {.size = sizeof options, .fd = fds[0]};
  aloop_future_t *future = aloop_create_connection(env->loop, &plain_protocol, &joint.a, &options);
  assert_true(run_future(env->loop, future) >= 0);
  aloop_future_unref(future);
  joint.peer_a = fds[1];
  join(&joint);
  move(&joint, joint.peer_a, joint.peer_b, BIG);
  move(&joint, joint.peer_b, joint.peer_a, BIG);
  assert_int_equal(kernel.calls, 0);
  end_well(&joint, 2 * BIG);
  finish(&joint);
}

static void quiet_relays_hold_no_pipe(void **state) {
  enum { RELAYS = 20, PIPES_KEPT = 8 };
  joint_t joints[RELAYS];
  int fds = 0;
  for (int i = 0; i < RELAYS; i++) begin(&joints[i], *state);
  fds = open_fds();
  for (int i = 0; i < RELAYS; i++) {
    kernel.calls = 0;
    move(&joints[i], joints[i].peer_a, joints[i].peer_b, BIG);
    assert_true(kernel.calls > 0);
  }
  assert_in_range(open_fds(), fds + 1, fds + 2 * PIPES_KEPT);
  for (int i = 0; i < RELAYS; i++) {
    end_well(&joints[i], BIG);
    finish(&joints[i]);
  }
}

/* All their sinks are full: each needs a pipe, and not all are kept. */
static void pipes_of_many_full_relays_are_closed(void **state) {
  enum { RELAYS = 20, PIPES_KEPT = 8 };
  joint_t joints[RELAYS];
  size_t sizes[RELAYS];
  for (int i = 0; i < RELAYS; i++) begin(&joints[i], *state);
  int fds = open_fds();
  for (int i = 0; i < RELAYS; i++) sizes[i] = fill_up(&joints[i], joints[i].peer_a);
  assert_in_range(open_fds(), fds + 2 * RELAYS, fds + 2 * RELAYS + 2);
  for (int i = 0; i < RELAYS; i++) {
    for (size_t out = 0; out < sizes[i]; out += drain(joints[i].peer_b, got + out, BIG - out))
      assert_true(aloop_run_once(joints[i].loop, 0) >= 0);
    assert_memory_equal(sent, got, sizes[i]);
  }
  assert_in_range(open_fds(), fds, fds + 2 * PIPES_KEPT);
  for (int i = 0; i < RELAYS; i++) {
    end_well(&joints[i], (int64_t)sizes[i]);
    finish(&joints[i]);
  }
}

/* ---- Where it is not possible ---------------------------------------------------------------------------- */

static void without_splice_everything_is_copied(void **state) {
  static const int errors[] = {EINVAL, ENOSYS, EOPNOTSUPP};
  for (int i = 0; i < 3; i++) {
    joint_t joint;
    begin(&joint, *state);
    kernel.fail_at = 1;
    kernel.error = errors[i];
    move(&joint, joint.peer_a, joint.peer_b, BIG);
    assert_int_equal(asked, 1);
    end_well(&joint, BIG);
    finish(&joint);
  }
}

static void a_sink_that_cannot_be_spliced_to_gets_copies(void **state) {
  for (int at = 2; at < 6; at++) {
    joint_t joint;
    begin(&joint, *state);
    kernel.fail_at = at;
    kernel.error = EINVAL;
    move(&joint, joint.peer_a, joint.peer_b, BIG);
    end_well(&joint, BIG);
    finish(&joint);
  }
}

static void without_descriptors_for_a_pipe_everything_is_copied(void **state) {
  joint_t joint;
  begin(&joint, *state);
  kernel.no_pipes = true;
  move(&joint, joint.peer_a, joint.peer_b, BIG);
  assert_int_equal(kernel.calls, 0);
  kernel.no_pipes = false;
  move(&joint, joint.peer_a, joint.peer_b, BIG);
  assert_true(kernel.calls > 0);
  end_well(&joint, 2 * BIG);
  finish(&joint);
}

static void a_splice_that_fails_ends_the_connection(void **state) {
  for (int at = 1; at < 3; at++) {
    joint_t joint;
    begin(&joint, *state);
    kernel.fail_at = at;
    kernel.error = ECONNRESET;
    fill_up(&joint, joint.peer_a);
    assert_string_equal(aloop_future_message(joint.future),
                        at == 1 ? "the first transport failed" : "the second transport failed");
    expect_result(&joint, ALOOP_ECONNRESET);
    run_until(joint.loop, &joint.a.lost);
    run_until(joint.loop, &joint.b.lost);
    assert_int_equal(joint.a.error, at == 1 ? ALOOP_ECONNRESET : 0);
    assert_int_equal(joint.b.error, at == 1 ? 0 : ALOOP_ECONNRESET);
    finish(&joint);
  }
}

static void a_peer_that_goes_is_no_signal(void **state) {
  joint_t joint;
  begin(&joint, *state);
  fill_up(&joint, joint.peer_a);
  assert_true(kernel.calls > 0);
  close(joint.peer_b);
  joint.peer_b = -1;
  assert_true(run_future(joint.loop, joint.future) < 0);
  aloop_future_unref(joint.future);
  joint.future = NULL;
  finish(&joint);
}

/* ---- What waits in a pipe -------------------------------------------------------------------------------- */

static size_t take_all(joint_t *joint, size_t most) {
  size_t out = 0;
  for (int idle = 0; idle < 100 && out < most; idle++) {
    assert_true(aloop_run_once(joint->loop, 0) >= 0);
    size_t n = drain(joint->peer_b, got + out, most - out);
    out += n;
    if (n > 0) idle = 0;
  }
  return out;
}

static void what_waits_counts_as_unsent(void **state) {
  joint_t joint;
  begin(&joint, *state);
  size_t in = fill_up(&joint, joint.peer_a);
  assert_true(kernel.calls > 0);
  assert_in_range(unsent(&joint.b), 1, 512 * 1024);
  assert_int_equal(take_all(&joint, in), in);
  assert_int_equal(unsent(&joint.b), 0);
  end_well(&joint, (int64_t)in);
  finish(&joint);
}

static void what_waits_is_sent_by_the_parent_of_a_fork(void **state) {
  joint_t joint;
  int status = -1;
  begin(&joint, *state);
  if (on_libkqueue(joint.a.env)) skip(); /* its child may only exec */
  size_t in = fill_up(&joint, joint.peer_a);
  assert_true(kernel.calls > 0);
  pid_t child = fork();
  if (child == 0) {
    bool well = unsent(&joint.b) > 0 && aloop_after_fork(joint.loop) == 0 && unsent(&joint.b) == 0;
    if (well) aloop_free(joint.loop);
    _exit(well ? 0 : 1);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_int_equal(take_all(&joint, in), in);
  assert_memory_equal(sent, got, in);
  end_well(&joint, (int64_t)in);
  finish(&joint);
}

static void what_waits_is_sent_after_cancelling(void **state) {
  joint_t joint;
  begin(&joint, *state);
  size_t in = fill_up(&joint, joint.peer_a);
  size_t waiting = unsent(&joint.b);
  assert_true(waiting > 0);
  assert_int_equal(aloop_future_cancel(joint.future), 1);
  expect_result(&joint, ALOOP_ECANCELED);
  assert_int_equal(unsent(&joint.b), waiting);
  size_t out = take_all(&joint, in);
  assert_memory_equal(sent, got, out);
  assert_int_equal(out + joint.a.size, in);
  finish(&joint);
}

static void what_waits_is_sent_after_closing(void **state) {
  for (int which = 0; which < 2; which++) {
    joint_t joint;
    begin(&joint, *state);
    size_t in = fill_up(&joint, joint.peer_a);
    size_t waiting = unsent(&joint.b);
    assert_true(waiting > 0);
    aloop_transport_close(which == 0 ? joint.a.transport : joint.b.transport);
    expect_result(&joint, ALOOP_ECLOSED);
    assert_int_equal(unsent(&joint.b), waiting);
    size_t out = take_all(&joint, in);
    assert_true(out >= waiting);
    assert_memory_equal(sent, got, out);
    assert_true(joint.b.lost);
    assert_int_equal(joint.b.error, 0);
    finish(&joint);
  }
}

static void the_end_comes_behind_what_waits(void **state) {
  joint_t joint;
  begin(&joint, *state);
  size_t in = fill_up(&joint, joint.peer_a);
  shutdown(joint.peer_a, SHUT_WR);
  shutdown(joint.peer_b, SHUT_WR);
  settle(joint.loop);
  assert_false(aloop_future_done(joint.future));
  assert_int_equal(take_all(&joint, in), in);
  assert_memory_equal(sent, got, in);
  expect_result(&joint, (int64_t)in);
  run_until(joint.loop, &joint.b.lost);
  assert_true(at_eof(joint.peer_b));
  finish(&joint);
}

static void an_abort_drops_what_waits(void **state) {
  for (int which = 0; which < 2; which++) {
    joint_t joint;
    begin(&joint, *state);
    fill_up(&joint, joint.peer_a);
    assert_true(unsent(&joint.b) > 0);
    int fds = open_fds();
    aloop_transport_abort(which == 0 ? joint.a.transport : joint.b.transport);
    assert_int_equal(open_fds(), fds - 2);
    expect_result(&joint, ALOOP_ECLOSED);
    finish(&joint);
  }
}

static void closing_the_loop_drops_it(void **state) {
  joint_t joint;
  begin(&joint, *state);
  fill_up(&joint, joint.peer_a);
  assert_true(unsent(&joint.b) > 0);
  aloop_close(joint.loop);
  assert_true(aloop_future_result(joint.future) < 0);
  aloop_future_unref(joint.future);
  release_tape(&joint.a, joint.peer_a);
  release_tape(&joint.b, joint.peer_b);
}

static void a_write_timeout_counts_while_it_waits(void **state) {
  joint_t joint;
  if (!on_poller(*state, "virtual")) return;
  begin(&joint, *state);
  assert_int_equal(aloop_transport_set_timeouts(joint.b.transport, 0, 0, ALOOP_SECONDS(3)), 0);
  fill_up(&joint, joint.peer_a);
  expect_result(&joint, ALOOP_ETIMEDOUT);
  finish(&joint);
}

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

static void a_pipe_is_spliced_to_a_socket(void **state) {
  env_t *env = *state;
  joint_t joint = {.loop = env->loop, .a = {.env = env}, .b = {.env = env}};
  joint.peer_b = open_small(&joint.b);
  joint.peer_a = open_read_end(&joint.a);
  join(&joint);
  move(&joint, joint.peer_a, joint.peer_b, BIG);
  assert_true(kernel.calls > 0);
  close(joint.peer_a);
  joint.peer_a = -1;
  expect_result(&joint, BIG);
  run_until(joint.loop, &joint.b.lost);
  assert_true(at_eof(joint.peer_b));
  finish(&joint);
}

static void a_socket_is_spliced_to_a_pipe(void **state) {
  env_t *env = *state;
  joint_t joint = {.loop = env->loop, .a = {.env = env}, .b = {.env = env}};
  joint.peer_a = open_small(&joint.a);
  joint.peer_b = open_write_end(&joint.b);
  join(&joint);
  move(&joint, joint.peer_a, joint.peer_b, BIG);
  assert_true(kernel.calls > 0);
  assert_int_equal(recv(joint.peer_a, got, 1, 0), -1); /* the way that never was has no end */
  shutdown(joint.peer_a, SHUT_WR);
  expect_result(&joint, BIG);
  run_until(joint.loop, &joint.b.lost);
  assert_true(at_eof(joint.peer_b));
  finish(&joint);
}

static void a_reader_that_goes_fails_the_relay(void **state) {
  env_t *env = *state;
  joint_t joint = {.loop = env->loop, .a = {.env = env}, .b = {.env = env}};
  joint.peer_a = open_small(&joint.a);
  joint.peer_b = open_write_end(&joint.b);
  join(&joint);
  fill_up(&joint, joint.peer_a);
  assert_true(unsent(&joint.b) > 0);
  close(joint.peer_b);
  joint.peer_b = -1;
  expect_result(&joint, ALOOP_EPIPE);
  finish(&joint);
}

TESTS(T(what_waits_is_sent_by_the_parent_of_a_fork), T(much_is_spliced_both_ways), T(small_messages_are_copied),
      T(small_messages_after_much_are_copied_again), T(unix_sockets_are_not_spliced),
      T(quiet_relays_hold_no_pipe), T(pipes_of_many_full_relays_are_closed),
      T(without_splice_everything_is_copied), T(a_sink_that_cannot_be_spliced_to_gets_copies),
      T(without_descriptors_for_a_pipe_everything_is_copied), T(a_splice_that_fails_ends_the_connection),
      T(a_peer_that_goes_is_no_signal), T(what_waits_counts_as_unsent), T(what_waits_is_sent_after_cancelling),
      T(what_waits_is_sent_after_closing), T(the_end_comes_behind_what_waits), T(an_abort_drops_what_waits),
      T(closing_the_loop_drops_it), T(a_write_timeout_counts_while_it_waits), T(a_pipe_is_spliced_to_a_socket),
      T(a_socket_is_spliced_to_a_pipe), T(a_reader_that_goes_fails_the_relay))
