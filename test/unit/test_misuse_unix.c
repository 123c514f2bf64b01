/* SPDX-License-Identifier: MIT
 *
 * Wrong calls that make connections and servers over Unix sockets: see misuse.h for what is checked with each.
 * pollers: all, threads: yes
 */
#include "misuse.h"
#include "peers.h"
#include "streams.h"

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
  MISTAKE_OF_FUTURE(SERVE(.path = "nowhere/x", .loops_count = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "nowhere/x", .mode = 0100600), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "\0x", .path_size = 2, .mode = 0600), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fd = 5, .mode = 0600), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.path = "nowhere", .type = SOCK_DGRAM), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.path = "nowhere", .flags = 2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "nowhere/x", .flags = 2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.path = "nowhere", .type = SOCK_SEQPACKET, .flags = ALOOP_UNIX_NO_DESCRIPTORS),
                    ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.path = "nowhere/x", .type = SOCK_DGRAM), ALOOP_EINVAL);
  ORDINARY_OF_FUTURE(CONNECT(.path = "nowhere/at all", .type = SOCK_SEQPACKET), ALOOP_ENOENT);
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
  MISTAKE_OF_FUTURE(CONNECT(.fd = pair[0], .type = SOCK_SEQPACKET), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.fd = pair[0], .type = SOCK_SEQPACKET), ALOOP_EINVAL);
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

/* ---- Pairs and descriptors ------------------------------------------------------------------------------- */

static void pairs(misuse_t *m) {
  MISTAKE(aloop_socketpair(SOCK_STREAM, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_socketpair(SOCK_RAW, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_socketpair(-1, OUT), ALOOP_EINVAL);
}

static void passing(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  int fds[254] = {0}, gone = dup(0);
  close(gone);
  MISTAKE(aloop_transport_write_fds(NULL, "x", 1, fds, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_fds(transport, NULL, 1, fds, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_fds(transport, "x", 0, fds, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_fds(transport, "x", 1, NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_fds(transport, "x", 1, fds, 0), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_fds(transport, "x", 1, fds, 254), ALOOP_EINVAL);
  fds[1] = gone;
  MISTAKE(aloop_transport_write_fds(transport, "x", 1, fds, 2), ALOOP_EBADF);
  fds[1] = -1;
  MISTAKE(aloop_transport_write_fds(transport, "x", 1, fds, 2), ALOOP_EBADF);
  MISTAKE(aloop_transport_take_fd(NULL), ALOOP_EINVAL);
  ORDINARY(aloop_transport_take_fd(transport), ALOOP_ENOENT);
  MISTAKE(aloop_transport_peercred(NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_transport_peercred(transport, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_write_eof(transport), 0);
  MISTAKE(aloop_transport_write_fds(transport, "x", 1, fds, 1), ALOOP_EPIPE);
}

static void passing_where_nothing_passes(misuse_t *m) {
  int fd = 0;
  MISTAKE(aloop_transport_write_fds(m->arg, "x", 1, &fd, 1), ALOOP_ENOTSUP);
  MISTAKE(aloop_transport_take_fd(m->arg), ALOOP_ENOTSUP);
  MISTAKE(aloop_transport_peercred(m->arg, OUT), ALOOP_ENOTSUP);
}

static void passing_after_the_end(misuse_t *m) {
  int fd = 0;
  ORDINARY(aloop_transport_write_fds(m->arg, "x", 1, &fd, 1), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_take_fd(m->arg), ALOOP_ENOENT);
  ORDINARY(aloop_transport_peercred(m->arg, OUT), ALOOP_ECLOSED);
}

static void passing_in_another_thread(misuse_t *m) {
  int fd = 0;
  MISTAKE(aloop_transport_write_fds(m->arg, "x", 1, &fd, 1), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_transport_take_fd(m->arg), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_transport_peercred(m->arg, OUT), ALOOP_ENOTLOOPTHREAD);
}

static void with_unix_transport(env_t *env, bool debug, misuse_fn body, misuse_fn after, bool thread) {
  misuse_t m = {0};
  misuse_begin(&m, env, debug);
  tape_t tape = {.env = env};
  int fds[2];
  make_socketpair(fds);
  aloop_unix_connect_options_t to = {.size = sizeof to, .fd = fds[0]};
  aloop_future_t *future = aloop_create_unix_connection(m.loop, &plain_protocol, &tape, &to);
  assert_true(run_future(m.loop, future) >= 0);
  aloop_future_unref(future);
  m.arg = tape.transport;
  if (thread)
    misuse_in_thread(&m, body);
  else
    misuse_in_callback(&m, body);
  aloop_transport_abort(tape.transport);
  settle(m.loop);
  if (after != NULL) misuse_in_callback(&m, after);
  end_tape(&tape, fds[1]);
  misuse_end(&m);
}

static void pairs_of_nothing(void **state) {
  in_both_modes(*state, pairs);
}

static void descriptors_that_cannot_be_passed(void **state) {
  with_unix_transport(*state, false, passing, passing_after_the_end, false);
  with_unix_transport(*state, true, passing, passing_after_the_end, false);
}

static void transports_that_cannot_pass(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m = {0};
    misuse_begin(&m, *state, debug);
    tape_t tape = {.env = *state};
    int peer = open_tcp_tape(&tape, &plain_protocol);
    m.arg = tape.transport;
    misuse_in_callback(&m, passing_where_nothing_passes);
    end_tape(&tape, peer);
    misuse_end(&m);
  }
}

static void passing_from_another_thread(void **state) {
  with_unix_transport(*state, true, passing_in_another_thread, NULL, true);
}

/* ---- Making, in the wrong thread ------------------------------------------------------------------------- */

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

TESTS(T(pairs_of_nothing), T(descriptors_that_cannot_be_passed), T(transports_that_cannot_pass),
      T(passing_from_another_thread), T(calls_with_the_wrong_table_or_size), T(options_that_contradict),
      T(descriptors_of_another_kind), T(calls_from_another_thread))
