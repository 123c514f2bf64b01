/* SPDX-License-Identifier: MIT
 *
 * HTTP dates. strftime and strptime would do, but they speak the language of the locale, and HTTP speaks
 * English. Days are counted with years that start in March, which puts the leap day at the end and makes the
 * calendar a matter of divisions.
 */
#include "date.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char days[] = "SunMonTueWedThuFriSat";
static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

typedef struct moment {
  int64_t year;
  int month; /* 0..11 */
  int day, hour, minute, second;
} moment_t;

/* Days from 1970-01-01 to the given day of the Gregorian calendar. */
static int64_t days_of(int64_t year, int month, int day) {
  if (month < 2) year--;
  int64_t era = (year >= 0 ? year : year - 399) / 400;
  int64_t year_of_era = year - era * 400;
  int64_t day_of_year = (153 * ((month + 10) % 12) + 2) / 5 + day - 1;
  return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

void http_date_format(int64_t seconds, char text[HTTP_DATE_SIZE]) {
  const int64_t first = -62167219200, last = 253402300799; /* 0000-01-01 and the end of 9999 */
  if (seconds < first) seconds = first;
  if (seconds > last) seconds = last;
  time_t time = (time_t)seconds;
  struct tm tm;
  gmtime_r(&time, &tm);
  snprintf(text, HTTP_DATE_SIZE, "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT", days + 3 * tm.tm_wday,
           (unsigned)tm.tm_mday % 100, months + 3 * tm.tm_mon, (unsigned)(tm.tm_year + 1900) % 10000,
           (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100);
}

const char *http_date_now(void) {
  static _Thread_local char text[HTTP_DATE_SIZE];
  static _Thread_local time_t written = -1;
  time_t now = time(NULL);
  if (now != written) {
    http_date_format(now, text);
    written = now;
  }
  return text;
}

/* Takes `count` digits. */
static bool take_number(const char **text, int count, int *number) {
  int value = 0;
  for (int i = 0; i < count; i++) {
    char c = (*text)[i];
    if (c < '0' || c > '9') return false;
    value = value * 10 + (c - '0');
  }
  *text += count;
  *number = value;
  return true;
}

static bool take_literal(const char **text, const char *literal) {
  size_t size = strlen(literal);
  if (strncmp(*text, literal, size) != 0) return false;
  *text += size;
  return true;
}

static bool take_month(const char **text, int *month) {
  for (int i = 0; i < 12; i++) {
    if (strncmp(*text, months + 3 * i, 3) != 0) continue;
    *text += 3;
    *month = i;
    return true;
  }
  return false;
}

static bool take_clock(const char **text, moment_t *at) {
  return take_number(text, 2, &at->hour) && take_literal(text, ":") && take_number(text, 2, &at->minute) &&
         take_literal(text, ":") && take_number(text, 2, &at->second);
}

/* "06 Nov 1994 08:49:37 GMT", after the name of the day */
static bool take_fixdate(const char *text, moment_t *at) {
  int year;
  if (!take_number(&text, 2, &at->day) || !take_literal(&text, " ") || !take_month(&text, &at->month))
    return false;
  if (!take_literal(&text, " ") || !take_number(&text, 4, &year) || !take_literal(&text, " ")) return false;
  at->year = year;
  return take_clock(&text, at) && take_literal(&text, " GMT") && *text == '\0';
}

/* "06-Nov-94 08:49:37 GMT": a year that seems more than 50 years ahead is the last one that ended in those
 * digits. */
static bool take_rfc850(const char *text, moment_t *at, int64_t now) {
  int year;
  if (!take_number(&text, 2, &at->day) || !take_literal(&text, "-") || !take_month(&text, &at->month))
    return false;
  if (!take_literal(&text, "-") || !take_number(&text, 2, &year) || !take_literal(&text, " ")) return false;
  int64_t this_year = 1970 + now / 31556952;
  at->year = this_year - this_year % 100 + year;
  if (at->year > this_year + 50) at->year -= 100;
  return take_clock(&text, at) && take_literal(&text, " GMT") && *text == '\0';
}

/* "Nov  6 08:49:37 1994" */
static bool take_asctime(const char *text, moment_t *at) {
  int year;
  if (!take_month(&text, &at->month) || !take_literal(&text, " ")) return false;
  int digits = *text == ' ' ? 1 : 2;
  if (digits == 1) text++;
  if (!take_number(&text, digits, &at->day) || !take_literal(&text, " ") || !take_clock(&text, at))
    return false;
  if (!take_literal(&text, " ") || !take_number(&text, 4, &year)) return false;
  at->year = year;
  return *text == '\0';
}

int64_t http_date_parse(const char *text, int64_t now) {
  moment_t at = {0};
  size_t name = strcspn(text, ", ");
  if (name < 3) return HTTP_DATE_NONE;
  const char *rest = text + name;
  bool good = (take_literal(&rest, ", ") && (take_fixdate(rest, &at) || take_rfc850(rest, &at, now))) ||
              (take_literal(&rest, " ") && take_asctime(rest, &at));
  if (!good || at.day < 1 || at.day > 31 || at.hour > 23 || at.minute > 59 || at.second > 60)
    return HTTP_DATE_NONE;
  return days_of(at.year, at.month, at.day) * 86400 + at.hour * 3600 + at.minute * 60 + at.second;
}
