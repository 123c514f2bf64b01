/* SPDX-License-Identifier: MIT
 *
 * Descriptors of a process that has just been forked, and socket pairs to talk with it. Everything here is
 * async-signal-safe.
 */
#ifndef ALOOP_CORE_DESCRIPTORS_H
#define ALOOP_CORE_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>

/* A pair of connected, blocking stream sockets, closed on exec, that never raise SIGPIPE where a socket can be
 * told so (elsewhere: MSG_NOSIGNAL). Returns 0 or a code. */
int aloop__descriptors_pair(int fds[2]);

/* Sends and receives all of it on a stream socket, however often it takes, blocking or not. Returns whether it
 * could; not if the other end is closed. */
bool aloop__descriptors_send(int fd, const void *data, size_t size);
bool aloop__descriptors_receive(int fd, void *data, size_t size);

/* Whether the last call on a socket is to be tried again, after a wait if it would have had to. */
bool aloop__descriptors_again(int fd, short events);

/* Closes every descriptor from `lowest` (> 2) on. */
void aloop__descriptors_close_from(int lowest);

/* The two ways of doing so without the system's help, for its tests: by what /proc says is open (false: there
 * is no /proc), and by counting up to the limit, which misses what was opened before the limit was lowered. */
bool aloop__descriptors_close_listed(int lowest);
void aloop__descriptors_close_counted(int lowest);

/* Opens /dev/null in place of those of 0, 1 and 2 that are closed, so that nothing else gets these numbers. */
void aloop__descriptors_fill_standard(void);

#endif
