/* SPDX-License-Identifier: MIT
 *
 * getaddrinfo and getnameinfo as futures.
 *
 * What is numeric is asked of the C library here and now: it takes a microsecond and no thread. Everything else
 * goes to the loop's resolver, a table that the caller may bring. The default one runs the C library's blocking
 * getaddrinfo as a job in the DNS lane of the loop's default executor, so name servers that do not answer keep
 * nobody waiting but other names. Services by name are found in files, which may block too: they go the same
 * way.
 *
 * A call that is on its way is a future over another one, the resolver's or the job's. The outer one adds the
 * deadline and a message that names what was looked up, and shares the inner one's object with its destructor,
 * because only the resolver knows how its lists are made. Cancelling it, its deadline and the end of the loop
 * all cancel the inner one: a job that waits is taken out of its queue, one that runs is left to itself, and
 * what it finds is freed after it.
 *
 * What a job is given is malloc's memory, as the C library's answer is: a thread that hangs in a name server
 * may outlive the loop and its allocator.
 *
 * Left out: a cache, and any wisdom about /etc/resolv.conf. Both belong into a resolver of the caller's.
 */
#include "net/names.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/address.h"

enum { WHAT_MAX = 200 }; /* what is looked up, in words */

_Static_assert(sizeof((aloop_nameinfo_t){0}.host) >= NI_MAXHOST, "room for any host");
_Static_assert(sizeof((aloop_nameinfo_t){0}.service) >= NI_MAXSERV, "room for any service");

/* ---- The C library --------------------------------------------------------------------------------------- */

int aloop__names_error(int result, int system_error) {
  switch (result) {
  case 0:
    return 0;
#ifdef EAI_ADDRFAMILY
  case EAI_ADDRFAMILY:
    return ALOOP_EAI_ADDRFAMILY;
#endif
  case EAI_AGAIN:
    return ALOOP_EAI_AGAIN;
  case EAI_BADFLAGS:
    return ALOOP_EAI_BADFLAGS;
  case EAI_FAMILY:
    return ALOOP_EAI_FAMILY;
  case EAI_MEMORY:
    return ALOOP_EAI_MEMORY;
#if defined(EAI_NODATA) && EAI_NODATA != EAI_NONAME
  case EAI_NODATA:
    return ALOOP_EAI_NODATA;
#endif
  case EAI_NONAME:
    return ALOOP_EAI_NONAME;
#ifdef EAI_OVERFLOW
  case EAI_OVERFLOW:
    return ALOOP_EAI_OVERFLOW;
#endif
  case EAI_SERVICE:
    return ALOOP_EAI_SERVICE;
  case EAI_SOCKTYPE:
    return ALOOP_EAI_SOCKTYPE;
  case EAI_SYSTEM:
    return system_error > 0 ? -system_error : ALOOP_EAI_FAIL;
  default:
    return ALOOP_EAI_FAIL;
  }
}

static int find_addresses(const char *host, const char *service, const struct addrinfo *hints,
                          struct addrinfo **list) {
  struct addrinfo *found = NULL;
  int result = getaddrinfo(host, service, hints, &found);
  if (result != 0) return aloop__names_error(result, errno);
  *list = found;
  return 0;
}

static void free_addresses(void *list) {
  if (list != NULL) freeaddrinfo(list); /* some C libraries do not accept NULL */
}

static int find_names(const struct sockaddr *address, socklen_t size, int flags, aloop_nameinfo_t *names) {
  int result =
      getnameinfo(address, size, names->host, sizeof names->host, names->service, sizeof names->service, flags);
  return aloop__names_error(result, errno);
}

/* The parts of the caller's hints that mean something. */
static struct addrinfo essence_of(const struct addrinfo *hints) {
  struct addrinfo copy;
  memset(&copy, 0, sizeof copy);
  if (hints == NULL) return copy;
  copy.ai_flags = hints->ai_flags;
  copy.ai_family = hints->ai_family;
  copy.ai_socktype = hints->ai_socktype;
  copy.ai_protocol = hints->ai_protocol;
  return copy;
}

/* ---- Waiting --------------------------------------------------------------------------------------------- */

/* At the head of the block of a future that waits for another one. */
typedef struct waiting {
  aloop__future_extra_t extra;
  aloop_done_fn on_inner;
  int64_t timeout;
  int64_t begun; /* in debug mode, else 0 */
  char what[];
} waiting_t;

static waiting_t *waiting_of(aloop_future_t *outer) {
  return ALOOP_CONTAINER_OF(outer->extra, waiting_t, extra);
}

static aloop_future_t *inner_of(aloop_future_t *outer) {
  return outer->extra->children[0];
}

static void stop_timer(aloop_future_t *outer) {
  aloop_cancel(outer->object.loop, &outer->timer);
}

static void stop_waiting(aloop_future_t *outer, void *arg) {
  (void)arg;
  stop_timer(outer);
  aloop__future_unwatch(inner_of(outer), waiting_of(outer)->on_inner, outer);
  aloop_future_cancel(inner_of(outer));
}

/* A future that lasts until `on_inner` ends it, which is called once `inner` is done, perhaps at once. Takes
 * over the reference. NULL: out of memory, and `inner` is cancelled. */
static aloop_future_t *wait_on(aloop_future_t *inner, aloop_done_fn on_inner, const char *what) {
  size_t align = sizeof(void *), length = strlen(what) + 1;
  size_t bytes = (sizeof(waiting_t) + length + align - 1) / align * align;
  aloop_future_t *outer = aloop__future_over(inner->object.loop, NULL, bytes, &inner, 1);
  if (outer == NULL) {
    aloop_future_cancel(inner);
    aloop_future_unref(inner);
    return NULL;
  }
  if (aloop_future_done(outer)) return outer;
  memcpy(waiting_of(outer)->what, what, length);
  waiting_of(outer)->on_inner = on_inner;
  if (outer->object.loop->guard & ALOOP__GUARD_DEBUG) waiting_of(outer)->begun = aloop__clock_monotonic();
  if (aloop_future_done(inner)) {
    on_inner(inner, outer);
  } else if (aloop__future_watch(inner, on_inner, outer) < 0) {
    aloop_future_cancel(inner);
    aloop_future_unref(outer);
    return NULL;
  }
  aloop__future_set_operation(outer, stop_waiting, NULL);
  return outer;
}

/* ---- The default resolver -------------------------------------------------------------------------------- */

typedef struct question {
  struct addrinfo *found; /* the answer */
  struct addrinfo hints;
  bool has_hints; /* the C library has defaults of its own */
  const char *host;
  const char *service;
  char strings[];
} question_t;

static void free_question(void *arg) {
  question_t *question = arg;
  free_addresses(question->found);
  free(question);
}

static question_t *new_question(const char *host, const char *service, const struct addrinfo *hints) {
  size_t host_size = host != NULL ? strlen(host) + 1 : 0;
  size_t service_size = service != NULL ? strlen(service) + 1 : 0;
  question_t *question = calloc(1, sizeof *question + host_size + service_size);
  if (question == NULL) return NULL;
  question->hints = essence_of(hints);
  question->has_hints = hints != NULL;
  if (host != NULL) question->host = memcpy(question->strings, host, host_size);
  if (service != NULL) question->service = memcpy(question->strings + host_size, service, service_size);
  return question;
}

/* In a thread. */
static int64_t answer(void *arg) {
  question_t *question = arg;
  const struct addrinfo *hints = question->has_hints ? &question->hints : NULL;
  return find_addresses(question->host, question->service, hints, &question->found);
}

/* Debug mode. */
static void report_if_slow(aloop_future_t *outer) {
  char text[WHAT_MAX + 32];
  aloop_t *loop = outer->object.loop;
  int64_t duration = aloop__clock_monotonic() - waiting_of(outer)->begun;
  if (duration < loop->slow_callback_duration) return;
  snprintf(text, sizeof text, "looking up %.*s was slow", WHAT_MAX, waiting_of(outer)->what);
  aloop_error_context_t context = aloop__report_context(text, 0);
  context.duration = duration;
  aloop__report(loop, &context);
}

/* Takes the list out of the job's answer. */
static void pass_on(aloop_future_t *job, aloop_future_t *outer) {
  question_t *question;
  if (aloop_future_take_ptr(job, &question) < 0) {
    aloop__future_follow(outer, job);
    return;
  }
  struct addrinfo *found = question->found;
  question->found = NULL;
  free_question(question);
  if (!aloop__future_finish_ptr(outer, 0, found, free_addresses)) free_addresses(found);
}

static void on_answer(aloop_future_t *job, void *arg) {
  aloop_future_t *outer = arg;
  aloop__object_ref(&outer->object); /* the exception handler may cancel the lookup and let it go */
  if (waiting_of(outer)->begun != 0) report_if_slow(outer);
  pass_on(job, outer);
  aloop__object_unref(&outer->object);
}

static aloop_future_t *submit(aloop_t *loop, aloop_job_fn fn, void *arg, aloop_destroy_fn destroy) {
  aloop_job_options_t options = {
      .size = sizeof options, .fn = fn, .arg = arg, .destroy = destroy, .lane = ALOOP_LANE_DNS};
  aloop_future_t *job = aloop_submit(loop, NULL, &options);
  if (job == NULL) destroy(arg);
  return job;
}

static aloop_future_t *ask_library(aloop_t *loop, const char *host, const char *service,
                                   const struct addrinfo *hints, void *arg) {
  (void)arg;
  question_t *question = new_question(host, service, hints);
  aloop_future_t *job = question != NULL ? submit(loop, answer, question, free_question) : NULL;
  return job != NULL ? wait_on(job, on_answer, host != NULL ? host : service) : NULL;
}

static const aloop_resolver_t library = {.size = sizeof library, .getaddrinfo = ask_library};

/* ---- The loop's resolver --------------------------------------------------------------------------------- */

/* Made when a resolver is set for the first time. */
typedef struct names_room {
  aloop__room_t room;
  const aloop_resolver_t *resolver;
  void *arg;
} names_room_t;

static void close_room(aloop_t *loop, aloop__room_t *room) {
  aloop__memory_release(loop, ALOOP_CONTAINER_OF(room, names_room_t, room));
}

static names_room_t *room_of(const aloop_t *loop) {
  aloop__room_t *room = loop->rooms[ALOOP__ROOM_NAMES];
  return room != NULL ? ALOOP_CONTAINER_OF(room, names_room_t, room) : NULL;
}

static names_room_t *open_room(aloop_t *loop) {
  names_room_t *room = room_of(loop);
  if (room != NULL) return room;
  room = aloop__memory_zero(loop, sizeof *room);
  if (room == NULL) return NULL;
  room->room.close = close_room;
  loop->rooms[ALOOP__ROOM_NAMES] = &room->room;
  return room;
}

int aloop_set_resolver(aloop_t *loop, const aloop_resolver_t *resolver, void *arg) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (resolver != NULL && (resolver->size < sizeof *resolver || resolver->getaddrinfo == NULL))
    return aloop__misuse(loop, ALOOP_EINVAL, "a resolver has its size set, and a getaddrinfo");
  names_room_t *room = open_room(loop);
  if (room == NULL) return ALOOP_ENOMEM;
  room->resolver = resolver;
  room->arg = arg;
  return 0;
}

const aloop_resolver_t *aloop_get_resolver(const aloop_t *loop, void **arg) {
  if (!aloop__loop_ok(loop)) return &library;
  const names_room_t *room = room_of(loop);
  bool own = room != NULL && room->resolver != NULL;
  if (arg != NULL) *arg = own ? room->arg : NULL;
  return own ? room->resolver : &library;
}

aloop_future_t *aloop__names_ask(aloop_t *loop, const char *host, const char *service,
                                 const struct addrinfo *hints) {
  static const struct addrinfo none;
  void *arg;
  const aloop_resolver_t *resolver = aloop_get_resolver(loop, &arg);
  if (resolver != &library && hints == NULL) hints = &none;
  aloop_future_t *future = resolver->getaddrinfo(loop, host, service, hints, arg);
  if (future == NULL || future->object.loop == loop) return future;
  aloop_future_unref(future);
  return aloop__future_refused(loop, NULL, ALOOP_EOTHERLOOP,
                               "a resolver returns a future of the loop that it is asked by");
}

/* ---- Public calls ---------------------------------------------------------------------------------------- */

/* The end of a call. */
static void on_done(aloop_future_t *inner, void *arg) {
  aloop_future_t *outer = arg;
  int64_t rc = aloop_future_result(inner);
  stop_timer(outer);
  if (rc >= 0)
    aloop__future_follow(outer, inner);
  else
    aloop__future_fail(outer, (int)rc, "look up %s: %s", waiting_of(outer)->what, aloop_future_message(inner));
}

static void on_late(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_future_t *outer = arg;
  aloop_future_t *inner = inner_of(outer);
  aloop__future_unwatch(inner, on_done, outer);
  aloop_future_ref(outer); /* the resolver's stop function may let go of it */
  if (aloop_future_cancel(inner) == 1)
    aloop__future_fail(outer, ALOOP_ETIMEDOUT, "look up %s: no answer after %g ms", waiting_of(outer)->what,
                       (double)waiting_of(outer)->timeout / 1e6);
  else
    on_done(inner, outer);
  aloop_future_unref(outer);
}

/* What the caller gets for `inner`, which may be NULL. */
static aloop_future_t *limit(aloop_future_t *inner, const char *origin, int64_t timeout, const char *what) {
  aloop_future_t *outer = inner != NULL ? wait_on(inner, on_done, what) : NULL;
  if (outer != NULL) outer->object.origin = origin;
  if (outer == NULL || aloop_future_done(outer) || timeout == ALOOP_FOREVER) return outer;
  waiting_of(outer)->timeout = timeout;
  if (timeout == 0) {
    on_late(outer->object.loop, outer);
    return outer;
  }
  outer->timer = aloop_call_later_from(outer->object.loop, timeout, on_late, outer, NULL);
  if (aloop_handle_error(outer->timer) == 0) return outer;
  aloop_future_cancel(outer);
  aloop_future_unref(outer);
  return NULL;
}

static aloop_future_t *failed(aloop_t *loop, const char *origin, const char *what, int error) {
  return aloop__future_failed(loop, origin, error, "look up %s: %s", what, aloop_strerror(error));
}

/* A future with an answer that is known; `error` < 0: there is none. */
static aloop_future_t *finished(aloop_t *loop, const char *origin, void *object, aloop_destroy_fn destroy) {
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (!aloop__future_finish_ptr(future, 0, object, destroy)) destroy(object);
  return future;
}

bool aloop__names_maybe_numeric(const char *host) {
  return isdigit((unsigned char)host[0]) || strpbrk(host, ":%") != NULL;
}

static bool is_number(const char *service) {
  return service[strspn(service, "0123456789")] == '\0';
}

/* 0, 1 if somebody has to be asked, or an error. */
static int answer_here(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list) {
  aloop__address_t address;
  struct addrinfo copy = essence_of(hints);
  bool numbers = service == NULL || is_number(service);
  if (numbers && service != NULL && strtoul(service, NULL, 10) > 65535) return ALOOP_EAI_SERVICE;
  if (!numbers && (copy.ai_flags & AI_NUMERICSERV)) return ALOOP_EAI_NONAME;
  bool numeric = host == NULL || (copy.ai_flags & AI_NUMERICHOST) || aloop__names_maybe_numeric(host);
  if (!numbers || !numeric) return 1;
  bool parsed = host != NULL && aloop__address_parse(&address, host, 0);
  bool final = host == NULL || (copy.ai_flags & AI_NUMERICHOST) || parsed;
  copy.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
  int rc = find_addresses(host, service, &copy, list);
  bool foreign = parsed && copy.ai_family != AF_UNSPEC && copy.ai_family != address.as.any.sa_family;
  if (foreign && (rc == ALOOP_EAI_NONAME || rc == ALOOP_EAI_NODATA))
    return ALOOP_EAI_ADDRFAMILY; /* musl, BSD */
  return rc == ALOOP_EAI_NONAME && !final ? 1 : rc;
}

static const char negative[] = "the timeout is negative: ALOOP_FOREVER means no limit";

/* Why the arguments cannot be used, or NULL. */
static const char *fault_of(const char *host, const char *service, int64_t timeout) {
  if (host == NULL && service == NULL) return "a lookup needs a host, a service, or both";
  if (host != NULL && host[0] == '\0') return "the host is empty: NULL means this machine";
  if (service != NULL && service[0] == '\0') return "the service is empty: NULL means none";
  return timeout < ALOOP_FOREVER ? negative : NULL;
}

aloop_future_t *aloop_getaddrinfo(aloop_t *loop, const char *host, const char *service,
                                  const struct addrinfo *hints, int64_t timeout) {
  static const char origin[] = "aloop_getaddrinfo";
  char what[WHAT_MAX];
  struct addrinfo *list = NULL;
  if (aloop__loop_thread(loop) < 0) return NULL;
  const char *fault = fault_of(host, service, timeout);
  if (fault != NULL) return aloop__future_refused(loop, origin, ALOOP_EINVAL, fault);
  if (aloop_is_closed(loop)) return aloop__future_new(loop, origin);
  bool tell_service = host == NULL || (service != NULL && !is_number(service));
  snprintf(what, sizeof what, "%s%s%s%s", host != NULL ? host : "", host != NULL && tell_service ? ", " : "",
           tell_service ? "service " : "", tell_service ? service : "");
  int rc = answer_here(host, service, hints, &list);
  if (rc == 0) return finished(loop, origin, list, free_addresses);
  if (rc < 0) return failed(loop, origin, what, rc);
  return limit(aloop__names_ask(loop, host, service, hints), origin, timeout, what);
}

/* A lookup in the other direction. */
typedef struct reverse {
  aloop_nameinfo_t names; /* the answer; first, so that free() releases the whole */
  struct sockaddr_storage address;
  socklen_t size;
  int flags;
} reverse_t;

/* In a thread. */
static int64_t answer_reverse(void *arg) {
  reverse_t *self = arg;
  return find_names((const struct sockaddr *)(const void *)&self->address, self->size, self->flags,
                    &self->names);
}

static bool is_address(const struct sockaddr *address, socklen_t size) {
  return address != NULL && size >= offsetof(struct sockaddr, sa_data) &&
         size <= sizeof(struct sockaddr_storage);
}

aloop_future_t *aloop_getnameinfo(aloop_t *loop, const struct sockaddr *address, socklen_t size, int flags,
                                  int64_t timeout) {
  static const char origin[] = "aloop_getnameinfo";
  char what[ALOOP__ADDRESS_TEXT];
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (!is_address(address, size))
    return aloop__future_refused(loop, origin, ALOOP_EINVAL, "a lookup needs an address, and its size");
  if (timeout < ALOOP_FOREVER) return aloop__future_refused(loop, origin, ALOOP_EINVAL, negative);
  if (aloop_is_closed(loop)) return aloop__future_new(loop, origin);
  aloop__address_text(address, size, what);
  char *port = strstr(what, " port 0");
  if (port != NULL) *port = '\0'; /* it was not asked for */
  reverse_t *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  memcpy(&self->address, address, size);
  self->size = size;
  self->flags = flags;
  if ((flags & (NI_NUMERICHOST | NI_NUMERICSERV)) != (NI_NUMERICHOST | NI_NUMERICSERV))
    return limit(submit(loop, answer_reverse, self, free), origin, timeout, what);
  int rc = (int)answer_reverse(self);
  if (rc == 0) return finished(loop, origin, self, free);
  free(self);
  return failed(loop, origin, what, rc);
}
