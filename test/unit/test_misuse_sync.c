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

/* ---------------------------------------------------------------------------------------------------------- */

static void mistakes(void **state) {
  in_both_modes(*state, locks);
  in_both_modes(*state, events);
}

static void after_the_end(void **state) {
  in_both_modes_outside(*state, locks_of_a_closed_loop);
  in_both_modes_outside(*state, events_of_a_closed_loop);
}

/* Only debug mode looks which thread calls. */
static void other_threads(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  aloop_lock_t *lock;
  aloop_event_t *event;
  assert_int_equal(aloop_lock_new(m.loop, &lock), 0);
  assert_int_equal(aloop_event_new(m.loop, &event), 0);
  m.arg = lock;
  misuse_in_thread(&m, locks_of_another_thread);
  m.arg = event;
  misuse_in_thread(&m, events_of_another_thread);
  aloop_event_free(event);
  aloop_lock_free(lock);
  misuse_end(&m);
}

TESTS(T(mistakes), T(after_the_end), T(other_threads))
