/* SPDX-License-Identifier: MIT
 *
 * communicate: everything that a child is told and everything that it says, as one operation.
 *
 * The input goes to the stdin transport, which copies what the pipe does not take and closes behind it; a child
 * that does not read breaks that pipe, which is its right. What comes from the other two is collected in blocks
 * that double, so n bytes cost O(n), and at the end all goes into one block for the caller. Done means three
 * things: both pipes have ended, and the child has. Stdin is not waited for; a grandchild may hold it for ever.
 *
 * An exchange that ends early (limit, memory, cancel) releases what it collected at once. After a cancel the
 * pipes rest: the child may be waited for, signalled or closed, but not communicated with again.
 *
 * The output block is malloc's and not the loop's, because it may outlive the loop and is released with free.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"
#include "net/stream.h"
#include "process/subprocess.h"

enum { FIRST_ROOM = 4096, TEXT_MAX = 120 };

typedef struct collected {
  char *data;
  size_t size;
  size_t room;
} collected_t;

struct aloop__exchange {
  aloop_future_t *future;
  size_t limit;
  collected_t from[2]; /* stdout, stderr */
};

static const char *name_of(int fd) {
  return fd == 1 ? "stdout" : "stderr";
}

static void release(aloop_process_t *process) {
  aloop_t *loop = process->object.loop;
  aloop__exchange_t *exchange = process->exchange;
  process->exchange = NULL;
  aloop__memory_release(loop, exchange->from[0].data);
  aloop__memory_release(loop, exchange->from[1].data);
  aloop__memory_release(loop, exchange);
}

/* The future's stop function. */
static void stop(aloop_future_t *future, void *arg) {
  (void)future;
  aloop_process_t *process = arg;
  for (int i = 1; i < 3; i++)
    if (process->pipes[i].open) aloop_transport_pause_reading(process->pipes[i].transport);
  release(process);
}

/* Without output. The child is killed: nobody is there to hear the rest. */
static void give_up(aloop_process_t *process, int error, const char *message) {
  aloop_future_t *future = process->exchange->future;
  release(process);
  aloop_process_close(process);
  aloop__future_fail(future, error, "%s", message);
}

/* ---- What comes ------------------------------------------------------------------------------------------ */

static int reserve(aloop_t *loop, collected_t *into, size_t size) {
  size_t room = into->room != 0 ? into->room : FIRST_ROOM;
  if (size > SIZE_MAX / 2 - into->size) return ALOOP_ENOMEM;
  while (room < into->size + size) room *= 2;
  if (room == into->room) return 0;
  char *data = aloop__memory_resize(loop, into->data, room);
  if (data == NULL) return ALOOP_ENOMEM;
  into->data = data;
  into->room = room;
  return 0;
}

void aloop__communicate_received(aloop_process_t *process, int fd, const void *data, size_t size) {
  aloop__exchange_t *exchange = process->exchange;
  collected_t *into = &exchange->from[fd - 1];
  if (exchange->limit > 0 && size > exchange->limit - into->size) {
    char text[TEXT_MAX];
    snprintf(text, sizeof text, "the child wrote more than %zu bytes to %s", exchange->limit, name_of(fd));
    give_up(process, ALOOP_ENOBUFS, text);
    return;
  }
  if (reserve(process->object.loop, into, size) < 0) {
    give_up(process, ALOOP_ENOMEM, aloop_strerror(ALOOP_ENOMEM));
    return;
  }
  memcpy(into->data + into->size, data, size);
  into->size += size;
}

/* ---- The end --------------------------------------------------------------------------------------------- */

/* Appends a text to the block. Returns where the next one goes. */
static char *copy(char *to, const collected_t *from) {
  if (from->size > 0) memcpy(to, from->data, from->size);
  to[from->size] = '\0';
  return to + from->size + 1;
}

static aloop_output_t *make_output(const aloop_process_t *process) {
  const collected_t *from = process->exchange->from;
  aloop_output_t *output = malloc(sizeof *output + from[0].size + from[1].size + 2);
  if (output == NULL) return NULL;
  char *out = (char *)(output + 1);
  char *err = copy(out, &from[0]);
  copy(err, &from[1]);
  *output = (aloop_output_t){
      .returncode = process->child.code,
      .out = process->pipes[1].transport != NULL ? out : NULL,
      .out_size = from[0].size,
      .err = process->pipes[2].transport != NULL ? err : NULL,
      .err_size = from[1].size,
  };
  return output;
}

static void finish(aloop_process_t *process) {
  aloop_output_t *output = make_output(process);
  aloop_future_t *future = process->exchange->future;
  int error = process->child.code == ALOOP_EREAPED ? ALOOP_EREAPED : ALOOP_ENOMEM;
  release(process);
  if (process->pipes[0].open) aloop__stream_end(process->pipes[0].transport, 0);
  if (output != NULL && error == ALOOP_ENOMEM && aloop__future_finish_ptr(future, 0, output, free)) return;
  free(output);
  aloop__future_fail(future, error, NULL);
}

void aloop__communicate_ended(aloop_process_t *process, int fd, int error) {
  char text[TEXT_MAX];
  if (process->exchange == NULL) return;
  if (error < 0 && fd > 0) {
    snprintf(text, sizeof text, "read %s: %s", name_of(fd), aloop_strerror(error));
    give_up(process, error, text);
    return;
  }
  if (process->pipes[1].open || process->pipes[2].open || !aloop__process_has_ended(process)) return;
  finish(process);
}

void aloop__communicate_close(aloop_process_t *process) {
  if (process->exchange == NULL) return;
  aloop_future_t *future = process->exchange->future;
  release(process);
  aloop__future_fail(future, ALOOP_ECLOSED, NULL);
}

/* ---- Public ---------------------------------------------------------------------------------------------- */

/* Stdin may be broken already: the child need not read. */
static int feed(aloop_process_t *process, const void *input, size_t size) {
  aloop_transport_t *transport = process->pipes[0].transport;
  if (transport == NULL || aloop_transport_is_closing(transport)) return 0;
  int rc = size > 0 ? aloop_transport_write(transport, input, size) : 0;
  if (rc == 0) aloop_transport_close(transport);
  return rc == ALOOP_ECLOSED || rc == ALOOP_EPIPE ? 0 : rc;
}

/* Why it cannot be, or NULL. */
static const char *fault_of(const aloop_process_t *process, const void *input, size_t size, int *error) {
  *error = ALOOP_EBUSY;
  if (process->table != NULL) return "a process with a protocol gives its output to that, not to communicate";
  if (process->flags & ALOOP__PROCESS_COMMUNICATED) return "communicate was called before";
  if (process->lodger != NULL && process->lodger->ops->is_busy(process->lodger))
    return "a read of the process's stdout or stderr is under way";
  *error = ALOOP_EINVAL;
  if (size > 0 && input == NULL) return "the input of communicate is NULL";
  if (size > 0 && process->pipes[0].transport == NULL)
    return "communicate has input, but stdin of the process is not a pipe";
  return NULL;
}

/* Takes the pipes back from whoever has them, with what was read from them and not used. May end it all. */
static void reclaim(aloop_process_t *process) {
  for (int i = 1; i < 3 && process->lodger != NULL; i++) {
    const void *data;
    size_t size = process->lodger->ops->give_back(process->lodger, i, &data);
    aloop__process_reclaim_pipe(process, i);
    if (size > 0 && process->exchange != NULL) aloop__communicate_received(process, i, data, size);
  }
}

static int begin(aloop_process_t *process, aloop_future_t *future, const void *input, size_t size,
                 size_t limit) {
  aloop_t *loop = process->object.loop;
  process->exchange = aloop__memory_zero(loop, sizeof *process->exchange);
  if (process->exchange == NULL) return ALOOP_ENOMEM;
  process->exchange->future = future;
  process->exchange->limit = limit;
  int rc = feed(process, input, size);
  for (int i = 1; i < 3 && rc == 0; i++)
    if (process->pipes[i].open) rc = aloop_transport_resume_reading(process->pipes[i].transport);
  if (rc < 0) release(process);
  return rc;
}

aloop_future_t *aloop_process_communicate(aloop_process_t *process, const void *input, size_t size,
                                          size_t limit) {
  int error;
  if (aloop__process_enter(process) < 0) return NULL;
  aloop_t *loop = process->object.loop;
  const char *fault = fault_of(process, input, size, &error);
  if (fault != NULL) return aloop__future_refused(loop, "aloop_process_communicate", error, fault);
  aloop_future_t *future = aloop__future_new(loop, "aloop_process_communicate");
  if (future == NULL || aloop_future_done(future)) return future;
  int rc = begin(process, future, input, size, limit);
  if (rc < 0) {
    aloop__future_fail(future, rc, NULL);
    return future;
  }
  process->flags |= ALOOP__PROCESS_COMMUNICATED;
  aloop__future_set_operation(future, stop, process);
  reclaim(process);
  aloop__communicate_ended(process, -1, 0);
  return future;
}
