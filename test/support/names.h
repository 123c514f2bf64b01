/* SPDX-License-Identifier: MIT
 *
 * Names under control: in a test that uses any of this, getaddrinfo is replaced for hosts that end in ".test".
 * No name server is asked, no descriptor is opened meanwhile, and a lookup takes as long as the test wants:
 *
 *     name.test   127.0.0.1                       many.test   ::1, 127.0.0.1 (twice)
 *     slow.test   waits for names_open_gate       fail.test   fails with names_result and names_errno
 *     odd.test    nothing of the internet         self.test   notes the thread that asks
 *
 * In the same way getnameinfo, unless it is to give numbers, is replaced for the addresses of 192.0.2.0/24,
 * which is nobody's: 192.0.2.1 is name.test port "service", and 192.0.2.2 and 192.0.2.3 behave as slow.test and
 * fail.test.
 */
#ifndef NAMES_H
#define NAMES_H

#include <pthread.h>
#include <signal.h>

#include "harness.h"

/* Lets one lookup of slow.test go on; waits until one has begun. */
void names_open_gate(void);
void names_await_slow(void);

/* How many lookups of either kind have begun. */
int names_begun(void);

/* Whether no lookup is under way and every answer is released; waits for that, where no turn of a loop is
 * needed. */
bool names_are_freed(void);
void names_await_freed(void);

/* Shuts the loop's default executor down, which waits for every lookup, also for those that nobody waits for,
 * and checks that no answer is left. */
void names_finish(aloop_t *loop);

extern int names_result; /* of fail.test */
extern int names_errno;
extern sigset_t names_mask; /* what is blocked in the thread of self.test, and that thread */
extern pthread_t names_thread;

#endif
