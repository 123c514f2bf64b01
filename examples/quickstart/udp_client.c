/* SPDX-License-Identifier: MIT
 *
 * Ask a UDP server, and ask again until it answers: datagrams may get lost, so a client has a deadline for each
 * try. The server is in the same program, and loses the first question on purpose.
 */
#include "aloop.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* ---- A server that answers every question but the first -------------------------------------------------- */

static void on_question(aloop_datagram_t *endpoint, void *protocol, const void *data, size_t size,
                        const struct sockaddr *address, socklen_t address_size) {
  int *questions = protocol;
  char answer[64];
  if ((*questions)++ == 0) return;
  int length = snprintf(answer, sizeof answer, "%.*s? 42", (int)size, (const char *)data);
  aloop_datagram_sendto(endpoint, answer, (size_t)length, address, address_size);
}

static const aloop_datagram_protocol_t server_protocol = {.size = sizeof server_protocol,
                                                          .datagram_received = on_question};

/* ---- The client ------------------------------------------------------------------------------------------ */

static void on_answer(aloop_datagram_t *endpoint, void *protocol, const void *data, size_t size,
                      const struct sockaddr *address, socklen_t address_size) {
  aloop_future_t **answered = protocol;
  (void)endpoint, (void)address, (void)address_size;
  printf("%.*s\n", (int)size, (const char *)data);
  if (*answered != NULL) aloop_future_set_value(*answered, 0);
}

/* Nobody is there, or not yet: the deadline decides. */
static void on_error(aloop_datagram_t *endpoint, void *protocol, int error) {
  (void)endpoint, (void)protocol;
  printf("%s\n", aloop_strerror(error));
}

static const aloop_datagram_protocol_t client_protocol = {
    .size = sizeof client_protocol, .datagram_received = on_answer, .error_received = on_error};

static int64_t ask(aloop_t *loop, aloop_datagram_t *client, aloop_future_t **answered) {
  int64_t rc = ALOOP_ETIMEDOUT;
  for (int try = 1; try <= 3 && rc == ALOOP_ETIMEDOUT; try++) {
    printf("try %d\n", try);
    *answered = aloop_future_new(loop);
    rc = aloop_datagram_sendto(client, "The answer", 10, NULL, 0);
    if (rc == 0)
      rc = aloop_run_until_complete(loop, aloop_wait_for(aloop_future_ref(*answered), ALOOP_SECONDS(0.2)));
    aloop_future_unref(*answered);
    *answered = NULL;
  }
  return rc;
}

int main(void) {
  aloop_t *loop;
  aloop_datagram_t *server, *client;
  aloop_datagram_options_t local = {.size = sizeof local, .local_host = "127.0.0.1"};
  aloop_datagram_options_t remote = {.size = sizeof remote};
  aloop_future_t *answered = NULL;
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int questions = 0;
  if (aloop_new(NULL, &loop) < 0) return 1;
  int64_t rc = aloop_run_until_complete_ptr(
      loop, aloop_create_datagram_endpoint(loop, &server_protocol, &questions, &local), &server);
  if (rc == 0) {
    aloop_datagram_sockname(server, (struct sockaddr *)&address, &size);
    remote.remote = (struct sockaddr *)&address;
    remote.remote_size = size;
    rc = aloop_run_until_complete_ptr(
        loop, aloop_create_datagram_endpoint(loop, &client_protocol, &answered, &remote), &client);
    if (rc == 0) {
      rc = ask(loop, client, &answered);
      aloop_datagram_close(client);
      aloop_datagram_unref(client);
    }
    aloop_datagram_close(server);
    aloop_datagram_unref(server);
  }
  if (rc < 0) fprintf(stderr, "udp_client: %s\n", aloop_strerror(rc));
  aloop_free(loop);
  return rc < 0;
}
