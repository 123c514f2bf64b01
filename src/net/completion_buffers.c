/* SPDX-License-Identifier: MIT
 *
 * The buffers that all connections of a loop receive into, or all its endpoints of datagrams. The kernel takes
 * one when bytes arrive, not when somebody begins to wait for them, so ten thousand idle connections hold none.
 * They are handed to the kernel through a ring of their own (PBUF_RING): giving one back is a store.
 *
 * For streams the kernel fills large buffers piece by piece (6.12): each receive takes what it needs, up to all
 * that is left, and the next one goes on behind that. So bulk comes in large pieces and small messages lie
 * close together. A buffer is lent again when it is used up and the last of its pieces was given back. Older
 * kernels give each receive a buffer of its own; they are smaller then, and more.
 *
 * The kernel takes them in turn, and what does not stay in a processor's cache costs more than a receive that
 * finds no buffer and is asked for again: an echo of 16 KiB on 400 connections took a sixth more time with 64
 * buffers of 64 KiB than with 8. So there are few, and only some of them are lent to the kernel; the others are
 * spare. When too many receives find none (`pressure`) twice as many are lent, and half as many when for long
 * not half of them were needed in any turn.
 *
 * The memory is mapped and only used where bytes arrived: 512 KiB of addresses for streams, of which 256 KiB as
 * long as no more are lent (4 MiB and 256 KiB on older kernels), and 2 MiB for datagrams. So much is what a
 * connection may bring in a turn before others have theirs, too.
 */
#ifdef ALOOP_HAVE_IO_URING

#include "net/completion.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MEMORY_AT = ALOOP__COMPLETION_BUFFERS * (int)sizeof(struct io_uring_buf) };

static size_t map_size(const aloop__completion_buffers_t *buffers) {
  return MEMORY_AT + (size_t)buffers->shape.count * buffers->stride;
}

/* struct io_uring_buf_reg, whose `flags` have another name in older headers. */
typedef struct group {
  uint64_t ring;
  uint32_t entries;
  uint16_t name;
  uint16_t flags;
  uint64_t reserved[3];
} group_t;

static int enroll(const aloop__completion_buffers_t *buffers, const aloop__ring_t *ring) {
  bool in_pieces = buffers->shape.in_pieces;
  if (aloop__ring_forbids(ALOOP__RING_NO_BUFFERS | (in_pieces ? ALOOP__RING_NO_PIECES : 0u)))
    return ALOOP_ENOTSUP;
  group_t group = {.ring = (uint64_t)(uintptr_t)buffers->ring,
                   .entries = buffers->shape.count,
                   .name = buffers->shape.group,
                   .flags = in_pieces ? ALOOP__RING_BUFFERS_INC : 0};
  if (syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_PBUF_RING, &group, 1) == 0) return 0;
  return errno == EINVAL ? ALOOP_ENOTSUP : -errno;
}

int aloop__completion_buffers_move(aloop__completion_buffers_t *buffers, const aloop__ring_t *ring) {
  memset(buffers->ring, 0, MEMORY_AT);
  buffers->tail = buffers->lent = buffers->spares_count = 0;
  int rc = enroll(buffers, ring);
  if (rc < 0) return rc;
  for (uint16_t i = 0; i < buffers->shape.count; i++) {
    buffers->uses[i].lent = false;
    if (buffers->uses[i].pieces == 0) aloop__completion_free(buffers, i);
  }
  return 0;
}

int aloop__completion_buffers_open(aloop__completion_buffers_t *buffers, const aloop__completion_shape_t *shape,
                                   const aloop__ring_t *ring) {
  *buffers = (aloop__completion_buffers_t){.shape = *shape,
                                           .stride = (shape->size + 63) / 64 * 64 + ALOOP__COMPLETION_COLOUR,
                                           .window = shape->least};
  char *at = mmap(NULL, map_size(buffers), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return ALOOP_ENOMEM;
  buffers->ring = (struct io_uring_buf_ring *)(void *)at;
  buffers->memory = at + MEMORY_AT;
  int rc = aloop__completion_buffers_move(buffers, ring);
  if (rc < 0) aloop__completion_buffers_close(buffers);
  return rc;
}

static void lend_spares(aloop__completion_buffers_t *buffers) {
  while (buffers->lent < buffers->window && buffers->spares_count > 0)
    aloop__completion_lend(buffers, buffers->spares[--buffers->spares_count]);
}

void aloop__completion_buffers_short(aloop__completion_buffers_t *buffers) {
  enum { ENOUGH = 64 };
  buffers->pressure += buffers->shape.weight;
  if (buffers->pressure > ENOUGH) {
    if (buffers->window < buffers->shape.count) buffers->window *= 2;
    buffers->pressure = 0;
  }
  lend_spares(buffers); /* others are held, perhaps */
}

void aloop__completion_buffers_calm(aloop__completion_buffers_t *buffers) {
  buffers->calm = 0;
  if (buffers->window > buffers->shape.least) buffers->window /= 2;
}

void aloop__completion_buffers_close(aloop__completion_buffers_t *buffers) {
  munmap(buffers->ring, map_size(buffers));
}

#else
typedef int aloop__completion_buffers_are_not_built; /* ISO C wants a declaration in every file */
#endif
