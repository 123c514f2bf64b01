/* SPDX-License-Identifier: MIT
 *
 * Error codes in words. Both tables are made from the one list in aloop.h, so a code cannot lack a name or a
 * text. Codes of errno values that the list leaves out get the C library's text, from a buffer per thread.
 * Codes are looked up by a switch that the compiler turns into what it likes best; nobody asks for error texts
 * in a hurry.
 */
#include <string.h>

#include "aloop.h"

const char *aloop_version(void) {
  return ALOOP_STRING(ALOOP_VERSION_MAJOR) "." ALOOP_STRING(ALOOP_VERSION_MINOR) "." ALOOP_STRING(
      ALOOP_VERSION_PATCH);
}

static const char *known_text(int64_t error) {
  switch (error) {
#define TEXT(name, value, text)                                                                                \
  case ALOOP_##name:                                                                                           \
    return text;
    ALOOP_SYSTEM_ERRORS(TEXT)
    ALOOP_OWN_ERRORS(TEXT)
#undef TEXT
  default:
    return NULL;
  }
}

const char *aloop_strerror(int64_t error) {
  static _Thread_local char buffer[96];
  if (error >= 0) return "no error";
  const char *text = known_text(error);
  if (text != NULL) return text;
  if (error < -4000) return "unknown error";
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
  return strerror_r((int)-error, buffer, sizeof buffer);
#else
  return strerror_r((int)-error, buffer, sizeof buffer) == 0 ? buffer : "unknown error";
#endif
}

const char *aloop_error_name(int64_t error) {
  switch (error) {
#define NAME(name, value, text)                                                                                \
  case ALOOP_##name:                                                                                           \
    return #name;
    ALOOP_SYSTEM_ERRORS(NAME)
    ALOOP_OWN_ERRORS(NAME)
#undef NAME
  case 0:
    return "OK";
  default:
    return "UNKNOWN";
  }
}
