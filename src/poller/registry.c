/* SPDX-License-Identifier: MIT
 *
 * The list of built-in pollers, best first. Which ones exist is decided when the library is built; whether the
 * running kernel has them is known when one is opened (ALOOP_ENOTSUP). "auto" is the first of the list: epoll
 * on Linux, kqueue on the BSDs and macOS, poll elsewhere. A program can only get the virtual poller by asking
 * for it.
 */
#include "poller/poller.h"
#include "poller/ring.h"

static const aloop_poller_t *const tables[] = {
#ifdef ALOOP_HAVE_EPOLL
    &aloop__poller_epoll,
#endif
#ifdef ALOOP_HAVE_IO_URING
    &aloop__poller_uring,
#endif
#ifdef ALOOP_HAVE_KQUEUE
    &aloop__poller_kqueue,
#endif
    &aloop__poller_poll,   &aloop__poller_select, &aloop__poller_virtual,
};

static const char *const names[] = {
#ifdef ALOOP_HAVE_EPOLL
    "epoll",
#endif
#ifdef ALOOP_HAVE_IO_URING
    "uring",
#endif
#ifdef ALOOP_HAVE_KQUEUE
    "kqueue",
#endif
    "poll",   "select", "virtual", NULL,
};

const char *aloop__poller_missing(const aloop_poller_t *table) {
#ifdef ALOOP_HAVE_IO_URING
  if (table == &aloop__poller_uring) return aloop__ring_missing();
#endif
  (void)table;
  return NULL;
}

const aloop_poller_t *aloop_poller_find(const char *name) {
  if (name == NULL || strcmp(name, "auto") == 0) return tables[0];
  for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
    if (strcmp(tables[i]->name, name) == 0) return tables[i];
  return NULL;
}

const char *const *aloop_poller_names(void) {
  return names;
}
