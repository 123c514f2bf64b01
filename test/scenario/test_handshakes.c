/* SPDX-License-Identifier: MIT
 *
 * Many handshakes, of every kind and on both ends, and no block more than before: of the loop, which the harness
 * counts, and of OpenSSL, which is counted here. A few of each kind run with all the tests;
 * ALOOP_HANDSHAKES=10000 in the environment asks for more, best in a build with the address sanitizer, which
 * also sees what the engine itself forgets. needs: openssl
 */
#include "certs.h"
#include "harness.h"
#include "streams.h"

#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- What OpenSSL has ------------------------------------------------------------------------------------ */

static atomic_long blocks;

static void *count_malloc(size_t size, const char *file, int line) {
  (void)file, (void)line;
  void *made = size > 0 ? malloc(size) : NULL;
  if (made != NULL) blocks++;
  return made;
}

static void count_free(void *block, const char *file, int line) {
  (void)file, (void)line;
  if (block != NULL) blocks--;
  free(block);
}

static void *count_realloc(void *block, size_t size, const char *file, int line) {
  if (block == NULL) return count_malloc(size, file, line);
  if (size > 0) return realloc(block, size);
  count_free(block, file, line);
  return NULL;
}

/* Before OpenSSL allocates anything. */
__attribute__((constructor)) static void count_blocks(void) {
  if (CRYPTO_set_mem_functions(count_malloc, count_realloc, count_free) != 1) abort();
}

/* ---- One connection -------------------------------------------------------------------------------------- */

typedef struct kind {
  int version;
  bool resumes;      /* ... a session of the connection before */
  const char *name;  /* the server is asked for; another than "server.test" is refused */
  size_t cut;        /* the line is cut after so many bytes of the client; 0: it is not */
  int64_t connected; /* how it ends, for the client */
} kind_t;

typedef struct side {
  aloop_future_t *future;
  aloop_transport_t *transport;
  bool answered, lost;
} side_t;

static void on_made(aloop_transport_t *transport, void *protocol) {
  ((side_t *)protocol)->transport = transport;
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  side_t *side = protocol;
  side->answered = true;
  return aloop_transport_write(transport, data, size < 5 ? size : 5);
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport, (void)error;
  ((side_t *)protocol)->lost = true;
}

static const aloop_protocol_t protocol = {
    .size = sizeof protocol, .connection_made = on_made, .data_received = on_data, .connection_lost = on_lost};

static aloop_future_t *serve(env_t *env, side_t *side, aloop_tls_context_t *context, int fd) {
  aloop_accepted_options_t options = {.size = sizeof options, .tls = context};
  return aloop_connect_accepted_socket(env->loop, &protocol, side, fd, &options);
}

static aloop_future_t *go(env_t *env, side_t *side, aloop_tls_context_t *context, const char *name, int fd) {
  aloop_connect_options_t options = {.size = sizeof options, .fd = fd, .tls = context, .server_hostname = name};
  return aloop_create_connection(env->loop, &protocol, side, &options);
}

/* The server gets the beginning of what the client says, and then the end. */
static void connect_cut(env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client,
                        const kind_t *kind) {
  int left[2], right[2];
  char bytes[4096];
  side_t serving = {0}, going = {0};
  make_socketpair(left);
  make_socketpair(right);
  serving.future = serve(env, &serving, server, left[0]);
  going.future = go(env, &going, client, kind->name, right[0]);
  ssize_t n = -1;
  while (n < 0) {
    assert_true(aloop_run_once(env->loop, 0) >= 0);
    n = recv(right[1], bytes, sizeof bytes, MSG_DONTWAIT);
  }
  size_t size = (size_t)n < kind->cut ? (size_t)n : kind->cut;
  assert_int_equal(send(left[1], bytes, size, 0), size);
  settle(env->loop);
  close(left[1]);
  close(right[1]);
  assert_int_equal(run_future(env->loop, going.future), kind->connected);
  assert_true(run_future(env->loop, serving.future) < 0);
  aloop_future_unref(serving.future);
  aloop_future_unref(going.future);
}

static void connect_once(env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client,
                         const kind_t *kind, bool again) {
  int fds[2];
  side_t serving = {0}, going = {0};
  make_socketpair(fds);
  serving.future = serve(env, &serving, server, fds[0]);
  going.future = go(env, &going, client, kind->name, fds[1]);
  assert_int_equal(run_future(env->loop, going.future), kind->connected);
  run_future(env->loop, serving.future);
  if (kind->connected == 0) {
    aloop_tls_info_t info = {.size = sizeof info};
    assert_int_equal(aloop_transport_tls_info(going.transport, &info), 0);
    assert_int_equal(info.reused, kind->resumes && again);
    assert_int_equal(aloop_transport_write(serving.transport, "hello", 5), 0); /* behind the tickets */
    run_until(env->loop, &serving.answered);
    aloop_transport_close(going.transport);
  }
  aloop_future_unref(serving.future);
  aloop_future_unref(going.future);
  if (serving.transport != NULL) run_until(env->loop, &serving.lost);
  if (going.transport != NULL) run_until(env->loop, &going.lost);
  settle(env->loop);
}

/* ---- Many ------------------------------------------------------------------------------------------------ */

static int how_many(void) {
  enum { FEW = 10, MOST = 10000000 };
  const char *text = getenv("ALOOP_HANDSHAKES");
  long count = text != NULL ? strtol(text, NULL, 10) : 0;
  return count > 0 && count < MOST ? (int)count : FEW;
}

static aloop_tls_context_t *context_of(const cert_t *cert, const cert_t *ca, const kind_t *kind) {
  aloop_tls_context_t *context = NULL;
  aloop_tls_options_t options = {.size = sizeof options};
  if (cert != NULL) {
    options.role = ALOOP_TLS_SERVER;
    options.certificate = cert->pem;
    options.certificate_size = strlen(cert->pem);
    options.key = cert->key;
    options.key_size = strlen(cert->key);
  } else {
    options.ca = ca->pem;
    options.ca_size = strlen(ca->pem);
    options.max_version = kind->version;
    options.session_cache = kind->resumes ? 0 : -1;
  }
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &options, &context), 0);
  return context;
}

/* The first ones fill caches; then the number of blocks stays. */
static void repeat(env_t *env, const kind_t *kind) {
  enum { WARM_UP = 6 };
  cert_t ca, cert;
  long before = 0, live = 0;
  cert_make_ca(&ca, "the CA");
  cert_issue(&cert, &ca, "DNS:server.test", 10);
  aloop_tls_context_t *server = context_of(&cert, NULL, kind), *client = context_of(NULL, &ca, kind);
  for (int i = 0; i < WARM_UP + how_many(); i++) {
    if (i == WARM_UP) before = blocks;
    if (i == WARM_UP) live = env->live;
    if (kind->cut > 0)
      connect_cut(env, server, client, kind);
    else
      connect_once(env, server, client, kind, i > 0);
  }
  assert_int_equal(blocks, before);
  assert_int_equal(env->live, live);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  cert_free(&ca);
  cert_free(&cert);
}

static void full_ones(void **state) {
  repeat(*state, &(kind_t){.version = ALOOP_TLS_1_2, .name = "server.test"});
  repeat(*state, &(kind_t){.version = ALOOP_TLS_1_3, .name = "server.test"});
}

static void resumed_ones(void **state) {
  repeat(*state, &(kind_t){.version = ALOOP_TLS_1_2, .resumes = true, .name = "server.test"});
  repeat(*state, &(kind_t){.version = ALOOP_TLS_1_3, .resumes = true, .name = "server.test"});
}

static void refused_ones(void **state) {
  repeat(*state, &(kind_t){.version = ALOOP_TLS_1_2, .name = "wrong.test", .connected = ALOOP_ETLS_VERIFY});
  repeat(*state, &(kind_t){.version = ALOOP_TLS_1_3, .name = "wrong.test", .connected = ALOOP_ETLS_VERIFY});
}

static void cut_ones(void **state) {
  repeat(*state, &(kind_t){.name = "server.test", .cut = 100, .connected = ALOOP_ECONNRESET});
  repeat(*state, &(kind_t){.name = "server.test", .cut = 4096, .connected = ALOOP_ECONNRESET});
}

TESTS(T(full_ones), T(resumed_ones), T(refused_ones), T(cut_ones))
