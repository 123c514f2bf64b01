/* SPDX-License-Identifier: MIT
 *
 * The OpenSSL engine leaves no plaintext in memory that it gives back: every block that OpenSSL frees is
 * searched for what was sent. needs: openssl
 */
#include "certs.h"
#include "streams.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

static const char secret[16] = "a word to hide, ";
static long found;

/* Cleared, so that nothing is found that somebody else has left there. */
static void *get(size_t size, const char *file, int line) {
  (void)file, (void)line;
  void *block = malloc(size);
  if (block != NULL) memset(block, 0, malloc_usable_size(block));
  return block;
}

static void let_go(void *block, const char *file, int line) {
  (void)file, (void)line;
  if (block != NULL && memmem(block, malloc_usable_size(block), secret, sizeof secret) != NULL) found++;
  free(block);
}

static void *get_anew(void *block, size_t size, const char *file, int line) {
  void *fresh = get(size, file, line);
  size_t before = block != NULL ? malloc_usable_size(block) : 0;
  if (fresh == NULL) return NULL;
  if (before > 0) memcpy(fresh, block, before < size ? before : size);
  let_go(block, file, line);
  return fresh;
}

/* Before anything of OpenSSL's is called. */
__attribute__((constructor)) static void begin_to_search(void) {
  if (CRYPTO_set_mem_functions(get, get_anew, let_go) != 1) abort();
}

/* ---- Two ends -------------------------------------------------------------------------------------------- */

typedef struct ends {
  env_t *env;
  tape_t server, client;
  aloop_tls_context_t *contexts[2];
} ends_t;

static void make_contexts(ends_t *ends) {
  cert_t cert;
  cert_issue(&cert, NULL, "DNS:server.test", 10);
  aloop_tls_options_t server = {.size = sizeof server,
                                .role = ALOOP_TLS_SERVER,
                                .certificate = cert.pem,
                                .certificate_size = strlen(cert.pem),
                                .key = cert.key,
                                .key_size = strlen(cert.key)};
  aloop_tls_options_t client = {.size = sizeof client, .verify = ALOOP_TLS_VERIFY_NONE};
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &server, &ends->contexts[0]), 0);
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &client, &ends->contexts[1]), 0);
  cert_free(&cert);
}

static void begin(ends_t *ends, env_t *env) {
  int fds[2];
  *ends = (ends_t){.env = env, .server.env = env, .client.env = env};
  make_contexts(ends);
  make_socketpair(fds);
  aloop_accepted_options_t as_server = {.size = sizeof as_server, .tls = ends->contexts[0]};
  aloop_connect_options_t as_client = {.size = sizeof as_client, .fd = fds[1], .tls = ends->contexts[1]};
  aloop_future_t *accepted =
      aloop_connect_accepted_socket(env->loop, &plain_protocol, &ends->server, fds[0], &as_server);
  aloop_future_t *connected = aloop_create_connection(env->loop, &plain_protocol, &ends->client, &as_client);
  assert_int_equal(run_future(env->loop, connected), 0);
  assert_int_equal(run_future(env->loop, accepted), 0);
  aloop_future_unref(connected);
  aloop_future_unref(accepted);
  found = 0;
}

static void end(ends_t *ends) {
  aloop_transport_abort(ends->client.transport);
  aloop_transport_abort(ends->server.transport);
  run_until(ends->env->loop, &ends->client.lost);
  run_until(ends->env->loop, &ends->server.lost);
  release_tape(&ends->client, -1);
  release_tape(&ends->server, -1);
  aloop_tls_context_unref(ends->contexts[0]);
  aloop_tls_context_unref(ends->contexts[1]);
  assert_int_equal(found, 0);
}

/* So many bytes, the secret again and again. */
static void tell(ends_t *ends, size_t size) {
  char *text = malloc(size);
  for (size_t i = 0; i < size; i++) text[i] = secret[i % sizeof secret];
  assert_int_equal(aloop_transport_write(ends->client.transport, text, size), 0);
  free(text);
}

static void hear(ends_t *ends, size_t size) {
  for (int i = 0; i < 10000 && ends->server.size < size; i++) aloop_run_once(ends->env->loop, ALOOP_SECONDS(1));
  assert_int_equal(ends->server.size, size);
}

/* ---- Tests ----------------------------------------------------------------------------------------------- */

/* OpenSSL 1.1.1 cannot be told to clear what it has deciphered. */
static void skip_if_nothing_is_cleared(void) {
#ifndef SSL_OP_CLEANSE_PLAINTEXT
  skip();
#endif
}

static void the_search_finds(void **state) {
  (void)state;
  found = 0;
  void *block = OPENSSL_malloc(1000);
  memset(block, 0, 1000);
  memcpy((char *)block + 100, secret, sizeof secret);
  OPENSSL_free(block);
  assert_int_equal(found, 1);
}

static void small_messages_leave_nothing(void **state) {
  skip_if_nothing_is_cleared();
  ends_t ends;
  begin(&ends, *state);
  for (size_t i = 1; i <= 20; i++) {
    tell(&ends, 64);
    hear(&ends, 64 * i);
  }
  end(&ends);
}

static void many_bytes_leave_nothing(void **state) {
  skip_if_nothing_is_cleared();
  ends_t ends;
  begin(&ends, *state);
  tell(&ends, 300000);
  hear(&ends, 300000);
  tell(&ends, 64);
  hear(&ends, 300064);
  end(&ends);
}

static void what_nobody_read_leaves_nothing(void **state) {
  skip_if_nothing_is_cleared();
  ends_t ends;
  begin(&ends, *state);
  aloop_transport_pause_reading(ends.server.transport);
  tell(&ends, 100000);
  settle(ends.env->loop);
  end(&ends);
}

static void stop_reading(tape_t *tape) {
  aloop_transport_pause_reading(tape->transport);
}

static void a_pause_between_records_leaves_nothing(void **state) {
  skip_if_nothing_is_cleared();
  if (OPENSSL_VERSION_NUMBER >= 0x30200000L) skip(); /* SSL_free leaves what was before half a record */
  ends_t ends;
  begin(&ends, *state);
  ends.server.on[DATA] = stop_reading;
  tell(&ends, 200000);
  settle(ends.env->loop);
  assert_true(ends.server.size > 0);
  end(&ends);
}

TESTS(T(the_search_finds), T(small_messages_leave_nothing), T(many_bytes_leave_nothing),
      T(what_nobody_read_leaves_nothing), T(a_pause_between_records_leaves_nothing))
