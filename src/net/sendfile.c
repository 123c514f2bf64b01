/* SPDX-License-Identifier: MIT
 *
 * Sending a file over a transport.
 *
 * A sendfile owns the write side of its transport: it begins when the outbox is empty, refuses writes until it
 * ends, and reading rests meanwhile (asyncio does the same: an answer to something read now could not be
 * written anyway). The first try is made at once, so a small file costs one system call. Each time the socket
 * takes bytes, one sendfile call moves as many as fit, so a fast reader cannot keep the loop to itself.
 *
 * Where the driver has no sendfile, 64 KiB at a time are read from the file into a buffer of the operation (not
 * the loop's: data_received may be reading that) and put into the stream. That read may wait for a disk;
 * running it in the executor is left to callers who cannot bear that.
 *
 * The file's position is never used and is set to just behind the last byte sent when the operation ends,
 * however it ends. A file that shrinks meanwhile ends the operation early, with the number of bytes there were.
 * An error of the file fails the future and leaves the connection; an error of the socket ends the connection,
 * and the future with it.
 */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/driver.h"
#include "net/write.h"

struct aloop__sendfile {
  aloop_future_t *future;
  int file;
  int64_t offset; /* of the next byte */
  int64_t left;   /* INT64_MAX: to the end */
  int64_t end;    /* of the file, when it was last looked at */
  int64_t sent;
  bool may_fall_back;
  char *copy; /* PIECE bytes, once it falls back */
};

enum { PIECE = 65536 };

/* Takes the operation off its transport and puts the file's position right. */
static aloop_future_t *take_off(aloop_transport_t *transport, int64_t *sent) {
  aloop__sendfile_t *op = transport->extras->sendfile;
  aloop_future_t *future = op->future;
  *sent = op->sent;
  lseek(op->file, (off_t)op->offset, SEEK_SET);
  transport->extras->sendfile = NULL;
  transport->flags &= (uint16_t)~ALOOP__SENDFILE;
  aloop__memory_release(transport->object.loop, op->copy);
  aloop__memory_release(transport->object.loop, op);
  return future;
}

/* The stream goes on as before. */
static void give_back(aloop_transport_t *transport) {
  aloop__stream_touch(transport, true, true);
  aloop__stream_update_reading(transport);
  aloop__stream_drained(transport);
}

static void end(aloop_transport_t *transport, int error) {
  int64_t sent;
  aloop_future_t *future = take_off(transport, &sent);
  if (error < 0)
    aloop__future_fail(future, error, NULL);
  else
    aloop__future_finish(future, sent);
  give_back(transport);
}

void aloop__sendfile_lost(aloop_transport_t *transport, int error) {
  int64_t sent;
  aloop_future_t *future = take_off(transport, &sent);
  aloop__future_fail(future, error, "the connection ended during sendfile");
}

static void cancelled(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_transport_t *transport = arg;
  int64_t sent;
  take_off(transport, &sent);
  give_back(transport);
}

static void account(aloop__sendfile_t *op, int64_t n) {
  op->offset += n;
  op->sent += n;
  if (op->left != INT64_MAX) op->left -= n;
}

static void await_room(aloop_transport_t *transport) {
  int rc = transport->driver->await_room(transport);
  if (rc < 0) aloop__stream_end(transport, rc);
}

/* One piece of the file through the outbox. */
static void copy_piece(aloop_transport_t *transport, aloop__sendfile_t *op) {
  size_t want = op->left < PIECE ? (size_t)op->left : PIECE;
  ssize_t n;
  do n = pread(op->file, op->copy, want, (off_t)op->offset);
  while (n < 0 && errno == EINTR);
  if (n <= 0) {
    end(transport, n < 0 ? -errno : 0);
    return;
  }
  account(op, n);
  struct iovec part = {.iov_base = op->copy, .iov_len = (size_t)n};
  aloop__stream_put(transport, &part, 1);
  if (transport->state >= ALOOP__ENDING || transport->outbox.size > 0) return;
  if (op->left == 0)
    end(transport, 0);
  else
    await_room(transport);
}

static bool is_socket_error(int error) {
  return error == ALOOP_EPIPE || error == ALOOP_ECONNRESET || error == ALOOP_ETIMEDOUT ||
         error == ALOOP_ENOTCONN;
}

static ssize_t move(aloop_transport_t *transport, aloop__sendfile_t *op) {
  ssize_t n = transport->driver->sendfile(transport, op->file, op->offset, op->left);
  if (n > 0) {
    account(op, n);
    aloop__stream_touch(transport, false, true);
  }
  return n;
}

/* As much as the socket takes. Returns true if the fallback should go on. */
static bool send_piece(aloop_transport_t *transport, aloop__sendfile_t *op) {
  ssize_t n = move(transport, op);
  /* Nothing but a second call tells whether the end that was seen is still the end. */
  if (n > 0 && op->left == INT64_MAX && op->offset >= op->end) n = move(transport, op);
  if (n == ALOOP_ENOTSUP && op->may_fall_back) {
    op->copy = aloop__memory_new(transport->object.loop, PIECE);
    if (op->copy != NULL) return true;
    n = ALOOP_ENOMEM;
  }
  if (n == 0 || op->left == 0)
    end(transport, 0);
  else if (n < 0 && is_socket_error((int)n))
    aloop__stream_end(transport, (int)n);
  else if (n < 0 && n != ALOOP_EAGAIN)
    end(transport, (int)n);
  else
    await_room(transport);
  return false;
}

void aloop__sendfile_go_on(aloop_transport_t *transport) {
  aloop__sendfile_t *op = transport->extras->sendfile;
  if (transport->outbox.size > 0) return;
  if (op->left == 0)
    end(transport, 0);
  else if (op->copy != NULL || send_piece(transport, op))
    copy_piece(transport, op);
}

/* Notes which rule was broken. */
static int fault(int error, const char *message, const char **rule) {
  *rule = message;
  return error;
}

/* Why it cannot begin, with the rule if that is the caller's fault, or 0. */
static int check(const aloop_transport_t *transport, int file, int64_t offset, int64_t count, unsigned flags,
                 int64_t *end, const char **rule) {
  struct stat info;
  if (transport->state >= ALOOP__CLOSING) return ALOOP_ECLOSED;
  if (transport->flags & ALOOP__NO_WRITE) return fault(ALOOP_ENOTSUP, "sendfile over a read pipe", rule);
  if (transport->flags & ALOOP__EOF_WANTED) return fault(ALOOP_EPIPE, "sendfile after write_eof", rule);
  if (transport->flags & ALOOP__SENDFILE)
    return fault(ALOOP_EBUSY, "another sendfile of this transport is under way; wait for it first", rule);
  if (offset < 0 || count < 0)
    return fault(ALOOP_EINVAL, "offset and count of sendfile must not be negative", rule);
  if (flags & ~(unsigned)ALOOP_NO_FALLBACK)
    return fault(ALOOP_EINVAL, "the flags of sendfile are 0 or ALOOP_NO_FALLBACK", rule);
  if (fstat(file, &info) < 0) return fault(-errno, "the file to send is not open", rule);
  *end = info.st_size;
  return S_ISREG(info.st_mode) ? 0 : fault(ALOOP_EINVAL, "sendfile sends regular files only", rule);
}

static void refuse(aloop_future_t *future, int error, const char *rule) {
  if (rule != NULL) aloop__misuse(future->object.loop, error, rule);
  aloop__future_fail(future, error, rule != NULL ? "%s" : NULL, rule);
}

aloop_future_t *aloop_sendfile(aloop_transport_t *transport, int file, int64_t offset, int64_t count,
                               unsigned flags) {
  if (aloop__stream_enter(transport) < 0) return NULL;
  aloop_t *loop = transport->object.loop;
  aloop_future_t *future = aloop__future_new(loop, transport->object.origin);
  if (future == NULL || aloop_future_done(future)) return future;
  aloop__cork_flush(transport); /* may call pause_writing, and so change what follows */
  const char *rule = NULL;
  int64_t file_end = 0;
  int rc = check(transport, file, offset, count, flags, &file_end, &rule);
  if (rc < 0) {
    refuse(future, rc, rule);
    return future;
  }
  aloop__sendfile_t *op = aloop__memory_zero(loop, sizeof *op);
  if (op == NULL || aloop__stream_extras(transport) == NULL) {
    aloop__memory_release(loop, op);
    aloop_future_unref(future);
    return NULL;
  }
  *op = (aloop__sendfile_t){.future = future, .file = file, .offset = offset, .end = file_end};
  op->left = count == 0 ? INT64_MAX : count;
  op->may_fall_back = (flags & ALOOP_NO_FALLBACK) == 0;
  transport->extras->sendfile = op;
  aloop__future_set_operation(future, cancelled, transport);
  transport->flags |= ALOOP__SENDFILE;
  aloop__sendfile_go_on(transport);
  /* Only now: a file that the socket takes at once need not tell the poller that reading rests. */
  if (transport->flags & ALOOP__SENDFILE) aloop__stream_update_reading(transport);
  return future;
}
