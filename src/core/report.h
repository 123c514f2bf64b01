/* SPDX-License-Identifier: MIT
 *
 * Telling the exception handler: shorthands for the common shapes of report.
 */
#ifndef ALOOP_CORE_REPORT_H
#define ALOOP_CORE_REPORT_H

#include "aloop.h"

/* A context struct with size and fd preset. */
aloop_error_context_t aloop__report_context(const char *message, int error);

/* Hands `error` back to the caller after telling, in debug mode only, which rule was broken. `loop` may be
 * NULL. */
int aloop__misuse(aloop_t *loop, int error, const char *rule);

#endif
