/* SPDX-License-Identifier: MIT
 *
 * Runs commands as a pipeline, as a shell does, but with this program between them: it sees what goes from one
 * to the next.
 *
 *     run_commands [COMMAND...]      default: 'printf "pear\nfig\napple\n"' sort 'tr a-z A-Z'
 *
 * The pipes of each command are streams. A task for each joint copies lines from the stdout of one command to
 * the stdin of the next; another one prints what comes out in the end.
 */
#include <aloop.h>
#include <stdio.h>
#include <stdlib.h>

enum { COMMANDS_MAX = 16 };

typedef struct joint {
  aloop_stream_t *from;
  aloop_stream_t *to; /* NULL: print it */
  int lines;
} joint_t;

typedef struct pipeline {
  char **commands;
  int count;
  aloop_process_t *processes[COMMANDS_MAX];
  joint_t joints[COMMANDS_MAX]; /* behind each command */
} pipeline_t;

/* A command that does not want to read more is no error: the one before it is to hear of that. */
static int64_t copy_lines(aloop_t *loop, void *arg) {
  (void)loop;
  joint_t *joint = arg;
  const char *line;
  int64_t size;
  while ((size = aloop_await(aloop_stream_readline(joint->from, &line))) > 0) {
    joint->lines++;
    if (joint->to == NULL)
      printf("%s", line);
    else if (aloop_stream_write(joint->to, line, (size_t)size) < 0 ||
             aloop_await(aloop_stream_drain(joint->to)) < 0)
      break;
  }
  if (joint->to != NULL) aloop_stream_close(joint->to);
  aloop_stream_close(joint->from);
  return size < 0 ? size : 0;
}

static int64_t start_commands(aloop_t *loop, pipeline_t *line) {
  for (int i = 0; i < line->count; i++) {
    aloop_process_options_t options = {.size = sizeof options, .err.kind = ALOOP_STDIO_INHERIT};
    if (i == 0) options.in.kind = ALOOP_STDIO_INHERIT;
    int rc = aloop_await_ptr(aloop_create_subprocess_shell(loop, line->commands[i], &options, NULL),
                             &line->processes[i]);
    if (rc < 0) return rc;
    line->joints[i].from = aloop_process_stream(line->processes[i], 1);
    if (i > 0) line->joints[i - 1].to = aloop_process_stream(line->processes[i], 0);
  }
  return 0;
}

static int64_t run_pipeline(aloop_t *loop, void *arg) {
  pipeline_t *line = arg;
  aloop_future_t *copies[COMMANDS_MAX];
  int64_t rc = start_commands(loop, line);
  for (int i = 0; rc >= 0 && i < line->count; i++)
    copies[i] = aloop_create_task(loop, copy_lines, &line->joints[i], NULL);
  if (rc >= 0) rc = aloop_await(aloop_gather(loop, copies, (size_t)line->count, ALOOP_RETURN_ERRORS));
  for (int i = 0; rc >= 0 && i < line->count; i++) {
    int64_t status = aloop_await(aloop_process_wait(line->processes[i]));
    printf("'%s' wrote %d lines and %s %d\n", line->commands[i], line->joints[i].lines,
           ALOOP_EXIT_SIGNAL(status) ? "was ended by signal" : "exited with",
           ALOOP_EXIT_SIGNAL(status) ? ALOOP_EXIT_SIGNAL(status) : (int)status);
  }
  for (int i = 0; i < line->count; i++) aloop_process_unref(line->processes[i]);
  return rc;
}

int main(int argc, char **argv) {
  char print[] = "printf 'pear\\nfig\\napple\\n'", sort[] = "sort", upper[] = "tr a-z A-Z";
  char *usual[] = {print, sort, upper};
  pipeline_t line = {.commands = argc > 1 ? argv + 1 : usual, .count = argc > 1 ? argc - 1 : 3};
  if (line.count > COMMANDS_MAX) return 2;
  int64_t rc = aloop_run(run_pipeline, &line, NULL);
  if (rc < 0) fprintf(stderr, "run_commands: %s\n", aloop_strerror(rc));
  return rc < 0 ? 1 : 0;
}
