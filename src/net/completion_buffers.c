/* SPDX-License-Identifier: MIT
 *
 * The buffers that all connections of a loop receive into, or all its endpoints of datagrams. The kernel takes
 * one when bytes arrive, not when somebody begins to wait for them, so ten thousand idle connections hold none.
 * They are handed to the kernel through a ring of their own (PBUF_RING): giving one back is a store.
 *
 * The kernel takes them in turn, and 4 MiB of them do not stay in a processor's cache: an echo of 16 KiB took a
 * quarter more time with all of them than with 16. So only a few are lent to the kernel, and the others are
 * spare. A receive that finds none is asked for again; when too many do (`pressure`) twice as many are lent,
 * and half as many when for long not half of them were needed in any turn.
 *
 * The memory is mapped and only used where bytes arrived: 4 MiB of addresses for streams, of which small
 * messages touch one page per buffer, and 2 MiB for datagrams.
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

static int enroll(const aloop__completion_buffers_t *buffers, const aloop__ring_t *ring) {
  struct io_uring_buf_reg group = {.ring_addr = (uint64_t)(uintptr_t)buffers->ring,
                                   .ring_entries = buffers->shape.count,
                                   .bgid = buffers->shape.group};
  if (syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_PBUF_RING, &group, 1) == 0) return 0;
  return errno == EINVAL ? ALOOP_ENOTSUP : -errno;
}

int aloop__completion_buffers_move(aloop__completion_buffers_t *buffers, const aloop__ring_t *ring) {
  memset(buffers->ring, 0, MEMORY_AT);
  buffers->tail = buffers->lent = buffers->spares_count = 0;
  int rc = enroll(buffers, ring);
  if (rc < 0) return rc;
  for (uint32_t i = 0; i < buffers->shape.count; i++)
    if (!buffers->kept[i]) aloop__completion_give_back(buffers, i << IORING_CQE_BUFFER_SHIFT);
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
