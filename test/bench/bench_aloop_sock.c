/* SPDX-License-Identifier: MIT
 *
 * aloop once more, but its echo server is made of operations on sockets: an accept that is repeated, and for each
 * connection a receive and a send in turn, as one would port a program that was written for blocking sockets. It
 * is no peer of the others; it tells what that style costs beside transports: a future for each step, and the
 * descriptor goes into the poller and out again for each receive that waits. Everything else is bench_aloop.c's.
 */
#include "bench.h"

#include <aloop.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const peer_name = "aloop_sock";

typedef struct connection {
  aloop_t *loop;
  int fd;
  char bytes[65536];
} connection_t;

static void receive(connection_t *connection);

static void then(aloop_future_t *future, aloop_done_fn fn, void *arg) {
  if (future == NULL || aloop_future_add_done_callback(future, fn, arg) < 0) bench_die("future");
  aloop_future_unref(future);
}

static void sent(aloop_future_t *future, void *arg) {
  if (aloop_future_result(future) >= 0) receive(arg);
}

static void received(aloop_future_t *future, void *arg) {
  connection_t *connection = arg;
  int64_t size = aloop_future_result(future);
  if (size > 0) {
    then(aloop_sock_sendall(connection->loop, connection->fd, connection->bytes, (size_t)size), sent,
         connection);
    return;
  }
  close(connection->fd);
  free(connection);
}

static void receive(connection_t *connection) {
  then(aloop_sock_recv(connection->loop, connection->fd, connection->bytes, sizeof connection->bytes), received,
       connection);
}

typedef struct server {
  aloop_t *loop;
  int fd;
} server_t;

static void accepted(aloop_future_t *future, void *arg) {
  server_t *server = arg;
  connection_t *connection = bench_alloc(sizeof *connection);
  int on = 1;
  connection->loop = server->loop;
  connection->fd = (int)aloop_future_result(future);
  if (connection->fd < 0) bench_die("aloop_sock_accept");
  setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  receive(connection);
  then(aloop_sock_accept(server->loop, server->fd, NULL, NULL), accepted, server);
}

void peer_serve(bool for_memory) {
  server_t server = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
  struct sockaddr_in address = {.sin_family = AF_INET};
  (void)for_memory;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (aloop_new(NULL, &server.loop) < 0 || fcntl(server.fd, F_SETFL, O_NONBLOCK) < 0 ||
      bind(server.fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(server.fd, BENCH_BACKLOG) < 0)
    bench_die("listen");
  bench_listening(server.fd);
  then(aloop_sock_accept(server.loop, server.fd, NULL, NULL), accepted, &server);
  aloop_run_forever(server.loop);
}
