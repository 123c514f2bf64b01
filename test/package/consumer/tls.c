/* SPDX-License-Identifier: MIT
 *
 * The smallest program that needs the second library: it makes a context for clients. Built as C11 and as C++17 too.
 */
#include <aloop.h>

#include <stdio.h>
#include <string.h>

int main(void) {
  aloop_tls_options_t options;
  aloop_tls_context_t *context = NULL;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.system_ca = -1;
  int error = aloop_tls_context_new(aloop_tls_openssl(), &options, &context);
  if (error < 0) return 1;
  printf("%s for aloop %s\n", aloop_tls_openssl()->name, aloop_version());
  aloop_tls_context_unref(context);
  return 0;
}
