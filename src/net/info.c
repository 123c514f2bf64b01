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
#include <unistd.h>

#include "core/report.h"
#include "net/stream.h"

aloop_t *aloop_transport_loop(const aloop_transport_t *transport) {
  return transport != NULL || aloop__stream_refuse(transport) == 0 ? transport->object.loop : NULL;
}

aloop_server_t *aloop_transport_server(const aloop_transport_t *transport) {
  return aloop__stream_enter(transport) == 0 ? transport->server : NULL;
}

int aloop_transport_fd(const aloop_transport_t *transport) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  return transport->watch.fd >= 0 ? transport->watch.fd : ALOOP_ECLOSED;
}

static int enter(const aloop_transport_t *transport, const void *address, const socklen_t *size) {
  int rc = aloop__stream_enter(transport);
  if (rc == 0 && (address == NULL || size == NULL))
    rc = aloop__misuse(transport->object.loop, ALOOP_EINVAL, "an address needs a place and its size");
  return rc;
}

int aloop_transport_sockname(const aloop_transport_t *transport, struct sockaddr *address, socklen_t *size) {
  int rc = enter(transport, address, size);
  if (rc < 0) return rc;
  if (transport->watch.fd < 0) return ALOOP_ECLOSED;
  return getsockname(transport->watch.fd, address, size) < 0 ? -errno : 0;
}

int aloop_transport_peername(const aloop_transport_t *transport, struct sockaddr *address, socklen_t *size) {
  int rc = enter(transport, address, size);
  if (rc < 0) return rc;
  /* Remembering is no change that a caller could see. */
  aloop__stream_extras_t *extras = aloop__stream_extras((aloop_transport_t *)transport);
  if (extras == NULL) return ALOOP_ENOMEM;
  if (extras->peer_size == 0) {
    socklen_t length = sizeof extras->peer;
    if (transport->watch.fd < 0) return ALOOP_ECLOSED;
    if (getpeername(transport->watch.fd, (struct sockaddr *)&extras->peer, &length) < 0) return -errno;
    extras->peer_size = length;
  }
  memcpy(address, &extras->peer, *size < extras->peer_size ? *size : extras->peer_size);
  *size = extras->peer_size;
  return 0;
}

static int ask_credentials(int fd, aloop_peercred_t *peer) {
#if defined(__linux__) && defined(SO_PEERCRED)
  struct ucred told;
  socklen_t size = sizeof told;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &told, &size) < 0) return -errno;
  *peer = (aloop_peercred_t){.pid = told.pid, .uid = told.uid, .gid = told.gid};
  return 0;
#elif ALOOP_HAVE_GETPEEREID
  aloop_peercred_t told = {.pid = -1};
  if (getpeereid(fd, &told.uid, &told.gid) < 0) return -errno;
  *peer = told;
  return 0;
#else
  (void)fd, (void)peer;
  return ALOOP_ENOTSUP;
#endif
}

int aloop_transport_peercred(const aloop_transport_t *transport, aloop_peercred_t *peer) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  aloop_t *loop = transport->object.loop;
  if (peer == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "credentials need a place to go to");
  if (transport->watch.fd < 0) return ALOOP_ECLOSED;
  if (getsockname(transport->watch.fd, (struct sockaddr *)(void *)&name, &size) < 0) return -errno;
  if (name.ss_family != AF_UNIX)
    return aloop__misuse(loop, ALOOP_ENOTSUP, "only peers of unix sockets have credentials");
  return ask_credentials(transport->watch.fd, peer);
}
