/* SPDX-License-Identifier: MIT
 *
 * Sessions that a client may resume: a list in its context, the newest first, by the name of the server.
 *
 * A session was verified for that name by the rules of that context, so it stands for both, and is never
 * offered to another name. One of TLS 1.3 is offered once, because a second use would tell who watches that
 * both connections are the same client's; servers send new ones with each connection. Connections without a
 * name resume nothing.
 *
 * The list is searched from its front: with the default of 256 sessions that costs less than one signature by
 * far. The oldest go when it is full, and of one name there are four at most.
 */
#include <stdlib.h>
#include <string.h>

#include "tls/openssl/openssl.h"

enum { MAX_OF_NAME = 4 };

struct aloop__openssl_ticket {
  aloop__openssl_ticket_t *next;
  SSL_SESSION *session;
  char name[];
};

typedef aloop__openssl_ticket_t ticket_t;

static void drop(aloop__openssl_cache_t *cache, ticket_t **at) {
  ticket_t *ticket = *at;
  *at = ticket->next;
  cache->count--;
  SSL_SESSION_free(ticket->session);
  free(ticket);
}

static ticket_t **find(aloop__openssl_cache_t *cache, const char *name) {
  ticket_t **at = &cache->first;
  while (*at != NULL && strcmp((*at)->name, name) != 0) at = &(*at)->next;
  return at;
}

void aloop__openssl_resume(aloop__openssl_session_t *session) {
  aloop__openssl_cache_t *cache = &session->context->cache;
  if (cache->max == 0) return;
  pthread_mutex_lock(&cache->lock);
  ticket_t **at = find(cache, session->name);
  if (*at != NULL && SSL_SESSION_is_resumable((*at)->session)) SSL_set_session(session->ssl, (*at)->session);
  if (*at != NULL && (SSL_SESSION_get_protocol_version((*at)->session) >= TLS1_3_VERSION ||
                      !SSL_SESSION_is_resumable((*at)->session)))
    drop(cache, at);
  pthread_mutex_unlock(&cache->lock);
}

/* Room for one more of the name. */
static void make_room(aloop__openssl_cache_t *cache, const char *name) {
  int same = 0;
  for (ticket_t **at = &cache->first; *at != NULL;) {
    if (strcmp((*at)->name, name) == 0 && ++same == MAX_OF_NAME)
      drop(cache, at);
    else
      at = &(*at)->next;
  }
  if (cache->count < cache->max) return;
  ticket_t **last = &cache->first;
  while ((*last)->next != NULL) last = &(*last)->next;
  drop(cache, last);
}

int aloop__openssl_keep(SSL *ssl, SSL_SESSION *fresh) {
  aloop__openssl_session_t *session = SSL_get_app_data(ssl);
  aloop__openssl_cache_t *cache = &session->context->cache;
  if (session->name == NULL || cache->max == 0) return 0;
  size_t size = strlen(session->name) + 1;
  ticket_t *ticket = malloc(sizeof *ticket + size);
  if (ticket == NULL) return 0;
  ticket->session = fresh;
  memcpy(ticket->name, session->name, size);
  pthread_mutex_lock(&cache->lock);
  make_room(cache, ticket->name);
  ticket->next = cache->first;
  cache->first = ticket;
  cache->count++;
  pthread_mutex_unlock(&cache->lock);
  return 1; /* the reference has moved in */
}

void aloop__openssl_forget(aloop__openssl_cache_t *cache) {
  while (cache->first != NULL) drop(cache, &cache->first);
}
