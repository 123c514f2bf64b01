/* SPDX-License-Identifier: MIT
 *
 * A chat: each line that a client sends goes to all others.
 *
 *     chat [--host HOST] [--port PORT]      default 127.0.0.1 and 7780; port 0: any free one
 *     nc 127.0.0.1 7780
 *
 * One writes and many read, and some of them slower than the others, or not at all: a laptop was closed, a
 * terminal stopped by Ctrl-S. Such a reader must neither hold the writer up, as in a proxy, for then it would
 * hold up everybody; nor may what it has not read pile up in memory. So each connection has a write buffer with
 * a hard cap, which is told to the library once. A write above it is refused with ALOOP_ENOBUFS, and a client
 * that a line cannot be written to is dropped: it would miss lines without knowing. Memory is bounded by the
 * number of clients times BUFFER_MAX, whatever they do.
 */
#include "common.h"

#include <getopt.h>
#include <sys/uio.h>

enum { BUFFER_MAX = 256 * 1024, LINE_SIZE = 1000 };

typedef struct client client_t;

typedef struct chat {
  stoppable_t self;
  client_t *clients;
  unsigned last_number;
} chat_t;

struct client {
  chat_t *chat;
  client_t *next, **link; /* in chat->clients */
  aloop_transport_t *transport;
  unsigned number;
  char line[LINE_SIZE]; /* what has come of a line */
  size_t size;
};

/* ---- Speaking -------------------------------------------------------------------------------------------- */

static void tell(const client_t *client, const struct iovec *parts, int count) {
  if (aloop_transport_is_closing(client->transport)) return;
  int error = aloop_transport_writev(client->transport, parts, count);
  if (error < 0) aloop_transport_abort_error(client->transport, error);
}

static void tell_others(const client_t *from, const char *before, const char *line, size_t size) {
  char name[64];
  int length = snprintf(name, sizeof name, "%s%u", before, from->number);
  struct iovec parts[] = {{name, (size_t)length}, {(void *)line, size}, {"\n", 1}};
  for (const client_t *client = from->chat->clients; client != NULL; client = client->next)
    if (client != from) tell(client, parts, 3);
}

static void announce(const client_t *about, const char *what) {
  tell_others(about, "* ", what, strlen(what));
}

/* ---- Listening ------------------------------------------------------------------------------------------- */

static void end_line(client_t *client) {
  char line[LINE_SIZE + 2] = ": ";
  memcpy(line + 2, client->line, client->size);
  tell_others(client, "", line, client->size + 2);
  client->size = 0;
}

/* A line that does not fit is two. */
static int data_received(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  client_t *client = protocol;
  const char *bytes = data;
  for (size_t i = 0; i < size; i++) {
    if (bytes[i] == '\n' || client->size == LINE_SIZE) end_line(client);
    if (bytes[i] != '\n') client->line[client->size++] = bytes[i];
  }
  return 0;
}

/* ---- Coming and going ------------------------------------------------------------------------------------ */

static void *make_client(void *arg) {
  chat_t *chat = arg;
  client_t *client = calloc(1, sizeof *client);
  if (client == NULL) return NULL;
  client->chat = chat;
  client->number = ++chat->last_number;
  client->next = chat->clients;
  client->link = &chat->clients;
  if (client->next != NULL) client->next->link = &client->next;
  chat->clients = client;
  return client;
}

static void connection_made(aloop_transport_t *transport, void *protocol) {
  client_t *client = protocol;
  client->transport = transport;
  aloop_transport_set_write_buffer_cap(transport, BUFFER_MAX);
  announce(client, " has come");
}

static void connection_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  client_t *client = protocol;
  announce(client, error == ALOOP_ENOBUFS ? " did not listen" : " has gone");
  *client->link = client->next;
  if (client->next != NULL) client->next->link = client->link;
  free(client);
}

static const aloop_protocol_t chat_protocol = {
    .size = sizeof chat_protocol,
    .create = make_client,
    .connection_made = connection_made,
    .data_received = data_received,
    .connection_lost = connection_lost,
};

/* ---- The program ----------------------------------------------------------------------------------------- */

static void read_options(int argc, char **argv, aloop_server_options_t *options) {
  static const struct option names[] = {
      {"host", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'}, {0}};
  int option;
  while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
    if (option == 'h')
      options->host = optarg;
    else if (option == 'p')
      options->port = parse_number("--port", optarg, 0, 65535);
    else
      optind = argc + 1;
  }
  if (optind == argc) return;
  fprintf(stderr, "usage: chat [--host HOST] [--port PORT]\n");
  exit(2);
}

int main(int argc, char **argv) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .port = 7780};
  read_options(argc, argv, &options);

  aloop_t *loop;
  chat_t chat = {0};
  int error = aloop_new(NULL, &loop);
  if (error < 0) {
    fprintf(stderr, "cannot make a loop: %s\n", aloop_strerror(error));
    return 1;
  }
  error = make_server(loop, &chat_protocol, &chat, &options, &chat.self.server);
  if (error == 0) error = watch_stop_signals(loop, stop_gracefully, &chat.self);
  if (error == 0) {
    print_addresses(chat.self.server, "listening on ", "");
    error = aloop_run_forever(loop);
  }
  aloop_server_unref(chat.self.server);
  aloop_free(loop);
  return error == 0 ? 0 : 1;
}
