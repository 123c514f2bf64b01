/* SPDX-License-Identifier: MIT
 *
 * create_connection: from a host and a port to a transport, or to the reasons why not.
 *
 * A connector asks for addresses and tries them by RFC 8305 ("happy eyeballs"). For a name it asks for the two
 * families apart, because one answer may be long in coming: IPv6 addresses are tried as soon as they are known,
 * IPv4 ones when IPv6 was answered too, or 50 ms later. A local host, if one is wanted, has to be known first.
 * Which address comes next is for candidates.c to say. Each address gets a head start (250 ms by default)
 * before the next is tried beside it, and none once it has failed. The connector is the operation behind the
 * caller's future: cancelling it, its timeout and its failure all end in `release`, which leaves no descriptor,
 * watch, timer or lookup behind.
 *
 * Trying one address is an attempt: a socket on its way, with a watch for writability. The first that succeeds
 * ends the others; one that succeeds in the same moment is closed like the rest. Every failed attempt is noted
 * on the future, so that the caller learns about all of them and not just one.
 *
 * The connect fails when every question is answered and every address has failed; a name that only one family
 * does not know is no failure.
 *
 * When a socket is connected, the transport takes over the future and the connector is gone. A descriptor of
 * the caller's skips all of this. It is left as it is until connection_made is about to be called (stream.c):
 * whatever goes wrong before, it is still the caller's, as it was.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/candidates.h"
#include "net/layer.h"
#include "net/resolve.h"
#include "net/stream.h"
#include "net/unix.h"

#define ORIGIN "aloop_create_connection"

enum { MESSAGE_MAX = 1024 };

#define HEAD_START ALOOP_MILLIS(250)
#define RESOLUTION_DELAY ALOOP_MILLIS(50)

typedef struct connector connector_t;

/* What is asked from the resolver. */
typedef struct question {
  connector_t *connector;
  aloop__lookup_t *lookup; /* while it is under way */
  const char *host;
  int family;
  int error;   /* why there is no answer */
  bool wanted; /* not answered yet */
} question_t;

/* All families, or IPv6 where IPv4 has a question of its own. */
enum { REMOTE, REMOTE_V4, LOCAL, QUESTIONS };

struct connector {
  aloop_t *loop;
  aloop_future_t *future;
  const aloop_protocol_t *table;
  void *arg;
  aloop__map_t *context; /* of the call */
  question_t questions[QUESTIONS];
  const aloop__watch_ops_t *attempt_ops; /* what an attempt comes back to */
  aloop_callback_fn go_on;               /* ... and the end of a head start */
  aloop__candidates_t candidates;
  aloop__addresses_t *local;
  aloop__list_t attempts; /* under way */
  aloop_handle_t timer;   /* for everything */
  aloop_handle_t pause;   /* until the next attempt */
  int error;              /* of the first failed attempt */
  aloop__layer_t layer;
  aloop_connect_options_t options;
  char strings[]; /* of the options */
};

typedef struct attempt {
  aloop__watch_t watch;
  aloop__list_t link;
  connector_t *connector;
  aloop__address_t address;
  int fd;
} attempt_t;

/* ---- Ends ------------------------------------------------------------------------------------------------ */

/* Frees the attempt. Its socket is the caller's then. */
static int end_attempt(attempt_t *attempt) {
  aloop_t *loop = attempt->connector->loop;
  int fd = attempt->fd;
  aloop__watch_stop(loop, &attempt->watch);
  aloop__list_remove(&attempt->link);
  aloop__memory_release(loop, attempt);
  return fd;
}

static void release(connector_t *self) {
  aloop_t *loop = self->loop;
  while (!aloop__list_empty(&self->attempts))
    close(end_attempt(ALOOP_CONTAINER_OF(self->attempts.next, attempt_t, link)));
  for (int i = 0; i < QUESTIONS; i++)
    if (self->questions[i].lookup != NULL) aloop__resolve_cancel(self->questions[i].lookup);
  aloop_cancel(loop, &self->timer);
  aloop_cancel(loop, &self->pause);
  aloop__candidates_clear(loop, &self->candidates);
  aloop__layer_drop(&self->layer);
  aloop__memory_release(loop, self->local);
  aloop__map_unref(loop, self->context);
  aloop__memory_release(loop, self);
}

/* The future's stop function. */
static void stop(aloop_future_t *future, void *arg) {
  (void)future;
  release(arg);
}

static void fail(connector_t *self, int error, const char *message) {
  aloop_future_t *future = self->future;
  aloop__future_set_operation(future, NULL, NULL);
  release(self);
  aloop_future_set_error(future, error, message);
}

/* Adds "connect to 127.0.0.1 port 80: connection refused" for each attempt; what does not fit is cut. */
static void describe_attempts(const connector_t *self, char *text, size_t used) {
  aloop_attempt_t attempt;
  char address[ALOOP__ADDRESS_TEXT];
  const char *from = self->options.local_host;
  for (size_t i = 0; used < MESSAGE_MAX && aloop_future_attempt(self->future, i, &attempt) == 0; i++) {
    aloop__address_text((const struct sockaddr *)(const void *)&attempt.address, attempt.address_size, address);
    int n = snprintf(text + used, MESSAGE_MAX - used, "%sconnect to %s%s%s: %s", used > 0 ? "; " : "", address,
                     from != NULL ? " from " : "", from != NULL ? from : "", aloop_strerror(attempt.error));
    used += n > 0 ? (size_t)n : 0;
  }
}

static void fail_with_attempts(connector_t *self) {
  char text[MESSAGE_MAX] = "";
  describe_attempts(self, text, 0);
  fail(self, self->error, text[0] != '\0' ? text : NULL); /* none could be noted when memory was short */
}

static void note_failure(connector_t *self, const aloop__address_t *address, int error) {
  if (self->error == 0) self->error = error;
  aloop__future_add_attempt(self->future, &address->as.any, address->size, error);
}

static void timed_out(aloop_t *loop, void *arg) {
  (void)loop;
  connector_t *self = arg;
  char text[MESSAGE_MAX];
  for (aloop__list_t *at = self->attempts.next; at != &self->attempts; at = at->next)
    note_failure(self, &ALOOP_CONTAINER_OF(at, attempt_t, link)->address, ALOOP_ETIMEDOUT);
  int n = snprintf(text, sizeof text, "no connection to %s port %d after %" PRId64 " ms", self->options.host,
                   self->options.port, self->options.timeout / 1000000);
  if (n > 0) describe_attempts(self, text, (size_t)n);
  fail(self, ALOOP_ETIMEDOUT, text);
}

/* ---- From a connected socket to a transport -------------------------------------------------------------- */

/* The timeout for everything is one for the TLS handshake, too. */
static void limit_handshake(connector_t *self) {
  const int64_t usual = ALOOP_SECONDS(60);
  int64_t most = self->layer.handshake_timeout > 0 ? self->layer.handshake_timeout : usual;
  if (self->options.timeout <= 0 || self->layer.context == NULL) return;
  int64_t left = aloop_handle_when(self->loop, self->timer) - aloop__loop_time(self->loop);
  self->layer.handshake_timeout = left < 1 ? 1 : left < most ? left : most;
}

static void succeed(connector_t *self, int fd) {
  aloop__stream_set_nodelay(fd);
  limit_handshake(self);
  if (aloop__stream_hand_over(self->loop, NULL, fd, self->table, self->arg, self->future, &self->layer,
                              ORIGIN) != NULL) {
    release(self);
    return;
  }
  close(fd);
  fail(self, ALOOP_ENOMEM, NULL);
}

/* ---- Attempts -------------------------------------------------------------------------------------------- */

/* Without a port of its own a connection shares local ports with all connections to other places, but only
 * if the kernel may choose as late as at connect. */
static void choose_port_late(int fd) {
#ifdef IP_BIND_ADDRESS_NO_PORT
  int on = 1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
#else
  (void)fd;
#endif
}

/* Binds to the first local address of the family that works. */
static int bind_local(const connector_t *self, int fd, int family) {
  int error = ALOOP_EADDRNOTAVAIL;
  if (self->local == NULL) return 0;
  if (self->options.local_port == 0) choose_port_late(fd);
  for (size_t i = 0; i < self->local->count; i++) {
    const aloop__address_t *address = &self->local->list[i];
    if (address->as.any.sa_family != family) continue;
    if (bind(fd, &address->as.any, address->size) == 0) return 0;
    error = -errno;
  }
  return error;
}

/* Returns 0 with the connect under way, 1 if it is connected, or an error. */
static int connect_socket(const connector_t *self, int fd, const aloop__address_t *address) {
  int rc = bind_local(self, fd, address->as.any.sa_family);
  if (rc < 0) return rc;
  if (connect(fd, &address->as.any, address->size) == 0) return 1;
  return errno == EINPROGRESS || errno == EINTR ? 0 : -errno;
}

static int watch_attempt(connector_t *self, int fd, const aloop__address_t *address) {
  attempt_t *attempt = aloop__memory_zero(self->loop, sizeof *attempt);
  if (attempt == NULL) return ALOOP_ENOMEM;
  attempt->connector = self;
  attempt->address = *address;
  attempt->fd = fd;
  attempt->watch.fd = -1;
  aloop__list_append(&self->attempts, &attempt->link);
  int rc = aloop__watch_claim(self->loop, &attempt->watch, fd, self->attempt_ops);
  if (rc == 0) rc = aloop__watch_set(self->loop, &attempt->watch, ALOOP_WRITABLE);
  if (rc < 0) end_attempt(attempt);
  return rc;
}

/* Returns 0 with an attempt under way, 1 with a connected socket, or an error. */
static int try_address(connector_t *self, const aloop__address_t *address, int *connected_fd) {
  int fd = aloop__address_socket(address);
  if (fd < 0) return fd;
  int rc = connect_socket(self, fd, address);
  if (rc == 0) rc = watch_attempt(self, fd, address);
  if (rc < 0) close(fd);
  if (rc == 1) *connected_fd = fd;
  return rc;
}

/* How long the last attempt has for itself; less than 0: until it has failed. */
static int64_t head_start(const connector_t *self) {
  int64_t delay = self->options.happy_eyeballs_delay;
  return delay != 0 ? delay : HEAD_START;
}

/* Goes on after `delay`. False: out of memory, and there is nothing to wait for. */
static bool hold_back(connector_t *self, int64_t delay) {
  aloop_cancel(self->loop, &self->pause);
  if (delay < 0) return true;
  self->pause = aloop_call_later_from(self->loop, delay, self->go_on, self, ORIGIN);
  return aloop_handle_error(self->pause) == 0;
}

static bool is_asking(const connector_t *self) {
  return self->questions[REMOTE].wanted || self->questions[REMOTE_V4].wanted;
}

/* How much an error tells: that one family has no address says least. */
static int weight_of(int error) {
  if (error == ALOOP_EAI_ADDRFAMILY || error == ALOOP_EAI_NODATA || error == ALOOP_EAI_FAMILY) return 1;
  return error == ALOOP_EAI_NONAME ? 2 : error < 0 ? 3 : 0;
}

static void lookup_failed(connector_t *self, const question_t *question) {
  char text[MESSAGE_MAX];
  snprintf(text, sizeof text, "look up %s: %s", question->host != NULL ? question->host : "the local address",
           aloop_strerror(question->error));
  fail(self, question->error, text);
}

/* Nothing is left to wait for. */
static void give_up(connector_t *self) {
  const question_t *first = &self->questions[REMOTE], *second = &self->questions[REMOTE_V4];
  if (self->error < 0)
    fail_with_attempts(self);
  else
    lookup_failed(self, weight_of(second->error) > weight_of(first->error) ? second : first);
}

static void try_next(connector_t *self) {
  aloop__address_t address;
  aloop_cancel(self->loop, &self->pause);
  while (aloop__candidates_next(&self->candidates, &address)) {
    int fd;
    int rc = try_address(self, &address, &fd);
    if (rc == 1) {
      succeed(self, fd);
      return;
    }
    if (rc == 0 && hold_back(self, head_start(self))) return;
    if (rc < 0) note_failure(self, &address, rc);
  }
  if (aloop__list_empty(&self->attempts) && !is_asking(self)) give_up(self);
}

static void head_start_is_over(aloop_t *loop, void *arg) {
  (void)loop;
  connector_t *self = arg;
  self->pause = (aloop_handle_t){0};
  try_next(self);
}

static void connected(aloop_t *loop, void *arg) {
  attempt_t *attempt = ALOOP_CONTAINER_OF(arg, attempt_t, watch);
  connector_t *self = attempt->connector;
  int error = 0;
  socklen_t size = sizeof error;
  loop->context = aloop__map_ref(self->context);
  if (getsockopt(attempt->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0) error = errno;
  if (error == 0) {
    succeed(self, end_attempt(attempt));
    return;
  }
  note_failure(self, &attempt->address, -error);
  close(end_attempt(attempt));
  try_next(self);
}

static const aloop__watch_ops_t attempt_ops = {.name = "connect", .readable = connected, .writable = connected};

/* ---- Questions ------------------------------------------------------------------------------------------- */

/* The answer to one question is there. Nothing is begun here: another may be asked yet. */
static void note_answer(connector_t *self, question_t *question, int error, aloop__addresses_t *addresses) {
  question->wanted = false;
  if (error == 0 && question == &self->questions[LOCAL]) {
    self->local = addresses;
    return;
  }
  if (error == 0) {
    error = aloop__candidates_add(self->loop, &self->candidates, addresses);
    aloop__memory_release(self->loop, addresses);
  }
  question->error = error;
}

/* What there is to do after an answer. */
static void go_on(connector_t *self) {
  const question_t *local = &self->questions[LOCAL];
  if (local->error < 0) {
    lookup_failed(self, local);
    return;
  }
  if (local->wanted) return;
  bool none_tried = self->candidates.given == 0;
  bool held_back = aloop_handle_pending(self->loop, self->pause);
  if (none_tried && self->questions[REMOTE].wanted && aloop__candidates_left(&self->candidates))
    held_back = held_back || hold_back(self, RESOLUTION_DELAY);
  else if (none_tried)
    held_back = false;
  if (!held_back) try_next(self);
}

static void answered(aloop_t *loop, void *arg, int error, aloop__addresses_t *addresses) {
  question_t *question = arg;
  connector_t *self = question->connector;
  loop->context = aloop__map_ref(self->context);
  question->lookup = NULL;
  note_answer(self, question, error, addresses);
  go_on(self);
}

/* False: the resolver's code has ended the future, and the connector is gone. */
static bool ask(connector_t *self, question_t *question, int port) {
  const aloop_connect_options_t *options = &self->options;
  aloop_future_t *future = self->future;
  aloop__addresses_t *addresses = NULL;
  aloop__query_t query = {.future = future,
                          .host = question->host,
                          .port = port,
                          .family = question->family,
                          .type = SOCK_STREAM,
                          .protocol = options->proto != 0 ? options->proto : IPPROTO_TCP,
                          .flags = options->flags};
  int rc = aloop__resolve(self->loop, &query, &addresses, answered, question, &question->lookup);
  if (aloop_future_done(future)) return false;
  if (rc <= 0) note_answer(self, question, rc, addresses);
  return true;
}

static void want(connector_t *self, int index, const char *host, int family) {
  self->questions[index] = (question_t){.connector = self, .host = host, .family = family, .wanted = true};
}

/* Numeric hosts have one family, and mapped addresses are for hosts that have no others. */
static bool asks_twice(const aloop_connect_options_t *options) {
  bool numeric =
      options->host[strspn(options->host, "0123456789.")] == '\0' || strchr(options->host, ':') != NULL;
  return options->family == AF_UNSPEC && options->happy_eyeballs_delay >= 0 && !numeric &&
         (options->flags & (AI_V4MAPPED | AI_NUMERICHOST)) == 0;
}

static void start(connector_t *self) {
  const aloop_connect_options_t *options = &self->options;
  bool twice = asks_twice(options);
  int interleave = options->interleave;
  if (interleave == 0 && head_start(self) >= 0) interleave = 1;
  aloop__candidates_init(&self->candidates, interleave, twice ? AF_INET6 : AF_UNSPEC);
  want(self, REMOTE, options->host, twice ? AF_INET6 : options->family);
  if (twice) want(self, REMOTE_V4, options->host, AF_INET);
  if (options->local_host != NULL || options->local_port != 0)
    want(self, LOCAL, options->local_host, options->family);
  for (int i = 0; i < QUESTIONS; i++)
    if (self->questions[i].wanted &&
        !ask(self, &self->questions[i], i == LOCAL ? options->local_port : options->port))
      return;
  go_on(self);
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

static aloop__layer_t layer_of(const aloop_connect_options_t *options) {
  const char *name = options->server_hostname;
  if (name == NULL && options->tls != NULL) name = options->host;
  return (aloop__layer_t){.context = options->tls,
                          .server_hostname = name,
                          .handshake_timeout = options->tls_handshake_timeout,
                          .shutdown_timeout = options->tls_shutdown_timeout};
}

static const char *fault_of_layer(const aloop_connect_options_t *options) {
  aloop__layer_t layer = layer_of(options);
  return aloop__layer_fault(&layer, false);
}

/* Why the options cannot be used, or NULL. */
static const char *fault_of(const aloop_connect_options_t *options) {
  if (options->host == NULL) {
    if (options->port != 0) return "a port needs a host: set options.host";
    if (options->local_host != NULL || options->local_port != 0)
      return "a connected fd has its local address: unset local_host and local_port";
    return fault_of_layer(options);
  }
  if (options->fd > 0) return "set either options.host or options.fd, not both";
  if (options->host[0] == '\0') return "options.host is empty";
  if (options->port < 1 || options->port > 65535) return "options.port is not in 1..65535";
  if (options->local_port < 0 || options->local_port > 65535) return "options.local_port is not in 0..65535";
  if (options->family != AF_UNSPEC && options->family != AF_INET && options->family != AF_INET6)
    return "options.family is AF_INET, AF_INET6 or 0";
  if (options->timeout < ALOOP_FOREVER) return "options.timeout is negative";
  if (options->happy_eyeballs_delay < ALOOP_FOREVER) return "options.happy_eyeballs_delay is negative";
  if (options->interleave < 0) return "options.interleave is negative";
  return fault_of_layer(options);
}

static connector_t *new_connector(aloop_t *loop, const aloop_connect_options_t *options) {
  size_t host = strlen(options->host) + 1;
  size_t local = options->local_host != NULL ? strlen(options->local_host) + 1 : 0;
  aloop__layer_t layer = layer_of(options);
  size_t name = layer.server_hostname != NULL ? strlen(layer.server_hostname) + 1 : 0;
  connector_t *self = aloop__memory_zero(loop, sizeof *self + host + local + name);
  if (self == NULL) return NULL;
  self->loop = loop;
  self->options = *options;
  self->options.host = memcpy(self->strings, options->host, host);
  if (local > 0) self->options.local_host = memcpy(self->strings + host, options->local_host, local);
  if (name > 0) layer.server_hostname = memcpy(self->strings + host + local, layer.server_hostname, name);
  self->layer = aloop__layer_keep(&layer);
  self->context = aloop__map_ref(loop->context);
  self->attempt_ops = &attempt_ops;
  self->go_on = head_start_is_over;
  aloop__list_init(&self->attempts);
  return self;
}

static int start_timer(connector_t *self) {
  if (self->options.timeout <= 0) return 0;
  self->timer = aloop_call_later_from(self->loop, self->options.timeout, timed_out, self, ORIGIN);
  return aloop_handle_error(self->timer);
}

static aloop_future_t *connect_host(aloop_t *loop, const aloop_protocol_t *table, void *arg,
                                    const aloop_connect_options_t *options) {
  aloop_future_t *future = aloop__future_new(loop, ORIGIN);
  if (future == NULL || aloop_future_done(future)) return future;
  connector_t *self = new_connector(loop, options);
  if (self == NULL) {
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  self->future = future;
  self->table = table;
  self->arg = arg;
  aloop__future_set_operation(future, stop, self);
  int rc = start_timer(self);
  if (rc < 0)
    fail(self, rc, NULL);
  else
    start(self);
  return future;
}

/* Why a descriptor cannot become a transport: a code, with a reason. */
static int check_connected(const aloop_t *loop, const aloop__driver_t *driver, int fd, const char **reason) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  int rc = aloop__stream_check_descriptor(loop, driver, fd, reason);
  if (rc < 0 || getpeername(fd, (struct sockaddr *)(void *)&peer, &size) == 0) return rc;
  *reason = "the socket is not connected: connect it, or give a host and a port";
  return -errno;
}

aloop_future_t *aloop__connect_fd(aloop_t *loop, const aloop__driver_t *driver, const aloop_protocol_t *table,
                                  void *arg, int fd, const aloop__layer_t *layer, const char *origin) {
  const char *reason = NULL;
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (future == NULL || aloop_future_done(future)) return future;
  int rc = check_connected(loop, driver, fd, &reason);
  if (rc < 0) {
    if (rc != ALOOP_ENOTCONN) aloop__misuse(loop, rc, reason); /* the peer may have been quicker */
    aloop__future_fail(future, rc, "fd %d: %s", fd, reason);
    return future;
  }
  if (driver == NULL) driver = aloop__unix_driver_of(fd);
  aloop_transport_t *transport = aloop__stream_hand_over(loop, driver, fd, table, arg, future, layer, origin);
  if (transport == NULL)
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
  else
    aloop__stream_bottom(transport)->flags |= ALOOP__BORROWED;
  return future;
}

aloop_future_t *aloop_create_connection(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                        const aloop_connect_options_t *options) {
  aloop_connect_options_t copy;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__stream_check_protocol(protocol) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL,
                                 "a connection needs a protocol table with its size set");
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL,
                                 "set options.size to sizeof(aloop_connect_options_t)");
  const char *fault = fault_of(&copy);
  if (fault != NULL) return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL, fault);
  aloop__layer_t layer = layer_of(&copy);
  if (copy.host == NULL) return aloop__connect_fd(loop, NULL, protocol, arg, copy.fd, &layer, ORIGIN);
  return connect_host(loop, protocol, arg, &copy);
}

aloop_future_t *aloop_connect_accepted_socket(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                              int fd, const aloop_accepted_options_t *options) {
  static const char origin[] = "aloop_connect_accepted_socket";
  aloop_accepted_options_t copy = {.size = sizeof copy};
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__stream_check_protocol(protocol) < 0)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL,
                                 "a connection needs a protocol table with its size set");
  if (options != NULL && aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__future_refused(loop, origin, ALOOP_EINVAL,
                                 "set options.size to sizeof(aloop_accepted_options_t)");
  aloop__layer_t layer = {.context = copy.tls,
                          .handshake_timeout = copy.tls_handshake_timeout,
                          .shutdown_timeout = copy.tls_shutdown_timeout};
  const char *fault = aloop__layer_fault(&layer, true);
  if (fault != NULL) return aloop__future_refused(loop, origin, ALOOP_EINVAL, fault);
  return aloop__connect_fd(loop, NULL, protocol, arg, fd, &layer, origin);
}
