/* SPDX-License-Identifier: MIT
 *
 * Context variables. The state of all variables is an immutable map, shared by count: capturing it for a
 * callback is a pointer and an increment, and as long as nobody sets a variable it is NULL and free. Setting
 * copies the map with one value changed, O(variables), because values are set rarely and captured often.
 *
 * loop->context is the map of whatever runs now. A callback starts with the map captured when it was
 * scheduled; what it sets ends with it, except inside aloop_context_run, where the context object keeps the
 * new map.
 *
 * Values are boxed and counted, so that a destructor runs when the last map that holds the value is gone.
 * Maps, boxes and contexts belong to one loop; variables belong to none and are counted atomically.
 */
#include "core/context.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/loop.h"
#include "core/memory.h"
#include "core/report.h"

struct aloop_var {
  atomic_uint refs;
  char name[];
};

typedef struct box {
  void *value;
  aloop_destroy_fn destroy;
  uint32_t refs;
} box_t;

typedef struct binding {
  aloop_var_t *var;
  box_t *box;
} binding_t;

struct aloop__map {
  uint32_t refs;
  uint32_t count;
  binding_t bindings[];
};

struct aloop_context {
  aloop_t *loop;
  aloop__map_t *map;
  uint32_t refs; /* of the program, and of tasks that run in it; it also lives on while it is entered */
  bool entered;
};

struct aloop_var_token {
  aloop_t *loop;
  aloop_var_t *var;
  box_t *box; /* NULL: it had no value */
};

int aloop_var_new(const char *name, aloop_var_t **var) {
  if (name == NULL || var == NULL)
    return aloop__misuse(NULL, ALOOP_EINVAL, "a variable has a name and a place to go to");
  size_t size = strlen(name) + 1;
  aloop_var_t *made = malloc(sizeof *made + size);
  if (made == NULL) return ALOOP_ENOMEM;
  atomic_init(&made->refs, 1);
  memcpy(made->name, name, size);
  *var = made;
  return 0;
}

static aloop_var_t *var_ref(aloop_var_t *var) {
  atomic_fetch_add_explicit(&var->refs, 1, memory_order_relaxed);
  return var;
}

void aloop_var_unref(aloop_var_t *var) {
  if (var != NULL && atomic_fetch_sub(&var->refs, 1) == 1) free(var);
}

/* Back to the context that program code was called from. If it has closed the loop, there is none any more. */
static void go_back(aloop_t *loop, aloop__map_t *outer, uint32_t guard_before) {
  loop->context = outer;
  if (ALOOP_UNLIKELY((loop->guard ^ guard_before) & ALOOP__GUARD_CLOSED))
    aloop__map_clear(loop, &loop->context);
}

/* A destructor runs in an empty context; what it sets ends with it. Outside of a run it may free the loop,
 * whose memory is needed until this returns. */
static void box_unref(aloop_t *loop, box_t *box) {
  if (box == NULL || --box->refs > 0) return;
  aloop__map_t *outer = loop->context;
  uint32_t guard = loop->guard;
  aloop__loop_hold(loop);
  loop->context = NULL;
  if (box->destroy != NULL) box->destroy(box->value);
  aloop__map_clear(loop, &loop->context);
  go_back(loop, outer, guard);
  aloop__memory_release(loop, box);
  aloop__loop_drop(loop);
}

aloop__map_t *aloop__map_ref(aloop__map_t *map) {
  if (map != NULL) map->refs++;
  return map;
}

static ALOOP_NOINLINE void map_free(aloop_t *loop, aloop__map_t *map) {
  aloop__loop_hold(loop);
  for (uint32_t i = 0; i < map->count; i++) {
    aloop_var_unref(map->bindings[i].var);
    box_unref(loop, map->bindings[i].box);
  }
  aloop__memory_release(loop, map);
  aloop__loop_drop(loop);
}

void aloop__map_unref(aloop_t *loop, aloop__map_t *map) {
  if (map != NULL && --map->refs == 0) map_free(loop, map);
}

void aloop__map_clear(aloop_t *loop, aloop__map_t **place) {
  aloop__map_t *map = *place;
  *place = NULL;
  aloop__map_unref(loop, map);
}

static box_t *map_find(const aloop__map_t *map, const aloop_var_t *var) {
  for (uint32_t i = 0; map != NULL && i < map->count; i++)
    if (map->bindings[i].var == var) return map->bindings[i].box;
  return NULL;
}

/* A copy of `old` in which var has `box`, or no value if box is NULL. Takes new references. NULL: out of
 * memory. */
static aloop__map_t *map_with(aloop_t *loop, const aloop__map_t *old, aloop_var_t *var, box_t *box) {
  uint32_t count = old != NULL ? old->count : 0;
  if (aloop__ready_open_contexts(loop) < 0) return NULL; /* callbacks will capture it */
  aloop__map_t *map = aloop__memory_new(loop, sizeof *map + (count + 1) * sizeof map->bindings[0]);
  if (map == NULL) return NULL;
  map->refs = 1;
  map->count = 0;
  for (uint32_t i = 0; i < count; i++)
    if (old->bindings[i].var != var) map->bindings[map->count++] = old->bindings[i];
  if (box != NULL) map->bindings[map->count++] = (binding_t){var, box};
  for (uint32_t i = 0; i < map->count; i++) {
    var_ref(map->bindings[i].var);
    map->bindings[i].box->refs++;
  }
  return map;
}

/* Makes `box` the current value of var. */
static int rebind(aloop_t *loop, aloop_var_t *var, box_t *box) {
  aloop__map_t *map = map_with(loop, loop->context, var, box);
  if (map == NULL) return ALOOP_ENOMEM;
  aloop__map_t *old = loop->context;
  loop->context = map;
  aloop__map_unref(loop, old);
  return 0;
}

static aloop_var_token_t *token_new(aloop_t *loop, aloop_var_t *var) {
  aloop_var_token_t *token = aloop__memory_new(loop, sizeof *token);
  if (token == NULL) return NULL;
  *token = (aloop_var_token_t){loop, var_ref(var), map_find(loop->context, var)};
  aloop__loop_hold(loop);
  if (token->box != NULL) token->box->refs++;
  return token;
}

void aloop_var_token_free(aloop_var_token_t *token) {
  if (token == NULL || !aloop__loop_ok(token->loop)) return;
  aloop_var_unref(token->var);
  aloop_t *loop = token->loop;
  box_unref(loop, token->box);
  aloop__memory_release(loop, token);
  aloop__loop_drop(loop);
}

int aloop_var_set(aloop_t *loop, aloop_var_t *var, void *value, aloop_destroy_fn destroy,
                  aloop_var_token_t **token) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (var == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "aloop_var_set without a variable");
  aloop_var_token_t *saved = token != NULL ? token_new(loop, var) : NULL;
  box_t *box = aloop__memory_new(loop, sizeof *box);
  if (box == NULL || (token != NULL && saved == NULL)) goto out_of_memory;
  *box = (box_t){value, destroy, 1};
  aloop__loop_hold(loop);
  rc = rebind(loop, var, box);
  if (rc == 0 && token != NULL) *token = saved;
  if (rc == 0) box_unref(loop, box); /* the map has it, unless the old value's destructor set another one */
  aloop__loop_drop(loop);
  if (rc == 0) return 0;

out_of_memory:
  aloop__memory_release(loop, box);
  aloop_var_token_free(saved);
  return ALOOP_ENOMEM;
}

void *aloop_var_get(const aloop_t *loop, const aloop_var_t *var, void *fallback) {
  if (!aloop__loop_ok(loop)) return fallback;
  if (var == NULL) aloop__misuse((aloop_t *)loop, ALOOP_EINVAL, "the variable is NULL");
  box_t *box = map_find(loop->context, var);
  return box != NULL ? box->value : fallback;
}

int aloop_var_reset(aloop_t *loop, aloop_var_token_t *token) {
  if (token == NULL) return 0;
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (token->loop != loop)
    return aloop__misuse(loop, ALOOP_EOTHERLOOP, "a token is used on the loop that made it");
  rc = rebind(loop, token->var, token->box);
  if (rc == 0) aloop_var_token_free(token);
  return rc;
}

int aloop_context_copy(aloop_t *loop, aloop_context_t **context) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (context == NULL)
    return aloop__misuse(loop, ALOOP_EINVAL, "aloop_context_copy needs a place for the context");
  aloop_context_t *made = aloop__memory_new(loop, sizeof *made);
  if (made == NULL) return ALOOP_ENOMEM;
  *made = (aloop_context_t){.loop = loop, .map = aloop__map_ref(loop->context), .refs = 1};
  aloop__loop_hold(loop);
  *context = made;
  return 0;
}

static void free_context(aloop_context_t *context) {
  aloop_t *loop = context->loop;
  aloop__map_unref(loop, context->map);
  aloop__memory_release(loop, context);
  aloop__loop_drop(loop);
}

void aloop__context_ref(aloop_context_t *context) {
  context->refs++;
}

void aloop__context_unref(aloop_context_t *context) {
  if (--context->refs == 0 && !context->entered) free_context(context);
}

aloop_t *aloop__context_loop(const aloop_context_t *context) {
  return context->loop;
}

bool aloop__context_is_entered(const aloop_context_t *context) {
  return context->entered;
}

void aloop__context_enter(aloop_context_t *context) {
  context->loop->context = context->map;
  context->entered = true;
}

void aloop__context_leave(aloop_context_t *context) {
  context->entered = false;
  context->map = context->loop->context;
  if (context->refs == 0) free_context(context);
}

int aloop_context_run(aloop_t *loop, aloop_context_t *context, aloop_callback_fn fn, void *arg) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (context == NULL || fn == NULL) return aloop__misuse(loop, ALOOP_EINVAL, "aloop_context_run needs both");
  if (context->loop != loop)
    return aloop__misuse(loop, ALOOP_EOTHERLOOP, "a context is run by the loop that made it");
  if (context->entered) return aloop__misuse(loop, ALOOP_EBUSY, "the context is already entered");
  aloop__map_t *outer = loop->context;
  uint32_t guard = loop->guard;
  aloop__loop_hold(loop); /* fn may give up the loop, and the context */
  aloop__context_enter(context);
  fn(loop, arg);
  aloop__context_leave(context);
  go_back(loop, outer, guard);
  aloop__loop_drop(loop);
  return 0;
}

void aloop_context_unref(aloop_context_t *context) {
  if (context != NULL && aloop__loop_ok(context->loop)) aloop__context_unref(context);
}
