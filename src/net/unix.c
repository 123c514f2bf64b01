/* SPDX-License-Identifier: MIT
 *
 * create_unix_connection and create_unix_server. Names and files are unixname.c's, servers and transports are
 * those of every stream; what is here is the way from options to a socket.
 *
 * Connecting to a Unix socket is done at once or not at all, with one exception: when the server's backlog is
 * full, a blocking socket would wait, and a non-blocking one is told EAGAIN, with nothing that could be
 * waited for. So it is tried again, after a millisecond at first and after 64 at last, until there is room,
 * the timeout is over or the future is cancelled: a busy server is not a dead one. Systems that refuse at
 * once when the backlog is full (BSD) leave nothing to try.
 *
 * A server has one socket. Its file is replaced and unlinked only if the library has bound it: that of a
 * descriptor is the caller's, or a service manager's.
 */
#include "net/unix.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/driver.h"
#include "net/layer.h"
#include "net/server.h"

#define CONNECT_ORIGIN "aloop_create_unix_connection"
#define SERVER_ORIGIN "aloop_create_unix_server"

#define FIRST_DELAY ALOOP_MILLIS(1)
#define LONGEST_DELAY ALOOP_MILLIS(64)

typedef struct connector {
  aloop_t *loop;
  aloop_future_t *future;
  const aloop_protocol_t *table;
  void *arg;
  aloop_callback_fn try_again;
  aloop_handle_t timer; /* for everything */
  aloop_handle_t retry;
  int64_t delay;
  int64_t timeout;
  int type; /* of the socket */
  uint64_t flags;
  int fd;
  aloop__layer_t layer;
  aloop__unix_name_t name;
  char server_hostname[];
} connector_t;

/* ---- Shared ---------------------------------------------------------------------------------------------- */

static const char *text_of(const aloop__unix_name_t *name, char *text) {
  return aloop__address_text((const struct sockaddr *)(const void *)&name->address, name->size, text);
}

/* A long one may come from the environment, and is no mistake. */
aloop_future_t *aloop__unix_refused(aloop_t *loop, const char *origin, int error, const char *reason,
                                    size_t path_size) {
  if (error != ALOOP_ENAMETOOLONG) return aloop__future_refused(loop, origin, error, reason);
  return aloop__future_failed(
      loop, origin, error,
      "the path has %zu bytes, and that of a unix socket at most %d: use a shorter or a "
      "relative one",
      path_size, (int)ALOOP__UNIX_PATH_MAX);
}

static const aloop__driver_t *driver_of(int type, uint64_t flags) {
  if (type == SOCK_SEQPACKET) return &aloop__driver_seqpacket;
  return flags & ALOOP_UNIX_NO_DESCRIPTORS ? &aloop__driver_readiness : &aloop__driver_unix;
}

/* Of a caller's descriptor, or what is wanted of a new socket. */
static int type_of(const char *path, int fd, int wanted) {
  int type = SOCK_STREAM;
  socklen_t size = sizeof type;
  if (path != NULL) return wanted != 0 ? wanted : SOCK_STREAM;
  getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  return type;
}

static const char *fault_of_type(const char *path, int fd, int wanted, uint64_t flags, bool tls) {
  if ((flags & ~(uint64_t)ALOOP_UNIX_NO_DESCRIPTORS) != 0) return "options.flags has bits that mean nothing";
  if (flags != 0 && type_of(path, fd, wanted) == SOCK_SEQPACKET)
    return "ALOOP_UNIX_NO_DESCRIPTORS is for streams";
  if (tls && type_of(path, fd, wanted) == SOCK_SEQPACKET) return "TLS needs a stream, not messages";
  if (wanted == 0) return NULL;
  if (wanted != SOCK_STREAM && wanted != SOCK_SEQPACKET)
    return "options.type is 0, SOCK_STREAM or SOCK_SEQPACKET";
  return type_of(path, fd, wanted) == wanted ? NULL : "options.fd is not of options.type";
}

/* -1: it has none. */
static int family_of(int fd) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  return getsockname(fd, (struct sockaddr *)(void *)&name, &size) == 0 ? name.ss_family : -1;
}

static bool is_other_family(int fd) {
  int family = family_of(fd);
  return family >= 0 && family != AF_UNIX;
}

const aloop__driver_t *aloop__unix_driver_of(int fd) {
  return family_of(fd) == AF_UNIX ? &aloop__driver_unix : NULL;
}

/* ---- Connecting ------------------------------------------------------------------------------------------ */

static void release(connector_t *self) {
  aloop_cancel(self->loop, &self->timer);
  aloop_cancel(self->loop, &self->retry);
  if (self->fd >= 0) close(self->fd);
  aloop__layer_drop(&self->layer);
  aloop__memory_release(self->loop, self);
}

/* The future's stop function. */
static void stop(aloop_future_t *future, void *arg) {
  (void)future;
  release(arg);
}

static void fail(connector_t *self, int error) {
  char text[ALOOP__ADDRESS_TEXT];
  aloop_future_t *future = self->future;
  const struct sockaddr *address = (const struct sockaddr *)(const void *)&self->name.address;
  text_of(&self->name, text);
  aloop__future_add_attempt(future, address, self->name.size, error);
  if (error == ALOOP_ETIMEDOUT)
    aloop__future_fail(future, error, "connect to %s: its backlog was full for %" PRId64 " ms", text,
                       self->timeout / ALOOP_MILLIS(1));
  else
    aloop__future_fail(future, error, "connect to %s: %s", text, aloop_strerror(error));
  release(self);
}

static void succeed(connector_t *self) {
  if (aloop__stream_hand_over(self->loop, driver_of(self->type, self->flags), self->fd, self->table, self->arg,
                              self->future, &self->layer, CONNECT_ORIGIN) == NULL) {
    fail(self, ALOOP_ENOMEM);
    return;
  }
  self->fd = -1;
  release(self);
}

static int wait_for_room(connector_t *self) {
  int64_t longer = self->delay * 2;
  self->delay = longer == 0 ? FIRST_DELAY : longer < LONGEST_DELAY ? longer : LONGEST_DELAY;
  self->retry = aloop_call_later_from(self->loop, self->delay, self->try_again, self, CONNECT_ORIGIN);
  return aloop_handle_error(self->retry);
}

static void attempt(connector_t *self) {
  const struct sockaddr *address = (const struct sockaddr *)(const void *)&self->name.address;
  int rc = connect(self->fd, address, self->name.size) < 0 ? -errno : 0;
  if (rc == 0 || rc == -EISCONN) { /* an interrupted connect may have gone on */
    succeed(self);
    return;
  }
  if (rc == ALOOP_EAGAIN || rc == -EINTR) rc = wait_for_room(self);
  if (rc < 0) fail(self, rc);
}

static void try_again(aloop_t *loop, void *arg) {
  (void)loop;
  connector_t *self = arg;
  self->retry = (aloop_handle_t){0};
  attempt(self);
}

static void timed_out(aloop_t *loop, void *arg) {
  (void)loop;
  fail(arg, ALOOP_ETIMEDOUT);
}

static int start(connector_t *self) {
  self->fd = aloop__unix_socket(self->type);
  if (self->fd < 0) return self->fd;
  if (self->timeout <= 0) return 0;
  self->timer = aloop_call_later_from(self->loop, self->timeout, timed_out, self, CONNECT_ORIGIN);
  return aloop_handle_error(self->timer);
}

static aloop__layer_t layer_of(const aloop_unix_connect_options_t *options) {
  return (aloop__layer_t){.context = options->tls,
                          .server_hostname = options->server_hostname,
                          .handshake_timeout = options->tls_handshake_timeout,
                          .shutdown_timeout = options->tls_shutdown_timeout};
}

static aloop_future_t *connect_name(aloop_t *loop, const aloop_protocol_t *table, void *arg,
                                    const aloop__unix_name_t *name,
                                    const aloop_unix_connect_options_t *options) {
  aloop_future_t *future = aloop__future_new(loop, CONNECT_ORIGIN);
  if (future == NULL || aloop_future_done(future)) return future;
  aloop__layer_t layer = layer_of(options);
  size_t size = layer.server_hostname != NULL ? strlen(layer.server_hostname) + 1 : 0;
  connector_t *self = aloop__memory_zero(loop, sizeof *self + size);
  if (self == NULL) {
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  *self = (connector_t){.loop = loop, .future = future, .table = table, .arg = arg};
  self->timeout = options->timeout;
  self->type = type_of(options->path, -1, options->type);
  self->flags = options->flags;
  if (size > 0) layer.server_hostname = memcpy(self->server_hostname, layer.server_hostname, size);
  self->layer = aloop__layer_keep(&layer);
  self->name = *name;
  self->try_again = try_again;
  aloop__future_set_operation(future, stop, self);
  int rc = start(self);
  if (rc < 0)
    fail(self, rc);
  else
    attempt(self);
  return future;
}

static const char *fault_of_connect(const aloop_unix_connect_options_t *options) {
  if (options->timeout < ALOOP_FOREVER) return "options.timeout is negative";
  if (options->path != NULL && options->fd > 0) return "set either options.path or options.fd, not both";
  if (options->path == NULL && options->path_size > 0) return "options.path_size needs options.path";
  if (options->path == NULL && is_other_family(options->fd)) return "options.fd is not a unix socket";
  aloop__layer_t layer = layer_of(options);
  const char *fault = aloop__layer_fault(&layer, false);
  return fault != NULL
             ? fault
             : fault_of_type(options->path, options->fd, options->type, options->flags, layer.context != NULL);
}

aloop_future_t *aloop_create_unix_connection(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                             const aloop_unix_connect_options_t *options) {
  static const char origin[] = CONNECT_ORIGIN;
  aloop_unix_connect_options_t copy;
  aloop__unix_name_t name;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__stream_check_protocol(protocol) < 0)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL,
                                 "a connection needs a protocol table with its size set");
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL,
                                 "set options.size to sizeof(aloop_unix_connect_options_t)");
  const char *fault = fault_of_connect(&copy);
  if (fault != NULL) return aloop__future_refused(loop, origin, ALOOP_EINVAL, fault);
  aloop__layer_t layer = layer_of(&copy);
  if (copy.path == NULL)
    return aloop__connect_fd(loop, driver_of(type_of(NULL, copy.fd, 0), copy.flags), protocol, arg, copy.fd,
                             &layer, origin);
  int rc = aloop__unix_name(&name, copy.path, copy.path_size, &fault);
  if (rc < 0)
    return aloop__unix_refused(loop, origin, rc, fault, aloop__unix_path_size(copy.path, copy.path_size));
  return connect_name(loop, protocol, arg, &name, &copy);
}

/* ---- Serving --------------------------------------------------------------------------------------------- */

static int bind_server(aloop_server_t *server, const aloop__unix_name_t *name,
                       const aloop_unix_server_options_t *options, const char **reason) {
  int fd = aloop__unix_socket(type_of(options->path, -1, options->type));
  if (fd < 0) return fd;
  aloop__unix_file_t **file = options->cleanup >= 0 ? &server->file : NULL;
  int rc = aloop__unix_bind(server->object.loop, fd, name, options->mode, file, reason);
  if (rc == 0)
    aloop__server_add(server, driver_of(options->type, options->flags), fd);
  else
    close(fd);
  return rc;
}

static aloop_future_t *serve_name(aloop_t *loop, const aloop_protocol_t *table, void *arg,
                                  const aloop__unix_name_t *name, const aloop_unix_server_options_t *options,
                                  const aloop_server_options_t *common, aloop__spread_t *spread) {
  char text[ALOOP__ADDRESS_TEXT];
  const char *reason = NULL;
  aloop_future_t *future = aloop__future_new(loop, SERVER_ORIGIN);
  bool waits = future != NULL && !aloop_future_done(future);
  aloop_server_t *server = waits ? aloop__server_new(loop, table, arg, 1) : NULL;
  if (server == NULL) {
    aloop__spread_drop(spread);
    if (waits) aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  aloop__bind_set_up(server, common, spread);
  int rc = bind_server(server, name, options, &reason);
  if (rc < 0)
    aloop__future_fail(future, rc, "bind to %s: %s", text_of(name, text),
                       reason != NULL ? reason : aloop_strerror(rc));
  else
    rc = aloop__bind_listen(server, common->start_serving, future);
  if (rc < 0)
    aloop_server_close(server);
  else
    aloop__bind_publish(server, future);
  return future;
}

static const char *fault_of_server(const aloop_unix_server_options_t *options) {
  const char *fault =
      fault_of_type(options->path, options->fd, options->type, options->flags, options->tls != NULL);
  if (fault != NULL) return fault;
  if (options->backlog < 0) return "options.backlog is negative";
  fault = aloop__spread_fault(options->loops, options->loops_count);
  if (fault != NULL) return fault;
  if ((options->mode & ~(mode_t)07777) != 0) return "options.mode has bits that are no permissions";
  if (options->path != NULL && options->fd > 0) return "set either options.path or options.fd, not both";
  if (options->path != NULL && options->mode != 0 && options->path[0] == '\0' && options->path_size > 0)
    return "an abstract name has no permissions: unset options.mode";
  if (options->path != NULL) return NULL;
  if (options->path_size > 0) return "options.path_size needs options.path";
  if (options->mode != 0) return "the file of options.fd is there already: unset options.mode";
  return is_other_family(options->fd) ? "options.fd is not a unix socket" : NULL;
}

aloop_future_t *aloop_create_unix_server(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                         const aloop_unix_server_options_t *options) {
  static const char origin[] = SERVER_ORIGIN;
  aloop_unix_server_options_t copy;
  aloop__unix_name_t name;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__stream_check_protocol(protocol) < 0)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL,
                                 "a server needs a protocol table with its size set");
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL,
                                 "set options.size to sizeof(aloop_unix_server_options_t)");
  const char *fault = fault_of_server(&copy);
  aloop__layer_t layer = {.context = copy.tls,
                          .handshake_timeout = copy.tls_handshake_timeout,
                          .shutdown_timeout = copy.tls_shutdown_timeout};
  if (fault == NULL) fault = aloop__layer_fault(&layer, true);
  if (fault != NULL) return aloop__future_refused(loop, origin, ALOOP_EINVAL, fault);
  aloop_server_options_t common = {.fds = &copy.fd,
                                   .fds_count = 1,
                                   .backlog = copy.backlog,
                                   .start_serving = copy.start_serving,
                                   .max_clients = copy.max_clients,
                                   .tls = copy.tls,
                                   .tls_handshake_timeout = copy.tls_handshake_timeout,
                                   .tls_shutdown_timeout = copy.tls_shutdown_timeout};
  int rc = copy.path != NULL ? aloop__unix_name(&name, copy.path, copy.path_size, &fault) : 0;
  if (rc < 0)
    return aloop__unix_refused(loop, origin, rc, fault, aloop__unix_path_size(copy.path, copy.path_size));
  aloop__spread_t *spread;
  rc = aloop__spread_new(loop, copy.loops, copy.loops_count, &spread);
  if (rc < 0) return aloop__bind_not_spread(loop, rc, origin);
  if (copy.path == NULL)
    return aloop__bind_descriptors(loop, driver_of(type_of(NULL, copy.fd, 0), copy.flags), protocol, arg,
                                   &common, spread, origin);
  return serve_name(loop, protocol, arg, &name, &copy, &common, spread);
}

/* ---- Pairs ----------------------------------------------------------------------------------------------- */

static int pair_of(int type, int fds[2]) {
#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
  return socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0 ? -errno : 0;
#else
  aloop__adopted_t before;
  if (socketpair(AF_UNIX, type, 0, fds) < 0) return -errno;
  int rc = aloop__address_adopt(fds[0], &before);
  if (rc == 0) rc = aloop__address_adopt(fds[1], &before);
  if (rc == 0) return 0;
  close(fds[0]);
  close(fds[1]);
  return rc;
#endif
}

int aloop_socketpair(int type, int fds[2]) {
  int made[2];
  bool known = type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET;
  if (fds == NULL || !known)
    return aloop__misuse(NULL, ALOOP_EINVAL,
                         "a socket pair is of SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET, and has room for two");
  int rc = pair_of(type, made);
  if (rc < 0) return rc;
  fds[0] = made[0];
  fds[1] = made[1];
  return 0;
}
