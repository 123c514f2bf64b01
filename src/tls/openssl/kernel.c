/* SPDX-License-Identifier: MIT
 *
 * The keys of sessions for a kernel that encrypts what they send.
 *
 * OpenSSL can do this by itself, but only over a BIO that has a descriptor, by control codes that are its own
 * affair, only if it was built for it, and without new keys: a peer that asks for them gets records that it
 * cannot read. So the keys are worked out here, from what OpenSSL tells everybody: the traffic secrets of TLS
 * 1.3 come through the key log callback, those of TLS 1.2 from the session's master secret, and the message
 * callback shows each record that is made and each message in clear.
 *
 * How many records the write keys have been used for is counted from our Finished message on, which is the
 * first of them in TLS 1.2 and the last of the keys before in TLS 1.3.
 *
 * OpenSSL never learns that its write keys have been given away. It goes on making alerts and key updates, and
 * encrypts them: what the BIO is given is thrown away, and the message callback hands the same messages to the
 * transport in clear. Behind a key update of ours come new keys. OpenSSL answers a request for one with the
 * next data it writes; since it writes none any more, it is told to answer at once.
 *
 * The secrets are kept as long as the session, as OpenSSL does, and cleared with it.
 */
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <string.h>

#include "tls/openssl/openssl.h"

typedef aloop__openssl_session_t session_t;
typedef aloop__openssl_context_t context_t;

enum { SALT_SIZE = 4, NONCE_SIZE = 8, IV_SIZE = 12, RANDOM_SIZE = 32, LABEL_MAX = 32 };

/* ---- Ciphers --------------------------------------------------------------------------------------------- */

typedef struct cipher {
  int nid;
  int number;
  size_t key_size;
} cipher_t;

static const cipher_t *cipher_of(const SSL *ssl) {
  static const cipher_t all[] = {{NID_aes_128_gcm, ALOOP_TLS_AES_128_GCM, 16},
                                 {NID_aes_256_gcm, ALOOP_TLS_AES_256_GCM, 32},
                                 {NID_chacha20_poly1305, ALOOP_TLS_CHACHA20_POLY1305, 32}};
  int nid = SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(ssl));
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    if (all[i].nid == nid) return &all[i];
  return NULL;
}

static const EVP_MD *digest_of(const SSL *ssl) {
  return SSL_CIPHER_get_handshake_digest(SSL_get_current_cipher(ssl));
}

/* ---- TLS 1.3 --------------------------------------------------------------------------------------------- */

/* HKDF-Expand-Label without a context (RFC 8446, 7.1), for no more bytes than one HMAC has. */
static bool expand(const session_t *session, const char *label, unsigned char *into, size_t size) {
  unsigned char text[LABEL_MAX], block[EVP_MAX_MD_SIZE];
  unsigned made = 0;
  size_t length = strlen(label), at = 0;
  text[at++] = (unsigned char)(size >> 8);
  text[at++] = (unsigned char)size;
  text[at++] = (unsigned char)(length + 6);
  memcpy(text + at, "tls13 ", 6);
  memcpy(text + at + 6, label, length);
  at += 6 + length;
  text[at++] = 0;
  text[at++] = 1;
  bool good = HMAC(digest_of(session->ssl), session->secret, (int)session->secret_size, text, at, block,
                   &made) != NULL &&
              made >= size;
  if (good) memcpy(into, block, size);
  OPENSSL_cleanse(block, sizeof block);
  return good;
}

static bool keys_1_3(const session_t *session, const cipher_t *cipher, aloop_tls_keys_t *keys) {
  return session->secret_size > 0 && expand(session, "key", keys->key, cipher->key_size) &&
         expand(session, "iv", keys->iv, IV_SIZE);
}

/* "LABEL RANDOM SECRET", the last two in hexadecimal. */
void aloop__openssl_kernel_note(const SSL *ssl, const char *line) {
  session_t *session = SSL_get_app_data(ssl);
  const char *label = SSL_is_server(ssl) ? "SERVER_TRAFFIC_SECRET_0 " : "CLIENT_TRAFFIC_SECRET_0 ";
  if (session == NULL || strncmp(line, label, strlen(label)) != 0) return;
  const char *at = strrchr(line, ' ') + 1;
  size_t size = 0;
  for (; size < sizeof session->secret; at += 2) {
    int high = OPENSSL_hexchar2int((unsigned char)at[0]);
    int low = high < 0 ? -1 : OPENSSL_hexchar2int((unsigned char)at[1]);
    if (low < 0) break;
    session->secret[size++] = (unsigned char)(high << 4 | low);
  }
  session->secret_size = size;
}

/* ---- TLS 1.2 --------------------------------------------------------------------------------------------- */

/* PRF(master secret, "key expansion", both randoms). */
static bool expand_master(const session_t *session, unsigned char *block, size_t size) {
  unsigned char master[SSL_MAX_MASTER_KEY_LENGTH], server[RANDOM_SIZE], client[RANDOM_SIZE];
  const SSL *ssl = session->ssl;
  size_t length = SSL_SESSION_get_master_key(SSL_get_session(ssl), master, sizeof master), made = size;
  EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_TLS1_PRF, NULL);
  bool good = ctx != NULL && length > 0 && SSL_get_server_random(ssl, server, RANDOM_SIZE) == RANDOM_SIZE &&
              SSL_get_client_random(ssl, client, RANDOM_SIZE) == RANDOM_SIZE &&
              EVP_PKEY_derive_init(ctx) == 1 && EVP_PKEY_CTX_set_tls1_prf_md(ctx, digest_of(ssl)) == 1 &&
              EVP_PKEY_CTX_set1_tls1_prf_secret(ctx, master, (int)length) == 1 &&
              EVP_PKEY_CTX_add1_tls1_prf_seed(ctx, (const unsigned char *)"key expansion", 13) == 1 &&
              EVP_PKEY_CTX_add1_tls1_prf_seed(ctx, server, RANDOM_SIZE) == 1 &&
              EVP_PKEY_CTX_add1_tls1_prf_seed(ctx, client, RANDOM_SIZE) == 1 &&
              EVP_PKEY_derive(ctx, block, &made) == 1 && made == size;
  EVP_PKEY_CTX_free(ctx);
  OPENSSL_cleanse(master, sizeof master);
  return good;
}

/* The key block has the client's key, the server's, and the same of their IVs. AES-GCM says the rest of a
 * record's IV beside the record; it counts up from a random number, as OpenSSL's own does. */
static bool keys_1_2(const session_t *session, const cipher_t *cipher, aloop_tls_keys_t *keys) {
  enum { BLOCK_MAX = 2 * (32 + IV_SIZE) };
  unsigned char block[BLOCK_MAX];
  bool counts = cipher->number != ALOOP_TLS_CHACHA20_POLY1305;
  size_t own = SSL_is_server(session->ssl) ? 1 : 0, key = cipher->key_size, iv = counts ? SALT_SIZE : IV_SIZE;
  bool good = expand_master(session, block, 2 * (key + iv)) &&
              (!counts || RAND_bytes(keys->iv + SALT_SIZE, NONCE_SIZE) == 1);
  if (good) memcpy(keys->key, block + own * key, key);
  if (good) memcpy(keys->iv, block + 2 * key + own * iv, iv);
  OPENSSL_cleanse(block, sizeof block);
  return good;
}

/* ---- Giving them away ------------------------------------------------------------------------------------ */

static int give(session_t *session, uint64_t records) {
  aloop_tls_keys_t keys = {.size = sizeof keys, .version = SSL_version(session->ssl)};
  const cipher_t *cipher = cipher_of(session->ssl);
  bool good = cipher != NULL && (keys.version == TLS1_3_VERSION   ? keys_1_3(session, cipher, &keys)
                                 : keys.version == TLS1_2_VERSION ? keys_1_2(session, cipher, &keys)
                                                                  : false);
  if (good) keys.cipher = cipher->number;
  for (size_t i = 0; i < sizeof keys.sequence; i++)
    keys.sequence[i] = (unsigned char)(records >> (8 * (sizeof keys.sequence - 1 - i)));
  int rc = good ? session->wire->keys(session->wire, &keys) : ALOOP_ENOTSUP;
  OPENSSL_cleanse(&keys, sizeof keys);
  return rc;
}

static int renew(session_t *session) {
  unsigned char next[EVP_MAX_MD_SIZE];
  bool good = expand(session, "traffic upd", next, session->secret_size);
  if (good) memcpy(session->secret, next, session->secret_size);
  OPENSSL_cleanse(next, sizeof next);
  return good ? give(session, 0) : ALOOP_ETLS;
}

/* A message that OpenSSL believes to have sent. */
static void pass_on(session_t *session, int type, const unsigned char *data, size_t size) {
  if (session->failure < 0 || session->wire == NULL) return;
  session->failure = session->wire->record(session->wire, type, data, size);
  bool update = type == SSL3_RT_HANDSHAKE && size > 0 && data[0] == SSL3_MT_KEY_UPDATE;
  if (session->failure == 0 && update) session->failure = renew(session);
}

/* OpenSSL's message callback. */
static void seen(int sent, int version, int type, const void *data, size_t size, SSL *ssl, void *arg) {
  (void)version;
  session_t *session = arg;
  bool finished = type == SSL3_RT_HANDSHAKE && size > 0 && *(const unsigned char *)data == SSL3_MT_FINISHED;
  if (!sent) return;
  if (session->offloaded && (type == SSL3_RT_HANDSHAKE || type == SSL3_RT_ALERT))
    pass_on(session, type, data, size);
  else if (type == SSL3_RT_HEADER)
    session->records++;
  else if (finished)
    session->records = SSL_version(ssl) >= TLS1_3_VERSION ? 0 : 1;
}

void aloop__openssl_kernel_watch(session_t *session) {
  SSL_set_msg_callback(session->ssl, seen);
  SSL_set_msg_callback_arg(session->ssl, session);
}

/* The rules are those of the context for the name that was asked for. */
static bool may(const session_t *session) {
  const context_t *rules = SSL_CTX_get_app_data(SSL_get_SSL_CTX(session->ssl));
  int cut = SSL_SESSION_get_max_fragment_length(SSL_get_session(session->ssl));
  bool whole = cut < TLSEXT_max_fragment_length_512 || cut > TLSEXT_max_fragment_length_4096;
  return session->context->kernel && rules != NULL && rules->kernel && whole;
}

int aloop__openssl_offload(void *arg, aloop_tls_wire_t *wire) {
  session_t *session = arg;
  session->wire = wire;
  ERR_clear_error();
  int rc = may(session) ? give(session, session->records) : ALOOP_ENOTSUP;
  session->offloaded = rc == 0;
  if (rc < 0) SSL_set_msg_callback(session->ssl, NULL);
  if (rc < 0) OPENSSL_cleanse(session->secret, sizeof session->secret);
  ERR_clear_error();
  session->wire = NULL;
  return rc;
}

int aloop__openssl_kernel_answer(session_t *session) {
  SSL *ssl = session->ssl;
  if (session->failure == 0 && SSL_get_key_update_type(ssl) != SSL_KEY_UPDATE_NONE &&
      (SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1 || SSL_do_handshake(ssl) != 1))
    return ALOOP_ETLS;
  return session->failure;
}
