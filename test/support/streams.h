/* SPDX-License-Identifier: MIT
 *
 * What the tests of streams share: connections whose protocol notes what it is told and does what the test asks
 * for, and the other end as a plain descriptor.
 *
 *     tape_t tape = {.env = env};
 *     int peer = open_tape(&tape, &plain_protocol);
 *     write(peer, "hello", 5);
 *     settle(env->loop);
 *     assert_string_equal(tape.events, "MD");
 *     end_tape(&tape, peer);
 */
#ifndef STREAMS_H
#define STREAMS_H

#include "harness.h"

typedef struct tape tape_t;

/* The callbacks, and the letter each leaves in `events`. Calls of data_received and buffer_updated in a row
 * leave one letter, because how the kernel cuts a stream is its affair; get_buffer leaves none. */
enum { MADE, DATA, BUFFER, UPDATED, AT_EOF, PAUSE, RESUME, LOST, CALLBACKS };

struct tape {
  env_t *env;
  aloop_transport_t *transport; /* a reference, from open_tape or connection_made on */
  char events[128];             /* "MDEPRL": made, data, EOF, pause, resume, lost */
  size_t events_count;
  long calls[CALLBACKS];
  char *bytes; /* what arrived */
  size_t size;
  size_t room;
  int error; /* of connection_lost */
  bool eof;
  bool lost;

  void (*on[CALLBACKS])(tape_t *tape); /* called last inside the callback; NULL: nothing */
  int answer[CALLBACKS];               /* what the callback returns */
  void *arg;                           /* the test's */

  const char *data; /* given to the data_received that is running */
  size_t data_size;
  char buffer[4096]; /* what get_buffer offers: the first `offer` bytes, 0: all */
  size_t offer;
  bool offer_nothing;
};

extern const aloop_protocol_t plain_protocol;
extern const aloop_protocol_t buffered_protocol;

/* Makes a transport for a descriptor; connection_made comes with the next turn. */
void attach_tape(tape_t *tape, const aloop_protocol_t *table, int fd);

/* A transport on one end of a socket pair, its connection_made done. Returns the other end. The TCP one is a
 * connection over the loopback device. */
int open_tape(tape_t *tape, const aloop_protocol_t *table);
int open_tcp_tape(tape_t *tape, const aloop_protocol_t *table);

/* Aborts if need be, waits for connection_lost, checks that every end came once, and closes the peer (-1: there
 * is none). */
void end_tape(tape_t *tape, int peer);

/* As end_tape for one over TCP, which leaves no port behind in TIME_WAIT: for tests that open many. */
void reset_tape(tape_t *tape, int peer);

/* As end_tape when the loop was freed. */
void release_tape(tape_t *tape, int peer);

/* Runs turns that do not wait until two in a row had nothing to do. */
void settle(aloop_t *loop);

/* A connected pair of non-blocking TCP sockets. */
void make_tcp_pair(int fds[2]);

/* Writes until the descriptor takes no more; returns how much. */
size_t fill(int fd);

/* Reads what is there, up to `room`; returns how much. */
size_t drain(int fd, void *into, size_t room);

/* Runs the loop until the peer has read `size` bytes, or the transport is lost. Returns how many came. */
size_t collect(aloop_t *loop, tape_t *tape, int peer, void *into, size_t size);

/* Whether the peer sees the end of the stream now. */
bool at_eof(int peer);

/* The peer writes; the transport writes; the peer gets exactly this, now or soon. */
void say(int fd, const char *text);
void put(tape_t *tape, const char *text);
void expect(tape_t *tape, int peer, const char *text);

/* write_owned of static text, counting its releases. */
int put_owned(tape_t *tape, const char *text, int *released);
void count_release(void *arg);

/* aloop_transport_get_write_buffer_size. */
size_t unsent(const tape_t *tape);

/* Bytes that tell each position from the others nearby. */
void pattern(void *into, size_t size, unsigned seed);

#endif
