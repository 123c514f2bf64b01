/* SPDX-License-Identifier: MIT
 *
 * A TLS server or client for scripts, which says what becomes of each connection: who has to show a certificate,
 * whom it does not believe, whose handshake or end takes too long.
 *
 *     tls_peer serve CERTIFICATE KEY [OPTION...]     on any free port of 127.0.0.1; echoes
 *     tls_peer connect PORT CA [OPTION...]           to localhost; sends its standard input's first line
 *
 *     --ca FILE            serve: clients have to show a certificate of this CA
 *     --optional           serve: ... or none
 *     --crl FILE           certificates that were revoked
 *     --own FILE KEY       connect: a certificate to be shown
 *     --handshake MS       timeouts
 *     --shutdown MS
 *     --flood BYTES        serve: so many zeros to each client, and the end
 *
 * Lines on standard output, beside "listening on ADDRESS":
 *
 *     made N               a handshake is done; the peer has shown N certificates
 *     got TEXT             connect: the echo
 *     lost CODE: WORDS     a connection that was made has ended; 0 is well
 *     failed CODE: WORDS   a handshake has
 */
#include "servers/common.h"

#include <getopt.h>

typedef struct peer {
  aloop_t *loop;
  aloop_tls_options_t tls;
  int64_t handshake, shutdown;
  size_t flood;
  bool serves, lost;
  int status;
} peer_t;

/* ---- What becomes of connections ------------------------------------------------------------------------- */

static void tell(const char *what, int error, const char *words) {
  printf("%s %s: %s\n", what, error < 0 ? aloop_error_name(error) : "0",
         words != NULL ? words : aloop_strerror(error));
  fflush(stdout);
}

static void say_first_line(aloop_transport_t *transport) {
  char line[256];
  if (fgets(line, sizeof line, stdin) != NULL) aloop_transport_write(transport, line, strlen(line));
}

static void on_made(aloop_transport_t *transport, void *protocol) {
  const peer_t *peer = protocol;
  aloop_tls_info_t info = {.size = sizeof info};
  aloop_transport_tls_info(transport, &info);
  printf("made %zu\n", info.certificates);
  fflush(stdout);
  if (!peer->serves) say_first_line(transport);
  if (peer->flood == 0) return;
  void *zeros = calloc(1, peer->flood);
  if (zeros == NULL || aloop_transport_write_owned(transport, zeros, peer->flood, free, zeros) < 0) free(zeros);
  aloop_transport_close(transport);
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  const peer_t *peer = protocol;
  if (peer->serves) return aloop_transport_write(transport, data, size);
  printf("got %.*s", (int)size, (const char *)data);
  fflush(stdout);
  aloop_transport_close(transport);
  return 0;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  peer_t *peer = protocol;
  tell("lost", error, aloop_transport_tls_error(transport));
  if (peer->serves) return;
  peer->status = error < 0;
  peer->lost = true;
  aloop_stop(peer->loop);
}

static const aloop_protocol_t protocol = {
    .size = sizeof protocol, .connection_made = on_made, .data_received = on_data, .connection_lost = on_lost};

/* Debug mode reports failed handshakes; after one that was made the reason is told by connection_lost. */
static int on_report(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop, (void)arg;
  if (context->transport != NULL &&
      aloop_transport_tls_info(context->transport, &(aloop_tls_info_t){.size = sizeof(aloop_tls_info_t)}) != 0)
    tell("failed", context->error, context->message);
  return 0;
}

/* ---- The two sides --------------------------------------------------------------------------------------- */

static void on_stop(aloop_t *loop, int signum, void *arg) {
  (void)signum, (void)arg;
  aloop_stop(loop);
}

static int serve(peer_t *peer, aloop_tls_context_t *tls) {
  aloop_server_t *server = NULL;
  aloop_server_options_t options = {.size = sizeof options,
                                    .host = "127.0.0.1",
                                    .tls = tls,
                                    .tls_handshake_timeout = peer->handshake,
                                    .tls_shutdown_timeout = peer->shutdown};
  int error = make_server(peer->loop, &protocol, peer, &options, &server);
  if (error == 0) error = watch_stop_signals(peer->loop, on_stop, NULL);
  if (error == 0) {
    print_addresses(server, "listening on ", "");
    error = aloop_run_forever(peer->loop);
  }
  aloop_server_unref(server);
  return error == 0 ? 0 : 1;
}

static int go(peer_t *peer, aloop_tls_context_t *tls, int port) {
  aloop_connect_options_t options = {.size = sizeof options,
                                     .host = "localhost",
                                     .port = port,
                                     .tls = tls,
                                     .tls_handshake_timeout = peer->handshake,
                                     .tls_shutdown_timeout = peer->shutdown};
  aloop_future_t *future = aloop_create_connection(peer->loop, &protocol, peer, &options);
  int64_t error =
      future != NULL ? aloop_run_until_complete(peer->loop, aloop_future_ref(future)) : ALOOP_ENOMEM;
  if (error < 0 && future != NULL) tell("failed", (int)error, aloop_future_message(future));
  aloop_future_unref(future);
  if (error == 0 && !peer->lost) aloop_run_forever(peer->loop);
  return error == 0 ? peer->status : 1;
}

/* ---- The command line ------------------------------------------------------------------------------------ */

static void read_options(int argc, char **argv, peer_t *peer) {
  enum { MOST = 1000000000 };
  static const struct option names[] = {
      {"ca", required_argument, NULL, 'a'},        {"optional", no_argument, NULL, 'o'},
      {"crl", required_argument, NULL, 'r'},       {"own", required_argument, NULL, 'c'},
      {"handshake", required_argument, NULL, 'h'}, {"shutdown", required_argument, NULL, 's'},
      {"flood", required_argument, NULL, 'f'},     {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'a') peer->tls.ca_file = optarg;
    if (option == 'a') peer->tls.verify = ALOOP_TLS_VERIFY_REQUIRED;
    if (option == 'o') peer->tls.verify = ALOOP_TLS_VERIFY_OPTIONAL;
    if (option == 'r') peer->tls.crl_file = optarg;
    if (option == 'c') peer->tls.certificate_file = optarg;
    if (option == 'c') peer->tls.key_file = optind < argc ? argv[optind++] : NULL;
    if (option == 'h') peer->handshake = ALOOP_MILLIS(parse_number("--handshake", optarg, 1, MOST));
    if (option == 's') peer->shutdown = ALOOP_MILLIS(parse_number("--shutdown", optarg, 1, MOST));
    if (option == 'f') peer->flood = (size_t)parse_number("--flood", optarg, 1, MOST);
    if (option == '?') exit(2);
  }
}

int main(int argc, char **argv) {
  char message[256] = "";
  peer_t peer = {.serves = argc > 3 && strcmp(argv[1], "serve") == 0};
  if (argc < 4 || (!peer.serves && strcmp(argv[1], "connect") != 0)) {
    fprintf(stderr, "usage: tls_peer serve CERTIFICATE KEY | connect PORT CA [OPTION...]\n");
    return 2;
  }
  peer.tls = (aloop_tls_options_t){.size = sizeof peer.tls, .message = message, .message_size = sizeof message};
  if (peer.serves) {
    peer.tls.role = ALOOP_TLS_SERVER;
    peer.tls.certificate_file = argv[2];
    peer.tls.key_file = argv[3];
  } else {
    peer.tls.ca_file = argv[3];
  }
  read_options(argc - 3, argv + 3, &peer);

  aloop_tls_context_t *tls;
  aloop_options_t options = {.size = sizeof options, .debug = 1};
  int error = aloop_tls_context_new(aloop_tls_openssl(), &peer.tls, &tls);
  if (error == 0) error = aloop_new(&options, &peer.loop);
  if (error == 0) error = aloop_set_exception_handler(peer.loop, on_report, NULL);
  if (error < 0) {
    fprintf(stderr, "tls_peer: %s: %s\n", aloop_strerror(error), message);
    return 1;
  }
  int status = peer.serves ? serve(&peer, tls) : go(&peer, tls, parse_number("PORT", argv[2], 1, 65535));
  aloop_free(peer.loop);
  aloop_tls_context_unref(tls);
  return status;
}
