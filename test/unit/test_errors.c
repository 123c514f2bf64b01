/* SPDX-License-Identifier: MIT
 *
 * Error codes: each has a name, a text and a value of its own.
 */
#include "harness.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const struct {
  int code;
  const char *name;
  const char *text;
} codes[] = {
#define CODE(name, value, text) {ALOOP_##name, #name, text},
    ALOOP_SYSTEM_ERRORS(CODE) ALOOP_OWN_ERRORS(CODE)
#undef CODE
};

enum { CODES = sizeof codes / sizeof codes[0] };

static void every_code_has_a_name_and_a_text(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++) {
    assert_true(codes[i].code < 0);
    assert_string_equal(aloop_error_name(codes[i].code), codes[i].name);
    assert_string_equal(aloop_strerror(codes[i].code), codes[i].text);
  }
}

static void no_two_codes_are_the_same(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++)
    for (int j = 0; j < i; j++) {
      assert_int_not_equal(codes[i].code, codes[j].code);
      assert_string_not_equal(codes[i].name, codes[j].name);
      assert_string_not_equal(codes[i].text, codes[j].text);
    }
}

static void texts_fit_into_a_sentence(void **state) {
  (void)state;
  for (int i = 0; i < CODES; i++) {
    const char *text = codes[i].text;
    assert_true(islower((unsigned char)text[0]) || isupper((unsigned char)text[1]));
    assert_true(text[strlen(text) - 1] != '.');
  }
}

static void system_codes_are_negated_errno_values(void **state) {
  (void)state;
  assert_int_equal(ALOOP_EINVAL, -EINVAL);
  assert_int_equal(ALOOP_ECONNREFUSED, -ECONNREFUSED);
  assert_int_equal(ALOOP_ETIMEDOUT, -ETIMEDOUT);
  assert_int_equal(ALOOP_OK, 0);
}

static void other_errno_values_have_a_text_but_no_name(void **state) {
  (void)state;
  assert_string_equal(aloop_strerror(-EXDEV), strerror(EXDEV));
  assert_string_equal(aloop_error_name(-EXDEV), "UNKNOWN");
}

static void nonsense_has_a_text_too(void **state) {
  (void)state;
  int64_t nonsense[] = {-3999, -4000, -4999, INT32_MIN, INT64_MIN, -1000000000000};
  for (int i = 0; i < 6; i++) {
    assert_true(strlen(aloop_strerror(nonsense[i])) > 0);
    assert_string_equal(aloop_error_name(nonsense[i]), "UNKNOWN");
  }
}

static void success_is_no_error(void **state) {
  (void)state;
  assert_string_equal(aloop_error_name(0), "OK");
  assert_string_equal(aloop_strerror(0), "no error");
  assert_string_equal(aloop_strerror(17), "no error");
  assert_string_equal(aloop_error_name(17), "UNKNOWN");
}

static void asking_leaves_errno_alone(void **state) {
  (void)state;
  errno = ENOSPC;
  aloop_strerror(-EXDEV);
  aloop_strerror(-3999);
  aloop_error_name(-1);
  assert_int_equal(errno, ENOSPC);
}

static void the_version_is_that_of_the_header(void **state) {
  (void)state;
  char version[40];
  snprintf(version, sizeof version, "%d.%d.%d", ALOOP_VERSION_MAJOR, ALOOP_VERSION_MINOR, ALOOP_VERSION_PATCH);
  assert_string_equal(aloop_version(), version);
}

TESTS(T(every_code_has_a_name_and_a_text), T(no_two_codes_are_the_same), T(texts_fit_into_a_sentence),
      T(system_codes_are_negated_errno_values), T(other_errno_values_have_a_text_but_no_name),
      T(nonsense_has_a_text_too), T(success_is_no_error), T(asking_leaves_errno_alone),
      T(the_version_is_that_of_the_header))
