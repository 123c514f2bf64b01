/* SPDX-License-Identifier: MIT
 *
 * Loops in several threads that share contexts of OpenSSL, whose sessions are resumed in one thread when they
 * were made in another, and whose names change meanwhile. threads: yes, needs: openssl
 */
#include "certs.h"
#include "harness.h"

#include <pthread.h>
#include <string.h>

enum { THREADS = 3, CONNECTIONS = 25 };

typedef struct shared {
  aloop_tls_context_t *server, *client, *other;
} shared_t;

typedef struct side {
  bool lost;
  int error;
} side_t;

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  return aloop_transport_write(transport, data, size);
}

static int on_answer(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol, (void)data, (void)size;
  aloop_transport_close(transport);
  return 0;
}

static void on_made(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  aloop_transport_write(transport, "hello", 5);
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  side_t *side = protocol;
  side->lost = true;
  side->error = error;
}

static const aloop_protocol_t echo = {
    .size = sizeof echo, .data_received = on_data, .connection_lost = on_lost};
static const aloop_protocol_t asker = {
    .size = sizeof asker, .connection_made = on_made, .data_received = on_answer, .connection_lost = on_lost};

/* One connection with both ends in this loop. Returns whether all went well. */
static bool connect_once(aloop_t *loop, const shared_t *shared, const char *name) {
  int fds[2];
  side_t served = {0}, asked = {0};
  if (aloop_socketpair(SOCK_STREAM, fds) < 0) return false;
  aloop_accepted_options_t as_server = {.size = sizeof as_server, .tls = shared->server};
  aloop_connect_options_t as_client = {
      .size = sizeof as_client, .fd = fds[1], .tls = shared->client, .server_hostname = name};
  aloop_future_detach(aloop_connect_accepted_socket(loop, &echo, &served, fds[0], &as_server));
  bool good = aloop_run_until_complete(loop, aloop_create_connection(loop, &asker, &asked, &as_client)) == 0;
  for (int i = 0; good && !(served.lost && asked.lost) && i < 10000; i++)
    aloop_run_once(loop, ALOOP_MILLIS(10));
  return good && served.lost && asked.lost && served.error == 0 && asked.error == 0;
}

static void *work(void *arg) {
  const shared_t *shared = arg;
  aloop_t *loop;
  intptr_t good = 0;
  if (aloop_new(NULL, &loop) < 0) return NULL;
  for (int i = 0; i < CONNECTIONS; i++)
    good += connect_once(loop, shared, i % 5 == 0 ? "other.test" : "server.test");
  aloop_free(loop);
  return (void *)good;
}

static void loops_share_contexts(void **state) {
  (void)state;
  cert_t ca, server_cert, other_cert;
  shared_t shared;
  pthread_t threads[THREADS];
  cert_make_ca(&ca, "the CA");
  cert_issue(&server_cert, &ca, "DNS:server.test,DNS:other.test", 10);
  cert_issue(&other_cert, &ca, "DNS:other.test", 10);
  const cert_t *certs[] = {&server_cert, &other_cert};
  aloop_tls_context_t **contexts[] = {&shared.server, &shared.other};
  for (int i = 0; i < 2; i++) {
    aloop_tls_options_t options = {.size = sizeof options,
                                   .role = ALOOP_TLS_SERVER,
                                   .certificate = certs[i]->pem,
                                   .certificate_size = strlen(certs[i]->pem),
                                   .key = certs[i]->key,
                                   .key_size = strlen(certs[i]->key)};
    assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &options, contexts[i]), 0);
  }
  aloop_tls_options_t options = {
      .size = sizeof options, .ca = ca.pem, .ca_size = strlen(ca.pem), .session_cache = 3};
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &options, &shared.client), 0);
  for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, work, &shared), 0);
  for (int i = 0; i < 200; i++)
    aloop_tls_context_add_name(shared.server, "other.test", i % 2 == 0 ? shared.other : NULL);
  for (int i = 0; i < THREADS; i++) {
    void *good;
    pthread_join(threads[i], &good);
    assert_int_equal((intptr_t)good, CONNECTIONS);
  }
  aloop_tls_context_unref(shared.server);
  aloop_tls_context_unref(shared.client);
  aloop_tls_context_unref(shared.other);
  cert_free(&ca);
  cert_free(&server_cert);
  cert_free(&other_cert);
}

/* ---- A server of several loops --------------------------------------------------------------------------- */

static const aloop_protocol_t bare_echo = {.size = sizeof bare_echo, .data_received = on_data};

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

static void *run(void *loop) {
  aloop_run_forever(loop);
  return NULL;
}

/* Asks the server something, and waits for the end. */
static bool ask(aloop_t *loop, aloop_tls_context_t *tls, int port) {
  side_t asked = {0};
  aloop_connect_options_t options = {
      .size = sizeof options, .host = "127.0.0.1", .port = port, .tls = tls, .server_hostname = "server.test"};
  bool good = aloop_run_until_complete(loop, aloop_create_connection(loop, &asker, &asked, &options)) == 0;
  while (good && !asked.lost) aloop_run_once(loop, ALOOP_MILLIS(10));
  return good && asked.error == 0;
}

static void a_server_serves_tls_on_loops_of_other_threads(void **state) {
  (void)state;
  enum { WORKERS = 2 };
  cert_t ca, cert;
  aloop_tls_context_t *contexts[2];
  aloop_t *home, *loops[WORKERS];
  pthread_t threads[WORKERS];
  cert_make_ca(&ca, "the CA");
  cert_issue(&cert, &ca, "DNS:server.test", 10);
  aloop_tls_options_t served = {.size = sizeof served,
                                .role = ALOOP_TLS_SERVER,
                                .certificate = cert.pem,
                                .certificate_size = strlen(cert.pem),
                                .key = cert.key,
                                .key_size = strlen(cert.key)};
  aloop_tls_options_t asks = {.size = sizeof asks, .ca = ca.pem, .ca_size = strlen(ca.pem)};
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &served, &contexts[0]), 0);
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &asks, &contexts[1]), 0);
  assert_int_equal(aloop_new(NULL, &home), 0);
  for (int i = 0; i < WORKERS; i++) assert_int_equal(aloop_new(NULL, &loops[i]), 0);

  aloop_server_t *server;
  aloop_server_options_t options = {
      .size = sizeof options, .host = "127.0.0.1", .tls = contexts[0], .loops = loops, .loops_count = WORKERS};
  aloop_future_t *made = aloop_create_server(home, &bare_echo, NULL, &options);
  assert_int_equal(aloop_run_until_complete_ptr(home, made, &server), 0);
  for (int i = 0; i < WORKERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, run, loops[i]), 0);
  aloop_tls_context_unref(contexts[0]); /* the server's alone now */
  for (int i = 0; i < 10; i++) assert_true(ask(home, contexts[1], aloop_server_port(server)));
  assert_int_equal(aloop_run_until_complete(home, aloop_server_drain(server, ALOOP_SECONDS(60))), 0);
  aloop_server_unref(server);
  for (int i = 0; i < WORKERS; i++) aloop_call_soon_threadsafe(loops[i], stop, NULL);
  for (int i = 0; i < WORKERS; i++) {
    pthread_join(threads[i], NULL);
    aloop_metrics_t metrics = {.size = sizeof metrics};
    assert_int_equal(aloop_metrics(loops[i], &metrics), 0);
    assert_true(metrics.accepted > 0);
    aloop_free(loops[i]);
  }
  aloop_free(home);
  aloop_tls_context_unref(contexts[1]);
  cert_free(&ca);
  cert_free(&cert);
}

TESTS(T(loops_share_contexts), T(a_server_serves_tls_on_loops_of_other_threads))
