/* SPDX-License-Identifier: MIT
 *
 * aloop's tasks, and what they share: locks, a queue, time limits, groups. No peer has the like, so these numbers stand
 * alone; what a future costs without a task stands beside them.
 */
#include "bench.h"

#include <aloop.h>

/* ---- Tasks ----------------------------------------------------------------------------------------------- */

static int64_t do_nothing_there(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return 0;
}

static int64_t create(aloop_t *loop, void *arg) {
  for (long i = 1; i <= *(long *)arg; i++) {
    aloop_future_detach(aloop_create_task(loop, do_nothing_there, NULL, NULL));
    if (i % 100 == 0) aloop_await(aloop_sleep(loop, 0));
  }
  return aloop_await(aloop_sleep(loop, 0));
}

static int64_t await_ready(aloop_t *loop, void *arg) {
  for (long i = 0; i < *(long *)arg; i++) {
    aloop_future_t *future = aloop_future_new(loop);
    aloop_future_set_value(future, 1);
    aloop_await(future);
  }
  return 0;
}

static int64_t await_pending(aloop_t *loop, void *arg) {
  for (long i = 0; i < *(long *)arg; i++) aloop_await(aloop_sleep(loop, 0));
  return 0;
}

static int64_t read_ready(aloop_t *loop, void *arg) {
  for (long i = 0; i < *(long *)arg; i++) {
    aloop_future_t *future = aloop_future_new(loop);
    aloop_future_set_value(future, 1);
    aloop_future_result(future);
    aloop_future_unref(future);
  }
  return 0;
}

static void measure_task(aloop_task_fn fn, long count, long rounds, int64_t *times) {
  aloop_t *loop = peer_loop_new();
  for (long i = 0; i < rounds; i++) {
    int64_t start = bench_cpu();
    aloop_run_until_complete(loop, aloop_create_task(loop, fn, &count, NULL));
    times[i] = bench_cpu() - start;
  }
  aloop_free(loop);
}

void peer_tasks(long count, long rounds, const bench_tasks_t *times) {
  measure_task(create, count, rounds, times->create);
  measure_task(await_ready, count, rounds, times->ready);
  measure_task(await_pending, count, rounds, times->pending);
  measure_task(read_ready, count, rounds, times->future);
}

static int64_t wait_forever(aloop_t *loop, void *arg) {
  (void)arg;
  return aloop_await(aloop_future_new(loop));
}

void peer_make_tasks(void *loop, long count) {
  for (long i = 0; i < count; i++) aloop_future_detach(aloop_create_task(loop, wait_forever, NULL, NULL));
}

/* ---- What tasks share ------------------------------------------------------------------------------------ */

typedef struct shared {
  aloop_lock_t *lock;
  aloop_queue_t *queue;
  long count;
} shared_t;

static int64_t take_and_release(aloop_t *loop, void *arg) {
  (void)loop;
  shared_t *shared = arg;
  for (long i = 0; i < shared->count; i++) {
    aloop_await(aloop_lock_acquire(shared->lock));
    aloop_lock_release(shared->lock);
  }
  return 0;
}

/* Half of them by another task, which waits for the lock whenever this one has it. */
static int64_t take_turns(aloop_t *loop, void *arg) {
  shared_t *shared = arg;
  aloop_await(aloop_lock_acquire(shared->lock));
  aloop_await(aloop_sleep(loop, 0)); /* until the other waits */
  for (long i = 0; i < shared->count / 2; i++) {
    aloop_lock_release(shared->lock);
    aloop_await(aloop_lock_acquire(shared->lock));
  }
  return aloop_lock_release(shared->lock);
}

static int64_t hand_over(aloop_t *loop, void *arg) {
  aloop_future_t *both[] = {aloop_create_task(loop, take_turns, arg, NULL),
                            aloop_create_task(loop, take_turns, arg, NULL)};
  return aloop_await(aloop_gather(loop, both, 2, 0));
}

static int64_t put_all(aloop_t *loop, void *arg) {
  (void)loop;
  shared_t *shared = arg;
  for (long i = 0; i < shared->count; i++) aloop_await(aloop_queue_put(shared->queue, shared));
  return 0;
}

static int64_t get_all(aloop_t *loop, void *arg) {
  shared_t *shared = arg;
  void *item;
  aloop_future_t *other = aloop_create_task(loop, put_all, arg, NULL);
  for (long i = 0; i < shared->count; i++) aloop_await_ptr(aloop_queue_get(shared->queue), &item);
  return aloop_await(other);
}

static int64_t limit_nothing(aloop_t *loop, void *arg) {
  (void)loop;
  for (long i = 0; i < ((shared_t *)arg)->count; i++) {
    aloop_timeout_t limit;
    aloop_timeout_begin(&limit, ALOOP_SECONDS(10));
    aloop_timeout_end(&limit, 0);
  }
  return 0;
}

static int64_t group_one(aloop_t *loop, void *arg) {
  for (long i = 0; i < ((shared_t *)arg)->count; i++) {
    aloop_task_group_t *group;
    aloop_task_group_begin(loop, &group);
    aloop_future_detach(aloop_task_group_create_task(group, do_nothing_there, NULL, NULL));
    aloop_task_group_end(group, 0);
    aloop_task_group_free(group);
  }
  return 0;
}

static void measure_shared(aloop_task_fn fn, long count, long rounds, int64_t *times) {
  aloop_t *loop = peer_loop_new();
  aloop_queue_options_t options = {.size = sizeof options, .maxsize = 1};
  shared_t shared = {.count = count};
  aloop_lock_new(loop, &shared.lock);
  aloop_queue_new(loop, &options, &shared.queue);
  for (long i = 0; i < rounds; i++) {
    int64_t start = bench_cpu();
    aloop_run_until_complete(loop, aloop_create_task(loop, fn, &shared, NULL));
    times[i] = bench_cpu() - start;
  }
  aloop_queue_free(shared.queue);
  aloop_lock_free(shared.lock);
  aloop_free(loop);
}

void peer_sync(long count, long rounds, const bench_sync_t *times) {
  measure_shared(take_and_release, count, rounds, times->lock);
  measure_shared(hand_over, count, rounds, times->hand_over);
  measure_shared(get_all, count, rounds, times->queue);
  measure_shared(limit_nothing, count, rounds, times->limit);
  measure_shared(group_one, count, rounds, times->group);
}
