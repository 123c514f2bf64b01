/* SPDX-License-Identifier: MIT
 *
 * A TLS engine that encrypts nothing, so that tests see and make every byte of the wire by hand. A record is a
 * letter, the size of its text in two bytes, and the text:
 *
 *     H   the client's hello, with the name it wants       S   the server's answer
 *     F   the client has finished                          D   data, each byte with its bits turned round
 *     E   the end of the stream                            A   the sender refuses to go on
 *     U   the sender wants new keys, of a kernel; or a U in answer
 *
 * A client says H, a server S, a client F; then both are shaken.
 */
#ifndef MOCKTLS_H
#define MOCKTLS_H

#include "streams.h"

/* What the engine is to do; cleared by mock_begin. */
typedef struct mock {
  int session_error; /* of session_new */
  int shake_error;   /* of the next handshake call */
  int read_error;
  int write_error;
  int shutdown_error;
  bool swallows;   /* takes every byte it is given at once; else only whole records */
  bool greedy;     /* one call of read takes all whole records, so that some are pending */
  bool half_close; /* as of TLS 1.3 */
  bool offloads;   /* gives keys away */
  bool tcp;        /* connections are over TCP */
  int version;     /* of the keys */
  int cipher;
  int64_t kernel; /* the option of contexts */
  int updates;    /* of keys that were asked for */
  int sessions;   /* alive */
  int contexts;
} mock_t;

extern mock_t mock;
extern const aloop_tls_engine_t mock_engine;

void mock_begin(void);

/* A context of the mock, for either side, which believes in everybody. */
aloop_tls_context_t *mock_context(int role);

/* Appends a record to `into`, which has room; returns its size. */
size_t mock_record(char *into, char letter, const void *text, size_t size);

/* The same to a descriptor. */
void mock_say(int fd, char letter, const char *text);

/* A TLS transport of a server (of a client) over one end of a socket pair, whose handshake has not begun; the
 * tape is its protocol, *peer the other end. */
aloop_future_t *mock_accept(tape_t *tape, const aloop_protocol_t *table, int *peer);
aloop_future_t *mock_connect(tape_t *tape, const aloop_protocol_t *table, int *peer);

/* The same with the handshake done, by hand; returns the peer. */
int open_mock_server(tape_t *tape, const aloop_protocol_t *table);
int open_mock_client(tape_t *tape, const aloop_protocol_t *table);

/* Runs the loop until the peer has the whole next record; checks its letter, and its text if that is not NULL. */
void mock_expect(aloop_t *loop, int fd, char letter, const char *text);

#endif
