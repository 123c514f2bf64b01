/* SPDX-License-Identifier: MIT
 *
 * Futures as the rest of the library sees them. An operation of the library is a future with a stop function:
 *
 *     aloop_future_t *future = aloop__future_new(loop, origin);
 *     if (future == NULL || aloop_future_done(future)) return future;   (out of memory; the loop is closed)
 *     aloop__future_set_operation(future, stop, state);
 *     ...
 *     aloop__future_finish(future, value);   or aloop__future_fail(future, code, "bind %s", text);
 *
 * From set_operation until its end the future holds a reference to itself, so the operation keeps a bare
 * pointer and forgets it when it ends the future or when `stop` is called. Whoever else ends the future
 * (cancel, aloop_close, even set_value by the user) makes `stop` be called first, exactly once.
 */
#ifndef ALOOP_FUTURE_FUTURE_H
#define ALOOP_FUTURE_FUTURE_H

#include "aloop.h"
#include "core/loop.h"

typedef struct aloop__done {
  aloop_done_fn fn; /* NULL: taken back */
  void *arg;
  aloop__map_t *context; /* a reference, until the callback is queued */
} aloop__done_t;

/* Something set aside for whoever reads the result: a lock, a place in a queue. Of the three functions one is
 * called, once, with the future and the giver. */
typedef struct aloop__promise {
  /* It is read for the first time. Returns 0, or the error with which the future turns out to have ended; may
   * give it an object. */
  int (*keep)(aloop_future_t *future, void *giver);
  /* It goes unread. */
  void (*drop)(aloop_future_t *future, void *giver);
  /* The task that awaited it was cancelled after the end and before it could read: aloop__future_forsake. */
  void (*forsake)(aloop_future_t *future, void *giver);
} aloop__promise_t;

/* Done callbacks beyond the first. */
typedef struct aloop__done_list {
  uint32_t capacity;
  aloop__done_t items[];
} aloop__done_list_t;

/* What few futures have. Futures that wait for others allocate it at the head of a larger block. */
typedef struct aloop__future_extra {
  char *message;
  aloop_attempt_t *attempts;
  size_t attempts_count;
  aloop_future_t **children; /* references; in the same block */
  size_t children_count;
  aloop_future_t *source; /* one of the children, whose end this future shares; or NULL */
} aloop__future_extra_t;

enum { ALOOP__PENDING, ALOOP__DONE, ALOOP__FAILED };

struct aloop_future {
  aloop__object_t object;
  union {
    int64_t value;        /* once done; or the error */
    aloop_handle_t timer; /* while pending, of an operation that has one */
  };
  union {
    struct { /* while pending */
      aloop_done_fn stop;
      void *stop_arg;
    };
    struct { /* once done */
      void *ptr;
      aloop_destroy_fn destroy;
    };
    struct { /* once done, with a promise that nobody has read */
      const aloop__promise_t *promise;
      void *giver;
    };
  };
  aloop__done_t first; /* callback 0; callback n is more->items[n - 1] */
  aloop__done_list_t *more;
  uint32_t count;  /* callbacks [0, ran) ran, */
  uint32_t ran;    /* [ran, ran + queued) are in the ready deque, each with a reference to the future, */
  uint32_t queued; /* [ran + queued, count) wait for the end, or for memory */
  unsigned state : 2;
  unsigned operation : 1; /* of the library: `stop` is called whoever ends it, and a reference is held */
  unsigned sealed : 1;    /* nobody may end it from outside: a task ends with its function */
  unsigned owner : 1;     /* of ptr */
  unsigned promised : 1;  /* there is a promise */
  unsigned unread : 1;    /* the error was not read yet */
  unsigned by_value : 1;  /* reading the value takes over what it stands for: ptr, or a promise */
  unsigned ignored : 1;   /* nobody will read it, and that is fine */
  unsigned asked : 1;     /* for kinds with a cancel: it was called */
  unsigned late : 1;      /* of wait_for: the time is over */
  unsigned pause : 1;     /* of sleep: who waits just goes on in the next turn */
  aloop__future_extra_t *extra;
};

typedef struct aloop__future_kind {
  aloop__kind_t object;
  /* Asks a pending future to end. `message` may be NULL. NULL: it ends at once. */
  void (*cancel)(aloop_future_t *future, const char *message);
  /* What reports call it; NULL: by the name of its kind. */
  const char *(*label)(aloop_future_t *future);
} aloop__future_kind_t;

/* What public calls begin with: ALOOP_EINVAL for NULL, ALOOP_ENOTLOOPTHREAD, or 0; without a call where there
 * is nothing to check. */
int aloop__future_enter_slowly(const aloop_future_t *future);
static inline int aloop__future_enter(const aloop_future_t *future) {
  bool usual = ALOOP_LIKELY(future != NULL) && ALOOP_LIKELY(future->object.loop->guard == 0);
  return usual ? 0 : aloop__future_enter_slowly(future);
}

/* The future whose end this one shares, perhaps itself. */
static inline aloop_future_t *aloop__future_source(const aloop_future_t *future) {
  while (future->extra != NULL && future->extra->source != NULL) future = future->extra->source;
  return (aloop_future_t *)future;
}

/* The children's references, message and attempts go with the block. */
void aloop__future_release_extra(aloop_t *loop, aloop__future_extra_t *extra);

/* What plain futures do; other kinds are made of these. */
void aloop__future_describe(const aloop__object_t *object, char *text, size_t size);
void aloop__future_destroy(aloop__object_t *object);
void aloop__future_close(aloop__object_t *object);
bool aloop__future_resume(aloop__object_t *object);

/* Makes a future inside of something larger, with one reference; on a closed loop it has failed. */
void aloop__future_init(aloop_future_t *future, aloop_t *loop, const aloop__future_kind_t *kind,
                        const char *origin);

/* For the destroy function of such a kind: gives up all but the block. False: the exception handler, told of an
 * unread error, took a reference. */
bool aloop__future_release_slowly(aloop_future_t *future);
static inline bool aloop__future_release(aloop_future_t *future) {
  bool bare = !future->unread && !future->promised && !future->owner && future->count == 0 &&
              future->extra == NULL && future->more == NULL;
  return ALOOP_LIKELY(bare) || aloop__future_release_slowly(future);
}

/* A pending future with one reference for the caller, or, on a closed loop, one that failed with
 * ALOOP_ECLOSED. NULL: out of memory. */
aloop_future_t *aloop__future_new(aloop_t *loop, const char *origin);

/* The same for a future that waits for others and takes over their references, as its children, once it is
 * made. Its extra block is the head of a cleared one of `bytes`. `kind` may be NULL: a plain one. */
aloop_future_t *aloop__future_over(aloop_t *loop, const aloop__future_kind_t *kind, size_t bytes,
                                   aloop_future_t *const *children, size_t count);

/* For failures that are known at once: a future that has failed. `format` may be NULL. */
aloop_future_t *aloop__future_failed(aloop_t *loop, const char *origin, int error, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 4, 5)))
#endif
    ;

/* For mistakes: a future that has failed with `rule` as its message, after debug mode was told of it. */
aloop_future_t *aloop__future_refused(aloop_t *loop, const char *origin, int error, const char *rule);

/* See above. `stop` must not end the future; it may be called from aloop_close, when nothing can be
 * scheduled any more. */
static inline void aloop__future_set_operation(aloop_future_t *future, aloop_done_fn stop, void *arg) {
  if (future->state != ALOOP__PENDING) return;
  if (!future->operation) aloop__object_ref(&future->object);
  future->operation = true;
  future->stop = stop;
  future->stop_arg = arg;
}

/* The object as the future of an operation with this `stop` that is under way, or NULL. */
static inline aloop_future_t *aloop__future_of_operation(aloop__object_t *object, aloop_done_fn stop) {
  if (object->kind->index != ALOOP__FUTURE) return NULL;
  aloop_future_t *future = ALOOP_CONTAINER_OF(object, aloop_future_t, object);
  return future->state == ALOOP__PENDING && future->operation && future->stop == stop ? future : NULL;
}

/* The operation's own ends: they do not call `stop`, and the future may be gone when they return. NULL, or a
 * future that is done, is left alone: then false, and an object stays the caller's. */
bool aloop__future_finish(aloop_future_t *future, int64_t value);
bool aloop__future_finish_ptr(aloop_future_t *future, int64_t value, void *ptr, aloop_destroy_fn destroy);
/* For an operation that ends in a callback of its own of the ready deque: a single done callback that needs no
 * context runs at once, in its place. */
void aloop__future_finish_in_place(aloop_future_t *future, int64_t value);
/* The value is something that has to be released, a descriptor: it belongs to whoever reads it, and if nobody
 * does, `release` is called with it (made a pointer) when the future goes. */
bool aloop__future_finish_owned(aloop_future_t *future, int64_t value, aloop_destroy_fn release);
/* The same for what has to be set aside until then: see aloop__promise_t. */
bool aloop__future_finish_promise(aloop_future_t *future, int64_t value, const aloop__promise_t *promise,
                                  void *giver);
bool aloop__future_fail(aloop_future_t *future, int error, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

/* The message that a pending future is going to have if it fails without another. Left out when out of memory;
 * NULL: none. */
void aloop__future_set_message(aloop_future_t *future, const char *message);

/* Ends the future as `source`, a done child of it, ended: value, object, error, message and attempts are
 * shared. */
void aloop__future_follow(aloop_future_t *future, aloop_future_t *source);

/* Notes that connecting to an address failed. Left out when out of memory. */
void aloop__future_add_attempt(aloop_future_t *future, const struct sockaddr *address, socklen_t size,
                               int error);

/* Task.cancel(msg): aloop_future_cancel for a future of this thread; a future that ends by it has the message,
 * which may be NULL. 1, or 0 if it was done. */
int aloop__future_cancel(aloop_future_t *future, const char *message);

/* Ends a pending future at once, whatever its kind: its operation is stopped, then it is cancelled. */
void aloop__future_break(aloop_future_t *future, const char *message);

/* For await: the task does not get to see the end of this future, because it was cancelled meanwhile. What was
 * promised is undone, and whoever else looks sees a cancelled future. */
void aloop__future_forsake(aloop_future_t *future);

/* Done callbacks of the library: without context, and unwatch also takes back those that are queued. */
int aloop__future_watch(aloop_future_t *future, aloop_done_fn fn, void *arg);
/* The same for a pending future, but fn runs inside the call that ends it. It does nothing but end another
 * future, whose callbacks thus come in the place of those that it stands for. */
int aloop__future_watch_inside(aloop_future_t *future, aloop_done_fn fn, void *arg);
void aloop__future_unwatch(aloop_future_t *future, aloop_done_fn fn, void *arg);

/* aloop_future_result, for one that is done, in whose loop's thread we are. */
int64_t aloop__future_read_slowly(aloop_future_t *future);
static inline int64_t aloop__future_read(aloop_future_t *future) {
  bool usual = !future->unread && !future->by_value;
  return ALOOP_LIKELY(usual) ? future->value : aloop__future_read_slowly(future);
}

/* The error, now or later, counts as read. */
void aloop__future_ignore(aloop_future_t *future);

#endif
