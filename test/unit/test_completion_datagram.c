/* SPDX-License-Identifier: MIT
 *
 * Datagrams of the completion driver, where it differs from the way through the poller that test_dgram_receive.c
 * and the others run through as well. On io_uring only. lacks: all
 */
#include "dgrams.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/completion.h"
#include "net/datagram.h"
#include "peers.h"
#include "rings.h"
#include "streams.h"

#ifdef ALOOP_HAVE_IO_URING

/* A plain socket that sends to the endpoint. */
static int client_of(const post_t *post) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  assert_int_equal(connect(fd, on_loopback(port_of(post->endpoint)), LOOPBACK_SIZE), 0);
  return fd;
}

static void send_numbers(int fd, int count) {
  char text[8];
  for (int i = 0; i < count; i++)
    assert_true(send(fd, text, (size_t)snprintf(text, sizeof text, "%d", i), 0) > 0);
}

static void expect_numbers(const post_t *post, size_t count) {
  const char *at = post->text;
  for (size_t i = 0; i < count; i++) {
    char text[12];
    int size = snprintf(text, sizeof text, "%zu\n", i);
    assert_memory_equal(at, text, (size_t)size);
    at += size;
  }
}

/* More than there are buffers: the receive ends, the rest is read, and it is asked for again. */
static void more_than_the_buffers_come_in_order(void **state) {
  enum { MANY = 3 * ALOOP__DGRAM_BATCH };
  post_t post = {.env = *state};
  use_ring(post.env);
  open_udp(&post, &single_protocol);
  int peer = client_of(&post);
  settle(post.env->loop);
  send_numbers(peer, MANY);
  await_datagrams(&post, MANY);
  expect_numbers(&post, MANY);
  assert_int_equal(post.errors_count, 0);
  end_post(&post, peer);
}

static uint64_t events_of(aloop_t *loop) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(loop, &metrics), 0);
  return metrics.events;
}

static void end_at_five(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                        socklen_t address_size) {
  (void)data, (void)size, (void)address_size;
  assert_non_null(address);
  if (post->datagrams == 5) aloop_datagram_abort(post->endpoint);
}

/* Far more than all buffers hold comes at once: nobody asks again and again, no datagram changes its place, and
 * those who end in the middle of it hear nothing more. */
static void those_that_find_no_buffer_are_received_all_the_same(void **state) {
  enum { MANY = 120, EACH = 8 };
  static post_t posts[MANY];
  int peers[MANY];
  env_t *env = *state;
  use_completions(env);
  for (int i = 0; i < MANY; i++) {
    posts[i] = (post_t){.env = env, .on_data = i % 10 == 0 ? end_at_five : NULL};
    open_udp(&posts[i], i % 2 == 0 ? &single_protocol : &batch_protocol);
    peers[i] = client_of(&posts[i]);
  }
  settle(env->loop);
  for (int i = 0; i < MANY; i++) send_numbers(peers[i], EACH);
  uint64_t before = events_of(env->loop);
  for (int i = 0; i < MANY; i++) await_datagrams(&posts[i], i % 10 == 0 ? 5 : EACH);
  assert_in_range(events_of(env->loop) - before, 1, MANY * EACH);
  for (int i = 0; i < MANY; i++) {
    expect_numbers(&posts[i], posts[i].datagrams);
    assert_int_equal(posts[i].errors_count, 0);
    end_post(&posts[i], peers[i]);
  }
}

static void those_of_one_turn_are_one_batch(void **state) {
  post_t post = {.env = *state};
  use_completions(post.env);
  open_udp(&post, &batch_protocol);
  int peer = client_of(&post);
  settle(post.env->loop);
  send_numbers(peer, 3);
  await_datagrams(&post, 3);
  expect_numbers(&post, 3);
  assert_int_equal(post.batches, 1);
  end_post(&post, peer);
}

static void a_closed_endpoint_leaves_its_port_at_once(void **state) {
  post_t post = {.env = *state};
  use_ring(post.env);
  int port = open_udp(&post, &single_protocol);
  settle(post.env->loop); /* the request is in the kernel */
  end_post(&post, -1);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, on_loopback(port), LOOPBACK_SIZE), 0);
  close(fd);
}

/* It waits in the queue while the endpoint is closed and another gets the number of its descriptor. */
static void a_late_datagram_reaches_nobody(void **state) {
  post_t old = {.env = *state}, new = {.env = *state};
  use_ring(old.env);
  open_udp(&old, &single_protocol);
  int peer = client_of(&old);
  settle(old.env->loop);
  send_numbers(peer, 1);
  aloop__ring_hand_over(aloop__completion_of(old.env->loop));
  aloop_datagram_abort(old.endpoint);
  while (!old.lost) aloop_run_once(old.env->loop, 0);
  int port = open_udp(&new, &single_protocol);
  assert_true(port > 0);
  settle(new.env->loop);
  assert_int_equal(old.datagrams + new.datagrams, 0);
  end_post(&old, peer);
  end_post(&new, -1);
}

static void another_ring_loses_no_datagram(void **state) {
  enum { MANY = 5 };
  post_t post = {.env = *state};
  use_ring(post.env);
  open_udp(&post, &single_protocol);
  int peer = client_of(&post);
  settle(post.env->loop);
  send_numbers(peer, MANY);
  assert_true(aloop_backend_fd(post.env->loop) >= 0); /* for a host, which needs another kind of ring */
  await_datagrams(&post, MANY);
  expect_numbers(&post, MANY);
  send_numbers(peer, 1);
  await_datagrams(&post, MANY + 1);
  end_post(&post, peer);
}

static void a_child_goes_on_with_its_endpoint(void **state) {
  post_t post = {.env = *state};
  use_ring(post.env);
  open_udp(&post, &single_protocol);
  int peer = client_of(&post);
  settle(post.env->loop);
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool well = aloop_after_fork(post.env->loop) == 0;
    send_numbers(peer, 1);
    while (well && post.datagrams < 1) well = aloop_run_once(post.env->loop, ALOOP_SECONDS(5)) >= 0;
    _exit(well ? 0 : 1);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  end_post(&post, peer);
}

TESTS(T(those_that_find_no_buffer_are_received_all_the_same), T(more_than_the_buffers_come_in_order),
      T(those_of_one_turn_are_one_batch), T(a_closed_endpoint_leaves_its_port_at_once),
      T(a_late_datagram_reaches_nobody), T(another_ring_loses_no_datagram),
      T(a_child_goes_on_with_its_endpoint))

#else

TESTS(T(there_is_no_ring_here))
#endif
