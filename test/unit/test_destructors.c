/* SPDX-License-Identifier: MIT
 *
 * Destructors, release functions and other calls back that are made outside of a run, by the very call that
 * makes them due, and close the loop or end what they belong to. Nothing may be touched that is gone, and nobody
 * called twice. pollers: all
 */
#include "dgrams.h"
#include "streams.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif
#include <sys/socket.h>
#include <unistd.h>

typedef struct ender {
  env_t *env;
  aloop_future_t *future;
  int calls;
} ender_t;

/* Frees the loop of the test. */
static void free_loop(void *arg) {
  ender_t *ender = arg;
  aloop_t *loop = ender->env->loop;
  ender->calls++;
  ender->env->loop = NULL;
  aloop_free(loop);
}

static void close_loop(void *arg) {
  ender_t *ender = arg;
  ender->calls++;
  if (ender->env->loop != NULL) aloop_close(ender->env->loop);
}

/* ---- Futures --------------------------------------------------------------------------------------------- */

static void the_object_of_a_future_may_free_the_loop(void **state) {
  env_t *env = *state;
  ender_t ender = {.env = env};
  aloop_future_t *future = aloop_future_new(env->loop);
  assert_int_equal(aloop_future_set_result(future, 0, &ender, free_loop), 0);
  aloop_future_unref(future);
  assert_int_equal(ender.calls, 1);
  assert_int_equal(env->live, 0);
}

static void so_may_that_of_a_child(void **state) {
  env_t *env = *state;
  ender_t ender = {.env = env};
  aloop_future_t *children[] = {aloop_future_new(env->loop), aloop_future_new(env->loop)};
  assert_int_equal(aloop_future_set_result(children[0], 0, &ender, free_loop), 0);
  assert_int_equal(aloop_future_set_value(children[1], 0), 0);
  aloop_future_unref(aloop_gather(env->loop, children, 2, 0));
  assert_int_equal(ender.calls, 1);
  assert_int_equal(env->live, 0);
}

static void count(aloop_future_t *future, void *arg) {
  (void)future;
  ++*(int *)arg;
}

static void finish_future(void *arg) {
  ender_t *ender = arg;
  ender->calls++;
  assert_int_equal(aloop_future_set_value(ender->future, 5), 0);
}

static void let_future_go(void *arg) {
  ender_t *ender = arg;
  ender->calls++;
  aloop_future_unref(ender->future);
}

/* Adds the same callback in two contexts; the value of the first one goes with it. */
static void add_twice(ender_t *ender, aloop_destroy_fn destroy, int *calls) {
  aloop_t *loop = ender->env->loop;
  aloop_var_t *var;
  assert_int_equal(aloop_var_new("v", &var), 0);
  assert_int_equal(aloop_var_set(loop, var, ender, destroy, NULL), 0);
  assert_int_equal(aloop_future_add_done_callback(ender->future, count, calls), 0);
  assert_int_equal(aloop_var_set(loop, var, NULL, NULL, NULL), 0);
  assert_int_equal(aloop_future_add_done_callback(ender->future, count, calls), 0);
  aloop_var_unref(var);
}

static void what_a_callback_leaves_behind_may_end_the_future(void **state) {
  env_t *env = *state;
  ender_t ender = {.env = env, .future = aloop_future_new(env->loop)};
  int calls = 0;
  add_twice(&ender, finish_future, &calls);
  assert_int_equal(aloop_future_remove_done_callback(ender.future, count, &calls),
                   1); /* the other is due by now */
  assert_int_equal(ender.calls, 1);
  run_turn(env->loop);
  assert_int_equal(calls, 1);
  assert_int_equal(aloop_future_add_done_callback(ender.future, count, &calls), 0);
  run_turn(env->loop);
  assert_int_equal(calls, 2);
  aloop_future_unref(ender.future);
}

static void what_a_callback_leaves_behind_may_let_the_future_go(void **state) {
  env_t *env = *state;
  ender_t ender = {.env = env, .future = aloop_future_new(env->loop)};
  int calls = 0;
  add_twice(&ender, let_future_go, &calls);
  assert_int_equal(aloop_future_remove_done_callback(ender.future, count, &calls), 2);
  assert_int_equal(ender.calls, 1);
  run_turn(env->loop);
  assert_int_equal(calls, 0);
}

/* ---- Transports ------------------------------------------------------------------------------------------ */

static int open_full(tape_t *tape) {
  int peer = open_tape(tape, &plain_protocol);
  fill(aloop_transport_fd(tape->transport));
  return peer;
}

/* The tape's reference goes, so that nothing but the loop keeps the transport. */
static void let_go(tape_t *tape) {
  aloop_transport_t *transport = tape->transport;
  aloop_transport_unref(transport);
}

static void finish_tape(tape_t *tape, int peer) {
  assert_true(tape->lost);
  assert_int_equal(tape->calls[LOST], 1);
  free(tape->bytes);
  close(peer);
}

static void written_bytes_may_free_the_loop(void **state) {
  env_t *env = *state;
  ender_t ender = {.env = env};
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  let_go(&tape);
  assert_int_equal(aloop_transport_write_owned(tape.transport, "x", 1, free_loop, &ender), 0);
  assert_int_equal(ender.calls, 1);
  finish_tape(&tape, peer);
}

static void (*const ways[])(aloop_transport_t *) = {aloop_transport_abort, aloop_transport_abort_reset};

static void unsent_bytes_may_free_the_loop(void **state) {
  env_t *env = *state;
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    env_loop(env, (aloop_options_t){0});
    ender_t ender = {.env = env};
    tape_t tape = {.env = env};
    int peer = open_full(&tape);
    let_go(&tape);
    assert_int_equal(aloop_transport_write_owned(tape.transport, "x", 1, free_loop, &ender), 0);
    assert_int_equal(aloop_transport_write_owned(tape.transport, "y", 1, free_loop, &ender), 0);
    assert_int_equal(ender.calls, 0);
    ways[i](tape.transport);
    assert_int_equal(ender.calls, 2);
    finish_tape(&tape, peer);
  }
}

static void free_on_pause(tape_t *tape) {
  aloop_t *loop = tape->env->loop;
  tape->env->loop = NULL;
  aloop_free(loop);
}

static void pause_writing_may_free_the_loop(void **state) {
  env_t *env = *state;
  static char bytes[100000];
  ender_t ender = {.env = env};
  for (int i = 0; i < 3; i++) {
    env_loop(env, (aloop_options_t){0});
    tape_t tape = {.env = env, .on[PAUSE] = free_on_pause};
    struct iovec parts[70];
    int peer = open_full(&tape);
    let_go(&tape);
    for (size_t j = 0; j < sizeof parts / sizeof parts[0]; j++) parts[j] = (struct iovec){bytes, 1000};
    if (i == 0) assert_int_equal(aloop_transport_write(tape.transport, bytes, sizeof bytes), 0);
    if (i == 1) assert_int_equal(aloop_transport_writev(tape.transport, parts, 70), 0);
    if (i == 2) {
      assert_int_equal(aloop_transport_write_owned(tape.transport, bytes, sizeof bytes, free_loop, &ender), 0);
      assert_int_equal(ender.calls, 1);
    }
    finish_tape(&tape, peer);
  }
}

typedef struct valued {
  aloop_t *loop;
  aloop_var_t *var;
  ender_t *ender;
  tape_t *tape;
  int fd;
} valued_t;

static void attach_in_context(aloop_t *loop, void *arg) {
  valued_t *valued = arg;
  assert_int_equal(aloop_var_set(loop, valued->var, valued->ender, close_loop, NULL), 0);
  attach_tape(valued->tape, &plain_protocol, valued->fd);
}

static void the_context_of_a_transport_may_close_the_loop(void **state) {
  env_t *env = *state;
  ender_t ender = {.env = env};
  tape_t tape = {.env = env};
  int fds[2];
  make_socketpair(fds);
  valued_t valued = {.ender = &ender, .tape = &tape, .fd = fds[0]};
  assert_int_equal(aloop_var_new("v", &valued.var), 0);
  aloop_call_soon(env->loop, attach_in_context, &valued);
  settle(env->loop);
  aloop_transport_abort(tape.transport);
  settle(env->loop);
  assert_int_equal(ender.calls, 0);
  aloop_transport_unref(tape.transport);
  assert_int_equal(ender.calls, 1);
  assert_true(aloop_is_closed(env->loop));
  aloop_var_unref(valued.var);
  finish_tape(&tape, fds[1]);
}

#ifdef __linux__
/* The kernel has none, so that files are copied. */
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
  (void)out, (void)in, (void)offset, (void)count;
  errno = EINVAL;
  return -1;
}
#endif

static void pause_writing_may_free_the_loop_during_sendfile(void **state) {
  env_t *env = *state;
  char path[] = "/tmp/aloop-test-XXXXXX";
  int file = mkstemp(path);
  assert_true(file >= 0);
  unlink(path);
  assert_int_equal(ftruncate(file, 1000000), 0);
  tape_t tape = {.env = env, .on[PAUSE] = free_on_pause};
  int peer = open_full(&tape);
  assert_int_equal(aloop_transport_set_write_buffer_limits(tape.transport, 0, 0), 0);
  let_go(&tape);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  assert_null(env->loop);
  assert_int_equal(aloop_future_result(future), ALOOP_ECLOSED);
  aloop_future_unref(future);
  finish_tape(&tape, peer);
  close(file);
}

static void pause_writing_may_free_the_loop_after_a_relay(void **state) {
  env_t *env = *state;
  static const char bytes[100000];
  tape_t a = {.env = env, .on[PAUSE] = free_on_pause}, b = {.env = env, .on[PAUSE] = free_on_pause};
  int peer_a = open_full(&a), peer_b = open_tape(&b, &plain_protocol);
  aloop_future_t *future = aloop_relay(a.transport, b.transport);
  let_go(&a);
  let_go(&b);
  for (size_t sent = 0; sent < sizeof bytes;) {
    ssize_t n = send(peer_b, bytes, sizeof bytes - sent, MSG_NOSIGNAL);
    if (n > 0) sent += (size_t)n;
    settle(env->loop);
  }
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_null(env->loop);
  aloop_future_unref(future);
  finish_tape(&a, peer_a);
  finish_tape(&b, peer_b);
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

static void free_when_told(post_t *post) {
  aloop_t *loop = post->env->loop;
  post->env->loop = NULL;
  aloop_free(loop);
}

static void finish_post(post_t *post, int peer) {
  assert_true(post->lost);
  if (peer >= 0) close(peer);
}

static void pause_writing_of_an_endpoint_may_free_the_loop(void **state) {
  env_t *env = *state;
  aloop_message_t messages[100];
  for (size_t i = 0; i < 100; i++) messages[i] = (aloop_message_t){.data = "x", .size = 1};
  post_t post = {.env = env, .on_pause = free_when_told};
  int peer = open_pair(&post, &single_protocol);
  fill_pair(&post);
  assert_int_equal(aloop_datagram_set_write_buffer_limits(post.endpoint, 10000, 0), 0);
  aloop_datagram_unref(post.endpoint);
  for (int i = 0; i < 200 && env->loop != NULL; i++)
    assert_true(aloop_datagram_send_many(post.endpoint, messages, 100) > 0);
  assert_null(env->loop);
  finish_post(&post, peer);
}

static void an_error_of_an_endpoint_may_free_the_loop(void **state) {
  env_t *env = *state;
  static const char large[70000];
  aloop_message_t messages[3];
  post_t post = {.env = env, .on_error = free_when_told};
  struct sockaddr *address = on_loopback(open_udp(&post, &single_protocol));
  for (size_t i = 0; i < 3; i++)
    messages[i] = (aloop_message_t){
        .data = large, .size = sizeof large, .address = address, .address_size = LOOPBACK_SIZE};
  aloop_datagram_unref(post.endpoint);
  assert_true(aloop_datagram_send_many(post.endpoint, messages, 3) > 0);
  assert_null(env->loop);
  finish_post(&post, -1);
}

TESTS(T(pause_writing_may_free_the_loop_during_sendfile), T(pause_writing_may_free_the_loop_after_a_relay),
      T(pause_writing_of_an_endpoint_may_free_the_loop), T(an_error_of_an_endpoint_may_free_the_loop),
      T(the_object_of_a_future_may_free_the_loop), T(so_may_that_of_a_child),
      T(what_a_callback_leaves_behind_may_end_the_future),
      T(what_a_callback_leaves_behind_may_let_the_future_go), T(written_bytes_may_free_the_loop),
      T(unsent_bytes_may_free_the_loop), T(pause_writing_may_free_the_loop),
      T(the_context_of_a_transport_may_close_the_loop))
