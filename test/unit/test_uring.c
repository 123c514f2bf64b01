/* SPDX-License-Identifier: MIT
 *
 * What is particular about the io_uring poller, beyond the contract that test_pollers.c checks on all: requests
 * keep files open, a ring belongs to a thread, a host needs another kind of ring. threads: yes, lacks: all
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rings.h"
#include "streams.h"

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void make_pair(int fds[2]) {
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

static void a_descriptor_that_is_no_longer_watched_can_be_closed_at_once(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  use_ring(env);
  make_pair(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  aloop_run_once(env->loop, 0); /* the request is in the kernel */
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close(fds[0]);
  struct pollfd peer = {.fd = fds[1], .events = POLLIN};
  assert_int_equal(poll(&peer, 1, 0), 1); /* without another turn */
  assert_int_equal(calls, 0);
  close(fds[1]);
}

/* The request of a writer whose peer has ended one way stays armed, and is about to be answered. */
static void nor_does_a_request_that_is_about_to_be_answered_keep_it_open(void **state) {
  env_t *env = *state;
  char bytes[65536];
  int fds[2], calls = 0;
  use_ring(env);
  make_socketpair(fds);
  fill(fds[0]);
  assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), 0);
  for (int i = 0; i < 5; i++) aloop_run_once(env->loop, 0);
  assert_int_equal(calls, 0);
  while (drain(fds[1], bytes, sizeof bytes) > 0) continue;
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 1);
  close(fds[0]);
  aloop_run_once(env->loop, 0);
  struct pollfd peer = {.fd = fds[1], .events = POLLIN};
  assert_int_equal(poll(&peer, 1, 1000), 1);
  assert_int_equal(recv(fds[1], bytes, 1, 0), 0);
  assert_int_equal(calls, 0);
  close(fds[1]);
}

static void turns_that_find_nothing_make_no_system_call(void **state) {
  env_t *env = *state;
  int calls = 0;
  use_ring(env);
  for (int i = 0; i < 100; i++) {
    aloop_call_soon(env->loop, count, &calls);
    aloop_run_once(env->loop, 0);
  }
  assert_int_equal(calls, 100);
}

typedef struct visit {
  aloop_t *loop;
  int *counter;
  int wanted;
  bool failed;
} visit_t;

static void *run_here(void *arg) {
  visit_t *visit = arg;
  while (*visit->counter < visit->wanted && !visit->failed)
    visit->failed = aloop_run_once(visit->loop, ALOOP_SECONDS(5)) < 0;
  return NULL;
}

static void run_in_a_thread(visit_t *visit) {
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, run_here, visit), 0);
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_false(visit->failed);
}

static void a_loop_may_go_from_thread_to_thread(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  use_ring(env);
  make_pair(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  aloop_run_once(env->loop, 0);
  assert_int_equal(write(fds[1], "x", 1), 1);
  visit_t visit = {.loop = env->loop, .counter = &calls, .wanted = 2};
  run_in_a_thread(&visit);
  while (calls < 4) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close(fds[0]);
  close(fds[1]);
}

/* ---- Connections, of which the ring has requests as well ------------------------------------------------- */

static void until(env_t *env, const tape_t *tape, size_t size) {
  while (tape->size < size) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
}

static void connections_go_from_thread_to_thread_without_losing_a_byte(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  say(peer, "one ");
  until(env, &tape, 4);
  for (int i = 0; i < 5; i++) {
    int calls = 0;
    say(peer, "before "); /* perhaps received by the ring of the last thread */
    assert_true(aloop_run_once(env->loop, 0) >= 0);
    say(peer, "after ");
    aloop_call_soon(env->loop, count, &calls);
    visit_t visit = {.loop = env->loop, .counter = &calls, .wanted = 1};
    run_in_a_thread(&visit);
    until(env, &tape, 4 + 13 * ((size_t)i + 1));
  }
  assert_memory_equal(tape.bytes, "one before after before after ", 30);
  end_tape(&tape, peer);
}

static bool wait_as_host(aloop_t *loop) {
  struct pollfd backend = {.fd = aloop_backend_fd(loop), .events = POLLIN};
  int64_t timeout = aloop_next_timeout(loop);
  int ready = timeout == 0 ? 1 : poll(&backend, 1, 5000);
  return ready > 0 && aloop_run_once(loop, 0) >= 0;
}

static int free_it(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)context;
  ++*(int *)arg;
  aloop_free(loop);
  return 0;
}

/* Opening the ring anew tells of descriptors that were closed behind our back. */
static void who_hears_of_a_loss_may_free_the_loop(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0, reports = 0;
  use_ring(env);
  make_pair(fds);
  int high = fcntl(fds[0], F_DUPFD_CLOEXEC, 100);
  assert_int_equal(aloop_add_reader(env->loop, high, count, &calls), 0);
  aloop_run_once(env->loop, 0);
  close(high);
  aloop_set_exception_handler(env->loop, free_it, &reports);
  aloop_t *loop = env->loop;
  env->loop = NULL;
  assert_int_equal(aloop_backend_fd(loop), ALOOP_ECLOSED);
  assert_int_equal(reports, 1);
  close(fds[0]);
  close(fds[1]);
}

static void a_host_may_take_over_when_there_are_connections(void **state) {
  env_t *env = *state;
  use_ring(env);
  tape_t tape = {.env = env};
  int peer = open_tcp_tape(&tape, &plain_protocol);
  say(peer, "one ");
  until(env, &tape, 4);
  say(peer, "two ");
  for (size_t i = 0; i < 3; i++) {
    while (tape.size < 8 + 4 * i) assert_true(wait_as_host(env->loop));
    say(peer, "more");
  }
  assert_memory_equal(tape.bytes, "one two more", 12);
  end_tape(&tape, peer);
}

TESTS(T(who_hears_of_a_loss_may_free_the_loop), T(a_descriptor_that_is_no_longer_watched_can_be_closed_at_once),
      T(nor_does_a_request_that_is_about_to_be_answered_keep_it_open),
      T(turns_that_find_nothing_make_no_system_call), T(a_loop_may_go_from_thread_to_thread),
      T(connections_go_from_thread_to_thread_without_losing_a_byte),
      T(a_host_may_take_over_when_there_are_connections))
