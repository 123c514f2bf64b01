/* SPDX-License-Identifier: MIT
 *
 * One client of the SOCKS server: bytes go through the handshake, the request to aloop_create_connection, and
 * from then on everything from one side to the other.
 *
 * A link has two halves, the client's connection and the target's. It begins with the client's half in the
 * handshake. While the target is looked up and connected to, which aloop_create_connection does for names and
 * addresses of either family alike, nothing is read from the client; what it sent along with its request waits
 * in `early`, which is never more than one read. Once both halves are there they are like those of tcp_proxy:
 * when one cannot send, the other stops reading; the end of one direction is passed on; an error of one side
 * resets the other.
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
  const limits_t *limits;
  socks5_handshake_t handshake;
  aloop_handle_t deadline;    /* of the handshake, or of a refused client */
  aloop_future_t *connecting; /* to the target; NULL when it is over, one way or the other */
  char *early;                /* came with the request, and belongs to the target */
  size_t early_size;
};

static void free_if_over(link_t *link) {
  if (link->client.transport != NULL || link->target.transport != NULL || link->connecting != NULL) return;
  free(link->early);
  free(link);
}

/* ---- From half to half ----------------------------------------------------------------------------------- */

static int pass_on(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  const half_t *half = protocol;
  return aloop_transport_write(half->opposite->transport, data, size);
}

static void stop_opposite(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  const half_t *half = protocol;
  aloop_transport_pause_reading(half->opposite->transport);
}

static void resume_opposite(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  const half_t *opposite = ((half_t *)protocol)->opposite;
  if (opposite->transport == NULL) return;
  int error = aloop_transport_resume_reading(opposite->transport);
  if (error < 0) aloop_transport_abort_error(opposite->transport, error);
}

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
  half_t *half = protocol;
  link_t *link = half->link;
  half->transport = NULL;
  aloop_cancel(aloop_transport_loop(transport), &link->deadline);
  if (link->connecting != NULL) aloop_future_cancel(link->connecting);
  if (half->opposite->transport != NULL) {
    if (error < 0)
      aloop_transport_abort_reset(half->opposite->transport);
    else
      aloop_transport_close(half->opposite->transport);
  }
  free_if_over(link);
}

static const aloop_protocol_t joined_protocol = {
    .size = sizeof joined_protocol,
    .data_received = pass_on,
    .eof_received = pass_end_on,
    .pause_writing = stop_opposite,
    .resume_writing = resume_opposite,
    .connection_lost = lost,
};

/* ---- Answering ------------------------------------------------------------------------------------------- */

static void give_up(aloop_t *loop, void *arg) {
  (void)loop;
  const link_t *link = arg;
  aloop_transport_abort(link->client.transport);
}

/* The client has so much time from now on. Returns 0 or a code. */
static int set_deadline(link_t *link, int64_t delay) {
  aloop_t *loop = aloop_transport_loop(link->client.transport);
  aloop_cancel(loop, &link->deadline);
  link->deadline = aloop_call_later(loop, delay, give_up, link);
  return aloop_handle_error(link->deadline);
}

static int drop(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport, (void)protocol, (void)data, (void)size;
  return 0;
}

static const aloop_protocol_t refused_protocol = {
    .size = sizeof refused_protocol,
    .data_received = drop,
    .connection_lost = lost,
};

static int leave(link_t *link) {
  aloop_transport_t *client = link->client.transport;
  int error = set_deadline(link, LINGER);
  if (error == 0) error = aloop_transport_set_protocol(client, &refused_protocol, &link->client);
  if (error == 0) error = aloop_transport_write_eof(client);
  if (error == 0) error = aloop_transport_resume_reading(client);
  return error;
}

static int send_reply(const link_t *link, socks5_reply_t reply, const struct sockaddr *bound) {
  uint8_t out[SOCKS5_REPLY_SIZE];
  return aloop_transport_write(link->client.transport, out, socks5_write_reply(out, reply, bound));
}

static int refuse(link_t *link, socks5_reply_t reply) {
  int error = send_reply(link, reply, NULL);
  return error == 0 ? leave(link) : error;
}

/* ---- The target ------------------------------------------------------------------------------------------ */

/* Tells the client which address its connection goes out from, and joins the halves. The client reads again
 * before the early bytes are written, because that may stop it once more. */
static int join(link_t *link) {
  aloop_transport_t *client = link->client.transport, *target = link->target.transport;
  struct sockaddr_storage bound;
  socklen_t size = sizeof bound;
  int error = aloop_transport_sockname(target, (struct sockaddr *)&bound, &size);
  if (error == 0) error = send_reply(link, SOCKS5_SUCCEEDED, (struct sockaddr *)&bound);
  if (error == 0) error = aloop_transport_set_protocol(client, &joined_protocol, &link->client);
  if (error == 0) error = aloop_transport_resume_reading(client);
  if (error == 0) error = aloop_transport_write(target, link->early, link->early_size);
  return error;
}

static void target_made(aloop_transport_t *transport, void *protocol) {
  half_t *half = protocol;
  link_t *link = half->link;
  half->transport = transport;
  int error = join(link);
  if (error < 0) aloop_transport_abort_error(transport, error);
  free(link->early);
  link->early = NULL;
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
  aloop_transport_t *client = link->client.transport;
  int64_t result = aloop_future_result(future);
  link->connecting = NULL;
  aloop_future_unref(future);
  if (result < 0 && client != NULL) {
    int error = refuse(link, socks5_reply_for(result));
    if (error < 0) aloop_transport_abort_error(client, error);
  }
  free_if_over(link);
}

static int keep_early(link_t *link, const void *data, size_t size) {
  if (size == 0) return 0;
  link->early = malloc(size);
  if (link->early == NULL) return ALOOP_ENOMEM;
  memcpy(link->early, data, size);
  link->early_size = size;
  return 0;
}

/* The handshake is over: connects to the target. Nothing is read from the client until that is done. */
static int find_target(link_t *link, const void *early, size_t early_size) {
  aloop_t *loop = aloop_transport_loop(link->client.transport);
  aloop_connect_options_t options = {.size = sizeof options,
                                     .host = link->handshake.host,
                                     .port = link->handshake.port,
                                     .timeout = link->limits->connect};
  if (keep_early(link, early, early_size) < 0) return ALOOP_ENOMEM;
  aloop_cancel(loop, &link->deadline);
  aloop_transport_pause_reading(link->client.transport);
  aloop_future_t *connecting = aloop_create_connection(loop, &target_protocol, &link->target, &options);
  if (connecting == NULL) return ALOOP_ENOMEM;
  int error = aloop_future_add_done_callback(connecting, on_connected, link);
  if (error == 0) {
    link->connecting = connecting;
  } else {
    aloop_future_cancel(connecting);
    aloop_future_unref(connecting);
  }
  return error;
}

/* ---- The handshake --------------------------------------------------------------------------------------- */

static int answer_greeting(link_t *link) {
  const uint8_t answer[] = {5, (uint8_t)link->handshake.method};
  int error = aloop_transport_write(link->client.transport, answer, sizeof answer);
  if (error == 0 && link->handshake.method == SOCKS5_NO_METHOD) error = leave(link);
  return error;
}

/* Whoever does not speak SOCKS 5 would not understand an answer. */
static int refuse_handshake(link_t *link) {
  if (link->handshake.reply != SOCKS5_SUCCEEDED) return refuse(link, link->handshake.reply);
  aloop_transport_abort(link->client.transport);
  return 0;
}

static int shake_hands(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  link_t *link = ((half_t *)protocol)->link;
  const char *bytes = data;
  int error = 0;
  while (error == 0 && size > 0) {
    size_t used;
    socks5_event_t event = socks5_handshake_feed(&link->handshake, bytes, size, &used);
    bytes += used, size -= used;
    if (event == SOCKS5_ERROR) return refuse_handshake(link);
    if (event == SOCKS5_REQUEST) return find_target(link, bytes, size);
    if (event == SOCKS5_GREETING) error = answer_greeting(link);
    if (event == SOCKS5_GREETING && link->handshake.method == SOCKS5_NO_METHOD) break;
  }
  return error;
}

static void *make_link(void *arg) {
  link_t *link = calloc(1, sizeof *link);
  if (link == NULL) return NULL;
  link->limits = arg;
  link->client.link = link->target.link = link;
  link->client.opposite = &link->target;
  link->target.opposite = &link->client;
  socks5_handshake_init(&link->handshake);
  return &link->client;
}

static void client_made(aloop_transport_t *transport, void *protocol) {
  half_t *half = protocol;
  half->transport = transport;
  int error = set_deadline(half->link, half->link->limits->handshake);
  if (error < 0) aloop_transport_abort_error(transport, error);
}

const aloop_protocol_t connection_protocol = {
    .size = sizeof connection_protocol,
    .create = make_link,
    .connection_made = client_made,
    .data_received = shake_hands,
    .connection_lost = lost,
};
