/* SPDX-License-Identifier: MIT
 *
 * Names of Unix sockets and their files, without a server around them.
 */
#include "harness.h"

#include <stddef.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/unix.h"

static char folder[64];
static char path[80];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/aloop-name-XXXXXX");
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/socket", folder);
}

static void a_path_ends_with_a_zero(void **state) {
  (void)state;
  aloop__unix_name_t name;
  const char *reason = NULL;
  assert_int_equal(aloop__unix_name(&name, "somewhere", 0, &reason), 0);
  assert_int_equal(name.size, offsetof(struct sockaddr_un, sun_path) + 10);
  assert_string_equal(name.address.sun_path, "somewhere");
  assert_false(aloop__unix_is_abstract(&name));
  assert_int_equal(aloop__unix_name(&name, "somewhere", 4, &reason), 0);
  assert_string_equal(name.address.sun_path, "some");
}

static void an_abstract_name_has_its_bytes_only(void **state) {
  (void)state;
  aloop__unix_name_t name;
  const char *reason = NULL;
  int rc = aloop__unix_name(&name, "\0x\0y", 4, &reason);
#ifdef __linux__
  assert_int_equal(rc, 0);
  assert_int_equal(name.size, offsetof(struct sockaddr_un, sun_path) + 4);
  assert_true(aloop__unix_is_abstract(&name));
#else
  assert_int_equal(rc, ALOOP_ENOTSUP);
  assert_non_null(reason);
#endif
}

static void bytes_that_are_no_name(void **state) {
  (void)state;
  aloop__unix_name_t name;
  const char *reason = NULL;
  char longest[ALOOP__UNIX_PATH_MAX + 2];
  memset(longest, 'x', sizeof longest - 1);
  longest[sizeof longest - 1] = '\0';
  assert_int_equal(aloop__unix_name(&name, longest, 0, &reason), ALOOP_ENAMETOOLONG);
  assert_int_equal(aloop__unix_name(&name, longest, ALOOP__UNIX_PATH_MAX, &reason), 0);
  assert_int_equal(aloop__unix_name(&name, "", 0, &reason), ALOOP_EINVAL);
  assert_non_null(reason);
  reason = NULL;
  assert_int_equal(aloop__unix_name(&name, "a\0b", 3, &reason), ALOOP_EINVAL);
  assert_non_null(reason);
}

static void the_file_is_dropped_with_what_was_noted(void **state) {
  env_t *env = *state;
  aloop__unix_name_t name;
  aloop__unix_file_t *file = NULL;
  struct stat now;
  const char *reason = NULL;
  make_folder();
  assert_int_equal(aloop__unix_name(&name, path, 0, &reason), 0);
  int fd = aloop__unix_socket(SOCK_STREAM);
  assert_true(fd >= 0);
  assert_int_equal(aloop__unix_bind(env->loop, fd, &name, 0, &file, &reason), 0);
  assert_non_null(file);
  assert_int_equal(lstat(path, &now), 0);
  aloop__unix_file_drop(env->loop, &file);
  assert_null(file);
  assert_int_equal(lstat(path, &now), -1);
  aloop__unix_file_drop(env->loop, &file); /* nothing to do */
  close(fd);
  assert_int_equal(rmdir(folder), 0);
}

static void a_dead_file_gives_way_once(void **state) {
  env_t *env = *state;
  aloop__unix_name_t name;
  const char *reason = NULL;
  make_folder();
  assert_int_equal(aloop__unix_name(&name, path, 0, &reason), 0);
  int dead = aloop__unix_socket(SOCK_STREAM), one = aloop__unix_socket(SOCK_STREAM);
  int two = aloop__unix_socket(SOCK_STREAM);
  assert_int_equal(aloop__unix_bind(env->loop, dead, &name, 0, NULL, &reason), 0);
  close(dead);
  assert_int_equal(aloop__unix_bind(env->loop, one, &name, 0, NULL, &reason), 0);
  assert_int_equal(aloop__unix_bind(env->loop, two, &name, 0, NULL, &reason), ALOOP_EADDRINUSE);
  assert_string_equal(reason, "another socket is bound to it");
  close(one);
  close(two);
  unlink(path);
  assert_int_equal(rmdir(folder), 0);
}

TESTS(T(a_path_ends_with_a_zero), T(an_abstract_name_has_its_bytes_only), T(bytes_that_are_no_name),
      T(the_file_is_dropped_with_what_was_noted), T(a_dead_file_gives_way_once))
