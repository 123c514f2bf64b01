/* SPDX-License-Identifier: MIT
 *
 * What travels beside the bytes of a datagram: see control.c.
 */
#ifndef ALOOP_NET_CONTROL_H
#define ALOOP_NET_CONTROL_H

#include <sys/socket.h>

#include "aloop.h"

/* Room for the control messages of one datagram. */
typedef struct aloop__control {
  size_t words[24];
} aloop__control_t;

/* Asks for the local address and the ECN bits of what is received, and for several datagrams of one sender as
 * one message, as far as the system knows them. */
void aloop__control_want(int fd, bool local, bool ecn, bool segments);

/* Reads what came with a message of known size: its ECN bits, the size of its segments, and the local address
 * to `local` (`port` in network order). */
void aloop__control_read(struct msghdr *header, aloop_message_t *message, struct sockaddr_storage *local,
                         uint16_t port);

/* Puts the wishes of a message to `peer` into the control messages: local address, ECN, and the size of
 * segments, 0 for one datagram. What the system does not know is left out. */
void aloop__control_write(struct msghdr *header, aloop__control_t *control, const aloop_message_t *message,
                          const struct sockaddr *peer, size_t segment);

#endif
