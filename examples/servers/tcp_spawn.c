/* SPDX-License-Identifier: MIT
 *
 * Runs a command for each connection, as inetd does: what the client sends is its stdin, what it writes goes to
 * the client.
 *
 *     tcp_spawn [--host HOST] [--port PORT] [--max N] COMMAND [ARGUMENT...]
 *     tcp_spawn --port 7779 sort                     then: printf 'b\na\n' | nc -N 127.0.0.1 7779
 *
 * Default 127.0.0.1 and 7779, at most 100 commands at one time; port 0: any free one.
 *
 * A session is a connection and a process, each with callbacks that act upon the other:
 *
 * - Back-pressure both ways. A command that does not read (pause_writing of the process) stops the reading from
 *   its client, and a client that does not read stops the reading from the command, which then waits at its
 *   pipe. Memory never holds more than the high-water marks, however large the transfer.
 * - The client's end of file closes stdin. The end of stdout is the server's end of file; the connection closes
 *   when the client has ended too. Closing it before, with bytes of the client unread, would make TCP throw
 *   away the answer.
 * - A client that goes away takes its command with it; one that has said everything may finish its work.
 */
#include "common.h"

#include <getopt.h>
#include <stdbool.h>

typedef struct spawner {
  stoppable_t self;
  const char *const *argv;
} spawner_t;

typedef struct session {
  const spawner_t *spawner;
  aloop_transport_t *client; /* NULL once lost */
  aloop_process_t *process;  /* NULL before it is made, and once it is over */
  aloop_future_t *starting;  /* NULL when that is over, one way or the other */
  bool silent;               /* the command writes no more */
  bool ended;                /* the client sends no more */
} session_t;

static void free_if_over(session_t *session) {
  if (session->client == NULL && session->process == NULL && session->starting == NULL) free(session);
}

static void resume_reading(aloop_transport_t *transport) {
  int error = transport != NULL ? aloop_transport_resume_reading(transport) : 0;
  if (error < 0) aloop_transport_abort_error(transport, error);
}

/* ---- The command ----------------------------------------------------------------------------------------- */

static void command_made(aloop_process_t *process, void *protocol) {
  session_t *session = protocol;
  session->process = process;
  resume_reading(session->client);
}

static void command_wrote(aloop_process_t *process, void *protocol, int fd, const void *data, size_t size) {
  session_t *session = protocol;
  (void)process, (void)fd;
  if (session->client != NULL) aloop_transport_write(session->client, data, size);
}

static void command_pipe_lost(aloop_process_t *process, void *protocol, int fd, int error) {
  session_t *session = protocol;
  (void)process, (void)error;
  if (fd != STDOUT_FILENO) return;
  session->silent = true;
  if (session->client == NULL) return;
  if (session->ended) {
    aloop_transport_close(session->client);
    return;
  }
  aloop_transport_write_eof(session->client);
  aloop_transport_set_timeouts(session->client, ALOOP_SECONDS(10), 0, 0);
  resume_reading(session->client);
}

static void command_is_full(aloop_process_t *process, void *protocol) {
  session_t *session = protocol;
  (void)process;
  if (session->client != NULL) aloop_transport_pause_reading(session->client);
}

static void command_takes_more(aloop_process_t *process, void *protocol) {
  session_t *session = protocol;
  (void)process;
  resume_reading(session->client);
}

static void command_over(aloop_process_t *process, void *protocol, int error) {
  session_t *session = protocol;
  (void)process, (void)error;
  session->process = NULL;
  free_if_over(session);
}

static const aloop_process_protocol_t command_protocol = {
    .size = sizeof command_protocol,
    .connection_made = command_made,
    .pipe_data_received = command_wrote,
    .pipe_connection_lost = command_pipe_lost,
    .pause_writing = command_is_full,
    .resume_writing = command_takes_more,
    .connection_lost = command_over,
};

/* The command runs, or it could not be started. */
static void on_started(aloop_future_t *future, void *arg) {
  session_t *session = arg;
  int64_t error = aloop_future_result(future);
  if (error < 0 && error != ALOOP_ECANCELED) fprintf(stderr, "cannot %s\n", aloop_future_message(future));
  if (error < 0 && session->client != NULL) aloop_transport_abort_reset(session->client);
  session->starting = NULL;
  aloop_future_unref(future);
  free_if_over(session);
}

static bool start_command(session_t *session) {
  aloop_process_options_t options = {
      .size = sizeof options, .argv = session->spawner->argv, .err = {.kind = ALOOP_STDIO_INHERIT}};
  session->starting =
      aloop_subprocess_exec(aloop_transport_loop(session->client), &command_protocol, session, &options);
  if (session->starting == NULL) return false;
  if (aloop_future_add_done_callback(session->starting, on_started, session) == 0) return true;
  aloop_future_cancel(session->starting);
  aloop_future_unref(session->starting);
  session->starting = NULL;
  return false;
}

/* ---- The client ------------------------------------------------------------------------------------------ */

static void *make_session(void *arg) {
  session_t *session = calloc(1, sizeof *session);
  if (session != NULL) session->spawner = arg;
  return session;
}

/* Nothing is read until there is somebody to read it. */
static void client_made(aloop_transport_t *transport, void *protocol) {
  session_t *session = protocol;
  session->client = transport;
  aloop_transport_pause_reading(transport);
  if (!start_command(session)) aloop_transport_abort_error(transport, ALOOP_ENOMEM);
}

/* A command that has closed its stdin, or has ended, does not want to know. */
static int client_sent(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  const session_t *session = protocol;
  (void)transport;
  if (session->process == NULL) return 0;
  int error = aloop_transport_write(aloop_process_pipe(session->process, STDIN_FILENO), data, size);
  return error == ALOOP_ECLOSED || error == ALOOP_EPIPE ? 0 : error;
}

static int client_ended(aloop_transport_t *transport, void *protocol) {
  session_t *session = protocol;
  (void)transport;
  session->ended = true;
  if (session->process != NULL) aloop_transport_write_eof(aloop_process_pipe(session->process, STDIN_FILENO));
  return session->silent ? 0 : 1; /* the answer is still to come */
}

static void client_is_full(aloop_transport_t *transport, void *protocol) {
  const session_t *session = protocol;
  (void)transport;
  if (session->process != NULL)
    aloop_transport_pause_reading(aloop_process_pipe(session->process, STDOUT_FILENO));
}

static void client_takes_more(aloop_transport_t *transport, void *protocol) {
  const session_t *session = protocol;
  (void)transport;
  if (session->process != NULL) resume_reading(aloop_process_pipe(session->process, STDOUT_FILENO));
}

static void client_lost(aloop_transport_t *transport, void *protocol, int error) {
  session_t *session = protocol;
  (void)transport, (void)error;
  session->client = NULL;
  if (session->starting != NULL) aloop_future_cancel(session->starting);
  if (session->process != NULL && !session->silent) aloop_process_close(session->process);
  free_if_over(session);
}

static const aloop_protocol_t client_protocol = {
    .size = sizeof client_protocol,
    .create = make_session,
    .connection_made = client_made,
    .data_received = client_sent,
    .eof_received = client_ended,
    .pause_writing = client_is_full,
    .resume_writing = client_takes_more,
    .connection_lost = client_lost,
};

/* ---- The program ----------------------------------------------------------------------------------------- */

/* Options end where the command begins. Returns the index of that. */
static int read_options(int argc, char **argv, aloop_server_options_t *options) {
  static const struct option names[] = {{"host", required_argument, NULL, 'h'},
                                        {"port", required_argument, NULL, 'p'},
                                        {"max", required_argument, NULL, 'm'},
                                        {0}};
  int option;
  while ((option = getopt_long(argc, argv, "+", names, NULL)) != -1) {
    if (option == 'h')
      options->host = optarg;
    else if (option == 'p')
      options->port = parse_number("--port", optarg, 0, 65535);
    else if (option == 'm')
      options->max_clients = (size_t)parse_number("--max", optarg, 1, 100000);
    else
      optind = argc;
  }
  if (optind < argc) return optind;
  fprintf(stderr, "usage: tcp_spawn [--host HOST] [--port PORT] [--max N] COMMAND [ARGUMENT...]\n");
  exit(2);
}

int main(int argc, char **argv) {
  aloop_server_options_t options = {
      .size = sizeof options, .host = "127.0.0.1", .port = 7779, .backlog = 1024, .max_clients = 100};
  int command = read_options(argc, argv, &options);

  aloop_t *loop;
  spawner_t spawner = {.argv = (const char *const *)(argv + command)};
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = make_server(loop, &client_protocol, &spawner, &options, &spawner.self.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &spawner.self);
  if (error == 0) {
    print_addresses(spawner.self.server, "listening on ", "");
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(spawner.self.server);
  aloop_free(loop);
  return error == 0 ? 0 : 1;
}
