/* SPDX-License-Identifier: MIT
 *
 * The loop's memory: everything through the caller's allocator; option structs of several sizes.
 */
#include "harness.h"

#include <string.h>

#include "core/loop.h"
#include "core/memory.h"

static void blocks_come_from_the_callers_allocator(void **state) {
  env_t *env = *state;
  long live = env->live;
  void *block = aloop__memory_new(env->loop, 100);
  assert_int_equal(env->live, live + 1);
  block = aloop__memory_resize(env->loop, block, 10000);
  assert_int_equal(env->live, live + 1);
  aloop__memory_release(env->loop, block);
  assert_int_equal(env->live, live);
  aloop__memory_release(env->loop, NULL);
}

static void cleared_blocks_are_clear(void **state) {
  env_t *env = *state;
  unsigned char *block = aloop__memory_zero(env->loop, 1000);
  for (int i = 0; i < 1000; i++) assert_int_equal(block[i], 0);
  aloop__memory_release(env->loop, block);
}

static void strings_are_copied_whole(void **state) {
  env_t *env = *state;
  char text[] = "a text";
  char *copy = aloop__memory_string(env->loop, text);
  memset(text, 'x', sizeof text - 1);
  assert_string_equal(copy, "a text");
  aloop__memory_release(env->loop, copy);
}

static void a_failed_resize_leaves_the_block(void **state) {
  env_t *env = *state;
  char *block = aloop__memory_string(env->loop, "kept");
  env->fail_from = 1;
  assert_null(aloop__memory_resize(env->loop, block, 100000));
  assert_null(aloop__memory_new(env->loop, 1));
  assert_null(aloop__memory_zero(env->loop, 1));
  assert_null(aloop__memory_string(env->loop, "x"));
  env->fail_from = 0;
  assert_string_equal(block, "kept");
  aloop__memory_release(env->loop, block);
}

static void without_an_allocator_there_is_malloc(void **state) {
  env_t *env = *state;
  long calls = env->calls;
  aloop_t *loop;
  assert_int_equal(aloop_new(NULL, &loop), 0);
  void *block = aloop__memory_new(loop, 10);
  assert_non_null(block);
  aloop__memory_release(loop, block);
  aloop_free(loop);
  assert_int_equal(env->calls, calls);
}

/* ---- Option structs ------------------------------------------------------------------------------------------ */

typedef struct options {
  size_t size;
  size_t first;
  size_t second;
} options_t;

static void members_that_the_caller_does_not_know_are_zero(void **state) {
  (void)state;
  options_t into = {1, 2, 3};
  options_t from = {.size = offsetof(options_t, second), .first = 5, .second = 77};
  assert_int_equal(aloop__memory_copy_options(&into, sizeof into, &from), 0);
  assert_int_equal(into.first, 5);
  assert_int_equal(into.second, 0);
}

static void members_that_the_library_does_not_know_must_not_be_set(void **state) {
  (void)state;
  struct {
    options_t known;
    char later[104];
  } from = {{sizeof from, 5, 6}, ""};
  struct {
    options_t known;
    char guard[100];
  } into = {{0, 0, 0}, "guard"};
  assert_int_equal(aloop__memory_copy_options(&into, sizeof into.known, &from), 0);
  assert_int_equal(into.known.second, 6);
  assert_string_equal(into.guard, "guard");
  from.known.second = 7;
  from.later[sizeof from.later - 1] = 1;
  assert_int_equal(aloop__memory_copy_options(&into, sizeof into.known, &from), ALOOP_EINVAL);
  assert_int_equal(into.known.second, 6);
}

static void a_struct_without_a_sensible_size_is_refused(void **state) {
  (void)state;
  options_t into;
  size_t sizes[] = {0, 1, sizeof(size_t), sizeof(size_t) + 1, SIZE_MAX, 1 << 20};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    options_t from = {.size = sizes[i]};
    assert_int_equal(aloop__memory_copy_options(&into, sizeof into, &from), ALOOP_EINVAL);
  }
}

/* ---- The loop's own block ------------------------------------------------------------------------------------ */

static void the_loop_goes_with_the_last_thing_made_on_it(void **state) {
  env_t *env = *state;
  aloop_var_t *var;
  aloop_var_token_t *token;
  aloop_context_t *context;
  assert_int_equal(aloop_var_new("v", &var), 0);
  aloop_var_set(env->loop, var, "x", NULL, &token);
  aloop_context_copy(env->loop, &context);
  aloop_future_t *future = aloop_future_new(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_true(env->live > 0);
  aloop_var_token_free(token);
  aloop_context_unref(context);
  assert_true(env->live > 0);
  aloop_future_unref(future);
  assert_int_equal(env->live, 0);
  aloop_var_unref(var);
}

static void an_idle_loop_is_small(void **state) {
  env_t *env = *state;
  /* What a program with a thousand loops pays for each; see the benchmarks for the figure. */
  assert_true(sizeof(struct aloop) < 1024);
  assert_true(env->live <= 8);
}

/* A later member would lie where an older caller's struct has padding with anything in it. Structs that only the library
 * fills in may end as they like. */
static void structs_that_may_grow_have_no_padding_at_their_end(void **state) {
  (void)state;
#define ENDS_WITH(type, member)                                                                                \
  assert_int_equal(sizeof(type), offsetof(type, member) + sizeof(((type *)0)->member))
  ENDS_WITH(aloop_allocator_t, user);
  ENDS_WITH(aloop_poller_t, flags);
  ENDS_WITH(aloop_options_t, slow_callback_duration);
  ENDS_WITH(aloop_policy_t, user);
  ENDS_WITH(aloop_error_context_t, datagram);
  ENDS_WITH(aloop_job_options_t, destroy);
  ENDS_WITH(aloop_thread_pool_options_t, stack_size);
  ENDS_WITH(aloop_executor_table_t, destroy);
  ENDS_WITH(aloop_process_pool_options_t, initializer_arg);
  ENDS_WITH(aloop_protocol_t, connection_lost);
  ENDS_WITH(aloop_resolver_t, getaddrinfo);
  ENDS_WITH(aloop_process_protocol_t, connection_lost);
  ENDS_WITH(aloop_process_options_t, groups_count);
  ENDS_WITH(aloop_generator_options_t, destroy);
  ENDS_WITH(aloop_connect_options_t, tls_shutdown_timeout);
  ENDS_WITH(aloop_accepted_options_t, tls_shutdown_timeout);
  ENDS_WITH(aloop_unix_connect_options_t, flags);
  ENDS_WITH(aloop_unix_server_options_t, loops_count);
  ENDS_WITH(aloop_tls_options_t, kernel);
  ENDS_WITH(aloop_start_tls_options_t, tls_shutdown_timeout);
  ENDS_WITH(aloop_tls_info_t, kernel);
  ENDS_WITH(aloop_tls_engine_t, offload);
  ENDS_WITH(aloop_stream_options_t, limit);
  ENDS_WITH(aloop_task_options_t, destroy);
  ENDS_WITH(aloop_run_options_t, message_size);
  ENDS_WITH(aloop_server_options_t, loops_count);
  ENDS_WITH(aloop_datagram_protocol_t, connection_lost);
  ENDS_WITH(aloop_datagram_options_t, cleanup);
#undef ENDS_WITH
}

TESTS(T(blocks_come_from_the_callers_allocator), T(cleared_blocks_are_clear), T(strings_are_copied_whole),
      T(a_failed_resize_leaves_the_block), T(without_an_allocator_there_is_malloc),
      T(members_that_the_caller_does_not_know_are_zero),
      T(members_that_the_library_does_not_know_must_not_be_set), T(a_struct_without_a_sensible_size_is_refused),
      T(the_loop_goes_with_the_last_thing_made_on_it), T(an_idle_loop_is_small),
      T(structs_that_may_grow_have_no_padding_at_their_end))
