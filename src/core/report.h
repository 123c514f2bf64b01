/* SPDX-License-Identifier: MIT
 *
 * Telling the exception handler: shorthands for the common shapes of report.
 */
#ifndef ALOOP_CORE_REPORT_H
#define ALOOP_CORE_REPORT_H

#include "aloop.h"

/* A context struct with size and fd preset. */
aloop_error_context_t aloop__report_context(const char *message, int error);

/* Hands a report to the handler in force, from whatever thread this is. */
void aloop__report(aloop_t *loop, const aloop_error_context_t *context);

/* Hands `error` back to the caller after telling, in debug mode only, which rule was broken. A NULL `loop`
 * stands for the one that runs in this thread, if any: a call without a loop or object has no better place to
 * complain. */
int aloop__misuse(aloop_t *loop, int error, const char *rule);

#endif
