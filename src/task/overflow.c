/* SPDX-License-Identifier: MIT
 *
 * A task that runs out of stack touches the guard below it, and the program crashes like from any wild pointer.
 * In debug mode it says so before: SIGSEGV and SIGBUS get a handler that asks whether the address lies in a
 * guard of the loop that runs in this thread, writes one line to stderr if it does, and lets happen what would
 * have happened without it.
 *
 * A good guest: what was there before is called, with the same arguments, or restored, so that the instruction
 * faults again into it. The last watcher puts it back, if nobody has come after us. The handler needs a stack
 * that is not the one which is full; a thread that has none for signals gets one as long as it watches.
 *
 * Everything in the handler is async-signal-safe: it reads what the thread's own loop keeps, which the faulting
 * code was not about to change, because no call stands between those changes. Process-wide state: the two
 * actions that were there before, and how many watch.
 */
#include "task/overflow.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "task/task.h"

enum { SIGNALS = 2, HANDLER_STACK = 65536, LABEL_MAX = 80 };

static const int signals[SIGNALS] = {SIGSEGV, SIGBUS};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before[SIGNALS];
static bool installed[SIGNALS];
static unsigned watchers;

/* ---- The line -------------------------------------------------------------------------------------------- */

static size_t add(char *text, size_t size, size_t used, const char *more, size_t most) {
  for (size_t i = 0; more[i] != '\0' && i < most && used + 1 < size; i++) text[used++] = more[i];
  return used;
}

static size_t add_number(char *text, size_t size, size_t used, size_t number) {
  char digits[24];
  size_t at = sizeof digits;
  digits[--at] = '\0';
  do digits[--at] = (char)('0' + number % 10);
  while ((number /= 10) > 0);
  return add(text, size, used, &digits[at], sizeof digits);
}

size_t aloop__overflow_describe(const aloop__stack_t *stack, char *text, size_t size) {
  size_t used = add(text, size, 0, "aloop: ", SIZE_MAX);
  used = add(text, size, used, stack->label != NULL ? stack->label : "a task", LABEL_MAX);
  used = add(text, size, used, " overflowed its stack of ", SIZE_MAX);
  used = add_number(text, size, used, aloop__stack_size(stack));
  return add(text, size, used, " bytes; see stack_size in aloop_task_options_t\n", SIZE_MAX);
}

/* ---- The handler ----------------------------------------------------------------------------------------- */

static void tell(const void *address) {
  aloop_t *loop = aloop_running_loop();
  const aloop__tasks_t *tasks = loop != NULL ? aloop__tasks_of(loop) : NULL;
  const aloop__stack_t *stack = tasks != NULL ? aloop__stacks_find(&tasks->stacks, address) : NULL;
  if (stack == NULL) return;
  char text[240];
  ssize_t rc = write(STDERR_FILENO, text, aloop__overflow_describe(stack, text, sizeof text));
  (void)rc;
}

/* Without another handler the old action comes back, and the instruction that faulted is tried again. A signal
 * that somebody sent has to be sent again. */
static void go_on(const struct sigaction *action, int number, siginfo_t *info, void *context) {
  if (action->sa_flags & SA_SIGINFO) {
    action->sa_sigaction(number, info, context);
  } else if (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN) {
    bool sent = info->si_code <= 0;
    if (sent && action->sa_handler == SIG_IGN) return;
    sigaction(number, action, NULL);
    if (sent) raise(number);
  } else {
    action->sa_handler(number);
  }
}

static void on_fault(int number, siginfo_t *info, void *context) {
  int error = errno;
  if (info->si_code > 0) tell(info->si_addr);
  errno = error;
  go_on(&before[number == signals[0] ? 0 : 1], number, info, context);
}

/* A handler that came after ours may call it for ever, so one that could not be taken back is not put there
 * again. */
static void install(void) {
  for (int i = 0; i < SIGNALS; i++) {
    if (installed[i] || sigaction(signals[i], NULL, &before[i]) < 0) continue;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_mask = before[i].sa_mask};
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | (before[i].sa_flags & (SA_NODEFER | SA_RESTART));
    installed[i] = sigaction(signals[i], &action, NULL) == 0;
  }
}

static void uninstall(void) {
  for (int i = 0; i < SIGNALS; i++) {
    struct sigaction now;
    if (!installed[i] || sigaction(signals[i], NULL, &now) < 0) continue;
    if ((now.sa_flags & SA_SIGINFO) == 0 || now.sa_sigaction != on_fault) continue;
    installed[i] = sigaction(signals[i], &before[i], NULL) < 0;
  }
}

/* ---- Watching -------------------------------------------------------------------------------------------- */

static bool give_stack(aloop__overflow_t *watcher) {
  stack_t now;
  if (sigaltstack(NULL, &now) < 0) return false;
  if ((now.ss_flags & SS_DISABLE) == 0) return true;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  void *memory = mmap(NULL, HANDLER_STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) return false;
  stack_t own = {.ss_sp = memory, .ss_size = HANDLER_STACK};
  if (sigaltstack(&own, NULL) < 0) {
    munmap(memory, HANDLER_STACK);
    return false;
  }
  watcher->stack = memory;
  return true;
}

/* In another thread than the one that watched, what that one has must stay. */
static void take_stack(aloop__overflow_t *watcher) {
  stack_t now;
  if (watcher->stack == NULL || sigaltstack(NULL, &now) < 0) return;
  if (now.ss_sp != watcher->stack || (now.ss_flags & SS_ONSTACK)) return;
  stack_t none = {.ss_flags = SS_DISABLE};
  if (sigaltstack(&none, NULL) == 0) munmap(watcher->stack, HANDLER_STACK);
  watcher->stack = NULL;
}

void aloop__overflow_watch(aloop__overflow_t *watcher) {
  if (watcher->on || pthread_mutex_trylock(&lock) != 0) return;
  if (give_stack(watcher)) {
    watcher->on = true;
    if (watchers++ == 0) install();
  }
  pthread_mutex_unlock(&lock);
}

void aloop__overflow_unwatch(aloop__overflow_t *watcher) {
  if (!watcher->on || pthread_mutex_trylock(&lock) != 0) return;
  watcher->on = false;
  if (--watchers == 0) uninstall();
  pthread_mutex_unlock(&lock);
  take_stack(watcher);
}
