/* SPDX-License-Identifier: MIT
 *
 * start_tls: a live transport becomes the carrier of a TLS transport.
 *
 * What was written before stays in front of the handshake, in the carrier's own buffer. What was received
 * before has been given to the protocol, all of it: the transport keeps none, so nothing that somebody sent in
 * clear can turn up again behind the handshake. What comes from now on is the handshake's, and an attacker's
 * text in its place makes it fail.
 *
 * The protocol is told nothing new: it has had its connection_made. It gets its connection_lost from the new
 * transport, however the handshake ends, because the old one's was taken from it.
 */
#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/relay.h"
#include "net/write.h"
#include "tls/tls.h"

#define ORIGIN "aloop_start_tls"

/* Why the transport cannot carry another: a code, and the rule if that is the caller's fault. */
static int check(const aloop_transport_t *transport, const char **rule) {
  if (transport->object.state >= ALOOP__CLOSING || (transport->flags & ALOOP__CARRIER)) return ALOOP_ECLOSED;
  if (transport->object.state != ALOOP__OPEN || (transport->flags & ALOOP__MADE) == 0) {
    *rule = "start_tls before connection_made";
    return ALOOP_EINVAL;
  }
  if (transport->flags & (ALOOP__NO_READ | ALOOP__NO_WRITE | ALOOP__MESSAGES)) {
    *rule = "start_tls needs a stream of both directions: no pipe, no messages";
    return ALOOP_ENOTSUP;
  }
  if (aloop__relay_of(transport) != NULL) {
    *rule = aloop__relay_rule;
    return ALOOP_EBUSY;
  }
  if (transport->flags & ALOOP__SENDFILE) {
    *rule = "start_tls during sendfile";
    return ALOOP_EBUSY;
  }
  if (transport->flags & ALOOP__EOF_WANTED) {
    *rule = "start_tls after write_eof";
    return ALOOP_EPIPE;
  }
  if (transport->flags & ALOOP__EOF_RECEIVED) return ALOOP_EPIPE;
  if (transport->driver == &aloop__driver_tls && aloop__tls_of(transport)->depth + 1 >= ALOOP__TLS_DEPTH_MAX) {
    *rule = "too many TLS transports over each other";
    return ALOOP_ENOTSUP;
  }
  return 0;
}

/* The stop function of the future; also called when the transport ends it, and has let go of it by then. */
static void cancelled(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_transport_t *transport = arg;
  if (transport->waiter != NULL) aloop__stream_end(transport, ALOOP_ECANCELED);
}

static aloop_future_t *start(aloop_transport_t *carrier, const aloop_protocol_t *table, void *object,
                             const aloop__layer_t *layer) {
  aloop_future_t *future = aloop__future_new(carrier->object.loop, ORIGIN);
  if (future == NULL || aloop_future_done(future)) return future;
  if (table == NULL) object = aloop_transport_get_protocol(carrier, &table);
  aloop_transport_t *transport = aloop__tls_over(carrier, table, object, layer, future, ORIGIN);
  if (transport == NULL) {
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  aloop_future_ref(future);
  aloop__future_set_operation(future, cancelled, transport);
  aloop__tls_begin(aloop__tls_of(transport));
  aloop__stream_update_reading(carrier);
  return future;
}

static const char *fault_of(const aloop_start_tls_options_t *options, aloop__layer_t *layer) {
  *layer = (aloop__layer_t){.context = options->tls,
                            .server_hostname = options->server_hostname,
                            .handshake_timeout = options->tls_handshake_timeout,
                            .shutdown_timeout = options->tls_shutdown_timeout};
  if (options->tls == NULL) return "start_tls needs a context: set options.tls";
  bool serves = options->tls->role == ALOOP_TLS_SERVER;
  if (serves && options->server_hostname != NULL)
    return "options.server_hostname is for clients; a server has names in its context";
  return aloop__layer_fault(layer, serves);
}

aloop_future_t *aloop_start_tls(aloop_transport_t *transport, const aloop_protocol_t *protocol, void *object,
                                const aloop_start_tls_options_t *options) {
  aloop_start_tls_options_t copy;
  aloop__layer_t layer;
  const char *rule = NULL;
  if (transport == NULL || aloop__loop_thread(transport->object.loop) < 0) {
    aloop__stream_refuse(transport);
    return NULL;
  }
  aloop_t *loop = transport->object.loop;
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL,
                                 "set options.size to sizeof(aloop_start_tls_options_t)");
  if (protocol != NULL && aloop__stream_check_protocol(protocol) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL, "a protocol table has its size set");
  const char *fault = fault_of(&copy, &layer);
  if (fault != NULL) return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL, fault);
  if ((transport->flags & ALOOP__CARRIER) == 0) aloop__cork_flush(transport);
  int rc = check(transport, &rule);
  if (rc < 0 && rule != NULL) return aloop__future_refused(loop, ORIGIN, rc, rule);
  if (rc < 0) return aloop__future_failed(loop, ORIGIN, rc, NULL);
  return start(transport, protocol, object, &layer);
}
