/* SPDX-License-Identifier: MIT
 *
 * What the child of a fork leaves to its parent. See forked.c.
 */
#ifndef ALOOP_NET_FORKED_H
#define ALOOP_NET_FORKED_H

#include "core/loop.h"

/* For aloop__room_t.after_fork of the network: nothing is unsent any more. 0 or ALOOP_ENOMEM. */
int aloop__forked_leave(aloop_t *loop);

#endif
