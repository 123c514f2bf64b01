/* SPDX-License-Identifier: MIT
 *
 * create_server: from options to a server with its sockets.
 *
 * A binder looks up the hosts one after the other and collects their addresses, each once. When all are known
 * it makes a socket for each, and then, unless told otherwise, listens. The binder is the operation behind the
 * caller's future until then; numeric hosts need no later turn, so that such a server is there when the call
 * returns.
 *
 * An address that this machine does not have (a host with an IPv6 address where IPv6 is off) is left out as
 * long as another one works. Every other failure is one of the whole call: a server that listens on half of
 * what was asked for would be found out late.
 *
 * IPv6 sockets take IPv6 only, so that IPv4 and IPv6 can have sockets of the same port. If the caller turns
 * that off and wants every interface, the IPv6 socket serves both, and IPv4 gets one only where there is no
 * IPv6.
 *
 * Descriptors of the caller are changed in no way before the server is certain; only listening cannot be taken
 * back.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/resolve.h"
#include "net/server.h"

#define ORIGIN "aloop_create_server"

enum { DEFAULT_BACKLOG = 100 };

typedef struct binder {
  aloop_t *loop;
  aloop_future_t *future;
  const aloop_protocol_t *table;
  void *arg;
  aloop__map_t *context; /* of the call */
  aloop__lookup_t *lookup;
  aloop__resolved_fn resolved; /* what a lookup comes back to */
  size_t next;                 /* host */
  aloop__addresses_t *addresses;
  const aloop__address_t *fault; /* the first address that did not work */
  int fault_error;
  aloop__spread_t *spread;        /* until there is a server */
  aloop_server_options_t options; /* hosts only in the form of a list */
  const char *hosts[];            /* followed by the strings */
} binder_t;

static aloop__layer_t layer_of(const aloop_server_options_t *options) {
  return (aloop__layer_t){.context = options->tls,
                          .handshake_timeout = options->tls_handshake_timeout,
                          .shutdown_timeout = options->tls_shutdown_timeout};
}

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void release(binder_t *self) {
  if (self->lookup != NULL) aloop__resolve_cancel(self->lookup);
  aloop__spread_drop(self->spread);
  aloop__layer_t layer = layer_of(&self->options);
  aloop__layer_drop(&layer);
  aloop__memory_release(self->loop, self->addresses);
  aloop__map_unref(self->loop, self->context);
  aloop__memory_release(self->loop, self);
}

/* The future's stop function. */
static void stop(aloop_future_t *future, void *arg) {
  (void)future;
  release(arg);
}

static void unref_server(void *server) {
  aloop_server_unref(server);
}

/* What the caller is told of an address. */
static void fail_at(aloop_future_t *future, const char *what, const struct sockaddr *address, socklen_t size,
                    int error) {
  char text[ALOOP__ADDRESS_TEXT];
  aloop__future_fail(future, error, "%s %s: %s", what, aloop__address_text(address, size, text),
                     aloop_strerror(error));
}

static void fail_to_listen(aloop_future_t *future, const aloop_server_t *server, size_t index, int error) {
  struct sockaddr_storage storage;
  struct sockaddr *name = (struct sockaddr *)(void *)&storage;
  socklen_t size = sizeof storage;
  if (aloop_server_socket(server, index, name, &size) >= 0)
    fail_at(future, "listen on", name, size, error);
  else
    aloop__future_fail(future, error, NULL);
}

/* ---- Sockets --------------------------------------------------------------------------------------------- */

static int set_on(int fd, int level, int option) {
  int on = 1;
  return setsockopt(fd, level, option, &on, sizeof on) < 0 ? -errno : 0;
}

static int set_reuse_port(int fd) {
#ifdef SO_REUSEPORT
  return set_on(fd, SOL_SOCKET, SO_REUSEPORT);
#else
  (void)fd;
  return ALOOP_ENOTSUP;
#endif
}

static int set_options(const aloop_server_options_t *options, int fd, int family) {
  int v6only = options->v6only >= 0;
  int rc = 0;
  if (options->reuse_address >= 0) rc = set_on(fd, SOL_SOCKET, SO_REUSEADDR);
  if (rc == 0 && options->reuse_port) rc = set_reuse_port(fd);
  if (rc == 0 && options->keep_alive) rc = set_on(fd, SOL_SOCKET, SO_KEEPALIVE);
  if (rc == 0 && family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only) < 0)
    rc = -errno;
  aloop__stream_set_nodelay(fd);
  return rc;
}

static int bound_socket(const aloop_server_options_t *options, const aloop__address_t *address) {
  int fd = aloop__address_socket(address);
  if (fd < 0) return fd;
  int rc = set_options(options, fd, address->as.any.sa_family);
  if (rc == 0 && bind(fd, &address->as.any, address->size) < 0) rc = -errno;
  if (rc == 0) return fd;
  close(fd);
  return rc;
}

static bool is_not_here(int error) {
  return error == ALOOP_EADDRNOTAVAIL || error == ALOOP_EAFNOSUPPORT || error == -EPROTONOSUPPORT;
}

/* ---- From addresses to a server -------------------------------------------------------------------------- */

void aloop__bind_set_up(aloop_server_t *server, const aloop_server_options_t *options,
                        aloop__spread_t *spread) {
  server->context = aloop__map_ref(server->object.loop->context);
  server->backlog = options->backlog > 0 ? options->backlog : DEFAULT_BACKLOG;
  server->max_clients = options->max_clients;
  aloop__layer_t layer = layer_of(options);
  server->layer = aloop__layer_keep(&layer);
  if (spread != NULL) aloop__spread_attach(spread, server);
}

static void note_fault(binder_t *self, const aloop__address_t *address, int error) {
  self->fault = address;
  self->fault_error = error;
}

/* Binds the addresses of one family, or of all. Returns 0 if the others may be enough, or an error. */
static int bind_addresses(binder_t *self, aloop_server_t *server, int family) {
  for (size_t i = 0; i < self->addresses->count; i++) {
    const aloop__address_t *address = &self->addresses->list[i];
    if (family != AF_UNSPEC && address->as.any.sa_family != family) continue;
    int fd = bound_socket(&self->options, address);
    if (fd >= 0) aloop__server_add(server, NULL, fd);
    if (fd < 0 && (self->fault == NULL || !is_not_here(fd))) note_fault(self, address, fd);
    if (fd < 0 && !is_not_here(fd)) return fd;
  }
  return 0;
}

/* Whether one socket is to serve IPv4 and IPv6 on every interface. */
static bool wants_one_for_both(const binder_t *self) {
  return self->options.v6only < 0 && self->options.hosts_count == 1 && self->hosts[0] == NULL;
}

/* Binds what there is to bind. Returns 0 or the error of `fault`. */
static int bind_all(binder_t *self, aloop_server_t *server) {
  int rc = 0;
  if (wants_one_for_both(self)) rc = bind_addresses(self, server, AF_INET6);
  if (rc == 0 && server->listeners_count == 0) rc = bind_addresses(self, server, AF_UNSPEC);
  return rc == 0 && server->listeners_count == 0 ? self->fault_error : rc;
}

int aloop__bind_listen(aloop_server_t *server, int start_serving, aloop_future_t *future) {
  size_t failed = 0;
  int rc = start_serving >= 0 ? aloop__server_listen(server, &failed) : 0;
  if (rc < 0) fail_to_listen(future, server, failed, rc);
  return rc;
}

void aloop__bind_publish(aloop_server_t *server, aloop_future_t *future) {
  aloop__object_ref(&server->object);
  aloop__future_finish_ptr(future, 0, server, unref_server);
}

static void make_server(binder_t *self) {
  aloop_future_t *future = self->future;
  aloop_server_t *server = aloop__server_new(self->loop, self->table, self->arg, self->addresses->count);
  if (server == NULL) {
    release(self);
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return;
  }
  aloop__bind_set_up(server, &self->options, self->spread);
  self->spread = NULL;
  int rc = bind_all(self, server);
  if (rc < 0)
    fail_at(future, "bind to", &self->fault->as.any, self->fault->size, rc);
  else
    rc = aloop__bind_listen(server, self->options.start_serving, future);
  if (rc < 0)
    aloop_server_close(server);
  else
    aloop__bind_publish(server, future);
  release(self);
}

/* ---- Looking up ------------------------------------------------------------------------------------------ */

static void lookup_failed(binder_t *self, int error) {
  aloop_future_t *future = self->future;
  const char *host = self->hosts[self->next];
  aloop__future_fail(future, error, "look up %s: %s", host != NULL ? host : "every interface",
                     aloop_strerror(error));
  release(self);
}

/* Takes over what was found for one host. */
static int collect(binder_t *self, aloop__addresses_t *found) {
  int rc = 0;
  for (size_t i = 0; i < found->count && rc == 0; i++)
    rc = aloop__addresses_add(self->loop, &self->addresses, &found->list[i]);
  aloop__memory_release(self->loop, found);
  if (rc == 0) self->next++;
  return rc;
}

/* Looks up the hosts that are left, and then makes the server. */
static void go_on(binder_t *self) {
  aloop__query_t query = {.future = self->future,
                          .port = self->options.port,
                          .family = self->options.family,
                          .type = SOCK_STREAM,
                          .protocol = IPPROTO_TCP,
                          .flags = self->options.flags | AI_PASSIVE};
  while (self->next < self->options.hosts_count) {
    aloop__addresses_t *found = NULL;
    query.host = self->hosts[self->next];
    int rc = aloop__resolve(self->loop, &query, &found, self->resolved, self, &self->lookup);
    if (rc == 1) return;
    if (rc == 0) rc = collect(self, found);
    if (rc < 0) {
      lookup_failed(self, rc);
      return;
    }
  }
  make_server(self);
}

static void resolved(aloop_t *loop, void *arg, int error, aloop__addresses_t *addresses) {
  binder_t *self = arg;
  self->lookup = NULL;
  loop->context = aloop__map_ref(self->context);
  if (error == 0) error = collect(self, addresses);
  if (error < 0)
    lookup_failed(self, error);
  else
    go_on(self);
}

/* The options' hosts in one form: a list of at least one, where NULL is every interface. */
static binder_t *new_binder(aloop_t *loop, const aloop_server_options_t *options) {
  const char *const *hosts = options->hosts_count > 0 ? options->hosts : &options->host;
  size_t count = options->hosts_count > 0 ? options->hosts_count : 1;
  size_t bytes = sizeof(binder_t) + count * sizeof(char *);
  for (size_t i = 0; i < count; i++) bytes += hosts[i] != NULL ? strlen(hosts[i]) + 1 : 0;
  binder_t *self = aloop__memory_zero(loop, bytes);
  if (self == NULL) return NULL;
  char *string = (char *)&self->hosts[count];
  for (size_t i = 0; i < count; i++) {
    if (hosts[i] == NULL || hosts[i][0] == '\0') continue;
    size_t size = strlen(hosts[i]) + 1;
    self->hosts[i] = memcpy(string, hosts[i], size);
    string += size;
  }
  self->loop = loop;
  self->options = *options;
  self->options.hosts_count = count;
  aloop__layer_t layer = layer_of(options);
  aloop__layer_keep(&layer);
  self->context = aloop__map_ref(loop->context);
  self->resolved = resolved;
  return self;
}

static aloop_future_t *serve_hosts(aloop_t *loop, const aloop_protocol_t *table, void *arg,
                                   const aloop_server_options_t *options, aloop__spread_t *spread) {
  aloop_future_t *future = aloop__future_new(loop, ORIGIN);
  binder_t *self = future != NULL && !aloop_future_done(future) ? new_binder(loop, options) : NULL;
  if (self == NULL) {
    aloop__spread_drop(spread);
    if (future != NULL && !aloop_future_done(future)) aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  self->spread = spread;
  self->future = future;
  self->table = table;
  self->arg = arg;
  aloop__future_set_operation(future, stop, self);
  go_on(self);
  return future;
}

aloop_future_t *aloop__bind_not_spread(aloop_t *loop, int error, const char *origin) {
  return aloop__future_failed(loop, origin, error,
                              error == ALOOP_ECLOSED ? "one of options.loops is closed" : NULL);
}

/* ---- Descriptors of the caller --------------------------------------------------------------------------- */

static bool is_among(int fd, const int *fds, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (fds[i] == fd) return true;
  return false;
}

static int check_descriptors(aloop_t *loop, const aloop__driver_t *driver,
                             const aloop_server_options_t *options, aloop_future_t *future) {
  for (size_t i = 0; i < options->fds_count; i++) {
    const char *reason = NULL;
    int rc = aloop__stream_check_descriptor(loop, driver, options->fds[i], &reason);
    if (rc == 0 && is_among(options->fds[i], options->fds, i)) {
      reason = "the descriptor is listed twice";
      rc = ALOOP_EBUSY;
    }
    if (rc == 0) continue;
    aloop__misuse(loop, rc, reason);
    aloop__future_fail(future, rc, "fd %d: %s", options->fds[i], reason);
    return rc;
  }
  return 0;
}

/* The server's own from here on. Changing flags of a socket that is known to be open does not fail. */
static void adopt_all(aloop_server_t *server, const aloop_server_options_t *options) {
  aloop__adopted_t before;
  for (size_t i = 0; i < server->listeners_count; i++) {
    int fd = server->listeners[i].fd;
    aloop__address_adopt(fd, &before);
    if (options->keep_alive) set_on(fd, SOL_SOCKET, SO_KEEPALIVE);
    aloop__stream_set_nodelay(fd);
  }
}

/* Ends a server that came to nothing, without its descriptors. */
static void give_all_back(aloop_server_t *server) {
  aloop__accept_end(server);
  server->listeners_count = 0;
  aloop_server_close(server);
}

aloop_future_t *aloop__bind_descriptors(aloop_t *loop, const aloop__driver_t *driver,
                                        const aloop_protocol_t *table, void *arg,
                                        const aloop_server_options_t *options, aloop__spread_t *spread,
                                        const char *origin) {
  aloop_future_t *future = aloop__future_new(loop, origin);
  aloop_server_t *server = NULL;
  bool fit =
      future != NULL && !aloop_future_done(future) && check_descriptors(loop, driver, options, future) == 0;
  if (fit) server = aloop__server_new(loop, table, arg, options->fds_count);
  if (server == NULL) {
    aloop__spread_drop(spread);
    if (fit) aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  aloop__bind_set_up(server, options, spread);
  for (size_t i = 0; i < options->fds_count; i++) {
    int fd = options->fds[i];
    aloop__server_add(server, driver != NULL ? driver : aloop__unix_driver_of(fd), fd);
  }
  if (aloop__bind_listen(server, options->start_serving, future) < 0) {
    give_all_back(server);
    return future;
  }
  adopt_all(server, options);
  aloop__bind_publish(server, future);
  return future;
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

/* Why the options cannot be used, or NULL. */
static const char *fault_of(const aloop_server_options_t *options) {
  if (options->fds_count > 0) {
    if (options->fds == NULL) return "options.fds is not set";
    if (options->host != NULL || options->hosts_count > 0) return "set either hosts or options.fds, not both";
    if (options->port != 0) return "bound descriptors have their port: unset options.port";
  }
  if (options->hosts_count > 0 && options->hosts == NULL) return "options.hosts is not set";
  if (options->hosts_count > 0 && options->host != NULL)
    return "set either options.host or options.hosts, not both";
  if (options->port < 0 || options->port > 65535) return "options.port is not in 0..65535";
  if (options->family != AF_UNSPEC && options->family != AF_INET && options->family != AF_INET6)
    return "options.family is AF_INET, AF_INET6 or 0";
  if (options->backlog < 0) return "options.backlog is negative";
  const char *fault = aloop__spread_fault(options->loops, options->loops_count);
  aloop__layer_t layer = layer_of(options);
  return fault != NULL ? fault : aloop__layer_fault(&layer, true);
}

aloop_future_t *aloop_create_server(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                    const aloop_server_options_t *options) {
  aloop_server_options_t copy;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__stream_check_protocol(protocol) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL,
                                 "a server needs a protocol table with its size set");
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL,
                                 "set options.size to sizeof(aloop_server_options_t)");
  const char *fault = fault_of(&copy);
  if (fault != NULL) return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL, fault);
  aloop__spread_t *spread;
  int rc = aloop__spread_new(loop, copy.loops, copy.loops_count, &spread);
  if (rc < 0) return aloop__bind_not_spread(loop, rc, ORIGIN);
  if (copy.fds_count > 0) return aloop__bind_descriptors(loop, NULL, protocol, arg, &copy, spread, ORIGIN);
  return serve_hosts(loop, protocol, arg, &copy, spread);
}
