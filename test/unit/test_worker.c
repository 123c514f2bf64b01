/* SPDX-License-Identifier: MIT
 *
 * One job's way to a worker and back: small and large bytes, results, replies, and workers that end before
 * they have answered. threads: yes
 */
#include "executor/worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

static int initialized;

static void initialize(void *arg) {
  initialized += *(int *)arg;
}

static int64_t tell_initialized(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  return initialized;
}

static int64_t echo(const void *data, size_t size, aloop_reply_t *reply) {
  int rc = aloop_reply_add(reply, data, size);
  return rc < 0 ? rc : (int64_t)size;
}

static int64_t length_of_string(const void *data, size_t size, aloop_reply_t *reply) {
  (void)size, (void)reply;
  return (int64_t)strlen(data);
}

static int64_t sum(const void *data, size_t size, aloop_reply_t *reply) {
  const unsigned char *bytes = data;
  int64_t total = 0;
  (void)reply;
  for (size_t i = 0; i < size; i++) total += bytes[i];
  return total;
}

static int64_t refuse(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size;
  aloop_reply_add(reply, "not ", 4);
  aloop_reply_add(reply, "today", 5);
  return ALOOP_EPERM;
}

static int64_t die(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  _exit(7);
}

static int64_t babble(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  char nonsense[100];
  memset(nonsense, 'n', sizeof nonsense);
  send(3, nonsense, sizeof nonsense, MSG_NOSIGNAL);
  return 0;
}

static int64_t reply_oddly(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size;
  if (aloop_reply_add(NULL, "x", 1) != ALOOP_EINVAL) return 1;
  if (aloop_reply_add(reply, NULL, 1) != ALOOP_EINVAL) return 2;
  if (aloop_reply_add(reply, "x", SIZE_MAX) != ALOOP_ENOMEM) return 3;
  if (aloop_reply_add(reply, NULL, 0) != 0) return 4;
  return 0;
}

/* ---- Their way ------------------------------------------------------------------------------------------- */

typedef struct team {
  aloop__nursery_t nursery;
  aloop__worker_t worker;
  int64_t result;
  aloop_bytes_t *bytes;
} team_t;

static int five = 5;
static aloop__worker_setup_t setup = {initialize, &five};

static void begin(team_t *team) {
  *team = (team_t){{0}, {0}, 0, NULL};
  assert_int_equal(aloop__nursery_open(&team->nursery, 1, aloop__worker_serve, &setup), 0);
  assert_int_equal(aloop__nursery_fork(&team->nursery, &team->worker), 0);
}

static int call(team_t *team, aloop_process_fn fn, const void *data, size_t size) {
  free(team->bytes);
  team->bytes = NULL;
  team->result = -1;
  return aloop__worker_call(&team->worker, fn, data, size, &team->result, &team->bytes);
}

static void end(team_t *team) {
  free(team->bytes);
  aloop__worker_forget(&team->worker);
  aloop__nursery_close(&team->nursery);
}

static void end_with(team_t *team, const char *how) {
  char text[ALOOP__WORKER_TEXT];
  aloop__worker_end(&team->worker, text);
  if (strstr(text, how) == NULL) fail_msg("\"%s\" does not say \"%s\"", text, how);
  end(team);
}

static void bytes_go_to_and_fro(void **state) {
  (void)state;
  team_t team;
  begin(&team);
  assert_int_equal(call(&team, echo, "hello", 5), 0);
  assert_int_equal(team.result, 5);
  assert_int_equal(team.bytes->size, 5);
  assert_string_equal(team.bytes->data, "hello"); /* there is a zero byte */
  assert_int_equal(call(&team, length_of_string, "four and more", 4), 0);
  assert_int_equal(team.result, 4);
  assert_int_equal(team.bytes->size, 0);
  end(&team);
}

static void no_bytes_are_fine(void **state) {
  (void)state;
  team_t team;
  begin(&team);
  assert_int_equal(call(&team, echo, NULL, 0), 0);
  assert_int_equal(team.result, 0);
  assert_int_equal(team.bytes->size, 0);
  assert_string_equal(team.bytes->data, "");
  end(&team);
}

static void one_worker_does_many_jobs(void **state) {
  (void)state;
  team_t team;
  begin(&team);
  for (int i = 0; i < 1000; i++) {
    assert_int_equal(call(&team, echo, &i, sizeof i), 0);
    assert_memory_equal(team.bytes->data, &i, sizeof i);
  }
  end_with(&team, "exited with code 0");
}

static void the_initializer_runs_first_and_once(void **state) {
  (void)state;
  team_t team;
  begin(&team);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(call(&team, tell_initialized, NULL, 0), 0);
    assert_int_equal(team.result, 5);
  }
  end(&team);
  assert_int_equal(initialized, 0); /* here it did not */
}

static void errors_come_with_a_reply(void **state) {
  (void)state;
  team_t team;
  begin(&team);
  assert_int_equal(call(&team, refuse, NULL, 0), 0);
  assert_int_equal(team.result, ALOOP_EPERM);
  assert_string_equal(team.bytes->data, "not today");
  assert_int_equal(call(&team, reply_oddly, NULL, 0), 0);
  assert_int_equal(team.result, 0);
  end(&team);
}

static void large_bytes_go_to_and_fro(void **state) {
  (void)state;
  enum { SIZE = 100 << 20 };
  team_t team;
  unsigned char *data = malloc(SIZE);
  assert_non_null(data);
  int64_t total = 0;
  for (size_t i = 0; i < SIZE; i++) total += data[i] = (unsigned char)(i * 7 + i / 4096);
  begin(&team);
  assert_int_equal(call(&team, sum, data, SIZE), 0);
  assert_int_equal(team.result, total);
  assert_int_equal(call(&team, echo, data, SIZE), 0);
  assert_int_equal(team.bytes->size, SIZE);
  assert_memory_equal(team.bytes->data, data, SIZE);
  end(&team);
  free(data);
}

/* ---- Ends ------------------------------------------------------------------------------------------------ */

static void a_worker_that_dies_at_its_job_is_an_error(void **state) {
  (void)state;
  team_t team;
  begin(&team);
  assert_int_equal(call(&team, die, NULL, 0), ALOOP_ECRASHED);
  assert_null(team.bytes);
  end_with(&team, "exited with code 7");
}

static void a_worker_that_died_before_is_an_error(void **state) {
  (void)state;
  static char data[4 << 20]; /* more than a socket takes; SIGPIPE would kill this process */
  team_t team;
  begin(&team);
  kill(team.worker.pid, SIGKILL);
  assert_int_equal(call(&team, echo, data, sizeof data), ALOOP_ECRASHED);
  end_with(&team, "SIGKILL");
}

static void a_worker_that_says_nonsense_is_an_error(void **state) {
  (void)state;
  team_t team;
  begin(&team);
  assert_int_equal(call(&team, babble, NULL, 0), ALOOP_ECRASHED);
  end(&team);
}

static void a_kill_ends_the_call(void **state) {
  (void)state;
  static char data[4 << 20];
  team_t team;
  begin(&team);
  aloop__worker_kill(&team.worker);
  while (call(&team, echo, data, sizeof data) == 0) continue;
  end_with(&team, "SIGKILL");
}

static int64_t limit_memory(const void *data, size_t size, aloop_reply_t *reply) {
  (void)data, (void)size, (void)reply;
  struct rlimit limit = {64 << 20, 64 << 20};
  return setrlimit(RLIMIT_AS, &limit);
}

static void want_of_memory_in_the_worker_is_an_answer(void **state) {
  (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  skip(); /* their shadow memory is beyond any limit */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  skip();
#endif
#endif
  enum { SIZE = 100 << 20 };
  team_t team;
  begin(&team);
  char *data = calloc(1, SIZE); /* after the fork, or the worker would be over its limit from the beginning */
  assert_non_null(data);
  assert_int_equal(call(&team, limit_memory, NULL, 0), 0);
  if (team.result == 0) {
    assert_int_equal(call(&team, echo, data, SIZE), 0);
    assert_int_equal(team.result, ALOOP_ENOMEM);
    assert_int_equal(call(&team, echo, "on", 2), 0);
    assert_string_equal(team.bytes->data, "on");
  }
  end(&team);
  free(data);
}

TESTS(T(bytes_go_to_and_fro), T(no_bytes_are_fine), T(one_worker_does_many_jobs),
      T(the_initializer_runs_first_and_once), T(errors_come_with_a_reply), T(large_bytes_go_to_and_fro),
      T(a_worker_that_dies_at_its_job_is_an_error), T(a_worker_that_died_before_is_an_error),
      T(a_worker_that_says_nonsense_is_an_error), T(a_kill_ends_the_call),
      T(want_of_memory_in_the_worker_is_an_answer))
