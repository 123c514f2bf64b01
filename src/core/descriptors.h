/* SPDX-License-Identifier: MIT
 *
 * Descriptors of a process that has just been forked, and socket pairs. Everything here is async-signal-safe.
 */
#ifndef ALOOP_CORE_DESCRIPTORS_H
#define ALOOP_CORE_DESCRIPTORS_H

#include <stdbool.h>

/* A pair of connected, blocking stream sockets, closed on exec, that never raise SIGPIPE where a socket can be
 * told so (elsewhere: MSG_NOSIGNAL). Returns 0 or a code. */
int aloop__descriptors_pair(int fds[2]);

/* Closes every descriptor from `lowest` (> 2) on. */
void aloop__descriptors_close_from(int lowest);

/* The two ways of doing so without the system's help, for its tests: by what /proc says is open (false: there
 * is no /proc), and by counting up to the limit, which misses what was opened before the limit was lowered. */
bool aloop__descriptors_close_listed(int lowest);
void aloop__descriptors_close_counted(int lowest);

/* Opens /dev/null in place of those of 0, 1 and 2 that are closed, so that nothing else gets these numbers. */
void aloop__descriptors_fill_standard(void);

#endif
