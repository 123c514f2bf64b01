/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on futures, and on those that wait for others: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"

#include <string.h>

static void ignore(aloop_future_t *future, void *arg) {
  (void)future, (void)arg;
}

static aloop_future_t *pending(misuse_t *m) {
  return aloop_future_new(m->loop);
}

static aloop_future_t *finished(misuse_t *m) {
  aloop_future_t *future = pending(m);
  assert_int_equal(aloop_future_set_value(future, 7), 0);
  return future;
}

/* A pending future of another loop; both go with free_foreign. */
static aloop_future_t *foreign(void) {
  aloop_t *other;
  aloop_options_t options = {.size = sizeof options, .debug = -1};
  assert_int_equal(aloop_new(&options, &other), 0);
  return aloop_future_new(other);
}

static void free_foreign(aloop_future_t *future) {
  aloop_t *loop = aloop_future_loop(future);
  aloop_future_unref(future);
  aloop_free(loop);
}

/* ---- One future ------------------------------------------------------------------------------------------ */

static void null_futures(misuse_t *m) {
  MISTAKE(aloop_future_new(NULL), 0);
  ORDINARY(aloop_future_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_future_unref(NULL));
  ORDINARY_OF_VOID(aloop_future_detach(NULL));
  MISTAKE(aloop_future_loop(NULL), 0);
  MISTAKE(aloop_future_set_value(NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_value(NULL, -1), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_result(NULL, 0, OUT, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_error(NULL, ALOOP_EIO, "x"), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_error(NULL, 0, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_cancel(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_on_cancel(NULL, ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_done(NULL), false);
  MISTAKE(aloop_future_cancelled(NULL), false);
  MISTAKE(aloop_future_result(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_result_ptr(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_future_result_ptr(NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_take_ptr(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(strcmp(aloop_future_message(NULL), ""), 0);
  MISTAKE(aloop_future_add_done_callback(NULL, ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_remove_done_callback(NULL, ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_attempt(NULL, 0, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_future_child(NULL, 0), 0);
}

static void a_pending_future(misuse_t *m) {
  aloop_future_t *future = pending(m);
  MISTAKE(aloop_future_set_value(future, -1), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_value(future, INT64_MIN), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_result(future, -1, OUT, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_error(future, 0, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_set_error(future, INT32_MAX, "x"), ALOOP_EINVAL);
  MISTAKE(aloop_future_add_done_callback(future, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_remove_done_callback(future, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_result_ptr(future, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_take_ptr(future, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_future_attempt(future, 0, NULL), ALOOP_EINVAL);
  ORDINARY(aloop_future_result(future), ALOOP_ENOTDONE);
  ORDINARY(aloop_future_result_ptr(future, OUT), ALOOP_ENOTDONE);
  ORDINARY(aloop_future_take_ptr(future, OUT), ALOOP_ENOTDONE);
  ORDINARY(strcmp(aloop_future_message(future), ""), 0);
  ORDINARY(aloop_future_attempt(future, 0, OUT), ALOOP_ENOENT);
  ORDINARY(aloop_future_attempt(future, SIZE_MAX, OUT), ALOOP_ENOENT);
  ORDINARY(aloop_future_child(future, 0), 0);
  ORDINARY(aloop_future_child(future, SIZE_MAX), 0);
  ORDINARY(aloop_future_remove_done_callback(future, ignore, NULL), 0);
  ORDINARY(aloop_future_on_cancel(future, NULL, NULL), 0);
  aloop_future_unref(future);
}

/* Somebody may always have been quicker. */
static void a_done_future(misuse_t *m) {
  aloop_future_t *future = finished(m), *failed = pending(m);
  ORDINARY(aloop_future_set_value(future, 1), ALOOP_EDONE);
  ORDINARY(aloop_future_set_result(future, 1, OUT, NULL), ALOOP_EDONE);
  ORDINARY(aloop_future_set_error(future, ALOOP_EIO, NULL), ALOOP_EDONE);
  ORDINARY(aloop_future_cancel(future), 0);
  ORDINARY(aloop_future_on_cancel(future, ignore, NULL), ALOOP_EDONE);
  ORDINARY(aloop_future_result_ptr(future, OUT), ALOOP_ENOENT);
  ORDINARY(aloop_future_take_ptr(future, OUT), ALOOP_ENOENT);
  MISTAKE(aloop_future_set_value(future, -1), ALOOP_EINVAL);
  MISTAKE(aloop_future_take_ptr(future, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_future_result(future), 7);
  assert_int_equal(aloop_future_set_error(failed, ALOOP_EIO, NULL), 0);
  MISTAKE(aloop_future_result_ptr(failed, NULL), ALOOP_EINVAL);
  ORDINARY(aloop_future_result_ptr(failed, OUT), ALOOP_EIO);
  ORDINARY(aloop_future_take_ptr(failed, OUT), ALOOP_EIO);
  aloop_future_unref(failed);
  aloop_future_unref(future);
}

static void a_future_of_the_library(misuse_t *m) {
  aloop_future_t *future = aloop_sleep(m->loop, INT64_MAX);
  MISTAKE(aloop_future_on_cancel(future, ignore, NULL), ALOOP_EPERM);
  MISTAKE(aloop_future_on_cancel(future, NULL, NULL), ALOOP_EPERM);
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
}

/* ---- Many futures ---------------------------------------------------------------------------------------- */

static void waiting_for_nothing(misuse_t *m) {
  aloop_future_t *none = NULL;
  MISTAKE(aloop_sleep(NULL, 0), 0);
  MISTAKE(aloop_gather(NULL, &none, 0, 0), 0);
  MISTAKE(aloop_wait(NULL, &none, 0, 0, 0), 0);
  ORDINARY(aloop_wait_for(NULL, 0), 0);
  ORDINARY(aloop_shield(NULL), 0);
  /* As if out of memory, where calls nest; the others of the list are taken and cancelled. */
  aloop_future_t *held[2] = {pending(m), pending(m)};
  aloop_future_t *lists[][2] = {{held[0], NULL}, {NULL, held[1]}};
  aloop_future_ref(held[0]);
  aloop_future_ref(held[1]);
  assert_null(aloop_gather(m->loop, lists[0], 2, 0));
  assert_null(aloop_wait(m->loop, lists[1], 2, ALOOP_FOREVER, ALOOP_ALL_COMPLETED));
  assert_int_equal(m->env->reports, 0);
  for (int i = 0; i < 2; i++) {
    assert_true(aloop_future_cancelled(held[i]));
    aloop_future_unref(held[i]);
  }
  MISTAKE_OF_FUTURE(aloop_gather(m->loop, NULL, 1, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_gather(m->loop, NULL, SIZE_MAX, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_gather(m->loop, NULL, 0, 2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_wait(m->loop, NULL, 0, ALOOP_FOREVER, ALOOP_ALL_COMPLETED), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_wait(m->loop, NULL, SIZE_MAX, ALOOP_FOREVER, ALOOP_ALL_COMPLETED), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_wait(m->loop, &none, 0, ALOOP_FOREVER, ALOOP_ALL_COMPLETED), ALOOP_EINVAL);
}

/* A gather, or a wait, of one future whose reference it takes. */
static aloop_future_t *gather(misuse_t *m, aloop_future_t *one, unsigned flags) {
  return aloop_gather(m->loop, &one, 1, flags);
}

static aloop_future_t *wait_until(misuse_t *m, aloop_future_t *one, int until) {
  return aloop_wait(m->loop, &one, 1, ALOOP_FOREVER, until);
}

static void unknown_flags(misuse_t *m) {
  MISTAKE_OF_FUTURE(gather(m, pending(m), 2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(gather(m, pending(m), ~0u), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(wait_until(m, pending(m), -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(wait_until(m, pending(m), 3), ALOOP_EINVAL);
}

static void waiting_for_others(misuse_t *m) {
  aloop_future_t *other = foreign();
  MISTAKE_OF_FUTURE(gather(m, aloop_future_ref(other), 0), ALOOP_EOTHERLOOP);
  MISTAKE_OF_FUTURE(wait_until(m, aloop_future_ref(other), ALOOP_ALL_COMPLETED), ALOOP_EOTHERLOOP);
  assert_false(aloop_future_done(other));
  free_foreign(other);
}

static void limits_of_any_size(misuse_t *m) {
  int64_t limits[] = {INT64_MIN, -2, 0, INT64_MAX};
  for (int i = 0; i < 4; i++) {
    aloop_future_t *future = aloop_wait_for(pending(m), limits[i]), *sleep = aloop_sleep(m->loop, limits[i]);
    assert_int_equal(aloop_future_result(future), ALOOP_ENOTDONE);
    assert_int_equal(aloop_future_result(sleep), ALOOP_ENOTDONE);
    assert_int_equal(aloop_future_cancelled(aloop_future_child(future, 0)), limits[i] <= 0);
    aloop_future_cancel(future);
    aloop_future_cancel(sleep);
    aloop_future_unref(future);
    aloop_future_unref(sleep);
    aloop_future_t *one = pending(m), *many = aloop_wait(m->loop, &one, 1, limits[i], ALOOP_ALL_COMPLETED);
    assert_false(aloop_future_done(many));
    aloop_future_cancel(many);
    aloop_future_unref(many);
  }
  assert_int_equal(m->env->reports, 0);
}

/* ---- After the end --------------------------------------------------------------------------------------- */

static void a_closed_loop(misuse_t *m) {
  aloop_future_t *done = finished(m), *left = pending(m), *watched = pending(m);
  assert_int_equal(aloop_future_add_done_callback(watched, ignore, NULL), 0);
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE_OF_FUTURE(aloop_future_new(m->loop), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_sleep(m->loop, 1), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_gather(m->loop, NULL, 0, 0), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_wait(m->loop, &done, 0, 1, 0), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_wait_for(aloop_future_ref(done), 1), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_shield(aloop_future_ref(done)), ALOOP_ECLOSED);
  MISTAKE(aloop_future_add_done_callback(done, ignore, NULL), ALOOP_ECLOSED);
  MISTAKE(aloop_future_add_done_callback(left, ignore, NULL), ALOOP_ECLOSED);
  ORDINARY(aloop_future_remove_done_callback(watched, ignore, NULL), 0);
  ORDINARY(aloop_future_set_value(left, 1), ALOOP_EDONE);
  ORDINARY(aloop_future_cancel(left), 0);
  ORDINARY(aloop_future_result(left), ALOOP_ECANCELED);
  ORDINARY(aloop_future_result(done), 7);
  ORDINARY(aloop_future_loop(done) == m->loop, true);
  aloop_future_unref(watched);
  aloop_future_unref(left);
  aloop_future_unref(done);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

#define REFUSED(call) MISTAKE(call, ALOOP_ENOTLOOPTHREAD)

static void calls_of_another_thread(misuse_t *m) {
  aloop_future_t *future = m->arg;
  MISTAKE(aloop_future_new(m->loop), 0);
  MISTAKE(aloop_future_ref(future), 0);
  MISTAKE_OF_VOID(aloop_future_unref(future));
  MISTAKE_OF_VOID(aloop_future_detach(future));
  REFUSED(aloop_future_set_value(future, 1));
  REFUSED(aloop_future_set_result(future, 1, OUT, NULL));
  REFUSED(aloop_future_set_error(future, ALOOP_EIO, "x"));
  REFUSED(aloop_future_cancel(future));
  REFUSED(aloop_future_on_cancel(future, ignore, NULL));
  MISTAKE(aloop_future_done(future), false);
  MISTAKE(aloop_future_cancelled(future), false);
  REFUSED(aloop_future_result(future));
  REFUSED(aloop_future_result_ptr(future, OUT));
  REFUSED(aloop_future_take_ptr(future, OUT));
  MISTAKE(strcmp(aloop_future_message(future), ""), 0);
  REFUSED(aloop_future_add_done_callback(future, ignore, NULL));
  REFUSED(aloop_future_remove_done_callback(future, ignore, NULL));
  REFUSED(aloop_future_attempt(future, 0, OUT));
  MISTAKE(aloop_future_child(future, 0), 0);
  MISTAKE(aloop_sleep(m->loop, 1), 0);
  MISTAKE(gather(m, future, 0), 0);
  MISTAKE(wait_until(m, future, ALOOP_ALL_COMPLETED), 0);
  MISTAKE(aloop_wait_for(future, 1), 0);
  MISTAKE(aloop_shield(future), 0);
  REFUSED(aloop_run_until_complete(m->loop, future));
  REFUSED(aloop_run_until_complete_ptr(m->loop, future, OUT));
  ORDINARY(aloop_future_loop(future) == m->loop, true);
}

/* Without debug mode none of this is told apart, so there is nothing to test. */
static void another_thread(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  m.arg = pending(&m);
  misuse_in_thread(&m, calls_of_another_thread);
  misuse_end(&m);
  assert_false(aloop_future_done(m.arg));
  aloop_future_unref(m.arg);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void futures_that_are_null(void **state) {
  in_both_modes(*state, null_futures);
}

static void pending_futures(void **state) {
  in_both_modes(*state, a_pending_future);
}

static void done_futures(void **state) {
  in_both_modes(*state, a_done_future);
}

static void futures_of_the_library(void **state) {
  in_both_modes(*state, a_future_of_the_library);
}

static void nothing_to_wait_for(void **state) {
  in_both_modes(*state, waiting_for_nothing);
}

static void flags_that_are_not_known(void **state) {
  in_both_modes(*state, unknown_flags);
}

static void futures_of_another_loop(void **state) {
  in_both_modes(*state, waiting_for_others);
}

static void all_times(void **state) {
  in_both_modes(*state, limits_of_any_size);
}

static void futures_of_a_closed_loop(void **state) {
  in_both_modes_outside(*state, a_closed_loop);
}

TESTS(T(futures_that_are_null), T(pending_futures), T(done_futures), T(futures_of_the_library),
      T(nothing_to_wait_for), T(flags_that_are_not_known), T(futures_of_another_loop), T(all_times),
      T(futures_of_a_closed_loop), T(another_thread))
