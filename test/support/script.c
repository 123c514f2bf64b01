/* SPDX-License-Identifier: MIT
 *
 * See script.h. Each answer is one block: the line that is to be told, then the list.
 */
#include "script.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESSES_MAX = 8 };

typedef struct reply {
  struct addrinfo nodes[ADDRESSES_MAX]; /* first: the list is known by its address */
  struct sockaddr_storage addresses[ADDRESSES_MAX];
  script_t *script;
  const line_t *line;
  aloop_future_t *future;
  aloop_handle_t timer;
} reply_t;

static void free_reply(void *list) {
  ((reply_t *)list)->script->lists--;
  free(list);
}

static void add_address(reply_t *reply, size_t index, const char *host, int port) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&reply->addresses[index];
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&reply->addresses[index];
  struct addrinfo *node = &reply->nodes[index];
  if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    node->ai_addrlen = sizeof *v4;
  } else {
    memset(v6, 0, sizeof *v6);
    inet_pton(AF_INET6, host, &v6->sin6_addr);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    node->ai_addrlen = sizeof *v6;
  }
  node->ai_addr = (struct sockaddr *)(void *)v4;
  node->ai_family = node->ai_addr->sa_family;
  node->ai_socktype = SOCK_STREAM;
  node->ai_protocol = IPPROTO_TCP;
  if (index > 0) reply->nodes[index - 1].ai_next = node;
}

static void fill(reply_t *reply, const char *addresses, int port) {
  size_t count = 0;
  char host[64];
  int length;
  while (count < ADDRESSES_MAX && sscanf(addresses, " %63s%n", host, &length) == 1) {
    add_address(reply, count++, host, port);
    addresses += length;
  }
}

static void answer(aloop_t *loop, void *arg) {
  (void)loop;
  reply_t *reply = arg;
  aloop_future_t *future = reply->future;
  aloop_future_on_cancel(future, NULL, NULL);
  if (reply->line->error == 0) {
    aloop_future_set_result(future, 0, reply->nodes, free_reply);
  } else {
    aloop_future_set_error(future, reply->line->error, reply->line->message);
    free_reply(reply);
  }
  aloop_future_unref(future);
}

static void call_off(aloop_future_t *future, void *arg) {
  reply_t *reply = arg;
  reply->script->cancelled++;
  aloop_cancel(aloop_future_loop(future), &reply->timer);
  free_reply(reply);
  aloop_future_unref(future);
}

static const line_t *find(const script_t *script, const char *host, int family) {
  static const line_t unknown = {.error = ALOOP_EAI_NONAME};
  for (size_t i = 0; i < script->count; i++)
    if (host != NULL && strcmp(script->lines[i].host, host) == 0 &&
        (script->lines[i].family == 0 || script->lines[i].family == family))
      return &script->lines[i];
  return &unknown;
}

static aloop_future_t *ask(aloop_t *loop, const char *host, const char *service, const struct addrinfo *hints,
                           void *arg) {
  script_t *script = arg;
  aloop_future_t *future = aloop_future_new(loop);
  reply_t *reply = future != NULL ? calloc(1, sizeof *reply) : NULL;
  if (reply == NULL) {
    aloop_future_unref(future);
    return NULL;
  }
  script->asked++;
  script->lists++;
  script->hints = *hints;
  snprintf(script->host, sizeof script->host, "%s", host != NULL ? host : "");
  snprintf(script->service, sizeof script->service, "%s", service != NULL ? service : "");
  reply->script = script;
  reply->line = find(script, host, hints->ai_family);
  reply->future = aloop_future_ref(future);
  if (reply->line->addresses != NULL) fill(reply, reply->line->addresses, atoi(script->service));
  if (reply->line->delay > 0) {
    aloop_future_on_cancel(future, call_off, reply);
    reply->timer = aloop_call_later(loop, reply->line->delay, answer, reply);
    if (aloop_handle_error(reply->timer) == 0) return future;
    aloop_future_cancel(future);
    aloop_future_unref(future);
    return NULL;
  }
  answer(loop, reply);
  return future;
}

const aloop_resolver_t script_resolver = {.size = sizeof script_resolver, .getaddrinfo = ask};
