/* SPDX-License-Identifier: MIT
 *
 * Runs until SIGINT (Ctrl-C) or SIGTERM. Hardly anything may be done inside a signal handler, so the signal is
 * turned into bytes on a descriptor, and the loop reads it like any other: from a signalfd on Linux, from a
 * pipe that a one-line handler writes to elsewhere.
 */
#include "aloop.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/signalfd.h>

static int open_signals(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, NULL); /* or they would still do what they always do */
  return signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

static int take_signal(int fd) {
  struct signalfd_siginfo info;
  return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

#else

static int signal_pipe[2];

static void on_signal(int number) {
  unsigned char byte = (unsigned char)number;
  ssize_t ignored = write(signal_pipe[1], &byte, 1);
  (void)ignored;
}

static int open_signals(void) {
  if (pipe(signal_pipe) < 0) return -1;
  fcntl(signal_pipe[0], F_SETFL, O_NONBLOCK);
  fcntl(signal_pipe[1], F_SETFL, O_NONBLOCK);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  return signal_pipe[0];
}

static int take_signal(int fd) {
  unsigned char byte;
  return read(fd, &byte, 1) == 1 ? byte : 0;
}

#endif

static void on_readable(aloop_t *loop, void *arg) {
  const int *fd = arg;
  int number = take_signal(*fd);
  if (number == 0) return;
  printf("got %s: exit\n", number == SIGINT ? "SIGINT" : "SIGTERM");
  aloop_remove_reader(loop, *fd);
  aloop_stop(loop);
}

int main(void) {
  aloop_t *loop;
  int fd = open_signals();
  if (fd < 0 || aloop_new(NULL, &loop) < 0) return 1;
  aloop_add_reader(loop, fd, on_readable, &fd);
  printf("pid %d: press Ctrl-C, or send SIGINT or SIGTERM, to exit\n", (int)getpid());
  fflush(stdout);
  aloop_run_forever(loop);
  aloop_free(loop);
  close(fd);
  return 0;
}
