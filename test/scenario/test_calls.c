/* SPDX-License-Identifier: MIT
 *
 * The system calls of ordinary work, counted: what a request, a connection's writes, a timer and a post cost
 * the kernel. These are promises as much as the results are.
 *
 * threads: yes faults: yes / */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "faults.h"
#include "streams.h"

enum { ROUNDS = 100 };

static void begin_counting(void) {
  faults_begin(FAULT_NONE, 0, 0);
}

static long waits(void) {
  return faults_calls_of("epoll_wait") + faults_calls_of("epoll_pwait2") + faults_calls_of("poll") +
         faults_calls_of("ppoll");
}

/* One request and its answer: one turn of the loop. */
static void exchange(tape_t *tape, int peer) {
  char answer[64];
  faults_pause();
  assert_int_equal(write(peer, "request", 7), 7);
  faults_resume();
  assert_true(aloop_run_once(tape->env->loop, ALOOP_SECONDS(10)) >= 0);
  faults_pause();
  assert_true(drain(peer, answer, sizeof answer) > 0);
  faults_resume();
}

static void answer_once(tape_t *tape) {
  assert_int_equal(aloop_transport_write(tape->transport, tape->data, tape->data_size), 0);
}

static void answer_in_pieces(tape_t *tape) {
  static const char other[] = "other";
  struct iovec two[2] = {{(void *)other, 5}, {(void *)tape->data, tape->data_size}};
  for (int i = 0; i < 3; i++) assert_int_equal(aloop_transport_write(tape->transport, "piece", 5), 0);
  assert_int_equal(aloop_transport_writev(tape->transport, two, 2), 0);
  assert_int_equal(aloop_transport_write(tape->transport, other, 5), 0);
}

static void expect_per_request(env_t *env, void (*answer)(tape_t *tape), long sends) {
  tape_t tape = {.env = env, .on[DATA] = answer};
  int peer = open_tape(&tape, &plain_protocol);
  exchange(&tape, peer); /* in which a call may turn out to be missing in this kernel */
  begin_counting();
  for (int i = 0; i < ROUNDS; i++) exchange(&tape, peer);
  faults_end();
  assert_int_equal(faults_calls_of("recv"), ROUNDS);
  assert_int_equal(faults_calls_of("send") + faults_calls_of("sendmsg"), sends * ROUNDS);
  assert_int_equal(waits(), ROUNDS);
  assert_int_equal(faults_calls(), (2 + sends) * ROUNDS);
  end_tape(&tape, peer);
}

static void a_request_costs_a_wait_a_read_and_a_send(void **state) {
  expect_per_request(*state, answer_once, 1);
}

static void an_answer_in_pieces_leaves_in_one_send(void **state) {
  expect_per_request(*state, answer_in_pieces, 1);
}

static void answer_with_a_file(tape_t *tape) {
  aloop_future_t *sent = aloop_sendfile(tape->transport, fileno(tape->arg), 0, 0, 0);
  assert_string_equal(aloop_future_message(sent), "");
  aloop_future_detach(sent);
}

static void a_small_file_needs_no_word_with_the_poller(void **state) {
  env_t *env = *state;
#if !ALOOP_HAVE_LINUX_SENDFILE
  skip(); /* a thread reads it */
#endif
  FILE *file = tmpfile();
  tape_t tape = {.env = env, .on[DATA] = answer_with_a_file, .arg = file};
  assert_non_null(file);
  assert_true(fputs("a small file", file) >= 0 && fflush(file) == 0);
  int peer = open_tape(&tape, &plain_protocol);
  begin_counting();
  for (int i = 0; i < ROUNDS; i++) {
    char answer[64];
    faults_pause();
    assert_int_equal(write(peer, "request", 7), 7);
    faults_resume();
    assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(10)) >= 0);
    faults_pause();
    assert_int_equal(drain(peer, answer, sizeof answer), 12);
    faults_resume();
  }
  faults_end();
  assert_int_equal(faults_calls_of("epoll_ctl"), 0);
  fclose(file);
  end_tape(&tape, peer);
}

static void a_connection_costs_one_registration(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  if (!on_poller(env, "epoll")) skip();
  run_turn(env->loop); /* which registers the wake-up */
  begin_counting();
  faults_pause();
  int fds[2];
  make_socketpair(fds);
  faults_resume();
  attach_tape(&tape, &plain_protocol, fds[0]);
  while (tape.calls[MADE] == 0) run_turn(env->loop);
  assert_int_equal(faults_calls_of("epoll_ctl"), 1);
  aloop_transport_close(tape.transport);
  run_until(env->loop, &tape.lost);
  faults_end();
  assert_int_equal(faults_calls_of("epoll_ctl"), 2);
  assert_int_equal(faults_calls_of("close"), 1);
  assert_int_equal(faults_calls() - waits(), 3);
  release_tape(&tape, fds[1]);
}

static void never(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  fail();
}

static void timers_cost_nothing_before_the_wait(void **state) {
  env_t *env = *state;
  begin_counting();
  for (int i = 0; i < ROUNDS; i++) {
    aloop_handle_t handle = aloop_call_later(env->loop, ALOOP_SECONDS(3600 + i % 7), never, NULL);
    aloop_reschedule(env->loop, &handle, aloop_time(env->loop) + ALOOP_SECONDS(7200));
    assert_int_equal(aloop_cancel(env->loop, &handle), 1);
  }
  faults_end();
  assert_int_equal(faults_calls(), 0);
}

/* ---- Posts ------------------------------------------------------------------------------------------------- */

enum { POSTERS = 4, POSTS = 20000 };

typedef struct poster {
  aloop_t *loop;
  pthread_t thread;
  int *total;
} poster_t;

static void count_post(aloop_t *loop, void *arg) {
  int *total = arg;
  if (++*total == POSTERS * POSTS) aloop_stop(loop);
}

static void *post_all(void *arg) {
  poster_t *poster = arg;
  for (int i = 0; i < POSTS; i++) {
    if (aloop_call_soon_threadsafe(poster->loop, count_post, poster->total) < 0) return arg;
    if (i % 977 == 0) sched_yield(); /* let the loop fall asleep now and then */
  }
  return NULL;
}

static void one_wake_up_per_sleep_whoever_posts(void **state) {
  env_t *env = *state;
  poster_t posters[POSTERS];
  int total = 0;
  begin_counting();
  for (int i = 0; i < POSTERS; i++) {
    posters[i] = (poster_t){.loop = env->loop, .total = &total};
    assert_int_equal(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
  }
  assert_int_equal(aloop_run_forever(env->loop), 0);
  for (int i = 0; i < POSTERS; i++) {
    void *failed;
    pthread_join(posters[i].thread, &failed);
    assert_null(failed);
  }
  faults_end();
  /* Each wait is at most one sleep; the first post of all is one more. */
  assert_in_range(faults_calls_of("write"), 1, waits() + 1);
}

TESTS(T(a_request_costs_a_wait_a_read_and_a_send), T(an_answer_in_pieces_leaves_in_one_send),
      T(a_small_file_needs_no_word_with_the_poller), T(a_connection_costs_one_registration),
      T(timers_cost_nothing_before_the_wait), T(one_wake_up_per_sleep_whoever_posts))
