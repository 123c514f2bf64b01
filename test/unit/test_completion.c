/* SPDX-License-Identifier: MIT
 *
 * The completion driver, where it differs from the readiness driver that test_stream.c and the others run
 * through as well: buffers that the kernel takes, bytes that come when nobody wants them any more, requests
 * that outlive their connections. On io_uring only; kernels that lack something have to do the same by other
 * means. faults: yes, lacks: all
 */
#include "harness.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/completion.h"
#include "peers.h"
#include "rings.h"
#include "streams.h"

#ifdef ALOOP_HAVE_IO_URING

/* ---- Bytes that nobody wants now ------------------------------------------------------------------------- */

static void what_came_during_a_pause_is_delivered_in_order(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  say(peer, "one ");
  aloop_transport_pause_reading(tape.transport); /* the kernel may have received it already */
  settle(env->loop);
  assert_int_equal(tape.size, 0);
  say(peer, "two ");
  settle(env->loop);
  assert_int_equal(tape.size, 0);
  aloop_transport_resume_reading(tape.transport);
  assert_int_equal(tape.size, 0); /* never inside the call */
  say(peer, "three");
  while (tape.size < 13) aloop_run_once(env->loop, ALOOP_SECONDS(5));
  assert_memory_equal(tape.bytes, "one two three", 13);
  end_tape(&tape, peer);
}

static void pause_here(tape_t *tape) {
  aloop_transport_pause_reading(tape->transport);
}

static void stop_hard(tape_t *tape) {
  aloop_stop_with_error(tape->env->loop, ALOOP_EINTR);
}

static void what_is_held_waits_when_the_run_has_been_ended(void **state) {
  enum { MANY = 3 };
  env_t *env = *state;
  use_ring(env);
  tape_t tapes[MANY];
  int peers[MANY];
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env, .on[DATA] = pause_here};
    peers[i] = open_tcp_tape(&tapes[i], &plain_protocol);
  }
  settle(env->loop);
  for (int i = 0; i < MANY; i++) fill(peers[i]);
  settle(env->loop); /* the first piece of each has come, and others are held */
  for (int i = 0; i < MANY; i++) {
    tapes[i].on[DATA] = stop_hard;
    tapes[i].calls[DATA] = 0;
    aloop_transport_resume_reading(tapes[i].transport);
  }
  for (long calls = 1; calls <= MANY; calls++) {
    long made = 0;
    int rc;
    do rc = aloop_run_once(env->loop, ALOOP_SECONDS(5));
    while (rc >= 0);
    assert_int_equal(rc, ALOOP_EINTR);
    for (int i = 0; i < MANY; i++) made += tapes[i].calls[DATA];
    assert_int_equal(made, calls);
  }
  for (int i = 0; i < MANY; i++) tapes[i].on[DATA] = NULL;
  for (int i = 0; i < MANY; i++) end_tape(&tapes[i], peers[i]);
}

static void a_pause_in_the_midst_of_much_loses_nothing(void **state) {
  enum { ROUNDS = 50 };
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env, .on[DATA] = pause_here};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  size_t said = 0;
  for (int i = 0; i < ROUNDS; i++) {
    said += fill(peer);
    settle(env->loop);
    aloop_transport_resume_reading(tape.transport);
    settle(env->loop);
  }
  tape.on[DATA] = NULL;
  aloop_transport_resume_reading(tape.transport);
  while (tape.size < said) aloop_run_once(env->loop, ALOOP_SECONDS(5));
  assert_int_equal(tape.size, said);
  end_tape(&tape, peer);
}

static void an_end_waits_for_what_was_held_before_it(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  say(peer, "last words");
  shutdown(peer, SHUT_WR);
  aloop_transport_pause_reading(tape.transport);
  settle(env->loop);
  assert_string_equal(tape.events, "M");
  aloop_transport_resume_reading(tape.transport);
  while (!tape.lost) aloop_run_once(env->loop, ALOOP_SECONDS(5));
  assert_string_equal(tape.events, "MDEL");
  assert_int_equal(tape.size, 10);
  end_tape(&tape, peer);
}

static void abort_and_look(tape_t *tape) {
  aloop_transport_abort(tape->transport);
  assert_int_equal(tape->data[0], 'o'); /* read here, so that the address sanitizer sees it */
}

static void held_bytes_stay_during_the_call_that_aborts(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env, .on[DATA] = abort_and_look};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  say(peer, "one ");
  aloop__ring_hand_over(aloop__completion_of(env->loop)); /* the kernel has received it */
  aloop_transport_pause_reading(tape.transport);
  settle(env->loop);
  say(peer, "two ");
  aloop_transport_resume_reading(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_memory_equal(tape.bytes, "one", 3);
  end_tape(&tape, peer);
}

static void a_tiny_buffer_gets_all_bytes_in_order(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env, .offer = 3};
  int peer = open_tcp_tape(&tape, &buffered_protocol);
  char text[5000];
  for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + i % 26);
  assert_int_equal(write(peer, text, sizeof text), sizeof text);
  while (tape.size < sizeof text) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  assert_memory_equal(tape.bytes, text, sizeof text);
  end_tape(&tape, peer);
}

/* ---- Buffers --------------------------------------------------------------------------------------------- */

static void more_connections_than_lent_buffers_all_get_their_bytes(void **state) {
  enum { MANY = 64, ROUNDS = 3 };
  static tape_t tapes[MANY];
  static int peers[MANY];
  env_t *env = *state;
  use_ring(env);
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env};
    peers[i] = open_tcp_tape(&tapes[i], &plain_protocol);
  }
  settle(env->loop);
  long before = env->live;
  for (size_t round = 1; round <= ROUNDS; round++) {
    for (int i = 0; i < MANY; i++) say(peers[i], "all at once");
    for (int i = 0; i < MANY; i++)
      while (tapes[i].size < 11 * round) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  }
  assert_int_equal(env->live, before); /* idle again, they hold nothing */
  for (int i = 0; i < MANY; i++) reset_tape(&tapes[i], peers[i]);
}

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void a_late_completion_does_not_reach_the_next_owner_of_a_number(void **state) {
  env_t *env = *state;
  use_ring(env);
  for (int i = 0; i < 50; i++) {
    tape_t old = {.env = env}, new = {.env = env};
    int peer = open_tcp_tape(&old, &plain_protocol);
    settle(env->loop);
    say(peer, "for the old one");
    aloop_transport_abort(old.transport);
    while (!old.lost) aloop_run_once(env->loop, 0);
    int other = open_tcp_tape(&new, &plain_protocol);
    say(other, "new");
    while (new.size < 3) aloop_run_once(env->loop, ALOOP_SECONDS(5));
    assert_memory_equal(new.bytes, "new", 3);
    assert_int_equal(new.size, 3);
    end_tape(&old, peer);
    end_tape(&new, other);
  }
}

static void a_closed_connection_is_closed_when_the_run_ends(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  aloop_transport_close(tape.transport);
  while (!tape.lost) aloop_run_once(env->loop, 0);
  assert_int_equal(peer_look(peer), PEER_EOF);
  end_tape(&tape, peer);
}

static void closing_the_loop_closes_its_connections(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(peer_look(peer), PEER_EOF);
  release_tape(&tape, peer);
}

/* ---- Fork ------------------------------------------------------------------------------------------------ */

/* A completion waits in the queue, which parent and child both see. */
static void a_child_leaves_the_completions_to_its_parent(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  say(peer, "one ");
  aloop__ring_hand_over(aloop__completion_of(env->loop));
  pid_t child = fork();
  if (child == 0) {
    aloop_transport_pause_reading(tape.transport);
    aloop_transport_resume_reading(tape.transport);
    aloop_transport_abort(tape.transport);
    aloop_free(env->loop);
    _exit(0);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  say(peer, "two");
  while (tape.size < 7) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  assert_memory_equal(tape.bytes, "one two", 7);
  end_tape(&tape, peer);
}

static void a_child_goes_on_with_the_connections(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  settle(env->loop);
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    aloop_transport_pause_reading(tape.transport);
    aloop_transport_resume_reading(tape.transport);
    bool well = aloop_after_fork(env->loop) == 0;
    while (well && tape.size < 9) well = aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0;
    _exit(well && memcmp(tape.bytes, "for child", 9) == 0 ? 0 : 1);
  }
  say(peer, "for child"); /* the parent does not read meanwhile */
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  end_tape(&tape, peer);
}

static void an_older_kernel_gets_the_readiness_driver(void **state) {
  env_t *env = *state;
  use_completions(env);
  atomic_store(&aloop__ring_forbidden, ALOOP__RING_NO_DRIVER);
  env_loop(env, (aloop_options_t){.poller = "uring"});
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  atomic_store(&aloop__ring_forbidden, 0);
  assert_ptr_equal(aloop__net_of(env->loop)->driver, &aloop__driver_readiness);
  say(peer, "by polls");
  while (tape.size < 8) aloop_run_once(env->loop, ALOOP_SECONDS(5));
  end_tape(&tape, peer);
}

TESTS(T(what_came_during_a_pause_is_delivered_in_order), T(a_pause_in_the_midst_of_much_loses_nothing),
      T(what_is_held_waits_when_the_run_has_been_ended), T(an_end_waits_for_what_was_held_before_it),
      T(a_tiny_buffer_gets_all_bytes_in_order), T(held_bytes_stay_during_the_call_that_aborts),
      T(more_connections_than_lent_buffers_all_get_their_bytes),
      T(a_late_completion_does_not_reach_the_next_owner_of_a_number),
      T(a_closed_connection_is_closed_when_the_run_ends), T(closing_the_loop_closes_its_connections),
      T(a_child_leaves_the_completions_to_its_parent), T(a_child_goes_on_with_the_connections),
      T(an_older_kernel_gets_the_readiness_driver))

#else

TESTS(T(there_is_no_ring_here))
#endif
