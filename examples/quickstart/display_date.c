/* SPDX-License-Identifier: MIT
 *
 * Shows the date every second, for five seconds or as many as the first argument says. The callback schedules
 * itself anew each time; aloop_call_every would do so by itself.
 *
 * Deadlines are counted from the start, not from "now", so that the beat does not drift however late a callback
 * runs.
 */
#include "aloop.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct display {
  int64_t next; /* when the date is shown again */
  int64_t end;
} display_t;

static void show_date(aloop_t *loop, void *arg) {
  display_t *display = arg;
  char text[32];
  time_t now = time(NULL);
  strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", localtime(&now));
  puts(text);

  display->next += ALOOP_SECONDS(1);
  if (display->next < display->end)
    aloop_call_at(loop, display->next, show_date, display);
  else
    aloop_stop(loop);
}

int main(int argc, char **argv) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  int64_t start = aloop_time(loop);
  int seconds = argc > 1 ? atoi(argv[1]) : 5;
  display_t display = {start, start + ALOOP_SECONDS(seconds)};
  aloop_call_soon(loop, show_date, &display);
  aloop_run_forever(loop);
  aloop_free(loop);
  return 0;
}
