/* SPDX-License-Identifier: MIT
 *
 * Datagrams of the completion driver. One multishot receive per endpoint stays in the kernel; each completion
 * names a buffer in which the kernel has put what recvmsg tells of a datagram: its sender, its control
 * messages, its bytes. A datagram costs no system call then, and no request.
 *
 * Completions of one endpoint that follow each other are delivered together, as what one recvmmsg brings is, so
 * that answers leave together and batches are batches. Sends are system calls, as everywhere: as requests they
 * took 7 to 15 percent more CPU time (an echo of 64 bytes, 64 and 1 at a time).
 *
 * The buffers are the endpoints' own, because a datagram may have 64 KiB, and no more than one call of recvmmsg
 * fills elsewhere: 4 as long as that does, 32 at most. When all are in use the kernel ends the receive. Then a
 * batch or two are received from the socket as the readiness driver does it, and the receive is asked for
 * again. (Without that, ten thousand endpoints with a datagram each asked 52 times for each: 32 us of CPU time
 * instead of 2.) Unix datagrams, which have no largest size, are received through the poller.
 *
 * There is no pause. A request keeps its socket open, so a cancel is handed over at once: when the endpoint is
 * closed its port is free.
 */
#ifdef ALOOP_HAVE_IO_URING

#include <errno.h>
#include <string.h>

#include "core/memory.h"
#include "net/completion.h"
#include "net/datagram.h"
#include "net/readiness.h"

enum {
  NAME_ROOM = 32, /* of any address of the internet */
  HEAD = (int)(sizeof(struct io_uring_recvmsg_out) + NAME_ROOM + sizeof(aloop__control_t))
};

struct aloop__completion_dgrams {
  aloop__completion_buffers_t buffers;
  struct msghdr plain, controls; /* how receives are asked for */
  bool delivering;               /* what is kept, soon */
  unsigned kept_count;
  aloop__ring_done_t kept[ALOOP__DGRAM_BATCH]; /* came when the ring was left */
};

typedef struct aloop__completion_dgrams state_t;

static int open_state(aloop_t *loop, state_t **out) {
  static const aloop__completion_shape_t shape = {
      .group = 1, .count = ALOOP__DGRAM_BATCH, .least = 4, .weight = 32, .size = HEAD + 65536};
  state_t *state = aloop__memory_zero(loop, sizeof *state);
  if (state == NULL) return ALOOP_ENOMEM;
  state->plain.msg_namelen = state->controls.msg_namelen = NAME_ROOM;
  state->controls.msg_controllen = sizeof(aloop__control_t);
  int rc = aloop__completion_buffers_open(&state->buffers, &shape, aloop__completion_of(loop));
  if (rc < 0)
    aloop__memory_release(loop, state);
  else
    *out = state;
  return rc;
}

void aloop__completion_datagrams_close(aloop_t *loop, state_t *state) {
  if (state == NULL) return;
  aloop__completion_buffers_close(&state->buffers);
  aloop__memory_release(loop, state);
}

/* ---- Asking ---------------------------------------------------------------------------------------------- */

static uint64_t name_of(const aloop_datagram_t *endpoint) {
  return aloop__completion_name(ALOOP__COMPLETION_DATAGRAM, 0, &endpoint->watch);
}

static int ask(aloop_t *loop, aloop_datagram_t *endpoint) {
  const state_t *state = aloop__completion_net(loop)->dgrams;
  struct io_uring_sqe *request = aloop__ring_request(aloop__completion_of(loop));
  if (request == NULL) return aloop__completion_refused(loop);
  bool controls = aloop__dgram_wants_controls(endpoint);
  request->opcode = IORING_OP_RECVMSG;
  request->fd = endpoint->fd;
  request->addr = (uint64_t)(uintptr_t)(controls ? &state->controls : &state->plain);
  request->len = 1;
  request->ioprio = IORING_RECV_MULTISHOT;
  request->flags = IOSQE_BUFFER_SELECT;
  request->buf_group = state->buffers.shape.group;
  request->user_data = name_of(endpoint);
  endpoint->flags |= ALOOP__DGRAM_ASKED;
  return 0;
}

int aloop__completion_receive(aloop_datagram_t *endpoint, bool on) {
  aloop_t *loop = endpoint->object.loop;
  aloop__completion_net_t *net = aloop__completion_net(loop);
  bool asked = (endpoint->flags & ALOOP__DGRAM_ASKED) != 0;
  if (on) {
    int rc = net->dgrams == NULL ? open_state(loop, &net->dgrams) : 0;
    return rc < 0 || asked ? rc : ask(loop, endpoint);
  }
  if (!asked) return 0;
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_ASKED;
  aloop__completion_cancel(loop, name_of(endpoint));
  aloop__ring_hand_over(aloop__completion_of(loop));
  return 0;
}

/* ---- Receiving ------------------------------------------------------------------------------------------- */

static aloop_datagram_t *endpoint_of(const aloop_t *loop, const aloop__ring_done_t *completion) {
  aloop__watch_t *watch = aloop__completion_watch(loop, completion->name);
  return watch != NULL ? aloop__datagram_of(watch) : NULL;
}

/* As if recvmmsg had brought it. */
static void fill_in(const aloop_datagram_t *endpoint, aloop__dgrams_t *dgrams, int i, char *buffer) {
  const struct io_uring_recvmsg_out *out = (const struct io_uring_recvmsg_out *)(void *)buffer;
  struct msghdr *header = &dgrams->in[i].msg_hdr;
  size_t controls = aloop__dgram_wants_controls(endpoint) ? sizeof(aloop__control_t) : 0;
  char *name = buffer + sizeof *out;
  header->msg_name = name;
  header->msg_namelen = out->namelen < NAME_ROOM ? out->namelen : NAME_ROOM;
  header->msg_control = name + NAME_ROOM;
  header->msg_controllen = out->controllen;
  header->msg_flags = (int)out->flags;
  dgrams->in_parts[i] = (struct iovec){.iov_base = name + NAME_ROOM + controls, .iov_len = out->payloadlen};
  dgrams->in[i].msg_len = out->payloadlen;
}

/* The receive was cancelled, or there was no buffer. */
static bool is_nothing(int error) {
  return error == -ENOBUFS || error == -ECANCELED || aloop__readiness_is_retry(-error);
}

static char *buffer_of(const state_t *state, const aloop__ring_done_t *completion) {
  return state->buffers.memory + (size_t)aloop__completion_index(completion->flags) * state->buffers.stride;
}

static void deliver(aloop_datagram_t *endpoint, state_t *state, const aloop__ring_done_t *batch,
                    unsigned count) {
  aloop_t *loop = endpoint->object.loop;
  aloop__dgrams_t *dgrams = aloop__dgrams_of(loop);
  int filled = 0, error = 0;
  bool lacked = false;
  dgrams->in_count = 0; /* its headers point elsewhere from now on */
  for (unsigned i = 0; i < count; i++) {
    if (batch[i].flags & IORING_CQE_F_BUFFER)
      fill_in(endpoint, dgrams, filled++, buffer_of(state, &batch[i]));
    else
      error = batch[i].result;
    lacked |= batch[i].result == -ENOBUFS;
    if ((batch[i].flags & IORING_CQE_F_MORE) == 0) endpoint->flags &= (uint16_t)~ALOOP__DGRAM_ASKED;
  }
  if (ALOOP_UNLIKELY(lacked)) aloop__completion_buffers_short(&state->buffers);
  if (endpoint->state != ALOOP__OPEN) return;
  aloop__datagram_enter_context(loop, endpoint);
  size_t size = (size_t)state->buffers.shape.count * state->buffers.stride;
  if (filled > 0) aloop__dgram_deliver(endpoint, filled, state->buffers.memory, size);
  if (error < 0 && !is_nothing(error)) aloop__dgram_failed(endpoint, error);
  if (ALOOP_UNLIKELY(lacked) && endpoint->state == ALOOP__OPEN) aloop__dgram_receive_some(endpoint);
  if (endpoint->state != ALOOP__OPEN) return;
  int rc = aloop__completion_receive(endpoint, true);
  if (rc < 0) aloop__datagram_end(endpoint, rc);
}

/* Whether that is all there is, and nothing about it is special. */
static inline bool is_lone(const aloop_datagram_t *endpoint, const aloop__ring_done_t *batch, unsigned count) {
  enum { USUAL = IORING_CQE_F_BUFFER | IORING_CQE_F_MORE };
  return count == 1 && (batch->flags & USUAL) == USUAL && endpoint->state == ALOOP__OPEN &&
         !aloop__dgram_wants_controls(endpoint);
}

static void deliver_alone(aloop_datagram_t *endpoint, const state_t *state, char *buffer) {
  const struct io_uring_recvmsg_out *out = (const struct io_uring_recvmsg_out *)(void *)buffer;
  char *name = buffer + sizeof *out;
  size_t size = (size_t)state->buffers.shape.count * state->buffers.stride;
  aloop_message_t message = {.data = name + NAME_ROOM,
                             .size = out->payloadlen,
                             .address = out->namelen > 0 ? (struct sockaddr *)(void *)name : NULL,
                             .address_size = out->namelen < NAME_ROOM ? out->namelen : NAME_ROOM};
  aloop__datagram_enter_context(endpoint->object.loop, endpoint);
  aloop__dgram_deliver_one(endpoint, &message, state->buffers.memory, size);
}

/* Of completions whose buffers were taken. */
static void received(aloop_t *loop, const aloop__ring_done_t *batch, unsigned count) {
  state_t *state = aloop__completion_net(loop)->dgrams;
  aloop_datagram_t *endpoint = endpoint_of(loop, batch);
  if (ALOOP_LIKELY(endpoint != NULL) && ALOOP_LIKELY(is_lone(endpoint, batch, count)))
    deliver_alone(endpoint, state, buffer_of(state, batch));
  else if (endpoint != NULL)
    deliver(endpoint, state, batch, count);
  for (unsigned i = 0; i < count; i++)
    if (batch[i].flags & IORING_CQE_F_BUFFER) aloop__completion_give_back(&state->buffers, batch[i].flags);
}

void aloop__completion_datagram(aloop_t *loop, const aloop__ring_done_t *completion, uint32_t index) {
  aloop__completion_buffers_t *buffers = &aloop__completion_net(loop)->dgrams->buffers;
  aloop__ring_done_t batch[ALOOP__DGRAM_BATCH];
  unsigned count = 1;
  batch[0] = *completion;
  while (count < ALOOP__DGRAM_BATCH &&
         aloop__uring_take_same(loop->poller_state, index + count, completion->name, &batch[count]))
    count++;
  for (unsigned i = 0; i < count; i++)
    if (batch[i].flags & IORING_CQE_F_BUFFER) aloop__completion_take(buffers, &batch[i], loop->polls);
  received(loop, batch, count);
}

/* ---- Another ring ---------------------------------------------------------------------------------------- */

static void deliver_kept(aloop_t *loop, void *arg) {
  state_t *state = arg;
  aloop__ring_done_t kept[ALOOP__DGRAM_BATCH];
  unsigned count = state->kept_count;
  memcpy(kept, state->kept, count * sizeof kept[0]);
  state->kept_count = 0;
  state->delivering = false;
  for (unsigned i = 0; i < count; i++) received(loop, &kept[i], 1);
}

void aloop__completion_datagram_keep(aloop_t *loop, const aloop__ring_done_t *completion) {
  state_t *state = aloop__completion_net(loop)->dgrams;
  if ((completion->flags & IORING_CQE_F_BUFFER) == 0) return; /* all are asked for anew */
  if (!state->delivering) state->delivering = aloop__ready_push(loop, deliver_kept, state);
  if (!state->delivering) return; /* without memory a datagram is lost */
  aloop__completion_take(&state->buffers, completion, loop->polls);
  state->kept[state->kept_count] = *completion;
  state->kept[state->kept_count++].flags |= IORING_CQE_F_MORE; /* it says nothing of the next receive */
}

int aloop__completion_datagrams_move(aloop_t *loop) {
  state_t *state = aloop__completion_net(loop)->dgrams;
  return state != NULL ? aloop__completion_buffers_move(&state->buffers, aloop__completion_of(loop)) : 0;
}

int aloop__completion_receive_again(aloop_datagram_t *endpoint) {
  if ((endpoint->flags & ALOOP__DGRAM_LOCAL) || endpoint->state != ALOOP__OPEN) return 0;
  endpoint->flags &= (uint16_t)~ALOOP__DGRAM_ASKED;
  return aloop__completion_receive(endpoint, true);
}

#else
typedef int aloop__completion_datagrams_are_not_built; /* ISO C wants a declaration in every file */
#endif
