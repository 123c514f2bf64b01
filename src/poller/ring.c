/* SPDX-License-Identifier: MIT
 *
 * One io_uring, on raw system calls.
 *
 * The ring is made disabled and belongs to no thread until its owner first waits: from then on only that thread
 * submits (SINGLE_ISSUER), and the kernel finishes work only when the thread asks for it (DEFER_TASKRUN), in
 * one piece, without interrupting it. A poller without either of them works, too, only slower; each flag that
 * the kernel does not know is dropped and the rest tried again. Never a kernel thread that polls (SQPOLL): it
 * would burn a core that belongs to the program.
 *
 * The queue of requests is filled in memory; one system call hands over all of them, waits, and has the kernel
 * finish what can be finished. SUBMIT_ALL: a request that is wrong is answered like any other instead of
 * stopping those behind it. The completion queue is eight times as long; if it runs over, the kernel keeps the
 * rest and hands it out when we enter (NODROP, required), so nothing is ever lost.
 *
 * A cancel must not get lost, because a request keeps its file open. The kernel may take nothing when memory is
 * short; what the full queue has no room for is noted then, and goes out with one of the next calls. Until it
 * has, no call waits.
 *
 * The queues are memory shared with the kernel, and so with the child of a fork, which must not touch them:
 * requests that the child wrote would be the parent's.
 *
 * Not here: what the requests mean (uring.c, net/completion.c).
 */
#ifdef ALOOP_HAVE_IO_URING

#include "poller/ring.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/loop.h"
#include "poller/poller.h"

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

atomic_uint aloop__ring_forbidden;

static int setup(uint32_t entries, struct io_uring_params *params) {
  long fd = syscall(__NR_io_uring_setup, entries, params);
  return fd < 0 ? -errno : (int)fd;
}

static int enter(const aloop__ring_t *ring, uint32_t submit, uint32_t least, unsigned flags, const void *arg,
                 size_t size) {
  long n = syscall(__NR_io_uring_enter, ring->fd, submit, least, flags, arg, size);
  return n < 0 ? -errno : (int)n;
}

static int enroll(const aloop__ring_t *ring, unsigned operation, void *arg, unsigned count) {
  return syscall(__NR_io_uring_register, ring->fd, operation, arg, count) < 0 ? -errno : 0;
}

/* ---- Opening --------------------------------------------------------------------------------------------- */

/* From what a new kernel offers down to what every io_uring has. */
static const unsigned flag_sets[] = {
    IORING_SETUP_NO_SQARRAY | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER,
    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER,
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
    IORING_SETUP_COOP_TASKRUN,
    0,
};

static bool allowed(unsigned flags, bool hosted) {
  return !((hosted && flags & (IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN)) ||
           (flags & IORING_SETUP_NO_SQARRAY && aloop__ring_forbids(ALOOP__RING_NO_SQARRAY)) ||
           (flags & IORING_SETUP_DEFER_TASKRUN && aloop__ring_forbids(ALOOP__RING_NO_DEFER)) ||
           (flags & IORING_SETUP_SINGLE_ISSUER && aloop__ring_forbids(ALOOP__RING_NO_SINGLE)) ||
           (flags & IORING_SETUP_COOP_TASKRUN && aloop__ring_forbids(ALOOP__RING_NO_COOP)));
}

static int open_best(uint32_t entries, bool hosted, struct io_uring_params *params) {
  int fd = ALOOP_ENOTSUP;
  for (size_t i = 0; i < sizeof flag_sets / sizeof flag_sets[0]; i++) {
    if (!allowed(flag_sets[i], hosted)) continue;
    memset(params, 0, sizeof *params);
    params->flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED | flag_sets[i];
    if (flag_sets[i] & (IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN))
      params->flags |= IORING_SETUP_TASKRUN_FLAG;
    params->cq_entries = aloop__ring_forbids(ALOOP__RING_NO_ROOM) ? entries : entries * 8;
    fd = setup(entries, params);
    if (fd != -EINVAL) break;
  }
  return fd;
}

static void *map(int fd, size_t size, off_t what) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
  return at != MAP_FAILED ? at : NULL;
}

static size_t larger(size_t a, size_t b) {
  return a > b ? a : b;
}

/* Both queues lie in one mapping (FEAT_SINGLE_MMAP, 5.4). */
static int map_queues(aloop__ring_t *ring, const struct io_uring_params *params) {
  bool array = (params->flags & IORING_SETUP_NO_SQARRAY) == 0;
  size_t sq_size = array ? params->sq_off.array + params->sq_entries * sizeof(uint32_t) : 0;
  size_t cq_size = params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe);
  ring->map_size = larger(sq_size, cq_size);
  ring->sqes_size = params->sq_entries * sizeof(struct io_uring_sqe);
  char *at = map(ring->fd, ring->map_size, IORING_OFF_SQ_RING);
  if (at == NULL) return ALOOP_ENOMEM;
  ring->map = at;
  ring->sqes = map(ring->fd, ring->sqes_size, IORING_OFF_SQES);
  if (ring->sqes == NULL) return ALOOP_ENOMEM;
  void *parts[] = {
      at + params->sq_off.head,  at + params->sq_off.tail,         at + params->sq_off.flags,
      at + params->cq_off.head,  at + params->cq_off.tail,         at + params->cq_off.cqes,
      at + params->sq_off.array, at + params->sq_off.ring_entries, at + params->cq_off.ring_entries};
  ring->sq_head = parts[0];
  ring->sq_tail = parts[1];
  ring->sq_flags = parts[2];
  ring->cq_head = parts[3];
  ring->cq_tail = parts[4];
  ring->cqes = parts[5];
  uint32_t *order = parts[6];
  for (uint32_t i = 0; array && i < params->sq_entries; i++) order[i] = i;
  ring->sq_size = params->sq_entries;
  ring->sq_mask = params->sq_entries - 1;
  ring->cq_mask = params->cq_entries - 1;
  return 0;
}

static const char *missing(int error) {
  switch (error) {
  case -ENOSYS:
    return "the kernel was built without io_uring";
  case -EPERM:
    return "io_uring is not allowed here (kernel.io_uring_disabled, or a seccomp filter)";
  case -EMFILE:
    return "too many open descriptors in this process";
  case -ENOMEM:
    return "no memory for io_uring (RLIMIT_MEMLOCK on old kernels)";
  default:
    return "the kernel's io_uring is older than 5.19";
  }
}

/* Whether the kernel has what nothing here can do without. */
static bool has_needed(const struct io_uring_params *params) {
  enum { NEEDED = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP };
  uint32_t features = params->features;
  if (aloop__ring_forbids(ALOOP__RING_NO_BACKLOG)) features &= ~(uint32_t)IORING_FEAT_NODROP;
  if (aloop__ring_forbids(ALOOP__RING_NO_TIMEOUT)) features &= ~(uint32_t)IORING_FEAT_EXT_ARG;
  if (aloop__ring_forbids(ALOOP__RING_NO_SILENCE)) features &= ~(uint32_t)IORING_FEAT_CQE_SKIP;
  return (features & NEEDED) == NEEDED;
}

int aloop__ring_open(aloop__ring_t *ring, uint32_t entries, bool hosted, const char **reason) {
  struct io_uring_params params;
  memset(ring, 0, sizeof *ring);
  if (aloop__ring_forbids(ALOOP__RING_NO_ROOM)) entries = 4;
  ring->fd = aloop__ring_forbids(ALOOP__RING_NOTHING) ? -ENOSYS : open_best(entries, hosted, &params);
  if (ring->fd < 0) {
    int error = ring->fd;
    ring->fd = -1;
    *reason = missing(error);
    return error == -ENOSYS || error == -EPERM || error == -EINVAL || error == ALOOP_ENOTSUP ? ALOOP_ENOTSUP
                                                                                             : error;
  }
  ring->hosted = hosted;
  ring->forks = aloop__current_forks();
  ring->defers = (params.flags & IORING_SETUP_DEFER_TASKRUN) != 0;
  int rc = has_needed(&params) ? map_queues(ring, &params) : ALOOP_ENOTSUP;
  if (rc == 0) return 0;
  *reason = rc == ALOOP_ENOTSUP ? missing(-EINVAL) : missing(-ENOMEM);
  aloop__ring_close(ring);
  return rc;
}

void aloop__ring_close(aloop__ring_t *ring) {
  if (ring->sqes != NULL) munmap(ring->sqes, ring->sqes_size);
  if (ring->map != NULL) munmap(ring->map, ring->map_size);
  if (ring->fd >= 0) close(ring->fd);
  ring->fd = -1;
  ring->sqes = NULL;
  ring->map = NULL;
}

const char *aloop__ring_missing(void) {
  aloop__ring_t ring;
  const char *reason = NULL;
  if (aloop__ring_open(&ring, 1, false, &reason) == 0) aloop__ring_close(&ring);
  return reason;
}

/* ---- Driving --------------------------------------------------------------------------------------------- */

bool aloop__ring_is_inherited(const aloop__ring_t *ring) {
  return ring->forks != aloop__current_forks_seen();
}

/* From here on the ring is this thread's. Its descriptor is not registered with the thread, which would save
 * each call a look-up: a registration keeps the ring alive, and only this thread could take it back. It saves
 * 30 ns per call at most, 0.3 percent of an echo on one TCP connection and nothing that shows on 50. */
static int enable(aloop__ring_t *ring) {
  int rc = enroll(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
  if (rc == 0) ring->enabled = true;
  return rc;
}

static inline uint32_t count_queued(const aloop__ring_t *ring) {
  return ring->tail - atomic_load_explicit(ring->sq_head, memory_order_acquire);
}

static inline bool has_room(const aloop__ring_t *ring) {
  return count_queued(ring) < ring->sq_size;
}

static struct io_uring_sqe *next_request(aloop__ring_t *ring) {
  struct io_uring_sqe *request = &ring->sqes[ring->tail++ & ring->sq_mask];
  memset(request, 0, sizeof *request);
  return request;
}

/* Not by POLL_REMOVE: that leaves a request alone that is about to be answered (EALREADY), and if the answer is
 * not its end, it stays armed and keeps its file open for good. */
static void put_cancel(struct io_uring_sqe *request, uint64_t name) {
  request->opcode = IORING_OP_ASYNC_CANCEL;
  request->fd = -1;
  request->addr = name;
  request->flags = IOSQE_CQE_SKIP_SUCCESS;
  request->user_data = ALOOP__RING_SILENT;
}

/* Returns whether all that is owed is in the queue now. */
static ALOOP_NOINLINE bool pay(aloop__ring_t *ring) {
  while (ring->owed_count > 0 && has_room(ring)) put_cancel(next_request(ring), ring->owed[--ring->owed_count]);
  return ring->owed_count == 0;
}

int aloop__ring_enter(aloop__ring_t *ring, bool wait, int64_t timeout) {
  if (ALOOP_UNLIKELY(aloop__ring_is_inherited(ring))) return ALOOP_EEXIST;
  if (ALOOP_UNLIKELY(ring->owed_count > 0) && !pay(ring)) wait = false;
  if (ALOOP_UNLIKELY(!ring->enabled)) {
    int rc = enable(ring);
    if (rc < 0) return rc;
  }
  uint32_t submit = count_queued(ring);
  atomic_store_explicit(ring->sq_tail, ring->tail, memory_order_release);
  int rc;
  if (wait && timeout > 0) {
    struct timespec wanted = aloop__poller_timespec(timeout);
    const int64_t limit[2] = {wanted.tv_sec, wanted.tv_nsec}; /* the kernel's, on every machine */
    struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)limit};
    rc = enter(ring, submit, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof arg);
  } else {
    rc = enter(ring, submit, wait ? 1 : 0, IORING_ENTER_GETEVENTS, NULL, 0);
  }
  if (ALOOP_LIKELY(rc >= 0)) return 0;
  return rc == -ETIME || rc == -EINTR || rc == -EBUSY ? ALOOP_EAGAIN : rc;
}

struct io_uring_sqe *aloop__ring_request(aloop__ring_t *ring) {
  if (ALOOP_UNLIKELY(aloop__ring_is_inherited(ring))) return NULL;
  if (ALOOP_UNLIKELY(!has_room(ring))) {
    aloop__ring_enter(ring, false, 0);
    if (!has_room(ring)) return NULL;
  }
  return next_request(ring);
}

bool aloop__ring_cancel(aloop__ring_t *ring, const aloop_allocator_t *allocator, uint64_t name) {
  struct io_uring_sqe *request = aloop__ring_request(ring);
  if (ALOOP_LIKELY(request != NULL)) {
    put_cancel(request, name);
    return true;
  }
  if (aloop__ring_is_inherited(ring)) return false;
  if (aloop__poller_reserve(allocator, &ring->owed, &ring->owed_room, ring->owed_count + 1, sizeof name) < 0)
    return false;
  ring->owed[ring->owed_count++] = name;
  return true;
}

#else
typedef int aloop__ring_is_not_built; /* ISO C wants a declaration in every file */
#endif
