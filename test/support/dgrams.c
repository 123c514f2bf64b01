/* SPDX-License-Identifier: MIT */
#include "dgrams.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peers.h"
#include "streams.h"

static void note(post_t *post, char event) {
  if (post->events_count == sizeof post->events - 1) post->events_count--; /* the last one counts */
  post->events[post->events_count++] = event;
}

static void *create(void *arg) {
  post_t *post = arg;
  return post->refuse ? NULL : post;
}

static void made(aloop_datagram_t *endpoint, void *protocol) {
  post_t *post = protocol;
  assert_int_equal(post->events_count, 0);
  note(post, 'M');
  post->endpoint = aloop_datagram_ref(endpoint);
  if (post->on_made != NULL) post->on_made(post);
}

static void keep_text(post_t *post, const char *data, size_t size) {
  if (size + 1 >= sizeof post->text - post->text_size) return;
  if (size > 0) memcpy(post->text + post->text_size, data, size);
  post->text_size += size;
  post->text[post->text_size++] = '\n';
}

static void keep_message(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                         socklen_t address_size) {
  assert_false(post->lost);
  post->datagrams++;
  if (size > post->largest) post->largest = size;
  keep_text(post, data, size);
  post->from_size = address != NULL ? address_size : 0;
  if (address != NULL) memcpy(&post->from, address, address_size);
}

static void received(aloop_datagram_t *endpoint, void *protocol, const void *data, size_t size,
                     const struct sockaddr *address, socklen_t address_size) {
  post_t *post = protocol;
  assert_ptr_equal(endpoint, post->endpoint);
  note(post, 'D');
  keep_message(post, data, size, address, address_size);
  if (post->on_data != NULL) post->on_data(post, data, size, address, address_size);
}

static void received_all(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                         size_t count) {
  post_t *post = protocol;
  assert_ptr_equal(endpoint, post->endpoint);
  assert_true(count > 0);
  note(post, 'B');
  post->batches++;
  for (size_t i = 0; i < count; i++)
    keep_message(post, messages[i].data, messages[i].size, messages[i].address, messages[i].address_size);
  if (post->on_batch != NULL) post->on_batch(post, messages, count);
}

static void failed(aloop_datagram_t *endpoint, void *protocol, int error) {
  post_t *post = protocol;
  assert_ptr_equal(endpoint, post->endpoint);
  assert_true(error < 0);
  assert_false(post->lost);
  note(post, 'E');
  if (post->errors_count < 64) post->errors[post->errors_count] = error;
  post->errors_count++;
  if (post->on_error != NULL) post->on_error(post);
}

static void paused(aloop_datagram_t *endpoint, void *protocol) {
  post_t *post = protocol;
  (void)endpoint;
  note(post, 'P');
  if (post->on_pause != NULL) post->on_pause(post);
}

static void resumed(aloop_datagram_t *endpoint, void *protocol) {
  post_t *post = protocol;
  (void)endpoint;
  note(post, 'R');
  if (post->on_resume != NULL) post->on_resume(post);
}

static void lost(aloop_datagram_t *endpoint, void *protocol, int error) {
  post_t *post = protocol;
  assert_ptr_equal(endpoint, post->endpoint);
  assert_false(post->lost);
  note(post, 'L');
  post->lost = true;
  post->error = error;
}

const aloop_datagram_protocol_t single_protocol = {.size = sizeof single_protocol,
                                                   .create = create,
                                                   .connection_made = made,
                                                   .datagram_received = received,
                                                   .error_received = failed,
                                                   .pause_writing = paused,
                                                   .resume_writing = resumed,
                                                   .connection_lost = lost};

const aloop_datagram_protocol_t batch_protocol = {.size = sizeof batch_protocol,
                                                  .create = create,
                                                  .connection_made = made,
                                                  .datagrams_received = received_all,
                                                  .error_received = failed,
                                                  .pause_writing = paused,
                                                  .resume_writing = resumed,
                                                  .connection_lost = lost};

void open_post(post_t *post, const aloop_datagram_protocol_t *table, aloop_datagram_options_t options) {
  options.size = sizeof options;
  aloop_future_t *future = aloop_create_datagram_endpoint(post->env->loop, table, post, &options);
  assert_non_null(future);
  int64_t rc = run_future(post->env->loop, future);
  if (rc < 0) fail_msg("%s", aloop_future_message(future));
  aloop_datagram_t *endpoint;
  assert_int_equal(aloop_future_take_ptr(future, &endpoint), 0);
  assert_ptr_equal(endpoint, post->endpoint);
  aloop_datagram_unref(endpoint);
  aloop_future_unref(future);
}

int open_pair(post_t *post, const aloop_datagram_protocol_t *table) {
  int fds[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
  fcntl(fds[1], F_SETFL, O_NONBLOCK);
  fcntl(fds[1], F_SETFD, FD_CLOEXEC);
  open_post(post, table, (aloop_datagram_options_t){.fd = fds[0]});
  return fds[1];
}

int port_of(const aloop_datagram_t *endpoint) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  assert_int_equal(aloop_datagram_sockname(endpoint, (struct sockaddr *)(void *)&address, &size), 0);
  return ntohs(address.sin_port);
}

int open_udp(post_t *post, const aloop_datagram_protocol_t *table) {
  open_post(post, table, (aloop_datagram_options_t){.local_host = "127.0.0.1"});
  return port_of(post->endpoint);
}

void connect_udp(post_t *post, const aloop_datagram_protocol_t *table, int port) {
  open_post(post, table, (aloop_datagram_options_t){.remote_host = "127.0.0.1", .remote_port = port});
}

void end_post(post_t *post, int peer) {
  aloop_datagram_abort(post->endpoint);
  run_until(post->env->loop, &post->lost);
  assert_int_equal(post->events[0], 'M');
  assert_int_equal(post->events[post->events_count - 1], 'L');
  assert_int_equal(aloop_datagram_fd(post->endpoint), ALOOP_ECLOSED);
  aloop_datagram_unref(post->endpoint);
  if (peer >= 0) close(peer);
}

/* What was sent over the loopback device is there at once, or a moment later. */
void await_datagrams(post_t *post, size_t count) {
  for (int i = 0; i < 1000000 && post->datagrams < count; i++) aloop_run_once(post->env->loop, 0);
  assert_int_equal(post->datagrams, count);
}

void await_errors(post_t *post, int count) {
  for (int i = 0; i < 1000000 && post->errors_count < count; i++) aloop_run_once(post->env->loop, 0);
  assert_int_equal(post->errors_count, count);
}

void post_text(post_t *post, const char *text) {
  assert_int_equal(aloop_datagram_sendto(post->endpoint, text, strlen(text), NULL, 0), 0);
}

void post_text_to(post_t *post, const char *text, int port) {
  assert_int_equal(aloop_datagram_sendto(post->endpoint, text, strlen(text), on_loopback(port), LOOPBACK_SIZE),
                   0);
}

struct sockaddr *on_loopback(int port) {
  static struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons((uint16_t)port);
  return (struct sockaddr *)(void *)&address;
}

const char *lines_at(int fd) {
  static char text[8192];
  size_t size = 0;
  for (;;) {
    ssize_t n = recv(fd, text + size, sizeof text - size - 2, MSG_DONTWAIT);
    if (n < 0) break;
    size += (size_t)n;
    text[size++] = '\n';
  }
  text[size] = '\0';
  return text;
}

size_t fill_pair(post_t *post) {
  size_t count = 0;
  while (aloop_datagram_get_write_buffer_size(post->endpoint) == 0) {
    post_text(post, "filling");
    count++;
    assert_true(count < 100000);
  }
  return count - 1;
}
