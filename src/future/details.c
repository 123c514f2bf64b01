/* SPDX-License-Identifier: MIT
 *
 * What few futures have: a message, the addresses that were tried in vain, children. It lies in a block of its
 * own, which is made when it is first needed, so that a plain future stays at two cache lines, and the calls
 * that make and end one need not look at any of this. Where there is no memory for a message, or for one more
 * address, it is left out: a future ends in any case, and the code of its error never needs memory.
 *
 * Noting an address is O(1) but for the copying when the array grows; all else is O(1), releasing O(children).
 */
#include <string.h>

#include "core/memory.h"
#include "core/report.h"
#include "future/future.h"

int aloop__future_enter_slowly(const aloop_future_t *future) {
  if (future != NULL) return aloop__loop_thread(future->object.loop);
  return aloop__misuse(NULL, ALOOP_EINVAL, "the future is NULL");
}

static aloop__future_extra_t *extra_of(aloop_future_t *future) {
  if (future->extra == NULL) future->extra = aloop__memory_zero(future->object.loop, sizeof *future->extra);
  return future->extra;
}

void aloop__future_set_message(aloop_future_t *future, const char *message) {
  if (message == NULL && future->extra == NULL) return;
  aloop__future_extra_t *extra = extra_of(future);
  if (extra == NULL) return;
  aloop__memory_release(future->object.loop, extra->message);
  extra->message = message != NULL ? aloop__memory_string(future->object.loop, message) : NULL;
}

void aloop__future_add_attempt(aloop_future_t *future, const struct sockaddr *address, socklen_t size,
                               int error) {
  aloop__future_extra_t *extra = future != NULL ? extra_of(future) : NULL;
  if (extra == NULL || size > sizeof(struct sockaddr_storage)) return;
  aloop_attempt_t *attempts = aloop__memory_resize(future->object.loop, extra->attempts,
                                                   (extra->attempts_count + 1) * sizeof *attempts);
  if (attempts == NULL) return;
  extra->attempts = attempts;
  aloop_attempt_t *attempt = &attempts[extra->attempts_count++];
  memset(attempt, 0, sizeof *attempt);
  memcpy(&attempt->address, address, size);
  attempt->address_size = size;
  attempt->error = error;
}

void aloop__future_release_extra(aloop_t *loop, aloop__future_extra_t *extra) {
  for (size_t i = 0; i < extra->children_count; i++) aloop_future_unref(extra->children[i]);
  aloop__memory_release(loop, extra->message);
  aloop__memory_release(loop, extra->attempts);
  aloop__memory_release(loop, extra);
}

const char *aloop_future_message(aloop_future_t *future) {
  if (aloop__future_enter(future) < 0 || future->state != ALOOP__FAILED) return "";
  future->unread = false;
  const aloop_future_t *from = aloop__future_source(future);
  if (from->extra != NULL && from->extra->message != NULL) return from->extra->message;
  return aloop_strerror(future->value);
}

int aloop_future_attempt(const aloop_future_t *future, size_t index, aloop_attempt_t *attempt) {
  int rc = aloop__future_enter(future);
  if (rc < 0) return rc;
  if (attempt == NULL)
    return aloop__misuse(future->object.loop, ALOOP_EINVAL, "an attempt needs a place to go to");
  const aloop__future_extra_t *extra = aloop__future_source(future)->extra;
  if (extra == NULL || index >= extra->attempts_count) return ALOOP_ENOENT;
  *attempt = extra->attempts[index];
  return 0;
}

aloop_future_t *aloop_future_child(const aloop_future_t *future, size_t index) {
  const aloop__future_extra_t *extra = aloop__future_enter(future) == 0 ? future->extra : NULL;
  return extra != NULL && index < extra->children_count ? extra->children[index] : NULL;
}
