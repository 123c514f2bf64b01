/* SPDX-License-Identifier: MIT
 *
 * Contexts of OpenSSL: from aloop's options to an SSL_CTX, which is not changed any more once sessions are made
 * from it, and may therefore be used by several threads.
 *
 * What is fixed for all: no compression, no renegotiation, no prompt for a password, the server's order of
 * ciphers, and TLS 1.2 as the oldest version. (That plaintext is cleared from OpenSSL's buffers is the affair
 * of session.c.) Tickets are good for the context that made them only, or for those that were given the same
 * ticket key.
 *
 * Files are read here and now, so that a context does not depend on them later; a directory of CAs is the one
 * exception, it is looked into when a certificate comes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tls/openssl/openssl.h"

typedef aloop__openssl_context_t context_t;
typedef aloop__openssl_session_t session_t;

enum { TICKETS = 2, SESSIONS = 256, ID_SIZE = 16 };

/* ---- What is wrong --------------------------------------------------------------------------------------- */

static int say(const aloop_tls_options_t *options, int code, const char *what, const char *which) {
  unsigned long error = ERR_peek_error();
  const char *reason = code == ALOOP_ETLS ? ERR_reason_error_string(error) : aloop_strerror(code);
  if (options->message != NULL && options->message_size > 0)
    snprintf(options->message, options->message_size, "%s%s%s%s%s", what, which != NULL ? " " : "",
             which != NULL ? which : "", reason != NULL ? ": " : "", reason != NULL ? reason : "");
  ERR_clear_error();
  return code;
}

/* ---- Texts ----------------------------------------------------------------------------------------------- */

/* A file, or memory if there is no name. *rc: a code if there is none. */
static BIO *open_text(const char *file, const void *memory, size_t size, int *rc) {
  BIO *bio = NULL;
  *rc = ALOOP_ENOMEM;
  if (file == NULL && size <= INT_MAX) return BIO_new_mem_buf(memory, (int)size);
  if (file == NULL) return NULL;
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) bio = BIO_new(BIO_s_fd());
  if (fd < 0) *rc = -errno;
  if (bio != NULL)
    BIO_set_fd(bio, fd, BIO_CLOSE);
  else if (fd >= 0)
    close(fd);
  if (bio == NULL) return NULL;
  BIO *buffered = BIO_new(BIO_f_buffer()); /* PEM is read line by line */
  if (buffered == NULL) {
    BIO_free(bio);
    return NULL;
  }
  return BIO_push(buffered, bio);
}

static int give_password(char *into, int size, int rwflag, void *arg) {
  (void)rwflag;
  const char *password = arg;
  size_t length = password != NULL ? strlen(password) : 0;
  if (length == 0 || length > (size_t)size) return -1;
  memcpy(into, password, length);
  return (int)length;
}

/* The end of a text is no error. */
static bool was_end(void) {
  unsigned long error = ERR_peek_last_error();
  bool end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (end) ERR_clear_error();
  return end;
}

/* ---- The own certificate --------------------------------------------------------------------------------- */

static bool read_chain(SSL_CTX *ctx, BIO *bio) {
  X509 *own = PEM_read_bio_X509_AUX(bio, NULL, give_password, NULL);
  bool good = own != NULL && SSL_CTX_use_certificate(ctx, own) == 1;
  X509_free(own);
  if (!good) return false;
  for (;;) {
    X509 *next = PEM_read_bio_X509(bio, NULL, give_password, NULL);
    if (next == NULL) return was_end();
    if (SSL_CTX_add0_chain_cert(ctx, next) == 1) continue;
    X509_free(next);
    return false;
  }
}

static int load_certificate(context_t *context, const aloop_tls_options_t *options) {
  const char *file = options->certificate_file;
  int rc;
  if (file == NULL && options->certificate == NULL) return 0;
  BIO *bio = open_text(file, options->certificate, options->certificate_size, &rc);
  if (bio != NULL) rc = read_chain(context->ctx, bio) ? 0 : ALOOP_ETLS;
  BIO_free_all(bio);
  return rc < 0 ? say(options, rc, "certificate", file) : 0;
}

static int load_key(context_t *context, const aloop_tls_options_t *options) {
  bool apart = options->key_file != NULL || options->key != NULL;
  const char *file = apart ? options->key_file : options->certificate_file;
  int rc;
  if (!apart && file == NULL && options->certificate == NULL) return 0;
  BIO *bio = open_text(file, apart ? options->key : options->certificate,
                       apart ? options->key_size : options->certificate_size, &rc);
  if (bio != NULL) {
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, give_password, (void *)options->key_password);
    bool good = key != NULL && SSL_CTX_use_PrivateKey(context->ctx, key) == 1 &&
                SSL_CTX_check_private_key(context->ctx) == 1;
    EVP_PKEY_free(key);
    rc = good ? 0 : ALOOP_ETLS;
  }
  BIO_free_all(bio);
  return rc < 0 ? say(options, rc, "private key", file) : 0;
}

/* ---- Who is believed ------------------------------------------------------------------------------------- */

static bool read_cas(context_t *context, BIO *bio) {
  X509_STORE *store = SSL_CTX_get_cert_store(context->ctx);
  int count = 0;
  for (;; count++) {
    X509 *ca = PEM_read_bio_X509_AUX(bio, NULL, give_password, NULL);
    if (ca == NULL) return was_end() && count > 0;
    bool good = X509_STORE_add_cert(store, ca) == 1;
    if (good && context->role == ALOOP_TLS_SERVER) SSL_CTX_add_client_CA(context->ctx, ca);
    X509_free(ca);
    if (!good) return false;
  }
}

static int load_cas(context_t *context, const aloop_tls_options_t *options, const char *file,
                    const void *memory) {
  int rc;
  if (file == NULL && memory == NULL) return 0;
  BIO *bio = open_text(file, memory, options->ca_size, &rc);
  if (bio != NULL) rc = read_cas(context, bio) ? 0 : ALOOP_ETLS;
  BIO_free_all(bio);
  return rc < 0 ? say(options, rc, "CA certificates", file) : 0;
}

static int load_crls(context_t *context, const aloop_tls_options_t *options) {
  X509_STORE *store = SSL_CTX_get_cert_store(context->ctx);
  int rc;
  if (options->crl_file == NULL) return 0;
  BIO *bio = open_text(options->crl_file, NULL, 0, &rc);
  if (bio == NULL) return say(options, rc, "revoked certificates", options->crl_file);
  int count = 0;
  X509_CRL *crl = PEM_read_bio_X509_CRL(bio, NULL, give_password, NULL);
  for (; crl != NULL; crl = PEM_read_bio_X509_CRL(bio, NULL, give_password, NULL)) {
    count += X509_STORE_add_crl(store, crl);
    X509_CRL_free(crl);
  }
  BIO_free_all(bio);
  if (!was_end() || count == 0) return say(options, ALOOP_ETLS, "revoked certificates", options->crl_file);
  X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
  return 0;
}

static int set_up_trust(context_t *context, const aloop_tls_options_t *options) {
  bool named = options->ca_file != NULL || options->ca_dir != NULL || options->ca != NULL;
  bool client = context->role == ALOOP_TLS_CLIENT;
  bool system = options->system_ca > 0 || (options->system_ca == 0 && !named && client);
  int rc = load_cas(context, options, options->ca_file, NULL);
  if (rc == 0) rc = load_cas(context, options, NULL, options->ca);
  if (rc == 0 && options->ca_dir != NULL &&
      SSL_CTX_load_verify_locations(context->ctx, NULL, options->ca_dir) != 1)
    rc = say(options, ALOOP_ETLS, "CA directory", options->ca_dir);
  if (rc == 0 && system && SSL_CTX_set_default_verify_paths(context->ctx) != 1)
    rc = say(options, ALOOP_ETLS, "the system's CA certificates", NULL);
  if (rc == 0) rc = load_crls(context, options);
  int mode = client && options->verify != ALOOP_TLS_VERIFY_NONE ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
  if (options->verify == ALOOP_TLS_VERIFY_OPTIONAL) mode = SSL_VERIFY_PEER;
  if (options->verify == ALOOP_TLS_VERIFY_REQUIRED) mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(context->ctx, mode, NULL);
  return rc;
}

/* ---- Versions and ciphers -------------------------------------------------------------------------------- */

static int set_up_ciphers(context_t *context, const aloop_tls_options_t *options) {
  SSL_CTX *ctx = context->ctx;
  int oldest = options->min_version != 0 ? options->min_version : TLS1_2_VERSION;
  if (SSL_CTX_set_min_proto_version(ctx, oldest) != 1 ||
      SSL_CTX_set_max_proto_version(ctx, options->max_version) != 1)
    return say(options, ALOOP_ETLS, "TLS versions", NULL);
  if (options->ciphers != NULL && SSL_CTX_set_cipher_list(ctx, options->ciphers) != 1)
    return say(options, ALOOP_ETLS, "ciphers", options->ciphers);
  if (options->ciphersuites != NULL && SSL_CTX_set_ciphersuites(ctx, options->ciphersuites) != 1)
    return say(options, ALOOP_ETLS, "ciphersuites", options->ciphersuites);
  return 0;
}

static void set_up_behaviour(context_t *context) {
  SSL_CTX *ctx = context->ctx;
  SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_info_callback(ctx, aloop__openssl_state);
  SSL_CTX_set_read_ahead(ctx, 1);
}

/* ---- ALPN ------------------------------------------------------------------------------------------------ */

static bool is_offered(const unsigned char *offer, unsigned size, const unsigned char *wanted) {
  for (unsigned at = 0; at < size && offer[at] < size - at; at += offer[at] + 1u)
    if (offer[at] == wanted[0] && memcmp(offer + at + 1, wanted + 1, wanted[0]) == 0) return true;
  return false;
}

/* The server's order counts. */
static int choose_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_size,
                       const unsigned char *offer, unsigned size, void *arg) {
  (void)ssl;
  const context_t *context = arg;
  for (unsigned at = 0; at < context->alpn_size; at += context->alpn[at] + 1u) {
    if (!is_offered(offer, size, context->alpn + at)) continue;
    *chosen = context->alpn + at + 1;
    *chosen_size = context->alpn[at];
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int set_up_alpn(context_t *context, const aloop_tls_options_t *options) {
  size_t total = 0;
  for (size_t i = 0; i < options->alpn_count; i++) total += strlen(options->alpn[i]) + 1;
  if (total == 0) return 0;
  context->alpn = malloc(total);
  if (context->alpn == NULL) return ALOOP_ENOMEM;
  for (size_t i = 0; i < options->alpn_count; i++) {
    size_t size = strlen(options->alpn[i]);
    context->alpn[context->alpn_size] = (unsigned char)size;
    memcpy(context->alpn + context->alpn_size + 1, options->alpn[i], size);
    context->alpn_size += (unsigned)size + 1;
  }
  if (context->role == ALOOP_TLS_SERVER)
    SSL_CTX_set_alpn_select_cb(context->ctx, choose_alpn, context);
  else if (SSL_CTX_set_alpn_protos(context->ctx, context->alpn, context->alpn_size) != 0)
    return ALOOP_ENOMEM;
  return 0;
}

/* ---- Names ----------------------------------------------------------------------------------------------- */

/* The host name of the extension's body (RFC 6066): a list of names, each with a type and a size. */
static bool parse_name(const unsigned char *data, size_t size, char *name, size_t room) {
  if (size < 5 || (size_t)(data[0] << 8 | data[1]) != size - 2 || data[2] != TLSEXT_NAMETYPE_host_name)
    return false;
  size_t length = (size_t)(data[3] << 8 | data[4]);
  if (length == 0 || length > size - 5 || length >= room || memchr(data + 5, 0, length) != NULL) return false;
  memcpy(name, data + 5, length);
  name[length] = '\0';
  return true;
}

/* Everything that a session has copied from its first context. */
static void move_to(SSL *ssl, SSL_CTX *ctx) {
  SSL_set_SSL_CTX(ssl, ctx);
  SSL_set_verify(ssl, SSL_CTX_get_verify_mode(ctx), NULL);
  SSL_clear_options(ssl, SSL_get_options(ssl) & ~SSL_CTX_get_options(ctx));
  SSL_set_options(ssl, SSL_CTX_get_options(ctx));
  SSL_set_min_proto_version(ssl, (int)SSL_CTX_get_min_proto_version(ctx));
  SSL_set_max_proto_version(ssl, (int)SSL_CTX_get_max_proto_version(ctx));
  SSL_set_num_tickets(ssl, SSL_CTX_get_num_tickets(ctx));
}

static int hello(SSL *ssl, int *alert, void *arg) {
  (void)alert, (void)arg;
  enum { ROOM = 256 };
  char name[ROOM];
  const unsigned char *data;
  size_t size;
  session_t *session = SSL_get_app_data(ssl);
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &data, &size) != 1)
    return SSL_CLIENT_HELLO_SUCCESS;
  if (session->choose == NULL || !parse_name(data, size, name, sizeof name)) return SSL_CLIENT_HELLO_SUCCESS;
  const context_t *other = session->choose(session->arg, name);
  session->choose = NULL;
  if (other != NULL) move_to(ssl, other->ctx);
  return SSL_CLIENT_HELLO_SUCCESS;
}

/* So that the client hears that its name was heard. */
static int acknowledge(SSL *ssl, int *alert, void *arg) {
  (void)ssl, (void)alert, (void)arg;
  return SSL_TLSEXT_ERR_OK;
}

/* ---- Sessions that may be resumed ------------------------------------------------------------------------ */

static int set_up_server_sessions(context_t *context, const aloop_tls_options_t *options) {
  SSL_CTX *ctx = context->ctx;
  unsigned char id[ID_SIZE];
  if (options->ticket_key != NULL)
    memcpy(id, options->ticket_key, sizeof id);
  else if (RAND_bytes(id, sizeof id) != 1)
    return say(options, ALOOP_ETLS, "random numbers", NULL);
  if (SSL_CTX_set_session_id_context(ctx, id, sizeof id) != 1) return ALOOP_ENOMEM;
  if (options->tickets < 0) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  }
  SSL_CTX_set_num_tickets(ctx, options->tickets < 0   ? 0
                               : options->tickets > 0 ? (size_t)options->tickets
                                                      : TICKETS);
  if (options->ticket_key != NULL &&
      SSL_CTX_set_tlsext_ticket_keys(ctx, (void *)options->ticket_key, (long)options->ticket_key_size) != 1)
    return say(options, ALOOP_ETLS, "ticket key", NULL);
  SSL_CTX_set_client_hello_cb(ctx, hello, NULL);
  SSL_CTX_set_tlsext_servername_callback(ctx, acknowledge);
  return 0;
}

static void set_up_client_sessions(context_t *context, const aloop_tls_options_t *options) {
  context->cache.max = options->session_cache < 0   ? 0
                       : options->session_cache > 0 ? options->session_cache
                                                    : SESSIONS;
  if (context->cache.max == 0) return;
  SSL_CTX_set_session_cache_mode(context->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context->ctx, aloop__openssl_keep);
}

/* ---- The key log ----------------------------------------------------------------------------------------- */

/* One write per line, so that several processes may share the file. */
static void log_key(const SSL *ssl, const char *line) {
  enum { ROOM = 512 };
  char text[ROOM];
  const context_t *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
  if (context->kernel) aloop__openssl_kernel_note(ssl, line);
  if (context->keylog < 0) return;
  int n = snprintf(text, sizeof text, "%s\n", line);
  if (n > 0 && n < ROOM && write(context->keylog, text, (size_t)n) < 0) ERR_clear_error();
  OPENSSL_cleanse(text, sizeof text);
}

static int set_up_keylog(context_t *context, const aloop_tls_options_t *options) {
  if (options->keylog_file == NULL && !context->kernel) return 0;
  if (options->keylog_file != NULL)
    context->keylog = open(options->keylog_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (options->keylog_file != NULL && context->keylog < 0)
    return say(options, -errno, "key log", options->keylog_file);
  if (SSL_CTX_set_app_data(context->ctx, context) != 1) return ALOOP_ENOMEM;
  SSL_CTX_set_keylog_callback(context->ctx, log_key);
  return 0;
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

void aloop__openssl_context_free(void *arg) {
  context_t *context = arg;
  SSL_CTX_free(context->ctx);
  BIO_meth_free(context->bio);
  aloop__openssl_forget(&context->cache);
  pthread_mutex_destroy(&context->cache.lock);
  if (context->keylog >= 0) close(context->keylog);
  free(context->alpn);
  free(context);
}

static int set_up(context_t *context, const aloop_tls_options_t *options) {
  context->bio = aloop__openssl_bio();
  context->ctx = SSL_CTX_new(TLS_method());
  if (context->bio == NULL || context->ctx == NULL) return ALOOP_ENOMEM;
  set_up_behaviour(context);
  int rc = set_up_ciphers(context, options);
  if (rc == 0) rc = load_certificate(context, options);
  if (rc == 0) rc = load_key(context, options);
  if (rc == 0) rc = set_up_trust(context, options);
  if (rc == 0) rc = set_up_alpn(context, options);
  if (rc == 0) rc = set_up_keylog(context, options);
  if (rc == 0 && context->role == ALOOP_TLS_SERVER) rc = set_up_server_sessions(context, options);
  if (rc == 0 && context->role == ALOOP_TLS_CLIENT) set_up_client_sessions(context, options);
  return rc;
}

int aloop__openssl_context_new(const aloop_tls_options_t *options, void **made) {
  context_t *context = calloc(1, sizeof *context);
  if (context == NULL) return ALOOP_ENOMEM;
  context->role = options->role;
  context->verify = options->verify;
  context->keylog = -1;
  context->kernel = options->kernel >= 0;
  pthread_mutex_init(&context->cache.lock, NULL);
  ERR_clear_error();
  int rc = set_up(context, options);
  ERR_clear_error();
  if (rc < 0)
    aloop__openssl_context_free(context);
  else
    *made = context;
  return rc;
}
