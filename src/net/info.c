/* SPDX-License-Identifier: MIT
 *
 * What a transport knows of its socket: descriptor, addresses, server. Asked from the kernel when somebody
 * wants to know, because most never do; only the peer's address is remembered, since the kernel forgets it when
 * the connection breaks, which is when logs want it most.
 *
 * The descriptor is there until connection_lost has returned, so all of this may still be asked inside it.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "net/stream.h"

aloop_t *aloop_transport_loop(const aloop_transport_t *transport) {
  return transport != NULL ? transport->object.loop : NULL;
}

aloop_server_t *aloop_transport_server(const aloop_transport_t *transport) {
  return transport != NULL ? transport->server : NULL;
}

int aloop_transport_fd(const aloop_transport_t *transport) {
  if (transport == NULL) return ALOOP_EINVAL;
  return transport->fd >= 0 ? transport->fd : ALOOP_ECLOSED;
}

int aloop_transport_sockname(const aloop_transport_t *transport, struct sockaddr *address, socklen_t *size) {
  if (transport == NULL || address == NULL || size == NULL) return ALOOP_EINVAL;
  if (transport->fd < 0) return ALOOP_ECLOSED;
  return getsockname(transport->fd, address, size) < 0 ? -errno : 0;
}

int aloop_transport_peername(const aloop_transport_t *transport, struct sockaddr *address, socklen_t *size) {
  if (transport == NULL || address == NULL || size == NULL) return ALOOP_EINVAL;
  /* Remembering is no change that a caller could see. */
  aloop__stream_extras_t *extras = aloop__stream_extras((aloop_transport_t *)transport);
  if (extras == NULL) return ALOOP_ENOMEM;
  if (extras->peer_size == 0) {
    socklen_t length = sizeof extras->peer;
    if (transport->fd < 0) return ALOOP_ECLOSED;
    if (getpeername(transport->fd, (struct sockaddr *)&extras->peer, &length) < 0) return -errno;
    extras->peer_size = length;
  }
  memcpy(address, &extras->peer, *size < extras->peer_size ? *size : extras->peer_size);
  *size = extras->peer_size;
  return 0;
}
