/* SPDX-License-Identifier: MIT
 *
 * One loop with its server and its connections. A process has one worker per thread, and they share nothing but
 * the root directory.
 */
#ifndef HTTP_WORKER_H
#define HTTP_WORKER_H

#include "aloop.h"
#include "buffer.h"
#include "parser.h"

#include <stdbool.h>

typedef struct connection connection_t;

typedef struct worker {
  aloop_t *loop;
  aloop_server_t *server;
  int root;                  /* the directory that is served; borrowed */
  int64_t idle_timeout;      /* ns */
  bool stopping;             /* no request after the one under way */
  buffer_t out;              /* where responses are put together */
  http_parser_t *spare;      /* a parser nobody uses now */
  connection_t *connections; /* all of them, so that they can be told to stop */
} worker_t;

/* What the server's connections do; the `arg` of aloop_create_server is the worker. */
extern const aloop_protocol_t connection_protocol;

/* Closes the connections that wait for a request, and has the others end after the response under way. */
void connection_stop_all(worker_t *worker);

/* Releases the worker's memory, and that of connections whose loop was closed under them. After aloop_free. */
void connection_free_worker(worker_t *worker);

#endif
