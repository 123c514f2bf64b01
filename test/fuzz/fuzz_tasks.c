/* SPDX-License-Identifier: MIT
 *
 * Any program made of tasks. The input says what each task does, step by step: it makes tasks, waits for
 * them, cancels them, limits their time, groups them; uses locks, conditions, events, semaphores, barriers,
 * queues, generators, jobs and streams; and waits for all of that directly or through wait_for, gather, wait,
 * shield and as_completed. Callbacks and the program around the loop do the same to the same objects, which are
 * freed at any moment, also while somebody waits. What must hold:
 *
 * - one has a lock, and no more have places than there are; after the wait of a condition the lock is there;
 * - every item of a queue and every object and argument is destroyed once, or is the caller's;
 * - a generator hands out no item twice once it was read;
 * - a group ends after its children, a time limit answers only its own request;
 * - bytes of streams come in order;
 * - when all is cancelled and released, every task ends; and every block and descriptor is given back.
 *
 * In one input out of four, allocations fail now and then. One in three ends by closing the loop in the middle.
 * Only the public header is used. A broken promise traps.
 */
#include "tasks/actors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

tasks_world_t t;

bool in_task(void) {
  return aloop_current_task(t.loop) != NULL;
}

int64_t moment(void) {
  int64_t n = byte();
  return n > 250 ? ALOOP_FOREVER : n - 10;
}

void check_code(int64_t rc) {
  MUST(rc >= 0 || strcmp(aloop_error_name(rc), "UNKNOWN") != 0);
  MUST(rc != ALOOP_ENOTDONE && rc != ALOOP_EOTHERLOOP && rc != ALOOP_ENOTLOOPTHREAD && rc != ALOOP_EDONE);
  MUST(rc != ALOOP_ENOMEM || t.starved);
}

/* ---- Wishes ---------------------------------------------------------------------------------------------- */

/* What was read counts. */
static void settle(const wish_t *wish, int64_t rc, void *object) {
  check_code(rc);
  if (wish->kind == SLEEP) MUST(rc < 0 || aloop_time(t.loop) >= wish->until);
  if (wish->kind == LOCK) read_lock(wish, rc);
  if (wish->kind == PLACE) read_place(wish, rc);
  if (wish->kind == STEP) read_step(wish, rc, object);
  if (wish->kind == GET && rc == 0) drop_item(object);
  if (wish->kind == OBJECT && rc == 0) {
    t.objects--;
    free(object);
  }
}

static bool has_object(kind_t kind) {
  return kind == GET || kind == OBJECT || kind == STEP;
}

/* Reads the result of a future that is done. */
static void read_done(wish_t *wish) {
  void *object = NULL;
  int64_t rc =
      has_object(wish->kind) ? aloop_future_take_ptr(wish->future, &object) : aloop_future_result(wish->future);
  if (rc == ALOOP_ENOENT && has_object(wish->kind)) rc = ALOOP_EAGAIN; /* no object */
  settle(wish, rc, object);
  (void)aloop_future_message(wish->future);
  drop(wish);
}

void drop(wish_t *wish) {
  aloop_future_t *future = wish->future;
  wish->future = NULL;
  aloop_future_unref(future);
}

static void await_wish(wish_t *wish) {
  void *object = NULL;
  aloop_future_t *future = wish->future;
  wish_t kept = *wish;
  wish->future = NULL;
  if (!has_object(kept.kind)) {
    settle(&kept, aloop_await(future), NULL);
    return;
  }
  int rc = aloop_await_ptr(future, &object);
  settle(&kept, rc == ALOOP_ENOENT ? ALOOP_EAGAIN : rc, object);
}

static wish_t *some_slot(void) {
  return &t.slots[byte() % SLOTS];
}

static void into_slot(wish_t wish) {
  wish_t *slot = some_slot();
  if (slot->future != NULL) drop(slot);
  if (slot->future != NULL) { /* dropping did something */
    aloop_future_unref(wish.future);
    return;
  }
  *slot = wish;
}

/* Around the future another one, which answers for it. */
static aloop_future_t *around(aloop_future_t *future, unsigned how) {
  switch (how % 4) {
  case 0:
    return aloop_wait_for(future, moment());
  case 1:
    return aloop_gather(t.loop, &future, 1, byte() & 1 ? ALOOP_RETURN_ERRORS : 0);
  case 2:
    return aloop_shield(future);
  default:
    return aloop_wait_for(aloop_shield(future), moment());
  }
}

void have_behind(int serial, aloop_future_t *future, kind_t kind, unsigned index, unsigned life) {
  wish_t wish = {future, kind, index, life, 0, serial};
  if (future == NULL) {
    MUST(t.starved);
    return;
  }
  unsigned how = byte();
  if (!in_task() || serial <= t.floor || how % 4 == 0) {
    into_slot(wish);
    return;
  }
  if (how % 4 != 1) {
    await_wish(&wish);
    return;
  }
  if (kind == STEP || how & 4) { /* kept */
    int64_t rc = aloop_await_keep(future);
    if (rc == ALOOP_ECANCELED || rc == ALOOP_ECLOSED || rc == ALOOP_ENOMEM)
      lose_sight(&wish);
    else if (aloop_future_done(future) && has_object(kind)) {
      read_done(&wish);
      return;
    } else
      settle(&wish, rc, NULL);
    drop(&wish);
    return;
  }
  unsigned wrap = how >> 3;
  if (wrap % 4 == 1 || has_object(kind)) { /* a gather's value is not its child's */
    aloop_future_t *outer = around(future, wrap);
    if (outer == NULL) MUST(t.starved);
    lose_sight(&wish);
    check_code(aloop_await(outer));
    return;
  }
  wish.future = around(future, wrap);
  await_wish(&wish);
}

void have(aloop_future_t *future, kind_t kind, unsigned index, unsigned life) {
  have_behind(NO_TASK, future, kind, index, life);
}

/* ---- Futures --------------------------------------------------------------------------------------------- */

static void on_done(aloop_future_t *future, void *arg) {
  (void)arg;
  MUST(aloop_future_done(future));
  react_as(NO_TASK, 0);
}

static void make_future(void) {
  have(aloop_future_new(t.loop), NOTHING, 0, 0);
}

static void make_sleep(void) {
  int64_t delay = moment();
  if (delay < 0) delay = 0;
  wish_t wish = {aloop_sleep(t.loop, delay), SLEEP, 0, 0, aloop_time(t.loop) + delay, NO_TASK};
  if (wish.future == NULL) return;
  if (in_task() && byte() & 1)
    await_wish(&wish);
  else
    into_slot(wish);
}

static void end_future(void) {
  wish_t *slot = some_slot();
  if (slot->future == NULL) return;
  unsigned how = byte();
  int rc =
      how & 1 ? aloop_future_set_value(slot->future, 7) : aloop_future_set_error(slot->future, ALOOP_EIO, "so");
  if (rc == 0) slot->kind = NOTHING;
  MUST(rc == 0 || rc == ALOOP_EDONE || rc == ALOOP_EPERM);
}

static void cancel_future(void) {
  wish_t *slot = some_slot();
  if (slot->future == NULL) return;
  aloop_future_t *future = aloop_future_ref(slot->future);
  int rc = byte() & 1 && aloop_is_task(future) ? aloop_task_cancel(future, "go") : aloop_future_cancel(future);
  MUST(rc == 0 || rc == 1);
  aloop_future_unref(future);
}

static void look_at_slot(void) {
  wish_t *slot = some_slot();
  if (slot->future != NULL && aloop_future_done(slot->future)) read_done(slot);
}

static void drop_slot(void) {
  wish_t *slot = some_slot();
  if (slot->future != NULL) drop(slot);
}

static void add_callback(void) {
  wish_t *slot = some_slot();
  if (slot->future == NULL) return;
  if (byte() % 4 == 0)
    MUST(aloop_future_remove_done_callback(slot->future, on_done, NULL) >= 0);
  else
    check_code(aloop_future_add_done_callback(slot->future, on_done, NULL));
}

static void await_slot(void) {
  wish_t *slot = some_slot();
  if (slot->future == NULL || !in_task() || slot->serial <= t.floor) return;
  if (aloop_is_task(slot->future) && byte() & 1) {
    int64_t rc = aloop_await(aloop_future_ref(slot->future)); /* two may wait for one */
    if (slot->kind == OBJECT) lose_sight(slot);
    check_code(rc);
    return;
  }
  await_wish(slot);
}

/* The futures of some slots become one. */
static void combine(void) {
  aloop_future_t *parts[4];
  unsigned how = byte(), count = 0;
  int oldest = NO_TASK;
  for (unsigned i = 0; i < 1 + how % 4; i++) {
    wish_t *slot = some_slot();
    if (slot->future == NULL) continue;
    if (slot->serial < oldest) oldest = slot->serial;
    lose_sight(slot);
    parts[count++] = slot->future;
    slot->future = NULL;
  }
  if (count == 0) return;
  if (how & 8) {
    have_behind(oldest, aloop_gather(t.loop, parts, count, how & 16 ? ALOOP_RETURN_ERRORS : 0), NOTHING, 0, 0);
  } else if (how & 16) {
    have_behind(oldest, aloop_wait(t.loop, parts, count, moment(), (int)(how >> 5) % 3), NOTHING, 0, 0);
  } else {
    aloop_as_completed_t *all;
    int floor = t.floor, nest = t.nest + 1;
    int rc = aloop_as_completed_new(t.loop, parts, count, moment(), &all);
    check_code(rc);
    if (rc < 0) return;
    for (unsigned i = 0; i < (how >> 5) && in_task() && oldest > floor; i++) {
      aloop_future_t *next = NULL;
      rc = aloop_await_ptr(aloop_as_completed_next(all), &next);
      check_code(rc);
      if (rc < 0) break;
      MUST(aloop_future_done(next));
      aloop_future_unref(next);
      react_as(floor, nest);
    }
    aloop_as_completed_free(all);
  }
}

/* ---- Tasks ----------------------------------------------------------------------------------------------- */

static void argument_over(void *arg) {
  t.arguments--;
  free(arg);
}

static void object_over(void *object) {
  t.objects--;
  free(object);
}

typedef struct order {
  unsigned how;
  int serial;
} order_t;

/* What tasks do: the argument says how they end. */
static int64_t body(aloop_t *loop, void *arg) {
  const order_t *order = arg;
  unsigned how = order->how;
  MUST(loop == t.loop && in_task());
  t.bodies++;
  for (unsigned i = 0; i < how % 16; i++) react_as(order->serial, 0);
  t.bodies--;
  if (how & 128) {
    void *object = malloc(1);
    t.objects++;
    MUST(aloop_return_ptr(object, object_over) == 0);
    return 0;
  }
  if (how & 64) return aloop_return_error(ALOOP_EIO, "%u", how);
  return how & 32 ? ALOOP_ECANCELED : (int64_t)how;
}

static aloop_future_t *start(aloop_task_group_t *group, kind_t *kind, int *serial) {
  order_t *arg = malloc(sizeof *arg);
  unsigned how = byte();
  if (t.bodies > TASKS_MAX) how &= ~1U;
  *arg = (order_t){byte(), *serial = ++t.serials};
  *kind = arg->how & 128 ? OBJECT : NOTHING;
  aloop_context_t *context = NULL;
  if (how & 2) check_code(aloop_context_copy(t.loop, &context));
  aloop_task_options_t options = {.size = sizeof options,
                                  .name = how & 4 ? "somebody" : NULL,
                                  .context = context,
                                  .stack_size = 131072,
                                  .eager = (how & 1) && t.depth < DEPTH_MAX,
                                  .destroy = argument_over};
  t.arguments++;
  aloop_future_t *future = group != NULL ? aloop_task_group_create_task(group, body, arg, &options)
                                         : aloop_create_task(t.loop, body, arg, &options);
  aloop_context_unref(context);
  if (future == NULL) argument_over(arg);
  return future;
}

static void make_task(void) {
  kind_t kind;
  int serial;
  aloop_future_t *future = start(NULL, &kind, &serial);
  if (future != NULL && byte() % 4 == 0)
    aloop_future_detach(future);
  else
    have_behind(serial, future, kind, 0, 0);
}

/* A task of this very moment, whatever runs. */
static void about_tasks(void) {
  aloop_future_t *tasks[8];
  size_t all = aloop_all_tasks(t.loop, tasks, 8);
  for (size_t i = 0; i < all && i < 8; i++) {
    unsigned how = byte();
    if (how % 8 == 0) MUST(aloop_task_cancel(tasks[i], NULL) == 1);
    if (how % 8 == 1) MUST(aloop_task_uncancel(tasks[i]) >= 0);
    if (how % 8 == 2) check_code(aloop_task_set_name(tasks[i], "else"));
    MUST(aloop_task_name(tasks[i]) != NULL && aloop_task_cancelling(tasks[i]) >= 0);
    aloop_future_unref(tasks[i]);
  }
}

static void limited(void) {
  aloop_timeout_t limit;
  int floor = t.floor, nest = t.nest + 1;
  if (!in_task()) return;
  check_code(aloop_timeout_begin(&limit, moment()));
  for (unsigned n = byte() % 4; n > 0; n--) react_as(floor, nest);
  unsigned how = byte();
  if (how & 1) {
    int rc = aloop_timeout_reschedule(&limit, how & 2 ? ALOOP_FOREVER : aloop_time(t.loop) + moment());
    MUST(rc == 0 || rc == ALOOP_EDONE || t.starved || aloop_is_closed(t.loop));
  }
  react_as(floor, nest);
  int64_t rc = aloop_timeout_end(&limit, how & 4 ? ALOOP_ECANCELED : 3);
  MUST(rc == 3 || rc == ALOOP_ECANCELED || rc == ALOOP_ETIMEDOUT || t.starved || aloop_is_closed(t.loop));
  MUST(rc != ALOOP_ETIMEDOUT || (how & 4));
}

static void in_group(void) {
  aloop_task_group_t *group;
  int floor = t.floor, nest = t.nest + 1;
  if (!in_task()) return;
  int rc = aloop_task_group_begin(t.loop, &group);
  check_code(rc);
  if (rc < 0) return;
  aloop_future_t *children[4];
  int count = 0;
  for (unsigned n = byte() % 5; n > 0 && count < 4; n--) {
    kind_t kind;
    int serial;
    aloop_future_t *child = start(group, &kind, &serial);
    if (child != NULL) children[count++] = child;
    if (n & 1) react_as(floor, nest);
  }
  int64_t end = aloop_task_group_end(group, byte() & 1 ? ALOOP_EPIPE : 5);
  check_code(end);
  for (int i = 0; i < count; i++) {
    MUST(aloop_is_closed(t.loop) || aloop_future_done(children[i]));
    aloop_future_unref(children[i]);
  }
  size_t errors = aloop_task_group_errors(group);
  for (size_t i = 0; i < errors; i++) MUST(aloop_task_group_error(group, i) != NULL);
  MUST(aloop_task_group_error(group, errors) == NULL);
  aloop_task_group_free(group);
}

static void from_a_thread(void) {
  if (t.sync != NULL) {
    unsigned how = byte();
    if (how & 1) check_code(aloop_sync_cancel(t.sync));
    (void)aloop_sync_done(t.sync);
    (void)aloop_sync_wait(t.sync, 0);
    if (how & 2) {
      aloop_sync_unref(t.sync);
      t.sync = NULL;
    }
    return;
  }
  static order_t orders[64];
  unsigned which = byte() & 63;
  orders[which] = (order_t){which, ++t.serials};
  check_code(aloop_run_coroutine_threadsafe(t.loop, body, &orders[which], &t.sync));
}

/* ---- The program ----------------------------------------------------------------------------------------- */

static void see_line(void *arg, const char *text) {
  MUST(text != NULL);
  if (arg != NULL) fprintf(stderr, "%s\n", text);
}

static void look_around(void) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  MUST(aloop_metrics(t.loop, &metrics) == 0);
  check_code(aloop_dump(t.loop, see_line, NULL));
}

static void on_call(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  react_as(NO_TASK, 0);
}

static void call(void) {
  unsigned how = byte();
  if (how & 1)
    aloop_call_soon(t.loop, on_call, NULL);
  else if (how & 2)
    check_code(aloop_call_soon_threadsafe(t.loop, on_call, NULL));
  else
    aloop_call_later(t.loop, moment(), on_call, NULL);
}

static void turn(void) {
  if (aloop_is_running(t.loop)) return;
  int rc = aloop_run_once(t.loop, 0);
  check_code(rc);
}

static void pass_time(void) {
  if (!aloop_is_running(t.loop)) {
    int rc = aloop_run_once(t.loop, 1 + byte());
    check_code(rc);
  }
}

static void famine(void) {
  if (t.starved) fuzz.fail_every = fuzz.fail_every == 1 ? 0 : 1;
}

static void act(void) {
  static void (*const actions[])(void) = {
      turn,          turn,       turn,       pass_time,     make_task,     make_task,     make_task,
      make_future,   make_sleep, make_sleep, end_future,    cancel_future, look_at_slot,  drop_slot,
      add_callback,  await_slot, await_slot, combine,       combine,       about_tasks,   limited,
      limited,       in_group,   in_group,   use_lock,      use_lock,      use_lock,      use_condition,
      use_condition, use_event,  use_event,  use_place,     use_place,     use_barrier,   use_queue,
      use_queue,     use_queue,  use_queue,  use_generator, use_generator, use_generator, use_job,
      use_job,       use_stream, use_stream, use_stream,    from_a_thread, call,          look_around,
      famine,
  };
  if (t.actions++ > ACTIONS_MAX || fuzz.size == 0) return;
  actions[byte() % (sizeof actions / sizeof actions[0])]();
}

void react_as(int serial, int nest) {
  if (fuzz.size == 0 || t.depth >= DEPTH_MAX || nest > NEST_MAX || t.closing) return;
  bool task = in_task();
  if (!task) t.depth++; /* a task leaves it in the middle */
  for (unsigned n = byte() & 3; n > 0; n--) {
    t.floor = serial;
    t.nest = nest;
    act();
  }
  if (!task) t.depth--;
}

void react(void) {
  react_as(NO_TASK, t.nest + 1);
}

/* All that waits is told to end, and all that is held is released, until there is no task. */
static void wind_down(void) {
  fuzz.size = 0;
  for (int turns = 0; aloop_all_tasks(t.loop, NULL, 0) > 0; turns++) {
    if (turns == 2000) aloop_dump(t.loop, see_line, &t); /* what hangs */
    MUST(turns < 2000);
    static aloop_future_t *tasks[ALL_MAX];
    size_t all = aloop_all_tasks(t.loop, tasks, ALL_MAX);
    for (size_t i = 0; i < all && i < ALL_MAX; i++) {
      if (turns % 3 == 0) aloop_task_cancel(tasks[i], NULL);
      aloop_future_unref(tasks[i]);
    }
    for (int i = 0; i < SLOTS; i++)
      if (t.slots[i].future != NULL) drop(&t.slots[i]);
    release_all();
    if (turns == 1000) free_sync(); /* a gather that nobody asks about may hold a lock and wait for ever */
    drop_jobs();
    turn();
  }
}

static int quiet(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop, (void)arg;
  MUST(context->message != NULL);
  return 0;
}

static bool begin(void) {
  static const aloop_allocator_t allocator = {sizeof allocator, resize, release, NULL};
  unsigned how = byte();
  t.starved = (how & 0x0c) == 0x0c;
  t.real = (how & 3) == 3;
  if (t.starved) fuzz.fail_every = 2 + byte() % 60;
  aloop_options_t options = {.size = sizeof options,
                             .poller = t.real ? "uring" : NULL,
                             .poller_table = t.real ? NULL : jumping_poller(how & 3),
                             .allocator = &allocator,
                             .debug = how & 0x10 ? 1 : -1};
  int rc = aloop_new(&options, &t.loop);
  MUST(rc == 0 || t.starved);
  if (rc < 0) return false;
  check_code(aloop_set_exception_handler(t.loop, quiet, NULL));
  return true;
}

static int lowest_descriptor(void) {
  int fd = dup(0);
  close(fd);
  return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int free_fd = lowest_descriptor();
  memset(&t, 0, sizeof t);
  begin_input(data, size);
  fuzz.now = 1000;
  if (begin()) {
    while (fuzz.size > 0 && t.actions < ACTIONS_MAX) act();
    fuzz.fail_every = 0;
    if (size % 3 != 0) wind_down();
    t.closing = true;
    MUST(aloop_close(t.loop) == 0);
    for (int i = 0; i < SLOTS; i++)
      if (t.slots[i].future != NULL) drop(&t.slots[i]);
    free_sync();
    free_others();
    aloop_sync_unref(t.sync);
    aloop_free(t.loop);
  }
  MUST(t.arguments == 0 && t.objects == 0 && t.items == 0 && t.jobs == 0);
  MUST(fuzz.live == 0);
  MUST(lowest_descriptor() == free_fd);
  return 0;
}
