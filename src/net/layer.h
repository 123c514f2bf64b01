/* SPDX-License-Identifier: MIT
 *
 * What may lie between a connected descriptor and the protocol: TLS, of which this room knows nothing but that
 * a context begins with a table. Connects and servers are given a layer by their options; where one has no
 * context, the transport is the one over the descriptor, as ever.
 */
#ifndef ALOOP_NET_LAYER_H
#define ALOOP_NET_LAYER_H

#include "aloop.h"
#include "net/stream.h"

/* How a connection is to be wrapped: as the members of that name in the option structs. The context is a
 * reference where a layer is kept, and borrowed where it is only passed on; the name is borrowed. */
typedef struct aloop__layer {
  aloop_tls_context_t *context; /* NULL: no layer */
  const char *server_hostname;
  int64_t handshake_timeout;
  int64_t shutdown_timeout;
} aloop__layer_t;

/* What every aloop_tls_context_t begins with. */
typedef struct aloop__wrapper {
  /* As aloop__stream_new, but for the driver and what is beneath. `server`: NULL on the connecting side, which
   * shakes hands first, unless `accepted`. */
  aloop_transport_t *(*wrap)(aloop_t *loop, const aloop__driver_t *driver, int fd,
                             const aloop_protocol_t *table, void *arg, aloop_server_t *server,
                             aloop_future_t *waiter, const aloop__layer_t *layer, const char *origin);
  void (*ref)(aloop_tls_context_t *context);
  void (*unref)(aloop_tls_context_t *context);
  /* Why it cannot be used like this, or NULL. */
  const char *(*fault)(const aloop_tls_context_t *context, bool serves, const char *server_hostname);
} aloop__wrapper_t;

static inline const aloop__wrapper_t *aloop__layer_wrapper(const aloop_tls_context_t *context) {
  return *(const aloop__wrapper_t *const *)(const void *)context;
}

/* Why a layer cannot be what its options ask for, or NULL. A descriptor that was accepted elsewhere may be of
 * either side. */
static inline const char *aloop__layer_fault(const aloop__layer_t *layer, bool serves) {
  if (layer->handshake_timeout < 0 || layer->shutdown_timeout < 0)
    return "a TLS timeout is a number of ns, or 0 for its default";
  if (layer->context != NULL)
    return aloop__layer_wrapper(layer->context)->fault(layer->context, serves, layer->server_hostname);
  return layer->server_hostname != NULL || layer->handshake_timeout > 0 || layer->shutdown_timeout > 0
             ? "options.server_hostname and the TLS timeouts are for TLS: set options.tls"
             : NULL;
}

/* A copy that is kept, and its end. */
static inline aloop__layer_t aloop__layer_keep(const aloop__layer_t *layer) {
  if (layer->context != NULL) aloop__layer_wrapper(layer->context)->ref(layer->context);
  return *layer;
}

static inline void aloop__layer_drop(aloop__layer_t *layer) {
  if (layer->context != NULL) aloop__layer_wrapper(layer->context)->unref(layer->context);
  layer->context = NULL;
}

/* aloop__stream_new, with the layer. */
static inline aloop_transport_t *aloop__layer_new(aloop_t *loop, const aloop__driver_t *driver, int fd,
                                                  const aloop_protocol_t *table, void *arg,
                                                  aloop_server_t *server, aloop_future_t *waiter,
                                                  const aloop__layer_t *layer, const char *origin) {
  if (layer == NULL || layer->context == NULL)
    return aloop__stream_new(loop, driver, fd, table, arg, server, waiter, origin);
  return aloop__layer_wrapper(layer->context)
      ->wrap(loop, driver, fd, table, arg, server, waiter, layer, origin);
}

#endif
