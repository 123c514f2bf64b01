/* SPDX-License-Identifier: MIT
 *
 * Operations on the test's own sockets: what is done at once, what waits, what is refused, and that cancelling
 * leaves nothing behind. The test stands in for some system calls, to be a fast peer or a nervous kernel.
 * pollers: all
 */
#include "crowd.h"
#include "peers.h"
#include "streams.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- The system as the library sees it ------------------------------------------------------------------ */

static struct {
  int fast_peer;       /* reads everything as it is sent; 0: nobody does */
  bool interrupted;    /* the next connect goes on, but says EINTR */
  int accept_error;    /* the next accept fails with it; 0: it does not */
  size_t sent_at_most; /* by one send */
} kernel;

static void read_fast(void) {
  static char bytes[65536];
  while (kernel.fast_peer > 0 && read(kernel.fast_peer, bytes, sizeof bytes) > 0) continue;
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
  if (size > kernel.sent_at_most) kernel.sent_at_most = size;
  ssize_t n = sendto(fd, data, size, flags, NULL, 0);
  int error = errno;
  read_fast();
  errno = error;
  return n;
}

#ifdef __linux__
#define STANDS_IN 1
#pragma GCC diagnostic ignored "-Wpedantic" /* the system header has unions that stand for any pointer */

int connect(int fd, const struct sockaddr *address, socklen_t size) {
  static int (*real)(int, const struct sockaddr *, socklen_t);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, "connect");
    memcpy(&real, &symbol, sizeof real);
  }
  int rc = real(fd, address, size);
  if (!kernel.interrupted) return rc;
  kernel.interrupted = false;
  errno = EINTR;
  return -1;
}

static bool accept_fails(void) {
  if (kernel.accept_error == 0) return false;
  errno = kernel.accept_error;
  kernel.accept_error = 0;
  return true;
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
  static int (*real)(int, struct sockaddr *, socklen_t *, int);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, "accept4");
    memcpy(&real, &symbol, sizeof real);
  }
  return accept_fails() ? -1 : real(fd, address, size, flags);
}

int accept(int fd, struct sockaddr *address, socklen_t *size) {
  static int (*real)(int, struct sockaddr *, socklen_t *);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, "accept");
    memcpy(&real, &symbol, sizeof real);
  }
  return accept_fails() ? -1 : real(fd, address, size);
}
#else
#define STANDS_IN 0
#endif

/* ---- Small helpers -------------------------------------------------------------------------------------- */

enum { BIG = 3 * 1024 * 1024 };

static uint64_t watches(const env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  return metrics.watches;
}

static void close_both(const int fds[2]) {
  close(fds[0]);
  close(fds[1]);
}

/* The future is done, with this, on return of the call that made it. */
static void expect_at_once(aloop_future_t *future, int64_t result) {
  assert_non_null(future);
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_result(future), result);
  aloop_future_unref(future);
}

static void expect_later(env_t *env, aloop_future_t *future, int64_t result) {
  assert_non_null(future);
  assert_false(aloop_future_done(future));
  assert_int_equal(run_future(env->loop, future), result);
  aloop_future_unref(future);
}

/* It was refused with this code, and for a reason that names this. */
static void expect_refusal(aloop_future_t *future, int64_t error, const char *reason) {
  assert_non_null(future);
  assert_true(aloop_future_done(future));
  if (strstr(aloop_future_message(future), reason) == NULL)
    fail_msg("\"%s\" does not say \"%s\"", aloop_future_message(future), reason);
  expect_at_once(future, error);
}

static void cancel(aloop_future_t *future) {
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_true(aloop_future_cancelled(future));
  aloop_future_unref(future);
}

static aloop_future_t *pending(aloop_future_t *future) {
  assert_non_null(future);
  assert_false(aloop_future_done(future));
  return future;
}

static int make_socket(int type) {
  int fd = socket(AF_INET, type, 0);
  assert_true(fd >= 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

static int make_listener(int *port) {
  int fd = peer_listen(5, port);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static struct sockaddr_in local(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static aloop_future_t *connect_to(env_t *env, int fd, int port) {
  struct sockaddr_in address = local(port);
  return aloop_sock_connect(env->loop, fd, (struct sockaddr *)&address, sizeof address);
}

/* Two datagram sockets of 127.0.0.1, and the address of the first. */
static void make_datagram_pair(int fds[2], struct sockaddr_in *first) {
  socklen_t size = sizeof *first;
  *first = local(0);
  for (int i = 0; i < 2; i++) fds[i] = make_socket(SOCK_DGRAM);
  assert_int_equal(bind(fds[0], (struct sockaddr *)first, size), 0);
  assert_int_equal(getsockname(fds[0], (struct sockaddr *)first, &size), 0);
}

/* ---- Receiving ------------------------------------------------------------------------------------------ */

static void what_is_there_is_received_at_once(void **state) {
  env_t *env = *state;
  int fds[2];
  char bytes[8] = "";
  make_socketpair(fds);
  say(fds[1], "hello");
  expect_at_once(aloop_sock_recv(env->loop, fds[0], bytes, 3), 3);
  expect_at_once(aloop_sock_recv(env->loop, fds[0], bytes + 3, 5), 2);
  assert_string_equal(bytes, "hello");
  assert_int_equal(watches(env), 0);
  close_both(fds);
}

static void receiving_waits_for_bytes(void **state) {
  env_t *env = *state;
  int fds[2];
  char bytes[8] = "";
  make_socketpair(fds);
  aloop_future_t *future = pending(aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes));
  assert_int_equal(watches(env), 1);
  run_turns(env->loop, 3);
  assert_false(aloop_future_done(future));
  say(fds[1], "hello");
  expect_later(env, future, 5);
  assert_string_equal(bytes, "hello");
  assert_int_equal(watches(env), 0);
  close_both(fds);
}

static void the_end_of_the_stream_is_zero(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  make_socketpair(fds);
  aloop_future_t *future = pending(aloop_sock_recv(env->loop, fds[0], &byte, 1));
  close(fds[1]);
  expect_later(env, future, 0);
  expect_at_once(aloop_sock_recv(env->loop, fds[0], &byte, 1), 0);
  close(fds[0]);
}

static void a_reset_fails_it(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  make_tcp_pair(fds);
  aloop_future_t *future = pending(aloop_sock_recv(env->loop, fds[0], &byte, 1));
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fds[1]);
  expect_later(env, future, ALOOP_ECONNRESET);
  close(fds[0]);
}

static void datagrams_come_with_their_sender(void **state) {
  env_t *env = *state;
  int fds[2];
  char bytes[8] = "";
  struct sockaddr_in to, from;
  socklen_t size = sizeof from;
  make_datagram_pair(fds, &to);
  aloop_future_t *future =
      pending(aloop_sock_recvfrom(env->loop, fds[0], bytes, sizeof bytes, (struct sockaddr *)&from, &size));
  expect_at_once(aloop_sock_sendto(env->loop, fds[1], "one", 3, (struct sockaddr *)&to, sizeof to), 3);
  expect_later(env, future, 3);
  assert_string_equal(bytes, "one");
  struct sockaddr_in sender;
  socklen_t sender_size = sizeof sender;
  assert_int_equal(getsockname(fds[1], (struct sockaddr *)&sender, &sender_size), 0);
  assert_int_equal(size, sizeof from);
  assert_int_equal(from.sin_port, sender.sin_port);
  expect_at_once(aloop_sock_sendto(env->loop, fds[1], "", 0, (struct sockaddr *)&to, sizeof to), 0);
  future = aloop_sock_recvfrom(env->loop, fds[0], bytes, sizeof bytes, NULL, NULL);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  close_both(fds);
}

static void an_address_is_written_on_success_only(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  struct sockaddr_in to, from;
  socklen_t size = 77;
  make_datagram_pair(fds, &to);
  aloop_future_t *future =
      pending(aloop_sock_recvfrom(env->loop, fds[0], &byte, 1, (struct sockaddr *)&from, &size));
  run_turns(env->loop, 2);
  cancel(future);
  assert_int_equal(size, 77);
  close_both(fds);
}

/* ---- Sending -------------------------------------------------------------------------------------------- */

static void what_fits_is_sent_at_once(void **state) {
  env_t *env = *state;
  int fds[2];
  char bytes[8] = "";
  make_socketpair(fds);
  expect_at_once(aloop_sock_sendall(env->loop, fds[0], "hello", 5), 5);
  expect_at_once(aloop_sock_sendall(env->loop, fds[0], NULL, 0), 0);
  assert_int_equal(drain(fds[1], bytes, sizeof bytes), 5);
  assert_string_equal(bytes, "hello");
  assert_int_equal(watches(env), 0);
  close_both(fds);
}

static void everything_is_sent_in_order(void **state) {
  env_t *env = *state;
  int fds[2];
  static char out[BIG], in[BIG];
  make_socketpair(fds);
  pattern(out, sizeof out, 1);
  aloop_future_t *future = pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out));
  size_t got = 0;
  for (int turns = 0; got < sizeof in; turns++) {
    assert_true(turns < 100000);
    run_turn(env->loop);
    got += drain(fds[1], in + got, 10000);
  }
  assert_true(aloop_future_done(future));
  expect_at_once(future, sizeof out);
  assert_memory_equal(in, out, sizeof in);
  assert_int_equal(watches(env), 0);
  close_both(fds);
}

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void a_fast_peer_does_not_keep_the_loop_busy(void **state) {
  env_t *env = *state;
  int fds[2], turns = 0;
  static char out[BIG];
  make_socketpair(fds);
  kernel.fast_peer = fds[1];
  kernel.sent_at_most = 0;
  aloop_future_t *future = pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out));
  while (!aloop_future_done(future)) {
    aloop_call_soon(env->loop, count, &turns);
    run_turn(env->loop);
    assert_true(turns < 100000);
  }
  kernel.fast_peer = 0;
  assert_true(turns >= BIG / (256 * 1024) - 1);
  assert_true(kernel.sent_at_most <= 256 * 1024);
  expect_at_once(future, sizeof out);
  close_both(fds);
}

static void a_peer_that_is_gone_fails_it_without_a_signal(void **state) {
  env_t *env = *state;
  int fds[2];
  make_socketpair(fds);
  close(fds[1]);
  expect_refusal(aloop_sock_sendall(env->loop, fds[0], "hello", 5), ALOOP_EPIPE, "0 of 5 bytes were sent");
  expect_at_once(aloop_sock_sendto(env->loop, fds[0], "hello", 5, NULL, 0), ALOOP_EPIPE);
  close(fds[0]);
}

static void an_error_tells_how_much_was_sent(void **state) {
  env_t *env = *state;
  int fds[2];
  static char out[BIG];
  char message[80];
  make_socketpair(fds);
  aloop_future_t *future = pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out));
  size_t got = drain(fds[1], out, sizeof out);
  close(fds[1]);
  assert_int_equal(run_future(env->loop, future), ALOOP_EPIPE);
  snprintf(message, sizeof message, "%zu of %d bytes were sent", got, BIG);
  expect_refusal(future, ALOOP_EPIPE, message);
  close(fds[0]);
}

/* A bound datagram socket of the Unix kind; its path is gone at once. */
static int make_mailbox(struct sockaddr_un *address) {
  char folder[] = "/tmp/aloop-sock-XXXXXX";
  assert_non_null(mkdtemp(folder));
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  snprintf(address->sun_path, sizeof address->sun_path, "%s/s", folder);
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
  return fd;
}

static void remove_mailbox(int fd, struct sockaddr_un *address) {
  close(fd);
  unlink(address->sun_path);
  *strrchr(address->sun_path, '/') = '\0';
  rmdir(address->sun_path);
}

static void a_datagram_waits_for_room_and_keeps_its_address(void **state) {
  env_t *env = *state;
  struct sockaddr_un to;
  char bytes[8] = "";
  int box = make_mailbox(&to), sender = socket(AF_UNIX, SOCK_DGRAM, 0), count_sent = 0;
  fcntl(sender, F_SETFL, O_NONBLOCK);
  while (sendto(sender, "full", 4, 0, (struct sockaddr *)&to, sizeof to) == 4) count_sent++;
  struct sockaddr_un copy = to;
  aloop_future_t *future =
      aloop_sock_sendto(env->loop, sender, "last", 4, (struct sockaddr *)&copy, sizeof copy);
  pending(future);
  memset(&copy, 0xff, sizeof copy);
  run_turns(env->loop, 3);
  assert_false(aloop_future_done(future));
  while (count_sent-- > 0) assert_int_equal(recv(box, bytes, sizeof bytes, 0), 4);
  expect_later(env, future, 4);
  assert_int_equal(recv(box, bytes, sizeof bytes, 0), 4);
  assert_string_equal(bytes, "last");
  close(sender);
  remove_mailbox(box, &to);
}

/* ---- Connecting ----------------------------------------------------------------------------------------- */

static void a_connect_ends_when_it_is_connected(void **state) {
  env_t *env = *state;
  int port, listener = make_listener(&port), fd = make_socket(SOCK_STREAM);
  aloop_future_t *future = connect_to(env, fd, port);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
  struct sockaddr_in peer;
  socklen_t size = sizeof peer;
  assert_int_equal(getpeername(fd, (struct sockaddr *)&peer, &size), 0);
  assert_int_equal(ntohs(peer.sin_port), port);
  assert_int_equal(watches(env), 0);
  close(fd);
  close(listener);
}

static void a_refused_connect_names_the_address(void **state) {
  env_t *env = *state;
  int port, listener = peer_bind("127.0.0.1", &port), fd = make_socket(SOCK_STREAM);
  aloop_future_t *future = connect_to(env, fd, port);
  char message[80];
  aloop_attempt_t attempt;
  assert_int_equal(run_future(env->loop, future), ALOOP_ECONNREFUSED);
  snprintf(message, sizeof message, "connect to 127.0.0.1 port %d: connection refused", port);
  assert_string_equal(aloop_future_message(future), message);
  assert_int_equal(aloop_future_attempt(future, 0, &attempt), 0);
  assert_int_equal(attempt.error, ALOOP_ECONNREFUSED);
  aloop_future_unref(future);
  close(fd);
  close(listener);
}

static void an_interrupted_connect_goes_on(void **state) {
  env_t *env = *state;
  if (!STANDS_IN) skip();
  int port, listener = make_listener(&port), fd = make_socket(SOCK_STREAM);
  kernel.interrupted = true;
  expect_later(env, connect_to(env, fd, port), 0);
  say(fd, "x");
  close(fd);
  close(listener);
}

static void a_full_unix_backlog_is_an_error(void **state) {
  env_t *env = *state;
  char folder[] = "/tmp/aloop-sock-XXXXXX";
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  int fds[8], made = 0;
  int64_t result = 0;
  assert_non_null(mkdtemp(folder));
  snprintf(to.sun_path, sizeof to.sun_path, "%s/s", folder);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&to, sizeof to), 0);
  assert_int_equal(listen(listener, 0), 0);
  while (result == 0 && made < 8) {
    int fd = fds[made++] = socket(AF_UNIX, SOCK_STREAM, 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    aloop_future_t *future = aloop_sock_connect(env->loop, fd, (struct sockaddr *)&to, sizeof to);
    result = run_future(env->loop, future);
    aloop_future_unref(future);
  }
#ifdef __linux__
  assert_int_equal(result, ALOOP_EAGAIN);
#endif
  while (made > 0) close(fds[--made]);
  remove_mailbox(listener, &to);
}

/* ---- Accepting ------------------------------------------------------------------------------------------ */

static void an_accepted_descriptor_is_ready_for_use(void **state) {
  env_t *env = *state;
  int port, listener = make_listener(&port);
  struct sockaddr_in from, expected;
  socklen_t size = sizeof from, expected_size = sizeof expected;
  aloop_future_t *future = pending(aloop_sock_accept(env->loop, listener, (struct sockaddr *)&from, &size));
  int peer = peer_connect(port);
  int fd = (int)run_future(env->loop, future);
  aloop_future_unref(future);
  assert_true(fd >= 0);
  assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  assert_int_equal(getsockname(peer, (struct sockaddr *)&expected, &expected_size), 0);
  assert_int_equal(from.sin_port, expected.sin_port);
  assert_int_equal(peer_look(peer), PEER_OPEN);
  close(fd);
  close(peer);
  close(listener);
}

static void a_waiting_connection_is_accepted_at_once(void **state) {
  env_t *env = *state;
  int port, listener = make_listener(&port), peer = peer_connect(port);
  aloop_future_t *future = aloop_sock_accept(env->loop, listener, NULL, NULL);
  assert_true(aloop_future_done(future));
  int fd = (int)aloop_future_result(future);
  assert_int_equal(aloop_future_result(future), fd);
  void *none = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &none), ALOOP_ENOENT);
  aloop_future_unref(future);
  assert_int_equal(peer_look(peer), PEER_OPEN);
  close(fd);
  close(peer);
  close(listener);
}

static void a_descriptor_that_nobody_reads_is_closed(void **state) {
  env_t *env = *state;
  int port, listener = make_listener(&port), peer = peer_connect(port);
  aloop_future_t *future = aloop_sock_accept(env->loop, listener, NULL, NULL);
  assert_true(aloop_future_done(future));
  assert_int_equal(aloop_future_cancel(future), 0);
  assert_int_equal(peer_look(peer), PEER_OPEN);
  aloop_future_unref(future);
  assert_int_equal(peer_look(peer), PEER_EOF);
  close(peer);
  close(listener);
}

static void a_descriptor_can_be_read_through_other_futures(void **state) {
  env_t *env = *state;
  int port, listener = make_listener(&port), peers[2];
  aloop_future_t *future = aloop_wait_for(aloop_sock_accept(env->loop, listener, NULL, NULL), ALOOP_FOREVER);
  pending(future);
  peers[0] = peer_connect(port);
  int fd = (int)run_future(env->loop, future);
  aloop_future_unref(future);
  peers[1] = peer_connect(port);
  future = aloop_shield(aloop_sock_accept(env->loop, listener, NULL, NULL));
  run_turns(env->loop, 2);
  assert_true(aloop_future_done(future));
  aloop_future_unref(future);
  assert_int_equal(peer_look(peers[0]), PEER_OPEN);
  assert_int_equal(peer_look(peers[1]), PEER_EOF);
  close(fd);
  close_both(peers);
  close(listener);
}

static void run_until_complete_hands_the_descriptor_over(void **state) {
  env_t *env = *state;
  int port, listener = make_listener(&port), peer = peer_connect(port);
  int64_t fd = aloop_run_until_complete(env->loop, aloop_sock_accept(env->loop, listener, NULL, NULL));
  assert_true(fd >= 0);
  assert_int_equal(peer_look(peer), PEER_OPEN);
  close((int)fd);
  close(peer);
  close(listener);
}

static void connections_that_died_are_passed_over(void **state) {
  env_t *env = *state;
  if (!STANDS_IN) skip();
  int port, listener = make_listener(&port), peer = peer_connect(port);
  kernel.accept_error = ECONNABORTED;
  int64_t fd = aloop_run_until_complete(env->loop, aloop_sock_accept(env->loop, listener, NULL, NULL));
  assert_true(fd >= 0);
  close((int)fd);
  close(peer);
  kernel.accept_error = EMFILE;
  expect_at_once(aloop_sock_accept(env->loop, listener, NULL, NULL), ALOOP_EMFILE);
  close(listener);
}

/* ---- One for each direction ----------------------------------------------------------------------------- */

static void a_second_operation_of_one_direction_is_refused(void **state) {
  env_t *env = *state;
  int fds[2];
  static char out[BIG];
  char first[8] = "", second[8] = "";
  make_socketpair(fds);
  aloop_future_t *reading = pending(aloop_sock_recv(env->loop, fds[0], first, sizeof first));
  say(fds[1], "bytes");
  expect_refusal(aloop_sock_recv(env->loop, fds[0], second, sizeof second), ALOOP_EBUSY, "another operation");
  expect_refusal(aloop_sock_recvfrom(env->loop, fds[0], second, sizeof second, NULL, NULL), ALOOP_EBUSY,
                 "another operation");
  expect_refusal(aloop_sock_accept(env->loop, fds[0], NULL, NULL), ALOOP_EBUSY, "another operation");
  expect_later(env, reading, 5);
  assert_string_equal(first, "bytes");
  assert_string_equal(second, "");
  aloop_future_t *writing = pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out));
  expect_refusal(aloop_sock_sendall(env->loop, fds[0], "x", 1), ALOOP_EBUSY, "another operation");
  expect_refusal(aloop_sock_sendto(env->loop, fds[0], "x", 1, NULL, 0), ALOOP_EBUSY, "another operation");
  cancel(writing);
  close_both(fds);
}

static void both_directions_work_at_a_time(void **state) {
  env_t *env = *state;
  int fds[2];
  static char out[BIG], in[BIG];
  char bytes[8] = "";
  make_socketpair(fds);
  aloop_future_t *writing = pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out));
  aloop_future_t *reading = pending(aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes));
  assert_int_equal(watches(env), 1);
  say(fds[1], "hello");
  expect_later(env, reading, 5);
  assert_int_equal(watches(env), 1);
  for (size_t got = 0; got < sizeof out;) {
    run_turn(env->loop);
    got += drain(fds[1], in, sizeof in);
  }
  expect_at_once(writing, sizeof out);
  assert_int_equal(watches(env), 0);
  close_both(fds);
}

static void a_watched_direction_is_refused(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  char bytes[8] = "";
  make_socketpair(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  say(fds[1], "hello");
  expect_refusal(aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes), ALOOP_EBUSY, "add_reader");
  expect_at_once(aloop_sock_sendall(env->loop, fds[0], "x", 1), 1);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), 0);
  expect_at_once(aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes), 5);
  expect_refusal(aloop_sock_sendall(env->loop, fds[0], "x", 1), ALOOP_EBUSY, "add_writer");
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 1);
  close_both(fds);
}

static void callbacks_cannot_push_an_operation_aside(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  char bytes[8] = "";
  make_socketpair(fds);
  aloop_future_t *future = pending(aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes));
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 0);
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), 0);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
  say(fds[1], "hello");
  expect_later(env, future, 5);
  assert_true(calls >= 2);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 1);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close_both(fds);
}

static void what_a_transport_or_server_has_is_refused(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  tape_t tape = {.env = env};
  char byte;
  int peer = open_tape(&tape, &plain_protocol);
  int fd = aloop_transport_fd(tape.transport);
  expect_refusal(aloop_sock_recv(env->loop, fd, &byte, 1), ALOOP_EBUSY, "transport or server");
  expect_refusal(aloop_sock_sendall(env->loop, fd, "x", 1), ALOOP_EBUSY, "transport or server");
  expect(&tape, peer, "");
  end_tape(&tape, peer);
  aloop_server_t *server = crowd_serve(env, &crowd);
  int listener = aloop_server_socket(server, 0, NULL, NULL);
  expect_refusal(aloop_sock_accept(env->loop, listener, NULL, NULL), ALOOP_EBUSY, "transport or server");
  assert_int_equal(aloop_server_pause_accepting(server), 0);
  expect_refusal(aloop_sock_accept(env->loop, listener, NULL, NULL), ALOOP_EBUSY, "transport or server");
  assert_int_equal(aloop_add_reader(env->loop, listener, count, NULL), ALOOP_EBUSY);
  aloop_server_close(server);
  aloop_server_unref(server);
}

/* ---- Refused -------------------------------------------------------------------------------------------- */

static void debug_mode_refuses_blocking_descriptors(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  make_socketpair(fds);
  fcntl(fds[0], F_SETFL, 0);
  assert_int_equal(aloop_set_debug(env->loop, true), 0);
  expect_refusal(aloop_sock_recv(env->loop, fds[0], &byte, 1), ALOOP_EINVAL, "blocking");
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EINVAL);
  say(fds[0], "x");
  expect_at_once(aloop_sock_recv(env->loop, fds[1], &byte, 1), 1);
  assert_int_equal(env->reports, 1);
  close_both(fds);
}

static void nothing_blocks_without_debug_mode_either(void **state) {
  env_t *env = *state;
  int fds[2];
  static char out[BIG];
  char byte;
  make_socketpair(fds);
  fcntl(fds[0], F_SETFL, 0);
  aloop_future_t *reading = pending(aloop_sock_recv(env->loop, fds[0], &byte, 1));
  cancel(pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out)));
  cancel(reading);
  close_both(fds);
}

static void what_is_no_socket_fails(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  make_pipe(fds);
  expect_at_once(aloop_sock_recv(env->loop, fds[0], &byte, 1), ALOOP_ENOTSOCK);
  expect_at_once(aloop_sock_sendall(env->loop, fds[1], "x", 1), ALOOP_ENOTSOCK);
  expect_at_once(aloop_sock_accept(env->loop, fds[0], NULL, NULL), ALOOP_ENOTSOCK);
  close_both(fds);
  expect_at_once(aloop_sock_recv(env->loop, fds[0], &byte, 1), ALOOP_EBADF);
  expect_at_once(aloop_sock_recv(env->loop, -1, &byte, 1), ALOOP_EBADF);
  expect_at_once(connect_to(env, -1, 1), ALOOP_EBADF);
}

static void senseless_arguments_are_refused(void **state) {
  env_t *env = *state;
  struct sockaddr_in address = local(1);
  struct sockaddr *any = (struct sockaddr *)&address;
  assert_null(aloop_sock_recv(NULL, 0, NULL, 0));
  expect_at_once(aloop_sock_recv(env->loop, 0, NULL, 1), ALOOP_EINVAL);
  expect_at_once(aloop_sock_recvfrom(env->loop, 0, NULL, 1, NULL, NULL), ALOOP_EINVAL);
  expect_at_once(aloop_sock_recvfrom(env->loop, 0, &address, 1, any, NULL), ALOOP_EINVAL);
  expect_at_once(aloop_sock_sendall(env->loop, 0, NULL, 1), ALOOP_EINVAL);
  expect_at_once(aloop_sock_sendto(env->loop, 0, NULL, 1, any, sizeof address), ALOOP_EINVAL);
  expect_at_once(aloop_sock_sendto(env->loop, 0, "x", 1, any, 0), ALOOP_EINVAL);
  expect_at_once(aloop_sock_connect(env->loop, 0, NULL, 0), ALOOP_EINVAL);
  expect_at_once(aloop_sock_connect(env->loop, 0, any, sizeof(struct sockaddr_storage) + 1), ALOOP_EINVAL);
  expect_at_once(aloop_sock_accept(env->loop, 0, any, NULL), ALOOP_EINVAL);
}

/* ---- Ended early ---------------------------------------------------------------------------------------- */

static void cancelling_frees_the_descriptor_at_once(void **state) {
  env_t *env = *state;
  int old[2], new[2];
  char first[8] = "", second[8] = "";
  make_socketpair(old);
  for (int i = 0; i < 50; i++) {
    make_socketpair(new);
    aloop_future_t *future = pending(aloop_sock_recv(env->loop, old[0], first, sizeof first));
    say(old[1], "old");
    cancel(future);
    assert_int_equal(watches(env), 0);
    assert_int_equal(dup2(new[0], old[0]), old[0]); /* closes the old one */
    future = pending(aloop_sock_recv(env->loop, old[0], second, sizeof second));
    run_turns(env->loop, 2);
    assert_false(aloop_future_done(future));
    say(new[1], "new");
    expect_later(env, future, 3);
    assert_string_equal(second, "new");
    assert_string_equal(first, "");
    close(new[0]);
    close(old[1]);
    old[1] = new[1];
  }
  close_both(old);
}

/* Two operations that are both ready in one turn: the first to end replaces the socket of the other. */
typedef struct swap {
  env_t *env;
  int fds[2][2];
  int fresh[2];
  aloop_future_t *futures[2];
  aloop_future_t *second;
  char byte[3];
} swap_t;

static void replace_other(aloop_t *loop, void *arg) {
  swap_t *swap = arg;
  char byte;
  assert_int_equal(read(swap->fds[0][0], &byte, 1), 1);
  if (aloop_future_done(swap->futures[1])) return; /* the poller's order is its own */
  aloop_remove_reader(loop, swap->fds[0][0]);
  cancel(swap->futures[1]);
  assert_int_equal(dup2(swap->fresh[0], swap->fds[1][0]), swap->fds[1][0]);
  swap->second = pending(aloop_sock_recv(loop, swap->fds[1][0], &swap->byte[2], 1));
}

static void an_event_of_the_same_turn_does_not_reach_the_next_owner(void **state) {
  env_t *env = *state;
  swap_t swap = {.env = env};
  make_socketpair(swap.fds[0]);
  make_socketpair(swap.fds[1]);
  make_socketpair(swap.fresh);
  assert_int_equal(aloop_add_reader(env->loop, swap.fds[0][0], replace_other, &swap), 0);
  swap.futures[1] = pending(aloop_sock_recv(env->loop, swap.fds[1][0], &swap.byte[1], 1));
  say(swap.fds[0][1], "a");
  say(swap.fds[1][1], "b");
  run_turn(env->loop);
  if (swap.second != NULL) {
    run_turns(env->loop, 3);
    assert_false(aloop_future_done(swap.second));
    say(swap.fresh[1], "c");
    expect_later(env, swap.second, 1);
    assert_int_equal(swap.byte[2], 'c');
    assert_int_equal(swap.byte[1], 0);
  } else {
    assert_int_equal(aloop_remove_reader(env->loop, swap.fds[0][0]), 1);
    expect_at_once(swap.futures[1], 1);
  }
  close_both(swap.fds[0]);
  close_both(swap.fds[1]);
  close_both(swap.fresh);
}

static void a_cancelled_direction_leaves_the_other(void **state) {
  env_t *env = *state;
  int fds[2];
  static char out[BIG], in[BIG];
  char bytes[8] = "";
  make_socketpair(fds);
  aloop_future_t *writing = pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out));
  aloop_future_t *reading = pending(aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes));
  cancel(writing);
  assert_int_equal(watches(env), 1);
  while (drain(fds[1], in, sizeof in) > 0) run_turn(env->loop);
  say(fds[1], "hello");
  expect_later(env, reading, 5);
  close_both(fds);
}

static void a_cancelled_connect_lets_its_socket_be_closed(void **state) {
  env_t *env = *state;
  int port, listener = make_listener(&port), fd = make_socket(SOCK_STREAM);
  aloop_future_t *future = connect_to(env, fd, port);
  if (!aloop_future_done(future)) aloop_future_cancel(future);
  aloop_future_unref(future);
  close(fd);
  assert_int_equal(watches(env), 0);
  run_turns(env->loop, 2);
  close(listener);
}

static void ending_the_future_by_hand_stops_it(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  make_socketpair(fds);
  aloop_future_t *future = pending(aloop_sock_recv(env->loop, fds[0], &byte, 1));
  assert_int_equal(aloop_future_set_value(future, 42), 0);
  assert_int_equal(watches(env), 0);
  expect_at_once(future, 42);
  close_both(fds);
}

static void dropping_the_future_lets_it_go_on(void **state) {
  env_t *env = *state;
  int fds[2];
  char bytes[8] = "";
  make_socketpair(fds);
  aloop_future_detach(pending(aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes)));
  say(fds[1], "hello");
  run_turns(env->loop, 2);
  assert_string_equal(bytes, "hello");
  assert_int_equal(watches(env), 0);
  close_both(fds);
}

static void a_deadline_cancels_it(void **state) {
  env_t *env = *state;
  int fds[2];
  char byte;
  make_socketpair(fds);
  aloop_future_t *future = aloop_sock_recv(env->loop, fds[0], &byte, 1);
  expect_later(env, aloop_wait_for(future, ALOOP_MILLIS(5)), ALOOP_ETIMEDOUT);
  assert_int_equal(watches(env), 0);
  close_both(fds);
}

static void closing_the_loop_ends_them(void **state) {
  env_t *env = *state;
  int fds[2];
  static char out[BIG];
  char byte;
  make_socketpair(fds);
  aloop_future_t *reading = pending(aloop_sock_recv(env->loop, fds[0], &byte, 1));
  aloop_future_t *writing = pending(aloop_sock_sendall(env->loop, fds[0], out, sizeof out));
  assert_int_equal(aloop_close(env->loop), 0);
  expect_at_once(reading, ALOOP_ECANCELED);
  expect_at_once(writing, ALOOP_ECANCELED);
  expect_at_once(aloop_sock_recv(env->loop, fds[0], &byte, 1), ALOOP_ECLOSED);
  expect_at_once(connect_to(env, fds[0], 1), ALOOP_ECLOSED);
  close_both(fds);
}

/* ---- Out of memory -------------------------------------------------------------------------------------- */

/* A future is missing, or it failed, only for want of memory; else it has this result. */
static void settle_one(aloop_future_t *future, int64_t result) {
  if (future == NULL) return;
  int64_t got = aloop_future_result(future);
  if (got != ALOOP_ENOMEM && got != ALOOP_ENOTDONE) assert_int_equal(got, result);
  aloop_future_cancel(future);
  aloop_future_unref(future);
}

static void scenario(env_t *env) {
  int fds[2], port, listener = make_listener(&port), fd = make_socket(SOCK_STREAM);
  static char out[BIG], in[BIG];
  char bytes[8];
  make_socketpair(fds);
  aloop_future_t *reading = aloop_sock_recv(env->loop, fds[0], bytes, sizeof bytes);
  aloop_future_t *writing = aloop_sock_sendall(env->loop, fds[0], out, sizeof out);
  aloop_future_t *accepting = aloop_sock_accept(env->loop, listener, NULL, NULL);
  aloop_future_t *connecting = connect_to(env, fd, port);
  say(fds[1], "hello");
  for (int turns = 0; turns < 30; turns++) {
    if (aloop_run_once(env->loop, 0) < 0) break;
    drain(fds[1], in, sizeof in);
  }
  if (accepting != NULL && aloop_future_done(accepting)) {
    int64_t accepted = aloop_future_result(accepting);
    if (accepted >= 0) close((int)accepted);
    aloop_future_unref(accepting);
  } else {
    settle_one(accepting, 0);
  }
  settle_one(reading, 5);
  settle_one(writing, sizeof out);
  settle_one(connecting, 0);
  close_both(fds);
  close(fd);
  close(listener);
}

static void out_of_memory_fails_them_whole(void **state) {
  env_t *env = *state;
  torture(env, scenario);
  env_loop(env, (aloop_options_t){.debug = -1});
}

TESTS(T(what_is_there_is_received_at_once), T(receiving_waits_for_bytes), T(the_end_of_the_stream_is_zero),
      T(a_reset_fails_it), T(datagrams_come_with_their_sender), T(an_address_is_written_on_success_only),
      T(what_fits_is_sent_at_once), T(everything_is_sent_in_order), T(a_fast_peer_does_not_keep_the_loop_busy),
      T(a_peer_that_is_gone_fails_it_without_a_signal), T(an_error_tells_how_much_was_sent),
      T(a_datagram_waits_for_room_and_keeps_its_address), T(a_connect_ends_when_it_is_connected),
      T(a_refused_connect_names_the_address), T(an_interrupted_connect_goes_on),
      T(a_full_unix_backlog_is_an_error), T(an_accepted_descriptor_is_ready_for_use),
      T(a_waiting_connection_is_accepted_at_once), T(a_descriptor_that_nobody_reads_is_closed),
      T(a_descriptor_can_be_read_through_other_futures), T(run_until_complete_hands_the_descriptor_over),
      T(connections_that_died_are_passed_over), T(a_second_operation_of_one_direction_is_refused),
      T(both_directions_work_at_a_time), T(a_watched_direction_is_refused),
      T(callbacks_cannot_push_an_operation_aside), T(what_a_transport_or_server_has_is_refused),
      T(debug_mode_refuses_blocking_descriptors), T(nothing_blocks_without_debug_mode_either),
      T(what_is_no_socket_fails), T(senseless_arguments_are_refused),
      T(cancelling_frees_the_descriptor_at_once), T(an_event_of_the_same_turn_does_not_reach_the_next_owner),
      T(a_cancelled_direction_leaves_the_other), T(a_cancelled_connect_lets_its_socket_be_closed),
      T(ending_the_future_by_hand_stops_it), T(dropping_the_future_lets_it_go_on), T(a_deadline_cancels_it),
      T(closing_the_loop_ends_them), T(out_of_memory_fails_them_whole))
