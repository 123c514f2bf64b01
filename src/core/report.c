/* SPDX-License-Identifier: MIT
 *
 * The exception handler: where errors go that nobody waits for. The user's handler is called with a context
 * struct; if it returns a failure the default handler is told both that and the original report, as asyncio
 * does. The default handler writes one line to stderr with a single write, so lines of several threads do not
 * mix. This is the only output the library ever makes.
 *
 * A handler may do anything a callback may, including replacing itself: handler and argument are read before
 * the call. A mistake is reported in the thread that made it, before the call that was wrong returns: only
 * there can a debugger or a backtrace show who it was. That a handler is therefore called in a foreign thread
 * when such a thread misuses the loop is the price, and debug mode only.
 */
#include "core/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/loop.h"

aloop_error_context_t aloop__report_context(const char *message, int error) {
  return (aloop_error_context_t){
      .size = sizeof(aloop_error_context_t), .message = message, .error = error, .fd = -1};
}

int aloop_set_exception_handler(aloop_t *loop, aloop_exception_handler_fn handler, void *arg) {
  int rc = aloop__loop_thread(loop);
  if (rc < 0) return rc;
  loop->handler = handler;
  loop->handler_arg = arg;
  return 0;
}

aloop_exception_handler_fn aloop_get_exception_handler(const aloop_t *loop, void **arg) {
  if (!aloop__loop_ok(loop)) return NULL;
  if (arg != NULL) *arg = loop->handler_arg;
  return loop->handler;
}

/* Appends to a line; what does not fit is cut. */
static size_t add(char *line, size_t room, size_t used, const char *format, const char *text) {
  int n = used < room ? snprintf(line + used, room - used, format, text) : 0;
  return n < 0 ? used : used + (size_t)n;
}

static size_t add_report(char *line, size_t room, size_t used, const aloop_error_context_t *context) {
  char number[64];
  used = add(line, room, used, "%s", context->message != NULL ? context->message : "error");
  if (context->error < 0) {
    used = add(line, room, used, ": %s", aloop_strerror(context->error));
    used = add(line, room, used, " (%s)", aloop_error_name(context->error));
  }
  if (context->fd >= 0) {
    snprintf(number, sizeof number, "%d", context->fd);
    used = add(line, room, used, ", fd %s", number);
  }
  if (context->duration > 0) {
    snprintf(number, sizeof number, "%" PRId64 ".%03d", context->duration / 1000000,
             (int)(context->duration / 1000 % 1000));
    used = add(line, room, used, ", %s ms", number);
  }
  if (context->origin != NULL) used = add(line, room, used, ", from %s", context->origin);
  return used;
}

static void write_line(const aloop_error_context_t *context) {
  char line[512];
  size_t room = sizeof line - 1; /* for the newline */
  size_t used = add(line, room, 0, "%s", "aloop: ");
  used = add_report(line, room, used, context);
  if (context->previous != NULL) {
    used = add(line, room, used, "%s", "; while reporting: ");
    used = add_report(line, room, used, context->previous);
  }
  if (used > room - 1) used = room - 1;
  line[used++] = '\n';
  ssize_t ignored = write(STDERR_FILENO, line, used);
  (void)ignored;
}

void aloop__report(aloop_t *loop, const aloop_error_context_t *context) {
  aloop_exception_handler_fn handler = loop->handler;
  if (handler == NULL) {
    write_line(context);
    return;
  }
  int rc = handler(loop, context, loop->handler_arg);
  if (rc >= 0) return;
  aloop_error_context_t failed = aloop__report_context("the exception handler failed", rc);
  failed.previous = context;
  write_line(&failed);
}

int aloop__misuse(aloop_t *loop, int error, const char *rule) {
  if (loop == NULL) loop = aloop_running_loop();
  if (loop != NULL && (loop->guard & ALOOP__GUARD_DEBUG)) {
    aloop_error_context_t context = aloop__report_context(rule, error);
    aloop__report(loop, &context);
  }
  return error;
}

/* A caller's report with every member that its struct may lack. What a newer caller knows beyond them is left
 * out: half a report is better than none. */
static bool complete(aloop_t *loop, const aloop_error_context_t *given, aloop_error_context_t *whole) {
  *whole = aloop__report_context(NULL, 0);
  if (given == NULL || given->size <= sizeof given->size) {
    aloop__misuse(loop, ALOOP_EINVAL, "a report is a context struct with its size set");
    return false;
  }
  memcpy(whole, given, given->size < sizeof *whole ? given->size : sizeof *whole);
  whole->size = sizeof *whole;
  return true;
}

void aloop_default_exception_handler(aloop_t *loop, const aloop_error_context_t *context) {
  aloop_error_context_t whole;
  if (complete(loop, context, &whole)) write_line(&whole);
}

void aloop_call_exception_handler(aloop_t *loop, const aloop_error_context_t *context) {
  aloop_error_context_t whole;
  if (aloop__loop_thread(loop) == 0 && complete(loop, context, &whole)) aloop__report(loop, &whole);
}
