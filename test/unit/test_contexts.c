/* SPDX-License-Identifier: MIT
 *
 * TLS contexts: counting, names, and several threads at once. threads: yes
 */
#include "mocktls.h"

#include <pthread.h>
#include <string.h>

#include "tls/tls.h"

static const char *chosen(aloop_tls_context_t *context, const char *name, aloop_tls_context_t *const *known) {
  static const char *const letters[] = {"a", "b", "c"};
  aloop_tls_context_t *found = aloop__tls_context_for(context, name);
  const char *letter = "none";
  for (int i = 0; i < 3; i++)
    if (found == known[i]) letter = letters[i];
  aloop_tls_context_unref(found);
  return letter;
}

static void names_lead_to_contexts(void **state) {
  (void)state;
  mock_begin();
  aloop_tls_context_t *self = mock_context(ALOOP_TLS_SERVER), *known[3];
  for (int i = 0; i < 3; i++) known[i] = mock_context(ALOOP_TLS_SERVER);
  assert_int_equal(aloop_tls_context_add_name(self, "a.test", known[0]), 0);
  assert_int_equal(aloop_tls_context_add_name(self, "*.b.test", known[1]), 0);
  assert_int_equal(aloop_tls_context_add_name(self, "c.b.test", known[2]), 0);
  assert_string_equal(chosen(self, "a.test", known), "a");
  assert_string_equal(chosen(self, "A.Test", known), "a");
  assert_string_equal(chosen(self, "x.b.test", known), "b");
  assert_string_equal(chosen(self, "c.b.test", known), "c");
  assert_string_equal(chosen(self, "b.test", known), "none");
  assert_string_equal(chosen(self, "x.y.b.test", known), "none");
  assert_string_equal(chosen(self, ".b.test", known), "none");
  assert_string_equal(chosen(self, "*.b.test", known), "b");
  assert_string_equal(chosen(self, "", known), "none");
  assert_int_equal(aloop_tls_context_add_name(self, "A.TEST", known[2]), 0);
  assert_string_equal(chosen(self, "a.test", known), "c");
  assert_int_equal(aloop_tls_context_add_name(self, "a.test", NULL), 0);
  assert_string_equal(chosen(self, "a.test", known), "none");
  assert_int_equal(aloop_tls_context_add_name(self, "a.test", NULL), ALOOP_ENOENT);
  for (int i = 0; i < 3; i++) aloop_tls_context_unref(known[i]);
  assert_int_equal(mock.contexts, 3); /* the first has no name any more */
  aloop_tls_context_unref(self);
  assert_int_equal(mock.contexts, 0);
}

static void options_of_the_wrong_kind_are_explained(void **state) {
  (void)state;
  char text[64];
  aloop_tls_context_t *context = NULL;
  aloop_tls_options_t options = {
      .size = sizeof options, .role = ALOOP_TLS_SERVER, .message = text, .message_size = sizeof text};
  assert_int_equal(aloop_tls_context_new(&mock_engine, &options, &context), ALOOP_EINVAL);
  assert_non_null(strstr(text, "certificate_file"));
  options.message_size = 9;
  assert_int_equal(aloop_tls_context_new(&mock_engine, &options, &context), ALOOP_EINVAL);
  assert_string_equal(text, "a server");
  assert_null(context);
}

static void *use(void *arg) {
  aloop_tls_context_t *context = arg;
  for (int i = 0; i < 2000; i++) {
    aloop_tls_context_t *other = aloop__tls_context_for(context, i % 2 == 0 ? "a.test" : "x.test");
    aloop_tls_context_ref(context);
    aloop_tls_context_unref(context);
    aloop_tls_context_unref(other);
  }
  aloop_tls_context_unref(context);
  return NULL;
}

static void threads_share_contexts(void **state) {
  (void)state;
  enum { THREADS = 3 };
  pthread_t threads[THREADS];
  mock_begin();
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER), *other = mock_context(ALOOP_TLS_SERVER);
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, use, aloop_tls_context_ref(context)), 0);
  for (int i = 0; i < 500; i++) aloop_tls_context_add_name(context, "a.test", i % 3 == 0 ? NULL : other);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  aloop_tls_context_unref(other);
  aloop_tls_context_unref(context);
  assert_int_equal(mock.contexts, 0);
}

TESTS(T(names_lead_to_contexts), T(options_of_the_wrong_kind_are_explained), T(threads_share_contexts))
