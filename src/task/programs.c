/* SPDX-License-Identifier: MIT
 *
 * create_subprocess_exec and create_subprocess_shell: a child whose pipes are streams.
 *
 * The child is one of subprocess_exec without protocol; each of its pipes gets a stream for protocol when the
 * start is done. The streams are the process's lodger (subprocess.h) and live as long as it has users: when the
 * last one is gone and the child has ended, the process gives them up, and those that nobody else refers to
 * close their pipes. A child that still runs keeps them, because its pipes would break.
 *
 * communicate collects from the pipes as for any process. It takes them back from their streams, with what
 * these have received and nobody has read, so that a program may read a line and communicate the rest; from
 * then on the streams are at their end. Stdin stays a stream.
 */
#include "core/memory.h"
#include "core/report.h"
#include "process/subprocess.h"
#include "task/duplex.h"

/* The streams of a process. */
typedef struct streams {
  aloop__lodger_t lodger;
  aloop_t *loop;
  aloop_stream_t *of[3]; /* references, or NULL */
} streams_t;

static void release(aloop__lodger_t *lodger) {
  streams_t *streams = ALOOP_CONTAINER_OF(lodger, streams_t, lodger);
  for (int fd = 0; fd < 3; fd++) aloop_stream_unref(streams->of[fd]);
  aloop__memory_release(streams->loop, streams);
}

static bool is_busy(aloop__lodger_t *lodger) {
  const streams_t *streams = ALOOP_CONTAINER_OF(lodger, streams_t, lodger);
  for (int fd = 1; fd < 3; fd++) {
    const aloop_stream_t *stream = streams->of[fd];
    if (stream != NULL && (stream->read.future != NULL || stream->unread != NULL)) return true;
  }
  return false;
}

static size_t give_back(aloop__lodger_t *lodger, int fd, const void **data) {
  aloop_stream_t *stream = ALOOP_CONTAINER_OF(lodger, streams_t, lodger)->of[fd];
  return stream != NULL ? aloop__duplex_leave(stream, data) : 0;
}

static const aloop__lodger_ops_t ops = {.release = release, .is_busy = is_busy, .give_back = give_back};

static int move_in(aloop_process_t *process, size_t limit) {
  aloop_t *loop = process->object.loop;
  aloop_stream_options_t options = {.size = sizeof options, .limit = limit};
  streams_t *streams = aloop__memory_zero(loop, sizeof *streams);
  int rc = streams != NULL ? 0 : ALOOP_ENOMEM;
  if (rc < 0) return rc;
  streams->lodger.ops = &ops;
  streams->loop = loop;
  for (int fd = 0; fd < 3 && rc == 0; fd++)
    if (process->pipes[fd].transport != NULL)
      rc = aloop_stream_new(process->pipes[fd].transport, &options, &streams->of[fd]);
  if (rc == 0)
    process->lodger = &streams->lodger;
  else
    release(&streams->lodger);
  return rc;
}

/* ---- Starting -------------------------------------------------------------------------------------------- */

typedef struct starting {
  aloop__future_extra_t extra;
  size_t limit;
} starting_t;

static void unref_process(void *process) {
  aloop_process_unref(process);
}

static void on_started(aloop_future_t *inner, void *arg) {
  aloop_future_t *outer = arg;
  aloop_process_t *process;
  const starting_t *starting = ALOOP_CONTAINER_OF(outer->extra, starting_t, extra);
  if (aloop_future_take_ptr(inner, &process) < 0) {
    aloop__future_follow(outer, inner);
    return;
  }
  int rc = move_in(process, starting->limit);
  if (rc == 0) {
    aloop__future_finish_ptr(outer, 0, process, unref_process);
    return;
  }
  aloop_process_close(process);
  aloop_process_unref(process);
  aloop__future_fail(outer, rc, NULL);
}

/* A child that nobody is going to get is killed. */
static void abandon(aloop_future_t *inner) {
  aloop_process_t *process;
  aloop_future_cancel(inner);
  if (aloop_future_take_ptr(inner, &process) < 0) return;
  aloop_process_close(process);
  aloop_process_unref(process);
}

/* The stop function. */
static void stop(aloop_future_t *outer, void *arg) {
  (void)arg;
  aloop_future_t *inner = outer->extra->children[0];
  aloop__future_unwatch(inner, on_started, outer);
  abandon(inner);
}

static aloop_future_t *wait_for(aloop_t *loop, size_t limit, aloop_future_t *inner) {
  if (inner == NULL) return NULL;
  aloop_future_t *outer = aloop__future_over(loop, NULL, sizeof(starting_t), &inner, 1);
  if (outer == NULL) {
    abandon(inner);
    aloop_future_unref(inner);
    return NULL;
  }
  outer->object.origin = inner->object.origin;
  ALOOP_CONTAINER_OF(outer->extra, starting_t, extra)->limit = limit;
  if (aloop_future_done(inner)) {
    on_started(inner, outer);
  } else if (aloop__future_watch(inner, on_started, outer) < 0) {
    stop(outer, NULL);
    aloop_future_unref(outer);
    return NULL;
  } else {
    aloop__future_set_operation(outer, stop, NULL);
  }
  return outer;
}

static aloop_future_t *refuse(aloop_t *loop, const char *origin) {
  if (loop->guard & ALOOP__GUARD_CLOSED) return aloop__future_new(loop, origin);
  return aloop__future_refused(loop, origin, ALOOP_EINVAL, ALOOP__DUPLEX_RULE);
}

aloop_future_t *aloop_create_subprocess_exec(aloop_t *loop, const aloop_process_options_t *options,
                                             const aloop_stream_options_t *stream_options) {
  size_t limit;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__duplex_limit(stream_options, &limit) < 0) return refuse(loop, "aloop_create_subprocess_exec");
  return wait_for(loop, limit, aloop_subprocess_exec(loop, NULL, NULL, options));
}

aloop_future_t *aloop_create_subprocess_shell(aloop_t *loop, const char *command,
                                              const aloop_process_options_t *options,
                                              const aloop_stream_options_t *stream_options) {
  size_t limit;
  if (aloop__loop_thread(loop) < 0) return NULL;
  if (aloop__duplex_limit(stream_options, &limit) < 0) return refuse(loop, "aloop_create_subprocess_shell");
  return wait_for(loop, limit, aloop_subprocess_shell(loop, NULL, NULL, command, options));
}

aloop_stream_t *aloop_process_stream(const aloop_process_t *process, int fd) {
  if (aloop__process_enter(process) < 0) return NULL;
  if (fd < 0 || fd > 2) {
    aloop__misuse(process->object.loop, ALOOP_EINVAL, "the streams of a process are 0, 1 and 2");
    return NULL;
  }
  if (process->lodger == NULL || process->lodger->ops != &ops) return NULL;
  return ALOOP_CONTAINER_OF(process->lodger, streams_t, lodger)->of[fd];
}
