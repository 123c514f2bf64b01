/* SPDX-License-Identifier: MIT
 *
 * A TCP server that sends back what it is sent.
 *
 *     tcp_echo [--host HOST] [--port PORT]      default 127.0.0.1 and 7777; port 0: any free one
 *              [--tls CERTIFICATE KEY]          files, as examples/certificates.sh makes them
 *              [--kernel-tls always|never]      see "Kernel TLS" in aloop.h
 *     printf hello | nc -N 127.0.0.1 7777
 *
 * A protocol is a table of callbacks. This one needs no state of its own: data goes back out, a client that
 * does not read is not read from, and at the client's end of file the transport closes once everything is sent,
 * which is what it does if there is no eof_received.
 */
#include "tls.h"

static int send_back(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  return aloop_transport_write(transport, data, size);
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
    .data_received = send_back,
    .pause_writing = stop_reading,
    .resume_writing = go_on_reading,
};

static void read_options(int argc, char **argv, aloop_server_options_t *options, tls_files_t *tls) {
  static const struct option names[] = {{"host", required_argument, NULL, 'h'},
                                        {"port", required_argument, NULL, 'p'},
                                        {"tls", required_argument, NULL, 't'},
                                        {"kernel-tls", required_argument, NULL, 'k'},
                                        {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      options->host = optarg;
    else if (option == 'p')
      options->port = parse_number("--port", optarg, 0, 65535);
    else if (option == 't')
      read_tls_files(argc, argv, tls);
    else if (option == 'k')
      read_kernel_tls(tls);
    else
      optind = argc + 1;
  }
  if (optind == argc) return;
  fprintf(stderr,
          "usage: tcp_echo [--host HOST] [--port PORT] [--tls CERTIFICATE KEY] [--kernel-tls always|never]\n");
  exit(2);
}

int main(int argc, char **argv) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = 7777, .backlog = 1024};
  tls_files_t tls = {0};
  read_options(argc, argv, &options, &tls);
  options.tls = make_tls_context(&tls, NULL, 0);

  aloop_t *loop;
  stoppable_t echo = {0};
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = make_server(loop, &echo_protocol, NULL, &options, &echo.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &echo);
  if (error == 0) {
    print_addresses(echo.server, "listening on ", "");
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(echo.server);
  aloop_free(loop);
  aloop_tls_context_unref(options.tls);
  return error == 0 ? 0 : 1;
}
