/* SPDX-License-Identifier: MIT
 *
 * An echo server over a Unix socket: it says whose process each client is, and sends back what it is sent, open
 * descriptors included.
 *
 *     unix_echo [PATH]                 default ./echo.socket; @NAME: an abstract name (Linux)
 *     printf hello | nc -N -U echo.socket
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

/* Returns 0 or a code. */
static int serve(aloop_t *loop, const char *path, aloop_server_t **server) {
  char name[108];
  aloop_unix_server_options_t options = {.size = sizeof options, .path = path};
  if (path[0] == '@' && strlen(path) < sizeof name) { /* the zero byte of an abstract name is written as @ */
    options.path_size = strlen(path);
    options.path = memcpy(name, path, strlen(path));
    name[0] = '\0';
  }
  aloop_future_t *made = aloop_create_unix_server(loop, &echo_protocol, NULL, &options);
  if (made == NULL) return ALOOP_ENOMEM;
  int error = aloop_run_until_complete_ptr(loop, aloop_future_ref(made), server);
  if (error < 0) fprintf(stderr, "cannot listen: %s\n", aloop_future_message(made));
  aloop_future_unref(made);
  return error;
}

int main(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : "echo.socket";
  aloop_t *loop;
  stoppable_t echo = {0};
  if (argc > 2 || path[0] == '-') {
    fprintf(stderr, "usage: unix_echo [PATH]\n");
    return 2;
  }
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = serve(loop, path, &echo.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &echo);
  if (error == 0) {
    printf("listening on %s\n", path);
    fflush(stdout);
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(echo.server);
  aloop_free(loop);
  return error == 0 ? 0 : 1;
}
