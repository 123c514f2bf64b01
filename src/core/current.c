/* SPDX-License-Identifier: MIT
 *
 * Which loop a thread has: the one running in it, the one set for it, and the policy that may decide
 * otherwise. The policy is the library's only process-wide setting; beside it there is a count of forks, kept
 * by a pthread_atfork handler that the first loop installs. The handler also forgets the running loop in the
 * child, whose thread is not inside a run call any more as far as the library is concerned: the inherited loop
 * is unusable there until aloop_after_fork, and if the callback that forked returns, its run ends.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "core/loop.h"
#include "core/memory.h"
#include "core/report.h"

_Thread_local ALOOP__AT_HAND aloop_t *aloop__current_running;
static _Thread_local aloop_t *chosen;
static _Atomic(const aloop_policy_t *) policy;
atomic_uint aloop__current_forked;
static pthread_once_t watch_forks = PTHREAD_ONCE_INIT;

static void after_fork_in_child(void) {
  atomic_fetch_add(&aloop__current_forked, 1);
  if (aloop__current_running != NULL) aloop__loop_inherit(aloop__current_running);
  aloop__current_running = NULL;
}

static void install_fork_handler(void) {
  pthread_atfork(NULL, NULL, after_fork_in_child);
}

unsigned aloop__current_forks(void) {
  pthread_once(&watch_forks, install_fork_handler);
  return aloop__current_forks_seen();
}

aloop_t *aloop__current_run(aloop_t *loop) {
  aloop_t *before = aloop__current_running;
  aloop__current_running = loop;
  return before;
}

void aloop__current_forget(const aloop_t *loop) {
  if (chosen == loop) chosen = NULL;
}

aloop_t *aloop_running_loop(void) {
  return aloop__current_running;
}

static int default_get(void *user, aloop_t **loop) {
  (void)user;
  if (chosen == NULL) return ALOOP_ENOLOOP;
  *loop = chosen;
  return 0;
}

static int default_set(void *user, aloop_t *loop) {
  (void)user;
  chosen = loop;
  return 0;
}

static const aloop_policy_t default_policy = {
    .size = sizeof(aloop_policy_t), .get_current = default_get, .set_current = default_set};

/* The policy in force with every member that an older caller's struct may lack. */
static aloop_policy_t policy_now(void) {
  aloop_policy_t now = default_policy;
  const aloop_policy_t *set = atomic_load(&policy);
  if (set != NULL) aloop__memory_copy_options(&now, sizeof now, set);
  if (now.get_current == NULL) now.get_current = default_get;
  if (now.set_current == NULL) now.set_current = default_set;
  return now;
}

int aloop_set_policy(const aloop_policy_t *table) {
  aloop_policy_t copy;
  if (table != NULL && aloop__memory_copy_options(&copy, sizeof copy, table) < 0)
    return aloop__misuse(NULL, ALOOP_EINVAL, "set policy.size to sizeof(aloop_policy_t) and nothing behind it");
  atomic_store(&policy, table);
  return 0;
}

const aloop_policy_t *aloop_get_policy(void) {
  const aloop_policy_t *set = atomic_load(&policy);
  return set != NULL ? set : &default_policy;
}

int aloop_current(aloop_t **loop) {
  if (loop == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "aloop_current needs a place for the loop");
  if (aloop__current_running != NULL) {
    *loop = aloop__current_running;
    return 0;
  }
  aloop_policy_t now = policy_now();
  return now.get_current(now.user, loop);
}

int aloop_set_current(aloop_t *loop) {
  aloop_policy_t now = policy_now();
  return now.set_current(now.user, loop);
}

void aloop__current_adjust(aloop_options_t *options) {
  aloop_policy_t now = policy_now();
  if (now.adjust_options != NULL) now.adjust_options(now.user, options);
}
