/* SPDX-License-Identifier: MIT
 *
 * Signals of a loop: add_signal_handler and remove_signal_handler.
 *
 * What a loop keeps for signals is its sink (sigtable.h), a descriptor of its own that the sink wakes, and for
 * each signal the list of handlers. It is made with the first handler and released with the last. When the
 * descriptor becomes readable the marks are taken out of the sink, and every handler of a marked signal is
 * queued in the ready deque, signals by number and handlers in the order added: they run in the next turn, like
 * every other callback. A handler that is queued already is not queued twice, because its call is still to
 * come.
 *
 * A handler is a counted object, so that the dump shows it, aloop_close removes it, and a call that could not
 * be queued for want of memory is tried again each turn. It remembers its place in the deque, so removing it
 * drops the call.
 *
 * Costs: an arrival is as dear as a few words of the sink and the handlers of that signal. Adding searches the
 * handlers of the signal; there are few.
 *
 * Left out: which process sent a signal, and the values of real-time signals. Arrivals merge here, so there
 * would be several or none.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "core/loop.h"
#include "core/memory.h"
#include "core/report.h"
#include "process/signals.h"
#include "process/sigtable.h"

/* A signal that the loop has handlers for. */
typedef struct wanted {
  aloop__siglink_t link;
  aloop__list_t handlers;
} wanted_t;

typedef struct signals {
  aloop__room_t room;
  aloop__watch_t watch;
  int write_end;  /* the same as watch.fd for an eventfd */
  unsigned forks; /* when these were opened */
  uint32_t count;
  aloop__sigsink_t sink;
  wanted_t *wanted[ALOOP__SIGNALS];
} signals_t;

typedef struct handler {
  aloop__object_t object;
  aloop__list_t link;
  aloop_signal_fn fn;
  void *arg;
  aloop__map_t *context;
  int signum;
  unsigned flags;
  uint64_t queued_at;    /* the position of its call in the deque, 0: none */
  aloop__map_t *dropped; /* the context of the call that was dropped */
  bool removed;
} handler_t;

static signals_t *signals_of(const aloop_t *loop) {
  return (signals_t *)(void *)loop->rooms[ALOOP__ROOM_SIGNAL];
}

static handler_t *handler_at(aloop__list_t *link) {
  return ALOOP_CONTAINER_OF(link, handler_t, link);
}

static handler_t *handler_of(const aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, handler_t, object);
}

/* ---- Arrivals -------------------------------------------------------------------------------------------- */

/* The handler may be gone before this returns. */
static void call(aloop_t *loop, void *arg) {
  handler_t *handler = arg;
  handler->queued_at = 0;
  handler->fn(loop, handler->signum, handler->arg);
}

/* False: out of memory. */
static bool queue(handler_t *handler) {
  aloop_t *loop = handler->object.loop;
  if (handler->queued_at != 0) return true;
  aloop__map_t *context = aloop__map_ref(handler->context);
  if (!aloop__ready_push_captured(loop, call, handler, context, handler->object.origin)) {
    aloop__map_unref(loop, context);
    return false;
  }
  handler->queued_at = loop->tail - 1;
  return true;
}

static bool resume(aloop__object_t *object) {
  return queue(handler_of(object));
}

static void arrived(const signals_t *signals, int signum) {
  wanted_t *wanted = signals->wanted[signum];
  if (wanted == NULL) return; /* removed since */
  for (aloop__list_t *at = wanted->handlers.next; at != &wanted->handlers; at = at->next)
    if (!queue(handler_at(at))) aloop__object_stall(&handler_at(at)->object);
}

/* The wake-up itself counts as no callback. */
static void readable(aloop_t *loop, void *arg) {
  (void)arg;
  signals_t *signals = signals_of(loop);
  loop->beside_head--;
  aloop__wake_drain(signals->watch.fd);
  for (int word = 0; word < ALOOP__SIGSINK_WORDS; word++) {
    uint32_t marks = aloop__sigsink_take(&signals->sink, word);
    for (int bit = 0; marks != 0; bit++, marks >>= 1)
      if (marks & 1) arrived(signals, word * 32 + bit);
  }
}

static const aloop__watch_ops_t watch_ops = {.name = "signals", .readable = readable, .writable = readable};

/* ---- The descriptor -------------------------------------------------------------------------------------- */

static void close_pair(const int fds[2]) {
  close(fds[0]);
  if (fds[1] != fds[0]) close(fds[1]);
}

/* Stops the watch before its descriptor is closed. */
static void close_descriptor(aloop_t *loop, signals_t *signals) {
  int fds[2] = {signals->watch.fd, signals->write_end};
  if (fds[0] < 0) return;
  aloop__watch_stop(loop, &signals->watch);
  close_pair(fds);
}

static int open_descriptor(aloop_t *loop, signals_t *signals) {
  int fds[2];
  int rc = aloop__wake_pair(fds);
  if (rc < 0) return rc;
  rc = aloop__watch_claim(loop, &signals->watch, fds[0], &watch_ops);
  if (rc == 0) rc = aloop__watch_set(loop, &signals->watch, ALOOP_READABLE);
  if (rc < 0) {
    aloop__watch_stop(loop, &signals->watch);
    close_pair(fds);
    return rc;
  }
  signals->write_end = fds[1];
  signals->forks = aloop__current_forks();
  aloop__sigsink_open(&signals->sink, fds[1]);
  return 0;
}

/* ---- What the loop keeps --------------------------------------------------------------------------------- */

static void close_signals(aloop_t *loop, aloop__room_t *room) {
  signals_t *signals = (signals_t *)(void *)room;
  close_descriptor(loop, signals);
  loop->rooms[ALOOP__ROOM_SIGNAL] = NULL;
  aloop__memory_release(loop, signals);
}

static void close_if_idle(aloop_t *loop, signals_t *signals) {
  if (signals->count == 0) close_signals(loop, &signals->room);
}

/* The inherited descriptor is shared with the parent. No handler writes to it here: it is the parent's still,
 * as far as the sink knows. */
static int after_fork(aloop_t *loop, aloop__room_t *room) {
  signals_t *signals = (signals_t *)(void *)room;
  if (signals->forks == aloop__current_forks()) return 0;
  close_descriptor(loop, signals);
  return open_descriptor(loop, signals);
}

static int open_signals(aloop_t *loop, signals_t **out) {
  signals_t *signals = signals_of(loop);
  if (signals == NULL) {
    signals = aloop__memory_zero(loop, sizeof *signals);
    if (signals == NULL) return ALOOP_ENOMEM;
    signals->room = (aloop__room_t){.close = close_signals, .after_fork = after_fork};
    signals->watch.fd = -1;
    int rc = open_descriptor(loop, signals);
    if (rc < 0) {
      aloop__memory_release(loop, signals);
      return rc;
    }
    loop->rooms[ALOOP__ROOM_SIGNAL] = &signals->room;
  }
  *out = signals;
  return 0;
}

/* ---- Removing -------------------------------------------------------------------------------------------- */

static void drop_call(aloop_t *loop, handler_t *handler) {
  if (handler->queued_at == 0) return;
  aloop__entry_t *entry = &loop->ring[handler->queued_at & loop->mask];
  handler->queued_at = 0;
  handler->dropped = aloop__ready_withdraw(loop, entry);
}

/* Takes the handler out of everything but its object. Runs nobody's code. */
static void take_out(aloop_t *loop, handler_t *handler) {
  signals_t *signals = signals_of(loop);
  wanted_t *wanted = signals->wanted[handler->signum];
  handler->removed = true;
  drop_call(loop, handler);
  aloop__list_remove(&handler->link);
  aloop__object_unstall(&handler->object);
  signals->count--;
  if (!aloop__list_empty(&wanted->handlers)) return;
  aloop__sigtable_remove(&wanted->link);
  aloop__sigsink_clear(&signals->sink, handler->signum);
  signals->wanted[handler->signum] = NULL;
  aloop__memory_release(loop, wanted);
}

/* Last, because with a context go values whose destructors may do anything. */
static void release(aloop_t *loop, handler_t *handler) {
  aloop__map_clear(loop, &handler->dropped);
  aloop__map_clear(loop, &handler->context);
  aloop__object_unref(&handler->object);
}

static bool wants_chain(const wanted_t *wanted) {
  unsigned flags = 0;
  for (aloop__list_t *at = wanted->handlers.next; at != &wanted->handlers; at = at->next)
    flags |= handler_at(at)->flags;
  return (flags & ALOOP_SIGNAL_CHAIN) != 0;
}

static void update_chain(signals_t *signals, int signum) {
  wanted_t *wanted = signals->wanted[signum];
  if (wanted != NULL) aloop__sigtable_chain(&wanted->link, wants_chain(wanted));
}

/* Moves what matches out of everything, into a list. */
static int take_out_matching(aloop_t *loop, int signum, aloop_signal_fn fn, const void *arg,
                             aloop__list_t *gone) {
  signals_t *signals = signals_of(loop);
  wanted_t *wanted = signals->wanted[signum];
  aloop__list_t *at = wanted->handlers.next, *end = &wanted->handlers;
  int count = 0;
  for (bool more = at != end; more;) {
    handler_t *handler = handler_at(at);
    at = at->next;
    more = at != end; /* with the last handler `wanted` goes too */
    if (fn != NULL && (handler->fn != fn || handler->arg != arg)) continue;
    take_out(loop, handler);
    aloop__list_append(gone, &handler->link);
    count++;
  }
  update_chain(signals, signum);
  close_if_idle(loop, signals);
  return count;
}

int aloop_remove_signal_handler(aloop_t *loop, int signum, aloop_signal_fn fn, void *arg) {
  int rc = aloop__loop_thread(loop);
  if (rc < 0) return rc;
  if (!aloop__sigtable_catchable(signum))
    return aloop__misuse(loop, ALOOP_EINVAL, "remove_signal_handler takes the number of a signal");
  const signals_t *signals = signals_of(loop);
  if (signals == NULL || signals->wanted[signum] == NULL) return 0;
  aloop__list_t gone;
  aloop__list_init(&gone);
  int count = take_out_matching(loop, signum, fn, arg, &gone);
  while (!aloop__list_empty(&gone)) {
    handler_t *handler = handler_at(gone.next);
    aloop__list_remove(&handler->link);
    release(loop, handler);
  }
  return count;
}

/* ---- Handlers as objects --------------------------------------------------------------------------------- */

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const handler_t *handler = handler_of(object);
  snprintf(text, size, "for signal %d%s", handler->signum, handler->queued_at != 0 ? ", about to run" : "");
}

static void destroy(aloop__object_t *object) {
  aloop__object_end(object, handler_of(object));
}

static void close_handler(aloop__object_t *object) {
  if (handler_of(object)->removed) return; /* just now, further up the stack */
  take_out(object->loop, handler_of(object));
  release(object->loop, handler_of(object));
}

static const aloop__kind_t kind = {.name = "signal handler",
                                   .index = ALOOP__SIGNAL_HANDLER,
                                   .describe = describe,
                                   .destroy = destroy,
                                   .close = close_handler,
                                   .resume = resume};

/* ---- Adding ---------------------------------------------------------------------------------------------- */

static handler_t *find(const wanted_t *wanted, aloop_signal_fn fn, const void *arg) {
  for (aloop__list_t *at = wanted->handlers.next; at != &wanted->handlers; at = at->next)
    if (handler_at(at)->fn == fn && handler_at(at)->arg == arg) return handler_at(at);
  return NULL;
}

size_t aloop__signal_handlers(const aloop_t *loop, int signum) {
  const signals_t *signals = signals_of(loop);
  const wanted_t *wanted = signals != NULL ? signals->wanted[signum] : NULL;
  size_t count = 0;
  if (wanted != NULL)
    for (const aloop__list_t *at = wanted->handlers.next; at != &wanted->handlers; at = at->next) count++;
  return count;
}

/* The first handler of this loop for the signal makes the loop's link. */
static int open_wanted(aloop_t *loop, signals_t *signals, int signum, bool chain) {
  if (signals->wanted[signum] != NULL) return 0;
  wanted_t *wanted = aloop__memory_zero(loop, sizeof *wanted);
  if (wanted == NULL) return ALOOP_ENOMEM;
  aloop__list_init(&wanted->handlers);
  wanted->link.sink = &signals->sink;
  wanted->link.signum = signum;
  wanted->link.chain = chain;
  int rc = aloop__sigtable_add(&wanted->link);
  if (rc < 0) {
    aloop__memory_release(loop, wanted);
    return rc;
  }
  signals->wanted[signum] = wanted;
  return 0;
}

static int add(aloop_t *loop, signals_t *signals, handler_t *handler) {
  int rc = open_wanted(loop, signals, handler->signum, (handler->flags & ALOOP_SIGNAL_CHAIN) != 0);
  if (rc < 0) return rc;
  aloop__list_append(&signals->wanted[handler->signum]->handlers, &handler->link);
  signals->count++;
  update_chain(signals, handler->signum);
  return 0;
}

/* An equal handler keeps its place and takes on the rest of `like`. */
static void renew(aloop_t *loop, handler_t *handler, const handler_t *like, const char *origin) {
  aloop__map_t *old = handler->context;
  handler->flags = like->flags;
  handler->context = aloop__map_ref(loop->context);
  handler->object.origin = origin;
  update_chain(signals_of(loop), handler->signum);
  aloop__map_unref(loop, old); /* last: a destructor may do anything */
}

static int add_new(aloop_t *loop, const handler_t *like, const char *origin) {
  signals_t *signals = NULL;
  handler_t *handler = aloop__memory_new(loop, sizeof *handler);
  if (handler == NULL) return ALOOP_ENOMEM;
  *handler = *like;
  int rc = open_signals(loop, &signals);
  if (rc == 0) {
    rc = add(loop, signals, handler);
    close_if_idle(loop, signals);
  }
  if (rc < 0) {
    aloop__memory_release(loop, handler);
    return rc;
  }
  aloop__object_init(&handler->object, loop, &kind, origin);
  handler->context = aloop__map_ref(loop->context);
  return 0;
}

int aloop_add_signal_handler_from(aloop_t *loop, int signum, aloop_signal_fn fn, void *arg, unsigned flags,
                                  const char *origin) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (fn == NULL || (flags & ~(unsigned)ALOOP_SIGNAL_CHAIN) != 0)
    return aloop__misuse(loop, ALOOP_EINVAL,
                         "add_signal_handler takes a function, and no flag but ALOOP_SIGNAL_CHAIN");
  if (!aloop__sigtable_catchable(signum))
    return aloop__misuse(loop, ALOOP_EINVAL, "there is no such signal, or it cannot be caught");
  handler_t like = {.fn = fn, .arg = arg, .signum = signum, .flags = flags};
  const signals_t *signals = signals_of(loop);
  wanted_t *wanted = signals != NULL ? signals->wanted[signum] : NULL;
  handler_t *equal = wanted != NULL ? find(wanted, fn, arg) : NULL;
  if (equal == NULL) return add_new(loop, &like, origin);
  renew(loop, equal, &like, origin);
  return 0;
}

int(aloop_add_signal_handler)(aloop_t *loop, int signum, aloop_signal_fn fn, void *arg, unsigned flags) {
  return aloop_add_signal_handler_from(loop, signum, fn, arg, flags, NULL);
}
