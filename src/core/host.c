/* SPDX-License-Identifier: MIT
 *
 * Living with a host: another event loop that runs this one inside it, and fork.
 *
 * A host polls aloop_backend_fd for reading, waits no longer than aloop_next_timeout and then calls
 * aloop_run_once(loop, 0). The hook tells it when that timeout has become shorter between two turns. Inside a
 * turn the hook is silent: the host asks again after the turn anyway.
 *
 * In the child of a fork the inherited epoll and kqueue descriptors belong to the parent, so the loop refuses
 * to run until aloop_after_fork has opened its own and registered every watch again. Nothing is registered with
 * or unregistered from the inherited ones, not even when the child closes the loop: that would change what the
 * parent sees. What the child watches meanwhile is only noted (watch.c). The step of opening anew also serves
 * when a poller is beyond repair (see watch.c on stale events).
 */
#include "core/loop.h"
#include "core/clock.h"
#include "core/memory.h"
#include "core/report.h"

/* Gives a fresh poller everything that is watched or asked for. */
static int fill_poller(aloop_t *loop, void *fresh, aloop__losses_t *losses) {
  int rc = aloop__watch_register_all(loop, fresh, losses);
  if (rc < 0 || loop->requests == NULL) return rc;
  /* In the child of a fork what the poller has is the parent's. */
  if (loop->fork_generation == aloop__current_forks()) loop->requests->leaving(loop);
  return loop->requests->moved(loop, fresh);
}

static void change_poller(aloop_t *loop, void *fresh) {
  int64_t before = aloop__clock_now(loop);
  loop->poller->close(loop->poller_state);
  loop->poller_state = fresh;
  unsigned forks = aloop__current_forks();
  /* It is this process's own. Other threads read this (aloop_is_running): written only when it changes. */
  if (loop->fork_generation != forks) loop->fork_generation = forks;
  int64_t after = aloop__clock_now(loop);
  if (after < before) loop->clock_offset += before - after; /* a clock of its own began again */
}

int aloop__loop_rebuild(aloop_t *loop) {
  aloop__losses_t losses = {0};
  void *fresh;
  int rc = loop->poller->open(loop->poller_arg, &loop->allocator, &fresh);
  if (rc < 0) return rc;
  rc = fill_poller(loop, fresh, &losses);
  if (rc == 0) {
    change_poller(loop, fresh);
    aloop__watch_report_losses(loop, &losses);
  } else {
    loop->poller->close(fresh);
  }
  aloop__memory_release(loop, losses.list);
  return rc;
}

static int tell_rooms(aloop_t *loop) {
  for (int i = 0; i < ALOOP__ROOMS; i++) {
    aloop__room_t *room = loop->rooms[i];
    int rc = room != NULL && room->after_fork != NULL ? room->after_fork(loop, room) : 0;
    if (rc < 0) return rc;
  }
  return 0;
}

static int begin_anew(aloop_t *loop) {
  int rc = aloop__mailbox_after_fork(loop);
  if (rc < 0) return rc;
  /* The inherited wake-up descriptor is shared with the parent: a wake-up meant for one would be eaten by the
   * other. The watch of the new one is only noted by now, like all that the child has changed. */
  aloop__wake_close(loop);
  rc = aloop__wake_open(loop);
  if (rc == 0) rc = aloop__wake_listen(loop); /* a host may be waiting already */
  if (rc == 0) rc = tell_rooms(loop);
  return rc == 0 ? aloop__loop_rebuild(loop) : rc;
}

/* Destructors and the exception handler, who are called meanwhile, find the loop running: as in a run it can
 * neither be closed nor run by them. */
int aloop_after_fork(aloop_t *loop) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (loop->fork_generation == aloop__current_forks()) return 0;
  aloop_t *other = aloop__current_run(loop);
  if (other == loop) return aloop__misuse(loop, ALOOP_ERUNNING, "aloop_after_fork is at work on this loop");
  loop->thread = pthread_self();
  aloop__loop_set_running(loop, true);
  rc = begin_anew(loop);
  aloop__loop_set_running(loop, false);
  aloop__current_run(other);
  return rc;
}

/* A poller of one thread is told of its host by an argument. */
static int begin_hosting(aloop_t *loop) {
  if ((loop->poller->flags & ALOOP_POLLER_ONE_THREAD) == 0 || loop->poller_arg != NULL) return 0;
  loop->poller_arg = loop;
  int rc = aloop__loop_rebuild(loop);
  if (rc < 0) loop->poller_arg = NULL;
  return rc;
}

int aloop_backend_fd(const aloop_t *loop) {
  int rc = aloop__loop_enter((aloop_t *)loop);
  if (rc < 0) return rc;
  if (loop->poller->backend_fd == NULL) return ALOOP_ENOTSUP;
  aloop__loop_hold((aloop_t *)loop); /* the exception handler may hear of a loss and free it */
  rc = begin_hosting((aloop_t *)loop);
  if (rc == 0 && (loop->guard & ALOOP__GUARD_CLOSED)) rc = ALOOP_ECLOSED;
  if (rc == 0) rc = aloop__wake_listen((aloop_t *)loop);
  if (rc == 0) rc = loop->poller->backend_fd(loop->poller_state);
  aloop__loop_drop((aloop_t *)loop);
  return rc;
}

int64_t aloop_next_timeout(aloop_t *loop) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  uint32_t attention = loop->attention & ~(uint32_t)ALOOP__INHERITED;
  if (loop->head != loop->tail || attention != 0 || aloop__mailbox_pending(loop)) return 0;
  int64_t deadline = aloop__timers_next(loop);
  if (deadline == ALOOP__NEVER) return ALOOP_FOREVER;
  int64_t wait = deadline - aloop_update_time(loop);
  return wait > 0 ? wait : 0;
}

int aloop_set_armed_hook(aloop_t *loop, aloop_callback_fn hook, void *arg) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  loop->hook = hook;
  loop->hook_arg = arg;
  if (hook != NULL)
    loop->guard |= ALOOP__GUARD_HOOK;
  else
    loop->guard &= ~(uint32_t)ALOOP__GUARD_HOOK;
  aloop__ready_set_limit(loop);
  return 0;
}

const char *aloop_poller_reason(const aloop_t *loop) {
  if (loop != NULL) return loop->poller_reason != NULL ? loop->poller_reason : "";
  aloop__misuse(NULL, ALOOP_EINVAL, "the loop is NULL");
  return "";
}

const char *aloop_poller_name(const aloop_t *loop) {
  if (loop != NULL) return loop->poller->name;
  aloop__misuse(NULL, ALOOP_EINVAL, "the loop is NULL");
  return "";
}
