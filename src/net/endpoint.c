/* SPDX-License-Identifier: MIT
 *
 * create_datagram_endpoint: from hosts or addresses to a datagram socket, or to the reasons why not.
 *
 * An opener asks for the addresses of the local and of the remote host, both at once. Then it goes through all
 * pairs of one family, the remote ones in the resolver's order, and takes the first for which a socket can be
 * made, bound and connected; none of these waits. What was tried is noted on the future. The opener is the
 * operation behind the caller's future, as a connector is (connect.c).
 *
 * With allow_broadcast the socket is not connected, because a broadcast is answered from other addresses than
 * it was sent to: the remote address is then only where datagrams go.
 *
 * The file of a Unix socket is a server's in small (unixname.c): a dead one is replaced, and ours is unlinked
 * at the end.
 *
 * A descriptor of the caller's is left as it is until connection_made is about to be called: whatever goes
 * wrong before, it is still the caller's, as it was.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/datagram.h"
#include "net/resolve.h"

#define ORIGIN "aloop_create_datagram_endpoint"

enum { MESSAGE_MAX = 1024 };

typedef struct opener opener_t;

/* The local or the remote side: a host to ask for, or an address that was given. */
typedef struct side {
  opener_t *opener;
  aloop__lookup_t *lookup; /* while it is under way */
  const char *host;
  int port;
  int flags;
  int error;
  bool wanted;   /* there is such a side */
  bool answered; /* ... and its addresses are known, or why not */
  aloop__addresses_t *addresses;
  socklen_t given_size; /* 0: by host */
  struct sockaddr_storage given;
} side_t;

enum { REMOTE, LOCAL, SIDES };

struct opener {
  aloop_t *loop;
  aloop_future_t *future;
  const aloop_datagram_protocol_t *table;
  void *arg;
  aloop__map_t *context; /* of the call */
  side_t sides[SIDES];
  aloop__resolved_fn resolved; /* what a lookup comes back to */
  int error;                   /* of the first pair that failed */
  aloop__unix_file_t *file;    /* of the socket that is being made */
  size_t used;                 /* of the message */
  char message[MESSAGE_MAX];
  aloop_datagram_options_t options;
  char strings[]; /* of the options */
};

/* Addresses of one family: what a socket is made of. size 0: no such side. */
typedef struct name {
  const struct sockaddr *address;
  socklen_t size;
} name_t;

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void release(opener_t *self) {
  for (int i = 0; i < SIDES; i++) {
    if (self->sides[i].lookup != NULL) aloop__resolve_cancel(self->sides[i].lookup);
    aloop__memory_release(self->loop, self->sides[i].addresses);
  }
  aloop__map_unref(self->loop, self->context);
  aloop__memory_release(self->loop, self);
}

/* The future's stop function. */
static void stop(aloop_future_t *future, void *arg) {
  (void)future;
  release(arg);
}

static void fail(opener_t *self, int error, const char *message) {
  aloop_future_t *future = self->future;
  aloop__future_fail(future, error, message != NULL ? "%s" : NULL, message);
  release(self);
}

/* Adds "bind to 127.0.0.1 port 80: address already in use" to the message; what does not fit is cut. `reason`
 * (NULL: that of the code) is more than the code says. */
static void note_failure(opener_t *self, const char *step, name_t name, int error, const char *reason) {
  char text[ALOOP__ADDRESS_TEXT] = "";
  if (self->error == 0) self->error = error;
  if (name.size > 0) {
    aloop__address_text(name.address, name.size, text);
    aloop__future_add_attempt(self->future, name.address, name.size, error);
  }
  if (self->used >= MESSAGE_MAX) return;
  int n =
      snprintf(self->message + self->used, MESSAGE_MAX - self->used, "%s%s%s%s: %s", self->used > 0 ? "; " : "",
               step, name.size > 0 ? " " : "", text, reason != NULL ? reason : aloop_strerror(error));
  self->used += n > 0 ? (size_t)n : 0;
}

/* ---- Sockets --------------------------------------------------------------------------------------------- */

static int set_on(int fd, int level, int option) {
  int on = 1;
  return setsockopt(fd, level, option, &on, sizeof on) < 0 ? -errno : 0;
}

static int set_options(const aloop_datagram_options_t *options, int fd) {
  int rc = 0;
#ifdef SO_REUSEPORT
  if (options->reuse_port) rc = set_on(fd, SOL_SOCKET, SO_REUSEPORT);
#else
  if (options->reuse_port) rc = ALOOP_ENOTSUP;
#endif
  if (rc == 0 && options->allow_broadcast) rc = set_on(fd, SOL_SOCKET, SO_BROADCAST);
#ifdef SO_NOSIGPIPE
  set_on(fd, SOL_SOCKET, SO_NOSIGPIPE);
#endif
  return rc;
}

static void close_socket(opener_t *self, int fd) {
  aloop__unix_file_drop(self->loop, &self->file);
  close(fd);
}

static int bind_to(opener_t *self, int fd, name_t local, const char **reason) {
  aloop__unix_name_t name;
  if (!aloop__unix_name_set(&name, local.address, local.size))
    return bind(fd, local.address, local.size) < 0 ? -errno : 0;
  return aloop__unix_bind(self->loop, fd, &name, self->options.mode,
                          self->options.cleanup >= 0 ? &self->file : NULL, reason);
}

static int connect_to(int fd, name_t remote) {
  int rc;
  do rc = connect(fd, remote.address, remote.size);
  while (rc < 0 && errno == EINTR);
  return rc < 0 ? -errno : 0;
}

/* Binds and connects. Returns 0, or a code that has been noted. */
static int name_socket(opener_t *self, int fd, name_t local, name_t remote) {
  const char *reason = NULL;
  int rc = local.size > 0 ? bind_to(self, fd, local, &reason) : 0;
  if (rc < 0) {
    note_failure(self, "bind to", local, rc, reason);
    return rc;
  }
  rc = remote.size > 0 && !self->options.allow_broadcast ? connect_to(fd, remote) : 0;
  if (rc < 0) note_failure(self, "connect to", remote, rc, NULL);
  return rc;
}

/* Returns a socket, or a code that has been noted. */
static int open_socket(opener_t *self, int family, name_t local, name_t remote) {
  aloop__address_t kind = {.type = SOCK_DGRAM, .protocol = self->options.proto};
  name_t none = {NULL, 0};
  kind.as.any.sa_family = (sa_family_t)family;
  int fd = aloop__address_socket(&kind);
  if (fd < 0) {
    note_failure(self, "make a socket", remote.size > 0 ? remote : local, fd, NULL);
    return fd;
  }
  int rc = set_options(&self->options, fd);
  if (rc < 0)
    note_failure(self, "set the options of a socket", none, rc, NULL);
  else
    rc = name_socket(self, fd, local, remote);
  if (rc == 0) return fd;
  close_socket(self, fd);
  return rc;
}

/* ---- From addresses to an endpoint ----------------------------------------------------------------------- */

static size_t count_of(const side_t *side) {
  if (!side->wanted) return 1; /* none, once */
  if (side->given_size > 0) return 1;
  return side->addresses != NULL ? side->addresses->count : 0;
}

static name_t name_of(const side_t *side, size_t index) {
  if (!side->wanted) return (name_t){NULL, 0};
  if (side->given_size > 0)
    return (name_t){(const struct sockaddr *)(const void *)&side->given, side->given_size};
  const aloop__address_t *address = &side->addresses->list[index];
  return (name_t){&address->as.any, address->size};
}

static bool fits(name_t a, name_t b) {
  return a.size == 0 || b.size == 0 || a.address->sa_family == b.address->sa_family;
}

static uint16_t flags_of(const aloop_datagram_options_t *options, int family, bool connected) {
  int flags = connected ? ALOOP__DGRAM_CONNECTED : 0;
  if (family == AF_UNIX) return (uint16_t)(flags | ALOOP__DGRAM_LOCAL);
  if (options->want_local) flags |= ALOOP__DGRAM_WANT_LOCAL;
  if (options->want_ecn) flags |= ALOOP__DGRAM_WANT_ECN;
  if (options->want_segments) flags |= ALOOP__DGRAM_WANT_SEGMENTS;
  return (uint16_t)flags;
}

static void succeed(opener_t *self, int fd, int family, name_t remote) {
  bool connected = remote.size > 0 && !self->options.allow_broadcast;
  aloop_datagram_t *endpoint =
      aloop__datagram_new(self->loop, fd, flags_of(&self->options, family, connected), remote.address,
                          remote.size, self->table, self->arg, self->future, ORIGIN);
  if (endpoint != NULL) {
    endpoint->file = self->file;
    release(self);
    return;
  }
  close_socket(self, fd);
  fail(self, ALOOP_ENOMEM, NULL);
}

/* Every pair of one family, until one works. */
static void open_one(opener_t *self) {
  const side_t *remotes = &self->sides[REMOTE], *locals = &self->sides[LOCAL];
  for (size_t i = 0; i < count_of(remotes); i++) {
    for (size_t j = 0; j < count_of(locals); j++) {
      name_t remote = name_of(remotes, i), local = name_of(locals, j);
      if (!fits(remote, local)) continue;
      const struct sockaddr *either = remote.size > 0 ? remote.address : local.address;
      int family = either != NULL ? either->sa_family : self->options.family;
      int fd = open_socket(self, family, local, remote);
      if (fd < 0) continue;
      succeed(self, fd, family, remote);
      return;
    }
  }
  if (self->error == 0)
    fail(self, ALOOP_EADDRNOTAVAIL, "the local and the remote host have no addresses of one family");
  else
    fail(self, self->error, self->message);
}

/* ---- Looking up ------------------------------------------------------------------------------------------ */

/* What there is to do after an answer. */
static void go_on(opener_t *self) {
  for (int i = 0; i < SIDES; i++) {
    const side_t *side = &self->sides[i];
    if (!side->wanted || side->error == 0) continue;
    char text[MESSAGE_MAX];
    snprintf(text, sizeof text, "look up %s: %s", side->host != NULL ? side->host : "every interface",
             aloop_strerror(side->error));
    fail(self, side->error, text);
    return;
  }
  for (int i = 0; i < SIDES; i++)
    if (self->sides[i].wanted && !self->sides[i].answered) return;
  open_one(self);
}

static void note_answer(side_t *side, int error, aloop__addresses_t *addresses) {
  side->answered = true;
  side->error = error;
  side->addresses = error == 0 ? addresses : NULL;
}

static void resolved(aloop_t *loop, void *arg, int error, aloop__addresses_t *addresses) {
  side_t *side = arg;
  loop->context = aloop__map_ref(side->opener->context);
  side->lookup = NULL;
  note_answer(side, error, addresses);
  go_on(side->opener);
}

/* False: the resolver's code has ended the future, and the opener is gone. */
static bool ask(opener_t *self, side_t *side) {
  aloop_future_t *future = self->future;
  aloop__addresses_t *addresses = NULL;
  aloop__query_t query = {.future = future,
                          .host = side->host,
                          .port = side->port,
                          .family = self->options.family,
                          .type = SOCK_DGRAM,
                          .protocol = self->options.proto,
                          .flags = side->flags};
  int rc = aloop__resolve(self->loop, &query, &addresses, self->resolved, side, &side->lookup);
  if (aloop_future_done(future)) return false;
  if (rc <= 0) note_answer(side, rc, addresses);
  return true;
}

static void start(opener_t *self) {
  aloop_future_t *future = aloop_future_ref(self->future);
  bool alive = true;
  for (int i = 0; i < SIDES && alive; i++)
    if (self->sides[i].wanted && !self->sides[i].answered) alive = ask(self, &self->sides[i]);
  if (alive) go_on(self);
  aloop_future_unref(future);
}

static void give(side_t *side, const struct sockaddr *address, socklen_t size) {
  side->wanted = side->answered = true;
  side->given_size = size;
  memcpy(&side->given, address, size);
}

static void want(side_t *side, const char *host, int port, int flags) {
  side->wanted = true;
  side->host = host;
  side->port = port;
  side->flags = flags;
}

static opener_t *new_opener(aloop_t *loop, const aloop_datagram_options_t *options) {
  size_t local = options->local_host != NULL ? strlen(options->local_host) + 1 : 0;
  size_t remote = options->remote_host != NULL ? strlen(options->remote_host) + 1 : 0;
  opener_t *self = aloop__memory_zero(loop, sizeof *self + local + remote);
  if (self == NULL) return NULL;
  self->loop = loop;
  self->options = *options;
  self->resolved = resolved;
  self->context = aloop__map_ref(loop->context);
  for (int i = 0; i < SIDES; i++) self->sides[i].opener = self;
  char *local_host = local > 0 ? memcpy(self->strings, options->local_host, local) : NULL;
  char *remote_host = remote > 0 ? memcpy(self->strings + local, options->remote_host, remote) : NULL;
  if (options->remote != NULL)
    give(&self->sides[REMOTE], options->remote, options->remote_size);
  else if (remote > 0)
    want(&self->sides[REMOTE], remote_host, options->remote_port, options->flags);
  if (options->local != NULL)
    give(&self->sides[LOCAL], options->local, options->local_size);
  else if (local > 0 || options->local_port > 0 || options->bind_any)
    want(&self->sides[LOCAL], local_host, options->local_port, options->flags | AI_PASSIVE);
  return self;
}

static aloop_future_t *open_hosts(aloop_t *loop, const aloop_datagram_protocol_t *table, void *arg,
                                  const aloop_datagram_options_t *options) {
  aloop_future_t *future = aloop__future_new(loop, ORIGIN);
  if (future == NULL || aloop_future_done(future)) return future;
  opener_t *self = new_opener(loop, options);
  if (self == NULL) {
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  self->future = future;
  self->table = table;
  self->arg = arg;
  aloop__future_set_operation(future, stop, self);
  start(self);
  return future;
}

/* ---- Descriptors of the caller --------------------------------------------------------------------------- */

static int check_descriptor(const aloop_t *loop, int fd, const char **reason) {
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) {
    *reason = errno == ENOTSOCK ? "the descriptor is not a socket" : "the descriptor is not open";
    return -errno;
  }
  if (type != SOCK_DGRAM) {
    *reason = "the descriptor is not a datagram socket";
    return ALOOP_EINVAL;
  }
  if (aloop__watch_find(loop, fd) == NULL) return 0;
  *reason = "the descriptor is in use by this loop: another endpoint has it, or add_reader or add_writer";
  return ALOOP_EBUSY;
}

static int family_of(int fd) {
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  return getsockname(fd, (struct sockaddr *)(void *)&name, &size) == 0 ? name.ss_family : AF_UNSPEC;
}

static aloop_future_t *open_descriptor(aloop_t *loop, const aloop_datagram_protocol_t *table, void *arg,
                                       const aloop_datagram_options_t *options) {
  const char *reason = NULL;
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  struct sockaddr *address = (struct sockaddr *)(void *)&peer;
  aloop_future_t *future = aloop__future_new(loop, ORIGIN);
  if (future == NULL || aloop_future_done(future)) return future;
  int rc = check_descriptor(loop, options->fd, &reason);
  if (rc < 0) {
    aloop__misuse(loop, rc, reason);
    aloop__future_fail(future, rc, "fd %d: %s", options->fd, reason);
    return future;
  }
  if (getpeername(options->fd, address, &size) < 0) address = NULL;
  uint16_t flags = flags_of(options, family_of(options->fd), address != NULL);
  if (aloop__datagram_new(loop, options->fd, flags | ALOOP__DGRAM_BORROWED, address, size, table, arg, future,
                          ORIGIN) == NULL)
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
  return future;
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

static bool is_address(const struct sockaddr *address, socklen_t size) {
  return size >= sizeof address->sa_family && size <= sizeof(struct sockaddr_storage);
}

static bool is_family(int family, const struct sockaddr *address) {
  return family == AF_UNSPEC || address == NULL || address->sa_family == family;
}

/* Why the sides cannot be used, or NULL. */
static const char *fault_of_sides(const aloop_datagram_options_t *options) {
  if (options->local != NULL && (options->local_host != NULL || options->local_port != 0 || options->bind_any))
    return "set either options.local or local_host, local_port and bind_any";
  if (options->remote != NULL && (options->remote_host != NULL || options->remote_port != 0))
    return "set either options.remote or remote_host and remote_port";
  if (options->local != NULL && !is_address(options->local, options->local_size))
    return "options.local_size does not fit an address";
  if (options->remote != NULL && !is_address(options->remote, options->remote_size))
    return "options.remote_size does not fit an address";
  if (options->local_port < 0 || options->local_port > 65535) return "options.local_port is not in 0..65535";
  if (options->remote_host == NULL && options->remote_port != 0)
    return "a remote port needs a host: set options.remote_host";
  if (options->remote_host != NULL && (options->remote_port < 1 || options->remote_port > 65535))
    return "options.remote_port is not in 1..65535";
  if ((options->remote_host != NULL && options->remote_host[0] == '\0') ||
      (options->local_host != NULL && options->local_host[0] == '\0'))
    return "a host is empty; for every interface set bind_any";
  if (!is_family(options->family, options->local) || !is_family(options->family, options->remote))
    return "options.family is not that of the address";
  return NULL;
}

/* Why the paths cannot be used, or NULL. */
static const char *fault_of_paths(const aloop_datagram_options_t *options) {
  if (options->local_path != NULL && options->local != NULL)
    return "set either options.local_path or options.local";
  if (options->remote_path != NULL && options->remote != NULL)
    return "set either options.remote_path or options.remote";
  if ((options->local_path == NULL && options->local_path_size > 0) ||
      (options->remote_path == NULL && options->remote_path_size > 0))
    return "the size of a path needs the path";
  if ((options->mode & ~(mode_t)07777) != 0) return "options.mode has bits that are no permissions";
  bool abstract = options->local_path != NULL && options->local_path[0] == '\0';
  if (options->mode != 0 && (options->local_path == NULL || abstract))
    return "options.mode is for the file of options.local_path";
  return NULL;
}

static bool has_sides(const aloop_datagram_options_t *options) {
  return options->local != NULL || options->local_host != NULL || options->local_port != 0 ||
         options->bind_any || options->remote != NULL || options->remote_host != NULL;
}

/* Why the options cannot be used, or NULL. */
static const char *fault_of(const aloop_datagram_options_t *options) {
  if (options->reuse_address)
    return "options.reuse_address would let other programs take this one's datagrams; reuse_port is safe";
  if (options->fd > 0 && (has_sides(options) || options->family != AF_UNSPEC))
    return "a descriptor has its addresses and its family: unset options.fd, or those";
  if (options->fd > 0 && (options->reuse_port || options->allow_broadcast))
    return "options of a descriptor are set by its owner: unset reuse_port and allow_broadcast";
  return fault_of_sides(options);
}

/* A path becomes an address. False: it cannot, and *refused says why. */
static bool resolve_path(aloop_t *loop, const char *path, size_t path_size, aloop__unix_name_t *name,
                         const struct sockaddr **address, socklen_t *size, aloop_future_t **refused) {
  const char *reason = NULL;
  if (path == NULL) return true;
  int rc = aloop__unix_name(name, path, path_size, &reason);
  if (rc < 0) {
    *refused = aloop__unix_refused(loop, ORIGIN, rc, reason, aloop__unix_path_size(path, path_size));
    return false;
  }
  *address = (const struct sockaddr *)(const void *)&name->address;
  *size = name->size;
  return true;
}

aloop_future_t *aloop_create_datagram_endpoint(aloop_t *loop, const aloop_datagram_protocol_t *protocol,
                                               void *arg, const aloop_datagram_options_t *options) {
  aloop_datagram_options_t copy;
  aloop__unix_name_t local, remote;
  aloop_future_t *refused = NULL;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__datagram_check_protocol(protocol) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL,
                                 "an endpoint needs a protocol table with its size set");
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL,
                                 "set options.size to sizeof(aloop_datagram_options_t)");
  const char *fault = fault_of_paths(&copy);
  if (fault != NULL) return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL, fault);
  if (!resolve_path(loop, copy.local_path, copy.local_path_size, &local, &copy.local, &copy.local_size,
                    &refused) ||
      !resolve_path(loop, copy.remote_path, copy.remote_path_size, &remote, &copy.remote, &copy.remote_size,
                    &refused))
    return refused;
  fault = fault_of(&copy);
  if (fault != NULL) return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL, fault);
  if (!has_sides(&copy) && copy.family == AF_UNSPEC) return open_descriptor(loop, protocol, arg, &copy);
  return open_hosts(loop, protocol, arg, &copy);
}
