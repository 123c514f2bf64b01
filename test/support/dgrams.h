/* SPDX-License-Identifier: MIT
 *
 * What the tests of datagrams share: endpoints whose protocol notes what it is told and does what the test asks
 * for.
 *
 *     post_t post = {.env = env};
 *     int peer = open_pair(&post);               (the other end of a pair of Unix datagram sockets)
 *     send(peer, "hello", 5, 0);
 *     settle(env->loop);
 *     assert_string_equal(post.events, "MD");
 *     assert_string_equal(post.text, "hello\n");
 *     end_post(&post, peer);
 */
#ifndef DGRAMS_H
#define DGRAMS_H

#include "harness.h"

typedef struct post post_t;

struct post {
  env_t *env;
  aloop_datagram_t *endpoint; /* a reference, from connection_made on */
  char events[256];           /* M made, D datagram, B batch, E error, P pause, R resume, L lost */
  size_t events_count;
  char text[4096]; /* the datagrams that came, as lines, as far as there is room */
  size_t text_size;
  size_t datagrams;
  size_t batches; /* calls of datagrams_received */
  size_t largest; /* datagram */
  int errors[64];
  int errors_count;
  int error; /* of connection_lost */
  bool lost;
  bool refuse;                  /* create() returns NULL */
  struct sockaddr_storage from; /* of the last datagram */
  socklen_t from_size;

  /* Called last inside the callback; NULL: nothing. */
  void (*on_made)(post_t *post);
  void (*on_data)(post_t *post, const void *data, size_t size, const struct sockaddr *address, socklen_t size2);
  void (*on_batch)(post_t *post, const aloop_message_t *messages, size_t count);
  void (*on_error)(post_t *post);
  void (*on_pause)(post_t *post);
  void (*on_resume)(post_t *post);
  void *arg; /* the test's */
};

extern const aloop_datagram_protocol_t single_protocol; /* datagram_received */
extern const aloop_datagram_protocol_t batch_protocol;  /* datagrams_received */

/* The endpoint for these options (size is filled in), its connection_made done. */
void open_post(post_t *post, const aloop_datagram_protocol_t *table, aloop_datagram_options_t options);

/* An endpoint on one end of a pair of Unix datagram sockets; returns the other. One on 127.0.0.1, not
 * connected; returns its port. One that is connected to it. */
int open_pair(post_t *post, const aloop_datagram_protocol_t *table);
int open_udp(post_t *post, const aloop_datagram_protocol_t *table);
void connect_udp(post_t *post, const aloop_datagram_protocol_t *table, int port);

/* Ends the endpoint, checks that every end came once, and closes the peer (-1: none). */
void end_post(post_t *post, int peer);

/* Runs the loop until so many datagrams have come. */
void await_datagrams(post_t *post, size_t count);
void await_errors(post_t *post, int count);

/* Sends a text, which must be taken; to a port of 127.0.0.1. */
void post_text(post_t *post, const char *text);
void post_text_to(post_t *post, const char *text, int port);

/* 127.0.0.1 and this port. */
struct sockaddr *on_loopback(int port);
enum { LOOPBACK_SIZE = 16 };

/* The port of an endpoint. */
int port_of(const aloop_datagram_t *endpoint);

/* What waits at a plain descriptor, as lines. */
const char *lines_at(int fd);

/* Sends from the endpoint of a pair until datagrams wait. Returns how many were taken before the first of
 * these. */
size_t fill_pair(post_t *post);

#endif
