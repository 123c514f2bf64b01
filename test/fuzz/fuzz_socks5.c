/* SPDX-License-Identifier: MIT
 *
 * Any bytes at all, as the opening of a SOCKS 5 connection. What must hold:
 *
 * - nothing crashes, and the parser never claims more bytes than it was given;
 * - whatever way the bytes are cut into pieces, the same request, or the same refusal, comes out at the same
 *   place;
 * - what comes out keeps its promises: a host of visible characters, a port that exists, a reply that the RFC
 *   knows.
 *
 * A broken promise traps, which libFuzzer and the replay program both report as a crash.
 */
#include "handshake.h"

#include <stdlib.h>
#include <string.h>

#define MUST(condition) ((condition) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a stream came to, and where. */
typedef struct end {
  socks5_event_t event;
  size_t at;
  int method, port, reply;
  char host[SOCKS5_HOST_SIZE];
} end_t;

static void check_request(const socks5_handshake_t *handshake) {
  size_t length = strnlen(handshake->host, SOCKS5_HOST_SIZE);
  MUST(length > 0 && length < SOCKS5_HOST_SIZE);
  for (size_t i = 0; i < length; i++) MUST(handshake->host[i] > ' ' && handshake->host[i] < 0x7f);
  MUST(handshake->port >= 1 && handshake->port <= 65535);
}

static void check_event(const socks5_handshake_t *handshake, socks5_event_t event) {
  if (event == SOCKS5_GREETING)
    MUST(handshake->method == SOCKS5_NO_AUTHENTICATION || handshake->method == SOCKS5_NO_METHOD);
  if (event == SOCKS5_REQUEST) check_request(handshake);
  if (event == SOCKS5_ERROR)
    MUST(handshake->reply >= SOCKS5_SUCCEEDED && handshake->reply <= SOCKS5_NO_SUCH_ADDRESS_TYPE);
}

/* How long the next piece is: everything, one byte, or one more each time. */
static size_t next_piece(int way, size_t left, size_t *last) {
  if (way == 0) return left;
  if (way == 2) ++*last;
  return *last < left ? *last : left;
}

/* Reads the stream in pieces. */
static end_t read_all(const uint8_t *data, size_t size, int way) {
  socks5_handshake_t handshake;
  end_t end;
  size_t last = 1;
  memset(&end, 0, sizeof end); /* padding too, for memcmp */
  socks5_handshake_init(&handshake);
  while (end.at < size && end.event != SOCKS5_REQUEST && end.event != SOCKS5_ERROR) {
    size_t piece = next_piece(way, size - end.at, &last), used;
    uint8_t *copy = malloc(piece); /* of its own, so that the address sanitizer sees a read past its end */
    MUST(copy != NULL);
    memcpy(copy, data + end.at, piece);
    end.event = socks5_handshake_feed(&handshake, copy, piece, &used);
    free(copy);
    MUST(used <= piece && used > 0 && (end.event != SOCKS5_MORE || used == piece));
    check_event(&handshake, end.event);
    end.at += used;
  }
  end.method = handshake.method;
  end.port = handshake.port;
  end.reply = (int)handshake.reply;
  memcpy(end.host, handshake.host, sizeof end.host);
  return end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  end_t whole = read_all(data, size, 0);
  for (int way = 1; way < 3; way++) {
    end_t end = read_all(data, size, way);
    MUST(memcmp(&end, &whole, sizeof whole) == 0);
  }
  return 0;
}
