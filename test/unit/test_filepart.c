/* SPDX-License-Identifier: MIT
 *
 * The part of a file that is still to be sent: arguments, counting, the end of the file, the copy, the position.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/filepart.h"

static int make_file(const char *text, size_t size) {
  char name[] = "/tmp/aloop-filepart-XXXXXX";
  int file = mkstemp(name);
  assert_true(file >= 0);
  unlink(name);
  assert_int_equal(write(file, text, size), (ssize_t)size);
  return file;
}

static aloop__filepart_t open_part(int file, int64_t offset, int64_t count, unsigned flags) {
  aloop__filepart_t part;
  const char *rule = NULL;
  assert_int_equal(aloop__filepart_open(&part, file, offset, count, flags, &rule), 0);
  assert_null(rule);
  return part;
}

/* A socket that answers each sendfile with the next of these. */
typedef struct script {
  const ssize_t *answers;
  int calls;
  int64_t offset; /* of the last call */
  int64_t count;
} script_t;

static ssize_t play(void *arg, int file, int64_t offset, int64_t count) {
  script_t *script = arg;
  assert_true(file >= 0);
  script->offset = offset;
  script->count = count;
  return script->answers[script->calls++];
}

static void refused(int file, int64_t offset, int64_t count, unsigned flags, int error) {
  aloop__filepart_t part;
  const char *rule = NULL;
  assert_int_equal(aloop__filepart_open(&part, file, offset, count, flags, &rule), error);
  assert_non_null(rule);
}

static void senseless_arguments_are_refused(void **state) {
  (void)state;
  int fds[2], file = make_file("abc", 3);
  make_pipe(fds);
  refused(file, -1, 0, 0, ALOOP_EINVAL);
  refused(file, 0, -1, 0, ALOOP_EINVAL);
  refused(file, 0, 0, ALOOP_NO_FALLBACK | 2, ALOOP_EINVAL);
  refused(fds[0], 0, 0, 0, ALOOP_EINVAL);
  refused(-1, 0, 0, 0, ALOOP_EBADF);
  close(fds[0]);
  close(fds[1]);
  close(file);
}

static void what_is_sent_is_counted(void **state) {
  env_t *env = *state;
  int file = make_file("abcdef", 6);
  aloop__filepart_t part = open_part(file, 1, 4, 0);
  script_t script = {.answers = (const ssize_t[]){3, ALOOP_EAGAIN, 1}};
  assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), 3);
  assert_int_equal(script.offset, 1);
  assert_int_equal(script.count, 4);
  assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), ALOOP_EAGAIN);
  assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), 1);
  assert_int_equal(script.offset, 4);
  assert_int_equal(script.count, 1);
  assert_int_equal(part.sent, 4);
  assert_int_equal(part.left, 0);
  aloop__filepart_close(env->loop, &part);
  assert_int_equal(lseek(file, 0, SEEK_CUR), 5);
  close(file);
}

static void the_end_is_looked_for_once_more(void **state) {
  env_t *env = *state;
  int file = make_file("abcdef", 6);
  aloop__filepart_t part = open_part(file, 0, 0, 0);
  script_t script = {.answers = (const ssize_t[]){5, 1, 0}};
  assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), 5);
  assert_int_equal(script.calls, 1);
  assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), 0);
  assert_int_equal(script.calls, 3);
  assert_int_equal(part.sent, 6);
  aloop__filepart_close(env->loop, &part);
  close(file);
}

static void a_count_beyond_the_end_is_looked_at_once_more(void **state) {
  env_t *env = *state;
  int file = make_file("abcdef", 6);
  aloop__filepart_t part = open_part(file, 0, 100, 0);
  script_t script = {.answers = (const ssize_t[]){6, 0}};
  assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), 0);
  assert_int_equal(script.calls, 2);
  assert_int_equal(part.sent, 6);
  aloop__filepart_close(env->loop, &part);
  close(file);
}

static void without_sendfile_there_is_a_copy_unless_refused(void **state) {
  env_t *env = *state;
  int file = make_file("abcdef", 6);
  for (unsigned flags = 0; flags <= ALOOP_NO_FALLBACK; flags++) {
    aloop__filepart_t part = open_part(file, 2, 3, flags);
    script_t script = {.answers = (const ssize_t[]){ALOOP_ENOTSUP}};
    assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), ALOOP_ENOTSUP);
    assert_int_equal(part.copy != NULL, flags == 0);
    if (part.copy != NULL) {
      assert_int_equal(aloop__filepart_read(&part), 3);
      assert_memory_equal(part.copy, "cde", 3);
    }
    aloop__filepart_close(env->loop, &part);
    assert_int_equal(lseek(file, 0, SEEK_CUR), 2);
  }
  close(file);
}

static void a_copy_needs_memory(void **state) {
  env_t *env = *state;
  int file = make_file("abcdef", 6);
  aloop__filepart_t part = open_part(file, 0, 0, 0);
  script_t script = {.answers = (const ssize_t[]){ALOOP_ENOTSUP}};
  env->fail_at = env->calls + 1;
  assert_int_equal(aloop__filepart_send(env->loop, &part, play, &script), ALOOP_ENOMEM);
  assert_null(part.copy);
  aloop__filepart_close(env->loop, &part);
  close(file);
}

static void a_copy_ends_where_the_file_does(void **state) {
  env_t *env = *state;
  int file = make_file("abcdef", 6);
  aloop__filepart_t part = open_part(file, 4, 100, 0);
  script_t script = {.answers = (const ssize_t[]){ALOOP_ENOTSUP}};
  aloop__filepart_send(env->loop, &part, play, &script);
  assert_int_equal(aloop__filepart_read(&part), 2);
  aloop__filepart_account(&part, 2);
  assert_int_equal(aloop__filepart_read(&part), 0);
  close(part.file);
  assert_int_equal(aloop__filepart_read(&part), ALOOP_EBADF);
  aloop__filepart_close(env->loop, &part);
}

TESTS(T(senseless_arguments_are_refused), T(what_is_sent_is_counted), T(the_end_is_looked_for_once_more),
      T(a_count_beyond_the_end_is_looked_at_once_more), T(without_sendfile_there_is_a_copy_unless_refused),
      T(a_copy_needs_memory), T(a_copy_ends_where_the_file_does))
