/* SPDX-License-Identifier: MIT
 *
 * A crowd: one protocol object for all connections of a server under test, which counts them and remembers who
 * is there.
 */
#ifndef CROWD_H
#define CROWD_H

#include "harness.h"

enum { CROWD_MAX = 80 };

typedef struct crowd {
  int made, lost, received;
  int last_error; /* of the last lost */
  int open;
  aloop_transport_t *transports[CROWD_MAX]; /* the open ones, in order of arrival */
  bool silent;                              /* keeps the connection when its peer sends EOF */
  void (*on_made)(struct crowd *crowd, aloop_transport_t *transport);
  void (*on_lost)(struct crowd *crowd, aloop_transport_t *transport);
  void *user; /* for these two */
} crowd_t;

/* Its `arg` is the crowd_t. */
extern const aloop_protocol_t crowd_protocol;

/* 127.0.0.1, and a port of the kernel's choice. */
aloop_server_options_t crowd_options(void);

/* Makes a server for the crowd; the caller's is one reference. */
aloop_server_t *crowd_serve_with(env_t *env, crowd_t *crowd, aloop_server_options_t options);
aloop_server_t *crowd_serve(env_t *env, crowd_t *crowd);

/* Waits for a future that ends without an error, consumes it and returns its value. */
int64_t value_of(env_t *env, aloop_future_t *future);

/* Waits for a future that fails, consumes it and returns its error; `text`, if not NULL, gets the message. */
int64_t error_of(env_t *env, aloop_future_t *future, char text[1024]);

#endif
