/* SPDX-License-Identifier: MIT
 *
 * What other rooms ask about the signal handlers of a loop. See signals.c.
 */
#ifndef ALOOP_PROCESS_SIGNALS_H
#define ALOOP_PROCESS_SIGNALS_H

#include "aloop.h"

/* How many handlers the loop has for a signal that can be caught. */
size_t aloop__signal_handlers(const aloop_t *loop, int signum);

#endif
