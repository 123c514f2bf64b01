/* SPDX-License-Identifier: MIT
 *
 * Callbacks, timers, handles and context variables. The model keeps the order in which callbacks are due:
 * what is scheduled on the ready deque in one list, posts in another. Timers are compared with every other
 * pending timer when they fire. See fuzz_api.c.
 */
#include "world.h"

#include <string.h>

void queue(due_t due) {
  MUST(w.queue_tail < (int)(sizeof w.queue / sizeof w.queue[0]));
  w.queue[w.queue_tail++] = due;
}

static bool is_dropped(const due_t *due) {
  return due->tag == NULL && !due->job->pending;
}

/* Takes what runs now off the queue: the first, unless futures waited for memory. */
due_t take_due(const job_t *job, const tag_t *tag) {
  int at = w.queue_head;
  for (;; at++) {
    MUST(at < w.queue_tail);
    due_t *due = &w.queue[at];
    if (is_dropped(due)) continue;
    if (due->job == job && due->tag == tag) break;
    /* Only futures can be late, and not among their own. */
    MUST(w.starved && (tag != NULL ? due->tag == NULL || due->tag->owner != tag->owner : due->tag != NULL));
  }
  due_t due = w.queue[at];
  memmove(&w.queue[w.queue_head + 1], &w.queue[w.queue_head], (size_t)(at - w.queue_head) * sizeof due);
  w.queue_head++;
  return due;
}

/* Timers of the same turn come by deadline, those made first before others. */
static void check_timer(const job_t *job) {
  MUST(fuzz.now >= job->when);
  if (w.interrupted) return;
  for (int i = 0; i < w.job_count; i++) {
    const job_t *other = &w.jobs[i];
    if (other == job || other->kind < TIMER || !other->pending || other->turn >= w.turn) continue;
    MUST(other->when > job->when || (other->when == job->when && other->order > job->order));
  }
}

static void run_job(aloop_t *loop, void *arg) {
  job_t *job = arg;
  MUST(loop == w.loop && !w.closed && job->pending);
  MUST(current_context() == job->context);
  if (job->kind == SOON) take_due(job, NULL);
  if (job->kind == POST) MUST(w.posts_head < w.posts_tail && &w.jobs[w.posts[w.posts_head++]] == job);
  if (job->kind >= TIMER) check_timer(job);
  if (job->kind == EVERY) {
    int64_t missed = (aloop_time(loop) - job->when) / job->period;
    job->when += (missed + 1) * job->period;
    job->turn = w.turn;
    job->order = w.order++;
    MUST(aloop_handle_when(loop, job->handle) == job->when);
  } else {
    job->pending = false;
  }
  if (job->kind != POST) MUST(aloop_handle_pending(loop, job->handle) == (job->kind == EVERY));
  react();
}

static job_t *new_job(kind_t kind) {
  if (w.job_count == JOBS) return NULL;
  job_t *job = &w.jobs[w.job_count];
  *job = (job_t){.kind = kind, .pending = true, .turn = w.turn, .context = current_context()};
  return job;
}

static void keep_job(job_t *job) {
  if (aloop_handle_error(job->handle) < 0) {
    MUST(w.starved && aloop_handle_error(job->handle) == ALOOP_ENOMEM);
    return;
  }
  MUST(aloop_handle_pending(w.loop, job->handle));
  w.job_count++;
  if (job->kind == SOON) queue((due_t){.job = job});
  if (job->kind < TIMER) return;
  job->order = w.order++;
  MUST(aloop_handle_when(w.loop, job->handle) == job->when);
}

void call_soon(void) {
  job_t *job = new_job(SOON);
  if (job == NULL) return;
  job->handle = aloop_call_soon(w.loop, run_job, job);
  keep_job(job);
}

void post(void) {
  job_t *job = new_job(POST);
  if (job == NULL) return;
  job->context = NULL;
  if (!answered(aloop_call_soon_threadsafe(w.loop, run_job, job), 0)) return;
  w.posts[w.posts_tail++] = w.job_count++;
}

void call_later(void) {
  job_t *job = new_job(TIMER);
  if (job == NULL) return;
  int64_t delay = (int64_t)byte() - 10;
  job->when = aloop_time(w.loop) + (delay < 0 ? 0 : delay);
  job->handle = aloop_call_later(w.loop, delay, run_job, job);
  keep_job(job);
}

void call_at(void) {
  job_t *job = new_job(TIMER);
  if (job == NULL) return;
  job->when = aloop_time(w.loop) + byte() - 30;
  job->handle = aloop_call_at(w.loop, job->when, run_job, job);
  keep_job(job);
}

void call_every(void) {
  job_t *job = new_job(EVERY);
  if (job == NULL) return;
  job->period = 1 + byte();
  job->when = aloop_time(w.loop) + job->period;
  job->handle = aloop_call_every(w.loop, job->period, run_job, job);
  keep_job(job);
}

static job_t *some_job(void) {
  job_t *job = w.job_count > 0 ? &w.jobs[w.job_count - 1 - (int)byte() % w.job_count] : NULL;
  return job == NULL || job->kind == POST ? NULL : job;
}

void cancel_job(void) {
  job_t *job = some_job();
  if (job == NULL) return;
  aloop_handle_t copy = job->handle;
  MUST(aloop_cancel(w.loop, &job->handle) == job->pending);
  MUST(aloop_handle_cancelled(job->handle) || !job->pending);
  MUST(aloop_cancel(w.loop, &copy) == 0);
  job->pending = false;
}

void reschedule(void) {
  job_t *job = some_job();
  if (job == NULL) return;
  bool possible = job->pending && job->kind >= TIMER;
  int64_t when = aloop_time(w.loop) + byte() - 30;
  MUST(aloop_reschedule(w.loop, &job->handle, when) == (possible ? 0 : ALOOP_ENOENT));
  if (!possible) return;
  job->when = when;
  job->order = w.order++;
  job->turn = w.turn;
  MUST(aloop_handle_when(w.loop, job->handle) == when);
}

void set_variable(void) {
  void *value = (void *)(uintptr_t)(byte() & 7);
  if (!answered(aloop_var_set(w.loop, w.var, value, NULL, NULL), 0)) return;
  MUST(current_context() == value);
  if (aloop_is_running(w.loop)) w.changed = w.turn;
}

static void act_in_context(aloop_t *loop, void *arg) {
  (void)loop;
  (void)arg;
  react();
}

void run_context(void) {
  aloop_context_t *context;
  void *before = current_context();
  if (!answered(aloop_context_copy(w.loop, &context), 0)) return;
  MUST(aloop_context_run(w.loop, context, act_in_context, NULL) == 0);
  MUST(current_context() == before);
  aloop_context_unref(context);
}
