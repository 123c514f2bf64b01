/* SPDX-License-Identifier: MIT
 *
 * What example servers need for --tls CERTIFICATE KEY and --kernel-tls WHEN. The engine is a library of its own (libaloop-openssl), so
 * a build without OpenSSL has servers without TLS, which say so.
 */
#ifndef EXAMPLES_TLS_H
#define EXAMPLES_TLS_H

#include <getopt.h>

#include "common.h"

typedef struct tls_files {
  const char *certificate, *key;
  int64_t kernel; /* as in aloop_tls_options_t */
} tls_files_t;

/* The two arguments of --tls, of which getopt knows the first. */
static inline void read_tls_files(int argc, char **argv, tls_files_t *files) {
  files->certificate = optarg;
  files->key = optind < argc ? argv[optind++] : NULL;
  if (files->key != NULL) return;
  fprintf(stderr, "--tls needs two files: --tls CERTIFICATE KEY\n");
  exit(2);
}

/* The argument of --kernel-tls. */
static inline void read_kernel_tls(tls_files_t *files) {
  files->kernel = strcmp(optarg, "always") == 0 ? 1 : -1;
  if (files->kernel == 1 || strcmp(optarg, "never") == 0) return;
  fprintf(stderr, "--kernel-tls is \"always\" or \"never\"\n");
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
                                 .message_size = sizeof message,
                                 .kernel = files->kernel};
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
