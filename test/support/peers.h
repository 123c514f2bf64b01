/* SPDX-License-Identifier: MIT
 *
 * Peers: plain sockets of a test, at the other end of what it tests. All on 127.0.0.1 unless told otherwise.
 */
#ifndef PEERS_H
#define PEERS_H

#include "harness.h"

/* A socket bound to a port of its own; connects are refused until it listens. */
int peer_bind(const char *host, int *port);
int peer_listen(int backlog, int *port);

/* A connected socket: the kernel completes the connection before anybody accepts it. */
int peer_connect(int port);

/* Whether a connect to the port is refused. */
bool peer_refused(int port);

typedef enum peer_state { PEER_OPEN, PEER_READABLE, PEER_EOF, PEER_RESET } peer_state_t;

/* What the other side has done so far. */
peer_state_t peer_look(int fd);

/* Runs the loop until the other side has ended the connection. */
void peer_await_end(aloop_t *loop, int fd);

/* Runs the loop until a counter has reached a number. */
void run_until_count(aloop_t *loop, const int *counter, int count);

/* Turns that do not wait. */
void run_turns(aloop_t *loop, int count);

/* From now until restore_fd_limit no descriptor can be opened but by closing another one first. */
void use_up_fds(void);
void restore_fd_limit(void);

#endif
