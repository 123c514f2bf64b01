/* SPDX-License-Identifier: MIT
 *
 * sock_sendfile: a file through the caller's own socket.
 *
 * An operation like those of sock.c, over the part of a file that filepart.c keeps. Each attempt sends what the
 * socket takes, at most ALOOP__SOCK_BUDGET bytes, and then waits for room, so that neither a fast peer nor a
 * large socket buffer makes the loop send a whole film in one turn; a file within the budget costs one call.
 *
 * Without sendfile(2) pieces are read and sent. What the socket did not take of a piece is read again with the
 * next one: that is a copy from the page cache, and keeps the number of bytes sent, the position and a file
 * that shrinks meanwhile as simple as with sendfile.
 */
#include <errno.h>

#include "core/loop.h"
#include "future/future.h"
#include "net/readiness.h"
#include "net/sock.h"

static ssize_t move(void *arg, int file, int64_t offset, int64_t count) {
  const aloop__sock_t *op = arg;
  return aloop__readiness_send_file(op->fd, file, offset,
                                    count < ALOOP__SOCK_BUDGET ? count : ALOOP__SOCK_BUDGET);
}

/* Sends with sendfile: as an attempt, or ALOOP_ENOTSUP with a copy to go on with. */
static int64_t attempt_sendfile(aloop__sock_t *op) {
  aloop__filepart_t *part = &op->part;
  ssize_t n = aloop__filepart_send(op->loop, part, move, op);
  if (n == 0 || part->left == 0) return part->sent;
  return n > 0 || n == ALOOP_EAGAIN ? ALOOP__SOCK_WAIT : n;
}

/* Sends one piece through the copy: its size, 0 at the end, a code or ALOOP__SOCK_WAIT. */
static int64_t copy_piece(aloop__sock_t *op) {
  aloop__filepart_t *part = &op->part;
  ssize_t n = aloop__filepart_read(part);
  if (n <= 0) return n;
  ssize_t sent = aloop__sock_send(op->fd, part->copy, (size_t)n, NULL, 0);
  if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? ALOOP__SOCK_WAIT : -errno;
  aloop__filepart_account(part, sent);
  return sent < n ? ALOOP__SOCK_WAIT : sent;
}

static int64_t attempt_copy(aloop__sock_t *op) {
  int64_t budget = ALOOP__SOCK_BUDGET;
  while (op->part.left > 0 && budget > 0) {
    int64_t n = copy_piece(op);
    if (n == 0) return op->part.sent;
    if (n < 0) return n;
    budget -= n;
  }
  return op->part.left == 0 ? op->part.sent : ALOOP__SOCK_WAIT;
}

static int64_t attempt(aloop__sock_t *op) {
  if (op->part.copy == NULL) {
    int64_t result = attempt_sendfile(op);
    if (op->part.copy == NULL) return result;
  }
  return attempt_copy(op);
}

static void conclude(const aloop__sock_t *op, aloop_future_t *future, int64_t result) {
  if (result >= 0)
    aloop__future_finish(future, result);
  else
    aloop__future_fail(future, (int)result, "%lld bytes of the file were sent: %s", (long long)op->part.sent,
                       aloop_strerror(result));
}

static void leave(aloop__sock_t *op) {
  aloop__filepart_close(op->loop, &op->part);
}

static const aloop__sock_kind_t kind = {.name = "aloop_sock_sendfile",
                                        .direction = ALOOP_WRITABLE,
                                        .sends = true,
                                        .attempt = attempt,
                                        .conclude = conclude,
                                        .leave = leave};

aloop_future_t *aloop_sock_sendfile(aloop_t *loop, int fd, int file, int64_t offset, int64_t count,
                                    unsigned flags) {
  if (aloop__loop_thread(loop) < 0) return NULL;
  const char *rule = NULL;
  aloop__sock_t op = {.kind = &kind, .loop = loop, .fd = fd};
  int rc = aloop__filepart_open(&op.part, file, offset, count, flags, &rule);
  if (rc < 0) return aloop__future_refused(loop, kind.name, rc, rule);
  return aloop__sock_start(&op);
}
