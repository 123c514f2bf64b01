/* SPDX-License-Identifier: MIT
 *
 * Locks, semaphores and queues against models of them, which are arrays and loops without any cleverness: a few
 * actors do at random what is possible at the moment (take, read, drop, cancel, give back, miss a result as a cancelled
 * task does), and after each step every future must be done or not, and every question be answered, as the model says.
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "future/future.h"

enum { ACTORS = 7, STEPS = 40000, ITEMS_MAX = 64 };

typedef enum state { IDLE, WAITING, PROMISED, IN_TURN, HAS } state_t; /* IN_TURN: promised after a wait */

typedef struct actor {
  state_t state;
  aloop_future_t *future;
  int item; /* of a put; -1: it is a get */
} actor_t;

static unsigned seed;
static long step_number;

static unsigned below(unsigned limit) {
  seed = seed * 1103515245u + 12345u;
  return (seed >> 16) % limit;
}

#define HOLDS(condition)                                                                                       \
  do {                                                                                                         \
    if (!(condition)) fail_msg("seed %u, step %ld: not so: %s", first_seed, step_number, #condition);          \
  } while (0)

static unsigned first_seed;

/* ---- Lines of actors ----------------------------------------------------------------------------------------- */

typedef struct line {
  int actors[ACTORS];
  int count;
} line_t;

static void join(line_t *line, int actor) {
  line->actors[line->count++] = actor;
}

static void leave(line_t *line, int actor) {
  int i = 0;
  while (line->actors[i] != actor) i++;
  for (line->count--; i < line->count; i++) line->actors[i] = line->actors[i + 1];
}

static int next(line_t *line) {
  int first = line->actors[0];
  leave(line, first);
  return first;
}

static void let_go(actor_t *actor) {
  aloop_future_unref(actor->future);
  actor->future = NULL;
  actor->state = IDLE;
}

/* Misses a result: by dropping it, or as a cancelled task does. */
static void miss(actor_t *actor, bool forsake) {
  if (forsake) aloop__future_forsake(actor->future);
  let_go(actor);
}

static void check_futures(actor_t *actors) {
  for (int i = 0; i < ACTORS; i++)
    if (actors[i].state == WAITING || actors[i].state == PROMISED || actors[i].state == IN_TURN)
      HOLDS(aloop_future_done(actors[i].future) == (actors[i].state != WAITING));
}

/* ---- Semaphores, and locks, which are those with one place --------------------------------------------------- */

typedef struct places {
  actor_t actors[ACTORS];
  line_t line;
  int64_t value;
  aloop_semaphore_t *semaphore;
  aloop_lock_t *lock;
} places_t;

static int in_turn(const places_t *p) {
  int count = 0;
  for (int i = 0; i < ACTORS; i++) count += p->actors[i].state == IN_TURN;
  return count;
}

static void pass_on(places_t *p) {
  while (p->value > 0 && p->line.count > 0) {
    p->value--;
    p->actors[next(&p->line)].state = IN_TURN;
  }
}

static void give_back(places_t *p) {
  p->value++;
  pass_on(p);
}

static void acquire(places_t *p, int i) {
  actor_t *actor = &p->actors[i];
  actor->future = p->lock != NULL ? aloop_lock_acquire(p->lock) : aloop_semaphore_acquire(p->semaphore);
  if (p->value > 0 && in_turn(p) == 0) {
    p->value--;
    actor->state = PROMISED;
  } else {
    actor->state = WAITING;
    join(&p->line, i);
  }
}

static void cancel(places_t *p, int i) {
  assert_int_equal(aloop_future_cancel(p->actors[i].future), 1);
  let_go(&p->actors[i]);
  leave(&p->line, i);
}

static void read_place(places_t *p, int i) {
  bool turn = p->actors[i].state == IN_TURN;
  assert_int_equal(aloop_future_result(p->actors[i].future), 0);
  let_go(&p->actors[i]);
  p->actors[i].state = HAS;
  if (turn) pass_on(p);
}

static void release(places_t *p, int i) {
  assert_int_equal(p->lock != NULL ? aloop_lock_release(p->lock) : aloop_semaphore_release(p->semaphore), 0);
  p->actors[i].state = IDLE;
  give_back(p);
}

static void act(places_t *p, int i) {
  switch (p->actors[i].state) {
  case IDLE:
    acquire(p, i);
    break;
  case WAITING:
    if (below(4) == 0) cancel(p, i);
    break;
  case PROMISED:
  case IN_TURN:
    if (below(3) > 0) {
      read_place(p, i);
    } else {
      miss(&p->actors[i], below(2));
      give_back(p);
    }
    break;
  case HAS:
    release(p, i);
    break;
  }
}

static bool anybody(const places_t *p, state_t state) {
  for (int i = 0; i < ACTORS; i++)
    if (p->actors[i].state == state) return true;
  return false;
}

static void check_places(places_t *p) {
  check_futures(p->actors);
  if (p->lock != NULL) {
    HOLDS(aloop_lock_locked(p->lock) == (p->value == 0));
    if (!anybody(p, HAS)) HOLDS(aloop_lock_release(p->lock) == ALOOP_EPERM);
  } else {
    HOLDS(aloop_semaphore_value(p->semaphore) == p->value);
    HOLDS(aloop_semaphore_locked(p->semaphore) == (p->value == 0 || in_turn(p) > 0));
  }
}

static void play_places(env_t *env, places_t *p) {
  for (step_number = 0; step_number < STEPS; step_number++) {
    act(p, (int)below(ACTORS));
    if (step_number % 16 == 0) run_turn(env->loop);
    check_places(p);
  }
  for (int i = 0; i < ACTORS; i++)
    if (p->actors[i].future != NULL) let_go(&p->actors[i]);
}

static void a_lock_is_like_its_model(void **state) {
  env_t *env = *state;
  for (first_seed = 1; first_seed <= 5; first_seed++) {
    seed = first_seed;
    places_t p = {.value = 1};
    assert_int_equal(aloop_lock_new(env->loop, &p.lock), 0);
    play_places(env, &p);
    aloop_lock_free(p.lock);
  }
}

static void a_semaphore_is_like_its_model(void **state) {
  env_t *env = *state;
  for (first_seed = 1; first_seed <= 8; first_seed++) {
    seed = first_seed;
    places_t p = {.value = first_seed % 4};
    assert_int_equal(aloop_semaphore_new(env->loop, p.value, p.value > 0, &p.semaphore), 0);
    if (p.value == 0) {
      assert_int_equal(aloop_semaphore_release(p.semaphore), 0);
      p.value++;
    }
    play_places(env, &p);
    aloop_semaphore_free(p.semaphore);
  }
}

/* ---- Queues -------------------------------------------------------------------------------------------------- */

typedef struct channel {
  actor_t actors[ACTORS];
  line_t getters, putters;
  int items[ITEMS_MAX]; /* numbers, in the order of coming */
  int count;
  int promised_items, promised_places;
  int made;     /* numbers given so far */
  int got, put; /* items through */
  int unfinished;
  bool shut;
  int kind, maxsize;
  aloop_queue_t *queue;
} channel_t;

static char names[STEPS + 1]; /* the address of names[n] is item n */

static int urgency(int item) {
  return item * 7 % 5;
}

static int compare(const void *a, const void *b, void *arg) {
  (void)arg;
  return urgency((int)((const char *)a - names)) - urgency((int)((const char *)b - names));
}

static int take_item(channel_t *c) {
  int at = c->kind == ALOOP_LIFO ? c->count - 1 : 0;
  for (int i = 1; c->kind == ALOOP_PRIORITY && i < c->count; i++)
    if (urgency(c->items[i]) < urgency(c->items[at])) at = i;
  int item = c->items[at];
  for (c->count--; at < c->count; at++) c->items[at] = c->items[at + 1];
  c->got++;
  return item;
}

static void add_item(channel_t *c, int item) {
  c->items[c->count++] = item;
  c->put++;
  c->unfinished++;
}

static bool has_item(const channel_t *c) {
  return c->count > c->promised_items;
}

/* An array is full some time. */
static int limit_of(const channel_t *c) {
  return c->maxsize > 0 ? c->maxsize : ITEMS_MAX;
}

static bool has_place(const channel_t *c) {
  return c->count + c->promised_places < limit_of(c);
}

static void settle(channel_t *c) {
  for (; c->getters.count > 0 && has_item(c); c->promised_items++)
    c->actors[next(&c->getters)].state = PROMISED;
  for (; c->putters.count > 0 && has_place(c) && !c->shut; c->promised_places++)
    c->actors[next(&c->putters)].state = PROMISED;
}

static void start_get(channel_t *c, int i) {
  actor_t *actor = &c->actors[i];
  actor->item = -1;
  actor->future = aloop_queue_get(c->queue);
  if (has_item(c)) {
    actor->state = PROMISED;
    c->promised_items++;
  } else if (c->shut) {
    HOLDS(aloop_future_result(actor->future) == ALOOP_ECLOSED);
    let_go(actor);
  } else {
    actor->state = WAITING;
    join(&c->getters, i);
  }
}

static void start_put(channel_t *c, int i) {
  actor_t *actor = &c->actors[i];
  if (c->maxsize == 0 && c->count == ITEMS_MAX) return;
  actor->item = c->made++;
  actor->future = aloop_queue_put(c->queue, &names[actor->item]);
  if (c->shut || has_place(c)) {
    HOLDS(aloop_future_result(actor->future) == (c->shut ? ALOOP_ECLOSED : 0));
    let_go(actor);
    if (!c->shut) add_item(c, actor->item);
    settle(c);
  } else {
    actor->state = WAITING;
    join(&c->putters, i);
  }
}

static void read_get(channel_t *c, actor_t *actor) {
  char *item = NULL;
  int rc = aloop_future_take_ptr(actor->future, &item);
  c->promised_items--;
  if (c->count == 0) {
    HOLDS(c->shut && rc == ALOOP_ECLOSED);
  } else {
    int expected = take_item(c);
    HOLDS(rc == 0 && item == &names[expected]);
  }
  let_go(actor);
}

static void read_put(channel_t *c, actor_t *actor) {
  int64_t rc = aloop_future_result(actor->future);
  c->promised_places--;
  HOLDS(rc == (c->shut ? ALOOP_ECLOSED : 0));
  if (!c->shut) add_item(c, actor->item);
  let_go(actor);
}

/* A put that is dropped has put; one that was forsaken has not. */
static void miss_end(channel_t *c, actor_t *actor) {
  bool forsake = below(2);
  if (actor->item < 0) {
    c->promised_items--;
  } else {
    c->promised_places--;
    if (!forsake && !c->shut) add_item(c, actor->item);
  }
  miss(actor, forsake);
}

static void end_wait(channel_t *c, int i) {
  actor_t *actor = &c->actors[i];
  if (below(3) == 0)
    miss_end(c, actor);
  else if (actor->item < 0)
    read_get(c, actor);
  else
    read_put(c, actor);
  settle(c);
}

static void stop_waiting(channel_t *c, int i) {
  actor_t *actor = &c->actors[i];
  assert_int_equal(aloop_future_cancel(actor->future), 1);
  leave(actor->item < 0 ? &c->getters : &c->putters, i);
  let_go(actor);
}

static void act_without_waiting(channel_t *c) {
  char *item = NULL;
  if (below(2)) {
    int rc = aloop_queue_get_nowait(c->queue, &item);
    HOLDS(rc == (has_item(c) ? 0 : c->shut ? ALOOP_ECLOSED : ALOOP_EAGAIN));
    if (rc == 0) HOLDS(item == &names[take_item(c)]);
  } else if (c->maxsize > 0 || c->count < ITEMS_MAX) {
    int rc = aloop_queue_put_nowait(c->queue, &names[c->made]);
    HOLDS(rc == (c->shut ? ALOOP_ECLOSED : has_place(c) ? 0 : ALOOP_EAGAIN));
    if (rc == 0) add_item(c, c->made++);
  }
  settle(c);
}

static void shut_down(channel_t *c) {
  bool immediate = below(2);
  assert_int_equal(aloop_queue_shutdown(c->queue, immediate), 0);
  c->shut = true;
  if (immediate) {
    c->unfinished = c->unfinished > c->count ? c->unfinished - c->count : 0;
    c->got += c->count;
    c->count = 0;
  }
  for (int i = 0; i < ACTORS; i++) {
    if (c->actors[i].state != WAITING) continue;
    HOLDS(aloop_future_result(c->actors[i].future) == ALOOP_ECLOSED);
    let_go(&c->actors[i]);
  }
  c->getters.count = c->putters.count = 0;
}

static void finish_one(channel_t *c) {
  int rc = aloop_queue_task_done(c->queue);
  HOLDS(rc == (c->unfinished > 0 ? 0 : ALOOP_ERANGE));
  if (rc == 0) c->unfinished--;
}

static void step(channel_t *c, int i, bool may_shut) {
  unsigned choice = below(100);
  if (choice < 10)
    act_without_waiting(c);
  else if (choice < 15)
    finish_one(c);
  else if (choice == 15 && may_shut && below(20) == 0)
    shut_down(c);
  else if (c->actors[i].state == PROMISED)
    end_wait(c, i);
  else if (c->actors[i].state == WAITING && below(5) == 0)
    stop_waiting(c, i);
  else if (c->actors[i].state == IDLE && below(2))
    start_get(c, i);
  else if (c->actors[i].state == IDLE)
    start_put(c, i);
}

static void check_queue(channel_t *c) {
  check_futures(c->actors);
  HOLDS(aloop_queue_qsize(c->queue) == (size_t)c->count);
  HOLDS(aloop_queue_empty(c->queue) == !has_item(c));
  HOLDS(aloop_queue_full(c->queue) == (c->maxsize > 0 && !has_place(c)));
  HOLDS(c->put - c->got == c->count);
}

static void play_queue(env_t *env, channel_t *c, bool may_shut) {
  for (step_number = 0; step_number < STEPS && !(c->shut && below(200) == 0); step_number++) {
    step(c, (int)below(ACTORS), may_shut);
    if (step_number % 16 == 0) run_turn(env->loop);
    check_queue(c);
  }
  for (int i = 0; i < ACTORS; i++)
    if (c->actors[i].future != NULL) let_go(&c->actors[i]);
  aloop_queue_free(c->queue);
}

static void a_queue_is_like_its_model(void **state) {
  env_t *env = *state;
  for (first_seed = 1; first_seed <= 60; first_seed++) {
    seed = first_seed;
    channel_t c = {.kind = (int)(first_seed % 3), .maxsize = (int)(first_seed / 3 % 4)};
    aloop_queue_options_t options = {.size = sizeof options,
                                     .maxsize = (size_t)c.maxsize,
                                     .kind = c.kind,
                                     .compare = c.kind == ALOOP_PRIORITY ? compare : NULL};
    assert_int_equal(aloop_queue_new(env->loop, &options, &c.queue), 0);
    play_queue(env, &c, first_seed > 12);
  }
}

TESTS(T(a_lock_is_like_its_model), T(a_semaphore_is_like_its_model), T(a_queue_is_like_its_model))
