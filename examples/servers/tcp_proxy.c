/* SPDX-License-Identifier: MIT
 *
 * A TCP proxy: what comes in at one address goes to another, and back.
 *
 *     tcp_proxy [--host HOST] [--port PORT] TARGET:PORT      default 127.0.0.1 and 7778; port 0: any free one
 *     tcp_proxy --port 7778 example.org:80
 *     tcp_proxy --port 7778 [::1]:7777
 *
 * Each client is one half of a link, the connection made for it to the target is the other, and each half knows
 * its opposite. Three things make it a faithful proxy, and each is a callback of a few lines:
 *
 * - Back-pressure. When a half cannot send as fast as it is given bytes (pause_writing), the opposite half
 *   stops reading; TCP then slows its sender down. No more than the high-water mark is ever held in memory,
 *   however large the transfer.
 * - Half-close. The end of one direction is passed on (write_eof) while the other goes on.
 * - Failure. A half that is lost by an error resets the opposite one, so nobody takes a torn-off answer for a
 *   whole one.
 */
#include "common.h"

#include <getopt.h>
#include <stdbool.h>

typedef struct proxy {
  stoppable_t self;
  aloop_connect_options_t target;
} proxy_t;

typedef struct half half_t;
typedef struct link link_t;

struct half {
  aloop_transport_t *transport; /* NULL before the connection is made and after it is lost */
  half_t *opposite;
  link_t *link;
  bool ended; /* its peer sends no more */
};

struct link {
  half_t client, target;
  aloop_future_t *connecting; /* to the target; NULL when it is over, one way or the other */
  const proxy_t *proxy;
};

static void free_if_over(link_t *link) {
  if (link->client.transport == NULL && link->target.transport == NULL && link->connecting == NULL) free(link);
}

/* ---- What both halves do --------------------------------------------------------------------------------- */

static int pass_on(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  half_t *half = protocol;
  return aloop_transport_write(half->opposite->transport, data, size);
}

static void stop_opposite(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  half_t *half = protocol;
  aloop_transport_pause_reading(half->opposite->transport);
}

static void resume(half_t *half) {
  int error = half->transport != NULL ? aloop_transport_resume_reading(half->transport) : 0;
  if (error < 0) aloop_transport_abort_error(half->transport, error);
}

static void resume_opposite(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  half_t *half = protocol;
  resume(half->opposite);
}

/* Passes the end on, and closes the link once both directions have ended. close sends what is still in the
 * buffers. */
static int pass_end_on(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  half_t *half = protocol;
  half->ended = true;
  if (half->opposite->ended) {
    aloop_transport_close(half->opposite->transport);
    return 0;
  }
  aloop_transport_write_eof(half->opposite->transport);
  return 1;
}

static void lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  half_t *half = protocol;
  link_t *link = half->link;
  half->transport = NULL;
  if (link->connecting != NULL) aloop_future_cancel(link->connecting);
  if (half->opposite->transport != NULL) {
    if (error < 0)
      aloop_transport_abort_reset(half->opposite->transport);
    else
      aloop_transport_close(half->opposite->transport);
  }
  free_if_over(link);
}

/* ---- The target's half ----------------------------------------------------------------------------------- */

static void target_made(aloop_transport_t *transport, void *protocol) {
  half_t *half = protocol;
  half->transport = transport;
  resume(half->opposite);
}

static const aloop_protocol_t target_protocol = {
    .size = sizeof target_protocol,
    .connection_made = target_made,
    .data_received = pass_on,
    .eof_received = pass_end_on,
    .pause_writing = stop_opposite,
    .resume_writing = resume_opposite,
    .connection_lost = lost,
};

/* Runs when the connection to the target is made, which target_made has seen to, or when it failed. */
static void on_connected(aloop_future_t *future, void *arg) {
  link_t *link = arg;
  int64_t error = aloop_future_result(future);
  if (error < 0 && error != ALOOP_ECANCELED)
    fprintf(stderr, "cannot connect to %s port %d: %s\n", link->proxy->target.host, link->proxy->target.port,
            aloop_future_message(future));
  if (error < 0 && link->client.transport != NULL) aloop_transport_abort_reset(link->client.transport);
  link->connecting = NULL;
  aloop_future_unref(future);
  free_if_over(link);
}

/* ---- The client's half ----------------------------------------------------------------------------------- */

static void *make_link(void *arg) {
  link_t *link = calloc(1, sizeof *link);
  if (link == NULL) return NULL;
  link->proxy = arg;
  link->client.link = link->target.link = link;
  link->client.opposite = &link->target;
  link->target.opposite = &link->client;
  return &link->client;
}

/* Nothing is read from the client until there is somewhere to put it. */
static void client_made(aloop_transport_t *transport, void *protocol) {
  half_t *half = protocol;
  link_t *link = half->link;
  half->transport = transport;
  aloop_transport_pause_reading(transport);
  aloop_future_t *connecting = aloop_create_connection(aloop_transport_loop(transport), &target_protocol,
                                                       &link->target, &link->proxy->target);
  if (connecting != NULL && aloop_future_add_done_callback(connecting, on_connected, link) == 0) {
    link->connecting = connecting;
    return;
  }
  if (connecting != NULL) aloop_future_cancel(connecting);
  aloop_future_unref(connecting);
  aloop_transport_abort_error(transport, ALOOP_ENOMEM);
}

static const aloop_protocol_t client_protocol = {
    .size = sizeof client_protocol,
    .create = make_link,
    .connection_made = client_made,
    .data_received = pass_on,
    .eof_received = pass_end_on,
    .pause_writing = stop_opposite,
    .resume_writing = resume_opposite,
    .connection_lost = lost,
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
