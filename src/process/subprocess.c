/* SPDX-License-Identifier: MIT
 *
 * Subprocesses: a child, up to three pipes to it, and the protocol that hears of them.
 *
 * The program is started inside the call (spawn.c), when everything that could fail for want of memory or
 * descriptors is there already: a child that had begun its work and was then killed for such a reason would be
 * worse than none. The pipes are stream transports with a protocol table of this file, which passes events on.
 *
 * The order of events has three rules. connection_made waits until every pipe's own connection_made was called,
 * and a pipe that is ahead of the others does not read until then. An exit that is seen before connection_made
 * is told right after it. connection_lost is queued when both facts are there: the child has ended, and no pipe
 * is left open; so it is last, whichever of the two a grandchild delays. aloop_process_wait knows only the
 * exit. That a pipe is gone is learnt from its driver, not from its protocol, which the user may replace.
 *
 * The loop holds one reference from the start until connection_lost, so that a process nobody refers to goes on
 * and its end is collected. A process without protocol has pipes that only its owner can read; when the child
 * has ended and the owner is gone, they are closed, or they would stay for ever.
 *
 * A start that is cancelled, or failed half-way, leaves an unwanted process: killed, its pipes aborted, waiting
 * to be over without telling anybody.
 *
 * When the loop is closed, the children that still run are killed, all before the first is waited for; then
 * each is collected, which takes a moment as a rule, and one second at most for all of them. A child that does
 * not end in that time (the kernel is busy with it) stays behind as a zombie of this program.
 */
#include "process/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/stream.h"
#include "process/pipe.h"
#include "process/spawn.h"
#include "process/stdio.h"

#define ORIGIN "aloop_subprocess_exec"
#define LAST_WAIT ALOOP_SECONDS(1)

typedef struct waiter {
  aloop__list_t link;
  aloop_future_t *future;
} waiter_t;

static aloop_process_t *of_object(const aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, aloop_process_t, object);
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* What the pipe and the child have in common: they call from the loop, on behalf of the process. */
static void enter_context(aloop_process_t *process) {
  aloop_t *loop = process->object.loop;
  if (loop->context == NULL) loop->context = aloop__map_ref(process->context);
}

/* The last of all: `process` may be gone. */
static void finish(aloop_process_t *process, int error) {
  process->flags |= ALOOP__PROCESS_ENDING | ALOOP__PROCESS_LOST;
  const aloop_process_protocol_t *table = process->table;
  if ((process->flags & ALOOP__PROCESS_MADE) && table != NULL && table->connection_lost != NULL)
    table->connection_lost(process, process->protocol, error);
  aloop__object_unref(&process->object);
}

static void lost(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_process_t *process = arg;
  enter_context(process);
  finish(process, 0);
}

static void queue(aloop_process_t *process, aloop_callback_fn fn, unsigned due) {
  if (!aloop__ready_push(process->object.loop, fn, process)) {
    process->flags |= due;
    aloop__object_stall(&process->object);
  }
  aloop__loop_armed(process->object.loop);
}

static bool has_open_pipe(const aloop_process_t *process) {
  return process->pipes[0].open || process->pipes[1].open || process->pipes[2].open;
}

static void finish_if_over(aloop_process_t *process) {
  if ((process->flags & (ALOOP__PROCESS_MADE | ALOOP__PROCESS_UNWANTED)) == 0) return;
  if (!aloop__process_has_ended(process) || has_open_pipe(process)) return;
  if (process->flags & ALOOP__PROCESS_ENDING) return;
  process->flags |= ALOOP__PROCESS_ENDING;
  queue(process, lost, ALOOP__PROCESS_LOST_DUE);
}

static void abort_pipes(aloop_process_t *process) {
  for (int i = 0; i < 3; i++)
    if (process->pipes[i].open) aloop__stream_end(process->pipes[i].transport, 0);
}

/* Nobody is going to hear of this process. */
static void discard(aloop_process_t *process) {
  process->flags |= ALOOP__PROCESS_UNWANTED;
  abort_pipes(process);
  aloop__child_signal(&process->child, SIGKILL);
  finish_if_over(process);
}

/* ---- The pipes ------------------------------------------------------------------------------------------- */

static int fd_of(const aloop__process_pipe_t *pipe) {
  return (int)(pipe - pipe->process->pipes);
}

/* The table to tell of a pipe's events, or NULL. */
static const aloop_process_protocol_t *listener_of(const aloop_process_t *process) {
  return process->flags & ALOOP__PROCESS_MADE ? process->table : NULL;
}

static int pipe_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  aloop__process_pipe_t *pipe = protocol;
  aloop_process_t *process = pipe->process;
  const aloop_process_protocol_t *table = listener_of(process);
  if (process->exchange != NULL)
    aloop__communicate_received(process, fd_of(pipe), data, size);
  else if (table != NULL && table->pipe_data_received != NULL)
    table->pipe_data_received(process, process->protocol, fd_of(pipe), data, size);
  return 0;
}

static void pipe_pause(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  const aloop__process_pipe_t *pipe = protocol;
  const aloop_process_protocol_t *table = listener_of(pipe->process);
  if (table != NULL && table->pause_writing != NULL)
    table->pause_writing(pipe->process, pipe->process->protocol);
}

static void pipe_resume(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  const aloop__process_pipe_t *pipe = protocol;
  const aloop_process_protocol_t *table = listener_of(pipe->process);
  if (table != NULL && table->resume_writing != NULL)
    table->resume_writing(pipe->process, pipe->process->protocol);
}

static void pipe_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  aloop__process_pipe_t *pipe = protocol;
  aloop_process_t *process = pipe->process;
  const aloop_process_protocol_t *table = listener_of(process);
  if (table != NULL && table->pipe_connection_lost != NULL)
    table->pipe_connection_lost(process, process->protocol, fd_of(pipe), error);
}

/* A pipe is gone, whatever protocol it had. */
static void pipe_closed(aloop_t *loop, void *arg) {
  (void)loop;
  aloop__process_pipe_t *pipe = arg;
  aloop_process_t *process = pipe->process;
  pipe->open = false;
  aloop__communicate_ended(process, fd_of(pipe), pipe->transport->error);
  finish_if_over(process);
}

/* ---- The beginning --------------------------------------------------------------------------------------- */

static void unref_process(void *value) {
  aloop_process_unref(value);
}

static void finish_starting(aloop_process_t *process) {
  aloop_future_t *starting = process->starting;
  process->starting = NULL;
  aloop__object_ref(&process->object);
  if (!aloop__future_finish_ptr(starting, 0, process, unref_process)) aloop__object_unref(&process->object);
}

static void fail_starting(aloop_process_t *process, int error) {
  aloop_future_t *starting = process->starting;
  process->starting = NULL;
  aloop__future_fail(starting, error, NULL);
}

/* The factory. False: the child is refused. */
static bool make_protocol(aloop_process_t *process) {
  const aloop_process_protocol_t *table = process->table;
  if (table == NULL || table->create == NULL) return true;
  process->protocol = table->create(process->protocol);
  return process->protocol != NULL;
}

static void tell_exit(aloop_process_t *process) {
  const aloop_process_protocol_t *table = listener_of(process);
  if (table != NULL && table->process_exited != NULL) table->process_exited(process, process->protocol);
}

/* Without a protocol there is nobody to read yet. */
static void start_reading(aloop_process_t *process) {
  for (int i = 1; i < 3 && process->table != NULL; i++)
    if (process->pipes[i].open) aloop_transport_resume_reading(process->pipes[i].transport);
}

static void made(aloop_t *loop, void *arg) {
  (void)loop;
  aloop_process_t *process = arg;
  if (process->flags & ALOOP__PROCESS_UNWANTED) return;
  enter_context(process);
  if (!make_protocol(process)) {
    fail_starting(process, ALOOP_ENOMEM);
    discard(process);
    return;
  }
  start_reading(process);
  process->flags |= ALOOP__PROCESS_MADE;
  if (process->table != NULL && process->table->connection_made != NULL)
    process->table->connection_made(process, process->protocol);
  finish_starting(process);
  if (aloop__process_has_ended(process)) tell_exit(process);
  finish_if_over(process);
}

static void pipe_made(aloop_transport_t *transport, void *protocol) {
  aloop__process_pipe_t *pipe = protocol;
  aloop_process_t *process = pipe->process;
  if (fd_of(pipe) > 0) aloop_transport_pause_reading(transport);
  if (--process->unmade == 0) made(process->object.loop, process);
}

static const aloop_protocol_t pipe_table = {
    .size = sizeof pipe_table,
    .connection_made = pipe_made,
    .data_received = pipe_data,
    .pause_writing = pipe_pause,
    .resume_writing = pipe_resume,
    .connection_lost = pipe_lost,
};

void aloop__process_reclaim_pipe(aloop_process_t *process, int fd) {
  aloop__process_pipe_t *pipe = &process->pipes[fd];
  if (pipe->open) aloop_transport_set_protocol(pipe->transport, &pipe_table, pipe);
}

static void release_lodger(aloop_process_t *process) {
  aloop__lodger_t *lodger = process->lodger;
  process->lodger = NULL;
  if (lodger != NULL) lodger->ops->release(lodger);
}

/* A process without protocol whose child has ended and whose owner is gone: nobody can read its pipes, but for
 * those that were given another protocol. */
static void close_if_abandoned(aloop_process_t *process) {
  if (process->table != NULL || process->exchange != NULL || process->object.refs > 1) return;
  if (!aloop__process_has_ended(process) || (process->flags & ALOOP__PROCESS_MADE) == 0) return;
  release_lodger(process);
  for (int i = 0; i < 3; i++) {
    aloop__process_pipe_t *pipe = &process->pipes[i];
    if (pipe->open && pipe->transport->table == &pipe_table) aloop__stream_end(pipe->transport, 0);
  }
}

static void finish_waiters(aloop_process_t *process) {
  int code = process->child.code;
  while (!aloop__list_empty(&process->waiters)) {
    waiter_t *waiter = ALOOP_CONTAINER_OF(process->waiters.next, waiter_t, link);
    aloop_future_t *future = waiter->future;
    aloop__list_remove(&waiter->link);
    aloop__memory_release(process->object.loop, waiter);
    if (code == ALOOP_EREAPED || code == ALOOP_ENOTDONE)
      aloop__future_fail(future, code == ALOOP_EREAPED ? code : ALOOP_ECLOSED, NULL);
    else
      aloop__future_finish(future, code >= 0 ? code : 256 - code);
  }
}

/* The child has ended. */
static void ended(aloop_t *loop, aloop__child_t *child) {
  (void)loop;
  aloop_process_t *process = ALOOP_CONTAINER_OF(child, aloop_process_t, child);
  enter_context(process);
  finish_waiters(process);
  tell_exit(process);
  aloop__communicate_ended(process, -1, 0);
  close_if_abandoned(process);
  finish_if_over(process);
}

/* ---- As an object ---------------------------------------------------------------------------------------- */

static bool resume(aloop__object_t *object) {
  aloop_process_t *process = of_object(object);
  if (process->flags & ALOOP__PROCESS_MADE_DUE) {
    if (!aloop__ready_push(object->loop, made, process)) return false;
    process->flags &= ~(unsigned)ALOOP__PROCESS_MADE_DUE;
  }
  if (process->flags & ALOOP__PROCESS_LOST_DUE) {
    if (!aloop__ready_push(object->loop, lost, process)) return false;
    process->flags &= ~(unsigned)ALOOP__PROCESS_LOST_DUE;
  }
  return true;
}

static bool is_running(const aloop_process_t *process) {
  return !aloop__process_has_ended(process) && aloop__child_is_mine(&process->child);
}

static void report_running(aloop_process_t *process) {
  if ((process->object.loop->guard & ALOOP__GUARD_DEBUG) == 0 || !is_running(process)) return;
  if (process->flags & (ALOOP__PROCESS_CLOSING | ALOOP__PROCESS_UNWANTED)) return;
  aloop_error_context_t context =
      aloop__report_context("a child process was still running when its loop was closed", 0);
  context.process = process;
  context.protocol = process->protocol;
  context.origin = process->object.origin;
  aloop__report(process->object.loop, &context);
}

/* Kills all that still run, so that they end side by side. */
static void doom_all(aloop_t *loop, const aloop__kind_t *kind) {
  int64_t limit = aloop__clock_monotonic() + LAST_WAIT;
  for (aloop__list_t *at = loop->objects.next; at != &loop->objects; at = at->next) {
    aloop__object_t *object = ALOOP_CONTAINER_OF(at, aloop__object_t, link);
    if (object->kind != kind) continue;
    aloop_process_t *process = of_object(object);
    process->flags |= ALOOP__PROCESS_DOOMED;
    process->limit = limit;
    report_running(process);
    if (is_running(process)) aloop__child_signal(&process->child, SIGKILL);
  }
}

/* Ended first, so that debug mode complains of the process and not of each of its pipes too. */
static void close_pipe_now(const aloop__process_pipe_t *pipe) {
  if (!pipe->open) return;
  aloop_transport_t *transport = pipe->transport;
  aloop__stream_end(transport, ALOOP_ECLOSED);
  transport->object.kind->close(&transport->object);
}

/* Everything is told from inside the call that closes the loop. */
static void end_now(aloop_process_t *process) {
  bool was_running = !aloop__process_has_ended(process);
  process->flags |= ALOOP__PROCESS_ENDING;
  if (process->starting != NULL) {
    fail_starting(process, ALOOP_ECLOSED);
    process->flags |= ALOOP__PROCESS_UNWANTED;
  }
  for (int i = 0; i < 3; i++) close_pipe_now(&process->pipes[i]);
  if (was_running) aloop__child_await(&process->child, process->limit);
  aloop__child_release(process->object.loop, &process->child);
  aloop__communicate_close(process);
  finish_waiters(process);
  if (was_running && process->child.code != ALOOP_ENOTDONE) tell_exit(process);
  finish(process, ALOOP_ECLOSED);
}

static void close_object(aloop__object_t *object) {
  aloop_process_t *process = of_object(object);
  aloop_t *loop = object->loop;
  if (process->flags & ALOOP__PROCESS_LOST) return;
  if ((process->flags & ALOOP__PROCESS_DOOMED) == 0) {
    process->flags |= ALOOP__PROCESS_DOOMED;
    process->limit = aloop__clock_monotonic() + LAST_WAIT;
    report_running(process);
    if (is_running(process)) aloop__child_signal(&process->child, SIGKILL);
    doom_all(loop, object->kind);
  }
  aloop__map_t *outer = loop->context;
  loop->context = aloop__map_ref(process->context);
  end_now(process);
  aloop__map_clear(loop, &loop->context);
  loop->context = outer;
}

static void destroy(aloop__object_t *object) {
  aloop_process_t *process = of_object(object);
  ALOOP_CHECK(process->flags & ALOOP__PROCESS_LOST);
  release_lodger(process);
  for (int i = 0; i < 3; i++) aloop_transport_unref(process->pipes[i].transport);
  aloop__map_unref(object->loop, process->context);
  aloop__object_end(object, process);
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  const aloop_process_t *process = of_object(object);
  char state[64] = "running";
  int code = process->child.code;
  int open = process->pipes[0].open + process->pipes[1].open + process->pipes[2].open;
  if (process->child.pid < 0)
    snprintf(state, sizeof state, "not started");
  else if (code == ALOOP_EREAPED)
    snprintf(state, sizeof state, "collected by somebody else");
  else if (code != ALOOP_ENOTDONE)
    snprintf(state, sizeof state, code >= 0 ? "exited with %d" : "ended by signal %d",
             code >= 0 ? code : -code);
  snprintf(text, size, "pid %ld, %s%s, %d pipes open", (long)process->child.pid, state,
           process->flags & ALOOP__PROCESS_CLOSING ? ", closing" : "", open);
}

static const aloop__kind_t process_kind = {
    .name = "process",
    .index = ALOOP__PROCESS,
    .describe = describe,
    .destroy = destroy,
    .close = close_object,
    .resume = resume,
};

static aloop_process_t *new_process(aloop_t *loop, const aloop_process_protocol_t *table, void *arg) {
  aloop_process_t *process = aloop__memory_zero(loop, sizeof *process);
  if (process == NULL) return NULL;
  aloop__object_init(&process->object, loop, &process_kind, ORIGIN);
  aloop__child_init(&process->child);
  aloop__list_init(&process->waiters);
  process->table = table;
  process->protocol = arg;
  process->context = aloop__map_ref(loop->context);
  return process;
}

/* ---- Starting -------------------------------------------------------------------------------------------- */

/* Makes the transports of the pipes there are. */
static int open_pipes(aloop_process_t *process, aloop__stdio_t *stdio) {
  for (int i = 0; i < 3; i++) {
    aloop__process_pipe_t *pipe = &process->pipes[i];
    pipe->process = process;
    if (stdio->parent[i] < 0) continue;
    aloop_transport_t *transport =
        aloop__pipe_new(process->object.loop, stdio->parent[i], i != 0, &pipe_table, pipe, NULL, ORIGIN);
    if (transport == NULL) return ALOOP_ENOMEM;
    stdio->parent[i] = -1;
    aloop__pipe_on_close(transport, pipe_closed, pipe);
    pipe->transport = aloop_transport_ref(transport);
    pipe->open = true;
    process->unmade++;
  }
  return 0;
}

/* From open descriptors to a running program. On failure `step` says what failed. */
static int launch(aloop_process_t *process, const aloop_process_options_t *options, aloop__stdio_t *stdio,
                  aloop__spawned_t *spawned) {
  aloop_t *loop = process->object.loop;
  snprintf(spawned->step, sizeof spawned->step, "open the pipes");
  int rc = open_pipes(process, stdio);
  if (rc == 0) rc = aloop__spawn(loop, options, stdio->child, spawned);
  if (rc < 0) return rc;
  snprintf(spawned->step, sizeof spawned->step, "watch the child");
  rc = aloop__child_watch(loop, &process->child, spawned->pid, spawned->pidfd, ended);
  if (rc == 0) return 0;
  aloop__child_signal(&process->child, SIGKILL);
  aloop__child_await(&process->child, aloop__clock_monotonic() + LAST_WAIT);
  aloop__child_release(loop, &process->child);
  return rc;
}

/* The future's stop function: the start is cancelled. */
static void cancelled(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_process_t *process = arg;
  process->starting = NULL;
  discard(process);
}

static void start(aloop_future_t *future, aloop_process_t *process, const aloop_process_options_t *options,
                  aloop__stdio_t *stdio) {
  aloop__spawned_t spawned;
  int rc = launch(process, options, stdio, &spawned);
  aloop__stdio_close_child(stdio);
  aloop__stdio_close_parent(stdio);
  if (rc < 0) {
    aloop__future_fail(future, rc, "%s: %s", spawned.step, aloop_strerror(rc));
    discard(process);
    return;
  }
  process->starting = future;
  aloop__future_set_operation(future, cancelled, process);
  if (process->unmade == 0) queue(process, made, ALOOP__PROCESS_MADE_DUE);
}

static aloop_future_t *start_checked(aloop_t *loop, const aloop_process_protocol_t *table, void *arg,
                                     const aloop_process_options_t *options) {
  static const char *const names[] = {"stdin", "stdout", "stderr"};
  aloop__stdio_t stdio;
  int which;
  aloop_future_t *future = aloop__future_new(loop, ORIGIN);
  if (future == NULL || aloop_future_done(future)) return future;
  int rc = aloop__stdio_open(options, &stdio, &which);
  if (rc < 0) {
    if (rc == ALOOP_EBADF) aloop__misuse(loop, rc, "ALOOP_STDIO_FD with a descriptor that is not open");
    aloop__future_fail(future, rc, "set up %s: %s", names[which], aloop_strerror(rc));
    return future;
  }
  aloop_process_t *process = new_process(loop, table, arg);
  if (process != NULL) {
    start(future, process, options, &stdio);
    return future;
  }
  aloop__stdio_close_child(&stdio);
  aloop__stdio_close_parent(&stdio);
  aloop__future_fail(future, ALOOP_ENOMEM, NULL);
  return future;
}

/* Why the options cannot be used, or NULL. */
static const char *fault_of(const aloop_process_options_t *options) {
  const unsigned known = ALOOP_SET_UMASK | ALOOP_SET_USER | ALOOP_SET_GROUP | ALOOP_SET_GROUPS;
  if (options->argv == NULL || options->argv[0] == NULL) return "options.argv names no program";
  if (options->pass_fds == NULL && options->pass_fds_count > 0) return "options.pass_fds is NULL";
  for (size_t i = 0; i < options->pass_fds_count; i++)
    if (options->pass_fds[i] < 3) return "options.pass_fds are above 2; use options.in, out and err for those";
  if (options->process_group < -1) return "options.process_group is -1, 0 or a process group";
  if (options->start_new_session && options->process_group != 0)
    return "a new session has a new process group: set only one of the two options";
  if (options->restore_signals < -1 || options->restore_signals > 0)
    return "options.restore_signals is 0 or -1";
  if ((options->set & ~known) != 0) return "options.set is made of ALOOP_SET_...";
  if ((options->set & ALOOP_SET_GROUPS) && options->groups == NULL && options->groups_count > 0)
    return "options.groups is NULL";
  return aloop__stdio_fault(options);
}

/* The index of a descriptor that is to be passed and is not open, or pass_fds_count. */
static size_t find_closed(const aloop_process_options_t *options) {
  size_t i = 0;
  while (i < options->pass_fds_count && fcntl(options->pass_fds[i], F_GETFD) >= 0) i++;
  return i;
}

/* A future that failed because of a wrong argument. */
static aloop_future_t *refuse(aloop_t *loop, const char *rule) {
  return aloop__future_refused(loop, ORIGIN, ALOOP_EINVAL, rule);
}

static aloop_future_t *check_and_start(aloop_t *loop, const aloop_process_protocol_t *table, void *arg,
                                       const aloop_process_options_t *options) {
  if (table != NULL && table->size < sizeof *table)
    return refuse(loop, "a process needs a protocol table with its size set, or none");
  const char *fault = fault_of(options);
  if (fault != NULL) return refuse(loop, fault);
  size_t closed = find_closed(options);
  if (closed < options->pass_fds_count) {
    char rule[96];
    snprintf(rule, sizeof rule, "pass descriptor %d: %s", options->pass_fds[closed],
             aloop_strerror(ALOOP_EBADF));
    return aloop__future_refused(loop, ORIGIN, ALOOP_EBADF, rule);
  }
  return start_checked(loop, table, arg, options);
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

aloop_future_t *aloop_subprocess_exec(aloop_t *loop, const aloop_process_protocol_t *protocol, void *arg,
                                      const aloop_process_options_t *options) {
  aloop_process_options_t copy;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return refuse(loop, "set options.size to sizeof(aloop_process_options_t)");
  return check_and_start(loop, protocol, arg, &copy);
}

aloop_future_t *aloop_subprocess_shell(aloop_t *loop, const aloop_process_protocol_t *protocol, void *arg,
                                       const char *command, const aloop_process_options_t *options) {
  aloop_process_options_t copy = {.size = sizeof copy};
  const char *const argv[] = {"/bin/sh", "-c", command, NULL};
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (options != NULL && aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return refuse(loop, "set options.size to sizeof(aloop_process_options_t)");
  if (command == NULL) return refuse(loop, "a shell needs a command");
  if (copy.argv != NULL) return refuse(loop, "a shell gets its command, not options.argv: leave that NULL");
  copy.argv = argv;
  return check_and_start(loop, protocol, arg, &copy);
}

int aloop__process_enter(const aloop_process_t *process) {
  if (process == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "the process is NULL");
  return aloop__loop_thread(process->object.loop);
}

aloop_process_t *aloop_process_ref(aloop_process_t *process) {
  if (process == NULL || aloop__process_enter(process) < 0) return NULL;
  aloop__object_ref(&process->object);
  return process;
}

void aloop_process_unref(aloop_process_t *process) {
  if (process == NULL || aloop__process_enter(process) < 0) return;
  bool leave = process->object.refs == 2 && (process->flags & ALOOP__PROCESS_LOST) == 0;
  aloop__object_unref(&process->object);
  if (leave) close_if_abandoned(process);
}

aloop_t *aloop_process_loop(const aloop_process_t *process) {
  return aloop__process_enter(process) == 0 ? process->object.loop : NULL;
}

pid_t aloop_process_pid(const aloop_process_t *process) {
  int rc = aloop__process_enter(process);
  return rc < 0 ? rc : process->child.pid;
}

int aloop_process_returncode(const aloop_process_t *process, int *code) {
  int rc = aloop__process_enter(process);
  if (rc < 0) return rc;
  if (code == NULL)
    return aloop__misuse(process->object.loop, ALOOP_EINVAL, "a returncode needs a place to go to");
  if (process->child.code == ALOOP_ENOTDONE || process->child.code == ALOOP_EREAPED) return process->child.code;
  *code = process->child.code;
  return 0;
}

aloop_transport_t *aloop_process_pipe(const aloop_process_t *process, int fd) {
  if (aloop__process_enter(process) < 0) return NULL;
  if (fd >= 0 && fd <= 2) return process->pipes[fd].transport;
  aloop__misuse(process->object.loop, ALOOP_EINVAL, "the pipes of a process are 0, 1 and 2");
  return NULL;
}

void *aloop_process_get_protocol(const aloop_process_t *process) {
  return aloop__process_enter(process) == 0 ? process->protocol : NULL;
}

/* The stop function of a wait. */
static void stop_waiting(aloop_future_t *future, void *arg) {
  waiter_t *waiter = arg;
  aloop__list_remove(&waiter->link);
  aloop__memory_release(aloop_future_loop(future), waiter);
}

aloop_future_t *aloop_process_wait(aloop_process_t *process) {
  if (aloop__process_enter(process) < 0) return NULL;
  aloop_t *loop = process->object.loop;
  aloop_future_t *future = aloop__future_new(loop, "aloop_process_wait");
  if (future == NULL || aloop_future_done(future)) return future;
  waiter_t *waiter = aloop__memory_new(loop, sizeof *waiter);
  if (waiter == NULL) {
    aloop__future_fail(future, ALOOP_ENOMEM, NULL);
    return future;
  }
  waiter->future = future;
  aloop__list_append(&process->waiters, &waiter->link);
  aloop__future_set_operation(future, stop_waiting, waiter);
  if (aloop__process_has_ended(process)) finish_waiters(process);
  return future;
}

int aloop_process_send_signal(aloop_process_t *process, int signum) {
  int rc = aloop__process_enter(process);
  if (rc == 0) rc = aloop__child_signal(&process->child, signum);
  if (rc != ALOOP_EINVAL || process == NULL) return rc;
  return aloop__misuse(process->object.loop, rc, "there is no signal of that number");
}

int aloop_process_terminate(aloop_process_t *process) {
  return aloop_process_send_signal(process, SIGTERM);
}

int aloop_process_kill(aloop_process_t *process) {
  return aloop_process_send_signal(process, SIGKILL);
}

void aloop_process_close(aloop_process_t *process) {
  if (aloop__process_enter(process) < 0) return;
  if (process->flags & (ALOOP__PROCESS_CLOSING | ALOOP__PROCESS_LOST)) return;
  process->flags |= ALOOP__PROCESS_CLOSING;
  abort_pipes(process);
  aloop__child_signal(&process->child, SIGKILL);
}

bool aloop_process_is_closing(const aloop_process_t *process) {
  return aloop__process_enter(process) < 0 ||
         (process->flags & (ALOOP__PROCESS_CLOSING | ALOOP__PROCESS_ENDING)) != 0;
}
