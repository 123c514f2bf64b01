/* SPDX-License-Identifier: MIT
 *
 * The write buffer of a stream: a list of chunks that the transport owns, either copies or the caller's memory
 * with a release callback. Empty, it holds no memory, and is one pointer in its transport, of which there are
 * many.
 */
#ifndef ALOOP_NET_OUTBOX_H
#define ALOOP_NET_OUTBOX_H

#include <sys/uio.h>

#include "aloop.h"

typedef struct aloop__chunk aloop__chunk_t;

typedef struct aloop__outbox {
  aloop__chunk_t *last; /* of a ring: the first one comes next; NULL: empty */
} aloop__outbox_t;

static inline bool aloop__outbox_empty(const aloop__outbox_t *outbox) {
  return outbox->last == NULL;
}

/* Bytes not yet sent. */
size_t aloop__outbox_size(const aloop__outbox_t *outbox);

/* Appends copies of all parts but their first `skip` bytes; those of a `secret` are cleared when they have
 * gone. All or nothing: ALOOP_ENOMEM. */
int aloop__outbox_append(aloop_t *loop, aloop__outbox_t *outbox, const struct iovec *iov, int count,
                         size_t skip, bool secret);

/* The address of an empty message, which counts as one byte. */
extern const char aloop__outbox_nothing[];

/* Appends copies of all parts as a chunk of its own, which peek gives as one part. ALOOP_ENOMEM. */
int aloop__outbox_append_message(aloop_t *loop, aloop__outbox_t *outbox, const struct iovec *iov, int count);

/* Appends the caller's memory, but its first `skip` bytes; release(arg) is called when it was sent or dropped.
 * ALOOP_ENOMEM. */
int aloop__outbox_append_owned(aloop_t *loop, aloop__outbox_t *outbox, const void *data, size_t size,
                               size_t skip, aloop_destroy_fn release, void *arg);

/* Fills iov with the first unsent parts; returns how many. */
int aloop__outbox_peek(const aloop__outbox_t *outbox, struct iovec *iov, int room);

/* Forgets the first `size` bytes. */
void aloop__outbox_consume(aloop_t *loop, aloop__outbox_t *outbox, size_t size);

/* Forgets everything. */
void aloop__outbox_clear(aloop_t *loop, aloop__outbox_t *outbox);

/* The bytes of all parts together. */
static inline size_t aloop__iov_total(const struct iovec *iov, int count) {
  size_t total = 0;
  for (int i = 0; i < count; i++) total += iov[i].iov_len;
  return total;
}

#endif
