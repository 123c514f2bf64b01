/* SPDX-License-Identifier: MIT
 *
 * A UDP server that sends back what it is sent.
 *
 *     udp_echo [--host HOST] [--port PORT]      default 127.0.0.1 and 7777; port 0: any free one
 *     printf hello | nc -u -w 1 127.0.0.1 7777
 *
 * datagrams_received gets all that one system call brought, and hands it back in one call: each message goes to
 * the address it came from. When the network takes no more the server drops, as UDP may: it never buffers more
 * than its write buffer's cap.
 */
#include "common.h"

#include <getopt.h>

enum { BUFFER_MAX = 1 << 20 };

static void remember(aloop_datagram_t *endpoint, void *protocol) {
  aloop_datagram_set_write_buffer_cap(endpoint, BUFFER_MAX);
  *(aloop_datagram_t **)protocol = endpoint;
}

static void send_back(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                      size_t count) {
  (void)protocol;
  aloop_datagram_send_many(endpoint, messages, count);
}

/* Some answer could not be delivered; the next one may. */
static void complain(aloop_datagram_t *endpoint, void *protocol, int error) {
  (void)endpoint, (void)protocol;
  fprintf(stderr, "%s\n", aloop_strerror(error));
}

static const aloop_datagram_protocol_t echo_protocol = {.size = sizeof echo_protocol,
                                                        .connection_made = remember,
                                                        .datagrams_received = send_back,
                                                        .error_received = complain};

static void on_signal(aloop_t *loop, int signum, void *arg) {
  (void)signum, (void)arg;
  aloop_stop(loop);
}

static void read_options(int argc, char **argv, aloop_datagram_options_t *options) {
  static const struct option names[] = {
      {"host", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'}, {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      options->local_host = optarg;
    else if (option == 'p')
      options->local_port = parse_number("--port", optarg, 0, 65535);
    else
      optind = argc + 1;
  }
  if (optind == argc) return;
  fprintf(stderr, "usage: udp_echo [--host HOST] [--port PORT]\n");
  exit(2);
}

int main(int argc, char **argv) {
  aloop_datagram_options_t options = {.size = sizeof options, .local_host = "127.0.0.1", .local_port = 7777};
  read_options(argc, argv, &options);

  aloop_t *loop;
  aloop_datagram_t *endpoint = NULL;
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = make_endpoint(loop, &echo_protocol, &endpoint, &options);
  if (error == 0) error = watch_stop_signals(loop, on_signal, NULL);
  if (error == 0) {
    print_endpoint_address(endpoint, "listening on ", "");
    error = aloop_run_forever(loop);
    aloop_datagram_close(endpoint); /* what waits is sent as the loop goes on, and dropped as it ends */
  }
  aloop_free(loop);
  return error == 0 ? 0 : 1;
}
