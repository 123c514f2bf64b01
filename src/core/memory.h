/* SPDX-License-Identifier: MIT
 *
 * The loop's memory: thin calls of its allocator. All return NULL when out of memory and leave the old block
 * alone.
 */
#ifndef ALOOP_CORE_MEMORY_H
#define ALOOP_CORE_MEMORY_H

#include "aloop.h"

void *aloop__memory_new(aloop_t *loop, size_t bytes);  /* not cleared */
void *aloop__memory_zero(aloop_t *loop, size_t bytes); /* cleared */
void *aloop__memory_resize(aloop_t *loop, void *block, size_t bytes);
char *aloop__memory_string(aloop_t *loop, const char *text); /* a copy */
void aloop__memory_release(aloop_t *loop, void *block);      /* NULL is fine */

/* The allocator used when the caller names none. */
extern const aloop_allocator_t aloop__memory_default;

/* Copies a sized option struct of the caller into `into` (of `known` bytes), zero-filling what the caller does
 * not know. Returns ALOOP_EINVAL if `from` has no sensible size, or if a newer caller has set what we do not
 * know: no option is ignored in silence. */
int aloop__memory_copy_options(void *into, size_t known, const void *from);

#endif
