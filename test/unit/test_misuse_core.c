/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on loops, callbacks, timers, context variables, the exception handler, the inspection and
 * descriptors: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "misuse.h"

#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void ignore(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

static void ignore_line(void *arg, const char *text) {
  (void)arg, (void)text;
}

static int error_of(aloop_handle_t handle) {
  return aloop_handle_error(handle);
}

static aloop_handle_t none(void) {
  return (aloop_handle_t){0};
}

/* ---- Loops ----------------------------------------------------------------------------------------------- */

/* A new loop with these options; none is expected to come. */
static int make(misuse_t *m, aloop_options_t options, size_t size) {
  aloop_t *loop = OUT;
  options.size = size;
  int rc = aloop_new(&options, &loop);
  if (loop != OUT) aloop_free(loop);
  return rc;
}

#define NEW(...) make(m, (aloop_options_t){__VA_ARGS__}, sizeof(aloop_options_t))

/* What a caller of a later version might hand over. */
static int make_with_more(misuse_t *m, bool set) {
  struct {
    aloop_options_t known;
    size_t unknown[4];
  } options = {{.size = sizeof options, .debug = m->debug ? 1 : -1}, {0, 0, 0, set}};
  aloop_t *loop = OUT;
  int rc = aloop_new(&options.known, &loop);
  if (rc == 0) aloop_free(loop);
  return rc;
}

static void *no_memory(void *user, void *block, size_t bytes) {
  (void)user, (void)block, (void)bytes;
  return NULL;
}

static void free_nothing(void *user, void *block) {
  (void)user, (void)block;
}

static void options_of_a_new_loop(misuse_t *m) {
  size_t whole = sizeof(aloop_allocator_t);
  aloop_allocator_t unsized = {0, no_memory, free_nothing, NULL};
  aloop_allocator_t only_resize = {whole, no_memory, NULL, NULL};
  aloop_allocator_t only_release = {whole, NULL, free_nothing, NULL};
  aloop_poller_t table = *aloop_poller_find(NULL), bad[7];
  for (int i = 0; i < 7; i++) bad[i] = table;
  bad[0].size = 0;
  bad[1].size = sizeof(aloop_poller_t) - 8;
  bad[2].name = NULL;
  bad[3].open = NULL;
  bad[4].close = NULL;
  bad[5].update = NULL;
  bad[6].wait = NULL;
  MISTAKE(aloop_new(NULL, NULL), ALOOP_EINVAL);
  MISTAKE(make(m, (aloop_options_t){0}, 0), ALOOP_EINVAL);
  MISTAKE(make(m, (aloop_options_t){0}, sizeof(size_t)), ALOOP_EINVAL);
  MISTAKE(make(m, (aloop_options_t){0}, sizeof(size_t) + 3), ALOOP_EINVAL);
  MISTAKE(make(m, (aloop_options_t){0}, SIZE_MAX), ALOOP_EINVAL);
  MISTAKE(make_with_more(m, true), ALOOP_EINVAL);
  ORDINARY(make_with_more(m, false), 0);
  MISTAKE(NEW(.poller = "abacus"), ALOOP_EINVAL);
  MISTAKE(NEW(.slow_callback_duration = -1), ALOOP_EINVAL);
  MISTAKE(NEW(.slow_callback_duration = INT64_MIN), ALOOP_EINVAL);
  MISTAKE(NEW(.allocator = &unsized), ALOOP_EINVAL);
  MISTAKE(NEW(.allocator = &only_resize), ALOOP_EINVAL);
  MISTAKE(NEW(.allocator = &only_release), ALOOP_EINVAL);
  for (int i = 0; i < 7; i++) MISTAKE(NEW(.poller_table = &bad[i]), ALOOP_EINVAL);
}

static void null_loops(misuse_t *m) {
  int value = 0;
  MISTAKE(aloop_close(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_is_closed(NULL), true);
  ORDINARY_OF_VOID(aloop_free(NULL));
  MISTAKE(aloop_run_forever(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_run_until_complete(NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_run_until_complete_ptr(NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_run_once(NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_stop(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_stop_with_error(NULL, ALOOP_EIO), ALOOP_EINVAL);
  MISTAKE(aloop_is_running(NULL), false);
  MISTAKE(aloop_current(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_after_fork(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_backend_fd(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_next_timeout(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_set_armed_hook(NULL, ignore, &value), ALOOP_EINVAL);
  MISTAKE(strcmp(aloop_poller_name(NULL), ""), 0);
  MISTAKE(strcmp(aloop_poller_reason(NULL), ""), 0);
  ORDINARY(aloop_poller_find("abacus"), 0);
  ORDINARY(aloop_poller_find(""), 0);
}

static void a_loop_that_runs(misuse_t *m) {
  aloop_t *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  MISTAKE(aloop_run_forever(m->loop), ALOOP_ERUNNING);
  MISTAKE(aloop_run_once(m->loop, INT64_MIN), ALOOP_ERUNNING);
  MISTAKE(aloop_run_until_complete(m->loop, aloop_future_new(m->loop)), ALOOP_ERUNNING);
  MISTAKE(aloop_run_until_complete_ptr(m->loop, aloop_future_new(m->loop), OUT), ALOOP_ERUNNING);
  MISTAKE(aloop_close(m->loop), ALOOP_ERUNNING);
  MISTAKE_OF_VOID(aloop_free(m->loop));
  MISTAKE(aloop_stop_with_error(m->loop, 0), ALOOP_EINVAL);
  MISTAKE(aloop_stop_with_error(m->loop, INT32_MAX), ALOOP_EINVAL);
  ORDINARY(aloop_is_closed(m->loop), false);
  ORDINARY(aloop_is_running(m->loop), true);
  ORDINARY(aloop_after_fork(m->loop), 0);
  ORDINARY(aloop_run_forever(other), ALOOP_ERUNNING); /* its own handler is told, if it is in debug mode */
  aloop_free(other);
}

/* Loops that do not run tell their own handler of what is wrong with the call. */
static void a_loop_that_rests(misuse_t *m) {
  aloop_t *other;
  aloop_options_t options = {.size = sizeof options, .debug = -1};
  assert_int_equal(aloop_new(&options, &other), 0);
  MISTAKE(aloop_run_until_complete_ptr(m->loop, aloop_future_new(m->loop), NULL), ALOOP_EINVAL);
  MISTAKE(aloop_run_until_complete(m->loop, aloop_future_new(other)), ALOOP_EOTHERLOOP);
  MISTAKE(aloop_run_until_complete_ptr(m->loop, aloop_future_new(other), OUT), ALOOP_EOTHERLOOP);
  ORDINARY(aloop_run_until_complete(m->loop, NULL), ALOOP_ENOMEM);
  ORDINARY(aloop_run_until_complete_ptr(m->loop, NULL, OUT), ALOOP_ENOMEM);
  ORDINARY(aloop_run_once(m->loop, INT64_MIN), 0); /* does not wait */
  ORDINARY(aloop_run_once(m->loop, -2), 0);
  assert_int_equal(aloop_call_soon(m->loop, ignore, NULL).id != 0, 1);
  ORDINARY(aloop_next_timeout(m->loop), 0);
  aloop_free(other);
}

static void a_closed_loop(misuse_t *m) {
  int fds[2];
  make_pipe(fds);
  aloop_t *loop = m->loop;
  aloop_var_t *var;
  assert_int_equal(aloop_var_new("x", &var), 0);
  aloop_handle_t soon = aloop_call_soon(loop, ignore, NULL), later = aloop_call_later(loop, 1, ignore, NULL);
  assert_int_equal(aloop_close(loop), 0);
  ORDINARY(aloop_close(loop), 0);
  ORDINARY(aloop_is_closed(loop), true);
  MISTAKE(aloop_run_forever(loop), ALOOP_ECLOSED);
  MISTAKE(aloop_run_once(loop, 0), ALOOP_ECLOSED);
  MISTAKE(aloop_run_until_complete(loop, NULL), ALOOP_ECLOSED);
  MISTAKE(aloop_run_until_complete_ptr(loop, NULL, OUT), ALOOP_ECLOSED);
  MISTAKE(aloop_stop(loop), ALOOP_ECLOSED);
  MISTAKE(aloop_stop_with_error(loop, ALOOP_EIO), ALOOP_ECLOSED);
  MISTAKE(aloop_after_fork(loop), ALOOP_ECLOSED);
  MISTAKE(aloop_backend_fd(loop), ALOOP_ECLOSED);
  MISTAKE(aloop_next_timeout(loop), ALOOP_ECLOSED);
  MISTAKE(aloop_set_armed_hook(loop, ignore, NULL), ALOOP_ECLOSED);
  MISTAKE(error_of(aloop_call_soon(loop, ignore, NULL)), ALOOP_ECLOSED);
  MISTAKE(error_of(aloop_call_later(loop, 1, ignore, NULL)), ALOOP_ECLOSED);
  MISTAKE(error_of(aloop_call_at(loop, 1, ignore, NULL)), ALOOP_ECLOSED);
  MISTAKE(error_of(aloop_call_every(loop, 1, ignore, NULL)), ALOOP_ECLOSED);
  MISTAKE(aloop_reschedule(loop, &later, 1), ALOOP_ECLOSED);
  MISTAKE(aloop_var_set(loop, var, NULL, NULL, OUT), ALOOP_ECLOSED);
  MISTAKE(aloop_context_copy(loop, OUT), ALOOP_ECLOSED);
  MISTAKE(aloop_set_debug(loop, true), ALOOP_ECLOSED);
  MISTAKE(aloop_set_slow_callback_duration(loop, 1), ALOOP_ECLOSED);
  MISTAKE(aloop_add_reader(loop, fds[0], ignore, NULL), ALOOP_ECLOSED);
  MISTAKE(aloop_add_writer(loop, fds[1], ignore, NULL), ALOOP_ECLOSED);
  /* Another thread cannot know that the loop was closed, and what asks or takes away still works. */
  ORDINARY(aloop_call_soon_threadsafe(loop, ignore, NULL), ALOOP_ECLOSED);
  ORDINARY(aloop_cancel(loop, &soon), 0);
  ORDINARY(aloop_cancel(loop, &later), 0);
  ORDINARY(aloop_handle_pending(loop, soon), false);
  ORDINARY(aloop_handle_when(loop, later), ALOOP_ENOENT);
  ORDINARY(aloop_remove_reader(loop, fds[0]), 0);
  ORDINARY(aloop_remove_writer(loop, fds[1]), 0);
  ORDINARY(aloop_time(loop) > 0, true);
  ORDINARY(aloop_update_time(loop) > 0, true);
  ORDINARY(aloop_var_get(loop, var, NULL), 0);
  ORDINARY(aloop_get_debug(loop), m->debug);
  ORDINARY(aloop_dump(loop, ignore_line, NULL), 0);
  ORDINARY(aloop_is_running(loop), false);
  aloop_var_unref(var);
  close(fds[0]);
  close(fds[1]);
}

static int never(void *user, aloop_t **loop) {
  (void)user, (void)loop;
  return ALOOP_ENOLOOP;
}

static void policies(misuse_t *m) {
  aloop_policy_t unsized = {.get_current = never};
  aloop_policy_t wrong_size = {.size = sizeof unsized + 1, .get_current = never};
  const aloop_policy_t *before = aloop_get_policy();
  MISTAKE(aloop_set_policy(&unsized), ALOOP_EINVAL);
  MISTAKE(aloop_set_policy(&wrong_size), ALOOP_EINVAL);
  ORDINARY(aloop_get_policy() == before, true);
  ORDINARY(aloop_set_policy(NULL), 0);
  ORDINARY(aloop_set_current(m->loop), 0);
  ORDINARY(aloop_set_current(NULL), 0);
}

static void no_loop_is_set(misuse_t *m) {
  ORDINARY(aloop_current(OUT), ALOOP_ENOLOOP);
  ORDINARY(aloop_running_loop(), 0);
}

/* ---- Callbacks and timers -------------------------------------------------------------------------------- */

static void scheduling(misuse_t *m) {
  aloop_t *loop = m->loop;
  aloop_handle_t nothing = none(), junk = {UINT64_MAX}, error = {(uint64_t)-ALOOP_ENOMEM};
  aloop_handle_t foreign = {UINT64_C(1) << 63 | 7}, ahead = {UINT64_C(1) << 40};
  MISTAKE(error_of(aloop_call_soon(NULL, ignore, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_soon(loop, NULL, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_later(NULL, 1, ignore, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_later(loop, 1, NULL, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_at(NULL, 1, ignore, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_at(loop, 1, NULL, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_every(NULL, 1, ignore, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_every(loop, 1, NULL, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_every(loop, 0, ignore, NULL)), ALOOP_EINVAL);
  MISTAKE(error_of(aloop_call_every(loop, INT64_MIN, ignore, NULL)), ALOOP_EINVAL);
  MISTAKE(aloop_call_soon_threadsafe(NULL, ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_call_soon_threadsafe(loop, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_time(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_update_time(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_cancel(NULL, &nothing), ALOOP_EINVAL);
  MISTAKE(aloop_cancel(loop, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_reschedule(NULL, &nothing, 1), ALOOP_EINVAL);
  MISTAKE(aloop_reschedule(loop, NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_handle_pending(NULL, nothing), false);
  MISTAKE(aloop_handle_when(NULL, nothing), ALOOP_EINVAL);
  ORDINARY(aloop_handle_error(nothing), ALOOP_EINVAL);
  aloop_handle_t stale[] = {nothing, junk, error, foreign, ahead};
  for (size_t i = 0; i < sizeof stale / sizeof stale[0]; i++) {
    aloop_handle_t copy = stale[i];
    ORDINARY(aloop_cancel(loop, &copy), 0);
    ORDINARY(copy.id == stale[i].id, true);
    ORDINARY(aloop_reschedule(loop, &copy, INT64_MIN), ALOOP_ENOENT);
    ORDINARY(aloop_handle_pending(loop, copy), false);
    ORDINARY(aloop_handle_when(loop, copy), ALOOP_ENOENT);
    ORDINARY(aloop_handle_cancelled(copy), false);
  }
}

static void deadlines_of_any_size(misuse_t *m) {
  int64_t times[] = {INT64_MIN, INT64_MIN + 1, -1, 0, INT64_MAX - 1, INT64_MAX};
  for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
    aloop_handle_t handles[] = {aloop_call_later(m->loop, times[i], ignore, NULL),
                                aloop_call_at(m->loop, times[i], ignore, NULL),
                                aloop_call_at(m->loop, 5, ignore, NULL)};
    assert_int_equal(aloop_reschedule(m->loop, &handles[2], times[i]), 0);
    for (int j = 0; j < 3; j++) {
      assert_true(aloop_handle_when(m->loop, handles[j]) >= 0);
      assert_int_equal(aloop_cancel(m->loop, &handles[j]), 1);
      ORDINARY(aloop_cancel(m->loop, &handles[j]), 0);
    }
  }
  aloop_handle_t rare = aloop_call_every(m->loop, INT64_MAX, ignore, NULL);
  assert_int_equal(aloop_cancel(m->loop, &rare), 1);
}

/* ---- Context variables ----------------------------------------------------------------------------------- */

typedef struct entered {
  misuse_t *m;
  aloop_context_t *context;
} entered_t;

static void enter_again(aloop_t *loop, void *arg) {
  entered_t *self = arg;
  misuse_t *m = self->m;
  MISTAKE(aloop_context_run(loop, self->context, ignore, NULL), ALOOP_EBUSY);
  aloop_context_unref(self->context); /* goes when it is left */
  aloop_context_unref(NULL);
}

static void context_variables(misuse_t *m) {
  aloop_t *loop = m->loop, *other;
  aloop_var_t *var;
  aloop_context_t *context, *foreign;
  aloop_var_token_t *token;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_var_new("x", &var), 0);
  assert_int_equal(aloop_context_copy(loop, &context), 0);
  assert_int_equal(aloop_context_copy(other, &foreign), 0);
  assert_int_equal(aloop_var_set(other, var, NULL, NULL, &token), 0);
  MISTAKE(aloop_var_new(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_var_new("x", NULL), ALOOP_EINVAL);
  ORDINARY_OF_VOID(aloop_var_unref(NULL));
  MISTAKE(aloop_var_set(NULL, var, NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_var_set(loop, NULL, NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_var_get(NULL, var, m) == m, true);
  MISTAKE(aloop_var_get(loop, NULL, m) == m, true);
  MISTAKE(aloop_var_reset(NULL, token), ALOOP_EINVAL);
  MISTAKE(aloop_var_reset(loop, token), ALOOP_EOTHERLOOP);
  ORDINARY(aloop_var_reset(loop, NULL), 0);
  ORDINARY_OF_VOID(aloop_var_token_free(NULL));
  MISTAKE(aloop_context_copy(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_context_copy(loop, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_context_run(NULL, context, ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_context_run(loop, NULL, ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_context_run(loop, context, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_context_run(loop, foreign, ignore, NULL), ALOOP_EOTHERLOOP);
  entered_t self = {m, context};
  assert_int_equal(aloop_context_run(loop, context, enter_again, &self), 0);
  aloop_context_unref(foreign);
  aloop_var_token_free(token);
  aloop_var_unref(var);
  aloop_free(other);
}

/* ---- Exception handler, debug mode, metrics -------------------------------------------------------------- */

static void the_exception_handler(misuse_t *m) {
  aloop_error_context_t unsized = {.message = "x"},
                        report = {.size = sizeof report, .message = "a report", .fd = -1};
  MISTAKE(aloop_set_exception_handler(NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_get_exception_handler(NULL, OUT), 0);
  MISTAKE_OF_VOID(aloop_call_exception_handler(NULL, &report));
  MISTAKE_OF_VOID(aloop_call_exception_handler(m->loop, NULL));
  MISTAKE_OF_VOID(aloop_call_exception_handler(m->loop, &unsized));
  MISTAKE_OF_VOID(aloop_default_exception_handler(m->loop, NULL));
  MISTAKE_OF_VOID(aloop_default_exception_handler(NULL, NULL));
  MISTAKE_OF_VOID(aloop_default_exception_handler(m->loop, &unsized));
}

static void inspection(misuse_t *m) {
  aloop_metrics_t unsized = {0}, tiny = {.size = sizeof(size_t)};
  MISTAKE(aloop_get_debug(NULL), false);
  MISTAKE(aloop_set_debug(NULL, true), ALOOP_EINVAL);
  MISTAKE(aloop_set_slow_callback_duration(NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_set_slow_callback_duration(m->loop, 0), ALOOP_EINVAL);
  MISTAKE(aloop_set_slow_callback_duration(m->loop, INT64_MIN), ALOOP_EINVAL);
  MISTAKE(aloop_metrics(NULL, &unsized), ALOOP_EINVAL);
  MISTAKE(aloop_metrics(m->loop, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_metrics(m->loop, &unsized), ALOOP_EINVAL);
  MISTAKE(aloop_metrics(m->loop, &tiny), ALOOP_EINVAL);
  ORDINARY(unsized.turns + tiny.turns, 0);
  MISTAKE(aloop_dump(NULL, ignore_line, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_dump(m->loop, NULL, NULL), ALOOP_EINVAL);
}

/* ---- Descriptors ----------------------------------------------------------------------------------------- */

static void descriptors(misuse_t *m) {
  aloop_t *loop = m->loop;
  int fds[2], gone = dup(0);
  make_pipe(fds);
  close(gone);
  MISTAKE(aloop_add_reader(NULL, fds[0], ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_add_writer(NULL, fds[1], ignore, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_add_reader(loop, fds[0], NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_add_writer(loop, fds[1], NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_add_reader(loop, -1, ignore, NULL), ALOOP_EBADF);
  MISTAKE(aloop_add_writer(loop, INT32_MIN, ignore, NULL), ALOOP_EBADF);
  MISTAKE(aloop_add_reader(loop, gone, ignore, NULL), ALOOP_EBADF);
  MISTAKE(aloop_add_writer(loop, gone, ignore, NULL), ALOOP_EBADF);
  MISTAKE(aloop_remove_reader(NULL, fds[0]), ALOOP_EINVAL);
  MISTAKE(aloop_remove_writer(NULL, fds[1]), ALOOP_EINVAL);
  MISTAKE(aloop_remove_reader(loop, -1), ALOOP_EBADF);
  MISTAKE(aloop_remove_writer(loop, INT32_MIN), ALOOP_EBADF);
  ORDINARY(aloop_remove_reader(loop, fds[0]), 0);
  ORDINARY(aloop_remove_writer(loop, INT32_MAX), 0);
  close(fds[0]);
  close(fds[1]);
}

/* What the poller cannot watch a correct program may try to. */
static void descriptors_that_cannot_be_watched(misuse_t *m) {
  int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (file < 0) file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  assert_true(file >= 0);
  int rc = aloop_add_reader(m->loop, file, ignore, NULL);
  if (rc == 0) assert_int_equal(aloop_remove_reader(m->loop, file), 1);
  if (rc < 0) ORDINARY(aloop_add_reader(m->loop, file, ignore, NULL), rc);
  close(file);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

typedef struct others {
  int fds[2];
  aloop_handle_t soon, later;
  aloop_var_t *var;
  aloop_var_token_t *token;
  aloop_context_t *context;
} others_t;

#define REFUSED(call) MISTAKE(call, ALOOP_ENOTLOOPTHREAD)

static void calls_of_another_thread(misuse_t *m) {
  aloop_t *loop = m->loop;
  others_t *others = m->arg;
  aloop_metrics_t metrics = {.size = sizeof metrics};
  aloop_error_context_t report = {.size = sizeof report, .message = "a report", .fd = -1};
  REFUSED(aloop_close(loop));
  MISTAKE(aloop_is_closed(loop), true);
  MISTAKE_OF_VOID(aloop_free(loop));
  REFUSED(aloop_run_forever(loop));
  REFUSED(aloop_run_once(loop, 0));
  REFUSED(aloop_run_until_complete(loop, NULL));
  REFUSED(aloop_run_until_complete_ptr(loop, NULL, OUT));
  REFUSED(aloop_stop(loop));
  REFUSED(aloop_stop_with_error(loop, ALOOP_EIO));
  REFUSED(aloop_after_fork(loop));
  REFUSED(aloop_backend_fd(loop));
  REFUSED(aloop_next_timeout(loop));
  REFUSED(aloop_set_armed_hook(loop, ignore, NULL));
  REFUSED(error_of(aloop_call_soon(loop, ignore, NULL)));
  REFUSED(error_of(aloop_call_later(loop, 1, ignore, NULL)));
  REFUSED(error_of(aloop_call_at(loop, 1, ignore, NULL)));
  REFUSED(error_of(aloop_call_every(loop, 1, ignore, NULL)));
  REFUSED(aloop_time(loop));
  REFUSED(aloop_update_time(loop));
  REFUSED(aloop_cancel(loop, &others->soon));
  REFUSED(aloop_reschedule(loop, &others->later, 1));
  MISTAKE(aloop_handle_pending(loop, others->soon), false);
  REFUSED(aloop_handle_when(loop, others->later));
  REFUSED(aloop_var_set(loop, others->var, m, NULL, OUT));
  MISTAKE(aloop_var_get(loop, others->var, OUT) == OUT, true);
  REFUSED(aloop_var_reset(loop, others->token));
  MISTAKE_OF_VOID(aloop_var_token_free(others->token));
  REFUSED(aloop_context_copy(loop, OUT));
  REFUSED(aloop_context_run(loop, others->context, ignore, NULL));
  MISTAKE_OF_VOID(aloop_context_unref(others->context));
  REFUSED(aloop_set_exception_handler(loop, NULL, NULL));
  MISTAKE(aloop_get_exception_handler(loop, OUT), 0);
  MISTAKE_OF_VOID(aloop_call_exception_handler(loop, &report));
  MISTAKE(aloop_get_debug(loop), false);
  REFUSED(aloop_set_debug(loop, false));
  REFUSED(aloop_set_slow_callback_duration(loop, 1));
  REFUSED(aloop_metrics(loop, &metrics));
  REFUSED(aloop_dump(loop, ignore_line, NULL));
  REFUSED(aloop_add_reader(loop, others->fds[0], ignore, NULL));
  REFUSED(aloop_add_writer(loop, others->fds[1], ignore, NULL));
  REFUSED(aloop_remove_reader(loop, others->fds[0]));
  REFUSED(aloop_remove_writer(loop, others->fds[1]));
  /* What any thread may do. */
  ORDINARY(aloop_is_running(loop), true);
  ORDINARY(aloop_running_loop(), 0);
  ORDINARY(aloop_poller_name(loop) != NULL, true);
  ORDINARY(strcmp(aloop_poller_reason(loop), ""), 0);
  ORDINARY(aloop_handle_error(others->soon), 0);
  ORDINARY(aloop_handle_cancelled(others->soon), false);
  MISTAKE(aloop_call_soon_threadsafe(loop, NULL, NULL), ALOOP_EINVAL);
}

static void another_thread(void **state) {
  misuse_t m;
  others_t others;
  misuse_begin(&m, *state, true);
  m.arg = &others;
  make_pipe(others.fds);
  others.soon = aloop_call_later(m.loop, ALOOP_SECONDS(100), ignore, NULL);
  others.later = aloop_call_later(m.loop, ALOOP_SECONDS(100), ignore, NULL);
  assert_int_equal(aloop_add_reader(m.loop, others.fds[0], ignore, NULL), 0);
  assert_int_equal(aloop_var_new("x", &others.var), 0);
  assert_int_equal(aloop_var_set(m.loop, others.var, &m, NULL, &others.token), 0);
  assert_int_equal(aloop_context_copy(m.loop, &others.context), 0);
  misuse_in_thread(&m, calls_of_another_thread);
  misuse_end(&m);
  aloop_context_unref(others.context);
  aloop_var_token_free(others.token);
  aloop_var_unref(others.var);
  aloop_free(m.loop);
  m.env->loop = NULL;
  close(others.fds[0]);
  close(others.fds[1]);
}

/* ---- Forks ----------------------------------------------------------------------------------------------- */

static void runs_of_an_inherited_loop(misuse_t *m) {
  MISTAKE(aloop_run_forever(m->loop), ALOOP_ECHILD);
  MISTAKE(aloop_run_once(m->loop, 0), ALOOP_ECHILD);
  MISTAKE(aloop_run_until_complete(m->loop, aloop_future_new(m->loop)), ALOOP_ECHILD);
  MISTAKE(aloop_run_until_complete_ptr(m->loop, aloop_future_new(m->loop), OUT), ALOOP_ECHILD);
}

static void a_child_must_not_run_an_inherited_loop(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    int status = 0;
    misuse_begin(&m, *state, debug);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      runs_of_an_inherited_loop(&m);
      _exit(m.faults > 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    misuse_end(&m);
  }
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void new_loops(void **state) {
  in_both_modes(*state, options_of_a_new_loop);
}

static void loops_that_are_null(void **state) {
  in_both_modes(*state, null_loops);
}

static void running_loops(void **state) {
  in_both_modes(*state, a_loop_that_runs);
}

static void resting_loops(void **state) {
  in_both_modes_outside(*state, a_loop_that_rests);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, a_closed_loop);
}

static void policies_and_current_loops(void **state) {
  in_both_modes(*state, policies);
  in_both_modes_outside(*state, no_loop_is_set);
}

static void callbacks_and_handles(void **state) {
  in_both_modes(*state, scheduling);
}

static void all_times(void **state) {
  in_both_modes(*state, deadlines_of_any_size);
}

static void variables_and_contexts(void **state) {
  in_both_modes(*state, context_variables);
}

static void reports(void **state) {
  in_both_modes(*state, the_exception_handler);
}

static void debug_mode_metrics_and_dump(void **state) {
  in_both_modes(*state, inspection);
}

static void readers_and_writers(void **state) {
  in_both_modes(*state, descriptors);
  in_both_modes(*state, descriptors_that_cannot_be_watched);
}

TESTS(T(new_loops), T(loops_that_are_null), T(running_loops), T(resting_loops), T(closed_loops),
      T(policies_and_current_loops), T(callbacks_and_handles), T(all_times), T(variables_and_contexts),
      T(reports), T(debug_mode_metrics_and_dump), T(readers_and_writers), T(another_thread),
      T(a_child_must_not_run_an_inherited_loop))
