/* SPDX-License-Identifier: MIT
 *
 * Watches: descriptors the loop listens to. A table indexed by descriptor finds the watch of an event in two
 * loads; it grows to the largest descriptor and costs 8 bytes for each. The loop's own wake-up descriptor is
 * not in it, so that a loop without connections needs none, whatever numbers its process has come to.
 *
 * Descriptors are reused, and that must be harmless. A watch is unregistered before its descriptor can be
 * closed, in the call that stops it. Every registration has a generation, its token, and an event is delivered
 * only if the table has a watch of that generation at that moment; so nothing is called for a watch that was
 * stopped earlier in the same turn. add_reader on a descriptor that has a reader registers it anew, because it
 * may have been closed behind our back and mean another file by now.
 *
 * Its number may also be given to a file of the library's own: a connection that is accepted, say. Then what
 * the user watched gives way, as in asyncio, or no connection would ever get that number.
 *
 * A descriptor closed behind our back while a duplicate keeps the kernel's registration alive can report for
 * ever what nobody can unregister. Polls with events that no watch explains, not even one stopped since, are
 * counted, and after 64 in a row the poller is opened anew.
 *
 * close(2) ends a registration, too, so a descriptor that is closed anyway could be left to it. Measured with
 * accepted connections, it saves one call of seven and 0.3 of some 20 microseconds, half of them lost again: a
 * connection stays open until connection_lost returns, and the poll before that reports its end once more. And
 * each connection closed while a forked child holds its socket would leave a ghost behind, to be found by 64
 * polls and cured by registering all others anew.
 *
 * add_reader and add_writer are watches too, made here: one block per descriptor holds both callbacks.
 * Operations on the caller's descriptors wait through the same blocks: each direction has one user, a callback
 * of the caller or an operation, and the one cannot take the other's place.
 */
#include "core/watch.h"

#include <fcntl.h>
#include <stdio.h>

#include "core/loop.h"
#include "core/memory.h"
#include "core/report.h"

/* What add_reader or add_writer was given, or an operation that waits. */
typedef struct user_callback {
  aloop_callback_fn fn;
  void *arg;
  aloop__map_t *context;
  const char *origin;
  uint64_t since; /* the poll before it: what an earlier poll saw was meant for its predecessor */
  bool operation;
} user_callback_t;

typedef struct user_watch {
  aloop__watch_t watch;
  user_callback_t reader;
  user_callback_t writer;
} user_watch_t;

static user_watch_t *user_of(aloop__watch_t *watch) {
  return ALOOP_CONTAINER_OF(watch, user_watch_t, watch);
}

/* A large number that is not open is refused before the table is made as long; a small one by the poller. */
static int grow_table(aloop_t *loop, int fd) {
  enum { SMALL = 4096 };
  if (fd >= SMALL && fcntl(fd, F_GETFD) < 0) return -errno;
  int size = loop->watches_size == 0 ? 16 : loop->watches_size;
  while (size <= fd) size = size > INT32_MAX / 2 ? INT32_MAX : size * 2;
  aloop__watch_t **table = aloop__memory_resize(loop, loop->watches, (size_t)size * sizeof *table);
  if (table == NULL) return ALOOP_ENOMEM;
  for (int i = loop->watches_size; i < size; i++) table[i] = NULL;
  loop->watches = table;
  loop->watches_size = size;
  return 0;
}

aloop__watch_t *aloop__watch_find(const aloop_t *loop, int fd) {
  if (fd >= 0 && fd == loop->wake.fd) return (aloop__watch_t *)&loop->wake;
  return fd >= 0 && fd < loop->watches_size ? loop->watches[fd] : NULL;
}

/* Never 0, and small enough for a watch. */
static uint32_t next_generation(aloop_t *loop) {
  enum { LAST = ALOOP__WATCH_GENERATIONS - 1 };
  loop->generation = loop->generation == LAST ? 1 : loop->generation + 1;
  return loop->generation;
}

/* The context's values may have destructors, and those are not called from here. */
static void drop_context_later(aloop_t *loop, aloop__map_t *context) {
  if (context != NULL && !aloop__ready_push_captured(loop, aloop__ready_skip, NULL, context, NULL))
    aloop__map_unref(loop, context);
}

/* Somebody else has a descriptor that a user watches. Where users bring their own that is asked for before; so
 * it is a new file, and the one that was watched was closed behind our back. An operation does not give way. */
static ALOOP_NOINLINE bool give_way(aloop_t *loop, aloop__watch_t *watch, const aloop__watch_ops_t *ops) {
  if (ops->user || !watch->ops->user) return false;
  user_watch_t *user = user_of(watch);
  uint32_t interest = aloop__watch_interest(watch);
  if ((interest & ALOOP_READABLE && user->reader.operation) ||
      (interest & ALOOP_WRITABLE && user->writer.operation))
    return false;
  aloop__watch_stop(loop, watch);
  drop_context_later(loop, user->reader.context);
  drop_context_later(loop, user->writer.context);
  aloop__memory_release(loop, user);
  return true;
}

/* The descriptor lies beyond the table. */
static ALOOP_NOINLINE int claim_beyond(aloop_t *loop, aloop__watch_t *watch, int fd,
                                       const aloop__watch_ops_t *ops) {
  int rc = grow_table(loop, fd);
  return rc < 0 ? rc : aloop__watch_claim(loop, watch, fd, ops);
}

int aloop__watch_claim(aloop_t *loop, aloop__watch_t *watch, int fd, const aloop__watch_ops_t *ops) {
  if (fd < 0) return ALOOP_EBADF;
  aloop__watch_t *other = aloop__watch_find(loop, fd);
  if (ALOOP_UNLIKELY(other != NULL) && !give_way(loop, other, ops)) return ALOOP_EBUSY;
  bool listed = watch != &loop->wake;
  if (listed && ALOOP_UNLIKELY(fd >= loop->watches_size)) return claim_beyond(loop, watch, fd, ops);
  *watch = (aloop__watch_t){.ops = ops, .fd = fd, .state = next_generation(loop)};
  if (listed) loop->watches[fd] = watch;
  loop->watches_count++;
  return 0;
}

/* Tells the poller, but not the one that the child of a fork has inherited: it is the parent's (host.c). */
ALOOP_INLINE int tell_poller(aloop_t *loop, const aloop__watch_t *watch, uint32_t token, uint32_t interest) {
  if (ALOOP_UNLIKELY(loop->fork_generation != aloop__current_forks_seen())) return 0;
  return loop->poller->update(loop->poller_state, watch->fd, token, aloop__watch_interest(watch), interest);
}

int aloop__watch_set(aloop_t *loop, aloop__watch_t *watch, uint32_t interest) {
  uint32_t before = aloop__watch_interest(watch);
  if (before == interest) return 0;
  int rc = tell_poller(loop, watch, aloop__watch_generation(watch), interest);
  /* Wanting less cannot fail: at worst the descriptor was closed behind our back. */
  if (rc < 0 && (interest & ~before) != 0) return rc;
  aloop__watch_note(watch, interest);
  return 0;
}

/* Registers what is watched once more, under a new generation: the descriptor may have been closed behind our
 * back and mean another file by now, and what still comes for the old one shall be told apart. */
static int renew(aloop_t *loop, aloop__watch_t *watch) {
  uint32_t generation = next_generation(loop), interest = aloop__watch_interest(watch);
  int rc = tell_poller(loop, watch, generation, interest);
  if (rc < 0) return rc;
  watch->state = generation;
  aloop__watch_note(watch, interest);
  loop->stop_poll = loop->polls;
  return 0;
}

void aloop__watch_leave(aloop_t *loop, aloop__watch_t *watch) {
  uint32_t generation = aloop__watch_generation(watch);
  if (generation == 0) return;
  /* At worst the descriptor was closed behind our back. */
  if (aloop__watch_interest(watch) != 0) (void)tell_poller(loop, watch, generation, 0);
  if (watch != &loop->wake) loop->watches[watch->fd] = NULL;
  loop->watches_count--;
  loop->stop_poll = loop->polls;
  watch->state = 0;
}

void aloop__watch_stop(aloop_t *loop, aloop__watch_t *watch) {
  if (!aloop__watch_is_claimed(watch)) return;
  aloop__watch_leave(loop, watch);
  watch->fd = -1;
}

static int note_loss(aloop_t *loop, aloop__losses_t *losses, const aloop__watch_t *watch, int error) {
  aloop__loss_t *list = aloop__memory_resize(loop, losses->list, (losses->count + 1) * sizeof *list);
  if (list == NULL) return ALOOP_ENOMEM;
  list[losses->count++] = (aloop__loss_t){watch->fd, error, aloop__watch_generation(watch)};
  losses->list = list;
  return 0;
}

/* Out of memory is the only error. */
static int register_again(aloop_t *loop, void *poller_state, const aloop__watch_t *watch,
                          aloop__losses_t *losses) {
  uint32_t interest = watch != NULL ? aloop__watch_interest(watch) : 0;
  if (interest == 0) return 0;
  int rc = loop->poller->update(poller_state, watch->fd, aloop__watch_generation(watch), 0, interest);
  return rc == 0 || rc == ALOOP_ENOMEM ? rc : note_loss(loop, losses, watch, rc);
}

int aloop__watch_register_all(aloop_t *loop, void *poller_state, aloop__losses_t *losses) {
  int rc = register_again(loop, poller_state, &loop->wake, losses);
  for (int fd = 0; fd < loop->watches_size && rc == 0; fd++)
    rc = register_again(loop, poller_state, loop->watches[fd], losses);
  return rc;
}

/* A descriptor that was closed behind our back cannot be watched any more: nobody but the exception handler
 * can be told. It may have been seen to while another one was reported. */
void aloop__watch_report_losses(aloop_t *loop, const aloop__losses_t *losses) {
  for (size_t i = 0; i < losses->count; i++) {
    const aloop__loss_t *loss = &losses->list[i];
    const aloop__watch_t *watch = aloop__watch_find(loop, loss->fd);
    if (watch == NULL || aloop__watch_generation(watch) != loss->generation) continue;
    aloop_error_context_t context =
        aloop__report_context("a descriptor could not be watched again", loss->error);
    context.fd = loss->fd;
    aloop__report(loop, &context);
  }
}

/* Calls a user's callback. The block may be gone before it returns. */
static void call_user(aloop_t *loop, const user_callback_t *callback) {
  aloop_callback_fn fn = callback->fn;
  void *arg = callback->arg;
  if (callback->since == loop->polls) return;
  loop->context = aloop__map_ref(callback->context);
  fn(loop, arg);
}

static void user_readable(aloop_t *loop, void *arg) {
  call_user(loop, &user_of(arg)->reader);
}

static void user_writable(aloop_t *loop, void *arg) {
  call_user(loop, &user_of(arg)->writer);
}

static const aloop__watch_ops_t user_ops = {
    .name = "watch", .readable = user_readable, .writable = user_writable, .user = true};

static user_callback_t *callback_of(user_watch_t *user, uint32_t direction) {
  return direction == ALOOP_READABLE ? &user->reader : &user->writer;
}

static void release_user(aloop_t *loop, user_watch_t *user) {
  aloop__map_unref(loop, user->reader.context);
  aloop__map_unref(loop, user->writer.context);
  aloop__memory_release(loop, user);
}

/* What keeps a direction of a descriptor from the caller (or an operation on its behalf), or NULL. The caller
 * may put one callback in place of another. */
static const char *conflict(const aloop_t *loop, int fd, uint32_t direction, bool operation) {
  aloop__watch_t *watch = aloop__watch_find(loop, fd);
  if (watch == NULL) return NULL;
  if (!watch->ops->user) return "the descriptor belongs to a live transport or server";
  if ((aloop__watch_interest(watch) & direction) == 0) return NULL;
  if (callback_of(user_of(watch), direction)->operation)
    return "another operation waits for this direction of the descriptor; wait for it or cancel it first";
  return operation ? "add_reader or add_writer watches this direction of the descriptor; remove it first"
                   : NULL;
}

const char *aloop__watch_conflict(const aloop_t *loop, int fd, uint32_t direction) {
  return conflict(loop, fd, direction, true);
}

/* The user's block for a descriptor, made if need be. */
static int open_user(aloop_t *loop, int fd, user_watch_t **out) {
  if (fd < 0) return ALOOP_EBADF;
  aloop__watch_t *watch = aloop__watch_find(loop, fd);
  if (watch == NULL) {
    user_watch_t *user = aloop__memory_zero(loop, sizeof *user);
    if (user == NULL) return ALOOP_ENOMEM;
    int rc = aloop__watch_claim(loop, &user->watch, fd, &user_ops);
    if (rc < 0) {
      aloop__memory_release(loop, user);
      return rc;
    }
    watch = &user->watch;
  }
  *out = user_of(watch);
  return 0;
}

static void close_user_if_idle(aloop_t *loop, user_watch_t *user) {
  if (aloop__watch_interest(&user->watch) != 0) return;
  aloop__watch_stop(loop, &user->watch);
  release_user(loop, user);
}

/* Puts a callback, of which the context is the caller's reference, into its place. */
static int install(aloop_t *loop, int fd, uint32_t direction, user_callback_t callback) {
  user_watch_t *user = NULL;
  int rc = open_user(loop, fd, &user);
  if (rc < 0) return rc;
  uint32_t interest = aloop__watch_interest(&user->watch);
  rc = (interest & direction) != 0 ? renew(loop, &user->watch)
                                   : aloop__watch_set(loop, &user->watch, interest | direction);
  if (rc < 0) {
    close_user_if_idle(loop, user);
    return rc;
  }
  user_callback_t *slot = callback_of(user, direction);
  aloop__map_t *old = slot->context;
  *slot = callback;
  slot->since = loop->polls;
  aloop__map_unref(loop, old); /* last: a destructor may do anything */
  return 0;
}

/* Takes the callback of a direction away. */
static void take_away(aloop_t *loop, user_watch_t *user, uint32_t direction) {
  aloop__watch_set(loop, &user->watch, aloop__watch_interest(&user->watch) & ~direction);
  user_callback_t *callback = callback_of(user, direction);
  aloop__map_t *context = callback->context;
  callback->context = NULL;
  close_user_if_idle(loop, user);
  aloop__map_unref(loop, context); /* last: a destructor may do anything */
}

int aloop__watch_wait(aloop_t *loop, int fd, uint32_t direction, aloop_callback_fn fn, void *arg,
                      const char *origin) {
  ALOOP_CHECK(aloop__watch_conflict(loop, fd, direction) == NULL);
  return install(loop, fd, direction,
                 (user_callback_t){.fn = fn, .arg = arg, .origin = origin, .operation = true});
}

void aloop__watch_wait_end(aloop_t *loop, int fd, uint32_t direction) {
  take_away(loop, user_of(aloop__watch_find(loop, fd)), direction);
}

static int add_user(aloop_t *loop, int fd, uint32_t direction, user_callback_t callback) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (callback.fn == NULL)
    return aloop__misuse(loop, ALOOP_EINVAL, "add_reader or add_writer without a callback");
  const char *rule = conflict(loop, fd, direction, false);
  if (rule != NULL) return aloop__misuse(loop, ALOOP_EBUSY, rule);
  callback.context = aloop__map_ref(loop->context);
  rc = install(loop, fd, direction, callback);
  if (rc < 0) aloop__map_unref(loop, callback.context);
  if (rc == ALOOP_EBADF) aloop__misuse(loop, rc, "add_reader or add_writer on a descriptor that is not open");
  return rc;
}

static int remove_user(aloop_t *loop, int fd, uint32_t direction) {
  int rc = aloop__loop_thread(loop);
  if (rc < 0) return rc;
  if (fd < 0)
    return aloop__misuse(loop, ALOOP_EBADF, "remove_reader or remove_writer on a negative descriptor");
  const char *rule = conflict(loop, fd, direction, false);
  if (rule != NULL) return aloop__misuse(loop, ALOOP_EBUSY, rule);
  aloop__watch_t *watch = aloop__watch_find(loop, fd);
  if (watch == NULL || (aloop__watch_interest(watch) & direction) == 0) return 0;
  take_away(loop, user_of(watch), direction);
  return 1;
}

int aloop_add_reader_from(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg, const char *origin) {
  return add_user(loop, fd, ALOOP_READABLE, (user_callback_t){.fn = fn, .arg = arg, .origin = origin});
}

int aloop_add_writer_from(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg, const char *origin) {
  return add_user(loop, fd, ALOOP_WRITABLE, (user_callback_t){.fn = fn, .arg = arg, .origin = origin});
}

int(aloop_add_reader)(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg) {
  return aloop_add_reader_from(loop, fd, fn, arg, NULL);
}

int(aloop_add_writer)(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg) {
  return aloop_add_writer_from(loop, fd, fn, arg, NULL);
}

int aloop_remove_reader(aloop_t *loop, int fd) {
  return remove_user(loop, fd, ALOOP_READABLE);
}

int aloop_remove_writer(aloop_t *loop, int fd) {
  return remove_user(loop, fd, ALOOP_WRITABLE);
}

void aloop__watch_close(aloop_t *loop) {
  for (int fd = 0; fd < loop->watches_size; fd++) {
    aloop__watch_t *watch = loop->watches[fd];
    if (watch == NULL || !watch->ops->user) continue;
    aloop__watch_stop(loop, watch);
    release_user(loop, user_of(watch));
  }
}

const char *aloop__watch_origin(aloop__watch_t *watch, uint32_t direction) {
  if (!watch->ops->user) return NULL;
  return direction & ALOOP_READABLE ? user_of(watch)->reader.origin : user_of(watch)->writer.origin;
}

void aloop__watch_describe(aloop__watch_t *watch, char *text, size_t size) {
  uint32_t interest = aloop__watch_interest(watch);
  const char *what = interest == 0                ? "nothing"
                     : interest == ALOOP_READABLE ? "readable"
                     : interest == ALOOP_WRITABLE ? "writable"
                                                  : "readable and writable";
  snprintf(text, size, "%s fd %d, waiting for %s", watch->ops->name, watch->fd, what);
}
