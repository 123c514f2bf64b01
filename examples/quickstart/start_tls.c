/* SPDX-License-Identifier: MIT
 *
 * A conversation that begins in clear and goes on with TLS, as in SMTP; both sides in one program.
 *
 *     start_tls CA_FILE CERTIFICATE KEY      as examples/certificates.sh makes them
 *
 * Both sides agree first, in clear: the client asks for it and says nothing more before the answer, the server
 * answers and turns to TLS at once. What an attacker may have put behind the question is in `data`, and is
 * thrown away there: nothing of it is looked at after the handshake.
 */
#include <aloop.h>
#include <stdio.h>
#include <string.h>

typedef struct side {
  const char *name;
  aloop_tls_context_t *tls;
  bool encrypted;
  aloop_future_t *upgrade; /* once it has begun; NULL before */
} side_t;

static void lost(aloop_transport_t *transport, void *protocol, int error) {
  const side_t *side = protocol;
  const char *why = aloop_transport_tls_error(transport);
  if (error == ALOOP_ECLOSED) return; /* the loop ends before this side has heard of the other's end */
  if (error < 0) printf("%s: %s\n", side->name, why != NULL ? why : aloop_strerror(error));
  if (strcmp(side->name, "client") == 0) aloop_stop(aloop_transport_loop(transport));
}

/* The transport is another one now, and the same protocol goes on with it. */
static void encrypted(aloop_future_t *future, void *arg) {
  side_t *side = arg;
  aloop_transport_t *transport;
  aloop_tls_info_t info = {.size = sizeof info};
  if (aloop_future_take_ptr(future, &transport) == 0) {
    side->encrypted = true;
    aloop_transport_tls_info(transport, &info);
    printf("%s: goes on with %s\n", side->name, info.version);
    if (strcmp(side->name, "client") == 0) aloop_transport_write(transport, "a secret", 8);
    aloop_transport_unref(transport);
  }
}

static int upgrade(aloop_transport_t *transport, side_t *side, const char *server_hostname) {
  aloop_start_tls_options_t options = {
      .size = sizeof options, .tls = side->tls, .server_hostname = server_hostname};
  side->upgrade = aloop_start_tls(transport, NULL, NULL, &options);
  return side->upgrade != NULL ? aloop_future_add_done_callback(side->upgrade, encrypted, side) : ALOOP_ENOMEM;
}

static int server_received(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  side_t *side = protocol;
  printf("server: hears \"%.*s\"%s\n", (int)size, (const char *)data, side->encrypted ? "" : " in clear");
  if (side->encrypted) return aloop_transport_write(transport, "understood", 10);
  int error = aloop_transport_write(transport, "go ahead", 8);
  return error < 0 ? error : upgrade(transport, side, NULL);
}

static void client_made(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_write(transport, "STARTTLS", 8);
}

static int client_received(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  side_t *side = protocol;
  printf("client: hears \"%.*s\"%s\n", (int)size, (const char *)data, side->encrypted ? "" : " in clear");
  if (!side->encrypted) return upgrade(transport, side, "localhost");
  aloop_transport_close(transport);
  return 0;
}

static const aloop_protocol_t server_protocol = {
    .size = sizeof server_protocol, .data_received = server_received, .connection_lost = lost};
static const aloop_protocol_t client_protocol = {.size = sizeof client_protocol,
                                                 .connection_made = client_made,
                                                 .data_received = client_received,
                                                 .connection_lost = lost};

static aloop_tls_context_t *make_context(aloop_tls_options_t options) {
  char message[256] = "";
  aloop_tls_context_t *context = NULL;
  options.size = sizeof options;
  options.message = message;
  options.message_size = sizeof message;
  if (aloop_tls_context_new(aloop_tls_openssl(), &options, &context) < 0) fprintf(stderr, "%s\n", message);
  return context;
}

static int talk(side_t *client, side_t *server) {
  aloop_t *loop;
  aloop_server_t *listening;
  aloop_server_options_t serve = {.size = sizeof serve, .host = "127.0.0.1"};
  if (aloop_new(NULL, &loop) < 0) return 1;
  int rc = aloop_run_until_complete_ptr(loop, aloop_create_server(loop, &server_protocol, server, &serve),
                                        &listening);
  if (rc == 0) {
    aloop_connect_options_t connect = {
        .size = sizeof connect, .host = "127.0.0.1", .port = aloop_server_port(listening)};
    aloop_future_detach(aloop_create_connection(loop, &client_protocol, client, &connect));
    rc = aloop_run_forever(loop);
    aloop_server_unref(listening);
  }
  aloop_future_unref(client->upgrade); /* the loop may have stopped before `encrypted` was called */
  aloop_future_unref(server->upgrade);
  aloop_free(loop);
  return rc < 0;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: start_tls CA_FILE CERTIFICATE KEY\n");
    return 2;
  }
  side_t client = {.name = "client", .tls = make_context((aloop_tls_options_t){.ca_file = argv[1]})};
  side_t server = {.name = "server",
                   .tls = make_context((aloop_tls_options_t){
                       .role = ALOOP_TLS_SERVER, .certificate_file = argv[2], .key_file = argv[3]})};
  int status = client.tls != NULL && server.tls != NULL ? talk(&client, &server) : 1;
  aloop_tls_context_unref(client.tls);
  aloop_tls_context_unref(server.tls);
  return status == 0 && client.encrypted ? 0 : 1;
}
