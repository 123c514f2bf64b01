/* SPDX-License-Identifier: MIT
 *
 * One job's way to a worker process and back. A request is a header with the address of the function, which is
 * the same in both processes because one was forked from the other, and the bytes to work on. The answer is a
 * header with the result, and the bytes of the reply. One at a time; neither side speaks out of turn.
 *
 * The worker reads and writes in blocking calls: when the program goes away it gets EOF. The program's side
 * also watches the leash (nursery.h), because a worker may die while a process that it started holds its
 * socket open. What is in the socket counts before what the leash says: a worker that dies after its answer
 * has done its job.
 *
 * The bytes are copied through the socket. That is one copy more than shared memory would need, and nothing to
 * tidy up after a crash.
 */
#include "executor/worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/descriptors.h"
#include "core/report.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum { REPLY_FIRST = 256 };

/* A worker that runs wild may write anything; what does not begin with this is no answer. */
#define ANSWER_MARK UINT64_C(0xa100ba5eb411a5f0)

typedef struct request {
  aloop_process_fn fn;
  uint64_t size; /* of the bytes that follow */
} request_t;

typedef struct answer {
  uint64_t mark;
  int64_t result;
  uint64_t size;
} answer_t;

struct aloop_reply {
  char *data;
  size_t size;
  size_t capacity;
};

/* A header and the bytes that follow it, on their way out. */
typedef struct parcel {
  struct iovec parts[2];
} parcel_t;

static parcel_t parcel_of(const void *header, size_t header_size, const void *data, size_t size) {
  return (parcel_t){{{(void *)(uintptr_t)header, header_size}, {(void *)(uintptr_t)data, size}}};
}

static bool is_sent(const parcel_t *parcel) {
  return parcel->parts[0].iov_len == 0 && parcel->parts[1].iov_len == 0;
}

/* Sends some of it. Returns 0, or -1 with errno. */
static int send_some(int fd, parcel_t *parcel, int flags) {
  struct msghdr message;
  memset(&message, 0, sizeof message);
  message.msg_iov = parcel->parts;
  message.msg_iovlen = 2;
  ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL | flags);
  if (n < 0) return -1;
  size_t left = (size_t)n;
  for (int i = 0; i < 2 && left > 0; i++) {
    struct iovec *part = &parcel->parts[i];
    size_t moved = left < part->iov_len ? left : part->iov_len;
    if (moved > 0) part->iov_base = (char *)part->iov_base + moved;
    part->iov_len -= moved;
    left -= moved;
  }
  return 0;
}

/* ---- The worker ------------------------------------------------------------------------------------------ */

int aloop_reply_add(aloop_reply_t *reply, const void *data, size_t size) {
  if (reply == NULL || (data == NULL && size > 0))
    return aloop__misuse(NULL, ALOOP_EINVAL, "bytes are added to the reply that the job was given");
  if (size > SIZE_MAX / 2 - reply->size) return ALOOP_ENOMEM;
  size_t needed = reply->size + size, capacity = reply->capacity;
  if (needed > capacity) {
    capacity = capacity * 2 > needed ? capacity * 2 : needed;
    if (capacity < REPLY_FIRST) capacity = REPLY_FIRST;
    char *grown = realloc(reply->data, capacity);
    if (grown == NULL) return ALOOP_ENOMEM;
    reply->data = grown;
    reply->capacity = capacity;
  }
  if (size > 0) memcpy(reply->data + reply->size, data, size);
  reply->size = needed;
  return 0;
}

static bool skip(int fd, uint64_t size) {
  char scratch[4096];
  for (uint64_t left = size; left > 0;) {
    size_t part = left < sizeof scratch ? (size_t)left : sizeof scratch;
    if (!aloop__descriptors_receive(fd, scratch, part)) return false;
    left -= part;
  }
  return true;
}

static bool answer_with(int fd, int64_t result, const aloop_reply_t *reply) {
  answer_t answer = {ANSWER_MARK, result, reply->size};
  parcel_t parcel = parcel_of(&answer, sizeof answer, reply->data, reply->size);
  while (!is_sent(&parcel))
    if (send_some(fd, &parcel, 0) < 0 && !aloop__descriptors_again(fd, POLLOUT)) return false;
  return true;
}

/* Takes the bytes and does the job. False: there is nobody to work for any more. */
static bool do_job(int fd, const request_t *request) {
  aloop_reply_t reply = {NULL, 0, 0};
  char *data = request->size < SIZE_MAX ? malloc((size_t)request->size + 1) : NULL;
  if (data == NULL) return skip(fd, request->size) && answer_with(fd, ALOOP_ENOMEM, &reply);
  if (!aloop__descriptors_receive(fd, data, (size_t)request->size)) {
    free(data);
    return false;
  }
  data[request->size] = '\0';
  int64_t result = request->fn(data, (size_t)request->size, &reply);
  free(data);
  bool sent = answer_with(fd, result, &reply);
  free(reply.data);
  return sent;
}

void aloop__worker_serve(int socket, void *arg) {
  const aloop__worker_setup_t *setup = arg;
  request_t request;
  if (setup->initializer != NULL) setup->initializer(setup->initializer_arg);
  while (aloop__descriptors_receive(socket, &request, sizeof request) && do_job(socket, &request)) continue;
}

/* ---- The program ----------------------------------------------------------------------------------------- */

/* Waits until the socket is ready. Returns whether the worker is dead. */
static bool wait_for(const aloop__worker_t *worker, short events) {
  struct pollfd entries[] = {{.fd = worker->socket, .events = events}, {.fd = worker->leash, .events = POLLIN}};
  poll(entries, 2, -1);
  return entries[1].revents != 0;
}

static int send_parcel(const aloop__worker_t *worker, parcel_t *parcel) {
  for (bool dead = false; !is_sent(parcel);) {
    if (send_some(worker->socket, parcel, MSG_DONTWAIT) == 0 || errno == EINTR) continue;
    if (errno == ENOBUFS || errno == ENOMEM) return ALOOP_ENOMEM;
    if (dead || (errno != EAGAIN && errno != EWOULDBLOCK)) return ALOOP_ECRASHED;
    dead = wait_for(worker, POLLOUT);
  }
  return 0;
}

static int receive(const aloop__worker_t *worker, void *into, size_t size) {
  bool dead = false;
  for (size_t done = 0; done < size;) {
    ssize_t n = recv(worker->socket, (char *)into + done, size - done, MSG_DONTWAIT);
    if (n > 0) {
      done += (size_t)n;
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (dead || n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) return ALOOP_ECRASHED;
    dead = wait_for(worker, POLLIN);
  }
  return 0;
}

/* One block for free(), with a zero byte after the last. */
static aloop_bytes_t *new_bytes(uint64_t size) {
  if (size > SIZE_MAX - sizeof(aloop_bytes_t) - 1) return NULL;
  aloop_bytes_t *bytes = malloc(sizeof *bytes + (size_t)size + 1);
  if (bytes == NULL) return NULL;
  char *data = (char *)(bytes + 1);
  data[size] = '\0';
  bytes->size = (size_t)size;
  bytes->data = data;
  return bytes;
}

int aloop__worker_call(const aloop__worker_t *worker, aloop_process_fn fn, const void *data, size_t size,
                       int64_t *result, aloop_bytes_t **bytes) {
  request_t request = {fn, size};
  answer_t answer;
  parcel_t parcel = parcel_of(&request, sizeof request, data, size);
  int rc = send_parcel(worker, &parcel);
  if (rc == 0) rc = receive(worker, &answer, sizeof answer);
  if (rc < 0) return rc;
  if (answer.mark != ANSWER_MARK) return ALOOP_ECRASHED;
  aloop_bytes_t *made = new_bytes(answer.size);
  if (made == NULL) return ALOOP_ENOMEM;
  rc = receive(worker, (char *)(made + 1), made->size);
  if (rc < 0) {
    free(made);
    return rc;
  }
  *result = answer.result;
  *bytes = made;
  return 0;
}
