/* SPDX-License-Identifier: MIT
 *
 * Context variables as the rest of the core sees them: an immutable, counted map that is captured with a
 * pointer and a count, and is NULL (free) as long as nobody sets a variable.
 */
#ifndef ALOOP_CORE_CONTEXT_H
#define ALOOP_CORE_CONTEXT_H

#include "aloop.h"

typedef struct aloop__map aloop__map_t;

/* Counts are plain: maps never leave their loop's thread. Both accept NULL. */
aloop__map_t *aloop__map_ref(aloop__map_t *map);
void aloop__map_unref(aloop_t *loop, aloop__map_t *map);

/* Empties the place, then releases what was there: in this order, because with the last reference the
 * destructors of values run, which may do anything. */
void aloop__map_clear(aloop_t *loop, aloop__map_t **place);

/* For who runs in a context now and then: a task, with each of its steps. Whoever enters keeps loop->context of
 * before, and puts it back after leaving. A context is entered once at a time. */
void aloop__context_ref(aloop_context_t *context);
void aloop__context_unref(aloop_context_t *context);
aloop_t *aloop__context_loop(const aloop_context_t *context);
bool aloop__context_is_entered(const aloop_context_t *context);
void aloop__context_enter(aloop_context_t *context);
void aloop__context_leave(aloop_context_t *context);

#endif
