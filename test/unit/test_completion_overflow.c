/* SPDX-License-Identifier: MIT
 *
 * Queues of four requests and four completions under live connections: much more ends at once than they hold,
 * the kernel keeps the rest or ends the requests that stay, and nothing may be lost. And a kernel that takes no
 * requests for a while. On io_uring only. wraps: syscall
 */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "crowd.h"
#include "dgrams.h"
#include "net/completion.h"
#include "peers.h"
#include "rings.h"
#include "streams.h"

#ifdef ALOOP_HAVE_IO_URING

static bool takes_nothing; /* the kernel, for want of memory */

/* As in support/faults.c. */
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
__attribute__((no_sanitize_address)) long __wrap_syscall(long number, ...) {
  long arg[6] = {0};
  int given = number == __NR_io_uring_enter ? 6 : 4;
  va_list args;
  va_start(args, number);
  for (int i = 0; i < given; i++) arg[i] = va_arg(args, long);
  va_end(args);
  if (takes_nothing && number == __NR_io_uring_enter) {
    errno = EAGAIN;
    return -1;
  }
  return __real_syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

static void use_short_queues(env_t *env) {
  use_completions(env);
  atomic_store(&aloop__ring_forbidden, ALOOP__RING_NO_ROOM);
  env_loop(env, (aloop_options_t){.poller = "uring"});
  atomic_store(&aloop__ring_forbidden, 0);
  assert_non_null(aloop__net_open(env->loop));
  assert_int_equal(aloop__completion_of(env->loop)->cq_mask, 3);
}

/* The kernel has finished everything that it can, and says that it was too much. */
static bool has_run_over(const env_t *env) {
  aloop__ring_t *ring = aloop__completion_of(env->loop);
  aloop__ring_hand_over(ring);
  return (atomic_load(ring->sq_flags) & IORING_SQ_CQ_OVERFLOW) != 0;
}

enum { MANY = 40, ROUNDS = 10 };
static tape_t tapes[MANY];
static int peers[MANY];

static void open_tapes(env_t *env) {
  for (int i = 0; i < MANY; i++) {
    tapes[i] = (tape_t){.env = env};
    peers[i] = open_tcp_tape(&tapes[i], &plain_protocol);
  }
  settle(env->loop);
}

static void await_bytes(env_t *env, size_t size) {
  for (int i = 0; i < MANY; i++)
    while (tapes[i].size < size) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(5)) >= 0);
}

static void expect_bytes(size_t rounds) {
  char text[64];
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(tapes[i].size, 8 * rounds);
    for (size_t round = 0; round < rounds; round++) {
      snprintf(text, sizeof text, "%3d %3zu,", i, round);
      assert_memory_equal(tapes[i].bytes + 8 * round, text, 8);
    }
  }
}

static void say_all(size_t round) {
  char text[64];
  for (int i = 0; i < MANY; i++) {
    snprintf(text, sizeof text, "%3d %3zu,", i, round);
    say(peers[i], text);
  }
}

static void end_tapes(void) {
  for (int i = 0; i < MANY; i++) reset_tape(&tapes[i], peers[i]);
}

static void no_byte_is_lost_and_every_receive_is_asked_for_again(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  open_tapes(env);
  long before = env->live;
  int run_over = 0;
  for (size_t round = 0; round < ROUNDS; round++) {
    say_all(round);
    run_over += has_run_over(env);
    await_bytes(env, 8 * (round + 1));
  }
  assert_true(run_over > 0);
  expect_bytes(ROUNDS);
  assert_int_equal(env->live, before);
  const aloop__completion_buffers_t *buffers = &aloop__completion_net(env->loop)->buffers;
  assert_int_equal(buffers->lent + buffers->spares_count, buffers->shape.count);
  end_tapes();
}

static void a_pause_while_it_runs_over_keeps_the_order(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  open_tapes(env);
  for (size_t round = 0; round < ROUNDS; round++) {
    say_all(round);
    for (int i = (int)round % 2; i < MANY; i += 2) aloop_transport_pause_reading(tapes[i].transport);
    settle(env->loop);
    for (int i = 0; i < MANY; i++) aloop_transport_resume_reading(tapes[i].transport);
  }
  await_bytes(env, 8 * ROUNDS);
  expect_bytes(ROUNDS);
  end_tapes();
}

static void ends_among_much_else_are_all_told(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  open_tapes(env);
  say_all(0);
  for (int i = 0; i < MANY; i += 2) {
    close(peers[i]);
    peers[i] = -1;
  }
  for (int i = 0; i < MANY; i += 2) run_until(env->loop, &tapes[i].lost);
  await_bytes(env, 8);
  expect_bytes(1);
  end_tapes();
}

static void all_connections_are_accepted(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  crowd_t crowd = {0};
  aloop_server_t *server = crowd_serve(env, &crowd);
  settle(env->loop);
  for (int i = 0; i < MANY; i++) peers[i] = peer_connect(aloop_server_port(server));
  run_until_count(env->loop, &crowd.made, MANY);
  for (int i = 0; i < MANY; i++) say(peers[i], "x");
  run_until_count(env->loop, &crowd.received, MANY);
  for (int i = 0; i < MANY; i++) close(peers[i]);
  run_until_count(env->loop, &crowd.lost, MANY);
  aloop_server_close(server);
  aloop_server_unref(server);
}

static void datagrams_come_in_order(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  post_t post = {.env = env};
  int port = open_udp(&post, &single_protocol);
  post_t other = {.env = env};
  connect_udp(&other, &single_protocol, port);
  settle(env->loop);
  char text[1024] = "";
  for (int i = 0; i < MANY; i++) {
    char line[16];
    snprintf(line, sizeof line, "%d", i);
    post_text(&other, line);
    strcat(strcat(text, line), "\n");
  }
  await_datagrams(&post, MANY);
  assert_string_equal(post.text, text);
  end_post(&other, -1);
  end_post(&post, -1);
}

/* ---- The kernel takes nothing ------------------------------------------------------------------------------ */

enum { ENDS = 3 * 4 }; /* more than the queue holds */

/* The end of a connection, which comes when the kernel has closed the other one. */
static void expect_end(env_t *env, int fd) {
  struct pollfd peer = {.fd = fd, .events = POLLIN};
  char byte;
  for (int i = 0; i < 10; i++) assert_true(aloop_run_once(env->loop, 0) >= 0);
  assert_int_equal(poll(&peer, 1, 1000), 1);
  assert_true(recv(fd, &byte, 1, 0) <= 0);
}

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void what_is_not_watched_any_more_is_closed_when_it_takes_requests_again(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  int fds[ENDS][2], calls = 0;
  for (int i = 0; i < ENDS; i++) {
    make_socketpair(fds[i]);
    assert_int_equal(aloop_add_reader(env->loop, fds[i][0], count, &calls), 0);
  }
  settle(env->loop);
  takes_nothing = true;
  for (int i = 0; i < ENDS; i++) {
    assert_int_equal(aloop_remove_reader(env->loop, fds[i][0]), 1);
    close(fds[i][0]);
  }
  assert_int_equal(aloop_run_once(env->loop, ALOOP_SECONDS(5)), 0); /* it does not wait with that */
  takes_nothing = false;
  for (int i = 0; i < ENDS; i++) {
    expect_end(env, fds[i][1]);
    close(fds[i][1]);
  }
  assert_int_equal(calls, 0);
}

static void connections_are_closed_when_it_takes_requests_again(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  open_tapes(env);
  takes_nothing = true;
  for (int i = 0; i < MANY; i++) aloop_transport_abort(tapes[i].transport);
  for (int i = 0; i < 5; i++) assert_true(aloop_run_once(env->loop, 0) >= 0);
  takes_nothing = false;
  for (int i = 0; i < MANY; i++) expect_end(env, peers[i]);
  end_tapes();
}

static void servers_and_endpoints_give_their_ports_up_when_it_takes_requests_again(void **state) {
  env_t *env = *state;
  use_short_queues(env);
  crowd_t crowd = {0};
  aloop_server_t *servers[ENDS];
  int ports[ENDS], udp_ports[ENDS];
  static post_t posts[ENDS];
  for (int i = 0; i < ENDS; i++) {
    servers[i] = crowd_serve(env, &crowd);
    ports[i] = aloop_server_port(servers[i]);
    posts[i] = (post_t){.env = env};
    udp_ports[i] = open_udp(&posts[i], &single_protocol);
  }
  settle(env->loop);
  takes_nothing = true;
  for (int i = 0; i < ENDS; i++) {
    aloop_datagram_abort(posts[i].endpoint);
    aloop_server_close(servers[i]);
    aloop_server_unref(servers[i]);
  }
  for (int i = 0; i < 5; i++) assert_true(aloop_run_once(env->loop, 0) >= 0);
  takes_nothing = false;
  settle(env->loop);
  for (int i = 0; i < ENDS; i++) {
    end_post(&posts[i], -1);
    int stream = socket(AF_INET, SOCK_STREAM, 0), dgram = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(stream, on_loopback(ports[i]), LOOPBACK_SIZE), 0);
    assert_int_equal(bind(dgram, on_loopback(udp_ports[i]), LOOPBACK_SIZE), 0);
    close(stream);
    close(dgram);
  }
}

TESTS(T(what_is_not_watched_any_more_is_closed_when_it_takes_requests_again),
      T(connections_are_closed_when_it_takes_requests_again),
      T(servers_and_endpoints_give_their_ports_up_when_it_takes_requests_again),
      T(no_byte_is_lost_and_every_receive_is_asked_for_again), T(a_pause_while_it_runs_over_keeps_the_order),
      T(ends_among_much_else_are_all_told), T(all_connections_are_accepted), T(datagrams_come_in_order))

#else

TESTS(T(there_is_no_ring_here))
#endif
