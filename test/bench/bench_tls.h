/* SPDX-License-Identifier: MIT
 *
 * What the TLS servers under test share. bench_tls_server.c holds main(); bench_tls_NAME.c implements
 * peer_serve_tls with one event library and OpenSSL. The client, bench_tls.c, starts them as
 *
 *     bench_tls_event echo|http|source|sink CERTIFICATE KEY
 */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bench_tls_work {
  BENCH_TLS_ECHO,   /* what comes goes back */
  BENCH_TLS_HTTP,   /* bench_tls_response for each request */
  BENCH_TLS_SOURCE, /* bench_tls_block again and again, as fast as the client takes it */
  BENCH_TLS_SINK    /* reads and forgets */
} bench_tls_work_t;

enum {
  BENCH_TLS_BACKLOG = 1024,
  BENCH_TLS_BUFFER = 65536, /* bytes that every server reads at once, unless its library decides that */
  BENCH_TLS_BLOCK = 524288  /* bytes that a source writes at once */
};

/* A server on 127.0.0.1, port 0, with OpenSSL's defaults: calls bench_tls_listening, then serves until the
 * process is killed. */
void peer_serve_tls(bench_tls_work_t work, const char *certificate, const char *key);

/* ---- What bench_tls_server.c offers ---------------------------------------------------------------------- */

extern char bench_tls_block[BENCH_TLS_BLOCK];
extern char bench_tls_response[]; /* an answer with a page of 1 KiB */
extern size_t bench_tls_response_size;

/* How many requests end in these bytes of a connection; *state is 0 at first. */
size_t bench_tls_requests(unsigned *state, const char *data, size_t size);

/* Says that the server on this listening socket is ready. */
void bench_tls_listening(int fd);
void bench_tls_nodelay(int fd);
void bench_tls_die(const char *what) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

#endif
