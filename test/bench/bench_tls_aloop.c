/* SPDX-License-Identifier: MIT
 *
 * aloop with libaloop-openssl, as its users write it: a context made from two files, and a server that is
 * given it.
 */
#include "bench_tls.h"

#include <aloop.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct state {
  unsigned matched;
  bool full;
} state_t;

static void *make_state(void *arg) {
  (void)arg;
  return calloc(1, sizeof(state_t));
}

static int echo(aloop_transport_t *transport, void *state, const void *data, size_t size) {
  (void)state;
  return aloop_transport_write(transport, data, size);
}

static int answer(aloop_transport_t *transport, void *arg, const void *data, size_t size) {
  state_t *state = arg;
  for (size_t n = bench_tls_requests(&state->matched, data, size); n > 0; n--) {
    int rc = aloop_transport_write(transport, bench_tls_response, bench_tls_response_size);
    if (rc < 0) return rc;
  }
  return 0;
}

static int forget(aloop_transport_t *transport, void *state, const void *data, size_t size) {
  (void)transport, (void)state, (void)data, (void)size;
  return 0;
}

static void stop_reading(aloop_transport_t *transport, void *state) {
  (void)state;
  aloop_transport_pause_reading(transport);
}

static void go_on_reading(aloop_transport_t *transport, void *state) {
  (void)state;
  aloop_transport_resume_reading(transport);
}

/* Until pause_writing, after which the buffer is full. */
static void write_on(aloop_transport_t *transport, void *arg) {
  state_t *state = arg;
  state->full = false;
  while (!state->full)
    if (aloop_transport_write_owned(transport, bench_tls_block, sizeof bench_tls_block, NULL, NULL) != 0) break;
}

static void note_full(aloop_transport_t *transport, void *arg) {
  (void)transport;
  ((state_t *)arg)->full = true;
}

static void let_go(aloop_transport_t *transport, void *state, int error) {
  (void)transport, (void)error;
  free(state);
}

static const aloop_protocol_t protocols[] = {
    [BENCH_TLS_ECHO] = {.size = sizeof protocols[0],
                        .data_received = echo,
                        .pause_writing = stop_reading,
                        .resume_writing = go_on_reading},
    [BENCH_TLS_HTTP] = {.size = sizeof protocols[0],
                        .create = make_state,
                        .data_received = answer,
                        .pause_writing = stop_reading,
                        .resume_writing = go_on_reading,
                        .connection_lost = let_go},
    [BENCH_TLS_SOURCE] = {.size = sizeof protocols[0],
                          .create = make_state,
                          .connection_made = write_on,
                          .pause_writing = note_full,
                          .resume_writing = write_on,
                          .connection_lost = let_go},
    [BENCH_TLS_SINK] = {.size = sizeof protocols[0], .data_received = forget},
};

void peer_serve_tls(bench_tls_work_t work, const char *certificate, const char *key) {
  aloop_t *loop;
  aloop_server_t *server;
  aloop_tls_options_t tls = {
      .size = sizeof tls, .role = ALOOP_TLS_SERVER, .certificate_file = certificate, .key_file = key};
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1", .backlog = BENCH_TLS_BACKLOG};
  if (aloop_new(NULL, &loop) != 0) bench_tls_die("aloop_new");
  if (aloop_tls_context_new(aloop_tls_openssl(), &tls, &options.tls) != 0)
    bench_tls_die("aloop_tls_context_new");
  aloop_future_t *made = aloop_create_server(loop, &protocols[work], NULL, &options);
  if (aloop_run_until_complete_ptr(loop, made, &server) != 0) bench_tls_die("aloop_create_server");
  bench_tls_listening(aloop_server_socket(server, 0, NULL, NULL));
  aloop_run_forever(loop);
}
