/* SPDX-License-Identifier: MIT
 *
 * Servers: the first slice, enough for the transport to count its server's connections. Listening sockets, the
 * accept policy and the public calls follow in this file.
 */
#include "core/memory.h"
#include "net/driver.h"
#include "net/listener.h"

struct aloop_server {
  aloop__object_t object;
  const aloop_protocol_t *table;
  void *arg;
};

aloop_server_t *aloop_server_ref(aloop_server_t *server) {
  if (server != NULL) aloop__object_ref(&server->object);
  return server;
}

void aloop_server_unref(aloop_server_t *server) {
  if (server != NULL) aloop__object_unref(&server->object);
}

aloop_t *aloop_server_get_loop(const aloop_server_t *server) {
  return server != NULL ? server->object.loop : NULL;
}

void aloop__server_client_lost(aloop_server_t *server) {
  aloop_server_unref(server);
}

bool aloop__listener_accepted(struct aloop__listener *listener, int fd) {
  aloop_server_t *server = listener->server;
  aloop__stream_set_nodelay(fd);
  aloop_transport_t *made = aloop__stream_new(server->object.loop, fd, server->table, server->arg, server, NULL,
                                              server->object.origin);
  if (made != NULL) aloop_server_ref(server);
  return made != NULL;
}

void aloop__listener_failed(struct aloop__listener *listener, int error) {
  (void)error;
  aloop__net_of(listener->server->object.loop)->driver->listen(listener, false);
}
