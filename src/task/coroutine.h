/* SPDX-License-Identifier: MIT
 *
 * Stackful coroutines: functions that can be left in the middle and gone on with. Nothing of futures or tasks
 * is known here. See coroutine.c.
 */
#ifndef ALOOP_TASK_COROUTINE_H
#define ALOOP_TASK_COROUTINE_H

#include "task/stacks.h"

typedef struct aloop__coroutine aloop__coroutine_t;
typedef void (*aloop__coroutine_fn)(aloop__coroutine_t *self, void *arg);

/* A coroutine that runs fn from its first resume on, on a stack of at least `stack_size` bytes (0: the usual).
 * It starts with the floating-point control state of this moment. Errors: those of aloop__stacks_take. */
int aloop__coroutine_new(aloop__stacks_t *stacks, size_t stack_size, aloop__coroutine_fn fn, void *arg,
                         aloop__coroutine_t **out);

/* Runs it until it suspends or its function returns. Coroutines may resume others; one that runs, or waits for
 * one that it resumed, cannot be resumed. */
void aloop__coroutine_resume(aloop__coroutine_t *co);

/* Called by the coroutine itself: back to whoever resumed it. Returns at the next resume. */
void aloop__coroutine_suspend(aloop__coroutine_t *self);

bool aloop__coroutine_ended(const aloop__coroutine_t *co);

/* Gives the stack back. The coroutine must not be running; if it is suspended, its frames are dropped as they
 * are. NULL is fine. */
void aloop__coroutine_free(aloop__coroutine_t *co);

/* A name for the report of an overflow; borrowed as long as the coroutine lives. */
void aloop__coroutine_set_label(aloop__coroutine_t *co, const char *label);

/* Bytes of address space of its stack, guard included. */
size_t aloop__coroutine_stack_size(const aloop__coroutine_t *co);

#endif
