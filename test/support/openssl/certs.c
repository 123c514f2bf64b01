/* SPDX-License-Identifier: MIT
 *
 * Certificates of tests: see certs.h.
 */
#include "certs.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "harness.h"

static EVP_PKEY *make_key(void) {
  EVP_PKEY *key = NULL;
  EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
  assert_int_equal(EVP_PKEY_keygen_init(context), 1);
  assert_int_equal(EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1), 1);
  assert_int_equal(EVP_PKEY_keygen(context, &key), 1);
  EVP_PKEY_CTX_free(context);
  return key;
}

static void take_text(BIO *bio, char into[PEM_MAX]) {
  int size = BIO_read(bio, into, PEM_MAX - 1);
  assert_true(size > 0 && size < PEM_MAX - 1);
  into[size] = '\0';
  BIO_free(bio);
}

static void extend(X509 *x509, int kind, const char *value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, x509, x509, NULL, NULL, 0);
  X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
  assert_non_null(extension);
  X509_add_ext(x509, extension, -1);
  X509_EXTENSION_free(extension);
}

static X509 *begin(EVP_PKEY *key, const char *name, int days) {
  static long serial = 1;
  X509 *x509 = X509_new();
  X509_set_version(x509, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x509), serial++);
  X509_gmtime_adj(X509_getm_notBefore(x509), -10L * 86400);
  X509_gmtime_adj(X509_getm_notAfter(x509), days * 86400L);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                             -1, 0);
  X509_set_pubkey(x509, key);
  return x509;
}

static void finish(cert_t *cert, X509 *x509, EVP_PKEY *key, const cert_t *ca) {
  X509 *issuer = ca != NULL ? ca->x509 : x509;
  X509_set_issuer_name(x509, X509_get_subject_name(issuer));
  assert_true(X509_sign(x509, ca != NULL ? ca->pkey : key, EVP_sha256()) > 0);
  BIO *bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, x509);
  take_text(bio, cert->pem);
  bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
  take_text(bio, cert->key);
  cert->x509 = x509;
  cert->pkey = key;
}

void cert_make_ca(cert_t *ca, const char *name) {
  EVP_PKEY *key = make_key();
  X509 *x509 = begin(key, name, 10);
  extend(x509, NID_basic_constraints, "critical,CA:TRUE");
  extend(x509, NID_key_usage, "critical,keyCertSign,cRLSign");
  finish(ca, x509, key, NULL);
}

void cert_issue(cert_t *cert, const cert_t *ca, const char *names, int days) {
  EVP_PKEY *key = make_key();
  X509 *x509 = begin(key, "test", days);
  extend(x509, NID_basic_constraints, "CA:FALSE");
  extend(x509, NID_subject_alt_name, names);
  finish(cert, x509, key, ca);
}

void cert_encrypt(const cert_t *cert, const char *password, char into[PEM_MAX]) {
  BIO *bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, cert->pkey, EVP_aes_128_cbc(), (unsigned char *)(uintptr_t)password,
                           (int)strlen(password), NULL, NULL);
  take_text(bio, into);
}

void cert_revoke(const cert_t *ca, const cert_t *cert, char into[PEM_MAX]) {
  X509_CRL *crl = X509_CRL_new();
  ASN1_TIME *now = X509_gmtime_adj(NULL, -3600), *later = X509_gmtime_adj(NULL, 86400);
  X509_CRL_set_version(crl, 1);
  X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->x509));
  X509_CRL_set1_lastUpdate(crl, now);
  X509_CRL_set1_nextUpdate(crl, later);
  if (cert != NULL) {
    X509_REVOKED *revoked = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(revoked, X509_get_serialNumber(cert->x509));
    X509_REVOKED_set_revocationDate(revoked, now);
    X509_CRL_add0_revoked(crl, revoked);
  }
  assert_true(X509_CRL_sign(crl, ca->pkey, EVP_sha256()) > 0);
  BIO *bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509_CRL(bio, crl);
  take_text(bio, into);
  ASN1_TIME_free(now);
  ASN1_TIME_free(later);
  X509_CRL_free(crl);
}

void cert_free(cert_t *cert) {
  X509_free(cert->x509);
  EVP_PKEY_free(cert->pkey);
}
