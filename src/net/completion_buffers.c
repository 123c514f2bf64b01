/* SPDX-License-Identifier: MIT
 *
 * The buffers that all connections of a loop receive into. The kernel takes one when bytes arrive, not when
 * somebody begins to wait for them, so ten thousand idle connections hold none. They are handed to the kernel
 * through a ring of their own (PBUF_RING): giving one back is a store.
 *
 * The memory is mapped and only used where bytes arrived: 4 MiB of addresses, of which small messages touch
 * one page per buffer.
 */
#ifdef ALOOP_HAVE_IO_URING

#include "net/completion.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  RING_SIZE = ALOOP__COMPLETION_BUFFERS * (int)sizeof(struct io_uring_buf),
  MEMORY_SIZE = ALOOP__COMPLETION_BUFFERS * ALOOP__COMPLETION_BUFFER_SIZE
};

static int enroll(const aloop__completion_buffers_t *buffers, const aloop__ring_t *ring) {
  struct io_uring_buf_reg group = {.ring_addr = (uint64_t)(uintptr_t)buffers->ring,
                                   .ring_entries = ALOOP__COMPLETION_BUFFERS};
  if (syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_PBUF_RING, &group, 1) == 0) return 0;
  return errno == EINVAL ? ALOOP_ENOTSUP : -errno;
}

int aloop__completion_buffers_move(aloop__completion_buffers_t *buffers, const aloop__held_t *held,
                                   const aloop__ring_t *ring) {
  memset(buffers->ring, 0, RING_SIZE);
  buffers->tail = 0;
  int rc = enroll(buffers, ring);
  if (rc < 0) return rc;
  for (uint32_t i = 0; i < ALOOP__COMPLETION_BUFFERS; i++)
    if (held[i].data == NULL) aloop__completion_give_back(buffers, i << IORING_CQE_BUFFER_SHIFT);
  return 0;
}

int aloop__completion_buffers_open(aloop__completion_buffers_t *buffers, const aloop__held_t *held,
                                   const aloop__ring_t *ring) {
  char *at = mmap(NULL, RING_SIZE + MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return ALOOP_ENOMEM;
  buffers->ring = (struct io_uring_buf_ring *)(void *)at;
  buffers->memory = at + RING_SIZE;
  int rc = aloop__completion_buffers_move(buffers, held, ring);
  if (rc < 0) aloop__completion_buffers_close(buffers);
  return rc;
}

void aloop__completion_buffers_close(aloop__completion_buffers_t *buffers) {
  munmap(buffers->ring, RING_SIZE + MEMORY_SIZE);
}

#else
typedef int aloop__completion_buffers_are_not_built; /* ISO C wants a declaration in every file */
#endif
