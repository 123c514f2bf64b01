/* SPDX-License-Identifier: MIT
 *
 * Which reply of SOCKS 5 says best why there is no connection.
 */
#ifndef SOCKS5_REPLY_H
#define SOCKS5_REPLY_H

#include "handshake.h"

/* For an error of aloop_create_connection. */
socks5_reply_t socks5_reply_for(int64_t error);

#endif
