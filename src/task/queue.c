/* SPDX-License-Identifier: MIT
 *
 * Queues: items go from those who put to those who get, and both wait where they have to.
 *
 * An item is bound to a get when its result is read, not before. A get that waited is promised one of the
 * items when it comes; until it has read, the item stays in the queue, and so does its order with the others:
 * of several that were promised one, the first to run gets the first item, a more urgent item that comes
 * meanwhile is the one that is taken, and where a get was cancelled or dropped nothing has to be put back. In
 * the same way a put that waited is promised a place, and its item goes in when its result is read. That is
 * asyncio's behaviour, with one difference: what was promised is nobody else's. Nobody who comes later takes
 * it, so that no get and no put has to start to wait anew.
 *
 * A put that nobody asks about, because its future was dropped, has put its item; only if its task was
 * cancelled meanwhile it has not.
 *
 * Invariants: somebody waits to get only while every item is promised, and to put only while every place is
 * taken or promised. `settle` restores them after each change. It never calls itself: a future that nobody
 * holds may give its promise back, or put its item, at the moment it ends.
 *
 * All is O(1), or O(log n) in a queue by priority. Items are kept by items.c, whose growth is the only
 * allocation besides the futures.
 */
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"
#include "task/items.h"
#include "task/waiters.h"

struct aloop_queue {
  aloop__object_t object;
  aloop__items_t items;
  aloop__waiters_t getters;
  aloop__waiters_t putters;
  aloop__waiters_t joiners;
  size_t promised_items;
  size_t promised_places;
  size_t maxsize; /* 0: no limit */
  size_t unfinished;
  aloop_destroy_fn destroy; /* of items nobody got; or NULL */
  bool shut;
  bool settling;
};

static ALOOP_NOINLINE int refuse_null(void) {
  return aloop__misuse(NULL, ALOOP_EINVAL, "the queue is NULL");
}

static inline int enter(const aloop_queue_t *queue) {
  return ALOOP_LIKELY(queue != NULL) ? aloop__loop_thread(queue->object.loop) : refuse_null();
}

/* ---- Promises -------------------------------------------------------------------------------------------- */

/* Defined below: keeping or dropping one leads to the next. */
static const aloop__promise_t promised_item;
static const aloop__promise_t promised_place;

/* Whether there is an item, or a place, that is promised to nobody. */
static bool has_item(const aloop_queue_t *queue) {
  return queue->items.count > queue->promised_items;
}

static bool has_place(const aloop_queue_t *queue) {
  return queue->maxsize == 0 || queue->items.count + queue->promised_places < queue->maxsize;
}

/* The future may be gone afterwards, and its promise kept or given back. */
static void promise_item(aloop_queue_t *queue, aloop_future_t *future) {
  queue->promised_items++;
  aloop__object_ref(&queue->object);
  aloop__future_finish_promise(future, 0, &promised_item, queue);
}

static void promise_place(aloop_queue_t *queue, aloop_future_t *future) {
  queue->promised_places++;
  aloop__object_ref(&queue->object);
  aloop__future_finish_promise(future, 0, &promised_place, queue);
}

/* While the loop is being closed, who waits may have been told so already. */
static void settle(aloop_queue_t *queue) {
  if (queue->settling || (queue->object.loop->guard & ALOOP__GUARD_CLOSED)) return;
  queue->settling = true;
  for (;;) {
    if (!aloop__waiters_empty(&queue->getters) && has_item(queue))
      promise_item(queue, aloop__waiters_next(&queue->getters));
    else if (!aloop__waiters_empty(&queue->putters) && has_place(queue))
      promise_place(queue, aloop__waiters_next(&queue->putters));
    else
      break;
  }
  queue->settling = false;
}

/* Takes an item out. After a shutdown there may be fewer than were promised. */
static int take(aloop_queue_t *queue, void **item) {
  if (queue->items.count == 0) return queue->shut ? ALOOP_ECLOSED : ALOOP_EAGAIN;
  *item = aloop__items_pop(&queue->items);
  return 0;
}

static void insert(aloop_queue_t *queue, void *item) {
  aloop__items_push(&queue->items, item);
  queue->unfinished++;
}

/* After the end of a promise. The queue may be gone afterwards. */
static void go_on(aloop_queue_t *queue) {
  settle(queue);
  aloop__object_unref(&queue->object);
}

static int keep_item(aloop_future_t *future, void *giver) {
  aloop_queue_t *queue = giver;
  queue->promised_items--;
  void *item = NULL;
  int rc = take(queue, &item);
  if (rc == 0) {
    future->ptr = item;
    future->destroy = queue->destroy;
    future->owner = true;
  }
  go_on(queue);
  return rc;
}

static void drop_item(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_queue_t *queue = giver;
  queue->promised_items--;
  go_on(queue);
}

static void forsake_place(aloop_future_t *future, void *giver) {
  (void)future;
  aloop_queue_t *queue = giver;
  queue->promised_places--;
  go_on(queue);
}

/* The ring has had as many items before, or nobody would have had to wait for a place: there is room. */
static int keep_place(aloop_future_t *future, void *giver) {
  aloop_queue_t *queue = giver;
  bool shut = queue->shut;
  if (!shut) insert(queue, aloop__waiters_of(future)->item);
  forsake_place(future, giver);
  return shut ? ALOOP_ECLOSED : 0;
}

/* Nobody is going to hear that the item came too late. */
static void drop_place(aloop_future_t *future, void *giver) {
  aloop_destroy_fn destroy = ((aloop_queue_t *)giver)->destroy;
  if (keep_place(future, giver) < 0 && destroy != NULL) destroy(aloop__waiters_of(future)->item);
}

static const aloop__promise_t promised_item = {keep_item, drop_item, drop_item};
static const aloop__promise_t promised_place = {keep_place, drop_place, forsake_place};

/* ---- Life ------------------------------------------------------------------------------------------------ */

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_queue_t *queue = (const aloop_queue_t *)(const void *)object;
  snprintf(text, size, "of %zu items%s, %zu waiting to get, %zu to put, %zu to join", queue->items.count,
           queue->shut ? ", shut down" : "", queue->getters.count, queue->putters.count, queue->joiners.count);
}

static void destroy_queue(aloop__object_t *object) {
  aloop_queue_t *queue = ALOOP_CONTAINER_OF(object, aloop_queue_t, object);
  aloop__items_close(&queue->items, object->loop);
  aloop__object_end(object, queue);
}

/* Who waits is closed by himself. */
static void close_queue(aloop__object_t *object) {
  (void)object;
}

static const aloop__kind_t kind = {.name = "queue",
                                   .index = ALOOP__SYNC,
                                   .describe = describe,
                                   .destroy = destroy_queue,
                                   .close = close_queue};

static const char *rule_broken(const aloop_queue_options_t *options) {
  if (options->kind < ALOOP_FIFO || options->kind > ALOOP_PRIORITY)
    return "the kind of a queue is ALOOP_FIFO, ALOOP_LIFO or ALOOP_PRIORITY";
  if (options->kind == ALOOP_PRIORITY && options->compare == NULL)
    return "a queue by priority needs a function that compares items";
  if (options->kind != ALOOP_PRIORITY && options->compare != NULL)
    return "only a queue by priority compares items";
  return NULL;
}

int aloop_queue_new(aloop_t *loop, const aloop_queue_options_t *given, aloop_queue_t **out) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  aloop_queue_options_t options = {.size = sizeof options};
  if (given != NULL && aloop__memory_copy_options(&options, sizeof options, given) < 0)
    return aloop__misuse(loop, ALOOP_EINVAL, "set options.size to sizeof options");
  const char *rule = rule_broken(&options);
  if (rule != NULL) return aloop__misuse(loop, ALOOP_EINVAL, rule);
  if (out == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "a new queue needs a place to go to");
  aloop_queue_t *queue = aloop__memory_zero(loop, sizeof *queue);
  if (queue == NULL) return ALOOP_ENOMEM;
  aloop__object_init(&queue->object, loop, &kind, NULL);
  queue->items.kind = options.kind;
  queue->items.compare = options.compare;
  queue->items.compare_arg = options.compare_arg;
  queue->maxsize = options.maxsize;
  queue->destroy = options.destroy;
  aloop__waiters_init(&queue->getters);
  aloop__waiters_init(&queue->putters);
  aloop__waiters_init(&queue->joiners);
  *out = queue;
  return 0;
}

/* The destructor of an item may do anything, even free the queue. */
static void drop_items(aloop_queue_t *queue) {
  aloop__object_ref(&queue->object);
  while (queue->items.count > 0) {
    void *item = aloop__items_pop(&queue->items);
    if (queue->unfinished > 0) queue->unfinished--;
    if (queue->destroy != NULL) queue->destroy(item);
  }
  aloop__object_unref(&queue->object);
}

void aloop_queue_free(aloop_queue_t *queue) {
  if (queue == NULL || enter(queue) < 0) return;
  static const char message[] = "the queue was freed";
  queue->shut = true;
  aloop__waiters_fail_all(&queue->getters, ALOOP_ECANCELED, message);
  aloop__waiters_fail_all(&queue->putters, ALOOP_ECANCELED, message);
  aloop__waiters_fail_all(&queue->joiners, ALOOP_ECANCELED, message);
  drop_items(queue);
  aloop__object_unref(&queue->object);
}

/* ---- Putting --------------------------------------------------------------------------------------------- */

static const char shut_down[] = "the queue was shut down";

int aloop_queue_put_nowait(aloop_queue_t *queue, void *item) {
  int rc = enter(queue);
  if (rc < 0) return rc;
  if (queue->shut) return ALOOP_ECLOSED;
  if (!has_place(queue)) return ALOOP_EAGAIN;
  if (aloop__items_reserve(&queue->items, queue->object.loop) < 0) return ALOOP_ENOMEM;
  insert(queue, item);
  settle(queue);
  return 0;
}

/* There is a place. */
static aloop_future_t *put_at_once(aloop_queue_t *queue, void *item, const char *origin) {
  aloop_t *loop = queue->object.loop;
  if (aloop__items_reserve(&queue->items, loop) < 0) return NULL;
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (ALOOP_UNLIKELY(future == NULL || future->state != ALOOP__PENDING)) return future;
  insert(queue, item);
  aloop__future_finish(future, 0);
  settle(queue);
  return future;
}

aloop_future_t *aloop_queue_put(aloop_queue_t *queue, void *item) {
  static const char origin[] = "aloop_queue_put";
  if (enter(queue) < 0) return NULL;
  aloop_t *loop = queue->object.loop;
  if (queue->shut) return aloop__future_failed(loop, origin, ALOOP_ECLOSED, shut_down);
  if (has_place(queue)) return put_at_once(queue, item, origin);
  aloop_future_t *future = aloop__waiters_join(&queue->putters, loop, origin);
  if (future != NULL && future->state == ALOOP__PENDING) aloop__waiters_of(future)->item = item;
  return future;
}

/* ---- Getting --------------------------------------------------------------------------------------------- */

int aloop_queue_get_nowait(aloop_queue_t *queue, void *out) {
  int rc = enter(queue);
  if (rc < 0) return rc;
  if (out == NULL)
    return aloop__misuse(queue->object.loop, ALOOP_EINVAL, "an item that is got needs a place to go to");
  if (!has_item(queue)) return queue->shut ? ALOOP_ECLOSED : ALOOP_EAGAIN;
  void *item = aloop__items_pop(&queue->items);
  memcpy(out, &item, sizeof item);
  settle(queue);
  return 0;
}

aloop_future_t *aloop_queue_get(aloop_queue_t *queue) {
  static const char origin[] = "aloop_queue_get";
  if (enter(queue) < 0) return NULL;
  aloop_t *loop = queue->object.loop;
  if (!has_item(queue)) {
    if (queue->shut) return aloop__future_failed(loop, origin, ALOOP_ECLOSED, shut_down);
    return aloop__waiters_join(&queue->getters, loop, origin);
  }
  aloop_future_t *future = aloop__future_new(loop, origin);
  if (ALOOP_LIKELY(future != NULL && future->state == ALOOP__PENDING)) promise_item(queue, future);
  return future;
}

/* ---- The end of the work --------------------------------------------------------------------------------- */

int aloop_queue_task_done(aloop_queue_t *queue) {
  int rc = enter(queue);
  if (rc < 0) return rc;
  if (queue->unfinished == 0)
    return aloop__misuse(queue->object.loop, ALOOP_ERANGE,
                         "task_done is called once for each item that was got");
  if (--queue->unfinished == 0) aloop__waiters_finish_all(&queue->joiners, 0);
  return 0;
}

aloop_future_t *aloop_queue_join(aloop_queue_t *queue) {
  static const char origin[] = "aloop_queue_join";
  if (enter(queue) < 0) return NULL;
  aloop_t *loop = queue->object.loop;
  if (queue->unfinished > 0) return aloop__waiters_join(&queue->joiners, loop, origin);
  aloop_future_t *future = aloop__future_new(loop, origin);
  aloop__future_finish(future, 0);
  return future;
}

int aloop_queue_shutdown(aloop_queue_t *queue, bool immediate) {
  int rc = enter(queue);
  if (rc < 0) return rc;
  queue->shut = true;
  aloop__object_ref(&queue->object);
  if (immediate) {
    drop_items(queue);
    if (queue->unfinished == 0) aloop__waiters_finish_all(&queue->joiners, 0);
  }
  aloop__waiters_fail_all(&queue->getters, ALOOP_ECLOSED, shut_down);
  aloop__waiters_fail_all(&queue->putters, ALOOP_ECLOSED, shut_down);
  aloop__object_unref(&queue->object);
  return 0;
}

/* ---- Looking --------------------------------------------------------------------------------------------- */

size_t aloop_queue_qsize(const aloop_queue_t *queue) {
  return enter(queue) == 0 ? queue->items.count : 0;
}

size_t aloop_queue_maxsize(const aloop_queue_t *queue) {
  return enter(queue) == 0 ? queue->maxsize : 0;
}

bool aloop_queue_empty(const aloop_queue_t *queue) {
  return enter(queue) != 0 || !has_item(queue);
}

bool aloop_queue_full(const aloop_queue_t *queue) {
  return enter(queue) == 0 && !has_place(queue);
}
