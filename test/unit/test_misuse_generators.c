/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on async generators: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"

static int64_t nothing(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
  return 0;
}

static void making(misuse_t *m) {
  aloop_generator_options_t unsized = {.size = 0};
  MISTAKE(aloop_generator_new(m->loop, NULL, NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_generator_new(m->loop, nothing, NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_generator_new(m->loop, nothing, NULL, &unsized, OUT), ALOOP_EINVAL);
}

static void generators_are_made_with_a_function(void **state) {
  in_both_modes(*state, making);
}

static void absent(misuse_t *m) {
  MISTAKE(aloop_generator_new(NULL, nothing, NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_shutdown_asyncgens(NULL), 0);
  MISTAKE(aloop_generator_next(NULL), 0);
  MISTAKE(aloop_generator_throw(NULL, ALOOP_EIO), 0);
  MISTAKE(aloop_generator_close(NULL), 0);
}

static void calls_need_a_generator(void **state) {
  in_both_modes(*state, absent);
}

static void asking(misuse_t *m) {
  aloop_generator_t *generator;
  assert_int_equal(aloop_generator_new(m->loop, nothing, NULL, NULL, &generator), 0);
  MISTAKE_OF_FUTURE(aloop_generator_throw(generator, 1), ALOOP_EINVAL);
  aloop_future_t *step = aloop_generator_next(generator);
  MISTAKE_OF_FUTURE(aloop_generator_next(generator), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_generator_close(generator), ALOOP_EBUSY);
  MISTAKE(aloop_future_set_value(step, 1), ALOOP_EPERM);
  aloop_future_unref(step);
  aloop_generator_unref(generator);
}

static void steps_are_asked_for_one_by_one(void **state) {
  in_both_modes(*state, asking);
}

static void yielding(misuse_t *m) {
  MISTAKE(aloop_yield(m), ALOOP_EPERM);
}

static int64_t yield_in_task(aloop_t *loop, void *arg) {
  (void)loop;
  misuse_t *m = arg;
  MISTAKE(aloop_yield(m), ALOOP_EPERM);
  return 0;
}

static int64_t return_object(aloop_t *loop, void *arg) {
  (void)loop;
  misuse_t *m = arg;
  MISTAKE(aloop_return_ptr(m, NULL), ALOOP_EPERM);
  return 0;
}

static int64_t ask_for_it(aloop_t *loop, void *arg) {
  aloop_generator_t *generator;
  assert_int_equal(aloop_generator_new(loop, return_object, arg, NULL, &generator), 0);
  assert_int_equal(aloop_await(aloop_generator_next(generator)), 0);
  aloop_generator_unref(generator);
  return 0;
}

static void in_a_task(misuse_t *m) {
  aloop_task_options_t eager = {.size = sizeof eager, .eager = true};
  aloop_future_unref(aloop_create_task(m->loop, yield_in_task, m, &eager));
  aloop_future_unref(aloop_create_task(m->loop, ask_for_it, m, &eager));
}

static void only_generators_yield_and_that_is_all(void **state) {
  in_both_modes(*state, yielding);
  in_both_modes(*state, in_a_task);
}

/* ---- Elsewhere ----------------------------------------------------------------------------------------------- */

static void from_elsewhere(misuse_t *m) {
  if (!m->debug) return; /* only debug mode looks */
  aloop_generator_t *generator = m->arg;
  MISTAKE(aloop_generator_new(m->loop, nothing, NULL, NULL, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_generator_next(generator), 0);
  MISTAKE(aloop_generator_throw(generator, ALOOP_EIO), 0);
  MISTAKE(aloop_generator_close(generator), 0);
  MISTAKE(aloop_generator_ref(generator), 0);
  MISTAKE_OF_VOID(aloop_generator_unref(generator));
  MISTAKE(aloop_shutdown_asyncgens(m->loop), 0);
}

static void from_a_thread(misuse_t *m) {
  aloop_generator_t *generator;
  assert_int_equal(aloop_generator_new(m->loop, nothing, NULL, NULL, &generator), 0);
  m->arg = generator;
  misuse_in_thread(m, from_elsewhere);
  aloop_generator_unref(generator);
}

static void generators_belong_to_the_thread_of_their_loop(void **state) {
  in_both_modes_outside(*state, from_a_thread);
}

TESTS(T(generators_are_made_with_a_function), T(calls_need_a_generator), T(steps_are_asked_for_one_by_one),
      T(only_generators_yield_and_that_is_all), T(generators_belong_to_the_thread_of_their_loop))
