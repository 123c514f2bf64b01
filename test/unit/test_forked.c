/* SPDX-License-Identifier: MIT
 *
 * What was unsent at a fork: the parent sends it, and the child, which goes on with the same connections, does
 * not. The child's part of each test comes first, so that the parent could not have sent anything yet.
 * pollers: all
 */
#include "dgrams.h"
#include "mocktls.h"
#include "streams.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct scene {
  env_t *env;
  tape_t tape;
  post_t post;
  int peer;
  size_t filled; /* bytes before those of the test */
  int released;
  int file;
  aloop_future_t *future;
} scene_t;

#define CHILD_CHECK(condition)                                                                                 \
  do                                                                                                           \
    if (!(condition)) return __LINE__;                                                                         \
  while (0)

/* The child's part: 0, or a line that failed. */
static void in_child(scene_t *scene, int (*part)(scene_t *scene)) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) {
    alarm(20);
    int line = part(scene);
    _exit(line == 0 ? 0 : 1 + line % 255);
  }
  assert_true(child > 0);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
}

/* A connection that takes nothing now. */
static void open_scene(scene_t *scene, env_t *env) {
  *scene = (scene_t){.env = env, .tape = {.env = env}, .post = {.env = env}};
  if (on_libkqueue(env)) skip(); /* its child may only exec */
  scene->peer = open_tape(&scene->tape, &plain_protocol);
  scene->filled = fill(aloop_transport_fd(scene->tape.transport));
}

/* Makes room. */
static bool take_filling(scene_t *scene) {
  static char bytes[4096];
  size_t left = scene->filled;
  while (left > 0) {
    size_t n = drain(scene->peer, bytes, left < sizeof bytes ? left : sizeof bytes);
    if (n == 0) return false;
    left -= n;
  }
  scene->filled = 0;
  return true;
}

static bool is_silent(int peer) {
  char byte;
  return recv(peer, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* ---- Streams --------------------------------------------------------------------------------------------- */

static int write_own(scene_t *scene) {
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  CHILD_CHECK(unsent(&scene->tape) == 0);
  CHILD_CHECK(scene->released == 1);
  CHILD_CHECK(take_filling(scene));
  settle(scene->env->loop);
  CHILD_CHECK(is_silent(scene->peer));
  put(&scene->tape, "child ");
  settle(scene->env->loop);
  return 0;
}

static void a_child_sends_nothing_of_its_parents(void **state) {
  scene_t scene;
  open_scene(&scene, *state);
  put(&scene.tape, "parent ");
  put_owned(&scene.tape, "again", &scene.released);
  in_child(&scene, write_own);
  expect(&scene.tape, scene.peer, "child parent again");
  end_tape(&scene.tape, scene.peer);
}

static int be_resumed(scene_t *scene) {
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  CHILD_CHECK(strcmp(scene->tape.events, "MP") == 0);
  settle(scene->env->loop);
  CHILD_CHECK(strcmp(scene->tape.events, "MPR") == 0);
  return 0;
}

static void who_was_told_to_wait_is_told_to_go_on(void **state) {
  static const char much[100000];
  scene_t scene;
  open_scene(&scene, *state);
  assert_int_equal(aloop_transport_write(scene.tape.transport, much, sizeof much), 0);
  in_child(&scene, be_resumed);
  assert_string_equal(scene.tape.events, "MP");
  end_tape(&scene.tape, scene.peer);
}

static int be_lost(scene_t *scene) {
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  settle(scene->env->loop);
  CHILD_CHECK(scene->tape.lost && scene->tape.error == 0);
  return 0;
}

static void who_was_closing_has_closed(void **state) {
  scene_t scene;
  open_scene(&scene, *state);
  put(&scene.tape, "the rest");
  aloop_transport_close(scene.tape.transport);
  in_child(&scene, be_lost);
  assert_true(take_filling(&scene));
  expect(&scene.tape, scene.peer, "the rest");
  run_until(scene.env->loop, &scene.tape.lost);
  assert_true(at_eof(scene.peer));
  release_tape(&scene.tape, scene.peer);
}

static int end_nothing(scene_t *scene) {
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  settle(scene->env->loop);
  CHILD_CHECK(!scene->tape.lost);
  aloop_transport_abort(scene->tape.transport);
  settle(scene->env->loop);
  CHILD_CHECK(scene->tape.lost);
  return 0;
}

static void the_end_of_a_stream_comes_behind_the_parents_bytes(void **state) {
  scene_t scene;
  open_scene(&scene, *state);
  put(&scene.tape, "the rest");
  assert_int_equal(aloop_transport_write_eof(scene.tape.transport), 0);
  in_child(&scene, end_nothing);
  assert_true(take_filling(&scene));
  expect(&scene.tape, scene.peer, "the rest");
  settle(scene.env->loop);
  assert_true(at_eof(scene.peer));
  end_tape(&scene.tape, scene.peer);
}

static int be_short_of_memory(scene_t *scene) {
  env_t *env = scene->env;
  int rc = ALOOP_ENOMEM;
  for (long n = 1; rc == ALOOP_ENOMEM; n++) {
    env->calls = 0;
    env->fail_at = n;
    rc = aloop_after_fork(env->loop);
  }
  CHILD_CHECK(rc == 0 && unsent(&scene->tape) == 0 && scene->released == 1);
  CHILD_CHECK(take_filling(scene));
  settle(env->loop);
  CHILD_CHECK(is_silent(scene->peer));
  return 0;
}

static void without_memory_it_can_be_tried_again(void **state) {
  scene_t scene;
  open_scene(&scene, *state);
  put_owned(&scene.tape, "parent", &scene.released);
  in_child(&scene, be_short_of_memory);
  expect(&scene.tape, scene.peer, "parent");
  end_tape(&scene.tape, scene.peer);
}

static pid_t child_of_resume;

/* The child returns. */
static void fork_here(tape_t *tape) {
  (void)tape;
  int status = -1;
  child_of_resume = fork();
  if (child_of_resume == 0) {
    alarm(20);
    return;
  }
  assert_int_equal(waitpid(child_of_resume, &status, 0), child_of_resume);
  assert_int_equal(status, 0);
}

/* More parts than are sent with one call. */
static void a_child_that_returns_leaves_the_rest_too(void **state) {
  enum { PARTS = 100, LOW = 50 };
  scene_t scene;
  open_scene(&scene, *state);
  aloop_t *loop = scene.env->loop;
  scene.tape.on[RESUME] = fork_here;
  child_of_resume = -1;
  assert_int_equal(aloop_transport_set_write_buffer_limits(scene.tape.transport, PARTS - 1, LOW), 0);
  for (int i = 0; i < PARTS; i++) put_owned(&scene.tape, "x", &scene.released);
  assert_true(take_filling(&scene));
  while (child_of_resume < 0) {
    int rc = aloop_run_once(loop, ALOOP_SECONDS(1));
    if (child_of_resume == 0) _exit(rc == ALOOP_ECHILD ? 0 : 1);
    assert_true(rc >= 0);
  }
  settle(loop);
  char bytes[2 * PARTS];
  assert_int_equal(drain(scene.peer, bytes, sizeof bytes), PARTS);
  end_tape(&scene.tape, scene.peer);
}

/* ---- Operations ------------------------------------------------------------------------------------------ */

static void open_file(scene_t *scene) {
  char path[] = "/tmp/aloop-test-XXXXXX";
  scene->file = mkstemp(path);
  assert_true(scene->file >= 0);
  unlink(path);
  assert_int_equal(write(scene->file, "from the file", 13), 13);
  assert_int_equal(lseek(scene->file, 5, SEEK_SET), 5);
}

static int have_failed(scene_t *scene) {
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  CHILD_CHECK(aloop_future_result(scene->future) == ALOOP_ECHILD);
  CHILD_CHECK(take_filling(scene));
  settle(scene->env->loop);
  CHILD_CHECK(is_silent(scene->peer));
  return 0;
}

static void a_file_is_sent_by_the_parent(void **state) {
  scene_t scene;
  open_scene(&scene, *state);
  open_file(&scene);
  scene.future = aloop_sendfile(scene.tape.transport, scene.file, 0, 0, 0);
  in_child(&scene, have_failed);
  assert_int_equal(lseek(scene.file, 0, SEEK_CUR), 5);
  assert_int_equal(run_future(scene.env->loop, scene.future), 13);
  aloop_future_unref(scene.future);
  expect(&scene.tape, scene.peer, "from the file");
  end_tape(&scene.tape, scene.peer);
  close(scene.file);
}

static aloop_future_t *send_all(scene_t *scene, int fd) {
  return aloop_sock_sendall(scene->env->loop, fd, "from memory--", 13);
}

static aloop_future_t *send_file(scene_t *scene, int fd) {
  return aloop_sock_sendfile(scene->env->loop, fd, scene->file, 0, 0, 0);
}

static void operations_on_sockets_are_the_parents(void **state) {
  static aloop_future_t *(*const begin[])(scene_t * scene, int fd) = {send_all, send_file};
  for (int i = 0; i < 2; i++) {
    char bytes[13];
    int fds[2];
    scene_t scene = {.env = *state};
    if (on_libkqueue(scene.env)) skip();
    make_socketpair(fds);
    open_file(&scene);
    scene.peer = fds[1];
    scene.filled = fill(fds[0]);
    scene.future = begin[i](&scene, fds[0]);
    in_child(&scene, have_failed);
    assert_int_equal(lseek(scene.file, 0, SEEK_CUR), 5);
    assert_int_equal(run_future(scene.env->loop, scene.future), 13);
    assert_int_equal(drain(fds[1], bytes, sizeof bytes), 13);
    assert_true(is_silent(fds[1]));
    aloop_future_unref(scene.future);
    close(fds[0]);
    close(fds[1]);
    close(scene.file);
  }
}

static int still_wait(scene_t *scene) {
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  CHILD_CHECK(!aloop_future_done(scene->future));
  return 0;
}

static void what_waits_for_bytes_goes_on_in_both(void **state) {
  char bytes[3];
  int fds[2];
  scene_t scene = {.env = *state};
  if (on_libkqueue(scene.env)) skip();
  make_socketpair(fds);
  scene.future = aloop_sock_recv(scene.env->loop, fds[0], bytes, sizeof bytes);
  in_child(&scene, still_wait);
  say(fds[1], "abc");
  assert_int_equal(run_future(scene.env->loop, scene.future), 3);
  aloop_future_unref(scene.future);
  close(fds[0]);
  close(fds[1]);
}

/* ---- TLS ------------------------------------------------------------------------------------------------- */

static int abort_tls(scene_t *scene) {
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  CHILD_CHECK(unsent(&scene->tape) == 0);
  CHILD_CHECK(take_filling(scene));
  settle(scene->env->loop);
  aloop_transport_abort(scene->tape.transport);
  settle(scene->env->loop);
  CHILD_CHECK(scene->tape.lost && is_silent(scene->peer));
  return 0;
}

static void a_tls_connection_is_aborted_in_silence(void **state) {
  scene_t scene = {.env = *state, .tape = {.env = *state}};
  if (on_libkqueue(scene.env)) skip();
  mock_begin();
  scene.peer = open_mock_server(&scene.tape, &plain_protocol);
  scene.filled = fill(aloop_transport_fd(scene.tape.transport));
  put(&scene.tape, "one"); /* the carrier has it */
  put(&scene.tape, "two"); /* not so this */
  in_child(&scene, abort_tls);
  mock_expect(scene.env->loop, scene.peer, 'D', "one");
  mock_expect(scene.env->loop, scene.peer, 'D', "two");
  put(&scene.tape, "three");
  mock_expect(scene.env->loop, scene.peer, 'D', "three");
  end_tape(&scene.tape, scene.peer);
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

static int have_no_datagrams(scene_t *scene) {
  post_t *post = &scene->post;
  CHILD_CHECK(aloop_after_fork(scene->env->loop) == 0);
  lines_at(scene->peer);
  settle(scene->env->loop);
  CHILD_CHECK(is_silent(scene->peer));
  if (aloop_datagram_is_closing(post->endpoint)) {
    CHILD_CHECK(post->lost && post->error == 0);
    return 0;
  }
  CHILD_CHECK(aloop_datagram_get_write_buffer_size(post->endpoint) == 0);
  CHILD_CHECK(strchr(post->events, 'R') != NULL);
  return 0;
}

static void datagrams_are_sent_by_the_parent(void **state) {
  for (int closes = 0; closes < 2; closes++) {
    scene_t scene = {.env = *state, .post = {.env = *state}};
    if (on_libkqueue(scene.env)) skip();
    post_t *post = &scene.post;
    scene.peer = open_pair(post, &single_protocol);
    assert_int_equal(aloop_datagram_set_write_buffer_limits(post->endpoint, 0, 0), 0);
    fill_pair(post);
    if (closes) aloop_datagram_close(post->endpoint);
    in_child(&scene, have_no_datagrams);
    settle(scene.env->loop);
    assert_string_equal(lines_at(scene.peer), "filling\n");
    end_post(post, scene.peer);
  }
}

TESTS(T(a_child_that_returns_leaves_the_rest_too), T(a_child_sends_nothing_of_its_parents),
      T(who_was_told_to_wait_is_told_to_go_on), T(who_was_closing_has_closed),
      T(the_end_of_a_stream_comes_behind_the_parents_bytes), T(without_memory_it_can_be_tried_again),
      T(a_file_is_sent_by_the_parent), T(operations_on_sockets_are_the_parents),
      T(what_waits_for_bytes_goes_on_in_both), T(a_tls_connection_is_aborted_in_silence),
      T(datagrams_are_sent_by_the_parent))
