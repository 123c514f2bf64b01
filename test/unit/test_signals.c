/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 * threads: yes
 *
 * Signals of a loop: that its handlers are called, how often, in which order, and that nothing of it is left.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct heard {
  trace_t trace;
  int calls;
  int last;
} heard_t;

static void hear(aloop_t *loop, int signum, void *arg) {
  (void)loop;
  heard_t *heard = arg;
  heard->calls++;
  heard->last = signum;
}

static void a_handler_is_called_with_the_signal(void **state) {
  env_t *env = *state;
  heard_t heard = {0};
  assert_int_equal(aloop_add_signal_handler(env->loop, SIGUSR1, hear, &heard, 0), 0);
  raise(SIGUSR1);
  assert_int_equal(heard.calls, 0);
  run_turn(env->loop); /* the wake-up is read, */
  assert_int_equal(heard.calls, 0);
  run_turn(env->loop); /* the call is made */
  assert_int_equal(heard.calls, 1);
  assert_int_equal(heard.last, SIGUSR1);
  run_turn(env->loop);
  run_turn(env->loop);
  assert_int_equal(heard.calls, 1);
}

TESTS(T(a_handler_is_called_with_the_signal))
