/* SPDX-License-Identifier: MIT
 *
 * What the tests of streams for tasks share: such a stream, and the other end as a plain descriptor.
 *
 *     int peer;
 *     aloop_stream_t *stream = open_stream(env, 0, &peer);
 *     say(peer, "hello\n");
 *     expect_line(stream, "hello\n");
 *     end_stream(stream, peer);
 */
#ifndef DUPLEXES_H
#define DUPLEXES_H

#include "streams.h"

/* Over one end of a socket pair; `limit` 0: the default. */
aloop_stream_t *open_stream(env_t *env, size_t limit, int *peer);

/* Over any connected descriptor, which it owns from now on. */
aloop_stream_t *stream_over(aloop_t *loop, int fd, size_t limit);

/* Gives up the stream and closes the peer (-1: there is none), until no transport and stream is left. */
void end_stream(aloop_stream_t *stream, int peer);

/* The end of a read, until which the loop runs. */
int64_t finish(aloop_t *loop, aloop_future_t *future);

/* Reads that must end so. */
void expect_line(aloop_stream_t *stream, const char *line);
void expect_until(aloop_stream_t *stream, const char *separator, const char *data);
void expect_some(aloop_stream_t *stream, size_t room, const char *data);
void expect_exactly(aloop_stream_t *stream, const char *data);
void expect_end(aloop_stream_t *stream);

#endif
