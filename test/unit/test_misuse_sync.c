/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on locks, events and their like: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"

/* ---- Locks ----------------------------------------------------------------------------------------------- */

static void locks(misuse_t *m) {
  aloop_lock_t *lock;
  MISTAKE(aloop_lock_new(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_lock_new(m->loop, NULL), ALOOP_EINVAL);
  ORDINARY_OF_VOID(aloop_lock_free(NULL));
  MISTAKE(aloop_lock_acquire(NULL), 0);
  MISTAKE(aloop_lock_release(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_lock_locked(NULL), false);
  assert_int_equal(aloop_lock_new(m->loop, &lock), 0);
  MISTAKE(aloop_lock_release(lock), ALOOP_EPERM);
  aloop_future_t *promised = aloop_lock_acquire(lock);
  MISTAKE(aloop_lock_release(lock), ALOOP_EPERM);
  aloop_future_unref(promised);
  aloop_lock_free(lock);
}

static void locks_of_a_closed_loop(misuse_t *m) {
  aloop_lock_t *lock;
  assert_int_equal(aloop_lock_new(m->loop, &lock), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_lock_new(m->loop, OUT), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_lock_acquire(lock), ALOOP_ECLOSED);
  ORDINARY(aloop_lock_release(lock), ALOOP_EPERM);
  ORDINARY(aloop_lock_locked(lock), false);
  aloop_lock_free(lock);
}

static void locks_of_another_thread(misuse_t *m) {
  aloop_lock_t *lock = m->arg;
  MISTAKE(aloop_lock_new(m->loop, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_lock_free(lock));
  MISTAKE(aloop_lock_acquire(lock), 0);
  MISTAKE(aloop_lock_release(lock), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_lock_locked(lock), false);
}

/* ---- Events ---------------------------------------------------------------------------------------------- */

static void events(misuse_t *m) {
  MISTAKE(aloop_event_new(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_event_new(m->loop, NULL), ALOOP_EINVAL);
  ORDINARY_OF_VOID(aloop_event_free(NULL));
  MISTAKE(aloop_event_wait(NULL), 0);
  MISTAKE(aloop_event_set(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_event_clear(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_event_is_set(NULL), false);
}

static void events_of_a_closed_loop(misuse_t *m) {
  aloop_event_t *event;
  assert_int_equal(aloop_event_new(m->loop, &event), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_event_new(m->loop, OUT), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_event_wait(event), ALOOP_ECLOSED);
  ORDINARY(aloop_event_set(event), 0);
  MISTAKE_OF_FUTURE(aloop_event_wait(event), ALOOP_ECLOSED);
  ORDINARY(aloop_event_clear(event), 0);
  ORDINARY(aloop_event_is_set(event), false);
  aloop_event_free(event);
}

static void events_of_another_thread(misuse_t *m) {
  aloop_event_t *event = m->arg;
  MISTAKE(aloop_event_new(m->loop, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_event_free(event));
  MISTAKE(aloop_event_wait(event), 0);
  MISTAKE(aloop_event_set(event), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_event_clear(event), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_event_is_set(event), false);
}

/* ---- Conditions ------------------------------------------------------------------------------------------ */

static bool never(void *arg) {
  (void)arg;
  return false;
}

static void conditions(misuse_t *m) {
  aloop_condition_t *condition;
  MISTAKE(aloop_condition_new(NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_condition_new(m->loop, NULL, NULL), ALOOP_EINVAL);
  ORDINARY_OF_VOID(aloop_condition_free(NULL));
  MISTAKE(aloop_condition_acquire(NULL), 0);
  MISTAKE(aloop_condition_release(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_condition_locked(NULL), false);
  MISTAKE(aloop_condition_wait(NULL), 0);
  MISTAKE(aloop_condition_wait_for(NULL, never, NULL), 0);
  MISTAKE(aloop_condition_notify(NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_condition_notify_all(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_condition_new(m->loop, NULL, &condition), 0);
  MISTAKE(aloop_condition_release(condition), ALOOP_EPERM);
  MISTAKE(aloop_condition_notify(condition, 0), ALOOP_EPERM);
  MISTAKE(aloop_condition_notify_all(condition), ALOOP_EPERM);
  MISTAKE_OF_FUTURE(aloop_condition_wait(condition), ALOOP_EPERM);
  MISTAKE_OF_FUTURE(aloop_condition_wait_for(condition, never, NULL), ALOOP_EPERM);
  MISTAKE_OF_FUTURE(aloop_condition_wait_for(condition, NULL, NULL), ALOOP_EINVAL);
  aloop_condition_free(condition);
}

static void conditions_of_two_loops(misuse_t *m) {
  aloop_t *other;
  aloop_lock_t *lock;
  aloop_options_t options = {.size = sizeof options, .debug = -1};
  assert_int_equal(aloop_new(&options, &other), 0);
  assert_int_equal(aloop_lock_new(other, &lock), 0);
  MISTAKE(aloop_condition_new(m->loop, lock, OUT), ALOOP_EOTHERLOOP);
  aloop_lock_free(lock);
  aloop_free(other);
}

static void conditions_of_a_closed_loop(misuse_t *m) {
  aloop_condition_t *condition;
  assert_int_equal(aloop_condition_new(m->loop, NULL, &condition), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_condition_new(m->loop, NULL, OUT), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_condition_acquire(condition), ALOOP_ECLOSED);
  ORDINARY(aloop_condition_release(condition), ALOOP_EPERM);
  ORDINARY(aloop_condition_notify(condition, 1), ALOOP_EPERM);
  ORDINARY(aloop_condition_notify_all(condition), ALOOP_EPERM);
  ORDINARY(aloop_condition_locked(condition), false);
  aloop_condition_free(condition);
}

static void conditions_of_another_thread(misuse_t *m) {
  aloop_condition_t *condition = m->arg;
  MISTAKE(aloop_condition_new(m->loop, NULL, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_condition_free(condition));
  MISTAKE(aloop_condition_acquire(condition), 0);
  MISTAKE(aloop_condition_release(condition), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_condition_locked(condition), false);
  MISTAKE(aloop_condition_wait(condition), 0);
  MISTAKE(aloop_condition_wait_for(condition, never, NULL), 0);
  MISTAKE(aloop_condition_notify(condition, 1), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_condition_notify_all(condition), ALOOP_ENOTLOOPTHREAD);
}

/* ---- Semaphores ------------------------------------------------------------------------------------------ */

static void semaphores(misuse_t *m) {
  aloop_semaphore_t *semaphore;
  MISTAKE(aloop_semaphore_new(NULL, 1, false, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_semaphore_new(m->loop, -1, false, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_semaphore_new(m->loop, INT64_MIN, true, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_semaphore_new(m->loop, 1, false, NULL), ALOOP_EINVAL);
  ORDINARY_OF_VOID(aloop_semaphore_free(NULL));
  MISTAKE(aloop_semaphore_acquire(NULL), 0);
  MISTAKE(aloop_semaphore_release(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_semaphore_locked(NULL), false);
  MISTAKE(aloop_semaphore_value(NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_semaphore_new(m->loop, 0, true, &semaphore), 0);
  MISTAKE(aloop_semaphore_release(semaphore), ALOOP_ERANGE);
  aloop_semaphore_free(semaphore);
  assert_int_equal(aloop_semaphore_new(m->loop, INT64_MAX, false, &semaphore), 0);
  MISTAKE(aloop_semaphore_release(semaphore), ALOOP_ERANGE);
  aloop_semaphore_free(semaphore);
}

static void semaphores_of_a_closed_loop(misuse_t *m) {
  aloop_semaphore_t *semaphore;
  assert_int_equal(aloop_semaphore_new(m->loop, 1, false, &semaphore), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_semaphore_new(m->loop, 1, false, OUT), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_semaphore_acquire(semaphore), ALOOP_ECLOSED);
  ORDINARY(aloop_semaphore_release(semaphore), 0);
  ORDINARY(aloop_semaphore_value(semaphore), 2);
  ORDINARY(aloop_semaphore_locked(semaphore), false);
  aloop_semaphore_free(semaphore);
}

static void semaphores_of_another_thread(misuse_t *m) {
  aloop_semaphore_t *semaphore = m->arg;
  MISTAKE(aloop_semaphore_new(m->loop, 1, false, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_semaphore_free(semaphore));
  MISTAKE(aloop_semaphore_acquire(semaphore), 0);
  MISTAKE(aloop_semaphore_release(semaphore), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_semaphore_locked(semaphore), false);
  MISTAKE(aloop_semaphore_value(semaphore), ALOOP_ENOTLOOPTHREAD);
}

/* ---- Barriers -------------------------------------------------------------------------------------------- */

static void barriers(misuse_t *m) {
  MISTAKE(aloop_barrier_new(NULL, 1, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_barrier_new(m->loop, 0, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_barrier_new(m->loop, 1, NULL), ALOOP_EINVAL);
  ORDINARY_OF_VOID(aloop_barrier_free(NULL));
  MISTAKE(aloop_barrier_wait(NULL), 0);
  MISTAKE(aloop_barrier_reset(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_barrier_abort(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_barrier_parties(NULL), 0);
  MISTAKE(aloop_barrier_n_waiting(NULL), 0);
  MISTAKE(aloop_barrier_broken(NULL), false);
}

static void barriers_of_a_closed_loop(misuse_t *m) {
  aloop_barrier_t *barrier, *other;
  assert_int_equal(aloop_barrier_new(m->loop, 1, &barrier), 0);
  assert_int_equal(aloop_barrier_new(m->loop, 2, &other), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_barrier_new(m->loop, 1, OUT), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_barrier_wait(barrier), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_barrier_wait(other), ALOOP_ECLOSED);
  ORDINARY(aloop_barrier_reset(barrier), 0);
  ORDINARY(aloop_barrier_abort(barrier), 0);
  ORDINARY(aloop_barrier_broken(barrier), true);
  aloop_barrier_free(other);
  aloop_barrier_free(barrier);
}

static void barriers_of_another_thread(misuse_t *m) {
  aloop_barrier_t *barrier = m->arg;
  MISTAKE(aloop_barrier_new(m->loop, 1, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_barrier_free(barrier));
  MISTAKE(aloop_barrier_wait(barrier), 0);
  MISTAKE(aloop_barrier_reset(barrier), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_barrier_abort(barrier), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_barrier_parties(barrier), 0);
  MISTAKE(aloop_barrier_n_waiting(barrier), 0);
  MISTAKE(aloop_barrier_broken(barrier), false);
}

/* ---- Queues ---------------------------------------------------------------------------------------------- */

static int equal(const void *a, const void *b, void *arg) {
  (void)a, (void)b, (void)arg;
  return 0;
}

static void options_of_queues(misuse_t *m) {
  aloop_queue_options_t good = {.size = sizeof good}, wrong = good;
  MISTAKE(aloop_queue_new(NULL, &good, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_queue_new(m->loop, &good, NULL), ALOOP_EINVAL);
  wrong.size = 0;
  MISTAKE(aloop_queue_new(m->loop, &wrong, OUT), ALOOP_EINVAL);
  wrong = good;
  wrong.kind = 3;
  MISTAKE(aloop_queue_new(m->loop, &wrong, OUT), ALOOP_EINVAL);
  wrong.kind = -1;
  MISTAKE(aloop_queue_new(m->loop, &wrong, OUT), ALOOP_EINVAL);
  wrong.kind = ALOOP_PRIORITY;
  MISTAKE(aloop_queue_new(m->loop, &wrong, OUT), ALOOP_EINVAL);
  wrong.kind = ALOOP_LIFO;
  wrong.compare = equal;
  MISTAKE(aloop_queue_new(m->loop, &wrong, OUT), ALOOP_EINVAL);
}

static void queues(misuse_t *m) {
  aloop_queue_t *queue;
  ORDINARY_OF_VOID(aloop_queue_free(NULL));
  MISTAKE(aloop_queue_put(NULL, m), 0);
  MISTAKE(aloop_queue_put_nowait(NULL, m), ALOOP_EINVAL);
  MISTAKE(aloop_queue_get(NULL), 0);
  MISTAKE(aloop_queue_get_nowait(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_queue_task_done(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_queue_join(NULL), 0);
  MISTAKE(aloop_queue_shutdown(NULL, false), ALOOP_EINVAL);
  MISTAKE(aloop_queue_qsize(NULL), 0);
  MISTAKE(aloop_queue_maxsize(NULL), 0);
  MISTAKE(aloop_queue_empty(NULL), true);
  MISTAKE(aloop_queue_full(NULL), false);
  assert_int_equal(aloop_queue_new(m->loop, NULL, &queue), 0);
  ORDINARY(aloop_queue_get_nowait(queue, OUT), ALOOP_EAGAIN);
  MISTAKE(aloop_queue_get_nowait(queue, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_queue_task_done(queue), ALOOP_ERANGE);
  ORDINARY(aloop_queue_shutdown(queue, true), 0);
  ORDINARY(aloop_queue_put_nowait(queue, m), ALOOP_ECLOSED);
  ORDINARY(aloop_queue_get_nowait(queue, OUT), ALOOP_ECLOSED);
  ORDINARY_OF_FUTURE(aloop_queue_get(queue), ALOOP_ECLOSED);
  ORDINARY_OF_FUTURE(aloop_queue_put(queue, m), ALOOP_ECLOSED);
  aloop_queue_free(queue);
}

static void queues_of_a_closed_loop(misuse_t *m) {
  aloop_queue_t *queue;
  assert_int_equal(aloop_queue_new(m->loop, NULL, &queue), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_queue_new(m->loop, NULL, OUT), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_queue_put(queue, m), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_queue_get(queue), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_queue_join(queue), ALOOP_ECLOSED);
  ORDINARY(aloop_queue_qsize(queue), 0);
  ORDINARY(aloop_queue_put_nowait(queue, m), 0);
  MISTAKE_OF_FUTURE(aloop_queue_get(queue), ALOOP_ECLOSED);
  ORDINARY(aloop_queue_qsize(queue), 1);
  aloop_queue_free(queue);
}

static void queues_of_another_thread(misuse_t *m) {
  aloop_queue_t *queue = m->arg;
  MISTAKE(aloop_queue_new(m->loop, NULL, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_queue_free(queue));
  MISTAKE(aloop_queue_put(queue, m), 0);
  MISTAKE(aloop_queue_put_nowait(queue, m), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_queue_get(queue), 0);
  MISTAKE(aloop_queue_get_nowait(queue, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_queue_task_done(queue), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_queue_join(queue), 0);
  MISTAKE(aloop_queue_shutdown(queue, true), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_queue_qsize(queue), 0);
  MISTAKE(aloop_queue_maxsize(queue), 0);
  MISTAKE(aloop_queue_empty(queue), true);
  MISTAKE(aloop_queue_full(queue), false);
}

/* ---- as_completed ---------------------------------------------------------------------------------------- */

static void going_through_futures(misuse_t *m) {
  aloop_t *other;
  aloop_options_t options = {.size = sizeof options, .debug = -1};
  assert_int_equal(aloop_new(&options, &other), 0);
  aloop_future_t *future = aloop_future_new(other);
  ORDINARY_OF_VOID(aloop_as_completed_free(NULL));
  MISTAKE(aloop_as_completed_next(NULL), 0);
  MISTAKE(aloop_as_completed_new(NULL, NULL, 0, 0, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_as_completed_new(m->loop, NULL, 1, 0, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_as_completed_new(m->loop, NULL, 0, 0, NULL), ALOOP_EINVAL);
  aloop_future_ref(future);
  aloop_future_ref(future);
  MISTAKE(aloop_as_completed_new(m->loop, &future, 1, 0, OUT), ALOOP_EOTHERLOOP);
  MISTAKE(aloop_as_completed_new(m->loop, &future, 1, 0, NULL), ALOOP_EINVAL);
  assert_false(aloop_future_done(future));
  aloop_future_unref(future);
  aloop_free(other);
}

static void going_through_futures_of_a_closed_loop(misuse_t *m) {
  aloop_as_completed_t *all;
  assert_int_equal(aloop_as_completed_new(m->loop, NULL, 0, ALOOP_FOREVER, &all), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE(aloop_as_completed_new(m->loop, NULL, 0, ALOOP_FOREVER, OUT), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_as_completed_next(all), ALOOP_ECLOSED);
  aloop_as_completed_free(all);
}

static void going_through_futures_of_another_thread(misuse_t *m) {
  MISTAKE(aloop_as_completed_new(m->loop, NULL, 0, 0, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_as_completed_free(m->arg));
  MISTAKE(aloop_as_completed_next(m->arg), 0);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void mistakes(void **state) {
  static const misuse_fn bodies[] = {locks,
                                     events,
                                     conditions,
                                     conditions_of_two_loops,
                                     semaphores,
                                     barriers,
                                     options_of_queues,
                                     queues,
                                     going_through_futures};
  for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) in_both_modes(*state, bodies[i]);
}

static void after_the_end(void **state) {
  static const misuse_fn bodies[] = {locks_of_a_closed_loop,
                                     events_of_a_closed_loop,
                                     conditions_of_a_closed_loop,
                                     semaphores_of_a_closed_loop,
                                     barriers_of_a_closed_loop,
                                     queues_of_a_closed_loop,
                                     going_through_futures_of_a_closed_loop};
  for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) in_both_modes_outside(*state, bodies[i]);
}

static void in_thread(misuse_t *m, misuse_fn body, void *arg) {
  m->arg = arg;
  misuse_in_thread(m, body);
}

/* Only debug mode looks which thread calls. */
static void other_threads(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  aloop_lock_t *lock;
  aloop_event_t *event;
  aloop_condition_t *condition;
  aloop_semaphore_t *semaphore;
  aloop_barrier_t *barrier;
  aloop_queue_t *queue;
  aloop_as_completed_t *all;
  assert_int_equal(aloop_lock_new(m.loop, &lock), 0);
  assert_int_equal(aloop_event_new(m.loop, &event), 0);
  assert_int_equal(aloop_condition_new(m.loop, lock, &condition), 0);
  assert_int_equal(aloop_semaphore_new(m.loop, 1, false, &semaphore), 0);
  assert_int_equal(aloop_barrier_new(m.loop, 1, &barrier), 0);
  assert_int_equal(aloop_queue_new(m.loop, NULL, &queue), 0);
  assert_int_equal(aloop_as_completed_new(m.loop, NULL, 0, ALOOP_FOREVER, &all), 0);
  in_thread(&m, locks_of_another_thread, lock);
  in_thread(&m, events_of_another_thread, event);
  in_thread(&m, conditions_of_another_thread, condition);
  in_thread(&m, semaphores_of_another_thread, semaphore);
  in_thread(&m, barriers_of_another_thread, barrier);
  in_thread(&m, queues_of_another_thread, queue);
  in_thread(&m, going_through_futures_of_another_thread, all);
  aloop_as_completed_free(all);
  aloop_queue_free(queue);
  aloop_barrier_free(barrier);
  aloop_semaphore_free(semaphore);
  aloop_condition_free(condition);
  aloop_event_free(event);
  aloop_lock_free(lock);
  misuse_end(&m);
}

TESTS(T(mistakes), T(after_the_end), T(other_threads))
