/* SPDX-License-Identifier: MIT
 *
 * The ring itself: what it does without when the kernel lacks something, and queues that run full or over. On
 * "uring" only; elsewhere there is nothing to test.
 */
#include "harness.h"

#include <string.h>
#include <unistd.h>

#include "core/loop.h"
#include "poller/ring.h"
#include "rings.h"

#ifdef ALOOP_HAVE_IO_URING

static void forbid(unsigned features) {
  atomic_store(&aloop__ring_forbidden, features);
}

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

/* Readiness, level by level, a timer, and a post: what every poller must do. */
static void check_loop(env_t *env) {
  int fds[2], calls = 0, later = 0, posts = 0;
  make_pipe(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  aloop_call_later(env->loop, ALOOP_MICROS(100), count, &later);
  assert_int_equal(aloop_call_soon_threadsafe(env->loop, count, &posts), 0);
  assert_int_equal(write(fds[1], "x", 1), 1);
  while (calls < 3 || later < 1 || posts < 1) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close(fds[0]);
  close(fds[1]);
}

static void it_does_without_what_the_kernel_lacks(void **state) {
  enum { FLAGS = ALOOP__RING_NO_DEFER | ALOOP__RING_NO_SINGLE | ALOOP__RING_NO_COOP };
  static const unsigned lacks[] = {
      0,
      ALOOP__RING_NO_SQARRAY,
      ALOOP__RING_NO_DEFER,
      ALOOP__RING_NO_DEFER | ALOOP__RING_NO_SINGLE,
      ALOOP__RING_NO_DEFER | ALOOP__RING_NO_COOP,
      FLAGS,
      ALOOP__RING_NO_ROOM,
      FLAGS | ALOOP__RING_NO_SQARRAY | ALOOP__RING_NO_ROOM,
  };
  use_ring(*state);
  for (size_t i = 0; i < sizeof lacks / sizeof lacks[0]; i++) {
    forbid(lacks[i]);
    env_loop(*state, (aloop_options_t){.poller = "uring"});
    forbid(0);
    assert_string_equal(aloop_poller_name(((env_t *)*state)->loop), "uring");
    assert_string_equal(aloop_poller_reason(((env_t *)*state)->loop), "");
    check_loop(*state);
  }
}

static void expect_another_poller(env_t *env, unsigned lack, const char *reason) {
  forbid(lack);
  env_loop(env, (aloop_options_t){.poller = "uring"});
  forbid(0);
  assert_string_equal(aloop_poller_name(env->loop), aloop_poller_find(NULL)->name);
  assert_string_equal(aloop_poller_reason(env->loop), reason);
  check_loop(env);
}

static void without_io_uring_the_usual_poller_serves_and_says_why(void **state) {
  expect_another_poller(*state, ALOOP__RING_NOTHING, "the kernel was built without io_uring");
}

static void an_io_uring_that_is_too_old_is_not_used(void **state) {
  static const char reason[] = "the kernel's io_uring is older than 5.19";
  use_ring(*state);
  expect_another_poller(*state, ALOOP__RING_NO_TIMEOUT, reason);
  expect_another_poller(*state, ALOOP__RING_NO_SILENCE, reason);
  expect_another_poller(*state, ALOOP__RING_NO_BACKLOG, reason);
}

/* Many times as many as the queue of requests holds. */
static void more_requests_than_the_queue_holds_are_all_made(void **state) {
  enum { MANY = 200, ROUNDS = 6 };
  env_t *env = *state;
  use_ring(env);
  int fds[MANY][2], calls = 0;
  for (int i = 0; i < MANY; i++) make_pipe(fds[i]);
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < MANY; i++) assert_int_equal(aloop_add_writer(env->loop, fds[i][1], count, &calls), 0);
    calls = 0;
    while (calls < MANY) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
  }
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(aloop_remove_writer(env->loop, fds[i][1]), 1);
    close(fds[i][0]);
    close(fds[i][1]);
  }
}

/* More than the queue of completions holds; what does not fit is kept by the kernel. */
static void completions_that_run_over_come_later(void **state) {
  (void)state;
  enum { ENTRIES = 4, MANY = 100 };
  aloop__ring_t ring;
  const char *reason = NULL;
  if (aloop__ring_open(&ring, ENTRIES, false, &reason) < 0) skip();
  for (uint64_t i = 0; i < MANY; i++) {
    struct io_uring_sqe *request = aloop__ring_request(&ring);
    assert_non_null(request);
    request->opcode = IORING_OP_NOP;
    request->user_data = i;
  }
  uint64_t seen = 0;
  while (seen < MANY) {
    assert_int_equal(aloop__ring_enter(&ring, aloop__ring_completed(&ring) == 0, ALOOP_SECONDS(5)), 0);
    for (; aloop__ring_completed(&ring) > 0; aloop__ring_take(&ring, 1))
      assert_int_equal(aloop__ring_peek(&ring, 0)->user_data, seen++);
  }
  aloop__ring_close(&ring);
}

static void a_wait_ends_in_time(void **state) {
  (void)state;
  aloop__ring_t ring;
  const char *reason = NULL;
  if (aloop__ring_open(&ring, 4, false, &reason) < 0) skip();
  assert_int_equal(aloop__ring_enter(&ring, true, ALOOP_MILLIS(1)), ALOOP_EAGAIN);
  assert_int_equal(aloop__ring_completed(&ring), 0);
  aloop__ring_close(&ring);
}

TESTS(T(it_does_without_what_the_kernel_lacks), T(without_io_uring_the_usual_poller_serves_and_says_why),
      T(an_io_uring_that_is_too_old_is_not_used), T(more_requests_than_the_queue_holds_are_all_made),
      T(completions_that_run_over_come_later), T(a_wait_ends_in_time))

#else

TESTS(T(there_is_no_ring_here))
#endif
