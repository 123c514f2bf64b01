/* SPDX-License-Identifier: MIT
 *
 * What a queue holds: each order against a plain list, with pushes and pops mixed at random.
 */
#include "harness.h"

#include <stdlib.h>

#include "task/items.h"

enum { MANY = 5000, KEYS = 7 };

typedef struct thing {
  int key;
  int number;
} thing_t;

static int by_key(const void *a, const void *b, void *arg) {
  assert_string_equal(arg, "mine");
  return ((const thing_t *)a)->key - ((const thing_t *)b)->key;
}

static void push(aloop__items_t *items, env_t *env, void *item) {
  assert_int_equal(aloop__items_reserve(items, env->loop), 0);
  aloop__items_push(items, item);
}

/* The index in `list` of what comes out next. */
static int next_of(int kind, thing_t *const *list, int count) {
  int best = kind == ALOOP_LIFO ? count - 1 : 0;
  for (int i = 0; kind == ALOOP_PRIORITY && i < count; i++)
    if (list[i]->key < list[best]->key) best = i;
  return best;
}

static void check_order(env_t *env, int kind) {
  static thing_t things[MANY];
  static thing_t *list[MANY];
  aloop__items_t items = {.kind = kind, .compare = by_key, .compare_arg = (void *)(uintptr_t) "mine"};
  unsigned random = 12345;
  int count = 0, made = 0;
  while (made < MANY || count > 0) {
    random = random * 1103515245u + 12345u;
    if (made < MANY && (count == 0 || (random >> 16) % 100 < (made / 500 % 2 ? 40 : 60))) {
      things[made] = (thing_t){(int)(random >> 8) % KEYS, made};
      push(&items, env, &things[made]);
      list[count++] = &things[made++];
    } else {
      int next = next_of(kind, list, count);
      assert_ptr_equal(aloop__items_pop(&items), list[next]);
      count--;
      for (int i = next; i < count; i++) list[i] = list[i + 1];
    }
    assert_int_equal(items.count, count);
  }
  aloop__items_close(&items, env->loop);
}

static void the_oldest_comes_out_first(void **state) {
  check_order(*state, ALOOP_FIFO);
}

static void the_newest_comes_out_first(void **state) {
  check_order(*state, ALOOP_LIFO);
}

static void the_least_comes_out_first_and_the_oldest_among_equals(void **state) {
  check_order(*state, ALOOP_PRIORITY);
}

static int nonsense(const void *a, const void *b, void *arg) {
  (void)a, (void)b;
  unsigned *random = arg;
  *random = *random * 1103515245u + 12345u;
  return (int)(*random >> 16) % 3 - 1;
}

static void each_comes_out_once_whatever_the_comparison_says(void **state) {
  env_t *env = *state;
  unsigned random = 1;
  bool seen[200] = {false};
  aloop__items_t items = {.kind = ALOOP_PRIORITY, .compare = nonsense, .compare_arg = &random};
  for (int i = 0; i < 200; i++) push(&items, env, &seen[i]);
  for (int i = 0; i < 200; i++) {
    bool *item = aloop__items_pop(&items);
    assert_false(*item);
    *item = true;
  }
  aloop__items_close(&items, env->loop);
}

static void without_memory_nothing_changes(void **state) {
  env_t *env = *state;
  for (int kind = ALOOP_FIFO; kind <= ALOOP_PRIORITY; kind++) {
    thing_t things[9] = {{0, 0}};
    aloop__items_t items = {.kind = kind, .compare = by_key, .compare_arg = (void *)(uintptr_t) "mine"};
    for (int i = 0; i < 8; i++) push(&items, env, &things[i]);
    env->fail_at = env->calls + 1;
    assert_int_equal(aloop__items_reserve(&items, env->loop), ALOOP_ENOMEM);
    push(&items, env, &things[8]);
    assert_ptr_equal(aloop__items_pop(&items), &things[kind == ALOOP_LIFO ? 8 : 0]);
    aloop__items_close(&items, env->loop);
  }
}

TESTS(T(the_oldest_comes_out_first), T(the_newest_comes_out_first),
      T(the_least_comes_out_first_and_the_oldest_among_equals),
      T(each_comes_out_once_whatever_the_comparison_says), T(without_memory_nothing_changes))
