/* SPDX-License-Identifier: MIT
 *
 * What the handshake of a transport has agreed on, for those who ask. The engine knows it all; nothing is kept
 * here but the words for a failure, which outlive the engine's session.
 *
 * Questions are answered from the end of the handshake until connection_lost has returned. Of a TLS transport
 * over another the upper one answers for itself.
 */
#include <string.h>

#include "core/report.h"
#include "tls/tls.h"

/* What each question begins with. */
static int enter(const aloop_transport_t *transport, const aloop__tls_t **self) {
  int rc = aloop__stream_enter(transport);
  if (rc < 0) return rc;
  if (transport->driver != &aloop__driver_tls) return ALOOP_ENOTSUP;
  *self = aloop__tls_of(transport);
  if (transport->object.state == ALOOP__LOST && (*self)->session == NULL) return ALOOP_ECLOSED;
  bool shaken = (*self)->session != NULL && (transport->flags & ALOOP__ANNOUNCED) != 0;
  return shaken ? 0 : ALOOP_ENOTCONN;
}

int aloop_transport_tls_info(const aloop_transport_t *transport, aloop_tls_info_t *info) {
  const aloop__tls_t *self;
  aloop_tls_info_t all = {.size = sizeof all};
  int rc = enter(transport, &self);
  if (rc < 0) return rc;
  if (info == NULL || info->size <= sizeof info->size)
    return aloop__misuse(transport->object.loop, ALOOP_EINVAL, "set info.size to sizeof(aloop_tls_info_t)");
  aloop__tls_engine(self)->info(self->session, &all);
  all.kernel = self->kernel ? 1 : 0;
  all.size = info->size < sizeof all ? info->size : sizeof all;
  memcpy(info, &all, all.size);
  return 0;
}

int aloop_transport_tls_certificate(const aloop_transport_t *transport, size_t index, const void **der,
                                    size_t *size) {
  const aloop__tls_t *self;
  int rc = enter(transport, &self);
  if (rc < 0) return rc;
  if (der == NULL || size == NULL)
    return aloop__misuse(transport->object.loop, ALOOP_EINVAL, "a certificate needs places to go to");
  return aloop__tls_engine(self)->certificate(self->session, index, der, size);
}

int aloop_transport_tls_binding(const aloop_transport_t *transport, const char *type, void *data,
                                size_t *size) {
  const aloop__tls_t *self;
  int rc = enter(transport, &self);
  if (rc < 0) return rc;
  if (type == NULL || data == NULL || size == NULL)
    return aloop__misuse(transport->object.loop, ALOOP_EINVAL, "a binding has a type, and a place to go to");
  return aloop__tls_engine(self)->binding(self->session, type, data, size);
}

const char *aloop_transport_tls_error(const aloop_transport_t *transport) {
  if (aloop__stream_enter(transport) < 0 || transport->driver != &aloop__driver_tls) return NULL;
  return aloop__tls_of(transport)->error;
}
