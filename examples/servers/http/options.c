/* SPDX-License-Identifier: MIT
 *
 * Reading the command line: every mistake gets a sentence of its own.
 */
#include <getopt.h>

#include "options.h"

static const char help[] =
    "usage: http [OPTION]...\n"
    "Serves the files beneath a directory over HTTP/1.1, until SIGINT or SIGTERM.\n"
    "\n"
    "  --host HOST             address or name to listen on        (127.0.0.1)\n"
    "  --port PORT             0: the kernel chooses one           (8080)\n"
    "  --port-fallback         take another port if that one is in use\n"
    "  --threads N             loops, each in a thread of its own  (1)\n"
    "  --root DIR              directory to serve                  (.)\n"
    "  --idle-timeout SECONDS  close connections that are silent   (60)\n"
    "  --tls CERTIFICATE KEY   serve HTTPS with these files\n"
    "  --kernel-tls WHEN       always, never: let Linux encrypt it (where it can do all)\n"
    "  --help                  show this and exit\n";

void options_read(int argc, char **argv, options_t *options) {
  static const struct option names[] = {
      {"host", required_argument, NULL, 'h'},    {"port", required_argument, NULL, 'p'},
      {"port-fallback", no_argument, NULL, 'f'}, {"threads", required_argument, NULL, 't'},
      {"root", required_argument, NULL, 'r'},    {"idle-timeout", required_argument, NULL, 'i'},
      {"tls", required_argument, NULL, 'T'},     {"kernel-tls", required_argument, NULL, 'k'},
      {"help", no_argument, NULL, 'H'},          {0},
  };
  *options = (options_t){.host = "127.0.0.1", .port = 8080, .threads = 1, .root = ".", .idle_timeout = 60};
  for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    switch (option) {
    case 'h':
      options->host = optarg;
      break;
    case 'p':
      options->port = parse_number("--port", optarg, 0, 65535);
      break;
    case 'f':
      options->fall_back = true;
      break;
    case 't':
      options->threads = parse_number("--threads", optarg, 1, 256);
      break;
    case 'r':
      options->root = optarg;
      break;
    case 'i':
      options->idle_timeout = parse_number("--idle-timeout", optarg, 1, 86400);
      break;
    case 'T':
      read_tls_files(argc, argv, &options->tls);
      break;
    case 'k':
      read_kernel_tls(&options->tls);
      break;
    case 'H':
      fputs(help, stdout);
      exit(0);
    default:
      fputs("Try \"http --help\".\n", stderr);
      exit(2); /* getopt_long has said what is wrong */
    }
  }
  if (optind == argc) return;
  fprintf(stderr, "http: \"%s\" is no option. Try \"http --help\".\n", argv[optind]);
  exit(2);
}
