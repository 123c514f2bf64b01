/* SPDX-License-Identifier: MIT
 *
 * Connections and servers over Unix sockets: names, files that are left and files that are not, and what a full
 * backlog means. pollers: all
 */
#include "crowd.h"
#include "peers.h"
#include "streams.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- A folder with a socket in it ------------------------------------------------------------------------ */

static char folder[64];
static char path[80];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/aloop-unix-XXXXXX");
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/socket", folder);
}

/* Nothing is left in it. */
static void remove_folder(void) {
  assert_int_equal(rmdir(folder), 0);
}

static struct sockaddr_un address_of(const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  assert_true(strlen(name) < sizeof address.sun_path);
  memcpy(address.sun_path, name, strlen(name));
  return address;
}

/* A socket of the test's, bound to the path. */
static int bind_at(const char *name, int type) {
  struct sockaddr_un address = address_of(name);
  int fd = socket(AF_UNIX, type, 0);
  assert_true(fd >= 0);
  assert_int_equal(bind(fd, (struct sockaddr *)(void *)&address, sizeof address), 0);
  return fd;
}

static bool is_there(const char *name) {
  struct stat now;
  return lstat(name, &now) == 0;
}

/* ---- Servers and connections ----------------------------------------------------------------------------- */

static aloop_unix_server_options_t serving(const char *name) {
  return (aloop_unix_server_options_t){.size = sizeof(aloop_unix_server_options_t), .path = name};
}

static aloop_unix_connect_options_t connecting(const char *name) {
  return (aloop_unix_connect_options_t){.size = sizeof(aloop_unix_connect_options_t), .path = name};
}

static aloop_server_t *serve_with(env_t *env, crowd_t *crowd, aloop_unix_server_options_t options) {
  aloop_server_t *server = NULL;
  aloop_future_t *future = aloop_create_unix_server(env->loop, &crowd_protocol, crowd, &options);
  if (run_future(env->loop, future) < 0) fail_msg("%s", aloop_future_message(future));
  assert_int_equal(aloop_future_take_ptr(future, &server), 0);
  aloop_future_unref(future);
  return server;
}

static aloop_server_t *serve(env_t *env, crowd_t *crowd) {
  return serve_with(env, crowd, serving(path));
}

static void finish(env_t *env, aloop_server_t *server) {
  aloop_server_close(server);
  aloop_server_abort_clients(server);
  assert_int_equal(value_of(env, aloop_server_wait_closed(server)), 0);
  aloop_server_unref(server);
}

static int64_t refusal(env_t *env, aloop_unix_server_options_t options, char text[1024]) {
  static crowd_t crowd;
  return error_of(env, aloop_create_unix_server(env->loop, &crowd_protocol, &crowd, &options), text);
}

static aloop_transport_t *connect_with(env_t *env, tape_t *tape, aloop_unix_connect_options_t options) {
  tape->env = env;
  aloop_future_t *future = aloop_create_unix_connection(env->loop, &plain_protocol, tape, &options);
  if (run_future(env->loop, future) < 0) fail_msg("%s", aloop_future_message(future));
  aloop_future_unref(future);
  assert_non_null(tape->transport);
  return tape->transport;
}

static int64_t connect_error(env_t *env, aloop_unix_connect_options_t options, char text[1024]) {
  tape_t tape = {.env = env};
  return error_of(env, aloop_create_unix_connection(env->loop, &plain_protocol, &tape, &options), text);
}

/* What one side writes the other one gets. */
static void connect_and_talk(env_t *env, crowd_t *crowd, aloop_unix_connect_options_t options) {
  tape_t tape = {0};
  aloop_transport_t *transport = connect_with(env, &tape, options);
  run_until_count(env->loop, &crowd->made, 1);
  assert_int_equal(aloop_transport_write(transport, "hello", 5), 0);
  run_until_count(env->loop, &crowd->received, 5);
  assert_int_equal(aloop_transport_write(crowd->transports[0], "there", 5), 0);
  while (tape.size < 5) run_turn(env->loop);
  assert_memory_equal(tape.bytes, "there", 5);
  end_tape(&tape, -1);
  run_until_count(env->loop, &crowd->lost, 1);
}

static void a_path_connects(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  connect_and_talk(env, &crowd, connecting(path));
  assert_int_equal(crowd.last_error, 0);
  finish(env, server);
  remove_folder();
}

static void a_counted_path_needs_no_end(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  char longer[96];
  make_folder();
  snprintf(longer, sizeof longer, "%s.and more", path);
  aloop_unix_server_options_t options = serving(longer);
  options.path_size = strlen(path);
  aloop_server_t *server = serve_with(env, &crowd, options);
  connect_and_talk(env, &crowd, connecting(path));
  finish(env, server);
  remove_folder();
}

#ifdef __linux__
static void an_abstract_name_is_no_file(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  char name[64] = "";
  int length = snprintf(name + 1, sizeof name - 1, "aloop-test-%ld", (long)getpid());
  name[++length] = '\0'; /* zero bytes are like any others */
  aloop_unix_server_options_t options = serving(name);
  aloop_unix_connect_options_t to = connecting(name);
  options.path_size = to.path_size = (size_t)length + 1;
  aloop_server_t *server = serve_with(env, &crowd, options);
  char text[1024];
  assert_int_equal(refusal(env, options, text), ALOOP_EADDRINUSE);
  assert_non_null(strstr(text, "@aloop-test-"));
  connect_and_talk(env, &crowd, to);
  finish(env, server);
  assert_int_equal(connect_error(env, to, text), ALOOP_ECONNREFUSED);
}
#endif

static void names_are_told(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  tape_t tape = {0};
  struct sockaddr_un name = {0};
  struct sockaddr *any = (struct sockaddr *)(void *)&name;
  socklen_t size = sizeof name;
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  assert_true(aloop_server_socket(server, 0, any, &size) >= 0);
  assert_string_equal(name.sun_path, path);
  assert_int_equal(aloop_server_port(server), ALOOP_ENOENT);
  aloop_transport_t *transport = connect_with(env, &tape, connecting(path));
  run_until_count(env->loop, &crowd.made, 1);
  memset(&name, 0, sizeof name);
  size = sizeof name;
  assert_int_equal(aloop_transport_peername(transport, any, &size), 0);
  assert_string_equal(name.sun_path, path);
  memset(&name, 0, sizeof name);
  size = sizeof name;
  assert_int_equal(aloop_transport_sockname(crowd.transports[0], any, &size), 0);
  assert_string_equal(name.sun_path, path);
  size = sizeof name;
  assert_int_equal(aloop_transport_peername(crowd.transports[0], any, &size), 0);
  assert_true(size <= offsetof(struct sockaddr_un, sun_path)); /* the client has no name */
  end_tape(&tape, -1);
  finish(env, server);
  remove_folder();
}

/* ---- Names that cannot be -------------------------------------------------------------------------------- */

static void a_long_path_is_refused_with_the_limit(void **state) {
  env_t *env = *state;
  char text[1024], limit[16], name[200];
  memset(name, 'x', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  snprintf(limit, sizeof limit, "%zu", sizeof((struct sockaddr_un *)0)->sun_path - 1);
  assert_int_equal(refusal(env, serving(name), text), ALOOP_ENAMETOOLONG);
  assert_non_null(strstr(text, "199"));
  assert_non_null(strstr(text, limit));
  assert_int_equal(connect_error(env, connecting(name), text), ALOOP_ENAMETOOLONG);
  assert_non_null(strstr(text, limit));
}

static void the_longest_path_works(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  char name[sizeof((struct sockaddr_un *)0)->sun_path];
  make_folder();
  memset(name, 'x', sizeof name);
  memcpy(name, folder, strlen(folder));
  name[strlen(folder)] = '/';
  name[sizeof name - 1] = '\0';
  aloop_server_t *server = serve_with(env, &crowd, serving(name));
  connect_and_talk(env, &crowd, connecting(name));
  finish(env, server);
  remove_folder();
}

static void a_folder_that_is_not_there(void **state) {
  env_t *env = *state;
  char text[1024];
  make_folder();
  remove_folder();
  assert_int_equal(refusal(env, serving(path), text), ALOOP_ENOENT);
  assert_non_null(strstr(text, path));
  assert_int_equal(connect_error(env, connecting(path), text), ALOOP_ENOENT);
  assert_non_null(strstr(text, path));
}

/* ---- Files in the way ------------------------------------------------------------------------------------ */

static void a_dead_file_is_replaced(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  close(bind_at(path, SOCK_STREAM));
  assert_true(is_there(path));
  aloop_server_t *server = serve(env, &crowd);
  connect_and_talk(env, &crowd, connecting(path));
  finish(env, server);
  remove_folder();
}

static void a_living_server_is_not_replaced(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  char text[1024];
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  assert_int_equal(refusal(env, serving(path), text), ALOOP_EADDRINUSE);
  assert_non_null(strstr(text, path));
  assert_non_null(strstr(text, "another socket"));
  run_turns(env->loop, 5);
  assert_int_equal(crowd.made, 0); /* nor does it see a client that is none */
  connect_and_talk(env, &crowd, connecting(path));
  finish(env, server);
  remove_folder();
}

static void a_socket_that_does_not_listen_yet_is_not_replaced(void **state) {
  env_t *env = *state;
  char text[1024];
  make_folder();
  int fd = bind_at(path, SOCK_STREAM);
  assert_int_equal(refusal(env, serving(path), text), ALOOP_EADDRINUSE);
  close(fd);
  unlink(path);
  fd = bind_at(path, SOCK_DGRAM);
  assert_int_equal(refusal(env, serving(path), text), ALOOP_EADDRINUSE);
  close(fd);
  unlink(path);
  remove_folder();
}

static void a_file_that_is_no_socket_is_left_alone(void **state) {
  env_t *env = *state;
  char text[1024];
  make_folder();
  int fd = open(path, O_CREAT | O_WRONLY, 0600);
  assert_int_equal(write(fd, "precious", 8), 8);
  assert_int_equal(close(fd), 0);
  assert_int_equal(refusal(env, serving(path), text), ALOOP_EADDRINUSE);
  assert_non_null(strstr(text, "no socket"));
  assert_true(is_there(path));
  unlink(path);
  assert_int_equal(mkdir(path, 0700), 0);
  assert_int_equal(refusal(env, serving(path), text), ALOOP_EADDRINUSE);
  assert_int_equal(rmdir(path), 0);
  remove_folder();
}

/* A link to a dead socket is no dead socket. */
static void a_link_is_left_alone(void **state) {
  env_t *env = *state;
  char text[1024], other[96];
  make_folder();
  snprintf(other, sizeof other, "%s.other", path);
  close(bind_at(other, SOCK_STREAM));
  assert_int_equal(symlink(other, path), 0);
  assert_int_equal(refusal(env, serving(path), text), ALOOP_EADDRINUSE);
  assert_true(is_there(path));
  assert_true(is_there(other));
  unlink(path);
  unlink(other);
  remove_folder();
}

/* ---- The end of a file ----------------------------------------------------------------------------------- */

static void closing_unlinks_the_file_at_once(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  assert_true(is_there(path));
  aloop_server_close(server);
  assert_false(is_there(path));
  aloop_server_unref(server);
  remove_folder();
}

static void closing_the_loop_unlinks_the_file(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_server_unref(serve(env, &crowd));
  aloop_free(env->loop);
  env->loop = NULL;
  assert_false(is_there(path));
  remove_folder();
}

static void another_file_in_its_place_stays(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  unlink(path);
  int fd = bind_at(path, SOCK_STREAM);
  finish(env, server);
  assert_true(is_there(path));
  close(fd);
  unlink(path);
  remove_folder();
}

static void a_file_that_went_before_does_not_matter(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  unlink(path);
  finish(env, server);
  remove_folder();
}

static void without_cleanup_the_file_stays(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_unix_server_options_t options = serving(path);
  options.cleanup = -1;
  finish(env, serve_with(env, &crowd, options));
  assert_true(is_there(path));
  unlink(path);
  remove_folder();
}

static void the_child_of_a_fork_unlinks_nothing(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  pid_t child = fork();
  if (child == 0) {
    aloop_server_close(server);
    _exit(is_there(path) ? 0 : 1);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  finish(env, server);
  remove_folder();
}

static void permissions_are_those_asked_for(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  struct stat now;
  make_folder();
  mode_t before = umask(077);
  aloop_unix_server_options_t options = serving(path);
  options.mode = 0666;
  aloop_server_t *server = serve_with(env, &crowd, options);
  assert_int_equal(lstat(path, &now), 0);
  assert_int_equal(now.st_mode & 0777, 0666);
  finish(env, server);
  umask(0);
  options.mode = 0600;
  server = serve_with(env, &crowd, options);
  assert_int_equal(lstat(path, &now), 0);
  assert_int_equal(now.st_mode & 0777, 0600);
  finish(env, server);
  umask(before);
  remove_folder();
}

static void a_server_that_waits_to_serve(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  char text[1024];
  make_folder();
  aloop_unix_server_options_t options = serving(path);
  options.start_serving = -1;
  aloop_server_t *server = serve_with(env, &crowd, options);
  assert_int_equal(connect_error(env, connecting(path), text), ALOOP_ECONNREFUSED);
  assert_int_equal(aloop_server_start_serving(server), 0);
  connect_and_talk(env, &crowd, connecting(path));
  finish(env, server);
  remove_folder();
}

/* ---- Descriptors ----------------------------------------------------------------------------------------- */

static void a_bound_descriptor_serves_and_keeps_its_file(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  make_folder();
  aloop_unix_server_options_t options = serving(NULL);
  options.fd = bind_at(path, SOCK_STREAM);
  aloop_server_t *server = serve_with(env, &crowd, options);
  connect_and_talk(env, &crowd, connecting(path));
  finish(env, server);
  assert_true(is_there(path));
  unlink(path);
  remove_folder();
}

static void a_connected_descriptor_becomes_a_transport(void **state) {
  env_t *env = *state;
  tape_t tape = {0};
  int fds[2];
  make_socketpair(fds);
  aloop_unix_connect_options_t options = connecting(NULL);
  options.fd = fds[0];
  connect_with(env, &tape, options);
  say(fds[1], "hello");
  settle(env->loop);
  assert_memory_equal(tape.bytes, "hello", 5);
  put(&tape, "there");
  expect(&tape, fds[1], "there");
  end_tape(&tape, fds[1]);
}

/* ---- Nobody there, or too many --------------------------------------------------------------------------- */

static void a_dead_file_refuses(void **state) {
  env_t *env = *state;
  char text[1024];
  make_folder();
  close(bind_at(path, SOCK_STREAM));
  assert_int_equal(connect_error(env, connecting(path), text), ALOOP_ECONNREFUSED);
  assert_non_null(strstr(text, path));
  unlink(path);
  remove_folder();
}

#ifdef __linux__
/* A listening socket whose backlog has room for no more. */
static int make_full(int clients[2]) {
  struct sockaddr_un address = address_of(path);
  int fd = bind_at(path, SOCK_STREAM);
  assert_int_equal(listen(fd, 0), 0);
  for (int i = 0; i < 2; i++) clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  assert_int_equal(connect(clients[0], (struct sockaddr *)(void *)&address, sizeof address), 0);
  assert_int_equal(connect(clients[1], (struct sockaddr *)(void *)&address, sizeof address), -1);
  assert_int_equal(errno, EAGAIN);
  return fd;
}

static void end_full(int fd, const int clients[2]) {
  close(fd);
  close(clients[0]);
  close(clients[1]);
  unlink(path);
  remove_folder();
}

static void a_full_backlog_is_waited_for(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int clients[2];
  make_folder();
  int fd = make_full(clients);
  aloop_unix_connect_options_t options = connecting(path);
  aloop_future_t *future = aloop_create_unix_connection(env->loop, &plain_protocol, &tape, &options);
  run_turns(env->loop, 10);
  assert_false(aloop_future_done(future));
  int accepted = accept(fd, NULL, NULL);
  assert_true(run_future(env->loop, future) >= 0);
  aloop_future_unref(future);
  close(accepted);
  end_tape(&tape, -1);
  end_full(fd, clients);
}

static void a_full_backlog_times_out(void **state) {
  env_t *env = *state;
  int clients[2];
  char text[1024];
  make_folder();
  int fd = make_full(clients);
  aloop_unix_connect_options_t options = connecting(path);
  options.timeout = ALOOP_MILLIS(30);
  int64_t start = aloop_time(env->loop);
  assert_int_equal(connect_error(env, options, text), ALOOP_ETIMEDOUT);
  assert_true(aloop_time(env->loop) - start >= ALOOP_MILLIS(30));
  assert_non_null(strstr(text, path));
  assert_non_null(strstr(text, "backlog"));
  end_full(fd, clients);
}

static void waiting_can_be_cancelled(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int clients[2];
  make_folder();
  int fd = make_full(clients);
  aloop_unix_connect_options_t options = connecting(path);
  options.timeout = ALOOP_SECONDS(10);
  aloop_future_t *future = aloop_create_unix_connection(env->loop, &plain_protocol, &tape, &options);
  run_turn(env->loop);
  int before = open_fds();
  assert_int_equal(aloop_future_cancel(future), 1);
  assert_int_equal(open_fds(), before - 1);
  aloop_future_unref(future);
  end_full(fd, clients);
}

static void closing_the_loop_ends_the_wait(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int clients[2];
  make_folder();
  int fd = make_full(clients);
  aloop_unix_connect_options_t options = connecting(path);
  aloop_future_detach(aloop_create_unix_connection(env->loop, &plain_protocol, &tape, &options));
  run_turn(env->loop);
  aloop_free(env->loop);
  env->loop = NULL;
  end_full(fd, clients);
}
#define LINUX_TESTS                                                                                            \
  , T(an_abstract_name_is_no_file), T(a_full_backlog_is_waited_for), T(a_full_backlog_times_out),              \
      T(waiting_can_be_cancelled), T(closing_the_loop_ends_the_wait)
#else
#define LINUX_TESTS
#endif

/* ---- Pairs and credentials ------------------------------------------------------------------------------- */

static void a_pair_is_connected_and_ready(void **state) {
  (void)state;
  static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
  char byte = 0;
  for (int i = 0; i < 3; i++) {
    int fds[2] = {-1, -1};
    int rc = aloop_socketpair(types[i], fds);
    if (rc == -EPROTONOSUPPORT && types[i] == SOCK_SEQPACKET) continue;
    assert_int_equal(rc, 0);
    for (int k = 0; k < 2; k++) {
      assert_true(fcntl(fds[k], F_GETFD) & FD_CLOEXEC);
      assert_true(fcntl(fds[k], F_GETFL) & O_NONBLOCK);
    }
    assert_int_equal(write(fds[0], "x", 1), 1);
    assert_int_equal(read(fds[1], &byte, 1), 1);
    close(fds[0]);
    close(fds[1]);
  }
}

static void without_room_there_is_no_pair(void **state) {
  (void)state;
  int fds[2] = {-7, -7};
  use_up_fds();
  int rc = aloop_socketpair(SOCK_STREAM, fds);
  restore_fd_limit();
  assert_int_equal(rc, ALOOP_EMFILE);
  assert_int_equal(fds[0], -7);
  assert_int_equal(fds[1], -7);
}

static void the_peer_is_this_process(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  tape_t tape = {0};
  aloop_peercred_t peer = {0};
  make_folder();
  aloop_server_t *server = serve(env, &crowd);
  aloop_transport_t *transport = connect_with(env, &tape, connecting(path));
  run_until_count(env->loop, &crowd.made, 1);
  aloop_transport_t *ends[] = {transport, crowd.transports[0]};
  for (int i = 0; i < 2; i++) {
    memset(&peer, 0, sizeof peer);
    assert_int_equal(aloop_transport_peercred(ends[i], &peer), 0);
    assert_true(peer.pid == getpid() || peer.pid == -1);
    assert_int_equal(peer.uid, geteuid());
    assert_int_equal(peer.gid, getegid());
  }
  aloop_transport_abort(transport);
  while (!tape.lost) run_turn(env->loop);
  assert_int_equal(aloop_transport_peercred(transport, &peer), ALOOP_ECLOSED);
  end_tape(&tape, -1);
  finish(env, server);
  remove_folder();
}

/* ---- Out of memory --------------------------------------------------------------------------------------- */

static void serve_and_connect(env_t *env) {
  static crowd_t crowd; /* clients end with the loop */
  memset(&crowd, 0, sizeof crowd);
  tape_t tape = {.env = env};
  aloop_server_t *server = NULL;
  aloop_unix_server_options_t options = serving(path);
  aloop_unix_connect_options_t to = connecting(path);
  to.timeout = ALOOP_SECONDS(1);
  aloop_future_t *future = aloop_create_unix_server(env->loop, &crowd_protocol, &crowd, &options);
  if (future != NULL && run_future(env->loop, future) >= 0) aloop_future_take_ptr(future, &server);
  aloop_future_unref(future);
  if (server == NULL) assert_false(is_there(path));
  future = server != NULL ? aloop_create_unix_connection(env->loop, &plain_protocol, &tape, &to) : NULL;
  if (future != NULL) run_future(env->loop, future);
  aloop_future_unref(future);
  env->fail_from = 0;
  aloop_server_close(server);
  aloop_server_unref(server);
  assert_false(is_there(path));
  if (tape.transport != NULL) end_tape(&tape, -1);
}

static void without_memory_nothing_is_left(void **state) {
  make_folder();
  torture(*state, serve_and_connect);
  remove_folder();
}

TESTS(T(a_path_connects), T(a_counted_path_needs_no_end), T(names_are_told),
      T(a_long_path_is_refused_with_the_limit), T(the_longest_path_works), T(a_folder_that_is_not_there),
      T(a_dead_file_is_replaced), T(a_living_server_is_not_replaced),
      T(a_socket_that_does_not_listen_yet_is_not_replaced), T(a_file_that_is_no_socket_is_left_alone),
      T(a_link_is_left_alone), T(closing_unlinks_the_file_at_once), T(closing_the_loop_unlinks_the_file),
      T(another_file_in_its_place_stays), T(a_file_that_went_before_does_not_matter),
      T(without_cleanup_the_file_stays), T(the_child_of_a_fork_unlinks_nothing),
      T(permissions_are_those_asked_for), T(a_server_that_waits_to_serve),
      T(a_bound_descriptor_serves_and_keeps_its_file), T(a_connected_descriptor_becomes_a_transport),
      T(a_dead_file_refuses), T(a_pair_is_connected_and_ready), T(without_room_there_is_no_pair),
      T(the_peer_is_this_process), T(without_memory_nothing_is_left) LINUX_TESTS)
