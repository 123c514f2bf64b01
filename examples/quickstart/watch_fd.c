/* SPDX-License-Identifier: MIT
 *
 * Waits until a descriptor has something to read. Any descriptor will do; here it is one end of a socket pair,
 * and a callback writes to the other end.
 */
#include "aloop.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_readable(aloop_t *loop, void *arg) {
  const int *fds = arg;
  char text[100];
  ssize_t size = read(fds[0], text, sizeof text);
  printf("Received: %.*s\n", (int)size, text);
  aloop_remove_reader(loop, fds[0]); /* before the descriptor is closed */
  aloop_stop(loop);
}

static void send_text(aloop_t *loop, void *arg) {
  const int *fds = arg;
  if (write(fds[1], "abc", 3) != 3) aloop_stop(loop);
}

int main(void) {
  aloop_t *loop;
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) return 1;
  if (aloop_new(NULL, &loop) < 0) return 1;
  aloop_add_reader(loop, fds[0], on_readable, fds);
  aloop_call_soon(loop, send_text, fds);
  aloop_run_forever(loop);
  aloop_free(loop);
  close(fds[0]);
  close(fds[1]);
  return 0;
}
