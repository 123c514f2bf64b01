/* SPDX-License-Identifier: MIT
 *
 * The handshake of SOCKS 5: see handshake.h for what it is to its caller.
 *
 * There are two messages, and the first bytes of each tell how long it is. So the parser collects a message
 * byte by byte, looks after each one whether it can go on, and reads the message when it is whole: what comes
 * out depends on the bytes and never on how they were cut. Neither message is longer than 262 bytes, so nobody
 * waits for that.
 *
 *     greeting   version 5, a count, so many methods
 *     request    version 5, command, 0, type of address, address, port
 *
 * A request with a fault is still read to its end where that is known, so that its rest is not taken for
 * anything else. Of the commands there is CONNECT alone, and of the methods "no authentication".
 */
#include "handshake.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum { VERSION = 5, COMMAND_CONNECT = 1, TYPE_IPV4 = 1, TYPE_NAME = 3, TYPE_IPV6 = 4, REQUEST_HEAD = 4 };

static socks5_event_t fail(socks5_handshake_t *handshake, socks5_reply_t reply) {
  handshake->state = SOCKS5_FAILED;
  handshake->reply = reply;
  return SOCKS5_ERROR;
}

/* ---- The greeting ---------------------------------------------------------------------------------------- */

static socks5_event_t look_at_greeting(socks5_handshake_t *handshake) {
  const uint8_t *message = handshake->message;
  if (message[0] != VERSION) return fail(handshake, SOCKS5_SUCCEEDED);
  if (handshake->size < 2 || handshake->size < 2U + message[1]) return SOCKS5_MORE;
  const void *offered = memchr(message + 2, SOCKS5_NO_AUTHENTICATION, message[1]);
  handshake->method = offered != NULL ? SOCKS5_NO_AUTHENTICATION : SOCKS5_NO_METHOD;
  handshake->state = SOCKS5_IN_REQUEST;
  handshake->size = 0;
  return SOCKS5_GREETING;
}

/* ---- The request ----------------------------------------------------------------------------------------- */

/* A name goes to C functions: it must be a string, of characters that a name may have. */
static int read_name(socks5_handshake_t *handshake) {
  const uint8_t *name = handshake->message + REQUEST_HEAD + 1;
  size_t size = handshake->message[REQUEST_HEAD];
  for (size_t i = 0; i < size; i++)
    if (name[i] <= ' ' || name[i] >= 0x7f) return -1;
  memcpy(handshake->host, name, size);
  handshake->host[size] = '\0';
  return size > 0 ? 0 : -1;
}

static int read_host(socks5_handshake_t *handshake) {
  if (handshake->message[3] == TYPE_NAME) return read_name(handshake);
  int family = handshake->message[3] == TYPE_IPV4 ? AF_INET : AF_INET6;
  const void *address = handshake->message + REQUEST_HEAD;
  return inet_ntop(family, address, handshake->host, sizeof handshake->host) != NULL ? 0 : -1;
}

static socks5_event_t read_request(socks5_handshake_t *handshake) {
  const uint8_t *port = handshake->message + handshake->size - 2;
  handshake->port = port[0] << 8 | port[1];
  if (handshake->message[1] != COMMAND_CONNECT) return fail(handshake, SOCKS5_NO_SUCH_COMMAND);
  if (read_host(handshake) < 0 || handshake->port == 0) return fail(handshake, SOCKS5_FAILURE);
  handshake->state = SOCKS5_DONE;
  return SOCKS5_REQUEST;
}

static size_t address_size(const uint8_t *message) {
  if (message[3] == TYPE_IPV4) return 4;
  if (message[3] == TYPE_IPV6) return 16;
  return 1U + message[REQUEST_HEAD]; /* a name comes with its length */
}

static socks5_event_t look_at_request(socks5_handshake_t *handshake) {
  const uint8_t *message = handshake->message;
  size_t size = handshake->size;
  if (message[0] != VERSION) return fail(handshake, SOCKS5_FAILURE);
  if (size < REQUEST_HEAD) return SOCKS5_MORE;
  if (message[3] != TYPE_IPV4 && message[3] != TYPE_NAME && message[3] != TYPE_IPV6)
    return fail(handshake, SOCKS5_NO_SUCH_ADDRESS_TYPE);
  if (size == REQUEST_HEAD || size < REQUEST_HEAD + address_size(message) + 2) return SOCKS5_MORE;
  return read_request(handshake);
}

/* ---- Both ------------------------------------------------------------------------------------------------ */

void socks5_handshake_init(socks5_handshake_t *handshake) {
  memset(handshake, 0, sizeof *handshake);
}

socks5_event_t socks5_handshake_feed(socks5_handshake_t *handshake, const void *data, size_t size,
                                     size_t *used) {
  const uint8_t *bytes = data;
  socks5_event_t event = SOCKS5_MORE;
  *used = 0;
  if (handshake->state == SOCKS5_DONE) return SOCKS5_REQUEST;
  if (handshake->state == SOCKS5_FAILED) return SOCKS5_ERROR;
  while (event == SOCKS5_MORE && *used < size) {
    handshake->message[handshake->size++] = bytes[(*used)++];
    event = handshake->state == SOCKS5_IN_GREETING ? look_at_greeting(handshake) : look_at_request(handshake);
  }
  return event;
}

size_t socks5_write_reply(uint8_t out[SOCKS5_REPLY_SIZE], socks5_reply_t reply, const struct sockaddr *bound) {
  const struct sockaddr_in *v4 = (const void *)bound;
  const struct sockaddr_in6 *v6 = (const void *)bound;
  memset(out, 0, SOCKS5_REPLY_SIZE);
  out[0] = VERSION;
  out[1] = (uint8_t)reply;
  if (bound != NULL && bound->sa_family == AF_INET6) {
    out[3] = TYPE_IPV6;
    memcpy(out + 4, &v6->sin6_addr, 16);
    memcpy(out + 20, &v6->sin6_port, 2);
    return 22;
  }
  out[3] = TYPE_IPV4;
  if (bound != NULL && bound->sa_family == AF_INET) {
    memcpy(out + 4, &v4->sin_addr, 4);
    memcpy(out + 8, &v4->sin_port, 2);
  }
  return 10;
}
