/* SPDX-License-Identifier: MIT
 *
 * What OpenSSL knows of a session: versions, names, certificates, bindings, and why it has failed.
 *
 * Texts and certificates that OpenSSL does not keep in the form that is asked for are made once, when somebody
 * asks, and live as long as the session.
 */
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls/openssl/openssl.h"

typedef aloop__openssl_session_t session_t;

/* ---- Failures -------------------------------------------------------------------------------------------- */

static void describe_verification(const session_t *session, char *text, size_t size) {
  long result = SSL_get_verify_result(session->ssl);
  const char *reason = X509_verify_cert_error_string(result);
  bool wrong_name = result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH;
  if (wrong_name && session->name != NULL)
    snprintf(text, size, "certificate verify failed: %s: the certificate is not for %s", reason, session->name);
  else if (result != X509_V_OK)
    snprintf(text, size, "certificate verify failed: %s", reason);
  else
    snprintf(text, size, "certificate verify failed");
}

/* OpenSSL has two lists of alerts, and only the second one has the newer ones. */
static const char *name_of_alert(int number, const char *otherwise) {
  const char *name = SSL_alert_desc_string_long(number);
  return strcmp(name, "unknown") != 0 || otherwise == NULL ? name : otherwise;
}

void aloop__openssl_reason(void *arg, char *text, size_t size) {
  session_t *session = arg;
  const char *reason = ERR_reason_error_string(session->error);
  int number = ERR_GET_REASON(session->error);
  bool own = ERR_GET_LIB(session->error) == ERR_LIB_SSL;
  if (own && number == SSL_R_CERTIFICATE_VERIFY_FAILED)
    describe_verification(session, text, size);
  else if (own && number > SSL_AD_REASON_OFFSET)
    snprintf(text, size, "the peer says: %s", name_of_alert(number - SSL_AD_REASON_OFFSET, reason));
  else if (reason != NULL)
    snprintf(text, size, "TLS failed: %s", reason);
}

/* ---- Certificates ---------------------------------------------------------------------------------------- */

/* The peer's own, borrowed from the session. */
static X509 *own_certificate(const SSL *ssl) {
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
  return SSL_get0_peer_certificate(ssl);
#else
  X509 *found = SSL_get_peer_certificate(ssl);
  X509_free(found); /* the session has another reference */
  return found;
#endif
}

/* OpenSSL's list has the peer's own certificate in it on one side and not on the other. */
static X509 *certificate_at(const session_t *session, size_t index) {
  X509 *own = own_certificate(session->ssl);
  STACK_OF(X509) *chain = SSL_get_peer_cert_chain(session->ssl);
  if (index == 0 || own == NULL) return index == 0 ? own : NULL;
  if (SSL_is_server(session->ssl)) index--;
  int count = sk_X509_num(chain);
  return count > 0 && index < (size_t)count ? sk_X509_value(chain, (int)index) : NULL;
}

static size_t count_certificates(const session_t *session) {
  size_t count = 0;
  while (certificate_at(session, count) != NULL) count++;
  return count;
}

/* As many places as certificates. */
static bool make_places(session_t *session) {
  if (session->ders != NULL) return true;
  size_t count = count_certificates(session);
  session->ders = calloc(count, sizeof *session->ders);
  if (session->ders != NULL) session->ders_count = count;
  return session->ders != NULL;
}

int aloop__openssl_certificate(void *arg, size_t index, const void **der, size_t *size) {
  session_t *session = arg;
  X509 *certificate = certificate_at(session, index);
  if (certificate == NULL) return ALOOP_ENOENT;
  if (!make_places(session)) return ALOOP_ENOMEM;
  int length =
      session->ders[index] != NULL ? i2d_X509(certificate, NULL) : i2d_X509(certificate, &session->ders[index]);
  if (length <= 0) return ALOOP_ENOMEM;
  *der = session->ders[index];
  *size = (size_t)length;
  return 0;
}

/* ---- Facts ----------------------------------------------------------------------------------------------- */

static const char *alpn_of(session_t *session) {
  const unsigned char *chosen = NULL;
  unsigned size = 0;
  if (session->alpn != NULL) return session->alpn;
  SSL_get0_alpn_selected(session->ssl, &chosen, &size);
  if (size > 0) session->alpn = calloc(1, size + 1u);
  if (session->alpn != NULL) memcpy(session->alpn, chosen, size);
  return session->alpn;
}

void aloop__openssl_info(void *arg, aloop_tls_info_t *info) {
  session_t *session = arg;
  SSL *ssl = session->ssl;
  info->version = SSL_get_version(ssl);
  info->cipher = SSL_get_cipher_name(ssl);
  info->alpn = alpn_of(session);
  info->server_name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  info->certificates = count_certificates(session);
  info->reused = SSL_session_reused(ssl);
  if (info->certificates == 0) return;
  info->verify_error = (int)SSL_get_verify_result(ssl);
  if (info->verify_error != X509_V_OK) info->verify_text = X509_verify_cert_error_string(info->verify_error);
}

/* ---- Bindings -------------------------------------------------------------------------------------------- */

enum { BINDING_MAX = EVP_MAX_MD_SIZE, EXPORTED = 32 };

/* The first Finished message of the handshake: the client's, or the server's if a session was resumed. */
static size_t bind_unique(SSL *ssl, unsigned char *into) {
  if (SSL_version(ssl) >= TLS1_3_VERSION) return 0;
  bool ours = (SSL_session_reused(ssl) != 0) == (SSL_is_server(ssl) != 0);
  return ours ? SSL_get_finished(ssl, into, BINDING_MAX) : SSL_get_peer_finished(ssl, into, BINDING_MAX);
}

/* RFC 9266. Before TLS 1.3 only an extended master secret is bound to the handshake. */
static size_t bind_exporter(SSL *ssl, unsigned char *into) {
  static const char label[] = "EXPORTER-Channel-Binding";
  static const unsigned char nothing[1] = {0};
  if (SSL_version(ssl) < TLS1_3_VERSION && SSL_get_extms_support(ssl) != 1) return 0;
  return SSL_export_keying_material(ssl, into, EXPORTED, label, sizeof label - 1, nothing, 0, 1) == 1 ? EXPORTED
                                                                                                      : 0;
}

/* RFC 5929: the hash of the server's certificate by the hash of its signature, SHA-256 at least. */
static size_t bind_end_point(SSL *ssl, unsigned char *into) {
  X509 *certificate = SSL_is_server(ssl) ? SSL_get_certificate(ssl) : own_certificate(ssl);
  int hash = NID_undef;
  unsigned size = 0;
  if (certificate == NULL || X509_get_signature_info(certificate, &hash, NULL, NULL, NULL) != 1) return 0;
  if (hash == NID_md5 || hash == NID_sha1) hash = NID_sha256;
  const EVP_MD *digest = EVP_get_digestbynid(hash);
  return digest != NULL && X509_digest(certificate, digest, into, &size) == 1 ? size : 0;
}

int aloop__openssl_binding(void *arg, const char *type, void *data, size_t *size) {
  session_t *session = arg;
  unsigned char found[BINDING_MAX];
  size_t n = 0;
  if (strcmp(type, "tls-unique") == 0)
    n = bind_unique(session->ssl, found);
  else if (strcmp(type, "tls-exporter") == 0)
    n = bind_exporter(session->ssl, found);
  else if (strcmp(type, "tls-server-end-point") == 0)
    n = bind_end_point(session->ssl, found);
  ERR_clear_error();
  if (n == 0) return ALOOP_ENOTSUP;
  if (*size < n) return ALOOP_ENOBUFS;
  memcpy(data, found, n);
  *size = n;
  return 0;
}
