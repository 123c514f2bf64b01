/* SPDX-License-Identifier: MIT
 *
 * The standard descriptors of a child: what is opened for each choice, what numbers it has, and that nothing
 * stays open.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "peers.h"
#include "process/stdio.h"

static aloop_process_options_t choose(int in, int out, int err) {
  return (aloop_process_options_t){.in = {.kind = in}, .out = {.kind = out}, .err = {.kind = err}};
}

static void open_it(aloop_process_options_t options, aloop__stdio_t *stdio) {
  int which = -1;
  assert_null(aloop__stdio_fault(&options));
  assert_int_equal(aloop__stdio_open(&options, stdio, &which), 0);
}

static void close_it(aloop__stdio_t *stdio) {
  aloop__stdio_close_child(stdio);
  aloop__stdio_close_parent(stdio);
}

static bool goes_on_exec(int fd) {
  return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static bool is_blocking(int fd) {
  return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
}

static void pipes_block_only_the_child(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  open_it(choose(ALOOP_STDIO_PIPE, ALOOP_STDIO_PIPE, ALOOP_STDIO_PIPE), &stdio);
  for (int i = 0; i < 3; i++) {
    assert_true(goes_on_exec(stdio.child[i]) && goes_on_exec(stdio.parent[i]));
    assert_true(is_blocking(stdio.child[i]));
    assert_false(is_blocking(stdio.parent[i]));
  }
  close_it(&stdio);
}

static void pipes_lead_the_right_way(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  char byte;
  open_it(choose(ALOOP_STDIO_PIPE, ALOOP_STDIO_PIPE, ALOOP_STDIO_PIPE), &stdio);
  assert_int_equal(write(stdio.parent[0], "x", 1), 1);
  assert_int_equal(read(stdio.child[0], &byte, 1), 1);
  for (int i = 1; i < 3; i++) {
    assert_int_equal(write(stdio.child[i], "y", 1), 1);
    assert_int_equal(read(stdio.parent[i], &byte, 1), 1);
  }
  close_it(&stdio);
}

static void inheriting_opens_nothing(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  int before = open_fds();
  open_it(choose(ALOOP_STDIO_INHERIT, ALOOP_STDIO_INHERIT, ALOOP_STDIO_INHERIT), &stdio);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(stdio.child[i], i);
    assert_int_equal(stdio.parent[i], -1);
  }
  assert_int_equal(open_fds(), before);
  close_it(&stdio);
  assert_int_equal(open_fds(), before);
}

static void nowhere_is_a_device(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  struct stat info, null;
  open_it(choose(ALOOP_STDIO_DEVNULL, ALOOP_STDIO_DEVNULL, ALOOP_STDIO_INHERIT), &stdio);
  assert_int_equal(stat("/dev/null", &null), 0);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(fstat(stdio.child[i], &info), 0);
    assert_true(info.st_rdev == null.st_rdev && S_ISCHR(info.st_mode));
    assert_true(goes_on_exec(stdio.child[i]));
  }
  close_it(&stdio);
}

static void errors_follow_output_wherever_it_goes(void **state) {
  (void)state;
  static const int kinds[] = {ALOOP_STDIO_PIPE, ALOOP_STDIO_INHERIT, ALOOP_STDIO_DEVNULL};
  for (int i = 0; i < 3; i++) {
    aloop__stdio_t stdio;
    open_it(choose(ALOOP_STDIO_INHERIT, kinds[i], ALOOP_STDIO_STDOUT), &stdio);
    assert_int_equal(stdio.child[2], stdio.child[1]);
    assert_int_equal(stdio.parent[2], -1);
    close_it(&stdio);
  }
}

static void the_callers_descriptors_stay_open(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  int fds[2];
  make_pipe(fds);
  aloop_process_options_t options = choose(ALOOP_STDIO_FD, ALOOP_STDIO_FD, ALOOP_STDIO_STDOUT);
  options.in.fd = fds[0];
  options.out.fd = fds[1];
  open_it(options, &stdio);
  assert_int_equal(stdio.child[0], fds[0]);
  assert_int_equal(stdio.child[2], fds[1]);
  close_it(&stdio);
  assert_true(fcntl(fds[0], F_GETFD) >= 0 && fcntl(fds[1], F_GETFD) >= 0);
  close(fds[0]);
  close(fds[1]);
}

static void a_closed_descriptor_is_refused_and_the_rest_closed(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  int before = open_fds(), which = -1;
  aloop_process_options_t options = choose(ALOOP_STDIO_PIPE, ALOOP_STDIO_DEVNULL, ALOOP_STDIO_FD);
  options.err.fd = 4000;
  assert_int_equal(aloop__stdio_open(&options, &stdio, &which), ALOOP_EBADF);
  assert_int_equal(which, 2);
  assert_int_equal(open_fds(), before);
}

static void without_descriptors_nothing_stays_open(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  int before = open_fds(), which = -1;
  aloop_process_options_t options = choose(ALOOP_STDIO_INHERIT, ALOOP_STDIO_PIPE, ALOOP_STDIO_PIPE);
  use_up_fds();
  int rc = aloop__stdio_open(&options, &stdio, &which);
  restore_fd_limit();
  assert_int_equal(rc, ALOOP_EMFILE);
  assert_int_equal(which, 1);
  assert_int_equal(open_fds(), before);
}

/* With 0, 1 and 2 closed, new descriptors would stand where the child is to inherit. */
static void numbers_below_three_are_left_alone(void **state) {
  (void)state;
  aloop__stdio_t stdio;
  int saved[3], which = -1, lowest = 99;
  aloop_process_options_t options = choose(ALOOP_STDIO_PIPE, ALOOP_STDIO_DEVNULL, ALOOP_STDIO_PIPE);
  for (int i = 0; i < 3; i++) {
    saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 40);
    close(i);
  }
  int rc = aloop__stdio_open(&options, &stdio, &which);
  bool closed = fcntl(0, F_GETFD) < 0 && fcntl(1, F_GETFD) < 0 && fcntl(2, F_GETFD) < 0;
  for (int i = 0; i < 3; i++) {
    if (saved[i] >= 0) dup2(saved[i], i);
    if (saved[i] >= 0) close(saved[i]);
    if (rc == 0 && stdio.child[i] < lowest) lowest = stdio.child[i];
    if (rc == 0 && stdio.parent[i] >= 0 && stdio.parent[i] < lowest) lowest = stdio.parent[i];
  }
  assert_int_equal(rc, 0);
  assert_true(closed);
  assert_true(lowest > 2);
  close_it(&stdio);
}

static void choices_that_make_no_sense_have_a_fault(void **state) {
  (void)state;
  aloop_process_options_t options = choose(ALOOP_STDIO_STDOUT, 0, 0);
  assert_non_null(aloop__stdio_fault(&options));
  options = choose(0, ALOOP_STDIO_STDOUT, 0);
  assert_non_null(aloop__stdio_fault(&options));
  options = choose(0, 0, ALOOP_STDIO_FD + 1);
  assert_non_null(aloop__stdio_fault(&options));
  options = choose(-1, 0, 0);
  assert_non_null(aloop__stdio_fault(&options));
  options = choose(0, 0, ALOOP_STDIO_STDOUT);
  assert_null(aloop__stdio_fault(&options));
}

TESTS(T(pipes_block_only_the_child), T(pipes_lead_the_right_way), T(inheriting_opens_nothing),
      T(nowhere_is_a_device), T(errors_follow_output_wherever_it_goes), T(the_callers_descriptors_stay_open),
      T(a_closed_descriptor_is_refused_and_the_rest_closed), T(without_descriptors_nothing_stays_open),
      T(numbers_below_three_are_left_alone), T(choices_that_make_no_sense_have_a_fault))
