/* SPDX-License-Identifier: MIT
 *
 * The opening of a SOCKS 5 connection (RFC 1928) as the server sees it: bytes in, a request out. It does no
 * I/O, allocates nothing and knows no event loop:
 *
 *     socks5_handshake_t handshake;
 *     socks5_handshake_init(&handshake);
 *     while (size > 0) {
 *       size_t used;
 *       switch (socks5_handshake_feed(&handshake, data, size, &used)) {
 *       case SOCKS5_MORE: break;                                           // a message is not complete yet
 *       case SOCKS5_GREETING: send_method(handshake.method); break;        // the request comes next
 *       case SOCKS5_REQUEST: connect_to(handshake.host, handshake.port);   // the rest is for the target
 *       case SOCKS5_ERROR: refuse(handshake.reply); return;
 *       }
 *       data += used, size -= used;
 *     }
 *
 * How the bytes are cut into pieces makes no difference to what comes out.
 */
#ifndef SOCKS5_HANDSHAKE_H
#define SOCKS5_HANDSHAKE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* How a request is answered. */
typedef enum socks5_reply {
  SOCKS5_SUCCEEDED = 0,
  SOCKS5_FAILURE = 1, /* of the server, or for a reason that has no code of its own */
  SOCKS5_NOT_ALLOWED = 2,
  SOCKS5_NETWORK_UNREACHABLE = 3,
  SOCKS5_HOST_UNREACHABLE = 4,
  SOCKS5_REFUSED = 5,
  SOCKS5_EXPIRED = 6,
  SOCKS5_NO_SUCH_COMMAND = 7,
  SOCKS5_NO_SUCH_ADDRESS_TYPE = 8,
} socks5_reply_t;

enum {
  SOCKS5_NO_AUTHENTICATION = 0, /* methods */
  SOCKS5_NO_METHOD = 255,
  SOCKS5_HOST_SIZE = 256,    /* a name of 255 bytes, or an address, as a string */
  SOCKS5_MESSAGE_SIZE = 262, /* the longest request */
  SOCKS5_REPLY_SIZE = 22,    /* the longest reply */
};

typedef enum socks5_event { SOCKS5_MORE, SOCKS5_GREETING, SOCKS5_REQUEST, SOCKS5_ERROR } socks5_event_t;

typedef struct socks5_handshake {
  int method;                  /* after SOCKS5_GREETING: what to answer, NO_AUTHENTICATION or NO_METHOD */
  char host[SOCKS5_HOST_SIZE]; /* after SOCKS5_REQUEST: a name or a numeric address, as it was sent */
  int port;                    /* 1..65535 */
  socks5_reply_t reply;        /* after SOCKS5_ERROR: what to answer; SUCCEEDED: nothing, this is no SOCKS 5 */
  /* The rest is private. */
  enum { SOCKS5_IN_GREETING, SOCKS5_IN_REQUEST, SOCKS5_DONE, SOCKS5_FAILED } state;
  size_t size; /* bytes in message */
  uint8_t message[SOCKS5_MESSAGE_SIZE];
} socks5_handshake_t;

void socks5_handshake_init(socks5_handshake_t *handshake);

/* Takes bytes up to the end of a message, the first fault, or the end of `data`; *used says how many. After
 * SOCKS5_REQUEST and SOCKS5_ERROR it takes no more, and says the same again. */
socks5_event_t socks5_handshake_feed(socks5_handshake_t *handshake, const void *data, size_t size,
                                     size_t *used);

/* Writes a reply with the address that the server's side of the connection has (NULL: there is none). Returns
 * how many bytes it has. */
size_t socks5_write_reply(uint8_t out[SOCKS5_REPLY_SIZE], socks5_reply_t reply, const struct sockaddr *bound);

#endif
