/* SPDX-License-Identifier: MIT
 *
 * Sessions of OpenSSL: one SSL per connection, with a BIO of our own beneath.
 *
 * The BIO knows the wire only while a call of the engine runs. Reading takes received bytes from where the
 * transport has put them, and asks to be called again when there are none; writing always succeeds, so that
 * OpenSSL never waits for room and no call has to be repeated with the same arguments. Both directions are one
 * BIO without state, of a method that each context makes for its sessions.
 *
 * An idle session has no record buffers. SSL_MODE_RELEASE_BUFFERS gives that of a write back, but not that
 * of a read: with SSL_OP_CLEANSE_PLAINTEXT it would clear 16 KiB for each record, however small, beside the
 * plaintext itself. So reads leave the buffer where it is, and it is given back when the last byte of what
 * was received has been read. By then its plaintext has been cleared piece by piece, or, if more than a
 * record came at once, the whole buffer is cleared now, which is less: to clear every record of a bulk transfer
 * took a third more CPU time. (OpenSSL 1.1.1 knows no such option and clears nothing. From 3.2 on SSL_free does
 * not clear, so a transfer that is cut off in the middle of a record may leave some of what came before.)
 *
 * A handshake that asks for another name goes on with the context of that name from its very first message:
 * that decides about versions, client certificates and which tickets are good, so a session of one name is
 * never resumed under the rules of another.
 */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "tls/openssl/openssl.h"

typedef aloop__openssl_session_t session_t;
typedef aloop__openssl_context_t context_t;

enum { MUCH = SSL3_RT_MAX_PACKET_SIZE }; /* received at once: more than a record */

/* ---- The BIO --------------------------------------------------------------------------------------------- */

static int bio_read(BIO *bio, char *data, int size) {
  session_t *session = BIO_get_data(bio);
  aloop_tls_wire_t *wire = session->wire;
  BIO_clear_retry_flags(bio);
  if (size <= 0 || wire == NULL) return 0;
  if (wire->input_size == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  size_t n = wire->input_size < (size_t)size ? wire->input_size : (size_t)size;
  memcpy(data, wire->input, n);
  wire->input += n;
  wire->input_size -= n;
  return (int)n;
}

static int bio_write(BIO *bio, const char *data, int size) {
  session_t *session = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (size <= 0 || session->wire == NULL) return 0;
  if (session->offloaded) return size; /* it has gone in clear (kernel.c) */
  int rc = session->wire->output(session->wire, data, (size_t)size);
  if (rc == 0) return size;
  session->failure = rc;
  return -1;
}

static long bio_control(BIO *bio, int command, long number, void *data) {
  (void)bio, (void)number, (void)data;
  return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio) {
  BIO_set_init(bio, 1);
  return 1;
}

BIO_METHOD *aloop__openssl_bio(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "aloop");
  if (method == NULL) return NULL;
  BIO_meth_set_create(method, bio_create);
  BIO_meth_set_read(method, bio_read);
  BIO_meth_set_write(method, bio_write);
  BIO_meth_set_ctrl(method, bio_control);
  return method;
}

/* ---- Buffers --------------------------------------------------------------------------------------------- */

static void set_clearing(session_t *session, bool on) {
#ifdef SSL_OP_CLEANSE_PLAINTEXT
  if (on == session->clears) return;
  session->clears = on;
  if (on)
    SSL_set_options(session->ssl, SSL_OP_CLEANSE_PLAINTEXT);
  else
    SSL_clear_options(session->ssl, SSL_OP_CLEANSE_PLAINTEXT);
#else
  (void)session, (void)on;
#endif
}

/* A message of the handshake is about to be taken. New keys come with new buffers in OpenSSL 3.2 and later, and
 * the old ones are released inside. */
void aloop__openssl_state(const SSL *ssl, int where, int rc) {
  (void)rc;
  session_t *session = SSL_get_app_data(ssl);
  if ((where & SSL_CB_LOOP) && session != NULL && session->shaken) set_clearing(session, true);
}

/* Whether reads and writes give their buffers back by themselves. From OpenSSL 3.2 on the record layer has a
 * copy of the mode, which follows when a mode is set but not when one is cleared. */
static void set_releasing(SSL *ssl, bool on) {
  if (!on) SSL_clear_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
  SSL_set_mode(ssl, on ? SSL_MODE_RELEASE_BUFFERS : 0);
}

/* Gives the buffers back, unless there is something in them: the beginning of a record, or what nobody has
 * read. (The first two questions are SSL_free_buffers' own in versions that are up to date. And a buffer that
 * is to be cleared has to be there: OpenSSL does not ask.) */
static void give_back(session_t *session) {
  SSL *ssl = session->ssl;
  if (SSL_has_pending(ssl) || SSL_rstate_string(ssl)[1] != 'H') return;
  if (session->dirty && !SSL_alloc_buffers(ssl)) return;
  set_clearing(session, session->dirty);
  SSL_free_buffers(ssl);
  session->dirty = false;
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

/* Whom a client wants: an address is compared with addresses, and is not asked for by name. */
static bool set_name(session_t *session, const char *wanted) {
  SSL *ssl = session->ssl;
  size_t size = strlen(wanted);
  session->name = strdup(wanted);
  if (session->name == NULL) return false;
  if (size > 1 && session->name[size - 1] == '.') session->name[size - 1] = '\0';
  X509_VERIFY_PARAM *rules = SSL_get0_param(ssl);
  if (X509_VERIFY_PARAM_set1_ip_asc(rules, session->name)) return true;
  ERR_clear_error();
  if (!SSL_set_tlsext_host_name(ssl, session->name)) return false;
  if (session->context->verify != ALOOP_TLS_VERIFY_DEFAULT) return true;
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set1_host(ssl, session->name);
}

static int set_up(session_t *session, const aloop_tls_session_t *how) {
  context_t *context = session->context;
  session->ssl = SSL_new(context->ctx);
  BIO *bio = session->ssl != NULL ? BIO_new(context->bio) : NULL;
  if (bio == NULL) return ALOOP_ENOMEM;
  BIO_set_data(bio, session);
  SSL_set_bio(session->ssl, bio, bio);
  if (SSL_set_app_data(session->ssl, session) == 0) return ALOOP_ENOMEM;
  if (context->kernel) aloop__openssl_kernel_watch(session);
  if (context->role == ALOOP_TLS_SERVER) {
    SSL_set_accept_state(session->ssl);
    return 0;
  }
  SSL_set_connect_state(session->ssl);
  if (how->server_hostname == NULL) return 0;
  if (!set_name(session, how->server_hostname)) return session->name != NULL ? ALOOP_ETLS : ALOOP_ENOMEM;
  aloop__openssl_resume(session);
  return 0;
}

void aloop__openssl_session_free(void *arg) {
  session_t *session = arg;
  if (session->ssl != NULL && session->dirty) give_back(session); /* SSL_free clears nothing from 3.2 on */
  if (session->ssl != NULL) set_clearing(session, true);
  /* Otherwise OpenSSL takes a session that was not ended politely for one that must not be resumed. */
  if (session->ssl != NULL && session->shaken && session->error == 0)
    SSL_set_shutdown(session->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  SSL_free(session->ssl);
  for (size_t i = 0; i < session->ders_count; i++) OPENSSL_free(session->ders[i]);
  free(session->ders);
  free(session->alpn);
  free(session->name);
  OPENSSL_cleanse(session->secret, sizeof session->secret);
  free(session);
  ERR_clear_error();
}

int aloop__openssl_session_new(void *arg, const aloop_tls_session_t *how, void **made) {
  session_t *session = calloc(1, sizeof *session);
  if (session == NULL) return ALOOP_ENOMEM;
  session->context = arg;
  session->choose = how->choose;
  session->arg = how->arg;
  ERR_clear_error();
  int rc = set_up(session, how);
  ERR_clear_error();
  if (rc < 0)
    aloop__openssl_session_free(session);
  else
    *made = session;
  return rc;
}

/* ---- Calls ----------------------------------------------------------------------------------------------- */

static session_t *enter(void *arg, aloop_tls_wire_t *wire) {
  session_t *session = arg;
  session->wire = wire;
  session->failure = 0;
  if (ERR_peek_error() != 0) ERR_clear_error(); /* which is not cheap */
  return session;
}

/* What kind of failure it is. */
static int code_of(unsigned long error) {
  int reason = ERR_GET_REASON(error);
  if (reason == ERR_R_MALLOC_FAILURE) return ALOOP_ENOMEM;
  if (ERR_GET_LIB(error) != ERR_LIB_SSL) return ALOOP_ETLS;
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) return ALOOP_ETLS_VERIFY;
  return reason > SSL_AD_REASON_OFFSET ? ALOOP_ETLS_ALERT : ALOOP_ETLS;
}

/* What a result of OpenSSL's means here: 0: more input is needed; ALOOP_EOF; or a code. */
static int fault_of(session_t *session, int result) {
  switch (SSL_get_error(session->ssl, result)) {
  case SSL_ERROR_WANT_READ:
    return 0;
  case SSL_ERROR_ZERO_RETURN:
    return ALOOP_EOF;
  default:
    session->error = ERR_peek_error();
    ERR_clear_error();
    if (session->failure < 0) return session->failure;
    return code_of(session->error);
  }
}

int aloop__openssl_handshake(void *arg, aloop_tls_wire_t *wire) {
  session_t *session = enter(arg, wire);
  int rc = SSL_do_handshake(session->ssl);
  session->shaken = rc == 1;
  if (rc == 1)
    give_back(session);
  else
    rc = fault_of(session, rc);
  session->wire = NULL;
  return rc == ALOOP_EOF ? ALOOP_ETLS : rc;
}

ssize_t aloop__openssl_read(void *arg, aloop_tls_wire_t *wire, void *buffer, size_t size) {
  size_t n = 0;
  session_t *session = enter(arg, wire);
  bool much = wire->input_size > MUCH;
  set_clearing(session, !session->dirty && !much);
  set_releasing(session->ssl, false);
  int rc = SSL_read_ex(session->ssl, buffer, size, &n);
  session->dirty |= much && rc == 1;
  if (rc != 1) rc = fault_of(session, rc);
  set_releasing(session->ssl, true);
  if (session->offloaded && rc >= 0) {
    int answered = aloop__openssl_kernel_answer(session);
    if (answered < 0) rc = answered;
  }
  if (wire->input_size == 0) give_back(session);
  session->wire = NULL;
  return rc == 1 ? (ssize_t)n : rc;
}

int aloop__openssl_write(void *arg, aloop_tls_wire_t *wire, const void *data, size_t size) {
  size_t n = 0;
  session_t *session = enter(arg, wire);
  int rc = SSL_write_ex(session->ssl, data, size, &n);
  if (rc != 1) rc = fault_of(session, rc);
  session->wire = NULL;
  if (rc == 1 && n == size) return 0;
  return rc < 0 && rc != ALOOP_EOF ? rc : ALOOP_ETLS;
}

int aloop__openssl_shutdown(void *arg, aloop_tls_wire_t *wire) {
  session_t *session = enter(arg, wire);
  int rc = SSL_shutdown(session->ssl);
  if (rc < 0) rc = fault_of(session, rc);
  if (session->failure < 0) rc = session->failure;
  session->wire = NULL;
  return rc < 0 && rc != ALOOP_EOF ? rc : 0;
}

bool aloop__openssl_pending(void *arg) {
  session_t *session = arg;
  return SSL_has_pending(session->ssl) == 1;
}

bool aloop__openssl_half_close(void *arg) {
  session_t *session = arg;
  return SSL_version(session->ssl) >= TLS1_3_VERSION;
}
