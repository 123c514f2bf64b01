/* SPDX-License-Identifier: MIT
 *
 * A TCP server that sends back what it is sent, line by line, with a task for each client.
 *
 *     task_echo [--host HOST] [--port PORT]      default 127.0.0.1 and 7777; port 0: any free one
 *     printf 'hello\n' | nc -N 127.0.0.1 7777
 *
 * Compare tcp_echo.c, which does the same with a protocol. A task reads like a program for one client: it waits
 * for a line, writes it, and waits until the client takes what was written. When the function returns, the
 * connection is closed.
 */
#include "common.h"

#include <getopt.h>

static int64_t send_back_lines(aloop_t *loop, aloop_stream_t *client, void *arg) {
  (void)loop, (void)arg;
  static const char complaint[] = "This line is too long for me.\n";
  const char *line;
  int64_t size;
  while ((size = aloop_await(aloop_stream_readline(client, &line))) > 0) {
    int64_t error = aloop_stream_write(client, line, (size_t)size);
    if (error == 0) error = aloop_await(aloop_stream_drain(client));
    if (error < 0) return error;
  }
  return size == ALOOP_ERANGE ? aloop_stream_write(client, complaint, sizeof complaint - 1) : size;
}

static int start_serving(aloop_t *loop, const aloop_server_options_t *options, aloop_server_t **server) {
  aloop_future_t *started = aloop_start_server(loop, send_back_lines, NULL, options, NULL);
  if (started == NULL) return ALOOP_ENOMEM;
  int error = aloop_run_until_complete_ptr(loop, aloop_future_ref(started), server);
  if (error < 0)
    fprintf(stderr, "cannot listen on %s port %d: %s\n", options->host, options->port,
            aloop_future_message(started));
  aloop_future_unref(started);
  return error;
}

static void read_options(int argc, char **argv, aloop_server_options_t *options) {
  static const struct option names[] = {
      {"host", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'}, {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      options->host = optarg;
    else if (option == 'p')
      options->port = parse_number("--port", optarg, 0, 65535);
    else
      optind = argc + 1;
  }
  if (optind == argc) return;
  fprintf(stderr, "usage: task_echo [--host HOST] [--port PORT]\n");
  exit(2);
}

int main(int argc, char **argv) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = 7777, .backlog = 1024};
  read_options(argc, argv, &options);

  aloop_t *loop;
  stoppable_t echo = {0};
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = start_serving(loop, &options, &echo.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &echo);
  if (error == 0) {
    print_addresses(echo.server, "listening on ", "");
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(echo.server);
  aloop_free(loop);
  return error == 0 ? 0 : 1;
}
