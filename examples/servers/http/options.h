/* SPDX-License-Identifier: MIT
 *
 * The command line of the HTTP server.
 */
#ifndef HTTP_OPTIONS_H
#define HTTP_OPTIONS_H

#include "../tls.h"

typedef struct options {
  const char *host;
  int port;
  bool fall_back; /* to another port if that one is taken */
  int threads;
  const char *root;
  int idle_timeout; /* seconds */
  tls_files_t tls;
} options_t;

/* Fills in *options. Ends the program after --help, and with status 2 and a message after anything it does not
 * understand. */
void options_read(int argc, char **argv, options_t *options);

#endif
