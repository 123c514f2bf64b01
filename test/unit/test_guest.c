/* SPDX-License-Identifier: MIT
 *
 * Guests of a loop: each gets its farewell when the loop is closed, unless it has left.
 * threads: yes
 */
#include "harness.h"

#include <pthread.h>

#include "core/guest.h"
#include "core/loop.h"

static int farewells;

static void count(aloop__guest_t *guest) {
  (void)guest;
  farewells++;
}

static void who_is_there_gets_a_farewell(void **state) {
  env_t *env = *state;
  aloop__guest_t guests[3] = {{.farewell = count}, {.farewell = count}, {.farewell = count}};
  farewells = 0;
  assert_true(aloop__guests_join(env->loop, &guests[0]));
  assert_true(aloop__guests_join(env->loop, &guests[1]));
  aloop__guests_leave(env->loop, &guests[0]);
  assert_true(aloop__guests_join(env->loop, &guests[2]));
  aloop_close(env->loop);
  assert_int_equal(farewells, 2);
}

static void nobody_comes_into_a_closed_loop(void **state) {
  env_t *env = *state;
  aloop__guest_t guest = {.farewell = count};
  aloop_close(env->loop);
  assert_false(aloop__guests_join(env->loop, &guest));
}

enum { GUESTS = 1000 };

typedef struct crowd {
  aloop_t *loop;
  aloop__guest_t guests[GUESTS];
  int joined;
} crowd_t;

static void *arrive(void *arg) {
  crowd_t *self = arg;
  for (int i = 0; i < GUESTS; i++) {
    self->guests[i].farewell = count;
    self->joined += aloop__guests_join(self->loop, &self->guests[i]);
  }
  return NULL;
}

static void they_come_from_any_thread(void **state) {
  env_t *env = *state;
  static crowd_t crowds[2];
  pthread_t threads[2];
  farewells = 0;
  for (int i = 0; i < 2; i++) {
    crowds[i].loop = env->loop;
    crowds[i].joined = 0;
    assert_int_equal(pthread_create(&threads[i], NULL, arrive, &crowds[i]), 0);
  }
  aloop__guest_t guest = {.farewell = count};
  for (int i = 0; i < 1000; i++) {
    assert_true(aloop__guests_join(env->loop, &guest));
    aloop__guests_leave(env->loop, &guest);
  }
  pthread_join(threads[0], NULL);
  pthread_join(threads[1], NULL);
  aloop_close(env->loop);
  assert_int_equal(farewells, crowds[0].joined + crowds[1].joined);
  assert_int_equal(farewells, 2 * GUESTS);
}

TESTS(T(who_is_there_gets_a_farewell), T(nobody_comes_into_a_closed_loop), T(they_come_from_any_thread))
