/* SPDX-License-Identifier: MIT
 *
 * threads: yes
 *
 * Which loop a thread has: the running one, the one that was set, and the policy.
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

static void note_running(aloop_t *loop, void *arg) {
  (void)loop;
  *(aloop_t **)arg = aloop_running_loop();
}

static void no_loop_runs_at_first(void **state) {
  env_t *env = *state;
  aloop_t *loop = env->loop;
  assert_null(aloop_running_loop());
  assert_int_equal(aloop_current(&loop), ALOOP_ENOLOOP);
  assert_ptr_equal(loop, env->loop);
  assert_int_equal(aloop_current(NULL), ALOOP_EINVAL);
}

static void the_running_loop_is_known_inside(void **state) {
  env_t *env = *state;
  aloop_t *seen = NULL;
  aloop_call_soon(env->loop, note_running, &seen);
  run_turn(env->loop);
  assert_ptr_equal(seen, env->loop);
  assert_null(aloop_running_loop());
}

static void note_current(aloop_t *loop, void *arg) {
  (void)loop;
  assert_int_equal(aloop_current(arg), 0);
}

static void a_thread_can_have_a_loop_set(void **state) {
  env_t *env = *state;
  aloop_t *seen = NULL, *other;
  assert_int_equal(aloop_new(NULL, &other), 0);
  assert_int_equal(aloop_set_current(env->loop), 0);
  assert_int_equal(aloop_current(&seen), 0);
  assert_ptr_equal(seen, env->loop);
  aloop_call_soon(other, note_current, &seen); /* the running one wins */
  aloop_run_once(other, 0);
  assert_ptr_equal(seen, other);
  assert_int_equal(aloop_set_current(NULL), 0);
  assert_int_equal(aloop_current(&seen), ALOOP_ENOLOOP);
  aloop_free(other);
}

static void a_freed_loop_is_set_no_longer(void **state) {
  env_t *env = *state;
  aloop_t *seen;
  aloop_set_current(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(aloop_current(&seen), ALOOP_ENOLOOP);
}

static void *look_from_elsewhere(void *arg) {
  (void)arg;
  aloop_t *loop = NULL;
  if (aloop_current(&loop) != ALOOP_ENOLOOP || aloop_running_loop() != NULL) return "seen";
  if (aloop_new(NULL, &loop) < 0) return "no loop";
  aloop_set_current(loop);
  aloop_free(loop);
  return NULL;
}

static void look_from_another_thread(aloop_t *loop, void *arg) {
  (void)loop;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, look_from_elsewhere, NULL), 0);
  pthread_join(thread, arg);
}

static void each_thread_has_its_own(void **state) {
  env_t *env = *state;
  void *problem = env;
  aloop_set_current(env->loop);
  aloop_call_soon(env->loop, look_from_another_thread, &problem);
  run_turn(env->loop);
  assert_null(problem);
  aloop_t *seen;
  assert_int_equal(aloop_current(&seen), 0);
  assert_ptr_equal(seen, env->loop);
}

/* ---- Policy -------------------------------------------------------------------------------------------------- */

typedef struct rules {
  aloop_t *loop;
  int gets, sets, adjusts;
} rules_t;

static int get_by_rules(void *user, aloop_t **loop) {
  rules_t *rules = user;
  rules->gets++;
  *loop = rules->loop;
  return 0;
}

static int set_by_rules(void *user, aloop_t *loop) {
  rules_t *rules = user;
  rules->sets++;
  rules->loop = loop;
  return 0;
}

static void adjust_by_rules(void *user, aloop_options_t *options) {
  rules_t *rules = user;
  rules->adjusts++;
  options->poller = "virtual";
}

static void be_stopped(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

/* Stops the loop once it runs, and sees it end. */
static void *watch_run(void *loop) {
  while (!aloop_is_running(loop)) sched_yield();
  aloop_call_soon_threadsafe(loop, be_stopped, NULL);
  while (aloop_is_running(loop)) sched_yield();
  return NULL;
}

static void another_thread_may_ask_whether_a_loop_runs(void **state) {
  env_t *env = *state;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, watch_run, env->loop), 0);
  assert_int_equal(aloop_run_forever(env->loop), 0);
  pthread_join(thread, NULL);
}

static void a_policy_decides(void **state) {
  env_t *env = *state;
  rules_t rules = {0};
  aloop_policy_t policy = {sizeof policy, get_by_rules, set_by_rules, adjust_by_rules, &rules};
  assert_int_equal(aloop_set_policy(&policy), 0);
  assert_ptr_equal(aloop_get_policy(), &policy);
  aloop_t *seen = NULL, *made;
  assert_int_equal(aloop_set_current(env->loop), 0);
  assert_int_equal(aloop_current(&seen), 0);
  assert_ptr_equal(seen, env->loop);
  assert_int_equal(rules.sets, 1);
  assert_int_equal(rules.gets, 1);
  assert_int_equal(aloop_new(NULL, &made), 0);
  assert_int_equal(rules.adjusts, 1);
  assert_string_equal(aloop_poller_name(made), "virtual");
  aloop_free(made);
  assert_int_equal(aloop_set_policy(NULL), 0);
  assert_int_equal(aloop_current(&seen), ALOOP_ENOLOOP);
}

static void a_policy_may_leave_members_out(void **state) {
  env_t *env = *state;
  rules_t rules = {0};
  aloop_policy_t policy = {.size = sizeof policy, .adjust_options = adjust_by_rules, .user = &rules};
  assert_int_equal(aloop_set_policy(&policy), 0);
  aloop_t *seen;
  assert_int_equal(aloop_set_current(env->loop), 0);
  assert_int_equal(aloop_current(&seen), 0);
  assert_ptr_equal(seen, env->loop);
  aloop_set_current(NULL);
  aloop_set_policy(NULL);
}

static void there_is_always_a_policy(void **state) {
  env_t *env = *state;
  const aloop_policy_t *policy = aloop_get_policy();
  assert_non_null(policy);
  aloop_t *seen;
  assert_int_equal(policy->set_current(policy->user, env->loop), 0);
  assert_int_equal(policy->get_current(policy->user, &seen), 0);
  assert_ptr_equal(seen, env->loop);
  aloop_set_current(NULL);
  aloop_policy_t unsized_policy = {.size = 0};
  assert_int_equal(aloop_set_policy(&unsized_policy), ALOOP_EINVAL);
  assert_ptr_equal(aloop_get_policy(), policy);
}

TESTS(T(no_loop_runs_at_first), T(the_running_loop_is_known_inside), T(a_thread_can_have_a_loop_set),
      T(a_freed_loop_is_set_no_longer), T(each_thread_has_its_own),
      T(another_thread_may_ask_whether_a_loop_runs), T(a_policy_decides), T(a_policy_may_leave_members_out),
      T(there_is_always_a_policy))
