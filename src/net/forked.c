/* SPDX-License-Identifier: MIT
 *
 * What the child of a fork leaves to its parent: everything that was accepted and not yet sent. The parent goes
 * on sending it, and two who do would send it twice. So aloop_after_fork empties the buffers of the child's
 * transports and endpoints, and a sendfile ends with ALOOP_ECHILD. So does the end of a stream that is
 * due behind such bytes: the child must not shut a direction down in which its parent is sending (the end of a
 * pipe is a close, which is each process's own). A transport that was closing has nothing left to do and ends.
 *
 * To the protocols it looks as if everything had been sent, but in the next turn: resume_writing is a
 * callback like others. If memory is short all of it can be done again: what was emptied is passed over.
 * Operations on the caller's own sockets are in sock.c: a loop that has nothing else has no network.
 */
#include "net/forked.h"

#include "core/loop.h"
#include "net/datagram.h"
#include "net/relay.h"
#include "net/write.h"

static void go_on(aloop_t *loop, void *arg) {
  aloop_transport_t *transport = arg;
  aloop__stream_enter_context(loop, transport);
  aloop__write_check_low(transport);
  aloop__stream_update_reading(transport);
  aloop__stream_drained(transport);
}

/* Operations that hold bytes of their own. */
static void leave_operations(aloop_transport_t *transport) {
  if (transport->driver->forked != NULL) transport->driver->forked(transport);
  if (transport->flags & ALOOP__SENDFILE) aloop__sendfile_forked(transport);
  if (transport->flags & ALOOP__PIPED) aloop__relay_forked(transport);
}

static int leave_stream(aloop_transport_t *transport) {
  aloop_t *loop = transport->object.loop;
  bool sends =
      !aloop__outbox_empty(&transport->outbox) || (transport->flags & (ALOOP__SENDFILE | ALOOP__PIPED)) != 0;
  if (!sends || transport->object.state >= ALOOP__ENDING) return 0;
  bool open = transport->object.state < ALOOP__CLOSING;
  if (open && !aloop__ready_push(loop, go_on, transport)) return ALOOP_ENOMEM;
  leave_operations(transport);
  if ((transport->flags & (ALOOP__EOF_WANTED | ALOOP__NO_READ)) == ALOOP__EOF_WANTED)
    transport->flags |= ALOOP__EOF_SENT;
  if (!open)
    aloop__stream_end(transport, 0);
  else if (transport->object.state < ALOOP__ENDING)
    aloop__outbox_clear(loop, &transport->outbox);
  return 0;
}

static int leave(aloop__object_t *object) {
  if (object->kind->index == ALOOP__TRANSPORT)
    return leave_stream(ALOOP_CONTAINER_OF(object, aloop_transport_t, object));
  if (object->kind->index == ALOOP__DATAGRAM)
    return aloop__dgram_forked(ALOOP_CONTAINER_OF(object, aloop_datagram_t, object));
  return 0;
}

int aloop__forked_leave(aloop_t *loop) {
  return aloop__object_each(loop, leave);
}
