/* SPDX-License-Identifier: MIT
 *
 * A DNS forwarder: passes the questions of its clients on to resolvers, and their answers back.
 *
 *     dns_forwarder [--host HOST] [--port PORT] [--timeout MS] [--tries N] RESOLVER[:PORT]...
 *     dns_forwarder 9.9.9.9 1.1.1.1 [2620:fe::fe]:53
 *     dig @127.0.0.1 -p 5300 example.org
 *
 * By default it listens at 127.0.0.1, port 5300 (0: any free one). A resolver that has not answered after 1500
 * ms is passed over for the next one, and after 3 tries the client is told that it did not work: dig waits 5 s
 * for an answer.
 */
#include "../common.h"

#include "forwarder.h"

#include <getopt.h>

static void on_signal(aloop_t *loop, int signum, void *arg) {
  (void)signum, (void)arg;
  aloop_stop(loop);
}

/* ---- The command line ------------------------------------------------------------------------------------ */

typedef struct options {
  aloop_datagram_options_t clients;
  aloop_datagram_options_t upstreams[UPSTREAMS_MAX];
} options_t;

static void usage(void) {
  fprintf(stderr,
          "usage: dns_forwarder [--host HOST] [--port PORT] [--timeout MS] [--tries N]\n"
          "                     RESOLVER[:PORT]... (at most %d)\n",
          UPSTREAMS_MAX);
  exit(2);
}

/* "host", "host:port", "address of IPv6" or "[address]:port", cut in place. */
static void read_resolver(char *text, aloop_datagram_options_t *upstream) {
  char *colon = strrchr(text, ':'), *bracket = text[0] == '[' ? strchr(text, ']') : NULL;
  bool has_port = bracket != NULL ? colon == bracket + 1 : colon != NULL && colon == strchr(text, ':');
  *upstream = (aloop_datagram_options_t){.size = sizeof *upstream, .remote_host = text, .remote_port = 53};
  if (has_port) {
    upstream->remote_port = parse_number("RESOLVER:PORT", colon + 1, 1, 65535);
    *colon = '\0';
  }
  if (bracket == NULL) return;
  *bracket = '\0';
  upstream->remote_host = text + 1;
}

static void read_options(int argc, char **argv, options_t *options, forwarder_t *forwarder) {
  static const struct option names[] = {{"host", required_argument, NULL, 'h'},
                                        {"port", required_argument, NULL, 'p'},
                                        {"timeout", required_argument, NULL, 't'},
                                        {"tries", required_argument, NULL, 'n'},
                                        {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      options->clients.local_host = optarg;
    else if (option == 'p')
      options->clients.local_port = parse_number("--port", optarg, 0, 65535);
    else if (option == 't')
      forwarder->timeout = ALOOP_MILLIS(parse_number("--timeout", optarg, 1, 60000));
    else if (option == 'n')
      forwarder->tries = (size_t)parse_number("--tries", optarg, 1, 100);
    else
      usage();
  }
  if (optind == argc || argc - optind > UPSTREAMS_MAX) usage();
  for (; optind < argc; optind++) read_resolver(argv[optind], &options->upstreams[forwarder->upstream_count++]);
}

/* ---- The start ------------------------------------------------------------------------------------------- */

static int make_endpoints(forwarder_t *forwarder, const options_t *options) {
  int error = 0;
  for (size_t i = 0; error == 0 && i < forwarder->upstream_count; i++) {
    upstream_t *upstream = &forwarder->upstreams[i];
    upstream->forwarder = forwarder;
    error = make_endpoint(forwarder->loop, &upstream_protocol, upstream, &options->upstreams[i]);
  }
  if (error == 0) error = make_endpoint(forwarder->loop, &clients_protocol, forwarder, &options->clients);
  return error;
}

int main(int argc, char **argv) {
  static forwarder_t forwarder = {.timeout = ALOOP_MILLIS(1500), .tries = 3};
  options_t options = {
      .clients = {
          .size = sizeof options.clients, .local_host = "127.0.0.1", .local_port = 5300, .want_local = true}};
  read_options(argc, argv, &options, &forwarder);

  int error = aloop_new(NULL, &forwarder.loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = make_endpoints(&forwarder, &options);
  if (error == 0) error = watch_stop_signals(forwarder.loop, on_signal, NULL);
  if (error == 0) {
    print_endpoint_address(forwarder.clients, "listening on ", "");
    error = aloop_run_forever(forwarder.loop);
  }
  forwarder_clear(&forwarder);
  aloop_free(forwarder.loop);
  return error == 0 ? 0 : 1;
}
