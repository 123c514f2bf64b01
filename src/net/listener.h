/* SPDX-License-Identifier: MIT
 *
 * A listening socket of a server, between the I/O driver and server.c.
 */
#ifndef ALOOP_NET_LISTENER_H
#define ALOOP_NET_LISTENER_H

#include "aloop.h"
#include "core/loop.h"

struct aloop__listener {
  aloop__watch_t watch; /* the readiness driver's */
  aloop_server_t *server;
  const struct aloop__driver *driver; /* of its clients; NULL: the loop's own */
  int fd;
  bool accepting;         /* the driver is told to deliver */
  bool nodelay_inherited; /* accepted sockets have TCP_NODELAY already */
  bool armed;             /* the completion driver's: an accept is in the kernel, */
  uint8_t arming;         /* ... of this number */
};

/* ---- Called by the I/O driver ---- */

/* A connection: the descriptor is the server's now, non-blocking and close-on-exec. Returns whether more are
 * wanted right now. */
bool aloop__listener_accepted(struct aloop__listener *listener, int fd);

/* accept failed with something that is not about one connection (EMFILE, ENFILE, ENOBUFS, ENOMEM, ...). */
void aloop__listener_failed(struct aloop__listener *listener, int error);

#endif
