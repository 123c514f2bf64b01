/* SPDX-License-Identifier: MIT
 *
 * Futures and sleeps: one end, and callbacks that follow in order. See fuzz_api.c.
 */
#include "world.h"

#include <string.h>

static void on_done(aloop_future_t *future, void *arg) {
  tag_t *tag = arg;
  future_model_t *model = tag->owner;
  due_t due;
  MUST(!w.closed && aloop_future_done(future));
  if (model->sleeps) {
    MUST(model->waiting_count > 0 && model->waiting[0].tag == tag);
    MUST(aloop_future_cancelled(future) || fuzz.now >= model->until);
    due = model->waiting[0];
    memmove(&model->waiting[0], &model->waiting[1], (size_t)--model->waiting_count * sizeof due);
  } else {
    MUST(model->done && aloop_future_result(future) == model->result);
    due = take_due(NULL, tag);
  }
  MUST(current_context() == due.context);
  react();
}

static future_model_t *new_future(aloop_future_t *future) {
  if (future == NULL) {
    MUST(w.starved);
    return NULL;
  }
  future_model_t *model = &w.futures[w.future_count++];
  *model = (future_model_t){.future = future};
  for (int i = 0; i < TAGS; i++) model->tags[i].owner = model;
  return model;
}

void make_future(void) {
  if (w.future_count < FUTURES) new_future(aloop_future_new(w.loop));
}

void make_sleep(void) {
  int64_t delay = (int64_t)byte() - 10;
  if (w.future_count == FUTURES) return;
  future_model_t *model = new_future(aloop_sleep(w.loop, delay));
  if (model == NULL) return;
  model->sleeps = true;
  model->until = aloop_time(w.loop) + (delay < 0 ? 0 : delay);
}

static future_model_t *some_future(void) {
  if (w.future_count == 0) return NULL;
  future_model_t *model = &w.futures[w.future_count - 1 - (int)byte() % w.future_count];
  return model->future != NULL ? model : NULL;
}

/* The model's future has ended: its callbacks take their places. */
static void ended(future_model_t *model, int64_t result) {
  model->done = true;
  model->result = result;
  for (int i = 0; i < model->waiting_count; i++) queue(model->waiting[i]);
  model->waiting_count = 0;
}

void end_future(void) {
  future_model_t *model = some_future();
  unsigned how = byte();
  if (model == NULL || model->sleeps) return;
  int64_t result = how & 1 ? (int)how : ALOOP_EIO;
  int rc = how & 1 ? aloop_future_set_value(model->future, result)
                   : aloop_future_set_error(model->future, ALOOP_EIO, how & 2 ? "message" : NULL);
  MUST(rc == (model->done ? ALOOP_EDONE : 0));
  if (!model->done) ended(model, result);
}

void cancel_future(void) {
  future_model_t *model = some_future();
  if (model == NULL) return;
  bool done = model->sleeps ? aloop_future_done(model->future) : model->done;
  MUST(aloop_future_cancel(model->future) == !done);
  MUST(aloop_future_cancelled(model->future) || done);
  if (!done && !model->sleeps) ended(model, ALOOP_ECANCELED);
}

void add_callback(void) {
  future_model_t *model = some_future();
  unsigned which = byte() % TAGS;
  if (model == NULL || model->waiting_count == (int)(sizeof model->waiting / sizeof model->waiting[0])) return;
  due_t due = {.tag = &model->tags[which], .context = current_context()};
  if (!answered(aloop_future_add_done_callback(model->future, on_done, due.tag), 0)) return;
  if (model->done)
    queue(due);
  else
    model->waiting[model->waiting_count++] = due;
}

void remove_callback(void) {
  future_model_t *model = some_future();
  unsigned which = byte() % TAGS;
  if (model == NULL) return;
  int expected = 0;
  int kept = 0;
  bool done = aloop_future_done(model->future);
  for (int i = 0; i < model->waiting_count && !done; i++) {
    if (model->waiting[i].tag == &model->tags[which])
      expected++;
    else
      model->waiting[kept++] = model->waiting[i];
  }
  if (!done) model->waiting_count = kept;
  int removed = aloop_future_remove_done_callback(model->future, on_done, &model->tags[which]);
  MUST(removed == expected || (w.starved && done)); /* those that wait for memory can be taken back */
  if (removed != expected) fuzz.size = 0;           /* the model does not know which: no more calls */
}

void drop_future(void) {
  future_model_t *model = some_future();
  if (model == NULL) return;
  bool gone = !model->sleeps && !model->done;
  aloop_future_unref(model->future);
  model->future = NULL;
  if (gone) model->waiting_count = 0; /* nobody can end it any more */
}
