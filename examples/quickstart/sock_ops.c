/* SPDX-License-Identifier: MIT
 *
 * The caller's own sockets: an HTTP HEAD request by connecting, sending and receiving step by step. Each step
 * is a future, and gets a deadline like any other. The server it asks is in the same program and the same loop:
 * it runs whenever the loop does.
 */
#include "aloop.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- A server that gives everybody the same answer ------------------------------------------------------- */

static int on_request(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n";
  (void)protocol, (void)data, (void)size; /* a server that means it reads the request */
  aloop_transport_write(transport, answer, sizeof answer - 1);
  aloop_transport_close(transport);
  return 0;
}

static const aloop_protocol_t server_protocol = {.size = sizeof server_protocol, .data_received = on_request};

/* Returns its port, or a code. */
static int start_server(aloop_t *loop) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  aloop_server_t *server;
  int rc =
      aloop_run_until_complete_ptr(loop, aloop_create_server(loop, &server_protocol, NULL, &options), &server);
  if (rc < 0) return rc;
  int port = aloop_server_port(server);
  aloop_server_unref(server); /* it lives on until the loop is closed */
  return port;
}

/* ---- The client ------------------------------------------------------------------------------------------ */

/* Waits for one step, but not for ever. */
static int64_t step(aloop_t *loop, aloop_future_t *future) {
  return aloop_run_until_complete(loop, aloop_wait_for(future, ALOOP_SECONDS(5)));
}

static int64_t ask(aloop_t *loop, int fd, int port) {
  static const char request[] = "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  char bytes[512];
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

  int64_t rc = step(loop, aloop_sock_connect(loop, fd, (struct sockaddr *)&address, sizeof address));
  if (rc >= 0) rc = step(loop, aloop_sock_sendall(loop, fd, request, strlen(request)));
  while (rc >= 0) {
    rc = step(loop, aloop_sock_recv(loop, fd, bytes, sizeof bytes));
    if (rc <= 0) return rc; /* 0: the server has said everything */
    fwrite(bytes, 1, (size_t)rc, stdout);
  }
  return rc;
}

int main(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  int64_t rc = start_server(loop);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (rc >= 0 && fd >= 0) {
    fcntl(fd, F_SETFL, O_NONBLOCK); /* the loop waits, the socket must not */
    rc = ask(loop, fd, (int)rc);
  }
  if (rc < 0) fprintf(stderr, "sock_ops: %s\n", aloop_strerror(rc));
  close(fd);
  aloop_free(loop);
  return rc < 0;
}
