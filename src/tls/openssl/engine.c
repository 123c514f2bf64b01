/* SPDX-License-Identifier: MIT
 *
 * The engine table of OpenSSL, the one symbol of its library.
 *
 * OpenSSL is used as a machine without I/O: its BIO (session.c) reads from the bytes that the transport has
 * received, where they lie, and hands records to the transport as they are made. So there are no memory BIOs,
 * and no bytes pile up inside it but those of one unfinished record.
 */
#include "tls/openssl/openssl.h"

static const aloop_tls_engine_t engine = {
    .size = sizeof engine,
    .name = "openssl",
    .context_new = aloop__openssl_context_new,
    .context_free = aloop__openssl_context_free,
    .session_new = aloop__openssl_session_new,
    .session_free = aloop__openssl_session_free,
    .handshake = aloop__openssl_handshake,
    .read = aloop__openssl_read,
    .write = aloop__openssl_write,
    .shutdown = aloop__openssl_shutdown,
    .pending = aloop__openssl_pending,
    .reason = aloop__openssl_reason,
    .info = aloop__openssl_info,
    .certificate = aloop__openssl_certificate,
    .binding = aloop__openssl_binding,
    .half_close = aloop__openssl_half_close,
    .offload = aloop__openssl_offload,
};

const aloop_tls_engine_t *aloop_tls_openssl(void) {
  return &engine;
}
