/* SPDX-License-Identifier: MIT
 *
 * Datagram endpoints over Unix sockets: their names, and the files that they find and leave. pollers: all
 */
#include "dgrams.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peers.h"
#include "streams.h"

static char folder[64];
static char path[80];
static char other[80];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/aloop-udgram-XXXXXX");
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/socket", folder);
  snprintf(other, sizeof other, "%s/other", folder);
}

/* Nothing is left in it. */
static void remove_folder(void) {
  assert_int_equal(rmdir(folder), 0);
}

static bool is_there(const char *name) {
  struct stat now;
  return lstat(name, &now) == 0;
}

static void open_at(post_t *post, const char *local, const char *remote) {
  open_post(post, &single_protocol, (aloop_datagram_options_t){.local_path = local, .remote_path = remote});
}

/* A socket of the test's, bound to the path. */
static int bind_at(const char *name, int type) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, type, 0);
  memcpy(address.sun_path, name, strlen(name));
  assert_int_equal(bind(fd, (struct sockaddr *)(void *)&address, sizeof address), 0);
  return fd;
}

static void fails_with(env_t *env, aloop_datagram_options_t options, int error, const char *text) {
  post_t post = {.env = env};
  options.size = sizeof options;
  aloop_future_t *future = aloop_create_datagram_endpoint(env->loop, &single_protocol, &post, &options);
  assert_int_equal(run_future(env->loop, future), error);
  assert_non_null(strstr(aloop_future_message(future), text));
  assert_int_equal(post.events_count, 0);
  aloop_future_unref(future);
}

/* ---- Names ----------------------------------------------------------------------------------------------- */

static void answer(post_t *post, const void *data, size_t size, const struct sockaddr *address,
                   socklen_t address_size) {
  assert_int_equal(aloop_datagram_sendto(post->endpoint, data, size, address, address_size), 0);
}

static void question_and_answer_by_path(void **state) {
  post_t server = {.env = *state, .on_data = answer}, client = {.env = *state};
  make_folder();
  open_at(&server, path, NULL);
  open_at(&client, other, path);
  post_text(&client, "hello");
  post_text(&client, "");
  await_datagrams(&client, 2);
  assert_string_equal(client.text, "hello\n\n");
  end_post(&client, -1);
  end_post(&server, -1);
  remove_folder();
}

static void abstract_names_are_no_files(void **state) {
#ifdef __linux__
  post_t server = {.env = *state, .on_data = answer}, client = {.env = *state};
  char name[40], mine[40];
  size_t size = (size_t)snprintf(name, sizeof name, "#aloop-%ld", (long)getpid());
  memcpy(mine, name, sizeof name);
  name[0] = mine[0] = '\0';
  mine[1] = 'A';
  aloop_datagram_options_t at = {.local_path = name, .local_path_size = size};
  open_post(&server, &single_protocol, at);
  fails_with(*state, at, ALOOP_EADDRINUSE, "in use");
  open_post(&client, &single_protocol,
            (aloop_datagram_options_t){
                .local_path = mine, .local_path_size = size, .remote_path = name, .remote_path_size = size});
  post_text(&client, "hello");
  await_datagrams(&client, 1);
  end_post(&client, -1);
  end_post(&server, -1);
#else
  fails_with(*state, (aloop_datagram_options_t){.local_path = "\0x", .local_path_size = 2}, ALOOP_ENOTSUP,
             "Linux");
#endif
}

static void a_path_that_is_too_long_is_told_with_the_limit(void **state) {
  char text[40], longest[300];
  memset(longest, 'x', sizeof longest - 1);
  longest[sizeof longest - 1] = '\0';
  snprintf(text, sizeof text, "at most %d", (int)sizeof((struct sockaddr_un *)0)->sun_path - 1);
  fails_with(*state, (aloop_datagram_options_t){.local_path = longest}, ALOOP_ENAMETOOLONG, text);
  fails_with(*state, (aloop_datagram_options_t){.remote_path = longest}, ALOOP_ENAMETOOLONG, text);
}

/* ---- Files ----------------------------------------------------------------------------------------------- */

static void the_file_goes_with_the_endpoint(void **state) {
  post_t post = {.env = *state};
  make_folder();
  open_at(&post, path, NULL);
  assert_true(is_there(path));
  end_post(&post, -1);
  remove_folder();
}

static void the_file_goes_when_the_loop_is_closed(void **state) {
  env_t *env = *state;
  post_t post = {.env = env};
  make_folder();
  open_at(&post, path, NULL);
  aloop_close(env->loop);
  assert_true(post.lost);
  aloop_datagram_unref(post.endpoint);
  remove_folder();
}

static void who_asks_for_it_keeps_the_file(void **state) {
  post_t post = {.env = *state};
  make_folder();
  open_post(&post, &single_protocol, (aloop_datagram_options_t){.local_path = path, .cleanup = -1});
  end_post(&post, -1);
  assert_int_equal(unlink(path), 0);
  remove_folder();
}

static void a_dead_file_is_replaced(void **state) {
  static const int types[] = {SOCK_DGRAM, SOCK_STREAM};
  make_folder();
  for (int i = 0; i < 2; i++) {
    post_t post = {.env = *state};
    close(bind_at(path, types[i]));
    assert_true(is_there(path));
    open_at(&post, path, NULL);
    end_post(&post, -1);
  }
  remove_folder();
}

static void a_living_socket_is_not_replaced(void **state) {
  static const int types[] = {SOCK_DGRAM, SOCK_STREAM};
  make_folder();
  for (int i = 0; i < 2; i++) {
    int fd = bind_at(path, types[i]);
    fails_with(*state, (aloop_datagram_options_t){.local_path = path}, ALOOP_EADDRINUSE,
               "socket: another socket is bound to it");
    close(fd);
    unlink(path);
  }
  remove_folder();
}

/* One that is connected lets nobody else connect: that is no sign of death. */
static void one_that_has_a_peer_is_alive(void **state) {
  post_t server = {.env = *state}, client = {.env = *state};
  make_folder();
  open_at(&server, other, NULL);
  open_at(&client, path, other);
  fails_with(*state, (aloop_datagram_options_t){.local_path = path}, ALOOP_EADDRINUSE, "another socket");
  end_post(&client, -1);
  end_post(&server, -1);
  remove_folder();
}

static void a_file_of_another_kind_is_left_alone(void **state) {
  make_folder();
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fclose(file);
  fails_with(*state, (aloop_datagram_options_t){.local_path = path}, ALOOP_EADDRINUSE, "no socket");
  assert_int_equal(unlink(path), 0);
  remove_folder();
}

static void a_file_that_was_exchanged_is_left_alone(void **state) {
  post_t post = {.env = *state};
  make_folder();
  open_at(&post, path, NULL);
  assert_int_equal(unlink(path), 0);
  int fd = bind_at(path, SOCK_DGRAM);
  end_post(&post, -1);
  assert_true(is_there(path));
  close(fd);
  unlink(path);
  remove_folder();
}

static void a_child_leaves_the_file(void **state) {
  post_t post = {.env = *state};
  make_folder();
  open_at(&post, path, NULL);
  pid_t child = fork();
  if (child == 0) {
    aloop_free(post.env->loop);
    _exit(0);
  }
  int status = 1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  assert_true(is_there(path));
  end_post(&post, -1);
  remove_folder();
}

static void a_file_of_an_endpoint_that_came_to_nothing_is_gone(void **state) {
  env_t *env = *state;
  make_folder();
  fails_with(env, (aloop_datagram_options_t){.local_path = path, .remote_path = other}, ALOOP_ENOENT,
             "connect to");
  assert_false(is_there(path));
  post_t refused = {.env = env, .refuse = true};
  aloop_datagram_options_t options = {.size = sizeof options, .local_path = path};
  aloop_future_t *future = aloop_create_datagram_endpoint(env->loop, &single_protocol, &refused, &options);
  assert_int_equal(run_future(env->loop, future), ALOOP_ENOMEM);
  aloop_future_unref(future);
  assert_false(is_there(path));
  future = aloop_create_datagram_endpoint(env->loop, &single_protocol, &refused, &options);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  settle(env->loop);
  remove_folder();
}

static void permissions_are_as_wished(void **state) {
  post_t post = {.env = *state};
  struct stat now;
  make_folder();
  open_post(&post, &single_protocol, (aloop_datagram_options_t){.local_path = path, .mode = 0640});
  assert_int_equal(lstat(path, &now), 0);
  assert_int_equal(now.st_mode & 07777, 0640);
  end_post(&post, -1);
  remove_folder();
}

/* An address is a path, too. */
static void an_address_has_a_file_as_well(void **state) {
  post_t post = {.env = *state};
  make_folder();
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, path, strlen(path));
  for (int i = 0; i < 2; i++) {
    post_t again = {.env = post.env};
    close(bind_at(path, SOCK_DGRAM));
    open_post(&again, &single_protocol,
              (aloop_datagram_options_t){
                  .local = (struct sockaddr *)(void *)&address,
                  .local_size = i == 0 ? (socklen_t)sizeof address
                                       : (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))});
    end_post(&again, -1);
  }
  remove_folder();
}

TESTS(T(question_and_answer_by_path), T(abstract_names_are_no_files),
      T(a_path_that_is_too_long_is_told_with_the_limit), T(the_file_goes_with_the_endpoint),
      T(the_file_goes_when_the_loop_is_closed), T(who_asks_for_it_keeps_the_file), T(a_dead_file_is_replaced),
      T(a_living_socket_is_not_replaced), T(one_that_has_a_peer_is_alive),
      T(a_file_of_another_kind_is_left_alone), T(a_file_that_was_exchanged_is_left_alone),
      T(a_child_leaves_the_file), T(a_file_of_an_endpoint_that_came_to_nothing_is_gone),
      T(permissions_are_as_wished), T(an_address_has_a_file_as_well))
