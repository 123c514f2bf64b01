/* SPDX-License-Identifier: MIT
 *
 * A resolver that follows a script, in the loop's own time (and so on the virtual poller too):
 *
 *     static const line_t lines[] = {{.host = "two.test", .addresses = "::1 127.0.0.1", .delay = ALOOP_MILLIS(50)},
 *                                    {.host = "none.test", .error = ALOOP_EAI_NONAME}};
 *     script_t script = SCRIPT(lines);
 *     aloop_set_resolver(env->loop, &script_resolver, &script);
 *
 * A host that is not in the script is not known either.
 */
#ifndef SCRIPT_H
#define SCRIPT_H

#include "aloop.h"

typedef struct line {
  const char *host;
  int family;            /* answers only questions for that family; 0: all */
  const char *addresses; /* numeric, a blank between two */
  int64_t delay;         /* 0: answered within the call */
  int error;             /* instead of addresses */
  const char *message;   /* ... and its message */
} line_t;

typedef struct script {
  const line_t *lines;
  size_t count;
  int asked;     /* how often */
  int cancelled; /* how many of these were called off */
  int lists;     /* that are in use */
  char host[64]; /* what was asked last */
  char service[64];
  struct addrinfo hints;
} script_t;

#define SCRIPT(list) ((script_t){.lines = (list), .count = sizeof(list) / sizeof(list)[0]})

extern const aloop_resolver_t script_resolver;

#endif
