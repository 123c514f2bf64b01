/* SPDX-License-Identifier: MIT
 *
 * Names under control: in a test that uses any of this, getaddrinfo is replaced for hosts that end in ".test".
 * No name server is asked, no descriptor is opened meanwhile, and a lookup takes as long as the test wants:
 *
 *     name.test   127.0.0.1                       many.test   ::1, 127.0.0.1 (twice)
 *     slow.test   waits for names_open_gate       fail.test   fails with names_result and names_errno
 *     odd.test    nothing of the internet         self.test   notes the thread that asks
 */
#ifndef NAMES_H
#define NAMES_H

#include <pthread.h>
#include <signal.h>

/* Lets one lookup of slow.test go on; waits until one has begun. */
void names_open_gate(void);
void names_await_slow(void);

/* One more answer is to come; waits until all that were expected are released, by whichever thread came
 * last. */
void names_expect(void);
void names_await_freed(void);

extern int names_result; /* of fail.test */
extern int names_errno;
extern sigset_t names_mask; /* what is blocked in the thread of self.test, and that thread */
extern pthread_t names_thread;

#endif
