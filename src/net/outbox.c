/* SPDX-License-Identifier: MIT
 *
 * The write buffer of a stream.
 *
 * A ring of chunks, singly linked, held by its last one, which also knows how many bytes there are in all. A
 * chunk of copies is one block with its bytes behind the header and may have room for more; a chunk of the
 * caller's memory points elsewhere and is never appended to. Bytes leave at the front by moving the first
 * chunk's pointer, so nothing is ever shifted. Appending is O(bytes), consuming O(chunks). An append either
 * takes everything or, out of memory, nothing: at most one block is allocated, before anything is changed.
 *
 * A release callback may append, or clear the outbox; so it is called when its chunk has left the ring and all
 * that goes with it has left the count.
 *
 * A message is a chunk of its own, which has no room for more. An empty one is a byte at an address that is
 * known: so all counts stay what they are, and nobody takes the outbox for empty.
 *
 * The first chunk fits what it is made for, because most leftovers are small and are gone a moment later; later
 * ones are 16 KiB at least, so that many small writes to a slow reader share a block.
 */
#include "net/outbox.h"

#include <string.h>

#include "core/loop.h"
#include "core/memory.h"

enum { FIRST_CHUNK = 512, NEXT_CHUNK = 16384 };

const char aloop__outbox_nothing[1] = {0};

struct aloop__chunk {
  aloop__chunk_t *next;
  const char *data; /* the first unsent byte */
  size_t size;
  size_t room;  /* free bytes behind the data; 0 in a chunk of the caller's memory */
  size_t total; /* of the last one: the bytes of all chunks */
  bool secret;  /* to be cleared */
  aloop_destroy_fn release;
  void *arg;
  char bytes[];
};

size_t aloop__outbox_size(const aloop__outbox_t *outbox) {
  return outbox->last != NULL ? outbox->last->total : 0;
}

static void link_last(aloop__outbox_t *outbox, aloop__chunk_t *chunk) {
  aloop__chunk_t *before = outbox->last;
  chunk->next = before != NULL ? before->next : chunk;
  chunk->total = before != NULL ? before->total : 0;
  if (before != NULL) before->next = chunk;
  outbox->last = chunk;
}

static aloop__chunk_t *make_chunk(aloop_t *loop, size_t room) {
  aloop__chunk_t *chunk = aloop__memory_new(loop, sizeof *chunk + room);
  if (chunk != NULL) *chunk = (aloop__chunk_t){.data = chunk->bytes, .room = room};
  return chunk;
}

/* The free bytes lie behind the data, wherever in the block that starts; the pointer itself is const for its
 * readers only. */
static void add_all(aloop__chunk_t *chunk, const void *data, size_t size) {
  memcpy((char *)chunk->data + chunk->size, data, size);
  chunk->size += size;
  chunk->room -= size;
}

static size_t add_bytes(aloop__chunk_t *chunk, const char *data, size_t size) {
  size_t n = size < chunk->room ? size : chunk->room;
  if (n > 0) add_all(chunk, data, n);
  return n;
}

int aloop__outbox_append(aloop_t *loop, aloop__outbox_t *outbox, const struct iovec *iov, int count,
                         size_t skip, bool secret) {
  aloop__chunk_t *into = outbox->last;
  if (into != NULL && count == 1 && skip == 0 && iov->iov_len <= into->room && iov->iov_len > 0) {
    add_all(into, iov->iov_base, iov->iov_len);
    into->total += iov->iov_len;
    return 0;
  }
  size_t total = aloop__iov_total(iov, count);
  if (total <= skip) return 0;
  size_t size = total - skip;
  aloop__chunk_t *fresh = NULL;
  size_t room = into != NULL ? into->room : 0;
  if (room < size) {
    size_t least = into == NULL ? FIRST_CHUNK : NEXT_CHUNK;
    fresh = make_chunk(loop, size - room > least ? size - room : least);
    if (fresh == NULL) return ALOOP_ENOMEM;
    fresh->secret = secret;
  }
  for (int i = 0; i < count; i++) {
    const char *data = iov[i].iov_base;
    size_t left = iov[i].iov_len;
    size_t skipped = skip < left ? skip : left;
    skip -= skipped;
    if (skipped == left) continue; /* an empty part may have no address */
    data += skipped;
    left -= skipped;
    size_t n = into != NULL ? add_bytes(into, data, left) : 0;
    if (n < left) add_bytes(fresh, data + n, left - n);
  }
  if (fresh != NULL) link_last(outbox, fresh);
  outbox->last->total += size;
  return 0;
}

int aloop__outbox_append_owned(aloop_t *loop, aloop__outbox_t *outbox, const void *data, size_t size,
                               size_t skip, aloop_destroy_fn release, void *arg) {
  aloop__chunk_t *chunk = make_chunk(loop, 0);
  if (chunk == NULL) return ALOOP_ENOMEM;
  chunk->data = (const char *)data + skip;
  chunk->size = size - skip;
  chunk->release = release;
  chunk->arg = arg;
  link_last(outbox, chunk);
  chunk->total += chunk->size;
  return 0;
}

int aloop__outbox_append_message(aloop_t *loop, aloop__outbox_t *outbox, const struct iovec *iov, int count) {
  if (iov->iov_base == aloop__outbox_nothing)
    return aloop__outbox_append_owned(loop, outbox, aloop__outbox_nothing, 1, 0, NULL, NULL);
  aloop__chunk_t *chunk = make_chunk(loop, aloop__iov_total(iov, count));
  if (chunk == NULL) return ALOOP_ENOMEM;
  for (int i = 0; i < count; i++) add_bytes(chunk, iov[i].iov_base, iov[i].iov_len);
  link_last(outbox, chunk);
  chunk->total += chunk->size;
  return 0;
}

int aloop__outbox_peek(const aloop__outbox_t *outbox, struct iovec *iov, int room) {
  const aloop__chunk_t *at = outbox->last;
  int n = 0;
  if (at == NULL) return 0;
  do {
    at = at->next;
    iov[n++] = (struct iovec){.iov_base = (char *)at->data, .iov_len = at->size};
  } while (at != outbox->last && n < room);
  return n;
}

/* A memset that the compiler does not know to be of no use. */
static void clear(aloop__chunk_t *chunk) {
  static void *(*const volatile set)(void *, int, size_t) = memset;
  set(chunk->bytes, 0, (size_t)(chunk->data - chunk->bytes) + chunk->size);
}

/* Drops the first chunk, of which the bytes are counted no more. */
static void drop_first(aloop_t *loop, aloop__outbox_t *outbox) {
  aloop__chunk_t *last = outbox->last, *chunk = last->next;
  if (chunk->secret) clear(chunk);
  last->next = chunk->next;
  if (chunk == last) outbox->last = NULL;
  if (chunk->release != NULL) chunk->release(chunk->arg);
  aloop__memory_release(loop, chunk);
}

void aloop__outbox_consume(aloop_t *loop, aloop__outbox_t *outbox, size_t size) {
  ALOOP_CHECK(size <= aloop__outbox_size(outbox));
  if (outbox->last != NULL) outbox->last->total -= size;
  while (size > 0 && outbox->last != NULL && size >= outbox->last->next->size) {
    size -= outbox->last->next->size;
    drop_first(loop, outbox);
  }
  if (size == 0 || outbox->last == NULL) return; /* NULL: a release callback ended the connection */
  outbox->last->next->data += size;
  outbox->last->next->size -= size;
}

void aloop__outbox_clear(aloop_t *loop, aloop__outbox_t *outbox) {
  aloop__outbox_t dropped = *outbox; /* which may be gone when the last chunk is released */
  outbox->last = NULL;
  while (dropped.last != NULL) drop_first(loop, &dropped);
}
