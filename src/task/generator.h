/* SPDX-License-Identifier: MIT
 *
 * Async generators as await and the tasks see them. See generator.c.
 */
#ifndef ALOOP_TASK_GENERATOR_H
#define ALOOP_TASK_GENERATOR_H

#include "task/task.h"

extern const aloop__future_kind_t aloop__generator_step_kind;

/* Whether a future asks a generator for something. */
static inline bool aloop__generator_is_step(const aloop_future_t *future) {
  return future->object.kind == &aloop__generator_step_kind.object;
}

/* If the step has not begun, its generator goes on now, as part of the task (which is the current one), until
 * it has an answer: the future is done then. */
void aloop__generator_run(aloop__task_t *task, aloop_future_t *step);

/* The frames of a task are dropped; so are those of the generators that ran as part of it. */
void aloop__generator_abandon(aloop__task_t *task);

#endif
