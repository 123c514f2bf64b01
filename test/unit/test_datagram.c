/* SPDX-License-Identifier: MIT
 *
 * The life of a datagram endpoint: its callbacks and their order, every way in which it ends, and what it tells
 * of itself. pollers: all
 */
#include "dgrams.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "streams.h"

static void made_first_and_lost_last(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(send(peer, "hello", 5, 0), 5);
  await_datagrams(&post, 1);
  aloop_datagram_close(post.endpoint);
  assert_false(post.lost);
  settle(post.env->loop);
  assert_string_equal(post.events, "MDL");
  assert_int_equal(post.error, 0);
  end_post(&post, peer);
}

static void nothing_is_received_after_close(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(send(peer, "late", 4, 0), 4);
  aloop_datagram_close(post.endpoint);
  assert_true(aloop_datagram_is_closing(post.endpoint));
  settle(post.env->loop);
  assert_string_equal(post.events, "ML");
  end_post(&post, peer);
}

static void close_sends_what_waits_and_abort_drops_it(void **state) {
  for (int closing = 0; closing < 2; closing++) {
    post_t post = {.env = *state};
    int peer = open_pair(&post, &single_protocol);
    size_t count = fill_pair(&post) + 1;
    if (closing)
      aloop_datagram_close(post.endpoint);
    else
      aloop_datagram_abort(post.endpoint);
    assert_int_equal(aloop_datagram_sendto(post.endpoint, "x", 1, NULL, 0), ALOOP_ECLOSED);
    settle(post.env->loop);
    assert_int_equal(post.lost, !closing);
    size_t came = strlen(lines_at(peer)) / 8;
    settle(post.env->loop);
    assert_true(post.lost);
    assert_int_equal(came + strlen(lines_at(peer)) / 8, closing ? count : count - 1);
    assert_int_equal(post.error, 0);
    end_post(&post, peer);
  }
}

static void close_in_callback(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                              socklen_t address_size) {
  (void)address;
  (void)address_size;
  aloop_datagram_sendto(post->endpoint, data, size, NULL, 0);
  aloop_datagram_close(post->endpoint);
}

static void closing_inside_a_callback_drops_the_rest_of_the_batch(void **state) {
  post_t post = {.env = *state, .on_data = close_in_callback};
  int peer = open_pair(&post, &single_protocol);
  for (int i = 0; i < 5; i++) assert_int_equal(send(peer, "x", 1, 0), 1);
  settle(post.env->loop);
  assert_string_equal(post.events, "MDL");
  assert_string_equal(lines_at(peer), "x\n");
  end_post(&post, peer);
}

static void abort_at_once(post_t *post) {
  aloop_datagram_abort(post->endpoint);
}

static void an_endpoint_may_end_in_connection_made(void **state) {
  post_t post = {.env = *state, .on_made = abort_at_once};
  int peer = open_pair(&post, &single_protocol);
  settle(post.env->loop);
  assert_string_equal(post.events, "ML");
  end_post(&post, peer);
}

static void a_closed_loop_ends_it(void **state) {
  env_t *env = *state;
  post_t post = {.env = env};
  int peer = open_pair(&post, &single_protocol);
  fill_pair(&post);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_string_equal(post.events, "ML");
  assert_int_equal(post.error, ALOOP_ECLOSED);
  assert_int_equal(aloop_datagram_sendto(post.endpoint, "x", 1, NULL, 0), ALOOP_ECLOSED);
  aloop_datagram_unref(post.endpoint);
  close(peer);
}

static void an_open_endpoint_is_reported_in_debug_mode(void **state) {
  env_t *env = *state;
  post_t post = {.env = env};
  aloop_set_debug(env->loop, true);
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_int_equal(env->reports, 1);
  assert_string_equal(env->report_messages[0], "a datagram endpoint was still open when its loop was closed");
  aloop_datagram_unref(post.endpoint);
  close(peer);
}

static void later_datagrams_go_to_the_new_protocol(void **state) {
  post_t post = {.env = *state}, other = {.env = *state};
  const aloop_datagram_protocol_t *table;
  int peer = open_pair(&post, &single_protocol);
  assert_ptr_equal(aloop_datagram_get_protocol(post.endpoint, &table), &post);
  assert_ptr_equal(table, &single_protocol);
  other.endpoint = post.endpoint;
  assert_int_equal(aloop_datagram_set_protocol(post.endpoint, &batch_protocol, &other), 0);
  assert_int_equal(send(peer, "x", 1, 0), 1);
  await_datagrams(&other, 1);
  assert_string_equal(other.events, "B");
  assert_int_equal(aloop_datagram_set_protocol(post.endpoint, &single_protocol, &post), 0);
  end_post(&post, peer);
}

typedef struct lines {
  char text[4096];
} lines_t;

static void add_line(void *arg, const char *text) {
  lines_t *lines = arg;
  size_t used = strlen(lines->text);
  snprintf(lines->text + used, sizeof lines->text - used, "%s\n", text);
}

static void metrics_and_the_dump_show_it(void **state) {
  env_t *env = *state;
  post_t post = {.env = env};
  aloop_metrics_t metrics = {.size = sizeof metrics};
  lines_t lines = {.text = ""};
  char wanted[80];
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  assert_int_equal(metrics.datagrams, 1);
  fill_pair(&post);
  aloop_dump(env->loop, add_line, &lines);
  snprintf(wanted, sizeof wanted, "datagram endpoint fd %d, open, 7 bytes to send",
           aloop_datagram_fd(post.endpoint));
  assert_non_null(strstr(lines.text, wanted));
  assert_non_null(strstr(lines.text, ", 1 datagram endpoints"));
  end_post(&post, peer);
}

static void it_knows_its_addresses(void **state) {
  env_t *env = *state;
  post_t server = {.env = env}, client = {.env = env};
  struct sockaddr_storage address;
  struct sockaddr *name = (struct sockaddr *)(void *)&address;
  socklen_t size = sizeof address;
  int port = open_udp(&server, &single_protocol);
  assert_int_equal(aloop_datagram_peername(server.endpoint, name, &size), ALOOP_ENOTCONN);
  connect_udp(&client, &single_protocol, port);
  assert_int_equal(aloop_datagram_peername(client.endpoint, name, &size), 0);
  assert_int_equal(size, LOOPBACK_SIZE);
  assert_memory_equal(name, on_loopback(port), 8);
  assert_ptr_equal(aloop_datagram_loop(client.endpoint), env->loop);
  assert_true(aloop_datagram_fd(client.endpoint) >= 0);
  end_post(&client, -1);
  assert_int_equal(aloop_datagram_sockname(client.endpoint = NULL, name, &size), ALOOP_EINVAL);
  end_post(&server, -1);
}

static void a_child_goes_on_with_it(void **state) {
  post_t post = {.env = *state};
  int peer = open_pair(&post, &single_protocol);
  assert_int_equal(aloop_after_fork(post.env->loop), 0);
  assert_int_equal(send(peer, "x", 1, 0), 1);
  await_datagrams(&post, 1);
  end_post(&post, peer);
}

static void play(env_t *env) {
  post_t post = {.env = env};
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) return;
  aloop_datagram_options_t options = {.size = sizeof options, .fd = fds[0]};
  aloop_future_t *future = aloop_create_datagram_endpoint(env->loop, &single_protocol, &post, &options);
  for (int i = 0; i < 10; i++) aloop_run_once(env->loop, 0);
  bool mine = future == NULL || aloop_future_result(future) < 0;
  if (!mine) {
    for (int i = 0; i < 400; i++) {
      int rc = aloop_datagram_sendto(post.endpoint, "hello", 5, NULL, 0);
      assert_true(rc == 0 || rc == ALOOP_ENOMEM);
      if (rc < 0) break;
    }
    lines_at(fds[1]);
    (void)!send(fds[1], "x", 1, 0);
    for (int i = 0; i < 10; i++) aloop_run_once(env->loop, 0);
    aloop_datagram_close(post.endpoint);
  }
  env->fail_from = 0;
  aloop_future_unref(future);
  aloop_close(env->loop);
  assert_true(post.events_count == 0 || post.lost);
  aloop_datagram_unref(post.endpoint);
  if (mine && post.events_count == 0) close(fds[0]);
  close(fds[1]);
}

static void no_memory_leaves_nothing_behind(void **state) {
  torture(*state, play);
}

TESTS(T(made_first_and_lost_last), T(nothing_is_received_after_close),
      T(close_sends_what_waits_and_abort_drops_it), T(closing_inside_a_callback_drops_the_rest_of_the_batch),
      T(an_endpoint_may_end_in_connection_made), T(a_closed_loop_ends_it),
      T(an_open_endpoint_is_reported_in_debug_mode), T(later_datagrams_go_to_the_new_protocol),
      T(metrics_and_the_dump_show_it), T(it_knows_its_addresses), T(a_child_goes_on_with_it),
      T(no_memory_leaves_nothing_behind))
