/* SPDX-License-Identifier: MIT
 *
 * One end of a pipe as a stream transport.
 */
#ifndef ALOOP_PROCESS_PIPE_H
#define ALOOP_PROCESS_PIPE_H

#include "net/stream.h"

/* A transport over an end of a pipe that the library has made itself: non-blocking, close-on-exec, owned from
 * now on. A read end refuses writes; a write end learns that its reader went, and write_eof closes it.
 * Everything else is as in aloop__stream_new: connection_made comes with the next turn, `waiter` (may be NULL)
 * is done after it; NULL: out of memory, and fd and waiter stay the caller's. */
aloop_transport_t *aloop__pipe_new(aloop_t *loop, int fd, bool read_end, const aloop_protocol_t *table,
                                   void *arg, aloop_future_t *waiter, const char *origin);

#endif
