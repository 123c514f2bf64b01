/* SPDX-License-Identifier: MIT
 *
 * Blocks that wait to be used again, all of one size: what a loop makes and ends all the time need not go
 * through the allocator each time. The last one comes first, because it is in the cache. Whoever gives a block
 * knows how many are enough. The address sanitizer takes a waiting block for released, so that uses of what has
 * ended are found here, too.
 */
#ifndef ALOOP_CORE_SPARES_H
#define ALOOP_CORE_SPARES_H

#include <stddef.h>
#include <stdint.h>

#include "core/check.h"
#include "core/memory.h"

#ifdef ALOOP_ASAN
#include <sanitizer/asan_interface.h>
#define ALOOP_POISON(address, size) __asan_poison_memory_region(address, size)
#define ALOOP_UNPOISON(address, size) __asan_unpoison_memory_region(address, size)
#else
#define ALOOP_POISON(address, size) ((void)(address), (void)(size))
#define ALOOP_UNPOISON(address, size) ((void)(address), (void)(size))
#endif

typedef struct aloop__spare {
  struct aloop__spare *next;
} aloop__spare_t;

typedef struct aloop__spares {
  aloop__spare_t *first; /* NULL: none */
  uint32_t count;
} aloop__spares_t;

/* There is one. */
static inline void *aloop__spares_take(aloop__spares_t *spares, size_t size) {
  aloop__spare_t *spare = spares->first;
  spares->first = spare->next;
  spares->count--;
  ALOOP_UNPOISON(spare, size);
  return spare;
}

static inline void aloop__spares_give(aloop__spares_t *spares, void *block, size_t size) {
  aloop__spare_t *spare = block;
  spare->next = spares->first;
  spares->first = spare;
  spares->count++;
  ALOOP_POISON(spare + 1, size - sizeof *spare);
}

static inline void aloop__spares_release(aloop_t *loop, aloop__spares_t *spares, size_t size) {
  while (spares->first != NULL) aloop__memory_release(loop, aloop__spares_take(spares, size));
}

#endif
