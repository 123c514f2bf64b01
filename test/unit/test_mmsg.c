/* SPDX-License-Identifier: MIT
 *
 * Several datagrams in one system call, and the loop over single ones that stands in for it elsewhere.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/mmsg.h"

typedef int (*many_fn)(int fd, aloop__mmsg_t *messages, unsigned count);

enum { COUNT = 5 };

typedef struct letters {
  aloop__mmsg_t messages[COUNT];
  struct iovec parts[COUNT];
  char bytes[COUNT][16];
} letters_t;

static void prepare(letters_t *letters, size_t size) {
  memset(letters, 0, sizeof *letters);
  for (int i = 0; i < COUNT; i++) {
    memset(letters->bytes[i], 'a' + i, size);
    letters->parts[i] = (struct iovec){.iov_base = letters->bytes[i], .iov_len = size};
    letters->messages[i].msg_hdr.msg_iov = &letters->parts[i];
    letters->messages[i].msg_hdr.msg_iovlen = 1;
  }
}

static void make_pair(int fds[2]) {
  assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
  for (int i = 0; i < 2; i++) fcntl(fds[i], F_SETFL, O_NONBLOCK);
}

static void go_both_ways(many_fn send_many, many_fn receive_many) {
  letters_t out, in;
  int fds[2];
  make_pair(fds);
  prepare(&in, 4);
  assert_int_equal(receive_many(fds[1], in.messages, COUNT), ALOOP_EAGAIN);
  prepare(&out, 3);
  assert_int_equal(send_many(fds[0], out.messages, COUNT), COUNT);
  assert_int_equal(receive_many(fds[1], in.messages, 1), 1);
  assert_int_equal(in.messages[0].msg_len, 3);
  prepare(&in, 4);
  assert_int_equal(receive_many(fds[1], in.messages, COUNT), COUNT - 1);
  assert_memory_equal(in.bytes[3], "eee", 3);
  close(fds[1]);
  assert_int_equal(send_many(fds[0], out.messages, COUNT), ALOOP_ECONNREFUSED);
  close(fds[0]);
  assert_int_equal(send_many(fds[0], out.messages, 1), ALOOP_EBADF);
}

static void many_go_in_one_call(void **state) {
  (void)state;
  go_both_ways(aloop__mmsg_send, aloop__mmsg_receive);
}

static void many_go_one_by_one(void **state) {
  (void)state;
  go_both_ways(aloop__mmsg_send_each, aloop__mmsg_receive_each);
}

static void stop_when_full(many_fn send_many) {
  letters_t out;
  int fds[2];
  make_pair(fds);
  prepare(&out, 3);
  int n = COUNT;
  for (int i = 0; i < 10000 && n == COUNT; i++) n = send_many(fds[0], out.messages, COUNT);
  assert_true(n == ALOOP_EAGAIN || (n > 0 && n < COUNT));
  assert_int_equal(send_many(fds[0], out.messages, COUNT), ALOOP_EAGAIN);
  close(fds[0]);
  close(fds[1]);
}

static void a_full_socket_takes_those_for_which_there_is_room(void **state) {
  (void)state;
  stop_when_full(aloop__mmsg_send);
  stop_when_full(aloop__mmsg_send_each);
}

TESTS(T(many_go_in_one_call), T(many_go_one_by_one), T(a_full_socket_takes_those_for_which_there_is_room))
