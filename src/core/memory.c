/* SPDX-License-Identifier: MIT
 *
 * Memory of a loop: every block of a loop and its objects comes from the loop's allocator, which is malloc
 * unless the caller brought another. There is no pooling here: modules whose objects come and go often
 * (futures, write chunks) keep their own free lists, where the sizes are known. Nothing in the library
 * allocates outside of this file but context variables, which belong to no loop.
 */
#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

#include "core/loop.h"

static void *default_resize(void *user, void *block, size_t bytes) {
  (void)user;
  return block != NULL ? realloc(block, bytes) : malloc(bytes); /* malloc asks less */
}

static void default_release(void *user, void *block) {
  (void)user;
  free(block);
}

const aloop_allocator_t aloop__memory_default = {
    .size = sizeof(aloop_allocator_t), .resize = default_resize, .release = default_release};

void *aloop__memory_resize(aloop_t *loop, void *block, size_t bytes) {
  return loop->allocator.resize(loop->allocator.user, block, bytes);
}

void *aloop__memory_new(aloop_t *loop, size_t bytes) {
  return loop->allocator.resize(loop->allocator.user, NULL, bytes);
}

void *aloop__memory_zero(aloop_t *loop, size_t bytes) {
  void *block = aloop__memory_new(loop, bytes);
  if (block != NULL) memset(block, 0, bytes);
  return block;
}

char *aloop__memory_string(aloop_t *loop, const char *text) {
  size_t size = strlen(text) + 1;
  char *copy = aloop__memory_new(loop, size);
  if (copy != NULL) memcpy(copy, text, size);
  return copy;
}

void aloop__memory_release(aloop_t *loop, void *block) {
  if (block != NULL) loop->allocator.release(loop->allocator.user, block);
}

int aloop__memory_copy_options(void *into, size_t known, const void *from) {
  size_t size;
  memcpy(&size, from, sizeof size);
  if (size <= sizeof size || size > 4096 || size % sizeof size != 0) return ALOOP_EINVAL;
  for (size_t i = known; i < size; i++)
    if (((const unsigned char *)from)[i] != 0) return ALOOP_EINVAL;
  memset(into, 0, known);
  memcpy(into, from, size < known ? size : known);
  return 0;
}
