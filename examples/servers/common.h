/* SPDX-License-Identifier: MIT
 *
 * What the example servers share: making a server or an endpoint with a readable error, printing where it
 * listens, and stopping on a signal. Header-only, so that each server stays one easy build.
 */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include "aloop.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
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

/* Makes an endpoint for datagrams, or says on stderr why not. Returns 0 or a code. Not inside callbacks. */
static inline int make_endpoint(aloop_t *loop, const aloop_datagram_protocol_t *protocol, void *arg,
                                const aloop_datagram_options_t *options) {
  aloop_future_t *made = aloop_create_datagram_endpoint(loop, protocol, arg, options);
  if (made == NULL) return ALOOP_ENOMEM;
  int error = (int)aloop_run_until_complete(loop, aloop_future_ref(made));
  bool remote = options->remote_host != NULL;
  if (error < 0)
    fprintf(stderr, "cannot %s %s port %d: %s\n", remote ? "send to" : "listen on",
            remote ? options->remote_host : options->local_host,
            remote ? options->remote_port : options->local_port, aloop_future_message(made));
  aloop_future_unref(made);
  return error;
}

/* Prints a line: "before", "127.0.0.1:7777" or "[::1]:7777", "after". */
static inline void print_address(const struct sockaddr *address, socklen_t size, const char *before,
                                 const char *after) {
  char host[64], port[16];
  if (getnameinfo(address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return;
  printf(strchr(host, ':') != NULL ? "%s[%s]:%s%s\n" : "%s%s:%s%s\n", before, host, port, after);
  fflush(stdout);
}

/* One for each listening socket. */
static inline void print_addresses(const aloop_server_t *server, const char *before, const char *after) {
  for (size_t i = 0; i < aloop_server_sockets(server); i++) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (aloop_server_socket(server, i, (struct sockaddr *)&address, &size) >= 0)
      print_address((struct sockaddr *)&address, size, before, after);
  }
}

static inline void print_endpoint_address(const aloop_datagram_t *endpoint, const char *before,
                                          const char *after) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  if (aloop_datagram_sockname(endpoint, (struct sockaddr *)&address, &size) == 0)
    print_address((struct sockaddr *)&address, size, before, after);
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

/* Makes fn(loop, signum, arg) run on SIGINT and SIGTERM, until the loop is closed. Returns 0 or a code. */
static inline int watch_stop_signals(aloop_t *loop, aloop_signal_fn fn, void *arg) {
  int error = aloop_add_signal_handler(loop, SIGINT, fn, arg, 0);
  return error < 0 ? error : aloop_add_signal_handler(loop, SIGTERM, fn, arg, 0);
}

/* A server, and whether it was told to stop. */
typedef struct stoppable {
  aloop_server_t *server;
  bool stopping;
} stoppable_t;

static inline void stop_drained(aloop_future_t *drained, void *arg) {
  (void)arg;
  aloop_stop(aloop_future_loop(drained));
  aloop_future_unref(drained);
}

/* For watch_stop_signals with a stoppable_t: the first signal gives clients a second to finish, the second one
 * does not. */
static inline void stop_gracefully(aloop_t *loop, int signum, void *arg) {
  (void)signum;
  stoppable_t *self = arg;
  if (self->stopping) {
    aloop_server_abort_clients(self->server);
    return;
  }
  self->stopping = true;
  aloop_future_t *drained = aloop_server_drain(self->server, ALOOP_SECONDS(1));
  if (drained == NULL || aloop_future_add_done_callback(drained, stop_drained, NULL) < 0) aloop_stop(loop);
}

#endif
