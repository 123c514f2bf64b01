/* SPDX-License-Identifier: MIT
 *
 * Queues: who gets which item and when, limits, priorities, the end of the work, shutting down, and what a
 * cancel leaves behind.
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "future/future.h"

static char items[16]; /* an item is a pointer into this */
static int destroyed;

static void count_destroy(void *item) {
  (void)item;
  destroyed++;
}

static aloop_queue_t *new_queue(env_t *env, aloop_queue_options_t options) {
  aloop_queue_t *queue;
  options.size = sizeof options;
  destroyed = 0;
  assert_int_equal(aloop_queue_new(env->loop, &options, &queue), 0);
  return queue;
}

static aloop_queue_t *new_plain(env_t *env, size_t maxsize) {
  return new_queue(env, (aloop_queue_options_t){.maxsize = maxsize});
}

static void put(aloop_queue_t *queue, int item) {
  assert_int_equal(aloop_queue_put_nowait(queue, &items[item]), 0);
}

static int get(aloop_queue_t *queue) {
  char *item = NULL;
  assert_int_equal(aloop_queue_get_nowait(queue, &item), 0);
  return (int)(item - items);
}

static void assert_got(aloop_future_t *future, int item) {
  char *got = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &got), 0);
  assert_int_equal(got - items, item);
  aloop_future_unref(future);
}

static void assert_ends(aloop_future_t *future, int64_t result) {
  assert_int_equal(aloop_future_result(future), result);
  aloop_future_unref(future);
}

static aloop_future_t *waiting_get(aloop_queue_t *queue) {
  aloop_future_t *future = aloop_queue_get(queue);
  assert_false(aloop_future_done(future));
  return future;
}

static aloop_future_t *waiting_put(aloop_queue_t *queue, int item) {
  aloop_future_t *future = aloop_queue_put(queue, &items[item]);
  assert_false(aloop_future_done(future));
  return future;
}

/* ---- Items ----------------------------------------------------------------------------------------------- */

static void items_come_out_as_they_went_in(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  assert_true(aloop_queue_empty(queue));
  for (int i = 0; i < 10; i++) assert_ends(aloop_queue_put(queue, &items[i]), 0);
  assert_int_equal(aloop_queue_qsize(queue), 10);
  assert_false(aloop_queue_full(queue));
  for (int i = 0; i < 10; i += 2) {
    assert_int_equal(get(queue), i);
    assert_got(aloop_queue_get(queue), i + 1);
  }
  char *none = NULL;
  assert_int_equal(aloop_queue_get_nowait(queue, &none), ALOOP_EAGAIN);
  assert_null(none);
  aloop_queue_free(queue);
}

static void a_stack_gives_the_newest(void **state) {
  aloop_queue_t *queue = new_queue(*state, (aloop_queue_options_t){.kind = ALOOP_LIFO});
  for (int i = 0; i < 3; i++) put(queue, i);
  for (int i = 2; i >= 0; i--) assert_int_equal(get(queue), i);
  aloop_queue_free(queue);
}

/* Higher addresses first, modulo 4. */
static int compare(const void *a, const void *b, void *arg) {
  assert_ptr_equal(arg, items);
  return (int)(((const char *)b - items) % 4 - ((const char *)a - items) % 4);
}

static aloop_queue_t *new_priority(env_t *env) {
  return new_queue(env,
                   (aloop_queue_options_t){.kind = ALOOP_PRIORITY, .compare = compare, .compare_arg = items});
}

static void the_most_urgent_comes_out_first(void **state) {
  aloop_queue_t *queue = new_priority(*state);
  for (int i = 0; i < 12; i++) put(queue, i);
  for (int i = 0; i < 12; i++) assert_int_equal(get(queue), 3 - i / 3 + i % 3 * 4);
  aloop_queue_free(queue);
}

static void null_is_an_item(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  assert_int_equal(aloop_queue_put_nowait(queue, NULL), 0);
  void *item = items;
  aloop_future_t *future = aloop_queue_get(queue);
  assert_int_equal(aloop_future_take_ptr(future, &item), 0);
  assert_null(item);
  aloop_future_unref(future);
  aloop_queue_free(queue);
}

static void items_nobody_got_are_destroyed(void **state) {
  aloop_queue_t *queue = new_queue(*state, (aloop_queue_options_t){.destroy = count_destroy});
  for (int i = 0; i < 5; i++) put(queue, i);
  assert_int_equal(get(queue), 0);
  assert_got(aloop_queue_get(queue), 1);
  assert_int_equal(destroyed, 0);
  assert_ends(aloop_queue_get(queue), 0); /* read, but not taken */
  assert_int_equal(destroyed, 1);
  aloop_queue_free(queue);
  assert_int_equal(destroyed, 3);
}

/* ---- Waiting --------------------------------------------------------------------------------------------- */

static void who_waits_first_gets_first(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  aloop_future_t *first = waiting_get(queue), *second = waiting_get(queue);
  put(queue, 7);
  assert_true(aloop_future_done(first));
  assert_false(aloop_future_done(second));
  put(queue, 8);
  assert_got(first, 7);
  assert_got(second, 8);
  aloop_queue_free(queue);
}

static void nobody_takes_what_was_promised(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  char *none = NULL;
  aloop_future_t *first = waiting_get(queue);
  put(queue, 1);
  assert_int_equal(aloop_queue_qsize(queue), 1);
  assert_true(aloop_queue_empty(queue));
  assert_int_equal(aloop_queue_get_nowait(queue, &none), ALOOP_EAGAIN);
  aloop_future_t *second = waiting_get(queue);
  assert_got(first, 1);
  put(queue, 2);
  assert_got(second, 2);
  aloop_queue_free(queue);
}

static void an_urgent_item_overtakes_until_the_result_is_read(void **state) {
  aloop_queue_t *queue = new_priority(*state);
  aloop_future_t *future = waiting_get(queue);
  put(queue, 1);
  put(queue, 3);
  assert_got(future, 3);
  assert_int_equal(get(queue), 1);
  aloop_queue_free(queue);
}

static void a_full_queue_makes_wait(void **state) {
  aloop_queue_t *queue = new_plain(*state, 2);
  assert_int_equal(aloop_queue_maxsize(queue), 2);
  put(queue, 0);
  put(queue, 1);
  assert_true(aloop_queue_full(queue));
  assert_int_equal(aloop_queue_put_nowait(queue, &items[2]), ALOOP_EAGAIN);
  aloop_future_t *first = waiting_put(queue, 2), *second = waiting_put(queue, 3);
  assert_int_equal(get(queue), 0);
  assert_true(aloop_future_done(first));
  assert_false(aloop_future_done(second));
  assert_true(aloop_queue_full(queue));
  assert_int_equal(aloop_queue_put_nowait(queue, &items[4]), ALOOP_EAGAIN);
  assert_ends(first, 0);
  assert_int_equal(aloop_queue_qsize(queue), 2);
  assert_int_equal(get(queue), 1);
  assert_int_equal(get(queue), 2);
  assert_ends(second, 0);
  assert_int_equal(get(queue), 3);
  aloop_queue_free(queue);
}

static void a_put_that_nobody_asks_about_has_put(void **state) {
  aloop_queue_t *queue = new_plain(*state, 1);
  put(queue, 0);
  for (int i = 1; i < 4; i++) aloop_future_detach(aloop_queue_put(queue, &items[i]));
  aloop_future_t *last = waiting_put(queue, 4);
  for (int i = 0; i < 4; i++) assert_int_equal(get(queue), i);
  assert_true(aloop_future_done(last));
  assert_int_equal(aloop_queue_qsize(queue), 0);
  aloop_future_unref(last);
  assert_int_equal(get(queue), 4);
  aloop_queue_free(queue);
}

static void both_sides_detached_do_not_nest(void **state) {
  aloop_queue_t *queue = new_plain(*state, 1);
  put(queue, 0);
  for (int i = 0; i < 100000; i++) aloop_future_detach(aloop_queue_put(queue, &items[1]));
  assert_int_equal(get(queue), 0);
  assert_int_equal(aloop_queue_qsize(queue), 1);
  aloop_queue_free(queue);
  queue = new_plain(*state, 0);
  for (int i = 0; i < 100000; i++) aloop_future_detach(aloop_queue_get(queue));
  put(queue, 5);
  assert_int_equal(get(queue), 5);
  aloop_queue_free(queue);
}

/* ---- Cancelling ------------------------------------------------------------------------------------------ */

static void whoever_is_cancelled_leaves_the_line(void **state) {
  aloop_queue_t *queue = new_plain(*state, 1);
  aloop_future_t *first = waiting_get(queue), *second = waiting_get(queue);
  assert_int_equal(aloop_future_cancel(first), 1);
  aloop_future_unref(first);
  put(queue, 1);
  assert_got(second, 1);
  put(queue, 2);
  first = waiting_put(queue, 3);
  second = waiting_put(queue, 4);
  assert_int_equal(aloop_future_cancel(first), 1);
  aloop_future_unref(first);
  assert_int_equal(get(queue), 2);
  assert_ends(second, 0);
  assert_int_equal(get(queue), 4);
  aloop_queue_free(queue);
}

static void an_item_that_was_promised_to_somebody_cancelled_keeps_its_place(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  aloop_future_t *futures[3];
  for (int i = 0; i < 3; i++) futures[i] = waiting_get(queue);
  put(queue, 0);
  put(queue, 1);
  aloop__future_forsake(futures[0]);
  aloop_future_unref(futures[0]);
  assert_got(futures[1], 0);
  assert_got(futures[2], 1);
  futures[0] = waiting_get(queue);
  put(queue, 2);
  aloop_future_unref(futures[0]);
  assert_int_equal(get(queue), 2);
  aloop_queue_free(queue);
}

static void a_cancelled_put_has_not_put(void **state) {
  aloop_queue_t *queue = new_plain(*state, 1);
  put(queue, 0);
  aloop_future_t *first = waiting_put(queue, 1), *second = waiting_put(queue, 2);
  assert_int_equal(get(queue), 0);
  aloop__future_forsake(first);
  aloop_future_unref(first);
  assert_ends(second, 0);
  assert_int_equal(get(queue), 2);
  assert_true(aloop_queue_empty(queue));
  aloop_queue_free(queue);
}

/* What tasks do: each has the queue for argument. */
static int64_t put_one(aloop_t *loop, void *queue) {
  (void)loop;
  return aloop_await(aloop_queue_put(queue, &items[1]));
}

static int64_t put_one_in_time(aloop_t *loop, void *queue) {
  (void)loop;
  return aloop_await(aloop_wait_for(aloop_queue_put(queue, &items[1]), ALOOP_FOREVER));
}

static int64_t get_one_at_the_end(aloop_t *loop, void *queue) {
  assert_int_equal(aloop_await(aloop_sleep(loop, ALOOP_SECONDS(1))), ALOOP_ECLOSED);
  assert_int_equal(get(queue), 0);
  return 0;
}

/* Two tasks that are to put get a place each, and have not heard of it. */
static void places_for_two(env_t *env, aloop_queue_t *queues[2], aloop_future_t *tasks[2]) {
  aloop_task_fn fns[] = {put_one, put_one_in_time};
  for (int i = 0; i < 2; i++) {
    queues[i] = new_plain(env, 1);
    put(queues[i], 0);
    tasks[i] = aloop_create_task(env->loop, fns[i], queues[i], NULL);
  }
  run_turn(env->loop);
  for (int i = 0; i < 2; i++) assert_int_equal(get(queues[i]), 0);
}

static void a_task_that_is_cancelled_has_not_put(void **state) {
  env_t *env = *state;
  aloop_queue_t *queues[2];
  aloop_future_t *tasks[2];
  places_for_two(env, queues, tasks);
  for (int i = 0; i < 2; i++) assert_int_equal(aloop_future_cancel(tasks[i]), 1);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(run_future(env->loop, tasks[i]), ALOOP_ECANCELED);
    aloop_future_unref(tasks[i]);
    assert_int_equal(aloop_queue_qsize(queues[i]), 0);
    assert_false(aloop_queue_full(queues[i]));
    aloop_queue_free(queues[i]);
  }
}

static void a_task_that_is_told_of_the_close_has_not_put(void **state) {
  env_t *env = *state;
  aloop_queue_t *queues[2];
  aloop_future_t *tasks[2];
  places_for_two(env, queues, tasks);
  assert_int_equal(aloop_close(env->loop), 0);
  for (int i = 0; i < 2; i++) {
    assert_ends(tasks[i], ALOOP_ECLOSED);
    assert_int_equal(aloop_queue_qsize(queues[i]), 0);
    aloop_queue_free(queues[i]);
  }
}

static void a_place_that_comes_while_the_loop_is_closed_is_nobodys(void **state) {
  env_t *env = *state;
  aloop_queue_t *queue = new_plain(env, 1);
  put(queue, 0);
  aloop_future_t *putter = aloop_create_task(env->loop, put_one, queue, NULL);
  aloop_future_t *getter = aloop_create_task(env->loop, get_one_at_the_end, queue, NULL);
  run_turn(env->loop);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_ends(putter, ALOOP_ECLOSED);
  assert_ends(getter, 0);
  assert_int_equal(aloop_queue_qsize(queue), 0);
  aloop_queue_free(queue);
}

/* ---- The end of the work --------------------------------------------------------------------------------- */

static void join_waits_until_all_is_done(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  assert_ends(aloop_queue_join(queue), 0);
  put(queue, 0);
  put(queue, 1);
  aloop_future_t *first = aloop_queue_join(queue), *second = aloop_queue_join(queue);
  get(queue);
  get(queue);
  assert_int_equal(aloop_queue_task_done(queue), 0);
  assert_false(aloop_future_done(first));
  assert_int_equal(aloop_queue_task_done(queue), 0);
  put(queue, 2);
  assert_ends(first, 0);
  assert_ends(second, 0);
  assert_int_equal(aloop_queue_task_done(queue), 0);
  assert_int_equal(aloop_queue_task_done(queue), ALOOP_ERANGE);
  aloop_queue_free(queue);
}

/* ---- Shutting down --------------------------------------------------------------------------------------- */

static void after_a_shutdown_what_is_left_can_be_got(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  char *none = NULL;
  put(queue, 0);
  put(queue, 1);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  assert_int_equal(aloop_queue_put_nowait(queue, &items[2]), ALOOP_ECLOSED);
  assert_ends(aloop_queue_put(queue, &items[2]), ALOOP_ECLOSED);
  assert_int_equal(get(queue), 0);
  assert_got(aloop_queue_get(queue), 1);
  assert_int_equal(aloop_queue_get_nowait(queue, &none), ALOOP_ECLOSED);
  assert_ends(aloop_queue_get(queue), ALOOP_ECLOSED);
  aloop_future_t *join = aloop_queue_join(queue);
  aloop_queue_task_done(queue);
  aloop_queue_task_done(queue);
  assert_ends(join, 0);
  aloop_queue_free(queue);
}

static void a_shutdown_ends_the_wait(void **state) {
  aloop_queue_t *queue = new_plain(*state, 1);
  aloop_future_t *getter = waiting_get(queue);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  assert_string_equal(aloop_future_message(getter), "the queue was shut down");
  assert_ends(getter, ALOOP_ECLOSED);
  aloop_queue_free(queue);
  queue = new_plain(*state, 1);
  put(queue, 0);
  aloop_future_t *putter = waiting_put(queue, 1);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  assert_ends(putter, ALOOP_ECLOSED);
  assert_int_equal(get(queue), 0);
  aloop_queue_free(queue);
}

static void an_immediate_shutdown_drops_what_is_left(void **state) {
  aloop_queue_t *queue = new_queue(*state, (aloop_queue_options_t){.destroy = count_destroy});
  for (int i = 0; i < 3; i++) put(queue, i);
  get(queue);
  aloop_future_t *join = aloop_queue_join(queue);
  assert_int_equal(aloop_queue_shutdown(queue, true), 0);
  assert_int_equal(destroyed, 2);
  assert_false(aloop_future_done(join)); /* one was got and is not done yet */
  assert_int_equal(aloop_queue_task_done(queue), 0);
  assert_ends(join, 0);
  aloop_queue_free(queue);
}

/* They have not run yet when the queue is shut down. */
static void promises_end_with_an_immediate_shutdown(void **state) {
  aloop_queue_t *queue = new_plain(*state, 1);
  aloop_future_t *getter = waiting_get(queue);
  put(queue, 0);
  assert_int_equal(aloop_queue_shutdown(queue, true), 0);
  assert_true(aloop_future_done(getter));
  assert_ends(getter, ALOOP_ECLOSED);
  aloop_queue_free(queue);
  queue = new_queue(*state, (aloop_queue_options_t){.maxsize = 1, .destroy = count_destroy});
  put(queue, 0);
  aloop_future_t *first = waiting_put(queue, 1);
  get(queue);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  assert_ends(first, ALOOP_ECLOSED);
  assert_int_equal(destroyed, 0);
  aloop_queue_free(queue);
  queue = new_queue(*state, (aloop_queue_options_t){.maxsize = 1, .destroy = count_destroy});
  put(queue, 0);
  aloop_future_t *unread = waiting_put(queue, 1);
  get(queue);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  aloop_future_unref(unread);
  assert_int_equal(destroyed, 1);
  aloop_queue_free(queue);
}

static void what_was_promised_before_a_shutdown_is_got(void **state) {
  aloop_queue_t *queue = new_plain(*state, 0);
  aloop_future_t *getter = waiting_get(queue);
  put(queue, 0);
  assert_int_equal(aloop_queue_shutdown(queue, false), 0);
  assert_got(getter, 0);
  aloop_queue_free(queue);
}

/* ---- The end of the queue -------------------------------------------------------------------------------- */

static void freeing_it_ends_every_wait(void **state) {
  aloop_queue_t *queue = new_plain(*state, 1);
  put(queue, 0);
  aloop_future_t *putter = waiting_put(queue, 1), *join = aloop_queue_join(queue);
  aloop_future_t *promised = aloop_queue_get(queue), *getter = waiting_get(queue);
  aloop_queue_free(queue);
  assert_ends(putter, ALOOP_ECANCELED);
  assert_ends(join, ALOOP_ECANCELED);
  assert_ends(getter, ALOOP_ECANCELED);
  assert_ends(promised, ALOOP_ECLOSED);
  aloop_queue_free(NULL);
}

static void a_closed_loop_ends_every_wait(void **state) {
  env_t *env = *state;
  aloop_queue_t *queue = new_queue(env, (aloop_queue_options_t){.maxsize = 1, .destroy = count_destroy});
  put(queue, 0);
  aloop_future_t *putter = waiting_put(queue, 1), *promised = aloop_queue_get(queue);
  aloop_future_t *getter = waiting_get(queue);
  assert_int_equal(aloop_close(env->loop), 0);
  assert_ends(putter, ALOOP_ECANCELED);
  assert_ends(getter, ALOOP_ECANCELED);
  aloop_future_unref(promised);
  aloop_queue_free(queue);
  assert_int_equal(destroyed, 1);
}

static aloop_queue_t *freed_inside;

static void free_queue(void *item) {
  (void)item;
  aloop_queue_free(freed_inside);
  freed_inside = NULL;
}

static void a_destructor_may_free_the_queue(void **state) {
  freed_inside = new_queue(*state, (aloop_queue_options_t){.destroy = free_queue});
  put(freed_inside, 0);
  assert_int_equal(aloop_queue_shutdown(freed_inside, true), 0);
  assert_null(freed_inside);
}

static void find_queue(void *arg, const char *text) {
  *(bool *)arg |= strcmp(text, "queue of 1 items, 0 waiting to get, 1 to put, 0 to join") == 0;
}

static void the_dump_tells_of_queues(void **state) {
  env_t *env = *state;
  bool found = false;
  aloop_queue_t *queue = new_plain(env, 1);
  put(queue, 0);
  aloop_future_t *putter = waiting_put(queue, 1);
  assert_int_equal(aloop_dump(env->loop, find_queue, &found), 0);
  assert_true(found);
  aloop_queue_free(queue);
  aloop_future_unref(putter);
}

static void steady_use_allocates_nothing(void **state) {
  env_t *env = *state;
  aloop_queue_t *queue = new_plain(env, 4);
  long calls = 0;
  for (int round = 0; round < 100; round++) {
    if (round == 1) calls = env->calls;
    aloop_future_t *getter = waiting_get(queue);
    for (int i = 0; i < 4; i++) put(queue, i);
    aloop_future_t *putter = waiting_put(queue, 4);
    assert_got(getter, 0);
    assert_ends(putter, 0);
    for (int i = 1; i < 5; i++) assert_got(aloop_queue_get(queue), i);
  }
  assert_int_equal(env->calls, calls);
  aloop_queue_free(queue);
}

static void scenario(env_t *env) {
  aloop_queue_t *queue;
  aloop_queue_options_t options = {.size = sizeof options, .maxsize = 1};
  if (aloop_queue_new(env->loop, &options, &queue) < 0) return;
  aloop_future_t *puts[2];
  int made = 0;
  for (int i = 0; i < 2; i++) {
    puts[i] = aloop_queue_put(queue, &items[i]);
    made += puts[i] != NULL;
  }
  for (int i = 0; i < made;) {
    aloop_future_t *future = aloop_queue_get(queue);
    char *item = NULL;
    if (future == NULL) {
      env->fail_from = 0;
      continue;
    }
    assert_int_equal(aloop_future_take_ptr(future, &item), 0);
    aloop_future_unref(future);
    for (int j = 0; j < 2; j++)
      if (puts[j] != NULL) assert_int_equal(aloop_future_result(puts[j]), 0);
    i++;
  }
  assert_int_equal(aloop_queue_qsize(queue), 0);
  for (int i = 0; i < 2; i++) aloop_future_unref(puts[i]);
  aloop_queue_free(queue);
}

static void running_out_of_memory(void **state) {
  torture(*state, scenario);
}

TESTS(T(items_come_out_as_they_went_in), T(a_stack_gives_the_newest), T(the_most_urgent_comes_out_first),
      T(null_is_an_item), T(items_nobody_got_are_destroyed), T(who_waits_first_gets_first),
      T(nobody_takes_what_was_promised), T(an_urgent_item_overtakes_until_the_result_is_read),
      T(a_full_queue_makes_wait), T(a_put_that_nobody_asks_about_has_put), T(both_sides_detached_do_not_nest),
      T(whoever_is_cancelled_leaves_the_line),
      T(an_item_that_was_promised_to_somebody_cancelled_keeps_its_place), T(a_cancelled_put_has_not_put),
      T(a_task_that_is_cancelled_has_not_put), T(a_task_that_is_told_of_the_close_has_not_put),
      T(a_place_that_comes_while_the_loop_is_closed_is_nobodys), T(join_waits_until_all_is_done),
      T(after_a_shutdown_what_is_left_can_be_got), T(a_shutdown_ends_the_wait),
      T(an_immediate_shutdown_drops_what_is_left), T(promises_end_with_an_immediate_shutdown),
      T(what_was_promised_before_a_shutdown_is_got), T(freeing_it_ends_every_wait),
      T(a_closed_loop_ends_every_wait), T(a_destructor_may_free_the_queue), T(the_dump_tells_of_queues),
      T(steady_use_allocates_nothing), T(running_out_of_memory))
