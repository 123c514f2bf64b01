/* SPDX-License-Identifier: MIT
 *
 * A server, as its three files see it: server.c (life and public calls), accept.c (when to accept), bind.c (how
 * it comes into being).
 */
#ifndef ALOOP_NET_SERVER_H
#define ALOOP_NET_SERVER_H

#include "aloop.h"
#include "core/loop.h"
#include "net/driver.h"
#include "net/layer.h"
#include "net/listener.h"
#include "net/spread.h"
#include "net/unix.h"

struct aloop_server {
  aloop__object_t object; /* one reference is held until the server is closed, and one by each client */
  const aloop_protocol_t *table;
  void *arg;
  aloop_destroy_fn release; /* of arg, with the server; or NULL */
  aloop__map_t *context;    /* of the call that made it */
  aloop__unix_file_t *file; /* to be unlinked when it closes, or NULL */
  aloop__listener_t *listeners;
  size_t listeners_count;
  size_t clients;          /* on this loop */
  aloop__spread_t *spread; /* the other loops it is on, until it has ended; or NULL */
  aloop__branch_t *branch; /* what makes it a part of another loop's server, or NULL */
  aloop__layer_t layer;
  size_t max_clients; /* 0: no limit */
  int backlog;
  bool serving; /* the sockets listen */
  bool closed;
  bool paused;  /* by the user */
  bool severed; /* its loop was closed before connections on others were lost */

  /* accept.c: an episode lasts from the first failed accept to the next successful one. */
  bool episode;
  bool resting; /* accepting waits for `retry` */
  int64_t retry_delay;
  aloop_handle_t retry;

  /* Who waits for the end. */
  aloop_future_t *forever; /* of serve_forever, or NULL */
  aloop__list_t waiters;   /* of wait_closed */
  aloop_future_t *drain;   /* or NULL */
  aloop_handle_t drain_timer;
  int64_t drain_grace;
  size_t drain_left; /* clients that did not finish by themselves */
};

/* A server without sockets but with room for `room` of them. Its one reference goes when it is closed. NULL:
 * out of memory. */
aloop_server_t *aloop__server_new(aloop_t *loop, const aloop_protocol_t *table, void *arg, size_t room);

/* Makes one of cleared memory: without sockets, and of this origin. */
void aloop__server_begin(aloop_server_t *server, aloop_t *loop, const aloop_protocol_t *table, void *arg,
                         const char *origin);

/* `arg` is released with the server, once no loop needs it. */
void aloop__server_release_with(aloop_server_t *server, aloop_destroy_fn release);

/* Ends who waits for the end, if it has come: the server is closed and its last client lost. */
void aloop__server_settle(aloop_server_t *server);

/* Clients on all its loops. */
static inline size_t aloop__server_population(const aloop_server_t *server) {
  return server->clients + (server->spread != NULL ? aloop__spread_clients(server->spread) : 0);
}

/* Another socket, bound and non-blocking. `driver` is that of its clients; NULL: the loop's own. */
void aloop__server_add(aloop_server_t *server, const aloop__driver_t *driver, int fd);

/* start_serving that tells at which listener it failed. */
int aloop__server_listen(aloop_server_t *server, size_t *failed);

/* ---- bind.c, for servers of every kind ------------------------------------------------------------------- */

/* Context, backlog and limits; `spread` (or NULL) is the server's from here on. */
void aloop__bind_set_up(aloop_server_t *server, const aloop_server_options_t *options, aloop__spread_t *spread);

/* Listens, unless start_serving is negative; a failure ends the future. */
int aloop__bind_listen(aloop_server_t *server, int start_serving, aloop_future_t *future);

/* Ends the future with the server, which serves by now if it is to. */
void aloop__bind_publish(aloop_server_t *server, aloop_future_t *future);

/* The future of a server whose loops could not be told. */
aloop_future_t *aloop__bind_not_spread(aloop_t *loop, int error, const char *origin);

/* A server over options->fds. A NULL driver: for each that of its kind. `spread` (or NULL) is taken over. */
aloop_future_t *aloop__bind_descriptors(aloop_t *loop, const aloop__driver_t *driver,
                                        const aloop_protocol_t *table, void *arg,
                                        const aloop_server_options_t *options, aloop__spread_t *spread,
                                        const char *origin);

/* ---- accept.c -------------------------------------------------------------------------------------------- */

/* Tells the driver to deliver connections or not, whichever the server's state says. Fails with everything
 * stopped. */
int aloop__accept_update(aloop_server_t *server);

/* The same where nobody could be told of a failure: it is tried again later. */
void aloop__accept_retry(aloop_server_t *server);

/* Stops accepting and forgets a rest. */
void aloop__accept_stop(aloop_server_t *server);

/* Stops for good: the descriptors may be closed. */
void aloop__accept_end(aloop_server_t *server);

/* A connection that somebody accepted and that is nobody's now goes to one of the server's loops. False: this
 * one was the place, and has no memory. */
bool aloop__accept_place(aloop_server_t *server, const aloop__driver_t *driver, int fd);

/* Makes a client of this loop. False: out of memory, and the descriptor is still the caller's. */
bool aloop__accept_take(aloop_server_t *server, const aloop__driver_t *driver, int fd);

/* Rests, and tells the exception handler once. */
void aloop__accept_failed(aloop_server_t *server, int fd, int error);

/* For the object's kind. */
bool aloop__accept_resume(aloop__object_t *object);

#endif
