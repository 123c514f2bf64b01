/* SPDX-License-Identifier: MIT
 *
 * Wrong calls that make pipes, and on pipes: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "misuse.h"
#include "peers.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static const aloop_protocol_t protocol = {.size = sizeof protocol};

static void ignore(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

static aloop_future_t *reader(misuse_t *m, int fd) {
  return aloop_connect_read_pipe(m->loop, &protocol, m, fd);
}

static aloop_future_t *writer(misuse_t *m, int fd) {
  return aloop_connect_write_pipe(m->loop, &protocol, m, fd);
}

static void arguments_of_pipes(misuse_t *m) {
  aloop_protocol_t unsized = {0}, partial = {.size = sizeof partial - 8};
  int fds[2];
  make_pipe(fds);
  MISTAKE(aloop_connect_read_pipe(NULL, &protocol, m, fds[0]), 0);
  MISTAKE(aloop_connect_write_pipe(NULL, &protocol, m, fds[1]), 0);
  MISTAKE_OF_FUTURE(aloop_connect_read_pipe(m->loop, NULL, m, fds[0]), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_connect_write_pipe(m->loop, NULL, m, fds[1]), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_connect_read_pipe(m->loop, &unsized, m, fds[0]), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_connect_write_pipe(m->loop, &partial, m, fds[1]), ALOOP_EINVAL);
  assert_int_equal(close(fds[0]), 0);
  assert_int_equal(close(fds[1]), 0);
}

static void descriptors_of_pipes(misuse_t *m) {
  int fds[2], port, listener = peer_listen(1, &port), gone = dup(listener);
  int datagram = socket(AF_INET, SOCK_DGRAM, 0), folder = open("/", O_RDONLY | O_CLOEXEC);
  make_pipe(fds);
  close(gone);
  MISTAKE_OF_FUTURE(reader(m, -1), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(writer(m, INT32_MIN), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(reader(m, gone), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(writer(m, gone), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(reader(m, fds[1]), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(writer(m, fds[0]), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(reader(m, folder), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(reader(m, datagram), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(writer(m, datagram), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(reader(m, listener), ALOOP_EINVAL);
  assert_int_equal(aloop_add_reader(m->loop, fds[0], ignore, NULL), 0);
  MISTAKE_OF_FUTURE(reader(m, fds[0]), ALOOP_EBUSY);
  assert_int_equal(aloop_remove_reader(m->loop, fds[0]), 1);
  int all[] = {listener, datagram, folder, fds[0], fds[1]};
  for (int i = 0; i < 5; i++) assert_int_equal(close(all[i]), 0);
}

static void in_a_closed_loop(misuse_t *m) {
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE_OF_FUTURE(reader(m, 0), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(writer(m, -1), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_connect_read_pipe(m->loop, NULL, m, 0), ALOOP_ECLOSED);
}

/* ---- A direction that a pipe does not have --------------------------------------------------------------- */

static void writes_to_a_read_pipe(misuse_t *m) {
  aloop_transport_t *pipe = m->arg;
  struct iovec part = {"x", 1};
  MISTAKE(aloop_transport_write(pipe, "x", 1), ALOOP_ENOTSUP);
  MISTAKE(aloop_transport_writev(pipe, &part, 1), ALOOP_ENOTSUP);
  MISTAKE(aloop_transport_write_owned(pipe, "x", 1, NULL, NULL), ALOOP_ENOTSUP);
  MISTAKE(aloop_transport_write_eof(pipe), ALOOP_ENOTSUP);
  MISTAKE_OF_FUTURE(aloop_sendfile(pipe, 0, 0, 0, 0), ALOOP_ENOTSUP);
  ORDINARY(aloop_transport_can_write_eof(pipe), false);
}

static void reading_from_a_write_pipe(misuse_t *m) {
  aloop_transport_t *pipe = m->arg;
  ORDINARY(aloop_transport_is_reading(pipe), false);
  ORDINARY(aloop_transport_pause_reading(pipe), 0);
  ORDINARY(aloop_transport_resume_reading(pipe), 0);
  ORDINARY(aloop_transport_is_reading(pipe), false);
}

/* A pipe of our own has no addresses, and nobody asks but by mistake or for a log. */
static void addresses_of_a_pipe(misuse_t *m) {
  socklen_t size = 100;
  ORDINARY(aloop_transport_sockname(m->arg, OUT, &size), ALOOP_ENOTSOCK);
  ORDINARY(aloop_transport_peername(m->arg, OUT, &size), ALOOP_ENOTSOCK);
}

static void calls_of_another_thread(misuse_t *m) {
  MISTAKE(reader(m, 0), 0);
  MISTAKE(writer(m, 1), 0);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void tables_and_loops(void **state) {
  in_both_modes(*state, arguments_of_pipes);
}

static void descriptors(void **state) {
  in_both_modes(*state, descriptors_of_pipes);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, in_a_closed_loop);
}

static void on_a_pipe(env_t *env, bool reads, misuse_fn body) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    int fds[2];
    aloop_transport_t *pipe = NULL;
    misuse_begin(&m, env, debug);
    make_pipe(fds);
    aloop_future_t *future = reads ? reader(&m, fds[0]) : writer(&m, fds[1]);
    assert_int_equal(run_future(m.loop, future), 0);
    assert_int_equal(aloop_future_take_ptr(future, &pipe), 0);
    aloop_future_unref(future);
    m.arg = pipe;
    misuse_in_callback(&m, body);
    aloop_transport_abort(pipe);
    while (aloop_transport_fd(pipe) >= 0) run_turn(m.loop);
    aloop_transport_unref(pipe);
    close(fds[reads ? 1 : 0]);
    misuse_end(&m);
  }
}

static void read_pipes(void **state) {
  on_a_pipe(*state, true, writes_to_a_read_pipe);
  on_a_pipe(*state, true, addresses_of_a_pipe);
}

static void write_pipes(void **state) {
  on_a_pipe(*state, false, reading_from_a_write_pipe);
  on_a_pipe(*state, false, addresses_of_a_pipe);
}

static void another_thread(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  misuse_in_thread(&m, calls_of_another_thread);
  misuse_end(&m);
}

TESTS(T(tables_and_loops), T(descriptors), T(closed_loops), T(read_pipes), T(write_pipes), T(another_thread))
