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
#include "net/splice.h"

static void close_net(aloop_t *loop, aloop__room_t *room) {
  aloop__net_t *net = (aloop__net_t *)(void *)room;
  if (net->spare_fd >= 0) close(net->spare_fd);
  aloop__splice_close(loop, net->pipes);
  aloop__dgrams_close(loop, net->dgrams);
  aloop__memory_release(loop, net->read_buffer);
  aloop__memory_release(loop, net->cork_buffer);
  aloop__memory_release(loop, net->packet_buffer);
  aloop__memory_release(loop, net);
}

aloop__net_t *aloop__net_open(aloop_t *loop) {
  if (loop->rooms[ALOOP__ROOM_NET] != NULL) return aloop__net_of(loop);
  aloop__net_t *net = aloop__memory_zero(loop, sizeof *net);
  char *read_buffer = aloop__memory_new(loop, ALOOP__READ_SIZE);
  char *cork_buffer = aloop__memory_new(loop, ALOOP__CORK_SIZE);
  if (net == NULL || read_buffer == NULL || cork_buffer == NULL) {
    aloop__memory_release(loop, cork_buffer);
    aloop__memory_release(loop, read_buffer);
    aloop__memory_release(loop, net);
    return NULL;
  }
  net->room.close = close_net;
  net->driver = &aloop__driver_readiness;
  net->spare_fd = -1;
  net->read_buffer = read_buffer;
  net->cork_buffer = cork_buffer;
  loop->rooms[ALOOP__ROOM_NET] = &net->room;
  return net;
}
