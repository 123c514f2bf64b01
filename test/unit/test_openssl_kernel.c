/* SPDX-License-Identifier: MIT
 *
 * The keys that the OpenSSL engine gives away, used by a kernel that is played in the process: what that encrypts the
 * other end decrypts, with every version and cipher, of new and of resumed sessions, before and after new keys.
 * pollers: all, needs: openssl, needs: LINUX_TLS, softtls: yes
 */
#include "certs.h"
#include "crowd.h"
#include "mocktls.h"
#include "peers.h"
#include "softtls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- What Linux does ------------------------------------------------------------------------------------- */

enum { AES_128 = 51, AES_256 = 52, CHACHA = 54, HEAD = 5, TAG = 16, NONCE = 8, IV = 12, SALT = 4 };

static void put_number(unsigned char *into, uint64_t number) {
  for (int i = 0; i < 8; i++) into[i] = (unsigned char)(number >> (56 - 8 * i));
}

static uint64_t number_at(const unsigned char *from) {
  uint64_t number = 0;
  for (int i = 0; i < 8; i++) number = number << 8 | from[i];
  return number;
}

static size_t encrypt(const EVP_CIPHER *cipher, const unsigned char *key, const unsigned char *iv,
                      const unsigned char *head, size_t head_size, const unsigned char *data, size_t size,
                      unsigned char *into) {
  int n = 0;
  EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
  assert_int_equal(EVP_EncryptInit_ex(ctx, cipher, NULL, key, iv), 1);
  assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, head, (int)head_size), 1);
  assert_int_equal(EVP_EncryptUpdate(ctx, into, &n, data, (int)size), 1);
  assert_int_equal(n, size);
  assert_int_equal(EVP_EncryptFinal_ex(ctx, into + n, &n), 1);
  assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG, into + size), 1);
  EVP_CIPHER_CTX_free(ctx);
  return size + TAG;
}

static size_t seal(const soft_keys_t *keys, int type, const unsigned char *data, size_t size,
                   unsigned char *into) {
  static unsigned char inner[SOFT_RECORD_MAX + 1];
  unsigned char iv[IV], head[13] = {0};
  const unsigned char *info = keys->info + 4;
  bool salted = keys->cipher != CHACHA, late = keys->version == 0x0304;
  size_t key_size = keys->cipher == AES_128 ? 16 : 32, own = salted ? SALT : 0,
         explicit = salted && !late ? NONCE : 0;
  const unsigned char *key = info + IV - own, *salt = key + key_size;
  const EVP_CIPHER *cipher = keys->cipher == AES_128   ? EVP_aes_128_gcm()
                             : keys->cipher == AES_256 ? EVP_aes_256_gcm()
                                                       : EVP_chacha20_poly1305();
  memcpy(iv, salt, own);
  memcpy(iv + own, info, IV - own);
  if (explicit > 0) {
    put_number(iv + own, number_at(info) + keys->sequence - number_at(salt + own));
    memcpy(into + HEAD, iv + own, NONCE);
  } else {
    unsigned char number[8];
    put_number(number, keys->sequence);
    for (int i = 0; i < 8; i++) iv[4 + i] ^= number[i];
  }
  memcpy(inner, data, size);
  inner[size] = (unsigned char)type;
  size_t plain = size + (late ? 1 : 0), body = explicit + plain + TAG;
  into[0] = (unsigned char)(late ? SOFT_DATA : type);
  into[1] = into[2] = 3;
  into[3] = (unsigned char)(body >> 8);
  into[4] = (unsigned char)body;
  put_number(head, keys->sequence);
  memcpy(head + 8, into, 3);
  head[11] = (unsigned char)(plain >> 8);
  head[12] = (unsigned char)plain;
  encrypt(cipher, key, iv, late ? into : head, late ? HEAD : sizeof head, inner, plain, into + HEAD + explicit);
  return HEAD + body;
}

/* ---- Two ends -------------------------------------------------------------------------------------------- */

static cert_t ca, cert;

static void begin(void) {
  soft_begin();
  soft.seal = seal;
  soft.exchanges = true;
  cert_make_ca(&ca, "the CA");
  cert_issue(&cert, &ca, "DNS:server.test", 10);
}

static void end(void) {
  cert_free(&ca);
  cert_free(&cert);
}

static aloop_tls_context_t *context_of(aloop_tls_options_t options) {
  aloop_tls_context_t *context = NULL;
  options.size = sizeof options;
  if (options.role == ALOOP_TLS_SERVER) {
    options.certificate = cert.pem;
    options.certificate_size = strlen(cert.pem);
    options.key = cert.key;
    options.key_size = strlen(cert.key);
  } else {
    options.ca = ca.pem;
    options.ca_size = strlen(ca.pem);
  }
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &options, &context), 0);
  return context;
}

typedef struct ends {
  env_t *env;
  tape_t server, client;
} ends_t;

static aloop_tls_info_t info_of(const tape_t *tape) {
  aloop_tls_info_t info = {.size = sizeof info};
  assert_int_equal(aloop_transport_tls_info(tape->transport, &info), 0);
  return info;
}

static void meet(ends_t *ends, env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client) {
  int fds[2];
  *ends = (ends_t){.env = env, .server.env = env, .client.env = env};
  make_tcp_pair(fds);
  aloop_accepted_options_t as_server = {.size = sizeof as_server, .tls = server};
  aloop_connect_options_t as_client = {
      .size = sizeof as_client, .fd = fds[1], .tls = client, .server_hostname = "server.test"};
  aloop_future_t *accepted =
      aloop_connect_accepted_socket(env->loop, &plain_protocol, &ends->server, fds[0], &as_server);
  aloop_future_t *connected = aloop_create_connection(env->loop, &plain_protocol, &ends->client, &as_client);
  assert_int_equal(value_of(env, connected), 0);
  assert_int_equal(value_of(env, accepted), 0);
}

static void await_bytes(const tape_t *tape, size_t size) {
  for (int turns = 0; tape->size < size; turns++) {
    assert_true(turns < 1000000);
    assert_int_equal(tape->calls[LOST], 0);
    soft_work();
    assert_true(aloop_run_once(tape->env->loop, 0) >= 0);
  }
}

/* From one to the other, and that it arrives. */
static void send_much(tape_t *from, const tape_t *to) {
  enum { MUCH = 300000 };
  static char bytes[MUCH];
  size_t before = to->size;
  pattern(bytes, MUCH, (unsigned)before + 1);
  assert_int_equal(aloop_transport_write(from->transport, bytes, MUCH), 0);
  await_bytes(to, before + MUCH);
  assert_memory_equal(to->bytes + before, bytes, MUCH);
}

static void part(ends_t *ends) {
  aloop_transport_close(ends->client.transport);
  run_until(ends->env->loop, &ends->client.lost);
  run_until(ends->env->loop, &ends->server.lost);
  assert_int_equal(ends->client.error, 0);
  assert_int_equal(ends->server.error, 0); /* the end was read, too */
  release_tape(&ends->client, -1);
  release_tape(&ends->server, -1);
}

static void speak(env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client, bool server_s,
                  bool client_s, bool reused) {
  ends_t ends;
  meet(&ends, env, server, client);
  assert_int_equal(info_of(&ends.server).kernel, server_s);
  assert_int_equal(info_of(&ends.client).kernel, client_s);
  assert_int_equal(info_of(&ends.client).reused, reused);
  send_much(&ends.client, &ends.server);
  send_much(&ends.server, &ends.client);
  send_much(&ends.client, &ends.server);
  part(&ends);
}

static void try_cipher(env_t *env, int version, const char *name, bool both) {
  begin();
  aloop_tls_options_t options = {.role = ALOOP_TLS_SERVER, .min_version = version, .max_version = version};
  if (version == ALOOP_TLS_1_2) options.ciphers = name;
  if (version == ALOOP_TLS_1_3) options.ciphersuites = name;
  aloop_tls_context_t *server = context_of(options);
  aloop_tls_context_t *client = context_of((aloop_tls_options_t){.kernel = both ? 0 : -1});
  speak(env, server, client, true, both, false);
  speak(env, server, client, true, both, true);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  end();
}

static void tls_1_2_with_each_cipher(void **state) {
  try_cipher(*state, ALOOP_TLS_1_2, "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256", true);
  try_cipher(*state, ALOOP_TLS_1_2, "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384", true);
  try_cipher(*state, ALOOP_TLS_1_2, "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305", true);
}

static void tls_1_3_with_each_cipher(void **state) {
  try_cipher(*state, ALOOP_TLS_1_3, "TLS_AES_128_GCM_SHA256", true);
  try_cipher(*state, ALOOP_TLS_1_3, "TLS_AES_256_GCM_SHA384", true);
  try_cipher(*state, ALOOP_TLS_1_3, "TLS_CHACHA20_POLY1305_SHA256", true);
}

static void one_side_alone(void **state) {
  try_cipher(*state, ALOOP_TLS_1_2, NULL, false);
  try_cipher(*state, ALOOP_TLS_1_3, NULL, false);
}

static void a_cipher_that_linux_has_not_stays_with_openssl(void **state) {
  begin();
  aloop_tls_context_t *server =
      context_of((aloop_tls_options_t){.role = ALOOP_TLS_SERVER,
                                       .max_version = ALOOP_TLS_1_2,
                                       .ciphers = "ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256"});
  aloop_tls_context_t *client = context_of((aloop_tls_options_t){.kernel = 0});
  speak(*state, server, client, false, false, false);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  end();
}

static void a_kernel_that_refuses_leaves_a_good_connection(void **state) {
  begin();
  soft.refuses = true;
  aloop_tls_context_t *server = context_of((aloop_tls_options_t){.role = ALOOP_TLS_SERVER});
  aloop_tls_context_t *client = context_of((aloop_tls_options_t){.kernel = 0});
  speak(*state, server, client, false, false, false);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  end();
}

static void the_context_of_a_name_decides_too(void **state) {
  begin();
  aloop_tls_context_t *server = context_of((aloop_tls_options_t){.role = ALOOP_TLS_SERVER});
  aloop_tls_context_t *other = context_of((aloop_tls_options_t){.role = ALOOP_TLS_SERVER, .kernel = -1});
  aloop_tls_context_t *client = context_of((aloop_tls_options_t){.kernel = 0});
  assert_int_equal(aloop_tls_context_add_name(server, "server.test", other), 0);
  speak(*state, server, client, false, true, false);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(other);
  aloop_tls_context_unref(client);
  end();
}

/* ---- A peer that is OpenSSL alone ------------------------------------------------------------------------ */

typedef struct alone {
  SSL_CTX *ctx;
  SSL *ssl;
  int fd;
} alone_t;

/* Until it wants no more, or fails for good. */
static int go_on(env_t *env, const alone_t *peer, int (*call)(SSL *)) {
  for (int turns = 0; turns < 100000; turns++) {
    int rc = call(peer->ssl);
    int error = SSL_get_error(peer->ssl, rc);
    if (rc == 1 || (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)) return rc;
    soft_work();
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  return -1;
}

static void expect_text(env_t *env, const alone_t *peer, const char *text) {
  char bytes[64];
  size_t size = 0, n;
  for (int turns = 0; size < strlen(text); turns++) {
    assert_true(turns < 100000);
    if (SSL_read_ex(peer->ssl, bytes + size, strlen(text) - size, &n) == 1) {
      size += n;
      continue;
    }
    assert_int_equal(SSL_get_error(peer->ssl, 0), SSL_ERROR_WANT_READ);
    soft_work();
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  assert_memory_equal(bytes, text, strlen(text));
}

static alone_t connect_alone(tape_t *tape, int64_t kernel, long size_limit) {
  env_t *env = tape->env;
  int fds[2];
  make_tcp_pair(fds);
  aloop_tls_context_t *context = context_of((aloop_tls_options_t){.role = ALOOP_TLS_SERVER, .kernel = kernel});
  aloop_accepted_options_t options = {.size = sizeof options, .tls = context};
  aloop_future_t *accepted = aloop_connect_accepted_socket(env->loop, &plain_protocol, tape, fds[0], &options);
  alone_t peer = {.ctx = SSL_CTX_new(TLS_method()), .fd = fds[1]};
  peer.ssl = SSL_new(peer.ctx);
  SSL_set_fd(peer.ssl, fds[1]);
  if (size_limit > 0) SSL_set_tlsext_max_fragment_length(peer.ssl, (uint8_t)size_limit);
  assert_int_equal(go_on(env, &peer, SSL_connect), 1);
  assert_int_equal(value_of(env, accepted), 0);
  aloop_tls_context_unref(context);
  return peer;
}

static void leave_alone(alone_t *peer) {
  SSL_free(peer->ssl);
  SSL_CTX_free(peer->ctx);
  close(peer->fd);
}

static void say_alone(const alone_t *peer, const char *text) {
  assert_int_equal(SSL_write(peer->ssl, text, (int)strlen(text)), strlen(text));
}

static void a_peer_gets_the_new_keys_that_it_wants(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  alone_t peer = connect_alone(&tape, 0, 0);
  assert_int_equal(info_of(&tape).kernel, 1);
  for (int i = 0; i < 5; i++) {
    put(&tape, "with the old keys");
    assert_int_equal(SSL_key_update(peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    say_alone(&peer, "x");
    await_bytes(&tape, (size_t)i + 1);
    assert_int_equal(soft.exchanged, i + 1);
    put(&tape, "with new keys");
    expect_text(env, &peer, "with the old keyswith new keys");
  }
  assert_int_equal(soft.records[SOFT_HANDSHAKE], 5);
  aloop_transport_close(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  char byte;
  assert_int_equal(SSL_read(peer.ssl, &byte, 1), 0);
  assert_int_equal(SSL_get_error(peer.ssl, 0), SSL_ERROR_ZERO_RETURN);
  leave_alone(&peer);
  release_tape(&tape, -1);
  end();
}

static void a_peer_s_own_new_keys_are_no_affair_of_the_kernel(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  alone_t peer = connect_alone(&tape, 0, 0);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(SSL_key_update(peer.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    say_alone(&peer, "x");
    await_bytes(&tape, (size_t)i + 1);
    put(&tape, "answer");
    expect_text(env, &peer, "answer");
  }
  assert_int_equal(soft.exchanged, 0);
  leave_alone(&peer);
  end_tape(&tape, -1);
  end();
}

static void without_an_exchange_it_is_told_why_not(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  soft.exchanges = false;
  alone_t peer = connect_alone(&tape, 1, 0);
  assert_int_equal(info_of(&tape).kernel, 1);
  assert_int_equal(SSL_key_update(peer.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
  say_alone(&peer, "x");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETLS);
  assert_non_null(strstr(aloop_transport_tls_error(tape.transport), "cannot exchange them"));
  leave_alone(&peer);
  release_tape(&tape, -1);
  end();
}

static void a_broken_record_is_answered_by_an_alert(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  alone_t peer = connect_alone(&tape, 0, 0);
  assert_int_equal(write(peer.fd, "\27\3\3\0\40aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 37), 37);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETLS);
  assert_int_equal(soft.records[SOFT_ALERT], 1);
  char byte;
  int rc = SSL_read(peer.ssl, &byte, 1);
  assert_true(rc <= 0);
  assert_int_equal(SSL_get_error(peer.ssl, rc), SSL_ERROR_SSL);
  assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
  ERR_clear_error();
  leave_alone(&peer);
  release_tape(&tape, -1);
  end();
}

static void a_peer_that_wants_small_records_gets_them(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  alone_t peer = connect_alone(&tape, 0, TLSEXT_max_fragment_length_512);
  assert_int_equal(info_of(&tape).kernel, 0);
  put(&tape, "small");
  expect_text(env, &peer, "small");
  leave_alone(&peer);
  end_tape(&tape, -1);
  end();
}

TESTS(T(tls_1_2_with_each_cipher), T(tls_1_3_with_each_cipher), T(one_side_alone),
      T(a_cipher_that_linux_has_not_stays_with_openssl), T(a_kernel_that_refuses_leaves_a_good_connection),
      T(the_context_of_a_name_decides_too), T(a_peer_gets_the_new_keys_that_it_wants),
      T(a_peer_s_own_new_keys_are_no_affair_of_the_kernel), T(without_an_exchange_it_is_told_why_not),
      T(a_broken_record_is_answered_by_an_alert), T(a_peer_that_wants_small_records_gets_them))
