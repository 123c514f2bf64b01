/* SPDX-License-Identifier: MIT
 *
 * aloop_run: a program's main function as a task, with a loop around it for as long as that takes.
 *
 * The order of things is asyncio's: run the main task; cancel what it left behind, wait for it and report its
 * errors; close the generators; shut the default executor down; close the loop. The result is the main task's,
 * whatever comes after.
 *
 * SIGINT is ours only if the program has left it to the system, and only in the main thread: elsewhere the
 * interrupt is not meant for this loop. The first one cancels the main task, which may tidy up; the second one
 * ends the run at once. While the program has a handler for it on this loop the signal is that handler's alone,
 * as in asyncio, where add_signal_handler replaces the runner's. Once the main task is over SIGINT ends the
 * process again.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include "core/memory.h"
#include "core/report.h"
#include "process/signals.h"
#include "task/task.h"

#define EXECUTOR_TIMEOUT ALOOP_SECONDS(300)

typedef struct runner {
  aloop_t *loop;
  aloop_future_t *main;
  int interrupts;
} runner_t;

/* ---- SIGINT ---------------------------------------------------------------------------------------------- */

#if defined(__linux__)
static bool is_main_thread(void) {
  return syscall(SYS_gettid) == getpid();
}
#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__)
static bool is_main_thread(void) {
  return pthread_main_np() != 0;
}
#else
static bool is_main_thread(void) {
  return true;
}
#endif

static bool is_left_to_the_system(int signum) {
  struct sigaction now;
  return sigaction(signum, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler == SIG_DFL;
}

static void on_interrupt(aloop_t *loop, int signum, void *arg) {
  runner_t *self = arg;
  if (aloop__signal_handlers(loop, signum) > 1) return;
  if (++self->interrupts == 1)
    aloop_task_cancel(self->main, "interrupted");
  else
    aloop_stop_with_error(loop, ALOOP_EINTR);
}

/* ---- The main task --------------------------------------------------------------------------------------- */

static int64_t run_main(runner_t *self, bool keep_sigint) {
  bool ours = !keep_sigint && is_main_thread() && is_left_to_the_system(SIGINT);
  if (ours) {
    int rc = aloop_add_signal_handler(self->loop, SIGINT, on_interrupt, self, 0);
    if (rc < 0) return rc;
  }
  int64_t result = aloop_run_until_complete(self->loop, aloop_future_ref(self->main));
  if (ours) aloop_remove_signal_handler(self->loop, SIGINT, on_interrupt, self);
  if (self->interrupts > 0 && result == ALOOP_ECANCELED && aloop_is_task(self->main) &&
      aloop_task_uncancel(self->main) == 0)
    return ALOOP_EINTR;
  return result;
}

/* ---- What it left behind --------------------------------------------------------------------------------- */

static void report(aloop_future_t *future) {
  int64_t error = aloop_future_result(future);
  if (error >= 0 || error == ALOOP_ECANCELED) return;
  char text[320];
  aloop__task_t *task = aloop__task_of(future);
  snprintf(text, sizeof text, "%s, left behind by the main task, failed: %s",
           task != NULL ? aloop__task_name(task) : "a task", aloop_future_message(future));
  aloop_error_context_t context = aloop__report_context(text, (int)error);
  context.future = future;
  context.origin = future->object.origin;
  aloop__report(future->object.loop, &context);
}

/* Out of memory, or stopped: aloop_close sees to the rest. */
static void cancel_rest(aloop_t *loop) {
  size_t count = aloop_all_tasks(loop, NULL, 0);
  aloop_future_t **tasks = count > 0 ? aloop__memory_new(loop, count * sizeof *tasks) : NULL;
  if (tasks == NULL) return;
  aloop_all_tasks(loop, tasks, count);
  for (size_t i = 0; i < count; i++) aloop_future_cancel(tasks[i]);
  aloop_future_t *all = aloop_gather(loop, tasks, count, ALOOP_RETURN_ERRORS);
  aloop__memory_release(loop, tasks);
  if (all == NULL) return;
  if (aloop_run_until_complete(loop, aloop_future_ref(all)) >= 0)
    for (size_t i = 0; i < count; i++) report(aloop_future_child(all, i));
  aloop_future_unref(all);
}

static void shut_down(aloop_t *loop, int64_t executor_timeout) {
  cancel_rest(loop);
  aloop_run_until_complete(loop, aloop_shutdown_asyncgens(loop));
  if (executor_timeout == 0) executor_timeout = EXECUTOR_TIMEOUT;
  aloop_run_until_complete(loop, aloop_shutdown_default_executor(loop, executor_timeout));
}

/* ---- The call -------------------------------------------------------------------------------------------- */

static int64_t explain(const aloop_run_options_t *options, aloop_future_t *main, int64_t result) {
  if (result >= 0 || options->message == NULL || options->message_size == 0) return result;
  bool of_main = main != NULL && aloop_future_result(main) == result;
  snprintf(options->message, options->message_size, "%s",
           of_main ? aloop_future_message(main) : aloop_strerror(result));
  return result;
}

int64_t aloop_run(aloop_task_fn fn, void *arg, const aloop_run_options_t *given) {
  aloop_run_options_t options = {.size = sizeof options};
  if (aloop_running_loop() != NULL)
    return aloop__misuse(NULL, ALOOP_ERUNNING,
                         "aloop_run brings its own loop; inside one use aloop_create_task");
  if (given != NULL && aloop__memory_copy_options(&options, sizeof options, given) < 0)
    return aloop__misuse(NULL, ALOOP_EINVAL,
                         "set options.size to sizeof(aloop_run_options_t) and nothing behind it");
  if (options.executor_timeout < ALOOP_FOREVER)
    return aloop__misuse(NULL, ALOOP_EINVAL, "a timeout is not negative, or ALOOP_FOREVER");
  runner_t self = {.interrupts = 0};
  int64_t result = aloop_new(options.loop, &self.loop);
  if (result < 0) return explain(&options, NULL, result);
  self.main = aloop_create_task(self.loop, fn, arg, options.task);
  result = self.main != NULL ? run_main(&self, options.keep_sigint) : ALOOP_ENOMEM;
  explain(&options, self.main, result);
  if (self.main != NULL && !aloop_is_task(self.main)) aloop_future_cancel(self.main); /* a factory made it */
  shut_down(self.loop, options.executor_timeout);
  aloop_future_unref(self.main);
  aloop_free(self.loop);
  return result;
}
