/* SPDX-License-Identifier: MIT
 *
 * What the network keeps per loop: the I/O driver, the buffer that every connection reads into, the cork, the
 * spare descriptor and the pipes of relays. Made when the first transport or server is, because
 * many loops never have one; released by aloop_close after every transport has ended.
 *
 * Two buffers of fixed size serve all connections of the loop, which is why an idle connection holds none.
 */
#include <unistd.h>

#include "core/memory.h"
#include "net/datagram.h"
#include "net/driver.h"
#include "net/completion.h"
#include "net/forked.h"
#include "net/splice.h"
#include "net/spread.h"
#include "net/write.h"
#include "poller/poller.h"

enum { PAGE = 4096 }; /* where the read buffer begins: copies to odd addresses take a twentieth more time */

static void turn_over(aloop_t *loop, aloop__room_t *room) {
  (void)room;
  aloop__row_end(loop);
}

static int after_fork(aloop_t *loop, aloop__room_t *room) {
  (void)room;
  aloop__row_forget(loop);
  return aloop__forked_leave(loop);
}

static void forked(aloop_t *loop, aloop__room_t *room) {
  aloop__net_t *net = (aloop__net_t *)(void *)room;
  (void)loop;
  aloop__cork_empty(&net->cork);
  aloop__dgrams_forget(net->dgrams);
}

static void close_net(aloop_t *loop, aloop__room_t *room) {
  aloop__net_t *net = (aloop__net_t *)(void *)room;
  if (net->spare_fd >= 0) close(net->spare_fd);
  aloop__splice_close(loop, net->pipes);
  aloop__dgrams_close(loop, net->dgrams);
#ifdef ALOOP_HAVE_IO_URING
  if (net->completion != NULL) aloop__completion_close(loop, net->completion);
#endif
  aloop__stream_close_spares(loop, net);
  aloop__memory_release(loop, net->read_memory);
  aloop__memory_release(loop, net->cork_buffer);
  aloop__memory_release(loop, net->packet_buffer);
  aloop__memory_release(loop, net);
}

/* The driver that the loop's poller goes with. */
static int choose_driver(aloop_t *loop, aloop__net_t *net) {
  net->driver = &aloop__driver_readiness;
#ifdef ALOOP_HAVE_IO_URING
  if (loop->poller != &aloop__poller_uring) return 0;
  int rc = aloop__completion_open(loop, &net->completion);
  if (rc == 0) net->driver = &aloop__driver_completion;
  return rc == ALOOP_ENOTSUP ? 0 : rc;
#else
  (void)loop;
  return 0;
#endif
}

aloop__net_t *aloop__net_make(aloop_t *loop) {
  aloop__net_t *net = aloop__memory_zero(loop, sizeof *net);
  char *read_memory = aloop__memory_new(loop, ALOOP__READ_SIZE + PAGE);
  char *cork_buffer = aloop__memory_new(loop, ALOOP__CORK_SIZE);
  if (net == NULL || read_memory == NULL || cork_buffer == NULL || choose_driver(loop, net) < 0) {
    aloop__memory_release(loop, cork_buffer);
    aloop__memory_release(loop, read_memory);
    aloop__memory_release(loop, net);
    return NULL;
  }
  net->room.close = close_net;
  net->room.woken = aloop__spread_woken;
  net->room.turn_over = turn_over;
  net->room.after_fork = after_fork;
  net->room.forked = forked;
  aloop__list_init(&net->spreads);
  net->spare_fd = -1;
  net->read_memory = read_memory;
  net->read_buffer = read_memory + (PAGE - (uintptr_t)read_memory % PAGE);
  net->cork_buffer = cork_buffer;
  loop->rooms[ALOOP__ROOM_NET] = &net->room;
  return net;
}
