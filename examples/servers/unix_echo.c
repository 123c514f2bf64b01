/* SPDX-License-Identifier: MIT
 *
 * An echo server over a Unix socket: it says whose process each client is, and sends back what it is sent, open
 * descriptors included.
 *
 *     unix_echo [PATH]                 default ./echo.socket; @NAME: an abstract name (Linux)
 *     printf hello | nc -N -U echo.socket
 *     unix_echo --seqpacket [PATH]     messages instead of a stream: each comes back as one
 *     unix_echo --datagram [PATH]      datagrams; a client that wants an answer has a name of its own
 *     printf hello | socat -T 1 - UNIX-SENDTO:echo.socket,bind=mine.socket
 *
 * The file of a server that was killed does not stop the next one from starting; that of one that is alive does.
 * At the end the file is gone.
 */
#include "common.h"

static void greet(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_peercred_t peer;
  if (aloop_transport_peercred(transport, &peer) < 0) return;
  printf("process %ld of user %ld\n", (long)peer.pid, (long)peer.uid);
  fflush(stdout);
}

/* They are duplicated, so that these can be closed. */
static int send_back_with(aloop_transport_t *transport, const void *data, size_t size, int fd) {
  int fds[64] = {fd};
  size_t count = 1;
  while (count < 64 && (fd = aloop_transport_take_fd(transport)) >= 0) fds[count++] = fd;
  int error = aloop_transport_write_fds(transport, data, size, fds, count);
  for (size_t i = 0; i < count; i++) close(fds[i]);
  return error;
}

static int send_back(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  int fd = aloop_transport_take_fd(transport);
  return fd >= 0 ? send_back_with(transport, data, size, fd) : aloop_transport_write(transport, data, size);
}

static void stop_reading(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_pause_reading(transport);
}

static void go_on_reading(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  int error = aloop_transport_resume_reading(transport);
  if (error < 0) aloop_transport_abort_error(transport, error);
}

static const aloop_protocol_t echo_protocol = {
    .size = sizeof echo_protocol,
    .connection_made = greet,
    .data_received = send_back,
    .pause_writing = stop_reading,
    .resume_writing = go_on_reading,
};

/* The zero byte of an abstract name is written as @. */
static void read_name(char *path) {
  if (path[0] == '@') path[0] = '\0';
}

static void say_where(const char *path) {
  printf("listening on %c%s\n", path[0] != '\0' ? path[0] : '@', path + 1);
  fflush(stdout);
}

/* ---- Streams and messages -------------------------------------------------------------------------------- */

/* Returns 0 or a code. */
static int serve(aloop_t *loop, const char *path, size_t size, int type, aloop_server_t **server) {
  aloop_unix_server_options_t options = {.size = sizeof options, .path = path, .path_size = size, .type = type};
  aloop_future_t *made = aloop_create_unix_server(loop, &echo_protocol, NULL, &options);
  if (made == NULL) return ALOOP_ENOMEM;
  int error = aloop_run_until_complete_ptr(loop, aloop_future_ref(made), server);
  if (error < 0) fprintf(stderr, "cannot listen: %s\n", aloop_future_message(made));
  aloop_future_unref(made);
  return error;
}

static int run_server(aloop_t *loop, const char *path, size_t size, int type) {
  stoppable_t echo = {0};
  int error = serve(loop, path, size, type, &echo.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &echo);
  if (error == 0) {
    say_where(path);
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(echo.server);
  return error;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

/* Those who have no name cannot be answered. */
static void send_all_back(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                          size_t count) {
  (void)protocol;
  for (size_t i = 0; i < count; i++)
    if (messages[i].address != NULL) aloop_datagram_send_many(endpoint, &messages[i], 1);
}

/* Some client has gone; the next one may be there. */
static void complain(aloop_datagram_t *endpoint, void *protocol, int error) {
  (void)endpoint, (void)protocol;
  fprintf(stderr, "%s\n", aloop_strerror(error));
}

static const aloop_datagram_protocol_t datagram_protocol = {
    .size = sizeof datagram_protocol,
    .datagrams_received = send_all_back,
    .error_received = complain,
};

static void on_signal(aloop_t *loop, int signum, void *arg) {
  (void)signum, (void)arg;
  aloop_stop(loop);
}

static int run_endpoint(aloop_t *loop, const char *path, size_t size) {
  aloop_datagram_options_t options = {.size = sizeof options, .local_path = path, .local_path_size = size};
  aloop_future_t *made = aloop_create_datagram_endpoint(loop, &datagram_protocol, NULL, &options);
  int error = (int)aloop_run_until_complete(loop, aloop_future_ref(made));
  if (error < 0) fprintf(stderr, "cannot serve: %s\n", made != NULL ? aloop_future_message(made) : "no memory");
  if (error == 0) error = watch_stop_signals(loop, on_signal, NULL);
  if (error == 0) {
    say_where(path);
    error = aloop_run_forever(loop);
  }
  aloop_future_unref(made);
  return error;
}

int main(int argc, char **argv) {
  char standard[] = "echo.socket";
  int type = SOCK_STREAM, at = 1;
  if (at < argc && strcmp(argv[at], "--datagram") == 0) {
    type = SOCK_DGRAM;
    at++;
  } else if (at < argc && strcmp(argv[at], "--seqpacket") == 0) {
    type = SOCK_SEQPACKET;
    at++;
  }
  char *path = at < argc ? argv[at++] : standard;
  if (at < argc || path[0] == '-') {
    fprintf(stderr, "usage: unix_echo [--datagram | --seqpacket] [PATH]\n");
    return 2;
  }
  size_t size = strlen(path);
  read_name(path);
  aloop_t *loop;
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = type == SOCK_DGRAM ? run_endpoint(loop, path, size) : run_server(loop, path, size, type);
  aloop_free(loop); /* the file goes with it */
  return error == 0 ? 0 : 1;
}
