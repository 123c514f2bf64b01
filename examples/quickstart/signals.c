/* SPDX-License-Identifier: MIT
 *
 * Runs for an hour, or until SIGINT (Ctrl-C) or SIGTERM. Hardly anything may be done inside a C signal handler;
 * these handlers are ordinary callbacks of the loop, which may do everything.
 */
#include "aloop.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void ask_exit(aloop_t *loop, int signum, void *name) {
  (void)signum;
  printf("got signal %s: exit\n", (const char *)name);
  aloop_stop(loop);
}

static void hour_is_over(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

int main(void) {
  static char sigint[] = "SIGINT", sigterm[] = "SIGTERM";
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  int error = aloop_add_signal_handler(loop, SIGINT, ask_exit, sigint, 0);
  if (error == 0) error = aloop_add_signal_handler(loop, SIGTERM, ask_exit, sigterm, 0);
  if (error == 0) {
    aloop_call_later(loop, ALOOP_SECONDS(3600), hour_is_over, NULL);
    printf("Event loop running for 1 hour, press Ctrl+C to interrupt.\n");
    printf("pid %d: send SIGINT or SIGTERM to exit.\n", (int)getpid());
    fflush(stdout);
    error = aloop_run_forever(loop);
  }
  aloop_free(loop); /* the signals do again what they did before */
  return error < 0;
}
