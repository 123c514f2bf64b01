/* SPDX-License-Identifier: MIT
 *
 * Certificates of tests, made by OpenSSL in memory: a certificate authority that signs whatever it is told.
 */
#ifndef CERTS_H
#define CERTS_H

#include <stddef.h>

enum { PEM_MAX = 4096 };

typedef struct cert {
  char pem[PEM_MAX]; /* the certificate */
  char key[PEM_MAX];
  void *x509;
  void *pkey;
} cert_t;

/* Signed by itself. */
void cert_make_ca(cert_t *ca, const char *name);

/* For "DNS:a.test,IP:127.0.0.1"; valid for `days` days from now, which may be negative: it has expired then. A NULL
 * ca: signed by itself. */
void cert_issue(cert_t *cert, const cert_t *ca, const char *names, int days);

/* The key, with a password. */
void cert_encrypt(const cert_t *cert, const char *password, char into[PEM_MAX]);

/* A list that says that `cert` is revoked (NULL: none is). */
void cert_revoke(const cert_t *ca, const cert_t *cert, char into[PEM_MAX]);

void cert_free(cert_t *cert);

#endif
