/* SPDX-License-Identifier: MIT
 *
 * Descriptors of forked children: each test looks at itself from inside a child, and ends it with what it saw.
 */
#include "core/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

/* Runs `check` in a child that has descriptors up to and above 300 open. */
static void check_in_child(bool (*check)(void)) {
  int status = -1;
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    int null = open("/dev/null", O_RDWR);
    for (int fd = 4; fd < 300; fd++) dup2(null, fd);
    dup2(null, 700);
    _exit(check() ? 0 : 1);
  }
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  assert_int_equal(status, 0);
}

static bool only_three_are_left(void) {
  for (int fd = 0; fd < 1024; fd++)
    if (is_open(fd) != (fd < 3)) return false;
  return true;
}

static bool close_from(void) {
  aloop__descriptors_close_from(3);
  return only_three_are_left();
}

static void all_from_a_number_on_are_closed(void **state) {
  (void)state;
  check_in_child(close_from);
}

static bool keep_below(void) {
  aloop__descriptors_close_from(200);
  return is_open(199) && !is_open(200) && !is_open(700);
}

static void those_below_are_kept(void **state) {
  (void)state;
  check_in_child(keep_below);
}

static bool close_listed(void) {
  return !aloop__descriptors_close_listed(3) || only_three_are_left();
}

static void a_list_of_them_will_do(void **state) {
  (void)state;
  check_in_child(close_listed);
}

static bool close_counted(void) {
  aloop__descriptors_close_counted(3);
  return only_three_are_left();
}

static void counting_will_do(void **state) {
  (void)state;
  check_in_child(close_counted);
}

static bool close_above_the_limit(void) {
  struct rlimit limit = {600, 600};
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return true;
  return close_listed();
}

static void those_above_a_lowered_limit_are_found(void **state) {
  (void)state;
  check_in_child(close_above_the_limit);
}

static bool fill_standard(void) {
  close(0);
  close(2);
  aloop__descriptors_close_from(3);
  aloop__descriptors_fill_standard();
  return only_three_are_left() && write(2, "", 1) == 1;
}

static void missing_standard_descriptors_are_filled_in(void **state) {
  (void)state;
  check_in_child(fill_standard);
}

static void a_pair_is_closed_on_exec(void **state) {
  (void)state;
  int fds[2];
  assert_int_equal(aloop__descriptors_pair(fds), 0);
  for (int i = 0; i < 2; i++) assert_int_equal(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  assert_int_equal(send(fds[0], "x", 1, 0), 1);
  close(fds[0]);
  close(fds[1]);
}

static void large_things_are_sent_and_received_whole(void **state) {
  (void)state;
  enum { SIZE = 1 << 20 };
  static char data[SIZE], copy[SIZE];
  int fds[2];
  int status = -1;
  for (int i = 0; i < SIZE; i++) data[i] = (char)(i * 7);
  make_socketpair(fds); /* even if neither end may block */
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) _exit(aloop__descriptors_send(fds[1], data, SIZE) ? 0 : 1);
  assert_true(aloop__descriptors_receive(fds[0], copy, SIZE));
  assert_memory_equal(copy, data, SIZE);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  assert_int_equal(status, 0);
  close(fds[0]);
  close(fds[1]);
}

static void a_closed_end_is_noticed(void **state) {
  (void)state;
  char byte;
  int fds[2];
  make_socketpair(fds);
  close(fds[1]);
  assert_false(aloop__descriptors_receive(fds[0], &byte, 1));
  assert_false(aloop__descriptors_send(fds[0], "x", 1)); /* and no SIGPIPE comes */
  assert_true(aloop__descriptors_receive(fds[0], &byte, 0));
  close(fds[0]);
}

static bool no_pair(void) {
  struct rlimit limit = {4, 4};
  int fds[2] = {-7, -7};
  aloop__descriptors_close_from(3);
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return true;
  return aloop__descriptors_pair(fds) == ALOOP_EMFILE && fds[0] == -7;
}

static void a_pair_that_cannot_be_made_is_an_error(void **state) {
  (void)state;
  check_in_child(no_pair);
}

TESTS(T(all_from_a_number_on_are_closed), T(those_below_are_kept), T(a_list_of_them_will_do),
      T(counting_will_do), T(those_above_a_lowered_limit_are_found),
      T(missing_standard_descriptors_are_filled_in), T(a_pair_is_closed_on_exec),
      T(large_things_are_sent_and_received_whole), T(a_closed_end_is_noticed),
      T(a_pair_that_cannot_be_made_is_an_error))
