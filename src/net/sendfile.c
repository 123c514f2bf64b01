/* SPDX-License-Identifier: MIT
 *
 * Sending a file over a transport.
 *
 * A sendfile owns the write side of its transport: it begins when the outbox is empty, refuses writes until it
 * ends, and reading rests meanwhile (asyncio does the same: an answer to something read now could not be
 * written anyway). The first try is made at once, so a small file costs one system call. Each time the socket
 * takes bytes, one sendfile call moves as many as fit, but a piece at most: a fast reader on another CPU makes
 * room while the call is at work, which then goes on, and would keep the loop to itself (32 MiB in one call
 * were seen). Pieces of 4 MiB cost nothing that can be measured (16 or 128 MiB: 1.00 and 1.05 of the CPU time),
 * pieces of 1 MiB 9 percent. In a profile of a server that sends files the library has 0.1 percent.
 *
 * What becomes of the file, and how to do without sendfile, is in filepart.c; the fallback puts its pieces into
 * the stream. An error of the file fails the future and leaves the connection; an error of the socket ends the
 * connection, and the future with it.
 */
#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/driver.h"
#include "net/filepart.h"
#include "net/relay.h"
#include "net/write.h"

enum { PIECE = 4 << 20 };

struct aloop__sendfile {
  aloop_future_t *future;
  aloop__filepart_t part;
};

/* Takes the operation off its transport and puts the file's position right. */
static aloop_future_t *take_off(aloop_transport_t *transport, int64_t *sent) {
  aloop__sendfile_t *op = transport->extras->sendfile;
  aloop_future_t *future = op->future;
  *sent = op->part.sent;
  aloop__filepart_close(transport->object.loop, &op->part);
  transport->extras->sendfile = NULL;
  transport->flags &= ~(uint32_t)ALOOP__SENDFILE;
  aloop__memory_release(transport->object.loop, op);
  if (transport->driver->sendfile_over != NULL) transport->driver->sendfile_over(transport);
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

/* The position of the file belongs to both processes. */
void aloop__sendfile_forked(aloop_transport_t *transport) {
  int64_t sent;
  transport->extras->sendfile->part.file = -1;
  aloop_future_t *future = take_off(transport, &sent);
  aloop__future_fail(future, ALOOP_ECHILD, "sendfile goes on in the parent process");
}

static void cancelled(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_transport_t *transport = arg;
  int64_t sent;
  take_off(transport, &sent);
  give_back(transport);
}

static void await_room(aloop_transport_t *transport) {
  int rc = transport->driver->await_room(transport);
  if (rc < 0) aloop__stream_end(transport, rc);
}

/* One piece of the file through the outbox. */
static void copy_piece(aloop_transport_t *transport, aloop__filepart_t *part) {
  ssize_t n = aloop__filepart_read(part);
  if (n <= 0) {
    end(transport, (int)n);
    return;
  }
  aloop__filepart_account(part, n);
  struct iovec piece = {.iov_base = part->copy, .iov_len = (size_t)n};
  aloop__stream_put(transport, &piece, 1);
  /* pause_writing may have cancelled this sendfile, and begun another. */
  if ((transport->flags & ALOOP__SENDFILE) == 0 || !aloop__outbox_empty(&transport->outbox)) return;
  if (transport->extras->sendfile->part.left == 0)
    end(transport, 0);
  else
    await_room(transport);
}

static bool is_socket_error(int error) {
  return error == ALOOP_EPIPE || error == ALOOP_ECONNRESET || error == ALOOP_ETIMEDOUT ||
         error == ALOOP_ENOTCONN;
}

static ssize_t move(void *arg, int file, int64_t offset, int64_t count) {
  aloop_transport_t *transport = arg;
  ssize_t n = transport->driver->sendfile(transport, file, offset, count < PIECE ? count : PIECE);
  if (n > 0) aloop__stream_touch(transport, false, true);
  return n;
}

/* As much as the socket takes. Returns true if the fallback should go on. */
static bool send_piece(aloop_transport_t *transport, aloop__filepart_t *part) {
  ssize_t n = aloop__filepart_send(transport->object.loop, part, move, transport);
  if (n == ALOOP_ENOTSUP && part->copy != NULL) return true;
  if (n == 0 || part->left == 0)
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
  aloop__filepart_t *part = &transport->extras->sendfile->part;
  if (!aloop__outbox_empty(&transport->outbox)) return;
  if (part->left == 0)
    end(transport, 0);
  else if (part->copy != NULL || send_piece(transport, part))
    copy_piece(transport, part);
}

/* Why the transport sends no file, with the rule if that is the caller's fault, or 0. */
static int check(const aloop_transport_t *transport, const char **rule) {
  if (transport->object.state >= ALOOP__CLOSING) return ALOOP_ECLOSED;
  if (transport->flags & ALOOP__NO_WRITE) {
    *rule = "sendfile over a read pipe";
    return ALOOP_ENOTSUP;
  }
  if (transport->flags & ALOOP__MESSAGES) {
    *rule = "sendfile cuts a file where it likes, which a transport of messages must not: write the pieces";
    return ALOOP_ENOTSUP;
  }
  if (transport->flags & ALOOP__EOF_WANTED) {
    *rule = "sendfile after write_eof";
    return ALOOP_EPIPE;
  }
  if (transport->flags & ALOOP__SENDFILE) {
    *rule = "another sendfile of this transport is under way; wait for it first";
    return ALOOP_EBUSY;
  }
  if (aloop__relay_of(transport) != NULL) {
    *rule = aloop__relay_rule;
    return ALOOP_EBUSY;
  }
  return 0;
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
  aloop__filepart_t part;
  int rc = check(transport, &rule);
  if (rc == 0) rc = aloop__filepart_open(&part, file, offset, count, flags, &rule);
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
  *op = (aloop__sendfile_t){.future = future, .part = part};
  transport->extras->sendfile = op;
  aloop__future_set_operation(future, cancelled, transport);
  transport->flags |= ALOOP__SENDFILE;
  aloop__object_ref(&transport->object); /* outside of a run pause_writing may free the loop */
  aloop__sendfile_go_on(transport);
  /* Only now: a file that the socket takes at once need not tell the poller that reading rests. */
  if (transport->flags & ALOOP__SENDFILE) aloop__stream_update_reading(transport);
  aloop__object_unref(&transport->object);
  return future;
}
