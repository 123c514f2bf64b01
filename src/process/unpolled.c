/* SPDX-License-Identifier: MIT
 *
 * The I/O driver of descriptors that no poller watches, because to the kernel they are always ready: regular
 * files and devices like /dev/null. That is what standard input is in `program <file`, and a program should not
 * have to know.
 *
 * Devices of memory (/dev/null, /dev/zero) never make anybody wait. They are served directly, once per turn and
 * no more than the budget of any connection, so an endless one leaves the others their time.
 *
 * A file may have to wait for its disk. It is read without waiting as long as its pages are in memory
 * (RWF_NOWAIT, Linux); the rest, and all writing, is done by jobs in the default executor's file lane, up to
 * 256 KiB each, one at a time per transport. So small files, which is most of them, start no thread. The file's
 * own position is used and moves as with read(2) and write(2), which is what programs that share a descriptor
 * expect, and where O_APPEND matters it works. A pause is noticed between two jobs: what has been read
 * meanwhile is kept for later.
 *
 * A job has a duplicate of the descriptor and memory of its own, since it may still be at work when its
 * transport is long gone. An executor that takes no jobs is no reason to fail: then the loop's thread does
 * them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "future/future.h"
#include "net/readiness.h"
#include "process/pipe.h"

/* A piece of a file on its way, and the argument of the job that moves it. Not of the loop's memory: the last
 * to hold it may be a thread. */
struct aloop__file {
  int fd; /* a duplicate, or -1 */
  bool writes;
  bool ready;  /* the job is done, and not yet accounted for */
  int error;   /* of the job, or 0 */
  size_t size; /* read: what came; to be written */
  size_t done; /* of it: handed on; written */
  char bytes[ALOOP__READ_BUDGET];
};

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

static void release_file(void *arg) {
  aloop__file_t *file = arg;
  if (file == NULL) return;
  if (file->fd >= 0) close(file->fd);
  free(file);
}

static void move_bytes(aloop__file_t *file, int fd) {
  ssize_t n;
  file->error = 0;
  do {
    n = file->writes ? write(fd, file->bytes + file->done, file->size - file->done)
                     : read(fd, file->bytes, sizeof file->bytes);
    if (n > 0 && file->writes) file->done += (size_t)n;
  } while ((n < 0 && errno == EINTR) || (n > 0 && file->writes && file->done < file->size));
  if (n < 0) file->error = -errno;
  if (!file->writes) file->size = n > 0 ? (size_t)n : 0;
}

static int64_t run_job(void *arg) {
  aloop__file_t *file = arg;
  move_bytes(file, file->fd);
  return 0;
}

/* The first bytes of the outbox, which stays as it is until they are written. */
static size_t copy_outbox(const aloop__outbox_t *outbox, char *into, size_t room) {
  struct iovec iov[ALOOP__FLUSH_PARTS];
  int count = aloop__outbox_peek(outbox, iov, ALOOP__FLUSH_PARTS);
  size_t size = 0;
  for (int i = 0; i < count && size < room; i++) {
    size_t n = iov[i].iov_len < room - size ? iov[i].iov_len : room - size;
    memcpy(into + size, iov[i].iov_base, n);
    size += n;
  }
  return size;
}

/* The next job's argument, pipe->file, made if need be. */
static int prepare(aloop__pipe_t *pipe) {
  aloop__file_t *file = pipe->file;
  if (file == NULL) {
    file = malloc(sizeof *file);
    if (file == NULL) return ALOOP_ENOMEM;
    file->fd = -1;
    pipe->file = file;
  }
  file->writes = (pipe->transport.flags & ALOOP__NO_READ) != 0;
  file->size = file->done = 0;
  file->error = 0;
  file->ready = false;
  if (file->writes) file->size = copy_outbox(&pipe->transport.outbox, file->bytes, sizeof file->bytes);
  return 0;
}

/* ---- Turns ----------------------------------------------------------------------------------------------- */

/* Another look in the next turn. */
static int come_again(aloop_transport_t *transport) {
  return aloop__driver_unpolled.flush(transport);
}

static void go_on(aloop_transport_t *transport) {
  int rc = come_again(transport);
  if (rc < 0) aloop__stream_end(transport, rc);
}

static void job_done(aloop_future_t *future, void *arg) {
  aloop__pipe_t *pipe = arg;
  pipe->job = NULL;
  /* A job that was dropped has taken its argument along: what it was to do is done here. */
  if (aloop_future_take_ptr(future, &pipe->file) < 0) pipe->alone = true;
  if (pipe->file != NULL) pipe->file->ready = true;
  aloop_future_unref(future);
  go_on(&pipe->transport);
}

/* Hands pipe->file to the executor. Returns 0, or a code; ALOOP_ENOMEM ends the matter, others leave it to this
 * thread. */
static int submit(aloop__pipe_t *pipe) {
  aloop__file_t *file = pipe->file;
  if (file->fd < 0) file->fd = fcntl(pipe->io, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  if (file->fd < 0) return -errno;
  const aloop_job_options_t options = {
      .size = sizeof options, .fn = run_job, .arg = file, .destroy = release_file, .lane = ALOOP_LANE_FILE};
  aloop_future_t *future = aloop_submit(pipe->transport.object.loop, NULL, &options);
  if (future == NULL) return ALOOP_ENOMEM;
  pipe->file = NULL; /* the job's, whatever has become of it */
  int rc = aloop_future_done(future) ? (int)aloop_future_result(future) : 0;
  if (rc == 0) rc = aloop__future_watch(future, job_done, pipe);
  if (rc == 0) {
    pipe->job = future;
    return 0;
  }
  aloop_future_cancel(future);
  aloop_future_unref(future);
  return rc;
}

static void begin_job(aloop_transport_t *transport) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  int rc = prepare(pipe);
  if (rc == 0 && !pipe->alone) {
    rc = submit(pipe);
    if (rc == 0) return;
    pipe->alone = rc != ALOOP_EAGAIN;
    if (rc != ALOOP_ENOMEM) rc = prepare(pipe);
  }
  if (rc < 0) {
    aloop__stream_end(transport, rc);
    return;
  }
  move_bytes(pipe->file, pipe->io);
  pipe->file->ready = true;
  go_on(transport);
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

/* What a job has read. */
static ssize_t receive_read(aloop__file_t *file, void *buffer, size_t size) {
  size_t left = file->size - file->done;
  size_t n = left < size ? left : size;
  memcpy(buffer, file->bytes + file->done, n);
  file->done += n;
  file->ready = n < left;
  if (file->error == 0) return (ssize_t)n;
  errno = -file->error;
  return -1;
}

static ssize_t receive(aloop_transport_t *transport, void *buffer, size_t size) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (pipe->calls != NULL) return pipe->calls->receive(pipe, buffer, size);
  if (pipe->file != NULL && pipe->file->ready) return receive_read(pipe->file, buffer, size);
#if ALOOP_HAVE_PWRITEV2 && defined(RWF_NOWAIT)
  struct iovec part = {.iov_base = buffer, .iov_len = size};
  if (!pipe->waits) {
    ssize_t n = preadv2(pipe->io, &part, 1, -1, RWF_NOWAIT);
    if (n >= 0) return n;
    pipe->waits = errno != EAGAIN && errno != EINTR;
  }
#else
  (void)buffer, (void)size;
  pipe->waits = true;
#endif
  pipe->starved = true;
  errno = EAGAIN;
  return -1;
}

/* Nothing is ever sent from inside data_received of a read end. */
static ssize_t send_parts(aloop_transport_t *transport, const struct iovec *iov, int count) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  return pipe->calls != NULL ? pipe->calls->send(pipe, iov, count) : ALOOP_EAGAIN;
}

static void read_on(aloop_transport_t *transport, aloop__net_t *net) {
  aloop__readiness_read_on(transport, net, receive, send_parts);
}

static void serve_reading(aloop_t *loop, aloop_transport_t *transport) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (pipe->job != NULL || !aloop__stream_wants_read(transport)) return;
  pipe->starved = false;
  aloop__readiness_readable(loop, transport, receive, send_parts, read_on);
  if (!aloop__stream_wants_read(transport)) return;
  if (pipe->starved)
    begin_job(transport);
  else
    go_on(transport);
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

/* What a job has written. */
static void account(aloop_transport_t *transport, aloop__file_t *file) {
  int error = file->error;
  file->ready = false;
  if (file->done > 0) aloop__stream_sent(transport, file->done); /* `file` may be gone then */
  if (error < 0 && !aloop__readiness_is_retry(-error)) aloop__stream_end(transport, error);
}

static void serve_writing(aloop_t *loop, aloop_transport_t *transport) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (pipe->calls != NULL) {
    aloop__readiness_writable(loop, transport, send_parts);
    if (transport->object.state < ALOOP__ENDING && !aloop__outbox_empty(&transport->outbox)) go_on(transport);
    return;
  }
  if (pipe->job != NULL) return;
  aloop__stream_enter_context(loop, transport);
  if (pipe->file != NULL && pipe->file->ready) account(transport, pipe->file);
  if (transport->object.state >= ALOOP__ENDING) return;
  if (!aloop__outbox_empty(&transport->outbox))
    begin_job(transport);
  else if (transport->flags & ALOOP__SENDFILE)
    aloop__sendfile_go_on(transport);
}

/* ---- The driver ------------------------------------------------------------------------------------------ */

/* No reference is needed: connection_lost is queued behind it. */
static void serve(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = arg;
  aloop__pipe_of(transport)->due = false;
  if (transport->object.state >= ALOOP__ENDING) return;
  if (transport->flags & ALOOP__NO_READ)
    serve_writing(loop, transport);
  else
    serve_reading(loop, transport);
}

/* A thread may have written it already, and not been heard of. */
static void forked(aloop_transport_t *transport) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (pipe->file != NULL && pipe->file->writes) pipe->file->ready = false;
}

static int flush(aloop_transport_t *transport) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  if (pipe->due) return 0;
  if (!aloop__ready_push(transport->object.loop, serve, transport)) return ALOOP_ENOMEM;
  pipe->due = true;
  aloop__loop_armed(transport->object.loop);
  return 0;
}

static int set_reading(aloop_transport_t *transport, bool on) {
  return on ? flush(transport) : 0;
}

/* Through the outbox. */
static ssize_t send_file(aloop_transport_t *transport, int file, int64_t offset, int64_t count) {
  (void)transport, (void)file, (void)offset, (void)count;
  return ALOOP_ENOTSUP;
}

static int send_eof(aloop_transport_t *transport) {
  aloop__stream_end(transport, 0);
  return 0;
}

static void detach(aloop_transport_t *transport) {
  aloop__pipe_t *pipe = aloop__pipe_of(transport);
  aloop_future_t *job = pipe->job;
  aloop__readiness_detach(transport);
  release_file(pipe->file);
  pipe->file = NULL;
  pipe->job = NULL;
  if (job == NULL) return;
  aloop__future_unwatch(job, job_done, pipe);
  aloop_future_cancel(job);
  aloop_future_unref(job);
}

const aloop__driver_t aloop__driver_unpolled = {
    .name = "unpolled",
    .transport_size = sizeof(aloop__pipe_t),
    .adopt = aloop__pipe_adopt,
    .give_back = aloop__pipe_give_back,
    .close = aloop__pipe_close,
    .detach = detach,
    .forked = forked,
    .read = set_reading,
    .send = send_parts,
    .flush = flush,
    .send_eof = send_eof,
    .sendfile = send_file,
    .await_room = flush,
};
