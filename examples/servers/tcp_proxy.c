/* SPDX-License-Identifier: MIT
 *
 * A TCP proxy: what comes in at one address goes to another, and back.
 *
 *     tcp_proxy [--host HOST] [--port PORT] TARGET:PORT      default 127.0.0.1 and 7778; port 0: any free one
 *     tcp_proxy --port 7778 example.org:80
 *     tcp_proxy --port 7778 [::1]:7777
 *
 * When a client has come, nothing is read from it until the connection to the target is made. Then the two are
 * joined by aloop_relay, which does all that makes a faithful proxy: a side that does not read slows the other
 * one down, the end of one direction is passed on while the other goes on, and a side that fails resets the
 * other, so that nobody takes a torn-off answer for a whole one.
 */
#include "common.h"

#include <getopt.h>
#include <stdbool.h>

typedef struct proxy {
  stoppable_t self;
  aloop_connect_options_t target;
} proxy_t;

/* A client that waits for its connection to the target. */
typedef struct client {
  aloop_transport_t *transport; /* NULL: lost */
  aloop_future_t *connecting;   /* NULL: over, one way or the other */
  const proxy_t *proxy;
} client_t;

static void free_if_over(client_t *client) {
  if (client->transport == NULL && client->connecting == NULL) free(client);
}

/* Whatever became of it, both peers were told. Reading the result says that we know. */
static void on_relayed(aloop_future_t *relay, void *arg) {
  (void)arg;
  aloop_future_result(relay);
  aloop_future_unref(relay);
}

/* From here on the relay does everything. */
static void join(aloop_transport_t *client, aloop_transport_t *target) {
  aloop_future_t *relay = aloop_relay(client, target);
  bool joined = relay != NULL && aloop_future_add_done_callback(relay, on_relayed, NULL) == 0;
  if (!joined || aloop_future_done(relay)) { /* one of the two was quick to go */
    aloop_transport_abort_reset(client);
    aloop_transport_abort(target);
  }
  if (!joined) aloop_future_unref(relay);
}

/* There is a connection to the target, but perhaps no client any more. */
static void on_target(const client_t *client, aloop_future_t *connecting) {
  aloop_transport_t *target;
  aloop_future_take_ptr(connecting, &target);
  if (client->transport != NULL)
    join(client->transport, target);
  else
    aloop_transport_abort(target);
  aloop_transport_unref(target);
}

static void on_connected(aloop_future_t *connecting, void *arg) {
  client_t *client = arg;
  int64_t error = aloop_future_result(connecting);
  client->connecting = NULL;
  if (error == 0)
    on_target(client, connecting);
  else if (client->transport != NULL)
    aloop_transport_abort_reset(client->transport);
  if (error < 0 && error != ALOOP_ECANCELED)
    fprintf(stderr, "cannot connect to %s port %d: %s\n", client->proxy->target.host,
            client->proxy->target.port, aloop_future_message(connecting));
  aloop_future_unref(connecting);
  free_if_over(client);
}

/* It may speak first: that waits for the relay, too. */
static void target_made(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_pause_reading(transport);
}

static const aloop_protocol_t target_protocol = {.size = sizeof target_protocol,
                                                 .connection_made = target_made};

static void *make_client(void *arg) {
  client_t *client = calloc(1, sizeof *client);
  if (client != NULL) client->proxy = arg;
  return client;
}

static void client_made(aloop_transport_t *transport, void *protocol) {
  client_t *client = protocol;
  client->transport = transport;
  aloop_transport_pause_reading(transport);
  aloop_future_t *connecting =
      aloop_create_connection(aloop_transport_loop(transport), &target_protocol, NULL, &client->proxy->target);
  if (connecting != NULL && aloop_future_add_done_callback(connecting, on_connected, client) == 0) {
    client->connecting = connecting;
    return;
  }
  if (connecting != NULL) aloop_future_cancel(connecting);
  aloop_future_unref(connecting);
  aloop_transport_abort_error(transport, ALOOP_ENOMEM);
}

static void client_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport, (void)error;
  client_t *client = protocol;
  client->transport = NULL;
  if (client->connecting != NULL) aloop_future_cancel(client->connecting);
  free_if_over(client);
}

static const aloop_protocol_t client_protocol = {
    .size = sizeof client_protocol,
    .create = make_client,
    .connection_made = client_made,
    .connection_lost = client_lost,
};

/* ---- The program ----------------------------------------------------------------------------------------- */

static void usage(void) {
  fprintf(stderr, "usage: tcp_proxy [--host HOST] [--port PORT] TARGET:PORT\n");
  exit(2);
}

/* "host:port" or "[address]:port", cut in place. */
static void read_target(char *text, aloop_connect_options_t *target) {
  char *colon = strrchr(text, ':');
  if (colon == NULL || colon == text) usage();
  *colon = '\0';
  target->port = parse_number("TARGET:PORT", colon + 1, 1, 65535);
  target->host = text;
  if (text[0] == '[' && colon[-1] == ']') {
    colon[-1] = '\0';
    target->host = text + 1;
  }
}

static void read_options(int argc, char **argv, aloop_server_options_t *listen,
                         aloop_connect_options_t *target) {
  static const struct option names[] = {
      {"host", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'}, {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      listen->host = optarg;
    else if (option == 'p')
      listen->port = parse_number("--port", optarg, 0, 65535);
    else
      usage();
  }
  if (optind != argc - 1) usage();
  read_target(argv[optind], target);
}

int main(int argc, char **argv) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = 7778, .backlog = 1024};
  proxy_t proxy = {.target = {.size = sizeof proxy.target, .timeout = ALOOP_SECONDS(10)}};
  read_options(argc, argv, &options, &proxy.target);

  aloop_t *loop;
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = make_server(loop, &client_protocol, &proxy, &options, &proxy.self.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &proxy.self);
  if (error == 0) {
    print_addresses(proxy.self.server, "listening on ", "");
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(proxy.self.server);
  aloop_free(loop);
  return error == 0 ? 0 : 1;
}
