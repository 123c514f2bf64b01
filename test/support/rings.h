/* SPDX-License-Identifier: MIT
 *
 * Loops on io_uring, for the tests of what stands only there. Where the kernel has none the test is skipped.
 */
#ifndef RINGS_H
#define RINGS_H

#include "harness.h"

/* A fresh loop on the ring. */
void use_ring(env_t *env);

/* ... whose network works with completions. */
void use_completions(env_t *env);

/* The test that is left where the library was built without. */
void there_is_no_ring_here(void **state);

#endif
