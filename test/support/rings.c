/* SPDX-License-Identifier: MIT
 *
 * See rings.h.
 */
#include "rings.h"

#include <string.h>

#include "net/completion.h"

void use_ring(env_t *env) {
  if (aloop_poller_find("uring") == NULL) skip();
  env_loop(env, (aloop_options_t){.poller = "uring"});
  if (strcmp(aloop_poller_name(env->loop), "uring") != 0) skip();
}

void use_completions(env_t *env) {
  use_ring(env);
#ifdef ALOOP_HAVE_IO_URING
  aloop__net_t *net = aloop__net_open(env->loop);
  assert_non_null(net);
  if (net->driver != &aloop__driver_completion) skip();
#endif
}

void there_is_no_ring_here(void **state) {
  (void)state;
  assert_null(aloop_poller_find("uring"));
}
