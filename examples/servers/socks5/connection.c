/* SPDX-License-Identifier: MIT
 *
 * One client of the SOCKS server: bytes go through the handshake, the request to aloop_create_connection, which
 * knows how to find names and to choose among addresses of both families, and the connection that comes of it
 * to aloop_relay, which does the rest.
 *
 * While the target is looked for, nothing is read from the client. What it sent along with its request waits in
 * `early`, which is never more than one read.
 *
 * A refusal ends in two steps: it is sent, then the server drops what still comes, until the client closes or
 * LINGER has passed. To close at once would make the kernel send a reset if there is unread input, and that can
 * destroy the reply on its way.
 */
#include "connection.h"

#include "handshake.h"
#include "reply.h"

#include <stdlib.h>
#include <string.h>

#define LINGER ALOOP_SECONDS(2)

typedef struct client {
  aloop_transport_t *transport; /* NULL: lost */
  const limits_t *limits;
  socks5_handshake_t handshake;
  aloop_handle_t deadline;    /* of the handshake, or of a refused client */
  aloop_future_t *connecting; /* to the target; NULL: over, one way or the other */
  char *early;                /* came with the request, and belongs to the target */
  size_t early_size;
} client_t;

static void free_if_over(client_t *client) {
  if (client->transport != NULL || client->connecting != NULL) return;
  free(client->early);
  free(client);
}

static void client_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)error;
  client_t *client = protocol;
  client->transport = NULL;
  aloop_cancel(aloop_transport_loop(transport), &client->deadline);
  if (client->connecting != NULL) aloop_future_cancel(client->connecting);
  free_if_over(client);
}

/* ---- Answering ------------------------------------------------------------------------------------------- */

static void time_is_up(aloop_t *loop, void *arg) {
  (void)loop;
  const client_t *client = arg;
  aloop_transport_abort(client->transport);
}

/* The client has so much time from now on. Returns 0 or a code. */
static int set_deadline(client_t *client, int64_t delay) {
  aloop_t *loop = aloop_transport_loop(client->transport);
  aloop_cancel(loop, &client->deadline);
  client->deadline = aloop_call_later(loop, delay, time_is_up, client);
  return aloop_handle_error(client->deadline);
}

static int drop(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport, (void)protocol, (void)data, (void)size;
  return 0;
}

static const aloop_protocol_t refused_protocol = {
    .size = sizeof refused_protocol,
    .data_received = drop,
    .connection_lost = client_lost,
};

static int leave(client_t *client) {
  int error = set_deadline(client, LINGER);
  if (error == 0) error = aloop_transport_set_protocol(client->transport, &refused_protocol, client);
  if (error == 0) error = aloop_transport_write_eof(client->transport);
  if (error == 0) error = aloop_transport_resume_reading(client->transport);
  return error;
}

static int send_reply(const client_t *client, socks5_reply_t reply, const struct sockaddr *bound) {
  uint8_t out[SOCKS5_REPLY_SIZE];
  return aloop_transport_write(client->transport, out, socks5_write_reply(out, reply, bound));
}

static int refuse(client_t *client, socks5_reply_t reply) {
  int error = send_reply(client, reply, NULL);
  return error == 0 ? leave(client) : error;
}

/* ---- The target ------------------------------------------------------------------------------------------ */

/* Whatever became of it, both peers were told. Reading the result says that we know. */
static void on_relayed(aloop_future_t *relay, void *arg) {
  (void)arg;
  aloop_future_result(relay);
  aloop_future_unref(relay);
}

/* From here on the relay does everything, closing included. */
static int hand_over(aloop_transport_t *client, aloop_transport_t *target) {
  aloop_future_t *relay = aloop_relay(client, target);
  if (relay == NULL) return ALOOP_ENOMEM;
  int error = aloop_future_add_done_callback(relay, on_relayed, NULL);
  if (error < 0) aloop_future_unref(relay);
  return error == 0 && aloop_future_done(relay) ? ALOOP_ECLOSED : error; /* one of the two was quick to go */
}

/* Tells the client which address its connection goes out from, and the target what came early. */
static int join(const client_t *client, aloop_transport_t *target) {
  struct sockaddr_storage bound;
  socklen_t size = sizeof bound;
  int error = aloop_transport_sockname(target, (struct sockaddr *)&bound, &size);
  if (error == 0) error = send_reply(client, SOCKS5_SUCCEEDED, (struct sockaddr *)&bound);
  if (error == 0) error = aloop_transport_write(target, client->early, client->early_size);
  return error == 0 ? hand_over(client->transport, target) : error;
}

/* There is a connection to the target, but perhaps no client any more. */
static void on_target(client_t *client, aloop_future_t *connecting) {
  aloop_transport_t *target;
  aloop_future_take_ptr(connecting, &target);
  int error = client->transport != NULL ? join(client, target) : ALOOP_ECLOSED;
  if (error < 0) aloop_transport_abort(target);
  if (error < 0 && client->transport != NULL) aloop_transport_abort_error(client->transport, error);
  aloop_transport_unref(target);
  free(client->early);
  client->early = NULL;
}

static void on_connected(aloop_future_t *connecting, void *arg) {
  client_t *client = arg;
  int64_t result = aloop_future_result(connecting);
  client->connecting = NULL;
  if (result >= 0) {
    on_target(client, connecting);
  } else if (client->transport != NULL) {
    int error = refuse(client, socks5_reply_for(result));
    if (error < 0) aloop_transport_abort_error(client->transport, error);
  }
  aloop_future_unref(connecting);
  free_if_over(client);
}

/* It may speak first: that waits for the relay. */
static void target_made(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_pause_reading(transport);
}

static const aloop_protocol_t target_protocol = {.size = sizeof target_protocol,
                                                 .connection_made = target_made};

static int keep_early(client_t *client, const void *data, size_t size) {
  if (size == 0) return 0;
  client->early = malloc(size);
  if (client->early == NULL) return ALOOP_ENOMEM;
  memcpy(client->early, data, size);
  client->early_size = size;
  return 0;
}

/* The handshake is over. */
static int find_target(client_t *client, const void *early, size_t early_size) {
  aloop_t *loop = aloop_transport_loop(client->transport);
  aloop_connect_options_t options = {.size = sizeof options,
                                     .host = client->handshake.host,
                                     .port = client->handshake.port,
                                     .timeout = client->limits->connect};
  if (keep_early(client, early, early_size) < 0) return ALOOP_ENOMEM;
  aloop_cancel(loop, &client->deadline);
  aloop_transport_pause_reading(client->transport);
  aloop_future_t *connecting = aloop_create_connection(loop, &target_protocol, NULL, &options);
  if (connecting == NULL) return ALOOP_ENOMEM;
  int error = aloop_future_add_done_callback(connecting, on_connected, client);
  if (error == 0) {
    client->connecting = connecting;
  } else {
    aloop_future_cancel(connecting);
    aloop_future_unref(connecting);
  }
  return error;
}

/* ---- The handshake --------------------------------------------------------------------------------------- */

static int answer_greeting(client_t *client) {
  const uint8_t answer[] = {5, (uint8_t)client->handshake.method};
  int error = aloop_transport_write(client->transport, answer, sizeof answer);
  if (error == 0 && client->handshake.method == SOCKS5_NO_METHOD) error = leave(client);
  return error;
}

/* Whoever does not speak SOCKS 5 would not understand an answer. */
static int refuse_handshake(client_t *client) {
  if (client->handshake.reply != SOCKS5_SUCCEEDED) return refuse(client, client->handshake.reply);
  aloop_transport_abort(client->transport);
  return 0;
}

static int shake_hands(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  client_t *client = protocol;
  const char *bytes = data;
  int error = 0;
  while (error == 0 && size > 0) {
    size_t used;
    socks5_event_t event = socks5_handshake_feed(&client->handshake, bytes, size, &used);
    bytes += used, size -= used;
    if (event == SOCKS5_ERROR) return refuse_handshake(client);
    if (event == SOCKS5_REQUEST) return find_target(client, bytes, size);
    if (event == SOCKS5_GREETING) error = answer_greeting(client);
    if (event == SOCKS5_GREETING && client->handshake.method == SOCKS5_NO_METHOD) break;
  }
  return error;
}

static void *make_client(void *arg) {
  client_t *client = calloc(1, sizeof *client);
  if (client == NULL) return NULL;
  client->limits = arg;
  socks5_handshake_init(&client->handshake);
  return client;
}

static void client_made(aloop_transport_t *transport, void *protocol) {
  client_t *client = protocol;
  client->transport = transport;
  int error = set_deadline(client, client->limits->handshake);
  if (error < 0) aloop_transport_abort_error(transport, error);
}

const aloop_protocol_t connection_protocol = {
    .size = sizeof connection_protocol,
    .create = make_client,
    .connection_made = client_made,
    .data_received = shake_hands,
    .connection_lost = client_lost,
};
