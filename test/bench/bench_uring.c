/* SPDX-License-Identifier: MIT
 *
 * The other limit: io_uring by hand, on raw system calls, for Linux 6.12 and later. One call per turn hands over what
 * the last turn prepared and waits for what comes:
 *
 * - The ring belongs to one thread (SINGLE_ISSUER) and does its work only when asked (DEFER_TASKRUN); its descriptor is
 *   registered, and so are those of the connections, which never get a number in the process (direct descriptors).
 * - One multishot accept, one multishot receive per connection. Bytes land in a few large buffers which many receives
 *   fill piece by piece (IOU_PBUF_RING_INC), so that what is in use stays small and warm in the cache. Receives that
 *   found none wait in line and are asked again few at a time.
 * - Answers are sent from where the bytes came to, as requests that say nothing when all went well
 *   (CQE_SKIP_SUCCESS): a send that takes all of its bytes (MSG_WAITALL) without waiting (MSG_DONTWAIT) is over when
 *   the call that hands it over returns, so its bytes may be overwritten after that. Only a send that fell short
 *   tells; then the rest is copied and sent by a request that may wait, and nothing is read before that is done.
 *   Without this trick each send's completion would end the wait, and a turn would cost two calls.
 * - TCP_NODELAY is inherited from the listening socket.
 *
 * A queue of 32768 requests has room for all of a turn with 10 000 connections.
 */
#include "bench.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const peer_name = "uring";

/* Newer than Debian's headers. */
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif
#define BUFFER_MORE (1U << 4) /* IORING_CQE_F_BUF_MORE: the next piece comes behind this one */
#define BUFFER_PIECES 2       /* IOU_PBUF_RING_INC */

/* ---- The ring -------------------------------------------------------------------------------------------- */

typedef struct ring {
  int fd;
  int index; /* ... as it is registered, if it is */
  bool registered;
  _Atomic uint32_t *sq_head, *sq_tail, *cq_head, *cq_tail;
  uint32_t sq_mask, cq_mask, tail;
  struct io_uring_sqe *sqes;
  struct io_uring_cqe *cqes;
  void *queues;
  size_t queues_size, sqes_size;
} ring_t;

static int enroll(const ring_t *ring, unsigned what, void *arg, unsigned count) {
  return (int)syscall(__NR_io_uring_register, ring->fd, what, arg, count);
}

static void *map(const ring_t *ring, size_t size, off_t what) {
  void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, what);
  if (at == MAP_FAILED) bench_die("mmap");
  return at;
}

static void ring_open(ring_t *ring, uint32_t entries) {
  struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                            IORING_SETUP_SUBMIT_ALL | IORING_SETUP_NO_SQARRAY};
  memset(ring, 0, sizeof *ring);
  ring->fd = (int)syscall(__NR_io_uring_setup, entries, &params);
  if (ring->fd < 0) bench_die("io_uring_setup");
  ring->queues_size = params.cq_off.cqes + params.cq_entries * sizeof *ring->cqes;
  ring->sqes_size = params.sq_entries * sizeof *ring->sqes;
  char *at = ring->queues = map(ring, ring->queues_size, IORING_OFF_SQ_RING);
  ring->sqes = map(ring, ring->sqes_size, IORING_OFF_SQES);
  void *parts[] = {at + params.sq_off.head, at + params.sq_off.tail, at + params.cq_off.head,
                   at + params.cq_off.tail, at + params.cq_off.cqes};
  ring->sq_head = parts[0];
  ring->sq_tail = parts[1];
  ring->cq_head = parts[2];
  ring->cq_tail = parts[3];
  ring->cqes = parts[4];
  ring->sq_mask = params.sq_entries - 1;
  ring->cq_mask = params.cq_entries - 1;
}

/* Only 16 rings of a thread can be. */
static void ring_register(ring_t *ring) {
  struct io_uring_rsrc_update own = {.offset = UINT32_MAX, .data = (__u64)ring->fd};
  if (enroll(ring, IORING_REGISTER_RING_FDS, &own, 1) != 1) bench_die("IORING_REGISTER_RING_FDS");
  ring->index = (int)own.offset;
  ring->registered = true;
}

static void ring_close(ring_t *ring) {
  struct io_uring_rsrc_update own = {.offset = (__u32)ring->index};
  if (ring->registered) enroll(ring, IORING_UNREGISTER_RING_FDS, &own, 1);
  munmap(ring->sqes, ring->sqes_size);
  munmap(ring->queues, ring->queues_size);
  close(ring->fd);
}

/* Hands over what is prepared, and waits until `least` completions are there. */
static void ring_enter(ring_t *ring, unsigned least) {
  uint32_t count = ring->tail - atomic_load_explicit(ring->sq_head, memory_order_relaxed);
  atomic_store_explicit(ring->sq_tail, ring->tail, memory_order_release);
  unsigned flags = IORING_ENTER_GETEVENTS | (ring->registered ? IORING_ENTER_REGISTERED_RING : 0);
  int fd = ring->registered ? ring->index : ring->fd;
  if (syscall(__NR_io_uring_enter, fd, count, least, flags, NULL, 0) < 0 && errno != EINTR)
    bench_die("io_uring_enter");
}

static struct io_uring_sqe *ring_request(ring_t *ring, int operation, uint64_t name) {
  if (ring->tail - atomic_load_explicit(ring->sq_head, memory_order_relaxed) > ring->sq_mask)
    bench_die("more requests than there is room for");
  struct io_uring_sqe *request = &ring->sqes[ring->tail++ & ring->sq_mask];
  memset(request, 0, sizeof *request);
  request->opcode = (uint8_t)operation;
  request->user_data = name;
  return request;
}

/* ---- Buffers for what comes ------------------------------------------------------------------------------ */

/* struct io_uring_buf_reg, whose `flags` are padding in older headers. */
typedef struct group {
  uint64_t ring;
  uint32_t entries;
  uint16_t name, flags;
  uint64_t reserved[3];
} group_t;

typedef struct pool {
  struct io_uring_buf_ring *shared;
  char *bytes;
  uint32_t *at; /* of each buffer: where its next piece begins */
  uint32_t size;
  uint16_t count, tail;
  uint16_t *used, *over; /* full since this turn; since the last one: nothing refers to them any more */
  uint32_t used_count, over_count;
} pool_t;

static void pool_give(pool_t *pool, uint16_t id) {
  struct io_uring_buf *buffer = &pool->shared->bufs[pool->tail++ & (pool->count - 1)];
  pool->at[id] = 0;
  buffer->addr = (uintptr_t)(pool->bytes + (size_t)id * pool->size);
  buffer->len = pool->size;
  buffer->bid = id;
}

static void pool_publish(pool_t *pool) {
  atomic_store_explicit((_Atomic uint16_t *)&pool->shared->tail, pool->tail, memory_order_release);
}

/* `count` is a power of two. */
static void pool_open(pool_t *pool, const ring_t *ring, uint16_t count, uint32_t size, bool in_pieces) {
  size_t ring_bytes = count * sizeof(struct io_uring_buf), bytes = (size_t)count * size;
  char *at = mmap(NULL, ring_bytes + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) bench_die("mmap");
  *pool = (pool_t){.shared = (void *)at, .bytes = at + ring_bytes, .count = count, .size = size};
  pool->at = bench_alloc(count * sizeof *pool->at);
  pool->used = bench_alloc(count * sizeof *pool->used);
  pool->over = bench_alloc(count * sizeof *pool->over);
  group_t group = {.ring = (uintptr_t)at, .entries = count, .flags = in_pieces ? BUFFER_PIECES : 0};
  if (enroll(ring, IORING_REGISTER_PBUF_RING, &group, 1) != 0) bench_die("IORING_REGISTER_PBUF_RING");
  for (uint16_t i = 0; i < count; i++) pool_give(pool, i);
  pool_publish(pool);
}

/* The bytes of a completion; they stay until the next turn is over. */
static char *pool_take(pool_t *pool, const struct io_uring_cqe *done) {
  uint16_t id = (uint16_t)(done->flags >> IORING_CQE_BUFFER_SHIFT);
  char *bytes = pool->bytes + (size_t)id * pool->size + pool->at[id];
  pool->at[id] += (uint32_t)done->res;
  if ((done->flags & BUFFER_MORE) == 0) pool->used[pool->used_count++] = id;
  return bytes;
}

/* At the end of a turn. */
static void pool_turn(pool_t *pool) {
  for (uint32_t i = 0; i < pool->over_count; i++) pool_give(pool, pool->over[i]);
  if (pool->over_count > 0) pool_publish(pool);
  uint16_t *over = pool->used;
  pool->used = pool->over;
  pool->over_count = pool->used_count;
  pool->over = over;
  pool->used_count = 0;
}

/* ---- The loop -------------------------------------------------------------------------------------------- */

void *peer_loop_new(void) {
  ring_t *ring = bench_alloc(sizeof *ring);
  ring_open(ring, 256);
  return ring;
}

void peer_loop_turn(void *ring) {
  ring_enter(ring, 0);
}

void peer_loop_free(void *ring) {
  ring_close(ring);
  free(ring);
}

/* ---- A server -------------------------------------------------------------------------------------------- */

enum { REQUESTS = 32768, DESCRIPTORS = 16384, BUFFERS = 8, BUFFER = 65536 };

/* What a completion is about; the number of the connection stands above it. */
enum { ACCEPT, RECEIVE, SEND, SILENT, KIND_BITS = 8 };

typedef struct connection {
  struct io_uring_sqe *request; /* of the turn `sent_in`: its send, not handed over yet */
  uint32_t sent_in;
  bool receiving, sending, ended; /* sending: by a request that will tell */
  const char *data;               /* of the last send */
  size_t size;
  char *out, *more; /* rests: on their way; behind them */
  size_t more_size;
} connection_t;

static ring_t ring;
static pool_t pool;
static connection_t *connections[DESCRIPTORS];
static uint32_t turn = 1;
static void (*on_data)(uint32_t number, char *data, size_t size);
static uint32_t starved[DESCRIPTORS], starved_head, starved_tail; /* each connection at most once */

static uint64_t name_of(uint32_t number, int kind) {
  return (uint64_t)number << KIND_BITS | (uint64_t)kind;
}

static struct io_uring_sqe *request_on(uint32_t number, int operation, int kind) {
  struct io_uring_sqe *request = ring_request(&ring, operation, name_of(number, kind));
  request->fd = (int)number;
  request->flags = IOSQE_FIXED_FILE;
  return request;
}

static void receive(uint32_t number) {
  struct io_uring_sqe *request = request_on(number, IORING_OP_RECV, RECEIVE);
  request->flags |= IOSQE_BUFFER_SELECT;
  request->ioprio = IORING_RECV_MULTISHOT;
  connections[number]->receiving = true;
}

/* At the end of a turn. */
static void receive_starved(void) {
  for (int i = 0; i < 4 * BUFFERS && starved_head != starved_tail; i++)
    receive(starved[starved_head++ % DESCRIPTORS]);
}

static void receive_no_more(uint32_t number) {
  struct io_uring_sqe *request = ring_request(&ring, IORING_OP_ASYNC_CANCEL, SILENT);
  request->flags = IOSQE_CQE_SKIP_SUCCESS;
  request->addr = name_of(number, RECEIVE);
}

static struct io_uring_sqe *send_bytes(uint32_t number, const char *data, size_t size, uint32_t flags) {
  connection_t *connection = connections[number];
  struct io_uring_sqe *request = request_on(number, IORING_OP_SEND, SEND);
  request->addr = (uintptr_t)data;
  request->len = (uint32_t)size;
  request->msg_flags = MSG_NOSIGNAL | MSG_WAITALL | flags;
  connection->data = data;
  connection->size = size;
  return request;
}

/* Closed when no request refers to it any more. */
static void close_when_over(uint32_t number) {
  connection_t *connection = connections[number];
  if (!connection->ended || connection->receiving || connection->sending) return;
  struct io_uring_sqe *request = ring_request(&ring, IORING_OP_CLOSE, SILENT);
  request->file_index = number + 1;
  request->flags = IOSQE_CQE_SKIP_SUCCESS;
  free(connection->out);
  free(connection->more);
  free(connection);
  connections[number] = NULL;
}

/* Behind what is being sent; too much of it stops the receiving. */
static void keep(uint32_t number, const char *data, size_t size) {
  connection_t *connection = connections[number];
  char *more = realloc(connection->more, connection->more_size + size);
  if (more == NULL) bench_die("realloc");
  memcpy(more + connection->more_size, data, size);
  if (connection->more_size < BENCH_BUFFER && connection->more_size + size >= BENCH_BUFFER)
    receive_no_more(number);
  connection->more = more;
  connection->more_size += size;
}

static void echo(uint32_t number, char *data, size_t size) {
  connection_t *connection = connections[number];
  if (connection->sending) {
    keep(number, data, size);
  } else if (connection->sent_in != turn) {
    connection->request = send_bytes(number, data, size, MSG_DONTWAIT);
    connection->request->flags |= IOSQE_CQE_SKIP_SUCCESS;
    connection->sent_in = turn;
  } else if (connection->data + connection->size == data) {
    connection->size += size;
    connection->request->len += (uint32_t)size;
  } else { /* the second of this turn: sent when the first tells */
    connection->request->flags &= (uint8_t)~IOSQE_CQE_SKIP_SUCCESS;
    connection->sending = true;
    keep(number, data, size);
  }
}

/* Puts what a send left over before what waits behind it, and sends that. */
static void sent(uint32_t number, int32_t result) {
  connection_t *connection = connections[number];
  connection->sending = false;
  if (result < 0 && result != -EAGAIN) connection->ended = true;
  size_t left = connection->size - (result > 0 ? (size_t)result : 0);
  if (!connection->ended && left + connection->more_size > 0) {
    char *out = bench_alloc(left + connection->more_size);
    memcpy(out, connection->data + connection->size - left, left);
    if (connection->more_size > 0) memcpy(out + left, connection->more, connection->more_size);
    send_bytes(number, out, left + connection->more_size, 0);
    connection->sending = true;
    free(connection->out);
    free(connection->more);
    connection->out = out;
    connection->more = NULL;
    connection->more_size = 0;
    return;
  }
  free(connection->out);
  connection->out = NULL;
  if (connection->ended && connection->receiving) receive_no_more(number);
  if (!connection->ended && !connection->receiving) receive(number);
}

static void received(uint32_t number, const struct io_uring_cqe *done) {
  connection_t *connection = connections[number];
  if (done->res > 0) on_data(number, pool_take(&pool, done), (size_t)done->res);
  if (done->flags & IORING_CQE_F_MORE) return;
  if (done->res == -ENOBUFS && !connection->sending) {
    starved[starved_tail++ % DESCRIPTORS] = number; /* and counts as receiving */
    return;
  }
  connection->receiving = false;
  if (done->res == 0 || (done->res < 0 && done->res != -ENOBUFS && done->res != -ECANCELED))
    connection->ended = true;
  if (!connection->ended && !connection->sending) receive(number);
}

static void start_accepting(int listener) {
  struct io_uring_sqe *request = ring_request(&ring, IORING_OP_ACCEPT, name_of(0, ACCEPT));
  request->fd = listener;
  request->ioprio = IORING_ACCEPT_MULTISHOT;
  request->file_index = IORING_FILE_INDEX_ALLOC;
}

static void (*on_connection)(uint32_t number);

static void accepted(const struct io_uring_cqe *done) {
  if (done->res < 0 || (done->flags & IORING_CQE_F_MORE) == 0) bench_die("accept");
  uint32_t number = (uint32_t)done->res;
  connections[number] = bench_alloc(sizeof *connections[number]);
  on_connection(number);
}

static void completed(const struct io_uring_cqe *done) {
  uint32_t number = (uint32_t)(done->user_data >> KIND_BITS);
  switch (done->user_data & ((1 << KIND_BITS) - 1)) {
  case ACCEPT:
    accepted(done);
    break;
  case RECEIVE:
    received(number, done);
    close_when_over(number);
    break;
  case SEND:
    sent(number, done->res);
    close_when_over(number);
    break;
  default: /* a cancel that came too late */
    break;
  }
}

static void take_completions(ring_t *from, void (*take)(const struct io_uring_cqe *)) {
  uint32_t head = atomic_load_explicit(from->cq_head, memory_order_relaxed);
  uint32_t tail = atomic_load_explicit(from->cq_tail, memory_order_acquire);
  for (; head != tail; head++) take(&from->cqes[head & from->cq_mask]);
  atomic_store_explicit(from->cq_head, head, memory_order_release);
}

static void serve(void (*start)(uint32_t number), void (*data)(uint32_t number, char *data, size_t size)) {
  struct io_uring_rsrc_register files = {.nr = DESCRIPTORS, .flags = IORING_RSRC_REGISTER_SPARSE};
  int listener = bench_listen();
  ring_open(&ring, REQUESTS);
  ring_register(&ring);
  pool_open(&pool, &ring, BUFFERS, BUFFER, true);
  if (enroll(&ring, IORING_REGISTER_FILES2, &files, sizeof files) != 0) bench_die("IORING_REGISTER_FILES2");
  on_connection = start;
  on_data = data;
  start_accepting(listener);
  bench_listening(listener);
  for (;; turn++) {
    ring_enter(&ring, 1);
    take_completions(&ring, completed);
    pool_turn(&pool);
    receive_starved();
  }
}

void peer_serve(bool for_memory) {
  (void)for_memory;
  serve(receive, echo);
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static void forget(uint32_t number, char *data, size_t size) {
  (void)number, (void)data, (void)size;
}

void peer_serve_sink(void) {
  serve(receive, forget);
}

/* ---- Datagrams: the answers of a turn are handed over by the next ---------------------------------------- */

enum { DATAGRAMS = 256, DATAGRAM = 2048 };

typedef struct inbox {
  ring_t ring;
  pool_t pool;
  struct msghdr format;
  int fd;
  uint32_t unsent;
  long echoed;
} inbox_t;

static inbox_t *inbox;

static void receive_datagrams(void) {
  struct io_uring_sqe *request = ring_request(&inbox->ring, IORING_OP_RECVMSG, RECEIVE);
  request->fd = inbox->fd;
  request->addr = (uintptr_t)&inbox->format;
  request->flags = IOSQE_BUFFER_SELECT;
  request->ioprio = IORING_RECV_MULTISHOT;
}

static void open_inbox(void) {
  inbox = bench_alloc(sizeof *inbox);
  inbox->fd = bench_datagram_socket();
  inbox->format.msg_namelen = sizeof(struct sockaddr_in);
  ring_open(&inbox->ring, 2 * DATAGRAMS);
  ring_register(&inbox->ring);
  pool_open(&inbox->pool, &inbox->ring, DATAGRAMS, DATAGRAM, false);
  receive_datagrams();
}

/* A header, the sender's address, the bytes. */
static void echo_datagram(const struct io_uring_cqe *done) {
  if (done->user_data != RECEIVE || (done->res < 0 && done->res != -ENOBUFS)) bench_die("datagram");
  if ((done->flags & IORING_CQE_F_MORE) == 0) receive_datagrams();
  if (done->res < 0) return;
  struct io_uring_recvmsg_out *header = (void *)pool_take(&inbox->pool, done);
  char *from = (char *)(header + 1);
  struct io_uring_sqe *request = ring_request(&inbox->ring, IORING_OP_SEND, SEND);
  request->fd = inbox->fd;
  request->flags = IOSQE_CQE_SKIP_SUCCESS;
  request->msg_flags = MSG_DONTWAIT;
  request->addr = (uintptr_t)(from + sizeof(struct sockaddr_in));
  request->len = header->payloadlen;
  request->addr2 = (uintptr_t)from;
  request->addr_len = sizeof(struct sockaddr_in);
  inbox->unsent++;
}

static void turn_of_datagrams(void *arg) {
  (void)arg;
  inbox->echoed += inbox->unsent;
  inbox->unsent = 0;
  ring_enter(&inbox->ring, 0);
  take_completions(&inbox->ring, echo_datagram);
  pool_turn(&inbox->pool);
}

int64_t peer_datagrams(long size, long depth, long count) {
  open_inbox();
  struct sockaddr_in address;
  socklen_t address_size = sizeof address;
  getsockname(inbox->fd, (struct sockaddr *)&address, &address_size);
  int64_t took =
      bench_datagrams(ntohs(address.sin_port), size, depth, count, turn_of_datagrams, NULL, &inbox->echoed);
  ring_close(&inbox->ring);
  close(inbox->fd);
  free(inbox);
  return took;
}

static void count_datagram(const struct io_uring_cqe *done) {
  if ((done->flags & IORING_CQE_F_MORE) == 0) receive_datagrams();
  if (done->res < 0) return;
  pool_take(&inbox->pool, done);
  bench_received++;
}

void peer_receive(void) {
  open_inbox();
  bench_listening(inbox->fd);
  for (;;) {
    ring_enter(&inbox->ring, 1);
    take_completions(&inbox->ring, count_datagram);
    pool_turn(&inbox->pool);
  }
}
