/* SPDX-License-Identifier: MIT
 *
 * What the example servers share: making a server with a readable error, printing where it listens, and
 * stopping on a signal. Header-only, so that each server stays one easy build.
 */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include "aloop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Makes a server, or says on stderr why not. Returns 0 or a code. Not inside callbacks. */
static inline int make_server(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                              const aloop_server_options_t *options, aloop_server_t **server) {
  aloop_future_t *made = aloop_create_server(loop, protocol, arg, options);
  if (made == NULL) return ALOOP_ENOMEM;
  int error = aloop_run_until_complete_ptr(loop, aloop_future_ref(made), server);
  if (error < 0)
    fprintf(stderr, "cannot listen on %s port %d: %s\n", options->host, options->port,
            aloop_future_message(made));
  aloop_future_unref(made);
  return error;
}

/* Prints one line for each listening socket: "before", "127.0.0.1:7777" or "[::1]:7777", "after". */
static inline void print_addresses(const aloop_server_t *server, const char *before, const char *after) {
  for (size_t i = 0; i < aloop_server_sockets(server); i++) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char host[64], port[16];
    if (aloop_server_socket(server, i, (struct sockaddr *)&address, &size) < 0) continue;
    if (getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
      continue;
    printf(strchr(host, ':') != NULL ? "%s[%s]:%s%s\n" : "%s%s:%s%s\n", before, host, port, after);
  }
  fflush(stdout);
}

/* A number of the command line between `min` and `max`; ends the program with a message if it is none. */
static inline int parse_number(const char *option, const char *text, int min, int max) {
  char *end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (errno == 0 && end != text && *end == '\0' && value >= min && value <= max) return (int)value;
  fprintf(stderr, "%s: \"%s\" is not a number from %d to %d\n", option, text, min, max);
  exit(2);
}

/* SIGINT and SIGTERM come through a pipe: the handler writes a byte, and the loop reads it as it reads any
 * descriptor. */
static int stop_pipe[2] = {-1, -1};

static inline void on_stop_signal(int signal_number) {
  int saved = errno;
  ssize_t ignored = write(stop_pipe[1], &signal_number, 1);
  (void)ignored;
  errno = saved;
}

/* Makes fn(loop, arg) run on SIGINT and SIGTERM; it calls take_stop_signal. Returns 0 or a code. */
static inline int watch_stop_signals(aloop_t *loop, aloop_callback_fn fn, void *arg) {
  if (pipe(stop_pipe) < 0) return -errno;
  for (int i = 0; i < 2; i++) {
    fcntl(stop_pipe[i], F_SETFL, O_NONBLOCK);
    fcntl(stop_pipe[i], F_SETFD, FD_CLOEXEC);
  }
  struct sigaction action = {.sa_handler = on_stop_signal, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  return aloop_add_reader(loop, stop_pipe[0], fn, arg);
}

static inline void take_stop_signal(void) {
  char bytes[64];
  while (read(stop_pipe[0], bytes, sizeof bytes) > 0) continue;
}

/* Gives the signals back to the system; before the loop is freed. */
static inline void unwatch_stop_signals(aloop_t *loop) {
  if (stop_pipe[0] < 0) return;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  aloop_remove_reader(loop, stop_pipe[0]);
  close(stop_pipe[0]);
  close(stop_pipe[1]);
  stop_pipe[0] = stop_pipe[1] = -1;
}

#endif
