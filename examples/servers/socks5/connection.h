/* SPDX-License-Identifier: MIT
 *
 * One client of the SOCKS server and its target.
 */
#ifndef SOCKS5_CONNECTION_H
#define SOCKS5_CONNECTION_H

#include "aloop.h"

/* How long things may take, in ns. */
typedef struct limits {
  int64_t handshake; /* from the client's connect to the end of its request */
  int64_t connect;   /* to the target, the lookup of its name included */
} limits_t;

/* For aloop_create_server, with a limits_t * as argument. */
extern const aloop_protocol_t connection_protocol;

#endif
