/* SPDX-License-Identifier: MIT
 *
 * Wrong calls that make connections and servers over Unix sockets: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"
#include "peers.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const aloop_protocol_t protocol = {.size = sizeof protocol};

#define CONNECT(...)                                                                                           \
  aloop_create_unix_connection(                                                                                \
      m->loop, &protocol, m,                                                                                   \
      &(aloop_unix_connect_options_t){.size = sizeof(aloop_unix_connect_options_t), __VA_ARGS__})
#define SERVE(...)                                                                                             \
  aloop_create_unix_server(                                                                                    \
      m->loop, &protocol, m,                                                                                   \
      &(aloop_unix_server_options_t){.size = sizeof(aloop_unix_server_options_t), __VA_ARGS__})

static void tables_and_sizes(misuse_t *m) {
  aloop_unix_connect_options_t to = {.size = sizeof to, .path = "nowhere"};
  aloop_unix_server_options_t at = {.size = sizeof at, .path = "nowhere/at all"};
  aloop_protocol_t unsized = {0};
  MISTAKE(aloop_create_unix_connection(NULL, &protocol, m, &to), 0);
  MISTAKE_OF_FUTURE(aloop_create_unix_connection(m->loop, NULL, m, &to), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_unix_connection(m->loop, &unsized, m, &to), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_unix_connection(m->loop, &protocol, m, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_create_unix_server(NULL, &protocol, m, &at), 0);
  MISTAKE_OF_FUTURE(aloop_create_unix_server(m->loop, NULL, m, &at), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_unix_server(m->loop, &unsized, m, &at), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_unix_server(m->loop, &protocol, m, NULL), ALOOP_EINVAL);
  to.size = at.size = 0;
  MISTAKE_OF_FUTURE(aloop_create_unix_connection(m->loop, &protocol, m, &to), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_unix_server(m->loop, &protocol, m, &at), ALOOP_EINVAL);
}

static void options(misuse_t *m) {
  MISTAKE_OF_FUTURE(CONNECT(.path = ""), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.path = "a\0b", .path_size = 3), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.path = "nowhere", .fd = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.path_size = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.path = "nowhere", .timeout = -2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = ""), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "a\0b", .path_size = 3), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "nowhere", .fd = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path_size = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "nowhere/x", .backlog = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "nowhere/x", .mode = 0100600), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "\0x", .path_size = 2, .mode = 0600), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fd = 5, .mode = 0600), ALOOP_EINVAL);
  ORDINARY_OF_FUTURE(CONNECT(.path = "nowhere/at all"), ALOOP_ENOENT);
  ORDINARY_OF_FUTURE(SERVE(.path = "nowhere/at all"), ALOOP_ENOENT);
}

static void descriptors(misuse_t *m) {
  int port, lonely = peer_bind("127.0.0.1", &port), pipes[2], gone = dup(lonely);
  int pair[2];
  make_pipe(pipes);
  make_socketpair(pair);
  close(gone);
  MISTAKE_OF_FUTURE(CONNECT(.fd = lonely), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.fd = pipes[0]), ALOOP_ENOTSOCK);
  MISTAKE_OF_FUTURE(CONNECT(.fd = gone), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(SERVE(.fd = lonely), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fd = pipes[0]), ALOOP_ENOTSOCK);
  MISTAKE_OF_FUTURE(SERVE(.fd = gone), ALOOP_EBADF);
  int fds[] = {lonely, pipes[0], pipes[1], pair[0], pair[1]};
  for (int i = 0; i < 5; i++) assert_int_equal(close(fds[i]), 0);
}

static void calls_with_the_wrong_table_or_size(void **state) {
  in_both_modes(*state, tables_and_sizes);
}

static void options_that_contradict(void **state) {
  in_both_modes(*state, options);
}

static void descriptors_of_another_kind(void **state) {
  in_both_modes(*state, descriptors);
}

static void from_another_thread(misuse_t *m) {
  if (!m->debug) return; /* nobody looks */
  MISTAKE(CONNECT(.path = "nowhere"), 0);
  MISTAKE(SERVE(.path = "nowhere/x"), 0);
}

static void calls_from_another_thread(void **state) {
  misuse_t m = {0};
  misuse_begin(&m, *state, true);
  misuse_in_thread(&m, from_another_thread);
  misuse_end(&m);
}

TESTS(T(calls_with_the_wrong_table_or_size), T(options_that_contradict), T(descriptors_of_another_kind),
      T(calls_from_another_thread))
