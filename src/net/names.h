/* SPDX-License-Identifier: MIT
 *
 * Asking for names: what is shared by aloop_getaddrinfo and by the resolving of hosts for connections and
 * servers.
 */
#ifndef ALOOP_NET_NAMES_H
#define ALOOP_NET_NAMES_H

#include "aloop.h"

/* The code for what getaddrinfo or getnameinfo returned (0: 0), with errno as it left it. */
int aloop__names_error(int result, int system_error);

/* Whether the C library might take it for a number: also in one of the older spellings ("127.1"), or an address
 * with a zone. Names may pass: asking about them with AI_NUMERICHOST costs little. */
bool aloop__names_maybe_numeric(const char *host);

/* Asks the loop's resolver: a future whose object is a list of addresses. `hints` may be NULL. NULL: out of
 * memory. */
aloop_future_t *aloop__names_ask(aloop_t *loop, const char *host, const char *service,
                                 const struct addrinfo *hints);

#endif
