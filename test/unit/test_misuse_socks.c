/* SPDX-License-Identifier: MIT
 *
 * Wrong calls of operations on sockets: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "misuse.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

static char byte[1];

static struct sockaddr *loopback(void) {
  static struct sockaddr_in address = {.sin_family = AF_INET};
  return (struct sockaddr *)(void *)&address;
}

enum { SIZE = sizeof(struct sockaddr_in) };

static void without_a_loop(misuse_t *m) {
  MISTAKE(aloop_sock_recv(NULL, 0, byte, 1), 0);
  MISTAKE(aloop_sock_recvfrom(NULL, 0, byte, 1, NULL, NULL), 0);
  MISTAKE(aloop_sock_sendall(NULL, 0, byte, 1), 0);
  MISTAKE(aloop_sock_sendto(NULL, 0, byte, 1, NULL, 0), 0);
  MISTAKE(aloop_sock_connect(NULL, 0, loopback(), SIZE), 0);
  MISTAKE(aloop_sock_accept(NULL, 0, NULL, NULL), 0);
  MISTAKE(aloop_sock_sendfile(NULL, 0, 0, 0, 0, 0), 0);
}

static void mistakes_of_arguments(misuse_t *m) {
  struct sockaddr_storage address;
  struct sockaddr *room = (struct sockaddr *)(void *)&address;
  int fds[2];
  make_socketpair(fds);
  MISTAKE_OF_FUTURE(aloop_sock_recv(m->loop, fds[0], NULL, 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_recvfrom(m->loop, fds[0], NULL, 1, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_recvfrom(m->loop, fds[0], byte, 1, room, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_sendall(m->loop, fds[0], NULL, 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_sendto(m->loop, fds[0], NULL, 1, NULL, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_sendto(m->loop, fds[0], byte, 1, loopback(), 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_connect(m->loop, fds[0], NULL, SIZE), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_connect(m->loop, fds[0], loopback(), 4096), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_accept(m->loop, fds[0], room, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_sendfile(m->loop, fds[0], fds[1], 0, 0, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_sendfile(m->loop, fds[0], fds[1], -1, 0, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_sendfile(m->loop, fds[0], fds[1], 0, 0, 2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sock_sendfile(m->loop, fds[0], -1, 0, 0, 0), ALOOP_EBADF);
  close(fds[0]);
  close(fds[1]);
}

static void mistakes_of_directions(misuse_t *m) {
  int fds[2];
  make_socketpair(fds);
  aloop_future_t *future = aloop_sock_recv(m->loop, fds[0], byte, 1);
  MISTAKE_OF_FUTURE(aloop_sock_recv(m->loop, fds[0], byte, 1), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_sock_recvfrom(m->loop, fds[0], byte, 1, NULL, NULL), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_sock_accept(m->loop, fds[0], NULL, NULL), ALOOP_EBUSY);
  MISTAKE(aloop_remove_reader(m->loop, fds[0]), ALOOP_EBUSY);
  aloop_future_cancel(future);
  aloop_future_unref(future);
  close(fds[0]);
  close(fds[1]);
}

/* What the kernel answers is for the caller alone. */
static void ordinary_failures(misuse_t *m) {
  int fds[2];
  make_socketpair(fds);
  close(fds[1]);
  ORDINARY_OF_FUTURE(aloop_sock_sendall(m->loop, fds[0], byte, 1), ALOOP_EPIPE);
  close(fds[0]);
  make_pipe(fds);
  ORDINARY_OF_FUTURE(aloop_sock_recv(m->loop, fds[0], byte, 1), ALOOP_ENOTSOCK);
  close(fds[0]);
  close(fds[1]);
}

static void calls_on_a_closed_loop(misuse_t *m) {
  MISTAKE_OF_FUTURE(aloop_sock_recv(m->loop, 0, byte, 1), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_sock_connect(m->loop, 0, loopback(), SIZE), ALOOP_ECLOSED);
}

static void calls_of_another_thread(misuse_t *m) {
  MISTAKE(aloop_sock_recv(m->loop, 0, byte, 1), 0);
  MISTAKE(aloop_sock_recvfrom(m->loop, 0, byte, 1, NULL, NULL), 0);
  MISTAKE(aloop_sock_sendall(m->loop, 0, byte, 1), 0);
  MISTAKE(aloop_sock_sendto(m->loop, 0, byte, 1, NULL, 0), 0);
  MISTAKE(aloop_sock_connect(m->loop, 0, loopback(), SIZE), 0);
  MISTAKE(aloop_sock_accept(m->loop, 0, NULL, NULL), 0);
  MISTAKE(aloop_sock_sendfile(m->loop, 0, 0, 0, 0, 0), 0);
}

static void socket_operations(void **state) {
  in_both_modes(*state, without_a_loop);
  in_both_modes(*state, mistakes_of_arguments);
  in_both_modes(*state, mistakes_of_directions);
  in_both_modes(*state, ordinary_failures);
}

static void closed_loops(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    misuse_begin(&m, *state, debug);
    assert_int_equal(aloop_close(m.loop), 0);
    calls_on_a_closed_loop(&m);
    misuse_end(&m);
  }
}

static void another_thread(void **state) {
  misuse_t m;
  misuse_begin(&m, *state, true);
  misuse_in_thread(&m, calls_of_another_thread);
  misuse_end(&m);
}

TESTS(T(socket_operations), T(closed_loops), T(another_thread))
