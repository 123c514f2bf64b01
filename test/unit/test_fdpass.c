/* SPDX-License-Identifier: MIT
 *
 * Descriptors that travel with bytes: that each arrives once, with its byte, in order, whatever the socket takes
 * at a time, and that none is left anywhere. The harness counts the descriptors of each test. pollers: all
 */
#include "peers.h"
#include "streams.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A transport of the kind that passes descriptors; returns the other end of its socket. */
static int open_unix(env_t *env, tape_t *tape, const aloop_protocol_t *table) {
  int fds[2];
  aloop_unix_connect_options_t options = {.size = sizeof options};
  tape->env = env;
  assert_int_equal(aloop_socketpair(SOCK_STREAM, fds), 0);
  options.fd = fds[0];
  aloop_future_t *future = aloop_create_unix_connection(env->loop, table, tape, &options);
  assert_true(run_future(env->loop, future) >= 0);
  aloop_future_unref(future);
  return fds[1];
}

/* Both ends are such transports. */
static void open_two(env_t *env, tape_t *one, tape_t *other) {
  aloop_unix_connect_options_t options = {.size = sizeof options};
  other->env = env;
  options.fd = open_unix(env, one, &plain_protocol);
  aloop_future_t *future = aloop_create_unix_connection(env->loop, &plain_protocol, other, &options);
  assert_true(run_future(env->loop, future) >= 0);
  aloop_future_unref(future);
}

/* A descriptor that can be told from others: its first byte is `name`. */
static int make_named(unsigned char name) {
  int fds[2];
  make_pipe(fds);
  assert_int_equal(write(fds[1], &name, 1), 1);
  close(fds[1]);
  return fds[0];
}

/* Ends it. */
static int name_of(int fd) {
  unsigned char name = 0;
  assert_true(fd >= 0);
  assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  assert_int_equal(read(fd, &name, 1), 1);
  close(fd);
  return name;
}

static int send_named(aloop_transport_t *transport, const char *text, unsigned char name) {
  int fd = make_named(name);
  int rc = aloop_transport_write_fds(transport, text, strlen(text), &fd, 1);
  close(fd);
  return rc;
}

/* One read of a plain peer: its bytes, and how many descriptors came with it (into `fds`, of 253). */
static ssize_t read_with_fds(int fd, void *into, size_t size, int *fds, size_t *count) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(253 * sizeof(int))];
  } control;
  struct iovec part = {.iov_base = into, .iov_len = size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
  message.msg_controllen = sizeof control.bytes;
  ssize_t n = recvmsg(fd, &message, 0);
  *count = 0;
  struct cmsghdr *at = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (at == NULL) return n;
  *count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  memcpy(fds, CMSG_DATA(at), *count * sizeof(int));
  for (size_t i = 0; i < *count; i++) fcntl(fds[i], F_SETFD, FD_CLOEXEC);
  return n;
}

static void write_with_fds(int to, const void *data, size_t size, const int *fds, size_t count) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(253 * sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct iovec part = {.iov_base = (void *)data, .iov_len = size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
  message.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof(int));
  struct cmsghdr *at = CMSG_FIRSTHDR(&message);
  at->cmsg_level = SOL_SOCKET;
  at->cmsg_type = SCM_RIGHTS;
  at->cmsg_len = (socklen_t)CMSG_LEN(count * sizeof(int));
  memcpy(CMSG_DATA(at), fds, count * sizeof(int));
  assert_int_equal(sendmsg(to, &message, 0), (ssize_t)size);
}

/* ---- Both ways ------------------------------------------------------------------------------------------- */

static void a_descriptor_arrives(void **state) {
  tape_t one = {0}, other = {0};
  open_two(*state, &one, &other);
  assert_int_equal(send_named(one.transport, "take this", 7), 0);
  settle(one.env->loop);
  assert_int_equal(other.size, 9);
  assert_memory_equal(other.bytes, "take this", 9);
  assert_int_equal(name_of(aloop_transport_take_fd(other.transport)), 7);
  assert_int_equal(aloop_transport_take_fd(other.transport), ALOOP_ENOENT);
  end_tape(&one, -1);
  end_tape(&other, -1);
}

/* A descriptor comes in and goes out again. */
static void pass_through(tape_t *tape, int peer) {
  int fds[253], fd = make_named(5);
  size_t count;
  char byte;
  write_with_fds(peer, "x", 1, &fd, 1);
  close(fd);
  while (tape->size == 0) assert_true(aloop_run_once(tape->env->loop, 0) >= 0);
  fd = aloop_transport_take_fd(tape->transport);
  assert_int_equal(aloop_transport_write_fds(tape->transport, "y", 1, &fd, 1), 0);
  close(fd);
  assert_int_equal(read_with_fds(peer, &byte, 1, fds, &count), 1);
  assert_int_equal(count, 1);
  assert_int_equal(name_of(fds[0]), 5);
}

static void unix_sockets_do_it_however_they_came(void **state) {
  env_t *env = *state;
  for (int accepted = 0; accepted < 2; accepted++) {
    tape_t tape = {.env = env};
    int fds[2];
    make_socketpair(fds);
    aloop_connect_options_t options = {.size = sizeof options, .fd = fds[0]};
    aloop_future_t *future =
        accepted ? aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], NULL)
                 : aloop_create_connection(env->loop, &plain_protocol, &tape, &options);
    assert_true(run_future(env->loop, future) >= 0);
    aloop_future_unref(future);
    pass_through(&tape, fds[1]);
    end_tape(&tape, fds[1]);
  }
}

/* One socket of the internet, one Unix socket, which Linux gives a name of its own. */
static void clients_of_a_servers_descriptors_do_it(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  aloop_server_t *server;
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  const struct sockaddr_un nameless = {.sun_family = AF_UNIX};
  int port, fds[2] = {peer_bind("127.0.0.1", &port), socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (bind(fds[1], (const struct sockaddr *)&nameless, sizeof nameless.sun_family) != 0) {
    close(fds[0]);
    close(fds[1]);
    return;
  }
  aloop_server_options_t options = {.size = sizeof options, .fds = fds, .fds_count = 2};
  aloop_future_t *future = aloop_create_server(env->loop, &plain_protocol, &tape, &options);
  assert_int_equal(aloop_run_until_complete_ptr(env->loop, future, &server), 0);
  assert_int_equal(getsockname(fds[1], (struct sockaddr *)&address, &size), 0);
  int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(connect(peer, (struct sockaddr *)&address, size), 0);
  while (tape.calls[MADE] == 0) assert_true(aloop_run_once(env->loop, 0) >= 0);
  pass_through(&tape, peer);
  end_tape(&tape, peer);
  aloop_server_close(server);
  aloop_server_unref(server);
}

static void a_relay_passes_them_on(void **state) {
  env_t *env = *state;
  tape_t one = {0}, other = {0};
  char bytes[8];
  int fds[253];
  size_t count;
  int peer = open_unix(env, &one, &plain_protocol), far = open_unix(env, &other, &plain_protocol);
  aloop_future_t *relay = aloop_relay(one.transport, other.transport);
  for (unsigned char i = 0; i < 3; i++) {
    int fd = make_named(i);
    write_with_fds(peer, "abc", 3, &fd, 1);
    close(fd);
  }
  for (unsigned char i = 0; i < 3; i++) {
    ssize_t n;
    while ((n = read_with_fds(far, bytes, sizeof bytes, fds, &count)) < 0)
      assert_true(aloop_run_once(env->loop, 0) >= 0);
    assert_int_equal(n, 3);
    assert_int_equal(count, 1);
    assert_int_equal(name_of(fds[0]), i);
  }
  aloop_future_cancel(relay);
  aloop_future_unref(relay);
  end_tape(&one, peer);
  end_tape(&other, far);
}

static void a_relay_to_another_kind_closes_them(void **state) {
  env_t *env = *state;
  tape_t one = {0}, other = {.env = env};
  int peer = open_unix(env, &one, &plain_protocol), far = open_tcp_tape(&other, &plain_protocol);
  aloop_future_t *relay = aloop_relay(one.transport, other.transport);
  int fds = open_fds();
  for (unsigned char i = 0; i < 3; i++) {
    int fd = make_named(i);
    write_with_fds(peer, "abc", 3, &fd, 1);
    close(fd);
  }
  expect(&other, far, "abcabcabc");
  assert_int_equal(open_fds(), fds);
  aloop_future_cancel(relay);
  aloop_future_unref(relay);
  end_tape(&one, peer);
  end_tape(&other, far);
}

static void several_arrive_in_order(void **state) {
#if !defined(__linux__) || defined(__GLIBC__)
  enum { COUNT = 253 };
#else
  enum { COUNT = 252 }; /* sendmsg of musl before 1.2.4 refuses control data over 1024 bytes */
#endif
  tape_t one = {0}, other = {0};
  int fds[COUNT];
  open_two(*state, &one, &other);
  for (int i = 0; i < COUNT; i++) fds[i] = make_named((unsigned char)i);
  assert_int_equal(aloop_transport_write_fds(one.transport, "x", 1, fds, COUNT), 0);
  for (int i = 0; i < COUNT; i++) close(fds[i]);
  settle(one.env->loop);
  for (int i = 0; i < COUNT; i++) assert_int_equal(name_of(aloop_transport_take_fd(other.transport)), i);
  end_tape(&one, -1);
  end_tape(&other, -1);
}

static void take_one(tape_t *tape) {
  *(int *)tape->arg = aloop_transport_take_fd(tape->transport);
}

static void it_is_there_when_its_byte_is(void **state) {
  tape_t tape = {0};
  int taken = -1;
  int peer = open_unix(*state, &tape, &plain_protocol);
  int fd = make_named(3);
  tape.on[DATA] = take_one;
  tape.arg = &taken;
  write_with_fds(peer, "x", 1, &fd, 1);
  close(fd);
  settle(tape.env->loop);
  assert_int_equal(name_of(taken), 3);
  end_tape(&tape, peer);
}

static void buffered_protocols_receive_them_too(void **state) {
  tape_t tape = {0};
  int peer = open_unix(*state, &tape, &buffered_protocol);
  int fd = make_named(4);
  write_with_fds(peer, "hello", 5, &fd, 1);
  close(fd);
  settle(tape.env->loop);
  assert_int_equal(tape.size, 5);
  assert_int_equal(name_of(aloop_transport_take_fd(tape.transport)), 4);
  end_tape(&tape, peer);
}

/* ---- Sent exactly once ----------------------------------------------------------------------------------- */

static void a_full_socket_takes_it_later(void **state) {
  tape_t tape = {0};
  static char bytes[65536];
  int fds[253], names = 0;
  size_t count, before = 0;
  ssize_t n;
  int peer = open_unix(*state, &tape, &plain_protocol);
  size_t filled = fill(aloop_transport_fd(tape.transport));
  assert_int_equal(send_named(tape.transport, "Fbcd", 9), 0);
  settle(tape.env->loop);
  assert_int_equal(aloop_transport_get_write_buffer_size(tape.transport), 4);
  while (before < filled + 4) {
    n = read_with_fds(peer, bytes, sizeof bytes, fds, &count);
    if (n > 0) before += (size_t)n;
    if (count > 0) assert_true(before > filled);
    for (size_t i = 0; i < count; i++) assert_int_equal(name_of(fds[i]), 9);
    names += (int)count;
    run_turn(tape.env->loop);
  }
  assert_int_equal(names, 1);
  end_tape(&tape, peer);
}

/* What a reader has seen: after each read, as many descriptors as bytes 'F'. */
typedef struct reader {
  int marks, taken;
  size_t size;
} reader_t;

static void read_some(reader_t *reader, int peer) {
  char bytes[700];
  int fds[253];
  size_t count;
  ssize_t n = read_with_fds(peer, bytes, sizeof bytes, fds, &count);
  for (ssize_t i = 0; i < n; i++) reader->marks += bytes[i] == 'F';
  if (n > 0) reader->size += (size_t)n;
  for (size_t i = 0; i < count; i++) assert_int_equal(name_of(fds[i]), reader->taken++ % 256);
  assert_int_equal(reader->taken, reader->marks);
}

static void order_is_kept_among_writes_of_every_kind(void **state) {
  tape_t tape = {0};
  reader_t reader = {0};
  static const char filler[5000];
  enum { ROUNDS = 150 };
  size_t total = 0;
  int released = 0, small = 4096;
  int peer = open_unix(*state, &tape, &plain_protocol);
  setsockopt(aloop_transport_fd(tape.transport), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  for (int i = 0; i < ROUNDS; i++) {
    size_t size = (size_t)(i * 37 % 5000);
    struct iovec parts[] = {{(void *)filler, size}, {(void *)filler, 3}};
    assert_int_equal(send_named(tape.transport, i % 2 == 0 ? "F" : "Fabc", (unsigned char)i), 0);
    if (i % 3 == 0) assert_int_equal(aloop_transport_write(tape.transport, filler, size), 0);
    if (i % 3 == 1) assert_int_equal(aloop_transport_writev(tape.transport, parts, 2), 0);
    if (i % 3 == 2) assert_int_equal(put_owned(&tape, "owned", &released), 0);
    total += (i % 2 == 0 ? 1u : 4u) + (i % 3 == 0 ? size : i % 3 == 1 ? size + 3 : 5);
    if (i % 5 == 0) read_some(&reader, peer);
  }
  while (reader.size < total) {
    read_some(&reader, peer);
    run_turn(tape.env->loop);
  }
  assert_int_equal(reader.taken, ROUNDS);
  assert_int_equal(released, ROUNDS / 3);
  end_tape(&tape, peer);
}

static void answer_with_two(tape_t *tape) {
  assert_int_equal(aloop_transport_write(tape->transport, "a", 1), 0);
  int *next = tape->arg;
  assert_int_equal(send_named(tape->transport, "F", (unsigned char)(*next)++), 0);
  assert_int_equal(aloop_transport_write(tape->transport, "b", 1), 0);
  assert_int_equal(send_named(tape->transport, "Fc", (unsigned char)(*next)++), 0);
}

static void inside_data_received(void **state) {
  int next = 0;
  tape_t tape = {.on[DATA] = answer_with_two, .arg = &next};
  reader_t reader = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  say(peer, "go");
  settle(tape.env->loop);
  for (int i = 0; i < 4; i++) read_some(&reader, peer);
  assert_int_equal(reader.size, 5);
  assert_int_equal(reader.taken, 2);
  end_tape(&tape, peer);
}

static void write_a_row(aloop_t *loop, void *arg) {
  (void)loop;
  put(arg, "before ");
  for (int i = 0; i < 3; i++) answer_with_two(arg);
}

static void in_a_row_of_writes(void **state) {
  int next = 0;
  tape_t tape = {.arg = &next};
  reader_t reader = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  aloop_call_soon(tape.env->loop, write_a_row, &tape);
  run_turn(tape.env->loop);
  for (int i = 0; i < 20; i++) read_some(&reader, peer);
  assert_int_equal(reader.size, 7 + 3 * 5);
  assert_int_equal(reader.taken, 6);
  end_tape(&tape, peer);
}

static void send_another(tape_t *tape) {
  if (tape->calls[PAUSE] == 1) assert_int_equal(send_named(tape->transport, "F", 1), 0);
}

static void from_inside_pause_writing(void **state) {
  tape_t tape = {.on[PAUSE] = send_another};
  reader_t reader = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  size_t filled = fill(aloop_transport_fd(tape.transport));
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 0, 0), 0);
  assert_int_equal(send_named(tape.transport, "F", 0), 0);
  assert_int_equal(send_named(tape.transport, "F", 2), 0);
  while (reader.size < filled + 3) {
    read_some(&reader, peer);
    run_turn(tape.env->loop);
  }
  assert_int_equal(reader.taken, 3);
  end_tape(&tape, peer);
}

static void behind_a_sendfile(void **state) {
  tape_t tape = {0};
  reader_t reader = {0};
  char name[] = "/tmp/aloop-fdpass-XXXXXX";
  int peer = open_unix(*state, &tape, &plain_protocol);
  int file = mkstemp(name);
  unlink(name);
  assert_int_equal(write(file, "some bytes", 10), 10);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  assert_int_equal(run_future(tape.env->loop, future), 10);
  aloop_future_unref(future);
  close(file);
  assert_int_equal(send_named(tape.transport, "Fx", 0), 0);
  while (reader.size < 12) read_some(&reader, peer);
  assert_int_equal(reader.taken, 1);
  end_tape(&tape, peer);
}

static void closing_sends_what_waits(void **state) {
  tape_t tape = {0};
  reader_t reader = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  size_t filled = fill(aloop_transport_fd(tape.transport));
  assert_int_equal(send_named(tape.transport, "F", 0), 0);
  aloop_transport_close(tape.transport);
  assert_int_equal(send_named(tape.transport, "F", 1), ALOOP_ECLOSED);
  while (reader.size < filled + 1) {
    read_some(&reader, peer);
    run_turn(tape.env->loop);
  }
  assert_int_equal(reader.taken, 1);
  end_tape(&tape, peer);
}

/* ---- Ends: the harness counts ---------------------------------------------------------------------------- */

static void aborting_closes_what_was_unsent(void **state) {
  tape_t tape = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  fill(aloop_transport_fd(tape.transport));
  int before = open_fds();
  for (unsigned char i = 0; i < 10; i++) assert_int_equal(send_named(tape.transport, "F", i), 0);
  assert_int_equal(open_fds(), before + 10);
  aloop_transport_abort(tape.transport);
  assert_int_equal(open_fds(), before);
  end_tape(&tape, peer);
}

static void what_nobody_takes_is_closed(void **state) {
  tape_t one = {0}, other = {0};
  open_two(*state, &one, &other);
  int before = open_fds();
  for (unsigned char i = 0; i < 5; i++) assert_int_equal(send_named(one.transport, "F", i), 0);
  settle(one.env->loop);
  assert_int_equal(open_fds(), before + 5);
  assert_int_equal(name_of(aloop_transport_take_fd(other.transport)), 0);
  end_tape(&other, -1);
  end_tape(&one, -1);
}

static void closing_the_loop_closes_them(void **state) {
  env_t *env = *state;
  tape_t tape = {0};
  int peer = open_unix(env, &tape, &plain_protocol);
  int fd = make_named(1);
  write_with_fds(peer, "x", 1, &fd, 1);
  close(fd);
  settle(env->loop);
  fill(aloop_transport_fd(tape.transport));
  assert_int_equal(send_named(tape.transport, "F", 1), 0);
  int before = open_fds();
  assert_int_equal(aloop_close(env->loop), 0);
  assert_true(open_fds() <= before - 3);
  release_tape(&tape, peer);
}

static void too_many_end_the_connection(void **state) {
  tape_t tape = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  int fds[200];
  for (int i = 0; i < 200; i++) fds[i] = peer;
  write_with_fds(peer, "x", 1, fds, 200);
  settle(tape.env->loop);
  assert_false(tape.lost);
  write_with_fds(peer, "x", 1, fds, 53);
  settle(tape.env->loop);
  assert_false(tape.lost);
  write_with_fds(peer, "x", 1, fds, 1);
  settle(tape.env->loop);
  assert_true(tape.lost);
  assert_int_equal(tape.error, ALOOP_ENOBUFS);
  end_tape(&tape, peer);
}

static void a_process_without_room_ends_the_connection(void **state) {
  tape_t tape = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  write_with_fds(peer, "x", 1, &peer, 1);
  use_up_fds();
  settle(tape.env->loop);
  restore_fd_limit();
  assert_true(tape.lost);
  assert_int_equal(tape.error, ALOOP_EMFILE);
  end_tape(&tape, peer);
}

static void without_room_nothing_is_sent(void **state) {
  tape_t tape = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  use_up_fds();
  int rc = aloop_transport_write_fds(tape.transport, "F", 1, &peer, 1);
  restore_fd_limit();
  assert_int_equal(rc, ALOOP_EMFILE);
  put(&tape, "but this");
  expect(&tape, peer, "but this");
  end_tape(&tape, peer);
}

static void over_the_cap_nothing_is_taken(void **state) {
  tape_t tape = {0};
  int peer = open_unix(*state, &tape, &plain_protocol);
  assert_int_equal(aloop_transport_set_write_buffer_cap(tape.transport, 3), 0);
  int before = open_fds();
  assert_int_equal(send_named(tape.transport, "Fxyz", 1), ALOOP_ENOBUFS);
  assert_int_equal(open_fds(), before);
  assert_int_equal(send_named(tape.transport, "Fx", 0), 0);
  reader_t reader = {0};
  read_some(&reader, peer);
  assert_int_equal(reader.taken, 1);
  end_tape(&tape, peer);
}

static void pass_one_each_way(env_t *env) {
  static tape_t tape;
  int fds[2], rc = -1;
  memset(&tape, 0, sizeof tape);
  tape.env = env;
  aloop_unix_connect_options_t options = {.size = sizeof options};
  assert_int_equal(aloop_socketpair(SOCK_STREAM, fds), 0);
  options.fd = fds[0];
  aloop_future_t *future = aloop_create_unix_connection(env->loop, &plain_protocol, &tape, &options);
  bool made = future != NULL && run_future(env->loop, future) >= 0;
  aloop_future_unref(future);
  if (made) {
    fill(fds[0]);
    rc = send_named(tape.transport, "F", 0);
    int before = open_fds();
    if (rc < 0) assert_int_equal(rc, ALOOP_ENOMEM);
    write_with_fds(fds[1], "x", 1, &fds[1], 1);
    for (int i = 0; i < 3; i++) run_turn(env->loop);
    assert_true(open_fds() <= before + 1);
  } else {
    close(fds[0]);
  }
  env->fail_from = 0;
  if (made)
    end_tape(&tape, fds[1]);
  else
    close(fds[1]);
}

static void without_memory_none_is_left(void **state) {
  torture(*state, pass_one_each_way);
}

/* ---- Who wants none -------------------------------------------------------------------------------------- */

static void who_wants_none_gets_none(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int fds[2], fd = make_named('x');
  aloop_unix_connect_options_t options = {.size = sizeof options, .flags = ALOOP_UNIX_NO_DESCRIPTORS};
  assert_int_equal(aloop_socketpair(SOCK_STREAM, fds), 0);
  options.fd = fds[0];
  aloop_future_t *future = aloop_create_unix_connection(env->loop, &plain_protocol, &tape, &options);
  assert_true(run_future(env->loop, future) >= 0);
  aloop_future_unref(future);
  write_with_fds(fds[1], "take this", 9, &fd, 1);
  settle(env->loop);
  assert_int_equal(tape.size, 9);
  assert_int_equal(aloop_transport_take_fd(tape.transport), ALOOP_ENOTSUP);
  assert_int_equal(aloop_transport_write_fds(tape.transport, "x", 1, &fd, 1), ALOOP_ENOTSUP);
  close(fd);
  end_tape(&tape, fds[1]);
}

TESTS(T(who_wants_none_gets_none), T(a_descriptor_arrives), T(unix_sockets_do_it_however_they_came),
      T(clients_of_a_servers_descriptors_do_it), T(a_relay_passes_them_on),
      T(a_relay_to_another_kind_closes_them), T(several_arrive_in_order), T(it_is_there_when_its_byte_is),
      T(buffered_protocols_receive_them_too), T(a_full_socket_takes_it_later),
      T(order_is_kept_among_writes_of_every_kind), T(inside_data_received), T(in_a_row_of_writes),
      T(from_inside_pause_writing), T(behind_a_sendfile), T(closing_sends_what_waits),
      T(aborting_closes_what_was_unsent), T(what_nobody_takes_is_closed), T(closing_the_loop_closes_them),
      T(too_many_end_the_connection), T(a_process_without_room_ends_the_connection),
      T(without_room_nothing_is_sent), T(over_the_cap_nothing_is_taken), T(without_memory_none_is_left))
