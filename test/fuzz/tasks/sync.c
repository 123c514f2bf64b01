/* SPDX-License-Identifier: MIT
 *
 * Locks, conditions, events, semaphores, barriers and queues, with what the model knows of them: who has a
 * lock, how many have places, and whose an item is. See fuzz_tasks.c.
 */
#include "tasks/actors.h"

#include <stdlib.h>
#include <string.h>

/* ---- Locks ----------------------------------------------------------------------------------------------- */

void read_lock(const wish_t *wish, int64_t rc) {
  lock_model_t *model = &t.locks[wish->index];
  if (model->life != wish->life || rc < 0) return;
  if (!model->loose) MUST(!model->held);
  model->held = true;
}

void lose_sight(const wish_t *wish) {
  if (wish->kind == LOCK) t.locks[wish->index].loose = true;
  if (wish->kind == PLACE) t.places[wish->index].loose = true;
}

static lock_model_t *some_lock(void) {
  lock_model_t *model = &t.locks[byte() % LOCKS];
  if (model->lock != NULL) return model;
  if (aloop_lock_new(t.loop, &model->lock) < 0) {
    model->lock = NULL;
    return NULL;
  }
  model->held = model->loose = false;
  model->life++;
  return model;
}

static void free_lock(lock_model_t *model) {
  aloop_lock_t *lock = model->lock;
  aloop_condition_t *condition = model->condition;
  model->lock = NULL;
  model->condition = NULL;
  model->life++;
  aloop_condition_free(condition);
  aloop_lock_free(lock);
}

static void release_lock(lock_model_t *model) {
  if (model->waits > 0 && !model->held) return; /* it may be that of one who has not woken up yet */
  int rc = byte() & 1 && model->condition != NULL ? aloop_condition_release(model->condition)
                                                  : aloop_lock_release(model->lock);
  if (!model->loose) MUST(rc == (model->held ? 0 : ALOOP_EPERM));
  if (rc == 0) model->held = false;
}

void use_lock(void) {
  lock_model_t *model = some_lock();
  unsigned how = byte();
  if (model == NULL) return;
  if (!model->loose && model->held) MUST(aloop_lock_locked(model->lock));
  if (how % 16 == 0)
    free_lock(model);
  else if (how & 1)
    have(aloop_lock_acquire(model->lock), LOCK, (unsigned)(model - t.locks), model->life);
  else
    release_lock(model);
}

/* ---- Conditions ------------------------------------------------------------------------------------------ */

static bool by_the_input(void *arg) {
  (void)arg;
  return t.closing || byte() & 1;
}

/* Waits, directly or for a limited time: then the lock is there again. */
static void wait_for_condition(lock_model_t *model, unsigned how) {
  unsigned life = model->life;
  aloop_future_t *future = how & 2 ? aloop_condition_wait_for(model->condition, by_the_input, NULL)
                                   : aloop_condition_wait(model->condition);
  if (future == NULL) {
    MUST(t.starved);
    return;
  }
  if (how & 4) {
    model->held = false;
    future = aloop_wait_for(future, moment());
    if (future == NULL) model->loose = true;
  }
  model->held = false;
  if (t.starved) model->loose = true;
  model->waits++;
  int64_t rc = aloop_await(future);
  model->waits--;
  check_code(rc);
  if (model->life != life || t.closing || rc == ALOOP_ECLOSED || rc == ALOOP_ENOMEM) return;
  if (!model->loose) MUST(!model->held);
  model->held = true;
}

void use_condition(void) {
  lock_model_t *model = some_lock();
  unsigned how = byte();
  if (model == NULL) return;
  if (model->condition == NULL) {
    int rc = aloop_condition_new(t.loop, model->lock, &model->condition);
    check_code(rc);
    if (rc < 0) model->condition = NULL;
  }
  if (model->condition == NULL) return;
  if (how % 32 == 0) {
    aloop_condition_t *condition = model->condition;
    model->condition = NULL;
    aloop_condition_free(condition);
  } else if (how & 1 && in_task() && model->held && !model->loose) {
    wait_for_condition(model, how);
  } else {
    int rc = how & 2 ? aloop_condition_notify(model->condition, how >> 5)
                     : aloop_condition_notify_all(model->condition);
    if (!model->loose && model->waits == 0) MUST(rc == (model->held ? 0 : ALOOP_EPERM));
  }
}

/* ---- Events ---------------------------------------------------------------------------------------------- */

void use_event(void) {
  aloop_event_t **event = &t.events[byte() % EVENTS];
  unsigned how = byte();
  if (*event == NULL && aloop_event_new(t.loop, event) < 0) {
    *event = NULL;
    return;
  }
  if (how % 16 == 0) {
    aloop_event_t *old = *event;
    *event = NULL;
    aloop_event_free(old);
  } else if (how % 4 == 1) {
    MUST(aloop_event_set(*event) == 0);
  } else if (how % 4 == 2) {
    MUST(aloop_event_clear(*event) == 0 && !aloop_event_is_set(*event));
  } else {
    have(aloop_event_wait(*event), NOTHING, 0, 0);
  }
}

/* ---- Semaphores ------------------------------------------------------------------------------------------ */

void read_place(const wish_t *wish, int64_t rc) {
  place_model_t *model = &t.places[wish->index];
  if (model->life != wish->life || rc < 0) return;
  model->held++;
  if (!model->loose) MUST(model->held <= model->total);
}

static place_model_t *some_place(void) {
  place_model_t *model = &t.places[byte() % PLACES];
  if (model->semaphore != NULL) return model;
  unsigned how = byte();
  if (aloop_semaphore_new(t.loop, how % 4, how & 4, &model->semaphore) < 0) {
    model->semaphore = NULL;
    return NULL;
  }
  model->life++;
  model->bounded = how & 4;
  model->loose = false;
  model->held = 0;
  model->total = how % 4;
  return model;
}

void use_place(void) {
  place_model_t *model = some_place();
  unsigned how = byte();
  if (model == NULL) return;
  if (!model->loose) MUST(aloop_semaphore_value(model->semaphore) + model->held <= model->total);
  if (how % 16 == 0) {
    aloop_semaphore_t *old = model->semaphore;
    model->semaphore = NULL;
    model->life++;
    aloop_semaphore_free(old);
  } else if (how & 1) {
    have(aloop_semaphore_acquire(model->semaphore), PLACE, (unsigned)(model - t.places), model->life);
  } else {
    bool ours = model->held > 0;
    if (ours)
      model->held--;
    else
      model->total++;
    int rc = aloop_semaphore_release(model->semaphore);
    MUST(rc == 0 || (rc == ALOOP_ERANGE && model->bounded));
    if (!model->loose && ours) MUST(rc == 0);
    if (rc < 0) model->total -= !ours;
  }
}

/* ---- Barriers -------------------------------------------------------------------------------------------- */

void use_barrier(void) {
  aloop_barrier_t **barrier = &t.barriers[byte() % BARRIERS];
  unsigned how = byte();
  if (*barrier == NULL && aloop_barrier_new(t.loop, 1 + (how >> 4) % 4, barrier) < 0) {
    *barrier = NULL;
    return;
  }
  if (how % 16 == 0) {
    aloop_barrier_t *old = *barrier;
    *barrier = NULL;
    aloop_barrier_free(old);
  } else if (how % 16 == 1) {
    MUST(aloop_barrier_reset(*barrier) == 0 && !aloop_barrier_broken(*barrier));
  } else if (how % 16 == 2) {
    MUST(aloop_barrier_abort(*barrier) == 0);
  } else {
    MUST(aloop_barrier_n_waiting(*barrier) < aloop_barrier_parties(*barrier) || t.starved);
    have(aloop_barrier_wait(*barrier), NOTHING, 0, 0);
  }
}

/* ---- Queues ---------------------------------------------------------------------------------------------- */

void drop_item(void *item) {
  t.items--;
  free(item);
}

static void item_over(void *item) {
  drop_item(item);
  react();
}

static int compare_items(const void *a, const void *b, void *arg) {
  (void)arg;
  return ((const item_t *)a)->urgency - ((const item_t *)b)->urgency;
}

static item_t *new_item(void) {
  item_t *item = malloc(sizeof *item);
  item->urgency = (int)byte();
  t.items++;
  return item;
}

static queue_model_t *some_queue(void) {
  unsigned which = byte() % QUEUES;
  queue_model_t *model = &t.queues[which];
  if (model->queue != NULL) return model;
  aloop_queue_options_t options = {.size = sizeof options,
                                   .maxsize = byte() % 4,
                                   .kind = (int)which,
                                   .compare = which == ALOOP_PRIORITY ? compare_items : NULL,
                                   .destroy = item_over};
  if (aloop_queue_new(t.loop, &options, &model->queue) < 0) {
    model->queue = NULL;
    return NULL;
  }
  model->life++;
  return model;
}

static void put(aloop_queue_t *queue, unsigned how) {
  item_t *item = new_item();
  int64_t rc;
  if (!in_task() || how & 16) {
    rc = aloop_queue_put_nowait(queue, item);
  } else {
    aloop_future_t *future = aloop_queue_put(queue, item);
    if (how & 32) future = aloop_wait_for(future, moment());
    rc = aloop_await(future);
  }
  MUST(rc <= 0);
  check_code(rc);
  if (rc < 0) drop_item(item);
}

static void get(const queue_model_t *model, unsigned how) {
  if (how & 16) {
    void *item;
    int rc = aloop_queue_get_nowait(model->queue, &item);
    MUST(rc == 0 || rc == ALOOP_EAGAIN || rc == ALOOP_ECLOSED);
    if (rc == 0) drop_item(item);
  } else {
    have(aloop_queue_get(model->queue), GET, (unsigned)(model - t.queues), model->life);
  }
}

void use_queue(void) {
  queue_model_t *model = some_queue();
  unsigned how = byte();
  if (model == NULL) return;
  if (how % 16 == 0) {
    aloop_queue_t *old = model->queue;
    model->queue = NULL;
    aloop_queue_free(old);
  } else if (how % 64 == 1) {
    MUST(aloop_queue_shutdown(model->queue, how & 64) == 0);
  } else if (how % 16 == 2) {
    have(aloop_queue_join(model->queue), NOTHING, 0, 0);
  } else if (how % 16 == 3) {
    int rc = aloop_queue_task_done(model->queue);
    MUST(rc == 0 || rc == ALOOP_ERANGE);
  } else if (how & 1) {
    put(model->queue, how);
  } else {
    get(model, how);
  }
}

/* ---- The end --------------------------------------------------------------------------------------------- */

void release_all(void) {
  for (int i = 0; i < LOCKS; i++)
    if (t.locks[i].lock != NULL) {
      if (aloop_lock_release(t.locks[i].lock) == 0) t.locks[i].held = false;
      t.locks[i].loose = true;
    }
}

void free_sync(void) {
  for (int i = 0; i < LOCKS; i++) free_lock(&t.locks[i]);
  for (int i = 0; i < EVENTS; i++) aloop_event_free(t.events[i]);
  for (int i = 0; i < PLACES; i++) aloop_semaphore_free(t.places[i].semaphore);
  for (int i = 0; i < BARRIERS; i++) aloop_barrier_free(t.barriers[i]);
  for (int i = 0; i < QUEUES; i++) aloop_queue_free(t.queues[i].queue);
  memset(t.events, 0, sizeof t.events);
  memset(t.places, 0, sizeof t.places);
  memset(t.barriers, 0, sizeof t.barriers);
  memset(t.queues, 0, sizeof t.queues);
}
