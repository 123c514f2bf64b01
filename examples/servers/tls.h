/* SPDX-License-Identifier: MIT
 *
 * What example servers need for --tls CERTIFICATE KEY. The engine is a library of its own (libaloop-openssl), so
 * a build without OpenSSL has servers without TLS, which say so.
 */
#ifndef EXAMPLES_TLS_H
#define EXAMPLES_TLS_H

#include <getopt.h>

#include "common.h"

/* The two arguments of --tls, of which getopt knows the first. */
typedef struct tls_files {
  const char *certificate, *key;
} tls_files_t;

static inline tls_files_t read_tls_files(int argc, char **argv) {
  tls_files_t files = {optarg, optind < argc ? argv[optind++] : NULL};
  if (files.key != NULL) return files;
  fprintf(stderr, "--tls needs two files: --tls CERTIFICATE KEY\n");
  exit(2);
}

/* NULL without files; ends the program if they cannot be used. */
static inline aloop_tls_context_t *make_tls_context(const tls_files_t *files, const char *const *alpn,
                                                    size_t alpn_count) {
  if (files->certificate == NULL) return NULL;
#if EXAMPLES_OPENSSL
  char message[256] = "";
  aloop_tls_context_t *context;
  aloop_tls_options_t options = {.size = sizeof options,
                                 .role = ALOOP_TLS_SERVER,
                                 .certificate_file = files->certificate,
                                 .key_file = files->key,
                                 .alpn = alpn,
                                 .alpn_count = alpn_count,
                                 .message = message,
                                 .message_size = sizeof message};
  int error = aloop_tls_context_new(aloop_tls_openssl(), &options, &context);
  if (error == 0) return context;
  fprintf(stderr, "cannot use TLS: %s\n", message[0] != '\0' ? message : aloop_strerror(error));
#else
  (void)alpn, (void)alpn_count;
  fprintf(stderr, "cannot use TLS: built without OpenSSL\n");
#endif
  exit(1);
}

#endif
