/* SPDX-License-Identifier: MIT
 *
 * A SOCKS 5 server (RFC 1928): clients that speak SOCKS reach, through this machine, what it can reach.
 *
 *     socks5 [--host HOST] [--port PORT] [--handshake-timeout SECONDS] [--connect-timeout SECONDS]
 *     curl --socks5-hostname 127.0.0.1:1080 http://example.org/
 *
 * By default it listens at 127.0.0.1, port 1080 (0: any free one), gives a client 10 seconds to say what it
 * wants, and a target as long to answer. It asks nobody for a password, so do not let it listen where strangers
 * come by. It knows the command CONNECT, with IPv4 and IPv6 addresses and with names, which it looks up itself.
 */
#include "../common.h"

#include "connection.h"

#include <getopt.h>

typedef struct service {
  stoppable_t self;
  limits_t limits;
} service_t;

static void usage(void) {
  fprintf(stderr, "usage: socks5 [--host HOST] [--port PORT] [--handshake-timeout SECONDS]\n"
                  "              [--connect-timeout SECONDS]\n");
  exit(2);
}

static void read_options(int argc, char **argv, aloop_server_options_t *listen, limits_t *limits) {
  static const struct option names[] = {{"host", required_argument, NULL, 'h'},
                                        {"port", required_argument, NULL, 'p'},
                                        {"handshake-timeout", required_argument, NULL, 's'},
                                        {"connect-timeout", required_argument, NULL, 'c'},
                                        {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      listen->host = optarg;
    else if (option == 'p')
      listen->port = parse_number("--port", optarg, 0, 65535);
    else if (option == 's')
      limits->handshake = ALOOP_SECONDS(parse_number("--handshake-timeout", optarg, 1, 86400));
    else if (option == 'c')
      limits->connect = ALOOP_SECONDS(parse_number("--connect-timeout", optarg, 1, 86400));
    else
      usage();
  }
  if (optind != argc) usage();
}

int main(int argc, char **argv) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = 1080, .backlog = 1024};
  service_t service = {.limits = {.handshake = ALOOP_SECONDS(10), .connect = ALOOP_SECONDS(10)}};
  read_options(argc, argv, &options, &service.limits);

  aloop_t *loop;
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = make_server(loop, &connection_protocol, &service.limits, &options, &service.self.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &service.self);
  if (error == 0) {
    print_addresses(service.self.server, "listening on ", "");
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(service.self.server);
  aloop_free(loop);
  return error == 0 ? 0 : 1;
}
