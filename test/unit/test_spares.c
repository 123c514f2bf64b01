/* SPDX-License-Identifier: MIT
 *
 * Blocks that wait to be used again: the last one first, and out of bounds meanwhile.
 */
#include "harness.h"

#include <string.h>

#include "core/spares.h"

enum { SIZE = 64 };

static void the_last_block_comes_first(void **state) {
  env_t *env = *state;
  aloop__spares_t spares = {0};
  void *blocks[3];
  for (int i = 0; i < 3; i++) {
    blocks[i] = aloop__memory_new(env->loop, SIZE);
    assert_non_null(blocks[i]);
    aloop__spares_give(&spares, blocks[i], SIZE);
  }
  assert_int_equal(spares.count, 3);
  for (int i = 2; i >= 0; i--) {
    assert_ptr_equal(aloop__spares_take(&spares, SIZE), blocks[i]);
    memset(blocks[i], 1, SIZE);
  }
  assert_null(spares.first);
  for (int i = 0; i < 3; i++) aloop__spares_give(&spares, blocks[i], SIZE);
  aloop__spares_release(env->loop, &spares, SIZE); /* the harness counts */
  assert_int_equal(spares.count, 0);
}

static void the_sanitizer_sees_uses_of_a_waiting_block(void **state) {
#ifdef ALOOP_ASAN
  env_t *env = *state;
  aloop__spares_t spares = {0};
  char *block = aloop__memory_new(env->loop, SIZE);
  assert_non_null(block);
  aloop__spares_give(&spares, block, SIZE);
  assert_true(__asan_address_is_poisoned(block + sizeof(aloop__spare_t)));
  assert_true(__asan_address_is_poisoned(block + SIZE - 1));
  aloop__spares_release(env->loop, &spares, SIZE);
#else
  (void)state;
  skip();
#endif
}

TESTS(T(the_last_block_comes_first), T(the_sanitizer_sees_uses_of_a_waiting_block))
