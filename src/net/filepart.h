/* SPDX-License-Identifier: MIT
 *
 * The part of a file that a sendfile has still to send, whoever sends it: a transport (sendfile.c) or an
 * operation on the caller's socket (sockfile.c).
 */
#ifndef ALOOP_NET_FILEPART_H
#define ALOOP_NET_FILEPART_H

#include "aloop.h"

typedef struct aloop__filepart {
  int file;
  int64_t offset; /* of the next byte */
  int64_t left;   /* INT64_MAX: to the end */
  int64_t end;    /* of the file, when it was last looked at */
  int64_t sent;
  bool may_fall_back;
  char *copy; /* ALOOP__FILEPART_PIECE bytes, once it falls back */
} aloop__filepart_t;

enum { ALOOP__FILEPART_PIECE = 65536 };

/* One sendfile of at most `count` bytes: the bytes sent, ALOOP_EAGAIN, ALOOP_ENOTSUP or another code. */
typedef ssize_t (*aloop__filepart_fn)(void *arg, int file, int64_t offset, int64_t count);

/* Looks at the arguments of a sendfile: 0, or a code and the rule that was broken. */
int aloop__filepart_open(aloop__filepart_t *part, int file, int64_t offset, int64_t count, unsigned flags,
                         const char **rule);

/* Puts the file's position just behind the last byte sent and releases the copy. */
void aloop__filepart_close(aloop_t *loop, aloop__filepart_t *part);

/* `n` more bytes were sent. */
void aloop__filepart_account(aloop__filepart_t *part, int64_t n);

/* Sends as much as the socket takes in a call. Returns how much that was, 0 at the end of the file, a code, or
 * ALOOP_ENOTSUP with a copy to use instead from now on. */
ssize_t aloop__filepart_send(aloop_t *loop, aloop__filepart_t *part, aloop__filepart_fn send, void *arg);

/* Reads the next bytes into the copy. Returns how many there were, 0 at the end of the file, or a code. */
ssize_t aloop__filepart_read(aloop__filepart_t *part);

#endif
