/* SPDX-License-Identifier: MIT
 *
 * Live objects: counted, listed, closed with their loop, and given another chance after lack of memory. With a kind of
 * object that exists only here.
 */
#include "harness.h"

#include <stdio.h>
#include <string.h>

#include "core/loop.h"
#include "core/memory.h"

typedef struct thing {
  aloop__object_t object;
  int *closed;
  int *destroyed;
  int failures; /* how often resume still fails */
  int resumed;
  struct thing *partner; /* released by close */
} thing_t;

static thing_t *thing_of(aloop__object_t *object) {
  return ALOOP_CONTAINER_OF(object, thing_t, object);
}

static void describe(const aloop__object_t *object, char *text, size_t size) {
  snprintf(text, size, "with %u references", object->refs);
}

static void destroy(aloop__object_t *object) {
  ++*thing_of(object)->destroyed;
  aloop__object_end(object, thing_of(object));
}

static void close_thing(aloop__object_t *object) {
  thing_t *thing = thing_of(object);
  ++*thing->closed;
  if (thing->partner != NULL) aloop__object_unref(&thing->partner->object);
  thing->partner = NULL;
}

static bool resume(aloop__object_t *object) {
  thing_t *thing = thing_of(object);
  if (thing->failures > 0) {
    thing->failures--;
    return false;
  }
  thing->resumed++;
  return true;
}

static const aloop__kind_t kind = {.name = "thing",
                                   .index = ALOOP__SERVER, /* borrowed, for its counter */
                                   .describe = describe,
                                   .destroy = destroy,
                                   .close = close_thing,
                                   .resume = resume};

static thing_t *new_thing(aloop_t *loop, int *closed, int *destroyed) {
  thing_t *thing = aloop__memory_zero(loop, sizeof *thing);
  assert_non_null(thing);
  thing->closed = closed;
  thing->destroyed = destroyed;
  aloop__object_init(&thing->object, loop, &kind, "thing.c:1");
  return thing;
}

static void an_object_goes_with_its_last_reference(void **state) {
  env_t *env = *state;
  int closed = 0, destroyed = 0;
  thing_t *thing = new_thing(env->loop, &closed, &destroyed);
  assert_int_equal(env->loop->live[ALOOP__SERVER], 1);
  aloop__object_ref(&thing->object);
  aloop__object_unref(&thing->object);
  assert_int_equal(destroyed, 0);
  aloop__object_unref(&thing->object);
  assert_int_equal(destroyed, 1);
  assert_int_equal(closed, 0);
  assert_int_equal(env->loop->live[ALOOP__SERVER], 0);
}

static void closing_the_loop_ends_each_object_once(void **state) {
  env_t *env = *state;
  int closed = 0, destroyed = 0;
  thing_t *things[5];
  for (int i = 0; i < 5; i++) things[i] = new_thing(env->loop, &closed, &destroyed);
  aloop_close(env->loop);
  assert_int_equal(closed, 5);
  assert_int_equal(destroyed, 0); /* they are the owner's */
  aloop_free(env->loop);
  env->loop = NULL;
  for (int i = 0; i < 5; i++) aloop__object_unref(&things[i]->object);
  assert_int_equal(destroyed, 5);
}

static void an_end_may_release_other_objects(void **state) {
  env_t *env = *state;
  int closed = 0, destroyed = 0;
  thing_t *things[4];
  for (int i = 0; i < 4; i++) things[i] = new_thing(env->loop, &closed, &destroyed);
  things[0]->partner = things[1]; /* not yet closed then */
  things[3]->partner = things[2]; /* closed before */
  aloop_close(env->loop);
  assert_int_equal(destroyed, 2);
  aloop__object_unref(&things[0]->object);
  aloop__object_unref(&things[3]->object);
  assert_int_equal(destroyed, 4);
}

static void stalled_objects_are_resumed_at_the_end_of_a_turn(void **state) {
  env_t *env = *state;
  int closed = 0, destroyed = 0;
  thing_t *things[3];
  for (int i = 0; i < 3; i++) things[i] = new_thing(env->loop, &closed, &destroyed);
  aloop__object_stall(&things[0]->object);
  aloop__object_stall(&things[2]->object);
  aloop__object_stall(&things[2]->object); /* counts once */
  things[0]->failures = 2;
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_next_timeout(env->loop), 0); /* there is no waiting meanwhile */
    run_turn(env->loop);
    assert_int_equal(things[0]->resumed + things[2]->resumed, 0);
  }
  run_turn(env->loop);
  assert_int_equal(things[0]->resumed, 1);
  assert_int_equal(things[1]->resumed, 0);
  assert_int_equal(things[2]->resumed, 1);
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
  for (int i = 0; i < 3; i++) aloop__object_unref(&things[i]->object);
}

static void an_object_that_ends_is_stalled_no_longer(void **state) {
  env_t *env = *state;
  int closed = 0, destroyed = 0;
  thing_t *thing = new_thing(env->loop, &closed, &destroyed);
  aloop__object_stall(&thing->object);
  aloop__object_unstall(&thing->object);
  aloop__object_unstall(&thing->object);
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
  aloop__object_stall(&thing->object);
  aloop__object_unref(&thing->object);
  assert_int_equal(aloop_next_timeout(env->loop), ALOOP_FOREVER);
}

static void find_thing(void *arg, const char *text) {
  if (strcmp(text, "thing with 1 references, from thing.c:1") == 0) *(bool *)arg = true;
}

static void the_dump_describes_an_object(void **state) {
  env_t *env = *state;
  int closed = 0, destroyed = 0;
  bool found = false;
  thing_t *thing = new_thing(env->loop, &closed, &destroyed);
  aloop_dump(env->loop, find_thing, &found);
  assert_true(found);
  aloop__object_unref(&thing->object);
}

TESTS(T(an_object_goes_with_its_last_reference), T(closing_the_loop_ends_each_object_once),
      T(an_end_may_release_other_objects), T(stalled_objects_are_resumed_at_the_end_of_a_turn),
      T(an_object_that_ends_is_stalled_no_longer), T(the_dump_describes_an_object))
