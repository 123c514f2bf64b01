/* SPDX-License-Identifier: MIT
 *
 * pollers: all
 *
 * add_reader, add_writer and their removal: who is called, who is not any more, what is refused.
 */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/loop.h"

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void put(int fd) {
  assert_int_equal(write(fd, "x", 1), 1);
}

static void take(int fd) {
  char byte;
  assert_int_equal(read(fd, &byte, 1), 1);
}

static void close_both(const int fds[2]) {
  close(fds[0]);
  close(fds[1]);
}

/* A pair of sockets of which [0] is readable, and both are writable. */
static void make_ready_pair(int fds[2]) {
  make_socketpair(fds);
  put(fds[1]);
}

/* ---- Called -------------------------------------------------------------------------------------------------- */

static void a_reader_is_called_while_there_is_something_to_read(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_pipe(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  run_turn(env->loop);
  assert_int_equal(calls, 0);
  put(fds[1]);
  for (int i = 1; i <= 3; i++) {
    assert_int_equal(run_turn(env->loop), 1);
    assert_int_equal(calls, i);
  }
  take(fds[0]);
  run_turn(env->loop);
  assert_int_equal(calls, 3);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close_both(fds);
}

static void a_writer_is_called_while_there_is_room(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  static char block[65536];
  make_pipe(fds);
  assert_int_equal(aloop_add_writer(env->loop, fds[1], count, &calls), 0);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
  while (write(fds[1], block, sizeof block) > 0) continue;
  run_turn(env->loop);
  assert_int_equal(calls, 1);
  while (read(fds[0], block, sizeof block) > 0) continue;
  run_turn(env->loop);
  assert_int_equal(calls, 2);
  assert_int_equal(aloop_remove_writer(env->loop, fds[1]), 1);
  close_both(fds);
}

static void the_reader_of_a_descriptor_comes_before_its_writer(void **state) {
  env_t *env = *state;
  int fds[2];
  trace_t trace = {0};
  step_t reader = {&trace, 'r'}, writer = {&trace, 'w'};
  make_ready_pair(fds);
  aloop_add_writer(env->loop, fds[0], trace_step, &writer);
  aloop_add_reader(env->loop, fds[0], trace_step, &reader);
  run_turn(env->loop);
  assert_string_equal(trace.text, "rw");
  aloop_remove_reader(env->loop, fds[0]);
  run_turn(env->loop);
  assert_string_equal(trace.text, "rww");
  aloop_add_reader(env->loop, fds[0], trace_step, &reader);
  aloop_remove_writer(env->loop, fds[0]);
  run_turn(env->loop);
  assert_string_equal(trace.text, "rwwr");
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

static void a_hang_up_wakes_both_sides(void **state) {
  env_t *env = *state;
  int fds[2], reads = 0, writes = 0;
  make_socketpair(fds);
  close(fds[1]);
  aloop_add_reader(env->loop, fds[0], count, &reads);
  aloop_add_writer(env->loop, fds[0], count, &writes);
  run_turn(env->loop);
  assert_int_equal(reads, 1);
  assert_int_equal(writes, 1);
  aloop_remove_reader(env->loop, fds[0]);
  aloop_remove_writer(env->loop, fds[0]);
  close(fds[0]);
}

static void many_descriptors_are_told_apart(void **state) {
  env_t *env = *state;
  enum { COUNT = 60 };
  int fds[COUNT][2], calls[COUNT] = {0};
  for (int i = 0; i < COUNT; i++) {
    make_pipe(fds[i]);
    assert_int_equal(aloop_add_reader(env->loop, fds[i][0], count, &calls[i]), 0);
  }
  for (int i = 0; i < COUNT; i += 3) put(fds[i][1]);
  assert_int_equal(run_turn(env->loop), COUNT / 3);
  for (int i = 0; i < COUNT; i++) {
    assert_int_equal(calls[i], i % 3 == 0);
    aloop_remove_reader(env->loop, fds[i][0]);
    close_both(fds[i]);
  }
}

typedef struct look {
  aloop_var_t *var;
  const char *seen;
} look_t;

static void look(aloop_t *loop, void *arg) {
  look_t *self = arg;
  self->seen = aloop_var_get(loop, self->var, "none");
  aloop_var_set(loop, self->var, "set inside", NULL, NULL);
}

static void a_callback_runs_in_the_context_of_its_adding(void **state) {
  env_t *env = *state;
  int fds[2];
  look_t self = {0};
  make_ready_pair(fds);
  assert_int_equal(aloop_var_new("v", &self.var), 0);
  aloop_var_set(env->loop, self.var, "when added", NULL, NULL);
  aloop_add_reader(env->loop, fds[0], look, &self);
  aloop_var_set(env->loop, self.var, "later", NULL, NULL);
  for (int i = 0; i < 2; i++) {
    self.seen = NULL;
    run_turn(env->loop);
    assert_string_equal(self.seen, "when added");
  }
  aloop_remove_reader(env->loop, fds[0]);
  aloop_var_unref(self.var);
  close_both(fds);
}

static void count_destroy(void *arg) {
  ++*(int *)arg;
}

static void removing_releases_the_context_at_once(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0, destroyed = 0;
  aloop_var_t *var;
  make_socketpair(fds);
  assert_int_equal(aloop_var_new("v", &var), 0);
  aloop_add_writer(env->loop, fds[0], count, &calls);
  aloop_var_set(env->loop, var, &destroyed, count_destroy, NULL);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  aloop_var_set(env->loop, var, NULL, NULL, NULL);
  assert_int_equal(destroyed, 0);
  aloop_remove_reader(env->loop, fds[0]); /* the writer stays */
  assert_int_equal(destroyed, 1);
  aloop_remove_writer(env->loop, fds[0]);
  aloop_var_unref(var);
  close_both(fds);
}

/* ---- Called no more ------------------------------------------------------------------------------------------ */

static void removing_tells_whether_there_was_something(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_ready_pair(fds);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 0);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 0);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 0);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 0);
  assert_int_equal(aloop_remove_reader(env->loop, 60000), 0);
  assert_int_equal(aloop_remove_reader(env->loop, -1), ALOOP_EBADF);
  run_turn(env->loop);
  assert_int_equal(calls, 0);
  close_both(fds);
}

static void adding_again_replaces(void **state) {
  env_t *env = *state;
  int fds[2], old = 0, new = 0;
  make_ready_pair(fds);
  aloop_add_reader(env->loop, fds[0], count, &old);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &new), 0);
  run_turn(env->loop);
  assert_int_equal(old, 0);
  assert_int_equal(new, 1);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 0);
  close_both(fds);
}

/* Two ready descriptors; whichever reader comes first does something to the other. */
typedef struct rivals {
  int pairs[2][2];
  struct rival {
    struct rivals *all;
    int index;
    int calls;
  } each[2];
  int replacements;
  int spare[2];
} rivals_t;

static struct rival *rival_of(struct rival *rival) {
  return &rival->all->each[1 - rival->index];
}

static int rival_fd(const struct rival *rival) {
  return rival->all->pairs[rival->index][0];
}

static rivals_t *make_rivals(env_t *env, aloop_callback_fn fn) {
  rivals_t *rivals = calloc(1, sizeof *rivals);
  for (int i = 0; i < 2; i++) {
    make_ready_pair(rivals->pairs[i]);
    rivals->each[i] = (struct rival){rivals, i, 0};
    assert_int_equal(aloop_add_reader(env->loop, rivals->pairs[i][0], fn, &rivals->each[i]), 0);
  }
  return rivals;
}

static void free_rivals(env_t *env, rivals_t *rivals) {
  for (int i = 0; i < 2; i++) {
    aloop_remove_reader(env->loop, rivals->pairs[i][0]);
    close_both(rivals->pairs[i]);
  }
  free(rivals);
}

static void remove_rival(aloop_t *loop, void *arg) {
  struct rival *self = arg;
  self->calls++;
  assert_int_equal(aloop_remove_reader(loop, rival_fd(rival_of(self))), 1);
}

static void a_callback_may_remove_another_of_its_turn(void **state) {
  env_t *env = *state;
  rivals_t *rivals = make_rivals(env, remove_rival);
  run_turn(env->loop);
  assert_int_equal(rivals->each[0].calls + rivals->each[1].calls, 1);
  free_rivals(env, rivals);
}

static void replace_rival(aloop_t *loop, void *arg) {
  struct rival *self = arg;
  self->calls++;
  aloop_add_reader(loop, rival_fd(rival_of(self)), count, &self->all->replacements);
  aloop_remove_reader(loop, rival_fd(self));
}

static void a_replaced_callback_of_this_turn_is_dropped(void **state) {
  env_t *env = *state;
  rivals_t *rivals = make_rivals(env, replace_rival);
  run_turn(env->loop);
  assert_int_equal(rivals->each[0].calls + rivals->each[1].calls, 1);
  assert_int_equal(rivals->replacements, 0); /* asked for later than the poll */
  run_turn(env->loop);
  assert_int_equal(rivals->replacements, 1);
  free_rivals(env, rivals);
}

/* The number of the other descriptor goes to a new, quiet one, which gets a reader of its own. */
static void reuse_rival(aloop_t *loop, void *arg) {
  struct rival *self = arg;
  self->calls++;
  int fd = rival_fd(rival_of(self));
  assert_int_equal(aloop_remove_reader(loop, fd), 1);
  assert_int_equal(dup2(self->all->spare[0], fd), fd);
  assert_int_equal(aloop_add_reader(loop, fd, count, &self->all->replacements), 0);
  aloop_remove_reader(loop, rival_fd(self));
}

static void a_reused_number_gets_no_event_of_its_predecessor(void **state) {
  env_t *env = *state;
  rivals_t *rivals = make_rivals(env, reuse_rival);
  make_pipe(rivals->spare);
  for (int i = 0; i < 3; i++) run_turn(env->loop);
  assert_int_equal(rivals->each[0].calls + rivals->each[1].calls, 1);
  assert_int_equal(rivals->replacements, 0);
  put(rivals->spare[1]);
  run_turn(env->loop);
  assert_int_equal(rivals->replacements, 1);
  close_both(rivals->spare);
  free_rivals(env, rivals);
}

typedef struct self {
  int fds[2];
  int calls;
  int writes;
} self_t;

static void remove_and_close(aloop_t *loop, void *arg) {
  self_t *self = arg;
  self->calls++;
  assert_int_equal(aloop_remove_reader(loop, self->fds[0]), 1);
  assert_int_equal(aloop_remove_writer(loop, self->fds[0]), 1);
  close_both(self->fds);
}

static void count_write(aloop_t *loop, void *arg) {
  (void)loop;
  self_t *self = arg;
  self->writes++;
}

static void a_reader_may_remove_everything_and_close(void **state) {
  env_t *env = *state;
  self_t self = {0};
  make_ready_pair(self.fds);
  aloop_add_reader(env->loop, self.fds[0], remove_and_close, &self);
  aloop_add_writer(env->loop, self.fds[0], count_write, &self);
  for (int i = 0; i < 3; i++) run_turn(env->loop);
  assert_int_equal(self.calls, 1);
  assert_int_equal(self.writes, 0);
}

static void remove_writer_only(aloop_t *loop, void *arg) {
  self_t *self = arg;
  self->calls++;
  aloop_remove_writer(loop, self->fds[0]);
}

static void a_reader_may_remove_its_writer(void **state) {
  env_t *env = *state;
  self_t self = {0};
  make_ready_pair(self.fds);
  aloop_add_reader(env->loop, self.fds[0], remove_writer_only, &self);
  aloop_add_writer(env->loop, self.fds[0], count_write, &self);
  for (int i = 0; i < 3; i++) run_turn(env->loop);
  assert_int_equal(self.calls, 3);
  assert_int_equal(self.writes, 0);
  aloop_remove_reader(env->loop, self.fds[0]);
  close_both(self.fds);
}

static void add_writer_now(aloop_t *loop, void *arg) {
  self_t *self = arg;
  self->calls++;
  assert_int_equal(aloop_add_writer(loop, self->fds[0], count_write, self), 0);
  aloop_remove_reader(loop, self->fds[0]);
}

static void a_reader_may_turn_into_a_writer(void **state) {
  env_t *env = *state;
  self_t self = {0};
  make_ready_pair(self.fds);
  aloop_add_reader(env->loop, self.fds[0], add_writer_now, &self);
  run_turn(env->loop);
  assert_int_equal(self.writes, 0);
  run_turn(env->loop);
  assert_int_equal(self.calls, 1);
  assert_int_equal(self.writes, 1);
  aloop_remove_writer(env->loop, self.fds[0]);
  close_both(self.fds);
}

static void removal_after_close_succeeds(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_pipe(fds);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  close_both(fds);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  /* The number is free for the next owner. */
  make_pipe(fds);
  put(fds[1]);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

static void the_loop_closes_with_watches_on(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_ready_pair(fds);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  aloop_add_writer(env->loop, fds[0], count, &calls);
  aloop_add_writer(env->loop, fds[1], count, &calls);
  aloop_close(env->loop);
  assert_int_equal(fcntl(fds[0], F_GETFD) >= 0, true); /* they stay the caller's */
  close_both(fds);
}

/* ---- Refused ------------------------------------------------------------------------------------------------- */

static void nonsense_is_refused(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_pipe(fds);
  assert_int_equal(aloop_add_reader(NULL, fds[0], count, &calls), ALOOP_EINVAL);
  assert_int_equal(aloop_add_writer(NULL, fds[0], count, &calls), ALOOP_EINVAL);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], NULL, &calls), ALOOP_EINVAL);
  assert_int_equal(aloop_remove_reader(NULL, fds[0]), ALOOP_EINVAL);
  assert_int_equal(aloop_remove_writer(NULL, fds[0]), ALOOP_EINVAL);
  assert_int_equal(aloop_add_reader(env->loop, -1, count, &calls), ALOOP_EBADF);
  close_both(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_EBADF);
  assert_int_equal((aloop_add_reader)(env->loop, fds[0], count, &calls), ALOOP_EBADF);
  assert_int_equal((aloop_add_writer)(env->loop, fds[0], count, &calls), ALOOP_EBADF);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 0);
}

static void ignore(aloop_t *loop, void *arg) {
  (void)loop;
  (void)arg;
}

static void a_descriptor_of_the_library_is_refused(void **state) {
  env_t *env = *state;
  static const aloop__watch_ops_t ops = {.name = "owner", .readable = ignore, .writable = ignore};
  aloop__watch_t owner;
  int fds[2], calls = 0;
  make_pipe(fds);
  assert_int_equal(aloop__watch_claim(env->loop, &owner, fds[0], &ops), 0);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_EBUSY);
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), ALOOP_EBUSY);
  aloop__watch_stop(env->loop, &owner);
  aloop__watch_stop(env->loop, &owner); /* again: a no-op */
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

/* What a user watches has been closed by the time at which the library gets its number; what an operation waits
 * for is not known to be. */
static void a_descriptor_of_the_library_is_no_users(void **state) {
  env_t *env = *state;
  static const aloop__watch_ops_t ops = {.name = "owner", .readable = ignore, .writable = ignore};
  aloop__watch_t owner, other;
  int fds[2], calls = 0;
  make_pipe(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  assert_int_equal(aloop__watch_claim(env->loop, &owner, fds[0], &ops), 0);
  assert_int_equal(aloop__watch_claim(env->loop, &other, fds[0], &ops), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), ALOOP_EBUSY);
  aloop__watch_stop(env->loop, &owner);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 0);
  assert_int_equal(aloop__watch_wait(env->loop, fds[0], ALOOP_READABLE, ignore, NULL, NULL), 0);
  assert_int_equal(aloop__watch_claim(env->loop, &owner, fds[0], &ops), ALOOP_EBUSY);
  aloop__watch_wait_end(env->loop, fds[0], ALOOP_READABLE);
  close_both(fds);
}

static void count_destroyed(void *arg) {
  ++*(int *)arg;
}

static void its_context_goes_with_it(void **state) {
  env_t *env = *state;
  static const aloop__watch_ops_t ops = {.name = "owner", .readable = ignore, .writable = ignore};
  aloop__watch_t owner;
  aloop_var_t *var;
  int fds[2], calls = 0, destroyed = 0;
  make_pipe(fds);
  assert_int_equal(aloop_var_new("v", &var), 0);
  assert_int_equal(aloop_var_set(env->loop, var, &destroyed, count_destroyed, NULL), 0);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  assert_int_equal(aloop_var_set(env->loop, var, NULL, NULL, NULL), 0);
  assert_int_equal(aloop__watch_claim(env->loop, &owner, fds[0], &ops), 0);
  assert_int_equal(destroyed, 0);
  run_turn(env->loop);
  assert_int_equal(destroyed, 1);
  aloop__watch_stop(env->loop, &owner);
  aloop_var_unref(var);
  close_both(fds);
}

static void a_regular_file_is_refused_or_always_ready(void **state) {
  env_t *env = *state;
  int calls = 0;
  FILE *file = tmpfile();
  assert_non_null(file);
  int fd = fileno(file);
  int rc = aloop_add_reader(env->loop, fd, count, &calls);
  if (rc == 0) {
    run_turn(env->loop);
    assert_int_equal(aloop_remove_reader(env->loop, fd), 1);
  } else {
    assert_int_equal(rc, ALOOP_EPERM);
    assert_int_equal(aloop_add_writer(env->loop, fd, count, &calls), ALOOP_EPERM);
    assert_int_equal(aloop_remove_reader(env->loop, fd), 0);
  }
  if (on_poller(env, "epoll")) assert_int_equal(rc, ALOOP_EPERM);
  fclose(file);
}

static void a_high_descriptor_is_fine_but_for_select(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur <= 1500) skip();
  make_pipe(fds);
  put(fds[1]);
  int high = fcntl(fds[0], F_DUPFD_CLOEXEC, 1400);
  assert_true(high >= 1400);
  int rc = aloop_add_reader(env->loop, high, count, &calls);
  assert_int_equal(rc, on_poller(env, "select") ? ALOOP_ERANGE : 0);
  assert_int_equal(aloop_add_writer(env->loop, high, count, &calls), rc);
  aloop_remove_writer(env->loop, high);
  run_turn(env->loop);
  assert_int_equal(calls, rc == 0);
  aloop_remove_reader(env->loop, high);
  close(high);
  close_both(fds);
}

static void a_high_number_that_is_not_open_costs_nothing(void **state) {
  env_t *env = *state;
  static const int numbers[] = {1 << 22, INT32_MAX};
  int calls = 0, size = env->loop->watches_size;
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_add_reader(env->loop, numbers[i], count, &calls), ALOOP_EBADF);
    assert_int_equal(env->loop->watches_size, size);
    assert_int_equal(aloop_remove_reader(env->loop, numbers[i]), 0);
  }
}

static void a_failed_add_leaves_what_was(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_ready_pair(fds);
  env->fail_from = 1;
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_ENOMEM);
  env->fail_from = 0;
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 0);
  run_turn(env->loop);
  assert_int_equal(calls, 0);
  close_both(fds);
}

static void an_operation_and_a_callback_share_a_descriptor(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0, events = 0;
  make_ready_pair(fds);
  assert_null(aloop__watch_conflict(env->loop, fds[0], ALOOP_READABLE));
  assert_int_equal(aloop__watch_wait(env->loop, fds[0], ALOOP_READABLE, count, &events, "here"), 0);
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), 0);
  run_turn(env->loop);
  assert_int_equal(events, 1);
  assert_int_equal(calls, 1);
  assert_string_equal(aloop__watch_origin(aloop__watch_find(env->loop, fds[0]), ALOOP_READABLE), "here");
  aloop__watch_wait_end(env->loop, fds[0], ALOOP_READABLE);
  run_turn(env->loop);
  assert_int_equal(events, 1);
  assert_int_equal(calls, 2);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 1);
  assert_null(aloop__watch_find(env->loop, fds[0]));
  close_both(fds);
}

static void an_operation_and_a_callback_exclude_each_other(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0, events = 0;
  make_ready_pair(fds);
  assert_int_equal(aloop__watch_wait(env->loop, fds[0], ALOOP_READABLE, count, &events, NULL), 0);
  assert_non_null(aloop__watch_conflict(env->loop, fds[0], ALOOP_READABLE));
  assert_null(aloop__watch_conflict(env->loop, fds[0], ALOOP_WRITABLE));
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), 0);
  run_turn(env->loop);
  assert_int_equal(events, 1);
  aloop__watch_wait_end(env->loop, fds[0], ALOOP_READABLE);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  assert_non_null(aloop__watch_conflict(env->loop, fds[0], ALOOP_READABLE));
  run_turn(env->loop);
  assert_int_equal(events, 1);
  assert_int_equal(calls, 1);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close_both(fds);
}

static void watch_both(env_t *env) {
  int fds[2], calls = 0;
  make_ready_pair(fds);
  int reader = aloop_add_reader(env->loop, fds[0], count, &calls);
  int writer = aloop_add_writer(env->loop, fds[0], count, &calls);
  run_turn(env->loop);
  assert_int_equal(calls, (reader == 0) + (writer == 0));
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), reader == 0);
  assert_int_equal(aloop_remove_writer(env->loop, fds[0]), writer == 0);
  close_both(fds);
}

static void every_allocation_may_fail(void **state) {
  torture(*state, watch_both);
}

TESTS(T(an_operation_and_a_callback_share_a_descriptor), T(an_operation_and_a_callback_exclude_each_other),
      T(a_reader_is_called_while_there_is_something_to_read), T(a_writer_is_called_while_there_is_room),
      T(the_reader_of_a_descriptor_comes_before_its_writer), T(a_hang_up_wakes_both_sides),
      T(many_descriptors_are_told_apart), T(a_callback_runs_in_the_context_of_its_adding),
      T(removing_releases_the_context_at_once), T(removing_tells_whether_there_was_something),
      T(adding_again_replaces), T(a_callback_may_remove_another_of_its_turn),
      T(a_replaced_callback_of_this_turn_is_dropped), T(a_reused_number_gets_no_event_of_its_predecessor),
      T(a_reader_may_remove_everything_and_close), T(a_reader_may_remove_its_writer),
      T(a_reader_may_turn_into_a_writer), T(removal_after_close_succeeds), T(the_loop_closes_with_watches_on),
      T(nonsense_is_refused), T(a_descriptor_of_the_library_is_refused),
      T(a_descriptor_of_the_library_is_no_users), T(its_context_goes_with_it),
      T(a_regular_file_is_refused_or_always_ready), T(a_high_descriptor_is_fine_but_for_select),
      T(a_high_number_that_is_not_open_costs_nothing), T(a_failed_add_leaves_what_was),
      T(every_allocation_may_fail))
