/* SPDX-License-Identifier: MIT
 *
 * The OpenSSL engine as its own files see it. It uses nothing of libaloop but the public header's types, as an
 * engine of anybody else's would.
 */
#ifndef ALOOP_TLS_OPENSSL_OPENSSL_H
#define ALOOP_TLS_OPENSSL_OPENSSL_H

#include <openssl/ssl.h>
#include <pthread.h>

#include "aloop.h"

typedef struct aloop__openssl_ticket aloop__openssl_ticket_t;

/* Sessions of a client that may be resumed (resume.c). */
typedef struct aloop__openssl_cache {
  pthread_mutex_t lock;
  aloop__openssl_ticket_t *first; /* the newest */
  int64_t count;
  int64_t max; /* 0: none are kept */
} aloop__openssl_cache_t;

typedef struct aloop__openssl_context {
  SSL_CTX *ctx;
  BIO_METHOD *bio;
  int role;
  int verify;
  unsigned char *alpn; /* as in the handshake: each with its size before it */
  unsigned alpn_size;
  int keylog;  /* a descriptor, or -1 */
  bool kernel; /* it may encrypt what is sent */
  aloop__openssl_cache_t cache;
} aloop__openssl_context_t;

typedef struct aloop__openssl_session {
  SSL *ssl;
  aloop__openssl_context_t *context;
  aloop_tls_wire_t *wire; /* during a call */
  void *(*choose)(void *arg, const char *name);
  void *arg;
  char *name; /* the server's, of a client */
  char *alpn; /* once asked for */
  unsigned char **ders;
  size_t ders_count;
  unsigned long error; /* OpenSSL's, of the call that failed */
  int failure;         /* of output(), or record() */
  bool shaken;
  bool clears;      /* SSL_OP_CLEANSE_PLAINTEXT is set */
  bool dirty;       /* the read buffer has plaintext that was not cleared */
  bool offloaded;   /* the kernel has the write keys */
  uint64_t records; /* sent with them so far */
  size_t secret_size;
  unsigned char secret[EVP_MAX_MD_SIZE]; /* of TLS 1.3, from which they come */
} aloop__openssl_session_t;

/* context.c */
int aloop__openssl_context_new(const aloop_tls_options_t *options, void **context);
void aloop__openssl_context_free(void *context);

/* session.c: of the BIO; and a buffer may be replaced in the midst of a read. */
void aloop__openssl_state(const SSL *ssl, int where, int rc);
BIO_METHOD *aloop__openssl_bio(void);
int aloop__openssl_session_new(void *context, const aloop_tls_session_t *how, void **session);
void aloop__openssl_session_free(void *session);
int aloop__openssl_handshake(void *session, aloop_tls_wire_t *wire);
ssize_t aloop__openssl_read(void *session, aloop_tls_wire_t *wire, void *buffer, size_t size);
int aloop__openssl_write(void *session, aloop_tls_wire_t *wire, const void *data, size_t size);
int aloop__openssl_shutdown(void *session, aloop_tls_wire_t *wire);
bool aloop__openssl_pending(void *session);
bool aloop__openssl_half_close(void *session);

/* info.c */
void aloop__openssl_reason(void *session, char *text, size_t size);
void aloop__openssl_info(void *session, aloop_tls_info_t *info);
int aloop__openssl_certificate(void *session, size_t index, const void **der, size_t *size);
int aloop__openssl_binding(void *session, const char *type, void *data, size_t *size);

/* kernel.c: sees what is sent, from the first message on; notes a line of the key log; answers a peer that
 * wants new keys. */
void aloop__openssl_kernel_watch(aloop__openssl_session_t *session);
void aloop__openssl_kernel_note(const SSL *ssl, const char *line);
int aloop__openssl_kernel_answer(aloop__openssl_session_t *session);
int aloop__openssl_offload(void *session, aloop_tls_wire_t *wire);

/* resume.c: takes a session for the name out of the cache, if there is one; keeps one; drops all. */
void aloop__openssl_resume(aloop__openssl_session_t *session);
int aloop__openssl_keep(SSL *ssl, SSL_SESSION *ticket);
void aloop__openssl_forget(aloop__openssl_cache_t *cache);

#endif
