/* SPDX-License-Identifier: MIT
 *
 * What a pool and its worker processes say to each other, both halves of it.
 */
#ifndef ALOOP_EXECUTOR_WORKER_H
#define ALOOP_EXECUTOR_WORKER_H

#include "aloop.h"
#include "executor/nursery.h"

/* What a worker is told before it is born. */
typedef struct aloop__worker_setup {
  void (*initializer)(void *arg); /* may be NULL */
  void *initializer_arg;
} aloop__worker_setup_t;

/* An aloop__worker_fn: does jobs until nobody has any more. `arg` is an aloop__worker_setup_t. */
void aloop__worker_serve(int socket, void *arg);

/* Has the worker run fn on the bytes, and waits for the answer: *result is what fn returned, *bytes (for
 * free()) what it added to its reply. Any number of threads, each with a worker of its own. Errors, after which
 * the worker must be ended: ALOOP_ECRASHED, ALOOP_ENOMEM (no room for the answer). */
int aloop__worker_call(const aloop__worker_t *worker, aloop_process_fn fn, const void *data, size_t size,
                       int64_t *result, aloop_bytes_t **bytes);

#endif
