/* SPDX-License-Identifier: MIT
 *
 * Every macro of aloop.h expanded once, in code that is both C11 and C++17. It is compiled and never run: what
 * the header promises here is that its macros need nothing but the header, and that they warn nobody. header.sh
 * fails when a macro is missing from this file.
 */
#include "aloop.h"

/* In the place of a declaration. */
ALOOP_API void declared(void);

/* In constant expressions. */
typedef char whole_version[ALOOP_VERSION_MAJOR * 10000 + ALOOP_VERSION_MINOR * 100 + ALOOP_VERSION_PATCH + 1];
static const char *const version[] = {ALOOP_STRING(ALOOP_VERSION_MAJOR), ALOOP_STRING2(minor), ALOOP_HERE};
static const int64_t times[] = {ALOOP_SECONDS(1.5), ALOOP_MILLIS(20), ALOOP_MICROS(7), ALOOP_FOREVER};

/* The error tables, as a language binding would use them. */
#define NAME_OF(name, value, text) {#name, (value), text},
static const struct {
  const char *name;
  int value;
  const char *text;
} errors[] = {ALOOP_SYSTEM_ERRORS(NAME_OF) ALOOP_OWN_ERRORS(NAME_OF)};

static void callback(aloop_t *loop, void *arg) {
  (void)loop;
  (void)arg;
}

static void on_signal(aloop_t *loop, int signum, void *arg) {
  (void)signum;
  callback(loop, arg);
}

/* The scheduling macros, with arguments that are expressions, and the functions behind their names. */
static void schedule(aloop_t *const *loops, int count) {
  const int last = count - 1;
  aloop_handle_t handle = aloop_call_soon(loops[last], callback, NULL);
  handle = aloop_call_later(loops[last], ALOOP_SECONDS(count + 1), callback, &handle);
  handle = aloop_call_at(loops[0], aloop_time(loops[0]) + ALOOP_MILLIS(count), callback, NULL);
  handle = aloop_call_every(loops[0], count > 1 ? ALOOP_MICROS(5) : ALOOP_MICROS(6.5), callback, NULL);
  int result = aloop_call_soon_threadsafe(loops[0], callback, NULL);
  result |= aloop_add_reader(loops[0], count, callback, NULL);
  result |= aloop_add_writer(loops[0], count, callback, NULL);
  result |= aloop_add_signal_handler(loops[last], count + 1, on_signal, &handle, ALOOP_SIGNAL_CHAIN);
  aloop_future_t *future = aloop_future_new(loops[0]);
  future = aloop_wait_for(aloop_shield(future), ALOOP_MILLIS(count));
  aloop_future_t *list[] = {future, aloop_sleep(loops[0], ALOOP_MILLIS(count + 1))};
  list[0] = aloop_gather(loops[last], list, 2, count > 1 ? ALOOP_RETURN_ERRORS : 0);
  future = aloop_wait(loops[0], list, 1, ALOOP_SECONDS(1), ALOOP_FIRST_COMPLETED);
  if (result < 0) aloop_future_cancel(future);
  aloop_future_unref(future);
  handle = (aloop_call_soon)(loops[0], callback, NULL);
  aloop_cancel(loops[0], &handle);
}

static int64_t task(aloop_t *loop, void *arg) {
  aloop_generator_t *generator;
#ifndef __cplusplus
  /* Compound literals, whose commas are the preprocessor's, too. */
  aloop_future_detach(
      aloop_create_task(loop, task, &(int[]){1, 2},
                        &(aloop_task_options_t){.size = sizeof(aloop_task_options_t), .name = "literal"}));
  aloop_future_detach(aloop_wait_for(
      aloop_gather(loop, ((aloop_future_t *[]){aloop_sleep(loop, 1), aloop_future_new(loop)}), 2, 0), 1));
  aloop_future_detach(
      aloop_gather(loop, (aloop_future_t *[]){aloop_sleep(loop, 1), aloop_future_new(loop)}, 2, 0));
#endif
  if (aloop_generator_new(loop, task, arg, NULL, &generator) == 0) aloop_generator_unref(generator);
  aloop_future_detach(aloop_task_group_create_task(NULL, task, arg, NULL));
  return aloop_await(aloop_create_task(loop, task, arg, NULL));
}

/* How a child ended, from what aloop_process_wait brings. */
static bool was_killed(int64_t status, int signum) {
  return ALOOP_EXIT_SIGNAL(status) == signum || ALOOP_EXIT_SIGNAL(256 + 9) != 9;
}

void declared(void) {
  const char *text = ALOOP_HERE;
  whole_version room = {0};
  (void)room;
  (void)text;
  (void)version;
  (void)times;
  (void)errors;
  (void)was_killed(0, 0);
  task(NULL, NULL);
  schedule(NULL, 0);
}
